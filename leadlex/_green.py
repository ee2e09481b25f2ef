"""Threads of the system's own, also where gevent makes greenlets of all others.

asyncio runs one loop in a thread of the system's: one in a greenlet would be the only one, and everybody's.

Source: https://www.gevent.org/api/gevent.monkey.html (get_original).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Final

FOR_EVER: Final = threading.TIMEOUT_MAX
"""Seconds of a wait without an end, which gevent refuses for what another thread does."""


def system_thread(run: Callable[[], object], name: str) -> threading.Thread:
    """Return a daemon thread, which is yet to be started."""
    monkey = sys.modules.get("gevent.monkey")
    is_green = monkey is not None and monkey.is_module_patched("threading")
    return (_SystemThread if is_green else threading.Thread)(target=run, name=name, daemon=True)


class _SystemThread(threading.Thread):
    """A thread that gevent leaves alone; its events (gevent 21.1 and later) wake greenlets from any thread."""

    def start(self) -> None:
        self._over = threading.Event()
        sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")(self._go, ())

    def _go(self) -> None:
        try:
            self.run()
        finally:
            self._over.set()

    def is_alive(self) -> bool:
        return not self._over.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._over.wait(FOR_EVER if timeout is None else timeout)


def why_no_loop(error: OSError | RuntimeError) -> str:
    """Say why no event loop could be started."""
    words = f"No event loop could be started: {getattr(error, 'strerror', None) or error}."
    if not isinstance(error, RuntimeError):
        return words
    return (
        f"{words} Under eventlet, which makes greenlets of all threads, one loop can run at a time: no sandbox and no "
        "asyncio.run beside a sync client. Under gevent they can."
    )

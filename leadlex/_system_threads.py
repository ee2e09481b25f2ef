"""Threads of the system's own, also where gevent makes greenlets of all others.

asyncio runs one loop in a thread of the system's: one in a greenlet would be the only one, and everybody's.

Sources: https://www.gevent.org/api/gevent.monkey.html (get_original), https://www.gevent.org/loop_impls.html (async_).
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any


def system_thread(run: Callable[[], object], name: str) -> threading.Thread:
    """Return a daemon thread, which is yet to be started."""
    return (_SystemThread if _is_green() else threading.Thread)(target=run, name=name, daemon=True)


def system_event() -> threading.Event:
    """Return an event that a thread of the system may set for whoever waits."""
    return _GreenEvent() if _is_green() else threading.Event()


def _is_green() -> bool:
    return "gevent.monkey" in sys.modules and bool(_gevent("monkey").is_module_patched("threading"))


def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:  # noqa: ANN401  # the socket module's
    """Look up a host in a thread of the system's, where gevent's own way would need a hub of its own."""
    look_up: Any = _original("getaddrinfo", "socket") if _is_green() else socket.getaddrinfo
    return list(look_up(host, port, **options))


def _original(name: str, module: str = "_thread") -> Any:  # noqa: ANN401  # what stands in a module
    return _gevent("monkey").get_original(module, name)


def _gevent(module: str) -> Any:  # noqa: ANN401  # a module that has no types here
    return import_module(f"gevent.{module}")


class _SystemThread(threading.Thread):
    """A thread that gevent leaves alone."""

    def start(self) -> None:
        self._over = system_event()
        _original("start_new_thread")(self._go, ())

    def _go(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._over.set)
            self.run()

    def is_alive(self) -> bool:
        return not self._over.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._over.wait(timeout)


class _GreenEvent(threading.Event):
    """An event that wakes greenlets from any thread.

    gevent's own does so in the newest only: up to 26.5 a greenlet that waits for the next event may be woken by the
    last one ("Invalid switch"). A loop's async watcher alone may be used from any thread, in every version.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._watchers = set[Any]()
        self._lock = _original("allocate_lock")()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        with self._lock:
            self._is_set = True
            for watcher in self._watchers:
                watcher.send()

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        woken, watcher = _gevent("event").Event(), _gevent("hub").get_hub().loop.async_()
        watcher.start(woken.set)
        with self._lock:
            self._watchers.add(watcher)
        try:
            if not self._is_set:
                woken.wait(timeout)
            return self._is_set
        finally:
            with self._lock:
                self._watchers.discard(watcher)
            watcher.close()


def why_no_loop(error: OSError | RuntimeError) -> str:
    """Say why no event loop could be started."""
    words = f"No event loop could be started: {getattr(error, 'strerror', None) or error}."
    if not isinstance(error, RuntimeError):
        return words
    return (
        f"{words} Under eventlet, which makes greenlets of all threads, one loop can run at a time: no sandbox and no "
        "asyncio.run beside a sync client. Under gevent they can."
    )

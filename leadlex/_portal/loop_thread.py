"""From threads to the loop: the only sync code written by hand.

Rule: a call crosses once, a stream in batches, a listing page by page. Whoever waits can be interrupted, and an
interrupted call is cancelled and waited for. Nothing here keeps an interpreter from exiting, nor a fork from working.

Source: https://anyio.readthedocs.io/en/stable/threads.html (blocking portals).
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import anyio
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import EventLoopToken, current_token

from leadlex._errors import APIConnectionError, ConfigurationError
from leadlex._network.loops import run_soon
from leadlex._steady_clock import keep_time, monotonic
from leadlex._system_threads import system_event, system_thread, why_no_loop

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds of one wait: on Windows a longer one could not be interrupted (anyio issue 532)."""

GRACE: Final = 2.0
"""Seconds that an interrupted call gets to end, and a closed loop to stop."""

NOTHING_SENT: Final = {"charged": "no"}


class _Portal(BlockingPortal):
    """anyio's portal, which begins tasks in its own thread too: asked from others, each would wait for the loop."""

    def begin(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task, in the loop."""
        self._task_group.start_soon(function)


class LoopThread:
    """A daemon thread that runs an event loop, and in it anyio's blocking portal.

    A portal held by a context manager in a module's global hangs the interpreter's exit for ever; a daemon thread that
    runs the loop with the portal inside does not.

    Args:
        on_start: Called in the loop once it runs.

    Raises:
        APIConnectionError: The system gave no thread.
    """

    def __init__(self, on_start: Callable[[], object] = bool) -> None:
        self.portal: _Portal
        self._on_start = on_start
        self._process = os.getpid()
        self._ready = system_event()
        self._over = False
        self._ident: int | None = None
        self._token: EventLoopToken | None = None
        self._failure = ""
        self._thread = system_thread(self._run, "leadlex")
        try:
            self._thread.start()
        except RuntimeError as error:  # too many, or the interpreter ends
            raise APIConnectionError(f"No thread could be started: {error}.", NOTHING_SENT) from None

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            anyio.run(self._serve, backend="asyncio")
        except (OSError, RuntimeError) as error:
            self._failure = why_no_loop(error)  # not the error itself, which may hold a loop built by half
        finally:
            self._over = True
            self._ready.set()

    async def _serve(self) -> None:
        keep_time(asyncio.get_running_loop())
        async with _Portal() as self.portal:
            self._stop_asked = anyio.Event()
            self._token = current_token()
            self._ready.set()
            self._on_start()
            await self._stop_asked.wait()
            await self.portal.stop(cancel_remaining=True)

    @property
    def lives(self) -> bool:
        """Tell whether calls can be made: it has not ended, and this is its process."""
        return not self._over and self._process == os.getpid()

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in this very thread, where waiting would be for ever."""
        return threading.get_ident() == self._ident  # a forked child never asks: it is told that no loop lives

    def wait_until_ready(self) -> None:
        """Wait until the loop runs.

        Raises:
            ConfigurationError: The caller runs in the loop's thread itself, as a hook does.
            APIConnectionError: The system gave no loop, for example for want of file descriptors.
        """
        if self.is_here:
            raise ConfigurationError("A sync call can't be made from the thread of all sync clients, as from a hook.")
        if self._token is None:
            self.wait(self._ready)
        if self._token is None:
            raise APIConnectionError(self._failure, NOTHING_SENT)

    def run_soon(self, function: Callable[..., object], *args: object) -> bool:
        """Run a function in the loop, without waiting; tell whether there still is one in this process."""
        if self._token is None or self._process != os.getpid():
            return False
        return run_soon(self._token, function, *args)

    def wait(self, event: threading.Event, seconds: float = float("inf")) -> None:
        """Wait in slices, so that Ctrl-C is heard everywhere; no longer than the loop lives, and never in it."""
        ends = monotonic() + seconds
        while not (self.is_here or event.wait(min(SLICE, max(0.0, ends - monotonic())))):
            if not self.lives or monotonic() >= ends:
                return

    def stop(self) -> None:
        """End the loop, from inside of it."""
        self._stop_asked.set()

    def join(self) -> None:
        """Wait until the thread has ended; never in it."""
        if not self.is_here:
            self._thread.join(GRACE)

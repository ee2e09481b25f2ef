"""From threads to the loop: the only sync code written by hand.

Rule: a call crosses once, a stream in batches, a listing page by page. Whoever waits can be interrupted, and an
interrupted call is cancelled and waited for. Nothing here keeps an interpreter from exiting, nor a fork from working.

Source: https://anyio.readthedocs.io/en/stable/threads.html (blocking portals).
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

import anyio
from anyio import RunFinishedError
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import EventLoopToken, current_token

from leadlex._errors import APIConnectionError, ClientClosedError, ConfigurationError, LeadLexError
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


class Process:
    """What all clients of one process share: the thread of their loop, which begins and ends with them."""

    def __init__(self, id: int) -> None:  # noqa: A002  # the system's word
        self.id: int = id
        self.lock: threading.RLock = threading.RLock()  # a signal's handler may close while a call begins
        self.thread: LoopThread | None = None

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in it."""
        return self.id == os.getpid()

    def lane(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> Lane:
        """Return a lane for one more client, under the lock."""
        if self.thread is None or not self.thread.lives:
            self.thread = LoopThread(self)
        lane = Lane(self.thread, aclose)
        self.thread.lanes.add(lane)
        return lane

    def leave(self, thread: LoopThread, lane: Lane) -> None:
        """Give a lane back; the last one's end is the thread's."""
        with self.lock:
            thread.lanes.discard(lane)
            if not thread.lanes:
                self.thread = None
                thread.stop()


_processes: Final[dict[int, Process]] = {}


def process_here() -> Process:
    """Return what this process shares. A forked child has its own: not every fork tells, and locks may be held."""
    process = os.getpid()
    return _processes.get(process) or _processes.setdefault(process, Process(process))


class LoopThread:
    """Run an event loop, and in it anyio's blocking portal, in a daemon thread.

    A portal held by a context manager in a module's global hangs the interpreter's exit for ever; a daemon thread that
    runs the loop with the portal inside does not.

    Args:
        process: Whose it is.

    Raises:
        APIConnectionError: The system gave no thread.
    """

    def __init__(self, process: Process) -> None:
        self.lanes: set[Lane] = set()
        self.process: Process = process
        self.portal: _Portal
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
        async with _Portal() as self.portal:
            self._stop_asked = anyio.Event()
            self._token = current_token()
            self._ready.set()
            for lane in tuple(self.lanes):
                lane.close_if_asked()
            await self._stop_asked.wait()
            await self.portal.stop(cancel_remaining=True)

    @property
    def lives(self) -> bool:
        """Tell whether calls can be made: it has not ended, and this is its process."""
        return not self._over and self.process.is_here

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in this very thread, where waiting would be for ever."""
        return threading.get_ident() == self._ident and self.process.is_here

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

    def soon(self, function: Callable[..., object], *args: object) -> bool:
        """Run a function in the loop, without waiting; tell whether there still is one in this process."""
        if self._token is None or not self.process.is_here:
            return False
        try:
            self._token.backend_class.run_sync_soon(function, args, self._token.native_token)
        except RunFinishedError:
            return False
        return True

    def wait(self, sign: threading.Event, seconds: float = float("inf")) -> None:
        """Wait in slices, so that Ctrl-C is heard everywhere; no longer than the loop lives, and never in it."""
        ends = time.monotonic() + seconds
        while not (self.is_here or sign.wait(min(SLICE, max(0.0, ends - time.monotonic())))):
            if not self.lives or time.monotonic() >= ends:
                return

    def stop(self) -> None:
        """End the loop, from inside of it."""
        self._stop_asked.set()

    def join(self) -> None:
        """Wait until the thread has ended, if nobody needs it any more."""
        if not (self.lanes or self.is_here):
            self._thread.join(GRACE)


class Lane:
    """The calls of one client in the loop of all, which end with that client.

    Args:
        thread: The loop's.
        aclose: Closes the client, in the loop.
    """

    def __init__(self, thread: LoopThread, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.thread: LoopThread = thread
        self.is_closing: bool = False
        self._ended = system_event()
        self._aclose = aclose
        self._calls: set[Call[Any]] = set()
        self._left: anyio.Event | None = None
        self._error: BaseException | None = None

    def start(self, call: Call[Any]) -> None:
        """Begin a call in the loop.

        Raises:
            ConfigurationError: The caller runs in the loop's thread itself, as a hook does.
            ClientClosedError: The client is closed.
            APIConnectionError: The system gave no loop, for example for want of file descriptors.
        """
        self.thread.wait_until_ready()
        call.lane = self
        if not self.thread.soon(self._begin, call):
            call.lane = None
            raise ClientClosedError(facts=NOTHING_SENT)

    def _begin(self, call: Call[Any]) -> None:
        """Start a call, in the loop, unless the client is closing."""
        if self._left is None:
            self._calls.add(call)
            self.thread.portal.begin(call.run)
        else:
            call.refuse()

    def leave(self, call: Call[Any]) -> None:
        """Forget a call that has ended, in the loop."""
        self._calls.discard(call)
        if self._left is not None and not self._calls:
            self._left.set()

    def stop(self) -> None:
        """End the client and its calls, without waiting."""
        self.is_closing = True
        self.thread.soon(self.close_if_asked)

    def close_if_asked(self) -> None:
        """Begin to close, in the loop, once."""
        if self.is_closing and self._left is None:
            self._left = anyio.Event()
            self.thread.portal.begin(self._close)

    async def _close(self) -> None:
        try:
            await self._aclose()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that closes; the loop is everybody's
            self._error = error
        for call in tuple(self._calls):
            call.make_way()
        if self._calls:
            await self._left.wait()  # type: ignore[union-attr]  # made before this began
        self.thread.process.leave(self.thread, self)
        self._ended.set()

    def join(self) -> None:
        """Wait until all has ended, and raise what closing raised."""
        self.thread.wait(self._ended, GRACE)
        self.thread.join()
        if self._error is not None:
            raise self._error


class Call(Generic[T]):
    """Carry one coroutine over, and its outcome back.

    Args:
        coroutine: What runs in the loop.
        outlasts: Whether it ends by itself when the client is closed, so that its outcome is known.
        refused: Called in the loop if it is not taken, for those who wait for other signs than its end.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], *, outlasts: bool = True, refused: Callable[[], object] = bool
    ) -> None:
        self.lane: Lane | None = None
        self.was_refused: bool = False
        self.ended: threading.Event = system_event()
        self._coroutine = coroutine
        self._outlasts = outlasts
        self._refused = refused
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._error: BaseException | None = None
        self._value: list[T] = []

    @property
    def has_begun(self) -> bool:
        """Tell whether the loop took it."""
        return self._scope is not None

    def refuse(self) -> None:
        """Tell that the client is closing, in the loop."""
        self.was_refused = True
        self.ended.set()
        self._refused()

    async def run(self) -> None:
        """Await the coroutine, in the loop, unless it was cancelled before."""
        try:
            if not self._cancelled:
                with anyio.CancelScope() as self._scope:
                    self._value.append(await self._coroutine)
        except asyncio.CancelledError:
            pass  # the group of all calls would end with one that raises it
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            self._error = error
        finally:
            self.ended.set()
            self.lane.leave(self)  # type: ignore[union-attr]  # it began there

    def make_way(self) -> None:
        """End with the client, in the loop."""
        if not self._outlasts:
            self._cancel()

    def _cancel(self) -> None:
        """Cancel the coroutine, in the loop; what has not begun by now never will."""
        self._cancelled = True
        if self._scope is None:
            self.ended.set()
        else:
            self._scope.cancel()

    def cancel(self) -> bool:
        """Cancel the coroutine, without waiting; tell whether there is a loop to do so."""
        return self.lane is not None and self.lane.thread.soon(self._cancel)

    def abandon(self) -> None:
        """Cancel the coroutine and wait for its end."""
        lane = self.lane
        if lane is not None and self.cancel():
            lane.thread.wait(self.ended, GRACE)
        self._close_unbegun()

    def _close_unbegun(self) -> None:
        if not self.has_begun:
            self._coroutine.close()

    def result(self) -> T:
        """Return or raise what came out."""
        if self._error is not None:
            raise self._error
        if not self._value:
            self._close_unbegun()
            error = self._nothing()
            error.charged = "unknown" if self.has_begun else "no"
            raise error
        return self._value[0]

    def _nothing(self) -> LeadLexError:
        if self.lane is not None and self.lane.is_closing:
            return ClientClosedError("The client was closed during the call.")
        return APIConnectionError("A hook or a transport cancelled the call, or stopped the client's event loop.")

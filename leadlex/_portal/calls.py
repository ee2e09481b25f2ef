"""The calls of the sync clients of a process, all in one loop.

Rule: whoever waits can be interrupted, and an interrupted call is cancelled and waited for. A client's calls end with
it; the last client's end is the loop's.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

import anyio

from leadlex._errors import APIConnectionError, ClientClosedError, LeadLexError
from leadlex._system_threads import system_event

from .loop_thread import GRACE, NOTHING_SENT, LoopThread

T = TypeVar("T")


class Process:
    """What all clients of one process share: the thread of their loop, which begins and ends with them."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()  # a signal's handler may close while a call begins
        self.thread: LoopThread | None = None
        self._groups: set[CallGroup] = set()

    def group(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> CallGroup:
        """Return the group of one more client's calls, under the lock."""
        if self.thread is None or not self.thread.lives:
            self._groups.clear()
            self.thread = LoopThread(self._close_what_was_asked)
        group = CallGroup(self, self.thread, aclose)
        self._groups.add(group)
        return group

    def _close_what_was_asked(self) -> None:
        for group in tuple(self._groups):
            group.close_if_asked()

    def leave(self, group: CallGroup) -> None:
        """Give a group back; the last one's end is the thread's."""
        with self.lock:
            self._groups.discard(group)
            if not self._groups:
                self.thread = None
                group.thread.stop()


_processes: Final[dict[int, Process]] = {}


def current_process() -> Process:
    """Return what this process shares. A forked child has its own: not every fork tells, and locks may be held."""
    process = os.getpid()
    return _processes.get(process) or _processes.setdefault(process, Process())


class CallGroup:
    """The calls of one client in the loop of all, which end with that client.

    Args:
        process: Whose they are.
        thread: The loop's.
        aclose: Closes the client, in the loop.
    """

    def __init__(self, process: Process, thread: LoopThread, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.thread: LoopThread = thread
        self._process = process
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
        call.group = self
        if not self.thread.run_soon(self._begin, call):
            call.group = None
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
        self.thread.run_soon(self.close_if_asked)

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
            call.end_with_client()
        if self._calls:
            await self._left.wait()  # type: ignore[union-attr]  # made before this began
        self._process.leave(self)
        self._ended.set()

    def join(self) -> None:
        """Wait until all has ended, and raise what closing raised."""
        self.thread.wait(self._ended, GRACE)
        if self._process.thread is not self.thread:
            self.thread.join()
        if self._error is not None:
            raise self._error


class Call(Generic[T]):
    """One coroutine on its way over, and its outcome on its way back.

    Args:
        coroutine: What runs in the loop.
        outlasts: Whether it ends by itself when the client is closed, so that its outcome is known.
        refused: Called in the loop if it is not taken, for those who wait for other signs than its end.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], *, outlasts: bool = True, refused: Callable[[], object] = bool
    ) -> None:
        self.group: CallGroup | None = None
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
            self.group.leave(self)  # type: ignore[union-attr]  # it began there

    def end_with_client(self) -> None:
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
        return self.group is not None and self.group.thread.run_soon(self._cancel)

    def abandon(self) -> None:
        """Cancel the coroutine and wait for its end."""
        group = self.group
        if group is not None and self.cancel():
            group.thread.wait(self.ended, GRACE)
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
        if self.group is not None and self.group.is_closing:
            return ClientClosedError("The client was closed during the call.")
        return APIConnectionError("A hook or a transport cancelled the call, or stopped the client's event loop.")

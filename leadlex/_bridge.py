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
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

import anyio
from anyio import RunFinishedError
from anyio.abc import TaskGroup, TaskStatus
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import EventLoopToken, current_token

from ._errors import APIConnectionError, ClientClosedError, ConfigurationError, StreamBusyError, StreamInterruptedError
from ._events import StreamEvent, TextDelta, size_of
from ._pager import Batched
from ._stream import AsyncChatStream, read_batch

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds of one wait: on Windows a longer one could not be interrupted (anyio issue 532)."""

BUFFER: Final = 512
"""Events that a stream reads ahead."""

BUFFER_SIZE: Final = 4 << 20
"""Bytes of events that a stream reads ahead."""

_GRACE: Final = 2.0
"""Seconds that an interrupted call gets to end, and a closed loop to stop."""


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a coroutine's value
    raise RuntimeError("This coroutine waits.")


# The loop's thread -------------------------------------------------------------------------------------------------


class _LoopThread:
    """Run an event loop, and in it anyio's blocking portal, in a daemon thread.

    A portal held by a context manager in a module's global hangs the interpreter's exit for ever; a daemon thread that
    runs the loop with the portal inside does not.

    Args:
        aclose: Run before the loop ends.

    Raises:
        APIConnectionError: The system gave no thread.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.process: int = os.getpid()
        self._aclose = aclose
        self._ready = threading.Event()
        self._token: EventLoopToken | None = None
        self._group: TaskGroup | None = None
        self._lock = threading.RLock()  # as the bridge's
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="leadlex", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            raise APIConnectionError("No thread could be started: are there too many?") from None

    def _run(self) -> None:
        with suppress(OSError):  # no descriptors for a loop; `start` tells
            anyio.run(self._serve, backend="asyncio")
        self._ready.set()

    async def _serve(self) -> None:
        async with BlockingPortal() as self._portal:
            self._stop_asked = anyio.Event()
            self._token = current_token()
            self._ready.set()
            if not self._is_stopping:
                await self._stop_asked.wait()
            await self._aclose()
            await self._portal.stop(cancel_remaining=True)

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in this very thread, where waiting would be for ever."""
        return threading.current_thread() is self._thread

    @property
    def has_failed(self) -> bool:
        """Tell whether no loop came about."""
        return self._ready.is_set() and self._token is None

    def start(self, call: _Call[Any]) -> None:
        """Begin a call in the loop.

        Raises:
            ConfigurationError: The caller runs in the loop's thread itself, as a hook does.
            ClientClosedError: The loop has ended.
            APIConnectionError: The system gave no loop, for example for want of file descriptors.
        """
        if self.is_here:
            raise ConfigurationError("A sync call can't be made from the client's own thread, as from a hook.")
        self.wait(self._ready)
        if self._token is None:
            raise APIConnectionError("No event loop could be started: are there too many open files?")
        with self._lock:
            if self._group is None:
                self._open_group()
        call.thread = self
        if not self.soon(self._begin, call):
            call.thread = None
            raise ClientClosedError

    def _open_group(self) -> None:
        try:
            self._portal.start_task(self._hold_group)
        except RuntimeError:
            raise ClientClosedError from None

    async def _hold_group(self, *, task_status: TaskStatus[None]) -> None:
        """Run all calls in one task of the portal's, which would wait for the loop twice for a task of its own."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await self._portal.sleep_until_stopped()

    def _begin(self, call: _Call[Any]) -> None:
        """Start a call, in the loop, unless it is ending."""
        try:
            self._group.start_soon(call.run)  # type: ignore[union-attr]  # it is open by now
        except RuntimeError:
            call.ended.set()

    def soon(self, function: Callable[..., object], *args: object) -> bool:
        """Run a function in the loop, without waiting; tell whether there still is one in this process."""
        if self._token is None or self.process != os.getpid():
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
            if not self._thread.is_alive() or time.monotonic() >= ends:
                return

    def stop(self) -> None:
        """End the loop and what still runs in it, without waiting."""
        self._is_stopping = True
        if self._token is not None:
            self.soon(self._stop_asked.set)

    def join(self) -> None:
        """Wait until the thread has ended."""
        if not self.is_here:
            self._thread.join(_GRACE)


class _Call(Generic[T]):
    """Carry one coroutine over, and its outcome back.

    Args:
        coroutine: What runs in the loop.
        outlasts: Whether it ends by itself when the client is closed, so that its outcome is known.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], *, outlasts: bool = True) -> None:
        self.thread: _LoopThread | None = None
        self.ended: threading.Event = threading.Event()
        self._coroutine = coroutine
        self._outlasts = outlasts
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._error: BaseException | None = None
        self._value: list[T] = []

    @property
    def has_begun(self) -> bool:
        """Tell whether the loop took it."""
        return self._scope is not None

    async def run(self) -> None:
        """Await the coroutine, in the loop, unless it was cancelled before."""
        if self._cancelled:
            return
        try:
            with anyio.CancelScope(shield=self._outlasts) as self._scope:
                self._value.append(await self._coroutine)
        except asyncio.CancelledError:
            pass  # the group of all calls would end with one that raises it
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits
            self._error = error
        finally:
            self.ended.set()

    def _cancel(self) -> None:
        """Cancel the coroutine, in the loop; what has not begun by now never will."""
        self._cancelled = True
        if self._scope is None:
            self.ended.set()
        else:
            self._scope.cancel()

    def cancel(self) -> bool:
        """Cancel the coroutine, without waiting; tell whether there is a loop to do so."""
        return self.thread is not None and self.thread.soon(self._cancel)

    def abandon(self) -> None:
        """Cancel the coroutine and wait for its end."""
        thread = self.thread
        if thread is not None and self.cancel():
            thread.wait(self.ended, _GRACE)
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
            error = ClientClosedError("The client was closed during the call.")
            error.charged = "unknown" if self.has_begun else "no"
            raise error
        return self._value[0]


class Bridge:
    """Run the coroutines of one client in its loop's thread, which starts when it is first needed.

    Args:
        aclose: Closes the client, in the loop.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._aclose = aclose
        self._lock = threading.RLock()  # a signal's handler may close while a call begins
        self._thread: _LoopThread | None = None
        self._closed = False
        _bridges.add(self)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it gives; Ctrl-C cancels it and waits for its end."""
        call = _Call(coroutine)
        try:
            thread = self.thread()
            thread.start(call)
            thread.wait(call.ended)
        except BaseException:
            call.abandon()
            raise
        return call.result()

    def thread(self) -> _LoopThread:
        """Return the running loop's thread.

        Raises:
            ClientClosedError: The client is closed.
        """
        with self._lock:
            if self._closed:
                raise ClientClosedError
            if self._thread is None or self._thread.has_failed:
                self._thread = _LoopThread(self._aclose)
                weakref.finalize(self, self._thread.stop).atexit = False
            return self._thread

    def lend(self) -> Bridge:
        """Return a bridge to the same loop, for a copy of the client, whose closing does nothing."""
        return _Borrowed(self)

    def close(self) -> None:
        """Close the client, then end its loop; closing twice is fine."""
        with self._lock:
            self._closed, thread, self._thread = True, self._thread, None
        if thread is None:
            _drive(self._aclose())
        else:
            thread.stop()
            thread.join()

    def forget(self) -> None:
        """Begin anew in a forked child, where the loop's thread is gone and the lock may be held."""
        self._lock = threading.RLock()
        self._thread = None


class _Borrowed(Bridge):
    def __init__(self, lender: Bridge) -> None:
        self._lender = lender

    def thread(self) -> _LoopThread:
        return self._lender.thread()

    def close(self) -> None:
        """Leave what belongs to another."""


_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()


def _forget_all() -> None:
    for bridge in list(_bridges):
        bridge.forget()


with suppress(AttributeError):  # Windows does not fork
    os.register_at_fork(after_in_child=_forget_all)


# Listings ----------------------------------------------------------------------------------------------------------


class Batches(Iterator[T]):
    """Iterate over a listing with one crossing for each page."""

    def __init__(self, bridge: Bridge, source: Batched[T]) -> None:
        self._bridge = bridge
        self._source = source
        self._left: deque[T] = deque()

    def __next__(self) -> T:
        if not self._left:
            self._left.extend(self._bridge.call(self._next_batch()))
        if not self._left:
            raise StopIteration
        return self._left.popleft()

    async def _next_batch(self) -> list[T]:
        return list(await self._source.next_batch())


# Streams -----------------------------------------------------------------------------------------------------------


class _Buffer:
    """Hold what was read ahead; the loop's side of a pump, which must not hold the user's side."""

    def __init__(self, stream: AsyncChatStream) -> None:
        self.stream = stream
        self.events: deque[StreamEvent] = deque()
        self.filled = threading.Event()
        self.over = threading.Event()
        self.error: BaseException | None = None
        self.whole = False
        self._keeps = True
        self._size = 0
        self._room: anyio.Event | None = None

    @property
    def ended(self) -> bool:
        """Tell whether nothing more will be read."""
        return self.over.is_set()

    async def fill(self) -> None:
        """Read the stream to its end, pausing while the buffer is full."""
        try:
            while events := await read_batch(self.stream):
                if self._keeps:
                    # The reader takes events without counting: the size is that since the buffer was last seen empty.
                    self._size = sum(map(size_of, events)) + (self._size if self.events else 0)
                    self.events.extend(events)
                    self.filled.set()
                if self.events and (len(self.events) >= BUFFER or self._size >= BUFFER_SIZE):
                    await self._wait_for_room()
            self.whole = True
        except Exception as error:  # noqa: BLE001  # raised again in the thread that reads
            self.error = error
        finally:
            with anyio.CancelScope(shield=True):
                await self.stream.aclose()
            self.end()

    def end(self) -> None:
        """Let nobody wait for more."""
        self.over.set()
        self.filled.set()

    async def _wait_for_room(self) -> None:
        # Whoever empties the buffer asks for room afterwards, in this loop: not before this waits.
        self._room = anyio.Event()
        await self._room.wait()
        self._room = None

    def make_room(self) -> None:
        """Go on reading, in the loop."""
        if self._room is not None:
            self._room.set()

    def skip(self) -> None:
        """Read on without keeping, in the loop."""
        self._keeps = False
        self.events.clear()
        self.make_room()

    def cut_off(self) -> None:
        """Forget what was read ahead of a stream that was closed, so that its end is not taken for the answer's."""
        if self.events:
            self.events.clear()
            self.error = StreamInterruptedError("The stream was closed before its end.", self.stream.idempotency_key)
            self.error.partial, self.error.charged = self.stream.reply, self.stream.charged


class Pump(Iterator[StreamEvent]):
    """Bring the events of a stream over in batches: one task reads ahead, the reader takes all that is there."""

    def __init__(self, bridge: Bridge, stream: AsyncChatStream) -> None:
        self._bridge = bridge
        self._stream = stream
        self._buffer = _Buffer(stream)
        self._reader = threading.Lock()
        self._task: _Call[None] | None = None
        self._closed = False

    def __next__(self) -> StreamEvent:
        if not self._reader.acquire(blocking=False):
            raise StreamBusyError
        try:
            return self._next()
        finally:
            self._reader.release()

    def _next(self) -> StreamEvent:
        while True:
            try:  # suppress costs a microsecond an event
                return self._buffer.events.popleft()
            except IndexError:
                pass
            self._refill()  # out here, so that what it raises has no IndexError for its context

    def _refill(self) -> None:
        """Wait until there is something, or raise what ended the stream."""
        buffer = self._buffer
        if buffer.ended and not buffer.events:
            self._raise_end()
        buffer.filled.clear()
        if buffer.events or buffer.ended:
            return
        try:
            self._pump(buffer.make_room, buffer.filled)
        except BaseException:
            self.close()
            raise

    def _pump(self, act: Callable[[], None], sign: threading.Event) -> None:
        """Have the loop read on in some way, and wait for a sign of it."""
        if self._task is None:
            thread = self._bridge.thread()
            self._task = _Call(self._buffer.fill(), outlasts=False)
            thread.start(self._task)
        loop = self._task.thread
        if loop is None or not loop.soon(act):
            raise self._orphaned()
        loop.wait(sign)

    def _orphaned(self) -> ClientClosedError:
        error = ClientClosedError("The client was closed, or the stream belongs to the process that forked this one.")
        error.charged, error.partial = self._stream.charged, self._stream.reply
        return error

    def _raise_end(self) -> NoReturn:
        if self._buffer.error is not None:
            raise self._buffer.error
        if not self._buffer.whole:
            _drive(self._stream.final_reply())
        raise StopIteration

    def text_stream(self) -> Iterator[str]:
        """Iterate over the text alone."""
        return _Texts(self)

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Read what is left, then run a coroutine that needs the stream at its end."""
        if not self._reader.acquire(blocking=False):
            coroutine.close()
            raise StreamBusyError
        try:
            while not self._buffer.ended:
                self._pump(self._buffer.skip, self._buffer.over)
            return _drive(coroutine)
        except BaseException:
            coroutine.close()
            self.close()
            raise
        finally:
            self._reader.release()

    def close(self) -> None:
        """Stop reading and free the connection; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.abandon()
        if self._task is None or not self._task.has_begun:
            _drive(self._stream.aclose())
            self._buffer.end()
        self._buffer.cut_off()

    def __del__(self) -> None:
        # A finalizer may run in any thread, the loop's too: it asks, and never waits.
        task = getattr(self, "_task", None)
        if task is not None and not (self._closed or self._buffer.ended):
            task.cancel()
            warnings.warn(
                "A ChatStream was left before its end and never closed", ResourceWarning, source=self, stacklevel=1
            )


class _Texts(Iterator[str]):
    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        for event in self._pump:
            if type(event) is TextDelta:
                return event.delta
        raise StopIteration

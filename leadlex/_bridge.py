"""From threads to the loop: the only sync code written by hand.

Rule: a call crosses once, a stream in batches, a listing page by page. Whoever waits can be interrupted, and an
interrupted call is cancelled and waited for. Nothing here keeps an interpreter from exiting, nor a fork from working.

Source: https://anyio.readthedocs.io/en/stable/threads.html (blocking portals).
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Generic, Self, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal

from ._errors import APIConnectionError, ClientClosedError, ConfigurationError, StreamBusyError, StreamInterruptedError
from ._events import StreamEvent, TextDelta
from ._pager import Batched
from ._stream import AsyncChatStream, read_batch

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds of one wait: on Windows a longer one could not be interrupted (anyio issue 532)."""

BUFFER: Final = 512
"""Events that a stream reads ahead."""

_GRACE: Final = 2.0
"""Seconds that an interrupted call gets to end, and a closed loop to stop."""


def _wait(sign: threading.Event, seconds: float | None = None) -> bool:
    """Wait in slices, so that Ctrl-C is heard everywhere."""
    left = seconds
    while not sign.wait(SLICE if left is None else min(SLICE, left)):
        if left is not None:
            left -= SLICE
            if left <= 0:
                return False
    return True


# The loop's thread -------------------------------------------------------------------------------------------------


class _LoopThread:
    """Run an event loop, and in it anyio's portal, in a daemon thread.

    A portal held by a context manager in a module's global hangs the interpreter's exit for ever; a daemon thread that
    runs the loop with the portal inside does not.

    Args:
        aclose: Run before the loop ends.

    Raises:
        APIConnectionError: The system gave no loop, for example for want of file descriptors.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.process: int = os.getpid()
        self.portal: BlockingPortal | None = None
        self._aclose = aclose
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leadlex", daemon=True)
        self._thread.start()
        _wait(self._ready)
        if self.portal is None:
            raise APIConnectionError("No event loop could be started: are there too many open files?")

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except OSError:
            self._ready.set()

    async def _serve(self) -> None:
        async with BlockingPortal() as portal:
            self._loop, self.portal = asyncio.get_running_loop(), portal
            self._ready.set()
            await portal.sleep_until_stopped()
            await self._aclose()
            await portal.stop(cancel_remaining=True)

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in this very thread, where waiting would be for ever."""
        return threading.current_thread() is self._thread

    def start(self, call: _Call[Any]) -> None:
        """Begin a call in the loop.

        Raises:
            ConfigurationError: The caller runs in the loop's thread itself, as a hook does.
            ClientClosedError: The loop has ended.
        """
        if self.is_here:
            raise ConfigurationError("A sync call can't be made from the client's own thread, as from a hook.")
        try:
            cast("BlockingPortal", self.portal).start_task_soon(call.run)
        except RuntimeError:
            raise ClientClosedError from None

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in the loop, without waiting; nothing happens where the loop has ended."""
        if self.process != os.getpid():
            return
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            return

    def stop(self) -> None:
        """End the loop and what still runs in it, without waiting."""
        portal = cast("BlockingPortal", self.portal)
        self.soon(lambda: setattr(self, "_stopping", self._loop.create_task(portal.stop())))

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join(_GRACE)


class _Call(Generic[T]):
    """Carry one coroutine over, and its outcome back."""

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False
        self._error: BaseException | None = None
        self._value: list[T] = []
        self.ended: threading.Event = threading.Event()

    async def run(self) -> None:
        """Await the coroutine, in the loop."""
        try:
            with anyio.CancelScope() as self._scope:
                if self._cancelled:
                    self._scope.cancel()
                self._value.append(await self._coroutine)
        except Exception as error:  # noqa: BLE001  # raised again in the thread that waits
            self._error = error
        finally:
            self.ended.set()

    def cancel(self) -> None:
        """Cancel the coroutine, in the loop."""
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    def result(self) -> T:
        """Return or raise what came out."""
        if self._error is not None:
            raise self._error
        if not self._value:
            raise ClientClosedError("The client was closed during the call.")
        return self._value[0]


class Bridge:
    """Run the coroutines of one client in its loop's thread, which starts when it is first needed.

    Args:
        aclose: Closes the client, in the loop.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._aclose = aclose
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._closed = False
        _bridges.add(self)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it gives; Ctrl-C cancels it and waits for its end."""
        call = _Call(coroutine)
        try:
            thread = self.thread()
            thread.start(call)
        except BaseException:
            coroutine.close()
            raise
        try:
            _wait(call.ended)
        except BaseException:
            thread.soon(call.cancel)
            _wait(call.ended, _GRACE)
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
            if self._thread is None:
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
        if thread is not None:
            thread.stop()
            thread.join()

    def forget(self) -> None:
        """Begin anew in a forked child, where the loop's thread is gone and the lock may be held."""
        self._lock = threading.Lock()
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


if hasattr(os, "register_at_fork"):
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
        self.error: BaseException | None = None
        self.ended = False
        self.whole = False
        self.keeps = True
        self._room: anyio.Event | None = None

    async def fill(self) -> None:
        """Read the stream to its end, pausing while the buffer is full."""
        try:
            while events := await read_batch(self.stream):
                if self.keeps:
                    self.events.extend(events)
                    self.filled.set()
                if len(self.events) >= BUFFER:
                    await self._wait_for_room()
            self.whole = True
        except Exception as error:  # noqa: BLE001  # raised again in the thread that reads
            self.error = error
        finally:
            with anyio.CancelScope(shield=True):
                await self.stream.aclose()
            self.ended = True
            self.filled.set()

    async def _wait_for_room(self) -> None:
        self._room = anyio.Event()
        if self.events and self.keeps:
            await self._room.wait()
        self._room = None

    def make_room(self) -> None:
        """Go on reading, in the loop."""
        if self._room is not None:
            self._room.set()

    def skip(self) -> None:
        """Read on without keeping, in the loop."""
        self.keeps = False
        self.events.clear()
        self.make_room()

    def cut_off(self) -> None:
        """Forget what was read ahead of a stream that was closed, so that its end is not taken for the answer's."""
        self.events.clear()
        self.error = StreamInterruptedError("The stream was closed before its end.", self.stream.idempotency_key)
        self.error.partial, self.error.charged = self.stream.reply, self.stream.charged


class Pump(Iterator[StreamEvent]):
    """Bring the events of a stream over in batches: one task reads ahead, the reader takes all that is there."""

    def __init__(self, bridge: Bridge, stream: AsyncChatStream) -> None:
        self._bridge = bridge
        self._buffer = _Buffer(stream)
        self._reader = threading.Lock()
        self._task: _Call[None] | None = None
        self._thread: _LoopThread | None = None
        self._closed = False

    def __next__(self) -> StreamEvent:
        if not self._reader.acquire(blocking=False):
            raise StreamBusyError
        try:
            return self._next()
        finally:
            self._reader.release()

    def _next(self) -> StreamEvent:
        events = self._buffer.events
        while not events:
            self._refill()
        return events.popleft()

    def _refill(self) -> None:
        """Wait until there is something, or raise what ended the stream."""
        buffer = self._buffer
        if buffer.ended and not buffer.events:
            self._raise_end()
        buffer.filled.clear()
        if buffer.events or buffer.ended:
            return
        try:
            self._start().soon(buffer.make_room)
            _wait(buffer.filled)
        except BaseException:
            self.close()
            raise

    def _start(self) -> _LoopThread:
        if self._task is None:
            thread, task = self._bridge.thread(), _Call(self._buffer.fill())
            thread.start(task)
            self._thread, self._task = thread, task
        if self._thread is None or self._thread.process != os.getpid():
            raise ClientClosedError("A stream can be read only in the process that began it.")
        return self._thread

    def _raise_end(self) -> None:
        if self._buffer.error is not None:
            raise self._buffer.error
        if not self._buffer.whole:
            self._bridge.call(self._check_end())
        raise StopIteration

    async def _check_end(self) -> None:
        async for _ in self._buffer.stream:
            pass

    def text_stream(self) -> Iterator[str]:
        """Iterate over the text alone."""
        return _Texts(self)

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Read what is left, then run a coroutine that needs the stream at its end."""
        if self._task is None:
            return self._bridge.call(coroutine)
        if self._thread is not None:
            self._thread.soon(self._buffer.skip)
        try:
            _wait(self._task.ended)
        except BaseException:
            coroutine.close()
            self.close()
            raise
        return self._bridge.call(coroutine)

    def close(self) -> None:
        """Stop reading and free the connection; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        if self._task is None or self._thread is None:
            self._buffer.ended = True
            self._bridge.call(self._buffer.stream.aclose())
            return
        self._thread.soon(self._task.cancel)
        _wait(self._task.ended, _GRACE)
        if self._buffer.events:
            self._buffer.cut_off()

    def __del__(self) -> None:
        # A finalizer may run in any thread, the loop's too: it asks, and never waits.
        task, thread = getattr(self, "_task", None), getattr(self, "_thread", None)
        if task is not None and thread is not None and not task.ended.is_set():
            thread.soon(task.cancel)
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

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
from typing import Any, Final, Generic, NoReturn, Self, TypeVar

import anyio
from anyio import RunFinishedError
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import EventLoopToken, current_token

from ._errors import (
    APIConnectionError,
    ClientClosedError,
    ConfigurationError,
    LeadLexError,
    StreamInterruptedError,
)
from ._events import StreamEvent, TextDelta, size_of
from ._green import system_event, system_thread, why_no_loop
from ._pager import Batched
from ._stream import AsyncChatStream, about, busy, read_batch

T = TypeVar("T")

SLICE: Final = 0.1
"""Seconds of one wait: on Windows a longer one could not be interrupted (anyio issue 532)."""

BUFFER: Final = 512
"""Events that a stream reads ahead."""

BUFFER_SIZE: Final = 4 << 20
"""Bytes of events that a stream reads ahead."""

_GRACE: Final = 2.0
"""Seconds that an interrupted call gets to end, and a closed loop to stop."""


_NOTHING_SENT: Final = {"charged": "no"}


def _drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a coroutine's value
    raise RuntimeError("This coroutine waits.")


# The loop's thread -------------------------------------------------------------------------------------------------


class _Portal(BlockingPortal):
    """anyio's portal, which begins tasks in its own thread too: asked from others, each would wait for the loop."""

    def begin(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin a task, in the loop."""
        self._task_group.start_soon(function)


class _Process:
    """What all clients of one process share: the thread of their loop, which begins and ends with them."""

    def __init__(self, id: int) -> None:  # noqa: A002  # the system's word
        self.id: int = id
        self.lock: threading.RLock = threading.RLock()  # a signal's handler may close while a call begins
        self.thread: _LoopThread | None = None

    @property
    def is_here(self) -> bool:
        """Tell whether the caller runs in it."""
        return self.id == os.getpid()

    def lane(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> _Lane:
        """Return a lane for one more client, under the lock."""
        if self.thread is None or not self.thread.lives:
            self.thread = _LoopThread(self)
        lane = _Lane(self.thread, aclose)
        self.thread.lanes.add(lane)
        return lane

    def leave(self, thread: _LoopThread, lane: _Lane) -> None:
        """Give a lane back; the last one's end is the thread's."""
        with self.lock:
            thread.lanes.discard(lane)
            if not thread.lanes:
                self.thread = None
                thread.stop()


_processes: Final[dict[int, _Process]] = {}


def _here() -> _Process:
    """Return what this process shares. A forked child has its own: not every fork tells, and locks may be held."""
    process = os.getpid()
    return _processes.get(process) or _processes.setdefault(process, _Process(process))


class _LoopThread:
    """Run an event loop, and in it anyio's blocking portal, in a daemon thread.

    A portal held by a context manager in a module's global hangs the interpreter's exit for ever; a daemon thread that
    runs the loop with the portal inside does not.

    Args:
        process: Whose it is.

    Raises:
        APIConnectionError: The system gave no thread.
    """

    def __init__(self, process: _Process) -> None:
        self.lanes: set[_Lane] = set()
        self.process: _Process = process
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
            raise APIConnectionError(f"No thread could be started: {error}.", _NOTHING_SENT) from None

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
            raise APIConnectionError(self._failure, _NOTHING_SENT)

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
            self._thread.join(_GRACE)


class _Lane:
    """The calls of one client in the loop of all, which end with that client.

    Args:
        thread: The loop's.
        aclose: Closes the client, in the loop.
    """

    def __init__(self, thread: _LoopThread, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.thread: _LoopThread = thread
        self.is_closing: bool = False
        self._ended = system_event()
        self._aclose = aclose
        self._calls: set[_Call[Any]] = set()
        self._left: anyio.Event | None = None
        self._error: BaseException | None = None

    def start(self, call: _Call[Any]) -> None:
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
            raise ClientClosedError(facts=_NOTHING_SENT)

    def _begin(self, call: _Call[Any]) -> None:
        """Start a call, in the loop, unless the client is closing."""
        if self._left is None:
            self._calls.add(call)
            self.thread.portal.begin(call.run)
        else:
            call.refuse()

    def leave(self, call: _Call[Any]) -> None:
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
        self.thread.wait(self._ended, _GRACE)
        self.thread.join()
        if self._error is not None:
            raise self._error


class _Call(Generic[T]):
    """Carry one coroutine over, and its outcome back.

    Args:
        coroutine: What runs in the loop.
        outlasts: Whether it ends by itself when the client is closed, so that its outcome is known.
        refused: Called in the loop if it is not taken, for those who wait for other signs than its end.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], *, outlasts: bool = True, refused: Callable[[], object] = bool
    ) -> None:
        self.lane: _Lane | None = None
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
            lane.thread.wait(self.ended, _GRACE)
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


class Bridge:
    """Run the coroutines of one client in the loop of all, which starts when it is first needed.

    Args:
        aclose: Closes the client, in the loop.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._aclose = aclose
        self._lane: _Lane | None = None
        self._closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it gives; Ctrl-C cancels it and waits for its end."""
        call = _Call(coroutine)
        try:
            lane = self.lane()
            lane.start(call)
            lane.thread.wait(call.ended)
        except BaseException:
            call.abandon()
            raise
        return call.result()

    def lane(self) -> _Lane:
        """Return the client's lane in the running loop.

        Raises:
            ClientClosedError: The client is closed.
        """
        lane = self._lane
        return lane if lane is not None and lane.thread.lives else self._enter()

    def _enter(self) -> _Lane:
        process = _here()
        with process.lock:
            if self._closed:
                raise ClientClosedError(facts=_NOTHING_SENT)
            if self._lane is None or not self._lane.thread.lives:
                self._lane = process.lane(self._aclose)
                weakref.finalize(self, self._lane.stop).atexit = False
            return self._lane

    def lend(self) -> Bridge:
        """Return a bridge to the same loop, for a copy of the client, whose closing does nothing."""
        return _Borrowed(self)

    def close(self) -> None:
        """Close the client; the last one's loop ends with it. Closing twice is fine."""
        with _here().lock:
            self._closed, lane, self._lane = True, self._lane, None
        if lane is None or not lane.thread.lives:
            _drive(self._aclose())
        else:
            lane.stop()
            lane.join()


class _Borrowed(Bridge):
    def __init__(self, lender: Bridge) -> None:
        self._lender = lender

    def lane(self) -> _Lane:
        return self._lender.lane()

    def close(self) -> None:
        """Leave what belongs to another."""


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
        self.filled = system_event()
        self.over = system_event()
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
            error = StreamInterruptedError("The stream was closed before its end.", self.stream.idempotency_key)
            self.error = about(self.stream, error)


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
            raise busy(self._stream)
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
        task = self._task or self._begin()
        lane = task.lane
        if lane is None or not lane.thread.soon(act):
            raise self._orphaned()
        lane.thread.wait(sign)
        if task.was_refused:
            raise self._orphaned()

    def _begin(self) -> _Call[None]:
        try:
            running = self._bridge.lane()
            self._task = _Call(self._buffer.fill(), outlasts=False, refused=self._buffer.end)
            running.start(self._task)
        except LeadLexError as error:
            about(self._stream, error)
            raise
        return self._task

    def _orphaned(self) -> ClientClosedError:
        words = "The client was closed, or the stream belongs to the process that forked this one."
        return about(self._stream, ClientClosedError(words))

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
            raise busy(self._stream)
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

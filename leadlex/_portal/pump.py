"""Streams, brought over in batches: one task reads ahead, the reader takes all that is there."""

from __future__ import annotations

import math
import threading
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn, Self, TypeVar

import anyio

from leadlex._errors import ClientClosedError, LeadLexError, StreamInterruptedError
from leadlex._stream import AsyncChatStream, about, busy, has_begun, read_batch
from leadlex._system_threads import system_event
from leadlex._values.events import StreamEvent, TextDelta, size_of

from .bridge import Bridge, drive
from .calls import Call

T = TypeVar("T")

BUFFER: Final = 512
"""Events that a stream reads ahead."""

BUFFER_SIZE: Final = 4 << 20
"""Bytes of events that a stream reads ahead."""


class _Buffer:
    """What was read ahead: the loop's side of a pump, which must not hold the user's side."""

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
    """The events of a stream, brought over in batches: one task reads ahead, the reader takes all that is there."""

    def __init__(self, bridge: Bridge, stream: AsyncChatStream) -> None:
        self._bridge = bridge
        self._stream = stream
        self._buffer = _Buffer(stream)
        self._reader = threading.Lock()
        self._task: Call[None] | None = None
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

    def _refill(self, patience: float = math.inf) -> None:
        """Wait until there is something, for so many seconds at most, or raise what ended the stream."""
        buffer = self._buffer
        if buffer.ended and not buffer.events:
            self._raise_end()
        buffer.filled.clear()
        if buffer.events or buffer.ended:
            return
        try:
            self._pump(buffer.make_room, buffer.filled, patience)
        except BaseException:
            self.close()
            raise

    def _pump(self, act: Callable[[], None], sign: threading.Event, patience: float = math.inf) -> None:
        """Have the loop read on in some way, and wait for a sign of it."""
        task = self._task or self._begin()
        group = task.group
        if group is None or not group.thread.run_soon(act):
            raise self._orphaned()
        group.thread.wait(sign, patience)
        if task.was_refused:
            raise self._orphaned()

    def _begin(self) -> Call[None]:
        try:
            running = self._bridge.group()
            self._task = Call(self._buffer.fill(), outlasts=False, refused=self._buffer.end)
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
            drive(self._stream.final_reply())
        raise StopIteration

    @property
    def has_begun(self) -> bool:
        """Tell whether anything was handed out, or is there to be."""
        return has_begun(self._stream)

    def start(self) -> None:
        """Wait for the first event, which stays there to be read."""
        if not self._reader.acquire(blocking=False):
            raise busy(self._stream)
        try:
            while not self.has_begun:
                self._refill()
        finally:
            self._reader.release()

    def next_batch(self, patience: float) -> list[StreamEvent] | None:
        """Return the events that came together, none at the end, or None where nothing came in so many seconds."""
        if not self._reader.acquire(blocking=False):
            raise busy(self._stream)
        events = list[StreamEvent]()
        try:
            self._refill(patience)
            while self._buffer.events:
                events.append(self._buffer.events.popleft())
            if not events and self._buffer.ended:
                self._raise_end()
        except StopIteration:
            return []
        finally:
            self._reader.release()
        return events or None

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
            return drive(coroutine)
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
            drive(self._stream.aclose())
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

    def close(self) -> None:
        """Close the stream."""
        self._pump.close()

"""One streamed answer: lazy, read once, whole or an error.

Rule: only `done` or `[DONE]` proves the end; a stream that just stops is never taken for a whole one.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import Final, Self, TypeVar

import anyio
from attrs import evolve
from httpx_sse import ServerSentEvent

from ._errors import ClientClosedError, LeadLexError, StreamBusyError, StreamDivergedError, StreamInterruptedError
from ._logging import record
from ._network.bodies import GuardedText
from ._network.loops import start_task
from ._network.timeouts import Clocks
from ._network.translation import let_pass
from ._network.transport import Broken, OpenStream, Transport
from ._policy.call import Call
from ._policy.failures import Failure, FailureKind, cut_short
from ._policy.replay import Divergence, Replay
from ._policy.transcript import Transcript
from ._protocol.endpoints import check_key_life
from ._protocol.event_blocks import parsed
from ._protocol.json_text import Unusable
from ._protocol.operation import Operation
from ._protocol.server_events import End, event_of
from ._values.events import Done, StreamEvent, TextDelta, UnknownEvent
from ._values.metadata import Charged, Meta
from ._values.models import ChatReply
from ._values.plain import WireError
from ._values.problem import WireProblem
from ._values.structure import repaired

E = TypeVar("E", bound=LeadLexError)

MAX_TEXT: Final = 64 << 20
"""Characters of one reply, above which a server is not believed."""

_DRAIN: Final = 0.05
"""Seconds to wait for the end of the body after the last event: read to its end, a connection is used again."""


class AsyncChatStream:
    """The events of an answer, handed out while Lexi writes it.

    Nothing is sent before it is first used. Entered with `async with`, it is closed for sure; iterated to its end, it
    closes itself. A stream that breaks off is continued with the same idempotency key, so that it is charged once.

    Args:
        reading: What is sent, and how far it has come.

    Raises:
        StreamInterruptedError: It broke off and could not be continued; `partial` has what came.
        StreamBusyError: Two tasks read it at once.
        LeadLexError: Any other error of the API.

    Example:
        async with lexi.stream_chat("Summarize my pipeline") as stream:
            async for delta in stream.text_stream:
                print(delta, end="", flush=True)
            reply = await stream.final_reply()

    Source: `POST /v1/lexi/chat/stream`.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._batches = reading.batches()
        self._batch: Iterator[StreamEvent] = iter(())
        self._busy = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.idempotency_key}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while True:
            for event in self._batch:
                return event
            self._batch = await self._next_batch()

    async def _next_batch(self) -> Iterator[StreamEvent]:
        if self._busy:
            raise busy(self)
        self._busy, handled = True, sys.exception()
        try:
            return await self._batches.__anext__()
        except BaseException as end:
            let_pass(end, handled)
            # Whatever a generator raises, a cancellation too, it is over and has closed its connection.
            self._reading.ended = True
            if isinstance(end, LeadLexError):
                self._reading.error = end
            if isinstance(end, StopAsyncIteration):
                self._reading.check_whole()
            raise
        finally:
            self._busy = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> Self:
        """Send the question, wait for the first event, which is kept for the iteration, and return the stream.

        A refusal is raised here, before an endpoint of your own has sent a status. To start twice is fine, and a stream
        that is iterated starts by itself.

        Raises:
            LeadLexError: What stands in the way of an answer.

        Example:
            stream = await lexi.stream_chat("Summarize my pipeline").start()
            print(stream.meta)
            await stream.aclose()
        """
        if not has_begun(self):
            self._batch = chain((await anext(self),), self._batch)
        return self

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """Iterate over the text alone, piece by piece.

        Its `aclose` closes the stream.

        Example:
            stream = lexi.stream_chat("Summarize my pipeline")
            async for delta in stream.text_stream:
                print(delta, end="", flush=True)
        """
        return _Texts(self)

    async def final_reply(self) -> ChatReply:
        """Read what is left and return the whole answer.

        This is the charge-safe way to ask: repeated after a failure with its key, it is charged once.

        Raises:
            StreamInterruptedError: The stream broke off, or was closed before its end.

        Example:
            reply = await lexi.stream_chat("Summarize my pipeline").final_reply()
            print(reply.response, reply.credits_remaining)
        """
        async for _ in self:
            pass
        return self.reply

    async def aclose(self) -> None:
        """Stop reading and free the connection; closing twice is fine, and so is closing while another task reads.

        Example:
            stream = lexi.stream_chat("Summarize my pipeline")
            first = await anext(stream)
            await stream.aclose()
        """
        self._reading.closed = True
        self._batch = iter(())
        if self._busy:
            await self._reading.interrupt()
        else:
            await self._batches.aclose()

    @property
    def reply(self) -> ChatReply:
        """Give the answer as far as it has come."""
        return self._reading.call.reply

    @property
    def conversation_id(self) -> str | None:
        """Give the conversation's id, once it is known."""
        return self._reading.transcript.conversation_id

    @property
    def idempotency_key(self) -> str:
        """Give the key under which the service charges this question once, for 24 hours."""
        return self._reading.call.operation.idempotency_key or ""

    @property
    def first_sent(self) -> datetime | None:
        """Tell when the question was first sent under its idempotency key; None before it was."""
        call = self._reading.call
        return call.first_sent if self._reading.started else call.operation.first_sent

    @property
    def meta(self) -> Meta | None:
        """Tell how the answer arrived, once its head was read."""
        return self._reading.call.meta

    @property
    def resumes(self) -> int:
        """Count how often the stream was continued after it broke."""
        return self._reading.call.resumes

    @property
    def charged(self) -> Charged:
        """Say whether it was charged, as an error would say it now."""
        return "yes" if self._reading.transcript.billed else self._reading.call.charged_now

    def __del__(self) -> None:
        # No I/O here: dropping the generator makes the loop close it, which frees the connection.
        reading = getattr(self, "_reading", None)
        if reading is not None and reading.abandoned:
            warnings.warn(
                f"{self!r} was left before its end and never closed", ResourceWarning, source=self, stacklevel=1
            )


def about(stream: AsyncChatStream, error: E) -> E:
    """Return an error with what is known of the call of a stream."""
    call = stream._reading.call  # noqa: SLF001  # the same module
    error.charged, error.partial = stream.charged, call.partial
    call.tell(error)
    return error


def busy(stream: AsyncChatStream) -> StreamBusyError:
    """Return what a second reader of a stream is told, who has sent nothing."""
    error = StreamBusyError()
    stream._reading.call.tell(error)  # noqa: SLF001  # the same module
    return error


def has_begun(stream: AsyncChatStream) -> bool:
    """Tell whether anything was handed out of a stream."""
    return stream._reading.transcript.begun  # noqa: SLF001  # the same module


async def read_batch(stream: AsyncChatStream) -> list[StreamEvent]:
    """Return the events that came together; none at the end. The bridge reads so, to cross once for all of them."""
    while not (events := [*stream._batch]):  # noqa: SLF001  # the same module
        try:
            stream._batch = await stream._next_batch()  # noqa: SLF001  # the same
        except StopAsyncIteration:
            break
    return events


class ReadAhead:
    """What reads a stream in a task of its own, so that a wait for its events ends without ending the read.

    Args:
        stream: What is read.
    """

    def __init__(self, stream: AsyncChatStream) -> None:
        self._stream = stream
        self._scope = anyio.CancelScope()
        self._task: object = None  # a loop holds its tasks weakly
        self._over = anyio.Event()
        self._events: list[StreamEvent] = []
        self._error: Exception | None = None

    async def next_batch(self, patience: float) -> list[StreamEvent] | None:
        """Return the events that came together, none at the end, or None where nothing came in so many seconds."""
        if self._task is None:
            self._over, self._scope = anyio.Event(), anyio.CancelScope()
            self._task = start_task(self._read)
        with self._stream._reading.transport.within(patience):  # noqa: SLF001  # the same module
            await self._over.wait()
        if not self._over.is_set():
            return None
        self._task = None
        if self._error is not None:
            raise self._error
        return self._events

    async def _read(self) -> None:
        try:
            with self._scope:
                self._events = await read_batch(self._stream)
        except Exception as error:  # noqa: BLE001  # raised again in the task that waits
            self._error = error
        finally:
            self._over.set()

    async def aclose(self) -> None:
        """Stop reading, and close the stream."""
        self._scope.cancel()
        with anyio.CancelScope(shield=True):
            if self._task is not None:
                await self._over.wait()
            await self._stream.aclose()


class _Texts(AsyncIterator[str]):
    """The text alone; a class, since a generator left early would need closing of its own."""

    def __init__(self, stream: AsyncChatStream) -> None:
        self._stream = stream

    async def __anext__(self) -> str:
        while True:
            event = await self._stream.__anext__()
            if type(event) is TextDelta:
                return event.delta

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class Reading:
    """The state of a stream, apart from its handle, so that a dropped handle can be noticed."""

    def __init__(self, transport: Transport, operation: Operation[None]) -> None:
        self.transport = transport
        self.transcript: Transcript = Transcript(operation.conversation_id)
        self.call: Call[None] = transport.begin(operation, self.transcript)
        self.opened: OpenStream | None = None
        self.started: bool = False
        self.closed = False
        self.ended = False
        self.error: LeadLexError | None = None

    async def batches(self) -> AsyncGenerator[Iterator[StreamEvent], None]:
        """Open the stream, hand out its events block by block, and open it again where it may be continued."""
        # The clocks of a call run from its first use, not from when its handle was made.
        self.call = self.transport.begin(self.call.operation, self.transcript)
        check_key_life(self.call.operation, self.transport.clock.wall())
        self.started = True
        blocks = BlockReader(self.call)
        while not self.transcript.done:
            opened = self.opened = self._checked(await self.transport.open(self.call, blocks.broken))
            blocks = BlockReader(self.call)
            try:
                if self.closed:  # since the head came, which its scope no longer heard
                    raise anyio.ClosedResourceError  # noqa: TRY301  # told with what breaks it
                async for block in opened.text:
                    opened.clocks.pause()
                    yield blocks.events(block)
                    blocks.tell(opened.clocks)
                    if blocks.broken or self.transcript.done:
                        break
                else:
                    blocks.broken = cut_short()
            except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
                blocks.broken = error
            finally:
                await self._finish(opened)

    def _checked(self, opened: OpenStream | LeadLexError) -> OpenStream:
        """Return what was opened, or raise why there is nothing."""
        if isinstance(opened, OpenStream):
            return opened
        if self.closed:
            raise self.unfinished() from None
        raise opened from opened.__cause__

    async def _finish(self, opened: OpenStream) -> None:
        """Close the connection, or read it to its end so that the next call uses it again."""
        done = self.transcript.done
        if done is not None:
            self.transport.succeeded(self.call)
            self.transport.seen.note_credits(done.credits_remaining, is_repeat=self.call.is_repeat)
            with anyio.move_on_after(_DRAIN, shield=True):
                await _drain(opened.text)
        with anyio.CancelScope(shield=True):
            await opened.text.aclose()

    @property
    def abandoned(self) -> bool:
        """Tell whether a connection may be left open."""
        return self.started and not (self.closed or self.ended or self.transport.connections.closed)

    async def interrupt(self) -> None:
        """End another task's wait for the next event: for a head, between two attempts, or for bytes."""
        self.call.interrupt()
        if self.opened is not None:
            await self.opened.text.hang_up()

    def check_whole(self) -> None:
        """Refuse to let an end that was not proved look like one."""
        if not self.transcript.done:
            error = self.error or self.unfinished()
            raise error from error.__cause__  # nobody wants to hear of the StopAsyncIteration before

    def unfinished(self) -> LeadLexError:
        """Say that the stream was closed before its end."""
        if self.transport.connections.closed:
            error: LeadLexError = ClientClosedError()
        else:
            key = self.call.operation.idempotency_key or ""
            error = StreamInterruptedError("The stream was closed or cancelled before its end.", key)
        error.charged, error.partial = self.call.charged_now, self.call.partial
        self.call.tell(error)
        return error


class BlockReader:
    """Make events of the blocks of one attempt, and hand out those that are new.

    Args:
        call: What is answered, with what was handed out before.

    Attributes:
        progress: Whether anything that the contract names came since the clocks were told.
        others: Whether anything else was handed out since then.
        broken: What ended the attempt, if anything.
    """

    def __init__(self, call: Call[None]) -> None:
        self.progress: bool = False
        self.others: bool = False
        self.broken: Broken | None = None
        self._call = call
        self._transcript = call.transcript
        self._replay = Replay(call.transcript) if call.transcript.begun else None
        self._half: str = ""

    def events(self, block: str) -> Iterator[StreamEvent]:
        """Hand out the events of a block one by one; what breaks the stream is kept in `broken`."""
        replay, transcript, late = self._replay, self._transcript, parsed(block)
        try:
            for sse in late:
                for event in self._meant(sse):
                    if type(event) is UnknownEvent:
                        self.others = True
                    else:
                        self.progress = True
                    fresh = event if replay is None else replay.new_part(event)
                    if fresh is not None:
                        self._take(fresh)
                        yield fresh
                if self.broken:
                    return
                if transcript.done:
                    _note_second_done(late)
        except Divergence as divergence:
            self.broken = self._diverged(divergence)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            self.broken = error

    def tell(self, clocks: Clocks) -> None:
        """Tell the clocks what came: only what the contract names is progress."""
        if self.progress:
            clocks.note_event()
        elif self.others:
            clocks.note_other_event()
        self.progress = self.others = False

    def _meant(self, sse: ServerSentEvent) -> tuple[StreamEvent, ...]:
        event = event_of(sse.event, sse.data)
        if type(event) is TextDelta:
            return (self._whole_characters(event),)
        if isinstance(event, WireProblem):
            self.broken = event
            return ()
        if isinstance(event, End):
            event = Done()
        if type(event) is Done and self._half:
            return TextDelta(repaired(self._half)), event
        return (event,)

    def _whole_characters(self, event: TextDelta) -> TextDelta:
        """Hold back half of a surrogate pair until its other half comes, and replace one that never will."""
        text = self._half + event.delta
        if text.isascii():
            return event
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        whole = repaired(text[: len(text) - len(self._half)])
        return event if whole == event.delta else evolve(event, delta=whole)

    def _take(self, event: StreamEvent) -> None:
        """Check what is handed out, and write it down."""
        if type(event) is TextDelta:
            known = self._transcript.told_id
            if known is not None and event.conversation_id not in (None, known):
                raise WireError("the stream changed to another conversation")
            if self._transcript.length > MAX_TEXT:
                raise Unusable(f"its text is longer than {MAX_TEXT >> 20} Mi characters")
        self._transcript.add(event)

    def _diverged(self, divergence: Divergence) -> Failure:
        first = self._transcript.told_id
        error = StreamDivergedError(
            self._call.operation.idempotency_key or "",
            divergence.why,
            delivered=self._transcript.text,
            replayed_prefix=divergence.replayed,
            conversation_ids=(first, divergence.conversation_id or first),
        )
        return Failure(FailureKind.PAYLOAD, error)


async def _drain(text: GuardedText) -> None:
    text.drain()
    try:
        async for block in text:
            _note_second_done(parsed(block))
    except Exception:  # noqa: BLE001  # the answer is whole; how its connection ends is no matter
        return


def _note_second_done(late: Iterator[ServerSentEvent]) -> None:
    if any(sse.event == "done" for sse in late):
        record(logging.WARNING, "ignored", field="a second done event")

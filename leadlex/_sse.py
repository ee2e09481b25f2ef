"""A stream's events on the wire again, for a web page or another service to read as Lexi's own.

Rule: nothing of an error gets out but what the service said itself: no idempotency key, no address, no advice.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (9.2.7: comments keep a connection alive).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import suppress
from typing import Final, overload

from ._config import seconds
from ._errors import APIStatusError, LeadLexError, refuse
from ._protocol.server_events import COMMENT, LAST, bytes_of, bytes_of_error
from ._stream import AsyncChatStream, ReadAhead, has_begun
from ._sync import ChatStream
from ._values.events import StreamEvent

_BROKE_OFF: Final = "The answer broke off."


@overload
def sse(stream: AsyncChatStream, keep_alive: float = 15.0) -> AsyncIterator[bytes]: ...
@overload
def sse(stream: ChatStream, keep_alive: float = 15.0) -> Iterator[bytes]: ...
def sse(stream: AsyncChatStream | ChatStream, keep_alive: float = 15.0) -> AsyncIterator[bytes] | Iterator[bytes]:
    """Write a stream's events as `text/event-stream`, in the service's own form, for a web framework's response.

    A stream that breaks ends in an `error` event. Whoever leaves it, or closes it (`aclose`, `close`), closes the
    stream. Start the stream first, and a refusal is raised while your endpoint can still answer with its status.

    Args:
        stream: What is written; a `ChatStream` gives an iterator, an `AsyncChatStream` an async one.
        keep_alive: Seconds of silence after which a comment is sent, so that nothing in between gives up; the first
            one is sent at once where nothing has come yet.

    Raises:
        ConfigurationError: It is no stream of leadlex, or no number of seconds.

    Example:
        for data in leadlex.sse(lexi.stream_chat("Summarize my pipeline").start()):
            print(data.decode())
    """
    patience = seconds(keep_alive, "keep_alive")
    if isinstance(stream, AsyncChatStream):
        return _AsyncWire(stream, patience)
    if not hasattr(stream, "final_reply"):  # all that types leave to be told apart from a ChatStream
        refuse("stream", "what stream_chat returned", type(stream).__name__)
    return _Wire(stream, patience)


class _AsyncWire(AsyncIterator[bytes]):
    """The bytes of an async stream.

    They are made by a generator, for loops close those that somebody leaves; itself it is none, for one that has not
    begun would not hear of its end.
    """

    def __init__(self, stream: AsyncChatStream, patience: float) -> None:
        self._stream = stream
        self._made = _written_async(stream, patience)

    async def __anext__(self) -> bytes:
        return await anext(self._made)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
        with suppress(RuntimeError):  # another task reads, and hears of it from the stream
            await self._made.aclose()


async def _written_async(stream: AsyncChatStream, patience: float) -> AsyncGenerator[bytes, None]:
    ahead = ReadAhead(stream)
    try:
        if not has_begun(stream):
            yield COMMENT
        while (events := await ahead.next_batch(patience)) != []:
            yield _block(events)
        yield LAST
    except LeadLexError as error:
        yield _told(error)
    finally:
        await ahead.aclose()


class _Wire(Iterator[bytes]):
    """The bytes of a sync stream."""

    def __init__(self, stream: ChatStream, patience: float) -> None:
        self._stream = stream
        self._made = _written(stream, patience)

    def __next__(self) -> bytes:
        return next(self._made)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
        with suppress(ValueError):  # another thread reads, and hears of it from the stream
            self._made.close()


def _written(stream: ChatStream, patience: float) -> Generator[bytes, None, None]:
    # It closes nothing when it is left: that may happen in the loop's thread, where nobody can wait, and the stream
    # that goes with it asks for its own end.
    pump = stream._pump  # noqa: SLF001  # it crosses for all that is there at once
    try:
        if not pump.has_begun:
            yield COMMENT
        while (events := pump.next_batch(patience)) != []:
            yield _block(events)
        yield LAST
    except LeadLexError as error:
        yield _told(error)


def _block(events: list[StreamEvent] | None) -> bytes:
    return COMMENT if events is None else b"".join(map(bytes_of, events))


def _told(error: LeadLexError) -> bytes:
    code, message = None, None
    if isinstance(error, APIStatusError) and error.from_service:
        code, message = error.code, error.message
    return bytes_of_error(code or type(error).__name__, message or _BROKE_OFF)

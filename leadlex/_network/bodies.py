"""The bytes of an answer, guarded: coding, sizes and clocks.

Rule: whatever a server sends, what comes out is bounded and comes in time.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Final

import anyio
import httpx

from leadlex._protocol.event_blocks import LineGuard
from leadlex._protocol.json_text import Unusable

from .timeouts import Clocks

MAX_JSON: Final = 16 << 20

MAX_DRAIN: Final = 64 << 10

_PIECE: Final = 64 << 10

_MAX_EMPTY: Final = 100

_MAX_LEFT: Final = 1 << 14
"""Pieces of a closed body that are there already, at most."""

_CLOSING: Final = 1.0


class _Plain:
    def pieces(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def check_end(self) -> None:
        pass


class _Deflated:
    """A decoder that inflates in bounded pieces: 660 bytes can stand for 300 MiB.

    What follows the end is dropped, as gzip(1) and browsers do, but for another member of gzip (RFC 1952, 2.2).
    """

    _MAGIC: Final = b"\x1f\x8b"

    def __init__(self, *, members: bool) -> None:
        # 32 + 15: gzip or zlib, told by the header of the data (zlib's manual, inflateInit2).
        self._inflate = zlib.decompressobj(wbits=47)
        self._members = members
        self._begun = b""
        self._empty = 0

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            while data:
                if self._inflate.eof:
                    data = self._next_member(data)
                    continue
                piece = self._inflate.decompress(data, _PIECE)
                self._empty = 0 if piece else self._empty
                yield piece
                data = self._inflate.unconsumed_tail or self._inflate.unused_data
        except zlib.error:
            raise Unusable("its compressed data is damaged") from None

    def _next_member(self, data: bytes) -> bytes:
        """Begin to read another member, and return what there is of it; behind padding with zeros there may be one."""
        data = (self._begun + data).lstrip(b"\0")
        self._begun = data if data == self._MAGIC[:1] else b""
        self._members = self._members and self._MAGIC.startswith(data[:2])
        if not self._members or len(data) < len(self._MAGIC):
            return b""
        self._empty += 1
        if self._empty > _MAX_EMPTY:
            raise Unusable("its compressed data has too many empty parts")
        self._inflate = zlib.decompressobj(wbits=31)
        return data

    def check_end(self) -> None:
        if not self._inflate.eof:
            raise httpx.RemoteProtocolError("the compressed body broke off")


class Unheard(Unusable):
    """A body of which a hook of the user's client left nothing."""


def _body_of(response: httpx.Response) -> tuple[AsyncIterator[bytes], _Plain | _Deflated]:
    """Return what gives the bytes of a body, and their decoder; what a hook of the user's client has read is used.

    Raises:
        Unusable: It can't be decoded.
        Unheard: A hook of the user's client left nothing of it.
    """
    if not (response.is_closed or response.is_stream_consumed):
        return response.stream.__aiter__(), _decoder_of(response)  # type: ignore[union-attr]  # an async client's stream
    try:
        return _Once(response.content), _Plain()  # httpx has decoded it
    except httpx.ResponseNotRead:
        raise Unheard("a hook of http_client left nothing of its body") from None


class _Once(AsyncIterator[bytes]):
    def __init__(self, data: bytes) -> None:
        self._left = [data]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _decoder_of(response: httpx.Response) -> _Plain | _Deflated:
    coding = response.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return _Plain()
    if coding in ("gzip", "x-gzip", "deflate"):
        return _Deflated(members=coding != "deflate")
    raise Unusable("its content coding is not one that was asked for")


async def read_all(response: httpx.Response, clocks: Clocks, limit: int, *, cut: bool = False) -> bytes:
    """Read a body up to `limit` bytes; a longer one is cut where `cut` says so.

    Raises:
        Unusable: It is too large or can't be decoded.
    """
    (source, decoder), body = _body_of(response), bytearray()
    try:
        while len(body) <= limit:
            for piece in decoder.pieces(await clocks.wait(source)):
                body += piece
                if len(body) > limit:
                    break
    except StopAsyncIteration:
        decoder.check_end()
        return bytes(body)
    except Exception:
        await close(response, source)
        raise
    await close(response, source)
    if cut:
        return bytes(body[:limit])
    raise Unusable(f"it is larger than {limit >> 20} MiB")


class Content(httpx.AsyncByteStream):
    """The body of a request, in one piece; httpx's own is a generator, which a write that is cut leaves open."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._data)


class GuardedText:
    """The text of a stream in blocks of whole events, fit for httpx-sse to read.

    It takes one BOM off, makes CR and CRLF to LF (a lone CR at the end of a chunk at once), bounds lines and events,
    adds the blank line that a last `done` or `[DONE]` lacks, and reads UTF-8 whatever the head claims.

    Args:
        response: The answer whose body this is.
        clocks: The clocks of the attempt.
    """

    def __init__(self, response: httpx.Response, clocks: Clocks) -> None:
        self._response = response
        self._clocks = clocks
        self._source, self._decoder = _body_of(response)
        self._lines = LineGuard()
        self._drained: int | None = None
        self._blocks = self._read()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._blocks

    async def _read(self) -> AsyncGenerator[str, None]:
        source = self._source
        wait, cut, pieces = self._clocks.wait, self._lines.cut, self._decoder.pieces
        while True:
            try:
                data = await wait(source)
            except StopAsyncIteration:
                break
            except Exception:
                # What breaks after the last byte of a `done` takes nothing away from the answer.
                yield self._lines.ending()
                raise
            for number, piece in enumerate(pieces(data)):
                if number:
                    # A few compressed bytes can keep a processor busy for minutes: others get a turn, and a cancel.
                    await anyio.lowlevel.checkpoint()
                block = cut(piece)
                if block:
                    yield block.decode("utf-8", "replace")
            if self._drained is not None:
                self._count_drain(data)
        self._decoder.check_end()
        yield self._lines.ending()

    def drain(self) -> None:
        """Begin to count what comes after the end."""
        self._drained = 0

    def _count_drain(self, data: bytes) -> None:
        self._drained = (self._drained or 0) + len(data)
        if self._drained > MAX_DRAIN:
            raise Unusable("it goes on after its end")

    async def hang_up(self) -> None:
        """Close the connection under a task that reads from it."""
        await close(self._response)

    async def aclose(self) -> None:
        """Close the response: its connection is used again if the body was read to its end."""
        await self._blocks.aclose()
        await close(self._response, self._source)


async def close(response: httpx.Response, source: AsyncIterator[bytes] | None = None) -> None:
    """Close a response; a cancelled caller must neither leave the socket behind nor hang for a silent peer.

    Args:
        response: What is closed.
        source: What gave its bytes: generators within generators, of which only the outermost can be closed. Asked
            once more, the innermost finds its connection closed, and so all of them end.
    """
    with anyio.move_on_after(_CLOSING, shield=True):
        await response.aclose()
        if source is not None:
            with suppress(Exception):
                for _ in range(_MAX_LEFT):
                    await source.__anext__()

"""The bytes of an answer, guarded: coding, line ends, sizes and clocks.

Rule: whatever a server sends, what comes out is bounded, is UTF-8 lines for httpx-sse to read, and comes in time.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (9.2.5 and 9.2.6).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Final

import anyio.lowlevel
import httpx

from ._alarm import MOMENT, Limit
from ._config import Timeout
from ._errors import Clock
from ._wire import ends_stream

MAX_JSON: Final = 16 << 20
MAX_ERROR: Final = 64 << 10
MAX_LINE: Final = 1 << 20
MAX_EVENT: Final = 8 << 20
MAX_DRAIN: Final = 64 << 10
_PIECE: Final = 64 << 10
_MAX_EMPTY: Final = 100
_CLOSING: Final = 1.0
_NEVER: Final = float("inf")
_BOM: Final = b"\xef\xbb\xbf"


class Unusable(Exception):
    """Tell that a body is complete nonsense: too large, or of a coding that can't be read."""


class Expired(Exception):
    """Tell that one of our own clocks ran out; the transport's read timeout is httpx's."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock: Clock = clock


class Clocks:
    """Count the time of one attempt; the caller's own time between two events does not count, but for `total`.

    Args:
        timeout: The settings.
        deadline: When `total` ends, by `now`.
        now: The clock of the call, which may go on while the machine is suspended.
        streams: Whether events are waited for.

    Attributes:
        counts_idle: Whether `idle` is counted here, for a transport that can't be told it once the head was read.
    """

    def __init__(
        self, timeout: Timeout, deadline: float | None, now: Callable[[], float] = time.monotonic, *, streams: bool
    ) -> None:
        self.idle: float = timeout.idle
        self._event_idle = timeout.event_idle
        self._deadline = deadline
        self._now = now
        self._clock: Clock = "first_event"
        self._allowed = timeout.first_event if streams else _NEVER
        self._ends: float | None = None
        self._spare = dict[Clock, float]()
        self.counts_idle: bool = False

    def note_event(self) -> None:
        """Give the next event a time of its own, which begins when it is waited for."""
        self._clock, self._allowed, self._ends = "event_idle", self._event_idle, None
        self._spare.pop("event_idle", None)

    def next_end(self) -> tuple[float, Clock]:
        """Return in how many seconds which clock runs out first."""
        now = time.monotonic()
        if self._ends is None:
            self._ends = now + self._allowed
        events = self._ends - now
        total = _NEVER if self._deadline is None else self._deadline - self._now()
        return (total, "total") if total < events else (events, self._clock)

    async def wait(self, source: AsyncIterator[bytes]) -> bytes:
        """Return the next piece; a cancel scope costs 5 µs and is opened only where it could end first.

        Raises:
            StopAsyncIteration: The body ended.
            Expired: A clock ran out.
        """
        seconds, clock = self.next_end()
        if seconds <= 0:
            seconds = self._last_look(clock)
        if not self.counts_idle:
            if seconds >= self.idle:
                return await source.__anext__()
        elif self.idle < seconds:
            seconds, clock = self.idle, "idle"
        with Limit(seconds):
            return await source.__anext__()
        raise Expired(clock)

    def _last_look(self, clock: Clock) -> float:
        """Return the seconds in which what is there already may be read, once for each clock that ran out."""
        now = time.monotonic()
        left = self._spare.setdefault(clock, now + MOMENT) - now
        if left <= 0:
            # A flood of comments is there at once: it is never waited for, and so never cancelled.
            raise Expired(clock)
        return left


# Codings -----------------------------------------------------------------------------------------------------------


class _Plain:
    def pieces(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def check_end(self) -> None:
        pass


class _Deflated:
    """Inflate in bounded pieces: 660 bytes can stand for 300 MiB.

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
    decoder, body = _decoder_of(response), bytearray()
    source = response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's stream
    while True:
        try:
            data = await clocks.wait(source)
        except StopAsyncIteration:
            decoder.check_end()
            return bytes(body)
        for piece in decoder.pieces(data):
            body += piece
            if len(body) > limit:
                if cut:
                    return bytes(body[:limit])
                raise Unusable(f"it is larger than {limit >> 20} MiB")


# Streams -----------------------------------------------------------------------------------------------------------


class GuardedText:
    """Give the text of a stream in blocks of whole events, fit for httpx-sse to read.

    It takes one BOM off, makes CR and CRLF to LF (a lone CR at the end of a chunk at once), bounds lines and events,
    adds the blank line that a last `done` or `[DONE]` lacks, and reads UTF-8 whatever the head claims.

    Args:
        response: The answer whose body this is.
        clocks: The clocks of the attempt.
    """

    def __init__(self, response: httpx.Response, clocks: Clocks) -> None:
        self._response = response
        self._clocks = clocks
        self._decoder = _decoder_of(response)
        self._lines = LineGuard()
        self._drained: int | None = None
        self._blocks = self._read()

    def __aiter__(self) -> AsyncIterator[str]:
        return self._blocks

    async def _read(self) -> AsyncGenerator[str, None]:
        source = self._response.stream.__aiter__()  # type: ignore[union-attr]  # an async client's stream
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
        await close(self._response)


async def close(response: httpx.Response) -> None:
    """Close a response; a cancelled caller must neither leave the socket behind nor hang for a silent peer."""
    with anyio.move_on_after(_CLOSING, shield=True):
        await response.aclose()


class LineGuard:
    """Cut the bytes of an event stream into whole events, however they were cut before, without I/O."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._after_cr = False
        self._line = 0
        self._pending = bytearray()
        self._allowed = _PIECE

    def cut(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes, without BOM and with LF for every line end."""
        if self._head is not None:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        self._note_line(data)
        pending, blank = self._pending, data.rfind(b"\n\n")
        if blank >= 0:
            end = blank + 2
        elif pending.endswith(b"\n") and data.startswith(b"\n"):
            end = 1
        else:
            return self._keep(data)
        if not pending and end == len(data):
            return data
        whole = bytes(pending) + data[:end]
        pending[:] = data[end:]
        return whole

    def ending(self) -> str:
        """Return the last event, where only its line ends are missing and it ends the stream; else nothing."""
        last = ((self._head or b"") + self._pending).decode("utf-8", "replace")
        return f"{last}\n\n" if ends_stream(last) else ""

    def _without_bom(self, data: bytes) -> bytes:
        data = (self._head or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(_BOM)

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _note_line(self, data: bytes) -> None:
        """Bound the line that chunks leave unfinished."""
        last = data.rfind(b"\n")
        if self._line or last < 0:
            whole = self._line + (len(data) if last < 0 else data.find(b"\n"))
            if whole > MAX_LINE:
                raise Unusable(f"a line is longer than {MAX_LINE >> 20} MiB")
            self._line = whole
        if last >= 0:
            self._line = len(data) - last - 1

    def _keep(self, data: bytes) -> bytes:
        """Keep an unfinished event and bound it; comments are no part of one and hold no memory."""
        pending = self._pending
        pending += data
        if len(pending) > self._allowed:
            *lines, unfinished = bytes(pending).split(b"\n")
            pending[:] = b"\n".join([*(line for line in lines if not line.startswith(b":")), unfinished])
            if len(pending) > MAX_EVENT:
                raise Unusable(f"an event is larger than {MAX_EVENT >> 20} MiB")
            self._allowed = min(2 * len(pending), MAX_EVENT) + _PIECE  # doubling keeps the whole linear
        return b""

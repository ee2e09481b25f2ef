"""Bodies are read within bounds and clocks, and an exception below becomes a failure that tells what it was."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    Meta,
    PermissionDeniedError,
    StreamInterruptedError,
    Timeout,
)
from leadlex._api_key import ApiKey, ApiKeys
from leadlex._network.bodies import MAX_DRAIN, GuardedText, read_all
from leadlex._network.timeouts import Clocks, Expired
from leadlex._network.translation import Translator, without_traceback
from leadlex._policy.call import interrupted
from leadlex._policy.failures import Failure, FailureKind, Progress, cut_short
from leadlex._protocol.endpoints import conversation
from leadlex._protocol.event_blocks import LineGuard
from leadlex._protocol.json_text import Unusable
from leadlex._values.plain import WireError
from leadlex._values.problem import WireProblem
from tests.support.captures import CAPTURE, cut
from tests.support.memory import KEY, decoded, response_of
from tests.support.runners import API_KEY, drive

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def clocks(**timeout: Any) -> Clocks:
    """Make the clocks of a stream."""
    return Clocks(Timeout(**timeout), None, streams=True)


def body_of(*pieces: bytes, coding: str = "", limit: int = 1 << 20, cut: bool = False) -> bytes:
    """Read a whole body."""
    read = partial(read_all, response_of(pieces, {"content-encoding": coding}), clocks(), limit, cut=cut)
    return anyio.run(read)


class TestBodies:
    """A body is bounded, whatever its coding."""

    @pytest.mark.parametrize("coding", ["", "identity", " Identity "])
    def test_plain(self, coding: str) -> None:
        """A body without a coding is what was sent, up to the limit."""
        assert body_of(b"ab", b"", b"c", coding=coding) == b"abc"
        assert body_of(b"abc", b"d", coding=coding, limit=3, cut=True) == b"abc"
        with pytest.raises(Unusable, match="larger than 1 MiB"):
            body_of(b"a" * (1 << 20), b"b", coding=coding)

    @pytest.mark.parametrize("size", [1, 7, 100_000])
    def test_compressed(self, size: int) -> None:
        """A compressed body is inflated however it is cut; what follows its end is dropped."""
        text = CAPTURE * 500
        for coding, data in (
            ("gzip", gzip.compress(text)),
            ("X-GZip", gzip.compress(text)),
            ("deflate", zlib.compress(text)),
        ):
            assert body_of(*cut(data, size), b"junk", coding=coding) == text

    @pytest.mark.parametrize("size", [1, 7, 100_000])
    @pytest.mark.parametrize("after", [b"", b"\0" * 600, b"junk", b"\0\x1fjunk", b"\x1f", b"junk\x1f\x8b"])
    def test_members(self, size: int, after: bytes) -> None:
        """Gzip may have several members, with zeros behind each; anything else behind them is dropped."""
        text = CAPTURE * 500
        members = gzip.compress(text[:9]) + gzip.compress(b"") + b"\0" * 9 + gzip.compress(text[9:])
        assert body_of(*cut(members + after, size), coding="gzip") == text
        # Data that begins as zlib's or says so has but one end.
        assert body_of(*cut(zlib.compress(text) + members, size), coding="deflate") == text

    def test_members_that_break(self) -> None:
        """A second member that is cut or damaged is told as the first would be, and no flood of empty ones is read."""
        whole = gzip.compress(CAPTURE)
        for end in range(3, len(whole)):
            with pytest.raises(httpx.RemoteProtocolError, match="broke off"):
                body_of(whole + whole[:end], coding="gzip")
        with pytest.raises(Unusable, match="damaged"):
            body_of(whole + whole[:-8] + b"\0" * 8, coding="gzip")
        for between in (b"", whole):
            some = (gzip.compress(b"") * 90 + between) * 2
            if between:
                assert body_of(some, coding="gzip") == CAPTURE * 2
            else:
                with pytest.raises(Unusable, match="too many empty parts"):
                    body_of(some, coding="gzip")

    def test_bomb_of_members(self) -> None:
        """The limit is for all members together."""
        bomb = gzip.compress(b"\0" * (1 << 19)) * 3
        with pytest.raises(Unusable, match="larger than 1 MiB"):
            body_of(bomb, coding="gzip")

    def test_bomb(self) -> None:
        """A small body that would be huge is refused at the limit, or cut there."""
        bomb = gzip.compress(b"\0" * (64 << 20))
        with pytest.raises(Unusable, match="larger than 1 MiB"):
            body_of(bomb, coding="gzip")
        assert body_of(bomb, coding="gzip", limit=10, cut=True) == b"\0" * 10

    def test_endless(self) -> None:
        """A body that goes on though it was closed, as a user's transport may give, is left alone after a while."""
        assert body_of(*[b"x"] * 20_000, limit=10, cut=True) == b"x" * 10

    def test_damaged(self) -> None:
        """Damaged data, a coding that nobody asked for and two at once are refused; a cut one broke off."""
        data = gzip.compress(CAPTURE)
        for damaged in (b"plain", data[:-8] + b"\0" * 8):
            with pytest.raises(Unusable, match="damaged"):
                body_of(damaged, coding="gzip")
        for coding in ("br", "gzip, gzip", ", gzip", "none"):
            with pytest.raises(Unusable, match="not one that was asked for"):
                body_of(data, coding=coding)
        with pytest.raises(httpx.RemoteProtocolError, match="broke off"):
            body_of(data[:-1], coding="gzip")

    @pytest.mark.parametrize("cut_off", [0, 1])
    def test_compressed_stream(self, cut_off: int) -> None:
        """A compressed stream is read as any other, and one that is cut is not at its end."""
        data = gzip.compress(b"data: 1\n\n" * 3 + b"data: [DONE]")
        text = GuardedText(response_of(cut(data[: len(data) - cut_off], 5), {"content-encoding": "gzip"}), clocks())
        if cut_off:
            with pytest.raises(httpx.RemoteProtocolError):
                drive(_joined(text))
        else:
            assert drive(_joined(text)) == "data: 1\n\n" * 3 + "data: [DONE]\n\n"

    def test_drain(self) -> None:
        """What follows the end of a stream is read up to a limit, so that its connection can be used again."""
        for size, fits in ((MAX_DRAIN, True), (MAX_DRAIN + 1, False)):
            text = GuardedText(response_of([b": " + b"a" * (size - 4) + b"\n\n"]), clocks())
            text.drain()
            if fits:
                drive(_joined(text))
            else:
                with pytest.raises(Unusable, match="goes on after its end"):
                    drive(_joined(text))

    def test_ending(self) -> None:
        """Half a BOM is nothing, and nothing is added to what does not end a stream."""
        assert decoded([b"\xef\xbb"]) == []
        guard = LineGuard()
        assert guard.cut(b"") == guard.cut(b"\xef") == b""
        assert guard.ending() == ""


async def _joined(text: GuardedText) -> str:
    return "".join([block async for block in text])


class TestClocks:
    """Three clocks run while the network is waited for, and the one that ends first is told."""

    @BACKENDS
    @pytest.mark.parametrize(
        ("made", "clock"),
        [
            (Clocks(Timeout(first_event=0.01), None, streams=True), "first_event"),
            (Clocks(Timeout(), 0.0, streams=True), "total"),
            (Clocks(Timeout(), 0.0, streams=False), "total"),
        ],
    )
    def test_expired(self, backend: str, made: Clocks, clock: str) -> None:
        """A silent body ends when a clock does."""
        with pytest.raises(Expired) as caught:
            anyio.run(made.wait, _silent(), backend=backend)
        assert caught.value.clock == clock

    def test_event_idle(self) -> None:
        """From the first event on, the clock of events counts anew."""
        made = clocks(first_event=1, event_idle=2)
        ends = [made.next_end(), made.next_end()]
        made.pause()
        made.note_event()
        ends.append(made.next_end())
        assert [clock for _, clock in ends] == ["first_event", "first_event", "event_idle"]
        assert [seconds for seconds, _ in ends] == pytest.approx([1, 1, 2], abs=0.5)
        assert ends[1] < ends[0]

    def test_no_progress(self) -> None:
        """What the contract does not name gives the clock no more time, but takes none while the caller has it."""
        made = clocks(first_event=1, event_idle=2)
        made.next_end()
        made.pause()
        time.sleep(0.2)
        made.note_other_event()
        seconds, clock = made.next_end()
        assert clock == "first_event"
        assert seconds == pytest.approx(1, abs=0.15)

    def test_json(self) -> None:
        """A JSON answer has no clock of events."""
        assert Clocks(Timeout(), None, streams=False).next_end()[0] == float("inf")


async def _silent() -> AsyncIterator[bytes]:
    await anyio.sleep_forever()
    yield b""


TRANSLATOR = Translator(ApiKeys(ApiKey(API_KEY)), Timeout(), "https://localhost", "localhost:443")
CONNECTING = Progress(handed_over=True, traced=True, connect_failed=True)
SENT = Progress(handed_over=True, traced=True, started=True, written=True)
META = Meta(status_code=200)


def told_of(error: Exception, progress: Progress = SENT, meta: Meta | None = None, *, streams: bool = False) -> Failure:
    """Translate an exception."""
    return TRANSLATOR.exception(error, progress, meta, streams=streams)


def caused(error: Exception, cause: BaseException) -> Exception:
    """Chain two exceptions."""
    error.__cause__ = cause
    return error


class TestFaults:
    """Every foreign exception is translated once, by what it means and without the key."""

    @pytest.mark.parametrize(
        ("cause", "fault"),
        [
            (socket.gaierror(-2, "Name or service not known"), FailureKind.NAME),
            (ssl.SSLCertVerificationError("self-signed"), FailureKind.CERTIFICATE),
            (ssl.SSLEOFError("cut"), FailureKind.CONNECT),
            (OSError("refused"), FailureKind.CONNECT),
            (ExceptionGroup("all", [OSError("one"), socket.gaierror(-2, "other")]), FailureKind.NAME),
        ],
    )
    def test_no_connection(self, cause: BaseException, fault: FailureKind) -> None:
        """The ways in which no connection comes about are told apart by what is at the root."""
        broken = told_of(caused(httpx.ConnectError("All attempts failed"), cause), CONNECTING)
        assert (broken.kind, type(broken.error)) == (fault, APIConnectionError)

    def test_circle(self) -> None:
        """A chain of exceptions that bites its tail is walked once."""
        one, other = OSError("one"), OSError("other")
        one.__cause__, other.__cause__ = other, one
        assert told_of(one, CONNECTING).kind is FailureKind.CONNECT
        assert without_traceback(one) is one

    @pytest.mark.parametrize("module", [httpx, httpcore])
    @pytest.mark.parametrize(
        ("name", "clock"),
        [("ConnectTimeout", "connect"), ("WriteTimeout", "write"), ("PoolTimeout", "pool"), ("ReadTimeout", "idle")],
    )
    def test_clocks(self, module: Any, name: str, clock: str) -> None:
        """A timeout tells its clock and how long it was."""
        error = told_of(getattr(module, name)("20 streams are open")).error
        assert isinstance(error, APITimeoutError)
        assert error.clock == clock
        assert f"{getattr(Timeout(), clock):g} s" in str(error)
        assert ("20 streams" in str(error)) == (clock == "pool")

    def test_total(self) -> None:
        """The total of a JSON call is told with its seconds."""
        assert "within 120 s (the total timeout)" in str(told_of(Expired("total")).error)

    @pytest.mark.parametrize(
        ("error", "meta", "streams", "fault", "kind"),
        [
            (httpx.RemoteProtocolError("illegal status line"), None, False, FailureKind.PAYLOAD, APIResponseError),
            (httpx.RemoteProtocolError("illegal chunk"), META, False, FailureKind.BODY, APIResponseError),
            (httpx.RemoteProtocolError("illegal chunk"), META, True, FailureKind.CUT, APIConnectionError),
            (httpx.RemoteProtocolError("Server disconnected"), None, False, FailureKind.LOST, APIConnectionError),
            (httpx.RemoteProtocolError("peer closed"), META, False, FailureKind.BODY, APIConnectionError),
            (httpx.DecodingError("bad"), META, False, FailureKind.BODY, APIResponseError),
            (Unusable("it is too large"), META, True, FailureKind.PAYLOAD, APIResponseError),
            (WireError("it is not valid JSON"), META, False, FailureKind.PAYLOAD, APIResponseError),
            (RuntimeError("Event loop is closed"), None, False, FailureKind.LOST, APIConnectionError),
            (ssl.SSLError("bad record"), META, True, FailureKind.CUT, APIConnectionError),
            (ZeroDivisionError(), META, False, FailureKind.BODY, APIConnectionError),
        ],
    )
    def test_kinds(
        self, error: Exception, meta: Meta | None, fault: FailureKind, kind: type[Exception], *, streams: bool
    ) -> None:
        """What came is no HTTP, or broke off, or is beyond use: each is its own fault."""
        broken = told_of(error, meta=meta, streams=streams)
        assert (broken.kind, type(broken.error)) == (fault, kind)

    def test_redirect(self) -> None:
        """A redirect to what is no URL is a redirect all the same, though httpx stumbles over it."""
        progress = Progress(handed_over=True, traced=True, started=True, written=True, status=302)
        broken = told_of(httpx.RemoteProtocolError("Invalid URL in location header"), progress)
        assert broken.kind is FailureKind.FOREIGN
        assert "a redirect to a place that is no URL" in str(broken.error)

    def test_key(self) -> None:
        """A key that an exception or a server repeats is masked."""
        assert API_KEY not in str(told_of(ValueError(f"Illegal header value {API_KEY}")).error)
        problem = WireProblem(API_KEY, f"{API_KEY} is wrong")
        operation = conversation("conv_1", include_tool_steps=False, limit=1)
        error = TRANSLATOR.status(Meta(status_code=403), problem, API_KEY.encode(), operation, 0.0).error
        assert isinstance(error, PermissionDeniedError)
        assert API_KEY not in f"{error}{error.code}{error.message}{error.body}{vars(error)}"
        assert error.permission == "read:ai"

    def test_interrupted(self) -> None:
        """What breaks a stream that had begun interrupts it; what answers in its place speaks for itself."""
        error = interrupted(cut_short(), KEY)
        assert isinstance(error, StreamInterruptedError)
        assert error.idempotency_key == KEY
        assert isinstance(error.__cause__, APIConnectionError)
        unusable = TRANSLATOR.unusable("it is odd", META)
        assert interrupted(unusable, KEY) is unusable.error

    def test_nothing(self) -> None:
        """An empty answer of an unknown kind is told as that."""
        assert "answered 204 (no content type): an empty body." in str(
            TRANSLATOR.other_answer(Meta(status_code=204), b"").error
        )

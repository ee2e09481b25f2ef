"""Table E of the fault matrix: how events are framed, by raw bytes and at every way to cut them."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from leadlex import APIResponseError, Done, LeadLexError, StreamEvent, StreamInterruptedError, UnknownEvent
from leadlex._protocol.event_blocks import MAX_EVENT, MAX_LINE
from tests.matrix.oracles import PATIENT, observe, spoiled
from tests.support import sse_cases
from tests.support.answers import chunk, json_answer, last_chunk, sse_head
from tests.support.captures import CAPTURE, CAPTURE_TEXT, DONE_LINE, LONG, LONG_TEXT, cut
from tests.support.lexi import BODIES, Cut, LexiScript, Raw
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.sse_cases import Case

ONCE = AsyncRunner("asyncio")
SIZES = (1, 2, 3, 7, None)


def pieces(raw: bytes, size: int | None) -> list[bytes]:
    """Cut some bytes into pieces of one size; None leaves them whole."""
    return cut(raw, *([size] if size else []))


# The standard's cases ----------------------------------------------------------------------------------------------

_ROWS: dict[str, list[Case]] = {
    "E01": sse_cases.LINE_ENDS,
    "E03": sse_cases.BOMS,
    "E04": sse_cases.ENCODING[:3],
    "E05": sse_cases.ENCODING[3:],
    "E06": sse_cases.SEPARATORS[:4],
    "E07": sse_cases.SEPARATORS[4:],
    "E10": sse_cases.COMMENTS,
    "E11": sse_cases.WITHOUT_DATA,
    "E12": sse_cases.DATA,
    "E13": sse_cases.NAMES,
    "E14": sse_cases.RETRIES,
    "E15": [*sse_cases.ENDS, *sse_cases.ENDING_CASES],
    "E18": sse_cases.EXAMPLES,
}


def _speak(cases: list[Case]) -> Callable[[Connection], None]:
    """Make a script that answers the question "3 7" by the third case in pieces of seven bytes."""

    def script(connection: Connection) -> None:
        while True:
            number, size = connection.receive_request().json["message"].split()
            raw = cases[int(number)].raw
            framed = (chunk(piece) for piece in pieces(raw, None if size == "None" else int(size)))
            connection.send(sse_head() + b"".join(framed) + last_chunk())

    return script


async def _hear(lexi: Any, question: str) -> tuple[list[StreamEvent], LeadLexError | None]:
    events = list[StreamEvent]()
    try:
        async with lexi.stream_chat(question) as stream:
            async for event in stream:
                events.append(event)
    except LeadLexError as error:
        return events, error
    return events, None


def _meant(case: Case) -> tuple[list[StreamEvent], type[LeadLexError] | None]:
    """Tell what leadlex makes of a case: none of these events is the contract's but for the end."""
    events: list[StreamEvent] = [UnknownEvent(*event) for event in case.events]
    if events and case.events[-1][1] == "[DONE]":
        return [*events[:-1], Done()], None
    if events and case.events[-1][0] == "done":
        return [*events[:-1], Done(4840, "msg_01HY1")], None
    return events, StreamInterruptedError


@pytest.mark.parametrize("cases", [pytest.param(_ROWS[row], marks=pytest.mark.row(row), id=row) for row in _ROWS])
def test_conformance(runner: Runner, cases: list[Case]) -> None:
    """Bytes are the events that the standard makes of them, however they are cut, from the socket to the user."""

    async def scenario(lexi: Any) -> None:
        for number, case in enumerate(cases):
            for size in SIZES:
                events, error = await _hear(lexi, f"{number} {size}")
                assert (events, type(error) if error else None) == _meant(case), (case.name, size)

    with no_leaks(), must_not_hang(60), ScriptedServer(_speak(cases)) as server:
        runner.run(scenario, base_url=server.url, retries=0, resume=False, timeout=PATIENT)


_WAYS = {
    "E01": [CAPTURE.replace(b"\n", end) for end in (b"\r\n", b"\r")],
    "E03": [b"\xef\xbb\xbf" + CAPTURE],
    "E10": [
        b": ping\n\n" + CAPTURE.replace(b"\n\n", b"\n\nid: 7\n\n: ping\n\n"),
        CAPTURE.replace(b"\n", b"\n: ping\n"),
    ],
    "E14": [b"retry: 99999999\n" + CAPTURE],
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(stream, marks=pytest.mark.row(row), id=f"{row}-{number}")
        for row, streams in _WAYS.items()
        for number, stream in enumerate(streams)
    ],
)
def test_capture(stream: bytes, size: int | None) -> None:
    """The contract's capture means the same with other line ends, a BOM, comments and ids, at every way to cut it."""
    with ScriptedServer(LexiScript(stream=stream, sizes=(size or len(stream),))) as server:
        seen = observe(ONCE, "stream", server)
    seen.expect(None, attempts=1)
    assert len(seen.events) == 6


@pytest.mark.row("E04")
@pytest.mark.parametrize("size", SIZES)
def test_long_capture(runner: Runner, size: int | None) -> None:
    """Text of many scripts comes through intact wherever its characters are cut."""
    with ScriptedServer(LexiScript(stream=LONG, sizes=(size or len(LONG),))) as server:
        observe(runner, "stream", server, truth=LONG_TEXT).expect(None, attempts=1)


# Time --------------------------------------------------------------------------------------------------------------


@pytest.mark.row("E02")
@pytest.mark.parametrize("last", [b"\r\r", b"\r\n\r", b"\n\r"], ids=ascii)
def test_last_return(runner: Runner, last: bytes) -> None:
    """A CR that is the last byte for now ends its event at once, not with the next piece, and an LF then adds none."""

    def script(connection: Connection) -> None:
        connection.receive_request()
        connection.send(sse_head(), chunk(b"data: 1" + last))
        connection.wait_for()
        connection.send(chunk(b"\ndata: 2\n\n" + DONE_LINE), last_chunk())

    async def scenario(lexi: Any) -> list[StreamEvent]:
        async with lexi.stream_chat("Hi") as stream:
            events = [await anext(aiter(stream))]
            server.release()
            return events + [event async for event in stream]

    with no_leaks(), must_not_hang(), ScriptedServer(script) as server:
        events = runner.run(scenario, base_url=server.url, timeout=PATIENT)
    assert events == [UnknownEvent("message", "1"), UnknownEvent("message", "2"), Done()]


@pytest.mark.row("E14")
def test_retry_is_no_command(runner: Runner) -> None:
    """A server's `retry:` does not put off the continuation."""
    stream = b"retry: 99999999\n\n" + CAPTURE
    with ScriptedServer(spoiled("stream", Cut(300), stream=stream)) as server:
        seen = observe(runner, "stream", server, deadline=5)
    seen.expect(None, attempts=2)


# Heads -------------------------------------------------------------------------------------------------------------

_HOSTILE = ("utf-16", "utf-7", "zlib_codec", "base64_codec", "idna", "undefined", "punycode", "x" * 5000, "", '"')


def _typed(content_type: str) -> Raw:
    return Raw(sse_head({"Content-Type": content_type}) + chunk(CAPTURE) + last_chunk())


@pytest.mark.row("E08")
@pytest.mark.parametrize("charset", _HOSTILE, ids=lambda charset: charset[:20])
def test_charset(charset: str) -> None:
    """Whatever charset a head claims, a stream is UTF-8."""
    with ScriptedServer(spoiled("stream", _typed(f"text/event-stream; charset={charset}"))) as server:
        observe(ONCE, "stream", server).expect(None, attempts=1)


@pytest.mark.row("E09")
@pytest.mark.parametrize(
    "content_type",
    ["TEXT/Event-Stream", "text/event-stream;", " text/event-stream ; charset=utf-8; a=b", "text/event-stream, x/y"],
)
def test_media_type(content_type: str) -> None:
    """A media type is the same in any case and with any parameters; of two the first counts."""
    with ScriptedServer(spoiled("stream", _typed(content_type))) as server:
        observe(ONCE, "stream", server).expect(None, attempts=1)


@pytest.mark.row("E09")
@pytest.mark.parametrize(
    "content_type", ["not-text/event-streaming", "text/event-streaming", "text/html", "x; text/event-stream", ""]
)
def test_other_media_type(runner: Runner, content_type: str) -> None:
    """Only what says that it is an event stream is read as one."""
    with ScriptedServer(spoiled("stream", _typed(content_type))) as server:
        seen = observe(runner, "stream", server)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text="")


# The end of the body -----------------------------------------------------------------------------------------------


@pytest.mark.row("E15")
@pytest.mark.parametrize("back", [1, 2, 20, 60])
def test_end_inside_an_event(runner: Runner, back: int) -> None:
    """An event that the body's end cuts is dropped, and the stream is not whole."""
    done = CAPTURE.index(b"event: done")
    with ScriptedServer(LexiScript(stream=CAPTURE[: done - back])) as server:
        seen = observe(runner, "stream", server, resume=False)
    seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text=CAPTURE_TEXT[:21])


# Amounts -----------------------------------------------------------------------------------------------------------


def _delta(size: int) -> tuple[bytes, str]:
    """Make a text event whose line of data has this many bytes, and its text."""
    start, end = b'data: {"delta": "', b'"}'
    text = "a" * (size - len(start) - len(end))
    return b"event: text\n" + start + text.encode() + end + b"\n\n", text


def _event(size: int) -> bytes:
    """Make an event of this size in lines that are short enough."""
    line = b"data: " + b"a" * 60_000 + b"\n"
    return b"event: big\n" + line * (size // len(line)) + b"\n"


@pytest.mark.row("E16")
def test_largest(runner: Runner) -> None:
    """A line and an event of the sizes allowed are handed out."""
    line, text = _delta(MAX_LINE)
    with ScriptedServer(LexiScript(stream=_event(MAX_EVENT) + line + DONE_LINE)) as server:
        seen = observe(runner, "stream", server, truth=text, memory=3 * MAX_EVENT)
    seen.expect(None, attempts=1)
    assert len(seen.events[0].data) > MAX_EVENT - 70_000


@pytest.mark.row("E16")
@pytest.mark.parametrize("stream", [_delta(MAX_LINE + 70_000)[0], _event(MAX_EVENT + 200_000)], ids=["line", "event"])
def test_too_large(runner: Runner, stream: bytes) -> None:
    """A larger line or event ends the stream, and is not asked for again."""
    with ScriptedServer(LexiScript(stream=stream + DONE_LINE, sizes=(50_000,))) as server:
        seen = observe(runner, "stream", server, memory=3 * MAX_EVENT)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text="", says="MiB")


@pytest.mark.row("E16")
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.heavy)])
def test_byte_by_byte(count: int) -> None:
    """A stream in chunks of one byte takes time by its length and no more."""
    line, text = _delta(10_000)
    stream, truth = line * (count // 10_000) + DONE_LINE, text * (count // 10_000)
    framed = b"".join(chunk(piece) for piece in cut(stream, 1))
    fault = Raw(sse_head() + framed + last_chunk(), size=1 << 20)
    with ScriptedServer(spoiled("stream", fault)) as server:
        seen = observe(ONCE, "stream", server, truth=truth, deadline=10 + count / 10_000, memory=count * 8, timeout=60)
    seen.expect(None, attempts=1)


_FILLERS = {
    "LF": b"\n" * 100_000,
    "CRLF": b"\r\n" * 100_000,
    "comments": b": ping\n" * 500_000,
    "comment blocks": b":\n\n" * 50_000,
}


@pytest.mark.row("E17")
@pytest.mark.parametrize("filler", [pytest.param(filler, id=name) for name, filler in _FILLERS.items()])
def test_filler(filler: bytes) -> None:
    """Empty lines and comments by the million hold no memory."""
    half = CAPTURE.index(b"event: text")
    stream = filler + CAPTURE[:half] + filler + CAPTURE[half:]
    with ScriptedServer(LexiScript(stream=stream, sizes=(50_001,))) as server:
        observe(ONCE, "stream", server, deadline=30, timeout=60).expect(None, attempts=1)


@pytest.mark.row("E17")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_compressed_filler(backend: str) -> None:
    """A few bytes that inflate to millions of lines can be cancelled at once, and hold up nobody else."""
    filler = gzip.compress(b"\n" * (64 << 20))
    head = sse_head({"Content-Encoding": "gzip"}, length=len(filler))

    async def scenario(lexi: Any) -> float:
        began = time.monotonic()
        with anyio.move_on_after(0.2):
            await lexi.stream_chat("Hi").final_reply()
        return time.monotonic() - began

    with no_leaks(), must_not_hang(), ScriptedServer(spoiled("stream", Raw(head + filler, "stall"))) as server:
        assert AsyncRunner(backend).run(scenario, base_url=server.url) < 5


@pytest.mark.row("E18")
def test_type_in_json(runner: Runner) -> None:
    """An event without a name is unknown and handed out, whatever type its JSON claims; so is one named `message`."""
    said = '{"type": "text", "delta": "a"}'
    stream = f"data: {said}\n\nevent: message\ndata: {said}\n\n".encode() + CAPTURE
    with ScriptedServer(LexiScript(stream=stream)) as server:
        seen = observe(runner, "stream", server)
    seen.expect(None, attempts=1)
    assert seen.events[:2] == [UnknownEvent("message", said)] * 2


@pytest.mark.row("E18")
def test_done_in_a_json_answer() -> None:
    """What is no event stream is not searched for one."""
    fault = Raw(json_answer(200, {**BODIES["chat"], "x": "data: [DONE]"}))
    with ScriptedServer(spoiled("stream", fault)) as server:
        observe(ONCE, "stream", server).expect(APIResponseError, charged="unknown", attempts=1)

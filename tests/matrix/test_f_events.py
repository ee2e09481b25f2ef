"""Table F of the fault matrix: what events say, and JSON that is hostile."""

from __future__ import annotations

import dataclasses
import json
import logging
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from leadlex import (
    APIResponseError,
    APIStatusError,
    BadRequestError,
    ConflictError,
    Done,
    InsufficientCreditsError,
    LeadLexError,
    NotFoundError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
    TextDelta,
    Thinking,
    ToolStep,
    UnknownEvent,
)
from tests.matrix.oracles import Seen, observe, peak_memory_below, spoiled
from tests.support.answers import chunk, last_chunk, sse_head
from tests.support.captures import CAPTURE, CAPTURE_TEXT, DONE_LINE, encode_event
from tests.support.lexi import Answer, Cut, LexiScript, Plain, Raw
from tests.support.resources import must_not_hang
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer

ONCE = AsyncRunner("asyncio")
DONE = encode_event(("done", {"credits_remaining": 7, "message_id": "msg_1"}))
HALF = "The deal is"


def event(name: str, data: Any) -> bytes:
    """Write one event; `data` is JSON unless it is bytes."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data if isinstance(data, bytes) else json.dumps(data).encode())


def text(delta: str, conversation_id: str | None = "conv_1") -> bytes:
    """Write one piece of text, all but ASCII escaped."""
    return event("text", {"delta": delta, "conversation_id": conversation_id})


@dataclasses.dataclass(frozen=True)
class Says:
    """Say something else, whole, with a good head."""

    stream: bytes

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(plain.head, plain.frame(self.stream))
        plain.end(connection)


def ask(runner: Runner, stream: bytes, truth: str = "", **options: Any) -> Seen:
    """Ask a Lexi that answers with these bytes."""
    with ScriptedServer(LexiScript(stream=stream)) as server:
        seen = observe(runner, "stream", server, truth=truth, **options)
        assert server.ledger.credits == 1
        return seen


# The end -----------------------------------------------------------------------------------------------------------

BEFORE_DONE = CAPTURE.index(b"event: done")
AFTER_DONE = CAPTURE.index(DONE_LINE)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(CAPTURE, marks=pytest.mark.row("F01"), id="F01 done and [DONE]"),
        pytest.param(CAPTURE[:AFTER_DONE], marks=pytest.mark.row("F02"), id="F02 done only"),
    ],
)
def test_done(runner: Runner, stream: bytes) -> None:
    """An answer is whole and charged once `done` came, whatever follows."""
    seen = ask(runner, stream, CAPTURE_TEXT)
    seen.expect(None, attempts=1)
    assert seen.events[-1] == Done(4840, "msg_01HY1")
    assert (seen.value.credits_remaining, seen.charged) == (4840, "yes")


@pytest.mark.row("F03")
def test_done_line_only(runner: Runner) -> None:
    """`[DONE]` alone ends an answer too; what it cost is not known then."""
    seen = ask(runner, CAPTURE[:BEFORE_DONE] + DONE_LINE, CAPTURE_TEXT)
    seen.expect(None, attempts=1)
    assert seen.events[-1] == Done(None, None)
    assert (seen.value.credits_remaining, seen.charged) == (None, "unknown")


@pytest.mark.row("F04")
def test_no_end(runner: Runner) -> None:
    """A stream that ends without saying so is continued, and never taken for whole."""
    with ScriptedServer(spoiled("stream", Cut(BEFORE_DONE, "end"))) as server:
        seen = observe(runner, "stream", server)
    seen.expect(None, attempts=2)
    assert seen.resumes == 1
    seen = ask(runner, CAPTURE[:BEFORE_DONE], CAPTURE_TEXT, resume=False)
    seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text=CAPTURE_TEXT, says="without `done`")


@pytest.mark.row("F05")
@pytest.mark.parametrize("fault", [Cut(AFTER_DONE, "rst"), Cut(AFTER_DONE, inside_chunk=True), Cut(AFTER_DONE + 3)])
def test_broken_after_done(runner: Runner, fault: Cut) -> None:
    """How a connection ends takes nothing from an answer that was whole before."""
    with ScriptedServer(spoiled("stream", fault)) as server:
        seen = observe(runner, "stream", server)
    seen.expect(None, attempts=1)
    assert seen.charged == "yes"


@pytest.mark.row("F06")
@pytest.mark.parametrize(
    "last",
    [
        b"data:[DONE]\n\n",
        b"data: [DONE] \n\n",
        b"data:  [DONE]\t\n\n",
        b"event: done\ndata: [DONE]\n\n",
        b"event: done\ndata:  [DONE]\n\n",
    ],
)
def test_ends(last: bytes) -> None:
    """`[DONE]` counts with white space around it, and under the name `done`."""
    ask(ONCE, text(HALF) + last, HALF).expect(None, attempts=1)


@pytest.mark.row("F06")
@pytest.mark.parametrize(
    "last",
    [
        b'data: "[DONE]"\n\n',
        b"data: [done]\n\n",
        b"data: [DONE]\ndata:\n\n",
        b"event: text\ndata: [DONE]\n\n",
        b'event: done\ndata: "[DONE]"\n\n',
    ],
)
def test_false_ends(runner: Runner, last: bytes) -> None:
    """What only looks like `[DONE]` proves nothing: the answer can't be used, and is not continued."""
    seen = ask(runner, text(HALF) + last, HALF)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text=HALF)


@pytest.mark.row("F07")
@pytest.mark.parametrize("late", [text("more") + DONE, text("more" * 10_000) * 6], ids=["little", "much"])
def test_events_after_the_end(runner: Runner, late: bytes) -> None:
    """What follows the end is ignored; a little is read off so that the connection is used again."""
    stream = text(HALF) + DONE + DONE_LINE + b"\n" + late
    with ScriptedServer(LexiScript(stream=stream, framing="length", sizes=(len(stream),))) as server:
        observe(runner, "stream", server, truth=HALF).expect(None, attempts=1)
        assert server.connections == (1 if len(late) < 1000 else 2)


@pytest.mark.row("F08")
@pytest.mark.parametrize("sizes", [(), (10_000,)], ids=["apart", "together"])
def test_two_ends(runner: Runner, sizes: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    """Of two `done` events the first counts, and the second is logged."""
    other = encode_event(("done", {"credits_remaining": 1, "message_id": "msg_2"}))
    with ScriptedServer(LexiScript(stream=text(HALF) + DONE + other, sizes=sizes)) as server:
        seen = observe(runner, "stream", server, truth=HALF)
    seen.expect(None, attempts=1)
    assert [each for each in seen.events if isinstance(each, Done)] == [Done(7, "msg_1")]
    assert seen.value.credits_remaining == 7
    assert ("leadlex", logging.WARNING, "ignored field=a second done event") in caplog.record_tuples


# Errors ------------------------------------------------------------------------------------------------------------

_CLASSES: dict[str, type[LeadLexError]] = {
    "validation_error": BadRequestError,
    "insufficient_credits": InsufficientCreditsError,
    "conversation_not_found": NotFoundError,
    "conflict": ConflictError,
    "rate_limited": RateLimitError,
    "internal_error": ServerError,
    "overloaded": ServerError,
    "timeout": ServerError,
    "flux_depleted": APIStatusError,
}
_PASSING = ("rate_limited", "internal_error", "overloaded", "timeout")


@pytest.mark.row("F09")
@pytest.mark.parametrize("code", _CLASSES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_error_first(code: str, *, wrapped: bool) -> None:
    """An error before any content is the class of its code, and tried again where it may pass."""
    fields = {"code": code, "message": "Sorry"}
    fault, attempts = Says(event("error", {"error": fields} if wrapped else fields)), 3 if code in _PASSING else 1
    with ScriptedServer(spoiled("stream", fault, times=attempts)) as server:
        seen = observe(ONCE, "stream", server)
        keys = {request.idempotency_key for request in server.requests if request.method == "POST"}
    says = rf"\({code}, told after the status 200\): Sorry"
    seen.expect(_CLASSES[code], charged="unknown", attempts=attempts, code=code, message="Sorry", says=says)
    assert getattr(seen.error, "status_code", None) == 200
    assert len(keys) == 1


@pytest.mark.row("F09")
def test_error_first_then_well(runner: Runner) -> None:
    """An error that passes costs a retry with the same key and nothing else."""
    with ScriptedServer(spoiled("stream", Says(event("error", {"code": "overloaded"})))) as server:
        observe(runner, "stream", server).expect(None, attempts=2)


@pytest.mark.row("F09")
def test_error_first_with_a_date(runner: Runner) -> None:
    """A date on the head of a stream tells how long to wait from now, not from 1970."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    body = chunk(event("error", {"code": "rate_limited"})) + last_chunk()
    with ScriptedServer(spoiled("stream", Raw(sse_head({"Retry-After": later}) + body))) as server:
        seen = observe(runner, "stream", server, retries=0)
    seen.expect(RateLimitError, charged="unknown", attempts=1)
    assert isinstance(seen.error, RateLimitError)
    assert 40 < (seen.error.retry_after or 0) < 52


@pytest.mark.row("F10")
@pytest.mark.parametrize("code", ["internal_error", "insufficient_credits"])
def test_error_after_text(runner: Runner, code: str) -> None:
    """An error after text is raised with what came, and not continued."""
    seen = ask(runner, text(HALF) + event("error", {"code": code, "message": "Sorry"}), HALF)
    seen.expect(_CLASSES[code], charged="unknown", attempts=1, text=HALF, status_code=200)


@pytest.mark.row("F11")
@pytest.mark.parametrize("late", [text(" more") + DONE + DONE_LINE, DONE, event("error", {"code": "conflict"})])
def test_error_then_more(runner: Runner, late: bytes) -> None:
    """An error ends a stream, whatever still follows, and `done` does not make it good."""
    seen = ask(runner, text(HALF) + event("error", {"code": "timeout"}) + late, HALF)
    seen.expect(ServerError, charged="unknown", attempts=1, text=HALF)


@pytest.mark.row("F12")
@pytest.mark.parametrize(
    "data",
    [
        b"out of \x1b[31mluck",
        b"[1, 2]",
        b"[DONE]",
        b"null",
        b"7",
        b'{"message": "no code"}',
        b'{"code": 7, "message": []}',
        b'{"error": "text"}',
        b"[" * 100_000,
        json.dumps({"message": "\x1b]0;a\x07\r\n\u202e" + "x" * 9000}).encode(),
    ],
    ids=lambda data: ascii(data[:20]),
)
def test_strange_error(data: bytes) -> None:
    """An error event of any form is an error, shown on one line, short and without control characters."""
    seen = ask(ONCE, text(HALF) + event("error", data), HALF)
    seen.expect(APIStatusError, charged="unknown", attempts=1, code=None, text=HALF)
    assert str(seen.error).isprintable()
    assert len(str(seen.error)) < 2048 + 500


# JSON --------------------------------------------------------------------------------------------------------------

_NOT_JSON = [
    b"not json",
    b'{"delta": "a"',
    b"{'delta': 'a'}",
    b'{"delta": "a"} x',
    b"\xef\xbb\xbf{}",
    b'{"delta": "\\ud8"}',
]
_WRONG = [
    b"null",
    b"[]",
    b"5",
    b'"a"',
    b"{}",
    b'{"delta": null}',
    b'{"delta": 5}',
    b'{"delta": ["a"]}',
    b'{"delta": {"a": 1}}',
    b'{"delta": true}',
]
_DEEP = b'{"delta": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
_DIGITS = b'{"delta": "a", "n": ' + b"9" * 5000 + b"}"
_NUMBERS = [b'{"delta": "a", "n": %b}' % number for number in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999")]
_HOSTILE = [
    *(pytest.param(data, marks=pytest.mark.row("F13"), id=f"F13 {data!a}") for data in _NOT_JSON),
    *(pytest.param(data, marks=pytest.mark.row("F16"), id=f"F16 {data!a}") for data in _WRONG),
    pytest.param(_DEEP, marks=pytest.mark.row("F17"), id="F17 deep"),
    pytest.param(_DIGITS, marks=pytest.mark.row("F18"), id="F18 digits"),
    *(pytest.param(data, marks=pytest.mark.row("F19"), id=f"F19 {data[20:]!a}") for data in _NUMBERS),
]


@pytest.mark.parametrize("data", _HOSTILE)
def test_hostile_event(data: bytes) -> None:
    """A known event that is not the contract's is never skipped: the answer can't be used, and what came is kept."""
    seen = ask(ONCE, text(HALF) + event("text", data) + DONE + DONE_LINE, HALF)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text=HALF, says="the event text")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"delta": 5}, marks=pytest.mark.row("F16")),
        pytest.param(5, marks=pytest.mark.row("F16")),
        pytest.param(b"nothing", marks=pytest.mark.row("F13")),
    ],
)
def test_hostile_event_on_each_runner(runner: Runner, data: Any) -> None:
    """What is wrong is told with the event's name, by every client alike."""
    seen = ask(runner, text(HALF) + event("text", data) + DONE_LINE, HALF)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text=HALF, says="the event text")


@pytest.mark.row("F16")
@pytest.mark.parametrize(
    ("name", "data", "handed_out"),
    [
        ("thinking", {"text": 5}, Thinking(extra={"text": 5})),
        ("thinking", {"text": None}, Thinking()),
        ("thinking", b"nothing", Thinking(extra={"data": "nothing"})),
        ("tool_step", {"tool": "a"}, ToolStep("a")),
        ("tool_step", {"tool": "a", "status": "b", "summary": {}}, ToolStep("a", "b", extra={"summary": {}})),
        ("tool_step", [], ToolStep(extra={"data": "[]"})),
        ("text", {"delta": "", "conversation_id": 5}, TextDelta("", extra={"conversation_id": 5})),
        ("done", {"message_id": 5}, Done(extra={"message_id": 5})),
        ("done", 5, Done(extra={"data": "5"})),
        ("done", b'{"credits', Done(extra={"data": '{"credits'})),
    ],
)  # fmt: skip
def test_side_fields(
    runner: Runner, name: str, data: Any, handed_out: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A paid answer has its text and its end: what else can't be read of it is kept as sent, and logged."""
    seen = ask(runner, text(HALF) + event(name, data) + DONE, HALF)
    seen.expect(None, attempts=1)
    assert seen.events[1] == handed_out
    assert seen.value.response == HALF
    assert [each for each in caplog.messages if each.startswith("ignored")] or handed_out in (Thinking(), ToolStep("a"))


@pytest.mark.row("F14")
def test_unknown_events(runner: Runner) -> None:
    """Events of a later service are handed out as they came, JSON or not."""
    stream = event("citation", {"page": 3}) + event("mood", b"sunny \xff") + text(HALF) + b"data: hello\n\n" + DONE
    seen = ask(runner, stream, HALF)
    seen.expect(None, attempts=1)
    unknown = [each for each in seen.events if isinstance(each, UnknownEvent)]
    assert unknown == [
        UnknownEvent("citation", '{"page": 3}'),
        UnknownEvent("mood", "sunny \ufffd"),
        UnknownEvent("message", "hello"),
    ]


@pytest.mark.row("F15")
def test_extra_fields(runner: Runner) -> None:
    """Fields of a later service are kept in `extra`, even those named as ours are."""
    more = {"lang": "en", "extra": 1, "meta": None}
    stream = event("thinking", {"text": "Hm", **more}) + event("text", {"delta": HALF, **more})
    seen = ask(runner, stream + event("done", {"credits_remaining": 3, **more}), HALF)
    seen.expect(None, attempts=1)
    assert [each.extra for each in seen.events] == [more] * 3


@pytest.mark.row("F20")
def test_repeated_names(runner: Runner) -> None:
    """Of a repeated name in an object the last one counts."""
    ask(runner, event("text", b'{"delta": "no", "delta": "yes"}') + DONE, "yes").expect(None, attempts=1)


@pytest.mark.row("F21")
@pytest.mark.parametrize(
    ("deltas", "truth"),
    [
        (["a \ud83d", "\ude00 b"], "a 😀 b"),
        (["a \ud83d", "", "\ude00 b"], "a 😀 b"),
        (["\ud83d\ude00"], "😀"),
        (["a \ud83d b"], "a \ufffd b"),
        (["a \ude00 c"], "a \ufffd c"),
        (["a \ud83d", " b"], "a \ufffd b"),
        (["a \ud83d", "\ud83d", "\ude00"], "a \ufffd😀"),
        (["a \ud83d"], "a \ufffd"),
    ],
    ids=ascii,
)
def test_surrogates(deltas: list[str], truth: str) -> None:
    """Halves of a character find each other over events, one that finds none is replaced: text can be written."""
    seen = ask(ONCE, b"".join(map(text, deltas)) + DONE, truth)
    seen.expect(None, attempts=1)
    assert seen.text.encode().decode() == truth


@pytest.mark.row("F21")
def test_surrogates_elsewhere(runner: Runner) -> None:
    """Half a character in any other text is replaced too."""
    stream = event("thinking", {"text": "\ud83d"}) + event(
        "tool_step", {"tool": "t", "status": "s", "summary": "\ude00"}
    )
    seen = ask(runner, stream + text(HALF) + DONE, HALF)
    seen.expect(None, attempts=1)
    assert seen.events[:2] == [Thinking("\ufffd"), ToolStep("t", "s", "\ufffd")]


# Order and amount --------------------------------------------------------------------------------------------------


@pytest.mark.row("F22")
def test_repeated_events(runner: Runner) -> None:
    """The same words twice are the same words twice."""
    seen = ask(runner, text("very ") * 2 + text("good") + DONE, "very very good")
    seen.expect(None, attempts=1)
    assert [each.delta for each in seen.events[:-1]] == ["very ", "very ", "good"]


@pytest.mark.row("F23")
def test_other_conversation(runner: Runner) -> None:
    """A stream that changes to another conversation can't be used; no text is put under two ids."""
    seen = ask(runner, text(HALF, "conv_1") + text(" lost", None) + text(" other", "conv_2") + DONE, HALF + " lost")
    seen.expect(APIResponseError, charged="unknown", attempts=1, text=HALF + " lost", says="another conversation")
    assert seen.error.partial.conversation_id == "conv_1"  # type: ignore[union-attr]  # expect looked


@pytest.mark.row("F24")
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.heavy)])
def test_many_deltas(runner: Runner, count: int) -> None:
    """A long answer in small pieces, some of them empty, takes time by its length and no more."""
    some = b"".join(text(delta) for delta in ("a", "", "b", "c")) * 250
    stream, truth = some * (count // 1000) + DONE, "abc" * (count // 4)
    with ScriptedServer(LexiScript(stream=stream, sizes=(len(some),))) as server:
        seconds = 5 + len(stream) / 3e5  # 3 MB/s on an idle machine
        seen = observe(runner, "stream", server, truth=truth, deadline=seconds, memory=count * 1000, timeout=60)
    seen.expect(None, attempts=1)
    assert len(seen.events) == count + 1


@pytest.mark.row("F25")
def test_any_order(runner: Runner) -> None:
    """Thinking after text, a tool that ends before it began, a status nobody knows: all are handed out as they came."""
    events = [
        TextDelta(HALF, "conv_1"),
        Thinking("Hm"),
        ToolStep("deals.get", "completed", "1 deal"),
        ToolStep("deals.get", "started"),
        ToolStep("deals.get", "paused"),
        Thinking("Hm"),
        Done(7, "msg_1"),
    ]
    steps = [("completed", "1 deal"), ("started", None), ("paused", None)]
    tools = (event("tool_step", {"tool": "deals.get", "status": status, "summary": told}) for status, told in steps)
    thought = event("thinking", {"text": "Hm"})
    seen = ask(runner, text(HALF) + thought + b"".join(tools) + thought + DONE, HALF)
    seen.expect(None, attempts=1)
    assert seen.events == events


_LONG = {"thinking": b'{"text": "%b"}', "tool_step": b'{"tool": "t", "status": "s", "summary": "%b"}', "mood": b"%b"}


def _squeezed(name: str, mebibytes: int) -> bytes:
    """Make a compressed stream that is a thousand times as long: much of one event, a little text, an end."""
    squeeze, some = zlib.compressobj(9, wbits=31), event(name, _LONG[name] % (b"a" * 60_000)) * 17
    pieces = [squeeze.compress(some) for _ in range(mebibytes)]
    return b"".join([*pieces, squeeze.compress(text(HALF) + DONE + DONE_LINE), squeeze.flush()])


@pytest.mark.row("F24")
@pytest.mark.parametrize("mebibytes", [60, pytest.param(406, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("name", _LONG)
def test_much_beside_the_text(runner: Runner, name: str, mebibytes: int, caplog: pytest.LogCaptureFixture) -> None:
    """Some hundred KiB that stand for hundreds of MiB beside the text are handed out, and hardly kept."""
    body = _squeezed(name, mebibytes)
    fault = Raw(sse_head({"Content-Encoding": "gzip"}, chunked=False, length=len(body)) + body)

    async def scenario(lexi: Any) -> None:
        count, stream = 0, lexi.stream_chat("Hi")
        with peak_memory_below(64 << 20):
            async for _ in stream:
                count += 1
            reply = await stream.final_reply()
        assert (count, reply.response) == (17 * mebibytes + 2, HALF)
        assert sum(map(len, reply.thinking)) + sum(len(step.summary or "") for step in reply.tool_steps) < 8 << 20

    with ScriptedServer(spoiled("stream", fault)) as server, must_not_hang():
        runner.run(scenario, base_url=server.url)
    assert sum(each.startswith("dropped") for each in caplog.messages) == (name != "mood")


@pytest.mark.row("F24")
def test_too_many_values_beside_the_text(runner: Runner) -> None:
    """An event that would fill memory comes as the text it was, where the answer can do without; else it is refused."""
    many = b'{"a":[\n' + b"\n".join([b"{}," * 100_000] * 8) + b"\n1]}"
    data = b"\ndata: ".join(many.split(b"\n"))
    seen = ask(runner, text(HALF) + event("thinking", data) + event("tool_step", data) + DONE, HALF)
    seen.expect(None, attempts=1)
    assert seen.events[1:3] == [Thinking(extra={"data": many.decode()}), ToolStep(extra={"data": many.decode()})]
    seen = ask(runner, text(HALF) + event("text", data) + DONE, HALF)
    seen.expect(APIResponseError, charged="unknown", attempts=1, text=HALF, says="more than 100,000 values")


# Bodies ------------------------------------------------------------------------------------------------------------

_MESSAGES = (b"null", b"{}", b'"a"', b"[null]", b"[5]", b"[{}]")
_BODIES = [
    *_NOT_JSON[:4],
    b"\xff\xfe{\x00}\x00",
    *(b"", b"null", b"[]", b"5", b"{}", b'{"data": null}', b'{"data": []}', b'{"data": {"id": 5}}'),
    *(b'{"data": {"id": "a", "messages": %b}}' % each for each in _MESSAGES),
    *(b'{"data": %b}' % each for each in (_DEEP, _DIGITS, *_NUMBERS)),
]


@pytest.mark.row("F26")
@pytest.mark.parametrize("body", _BODIES, ids=lambda body: ascii(body[:60]))
def test_hostile_body(body: bytes) -> None:
    """A conversation that is not the contract's is asked for once more, and then can't be used."""
    with ScriptedServer(spoiled("get", Answer(200, body), times=2)) as server:
        seen = observe(ONCE, "get", server)
    seen.expect(APIResponseError, charged="no", attempts=2)


@pytest.mark.row("F26")
@pytest.mark.parametrize("field", ['"title": 5', '"created_at": "2016-12-31T23:59:61Z"', '"archived": "no"'])
def test_side_field_of_a_body(runner: Runner, field: str) -> None:
    """A conversation has its id and its messages; what else can't be read is kept as sent."""
    body = f'{{"data": {{"id": "a", "messages": [{{"id": "m", "tool_calls": 5}}], {field}}}}}'
    with ScriptedServer(spoiled("get", Answer(200, body.encode()))) as server:
        seen = observe(runner, "get", server)
    seen.expect(None, attempts=1)
    assert seen.value.extra == json.loads(f"{{{field}}}")
    assert seen.value.messages[0].extra == {"tool_calls": 5}


@pytest.mark.row("F26")
@pytest.mark.parametrize("body", [b"null", b'{"data": {"response": 5}}', _DEEP, _DIGITS])
def test_hostile_reply(runner: Runner, body: bytes) -> None:
    """A reply of `chat` that is not the contract's may have been charged, and is never asked for again."""
    with ScriptedServer(spoiled("chat", Answer(200, body))) as server:
        seen = observe(runner, "chat", server)
    seen.expect(APIResponseError, charged="unknown", attempts=1)


@pytest.mark.row("F26")
def test_well_after_a_hostile_body(runner: Runner) -> None:
    """A GET whose first answer can't be used and whose second one can is a success."""
    with ScriptedServer(spoiled("get", Answer(200, b"{"))) as server:
        observe(runner, "get", server).expect(None, attempts=2)

"""The edges between bytes and values: JSON, events, bodies, replays, and what is told when they break."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from sys import getsizeof
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    ChatReply,
    Conversation,
    Done,
    Meta,
    PermissionDeniedError,
    StreamEvent,
    StreamInterruptedError,
    Task,
    TextDelta,
    Thinking,
    Timeout,
    ToolStep,
    UnknownEvent,
)
from leadlex._api_key import ApiKey
from leadlex._network.bodies import MAX_DRAIN, GuardedText, read_all
from leadlex._network.timeouts import Clocks, Expired
from leadlex._network.translation import Translator, without_traceback
from leadlex._policy.call import interrupted
from leadlex._policy.failures import Failure, FailureKind, Progress, cut_short
from leadlex._policy.replay import Divergence, Replay
from leadlex._policy.transcript import KEPT, Transcript
from leadlex._protocol.endpoints import conversation
from leadlex._protocol.event_blocks import LineGuard, ends_stream
from leadlex._protocol.json_text import Unusable, WireError, dumps, loads, loads_bytes
from leadlex._protocol.problems import WireProblem, problem_of_body
from leadlex._protocol.server_events import END, event_of
from leadlex._protocol.structure import field_of, structure
from leadlex._values.events import size_of
from tests.support.captures import CAPTURE, cut
from tests.support.faces import API_KEY, drive
from tests.support.memory import KEY, decoded, response_of

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class TestJson:
    """JSON is RFC 8259's, and what can't be held is refused."""

    @pytest.mark.parametrize("text", ["", "{", "NaN", "-Infinity", "1e999", "9" * 5000, "[" * 100_000, "'a'", "1 2"])
    def test_refused(self, text: str) -> None:
        """What is no JSON, or no value, is a WireError and nothing else."""
        with pytest.raises(WireError, match="not valid JSON"):
            loads(text)

    def test_read(self) -> None:
        """Of a repeated name the last counts; a body is UTF-8 with or without BOM."""
        assert loads('{"a": 1, "a": 2.5e3}') == {"a": 2500.0}
        assert loads_bytes(b"\xef\xbb\xbf[1]") == [1]
        with pytest.raises(WireError, match="not UTF-8"):
            loads_bytes(b'"\xff"')

    @pytest.mark.parametrize("value", ["\ud800", float("nan"), {1, 2}, {"a": object()}, {("a",): 1}])
    def test_not_written(self, value: object) -> None:
        """What has no JSON is refused before it is sent."""
        with pytest.raises(WireError, match=r"surrogate|can't hold"):
            dumps(value)

    def test_written(self) -> None:
        """JSON is written short and as UTF-8; a value inside itself is refused."""
        assert dumps({"a": ["é", None, 1]}) == '{"a":["é",null,1]}'.encode()
        circle: list[Any] = []
        circle.append(circle)
        with pytest.raises(WireError, match="can't hold"):
            dumps(circle)

    @pytest.mark.parametrize("text", ["[%s1]", '{"a": [%s1]}', '["a,[{", "\\",",%s"a"]'])
    @pytest.mark.parametrize("items", ["{},", "[ ],", "1,", '"",', '"\\"",', '{"a":{}},', '[[1],"{,,"],'])
    def test_too_many_values(self, text: str, items: str) -> None:
        """JSON of more than 500,000 values is refused before one is made; as many signs in its texts are none."""
        many = items * 20
        assert loads(text % many)
        for count, is_refused in ((100_000, False), (600_000, True)):
            whole = text % (items * count)
            if is_refused:
                with pytest.raises(WireError, match="more than 500,000 values"):
                    loads(whole)
            else:
                assert loads(whole)

    def test_many_signs_in_text(self) -> None:
        """Commas and brackets in texts are no values, however many; what is no JSON is told as before."""
        signs = ",[{" * 400_000
        assert loads(f'["{signs}", {{"a": "{signs}"}}]') == [signs, {"a": signs}]
        assert loads("[" + ",".join(['"a,b"'] * 300_000) + "]") == ["a,b"] * 300_000
        for none in ('"a,"' * 700_000, '"' + signs, signs + '"'):
            with pytest.raises(WireError, match=r"not valid JSON|more than 500,000 values"):
                loads(none)

    def test_too_many_values_to_write(self) -> None:
        """What holds one thing many times is refused before it is written."""
        laughs: Any = "ha" * 1000
        for _ in range(9):
            laughs = {str(number): laughs for number in range(10)}
        for value in (laughs, [[0] * 1000] * 1000, ["ha" * 1000] * 50_000, ((),) * 600_000):
            with pytest.raises(WireError, match="more than 500,000 values"):
                dumps(value)
        assert len(dumps([1] * 400_000)) == 800_001


class TestValues:
    """Values are taken as they are, never coerced, and what is wrong is told by its place."""

    @pytest.mark.parametrize(
        ("kind", "value", "told"),
        [
            (ChatReply, {}, "data.response is missing"),
            (ChatReply, {"response": None}, "data.response is missing"),
            (ChatReply, {"response": 5}, "data.response should be a text, is a number"),
            (ChatReply, {"response": True}, "data.response should be a text, is a boolean"),
            (ChatReply, [], "data should be an object, is a list"),
            (ChatReply, None, "data should be an object, is null"),
            (Conversation, {"id": "a", "messages": {}}, "data.messages should be a list, is an object"),
            (Conversation, {"id": "a", "messages": [{"id": "b"}, {}]}, r"data.messages\[1\].id is missing"),
            (int, 2.9, "data should be a whole number, is a number"),
            (int, True, "data should be a whole number, is a boolean"),
            (float, "1", "data should be a number, is a text"),
        ],
    )  # fmt: skip
    def test_refused(self, kind: type[Any], value: object, told: str) -> None:
        """A field that is missing or of another type is told by its place, and its content is not."""
        with pytest.raises(WireError, match=f"^{told}$" if told.startswith("data") else told):
            structure(kind, value)

    def test_moments(self) -> None:
        """Times are aware and in UTC, whatever zone or precision they were sent with."""
        sent = ["2026-04-17T10:30:00Z", "2026-04-17T12:30:00.000000+02:00", "2026-04-17T10:30:00"]
        tasks = [structure(Task, {"id": "a", "status": "b", "created_at": each}) for each in sent]
        assert {task.created_at for task in tasks} == {datetime(2026, 4, 17, 10, 30, tzinfo=UTC)}
        assert all(task.created_at and task.created_at.tzinfo is UTC for task in tasks)

    def test_null_and_more(self) -> None:
        """Null means absent, and what the contract does not name is kept, even under our own names."""
        reply = structure(ChatReply, {"response": "a", "task_id": None, "meta": 1, "extra": 2, "x": None})
        assert reply == ChatReply(response="a", extra={"meta": 1, "extra": 2, "x": None})
        assert reply.meta is None

    def test_credits(self, caplog: pytest.LogCaptureFixture) -> None:
        """A balance that is no whole number is None, and logged without its value."""
        caplog.set_level(logging.WARNING)
        told = [structure(Done, {"credits_remaining": each}).credits_remaining for each in (3, None, 3.5, "3", True)]
        assert told == [3, None, None, None, None]
        assert caplog.messages == ["ignored field=credits_remaining"] * 3

    def test_envelope(self) -> None:
        """An envelope is an object with the field that is asked for."""
        assert field_of({"data": 1}, "data") == 1
        for value, told in (([], "should be an object, is a list"), ({"data": None}, "data is missing")):
            with pytest.raises(WireError, match=told):
                field_of(value, "data")


class TestEvents:
    """An event is what its name and data say, and only an end is an end."""

    @pytest.mark.parametrize(
        ("name", "data", "event"),
        [
            ("thinking", '{"text": "Hm"}', Thinking("Hm")),
            ("tool_step", '{"tool": "a", "status": "b"}', ToolStep("a", "b")),
            ("text", ' {"delta": ""}', TextDelta("")),
            ("done", "{}", Done()),
            ("done", "[DONE]", END),
            ("done", " [DONE]", END),
            ("message", "[DONE]", END),
            ("message", " \t[DONE] ", END),
            ("message", "[done", UnknownEvent("message", "[done")),
            ("note", "[DONE]", UnknownEvent("note", "[DONE]")),
            ("note", " ", UnknownEvent("note", " ")),
            ("error", '{"code": "a", "message": "b"}', WireProblem("a", "b")),
            ("error", '{"error": {"code": "a"}}', WireProblem("a", None)),
            ("error", '{"error": "a"}', WireProblem(None, None)),
            ("error", '{"code": 1, "message": 2}', WireProblem(None, None)),
            ("error", "[1]", WireProblem(None, None)),
            ("error", "oh no", WireProblem(None, "oh no")),
        ],
    )
    def test_read(self, name: str, data: str, event: object) -> None:
        """A known event is its value, an unknown one is passed on, an error is what it says in any form."""
        assert event_of(name, data) == event

    @pytest.mark.parametrize(
        ("name", "data", "told"),
        [
            ("text", "{}", "the event text.delta is missing"),
            ("text", "5", "the event text should be an object, is a number"),
            ("text", "[]", "the event text should be an object"),
            ("done", "[DONE]\n", r"not the contract's \[DONE\]"),
            ("message", "'[DONE]'", r"not the contract's \[DONE\]"),
        ],
    )
    def test_refused(self, name: str, data: str, told: str) -> None:
        """What a known event lacks, and what only looks like the end, is told."""
        with pytest.raises(WireError, match=told):
            event_of(name, data)

    @pytest.mark.parametrize(
        ("tail", "ends"),
        [
            ("data: [DONE]", True),
            ("event: done\ndata: {}\n", True),
            ("event\ndata: [DONE]", True),
            ("event: done\n: ping\ndata: {\ndata: }", True),
            ("", False),
            ("event: done", False),
            ("event: done\ndata: {", False),
            ("data: {}", False),
            ("data: [done]", False),
            ('event: error\ndata: {"code": "a"}', False),
        ],
    )
    def test_tail(self, tail: str, *, ends: bool) -> None:
        """An unfinished last event counts where it is the end, whole but for its line ends."""
        assert ends_stream(tail) is ends

    def test_problem_of_body(self) -> None:
        """An error is read from a body that has one; from any other there is none."""
        assert problem_of_body(b'{"error": {"code": "a", "message": "b"}}') == WireProblem("a", "b")
        assert [problem_of_body(body) for body in (b"", b"\xff", b"[]", b'{"error": []}')] == [None] * 4


# Bodies ------------------------------------------------------------------------------------------------------------


def clocks(**timeout: Any) -> Clocks:
    """Make the clocks of a stream."""
    return Clocks(Timeout(**timeout), None, streams=True)


def body_of(*pieces: bytes, coding: str = "", limit: int = 1 << 20, cut: bool = False) -> bytes:
    """Read a whole body."""
    return drive(read_all(response_of(pieces, {"content-encoding": coding}), clocks(), limit, cut=cut))


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
        made.note_event()
        ends.append(made.next_end())
        assert [clock for _, clock in ends] == ["first_event", "first_event", "event_idle"]
        assert [seconds for seconds, _ in ends] == pytest.approx([1, 1, 2], abs=0.5)
        assert ends[1] < ends[0]

    def test_json(self) -> None:
        """A JSON answer has no clock of events."""
        assert Clocks(Timeout(), None, streams=False).next_end()[0] == float("inf")


async def _silent() -> AsyncIterator[bytes]:
    await anyio.sleep_forever()
    yield b""


# Replays -----------------------------------------------------------------------------------------------------------


def handed_out(*events: Any, asked: str | None = None) -> Transcript:
    """Hand out these events of an answer in a conversation."""
    transcript = Transcript(asked)
    for event in events:
        transcript.add(event)
    return transcript


STEP = ToolStep("deals.get", "started")


class TestTranscript:
    """What was handed out is kept, cheaply."""

    def test_text(self) -> None:
        """Text by the million pieces is the same text."""
        transcript = handed_out(
            *(TextDelta(str(i % 10), "conv_1" if i == 5 else None) for i in range(5000)), asked="conv_0"
        )
        assert (transcript.text, transcript.length) == ("0123456789" * 500, 5000)
        assert transcript.reply(None).conversation_id == "conv_1"

    @pytest.mark.parametrize("event", [TextDelta("a"), Thinking("a"), STEP, UnknownEvent("a", "b"), Done(1)])
    def test_begun(self, event: object) -> None:
        """Any event begins an answer; an empty delta does not."""
        assert handed_out(event).begun
        assert not handed_out(TextDelta("")).begun

    def test_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of thinking and tool steps 8 MiB are kept, and the rest is counted; that is told once."""
        step = ToolStep("deals.get", "started", extra={"found": [{"id": "x" * 1000}] * 100})
        for event in (Thinking("x" * 10_000), ToolStep("t", "s", "x" * 10_000), step):
            transcript = handed_out(*[event] * 2000, TextDelta("a"), Thinking("late"), ToolStep("late", "late"))
            reply = transcript.reply(None)
            kept = len(reply.thinking) + len(reply.tool_steps)
            assert KEPT // 2 < kept * size_of(event) <= KEPT
            assert (transcript.thoughts + transcript.steps, reply.response) == (2002, "a")
        assert caplog.messages == ["dropped field=thinking and tool steps of a reply, after 8 MiB"] * 3

    def test_size(self) -> None:
        """The size of an event is about what it takes, whatever is in it."""
        for text in ("x" * 10_000, "\U0001f642" * 10_000):
            for event in (
                TextDelta(text),
                TextDelta("a", text),
                Thinking(text),
                ToolStep("a", "b", text),
                Done(1, text),
            ):
                assert getsizeof(text) < size_of(event) < getsizeof(text) + 500
            assert 0 < size_of(UnknownEvent(text, text)) - 2 * getsizeof(text) < 500
        assert size_of(TextDelta("a", extra={"a": [{}] * 1000})) > 72_000

    def test_billed(self) -> None:
        """Only a `done` that tells something tells of the charge."""
        assert [handed_out(*events).billed for events in ([], [Done()], [Done(1)])] == [False, False, True]

    def test_reply(self) -> None:
        """The reply so far has what came, and the conversation that was asked for until another id is known."""
        transcript = handed_out(TextDelta("a"), Thinking("b"), STEP, Done(7, "msg_1"), asked="conv_0")
        reply = transcript.reply(Meta(status_code=200))
        assert reply == ChatReply(
            response="a",
            conversation_id="conv_0",
            message_id="msg_1",
            credits_remaining=7,
            thinking=("b",),
            tool_steps=(STEP,),
        )


class TestReplay:
    """A replay says again what was handed out, then what is new; anything else is a divergence."""

    def test_continues(self) -> None:
        """Nothing comes twice, a delta over the boundary is split, and the rest comes as it is."""
        seen: list[StreamEvent] = [Thinking("Hm"), UnknownEvent("a", "b"), STEP, TextDelta("The deal", "conv_1")]
        late: list[StreamEvent] = [Thinking("So"), STEP, UnknownEvent("a", "b"), TextDelta("!", "conv_1"), Done(1)]
        replay = Replay(handed_out(*seen))
        again = [*seen[:3], TextDelta("The", "conv_1"), TextDelta(" deal is", "conv_1"), *late]
        fresh = [replay.new_part(event) for event in again]
        assert fresh == [None, None, None, None, TextDelta(" is", "conv_1"), *late]

    def test_thinks_otherwise(self) -> None:
        """Thinking is never compared; before the boundary it is dropped."""
        replay = Replay(handed_out(TextDelta("ab")))
        assert replay.new_part(Thinking("other")) is None
        assert replay.new_part(TextDelta("a")) is None
        assert not replay.caught_up
        assert replay.new_part(TextDelta("b")) is None
        assert replay.caught_up
        assert replay.new_part(Thinking("new")) == Thinking("new")

    def test_leaves_steps_out(self) -> None:
        """A replay may leave steps out, and then goes on with new ones."""
        other = ToolStep("deals.get", "completed")
        replay = Replay(handed_out(STEP, other))
        assert replay.new_part(other) is None
        assert replay.new_part(ToolStep("b", "started")) == ToolStep("b", "started")

    def test_skips_what_was_not_kept(self) -> None:
        """Thinking and tool steps that were handed out and not kept don't come again, and new ones do."""
        large = "x" * (5 << 20)
        steps = [ToolStep("a", "started", large), STEP, ToolStep("b", "started", large), ToolStep("c", "started"), STEP]
        seen: list[StreamEvent] = [*steps, Thinking(large), Thinking("Hm"), TextDelta("The deal"), STEP]
        transcript = handed_out(*seen)
        assert (transcript.tool_steps, transcript.thinking) == (seen[:2], [])
        late: list[StreamEvent] = [ToolStep("e", "started"), Thinking("So"), TextDelta("!"), Done(1)]
        again: list[StreamEvent]
        for again, taken in ((seen, 0), ([seen[0], *seen[2:4], *seen[5:]], 1)):
            replay = Replay(transcript)
            assert [replay.new_part(event) for event in again] == [None] * len(again)
            # Where a replay left out one that was not kept, the next step is taken for it.
            assert [event for event in map(replay.new_part, late) if event] == late[taken:]

    @pytest.mark.parametrize(
        ("event", "why"),
        [
            (TextDelta("The dean"), "says something else"),
            (TextDelta("The deal", "conv_2"), "another conversation"),
            (ToolStep("other", "started"), "other steps"),
            (Done(1), "ends earlier"),
        ],
    )
    def test_diverges(self, event: Any, why: str) -> None:
        """Other text, another conversation, other steps and an early end are told apart."""
        replay = Replay(handed_out(STEP, TextDelta("The deal", "conv_1")))
        with pytest.raises(Divergence, match=why) as caught:
            replay.new_part(event)
        assert caught.value.replayed == getattr(event, "delta", "")


# Faults ------------------------------------------------------------------------------------------------------------

TRANSLATOR = Translator(ApiKey(API_KEY), Timeout(), "https://localhost", "localhost:443")
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

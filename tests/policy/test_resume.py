"""Continuing a broken stream: the whole true answer comes out once, or an error that says where the two differ.

The campaign over every byte offset runs with `python -m pytest tests/policy/test_resume.py -m heavy`; a sample of it is
in the ordinary run.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    ChatReply,
    ConflictError,
    Done,
    IdempotencyError,
    InsufficientCreditsError,
    LeadLexError,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    StreamDivergedError,
    StreamEvent,
    StreamInterruptedError,
    TextDelta,
    Thinking,
    Timeout,
    ToolStep,
    UnknownEvent,
)
from leadlex._network.retry_quota import RetryQuota
from leadlex._policy.call import MAX_RESUMABLE
from leadlex._policy.failures import FailureKind
from leadlex._policy.replay import Divergence, Replay
from leadlex._policy.transcript import Transcript
from tests.support.captures import (
    CAPTURE,
    CAPTURE_TEXT,
    LONG,
    LONG_TEXT,
    decode_stream,
    encode_event,
    encode_stream,
    reword,
    text_events,
    text_of,
)
from tests.support.lexi import Answer, ByMessage, Cut, Ending, LexiScript, Lost, Personality, Plain
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.times import TimedRunner, Turned, transport_of

KINDS = {"thinking": Thinking, "tool_step": ToolStep, "text": TextDelta, "done": Done}
AT_ONCE = RetryPolicy(base=0.01, throttle_base=0.01, floor=0.01)
HASTY = Timeout(idle=0.2, first_event=0.6, event_idle=0.6, total=20)


def events_of(stream: bytes) -> list[Any]:
    """Give the events that a whole stream hands out."""
    return [KINDS[name](**data) for name, data in decode_stream(stream)]


def said(events: Iterable[StreamEvent]) -> str:
    """Join the text of events."""
    return "".join(event.delta for event in events if isinstance(event, TextDelta))


def others(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    """Leave out the text."""
    return [event for event in events if not isinstance(event, TextDelta)]


@dataclasses.dataclass
class Told:
    """What a user of one stream saw."""

    stream: Any
    events: list[StreamEvent]
    error: LeadLexError | None

    @property
    def text(self) -> str:
        """Join the text that was handed out."""
        return said(self.events)


async def listen(lexi: Any, message: str = "Hi", **options: Any) -> Told:
    """Read a stream to whatever end it has."""
    events, stream = list[StreamEvent](), lexi.stream_chat(message, **options)
    try:
        async for event in stream:
            events.append(event)
    except LeadLexError as error:
        return Told(stream, events, error)
    return Told(stream, events, None)


# Every byte --------------------------------------------------------------------------------------------------------

TRUE = events_of(LONG)
KEPT = 12
REWORDED = text_of(reword(LONG, keep=KEPT))
WHOLE = LONG.index(b"}", LONG.index(b"event: done")) + 1
ENDINGS: tuple[Ending, ...] = ("fin", "rst", "stall")
PERSONALITIES: tuple[Personality, ...] = ("cache", "regen", "regen_same", "conflict")


@dataclasses.dataclass(frozen=True)
class Case:
    """One place to cut, one way, one kind of service; it is its own message."""

    offset: int
    how: Ending
    personality: Personality

    @property
    def message(self) -> str:
        """Name the case, so that the server knows it."""
        return f"{self.offset} {self.how} {self.personality}"

    @property
    def shown(self) -> int:
        """Count the events that are whole before the cut."""
        return LONG.count(b"\n\n", 0, self.offset) if self.offset < WHOLE else len(TRUE)


def lexi_for(message: str) -> LexiScript:
    """Make the Lexi of a case."""
    offset, how, personality = message.split()
    return LexiScript(
        stream=LONG,
        stream_fault=Cut(int(offset), how),  # type: ignore[arg-type]  # they come from a Case
        personality=personality,  # type: ignore[arg-type]  # the same
        keep=KEPT,
        sizes=(700,),
    )


def cases(offsets: Iterable[int]) -> Iterator[Case]:
    """Give all cases that cut at some offsets."""
    for offset, how, personality in itertools.product(offsets, ENDINGS, PERSONALITIES):
        yield Case(offset, how, personality)


class Endless(RetryQuota):
    """A quota that a campaign of a thousand faults does not use up."""

    def take(self, kind: FailureKind) -> int:  # noqa: ARG002  # whatever it is
        """Give what is asked for."""
        return 1


def check(case: Case, told: Told) -> None:
    """Check what was handed out in a case."""
    stream, error = told.stream, told.error
    assert stream.resumes == (0 < case.shown < len(TRUE)) or case.how == "rst", stream.resumes
    assert stream.resumes <= 1
    if case.personality == "regen" and error is not None:
        check_divergence(told, error)
        return
    assert error is None, error
    assert stream.charged == "yes"
    assert others(told.events) == others(TRUE)
    assert stream.reply.response == told.text
    if case.personality == "regen":
        assert told.text in (LONG_TEXT, REWORDED)
    else:
        assert told.text == LONG_TEXT
    if case.personality in ("cache", "conflict"):
        assert told.events == TRUE


def check_divergence(told: Told, error: LeadLexError) -> None:
    """Check an error that says that the continuation differs."""
    assert isinstance(error, StreamDivergedError)
    assert error.common_len == KEPT
    assert error.delivered == told.text == error.partial.response  # type: ignore[union-attr]  # it has one
    assert error.delivered != error.replayed_prefix[: len(error.delivered)]
    assert REWORDED.startswith(error.replayed_prefix)
    assert told.events == TRUE[: len(told.events)]
    assert error.key == told.stream.idempotency_key
    assert error.charged == told.stream.charged == "unknown"


def run_campaign(runner: Runner, url: str, todo: list[Case], workers: int) -> int:
    """Go through cases, some side by side, and count the divergences."""
    left, diverged = iter(todo), list[Case]()

    async def scenario(lexi: Any) -> None:
        transport_of(lexi).quota = Endless()
        impatient = lexi.with_options(timeout=Timeout(idle=0.5))

        async def work() -> None:
            for case in left:
                told = await listen(impatient if case.how == "stall" else lexi, case.message)
                try:
                    check(case, told)
                except AssertionError as error:
                    raise AssertionError(f"{case}: {error}") from error
                if told.error is not None:
                    diverged.append(case)

        for outcome in await runner.together(*[work] * workers):
            if isinstance(outcome, Exception):
                raise outcome

    runner.run(scenario, base_url=url, retries=AT_ONCE)
    return len(diverged)


class TestEveryByte:
    """A stream of 3 KB, cut everywhere, in three ways, before four kinds of service."""

    @pytest.mark.row("G03")
    def test_sample(self, runner: Runner) -> None:
        """Cut anywhere, the true text comes out once and is charged once, or the error says where two answers part."""
        todo = list(cases(range(len(runner.name), len(LONG) + 1, 307)))
        with ScriptedServer(ByMessage(lexi_for)) as server, no_leaks(), must_not_hang(60):
            diverged = run_campaign(runner, server.url, todo, workers=32)
            assert set(server.ledger.by_call.values()) == {1}
            assert len(server.ledger.by_call) == len(todo)
        assert 0 < diverged < len(todo) / 4

    @pytest.mark.heavy
    @pytest.mark.parametrize("how", ENDINGS)
    @pytest.mark.parametrize("personality", PERSONALITIES)
    def test_all(self, how: Ending, personality: Personality, capsys: pytest.CaptureFixture[str]) -> None:
        """The same at every single byte."""
        todo = [Case(offset, how, personality) for offset in range(len(LONG) + 1)]
        with ServerProcess(ByMessage(lexi_for)) as server:
            diverged = run_campaign(AsyncRunner("asyncio"), server.url, todo, workers=32)
            charges = server.ledger.by_call
        assert set(charges.values()) == {1}
        assert len(charges) == len(todo)
        with capsys.disabled():
            print(f"\n{how}, {personality}: {len(todo)} offsets, {diverged} diverged, 0 wrong, 0 charged twice")  # noqa: T201  # the figures


# One break -----------------------------------------------------------------------------------------------------------

PLACE = CAPTURE.index(b"event: text", CAPTURE.index(b"event: text") + 1)  # the second delta never comes
FIRST = "Jane Doe is currently"

#: What does not come from the service, in the middle of a stream.
FOREIGN = (
    Answer(403, b"<html>Blocked</html>", {"Content-Type": "text/html"}),
    Answer(429, b"", {"Retry-After": "1"}),
    Answer(503),
    Answer(302, b"", {"Location": "https://portal.example/login"}),
    Answer(200, b"<html>Busy</html>", {"Content-Type": "text/html"}),
    Answer(200, {"data": {"response": CAPTURE_TEXT, "conversation_id": "conv_01HY1"}}),
    Answer(206, CAPTURE, {"Content-Type": "text/event-stream"}),
)


@dataclasses.dataclass(frozen=True)
class Instead:
    """Send another body, whole."""

    body: bytes

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(plain.head, plain.frame(self.body))
        plain.end(connection)


def replay(*texts: str, conversation_id: str = "conv_01HY1", before: Iterable[Any] = ()) -> bytes:
    """Write a stream of some deltas."""
    fields = [{"delta": text, "conversation_id": conversation_id} for text in texts]
    events = [*before, *(("text", each) for each in fields), ("done", {"credits_remaining": 1, "message_id": "m"})]
    return encode_stream(events)


def run(runner: Runner, script: LexiScript, time: Turned | None = None, **options: Any) -> Told:
    """Ask once, and check what holds whatever comes."""
    told = list[Told]()

    async def scenario(lexi: Any) -> None:
        told.append(await listen(lexi))

    with ScriptedServer(script) as server, no_leaks(), must_not_hang():
        options = {"retries": AT_ONCE, "timeout": HASTY, **options}
        TimedRunner(runner, time or Turned()).run(scenario, base_url=server.url, **options)
        assert server.ledger.worst <= 1
        assert len({request.idempotency_key for request in server.requests}) == 1
        assert len({request.body for request in server.requests}) == 1
    [seen] = told
    if seen.error is not None:
        assert seen.error.charged == seen.stream.charged
        assert (seen.error.partial or ChatReply(response="")).response == seen.text
    return seen


class TestContinued:
    """A stream that breaks is continued."""

    def test_seen(self, runner: Runner) -> None:
        """A stream says how often it was continued and in which attempt its end came."""
        seen = run(runner, LexiScript(stream_fault=Cut(PLACE)))
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 1)
        assert (seen.stream.charged, seen.stream.meta.attempts) == ("yes", 2)

    def test_straddling(self, runner: Runner) -> None:
        """Of a delta that lies across the place of the break only the new part is handed out."""
        body = replay("Jane", " Doe is currently in", " the Proposal stage...")
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), Instead(body))))
        deltas = [event.delta for event in seen.events if isinstance(event, TextDelta)]
        assert (seen.error, deltas) == (None, [FIRST, " in", " the Proposal stage..."])

    def test_without_retries(self, runner: Runner) -> None:
        """`retries=0` does not switch the continuation off, but nothing is asked twice before the first event."""
        seen = run(runner, LexiScript(stream_fault=Cut(PLACE)), retries=0)
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 1)
        seen = run(runner, LexiScript(stream_fault=Cut(5)), retries=0)
        assert (type(seen.error), seen.stream.resumes) == (StreamInterruptedError, 0)

    def test_switched_off(self, runner: Runner) -> None:
        """`resume=False` switches it off after the first event, and leaves the retries before it."""
        seen = run(runner, LexiScript(stream_fault=Cut(PLACE)), resume=False)
        assert (type(seen.error), seen.text, seen.stream.resumes) == (StreamInterruptedError, FIRST, 0)
        assert isinstance(seen.error.__cause__, APIConnectionError)  # type: ignore[union-attr]  # it is an error
        seen = run(runner, LexiScript(stream_fault=Cut(5)), resume=False)
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 0)

    def test_whom_to_ask(self, runner: Runner) -> None:
        """The error of a stream that broke off has the metadata of its answer: support asks for the request id."""
        seen = run(runner, LexiScript(stream_fault=Cut(PLACE)), resume=False)
        assert type(seen.error) is StreamInterruptedError
        assert seen.error.meta == seen.stream.meta
        assert seen.error.request_id is not None

    def test_balance(self, runner: Runner) -> None:
        """A balance that rises is believed of a first answer, and not of a repeated one, which may be an old one."""
        balances = list[int]()

        async def scenario(lexi: Any) -> None:
            for _ in range(3):
                await lexi.stream_chat("Hi").final_reply()
                balances.append(lexi.credits_remaining)

        told = [Instead(encode_stream([("done", {"credits_remaining": left})])) for left in (5, 9, 20)]
        with ScriptedServer(LexiScript(stream_fault=(*told[:2], Lost(), told[2]))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=AT_ONCE)
        assert balances == [5, 9, 9]

    @pytest.mark.row("G11")
    def test_twice_at_most(self, runner: Runner) -> None:
        """A stream is continued twice; then the error has its key, and with that the answer can be had later."""
        told = list[Told]()

        async def scenario(lexi: Any) -> None:
            told.append(await listen(lexi))
            told.append(await listen(lexi, idempotency_key=told[0].stream.idempotency_key))

        with ScriptedServer(LexiScript(stream_fault=(Cut(300), Cut(PLACE), Lost()))) as server, no_leaks():
            TimedRunner(runner, Turned()).run(scenario, base_url=server.url)
            assert server.ledger.worst == 1
            assert len(server.requests) == 4
        first, later = told
        assert isinstance(first.error, StreamInterruptedError)
        assert f"idempotency_key={first.error.idempotency_key!r}" in str(first.error)
        assert (first.text, first.error.charged, first.stream.resumes) == (FIRST, "unknown", 2)
        assert (later.error, later.text) == (None, CAPTURE_TEXT)

    @pytest.mark.parametrize("fault", [Lost("rst"), Lost("stall"), Answer(429, code="rate_limited")])
    def test_broken_continuation(self, runner: Runner, fault: Any) -> None:
        """A continuation that breaks before its first byte, or is turned away for now, is tried once more."""
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), fault)))
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 2)

    @pytest.mark.parametrize("fault", FOREIGN, ids=lambda fault: f"{fault.status}")
    def test_answered_by_another(self, runner: Runner, fault: Answer) -> None:
        """What something in between says meanwhile is no end: the service is asked again, as often as it takes."""
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), *[fault] * 5)))
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 1)

    @pytest.mark.parametrize("fault", FOREIGN, ids=lambda fault: f"{fault.status}")
    def test_answered_by_another_for_ever(self, runner: Runner, fault: Answer) -> None:
        """When the window ends, the error says who answered, and has what came and the idempotency key."""
        time = Turned()
        seen = run(
            runner,
            LexiScript(stream_fault=(Cut(PLACE), *[fault] * 200)),
            time,
            retries=RetryPolicy(),
            timeout=Timeout(idle=1),
        )
        assert type(seen.error) is StreamInterruptedError
        assert isinstance(seen.error.__cause__, APIStatusError | APIResponseError)
        assert not seen.error.__cause__.from_service
        assert (seen.text, seen.error.charged) == (FIRST, "unknown")
        assert 50 < sum(time.sleeps) <= 60

    def test_in_flight(self, runner: Runner) -> None:
        """While the first request is under way, the service is asked again every second; this does not count."""
        time = Turned()
        script = LexiScript(stream_fault=Cut(PLACE), personality="conflict", conflicts=5)
        seen = run(runner, script, time)
        assert (seen.error, seen.text, seen.stream.resumes) == (None, CAPTURE_TEXT, 1)
        assert all(pause >= 1 for pause in time.sleeps[1:])

    def test_too_late(self, runner: Runner) -> None:
        """Nothing is continued after the window, a `total` or the life of the key."""
        late = Turned(meanwhile=lambda time: time.advance(61))
        for time, options in (
            (late, {}),
            (Turned(), {"timeout": Timeout(total=1), "retries": RetryPolicy(base=4, floor=2)}),
            (Turned(), {"retries": RetryPolicy(base=9, floor=9, window=5)}),
        ):
            seen = run(runner, LexiScript(stream_fault=Cut(PLACE)), time, **options)
            assert (type(seen.error), seen.text) == (StreamInterruptedError, FIRST)

    def test_quota(self, runner: Runner) -> None:
        """A stream under way is paid for: it is continued though the client's retries are used up."""
        told = list[Told]()

        async def scenario(lexi: Any) -> None:
            transport_of(lexi).quota.level = 0
            told.append(await listen(lexi))

        with ScriptedServer(LexiScript(stream_fault=Cut(PLACE))) as server, no_leaks():
            runner.run(scenario, base_url=server.url, retries=AT_ONCE)
        assert (told[0].error, told[0].text) == (None, CAPTURE_TEXT)

    def test_too_long(self, runner: Runner) -> None:
        """A stream of which 8 Mi characters were handed out is not continued."""
        piece = "x" * (1 << 16)
        stream = encode_stream(text_events(piece * 130, size=1 << 16))
        script = LexiScript(stream=stream, stream_fault=Cut(len(stream) - 14), sizes=(1 << 20,))
        seen = run(runner, script)
        assert len(seen.text) == 129 << 16 > MAX_RESUMABLE
        assert (type(seen.error), seen.stream.resumes) == (StreamInterruptedError, 0)

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (encode_event(("error", {"code": "internal_error", "message": "No"})), ServerError),
            (encode_event(("error", {"code": "strange", "message": "No"})), APIStatusError),
            (b"event: text\ndata: {\n\n", APIResponseError),
        ],
    )
    def test_no_break(self, runner: Runner, body: bytes, kind: type[LeadLexError]) -> None:
        """An `error` event, or one that can't be read, is the service's answer: nothing is continued after it."""
        seen = run(runner, LexiScript(stream_fault=Instead(CAPTURE[:PLACE] + body)))
        assert (type(seen.error), seen.text, seen.stream.resumes) == (kind, FIRST, 0)

    @pytest.mark.parametrize("fault", [Lost("stall"), Answer(503, headers={"Retry-After": "50"})])
    @pytest.mark.trio
    def test_closed_meanwhile(self, fault: Any) -> None:
        """Closed by another task while it waits for a continuation, or for its turn, a stream ends at once."""

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")

            async def closer() -> None:
                await runner.until(lambda: len(server.requests) == 2)
                await runner.sleep(0.1)
                await stream.aclose()

            async def reader() -> None:
                async for _ in stream:
                    pass

            error, _ = await runner.together(reader, closer)
            assert type(error) is StreamInterruptedError
            assert (error.charged, error.partial.response) == ("unknown", FIRST)  # type: ignore[union-attr]  # it has

        for runner in (AsyncRunner("asyncio"), AsyncRunner("trio")):
            script = LexiScript(stream_fault=(Cut(PLACE), fault))
            with ScriptedServer(script) as server, no_leaks(), must_not_hang():
                runner.run(scenario, base_url=server.url)


# Divergences ---------------------------------------------------------------------------------------------------------


class TestDiverged:
    """Two different answers are never joined."""

    def _diverges(self, runner: Runner, fault: Any) -> StreamDivergedError:
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), fault)))
        assert isinstance(seen.error, StreamDivergedError)
        assert (seen.error.delivered, seen.error.charged) == (FIRST, "unknown") == (seen.text, seen.stream.charged)
        assert seen.error.key in str(seen.error)
        assert seen.error.partial is not None
        return seen.error

    @pytest.mark.parametrize(
        ("texts", "common"),
        [
            (("Jane Doe was",), 9),
            (("Other",), 0),
            (
                (
                    "Ja",
                    "ne Doe is currentlX",
                ),
                20,
            ),
            (("Jane", "", " D", "*"), 6),
        ],
    )
    def test_text(self, runner: Runner, texts: tuple[str, ...], common: int) -> None:
        """D-a: the text differs; the error tells how far both are the same."""
        error = self._diverges(runner, Instead(replay(*texts)))
        assert (error.common_len, error.replayed_prefix) == (common, "".join(texts))
        assert error.conversation_ids == ("conv_01HY1", "conv_01HY1")

    @pytest.mark.parametrize("texts", [(), ("Jane Doe",), ("Jane Doe is currentl",)])
    def test_shorter(self, runner: Runner, texts: tuple[str, ...]) -> None:
        """D-b: the second answer is whole, and shorter than what was handed out."""
        error = self._diverges(runner, Instead(replay(*texts)))
        assert (error.common_len, error.replayed_prefix) == (len("".join(texts)), "".join(texts))
        assert "ends earlier" in str(error)

    @pytest.mark.parametrize("texts", [(CAPTURE_TEXT,), ("Jane",)])
    def test_conversation(self, runner: Runner, texts: tuple[str, ...]) -> None:
        """D-c: the second answer belongs to another conversation, which may have been charged again: it says so."""
        error = self._diverges(runner, Instead(replay(*texts, conversation_id="conv_other")))
        assert error.conversation_ids == ("conv_01HY1", "conv_other")
        assert "may have been charged again" in str(error)

    def test_in_flight_for_ever(self, runner: Runner) -> None:
        """D-d: the service refuses the key as long as it is asked; the error has what came, and the key."""
        time = Turned()
        script = LexiScript(stream_fault=Cut(PLACE), personality="conflict", conflicts=1000)
        seen = run(runner, script, time, timeout=Timeout(idle=0.2))
        assert type(seen.error) is StreamInterruptedError
        assert isinstance(seen.error.__cause__, ConflictError)
        assert (seen.text, seen.error.charged) == (FIRST, "unknown")
        assert 58 < sum(time.sleeps) <= 60

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (401, "invalid_key", AuthenticationError),
            (402, "insufficient_credits", InsufficientCreditsError),
            (404, "conversation_not_found", NotFoundError),
            (422, "validation_error", IdempotencyError),
        ],
    )
    def test_refused(self, runner: Runner, status: int, code: str, kind: type[APIStatusError]) -> None:
        """D-e: the service refuses the continuation; that is the error, with what came."""
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), Answer(status, code=code))))
        assert (type(seen.error), seen.text, seen.stream.charged) == (kind, FIRST, "unknown")

    def test_quota_until_midnight(self, runner: Runner) -> None:
        """D-e: so does a quota that is renewed in hours; nobody sleeps that long."""
        answer = Answer(429, headers={"Retry-After": "30000"}, code="rate_limited")
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), answer)))
        assert isinstance(seen.error, RateLimitError)
        assert (seen.error.retry_after, seen.text) == (30000, FIRST)

    @pytest.mark.parametrize("tool", ["contacts.delete", "contacts.get"])
    def test_other_steps(self, runner: Runner, tool: str) -> None:
        """A continuation that took other steps is another answer, even where its text is the same."""
        steps = [("tool_step", {"tool": tool, "status": "failed"})]
        error = self._diverges(runner, Instead(replay(CAPTURE_TEXT, before=steps)))
        assert "other steps" in str(error)

    def test_missing_steps(self, runner: Runner) -> None:
        """Steps and thoughts that a continuation leaves out are no difference."""
        seen = run(runner, LexiScript(stream_fault=(Cut(PLACE), Instead(replay(CAPTURE_TEXT)))))
        assert (seen.error, seen.text) == (None, CAPTURE_TEXT)
        assert others(seen.events) == [*events_of(CAPTURE)[:3], Done(1, "m")]


# The rules -----------------------------------------------------------------------------------------------------------

FIXED: list[Any] = [
    Thinking("one"),
    Thinking("two"),
    ToolStep("a", "started"),
    ToolStep("a", "completed", "found"),
    ToolStep("b", "started"),
    UnknownEvent("progress", "1"),
]


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, list[tuple[int, Any]]]:
    """Draw a true answer: its text, and what else is said after how many of its characters."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    said_too = draw(st.lists(st.sampled_from(FIXED), max_size=6))
    places = sorted(draw(st.lists(st.integers(0, len(text)), min_size=len(said_too), max_size=len(said_too))))
    return text, list(zip(places, said_too, strict=True))


@st.composite
def streams(draw: st.DrawFn, answer: tuple[str, list[tuple[int, Any]]]) -> list[Any]:
    """Draw a way in which the service may send an answer: its deltas cut anywhere, all else in its place."""
    text, rest = answer
    places = {place for place, _ in rest}
    ends = sorted({*draw(st.sets(st.integers(0, len(text)))), *places, len(text)})
    events = [event for place, event in rest if place == 0]
    for start, end in itertools.pairwise([0, *ends]):
        if end > start:
            events.append(TextDelta(text[start:end], "conv_1"))
        events += [event for place, event in rest if place == end and end > 0]
    return [*events, Done(1, "msg_1")]


def hand_out(transcript: Transcript, events: Iterable[Any], replay: Replay | None) -> list[Any]:
    """Hand out what is new."""
    out = list[Any]()
    for event in events:
        fresh = event if replay is None else replay.new_part(event)
        if fresh is not None:
            transcript.add(fresh)
            out.append(fresh)
    return out


class TestRules:
    """What a replay lets through, for any cut and any way of sending the same answer again."""

    @given(st.data())
    @settings(deadline=None)
    def test_any_cut_and_recut(self, data: st.DataObject) -> None:
        """The true text comes out exactly, and all else exactly once and in its order, after any two breaks."""
        answer = data.draw(answers())
        transcript, out = Transcript(), list[Any]()
        for attempt in range(3):
            events = data.draw(streams(answer))
            shown = len(events) if attempt == 2 else data.draw(st.integers(0, len(events)))
            replay = Replay(transcript) if transcript.begun else None
            out += hand_out(transcript, events[:shown], replay)
            if transcript.done:
                break
        assert said(out) == answer[0] == transcript.text
        assert others(out) == [*(event for _, event in answer[1]), Done(1, "msg_1")]
        assert all(event.delta for event in out if isinstance(event, TextDelta))

    @given(st.data())
    @settings(deadline=None)
    def test_all_text_first(self, data: st.DataObject) -> None:
        """A replay that sends its text first, and all else behind it, gives nothing twice and loses no text."""
        answer = data.draw(answers())
        events = data.draw(streams(answer))
        shown = data.draw(st.integers(0, len(events) - 1))
        transcript = Transcript()
        out = hand_out(transcript, events[:shown], None)
        again = [*(e for e in events if isinstance(e, TextDelta)), *others(events)]
        out += hand_out(transcript, again, Replay(transcript) if transcript.begun else None)
        assert said(out) == answer[0]
        assert others(out) == others(events)

    @given(st.text(min_size=1, max_size=30), st.text(max_size=30), st.lists(st.integers(1, 5), max_size=20))
    def test_other_text(self, delivered: str, other: str, sizes: list[int]) -> None:
        """Another text is let through where it continues what was handed out, and is a divergence where not."""
        transcript = Transcript()
        transcript.add(TextDelta(delivered, "conv_1"))
        deltas, at = list[str](), 0
        for size in [*sizes, len(other)]:
            deltas.append(other[at : at + size])
            at += size
        events = [*(TextDelta(each, "conv_1") for each in deltas), Done()]
        if other.startswith(delivered):
            out = hand_out(transcript, events, Replay(transcript))
            assert delivered + said(out) == other == transcript.text
            return
        with pytest.raises(Divergence) as info:
            hand_out(transcript, events, Replay(transcript))
        assert other.startswith(info.value.replayed)
        assert transcript.text == delivered

    def test_conversation_ids(self) -> None:
        """Ids are compared where both are known."""
        for first, second in ((None, "conv_2"), ("conv_1", None), (None, None)):
            transcript = Transcript()
            transcript.add(TextDelta("a", first))
            assert Replay(transcript).new_part(TextDelta("ab", second)) == TextDelta("b", second)

    def test_blocks(self) -> None:
        """Text is kept whole however many deltas it had."""
        transcript = Transcript()
        for number in range(5000):
            transcript.add(TextDelta(f"{number} "))
        assert transcript.text == "".join(f"{number} " for number in range(5000))
        assert transcript.length == len(transcript.text)

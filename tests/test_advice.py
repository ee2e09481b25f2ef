"""An error's advice, followed to the letter: what it says is done, and the ledger shows what it said."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest

import leadlex
from leadlex import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    IdempotencyError,
    LeadLex,
    LeadLexError,
    RateLimitError,
    ServerError,
    StreamBusyError,
    StreamInterruptedError,
    Timeout,
    cli,
)
from leadlex.sandbox import Sandbox
from tests.matrix.oracles import AT_ONCE, PATIENT
from tests.support.captures import CAPTURE, CAPTURE_TEXT
from tests.support.lexi import Answer, Cut, Fault, LexiScript, Lost, Plain
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.surroundings import streams
from tests.support.times import TimedRunner, Turned

QUESTION = "Who are the partners at  O'Hara & Co?"
PLACE = CAPTURE.index(b"in the Proposal")


class Case(NamedTuple):
    """One way in which an answer that was paid for does not arrive."""

    fault: Fault
    times: int
    kind: type[LeadLexError]
    retries: Any = AT_ONCE
    resume: bool = True


def error_event(connection: Connection, plain: Plain) -> None:
    """End the stream with an `error` event that will not pass."""
    connection.send(plain.head, plain.frame(b'event: error\ndata: {"code": "broken", "message": "Out of luck"}\n\n'))
    plain.end(connection)


def page(status: int) -> Answer:
    """Answer with a proxy's page, in place of what the service said."""
    return Answer(status, b"<html>Sorry</html>", {"Content-Type": "text/html", "Server": "squid"}, refusal=False)


CASES = {
    "504": Case(page(504), 3, ServerError),
    "a foreign 429": Case(page(429), 3, RateLimitError),
    "a foreign 403": Case(page(403), 1, leadlex.PermissionDeniedError),
    "409": Case(Answer(409, code="conflict", refusal=False), 1, ConflictError, retries=0),
    "a lost connection": Case(Lost("rst"), 3, APIConnectionError),
    "no first event": Case(Cut(0, "stall"), 1, StreamInterruptedError, retries=0),
    "a wrong content type": Case(page(200), 1, APIResponseError),
    "an error event": Case(error_event, 1, APIStatusError),
    "a cut": Case(Cut(PLACE, "rst"), 1, StreamInterruptedError, resume=False),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    """Give each way in turn."""
    found: Case = request.param
    return found


def options_of(case: Case) -> dict[str, Any]:
    """Make the options of a client that meets a case without waiting."""
    clocks = Timeout(connect=5, write=5, pool=5, first_event=0.3, idle=5, event_idle=5)
    return {"timeout": clocks, "retries": case.retries, "resume": case.resume}


def script_of(case: Case) -> LexiScript:
    """Make the Lexi of a case."""
    return LexiScript(stream_fault=case.fault, times=case.times)


# In Python ---------------------------------------------------------------------------------------------------------


def arguments_in(words: str) -> dict[str, Any]:
    """Take the arguments out of an error's words, as somebody does who copies them."""
    found = re.search(r"(idempotency_key='[^']+')(, first_sent=datetime\.fromisoformat\('[^']+'\))?", words)
    assert found is not None, words
    given: dict[str, Any] = eval(f"dict({found[0]})", {"datetime": datetime})  # noqa: S307  # what a reader would type
    return given


async def failed(lexi: Any, question: str, **options: Any) -> LeadLexError:
    """Ask, and give the error."""
    with pytest.raises(LeadLexError) as caught:
        await lexi.stream_chat(question, **options).final_reply()
    return caught.value


def test_the_advice_is_followed(runner: Runner, case: Case) -> None:
    """Asked again as the error says, the question is answered and not charged a second time."""
    errors = list[LeadLexError]()

    async def scenario(lexi: Any) -> str:
        errors.append(await failed(lexi, QUESTION))
        reply = await lexi.stream_chat(QUESTION, **arguments_in(str(errors[0]))).final_reply()
        return str(reply.response)

    with ScriptedServer(script_of(case)) as server, no_leaks(), must_not_hang():
        assert runner.run(scenario, base_url=server.url, **options_of(case)) == CAPTURE_TEXT
        assert server.ledger.by_call == {QUESTION: 1}
        assert {request.idempotency_key for request in server.requests} == {errors[0].idempotency_key}
    [error] = errors
    assert (type(error), error.charged) == (case.kind, "unknown")
    assert arguments_in(str(error)) == {"idempotency_key": error.idempotency_key, "first_sent": error.first_sent}
    assert len(error.attempt_log) == case.times
    assert error.attempt_log[-1].delay is None
    assert QUESTION not in repr(error.args)


def test_a_cause_has_the_key_too(runner: Runner) -> None:
    """Who looks at the cause of an error finds the charge and the idempotency key there as well."""

    async def scenario(lexi: Any) -> LeadLexError:
        return await failed(lexi, QUESTION)

    with ScriptedServer(script_of(CASES["a cut"])) as server:
        error = runner.run(scenario, base_url=server.url, **options_of(CASES["a cut"]))
    cause = error.__cause__
    assert isinstance(cause, APIConnectionError)
    assert (cause.charged, cause.idempotency_key, cause.first_sent) == (
        "unknown",
        error.idempotency_key,
        error.first_sent,
    )


def test_both_ways_out_of_a_used_key(runner: Runner) -> None:
    """With the first question the key is free; without the key the second one is a new charge: as the error says."""
    charges = list[int]()

    async def scenario(lexi: Any, sandbox: Sandbox) -> IdempotencyError:
        first = lexi.stream_chat(QUESTION)
        await first.final_reply()
        error = await failed(lexi, "Summarize my pipeline", idempotency_key=first.idempotency_key)
        assert isinstance(error, IdempotencyError)
        charges.append(len(sandbox.charges))
        await lexi.stream_chat(QUESTION, **arguments_in(str(error))).final_reply()
        charges.append(len(sandbox.charges))
        await lexi.stream_chat("Summarize my pipeline").final_reply()
        charges.append(len(sandbox.charges))
        return error

    with Sandbox(pace=0) as sandbox:
        error = runner.run(partial(scenario, sandbox=sandbox), base_url=sandbox.url, api_key=sandbox.api_key)
    assert charges == [1, 1, 2]
    assert (error.charged, error.from_service) == ("no", True)


@pytest.mark.parametrize("conversation", [None, "conv_01HY1"])
def test_a_chat_without_a_key_is_told_where_to_look(runner: Runner, conversation: str | None) -> None:
    """A lost `chat` has no key to offer, and says where the question stands if it was answered."""

    async def scenario(lexi: Any) -> LeadLexError:
        with pytest.raises(APIConnectionError) as caught:
            await lexi.chat(QUESTION, conversation_id=conversation)
        return caught.value

    with ScriptedServer(LexiScript(chat_fault=Lost())) as server:
        error = runner.run(scenario, base_url=server.url)
    place = f"lexi.conversation({conversation!r})" if conversation else "the latest of lexi.conversations()"
    assert str(error).endswith(f"Before asking again, look for the question in {place}.")
    assert (error.idempotency_key, error.first_sent) == (None, None)
    assert "stream" not in str(error)
    assert "idempotency" not in str(error)


@pytest.mark.parametrize("code", ["conflict", "already_done"])
def test_a_conflict_without_a_key_speaks_of_none(runner: Runner, code: str) -> None:
    """A 409 for what has no idempotency key, in whoever's words, says nothing of one."""

    async def scenario(lexi: Any) -> None:
        for call in (lexi.approve_task, lexi.dismiss_task, lexi.chat):
            with pytest.raises(ConflictError) as caught:
                await call("task-uuid")
            assert f"(409 {code})" in str(caught.value)
            assert "idempotency" not in str(caught.value)
            assert "first request" not in str(caught.value)

    refused = Answer(409, code=code)
    with ScriptedServer(LexiScript(chat_fault=refused, other_fault=refused, times=None)) as server:
        runner.run(scenario, base_url=server.url)


def test_a_404_without_an_id_is_about_the_address(runner: Runner) -> None:
    """A code that nobody knows makes no difference: a call without an id has none to check."""

    async def scenario(lexi: Any) -> leadlex.NotFoundError:
        with pytest.raises(leadlex.NotFoundError) as caught:
            await lexi.chat(QUESTION)
        return caught.value

    with ScriptedServer(LexiScript(chat_fault=Answer(404, code="no_route"))) as server:
        error = runner.run(scenario, base_url=server.url)
        assert f"Check base_url: it is {server.url}." in str(error)
    assert (error.charged, error.from_service) == ("unknown", False)


def test_other_errors_of_a_keyed_call_have_the_key(runner: Runner) -> None:
    """Closed clients, closed streams and second readers are told the idempotency key as well."""

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat(QUESTION)
        await anext(stream)
        await stream.aclose()
        with pytest.raises(StreamInterruptedError) as interrupted:
            await stream.final_reply()
        assert interrupted.value.idempotency_key == stream.idempotency_key
        other = lexi.stream_chat(QUESTION)
        await anext(other)
        await lexi.aclose()
        with pytest.raises(ClientClosedError) as closed:
            await other.final_reply()
        assert (closed.value.idempotency_key, closed.value.charged) == (other.idempotency_key, "unknown")
        assert other.idempotency_key in str(closed.value)
        late = lexi.stream_chat(QUESTION)
        with pytest.raises(ClientClosedError) as refused:
            await late.final_reply()
        assert (refused.value.idempotency_key, refused.value.charged) == (late.idempotency_key, "no")

    with ServerProcess(LexiScript(stream_fault=Cut(PLACE, "stall"), times=2)) as server, no_leaks():
        runner.run(scenario, base_url=server.url, timeout=PATIENT)


@pytest.mark.parametrize("conversation", [None, "conv_01HY1"])
def test_a_thread_asks_the_same_again(runner: Runner, conversation: str | None) -> None:
    """A thread that has learnt its conversation's id asks an older question again as it was asked then."""

    async def scenario(lexi: Any) -> None:
        thread = lexi.thread(conversation)
        with pytest.raises(StreamInterruptedError) as caught:
            await thread.stream_chat(QUESTION).final_reply()
        assert thread.conversation_id == "conv_01HY1"
        await thread.stream_chat("And why?").final_reply()
        await thread.stream_chat(QUESTION, **arguments_in(str(caught.value))).final_reply()

    with ScriptedServer(LexiScript(stream_fault=Cut(PLACE, "rst"))) as server:
        runner.run(scenario, base_url=server.url, resume=False)
        first, between, again = (request.body for request in server.requests)
        assert first == again
        assert b"conv_01HY1" in between
        assert server.ledger.by_call == {QUESTION: 1, "And why?": 1}


def test_a_second_reader_sends_nothing(runner: Runner) -> None:
    """Who reads a stream that is being read is told its key, and that this cost nothing."""

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat(QUESTION)

        async def first() -> str:
            return str((await stream.final_reply()).response)

        async def second() -> StreamBusyError:
            await runner.until(lambda: server.requests)
            with pytest.raises(StreamBusyError) as busy:
                await anext(stream)
            server.release()
            return busy.value

        text, error = await runner.together(first, second)
        assert text == CAPTURE_TEXT
        assert isinstance(error, StreamBusyError)
        assert (error.idempotency_key, error.charged) == (stream.idempotency_key, "no")

    with ScriptedServer(LexiScript(stream_fault=_held)) as server:
        runner.run(scenario, base_url=server.url, timeout=PATIENT)


def _held(connection: Connection, plain: Plain) -> None:
    connection.wait_for()
    plain.send(connection)


# The 23 hours of a key ---------------------------------------------------------------------------------------------


def test_the_key_of_yesterday_is_refused(runner: Runner) -> None:
    """A key that was first sent more than 23 hours ago is not sent again, and the error says how to look it up."""
    key, now = "7c9e6679-7425-40de-944b-e07fc1f90ae7", datetime.now(UTC)

    async def scenario(lexi: Any) -> None:
        for hours, place in ((24.1, "latest of lexi.conversations"), (23.01, r"lexi.conversation\('conv_1'\)")):
            sent, conversation = now - timedelta(hours=hours), None if hours > 24 else "conv_1"
            with pytest.raises(ConfigurationError, match=f"more than 23 hours ago.*{place}") as caught:
                lexi.stream_chat(QUESTION, conversation_id=conversation, idempotency_key=key, first_sent=sent)
            assert (caught.value.idempotency_key, caught.value.first_sent) == (key, sent)
        stream = lexi.stream_chat(QUESTION, idempotency_key=key, first_sent=now - timedelta(hours=22.9))
        assert stream.first_sent == now - timedelta(hours=22.9)
        assert (await stream.final_reply()).response == CAPTURE_TEXT

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("first_sent", "key", "words"),
    [
        ("2026-11-26", True, "an aware datetime; given: str"),
        (datetime(2026, 11, 26), True, "an aware datetime; given: a naive one"),  # noqa: DTZ001  # the very case
        (datetime.now(UTC), False, "given with the idempotency_key"),
        (datetime.now(UTC) + timedelta(days=1), True, "in the past"),
    ],
)
def test_a_moment_that_can_not_be_meant(first_sent: Any, words: str, *, key: bool) -> None:
    """A moment without a zone, in the future, or of no idempotency key is refused before anything is sent."""
    given = "7c9e6679-7425-40de-944b-e07fc1f90ae7" if key else None
    with LeadLex(API_KEY) as lexi, pytest.raises(ConfigurationError, match=f"first_sent must be .*{words}"):
        lexi.stream_chat(QUESTION, first_sent=first_sent, idempotency_key=given)


def test_a_stream_that_waits_too_long_is_not_sent(runner: Runner) -> None:
    """A stream is sent at its first use: a key that has become too old by then is refused there."""
    sent, clock = datetime.now(UTC) - timedelta(hours=22), Turned()

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat(QUESTION, idempotency_key="7c9e6679-7425-40de-944b-e07fc1f90ae7", first_sent=sent)
        clock.advance(2 * 3600)
        with pytest.raises(ConfigurationError, match="more than 23 hours ago"):
            await stream.final_reply()

    with ScriptedServer(LexiScript()) as server:
        TimedRunner(runner, clock).run(scenario, base_url=server.url)
        assert not server.requests


def test_first_sent_is_known_once_it_was(runner: Runner) -> None:
    """A stream tells when its question was first sent, and nothing before that."""

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat(QUESTION)
        assert not stream.first_sent
        before = datetime.now(UTC)
        await stream.final_reply()
        sent: Any = stream.first_sent
        assert before - timedelta(seconds=1) <= sent <= datetime.now(UTC)
        assert sent.tzinfo is UTC

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url)


def test_a_repeat_does_not_raise_the_balance(runner: Runner) -> None:
    """A repeated answer tells the balance of its first time, which is not believed where a lower one is known."""

    async def scenario(lexi: Any, sandbox: Sandbox) -> list[Any]:
        known = [lexi.credits_remaining]
        first = lexi.stream_chat(QUESTION)
        await first.final_reply()
        known.append(lexi.credits_remaining)
        await lexi.stream_chat("Summarize my pipeline").final_reply()
        known.append(lexi.credits_remaining)
        again = lexi.stream_chat(QUESTION, idempotency_key=first.idempotency_key, first_sent=first.first_sent)
        assert (await again.final_reply()).credits_remaining == known[1]
        known.append(lexi.credits_remaining)
        sandbox.fail_next("drop_stream", after_bytes=300)
        await lexi.stream_chat("Where is Jane Doe?").final_reply()
        known.append(lexi.credits_remaining)
        return known

    with Sandbox(pace=0) as sandbox:
        known = runner.run(
            partial(scenario, sandbox=sandbox), base_url=sandbox.url, api_key=sandbox.api_key, retries=AT_ONCE
        )
        none, first, second, repeated, continued = known
        assert none is None
        assert first > second == repeated > continued == sandbox.credits


# On the command line -----------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    """Be what a run of the command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, environ: MutableMapping[str, str], capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run the command, with the client of a case."""

    def run(*words: str, url: str, case: Case | None = None, stdin: str = "") -> Ran:
        options = options_of(case) if case else {}
        monkeypatch.setattr(leadlex, "LeadLex", partial(SYNC_CLIENT, API_KEY, base_url=url, **options))
        environ["LEADLEX_API_KEY"] = API_KEY
        with streams(stdin=io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")):
            code = cli.main(words)
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return run


SYNC_CLIENT = leadlex.LeadLex
AGAIN = "To ask the same again without paying again, within 24 hours:"


def printed(ran: Ran) -> str:
    """Take the command out of what was printed."""
    lines = ran.err.splitlines()
    return lines[lines.index(AGAIN) + 1]


@pytest.mark.parametrize("conversation", [(), ("--conversation", "conv_01HY1")])
def test_the_command_is_typed_as_printed(command: Run, case: Case, conversation: tuple[str, ...]) -> None:
    """The command that an error prints has all that was asked, answers it, and is not charged a second time."""
    with ScriptedServer(script_of(case)) as server:
        ran = command("chat", *conversation, QUESTION, url=server.url, case=case)
        assert ran.code != 0
        name, *words = shlex.split(printed(ran))
        assert (name, words[-1]) == ("leadlex", QUESTION)
        again = command(*words, url=server.url)
        assert (again.code, again.out) == (0, f"{CAPTURE_TEXT}\n")
        assert server.ledger.by_call == {QUESTION: 1}
        assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("is_typed", [False, True])
@pytest.mark.parametrize("question", ["Who?\nAnd why?\n", "x" * 201])
def test_a_piped_or_long_question_is_given_again(command: Run, question: str, *, is_typed: bool) -> None:
    """A question from a pipe, or a long one, is not printed: the command ends in `< the same input`."""
    case = CASES["504"]
    with ScriptedServer(script_of(case)) as server:
        typed = (question,) if is_typed else ()
        ran = command("chat", *typed, url=server.url, case=case, stdin="" if typed else question)
        words, same, rest = printed(ran).partition(" < the same input")
        assert (same, rest) == (" < the same input", "")
        again = command(*shlex.split(words)[1:], url=server.url, stdin=f"{question}\n")
        assert (again.code, again.out) == (0, f"{CAPTURE_TEXT}\n")
        assert server.ledger.worst == 1


def test_a_question_that_looks_like_an_option(command: Run) -> None:
    """A question that begins with a dash is printed behind `--`, as it has to be typed."""
    case = CASES["504"]
    with ScriptedServer(script_of(case)) as server:
        ran = command("chat", "--", "-5 or 5?", url=server.url, case=case)
        assert command(*shlex.split(printed(ran))[1:], url=server.url).code == 0
        assert server.ledger.by_call == {"-5 or 5?": 1}


def test_json_has_what_asks_again(command: Run, case: Case) -> None:
    """With `--json` the error object has the idempotency key and when it was first sent."""
    with ScriptedServer(script_of(case)) as server:
        ran = command("chat", "--json", QUESTION, url=server.url, case=case)
        error = json.loads(ran.err)["error"]
        words = ("--idempotency-key", error["idempotency_key"], "--first-sent", error["first_sent"])
        assert command("chat", "--json", *words, QUESTION, url=server.url).code == 0
        assert server.ledger.by_call == {QUESTION: 1}
    assert error["attempt_log"][-1]["delay"] is None
    assert error.get("from_service") in (None, case.kind in (APIStatusError, ConflictError))


@pytest.mark.parametrize("moment", ["yesterday", "2026-11-26T10:00:00", "2001-01-01T00:00:00Z"])
def test_a_moment_that_is_none_is_refused(command: Run, moment: str) -> None:
    """`--first-sent` takes a time with its zone, no older than the key may be."""
    key = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    with ScriptedServer(LexiScript()) as server:
        ran = command("chat", "--idempotency-key", key, "--first-sent", moment, QUESTION, url=server.url)
        assert (ran.code, server.requests) == (2, [])
    assert "first" in ran.err


def test_a_sandbox_that_ends_with_the_command_offers_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With `--sandbox` nothing was paid, and the sandbox that knows the key is gone: there is no command to type."""
    with ScriptedServer(script_of(CASES["504"])) as server:
        client = SYNC_CLIENT(API_KEY, base_url=server.url, retries=AT_ONCE)
        monkeypatch.setattr(leadlex.LeadLex, "sandbox", lambda: client)
        assert cli.main(["chat", "--sandbox", QUESTION]) == 10
    assert "--idempotency-key" not in capfd.readouterr().err


def test_an_approval_that_is_lost_is_looked_for(command: Run) -> None:
    """An approval has no idempotency key: the command says where to look before it is given again."""
    with ScriptedServer(LexiScript(other_fault=Lost())) as server:
        ran = command("tasks", "approve", "task-uuid", url=server.url)
    assert ran.code == 8
    assert "Before you repeat it, look whether it was done: leadlex tasks list" in ran.err

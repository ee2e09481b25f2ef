"""What a test lays out beforehand: answers, errors of every code, tasks; and the clock, and a fresh start."""

import inspect
import re
import socket
import sqlite3
import textwrap
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]

import leadlex
from leadlex import (
    ConfigurationError,
    Done,
    LeadLexError,
    RetryPolicy,
    TextDelta,
    Thinking,
    ToolStep,
    UnknownEvent,
)
from leadlex import sandbox as package
from leadlex.sandbox import Charge, Sandbox
from leadlex.sandbox._store import Store
from tests.support.runners import Runner

from .conftest import STREAM, ask, client_of, code_of, said, stream, wait_until

with open(f"{package.__path__[0]}/lexi.openapi.yaml", encoding="utf-8") as file:  # noqa: PTH123 - a path of text
    CONTRACT = yaml.safe_load(file)
SHAPES = CONTRACT["components"]["responses"]
CODES = {shape: each["content"]["application/json"]["example"]["error"]["code"] for shape, each in SHAPES.items()}
OPERATIONS = {each["operationId"]: each for path in CONTRACT["paths"].values() for each in path.values()}
ERRORS = [
    (operation, int(status), CODES[shape["$ref"].rpartition("/")[2]])
    for operation, each in OPERATIONS.items()
    for status, shape in each["responses"].items()
    if status != "200"
]
KINDS: dict[int, type[LeadLexError]] = {
    400: leadlex.BadRequestError,
    401: leadlex.AuthenticationError,
    402: leadlex.InsufficientCreditsError,
    403: leadlex.PermissionDeniedError,
    404: leadlex.NotFoundError,
    409: leadlex.ConflictError,
    422: leadlex.IdempotencyError,
    429: leadlex.RateLimitError,
}
CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda lexi: lexi.chat("Hi"),
    "streamChat": lambda lexi: lexi.stream_chat("Hi").final_reply(),
    "listConversations": lambda lexi: lexi.conversations().first_page(),
    "getConversation": lambda lexi: lexi.conversation("conv_000001"),
    "listTasks": lambda lexi: lexi.tasks(),
    "approveTask": lambda lexi: lexi.approve_task("task_000001"),
    "dismissTask": lambda lexi: lexi.dismiss_task("task_000001"),
}
TOLD: list[Thinking | ToolStep | UnknownEvent | TextDelta] = [
    Thinking("Let me see."),
    ToolStep("deals.get", "started"),
    ToolStep("deals.get", "completed", "Found 1 deal"),
    UnknownEvent("mood", '{"good":\n true}'),
    TextDelta("Acme"),
    TextDelta(" is"),
]


def of(sandbox: Sandbox, **options: Any) -> dict[str, Any]:
    """Give the options of a client of a sandbox that tries nothing again."""
    return {"api_key": sandbox.api_key, "base_url": sandbox.url, "retries": 0, **options}


# Errors ----------------------------------------------------------------------------------------------------------


def test_the_contract_has_these_codes() -> None:
    """The cases below are read from the contract, so that a code that it gains is tried too."""
    assert {operation for operation, _, _ in ERRORS} == {*CALLS}
    assert {status for _, status, _ in ERRORS} | {422} == {*KINDS}
    assert len({code for _, _, code in ERRORS}) == 8


@pytest.mark.parametrize(("operation", "status", "code"), [each for each in ERRORS if each[1] != 409])
def test_every_error_of_the_contract_can_be_scripted(
    runner: Runner, sandbox: Sandbox, operation: str, status: int, code: str
) -> None:
    """Each status and code of each endpoint arrives as the service's own word, costs nothing, and is used up."""
    sandbox.fail_next(status, code)
    with pytest.raises(KINDS[status]) as caught:
        runner.run(CALLS[operation], **of(sandbox))
    error = caught.value
    assert isinstance(error, leadlex.APIStatusError)
    assert (error.status_code, error.code, error.from_service, error.charged) == (status, code, True, "no")
    assert [seen.fault for seen in sandbox.requests] == [f"{status} {code}"]
    assert (sandbox.charges, sandbox.unused) == ([], [])


def test_a_request_in_flight_can_be_scripted(runner: Runner, sandbox: Sandbox) -> None:
    """After a 409 a stream is asked again, under the same key, and is charged once."""
    sandbox.fail_next(409)
    reply = runner.run(CALLS["streamChat"], **of(sandbox, retries=RetryPolicy(base=0.01)))
    assert reply.meta.attempts == 2
    assert [seen.fault for seen in sandbox.requests] == ["409 conflict", None]
    assert len(sandbox.charges) == 1


def test_a_key_used_with_another_body_can_be_scripted(runner: Runner, sandbox: Sandbox) -> None:
    """It is the error that the sandbox itself gives for such a key."""
    sandbox.fail_next(422)
    with pytest.raises(leadlex.IdempotencyError) as caught:
        runner.run(CALLS["streamChat"], **of(sandbox))
    assert (caught.value.code, caught.value.from_service) == ("idempotency_key_reused", True)


@pytest.mark.parametrize("code", sorted({code for _, _, code in ERRORS}))
def test_every_code_can_end_a_stream(runner: Runner, sandbox: Sandbox, code: str) -> None:
    """An `error` event of each code is the service's word, and tells what came before."""
    sandbox.fail_next("error_event", code=code, message="No more", after_bytes=200)
    with pytest.raises(LeadLexError, match="No more") as caught:
        runner.run(CALLS["streamChat"], **of(sandbox, resume=False))
    assert caught.value.to_dict()["code"] == code
    assert caught.value.partial is not None


def test_other_errors_can_be_scripted(sandbox: Sandbox) -> None:
    """Any status from 400 on with any code; without one the code is the contract's, else that of a fault."""
    sandbox.fail_next(503)
    sandbox.fail_next(418, "teapot", "Short and stout")
    sandbox.fail_next(404)
    sandbox.fail_next(429)
    assert sandbox.unused == ["503 internal_error", "418 teapot", "404 not_found", "429 rate_limited"]
    with client_of(sandbox) as http:
        answers = [http.get("/v1/lexi/tasks") for _ in range(4)]
    assert [code_of(answer) for answer in answers] == [
        (503, "internal_error"),
        (418, "teapot"),
        (404, "not_found"),
        (429, "rate_limited"),
    ]
    assert answers[1].json()["error"]["message"] == "Short and stout"


@pytest.mark.parametrize("status", [200, 399, 600, True])
def test_what_is_no_error_is_refused(sandbox: Sandbox, status: int) -> None:
    """A status below 400 or above 599 is told so at once."""
    with pytest.raises(ConfigurationError, match="from 400 to 599"):
        sandbox.fail_next(status)
    assert sandbox.unused == []


# Faults of an answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"after_bytes": 5}, {"reset": True}, {"after_bytes": 5, "reset": True}])
def test_a_chat_can_be_cut(runner: Runner, sandbox: Sandbox, how: dict[str, Any]) -> None:
    """The work is done and charged, and the answer lost: before its head, or in the middle of its body."""
    sandbox.fail_next("drop_answer", **how)
    with pytest.raises(leadlex.APIConnectionError) as caught:
        runner.run(CALLS["chat"], **of(sandbox))
    assert caught.value.charged == "unknown"
    assert sandbox.charges == [Charge("chat", 1, None)]
    [seen] = sandbox.requests
    assert (seen.fault, seen.complete, seen.disconnected) == ("drop_answer", False, False)
    assert seen.status == (200 if "after_bytes" in how else None)


@pytest.mark.parametrize("how", [{}, {"after_bytes": 90}])
def test_a_stream_that_is_cut_so_is_charged_once(runner: Runner, sandbox: Sandbox, how: dict[str, Any]) -> None:
    """The same fault on a stream is mended by its idempotency key."""
    sandbox.fail_next("drop_answer", **how)
    reply = runner.run(CALLS["streamChat"], **of(sandbox, retries=RetryPolicy(base=0.01)))
    assert reply.response.startswith("Hello!")
    assert len(sandbox.charges) == 1


@pytest.mark.parametrize("how", [{}, {"body": "<p>Hello</p>"}, {"body": ""}, {"body": "[1]"}])
@pytest.mark.parametrize("operation", ["chat", "listTasks", "listConversations"])
def test_a_body_can_be_malformed(runner: Runner, sandbox: Sandbox, operation: str, how: dict[str, str]) -> None:
    """What is no answer is told as such, and a chat that was done is not known to be free."""
    sandbox.fail_next("malformed", **how)
    with pytest.raises(leadlex.APIResponseError) as caught:
        runner.run(CALLS[operation], **of(sandbox))
    is_chat = operation == "chat"
    assert (caught.value.charged, len(sandbox.charges)) == ("unknown" if is_chat else "no", int(is_chat))


def test_a_stream_can_be_malformed(sandbox: Sandbox) -> None:
    """A stream whose body is something else has exactly that, and ends."""
    sandbox.fail_next("malformed", body="data: {]\n\n")
    with client_of(sandbox) as http:
        answer = http.post(STREAM, json={"message": "Hi"})
    assert (answer.status_code, answer.text) == (200, "data: {]\n\n")
    assert sandbox.charges == [Charge("stream", 1, None)]


# Answers ------------------------------------------------------------------------------------------------------------


def test_an_answer_is_given_by_chat(runner: Runner, sandbox: Sandbox) -> None:
    """`chat` says the text of all pieces, for the price that was said."""
    sandbox.answer_next(" in the Proposal stage. ", TOLD, price=3)

    async def scenario(lexi: Any) -> Any:
        return await lexi.chat("How is Acme?")

    reply = runner.run(scenario, **of(sandbox))
    assert (reply.response, reply.requires_approval) == ("Acme is in the Proposal stage. ", False)
    assert (sandbox.charges, sandbox.unused) == ([Charge("chat", 3, None)], [])


def test_an_answer_is_given_by_a_stream(runner: Runner, sandbox: Sandbox) -> None:
    """A stream sends the events as they are, then the text word by word, and ends by itself."""
    sandbox.answer_next(" in  stage.\n", TOLD, price=4)

    async def scenario(lexi: Any) -> list[Any]:
        return [event async for event in lexi.stream_chat("How is Acme?")]

    events = runner.run(scenario, **of(sandbox))
    told = [TextDelta(each.delta) if isinstance(each, TextDelta) else each for each in events[:-1]]
    assert told == [*TOLD, TextDelta(" in"), TextDelta("  stage."), TextDelta("\n")]
    assert {each.conversation_id for each in events if isinstance(each, TextDelta)} == {"conv_000001"}
    assert events[-1] == Done(4_996, "msg_000003")


def test_events_may_have_more_than_the_contract(sandbox: Sandbox) -> None:
    """Fields beyond the contract are sent, and an id of its own stays the one of its piece."""
    delta = TextDelta("Hi", "conv_other", extra={"tone": "warm"})
    sandbox.answer_next(events=[Thinking("Hm", extra={"depth": 2}), ToolStep("t", "started", extra={"n": 1}), delta])
    with client_of(sandbox) as http:
        events = stream(http, "Hello")
    assert events[:-1] == [
        ("thinking", {"text": "Hm", "depth": 2}),
        ("tool_step", {"tool": "t", "status": "started", "n": 1}),
        ("text", {"delta": "Hi", "conversation_id": "conv_other", "tone": "warm"}),
    ]


def test_answers_come_in_their_order(runner: Runner, sandbox: Sandbox) -> None:
    """Each message takes one, whichever way it is asked; then the rules answer again. Other calls take none."""
    sandbox.answer_next("One.")
    sandbox.answer_next("Two.")

    async def scenario(lexi: Any) -> list[str]:
        await lexi.tasks()
        replies = [await lexi.stream_chat("Hi").final_reply(), await lexi.chat("Hi"), await lexi.chat("Hi")]
        return [reply.response[:6] for reply in replies]

    assert runner.run(scenario, **of(sandbox)) == ["One.", "Two.", "Hello!"]


def test_a_repetition_gets_the_recorded_answer(sandbox: Sandbox) -> None:
    """A key that is repeated takes no answer from the script, but where answers are generated anew."""
    key = "123e4567-e89b-42d3-a456-426614174000"
    sandbox.answer_next("One.")
    sandbox.answer_next("Two.")
    with client_of(sandbox) as http:
        assert [said(stream(http, "Hi", key=key)) for _ in range(2)] == ["One.", "One."]
    assert sandbox.unused == ["the answer 'Two.'"]
    with Sandbox(pace=0, idempotency="regenerate") as anew, client_of(anew) as http:
        anew.answer_next("One.")
        anew.answer_next("Two.")
        assert [said(stream(http, "Hi", key=key)) for _ in range(2)] == ["One.", "Two."]
        assert len(anew.charges) == 1


def test_an_answer_can_wait_for_approval(runner: Runner, sandbox: Sandbox) -> None:
    """An answer may name a task that was added, and a task may fail once it was approved."""
    task_id = sandbox.add_task("contact_update", "Give Jane Doe a new title", metadata={"title": "CEO"})
    sandbox.answer_next("May I?", task_id=task_id)
    sandbox.fail_next("failed_task")

    async def scenario(lexi: Any) -> Any:
        reply = await lexi.chat("Make Jane Doe CEO")
        assert (reply.requires_approval, reply.task_id) == (True, task_id)
        [task] = await lexi.tasks()
        assert (task.type, task.description, task.metadata) == (
            "contact_update",
            "Give Jane Doe a new title",
            {"title": "CEO"},
        )
        await lexi.approve_task(task_id)
        return await lexi.wait_for_task(task_id, poll_interval=0.01)

    assert runner.run(scenario, **of(sandbox)).status == "failed"
    assert sandbox.unused == []


@pytest.mark.parametrize("kind", ["prospect_search", "campaign_start", "other"])
def test_a_task_that_was_added_is_carried_out(sandbox: Sandbox, kind: str) -> None:
    """Without details it completes and changes nothing; with those of a search the list is filled."""
    found = {"list_id": "new", "list_name": "New ones", "contacts": ["Ada Okafor"]}
    with client_of(sandbox) as http:
        for metadata in ({}, found):
            task_id = sandbox.add_task(kind, "A task", metadata=metadata)
            assert http.post(f"/v1/lexi/tasks/{task_id}/approve").status_code == 200
        assert len(http.get("/v1/lexi/tasks?status=completed").json()["data"]["tasks"]) == 2
        lists = ask(http, "Show my lists")["response"]
    assert ("New ones: 1 contact" in lists) == (kind == "prospect_search")
    assert ("A task" in lists) == (kind == "campaign_start")


def test_an_answer_that_can_t_be_paid_stays(sandbox: Sandbox) -> None:
    """402 comes before the answer, which the next message gets."""
    sandbox.credits = 2
    sandbox.answer_next("Dear.", price=3)
    with client_of(sandbox) as http:
        assert code_of(http.post(STREAM, json={"message": "Hi"})) == (402, "insufficient_credits")
        sandbox.credits = 3
        assert ask(http, "Hi")["response"] == "Dear."
    assert sandbox.credits == 0


@pytest.mark.parametrize(
    "how",
    [{"events": [Done(3)]}, {"events": ["Hi"]}, {"price": -1}, {"price": 1.5}, {"price": True}],
)
def test_an_answer_that_can_t_be_sent_is_refused(sandbox: Sandbox, how: dict[str, Any]) -> None:
    """`done` comes by itself, and a price is a whole number."""
    with pytest.raises(ConfigurationError, match=r"by itself|whole number"):
        sandbox.answer_next("Hi", **how)


# Messages -----------------------------------------------------------------------------------------------------------


def test_a_message_tells_the_tools_that_were_called(runner: Runner, sandbox: Sandbox) -> None:
    """What a tool gave is a record of its own, and the reply names the tools; other messages name none."""
    steps = [ToolStep(tool, "completed", tool.upper()) for tool in ("a.b", "c.d")]
    sandbox.answer_next("Done.", steps)

    async def scenario(lexi: Any) -> Any:
        reply = await lexi.chat("Do both")
        await lexi.chat("Hello", conversation_id=reply.conversation_id)
        return await lexi.conversation(reply.conversation_id, include_tool_steps=True)

    messages = runner.run(scenario, **of(sandbox)).messages
    assert [(each.role, each.tool_name, [dict(call) for call in each.tool_calls]) for each in messages] == [
        ("user", None, []),
        ("tool", "a.b", []),
        ("tool", "c.d", []),
        ("assistant", None, [{"tool": "a.b"}, {"tool": "c.d"}]),
        ("user", None, []),
        ("assistant", None, []),
    ]


# The clock, and a fresh start ---------------------------------------------------------------------------------------


def test_tasks_end_by_its_clock() -> None:
    """A task that takes an hour is done once the clock was moved by one."""
    with Sandbox(pace=0, task_seconds=3600) as sandbox, client_of(sandbox) as http:
        task_id = sandbox.add_task("other")
        http.post(f"/v1/lexi/tasks/{task_id}/approve")
        for seconds, status in ((3500, "approved"), (200, "completed")):
            sandbox.advance(seconds)
            [task] = http.get(f"/v1/lexi/tasks?status={status}").json()["data"]["tasks"]
            assert task["id"] == task_id


@pytest.mark.parametrize("seconds", [-1, 1e30, float("nan"), float("inf"), 3e11])
def test_a_clock_can_t_be_moved_anywhere(sandbox: Sandbox, seconds: float) -> None:
    """Backward, and beyond the year 9999, there is nothing."""
    with pytest.raises(ConfigurationError, match="the clock can"):
        sandbox.advance(seconds)


def test_reset_is_a_fresh_start(runner: Runner) -> None:
    """All is as in the beginning, on the same address and with the same keys."""
    with Sandbox(pace=0, credits=20, quota=3) as sandbox:
        key, url = sandbox.add_key(), sandbox.url

        async def scenario(lexi: Any) -> tuple[Any, ...]:
            reply = await lexi.stream_chat("Where is Jane Doe?").final_reply()
            await lexi.chat("Find me 20 CEOs at law firms in New York", context={"list_id": "q1-leads"})
            page = await lexi.conversations().first_page()
            return reply.conversation_id, reply.message_id, reply.credits_remaining, page.total

        first = runner.run(scenario, **of(sandbox, api_key=key))
        sandbox.credits = 7
        sandbox.advance(86_400 * 3)
        sandbox.fail_next("stall")
        sandbox.answer_next("One.")
        sandbox.reset()
        assert (sandbox.url, sandbox.credits, sandbox.unused) == (url, 20, [])
        assert (sandbox.charges, sandbox.requests) == ([], [])
        assert runner.run(scenario, **of(sandbox, api_key=key)) == first


def test_reset_cuts_what_runs() -> None:
    """A stream that is on its way ends without `done`, and leaves nothing in what begins anew."""
    with Sandbox(pace=2) as sandbox, client_of(sandbox) as http:
        with http.stream("POST", STREAM, json={"message": "Where is Jane Doe?"}) as answer:
            chunks = answer.iter_text()
            begun = next(chunks)
            sandbox.reset()
            rest = "".join(chunks)
        assert "event: done" not in begun + rest
        assert http.get("/v1/lexi/conversations").json()["meta"]["total"] == 0
        sandbox.add_conversation("Another")
        assert http.get("/v1/lexi/conversations/conv_000001").json()["data"]["messages"] == []


def test_a_reset_that_fails_says_so(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the server's thread comes out where it was asked for, and the server goes on."""

    def fail(_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "reset", fail)
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            sandbox.reset()
    with client_of(sandbox) as http:
        assert ask(http, "Hello")["response"]


def test_only_a_running_sandbox_is_reset() -> None:
    """What does not run has nothing to forget."""
    with pytest.raises(RuntimeError, match="does not run"):
        Sandbox().reset()


# A client that dies -------------------------------------------------------------------------------------------------


def test_a_client_that_is_killed_while_it_sends(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A body that never comes to its end is no fault of the sandbox, and costs nothing."""
    address = urlsplit(sandbox.url)
    head = f"POST {STREAM} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {sandbox.api_key}\r\n"
    with socket.create_connection((address.hostname, address.port)) as raw:
        raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        wait_until(lambda: sandbox.requests)
    wait_until(lambda: sandbox.requests[0].disconnected)
    with client_of(sandbox) as http:
        assert ask(http, "Hello")["response"]
    assert (sandbox.requests[0].status, len(sandbox.charges)) == (None, 1)
    assert not caplog.records


# Examples -----------------------------------------------------------------------------------------------------------


def examples() -> Iterator[tuple[str, str]]:
    """Cut the examples out of the docstrings of `Sandbox`."""
    for name, member in {"Sandbox": Sandbox, **vars(Sandbox)}.items():
        text = inspect.cleandoc(getattr(member, "__doc__", None) or "") + "\n"
        if match := re.search(r"^Example:\n((?:    .*\n|\n)+)", text, re.MULTILINE):
            yield name, textwrap.dedent(match[1])


@pytest.mark.parametrize("example", [code for _, code in examples()], ids=[name for name, _ in examples()])
def test_every_example_runs(sandbox: Sandbox, example: str) -> None:
    """Who pastes an example sees it work, with a `sandbox`, and a client `lexi` of it, at hand."""
    with leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        exec(example, {"leadlex": leadlex, "Sandbox": Sandbox, "sandbox": sandbox, "lexi": lexi})  # noqa: S102
    assert sandbox.unused == []


def test_every_way_to_script_has_an_example() -> None:
    """What a test can lay out is shown being laid out."""
    assert {name for name, _ in examples()} >= {"Sandbox", "answer_next", "fail_next", "add_task", "advance", "reset"}

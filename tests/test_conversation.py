"""A first conversation with everything in it, against the sandbox, on both clients."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import leadlex
from leadlex.sandbox import FaultKind, Sandbox
from tests.support.runners import Runner

CEOS = "Find me 20 CEOs at law firms in New York"
PIPELINE = "Summarize my pipeline"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Serve a sandbox that answers at once."""
    with Sandbox(pace=0, task_seconds=0.05) as sandbox:
        yield sandbox


def options(sandbox: Sandbox, **others: Any) -> dict[str, Any]:
    """Make a client's options."""
    return {"api_key": sandbox.api_key, "base_url": sandbox.url, **others}


def test_search_with_approval(runner: Runner, sandbox: Sandbox) -> None:
    """A search without a list waits for a human; approved, it is carried out and can be waited for."""

    async def scenario(lexi: Any) -> None:
        reply = await lexi.chat(CEOS)
        assert reply.requires_approval
        assert [task.id for task in await lexi.tasks()] == [reply.task_id]
        decision = await lexi.approve_task(reply.task_id)
        assert (decision.task_id, decision.status, decision.execution_started) == (reply.task_id, "approved", True)
        task = await lexi.wait_for_task(reply.task_id, poll_interval=0.02)
        assert (task.status, task.type) == ("completed", "prospect_search")
        with pytest.raises(leadlex.BadRequestError) as caught:
            await lexi.approve_task(reply.task_id)
        assert caught.value.charged == "no"

    runner.run(scenario, **options(sandbox))
    assert [charge.amount for charge in sandbox.charges if charge.what == "prospect_search"] == [5]


def test_search_without_approval(runner: Runner, sandbox: Sandbox) -> None:
    """A search with a list is done at once."""

    async def scenario(lexi: Any) -> None:
        reply = await lexi.chat(CEOS, context={"list_id": "q1-leads"})
        assert not reply.requires_approval
        assert reply.task_id is None
        assert "20" in reply.response

    runner.run(scenario, **options(sandbox))


def test_follow_up_remembers(runner: Runner, sandbox: Sandbox) -> None:
    """A follow-up in the same conversation, by id or by thread, builds on what was said before."""

    async def scenario(lexi: Any) -> None:
        first = await lexi.chat(CEOS)
        second = await lexi.chat("Filter to only New York", conversation_id=first.conversation_id)
        assert second.conversation_id == first.conversation_id
        assert "New York" in second.response
        thread = lexi.thread(first.conversation_id)
        third = await thread.stream_chat("Filter to only New York").final_reply()
        assert third.conversation_id == first.conversation_id
        assert len(await thread.history()) == 6

    runner.run(scenario, **options(sandbox))


def test_dismissed_for_good(runner: Runner, sandbox: Sandbox) -> None:
    """A dismissed task is found as dismissed and can't be approved later."""

    async def scenario(lexi: Any) -> None:
        reply = await lexi.chat(CEOS)
        decision = await lexi.dismiss_task(reply.task_id, reason="testing")
        assert decision.status == "dismissed"
        assert (await lexi.wait_for_task(reply.task_id)).status == "dismissed"
        with pytest.raises(leadlex.BadRequestError):
            await lexi.approve_task(reply.task_id)
        with pytest.raises(leadlex.NotFoundError):
            await lexi.dismiss_task("task_none")

    runner.run(scenario, **options(sandbox))


def test_250_conversations_over_three_pages(runner: Runner, sandbox: Sandbox) -> None:
    """A listing of 250 takes three requests and a last look, and gives every conversation once; one has tool steps."""
    with leadlex.LeadLex(**options(sandbox)) as writer:
        for number in range(249):
            sandbox.add_conversation(f"Case {number}", "How is it?", "It is closed.")
        last = writer.stream_chat(PIPELINE).final_reply()

    async def scenario(lexi: Any) -> None:
        before = len(sandbox.requests)
        ids = [conversation.id async for conversation in lexi.conversations()]
        assert len(ids) == len(set(ids)) == 250
        assert len(sandbox.requests) - before == 3 + 1
        one = await lexi.conversation(last.conversation_id, include_tool_steps=True)
        assert any(message.tool_name for message in one.messages)
        plain = await lexi.conversation(last.conversation_id)
        assert not any(message.tool_name for message in plain.messages)

    runner.run(scenario, **options(sandbox))


def test_out_of_credits(runner: Runner, sandbox: Sandbox) -> None:
    """Without credits both roads say so before anything is streamed, and nothing is charged."""
    sandbox.credits = 0

    async def scenario(lexi: Any) -> None:
        for ask in (lexi.chat, lambda message: lexi.stream_chat(message).final_reply()):
            with pytest.raises(leadlex.InsufficientCreditsError) as caught:
                await ask(PIPELINE)
            assert (caught.value.charged, caught.value.partial) == ("no", None)

    runner.run(scenario, **options(sandbox))
    assert not sandbox.charges


def test_out_of_quota(runner: Runner) -> None:
    """A quota that is renewed at midnight raises at once and says when."""
    with Sandbox(pace=0, quota=2) as sandbox:

        async def scenario(lexi: Any) -> None:
            await lexi.tasks()
            await lexi.tasks()
            with pytest.raises(leadlex.RateLimitError) as caught:
                await lexi.tasks()
            error = caught.value
            tomorrow = datetime.now(UTC).date() + timedelta(days=1)
            # Within a minute of midnight the client would wait for it instead.
            assert error.reset_at is not None
            assert error.reset_at.date() == tomorrow
            assert error.retry_after is not None
            assert lexi.rate_limit.remaining == 0

        runner.run(scenario, **options(sandbox, retries=0))


def test_keys(runner: Runner, sandbox: Sandbox) -> None:
    """A wrong or expired key is a 401 that says how keys look; a weak one a 403 that names what it lacks."""

    async def wrong(lexi: Any) -> None:
        with pytest.raises(leadlex.AuthenticationError, match="wbk_…"):
            await lexi.tasks()

    async def weak(lexi: Any) -> None:
        with pytest.raises(leadlex.PermissionDeniedError, match="write:ai"):
            await lexi.stream_chat(PIPELINE).final_reply()
        with pytest.raises(leadlex.PermissionDeniedError, match="read:ai"):
            await lexi.conversations().first_page()

    runner.run(wrong, **options(sandbox, api_key="wbk_wrong"))
    expired = sandbox.add_key(expires_at=datetime.now(UTC) - timedelta(days=1))
    runner.run(wrong, **options(sandbox, api_key=expired))
    runner.run(weak, **options(sandbox, api_key=sandbox.add_key(["lexi"])))


def test_unknown_conversation(runner: Runner, sandbox: Sandbox) -> None:
    """A conversation that does not exist is a NotFoundError with the id to quote to the service's support."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(leadlex.NotFoundError) as caught:
            await lexi.conversation("conv_none")
        assert caught.value.request_id
        with pytest.raises(leadlex.NotFoundError):
            await lexi.stream_chat(PIPELINE, conversation_id="conv_none").final_reply()

    runner.run(scenario, **options(sandbox))
    assert not sandbox.charges


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("drop_stream", {"after_bytes": 300}),
        ("error_event", {"code": "overloaded", "message": "Busy"}),
        ("server_error", {}),
        ("rate_limit", {"retry_after": 1}),
    ],
)
def test_one_fault_is_charged_once(runner: Runner, sandbox: Sandbox, kind: FaultKind, how: dict[str, Any]) -> None:
    """A fault that passes is not seen, but for the attempts, and the answer is charged once."""

    async def scenario(lexi: Any) -> str:
        sandbox.fail_next(kind, **how)
        reply = await lexi.stream_chat(PIPELINE).final_reply()
        assert reply.meta.attempts == 2
        return str((await lexi.stream_chat(PIPELINE).final_reply()).response == reply.response)

    policy = leadlex.RetryPolicy(base=0.01, throttle_base=0.01)
    assert runner.run(scenario, **options(sandbox, retries=policy)) == "True"
    assert len(sandbox.charges) == 2
    assert len({charge.idempotency_key for charge in sandbox.charges}) == 2

"""What a checker knows of values, events, errors and names."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_never, assert_type

import leadlex
from leadlex import (
    APIStatusError,
    APITimeoutError,
    Attempt,
    ChatContext,
    ChatReply,
    Conversation,
    Done,
    FakeClock,
    LeadLexError,
    Message,
    PermissionDeniedError,
    RateLimitError,
    RawReply,
    StreamContext,
    StreamDivergedError,
    StreamEvent,
    StreamInterruptedError,
    Task,
    TextDelta,
    Thinking,
    ToolStep,
    UnknownEvent,
)
from leadlex.sandbox import FaultKind, Sandbox


def match_events(event: StreamEvent) -> str | None:
    """Take every kind of event apart; a checker knows when one is missing."""
    match event:
        case Thinking(text):
            return assert_type(text, str)
        case ToolStep(tool, status, summary):
            assert_type(tool, str)
            assert_type(status, str)
            return assert_type(summary, str | None)
        case TextDelta(delta, conversation_id):
            assert_type(delta, str)
            return assert_type(conversation_id, str | None)
        case Done(credits_remaining, message_id):
            assert_type(credits_remaining, int | None)
            return assert_type(message_id, str | None)
        case UnknownEvent(name, data):
            return assert_type(name + data, str)
        case _:
            assert_never(event)


def forget_one(event: Thinking | Done) -> None:
    """Leave a kind of event out, which a checker must find."""
    match event:
        case Thinking():
            pass
        case _:
            assert_never(event)  # type: ignore[arg-type]


def read(reply: ChatReply, conversation: Conversation, message: Message, task: Task, raw: RawReply) -> None:
    """Read values."""
    assert_type(reply.response, str)
    assert_type(reply.conversation_id, str | None)
    assert_type(reply.requires_approval, bool | None)
    assert_type(reply.tool_steps, tuple[ToolStep, ...])
    assert_type(reply.extra, Mapping[str, Any])
    assert_type(conversation.messages, tuple[Message, ...])
    assert_type(conversation.may_have_more, bool | None)
    assert_type(conversation.context.deal_id, str | None)
    assert_type(message.created_at, datetime | None)
    assert_type(task.metadata, Mapping[str, Any])
    assert_type(raw.data, Any)


def catch(error: LeadLexError) -> None:
    """Ask errors."""
    assert_type(error.partial, ChatReply | None)
    assert_type(error.next_page, int | None)
    if error.charged == "no":
        return
    match error:
        case RateLimitError():
            assert_type(error.retry_after, float | None)
            assert_type(error.reset_at, datetime | None)
        case PermissionDeniedError():
            assert_type(error.permission, str | None)
        case APIStatusError():
            assert_type(error.status_code, int)
            assert_type(error.code, str | None)
        case StreamDivergedError():
            assert_type(error.common_len, int)
        case StreamInterruptedError():
            assert_type(error.idempotency_key, str | None)
            assert_type(error.first_sent, datetime | None)
            assert_type(error.attempt_log, tuple[Attempt, ...])
        case APITimeoutError():
            assert_type(error.clock == "idle", bool)
        case _:
            pass


def clocks() -> None:
    """Turn the clock of a test."""
    with FakeClock() as clock:
        clock.advance(3600)
        assert_type(clock, FakeClock)
        assert_type(clock.sleeps, list[float])


def script(sandbox: Sandbox, kind: FaultKind) -> None:
    """Lay out faults and answers."""
    sandbox.fail_next("drop_stream", after_bytes=120)
    sandbox.fail_next(kind)
    sandbox.fail_next(404, "not_found")
    sandbox.answer_next("Hi", [ToolStep("contacts.get", "completed"), TextDelta("Jane")], price=2)
    assert_type(sandbox.unused, list[str])
    Sandbox(prices={"search": 3}, allowed_hosts=["sandbox"])
    sandbox.fail_next("drop_strem")  # type: ignore[call-overload]
    sandbox.answer_next("Hi", [Done(3)])  # type: ignore[list-item]
    Sandbox(prices={"serch": 3})  # type: ignore[dict-item]


def mistakes(reply: ChatReply, error: LeadLexError) -> None:
    """Do what a checker must refuse."""
    _ = leadlex.LeadLexx  # type: ignore[attr-defined]
    reply.response = "changed"  # type: ignore[misc]
    _ = reply.text  # type: ignore[attr-defined]
    ChatReply("by position")  # type: ignore[call-arg]
    error.charged = "maybe"  # type: ignore[assignment]
    _ = error.status_code  # type: ignore[attr-defined]
    ChatContext(list_id=5)  # type: ignore[typeddict-item]
    StreamContext(list_id="l")  # type: ignore[typeddict-unknown-key]
    known: str = reply.conversation_id  # type: ignore[assignment]
    del known

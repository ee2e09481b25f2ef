"""What a checker knows of the sync client: the same, without await."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_type

import httpx

from leadlex import (
    ChatContext,
    ChatReply,
    ChatStream,
    Conversation,
    ConversationSummary,
    LeadLex,
    Message,
    Meta,
    Page,
    Pager,
    RateLimit,
    RawReply,
    RetryPolicy,
    StreamContext,
    StreamEvent,
    Task,
    TaskDecision,
    Thread,
    Timeout,
)


def make() -> None:
    """Make clients."""
    with LeadLex() as lexi:
        assert_type(lexi, LeadLex)
    LeadLex("wbk_1", base_url="https://x", timeout=5, retries=0, resume=False, headers={"X-A": "b"})
    LeadLex(lambda: "wbk_1")
    LeadLex(timeout=Timeout(total=None), retries=RetryPolicy(retries=1), http_client=httpx.AsyncClient)
    assert_type(LeadLex.sandbox(), LeadLex)
    assert_type(lexi.with_options(timeout=5.0, retries=3), LeadLex)
    assert_type(lexi.rate_limit, RateLimit | None)
    assert_type(lexi.credits_remaining, int | None)
    lexi.close()


def call(lexi: LeadLex, chat_context: ChatContext, own: Mapping[str, Any] | None) -> None:
    """Call what is not a stream."""
    assert_type(lexi.chat("Hi"), ChatReply)
    assert_type(lexi.chat("Hi", conversation_id="c", context={"list_id": "l", "brand_new": 1}), ChatReply)
    assert_type(lexi.chat("Hi", context=chat_context), ChatReply)
    assert_type(lexi.chat("Hi", context={"list_id": "l"}), ChatReply)
    assert_type(lexi.chat("Hi", context=own), ChatReply)
    assert_type(lexi.conversation("c", include_tool_steps=True, limit=5), Conversation)
    assert_type(lexi.tasks(status="completed"), list[Task])
    assert_type(lexi.approve_task("t"), TaskDecision)
    assert_type(lexi.dismiss_task("t", reason="testing"), TaskDecision)
    assert_type(lexi.wait_for_task("t", timeout=5, poll_interval=0.5), Task)
    assert_type(lexi.request("GET", "/v1/x", params={"a": 1}, json=None), RawReply)


def stream(lexi: LeadLex, context: StreamContext) -> None:
    """Read a stream."""
    made = lexi.stream_chat("Hi", context=context, allow_tools=False, idempotency_key=None)
    assert_type(made, ChatStream)
    assert_type(lexi.stream_chat("Hi", context={"deal_id": "d", "brand_new": 1}), ChatStream)
    with made as entered:
        assert_type(entered, ChatStream)
        for event in entered:
            assert_type(event, StreamEvent)
        assert_type(entered.text_stream, Iterator[str])
    assert_type(next(made), StreamEvent)
    assert_type(made.final_reply(), ChatReply)
    assert_type(made.reply, ChatReply)
    assert_type(made.meta, Meta | None)
    made.close()


def page(lexi: LeadLex) -> None:
    """Go through a listing."""
    pager = lexi.conversations(search="acme", archived=True, page=2, per_page=50)
    assert_type(pager, Pager[ConversationSummary])
    for conversation in pager:
        assert_type(conversation, ConversationSummary)
    for each in pager.pages():
        assert_type(each, Page[ConversationSummary])
    assert_type(pager.first_page().items, tuple[ConversationSummary, ...])
    assert_type(pager.collect(limit=5), list[ConversationSummary])
    assert_type(pager.may_be_incomplete, bool)
    assert_type([each.id for each in pager], list[str])


def talk(lexi: LeadLex) -> None:
    """Talk in a thread."""
    thread = lexi.thread("c", context={"deal_id": "d"})
    assert_type(thread, Thread)
    assert_type(thread.chat("Hi"), ChatReply)
    assert_type(thread.stream_chat("Hi"), ChatStream)
    assert_type(thread.history(), list[Message])
    assert_type(thread.conversation_id, str | None)


async def mistakes(lexi: LeadLex) -> None:
    """Do what a checker must refuse."""
    LeadLex(5)  # type: ignore[arg-type]
    LeadLex("wbk_1", "https://x")  # type: ignore[call-arg]
    LeadLex(timeout="5")  # type: ignore[arg-type]
    lexi.chat("Hi", "c")  # type: ignore[call-overload]
    lexi.chat(None)  # type: ignore[call-overload]
    lexi.stream_chat("Hi", context="list_1")  # type: ignore[call-overload]
    await lexi.chat("Hi")  # type: ignore[misc]
    lexi.aclose()  # type: ignore[attr-defined]
    async for _ in lexi.stream_chat("Hi"):  # type: ignore[attr-defined]
        pass
    async with lexi:  # type: ignore[attr-defined]
        pass

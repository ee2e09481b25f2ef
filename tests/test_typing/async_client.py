"""What a checker knows of the async client."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, assert_type

import httpx

from leadlex import (
    AsyncChatStream,
    AsyncLeadLex,
    AsyncPager,
    AsyncThread,
    ChatContext,
    ChatReply,
    Conversation,
    ConversationSummary,
    Message,
    Meta,
    Page,
    RateLimit,
    RawReply,
    RetryPolicy,
    StreamContext,
    StreamEvent,
    Task,
    TaskDecision,
    Timeout,
)


async def _vault() -> str:
    return "wbk_1"


async def make() -> None:
    """Make clients."""
    async with AsyncLeadLex() as lexi:
        assert_type(lexi, AsyncLeadLex)
    AsyncLeadLex("wbk_1", base_url="https://x", timeout=5, retries=0, resume=False, headers={"X-A": "b"})
    AsyncLeadLex(timeout=Timeout(total=None), retries=RetryPolicy(retries=1), max_connections=5)
    AsyncLeadLex(lambda: "wbk_1")
    AsyncLeadLex(proxy="http://x", verify=Path("ca.pem"))
    AsyncLeadLex(api_key=_vault)
    AsyncLeadLex(http_client=httpx.AsyncClient())
    AsyncLeadLex(http_client=httpx.AsyncClient)
    assert_type(AsyncLeadLex.sandbox(), AsyncLeadLex)
    assert_type(lexi.with_options(timeout=5.0, retries=3), AsyncLeadLex)
    assert_type(lexi.rate_limit, RateLimit | None)
    assert_type(lexi.credits_remaining, int | None)
    assert_type(await lexi.aclose(), None)


async def call(lexi: AsyncLeadLex, chat_context: ChatContext, own: Mapping[str, Any] | None) -> None:
    """Call what is not a stream."""
    assert_type(await lexi.chat("Hi"), ChatReply)
    assert_type(await lexi.chat("Hi", conversation_id="c", context={"list_id": "l", "brand_new": 1}), ChatReply)
    assert_type(await lexi.chat("Hi", context=chat_context), ChatReply)
    assert_type(await lexi.chat("Hi", context={"list_id": "l"}), ChatReply)
    assert_type(await lexi.chat("Hi", context=own), ChatReply)
    assert_type(await lexi.conversation("c", include_tool_steps=True, limit=5), Conversation)
    assert_type(await lexi.tasks(status="completed"), list[Task])
    assert_type(await lexi.approve_task("t"), TaskDecision)
    assert_type(await lexi.dismiss_task("t", reason="testing"), TaskDecision)
    assert_type(await lexi.wait_for_task("t", timeout=5, poll_interval=0.5), Task)
    assert_type(await lexi.request("GET", "/v1/x", params={"a": 1}, json=None), RawReply)


async def stream(lexi: AsyncLeadLex, context: StreamContext) -> None:
    """Read a stream."""
    made = lexi.stream_chat("Hi", context=context, allow_tools=False, idempotency_key=None)
    assert_type(made, AsyncChatStream)
    assert_type(lexi.stream_chat("Hi", context={"deal_id": "d", "brand_new": 1}), AsyncChatStream)
    async with made as entered:
        assert_type(entered, AsyncChatStream)
        async for event in entered:
            assert_type(event, StreamEvent)
        assert_type(entered.text_stream, AsyncIterator[str])
    assert_type(await anext(made), StreamEvent)
    assert_type(await made.final_reply(), ChatReply)
    assert_type(made.reply, ChatReply)
    assert_type(made.meta, Meta | None)
    assert_type(made.resumes, int)
    assert_type(made.idempotency_key, str)


async def page(lexi: AsyncLeadLex) -> None:
    """Go through a listing."""
    pager = lexi.conversations(search="acme", archived=True, page=2, per_page=50)
    assert_type(pager, AsyncPager[ConversationSummary])
    async for conversation in pager:
        assert_type(conversation, ConversationSummary)
    async for each in pager.pages():
        assert_type(each, Page[ConversationSummary])
    assert_type((await pager.first_page()).items, tuple[ConversationSummary, ...])
    assert_type(await pager.collect(limit=5), list[ConversationSummary])
    assert_type(pager.may_be_incomplete, bool)


async def talk(lexi: AsyncLeadLex) -> None:
    """Talk in a thread."""
    thread = lexi.thread("c", context={"deal_id": "d"})
    assert_type(thread, AsyncThread)
    assert_type(await thread.chat("Hi"), ChatReply)
    assert_type(thread.stream_chat("Hi"), AsyncChatStream)
    assert_type(await thread.history(), list[Message])
    assert_type(thread.conversation_id, str | None)


async def mistakes(lexi: AsyncLeadLex) -> None:
    """Do what a checker must refuse."""
    AsyncLeadLex(5)  # type: ignore[arg-type]
    AsyncLeadLex(verify=False)  # type: ignore[arg-type]
    AsyncLeadLex().tasks(status="pendng")  # type: ignore[arg-type, unused-coroutine]
    AsyncLeadLex(lambda: 5)  # type: ignore[arg-type, return-value]
    AsyncLeadLex("wbk_1", "https://x")  # type: ignore[call-arg]
    AsyncLeadLex(api_keys="wbk_1")  # type: ignore[call-arg]
    AsyncLeadLex(timeout=None)  # type: ignore[arg-type]
    AsyncLeadLex(http_client=httpx.Client())  # type: ignore[arg-type]
    await lexi.chat()  # type: ignore[call-overload]
    await lexi.chat("Hi", "c")  # type: ignore[call-overload]
    await lexi.chat(b"Hi")  # type: ignore[call-overload]
    await lexi.chat("Hi", idempotency_key="k")  # type: ignore[call-overload]
    await lexi.chat("Hi", context={5: "l"})  # type: ignore[dict-item]
    await lexi.chat("Hi", context="list_1")  # type: ignore[call-overload]
    await lexi.stream_chat("Hi")  # type: ignore[misc]
    await lexi.conversation(5)  # type: ignore[arg-type]
    lexi.conversations(query="acme")  # type: ignore[call-arg]
    lexi.with_options(api_key="wbk_2")  # type: ignore[call-arg]
    lexi.rate_limit = None  # type: ignore[misc]
    lexi.close()  # type: ignore[attr-defined]
    for _ in lexi.stream_chat("Hi"):  # type: ignore[attr-defined]
        pass
    with lexi:  # type: ignore[attr-defined]
        pass
    unawaited: ChatReply = lexi.chat("Hi")  # type: ignore[assignment]
    raw: dict[str, Any] = await lexi.request("GET", "/v1/x")  # type: ignore[assignment]
    del unawaited, raw

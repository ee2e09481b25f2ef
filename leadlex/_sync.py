"""The sync client. Written by `python -m leadlex._portal.generator`; change the async one, not this.

Rule: no logic. Every method runs its async twin in the thread of all sync clients.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, Generic, Self, overload
from uuid import UUID

import httpx

from ._client import AsyncLeadLex
from ._config import DEFAULT_RETRIES, DEFAULT_TIMEOUT, UNSET, RetryPolicy, Timeout, Unset
from ._pager import AsyncPager
from ._policy.listing import T
from ._portal.bridge import Batches, Bridge
from ._portal.pump import Pump
from ._settings import MAX_CONNECTIONS
from ._stream import AsyncChatStream
from ._thread import AsyncThread
from ._values.contexts import ChatContext, StreamContext
from ._values.events import StreamEvent
from ._values.metadata import Charged, Meta, RateLimit
from ._values.models import (
    ChatReply,
    Conversation,
    ConversationSummary,
    Message,
    Page,
    RawReply,
    Task,
    TaskDecision,
    TaskStatus,
)


class LeadLex:
    """A client of Lexi, the AI assistant inside the LeadLex CRM.

    Args:
        api_key: A workspace key (`wbk_…`), or a function that gives one for each call, always of one workspace, since
            idempotency keys belong to it; one that gives no awaitable runs in a thread. Else `LEADLEX_API_KEY`.
        base_url: Where the API is; else `LEADLEX_BASE_URL`, else the service. https, except for this machine and
            for a sandbox, whose key (`wbk_sandbox_…`) is no secret.
        timeout: Seconds, or a `Timeout`.
        retries: Attempts after the first, 0 to 9, or a `RetryPolicy`; nothing that could be charged twice is repeated.
        resume: Whether a stream that breaks is continued with its idempotency key.
        max_connections: How many connections there may be at once, 1 to 100,000.
        headers: Extra headers for every request.
        proxy: The URL of a proxy (http, https, socks5) for all but this machine; `NO_PROXY` is then not asked. Else the
            proxy variables of the environment.
        verify: Whose certificates are trusted: an `ssl.SSLContext`, a PEM file's path, or `"system"` for what this
            machine trusts (the extra `trust`). Else `SSL_CERT_FILE`, `SSL_CERT_DIR`, else certifi.
        http_client: An `httpx.AsyncClient` of your own (its transport, proxies, TLS, limits and hooks are used; you
            close it), or a function that makes one (one for each event loop and process; closed with this client).
            Tools that look into httpx (vcrpy, respx, OpenTelemetry) see what `httpx.AsyncClient`, given here, sends.

    Raises:
        ConfigurationError: An option or the environment can't be used.

    Example:
        with leadlex.LeadLex() as lexi:
            reply = lexi.chat("Summarize my pipeline")
    """

    def __init__(
        self,
        api_key: str | Callable[[], str | Awaitable[str]] | None = None,
        *,
        base_url: str | None = None,
        timeout: float | Timeout = DEFAULT_TIMEOUT,
        retries: int | RetryPolicy = DEFAULT_RETRIES,
        resume: bool = True,
        max_connections: int = MAX_CONNECTIONS,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        verify: ssl.SSLContext | str | PathLike[str] | None = None,
        http_client: httpx.AsyncClient | Callable[[], httpx.AsyncClient] | None = None,
    ) -> None:
        try:
            self._wrapped = AsyncLeadLex(
                api_key,
                base_url=base_url,
                timeout=timeout,
                retries=retries,
                resume=resume,
                max_connections=max_connections,
                headers=headers,
                proxy=proxy,
                verify=verify,
                http_client=http_client,
            )
        finally:
            del api_key, base_url, headers, proxy
        self._bridge = Bridge(self._wrapped.aclose)

    @classmethod
    def _of(cls, wrapped: AsyncLeadLex, bridge: Bridge, kept: Mapping[str, object]) -> Self:
        client = object.__new__(cls)
        client.__dict__.update(kept, _wrapped=wrapped, _bridge=bridge)
        return client

    def __repr__(self) -> str:
        return repr(getattr(self, "_wrapped", AsyncLeadLex)).replace("AsyncLeadLex", "LeadLex", 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._wrapped.__reduce__()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def sandbox(cls) -> Self:
        """Start a sandbox (offline, free, invented data) and return a client of it; both close together.

        Raises:
            ConfigurationError: The extra `sandbox` is missing.

        Example:
            with leadlex.LeadLex.sandbox() as lexi:
                reply = lexi.chat("Summarize my pipeline")
        """
        wrapped = AsyncLeadLex.sandbox()
        return cls._of(wrapped, Bridge(wrapped.aclose), {})

    @overload
    def chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: ChatContext | None = None,
    ) -> ChatReply: ...

    @overload
    def chat(self, message: str, *, conversation_id: str | None = None, context: Mapping[str, Any]) -> ChatReply: ...

    def chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: ChatContext | Mapping[str, Any] | None = None,
    ) -> ChatReply:
        """Ask Lexi, and wait for the whole answer.

        The service takes no idempotency key here: a `chat` whose answer is lost is not repeated, and whether it was
        charged is not known. `stream_chat(…).final_reply()` is the charge-safe way; only `chat` tells of approvals.

        Args:
            message: What to ask.
            conversation_id: The conversation to go on with.
            context: CRM records that the question is about: the keys of `ChatContext`, or of your own.

        Raises:
            LeadLexError: `charged` says whether it cost credits. After `unknown`, look in the conversation for the
                message before asking again.

        Example:
            reply = lexi.chat("Find me 20 CEOs at law firms in New York")
            print(reply.response, reply.requires_approval, reply.task_id)

        Source: `POST /v1/lexi/chat`.
        """
        try:
            twin = self._wrapped.chat(message, conversation_id=conversation_id, context=context)
        finally:
            del message, context
        return self._bridge.call(twin)

    @overload
    def stream_chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: StreamContext | None = None,
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> ChatStream: ...

    @overload
    def stream_chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: Mapping[str, Any],
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> ChatStream: ...

    def stream_chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: StreamContext | Mapping[str, Any] | None = None,
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> ChatStream:
        """Ask Lexi, and iterate over the answer as it is written; nothing is sent before the first use.

        Args:
            message: What to ask, at most 12,000 characters.
            conversation_id: The conversation to go on with.
            context: CRM records that the question is about: the keys of `StreamContext`, or of your own.
            allow_tools: Whether Lexi may use the CRM's tools.
            idempotency_key: A UUID; that of an earlier call asks the same again, from the first word, and is not
                charged again within 24 hours.
            first_sent: When that key was first sent, an aware datetime, as on that call's error or stream; more than
                23 hours later nothing is sent, since the service may have forgotten the key and charge again.

        Raises:
            ConfigurationError: An argument can't be used.

        Example:
            for event in lexi.stream_chat("Summarize my pipeline"):
                match event:
                    case leadlex.TextDelta(delta):
                        print(delta, end="", flush=True)

        Source: `POST /v1/lexi/chat/stream`.
        """
        try:
            twin = self._wrapped.stream_chat(
                message,
                conversation_id=conversation_id,
                context=context,
                allow_tools=allow_tools,
                idempotency_key=idempotency_key,
                first_sent=first_sent,
            )
        finally:
            del message, context
        return ChatStream(twin, self._bridge)

    def conversations(
        self,
        *,
        search: str | None = None,
        user_id: str | None = None,
        contact_id: str | None = None,
        deal_id: str | None = None,
        archived: bool = False,
        page: int = 1,
        per_page: int = 100,
    ) -> Pager[ConversationSummary]:
        """List conversations, over all pages; nothing is sent before the first use.

        Args:
            search: Words to find in titles and messages.
            user_id: Whose; else those of the key's own user.
            contact_id: Those about a contact.
            deal_id: Those about a deal.
            archived: Whether archived ones come too.
            page: Where to begin, from 1.
            per_page: How many to ask for at once, 1 to 100.

        Raises:
            ConfigurationError: An argument can't be used.

        Example:
            for conversation in lexi.conversations(search="acme"):
                print(conversation.id, conversation.title)

        Source: `GET /v1/lexi/conversations`.
        """
        try:
            twin = self._wrapped.conversations(
                search=search,
                user_id=user_id,
                contact_id=contact_id,
                deal_id=deal_id,
                archived=archived,
                page=page,
                per_page=per_page,
            )
        finally:
            del search
        return Pager(twin, self._bridge)

    def conversation(self, id: str, *, include_tool_steps: bool = False, limit: int = 200) -> Conversation:  # noqa: A002  # the contract's word
        """Return one conversation with its messages.

        Args:
            id: Its id.
            include_tool_steps: Whether the records of tools come too.
            limit: How many of the most recent messages, 1 to 1000; `may_have_more` tells whether as many came.

        Raises:
            NotFoundError: There is none of that id.

        Example:
            one = lexi.conversation("conv_01HY1", limit=500)
            print(one.title, len(one.messages))

        Source: `GET /v1/lexi/conversations/{id}`.
        """
        return self._bridge.call(self._wrapped.conversation(id, include_tool_steps=include_tool_steps, limit=limit))

    def tasks(self, *, status: TaskStatus = "pending") -> list[Task]:
        """Return all tasks of one status.

        Args:
            status: `pending`, `approved`, `dismissed`, `completed` or `failed`.

        Example:
            for task in lexi.tasks():
                print(task.id, task.description)

        Source: `GET /v1/lexi/tasks`.
        """
        return self._bridge.call(self._wrapped.tasks(status=status))

    def approve_task(self, id: str) -> TaskDecision:  # noqa: A002  # the contract's word
        """Let Lexi carry out a task; it may cost credits, and is not repeated once it may have reached the service.

        Args:
            id: The task, as in `reply.task_id`.

        Raises:
            BadRequestError: It is not pending.
            NotFoundError: There is none of that id.

        Example:
            reply = lexi.chat("Find me 20 CEOs at law firms in New York")
            if reply.requires_approval and reply.task_id:
                lexi.approve_task(reply.task_id)

        Source: `POST /v1/lexi/tasks/{id}/approve`.
        """
        return self._bridge.call(self._wrapped.approve_task(id))

    def dismiss_task(self, id: str, *, reason: str | None = None) -> TaskDecision:  # noqa: A002  # the contract's word
        """Dismiss a task for good.

        Args:
            id: The task.
            reason: Why; the service knows not_relevant, manual_execution, incorrect_params, duplicate and testing.

        Raises:
            BadRequestError: It is not pending.
            NotFoundError: There is none of that id.

        Example:
            for task in lexi.tasks():
                lexi.dismiss_task(task.id, reason="testing")

        Source: `POST /v1/lexi/tasks/{id}/dismiss`.
        """
        try:
            twin = self._wrapped.dismiss_task(id, reason=reason)
        finally:
            del reason
        return self._bridge.call(twin)

    def wait_for_task(self, id: str, *, timeout: float = 300, poll_interval: float = 5) -> Task:  # noqa: A002  # the contract's word
        """Wait until a task is completed, failed or dismissed, and return it.

        Args:
            id: The task.
            timeout: How many seconds to wait at most.
            poll_interval: Seconds between two looks; it grows by half each time, up to 30.

        Raises:
            NotFoundError: Two looks in a row found it nowhere.
            APITimeoutError: It took longer; `clock` is `wait`.

        Example:
            reply = lexi.chat("Find me 20 CEOs at law firms in New York")
            if reply.task_id:
                lexi.approve_task(reply.task_id)
                task = lexi.wait_for_task(reply.task_id, poll_interval=0.1)
                print(task.status)
        """
        return self._bridge.call(self._wrapped.wait_for_task(id, timeout=timeout, poll_interval=poll_interval))

    def thread(self, conversation_id: str | None = None, *, context: Mapping[str, Any] | None = None) -> Thread:
        """Return a conversation that remembers its id from message to message.

        Args:
            conversation_id: The conversation to go on with; None begins a new one.
            context: Given with every message: to `chat` and to `stream_chat` what each of them takes, and keys of your
                own.

        Raises:
            ConfigurationError: An argument can't be used.

        Example:
            thread = lexi.thread()
            thread.chat("Find me 20 CEOs at law firms in New York")
            thread.chat("Filter to only New York")
        """
        try:
            twin = self._wrapped.thread(conversation_id, context=context)
        finally:
            del context
        return Thread(twin, self._bridge)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        params: Mapping[str, Any] | None = None,
    ) -> RawReply:
        """Call any other endpoint of the API, with the same key, retries and errors.

        Args:
            method: GET (repeated as a listing is), POST, PUT, PATCH or DELETE (as `chat` is).
            path: The path under the base URL, percent-encoded.
            json: The body.
            params: The query.

        Example:
            raw = lexi.request("GET", "/v1/lexi/tasks", params={"status": "completed"})
            print(raw.data)
        """
        try:
            twin = self._wrapped.request(method, path, json=json, params=params)
        finally:
            del json, params
        return self._bridge.call(twin)

    def with_options(
        self,
        *,
        timeout: float | Timeout | Unset = UNSET,
        retries: int | RetryPolicy | Unset = UNSET,
        resume: bool | Unset = UNSET,
        headers: Mapping[str, str] | Unset = UNSET,
    ) -> Self:
        """Return this client with other options; connections, retry quota and last-seen values are shared.

        Closing the copy does nothing, closing the original closes all.

        Args:
            timeout: As for the client.
            retries: As for the client.
            resume: As for the client.
            headers: Put over the client's.

        Raises:
            ConfigurationError: An option can't be used.

        Example:
            quick = lexi.with_options(timeout=10, retries=0)
            reply = quick.chat("Summarize my pipeline")
        """
        try:
            twin = self._wrapped.with_options(timeout=timeout, retries=retries, resume=resume, headers=headers)
        finally:
            del headers
        return self._of(twin, self._bridge.lend(), vars(self))

    def close(self) -> None:
        """Close all connections; running calls end with `ClientClosedError`. Closing twice is fine.

        Example:
            lexi = leadlex.LeadLex()
            lexi.close()
        """
        self._bridge.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """Give the request quota as the service last told it."""
        return self._wrapped.rate_limit

    @property
    def credits_remaining(self) -> int | None:
        """Give the workspace's AI credits as the service last told them."""
        return self._wrapped.credits_remaining


class ChatStream:
    """The events of an answer, handed out while Lexi writes it.

    Nothing is sent before it is first used. Entered with `with`, it is closed for sure; iterated to its end, it
    closes itself. A stream that breaks off is continued with the same idempotency key, so that it is charged once.

    Args:
        reading: What is sent, and how far it has come.

    Raises:
        StreamInterruptedError: It broke off and could not be continued; `partial` has what came.
        StreamBusyError: Two tasks read it at once.
        LeadLexError: Any other error of the API.

    Example:
        with lexi.stream_chat("Summarize my pipeline") as stream:
            for delta in stream.text_stream:
                print(delta, end="", flush=True)
            reply = stream.final_reply()

    Source: `POST /v1/lexi/chat/stream`.
    """

    def __init__(self, wrapped: AsyncChatStream, bridge: Bridge) -> None:
        self._wrapped = wrapped
        self._bridge = bridge
        self._pump = Pump(bridge, wrapped)

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("AsyncChatStream", "ChatStream", 1)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        return next(self._pump)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Send the question, wait for the first event, which is kept for the iteration, and return the stream.

        A refusal is raised here, before an endpoint of your own has sent a status. To start twice is fine, and a stream
        that is iterated starts by itself.

        Raises:
            LeadLexError: What stands in the way of an answer.

        Example:
            stream = lexi.stream_chat("Summarize my pipeline").start()
            print(stream.meta)
            stream.close()
        """
        self._pump.start()
        return self

    @property
    def text_stream(self) -> Iterator[str]:
        """Iterate over the text alone, piece by piece.

        Its `close` closes the stream.

        Example:
            stream = lexi.stream_chat("Summarize my pipeline")
            for delta in stream.text_stream:
                print(delta, end="", flush=True)
        """
        return self._pump.text_stream()

    def final_reply(self) -> ChatReply:
        """Read what is left and return the whole answer.

        This is the charge-safe way to ask: repeated after a failure with its key, it is charged once.

        Raises:
            StreamInterruptedError: The stream broke off, or was closed before its end.

        Example:
            reply = lexi.stream_chat("Summarize my pipeline").final_reply()
            print(reply.response, reply.credits_remaining)
        """
        return self._pump.finish(self._wrapped.final_reply())

    def close(self) -> None:
        """Stop reading and free the connection; closing twice is fine, and so is closing while another task reads.

        Example:
            stream = lexi.stream_chat("Summarize my pipeline")
            first = next(stream)
            stream.close()
        """
        self._pump.close()

    @property
    def reply(self) -> ChatReply:
        """Give the answer as far as it has come."""
        return self._wrapped.reply

    @property
    def conversation_id(self) -> str | None:
        """Give the conversation's id, once it is known."""
        return self._wrapped.conversation_id

    @property
    def idempotency_key(self) -> str:
        """Give the key under which the service charges this question once, for 24 hours."""
        return self._wrapped.idempotency_key

    @property
    def first_sent(self) -> datetime | None:
        """Tell when the question was first sent under its idempotency key; None before it was."""
        return self._wrapped.first_sent

    @property
    def meta(self) -> Meta | None:
        """Tell how the answer arrived, once its head was read."""
        return self._wrapped.meta

    @property
    def resumes(self) -> int:
        """Count how often the stream was continued after it broke."""
        return self._wrapped.resumes

    @property
    def charged(self) -> Charged:
        """Say whether it was charged, as an error would say it now."""
        return self._wrapped.charged


class Pager(Generic[T]):
    """All items of a listing, each once; each iteration starts again.

    Nothing is sent before it is first used. Rows may come at the front and leave anywhere while it is read: pages are
    then read again, at most twice as many in all, and at the end page 1 is, once. Rows that come elsewhere, or move
    past the place that was reached, can't always be seen from here. Where the listing changes too fast to be followed,
    `may_be_incomplete` is True, and a warning is in the log.

    Args:
        transport: What sends.
        listing: What is sent for the first page.
        first: The number of that page, from 1.

    Raises:
        PaginationError: The service repeats itself, or sends far more than the total it told.
        LeadLexError: Any error of the API; `next_page` tells where to go on.

    Example:
        for conversation in lexi.conversations(search="acme"):
            print(conversation.title)

    Source: `GET /v1/lexi/conversations`.
    """

    def __init__(self, wrapped: AsyncPager[T], bridge: Bridge) -> None:
        self._wrapped = wrapped
        self._bridge = bridge

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("AsyncPager", "Pager", 1)

    def __iter__(self) -> Iterator[T]:
        return Batches(self._bridge, self._wrapped.__aiter__())

    @property
    def may_be_incomplete(self) -> bool:
        """Tell whether, when it was last read, rows may have been missed, since it changed faster than it was read."""
        return self._wrapped.may_be_incomplete

    def pages(self) -> Iterator[Page[T]]:
        """Iterate over the pages; of one that is read again, what is new on it.

        Example:
            for page in lexi.conversations().pages():
                print(page.page, len(page.items), page.total)
        """
        return Batches(self._bridge, self._wrapped.pages())

    def first_page(self) -> Page[T]:
        """Return the first page alone.

        Example:
            page = lexi.conversations(per_page=10).first_page()
            print(page.total)
        """
        return self._bridge.call(self._wrapped.first_page())

    def collect(self, limit: int | None = None) -> list[T]:
        """Return the items as a list, asking for up to 8 pages side by side.

        Where rows moved meanwhile, the pages are read once more, one by one; with a limit, only where `total` told it.

        Args:
            limit: How many at most; only the pages needed are asked for, and never more than the quota has left.

        Example:
            newest = lexi.conversations().collect(limit=20)
        """
        return self._bridge.call(self._wrapped.collect(limit))


class Thread:
    """One conversation with Lexi; a new one's id is learnt from the first reply.

    Args:
        transport: What sends.
        conversation_id: The conversation to go on with; None begins a new one.
        context: Given with every message: to `chat` and to `stream_chat` what each of them takes, and keys of your own.

    Raises:
        StreamBusyError: A second message before the first has told the new conversation's id.

    Example:
        thread = lexi.thread()
        thread.chat("Find me 20 CEOs at law firms in New York")
        reply = thread.chat("Filter to only New York")
        print(thread.conversation_id, len(thread.history()))
    """

    def __init__(self, wrapped: AsyncThread, bridge: Bridge) -> None:
        self._wrapped = wrapped
        self._bridge = bridge

    def __repr__(self) -> str:
        return repr(self._wrapped).replace("AsyncThread", "Thread", 1)

    @property
    def conversation_id(self) -> str | None:
        """Give the conversation's id, once it is known."""
        return self._wrapped.conversation_id

    def chat(self, message: str) -> ChatReply:
        """Ask, and wait for the whole answer; see the client's `chat`.

        Args:
            message: What to ask.

        Example:
            reply = lexi.thread().chat("Summarize my pipeline")
        """
        try:
            twin = self._wrapped.chat(message)
        finally:
            del message
        return self._bridge.call(twin)

    def stream_chat(
        self,
        message: str,
        *,
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> ChatStream:
        """Ask, and iterate over the answer as it comes; see the client's `stream_chat`.

        Args:
            message: What to ask, at most 12,000 characters.
            allow_tools: Whether Lexi may use the CRM's tools.
            idempotency_key: A UUID; see the client's `stream_chat`.
            first_sent: When that key was first sent, an aware datetime; see the client's `stream_chat`.

        Example:
            for event in lexi.thread().stream_chat("Summarize my pipeline"):
                print(event)
        """
        try:
            twin = self._wrapped.stream_chat(
                message,
                allow_tools=allow_tools,
                idempotency_key=idempotency_key,
                first_sent=first_sent,
            )
        finally:
            del message
        return ChatStream(twin, self._bridge)

    def history(self, *, include_tool_steps: bool = False, limit: int = 1000) -> list[Message]:
        """Return the messages of the conversation; none before it has begun.

        Args:
            include_tool_steps: Whether the records of tools come with them.
            limit: How many of the most recent ones, 1 to 1000, which is all that the service gives.

        Example:
            messages = lexi.thread("conv_01HY1").history(limit=50)
        """
        return self._bridge.call(self._wrapped.history(include_tool_steps=include_tool_steps, limit=limit))

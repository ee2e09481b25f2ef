"""The async client: a table of contents, one or two lines a method.

Rule: a method says what it does and whose work it is; the work is done further down.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, Self, overload
from uuid import UUID

import httpx

from ._api_key import keys_of
from ._config import DEFAULT_RETRIES, DEFAULT_TIMEOUT, UNSET, RetryPolicy, Timeout, Unset, policy_of, timeout_of, whole
from ._logging import configure
from ._network.clients import connections_for
from ._network.clock import current_clock
from ._network.retry_quota import RetryQuota
from ._network.seen import LastSeen
from ._network.transport import Transport
from ._pager import AsyncPager
from ._protocol import endpoints
from ._protocol.arguments import known_id
from ._settings import MAX_CONNECTIONS, Settings, base_url_of, flag_of, headers_of
from ._stream import AsyncChatStream, Reading
from ._tasks import wait_for_task
from ._thread import AsyncThread
from ._values.contexts import ChatContext, StreamContext
from ._values.metadata import RateLimit
from ._values.models import ChatReply, Conversation, ConversationSummary, RawReply, Task, TaskDecision, TaskStatus


class AsyncLeadLex:
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
        async with leadlex.AsyncLeadLex() as lexi:
            reply = await lexi.chat("Summarize my pipeline")
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
            configure(os.environ)
            keys = keys_of(api_key, os.environ)
            settings = Settings(
                base_url=base_url_of(base_url, os.environ, keys.fixed),
                keys=keys,
                headers=headers_of({} if headers is None else headers),
                timeout=timeout_of(timeout),
                policy=policy_of(retries),
                resume=flag_of(resume),
                max_connections=whole(max_connections, "max_connections", 1, 100_000),
            )
            connections = connections_for(settings, http_client, proxy, verify)
        finally:
            del api_key, base_url, headers, proxy  # a traceback that shows locals must not show a secret in them
        self._transport = Transport(settings, connections, LastSeen(), RetryQuota(), current_clock())
        self._owner = True
        self._closing: list[Callable[[], object]] = []

    def __repr__(self) -> str:
        transport: Transport | None = getattr(self, "_transport", None)
        # A client whose options were refused is shown too, by tools that report locals.
        return f"<{type(self).__name__} {transport.settings.base_url if transport else 'not made'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("A client can't be pickled or copied: make one in the process that uses it.")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @classmethod
    def sandbox(cls) -> Self:
        """Start a sandbox (offline, free, invented data) and return a client of it; both close together.

        Raises:
            ConfigurationError: The extra `sandbox` is missing.

        Example:
            async with leadlex.AsyncLeadLex.sandbox() as lexi:
                reply = await lexi.chat("Summarize my pipeline")
        """
        from .sandbox import Sandbox  # noqa: PLC0415  # an extra, loaded when it is used

        sandbox = Sandbox().start()
        client = cls(sandbox.api_key, base_url=sandbox.url)
        client._closing.append(sandbox.stop)  # its own class
        return client

    # The typed form first: editors complete its keys, and checkers say which are known.
    @overload
    async def chat(
        self, message: str, *, conversation_id: str | None = None, context: ChatContext | None = None
    ) -> ChatReply: ...

    @overload
    async def chat(
        self, message: str, *, conversation_id: str | None = None, context: Mapping[str, Any]
    ) -> ChatReply: ...

    async def chat(
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
            reply = await lexi.chat("Find me 20 CEOs at law firms in New York")
            print(reply.response, reply.requires_approval, reply.task_id)

        Source: `POST /v1/lexi/chat`.
        """
        try:
            operation = endpoints.chat(message, conversation_id=conversation_id, context=context)
        finally:
            del message, context  # a traceback that shows locals must not show what was asked
        return await self._transport.send(operation)

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
    ) -> AsyncChatStream: ...

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
    ) -> AsyncChatStream: ...

    def stream_chat(
        self,
        message: str,
        *,
        conversation_id: str | None = None,
        context: StreamContext | Mapping[str, Any] | None = None,
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> AsyncChatStream:
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
            async for event in lexi.stream_chat("Summarize my pipeline"):
                match event:
                    case leadlex.TextDelta(delta):
                        print(delta, end="", flush=True)

        Source: `POST /v1/lexi/chat/stream`.
        """
        try:
            operation = endpoints.stream_chat(
                message,
                conversation_id=conversation_id,
                context=context,
                allow_tools=allow_tools,
                idempotency_key=idempotency_key,
                first_sent=first_sent,
                now=self._transport.clock.wall(),
            )
        finally:
            del message, context  # as in chat
        return AsyncChatStream(Reading(self._transport, operation))

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
    ) -> AsyncPager[ConversationSummary]:
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
            async for conversation in lexi.conversations(search="acme"):
                print(conversation.id, conversation.title)

        Source: `GET /v1/lexi/conversations`.
        """
        try:
            listing = endpoints.conversations(
                search=search,
                user_id=user_id,
                contact_id=contact_id,
                deal_id=deal_id,
                archived=archived,
                page=page,
                per_page=per_page,
            )
        finally:
            del search  # as in chat
        return AsyncPager(self._transport, listing, page)

    async def conversation(
        self,
        id: str,  # noqa: A002  # the contract's word
        *,
        include_tool_steps: bool = False,
        limit: int = 200,
    ) -> Conversation:
        """Return one conversation with its messages.

        Args:
            id: Its id.
            include_tool_steps: Whether the records of tools come too.
            limit: How many of the most recent messages, 1 to 1000; `may_have_more` tells whether as many came.

        Raises:
            NotFoundError: There is none of that id.

        Example:
            one = await lexi.conversation("conv_01HY1", limit=500)
            print(one.title, len(one.messages))

        Source: `GET /v1/lexi/conversations/{id}`.
        """
        operation = endpoints.conversation(id, include_tool_steps=include_tool_steps, limit=limit)
        return await self._transport.send(operation)

    async def tasks(self, *, status: TaskStatus = "pending") -> list[Task]:
        """Return all tasks of one status.

        Args:
            status: `pending`, `approved`, `dismissed`, `completed` or `failed`.

        Example:
            for task in await lexi.tasks():
                print(task.id, task.description)

        Source: `GET /v1/lexi/tasks`.
        """
        return await self._transport.send(endpoints.tasks(status=status))

    async def approve_task(self, id: str) -> TaskDecision:  # noqa: A002  # the contract's word
        """Let Lexi carry out a task; it may cost credits, and is not repeated once it may have reached the service.

        Args:
            id: The task, as in `reply.task_id`.

        Raises:
            BadRequestError: It is not pending.
            NotFoundError: There is none of that id.

        Example:
            reply = await lexi.chat("Find me 20 CEOs at law firms in New York")
            if reply.requires_approval and reply.task_id:
                await lexi.approve_task(reply.task_id)

        Source: `POST /v1/lexi/tasks/{id}/approve`.
        """
        return await self._transport.send(endpoints.approve_task(id))

    async def dismiss_task(self, id: str, *, reason: str | None = None) -> TaskDecision:  # noqa: A002  # the same
        """Dismiss a task for good.

        Args:
            id: The task.
            reason: Why; the service knows not_relevant, manual_execution, incorrect_params, duplicate and testing.

        Raises:
            BadRequestError: It is not pending.
            NotFoundError: There is none of that id.

        Example:
            for task in await lexi.tasks():
                await lexi.dismiss_task(task.id, reason="testing")

        Source: `POST /v1/lexi/tasks/{id}/dismiss`.
        """
        try:
            operation = endpoints.dismiss_task(id, reason=reason)
        finally:
            del reason  # as in chat
        return await self._transport.send(operation)

    async def wait_for_task(self, id: str, *, timeout: float = 300, poll_interval: float = 5) -> Task:  # noqa: A002, ASYNC109
        """Wait until a task is completed, failed or dismissed, and return it.

        Args:
            id: The task.
            timeout: How many seconds to wait at most.
            poll_interval: Seconds between two looks; it grows by half each time, up to 30.

        Raises:
            NotFoundError: Two looks in a row found it nowhere.
            APITimeoutError: It took longer; `clock` is `wait`.

        Example:
            reply = await lexi.chat("Find me 20 CEOs at law firms in New York")
            if reply.task_id:
                await lexi.approve_task(reply.task_id)
                task = await lexi.wait_for_task(reply.task_id, poll_interval=0.1)
                print(task.status)
        """
        return await wait_for_task(self._transport, id, timeout, poll_interval)

    def thread(
        self,
        conversation_id: str | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> AsyncThread:
        """Return a conversation that remembers its id from message to message.

        Args:
            conversation_id: The conversation to go on with; None begins a new one.
            context: Given with every message: to `chat` and to `stream_chat` what each of them takes, and keys of your
                own.

        Raises:
            ConfigurationError: An argument can't be used.

        Example:
            thread = lexi.thread()
            await thread.chat("Find me 20 CEOs at law firms in New York")
            await thread.chat("Filter to only New York")
        """
        try:
            return AsyncThread(self._transport, known_id(conversation_id), context)
        finally:
            del context  # as in chat

    async def request(
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
            raw = await lexi.request("GET", "/v1/lexi/tasks", params={"status": "completed"})
            print(raw.data)
        """
        try:
            operation = endpoints.request(method, path, json=json, params=params)
        finally:
            del json, params  # as in chat
        return await self._transport.send(operation)

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
            reply = await quick.chat("Summarize my pipeline")
        """
        try:
            settings = self._transport.settings.replaced(
                timeout=timeout, retries=retries, resume=resume, headers=headers
            )
        finally:
            del headers  # as in __init__
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)  # with what a user's subclass keeps there
        copy._transport = self._transport.replaced(settings)  # its own class
        copy._owner, copy._closing = False, []  # its own class
        return copy

    async def aclose(self) -> None:
        """Close all connections; running calls end with `ClientClosedError`. Closing twice is fine.

        Example:
            lexi = leadlex.AsyncLeadLex()
            await lexi.aclose()
        """
        if self._owner:
            await self._transport.connections.aclose()
            while self._closing:
                self._closing.pop()()

    @property
    def rate_limit(self) -> RateLimit | None:
        """Give the request quota as the service last told it."""
        return self._transport.seen.rate_limit

    @property
    def credits_remaining(self) -> int | None:
        """Give the workspace's AI credits as the service last told them."""
        return self._transport.seen.credits_remaining

"""A conversation that remembers its id.

Rule: a thread adds the id, leaves out of its context what the endpoint does not know, and nothing else; every call is
the client's.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from ._errors import StreamBusyError
from ._network.transport import Transport
from ._policy.transcript import Transcript
from ._protocol import endpoints
from ._protocol.arguments import own_part
from ._protocol.operation import Operation
from ._stream import AsyncChatStream, Reading
from ._values.models import ChatReply, Message


class AsyncThread:
    """One conversation with Lexi; a new one's id is learnt from the first reply.

    Args:
        transport: What sends.
        conversation_id: The conversation to go on with; None begins a new one.
        context: Given with every message: to `chat` and to `stream_chat` what each of them takes, and keys of your own.

    Raises:
        StreamBusyError: A second message before the first has told the new conversation's id.

    Example:
        thread = lexi.thread()
        await thread.chat("Find me 20 CEOs at law firms in New York")
        reply = await thread.chat("Filter to only New York")
        print(thread.conversation_id, len(await thread.history()))
    """

    def __init__(self, transport: Transport, conversation_id: str | None, context: Mapping[str, Any] | None) -> None:
        self._transport = transport
        self._conversation_id = conversation_id
        # A function, since a tool that reports the values of a line evaluates its attributes too.
        self._context: Callable[[], Mapping[str, Any] | None] = lambda: context
        self._calling = False
        self._first: weakref.ref[Reading] | None = None
        self._transcript: Transcript | None = None
        self._began_under = set[str | None]()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.conversation_id or 'not begun'}>"

    @property
    def conversation_id(self) -> str | None:
        """Give the conversation's id, once it is known."""
        if self._conversation_id is None and self._transcript is not None:
            self._conversation_id = self._transcript.told_id
        return self._conversation_id

    async def chat(self, message: str) -> ChatReply:
        """Ask, and wait for the whole answer; see the client's `chat`.

        Args:
            message: What to ask.

        Example:
            reply = await lexi.thread().chat("Summarize my pipeline")
        """
        try:
            operation = endpoints.chat(
                message, conversation_id=self._free_id(), context=own_part(self._context(), "chat")
            )
        finally:
            del message  # a traceback that shows locals must not show what was asked
        return await self._learn(operation)

    def stream_chat(
        self,
        message: str,
        *,
        allow_tools: bool = True,
        idempotency_key: str | UUID | None = None,
        first_sent: datetime | None = None,
    ) -> AsyncChatStream:
        """Ask, and iterate over the answer as it comes; see the client's `stream_chat`.

        Args:
            message: What to ask, at most 12,000 characters.
            allow_tools: Whether Lexi may use the CRM's tools.
            idempotency_key: A UUID; see the client's `stream_chat`.
            first_sent: When that key was first sent, an aware datetime; see the client's `stream_chat`.

        Example:
            async for event in lexi.thread().stream_chat("Summarize my pipeline"):
                print(event)
        """
        try:
            operation = endpoints.stream_chat(
                message,
                conversation_id=self._id_under(idempotency_key),
                context=own_part(self._context(), "stream_chat"),
                allow_tools=allow_tools,
                idempotency_key=idempotency_key,
                first_sent=first_sent,
                now=self._transport.clock.wall(),
            )
        finally:
            del message  # as in chat
        if operation.conversation_id is None:
            self._began_under.add(operation.idempotency_key)
        reading = Reading(self._transport, operation)
        # The transcript outlives the stream, which may be dropped before anybody asks for the id.
        self._first, self._transcript = weakref.ref(reading), reading.transcript
        return AsyncChatStream(reading)

    async def history(self, *, include_tool_steps: bool = False, limit: int = 1000) -> list[Message]:
        """Return the messages of the conversation; none before it has begun.

        Args:
            include_tool_steps: Whether the records of tools come with them.
            limit: How many of the most recent ones, 1 to 1000, which is all that the service gives.

        Example:
            messages = await lexi.thread("conv_01HY1").history(limit=50)
        """
        if self.conversation_id is None:
            return []
        operation = endpoints.conversation(self.conversation_id, include_tool_steps=include_tool_steps, limit=limit)
        conversation = await self._transport.send(operation)
        return list(conversation.messages)

    def _id_under(self, idempotency_key: str | UUID | None) -> str | None:
        """Return the id to ask with; none where the question that began the thread is asked again, as its body was."""
        known = self._free_id()
        return None if str(idempotency_key) in self._began_under else known

    def _free_id(self) -> str | None:
        """Return the id to go on with, or refuse to begin a second conversation beside the first."""
        known = self.conversation_id
        reading = None if self._first is None else self._first()
        under_way = reading is not None and not (reading.ended or reading.closed)
        if known is None and (self._calling or under_way):
            raise StreamBusyError("This thread, whose conversation has no id yet,")
        return known

    async def _learn(self, operation: Operation[ChatReply]) -> ChatReply:
        self._calling = True
        try:
            reply = await self._transport.send(operation)
        finally:
            self._calling = False
        self._conversation_id = reply.conversation_id or self._conversation_id
        return reply

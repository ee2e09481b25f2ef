"""The API's nouns, as frozen values with the contract's field names.

Rule: what an answer can do without has a default, which stands for what is absent or can't be read; what the contract
does not name is in `extra`, and so is, as sent, what could not be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar

from attrs import field, frozen

from .events import ToolStep
from .markdown import harmless, in_line, quoted
from .metadata import NO_ANSWER, Meta, meta_field
from .plain import Value, extra_field

T = TypeVar("T")

_EPOCH = datetime.fromtimestamp(0, UTC)


@frozen(kw_only=True)
class ChatReply(Value):
    """What Lexi answered, whole or (in an error's `partial`) as far as it came.

    Args:
        response: The text of the reply.
        conversation_id: The conversation, to be given with the next message; None where the answer did not tell.
        task_id: The task that waits for a human, if there is one; a stream can't tell.
        requires_approval: True when nothing happens until the task is approved; None where not known (a stream).
        message_id: The id of Lexi's message, known after a stream.
        credits_remaining: The workspace's AI credits, where the answer told.
        thinking: The reasoning steps of a stream.
        tool_steps: The tool steps of a stream.
        meta: How the answer arrived.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    response: str
    conversation_id: str | None = None
    task_id: str | None = None
    requires_approval: bool | None = None
    message_id: str | None = None
    credits_remaining: int | None = None
    thinking: tuple[str, ...] = ()
    tool_steps: tuple[ToolStep, ...] = ()
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()

    def _repr_markdown_(self) -> str:
        return harmless(self.response)


@frozen(kw_only=True)
class EntityContext(Value):
    """The CRM records that a conversation is about.

    Args:
        contact_id: A contact.
        deal_id: A deal.
        matter_id: A matter.
        page: A page of the CRM.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    contact_id: str | None = None
    deal_id: str | None = None
    matter_id: str | None = None
    page: str | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class ConversationSummary(Value):
    """One conversation in a listing.

    Args:
        id: Its id.
        title: Its title.
        message_count: How many messages it has.
        last_message_at: When the last message was written.
        context: The CRM records it is about.
        archived: Whether it is archived.
        created_at: When it began.
        meta: How the page that carried it arrived.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    id: str
    title: str | None = None
    message_count: int | None = None
    last_message_at: datetime | None = None
    context: EntityContext = EntityContext()
    archived: bool = False
    created_at: datetime | None = None
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class Message(Value):
    """One message of a conversation.

    Args:
        id: Its id.
        role: `user` or `assistant`; others may come.
        content: Its text.
        tool_calls: The tools that Lexi called in it.
        tool_name: The tool, in a tool's record.
        tool_output: What the tool gave, in a tool's record.
        created_at: When it was written.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    id: str
    role: str | None = None
    content: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    tool_name: str | None = None
    tool_output: Mapping[str, Any] | None = field(default=None, hash=False)
    created_at: datetime | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class Conversation(Value):
    """One conversation with its messages, in the order in which the service sent them.

    Args:
        id: Its id.
        messages: Its messages.
        title: Its title.
        context: The CRM records it is about.
        archived: Whether it is archived.
        created_at: When it began.
        may_have_more: Whether as many messages came as were asked for (`limit`), and so earlier ones may be missing;
            None where it came from no answer. It takes no part in equality.
        meta: How the answer arrived.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    id: str
    messages: tuple[Message, ...]
    title: str | None = None
    context: EntityContext = EntityContext()
    archived: bool = False
    created_at: datetime | None = None
    may_have_more: bool | None = field(default=None, eq=False, repr=False)
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()

    def to_markdown(self) -> str:
        """Return the conversation as Markdown, the oldest message first, each quoted under who wrote it and when.

        Example:
            conversation = lexi.conversation("conv_01HY1")
            print(conversation.to_markdown())
        """
        begun = f", begun {_utc(self.created_at)}" if self.created_at else ""
        # The service says "most recent first" and shows oldest first, so a transcript sorts.
        oldest_first = sorted(self.messages, key=lambda message: message.created_at or _EPOCH)
        head = [f"# {in_line(self.title or self.id)}", f"Conversation {in_line(self.id)}{begun}"]
        return "\n\n".join([*head, *(_turn(message) for message in oldest_first)]) + "\n"

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


_NAMES: Final = {"user": "You", "assistant": "Lexi"}


def _turn(message: Message) -> str:
    role = message.role or ""
    name = message.tool_name or _NAMES.get(role, role) or "?"
    moment = f" · {_utc(message.created_at)}" if message.created_at else ""
    content = message.content
    if not content and message.tool_output is not None:
        content = json.dumps(message.tool_output, ensure_ascii=False, indent=2)
    return f"## {in_line(name)}{moment}\n\n{quoted(content)}"


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


TaskStatus = Literal["pending", "approved", "dismissed", "completed", "failed"]
"""The statuses by which tasks are listed."""


@frozen(kw_only=True)
class Task(Value):
    """Work that Lexi proposed and that a human approves or dismisses.

    Args:
        id: Its id.
        status: `pending`, `approved`, `dismissed`, `completed` or `failed`; others may come.
        type: For example `prospect_search`; others may come.
        description: What would be done.
        created_at: When Lexi proposed it.
        metadata: Details that depend on the type.
        meta: How the answer arrived.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    id: str
    status: str
    type: str | None = None
    description: str = ""
    created_at: datetime | None = None
    metadata: Mapping[str, Any] = field(factory=dict[str, Any], hash=False)
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class TaskDecision(Value):
    """What became of a task that was approved or dismissed.

    Args:
        task_id: The task; the one that was asked for, where the answer did not tell.
        status: `approved` or `dismissed`.
        execution_started: Whether an approved task has begun to run.
        meta: How the answer arrived.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    task_id: str = ""
    status: str | None = None
    execution_started: bool | None = None
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class Page(Value, Generic[T]):
    """One page of a listing.

    Args:
        items: What the page carried, each id once in a listing.
        page: Its number, from 1.
        per_page: How many items the service puts on a page.
        total: How many items the service says there are; a hint, it may change between pages.
        meta: How the page arrived.
        extra: What the service told of the page beyond the contract, and what could not be read, as sent.
    """

    items: tuple[T, ...]
    page: int
    per_page: int | None = None
    total: int | None = None
    meta: Meta = meta_field()
    extra: Mapping[str, Any] = extra_field()


@frozen(kw_only=True)
class Paging(Value):
    """What a listing tells of a page, all of it hints."""

    page: int | None = None
    per_page: int | None = None
    total: int | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen
class RawReply(Value):
    """The answer of an endpoint that leadlex has no method for.

    Args:
        data: The JSON of the body, whole and unchecked; None for an empty one.
        meta: How the answer arrived.
    """

    data: Any = None
    meta: Meta = field(default=NO_ANSWER, eq=False)

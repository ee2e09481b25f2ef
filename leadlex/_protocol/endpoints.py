"""One pure function per endpoint, from arguments to an `Operation`.

Rule: every path of the API is in this file and nowhere else; nothing is sent.

Source: the service's pages on Lexi (chat, stream, conversations, tasks); `lexi.openapi.yaml` in the sandbox.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from attrs import evolve

from leadlex._config import whole
from leadlex._errors import ConfigurationError, discreet, refuse
from leadlex._values.metadata import Meta
from leadlex._values.models import (
    ChatReply,
    Conversation,
    ConversationSummary,
    Page,
    Paging,
    RawReply,
    Task,
    TaskDecision,
)
from leadlex._values.structure import field_of, structure, structure_side

from .arguments import (
    MAX_MESSAGES,
    MAX_PAGE,
    MAX_PER_PAGE,
    MAX_STREAM_MESSAGE,
    METHODS,
    body_of,
    boolean_of,
    context_of,
    conversation_of,
    first_sent_of,
    id_of,
    idempotency_key_of,
    message_of,
    path_of,
    query_of,
    segment_of,
    shown,
    text_of,
)
from .operation import KEY_LIFE, Operation

T = TypeVar("T")

CHAT: Final = "/v1/lexi/chat"

STREAM_CHAT: Final = "/v1/lexi/chat/stream"

CONVERSATIONS: Final = "/v1/lexi/conversations"

TASKS: Final = "/v1/lexi/tasks"

_WITHOUT_ID: Final = (CHAT, STREAM_CHAT, CONVERSATIONS, TASKS)


@discreet
def chat(message: object, *, conversation_id: object, context: object) -> Operation[ChatReply]:
    """Describe `POST /v1/lexi/chat`."""
    text = message_of(message)
    entries = context_of(context, "chat")
    continued = conversation_of(conversation_id, entries)
    if continued is not None:
        entries = {**entries, "conversation_id": continued}
    return Operation(
        name="chat",
        method="POST",
        path=CHAT,
        read=_read_reply,
        body=body_of({"message": text, **({"context": entries} if entries else {})}, "context"),
        repeat="once",
        costs=True,
        permission="lexi",
        conversation_id=continued,
        is_fixed=True,
        names_something=continued is not None,
        look=f"Before asking again, look for the question in {_place_of(continued)}.",
    )


def _place_of(conversation_id: str | None) -> str:
    """Name where a question stands that reached the service."""
    known = conversation_id is not None
    return f"lexi.conversation({conversation_id!r})" if known else "the latest of lexi.conversations()"


@discreet
def stream_chat(
    message: object,
    *,
    conversation_id: object,
    context: object,
    allow_tools: object,
    idempotency_key: object,
    first_sent: object,
    now: float,
) -> Operation[None]:
    """Describe `POST /v1/lexi/chat/stream`."""
    text = message_of(message, MAX_STREAM_MESSAGE)
    entries = context_of(context, "stream_chat")
    continued = conversation_of(conversation_id, entries)
    key = new_idempotency_key() if idempotency_key is None else idempotency_key_of(idempotency_key)
    sent = None if first_sent is None else first_sent_of(first_sent, idempotency_key, now)
    fields = {
        "message": text,
        "conversation_id": continued,
        "context": {name: value for name, value in entries.items() if name != "conversation_id"},
        "allow_tools": boolean_of(allow_tools, "allow_tools"),
    }
    operation = Operation(
        name="stream_chat",
        method="POST",
        path=STREAM_CHAT,
        read=_read_nothing,
        body=body_of({name: value for name, value in fields.items() if value not in (None, {})}, "context"),
        repeat="keyed",
        costs=True,
        permission="write:ai",
        idempotency_key=key,
        first_sent=sent,
        conversation_id=continued,
        streams=True,
        is_fixed=True,
        names_something=continued is not None,
    )
    check_key_life(operation, now)
    return operation


def new_idempotency_key() -> str:
    """Make the idempotency key of one logical call."""
    return str(uuid.uuid4())


def check_key_life(operation: Operation[Any], now: float) -> None:
    """Refuse to send an idempotency key again that the service may have forgotten, since that would cost again.

    Raises:
        ConfigurationError: It was first sent more than 23 hours ago.
    """
    sent = operation.first_sent
    if sent is None or now - sent.timestamp() <= KEY_LIFE:
        return
    raise ConfigurationError(
        f"first_sent is more than 23 hours ago ({sent.isoformat()}), and LeadLex knows an idempotency key for 24 "
        "hours: asked again, the question could be charged again. Look for its answer in "
        f"{_place_of(operation.conversation_id)}; to ask anew, at a new charge, leave out idempotency_key and "
        "first_sent.",
        {"idempotency_key": operation.idempotency_key, "first_sent": sent.isoformat()},
    )


@discreet
def conversations(
    *,
    search: object,
    user_id: object,
    contact_id: object,
    deal_id: object,
    archived: object,
    page: object,
    per_page: object,
) -> Operation[Page[ConversationSummary]]:
    """Describe `GET /v1/lexi/conversations`."""
    texts = {"search": search, "user_id": user_id, "contact_id": contact_id, "deal_id": deal_id}
    given = {name: text_of(value, name) for name, value in texts.items() if value is not None}
    if boolean_of(archived, "archived"):
        given["archived"] = "true"
    given["per_page"] = str(whole(per_page, "per_page", 1, MAX_PER_PAGE))
    first = Operation(
        name="conversations",
        method="GET",
        path=CONVERSATIONS,
        read=_read_page(whole(page, "page", 1, MAX_PAGE)),
        query=urlencode(given),
        permission="read:ai",
    )
    return at_page(first, whole(page, "page", 1, MAX_PAGE))


def at_page(listing: Operation[Page[T]], page: int) -> Operation[Page[T]]:
    """Describe another page of the same listing."""
    query = re.sub(r"(^|&)page=\d+", "", listing.query)
    return evolve(listing, query=f"{query}&page={page}", read=_read_page(page))  # type: ignore[arg-type]  # the same T


def conversation(id: object, *, include_tool_steps: object, limit: object) -> Operation[Conversation]:  # noqa: A002  # API
    """Describe `GET /v1/lexi/conversations/{id}`."""
    most = whole(limit, "limit", 1, MAX_MESSAGES)
    given = {"limit": str(most)}
    if boolean_of(include_tool_steps, "include_tool_steps"):
        given["include_tool_steps"] = "true"
    return Operation(
        name="conversation",
        method="GET",
        path=f"{CONVERSATIONS}/{segment_of(id)}",
        read=_read_conversation(most),
        names_something=True,
        query=urlencode(given),
        permission="read:ai",
    )


@discreet
def tasks(*, status: object) -> Operation[list[Task]]:
    """Describe `GET /v1/lexi/tasks`."""
    return Operation(
        name="tasks",
        method="GET",
        path=TASKS,
        read=_read_tasks,
        query=urlencode({"status": text_of(status, "status")}),
        permission="lexi",
    )


def approve_task(id: object) -> Operation[TaskDecision]:  # noqa: A002  # API
    """Describe `POST /v1/lexi/tasks/{id}/approve`; what it starts may cost credits."""
    return Operation(
        name="approve_task",
        method="POST",
        path=f"{TASKS}/{segment_of(id)}/approve",
        read=_read_decision(id_of(id)),
        names_something=True,
        repeat="once",
        costs=True,
        permission="lexi",
        look="Before approving it again, look whether lexi.tasks(status='pending') still has the task.",
    )


@discreet
def dismiss_task(id: object, *, reason: object) -> Operation[TaskDecision]:  # noqa: A002  # API
    """Describe `POST /v1/lexi/tasks/{id}/dismiss`."""
    return Operation(
        name="dismiss_task",
        method="POST",
        path=f"{TASKS}/{segment_of(id)}/dismiss",
        read=_read_decision(id_of(id)),
        names_something=True,
        body=body_of({} if reason is None else {"reason": text_of(reason, "reason")}, "reason"),
        repeat="once",
        permission="lexi",
    )


@discreet
def request(method: object, path: object, *, json: object, params: object) -> Operation[RawReply]:
    """Describe any other endpoint."""
    if not isinstance(method, str) or method.upper() not in METHODS:
        refuse("method", f"one of {', '.join(sorted(METHODS))}", shown(method))
    plain_path = path_of(path)
    return Operation(
        name="request",
        method=method.upper(),
        path=plain_path,
        read=RawReply,
        query=query_of(params),
        body=None if json is None else body_of(json, "json"),
        repeat="free" if method.upper() == "GET" else "once",
        costs=method.upper() != "GET",
        empty=True,
        names_something=plain_path not in _WITHOUT_ID,
    )


def _reader(kind: type[T]) -> Callable[[Any, Meta], T]:
    def read(answer: Any, meta: Meta) -> T:  # noqa: ANN401  # JSON
        return _carrying(meta, structure(kind, field_of(answer, "data")))

    return read


def _carrying(meta: Meta, value: T) -> T:
    """Write how it arrived on a value that nobody has seen yet; a copy of each row would be a tenth of a listing."""
    object.__setattr__(value, "meta", meta)
    return value


_read_reply: Final = _reader(ChatReply)

_read_any_conversation: Final = _reader(Conversation)


def _read_conversation(limit: int) -> Callable[[Any, Meta], Conversation]:
    def read(answer: Any, meta: Meta) -> Conversation:  # noqa: ANN401  # JSON
        conversation = _read_any_conversation(answer, meta)
        return evolve(conversation, may_have_more=len(conversation.messages) >= limit)

    return read


_read_any_decision: Final = _reader(TaskDecision)


def _read_decision(task_id: str) -> Callable[[Any, Meta], TaskDecision]:
    def read(answer: Any, meta: Meta) -> TaskDecision:  # noqa: ANN401  # JSON
        decision = _read_any_decision(answer, meta)
        return decision if decision.task_id else evolve(decision, task_id=task_id)

    return read


def _read_nothing(_: Any, __: Meta) -> None:  # noqa: ANN401  # JSON
    """Stand where an answer is a stream, which is read event by event."""


def _read_tasks(answer: Any, meta: Meta) -> list[Task]:  # noqa: ANN401  # JSON
    items = field_of(field_of(answer, "data"), "tasks")
    return [_carrying(meta, task) for task in structure(tuple[Task, ...], items, "data.tasks")]


def _read_page(number: int) -> Callable[[Any, Meta], Page[ConversationSummary]]:
    def read(answer: Any, meta: Meta) -> Page[ConversationSummary]:  # noqa: ANN401  # JSON
        items = field_of(field_of(answer, "data"), "conversations")
        rows = structure(tuple[ConversationSummary, ...], items, "data.conversations")
        hints = structure_side(Paging, answer.get("meta"), "meta")
        return Page(
            items=tuple(_carrying(meta, row) for row in rows),
            page=number,
            per_page=hints.per_page,
            total=hints.total,
            meta=meta,
            extra=hints.extra,
        )

    return read

"""The waist of the hourglass: one pure function per endpoint, from arguments to an `Operation`.

Rule: every path of the API is in this file and nowhere else, and so is the check of every argument; nothing is sent.

Source: the service's pages on Lexi (chat, stream, conversations, tasks); `lexi.openapi.yaml` in the sandbox.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import quote, urlencode

from attrs import evolve, field, frozen

from ._config import whole
from ._errors import ConfigurationError, discreet, refuse
from ._meta import Meta
from ._models import (
    ChatReply,
    Conversation,
    ConversationSummary,
    Page,
    Paging,
    RawReply,
    Task,
    TaskDecision,
)
from ._wire import WireError, dumps, field_of, structure, structure_side

T = TypeVar("T")

Repeat = Literal["free", "once", "keyed"]
"""What may be repeated: `free` (a GET), `once` (it may act or cost twice), `keyed` (the service knows a repetition)."""

Permission = Literal["lexi", "write:ai", "read:ai"]

CHAT: Final = "/v1/lexi/chat"
STREAM_CHAT: Final = "/v1/lexi/chat/stream"
CONVERSATIONS: Final = "/v1/lexi/conversations"
TASKS: Final = "/v1/lexi/tasks"

MAX_STREAM_MESSAGE: Final = 12_000
MAX_PER_PAGE: Final = 100
MAX_MESSAGES: Final = 1000
MAX_PAGE: Final = 1 << 53
MAX_ID: Final = 1024
MAX_BODY: Final = 8 << 20

KEY_LIFE: Final = 23 * 3600.0
"""Seconds after its first use in which an idempotency key may be sent again; the service keeps it for 24 hours."""

CLOCK_SKEW: Final = 60.0
"""Seconds that another machine's clock may be ahead of this one's."""


@frozen(kw_only=True, eq=False, repr=False)
class Operation(Generic[T]):
    """Say what one call of the API is.

    What was asked is no part of a field's repr: tools that show locals look at the fields, whatever the class says.

    Args:
        name: What it is called in logs.
        method: The HTTP method.
        path: The path under the base URL, percent-encoded.
        read: Makes the value of the answer's JSON and `Meta`.
        query: The query, percent-encoded.
        body: The JSON body; the same bytes are sent in every attempt.
        repeat: Whether an attempt may be repeated.
        costs: Whether it may cost credits.
        permission: What the key must be allowed to do, where that is known.
        idempotency_key: Sent with a keyed operation, the same in every attempt.
        first_sent: When that key was first sent, where that was in an earlier call.
        conversation_id: The conversation that it continues, if any.
        look: How a person finds out whether it was done, where its answer was lost.
        streams: Whether the answer is a stream.
        empty: Whether an answer without a body is one.
    """

    name: str
    method: str
    path: str = field(repr=False)
    read: Callable[[Any, Meta], T]
    query: str = field(default="", repr=False)
    body: bytes | None = field(default=None, repr=False)
    repeat: Repeat = "free"
    costs: bool = False
    permission: Permission | None = None
    idempotency_key: str | None = None
    first_sent: datetime | None = None
    conversation_id: str | None = None
    look: str | None = None
    streams: bool = False
    empty: bool = False

    @property
    def is_fixed(self) -> bool:
        """Tell whether the target is the same in every call."""
        return self.path in (CHAT, STREAM_CHAT) and not self.query

    @property
    def names_something(self) -> bool:
        """Tell whether it has an id that may be unknown to the service."""
        return self.conversation_id is not None or self.path not in _WITHOUT_ID

    @property
    def target(self) -> str:
        """Give what follows the base URL."""
        return f"{self.path}?{self.query}" if self.query else self.path


_WITHOUT_ID: Final = (CHAT, STREAM_CHAT, CONVERSATIONS, TASKS)

# Endpoints -------------------------------------------------------------------------------------------------------


@discreet
def chat(message: object, *, conversation_id: object, context: object) -> Operation[ChatReply]:
    """Describe `POST /v1/lexi/chat`."""
    text = _message(message)
    entries = _context(context)
    continued = _one_conversation(conversation_id, entries)
    if continued is not None:
        entries = {**entries, "conversation_id": continued}
    return Operation(
        name="chat",
        method="POST",
        path=CHAT,
        read=_read_reply,
        body=_body({"message": text, **({"context": entries} if entries else {})}, "context"),
        repeat="once",
        costs=True,
        permission="lexi",
        conversation_id=continued,
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
    text = _message(message, MAX_STREAM_MESSAGE)
    entries = _context(context)
    continued = _one_conversation(conversation_id, entries)
    key = new_idempotency_key() if idempotency_key is None else _idempotency_key(idempotency_key)
    sent = None if first_sent is None else _first_sent(first_sent, idempotency_key, now)
    fields = {
        "message": text,
        "conversation_id": continued,
        "context": {name: value for name, value in entries.items() if name != "conversation_id"},
        "allow_tools": _flag(allow_tools, "allow_tools"),
    }
    operation = Operation(
        name="stream_chat",
        method="POST",
        path=STREAM_CHAT,
        read=_read_nothing,
        body=_body({name: value for name, value in fields.items() if value not in (None, {})}, "context"),
        repeat="keyed",
        costs=True,
        permission="write:ai",
        idempotency_key=key,
        first_sent=sent,
        conversation_id=continued,
        streams=True,
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
    given = {name: _text(value, name) for name, value in texts.items() if value is not None}
    if _flag(archived, "archived"):
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
    given = {"limit": str(whole(limit, "limit", 1, MAX_MESSAGES))}
    if _flag(include_tool_steps, "include_tool_steps"):
        given["include_tool_steps"] = "true"
    return Operation(
        name="conversation",
        method="GET",
        path=f"{CONVERSATIONS}/{_segment(id)}",
        read=_reader(Conversation),
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
        query=urlencode({"status": _text(status, "status")}),
        permission="lexi",
    )


def approve_task(id: object) -> Operation[TaskDecision]:  # noqa: A002  # API
    """Describe `POST /v1/lexi/tasks/{id}/approve`; what it starts may cost credits."""
    return Operation(
        name="approve_task",
        method="POST",
        path=f"{TASKS}/{_segment(id)}/approve",
        read=_read_decision(id_of(id)),
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
        path=f"{TASKS}/{_segment(id)}/dismiss",
        read=_read_decision(id_of(id)),
        body=_body({} if reason is None else {"reason": _text(reason, "reason")}, "reason"),
        repeat="once",
        permission="lexi",
    )


_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$'()*,;:@%-]+)+/?")


@discreet
def request(method: object, path: object, *, json: object, params: object) -> Operation[RawReply]:
    """Describe any other endpoint."""
    if not isinstance(method, str) or method.upper() not in _METHODS:
        refuse("method", f"one of {', '.join(sorted(_METHODS))}", _given(method))
    return Operation(
        name="request",
        method=method.upper(),
        path=_plain_path(path),
        read=RawReply,
        query=_query(params),
        body=None if json is None else _body(json, "json"),
        repeat="free" if method.upper() == "GET" else "once",
        costs=method.upper() != "GET",
        empty=True,
    )


# Answers ---------------------------------------------------------------------------------------------------------


def _reader(kind: type[T]) -> Callable[[Any, Meta], T]:
    def read(answer: Any, meta: Meta) -> T:  # noqa: ANN401  # JSON
        return _carrying(meta, structure(kind, field_of(answer, "data")))

    return read


def _carrying(meta: Meta, value: T) -> T:
    """Write how it arrived on a value that nobody has seen yet; a copy of each row would be a tenth of a listing."""
    object.__setattr__(value, "meta", meta)
    return value


_read_reply: Final = _reader(ChatReply)
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


# Arguments -------------------------------------------------------------------------------------------------------


def _message(value: object, limit: int | None = None) -> str:
    if not isinstance(value, str):
        refuse("message", "a str", type(value).__name__)
    if not value.strip():
        refuse("message", "more than white space", f"{len(value)} characters of it")
    if limit is not None and len(value) > limit:
        refuse("message", f"at most {limit} characters", f"{len(value)} characters")
    _check_text(value, "message")
    return value


def _text(value: object, argument: str) -> str:
    if not isinstance(value, str):
        refuse(argument, "a str", type(value).__name__)
    _check_text(value, argument)
    return value


def _check_text(value: str, argument: str) -> None:
    # Asked first and refused after: a UnicodeEncodeError that hung on as the context would have the whole text in it.
    if not _is_unicode(value):
        refuse(argument, "text that UTF-8 can carry", "a lone surrogate")


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _flag(value: object, argument: str) -> bool:
    if not isinstance(value, bool):
        refuse(argument, "True or False", type(value).__name__)
    return value


def _segment(value: object, argument: str = "id") -> str:
    """Encode an id so that it can't leave its place in a path (RFC 3986, 2.3 and 3.3)."""
    return quote(id_of(value, argument), safe="")


def known_id(value: object) -> str | None:
    """Check a conversation's id that may be left out."""
    return None if value is None else id_of(value, "conversation_id")


def id_of(value: object, argument: str = "id") -> str:
    """Check an id."""
    if not isinstance(value, str):
        refuse(argument, "a str", type(value).__name__)
    if value in ("", ".", "..") or not value.strip():
        refuse(argument, "an id", repr(value[:20]))
    if len(value) > MAX_ID:
        refuse(argument, f"at most {MAX_ID} characters", f"{len(value)} characters")
    _check_text(value, argument)
    if not value.isprintable():
        refuse(argument, "without control characters", "one with some")
    return value


def _one_conversation(argument: object, context: Mapping[str, Any]) -> str | None:
    in_context = context.get("conversation_id")
    ids = {id_of(value, "conversation_id") for value in (argument, in_context) if value is not None}
    if len(ids) > 1:
        refuse("conversation_id", "the same as context['conversation_id']", "two different ones")
    return ids.pop() if ids else None


def _context(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        refuse("context", "a mapping with str keys", type(value).__name__)
    return {name: item for name, item in value.items() if item is not None}


def _body(value: object, argument: str) -> bytes:
    body = _json(value)
    if isinstance(body, WireError):
        refuse(argument, "something that JSON can hold", str(body))
    if len(body) > MAX_BODY:
        refuse("the request", f"at most {MAX_BODY} bytes of JSON", f"{len(body)} bytes")
    return body


def _json(value: object) -> bytes | WireError:
    try:
        return dumps(value)
    except WireError as error:
        return WireError(*error.args)


def _idempotency_key(value: object) -> str:
    if not isinstance(value, str):
        refuse("idempotency_key", "a UUID as str", type(value).__name__)
    if not _UUID.fullmatch(value):
        refuse("idempotency_key", "a UUID", f"{len(value)} characters that are none")
    return value


def _first_sent(value: object, idempotency_key: object, now: float) -> datetime:
    if not isinstance(value, datetime):
        refuse("first_sent", "an aware datetime", type(value).__name__)
    if value.tzinfo is None or value.utcoffset() is None:
        refuse("first_sent", "an aware datetime", "a naive one, which could be of any time zone")
    if idempotency_key is None:
        refuse("first_sent", "given with the idempotency_key that was first sent then", "no idempotency_key")
    if value.timestamp() > now + CLOCK_SKEW:
        refuse("first_sent", "in the past", f"{value.isoformat()}, which is in the future")
    return datetime.fromtimestamp(max(0.0, value.timestamp()), UTC)


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _plain_path(value: object) -> str:
    if not isinstance(value, str):
        refuse("path", "a str", type(value).__name__)
    segments = re.sub("%2e", ".", value, flags=re.IGNORECASE).split("/")
    if not _PLAIN_PATH.fullmatch(value) or {".", ".."} & set(segments):
        refuse("path", "an absolute path under the base URL, percent-encoded, without query", repr(value[:80]))
    return value


def _query(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        refuse("params", "a mapping", type(value).__name__)
    return urlencode({_text(name, "params"): _scalar(item) for name, item in value.items() if item is not None})


_HUGE: Final = 1e300
"""More than any number is; a whole one of 5,000 digits can't even be written (CVE-2020-10735)."""


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        refuse("params", "a mapping to str, int, float or bool", type(value).__name__)
    if not isinstance(value, str) and not abs(value) < _HUGE:
        refuse("params", "made of numbers that a URL can carry", "a huge one, or none")
    return _text(str(value), "params")


def _given(value: object) -> str:
    return repr(value[:20]) if isinstance(value, str) else type(value).__name__

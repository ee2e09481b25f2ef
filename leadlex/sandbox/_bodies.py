"""Reading what a request says, or refusing it with 400 and the reason."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from starlette.requests import Request

from ._replies import refuse

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
LONGEST_STREAM_MESSAGE = 12_000
CHAT_CONTEXT = ("list_id", "campaign_id", "conversation_id")
STREAM_CONTEXT = ("contact_id", "deal_id", "matter_id", "company_id", "page")


class Question(NamedTuple):
    """What chat and the stream have in common."""

    message: str
    conversation_id: str | None
    context: dict[str, str]
    allow_tools: bool = True


def chat_question(body: Mapping[str, Any]) -> Question:
    """Read the body of chat."""
    message, context = _message(body), _context(body, CHAT_CONTEXT)
    return Question(message, context.pop("conversation_id", None), context)


def stream_question(body: Mapping[str, Any]) -> Question:
    """Read the body of the stream."""
    message = _message(body)
    if len(message) > LONGEST_STREAM_MESSAGE:
        refuse(f"message may have {LONGEST_STREAM_MESSAGE} characters")
    allow_tools = body.get("allow_tools", True)
    if not isinstance(allow_tools, bool):
        refuse("allow_tools must be true or false")
    conversation_id = None if body.get("conversation_id") is None else _text(body, "conversation_id")
    return Question(message, conversation_id, _context(body, STREAM_CONTEXT), allow_tools)


def reason(body: Mapping[str, Any]) -> str | None:
    """Read the body of a dismissal."""
    return _text(body, "reason") if "reason" in body else None


async def json_object(request: Request) -> dict[str, Any]:
    """Read the body, which must be a JSON object of whole Unicode."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        refuse("Content-Type must be application/json")
    try:
        body: Any = json.loads(await request.body())
        json.dumps(body, ensure_ascii=False).encode()  # fails on half a surrogate pair, as SQLite would
    except (ValueError, RecursionError):
        refuse("the body is not JSON")
    if not isinstance(body, dict):
        refuse("the body must be a JSON object")
    return cast("dict[str, Any]", body)


def idempotency_key(request: Request) -> str | None:
    """Read the header, which must be a UUID."""
    key = request.headers.get("idempotency-key")
    if key is not None and not UUID.fullmatch(key):
        refuse("Idempotency-Key must be a UUID")
    return key


def number(request: Request, name: str, default: int, *, largest: int = 10**99) -> int:
    """Read a whole number from 1 on out of the query."""
    text = request.query_params.get(name, str(default))
    if not re.fullmatch(r"[0-9]{1,99}", text) or not 1 <= int(text) <= largest:
        refuse(f"{name} must be a whole number from 1 to {largest}")
    return int(text)


def flag(request: Request, name: str) -> bool:
    """Read true or false out of the query."""
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        refuse(f"{name} must be true or false")
    return text == "true"


def _message(body: Mapping[str, Any]) -> str:
    return _text({"message": "", **body}, "message") or refuse("message is required")


def _context(body: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, str]:
    """Read the known names of the context, which may also be null."""
    context: Any = body.get("context")
    if not isinstance(context, dict | None):
        refuse("context must be an object")
    known = cast("dict[str, Any]", context or {})
    return {name: _text(known, name) for name in names if name in known}


def _text(body: Mapping[str, Any], name: str) -> str:
    text = body[name]
    if not isinstance(text, str):
        refuse(f"{name} must be a string")
    return text

"""The checks of what people give to a call.

Rule: an argument is refused with its name, its limit and what was given, and never with a message's text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode
from uuid import UUID

from leadlex._errors import printable, refuse
from leadlex._values.contexts import ChatContext, StreamContext
from leadlex._values.plain import WireError

from .json_text import dumps, misfit

MAX_STREAM_MESSAGE: Final = 12_000

MAX_PER_PAGE: Final = 100

MAX_MESSAGES: Final = 1000

MAX_PAGE: Final = 1 << 53

MAX_ID: Final = 1024

MAX_BODY: Final = 8 << 20

CLOCK_SKEW: Final = 60.0
"""Seconds that another machine's clock may be ahead of this one's."""

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$'()*,;:@%-]+)+/?")


def message_of(value: object, limit: int | None = None) -> str:
    if not isinstance(value, str):
        refuse("message", "a str", type(value).__name__)
    if not value.strip():
        refuse("message", "more than white space", f"{len(value)} characters of it")
    if limit is not None and len(value) > limit:
        refuse("message", f"at most {limit} characters", f"{len(value)} characters")
    _check_text(value, "message")
    return value


def text_of(value: object, argument: str) -> str:
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


def boolean_of(value: object, argument: str) -> bool:
    if not isinstance(value, bool):
        refuse(argument, "True or False", type(value).__name__)
    return value


def segment_of(value: object, argument: str = "id") -> str:
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


def conversation_of(argument: object, context: Mapping[str, Any]) -> str | None:
    in_context = context.get("conversation_id")
    ids = {id_of(value, "conversation_id") for value in (argument, in_context) if value is not None}
    if len(ids) > 1:
        refuse("conversation_id", "the same as context['conversation_id']", "two different ones")
    return ids.pop() if ids else None


def context_of(value: object, endpoint: str) -> dict[str, Any]:
    """Check the context of an endpoint: a key that only the other one knows would be passed over without a word."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        refuse("context", "a mapping with str keys", type(value).__name__)
    entries = {name: item for name, item in value.items() if item is not None}
    foreign = [name for name in entries if name in _FOREIGN[endpoint]]
    if foreign:
        known = ", ".join(_CONTEXTS[endpoint].__annotations__)
        refuse("context", f"made of what {endpoint} takes ({known}) or of keys of your own", ", ".join(foreign))
    return entries


_CONTEXTS: Final = {"chat": ChatContext, "stream_chat": StreamContext}

_KNOWN: Final = {name for kind in _CONTEXTS.values() for name in kind.__annotations__}

_FOREIGN: Final = {
    endpoint: _KNOWN - kind.__annotations__.keys() - {"conversation_id"} for endpoint, kind in _CONTEXTS.items()
}


def own_part(context: object, endpoint: str) -> object:
    """Leave out of a context for both endpoints what only the other one knows."""
    if not isinstance(context, Mapping):
        return context
    return {name: item for name, item in context.items() if name not in _FOREIGN[endpoint]}


def body_of(value: object, argument: str) -> bytes:
    body = _json(value)
    if isinstance(body, WireError):
        where, found = misfit(value) or ("", str(body))
        # What the body has by the argument's name is the argument.
        place = argument + printable(where.removeprefix(f"[{argument!r}]"), 100)
        refuse(place, "something that JSON can hold: a str (as ids are), a number, a list or a mapping", found)
    if len(body) > MAX_BODY:
        refuse("the request", f"at most {MAX_BODY} bytes of JSON", f"{len(body)} bytes")
    return body


def _json(value: object) -> bytes | WireError:
    try:
        return dumps(value)
    except WireError as error:
        return WireError(*error.args)


def idempotency_key_of(value: object) -> str:
    value = str(value) if isinstance(value, UUID) else value
    if not isinstance(value, str):
        refuse("idempotency_key", "a UUID, as str or as it is", type(value).__name__)
    if not _UUID.fullmatch(value):
        refuse("idempotency_key", "a UUID", f"{len(value)} characters that are none")
    return value


def first_sent_of(value: object, idempotency_key: object, now: float) -> datetime:
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


def path_of(value: object) -> str:
    if not isinstance(value, str):
        refuse("path", "a str", type(value).__name__)
    segments = re.sub("%2e", ".", value, flags=re.IGNORECASE).split("/")
    if not _PLAIN_PATH.fullmatch(value) or {".", ".."} & set(segments):
        refuse("path", "an absolute path under the base URL, percent-encoded, without query", repr(value[:80]))
    return value


def query_of(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        refuse("params", "a mapping", type(value).__name__)
    return urlencode({text_of(name, "params"): _scalar(item) for name, item in value.items() if item is not None})


_HUGE: Final = 1e300
"""More than any number is; a whole one of 5,000 digits can't even be written (CVE-2020-10735)."""


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        refuse("params", "a mapping to str, int, float or bool", type(value).__name__)
    if not isinstance(value, str) and not abs(value) < _HUGE:
        refuse("params", "made of numbers that a URL can carry", "a huge one, or none")
    return text_of(str(value), "params")


def shown(value: object) -> str:
    return repr(value[:20]) if isinstance(value, str) else type(value).__name__

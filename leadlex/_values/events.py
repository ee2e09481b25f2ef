"""What a stream says, in the order in which it says it.

Rule: an event is what the service sent and nothing is added; events match by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof
from typing import Any, ClassVar, Final

from attrs import fields, frozen

from .plain import Event, extra_field


@frozen
class Thinking(Event):
    """One reasoning step of Lexi; an interface may leave it out.

    Args:
        text: The step in words; empty where it could not be read.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    plain_type: ClassVar[str] = "thinking"

    text: str = ""
    extra: Mapping[str, Any] = extra_field()


@frozen
class ToolStep(Event):
    """A CRM tool that is about to run or has run.

    Args:
        tool: The tool's name, for example `contacts.get`; empty where it could not be read.
        status: `started` or `completed`; others may come; empty where it could not be read.
        summary: What the tool found, once it has run.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    plain_type: ClassVar[str] = "tool_step"

    tool: str = ""
    status: str = ""
    summary: str | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen
class TextDelta(Event):
    """A piece of the reply; the reply is all pieces joined.

    Args:
        delta: The piece.
        conversation_id: The conversation it belongs to; the first piece tells a new one's id.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    plain_type: ClassVar[str] = "text"

    delta: str
    conversation_id: str | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen
class Done(Event):
    """The end of a stream that is whole.

    Args:
        credits_remaining: The workspace's AI credits, or None where the stream did not say.
        message_id: The id of Lexi's message.
        extra: Fields beyond the contract, and what could not be read, as sent.
    """

    plain_type: ClassVar[str] = "done"

    credits_remaining: int | None = None
    message_id: str | None = None
    extra: Mapping[str, Any] = extra_field()


@frozen
class UnknownEvent(Event):
    """An event that this version of leadlex does not know.

    Args:
        event: Its name; `message` where the stream gave none.
        data: Its data as sent, unparsed.
    """

    plain_type: ClassVar[str] = "unknown"

    event: str
    data: str


StreamEvent = Thinking | ToolStep | TextDelta | Done | UnknownEvent
"""Everything that iterating a stream can give."""

_PLAIN: Final = 256
"""Bytes of a plain piece of text but for the text: the event, its empty `extra`, its conversation's id."""


def size_of(event: StreamEvent) -> int:
    """Return about how many bytes of memory an event holds."""
    if type(event) is TextDelta and not event.extra and len(event.conversation_id or "") < _PLAIN:
        return _PLAIN + getsizeof(event.delta)  # streams are full of these
    size, waiting = getsizeof(event), [getattr(event, field.name) for field in fields(type(event))]
    while waiting:
        each = waiting.pop()
        size += getsizeof(each)
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each
    return size

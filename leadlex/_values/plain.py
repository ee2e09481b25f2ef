"""The plain form of values: what JSON can hold, for logs, tables, queues and web frameworks.

Rule: a value's plain form has the contract's field names and beside them what the service sent beyond the contract, so
that it reads as an answer does; how it arrived (`meta`, `may_have_more`) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Self, cast

from attrs import AttrsInstance, field, fields

BESIDE: Final = ("meta", "extra", "may_have_more")
"""Fields that a plain form does not have: how a value arrived, and what stands beside its fields."""


class _Serializer:
    """What pydantic asks a value for where no schema told it of one, as in a dict or behind `Any`."""

    def __get__(self, _: object, kind: type[Value]) -> Any:  # noqa: ANN401  # pydantic's own
        try:
            from .schema import serializer  # noqa: PLC0415  # pydantic is there when it asks
        except ImportError as error:  # somebody else looks
            raise AttributeError(str(error)) from None
        return serializer(kind)  # type: ignore[arg-type]  # typeshed has no hash for a class of a protocol


def extra_field() -> Any:  # noqa: ANN401  # attrs gives a field the type of its annotation
    """Make the field that keeps what the service sent beyond the contract."""
    # A plain dict: calling dict[str, Any] takes longer than the rest of an event's __init__.
    return field(factory=dict, kw_only=True, hash=False, repr=False)


class WireError(Exception):
    """What in an answer is not the contract's, and where; the edge makes it an `APIResponseError`."""


class Value:
    """A frozen value with a plain form.

    It iterates as pairs of names and plain values, so that `dict(value)` works, and gives itself to pydantic.
    """

    __slots__ = ()

    __pydantic_serializer__: ClassVar[Any] = _Serializer()

    def to_dict(self) -> dict[str, Any]:
        """Return the value as JSON can hold it, times as ISO 8601 in UTC; `from_dict` takes it back.

        Example:
            rows = [conversation.to_dict() for conversation in lexi.conversations()]
        """
        return fields_of(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make a value of its plain form.

        Args:
            plain: What `to_dict` returned; names that are not known go to `extra`.

        Raises:
            ConfigurationError: It is not the plain form of such a value.

        Example:
            reply = leadlex.ChatReply.from_dict({"response": "Your pipeline has 12 deals."})
        """
        from .structure import structure_plain  # noqa: PLC0415  # cattrs loads when something is read

        return structure_plain(cls, plain)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self.to_dict().items())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:  # noqa: ANN401  # pydantic's own
        from .schema import core_schema  # noqa: PLC0415  # pydantic is there when it asks

        return core_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, _: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401  # pydantic's own
        from .schema import json_schema  # noqa: PLC0415  # as above

        return json_schema(cls, whole=handler.mode == "serialization")


class Event(Value):
    """A value that a stream gives; its plain form begins with its `type`."""

    __slots__ = ()

    plain_type: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON can hold it, its `type` first; `leadlex.event_from_dict` takes it back.

        Example:
            for event in lexi.stream_chat("Summarize my pipeline"):
                print(event.to_dict())
        """
        plain = fields_of(self)
        # The service's own fields of these names; without them an event is written as flat as the others.
        own = {name: plain.pop(name) for name in ("type", "extra") if name in plain}
        return {"type": self.plain_type, **plain, **({"extra": own} if own else {})}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make an event of its plain form.

        Args:
            plain: What `to_dict` returned; names that are not known go to `extra`.

        Raises:
            ConfigurationError: It is not the plain form of such an event.

        Example:
            event = leadlex.TextDelta.from_dict({"type": "text", "delta": "Your pipeline"})
        """
        from .structure import structure_plain_event  # noqa: PLC0415  # as above

        return structure_plain_event(cls, plain)


def fields_of(value: Value) -> dict[str, Any]:
    """Return the fields of a value and beside them what was sent beyond them; what could not be read is as sent."""
    kind = cast("type[AttrsInstance]", type(value))
    plain = {each.name: plain_of(getattr(value, each.name)) for each in fields(kind) if each.name not in BESIDE}
    return {**plain, **copied(dict(getattr(value, "extra", {})))}


def plain_of(value: object) -> Any:  # noqa: ANN401  # JSON
    """Return a value or a field of one as JSON can hold it."""
    if isinstance(value, Value):
        return fields_of(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [plain_of(each) for each in cast("tuple[object, ...]", value)]
    return copied(value)


def copied(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Copy JSON, however deep it is."""
    copy = [value]
    waiting: list[Any] = [copy]
    while waiting:
        holder = waiting.pop()
        for place, each in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(each, Mapping | list):
                holder[place] = dict(cast("Mapping[str, Any]", each)) if isinstance(each, Mapping) else each[:]
                waiting.append(holder[place])
    return copy[0]

"""Plain JSON values to the library's own, from the wire and from a value's plain form.

Rule: what the contract does not promise is passed on; what an answer can't do without and lacks is a `WireError` that
says where. What it can do without (a field that has a default) never costs it: what can't be read of that is left out,
kept as sent in `extra`, and logged. Nothing is coerced, and no exception of cattrs leaves this file.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, cast, get_args, get_origin

import attrs
import cattrs
from cattrs import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from leadlex._errors import ConfigurationError
from leadlex._logging import record

from .events import Done, StreamEvent, TextDelta, Thinking, ToolStep, UnknownEvent
from .models import ConversationSummary, Page
from .plain import BESIDE, WireError, copied

T = TypeVar("T")


def _exactly(kind: type[T], named: str) -> Callable[[Any, Any], T]:
    def check(value: Any, _: object) -> T:  # noqa: ANN401  # JSON
        # cattrs' own hooks would make "None" of None, 2 of 2.9 and True of "false".
        if type(value) is not kind:
            raise WireError(f"should be {named}, is {_named(value)}")
        return value

    return check


_raw_text: Final = _exactly(str, "a text")


def _text(value: Any, _: object) -> str:  # noqa: ANN401  # JSON
    return repaired(_raw_text(value, _))


def repaired(text: str) -> str:
    """Join halves of a character (JSON may escape each) and replace one without the other, which nothing can print."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _named(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


_timestamp: Final = _exactly(str, "a timestamp")


def _moment(value: Any, _: object) -> datetime:  # noqa: ANN401  # JSON
    text = _timestamp(value, _)
    try:
        return _utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    try:
        return _rare_moment(text.upper())
    except (ValueError, OverflowError):
        raise WireError("should be an ISO 8601 timestamp") from None


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


# What ISO 8601 and RFC 3339, 5.6 and 5.7, allow beyond Python: small letters, 24:00 and leap seconds.
_MIDNIGHT: Final = re.compile(r"(?<=[T ])24(?=(?::?00){0,2}(?:[.,]0+)?(?:[Z+-]|$))")

_LEAP: Final = re.compile(r"(?<=[T ]\d\d)(:?\d\d:?)60(?!\d)")


def _rare_moment(text: str) -> datetime:
    if _MIDNIGHT.search(text):
        return _utc(datetime.fromisoformat(_MIDNIGHT.sub("00", text))) + timedelta(days=1)
    moment = _utc(datetime.fromisoformat(_LEAP.sub(r"\g<1>59", text)))
    if _LEAP.search(text) is None:
        return moment
    if (moment.hour, moment.minute) != (23, 59):
        raise ValueError("a leap second in the middle of a day")
    return moment + timedelta(seconds=1)


def _number(value: Any, _: object) -> float:  # noqa: ANN401  # JSON
    # JSON has one kind of number, and 1.0 may be written 1.
    return float(value) if type(value) is int else _float(value, _)


_float: Final = _exactly(float, "a number")


def _is_object(kind: object) -> bool:
    return get_origin(kind) is Mapping


def _is_optional(kind: object) -> bool:
    return get_origin(kind) is UnionType and NoneType in get_args(kind)


def _optional_hook(kind: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401  # X | None
    # cattrs' own looks for the hook of X anew for every value. A null in an object was sorted out before.
    (kind,) = {*get_args(kind)} - {NoneType}
    return _converter.get_structure_hook(kind)


def _is_tuple(kind: object) -> bool:
    return get_origin(kind) is tuple


def _tuple_hook(kind: Any) -> Callable[[Any, Any], tuple[Any, ...]]:  # noqa: ANN401  # tuple[X, ...]
    item = get_args(kind)[0]

    def structure_items(value: Any, _: object) -> tuple[Any, ...]:  # noqa: ANN401  # JSON
        items = _exactly(list, "a list")(value, _)
        return tuple(_at(f"[{i}]", each, item) for i, each in enumerate(items))

    return structure_items


def _at(place: str, value: Any, kind: Any) -> Any:  # noqa: ANN401  # JSON
    try:
        return _converter.structure(value, kind)
    except (WireError, ClassValidationError) as error:
        raise WireError(f"{place}{joined(explain(error))}") from None


def _hook(kind: type[Any]) -> Callable[[Any, Any], Any]:
    fields = [field for field in attrs.fields(kind) if field.name not in BESIDE]
    known = frozenset(field.name for field in fields)
    side = frozenset(field.name for field in fields if field.default is not attrs.NOTHING)
    # The API has one listing.
    whole = Page[ConversationSummary] if kind is Page else kind
    build = make_dict_structure_fn(whole, _converter, **_OVERRIDES)  # type: ignore[arg-type]  # fields' names are no flags

    def structure_fields(value: Any, _: object) -> Any:  # noqa: ANN401  # JSON
        if type(value) is not dict:
            raise WireError(f"should be an object, is {_named(value)}")
        if not value.keys() <= known or None in value.values():
            value = _sorted_out(value, known)
        try:
            return build(value, kind)
        except ClassValidationError as error:
            unread = _names_of(error)
            if not unread <= side:
                raise
        return build(_without(value, unread), kind)

    return structure_fields


def _at_least(least: int) -> Callable[[Any, Any], int]:
    def check(value: Any, _: object) -> int:  # noqa: ANN401  # JSON
        if type(value) is not int or value < least:
            raise WireError(f"should be a whole number from {least}")
        return value

    return check


_OVERRIDES: Final = {
    "meta": override(omit=True),
    "may_have_more": override(omit=True),
    # The other half of its last character may come with the next one.
    "delta": override(struct_hook=_raw_text),
    "per_page": override(struct_hook=_at_least(1)),
    "total": override(struct_hook=_at_least(0)),
}


def _names_of(error: ClassValidationError) -> set[str]:
    """Name the fields that could not be read; cattrs tries all of them."""
    return {note.name for _, note in error.group_exceptions()[0]}


def _without(value: dict[str, Any], unread: Iterable[str]) -> dict[str, Any]:
    """Set fields apart that could not be read, and can be done without."""
    for name in sorted(unread):
        record(logging.WARNING, "ignored", field=name)
    extra = {**value.get("extra", {}), **{name: value[name] for name in unread}}
    return {**{name: item for name, item in value.items() if name not in unread}, "extra": extra}


def _sorted_out(value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Leave out null, which means absent, and set apart what the contract does not name."""
    fields = {name: item for name, item in value.items() if name in known and item is not None}
    extra = {name: item for name, item in value.items() if name not in known}
    return {**fields, "extra": extra} if extra else fields


_DELTA: Final = frozenset({"delta", "conversation_id"})


def _is_delta(kind: object) -> bool:
    return kind is TextDelta


def _delta_hook(kind: type[Any]) -> Callable[[Any, Any], TextDelta]:
    # Streams are full of this one event; where it has nothing unusual, its general hook would take a third of its way.
    usual = _hook(kind)

    def structure_delta(value: Any, _: object) -> TextDelta:  # noqa: ANN401  # JSON
        if type(value) is dict and value.keys() == _DELTA:
            delta, conversation_id = value["delta"], value["conversation_id"]
            if type(delta) is str and type(conversation_id) is str and conversation_id.isascii():
                return TextDelta(delta, conversation_id)
        return usual(value, _)  # type: ignore[no-any-return]  # cattrs gives what it was asked for

    return structure_delta


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(bool, _exactly(bool, "a boolean"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook_func(_is_object, _exactly(dict, "an object"))
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_structure_hook_factory(_is_optional, _optional_hook)
    converter.register_structure_hook_factory(attrs.has, _hook)
    converter.register_structure_hook_factory(_is_delta, _delta_hook)
    return converter


_converter: Final = _make_converter()

EVENTS: Final[dict[str, type[Any]]] = {kind.plain_type: kind for kind in (Thinking, ToolStep, TextDelta, Done)}

_EVENT_TYPES: Final[dict[str, type[Any]]] = {**EVENTS, UnknownEvent.plain_type: UnknownEvent}


@cache
def event_hook(name: str) -> Callable[[Any, Any], Any]:
    return _converter.get_structure_hook(EVENTS[name])


def structure(kind: type[T], value: Any, place: str = "data") -> T:  # noqa: ANN401  # JSON
    """Make a value of `kind` from JSON.

    Raises:
        WireError: A field is missing or of another type; the message says which, and shows no content.
    """
    return _at(place, value, kind)  # type: ignore[no-any-return]  # cattrs gives what it was asked for


def structure_side(kind: type[T], value: Any, name: str) -> T:  # noqa: ANN401  # JSON
    """Make a value of `kind`, which needs none of its fields, from what an answer can do without."""
    try:
        return structure(kind, {} if value is None else value)
    except WireError:
        return unread(kind, value, name)


def unread(kind: type[T], value: Any, name: str) -> T:  # noqa: ANN401  # JSON
    """Make a value without fields of what is no object."""
    record(logging.WARNING, "ignored", field=name)
    return kind(extra={name: value})  # type: ignore[call-arg]  # all that are read have it


def explain(error: BaseException) -> str:
    """Say where and what the first problem in cattrs' group of them is."""
    if not isinstance(error, ClassValidationError):
        return str(error)
    inner, note = error.group_exceptions()[0][0] if error.group_exceptions()[0] else (error.exceptions[0], None)
    name = getattr(note, "name", "")
    return f".{name}{joined(_reason(inner))}"


def _reason(error: BaseException) -> str:
    return "is missing" if isinstance(error, KeyError) else explain(error)


def joined(reason: str) -> str:
    return reason if reason.startswith((".", "[")) else f" {reason.removeprefix('it ')}"


def structure_plain(kind: type[T], plain: object) -> T:
    """Make a value of its plain form.

    Raises:
        ConfigurationError: It is not the plain form of such a value.
    """
    try:
        return structure(kind, copied(_fields_of(plain, kind.__name__)), kind.__name__)
    except WireError as error:
        raise ConfigurationError(f"{error}.") from None


def structure_plain_event(kind: type[T], plain: object) -> T:
    """Make an event of its plain form, which tells its type.

    Raises:
        ConfigurationError: It is not the plain form of such an event.
    """
    name, fields = _event_parts(plain)
    if name not in (None, kind.plain_type):  # type: ignore[attr-defined]  # events have it
        raise ConfigurationError(f"That is the plain form of another event than {kind.__name__}.")
    return structure_plain(kind, fields)


def event_from_dict(plain: Mapping[str, Any]) -> StreamEvent:
    """Make an event of its plain form, whatever its type.

    Args:
        plain: What an event's `to_dict` returned, or `leadlex chat --json` printed.

    Raises:
        ConfigurationError: It is not the plain form of an event.

    Example:
        event = leadlex.event_from_dict({"type": "text", "delta": "Your pipeline"})
    """
    name, fields = _event_parts(plain)
    kind = _EVENT_TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ConfigurationError(f"The type of an event must be one of {', '.join(_EVENT_TYPES)}.")
    return structure_plain(kind, fields)  # type: ignore[no-any-return]  # one of the events


def _event_parts(plain: object) -> tuple[object, dict[str, Any]]:
    """Return the type of an event and its fields, the service's own `type` and `extra` among them."""
    fields = _fields_of(plain, "An event")
    name, own = fields.pop("type", None), fields.pop("extra", {})
    if not isinstance(own, Mapping):
        raise ConfigurationError("The extra of an event is a mapping.")
    return name, {**fields, **own}


def _fields_of(plain: object, named: str) -> dict[str, Any]:
    if not isinstance(plain, Mapping):
        raise ConfigurationError(f"{named} is made of a mapping, not of {type(plain).__name__}.")
    return dict(cast("Mapping[str, Any]", plain))


def field_of(value: Any, name: str) -> Any:  # noqa: ANN401  # JSON
    """Return a field of an answer's envelope."""
    if not isinstance(value, dict):
        raise WireError(f"the answer should be an object, is {_named(value)}")
    if value.get(name) is None:
        raise WireError(f"{name} is missing")
    return value[name]

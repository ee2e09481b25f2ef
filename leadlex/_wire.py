"""Bytes to values and back.

Rule: what the contract does not promise is passed on; what an answer can't do without and lacks is a `WireError` that
says where. What it can do without (a field that has a default) never costs it: what can't be read of that is left out,
kept as sent in `extra`, and logged. Nothing is coerced, and no exception of json or cattrs leaves this file.
"""

from __future__ import annotations

import json
import logging
import math
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, get_args, get_origin

import attrs
import cattrs
from attrs import frozen
from cattrs import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from ._events import Done, StreamEvent, TextDelta, Thinking, ToolStep, UnknownEvent
from ._log import record

T = TypeVar("T")


class WireError(Exception):
    """Tell what in an answer is not the contract's, and where; the edge makes it an `APIResponseError`."""


# JSON ------------------------------------------------------------------------------------------------------------


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number beyond any float")
    return number


def _refuse_constant(name: str) -> float:
    # RFC 8259, 6: "Infinity and NaN are not permitted"; Python's json takes them.
    raise ValueError(name)


_decoder: Final = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


MAX_VALUES: Final = 500_000
"""Values that JSON may have, all levels together: 15 KB of gzip can stand for `{}` by the million, of 64 bytes each."""

MAX_EVENT_VALUES: Final = 100_000
"""The same for an event's, of which several wait to be read."""


def loads(text: str, most: int = MAX_VALUES) -> Any:  # noqa: ANN401  # JSON
    """Read JSON; of a repeated name the last one counts.

    Raises:
        WireError: It is none, is nested too deep, has a number that nothing can hold, or has too many values.
    """
    if len(text) > most and _has_too_many_values(text, most):
        raise WireError(f"it has more than {most:,} values")
    text = text.strip(" \t\n\r")  # RFC 8259, 2: "ws"; `decode` looks for it with two regular expressions
    try:
        value, end = _decoder.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    raise WireError("it is not valid JSON") from None


_WINDOW: Final = 64 << 10


def _has_too_many_values(text: str, most: int) -> bool:
    """Count values before any is made; what stands in quotes is left out only where all signs together are too many."""
    if sum(map(text.count, ",[{")) < most:
        return False
    text = text.replace("\\\\", "").replace('\\"', "")  # from here on a quote begins or ends a text
    values, quoted = 1, 0
    for at in range(0, len(text), _WINDOW):
        pieces = text[at : at + _WINDOW].split('"')
        bare = "0".join(pieces[quoted::2])
        # Each value but the first follows one of these signs; an empty list or object has none.
        values += sum(map(bare.count, ",[{")) - sum(map(bare.count, ("[]", "{}")))
        quoted = (quoted + len(pieces) - 1) % 2
    return values > most


def loads_bytes(body: bytes) -> Any:  # noqa: ANN401  # JSON
    """Read the JSON of a body: UTF-8, whatever its header says (RFC 8259, 8.1)."""
    try:
        return loads(body.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError:
        raise WireError("it is not UTF-8") from None


def dumps(value: object) -> bytes:
    """Write JSON as compact UTF-8.

    Raises:
        WireError: The value has no JSON (a lone surrogate, NaN, a cycle, another type), or is too large.
    """
    if _is_too_large(value):
        raise WireError(f"something that JSON can't hold: a cycle, or more than {MAX_VALUES:,} values")
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        raise WireError("a lone surrogate, which is not text") from None
    except (TypeError, ValueError, RecursionError):
        raise WireError("something that JSON can't hold") from None


def _is_too_large(value: object) -> bool:
    """Count values before any is written: what holds one thing many times is small in memory and huge in JSON."""
    left, waiting = MAX_VALUES, [value]
    while waiting and left >= 0:
        each = waiting.pop()
        left -= 1
        if isinstance(each, str):
            left -= len(each) >> 7  # the same for text, above what an operation's body may have
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
    return left < 0


# Values ----------------------------------------------------------------------------------------------------------


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


def _is_object(kind: object) -> bool:
    return bool(kind == dict[str, Any])


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
        raise WireError(f"{place}{_joined(explain(error))}") from None


def _hook(kind: type[Any]) -> Callable[[Any, Any], Any]:
    fields = [field for field in attrs.fields(kind) if field.name not in ("meta", "extra")]
    known = frozenset(field.name for field in fields)
    side = frozenset(field.name for field in fields if field.default is not attrs.NOTHING)
    build = make_dict_structure_fn(kind, _converter, **_OVERRIDES)  # type: ignore[arg-type]  # fields' names are no flags

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
    for kind, named in ((int, "a whole number"), (float, "a number"), (bool, "a boolean")):
        converter.register_structure_hook(kind, _exactly(kind, named))
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook_func(_is_object, _exactly(dict, "an object"))
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook_factory(_is_tuple, _tuple_hook)
    converter.register_structure_hook_factory(_is_optional, _optional_hook)
    converter.register_structure_hook_factory(attrs.has, _hook)
    converter.register_structure_hook_factory(_is_delta, _delta_hook)
    return converter


_converter: Final = _make_converter()
_EVENTS: Final[dict[str, type[Any]]] = {"thinking": Thinking, "tool_step": ToolStep, "text": TextDelta, "done": Done}


@cache
def _event_hook(name: str) -> Callable[[Any, Any], Any]:
    return _converter.get_structure_hook(_EVENTS[name])


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
        return _unread(kind, value, name)


def _unread(kind: type[T], value: Any, name: str) -> T:  # noqa: ANN401  # JSON
    """Make a value without fields of what is no object."""
    record(logging.WARNING, "ignored", field=name)
    return kind(extra={name: value})  # type: ignore[call-arg]  # all that are read have it


def explain(error: BaseException) -> str:
    """Say where and what the first problem in cattrs' group of them is."""
    if not isinstance(error, ClassValidationError):
        return str(error)
    inner, note = error.group_exceptions()[0][0] if error.group_exceptions()[0] else (error.exceptions[0], None)
    name = getattr(note, "name", "")
    return f".{name}{_joined(_reason(inner))}"


def _reason(error: BaseException) -> str:
    return "is missing" if isinstance(error, KeyError) else explain(error)


def _joined(reason: str) -> str:
    return reason if reason.startswith((".", "[")) else f" {reason.removeprefix('it ')}"


def field_of(value: Any, name: str) -> Any:  # noqa: ANN401  # JSON
    """Return a field of an answer's envelope."""
    if not isinstance(value, dict):
        raise WireError(f"the answer should be an object, is {_named(value)}")
    if value.get(name) is None:
        raise WireError(f"{name} is missing")
    return value[name]


# Errors ----------------------------------------------------------------------------------------------------------


@frozen
class WireProblem:
    """Hold what an error answer or an `error` event says."""

    code: str | None
    message: str | None


def problem_of(value: Any) -> WireProblem | None:  # noqa: ANN401  # JSON
    """Read `{"error": {"code", "message"}}`, or return None where there is no such thing."""
    inner = value.get("error") if isinstance(value, dict) else None
    return _problem(inner) if isinstance(inner, dict) else None


def problem_of_body(body: bytes) -> WireProblem | None:
    """Read the error that a body carries, whatever it is."""
    try:
        return problem_of(loads_bytes(body))
    except WireError:
        return None


def _problem(fields: dict[str, Any]) -> WireProblem:
    code, message = fields.get("code"), fields.get("message")
    return WireProblem(code if isinstance(code, str) else None, message if isinstance(message, str) else None)


# Streams ---------------------------------------------------------------------------------------------------------


class End:
    """Be the literal `[DONE]` that follows the last event."""


END: Final = End()


def event_of(name: str, data: str) -> StreamEvent | WireProblem | End:
    """Make an event of its name and data.

    Raises:
        WireError: A piece of text does not carry what the contract says, or an end only looks like one.
    """
    if name not in _EVENTS or (name == "done" and _is_end(data)):
        return _rare_event(name, data)
    try:
        return _event_hook(name)(loads(data, MAX_EVENT_VALUES), None)  # type: ignore[no-any-return]  # cattrs gives what it was asked for
    except (WireError, ClassValidationError) as error:
        if name != "text":
            # That it came is all that an answer needs of it.
            return _unread(_EVENTS[name], data, "data")  # type: ignore[no-any-return]  # an event
        raise WireError(f"the event {name}{_joined(explain(error))}") from None


def _rare_event(name: str, data: str) -> StreamEvent | WireProblem | End:
    if name == "error":
        return _problem_event(data)
    if name == "done" or (name == "message" and _is_end(data)):
        return END
    return UnknownEvent(name, data)


_LOOKALIKE = re.compile(r"""\s*["']?\[done\]["']?\s*""", re.IGNORECASE)


def _is_end(data: str) -> bool:
    if data.strip(" \t") == "[DONE]":
        return True
    if _LOOKALIKE.fullmatch(data):
        raise WireError("the end of the stream is not the contract's [DONE]")
    return False


def _problem_event(data: str) -> WireProblem:
    try:
        value = loads(data, MAX_EVENT_VALUES)
    except WireError:
        return WireProblem(None, data)
    fields = value if isinstance(value, dict) else {}
    return problem_of(fields) or _problem(fields)


def ends_stream(tail: str) -> bool:
    """Tell whether an unfinished last event is `done` or `[DONE]`, whole but for its line ends."""
    name, data = "message", list[str]()
    for line in tail.split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value or "message"
        elif field == "data":
            data.append(value)
    return _is_last(name, "\n".join(data))


def _is_last(name: str, data: str) -> bool:
    try:
        if name in ("message", "done") and _is_end(data):
            return True
        # Half of one is how a stream looks that was cut.
        return name == "done" and isinstance(loads(data, MAX_EVENT_VALUES), dict)
    except WireError:
        return False

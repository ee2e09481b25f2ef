"""Values as pydantic knows them: read from their plain form, written as it, described as it.

Source: https://docs.pydantic.dev/latest/concepts/types/#customizing-validation-with-__get_pydantic_core_schema__
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Protocol, Self, get_args, get_origin, get_type_hints

from attrs import NOTHING, fields
from pydantic_core import SchemaSerializer
from pydantic_core import core_schema as schemas

from .plain import BESIDE, Event, Value


class Plain(Protocol):
    """What has a plain form: a value, an option or an error."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form."""
        ...

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Take the plain form back."""
        ...


def core_schema(kind: type[Plain]) -> schemas.CoreSchema:
    """Return the schema by which pydantic reads and writes what has a plain form."""

    def read(given: Any) -> Plain:  # noqa: ANN401  # it is checked here
        # What can't be read is a ConfigurationError, and so a ValueError, which pydantic takes for its own.
        return given if isinstance(given, kind) else kind.from_dict(given)

    read.__qualname__ = kind.__name__  # pydantic's errors show it
    written = schemas.plain_serializer_function_ser_schema(_written)
    return schemas.no_info_plain_validator_function(read, ref=f"leadlex.{kind.__name__}", serialization=written)


def _written(value: Plain) -> dict[str, Any]:
    return value.to_dict()


@cache
def serializer(kind: type[Plain]) -> SchemaSerializer:
    """Return what writes values of a class for pydantic."""
    return SchemaSerializer(core_schema(kind))


def json_schema(kind: type[Any], *, whole: bool) -> dict[str, Any]:
    """Describe the plain form as JSON Schema.

    Args:
        kind: The values' class.
        whole: Whether it is one that was written, which has every field.
    """
    known = [each for each in fields(kind) if each.name not in BESIDE]
    hints = get_type_hints(kind)
    properties: dict[str, object] = {each.name: _of(hints[each.name], whole=whole) for each in known}
    required = [each.name for each in known if whole or each.default is NOTHING]
    if issubclass(kind, Event):
        properties = {"type": {"const": kind.plain_type, "type": "string"}, **properties}
        required = ["type", *required]
    told = (kind.__doc__ or "").split("\n")[0]
    shape = {"title": kind.__name__, "description": told, "type": "object"}
    return {**shape, "properties": properties, "required": required}


_SIMPLE: Final[Mapping[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
}


def _of(hint: Any, *, whole: bool) -> dict[str, Any]:  # noqa: ANN401  # a type
    """Describe what a field of a type may be."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return {"anyOf": [_of(each, whole=whole) for each in inner]}
    if origin is tuple:
        return {"type": "array", "items": _of(inner[0], whole=whole)}
    if origin is Mapping:
        return {"type": "object"}
    if isinstance(hint, type) and issubclass(hint, Value):
        return json_schema(hint, whole=whole)
    return _SIMPLE.get(hint, {})

"""A second reader of streams, written word for word from the standard and the contract; it wants all bytes at once.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (9.2.6).
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, cast

_NOTHING: dict[str, Any] = {}
_BOM = b"\xef\xbb\xbf"


def read_whole(raw: bytes) -> list[tuple[str, str]]:
    """Read the events (name, data) of a stream; a last `done` or `[DONE]` needs no blank line."""
    text = raw.removeprefix(_BOM).decode("utf-8", "replace")
    *lines, rest = re.split(r"\r\n|\r|\n", text)
    unfinished = list(itertools.takewhile(bool, reversed([*lines, rest] if rest else lines)))[::-1]
    last = [event for event in _events([*unfinished, ""]) if is_end(*event) and _is_whole(event[1])]
    return [*_events(lines), *last]


def _events(lines: list[str]) -> Iterator[tuple[str, str]]:
    name, data = "", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if "\n".join(data):
                yield name or "message", "\n".join(data)
            name, data = "", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)


def is_end(name: str, data: str) -> bool:
    """Tell whether an event proves that the answer is whole."""
    if name in ("message", "done") and data.strip(" \t") == "[DONE]":
        return True
    return name == "done"


def _is_whole(data: str) -> bool:
    """Tell whether nothing can be missing of the data of an end."""
    return data.strip(" \t") == "[DONE]" or _fields(data) is not _NOTHING


def truth_of(raw: bytes) -> tuple[str, bool]:
    """Tell the text of a stream up to its end, and whether it has one."""
    deltas = list[str]()
    for name, data in read_whole(raw):
        if is_end(name, data):
            return joined(deltas), True
        delta = _fields(data).get("delta") if name == "text" else None
        if isinstance(delta, str):
            deltas.append(delta)
    return joined(deltas), False


def joined(deltas: list[str]) -> str:
    """Join pieces of text: halves of a character find each other, and one that finds none is replaced."""
    return "".join(deltas).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _fields(data: str) -> dict[str, Any]:
    """Read an object; anything else is `_NOTHING`."""
    try:
        value = json.loads(data, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING
    return cast("dict[str, Any]", value) if isinstance(value, dict) else _NOTHING


def _refuse(name: str) -> None:
    raise ValueError(name)

"""JSON as it is on the wire: text to plain values and back, bounded.

Rule: nothing is coerced, and no exception of json leaves this file.
"""

from __future__ import annotations

import json
import math
from codecs import BOM_UTF8
from typing import Any, Final

from leadlex._values.plain import WireError


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


def misfit(value: object) -> tuple[str, str] | None:
    """Find what JSON can't hold: where it stands in a value, as a program writes it, and what it is."""
    waiting = [] if _is_too_large(value) else [("", value)]
    while waiting:
        where, each = waiting.pop()
        found = _named_misfit(each)
        if found:
            return where, found
        if isinstance(each, dict):
            waiting += [(f"{where}[{name!r}]", item) for name, item in each.items()]
        elif isinstance(each, list | tuple):
            waiting += [(f"{where}[{number}]", item) for number, item in enumerate(each)]
    return None


def _named_misfit(value: object) -> str | None:
    if isinstance(value, dict):
        return next((f"a key of type {type(name).__name__}" for name in value if not isinstance(name, _KEYS)), None)
    if isinstance(value, float):
        return None if math.isfinite(value) else repr(value)
    return None if isinstance(value, _HELD) else type(value).__name__


_KEYS: Final = (str, int, float, type(None))

_HELD: Final = (*_KEYS, list, tuple)


class Unusable(Exception):
    """A body that is complete nonsense: too large, or of a coding that can't be read."""

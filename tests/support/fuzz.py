"""Hostile input by the million: streams and whole answers, mutated at random, and what must be true of each."""

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from leadlex import ChatReply, LeadLexError, Meta
from leadlex._protocol import endpoints
from leadlex._protocol.json_text import loads_bytes
from leadlex._values.plain import WireError
from tests.support.captures import CAPTURE, LONG, cut
from tests.support.lexi import BODIES
from tests.support.reference import truth_of
from tests.support.sse_cases import CASES, ENDING_CASES

_ERRORS = [
    b'event: error\ndata: {"code": "internal_error", "message": "Sorry"}\n\n',
    b'event: error\ndata: {"error": {"code": "insufficient_credits", "message": "No"}}\n\n',
    b"event: error\ndata: \x1b[31mred\n\n",
]
_HALVES = b'event: text\ndata: {"delta": "\\ud83d"}\n\nevent: text\ndata: {"delta": "\\ude00"}\n\ndata: [DONE]\n\n'
_CASES = [case.raw for case in (*CASES, *ENDING_CASES) if len(case.raw) < 500]
_WHOLE = [CAPTURE, LONG, CAPTURE.replace(b"\n", b"\r\n"), _HALVES, *(CAPTURE[:200] + error for error in _ERRORS)]
#: As many that are whole as not, so that a mutation often meets an end.
SEEDS = [*_CASES, *_WHOLE * (len(_CASES) // len(_WHOLE)), *_ERRORS]

_FRAMING = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b":",
    b"data: ",
    b"event: ",
    b"event: done\n",
    b"event: text\n",
    b"data: [DONE]\n",
]
_BYTES = [b"\xef\xbb\xbf", b"\x00", b"\xff", b"\xf0\x9f", b"\x1b[2J", b"\\", b"\\ud800", b"\\udc00", b"\\u0000", b'"']
_JSON = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"null",
    b"true",
    b"NaN",
    b"1e999",
    b"-0",
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 2000,
]
_FIELDS = [
    b'"delta": null',
    b'"delta": 5',
    b'"extra": {}',
    b'"meta": 1',
    b'"conversation_id": "other"',
    b"event: error\n",
]
_TOKENS = [*_FRAMING, *_BYTES, *_JSON, *_FIELDS]

Mutation = Callable[[random.Random, bytearray], None]


def _flip(chance: random.Random, data: bytearray) -> None:
    data[_place(chance, data)] = chance.randrange(256)


def _insert(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    data[at:at] = chance.choice(_TOKENS)


def _delete(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    del data[at : at + chance.randrange(1, 40)]


def _repeat(chance: random.Random, data: bytearray) -> None:
    at = _place(chance, data)
    data[at:at] = data[at : at + chance.randrange(1, 120)]


def _splice(chance: random.Random, data: bytearray) -> None:
    other = chance.choice(SEEDS)
    data[_place(chance, data) :] = other[_place(chance, other) :]


def _end(chance: random.Random, data: bytearray) -> None:
    del data[_place(chance, data) :]


def _place(chance: random.Random, data: Sequence[int]) -> int:
    return chance.randrange(len(data)) if data else 0


_MUTATIONS: list[Mutation] = [_flip, _insert, _insert, _delete, _repeat, _splice, _end]


def chance_of(number: int) -> random.Random:
    """Give the chance that makes the input of this number, the same each time."""
    return random.Random(number)  # noqa: S311  # guards nothing


def mutated(chance: random.Random, seed: bytes | None = None) -> bytes:
    """Damage a stream, or the bytes given, in one to four places."""
    data = bytearray(chance.choice(SEEDS) if seed is None else seed)
    for _ in range(chance.randrange(1, 5)):
        if data:
            chance.choice(_MUTATIONS)(chance, data)
    return bytes(data)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Cut some bytes at random."""
    return cut(data, *(chance.randrange(1, 200) for _ in range(chance.randrange(1, 4))))


def check(raw: bytes, outcome: object, number: int) -> None:
    """Check what came of a stream of these bytes.

    Raises:
        AssertionError: The exception is foreign, or a reply was taken for whole without its end, or is not its text.
    """
    assert isinstance(outcome, ChatReply | LeadLexError), (number, outcome)
    text, ends = truth_of(raw)
    if isinstance(outcome, ChatReply):
        assert ends, (number, "half an answer was taken for a whole one")
        assert outcome.response == text, number
    else:
        assert str(outcome).isprintable(), number
        assert outcome.charged == "unknown", number
        assert text.startswith(outcome.partial.response if outcome.partial else ""), number


_ANSWERS = [json.dumps(body).encode() for body in BODIES.values()]
_READERS: list[Callable[[Any, Meta], object]] = [
    endpoints.chat("Hi", conversation_id=None, context=None).read,
    endpoints.conversation("a", include_tool_steps=False, limit=1).read,
    endpoints.tasks(status="pending").read,
]


def check_answer(chance: random.Random) -> None:
    """Damage a JSON answer and check that it is read, or refused with a reason that shows no control characters."""
    body = mutated(chance, chance.choice(_ANSWERS))
    for read in _READERS:
        assert _refusal(read, body).isprintable(), body


def _refusal(read: Callable[[Any, Meta], object], body: bytes) -> str:
    """Tell why a body is refused; a good one can be shown."""
    try:
        return ascii(repr(read(loads_bytes(body), Meta(status_code=200))).encode())
    except WireError as error:
        return str(error)

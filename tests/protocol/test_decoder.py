"""The decoder says what the standard says, at every way to cut the bytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leadlex._protocol.event_blocks import MAX_EVENT, MAX_LINE, LineGuard
from leadlex._protocol.json_text import Unusable
from tests.support.captures import CAPTURE, DONE_LINE, LONG, cut
from tests.support.memory import decoded
from tests.support.reference import read_whole
from tests.support.sse_cases import CASES, ENDING_CASES, Case

SIZES = (1, 2, 3, 7, 0)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"by {size}" if size else "whole")
@pytest.mark.parametrize("case", [*CASES, *ENDING_CASES], ids=lambda case: case.name)
def test_conformance(case: Case, size: int) -> None:
    """Bytes are the events that the standard and the contract make of them, however they are cut."""
    assert decoded(cut(case.raw, *filter(None, [size]))) == case.events


# What streams are made of; hostile enough that each rule of the guard meets its exceptions.
_ENDS = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b":", b" ", b"\t", b"\x00", b"\x0b", b"\x1c")
_FIELDS = (b"data", b"event", b"id", b"retry", b"data:", b"data: ", b"event:", b": ping", b"id: 7", b"retry: 10")
_EVENTS = (
    b"event: text",
    b"event: done",
    b"event: message",
    b'data: {"delta": "a"}',
    b"data: {}",
    CAPTURE,
    CAPTURE[-40:],
)
_LAST = (DONE_LINE, b"data: [DONE]", b"[DONE]")
_BYTES = (b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xf0\x9f", b"\x80", b"\xff", *(c.encode() for c in "é😀\u2028\u0085"))
_TOKENS = (*_ENDS, *_FIELDS, *_EVENTS, *_LAST, *_BYTES)
_STREAMS = st.lists(st.one_of(st.sampled_from(_TOKENS), st.binary(max_size=4)), max_size=40).map(b"".join)
_SIZES = st.lists(st.integers(1, 24), min_size=1, max_size=12)


@settings(max_examples=400, deadline=None)
@example(raw=LONG, sizes=[1])
@example(raw=b"\xef\xbb\xbf" + LONG.replace(b"\n", b"\r\n"), sizes=[2, 1])
@given(raw=_STREAMS, sizes=_SIZES)
def test_any_cut(raw: bytes, sizes: list[int]) -> None:
    """Where a stream is cut into pieces changes no event of it."""
    assert decoded(cut(raw, *sizes)) == decoded([raw])


@settings(max_examples=400, deadline=None)
@given(raw=_STREAMS)
def test_reference(raw: bytes) -> None:
    """The decoder agrees with one that is written word for word from the standard and knows nothing of pieces."""
    assert decoded([raw]) == read_whole(raw)


class TestBounds:
    """Lines and events have limits that no way of cutting gets round."""

    @pytest.mark.parametrize("size", [1000, 65_536, MAX_LINE + 1000])
    def test_long_line(self, size: int) -> None:
        """A line of the limit's length passes, and one that is cut and longer is refused."""
        data = b"data: " + b"a" * (MAX_LINE - 6)
        assert len(decoded(cut(data + b"\n\n", size))[0][1]) == MAX_LINE - 6
        with pytest.raises(Unusable, match="a line is longer than 1 MiB"):
            decoded([*cut(data, size), b"a\n\n"])

    def test_large_event(self) -> None:
        """An event of many lines passes up to the limit and is refused a little above it."""
        line = b"data: " + b"a" * 65_529 + b"\n"
        lines = MAX_EVENT // len(line)
        assert len(decoded([line] * lines + [b"\n"])[0][1]) == lines * 65_530 - 1
        with pytest.raises(Unusable, match="an event is larger than 8 MiB"):
            decoded([line] * (lines + 2) + [b"\n"])

    @pytest.mark.parametrize("line", [b"\n:", b"\n: ping", b"\r\n:"])
    def test_comments(self, line: bytes) -> None:
        """Comments without end hold no memory and never make an event too large, wherever pieces end."""
        guard, flood = LineGuard(), line * (65_536 // len(line))
        for _ in range(2 * MAX_EVENT // len(flood)):
            assert not guard.cut(flood)
        assert guard.cut(b"\ndata: 1\n\n").endswith(b"\ndata: 1\n\n")

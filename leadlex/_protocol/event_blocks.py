"""An event stream's bytes, cut into whole Server-Sent Events, whatever pieces they came in.

Rule: what came is bounded and is whole events before httpx-sse reads it; only `done` or `[DONE]` is an end.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html (9.2.5 and 9.2.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from httpx_sse import EventSource, ServerSentEvent

from leadlex._values.plain import WireError

from .json_text import MAX_EVENT_VALUES, Unusable, loads

MAX_LINE: Final = 1 << 20

MAX_EVENT: Final = 8 << 20

_PIECE: Final = 64 << 10

_BOM: Final = b"\xef\xbb\xbf"


class LineGuard:
    """What cuts the bytes of an event stream into whole events, however they were cut before."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._after_cr = False
        self._line = 0
        self._pending = bytearray()
        self._allowed = _PIECE

    def cut(self, data: bytes) -> bytes:
        """Return the whole events that `data` completes, without BOM and with LF for every line end."""
        if self._head is not None:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        self._note_line(data)
        pending, blank = self._pending, data.rfind(b"\n\n")
        if blank >= 0:
            end = blank + 2
        elif pending.endswith(b"\n") and data.startswith(b"\n"):
            end = 1
        else:
            return self._keep(data)
        if not pending and end == len(data):
            return data
        whole = bytes(pending) + data[:end]
        pending[:] = data[end:]
        return whole

    def ending(self) -> str:
        """Return the last event, where only its line ends are missing and it ends the stream; else nothing."""
        last = ((self._head or b"") + self._pending).decode("utf-8", "replace")
        return f"{last}\n\n" if ends_stream(last) else ""

    def _without_bom(self, data: bytes) -> bytes:
        data = (self._head or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(_BOM)

    def _with_lf(self, data: bytes) -> bytes:
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _note_line(self, data: bytes) -> None:
        """Bound the line that chunks leave unfinished."""
        last = data.rfind(b"\n")
        if self._line or last < 0:
            whole = self._line + (len(data) if last < 0 else data.find(b"\n"))
            if whole > MAX_LINE:
                raise Unusable(f"a line is longer than {MAX_LINE >> 20} MiB")
            self._line = whole
        if last >= 0:
            self._line = len(data) - last - 1

    def _keep(self, data: bytes) -> bytes:
        """Keep an unfinished event and bound it; comments are no part of one and hold no memory."""
        pending = self._pending
        pending += data
        if len(pending) > self._allowed:
            *lines, unfinished = bytes(pending).split(b"\n")
            pending[:] = b"\n".join([*(line for line in lines if not line.startswith(b":")), unfinished])
            if len(pending) > MAX_EVENT:
                raise Unusable(f"an event is larger than {MAX_EVENT >> 20} MiB")
            self._allowed = min(2 * len(pending), MAX_EVENT) + _PIECE  # doubling keeps the whole linear
        return b""


def parsed(block: str) -> Iterator[ServerSentEvent]:
    """Read the events of a block of text."""
    # An event with empty data is httpx-sse's echo of an id; none of this API's has any.
    return (sse for sse in EventSource(cast("Any", _Block(block))).iter_sse() if sse.data)


class _Block:
    """A response with one block of text, for httpx-sse to read."""

    headers: Final = {"content-type": "text/event-stream"}

    def __init__(self, text: str) -> None:
        self._text = text

    def iter_text(self) -> Iterator[str]:
        """Give the text."""
        return iter((self._text,))


_LOOKALIKE = re.compile(r"""\s*["']?\[done\]["']?\s*""", re.IGNORECASE)


def is_end(data: str) -> bool:
    if data.strip(" \t") == "[DONE]":
        return True
    if _LOOKALIKE.fullmatch(data):
        raise WireError("the end of the stream is not the contract's [DONE]")
    return False


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
        if name in ("message", "done") and is_end(data):
            return True
        # Half of one is how a stream looks that was cut.
        return name == "done" and isinstance(loads(data, MAX_EVENT_VALUES), dict)
    except WireError:
        return False

"""Streams as bytes, and ways to cut them.

The ways to cut follow h11's `tr()`: what is right whole is right byte by byte, and with something behind it.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

Event = tuple[str, dict[str, Any]]

DONE_LINE = b"data: [DONE]\n"

#: The capture in the contract, byte by byte.
CAPTURE = b"""event: thinking
data: {"text": "Looking up the contact in your pipeline..."}

event: tool_step
data: {"tool": "contacts.get", "status": "started"}

event: tool_step
data: {"tool": "contacts.get", "status": "completed", "summary": "Found 1 contact"}

event: text
data: {"delta": "Jane Doe is currently", "conversation_id": "conv_01HY1"}

event: text
data: {"delta": " in the Proposal stage...", "conversation_id": "conv_01HY1"}

event: done
data: {"credits_remaining": 4840, "message_id": "msg_01HY1"}

data: [DONE]
"""


def encode_event(event: Event) -> bytes:
    """Write one event as the service does; text stays UTF-8 and is not escaped to ASCII."""
    name, data = event
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def encode_stream(events: Iterable[Event]) -> bytes:
    """Write a whole stream, with its last line."""
    return b"".join(encode_event(event) for event in events) + DONE_LINE


def decode_stream(stream: bytes) -> list[Event]:
    """Read a stream that `encode_stream` could have written; not a decoder for anything else."""
    blocks = (block.split(b"\n") for block in stream.split(b"\n\n") if block.startswith(b"event: "))
    return [(name[7:].decode(), json.loads(data[6:])) for name, data in blocks]


def text_of(stream: bytes) -> str:
    """Join the deltas of a stream."""
    return "".join(data["delta"] for name, data in decode_stream(stream) if name == "text")


CAPTURE_EVENTS = decode_stream(CAPTURE)
CAPTURE_TEXT = text_of(CAPTURE)


def text_events(text: str, *, size: int, conversation_id: str = "conv_01HY1") -> list[Event]:
    """Cut a text into deltas of `size` characters."""
    deltas = (text[start : start + size] for start in range(0, len(text), size))
    return [("text", {"delta": delta, "conversation_id": conversation_id}) for delta in deltas]


def _long_events() -> Iterator[Event]:
    yield "thinking", {"text": "Ich prüfe die Pipeline 🔎 der Kanzlei Müller & Søn…"}
    yield "tool_step", {"tool": "deals.list", "status": "started"}
    yield "tool_step", {"tool": "deals.list", "status": "completed", "summary": "3 Treffer → 2 offen ✅"}
    yield from text_events(LONG_TEXT[:420], size=23)
    yield "tool_step", {"tool": "contacts.get", "status": "started"}
    yield "tool_step", {"tool": "contacts.get", "status": "completed", "summary": "日本語の要約"}
    yield from text_events(LONG_TEXT[420:], size=23)
    yield "done", {"credits_remaining": 4837, "message_id": "msg_01HY2"}


#: Two, three and four bytes a character; a family joined by U+200D; line and paragraph separators, which
#: `str.splitlines` would take for line ends.
LONG_TEXT = (
    "Your pipeline has three deals. 1) Müller & Søn — “Fusion Nord”, Proposal, €120 000, call on Friday. "
    "2) 株式会社サクラ — 知的財産の相談, Discovery, ¥4 500 000; writes 日本語, likes mornings 🌅. "
    "3) Ольга Петрова — «Договор аренды», Negotiation, ₽900 000 🤝. "
    "One family office 👨‍👩‍👧‍👦 asked twice\u2028for a fee quote\u2029and was not answered. "
    "Zażółć gęślą jaźń: two matters wait for a conflict check ⚖️, one letter is unsigned ✍🏽. "
    "Tip: reply to the fee quote first 💬, then send the letter again 📨; both take ten minutes ⏱️. "
    "Ελληνικά, עברית and العربية appear in notes of four contacts, all kept as they were written. "
    "Nothing in this summary was changed in your CRM. Lexi is done 🏁"
)
LONG = encode_stream(_long_events())


def recut(stream: bytes, *, size: int = 5) -> bytes:
    """Write the same stream with its text cut into other deltas of `size` characters."""
    return encode_stream(_with_text(decode_stream(stream), text_of(stream), size=size))


def reword(stream: bytes, *, keep: int = 12, version: int = 1) -> bytes:
    """Write a stream that says something else after the first `keep` characters.

    Args:
        stream: The first generation.
        keep: How many characters both have in common, exactly, if there are so many.
        version: Tells one rewording from another.
    """
    text = text_of(stream)
    other = f"{text[:keep]}\u2260 in other words (version {version}): {text[keep:].upper()}"
    return encode_stream(_with_text(decode_stream(stream), other, size=9))


def _with_text(events: list[Event], text: str, *, size: int) -> list[Event]:
    """Put a text in the place where the first delta stood."""
    kinds = [name for name, _ in events]
    at = kinds.index("text")
    deltas = text_events(text, size=size, conversation_id=events[at][1]["conversation_id"])
    return [*events[:at], *deltas, *(event for event in events[at:] if event[0] != "text")]


def cut(data: bytes, *sizes: int) -> list[bytes]:
    """Cut bytes into pieces of the given sizes, over and over; no size gives one piece."""
    pieces: list[bytes] = []
    start = 0
    for size in itertools.cycle(sizes or (len(data),)):
        if start >= len(data):
            return pieces
        pieces.append(data[start : start + size])
        start += size
    return pieces


def cuts(data: bytes, tail: bytes = b"") -> dict[str, list[bytes]]:
    """Give the ways to cut some bytes by name: whole, byte by byte, and in pieces of 2, 3 and 7.

    Args:
        data: What is cut.
        tail: What comes behind it; when given, each way is there with it and without.
    """
    ways = {"whole": cut(data), **{f"by {size}": cut(data, size) for size in (1, 2, 3, 7)}}
    if not tail:
        return ways
    glued = {"whole, tail glued on": cut(data + tail)}
    return ways | {f"{name}, with a tail": [*pieces, tail] for name, pieces in ways.items()} | glued

"""How a stream is written: Server-Sent Events."""

import json
import re
from collections.abc import Iterator, Mapping

from leadlex._values.events import TextDelta, Thinking, ToolStep

from ._lexi import Reply

DONE = b"data: [DONE]\n"
TOOL_WORDS = 8  # a tool takes as long as so many words


def frame(event: str, data: Mapping[str, object]) -> bytes:
    """Write one event."""
    return _block(event, json.dumps(data, ensure_ascii=False))


def paced_frames(reply: Reply, conversation_id: str) -> Iterator[tuple[int, bytes]]:
    """Write a reply up to its last word, each event with how many words' time passes before it."""
    for event in reply.events:
        match event:
            case Thinking(text, extra=extra):
                yield 0, frame("thinking", {"text": text, **extra})
            case ToolStep(tool, status, summary, extra=extra):
                told = {"tool": tool, "status": status} | ({} if summary is None else {"summary": summary})
                yield TOOL_WORDS, frame("tool_step", {**told, **extra})
            case TextDelta(delta, own_id, extra=extra):
                yield 1, frame("text", {"delta": delta, "conversation_id": own_id or conversation_id, **extra})
            case _:
                yield 0, _block(event.event, event.data)


def _block(event: str, data: str) -> bytes:
    lines = "".join(f"data: {line}\n" for line in re.split("\r\n|\r|\n", data))
    return f"event: {event}\n{lines}\n".encode()

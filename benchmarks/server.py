"""One server that speaks each client's dialect, on raw asyncio and HTTP/1.1 with chunks.

The first segment of a path is the plan of the answer, `<events>-<events per chunk>-<pause in ms>`; what follows is the
API's own path. A paused stream waits before each chunk, and its text is the moment at which it was sent, in nanoseconds
of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from attrs import frozen

CONVERSATIONS: Final = 10_000
_WORD: Final = " word"
_AT_ONCE: Final = 64 << 10


@frozen
class Plan:
    """How much is streamed, and how.

    Args:
        events: How many deltas.
        per_chunk: How many of them in one HTTP chunk.
        pause: Milliseconds before each chunk, and before a page of a listing.
    """

    events: int = 20
    per_chunk: int = 1
    pause: int = 0

    def __str__(self) -> str:
        return f"{self.events}-{self.per_chunk}-{self.pause}"


# Dialects ----------------------------------------------------------------------------------------------------------


@frozen
class Dialect:
    """What one API says.

    Args:
        event: Writes one delta.
        reply: A whole answer.
        opening: What a stream begins with.
        ending: What it ends with.
    """

    event: Callable[[str], bytes]
    reply: object
    opening: bytes = b""
    ending: bytes = b""


def _sse(data: object, event: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def _completion(content: str, reason: str | None, kind: str, place: str) -> dict[str, Any]:
    choice = {"index": 0, place: {"role": "assistant", "content": content}, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": "invented", "choices": [choice]}


_LEXI: Final = Dialect(
    event=lambda text: _sse({"delta": text, "conversation_id": "conv_1"}, "text"),
    reply={
        "data": {"response": _WORD, "task_id": None, "requires_approval": False, "conversation_id": "conv_1"},
    },
    ending=_sse({"credits_remaining": 4840, "message_id": "msg_1"}, "done") + _sse("[DONE]"),
)
_OPENAI: Final = Dialect(
    event=lambda text: _sse(_completion(text, None, "chat.completion.chunk", "delta")),
    reply=_completion(_WORD, "stop", "chat.completion", "message"),
    ending=_sse(_completion("", "stop", "chat.completion.chunk", "delta")) + _sse("[DONE]"),
)


def _anthropic(kind: str, **fields: object) -> bytes:
    return _sse({"type": kind, **fields}, kind)


_MESSAGE: Final = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "invented",
    "stop_reason": None,
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}
_ANTHROPIC: Final = Dialect(
    event=lambda text: _anthropic("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
    reply={**_MESSAGE, "content": [{"type": "text", "text": _WORD}], "stop_reason": "end_turn"},
    opening=_anthropic("message_start", message={**_MESSAGE, "content": []})
    + _anthropic("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ending=_anthropic("content_block_stop", index=0)
    + _anthropic("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 1})
    + _anthropic("message_stop"),
)
_DIALECTS: Final = {
    "/v1/lexi/chat": _LEXI,
    "/v1/lexi/chat/stream": _LEXI,
    "/v1/chat/completions": _OPENAI,
    "/v1/messages": _ANTHROPIC,
}

# Answers -----------------------------------------------------------------------------------------------------------

Pieces = Iterator[bytes | float]
"""What an answer is made of: bytes to send, and seconds to wait."""

_HEAD: Final = (
    "HTTP/1.1 200 OK\r\nX-Request-ID: req_1\r\nX-RateLimit-Limit: 1000000\r\nX-RateLimit-Remaining: 999999\r\n"
    "X-RateLimit-Reset: 1708905600\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n"
)


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    return _HEAD.format(kind="application/json", framing=f"Content-Length: {len(body)}").encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _stream(dialect: Dialect, plan: Plan) -> Pieces:
    head = _HEAD.format(kind="text/event-stream", framing="Transfer-Encoding: chunked").encode()
    yield head + _chunk(dialect.opening)
    yield from _paused(dialect, plan) if plan.pause else _unpaused(dialect, plan)
    yield _chunk(dialect.ending) + b"0\r\n\r\n"


def _paused(dialect: Dialect, plan: Plan) -> Pieces:
    for _ in range(plan.events // plan.per_chunk):
        yield plan.pause / 1000
        yield _chunk(dialect.event(str(time.monotonic_ns())) * plan.per_chunk)


def _unpaused(dialect: Dialect, plan: Plan) -> Pieces:
    chunk = _chunk(dialect.event(_WORD) * plan.per_chunk)
    chunks, together = plan.events // plan.per_chunk, max(1, _AT_ONCE // len(chunk))
    for sent in range(0, chunks, together):
        yield chunk * min(together, chunks - sent)


def _page(query: str, plan: Plan) -> Pieces:
    given = parse_qs(query)
    yield plan.pause / 1000
    yield _page_of(int(given["page"][0]), int(given["per_page"][0]))


@cache
def _page_of(page: int, per_page: int) -> bytes:
    numbers = range((page - 1) * per_page, min(page * per_page, CONVERSATIONS))
    meta = {"page": page, "per_page": per_page, "total": CONVERSATIONS}
    return _json({"data": {"conversations": [_summary(number) for number in numbers]}, "meta": meta})


def _summary(number: int) -> dict[str, Any]:
    return {
        "id": f"conv_{number}",
        "title": "Series B research for Acme Corp",
        "message_count": 14,
        "last_message_at": "2026-04-17T10:30:00Z",
        "context": {"contact_id": "123e4567-e89b-12d3-a456-426614174000"},
        "archived": False,
        "created_at": "2026-04-15T09:00:00Z",
    }


def answer(target: str, body: bytes) -> Pieces:
    """Return what is said to a request."""
    parts = urlsplit(target)
    numbers, _, path = parts.path.removeprefix("/").partition("/")
    plan = Plan(*map(int, numbers.split("-")))
    if path == "v1/lexi/conversations":
        return _page(parts.query, plan)
    dialect = _DIALECTS[f"/{path}"]
    streams = path.endswith("/stream") or b'"stream":true' in body.replace(b" ", b"")
    return _stream(dialect, plan) if streams else iter([_json(dialect.reply)])


# Serving -----------------------------------------------------------------------------------------------------------


class _Connection(asyncio.Protocol):
    """A server's side of one connection, which answers its requests one after the other."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._pieces: Pieces | None = None
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's
        self._pieces = iter(())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._pieces is None:
            self._begin()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._go_on()

    def _begin(self) -> None:
        head, blank, rest = bytes(self._received).partition(b"\r\n\r\n")
        length = _content_length(head)
        if blank and len(rest) >= length:
            self._received[:] = rest[length:]
            self._pieces = answer(head.split(b" ", 2)[1].decode(), rest[:length])
            self._go_on()

    def _go_on(self) -> None:
        while self._pieces is not None and not self._full:
            piece = next(self._pieces, None)
            if piece is None:
                self._pieces = None
                self._begin()
            elif isinstance(piece, bytes):
                self._transport.write(piece)
            else:
                asyncio.get_running_loop().call_later(piece, self._go_on)
                return


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


def allow_many_sockets() -> None:
    """Raise the number of files that this process may open to what the system allows, as a thousand streams need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # Its standard input ends with whoever started it.
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def running() -> Generator[str]:
    """Run the server in a process of its own and give its URL."""
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield (process.stdout.readline() if process.stdout else "").strip()
        process.communicate()


if __name__ == "__main__":
    allow_many_sockets()
    asyncio.run(_serve())

"""Faults to script. Each is an ASGI middleware for one request; `KINDS`, at the end, names them."""

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import _connection
from ._replies import error
from ._streams import frame


class Fault:
    """What goes wrong with one request; those with `stream_only` wait for the next stream."""

    stream_only: ClassVar = False

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request in a faulty way."""
        raise NotImplementedError


@dataclass(frozen=True)
class RateLimit(Fault):
    """Refuse with 429: until midnight UTC, or for `retry_after` seconds."""

    retry_after: int | None = None

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer without the application."""
        hint = (
            {"X-RateLimit-Remaining": "0"}
            if self.retry_after is None
            else {"Retry-After": str(self.retry_after)}
        )
        await error(429, "rate_limited", "Rate limit exceeded", hint)(scope, receive, send)


@dataclass(frozen=True)
class NoCredits(Fault):
    """Refuse with 402, whatever the balance is."""

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer without the application."""
        await error(402, "insufficient_credits", "No credits left")(scope, receive, send)


@dataclass(frozen=True)
class ServerError(Fault):
    """Fail with a status of 500 to 599, before any work."""

    status: int = 500

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer without the application."""
        await error(self.status, "internal_error", "Something went wrong")(scope, receive, send)


@dataclass(frozen=True)
class Slow(Fault):
    """Let some seconds pass before the work begins."""

    seconds: float = 1.0

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Sleep, then answer."""
        await asyncio.sleep(self.seconds)
        await app(scope, receive, send)


@dataclass(frozen=True)
class _Broken(Fault):
    """A stream that goes wrong after so many bytes of its body (0: right after the head)."""

    stream_only: ClassVar = True
    after_bytes: int = 0

    async def __call__(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the stream on up to the place, then strike, and let nothing more through."""
        left, struck = self.after_bytes, False

        async def tap(message: Message) -> None:
            nonlocal left, struck
            if struck:
                return
            body = message.get("body", b"")
            struck = message["type"] == "http.response.body" and len(body) >= left
            if struck:
                await self.strike(body, left, scope, send)
            else:
                await send(message)
            left -= len(body)

        await app(scope, receive, tap)

    async def strike(self, body: bytes, left: int, scope: Scope, send: Send) -> None:
        """Go wrong in this piece of the body, of which the first `left` bytes are still good."""
        raise NotImplementedError


@dataclass(frozen=True)
class DropStream(_Broken):
    """Cut the connection in the middle of a chunk, with FIN, or with RST (`reset`), which may swallow bytes."""

    reset: bool = False

    async def strike(self, body: bytes, left: int, scope: Scope, send: Send) -> None:
        """Cut."""
        await send(_piece(body[:left]))
        _connection.of(scope).cut(reset=self.reset)


@dataclass(frozen=True)
class Stall(_Broken):
    """Say nothing more, and keep the connection until the client leaves."""

    async def strike(self, body: bytes, left: int, scope: Scope, send: Send) -> None:
        """Wait for the client to lose its patience."""
        await send(_piece(body[:left]))
        await _connection.of(scope).lost.wait()


@dataclass(frozen=True)
class ErrorEvent(_Broken):
    """End the stream with an `error` event, after the first whole event that reaches `after_bytes`."""

    code: str = "internal_error"
    message: str = "Something went wrong"

    async def strike(self, body: bytes, left: int, scope: Scope, send: Send) -> None:
        """Say it and end."""
        await send(_piece(body if left else b""))
        await send(_piece(frame("error", {"code": self.code, "message": self.message})))
        await send({"type": "http.response.body"})


def _piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


KINDS: dict[str, type[Fault]] = {
    "drop_stream": DropStream,
    "error_event": ErrorEvent,
    "no_credits": NoCredits,
    "rate_limit": RateLimit,
    "server_error": ServerError,
    "slow": Slow,
    "stall": Stall,
}


def make(kind: str, **how: object) -> Fault:
    """Make a fault; ValueError names the kinds there are, TypeError tells of an option that the kind does not have."""
    if kind not in KINDS:
        raise ValueError(f"no such fault: {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](**how)

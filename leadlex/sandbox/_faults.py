"""Faults to script: each function of `KINDS`, with its options, makes an ASGI middleware for one request."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from leadlex._errors import ConfigurationError

from . import _connection
from ._frames import frame
from ._replies import error

Fault = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]
Strike = Callable[[bytes, int, Scope, Send], Awaitable[None]]
FaultKind = Literal[
    "drop_answer",
    "drop_stream",
    "error_event",
    "failed_task",
    "malformed",
    "no_credits",
    "rate_limit",
    "server_error",
    "slow",
    "stall",
]
"""The faults that `Sandbox.fail_next` knows by name."""

FAILS = "leadlex.fails"  # what the scope of an approval has whose task fails
# The codes of the service; the one of 422 is assumed, since its documentation has none.
CODES = {
    400: "validation_error",
    401: "invalid_key",
    402: "insufficient_credits",
    403: "insufficient_permissions",
    404: "not_found",
    409: "conflict",
    422: "idempotency_key_reused",
    429: "rate_limited",
}
STATUSES = range(400, 600)


def refusal(status: int, code: str | None = None, message: str = "Something went wrong") -> tuple[str, Fault]:
    """Refuse before any work, with any status and code; the code is given too."""
    if isinstance(status, bool) or status not in STATUSES:
        raise ConfigurationError(f"the status of an error is from {STATUSES[0]} to {STATUSES[-1]}, not {status}")
    code = CODES.get(status, "internal_error") if code is None else code
    return code, _refused(status, code, message)


def rate_limit(retry_after: int | None = None) -> Fault:
    """Refuse with 429: until midnight UTC, or for `retry_after` seconds."""
    hint = {"X-RateLimit-Remaining": "0"} if retry_after is None else {"Retry-After": str(retry_after)}
    return _refused(429, "rate_limited", "Rate limit exceeded", hint)


def no_credits() -> Fault:
    """Refuse with 402, whatever the balance is."""
    return _refused(402, "insufficient_credits", "No credits left")


def server_error(status: int = 500) -> Fault:
    """Fail before any work."""
    return _refused(status, "internal_error", "Something went wrong")


def slow(seconds: float = 1.0) -> Fault:
    """Let some seconds pass before the work begins."""

    async def fault(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(seconds)
        await app(scope, receive, send)

    return fault


def drop_stream(after_bytes: int = 0, *, reset: bool = False) -> Fault:
    """Cut the connection in the middle of a chunk: with FIN, or with RST, which may swallow bytes."""
    return _broken(after_bytes, _cut(reset=reset))


def drop_answer(after_bytes: int | None = None, *, reset: bool = False) -> Fault:
    """Cut the connection once the work is done: before the answer begins, or after so many bytes of its body."""
    if after_bytes is not None:
        return _broken(after_bytes, _cut(reset=reset))

    async def fault(app: ASGIApp, scope: Scope, receive: Receive, _send: Send) -> None:
        async def tap(_message: Message) -> None:
            _connection.of(scope).cut(reset=reset)

        await app(scope, receive, tap)

    return fault


def malformed(body: str = '{"data": {"response": "') -> Fault:
    """Do the work, and send something else than the answer that it gave."""

    async def fault(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        content = body.encode()

        async def tap(message: Message) -> None:
            if message["type"] == "http.response.start":  # the work is done, and its own body is not sent
                MutableHeaders(scope=message)["Content-Length"] = str(len(content))
                await send(message)
                await send({"type": "http.response.body", "body": content})

        await app(scope, receive, tap)

    return fault


def failed_task() -> Fault:
    """Let a task fail that is approved."""

    async def fault(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, FAILS: True}, receive, send)

    return fault


def stall(after_bytes: int = 0) -> Fault:
    """Say nothing more, until the client leaves."""

    async def strike(body: bytes, left: int, _scope: Scope, send: Send) -> None:
        await send(_piece(body[:left]))
        await asyncio.Event().wait()

    return _broken(after_bytes, strike)


def error_event(code: str = "internal_error", message: str = "Something went wrong", after_bytes: int = 0) -> Fault:
    """End the stream with an `error` event, after the first whole event that reaches `after_bytes`."""

    async def strike(body: bytes, left: int, _scope: Scope, send: Send) -> None:
        await send(_piece((body if left else b"") + frame("error", {"code": code, "message": message})))
        await send({"type": "http.response.body"})

    return _broken(after_bytes, strike)


KINDS: Mapping[str, Callable[..., Fault]] = {
    "drop_answer": drop_answer,
    "drop_stream": drop_stream,
    "error_event": error_event,
    "failed_task": failed_task,
    "malformed": malformed,
    "no_credits": no_credits,
    "rate_limit": rate_limit,
    "server_error": server_error,
    "slow": slow,
    "stall": stall,
}
# What paths end in that a fault waits for; the others take the next request.
PATHS = {"drop_stream": "/stream", "error_event": "/stream", "stall": "/stream", "failed_task": "/approve"}


def make(kind: str, *how: Any, **named: Any) -> Fault:  # noqa: ANN401 - each kind has options of its own
    """Make a fault; ConfigurationError names the kinds there are, TypeError an option that the kind does not have."""
    if kind not in KINDS:
        raise ConfigurationError(f"no such fault: {kind!r}; there are {', '.join(KINDS)}")
    return KINDS[kind](*how, **named)


def _cut(*, reset: bool) -> Strike:
    async def strike(body: bytes, left: int, scope: Scope, send: Send) -> None:
        await send(_piece(body[:left]))
        _connection.of(scope).cut(reset=reset)

    return strike


def _refused(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Fault:
    async def fault(_app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        await error(status, code, message, headers)(scope, receive, send)

    return fault


def _broken(after_bytes: int, strike: Strike) -> Fault:
    """Pass an answer on up to so many bytes of its body, then strike, and let nothing more through."""

    async def fault(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        left, struck = after_bytes, False

        async def tap(message: Message) -> None:
            nonlocal left, struck
            body = message.get("body", b"")
            if message["type"] == "http.response.start" or len(body) < left:
                await send(message)
            elif not struck:
                struck = True
                await strike(body, left, scope, send)
            left -= len(body)

        await app(scope, receive, tap)

    return fault


def _piece(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}

"""Connections: what is idle is kept for a while, and one limit holds for all.

Rule: it decides nothing about calls, and speaks no HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from itertools import takewhile
from typing import Any, Final, Protocol

import anyio
import httpcore
import httpx

from .limiter import ConnectionLimiter

KEEPALIVE: Final = 5.0
"""Seconds an idle connection is kept; httpx's default, short enough that servers seldom close it first."""


class Connection(Protocol):
    """A connection, opened by the first request that is sent on it."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the head of its answer; the stream in it is closed before the next request.

        Raises:
            httpcore.ConnectionNotAvailable: Nothing was sent, since it can't be used any more.
        """
        ...

    def is_idle(self) -> bool:
        """Tell whether it can be used again: the last answer was whole, and nothing came that nobody asked for."""
        ...

    async def aclose(self) -> None:
        """Close it, whatever it is doing."""
        ...


class PooledTransport(httpx.AsyncBaseTransport):
    """Send each request on the connection that became idle last, else on a new one, within one limit.

    httpcore's pool looks at every connection for every request (1,000 streams cost 19 s of CPU), and keeps one for ever
    whose request was cancelled between being assigned and connecting.

    Args:
        connect: Makes a connection to where a URL points; all URLs of a client point to one place.
        max_connections: How many may be in use at once.
    """

    def __init__(self, connect: Callable[[httpx.URL], Connection], max_connections: int) -> None:
        self._connect = connect
        self._limiter = ConnectionLimiter(max_connections)
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the head of its answer."""
        await self._limiter.take(request)
        try:
            connection, response = await self._send(request)
        except BaseException:
            self._limiter.give_back()
            raise
        body = _Body(response.stream, partial(self._take_back, connection))
        response.stream = PooledStream(body, self._limiter)
        return response

    async def aclose(self) -> None:
        """Close all connections; requests under way break."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        await _close(connections)

    async def _send(self, request: httpx.Request) -> tuple[Connection, httpx.Response]:
        while True:
            connection = self._idle.pop() if self._idle else self._connect(request.url)
            self._busy.add(connection)
            try:
                return connection, await connection.send(request)
            except BaseException as error:
                self._busy.discard(connection)
                await _close([connection])
                if not isinstance(error, httpcore.ConnectionNotAvailable):
                    raise

    async def _take_back(self, connection: Connection) -> None:
        """Keep a connection if it is idle, and close those that were idle for too long: the oldest stand first."""
        old = [*takewhile(_is_over, self._idle)]
        del self._idle[: len(old)]
        self._busy.discard(connection)
        (self._idle if connection.is_idle() else old).append(connection)
        await _close(old)


def _is_over(connection: Connection) -> bool:
    return not connection.is_idle()


async def _close(connections: list[Connection]) -> None:
    if connections:
        with anyio.CancelScope(shield=True):
            for connection in connections:
                await connection.aclose()


class _Body(httpx.AsyncByteStream):
    """A body that gives its connection back when it is closed."""

    def __init__(self, stream: Any, give_back: Callable[[], Awaitable[None]]) -> None:  # noqa: ANN401  # any async one
        self._stream = stream
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]  # an async iterator of bytes

    async def aclose(self) -> None:
        """Close the body."""
        try:
            await self._stream.aclose()
        finally:
            await self._give_back()


class PooledStream(httpx.AsyncByteStream):
    """Give a connection's place back when its response is closed.

    Args:
        stream: The body.
        limiter: Where the place belongs.
    """

    def __init__(self, stream: Any, limiter: ConnectionLimiter) -> None:  # noqa: ANN401  # any async one
        self._stream = stream
        self._limiter: ConnectionLimiter | None = limiter

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]  # an async iterator of bytes

    async def aclose(self) -> None:
        """Close the body, once."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            try:
                await self._stream.aclose()
            finally:
                limiter.give_back()

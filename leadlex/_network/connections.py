"""Connections: what is idle is kept for a while, and one limit holds for all.

Rule: it decides nothing about calls, and speaks no HTTP.
"""

from __future__ import annotations

import sys
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

    def send(self, request: httpx.Request, /) -> Awaitable[httpcore.Response]:
        """Send a request and return the head of its answer.

        Raises:
            httpcore.ConnectionNotAvailable: Nothing was sent, since it can't be used any more.
        """
        ...

    def read(self, answer: httpcore.Response, /) -> Any:  # noqa: ANN401  # an async iterable of bytes
        """Return the body of an answer, which is read, and closed before the next request is sent."""
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
        _tell_pytest(request)
        if not self._limiter.takes_now():
            await self._limiter.take(request)
        try:
            while True:
                connection = self._idle.pop() if self._idle else self._connect(request.url)
                self._busy.add(connection)
                try:
                    return self._response(connection, await connection.send(request))
                except BaseException as error:
                    await self._drop(connection)
                    if not isinstance(error, httpcore.ConnectionNotAvailable):
                        raise
        except BaseException:
            self._limiter.give_back()
            raise

    async def aclose(self) -> None:
        """Close all connections; requests under way break."""
        connections = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        await _close(connections)

    def _response(self, connection: Connection, answer: httpcore.Response) -> httpx.Response:
        stream = PooledStream(connection.read(answer), self._limiter, partial(self._take_back, connection))
        return httpx.Response(answer.status, headers=answer.headers, stream=stream, extensions=answer.extensions)

    async def _drop(self, connection: Connection) -> None:
        self._busy.discard(connection)
        await _close([connection])

    def _take_back(self, connection: Connection) -> list[Connection]:
        """Keep a connection if it is idle, and return what is to be closed: of the others the oldest stand first."""
        over = [*takewhile(_is_over, self._idle)]
        del self._idle[: len(over)]
        self._busy.discard(connection)
        (self._idle if connection.is_idle() else over).append(connection)
        return over


def _tell_pytest(request: httpx.Request) -> None:
    """Let the plugin of pytest, in whose runs alone it is loaded, know what httpx's own transport does not send."""
    plugin = sys.modules.get("leadlex.pytest_plugin")
    if plugin is not None:
        plugin.note_request(request.url)


def _is_over(connection: Connection) -> bool:
    return not connection.is_idle()


async def _close(connections: list[Connection]) -> None:
    with anyio.CancelScope(shield=True):
        for connection in connections:
            await connection.aclose()


class PooledStream(httpx.AsyncByteStream):
    """Give a connection and its place back when its response is closed.

    Args:
        stream: The body.
        limiter: Where the place belongs.
        take_back: Takes the connection, and returns those that are to be closed.
    """

    def __init__(
        self,
        stream: Any,  # noqa: ANN401  # an async iterable of bytes
        limiter: ConnectionLimiter,
        take_back: Callable[[], list[Connection]] = list,
    ) -> None:
        self._stream = stream
        self._limiter: ConnectionLimiter | None = limiter
        self._take_back = take_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]  # an async iterator of bytes

    async def aclose(self) -> None:
        """Close the body, once."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            try:
                await self._stream.aclose()
            finally:
                over = self._take_back()
                limiter.give_back()
                if over:
                    await _close(over)

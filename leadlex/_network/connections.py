"""Connections: a pool that heals, in shards.

Rule: it decides nothing about calls.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import httpcore
import httpx

from .limiter import ConnectionLimiter
from .patches import HealedPool, tune
from .sockets import Patient, socket_options

SHARDS: Final = 32


KEEPALIVE: Final = 5.0
"""Seconds an idle connection is kept; httpx's default, short enough that servers seldom close it first."""


class PooledTransport(httpx.AsyncBaseTransport):
    """Spread requests over small pools with one limit for all.

    httpcore's pool looks at every connection for every request: 1,000 streams in one pool cost 19 s of CPU.

    Args:
        ssl_context: Shared by all connections.
        proxy: Where all traffic goes through, if anywhere.
        max_connections: How many connections there may be at once.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None, proxy: httpcore.Proxy | None, max_connections: int) -> None:
        self._limiter = ConnectionLimiter(max_connections)
        network = Patient()
        self._shards = [
            HealedPool(
                ssl_context=ssl_context,
                proxy=proxy,
                max_connections=None,
                keepalive_expiry=KEEPALIVE,
                socket_options=socket_options(),
                network_backend=network,
            )
            for _ in range(min(SHARDS, max_connections))
        ]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the shard with an idle connection, else through the least loaded."""
        await self._limiter.take(request)
        try:
            answer = await self._shard().handle_async_request(_translated(request))
            tune(cast("Any", answer.stream)._pool_request.connection)  # noqa: SLF001  # nowhere public
        except BaseException:
            self._limiter.give_back()
            raise
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=PooledStream(answer.stream, self._limiter, _suspect(answer)),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close all connections; requests under way break."""
        for shard in self._shards:
            await shard.aclose()

    def _shard(self) -> HealedPool:
        for shard in self._shards:
            if shard.spare > 0:
                return shard
        return min(self._shards, key=_load)


def _load(shard: HealedPool) -> int:
    return shard.load


def _translated(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


class PooledStream(httpx.AsyncByteStream):
    """Give a connection's place back when its response is closed.

    Args:
        stream: The body.
        places: Where the place belongs.
        suspect: A connection that is closed for good, whatever the body says.
    """

    def __init__(self, stream: Any, limiter: ConnectionLimiter, suspect: Any = None) -> None:  # noqa: ANN401  # httpcore's
        self._stream = stream
        self._limiter: ConnectionLimiter | None = limiter
        self._suspect = suspect

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]  # an async iterator of bytes

    async def aclose(self) -> None:
        """Close the body, once."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            try:
                if self._suspect is not None:
                    await self._suspect.aclose()
                await self._stream.aclose()
            finally:
                limiter.give_back()


def _suspect(answer: httpcore.Response) -> Any:  # noqa: ANN401  # httpcore's network stream
    # RFC 9112, 6.1: a server that says both a length and chunks may be one that smuggles; the connection ends with it.
    framed_twice = {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in answer.headers}
    return answer.extensions["network_stream"] if framed_twice else None

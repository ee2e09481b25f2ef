"""A connection that httpcore makes, directly or by a proxy, and speaks HTTP/1.1 on."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from typing import Any

import httpcore
import httpx

from .connections import KEEPALIVE
from .patches import has_rest, parser_of, tune
from .sockets import Network, has_more


class HTTP1Connection:
    """A connection to one place, by httpcore's own way of making one.

    Args:
        ssl_context: Shared by all connections.
        proxy: Where all traffic goes through, if anywhere.
        url: Points to the place.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None, proxy: httpcore.Proxy | None, url: httpx.URL) -> None:
        self._network = Network()
        # The pool is asked for nothing but one connection: it knows which kind, direct or by a proxy.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context, proxy=proxy, keepalive_expiry=KEEPALIVE, network_backend=self._network
        )
        self._inner = pool.create_connection(_translated(url).origin)
        self._used = False
        self._suspect = False
        self._secure: ssl.SSLObject | None = None

    def send(self, request: httpx.Request) -> Awaitable[httpcore.Response]:
        """Send a request and return the head of its answer.

        Raises:
            httpcore.ConnectionNotAvailable: It was used, and can't be used again.
        """
        if self._used and not self.is_idle():
            raise httpcore.ConnectionNotAvailable
        return self._inner.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=_translated(request.url),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )

    def read(self, answer: httpcore.Response) -> Any:  # noqa: ANN401  # httpcore's stream
        """Return the body of an answer."""
        if not self._used:
            self._begin(answer)
        self._suspect = _is_framed_twice(answer)
        return answer.stream

    def _begin(self, answer: httpcore.Response) -> None:
        self._used = True
        network = answer.extensions.get("network_stream")
        if network is None:  # respx answered: nothing was connected
            return
        self._secure = network.get_extra_info("ssl_object")
        self._inner = parser_of(answer, self._inner)
        tune(self._inner)

    def is_idle(self) -> bool:
        """Tell whether it can be used again; httpcore itself takes whatever came more for the next answer."""
        inner, secure = self._inner, self._secure
        if self._suspect or not inner.is_idle() or inner.has_expired():
            return False
        return not (has_rest(inner) or (secure and has_more(secure)))

    async def aclose(self) -> None:
        """Close it, and the socket too where httpcore had not got hold of it yet."""
        await self._inner.aclose()
        await self._network.aclose()


def _translated(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _is_framed_twice(answer: httpcore.Response) -> bool:
    # RFC 9112, 6.1: a server that says both a length and chunks may be one that smuggles; the connection ends with it.
    return {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in answer.headers}

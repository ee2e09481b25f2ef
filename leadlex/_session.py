"""Connections over aiohttp, which has one pool for any number of streams.

Rule: aiohttp moves bytes and decides nothing: it repeats, decodes, redirects and times nothing, and keeps no cookies.

It gives no trace of httpcore's, so a request counts as sent from the moment it is handed over (`_retry.Progress`), and
it looks up no read timeout again, so `_body.Clocks` counts the idle time.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from functools import lru_cache
from typing import Any, Final, Self

import aiohttp
import httpx
from anyio.lowlevel import cancel_shielded_checkpoint
from yarl import URL

from ._errors import ConfigurationError
from ._pool import KEEPALIVE, Held, Places, environment_proxy, socket_options

_PIECE: Final = 64 << 10
"""Bytes of a request's body that are written at once."""

# The first that fits; None is aiohttp's own words.
_KINDS: Final[tuple[tuple[type[Exception], type[httpx.TransportError], str | None], ...]] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, None),
    (TimeoutError, httpx.WriteTimeout, None),
    (aiohttp.ClientConnectorError, httpx.ConnectError, None),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError, None),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError, "Server disconnected without sending a response"),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, None),
)


def _translated(error: Exception) -> httpx.TransportError:
    """Return httpx's word for an exception, without that itself: it holds the request's headers, and so the key."""
    for kind, told, words in _KINDS:
        if isinstance(error, kind):
            return told(words or str(error))
    return httpx.ReadError(str(error))


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    # aiohttp sends a GET, PUT or DELETE again when a kept connection breaks, but not after an error it does not know.
    try:
        return await handler(request)
    except (aiohttp.ClientError, OSError) as error:
        told = _translated(error)
    raise told


class SessionTransport(httpx.AsyncBaseTransport):
    """Send requests through one aiohttp session, made at the first of them.

    Args:
        context: What TLS connections share.
        max_connections: How many connections there may be at once.
    """

    def __init__(self, context: ssl.SSLContext, max_connections: int) -> None:
        self._context = context
        self._places = Places(max_connections)
        self._proxy = lru_cache(maxsize=16)(_proxy)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the head of its answer.

        Raises:
            ConfigurationError: No asyncio loop runs.
        """
        session, times = self._open_session(), request.extensions["timeout"]
        await self._places.take(request)
        try:
            answer = await session.request(
                request.method,
                # As it is: a URL that is parsed is also normalised.
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=_data(request.content, times["write"]),
                timeout=aiohttp.ClientTimeout(connect=times["connect"]),
                allow_redirects=False,
                **self._proxy(request.url.scheme, f"{request.url.host}:{request.url.port or 443}"),
            )
        except BaseException:
            self._places.give_back()
            raise
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=Held(_Body(answer), self._places))

    async def aclose(self) -> None:
        """Close all connections; requests under way break."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise ConfigurationError("aiohttp_client runs under asyncio only; leave it out under trio.") from None
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=self._context, limit=0, keepalive_timeout=KEEPALIVE, socket_factory=_socket
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                middlewares=(_once,),
            )
        return self._session


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self._error: httpx.TransportError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = b"" if self._error else await self._read()
        if not data:
            raise self._error or StopAsyncIteration
        return data

    async def _read(self) -> bytes:
        content = self._answer.content
        try:
            return await content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            self._error = _translated(error)
        # What came before the break is still there, behind the exception.
        content.set_exception(None)  # type: ignore[arg-type]  # it only keeps it
        return content.read_nowait()

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        self._answer.close()
        # asyncio closes a socket in the next turn of its loop.
        await cancel_shielded_checkpoint()


class _Paced(aiohttp.BytesIOPayload):
    """Write a large body piece by piece, each in time: aiohttp has no clock for it."""

    def __init__(self, content: bytes, seconds: float) -> None:
        super().__init__(io.BytesIO(content))
        self._seconds = seconds

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:  # noqa: ANN401, ARG002  # aiohttp's
        """Write all of it.

        Raises:
            TimeoutError: A piece was not taken.
        """
        try:
            while piece := self._value.read(_PIECE):
                async with asyncio.timeout(self._seconds):
                    await writer.write(piece)
        except BaseException:
            # Closed politely, a socket would wait for its last bytes to be taken.
            writer.transport.abort()
            raise


def _data(content: bytes, seconds: float) -> bytes | _Paced | None:
    return (content if len(content) <= _PIECE else _Paced(content, seconds)) or None


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    for option in socket_options():
        made.setsockopt(*option)
    return made


# Proxies -----------------------------------------------------------------------------------------------------------


def _proxy(scheme: str, place: str) -> dict[str, Any]:
    # Plain http is this machine: a proxy would only learn the key. A proxy that is reached by TLS is trusted as the
    # session is.
    found = environment_proxy(place, None) if scheme == "https" else None
    if found is None:
        return {}
    if found.url.scheme.startswith(b"socks"):
        raise ConfigurationError("aiohttp_client knows no SOCKS proxy; leave it out, or set HTTPS_PROXY to another.")
    headers = {name.decode(): value.decode() for name, value in found.headers}
    return {"proxy": bytes(found.url).decode(), "proxy_headers": headers}

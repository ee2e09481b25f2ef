"""Connections over aiohttp, which has one pool for any number of streams.

Rule: aiohttp moves bytes and decides nothing: it repeats, decodes, redirects and times nothing, and keeps no cookies.
What it does is told to the request's trace in httpcore's words, so that how far an attempt came is known here too.
"""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Any, Final, Self, cast

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError, TransferEncodingError
from anyio.lowlevel import cancel_shielded_checkpoint
from yarl import URL

from leadlex._errors import ConfigurationError

from .connections import KEEPALIVE, PooledStream
from .limiter import ConnectionLimiter
from .names import addresses_of
from .proxies import proxy_for
from .sockets import is_readable, socket_options
from .timeouts import Alarm, Limit, alarm_here

_PIECE: Final = 64 << 10
"""Bytes of a request's body that are written at once."""

_FIELD: Final = 16 << 10
"""Bytes of a head's longest line; aiohttp's own 8 KiB and 128 fields are less than proxies send."""

_FIELDS: Final = 1000

_UNTIMED: Final = aiohttp.ClientTimeout()
"""The clocks are our own: aiohttp's would be believed before what is there was read."""

# The first that fits.
_KINDS: Final[tuple[tuple[type[Exception], type[httpx.TransportError]], ...]] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (TimeoutError, httpx.WriteTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (HttpProcessingError, httpx.RemoteProtocolError),
)


def _translated(error: Exception) -> httpx.TransportError:
    """Return httpx's word for an exception, without that itself: it holds the request's headers, and so the key."""
    kind = next((told for known, told in _KINDS if isinstance(error, known)), httpx.ReadError)
    # A bad chunk that comes in one read with its head takes that along: an answer began, and is lost.
    told = (httpx.ReadError if "chunk" in str(error).lower() else kind)(_words(error))
    told.__cause__ = _root(error)
    return told


def _words(error: Exception) -> str:
    """Return what aiohttp says, without the URL of the request."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "Server disconnected without sending a response"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"{error.status} {error.message}"
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return error.message
    return "" if isinstance(error, TimeoutError) else str(error)


def _root(error: Exception) -> BaseException | None:
    """Return what the system or TLS said, by which the ways to fail are told apart; it holds nothing of a request."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return socket.gaierror(*error.os_error.args)  # a resolver of aiohttp's own says it otherwise
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None


_Tell = Callable[[str, dict[str, Any]], Awaitable[None]]


class _Request(aiohttp.ClientRequest):
    """A request that says when it begins to be written."""

    tell: _Tell

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Send it; whoever makes the connection does not call this."""
        await self.tell("http11.send_request_headers.started", {})
        return await super().send(conn)


async def _once(
    tell: _Tell, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    # aiohttp sends a GET, PUT or DELETE again when a kept connection breaks, but not after an error it does not know.
    request.tell = tell  # type: ignore[attr-defined]  # it is one of ours
    try:
        return await handler(request)
    except aiohttp.ClientHttpProxyError as error:
        await tell("http11.receive_response_headers.complete", {"return_value": (b"", error.status)})
        told = _translated(error)
    except (aiohttp.ClientError, OSError) as error:
        if _is_behind(request.proxy, error):
            await tell("http11.receive_response_headers.complete", {"return_value": (b"", 200)})
            await tell("connection.start_tls.failed", {})
        told = _translated(error)
    raise told


def _is_behind(proxy: URL | None, error: Exception) -> bool:
    """Tell whether a proxy had connected, and no TLS came about with what is behind it."""
    if proxy is None or not isinstance(error, aiohttp.ClientConnectorError):
        return False
    return (error.host, error.port) != (proxy.host, proxy.port)


class _Resolver(AbstractResolver):
    """Our own way to look names up."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a host.

        Raises:
            OSError: There are none.
        """
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=each, port=port, family=of_one, proto=socket.IPPROTO_TCP, flags=flags)
            for each in await addresses_of(host, port)
            if family in (of_one := socket.AF_INET6 if ":" in each else socket.AF_INET, socket.AF_UNSPEC)
        ]

    async def close(self) -> None:
        """Hold nothing that is to be closed."""


class _Connector(aiohttp.TCPConnector):
    """Connections that are used again only where nothing came on them since the last answer, and that end with it."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401  # aiohttp's
        super().__init__(**options)
        self._transports = set[Any]()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's
    ) -> Any:  # noqa: ANN401  # aiohttp's
        """Give a connection.

        Raises:
            TimeoutError: There was none in time.
        """
        with Limit(timeout.connect):
            made = await super().connect(req, traces, _UNTIMED)
            while made.transport in self._transports and not _is_clean(made):
                _cut(made)
                made.close()
                made = await super().connect(req, traces, _UNTIMED)
            self._remember(made)
            return made
        raise TimeoutError

    def _remember(self, made: Any) -> None:  # noqa: ANN401  # aiohttp's
        transport, closed = made.transport, made.protocol.closed
        if closed is not None and transport not in self._transports:
            self._transports.add(transport)
            closed.add_done_callback(partial(self._forget, transport))

    def _forget(self, transport: Any, closed: asyncio.Future[None]) -> None:  # noqa: ANN401  # asyncio's
        self._transports.discard(transport)
        # asyncio would tell of an exception that nobody looked at.
        _ = closed.cancelled() or closed.exception()

    def abort(self) -> None:
        """Cut what is open, also what aiohttp has closed politely: over TLS that waits for a silent peer's goodbye."""
        for transport in self._transports:
            transport.abort()


def _is_clean(connection: Any) -> bool:  # noqa: ANN401  # aiohttp's
    """Tell whether nothing came on an idle connection: a whole answer, the head of one, or bytes nobody read yet."""
    protocol = connection.protocol
    if protocol.should_close or is_readable(connection.transport.get_extra_info("socket")):
        return False
    return not protocol._parser.feed_eof()  # noqa: SLF001  # nowhere public


def _cut(connection: Any) -> None:  # noqa: ANN401  # aiohttp's
    # Closed politely, TLS would wait half a minute for a silent peer's goodbye.
    connection.protocol.abort()


class SessionTransport(httpx.AsyncBaseTransport):
    """A transport over one aiohttp session, which is made at the first request.

    Args:
        context: What TLS connections share.
        max_connections: How many connections there may be at once.
        proxy: Where all but this machine is reached through; None is what the environment says.
    """

    def __init__(self, context: ssl.SSLContext, max_connections: int, proxy: object = None) -> None:
        self._context = context
        self._limiter = ConnectionLimiter(max_connections)
        self._proxy = lru_cache(maxsize=16)(partial(_proxy, proxy))
        if proxy is not None:
            self._proxy("https", "leadlex:443")  # it is looked at now, not at the first call
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the head of its answer.

        Raises:
            ConfigurationError: No asyncio loop runs.
        """
        session, times, tell = self._open_session(), request.extensions["timeout"], request.extensions["trace"]
        await self._limiter.take(request)
        try:
            place = f"{request.url.host}:{request.url.port or 443}"
            proxy = self._proxy(request.url.scheme, place)
            # As it is: a URL that is parsed is also normalised.
            url = URL(str(request.url), encoded=True)
            first = URL(proxy["proxy"]) if proxy else url
            await tell("connection.connect_tcp.started", {"host": first.host, "port": first.port})
            answer = await session.request(
                request.method,
                url,
                headers=request.headers.multi_items(),
                data=_Paced(request.content, times["write"], tell) if request.content else None,
                timeout=aiohttp.ClientTimeout(connect=times["connect"]),
                allow_redirects=False,
                middlewares=(partial(_once, tell),),
                **proxy,
            )
            seen = {"return_value": (b"", answer.status, b"", answer.raw_headers)}
            await tell("http11.receive_response_headers.complete", seen)
        except BaseException:
            self._limiter.give_back()
            raise
        body = _Body(answer, times)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=PooledStream(body, self._limiter))

    async def aclose(self) -> None:
        """Close all connections; requests under way break."""
        if self._session is not None:
            connector = cast("_Connector", self._session.connector)
            await self._session.close()
            connector.abort()
            # asyncio closes a socket in the next turn of its loop.
            await cancel_shielded_checkpoint()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                raise ConfigurationError("aiohttp_client runs under asyncio only; leave it out under trio.") from None
            connector = _Connector(
                ssl=self._context, limit=0, keepalive_timeout=KEEPALIVE, socket_factory=_socket, resolver=_Resolver()
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                request_class=_Request,
                max_line_size=_FIELD,
                max_field_size=_FIELD,
                max_headers=_FIELDS,
            )
        return self._session


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse, times: dict[str, float]) -> None:
        self._answer = answer
        self._times = times
        self._alarm: Alarm = alarm_here()
        self._error: httpx.TransportError | None = None
        connection: Any = answer.connection
        if connection is not None:  # its body is not whole yet
            connection.protocol.closed.add_done_callback(self._note_closed)

    def _note_closed(self, closed: asyncio.Future[None]) -> None:
        """Tell whoever reads of a body that was no HTTP: aiohttp closes the connection, and lets the reader wait."""
        content = self._answer.content
        if not (closed.cancelled() or closed.exception() or content.is_eof() or content.exception()):
            content.set_exception(TransferEncodingError("The body is no HTTP"))

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
            with Limit(self._times["read"], self._alarm):
                return await content.readany()
            raise httpx.ReadTimeout("")
        except (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError) as error:
            self._error = _translated(error)
        # What came before the break is still there, behind the exception.
        content.set_exception(None)  # type: ignore[arg-type]  # it only keeps it
        return content.read_nowait()

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        if self._answer.connection is not None:
            _cut(self._answer.connection)
        self._answer.close()
        # asyncio closes a socket in the next turn of its loop.
        await cancel_shielded_checkpoint()


class _Paced(aiohttp.BytesIOPayload):
    """A body that is written in pieces, each in time, for which aiohttp has no clock, and that tells when all is."""

    def __init__(self, content: bytes, seconds: float, tell: _Tell) -> None:
        super().__init__(io.BytesIO(content))
        self._seconds = seconds
        self._tell = tell

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:  # noqa: ANN401, ARG002  # aiohttp's
        """Write all of it.

        Raises:
            TimeoutError: A piece was not taken.
        """
        try:
            while piece := self._value.read(_PIECE):
                await self._write(writer, piece)
            await self._tell("http11.send_request_body.complete", {})
        except BaseException:
            # Closed politely, a socket would wait for its last bytes to be taken.
            writer.transport.abort()
            raise

    async def _write(self, writer: Any, piece: bytes) -> None:  # noqa: ANN401  # aiohttp's
        with Limit(self._seconds):
            return await writer.write(piece)  # type: ignore[no-any-return]  # nothing
        raise TimeoutError


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    for option in socket_options():
        made.setsockopt(*option)
    return made


# Proxies -----------------------------------------------------------------------------------------------------------


def _proxy(given: object, scheme: str, place: str) -> dict[str, Any]:
    # A proxy that is reached by TLS is trusted as the session is.
    found = proxy_for(place, given, None, secure=scheme == "https")
    if found is None:
        return {}
    if found.url.scheme.startswith(b"socks"):
        raise ConfigurationError("aiohttp_client knows no SOCKS proxy; leave it out, or use another proxy.")
    headers = {name.decode(): value.decode() for name, value in found.headers}
    return {"proxy": bytes(found.url).decode(), "proxy_headers": headers}

"""Connections: a pool that heals, in shards, one client for each event loop and process.

Rule: this is the only room that knows httpcore's inside, and it decides nothing about calls.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final, NoReturn, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import anyio
import h11
import httpcore
import httpx
from anyio import RunFinishedError
from anyio.lowlevel import EventLoopToken, current_token
from httpcore._utils import is_socket_readable

from ._alarm import Alarm, Limit, alarm_here
from ._config import Settings
from ._errors import ClientClosedError, ConfigurationError, discreet, refuse
from ._green import system_thread

SHARDS: Final = 32
KEEPALIVE: Final = 5.0
"""Seconds an idle connection is kept; httpx's default, short enough that servers seldom close it first."""


_CLOSING: Final = 1.0
"""Seconds that closing may take."""


def socket_options() -> list[tuple[int, int, int]]:
    """List what is set on every socket."""
    # A peer that vanished without a FIN is found by the kernel's probes after about a minute.
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
    known = [(getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)]
    tcp = [(socket.IPPROTO_TCP, option, value) for option, value in known]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp]


is_readable: Final = is_socket_readable
"""Tell whether something, or the end, came on a socket that nobody read yet."""


class HealedPool(httpcore.AsyncConnectionPool):
    """Drop connections that nobody holds and that can't be used, before requests are assigned.

    httpcore 1.0.9 keeps a connection for ever whose request was cancelled between being assigned and connecting;
    after enough of them every call is a PoolTimeout. It also keeps one that received more than its answer, and takes
    the rest for the answer to the next request.
    """

    def _assign_requests_to_connections(self) -> list[Any]:
        held = {id(request.connection) for request in self._requests}
        lost = [
            connection
            for connection in self._connections
            if id(connection) not in held and not connection.is_closed() and not _is_clean(connection)
        ]
        for connection in lost:
            self._connections.remove(connection)
        return [*lost, *super()._assign_requests_to_connections()]

    @property
    def load(self) -> int:
        """Count the requests under way."""
        return len(self._requests)

    @property
    def spare(self) -> int:
        """Count the connections that no request holds."""
        return len(self._connections) - len(self._requests)


def _is_clean(connection: Any) -> bool:  # noqa: ANN401  # httpcore's, perhaps in one that tunnels
    if not connection.is_idle():
        return False
    parser = _layers(connection)[-1]
    secure = parser._network_stream.get_extra_info("ssl_object")  # noqa: SLF001  # not public
    return not (parser._h11_state.trailing_data[0] or (secure and _has_more(secure)))  # noqa: SLF001  # not public


def _has_more(secure: ssl.SSLObject) -> bool:
    """Tell whether TLS holds more than was read: what came together with an answer left the socket with it."""
    try:
        secure.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True


def _layers(connection: Any) -> list[Any]:  # noqa: ANN401  # httpcore's
    """List a connection and those inside of it; the last one parses."""
    layers = [connection]
    while hasattr(layers[-1], "_connection"):
        layers.append(layers[-1]._connection)  # noqa: SLF001  # nowhere public
    return layers


_LOCKS: Final = ("_request_lock", "_connect_lock", "_state_lock")


def _tune(connection: Any) -> None:  # noqa: ANN401  # httpcore's
    """Spare a connection that has just given its first head what costs time and gives nothing.

    httpcore's locks let the event loop turn when they are free too, three times a call. And each chunk of a body goes
    up through seven layers by itself, even where one read brought a hundred.
    """
    *_, parser = layers = _layers(connection)
    if "_receive_response_body" in vars(parser):
        return
    for layer in layers:
        for lock in filter(vars(layer).__contains__, _LOCKS):
            setattr(layer, lock, anyio.Lock(fast_acquire=True))
    parser._receive_response_body = partial(_Blocks, parser)  # noqa: SLF001  # as above


class _Blocks(AsyncIterator[bytes]):
    """Read a body as httpcore does, but give all that one read brought at once.

    It is no generator, for nobody could close one inside of httpcore's.
    """

    def __init__(self, parser: Any, request: httpcore.Request) -> None:  # noqa: ANN401  # httpcore's
        self._parser = parser
        self._timeout = request.extensions["timeout"]["read"]
        self._event: Any = None

    async def __anext__(self) -> bytes:
        while not isinstance(self._event, h11.EndOfMessage | h11.PAUSED):
            self._event = await self._parser._receive_event(timeout=self._timeout)  # noqa: SLF001  # as above
            data = self._ready()
            if data:
                return data
        raise StopAsyncIteration

    def _ready(self) -> bytes:
        data = bytearray()
        while isinstance(self._event, h11.Data):
            data += self._event.data
            try:
                self._event = self._parser._h11_state.next_event()  # noqa: SLF001  # as above
            except h11.RemoteProtocolError:
                break  # h11 says so again when it is asked for more
        return bytes(data)


# Connecting --------------------------------------------------------------------------------------------------------


class Patient(httpcore.AsyncNetworkBackend):
    """Connect and write as httpcore does, by clocks that look for what is there before they are believed."""

    def __init__(self) -> None:
        self._inner: Any = httpcore.AnyIOBackend()  # under trio too

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection.

        Raises:
            httpcore.ConnectTimeout: There was none in time.
        """
        with Limit(timeout):
            return _patient(await self._inner.connect_tcp(host, port, None, local_address, socket_options))
        raise httpcore.ConnectTimeout


def _patient(stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
    changed = cast("Any", stream)
    changed.read = partial(_receive, alarm_here(), changed._stream.receive)  # noqa: SLF001  # anyio's stream
    changed.write, changed.start_tls = partial(_write, stream.write), partial(_start_tls, stream, stream.start_tls)
    return stream


async def _receive(
    alarm: Alarm,
    receive: Any,  # noqa: ANN401  # anyio's
    max_bytes: int,
    timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
) -> bytes:
    """Read as httpcore does over anyio, without what its own clock costs each event."""
    try:
        with Limit(timeout, alarm):
            return await receive(max_bytes)  # type: ignore[no-any-return]  # bytes
    except anyio.EndOfStream:
        return b""
    except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
        raise httpcore.ReadError(str(error)) from error
    raise httpcore.ReadTimeout


_AT_ONCE: Final = 16 << 10
"""Bytes that every system takes at once: no clock is needed, nor a coroutine more."""


def _write(write: Any, buffer: bytes, timeout: float | None = None) -> Awaitable[None]:  # noqa: ANN401  # httpcore's
    patiently = len(buffer) > _AT_ONCE
    return _write_patiently(write, buffer, timeout) if patiently else write(buffer, timeout)


async def _write_patiently(write: Any, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ANN401, ASYNC109  # httpcore's
    with Limit(timeout) as scope:
        await write(buffer)
    if scope.cancelled_caught:
        raise httpcore.WriteTimeout


async def _start_tls(
    stream: httpcore.AsyncNetworkStream,
    start_tls: Any,  # noqa: ANN401  # httpcore's
    ssl_context: ssl.SSLContext,
    server_hostname: str | None = None,
    timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
) -> httpcore.AsyncNetworkStream:
    try:
        with Limit(timeout):
            return _patient(await start_tls(ssl_context, server_hostname))
        raise httpcore.ConnectTimeout  # noqa: TRY301  # closes below
    except BaseException:
        with anyio.move_on_after(_CLOSING, shield=True):
            await stream.aclose()
        raise


class Places:
    """Bound how many connections there may be at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = anyio.Semaphore(limit)

    async def take(self, request: httpx.Request) -> None:
        """Wait for a place.

        Raises:
            httpx.PoolTimeout: None became free in time; the request's trace learns that nothing was sent.
        """
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            seconds = request.extensions["timeout"]["pool"]
            with Limit(seconds):
                return await self._free.acquire()
            await request.extensions["trace"]("pool.acquire.failed", {})
            raise httpx.PoolTimeout(f"all {self._limit} connections are in use by open streams and calls") from None

    def give_back(self) -> None:
        """Free a place."""
        self._free.release()


class PooledTransport(httpx.AsyncBaseTransport):
    """Spread requests over small pools with one limit for all.

    httpcore's pool looks at every connection for every request: 1,000 streams in one pool cost 19 s of CPU.

    Args:
        ssl_context: Shared by all connections.
        proxy: Where all traffic goes through, if anywhere.
        max_connections: How many connections there may be at once.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None, proxy: httpcore.Proxy | None, max_connections: int) -> None:
        self._places = Places(max_connections)
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
        await self._places.take(request)
        try:
            answer = await self._shard().handle_async_request(_translated(request))
            _tune(cast("Any", answer.stream)._pool_request.connection)  # noqa: SLF001  # nowhere public
        except BaseException:
            self._places.give_back()
            raise
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=Held(answer.stream, self._places, _suspect(answer)),
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


class Held(httpx.AsyncByteStream):
    """Give a connection's place back when its response is closed.

    Args:
        stream: The body.
        places: Where the place belongs.
        suspect: A connection that is closed for good, whatever the body says.
    """

    def __init__(self, stream: Any, places: Places, suspect: Any = None) -> None:  # noqa: ANN401  # httpcore's
        self._stream = stream
        self._places: Places | None = places
        self._suspect = suspect

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]  # an async iterator of bytes

    async def aclose(self) -> None:
        """Close the body, once."""
        places, self._places = self._places, None
        if places is not None:
            try:
                if self._suspect is not None:
                    await self._suspect.aclose()
                await self._stream.aclose()
            finally:
                places.give_back()


def _suspect(answer: httpcore.Response) -> Any:  # noqa: ANN401  # httpcore's network stream
    # RFC 9112, 6.1: a server that says both a length and chunks may be one that smuggles; the connection ends with it.
    framed_twice = {b"content-length", b"transfer-encoding"} <= {name.lower() for name, _ in answer.headers}
    return answer.extensions["network_stream"] if framed_twice else None


# Making clients ----------------------------------------------------------------------------------------------------


def client_maker(settings: Settings) -> Callable[[], httpx.AsyncClient]:
    """Check what the environment says about TLS and proxies, and return what makes a client of it.

    Raises:
        ConfigurationError: `SSL_CERT_FILE`, `SSL_CERT_DIR` or a proxy variable can't be used.
    """
    secure = urlsplit(settings.base_url).scheme == "https"
    read = _begin_to_read() if secure else None
    _load_what_calls_need()
    context = read() if read else None
    # A plain-http base URL is this machine: a proxy would only learn the key.
    proxy = environment_proxy(settings.address, context) if secure else None

    def make() -> httpx.AsyncClient:
        transport = PooledTransport(context, proxy, settings.max_connections)
        return cookieless(httpx.AsyncClient(transport=transport, trust_env=False))

    return make


def _begin_to_read() -> Callable[[], ssl.SSLContext]:
    """Read the certificates aside: OpenSSL does it without the GIL, so that what is done meanwhile takes no time."""
    contexts: list[ssl.SSLContext] = []
    errors: list[Exception] = []

    def load() -> None:
        try:
            contexts.append(tls_context())
        except Exception as error:  # noqa: BLE001  # it is raised where the context is asked for
            errors.append(error)

    # Neither an executor nor a future: their locks are the system's where gevent came after them, and may hang its hub.
    thread = system_thread(load, "leadlex-certificates")
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had: the interpreter ends, or the process has too many
        return tls_context

    def read() -> ssl.SSLContext:
        thread.join()
        for error in errors:
            raise error
        return contexts[0]

    return read


def tls_context() -> ssl.SSLContext:
    """Make the TLS context that all connections share.

    Raises:
        ConfigurationError: `SSL_CERT_FILE`, `SSL_CERT_DIR` or `SSLKEYLOGFILE` can't be used.
    """
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        # Of the files that are opened here OpenSSL names only the one that it writes to.
        is_log = isinstance(error, OSError) and error.filename is not None
        names = "SSLKEYLOGFILE" if is_log else "SSL_CERT_FILE or SSL_CERT_DIR"
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
        raise ConfigurationError(f"{names} can't be used: {reason}.") from None


@discreet
def environment_proxy(place: str, context: ssl.SSLContext | None) -> httpcore.Proxy | None:
    """Find the proxy for https to a place, if any.

    Args:
        place: Its host and port.
        context: What a proxy is trusted by.

    Raises:
        ConfigurationError: A proxy variable can't be used.
    """
    proxies = getproxies()
    _check_no_proxy(proxies.get("no", ""))
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(place):
        return None
    return _proxy(address if "://" in address else f"http://{address}", context)


# An address in brackets, with or without a port; "[::bad" without its bracket would be one too.
_BRACKETED: Final = re.compile(r"\s*\[([^]]*)\](?::\d+)?\s*")


def _check_no_proxy(hosts: str) -> None:
    for host in filter(lambda item: "[" in item or "]" in item, hosts.split(",")):
        match = _BRACKETED.fullmatch(host)
        try:
            ipaddress.IPv6Address(match[1] if match else "")
        except ValueError:
            raise ConfigurationError("NO_PROXY can't be used: it has an address that is none.") from None


def _proxy(address: str, context: ssl.SSLContext | None) -> httpcore.Proxy:
    proxy = _parsed(address)
    if proxy is None or not proxy.url.host or (proxy.url.port or 0) >= 1 << 16:
        raise ConfigurationError("HTTPS_PROXY or ALL_PROXY can't be used: it is not a proxy's URL.")
    # httpcore has loaded the package where it is there; 0.1 had not yet what httpcore asks of it.
    if proxy.url.scheme.startswith("socks") and not hasattr(sys.modules.get("socksio"), "SOCKS5AuthMethodsRequest"):
        raise ConfigurationError("A SOCKS proxy needs one more package: pip install 'httpx[socks]'.")
    url = httpcore.URL(scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=b"/")
    # A proxy that is reached by TLS is trusted as the service is; httpcore's own default knows no SSL_CERT_FILE.
    secure = context if proxy.url.scheme == "https" else None
    return httpcore.Proxy(url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=secure)


def _parsed(address: str) -> httpx.Proxy | None:
    try:
        return httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL):
        return None


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none, without the tenth of a call that it takes to look for some."""


def cookieless(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a client after it was made to keep no cookies."""
    client._cookies = _NoCookies()  # noqa: SLF001  # what one gives to the constructor is copied into the common kind
    return client


# Clients by loop ---------------------------------------------------------------------------------------------------


class Home:
    """Hold what belongs to one event loop: its client, and what to end when that is closed.

    Args:
        client: Sends, in this loop.
        token: The loop.
        owned: Whether the client is closed with this; the user's own is not.
    """

    def __init__(self, client: httpx.AsyncClient, token: EventLoopToken, *, owned: bool) -> None:
        self.client: httpx.AsyncClient = client
        self.responses: WeakSet[httpx.Response] = WeakSet()
        self._token = token
        self._process = os.getpid()
        self._waits: WeakSet[anyio.CancelScope] = WeakSet()
        self._keeper = _keep(client if owned else None)
        with suppress(StopIteration):
            self._keeper.__anext__().send(None)

    @property
    def is_dead(self) -> bool:
        """Tell whether its loop ended, or the process is another."""
        is_closed = getattr(self._token.native_token, "is_closed", bool)
        return self._process != os.getpid() or self.client.is_closed or is_closed()

    def waiting(self, seconds: float | None = None) -> Limit:
        """Return a scope for what is to end after so many seconds, and when the client is closed."""
        limit = Limit(seconds)
        self._waits.add(limit.scope)
        return limit

    async def aclose(self) -> None:
        """End what runs, and close the connections."""
        for scope in tuple(self._waits):
            scope.cancel()
        with anyio.move_on_after(_CLOSING, shield=True):
            for response in tuple(self.responses):
                await response.aclose()
            await self._keeper.aclose()

    def close_soon(self) -> None:
        """Close from another loop or thread; where the home's loop has ended there is nothing left to end."""
        with suppress(RunFinishedError):
            self._token.backend_class.run_sync_soon(self._start_to_close, (), self._token.native_token)

    def _start_to_close(self) -> None:
        loop: Any = self._token.native_token
        if hasattr(loop, "create_task"):
            self._closing = loop.create_task(self.aclose())
        else:
            sys.modules["trio"].lowlevel.spawn_system_task(self.aclose)


async def _keep(client: httpx.AsyncClient | None) -> AsyncGenerator[None, None]:
    """Close a client when told, else when its loop ends or nobody holds this: loops close such generators (PEP 525)."""
    try:
        yield
    finally:
        if client is not None:
            with anyio.move_on_after(_CLOSING, shield=True):
                await client.aclose()


class Homes:
    """Find the client of the running event loop and process, or make it.

    Args:
        make: Makes a client.
        owned: Whether those clients are closed with this; the user's own is not.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, owned: bool = True) -> None:
        self._make = make
        self._owned = owned
        self._homes = dict[object, Home]()
        self.closed: bool = False

    def here(self) -> Home:
        """Return the home of the running loop.

        Raises:
            ClientClosedError: All was closed.
        """
        token = current_token()
        home = self._homes.get(token.native_token)
        if not self.closed and (home is None or home.is_dead):
            self._forget_the_dead()
            home = self._homes[token.native_token] = Home(self._make(), token, owned=self._owned)
        if self.closed or home is None:  # looked at again, since another thread may close meanwhile
            raise ClientClosedError(facts={"charged": "no"})
        return home

    async def aclose(self) -> None:
        """Close what belongs to the running loop, and have other loops of this process close what is theirs."""
        self.closed = True
        self._forget_the_dead()
        homes, self._homes = self._homes, {}
        here = homes.pop(current_token().native_token, None) if homes else None
        for home in homes.values():
            home.close_soon()
        if here is not None:
            await here.aclose()

    def _forget_the_dead(self) -> None:
        for place, home in tuple(self._homes.items()):
            if home.is_dead:
                self._homes.pop(place, None)


def homes_for(settings: Settings, given: object) -> Homes:
    """Make the homes of a client, from the user's `httpx.AsyncClient`, a function that makes one, or our own."""
    if given is None:
        return Homes(client_maker(settings))
    _load_what_calls_need()
    if isinstance(given, httpx.AsyncClient):
        return Homes(lambda: given, owned=False)
    if not callable(given):
        _refuse_client(given)
    return Homes(lambda: _checked(given()))


def _checked(made: object) -> httpx.AsyncClient:
    return made if isinstance(made, httpx.AsyncClient) else _refuse_client(made)


def _refuse_client(given: object) -> NoReturn:
    kind = type(given)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    refuse("http_client", "an httpx.AsyncClient or a function that makes one", name)


def _load_what_calls_need() -> None:
    """Load what a first call would, for somebody waits for that one: the loop's backend, and what looks up a host."""
    with suppress(RuntimeError):  # the interpreter ends, and no thread will be had
        import_module("concurrent.futures.thread")
    try:
        current_token()
    except RuntimeError:  # no loop runs here, whatever sniffio says of a thread that was given the context of one
        import_module("anyio._backends._asyncio")
    "".encode("idna")

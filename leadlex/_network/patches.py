"""Every change to what httpx and httpcore do inside.

Rule: this is the only module that touches their private names.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import anyio
import h11
import httpcore
import httpx
from httpcore._utils import is_socket_readable

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


def tune(connection: Any) -> None:  # noqa: ANN401  # httpcore's
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


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none, without the tenth of a call that it takes to look for some."""


def cookieless(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Return a client after it was made to keep no cookies."""
    client._cookies = _NoCookies()  # noqa: SLF001  # what one gives to the constructor is copied into the common kind
    return client

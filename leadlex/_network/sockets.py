"""Sockets, opened, read and written by clocks that look for what is there before they are believed."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final, Self

import anyio
import httpcore
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSAttribute, TLSStream

from .names import connect
from .timeouts import Limit, alarm_here


def socket_options() -> list[tuple[int, int, int]]:
    """List what is set on every socket."""
    # A peer that vanished without a FIN is found by the kernel's probes after about a minute.
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
    known = [(getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)]
    tcp = [(socket.IPPROTO_TCP, option, value) for option, value in known]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp]


def is_readable(opened: socket.socket) -> bool:
    """Tell whether something, or the end, came on a socket that nobody read yet; a closed one has ended."""
    number = opened.fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


class Network(httpcore.AsyncNetworkBackend):
    """Open the socket of one connection, and know it until it is closed."""

    def __init__(self) -> None:
        self._stream: Stream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
        local_address: str | None = None,  # noqa: ARG002  # httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002  # httpcore's
    ) -> httpcore.AsyncNetworkStream:
        """Open it.

        Raises:
            httpcore.ConnectTimeout: There was none in time.
            httpcore.ConnectError: There was none.
        """
        try:
            with Limit(timeout):
                self._stream = Stream(await connect(host, port))
                return self._stream.set_up()
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        raise httpcore.ConnectTimeout

    async def aclose(self) -> None:
        """Close it, if it was opened; what was put upon it ends with it."""
        if self._stream is not None:
            await self._stream.aclose()


_INFO: Final[dict[str, Any]] = {
    "ssl_object": TLSAttribute.ssl_object,
    "socket": SocketAttribute.raw_socket,
    "client_addr": SocketAttribute.local_address,
    "server_addr": SocketAttribute.remote_address,
}


class Stream(httpcore.AsyncNetworkStream):
    """Read and write on a socket, or on TLS upon one."""

    def __init__(self, inner: ByteStream) -> None:
        self._inner = inner
        self._socket = inner.extra(SocketAttribute.raw_socket)  # noqa: S610  # anyio's
        self._alarm = alarm_here()

    def set_up(self) -> Self:
        """Set on the socket what is set on every one."""
        for option in socket_options():
            self._socket.setsockopt(*option)
        return self

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's
        """Return what comes next; nothing at the end.

        Raises:
            httpcore.ReadTimeout: Nothing came in time.
            httpcore.ReadError: The connection broke.
        """
        try:
            with Limit(timeout, self._alarm):
                return await self._inner.receive(max_bytes)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.ReadError(str(error)) from error
        raise httpcore.ReadTimeout

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's
        """Send all of it.

        Raises:
            httpcore.WriteTimeout: The other side did not take it in time.
            httpcore.WriteError: The connection broke.
        """
        try:
            with Limit(timeout, self._alarm):
                return await self._inner.send(buffer)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise httpcore.WriteError(str(error)) from error
        raise httpcore.WriteTimeout

    async def aclose(self) -> None:
        """Close it, and what it is upon."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's
    ) -> httpcore.AsyncNetworkStream:
        """Return a stream of TLS upon this one.

        Raises:
            httpcore.ConnectTimeout: The two did not agree in time.
            httpcore.ConnectError: They did not agree.
        """
        try:
            with Limit(timeout):
                return Stream(
                    await TLSStream.wrap(
                        self._inner,
                        hostname=server_hostname,
                        ssl_context=ssl_context,
                        standard_compatible=False,
                        server_side=False,
                    )
                )
        except (anyio.BrokenResourceError, anyio.EndOfStream, ssl.SSLError) as error:
            raise httpcore.ConnectError(str(error)) from error
        raise httpcore.ConnectTimeout

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  # httpcore's
        """Return what httpcore, or a user, asks for by name."""
        if info == "is_readable":
            return is_readable(self._socket)
        return self._inner.extra(_INFO[info], None) if info in _INFO else None  # noqa: S610  # anyio's


def has_more(secure: ssl.SSLObject) -> bool:
    """Tell whether TLS holds more than was read: what came together with an answer left the socket with it."""
    try:
        secure.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass
    return True

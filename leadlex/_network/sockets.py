"""Sockets, opened, read and written by clocks that look for what is there before they are believed."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any, Final, cast

import anyio
import httpcore

from .timeouts import Alarm, Limit, alarm_here

_CLOSING: Final = 1.0
"""Seconds that closing may take."""


def socket_options() -> list[tuple[int, int, int]]:
    """List what is set on every socket."""
    # A peer that vanished without a FIN is found by the kernel's probes after about a minute.
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
    known = [(getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)]
    tcp = [(socket.IPPROTO_TCP, option, value) for option, value in known]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp]


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

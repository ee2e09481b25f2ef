"""An HTTP proxy that tunnels, and refuses to when a test says so; and one that speaks SOCKS5."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import NoReturn

from tests.support.answers import answer
from tests.support.journal import Request
from tests.support.server import ClientLeft, Connection, ScriptedServer, Stopped
from tests.support.tls import ELSEWHERE, Identity


class Proxy(ScriptedServer):
    """A proxy on a free loopback port.

    Args:
        refusals: The statuses of the first answers to CONNECT; then it connects.
        port: The port; 0 takes a free one.
        tls: Shake hands with this certificate before anything else.
    """

    def __init__(self, *, refusals: Sequence[int] = (), port: int = 0, tls: Identity | None = None) -> None:
        super().__init__(self._follow, port=port, tls=tls)
        self._refusals = list(refusals)

    @property
    def asked(self) -> list[Request]:
        """List what clients asked the proxy itself for."""
        return self.requests

    def _follow(self, connection: Connection) -> None:
        request = connection.receive_head()
        if self._refusals:
            connection.send(answer(self._refusals.pop(0), b"", contract=False))
            return
        host, _, port = request.target.rpartition(":")
        _tunnel(connection, host, int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")


class SocksProxy(ScriptedServer):
    """A SOCKS5 proxy on a free loopback port, without a password."""

    def __init__(self) -> None:
        super().__init__(self._follow)
        self.asked_for: list[int] = []

    def _follow(self, connection: Connection) -> None:
        """Obey RFC 1928, for addresses of IPv4 and names."""
        _, methods = connection.receive(2)
        connection.receive(methods)
        connection.send(b"\x05\x00")
        if connection.receive(4)[3] == 1:
            host = socket.inet_ntoa(connection.receive(4))
        else:
            host = connection.receive(connection.receive(1)[0]).decode()
        self.asked_for.append(int.from_bytes(connection.receive(2)))
        _tunnel(connection, host, self.asked_for[-1], b"\x05\x00\x00\x01" + bytes(6))


def _tunnel(connection: Connection, host: str, port: int, welcome: bytes) -> None:
    place = "127.0.0.1" if host == ELSEWHERE else host
    with socket.create_connection((place, port), timeout=10) as service:
        connection.send(welcome)
        back = threading.Thread(target=_carry_back, args=(service, connection), daemon=True)
        back.start()
        try:
            with contextlib.suppress(OSError):
                _carry_on(connection, service)
        finally:
            with contextlib.suppress(OSError):
                service.shutdown(socket.SHUT_RDWR)
            back.join()


def _carry_on(connection: Connection, service: socket.socket) -> NoReturn:
    while True:
        service.sendall(connection.receive_some())


def _carry_back(service: socket.socket, connection: Connection) -> None:
    # Either side may end first; then the other direction sees it.
    with contextlib.suppress(OSError, ClientLeft, Stopped):
        try:
            while data := service.recv(65536):
                connection.send(data)
        finally:
            connection.half_close()

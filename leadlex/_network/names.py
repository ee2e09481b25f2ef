"""From a host's name to its addresses, and from those to a socket.

Rule: nobody waits for a name server that is silent. asyncio's threads look names up too, but the end of their loop, and
that of the interpreter, wait for them, seconds after the error was told; those here are nobody's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from typing import Final

import anyio
from anyio.abc import SocketStream
from anyio.lowlevel import EventLoopToken, RunVar, current_token

from leadlex._system_threads import getaddrinfo, system_thread

from .loops import run_soon
from .timeouts import Limit

_HEAD_START: Final = 0.25
"""Seconds after which the next address is tried beside the last one (RFC 8305, 5)."""


class _Lookup:
    """One question to the name servers, for all who ask it in one loop meanwhile.

    Args:
        host: The host.
        port: The port.
        ended: Called in the loop once there is an answer.
    """

    def __init__(self, host: str, port: int, ended: Callable[[], object]) -> None:
        self._host, self._port, self._ended = host, port, ended
        self._token: EventLoopToken = current_token()
        self.over = anyio.Event()
        self.addresses: list[str] = []
        self.error: OSError | None = None
        system_thread(self._ask, "leadlex name lookup").start()

    def _ask(self) -> None:
        try:
            found = getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        except OSError as error:
            self.error = error
        except ValueError as error:  # a part of the name is longer than any can be
            self.error = socket.gaierror(socket.EAI_NONAME, str(error))
        run_soon(self._token, self._end)

    def _end(self) -> None:
        self._ended()
        self.over.set()


_lookups: Final = RunVar[dict[tuple[str, int], _Lookup]]("leadlex name lookups")


async def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    Raises:
        OSError: There are none, or nobody knows.
    """
    with suppress(ValueError):
        return [ip_address(host).compressed]
    lookups, question = _lookups.get({}), (host, port)
    _lookups.set(lookups)
    if question not in lookups:
        try:
            lookups[question] = _Lookup(host, port, partial(lookups.pop, question))
        except RuntimeError as error:  # there are too many threads
            raise OSError(str(error)) from error
    lookup = lookups[question]
    await lookup.over.wait()
    if lookup.error is not None:
        raise type(lookup.error)(*lookup.error.args)
    return lookup.addresses


async def connect(host: str, port: int) -> SocketStream:
    """Connect to the first address of a host that takes it, the newer protocol first.

    Raises:
        OSError: None does.

    Source: RFC 8305 (Happy Eyeballs).
    """
    addresses = await addresses_of(host, port)
    if len(addresses) == 1:
        return await anyio.connect_tcp(addresses[0], port)
    race = _Race()
    try:
        await race.run(_in_turn(addresses), port)
    except BaseException:
        if race.stream is not None:
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(race.stream)
        raise
    if race.stream is None:
        raise OSError("All connection attempts failed") from ExceptionGroup("of all addresses", race.errors)
    return race.stream


def _in_turn(addresses: list[str]) -> list[str]:
    six, four = [each for each in addresses if ":" in each], [each for each in addresses if ":" not in each]
    return [*six[:1], *four[:1], *six[1:], *four[1:]]


class _Race:
    def __init__(self) -> None:
        self.stream: SocketStream | None = None
        self.errors: list[OSError] = []

    async def run(self, addresses: list[str], port: int) -> None:
        """Try one address after the other, each with a head start."""
        async with anyio.create_task_group() as group:
            for address in addresses:
                over = anyio.Event()
                group.start_soon(self._try, address, port, over, group.cancel_scope)
                with Limit(_HEAD_START):
                    await over.wait()

    async def _try(self, address: str, port: int, over: anyio.Event, scope: anyio.CancelScope) -> None:
        try:
            stream = await anyio.connect_tcp(address, port)
        except OSError as error:
            self.errors.append(error)
        else:
            if self.stream is None:
                self.stream = stream
                scope.cancel()
            else:
                await anyio.aclose_forcefully(stream)
        over.set()

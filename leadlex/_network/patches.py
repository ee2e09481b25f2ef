"""Every touch of what is private to httpx, httpcore and truststore.

Rule: no other module touches it. Each name says what it is for and what happens where a new version has it no more:
all works on, only slower.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import anyio
import h11
import httpcore


def parser_of(answer: httpcore.Response, connection: Any) -> Any:  # noqa: ANN401  # httpcore's
    """Return what speaks HTTP within a connection that gave an answer; it is a connection too, without the detours.

    `_connection`: else the connection stays as it is, and `has_rest` ends it after each answer.
    """
    return getattr(answer.stream, "_connection", connection)


def has_rest(parser: Any) -> bool:  # noqa: ANN401  # httpcore's
    """Tell whether the parser was given more than its answer, and would take the rest for the next one.

    `_h11_state`: else nobody can tell, and each answer ends its connection.
    """
    state = getattr(parser, "_h11_state", None)
    return state is None or bool(state.trailing_data[0])


_TO_READ: Final = ("_h11_state", "_receive_event", "_receive_response_body")


def tune(parser: Any) -> None:  # noqa: ANN401  # httpcore's
    """Spare a parser that has just given its first head what costs time and gives nothing.

    `_state_lock`: httpcore's lets the event loop turn where it is free too, twice a call (benchmark `json-async`: an
    eighth of a call); else it does. `_receive_response_body`: each chunk goes up through seven layers by itself, even
    where one read brought a hundred (benchmark `async-1`: 2.4 × the time); else it does.
    """
    if hasattr(parser, "_state_lock"):
        parser._state_lock = anyio.Lock(fast_acquire=True)  # noqa: SLF001  # as above
    if all(hasattr(parser, name) for name in _TO_READ):
        parser._receive_response_body = partial(_Blocks, parser)  # noqa: SLF001  # as above


class _Blocks(AsyncIterator[bytes]):
    """A body that is read as httpcore does, but that gives all that one read brought at once.

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


def filled(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return what holds the system's certificates, where truststore reads them anew for every connection.

    `_ctx`: the context that does the work, and all of it where OpenSSL finds the certificates itself; else each
    connection takes 25 ms more.
    """
    if sys.platform in ("win32", "darwin"):  # the system itself verifies there  # pragma: no cover
        return context
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    return getattr(context, "_ctx", context)

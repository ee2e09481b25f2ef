"""One client for each event loop and process."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final
from weakref import WeakSet

import anyio
import httpx
from anyio import RunFinishedError
from anyio.lowlevel import EventLoopToken, current_token

from leadlex._errors import ClientClosedError

from .timeouts import Limit

_CLOSING: Final = 1.0
"""Seconds that closing may take."""


class LoopConnections:
    """What belongs to one event loop: its client, and what ends when that is closed.

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
        """Close from another loop or thread; where its own has ended there is nothing left to end."""
        run_soon(self._token, self._start_to_close)

    def _start_to_close(self) -> None:
        self._closing = start_task(self.aclose)


def run_soon(token: EventLoopToken, function: Callable[..., object], *args: object) -> bool:
    """Run a function in a loop, from any thread, without waiting; tell whether the loop has not ended."""
    try:
        # Not call_soon_threadsafe: without the library that anyio notes in the context, no task can be begun.
        token.backend_class.run_sync_soon(function, args, token.native_token)
    except RunFinishedError:
        return False
    return True


def start_task(function: Callable[[], Coroutine[Any, Any, None]]) -> object:
    """Start a task that nobody waits for in the running loop, and return it; nothing may come out of it."""
    loop: Any = current_token().native_token
    if hasattr(loop, "create_task"):
        return loop.create_task(function())
    return sys.modules["trio"].lowlevel.spawn_system_task(function)


async def _keep(client: httpx.AsyncClient | None) -> AsyncGenerator[None, None]:
    """Close a client when told, else when its loop ends or nobody holds this: loops close such generators (PEP 525)."""
    try:
        yield
    finally:
        if client is not None:
            with anyio.move_on_after(_CLOSING, shield=True):
                await client.aclose()


class ConnectionsByLoop:
    """The clients of all event loops and processes, each made when it is first looked for.

    Args:
        make: Makes a client.
        owned: Whether those clients are closed with this; the user's own is not.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient], *, owned: bool = True) -> None:
        self._make = make
        self._owned = owned
        self._by_loop = dict[object, LoopConnections]()
        self.closed: bool = False

    def here(self) -> LoopConnections:
        """Return what belongs to the running loop.

        Raises:
            ClientClosedError: All was closed.
        """
        token = current_token()
        here = self._by_loop.get(token.native_token)
        if not self.closed and (here is None or here.is_dead):
            self._forget_the_dead()
            here = self._by_loop[token.native_token] = LoopConnections(self._make(), token, owned=self._owned)
        if self.closed or here is None:  # looked at again, since another thread may close meanwhile
            raise ClientClosedError(facts={"charged": "no"})
        return here

    async def aclose(self) -> None:
        """Close what belongs to the running loop, and have other loops of this process close what is theirs."""
        self.closed = True
        self._forget_the_dead()
        connections, self._by_loop = self._by_loop, {}
        here = connections.pop(current_token().native_token, None) if connections else None
        for elsewhere in connections.values():
            elsewhere.close_soon()
        if here is not None:
            await here.aclose()

    def _forget_the_dead(self) -> None:
        for loop, connections in tuple(self._by_loop.items()):
            if connections.is_dead:
                self._by_loop.pop(loop, None)

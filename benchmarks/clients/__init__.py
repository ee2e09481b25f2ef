"""What is compared: one module a client, each with an `Async` and, where there is one, a `Sync`.

Every one does the same four things, each in its own plain way: `call` for one whole reply, `read` for a stream (it
counts the events), `first` for the delay of a stream's first text, `close`.
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import Protocol, cast


class NoTextError(Exception):
    """A stream that had none."""


def age(text: str | None) -> float:
    """Tell how many milliseconds ago a text was sent; the server wrote the moment into it."""
    return (time.monotonic_ns() - int(text or 0)) / 1e6


class AsyncClient:
    """A client that does the four things, alone or often."""

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    async def call(self) -> None:
        """Ask for one whole reply."""
        raise NotImplementedError

    async def read(self) -> int:
        """Read a stream and count its events."""
        raise NotImplementedError

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections."""

    async def calls(self, count: int) -> None:
        """Call, one after the other."""
        for _ in range(count):
            await self.call()

    async def firsts(self, count: int) -> list[float]:
        """Read first texts, one after the other."""
        return [await self.first() for _ in range(count)]

    async def reads(self, count: int) -> list[int]:
        """Read streams, all at once."""
        return await asyncio.gather(*(self.read() for _ in range(count)))


class SyncClient:
    """The same without await."""

    def __init__(self, url: str) -> None:
        raise NotImplementedError

    def call(self) -> None:
        """Ask for one whole reply."""
        raise NotImplementedError

    def read(self) -> int:
        """Read a stream and count its events."""
        raise NotImplementedError

    def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections."""

    def calls(self, count: int) -> None:
        """Call, one after the other."""
        for _ in range(count):
            self.call()

    def firsts(self, count: int) -> list[float]:
        """Read first texts, one after the other."""
        return [self.first() for _ in range(count)]


class _Module(Protocol):
    Async: type[AsyncClient]
    Sync: type[SyncClient]


MODULES = {
    "floor": "floor",
    "by hand": "hand",
    "openai": "openai",
    "anthropic": "anthropic",
    "leadlex": "leadlex",
    "leadlex[aiohttp]": "leadlex_aiohttp",
}


def _module(name: str) -> _Module:
    return cast("_Module", import_module(f"benchmarks.clients.{MODULES[name]}"))


def async_client(name: str, url: str) -> AsyncClient:
    """Make a client by its name; an event loop must run."""
    return _module(name).Async(url)


def sync_client(name: str, url: str) -> SyncClient:
    """Make a client by its name."""
    return _module(name).Sync(url)

"""leadlex as its README shows it."""

from __future__ import annotations

import leadlex
from benchmarks.clients import AsyncClient, SyncClient, age

KEY = "wbk_invented"


class Async(AsyncClient):
    """The async client."""

    def __init__(self, url: str) -> None:
        self.lexi = leadlex.AsyncLeadLex(KEY, base_url=url)

    async def call(self) -> None:
        """Ask for one whole reply."""
        await self.lexi.chat("Hi")

    async def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        async for _ in self.lexi.stream_chat("Hi"):
            count += 1
        return count

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        async with self.lexi.stream_chat("Hi") as stream:
            return age(await anext(stream.text_stream))

    async def close(self) -> None:
        """Close all connections."""
        await self.lexi.aclose()


class Sync(SyncClient):
    """The sync client."""

    def __init__(self, url: str) -> None:
        self.lexi = leadlex.LeadLex(KEY, base_url=url)

    def call(self) -> None:
        """Ask for one whole reply."""
        self.lexi.chat("Hi")

    def read(self) -> int:
        """Read a stream and count its events."""
        return sum(1 for _ in self.lexi.stream_chat("Hi"))

    def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        with self.lexi.stream_chat("Hi") as stream:
            return age(next(iter(stream.text_stream)))

    def close(self) -> None:
        """Close all connections."""
        self.lexi.close()

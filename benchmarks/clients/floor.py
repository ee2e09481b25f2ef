"""The floor: a raw asyncio socket and json, which knows this one server and nothing of what can go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from benchmarks.clients import AsyncClient, NoTextError, age

_BODY = b'{"message": "Hi"}'

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Async(AsyncClient):
    """The async client."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._kept: _Streams | None = None

    async def call(self) -> None:
        """Ask for one whole reply."""
        reader, writer = self._kept = self._kept or await self._connected()
        head = await self._head("/v1/lexi/chat", reader, writer)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        json.loads(await reader.readexactly(length))

    async def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        async for _ in self._events():
            count += 1
        return count

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        async for event in self._events():
            return age(event["delta"])
        raise NoTextError

    async def close(self) -> None:
        """Close the connection that was kept."""
        if self._kept is not None:
            self._kept[1].close()

    async def _connected(self) -> _Streams:
        return await asyncio.open_connection(self._host, self._port)

    async def _head(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        lines = f"POST {self._path}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(_BODY)}\r\n\r\n"
        writer.write(lines.encode() + _BODY)
        return await reader.readuntil(b"\r\n\r\n")

    async def _events(self) -> AsyncIterator[Any]:
        reader, writer = await self._connected()
        try:
            await self._head("/v1/lexi/chat/stream", reader, writer)
            while size := int(await reader.readline(), 16):
                for block in (await reader.readexactly(size + 2)).split(b"\n\n")[:-1]:
                    data = block.partition(b"data: ")[2]
                    if data != b"[DONE]":
                        yield json.loads(data)
        finally:
            writer.close()

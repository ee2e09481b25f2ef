"""What one would write by hand: httpx, httpx_sse, json and cattrs, in as few lines as it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cattrs
import httpx
from attrs import frozen
from httpx_sse import EventSource

from benchmarks.clients import AsyncClient, NoTextError, SyncClient, age

_HEADERS = {"Authorization": "Bearer wbk_invented"}
_MESSAGE = {"message": "Hi"}
_LIMITS = httpx.Limits(max_connections=None)


@frozen
class _Text:
    delta: str
    conversation_id: str | None = None


@frozen
class _Done:
    credits_remaining: int | None = None
    message_id: str | None = None


@frozen
class _Reply:
    response: str
    requires_approval: bool
    conversation_id: str
    task_id: str | None = None


_converter = cattrs.Converter()
_EVENTS: dict[str, Callable[[Any, Any], Any]] = {
    "text": _converter.get_structure_hook(_Text),
    "done": _converter.get_structure_hook(_Done),
}
_KINDS = {"text": _Text, "done": _Done}


def _event(name: str, data: str) -> Any:  # noqa: ANN401  # one of the events
    return _EVENTS[name](json.loads(data), _KINDS[name])


def _reply(response: httpx.Response) -> _Reply:
    response.raise_for_status()
    return _converter.structure(response.json()["data"], _Reply)


class Async(AsyncClient):
    """The async client."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, headers=_HEADERS, timeout=60, limits=_LIMITS)

    async def call(self) -> None:
        """Ask for one whole reply."""
        _reply(await self._client.post("/v1/lexi/chat", json=_MESSAGE))

    async def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        async with self._client.stream("POST", "/v1/lexi/chat/stream", json=_MESSAGE) as response:
            async for sse in EventSource(response).aiter_sse():
                if sse.data == "[DONE]":
                    break
                _event(sse.event, sse.data)
                count += 1
        return count

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        async with self._client.stream("POST", "/v1/lexi/chat/stream", json=_MESSAGE) as response:
            async for sse in EventSource(response).aiter_sse():
                return age(_event(sse.event, sse.data).delta)
        raise NoTextError

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


class Sync(SyncClient):
    """The sync client."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, headers=_HEADERS, timeout=60)

    def call(self) -> None:
        """Ask for one whole reply."""
        _reply(self._client.post("/v1/lexi/chat", json=_MESSAGE))

    def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        with self._client.stream("POST", "/v1/lexi/chat/stream", json=_MESSAGE) as response:
            for sse in EventSource(response).iter_sse():
                if sse.data == "[DONE]":
                    break
                _event(sse.event, sse.data)
                count += 1
        return count

    def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        with self._client.stream("POST", "/v1/lexi/chat/stream", json=_MESSAGE) as response:
            sse = next(EventSource(response).iter_sse())
            return age(_event(sse.event, sse.data).delta)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

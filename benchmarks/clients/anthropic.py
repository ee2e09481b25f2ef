"""anthropic with its defaults, pointed at the server."""

from __future__ import annotations

from collections.abc import Iterable

from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, RawMessageStreamEvent

from benchmarks.clients import AsyncClient, NoTextError, SyncClient, age

_MODEL = "invented"
_TOKENS = 64
_MESSAGES: Iterable[MessageParam] = [{"role": "user", "content": "Hi"}]


def _text_of(event: RawMessageStreamEvent) -> str | None:
    if event.type == "content_block_delta" and event.delta.type == "text_delta":
        return event.delta.text
    return None


class Async(AsyncClient):
    """The async client."""

    def __init__(self, url: str) -> None:
        self._client = AsyncAnthropic(api_key="invented", base_url=url)

    async def call(self) -> None:
        """Ask for one whole reply."""
        await self._client.messages.create(model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES)

    async def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        async for _ in await self._client.messages.create(
            model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES, stream=True
        ):
            count += 1
        return count

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        async with await self._client.messages.create(
            model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES, stream=True
        ) as stream:
            async for event in stream:
                text = _text_of(event)
                if text is not None:
                    return age(text)
        raise NoTextError

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


class Sync(SyncClient):
    """The sync client."""

    def __init__(self, url: str) -> None:
        self._client = Anthropic(api_key="invented", base_url=url)

    def call(self) -> None:
        """Ask for one whole reply."""
        self._client.messages.create(model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES)

    def read(self) -> int:
        """Read a stream and count its events."""
        stream = self._client.messages.create(model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES, stream=True)
        return sum(1 for _ in stream)

    def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        with self._client.messages.create(model=_MODEL, max_tokens=_TOKENS, messages=_MESSAGES, stream=True) as stream:
            return age(next(text for text in map(_text_of, stream) if text is not None))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

"""openai with its defaults, pointed at the server."""

from __future__ import annotations

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from benchmarks.clients import AsyncClient, SyncClient, age

_MODEL = "invented"
_MESSAGES = [ChatCompletionUserMessageParam(role="user", content="Hi")]


class Async(AsyncClient):
    """The async client."""

    def __init__(self, url: str) -> None:
        self._client = AsyncOpenAI(api_key="sk-invented", base_url=f"{url}/v1")

    async def call(self) -> None:
        """Ask for one whole reply."""
        await self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES)

    async def read(self) -> int:
        """Read a stream and count its events."""
        count = 0
        async for _ in await self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES, stream=True):
            count += 1
        return count

    async def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        async with await self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES, stream=True) as stream:
            chunk = await anext(aiter(stream))
            return age(chunk.choices[0].delta.content)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


class Sync(SyncClient):
    """The sync client."""

    def __init__(self, url: str) -> None:
        self._client = OpenAI(api_key="sk-invented", base_url=f"{url}/v1")

    def call(self) -> None:
        """Ask for one whole reply."""
        self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES)

    def read(self) -> int:
        """Read a stream and count its events."""
        stream = self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES, stream=True)
        return sum(1 for _ in stream)

    def first(self) -> float:
        """Read the first text of a stream, tell its age in ms, and leave."""
        with self._client.chat.completions.create(model=_MODEL, messages=_MESSAGES, stream=True) as stream:
            return age(next(iter(stream)).choices[0].delta.content)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

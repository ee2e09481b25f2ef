"""Streams without a socket: the library's own decoder, and its own streams, over bytes that are already here."""

import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx

from leadlex._api_key import ApiKey, ApiKeys
from leadlex._config import RetryPolicy, Timeout
from leadlex._network.bodies import GuardedText
from leadlex._network.clients import connections_for
from leadlex._network.clock import Clock
from leadlex._network.retry_quota import RetryQuota
from leadlex._network.seen import LastSeen
from leadlex._network.timeouts import Clocks
from leadlex._network.transport import Transport
from leadlex._policy.call import Call
from leadlex._policy.failures import Progress
from leadlex._protocol import endpoints
from leadlex._protocol.event_blocks import parsed
from leadlex._protocol.operation import Operation
from leadlex._settings import Settings
from leadlex._stream import AsyncChatStream, Reading
from tests.support.runners import API_KEY, drive

KEY = "6f1c2d0a-7b3e-4c58-9a41-0f2b7d9e1c55"


class Pieces(httpx.AsyncByteStream):
    """A body that comes in these pieces, and then ends or breaks.

    Args:
        pieces: What comes.
        error: What breaks it; None ends it.
    """

    def __init__(self, pieces: Sequence[bytes], error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the pieces."""
        for piece in self._pieces:
            yield piece
        if self._error is not None:
            raise self._error


def response_of(pieces: Sequence[bytes], headers: dict[str, str] | None = None, **broken: Any) -> httpx.Response:
    """Make an answer with this body."""
    kind = {"content-type": "text/event-stream"}
    return httpx.Response(200, headers={**kind, **(headers or {})}, stream=Pieces(pieces, **broken))


def decoded(pieces: Sequence[bytes]) -> list[tuple[str, str]]:
    """Decode as the library does: httpx-sse behind the guard, events without data dropped."""
    return drive(_decode(response_of(pieces)))


async def _decode(response: httpx.Response) -> list[tuple[str, str]]:
    text = GuardedText(response, Clocks(Timeout(), None, streams=True))
    return [(sse.event, sse.data) async for block in text for sse in parsed(block)]


class MemoryTransport(Transport):
    """The library's transport, whose answers are in memory; it never retries.

    Args:
        pieces: The body of the next streams; set it before each.
    """

    pieces: Sequence[bytes] = ()

    def __init__(self) -> None:
        settings = Settings(
            base_url="http://localhost", keys=ApiKeys(ApiKey(API_KEY)), policy=RetryPolicy(retries=0), resume=False
        )
        super().__init__(settings, connections_for(settings, None), LastSeen(), RetryQuota(), Clock())

    async def _head(self, call: Call[Any], clocks: Clocks) -> httpx.Response:  # noqa: ARG002  # the transport's own
        call.meta, call.progress = None, Progress(traced=True, started=True, written=True)
        call.attempts += 1
        return response_of(self.pieces)

    def stream(self) -> AsyncChatStream:
        """Ask."""
        return AsyncChatStream(Reading(self, _question()))


@functools.cache
def _question() -> Operation[None]:
    return endpoints.stream_chat(
        "Hi", conversation_id=None, context=None, allow_tools=True, idempotency_key=KEY, first_sent=None, now=0.0
    )

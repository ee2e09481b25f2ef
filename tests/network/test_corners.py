"""Corners that no other test comes by."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

import leadlex
from leadlex._network.connections import PooledStream, PooledTransport
from leadlex._network.limiter import ConnectionLimiter
from leadlex._portal.bridge import Bridge
from tests.support.answers import chunk, head, last_chunk, sse_head
from tests.support.faces import Face
from tests.support.lexi import LexiScript
from tests.support.server import Connection, ScriptedServer


def test_headers_are_put_over_headers(face: Face) -> None:
    """A copy's headers go over the client's, whatever their case, and the others stay."""

    async def scenario(lexi: Any) -> None:
        await lexi.with_options(headers={"x-team": "b", "X-Case": "7"}).tasks()

    with ScriptedServer(LexiScript()) as server:
        face.run(scenario, base_url=server.url, headers={"X-Team": "a", "X-Office": "NY"})
    sent = server.requests[0].headers
    assert (sent["x-team"], sent["x-case"], sent["x-office"]) == ("b", "7", "NY")


def test_flags_of_a_query(face: Face) -> None:
    """True and False are sent as the API writes them."""

    async def scenario(lexi: Any) -> None:
        await lexi.request("GET", "/v1/lexi/tasks", params={"mine": True, "old": False, "none": None})

    with ScriptedServer(LexiScript()) as server:
        face.run(scenario, base_url=server.url)
    assert server.requests[0].query == {"mine": "true", "old": "false"}


def _refuse_and_leave(connection: Connection) -> None:
    connection.receive_request()
    connection.send(head(404, [("Content-Length", "100")]), b"{")
    connection.fin()


def test_a_refusal_whose_body_breaks(face: Face) -> None:
    """The status tells what happened, though its body never came whole."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(leadlex.NotFoundError) as caught:
            await lexi.tasks()
        assert caught.value.body == ""

    with ScriptedServer(_refuse_and_leave) as server:
        face.run(scenario, base_url=server.url)


def test_an_endless_answer_is_not_believed(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that outgrows every letter a lawyer could read ends the stream, with what came."""
    monkeypatch.setattr("leadlex._stream.MAX_TEXT", 10)

    async def scenario(lexi: Any) -> None:
        with pytest.raises(leadlex.APIResponseError, match="longer") as caught:
            await lexi.stream_chat("Hi").final_reply()
        assert caught.value.partial is not None

    with ScriptedServer(LexiScript()) as server:
        face.run(scenario, base_url=server.url)


def test_nothing_to_interrupt() -> None:
    """Closing a stream that another task is just about to open finds nothing to break, and breaks nothing."""

    async def main() -> None:
        async with leadlex.AsyncLeadLex("wbk_corner", base_url="http://127.0.0.1:9") as lexi:
            stream = lexi.stream_chat("Hi")
            await stream._reading.interrupt()
            await stream.aclose()

    anyio.run(main)


def test_no_rest_in_a_closed_client() -> None:
    """A wait that begins as another thread closes the client ends at once, with the word of it."""

    async def main() -> None:
        async with leadlex.AsyncLeadLex("wbk_corner", base_url="http://127.0.0.1:9") as lexi:
            transport = lexi._transport
        with pytest.raises(leadlex.ClientClosedError):
            await transport.rest(3600.0)

    anyio.run(main)


class _Body:
    """Be a body that counts how often it is closed."""

    closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1


def test_a_place_is_given_back_once() -> None:
    """A body that is closed twice frees one connection."""

    async def main() -> None:
        places, request = (
            ConnectionLimiter(1),
            httpx.Request("GET", "http://localhost", extensions={"timeout": {"pool": 0.01}}),
        )
        await places.take(request)
        body = _Body()
        held = PooledStream(body, places)
        await held.aclose()
        await held.aclose()
        assert body.closed == 1
        await places.take(request)

    anyio.run(main)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_one_read_brought_comes_at_once(backend: str) -> None:
    """A hundred chunks in one segment are one piece of a body, as long as httpcore's inside is as we know it."""
    pieces = [f"{number:03}".encode() for number in range(100)]

    def serve(connection: Connection) -> None:
        connection.receive_request()
        connection.send(sse_head() + b"".join(map(chunk, pieces)) + last_chunk())

    async def main(url: str) -> list[bytes]:
        transport = PooledTransport(None, None, 1)
        async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", url) as response:
            return [piece async for piece in response.aiter_raw()]

    with ScriptedServer(serve) as server:
        assert anyio.run(main, server.url, backend=backend) == [b"".join(pieces)]


def test_the_loops_thread_does_not_wait_for_itself() -> None:
    """Closing from the loop's own thread, as a finalizer may, does not wait for that thread's end."""

    async def nothing() -> None:
        pass

    bridge, over = Bridge(nothing), threading.Event()
    thread = bridge.group().thread
    bridge.call(nothing())
    thread.run_soon(thread.join)
    thread.run_soon(over.set)
    assert over.wait(5)
    bridge.close()

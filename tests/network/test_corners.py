"""Corners that no other test comes by."""

from __future__ import annotations

import inspect
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from httpcore._async import http11

import leadlex
from leadlex._network.connections import PooledStream, PooledTransport
from leadlex._network.http1 import HTTP1Connection
from leadlex._network.limiter import ConnectionLimiter
from leadlex._network.sockets import has_more, is_readable
from leadlex._portal.bridge import Bridge
from tests.support.answers import chunk, head, last_chunk, sse_head
from tests.support.lexi import LexiScript
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner, SyncRunner
from tests.support.server import Connection, ScriptedServer


def test_headers_are_put_over_headers(runner: Runner) -> None:
    """A copy's headers go over the client's, whatever their case, and the others stay."""

    async def scenario(lexi: Any) -> None:
        await lexi.with_options(headers={"x-team": "b", "X-Case": "7"}).tasks()

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url, headers={"X-Team": "a", "X-Office": "NY"})
    sent = server.requests[0].headers
    assert (sent["x-team"], sent["x-case"], sent["x-office"]) == ("b", "7", "NY")


class Notes:
    """What a user's own client may keep, by the names that leadlex has for its own things, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.office = "NY"
        self.wrapped, self.bridge = "a gift", "Brooklyn"


class OwnAsync(Notes, leadlex.AsyncLeadLex):
    """A client of a user's own."""


class OwnSync(Notes, leadlex.LeadLex):
    """Its twin."""


def test_a_copy_of_a_subclass(runner: Runner) -> None:
    """A copy with other options is of the user's own class, with what that keeps, and is closed with the original."""
    own: Any = OwnSync if runner.name == "sync" else OwnAsync

    async def scenario() -> None:
        async with mine.make(api_key=API_KEY, base_url=server.url) as lexi:
            lexi_itself = getattr(lexi, "_value", lexi)
            copy = lexi_itself.with_options(retries=0)
            assert type(copy) is own
            assert (copy.office, copy.wrapped, copy.bridge) == ("NY", "a gift", "Brooklyn")
            copy.office = "LA"
            assert lexi_itself.office == "NY"
            await lexi.with_options(retries=0).tasks()
            await lexi.tasks()

    mine: Runner = SyncRunner(own) if runner.name == "sync" else AsyncRunner(runner.name, own)
    with ScriptedServer(LexiScript()) as server, no_leaks():
        mine.drive(scenario)
    assert server.connections == 1


def test_flags_of_a_query(runner: Runner) -> None:
    """True and False are sent as the API writes them."""

    async def scenario(lexi: Any) -> None:
        await lexi.request("GET", "/v1/lexi/tasks", params={"mine": True, "old": False, "none": None})

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, base_url=server.url)
    assert server.requests[0].query == {"mine": "true", "old": "false"}


def _refuse_and_leave(connection: Connection) -> None:
    connection.receive_request()
    connection.send(head(404, [("Content-Length", "100")]), b"{")
    connection.fin()


def test_a_refusal_whose_body_breaks(runner: Runner) -> None:
    """The status tells what happened, though its body never came whole."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(leadlex.NotFoundError) as caught:
            await lexi.tasks()
        assert caught.value.body == ""

    with ScriptedServer(_refuse_and_leave) as server:
        runner.run(scenario, base_url=server.url)


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
        transport = PooledTransport(partial(HTTP1Connection, None, None), 1)
        async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", url) as response:
            return [piece async for piece in response.aiter_raw()]

    with ScriptedServer(serve) as server:
        assert anyio.run(main, server.url, backend=backend) == [b"".join(pieces)]


#: What the library touches of httpcore's inside, all of it named in `leadlex/_network/patches.py`.
INSIDE = ("_connection", "_h11_state", "_receive_event", "_receive_response_body", "_state_lock")


@pytest.mark.parametrize("name", INSIDE)
def test_an_inside_of_other_names(runner: Runner, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A httpcore that calls its inside otherwise serves as well, though perhaps slower."""
    source = inspect.getsource(http11)
    renamed = re.sub(rf"\b{name}\b", f"{name}_renamed", source)
    assert renamed != source
    inside = {"__name__": http11.__name__, "__package__": http11.__package__}
    exec(renamed, inside)  # noqa: S102  # httpcore's own text
    monkeypatch.setattr("httpcore._async.connection.AsyncHTTP11Connection", inside["AsyncHTTP11Connection"])

    async def scenario(lexi: Any) -> None:
        for _ in range(2):
            await lexi.chat("Hi")
            await lexi.stream_chat("Hi").final_reply()

    with ScriptedServer(LexiScript()) as server, no_leaks():
        runner.run(scenario, base_url=server.url)
        # Where nobody can tell whether more than an answer came, each has a connection of its own.
        assert server.connections == (4 if name in {"_connection", "_h11_state"} else 1)


def test_a_system_without_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an idle connection brought is seen on Windows too, and a closed one is none that can be used."""
    monkeypatch.delattr("select.poll")
    here, there = socket.socketpair()
    with here, there:
        assert not is_readable(here)
        there.send(b"?")
        assert is_readable(here)
    assert is_readable(here)


def test_what_is_no_tls_is_more_than_was_asked_for() -> None:
    """Bytes that TLS can't read after an answer end a connection as those do that it can."""
    incoming = ssl.MemoryBIO()
    secure = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
    assert not has_more(secure)
    incoming.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert has_more(secure)


class _Line:
    """Be a connection that does as it is told.

    Args:
        made: Where it enters itself.
    """

    def __init__(self, made: list[_Line]) -> None:
        self.idle = self.usable = True
        self.closed = False
        self.answered = 0
        made.append(self)

    async def send(self, _: httpx.Request) -> httpcore.Response:
        """Answer."""
        if not self.usable:
            raise httpcore.ConnectionNotAvailable
        self.answered += 1
        return httpcore.Response(200)

    def read(self, _: httpcore.Response) -> _Body:
        """Return a body."""
        return _Body()

    def is_idle(self) -> bool:
        """Tell what was told."""
        return self.idle

    async def aclose(self) -> None:
        """Close."""
        self.closed = True


class TestConnections:
    """Connections of any kind are kept, taken and closed alike."""

    @staticmethod
    def drive(scenario: Callable[[PooledTransport, list[_Line]], Awaitable[None]]) -> None:
        """Run a scenario with a transport and the connections that it makes."""
        made = list[_Line]()
        anyio.run(scenario, PooledTransport(lambda _: _Line(made), 10), made)

    @staticmethod
    async def open(transport: PooledTransport, count: int) -> list[httpx.Response]:
        """Return answers that are not closed yet."""
        request = httpx.Request("GET", "http://localhost", extensions={"timeout": {"pool": 1}})
        return [await transport.handle_async_request(request) for _ in range(count)]

    def test_newest_first(self) -> None:
        """What became idle last is used next, so that what is not needed grows old."""

        async def scenario(transport: PooledTransport, made: list[_Line]) -> None:
            for response in await self.open(transport, 3):
                await response.aclose()
            for _ in range(5):
                [response] = await self.open(transport, 1)
                await response.aclose()
            assert [line.answered for line in made] == [1, 1, 6]

        self.drive(scenario)

    def test_old_ones_are_closed(self) -> None:
        """What was idle for too long is closed when another connection becomes idle, and not piled up."""

        async def scenario(transport: PooledTransport, made: list[_Line]) -> None:
            for response in await self.open(transport, 4):
                await response.aclose()
            [response] = await self.open(transport, 1)
            made[0].idle = made[1].idle = False
            await response.aclose()
            assert [line.closed for line in made] == [True, True, False, False]

        self.drive(scenario)

    def test_what_can_t_be_used_is_closed(self) -> None:
        """Where an idle connection can't be used any more, another one is."""

        async def scenario(transport: PooledTransport, made: list[_Line]) -> None:
            for response in await self.open(transport, 2):
                await response.aclose()
            for line in made:
                line.usable = False
            await self.open(transport, 1)
            assert [line.closed for line in made] == [True, True, False]

        self.drive(scenario)

    def test_all_are_closed(self) -> None:
        """Closing ends the idle and the busy, and what is busy does not become idle again."""

        async def scenario(transport: PooledTransport, made: list[_Line]) -> None:
            idle, busy = await self.open(transport, 2)
            await idle.aclose()
            await transport.aclose()
            assert [line.closed for line in made] == [True, True]
            made[1].idle = False
            await busy.aclose()
            await self.open(transport, 1)
            assert len(made) == 3

        self.drive(scenario)


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

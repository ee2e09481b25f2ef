"""leadlex over aiohttp: the same promises, on another transport that tells less of itself."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest

import leadlex
from benchmarks import server as benchmarks_server
from benchmarks.server import Plan
from leadlex import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    ClientClosedError,
    ConfigurationError,
    StreamDivergedError,
    StreamInterruptedError,
    Timeout,
    aiohttp_client,
)
from tests.matrix.oracles import CALLS, CHARGED, PATIENT, REPEATED, Call, observe, spoiled
from tests.support.answers import answer, chunk, json_answer, sse_head
from tests.support.captures import CAPTURE, CAPTURE_EVENTS, CAPTURE_TEXT
from tests.support.lexi import BODIES, CHAT, Answer, Cut, Ending, Fault, LexiScript, Lost, Plain, Raw, operation_of
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner, SyncRunner
from tests.support.server import Connection, ScriptedServer, dead_port, per_connection
from tests.support.surroundings import packages
from tests.support.tls import authority_pem, identity

RUNNERS: list[Runner] = [AsyncRunner("asyncio"), SyncRunner()]

#: The first event of the capture, as far as the blank line that ends it.
FIRST = CAPTURE.index(b"\n\n") + 2
DONE = CAPTURE.index(b"\n\ndata: [DONE]") + 2


@pytest.fixture(params=RUNNERS, ids=lambda runner: runner.name)
def runner(request: pytest.FixtureRequest) -> Runner:
    """Give each runner that aiohttp can serve."""
    found: Runner = request.param
    return found


def over(**options: Any) -> dict[str, Any]:
    """Make a client's options."""
    return {"http_client": aiohttp_client, **options}


def times(**clocks: float) -> Timeout:
    """Set some clocks and leave the others so long that no answer here meets them."""
    usual = {
        "connect": 5.0,
        "write": 5.0,
        "pool": 5.0,
        "first_event": 5.0,
        "idle": 5.0,
        "event_idle": 5.0,
        "total": 8.0,
    }
    return Timeout(**{**usual, **clocks})


# Answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_a_stream_is_the_same(runner: Runner, framing: Any, size: int | None) -> None:
    """The capture gives its six events, however it is framed and cut."""

    async def scenario(lexi: Any) -> list[str]:
        return [type(event).__name__ async for event in lexi.stream_chat("Hi")]

    script = LexiScript(framing=framing, sizes=(size,) if size else ())
    with ScriptedServer(script) as server, no_leaks():
        names = runner.run(scenario, **over(base_url=server.url))
    assert names == ["Thinking", "ToolStep", "ToolStep", "TextDelta", "TextDelta", "Done"]
    assert len(names) == len(CAPTURE_EVENTS)


def test_a_connection_is_used_again(runner: Runner) -> None:
    """Streams and calls that follow each other share one connection."""

    async def scenario(lexi: Any) -> None:
        for _ in range(20):
            reply = await lexi.stream_chat("Hi").final_reply()
            assert reply.response == CAPTURE_TEXT
            assert (await lexi.chat("Hi")).response == CHAT["response"]

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, **over(base_url=server.url))
        assert server.connections == 1


def test_a_client_from_outside_of_a_loop() -> None:
    """A client that was made before any loop ran is used as it is, and closed by whoever made it."""

    async def main() -> str:
        client = made[0]
        async with leadlex.AsyncLeadLex(API_KEY, base_url=server.url, http_client=client) as lexi:
            reply = await lexi.chat("Hi")
        assert not client.is_closed
        await client.aclose()
        return reply.response

    made = [aiohttp_client()]
    with ScriptedServer(LexiScript()) as server, no_leaks():
        assert anyio.run(main) == CHAT["response"]


def test_a_client_without_use_is_closed() -> None:
    """Closing what never sent anything is fine."""
    anyio.run(aiohttp_client().aclose)


def test_a_large_message_is_sent_whole(runner: Runner) -> None:
    """A body above what is written at once arrives byte for byte, without a warning."""
    message = "x" * (3 << 20)

    async def scenario(lexi: Any) -> None:
        await lexi.chat(message)

    with ScriptedServer(LexiScript()) as server:
        runner.run(scenario, **over(base_url=server.url))
        assert server.requests[0].json == {"message": message}


def test_the_target_is_sent_as_it_is(runner: Runner) -> None:
    """What httpx would send is sent: nothing is quoted, unquoted or normalised on the way."""

    async def scenario(lexi: Any) -> None:
        await lexi.request("GET", "/v1/lexi/tasks", params={"a": "b c+d/é%2F~'", "e": "2026-01-01T00:00:00+02:00"})
        with pytest.raises(leadlex.NotFoundError):
            await lexi.conversation("../../admin/%2e%2e/x")

    targets: list[list[str]] = []
    for options in ({}, over()):
        with ScriptedServer(LexiScript(other_fault=[_as_asked, Answer(404)])) as server:
            runner.run(scenario, base_url=server.url, **options)
            targets.append([request.target for request in server.requests])
            heads = {request.headers["user-agent"] for request in server.requests}
            assert all(agent.startswith("leadlex-python/") for agent in heads)
    assert targets[0] == targets[1]


def _as_asked(connection: Connection, plain: Plain) -> None:
    plain.send(connection)


def test_cookies_and_redirects_are_ignored(runner: Runner) -> None:
    """A cookie is not sent back, and the key goes to no other place."""

    async def scenario(lexi: Any) -> None:
        await lexi.tasks()
        await lexi.tasks()
        with pytest.raises(APIResponseError, match="redirect"):
            await lexi.tasks()

    faults: list[Fault] = [
        Answer(200, BODIES["listTasks"], headers={"Set-Cookie": "a=b; Path=/"}),
        _as_asked,
        Answer(302, {}, headers={"Location": "/elsewhere"}),
    ]
    with ScriptedServer(LexiScript(other_fault=faults)) as server:
        runner.run(scenario, **over(base_url=server.url))
        assert not any("cookie" in request.headers for request in server.requests)
        assert len(server.requests) == 3


# Breaks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "rst", "stall", "end"])
@pytest.mark.parametrize("after", [0, FIRST - 1, FIRST, 200, DONE - 30])
def test_a_cut_stream_is_continued(runner: Runner, after: int, how: Ending) -> None:
    """A stream cut anywhere goes on under its key, is charged once, and nothing is handed out twice."""
    with ScriptedServer(spoiled("stream", Cut(after, how))) as server:
        seen = observe(runner, "stream", server, **over(timeout=times(idle=0.25)))
        seen.expect(None, text=CAPTURE_TEXT, attempts=2)
        assert len({request.idempotency_key for request in server.requests[:2]}) == 1


HALVES = [
    Cut(DONE - 30, "end"),
    *(Cut(DONE - 30, how, inside) for how in ("fin", "rst", "stall") for inside in (False, True)),
]


@pytest.mark.parametrize("fault", HALVES, ids=str)
def test_half_an_answer_is_no_answer(runner: Runner, fault: Cut) -> None:
    """Without resuming, a cut stream is an interruption with what came, however it was cut."""
    with ScriptedServer(spoiled("stream", fault)) as server:
        seen = observe(runner, "stream", server, **over(timeout=times(idle=0.25), retries=0, resume=False))
        seen.expect(StreamInterruptedError, charged="unknown", attempts=1)


def test_what_came_before_a_reset_counts(runner: Runner) -> None:
    """A stream whose `done` came is whole, even where the reset is noticed first."""
    with ScriptedServer(spoiled("stream", Cut(DONE, "rst"))) as server:
        observe(runner, "stream", server, **over(retries=0, resume=False)).expect(None, text=CAPTURE_TEXT, attempts=1)


def test_another_generation_is_not_spliced(runner: Runner) -> None:
    """A continuation that differs is told, and never joined."""
    with ScriptedServer(spoiled("stream", Cut(DONE - 30), personality="regen")) as server:
        observe(runner, "stream", server, **over()).expect(StreamDivergedError, charged="unknown")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [Lost("fin"), Lost("rst"), Lost("fin", after=20)], ids=["fin", "rst", "in the head"])
def test_a_lost_answer(runner: Runner, call: Call, fault: Lost) -> None:
    """An answer that is lost is asked for again where that is free, and never by `chat`."""
    with ScriptedServer(spoiled(call, fault)) as server:
        seen = observe(runner, call, server, **over())
        if call == "chat":
            seen.expect(APIConnectionError, charged="unknown", attempts=1)
        else:
            seen.expect(None, attempts=2)


_ASK: dict[Call, Callable[[Any], Any]] = {
    "get": lambda lexi: lexi.tasks(),
    "chat": lambda lexi: lexi.chat("Hi"),
    "stream": lambda lexi: lexi.stream_chat("Hi").final_reply(),
}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_aiohttp_repeats_nothing_by_itself(runner: Runner, method: str) -> None:
    """A kept connection that breaks as it is used again is seen by the retry rule, which counts every attempt."""

    async def scenario(lexi: Any) -> None:
        await lexi.request("GET", "/v1/lexi/tasks")
        with pytest.raises(APIConnectionError, match="disconnected"):
            await lexi.request(method, "/v1/lexi/tasks")

    def once_then_gone(connection: Connection) -> None:
        connection.receive_request()
        connection.send(json_answer(200, BODIES["listTasks"]))
        connection.receive_request()

    with ScriptedServer(once_then_gone) as server:
        runner.run(scenario, **over(base_url=server.url, retries=0))
        assert len(server.requests) == 2


@pytest.mark.parametrize("raw", [b"Hello, this is no HTTP\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"])
def test_an_answer_that_is_not_http(runner: Runner, raw: bytes) -> None:
    """Bytes that are not HTTP are an answer that can't be used."""
    with ScriptedServer(spoiled("chat", Raw(raw))) as server:
        observe(runner, "chat", server, **over()).expect(APIResponseError, charged="unknown", attempts=1)


@pytest.mark.parametrize("size", [b"zz", b"-5"])
def test_a_bad_chunk_is_a_break(runner: Runner, size: bytes) -> None:
    """A chunk whose size is none breaks a stream off where it stands, at once, though aiohttp tells no reader."""

    def spoil(connection: Connection, plain: Plain) -> None:
        connection.send(plain.head, chunk(CAPTURE[:FIRST]))
        connection.sleep(0.05)
        connection.send(size + b"\r\nhello\r\n")
        connection.stall()

    with ScriptedServer(spoiled("stream", spoil)) as server:
        seen = observe(runner, "stream", server, **over(retries=0, resume=False))
        seen.expect(StreamInterruptedError, charged="unknown", attempts=1, says="no HTTP")


@pytest.mark.parametrize("call", CALLS)
def test_a_bad_chunk_with_the_head(runner: Runner, call: Call) -> None:
    """A bad chunk that comes in one read with its head takes that along: the answer is lost, as any that broke."""
    bad = Raw(sse_head() + b"zz\r\nhello\r\n")
    with ScriptedServer(spoiled(call, bad, times=REPEATED[call])) as server:
        seen = observe(runner, call, server, **over())
        seen.expect(APIConnectionError, charged=CHARGED[call], attempts=REPEATED[call], says="chunk")


def test_a_json_body_that_breaks_off(runner: Runner) -> None:
    """A reply that ends before its length is lost, not shortened."""
    with ScriptedServer(spoiled("chat", Cut(10))) as server:
        observe(runner, "chat", server, **over()).expect(APIConnectionError, charged="unknown", attempts=1)


def test_an_answer_without_a_body(runner: Runner) -> None:
    """A 204 is no reply, and has no body to wait for."""
    with ScriptedServer(spoiled("chat", Answer(204, b""))) as server:
        observe(runner, "chat", server, **over()).expect(APIResponseError, charged="unknown")


# Clocks ------------------------------------------------------------------------------------------------------------


def _comments(connection: Connection, _: Plain) -> None:
    connection.send(sse_head(), chunk(CAPTURE[:FIRST]))
    while True:
        connection.sleep(0.02)
        connection.send(chunk(b": ping\n\n"))


CLOCKED: dict[str, tuple[Fault, Timeout, type[leadlex.LeadLexError]]] = {
    "first_event": (Lost("stall"), times(first_event=0.3), APITimeoutError),
    "first_event, after the head": (Cut(0, "stall"), times(first_event=0.3), StreamInterruptedError),
    "idle": (Cut(FIRST, "stall"), times(idle=0.3), StreamInterruptedError),
    "event_idle": (_comments, times(event_idle=0.3), StreamInterruptedError),
    "total": (_comments, times(total=0.3), StreamInterruptedError),
}


@pytest.mark.parametrize("name", CLOCKED)
def test_every_clock_of_a_stream(runner: Runner, name: str) -> None:
    """A server that falls silent, or only pings, is given up after the clock that says so."""
    fault, timeout, kind = CLOCKED[name]
    with ScriptedServer(spoiled("stream", fault, times=9)) as server:
        options = over(timeout=timeout, retries=0, resume=False)
        seen = observe(runner, "stream", server, deadline=0.3, **options)
    seen.expect(kind, charged="unknown")
    error = seen.error.__cause__ if kind is StreamInterruptedError and seen.error else seen.error
    assert isinstance(error, APITimeoutError)
    assert error.clock == name.partition(",")[0]


def test_total_of_a_json_call(runner: Runner) -> None:
    """A reply that never comes ends with `total`, and Lexi may think until then whatever `idle` is."""
    with ScriptedServer(spoiled("chat", Lost("stall"))) as server:
        seen = observe(runner, "chat", server, deadline=0.4, **over(timeout=times(idle=0.1, total=0.4)))
        seen.expect(APITimeoutError, charged="unknown", clock="total")


def test_idle_of_a_json_body(runner: Runner) -> None:
    """A reply that stops in its middle ends with `idle`."""
    with ScriptedServer(spoiled("chat", Cut(10, "stall"))) as server:
        seen = observe(runner, "chat", server, deadline=0.3, **over(timeout=times(idle=0.3)))
        seen.expect(APITimeoutError, charged="unknown", clock="idle")


def test_a_slow_reader_is_not_the_servers_fault(runner: Runner) -> None:
    """The clocks stand still while nobody waits for the network: what came meanwhile is not lost."""

    def in_two(connection: Connection, plain: Plain) -> None:
        connection.send(plain.head, chunk(CAPTURE[:FIRST]))
        connection.sleep(0.1)
        connection.send(chunk(CAPTURE[FIRST:]))
        connection.sleep(0.7)
        plain.end(connection)

    async def scenario(lexi: Any) -> int:
        count = 0
        async for _ in lexi.stream_chat("Hi"):
            count += 1
            if count == 1:
                await runner.sleep(0.7)
        return count

    with ScriptedServer(LexiScript(stream_fault=in_two)) as server:
        options = over(timeout=times(idle=0.3, event_idle=0.4), retries=0, resume=False)
        assert runner.run(scenario, base_url=server.url, **options) == len(CAPTURE_EVENTS)


@pytest.mark.parametrize("call", ["chat", "stream"])
def test_a_server_that_does_not_read(runner: Runner, call: Call) -> None:
    """A large request that nobody takes is given up after `write`."""
    with no_leaks(), ScriptedServer(Connection.stall, buffers=4096) as server, must_not_hang(10):
        with pytest.raises(APITimeoutError) as caught:
            runner.run(_ask_much[call], base_url=server.url, **over(timeout=times(write=0.3), retries=0))
        assert (caught.value.clock, caught.value.charged) == ("write", "unknown")


_MUCH = {"own": "x" * 8_000_000}
_ask_much: dict[Call, Callable[[Any], Any]] = {
    "chat": lambda lexi: lexi.chat("Hi", context=_MUCH),
    "stream": lambda lexi: lexi.stream_chat("Hi", context=_MUCH).final_reply(),
}


@pytest.mark.parametrize("size", [40, 1 << 16])
def test_a_flood_of_comments(runner: Runner, size: int) -> None:
    """Comments that never stop coming are no event, even where there is always one to be read at once."""

    def flood(connection: Connection, plain: Plain) -> None:
        connection.send(plain.head)
        while True:
            connection.send(chunk(b": " + b"x" * size + b"\n"))

    with ScriptedServer(spoiled("stream", flood, times=9)) as server:
        options = over(timeout=times(first_event=0.3), retries=0)
        seen = observe(runner, "stream", server, deadline=2.0, **options)
    assert isinstance(seen.error, StreamInterruptedError | APITimeoutError)


@pytest.mark.parametrize("call", CALLS)
def test_a_full_pool_is_proved(runner: Runner, call: Call) -> None:
    """Who waits for a connection in vain has sent nothing, and is told how many are in use."""

    async def scenario(lexi: Any) -> None:
        async with lexi.stream_chat("Hi") as stream:
            async for _ in stream:
                break
            with pytest.raises(APITimeoutError, match="all 1 connections") as caught:
                await _ASK[call](lexi)
            assert (caught.value.clock, caught.value.charged) == ("pool", "no")
        await lexi.tasks()

    with ScriptedServer(LexiScript(stream_fault=Cut(FIRST, "stall"))) as server:
        made = lambda: aiohttp_client(max_connections=1)  # noqa: E731  # a maker, as a user writes it
        runner.run(scenario, base_url=server.url, http_client=made, timeout=times(pool=0.2), retries=0)
        assert len(server.requests) == 2


# Closing and cancelling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Cut(FIRST, "stall"), Lost("stall")], ids=["in the body", "before the head"])
def test_closing_ends_what_runs(fault: Any) -> None:
    """Closing the client ends a stream that waits, with an error that says so, at once."""

    async def main() -> None:
        async with anyio.create_task_group() as group:
            lexi = leadlex.AsyncLeadLex(API_KEY, **over(base_url=server.url, timeout=PATIENT))
            group.start_soon(read, lexi)
            await AsyncRunner("asyncio").until(lambda: server.stalls)
            await lexi.aclose()

    async def read(lexi: Any) -> None:
        with pytest.raises(ClientClosedError):
            await lexi.stream_chat("Hi").final_reply()

    with ScriptedServer(LexiScript(stream_fault=fault, times=None)) as server, no_leaks(), must_not_hang(5):
        anyio.run(main)


def test_cancelled_at_every_step() -> None:
    """A call that is cancelled anywhere gives its connection and its place back, and the next one goes well."""

    async def main() -> None:
        made = lambda: aiohttp_client(max_connections=2)  # noqa: E731  # a maker, as a user writes it
        async with leadlex.AsyncLeadLex(API_KEY, base_url=server.url, http_client=made, timeout=PATIENT) as lexi:
            for steps in range(30):
                async with anyio.create_task_group() as group:
                    group.start_soon(read, lexi)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    group.cancel_scope.cancel()
                assert (await lexi.chat("Hi")).response == CHAT["response"]

    async def read(lexi: Any) -> None:
        async with lexi.stream_chat("Hi") as stream:
            await stream.final_reply()

    with ScriptedServer(LexiScript(sizes=(40,))) as server, no_leaks(), must_not_hang(10):
        anyio.run(main)


def test_many_streams_at_once() -> None:
    """A few hundred streams run side by side through one session, each with its own answer."""

    async def main() -> None:
        lexi = leadlex.AsyncLeadLex(API_KEY, **over(base_url=server.url, timeout=PATIENT))
        async with lexi, anyio.create_task_group() as group:
            for _ in range(200):
                group.start_soon(read, lexi)

    async def read(lexi: Any) -> None:
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

    with ServerProcess(LexiScript()) as server, no_leaks(), must_not_hang(20):
        anyio.run(main)
        assert len(server.requests) == 200


@pytest.mark.heavy
def test_ten_thousand_streams_at_once() -> None:
    """Ten thousand streams that begin together are whole with the usual clocks: none counts our own loop's lag."""

    async def main() -> list[Exception]:
        errors: list[Exception] = []
        lexi = leadlex.AsyncLeadLex(API_KEY, **over(base_url=f"{url}/{Plan(events=20, pause=500)}", retries=0))
        async with lexi, anyio.create_task_group() as group:
            for _ in range(10_000):
                group.start_soon(read, lexi, errors)
        return errors

    async def read(lexi: Any, errors: list[Exception]) -> None:
        try:
            await lexi.stream_chat("Hi").final_reply()
        except leadlex.LeadLexError as error:
            errors.append(error)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with benchmarks_server.running() as url:
        assert anyio.run(main) == []


FORGOTTEN = """
    import asyncio, leadlex

    async def main():
        lexi = leadlex.AsyncLeadLex("wbk_test", base_url={url!r}, http_client=leadlex.aiohttp_client)
        print((await lexi.chat("Hi")).response)

    asyncio.run(main())
    client = leadlex.LeadLex("wbk_test", base_url={url!r}, http_client=leadlex.aiohttp_client)
    print(client.chat("Hi").response)
"""


def test_a_forgotten_client_is_silent() -> None:
    """A script that closes nothing ends by itself, with nothing on stderr."""
    with ScriptedServer(LexiScript()) as server:
        program = textwrap.dedent(FORGOTTEN).format(url=server.url)
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split("\n") == [CHAT["response"], CHAT["response"], ""]


# Environments ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trusted(environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """Trust the tests' authority."""
    file = tmp_path / "authority.pem"
    file.write_bytes(authority_pem())
    environ["SSL_CERT_FILE"] = str(file)


@pytest.fixture
def proxied(environ: MutableMapping[str, str]) -> Callable[[str], None]:
    """Set the environment's proxy."""

    def set_to(url: str) -> None:
        environ["HTTPS_PROXY"] = url

    for name in ("https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        environ.pop(name, None)
    return set_to


@pytest.mark.usefixtures("trusted")
def test_tls(runner: Runner) -> None:
    """`SSL_CERT_FILE` says who is trusted."""
    with ScriptedServer(LexiScript(), tls=identity()) as server:
        observe(runner, "stream", server, **over()).expect(None, attempts=1)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("kind", ["unknown_ca", "wrong_name", "expired"])
def test_a_bad_certificate(runner: Runner, kind: Any) -> None:
    """A certificate that can't be trusted gets no request, and the error says why."""
    with ScriptedServer(LexiScript(), tls=identity(kind)) as server:
        with pytest.raises(APIConnectionError, match="certificate"):
            runner.run(_ASK["chat"], **over(base_url=server.url, retries=0))
        assert not server.requests


@pytest.mark.usefixtures("trusted")
def test_through_a_proxy(runner: Runner, proxied: Callable[[str], None]) -> None:
    """The environment's proxy is asked to connect, with its own user and password and without the key."""

    def tunnel(connection: Connection) -> None:
        connect = connection.receive_request()
        assert (connect.method, connect.target) == ("CONNECT", "localhost:443")
        assert connect.headers["proxy-authorization"].startswith("Basic ")
        assert "authorization" not in connect.headers
        connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        connection.start_tls(identity())
        LexiScript()(connection)

    with ScriptedServer(tunnel) as proxy:
        proxied(proxy.url.replace("http://", "http://user:secret@"))
        runner.run(_ASK["stream"], **over(base_url="https://localhost", retries=0))
        assert [operation_of(request) for request in proxy.requests] == ["", "streamChat"]


def _refuse(connection: Connection) -> None:
    connection.receive_request()
    connection.send(answer(407, b""))


def test_a_proxy_never_learns_a_key(
    runner: Runner, environ: MutableMapping[str, str], proxied: Callable[[str], None]
) -> None:
    """Plain http, which is only for this machine, goes past every proxy."""
    with ScriptedServer(LexiScript()) as server, dead_port() as nowhere:
        proxied(nowhere)
        environ["HTTP_PROXY"] = nowhere
        environ["http_proxy"] = nowhere
        runner.run(_ASK["chat"], **over(base_url=server.url, retries=0))


def test_no_proxy(runner: Runner, environ: MutableMapping[str, str], proxied: Callable[[str], None]) -> None:
    """What `NO_PROXY` names, by host and port, is reached past the proxy."""
    with ScriptedServer(per_connection(_refuse)) as proxy, ScriptedServer(LexiScript(), tls=identity()) as server:
        proxied(proxy.url)
        environ["NO_PROXY"] = server.url.removeprefix("https://")
        with pytest.raises(APIConnectionError, match="certificate"):
            runner.run(_ASK["chat"], **over(base_url=server.url, retries=0))
        assert not proxy.connections


def test_a_socks_proxy_is_refused(runner: Runner, proxied: Callable[[str], None]) -> None:
    """SOCKS is unknown to aiohttp, which is said before anything is sent."""
    proxied("socks5://localhost:1")
    with pytest.raises(ConfigurationError, match="SOCKS") as caught:
        runner.run(_ASK["chat"], **over(base_url="https://localhost"))
    assert caught.value.charged == "no"


def test_under_trio() -> None:
    """Under trio it says that it can't, before anything is sent."""
    with ScriptedServer(LexiScript()) as server:
        with pytest.raises(ConfigurationError, match="asyncio only") as caught:
            AsyncRunner("trio").run(_ASK["chat"], **over(base_url=server.url))
        assert caught.value.charged == "no"
        assert not server.connections


OLD = ModuleType("aiohttp")
OLD.__version__ = "3.13.5"  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", [None, OLD], ids=["missing", "too old"])
def test_without_the_extra(package: ModuleType | None) -> None:
    """Where aiohttp is missing, or older than the extra's, the name is still there; calling it says what to install."""
    missing = pytest.raises(ConfigurationError, match=r"pip install '\.\[aiohttp\]'")
    with packages(aiohttp=package), missing:
        aiohttp_client()


def test_the_extra_loads_when_it_is_used() -> None:
    """Naming it loads nothing of aiohttp; a client without it never does."""
    program = "import sys, leadlex; leadlex.aiohttp_client; leadlex.LeadLex('wbk_x'); print('aiohttp' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert run.stdout == "False\n"


@pytest.mark.parametrize("clock", ["idle", "event_idle"])
def test_other_transports_have_an_idle_clock(runner: Runner, clock: str) -> None:
    """Whatever transport a user brings, a body that stops is given up after the first clock that ends."""

    class Stalling(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002  # httpx's
            return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Silent())

    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield CAPTURE[:FIRST]
            await anyio.sleep_forever()

    made = lambda: httpx.AsyncClient(transport=Stalling())  # noqa: E731  # a maker, as a user writes it
    with must_not_hang(5), pytest.raises(StreamInterruptedError) as caught:
        runner.run(_ASK["stream"], http_client=made, timeout=times(**{clock: 0.2}), retries=0, resume=False)
    assert isinstance(caught.value.__cause__, APITimeoutError)
    assert caught.value.__cause__.clock == clock

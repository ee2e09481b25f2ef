"""Table A of the fault matrix: no connection, or one that dies at once."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import AsyncGenerator, Generator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from leadlex import APIConnectionError, APITimeoutError, AsyncLeadLex, Timeout
from tests.matrix.oracles import CALLS, CHARGED, PATIENT, REPEATED, Call, observe, over_tls, spoiled
from tests.support.answers import json_answer
from tests.support.lexi import BODIES, Answer, Cut, Fault, LexiScript, Lost
from tests.support.process import ServerProcess
from tests.support.proxy import Proxy
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, ScriptedServer, black_hole, dead_port, per_connection
from tests.support.tls import authority_pem, identity

every_call = pytest.mark.parametrize("call", CALLS)


@contextlib.contextmanager
def revived(fault: contextlib.ExitStack, url: str) -> Generator[None]:
    """End a fault and let a healthy server listen at its address."""
    fault.close()
    with ScriptedServer(LexiScript(), port=urlsplit(url).port or 0):
        yield


@pytest.fixture
def trusted(environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """Trust the tests' authority, and no proxy from outside."""
    (tmp_path / "ca.pem").write_bytes(authority_pem())
    environ["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        environ.pop(name, None)
        environ.pop(name.upper(), None)


@every_call
@pytest.mark.row("A01")
def test_refused(runner: Runner, call: Call) -> None:
    """A refused connection is tried again, costs nothing and is told as what it is."""
    with contextlib.ExitStack() as dead:
        url = dead.enter_context(dead_port())
        seen = observe(runner, call, base_url=url, healed=partial(revived, dead, url))
        seen.expect(APIConnectionError, charged="no", attempts=3, says="could not be reached")


@every_call
@pytest.mark.row("A02")
def test_no_such_host(runner: Runner, call: Call) -> None:
    """A name that does not resolve is looked up once more, and nothing is charged."""
    seen = observe(runner, call, base_url="https://leadlex.invalid", healed=None, deadline=12)
    seen.expect(APIConnectionError, charged="no", attempts=2, says="host name could not be found")


@every_call
@pytest.mark.row("A02")
def test_resolver_fails_for_a_while(runner: Runner, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the resolver is back, the same client works again."""
    resolver = Resolver(monkeypatch)
    with ScriptedServer(LexiScript()) as server:
        url = f"http://localhost:{server.port}"
        resolver.fails = 2
        seen = observe(runner, call, server, base_url=url)
        seen.expect(APIConnectionError, charged="no", attempts=2)
        resolver.fails = 1
        observe(runner, call, server, base_url=url).expect(None, attempts=2)


class Resolver:
    """Stand for the system's resolver, which knows `localhost` at the given addresses or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.fails = 0
        self._addresses = addresses
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.find)

    def find(self, host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
        """Resolve a name."""
        if host not in ("localhost", b"localhost"):
            return self._real(host, port, *args, **options)
        if self.fails:
            self.fails -= 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        found = self._addresses or ("127.0.0.1",)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, int(port))) for each in found]


@every_call
@pytest.mark.row("A03")
def test_black_hole(runner: Runner, call: Call) -> None:
    """A host that swallows the handshake ends in the connect timeout, after the retries, and nothing is charged."""
    timeout = Timeout(connect=0.2)
    with contextlib.ExitStack() as hole:
        url = hole.enter_context(black_hole())
        healed = partial(revived, hole, url)
        seen = observe(runner, call, base_url=url, timeout=timeout, deadline=0.7, healed=healed)
        seen.expect(APITimeoutError, charged="no", attempts=3, clock="connect")


@every_call
@pytest.mark.row("A04")
def test_second_address_answers(runner: Runner, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose first address refuses is reached at its second, in the same attempt."""
    Resolver(monkeypatch, "127.0.0.2", "127.0.0.1")
    with ScriptedServer(LexiScript()) as server:
        seen = observe(runner, call, server, base_url=f"http://localhost:{server.port}")
        seen.expect(None, attempts=1)


@every_call
@pytest.mark.row("A05")
def test_reset_on_accept(runner: Runner, call: Call) -> None:
    """A connection reset while the request may have begun is lost: only what is safe is tried again."""
    attempts = REPEATED[call]
    script = per_connection(*[reset_in_a_moment] * attempts, LexiScript())
    with ScriptedServer(script) as server:
        seen = observe(runner, call, server)
        seen.expect(APIConnectionError, charged=CHARGED[call], attempts=attempts)


def reset_in_a_moment(connection: Connection) -> None:
    """Reset a connection on which a request was written and not read."""
    connection.sleep(0.05)
    connection.rst()


@every_call
@pytest.mark.row("A05")
@pytest.mark.usefixtures("trusted")
def test_reset_on_accept_before_tls(runner: Runner, call: Call) -> None:
    """A connection reset before its handshake never carried a request: all may be tried again, and nothing is owed."""
    script = per_connection(*[Connection.rst] * 3, over_tls(LexiScript()))
    with ScriptedServer(script) as server:
        seen = observe(runner, call, server, base_url=f"https://127.0.0.1:{server.port}")
        seen.expect(APIConnectionError, charged="no", attempts=3)


@every_call
@pytest.mark.row("A06")
def test_pool_exhausted(runner: Runner, call: Call) -> None:
    """With all connections in the caller's own streams a call soon fails, unsent, and says how many there are."""
    script = LexiScript(stream_fault=[Cut(100, how="stall")] * 20)
    with ScriptedServer(script) as server:
        timeout = Timeout(pool=0.2)
        seen = observe(
            runner, call, server, timeout=timeout, deadline=0.2, max_connections=20, around=partial(open_streams, 20)
        )
        seen.expect(APITimeoutError, charged="no", attempts=1, clock="pool", says="20 connections")
        assert len(server.requests) == 21  # the streams, and the call that proves O7


@contextlib.asynccontextmanager
async def open_streams(count: int, lexi: Any) -> AsyncGenerator[None]:
    """Keep so many streams open."""
    async with contextlib.AsyncExitStack() as streams:
        for number in range(count):
            stream = await streams.enter_async_context(lexi.stream_chat(f"Hold {number}"))
            await stream.__anext__()
        yield


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.row("A07")
def test_pool_survives_cancellations(backend: str) -> None:
    """Calls cancelled at any moment never use up the pool: the next ones find all its places free."""

    async def main() -> None:
        async with AsyncLeadLex(API_KEY, base_url=server.url, max_connections=4, timeout=PATIENT) as lexi:
            for number in range(200):
                with anyio.move_on_after(number % 20 / 4000):
                    async with anyio.create_task_group() as group:
                        for _ in range(6):
                            group.start_soon(lexi.tasks)
            async with anyio.create_task_group() as group:
                for _ in range(8):
                    group.start_soon(lexi.tasks)

    with ScriptedServer(LexiScript()) as server, no_leaks(), must_not_hang(30):
        anyio.run(main, backend=backend)


@every_call
@pytest.mark.row("A08")
def test_idle_connection_closed(runner: Runner, call: Call) -> None:
    """A connection that the server closed while it was idle is replaced in silence, even for a chat."""

    @contextlib.asynccontextmanager
    async def idle(lexi: Any) -> AsyncGenerator[None]:
        await lexi.tasks()
        server.release("close")
        await runner.sleep(0.05)
        yield

    with ScriptedServer(per_connection(answer_then_leave, LexiScript())) as server:
        observe(runner, call, server, around=idle).expect(None, attempts=1)
        assert server.connections == 2


def answer_then_leave(connection: Connection) -> None:
    """Answer one request, and close the connection as an idle one."""
    connection.receive_request()
    connection.send(json_answer(200, BODIES["listTasks"]))
    connection.wait_for("close")


@every_call
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.row("A09")
def test_idle_connection_closed_as_the_request_lands(runner: Runner, call: Call, how: Any) -> None:
    """A kept connection that dies under the request is a lost answer: a chat is never sent again."""

    @contextlib.asynccontextmanager
    async def used_before(lexi: Any) -> AsyncGenerator[None]:
        await lexi.tasks()
        yield

    attempts = REPEATED[call]
    faults: list[Fault] = [Answer(200, BODIES["listTasks"]), *[Lost(how)] * attempts]
    script = LexiScript(other_fault=faults) if call == "get" else spoiled(call, Lost(how), times=attempts)
    with ScriptedServer(script) as server:
        seen = observe(runner, call, server, around=used_before)
        seen.expect(APIConnectionError, charged=CHARGED[call], attempts=attempts)
        assert [each.connection for each in server.requests[:2]] == [1, 1]


@every_call
@pytest.mark.row("A10")
@pytest.mark.usefixtures("trusted")
def test_dead_proxy(runner: Runner, call: Call, environ: MutableMapping[str, str]) -> None:
    """A proxy of the environment that is not there is named, without its password, and nothing is charged."""
    with ScriptedServer(LexiScript(), tls=identity()) as server, contextlib.ExitStack() as dead:
        url = dead.enter_context(dead_port())
        place = url.removeprefix("http://")
        environ["HTTPS_PROXY"] = f"http://clerk:hunter2@{place}"

        @contextlib.contextmanager
        def alive() -> Generator[None]:
            dead.close()
            with Proxy(port=int(place.rpartition(":")[2])):
                yield

        seen = observe(runner, call, server, healed=alive)
        seen.expect(APIConnectionError, charged="no", attempts=3, says=f"proxy.*{place}")
        assert "hunter2" not in str(seen.error)


@every_call
@pytest.mark.parametrize(("status", "attempts"), [(407, 1), (403, 1), (502, 3), (503, 3)])
@pytest.mark.row("A11")
@pytest.mark.usefixtures("trusted")
def test_proxy_refuses(
    runner: Runner, call: Call, status: int, attempts: int, environ: MutableMapping[str, str]
) -> None:
    """A proxy that wants a password is not asked twice, one that can't connect is; the service heard nothing."""
    with ScriptedServer(LexiScript(), tls=identity()) as server, Proxy(refusals=[status] * attempts) as proxy:
        environ["HTTPS_PROXY"] = proxy.url.replace("//", "//clerk:hunter2@")
        seen = observe(runner, call, server)
        seen.expect(APIConnectionError, charged="no", attempts=attempts, says=f"[Pp]roxy.*{status}")
        assert len(proxy.asked) == attempts + 1
        assert "hunter2" not in str(seen.error)
        assert len(server.requests) == 1


@every_call
@pytest.mark.row("A12")
def test_no_file_descriptor_left(runner: Runner, call: Call) -> None:
    """Without a free file descriptor a call fails as one that was never sent, and goes well when there is one again."""

    @contextlib.asynccontextmanager
    async def starved(lexi: Any) -> AsyncGenerator[None]:
        await lexi.tasks()  # so that the sync client has its loop
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    # In a process of its own, a server has descriptors of its own.
    last = Answer(200, BODIES["listTasks"], {"Connection": "close"})
    with ServerProcess(LexiScript(other_fault=last)) as server:
        seen = observe(runner, call, server, around=starved)
        seen.expect(
            APIConnectionError, charged="no", attempts=3, says="No connection could be opened: .*open files.*ulimit -n"
        )

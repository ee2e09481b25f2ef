"""Name servers that are silent, and hosts with several addresses."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from leadlex import APIConnectionError, AsyncLeadLex, Timeout
from leadlex._network import names
from leadlex._network.names import addresses_of, connect
from tests.support.lexi import LexiScript
from tests.support.programs import pythons
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY
from tests.support.server import ScriptedServer, black_hole

# Programs that end though a name server never answers ---------------------------------------------------------------

SILENT = """
import asyncio, socket, sys, time, leadlex
def never(*_, **__):
    print("asked", flush=True)
    time.sleep(600)
socket.getaddrinfo = never
options = {"base_url": "https://leadlex.invalid", "timeout": leadlex.Timeout(connect=float(SECONDS)), "retries": 0}
async def ask(**more):
    async with leadlex.AsyncLeadLex(**options, **more) as lexi:
        await lexi.chat("Hi")
def ask_sync():
    with leadlex.LeadLex(**options) as lexi:
        lexi.chat("Hi")
def tell(run, *args):
    try:
        run(*args)
    except leadlex.APITimeoutError as error:
        print(error.clock, error.charged)
"""

WAYS = {
    "sync": "tell(ask_sync)",
    "asyncio": "tell(lambda: asyncio.run(ask()))",
    "trio": "import trio; tell(trio.run, ask)",
    "aiohttp": "tell(lambda: asyncio.run(ask(http_client=leadlex.aiohttp_client)))",
    # With streams that were made for its own pipes.
    "cli": """
from leadlex.cli import main
sys.stdout, sys.stderr = open(1, "w"), open(2, "w")
sys.exit(main(["chat", "Hi"]))
""",
}


@pytest.mark.parametrize("way", [way for way in WAYS if way != "cli"])
def test_a_silent_name_server(way: str) -> None:
    """Once the error was told, the process ends; nobody waits for the name server."""
    ended = pythons()[0].run(SILENT.replace("SECONDS", "0.2") + WAYS[way], "http://unused")
    assert (ended.code, ended.errors, ended.output) == (0, "", "asked\nconnect no\n")


@pytest.mark.parametrize("way", WAYS)
def test_interrupted_while_a_name_server_is_silent(way: str) -> None:
    """Ctrl-C ends the process too."""
    source = SILENT.replace("SECONDS", "300") + WAYS[way]
    with pythons()[0].start(source, "https://leadlex.invalid") as program:
        program.wait_for("asked")
        program.send(signal.SIGINT)
        ended = program.end()
    assert ended.code in (-signal.SIGINT, 130, 1), ended  # 1: trio's KeyboardInterrupt, in a group
    assert "KeyboardInterrupt" in ended.errors or way == "cli", ended


# Lookups -----------------------------------------------------------------------------------------------------------

both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Names:
    """What stands for the system's resolver, and counts how often it was asked.

    Args:
        find: What it does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, find: Callable[[], list[str]]) -> None:
        self.asked = 0
        self._find = find
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, _: str, port: int, **_kind: Any) -> list[Any]:
        """Give addresses as the system does."""
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in self._find()]


@both
def test_one_lookup_for_all(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a host meanwhile shares one thread, whoever asks afterwards asks anew; some may give up."""
    go = threading.Event()

    def find() -> list[str]:
        go.wait()
        return ["127.0.0.1", "127.0.0.1", "::1"]

    found = list[list[str]]()

    async def ask() -> None:
        found.append(await addresses_of("leadlex.invalid", 443))

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await ask()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            go.set()
        await ask()

    resolver = Names(monkeypatch, find)
    with no_leaks(), must_not_hang():
        anyio.run(main, backend=backend)
    assert found == [["127.0.0.1", "::1"]] * 21
    assert resolver.asked == 2


def test_a_lookup_outlives_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes after the loop's end is nobody's."""
    go = threading.Event()

    def find() -> list[str]:
        go.wait()
        return []

    async def main() -> None:
        with anyio.move_on_after(0.01):
            await addresses_of("leadlex.invalid", 443)

    Names(monkeypatch, find)
    anyio.run(main)
    with no_leaks():
        before = [each for each in threading.enumerate() if each.name == "leadlex name lookup"]
        go.set()
        for each in before:
            each.join()


@pytest.mark.parametrize("host", ["a" * 64 + ".invalid", "leadlex.invalid"])
def test_no_such_name(host: str) -> None:
    """A name that nobody has, or that can be nobody's, is an error of names."""
    with pytest.raises(socket.gaierror):
        anyio.run(addresses_of, host, 443)


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be had, no connection can, and nothing was charged."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        async with AsyncLeadLex(API_KEY, base_url="http://localhost:1", retries=0) as lexi:
            with pytest.raises(APIConnectionError, match="can't start new thread") as info:
                await lexi.chat("Hi")
            assert info.value.charged == "no"

    monkeypatch.setattr(names, "system_thread", refuse)
    anyio.run(main)


# Several addresses -------------------------------------------------------------------------------------------------


@both
def test_the_first_that_takes_it(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is silent or refuses is passed by; the newer protocol comes first, and each only once."""
    tried = list[str]()
    real = anyio.connect_tcp

    async def note(host: str, port: int) -> Any:
        tried.append(host)
        return await real(*hole if host == "127.0.0.2" else (host, port))

    async def main() -> None:
        stream = await connect("leadlex.invalid", server.port)
        await stream.aclose()

    Names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.1", "::1", "::2"])
    monkeypatch.setattr(anyio, "connect_tcp", note)
    with black_hole() as url, ScriptedServer(LexiScript()) as server, must_not_hang():
        hole = ("127.0.0.1", int(url.rpartition(":")[2]))
        anyio.run(main, backend=backend)
    assert tried == ["::1", "127.0.0.2", "::2", "127.0.0.1"]


@both
def test_none_takes_it(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every address refuses, the reasons are kept."""
    Names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.3"])
    with pytest.raises(OSError, match="All connection attempts failed") as info:
        anyio.run(connect, "leadlex.invalid", 1, backend=backend)
    assert isinstance(info.value.__cause__, ExceptionGroup)
    assert len(info.value.__cause__.exceptions) == 2


@both
def test_given_up(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up leaves no socket open, not that of a connection made in the same moment either."""
    real = anyio.connect_tcp

    async def connect_and_cancel(host: str, port: int) -> Any:
        stream = await real("127.0.0.1", port)
        scopes[0].cancel()
        return stream

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await connect("leadlex.invalid", server.port)

    scopes = list[anyio.CancelScope]()
    Names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.3"])
    monkeypatch.setattr(anyio, "connect_tcp", connect_and_cancel)
    with no_leaks(), ScriptedServer(LexiScript()) as server:
        anyio.run(main, backend=backend)
        assert scopes[0].cancelled_caught


@both
def test_given_up_before(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives up before any address took it leaves nothing open either."""

    async def main() -> None:
        with anyio.move_on_after(0.05):
            await connect("leadlex.invalid", port)

    Names(monkeypatch, lambda: ["127.0.0.1", "127.0.0.1", "::1"])
    with black_hole() as url, no_leaks():
        port = int(url.rpartition(":")[2])
        monkeypatch.setattr(names, "_in_turn", lambda _: ["127.0.0.1", "127.0.0.1"])
        anyio.run(main, backend=backend)


@both
def test_two_at_once(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two connections that are made at once, one is used and one is closed."""
    real = anyio.connect_tcp
    over: anyio.Event

    async def together(host: str, port: int) -> Any:
        stream = await real("127.0.0.1", port)
        if host == "127.0.0.3":
            over.set()
        with anyio.CancelScope(shield=True):
            await over.wait()
        return stream

    async def main() -> None:
        nonlocal over
        over = anyio.Event()
        stream = await connect("leadlex.invalid", server.port)
        await stream.aclose()

    Names(monkeypatch, lambda: ["127.0.0.2", "127.0.0.3"])
    monkeypatch.setattr(anyio, "connect_tcp", together)
    with no_leaks(), ScriptedServer(LexiScript()) as server, must_not_hang():
        anyio.run(main, backend=backend)


def test_a_client_through_names() -> None:
    """A host by its name is reached."""

    async def main() -> None:
        async with AsyncLeadLex(API_KEY, base_url=f"http://localhost:{server.port}", timeout=Timeout()) as lexi:
            assert (await lexi.chat("Hi")).response

    with ScriptedServer(LexiScript()) as server:
        anyio.run(main)

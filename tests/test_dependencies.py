"""What else is installed, and in which version, changes nothing: no library is believed because it is there."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import ModuleType

import anyio
import pytest
from packaging.requirements import Requirement

from leadlex import AsyncLeadLex, LeadLex, cli
from tests.matrix.oracles import CALLS, Call, observe
from tests.support.lexi import LexiScript
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY, Runner
from tests.support.server import ScriptedServer
from tests.support.surroundings import packages

ROOT = Path(__file__).parent.parent

#: Ask ten times for everything, warm, and print what modules were looked for meanwhile; what is not named is not there.
WARM = """
import asyncio, json, sys
ours, backend, url = sys.argv[1].split(","), sys.argv[2], sys.argv[3]
looked = []

class Installed:
    def find_spec(self, name, *_):
        looked.append(name)
        top = name.partition(".")[0]
        if top not in ours and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Installed())
import anyio, leadlex

async def ask(lexi):
    await lexi.chat("Hi")
    await lexi.stream_chat("Hi").final_reply()
    await lexi.conversations().first_page()
    await lexi.tasks()

async def asynchronous():
    async with leadlex.AsyncLeadLex("wbk_invented", base_url=url) as lexi:
        await ask(lexi)
        looked.clear()
        for _ in range(10):
            await ask(lexi)

def synchronous():
    with leadlex.LeadLex("wbk_invented", base_url=url) as lexi:
        for number in range(11):
            lexi.chat("Hi")
            lexi.stream_chat("Hi").final_reply()
            lexi.conversations().first_page()
            lexi.tasks()
            if number == 0:
                looked.clear()

anyio.run(asynchronous, backend=backend) if backend != "sync" else synchronous()
print(looked)
"""


def declared() -> list[str]:
    """List what leadlex declares that it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    dependencies: list[str] = project["dependencies"]
    return dependencies


def installed_with(requirements: list[str]) -> set[str]:
    """Name the distributions that an installer brings for these requirements, and no others."""
    found = set[str]()
    while requirements:
        requirement = Requirement(requirements.pop())
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            requirements += metadata.requires(name) or ()
    return found


def modules_of(distributions: set[str]) -> list[str]:
    """Name what can be imported of these distributions."""
    packages = metadata.packages_distributions()
    return [
        name
        for name, owners in packages.items()
        if not distributions.isdisjoint(re.sub(r"[-_.]+", "-", owner).lower() for owner in owners)
    ]


@pytest.mark.parametrize(("backend", "beside"), [("asyncio", []), ("sync", []), ("trio", ["trio"])])
def test_a_warm_call_looks_for_no_module(backend: str, beside: list[str]) -> None:
    """Where nothing but leadlex is installed, and trio for those who use it, a call searches the disk for no module."""
    modules = modules_of(installed_with([*declared(), *beside]))
    assert "trio" in modules or not beside
    with ScriptedServer(LexiScript()) as server:
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", WARM, ",".join(["leadlex", *modules]), backend, server.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert (run.stdout, run.stderr) == ("[]\n", "")


@pytest.fixture
def ancient_trio(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have a trio that knows next to nothing, or where one runs in it, not what came with 0.29."""
    if runner.name == "trio":
        monkeypatch.delattr("trio.lowlevel.in_trio_run")
        yield
        return
    with packages(trio=ModuleType("trio")):
        yield


@pytest.mark.usefixtures("ancient_trio")
@pytest.mark.parametrize("call", CALLS)
def test_a_trio_of_any_age_does_no_harm(runner: Runner, call: Call) -> None:
    """A client is made, asks and is closed, whatever trio another program brought."""
    with ScriptedServer(LexiScript()) as server:
        observe(runner, call, server).expect(None, attempts=1)


def _ended_aside(lexi: AsyncLeadLex) -> None:
    anyio.run(lexi.aclose)


@pytest.mark.usefixtures("ancient_trio")
def test_a_client_is_closed_from_another_loop(runner: Runner) -> None:
    """So is one that another event loop uses, and the command can still be run."""
    if runner.name == "sync":
        assert cli.main(["--version"]) == 0
        return

    async def main() -> None:
        lexi = AsyncLeadLex(API_KEY, base_url=server.url)
        await lexi.chat("Hi")
        await anyio.to_thread.run_sync(_ended_aside, lexi)
        assert await anyio.to_thread.run_sync(server.wait_for_disconnect, 5)

    with ScriptedServer(LexiScript()) as server, no_leaks():
        runner.drive(main)


def test_a_thread_that_was_given_a_loop_s_context() -> None:
    """A client is made in a thread that the loop's context was copied into, where sniffio takes it for the loop."""

    async def main() -> None:
        lexi = await asyncio.to_thread(AsyncLeadLex, API_KEY, base_url=server.url)
        await lexi.chat("Hi")
        await lexi.aclose()
        await asyncio.to_thread(_ask, server.url)

    with ScriptedServer(LexiScript()) as server, no_leaks():
        anyio.run(main)


def _ask(url: str) -> None:
    with LeadLex(API_KEY, base_url=url) as lexi:
        lexi.chat("Hi")


def test_under_uvloop() -> None:
    """Under another kind of asyncio's loop all calls are made, and what a loop left behind is closed."""

    async def main() -> None:
        for _ in range(2):
            await lexi.chat("Hi")
            await lexi.stream_chat("Hi").final_reply()
            await lexi.conversations().first_page()

    under_uvloop = {"use_uvloop": True}
    anyio.run(anyio.sleep, 0, backend_options=under_uvloop)  # its first loop opens a pipe for the whole process
    with ScriptedServer(LexiScript()) as server, no_leaks():
        lexi = AsyncLeadLex(API_KEY, base_url=server.url)
        for _ in range(2):
            anyio.run(main, backend_options=under_uvloop)
        anyio.run(lexi.aclose)
        assert server.connections == 2

"""The fixtures that leadlex brings to other people's tests."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import anyio
import pytest

from leadlex import AsyncLeadLex, LeadLex, pytest_plugin
from leadlex.sandbox import Sandbox
from tests.sandbox.test_extra import fail_import

pytest_plugins = ["pytester"]

# Imported where they are used as well, since this package may not be installed while its own tests run.
async_lexi, leadlex_sandbox, lexi = pytest_plugin.async_lexi, pytest_plugin.leadlex_sandbox, pytest_plugin.lexi

ROOT = Path(__file__).parents[1]
CONFTEST = "from leadlex.pytest_plugin import async_lexi, leadlex_sandbox, lexi"
WITHOUT_UVICORN = f"""
import sys

class Missing:
    def find_spec(self, name, *_):
        if name == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name=name)

sys.meta_path.insert(0, Missing())
{CONFTEST}
"""
USERS_TESTS = """
import asyncio
import pytest
import trio

def test_sync(lexi, leadlex_sandbox):
    reply = lexi.stream_chat("Where is Jane Doe?").final_reply()
    assert "Jane Doe" in reply.response
    assert leadlex_sandbox.credits == 4_998

async def talk(client):
    async with client.stream_chat("Where is Jane Doe?") as stream:
        reply = await stream.final_reply()
    assert (await client.chat("Hello", conversation_id=reply.conversation_id)).response
    return reply.response

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_anyio(async_lexi):
    assert "Jane Doe" in await talk(async_lexi)

def test_bare_asyncio(async_lexi):
    assert "Jane Doe" in asyncio.run(talk(async_lexi))

def test_bare_trio(async_lexi):
    assert "Jane Doe" in trio.run(talk, async_lexi)
"""


def test_the_sync_client_talks_to_the_sandbox(lexi: LeadLex, leadlex_sandbox: Sandbox) -> None:
    """`lexi` and `leadlex_sandbox` of one test are client and server of each other."""
    lexi.chat("Hello")
    assert [request.path for request in leadlex_sandbox.requests] == ["/v1/lexi/chat"]


@pytest.mark.trio
def test_the_async_client_leaves_no_connection(async_lexi: AsyncLeadLex, leadlex_sandbox: Sandbox) -> None:
    """`async_lexi` can be used without closing it, in the loop of any plugin."""

    async def talk() -> str:
        return (await async_lexi.stream_chat("Where is Jane Doe?").final_reply()).response

    assert "Jane Doe" in anyio.run(talk)
    assert "Jane Doe" in anyio.run(talk, backend="trio")
    assert len(leadlex_sandbox.requests) == 2


@pytest.mark.trio
def test_the_fixtures_work_where_every_warning_is_an_error(pytester: pytest.Pytester) -> None:
    """Under anyio's plugin and under none, on asyncio and trio, nothing is left open that Python would warn of."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(USERS_TESTS)
    pytester.runpytest_subprocess("-Werror", "-q").assert_outcomes(passed=5)


LEFT_OVER = """
def test_all_used(leadlex_sandbox, lexi):
    leadlex_sandbox.answer_next("One.")
    leadlex_sandbox.fail_next("rate_limit", retry_after=0)
    assert lexi.stream_chat("Hi").final_reply().response == "One."

def test_left_over(leadlex_sandbox, lexi):
    leadlex_sandbox.fail_next("drop_stream")
    leadlex_sandbox.answer_next("One.")
    leadlex_sandbox.answer_next("Two.")
    assert lexi.chat("Hi").response == "One."
"""


def test_a_test_fails_that_left_faults_or_answers_over(pytester: pytest.Pytester) -> None:
    """Who scripts what never happens is told so, in a line: the test did not try what it seems to try."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(LEFT_OVER)
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*never asked for what was scripted: drop_stream, the answer 'Two.'"])
    result.stdout.fnmatch_lines(["ERROR *::test_left_over*"])


def test_a_missing_extra_is_told_in_one_line(pytester: pytest.Pytester) -> None:
    """Without the sandbox's extra a test that asks for it errs with the line that installs it, and no traceback."""
    pytester.makeconftest(WITHOUT_UVICORN)
    pytester.makepyfile("def test_it(lexi): ...")
    result = pytester.runpytest_subprocess("-q")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install 'leadlex?sandbox?'*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*another exception*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")


def test_a_missing_extra_fails_the_fixture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fixture fails rather than skips: a suite that lost its sandbox must not look green."""
    fail_import("starlette", monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="pip install 'leadlex"):
        request.getfixturevalue("leadlex_sandbox")


def test_loading_the_plugin_loads_no_client() -> None:
    """A run that uses no fixture pays for none: neither httpx nor attrs, nor what the sandbox needs, is imported."""
    code = (
        "import sys, leadlex.pytest_plugin; print(*{'httpx', 'attrs', 'cattrs', 'anyio', 'uvicorn'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_pytest_finds_the_plugin() -> None:
    """The package announces the plugin to pytest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"leadlex": "leadlex.pytest_plugin"}

"""The fixtures that leadlex brings to other people's tests."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest

from leadlex import AsyncLeadLex, ConfigurationError, FakeClock, LeadLex, pytest_plugin
from leadlex.sandbox import Sandbox

pytest_plugins = ["pytester"]

# Imported where they are used as well, since this package may not be installed while its own tests run.
async_lexi, leadlex_sandbox, lexi = pytest_plugin.async_lexi, pytest_plugin.leadlex_sandbox, pytest_plugin.lexi
lexi_clock = pytest_plugin.lexi_clock

#: Without the plugins of others that take seconds to load; one test has them all.
BARE = ("-p", "no:schemathesis", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:xdist.looponfail")

ROOT = Path(__file__).parents[1]
DAY = 24 * 3600
CONFTEST = "from leadlex.pytest_plugin import async_lexi, leadlex_sandbox, lexi, lexi_clock"
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

TESTS_WITH_THE_CLOCK = """
import asyncio
import pytest
import trio
from leadlex import APITimeoutError, ConfigurationError, LeadLex

def make_busy(sandbox):
    sandbox.fail_next("rate_limit", retry_after=30)
    sandbox.fail_next("rate_limit", retry_after=25)

@pytest.fixture
def app(leadlex_sandbox):
    with LeadLex(leadlex_sandbox.api_key, base_url=leadlex_sandbox.url) as client:
        yield client

def test_backoffs(lexi, leadlex_sandbox, lexi_clock):
    make_busy(leadlex_sandbox)
    assert lexi.chat("Hello").meta.elapsed > 55
    assert lexi_clock.sleeps == [30.5, 25.5]

def test_a_client_of_the_apps(lexi_clock, app, leadlex_sandbox):
    make_busy(leadlex_sandbox)
    app.with_options(retries=2).chat("Hello")
    assert lexi_clock.sleeps == [30.5, 25.5]

@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)])
def test_async(async_lexi, leadlex_sandbox, lexi_clock, run):
    make_busy(leadlex_sandbox)
    run(async_lexi.chat("Hello"))
    assert lexi_clock.sleeps == [30.5, 25.5]

def test_waiting_for_a_task(lexi, lexi_clock):
    task_id = lexi.chat("Find me 20 CEOs at law firms in New York").task_id
    with pytest.raises(APITimeoutError) as caught:
        lexi.wait_for_task(task_id, timeout=300)
    assert caught.value.clock == "wait"
    assert lexi_clock.sleeps[:3] == [5, 7.5, 11.25]
    assert 300 <= sum(lexi_clock.sleeps) < 330

def test_a_day_passes(lexi, lexi_clock):
    stream = lexi.stream_chat("Where is Jane Doe?")
    stream.final_reply()
    lexi_clock.advance(24 * 3600)
    with pytest.raises(ConfigurationError, match="23 hours"):
        lexi.stream_chat("Hi", idempotency_key=stream.idempotency_key, first_sent=stream.first_sent)
"""

UNSEEN_TESTS = """
import httpx
import pytest
import respx
import vcr
from leadlex import LeadLex
from leadlex.sandbox import Sandbox
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

@pytest.fixture(scope="module")
def place():
    with Sandbox(pace=0) as sandbox:
        yield sandbox

@pytest.fixture
def cassette(tmp_path):
    with vcr.use_cassette(str(tmp_path / "lexi.yaml")) as cassette:
        yield cassette

def ask(place, **options):
    with LeadLex(place.api_key, base_url=place.url, retries=0, **options) as client:
        return client.chat("Hello").response

def test_vcrpy(place, cassette):
    assert ask(place)
    assert not cassette

def test_respx(place):
    with respx.mock(base_url=place.url) as routes:
        routes.post("/v1/lexi/chat").respond(json={"data": {"response": "mocked"}})
        assert ask(place) == "mocked"

def test_opentelemetry(place, cassette):
    HTTPXClientInstrumentor().instrument()
    assert ask(place)
    HTTPXClientInstrumentor().uninstrument()

def test_nothing_is_at_work(place):
    assert ask(place)

def test_all_is_seen(place, cassette):
    assert ask(place, http_client=httpx.AsyncClient)
    assert len(cassette) == 1

def test_the_fixtures_are_meant_to_pass(lexi, cassette):
    assert lexi.chat("Hello").response
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


@pytest.mark.trio
def test_nobody_waits_by_the_clock_of_a_test(pytester: pytest.Pytester) -> None:
    """Whatever client a test has, in whatever order its fixtures come: pauses are over at once and can be looked at."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS_WITH_THE_CLOCK)
    result = pytester.runpytest_subprocess(*BARE, "-Werror", "-q")
    result.assert_outcomes(passed=6)


def test_the_clock_is_the_tests_alone(lexi: LeadLex, leadlex_sandbox: Sandbox) -> None:
    """A client that was made before a clock is not moved by it, nor one behind it; what was made inside keeps it."""
    make, key = partial(LeadLex, leadlex_sandbox.api_key, base_url=leadlex_sandbox.url), uuid4()
    with FakeClock() as outer, FakeClock() as inner:
        inside = make()
    with inside, make() as behind:
        inner.advance(DAY)
        outer.advance(DAY)
        for lasting in (lexi, behind):
            assert lasting.stream_chat("Hi", idempotency_key=str(key), first_sent=datetime.now(UTC)).final_reply()
        with pytest.raises(ConfigurationError, match="23 hours"):
            inside.stream_chat("Hi", idempotency_key=str(key), first_sent=datetime.now(UTC)).final_reply()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "1", True])
def test_time_only_goes_on(seconds: Any) -> None:
    """A test clock is never turned back."""
    clock = FakeClock()
    with pytest.raises(ConfigurationError, match="seconds"):
        clock.advance(seconds)


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
    result = pytester.runpytest_subprocess(*BARE, "-q")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*never asked for what was scripted: drop_stream, the answer 'Two.'"])
    result.stdout.fnmatch_lines(["ERROR *::test_left_over*"])


def test_a_missing_extra_is_told_in_one_line(pytester: pytest.Pytester) -> None:
    """Without the sandbox's extra a test that asks for it errs with the line that installs it, and no traceback.

    It is not skipped: a suite that lost its sandbox must not look green.
    """
    pytester.makeconftest(WITHOUT_UVICORN)
    pytester.makepyfile("def test_it(lexi): ...")
    result = pytester.runpytest_subprocess(*BARE, "-q")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pip install '.?sandbox?'*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*another exception*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")


def test_what_looks_into_httpx_is_told_of_what_it_does_not_see(pytester: pytest.Pytester) -> None:
    """Where a recorder, a mock or a tracer is at work beside a client's own connections, a warning says what to do."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(UNSEEN_TESTS)
    result = pytester.runpytest_subprocess(*BARE, "-q")
    result.assert_outcomes(passed=6, warnings=3)
    for test, names in (
        ("test_vcrpy", "vcrpy"),
        ("test_respx", "respx"),
        ("test_opentelemetry", "OpenTelemetry's httpx instrumentation and vcrpy"),
    ):
        result.stdout.fnmatch_lines([f"*::{test}", f"*UserWarning: *seen by {names}: *http_client=httpx.AsyncClient."])


def test_an_error_of_that_warning_is_the_tests(pytester: pytest.Pytester) -> None:
    """Where warnings are errors it is the test's own, and what its fixtures opened is closed."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(UNSEEN_TESTS)
    result = pytester.runpytest_subprocess(*BARE, "-q", "-W", "error:Not all that a leadlex client:UserWarning")
    result.assert_outcomes(passed=6, errors=3)


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

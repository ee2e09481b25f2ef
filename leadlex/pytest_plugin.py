"""Fixtures for tests of programs that use leadlex: a sandbox, a client of either kind on it, and a clock.

It warns, too, of what looks into httpx, and so does not see a client that was made without `http_client`.

Rule: every pytest run loads this file where leadlex is installed. The names of leadlex load when they are first used,
which here is in a fixture.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

import leadlex
import leadlex.sandbox

if TYPE_CHECKING:
    import httpx

_SANDBOXES: Final = set[str]()
"""Where the fixtures' clients belong: that nothing else sees what they send is meant."""

_BLIND: Final = set[str]()
"""What did not see a request of this test."""


def note_request(url: httpx.URL) -> None:
    """Note who looks into httpx now, while a client sends past it; called by the client."""
    if f"{url.scheme}://{url.netloc.decode()}" not in _SANDBOXES:
        _BLIND.update(_at_work())


def _at_work() -> Iterator[str]:
    """Name what looks into httpx now; what was not imported does not."""
    modules = sys.modules
    # A cassette puts a function of vcrpy's in this place; vcrpy itself tells nobody which cassettes are in use.
    method = modules["httpx"].AsyncHTTPTransport.handle_async_request
    if getattr(method, "__globals__", {}).get("__name__") == "vcr.stubs.httpx_stubs":
        yield "vcrpy"
    if "respx.mocks" in modules and modules["respx.mocks"].HTTPCoreMocker.routers:
        yield "respx"
    instrumentation = modules.get("opentelemetry.instrumentation.httpx")
    if instrumentation and instrumentation.HTTPXClientInstrumentor().is_instrumented_by_opentelemetry:
        yield "OpenTelemetry's httpx instrumentation"


@pytest.hookimpl(trylast=True)  # a warning may be an error, and the fixtures are to be torn down all the same
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Warn of what did not see a request of a test."""
    names = " and ".join(sorted(_BLIND))
    _BLIND.clear()
    if names:
        item.warn(
            UserWarning(
                f"Not all that a leadlex client sends on its own connections is seen by {names}: it may have reached "
                "the service, and cost credits. Make the client with http_client=httpx.AsyncClient."
            )
        )


@pytest.fixture
def leadlex_sandbox() -> Iterator[leadlex.sandbox.Sandbox]:
    """Start a sandbox for one test: offline and free, it answers at once and forgets everything afterwards.

    A test fails whose faults and answers (`fail_next`, `answer_next`) were not all used: it did not try what it says.

    Needs the extra `sandbox`; in a clone of leadlex: `pip install '.[sandbox]'`.
    """
    try:
        sandbox = leadlex.sandbox.Sandbox(pace=0, task_seconds=0)
    except leadlex.ConfigurationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    with sandbox:
        _SANDBOXES.add(sandbox.url)
        yield sandbox
        _SANDBOXES.remove(sandbox.url)
        if sandbox.unused:
            told = ", ".join(sandbox.unused)
            raise pytest.fail.Exception(f"The sandbox was never asked for what was scripted: {told}", pytrace=False)


@pytest.fixture
def lexi_clock() -> Iterator[leadlex.FakeClock]:
    """Give the clock of every client that is made from here on in the test: what would wait waits no time.

    `lexi` and `async_lexi` go by it in whatever order a test names them. A client that was made before, as one that a
    module of yours has, does not.

    Example:
        def test_a_busy_service_is_asked_again(lexi, leadlex_sandbox, lexi_clock):
            leadlex_sandbox.fail_next("rate_limit", retry_after=30)
            lexi.chat("Hi")
            assert lexi_clock.sleeps == [30.5]
    """
    with leadlex.FakeClock() as clock:
        yield clock


def _begin_with_the_clock(request: pytest.FixtureRequest) -> None:
    """Let the clock be there before a client is made, should the test ask for both."""
    if "lexi_clock" in request.fixturenames:
        request.getfixturevalue("lexi_clock")


@pytest.fixture
def lexi(request: pytest.FixtureRequest, leadlex_sandbox: leadlex.sandbox.Sandbox) -> Iterator[leadlex.LeadLex]:
    """Give a `LeadLex` on the sandbox of the test."""
    _begin_with_the_clock(request)
    with leadlex.LeadLex(leadlex_sandbox.api_key, base_url=leadlex_sandbox.url) as client:
        yield client


@pytest.fixture
def async_lexi(request: pytest.FixtureRequest, leadlex_sandbox: leadlex.sandbox.Sandbox) -> leadlex.AsyncLeadLex:
    """Give an `AsyncLeadLex` on the sandbox of the test, under any async plugin of pytest.

    It is a plain fixture, since every plugin has its own way with async ones, and so it can't await `aclose` in the
    loop of the test. Nothing is left to close, though: with `Connection: close` no connection outlives its call.
    """
    _begin_with_the_clock(request)
    headers = {"Connection": "close"}
    return leadlex.AsyncLeadLex(leadlex_sandbox.api_key, base_url=leadlex_sandbox.url, headers=headers)

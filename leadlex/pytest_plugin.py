"""Fixtures for tests of programs that use leadlex: a sandbox, and a client of either kind on it.

Rule: every pytest run loads this file where leadlex is installed. The names of leadlex load when they are first used,
which here is in a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import leadlex
import leadlex.sandbox


@pytest.fixture
def leadlex_sandbox() -> Iterator[leadlex.sandbox.Sandbox]:
    """Start a sandbox for one test: offline and free, it answers at once and forgets everything afterwards.

    A test fails whose faults and answers (`fail_next`, `answer_next`) were not all used: it did not try what it says.

    Needs the extra: `pip install 'leadlex[sandbox]'`.
    """
    try:
        sandbox = leadlex.sandbox.Sandbox(pace=0, task_seconds=0)
    except leadlex.ConfigurationError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
    with sandbox:
        yield sandbox
        if sandbox.unused:
            told = ", ".join(sandbox.unused)
            raise pytest.fail.Exception(f"The sandbox was never asked for what was scripted: {told}", pytrace=False)


@pytest.fixture
def lexi(leadlex_sandbox: leadlex.sandbox.Sandbox) -> Iterator[leadlex.LeadLex]:
    """Give a `LeadLex` on the sandbox of the test."""
    with leadlex.LeadLex(leadlex_sandbox.api_key, base_url=leadlex_sandbox.url) as client:
        yield client


@pytest.fixture
def async_lexi(leadlex_sandbox: leadlex.sandbox.Sandbox) -> leadlex.AsyncLeadLex:
    """Give an `AsyncLeadLex` on the sandbox of the test, under any async plugin of pytest.

    It is a plain fixture, since every plugin has its own way with async ones, and so it can't await `aclose` in the
    loop of the test. Nothing is left to close, though: with `Connection: close` no connection outlives its call.
    """
    headers = {"Connection": "close"}
    return leadlex.AsyncLeadLex(leadlex_sandbox.api_key, base_url=leadlex_sandbox.url, headers=headers)

"""The runners of the fault matrix: rows about the wire run over aiohttp too."""

from __future__ import annotations

import pytest

from tests.support.runners import OVER_AIOHTTP, RUNNERS, Runner

#: Tables whose rows depend on who moves the bytes.
_WIRE = frozenset({"test_a_connect", "test_b_tls", "test_c_http", "test_g_time"})


@pytest.fixture
def runner(request: pytest.FixtureRequest) -> Runner:
    """Give each runner in turn."""
    found: Runner = request.param
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with each runner that tells something of its own."""
    if "runner" in metafunc.fixturenames:
        table = metafunc.definition.path.stem
        runners = [*RUNNERS, OVER_AIOHTTP] if table in _WIRE else RUNNERS
        metafunc.parametrize("runner", runners, ids=lambda runner: runner.name, indirect=True)

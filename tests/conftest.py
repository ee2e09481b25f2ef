"""Fixtures and options for all tests, and the count of the fault matrix's rows."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.matrix.rows import ROWS
from tests.support.faces import face

__all__ = ["face"]

_ran = pytest.StashKey[dict[str, set[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "row(*ids): proves these rows of the fault matrix")
    config.addinivalue_line("markers", "heavy: a campaign that takes minutes; run with -m heavy")
    config.stash[_ran] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep which rows ran and how they ended."""
    report = yield
    if call.when == "call" or (call.when == "setup" and call.excinfo is not None):
        for marker in item.iter_markers("row"):
            for row in marker.args:
                item.config.stash[_ran].setdefault(row, set()).add(report.outcome)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many rows of the fault matrix ran."""
    ran = config.stash[_ran]
    passed = [row for row, outcomes in ran.items() if outcomes == {"passed"}]
    elsewhere = [row for row, reason in ROWS.items() if reason is not None]
    terminalreporter.write_line(
        f"fault matrix: {len(passed)} of {len(ROWS)} rows ran and passed, "
        f"{len(elsewhere)} can't run here, {len(ran) - len(passed)} failed or were skipped"
    )

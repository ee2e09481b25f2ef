"""Fixtures and options for all tests, and the count of the fault matrix's rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping

import pytest

from leadlex._portal import generator
from tests.matrix.rows import ROWS
from tests.support.runners import runner

__all__ = ["runner"]

_ran = pytest.StashKey[dict[str, set[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "row(*ids): proves these rows of the fault matrix")
    config.addinivalue_line("markers", "trio: runs under trio, though its name does not say so (see tests.versions)")
    config.addinivalue_line("markers", "heavy: a campaign that takes minutes; run with -m heavy")
    config.stash[_ran] = {}
    config.pluginmanager.register(_Rows(config.stash[_ran]))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Write a test's rows where its reports take them from, out of a worker's process too."""
    item.user_properties.extend(("row", row) for marker in item.iter_markers("row") for row in marker.args)


class _Rows:
    """Keep which rows ran and how they ended."""

    def __init__(self, ran: dict[str, set[str]]) -> None:
        self._ran = ran

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in how one test ended."""
        if report.when == "call" or (report.when == "setup" and not report.passed):
            for name, row in report.user_properties:
                if name == "row":
                    self._ran.setdefault(str(row), set()).add(report.outcome)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many rows of the fault matrix ran, if any did, and what else may be why a test failed."""
    if problem := generator.problem():
        terminalreporter.write_line(problem)
    ran = config.stash[_ran]
    if not ran:
        return
    passed = [row for row, outcomes in ran.items() if outcomes == {"passed"}]
    elsewhere = [row for row, reason in ROWS.items() if reason is not None]
    terminalreporter.write_line(
        f"fault matrix: {len(passed)} of {len(ROWS)} rows ran and passed, "
        f"{len(elsewhere)} can't run here, {len(ran) - len(passed)} failed or were skipped"
    )


@pytest.fixture
def environ() -> Iterator[MutableMapping[str, str]]:
    """Give the environment, to be changed, and put it back as it was."""
    before = dict(os.environ)
    yield os.environ
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)

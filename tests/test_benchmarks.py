"""The benchmarks measure what they say; nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import imports, jobs, server
from benchmarks.clients import MODULES
from benchmarks.figures import FIGURES, WORKS, Aim, Figure, Measured
from benchmarks.jobs import JOBS, Runner
from benchmarks.measure import command, medians
from benchmarks.picture import draw
from benchmarks.server import Plan
from benchmarks.table import aims_table, figures_table, number, verdicts

ASYNC_ONLY = {"floor", "leadlex[aiohttp]"}
CLIENTS = [(name, sync) for name in MODULES for sync in (False, True) if not (sync and name in ASYNC_ONLY)]

#: Every number that there is, as if measured: more for a client further to the right.
INVENTED: Measured = {
    name: {
        column: {figure.measure: float(place) for figure in FIGURES if figure.work == name}
        for place, column in enumerate(work.runs, 1)
    }
    for name, work in WORKS.items()
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run the server."""
    with server.running() as url:
        yield url


@pytest.mark.parametrize(("name", "sync"), CLIENTS)
def test_every_client_gets_its_answers(url: str, name: str, *, sync: bool) -> None:
    """The server speaks to each client as its own service would: nothing is counted that did not arrive."""
    with Runner(url, name, sync=sync) as runner:
        assert runner.run(runner.client(Plan(40, 20)).read()) in range(
            40, 48
        )  # some count what opens and ends a stream too
        assert runner.run(runner.client(Plan(3, 1)).read()) in range(3, 11)
        runner.run(runner.client(Plan()).calls(3))
        (age,) = runner.run(runner.client(Plan(2, 1, 5)).firsts(1))
        assert 0 < age < 60_000


@pytest.mark.parametrize("name", WORKS)
def test_every_work_measures_what_is_looked_at(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job gives the numbers that its figures ask for, for every client."""
    monkeypatch.setattr(jobs, "_LEAST", 0.0)
    wanted = {figure.measure for figure in FIGURES if figure.work == name}
    for run in WORKS[name].runs.values():
        job = run.job or WORKS[name].job
        if job in JOBS:
            with Runner(url, run.client, sync=run.api == "sync") as runner:
                measured = JOBS[job](runner, 40)
            assert wanted <= {*measured}
        else:
            compile(imports.program(job, run.client, url), name, "exec")
        assert command(WORKS[name], run, url, quick=True)[0] == sys.executable


def test_the_median_counts_and_a_failure_has_none() -> None:
    """Of five rounds the one in the middle is taken; a client that failed once has no figure at all."""
    samples = {"w": {"well": [{"time": value} for value in (5.0, 1.0, 9.0)], "failed": [{"time": 1.0}, {}]}}
    assert medians(samples) == {"w": {"well": {"time": 5.0}, "failed": {}}}


def test_a_miss_is_printed_as_a_miss() -> None:
    """Every aim stands beside what is reached, and what was not reached or not measured says so."""
    figure = Figure("speed", "async-20", "rate", "thousand/s", (Aim("≥", 3, "the best peer"),), more_is_better=True)
    measured = {"async-20": {"openai": {"rate": 8.0}, "anthropic": {"rate": 50.0}, "leadlex": {"rate": 100.0}}}
    assert figure.outcome(figure.aims[0], measured) == 2.0
    assert "| ≥ 3 × the best peer | 2 ×   | MISSED" in aims_table(measured)
    assert "not measured" in aims_table({"async-20": {}})
    assert {*verdicts(INVENTED)} == {"reached", "MISSED"}


def test_an_aim_may_be_a_number_a_factor_or_more_than_another() -> None:
    """The three ways to aim, and a figure of another work as the base."""
    by_title = {figure.title: figure for figure in FIGURES}
    token, sync = by_title["first token after it was sent"], by_title["sync stream, 20 events a chunk"]
    assert [aim.says("ms") for aim in token.aims] == ["≤ 2 ms more than floor", "≤ 3 ms more than floor"]
    assert token.outcome(token.aims[0], INVENTED) == 4.0
    assert sync.aims[1].says("") == "≥ 0.6 × async-20:leadlex"
    assert sync.outcome(sync.aims[1], INVENTED) == 4 / 5
    assert by_title["import"].aims[0].says("ms") == "≤ 25 ms"


def test_all_is_shown() -> None:
    """The tables have a row for every figure, the picture is well formed and has a bar for every client."""
    assert all(figure.title in figures_table(INVENTED) for figure in FIGURES)
    picture = draw(INVENTED)
    ET.fromstring(picture)  # noqa: S314  # drawn one line above
    assert "prefers-color-scheme: dark" in picture
    assert picture.count('class="bar ours"') == 7
    ET.fromstring(draw({}))  # noqa: S314  # the same


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.0, "0"), (0.4084, "0.408"), (12.34, "12.3"), (1849.4, "1,849"), (4.0, "4")]
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    """Three digits count."""
    assert number(value) == text


def test_an_unknown_name_is_refused() -> None:
    """Who asks for what there is not is told what there is."""
    words = [sys.executable, "-m", "benchmarks", "nothing"]
    run = subprocess.run(words, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "async-20" in run.stderr


def test_no_layer_creeps_in(url: str) -> None:
    """A call goes through few coroutines of the package's own, and none stands deep: a helper more costs nothing here.

    Of a chat's coroutines one is the read, whose clock is our own, and one gives the question, in the place of a
    generator of httpx's that nobody could close.
    """
    with Runner(url, "leadlex", sync=False) as runner:
        counted = JOBS["frames"](runner, 1)
    most = {"waiting in a chat": 15, "waiting in an event": 1, "depth of a chat": 11, "depth of an event": 5}
    assert {name: number for name, number in counted.items() if number > most[name]} == {}

"""Run the works: each client in a process of its own, in turn, round after round."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from benchmarks import imports
from benchmarks.figures import WORKS, Measured, Run, Work

Samples = dict[str, dict[str, list[dict[str, float]]]]
"""What each round measured, by work and column."""

_PATIENCE: Final = 300.0


def command(work: Work, run: Run, url: str, *, quick: bool) -> list[str]:
    """Write the command line of one process."""
    job = run.job or work.job
    if job in imports.PROGRAMS:
        return [sys.executable, "-c", imports.program(job, run.client, url)]
    count = work.quick if quick else work.count
    return [sys.executable, "-m", "benchmarks.jobs", job, run.client, run.api, url, str(count)]


def sample(words: list[str]) -> dict[str, float]:
    """Run one process and read what it measured; nothing where it failed, which its own words on stderr explain."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(names: Iterable[str], url: str, rounds: int, say: Callable[[str], object], *, quick: bool) -> Samples:
    """Run some works, each column in turn and that so often.

    Args:
        names: Which works.
        url: The server.
        rounds: How often.
        say: Told what is being done.
        quick: Whether to do only as much as shows that it works.
    """
    samples: Samples = {}
    for name in names:
        work = WORKS[name]
        found = samples[name] = {column: [] for column in work.runs}
        for number in range(rounds):
            for column, run in _turned(work.runs, number):
                say(f"{name}, round {number + 1} of {rounds}: {column}")
                found[column].append(sample(command(work, run, url, quick=quick)))
    return samples


def _turned(runs: Mapping[str, Run], number: int) -> list[tuple[str, Run]]:
    """Let another one begin each round: who follows the heaviest finds a machine that is still busy with its end."""
    columns = list(runs.items())
    first = number % len(columns)
    return columns[first:] + columns[:first]


def medians(samples: Mapping[str, Mapping[str, list[dict[str, float]]]]) -> Measured:
    """Reduce each column's rounds to their median; a column that failed once has no figure."""
    return {work: {column: _median(rounds) for column, rounds in columns.items()} for work, columns in samples.items()}


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    if not all(rounds):
        return {}
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}

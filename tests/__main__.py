"""Run every check of the project: `python -m tests`; what follows goes to pytest, `python -m tests -k chat`.

A step that passes shows its name, one that fails all it said. With arguments for pytest coverage is not asked for,
since a part of the tests can't reach all of the library. The last line is pytest's own summary.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKS = {
    "ruff check": ("ruff", "check"),
    "ruff format --check": ("ruff", "format", "--check"),
    "mypy": ("mypy",),
    "pyright": ("pyright",),
    "pyright --verifytypes": ("pyright", "--verifytypes", "leadlex", "--ignoreexternal"),
    "leadlex._portal.generator --check": ("leadlex._portal.generator", "--check"),
}

SIDE_BY_SIDE = ("-n", "2", "--dist", "worksteal")

SUMMARY = re.compile(r"\b\d+ (?:passed|failed|skipped|deselected|errors?)\b.* in \d|no tests ran in \d")


def started(words: Sequence[str], python: str = sys.executable) -> subprocess.Popen[str]:
    """Start a module, by default with this very interpreter, its two outputs in one pipe."""
    return subprocess.Popen(
        [python, "-m", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def say(text: str, end: str = "\n") -> None:
    """Print at once, so that whoever waits sees what is being done."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def passes(name: str, *words: str) -> bool:
    """Run one step, print its name and, where it fails, all it said; tell whether it passed."""
    say(f"{name:<24}", end="")
    with started(words) as run:
        output = run.communicate()[0]
    say("passed" if run.returncode == 0 else "FAILED")
    if run.returncode != 0:
        say(output)
    return run.returncode == 0


def run_tests(words: Sequence[str], python: str = sys.executable) -> tuple[bool, str]:
    """Run pytest, print what it says as it comes, and return whether it passed and its summary line."""
    say("pytest")
    summary = ""
    with started(words, python) as run:
        for line in run.stdout or ():
            if SUMMARY.search(line):
                summary = line.rstrip()
            else:
                say(line, end="")
    return run.returncode == 0, summary


def main(arguments: Sequence[str]) -> int:
    """Run all steps and return the exit code."""
    outcomes = {name: passes(name, *words) for name, words in CHECKS.items()}
    if arguments:
        outcomes["pytest"], summary = run_tests(["pytest", *arguments])
    else:
        outcomes["coverage erase"] = passes("coverage erase", "coverage", "erase")
        outcomes["pytest"], summary = run_tests(["coverage", "run", "-m", "pytest", *SIDE_BY_SIDE])
        outcomes["coverage combine"] = passes("coverage combine", "coverage", "combine")
        outcomes["coverage report"] = passes("coverage report", "coverage", "report")
    failed = [name for name, passed in outcomes.items() if not passed]
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    say(summary)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run every check of the project: `python -m tests`; or some tests alone, at once: `python -m tests -k approval`.

A step that passes shows its name, one that fails all it said. The last line is pytest's own summary.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
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

NEEDED = ("coverage", "mypy", "pyright", "pytest", "ruff", "xdist")
NO_TESTS = 5
"""The exit code of a pytest that found nothing to run."""

# Most tests wait for a server or a process half of their time, so two for each of two cores keep both busy.
SIDE_BY_SIDE = ("-n", "4", "--dist", "worksteal")

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


def tell(name: str, run: subprocess.Popen[str]) -> bool:
    """Wait for a step, print its name and, where it fails, all it said; tell whether it passed."""
    with run:
        output = run.communicate()[0]
    say(f"{name:<36}{'FAILED' if run.returncode else 'passed'}")
    if run.returncode:
        say(output)
    return run.returncode == 0


def run_checks(checks: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """Run steps side by side, since each keeps one core busy, and tell which passed."""
    runs = {name: started(words) for name, words in checks.items()}
    return {name: tell(name, run) for name, run in runs.items()}


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


def run_all() -> int:
    """Run all steps and return the exit code."""
    outcomes = run_checks(CHECKS)
    outcomes |= run_checks({"coverage erase": ("coverage", "erase")})
    outcomes["pytest"], summary = run_tests(["coverage", "run", "-m", "pytest", *SIDE_BY_SIDE])
    for name in ("coverage combine", "coverage report"):
        outcomes |= run_checks({name: name.split()})
    failed = [name for name, passed in outcomes.items() if not passed]
    if failed:
        say(f"Failed: {', '.join(failed)}.")
    say(summary)
    return 1 if failed else 0


def run_some(arguments: Sequence[str]) -> int:
    """Run pytest alone and return the exit code."""
    code = subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    if code == NO_TESTS:
        say("No test matches. A test is a function test_… in a file test_….py; tests/__init__.py says what is where.")
    return code


def main(arguments: Sequence[str]) -> int:
    """Run all steps, or with arguments pytest alone, and return the exit code."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        say(f"Not installed here: {', '.join(missing)}. This brings all that the tests need: pip install -e '.[dev]'")
        return 1
    return run_some(arguments) if arguments else run_all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

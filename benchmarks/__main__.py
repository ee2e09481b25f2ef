"""Measure, print, write and draw: `python -m benchmarks`, or `python -m benchmarks NAME …` for some works.

A run of all writes `figures.json` and `figures.svg` beside this file; a run of some, or a quick one, only where `--out`
says. It ends with 1 when an aim was missed.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import server
from benchmarks.figures import PEERS, WORKS, Measured
from benchmarks.measure import Samples, measure, medians
from benchmarks.picture import draw
from benchmarks.table import aims_table, figures_table, verdicts

HERE = Path(__file__).parent
PACKAGES = ("leadlex", "httpx", "aiohttp", *PEERS)


def say(text: str, stream: Any = sys.stdout) -> None:  # noqa: ANN401  # a text stream
    """Print at once."""
    stream.write(f"{text}\n")
    stream.flush()


def machine() -> dict[str, str]:
    """Tell on what, and with what, was measured."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package: str) -> str:
    if package == "leadlex":
        import leadlex  # noqa: PLC0415  # it may not be installed, only be there

        return leadlex.__version__
    return version(package)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure leadlex side by side with its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(WORKS)}; default all")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often each client runs; the median counts (default 5)")
    parser.add_argument("--out", type=Path, help="where to write figures.json and figures.svg")
    given = parser.parse_args(words)
    unknown = [name for name in given.names if name not in WORKS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(WORKS)}")
    return given


def compile_package() -> None:
    """Compile leadlex, as pip does: where no bytecode may be written, each import would compile it anew."""
    compileall.compile_dir(HERE.parent / "leadlex", quiet=1)


def write(place: Path, samples: Samples, measured: Measured) -> None:
    """Write the figures as JSON and as a picture."""
    kept = {"machine": machine(), "medians": measured, "rounds": samples}
    (place / "figures.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (place / "figures.svg").write_text(draw(measured), "utf-8")


def main(words: Sequence[str]) -> int:
    """Do what the command line asks for and return the exit code."""
    given = arguments(words)
    missing = [package for package in ("aiohttp", *PEERS) if find_spec(package) is None]
    if missing:
        say(f"{', '.join(missing)} can't be found: pip install -e '.[bench]'", sys.stderr)
        return 2
    rounds = given.rounds or (1 if given.quick else 5)
    compile_package()
    with server.running() as url:
        samples = measure(given.names or WORKS, url, rounds, lambda text: say(text, sys.stderr), quick=given.quick)
    measured = medians(samples)
    say(", ".join(f"{name} {value}" for name, value in machine().items()))
    say(f"Medians of {rounds}.\n\n{figures_table(measured)}\n\n{aims_table(measured)}")
    place = given.out or (HERE if not (given.names or given.quick) else None)
    if place is not None:
        write(place, samples, measured)
    return 0 if set(verdicts(measured)) <= {"reached"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

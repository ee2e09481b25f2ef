"""Run the tests with the versions that are allowed: `python -m tests.versions`; four times the tests' time.

Each environment is fresh, and made by uv, which alone can take the lowest versions of what is asked for. The network is
needed for that, and each Python that is named; where one is missing that is told, and counts as failed. With names only
those environments are taken, and what else is said goes to pytest: `python -m tests.versions lowest -k approval`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from attrs import frozen

from tests.__main__ import ROOT, SIDE_BY_SIDE, run_tests, say
from tests.support.programs import places

SHOWN = (
    *("anyio", "attrs", "cattrs", "h11", "httpcore", "httpx", "httpx-sse", "sniffio"),
    *("aiohttp", "truststore", "rich", "starlette", "uvicorn", "trio", "uvloop", "socksio", "pytest"),
)

_VERSIONS = """
import json, platform, sys
from importlib.metadata import version
print(json.dumps({"Python": platform.python_version(), **{name: version(name) for name in sys.argv[1:]}}))
"""

_OURS = ("--editable", ".[dev]")


@frozen
class Environment:
    """A set of versions.

    Args:
        name: What it is called.
        python: Of which Python.
        installs: What is installed, one after the other: later ones may break what earlier ones asked for.
        tests: What is said to pytest.
    """

    name: str
    python: str
    installs: tuple[tuple[str, ...], ...] = (_OURS,)
    tests: tuple[str, ...] = ()


ENVIRONMENTS = (
    Environment("lowest", "3.11", (("--resolution", "lowest-direct", *_OURS),)),
    # Libraries that leadlex does not ask for, as another program may have brought them: the oldest that import,
    # of socksio the oldest with what httpcore asks of it. Nothing runs under such a trio, since anyio asks for 0.32;
    # where gevent has patched the program, nobody can import it.
    Environment(
        "beside",
        "3.11",
        (_OURS, ("trio==0.1.0", "uvloop==0.17.0", "socksio==0.2.0")),
        ("-k", "not trio and not gevent and not greenlet"),
    ),
    Environment("newest-3.12", "3.12"),
    Environment("newest-3.13", "3.13"),
)


def main(arguments: Sequence[str]) -> int:
    """Run the tests in each environment, print a table, and return the exit code."""
    names = {each.name for each in ENVIRONMENTS}
    words = [word for word in arguments if word not in names]
    wanted = [each for each in ENVIRONMENTS if each.name in arguments or names.isdisjoint(arguments)]
    with tempfile.TemporaryDirectory(prefix="leadlex-versions-") as folder:
        outcomes = [_tried(each, Path(folder), words) for each in wanted]
    for environment, (_, *lines) in zip(wanted, outcomes, strict=True):
        say(f"\n{environment.name}")
        for line in lines:
            say(f"  {line}")
    return 0 if all(passed for passed, *_ in outcomes) else 1


def _tried(environment: Environment, folder: Path, words: Sequence[str]) -> tuple[bool, str, str]:
    """Tell whether its tests passed, which versions it has, and pytest's summary."""
    say(f"\n{environment.name}")
    found = _interpreter(environment.python)
    if found is None:
        return False, f"Python {environment.python} is not here", "not run"
    python = _made(environment, found, folder)
    versions = json.loads(_said(python, "-c", _VERSIONS, *SHOWN))
    # What a second -k says would take the place of the first.
    passed, summary = run_tests(["pytest", *SIDE_BY_SIDE, *words, *environment.tests], python)
    return passed, ", ".join(f"{name} {version}" for name, version in versions.items()), summary


@cache
def _uv(folder: Path) -> str:
    """Find uv, or install it aside."""
    found = shutil.which("uv")
    if found is None:
        venv.create(folder / "uv", with_pip=True)
        _run(str(folder / "uv/bin/python"), "-m", "pip", "install", "--quiet", "uv")
        found = str(folder / "uv/bin/uv")
    return found


def _interpreter(version: str) -> str | None:
    return next((path for path in places(version) if _is(version, path)), None)


def _is(version: str, path: str) -> bool:
    try:
        return _said(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])") == version
    except (OSError, subprocess.CalledProcessError):
        return False


def _made(environment: Environment, interpreter: str, folder: Path) -> str:
    """Make an environment and return its Python."""
    uv, place = _uv(folder), folder / environment.name
    _run(uv, "venv", "--quiet", "--python", interpreter, str(place))
    python = str(place / "bin/python")
    for words in environment.installs:
        # Compiled here, since Python warns of what old modules have in them, and warnings are errors in the tests.
        _run(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *words)
    return python


def _run(*words: str) -> None:
    subprocess.run(words, cwd=ROOT, check=True)


def _said(*words: str) -> str:
    run = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return run.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

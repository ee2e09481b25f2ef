"""What a process finds around it: its streams, the packages that are installed, what `python -c` leaves behind."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import IO

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def streams(**others: IO[str] | None) -> Generator[None]:
    """Let this process have other streams for a while: stdin, stdout, stderr."""
    before = {name: getattr(sys, name) for name in others}
    for name, stream in others.items():
        setattr(sys, name, stream)
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)


@contextlib.contextmanager
def packages(**others: ModuleType | None) -> Generator[None]:
    """Let this process find other packages for a while, or, with None, none of that name."""
    before = {name: sys.modules[name] for name in others if name in sys.modules}
    sys.modules.update(others)  # type: ignore[arg-type]  # None is how Python is told that there is none
    try:
        yield
    finally:
        for name in others:
            del sys.modules[name]
        sys.modules.update(before)


#: What Python says where a package is not installed.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, *_):
        if name == {0!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
sys.modules.pop({0!r}, None)  # what counts coverage may have brought it
"""


def run_code(code: str, *arguments: str, without: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, where a package may be missing."""
    command = [sys.executable, "-c", (HIDE.format(without) if without else "") + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)

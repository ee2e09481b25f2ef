"""Reading from a person.

Rule: a question goes where the person looks, and never into what stdout carries elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module

from ._session import is_watched


def read_line(prompt: str) -> str:
    """Read a line.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
    """
    if is_watched():
        return input(prompt)  # readline has to know the prompt
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()


def edit_lines() -> None:
    """Let lines be edited while they are typed, where the system can (not on Windows)."""
    # Loaded late: on some terminals readline writes an escape sequence to stdout as soon as it is imported.
    # Others' replacements (pyreadline) know less.
    with contextlib.suppress(ImportError, AttributeError):
        import_module("readline").set_auto_history(False)  # what is asked in between is not to be repeated


def remember(line: str) -> None:
    """Put a line into the history of this run; it may be privileged, and is kept in no file."""
    readline = sys.modules.get("readline")
    if readline is not None and hasattr(readline, "add_history"):
        readline.add_history(line)

"""Reading from a person, or from a pipe.

Rule: a question goes where the person looks, and never into what stdout carries elsewhere. What is piped in is UTF-8 on
every system.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from importlib import import_module

from leadlex import ConfigurationError

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


def read_all(what: str) -> str:
    """Read stdin to its end.

    Args:
        what: What it has.

    Raises:
        ConfigurationError: It is no text, or in another encoding: guessed at, it would be asked as something else.
    """
    if sys.stdin.isatty() or not isinstance(sys.stdin, io.TextIOWrapper):
        return sys.stdin.read()
    text = _decoded(sys.stdin.buffer.read())
    if text is None:
        raise ConfigurationError(
            f"{what} must be UTF-8, or UTF-16 with a byte order mark, on stdin; given: bytes that are neither."
        )
    return io.StringIO(text, newline=None).read()


def _decoded(data: bytes) -> str | None:
    # PowerShell's files begin with a mark, which is no part of the text.
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text  # UTF-16 without its mark can be read as UTF-8


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

"""Logging, and what it may show.

Rule: a record carries the fields named here and no others: never a key, a message's text, a search or a body.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from ._errors import ConfigurationError, discreet, printable

logger: Final = logging.getLogger("leadlex")
logger.addHandler(logging.NullHandler())  # a library's warnings are the application's to show

FIELDS: Final = ("operation", "attempt", "status", "request_id", "elapsed", "failure", "delay", "resumes", "field")


def record(level: int, event: str, **fields: object) -> None:
    """Write one line: what happened and its fields, which a structured handler finds in `record.leadlex`."""
    if _is_asked_for():
        logger.disabled = False  # dictConfig disables every logger that it finds, unless told otherwise
    if not logger.isEnabledFor(level):
        return
    shown = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
    line = " ".join([event, *(f"{name}={_shown(value)}" for name, value in shown.items())])
    # A user's handler that fails must not end a call that was paid for.
    with suppress(Exception):
        logger.log(level, "%s", line, extra={"leadlex": shown})


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value), 200)


_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@discreet
def configure(environment: Mapping[str, str]) -> None:
    """Send the log to stderr where `LEADLEX_LOG` (debug, info, warning, error) asks for it."""
    name = environment.get("LEADLEX_LOG", "").strip().lower()
    if not name:
        return
    if name not in _LEVELS:
        raise ConfigurationError(f"LEADLEX_LOG must be one of {', '.join(_LEVELS)}.")
    logger.setLevel(_LEVELS[name])
    if not _is_asked_for():
        logger.addHandler(_Terminal())


def _is_asked_for() -> bool:
    return any(isinstance(each, _Terminal) for each in logger.handlers)


class _Terminal(logging.Handler):
    """The handler that `LEADLEX_LOG` adds; a line that the application shows in a terminal is left to it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line to stderr, as it is now."""
        if sys.stderr is not None and not any(_shows(each, record.levelno) for each in _handlers()):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def _handlers() -> Iterator[logging.Handler]:
    """Give the handlers that a line of ours comes to."""
    source: logging.Logger | None = logger
    while source is not None:
        yield from source.handlers
        source = source.parent if source.propagate else None


def _shows(handler: logging.Handler, level: int) -> bool:
    """Tell whether a handler writes a line of such a level to the terminal, as basicConfig's does."""
    terminals = (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)
    return isinstance(handler, logging.StreamHandler) and level >= handler.level and handler.stream in terminals

"""Logging, and what it may show.

Rule: a record carries the fields named here and no others: never a key, a message's text, a search or a body.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from ._errors import ConfigurationError, discreet, printable

logger: Final = logging.getLogger("leadlex")
logger.addHandler(logging.NullHandler())  # a library's warnings are the application's to show

FIELDS: Final = ("operation", "attempt", "status", "request_id", "elapsed", "fault", "delay", "resumes", "field")


def record(level: int, event: str, **fields: object) -> None:
    """Write one line: what happened and its fields, which a structured handler finds in `record.leadlex`."""
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
    if not any(isinstance(handler, _Terminal) for handler in logger.handlers):
        logger.addHandler(_Terminal())


class _Terminal(logging.StreamHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """The handler that `LEADLEX_LOG` adds, once."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

"""JSON lines, for programs.

Rule: stdout has one JSON object a line, with the contract's field names; stderr has one for an error and is empty else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from leadlex import ChatReply, LeadLexError, StreamEvent, Task

from ._exits import STOPPED, exit_code
from ._output import Stopped, Value
from ._text import utc


class JsonLines:
    """The output of `--json`."""

    def wait(self, what: str) -> None:
        """Say nothing: it is for people."""

    def note(self, text: str) -> None:
        """Say nothing: it is for people."""

    def warn(self, text: str) -> None:
        """Say nothing: who wants JSON from the sandbox has asked for it by name."""

    def event(self, event: StreamEvent) -> None:
        """Write an event; its `type` is the contract's name for it."""
        _write(sys.stdout, event.to_dict())

    def finish(self, reply: ChatReply) -> None:
        """Say nothing: the event `done` did."""

    def task(self, task: Task) -> None:
        """Say nothing: proposals are for people, programs list tasks."""

    def stop(self, stopped: Stopped | None) -> None:
        """Write an error of its own kind."""
        told = {"type": "KeyboardInterrupt", "message": "Stopped with Ctrl-C.", "charged": stopped and stopped.charged}
        sent = utc(stopped.first_sent) if stopped and stopped.first_sent else None
        known = {"idempotency_key": stopped.idempotency_key, "first_sent": sent} if stopped else {}
        _write(sys.stderr, {"error": {**told, **known, "exit_code": STOPPED}})

    def value(self, value: Value) -> None:
        """Write a value."""
        _write(sys.stdout, value.to_dict())

    def address(self, url: str, api_key: str, data: str | None) -> None:
        """Write where a sandbox is."""
        _write(sys.stdout, {"url": url, "api_key": api_key, "data": data})

    def error(self, error: LeadLexError) -> None:
        """Write an error: what it is, whether it was charged, and what else is known of it."""
        _write(sys.stderr, {"error": {**error.to_dict(), "exit_code": exit_code(error)}})

    def close(self) -> None:
        """Leave nothing behind."""


def _write(stream: TextIO, told: Mapping[str, Any]) -> None:
    # ASCII: a terminal, a log or a pipe of any encoding can take it.
    stream.write(json.dumps(told, ensure_ascii=True) + "\n")
    stream.flush()

"""JSON lines, for programs.

Rule: stdout has one JSON object a line, with the contract's field names; stderr has one for an error and is empty else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TextIO, cast

import attrs

from leadlex import ChatReply, Done, LeadLexError, StreamEvent, Task, TextDelta, Thinking, ToolStep

from ._exits import STOPPED, exit_code
from ._output import Stopped, Value

_TYPES: Final[Mapping[type, str]] = {Thinking: "thinking", ToolStep: "tool_step", TextDelta: "text", Done: "done"}

_DETAILS: Final = (
    "code", "status_code", "request_id", "from_service", "retry_after", "reset_at", "clock", "idempotency_key",
    "first_sent", "next_page", "partial", "attempt_log"
)  # fmt: skip  # what errors of some kinds know


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
        kind = {"type": _TYPES.get(type(event), "unknown")}
        _write(sys.stdout, {**kind, **_fields(event), **kind})

    def finish(self, reply: ChatReply) -> None:
        """Say nothing: the event `done` did."""

    def task(self, task: Task) -> None:
        """Say nothing: proposals are for people, programs list tasks."""

    def stop(self, stopped: Stopped | None) -> None:
        """Write an error of its own kind."""
        told = {"type": "KeyboardInterrupt", "message": "Stopped with Ctrl-C.", "charged": stopped and stopped.charged}
        known = {"idempotency_key": stopped.idempotency_key, "first_sent": plain(stopped.first_sent)} if stopped else {}
        _write(sys.stderr, {"error": {**told, **known, "exit_code": STOPPED}})

    def value(self, value: Value) -> None:
        """Write a value."""
        _write(sys.stdout, _fields(value))

    def address(self, url: str, api_key: str, data: str | None) -> None:
        """Write where a sandbox is."""
        _write(sys.stdout, {"url": url, "api_key": api_key, "data": data})

    def error(self, error: LeadLexError) -> None:
        """Write an error: what it is, whether it was charged, and what else is known of it."""
        told = {"type": type(error).__name__, "message": str(error), "charged": error.charged}
        known = {name: getattr(error, name, None) for name in _DETAILS}
        details = {name: plain(value) for name, value in known.items() if value is not None}
        _write(sys.stderr, {"error": {**told, **details, "exit_code": exit_code(error)}})

    def close(self) -> None:
        """Leave nothing behind."""


def plain(value: object) -> Any:  # noqa: ANN401  # JSON
    """Turn a value of leadlex into what JSON knows."""
    if attrs.has(type(value)):
        return _fields(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return [plain(item) for item in cast("tuple[object, ...]", value)]
    return value


def _fields(value: object) -> dict[str, Any]:
    """Return the contract's fields, and beside them those that were sent beyond it, as they came."""
    kind = cast("type[attrs.AttrsInstance]", type(value))
    fields = {field.name: plain(getattr(value, field.name)) for field in attrs.fields(kind) if field.name != "meta"}
    extra: dict[str, Any] = fields.pop("extra", {})
    return {**extra, **fields}


def _write(stream: TextIO, told: Mapping[str, Any]) -> None:
    # ASCII: a terminal, a log or a pipe of any encoding can take it.
    stream.write(json.dumps(told, ensure_ascii=True) + "\n")
    stream.flush()

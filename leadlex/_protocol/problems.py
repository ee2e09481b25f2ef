"""What an error answer or an `error` event says, as the contract writes it."""

from __future__ import annotations

from typing import Any

from leadlex._values.plain import WireError
from leadlex._values.problem import WireProblem

from .json_text import loads_bytes


def problem_of(value: Any) -> WireProblem | None:  # noqa: ANN401  # JSON
    """Read `{"error": {"code", "message"}}`, or return None where there is no such thing."""
    inner = value.get("error") if isinstance(value, dict) else None
    return problem_in(inner) if isinstance(inner, dict) else None


def problem_of_body(body: bytes) -> WireProblem | None:
    """Read the error that a body carries, whatever it is."""
    try:
        return problem_of(loads_bytes(body))
    except WireError:
        return None


def problem_in(fields: dict[str, Any]) -> WireProblem:
    code, message = fields.get("code"), fields.get("message")
    return WireProblem(code if isinstance(code, str) else None, message if isinstance(message, str) else None)

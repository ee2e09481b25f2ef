"""The waist of the hourglass: what one call of the API is.

Rule: everything above only makes an `Operation` or shows its value; everything below only moves its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from attrs import field, frozen

from leadlex._values.metadata import Meta

T = TypeVar("T")

Repeat = Literal["free", "once", "keyed"]
"""What may be repeated: `free` (a GET), `once` (it may act or cost twice), `keyed` (the service knows a repetition)."""

Permission = Literal["lexi", "write:ai", "read:ai"]

KEY_LIFE: Final = 23 * 3600.0
"""Seconds after its first use in which an idempotency key may be sent again; the service keeps it for 24 hours."""


@frozen(kw_only=True, eq=False, repr=False)
class Operation(Generic[T]):
    """What one call of the API is.

    What was asked is no part of a field's repr: tools that show locals look at the fields, whatever the class says.

    Args:
        name: What it is called in logs.
        method: The HTTP method.
        path: The path under the base URL, percent-encoded.
        read: Makes the value of the answer's JSON and `Meta`.
        query: The query, percent-encoded.
        body: The JSON body; the same bytes are sent in every attempt.
        repeat: Whether an attempt may be repeated.
        costs: Whether it may cost credits.
        permission: What the key must be allowed to do, where that is known.
        idempotency_key: Sent with a keyed operation, the same in every attempt.
        first_sent: When that key was first sent, where that was in an earlier call.
        conversation_id: The conversation that it continues, if any.
        look: How a person finds out whether it was done, where its answer was lost.
        streams: Whether the answer is a stream.
        empty: Whether an answer without a body is one.
        is_fixed: Whether the target is the same in every call.
        names_something: Whether it has an id that may be unknown to the service.
    """

    name: str
    method: str
    path: str = field(repr=False)
    read: Callable[[Any, Meta], T]
    query: str = field(default="", repr=False)
    body: bytes | None = field(default=None, repr=False)
    repeat: Repeat = "free"
    costs: bool = False
    permission: Permission | None = None
    idempotency_key: str | None = None
    first_sent: datetime | None = None
    conversation_id: str | None = None
    look: str | None = None
    streams: bool = False
    empty: bool = False
    is_fixed: bool = False
    names_something: bool = False

    @property
    def target(self) -> str:
        """Give what follows the base URL."""
        return f"{self.path}?{self.query}" if self.query else self.path

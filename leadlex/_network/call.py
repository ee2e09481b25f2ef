"""The record of one call over all its attempts, and what the service last said to a client."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import anyio
from attrs import define, field

from leadlex._errors import LeadLexError
from leadlex._policy.failures import Progress, worse
from leadlex._protocol.operation import Operation
from leadlex._values.metadata import Attempt, Charged, Meta, RateLimit

T = TypeVar("T")


@define(eq=False, repr=False)
class Seen:
    """Hold what the service last said, for all copies of a client."""

    rate_limit: RateLimit | None = None
    credits_remaining: int | None = None

    def note_credits(self, left: int | None, *, is_repeat: bool) -> None:
        """Take in a balance; the answer to a repeated question may tell the one of its first time."""
        known = self.credits_remaining
        if left is not None and not (is_repeat and known is not None and left > known):
            self.credits_remaining = left


@define(kw_only=True, eq=False, repr=False)
class Call(Generic[T]):
    """Keep the record of one logical call over all its attempts."""

    operation: Operation[T]
    began: float
    deadline: float | None
    first_sent: datetime
    key_sent: float
    attempt_began: float
    handled: BaseException | None
    attempts: int = 0
    tries: int = 0
    resumes: int = 0
    pauses: int = 0
    first_failure: float | None = None
    handed_out: int = 0
    log: list[Attempt] = field(factory=list)
    taken: int = 0
    charged: Charged = "no"
    head_seen: bool = False
    meta: Meta | None = None
    waits: anyio.CancelScope | None = None
    progress: Progress = field(factory=Progress)

    @property
    def is_repeat(self) -> bool:
        """Tell whether the service may have answered the same question before."""
        return self.attempts > 1 or self.operation.first_sent is not None

    def note_failure(self, now: float, handed_out: int) -> None:
        """Note when this outage began: a new one does once something new was handed out."""
        if self.first_failure is None or handed_out > self.handed_out:
            self.first_failure, self.handed_out, self.pauses = now, handed_out, 0

    def tell(self, error: LeadLexError) -> None:
        """Put on an error what is known of this call."""
        if self.operation.idempotency_key is not None:
            error.idempotency_key, error.first_sent = self.operation.idempotency_key, self.first_sent
        elif error.charged == "unknown":
            error.look = self.operation.look
        error.attempt_log = tuple(self.log)

    @property
    def charged_now(self) -> Charged:
        """Say what is known if the call ended here."""
        sent = self.progress.may_have_acted and self.operation.costs
        return worse(self.charged, "unknown" if sent else "no")

"""The record of one call over all its attempts, and the error that ends it.

Rule: pure; what is waited for is known here by how to stop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Final, Generic, TypeVar

from attrs import define, evolve, field

from leadlex._errors import ClientClosedError, LeadLexError, StreamInterruptedError
from leadlex._protocol.operation import Operation
from leadlex._values.metadata import Attempt, Charged, Meta
from leadlex._values.models import ChatReply

from .failures import UNREACHED, Failure, FailureKind, Progress, charged_after, worse
from .transcript import Transcript

T = TypeVar("T")


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
    transcript: Transcript = field(factory=Transcript)
    attempts: int = 0
    tries: int = 0
    resumes: int = 0
    pauses: int = 0
    first_failure: float = math.inf
    extent: int = -1
    log: list[Attempt] = field(factory=list)
    taken: int = 0
    charged: Charged = "no"
    head_seen: bool = False
    meta: Meta | None = None
    stop: Callable[[], object] = bool
    interrupted: bool = False
    progress: Progress = field(factory=Progress)

    @property
    def is_repeat(self) -> bool:
        """Tell whether the service may have answered the same question before."""
        return self.attempts > 1 or self.operation.first_sent is not None

    def is_unreached(self, kind: FailureKind) -> bool:
        """Tell whether a failure says no more of a stream under way than that its service can't be reached now."""
        return self.head_seen and kind in UNREACHED

    def interrupt(self) -> None:
        """End what it waits for, since nobody waits for it any longer."""
        self.interrupted = True
        self.stop()

    def unopened(self, failure: Failure) -> Failure:
        """Take what is no stream at all, and comes in place of one that is under way, for somebody else's answer."""
        under_way = self.head_seen and failure.kind is FailureKind.PAYLOAD
        return evolve(failure, kind=FailureKind.FOREIGN) if under_way else failure

    def note_failure(self, kind: FailureKind, now: float) -> None:
        """Note what it may have cost, and when this outage began: a new one does once something new was handed out."""
        self.charged = worse(self.charged, charged_after(self.operation, kind))
        self.progress = Progress()
        extent = self.transcript.extent
        if extent > self.extent:
            self.first_failure, self.extent, self.pauses = now, extent, 0

    def note_retry(self, kind: FailureKind) -> None:
        """Count one more attempt.

        To ask whether it is done is none; one after the service was not reached is neither a retry nor a resume, and
        only the window bounds it.
        """
        if kind is FailureKind.IN_FLIGHT:
            return
        self.pauses += 1
        if not self.is_unreached(kind):
            begun = self.transcript.begun
            self.resumes, self.tries = self.resumes + begun, self.tries + (not begun)

    def tell(self, error: LeadLexError) -> None:
        """Put on an error what is known of this call."""
        if self.operation.idempotency_key is not None:
            error.idempotency_key, error.first_sent = self.operation.idempotency_key, self.first_sent
        elif error.charged == "unknown":
            error.look = self.operation.look
        error.attempt_log = tuple(self.log)

    def ended_by(self, failure: Failure) -> LeadLexError:
        """Return the error that ends this call, with all that is known of it."""
        key = self.operation.idempotency_key
        error = interrupted(failure, key) if self.head_seen and key else failure.error
        error.charged = worse(self.charged, "yes" if self.transcript.done else "no")
        error.meta = error.meta or self.meta
        self.tell(error)
        if self.transcript.begun:
            error.partial = self.partial
        if isinstance(error.__cause__, LeadLexError):
            error.__cause__.charged = error.charged
            self.tell(error.__cause__)
        return error

    @property
    def partial(self) -> ChatReply | None:
        """Give the reply so far, where anything was handed out."""
        return self.transcript.reply(self.meta) if self.transcript.begun else None

    @property
    def charged_now(self) -> Charged:
        """Say what is known if the call ended here."""
        sent = self.progress.may_have_acted and self.operation.costs
        return worse(self.charged, "unknown" if sent else "no")


# A stream that began and then broke so is interrupted; after the others the answer itself says what is wrong.
_INTERRUPTING: Final = UNREACHED | {FailureKind.CUT, FailureKind.WRITE, FailureKind.LOST, FailureKind.IN_FLIGHT}


def interrupted(failure: Failure, idempotency_key: str) -> LeadLexError:
    """Return what a user is told when a stream that had begun broke off so."""
    if failure.kind not in _INTERRUPTING or isinstance(failure.error, ClientClosedError):
        return failure.error
    error = StreamInterruptedError(f"The answer broke off: {failure.error.problem}", idempotency_key)
    error.__cause__ = failure.error
    return error

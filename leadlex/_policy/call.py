"""One call over all its attempts: its record, whether another attempt follows, and the error that ends it.

Rule: pure; the clock, the randomness, the quota and the sleeping are the transport's, and what is waited for is known
here by how to stop it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from attrs import define, evolve, field, frozen

from leadlex._api_key import ApiKey
from leadlex._config import RetryPolicy
from leadlex._errors import ClientClosedError, LeadLexError, StreamInterruptedError
from leadlex._protocol.operation import KEY_LIFE, Operation
from leadlex._values.events import Done
from leadlex._values.metadata import NO_ANSWER, Attempt, Charged, Meta
from leadlex._values.models import ChatReply

from .failures import REPEATS, THROTTLES, UNREACHED, Failure, FailureKind, Progress, charged_after, worse
from .transcript import Transcript

T = TypeVar("T")


@define(kw_only=True, eq=False, repr=False)
class Call(Generic[T]):
    """The record of one logical call over all its attempts."""

    operation: Operation[T]
    began: float
    deadline: float | None
    first_sent: datetime
    key_sent: float
    attempt_began: float
    handled: BaseException | None
    transcript: Transcript = field(factory=Transcript)
    api_key: ApiKey | None = None
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
    def reply(self) -> ChatReply:
        """Give the reply as far as it has come."""
        return reply_of(self.transcript, self.meta)

    @property
    def partial(self) -> ChatReply | None:
        """Give the reply so far, where anything was handed out."""
        return self.reply if self.transcript.begun else None

    @property
    def charged_now(self) -> Charged:
        """Say what is known if the call ended here."""
        sent = self.progress.may_have_acted and self.operation.costs
        return worse(self.charged, "unknown" if sent else "no")


def reply_of(transcript: Transcript, meta: Meta | None) -> ChatReply:
    """Make the reply of what was handed out."""
    done = transcript.done or Done()
    return ChatReply(
        response=transcript.text,
        conversation_id=transcript.conversation_id,
        message_id=done.message_id,
        credits_remaining=done.credits_remaining,
        thinking=tuple(transcript.thinking),
        tool_steps=tuple(transcript.tool_steps),
        meta=meta or NO_ANSWER,
    )


# A stream that began and then broke so is interrupted; after the others the answer itself says what is wrong.
_INTERRUPTING: Final = UNREACHED | {FailureKind.CUT, FailureKind.WRITE, FailureKind.LOST, FailureKind.IN_FLIGHT}


def interrupted(failure: Failure, idempotency_key: str) -> LeadLexError:
    """Return what a user is told when a stream that had begun broke off so."""
    if failure.kind not in _INTERRUPTING or isinstance(failure.error, ClientClosedError):
        return failure.error
    error = StreamInterruptedError(f"The answer broke off: {failure.error.problem}", idempotency_key)
    error.__cause__ = failure.error
    return error


# Whether another attempt follows -----------------------------------------------------------------------------------

MAX_RESUMES: Final = 2

MAX_RESUMABLE: Final = 8 << 20
"""Characters handed out, above which a broken stream is not continued."""

IN_FLIGHT_PAUSE: Final = 1.0


@frozen
class Retry:
    """Say that an attempt follows.

    Args:
        delay: The seconds to wait before it.
        last_start: When it may begin at the latest, however long the wait really was.
        takes_quota: Whether the quota must have room for it: not to ask whether the first request is done, and not to
            continue a stream under way, which is paid for.
    """

    delay: float
    last_start: float
    takes_quota: bool


def next_attempt(
    call: Call[Any], failure: Failure, policy: RetryPolicy, now: float, chance: float, *, resume: bool
) -> Retry | None:
    """Return the attempt that follows a failure which the call has noted, or None where the call is given up.

    Args:
        call: The record of the call.
        failure: What ended the last attempt.
        policy: The user's.
        now: The time, by the call's clock.
        chance: From 0 to 1.
        resume: Whether the user wants a broken stream continued.
    """
    if not _may_go_on(call, failure.kind, policy, resume=resume):
        return None
    last_start = last_start_of(policy, call.first_failure, call.deadline, call.key_sent)
    delay = pause_before(policy, failure.kind, call.pauses, _hint(call, failure, policy), chance)
    if delay is None or now + delay > last_start:
        return None
    return Retry(delay, last_start, takes_quota=not (call.head_seen or failure.kind is FailureKind.IN_FLIGHT))


def _may_go_on(call: Call[Any], kind: FailureKind, policy: RetryPolicy, *, resume: bool) -> bool:
    if call.transcript.begun:
        return resume and may_resume(kind, call.resumes, call.transcript.length)
    return call.is_unreached(kind) or may_repeat(call.operation, policy, kind, call.tries)


def _hint(call: Call[Any], failure: Failure, policy: RetryPolicy) -> float | None:
    """Return the seconds that the server asks to wait; in vain, where a page in its place asks for too many."""
    in_vain = call.is_unreached(failure.kind) and (failure.hint or 0.0) > policy.max_hint
    return None if in_vain else failure.hint


def pause_before(policy: RetryPolicy, kind: FailureKind, tries: int, hint: float | None, chance: float) -> float | None:
    """Return the seconds to wait before the next attempt, or None where the server asks for too many.

    Args:
        policy: The user's.
        kind: What broke the last attempt.
        tries: How many repetitions there were before.
        hint: The seconds that the server asked for; never less is waited, a little more so that not all come at once.
        chance: From 0 to 1.
    """
    # A 0 asks for no pause: taken at its word, what only the window bounds would be a busy loop.
    if hint:
        return None if hint > policy.max_hint else hint + chance * min(0.1 * hint, 1.0)
    base = policy.throttle_base if kind in THROTTLES else policy.base
    pause = max(policy.floor, chance * min(policy.cap, base * 2.0**tries))
    return max(pause, IN_FLIGHT_PAUSE) if kind is FailureKind.IN_FLIGHT else pause


def may_repeat(operation: Operation[Any], policy: RetryPolicy, kind: FailureKind, tries: int) -> bool:
    """Tell whether an attempt that broke so may be repeated after `tries` repetitions."""
    if kind is FailureKind.IN_FLIGHT:
        return operation.repeat == "keyed" and policy.retries > 0
    return tries < min(policy.retries, REPEATS[kind][operation.repeat])


def may_resume(kind: FailureKind, resumes: int, length: int) -> bool:
    """Tell whether a stream of which `length` characters were handed out may be continued once more."""
    if length > MAX_RESUMABLE or kind is FailureKind.EVENT or not (kind in UNREACHED or REPEATS[kind]["keyed"]):
        return False
    return kind in UNREACHED or kind is FailureKind.IN_FLIGHT or resumes < MAX_RESUMES


def last_start_of(policy: RetryPolicy, first_failure: float, deadline: float | None, key_sent: float) -> float:
    """Return when an attempt may begin at the latest: in the window, the deadline and the life of the key."""
    ends = [first_failure + policy.window, key_sent + KEY_LIFE]
    return min(ends if deadline is None else [*ends, deadline])

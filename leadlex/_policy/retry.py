"""Whether to try again, and after how long.

Rule: pure; the clock, the randomness, the quota and the sleeping are the transport's.
"""

from __future__ import annotations

from typing import Any, Final

from attrs import frozen

from leadlex._config import RetryPolicy
from leadlex._protocol.operation import KEY_LIFE, Operation

from .call import Call
from .failures import REPEATS, THROTTLES, UNREACHED, Failure, FailureKind

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

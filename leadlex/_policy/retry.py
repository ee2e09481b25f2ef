"""When to try again, and after how long.

Rule: pure; the clock, the randomness and the sleeping are the transport's.
"""

from __future__ import annotations

from typing import Any, Final

from leadlex._config import RetryPolicy
from leadlex._protocol.operation import KEY_LIFE, Operation

from .failures import REPEATS, THROTTLES, UNREACHED, FailureKind

MAX_RESUMES: Final = 2


MAX_RESUMABLE: Final = 8 << 20
"""Characters handed out, above which a broken stream is not continued."""


IN_FLIGHT_PAUSE: Final = 1.0


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


def too_late(
    policy: RetryPolicy, now: float, delay: float, first_failure: float, deadline: float | None, key_sent: float
) -> bool:
    """Tell whether an attempt after `delay` would fall out of the window, the deadline or the life of the key."""
    ends = [first_failure + policy.window, key_sent + KEY_LIFE]
    return now + delay > min(ends if deadline is None else [*ends, deadline])

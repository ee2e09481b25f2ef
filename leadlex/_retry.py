"""When to try again, after how long, and what was charged.

Rule: pure. Two tables and the formulas between them; the clock, the randomness and the sleeping are the transport's.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final

from attrs import define

from ._config import RetryPolicy
from ._meta import Charged, RateLimit
from ._operations import KEY_LIFE, Operation, Repeat
from ._wire import WireProblem


class Fault(Enum):
    """Name what broke an attempt, by how far the attempt had come."""

    LOCAL = "local"
    """Nothing was sent, for a reason of this side."""
    POOL = "pool"
    """No connection became free."""
    NAME = "name"
    """The host name did not resolve."""
    CONNECT = "connect"
    """No connection was made, and the trace proves it."""
    PROXY = "proxy"
    """A proxy refused to connect."""
    GATEWAY = "gateway"
    """A proxy failed to connect."""
    CERTIFICATE = "certificate"
    """TLS could not be agreed on."""
    WRITE = "write"
    """The request was not written to its end."""
    LOST = "lost"
    """The request was written and no head of an answer came."""
    THROTTLED = "throttled"
    """429 in the service's own words: refused before any work."""
    LIMITED = "limited"
    """429 from someone else."""
    TRANSIENT = "transient"
    """408, 425, 500, 502, 503 or 504."""
    IN_FLIGHT = "in_flight"
    """409 in the service's own words: the first request with this idempotency key still runs."""
    OTHER_BODY = "other_body"
    """The service's own word that this idempotency key came with another body before."""
    REFUSED = "refused"
    """Any other refusal in the service's own words."""
    FOREIGN = "foreign"
    """Any other status that is an error, or a redirect, which something in between may have made of a whole answer."""
    BODY = "body"
    """The body of a JSON answer broke off."""
    PAYLOAD = "payload"
    """The answer is complete and can't be used."""
    CUT = "cut"
    """A stream broke off."""
    EVENT = "event"
    """An `error` event that may pass."""
    FINAL_EVENT = "final_event"
    """Any other `error` event."""


ANY: Final = 1 << 30

# How often an attempt that broke so is repeated at most: a GET, a call that may act twice, a call with a key.
REPEATS: Final[Mapping[Fault, Mapping[Repeat, int]]] = {
    fault: {"free": free, "once": once, "keyed": keyed}
    for fault, free, once, keyed in (
        (Fault.LOCAL, 0, 0, 0),
        (Fault.POOL, 0, 0, 0),
        (Fault.NAME, 1, 1, 1),
        (Fault.CONNECT, ANY, ANY, ANY),
        (Fault.PROXY, 0, 0, 0),
        (Fault.GATEWAY, ANY, ANY, ANY),
        (Fault.CERTIFICATE, 0, 0, 0),
        (Fault.WRITE, ANY, 0, ANY),
        (Fault.LOST, ANY, 0, ANY),
        (Fault.THROTTLED, ANY, ANY, ANY),
        (Fault.LIMITED, ANY, 0, ANY),
        (Fault.TRANSIENT, ANY, 0, ANY),
        (Fault.IN_FLIGHT, 0, 0, ANY),
        (Fault.OTHER_BODY, 0, 0, 0),
        (Fault.REFUSED, 0, 0, 0),
        (Fault.FOREIGN, 0, 0, 0),
        (Fault.BODY, ANY, 0, 0),
        (Fault.PAYLOAD, 1, 0, 0),
        (Fault.CUT, 0, 0, ANY),
        (Fault.EVENT, 0, 0, ANY),
        (Fault.FINAL_EVENT, 0, 0, 0),
    )
}

# Faults of attempts that provably were never sent.
UNSENT: Final = frozenset({Fault.POOL, Fault.NAME, Fault.CONNECT, Fault.PROXY, Fault.GATEWAY, Fault.CERTIFICATE})

# Faults after which the service can't have charged; after every other one it may have.
UNCHARGED: Final = UNSENT | {Fault.LOCAL, Fault.THROTTLED, Fault.OTHER_BODY, Fault.REFUSED}

# Faults that say of a stream under way only that its service can't be reached now: nothing was sent, or something in
# between answered in its place.
UNREACHED: Final = UNSENT | {Fault.LIMITED, Fault.TRANSIENT, Fault.FOREIGN}

PASSING_CODES: Final = frozenset({"rate_limited", "internal_error", "overloaded", "timeout"})
PASSING_STATUSES: Final = frozenset({408, 425, 500, 502, 503, 504})

MAX_RESUMES: Final = 2
MAX_RESUMABLE: Final = 8 << 20
"""Characters handed out, above which a broken stream is not continued."""

IN_FLIGHT_PAUSE: Final = 1.0


def charged_after(operation: Operation[Any], fault: Fault) -> Charged:
    """Tell whether an attempt that broke so may have cost credits."""
    return "unknown" if operation.costs and fault not in UNCHARGED else "no"


def worse(one: Charged, other: Charged) -> Charged:
    """Return what is known of a call, of which two attempts had these outcomes."""
    order: tuple[Charged, ...] = ("no", "unknown", "yes")
    return order[max(order.index(one), order.index(other))]


class Speaker(Enum):
    """Who said an error."""

    SERVICE = "service"
    """The service: the contract's form, with a code that belongs to the status."""
    FORM = "form"
    """Somebody who uses the contract's form with another code or status."""
    OTHER = "other"
    """Something in between: a proxy, a firewall, a portal."""


IDEMPOTENCY_REUSED: Final = "idempotency_key_reused"

_CODES: Final[Mapping[int, frozenset[str]]] = {
    400: frozenset({"validation_error"}),
    401: frozenset({"invalid_key"}),
    402: frozenset({"insufficient_credits"}),
    403: frozenset({"insufficient_permissions"}),
    404: frozenset({"not_found", "conversation_not_found"}),
    409: frozenset({"conflict", IDEMPOTENCY_REUSED}),
    422: frozenset({IDEMPOTENCY_REUSED}),
    429: frozenset({"rate_limited"}),
}


def speaker_of(status: int, problem: WireProblem, *, keyed: bool) -> Speaker:
    """Tell who said an error: whether it may be repeated, what it cost and its words all hang on that.

    Args:
        status: The answer's.
        problem: What was read of its body.
        keyed: Whether the request had an idempotency key, to which the service's 422 may refer.
    """
    if problem.code is None or problem.message is None:
        return Speaker.OTHER
    reused = keyed and (status, problem.code) == (422, "validation_error")
    return Speaker.SERVICE if reused or problem.code in _CODES.get(status, ()) else Speaker.FORM


def fault_of_status(status: int, code: str | None, speaker: Speaker) -> Fault:
    """Name the fault of an error status."""
    own = speaker is Speaker.SERVICE
    if status == 429:  # noqa: PLR2004  # RFC 6585, 4
        return Fault.THROTTLED if own else Fault.LIMITED
    if status in PASSING_STATUSES:
        return Fault.TRANSIENT
    if not own:
        return Fault.FOREIGN
    if status == 422 or code == IDEMPOTENCY_REUSED:  # noqa: PLR2004  # RFC 9110, 15.5.21
        return Fault.OTHER_BODY
    return Fault.IN_FLIGHT if status == 409 else Fault.REFUSED  # noqa: PLR2004  # RFC 9110, 15.5.10


def fault_of_code(code: str | None) -> Fault:
    """Name the fault of an `error` event."""
    return Fault.EVENT if code in PASSING_CODES else Fault.FINAL_EVENT


@define(eq=False, repr=False)
class Progress:
    """Keep how far an attempt came, from the events of httpcore's trace where the transport gives them.

    Source: https://www.encode.io/httpcore/extensions/ ("trace").
    """

    handed_over: bool = False
    traced: bool = False
    connect_failed: bool = False
    started: bool = False
    written: bool = False
    proxy_status: int | None = None
    status: int | None = None
    pool_failed: bool = False
    address: str | None = None
    """Where the connection went, a proxy's address where there is one."""

    def note(self, name: str, info: Mapping[str, Any]) -> None:
        """Take in one event of the trace."""
        self.traced = True
        step = name[name.find(".") + 1 :]
        connecting = getattr(info.get("request"), "method", None) == b"CONNECT"
        match step:
            case "connect_tcp.started":
                self.address = f"{info['host']}:{info['port']}"
            case "connect_tcp.failed" | "start_tls.failed":
                self.connect_failed = True
            case "send_request_headers.started" if not connecting:
                self.started = True
            case "send_request_body.complete" if not connecting:
                self.written = True
            case "receive_response_headers.complete":
                self._note_status(int(info["return_value"][1]))
            case "setup_socks5_connection.complete":
                self.proxy_status = 200
            case "acquire.failed":  # `_pool` says so itself
                self.pool_failed = True
            case _:
                pass

    def _note_status(self, status: int) -> None:
        if self.started:
            self.status = status
        else:
            self.proxy_status = status

    @property
    def tunnels(self) -> bool:
        """Tell whether a proxy has connected."""
        return self.proxy_status is not None and self.proxy_status < 300  # noqa: PLR2004  # RFC 9110, 9.3.6: CONNECT

    @property
    def may_have_acted(self) -> bool:
        """Tell whether the service may have read the request: without a trace, from the moment it was handed over."""
        return self.handed_over and (self.started or not self.traced)

    @property
    def fault(self) -> Fault:
        """Name the fault of an attempt that ended without an answer."""
        if not self.handed_over:
            return Fault.LOCAL
        if self.pool_failed:
            return Fault.POOL
        if self.started or not self.traced:
            return Fault.LOST if self.written or not self.traced else Fault.WRITE
        return self._fault_before_start()

    def _fault_before_start(self) -> Fault:
        if self.proxy_status is not None and self.proxy_status >= 300:  # noqa: PLR2004  # RFC 9110, 9.3.6: CONNECT
            return Fault.GATEWAY if self.proxy_status in PASSING_STATUSES else Fault.PROXY
        return Fault.CONNECT if self.connect_failed or self.proxy_status is None else Fault.LOST


# How long ----------------------------------------------------------------------------------------------------------

_THROTTLES: Final = frozenset({Fault.THROTTLED, Fault.LIMITED})


def pause_before(policy: RetryPolicy, fault: Fault, tries: int, hint: float | None, chance: float) -> float | None:
    """Return the seconds to wait before the next attempt, or None where the server asks for too many.

    Args:
        policy: The user's.
        fault: What broke the last attempt.
        tries: How many repetitions there were before.
        hint: The seconds that the server asked for; never less is waited, a little more so that not all come at once.
        chance: From 0 to 1.
    """
    # A 0 asks for no pause: taken at its word, what only the window bounds would be a busy loop.
    if hint:
        return None if hint > policy.max_hint else hint + chance * min(0.1 * hint, 1.0)
    base = policy.throttle_base if fault in _THROTTLES else policy.base
    pause = max(policy.floor, chance * min(policy.cap, base * 2.0**tries))
    return max(pause, IN_FLIGHT_PAUSE) if fault is Fault.IN_FLIGHT else pause


def may_repeat(operation: Operation[Any], policy: RetryPolicy, fault: Fault, tries: int) -> bool:
    """Tell whether an attempt that broke so may be repeated after `tries` repetitions."""
    if fault is Fault.IN_FLIGHT:
        return operation.repeat == "keyed" and policy.retries > 0
    return tries < min(policy.retries, REPEATS[fault][operation.repeat])


def may_resume(fault: Fault, resumes: int, length: int) -> bool:
    """Tell whether a stream of which `length` characters were handed out may be continued once more."""
    if length > MAX_RESUMABLE or fault is Fault.EVENT or not (fault in UNREACHED or REPEATS[fault]["keyed"]):
        return False
    return fault in UNREACHED or fault is Fault.IN_FLIGHT or resumes < MAX_RESUMES


def too_late(
    policy: RetryPolicy, now: float, delay: float, first_failure: float, deadline: float | None, key_sent: float
) -> bool:
    """Tell whether an attempt after `delay` would fall out of the window, the deadline or the life of the key."""
    ends = [first_failure + policy.window, key_sent + KEY_LIFE]
    return now + delay > min(ends if deadline is None else [*ends, deadline])


# What a server asks for ----------------------------------------------------------------------------------------------

_SECONDS: Final = re.compile(r"[ \t]*([0-9]{1,9})[ \t]*", re.ASCII)
_RESET: Final = re.compile(r"[0-9]{10}", re.ASCII)
_TWO_DAYS: Final = 48 * 3600.0
_SLACK: Final = 5.0


def http_date(value: str | None) -> float | None:
    """Read an HTTP date (RFC 9110, 5.6.7) as Unix seconds, or return None."""
    try:
        moment = parsedate_to_datetime(value or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def server_now(headers: Mapping[str, str], now: float) -> float:
    """Return the server's time, from its `Date` where that is believable, else this machine's `now`."""
    date = http_date(headers.get("date"))
    return now if date is None or abs(date - now) > _TWO_DAYS else date


def retry_after(value: str | None, now: float) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3) as seconds from `now`, or return None where it is not of that form."""
    match = _SECONDS.fullmatch(value or "")
    if match:
        return float(match[1])
    date = http_date(value)
    return None if date is None or date < now - _TWO_DAYS else max(0.0, date - now)


def hint_of(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, or None."""
    here = server_now(headers, now)
    after = retry_after(headers.get("retry-after"), here)
    if after is not None or status != 429:  # noqa: PLR2004  # RFC 6585, 4
        return after
    reset = reset_of(headers, now)
    return None if reset is None else max(0.0, reset.timestamp() - here)


def reset_of(headers: Mapping[str, str], now: float) -> datetime | None:
    """Return when the quota is renewed, where a 429 tells it believably."""
    reset = rate_limit_of(headers).reset_at
    if reset is None or headers.get("x-ratelimit-remaining", "0").strip() != "0":
        return None
    # Seconds that are milliseconds, or another limiter's, fall outside of two days.
    return reset if -_SLACK <= reset.timestamp() - server_now(headers, now) <= _TWO_DAYS else None


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit:
    """Read the quota headers; what is not of the documented form is None."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    return RateLimit(
        limit=_count(headers.get("x-ratelimit-limit", "")),
        remaining=_count(headers.get("x-ratelimit-remaining", "")),
        reset_at=datetime.fromtimestamp(int(reset), UTC) if _RESET.fullmatch(reset) else None,
    )


def _count(value: str) -> int | None:
    match = _SECONDS.fullmatch(value)
    return int(match[1]) if match else None


# How much in all ---------------------------------------------------------------------------------------------------


class RetryQuota:
    """Bound the retries of a client, so that an outage is not made worse: a bucket that failures empty.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html (standard mode).
    """

    CAPACITY: Final = 500
    TRANSIENT_COST: Final = 14
    THROTTLE_COST: Final = 5

    def __init__(self) -> None:
        self.level: int = self.CAPACITY
        self._owned = os.getpid(), threading.Lock()

    @property
    def _lock(self) -> threading.Lock:
        """Return the lock of this process: in a forked child a thread that is gone may hold the parent's."""
        if self._owned[0] != os.getpid():
            self._owned = os.getpid(), threading.Lock()
        return self._owned[1]

    def take(self, fault: Fault) -> int:
        """Take the cost of one retry and return it; 0 means that there is not enough left."""
        cost = self.THROTTLE_COST if fault in _THROTTLES else self.TRANSIENT_COST
        with self._lock:
            if self.level < cost:
                return 0
            self.level -= cost
            return cost

    def give(self, amount: int) -> None:
        """Give back what a retry cost that succeeded, or 1 for a success at the first try."""
        with self._lock:
            self.level = min(self.CAPACITY, self.level + amount)

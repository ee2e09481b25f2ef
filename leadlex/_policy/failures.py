"""What kind of failure ended an attempt, how often such a one may be repeated, and what it may have cost.

Rule: pure. Two tables, and the functions that name a row of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from attrs import define, frozen

from leadlex._errors import APIConnectionError, LeadLexError
from leadlex._protocol.operation import Operation, Repeat
from leadlex._values.metadata import Charged
from leadlex._values.problem import WireProblem


class FailureKind(Enum):
    """What broke an attempt, by how far the attempt had come."""

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
REPEATS: Final[Mapping[FailureKind, Mapping[Repeat, int]]] = {
    kind: {"free": free, "once": once, "keyed": keyed}
    for kind, free, once, keyed in (
        (FailureKind.LOCAL, 0, 0, 0),
        (FailureKind.POOL, 0, 0, 0),
        (FailureKind.NAME, 1, 1, 1),
        (FailureKind.CONNECT, ANY, ANY, ANY),
        (FailureKind.PROXY, 0, 0, 0),
        (FailureKind.GATEWAY, ANY, ANY, ANY),
        (FailureKind.CERTIFICATE, 0, 0, 0),
        (FailureKind.WRITE, ANY, 0, ANY),
        (FailureKind.LOST, ANY, 0, ANY),
        (FailureKind.THROTTLED, ANY, ANY, ANY),
        (FailureKind.LIMITED, ANY, 0, ANY),
        (FailureKind.TRANSIENT, ANY, 0, ANY),
        (FailureKind.IN_FLIGHT, 0, 0, ANY),
        (FailureKind.OTHER_BODY, 0, 0, 0),
        (FailureKind.REFUSED, 0, 0, 0),
        (FailureKind.FOREIGN, 0, 0, 0),
        (FailureKind.BODY, ANY, 0, 0),
        (FailureKind.PAYLOAD, 1, 0, 0),
        (FailureKind.CUT, 0, 0, ANY),
        (FailureKind.EVENT, 0, 0, ANY),
        (FailureKind.FINAL_EVENT, 0, 0, 0),
    )
}

# Faults of attempts that provably were never sent.
UNSENT: Final = frozenset(
    {
        FailureKind.POOL,
        FailureKind.NAME,
        FailureKind.CONNECT,
        FailureKind.PROXY,
        FailureKind.GATEWAY,
        FailureKind.CERTIFICATE,
    }
)

# Faults after which the service can't have charged; after every other one it may have.
UNCHARGED: Final = UNSENT | {FailureKind.LOCAL, FailureKind.THROTTLED, FailureKind.OTHER_BODY, FailureKind.REFUSED}

# Faults that say of a stream under way only that its service can't be reached now: nothing was sent, or something in
# between answered in its place.
UNREACHED: Final = UNSENT | {FailureKind.LIMITED, FailureKind.TRANSIENT, FailureKind.FOREIGN}

PASSING_CODES: Final = frozenset({"rate_limited", "internal_error", "overloaded", "timeout"})

PASSING_STATUSES: Final = frozenset({408, 425, 500, 502, 503, 504})


def charged_after(operation: Operation[Any], kind: FailureKind) -> Charged:
    """Tell whether an attempt that broke so may have cost credits."""
    return "unknown" if operation.costs and kind not in UNCHARGED else "no"


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


def kind_of_status(status: int, code: str | None, speaker: Speaker) -> FailureKind:
    """Name the fault of an error status."""
    own = speaker is Speaker.SERVICE
    if status == 429:  # noqa: PLR2004  # RFC 6585, 4
        return FailureKind.THROTTLED if own else FailureKind.LIMITED
    if status in PASSING_STATUSES:
        return FailureKind.TRANSIENT
    if not own:
        return FailureKind.FOREIGN
    if status == 422 or code == IDEMPOTENCY_REUSED:  # noqa: PLR2004  # RFC 9110, 15.5.21
        return FailureKind.OTHER_BODY
    return FailureKind.IN_FLIGHT if status == 409 else FailureKind.REFUSED  # noqa: PLR2004  # RFC 9110, 15.5.10


def kind_of_code(code: str | None) -> FailureKind:
    """Name the fault of an `error` event."""
    return FailureKind.EVENT if code in PASSING_CODES else FailureKind.FINAL_EVENT


@define(eq=False, repr=False)
class Progress:
    """How far an attempt came, from the events of httpcore's trace where the transport gives them.

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
    def kind(self) -> FailureKind:
        """Name the fault of an attempt that ended without an answer."""
        if not self.handed_over:
            return FailureKind.LOCAL
        if self.pool_failed:
            return FailureKind.POOL
        if self.started or not self.traced:
            return FailureKind.LOST if self.written or not self.traced else FailureKind.WRITE
        return self._fault_before_start()

    def _fault_before_start(self) -> FailureKind:
        if self.proxy_status is not None and self.proxy_status >= 300:  # noqa: PLR2004  # RFC 9110, 9.3.6: CONNECT
            return FailureKind.GATEWAY if self.proxy_status in PASSING_STATUSES else FailureKind.PROXY
        return FailureKind.CONNECT if self.connect_failed or self.proxy_status is None else FailureKind.LOST


THROTTLES: Final = frozenset({FailureKind.THROTTLED, FailureKind.LIMITED})


@frozen(eq=False, repr=False)
class Failure:
    """How an attempt ended without what was asked for.

    Args:
        fault: What it means for the rules.
        error: What the user is told if that was the last attempt.
        hint: The seconds that the server asked to wait.
    """

    kind: FailureKind
    error: LeadLexError
    hint: float | None = None


def cut_short() -> Failure:
    """Say that a stream ended without saying that it was whole."""
    return Failure(FailureKind.CUT, APIConnectionError("The stream ended without `done`."))

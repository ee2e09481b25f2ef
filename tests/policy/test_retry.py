"""When a call is made again, after how long, and what is said of its charge."""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
import httpcore
import pytest

from leadlex import AsyncLeadLex, FakeClock, LeadLexError, RateLimitError, RetryPolicy, ServerError
from leadlex._network.retry_quota import RetryQuota
from leadlex._policy.call import last_start_of, may_repeat, may_resume, pause_before
from leadlex._policy.failures import (
    ANY,
    REPEATS,
    UNREACHED,
    FailureKind,
    Progress,
    Speaker,
    charged_after,
    kind_of_code,
    kind_of_status,
    speaker_of,
    worse,
)
from leadlex._protocol.endpoints import chat, conversation, request, stream_chat
from leadlex._protocol.headers import hint_of, rate_limit_of, reset_of, retry_after, server_now
from leadlex._protocol.operation import KEY_LIFE, Operation
from leadlex._values.problem import WireProblem
from tests.matrix.oracles import CALLS, Call, observe, spoiled
from tests.support.answers import error_answer, json_answer
from tests.support.lexi import Answer, Cut, Lost, Raw
from tests.support.lexi import Fault as Spoils
from tests.support.proxy import Proxy
from tests.support.resources import must_not_hang
from tests.support.runners import API_KEY, AsyncRunner
from tests.support.server import Connection, Script, ScriptedServer, black_hole, dead_port
from tests.support.tls import client_context, identity

ASYNC: Final = AsyncRunner("asyncio")
POLICY: Final = RetryPolicy()
KEY: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
OPERATIONS: Final[dict[Call, Operation[Any]]] = {
    "get": conversation("conv_1", include_tool_steps=False, limit=200),
    "chat": chat("Hi", conversation_id=None, context=None),
    "stream": stream_chat(
        "Hi",
        conversation_id=None,
        context=None,
        allow_tools=True,
        idempotency_key=KEY,
        first_sent=None,
        now=0.0,
    ),
}

# The table ---------------------------------------------------------------------------------------------------------

#: How often a fault is answered by another attempt at most, for a GET, a chat and a stream; and whether a chat or a
#: stream may then have been charged.
TABLE: Final[dict[FailureKind, tuple[int, int, int, bool]]] = {
    FailureKind.LOCAL: (0, 0, 0, False),
    FailureKind.POOL: (0, 0, 0, False),
    FailureKind.NAME: (1, 1, 1, False),
    FailureKind.CONNECT: (ANY, ANY, ANY, False),
    FailureKind.PROXY: (0, 0, 0, False),
    FailureKind.GATEWAY: (ANY, ANY, ANY, False),
    FailureKind.CERTIFICATE: (0, 0, 0, False),
    FailureKind.WRITE: (ANY, 0, ANY, True),
    FailureKind.LOST: (ANY, 0, ANY, True),
    FailureKind.THROTTLED: (ANY, ANY, ANY, False),
    FailureKind.LIMITED: (ANY, 0, ANY, True),
    FailureKind.TRANSIENT: (ANY, 0, ANY, True),
    FailureKind.IN_FLIGHT: (0, 0, ANY, True),
    FailureKind.OTHER_BODY: (0, 0, 0, False),
    FailureKind.REFUSED: (0, 0, 0, False),
    FailureKind.FOREIGN: (0, 0, 0, True),
    FailureKind.BODY: (ANY, 0, 0, True),
    FailureKind.PAYLOAD: (1, 0, 0, True),
    FailureKind.CUT: (0, 0, ANY, True),
    FailureKind.EVENT: (0, 0, ANY, True),
    FailureKind.FINAL_EVENT: (0, 0, 0, True),
}


@pytest.mark.parametrize("fault", FailureKind)
@pytest.mark.parametrize("call", CALLS)
def test_table(fault: FailureKind, call: Call) -> None:
    """Each fault is answered by just as many attempts as the table allows, within what the user allows."""
    allowed = TABLE[fault][CALLS.index(call)]
    for retries in range(10):
        tries = [may_repeat(OPERATIONS[call], RetryPolicy(retries=retries), fault, n) for n in range(retries)]
        in_flight = fault is FailureKind.IN_FLIGHT and call == "stream"
        assert sum(tries) == (retries if in_flight else min(allowed, retries))


@pytest.mark.parametrize("fault", FailureKind)
def test_charge_by_fault(fault: FailureKind) -> None:
    """A GET never costs; what may have been charged is never told as free."""
    assert charged_after(OPERATIONS["get"], fault) == "no"
    for call in ("chat", "stream"):
        assert charged_after(OPERATIONS[call], fault) == ("unknown" if TABLE[fault][3] else "no")


def test_table_has_every_fault() -> None:
    """No fault is without a rule."""
    assert set(REPEATS) == set(TABLE) == set(FailureKind)


def test_in_flight_is_no_attempt() -> None:
    """A 409 is asked again as long as the window lasts, unless the user wants no retries; never without a key."""
    assert may_repeat(OPERATIONS["stream"], POLICY, FailureKind.IN_FLIGHT, 1000)
    assert not may_repeat(OPERATIONS["stream"], RetryPolicy(retries=0), FailureKind.IN_FLIGHT, 0)
    assert not may_repeat(request("POST", "/v1/x", json=None, params=None), POLICY, FailureKind.IN_FLIGHT, 0)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_raw_requests(method: str) -> None:
    """A GET is repeated as any other; every other method is treated as a chat."""
    operation = request(method, "/v1/x", json=None, params=None)
    assert may_repeat(operation, POLICY, FailureKind.LOST, 0) == (method == "GET")
    assert may_repeat(operation, POLICY, FailureKind.CONNECT, 0)
    assert charged_after(operation, FailureKind.LOST) == ("no" if method == "GET" else "unknown")


#: The service's own words: a status and the codes that belong to it.
OWN: Final[Mapping[int, tuple[str, ...]]] = {
    400: ("validation_error",),
    401: ("invalid_key",),
    402: ("insufficient_credits",),
    403: ("insufficient_permissions",),
    404: ("not_found", "conversation_not_found"),
    409: ("conflict", "idempotency_key_reused"),
    422: ("idempotency_key_reused",),
    429: ("rate_limited",),
}


@pytest.mark.parametrize("status", range(200, 600))
def test_who_said_it(status: int) -> None:
    """A status and a code are the service's own word only together, and only in the contract's form."""
    codes = [code for codes in OWN.values() for code in codes]
    for code in [*codes, "internal_error", "Not Found", ""]:
        own = Speaker.SERVICE if code in OWN.get(status, ()) else Speaker.FORM
        assert speaker_of(status, WireProblem(code, "Words"), keyed=False) is own
        assert speaker_of(status, WireProblem(code, None), keyed=True) is Speaker.OTHER
    assert speaker_of(status, WireProblem(None, "Words"), keyed=True) is Speaker.OTHER
    reused = Speaker.SERVICE if status in (400, 422) else Speaker.FORM
    assert speaker_of(status, WireProblem("validation_error", "Words"), keyed=True) is reused


@pytest.mark.parametrize(
    ("status", "code", "speaker", "fault"),
    [
        (429, "rate_limited", Speaker.SERVICE, FailureKind.THROTTLED),
        (429, None, Speaker.OTHER, FailureKind.LIMITED),
        (429, "too_many", Speaker.FORM, FailureKind.LIMITED),
        *[(status, None, Speaker.OTHER, FailureKind.TRANSIENT) for status in (408, 425, 500, 502, 503, 504)],
        *[(status, "x", Speaker.SERVICE, FailureKind.REFUSED) for status in (400, 401, 402, 403, 404)],
        *[
            (status, None, Speaker.OTHER, FailureKind.FOREIGN)
            for status in (400, 401, 402, 403, 404, 405, 409, 413, 422)
        ],
        *[(status, "x", Speaker.FORM, FailureKind.FOREIGN) for status in (400, 404, 409, 422, 501, 505, 599)],
        (409, "conflict", Speaker.SERVICE, FailureKind.IN_FLIGHT),
        (409, "idempotency_key_reused", Speaker.SERVICE, FailureKind.OTHER_BODY),
        (422, "validation_error", Speaker.SERVICE, FailureKind.OTHER_BODY),
    ],
)
def test_statuses(status: int, code: str | None, speaker: Speaker, fault: FailureKind) -> None:
    """Who said it decides before the status does; a 5xx that is not named in the table is not repeated."""
    assert kind_of_status(status, code, speaker) is fault


@pytest.mark.parametrize("code", ["rate_limited", "internal_error", "overloaded", "timeout", "other", None])
def test_error_events(code: str | None) -> None:
    """Four codes of an `error` event pass by themselves, no others."""
    passing = code in ("rate_limited", "internal_error", "overloaded", "timeout")
    assert kind_of_code(code) is (FailureKind.EVENT if passing else FailureKind.FINAL_EVENT)


@pytest.mark.parametrize("fault", FailureKind)
def test_resuming(fault: FailureKind) -> None:
    """A stream that had begun is continued twice after what took its connection, and never after what it said.

    What did not reach the service does not count. More than 8 Mi characters are never continued.
    """
    lasting = {each for each in FailureKind if not TABLE[each][2]} - UNREACHED | {FailureKind.EVENT}
    resumable = fault not in lasting
    assert may_resume(fault, 0, 10) == may_resume(fault, 1, 8 << 20) == resumable
    assert may_resume(fault, 2, 10) == (fault in UNREACHED or fault is FailureKind.IN_FLIGHT)
    assert not may_resume(fault, 0, (8 << 20) + 1)


def test_worse() -> None:
    """What is known of a call is the worst of what is known of its attempts."""
    assert worse("no", "unknown") == worse("unknown", "no") == "unknown"
    assert worse("yes", "unknown") == "yes"
    assert worse("no", "no") == "no"


# On sockets --------------------------------------------------------------------------------------------------------

event = Raw(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'event: error\ndata: {"code": "overloaded", "message": "Later"}\n\n'
)


@pytest.mark.parametrize(
    ("name", "fault", "attempts"),
    [
        ("P4 cut", Lost("fin"), (3, 1, 3)),
        ("P4 reset", Lost("rst"), (3, 1, 3)),
        ("429 in the service's words", Answer(429, code="rate_limited"), (3, 3, 3)),
        ("429 of another", Answer(429, b"<html>", refusal=False), (3, 1, 3)),
        *[(str(status), Answer(status), (3, 1, 3)) for status in (408, 425, 500, 502, 503, 504)],
        *[(str(status), Answer(status), (1, 1, 1)) for status in (400, 401, 402, 403, 404, 422, 301, 307)],
        ("P6", Cut(20), (3, 1, 3)),
        ("P7", Answer(200, b"[]"), (2, 1, 1)),
        ("P8 error event", event, (2, 1, 3)),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_table_on_a_socket(call: Call, name: str, fault: Spoils, attempts: tuple[int, int, int]) -> None:
    """Each row of the table sends just so many requests, with one key and the same bytes, and then an error."""
    times = attempts[CALLS.index(call)]
    with ScriptedServer(spoiled(call, fault, times=times)) as server:
        seen = observe(ASYNC, call, server)
        assert isinstance(seen.error, LeadLexError), name
        assert seen.attempts == times
        sent = server.requests[:-1]
        assert len({(each.idempotency_key, each.body) for each in sent}) == 1
        assert (sent[0].idempotency_key is not None) == (call == "stream")


@pytest.mark.parametrize("call", CALLS)
def test_success_after_a_failure(call: Call) -> None:
    """What may be repeated goes well the second time, and is charged once."""
    with ScriptedServer(spoiled(call, Answer(429, code="rate_limited"))) as server:
        observe(ASYNC, call, server).expect(None, attempts=2)
        assert server.ledger.worst == (0 if call == "get" else 1)


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_number_of_retries(retries: int) -> None:
    """The user says how often."""
    fault = Answer(503)
    with ScriptedServer(spoiled("get", fault, times=retries + 1)) as server:
        policy = RetryPolicy(retries=retries, base=0.01, floor=0.01)
        observe(ASYNC, "get", server, retries=policy).expect(ServerError, attempts=retries + 1)


# What a server asks for --------------------------------------------------------------------------------------------

#: Monday, 26 February 2024, 00:00:00 UTC.
NOW: Final = 1_708_905_600.0
NINES: Final = "999999999"

SECONDS: Final[list[tuple[str, float | None]]] = [
    ("0", 0),
    ("1", 1),
    ("60", 60),
    ("3600", 3600),
    ("007", 7),
    (" 5", 5),
    ("5 ", 5),
    ("\t5 \t", 5),
    (NINES, 999_999_999),
    (NINES + "9", None),
    ("9" * 400, None),
    ("", None),
    (" ", None),
    ("-1", None),
    ("+5", None),
    ("1.5", None),
    ("5.", None),
    ("1e3", None),
    ("1e400", None),
    ("nan", None),
    ("inf", None),
    ("Infinity", None),
    ("1_000", None),
    ("0x10", None),
    ("\u0665", None),
    ("\uff15", None),
    ("\u00b2", None),
    ("5, 6", None),
    ("5;6", None),
    ("5s", None),
    ("\u00a05", None),
    ("5\x0b", None),
    ("soon", None),
]

DATES: Final[list[tuple[str, float | None]]] = [
    ("Mon, 26 Feb 2024 00:00:30 GMT", 30),
    ("Monday, 26-Feb-24 00:00:30 GMT", 30),
    ("Mon Feb 26 00:00:30 2024", 30),
    ("Mon, 26 Feb 2024 00:00:00 GMT", 0),
    ("Sun, 25 Feb 2024 23:59:00 GMT", 0),
    ("Sun, 25 Feb 2024 00:00:00 GMT", 0),
    ("Tue, 20 Feb 2024 00:00:00 GMT", None),
    ("Sun, 06 Nov 1994 08:49:37 GMT", None),
    ("Thu, 26 Feb 2024 00:00:30 GMT", 30),
    ("26 Feb 2024 00:00:30 GMT", 30),
    ("Mon, 26 Feb 2024 00:00:30", 30),
    ("Mon, 26 Feb 2024 00:00:30 -0000", 30),
    ("Mon, 26 Feb 2024 09:00:30 +0900", 30),
    ("Mon, 26 Feb 2024 00:00:30 +9999", None),
    ("Mon, 26 Feb 100000 00:00:30 GMT", None),
    ("Sat, 31 Feb 2024 00:00:30 GMT", None),
    ("Mon, 26 Feb 2024 25:00:30 GMT", None),
    ("Mon, 26 Foo 2024 00:00:30 GMT", None),
    ("2024-02-26T00:00:30Z", None),
    ("GMT", None),
]


@pytest.mark.parametrize(("value", "seconds"), [*SECONDS, *DATES])
def test_retry_after(value: str, seconds: float | None) -> None:
    """`Retry-After` counts where it is whole seconds or an HTTP date of these days, and is nothing otherwise."""
    assert retry_after(value, NOW) == seconds
    for status in (429, 503):
        assert hint_of(status, {"retry-after": value}, NOW) == seconds


DAY: Final = 86_400
RESETS: Final[list[tuple[int, dict[str, str], float | None]]] = [
    (429, {"reset": f"{NOW + 3:.0f}"}, 3),
    (429, {"reset": f"{NOW + 3:.0f}", "remaining": "0"}, 3),
    (429, {"reset": f"{NOW + 3:.0f}", "remaining": " 0 "}, 3),
    (429, {"reset": f"{NOW + 5 * 3600:.0f}", "remaining": "0"}, 5 * 3600),
    (429, {"reset": f"{NOW + 2 * DAY:.0f}"}, 2 * DAY),
    (429, {"reset": f"{NOW + 2 * DAY + 1:.0f}"}, None),
    (429, {"reset": f"{NOW - 5:.0f}"}, 0),
    (429, {"reset": f"{NOW - 6:.0f}"}, None),
    (429, {"reset": f"{NOW + 3:.0f}", "remaining": "7"}, None),
    (429, {"reset": f"{NOW + 3:.0f}", "remaining": "none"}, None),
    (503, {"reset": f"{NOW + 3:.0f}", "remaining": "0"}, None),
    (429, {"reset": f"{(NOW + 3) * 1000:.0f}"}, None),
    (429, {"reset": "-1"}, None),
    (429, {"reset": "0"}, None),
    (429, {"reset": "tomorrow"}, None),
    (429, {"reset": f"{NOW + 3}"}, None),
    (429, {"reset": "253402300799"}, None),
    (429, {"reset": "9999999999"}, None),
    (429, {}, None),
]


@pytest.mark.parametrize(("status", "fields", "seconds"), RESETS)
def test_reset(status: int, fields: Mapping[str, str], seconds: float | None) -> None:
    """`X-RateLimit-Reset` counts for a 429 that says nothing else, where the quota is empty and the time believable."""
    headers = {f"x-ratelimit-{name}": value for name, value in fields.items()}
    assert hint_of(status, headers, NOW) == seconds
    if seconds is not None:
        reset = reset_of(headers, NOW)
        assert reset is not None
        assert reset.tzinfo is dt.UTC


def test_retry_after_goes_before_reset() -> None:
    """Where both are sent, `Retry-After` counts; where it can't be read, the reset does."""
    reset = {"x-ratelimit-reset": f"{NOW + 9:.0f}"}
    assert hint_of(429, {**reset, "retry-after": "2"}, NOW) == 2
    assert hint_of(429, {**reset, "retry-after": "later"}, NOW) == 9


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Mon, 26 Feb 2024 05:00:00 GMT", NOW + 5 * 3600),
        ("Sun, 25 Feb 2024 00:00:00 GMT", NOW - DAY),
        ("Wed, 28 Feb 2024 00:00:00 GMT", NOW + 2 * DAY),
        ("Wed, 28 Feb 2024 00:00:01 GMT", NOW),
        ("Sun, 06 Nov 1994 08:49:37 GMT", NOW),
        ("nonsense", NOW),
        ("", NOW),
    ],
)
def test_server_clock(date: str, expected: float) -> None:
    """The server's own clock counts where it is within two days of this machine's."""
    assert server_now({"date": date}, NOW) == expected
    headers = {"date": date, "x-ratelimit-reset": f"{expected + 4:.0f}", "x-ratelimit-remaining": "0"}
    assert hint_of(429, headers, NOW) == 4
    assert hint_of(429, {"date": date, "retry-after": http_date(expected + 4)}, NOW) == 4
    assert server_now({}, NOW) == NOW


def http_date(moment: float) -> str:
    """Write an HTTP date."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(
    ("value", "count"), [("1000", 1000), (" 7 ", 7), ("-1", None), ("1.0", None), ("", None), ("9" * 10, None)]
)
def test_quota_headers(value: str, count: int | None) -> None:
    """A count that is none is not known."""
    seen = rate_limit_of({"x-ratelimit-limit": value, "x-ratelimit-remaining": value, "x-ratelimit-reset": value})
    assert (seen.limit, seen.remaining) == (count, count)


# How long ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "tries", "half"),
    [
        (FailureKind.LOST, 0, 0.25),
        (FailureKind.LOST, 1, 0.5),
        (FailureKind.LOST, 3, 2.0),
        (FailureKind.LOST, 4, 4.0),
        (FailureKind.LOST, 9, 4.0),
        (FailureKind.THROTTLED, 0, 0.5),
        (FailureKind.THROTTLED, 2, 2.0),
        (FailureKind.LIMITED, 5, 4.0),
    ],
)
def test_full_jitter(fault: FailureKind, tries: int, half: float) -> None:
    """A pause is any time up to the doubled base, with the same chance, at least the floor and at most the cap."""
    chance = random.Random(7)  # noqa: S311  # a repeatable test
    policy = RetryPolicy(floor=1e-9)
    drawn = [pause_before(policy, fault, tries, None, chance.random()) or 0.0 for _ in range(10_000)]
    assert statistics.fmean(drawn) == pytest.approx(half, rel=0.02)
    assert 0 < min(drawn) < 0.01 * half
    assert 1.99 * half < max(drawn) <= 2 * half
    assert pause_before(POLICY, fault, tries, None, 0.0) == POLICY.floor


@pytest.mark.parametrize("hint", [0.5, 3.0, 10.0, 45.0, 60.0])
def test_hint(hint: float) -> None:
    """A server that names a time never waits shorter, and at most a tenth or a second longer."""
    for chance in (0.0, 0.3, 1.0):
        pause = pause_before(POLICY, FailureKind.THROTTLED, 0, hint, chance)
        assert pause is not None
        assert hint <= pause <= hint + min(0.1 * hint, 1.0)
    assert pause_before(POLICY, FailureKind.THROTTLED, 0, 60.1, 0.0) is None


@pytest.mark.parametrize("fault", FailureKind)
def test_a_hint_of_nothing_is_none(fault: FailureKind) -> None:
    """`Retry-After: 0` and one in the past ask for no pause, and get the usual one: a service in trouble needs it."""
    assert pause_before(POLICY, fault, 3, 0.0, 0.5) == pause_before(POLICY, fault, 3, None, 0.5)


def test_in_flight_pause() -> None:
    """A request that still runs is asked for every second at most."""
    assert pause_before(POLICY, FailureKind.IN_FLIGHT, 0, None, 0.0) == 1.0


@pytest.mark.parametrize(
    ("now", "delay", "first_failure", "deadline", "key_sent", "late"),
    [
        (100.0, 1.0, 100.0, None, 100.0, False),
        (100.0, 60.0, 100.0, None, 100.0, False),
        (100.0, 60.1, 100.0, None, 100.0, True),
        (150.0, 1.0, 100.0, None, 40.0, False),
        (160.0, 0.1, 100.0, None, 40.0, True),
        (100.0, 1.0, 100.0, 101.0, 40.0, False),
        (100.0, 1.1, 100.0, 101.0, 40.0, True),
        (KEY_LIFE, 0.5, KEY_LIFE, None, 0.0, True),
        (KEY_LIFE - 1, 0.5, KEY_LIFE - 1, None, 0.0, False),
    ],
)
def test_too_late(  # one value a column
    now: float, delay: float, first_failure: float, deadline: float | None, key_sent: float, *, late: bool
) -> None:
    """Nothing is sent after the window that the first failure opens, after the deadline, or after the key's life."""
    assert (now + delay > last_start_of(POLICY, first_failure, deadline, key_sent)) == late


# How much in all ---------------------------------------------------------------------------------------------------


def test_quota_levels() -> None:
    """A retry costs 14, after a throttle 5; a success gives back what was taken, and never more than there was."""
    quota = RetryQuota()
    assert [quota.take(FailureKind.LOST), quota.take(FailureKind.THROTTLED), quota.level] == [14, 5, 481]
    quota.give(14)
    quota.give(1)
    assert quota.level == 496
    quota.give(1000)
    assert quota.level == RetryQuota.CAPACITY


@pytest.mark.parametrize(
    ("fault", "retries"), [(FailureKind.LOST, 35), (FailureKind.THROTTLED, 100), (FailureKind.LIMITED, 100)]
)
def test_quota_runs_out(fault: FailureKind, retries: int) -> None:
    """In an outage that lasts the quota allows so many retries, and then none."""
    quota = RetryQuota()
    assert sum(bool(quota.take(fault)) for _ in range(1000)) == retries


def test_quota_with_threads() -> None:
    """Ten threads never take more than there is, and nothing is lost between them."""
    quota, taken, given = RetryQuota(), [0] * 10, [0] * 10
    levels: list[int] = []
    end = time.monotonic() + 1.0

    def trade(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # a repeatable test
        while time.monotonic() < end:
            cost = quota.take(chance.choice([FailureKind.LOST, FailureKind.THROTTLED]))
            taken[number] += cost
            levels.append(quota.level)
            # Only what was taken is given back, so that the capacity never cuts anything off.
            if cost and chance.random() < 0.9:
                quota.give(cost)
                given[number] += cost

    threads = [threading.Thread(target=trade, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(levels) >= 0
    assert max(levels) <= RetryQuota.CAPACITY
    assert quota.level == RetryQuota.CAPACITY - sum(taken) + sum(given)


@pytest.mark.parametrize(
    ("answer", "worst"),
    [(error_answer(503, "internal_error"), 1.05), (error_answer(429, "rate_limited"), 1.15)],
    ids=["transient", "throttled"],
)
def test_amplification(answer: bytes, worst: float) -> None:
    """In an outage 1,000 calls make hardly more than 1,000 requests, and nobody sleeps for real."""

    def refuse(connection: Connection) -> None:
        while True:
            connection.receive_request()
            connection.send(answer)

    async def main() -> None:
        async with AsyncLeadLex(API_KEY, base_url=server.url) as lexi:
            for _ in range(1000):
                with pytest.raises(LeadLexError):
                    await lexi.tasks()

    with FakeClock() as clock, ScriptedServer(refuse) as server, must_not_hang(60):
        anyio.run(main)
        assert 1000 + len(clock.sleeps) == len(server.requests) <= 1000 * worst
    assert clock.sleeps


@pytest.mark.parametrize(
    ("headers", "slept"),
    [
        ({"Retry-After": "7"}, [7 + 0.5 * 0.7] * 2),
        ({"Retry-After": "45"}, [45.5]),
        ({}, [0.5, 1.0]),
        ({"Retry-After": "61"}, []),
        ({"Retry-After": "3600"}, []),
    ],
)
def test_sleeps(headers: dict[str, str], slept: list[float]) -> None:
    """The pauses are those that the server asked for, else the backoff; one that is too long is none."""

    async def main() -> None:
        async with AsyncLeadLex(API_KEY, base_url=server.url) as lexi:
            with pytest.raises(RateLimitError) as caught:
                await lexi.tasks()
        wanted = headers.get("Retry-After")
        assert caught.value.retry_after == (None if wanted is None else float(wanted))

    refusal = Answer(429, code="rate_limited", headers=headers)
    with FakeClock() as clock, ScriptedServer(spoiled("get", refusal, times=3)) as server:
        anyio.run(main)
    assert clock.sleeps == slept


# How far an attempt had come ---------------------------------------------------------------------------------------


def never_read(connection: Connection) -> None:
    """Read nothing at all."""
    connection.stall()


def half_a_head(connection: Connection) -> None:
    """Answer half of a head."""
    connection.receive_request()
    connection.send(b"HTTP/1.1 20")
    connection.fin()


def leave(connection: Connection) -> None:
    """Read a request and leave."""
    connection.receive_request()
    connection.fin()


def answer_well(connection: Connection) -> None:
    """Answer."""
    connection.receive_request()
    connection.send(json_answer(200, {}))


def show_a_wrong_certificate(connection: Connection) -> None:
    """Be someone else."""
    connection.start_tls(identity("unknown_ca"))


@contextlib.contextmanager
def proxied(*refusals: int) -> Any:
    """Stand between a client and a server that leaves."""
    with ScriptedServer(leave, tls=identity()) as server, Proxy(refusals=refusals) as proxy:
        yield server.url, httpcore.Proxy(proxy.url)


@contextlib.contextmanager
def proxied_into_a_cut_handshake() -> Any:
    """Stand between a client and a server that cuts the handshake."""
    with ScriptedServer(Connection.fin) as server, Proxy() as proxy:
        yield f"https://127.0.0.1:{server.port}", httpcore.Proxy(proxy.url)


@contextlib.contextmanager
def serve(script: Script, scheme: str = "http") -> Any:
    """Serve a script."""
    with ScriptedServer(script) as server:
        yield f"{scheme}://127.0.0.1:{server.port}", None


@contextlib.contextmanager
def at(place: contextlib.AbstractContextManager[str]) -> Any:
    """Give a place without a proxy."""
    with place as url:
        yield url, None


#: Real faults, and the phase that httpcore's trace of them proves.
TRACES: Final[dict[str, tuple[Callable[[], Any], FailureKind]]] = {
    "refused": (lambda: at(dead_port()), FailureKind.CONNECT),
    "black hole": (lambda: at(black_hole()), FailureKind.CONNECT),
    "certificate": (lambda: serve(show_a_wrong_certificate, "https"), FailureKind.CONNECT),
    "handshake cut": (lambda: serve(Connection.fin, "https"), FailureKind.CONNECT),
    "handshake stalled": (lambda: serve(Connection.stall, "https"), FailureKind.CONNECT),
    "proxy refuses": (lambda: proxied(407), FailureKind.PROXY),
    "proxy can't connect": (lambda: proxied(502), FailureKind.GATEWAY),
    "handshake cut behind a proxy": (proxied_into_a_cut_handshake, FailureKind.CONNECT),
    "cut behind a proxy": (proxied, FailureKind.LOST),
    "never read": (lambda: serve(never_read), FailureKind.WRITE),
    "cut": (lambda: serve(leave), FailureKind.LOST),
    "cut in the head": (lambda: serve(half_a_head), FailureKind.LOST),
}


async def record(url: str, proxy: httpcore.Proxy | None) -> list[tuple[str, Mapping[str, Any]]]:
    """Make one big POST with httpcore and give the events of its trace."""
    events: list[tuple[str, Mapping[str, Any]]] = []

    async def trace(name: str, info: Mapping[str, Any]) -> None:
        events.append((name, dict(info)))

    times = {"connect": 0.3, "write": 0.3, "read": 5.0, "pool": 5.0}
    async with httpcore.AsyncConnectionPool(ssl_context=client_context(), proxy=proxy) as pool:
        with contextlib.suppress(
            httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.ProxyError
        ):
            await pool.request("POST", url, content=b"x" * 8_000_000, extensions={"timeout": times, "trace": trace})
    return events


def replayed(events: list[tuple[str, Mapping[str, Any]]]) -> Progress:
    """Give what a trace tells of an attempt."""
    progress = Progress(handed_over=True)
    for name, info in events:
        progress.note(name, info)
    return progress


# httpcore's own, which runs here without leadlex.
@pytest.mark.filterwarnings("ignore:Async generator 'httpcore:ResourceWarning")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", TRACES)
def test_progress(name: str, backend: str) -> None:
    """Httpcore's trace of a real fault tells how far the request had come; only a proof makes it harmless."""
    make, fault = TRACES[name]
    with must_not_hang(20), make() as (url, proxy):
        progress = replayed(anyio.run(record, url, proxy, backend=backend))
    assert progress.traced
    assert progress.kind is fault
    assert progress.may_have_acted == (fault in (FailureKind.WRITE, FailureKind.LOST))


def test_progress_of_an_answer() -> None:
    """A status is noted as the service's, not the proxy's."""
    with serve(answer_well) as (url, proxy):
        progress = replayed(anyio.run(record, url, proxy))
    assert (progress.status, progress.proxy_status) == (200, None)
    assert progress.address == url.removeprefix("http://")
    with proxied() as (url, proxy):
        progress = replayed(anyio.run(record, url, proxy))
    assert (progress.status, progress.proxy_status) == (None, 200)
    assert progress.address != url.removeprefix("https://")


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (200, FailureKind.LOST),
        (299, FailureKind.LOST),
        (300, FailureKind.PROXY),
        (407, FailureKind.PROXY),
        (502, FailureKind.GATEWAY),
    ],
)
def test_progress_behind_a_proxy(status: int, fault: FailureKind) -> None:
    """Any 2xx to a CONNECT is a tunnel, and nothing else is."""
    progress = replayed([("http11.receive_response_headers.complete", {"return_value": (b"HTTP/1.1", status)})])
    assert (progress.kind, progress.tunnels) == (fault, status < 300)


def test_progress_without_a_trace() -> None:
    """Without a trace everything after the call into the transport may have been read by the service."""
    assert Progress(handed_over=True).kind is FailureKind.LOST
    assert Progress(handed_over=True).may_have_acted
    assert Progress().kind is FailureKind.LOCAL
    assert not Progress().may_have_acted


def test_progress_in_the_pool() -> None:
    """A call that got no connection was never sent."""
    progress = Progress(handed_over=True)
    progress.note("pool.acquire.failed", {})
    assert progress.kind is FailureKind.POOL
    assert not progress.may_have_acted

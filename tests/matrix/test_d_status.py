"""Table D of the fault matrix: statuses, rate limits and credits. Nobody really waits here but in one test."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attrs import evolve

from leadlex import (
    APIResponseError,
    APIStatusError,
    AsyncLeadLex,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    FakeClock,
    IdempotencyError,
    InsufficientCreditsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    pytest_plugin,
)
from tests.matrix.oracles import AT_ONCE, CALLS, PATIENT, Call, observe, spoiled
from tests.support.captures import CAPTURE_TEXT, encode_event
from tests.support.lexi import CHAT, Answer, Fault, LexiScript, Raw
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner
from tests.support.server import ScriptedServer

lexi_clock = pytest_plugin.lexi_clock
ONCE = AsyncRunner("asyncio")
#: Room for the sleeps that are leapt over.
PATIENT_TOTAL = evolve(PATIENT, total=200)
#: What is charged after an attempt of which that is not known.
UNKNOWN: dict[Call, str] = {"get": "no", "chat": "unknown", "stream": "unknown"}


def limited(headers: dict[str, str] | None = None, **options: Any) -> Answer:
    """Refuse as the service does when the quota is used up; the reset lies in the past unless one is given."""
    return Answer(429, headers={"X-RateLimit-Remaining": "0", **(headers or {})}, code="rate_limited", **options)


def once(runner: Runner, call: Call, *faults: Fault, times: int = 1, **options: Any) -> Any:
    """Make one call of a Lexi that does this, and give what was seen."""
    with ScriptedServer(spoiled(call, *faults, times=times)) as server:
        return observe(runner, call, server, timeout=PATIENT_TOTAL, **options)


# Refusals ----------------------------------------------------------------------------------------------------------

_REFUSALS: dict[int, tuple[str, type[APIStatusError]]] = {
    400: ("validation_error", BadRequestError),
    401: ("invalid_key", AuthenticationError),
    402: ("insufficient_credits", InsufficientCreditsError),
    403: ("insufficient_permissions", PermissionDeniedError),
    404: ("not_found", NotFoundError),
}


@pytest.mark.row("D01")
@pytest.mark.parametrize("status", _REFUSALS)
@pytest.mark.parametrize("call", CALLS)
def test_refused(runner: Runner, call: Call, status: int) -> None:
    """A refusal is the class of its status, with the service's words, not charged and not repeated."""
    code, kind = _REFUSALS[status]
    seen = once(runner, call, Answer(status, code=code, headers={"X-Request-ID": "req_9"}))
    seen.expect(kind, charged="no", attempts=1, status_code=status, code=code, message="Refused", request_id="req_9")
    assert seen.error.rate_limit.remaining == 999
    assert '"code": "' + code in seen.error.body


_BODIES: dict[str, bytes] = {
    "empty": b"",
    "page": b"<html><h1>Sorry</h1>",
    "10 MB": b"x" * 10_000_000,
    "no UTF-8": b'{"error": {"code": "\xff\xfe"}}',
    "a list": b'[{"error": {"code": "a"}}]',
    "null": b'{"error": null}',
    "a number as message": b'{"error": {"code": 5, "message": 7}}',
    "deep": b"[" * 60_000,
    "a text": b'"error"',
}


@pytest.mark.row("D02")
@pytest.mark.parametrize("status", [400, 401, 404])
@pytest.mark.parametrize("body", _BODIES)
def test_refused_strangely(body: str, status: int) -> None:
    """Whatever the body is, the status alone tells the class; of a huge one 64 KiB are kept."""
    seen = once(ONCE, "chat", Answer(status, _BODIES[body], {"Content-Type": "text/html; charset=zlib_codec"}))
    seen.expect(_REFUSALS[status][1], charged="unknown", attempts=1, status_code=status, code=None, message=None)
    assert not seen.error.from_service
    assert seen.error.body == _BODIES[body].decode("utf-8", "replace")[: 64 << 10]


@pytest.mark.row("D02")
@pytest.mark.parametrize("call", CALLS)
def test_refused_strangely_on_each_runner(runner: Runner, call: Call) -> None:
    """A refusal by a proxy's page is the class of its status with every client, and may hide an answer that cost."""
    seen = once(runner, call, Answer(403, _BODIES["page"], refusal=False))
    seen.expect(PermissionDeniedError, charged=UNKNOWN[call], attempts=1, code=None, says="Something between")


_FOREIGN: dict[str, tuple[Any, str]] = {
    "HTML": (b"<html><h1>Blocked by policy</h1></html>", "text/html"),
    "empty": (b"", "text/html"),
    "plain text": (b"Blocked by policy", "text/plain"),
    "other JSON": ({"message": "Function not found"}, "application/json"),
    "the contract's form": ({"error": {"code": "dlp_blocked", "message": "Blocked by policy"}}, "application/json"),
}


@pytest.mark.row("D23")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 451])
@pytest.mark.parametrize("body", _FOREIGN)
@pytest.mark.parametrize("call", CALLS)
def test_someone_elses_refusal(call: Call, body: str, status: int) -> None:
    """What something in between says may stand in the place of an answer that was paid for, whatever its status."""
    content, kind = _FOREIGN[body]
    answer = Answer(status, content, {"Content-Type": kind, "Server": "gate/1.2"}, refusal=False)
    seen = once(ONCE, call, answer)
    expected = {code: found for code, (_, found) in _REFUSALS.items()}.get(status, APIStatusError)
    seen.expect(expected, charged=UNKNOWN[call], attempts=1, status_code=status, from_service=False)
    told = str(seen.error)
    if body == "the contract's form":
        assert f"An answer in LeadLex's form ({status} dlp_blocked): Blocked by policy" in told
    else:
        assert f"Something between here and LeadLex answered {status} (gate/1.2, {kind}): " in told
        assert {"empty": "an empty body", "other JSON": "Function not found"}.get(body, "Blocked by policy") in told
        assert "Check base_url" in told
    for wrong in ("API key lacks", "no AI credits", "Change the request", "Check the id", "Keys look like"):
        assert body == "the contract's form" or wrong not in told


@pytest.mark.row("D01")
@pytest.mark.parametrize("call", ["chat", "stream"])
def test_not_found_without_an_id(call: Call) -> None:
    """A call that names nothing can't be about a wrong id: a 404 points at the base URL."""
    seen = once(ONCE, call, Answer(404, code="not_found"))
    seen.expect(NotFoundError, charged="no", attempts=1, says="Check base_url: it is http://127", from_service=True)


@pytest.mark.row("D03")
@pytest.mark.parametrize("call", ["get", "chat"])
def test_error_at_200(runner: Runner, call: Call) -> None:
    """An error in the body of a 200 is the class of its code, and what it cost is not known."""
    seen = once(runner, call, Answer(200, {"error": {"code": "insufficient_credits", "message": "None left"}}))
    seen.expect(InsufficientCreditsError, charged=UNKNOWN[call], attempts=1, status_code=200, message="None left")


@pytest.mark.row("D04")
def test_json_for_a_stream(runner: Runner) -> None:
    """JSON in the place of a stream is its error, or an answer that can't be used and is shown in part."""
    seen = once(runner, "stream", Answer(200, {"error": {"code": "rate_limited", "message": "Later"}}))
    seen.expect(RateLimitError, charged="unknown", attempts=1, status_code=200)
    seen = once(runner, "stream", Answer(200, {"data": CHAT, "x": "\x1b[2J"}))
    seen.expect(APIResponseError, charged="unknown", attempts=1, says=r"application/json.*Added 20 contacts")
    assert str(seen.error).isprintable()


@pytest.mark.row("D05")
@pytest.mark.parametrize("call", ["chat", "stream"])
def test_credits_run_out(runner: Runner, call: Call) -> None:
    """The second call finds no credits: it is refused, not charged and not repeated."""

    async def ask(lexi: Any) -> Any:
        return await (lexi.chat("Hi") if call == "chat" else lexi.stream_chat("Hi").final_reply())

    async def scenario(lexi: Any) -> None:
        await ask(lexi)
        with pytest.raises(InsufficientCreditsError) as caught:
            await ask(lexi)
        assert caught.value.charged == "no"
        assert "Add credits" in str(caught.value)

    script = spoiled(call, _plain, Answer(402, code="insufficient_credits"), times=1)
    with no_leaks(), must_not_hang(), ScriptedServer(script) as server:
        runner.run(scenario, base_url=server.url, retries=AT_ONCE)
        assert (len(server.requests), server.ledger.credits) == (2, 1)


def _plain(connection: Any, plain: Any) -> None:
    plain.send(connection)


@pytest.mark.row("D22")
@pytest.mark.parametrize("call", CALLS)
def test_key_rotated(runner: Runner, call: Call) -> None:
    """A key that is no longer accepted after good calls is told at once."""

    async def scenario(lexi: Any) -> None:
        ask = {
            "get": lexi.tasks,
            "chat": lambda: lexi.chat("Hi"),
            "stream": lambda: lexi.stream_chat("Hi").final_reply(),
        }
        for _ in range(3):
            await ask[call]()
        with pytest.raises(AuthenticationError, match="Keys look like wbk_") as caught:
            await ask[call]()
        assert caught.value.charged == "no"
        assert API_KEY not in str(caught.value)

    script = spoiled(call, *[_plain] * 3, Answer(401, code="invalid_key"))
    with no_leaks(), must_not_hang(), ScriptedServer(script) as server:
        runner.run(scenario, base_url=server.url, retries=AT_ONCE)
        assert len(server.requests) == 4


# The server's clock ------------------------------------------------------------------------------------------------


@pytest.mark.row("D06")
def test_waits_for_real() -> None:
    """`Retry-After: 1` is waited for, and the call then goes well."""
    seen = once(ONCE, "stream", limited({"Retry-After": "1"}))
    seen.expect(None, attempts=2)
    assert 1.0 <= seen.seconds < 3


@pytest.mark.row("D06")
@pytest.mark.parametrize("call", CALLS)
def test_retry_after(runner: Runner, call: Call, lexi_clock: FakeClock) -> None:
    """Every kind of call waits as long as the service asks, a little more, and is then repeated."""
    once(runner, call, limited({"Retry-After": "7"})).expect(None, attempts=2)
    assert len(lexi_clock.sleeps) == 1
    assert 7.0 <= lexi_clock.sleeps[0] <= 7.7


def _date(form: str) -> str:
    return (datetime.now(UTC) + timedelta(seconds=20)).strftime(form)


_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y", "%d %b %Y %H:%M:%S")


@pytest.mark.row("D07")
@pytest.mark.parametrize("form", _DATES)
def test_retry_after_date(form: str, lexi_clock: FakeClock) -> None:
    """The three forms of an HTTP date, and one without zone or weekday, are times in GMT."""
    once(ONCE, "get", limited({"Retry-After": _date(form)})).expect(None, attempts=2)
    assert 17.0 <= lexi_clock.sleeps[0] <= 21.1


@pytest.mark.row("D07")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "date",
    [
        "Sun, 06 Nov 100000 08:49:37 GMT",
        "Mon, 31 Feb 2026 08:49:37 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Sun, 06 Nov 2094 08:49:37 +99999999",
        "Nonsday, 99 Foo",
    ],
)
def test_retry_after_bad_date(call: Call, date: str, lexi_clock: FakeClock) -> None:
    """A date that is none, or long past, is ignored: the usual backoff, and nothing foreign."""
    once(ONCE, call, limited({"Retry-After": date})).expect(None, attempts=2)
    assert lexi_clock.sleeps[0] <= 0.1


_NO_NUMBERS = ["-1", "nan", "inf", "1e400", "1_000", "\u0665", "+5", "0x10", "9" * 400, "5, 6", "", "1.5", "5 s"]


@pytest.mark.row("D08")
@pytest.mark.parametrize("value", _NO_NUMBERS, ids=lambda value: ascii(value[:12]))
def test_retry_after_no_number(value: str, lexi_clock: FakeClock) -> None:
    """Only one to nine digits are seconds; whatever else Python takes for a number is ignored."""
    head = f"HTTP/1.1 429 No\r\nConnection: close\r\nRetry-After: {value}\r\nContent-Length: 35\r\n\r\n".encode()
    once(ONCE, "stream", Raw(head + b'{"error": {"code": "rate_limited"}}')).expect(None, attempts=2)
    assert lexi_clock.sleeps[0] <= 0.1


@pytest.mark.row("D09")
@pytest.mark.parametrize("call", CALLS)
def test_retry_after_an_hour(runner: Runner, call: Call, lexi_clock: FakeClock) -> None:
    """Nobody sleeps for an hour: the error comes at once and says when to ask again."""
    seen = once(runner, call, limited({"Retry-After": "3600"}))
    seen.expect(RateLimitError, charged="no", attempts=1, retry_after=3600.0, says=r"Ask again in 1 h \(3600 s\)\.")
    assert not lexi_clock.sleeps


@pytest.mark.row("D10")
@pytest.mark.parametrize("call", CALLS)
def test_reset_in_hours(runner: Runner, call: Call, lexi_clock: FakeClock) -> None:
    """A quota that resets at midnight is told at once, with the moment."""
    reset = int(time.time()) + 5 * 3600
    seen = once(runner, call, limited({"X-RateLimit-Reset": str(reset)}))
    seen.expect(RateLimitError, charged="no", attempts=1, reset_at=datetime.fromtimestamp(reset, UTC))
    assert 5 * 3600 - 30 < seen.error.retry_after <= 5 * 3600
    assert seen.error.reset_at.tzinfo is not None
    assert not lexi_clock.sleeps


@pytest.mark.row("D11")
@pytest.mark.parametrize("call", CALLS)
def test_reset_soon(call: Call, lexi_clock: FakeClock) -> None:
    """A reset within a minute is waited for."""
    once(ONCE, call, limited({"X-RateLimit-Reset": str(int(time.time()) + 13)})).expect(None, attempts=2)
    assert 10.0 <= lexi_clock.sleeps[0] <= 14.5


@pytest.mark.row("D12")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "reset", ["1708905600", "1708905600000", "-5", "soon", "253402300799", "1.7e9", "99999999999999999999", ""]
)
def test_reset_nonsense(call: Call, reset: str, lexi_clock: FakeClock) -> None:
    """A reset that can't be meant is ignored, and can still be read as it was sent."""
    seen = once(ONCE, call, limited({"X-RateLimit-Reset": reset}), times=3)
    seen.expect(RateLimitError, charged="no", attempts=3, retry_after=None, reset_at=None)
    assert seen.error.meta.headers["x-ratelimit-reset"] == reset
    assert max(lexi_clock.sleeps) <= 0.1


@pytest.mark.row("D13")
@pytest.mark.parametrize("call", CALLS)
def test_quota_is_left(call: Call, lexi_clock: FakeClock) -> None:
    """Where requests are left it was another limiter, whose end the quota's reset does not tell."""
    headers = {"X-RateLimit-Remaining": "12", "X-RateLimit-Reset": str(int(time.time()) + 30)}
    once(ONCE, call, limited(headers)).expect(None, attempts=2)
    assert lexi_clock.sleeps[0] <= 0.1


# Who refused, and may it be repeated? ------------------------------------------------------------------------------


@pytest.mark.row("D14")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("refusal", [True, False], ids=["refused", "done all the same"])
def test_someone_elses_429(runner: Runner, call: Call, *, refusal: bool) -> None:
    """A 429 that is not in the service's own words proves no refusal: `chat` is not repeated."""
    attempts = 1 if call == "chat" else 3
    page = Answer(429, b"<html>Slow down", {"Content-Type": "text/html"}, refusal=refusal)
    seen = once(runner, call, page, times=attempts)
    seen.expect(RateLimitError, charged=UNKNOWN[call], attempts=attempts, code=None, status_code=429)


@pytest.mark.row("D15")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_error(call: Call, status: int) -> None:
    """What may have acted is not repeated, what can't act twice is."""
    attempts = 1 if call == "chat" else 3
    seen = once(ONCE, call, Answer(status), times=attempts)
    seen.expect(ServerError, charged=UNKNOWN[call], attempts=attempts, status_code=status, code="internal_error")


@pytest.mark.row("D15")
@pytest.mark.parametrize("call", ["get", "stream"])
def test_server_error_passes(runner: Runner, call: Call) -> None:
    """An error that passes is not seen; the question is charged once."""
    once(runner, call, Answer(500), Answer(503)).expect(None, attempts=3)


@pytest.mark.row("D15")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [501, 505, 599])
def test_server_error_that_stays(call: Call, status: int) -> None:
    """An error that will not pass is not asked for again."""
    once(ONCE, call, Answer(status)).expect(ServerError, charged=UNKNOWN[call], attempts=1, status_code=status)


@pytest.mark.row("D16")
@pytest.mark.parametrize("call", CALLS)
def test_unavailable_for_a_while(runner: Runner, call: Call, lexi_clock: FakeClock) -> None:
    """A 503 that says how long is believed, by the calls that may be repeated."""
    seen = once(runner, call, Answer(503, headers={"Retry-After": "20"}))
    if call == "chat":
        seen.expect(ServerError, charged="unknown", attempts=1)
        assert not lexi_clock.sleeps
    else:
        seen.expect(None, attempts=2)
        assert 20.0 <= lexi_clock.sleeps[0] <= 21.0


@pytest.mark.row("D16")
@pytest.mark.parametrize("call", ["get", "stream"])
def test_unavailable_for_an_hour(call: Call, lexi_clock: FakeClock) -> None:
    """A 503 for an hour is told at once."""
    seen = once(ONCE, call, Answer(503, headers={"Retry-After": "3600"}))
    seen.expect(ServerError, charged=UNKNOWN[call], attempts=1)
    assert not lexi_clock.sleeps


@pytest.mark.row("D17")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [408, 425])
def test_too_early_or_late(runner: Runner, call: Call, status: int) -> None:
    """408 and 425 are repeated as errors of the server are."""
    if call == "chat":
        once(runner, call, Answer(status)).expect(APIStatusError, charged="unknown", attempts=1, status_code=status)
    else:
        once(runner, call, Answer(status)).expect(None, attempts=2)


@pytest.mark.row("D18")
def test_in_flight(runner: Runner, lexi_clock: FakeClock) -> None:
    """A stream whose first request still runs is asked for again every second; that counts as no attempt."""
    conflict = Answer(409, code="conflict", refusal=True)
    once(runner, "stream", *[conflict] * 8).expect(None, attempts=9)
    assert all(1.0 <= each <= 2.0 for each in lexi_clock.sleeps)


@pytest.mark.row("D18")
def test_in_flight_for_ever(lexi_clock: FakeClock) -> None:
    """When the window ends, what is in flight is told as it is: charged perhaps."""
    seen = once(ONCE, "stream", Answer(409, code="conflict", refusal=True), times=200)
    seen.expect(ConflictError, charged="unknown", status_code=409)
    assert 55 <= sum(lexi_clock.sleeps) <= 60


@pytest.mark.row("D18")
@pytest.mark.parametrize("call", ["get", "chat"])
def test_conflict_elsewhere(call: Call) -> None:
    """Without a key there is nothing to wait for."""
    once(ONCE, call, Answer(409, code="conflict")).expect(ConflictError, attempts=1)


@pytest.mark.row("D18")
@pytest.mark.parametrize("call", CALLS)
def test_other_body(runner: Runner, call: Call) -> None:
    """A 422 with a word that the contract does not know is not repeated, and proves no refusal."""
    seen = once(runner, call, Answer(422, code="idempotency_mismatch", refusal=False))
    seen.expect(APIStatusError, charged=UNKNOWN[call], attempts=1, status_code=422, from_service=False)


@pytest.mark.row("D18")
@pytest.mark.parametrize(
    ("status", "code"), [(422, "idempotency_key_reused"), (409, "idempotency_key_reused"), (422, "validation_error")]
)
def test_key_of_another_body(runner: Runner, status: int, code: str) -> None:
    """A key that came with another body before has an error of its own: this request was refused and cost nothing."""
    seen = once(runner, "stream", Answer(status, code=code, refusal=True))
    seen.expect(IdempotencyError, charged="no", attempts=1, status_code=status, code=code, from_service=True)
    assert f"idempotency_key={seen.error.idempotency_key!r}, which is not charged again" in str(seen.error)
    assert "without that key, which is a new charge" in str(seen.error)


@pytest.mark.row("D18")
@pytest.mark.parametrize("call", CALLS)
def test_conflict_of_another(runner: Runner, call: Call) -> None:
    """A 409 or a 422 from something in between is nobody's word on an idempotency key."""
    for status, kind in ((409, ConflictError), (422, APIStatusError)):
        seen = once(runner, call, Answer(status, b"<html>No", {"Content-Type": "text/html"}, refusal=False))
        seen.expect(kind, charged=UNKNOWN[call], attempts=1, from_service=False)


@pytest.mark.row("D19")
def test_storm(lexi_clock: FakeClock) -> None:
    """A thousand calls that are all refused make at most 1,150 requests."""

    async def scenario(lexi: AsyncLeadLex) -> None:
        for _ in range(1000):
            with pytest.raises(RateLimitError):
                await lexi.chat("Hi")

    with no_leaks(), must_not_hang(60), ScriptedServer(spoiled("chat", limited(), times=2000)) as server:
        ONCE.run(scenario, base_url=server.url)
        assert 1000 < len(server.requests) <= 1150
        assert server.ledger.credits == 0
    assert max(lexi_clock.sleeps) <= 8


# Credits -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("D20")
@pytest.mark.parametrize(
    ("told", "known"),
    [(-3, -3), (0, 0), (4.5, None), ("12", None), (True, None), ([], None), (None, None), (10**30, 10**30)],
    ids=repr,
)
def test_strange_credits(runner: Runner, told: object, known: int | None, caplog: pytest.LogCaptureFixture) -> None:
    """A paid answer is never lost to the field that tells the balance: a whole number is kept, all else is None."""
    stream = encode_event(("text", {"delta": CAPTURE_TEXT})) + encode_event(
        ("done", {"message_id": "msg_1", "credits_remaining": told})
    )
    with ScriptedServer(LexiScript(stream=stream)) as server:
        seen = observe(runner, "stream", server)
    seen.expect(None, attempts=1)
    assert (seen.value.credits_remaining, seen.charged) == (known, "yes")
    ignored = ("leadlex", 30, "ignored field=credits_remaining") in caplog.record_tuples
    assert ignored == (known is None and told is not None)


@pytest.mark.row("D20")
def test_strange_credits_of_chat(runner: Runner) -> None:
    """The same holds for `chat`."""
    with ScriptedServer(LexiScript(bodies={"chat": {"data": {**CHAT, "credits_remaining": "many"}}})) as server:
        seen = observe(runner, "chat", server)
    seen.expect(None, attempts=1)
    assert seen.value.credits_remaining is None


# Redirects ---------------------------------------------------------------------------------------------------------

_PLACES = [
    "/v1/lexi/chat",
    "https://evil.example/",
    "http://data.leadlex.com/",
    "",
    "https://user:secret@evil.example/",
    "javascript:alert(1)",
    "http://[::1",
    "//evil.example",
    "https://evil.example:99999/",
    "\x1b[2J",
    "x" * 5000,
    None,
]


@pytest.mark.row("D21")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "place"),
    [
        *((307, place) for place in _PLACES),
        *((status, "https://evil.example/") for status in (300, 301, 302, 303, 308)),
    ],
    ids=lambda value: ascii(value)[:24],
)
def test_redirect(call: Call, status: int, place: str | None) -> None:
    """No redirect is followed, wherever it goes: the key stays here, and the place is told on one line."""
    headers = {} if place is None else {"Location": place}
    with ScriptedServer(spoiled(call, Answer(status, b"", headers, refusal=True))) as server:
        seen = observe(ONCE, call, server)
        assert len(server.requests) == 2  # the second is the oracle's own
    seen.expect(APIResponseError, charged=UNKNOWN[call], attempts=1, says="redirect")
    assert str(seen.error).isprintable()
    assert len(str(seen.error)) < 800


@pytest.mark.row("D21")
@pytest.mark.parametrize("call", CALLS)
def test_redirect_on_each_runner(runner: Runner, call: Call) -> None:
    """A redirect to this very server is not followed either, by any client."""
    with ScriptedServer(spoiled(call, Answer(307, b"", {"Location": "/"}))) as server:
        seen = observe(runner, call, server)
        seen.expect(APIResponseError, charged=UNKNOWN[call], attempts=1, says="redirect to /, which")
        assert [request.path for request in server.requests if request.path == "/"] == []

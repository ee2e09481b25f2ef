"""Faults that are scripted: each happens once, to the request that it is for."""

import time

import httpx
import pytest

from leadlex.sandbox import Sandbox
from tests.support.runners import wait_until

from .conftest import KEY, STREAM, ask, code_of, said, stream

JANE = {"message": "Where is Jane Doe?"}


def receive(http: httpx.Client) -> tuple[bytes, Exception | None]:
    """Stream, and give what came and what ended it."""
    received = b""
    try:
        with http.stream("POST", STREAM, json=JANE, headers={"Idempotency-Key": KEY}) as answer:
            for chunk in answer.iter_raw():
                received += chunk
    except httpx.TransportError as error:
        return received, error
    return received, None


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("after_bytes", [0, 1, 76, 77, 120, 400])
def test_drop_stream_cuts_after_so_many_bytes(
    sandbox: Sandbox, http: httpx.Client, after_bytes: int, *, reset: bool
) -> None:
    """Exactly these bytes arrive, then the connection is gone; the next request gets the whole."""
    sandbox.fail_next("drop_stream", after_bytes=after_bytes, reset=reset)
    received, error = receive(http)
    assert isinstance(error, httpx.ReadError if reset else httpx.RemoteProtocolError)
    assert len(received) == after_bytes
    whole, error = receive(http)
    assert error is None
    assert whole.startswith(received)
    assert len(sandbox.charges) == 1
    assert [(seen.fault, seen.disconnected) for seen in sandbox.requests] == [
        ("drop_stream", False),
        (None, False),
    ]


def test_drop_stream_after_the_last_byte(sandbox: Sandbox, http: httpx.Client) -> None:
    """The whole stream, without the end of its transfer; one byte more is never reached."""
    whole, _ = receive(http)
    sandbox.fail_next("drop_stream", after_bytes=len(whole))
    received, error = receive(http)
    assert (received, type(error)) == (whole, httpx.RemoteProtocolError)
    sandbox.fail_next("drop_stream", after_bytes=len(whole) + 1)
    assert receive(http) == (whole, None)


def test_stall_goes_silent(sandbox: Sandbox, http: httpx.Client) -> None:
    """The bytes arrive, then nothing, on a connection that stays open; the client's leaving is seen."""
    sandbox.fail_next("stall", after_bytes=100)
    http.timeout = httpx.Timeout(10, read=0.2)
    received, error = receive(http)
    assert (len(received), type(error)) == (100, httpx.ReadTimeout)
    wait_until(lambda: sandbox.requests[0].disconnected)
    assert sandbox.requests[0].fault == "stall"


def test_error_event_ends_the_stream(sandbox: Sandbox, http: httpx.Client) -> None:
    """The event comes instead of the rest, at the border of an event."""
    sandbox.fail_next("error_event", code="overloaded", message="Too much", after_bytes=100)
    events = stream(http, "Where is Jane Doe?")
    assert [event for event, _ in events] == ["thinking", "tool_step", "error"]
    assert events[-1][1] == {"code": "overloaded", "message": "Too much"}
    sandbox.fail_next("error_event")
    assert stream(http, "Where is Jane Doe?") == [
        ("error", {"code": "internal_error", "message": "Something went wrong"})
    ]
    assert said(stream(http, "hello"))


def test_error_event_also_in_a_replay(sandbox: Sandbox, http: httpx.Client) -> None:
    """A recorded stream has the same events, so the same place for the error."""
    stream(http, "Where is Jane Doe?", key=KEY)
    sandbox.fail_next("error_event", after_bytes=100)
    assert len(stream(http, "Where is Jane Doe?", key=KEY)) == 3


def test_rate_limit(sandbox: Sandbox, http: httpx.Client) -> None:
    """429 until midnight, or for as long as Retry-After says."""
    sandbox.fail_next("rate_limit")
    sandbox.fail_next("rate_limit", retry_after=3)
    until_midnight, for_seconds = http.get("/v1/lexi/tasks"), http.get("/v1/lexi/tasks")
    assert code_of(until_midnight) == code_of(for_seconds) == (429, "rate_limited")
    assert until_midnight.headers["X-RateLimit-Remaining"] == "0"
    assert int(until_midnight.headers["X-RateLimit-Reset"]) > time.time() - 1
    assert "Retry-After" not in until_midnight.headers
    assert for_seconds.headers["Retry-After"] == "3"
    assert for_seconds.headers["X-RateLimit-Remaining"] != "0"
    assert http.get("/v1/lexi/tasks").status_code == 200


def test_refusals_cost_nothing(sandbox: Sandbox, http: httpx.Client) -> None:
    """402 and 5xx come before any work, with the headers that all answers have."""
    sandbox.fail_next("no_credits")
    sandbox.fail_next("server_error")
    sandbox.fail_next("server_error", status=503)
    answers = [http.post("/v1/lexi/chat", json=JANE) for _ in range(3)]
    assert [code_of(answer) for answer in answers] == [
        (402, "insufficient_credits"),
        (500, "internal_error"),
        (503, "internal_error"),
    ]
    assert all("X-Request-ID" in answer.headers for answer in answers)
    assert sandbox.charges == []


def test_slow_waits(sandbox: Sandbox, http: httpx.Client) -> None:
    """The answer comes, but not before its time."""
    sandbox.fail_next("slow", seconds=0.1)
    begun = time.monotonic()
    ask(http, "hello")
    assert time.monotonic() - begun >= 0.1


def test_faults_of_streams_wait_for_a_stream(sandbox: Sandbox, http: httpx.Client) -> None:
    """Another request passes by them, and may meet a later fault."""
    sandbox.fail_next("drop_stream")
    sandbox.fail_next("server_error")
    assert http.get("/v1/lexi/tasks").status_code == 500
    assert http.get("/v1/lexi/tasks").status_code == 200
    assert isinstance(receive(http)[1], httpx.RemoteProtocolError)


def test_unknown_faults_are_refused_at_once(sandbox: Sandbox) -> None:
    """A wrong kind is told the right ones, a wrong option is a TypeError."""
    with pytest.raises(ValueError, match=r"'explode'.*drop_stream.*no_credits.*slow.*stall"):
        sandbox.fail_next("explode")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="after_bites"):
        sandbox.fail_next("stall", after_bites=5)

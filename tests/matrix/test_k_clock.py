"""Table K of the fault matrix: clocks that jump, are wrong, are missing, or slept."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from leadlex import APITimeoutError, RateLimitError, RetryPolicy, ServerError, StreamInterruptedError, Timeout
from tests.matrix.oracles import CALLS, Call, observe, spoiled
from tests.support.captures import CAPTURE, CAPTURE_TEXT
from tests.support.lexi import Answer, Cut, LexiScript, Plain
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.times import TimedRunner, Turned

HOUR = 3600.0
DAY = 24 * HOUR
FIRST = "Jane Doe is currently"
PLACE = CAPTURE.index(b"in the Proposal")


class Throttled:
    """Answer 429 with fields that depend on when it is sent.

    Args:
        fields: Gives them, from the server's Unix time.
    """

    charges = False

    def __init__(self, fields: Callable[[float], dict[str, str]]) -> None:
        self._fields = fields

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        headers = {"X-RateLimit-Remaining": "0", **self._fields(time.time())}
        Answer(429, headers=headers, code="rate_limited")(connection, plain)


def http_date(moment: float) -> str:
    """Write a moment as HTTP does."""
    return format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)


@pytest.mark.row("K01")
@pytest.mark.parametrize("jump", [DAY, -DAY])
@pytest.mark.parametrize("call", CALLS)
def test_wall_clock_jumps(runner: Runner, call: Call, jump: float) -> None:
    """Whoever sets the machine's clock during a pause changes nothing: no deadline goes by it."""
    clock = Turned(meanwhile=lambda clock: setattr(clock, "wall_ahead", clock.wall_ahead + jump))
    refusal = Answer(429, headers={"Retry-After": "1"}, code="rate_limited")
    with ScriptedServer(spoiled(call, refusal, times=2)) as server:
        observe(TimedRunner(runner, clock), call, server, timeout=Timeout(total=8)).expect(None, attempts=3)
    assert all(1 <= pause <= 1.1 for pause in clock.sleeps)
    assert len(clock.sleeps) == 2


@pytest.mark.row("K02")
@pytest.mark.parametrize("wrong", [5 * HOUR, -5 * HOUR, 40 * HOUR])
def test_wrong_clock(runner: Runner, wrong: float) -> None:
    """On a machine whose clock is hours off, moments are counted from the service's own `Date`."""
    clock = Turned()
    clock.wall_ahead = wrong
    moments = (
        Throttled(lambda now: {"Date": http_date(now), "X-RateLimit-Reset": str(int(now) + 4)}),
        Throttled(lambda now: {"Date": http_date(now), "Retry-After": http_date(now + 4)}),
    )
    with ScriptedServer(spoiled("stream", *moments)) as server:
        observe(TimedRunner(runner, clock), "stream", server, timeout=Timeout()).expect(None, attempts=3)
    assert all(3 <= pause <= 4.5 for pause in clock.sleeps)
    assert len(clock.sleeps) == 2


@pytest.mark.row("K02")
def test_wrong_clock_and_a_far_reset(runner: Runner) -> None:
    """So a reset that lies nine hours ahead is not taken for one that is over."""
    clock = Turned()
    clock.wall_ahead = 9 * HOUR
    far = Throttled(lambda now: {"Date": http_date(now), "X-RateLimit-Reset": str(int(now + 9 * HOUR))})
    with ScriptedServer(spoiled("chat", far)) as server:
        seen = observe(TimedRunner(runner, clock), "chat", server)
        seen.expect(RateLimitError, charged="no", attempts=1)
    assert isinstance(seen.error, RateLimitError)
    assert seen.error.retry_after == pytest.approx(9 * HOUR, abs=2)
    assert clock.sleeps == []


@pytest.mark.row("K03")
@pytest.mark.parametrize(
    "date", [None, "yesterday", http_date(0), http_date(4e9), "Thu, 31 Feb 2026 00:00:00 GMT", "", "١٢"]
)
def test_no_date(runner: Runner, date: str | None) -> None:
    """Without a `Date` that can be believed the machine's own clock counts."""

    def fields(now: float) -> dict[str, str]:
        said = {} if date is None else {"Date": date.encode().decode("latin-1")}
        return {**said, "X-RateLimit-Reset": str(int(now) + 4)}

    clock = Turned()
    with ScriptedServer(spoiled("get", Throttled(fields))) as server:
        observe(TimedRunner(runner, clock), "get", server, timeout=Timeout()).expect(None, attempts=2)
    [pause] = clock.sleeps
    assert 2.5 <= pause <= 4.5


@pytest.mark.row("K03")
@pytest.mark.parametrize("away", [-HOUR, 49 * HOUR])
def test_absurd_reset(runner: Runner, away: float) -> None:
    """A reset that is long over, or days ahead, is nobody's: the own backoff counts."""
    clock = Turned()
    reset = Throttled(lambda now: {"X-RateLimit-Reset": str(int(now + away))})
    with ScriptedServer(spoiled("get", reset)) as server:
        observe(TimedRunner(runner, clock), "get", server).expect(None, attempts=2)
    [pause] = clock.sleeps
    assert pause <= 0.05


class TestSuspended:
    """The machine was asleep, and its clock of the time since boot went on."""

    def _told(self, runner: Runner, script: LexiScript, slept: float, **options: Any) -> Any:
        """Read a stream, with a sleep of the machine behind its first event."""
        told, clock = list[Any](), Turned()

        async def scenario(lexi: Any) -> None:
            stream = lexi.stream_chat("Hi")
            try:
                await anext(stream)
                clock.advance(slept)
                server.release()
                await stream.final_reply()
            except StreamInterruptedError as error:
                told.append(error)
            told.append(stream)

        with ScriptedServer(script) as server, no_leaks(), must_not_hang():
            TimedRunner(runner, clock).run(scenario, base_url=server.url, **options)
            assert server.ledger.worst == 1
        return told

    @pytest.mark.row("K04")
    def test_goes_on(self, runner: Runner) -> None:
        """A stream that is still there when the machine wakes up goes on: nobody waited for all that time."""
        [stream] = self._told(runner, LexiScript(stream_fault=_Held()), 3 * HOUR)
        assert (stream.reply.response, stream.resumes) == (CAPTURE_TEXT, 0)

    @pytest.mark.row("K04")
    def test_continued(self, runner: Runner) -> None:
        """One that died meanwhile is found silent by `idle`, and continued."""
        script = LexiScript(stream_fault=Cut(PLACE, "stall"))
        [stream] = self._told(runner, script, 3 * HOUR, timeout=Timeout(idle=0.3), retries=RetryPolicy(base=0.01))
        assert (stream.reply.response, stream.resumes) == (CAPTURE_TEXT, 1)

    @pytest.mark.row("K04")
    def test_total(self, runner: Runner) -> None:
        """`total` is over with the next event when the machine wakes up behind its end."""
        script = LexiScript(stream_fault=_Held(stall=True))
        error, stream = self._told(runner, script, 3 * HOUR, timeout=Timeout(total=60))
        assert isinstance(error.__cause__, APITimeoutError)
        assert (error.__cause__.clock, error.charged, stream.resumes) == ("total", "unknown", 0)

    @pytest.mark.row("K05")
    def test_key_is_old(self, runner: Runner) -> None:
        """A stream that breaks 23 hours after it began is not continued: the service may have forgotten its key."""
        script = LexiScript(stream_fault=_Held(cut=True))
        error, stream = self._told(runner, script, 23 * HOUR + 60)
        assert (error.partial.response, error.charged, stream.resumes) == (FIRST, "unknown", 0)
        [stream] = self._told(runner, LexiScript(stream_fault=_Held(cut=True)), 22 * HOUR)
        assert (stream.reply.response, stream.resumes) == (CAPTURE_TEXT, 1)


class _Held:
    """Send the first event, and the rest once the test says so."""

    def __init__(self, *, cut: bool = False, stall: bool = False) -> None:
        self._cut = cut
        self._stall = stall

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(plain.head, plain.frame(plain.body[0]))
        connection.wait_for()
        if self._stall:
            connection.send(plain.frame(plain.body[1]))
            connection.stall()
        if self._cut:
            connection.send(*map(plain.frame, plain.body[1:4]))
            connection.fin()
        else:
            connection.send(*map(plain.frame, plain.body[1:]))
            plain.end(connection)


@pytest.mark.row("K05")
@pytest.mark.parametrize("window", [60.0, 200 * HOUR])
def test_overslept(runner: Runner, window: float) -> None:
    """A process that slept for a day between two attempts sends no second one, however wide its window is."""
    clock = Turned(meanwhile=lambda clock: clock.advance(25 * HOUR))
    with ScriptedServer(spoiled("stream", Answer(503), times=9)) as server:
        policy = RetryPolicy(base=0.01, window=window)
        seen = observe(TimedRunner(runner, clock), "stream", server, retries=policy, timeout=Timeout())
        seen.expect(ServerError, charged="unknown", attempts=1)
    assert len(clock.sleeps) == 1

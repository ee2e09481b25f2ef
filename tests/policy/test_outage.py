"""A stream that was paid for outlasts an outage: the service is gone for seconds, or cuts all streams at once."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from leadlex import RetryPolicy, StreamInterruptedError, Timeout, aiohttp_client
from tests.support.captures import CAPTURE, CAPTURE_TEXT
from tests.support.lexi import Answer, Cut, Fault, LexiScript
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner, wait_until
from tests.support.server import ScriptedServer
from tests.support.times import TimedRunner, Turned

ASYNC = AsyncRunner("asyncio")
#: After the head, after a thought, inside of the second piece of text.
PLACES = {"head": 0, "thought": CAPTURE.index(b"\n\n") + 2, "text": CAPTURE.index(b"in the Proposal")}
#: The default policy, but for pauses that suit an outage of a tenth of a second.
HASTY = RetryPolicy(base=0.02, floor=0.01, cap=0.1)


@contextlib.contextmanager
def outage(seconds: float, streams: int = 1, place: str = "text") -> Generator[tuple[str, Callable[[], None]]]:
    """Serve streams that stop at a place; once all do, be gone for some seconds, and come back with one's memory.

    Args:
        seconds: How long nobody listens.
        streams: How many streams there are.
        place: Where they stop.

    Gives the URL, and a check that each question was charged once.
    """
    script = LexiScript(stream_fault=Cut(PLACES[place], "stall"), times=streams)
    before = ScriptedServer(script)
    before.start()
    after: list[ScriptedServer] = []

    def fail() -> None:
        wait_until(lambda: before.stalls >= streams)
        before.stop()
        time.sleep(seconds)
        after.append(ScriptedServer(script, port=before.port, journal=before.journal))
        after[0].start()

    def check() -> None:
        charges = before.ledger.by_call
        assert (len(charges), set(charges.values())) == (streams, {1})

    thread = threading.Thread(target=fail)
    thread.start()
    try:
        yield before.url, check
    finally:
        thread.join()
        after[0].stop()


async def ask(runner: Runner, lexi: Any, streams: int) -> list[Any]:
    """Ask several questions at once, and give the texts or errors."""

    def one(number: int) -> Callable[[], Any]:
        async def main() -> str:
            reply = await lexi.stream_chat(f"Question {number}").final_reply()
            return str(reply.response)

        return main

    return await runner.together(*map(one, range(streams)))


def survive(runner: Runner, seconds: float, streams: int = 1, place: str = "text", **options: Any) -> None:
    """Go through an outage, and check that all answers are whole and were charged once."""

    async def scenario(lexi: Any) -> list[Any]:
        return await ask(runner, lexi, streams)

    with no_leaks(), must_not_hang(90), outage(seconds, streams, place) as (url, check):
        answers = runner.run(scenario, base_url=url, **options)
        assert [answer for answer in answers if answer != CAPTURE_TEXT] == []
        check()


@pytest.mark.row("G16")
@pytest.mark.parametrize("place", PLACES)
def test_a_stream_outlasts_an_outage(runner: Runner, place: str) -> None:
    """A stream whose head was read is continued once the service is back, however often it was not there."""
    survive(runner, 0.4, place=place, retries=HASTY)


@pytest.mark.row("G16")
def test_64_streams_outlast_an_outage() -> None:
    """So are 64 at once: who continues what was paid for takes nothing from the quota of retries."""
    survive(ASYNC, 0.4, streams=64, retries=HASTY)


@pytest.mark.row("G16")
def test_no_retries_are_needed() -> None:
    """`retries=0` is about calls that were not answered; a stream under way is continued all the same."""
    survive(ASYNC, 0.1, retries=0)


@pytest.mark.row("G16")
@pytest.mark.parametrize("asked", ["0", "120", "86400"])
def test_a_page_meanwhile_is_not_obeyed(runner: Runner, asked: str) -> None:
    """A maintenance page that asks to come back in an hour, or at once, neither ends a paid stream nor hurries it."""
    page = Answer(503, b"<html>Down</html>", {"Content-Type": "text/html", "Retry-After": asked}, refusal=False)
    script = LexiScript(stream_fault=(Cut(PLACES["text"]), page, page))
    clock = Turned()

    async def scenario(lexi: Any) -> None:
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

    with no_leaks(), must_not_hang(), ScriptedServer(script) as server:
        TimedRunner(runner, clock).run(scenario, base_url=server.url)
        assert (len(server.requests), server.ledger.worst) == (4, 1)
    assert all(0.05 <= seconds <= 8 for seconds in clock.sleeps)


@pytest.mark.row("G16")
def test_a_page_meanwhile_that_asks_for_little(runner: Runner) -> None:
    """A page that asks for a time which the user allows gets it: whoever sent it may know when the service is back."""
    page = Answer(503, b"<html>Down</html>", {"Content-Type": "text/html", "Retry-After": "20"}, refusal=False)
    clock = Turned()

    async def scenario(lexi: Any) -> None:
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

    script = LexiScript(stream_fault=(Cut(PLACES["text"]), page))
    with no_leaks(), must_not_hang(), ScriptedServer(script) as server:
        TimedRunner(runner, clock).run(scenario, base_url=server.url)
    assert [seconds >= 20 for seconds in clock.sleeps] == [False, True]


@pytest.mark.row("G16")
@pytest.mark.parametrize("place", ["thought", "text"])
@pytest.mark.parametrize("streams", [64, 256])
def test_all_streams_cut_at_once(streams: int, place: str) -> None:
    """A service that cuts all its streams and is well gets all of them again, each charged once."""
    cut = LexiScript(stream_fault=Cut(PLACES[place], "rst"), times=streams)

    async def scenario(lexi: Any) -> list[Any]:
        return await ask(ASYNC, lexi, streams)

    with no_leaks(), must_not_hang(60), ScriptedServer(cut) as server:
        answers = ASYNC.run(scenario, base_url=server.url, retries=RetryPolicy(base=0.05))
        assert [answer for answer in answers if answer != CAPTURE_TEXT] == []
        assert (len(server.ledger.by_call), server.ledger.worst) == (streams, 1)


@pytest.mark.row("G17")
def test_each_outage_has_its_own_window(runner: Runner) -> None:
    """A second outage long after the first is an outage of its own, once something new was handed out between."""
    clock = Turned()

    def long_after(fault: Fault) -> Fault:
        def wait_and_fail(connection: Any, plain: Any) -> None:
            clock.advance(90)
            fault(connection, plain)

        return wait_and_fail

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat("Hi")
        reply = await stream.final_reply()
        assert (reply.response, stream.resumes) == (CAPTURE_TEXT, 2)

    faults = [long_after(Cut(PLACES[place])) for place in ("thought", "text")]
    with ScriptedServer(LexiScript(stream_fault=faults)) as server:
        TimedRunner(runner, clock).run(scenario, base_url=server.url, timeout=Timeout(total=None))
        assert server.ledger.worst == 1


@pytest.mark.row("G17")
def test_an_outage_that_lasts(runner: Runner) -> None:
    """When the window of a minute is over, the error has the idempotency key, and what came."""
    clock = Turned()

    async def scenario(lexi: Any) -> None:
        with pytest.raises(StreamInterruptedError) as caught:
            await lexi.stream_chat("Hi").final_reply()
        error = caught.value
        assert error.partial is not None
        assert CAPTURE_TEXT.startswith(error.partial.response)
        assert f"idempotency_key={error.idempotency_key!r}" in str(error)
        assert error.charged == "unknown"
        assert {each.failure for each in error.attempt_log} == {"cut", "connect"}

    server = ScriptedServer(LexiScript(stream_fault=_last_words))
    server.start()
    with no_leaks(), must_not_hang():
        TimedRunner(runner, clock).run(scenario, base_url=server.url)
    assert 40 < sum(clock.sleeps) <= 60
    server.stop()


def _last_words(connection: Any, plain: Any) -> None:
    """Answer in part, and be gone for good."""
    connection._server._listener.shutdown(socket.SHUT_RDWR)  # nobody listens from here on
    Cut(PLACES["text"], "rst")(connection, plain)


# Long runs ---------------------------------------------------------------------------------------------------------

TRANSPORTS: dict[str, dict[str, Any]] = {"httpcore": {}, "aiohttp": {"http_client": aiohttp_client}}


@pytest.mark.heavy
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 2.0, 3.0, 5.0])
def test_twenty_outages(seconds: float, transport: str) -> None:
    """Twenty streams, one after the other, each through an outage, with the default policy: all whole."""
    for _ in range(20):
        survive(ASYNC, seconds, **TRANSPORTS[transport])


@pytest.mark.heavy
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 2.0, 3.0, 5.0])
def test_64_streams_in_each_outage(seconds: float, transport: str) -> None:
    """Sixty-four streams at once through an outage, with the default policy: all whole."""
    survive(ASYNC, seconds, streams=64, **TRANSPORTS[transport])


@pytest.mark.heavy
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ninety_seconds(transport: str) -> None:
    """An outage of 90 seconds ends in an honest error within 65."""

    async def scenario(lexi: Any) -> float:
        began = time.monotonic()
        with pytest.raises(StreamInterruptedError) as caught:
            await lexi.stream_chat("Hi").final_reply()
        assert caught.value.idempotency_key
        return time.monotonic() - began

    with outage(90) as (url, check):
        took = ASYNC.run(scenario, base_url=url, **TRANSPORTS[transport])
        check()
    assert 50 < took < 65, took

"""Table G of the fault matrix: a stream that breaks, stalls, drips or is not read.

Rows G03 and G11 are in tests/policy/test_resume.py.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from attrs import evolve

from leadlex import (
    APIConnectionError,
    APITimeoutError,
    StreamDivergedError,
    StreamInterruptedError,
    TextDelta,
    Timeout,
)
from tests.matrix.oracles import AT_ONCE, CALLS, Call, Seen, attempt, check_secrets, observe, spoiled
from tests.support.answers import sse_head
from tests.support.captures import CAPTURE, CAPTURE_TEXT, encode_event, reword
from tests.support.lexi import Cut, Fault, LexiScript, Plain, Raw
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import OVER_AIOHTTP, AsyncRunner, Runner, wait_until
from tests.support.server import Connection, ScriptedServer, per_connection

FIRST = "Jane Doe is currently"
#: Behind the first delta, inside of the second.
PLACE = CAPTURE.index(b"in the Proposal")


def clock_of(seen: Seen) -> str:
    """Name the clock that ended a stream."""
    assert isinstance(seen.error, StreamInterruptedError)
    assert isinstance(seen.error.__cause__, APITimeoutError)
    assert seen.error.__cause__.clock in str(seen.error)
    return seen.error.__cause__.clock


class TestBroken:
    """The connection breaks."""

    @pytest.mark.row("G01", "G02")
    @pytest.mark.parametrize("fault", [Cut(PLACE, "rst"), Cut(PLACE, "fin"), Cut(PLACE, "fin", inside_chunk=True)])
    @pytest.mark.parametrize("resume", [True, False])
    def test_cut(self, runner: Runner, fault: Fault, *, resume: bool) -> None:
        """A stream that breaks is continued, or says what it has where that is switched off."""
        with ScriptedServer(spoiled("stream", fault)) as server:
            seen = observe(runner, "stream", server, resume=resume)
            if resume:
                seen.expect(None, attempts=2, text=CAPTURE_TEXT)
                assert (seen.charged, seen.resumes) == ("yes", 1)
            else:
                seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text=FIRST)
                assert type(seen.error.__cause__) is APIConnectionError  # type: ignore[union-attr]  # it is an error

    @pytest.mark.row("G09")
    @pytest.mark.parametrize("resume", [True, False])
    def test_vanished(self, runner: Runner, *, resume: bool) -> None:
        """A peer that vanished without a word is given up after `idle`, and asked again; once it is back it answers."""
        timeout = Timeout(idle=0.25, first_event=0.35)
        with ServerProcess(LexiScript(stream_fault=Cut(PLACE, "stall"))) as server, _at_text(server, server.pause):
            back = partial(_resumed, server)
            seen = observe(runner, "stream", server, resume=resume, timeout=timeout, healed=back)
            seen.expect(StreamInterruptedError, charged="unknown", text=FIRST)
            assert clock_of(seen) == ("first_event" if resume else "idle")
            assert seen.resumes == 2 * resume

    @pytest.mark.row("G10")
    def test_killed(self, runner: Runner) -> None:
        """A service that is killed breaks the stream; where nobody comes in its place, the error has what came."""
        errors = list[StreamInterruptedError]()

        async def scenario(lexi: Any) -> None:
            with pytest.raises(StreamInterruptedError) as info:
                await lexi.stream_chat("Hi").final_reply()
            errors.append(info.value)
            with ScriptedServer(LexiScript(), port=server.port):
                await lexi.tasks()

        server = ServerProcess(LexiScript(stream_fault=Cut(PLACE, "stall")))
        with no_leaks(), server, _at_text(server, server.kill), must_not_hang():
            runner.run(scenario, base_url=server.url, retries=evolve(AT_ONCE, window=1.0))
            assert server.ledger.worst == 1
        [error] = errors
        assert error.partial is not None
        assert (error.partial.response, error.charged) == (FIRST, "unknown")
        assert type(error.__cause__) is APIConnectionError
        assert error.__cause__.charged == "unknown"
        check_secrets([], error)

    @pytest.mark.row("G10", "G12")
    @pytest.mark.parametrize("same", [True, False])
    def test_forgetful(self, runner: Runner, *, same: bool) -> None:
        """A service that comes back without its memory answers anew: the stream goes on only if that is the same."""
        again = LexiScript(stream=CAPTURE if same else reword(CAPTURE, keep=9))
        script = per_connection(LexiScript(stream_fault=Cut(PLACE, "rst")), again)
        with ScriptedServer(script) as server:
            # Such a service may charge again, which nobody can prevent: its ledger is not held to one charge.
            seen = observe(runner, "stream", None, base_url=server.url)
        if same:
            seen.expect(None, text=CAPTURE_TEXT, attempts=2)
        else:
            seen.expect(StreamDivergedError, charged="unknown", text=FIRST, common_len=9)


@contextlib.contextmanager
def _resumed(server: ServerProcess) -> Generator[None]:
    """Let a server that was stopped go on."""
    server.resume()
    yield


@contextlib.contextmanager
def _at_text(server: ServerProcess, act: Any) -> Generator[None]:
    """Do something once the first answer stalls."""

    def wait() -> None:
        wait_until(lambda: server.stalls)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class TestSilence:
    """The connection stands, and nothing comes."""

    @pytest.mark.row("G04")
    def test_before_any_event(self, runner: Runner) -> None:
        """Silence after the head is `first_event`'s; it is tried again, for nothing was handed out."""
        timeout = Timeout(first_event=0.2, idle=5, event_idle=5)
        with ScriptedServer(spoiled("stream", Cut(0, "stall"), times=3)) as server:
            seen = observe(runner, "stream", server, timeout=timeout, deadline=1.0)
            seen.expect(StreamInterruptedError, charged="unknown", attempts=3, text="", partial=None)
            assert (clock_of(seen), seen.resumes) == ("first_event", 0)
        patient = Timeout(first_event=0.8, idle=5, event_idle=5)  # a busy machine needs that much for a good answer
        with ScriptedServer(spoiled("stream", Cut(0, "stall"), times=2)) as server:
            observe(runner, "stream", server, timeout=patient).expect(None, attempts=3)

    @pytest.mark.row("G05")
    @pytest.mark.parametrize("resume", [True, False])
    def test_in_the_middle(self, runner: Runner, *, resume: bool) -> None:
        """Silence in the middle is `idle`'s."""
        timeout = Timeout(first_event=5, idle=0.6, event_idle=5)
        with ScriptedServer(spoiled("stream", Cut(PLACE, "stall"))) as server:
            seen = observe(runner, "stream", server, timeout=timeout, resume=resume, deadline=1.0)
            if resume:
                seen.expect(None, attempts=2)
            else:
                seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text=FIRST)
                assert clock_of(seen) == "idle"

    @pytest.mark.row("G06")
    @pytest.mark.parametrize("resume", [True, False])
    def test_comments(self, runner: Runner, *, resume: bool) -> None:
        """Comments keep `idle` quiet, but they are no progress: `event_idle` counts on."""
        timeout = Timeout(first_event=5, idle=0.5, event_idle=0.3)
        with ScriptedServer(spoiled("stream", _Pings(3))) as server:
            seen = observe(runner, "stream", server, timeout=timeout, resume=resume, deadline=1.0)
            if resume:
                seen.expect(None, attempts=2)
            else:
                seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text="")
                assert clock_of(seen) == "event_idle"

    @pytest.mark.row("G04", "G06")
    def test_comments_alone(self, runner: Runner) -> None:
        """Comments before any event don't stop `first_event`."""
        timeout = Timeout(first_event=0.3, idle=0.5, event_idle=5)
        with ScriptedServer(spoiled("stream", _Pings(0))) as server:
            seen = observe(runner, "stream", server, timeout=timeout, retries=0, deadline=1.0)
            seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text="")
            assert clock_of(seen) == "first_event"

    @pytest.mark.row("G06")
    @pytest.mark.parametrize(("events", "clock"), [(0, "first_event"), (3, "event_idle")])
    def test_unknown_events(self, runner: Runner, events: int, clock: str) -> None:
        """Events that the contract does not name are handed out, but they are no progress."""
        timeout = Timeout(first_event=0.3 if not events else 5, idle=5, event_idle=0.3)
        pings = _Pings(events, b"event: ping\ndata: {}\n\n")
        with ScriptedServer(spoiled("stream", pings)) as server:
            seen = observe(runner, "stream", server, timeout=timeout, retries=0, resume=False, deadline=1.0)
            seen.expect(StreamInterruptedError, charged="unknown", attempts=1, text="")
            assert clock_of(seen) == clock

    @pytest.mark.row("G07")
    @pytest.mark.parametrize(
        ("timeout", "clock"),
        [(Timeout(total=0.3), "total"), (Timeout(event_idle=0.25, idle=5), "event_idle"), (Timeout(idle=0.3), "idle")],
    )
    def test_drip(self, runner: Runner, timeout: Timeout, clock: str) -> None:
        """A byte now and then ends by `total` where that is set, else by `event_idle`; `idle` is the pause allowed."""
        pause = 0.006 if clock != "idle" else 0.6
        with ScriptedServer(spoiled("stream", _Drip(pause))) as server:
            seen = observe(runner, "stream", server, timeout=timeout, retries=0, resume=False, deadline=1.0)
            seen.expect(StreamInterruptedError, charged="unknown", attempts=1)
            assert clock_of(seen) == clock

    @pytest.mark.row("G07")
    def test_total_of_all(self, runner: Runner) -> None:
        """`total` is for all attempts and the pauses between: a continuation gets what is left of it."""
        with ScriptedServer(spoiled("stream", Cut(PLACE), Cut(PLACE + 1, "stall"))) as server:
            timeout = Timeout(idle=5, total=1.0)
            seen = observe(runner, "stream", server, timeout=timeout, deadline=1.0)
            seen.expect(StreamInterruptedError, charged="unknown", text=FIRST)
            assert (clock_of(seen), seen.resumes) == ("total", 1)

    @pytest.mark.row("G13")
    @pytest.mark.parametrize("call", CALLS)
    def test_head(self, runner: Runner, call: Call) -> None:
        """A head that comes byte by byte is `total`'s, on a stream `first_event`'s, which is asked again."""
        timeout = Timeout(total=0.2) if call != "stream" else Timeout(first_event=0.2)
        attempts = 3 if call == "stream" else 1
        drip = Raw(sse_head() + b"x" * 1000, how="stall", size=1, pause=0.02)
        with ScriptedServer(spoiled(call, drip, times=attempts)) as server:
            seen = observe(runner, call, server, timeout=timeout, deadline=1.0)
            charged = "no" if call == "get" else "unknown"
            seen.expect(APITimeoutError, charged=charged, clock="first_event" if call == "stream" else "total")
            assert len(server.requests) - 1 == attempts


class _Pings:
    """Send some events, then comments for ever, or what else is no progress."""

    def __init__(self, events: int, ping: bytes = b": ping\n\n") -> None:
        self._events = events
        self._ping = ping

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(plain.head, *map(plain.frame, plain.body[: self._events]))
        while True:
            connection.sleep(0.03)
            connection.send(plain.frame(self._ping))


class _Drip:
    """Send a body byte by byte."""

    def __init__(self, pause: float) -> None:
        self._pause = pause

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        body = b"".join(plain.body)
        connection.send(plain.head, *(plain.frame(body[i : i + 1]) for i in range(len(body))), pause=self._pause)
        plain.end(connection)


class TestStopped:
    """This side stood still, and what it waits for came meanwhile."""

    #: Shorter than any stop below.
    SHORT = Timeout(connect=0.2, write=0.2, pool=0.2, first_event=0.2, idle=0.2, event_idle=0.2)

    @pytest.mark.row("G15")
    @pytest.mark.parametrize("call", ["chat", "stream"])
    @pytest.mark.parametrize("over", ["asyncio", "trio", "aiohttp"])
    @pytest.mark.parametrize(
        "steps", [(2, 6, 10), pytest.param(range(60), marks=pytest.mark.heavy)], ids=["some", "all"]
    )
    def test_busy(self, over: str, call: Call, steps: Sequence[int]) -> None:
        """A loop that is kept busy at any step of a call, longer than each clock, loses nothing."""
        runner = OVER_AIOHTTP if over == "aiohttp" else AsyncRunner(over)
        timeout = attrs.evolve(self.SHORT, total=0.2) if call == "chat" else self.SHORT

        async def scenario(lexi: Any) -> None:
            seen = Seen(call)
            async with anyio.create_task_group() as group:
                group.start_soon(attempt, lexi, seen)
                for _ in range(step):
                    await anyio.lowlevel.checkpoint()
                    time.sleep(0.001)  # noqa: ASYNC251  # the server gets on
                time.sleep(0.5)  # noqa: ASYNC251  # it is the test
            seen.expect(None)

        with ServerProcess(LexiScript(sizes=(60,))) as server, no_leaks():
            for step in steps:  # noqa: B007  # the scenario sees it
                runner.run(scenario, base_url=server.url, timeout=timeout, retries=0, resume=False)

    @pytest.mark.row("G15")
    @pytest.mark.parametrize("where", ["head", "body"])
    @pytest.mark.parametrize("kind", ["sync", "asyncio", "trio", "aiohttp", "sync over aiohttp"])
    def test_stopped(self, kind: str, where: str) -> None:
        """A process that was stopped finds its answer there and reads it, whatever its clocks say by then."""

        def late(connection: Connection, plain: Plain) -> None:
            if where == "body":
                connection.send(plain.head, *map(plain.frame, plain.body[:3]))
            connection.wait_for("stopped")
            connection.send(*([plain.head] * (where == "head")), *map(plain.frame, plain.body[3 * (where == "body") :]))
            plain.end(connection)

        with ScriptedServer(LexiScript(stream_fault=late)) as server:
            program = [sys.executable, "-c", _READER.format(url=server.url, kind=kind)]
            with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as reader:
                assert server.wait_for_requests()
                time.sleep(0.1)
                reader.send_signal(signal.SIGSTOP)
                server.release("stopped")
                time.sleep(0.8)
                reader.send_signal(signal.SIGCONT)
                said, _ = reader.communicate(timeout=20)
        assert said.strip() == CAPTURE_TEXT

    @pytest.mark.row("G15")
    def test_silent(self, runner: Runner) -> None:
        """Where nothing came, a clock ends as it would have."""
        with ScriptedServer(spoiled("stream", Cut(PLACE, "stall"))) as server:
            seen = observe(runner, "stream", server, timeout=Timeout(idle=0.3), retries=0, resume=False, deadline=0.3)
            seen.expect(StreamInterruptedError, charged="unknown", text=FIRST)


_READER = """
import anyio, leadlex

times = leadlex.Timeout(connect=0.5, write=0.5, pool=0.5, first_event=0.5, idle=0.5, event_idle=0.5)
given = dict(api_key="wbk_test", base_url={url!r}, timeout=times, retries=0, resume=False)
if "aiohttp" in {kind!r}:
    given["http_client"] = leadlex.aiohttp_client

async def main():
    async with leadlex.AsyncLeadLex(**given) as lexi:
        print((await lexi.stream_chat("Hi").final_reply()).response)

if "sync over" in {kind!r} or {kind!r} == "sync":
    print(leadlex.LeadLex(**given).stream_chat("Hi").final_reply().response)
else:
    anyio.run(main, backend="trio" if {kind!r} == "trio" else "asyncio")
"""


class TestSlow:
    """One side does not keep up."""

    @pytest.mark.row("G08")
    def test_slow_reader(self, runner: Runner) -> None:
        """Whoever takes time between two events is not told that the service was slow."""
        events = list[Any]()

        async def scenario(lexi: Any) -> None:
            async for event in lexi.stream_chat("Hi"):
                events.append(event)
                await runner.sleep(0.25 if len(events) < 4 else 0)

        with ScriptedServer(LexiScript(sizes=(60,))) as server, no_leaks():
            timeout = Timeout(idle=0.2, event_idle=0.2)
            runner.run(scenario, base_url=server.url, timeout=timeout, retries=0, resume=False)
        assert len(events) == 6

    @pytest.mark.row("G08")
    def test_back_pressure(self, runner: Runner) -> None:
        """What is not read is not taken in: the service has to wait, and nothing is lost."""
        piece = encode_event(("text", {"delta": "x" * 1000, "conversation_id": "conv_1"})) * 64
        count, sent = 320, [0]

        def flood(connection: Connection) -> None:
            connection.receive_request()
            connection.send(sse_head(chunked=False))
            for _ in range(count):
                connection.send(piece)
                sent[0] += len(piece)
            connection.send(b"data: [DONE]\n\n")

        async def scenario(lexi: Any) -> None:
            async with lexi.stream_chat("Hi") as stream:
                await anext(stream)
                await runner.sleep(0.3)
                assert sent[0] < 12 << 20
                total = 1000
                async for event in stream:
                    total += len(event.delta) if isinstance(event, TextDelta) else 0
                assert total == count * 64_000

        with ScriptedServer(flood, buffers=1 << 16) as server, no_leaks(), must_not_hang(30):
            runner.run(scenario, base_url=server.url, timeout=Timeout(idle=5))

    @pytest.mark.row("G14")
    @pytest.mark.parametrize("call", ["chat", "stream"])
    def test_never_read(self, runner: Runner, call: str) -> None:
        """A service that does not read is given up after `write`; a chat is not sent again, a stream is."""
        errors = list[APITimeoutError]()

        async def scenario(lexi: Any) -> None:
            context = {"own": "x" * 8_000_000}
            ask = lexi.chat if call == "chat" else functools.partial(_final_reply, lexi)
            with pytest.raises(APITimeoutError) as info:
                await ask("Hi", context=context)
            errors.append(info.value)

        # 8 MB is the longest request; the buffers of the network must not hold that.
        server = ScriptedServer(Connection.stall, buffers=4096)
        with no_leaks(), server, must_not_hang(20):
            runner.run(scenario, base_url=server.url, timeout=Timeout(write=0.3), retries=AT_ONCE)
            assert server.connections == (1 if call == "chat" else 3)
        [error] = errors
        assert (error.clock, error.charged) == ("write", "unknown")
        check_secrets([], error)


async def _final_reply(lexi: Any, message: str, **options: Any) -> Any:
    return await lexi.stream_chat(message, **options).final_reply()

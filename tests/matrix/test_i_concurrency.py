"""Table I of the fault matrix: cancellation, concurrency and threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import itertools
import logging
import random
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import httpx
import pytest

import leadlex
from leadlex import ClientClosedError, ConfigurationError, RetryPolicy, StreamBusyError, StreamInterruptedError, Timeout
from tests.matrix.oracles import AT_ONCE, PATIENT, Log, check_secrets
from tests.support.answers import chunk, json_answer, last_chunk, sse_head
from tests.support.captures import CAPTURE_TEXT, encode_stream, text_events
from tests.support.journal import Entry, Journal
from tests.support.lexi import CHAT, SUMMARY, Answer, Cut, LexiScript, Lost
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer, black_hole, dead_port

BACKENDS = ("asyncio", "trio")
every_backend = pytest.mark.parametrize("backend", BACKENDS)

#: A listing that one page holds.
ONE_PAGE = {
    "listConversations": {"data": {"conversations": [SUMMARY]}, "meta": {"page": 1, "per_page": 50, "total": 1}}
}
#: Two events, then silence.
SILENT = Cut(after=220, how="stall")
#: Clocks and a backoff that outlast `must_not_hang`: what ends before it was ended by the test.
ENDLESS = Timeout(connect=300, write=300, pool=300, first_event=300, idle=300, event_idle=300, total=300)
LATE = RetryPolicy(base=200, cap=200, floor=200, window=600)
#: A name for what a test makes a client do; it gets the client.
Act = Callable[[Any], Coroutine[Any, Any, Any]]


def options(server: Any, **given: Any) -> dict[str, Any]:
    """Give a client's options for a server."""
    return {"api_key": API_KEY, "base_url": server.url, "timeout": PATIENT, "retries": AT_ONCE, **given}


@contextlib.contextmanager
def lexi_server(**script: Any) -> Generator[ScriptedServer]:
    """Serve a Lexi and check that nothing of the block is left behind."""
    with ScriptedServer(LexiScript(**script)) as server, must_not_hang(60):
        yield server


async def read_all(stream: Any) -> str:
    """Return the text of a stream that is read to its end."""
    return "".join([delta async for delta in stream.text_stream])


def trying_again(log: Log) -> int:
    """Count the calls that rest before they are repeated."""
    return len([line for line in log.lines if line.startswith("trying again")])


# What a client can be doing, each until its end.

#: What the streams below said at their end of what they cost.
said: list[str] = []


async def _get(lexi: Any) -> None:
    await lexi.conversation("conv_01HY1")


async def _chat(lexi: Any) -> None:
    await lexi.chat("Where is Jane Doe?")


async def _stream(lexi: Any) -> None:
    async with lexi.stream_chat("Where is Jane Doe?") as stream:
        try:
            assert await read_all(stream) == CAPTURE_TEXT
        finally:
            said.append(stream.charged)


async def _list(lexi: Any) -> None:
    assert [each.id async for each in lexi.conversations()]


async def _wait(lexi: Any) -> None:
    with contextlib.suppress(leadlex.APITimeoutError):  # it stays pending
        await lexi.wait_for_task("task-uuid", timeout=0.01, poll_interval=0.005)


async def _close(lexi: Any) -> None:
    await lexi.chat("Where is Jane Doe?")
    await lexi.aclose()


# Cancellation ------------------------------------------------------------------------------------------------------


class CancelAt:
    """Await something and cancel the task that does at its n-th point of waiting."""

    def __init__(self, inner: Awaitable[Any], number: int, cancel: Callable[[], object]) -> None:
        self._inner = inner
        self._left = number
        self._cancel = cancel
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        step: Callable[[], Any] = functools.partial(next, steps)
        while True:
            try:
                point = step()
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                self.reached = True
                self._cancel()
            try:
                step = functools.partial(steps.send, (yield point))
            except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
                step = functools.partial(steps.throw, error)


async def _cancel_by_scope(act: Act, lexi: Any, number: int) -> bool:
    scope = anyio.CancelScope()
    point = CancelAt(act(lexi), number, scope.cancel)
    with scope:
        await point
    return point.reached


async def _cancel_by_task(act: Act, lexi: Any, number: int) -> bool:
    async def run() -> bool:
        task = asyncio.current_task()
        assert task is not None
        point = CancelAt(act(lexi), number, task.cancel)
        await point
        return point.reached

    task = asyncio.create_task(run())
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return True


@pytest.mark.row("I01")
@pytest.mark.parametrize("act", [_get, _chat, _stream, _list, _wait, _close], ids=lambda act: act.__name__[1:])
@pytest.mark.parametrize(
    ("backend", "way"), [("asyncio", _cancel_by_scope), ("asyncio", _cancel_by_task), ("trio", _cancel_by_scope)]
)
def test_cancelled_at_every_await(backend: str, way: Callable[..., Awaitable[bool]], act: Act) -> None:
    """A call that is cancelled wherever it waits ends with the cancellation alone, and the next call is well."""

    async def main(server: ScriptedServer) -> None:
        for number in itertools.count(1):
            async with leadlex.AsyncLeadLex(**options(server)) as lexi:
                charges = len(server.ledger.charges)
                said[:] = ["no"]
                reached = await way(act, lexi, number)
                if act is _stream:
                    charged = len(server.ledger.charges) - charges
                    assert charged <= 1
                    assert said[-1] != "no" or not charged
                if act is not _close:
                    await lexi.tasks()
            if not reached:
                assert number > 1
                return

    with no_leaks(), lexi_server(bodies=ONE_PAGE) as server:
        anyio.run(main, server, backend=backend)
        gc.collect()


#: Over httpcore and over aiohttp.
every_transport = pytest.mark.parametrize("over", [None, leadlex.aiohttp_client], ids=["httpcore", "aiohttp"])
SECRET = "Settle Doe v. Roe for 40,000"


async def _secret_chat(lexi: Any) -> None:
    await lexi.chat(SECRET)


async def _secret_stream(lexi: Any) -> None:
    await lexi.stream_chat(SECRET).final_reply()


def _check_frames(error: BaseException | None) -> None:
    """Check that neither the API key nor the question stands in what a debugger keeps of an exception."""
    assert error is not None
    check_secrets([], error, SECRET)
    told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert API_KEY not in told


@pytest.mark.row("I19")
@every_transport
@pytest.mark.parametrize("act", [_secret_chat, _secret_stream], ids=["chat", "stream"])
def test_frames_of_a_cancelled_call(act: Act, over: Any) -> None:
    """Wherever a call is cancelled, no frame of its traceback holds the API key or the question."""

    async def main(server: ScriptedServer) -> None:
        for number in itertools.count(1):
            async with leadlex.AsyncLeadLex(**options(server, http_client=over)) as lexi:
                error = await _cancelled(act, lexi, number)
            if error is None:
                assert number > 3
                return
            _check_frames(error)

    with no_leaks(), lexi_server() as server:
        anyio.run(main, server, backend="asyncio")


async def _cancelled(act: Act, lexi: Any, number: int) -> BaseException | None:
    """Cancel a call at its n-th wait and return what came out, or None where it had ended."""
    task = asyncio.current_task()
    assert task is not None
    try:
        await CancelAt(act(lexi), number, task.cancel)
    except asyncio.CancelledError as error:
        task.uncancel()
        return error
    return None


async def _by_wait_for(act: Act, lexi: Any) -> None:
    await asyncio.wait_for(act(lexi), 0.1)


async def _by_timeout(act: Act, lexi: Any) -> None:
    async with asyncio.timeout(0.1):
        await act(lexi)


async def _by_fail_after(act: Act, lexi: Any) -> None:
    with anyio.fail_after(0.1):
        await act(lexi)


async def _by_interrupt(act: Act, lexi: Any) -> None:
    asyncio.get_running_loop().call_later(0.1, signal.raise_signal, signal.SIGINT)
    await act(lexi)


@pytest.mark.row("I19")
@every_transport
@pytest.mark.parametrize("way", [_by_wait_for, _by_timeout, _by_fail_after, _by_interrupt])
@pytest.mark.parametrize("where", ["connecting", "head", "body", "between"])
def test_frames_of_a_deadline(where: str, way: Callable[[Act, Any], Awaitable[None]], over: Any) -> None:
    """The caller's own deadline, or Ctrl-C, is raised as it is, and its causes hold no frame of ours."""
    fault = {"head": Lost("stall"), "body": SILENT, "between": Answer(503, headers={"Retry-After": "5"})}.get(where, ())

    async def main(url: str) -> None:
        async with leadlex.AsyncLeadLex(API_KEY, base_url=url, http_client=over, timeout=PATIENT) as lexi:
            await way(_secret_stream, lexi)

    with black_hole() as nowhere, lexi_server(stream_fault=fault) as server, must_not_hang(10):
        with pytest.raises((TimeoutError, KeyboardInterrupt)) as caught:
            asyncio.run(main(nowhere if where == "connecting" else server.url))
        _check_frames(caught.value)


@pytest.mark.row("I19")
@every_transport
def test_frames_of_the_caller(over: Any) -> None:
    """What the caller handles while a call fails keeps its traceback."""

    async def main() -> ValueError:
        async with leadlex.AsyncLeadLex(API_KEY, base_url=url, http_client=over, retries=0) as lexi:
            try:
                int("What the caller reads")
            except ValueError as outside:
                with contextlib.suppress(leadlex.APIConnectionError):
                    await _secret_chat(lexi)
                return outside
        raise AssertionError

    with dead_port() as url:
        assert asyncio.run(main()).__traceback__ is not None


async def _storm(lexi: Any, count: int, chance: random.Random) -> None:
    """Cancel so many calls after a moment that is sometimes too long."""

    async def one() -> None:
        with anyio.move_on_after(chance.random() * 0.05):
            await chance.choice((_chat, _get, _list, _stream))(lexi)

    for _ in range(count // 50):
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(one)


def _weather(backend: str, count: int) -> None:
    async def main(server: ServerProcess) -> None:
        async with leadlex.AsyncLeadLex(**options(server, max_connections=10, retries=0)) as lexi:
            await _storm(lexi, count, random.Random(count))  # noqa: S311  # spreads cancels
            for _ in range(100):
                assert (await lexi.chat("Where is Jane Doe?")).response == CHAT["response"]

    with ServerProcess(LexiScript(bodies=ONE_PAGE)) as server, no_leaks():
        anyio.run(main, server, backend=backend)


@every_backend
@pytest.mark.row("I02", "A07")
def test_a_cancel_storm(backend: str) -> None:
    """After hundreds of cancelled calls on ten connections a hundred calls go well."""
    with must_not_hang(60):
        _weather(backend, 500)


@every_backend
@pytest.mark.heavy
@pytest.mark.row("I02", "A07")
def test_a_cancel_storm_of_20_000(backend: str) -> None:
    """After 20,000 cancelled calls on ten connections a hundred calls go well."""
    _weather(backend, 20_000)


@every_backend
@pytest.mark.row("I13")
def test_the_callers_own_deadline(backend: str) -> None:
    """A deadline around a call is the caller's `TimeoutError`, and the connection is closed."""

    async def ended_by_a_deadline(act: Act, lexi: Any, count: int) -> None:
        with anyio.fail_after(300) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(act, lexi)
                await AsyncRunner(backend).until(lambda: server.stalls == count)
                scope.deadline = anyio.current_time()

    async def main(server: ScriptedServer) -> None:
        async with leadlex.AsyncLeadLex(**options(server, timeout=ENDLESS)) as lexi:
            for count, act in enumerate((_chat, _stream), 1):
                with pytest.raises(TimeoutError):
                    await ended_by_a_deadline(act, lexi, count)
            assert await anyio.to_thread.run_sync(functools.partial(server.wait_for_disconnect, count=2))

    with no_leaks(), lexi_server(chat_fault=Lost("stall"), stream_fault=SILENT) as server:
        anyio.run(main, server, backend=backend)


@every_backend
@pytest.mark.row("I13")
def test_a_nested_task_group(backend: str) -> None:
    """Cancelling a task group ends the calls and streams in it, and only those."""

    async def main(server: ScriptedServer) -> None:
        async with leadlex.AsyncLeadLex(**options(server)) as lexi, anyio.create_task_group() as outer:
            async with anyio.create_task_group() as inner:
                for act in (_chat, _stream, _stream):
                    inner.start_soon(act, lexi)
                await AsyncRunner(backend).until(lambda: server.stalls == 3)
                inner.cancel_scope.cancel()
            outer.start_soon(_chat, lexi)

    with no_leaks(), lexi_server(chat_fault=Lost("stall"), stream_fault=(SILENT, SILENT)) as server:
        anyio.run(main, server, backend=backend)


# Leaving streams ---------------------------------------------------------------------------------------------------


# Trio tells of the generator inside too.
@pytest.mark.filterwarnings("ignore:Async generator 'leadlex:ResourceWarning")
@pytest.mark.row("I03")
def test_left_without_closing(runner: Runner) -> None:
    """A stream that is left by `break` frees its socket once it is dropped, and warns."""

    async def leave(lexi: Any) -> None:
        async for _ in lexi.stream_chat("Where is Jane Doe?"):
            break

    async def drop(lexi: Any, told: list[warnings.WarningMessage]) -> None:
        await leave(lexi)
        gc.collect()
        await runner.until(lambda: [each for each in told if "never closed" in str(each.message)])
        told.clear()  # a warning holds its stream

    async def scenario(lexi: Any) -> None:
        with warnings.catch_warnings(record=True, action="always") as told:
            await drop(lexi, told)
        gc.collect()
        await runner.until(lambda: server.disconnects)
        await lexi.tasks()

    with no_leaks(), lexi_server(stream_fault=SILENT) as server:
        runner.run(scenario, **options(server))


@every_backend
@pytest.mark.row("I03")
def test_left_and_kept(backend: str) -> None:
    """Streams that are left and kept by reference end with their loop: no error of a scope in another task."""
    kept: list[Any] = []

    async def main(server: ScriptedServer) -> None:
        lexi = leadlex.AsyncLeadLex(**options(server))
        for _ in range(20):
            stream = lexi.stream_chat("Where is Jane Doe?")
            kept.append(stream)
            async with anyio.create_task_group() as group:  # each stream is begun by another task
                group.start_soon(stream.__anext__)
        async for _ in kept[0]:
            break
        await lexi.aclose()
        for stream in kept:
            with pytest.raises(ClientClosedError):
                await read_all(stream)

    with no_leaks(), lexi_server(stream_fault=SILENT, times=20) as server:
        anyio.run(main, server, backend=backend)


@pytest.mark.row("I04")
def test_dropped_unread(runner: Runner) -> None:
    """A stream that is never read sends nothing, whether it is dropped, closed or entered."""

    async def scenario(lexi: Any) -> None:
        lexi.stream_chat("Where is Jane Doe?")
        closed = lexi.stream_chat("Where is Jane Doe?")
        await closed.aclose()
        async with lexi.stream_chat("Where is Jane Doe?"):
            pass
        with pytest.raises(StreamInterruptedError) as caught:
            await closed.final_reply()
        assert (caught.value.charged, caught.value.partial, closed.charged) == ("no", None, "no")
        gc.collect()

    with no_leaks(), lexi_server() as server:
        runner.run(scenario, **options(server))
        assert (server.requests, server.connections) == ([], 0)


@pytest.mark.row("I15")
def test_an_exception_in_the_loop_body(runner: Runner) -> None:
    """What the caller raises while reading comes out unchanged, and the stream is closed."""
    mine = RuntimeError("mine")

    async def read(lexi: Any) -> None:
        async with lexi.stream_chat("Where is Jane Doe?") as stream:
            async for _ in stream:
                raise mine

    async def scenario(lexi: Any) -> None:
        with pytest.raises(RuntimeError) as caught:
            await read(lexi)
        assert caught.value is mine
        assert (mine.__cause__, mine.__context__) == (None, None)
        assert server.wait_for_disconnect()
        await lexi.tasks()

    with no_leaks(), lexi_server(stream_fault=SILENT) as server:
        runner.run(scenario, **options(server))


# Two readers -------------------------------------------------------------------------------------------------------


@pytest.mark.row("I05")
def test_two_readers(runner: Runner) -> None:
    """The second reader of one stream is told that it is being read; the first gets everything."""

    async def scenario(lexi: Any) -> list[Any]:
        stream = lexi.stream_chat("Where is Jane Doe?")

        async def others() -> list[Any]:
            await runner.until(lambda: server.requests)
            errors: list[Any] = []
            for read in (stream.final_reply, stream.__anext__):
                with pytest.raises(StreamBusyError) as caught:
                    await read()
                errors.append(caught.value)
            server.release()
            return errors

        first, second = await runner.together(lambda: read_all(stream), others)
        assert first == CAPTURE_TEXT
        assert isinstance(second, list)
        return second

    def pausing(connection: Connection, plain: Any) -> None:
        connection.send(plain.head)
        connection.wait_for()
        connection.send(*(plain.frame(piece) for piece in plain.body), last_chunk())

    with no_leaks(), lexi_server(stream_fault=pausing) as server:
        assert len(runner.run(scenario, **options(server))) == 2


@pytest.mark.row("I05")
def test_closed_by_another(runner: Runner) -> None:
    """A stream that another task or thread closes ends at once for its reader, and never as if it were whole."""

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat("Where is Jane Doe?")

        async def close() -> None:
            await runner.until(under_way)
            await stream.aclose()

        read, _ = await runner.together(lambda: read_all(stream), close)
        assert isinstance(read, StreamInterruptedError)
        assert read.charged == "unknown"
        assert stream.resumes == 0

    log = Log()

    def under_way() -> object:
        return server.stalls or trying_again(log)

    for fault in (SILENT, Lost("stall"), Lost("fin")):  # while it reads, waits for the head, rests before a retry
        with no_leaks(), lexi_server(stream_fault=fault) as server, log.collected():
            runner.run(scenario, **options(server, retries=LATE, timeout=ENDLESS))
            assert len(server.requests) == 1


# Many threads ------------------------------------------------------------------------------------------------------


def echo(connection: Connection) -> None:
    """Answer every message with itself."""
    while not connection.closed:
        request = connection.receive_request()
        message = request.json["message"]
        connection.charge(message, request.idempotency_key, 1, request.path)
        if request.path.endswith("/stream"):
            events = [*text_events(message, size=3), ("done", {"credits_remaining": 1, "message_id": "m"})]
            connection.send(sse_head(), chunk(encode_stream(events)), last_chunk())
        else:
            connection.send(json_answer(200, {"data": {**CHAT, "response": message}}))


def in_threads(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run a function in so many threads at once and return what they raised."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # told to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return errors


def _talk(lexi: leadlex.LeadLex, rounds: int, number: int) -> None:
    for turn in range(rounds):
        message = f"Question {turn} of thread {number}"
        assert lexi.chat(message).response == message
        assert "".join(lexi.stream_chat(message).text_stream) == message
        assert lexi.stream_chat(message).final_reply().response == message


def _crowd(rounds: int) -> None:
    with no_leaks(), ServerProcess(echo) as server:
        with leadlex.LeadLex(**options(server)) as lexi:
            assert in_threads(100, functools.partial(_talk, lexi, rounds)) == []
        assert len(server.requests) == 100 * rounds * 3


@pytest.mark.row("I06")
def test_a_hundred_threads_on_one_client() -> None:
    """A hundred threads share one client, and each gets the answers to its own questions."""
    _crowd(1)


@pytest.mark.heavy
@pytest.mark.row("I06")
def test_a_hundred_threads_with_a_hundred_calls_each() -> None:
    """A hundred threads make a hundred calls each on one client without an error or a mixed-up answer."""
    _crowd(34)


@pytest.mark.filterwarnings("ignore:A ChatStream was left:ResourceWarning")  # some are, some were read ahead whole
@pytest.mark.row("I07")
def test_a_hundred_threads_open_and_close() -> None:
    """A hundred threads open, use and close clients of their own; no thread of ours is left."""

    def work(number: int) -> None:
        chance = random.Random(number)  # noqa: S311  # spreads the ways
        lexi = leadlex.LeadLex(**options(server))
        if chance.random() < 0.7:
            assert lexi.chat("Hi").response == "Hi"
        if chance.random() < 0.5:
            next(lexi.stream_chat("Hello"))
        lexi.close()
        lexi.close()

    with no_leaks(), must_not_hang(60), ServerProcess(echo) as server:
        assert in_threads(100, work) == []


# Closing -----------------------------------------------------------------------------------------------------------


class Running:
    """Calls of one client that are under way in every phase, and how each of them ended."""

    def __init__(self, runner: Runner, lexi: Any) -> None:
        self._runner = runner
        self._lexi = lexi
        self._streams = [lexi.stream_chat("Where is Jane Doe?") for _ in range(2)]

    async def _whole_stream(self) -> Any:
        return await self._streams[0].final_reply()

    async def _read(self) -> Any:
        return await read_all(self._streams[1])

    async def _ask(self) -> Any:
        return await self._lexi.chat("Where is Jane Doe?")

    async def _rest(self) -> Any:
        return await self._lexi.wait_for_task("task-uuid", timeout=300, poll_interval=300)

    async def under_way(self, server: ScriptedServer) -> None:
        """Wait until each call waits for what will not come, and the streams have handed something out."""
        await self._runner.until(lambda: server.stalls == 3 and len(server.requests) == 4)
        await self._runner.until(lambda: all(each.reply.thinking or each.reply.response for each in self._streams))

    async def until(self, close: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Close while the calls run, and give what became of those."""
        kinds = [self._whole_stream, self._read, self._ask, self._rest]
        ended = await self._runner.together(*kinds, close)
        return list(ended[:-1])


def _assert_closed(ended: list[Any]) -> None:
    for error in ended:
        assert isinstance(error, ClientClosedError), repr(error)
    *streams, chat, wait = ended
    assert [error.charged for error in (*streams, chat, wait)] == ["unknown", "unknown", "unknown", "no"]
    assert all(error.partial is not None for error in streams)


@pytest.mark.row("I08")
def test_closing_ends_what_runs(runner: Runner) -> None:
    """Closing a client, even twice, ends its streams and calls as `ClientClosedError`."""
    faults = {"stream_fault": SILENT, "chat_fault": Lost("stall"), "times": 2}

    async def scenario(lexi: Any) -> None:
        running = Running(runner, lexi)

        async def close() -> None:
            await running.under_way(server)
            await lexi.aclose()
            await lexi.aclose()

        _assert_closed(await running.until(close))

    with no_leaks(), lexi_server(**faults) as server:
        runner.run(scenario, **options(server, timeout=ENDLESS))


@pytest.mark.row("I08")
def test_closing_ends_what_waits_to_send(runner: Runner) -> None:
    """Closing ends calls that wait for a free connection, for a connection to come about, or before a retry."""

    async def scenario(under_way: Callable[[], bool], lexi: Any) -> list[Any]:
        async def close() -> None:
            await runner.until(under_way)
            await lexi.aclose()

        async def call() -> Any:
            begun.append(None)
            return await lexi.tasks()

        return (await runner.together(call, call, close))[:-1]

    begun: list[None] = []
    log = Log()
    with (
        no_leaks(),
        lexi_server(other_fault=Lost("stall")) as full,
        lexi_server(other_fault=Answer(503), times=2) as busy,
        black_hole() as hole,
        log.collected(),
    ):
        for url, connections, under_way in (
            (full.url, 1, lambda: full.stalls == 1),
            (busy.url, 2, lambda: trying_again(log) == 2),
            (hole, 2, lambda: len(begun) == 6),
        ):
            given = options(full, base_url=url, max_connections=connections, retries=LATE, timeout=ENDLESS)
            ended = runner.run(functools.partial(scenario, under_way), **given)
            assert [(type(error), error.charged) for error in ended] == [(ClientClosedError, "no")] * 2


@pytest.mark.row("I08")
def test_leaving_by_an_exception_closes(runner: Runner) -> None:
    """A `with` block that is left by an exception closes the client, and the exception comes out unchanged."""
    mine = RuntimeError("mine")
    kept: list[Any] = []

    async def scenario(lexi: Any) -> None:
        stream = lexi.stream_chat("Where is Jane Doe?")
        kept.append(await stream.__anext__())
        kept.append(stream)
        raise mine

    with no_leaks(), lexi_server(stream_fault=SILENT) as server:
        with pytest.raises(RuntimeError) as caught:
            runner.run(scenario, **options(server))
        assert caught.value is mine
        assert server.wait_for_disconnect()
        kept.clear()


@every_backend
@pytest.mark.row("I08", "I10")
def test_closing_from_another_loop(backend: str) -> None:
    """Closing in one event loop ends what the same client does in another one, in another thread."""
    ended: list[Any] = []
    under_way = threading.Event()

    async def work(lexi: leadlex.AsyncLeadLex) -> None:
        running = Running(AsyncRunner(backend), lexi)

        async def tell() -> None:
            await running.under_way(server)
            under_way.set()

        ended.extend(await running.until(tell))

    async def close(lexi: leadlex.AsyncLeadLex) -> None:
        await lexi.tasks()
        await lexi.aclose()

    faults = {"stream_fault": SILENT, "chat_fault": Lost("stall"), "times": 2}
    with no_leaks(), lexi_server(**faults) as server:
        lexi = leadlex.AsyncLeadLex(**options(server, timeout=ENDLESS))
        other = threading.Thread(target=anyio.run, args=(work, lexi), kwargs={"backend": backend})
        other.start()
        assert under_way.wait(10)
        anyio.run(close, lexi)
        other.join(10)
        assert not other.is_alive()
    _assert_closed(ended)


@every_backend
@pytest.mark.row("I08")
def test_closing_leaves_the_users_own_client(backend: str) -> None:
    """Closing ends our streams on an `http_client` of the user, and leaves that one open."""

    async def main(server: ScriptedServer) -> None:
        async with httpx.AsyncClient() as mine:
            lexi = leadlex.AsyncLeadLex(**options(server, http_client=mine))
            async with anyio.create_task_group() as group:
                group.start_soon(_expect_closed, lexi)
                await AsyncRunner(backend).until(lambda: server.stalls)
                await lexi.aclose()
            assert server.wait_for_disconnect()
            assert not mine.is_closed

    with no_leaks(), lexi_server(stream_fault=SILENT) as server:
        anyio.run(main, server, backend=backend)


async def _expect_closed(lexi: Any) -> None:
    with pytest.raises(ClientClosedError):
        await read_all(lexi.stream_chat("Where is Jane Doe?"))


@pytest.mark.row("I09")
def test_use_after_close(runner: Runner) -> None:
    """Every call of a closed client, of its copies and handles is a `ClientClosedError`, and nothing is sent."""

    async def scenario(lexi: Any) -> None:
        copy, stream, pager, thread = (
            lexi.with_options(retries=0),
            lexi.stream_chat("Hi"),
            lexi.conversations(),
            lexi.thread("conv_01HY1"),
        )
        await lexi.aclose()
        calls: list[Callable[[], Any]] = [
            lambda: lexi.chat("Hi"),
            lambda: copy.chat("Hi"),
            stream.final_reply,
            stream.__anext__,
            lambda: lexi.stream_chat("Hi").final_reply(),
            pager.collect,
            pager.first_page,
            thread.history,
            lambda: thread.chat("Hi"),
            lambda: lexi.request("GET", "/v1/lexi/tasks"),
            lambda: lexi.wait_for_task("task-uuid"),
            lambda: lexi.approve_task("task-uuid"),
        ]
        for call in calls:
            with pytest.raises(ClientClosedError) as caught:
                await call()
            assert caught.value.charged == "no"
        await stream.aclose()
        await copy.aclose()

    with no_leaks(), lexi_server() as server:
        runner.run(scenario, **options(server))
        assert server.requests == []


# Loops -------------------------------------------------------------------------------------------------------------


@pytest.mark.row("I10")
@pytest.mark.trio
def test_one_client_in_one_loop_after_another() -> None:
    """A client goes on in every new event loop, of either kind; what the last one left is closed with it."""

    async def main(lexi: leadlex.AsyncLeadLex) -> None:
        await _chat(lexi)
        await _stream(lexi)

    with no_leaks(), lexi_server() as server:
        lexi = leadlex.AsyncLeadLex(**options(server))
        for backend in ("asyncio", "asyncio", "trio", "trio", "asyncio"):
            anyio.run(main, lexi, backend=backend)
            gc.collect()
        anyio.run(lexi.aclose)
        assert server.connections == 5


@pytest.mark.row("I10")
@pytest.mark.trio
def test_one_client_in_two_loops_at_once() -> None:
    """A client serves two running event loops, each by connections of its own."""

    async def main(lexi: leadlex.AsyncLeadLex) -> None:
        for _ in range(10):
            await _stream(lexi)

    with no_leaks(), lexi_server() as server:
        lexi = leadlex.AsyncLeadLex(**options(server))
        assert in_threads(4, lambda number: anyio.run(main, lexi, backend=BACKENDS[number % 2])) == []
        anyio.run(lexi.aclose)
        gc.collect()


@pytest.mark.row("I10")
def test_a_loop_that_ends_without_a_word() -> None:
    """A client whose loop was closed bare, as `loop.close()` does, still works in the next loop and closes there."""
    with lexi_server() as server:
        lexi = leadlex.AsyncLeadLex(**options(server))
        with pytest.warns(ResourceWarning):  # asyncio's, of the socket that the dead loop kept
            _outlive_a_loop(lexi)


def _outlive_a_loop(lexi: leadlex.AsyncLeadLex) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(_chat(lexi))
    loop.close()
    asyncio.run(_chat(lexi))
    asyncio.run(lexi.aclose())
    del loop
    gc.collect()


@pytest.mark.row("I10")
def test_closing_beside_a_loop_that_rests() -> None:
    """Closing does not wait for another loop that is not running now; what is open there is closed when it runs."""
    with no_leaks(), lexi_server() as server:
        lexi = leadlex.AsyncLeadLex(**options(server))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(_chat(lexi))
        with must_not_hang(10):
            asyncio.run(lexi.aclose())
        assert not server.disconnects
        loop.run_until_complete(AsyncRunner("asyncio").until(lambda: server.disconnects))
        loop.close()


@every_backend
@pytest.mark.row("I11")
def test_the_sync_client_inside_a_running_loop(backend: str) -> None:
    """The sync client works inside a running event loop, as in a notebook: it has a loop of its own."""

    async def main() -> None:
        with leadlex.LeadLex(**options(server)) as lexi:
            assert lexi.chat("Hi").response == CHAT["response"]
            assert "".join(lexi.stream_chat("Hi").text_stream) == CAPTURE_TEXT

    with no_leaks(), lexi_server() as server:
        anyio.run(main, backend=backend)


# Hooks -------------------------------------------------------------------------------------------------------------


def hooked(hook: Callable[[Any], Awaitable[None]], on: str = "request") -> Callable[[], httpx.AsyncClient]:
    """Make an `http_client` that calls a hook."""
    return lambda: httpx.AsyncClient(event_hooks={on: [hook]})


@pytest.mark.row("I12")
def test_a_sync_call_from_the_loops_thread() -> None:
    """A sync call from a hook, in the thread of all sync clients, is refused in words; closing there does no harm."""
    held: list[leadlex.LeadLex] = []

    async def call(request: httpx.Request) -> None:
        held[0].chat("Hi")

    async def read(request: httpx.Request) -> None:
        next(held[0].stream_chat("Hi"))

    async def close(request: httpx.Request) -> None:
        held[0].close()

    with no_leaks(), lexi_server() as server, must_not_hang(5):
        for hook, kind in ((call, ConfigurationError), (read, ConfigurationError), (close, ClientClosedError)):
            with leadlex.LeadLex(**options(server, http_client=hooked(hook))) as lexi:
                held[:] = [lexi]
                with pytest.raises(kind, match="thread of all" if kind is ConfigurationError else "is closed"):
                    lexi.chat("Hi")
        held.clear()
        assert server.requests == []


@pytest.mark.row("I16")
@pytest.mark.parametrize("on", ["request", "response"])
def test_a_hook_that_raises(runner: Runner, on: str) -> None:
    """An exception of a user's hook comes out as an error of leadlex, leaks nothing, and the next call is well."""
    raises = iter([True, True])

    async def hook(_: Any) -> None:
        if next(raises, False):
            raise RuntimeError("a user's own")

    async def scenario(lexi: Any) -> None:
        calls: list[Callable[[], Any]] = [lambda: lexi.chat("Hi"), lambda: lexi.stream_chat("Hi").final_reply()]
        for call in calls:
            with pytest.raises(leadlex.APIConnectionError, match="a user's own"):
                await call()
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

    with no_leaks(), lexi_server() as server:
        runner.run(scenario, **options(server, http_client=hooked(hook, on), retries=0))


@pytest.mark.row("I16")
def test_a_log_handler_that_raises(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """A log handler that raises does not end a stream that was paid for."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            del record
            raise RuntimeError("a handler's own")

    logger, handler = logging.getLogger("leadlex"), Broken()
    caplog.set_level(logging.DEBUG, "leadlex")

    async def scenario(lexi: Any) -> None:
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT

    with no_leaks(), lexi_server(stream_fault=Answer(503)) as server:
        logger.addHandler(handler)
        try:
            runner.run(scenario, **options(server))
        finally:
            logger.removeHandler(handler)


@pytest.mark.row("I17")
def test_collected_in_the_loops_thread() -> None:
    """A client in a cycle of references that is collected inside its own loop's thread ends without a deadlock."""

    async def collect(_: Any) -> None:
        gc.collect()

    class Holder:
        lexi: leadlex.LeadLex
        stream: leadlex.ChatStream
        me: Holder

    def leave() -> None:
        holder = Holder()
        holder.me, holder.lexi = holder, leadlex.LeadLex(**options(server, http_client=hooked(collect)))
        holder.stream = holder.lexi.stream_chat("Hi")
        assert next(holder.stream)

    def collect_in_loop() -> None:
        for _ in range(5):
            leave()
        with leadlex.LeadLex(**options(server, http_client=hooked(collect))) as lexi:
            lexi.chat("Hi")
            assert lexi.stream_chat("Hi").final_reply().response == CAPTURE_TEXT

    gc.disable()
    try:
        with no_leaks(), lexi_server(stream_fault=SILENT, times=5) as server, must_not_hang(10):
            with pytest.warns(ResourceWarning, match="never closed"):
                collect_in_loop()
            assert server.wait_for_disconnect(count=5)
    finally:
        gc.enable()


user = contextvars.ContextVar("user", default="nobody")


@pytest.mark.row("I18")
def test_context_variables(runner: Runner) -> None:
    """A hook sees the caller's context variables, on both clients, in calls and in streams."""
    seen: list[str] = []

    async def look(_: Any) -> None:
        seen.append(user.get())

    async def scenario(lexi: Any) -> None:
        for name in ("Ada", "Grace"):
            token = user.set(name)
            await lexi.chat("Hi")
            await lexi.stream_chat("Hi").final_reply()
            await lexi.conversations().collect()
            user.reset(token)

    with no_leaks(), lexi_server(bodies=ONE_PAGE) as server:
        runner.run(scenario, **options(server, http_client=hooked(look)))
    assert seen == ["Ada"] * 3 + ["Grace"] * 3


# All of it ---------------------------------------------------------------------------------------------------------


@pytest.mark.row("I14")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_whole_day(backend: str) -> None:
    """A day's work side by side, streams, calls, listings, retries and cancels, is the same under trio and asyncio."""

    async def main(server: ScriptedServer) -> None:
        async with leadlex.AsyncLeadLex(**options(server)) as lexi:
            async with anyio.create_task_group() as group:
                for act in (_get, _chat, _stream, _list, _stream, _chat) * 3:
                    group.start_soon(act, lexi)
                with anyio.move_on_after(0.01):
                    await _stream(lexi)
            left = lexi.stream_chat("Where is Jane Doe?")
            assert await left.__anext__()
            await left.aclose()
            thread = lexi.thread()
            await thread.chat("Hi")
            assert len(await thread.history()) == 2

    faults = {"other_fault": Answer(503), "stream_fault": Cut(300, "rst"), "times": 2}
    with no_leaks(), lexi_server(**faults, bodies=ONE_PAGE) as server:
        anyio.run(main, server, backend=backend)


async def _soak(lexi: Any, count: int, at_once: int) -> None:
    turns = iter(range(count))

    async def work() -> None:
        for _ in turns:
            await _stream(lexi)

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(work)


def _memory() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:  # noqa: PTH123  # not a file of ours
        return int(file.read().split()[1]) * 4096


class Forgetful(Journal):
    """Keep nothing: what a server saw of 20,000 streams takes more memory than the client."""

    def add(self, entry: Entry) -> None:
        """Forget it."""


def _soaked(backend: str, count: int, at_once: int) -> int:
    """Return by how many bytes memory grew over so many streams, after a start that warms up."""

    async def main(server: ServerProcess) -> int:
        async with leadlex.AsyncLeadLex(**options(server)) as lexi:
            await _soak(lexi, count // 10, at_once)
            before = _memory()
            async with no_leaks():
                await _soak(lexi, count, at_once)
            return _memory() - before

    with no_leaks(), ServerProcess(LexiScript()) as server:
        server.journal = Forgetful()
        return anyio.run(main, server, backend=backend)


@every_backend
@pytest.mark.row("I06")
def test_streams_leave_nothing(backend: str) -> None:
    """Hundreds of streams, many at a time, leave no descriptor, thread or task and hardly any memory."""
    assert _soaked(backend, 400, 40) < 5 << 20


@every_backend
@pytest.mark.heavy
@pytest.mark.row("I06")
def test_20_000_streams_leave_nothing(backend: str) -> None:
    """20,000 streams, 100 at a time, leave no descriptor, thread or task and less than 5 MiB."""
    grown = _soaked(backend, 20_000, 100)
    sys.stdout.write(f"\n{backend}: 20,000 streams, memory grew by {grown / (1 << 20):.1f} MiB\n")
    assert grown < 5 << 20

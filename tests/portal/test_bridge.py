"""The bridge from threads to the loop: what is interrupted, forked, closed and read ahead; and what is logged."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import resource
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Self

import anyio
import httpx
import pytest

import leadlex
from leadlex import (
    APIConnectionError,
    ClientClosedError,
    ConfigurationError,
    LeadLex,
    StreamInterruptedError,
    _logging,
    _system_threads,
)
from leadlex._portal import calls, loop_thread
from leadlex._portal.bridge import Bridge, drive
from leadlex._portal.calls import Call, current_process
from leadlex._portal.pump import BUFFER, BUFFER_SIZE
from leadlex._values.events import size_of
from tests.matrix.oracles import AT_ONCE, PATIENT
from tests.support.answers import chunk, sse_head
from tests.support.captures import CAPTURE_TEXT, encode_stream, text_events
from tests.support.lexi import CHAT, Answer, Cut, LexiScript
from tests.support.process import ServerProcess
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, ScriptedServer

SILENT = Cut(after=220, how="stall")
WORDS = 6 * BUFFER
#: More events than are read ahead.
MANY = encode_stream([*text_events("word " * WORDS, size=5), ("done", {"credits_remaining": 1, "message_id": "m"})])
#: What is read ahead: the buffer, and what the read that fills it brings.
AHEAD = BUFFER + (64 << 10) * WORDS // len(MANY)


def client(server: Any, **options: Any) -> LeadLex:
    """Make a client of a server."""
    given: dict[str, Any] = {"base_url": server.url, "timeout": PATIENT, "retries": AT_ONCE, **options}
    return LeadLex(API_KEY, **given)


def hooked(hook: Callable[[Any], Awaitable[None]]) -> Callable[[], httpx.AsyncClient]:
    """Make an `http_client` that calls a hook before each request."""
    return lambda: httpx.AsyncClient(event_hooks={"request": [hook]})


@pytest.fixture
def interrupt() -> Generator[Callable[[float], None]]:
    """Give a function that sends this process Ctrl-C after some seconds."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def soon(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield soon
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGINT, before)


def wait_until_full(stream: Any) -> None:
    """Wait until no more of a stream is read ahead."""
    with must_not_hang():
        while stream._pump._buffer._room is None:
            time.sleep(0.01)


def ours() -> list[threading.Thread]:
    """List the threads of sync clients."""
    return [thread for thread in threading.enumerate() if thread.name == "leadlex"]


def wait_until_alone() -> None:
    """Wait until the loop of all clients has ended."""
    with must_not_hang():
        while current_process().thread is not None:
            time.sleep(0.01)


def in_bits(connection: Connection) -> None:
    """Answer with one event after another, each in a piece of its own."""
    connection.receive_request()
    connection.send(sse_head())
    for event in MANY.split(b"\n\n"):
        connection.send(chunk(event + b"\n\n"))
    connection.drain()


# Interrupts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [next, lambda stream: stream.final_reply()], ids=["next", "final_reply"])
def test_an_interrupted_stream_is_over(read: Callable[[Any], Any], interrupt: Callable[[float], None]) -> None:
    """Ctrl-C cancels the request itself; the stream says that it was cut, and the client goes on."""
    with no_leaks(), ScriptedServer(LexiScript(stream_fault=SILENT)) as server, client(server) as lexi:
        stream = lexi.stream_chat("Hi")
        assert [next(stream).__class__, next(stream).__class__] == [leadlex.Thinking, leadlex.ToolStep]
        interrupt(0.1)
        with pytest.raises(KeyboardInterrupt):
            read(stream)
        assert server.wait_for_disconnect()
        with pytest.raises(StreamInterruptedError, match="closed") as caught:
            next(stream)
        assert caught.value.charged == stream.charged == "unknown"
        assert "During handling" not in "".join(traceback.format_exception(caught.value))
        assert lexi.stream_chat("Hi").final_reply().response == CAPTURE_TEXT


def test_an_interrupt_while_the_loop_is_held(interrupt: Callable[[float], None]) -> None:
    """Ctrl-C is heard even while another thread's hook holds the loop; what had not begun never does."""
    held = threading.Event()

    async def hold(_: Any) -> None:
        if not held.is_set():
            held.set()
            time.sleep(0.6)  # noqa: ASYNC251  # a user's hook may do that

    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server, http_client=hooked(hold)) as lexi:
        other = threading.Thread(target=lexi.tasks)
        other.start()
        assert held.wait(5)
        interrupt(0.1)
        with pytest.raises(KeyboardInterrupt):
            lexi.chat("Hi")
        other.join()
        assert [request.method for request in server.requests] == ["GET"]


def test_an_interrupt_of_what_clings(interrupt: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not let itself be cancelled is waited for only for a while."""

    async def cling(_: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)

    for module in (calls, loop_thread):
        monkeypatch.setattr(module, "GRACE", 0.1)
    with ScriptedServer(LexiScript()) as server, client(server, http_client=hooked(cling)) as lexi:
        interrupt(0.2)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            lexi.chat("Hi")
        assert time.monotonic() - began < 0.8
    wait_until_alone()


def test_what_a_hook_raises_to_exit(interrupt: Callable[[float], None]) -> None:
    """A hook that wants to exit, exits the caller and not the loop; one that cancels itself cancels its call."""
    wishes = iter([SystemExit(3), asyncio.CancelledError()])

    async def wish(_: Any) -> None:
        for each in wishes:
            raise each

    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server, http_client=hooked(wish)) as lexi:
        with pytest.raises(SystemExit) as caught:
            lexi.chat("Hi")
        assert caught.value.code == 3
        with pytest.raises(APIConnectionError, match="A hook or a transport cancelled the call") as cancelled:
            lexi.chat("Hi")
        assert cancelled.value.charged == "unknown"
        assert lexi.chat("Hi").response == CHAT["response"]


# Threads and loops -------------------------------------------------------------------------------------------------


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, the call is an error of leadlex and the next one tries again."""

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server) as lexi:
        with monkeypatch.context() as patch:
            patch.setattr(_system_threads, "threading", SimpleNamespace(**{**vars(threading), "Thread": Refused}))
            with pytest.raises(APIConnectionError, match="can't start new thread") as caught:
                lexi.chat("Hi")
        assert caught.value.charged == "no"
        assert lexi.chat("Hi").response == CHAT["response"]


def test_no_thread_to_read_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, the constructor reads the certificates itself, and refuses bad ones as ever."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refuse)
    leadlex.AsyncLeadLex(API_KEY)
    monkeypatch.setenv("SSL_CERT_FILE", "nowhere.pem")
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        leadlex.AsyncLeadLex(API_KEY)


# What asyncio says when a loop goes that was built by half.
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. .function BaseEventLoop:pytest.PytestUnraisableExceptionWarning"
)
def test_no_descriptor_for_a_loop() -> None:
    """Where there are no file descriptors for a loop, the call is an error of leadlex and the next one tries again."""
    importlib.import_module("tracemalloc")  # pytest loads it to tell of what a finalizer raises
    with ServerProcess(LexiScript()) as server, client(server) as lexi, no_leaks():
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            with pytest.raises(APIConnectionError, match="Too many open files") as caught:
                lexi.chat("Hi")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert caught.value.charged == "no"
        assert lexi.chat("Hi").response == CHAT["response"]
        lexi.close()


def test_closed_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that is told to end before it has begun ends at once."""
    stopped = threading.Event()
    run = anyio.run

    def late(*args: Any, **options: Any) -> Any:
        stopped.wait(5)
        return run(*args, **options)

    closed: list[bool] = []

    async def aclose() -> None:
        closed.append(True)

    monkeypatch.setattr(anyio, "run", late)
    with no_leaks(), must_not_hang(5):
        group = Bridge(aclose).group()
        group.stop()
        stopped.set()
        group.join()
    assert closed == [True]


@pytest.mark.parametrize("used", [True, False])
def test_a_call_that_comes_too_late(*, used: bool) -> None:
    """A call that found the loop before it ended is told that the client is closed, and does not wait for ever."""

    async def nothing() -> None:
        """Do nothing."""

    with no_leaks(), must_not_hang(5):
        bridge = Bridge(nothing)
        group = bridge.group()
        if used:
            bridge.call(nothing())
        bridge.close()
        bridge.close()
        late = Call(nothing())
        with pytest.raises(ClientClosedError):
            group.start(late)
        late.abandon()
        assert not group.thread.run_soon(print)


def test_a_call_that_comes_too_late_beside_another_client() -> None:
    """The same where the loop lives on for others: the late call and stream are refused, and nobody waits for ever."""
    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server) as other, must_not_hang(10):
        assert other.chat("Hi").response == CHAT["response"]
        late = client(server)
        group = late._bridge.group()
        late.close()
        for read in (next, lambda stream: stream.final_reply()):
            stream: Any = late.stream_chat("Hi")
            stream._pump._bridge = SimpleNamespace(group=lambda: group)  # found before the client was closed
            with pytest.raises(ClientClosedError) as caught:
                read(stream)
            assert caught.value.charged == "no"
            stream.close()
        call = Call(asyncio.sleep(0))
        group.start(call)
        group.thread.wait(call.ended)
        with pytest.raises(ClientClosedError, match="during the call") as closed:
            call.result()
        assert closed.value.charged == "no"
        assert other.chat("Hi").response == CHAT["response"]
        assert [request.path for request in server.requests] == ["/v1/lexi/chat"] * 2


def test_a_loop_where_none_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a loop runs in the thread already, the call says so and names eventlet; the next one tries again."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Already running asyncio in this thread")

    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server) as lexi:
        with monkeypatch.context() as patch:
            patch.setattr(anyio, "run", refuse)
            with pytest.raises(APIConnectionError, match=r"Already running asyncio .* Under eventlet") as caught:
                lexi.chat("Hi")
            assert caught.value.charged == "no"
        assert lexi.chat("Hi").response == CHAT["response"]


def test_a_loop_that_is_stopped() -> None:
    """A hook that stops the loop ends the calls in it, which say so; the clients go on in another loop."""
    stopped: list[bool] = []

    async def stop(_: Any) -> None:
        if not stopped:
            stopped.append(True)
            asyncio.get_running_loop().stop()
            await anyio.sleep_forever()

    with ScriptedServer(LexiScript()) as server, client(server, http_client=hooked(stop)) as lexi, must_not_hang(10):
        with pytest.raises(APIConnectionError, match="stopped the client's event loop") as caught:
            lexi.chat("Hi")
        assert caught.value.charged == "unknown"
        for thread in ours():
            thread.join()
        assert lexi.chat("Hi").response == CHAT["response"]


def test_closing_one_of_two_clients() -> None:
    """Closing a client ends its own calls and streams alone; those of others, in the same thread, go on."""
    script = LexiScript(stream=MANY, sizes=(700,))
    with no_leaks(), ScriptedServer(script) as server, client(server) as kept, client(server) as closed:
        streams = [kept.stream_chat("Hi"), closed.stream_chat("Hi")]
        assert [isinstance(next(stream), leadlex.TextDelta) for stream in streams] == [True, True]
        assert len(ours()) == 1
        closed.close()
        with pytest.raises(ClientClosedError):
            list(streams[1])
        assert streams[0].final_reply().response == "word " * WORDS
        assert kept.chat("Hi").response == CHAT["response"]


def test_closing_that_fails() -> None:
    """What a client of the user's own raises as it is closed, is raised by `close`, and nobody else's calls end."""

    class Failing(httpx.AsyncClient):
        async def aclose(self) -> None:
            await super().aclose()
            raise LookupError("mine")

    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server) as other, must_not_hang(10):
        assert other.chat("Hi").response == CHAT["response"]
        lexi = client(server, http_client=Failing)
        assert lexi.chat("Hi").response == CHAT["response"]
        with pytest.raises(LookupError, match="mine"):
            lexi.close()
        lexi.close()
        assert other.chat("Hi").response == CHAT["response"]


def test_the_portals_stop_ends_all() -> None:
    """Calls are tasks of anyio's portal: its stop cancels them."""

    async def last() -> None:
        await portal.stop(cancel_remaining=True)

    with ScriptedServer(LexiScript(stream_fault=SILENT)) as server, client(server) as lexi, must_not_hang(10):
        stream = lexi.stream_chat("Hi")
        next(stream)
        thread = lexi._bridge.group().thread
        portal, call = thread.portal, Call(anyio.sleep_forever())
        lexi._bridge.group().start(call)
        portal.start_task_soon(last)
        thread.wait(call.ended)
        with pytest.raises(APIConnectionError, match="cancelled the call"):
            call.result()


def test_what_would_wait_is_not_driven() -> None:
    """What is run without a loop must not wait."""
    waits = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="waits"):
        drive(waits)
    waits.close()


# Forks -------------------------------------------------------------------------------------------------------------


class Forked:
    """Be, for this process, what a forked child is: of another id."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __enter__(self) -> Self:
        self._parent = os.getpid()
        self._patch.setattr(os, "getpid", lambda: self._parent + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # what the parent closes, and here is nobody's
def test_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child begins anew with its parent's client, and is told that the parent's stream is not its own."""
    with ScriptedServer(LexiScript(stream_fault=SILENT)) as server, must_not_hang(10):
        lexi = client(server)
        stream = lexi.stream_chat("Hi")
        assert [type(next(stream)), type(next(stream))] == [leadlex.Thinking, leadlex.ToolStep]
        parents, quota = lexi._bridge.group(), lexi._wrapped._transport.quota
        quota._lock.acquire()  # as a thread does that is gone in the child
        with Forked(monkeypatch):
            for read in (stream.__next__, stream.final_reply):
                with pytest.raises(ClientClosedError, match="forked") as caught:
                    read()
                assert (caught.value.charged, caught.value.partial) == ("unknown", stream.reply)
            began = time.monotonic()
            stream.close()
            assert time.monotonic() - began < 1
            assert lexi.chat("Hi").response == CHAT["response"]
            lexi.close()
        parents.stop()
        parents.join()


# Reading ahead -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [LexiScript(stream=MANY, sizes=(700,)), in_bits], ids=["blocks", "bits"])
def test_a_slow_reader(script: Any) -> None:
    """A stream is read ahead only so far, and goes on when its reader does, until the last word."""
    with no_leaks(), ScriptedServer(script) as server, client(server) as lexi:
        stream = lexi.stream_chat("Hi")
        first = next(stream)
        wait_until_full(stream)
        assert len(stream._pump._buffer.events) <= AHEAD < WORDS
        assert isinstance(first, leadlex.TextDelta)
        assert first.delta + "".join(stream.text_stream) == "word " * WORDS


def test_a_slow_reader_of_large_events() -> None:
    """What is read ahead is bounded in bytes too, and all of it comes once its reader goes on."""
    event = b'event: thinking\ndata: {"text": "%b"}\n\n' % (b"a" * 60_000)
    stream = event * 1000 + encode_stream([*text_events("word", size=4), ("done", {"credits_remaining": 1})])
    with no_leaks(), ScriptedServer(LexiScript(stream=stream, sizes=(len(event),))) as server, client(server) as lexi:
        asked = lexi.stream_chat("Hi")
        buffer = asked._pump._buffer
        next(asked)
        wait_until_full(asked)
        assert sum(map(size_of, buffer.events)) + 70_000 >= BUFFER_SIZE
        assert len(buffer.events) < 2 * BUFFER_SIZE / len(event)
        assert sum(isinstance(each, leadlex.Thinking) for each in asked) == 999
        assert asked.final_reply().response == "word"


def test_closing_under_a_full_buffer() -> None:
    """Closing the client ends a stream that waits for its reader; what was read ahead comes, then the error."""
    with no_leaks(), ScriptedServer(LexiScript(stream=MANY, sizes=(700,))) as server:
        lexi = client(server)
        stream = lexi.stream_chat("Hi")
        next(stream)
        wait_until_full(stream)
        with must_not_hang():
            lexi.close()
        with pytest.raises(ClientClosedError) as caught:
            assert len(list(stream)) > BUFFER
        assert caught.value.charged == "unknown"
        assert caught.value.partial == stream.reply


def test_skipping_what_was_read_ahead() -> None:
    """The final reply of a stream that was read a little has all of it."""
    with no_leaks(), ScriptedServer(LexiScript(stream=MANY, sizes=(700,))) as server, client(server) as lexi:
        stream = lexi.stream_chat("Hi")
        next(stream)
        wait_until_full(stream)
        assert stream.final_reply().response == "word " * WORDS
        with pytest.raises(StopIteration):
            next(stream)


def test_closed_with_words_unread() -> None:
    """A stream that was read ahead to its end and closed before is not taken for read."""
    with no_leaks(), ScriptedServer(LexiScript()) as server, client(server) as lexi:
        stream = lexi.stream_chat("Hi")
        next(stream)
        with must_not_hang():
            while not stream._pump._buffer.ended:
                time.sleep(0.01)
        stream.close()
        with pytest.raises(StreamInterruptedError, match="closed before its end") as caught:
            next(stream)
        assert caught.value.charged == "yes"


def test_an_event_between_two_looks() -> None:
    """An event that comes while its reader is about to wait is not waited for."""
    with no_leaks(), ScriptedServer(LexiScript(stream_fault=SILENT)) as server, client(server) as lexi:
        stream = lexi.stream_chat("Hi")
        buffer = stream._pump._buffer

        class Late(threading.Event):
            def clear(self) -> None:
                super().clear()
                buffer.events.append(leadlex.Thinking("late"))

        with stream, must_not_hang(5):
            assert [type(next(stream)), type(next(stream))] == [leadlex.Thinking, leadlex.ToolStep]
            buffer.filled = Late()
            assert next(stream) == leadlex.Thinking("late")


# Logs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet_again() -> Generator[logging.Logger]:
    """Give leadlex's logger, and put it back as it was."""
    logger = _logging.logger
    level, handlers = logger.level, list(logger.handlers)
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_one_line_an_attempt(
    runner: Runner,
    quiet_again: logging.Logger,
    environ: MutableMapping[str, str],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`LEADLEX_LOG` sends to stderr, once however many clients there are, a line an attempt of allowed fields alone."""
    environ["LEADLEX_LOG"] = " Info "

    async def scenario(lexi: Any) -> None:
        await lexi.conversation("conv_01HY1")
        await lexi.stream_chat("Privileged").final_reply()

    script = LexiScript(other_fault=Answer(503), stream_fault=Cut(220, "rst"))
    with ScriptedServer(script) as server:
        runner.make(api_key=API_KEY, base_url=server.url)
        runner.run(scenario, base_url=server.url, retries=AT_ONCE)
    lines = [line.split(" leadlex: ")[1].split(" ") for line in capsys.readouterr().err.splitlines()]
    told = [(words[:2] if words[0] == "trying" else words[:1], words) for words in lines]
    assert [" ".join(event) for event, _ in told] == ["trying again", "answered", "trying again", "answered"]
    shown = [set(record.leadlex) for record in caplog.records if record.name == "leadlex"]  # type: ignore[attr-defined]
    assert len(shown) == 4
    assert set().union(*shown) <= set(_logging.FIELDS)
    assert {"status=503", "kind=transient"} <= set(lines[0])
    assert "resumes=1" in lines[3]


@pytest.mark.parametrize("value", ["loud", "10", "debug,info"])
def test_a_level_that_is_none(value: str, environ: MutableMapping[str, str]) -> None:
    """A level that is none is refused in words, before anything is sent."""
    environ["LEADLEX_LOG"] = value
    with pytest.raises(ConfigurationError, match="LEADLEX_LOG must be one of debug, info, warning, error"):
        LeadLex(API_KEY)


def test_nothing_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """Without `LEADLEX_LOG` and without handlers of the application nothing is written, whatever goes wrong."""
    with ScriptedServer(LexiScript(chat_fault=Answer(500))) as server, client(server) as lexi:
        with pytest.raises(leadlex.ServerError):
            lexi.chat("Hi")
        assert capsys.readouterr() == ("", "")

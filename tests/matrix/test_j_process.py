"""Table J of the fault matrix: signals, the end of a process, and forks, by every Python that is here."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import json
import pickle
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

import leadlex
from leadlex._portal import calls, loop_thread, pump
from tests.matrix.oracles import PATIENT
from tests.support.captures import LONG, text_of
from tests.support.lexi import CHAT, Answer, Cut, LexiScript, Lost, Slow
from tests.support.programs import Ended, Python, pythons
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY
from tests.support.server import ScriptedServer, black_hole
from tests.support.tls import authority_pem, identity

every_python = pytest.mark.parametrize("python", pythons(), ids=lambda python: python.version)
#: The same, but all except the running one are heavy.
this_python = pytest.mark.parametrize(
    "python",
    [pytest.param(python, marks=[pytest.mark.heavy] * bool(number)) for number, python in enumerate(pythons())],
    ids=lambda python: python.version,
)

#: Two events, then silence; a stream, and all after it, that takes its time.
SILENT = Cut(after=220, how="stall")
SLOW = LexiScript(stream=LONG, stream_fault=Slow(0.02), times=None)

#: How long an end may take; measured it is a tenth of this and less, on a machine that does nothing else.
SOON = 3.0


@contextlib.contextmanager
def silent_server() -> Generator[ScriptedServer]:
    """Serve a Lexi that falls silent in every stream, answers no chat, and is ever busy for listings."""
    script = LexiScript(stream_fault=SILENT, chat_fault=Lost("stall"), other_fault=Answer(503), times=None)
    with ScriptedServer(script) as server:
        yield server


def tell(python: Python, **seconds: float) -> None:
    """Print the figures of a campaign; `pytest -s` shows them."""
    figures = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in seconds.items())
    sys.stdout.write(f"\nPython {python.version}: {figures}\n")


# Signals -----------------------------------------------------------------------------------------------------------

HEAD = """
import sys, threading, time, anyio, httpx, leadlex
lexi = leadlex.LeadLex(retries=leadlex.RetryPolicy(base=4, cap=4, floor=4))
def ready():
    print("ready")
class Stubborn(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request):
        ready()
        try:
            await anyio.sleep_forever()
        finally:
            print("cleaning")
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30)
class Clinging(httpx.AsyncClient):
    async def aclose(self):
        ready()
        await anyio.sleep(30)
"""

#: Where a program waits when Ctrl-C comes.
WAITS = {
    "next": """
for number, event in enumerate(lexi.stream_chat("Hi")):
    if number:
        ready()
""",
    "text": """
ready()
for delta in lexi.stream_chat("Hi").text_stream:
    print(delta)
""",
    "final_reply": """
ready()
with lexi, lexi.stream_chat("Hi") as stream:
    stream.final_reply()
""",
    "chat": """
ready()
with lexi:
    lexi.chat("Hi")
""",
    "retry": """
ready()
lexi.tasks()
""",
    "listing": """
ready()
for each in lexi.conversations():
    print(each)
""",
    "waiting for a task": """
ready()
lexi.wait_for_task("task-uuid")
""",
    "close": """
lexi = leadlex.LeadLex(http_client=lambda: Clinging())
try:
    lexi.tasks()
except leadlex.ServerError:
    lexi.close()
""",
    "asyncio": """
import asyncio
async def main():
    async with leadlex.AsyncLeadLex() as lexi:
        async for event in lexi.stream_chat("Hi"):
            ready()
asyncio.run(main())
""",
}


#: Those of them that wait for something else than an answer, on a connection that may be closed already.
ANSWERED = {"retry", "listing", "waiting for a task", "close"}


def _assert_interrupted(ended: Ended, sent: float) -> None:
    assert ended.code == -signal.SIGINT, ended
    assert ended.errors.rstrip().endswith("KeyboardInterrupt"), ended
    assert "Exception ignored" not in ended.errors
    assert ended.at - sent < SOON


def _interrupt(python: Python, wait: str) -> None:
    with silent_server() as server, python.start(HEAD + WAITS[wait], server.url) as program:
        program.wait_for("ready")
        assert server.wait_for_requests()
        time.sleep(0.1)
        sent = program.send()
        _assert_interrupted(program.end(), sent)
        assert wait in ANSWERED or server.wait_for_disconnect()


@every_python
@pytest.mark.row("J01", "J02", "J03")
def test_interrupted_wherever_it_waits(python: Python) -> None:
    """Ctrl-C ends a program at once wherever it waits, with the status of an interrupt, and its request with it."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(functools.partial(_interrupt, python), WAITS)) == [None] * len(WAITS)


@every_python
@pytest.mark.row("J02")
def test_interrupted_while_connecting(python: Python) -> None:
    """Ctrl-C ends a program that waits for a connection."""
    with black_hole() as url, python.start(HEAD + WAITS["chat"], url) as program:
        program.wait_for("ready")
        time.sleep(0.3)
        sent = program.send()
        _assert_interrupted(program.end(), sent)


@every_python
@pytest.mark.row("J02")
def test_interrupted_twice(python: Python) -> None:
    """A second Ctrl-C ends the wait for a request that does not let itself be cancelled."""
    source = HEAD + 'leadlex.LeadLex(http_client=lambda: httpx.AsyncClient(transport=Stubborn())).chat("Hi")'
    with python.start(source, "http://localhost") as program:
        program.wait_for("ready")
        program.send()
        program.wait_for("cleaning")
        time.sleep(0.2)
        sent = program.send()
        _assert_interrupted(program.end(), sent)


AGAIN = """
import json, os, signal, sys, threading, time, leadlex
took = []
with leadlex.LeadLex() as lexi:
    for number in range(int(sys.argv[1])):
        stream = lexi.stream_chat("Hi")
        next(stream)
        sent = []
        def interrupt():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)
        try:
            threading.Timer(0.01 + number % 7 / 100, interrupt).start()
            for event in stream:
                pass
        except KeyboardInterrupt:
            took.append(time.perf_counter() - sent[0])
        try:
            next(stream)
        except leadlex.StreamInterruptedError:
            lexi.tasks()
print(json.dumps(took))
"""


def _interrupted(python: Python, times: int) -> list[float]:
    """Interrupt a reader so often, each time followed by another call; return the seconds that each took."""
    with ScriptedServer(LexiScript(stream_fault=SILENT, times=None)) as server:
        source = AGAIN.replace("int(sys.argv[1])", str(times))
        with python.start(source, server.url) as program:
            ended = program.end(within=times * 0.2 + 20)
        assert (ended.code, ended.errors) == (0, "")
        assert server.wait_for_disconnect(count=times)
    took: list[float] = json.loads(ended.output)
    assert len(took) == times
    return took


@every_python
@pytest.mark.row("J01")
def test_going_on_after_an_interrupt(python: Python) -> None:
    """A program that catches Ctrl-C goes on at once with the same client; the server saw each stream being left."""
    assert statistics.median(_interrupted(python, 10)) < 0.5


@pytest.mark.heavy
@every_python
@pytest.mark.row("J01")
def test_200_interrupts(python: Python) -> None:
    """Of 200 interrupts of a blocked reader 99 in 100 are heard, and the stream closed, within 100 ms."""
    took = sorted(_interrupted(python, 200))
    tell(python, median=took[100], p99=took[197], worst=took[-1])
    assert took[197] < 0.1


@pytest.mark.heavy
@every_python
@pytest.mark.row("J01")
def test_back_at_the_prompt(python: Python) -> None:
    """From Ctrl-C to the end of the process takes less than 100 ms more than of a program that only imports httpx."""
    bare = "import asyncio, httpx, time\nhttpx.Client()\nprint('ready')\ntime.sleep(30)"
    fresh = dataclasses.replace(python, loads="")
    ours, others = _time_to_prompt(fresh, HEAD + WAITS["next"]), _time_to_prompt(fresh, bare)
    tell(python, leadlex=ours, bare=others)
    assert ours - others < 0.1  # on a machine that does nothing else


def _time_to_prompt(python: Python, source: str) -> float:
    """Return the median over twenty runs, in seconds."""
    took: list[float] = []
    with silent_server() as server:
        for _ in range(20):
            with python.start(source, server.url) as program:
                program.wait_for("ready")
                time.sleep(0.2)
                sent = program.send()
                took.append(program.end().at - sent)
    return statistics.median(took)


READER = """
text = ""
for delta in lexi.stream_chat("Hi").text_stream:
    text += delta
    ready()
print(ascii(text))
"""


@every_python
@pytest.mark.row("J09")
def test_terminated_and_paused(python: Python) -> None:
    """SIGTERM ends a reader at once; one that was stopped for a while goes on to the last word."""
    with ScriptedServer(SLOW) as server:
        with python.start(HEAD + READER, server.url) as program:
            program.wait_for("ready")
            sent = program.send(signal.SIGTERM)
            ended = program.end()
            assert (ended.code, ended.errors) == (-signal.SIGTERM, "")
            assert ended.at - sent < SOON
        with python.start(HEAD + READER, server.url) as program:
            program.wait_for("ready")
            program.send(signal.SIGSTOP)
            time.sleep(1)
            program.send(signal.SIGCONT)
            ended = program.end()
        assert (ended.code, ended.errors) == (0, "")
        assert ended.output.splitlines()[-1] == ascii(text_of(LONG))
        assert len(server.requests) == 2


# Exits -------------------------------------------------------------------------------------------------------------

#: Ways to leave a client open, each with the exit code it asks for.
EXITS: dict[str, tuple[str, int]] = {
    "global": ("lexi.tasks()", 0),
    "never used": ("lexi.stream_chat('Hi')", 0),
    "function": (
        """
def main():
    leadlex.LeadLex().tasks()
main()
""",
        0,
    ),
    "running stream": ("stream = lexi.stream_chat('Hi'); next(stream)", 0),
    "stream in a function": (
        """
def main():
    next(lexi.stream_chat('Hi'))
main()
""",
        0,
    ),
    "read by a daemon": (
        """
texts = lexi.stream_chat('Hi').text_stream
threading.Thread(target=next, args=(texts,), daemon=True).start()
time.sleep(0.2)
""",
        0,
    ),
    "entered": ("lexi.__enter__().tasks()", 0),
    "copy": ("copy = lexi.with_options(retries=0); lexi.tasks(); copy.tasks()", 0),
    "another thread": ("other = threading.Thread(target=lexi.tasks); other.start(); other.join()", 0),
    "sys.exit": ("next(lexi.stream_chat('Hi')); sys.exit(3)", 3),
    "uncaught": ("stream = lexi.stream_chat('Hi'); next(stream); raise LookupError('mine')", 1),
    "async": (
        """
import asyncio
async def main():
    await leadlex.AsyncLeadLex().tasks()
asyncio.run(main())
""",
        0,
    ),
    "builtins": (
        """
import builtins
builtins.lexi, builtins.stream = lexi, lexi.stream_chat('Hi')
next(builtins.stream)
""",
        0,
    ),
    "cycle": (
        """
class Holder:
    pass
holder = Holder()
holder.me, holder.lexi, holder.stream = holder, lexi, lexi.stream_chat('Hi')
next(holder.stream)
del holder, lexi
""",
        0,
    ),
}

LEFT = "import sys, threading, time, leadlex\nlexi = leadlex.LeadLex()\n"


def _leave(python: Python, url: str, name: str, *options: str) -> Ended:
    source, code = EXITS[name]
    began = time.monotonic()
    ended = python.run(f"{LEFT}{source}", url, *options)
    assert ended.code == code, (name, ended)
    assert ended.at - began < 10, name
    return ended


@every_python
@pytest.mark.row("J04", "J05")
def test_exit_with_an_open_client(python: Python) -> None:
    """A program that forgets to close ends by itself with its own exit code, and says nothing on stderr."""
    script = LexiScript(stream_fault=SILENT, times=None)
    with ScriptedServer(script) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        for name, ended in zip(EXITS, pool.map(lambda name: _leave(python, server.url, name), EXITS), strict=True):
            expected = "LookupError: mine" if name == "uncaught" else ""
            assert ended.errors.strip().splitlines()[-1:] == ([expected] if expected else []), (name, ended)
            assert ended.errors.count("Traceback") == bool(expected), (name, ended)


@this_python
@pytest.mark.row("J04", "J05")
def test_exit_in_dev_mode(python: Python) -> None:
    """In dev mode a program that forgets to close says so once for a stream that runs, and nothing else."""
    script = LexiScript(stream_fault=SILENT, times=None)
    names = ("global", "function", "running stream", "builtins", "cycle", "async")
    with ScriptedServer(script) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        run = functools.partial(_leave, python, server.url)
        for name, ended in zip(names, pool.map(lambda name: run(name, "-Xdev"), names), strict=True):
            said = [line for line in ended.errors.splitlines() if "Warning: " in line and "tracemalloc" not in line]
            assert len(said) <= 1, (name, ended)
            assert all("ResourceWarning: A ChatStream was left" in line for line in said), (name, ended)


AT_EXIT = """
import atexit, logging, leadlex
lexi, unused = leadlex.LeadLex(), leadlex.LeadLex()
stream = lexi.stream_chat("Hi")
atexit.register(logging.shutdown)
atexit.register(lexi.close)
atexit.register(unused.close)
atexit.register(stream.close)
atexit.register(lambda: print(len(lexi.tasks()), next(stream).text[:7]))
logging.shutdown()
print(next(stream).text[:7])
stream.close()
stream = lexi.stream_chat("Hi")
"""


@every_python
@pytest.mark.row("J10")
def test_closing_while_the_interpreter_ends(python: Python) -> None:
    """Clients can be used and closed by handlers of the exit, before and after logging is shut down."""
    with ScriptedServer(LexiScript(stream_fault=SILENT, times=None)) as server:
        ended = python.run(AT_EXIT, server.url, LEADLEX_LOG="debug")
        assert (ended.code, ended.output) == (0, "Looking\n1 Looking\n"), ended
        assert "Traceback" not in ended.errors, ended
        assert all(" leadlex: " in line for line in ended.errors.splitlines()), ended


MADE_AT_EXIT = """
import atexit, leadlex
atexit.register(lambda: print(type(leadlex.LeadLex()).__name__))
"""


@every_python
@pytest.mark.row("J10")
def test_made_while_the_interpreter_ends(python: Python) -> None:
    """A client can be made, with its certificates read, where no thread can be started any more."""
    ended = python.run(MADE_AT_EXIT, "https://localhost")
    assert (ended.code, ended.output, ended.errors) == (0, "LeadLex\n", ""), ended


# Forks -------------------------------------------------------------------------------------------------------------

#: Each begins with a client that has a stream running, and prints what its children say.
FORKS = {
    "child uses the client": """
if os.fork():
    os.wait()
    print("".join(stream.text_stream) == whole)
else:
    began = time.monotonic()
    lexi.chat("Hi")
    print(time.monotonic() - began < 3)
    print(lexi.stream_chat("Hi").final_reply().response == whole)
    sys.stdout.flush()
    os._exit(0)
""",
    "child exits": """
if os.fork():
    os.wait()
    print("".join(stream.text_stream) == whole, stream.resumes == 0)
else:
    sys.exit()
""",
    "child closes all": """
if os.fork():
    os.wait()
    print("".join(stream.text_stream) == whole, stream.resumes == 0)
else:
    began = time.monotonic()
    try:
        next(stream)
    except leadlex.ClientClosedError as error:
        print(error.charged == "unknown")
    stream.close()
    lexi.close()
    warnings.filterwarnings("always", "A ChatStream was left")  # nobody warns of a stream that was closed
    del stream, lexi
    gc.collect()
    print(time.monotonic() - began < 3)
""",
    "fork in a thread": """
def fork():
    if not os.fork():
        print(lexi.chat("Hi").response == chat)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
thread = threading.Thread(target=fork)
thread.start()
thread.join()
print("".join(stream.text_stream) == whole)
""",
    "fork under locks": """
from leadlex._portal.calls import current_process
quota, process = lexi._wrapped._transport.quota, current_process()
held, over = threading.Event(), threading.Event()
def hold():
    with quota._lock, process.lock:
        held.set()
        over.wait()
holder = threading.Thread(target=hold)
holder.start()
held.wait()
if not os.fork():
    print(lexi.chat("Hi").response == chat)
    sys.stdout.flush()
    os._exit(0)
os.wait()
over.set()
holder.join()
print("".join(stream.text_stream) == whole)
""",
    "multiprocessing": """
def work(number):
    return lexi.stream_chat("Hi").final_reply().response == whole
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(*pool.map(work, range(2)))
print("".join(stream.text_stream) == whole)
""",
    "gunicorn with preload": """
def serve(number):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(lexi.chat("Hi").response == chat)
    print(lexi.with_options(retries=0).chat("Hi").response == chat)
    signal.pause()
workers = [os.fork() or serve(number) for number in range(2)]
time.sleep(1)
for worker in workers:
    os.kill(worker, signal.SIGTERM)
print(all(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0 for worker in workers))
print("".join(stream.text_stream) == whole)
""",
    "Celery with prefork": """
def initialise():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
def task(message):
    with leadlex.LeadLex() as own:
        return own.chat(message).response == lexi.chat(message).response == chat
pool = multiprocessing.get_context("fork").Pool(2, initialise, maxtasksperchild=1)
print(*pool.map(task, ["Hi"] * 3, chunksize=1))
pool.close()
pool.join()
print("".join(stream.text_stream) == whole)
""",
    "async client": """
import asyncio
shared = leadlex.AsyncLeadLex()
async def ask():
    return (await shared.chat("Hi")).response == chat
print(asyncio.run(ask()))
if os.fork():
    os.wait()
    print(asyncio.run(ask()), "".join(stream.text_stream) == whole)
else:
    print(asyncio.run(ask()))
""",
}

# Python 3.12 warns of any fork beside a thread: the user's call, not ours.
FORKING = f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
import gc, multiprocessing, os, signal, sys, threading, time, leadlex
whole, chat = {text_of(LONG)!r}, {CHAT["response"]!r}
lexi = leadlex.LeadLex()
lexi.chat("Hi")
stream = lexi.stream_chat("Hi")
first = next(stream)
"""


def _fork(python: Python, name: str, url: str, *options: str, **variables: str) -> None:
    ended = python.run(FORKING + FORKS[name], url, *options, **variables)
    assert (ended.code, ended.errors) == (0, ""), (name, ended)
    # Two processes print at once: their line ends may come after both words.
    assert set(ended.output.replace("True", " True ").split()) == {"True"}, (name, ended)


@every_python
@pytest.mark.row("J06", "J07")
def test_forks(python: Python) -> None:
    """A forked child uses the client as if it were new, and the parent's stream goes on, byte by byte."""
    with ScriptedServer(SLOW) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda name: _fork(python, name, server.url), FORKS)) == [None] * len(FORKS)


@this_python
@pytest.mark.row("J07")
def test_forks_under_tls(python: Python, tmp_path: Path) -> None:
    """A child that ends says no goodbye on the parent's secure connection."""
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority_pem())
    with ScriptedServer(SLOW, tls=identity()) as server:
        for name in ("child exits", "child closes all", "child uses the client"):
            _fork(python, name, server.url, SSL_CERT_FILE=str(trusted))


@pytest.mark.heavy
@pytest.mark.row("J06")
def test_a_hundred_forks() -> None:
    """A hundred children, one after another, each use the client of a parent whose loop is busy."""
    source = """
def busy():
    while True:
        lexi.chat("Hi")
threading.Thread(target=busy, daemon=True).start()
for _ in range(100):
    if not os.fork():
        print(lexi.chat("Hi").response == chat)
        sys.stdout.flush()
        os._exit(0)
    os.wait()
"""
    with ScriptedServer(SLOW) as server, pythons()[0].start(FORKING + source, server.url) as program:
        ended = program.end(within=60)
    assert (ended.code, ended.errors) == (0, "")
    assert ended.output.split() == ["True"] * 100


SPAWN = """
import multiprocessing, sys, leadlex
def work(lexi):
    print(lexi)
if __name__ == "__main__":
    lexi = leadlex.LeadLex()
    try:
        multiprocessing.get_context("spawn").Process(target=work, args=(lexi,)).start()
    except TypeError as error:
        print(error)
"""


@every_python
@pytest.mark.row("J08")
def test_spawn(python: Python) -> None:
    """A client handed to a spawned process is refused in words that say where to make it."""
    ended = python.run(SPAWN, "http://localhost")
    assert (ended.code, ended.errors.count("Traceback")) == (0, 0), ended
    assert "make one in the process that uses it" in ended.output
    assert API_KEY not in ended.output + ended.errors


HANDLES: dict[str, Callable[[Any], Any]] = {
    "client": lambda lexi: lexi,
    "copy": lambda lexi: lexi.with_options(retries=0),
    "stream": lambda lexi: lexi.stream_chat("Privileged"),
    "texts": lambda lexi: lexi.stream_chat("Privileged").text_stream,
    "pager": lambda lexi: lexi.conversations(),
    "pages": lambda lexi: lexi.conversations().pages(),
    "thread": lambda lexi: lexi.thread(),
}


@pytest.mark.row("J08")
@pytest.mark.parametrize("make", HANDLES.values(), ids=HANDLES.keys())
@pytest.mark.parametrize("client", [leadlex.AsyncLeadLex, leadlex.LeadLex])
def test_pickling(client: Callable[..., Any], make: Callable[[Any], Any]) -> None:
    """Clients and their handles can be neither pickled nor deeply copied, and the refusal shows no secret."""
    handle = make(client(API_KEY, base_url="http://localhost"))
    for twist in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            twist(handle)
        assert API_KEY not in str(caught.value)
        assert "Privileged" not in str(caught.value)
    client_itself = make in (HANDLES["client"], HANDLES["copy"])
    assert not client_itself or "make one in the process that uses it" in str(caught.value)


# Threads -----------------------------------------------------------------------------------------------------------


@pytest.mark.row("J11")
def test_threads_are_given_back() -> None:
    """A client's one thread is a daemon, begins with the first call, and is gone once the client is closed."""
    before = threading.active_count()
    with ScriptedServer(LexiScript()) as server, no_leaks():
        served = threading.active_count()
        with leadlex.LeadLex(API_KEY, base_url=server.url, timeout=PATIENT) as lexi:
            assert threading.active_count() == served
            lexi.stream_chat("Hi").final_reply()
            lexi.with_options(retries=0).tasks()
            ours = [thread for thread in threading.enumerate() if thread.name == "leadlex"]
            assert [thread.daemon for thread in ours] == [True]
        assert not ours[0].is_alive()
    assert threading.active_count() == before


@pytest.mark.row("J11")
def test_one_thread_for_all_clients() -> None:
    """30 clients have one thread together, which ends with the last of them; one made afterwards has a new one."""

    def ours() -> int:
        return sum(thread.name == "leadlex" for thread in threading.enumerate())

    with ScriptedServer(LexiScript()) as server, no_leaks():
        for _ in range(2):
            clients = [leadlex.LeadLex(API_KEY, base_url=server.url, timeout=PATIENT) for _ in range(30)]
            assert [client.chat("Hi").response for client in clients] == [CHAT["response"]] * 30
            assert ours() == 1
            for client in clients[:20]:
                client.close()
            assert clients[29].chat("Hi").response == CHAT["response"]
            for client in clients[20:29]:
                client.close()
            assert ours() == 1
            clients.pop().close()
            assert ours() == 0
        forgotten = leadlex.LeadLex(API_KEY, base_url=server.url, timeout=PATIENT)
        forgotten.tasks()
        assert ours() == 1
        del forgotten


@pytest.mark.row("J12")
def test_waits_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the loop wakes ten times a second, so that Windows too hears Ctrl-C."""
    waits: list[float | None] = []

    class Event(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return super().wait(timeout)

    for module in (loop_thread, calls, pump):
        monkeypatch.setattr(module, "system_event", Event)
    with ScriptedServer(SLOW) as server, leadlex.LeadLex(API_KEY, base_url=server.url) as lexi:
        assert "".join(lexi.stream_chat("Hi").text_stream) == text_of(LONG)
        lexi.stream_chat("Hi").final_reply()
        lexi.chat("Hi")
    assert len(waits) > 10
    assert all(wait is not None and wait <= 0.1 for wait in waits)

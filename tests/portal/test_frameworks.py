"""leadlex inside of what others run it in: gevent, eventlet, gunicorn's workers, Celery's, and forks in C."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import leadlex
from leadlex import ConfigurationError
from leadlex.sandbox import Sandbox
from tests.support.captures import LONG, text_of
from tests.support.lexi import CHAT, Answer, Cut, Fault, LexiScript, Lost, Slow
from tests.support.programs import Ended, Python, pythons
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY
from tests.support.server import ScriptedServer
from tests.support.surroundings import run_code
from tests.support.tls import authority_pem, identity

#: An interpreter that has leadlex before the program begins, so that all is patched behind its back, and one that has
#: not.
LOADED = pythons()[0]
FRESH = dataclasses.replace(LOADED, loads="")
patched_when = pytest.mark.parametrize("python", [FRESH, LOADED], ids=["before", "after"])

#: Streams that take their time.
SLOW = LexiScript(stream=LONG, stream_fault=Slow(0.005), times=None)


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where a program that it runs is not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def assert_all_true(ended: Ended, count: int) -> None:
    """Check that a program ended well, said nothing on stderr, and printed so many times True."""
    assert (ended.code, ended.errors) == (0, ""), ended
    assert ended.output.split() == ["True"] * count, ended


# Greenlets ---------------------------------------------------------------------------------------------------------

#: What is common to all: clients that are shared, one for each call, and both kinds of calls.
CALLS = f"""
import asyncio, os, sys, time, leadlex
whole, chat = {text_of(LONG)!r}, {CHAT["response"]!r}
shared = [leadlex.LeadLex() for _ in range(3)]
def ask(lexi):
    return lexi.chat("Hi").response == chat
def read(lexi):
    return "".join(lexi.stream_chat("Hi").text_stream) == whole
def own(call):
    with leadlex.LeadLex() as lexi:
        return call(lexi)
jobs = [(call, lexi) for call in (ask, read) for lexi in shared for _ in range(5)]
jobs += [(own, call) for call in (ask, read) for _ in range(15)]
"""

GEVENT = """
import warnings
warnings.simplefilter("ignore")  # gevent's own, that ssl was loaded before it
from gevent import monkey
monkey.patch_all()
import gevent
"""


@needs("gevent")
@patched_when
def test_gevent(python: Python, tmp_path: Path) -> None:
    """Under gevent clients that are shared and clients a call work at once, over TLS, and the hub goes on meanwhile."""
    source = """
ticks = []
def tick():
    while True:
        ticks.append(gevent.sleep(0.01))
ticking = gevent.spawn(tick)
for job in gevent.joinall([gevent.spawn(*job) for job in jobs]):
    print(job.value)
print(len(ticks) > 5)
for lexi in shared:
    lexi.close()
"""
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(authority_pem())
    with ScriptedServer(SLOW, tls=identity()) as server:
        ended = python.run(GEVENT + CALLS + source, server.url, SSL_CERT_FILE=str(trusted))
    assert_all_true(ended, 61)


@needs("gevent")
@patched_when
def test_loops_beside_gevent(python: Python) -> None:
    """Under gevent the sandbox, and loops of the program's own, run beside the clients; threads end with the last."""
    source = """
async def beside():
    async with leadlex.AsyncLeadLex() as lexi:
        return (await lexi.chat("Hi")).response == chat
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
with leadlex.LeadLex.sandbox() as lexi, leadlex.LeadLex() as other:
    print(lexi.chat("Hi").response != chat)
    print(lexi.stream_chat("Hi").final_reply().response != whole)
    print(read(other))
    print(asyncio.run(beside()))
    print(threads() == before + 2)
    print(ask(shared[0]))
for lexi in shared:
    lexi.close()
ended = time.monotonic() + 5
while threads() > before and time.monotonic() < ended:
    time.sleep(0.01)
print(threads() == before)
"""
    with ScriptedServer(SLOW) as server:
        assert_all_true(python.run(GEVENT + CALLS + source, server.url), 7)


@needs("gevent")
def test_a_greenlet_that_is_killed() -> None:
    """A greenlet that is killed, or whose gevent.Timeout runs out, ends its request; the others and Ctrl-C go on."""
    source = """
lexi = leadlex.LeadLex()
victims = [gevent.spawn(lexi.chat, "Hi") for _ in range(2)]
while victims:
    gevent.sleep(0.2)
    victims.pop().kill()
try:
    with gevent.Timeout(0.2):
        lexi.chat("Hi")
except gevent.Timeout:
    print(len(lexi.tasks()))
lexi.chat("Hi")
"""
    script = LexiScript(chat_fault=Lost("stall"), times=None)
    with ScriptedServer(script) as server, FRESH.start(GEVENT + "import leadlex\n" + source, server.url) as program:
        program.wait_for("1")
        assert server.wait_for_disconnect(count=3)
        assert server.wait_for_requests(5)
        program.send(signal.SIGINT)
        ended = program.end()
    assert (ended.code, ended.errors.rstrip().endswith("KeyboardInterrupt")) == (-signal.SIGINT, True), ended


@needs("gevent")
def test_a_thread_of_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gevent has patched threads, clients and the sandbox get threads that it leaves alone."""
    # Coverage looks into threads that `threading` has started.
    originals: dict[str, object] = {
        "start_new_thread": lambda run, _: threading.Thread(target=run).start(),
        "allocate_lock": threading.Lock,
    }
    gevent_monkey = importlib.import_module("gevent.monkey")
    monkeypatch.setattr(gevent_monkey, "is_module_patched", lambda _: True)
    monkeypatch.setattr(gevent_monkey, "get_original", lambda _, name: originals[name])
    hub = importlib.import_module("gevent.hub").get_hub()
    with leadlex.LeadLex.sandbox() as lexi:
        assert "Lexi" in lexi.chat("Hi").response
        assert "Lexi" in lexi.stream_chat("Hi").final_reply().response
        thread = lexi._bridge.group().thread._thread
        assert thread.is_alive()
        assert thread not in threading.enumerate()
    assert not thread.is_alive()
    hub.destroy(destroy_loop=True)


EVENTLET = """
import sys, warnings
sys.modules["trio"] = None  # it can't be loaded after eventlet has patched
warnings.simplefilter("ignore")
import eventlet
eventlet.monkey_patch()
"""


@needs("eventlet")
@patched_when
def test_eventlet(python: Python) -> None:
    """Under eventlet clients work at once; a second loop, which it can't run, is told in words that name it."""
    source = """
for job in [eventlet.spawn(*job) for job in jobs]:
    print(job.wait())
def words(make):
    try:
        with make() as lexi:
            lexi.chat("Hi")
    except leadlex.LeadLexError as error:
        return type(error).__name__, str(error)
kind, said = words(leadlex.LeadLex.sandbox)
print(kind == "ConfigurationError" and "Under eventlet" in said)
for lexi in shared:
    lexi.close()
kind, said = words(leadlex.LeadLex.sandbox)
print(kind == "APIConnectionError" and "Under eventlet" in said)
print(own(ask))
"""
    with ScriptedServer(SLOW) as server:
        assert_all_true(python.run(EVENTLET + CALLS + source, server.url), 63)


# Servers -----------------------------------------------------------------------------------------------------------

APP = f"""
import leadlex
whole, chat = {text_of(LONG)!r}, {CHAT["response"]!r}
lexi, unused = leadlex.LeadLex(), leadlex.LeadLex()
lexi.tasks()
def own():
    with leadlex.LeadLex() as each:
        return each.chat("Hi").response == chat
ways = {{
    "/ask": lambda: lexi.chat("Hi").response == chat,
    "/read": lambda: "".join(lexi.stream_chat("Hi").text_stream) == whole,
    "/unused": lambda: unused.chat("Hi").response == chat,
    "/own": own,
}}
def app(environ, start_response):
    right = ways[environ["PATH_INFO"]]()
    start_response("200 OK" if right else "500 Wrong", [("Content-Length", "0")])
    return []
"""

#: Newer ones open a socket in the home directory, if not told to leave it; older ones don't know that.
SETTINGS = """
bind, workers, control_socket_disable = "127.0.0.1:0", 2, True
"""


@contextlib.contextmanager
def gunicorn(url: str, place: Path, *options: str, app: str = APP) -> Generator[str]:
    """Run gunicorn over an app, and give its base URL; it must end well and without a traceback."""
    (place / "leadlex_app.py").write_text(app, "utf-8")
    (place / "gunicorn.conf.py").write_text(SETTINGS, "utf-8")
    command = [sys.executable, "-m", "gunicorn", *options, "leadlex_app:app"]
    variables = {"LEADLEX_BASE_URL": url, "PYTHONPATH": str(Path.cwd())}
    variables["LEADLEX_API_KEY"] = os.environ.get("LEADLEX_API_KEY", API_KEY)
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=place, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            found = re.search(r"Listening at: (\S+)", line)
            if found:
                try:
                    yield found[1]
                finally:
                    process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, said
    assert not any("Traceback" in line or "[ERROR]" in line for line in said), said


@needs("gunicorn", "gevent")
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("kind", [("gevent",), ("gthread", "--threads", "4")], ids=["gevent", "gthread"])
def test_gunicorn(kind: tuple[str, ...], preload: tuple[str, ...], tmp_path: Path) -> None:
    """Each of 60 requests at once is right, with clients of the master, of the worker, and of the request."""
    with ScriptedServer(SLOW) as server, gunicorn(server.url, tmp_path, "-k", *kind, *preload) as url:
        ways = ["/ask", "/read", "/unused", "/own"] * 15
        with ThreadPoolExecutor(12) as pool, httpx.Client(base_url=url, timeout=30) as browser:
            assert [answer.status_code for answer in pool.map(browser.get, ways)] == [200] * 60


CELERY = f"""
import leadlex
from celery import Celery
app = Celery("leadlex_tasks", broker="filesystem://", backend="file://results")
app.conf.broker_transport_options = dict.fromkeys(["data_folder_in", "data_folder_out"], "queue")
app.conf.broker_connection_retry_on_startup = True
@app.task
def ask():
    with leadlex.LeadLex() as lexi:
        return lexi.chat("Hi").response == {CHAT["response"]!r}
"""


@needs("celery", "gevent")
@pytest.mark.heavy
def test_celery_with_gevent(tmp_path: Path) -> None:
    """In a Celery worker with gevent the README's pattern, a client a task, works for 60 tasks at once."""
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "leadlex_tasks.py").write_text(CELERY, "utf-8")
    call = "import leadlex_tasks; print(sum(job.get(30) for job in [leadlex_tasks.ask.delay() for _ in range(60)]))"
    with ScriptedServer(SLOW) as server:
        variables = {"LEADLEX_API_KEY": API_KEY, "LEADLEX_BASE_URL": server.url, "PYTHONPATH": str(Path.cwd())}
        options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **variables}}
        worker = [sys.executable, "-m", "celery", "-A", "leadlex_tasks", "worker", "-P", "gevent", "-c", "20"]
        with subprocess.Popen(worker, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
            done = subprocess.run([sys.executable, "-c", call], check=False, capture_output=True, text=True, **options)
            process.send_signal(signal.SIGTERM)
    assert done.stdout == "60\n", done


# Forks in C --------------------------------------------------------------------------------------------------------

#: Nothing in Python is told of such a fork. Its parent's threads rest meanwhile: where one waits for the GIL, that is
#: broken in the child, with leadlex or without.
FORKED_IN_C = f"""
import ctypes, leadlex, os, signal, sys, threading, time
from leadlex._portal.calls import current_process
whole, chat = {text_of(LONG)!r}, {CHAT["response"]!r}
def fork():
    time.sleep(0.1)
    return ctypes.PyDLL(None).fork()
def in_child(work):
    child = fork()
    if not child:
        signal.alarm(20)
        print(work())
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0)
def use():
    return lexi.chat("Hi").response == chat and lexi.stream_chat("Hi").final_reply().response == whole
"""

FORKS_IN_C = {
    "used": (
        """
with leadlex.LeadLex() as lexi:
    print(use())
    for _ in range(5):
        in_child(use)
    print(use())
""",
        12,
    ),
    "read": (
        """
lexi = leadlex.LeadLex()
stream = lexi.stream_chat("Hi")
print(isinstance(next(stream), leadlex.StreamEvent))
def orphan():
    try:
        stream.final_reply()
    except leadlex.ClientClosedError as error:
        stream.close()
        lexi.close()
        return "forked" in str(error)
in_child(orphan)
print(lexi.chat("Hi").response == chat)
stream.close()
""",
        4,
    ),
    "locked": (
        """
lexi = leadlex.LeadLex()
print(use())
held, over = threading.Event(), threading.Event()
def hold():
    with current_process().lock:
        held.set()
        over.wait()
threading.Thread(target=hold).start()
held.wait()
in_child(use)
over.set()
print(use())
""",
        4,
    ),
    "sandbox": (
        """
from leadlex.sandbox import Sandbox
sandbox = Sandbox(pace=0).start()
lexi = leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url)
def use():
    return "Lexi" in lexi.chat("Hi").response
def stop():
    done = use()
    sandbox.stop()
    lexi.close()
    return done
print(use())
in_child(stop)
print(use())
sandbox.stop()
""",
        4,
    ),
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize("python", pythons(), ids=lambda python: python.version)
@pytest.mark.parametrize("name", FORKS_IN_C)
def test_forks_in_c(name: str, python: Python) -> None:
    """A fork that no hook of Python's tells of, as uWSGI's, is as good as any: the process's id tells."""
    source, count = FORKS_IN_C[name]
    fault = Cut(after=220, how="stall") if name == "read" else ()
    with ScriptedServer(LexiScript(stream=LONG, stream_fault=fault)) as server:
        assert_all_true(python.run(FORKED_IN_C + source, server.url), count)


# Tests that stop the clock -----------------------------------------------------------------------------------------

FROZEN = f"""
import leadlex
from freezegun import freeze_time
from leadlex.sandbox import Sandbox
with freeze_time("2026-02-25"):
    with leadlex.LeadLex() as lexi:
        print(lexi.chat("Hi").response == {CHAT["response"]!r})
        stream = lexi.stream_chat("Hi")
        print(stream.final_reply().response == {text_of(LONG)!r})
        print(stream.resumes == 1)
        print(b": keep-alive" in b"".join(leadlex.sse(lexi.stream_chat("Hi"), keep_alive=0.05)))
        try:
            lexi.with_options(timeout=leadlex.Timeout(idle=0.2), resume=False).stream_chat("Hi").final_reply()
        except leadlex.StreamInterruptedError as error:
            print(error.__cause__.clock == "idle")
    with Sandbox(pace=200) as sandbox, leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        print("Lexi" in lexi.stream_chat("Hi").final_reply().response)
"""


@needs("freezegun")
def test_a_clock_that_stands_still() -> None:
    """Under freezegun a sync client goes on: retries end, clocks run out, and the sandbox talks at its pace."""
    faults: list[Fault] = [Cut(300), Slow(0), Slow(0.01), Cut(300, "stall")]
    script = LexiScript(stream=LONG, stream_fault=faults, chat_fault=Answer(429, code="rate_limited"))
    with ScriptedServer(script) as server:
        assert_all_true(LOADED.run(FROZEN, server.url), 6)


# Loading -----------------------------------------------------------------------------------------------------------

BROKEN = """
import sys, types
sys.modules[sys.argv[3]] = types.ModuleType(sys.argv[3])
try:
    exec(f"from {sys.argv[1]} import {sys.argv[2]}")
except ImportError as error:
    print(error, error.__cause__.__class__.__name__)
"""


@pytest.mark.parametrize(
    ("package", "name", "broken"), [("leadlex", "LeadLex", "h11"), ("leadlex.sandbox", "Sandbox", "sqlite3")]
)
def test_a_dependency_that_is_broken(package: str, name: str, broken: str) -> None:
    """A name that can't be loaded, since a dependency lacks something, says what, with that for its cause."""
    ran = run_code(BROKEN, package, name, broken)
    assert ran.stdout.startswith(f"{package}.{name} can't be loaded: module '{broken}' has no attribute")
    assert ran.stdout.endswith(" AttributeError\n")


# The sandbox in a child, and where no loop can run -----------------------------------------------------------------


def test_a_sandbox_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that stops its copy of a sandbox leaves the parent's alone."""
    with Sandbox(pace=0) as sandbox, leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
        *_, server = sandbox._parts()
        serving, parent = server._socket, os.getpid()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: parent + 1)
            server._socket = serving.dup()  # as a fork does
            server.stop()
        assert server._socket.fileno() == -1
        assert "Lexi" in lexi.chat("Hi").response


def test_a_sandbox_where_no_loop_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a loop runs in the thread already, the sandbox says so and names eventlet, and leaves nothing behind."""

    def refuse(_: object) -> None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")

    with no_leaks(), monkeypatch.context() as patch:
        patch.setattr(asyncio, "run", refuse)
        with pytest.raises(ConfigurationError, match=r"cannot be called from a running event loop\. Under eventlet"):
            Sandbox().start()

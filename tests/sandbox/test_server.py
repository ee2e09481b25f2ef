"""Starting, stopping, keeping, and failing plainly."""

import asyncio
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import leadlex.sandbox
from leadlex.sandbox import Sandbox
from leadlex.sandbox._store import Store
from tests.support.runners import wait_until

from .conftest import CEOS, STREAM, ask, client_of, code_of

JANE = {"message": "Where is Jane Doe?"}


def open_files() -> int:
    """Count the file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_starts_and_stops_fast_and_clean() -> None:
    """Many sandboxes, one after the other, leave no thread and no file behind."""
    Sandbox().start().stop()
    threads, files, begun = threading.active_count(), open_files(), time.monotonic()
    for _ in range(20):
        with Sandbox(pace=0) as sandbox, client_of(sandbox) as http:
            ask(http, "hello")
    assert time.monotonic() - begun < 10
    assert (threading.active_count(), open_files()) == (threads, files)


def test_starting_and_stopping_twice_is_once() -> None:
    """Both can be repeated; a new start has an empty memory, but the same ledger."""
    sandbox = Sandbox(pace=0)
    sandbox.credits = 10
    sandbox.stop()
    assert sandbox.start() is sandbox.start()
    with client_of(sandbox) as http:
        ask(http, "hello")
    sandbox.stop()
    sandbox.stop()
    with sandbox, client_of(sandbox) as http:
        assert http.get("/v1/lexi/conversations").json()["meta"]["total"] == 0
    assert (len(sandbox.charges), sandbox.credits) == (1, 9)


def test_says_that_it_does_not_run() -> None:
    """Without a start there is no URL."""
    with pytest.raises(RuntimeError, match="start"):
        _ = Sandbox().url


@pytest.mark.parametrize("fault", [{"kind": "stall"}, {"kind": "slow", "seconds": 60}, None])
def test_stops_while_requests_run(fault: dict[str, Any] | None) -> None:
    """Neither streams nor slow answers hold it up; their clients see the connection break."""
    sandbox = Sandbox(pace=1).start()
    if fault:
        sandbox.fail_next(**fault)
    with client_of(sandbox) as http, ThreadPoolExecutor(1) as pool:
        running = pool.submit(http.post, STREAM, json=JANE)
        wait_until(lambda: sandbox.requests)
        begun = time.monotonic()
        sandbox.stop()
        assert time.monotonic() - begun < 5
        with pytest.raises(httpx.TransportError):
            running.result(timeout=5)
    assert not sandbox.requests[0].disconnected


def test_works_in_a_running_loop_and_from_other_threads() -> None:
    """It has a loop of its own."""

    async def use() -> int:
        with Sandbox() as sandbox, client_of(sandbox) as http:
            return (await asyncio.to_thread(http.get, "/v1/lexi/tasks")).status_code

    assert asyncio.run(use()) == 200


def test_serves_many_at_once() -> None:
    """Streams run side by side, each with its own conversation."""
    with Sandbox(pace=500) as sandbox, client_of(sandbox) as http, ThreadPoolExecutor(20) as pool:
        running = [pool.submit(http.post, STREAM, json=JANE) for _ in range(40)]
        assert all(answer.result().content.endswith(b"data: [DONE]\n") for answer in running)
        assert http.get("/v1/lexi/conversations").json()["meta"]["total"] == 40
        assert sandbox.credits == 5_000 - 40 * 2


def test_keeps_a_connection_for_the_next_request(http: httpx.Client) -> None:
    """After a stream that was read to its end the same connection is used again."""
    ports = set[Any]()
    for _ in range(3):
        with http.stream("POST", STREAM, json=JANE) as answer:
            answer.read()
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(ports) == 1


def test_takes_the_port_that_is_wanted() -> None:
    """A port that is taken is an OSError, and leaves nothing open."""
    with Sandbox() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Sandbox(port=port).start()
    with Sandbox(port=port) as second:
        assert second.url == f"http://127.0.0.1:{port}"


def test_keeps_everything_in_a_file(tmp_path: Path) -> None:
    """Conversations, tasks, lists, credits and recorded streams survive a restart."""
    path = tmp_path / "data.sqlite"
    headers = {"Idempotency-Key": "123e4567-e89b-42d3-a456-426614174000"}
    with Sandbox(path, pace=0, task_seconds=0) as sandbox, client_of(sandbox) as http:
        http.post(f"/v1/lexi/tasks/{ask(http, CEOS)['task_id']}/approve")
        recorded = http.post(STREAM, json=JANE, headers=headers).content
        sandbox.credits = 77
    with Sandbox(path, pace=0) as sandbox, client_of(sandbox) as http:
        assert http.get("/v1/lexi/conversations").json()["meta"]["total"] == 2
        assert http.post(STREAM, json=JANE, headers=headers).content == recorded
        assert "in New York: 20 contacts" in ask(http, "Show my lists")["response"]
        assert sandbox.credits == 76
    with Sandbox(path, credits=5) as sandbox:
        assert sandbox.credits == 5


def test_a_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    """What it makes nobody else can read, whatever the process's mask is; a file that was there stays as it was."""
    made, found = tmp_path / "made.db", tmp_path / "found.db"
    mask = os.umask(0)
    try:
        found.touch()
        for path in (made, found):
            with Sandbox(path):
                pass
    finally:
        os.umask(mask)
    assert [path.stat().st_mode & 0o777 for path in (made, found)] == [0o600, 0o666]


def test_memory_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's name for memory makes no file of that name."""
    monkeypatch.chdir(tmp_path)
    with Sandbox(":memory:", pace=0) as sandbox, client_of(sandbox) as http:
        ask(http, "hello")
    assert list(tmp_path.iterdir()) == []


def test_reads_a_file_of_leadlex_0_1(tmp_path: Path) -> None:
    """A file whose messages name no tools is gone on with."""
    path = tmp_path / "old.db"
    with Sandbox(path, pace=0) as sandbox, client_of(sandbox) as http:
        known = ask(http, "Where is Jane Doe?")["conversation_id"]
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE message DROP COLUMN tool_calls")
    with Sandbox(path, pace=0) as sandbox, client_of(sandbox) as http:
        ask(http, "Where is Jane Doe?", conversation_id=known)
        messages = http.get(f"/v1/lexi/conversations/{known}").json()["data"]["messages"]
    assert [message.get("tool_calls") for message in messages] == [None, None, None, [{"tool": "contacts.get"}]]


def test_a_file_that_is_none_of_its_own_is_refused(tmp_path: Path) -> None:
    """What is no database stays as it was; what can't be made is told."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sirs, " * 100)
    with pytest.raises(OSError, match=r"letter.txt: file is not a database"):
        Sandbox(path).start()
    assert path.read_text().startswith("Dear Sirs")
    with pytest.raises(OSError, match="unable to open"):
        Sandbox(tmp_path / "none" / "data.sqlite").start()


def test_a_program_that_forgets_to_stop_ends() -> None:
    """Neither a thread nor a word on stderr keeps the interpreter, even while a stream runs."""
    program = (
        "import urllib.request, json\n"
        "from leadlex.sandbox import Sandbox\n"
        "sandbox = Sandbox(pace=1).start()\n"
        "headers = {'Authorization': f'Bearer {sandbox.api_key}', 'Content-Type': 'application/json'}\n"
        f"body = json.dumps({JANE!r}).encode()\n"
        f"request = urllib.request.Request(sandbox.url + {STREAM!r}, body, headers)\n"
        "print(urllib.request.urlopen(request).readline())\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert (ran.stdout, ran.stderr) == ("b'event: thinking\\n'\n", "")


def test_unknown_behaviours_are_refused() -> None:
    """A wrong `idempotency` is told the right ones."""
    with pytest.raises(ValueError, match="replay, regenerate, conflict"):
        Sandbox(idempotency="forget")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_fault_of_its_own_is_a_500_and_logged(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the sandbox did not foresee is told to the client, and in full to the log."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(Store, "settle", fail)
    answer = http.get("/v1/lexi/tasks")
    assert code_of(answer) == (500, "internal_error")
    assert "X-Request-ID" in answer.headers
    wait_until(lambda: "unforeseen" in caplog.text)


def test_too_many_open_files_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the thread from serving comes out of start."""

    def fail(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()
        raise OSError("Too many open files")

    monkeypatch.setattr(asyncio, "run", fail)
    with pytest.raises(OSError, match="Too many"):
        Sandbox().start()


def test_is_silent(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Neither good nor garbled requests write to any log of the server, whose loggers stay as they were."""
    caplog.set_level(logging.DEBUG)
    assert logging.getLogger("uvicorn.error").level == logging.NOTSET
    ask(http, "hello")
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as raw:
        raw.sendall(b"garbage\r\n\r\n")
        assert raw.recv(1_000).startswith(b"HTTP/1.1 400")
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_needs_its_extra_only_when_used() -> None:
    """To import the package loads neither starlette nor uvicorn."""
    program = "import sys, leadlex.sandbox; print({'starlette', 'uvicorn'} & sys.modules.keys())"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_has_the_names_of_its_list() -> None:
    """Every public name is there, and a misspelt one is an AttributeError."""
    assert all(hasattr(leadlex.sandbox, name) for name in leadlex.sandbox.__all__)
    assert not hasattr(leadlex.sandbox, "Sandpit")

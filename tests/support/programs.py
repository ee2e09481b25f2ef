"""Programs that use leadlex in processes of their own, by every Python that is present.

They are interrupted, forked and left alone; what a process says at its end is told to the test. Loading leadlex takes
most of such a program's time, so each interpreter is started once, loads it, and forks for every program: what it
forks has no thread yet and ends like any other process.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.runners import API_KEY

VERSIONS = ("3.11", "3.12", "3.13")
_ROOT = Path(__file__).parents[2]

#: Its arguments are what to load and the socket by which programs come, each with its stdout, its stderr and a pipe for
#: its id and its exit code, told by the process between. An interpreter in a shell's background ignores SIGINT.
_NURSERY = """
import json, os, signal, socket, sys
exec(sys.argv.pop())
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
nursery = socket.socket(fileno=int(sys.argv.pop()))
while True:
    order, pipes, _, _ = socket.recv_fds(nursery, 1 << 20, 3)
    if not order:
        os._exit(0)
    if not os.fork():
        break
    for each in pipes:
        os.close(each)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
program = os.fork()
if program:
    nursery.close()
    os.close(pipes[0])
    os.close(pipes[1])
    os.write(pipes[2], b"%d\\n" % program)
    os.write(pipes[2], b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]))
    os._exit(0)
os.dup2(pipes[0], 1)
os.dup2(pipes[1], 2)
for each in (*pipes, nursery.detach()):
    os.close(each)
source, variables = json.loads(order)
os.environ.update(variables)
del each, json, nursery, order, pipes, program, socket, variables, _
exec(source)
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Python:
    """An interpreter.

    Args:
        version: As `3.11`.
        path: Where it is.
        loads: What is loaded before its programs begin.
    """

    version: str
    path: str
    loads: str = "import anyio, httpx, leadlex; leadlex.LeadLex"

    def start(self, source: str, url: str, *options: str, **variables: str) -> Program:
        """Start a program for which `LEADLEX_BASE_URL` is `url`.

        Args:
            source: The program.
            url: Where Lexi is.
            options: The interpreter's, as `-Xdev`.
            variables: Further ones of its environment.
        """
        pipes = [os.pipe() for _ in range(3)]
        order = json.dumps([source, {"LEADLEX_BASE_URL": url, **variables}]).encode()
        socket.send_fds(_nursery(self, options), [order], [end for _, end in pipes])
        for _, end in pipes:
            os.close(end)
        return Program(*(start for start, _ in pipes))

    def run(self, source: str, url: str, *options: str, **variables: str) -> Ended:
        """Run a program to its end."""
        with self.start(source, url, *options, **variables) as program:
            return program.end()


@functools.cache
def _nursery(python: Python, options: tuple[str, ...]) -> socket.socket:
    """Start what programs are forked from; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [python.path, *options, "-c", _NURSERY, str(theirs.fileno()), python.loads],
        env=_environment(python.path),
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)
    return ours


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Args:
        code: Its exit code; that of a signal is negative.
        output: What it wrote, and was not read before.
        errors: What it wrote to stderr.
        at: When, in seconds of the monotonic clock.
    """

    code: int
    output: str
    errors: str
    at: float


class Program:
    """A program that runs, known by three pipes: its stdout, its stderr, and its id and exit code."""

    def __init__(self, output: int, errors: int, state: int) -> None:
        self._pipes = (output, errors, state)
        self._read = dict.fromkeys(self._pipes, b"")
        self._open = set(self._pipes)
        self._ended: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ended is None:
            self.send(signal.SIGKILL)
        for pipe in self._pipes:
            os.close(pipe)

    @property
    def _output(self) -> str:
        return self._read[self._pipes[0]].decode()

    @property
    def _state(self) -> list[bytes]:
        return self._read[self._pipes[2]].split(b"\n")[:-1]

    def _pump(self, seconds: float) -> None:
        """Read what has come, or wait for something to come."""
        for pipe in select.select(list(self._open), [], [], seconds)[0]:
            data = os.read(pipe, 65536)
            self._read[pipe] += data
            if not data:
                self._open.discard(pipe)
        if self._ended is None and len(self._state) > 1:
            self._ended = time.monotonic()

    def wait_for(self, line: str, within: float = 20.0) -> None:
        """Wait until the program has written a line; what it wrote up to there is dropped."""
        until, sign = time.monotonic() + within, f"{line}\n"
        while sign not in self._output:
            assert self._ended is None, f"ended without {line!r}: {self._read}"
            assert time.monotonic() < until, f"no {line!r}: {self._read}"
            self._pump(0.1)
        self._read[self._pipes[0]] = self._output.partition(sign)[2].encode()

    def send(self, number: int = signal.SIGINT) -> float:
        """Send a signal and tell when, in seconds of the monotonic clock."""
        while not self._state:
            self._pump(0.1)
        at = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self._state[0]), number)
        return at

    def end(self, within: float = 30.0) -> Ended:
        """Wait for the end, at most so many seconds."""
        until = time.monotonic() + within
        while self._open:
            assert time.monotonic() < until, f"hangs: {self._read}"
            self._pump(0.1)
        assert self._ended is not None
        errors = self._read[self._pipes[1]].decode()
        return Ended(int(self._state[1]), self._output, errors, self._ended)


# Interpreters ------------------------------------------------------------------------------------------------------


@functools.cache
def pythons() -> tuple[Python, ...]:
    """Find the supported Pythons that are here and can load leadlex; the running one comes first."""
    here = Python(f"{sys.version_info[0]}.{sys.version_info[1]}", sys.executable)
    others = (_find(version) for version in VERSIONS if version != here.version)
    return (here, *(other for other in others if other is not None))


def places(version: str) -> list[str]:
    """List where an interpreter may be: on the path, where it may be a shim that fails, and where managers keep it."""
    name = f"python{version}"
    folders = [Path(sys.base_prefix).parent, Path(os.environ.get("PYENV_ROOT", "")) / "versions"]
    kept = [str(path) for folder in folders for path in sorted(folder.glob(f"*{version}*/bin/{name}"))]
    on_path = shutil.which(name)
    return [on_path, *kept] if on_path else kept


def _find(version: str) -> Python | None:
    return next((Python(version, path) for path in places(version) if _loads(path)), None)


def _loads(path: str) -> bool:
    command = [path, "-c", "import leadlex; leadlex.LeadLex"]
    run = subprocess.run(command, env=_environment(path), cwd=_ROOT, capture_output=True, check=False)
    return run.returncode == 0


def _environment(path: str) -> dict[str, Any]:
    ours = ("PYTHON", "LEADLEX_", "COVERAGE")
    # leadlex and all it needs are pure Python: what is installed here serves each version, and no index is asked.
    packages = [str(_ROOT), str(Path(httpx.__file__).parents[1])]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "LEADLEX_API_KEY": API_KEY,
        "PYTHONPATH": os.pathsep.join(packages),
        "PYTHONUNBUFFERED": "1",
        **({} if path == sys.executable else {"PYTHONPYCACHEPREFIX": _cache()}),
    }


@functools.cache
def _cache() -> str:
    """Give a place for compiled modules, so that no other version writes beside the running one's."""
    place = tempfile.mkdtemp(prefix="leadlex-tests-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place

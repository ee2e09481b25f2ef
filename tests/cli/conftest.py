"""The command run in this process, over a real socket: with pipes, or on a terminal of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import IO, Any, NamedTuple

import pytest

from leadlex import cli
from leadlex.sandbox import Sandbox
from tests.support.surroundings import streams


class Result(NamedTuple):
    """Be what a run of the command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Read stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, Any]:
        """Read stderr as the one JSON object of an error."""
        (line,) = self.err.splitlines()
        error: dict[str, Any] = json.loads(line)["error"]
        return error


Run = Callable[..., Result]


@pytest.fixture
def sandbox(environ: MutableMapping[str, str]) -> Iterator[Sandbox]:
    """Start a sandbox in which no time passes, and let the environment name it."""
    with Sandbox(pace=0, task_seconds=0) as sandbox:
        environ["LEADLEX_API_KEY"] = sandbox.api_key
        environ["LEADLEX_BASE_URL"] = sandbox.url
        yield sandbox


@pytest.fixture
def keyless(environ: MutableMapping[str, str]) -> None:
    """Have no key, and no address but the service's."""
    environ.pop("LEADLEX_API_KEY", None)
    environ.pop("LEADLEX_BASE_URL", None)


def piped(data: bytes) -> io.TextIOWrapper:
    """Make a stdin of what is piped in."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command as a script does: stdin, stdout and stderr are no terminals."""

    def run_it(*arguments: str, stdin: bytes = b"", **others: Any) -> Result:
        with streams(stdin=piped(stdin), **others):
            code = cli.main(arguments)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run_it


class Terminal:
    """Be a terminal: keys can be typed ahead, and what is shown is kept."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        self._shown = bytearray()
        self._triggers: list[tuple[str, Callable[[], object]]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def open(self, mode: str) -> IO[str]:
        """Open it as one of a process's streams."""
        return os.fdopen(os.dup(self._slave), mode, encoding="utf-8")

    def type(self, keys: str) -> None:
        """Type ahead; EOT (4) is Ctrl-D."""
        os.write(self._master, keys.encode())

    def when(self, shown: str, action: Callable[[], object]) -> None:
        """Do something as soon as a text is shown."""
        self._triggers.append((shown, action))

    @property
    def text(self) -> str:
        """Give what was shown so far."""
        return self._shown.decode(errors="ignore").replace("\r\n", "\n")

    def _read(self) -> None:
        while data := self._next():
            self._shown += data
            while self._triggers and self._triggers[0][0] in self.text:
                self._triggers.pop(0)[1]()

    def _next(self) -> bytes:
        try:
            return os.read(self._master, 65536)
        except OSError:  # EIO: the last one who had it open closed it
            return b""

    def close(self) -> None:
        """Close it, once all was read; closing twice is fine."""
        if self._reader.is_alive():
            os.close(self._slave)
            self._reader.join(10)
            os.close(self._master)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Give a terminal."""
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def run_on(terminal: Terminal, environ: MutableMapping[str, str], capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command on the terminal; streams that are named go to pipes instead."""
    environ.update({"TERM": "xterm-256color", "COLUMNS": "100"})
    environ.pop("NO_COLOR", None)

    def run_it(*arguments: str, pipes: tuple[str, ...] = ()) -> Result:
        modes = {"stdin": "r", "stdout": "w", "stderr": "w"}
        with contextlib.ExitStack() as opened:
            shown = {name: opened.enter_context(terminal.open(modes[name])) for name in modes.keys() - {*pipes}}
            with streams(**{"stdin": piped(b""), **shown}):
                code = cli.main(arguments)
        terminal.close()
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run_it

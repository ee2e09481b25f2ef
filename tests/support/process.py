"""A scripted server in a process of its own, to be killed, stopped and left alone.

Whatever the server sees comes over as it happens, so a killed server's journal still tells all of it.
"""

import contextlib
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, BinaryIO, Self

from tests.support.journal import Entry, Journal, Watched
from tests.support.server import Script, ScriptedServer
from tests.support.tls import Identity


class ServerProcess(Watched):
    """The twin of `ScriptedServer` in a process of its own.

    Args:
        script: A function of a module's top level, a `functools.partial` of one, or a `LexiScript`.
        tls: Shake hands with this certificate before the script begins.
        port: The port; 0 takes a free one.
    """

    def __init__(self, script: Script, *, tls: Identity | None = None, port: int = 0) -> None:
        self.journal = Journal(refresh=self._catch_up)
        self._reading = threading.Lock()
        self._setup = pickle.dumps((script, tls, port))
        self._scheme = "https" if tls else "http"
        self.port = port

    def start(self) -> None:
        """Start the process and wait until it listens; entering the server does it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
        )
        self.port = self._hand_over()
        self._listener = threading.Thread(target=self._listen, name="server process", daemon=True)
        self._listener.start()

    def _hand_over(self) -> int:
        """Send the script and get the port."""
        _write(self._input, self._setup)
        try:
            port: int = pickle.loads(_read(self._output))  # noqa: S301 - our own child wrote it
        except EOFError:
            self._process.communicate()
            raise AssertionError("the server's process did not start; its own words are on stderr") from None
        return port

    def stop(self) -> None:
        """End the process, even a stopped one, and wait for it; leaving the server does it."""
        self.resume()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._listener.join(5)
        self._output.close()

    @property
    def url(self) -> str:
        """Tell the base URL, without a path."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Tell the id of the process."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process with SIGKILL and wait for its end."""
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop the process with SIGSTOP: the machine still accepts, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._process.send_signal(signal.SIGCONT)

    def release(self, name: str = "go") -> None:
        """Let the scripts go on that wait for this name, now or later."""
        _write(self._input, pickle.dumps(name))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self.raise_failures()

    @property
    def _input(self) -> BinaryIO:
        assert self._process.stdin is not None
        return _binary(self._process.stdin)

    @property
    def _output(self) -> BinaryIO:
        assert self._process.stdout is not None
        return _binary(self._process.stdout)

    def _listen(self) -> None:
        with contextlib.suppress(EOFError):
            while True:
                self._readable(None)
                self._fetch()

    def _catch_up(self) -> None:
        """Fetch what the process wrote before now: what it saw before it answered is never missing."""
        with contextlib.suppress(EOFError):
            self._fetch()

    def _fetch(self) -> None:
        with self._reading:
            while not self._output.closed and self._readable(0):
                self.journal.add(pickle.loads(_read(self._output)))  # noqa: S301 - our own child wrote it

    def _readable(self, timeout: int | None) -> bool:
        poller = select.poll()
        poller.register(self._output, select.POLLIN)
        return bool(poller.poll(timeout))


def _binary(stream: Any) -> BinaryIO:
    return stream  # type: ignore[no-any-return]


def _write(stream: BinaryIO, message: bytes) -> None:
    stream.write(struct.pack("!I", len(message)) + message)
    stream.flush()


def _read(stream: BinaryIO) -> bytes:
    return _exactly(stream, *struct.unpack("!I", _exactly(stream, 4)))


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.read(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _serve() -> None:
    """Serve until standard input ends, which the parent's death brings about too."""
    script, tls, port = pickle.loads(_read(sys.stdin.buffer))  # noqa: S301 - our own parent wrote it
    output, sys.stdout = sys.stdout.buffer, sys.stderr
    ready = threading.Event()

    def tell(entry: Entry) -> None:
        ready.wait()
        with contextlib.suppress(BrokenPipeError):
            _write(output, pickle.dumps(entry))

    server = ScriptedServer(script, tls=tls, port=port, journal=Journal(tell))
    server.start()
    _write(output, pickle.dumps(server.port))
    ready.set()
    with contextlib.suppress(EOFError):
        while True:
            server.release(pickle.loads(_read(sys.stdin.buffer)))  # noqa: S301 - our own parent wrote it
    server.stop()


if __name__ == "__main__":
    _serve()

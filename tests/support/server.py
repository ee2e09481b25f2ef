"""A scripted HTTP server on raw sockets, in threads of the test process.

A script is a function of a `Connection`. It says what happens on the wire, byte by byte; nothing happens that
no script said. `tests.support.process` runs the same scripts in a process of its own.
"""

import contextlib
import dataclasses
import functools
import itertools
import select
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from types import TracebackType
from typing import NoReturn, Self

from tests.support.journal import Charge, Connected, Disconnected, Failed, Journal, Request, Stalled, Watched
from tests.support.tls import Identity

#: Linux tells apart a peer that left from one that is silent; elsewhere only a script that reads can.
_PEER_LEFT = getattr(select, "POLLRDHUP", 0)


class ClientLeft(Exception):
    """The client closed its side, or reset the connection."""


class Stopped(Exception):
    """The server is being stopped."""


class Connection:
    """One client's connection, with the actions that a script can do.

    Every action that waits ends with `ClientLeft` or `Stopped`, which a script lets pass.

    Args:
        raw: The accepted socket.
        number: Counts the server's connections from 1.
        server: The server that accepted it.
    """

    def __init__(self, raw: socket.socket, number: int, server: "ScriptedServer") -> None:
        self.number = number
        self._server = server
        self._raw = raw
        self._plain_or_tls: socket.socket = raw
        self._received = bytearray()
        self._alarm, self._bell = socket.socketpair()
        self._closing = threading.Lock()
        self._closed = False
        self._client_left = False
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def closed(self) -> bool:
        """Tell whether the script ended the connection."""
        return self._closed

    # Receiving

    def receive(self, count: int) -> bytes:
        """Receive exactly `count` bytes; more stay unread, so that a client that sends on runs full.

        A head before them may have brought up to 64 KiB along.
        """
        while len(self._received) < count:
            self._read(count - len(self._received))
        return self._take(count)

    def receive_some(self) -> bytes:
        """Receive what there is, at least a byte."""
        if not self._received:
            self._read()
        return self._take(len(self._received))

    def receive_head(self) -> Request:
        """Receive a request's head only and put it on record; the body stays unread."""
        request = self._request(self._head(), b"")
        self._server.journal.add(request)
        return request

    def receive_request(self) -> Request:
        """Receive a whole request and put it on record."""
        head = self._request(self._head(), b"")
        request = dataclasses.replace(head, body=self._body(head), at=time.monotonic())
        self._server.journal.add(request)
        return request

    def drain(self) -> NoReturn:
        """Receive and forget until the client leaves."""
        while True:
            self._read()
            self._received.clear()

    def _request(self, head: bytes, body: bytes) -> Request:
        return Request(next(self._server.request_numbers), self.number, head, body, time.monotonic())

    def _head(self) -> bytes:
        return self._until(b"\r\n\r\n")

    def _body(self, request: Request) -> bytes:
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self._chunk, b""))
        return self.receive(int(request.headers.get("content-length", "0")))

    def _chunk(self) -> bytes:
        size = int(self._until(b"\r\n").split(b";")[0], 16)
        return self.receive(size + 2)[:-2]

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._read()
        return self._take(self._received.index(end) + len(end))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _read(self, most: int = 65536) -> None:
        with self._client_may_leave():
            data = self._plain_or_tls.recv(most)
        if not data:
            self._left()
        self._received += data

    # Sending

    def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Send bytes, each piece in a write of its own.

        Args:
            pieces: `tests.support.captures.cut` makes them.
            pause: Seconds to wait between two pieces.
        """
        for number, piece in enumerate(pieces):
            if number and pause:
                self.sleep(pause)
            with self._client_may_leave():
                self._plain_or_tls.sendall(piece)

    def send_together(self, *pieces: bytes) -> None:
        """Send bytes in one segment, each piece under TLS in a record of its own; on Linux, which can hold back."""
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.send(*pieces)
        self._raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def send_raw(self, data: bytes) -> None:
        """Send bytes below TLS: a forged or broken record."""
        with self._client_may_leave():
            self._raw.sendall(data)

    # Waiting

    def sleep(self, seconds: float) -> None:
        """Wait for some time."""
        self._hold(_never, seconds)

    def wait_for(self, name: str = "go") -> None:
        """Wait until the test calls `server.release(name)`."""
        self._hold(lambda: name in self._server.released)

    def stall(self) -> NoReturn:
        """Hold the connection open and read nothing, until the client leaves or the server stops.

        A client that leaves with unsent bytes is not seen: its FIN waits behind them, and they for a reader.
        """
        self._server.journal.add(Stalled(self.number))
        self._hold(_never)
        raise AssertionError("a stall without a limit ended")

    def _hold(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._raw, _PEER_LEFT)
        poller.register(self._alarm, select.POLLIN)
        while not self._server.stopping and not done():
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return
            self._look(dict(poller.poll(None if left is None else left * 1000)))
        if self._server.stopping:
            raise Stopped

    def _look(self, ready: dict[int, int]) -> None:
        if self._alarm.fileno() in ready:
            self._alarm.recv(64)
        if self._raw.fileno() in ready:
            self._left()

    # Ending

    def start_tls(self, identity: Identity) -> None:
        """Shake hands as a TLS server with this certificate; a client that refuses has left."""
        context = identity.context()
        with self._client_may_leave():
            self._plain_or_tls = context.wrap_socket(self._raw.dup(), server_side=True)

    def half_close(self) -> None:
        """Send FIN (under TLS without close_notify: a truncation) and go on receiving."""
        with self._client_may_leave():
            self._raw.shutdown(socket.SHUT_WR)

    def fin(self) -> None:
        """Send FIN, under TLS without close_notify, and close."""
        self.half_close()
        self._close()

    def rst(self) -> None:
        """Reset the connection; what the client had no room for is lost, what it has it can still read."""
        self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def close(self) -> None:
        """Close politely: close_notify under TLS, then FIN; what the end of a script does too."""
        if not self._closed:
            self._say_goodbye()
            self._empty()
        self._close()

    def _say_goodbye(self) -> None:
        if isinstance(self._plain_or_tls, ssl.SSLSocket):
            # Without blocking, close_notify is sent and the client's own is not waited for.
            self._plain_or_tls.settimeout(0)
            with contextlib.suppress(OSError, ValueError):
                self._plain_or_tls.unwrap()

    def _empty(self) -> None:
        # Linux answers a close with unread bytes by RST instead of FIN.
        self._raw.settimeout(0)
        with contextlib.suppress(OSError):
            while self._raw.recv(65536):
                pass

    def _close(self) -> None:
        with self._closing:
            self._closed = True
            for each in (self._plain_or_tls, self._raw, self._alarm, self._bell):
                each.close()

    @contextlib.contextmanager
    def _client_may_leave(self) -> Generator[None]:
        try:
            yield
        except OSError:
            # On a connection that the script closed it is the script's own mistake.
            if self._closed:
                raise
            self._left()

    def _left(self) -> NoReturn:
        if self._server.stopping:
            raise Stopped
        if not self._client_left:
            self._server.journal.add(Disconnected(self.number, time.monotonic()))
        self._client_left = True
        raise ClientLeft

    # For the server

    def charge(self, call: str, key: str | None, amount: int, path: str) -> None:
        """Put a charge on the ledger."""
        self._server.journal.add(Charge(call, key, amount, path))

    def ring(self) -> None:
        """Wake a script that waits, so that it looks at what was released."""
        with self._closing:
            if not self._closed:
                self._bell.send(b"!")

    def interrupt(self) -> None:
        """End whatever the script waits for; the server is stopping."""
        self.ring()
        with self._closing, contextlib.suppress(OSError):
            if not self._closed:
                self._raw.shutdown(socket.SHUT_RDWR)


def _never() -> bool:
    return False


Script = Callable[[Connection], None]
Handler = Callable[[Connection, Request], None]


def per_connection(*scripts: Script) -> Script:
    """Make one script of several: the n-th connection gets the n-th, all later ones the last."""
    return functools.partial(_follow_nth, scripts)


def _follow_nth(scripts: Sequence[Script], connection: Connection) -> None:
    scripts[min(connection.number, len(scripts)) - 1](connection)


def per_request(*handlers: Handler) -> Script:
    """Make a script of handlers: the n-th request gets the n-th, all later ones the last.

    Requests are counted over all connections, in the order in which they were read.
    """
    return functools.partial(_handle_each, handlers)


def _handle_each(handlers: Sequence[Handler], connection: Connection) -> None:
    while not connection.closed:
        request = connection.receive_request()
        handlers[min(request.number, len(handlers)) - 1](connection, request)


class ScriptedServer(Watched):
    """A server on a free loopback port that does on each connection what its script says.

    Args:
        script: What happens on each connection; it is closed politely when the script returns.
        tls: Shake hands with this certificate before the script begins.
        port: The port; 0 takes a free one.
        journal: Where what is seen is written.
        buffers: How many bytes the kernel may keep for each connection and direction; by default it decides.
    """

    def __init__(
        self,
        script: Script,
        *,
        tls: Identity | None = None,
        port: int = 0,
        journal: Journal | None = None,
        buffers: int | None = None,
    ) -> None:
        self.journal = journal or Journal()
        self.released: set[str] = set()
        self.stopping = False
        self.request_numbers = itertools.count(1)
        self._script = script
        self._tls = tls
        self._open: dict[Connection, threading.Thread] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        if buffers is not None:
            # Linux hands them down to the accepted sockets.
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="scripted server", daemon=True)

    @property
    def url(self) -> str:
        """Tell the base URL, without a path."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to accept; entering the server does it."""
        self._acceptor.start()

    def stop(self) -> None:
        """Close every connection and wait for every script's end; leaving the server does it."""
        self.stopping = True
        # On Linux a shutdown wakes a blocked accept; a close does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self._listener.close()
        for connection, thread in self._running():
            connection.interrupt()
            thread.join(5)
            assert not thread.is_alive(), f"the script of connection {connection.number} does not end"

    def release(self, name: str = "go") -> None:
        """Let the scripts go on that wait for this name, now or later."""
        self.released.add(name)
        for connection, _ in self._running():
            connection.ring()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self.raise_failures()

    def _running(self) -> list[tuple[Connection, threading.Thread]]:
        with self._lock:
            return list(self._open.items())

    def _accept(self) -> None:
        numbers = itertools.count(1)
        while not self.stopping:
            try:
                accepted, _ = self._listener.accept()
                self._serve(accepted, numbers)
            except OSError:
                # Stopping, or out of descriptors in a test about that.
                time.sleep(0.01)

    def _serve(self, accepted: socket.socket, numbers: Iterator[int]) -> None:
        try:
            connection = Connection(accepted, next(numbers), self)
        except OSError:
            accepted.close()
            raise
        self.journal.add(Connected(connection.number, time.monotonic()))
        name = f"scripted connection {connection.number}"
        thread = threading.Thread(target=self._run, args=(connection,), name=name, daemon=True)
        with self._lock:
            self._open[connection] = thread
        thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            with contextlib.suppress(ClientLeft, Stopped):
                if self._tls:
                    connection.start_tls(self._tls)
                self._script(connection)
        except Exception:  # noqa: BLE001 - whatever a script raises is told to the test
            self.journal.add(Failed(connection.number, traceback.format_exc()))
        finally:
            connection.close()
            with self._lock:
                del self._open[connection]


@contextlib.contextmanager
def dead_port() -> Generator[str]:
    """Give a URL where connections are refused: its port stays bound and nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Generator[str]:
    """Give a URL where connecting never ends: the queue of a listener that accepts nobody is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as waiting:
        for _ in range(4):
            visitor = waiting.enter_context(socket.socket())
            visitor.settimeout(0)
            visitor.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

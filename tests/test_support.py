"""The support that the other tests stand on does what it says."""

import contextlib
import functools
import importlib.util
import json
import re
import resource
import socket
import ssl
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import ModuleType
from typing import Any, Self

import anyio
import anyio.lowlevel
import httpx
import pytest

from tests.support import captures, resources, runners, surroundings, tls
from tests.support.answers import answer, chunk, error_answer, head, json_answer, last_chunk, sse_head
from tests.support.captures import CAPTURE, CAPTURE_TEXT, LONG, LONG_TEXT, cut, cuts, text_of
from tests.support.journal import Request
from tests.support.lexi import BODIES, Answer, Cut, Ending, Framing, LexiScript, Lost, Plain, Raw, Slow
from tests.support.process import ServerProcess
from tests.support.runners import AsyncRunner, Runner, SyncRunner
from tests.support.server import (
    Connection,
    Script,
    ScriptedServer,
    black_hole,
    dead_port,
    per_connection,
    per_request,
)
from tests.support.sse_cases import CASES, ENDING_CASES, Case

runner = runners.runner
leaves_nothing = resources.leaves_nothing

BOTH = pytest.mark.parametrize("make", [ScriptedServer, ServerProcess])
Server = ScriptedServer | ServerProcess
STREAM = "/v1/lexi/chat/stream"
CHAT = "/v1/lexi/chat"

#: httpx loads every authority of the machine for each client without one of these.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def hello(connection: Connection) -> None:
    """Answer one request."""
    connection.receive_request()
    connection.send(json_answer(200, {"hello": "you"}))


def stall(connection: Connection) -> None:
    """Never answer."""
    connection.receive_request()
    connection.stall()


def wait_then_answer(connection: Connection) -> None:
    """Answer when the test says so."""
    connection.receive_request()
    connection.wait_for("answer")
    connection.send(json_answer(200, {}))


def never_read(connection: Connection) -> None:
    """Read nothing at all."""
    connection.stall()


def broken(connection: Connection) -> None:
    """Be a wrong script."""
    connection.receive_request()
    raise ZeroDivisionError


def dial(server: Server) -> socket.socket:
    """Connect a plain socket."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def read_all(client: socket.socket) -> bytes:
    """Read up to the end of the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def ask(server: Server, path: str = "/", body: bytes = b"") -> bytes:
    """Send one request by hand and read all that comes."""
    with dial(server) as client:
        client.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        return read_all(client)


@contextlib.contextmanager
def most_descriptors(count: int) -> Generator[None]:
    """Let this process have no descriptor from this number on."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class TestAnswers:
    """Answers as bytes."""

    def test_contract_headers(self) -> None:
        """Every answer carries the quota and a request id, and what a test gives replaces them."""
        start = head(200, {"x-request-id": "mine"})
        assert start.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"X-RateLimit-Remaining: 999\r\n" in start
        assert start.lower().count(b"x-request-id") == 1
        assert start.endswith(b"x-request-id: mine\r\n\r\n")

    def test_bare(self) -> None:
        """Without the contract a head has only what was given, twice if given twice, and any status."""
        given = [("Retry-After", "1"), ("Retry-After", "2")]
        assert head(0, given, contract=False) == b"HTTP/1.1 000 Unknown\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\n"

    def test_json(self) -> None:
        """JSON is encoded and typed; a type or a framing that a test gives is kept."""
        assert json_answer(200, {"a": "é"}).endswith('\r\nContent-Length: 11\r\n\r\n{"a": "é"}'.encode())
        assert json_answer(200, b"{", {"content-type": "text/html"}).count(b"ype: ") == 1
        assert b"Length" not in answer(200, b"", {"Transfer-Encoding": "chunked"})
        assert error_answer(404, "not_found", "No").endswith(b'{"error": {"code": "not_found", "message": "No"}}')

    def test_stream_heads(self) -> None:
        """A stream is framed by chunks, by its length, or by the end of the connection."""
        assert b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n" in sse_head()
        assert b"Content-Length: 3\r\n" in sse_head(length=3)
        assert b"Connection: close\r\n" in sse_head(chunked=False)
        assert b"text/event-stream" not in sse_head({"Content-Type": "text/html"})
        assert chunk(b"a" * 17) + chunk(b"") + last_chunk() == b"11\r\n" + b"a" * 17 + b"\r\n0\r\n\r\n"


class TestCaptures:
    """Streams as bytes, and ways to cut them."""

    def test_capture(self) -> None:
        """The capture is the contract's, and can be read and written again to the byte."""
        assert len(CAPTURE) == 515
        assert captures.encode_stream(captures.CAPTURE_EVENTS) == CAPTURE
        assert CAPTURE_TEXT == "Jane Doe is currently in the Proposal stage..."

    def test_long(self) -> None:
        """The long stream has about 3 KB and characters of two, three and four bytes."""
        assert 2800 < len(LONG) < 3600
        assert text_of(LONG) == LONG_TEXT
        assert {len(character.encode()) for character in LONG_TEXT} == {1, 2, 3, 4}

    def test_other_generations(self) -> None:
        """A recut stream says the same in other deltas, a reworded one something else after `keep`."""
        assert text_of(captures.recut(LONG)) == LONG_TEXT
        assert captures.recut(LONG) != LONG
        other = text_of(captures.reword(LONG, keep=20))
        assert other[:20] == LONG_TEXT[:20]
        assert other[20] != LONG_TEXT[20]
        assert text_of(captures.reword(LONG, keep=20, version=2)) != other

    @pytest.mark.parametrize("data", [b"", b"a", CAPTURE])
    def test_cuts(self, data: bytes) -> None:
        """However it is cut, it is the same; the tail comes behind it."""
        assert {b"".join(pieces) for pieces in cuts(data).values()} == {data}
        tailed = cuts(data, b"tail")
        assert {b"".join(pieces) for pieces in tailed.values()} == {data, data + b"tail"}
        assert len(tailed) == 11

    def test_sizes(self) -> None:
        """Sizes are taken over and over."""
        assert cut(b"abcdefg", 1, 3) == [b"a", b"bcd", b"e", b"fg"]


class TestServer:
    """What a script can do, and what a test can ask."""

    @BOTH
    def test_request(self, make: Callable[[Script], Server]) -> None:
        """A request is recorded with its parts."""
        with make(hello) as server:
            reply = httpx.post(f"{server.url}/a%20b?page=2&q=%C3%A9", json={"a": 1}, headers={"Idempotency-Key": "k1"})
            assert reply.json() == {"hello": "you"}
            assert reply.headers["x-request-id"] == "req_01HY1"
            [request] = server.requests
        assert (request.method, request.path) == ("POST", "/a%20b")
        assert request.query == {"page": "2", "q": "é"}
        assert request.json == {"a": 1}
        assert request.idempotency_key == "k1"
        assert request.headers["content-type"] == "application/json"
        assert request.head.endswith(b"\r\n\r\n")
        assert server.connections == 1

    def test_chunked_request(self) -> None:
        """A body in chunks is recorded without their framing."""
        with ScriptedServer(hello) as server:
            httpx.post(server.url, content=iter([b"one", b"two"]))
            assert server.requests[0].body == b"onetwo"

    def test_parts(self) -> None:
        """A script may read the head only, then some bytes, and answer early."""

        def early(connection: Connection) -> None:
            connection.receive_head()
            seen.append(connection.receive(3))
            connection.send(json_answer(413, {}))

        seen: list[bytes] = []
        with ScriptedServer(early) as server:
            assert httpx.post(server.url, content=b"abcdef").status_code == 413
            assert seen == [b"abc"]
            assert server.requests[0].body == b""
            assert server.requests[0].json is None

    def test_unread_body_runs_full(self) -> None:
        """A server that never reads lets a client's write run into its timeout."""
        with ScriptedServer(never_read) as server, pytest.raises(httpx.WriteTimeout):
            httpx.post(server.url, content=b"x" * 20_000_000, timeout=httpx.Timeout(5, write=0.2))

    def test_pieces(self) -> None:
        """Bytes go out in the pieces given, with pauses."""

        def drip(connection: Connection) -> None:
            connection.receive_request()
            connection.send(*cut(json_answer(200, {}), 40), pause=0.01)

        with ScriptedServer(drip) as server:
            assert httpx.get(server.url).json() == {}

    @BOTH
    def test_release(self, make: Callable[[Script], Server]) -> None:
        """A script sleeps until the test releases it; a release that came first counts too."""
        with make(wait_then_answer) as server, dial(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert server.wait_for_requests()
            server.release("other")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(1)
            server.release("answer")
            client.settimeout(5)
            assert client.recv(12) == b"HTTP/1.1 200"
            assert httpx.get(server.url).json() == {}

    @BOTH
    def test_disconnect(self, make: Callable[[Script], Server]) -> None:
        """A client that leaves is seen, with the time; one that stays is not."""
        with make(stall) as server:
            before = time.monotonic()
            with dial(server) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                assert server.wait_for_requests()
                assert not server.wait_for_disconnect(0.05)
            assert server.wait_for_disconnect()
            assert before < server.disconnects[0].at < time.monotonic()

    def test_drain(self) -> None:
        """A script may read and forget all that a client sends until it leaves."""
        with ScriptedServer(Connection.drain) as server:
            with dial(server) as client:
                client.sendall(b"x" * 1_000_000)
            assert server.wait_for_disconnect()

    def test_disconnect_during_a_pause_or_a_send(self) -> None:
        """A client that leaves ends a pause, and a send of more than the network holds."""

        def babble(connection: Connection) -> None:
            connection.receive_request()
            while True:
                connection.send(b"x" * 1_000_000)

        script = per_connection(lambda connection: connection.sleep(60), babble)
        with ScriptedServer(script) as server:
            dial(server).close()
            assert server.wait_for_disconnect()
            with dial(server) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.recv(1)
            assert server.wait_for_disconnect(count=2)

    @pytest.mark.parametrize("how", ["fin", "rst", "half_close", "close"])
    def test_ends(self, how: str) -> None:
        """FIN is an end, RST an error, and after a half-close the server still hears."""

        def end(connection: Connection) -> None:
            connection.receive_request()
            connection.send(b"bye")
            getattr(connection, how)()
            if how == "half_close":
                heard.append(connection.receive(4))

        heard: list[bytes] = []
        with ScriptedServer(end) as server, dial(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\nmore"[: 22 if how == "half_close" else 18])
            if how == "rst":
                assert client.recv(3) == b"bye"
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            else:
                assert read_all(client) == b"bye"
            server.stop()
            assert heard == ([b"more"] if how == "half_close" else [])

    def test_fin_with_unread_bytes(self) -> None:
        """A script's end is FIN and not RST, even when the client had sent more than was read."""

        def rude(connection: Connection) -> None:
            connection.receive_head()
            connection.send(b"bye")
            connection.wait_for()

        with ScriptedServer(rude) as server, dial(server) as client:
            client.sendall(b"POST / HTTP/1.1\r\n\r\n")
            assert client.recv(3) == b"bye"
            client.sendall(b"x" * 1000)
            server.release()
            assert read_all(client) == b""

    def test_per_connection_and_request(self) -> None:
        """The n-th connection or request gets its own script, all later ones the last."""

        def say(number: int) -> Callable[[Connection, Request], None]:
            return lambda connection, _: connection.send(json_answer(200, number))

        def close(connection: Connection, request: Request) -> None:
            connection.fin()

        script = per_connection(hello, per_request(say(1), say(2), close, say(4)))
        with ScriptedServer(script) as server:
            assert httpx.get(server.url).json() == {"hello": "you"}
            with httpx.Client(base_url=server.url) as client:
                assert [client.get("/").json() for _ in range(1)] == [2]
                with pytest.raises(httpx.RemoteProtocolError):
                    client.get("/")
                assert [client.get("/").json() for _ in range(2)] == [4, 4]
            assert [request.connection for request in server.requests] == [1, 2, 2, 3, 3]
            assert [request.number for request in server.requests] == [1, 2, 3, 4, 5]

    @BOTH
    def test_failing_script(self, make: Callable[[Script], Server]) -> None:
        """A script that raises fails the test when the server is left, with its trace."""
        with pytest.raises(AssertionError, match="ZeroDivisionError"), make(broken) as server:
            ask(server)

    def test_stop_never_hangs(self) -> None:
        """Stopping ends every script at once, whatever it waits for, and leaves no thread."""

        def pick(connection: Connection) -> None:
            waits: list[Callable[[], Any]] = [
                connection.stall,
                connection.receive_request,
                connection.wait_for,
                connection.drain,
                lambda: connection.sleep(60),
                lambda: connection.send(b"x" * 100_000_000),
                lambda: connection.start_tls(tls.identity()),
            ]
            waits[connection.number % 7]()

        threads = threading.active_count()
        with ScriptedServer(pick) as server:
            clients = [dial(server) for _ in range(21)]
            assert server.wait_for_connections(21)
            time.sleep(0.05)
            before = time.monotonic()
        assert time.monotonic() - before < 2
        assert threading.active_count() == threads
        assert not server.disconnects
        for client in clients:
            client.close()

    def test_out_of_descriptors(self) -> None:
        """A server that ran out of descriptors serves on when there are some again."""
        with ScriptedServer(hello) as server:
            with socket.socket() as client, most_descriptors(client.fileno() + 1):
                client.connect(("127.0.0.1", server.port))
                time.sleep(0.05)
            assert ask(server).startswith(b"HTTP/1.1 200")

    @BOTH
    def test_stalls(self, make: Callable[[Script], Server]) -> None:
        """A server tells how many of its scripts stall, in whatever process it is, and keeps those that did."""
        with make(stall) as server:
            assert server.stalls == 0
            with dial(server) as first, dial(server) as second:
                for number, client in enumerate((first, second), 1):
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    runners.wait_until(lambda number=number: server.stalls == number)  # type: ignore[misc]
        assert server.stalls == 2

    def test_same_port_again(self) -> None:
        """A server can come back on its port."""
        with ScriptedServer(hello) as first:
            ask(first)
        with ScriptedServer(hello, port=first.port) as second:
            assert second.url == first.url
            assert ask(second).startswith(b"HTTP/1.1 200")

    def test_dead_port_and_black_hole(self) -> None:
        """One refuses connections, the other swallows them."""
        with dead_port() as url, pytest.raises(httpx.ConnectError):
            httpx.get(url)
        with black_hole() as url, pytest.raises(httpx.ConnectTimeout):
            httpx.get(url, timeout=0.3)

    def test_memory_of_a_large_answer(self) -> None:
        """A large body is sent from where it stands, and not copied for each connection."""
        body = json_answer(200, b"x" * 30_000_000)

        def send(connection: Connection) -> None:
            connection.receive_request()
            connection.send(body)

        with ScriptedServer(send) as server:
            tracemalloc.start()
            with httpx.stream("GET", server.url) as reply:
                assert sum(len(data) for data in reply.iter_raw()) == 30_000_000
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 10_000_000


class TestProcess:
    """A server in a process of its own can be killed and stopped."""

    def test_kill(self) -> None:
        """A killed server resets its clients, and its journal is still there."""
        with ServerProcess(stall) as server, dial(server) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert server.wait_for_requests()
            server.kill()
            assert client.recv(1) == b""
            assert len(server.requests) == 1

    def test_entries_are_there_with_the_answer(self) -> None:
        """What the process saw is there as soon as its answer is, large bodies too."""
        with ServerProcess(LexiScript()) as server, httpx.Client(base_url=server.url) as client:
            for number in range(1, 51):
                client.post(CHAT, json={"message": "x" * 4000 * number})
                assert len(server.requests) == number
                assert server.ledger.credits == number

    def test_pause(self) -> None:
        """A paused server answers nobody until it goes on; it can be stopped while paused."""
        with ServerProcess(hello) as server:
            server.pause()
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(server.url, timeout=0.3)
            server.resume()
            assert httpx.get(server.url).json() == {"hello": "you"}
            server.pause()

    def test_start_fails(self, capfd: pytest.CaptureFixture[str]) -> None:
        """A process that can't start says so, on a port in use for example."""
        with ScriptedServer(hello) as first:
            with pytest.raises(AssertionError, match="did not start"):
                ServerProcess(hello, port=first.port).start()
            assert "in use" in capfd.readouterr().err

    def test_lexi(self) -> None:
        """A whole Lexi travels to the process, and its ledger comes back."""
        with ServerProcess(LexiScript(), tls=tls.identity()) as server:
            reply = httpx.post(server.url + CHAT, json={"message": "Hi"}, verify=tls.client_context())
            assert reply.json() == BODIES["chat"]
            assert server.ledger.by_call == {"Hi": 1}


class TestTLS:
    """Certificates of every kind."""

    def test_good(self) -> None:
        """The trusted authority's certificate is good for 127.0.0.1 and localhost."""
        with ScriptedServer(hello, tls=tls.identity()) as server:
            for host in ("127.0.0.1", "localhost"):
                url = f"https://{host}:{server.port}"
                assert httpx.get(url, verify=tls.client_context()).json() == {"hello": "you"}

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("unknown_ca", "unable to get local issuer"),
            ("wrong_name", "not valid for"),
            ("expired", "expired"),
            ("old_tls", "(?i)protocol"),
        ],
    )
    def test_bad(self, kind: tls.Kind, reason: str) -> None:
        """Each fault is refused for its own reason, and the server sees the client leave."""
        with ScriptedServer(hello, tls=tls.identity(kind)) as server:
            with pytest.raises(httpx.ConnectError, match=reason):
                httpx.get(server.url, verify=tls.client_context())
            assert server.wait_for_disconnect()
            assert not server.requests

    @pytest.mark.parametrize("polite", [True, False])
    def test_close_notify(self, *, polite: bool) -> None:
        """A polite close says close_notify; a bare FIN is a truncation that the client can tell."""

        def end(connection: Connection) -> None:
            connection.start_tls(tls.identity())
            connection.send(b"bye")
            if not polite:
                connection.fin()

        context = tls.client_context()
        with (
            ScriptedServer(end) as server,
            context.wrap_socket(dial(server), server_hostname="localhost", suppress_ragged_eofs=False) as client,
        ):
            assert client.recv(3) == b"bye"
            if polite:
                assert client.recv(1) == b""
            else:
                with pytest.raises(ssl.SSLEOFError):
                    client.recv(1)

    def test_raw_record(self) -> None:
        """A forged record in the middle of a stream is refused."""

        def forge(connection: Connection) -> None:
            connection.start_tls(tls.identity())
            connection.receive_request()
            connection.send(sse_head(), chunk(b"data: a\n\n"))
            connection.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
            connection.stall()

        url = "https://localhost"
        with (
            ScriptedServer(forge) as server,
            httpx.Client(verify=tls.client_context()) as client,
            client.stream("GET", f"{url}:{server.port}") as reply,
        ):
            raw = reply.iter_raw()
            assert next(raw) == b"data: a\n\n"
            with pytest.raises((ssl.SSLError, httpx.ReadError)):
                next(raw)

    def test_reset(self) -> None:
        """A connection under TLS is reset like a plain one; the client asks the socket below TLS.

        Python's own `SSLSocket.recv` tells a reset as the end of the file (3.11.7).
        """

        def reset(connection: Connection) -> None:
            connection.start_tls(tls.identity())
            connection.receive(2)
            connection.rst()

        context = tls.client_context()
        with (
            ScriptedServer(reset) as server,
            context.wrap_socket(dial(server), server_hostname="localhost") as client,
            socket.socket(fileno=socket.dup(client.fileno())) as below,
        ):
            below.settimeout(5)
            client.sendall(b"hi")
            with pytest.raises(ConnectionResetError):
                read_all(below)


def stream(server: Server, message: str = "Hi", key: str | None = "k1") -> bytes:
    """Read a stream over a connection of its own, up to where it ends or breaks."""
    with httpx.Client(verify=NO_TLS, timeout=0.3) as client:
        return stream_with(client, server, message, key)


def stream_with(client: httpx.Client, server: Server, message: str, key: str | None) -> bytes:
    """Read a stream; the name of the error that broke it is put behind it."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body = b""
    try:
        with client.stream("POST", server.url + STREAM, json={"message": message}, headers=headers) as reply:
            if reply.status_code != 200:
                return b"%d" % reply.status_code
            for data in reply.iter_raw():
                body += data
    except httpx.TransportError as error:
        return body + f"<{type(error).__name__}>".encode()
    return body


class TestLexi:
    """A Lexi that answers plainly, and the faults put into it."""

    @pytest.mark.parametrize(
        ("method", "path", "operation"),
        [
            ("GET", "/functions/v1/api-gateway/v1/lexi/conversations?page=1", "listConversations"),
            ("GET", "/v1/lexi/conversations/conv_01HY1", "getConversation"),
            ("GET", "/v1/lexi/tasks?status=pending", "listTasks"),
            ("POST", "/v1/lexi/tasks/task-uuid/approve", "approveTask"),
            ("POST", "/v1/lexi/tasks/task-uuid/dismiss", "dismissTask"),
            ("POST", CHAT, "chat"),
        ],
    )
    def test_plain(self, method: str, path: str, operation: str) -> None:
        """Every endpoint answers the documented example, under any base path."""
        with ScriptedServer(LexiScript()) as server:
            reply = httpx.request(method, server.url + path, json={"message": "Hi"})
            assert reply.json() == BODIES[operation]
            assert reply.headers["x-request-id"] == "req_0001"
            assert server.ledger.credits == (operation == "chat")

    def test_unknown_endpoint_and_other_body(self) -> None:
        """Another path is not found; a test may give another body."""
        with ScriptedServer(LexiScript(bodies={"listTasks": {"data": {"tasks": []}}})) as server:
            assert httpx.get(server.url + "/v1/admin").status_code == 404
            assert httpx.get(server.url + "/v1/lexi/tasks").json() == {"data": {"tasks": []}}

    @pytest.mark.parametrize("framing", ["chunked", "close", "length"])
    def test_stream(self, framing: Framing) -> None:
        """A stream is the capture to the byte, however it is framed, and keeps its connection if it can."""
        with ScriptedServer(LexiScript(framing=framing, sizes=(1,))) as server, httpx.Client() as client:
            assert [stream_with(client, server, "Hi", None) for _ in range(2)] == [CAPTURE] * 2
            assert server.connections == (2 if framing == "close" else 1)
            assert server.ledger.by_call == {"Hi": 2}

    @pytest.mark.parametrize("after", [0, 1, 137, 515])
    @pytest.mark.parametrize(
        ("how", "seen"),
        [
            ("fin", b"<RemoteProtocolError>"),
            ("rst", b"<ReadError>"),
            ("stall", b"<ReadTimeout>"),
            ("end", b""),
        ],
    )
    def test_cut(self, after: int, how: Ending, seen: bytes) -> None:
        """A stream breaks off after exactly so many bytes, once; its repeat is whole and costs nothing."""
        with ScriptedServer(LexiScript(stream_fault=Cut(after, how))) as server:
            assert stream(server) == CAPTURE[:after] + seen
            assert stream(server) == CAPTURE
            assert server.ledger.by_key == {"k1": 1}
            assert server.ledger.worst == 1

    def test_cut_inside_a_chunk(self) -> None:
        """The cut may fall inside a chunk that promised more."""
        script = LexiScript(stream_fault=Cut(20, inside_chunk=True), times=None)
        with ScriptedServer(script) as server, dial(server) as client:
            client.sendall(b'POST /v1/lexi/chat/stream HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"message":"a"}')
            assert read_all(client).endswith(b"\r\n140\r\n" + CAPTURE[:20])

    def test_close_delimited_cut(self) -> None:
        """Without framing a cut looks like an end."""
        script = LexiScript(stream_fault=Cut(20), framing="close")
        with ScriptedServer(script) as server:
            assert stream(server) == CAPTURE[:20]

    @pytest.mark.parametrize(
        ("fault", "seen", "charges"),
        [
            (Lost(), b"<RemoteProtocolError>", 1),
            (Lost("rst", after=9), b"<ReadError>", 1),
            (Raw(b"\x16\x03\x01", size=1, pause=0.001), b"<RemoteProtocolError>", 1),
            (Answer(429, code="rate_limited", headers={"Retry-After": "1"}), b"429", 0),
            (Answer(503), b"503", 1),
            (Answer(503, {}, refusal=True), b"503", 0),
            (Slow(0.001), CAPTURE, 1),
        ],
    )
    def test_faults(self, fault: Any, seen: bytes, charges: int) -> None:
        """Each fault does its damage, and only a refusal is free."""
        with ScriptedServer(LexiScript(stream_fault=fault)) as server:
            assert stream(server) == seen
            assert len(server.ledger.charges) == charges
            assert stream(server) == CAPTURE
            assert server.ledger.worst == 1

    def test_several_faults_in_turn(self) -> None:
        """Faults come one after the other, so many times; a function is one too."""

        def tease(connection: Connection, plain: Plain) -> None:
            connection.send(plain.head, plain.frame(b": ping\n\n"))
            plain.end(connection)

        with ScriptedServer(LexiScript(stream_fault=[Answer(500), tease], times=2)) as server:
            assert [stream(server) for _ in range(5)] == [
                b"500",
                b": ping\n\n",
                b"500",
                b": ping\n\n",
                CAPTURE,
            ]

    def test_chat_and_other_faults(self) -> None:
        """Faults keep to their endpoint; `chat` is charged every time, having no key."""
        script = LexiScript(chat_fault=Lost(), other_fault=Answer(500))
        with ScriptedServer(script) as server:
            assert httpx.get(server.url + "/v1/lexi/tasks").status_code == 500
            assert httpx.get(server.url + "/v1/lexi/tasks").status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.post(server.url + CHAT, json={"message": "Hi"})
            assert httpx.post(server.url + CHAT, json={"message": "Hi"}).status_code == 200
            assert server.ledger.worst == 2
            assert not server.ledger.by_key

    def test_regen(self) -> None:
        """A repeated key gets another wording each time, not charged; another key the first one."""
        with ScriptedServer(LexiScript(personality="regen", keep=5)) as server:
            texts = [text_of(stream(server)) for _ in range(3)]
            assert len(set(texts)) == 3
            assert {text[:5] for text in texts} == {"Jane "}
            assert len({text[5] for text in texts[1:]} | {texts[0][5]}) == 2
            assert stream(server, key="k2") == CAPTURE
            assert server.ledger.by_key == {"k1": 1, "k2": 1}

    def test_regen_same(self) -> None:
        """A repeated key gets the same text in other deltas."""
        with ScriptedServer(LexiScript(personality="regen_same", stream=LONG)) as server:
            first, second, third = (stream(server) for _ in range(3))
            assert len({first, second, third}) == 3
            assert text_of(first) == text_of(second) == text_of(third) == LONG_TEXT
            assert server.ledger.credits == 1

    def test_conflict(self) -> None:
        """A repeated key gets 409 while the first is being answered and so often after; then the record."""
        script = LexiScript(personality="conflict", stream_fault=Cut(30, "stall"), conflicts=3)
        with ScriptedServer(script) as server:
            with httpx.stream("POST", server.url + STREAM, json={"message": "Hi"}, headers={"Idempotency-Key": "k1"}):
                assert [stream(server) for _ in range(2)] == [b"409"] * 2
            assert server.wait_for_disconnect()
            assert [stream(server) for _ in range(2)] == [b"409", CAPTURE]
            assert server.ledger.worst == 1

    def test_refused_first_request(self) -> None:
        """A key whose first request was refused is new at the next one."""
        script = LexiScript(personality="regen", stream_fault=Answer(429, code="rate_limited"))
        with ScriptedServer(script) as server:
            assert [stream(server), stream(server)] == [b"429", CAPTURE]
            assert server.ledger.credits == 1


def test_many_clients() -> None:
    """Fifty streams at a time are no trouble."""
    with ScriptedServer(LexiScript()) as server:

        def read(message: str, key: str) -> None:
            with httpx.Client(verify=NO_TLS) as client:
                assert stream_with(client, server, message, key) == CAPTURE

        threads = [threading.Thread(target=read, args=(f"call {number}", f"k{number}")) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 50
        assert len(server.ledger.by_key) == 50
        assert server.ledger.worst == 1
        assert json.loads(server.requests[0].body)["message"].startswith("call ")


def decode(raw: bytes) -> list[tuple[str, str]]:
    """Decode as the standard says, step by step, whole; an independent reading to check the cases by."""
    text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\n|\r", text)
    events: list[tuple[str, str]] = []
    name = data = ""
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data not in ("", "\n"):
                events.append((name or "message", data[:-1]))
            name = data = ""
        elif field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return events


def names(cases: list[Case]) -> list[str]:
    """List the cases' names."""
    return [case.name for case in cases]


class TestCases:
    """The conformance cases say what the standard says."""

    def test_names(self) -> None:
        """Each case has a name of its own, and there are enough of them."""
        assert len(set(names(CASES + ENDING_CASES))) == len(CASES + ENDING_CASES)
        assert len(CASES) >= 36

    @pytest.mark.parametrize("case", CASES, ids=names(CASES))
    def test_case(self, case: Case) -> None:
        """An independent reading of the standard gives the same events, with or without more behind them."""
        assert decode(case.raw) == case.events

    @pytest.mark.parametrize("case", ENDING_CASES, ids=names(ENDING_CASES))
    def test_ending(self, case: Case) -> None:
        """A plain decoder lacks the last event; with the empty line added it has it."""
        plain = decode(case.raw)
        assert plain in (case.events, case.events[:-1])
        if plain != case.events:
            assert decode(case.raw + b"\n\n") == case.events


class TestResources:
    """Oracle O4, and the guard against tests that hang."""

    def test_nothing_held(self) -> None:
        """What is given back in time is no leak, even from a thread a little later."""
        with resources.no_leaks(), ScriptedServer(hello) as server:
            ask(server)
        with resources.no_leaks():
            held = socket.socket()
            threading.Timer(0.1, held.close).start()

    def test_descriptor(self) -> None:
        """An open descriptor is named."""
        with (
            contextlib.ExitStack() as held,
            pytest.raises(AssertionError, match=r"fd .*socket"),
            resources.no_leaks(0.05),
        ):
            held.enter_context(socket.socket())

    def test_thread(self) -> None:
        """A running thread is named."""
        end = threading.Event()
        thread = threading.Thread(target=end.wait, name="left over")
        with pytest.raises(AssertionError, match="left over"), resources.no_leaks(0.05):
            thread.start()
        end.set()
        thread.join()

    def test_error_goes_first(self) -> None:
        """A block that raises is not checked."""
        with contextlib.ExitStack() as held:

            def fail() -> None:
                with resources.no_leaks(0.05):
                    held.enter_context(socket.socket())
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                fail()

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_task(self, backend: str) -> None:
        """A task that goes on is named; one that ends in time is none, since the loop works on."""

        async def main() -> None:
            async with anyio.create_task_group() as group:
                async with resources.no_leaks():
                    group.start_soon(anyio.sleep, 0.1)
                with pytest.raises(AssertionError, match="sleep"):
                    async with resources.no_leaks(0.05):
                        group.start_soon(anyio.sleep, 60)
                group.cancel_scope.cancel()

        anyio.run(main, backend=backend)

    @pytest.mark.trio
    def test_worker_threads(self) -> None:
        """The threads that event loops keep for blocking calls don't count."""

        async def main() -> None:
            with resources.no_leaks(0.05):
                await anyio.to_thread.run_sync(time.sleep, 0)

        for backend in ("asyncio", "trio"):
            anyio.run(main, backend=backend)

    @pytest.mark.usefixtures("leaves_nothing")
    def test_fixture(self) -> None:
        """The fixture checks a whole test."""
        with ScriptedServer(LexiScript()) as server:
            assert stream(server) == CAPTURE

    def test_must_not_hang(self) -> None:
        """A block that hangs is left, past any `except Exception`; a quick one, or one around it, is not disturbed."""

        def hang() -> None:
            with resources.must_not_hang(), contextlib.suppress(Exception):
                time.sleep(0)
            time.sleep(60)

        with pytest.raises(resources.Hung), resources.must_not_hang(0.05), contextlib.suppress(Exception):
            hang()


class FakeStream:
    """A sync stream, as small as can be."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.resumes = 0
        self._events = iter("abc")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._events)

    @property
    def text_stream(self) -> Iterator[str]:
        """Give the deltas."""
        return (event.upper() for event in self)

    def final_reply(self) -> str:
        """Read what is left."""
        return "".join(self)

    def close(self) -> None:
        """Close."""
        self.log.append("stream closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FakePager:
    """A sync pager."""

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 3))

    def pages(self) -> Iterator[list[int]]:
        """Give the pages."""
        return iter(([1, 2], [3]))

    def first_page(self) -> list[int]:
        """Give one page."""
        return [1, 2]


class FakeClient:
    """A sync client."""

    def __init__(self, *, api_key: str, log: list[str], resume: bool = True) -> None:
        self.api_key = api_key
        self.log = log
        self.resume = resume

    def chat(self, message: str, *, pause: float = 0.0) -> str:
        """Answer, or fail on no message."""
        if not message:
            raise ValueError("no message")
        time.sleep(pause)
        return f"re: {message}"

    def stream_chat(self, _: str) -> FakeStream:
        """Stream."""
        return FakeStream(self.log)

    def conversations(self) -> FakePager:
        """List."""
        return FakePager()

    def with_options(self, *, resume: bool) -> "FakeClient":
        """Copy."""
        return FakeClient(api_key=self.api_key, log=self.log, resume=resume)

    def close(self) -> None:
        """Close."""
        self.log.append("client closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class FakeAsyncStream:
    """The same stream, async."""

    def __init__(self, log: list[str]) -> None:
        self._sync = FakeStream(log)
        self.resumes = 0

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        await anyio.lowlevel.checkpoint()
        for event in self._sync:
            return event
        raise StopAsyncIteration

    @property
    async def text_stream(self) -> AsyncIterator[str]:
        """Give the deltas."""
        async for event in self:
            yield event.upper()

    async def final_reply(self) -> str:
        """Read what is left."""
        return "".join([event async for event in self])

    async def aclose(self) -> None:
        """Close."""
        self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


class FakeAsyncPager:
    """The same pager, async."""

    async def __aiter__(self) -> AsyncIterator[int]:
        for item in FakePager():
            yield item

    async def pages(self) -> AsyncIterator[list[int]]:
        """Give the pages."""
        for page in FakePager().pages():
            yield page

    async def first_page(self) -> list[int]:
        """Give one page."""
        return FakePager().first_page()


class FakeAsyncClient:
    """The same client, async."""

    def __init__(self, **options: Any) -> None:
        self._sync = FakeClient(**options)
        self.api_key = self._sync.api_key
        self.resume = self._sync.resume

    async def chat(self, message: str, *, pause: float = 0.0) -> str:
        """Answer, or fail on no message."""
        await anyio.sleep(pause)
        return self._sync.chat(message)

    def stream_chat(self, _: str) -> FakeAsyncStream:
        """Stream."""
        return FakeAsyncStream(self._sync.log)

    def conversations(self) -> FakeAsyncPager:
        """List."""
        return FakeAsyncPager()

    def with_options(self, *, resume: bool) -> "FakeAsyncClient":
        """Copy."""
        return FakeAsyncClient(api_key=self.api_key, log=self._sync.log, resume=resume)

    async def aclose(self) -> None:
        """Close."""
        self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()


FAKES: list[Runner] = [
    AsyncRunner("asyncio", FakeAsyncClient),
    AsyncRunner("trio", FakeAsyncClient),
    SyncRunner(FakeClient),
]


@pytest.mark.parametrize("fake", FAKES, ids=lambda fake: fake.name)
class TestRunners:
    """A scenario is written once and runs on each runner."""

    def test_call(self, fake: Runner) -> None:
        """A call is awaited, its errors come out where it is awaited, and the client is closed."""

        async def scenario(lexi: Any) -> str:
            with pytest.raises(ValueError, match="no message"):
                await lexi.chat("")
            assert lexi.api_key == runners.API_KEY
            return str(await lexi.chat("Hi"))

        log: list[str] = []
        assert fake.run(scenario, log=log) == "re: Hi"
        assert log == ["client closed"]

    def test_stream(self, fake: Runner) -> None:
        """A stream is iterated, entered, read by deltas, to its end, or by single steps."""

        async def scenario(lexi: Any) -> None:
            assert [event async for event in lexi.stream_chat("Hi")] == ["a", "b", "c"]
            async with lexi.stream_chat("Hi") as stream:
                deltas = stream.text_stream
                assert await anext(deltas) == "A"
                await deltas.aclose()
                assert await stream.final_reply() == "bc"
                assert stream.resumes == 0
            single = lexi.stream_chat("Hi")
            assert [await anext(single) for _ in range(3)] == ["a", "b", "c"]
            with pytest.raises(StopAsyncIteration):
                await anext(single)
            await single.aclose()

        log: list[str] = []
        fake.run(scenario, log=log)
        assert log == ["stream closed", "stream closed", "client closed"]

    def test_pager(self, fake: Runner) -> None:
        """A pager gives items, pages and its first page, and starts again."""

        async def scenario(lexi: Any) -> None:
            pager = lexi.conversations()
            for _ in range(2):
                assert [item async for item in pager] == [1, 2, 3]
            assert [page async for page in pager.pages()] == [[1, 2], [3]]
            assert await pager.first_page() == [1, 2]

        fake.run(scenario, log=[])

    def test_copy(self, fake: Runner) -> None:
        """What a plain method gives is used without awaiting it."""

        async def scenario(lexi: Any) -> None:
            copy = lexi.with_options(resume=False)
            assert (lexi.resume, copy.resume) == (True, False)
            assert await copy.chat("Hi") == "re: Hi"

        fake.run(scenario, log=[])

    def test_together(self, fake: Runner) -> None:
        """Several calls run side by side; each gives what it returned or raised."""

        async def scenario(lexi: Any) -> None:
            before = time.monotonic()
            calls = [functools.partial(lexi.chat, message, pause=0.3) for message in "abcdef"]

            async def call(number: int) -> Any:
                return await calls[number]()

            async def fail() -> Any:
                return await lexi.chat("")

            *replies, error = await fake.together(*(functools.partial(call, n) for n in range(6)), fail)
            assert replies == [f"re: {message}" for message in "abcdef"]
            assert isinstance(error, ValueError)
            assert time.monotonic() - before < 1.5
            assert await fake.together() == []

        fake.run(scenario, log=[])

    def test_sleep(self, fake: Runner) -> None:
        """A scenario sleeps by its runner."""

        async def main() -> float:
            before = time.monotonic()
            await fake.sleep(0.02)
            return time.monotonic() - before

        assert fake.drive(main) >= 0.02

    def test_until(self, fake: Runner) -> None:
        """A scenario waits for what another thread does, and looks again and again."""
        looks = list[bool]()

        def happened() -> bool:
            looks.append(len(looks) == 2)
            return looks[-1]

        async def main() -> None:
            await fake.until(happened)

        fake.drive(main)
        assert looks == [False, False, True]

    def test_resources(self, fake: Runner) -> None:
        """A scenario checks oracle O4 in the same way on each runner."""

        async def main() -> None:
            async with resources.no_leaks():
                held = socket.socket()
                threading.Timer(0.05, held.close).start()

        fake.drive(main)


def test_other_surroundings() -> None:
    """Streams and packages are others for a while, and then what they were, whether or not there were any."""
    with surroundings.streams(stdin=None), surroundings.packages(json=None, nowhere=ModuleType("nowhere")):
        assert sys.stdin is None
        assert importlib.import_module("nowhere")
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("json")
    assert sys.stdin is not None
    assert importlib.import_module("json") is json
    assert importlib.util.find_spec("nowhere") is None


def test_a_package_that_is_not_installed() -> None:
    """Code runs in a process of its own, which finds its arguments and lacks a package."""
    code = "import sys; print(sys.argv[1]); import wsgiref"
    assert surroundings.run_code(code, "a").stdout == "a\n"
    assert surroundings.run_code(code, "a", without="wsgiref").stderr.endswith("No module named 'wsgiref'\n")


def test_foreign_await_on_the_sync_runner() -> None:
    """A scenario that waits for something else is refused with the sync client, and says why."""

    async def main() -> None:
        await Pause()

    with pytest.raises(RuntimeError, match="neither the client nor the runner"):
        SyncRunner(FakeClient).drive(main)


class Pause:
    """Something that makes a loop wait."""

    def __await__(self) -> Generator[None, None, None]:
        yield


def test_runner_fixture(runner: Runner) -> None:
    """The fixture gives the three runners, which drive coroutines without any client."""

    async def main() -> str:
        return runner.name

    assert runner.drive(main) in ("asyncio", "trio", "sync")


@runners.every_runner
def test_every_runner(runner: Runner) -> None:
    """The parametrization gives them too."""
    assert runner in runners.RUNNERS

"""Table C of the fault matrix: HTTP that is broken, hostile or only unusual."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

import pytest

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    LeadLexError,
    RateLimitError,
    StreamInterruptedError,
    Timeout,
)
from tests.matrix.oracles import CALLS, CHARGED, REPEATED, Call, Seen, observe, over_tls, spoiled
from tests.support.answers import chunk, error_answer, json_answer, last_chunk
from tests.support.captures import CAPTURE, CAPTURE_EVENTS, encode_event
from tests.support.lexi import BODIES, CHAT, Cut, Ending, Fault, LexiScript, Lost, Plain, Raw
from tests.support.resources import no_leaks
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer, per_connection
from tests.support.tls import authority_pem

every_call = pytest.mark.parametrize("call", CALLS)
json_call = pytest.mark.parametrize("call", ["get", "chat"])

#: What is whole and can't be used: a GET is asked once more.
UNUSABLE: Final[dict[Call, int]] = {"get": 2, "chat": 1, "stream": 1}
#: For rows about the wire's framing alone.
ONE_RUNNER: Final = AsyncRunner("asyncio")

KINDS: Final[dict[Call, str]] = {"get": "application/json", "chat": "application/json", "stream": "text/event-stream"}
BODY: Final[dict[Call, bytes]] = {
    "get": json.dumps(BODIES["getConversation"]).encode(),
    "chat": json.dumps(BODIES["chat"]).encode(),
    "stream": CAPTURE,
}
HALF: Final = b"".join(map(encode_event, CAPTURE_EVENTS[:4]))
CHUNKED: Final = b"Transfer-Encoding: chunked"


#: A second answer, for a client that takes what comes.
EVIL: Final = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{"data":{"tasks":[]}}'


def head(call: Call, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Build a head by hand, so that nothing is put right."""
    kind = b"Content-Type: " + KINDS[call].encode()
    return b"\r\n".join((b"HTTP/1.1 " + status, kind, *fields, b"", b""))


def length(body: bytes) -> bytes:
    """Give the field that frames a body."""
    return b"Content-Length: %d" % len(body)


def meet(runner: Runner, call: Call, fault: Fault, attempts: int, **options: Any) -> Seen:
    """Meet a fault in so many attempts, and a healthy Lexi afterwards."""
    with ScriptedServer(spoiled(call, fault, times=attempts)) as server:
        return observe(runner, call, server, **options)


def expect_unusable(runner: Runner, call: Call, fault: Fault, **options: Any) -> Seen:
    """Expect an answer that can't be used: repeated for a GET alone, once, and nothing handed out."""
    says = options.pop("says", None)
    seen = meet(runner, call, fault, UNUSABLE[call], **options)
    seen.expect(APIResponseError, charged=CHARGED[call], attempts=UNUSABLE[call], says=says)
    assert seen.events == []
    return seen


@dataclasses.dataclass(frozen=True)
class Say:
    """Answer these bytes, and serve on."""

    data: bytes
    charges: bool = True

    def __call__(self, connection: Connection, _: Plain, /) -> None:
        """Do it."""
        connection.send(self.data)


# Heads -------------------------------------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize(
    ("how", "after"),
    [
        pytest.param("fin", 0, marks=pytest.mark.row("C01")),
        pytest.param("rst", 0, marks=pytest.mark.row("C01")),
        pytest.param("fin", 11, marks=pytest.mark.row("C02")),
        pytest.param("fin", 40, marks=pytest.mark.row("C02")),
        pytest.param("rst", 40, marks=pytest.mark.row("C02")),
    ],
)
def test_cut_head(runner: Runner, call: Call, how: Ending, after: int) -> None:
    """An answer that ends before its head is whole is lost: only what is safe is tried again."""
    seen = meet(runner, call, Lost(how, after), REPEATED[call])
    seen.expect(APIConnectionError, charged=CHARGED[call], attempts=REPEATED[call])


PAGE: Final = b"<html>\x1b[31m<h1>Captive portal</h1>" + b"." * 400 + b"END"


@every_call
@pytest.mark.parametrize(
    "data",
    [PAGE + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n%b\r\n\r\n%b" % (length(PAGE), PAGE)],
    ids=["HTTP/0.9", "HTML"],
)
@pytest.mark.row("C03")
def test_page_in_place_of_an_answer(runner: Runner, call: Call, data: bytes) -> None:
    """A page that is no answer of the API is shown by its first words, cleaned."""
    seen = expect_unusable(runner, call, Raw(data), says="Captive portal")
    assert "\x1b" not in str(seen.error)
    assert "END" not in str(seen.error)


@every_call
@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"\x00" * 64, b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
@pytest.mark.row("C04")
def test_garbage(runner: Runner, call: Call, data: bytes) -> None:
    """Bytes that are no HTTP are an answer that can't be used."""
    expect_unusable(runner, call, Raw(data + b"\r\n\r\n"))


# Bodies ------------------------------------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"zz\r\nhello\r\n", marks=pytest.mark.row("C05")),
        pytest.param(b"-5\r\nhello\r\n", marks=pytest.mark.row("C05")),
        pytest.param(b"f" * 40 + b"\r\nhello\r\n", marks=pytest.mark.row("C05")),
        pytest.param(b"5\r\nhelloXX5\r\nhello\r\n", marks=pytest.mark.row("C06")),
    ],
)
def test_bad_chunk(runner: Runner, call: Call, bad: bytes) -> None:
    """A body whose chunks are broken broke off there: a stream is continued, a GET repeated, a chat left."""

    def fault(connection: Connection, _: Plain) -> None:
        connection.send(head(call, CHUNKED) + chunk(HALF if call == "stream" else BODY[call][:20]))
        connection.sleep(0.05)  # aiohttp gives nothing of what came in one read with it
        connection.send(bad)
        connection.close()

    seen = meet(runner, call, fault, REPEATED[call])
    kind = StreamInterruptedError if call == "stream" else APIResponseError
    seen.expect(kind, charged=CHARGED[call], attempts=REPEATED[call])
    assert len(seen.events) == (4 if call == "stream" else 0)


@json_call
@pytest.mark.row("C10")
def test_short_body(runner: Runner, call: Call) -> None:
    """A body shorter than its length is lost; a GET is repeated, a chat is not."""
    seen = meet(runner, call, Cut(30), REPEATED[call])
    seen.expect(APIConnectionError, charged=CHARGED[call], attempts=REPEATED[call])


@pytest.mark.row("C10")
def test_short_stream(runner: Runner) -> None:
    """A stream shorter than its length is interrupted."""
    with ScriptedServer(spoiled("stream", Cut(len(HALF)), times=3, framing="length")) as server:
        seen = observe(runner, "stream", server)
        seen.expect(StreamInterruptedError, charged="unknown", attempts=3, text="Jane Doe is currently")


@every_call
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([b"Content-Length: 5", b"Content-Length: 6"], id="two lengths", marks=pytest.mark.row("C07")),
        pytest.param([b"Transfer-Encoding: gzip, chunked"], id="coding", marks=pytest.mark.row("C09")),
        pytest.param([b"Content-Length: 2", b"no colon"], id="no colon", marks=pytest.mark.row("C11")),
        pytest.param([b"Content-Length: 2", b"X-Request-ID: a\x00b"], id="NUL", marks=pytest.mark.row("C11")),
        pytest.param([b"Content-Length: 2", b"X-Big: " + b"x" * 150_000], id="150 KB", marks=pytest.mark.row("C12")),
        pytest.param([b"Content-Length: 2", *[b"X-A: b"] * 5000], id="5000 fields", marks=pytest.mark.row("C12")),
    ],
)
def test_bad_head(call: Call, fields: list[bytes]) -> None:
    """A head that no server may send makes an answer that can't be used, at no great cost."""
    began = time.process_time()
    expect_unusable(ONE_RUNNER, call, Raw(head(call, *fields) + b"{}"))
    assert time.process_time() - began < 2


@every_call
@pytest.mark.row("C08")
def test_two_framings(call: Call) -> None:
    """A body framed by chunks and by a length is read by its chunks, and its connection is not used again."""
    body = BODY[call]
    data = head(call, CHUNKED, b"Content-Length: 7") + chunk(body) + last_chunk()
    with ScriptedServer(spoiled(call, Say(data))) as server:
        observe(ONE_RUNNER, call, server).expect(None, attempts=1)
        assert server.connections == 2


@every_call
@pytest.mark.parametrize(
    ("field", "request_id"),
    [(b"X-Request-ID: req_\xe9\xff", "req_\ufffd\ufffd"), (b"X-Request-ID: req_1\r\n  folded", "req_1 folded")],
    ids=["8 bits", "folded"],
)
@pytest.mark.row("C11")
def test_odd_fields(call: Call, field: bytes, request_id: str) -> None:
    """An answer is not refused for a field with 8-bit bytes or an obsolete fold (RFC 9112, 5.2); both are readable."""
    body = BODY[call]
    seen = meet(ONE_RUNNER, call, Raw(head(call, length(body), field) + body), 1)
    seen.expect(None, attempts=1)
    assert seen.value.meta.request_id == request_id


@every_call
@pytest.mark.row("C13")
def test_interim_answers(runner: Runner, call: Call) -> None:
    """Interim answers before the real one are passed over."""

    def interim(connection: Connection, plain: Plain) -> None:
        for line in (b"100 Continue", b"103 Early Hints\r\nLink: </style.css>", b"103 Early Hints"):
            connection.send(b"HTTP/1.1 " + line + b"\r\n\r\n")
        plain.send(connection)

    meet(runner, call, interim, 1).expect(None, attempts=1)


@every_call
@pytest.mark.row("C14")
def test_interim_answers_for_ever(runner: Runner, call: Call) -> None:
    """Interim answers never stand for progress: the call ends with its total, a stream's attempt with first_event."""

    def flood(connection: Connection, _: Plain) -> None:
        while True:
            connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            connection.sleep(0.05)

    timeout = Timeout(first_event=0.3) if call == "stream" else Timeout(total=0.5)
    attempts = 3 if call == "stream" else 1
    seen = meet(runner, call, flood, attempts, timeout=timeout, deadline=1.0)
    clock = "first_event" if call == "stream" else "total"
    seen.expect(APITimeoutError, charged=CHARGED[call], attempts=attempts, clock=clock)


odd_status = pytest.mark.parametrize("status", ["101", "204", "205", "304", "210", "299", "999", "000"])


def meet_odd_status(runner: Runner, call: Call, status: str, body: bytes) -> None:
    """Expect that such an answer is refused, and that its connection still tells answers apart."""
    expect_unusable(runner, call, Say(head(call, length(body), status=status.encode() + b" Odd") + body))


@every_call
@odd_status
@pytest.mark.row("C15")
def test_odd_status(runner: Runner, call: Call, status: str) -> None:
    """A status that the contract does not have is an answer that can't be used, even if another answer follows it."""
    meet_odd_status(runner, call, status, EVIL)


@every_call
@odd_status
@pytest.mark.parametrize("which", ["nothing", "the contract's answer"])
@pytest.mark.row("C15")
def test_odd_status_with_a_good_body(call: Call, status: str, which: str) -> None:
    """No body makes such a status good."""
    meet_odd_status(ONE_RUNNER, call, status, b"" if which == "nothing" else BODY[call])


# Codings -----------------------------------------------------------------------------------------------------------


@functools.cache
def bomb(times: int = 1) -> bytes:
    """Compress 300 MiB of one letter, once or twice."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(squeeze.compress(b"x" * (1 << 20)) for _ in range(300)) + squeeze.flush()
    return data if times == 1 else gzip.compress(data)


def coded(call: Call, coding: bytes, body: bytes) -> Raw:
    """Answer with a body and say how it is coded."""
    return Raw(head(call, length(body), b"Content-Encoding: " + coding) + body)


JSON_CAP: Final = 16 << 20


@every_call
@pytest.mark.row("C16")
def test_bomb(runner: Runner, call: Call) -> None:
    """300 KB that stand for 300 MiB are given up at the cap, and never held."""
    expect_unusable(runner, call, coded(call, b"gzip", bomb()), says="larger|longer", memory=JSON_CAP)


@json_call
@pytest.mark.row("C16")
def test_bomb_of_values(runner: Runner, call: Call) -> None:
    """15 KB that stand for five million values are refused before one is made."""
    body = gzip.compress(b"[" + b"{}," * (5 << 20) + b"1]")
    assert len(body) < 20_000
    expect_unusable(runner, call, coded(call, b"gzip", body), says="500,000 values", memory=2 * JSON_CAP)


@every_call
@pytest.mark.row("C17")
def test_bomb_in_a_bomb(runner: Runner, call: Call) -> None:
    """More than one coding is refused, before a byte of it is read."""
    assert len(bomb(2)) < 4096
    expect_unusable(runner, call, coded(call, b"gzip, gzip", bomb(2)), says="coding")


@every_call
@pytest.mark.parametrize("coding", [b", ".join([b"gzip"] * 2000), b"zstd", b"br", b"\xff"])
@pytest.mark.row("C18")
def test_unknown_coding(runner: Runner, call: Call, coding: bytes) -> None:
    """A coding that nobody asked for is refused, even where the body is plain."""
    expect_unusable(runner, call, coded(call, coding, BODY[call]), says="coding")


@every_call
@pytest.mark.row("C19")
def test_plain_body_said_to_be_gzip(runner: Runner, call: Call) -> None:
    """A body that is not what its head says can't be used."""
    expect_unusable(runner, call, coded(call, b"gzip", BODY[call]), says="compressed")


@json_call
@pytest.mark.row("C19")
def test_damaged_gzip(runner: Runner, call: Call) -> None:
    """A body whose checksum is wrong can't be used."""
    body = bytearray(gzip.compress(BODY[call]))
    body[-6] ^= 1
    expect_unusable(runner, call, coded(call, b"gzip", bytes(body)), says="compressed")


@every_call
@pytest.mark.row("C20")
def test_cut_gzip(runner: Runner, call: Call) -> None:
    """A compressed body that ends too soon under whole framing broke off, and is treated so."""
    whole = gzip.compress(BODY[call])
    seen = meet(
        runner, call, coded(call, b"gzip", whole[: len(whole) - 12 if call != "stream" else 150]), REPEATED[call]
    )
    kind = StreamInterruptedError if call == "stream" else APIResponseError
    seen.expect(kind, charged=CHARGED[call], attempts=REPEATED[call], says="compressed")


@json_call
@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b"deflate", b"identity", b"GZIP"])
@pytest.mark.row("C19")
def test_coding_that_is_understood(runner: Runner, call: Call, coding: bytes) -> None:
    """A body in one known coding is read."""
    codings: dict[bytes, Callable[[bytes], bytes]] = {b"deflate": zlib.compress, b"identity": bytes}
    meet(runner, call, coded(call, coding, codings.get(coding, gzip.compress)(BODY[call])), 1).expect(None)


@every_call
@pytest.mark.row("C21")
def test_gzip_of_several_members(runner: Runner, call: Call) -> None:
    """A body may be gzip by gzip (RFC 1952, 2.2): all of it is read."""
    parts = (BODY[call][:60], BODY[call][60:-30], BODY[call][-30:])
    body = b"".join(map(gzip.compress, parts)) + bytes(300)
    with ScriptedServer(spoiled(call, coded(call, b"gzip", body))) as server:
        observe(runner, call, server).expect(None, attempts=1)


@pytest.mark.row("C21")
def test_gzip_stream(runner: Runner) -> None:
    """A stream asks not to be compressed; one that is all the same hands out each event as it is flushed."""
    squeeze = zlib.compressobj(wbits=31)

    def flushed(connection: Connection, _: Plain) -> None:
        connection.send(head("stream", b"Content-Encoding: gzip", b"Connection: close"))
        for event in CAPTURE_EVENTS:
            connection.send(squeeze.compress(encode_event(event)) + squeeze.flush(zlib.Z_SYNC_FLUSH))
            connection.wait_for(f"after {event[0]}")
        connection.send(squeeze.flush())
        connection.close()

    async def scenario(lexi: Any) -> list[Any]:
        events: list[Any] = []
        async for event in lexi.stream_chat("Summarize my pipeline"):
            events.append(event)
            server.release(f"after {CAPTURE_EVENTS[len(events) - 1][0]}")
        return events

    with ScriptedServer(spoiled("stream", flushed)) as server:
        assert len(runner.run(scenario, base_url=server.url)) == len(CAPTURE_EVENTS)
        assert server.requests[0].headers["accept-encoding"] == "identity"


def endless(call: Call, begin: bytes, piece: bytes) -> Fault:
    """Answer for ever."""

    def babble(connection: Connection, _: Plain) -> None:
        connection.send(head(call, b"Connection: close") + begin)
        while True:
            connection.send(piece)

    return babble


@json_call
@pytest.mark.row("C22")
def test_endless_json(runner: Runner, call: Call) -> None:
    """A JSON body without an end is given up at 16 MiB."""
    fault = endless(call, b'{"data": "', b"x" * 65536)
    expect_unusable(runner, call, fault, says="larger than 16 MiB", memory=JSON_CAP)


@pytest.mark.parametrize(
    ("begin", "piece", "says"),
    [
        (b"data: ", b"x" * 65536, "a line is longer than 1 MiB"),
        (b": ", b"x" * 65536, "a line is longer than 1 MiB"),
        (b"", b"data: " + b"x" * 65000 + b"\n", "an event is larger than 8 MiB"),
    ],
    ids=["line", "comment line", "event"],
)
@pytest.mark.row("C22")
def test_endless_stream(runner: Runner, begin: bytes, piece: bytes, says: str) -> None:
    """A line or an event without an end is given up at its cap."""
    expect_unusable(runner, "stream", endless("stream", begin, piece), says=says, memory=8 << 20)


@pytest.mark.parametrize("line", [b": ping\n" * 4000, b"\n" * 16384, b": ping\n\n" * 4000])
@pytest.mark.row("C22")
def test_endless_comments(runner: Runner, line: bytes) -> None:
    """Comments without an end hold no memory and are no progress: the clock for the first event runs out."""
    fault = endless("stream", b"", line)
    seen = meet(runner, "stream", fault, 3, timeout=Timeout(first_event=0.2), deadline=6)
    seen.expect(StreamInterruptedError, charged="unknown", attempts=3, says="first_event")


# Connections -------------------------------------------------------------------------------------------------------


@every_call
@pytest.mark.row("C23")
def test_more_than_was_asked_for(runner: Runner, call: Call) -> None:
    """Bytes after an answer are never taken for the next one: that connection is not used again."""
    data = head(call, length(BODY[call])) + BODY[call] + EVIL
    with ScriptedServer(spoiled(call, Say(data))) as server:
        observe(runner, call, server).expect(None, attempts=1)
        assert server.connections == 2
        assert len(server.requests) == 2


#: What a server may send while nobody asks: the last line is not even an answer's.
UNASKED: Final = {
    "an answer": EVIL,
    "half an answer": EVIL[:30],
    "a goodbye": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "an interim answer": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "garbage": b"HELO\r\n",
}


@pytest.mark.parametrize("polled", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("unasked", UNASKED)
@pytest.mark.row("C27")
def test_unasked(runner: Runner, unasked: str, *, polled: bool) -> None:
    """What comes on an idle connection answers nothing: the connection is not used again, read or not by then."""
    sent = threading.Semaphore(0)

    def push(connection: Connection) -> None:
        message = connection.receive_request().json["message"]
        connection.send(json_answer(200, {"data": {**CHAT, "response": message}}))
        connection.wait_for(message)
        connection.send(UNASKED[unasked])
        sent.release()
        connection.stall()

    async def scenario(lexi: Any) -> None:
        for number in range(20):
            message = f"mark {number}"
            assert (await lexi.chat(message)).response == message
            server.release(message)
            assert sent.acquire(timeout=5)
            await runner.sleep(0.002 * polled)

    with no_leaks(), ScriptedServer(push) as server:
        runner.run(scenario, base_url=server.url, retries=0)
        assert server.connections == 20


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="Linux sends two records at once when it is told to")
@pytest.mark.row("C27")
def test_unasked_in_tls(runner: Runner, environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """A second answer that comes with the first one, in a TLS record of its own, is not left for the next call."""
    (tmp_path / "ca.pem").write_bytes(authority_pem())
    environ["SSL_CERT_FILE"] = str(tmp_path / "ca.pem")

    def twice(connection: Connection) -> None:
        message = connection.receive_request().json["message"]
        connection.send_together(json_answer(200, {"data": {**CHAT, "response": message}}), EVIL)
        connection.drain()

    async def scenario(lexi: Any) -> None:
        for number in range(20):
            message = f"mark {number}"
            assert (await lexi.chat(message)).response == message

    with no_leaks(), ScriptedServer(over_tls(twice)) as server:
        runner.run(scenario, base_url=f"https://127.0.0.1:{server.port}", retries=0)
        assert server.connections == 20


@pytest.mark.parametrize("then", ["rst", "drain"])
@pytest.mark.row("C24")
def test_early_refusal(runner: Runner, then: str) -> None:
    """A refusal that comes while the body is still being sent is told where it can be read, else the answer is lost.

    The contract has no 413: whoever says it, what happened behind is not known.
    """

    def refuse(connection: Connection) -> None:
        connection.receive_head()
        connection.receive(100)
        connection.send(error_answer(413, "too_large", "Too large", {"Connection": "close"}))
        getattr(connection, then)()

    with ScriptedServer(per_connection(refuse, LexiScript())) as server:
        message = "Privileged matter " + "x" * 5_000_000
        seen = observe(runner, "chat", server, message=message)
        refused = isinstance(seen.error, APIStatusError)
        assert refused or then == "rst", repr(seen.error)
        expected: type[LeadLexError] = APIStatusError if refused else APIConnectionError
        seen.expect(expected, charged="unknown", attempts=1, says="in LeadLex's form .413" if refused else None)


@pytest.mark.row("C25")
def test_fields_sent_twice() -> None:
    """Of a field that came twice the first one counts."""
    twice = [b"X-Request-ID: first", b"X-Request-ID: second", b"Retry-After: 3600", b"Retry-After: 1"]
    body = b'{"error": {"code": "rate_limited", "message": "Slow down"}}'
    data = head("chat", length(body), *twice, status=b"429 Too Many Requests") + body
    seen = meet(ONE_RUNNER, "chat", Say(data, charges=False), 1)
    seen.expect(RateLimitError, charged="no", attempts=1, retry_after=3600.0, request_id="first")
    html = b"Content-Type: text/html"
    meet(ONE_RUNNER, "stream", Raw(head("stream", html, length(CAPTURE)) + CAPTURE), 1).expect(None, attempts=1)


@every_call
@pytest.mark.row("C26")
def test_cookies(runner: Runner, call: Call) -> None:
    """A cookie is neither kept nor sent back."""
    body = BODY[call]
    cookies = [b"Set-Cookie: session=1; Path=/", b"Set-Cookie: track=2; Domain=127.0.0.1"]
    with ScriptedServer(spoiled(call, Raw(head(call, length(body), *cookies) + body))) as server:
        observe(runner, call, server).expect(None)
        assert len(server.requests) == 2
        assert all("cookie" not in request.headers for request in server.requests)

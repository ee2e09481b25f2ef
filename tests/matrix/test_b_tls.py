"""Table B of the fault matrix: TLS that is wrong, cut or forged."""

from __future__ import annotations

import inspect
import itertools
import ssl
from collections.abc import Callable, MutableMapping
from typing import Any

import httpx
import pytest

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    AsyncLeadLex,
    ConfigurationError,
    LeadLex,
    StreamInterruptedError,
    Timeout,
)
from tests.matrix.oracles import CALLS, CHARGED, REPEATED, Call, observe, over_tls, spoiled
from tests.matrix.test_a_connect import trusted as trusted  # noqa: PLC0414  # a fixture
from tests.support.captures import CAPTURE
from tests.support.lexi import Cut, LexiScript, Plain, Raw
from tests.support.runners import API_KEY, Runner
from tests.support.server import Connection, Script, ScriptedServer, per_connection
from tests.support.tls import Kind, identity

every_call = pytest.mark.parametrize("call", CALLS)
pytestmark = pytest.mark.usefixtures("trusted")


def https(server: ScriptedServer) -> str:
    """Tell where a server whose scripts shake hands themselves is called."""
    return f"https://127.0.0.1:{server.port}"


def shake_hands(kind: Kind) -> Script:
    """Make a script that shows a certificate and ends."""
    return lambda connection: connection.start_tls(identity(kind))


@every_call
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param("unknown_ca", "unable to get local issuer|self.signed", marks=pytest.mark.row("B01")),
        pytest.param("wrong_name", "not valid for '127.0.0.1'|mismatch", marks=pytest.mark.row("B02")),
        pytest.param("expired", "certificate has expired", marks=pytest.mark.row("B03")),
        pytest.param("old_tls", "PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL", marks=pytest.mark.row("B04")),
    ],
)
def test_refused_certificate(runner: Runner, call: Call, kind: Kind, reason: str) -> None:
    """A server that can't prove who it is gets no request; the error says why, and nothing is tried again."""
    with ScriptedServer(per_connection(shake_hands(kind), over_tls(LexiScript()))) as server:
        seen = observe(runner, call, server, base_url=https(server))
        seen.expect(APIConnectionError, charged="no", attempts=1, says=rf"\(TLS\).*({reason})")


def refuse_tls(connection: Connection) -> None:
    """Be a plain HTTP server that is sent a ClientHello."""
    _receive_hello(connection)
    connection.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def _receive_hello(connection: Connection) -> None:
    # RFC 8446, 5.1: a record is its type, its version, and two bytes of length.
    connection.receive(int.from_bytes(connection.receive(5)[3:]))


@every_call
@pytest.mark.row("B05")
def test_tls_to_a_plain_port(runner: Runner, call: Call) -> None:
    """A port that speaks no TLS is told as such, and nothing is tried again."""
    with ScriptedServer(per_connection(refuse_tls, over_tls(LexiScript()))) as server:
        seen = observe(runner, call, server, base_url=https(server))
        seen.expect(
            APIConnectionError, charged="no", attempts=1, says="does not speak TLS.* Check the port in base_url"
        )


@every_call
@pytest.mark.row("B05")
def test_plain_to_a_tls_port(runner: Runner, call: Call) -> None:
    """A TLS server's alert is no HTTP: only a GET is asked once more."""
    attempts = 2 if call == "get" else 1
    alert = b"\x15\x03\x01\x00\x02\x02\x46"  # RFC 8446, 6: fatal, protocol_version
    with ScriptedServer(spoiled(call, Raw(alert), times=attempts)) as server:
        seen = observe(runner, call, server)
        seen.expect(APIResponseError, charged=CHARGED[call], attempts=attempts)


@every_call
@pytest.mark.row("B06")
def test_handshake_stalls(runner: Runner, call: Call) -> None:
    """A handshake that is never answered ends in the connect timeout, and nothing is charged."""
    script = per_connection(*[Connection.stall] * 3, over_tls(LexiScript()))
    with ScriptedServer(script) as server:
        seen = observe(runner, call, server, base_url=https(server), timeout=Timeout(connect=0.3), deadline=1.0)
        seen.expect(APITimeoutError, charged="no", attempts=3, clock="connect")


@every_call
@pytest.mark.parametrize("end", [Connection.fin, Connection.rst], ids=["fin", "rst"])
@pytest.mark.row("B07")
def test_handshake_cut(runner: Runner, call: Call, end: Callable[[Connection], None]) -> None:
    """A handshake that is cut is tried again, by any call, since no request was sent."""

    def cut(connection: Connection) -> None:
        _receive_hello(connection)
        end(connection)

    with ScriptedServer(per_connection(cut, cut, cut, over_tls(LexiScript()))) as server:
        seen = observe(runner, call, server, base_url=https(server))
        seen.expect(APIConnectionError, charged="no", attempts=3, says="could not be reached")
    with ScriptedServer(per_connection(cut, cut, over_tls(LexiScript()))) as server:
        observe(runner, call, server, base_url=https(server)).expect(None, attempts=3)


def forge(connection: Connection, plain: Plain) -> None:
    """Send half of an answer, then a record that no key made."""
    pieces = plain.body[:4] if len(plain.body) > 1 else [each[:40] for each in plain.body]
    connection.send(plain.head, *map(plain.frame, pieces))
    connection.sleep(0.05)  # asyncio's own TLS drops what came in one read with it
    connection.send_raw(b"\x17\x03\x03\x00\x40" + b"\xaa" * 64)
    connection.drain()


@every_call
@pytest.mark.row("B08")
def test_forged_record(runner: Runner, call: Call) -> None:
    """A forged record breaks the answer off there; a stream is continued, a chat is not sent again."""
    attempts = REPEATED[call]
    kind = StreamInterruptedError if call == "stream" else APIConnectionError
    with ScriptedServer(over_tls(spoiled(call, forge, times=attempts))) as server:
        seen = observe(runner, call, server, base_url=https(server))
        seen.expect(kind, charged=CHARGED[call], attempts=attempts)
        assert call != "stream" or seen.text
    with ScriptedServer(over_tls(spoiled("stream", forge))) as server:
        seen = observe(runner, "stream", server, base_url=https(server))
        seen.expect(None, attempts=2)
        assert seen.resumes == 1


@pytest.mark.parametrize("after", [0, 1, 240, 400, len(CAPTURE) - 90])
@pytest.mark.row("B09")
def test_truncated_stream(runner: Runner, after: int) -> None:
    """A stream that a FIN ends, without close_notify and without `done`, is never taken for whole."""
    fault = Cut(after, how="fin")
    with ScriptedServer(over_tls(spoiled("stream", fault, times=3, framing="close"))) as server:
        seen = observe(runner, "stream", server, base_url=https(server))
        seen.expect(StreamInterruptedError, charged="unknown", attempts=3)
    with ScriptedServer(over_tls(spoiled("stream", fault, framing="close"))) as server:
        observe(runner, "stream", server, base_url=https(server)).expect(None, attempts=2)


@pytest.mark.parametrize("call", ["get", "chat"])
@pytest.mark.row("B09")
def test_truncated_json(runner: Runner, call: Call) -> None:
    """Half of a JSON answer that a FIN ends, without a length and without close_notify, is never taken for whole."""
    attempts = 2 if call == "get" else 1
    half = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"data": {"response": "Yes'
    with ScriptedServer(over_tls(spoiled(call, Raw(half), times=attempts))) as server:
        seen = observe(runner, call, server, base_url=https(server))
        seen.expect(APIResponseError, charged=CHARGED[call], attempts=attempts)


@pytest.mark.row("B10")
def test_no_way_to_switch_verification_off(runner: Runner, environ: MutableMapping[str, str]) -> None:
    """No option and no variable lets an unknown server in; only the user's own `http_client` can."""
    for kind in (AsyncLeadLex, LeadLex):
        assert not {"ssl", "ssl_context", "insecure", "cert"} & {*inspect.signature(kind).parameters}
    blind, careless = ssl.create_default_context(), ssl.create_default_context()
    careless.check_hostname = blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    wrong: list[Any] = [False, blind, careless]
    for made, verify in itertools.product((AsyncLeadLex, LeadLex), wrong):
        with pytest.raises(ConfigurationError, match=r"verify can't be False.* verify=PATH, or verify='system'"):
            made(API_KEY, verify=verify)
    for name in ("PYTHONHTTPSVERIFY", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_VERIFY"):
        environ[name] = "0"
    with ScriptedServer(LexiScript(), tls=identity("unknown_ca")) as server:
        observe(runner, "chat", server, healed=None).expect(APIConnectionError, charged="no")
        observe(runner, "chat", server, http_client=lambda: httpx.AsyncClient(verify=False)).expect(None)  # noqa: S501

"""What the environment says about proxies and certificates holds, as it does for every other program of an office."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509

from leadlex import APIConnectionError, APITimeoutError, ConfigurationError, LeadLex, Timeout, aiohttp_client
from tests.matrix.oracles import CALLS, Call, observe
from tests.matrix.test_a_connect import trusted as trusted  # noqa: PLC0414  # a fixture
from tests.support.lexi import LexiScript
from tests.support.proxy import Proxy, SocksProxy
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.surroundings import packages
from tests.support.tls import authority_pem, identity

ONE_RUNNER = AsyncRunner("asyncio")
pytestmark = pytest.mark.usefixtures("trusted")


def served() -> ScriptedServer:
    """Serve Lexi over TLS, with a certificate of the private authority."""
    return ScriptedServer(LexiScript(), tls=identity())


# Proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_proxy(runner: Runner, call: Call, environ: MutableMapping[str, str]) -> None:
    """Calls go through the proxy, which gets its own password and nothing of the calls."""
    with served() as server, Proxy() as proxy:
        environ["HTTPS_PROXY"] = proxy.url.replace("//", "//clerk:hunter2@")
        observe(runner, call, server).expect(None, attempts=1)
        [asked] = proxy.asked  # one tunnel for both calls
        assert (asked.method, asked.target) == ("CONNECT", server.url.removeprefix("https://"))
        assert asked.headers["proxy-authorization"] == f"Basic {base64.b64encode(b'clerk:hunter2').decode()}"
        assert API_KEY.encode() not in asked.head
        assert all("proxy-authorization" not in request.headers for request in server.requests)


@pytest.mark.parametrize("call", CALLS)
def test_socks(runner: Runner, call: Call, environ: MutableMapping[str, str]) -> None:
    """Calls go through a SOCKS proxy too, where httpx's extra for it is there."""
    with served() as server, SocksProxy() as proxy:
        environ["ALL_PROXY"] = f"socks5://127.0.0.1:{proxy.port}"
        observe(runner, call, server).expect(None, attempts=1)
        assert proxy.asked_for == [server.port]


def test_a_silent_socks_proxy_is_hung_up_on(runner: Runner, environ: MutableMapping[str, str]) -> None:
    """A connection that a silent SOCKS proxy never let become one is closed when the call is given up."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(APITimeoutError):
            await lexi.chat("Hi")
        server.raise_failures()
        assert server.wait_for_disconnect()

    with ScriptedServer(Connection.stall) as server, no_leaks():
        environ["ALL_PROXY"] = f"socks5://127.0.0.1:{server.port}"
        runner.run(scenario, base_url="https://127.0.0.1:9", timeout=Timeout(total=0.2), retries=0)


every_transport = pytest.mark.parametrize("options", [{}, {"http_client": aiohttp_client}], ids=["httpcore", "aiohttp"])


@every_transport
def test_a_certificate_behind_a_proxy(options: Any, environ: MutableMapping[str, str]) -> None:
    """A certificate that can't be trusted is told with the proxy that it came through: it may be that one's."""
    with ScriptedServer(LexiScript(), tls=identity("unknown_ca")) as server, Proxy() as proxy:
        environ["HTTPS_PROXY"] = proxy.url
        seen = observe(ONE_RUNNER, "chat", server, healed=None, **options)
        way = rf"127.0.0.1:{server.port} \(reached through the proxy 127.0.0.1:{proxy.port}\)"
        seen.expect(APIConnectionError, charged="no", attempts=1, says=f"The certificate of {way} is not trusted")


@every_transport
def test_a_handshake_behind_a_proxy_is_cut(options: Any, environ: MutableMapping[str, str]) -> None:
    """A service that breaks off behind a proxy before it can read anything has charged nothing."""

    def break_off(connection: Connection) -> None:
        connection.receive(1)
        connection.rst()

    with ScriptedServer(break_off) as server, Proxy() as proxy:
        environ["HTTPS_PROXY"] = proxy.url
        seen = observe(ONE_RUNNER, "chat", base_url=f"https://127.0.0.1:{server.port}", healed=None, **options)
        says = f"LeadLex could not be reached.*through the proxy 127.0.0.1:{proxy.port}"
        seen.expect(APIConnectionError, charged="no", attempts=3, says=says)


def test_a_certificate_behind_socks(environ: MutableMapping[str, str]) -> None:
    """A certificate that can't be trusted is the service's, not that of the SOCKS proxy that leads there."""
    with ScriptedServer(LexiScript(), tls=identity("unknown_ca")) as server, SocksProxy() as proxy:
        environ["ALL_PROXY"] = f"socks5://127.0.0.1:{proxy.port}"
        seen = observe(ONE_RUNNER, "chat", server, healed=None)
        way = rf"127.0.0.1:{server.port} \(reached through the proxy 127.0.0.1:{proxy.port}\)"
        seen.expect(APIConnectionError, charged="no", attempts=1, says=f"The certificate of {way} is not trusted")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("unknown_ca", "The certificate of the proxy {proxy} is not trusted .*SSL_CERT_FILE"),
        (None, "at the proxy {proxy} does not speak TLS.*Write http:// in front of the proxy: .*HTTPS_PROXY=http://"),
    ],
)
@every_transport
def test_tls_of_a_proxy(kind: Any, says: str, options: Any, environ: MutableMapping[str, str]) -> None:
    """What is wrong with the TLS of a proxy is told as the proxy's, and LeadLex has heard nothing."""
    with served() as server, ScriptedServer(_refuse, tls=identity(kind) if kind else None) as proxy:
        environ["HTTPS_PROXY"] = f"https://clerk:hunter2@127.0.0.1:{proxy.port}"
        seen = observe(ONE_RUNNER, "chat", server, healed=None, **options)
        seen.expect(APIConnectionError, charged="no", attempts=1, says=says.format(proxy=f"127.0.0.1:{proxy.port}"))


def _refuse(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("package", [None, ModuleType("socksio")], ids=["missing", "too old"])
def test_socks_without_its_package(package: ModuleType | None, environ: MutableMapping[str, str]) -> None:
    """Where the package for SOCKS is missing, or too old for httpcore, it is said before anything is sent."""
    environ["ALL_PROXY"] = "socks5://127.0.0.1:1"
    with packages(socksio=package), pytest.raises(ConfigurationError, match=r"pip install 'httpx\[socks\]'"):
        LeadLex(API_KEY)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("form", ["http://{}", "{}", "https://{}", " http://{}\r\n"])
def test_names_and_forms(name: str, form: str, environ: MutableMapping[str, str]) -> None:
    """Each name of the variable counts, with and without a scheme, with a line end behind it, and a proxy of TLS."""
    with served() as server, Proxy(tls=identity() if form.startswith("https") else None) as proxy:
        environ[name] = form.format(f"127.0.0.1:{proxy.port}")
        observe(ONE_RUNNER, "chat", server).expect(None)
        assert len(proxy.asked) == 1


def test_https_goes_before_all(environ: MutableMapping[str, str]) -> None:
    """`HTTPS_PROXY` counts before `ALL_PROXY`."""
    with served() as server, Proxy() as proxy, Proxy() as other:
        environ["HTTPS_PROXY"] = proxy.url
        environ["ALL_PROXY"] = other.url
        observe(ONE_RUNNER, "chat", server).expect(None)
        assert (len(proxy.asked), len(other.asked)) == (1, 0)


@pytest.mark.parametrize(
    ("hosts", "direct"),
    [
        ("127.0.0.1", True),
        ("localhost, 127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("*", True),
        ("127.0.0.0/8", True),
        ("10.0.0.0/8, 127.0.0.1/8\n", True),
        ("10.0.0.0/8,::/0", False),
        ("127.0.0.0/99", False),
        ("127.0.0.1:1", False),
        ("localhost", False),
        (".example.com", False),
        ("", False),
    ],
)
@every_transport
def test_no_proxy(hosts: str, options: Any, environ: MutableMapping[str, str], *, direct: bool) -> None:
    """A host that `NO_PROXY` names, or that is in a network that it names, is called directly."""
    with served() as server, Proxy() as proxy:
        environ["HTTPS_PROXY"] = proxy.url
        environ["NO_PROXY"] = hosts.format(port=server.port)
        observe(ONE_RUNNER, "chat", server, **options).expect(None)
        assert bool(proxy.asked) != direct


def test_plain_http_stays_here(environ: MutableMapping[str, str]) -> None:
    """A call to this machine over plain HTTP shows its key to no proxy."""
    with ScriptedServer(LexiScript()) as server, Proxy() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            environ[name] = proxy.url
        observe(ONE_RUNNER, "chat", server).expect(None)
        assert proxy.connections == 0


@pytest.mark.parametrize("value", ["ftp://127.0.0.1:1", "http://127.0.0.1:99999", "http://[::bad", "http://"])
def test_unusable_proxy(value: str, environ: MutableMapping[str, str]) -> None:
    """A proxy variable that is no proxy's URL is refused before anything is sent."""
    environ["HTTPS_PROXY"] = value
    with pytest.raises(ConfigurationError, match="PROXY"):
        LeadLex(API_KEY)


# Certificates ------------------------------------------------------------------------------------------------------


def subject_hash(pem: bytes) -> str:
    """Name a certificate as OpenSSL looks it up in a directory (openssl-rehash(1)): by its subject's canonical form."""
    parts: list[bytes] = []
    for attribute in x509.load_pem_x509_certificate(pem).subject:
        text = " ".join(str(attribute.value).split()).lower().encode()
        oid = x509.Name([attribute]).public_bytes()[4:]  # SEQUENCE, SET and their lengths taken off
        kind = oid[2 : 4 + oid[3]]
        pair = kind + b"\x0c" + bytes([len(text)]) + text
        sequence = b"\x30" + bytes([len(pair)]) + pair
        parts.append(b"\x31" + bytes([len(sequence)]) + sequence)
    digest = hashlib.sha1(b"".join(parts)).digest()  # noqa: S324  # OpenSSL's own choice, no secret
    return f"{int.from_bytes(digest[:4], 'little'):08x}"


@pytest.mark.parametrize("call", CALLS)
def test_certificate_file(runner: Runner, call: Call) -> None:
    """An authority in `SSL_CERT_FILE` is trusted."""
    with served() as server:
        observe(runner, call, server).expect(None)


def test_certificate_directory(environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """An authority in `SSL_CERT_DIR` is trusted."""
    folder = tmp_path / "authorities"
    folder.mkdir()
    del environ["SSL_CERT_FILE"]
    environ["SSL_CERT_DIR"] = str(folder)
    with served() as server:
        observe(ONE_RUNNER, "chat", server, healed=None).expect(APIConnectionError, charged="no", says="TLS")
        (folder / f"{subject_hash(authority_pem())}.0").write_bytes(authority_pem())
        observe(ONE_RUNNER, "chat", server).expect(None)


def test_inspecting_proxy(runner: Runner, environ: MutableMapping[str, str]) -> None:
    """A proxy that shows a certificate of the firm's own authority, as those that inspect TLS do, is no obstacle."""
    with served() as server, Proxy(tls=identity()) as proxy:
        environ["HTTPS_PROXY"] = proxy.url
        observe(runner, "stream", server).expect(None)
        assert len(proxy.asked) == 1


def test_untrusted_proxy(environ: MutableMapping[str, str]) -> None:
    """A proxy with an unknown certificate gets no password, and is named."""
    with served() as server, Proxy(tls=identity("unknown_ca")) as proxy:
        environ["HTTPS_PROXY"] = proxy.url
        seen = observe(ONE_RUNNER, "chat", server, healed=None)
        seen.expect(
            APIConnectionError,
            charged="no",
            attempts=1,
            says=rf"certificate of the proxy 127\.0\.0\.1:{proxy.port}.*TLS.*SSL_CERT_FILE",
        )
        assert proxy.asked == []


def test_no_thread_for_the_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread is to be had, as in a process that has too many, the certificates are read all the same."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    LeadLex(API_KEY, base_url="https://leadlex.invalid").close()


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_unusable_certificates(content: bytes | None, environ: MutableMapping[str, str], tmp_path: Path) -> None:
    """A certificate file that is not there, or is none, is refused before anything is sent."""
    file = tmp_path / "other.pem"
    if content is not None:
        file.write_bytes(content)
    environ["SSL_CERT_FILE"] = str(file)
    with pytest.raises(ConfigurationError, match="SSL_CERT_FILE"):
        LeadLex(API_KEY)

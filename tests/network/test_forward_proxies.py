"""leadlex through squid, and under mitmproxy's inspection of TLS, as firms have them."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Generator, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from leadlex import (
    APIConnectionError,
    APITimeoutError,
    ConfigurationError,
    PermissionDeniedError,
    RetryPolicy,
    StreamInterruptedError,
    Timeout,
    aiohttp_client,
    cli,
)
from tests.matrix.oracles import AT_ONCE, CALLS, CHARGED, PATIENT, REPEATED, Call, observe, spoiled
from tests.matrix.test_a_connect import trusted as trusted  # noqa: PLC0414  # a fixture
from tests.policy.test_outage import HASTY, PLACES
from tests.support.captures import CAPTURE_EVENTS, CAPTURE_TEXT
from tests.support.lexi import Cut, LexiScript, one_by_one
from tests.support.middlebox import Squid, mitmproxy, squid, squid_ports
from tests.support.proxy import Proxy, SocksProxy
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import API_KEY, AsyncRunner, Runner, SyncRunner
from tests.support.server import Connection, ScriptedServer, dead_port
from tests.support.tls import ELSEWHERE, identity
from tests.test_advice import QUESTION, arguments_in, failed

pytestmark = pytest.mark.usefixtures("trusted")

ASYNC, SYNC = AsyncRunner("asyncio"), SyncRunner()
WAYS: dict[str, tuple[Runner, dict[str, Any]]] = {
    "asyncio": (ASYNC, {}),
    "sync": (SYNC, {}),
    "aiohttp": (ASYNC, {"http_client": aiohttp_client}),
}
every_way = pytest.mark.parametrize(("runner", "options"), list(WAYS.values()), ids=list(WAYS))

URL = "HTTPS_PROXY=http://user:password@host:port"


@pytest.fixture(scope="module")
def firm() -> Generator[Squid]:
    """Run one squid for all who do not kill it."""
    with squid(squid_ports()) as ports:
        yield ports


@pytest.fixture(name="server")
def served() -> Generator[ScriptedServer]:
    """Serve Lexi over TLS, with a certificate of the private authority."""
    with ScriptedServer(LexiScript(sizes=(50,)), tls=identity()) as server:
        yield server


@pytest.fixture
def via(trusted: None, environ: MutableMapping[str, str]) -> Any:
    """Set the environment's proxy, once none is left of outside."""
    return partial(environ.__setitem__, "HTTPS_PROXY")


def place(server: ScriptedServer) -> str:
    """Tell host and port, as a pattern."""
    return re.escape(f"127.0.0.1:{server.port}")


def check_refusal(seen: Any, says: str) -> None:
    """Check that nobody was asked, nothing was charged, and it is not said that trying again helps."""
    seen.expect(APIConnectionError, charged="no", attempts=1, says=says)
    assert "Trying again" not in str(seen.error)
    assert "hunter2" not in str(seen.error)


# Through squid -----------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("call", CALLS)
def test_allowed(runner: Runner, options: Any, call: Call, firm: Squid, server: ScriptedServer, via: Any) -> None:
    """A proxy that asks for nothing, and one that is given what it asks for, let every call pass."""
    for address in (f"127.0.0.1:{firm.open}", f"clerk:hunter2@127.0.0.1:{firm.locked}"):
        via(f"http://{address}")
        observe(runner, call, server, **options).expect(None, attempts=1)


#: The ways to give a proxy in code, for every client and backend.
GIVEN: dict[str, Callable[[str], dict[str, Any]]] = {
    "own": lambda proxy: {"proxy": proxy},
    "aiohttp": lambda proxy: {"http_client": partial(aiohttp_client, proxy=proxy)},
}
CLIENTS = {
    "asyncio": (ASYNC, "own"),
    "trio": (AsyncRunner("trio"), "own"),
    "sync": (SYNC, "own"),
    "aiohttp": (ASYNC, "aiohttp"),
}
every_client = pytest.mark.parametrize(("runner", "way"), list(CLIENTS.values()), ids=list(CLIENTS))


@every_client
@pytest.mark.parametrize("call", CALLS)
def test_given(runner: Runner, way: str, call: Call, firm: Squid, server: ScriptedServer, via: Any) -> None:
    """A proxy that is given in code is used, and neither the variables nor NO_PROXY are asked."""
    via("http://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        options = GIVEN[way](f"http://clerk:hunter2@127.0.0.1:{firm.locked}")
        base_url = f"https://{ELSEWHERE}:{server.port}"
        observe(runner, call, server, base_url=base_url, **options).expect(None, attempts=1)


@every_client
def test_given_and_refused(runner: Runner, way: str, firm: Squid, server: ScriptedServer) -> None:
    """What a proxy that was given says is told with the option that gives it, and nothing of its password."""
    options = GIVEN[way](f"http://clerk:hunter2x@127.0.0.1:{firm.locked}")
    base_url = f"https://{ELSEWHERE}:{server.port}"
    seen = observe(runner, "chat", server, base_url=base_url, healed=None, **options)
    says = rf"The proxy 127.0.0.1:{firm.locked} refused to connect to {ELSEWHERE}:{server.port}: 407 .*proxy= or {URL}"
    check_refusal(seen, says)


@every_client
def test_this_machine_is_reached_without_a_proxy(runner: Runner, way: str, server: ScriptedServer) -> None:
    """A proxy that is given is for all but this machine."""
    observe(runner, "chat", server, **GIVEN[way]("http://127.0.0.1:9")).expect(None, attempts=1)


@every_client
@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_kinds_of_proxies(runner: Runner, way: str, scheme: str, server: ScriptedServer) -> None:
    """A proxy is reached by http, by https, or speaks SOCKS5; for that one aiohttp is refused in words."""
    made = SocksProxy() if scheme == "socks5" else Proxy(tls=identity() if scheme == "https" else None)
    with made as proxy:
        options = GIVEN[way](f" {scheme}://127.0.0.1:{proxy.port}\n")
        if (way, scheme) == ("aiohttp", "socks5"):
            with pytest.raises(ConfigurationError, match="knows no SOCKS proxy"):
                aiohttp_client(proxy=f"socks5://127.0.0.1:{proxy.port}")
        else:
            base_url = f"https://{ELSEWHERE}:{server.port}"
            observe(runner, "chat", server, base_url=base_url, **options).expect(None, attempts=1)
            assert proxy.connections == 1


@every_client
@pytest.mark.parametrize(
    "proxy", ["", "ftp://hunter2@x", "http://hunter2@", "http://x:99999", "http://[::bad", 5, b"http://x"]
)
def test_what_is_no_proxy(runner: Runner, way: str, proxy: Any) -> None:
    """What can't be a proxy is refused when the client is made, in words that hold no password."""
    options = GIVEN[way](proxy)
    with pytest.raises(ConfigurationError, match=r"^proxy ") as caught:
        options["http_client"]() if way == "aiohttp" else runner.make(api_key=API_KEY, **options)
    assert "hunter2" not in str(caught.value)
    assert "http://user:password@host:port" in str(caught.value)


@pytest.mark.parametrize("name", ["proxy", "verify"])
def test_beside_a_client_of_ones_own(runner: Runner, name: str) -> None:
    """A client of one's own has a proxy and certificates of its own, and that is where they are given."""
    with pytest.raises(ConfigurationError, match=f"{name} can't be given beside http_client"):
        runner.make(api_key=API_KEY, http_client=aiohttp_client, **{name: "system"})


@every_way
@pytest.mark.parametrize("call", ["chat", "stream"])
@pytest.mark.parametrize(
    ("user", "port", "said"),
    [
        ("", "locked", "407 Proxy Authentication Required"),
        ("clerk:hunter2x@", "locked", "407 Proxy Authentication Required"),
        ("clerk:hunter2@", "shut", "403 Forbidden"),
    ],
)
def test_not_allowed(  # what a proxy is told, and by whom
    runner: Runner,
    options: Any,
    call: Call,
    user: str,
    port: str,
    said: str,
    firm: Squid,
    server: ScriptedServer,
    via: Any,
) -> None:
    """A proxy that refuses is named, with what it said and the variable that tells it who is asking."""
    address = f"127.0.0.1:{getattr(firm, port)}"
    via(f"http://{user}{address}")
    seen = observe(runner, call, server, healed=None, **options)
    check_refusal(seen, f"The proxy {address} refused to connect to {place(server)}: {said}.* {URL}")
    assert not server.requests


@every_way
def test_nobody_behind_the_proxy(runner: Runner, options: Any, firm: Squid, via: Any) -> None:
    """A proxy that can't connect is asked again, and what it could not connect to is named."""
    via(f"http://127.0.0.1:{firm.open}")
    with dead_port() as url:
        seen = observe(runner, "chat", base_url=url.replace("http", "https"), healed=None, **options)
        address = url.removeprefix("http://")
    says = f"The proxy 127.0.0.1:{firm.open} could not connect to {address}: 503 .*Trying again is safe"
    seen.expect(APIConnectionError, charged="no", attempts=3, says=says)


@every_way
def test_https_to_the_plain_port(runner: Runner, options: Any, firm: Squid, server: ScriptedServer, via: Any) -> None:
    """A proxy that is called by https:// and does not speak TLS is told as that, with what to write."""
    via(f"https://127.0.0.1:{firm.open}")
    seen = observe(runner, "chat", server, healed=None, **options)
    check_refusal(seen, f"at the proxy 127.0.0.1:{firm.open} does not speak TLS.*Write http:// .*{URL}")


@every_way
def test_the_proxy_has_no_such_name(runner: Runner, options: Any, via: Any) -> None:
    """A proxy whose name can't be found is told as the proxy's, not as LeadLex's."""
    via("http://clerk:hunter2@proxy.invalid:3128")
    seen = observe(runner, "chat", base_url="https://127.0.0.1", healed=None, deadline=12, **options)
    seen.expect(APIConnectionError, charged="no", attempts=2, says=f"the proxy proxy.invalid:3128 could not be.*{URL}")
    assert "Trying again" not in str(seen.error)
    assert "hunter2" not in str(seen.error)


@pytest.mark.parametrize("call", ["chat", "stream"])
def test_on_the_command_line(
    call: Call, firm: Squid, server: ScriptedServer, via: Any, environ: MutableMapping[str, str], capfd: Any
) -> None:
    """The command tells the same, and ends with the code for no connection."""
    via(f"http://clerk:hunter2x@127.0.0.1:{firm.locked}")
    environ["LEADLEX_API_KEY"] = API_KEY
    environ["LEADLEX_BASE_URL"] = server.url
    assert cli.main(["chat", *(["--json"] if call == "chat" else []), "Hi"]) == 8
    said = capfd.readouterr().err
    assert f"The proxy 127.0.0.1:{firm.locked} refused to connect to 127.0.0.1:{server.port}: 407" in said
    assert URL in said
    assert "hunter2" not in said


@contextlib.contextmanager
def killed_once_asked(server: ScriptedServer, ports: Squid, back: float | None) -> Generator[None]:
    """Run a squid that is killed in the middle of the first stream, and comes back after some seconds or never."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(squid(ports))

        def kill() -> None:
            server.wait_for_requests()
            time.sleep(0.1)  # what came is on its way through
            stack.close()
            if back is not None:
                time.sleep(back)
                stack.enter_context(squid(ports))

        thread = threading.Thread(target=kill)
        thread.start()
        yield
        thread.join()


@every_way
def test_the_proxy_is_killed_and_comes_back(runner: Runner, options: Any, via: Any) -> None:
    """A stream outlasts the end of its proxy, and is charged once."""

    async def scenario(lexi: Any) -> str:
        return str((await lexi.stream_chat("Hi").final_reply()).response)

    ports, stall = squid_ports(), Cut(PLACES["text"], "stall")
    via(f"http://127.0.0.1:{ports.open}")
    with (
        no_leaks(),
        must_not_hang(),
        ScriptedServer(spoiled("stream", stall), tls=identity()) as server,
        killed_once_asked(server, ports, back=0.3),
    ):
        assert runner.run(scenario, base_url=server.url, retries=HASTY, **options) == CAPTURE_TEXT
        assert server.ledger.worst == 1


@every_way
def test_the_proxy_is_killed_for_good(runner: Runner, options: Any, via: Any) -> None:
    """When its window is over, a stream whose proxy is gone ends honestly, with what came and its key."""
    ports, stall = squid_ports(), Cut(PLACES["text"], "stall")
    via(f"http://127.0.0.1:{ports.open}")
    with (
        ScriptedServer(spoiled("stream", stall), tls=identity()) as server,
        killed_once_asked(server, ports, back=None),
    ):
        policy = RetryPolicy(base=0.02, floor=0.01, cap=0.1, window=0.5)
        seen = observe(runner, "stream", server, retries=policy, healed=None, **options)
        says = f"broke off: The proxy 127.0.0.1:{ports.open} could not be used.*idempotency_key='"
        seen.expect(StreamInterruptedError, charged="unknown", says=says)
        assert seen.text


# Proxies that are none ---------------------------------------------------------------------------------------------


def hang_up(_: Connection) -> None:
    """Close, whatever was asked."""


def babble(connection: Connection) -> None:
    """Answer with what is no HTTP."""
    connection.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    connection.stall()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("behave", [hang_up, babble])
def test_what_answers_is_no_proxy(runner: Runner, call: Call, behave: Any, via: Any) -> None:
    """What speaks no HTTP where a proxy should be has sent nothing on, so nothing is charged."""

    def answer(connection: Connection) -> None:
        connection.receive_head()
        behave(connection)

    with ScriptedServer(answer) as other:
        via(f"http://clerk:hunter2@127.0.0.1:{other.port}")
        seen = observe(runner, call, base_url="https://localhost", healed=None)
        says = f"The proxy {place(other)} could not be used: .*Trying again is safe.*{URL}"
        seen.expect(APIConnectionError, charged="no", attempts=3, says=says)


def test_http_to_a_proxy_of_tls(runner: Runner, server: ScriptedServer, via: Any) -> None:
    """A proxy that is called by http:// and speaks TLS has heard nothing either."""
    with Proxy(tls=identity()) as proxy:
        via(proxy.url.replace("https", "http"))
        seen = observe(runner, "chat", server, healed=None)
        says = f"The proxy {place(proxy)} could not be used: .*{URL}"
        seen.expect(APIConnectionError, charged="no", attempts=3, says=says)


@pytest.mark.parametrize("call", CALLS)
def test_a_proxy_that_says_nothing(runner: Runner, call: Call, via: Any) -> None:
    """To be connected by a proxy is a part of connecting: it takes no longer than that may."""

    def say_nothing(connection: Connection) -> None:
        connection.receive_head()
        connection.stall()

    with ScriptedServer(say_nothing) as silent:
        via(silent.url)
        timeout = Timeout(connect=0.1)
        seen = observe(runner, call, base_url="https://localhost", timeout=timeout, healed=None, deadline=1)
        seen.expect(APITimeoutError, charged="no", attempts=3, clock="connect", says=f"the proxy {place(silent)}")


# Under inspection --------------------------------------------------------------------------------------------------


class Inspection(NamedTuple):
    """Be a running mitmproxy.

    Args:
        port: Where it listens.
        authority: The file with the certificate of its authority.
    """

    port: int
    authority: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Generator[Inspection]:
    """Run one mitmproxy for all."""
    folder = tmp_path_factory.mktemp("mitmproxy")
    with mitmproxy(folder) as port:
        yield Inspection(port, folder / "mitmproxy-ca-cert.pem")


@pytest.fixture
def unknown(running: Inspection, via: Any) -> Inspection:
    """Go through a mitmproxy that nobody was told of."""
    via(f"http://127.0.0.1:{running.port}")
    return running


@pytest.fixture
def inspected(unknown: Inspection, environ: MutableMapping[str, str]) -> Inspection:
    """Trust it, as its error says; the server itself, reached past it, would not be trusted."""
    environ["SSL_CERT_FILE"] = str(unknown.authority)
    return unknown


@every_way
def test_an_unknown_authority(runner: Runner, options: Any, unknown: Inspection, server: ScriptedServer) -> None:
    """The certificate of a proxy that inspects is refused, with the way that it came and the variable that helps."""
    seen = observe(runner, "chat", server, healed=None, **options)
    way = rf"The certificate of {place(server)} \(reached through the proxy 127.0.0.1:{unknown.port}\) is not trusted"
    check_refusal(seen, f"{way}.*SSL_CERT_FILE")
    assert not server.requests


@every_way
@pytest.mark.usefixtures("inspected")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("path", ["", "/held"])
def test_inspected(runner: Runner, options: Any, call: Call, path: str, server: ScriptedServer) -> None:
    """With its authority in SSL_CERT_FILE all goes well, whether it hands on what comes or all at its end."""
    observe(runner, call, server, base_url=server.url + path, **options).expect(None, attempts=1)


@every_way
@pytest.mark.usefixtures("inspected")
def test_events_pass_as_they_come(runner: Runner, options: Any) -> None:
    """Every event passes before the next one is written."""

    async def scenario(lexi: Any) -> int:
        server.release("event 0")
        number = 0
        async for _ in lexi.stream_chat("Hi"):
            number += 1
            server.release(f"event {number}")
        return number

    with ScriptedServer(spoiled("stream", one_by_one), tls=identity()) as server:
        assert runner.run(scenario, base_url=server.url, timeout=PATIENT, **options) == len(CAPTURE_EVENTS)


@every_way
@pytest.mark.usefixtures("inspected")
@pytest.mark.parametrize("call", CALLS)
def test_blocked(runner: Runner, options: Any, call: Call, server: ScriptedServer) -> None:
    """An answer that was made, paid for and then blocked is told as blocked by something in between."""
    seen = observe(runner, call, server, base_url=f"{server.url}/page", **options)
    says = r"Something between here and LeadLex answered 403 \(text/html\): .*Blocked by data loss prevention"
    seen.expect(PermissionDeniedError, charged=CHARGED[call], attempts=1, from_service=False, says=says)
    assert server.ledger.worst == (call != "get")


@every_way
@pytest.mark.usefixtures("inspected")
@pytest.mark.parametrize("call", CALLS)
def test_killed(runner: Runner, options: Any, call: Call, server: ScriptedServer) -> None:
    """An answer that was made and cut off is a lost one."""
    seen = observe(runner, call, server, base_url=f"{server.url}/killed", **options)
    seen.expect(APIConnectionError, charged=CHARGED[call], attempts=REPEATED[call], says="broke before the answer")
    assert server.ledger.worst == (call != "get")


@every_way
@pytest.mark.usefixtures("inspected")
@pytest.mark.parametrize("path", ["/page", "/killed"])
def test_the_advice_under_inspection(runner: Runner, options: Any, path: str, server: ScriptedServer) -> None:
    """Once the answer may pass, the question is answered as its error says, and was charged once in all."""

    async def asked_again(lexi: Any, words: str) -> str:
        return str((await lexi.stream_chat(QUESTION, **arguments_in(words)).final_reply()).response)

    error = runner.run(partial(failed, question=QUESTION), base_url=server.url + path, retries=AT_ONCE, **options)
    assert error.charged == "unknown"
    assert runner.run(partial(asked_again, words=str(error)), base_url=server.url, **options) == CAPTURE_TEXT
    assert server.ledger.by_call == {QUESTION: 1}

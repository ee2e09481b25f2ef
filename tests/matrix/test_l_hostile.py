"""Table L: the key stays secret, whatever a server, an environment or a debugger does.

Arguments are the subject of `tests/protocol/test_arguments.py`, which proves the rows L01 to L04, L09 to L13, L21, L22
and L24.
"""

from __future__ import annotations

import copy
import importlib.metadata
import logging
import pickle
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest

import leadlex
from leadlex import APIResponseError, AuthenticationError, ConfigurationError
from tests.matrix.oracles import CALLS, CHARGED, Call, Log, check_secrets, locals_of, observe, spoiled
from tests.support.lexi import Answer, LexiScript, Lost
from tests.support.proxy import Proxy
from tests.support.runners import API_KEY, AsyncRunner, Runner
from tests.support.server import ScriptedServer
from tests.support.surroundings import packages

ONE_RUNNER = AsyncRunner("asyncio")
PLACES = ["https://evil.example/", "http://evil.example/", "https://eu.data.leadlex.com/", "/v1/same"]
HOSTILE = "Pay \x1b[2J\x1b]0;owned\x07 now\r\nSet-Cookie: a\u202egpj.exe"


@pytest.fixture(autouse=True)
def no_environment(environ: MutableMapping[str, str]) -> None:
    """Begin without what the machine's own environment says."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        environ.pop(name, None)
        environ.pop(name.lower(), None)


@pytest.mark.row("L05", "L06", "L07", "L08")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "place", ["https://evil.example/", "http://evil.example/", "https://eu.data.leadlex.com/", "/v1/same"]
)
def test_redirects(call: Call, status: int, place: str) -> None:
    """A redirect to anywhere, the same host too, is not followed: nobody else gets the key, or the question again."""
    with ScriptedServer(spoiled(call, Answer(status, headers=[("Location", place)]))) as server:
        seen = observe(ONE_RUNNER, call, server)
        seen.expect(APIResponseError, charged=CHARGED[call], attempts=1, says=f"redirect to {re.escape(place)}")
        assert len(server.requests) == 2  # the call, and the one that shows that all is well


@pytest.mark.row("L14")
def test_shown(runner: Runner) -> None:
    """No way of showing, copying or storing a client tells its key; only a copy of an error is made."""
    lexi = runner.make(api_key=API_KEY, base_url="https://leadlex.invalid")
    client: Any = getattr(lexi, "_value", lexi)
    inner = getattr(client, "_wrapped", client)
    things = [client, inner, inner._transport, inner._transport.settings, inner._transport.settings.keys]
    told = [form(thing) for thing in things for form in (repr, str, "{}".format)] + [repr(vars(inner._transport))]
    assert not [text for text in told if API_KEY[8:] in text]
    for thing in (client, inner, inner._transport.settings.keys):
        for store in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="process that uses it"):
                store(thing)


@pytest.mark.row("L15", "L23")
@pytest.mark.parametrize("call", CALLS)
def test_logs(runner: Runner, call: Call) -> None:
    """At every level of every logger stand neither the key nor what was asked or answered."""
    secret = "Settle Doe v. Roe for 40,000"
    with ScriptedServer(LexiScript()) as server, (log := Log()).collected():
        observe(runner, call, server, message=secret)
    assert log.lines
    check_secrets(log.lines, None, secret, "Proposal stage", "Added 20 contacts")


@pytest.mark.row("L16", "L23")
@pytest.mark.parametrize("call", CALLS)
def test_tracebacks(runner: Runner, call: Call) -> None:
    """A debugger that stores the locals of a traceback finds no key and no question in leadlex's frames."""
    with ScriptedServer(spoiled(call, Lost("rst"), times=9)) as server:
        seen = observe(runner, call, server, healed=None)
    assert isinstance(seen.error, leadlex.LeadLexError)
    assert list(locals_of(seen.error.__traceback__))  # there was something to look at
    check_secrets(list(locals_of(seen.error.__traceback__)), seen.error, seen.message)


@pytest.mark.row("L17")
@pytest.mark.parametrize("call", CALLS)
def test_echoes(runner: Runner, call: Call, caplog: pytest.LogCaptureFixture) -> None:
    """A server that sends the key back, in a body or a header, finds no one who repeats it."""
    body = {"error": {"code": "invalid_key", "message": f"Bad header: Bearer {API_KEY}"}}
    echo = Answer(401, body, headers=[("X-Request-ID", f"req_{API_KEY}")])
    # httpcore logs, at DEBUG, the raw headers of an answer, which are the server's own words.
    caplog.set_level(logging.INFO, "httpcore.http11")
    with ScriptedServer(spoiled(call, echo)) as server:
        seen = observe(runner, call, server)
    seen.expect(AuthenticationError, charged="no")
    assert isinstance(seen.error, AuthenticationError)
    told = [seen.error.message, seen.error.body, seen.error.request_id, *seen.error.meta.headers.values()]  # type: ignore[union-attr]  # it has
    assert not [text for text in told if text and API_KEY in text]


@pytest.mark.row("L18")
@pytest.mark.parametrize("call", CALLS)
def test_escapes(runner: Runner, call: Call) -> None:
    """What a server says reaches a terminal or a log without its control characters; the error has it as sent."""
    answer = Answer(400, {"error": {"code": "validation_error", "message": HOSTILE}})
    with ScriptedServer(spoiled(call, answer)) as server, (log := Log()).collected():
        seen = observe(runner, call, server)
    seen.expect(leadlex.BadRequestError, charged="no", message=HOSTILE)
    assert str(seen.error).isprintable()
    assert repr(seen.error).isprintable()
    assert not [line for line in log.lines if "\x1b" in line or "\u202e" in line]


@pytest.mark.row("L19")
def test_plain_proxies(runner: Runner, environ: MutableMapping[str, str]) -> None:
    """A proxy never sees a plain request with the key in it: plain http is for this machine, which needs none."""
    with ScriptedServer(LexiScript()) as server, Proxy() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            environ[name] = proxy.url
        observe(runner, "chat", server).expect(None)
        assert not proxy.asked


@pytest.mark.row("L20")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("SSLKEYLOGFILE", "/nowhere/keys.log"),
        ("ALL_PROXY", "socks5://127.0.0.1:1080"),
        ("HTTPS_PROXY", "ftp://x"),
        ("HTTPS_PROXY", "http://[::1"),
        ("NO_PROXY", "[::bad"),
    ],
)
def test_environments(name: str, value: str, environ: MutableMapping[str, str]) -> None:
    """An environment that can't be used is refused when the client is made, in words that name the variable."""
    environ[name] = value
    wanted = name if name != "ALL_PROXY" else "SOCKS|ALL_PROXY"
    for make in (leadlex.AsyncLeadLex, leadlex.LeadLex):
        # What SOCKS needs is no dependency.
        with packages(socksio=None), pytest.raises(ConfigurationError, match=wanted) as caught:
            make(API_KEY)
        check_secrets([], caught.value)


@pytest.mark.row("L25")
def test_floors() -> None:
    """The lower bounds rule out the releases with known holes: h11 before 0.16 let chunked bodies be smuggled."""
    wanted = {re.split(r"[<>=~! ;\[]", line)[0]: line for line in requirements("leadlex")}
    assert {name for name, line in wanted.items() if "extra" not in line and ">=" not in line} == set()
    [h11] = [line for line in requirements("httpcore") if line.startswith("h11")]
    assert "0.16" in h11


def requirements(name: str) -> Iterator[str]:
    """List what a distribution needs; the project's own list is read from its source where it is not installed."""
    try:
        yield from importlib.metadata.requires(name) or ()
    except importlib.metadata.PackageNotFoundError:
        text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
        yield from re.findall(r'^    "([a-z-]+>=[^"]+)",$', text, flags=re.MULTILINE)

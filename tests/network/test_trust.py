"""Whose certificates are trusted: what a client is told, and what the machine itself trusts."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leadlex import APIConnectionError, ConfigurationError, aiohttp_client, cli
from tests.architecture import ROOT
from tests.matrix.oracles import CALLS, Call, observe
from tests.support.lexi import LexiScript
from tests.support.runners import API_KEY, AsyncRunner, Runner, SyncRunner
from tests.support.server import ScriptedServer
from tests.support.tls import authority_pem, client_context, identity

ASYNC = AsyncRunner("asyncio")
#: Every client and backend, and how it is told whom to trust.
CLIENTS: dict[str, tuple[Runner, Callable[[Any], dict[str, Any]]]] = {
    "asyncio": (ASYNC, lambda verify: {"verify": verify}),
    "trio": (AsyncRunner("trio"), lambda verify: {"verify": verify}),
    "sync": (SyncRunner(), lambda verify: {"verify": verify}),
    "aiohttp": (ASYNC, lambda verify: {"http_client": partial(aiohttp_client, verify=verify)}),
}
every_client = pytest.mark.parametrize(("runner", "told"), list(CLIENTS.values()), ids=list(CLIENTS))


@pytest.fixture(autouse=True)
def untold(environ: MutableMapping[str, str]) -> None:
    """Have an environment that says nothing of certificates and proxies."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "ALL_PROXY", "LEADLEX_VERIFY"):
        environ.pop(name, None)
        environ.pop(name.lower(), None)


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """Write the certificate of the tests' authority to a file."""
    file = tmp_path / "authority.pem"
    file.write_bytes(authority_pem())
    return file


def served() -> ScriptedServer:
    """Serve Lexi over TLS, with a certificate of the tests' authority."""
    return ScriptedServer(LexiScript(), tls=identity())


@every_client
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", ["text", "path", "context"])
def test_an_authority_is_given(runner: Runner, told: Any, call: Call, form: str, authority: Path) -> None:
    """A file's path, as text or as a path, and a context of one's own say who is trusted."""
    verify = {"text": str(authority), "path": authority, "context": client_context()}[form]
    with served() as server:
        observe(runner, call, server, **told(verify)).expect(None, attempts=1)


@every_client
def test_what_is_given_goes_before_the_environment(
    runner: Runner, told: Any, authority: Path, environ: MutableMapping[str, str]
) -> None:
    """Who is given is trusted alone, whatever the environment says; the error names both ways."""
    environ["SSL_CERT_FILE"] = str(authority)
    with served() as server:
        seen = observe(runner, "chat", server, healed=None, **told(ssl.create_default_context(cafile=other())))
        says = r"certificate of 127.0.0.1:\d+ is not trusted.*verify=PATH or SSL_CERT_FILE=PATH.*verify='system'"
        seen.expect(APIConnectionError, charged="no", attempts=1, says=says)


def other() -> str:
    """Name a file with other authorities."""
    import certifi  # noqa: PLC0415  # httpx's own

    return certifi.where()


@every_client
@pytest.mark.parametrize(
    ("verify", "says"),
    [
        ("/nowhere/ca.pem", "verify='/nowhere/ca.pem' can't be used: No such file or directory"),
        ("", "or 'system'; given: ''"),
        (__file__, "verify='.*test_trust.py' can't be used"),
        ("/", "verify='/' can't be used"),
        (False, "verify can't be False.*verify=PATH"),
        (ssl._create_unverified_context(), "verify can't be False, nor a context that does not check"),  # noqa: S323
        (True, "verify must be an ssl.SSLContext, a PEM file's path or 'system'; given: bool"),
        (5, "given: int"),
        (b"/ca.pem", "given: bytes"),
    ],
)
def test_what_says_nobody(runner: Runner, told: Any, verify: Any, says: str) -> None:
    """What says of nobody that he is trusted, or that all are, is refused when the client is made, in words."""
    options = told(verify)
    with pytest.raises(ConfigurationError, match=says):
        options["http_client"]() if "http_client" in options else runner.make(api_key=API_KEY, **options)


def test_on_the_command_line(authority: Path, environ: MutableMapping[str, str], capfd: Any) -> None:
    """`LEADLEX_VERIFY` says it to the command, and to no client that a program makes."""
    with served() as server:
        environ.update(LEADLEX_API_KEY=API_KEY, LEADLEX_BASE_URL=server.url, LEADLEX_VERIFY=str(authority))
        assert cli.main(["chat", "--json", "Hi"]) == 0
        observe(ASYNC, "chat", server, healed=None).expect(APIConnectionError, charged="no")
        del environ["LEADLEX_VERIFY"]
        assert cli.main(["chat", "--json", "Hi"]) == 8
    assert "is not trusted" in capfd.readouterr().err


# What the machine trusts -------------------------------------------------------------------------------------------


@every_client
@pytest.mark.parametrize("call", CALLS)
def test_system(runner: Runner, told: Any, call: Call, authority: Path, environ: MutableMapping[str, str]) -> None:
    """What OpenSSL is told to trust on this machine is trusted, on every connection; without, it is not."""
    with served() as server:
        observe(runner, call, server, healed=None, **told("system")).expect(
            APIConnectionError, charged="no", attempts=1
        )
        environ["SSL_CERT_FILE"] = str(authority)
        observe(runner, call, server, **told("system")).expect(None, attempts=1)


def test_system_without_its_extra(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package for it is missing it is said before anything is sent, with what installs it."""
    monkeypatch.setitem(sys.modules, "truststore", None)
    with pytest.raises(ConfigurationError, match=r"needs the extra trust.* pip install '\.\[trust\]'"):
        runner.make(api_key=API_KEY, verify="system")


STORE = Path("/etc/ssl/certs/ca-certificates.crt")
"""What Debian makes of all that update-ca-certificates was given."""

PROGRAM = """
import functools, sys
import anyio, leadlex

url, runner = sys.argv[1:]

async def ask(**options):
    async with leadlex.AsyncLeadLex("wbk_invented", base_url=url, **options) as lexi:
        await lexi.stream_chat("Hi").final_reply()

def outcome(**options):
    try:
        if runner == "sync":
            with leadlex.LeadLex("wbk_invented", base_url=url, **options) as lexi:
                lexi.stream_chat("Hi").final_reply()
        else:
            anyio.run(functools.partial(ask, **options), backend="trio" if runner == "trio" else "asyncio")
    except leadlex.APIConnectionError as error:
        return "is not trusted" in str(error) and "not trusted"
    return "trusted"

if runner == "aiohttp":
    told = {"http_client": functools.partial(leadlex.aiohttp_client, verify="system")}
else:
    told = {"verify": "system"}
print(outcome(), outcome(**told), sep=", ")
"""


def seeing(file: Path, words: list[str]) -> list[str]:
    """Say how to run a program that sees a file in the place of the machine's store, which stays as it is."""
    script = 'mount --bind "$0" "$1" && shift && exec "$@"'
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(file), str(STORE), *words]


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a program, and give its exit code and what it said."""
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("runner", CLIENTS)
def test_an_authority_that_the_machine_trusts(runner: str, tmp_path: Path) -> None:
    """An authority that stands in Debian's store, and not in certifi's, is trusted where that was asked for."""
    store = tmp_path / "store.crt"
    if shutil.which("unshare") is None or not STORE.exists():
        pytest.skip("no unshare, or no store as Debian has it")
    store.write_bytes(STORE.read_bytes() + authority_pem())
    if run(seeing(store, ["true"]))[0]:
        pytest.skip("this machine lets nobody mount, not even for himself")
    with served() as server:
        assert run(seeing(store, [sys.executable, "-c", PROGRAM, server.url, runner])) == (
            0,
            "not trusted, trusted\n",
            "",
        )

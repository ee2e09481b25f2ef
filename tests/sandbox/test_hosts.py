"""Under which names the sandbox answers, and from where a client may ask it."""

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import leadlex
from leadlex import AsyncLeadLex, ConfigurationError
from leadlex.sandbox import Sandbox
from leadlex.sandbox._hosts import Hosts
from tests.support.runners import Runner

from .conftest import client_of

OTHER_ADDRESS = "127.0.0.2"  # Linux answers on all of 127.0.0.0/8


def answer_to(sandbox: Sandbox, *host: str, path: str = "/v1/lexi/tasks", version: str = "1.1") -> tuple[int, str]:
    """Ask with Host headers of one's own, and give status and text of the answer."""
    address = urlsplit(sandbox.url)
    lines = [f"GET {path} HTTP/{version}", *(f"Host: {name}" for name in host)]
    lines += [f"Authorization: Bearer {sandbox.api_key}", "Connection: close", "", ""]
    with socket.create_connection((address.hostname, address.port)) as raw:
        raw.sendall("\r\n".join(lines).encode())
        with raw.makefile("rb") as reader:
            text = reader.read().decode()
    return int(text.split()[1]), text


OURS = ["localhost", "LocalHost:80", "127.0.0.1", "127.0.0.1:8080", "127.1.2.3", "[::1]", "[::1]:80", "sandbox:80"]
OTHERS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[2001:db8::1]",
    "sandbox.evil.example",
    "localhost.",
    "localhost@evil.example",
    "localhost:80:80",
    "[::1",
    "0.0.0.0",  # noqa: S104 - not to listen on
    "",
    "local\u212aost",
]


@pytest.mark.parametrize("host", OURS)
def test_answers_to_the_names_of_this_machine(host: str) -> None:
    """`localhost`, a loopback address, and a name that it was told, with any port or none."""
    with Sandbox(allowed_hosts=["Sandbox"]) as sandbox:
        assert answer_to(sandbox, host)[0] == 200


@pytest.mark.parametrize("path", ["/v1/lexi/tasks", "/openapi.yaml", "http://localhost/v1/lexi/tasks"])
@pytest.mark.parametrize("host", OTHERS)
def test_no_other_name_reaches_it(host: str, path: str) -> None:
    """A page whose name suddenly stands for this machine (DNS rebinding) is told nothing; the quota is not touched."""
    with Sandbox(allowed_hosts=["sandbox"]) as sandbox:
        status, text = answer_to(sandbox, host, path=path)
        assert status in (400, 421)
        assert "tasks" not in text
        assert answer_to(sandbox, "localhost")[1].lower().count("x-ratelimit-remaining: 9999") == 1


def test_who_is_refused_learns_what_to_do() -> None:
    """The answer has the contract's shape, and names the option."""
    with Sandbox() as sandbox, client_of(sandbox) as http:
        answer = http.get("/v1/lexi/tasks", headers={"Host": "sandbox:8080"})
        assert answer.status_code == 421
        assert answer.json()["error"]["code"] == "unknown_host"
        assert "--allow-host" in answer.json()["error"]["message"]


def test_a_fault_waits_for_a_request_that_is_let_in() -> None:
    """Who is refused uses nothing up."""
    with Sandbox() as sandbox:
        sandbox.fail_next(503)
        assert answer_to(sandbox, "evil.example")[0] == 421
        assert sandbox.unused == ["503 internal_error"]


def test_two_names_are_none() -> None:
    """A request without a name, or with two of them, is refused."""
    with Sandbox() as sandbox:
        assert answer_to(sandbox, "localhost", "evil.example")[0] == 400
        assert answer_to(sandbox, version="1.0")[0] == 421


@pytest.mark.parametrize("names", ["sandbox", ["http://sandbox"], ["sandbox:8080"], [""], ["a b"], ["*"]])
def test_names_that_are_none_are_refused(names: Any) -> None:
    """Names come as several, without scheme and port."""
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        Sandbox(allowed_hosts=names)


def test_listens_where_it_is_told() -> None:
    """On another address it is reached there, and nowhere else; on all of them this machine uses loopback."""
    with Sandbox(host=OTHER_ADDRESS) as sandbox:
        assert sandbox.url.startswith(f"http://{OTHER_ADDRESS}:")
        assert answer_to(sandbox, OTHER_ADDRESS)[0] == 200
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", urlsplit(sandbox.url).port))
    with pytest.raises(ConfigurationError, match="host must be an address"):
        Sandbox(host="")
    with Sandbox(host="localhost") as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")


def test_all_addresses(runner: Runner) -> None:
    """What listens everywhere is used over loopback, also over IPv6 where there is one."""
    hosts = ["0.0.0.0", *(["::", "::1"] if _has_ipv6() else [])]  # noqa: S104 - what is tested
    for host in hosts:
        with Sandbox(host=host, pace=0) as sandbox:
            assert urlsplit(sandbox.url).hostname == ("::1" if ":" in host else "127.0.0.1")
            assert runner.run(_talk, api_key=sandbox.api_key, base_url=sandbox.url).startswith("Hello!")


@pytest.mark.parametrize(
    ("host", "reached", "is_own"),
    [
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("[fd00::1]:80", "fd00::1", True),
        ("10.0.0.2", "::ffff:10.0.0.1", False),
        ("10.0.0.2", "10.0.0.1", False),
    ],
)
def test_its_own_address(host: str, reached: str, is_own: bool) -> None:  # noqa: FBT001 - a table's column
    """The address that a connection came to is a name too, also where both versions of IP share a socket."""
    assert Hosts(()).admit({"type": "http", "headers": [(b"host", host.encode())], "server": (reached, 80)}) is is_own


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def _talk(lexi: Any) -> str:
    return str((await lexi.stream_chat("Hello").final_reply()).response)


# A sandbox in another container -------------------------------------------------------------------------------------


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a name server that knows `sandbox`, as the one of containers does."""
    look_up = socket.getaddrinfo

    def answer(host: Any, *how: Any, **named: Any) -> Any:
        return look_up(OTHER_ADDRESS if host in ("sandbox", b"sandbox") else host, *how, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.mark.usefixtures("other_machine")
def test_a_sandbox_on_another_machine(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two variables of a compose file do: the key says that nothing is lost over plain http."""
    with Sandbox(host=OTHER_ADDRESS, allowed_hosts=["sandbox"], pace=0) as sandbox:
        monkeypatch.setenv("LEADLEX_BASE_URL", f"http://sandbox:{urlsplit(sandbox.url).port}")
        for key in (sandbox.api_key, sandbox.add_key()):
            monkeypatch.setenv("LEADLEX_API_KEY", key)
            assert runner.run(_talk, api_key=None).startswith("Hello!")
        assert sandbox.requests[-1].headers["host"] == f"sandbox:{urlsplit(sandbox.url).port}"


@pytest.mark.usefixtures("other_machine")
def test_a_sandbox_that_was_not_told_its_name(runner: Runner) -> None:
    """The error says what the sandbox needs."""
    with Sandbox(host=OTHER_ADDRESS, pace=0) as sandbox:
        url = f"http://sandbox:{urlsplit(sandbox.url).port}"
        with pytest.raises(leadlex.APIStatusError, match="--allow-host"):
            runner.run(_talk, api_key=sandbox.api_key, base_url=url)


@pytest.mark.parametrize("key", ["wbk_real", "wbk_sandbo", "WBK_SANDBOX_x", "wbk_Sandbox_x", "x_wbk_sandbox_x"])
def test_no_other_key_goes_over_plain_http(key: str) -> None:
    """A key that is a secret goes nowhere without TLS."""
    with pytest.raises(ConfigurationError, match="only https keeps the key secret"):
        AsyncLeadLex(key, base_url="http://sandbox:8080")


def test_keys_of_a_sandbox_say_so() -> None:
    """Every key that a sandbox makes begins as a client expects it."""
    sandbox = Sandbox()
    assert all(key.startswith("wbk_sandbox_") for key in (sandbox.api_key, sandbox.add_key(), sandbox.add_key([])))


# A browser ----------------------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-proxy-server", "--dump-dom")


@pytest.mark.heavy
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
@pytest.mark.parametrize(("name", "told"), [("evil.example", "unknown_host"), ("localhost", "invalid_key")])
def test_a_browser_whose_name_server_lies(name: str, told: str, tmp_path: Path) -> None:
    """A page of evil.example, whose name now stands for this machine, is told nothing of what the sandbox has."""
    with Sandbox() as sandbox:
        url = f"http://{name}:{urlsplit(sandbox.url).port}/v1/lexi/tasks"
        where = [f"--user-data-dir={tmp_path}", f"--host-resolver-rules=MAP {name} 127.0.0.1"]
        shown = subprocess.run([CHROMIUM, *FLAGS, *where, url], capture_output=True, text=True, timeout=60, check=False)
        assert sandbox.requests[0].headers["host"].startswith(name)
    assert told in shown.stdout

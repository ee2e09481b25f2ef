"""`leadlex sandbox`: a sandbox in the foreground."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import httpx
import pytest

import leadlex

from .conftest import Run, Terminal
from .test_terminal import interrupt, plain


def test_a_sandbox_serves_until_ctrl_c(run_on: Run, terminal: Terminal) -> None:
    """It says where it is and what to type to use it, answers, and ends with 0 when it is stopped."""
    answers: list[str] = []

    def use() -> None:
        url = re.search(r"LEADLEX_BASE_URL=(\S+)", plain(terminal.text))
        key = re.search(r"LEADLEX_API_KEY=(\S+)", plain(terminal.text))
        assert url
        assert key
        with leadlex.LeadLex(key[1], base_url=url[1]) as client:
            answers.append(client.chat("Where is Jane Doe?").response)
        interrupt()

    terminal.when("LEADLEX_API_KEY=wbk_sandbox", use)
    assert run_on("sandbox").code == 0
    assert answers == ["Jane Doe is currently in the Proposal stage with Document automation."]
    assert "Nothing is kept when it stops." in plain(terminal.text)
    assert plain(terminal.text).endswith("\nThe sandbox has stopped.\n")


def test_a_sandbox_keeps_its_data_and_its_port(run_on: Run, terminal: Terminal, tmp_path: Path) -> None:
    """`--data` names the file, `--port` the port; `--json` tells both to a program."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "lexi.db"
    terminal.when("api_key", interrupt)
    assert run_on("sandbox", "--data", str(path), "--port", str(port), "--json").code == 0
    told = json.loads(terminal.text)
    assert told == {"url": f"http://127.0.0.1:{port}", "api_key": told["api_key"], "data": str(path)}
    assert path.stat().st_size > 0


def test_the_file_is_named(run_on: Run, terminal: Terminal, tmp_path: Path) -> None:
    """A person is told where everything is kept."""
    terminal.when("API_KEY", interrupt)
    assert run_on("sandbox", "--data", str(tmp_path / "x.db")).code == 0
    assert f"Kept in {tmp_path / 'x.db'}." in plain(terminal.text)


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    """A sandbox that can't start says why, with exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("sandbox", "--port", str(taken.getsockname()[1]))
    assert (result.code, result.out) == (2, "")
    assert "Error: The sandbox can't start:" in result.err


@pytest.mark.parametrize("content", [None, b"not a database, certainly not" * 100])
def test_a_file_that_is_no_database_is_told(content: bytes | None, run: Run, tmp_path: Path) -> None:
    """A folder, or a file of another kind, is refused and left as it is."""
    path = tmp_path / "file" if content else tmp_path
    if content:
        path.write_bytes(content)
    assert run("sandbox", "--data", str(path)).code == 2
    assert content is None or path.read_bytes() == content


def test_everything_can_be_set(run_on: Run, terminal: Terminal) -> None:
    """Balance, prices, quota, pace and what a repeated key gets are the sandbox's options too."""
    seen: list[object] = []

    def use() -> None:
        told = json.loads(terminal.text)
        with leadlex.LeadLex(told["api_key"], base_url=told["url"], retries=0) as client:
            stream = client.stream_chat("Where is Jane Doe?")
            first = stream.final_reply()
            second = client.stream_chat("Where is Jane Doe?", idempotency_key=stream.idempotency_key).final_reply()
            seen.extend([first.credits_remaining, second.response, first.meta.rate_limit])
            with pytest.raises(leadlex.RateLimitError):
                client.tasks()
        interrupt()

    terminal.when("api_key", use)
    options = ["--credits", "30000", "--prices", "tool_step=4, stream=2", "--quota", "2", "--pace", "0"]
    assert run_on("sandbox", *options, "--idempotency", "regenerate", "--json").code == 0
    credits_left, second, rate_limit = seen
    assert (credits_left, str(second)[:10]) == (30_000 - 6, "Once more:")
    assert isinstance(rate_limit, leadlex.RateLimit)
    assert rate_limit.limit == 2


def test_a_sandbox_for_other_containers(run_on: Run, terminal: Terminal) -> None:
    """`--host` says where it listens, `--allow-host` under which names it is reached; others are refused."""
    answers: list[tuple[str, int]] = []

    def use() -> None:
        told = json.loads(terminal.text)
        assert told["url"].startswith("http://127.0.0.2:")
        for host in ("sandbox:80", "lexi", "127.0.0.2", "evil.example"):
            headers = {"Host": host, "Authorization": f"Bearer {told['api_key']}"}
            answers.append((host, httpx.get(f"{told['url']}/v1/lexi/tasks", headers=headers).status_code))
        interrupt()

    terminal.when("api_key", use)
    names = ["--allow-host", "sandbox", "--allow-host", "lexi"]
    assert run_on("sandbox", "--host", "127.0.0.2", *names, "--json").code == 0
    assert answers == [("sandbox:80", 200), ("lexi", 200), ("127.0.0.2", 200), ("evil.example", 421)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--credits", "-1"], "--credits"),
        (["--quota", "many"], "--quota"),
        (["--pace", "-1"], "--pace"),
        (["--pace", "inf"], "--pace"),
        (["--prices", "chat"], "--prices"),
        (["--prices", "chat=-1"], "--prices"),
        (["--prices", "talk=1"], "chat, search, stream, tool_step"),
        (["--idempotency", "forget"], "replay"),
        (["--allow-host", "http://sandbox"], "without scheme and port"),
        (["--host", "192.0.2.1"], "can't start"),
    ],
)
def test_options_that_can_t_be_used_are_told(run: Run, options: list[str], says: str) -> None:
    """A wrong option is told with exit code 2, and nothing is started."""
    result = run("sandbox", *options)
    assert (result.code, result.out) == (2, "")
    assert says in result.err

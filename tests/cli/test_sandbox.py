"""`leadlex sandbox`: a sandbox in the foreground."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

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

"""What every command has in common: help, wrong calls, errors and exit codes."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path

import pexpect
import pytest

import leadlex
from leadlex import cli
from leadlex.cli._exits import exit_code, exit_codes
from leadlex.sandbox import Sandbox
from tests.support.surroundings import run_code, streams

from .conftest import Run

ROOT = Path(__file__).parents[2]


def errors() -> list[type[leadlex.LeadLexError]]:
    """List the classes of errors that leadlex has."""
    values = [getattr(leadlex, name) for name in leadlex.__all__]
    return [value for value in values if isinstance(value, type) and issubclass(value, leadlex.LeadLexError)]


def test_help_documents_every_exit_code(run: Run) -> None:
    """`--help` names the commands and says what each exit code means."""
    result = run("--help")
    assert result.code == 0
    assert exit_codes() in result.out
    for kind in errors():
        assert f"{exit_code(kind.__new__(kind)):>5}  " in result.out
    for command in ("chat", "conversations", "tasks", "sandbox", "webhooks"):
        assert f"    {command}" in result.out


def test_without_arguments_it_helps(run: Run) -> None:
    """`leadlex` alone shows what there is."""
    assert run().out == run("--help").out


def test_the_version_is_told(run: Run) -> None:
    """`--version` is the package's."""
    assert run("--version").out == f"leadlex {leadlex.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("chta",),
        ("chat", "--jsno", "Hello"),
        ("chat", "--sand", "Hello"),
        ("tasks",),
        ("tasks", "list", "--status", "open"),
        ("tasks", "approve"),
        ("conversations", "list", "--limit", "0"),
        ("conversations", "list", "--limit", "x"),
        ("conversations", "show", "conv_01HY1", "--limit", "-1"),
        ("chat", "Hello", "--idempotency-key", "k", "--first-sent", "yesterday"),
        ("chat", "Hello", "--idempotency-key", "k", "--first-sent", "2026-04-17T10:30:00"),
        ("sandbox", "--port", "65536"),
        ("sandbox", "--port", "http"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(arguments: tuple[str, ...], run: Run) -> None:
    """What can't be understood has exit code 2, one line for people, and the way to the help; in JSON too."""
    result = run(*arguments)
    assert not re.search(r"\b_\w+", result.err)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert result.err.endswith(" --help\n")
    error = run(*arguments, "--json").error
    assert (error["type"], error["exit_code"], error["charged"]) == ("ConfigurationError", 2, "no")


def test_a_library_refusal_is_a_wrong_call(run: Run, sandbox: Sandbox) -> None:
    """What leadlex refuses before sending is a wrong call as well."""
    assert run("conversations", "show", "..").code == 2
    assert run("chat", "x" * 12_001).code == 2
    assert not sandbox.requests


def test_errors_have_codes_by_their_kind(run: Run, sandbox: Sandbox, environ: MutableMapping[str, str]) -> None:
    """A script learns from the code what kind of thing went wrong, with no traceback."""
    sandbox.fail_next("no_credits")
    assert run("chat", "Hello").code == 4
    sandbox.fail_next("rate_limit")
    error = run("tasks", "list", "--json").error
    assert (error["exit_code"], error["status_code"], error["code"]) == (7, 429, "rate_limited")
    assert error["reset_at"].endswith("Z")
    assert run("conversations", "show", "conv_9").code == 6
    environ["LEADLEX_API_KEY"] = sandbox.add_key(["lexi"])
    result = run("conversations", "list")
    assert result.code == 5
    assert "'read:ai'" in result.err
    environ["LEADLEX_API_KEY"] = "wbk_wrong"
    result = run("tasks", "list")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("Error: LeadLex did not accept the API key")


def test_a_failing_service_and_none_differ(run: Run, sandbox: Sandbox, environ: MutableMapping[str, str]) -> None:
    """A service that fails has code 10, one that can't be reached has 8."""
    for _ in range(3):
        sandbox.fail_next("server_error")
    assert run("tasks", "list").code == 10
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        environ["LEADLEX_BASE_URL"] = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert run("tasks", "list").code == 8


@pytest.mark.parametrize("kind", errors())
def test_every_error_has_a_code(kind: type[leadlex.LeadLexError]) -> None:
    """No class of error is without a code, and none has that of success or of a signal."""
    assert 0 < exit_code(kind.__new__(kind)) < 11


COMMAND = "import sys; from leadlex.cli import main; sys.exit(main(sys.argv[1:]))"


def test_the_commands_extra_is_asked_for() -> None:
    """Without its extra the command says how to install it, and has a code of its own."""
    ran = run_code(COMMAND, "--help", without="rich")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "The command leadlex needs the extra cli. In a clone of leadlex: pip install '.[cli]'\n"


def test_another_missing_package_is_not_hidden() -> None:
    """A broken installation is told as what it is."""
    ran = run_code(COMMAND, "--help", without="attrs")
    assert ran.stderr.endswith("ModuleNotFoundError: No module named 'attrs'\n")


@pytest.mark.usefixtures("keyless")
def test_the_sandboxs_extra_is_asked_for() -> None:
    """`--sandbox` without its extra says how to install it."""
    ran = run_code(COMMAND, "chat", "--sandbox", "Hello", without="uvicorn")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "pip install '.[sandbox]'" in ran.stderr
    assert json.loads(run_code(COMMAND, "sandbox", "--json", without="uvicorn").stderr)["error"]["exit_code"] == 2


PRESSED = """
import sys

class Impatient:
    def find_spec(self, name, *_):
        if name == "leadlex.cli._commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Impatient())
"""


def test_ctrl_c_is_heard_while_it_starts() -> None:
    """Ctrl-C has exit code 130 before anything has begun, too."""
    assert run_code(PRESSED + COMMAND, "--help").returncode == 130


def test_closed_streams_are_no_error(sandbox: Sandbox) -> None:
    """With stdin and stderr closed, as a daemon may have them, the answer comes all the same."""
    with streams(stdin=None, stderr=None, stdout=(stdout := io.StringIO())):
        assert cli.main(["chat", "Where is Jane Doe?"]) == 0
    assert stdout.getvalue().startswith("Jane Doe is currently")


def test_a_question_on_a_stream_of_text(sandbox: Sandbox) -> None:
    """Where stdin is a stream that a program put there, what it says is the question."""
    with streams(stdin=io.StringIO("Where is Jane Doe?\n"), stdout=(stdout := io.StringIO())):
        assert cli.main(["chat"]) == 0
    assert stdout.getvalue().startswith("Jane Doe is currently")


def test_an_encoding_that_lacks_a_sign_is_no_error(sandbox: Sandbox, environ: MutableMapping[str, str]) -> None:
    """Where a terminal's encoding can't hold a sign, it is shown by its number."""
    message = "Create a campaign for my 'Q1 Leads' list about café"
    environ["PYTHONIOENCODING"] = "ascii"
    child = pexpect.spawn(sys.executable, ["-m", "leadlex.cli", "chat", message], cwd=str(ROOT), timeout=30)
    child.expect_exact(b"caf\\xe9 could do")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_module_runs_the_command() -> None:
    """`python -m leadlex.cli` is the command, too."""
    command = [sys.executable, "-m", "leadlex.cli", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"leadlex {leadlex.__version__}\n"

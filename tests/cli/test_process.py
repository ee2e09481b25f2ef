"""The command as a process of its own, on a real terminal: signals, readline and the shell's view."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from leadlex.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
UP = "\x1b[A"


def start(*arguments: str) -> pexpect.spawn[str]:
    """Type the command into a terminal."""
    return pexpect.spawn(sys.executable, ["-m", "leadlex.cli", *arguments], cwd=str(ROOT), encoding="utf-8", timeout=30)


def end(child: pexpect.spawn[str]) -> int | None:
    """Wait for its end and return its exit code."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus


def test_the_first_command_of_the_readme(keyless: None) -> None:
    """A stranger sees the answer come, is asked, approves, and is told what came out."""
    child = start("chat", "--sandbox", "Find me 20 CEOs at law firms in New York")
    child.expect_exact("The sandbox answers: everything it says is invented.")
    child.expect_exact("Found 20 contacts")
    child.expect_exact("20. Tamar Weissberg, CEO of Weissberg & Lowe (New York)")
    child.expect_exact("4,998 credits left")
    child.expect_exact("Enter leaves it: ")
    child.sendline("y")
    child.expect_exact("completed")
    assert end(child) == 0


def test_a_conversation_in_a_terminal(sandbox: Sandbox) -> None:
    """Ctrl-C stops the answer and not the program, the arrow brings a message back, Ctrl-D leaves."""
    for _ in range(3):  # the tasks before the first answer, then it, then the tasks before the second
        sandbox.fail_next("slow", seconds=0)
    child = start("chat")
    child.expect_exact("you ▸ ")
    child.sendline("Find me 1 CEO at law firms in New York")
    child.expect_exact("Enter leaves it: ")
    child.sendline("d")
    child.expect_exact("It is dismissed.")
    child.expect_exact("you ▸ ")
    sandbox.fail_next("stall", after_bytes=700)
    child.sendline("Summarize my pipeline")
    child.expect_exact("Your")
    child.sendintr()
    child.expect_exact("Stopped. Whether it was charged is not known.")
    child.expect_exact("you ▸ ")
    child.sendintr()
    child.expect_exact("you ▸ ")
    child.send(UP)
    child.expect_exact("Summarize my pipeline")
    child.sendline()
    child.expect_exact("Your 4 deals are worth $176,000.")
    child.expect_exact("you ▸ ")
    child.sendeof()
    assert end(child) == 0


def test_ctrl_c_ends_the_process_at_once(sandbox: Sandbox) -> None:
    """A single message that is stopped has 130, no traceback, and the terminal has its cursor again."""
    sandbox.fail_next("slow", seconds=0)
    sandbox.fail_next("stall", after_bytes=700)
    child = start("chat", "Summarize my pipeline")
    child.expect_exact("Your")
    child.sendintr()
    child.expect_exact("Stopped.")
    assert end(child) == 130
    assert "Traceback" not in str(child.before)


@pytest.mark.parametrize("arguments", [("conversations", "list", "--limit", "500"), ("--help",)])
def test_a_pipe_that_closes_ends_it_quietly(arguments: tuple[str, ...], sandbox: Sandbox) -> None:
    """Whoever reads one line and goes gets one line, and nobody a traceback."""
    for number in range(300):
        sandbox.add_conversation(f"Deal {number}")
    command = [sys.executable, "-m", "leadlex.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) in (0, 141)


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["cp1252", "C"],
)
def test_files_and_pipes_are_utf_8(encoding: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever the terminal's encoding is, an export is UTF-8, and a question that is piped in is read as such."""
    command, env = [sys.executable, "-m", "leadlex.cli"], {**os.environ, **encoding}
    asked = subprocess.run(
        [*command, "chat"], input="Łukasz?".encode(), cwd=ROOT, env=env, capture_output=True, check=True
    )
    assert asked.stdout.decode().endswith("\n")
    with (tmp_path / "export.md").open("wb") as file:
        subprocess.run([*command, "conversations", "export", "conv_000001"], stdout=file, cwd=ROOT, env=env, check=True)
    assert "> Łukasz?\n" in (tmp_path / "export.md").read_text("utf-8")
    listed = subprocess.run([*command, "conversations", "list"], cwd=ROOT, env=env, capture_output=True, check=True)
    assert "Łukasz" in listed.stdout.decode()


def test_a_sandbox_in_the_foreground_stops_cleanly() -> None:
    """Ctrl-C ends `leadlex sandbox` with 0 and nothing but a word on stderr, and its port is free again."""
    command = [sys.executable, "-m", "leadlex.cli", "sandbox"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith("The sandbox runs at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "\nThe sandbox has stopped.\n"
        assert process.wait(30) == 0

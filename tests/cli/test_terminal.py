"""The command on a terminal: what a person sees, and is asked."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
from collections.abc import MutableMapping
from types import ModuleType

import pytest

from leadlex import ChatReply, Done, TextDelta, Thinking, ToolStep, UnknownEvent
from leadlex.cli._screen import Screen
from leadlex.sandbox import Sandbox
from tests.support.surroundings import packages, streams

from .conftest import Run, Terminal

SEARCH = "Find me 1 CEO at law firms in New York"
QUESTION = "Enter leaves it: "
ESCAPE = "\x1b"


def plain(text: str) -> str:
    """Leave out what colours and moves."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def interrupt() -> None:
    """Press Ctrl-C: the main thread hears it, even while it reads."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def interrupt_until(heard: threading.Event) -> None:
    """Press Ctrl-C as a person does, again if need be: one that comes just before readline waits is lost in Python."""
    for _ in range(10):
        interrupt()
        if heard.wait(2):
            break


def test_an_answer_is_shown_with_its_steps(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """Steps come first and dim, then the answer, then what it cost; the line of the wheel is given back."""
    assert run_on("chat", "Where is Jane Doe?").code == 0
    shown = plain(terminal.text)
    steps, answer = shown.split("Jane Doe")
    assert "  · Looking up the contact in your pipeline...\n" in steps
    assert "  ✓ contacts.get  Found 1 contact\n" in steps
    assert answer == (
        " is currently in the Proposal stage with Document automation.\n\n"
        "4,998 credits left · conv_000001 · msg_000003\n"
    )
    assert "\x1b[2m" in terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_nothing_is_coloured_where_nobody_wants_it(
    name: str, value: str, run_on: Run, terminal: Terminal, sandbox: Sandbox, environ: MutableMapping[str, str]
) -> None:
    """With NO_COLOR, or on a terminal that can't, there is not one escape sequence."""
    environ[name] = value
    assert run_on("chat", "Where is Jane Doe?").code == 0
    assert "automation.\n" in terminal.text
    assert ESCAPE not in terminal.text


def test_nothing_is_coloured_into_a_file(
    run_on: Run, terminal: Terminal, sandbox: Sandbox, environ: MutableMapping[str, str]
) -> None:
    """Stdout that is no terminal gets the bare answer, even where FORCE_COLOR is set."""
    environ["FORCE_COLOR"] = "1"
    result = run_on("chat", "Where is Jane Doe?", pipes=("stdout",))
    assert result.out == "Jane Doe is currently in the Proposal stage with Document automation.\n"
    assert "credits left" in terminal.text


def test_an_approved_task_is_waited_for(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """What Lexi proposed is shown, asked about, done, and its outcome told."""
    terminal.type("y\n")
    assert run_on("chat", SEARCH).code == 0
    shown = plain(terminal.text)
    assert "Lexi proposes:\n  ? Find 1 contact: CEOs at law firms in New York  pending" in shown
    assert "✓ Find 1 contact: CEOs at law firms in New York  completed" in shown
    assert "count: 1" in shown
    assert [charge.amount for charge in sandbox.charges] == [2, 5]


def test_a_task_that_fails_is_told(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """A task that could not be carried out is shown as failed."""
    sandbox.credits = 2
    terminal.type("yes\n")
    assert run_on("chat", SEARCH).code == 0
    assert "✗ Find 1 contact: CEOs at law firms in New York  failed" in plain(terminal.text)


@pytest.mark.parametrize(
    ("keys", "told", "path"),
    [("d\n", "It is dismissed.", "/v1/lexi/tasks/task_000001/dismiss"), ("\n", "It stays pending.", None)],
)
def test_a_task_is_dismissed_or_left(
    keys: str, told: str, path: str | None, run_on: Run, terminal: Terminal, sandbox: Sandbox
) -> None:
    """Whoever says no dismisses it, and whoever says nothing leaves it."""
    terminal.type(keys)
    assert run_on("chat", SEARCH).code == 0
    assert told in plain(terminal.text)
    posts = [request.path for request in sandbox.requests if request.method == "POST"]
    assert posts[1:] == ([path] if path else [])


@pytest.mark.parametrize("keys", ["\x04", "n\n", "maybe\n"])
def test_nothing_but_a_yes_approves(keys: str, run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """Ctrl-D, a no and anything else leave the task pending."""
    terminal.type(keys)
    assert run_on("chat", SEARCH).code == 0
    assert len([request for request in sandbox.requests if request.method == "POST"]) == 1


def test_the_question_is_asked_where_the_person_looks(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """With stdout in a file the question goes to stderr, and the file has the answer alone."""
    terminal.type("d\n")
    result = run_on("chat", SEARCH, pipes=("stdout",))
    assert result.out.endswith("for 5 credits.\n")
    assert QUESTION in terminal.text
    assert "It is dismissed." in terminal.text


@pytest.mark.parametrize("pipes", [("stdin",), ("stderr",)])
def test_nobody_is_asked_who_can_not_answer(
    pipes: tuple[str, ...], run_on: Run, terminal: Terminal, sandbox: Sandbox
) -> None:
    """Where stdin or stderr is no terminal, nothing is offered."""
    assert run_on("chat", SEARCH, pipes=pipes).code == 0
    assert QUESTION not in terminal.text
    assert [request.path for request in sandbox.requests] == ["/v1/lexi/chat/stream"]


def test_json_asks_nothing(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """With `--json` nothing is offered, on a terminal either."""
    assert run_on("chat", "--json", SEARCH).code == 0
    assert QUESTION not in terminal.text
    assert ESCAPE not in terminal.text


def test_older_tasks_are_not_offered(run_on: Run, terminal: Terminal, sandbox: Sandbox, run: Run) -> None:
    """What was pending before the question is not this answer's."""
    run("chat", SEARCH)
    assert run_on("chat", "Where is Jane Doe?").code == 0
    assert "Lexi proposes" not in terminal.text


def test_a_key_that_may_not_see_tasks_is_told_nothing(
    run_on: Run, terminal: Terminal, sandbox: Sandbox, environ: MutableMapping[str, str]
) -> None:
    """A 403 for the tasks is silent: the answer is what was asked for."""
    environ["LEADLEX_API_KEY"] = sandbox.add_key(["write:ai"])
    assert run_on("chat", SEARCH).code == 0
    assert "Error" not in terminal.text
    assert "credits left" in terminal.text


def test_tasks_that_can_not_be_seen_spoil_no_answer(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """An answer is whole although the tasks before it, or after it, could not be listed."""
    sandbox.fail_next("server_error")
    assert run_on("chat", SEARCH).code == 0
    assert "Error" not in terminal.text
    assert QUESTION not in terminal.text


def test_tasks_that_vanish_spoil_no_answer(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """The same, where the listing fails after the answer."""
    terminal.when("credits", lambda: None)
    sandbox.fail_next("slow", seconds=0)
    sandbox.fail_next("slow", seconds=0)
    sandbox.fail_next("server_error")
    assert run_on("chat", SEARCH).code == 0
    assert "Error" not in terminal.text
    assert "Lexi proposes" not in terminal.text


def test_without_key_a_person_gets_the_sandbox_and_is_told(run_on: Run, terminal: Terminal, keyless: None) -> None:
    """Somebody at a terminal without a key sees answers at once, and one line that they are invented."""
    assert run_on("chat", "Where is Jane Doe?").code == 0
    assert plain(terminal.text).startswith(
        "No LEADLEX_API_KEY: the sandbox answers, and everything it says is invented.\n"
    )
    assert "Jane Doe is currently" in terminal.text


@pytest.mark.parametrize("pipes", [("stdin",), ("stdout",)])
def test_without_key_and_person_nothing_is_invented(
    pipes: tuple[str, ...], run_on: Run, terminal: Terminal, keyless: None
) -> None:
    """One end that is no terminal is enough to be a job."""
    assert run_on("chat", "Where is Jane Doe?", pipes=pipes).code == 2


def test_a_conversation_remembers(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """Without a message it goes on until Ctrl-D; a follow-up knows what came before; empty lines are passed over."""
    terminal.type("Find me 20 CEOs at law firms in New York\n\n \nFilter to only Brooklyn\n\x04")
    assert run_on("chat").code == 0
    shown = plain(terminal.text)
    assert "Ask Lexi. Ctrl-C stops an answer, Ctrl-D leaves." in shown
    assert "It stays pending." in shown
    assert "1 of the 20 that I found are in Brooklyn." in shown


def test_an_error_ends_no_conversation(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """An error is told in a line, and the next message can be asked."""
    sandbox.fail_next("slow", seconds=0)
    sandbox.fail_next("no_credits")
    terminal.type("Where is Jane Doe?\nWhere is Jane Doe?\n\x04")
    assert run_on("chat").code == 0
    shown = plain(terminal.text)
    assert "Error: The workspace has no AI credits left" in shown
    assert "Jane Doe is currently in the Proposal stage" in shown


def test_ctrl_c_stops_the_answer_and_not_the_conversation(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """A stopped answer says what is known of its price, and the prompt comes again."""
    sandbox.fail_next("slow", seconds=0)
    sandbox.fail_next("stall", after_bytes=700)
    terminal.when("Your", interrupt)
    terminal.when("--first-sent", lambda: terminal.type("Where is Jane Doe?\n\x04"))
    terminal.type("Summarize my pipeline\n")
    assert run_on("chat").code == 0
    shown = plain(terminal.text)
    assert "\nStopped. Whether it was charged is not known.\nTo ask the same again without paying again" in shown
    assert "Jane Doe is currently in the Proposal stage" in shown


def test_ctrl_c_where_nothing_was_asked(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """A listing that is stopped says that, and nothing of a price."""
    sandbox.fail_next("slow", seconds=30)
    terminal.when("One moment", interrupt)
    assert run_on("tasks", "list").code == 130
    assert plain(terminal.text).rstrip().endswith("Stopped.")


def test_ctrl_c_at_the_prompt_begins_a_new_line(run_on: Run, terminal: Terminal, sandbox: Sandbox) -> None:
    """At the prompt Ctrl-C asks nothing and leaves nothing."""
    heard = threading.Event()
    terminal.when("you ▸ ", threading.Thread(target=interrupt_until, args=(heard,)).start)
    terminal.when("you ▸ \nyou ▸ ", heard.set)
    terminal.when("you ▸ \nyou ▸ ", lambda: terminal.type("\x04"))
    assert run_on("chat").code == 0
    assert not sandbox.requests


def test_the_command_that_asks_again_is_whole(run_on: Run, terminal: Terminal, sandbox: Sandbox, run: Run) -> None:
    """However narrow the terminal, what is to be copied is a line of its own that nothing broke."""
    question = "Where is   Jane Doe of Meridian Legal, and who's her assistant?"
    sandbox.fail_next("slow", seconds=0)
    for _ in range(3):
        sandbox.fail_next("drop_stream", after_bytes=600)
    assert run_on("chat", question).code == 9
    lines = plain(terminal.text).splitlines()
    command = lines[lines.index("To ask the same again without paying again, within 24 hours:") + 1]
    assert len(command) > 100
    assert run(*shlex.split(command)[1:]).code == 0
    assert len(sandbox.charges) == 1


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_ctrl_c_ends_a_single_message(
    options: tuple[str, ...], run_on: Run, terminal: Terminal, sandbox: Sandbox
) -> None:
    """With a message on the command line Ctrl-C ends the program with 130, as shells expect."""
    sandbox.fail_next("stall", after_bytes=700)
    terminal.when("Your", interrupt)
    assert run_on("chat", *options, "Summarize my pipeline").code == 130
    assert "Stopped" in plain(terminal.text)


@pytest.mark.parametrize("readline", [None, ModuleType("readline")], ids=["missing", "another"])
def test_a_system_without_readline_will_do(
    readline: ModuleType | None,
    run_on: Run,
    terminal: Terminal,
    sandbox: Sandbox,
) -> None:
    """Without readline, as on Windows, or with another that knows less, lines are read all the same."""
    terminal.type("Where is Jane Doe?\n\x04")
    with packages(readline=readline):
        assert run_on("chat").code == 0
    assert "Jane Doe is currently" in terminal.text


def test_the_wheel_leaves_the_streams_alone(terminal: Terminal, environ: MutableMapping[str, str]) -> None:
    """While it turns stdout and stderr are what they were, a terminal too: rich would put its own in their place."""
    environ["TERM"] = "xterm-256color"
    with terminal.open("w") as stream, streams(stdout=stream, stderr=stream):
        screen = Screen()
        screen.wait("One moment…")
        assert (sys.stdout, sys.stderr) == (stream, stream)
        screen.close()
    terminal.close()
    assert "One moment…" in terminal.text


def test_a_step_amid_the_answer_has_a_line_of_its_own(
    terminal: Terminal, environ: MutableMapping[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Steps break an open line on the screen, and never the answer in a file."""
    environ["TERM"] = "dumb"
    with terminal.open("w") as stream, streams(stderr=stream):
        show_mixed()
        in_file = capfd.readouterr().out
        with streams(stdout=stream):
            show_mixed()
    terminal.close()
    steps = "  · a b\n", "  • x.y  failed\n", "Done.\n"
    assert in_file == "one two\n"
    assert terminal.text == "".join([*steps, "one \n", steps[0], "two\n", *steps[1:]])


def show_mixed() -> None:
    """Show an answer of which no two parts of a kind follow each other."""
    screen = Screen()
    parts = TextDelta("one "), Thinking("a\nb"), TextDelta("two"), ToolStep("x.y", "failed"), UnknownEvent("z", "{}")
    for event in (*parts, Done()):
        screen.event(event)
    screen.finish(ChatReply(response="one two"))
    screen.close()

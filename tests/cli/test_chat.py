"""`leadlex chat` with one message, as a script runs it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

import pytest

from leadlex import LeadLex
from leadlex.sandbox import Sandbox

from .conftest import Run

JANE = "Jane Doe is currently in the Proposal stage with Document automation."


def test_stdout_is_the_answer(run: Run, sandbox: Sandbox) -> None:
    """Stdout has the answer and a newline, byte for byte; steps, credits and ids are on stderr."""
    result = run("chat", "Where is Jane Doe?")
    assert (result.code, result.out) == (0, f"{JANE}\n")
    assert result.err.splitlines() == [
        "  · Looking up the contact in your pipeline...",
        "  … contacts.get",
        "  ✓ contacts.get  Found 1 contact",
        "4,998 credits left · conv_000001 · msg_000003",
    ]


def test_a_message_may_come_from_stdin(run: Run, sandbox: Sandbox) -> None:
    """What is piped in is one message, however many lines it has: each would cost."""
    assert run("chat", stdin=b"Where is\nJane Doe?\n").out == f"{JANE}\n"
    assert len(sandbox.charges) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_piped_message_is_unicode(encoding: str, run: Run, sandbox: Sandbox) -> None:
    """UTF-8, and what PowerShell writes: the mark at its beginning is no part of the question, nor is its line end."""
    assert run("chat", stdin="Wo ist Łukasz,\r\nund wo Jane Doe?\r\n".encode(encoding)).code == 0
    with LeadLex() as lexi:
        [asked, _] = lexi.conversation("conv_000001").messages
    assert asked.content == "Wo ist Łukasz,\nund wo Jane Doe?"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be"])
def test_a_message_in_another_encoding_is_not_guessed_at(encoding: str, run: Run, sandbox: Sandbox) -> None:
    """What is neither UTF-8 nor marked as UTF-16 is refused before anything is paid, in words that name both."""
    result = run("chat", stdin="Wo ist Müller?".encode(encoding))
    assert (result.code, result.out) == (2, "")
    assert "message must be UTF-8, or UTF-16 with a byte order mark" in result.err
    assert not sandbox.requests


@pytest.mark.parametrize("stdin", [b"", b" \n", b"caf\xe9"])
def test_a_message_that_is_none_is_refused(stdin: bytes, run: Run, sandbox: Sandbox) -> None:
    """An empty message, or one that is not UTF-8, is not sent: exit code 2, and no traceback."""
    result = run("chat", stdin=stdin)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert result.err.startswith("Error: message must")
    assert not sandbox.requests


def test_a_conversation_can_be_gone_on_with(run: Run, sandbox: Sandbox) -> None:
    """`--conversation` remembers what was said in it."""
    run("chat", "Find me 20 CEOs at law firms in New York")
    assert "1 of the 20" in run("chat", "--conversation", "conv_000001", "Filter to only Brooklyn").out


def test_json_has_an_event_in_each_line(run: Run, sandbox: Sandbox) -> None:
    """`--json` writes the contract's events with a `type`, and nothing on stderr."""
    result = run("chat", "--json", "Where is Jane Doe?")
    assert (result.code, result.err) == (0, "")
    assert result.lines[:3] == [
        {"type": "thinking", "text": "Looking up the contact in your pipeline..."},
        {"type": "tool_step", "tool": "contacts.get", "status": "started", "summary": None},
        {"type": "tool_step", "tool": "contacts.get", "status": "completed", "summary": "Found 1 contact"},
    ]
    text = result.lines[3:-1]
    assert {line["type"] for line in text} == {"text"}
    assert {line["conversation_id"] for line in text} == {"conv_000001"}
    assert "".join(line["delta"] for line in text) == JANE
    assert result.lines[-1] == {"type": "done", "credits_remaining": 4998, "message_id": "msg_000003"}


def test_a_message_may_look_like_an_option(run: Run, sandbox: Sandbox) -> None:
    """After `--` everything is the message."""
    assert run("chat", "--", "--json").out.startswith("I am the Lexi of a sandbox")


def test_json_reads_stdin_too(run: Run, sandbox: Sandbox) -> None:
    """With `--json` there is no prompt: without a message stdin has it."""
    assert run("chat", "--json", stdin=b"Where is Jane Doe?").lines[-1]["type"] == "done"


def test_what_a_server_says_steers_no_terminal(run: Run, sandbox: Sandbox) -> None:
    """Escape sequences in an answer are shown, not obeyed; what looks like markup is text; JSON is ASCII."""
    evil = "Create a campaign for my 'Q1 Leads' list about \x1b]0;x\x07 [red]tabs\tand \u202ebidi[/red] café"
    out = run("chat", evil).out
    assert "about" not in out
    assert "\\x1b]0;x\\x07 [red]tabs\tand \\u202ebidi[/red] café could do" in out
    assert run("chat", "--json", evil).out.isascii()


def test_a_script_is_offered_nothing(run: Run, sandbox: Sandbox) -> None:
    """Without a terminal tasks are not looked at, and nothing is approved."""
    result = run("chat", "Find me 20 CEOs at law firms in New York")
    assert "Lexi proposes" not in result.err
    assert [request.path for request in sandbox.requests] == ["/v1/lexi/chat/stream"]


def test_the_demo_works_without_key_and_terminal(run: Run, keyless: None) -> None:
    """`--sandbox` starts a sandbox of its own, says that it invents, and lists what Lexi proposes."""
    result = run("chat", "--sandbox", "Find me 1 CEO at law firms in New York")
    assert (result.code, result.out.splitlines()[2]) == (0, "1. Ada Okafor, CEO of Okafor & Lindqvist LLP (New York)")
    assert result.err.splitlines()[0] == "The sandbox answers: everything it says is invented."
    assert result.err.splitlines()[-2:] == [
        "Lexi proposes:",
        "  ? Find 1 contact: CEOs at law firms in New York  pending · prospect_search · task_000001",
    ]


def test_the_demo_in_json_is_json_alone(run: Run, keyless: None) -> None:
    """`--sandbox --json` needs no key either, and stays machine-readable."""
    result = run("chat", "--sandbox", "--json", "Where is Jane Doe?")
    assert (result.code, result.err, result.lines[-1]["type"]) == (0, "", "done")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_job_that_lost_its_key_gets_no_invented_contacts(options: tuple[str, ...], run: Run, keyless: None) -> None:
    """Without a key and without a terminal the command fails with exit code 2."""
    result = run("chat", *options, "Where is Jane Doe?")
    assert (result.code, result.out) == (2, "")
    assert "There is no API key." in result.err


def test_an_empty_key_is_none(run: Run, sandbox: Sandbox, environ: MutableMapping[str, str]) -> None:
    """A variable that is set to nothing is a key that was lost."""
    environ["LEADLEX_API_KEY"] = " "
    assert "There is no API key." in run("tasks", "list").err


def test_an_answer_that_breaks_off_can_be_asked_again(run: Run, sandbox: Sandbox) -> None:
    """Exit code 9; what came is on stdout, ends in a newline, and the error has the option that asks again for free."""
    for _ in range(3):
        sandbox.fail_next("drop_stream", after_bytes=600)
    result = run("chat", "Where is Jane Doe?")
    assert result.code == 9
    assert JANE.startswith(result.out.removesuffix("\n"))
    assert result.out.endswith("\n")
    words = result.err.split()
    key = words[words.index("--idempotency-key") + 1]
    assert run("chat", "--idempotency-key", key, "Where is Jane Doe?").out == f"{JANE}\n"
    assert len(sandbox.charges) == 1


def test_a_used_key_is_told_in_the_commands_words(run: Run, sandbox: Sandbox) -> None:
    """A key that came with another question is refused, and both ways to go on cost what is said."""
    key = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
    assert run("chat", "--idempotency-key", key, "Where is Jane Doe?").code == 0
    result = run("chat", "--idempotency-key", key, "Summarize my pipeline")
    assert f"all that was given with it and --idempotency-key {key}, which is not charged again" in result.err
    assert "idempotency_key=" not in result.err
    assert len(sandbox.charges) == 1
    assert run("chat", "--idempotency-key", key, "Where is Jane Doe?").code == 0
    assert len(sandbox.charges) == 1
    assert run("chat", "Summarize my pipeline").code == 0
    assert len(sandbox.charges) == 2


def test_json_tells_what_broke_off(run: Run, sandbox: Sandbox) -> None:
    """The error object has the partial answer, the key, and whether it was charged."""
    for _ in range(3):
        sandbox.fail_next("drop_stream", after_bytes=600)
    error = run("chat", "--json", "Where is Jane Doe?").error
    assert (error["type"], error["exit_code"]) == ("StreamInterruptedError", 9)
    assert error["charged"] in ("unknown", "yes")
    assert JANE.startswith(error["partial"]["response"])
    assert error["idempotency_key"]
    assert "meta" not in error["partial"]


@pytest.mark.parametrize("arguments", [("chat", "Where is Jane Doe?"), ("conversations", "list")])
def test_output_that_nobody_reads_ends_quietly(arguments: tuple[str, ...], run: Run, sandbox: Sandbox) -> None:
    """`leadlex … | head -0` is no error of anybody: no traceback, exit code 141."""
    sandbox.add_conversation("A title")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        result = run(*arguments, stdout=stdout)
    assert result.code == 141
    assert "Error" not in result.err

"""`leadlex conversations`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest

import leadlex
from leadlex import Conversation, Message
from leadlex.cli._values import described
from leadlex.sandbox import Sandbox

from .conftest import Run

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d"
EVIL = "Deal\x1b]0;x\x07 [red]one[/red]\u202e"
SHOWN = "Deal\\x1b]0;x\\x07 [red]one[/red]\\u202e"


def at(hour: int) -> datetime:
    """Make a moment."""
    return datetime(2026, 4, 17, hour, tzinfo=UTC)


def test_conversations_are_listed_a_line_each(run: Run, sandbox: Sandbox) -> None:
    """A line has id, time, how many messages, and the title, harmless."""
    sandbox.add_conversation(EVIL, "Hello", "Hello!")
    sandbox.add_conversation("Old one", archived=True)
    result = run("conversations", "list", "--archived")
    assert result.code == 0
    archived, other = result.out.splitlines()
    assert re.fullmatch(rf"conv_000002  {MOMENT}     0  Old one  archived", archived)
    assert re.fullmatch(rf"conv_000001  {MOMENT}     2  {re.escape(SHOWN)}", other)


def test_conversations_are_searched_and_limited(run: Run, sandbox: Sandbox) -> None:
    """Options narrow the listing down; JSON has the contract's fields."""
    for number in range(130):
        sandbox.add_conversation(f"Deal {number}", context={"contact_id": "c1"} if number % 2 else None)
    some, more = run("conversations", "list"), run("conversations", "list", "--limit", "120", "--json")
    assert (len(some.out.splitlines()), some.err) == (50, "50 shown, more exist: --limit\n")
    assert (len(more.lines), more.err) == (120, "")
    for limit in ("130", "500"):
        everything = run("conversations", "list", "--limit", limit)
        assert (len(everything.out.splitlines()), everything.err) == (130, "")
    (one,) = run("conversations", "list", "--search", "129", "--contact", "c1", "--json").lines
    assert (one["title"], one["context"]["contact_id"], one["archived"]) == ("Deal 129", "c1", False)
    none = run("conversations", "list", "--deal", "d1", "--user", "u1")
    assert (none.out, none.err) == ("", "There are no such conversations.\n")


def test_a_conversation_is_shown(run: Run, sandbox: Sandbox) -> None:
    """It has a title and every message with who said it, the oldest first."""
    sandbox.add_conversation(EVIL, "Hello\n\tLexi", "Hello!")
    result = run("conversations", "show", "conv_000001")
    assert result.code == 0
    assert re.fullmatch(
        rf"{re.escape(SHOWN)}  conv_000001\n\nYou  {MOMENT}\nHello\n +Lexi\n\nLexi  {MOMENT}\nHello!\n", result.out
    )


def test_a_conversation_is_exported(run: Run, sandbox: Sandbox) -> None:
    """The export is Markdown on stdout, with times in UTC."""
    sandbox.add_conversation(EVIL, "Hello\n\tLexi", "Hello!")
    result = run("conversations", "export", "conv_000001")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        rf"# {re.escape(SHOWN)}\n\nConversation conv_000001, begun {MOMENT} UTC\n\n"
        rf"## You · {MOMENT} UTC\n\n> Hello\n> \tLexi\n\n## Lexi · {MOMENT} UTC\n\n> Hello!\n",
        result.out,
    )


@pytest.mark.parametrize("command", ["show", "export"])
def test_a_conversation_as_json_is_the_contracts(command: str, run: Run, sandbox: Sandbox) -> None:
    """`--json` gives the conversation in one line, tool records with it where they were asked for."""
    with leadlex.LeadLex() as client:
        client.chat("Where is Jane Doe?")
    (one,) = run("conversations", command, "conv_000001", "--json", "--tool-steps").lines
    assert [message["role"] for message in one["messages"]] == ["user", "tool", "assistant"]
    assert one["messages"][1]["tool_output"] == {"summary": "Found 1 contact"}
    assert len(run("conversations", command, "conv_000001", "--json", "--limit", "1").lines[0]["messages"]) == 1


def test_a_list_that_could_not_be_followed_says_so(run: Run, sandbox: Sandbox) -> None:
    """Where the last look at a list's first page fails, what may be missing is told beside it."""
    for number in range(101):
        sandbox.add_conversation(f"Deal {number}")
    for fault in ("slow", "slow", "no_credits"):
        sandbox.fail_next(fault, **({"seconds": 0} if fault == "slow" else {}))
    result = run("conversations", "list", "--limit", "200")
    assert (result.code, len(result.out.splitlines())) == (0, 101)
    assert result.err == "The listing changed while it was read: some may be missing.\n"


def test_all_messages_are_exported(run: Run, sandbox: Sandbox) -> None:
    """An export asks for all messages that the service gives; where as many came as were asked for, that is said."""
    sandbox.add_conversation("Long", *(f"Message {number}" for number in range(1001)))
    sandbox.add_conversation("Short", *(f"Message {number}" for number in range(350)))
    whole = run("conversations", "export", "conv_000002")
    assert (whole.out.count("## "), whole.err) == (350, "")
    cut = run("conversations", "export", "conv_000001")
    assert cut.out.count("## ") == 1000
    assert (
        "the latest 1,000 messages, as many as were asked for. Earlier ones may exist: LeadLex gives no more" in cut.err
    )
    shown = run("conversations", "show", "conv_000002")
    assert shown.err.endswith("Earlier ones may exist: --limit\n")
    assert run("conversations", "export", "conv_000001", "--json").err == ""


def test_the_help_says_whose_are_listed(run: Run) -> None:
    """Nobody takes the list for all that the firm has."""
    assert "your own and not archived" in run("conversations", "list", "--help").out


def test_tool_records_are_shown_by_their_name(run: Run, sandbox: Sandbox) -> None:
    """What a tool gave stands under the tool's name."""
    with leadlex.LeadLex() as client:
        client.chat("Where is Jane Doe?")
    out = run("conversations", "show", "conv_000001", "--tool-steps").out
    assert "\ncontacts.get  " in out
    assert json.dumps({"summary": "Found 1 contact"}, indent=2) in out


def test_the_export_sorts_what_the_service_sent_newest_first() -> None:
    """Messages are sorted by time, and what lacks title, time, role and text is shown all the same."""
    late, early = (Message(id=f"m{hour}", role="user", content=f"{hour}", created_at=at(hour)) for hour in (9, 8))
    text = Conversation(id="conv_1", messages=(late, early, Message(id="m0"))).to_markdown()
    assert text == (
        "# conv_1\n\nConversation conv_1\n\n## ?\n\n>\n\n## You · 2026-04-17 08:00 UTC\n\n> 8\n\n"
        "## You · 2026-04-17 09:00 UTC\n\n> 9\n"
    )


def test_values_that_lack_almost_everything_are_shown() -> None:
    """What an answer can do without is left blank."""
    assert described(leadlex.ConversationSummary(id="conv_1")).plain.split() == ["conv_1", "conv_1"]
    assert described(leadlex.Task(id="task_1", status="pending")).plain.split() == ["task_1", "pending"]
    assert described(leadlex.TaskDecision(task_id="task_1")).plain == "task_1 is decided."

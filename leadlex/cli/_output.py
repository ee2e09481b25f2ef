"""What a command can say, to a person or to a program.

Rule: a command says what happened, never how it looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from leadlex import Charged, ChatReply, Conversation, ConversationSummary, LeadLexError, StreamEvent, Task, TaskDecision
from leadlex.webhooks import WebhookEvent

Value = ConversationSummary | Conversation | Task | TaskDecision | WebhookEvent


class Stopped(NamedTuple):
    """What is known of a question whose answer was stopped with Ctrl-C.

    Args:
        charged: Whether it cost credits.
        idempotency_key: With it the same question is not charged again.
        first_sent: When that was first sent.
        again: The command that asks again so, where there is one.
    """

    charged: Charged
    idempotency_key: str
    first_sent: datetime | None
    again: str | None


class Output(Protocol):
    """What a command has to say."""

    def wait(self, what: str) -> None:
        """Tell that something is under way, until the next thing is said."""

    def note(self, text: str) -> None:
        """Tell a person something beside the answer."""

    def warn(self, text: str) -> None:
        """Tell a person something that must not be overlooked."""

    def event(self, event: StreamEvent) -> None:
        """Show a part of an answer."""

    def finish(self, reply: ChatReply) -> None:
        """End an answer that is whole."""

    def task(self, task: Task) -> None:
        """Tell how a task stands, beside the answer."""

    def stop(self, stopped: Stopped | None) -> None:
        """End what was stopped with Ctrl-C; `stopped` is None where nobody asked anything."""

    def value(self, value: Value) -> None:
        """Show what was asked for."""

    def address(self, url: str, api_key: str, data: str | None) -> None:
        """Tell where a sandbox is."""

    def error(self, error: LeadLexError) -> None:
        """Tell what went wrong."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def show_all(values: Iterable[Value], out: Output, none: str) -> None:
    """Show values as they come, or say that there are none."""
    shown = False
    for value in values:
        out.value(value)
        shown = True
    if not shown:
        out.note(none)

"""Conversations and tasks as lines and as pages.

Rule: what is listed takes one line each, so that it can be searched, cut and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from leadlex import Conversation, ConversationSummary, Message, Task, TaskDecision
from leadlex.webhooks import WebhookEvent

from ._output import Value
from ._text import local, one_line, visible

_NAMES: Final = {"user": "You", "assistant": "Lexi"}
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def described(value: Value) -> Text:
    """Show a value: a listed one in a line, a conversation as a page."""
    match value:
        case ConversationSummary():
            return _summary(value)
        case Task():
            return _task(value)
        case TaskDecision():
            return _decision(value)
        case WebhookEvent():
            return _delivery(value)
        case _:
            return Text("\n").join(_page(value))


def oldest_first(conversation: Conversation) -> list[Message]:
    """Sort the messages: the service says that it sends the latest first, and shows the oldest first."""
    return sorted(conversation.messages, key=_moment)


def _moment(message: Message) -> datetime:
    return message.created_at or _EPOCH


def _summary(item: ConversationSummary) -> Text:
    count = "" if item.message_count is None else f"{item.message_count:>4}"
    archived = ("  archived", "yellow") if item.archived else ""
    moment = (f"{local(item.last_message_at):16}", "dim")
    return Text.assemble((one_line(item.id), "cyan"), "  ", moment, "  ", count, "  ", _title(item), archived)


def _task(task: Task) -> Text:
    status = (f"{one_line(task.status):9}", _COLOURS.get(task.status, ""))
    kind = (one_line(task.type or ""), "dim")
    return Text.assemble((one_line(task.id), "cyan"), "  ", status, "  ", one_line(task.description), "  ", kind)


_COLOURS: Final = {"pending": "yellow", "completed": "green", "failed": "red"}


def outlined(task: Task) -> Text:
    """Show what a task does, and what came out where it has ended."""
    sign, style = _SIGNS.get(task.status, ("•", ""))
    facts = [task.status, *_facts(task), task.id]
    told = " · ".join(filter(None, map(one_line, facts)))
    return Text.assemble((f"  {sign} ", style), one_line(task.description), (f"  {told}", "dim"))


_SIGNS: Final = {"pending": ("?", "yellow"), "completed": ("✓", "green"), "failed": ("✗", "red")}


def _facts(task: Task) -> list[str]:
    """Name the kind of a task that waits, and of a finished one what a person can read in a line."""
    if task.status not in ("completed", "failed"):
        return [task.type or ""]
    simple = ((name, value) for name, value in task.metadata.items() if isinstance(value, str | int))
    return [f"{name.replace('_', ' ')}: {value}" for name, value in simple if not name.endswith("id")]


def _decision(decision: TaskDecision) -> Text:
    started = ", and has begun to run" if decision.execution_started else ""
    status = one_line(decision.status or "decided")
    return Text.assemble((one_line(decision.task_id), "cyan"), f" is {status}{started}.")


def _delivery(event: WebhookEvent) -> Text:
    return Text.assemble((one_line(event.delivery_id or ""), "cyan"), f"  {one_line(event.event)} was delivered.")


def _page(conversation: Conversation) -> Iterator[Text]:
    yield Text.assemble((_title(conversation), "bold"), (f"  {one_line(conversation.id)}", "dim"))
    for message in oldest_first(conversation):
        yield Text.assemble(("\n" + _name(message), "bold cyan"), (f"  {local(message.created_at)}", "dim"))
        yield Text(visible(_content(message)))


def _title(conversation: Conversation | ConversationSummary) -> str:
    return one_line(conversation.title or conversation.id)


def _name(message: Message) -> str:
    role = message.role or ""
    return one_line(message.tool_name or _NAMES.get(role, role) or "?")


def _content(message: Message) -> str:
    if message.content or message.tool_output is None:
        return message.content
    return json.dumps(message.tool_output, ensure_ascii=False, indent=2)

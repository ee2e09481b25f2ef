"""Tasks: what Lexi proposes and a person decides.

Rule: nothing is approved unless a person typed that it is.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Final

import leadlex

from ._output import Output, show_all
from ._prompt import read_line
from ._session import connect

_QUESTION: Final = "  Approve it? It may cost credits. [y]es, [d]ismiss, Enter leaves it: "

_LOOK: Final = 0.5
"""Seconds between the first two looks at a task that runs."""

_PATIENCE: Final = 5.0
"""Seconds that a look at the tasks may take beside an answer."""


def list_tasks(options: Namespace, out: Output) -> None:
    """List the tasks of one status."""
    with connect(options, out) as client:
        show_all(client.tasks(status=options.status), out, f"There are no {options.status} tasks.")


def approve(options: Namespace, out: Output) -> None:
    """Approve a task, and wait for it where that was asked for."""
    with connect(options, out) as client:
        out.value(client.approve_task(options.id))
        if options.wait:
            out.value(_outcome(client, options.id, out))


def dismiss(options: Namespace, out: Output) -> None:
    """Dismiss a task."""
    with connect(options, out) as client:
        out.value(client.dismiss_task(options.id, reason=options.reason))


def pending_tasks(client: leadlex.LeadLex) -> Mapping[str, leadlex.Task] | None:
    """Look what is pending, beside an answer: None where the key may not see it, or it can't be seen in time."""
    try:
        return {task.id: task for task in client.with_options(timeout=_PATIENCE, retries=0).tasks()}
    except leadlex.LeadLexError:
        return None


def decide(client: leadlex.LeadLex, task: leadlex.Task, out: Output) -> None:
    """Ask a person what to do with a task, do it, and tell what came out."""
    match _answer():
        case "y" | "yes" | "approve":
            client.approve_task(task.id)
            out.task(_outcome(client, task.id, out))
        case "d" | "dismiss":
            client.dismiss_task(task.id)
            out.note("  It is dismissed.")
        case _:
            out.note("  It stays pending.")


def _answer() -> str:
    try:
        return read_line(_QUESTION).strip().lower()
    except EOFError:
        return ""


def _outcome(client: leadlex.LeadLex, id_: str, out: Output) -> leadlex.Task:
    out.wait("Lexi is at work…")
    return client.wait_for_task(id_, poll_interval=_LOOK)

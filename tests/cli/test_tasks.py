"""`leadlex tasks`."""

from __future__ import annotations

import pytest

import leadlex
from leadlex.sandbox import Sandbox

from .conftest import Run

DESCRIPTION = "Find 1 contact: CEOs at law firms in New York"


@pytest.fixture
def task_id(sandbox: Sandbox) -> str:
    """Have a pending task."""
    with leadlex.LeadLex() as client:
        reply = client.chat("Find me 1 CEO at law firms in New York")
    assert reply.task_id
    return reply.task_id


def test_tasks_are_listed_a_line_each(run: Run, task_id: str) -> None:
    """A line has id, status, what would be done, and its kind."""
    result = run("tasks", "list")
    assert (result.code, result.out) == (0, f"{task_id}  pending    {DESCRIPTION}  prospect_search\n")


def test_tasks_are_listed_as_json(run: Run, task_id: str) -> None:
    """A JSON line has the contract's fields, and times as it writes them."""
    (task,) = run("tasks", "list", "--json").lines
    assert {name: task[name] for name in ("id", "type", "status", "description")} == {
        "id": task_id,
        "type": "prospect_search",
        "status": "pending",
        "description": DESCRIPTION,
    }
    assert task["created_at"].endswith("Z")
    assert task["metadata"]["count"] == 1
    assert not {"meta", "extra"} & {*task}


def test_no_tasks_are_said_to_be_none(run: Run, sandbox: Sandbox) -> None:
    """An empty listing leaves stdout empty."""
    result = run("tasks", "list", "--status", "failed")
    assert (result.code, result.out, result.err) == (0, "", "There are no failed tasks.\n")


def test_a_task_is_approved(run: Run, task_id: str) -> None:
    """Approving tells the new status, and with `--wait` what came out."""
    result = run("tasks", "approve", task_id)
    assert (result.code, result.out) == (0, f"{task_id} is approved, and has begun to run.\n")


def test_an_approved_task_is_waited_for(run: Run, task_id: str) -> None:
    """`--wait` ends with the finished task."""
    decision, task = run("tasks", "approve", task_id, "--wait", "--json").lines
    assert decision == {"task_id": task_id, "status": "approved", "execution_started": True}
    assert (task["id"], task["status"]) == (task_id, "completed")


def test_a_task_is_dismissed(run: Run, task_id: str) -> None:
    """Dismissing tells the new status; what is not pending any more can't be decided again."""
    assert run("tasks", "dismiss", task_id, "--reason", "testing").out == f"{task_id} is dismissed.\n"
    again = run("tasks", "approve", task_id)
    assert (again.code, again.out) == (1, "")
    assert "Error: LeadLex found the request invalid (400 validation_error)" in again.err

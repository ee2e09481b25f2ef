"""Tasks: list, approve, dismiss, and what they do."""

import httpx
import pytest

from leadlex.sandbox import Charge, Sandbox
from tests.support.runners import wait_until

from .conftest import CEOS, ask, client_of, code_of

PATH = "/v1/lexi/tasks"


def ids(http: httpx.Client, status: str) -> list[str]:
    """Give the ids of the tasks that have a status."""
    return [task["id"] for task in http.get(PATH, params={"status": status}).json()["data"]["tasks"]]


def test_an_approved_search_fills_its_list(sandbox: Sandbox, http: httpx.Client) -> None:
    """Approving costs the search; when the task is completed the contacts are on a list."""
    task_id = ask(http, CEOS)["task_id"]
    answer = http.post(f"{PATH}/{task_id}/approve").json()["data"]
    assert answer == {"task_id": task_id, "status": "approved", "execution_started": True}
    assert ids(http, "completed") == [task_id]
    assert sandbox.charges == [Charge("chat", 1, None), Charge("prospect_search", 5, None)]
    assert "- CEOs at law firms in New York: 20 contacts" in ask(http, "Show my lists")["response"]


def test_execution_takes_a_moment() -> None:
    """An approved task is approved first and completed later."""
    with Sandbox(pace=0, task_seconds=0.2) as sandbox, client_of(sandbox) as http:
        task_id = ask(http, CEOS)["task_id"]
        http.post(f"{PATH}/{task_id}/approve")
        assert ids(http, "approved") == [task_id]
        assert "CEOs" not in ask(http, "Show my lists")["response"]
        wait_until(lambda: ids(http, "completed") == [task_id])
        assert ids(http, "approved") == []


def test_a_search_without_credits_fails(sandbox: Sandbox, http: httpx.Client) -> None:
    """Approving what can't be paid starts nothing and costs nothing."""
    task_id = ask(http, CEOS)["task_id"]
    sandbox.credits = 4
    assert http.post(f"{PATH}/{task_id}/approve").json()["data"]["execution_started"] is False
    assert ids(http, "failed") == [task_id]
    assert sandbox.credits == 4
    assert "CEOs" not in ask(http, "Show my lists")["response"]


@pytest.mark.parametrize("body", [None, {}, {"reason": "not_relevant"}, {"reason": "my own words"}])
def test_dismisses_for_good(http: httpx.Client, body: dict[str, str] | None) -> None:
    """A dismissed task can't be approved later, nor dismissed again; a body is optional."""
    task_id = ask(http, CEOS)["task_id"]
    answer = http.post(f"{PATH}/{task_id}/dismiss", json=body) if body is not None else None
    answer = answer or http.post(f"{PATH}/{task_id}/dismiss")
    assert answer.json()["data"] == {"task_id": task_id, "status": "dismissed"}
    assert ids(http, "dismissed") == [task_id]
    for verb in ("approve", "dismiss"):
        refused = http.post(f"{PATH}/{task_id}/{verb}")
        assert code_of(refused) == (400, "validation_error")
        assert "dismissed, not pending" in refused.json()["error"]["message"]


def test_lists_by_status(http: httpx.Client) -> None:
    """Without a status the pending ones come, the oldest first; an unknown status is 400."""
    tasks = [ask(http, CEOS)["task_id"], ask(http, "Find CTOs")["task_id"]]
    assert [task["id"] for task in http.get(PATH).json()["data"]["tasks"]] == tasks
    assert ids(http, "completed") == []
    assert code_of(http.get(PATH, params={"status": "late"})) == (400, "validation_error")


def test_refuses_unknown_ones(http: httpx.Client) -> None:
    """An unknown task is 404, a reason that is no text 400."""
    for verb in ("approve", "dismiss"):
        assert code_of(http.post(f"{PATH}/none/{verb}")) == (404, "not_found")
    task_id = ask(http, CEOS)["task_id"]
    assert code_of(http.post(f"{PATH}/{task_id}/dismiss", json={"reason": 5})) == (400, "validation_error")
    assert ids(http, "pending") == [task_id]

"""Chat: what is asked wrongly, what it costs, and what has to be approved."""

from typing import Any

import httpx
import pytest

from leadlex import ConfigurationError, ToolStep
from leadlex.sandbox import Charge, Sandbox

from .conftest import CEOS, STREAM, ask, client_of, code_of, stream

WRONG_ANYWHERE: list[dict[str, object]] = [
    {},
    {"message": ""},
    {"message": None},
    {"message": 5},
    {"message": "hi", "context": []},
]
WRONG_IN_CHAT: list[dict[str, object]] = [
    {"message": "hi", "context": {"list_id": 5}},
    {"message": "hi", "context": {"conversation_id": None}},
    {"message": "hi", "context": {"conversation_id": "conv_none"}},
]
WRONG_IN_STREAM: list[dict[str, object]] = [
    {"message": "x" * 12_001},
    {"message": "hi", "conversation_id": 5},
    {"message": "hi", "allow_tools": "yes"},
    {"message": "hi", "context": {"contact_id": 5}},
]


@pytest.mark.parametrize(
    ("path", "body"),
    [(path, body) for path in ("/v1/lexi/chat", STREAM) for body in WRONG_ANYWHERE]
    + [("/v1/lexi/chat", body) for body in WRONG_IN_CHAT]
    + [(STREAM, body) for body in WRONG_IN_STREAM],
)
def test_refuses_what_the_contract_forbids(
    sandbox: Sandbox, http: httpx.Client, path: str, body: dict[str, object]
) -> None:
    """Missing, empty, oversized and wrongly typed values are 400 and cost nothing."""
    assert code_of(http.post(path, json=body)) == (400, "validation_error")
    assert sandbox.charges == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"hi"', b'{"message": "\\ud800"}', b"\xff", b"[" * 100_000, b"1" * 5_000]
)
def test_refuses_what_is_no_object(http: httpx.Client, content: bytes) -> None:
    """A body that is not a JSON object is 400, whatever is wrong with it."""
    headers = {"Content-Type": "application/json"}
    assert code_of(http.post("/v1/lexi/chat", content=content, headers=headers)) == (400, "validation_error")


def test_refuses_other_content_types(http: httpx.Client) -> None:
    """A body has to say that it is JSON."""
    assert code_of(http.post("/v1/lexi/chat", data={"message": "hi"})) == (400, "validation_error")


def test_takes_what_the_contract_allows(http: httpx.Client) -> None:
    """Unknown fields, null for a context and a message of just the allowed length are fine."""
    assert http.post("/v1/lexi/chat", json={"message": "hi", "context": None, "mood": 5}).status_code == 200
    assert stream(http, "x" * 12_000, conversation_id=None)[-1][0] == "done"


def test_a_message_costs_1_and_a_search_5(sandbox: Sandbox, http: httpx.Client) -> None:
    """The ledger has what was taken; the balance is what is left."""
    ask(http, "hello")
    ask(http, CEOS, list_id="q1-leads")
    stream(http, "hello")
    assert sandbox.charges == [
        Charge("chat", 1, None),
        Charge("prospect_search", 5, None),
        Charge("stream", 1, None),
    ]
    assert sandbox.credits == 5_000 - 7


def test_a_stream_costs_what_its_tools_do(sandbox: Sandbox, http: httpx.Client) -> None:
    """A stream costs 1, and 1 more for each tool; a chat does not."""
    for message in ("hello", "Where is Jane Doe?"):
        stream(http, message)
        ask(http, message)
    assert [(charge.what, charge.amount) for charge in sandbox.charges] == [
        ("stream", 1),
        ("chat", 1),
        ("stream", 2),
        ("chat", 1),
    ]
    steps = [ToolStep(tool, status) for tool in ("a", "b", "c", "d") for status in ("started", "completed")]
    sandbox.answer_next("Done.", steps)
    stream(http, "Do all four")
    assert sandbox.charges[-1].amount == 5


def test_prices_can_be_set() -> None:
    """Those that are given count, the others stay the contract's; what is free is no charge."""
    with Sandbox(pace=0, task_seconds=0, prices={"chat": 0, "search": 7, "tool_step": 3}) as sandbox:
        with client_of(sandbox) as http:
            task_id = ask(http, CEOS)["task_id"]
            assert "for 7 credits" in ask(http, CEOS)["response"]
            http.post(f"/v1/lexi/tasks/{task_id}/approve")
            ask(http, CEOS, list_id="q1-leads")
            stream(http, "hello")
            stream(http, "Where is Jane Doe?")
        assert [(charge.what, charge.amount) for charge in sandbox.charges] == [
            ("prospect_search", 7),
            ("prospect_search", 7),
            ("stream", 1),
            ("stream", 4),
        ]


@pytest.mark.parametrize("prices", [{"talk": 1}, {"chat": -1}, {"chat": 0.5}, {"chat": True}, {"chat": "1"}])
def test_prices_that_are_none_are_refused(prices: Any) -> None:
    """Prices have the names that there are, and are whole numbers."""
    with pytest.raises(ConfigurationError, match=r"chat, search, stream, tool_step|whole number"):
        Sandbox(prices=prices)


def test_stops_when_the_credits_are_gone(sandbox: Sandbox, http: httpx.Client) -> None:
    """402 comes before any event, and nothing of the message stays."""
    sandbox.credits = 4
    assert code_of(http.post("/v1/lexi/chat", json={"message": CEOS, "context": {"list_id": "new"}})) == (
        402,
        "insufficient_credits",
    )
    sandbox.credits = 0
    assert code_of(http.post(STREAM, json={"message": "hi"})) == (402, "insufficient_credits")
    assert http.get("/v1/lexi/conversations").json()["meta"]["total"] == 0
    sandbox.credits = 1
    assert ask(http, "hi")["response"]


def test_a_search_for_a_list_is_done_at_once(http: httpx.Client) -> None:
    """With a list_id the contacts are added, with nothing to approve."""
    reply = ask(http, CEOS, list_id="q1-leads")
    assert reply["response"].startswith("Added 20 contacts to Q1 Leads")
    assert (reply["requires_approval"], reply["task_id"]) == (False, None)
    assert "- Q1 Leads: 20 contacts" in ask(http, "Show my lists")["response"]


def test_a_search_for_no_list_needs_approval(http: httpx.Client) -> None:
    """Without a list_id there is a pending task, and nothing happens until it is approved."""
    reply = ask(http, CEOS)
    [task] = http.get("/v1/lexi/tasks").json()["data"]["tasks"]
    assert (reply["requires_approval"], reply["task_id"]) == (True, task["id"])
    assert (task["type"], task["status"], task["metadata"]["count"]) == ("prospect_search", "pending", 20)
    assert "CEOs" not in ask(http, "Show my lists")["response"]

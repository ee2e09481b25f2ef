"""Conversations: search, filters, pages, messages."""

import httpx
import pytest

from leadlex.sandbox import Sandbox

from .conftest import CEOS, ask, client_of, code_of, stream

PATH = "/v1/lexi/conversations"


def titles(http: httpx.Client, **params: str | int | bool) -> list[str]:
    """List conversations and give their titles."""
    answer = http.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return [one["title"] for one in answer.json()["data"]["conversations"]]


def test_search_looks_at_titles_and_messages(sandbox: Sandbox, http: httpx.Client) -> None:
    """All words must be there, wherever and in any case; operators of the search language are words."""
    sandbox.add_conversation("Series B research", "What about Acme?", "Acme is in closing.")
    sandbox.add_conversation("Acme intake", "Hello")
    assert titles(http, search="ACME") == ["Acme intake", "Series B research"]
    assert titles(http, search="acme series") == ["Series B research"]
    assert titles(http, search="nothing") == []
    assert len(titles(http, search=" ")) == 2
    for hostile in ('"', "acme OR hello", "a*", "NEAR(", "-", "acme\0", "title:acme", "!!!", "' --"):
        assert http.get(PATH, params={"search": hostile}).status_code == 200


def test_filters(sandbox: Sandbox, http: httpx.Client) -> None:
    """Owner, contact and deal narrow down; archived ones come only when asked for."""
    sandbox.add_conversation("contact", context={"contact_id": "jane-doe"})
    sandbox.add_conversation("deal", context={"deal_id": "intake-rollout"})
    sandbox.add_conversation("archived", archived=True)
    sandbox.add_conversation("other", user_id="user_other")
    assert titles(http) == ["deal", "contact"]
    assert titles(http, contact_id="jane-doe") == ["contact"]
    assert titles(http, deal_id="intake-rollout") == ["deal"]
    assert titles(http, contact_id="jane-doe", deal_id="intake-rollout") == []
    assert titles(http, archived="true") == ["archived", "deal", "contact"]
    assert titles(http, user_id="user_other") == ["other"]
    with client_of(sandbox, sandbox.add_key(user_id="user_other")) as others:
        assert titles(others) == ["other"]


def test_pages(sandbox: Sandbox, http: httpx.Client) -> None:
    """Pages have the latest first, nothing twice, and tell the total also behind the end."""
    for number in range(7):
        sandbox.add_conversation(f"{number}")
    assert titles(http, per_page=3) + titles(http, per_page=3, page=2) == ["6", "5", "4", "3", "2", "1"]
    answer = http.get(PATH, params={"page": 10**30, "per_page": 3}).json()
    assert answer["meta"] == {"page": 10**30, "per_page": 3, "total": 7}
    assert answer["data"]["conversations"] == []


NUMBERS = ("page=0", "page=-1", "page=x", "page=", "page=1.0", "page=%D9%A1", "page=" + "9" * 5_000)
WRONG = (*NUMBERS, "per_page=0", "per_page=101", "archived=yes", "archived=")


@pytest.mark.parametrize("query", WRONG)
def test_refuses_wrong_pages(http: httpx.Client, query: str) -> None:
    """What is not in the schema is 400."""
    assert code_of(http.get(f"{PATH}?{query}")) == (400, "validation_error")


def test_shows_one(http: httpx.Client) -> None:
    """A conversation has its messages, the oldest first; what tools gave comes when asked for."""
    conversation_id = ask(http, CEOS)["conversation_id"]
    ask(http, "hello", conversation_id=conversation_id)
    [summary] = http.get(PATH).json()["data"]["conversations"]
    assert (summary["title"], summary["message_count"], summary["archived"]) == (CEOS, 4, False)
    conversation = http.get(f"{PATH}/{conversation_id}").json()["data"]
    roles = [message["role"] for message in conversation["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    params: dict[str, str | int] = {"include_tool_steps": "true", "limit": 4}
    shown = http.get(f"{PATH}/{conversation_id}", params=params).json()["data"]["messages"]
    assert [message["role"] for message in shown] == ["tool", "assistant", "user", "assistant"]
    assert (shown[0]["tool_name"], shown[0]["tool_output"]) == (
        "prospects.search",
        {"summary": "Found 20 contacts"},
    )
    assert "tool_name" not in shown[1]
    assert shown[-1]["created_at"] == summary["last_message_at"]


def test_keeps_where_it_was_had(http: httpx.Client) -> None:
    """The context of the first message is the conversation's; a long title is cut."""
    stream(http, "this " * 30, context={"deal_id": "intake-rollout", "page": "/deals", "company_id": "x"})
    [summary] = http.get(PATH, params={"deal_id": "intake-rollout"}).json()["data"]["conversations"]
    assert summary["context"] == {"deal_id": "intake-rollout", "page": "/deals"}
    assert len(summary["title"]) == 60


def test_refuses_unknown_ones(http: httpx.Client) -> None:
    """An unknown id is 404, a limit out of bounds 400."""
    for one in ("none", "..%2Fadmin", "%00", "conv_", "%F0%9F%98%80"):
        assert code_of(http.get(f"{PATH}/{one}")) == (404, "not_found")
    conversation_id = ask(http, "hello")["conversation_id"]
    for query in ("limit=0", "limit=1001", "include_tool_steps=1"):
        assert code_of(http.get(f"{PATH}/{conversation_id}?{query}")) == (400, "validation_error")

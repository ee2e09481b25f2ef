"""What the sandbox's Lexi says: the documentation's prompts get true answers from the invented workspace."""

import re

import httpx
import pytest

from leadlex.sandbox._crm import PEOPLE

from .conftest import CEOS, ask, said, stream

BY_NAME = {person.name: person for person in PEOPLE}


def names_in(text: str) -> list[str]:
    """Read the names of a numbered list."""
    return re.findall(r"^\d+\. ([^,]+),", text, re.MULTILINE)


def test_finds_20_ceos(http: httpx.Client) -> None:
    """20 are asked for and 20 are found, of which each is what was asked for."""
    people = [BY_NAME[name] for name in names_in(ask(http, CEOS)["response"])]
    assert len(set(people)) == 20
    assert {(person.title, person.industry, person.state) for person in people} == {("CEO", "law", "New York")}


def test_finds_by_size(http: httpx.Client) -> None:
    """A range of employees is a range, and no number of people."""
    text = ask(http, "Find CTOs at SaaS companies with 50-200 employees in California")["response"]
    people = [BY_NAME[name] for name in names_in(text)]
    assert len(people) == 3
    assert all(50 <= person.employees <= 200 and person.state == "California" for person in people)


def test_finds_nobody(http: httpx.Client) -> None:
    """Where there is nobody, nobody is invented and nothing has to be approved."""
    reply = ask(http, "Find CTOs at law firms in Boston")
    assert reply["response"] == "I found no CTOs at law firms in Boston."
    assert reply["requires_approval"] is False


def test_finds_by_industry_alone(http: httpx.Client) -> None:
    """A search need not name a title."""
    assert "Jane Doe" not in ask(http, "Find 3 people at law firms")["response"]


def test_filters_what_it_found(http: httpx.Client) -> None:
    """A follow-up remembers, even a second one; what was not found stays out."""
    found = ask(http, "Find CEOs at law firms")
    conversation_id = found["conversation_id"]
    kept = ask(http, "Filter to only New York", conversation_id=conversation_id)
    assert names_in(kept["response"]) == [
        name for name in names_in(found["response"]) if BY_NAME[name].state == "New York"
    ]
    assert kept["conversation_id"] == conversation_id
    fewer = ask(http, "Only Buffalo", conversation_id=conversation_id)
    assert names_in(fewer["response"]) == ["Rosa Marchetti"]


def test_filters_nothing_if_nothing_was_found(http: httpx.Client) -> None:
    """A follow-up of nothing says so."""
    assert "0 of the 0" in ask(http, "Filter to only New York")["response"]


def test_drafts_and_rewrites_a_campaign(http: httpx.Client) -> None:
    """The follow-up changes the draft, and the task sends what was drafted last."""
    prompt = "Create an outreach campaign for my 'Q1 Leads' list about legal automation"
    reply = ask(http, prompt, list_id="q1-leads")
    assert "Dear" in reply["response"]
    assert "legal automation" in reply["response"]
    casual = ask(http, "Can you make the email more casual?", conversation_id=reply["conversation_id"])
    assert "quick one about legal automation" in casual["response"]
    [task] = http.get("/v1/lexi/tasks").json()["data"]["tasks"]
    assert (task["id"], task["type"]) == (reply["task_id"], "campaign_start")
    assert task["metadata"]["email"] in casual["response"]
    http.post(f"/v1/lexi/tasks/{task['id']}/approve")
    assert "started: Q1 Leads: legal automation." in ask(http, "Which campaigns do I have?")["response"]


def test_a_campaign_needs_a_list(http: httpx.Client) -> None:
    """The list may be named or sent; without one Lexi asks."""
    assert "Which list" in ask(http, "Start a campaign about tax law")["response"]
    assert ask(http, "Start a campaign for Legal Tech Expo about tax law")["requires_approval"] is True
    assert "email for my-own" in ask(http, "Start a campaign about tax law", list_id="my-own")["response"]


def test_rewrites_nothing_without_a_draft(http: httpx.Client) -> None:
    """A follow-up of nothing says so."""
    assert "no email yet" in ask(http, "Can you make the email more casual?")["response"]


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("Summarize my pipeline", "4 deals are worth $176,000"),
        ("Where is Jane Doe?", "Jane Doe is currently in the Proposal stage"),
        ("Who is Ada Okafor?", "CEO of Okafor & Lindqvist LLP"),
        ("How is Intake rollout doing?", "in the Proposal stage with Felix Montague"),
        ("What about Acme Corp Series B?", "in Closing for Jane Doe"),
        ("Show my lists", "Legal Tech Expo: 2 contacts (Jane Doe, Goran Petrov)"),
        ("Hello", "Hello! I am the Lexi of a sandbox"),
        ("What is the meaning of life?", "I am the Lexi of a sandbox"),
        ("\n", "I am the Lexi of a sandbox"),
    ],
)
def test_answers(http: httpx.Client, prompt: str, words: str) -> None:
    """Questions about the workspace get its facts; anything else is told what to ask."""
    assert words in ask(http, prompt)["response"]


def test_knows_what_this_is(http: httpx.Client) -> None:
    """The context of a stream says what "this" is, also for the messages that follow."""
    events = stream(http, "How does this stand?", context={"matter_id": "acme-corp-series-b"})
    assert "Acme Corp Series B is currently in Closing" in said(events)
    conversation_id = next(data["conversation_id"] for event, data in events if event == "text")
    events = stream(http, "And this?", conversation_id=conversation_id)
    assert "Acme Corp Series B" in said(events)
    assert "I am the Lexi" in said(stream(http, "How does this stand?", context={"matter_id": "none"}))


def test_uses_no_tools_if_told_so(http: httpx.Client) -> None:
    """Without tools there is no tool step, and what would take one is not answered."""
    events = stream(http, "Where is Jane Doe?", allow_tools=False)
    assert "tool_step" not in [event for event, _ in events]
    assert said(events).startswith("I can't look that up: it takes the tool contacts.get")
    assert said(stream(http, "Hello", allow_tools=False)).startswith("Hello!")


def test_says_the_same_on_both_roads(http: httpx.Client) -> None:
    """The stream's words are the reply of chat."""
    assert said(stream(http, "Summarize my pipeline")) == ask(http, "Summarize my pipeline")["response"]

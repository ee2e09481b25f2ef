"""The sandbox's Lexi: a list of rules over the invented workspace. The same question gets the same answer.

A rule looks at what was asked and gives an `Answer`, or None if the question is not its own; the first answer counts.
Rules change nothing. What an answer wants done stands in it as an `Action`, which the service performs at once or, if
the action needs it, after somebody approved it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import _crm

MESSAGE_CREDITS = 1
SEARCH_CREDITS = 5
TASK_CREDITS = {"prospect_search": SEARCH_CREDITS, "campaign_start": 0}

# Words for what the data calls otherwise.
INDUSTRIES = {"law": "law", "legal": "law", "saas": "SaaS", "software": "SaaS"}


@dataclass(frozen=True, slots=True)
class Ask:
    """A message, and all that an answer may depend on."""

    message: str
    context: Mapping[str, str]
    memory: Mapping[str, Any]
    lists: Mapping[str, str]
    members: Callable[[str], Sequence[str]]
    campaigns: Sequence[str]

    def says(self, pattern: str) -> bool:
        """Tell whether the message has this pattern, in any case."""
        return re.search(pattern, self.message, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Action:
    """Something that changes what the CRM holds."""

    type: str
    description: str
    metadata: Mapping[str, Any]
    needs_approval: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What Lexi says, with the tool it took (`tool`, `summary`) and what is to be done and remembered."""

    text: str
    thinking: str = "Thinking it over..."
    tool: str = ""
    summary: str = ""
    credits: int = MESSAGE_CREDITS
    action: Action | None = None
    revision: Mapping[str, Any] | None = None
    memory: Mapping[str, Any] = field(default_factory=dict)


def answer(ask: Ask, *, allow_tools: bool = True) -> Answer:
    """Answer a message."""
    found = next(found for rule in RULES if (found := rule(ask)))
    return found if allow_tools or not found.tool else _without(found.tool)


def reworded(answer: Answer) -> Answer:
    """Say the same in other words, as a second generation does."""
    return replace(answer, text=f"Once more: {answer.text}")


def _without(tool: str) -> Answer:
    return Answer(
        f"I can't look that up: it takes the tool {tool}, and tools are switched off for this message."
    )


def _search(ask: Ask) -> Answer | None:
    if not ask.says(r"\b(find|search|look for)\b"):
        return None
    search = _search_in(ask.message)
    if not (search.title or search.industry):
        return None
    people = search.people()[: _count_in(ask.message)]
    if not people:
        return Answer(f"I found no {search}.", **_found(people))
    return _add_now(ask, search, people) if "list_id" in ask.context else _propose_search(search, people)


def _add_now(ask: Ask, search: _crm.Search, people: Sequence[_crm.Person]) -> Answer:
    list_id = ask.context["list_id"]
    list_name = ask.lists.get(list_id, list_id)
    action = _search_action(search, people, list_id, list_name)
    return Answer(
        f"Added {_contacts(people)} to {list_name}.\n\n{_numbered(people)}",
        **_found(people),
        credits=SEARCH_CREDITS,
        action=replace(action, needs_approval=False),
    )


def _propose_search(search: _crm.Search, people: Sequence[_crm.Person]) -> Answer:
    name = str(search)
    return Answer(
        f"I found {len(people)} {name}:\n\n{_numbered(people)}\n\n"
        f'Please approve this task, and I add them to a new list, "{name}", for {SEARCH_CREDITS} credits.',
        **_found(people),
        action=_search_action(search, people, _crm.slug(name), name),
    )


def _found(people: Sequence[_crm.Person]) -> dict[str, Any]:
    return {
        "thinking": "Working out whom to look for...",
        "tool": "prospects.search",
        "summary": f"Found {_contacts(people)}",
        "memory": {"found": [person.id for person in people]},
    }


def _search_action(
    search: _crm.Search, people: Sequence[_crm.Person], list_id: str, list_name: str
) -> Action:
    ids = [person.id for person in people]
    metadata = {"list_id": list_id, "list_name": list_name, "contact_ids": ids, "count": len(ids)}
    return Action("prospect_search", f"Find {len(ids)} {search}", metadata)


def _search_in(message: str) -> _crm.Search:
    """Read from a message what to look for."""
    size = re.search(r"(\d+)\s*(?:-|to|and)\s*(\d+) employees", message)
    industry = next((name for word, name in INDUSTRIES.items() if _has(message, word)), None)
    return _crm.Search(
        title=next((title for title in _crm.TITLES if _has(message, title)), None),
        industry=industry,
        place=_place_in(message),
        **({"smallest": int(size[1]), "largest": int(size[2])} if size else {}),
    )


def _count_in(message: str) -> int:
    """Read how many are wanted: the first number, if it does not begin a range."""
    number = re.search(r"\b(\d{1,4})\b(?!\s*(?:-|to|and)\s*\d)(?!\s*employees)", message)
    return int(number[1]) if number else 25


def _place_in(message: str) -> str | None:
    return next((place for place in _crm.PLACES if _has(message, place)), None)


def _has(message: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}s?\b", message, re.IGNORECASE) is not None


def _narrow(ask: Ask) -> Answer | None:
    place = _place_in(ask.message)
    if not (place and ask.says(r"\b(filter|only|narrow)\b")):
        return None
    if "found" not in ask.memory:
        return Answer(
            f"I have nothing to filter yet. Ask me to find somebody, then I can keep those in {place}."
        )
    people = [_crm.PEOPLE[person_id] for person_id in ask.memory["found"]]
    kept = [person for person in people if person.is_in(place)]
    return Answer(
        f"{len(kept)} of the {_contacts(people)} are in {place}.\n\n{_numbered(kept)}".strip(),
        **_found(kept) | {"thinking": "Going through what I found...", "tool": "contacts.filter"},
    )


def _campaign(ask: Ask) -> Answer | None:
    if not ask.says(r"\bcampaign\b.* about "):
        return None
    list_id = ask.context.get("list_id") or next(
        (key for key, name in ask.lists.items() if _has(ask.message, name)), None
    )
    if not list_id:
        return Answer("Which list is the campaign for? Name one of them, or send its list_id.")
    topic = re.split(r" about ", ask.message, flags=re.IGNORECASE)[-1].rstrip(" .!?")
    name = ask.lists.get(list_id, list_id)
    email = _email(topic, "formal")
    metadata = {"name": f"{name}: {topic}", "list_id": list_id, "email": email}
    return Answer(
        f"Here is the email for {name}:\n\n{email}\n\nPlease approve this task to start the campaign.",
        thinking="Drafting an email for the list...",
        tool="lists.get",
        summary=f"{name} has {len(ask.members(list_id))} contacts",
        action=Action("campaign_start", f"Start an outreach campaign for {name} about {topic}", metadata),
        memory={"topic": topic},
    )


def _rewrite(ask: Ask) -> Answer | None:
    tone = next((tone for tone in EMAILS if _has(ask.message, tone)), None)
    if not tone or not ask.says(r"\b(email|it|more|make)\b"):
        return None
    if "topic" not in ask.memory:
        return Answer("There is no email yet that I could rewrite. Ask me for a campaign first.")
    email = _email(ask.memory["topic"], tone)
    return Answer(
        f"Here is the email, more {tone}:\n\n{email}",
        thinking="Rewriting the email...",
        revision={"email": email},
    )


EMAILS = {
    "formal": "Dear {{first_name}},\n\nI am writing to you about {topic}. May I show you what firms of your"
    " size gain by it?\n\nKind regards",
    "casual": "Hi {{first_name}},\n\nquick one about {topic}: got ten minutes this week? I think you'd like"
    " it.\n\nCheers",
}


def _email(topic: str, tone: str) -> str:
    return EMAILS[tone].format(topic=topic)


def _pipeline(ask: Ask) -> Answer | None:
    if not ask.says(r"\b(pipeline|deals)\b"):
        return None
    stages = dict.fromkeys(deal.stage for deal in _crm.DEALS)
    lines = [_stage_line(stage) for stage in stages]
    total = sum(deal.amount for deal in _crm.DEALS)
    return Answer(
        f"Your pipeline has {len(_crm.DEALS)} deals worth ${total:,}.\n\n" + "\n".join(lines),
        thinking="Adding up your pipeline...",
        tool="deals.list",
        summary=f"Found {len(_crm.DEALS)} deals",
    )


def _stage_line(stage: str) -> str:
    deals = [deal for deal in _crm.DEALS if deal.stage == stage]
    names = ", ".join(f"{deal.name} ({deal.contact})" for deal in deals)
    return f"- {stage}: ${sum(deal.amount for deal in deals):,} in {names}"


def _subject(ask: Ask) -> Answer | None:
    """Tell about what the message names, or what "this" is in the place where it was asked."""
    subject = next((subject for subject in _crm.SUBJECTS if _is_meant(subject.names, ask)), None)
    if not subject:
        return None
    return Answer(
        subject.story,
        thinking=f"Looking up the {subject.kind} in your pipeline...",
        tool=f"{subject.kind}s.get",
        summary=f"Found 1 {subject.kind}",
    )


def _is_meant(names: Sequence[str], ask: Ask) -> bool:
    here = ask.context.values() if ask.says(r"\bthis\b") else ()
    return any(_has(ask.message, name) or _crm.slug(name) in here for name in names)


def _matters(ask: Ask) -> Answer | None:
    if not ask.says(r"\b(matters|cases)\b"):
        return None
    stories = "\n".join(f"- {matter.story}" for matter in _crm.MATTERS)
    summary = f"Found {len(_crm.MATTERS)} matters"
    return Answer(f"These are your matters:\n\n{stories}", tool="matters.list", summary=summary)


def _lists(ask: Ask) -> Answer | None:
    if not ask.says(r"\b(lists?|campaigns?)\b"):
        return None
    lines = [_list_line(name, ask.members(list_id)) for list_id, name in ask.lists.items()]
    started = ", ".join(ask.campaigns) or "none"
    text = "These are your lists:\n\n" + "\n".join(lines) + f"\n\nCampaigns that were started: {started}."
    return Answer(text, tool="lists.list", summary=f"Found {len(lines)} lists")


def _list_line(name: str, members: Sequence[str]) -> str:
    people = [_crm.PEOPLE[person_id] for person_id in members]
    return f"- {name}: {_contacts(people)} ({', '.join(person.name for person in people)})"


def _anything(ask: Ask) -> Answer:
    greeting = "Hello! " if ask.says(r"^\s*(hi|hello|hey|good (morning|afternoon|evening))\b") else ""
    return Answer(
        f"{greeting}I am the Lexi of a sandbox and know a small invented workspace. Try: Find me 20 CEOs at law firms"
        " in New York. Or: Summarize my pipeline. Or: Where is Jane Doe?"
    )


RULES: Sequence[Callable[[Ask], Answer | None]] = (
    _search,
    _campaign,
    _rewrite,
    _narrow,
    _pipeline,
    _subject,
    _matters,
    _lists,
    _anything,
)


def _contacts(people: Sequence[_crm.Person]) -> str:
    return "1 contact" if len(people) == 1 else f"{len(people)} contacts"


def _numbered(people: Sequence[_crm.Person]) -> str:
    return "\n".join(f"{number}. {person.card}" for number, person in enumerate(people, 1))

"""The sandbox's Lexi: rules over the invented workspace. The same question gets the same answer.

A rule gives an `Answer`, or None if the question is not its business; the first answer counts. Rules change
nothing: what an answer wants done stands in it as an `Action`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from leadlex._values.events import TextDelta, Thinking, ToolStep, UnknownEvent

from ._crm import DEALS, MATTERS, PEOPLE, Person, slug

WIDEST = (0, 1_000_000)  # employees
INDUSTRIES = {"law": "law firms", "SaaS": "SaaS companies"}
TITLES = sorted({person.title for person in PEOPLE})
PLACES = sorted({person.city for person in PEOPLE} | {person.state for person in PEOPLE})
# How things stand that a message may name.
STANDINGS = {
    **{person.name: ("contact", f"{person.title} of {person.company}, without a deal") for person in PEOPLE},
    **{deal.contact: ("contact", f"in the {deal.stage} stage with {deal.name}") for deal in DEALS},
    **{deal.name: ("deal", f"in the {deal.stage} stage with {deal.contact}") for deal in DEALS},
    **{matter.name: ("matter", f"in {matter.stage} for {matter.client}") for matter in MATTERS},
}
EMAILS = {
    "formal": "Dear {{name}},\n\nmay I show you what {topic} could do for your firm?\n\nKind regards",
    "casual": "Hi {{name}},\n\nquick one about {topic}: got ten minutes this week?\n\nCheers",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """A message, and all that its answer may depend on; `lists` has names and members by id."""

    message: str
    context: Mapping[str, str]
    memory: dict[str, Any]
    lists: Mapping[str, tuple[str, Sequence[str]]]
    campaigns: Sequence[str]
    search_price: int

    def has(self, pattern: str) -> bool:
        """Tell whether the message has this pattern, in any case."""
        return re.search(pattern, self.message, re.IGNORECASE) is not None

    def first(self, names: Iterable[str]) -> str | None:
        """Give the first of these names that the message has, maybe in the plural."""
        return next((name for name in names if self.has(rf"\b{re.escape(name)}s?\b")), None)

    def list_name(self, list_id: str) -> str:
        """Give the name of a list, which is its id as long as nobody has named it."""
        return self.lists[list_id][0] if list_id in self.lists else list_id


@dataclass(frozen=True, slots=True)
class Action:
    """Something that changes what the CRM holds, after somebody approved it or at once."""

    type: str
    description: str
    metadata: dict[str, Any]
    at_once: bool


class Reply(NamedTuple):
    """What Lexi says, as the events of a stream; the whole of it is their text."""

    events: tuple[Thinking | ToolStep | TextDelta | UnknownEvent, ...]

    @property
    def text(self) -> str:
        """The whole."""
        return "".join(event.delta for event in self.events if isinstance(event, TextDelta))

    @property
    def tools(self) -> list[ToolStep]:
        """The tools that have run."""
        return [event for event in self.events if isinstance(event, ToolStep) and event.status == "completed"]


def words(text: str) -> tuple[TextDelta, ...]:
    """Cut a text into words, each with the space before it."""
    return tuple(TextDelta(word) for word in re.findall(r"\s*\S+|\s+", text))


@dataclass(frozen=True, slots=True)
class Answer:
    """What Lexi says, the tool it took, what is to be done, and what follow-ups may refer to.

    `revision` changes the campaign that was proposed before.
    """

    text: str
    thinking: str = "Thinking it over..."
    tool: str = ""
    summary: str = ""
    action: Action | None = None
    revision: dict[str, Any] = field(default_factory=dict[str, Any])
    memory: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def reply(self) -> Reply:
        """What is told of it."""
        steps = (ToolStep(self.tool, "started"), ToolStep(self.tool, "completed", self.summary)) if self.tool else ()
        return Reply((Thinking(self.thinking), *steps, *words(self.text)))


def answer(ask: Ask, *, allow_tools: bool = True) -> Answer:
    """Answer a message."""
    found = next(found for rule in RULES if (found := rule(ask)))
    if found.tool and not allow_tools:
        return Answer(f"I can't look that up: it takes the tool {found.tool}, and I may not use tools now.")
    return found


def reworded(answer: Answer) -> Answer:
    """Say the same in other words, as a second generation may."""
    return replace(answer, text=f"Once more: {answer.text}")


def _search(ask: Ask) -> Answer | None:
    title, industry, place = ask.first(TITLES), ask.first(INDUSTRIES), ask.first(PLACES)
    if not ask.has(r"\bfind\b") or not (title or industry):
        return None
    size = re.search(r"(\d{1,9})-(\d{1,9}) employees", ask.message)
    smallest, largest = (int(size[1]), int(size[2])) if size else WIDEST
    people = [
        person
        for person in PEOPLE
        if title in (None, person.title)
        and industry in (None, person.industry)
        and place in (None, person.city, person.state)
        and smallest <= person.employees <= largest
    ]
    what = f"{title or 'contact'}s" + (f" at {INDUSTRIES[industry]}" if industry else "")
    what += (f" with {size[0]}" if size else "") + (f" in {place}" if place else "")
    return _offer(ask, what, people[: _count(ask.message)])


def _offer(ask: Ask, what: str, people: Sequence[Person]) -> Answer:
    """Add the people to the list that was sent along, or propose to add them to a new one."""
    names = [person.name for person in people]
    count, at_once = _contacts(names), "list_id" in ask.context
    list_id = ask.context["list_id"] if at_once else slug(what)
    list_name = ask.list_name(list_id) if at_once else what
    metadata = {"list_id": list_id, "list_name": list_name, "contacts": names, "count": len(names)}
    action = Action("prospect_search", f"Find {count}: {what}", metadata, at_once=at_once)
    opening = f"Added {count} to {list_name}" if at_once else f"I found {count}"
    closing = (
        "" if at_once else f"\n\nPlease approve this task: then they are on a new list, for {ask.search_price} credits."
    )
    if not people:
        return _found(people, f"I found no {what}.")
    return _found(people, f"{opening}, {what}:\n\n{_numbered(people)}{closing}", action)


def _found(people: Sequence[Person], text: str, action: Action | None = None) -> Answer:
    names = [person.name for person in people]
    return Answer(
        text,
        thinking="Going through the prospects...",
        tool="prospects.search",
        summary=f"Found {_contacts(names)}",
        action=action,
        memory={"found": names},
    )


def _filter(ask: Ask) -> Answer | None:
    place = ask.first(PLACES)
    if not place or not ask.has(r"\b(filter|only)\b"):
        return None
    people = [person for person in PEOPLE if person.name in ask.memory.get("found", ())]
    kept = [person for person in people if place in (person.city, person.state)]
    return _found(kept, f"{len(kept)} of the {len(people)} that I found are in {place}.\n\n{_numbered(kept)}")


def _campaign(ask: Ask) -> Answer | None:
    if not ask.has(r"\bcampaign\b.* about "):
        return None
    topic = re.split(" about ", ask.message, flags=re.IGNORECASE)[-1].rstrip(" .!?\n")
    named = (list_id for list_id, (name, _) in ask.lists.items() if ask.first([name]))
    list_id = ask.context.get("list_id") or next(named, None)
    if not list_id:
        return Answer("Which list is the campaign for? Name one of your lists, or send its list_id.")
    name, email = ask.list_name(list_id), EMAILS["formal"].format(topic=topic)
    metadata = {"name": f"{name}: {topic}", "list_id": list_id, "email": email}
    return Answer(
        f"Here is an email for {name}:\n\n{email}\n\nPlease approve this task to start the campaign.",
        thinking="Drafting an email for the list...",
        tool="lists.get",
        summary=f"Found the list {name}",
        action=Action("campaign_start", f"Start a campaign for {name} about {topic}", metadata, at_once=False),
        memory={"topic": topic},
    )


def _rewrite(ask: Ask) -> Answer | None:
    tone = ask.first(EMAILS)
    if not tone:
        return None
    if "topic" not in ask.memory:
        return Answer("There is no email yet that I could rewrite. Ask me for a campaign first.")
    email = EMAILS[tone].format(topic=ask.memory["topic"])
    return Answer(f"Here is the email, more {tone}:\n\n{email}", "Rewriting the email...", revision={"email": email})


def _pipeline(ask: Ask) -> Answer | None:
    if not ask.has(r"\b(pipeline|deals)\b"):
        return None
    lines = "\n".join(f"- {deal.stage}: {deal.name} with {deal.contact}, ${deal.amount:,}" for deal in DEALS)
    text = f"Your {len(DEALS)} deals are worth ${sum(deal.amount for deal in DEALS):,}.\n\n{lines}"
    return Answer(text, "Adding up your pipeline...", "deals.list", f"Found {len(DEALS)} deals")


def _standing(ask: Ask) -> Answer | None:
    """Tell how something stands that the message names, or that is open where it says "this"."""
    here = ask.context.values() if ask.has(r"\bthis\b") else ()
    name = ask.first(STANDINGS) or next((name for name in STANDINGS if slug(name) in here), None)
    if not name:
        return None
    kind, standing = STANDINGS[name]
    thinking = f"Looking up the {kind} in your pipeline..."
    return Answer(f"{name} is currently {standing}.", thinking, f"{kind}s.get", f"Found 1 {kind}")


def _lists(ask: Ask) -> Answer | None:
    if not ask.has(r"\b(lists?|campaigns?)\b"):
        return None
    lists = [f"- {name}: {_contacts(members)} ({', '.join(members)})" for name, members in ask.lists.values()]
    started = f"Campaigns that were started: {', '.join(ask.campaigns) or 'none'}."
    text = "\n".join(["Your lists:", "", *lists, "", started])
    return Answer(text, tool="lists.list", summary=f"Found {len(lists)} lists")


def _anything(ask: Ask) -> Answer:
    greeting = "Hello! " if ask.has(r"^\W*(hi|hello|hey)\b") else ""
    return Answer(
        f"{greeting}I am the Lexi of a sandbox and know a small invented workspace. Try: Find me 20 CEOs at"
        " law firms in New York. Or: Summarize my pipeline. Or: Where is Jane Doe?"
    )


RULES: Sequence[Callable[[Ask], Answer | None]] = (
    _search,
    _filter,
    _campaign,
    _rewrite,
    _pipeline,
    _standing,
    _lists,
    _anything,
)


def _count(message: str) -> int:
    """Read how many are wanted: a number that follows the verb."""
    number = re.search(r"\bfind (?:me )?(?:the )?(?:first )?(\d{1,4})\b", message, re.IGNORECASE)
    return int(number[1]) if number else 25


def _contacts(names: Sequence[str]) -> str:
    return f"{len(names)} contact" + ("" if len(names) == 1 else "s")


def _numbered(people: Sequence[Person]) -> str:
    return "\n".join(
        f"{number}. {person.name}, {person.title} of {person.company} ({person.city})"
        for number, person in enumerate(people, 1)
    )

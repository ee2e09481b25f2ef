"""What the invented workspace holds, and how to look things up in it. Nothing here changes; lists live in the store."""

import re
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from . import _data

T = TypeVar("T")


def slug(name: str) -> str:
    """Make the id of something from its name."""
    return "-".join(re.findall(r"\w+", name.lower()))


def _read(kind: type[T], table: str) -> list[T]:
    """Make one value of each line of a table whose first line names the fields."""
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]
    return [kind(**dict(zip(head, map(_cell, line), strict=True))) for line in lines]


def _cell(text: str) -> Any:  # noqa: ANN401 - a cell is a number or a text, its column knows
    return int(text) if text.isdigit() else text


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a prospect search can find."""

    kind: ClassVar = "contact"
    name: str
    title: str
    company: str
    industry: str
    city: str
    state: str
    employees: int

    @property
    def id(self) -> str:
        return slug(self.name)

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.company)

    @property
    def card(self) -> str:
        return f"{self.name}, {self.title} of {self.company} ({self.city})"

    @property
    def story(self) -> str:
        deal = next((deal for deal in DEALS if deal.contact == self.name), None)
        where = (
            f"in the {deal.stage} stage with {deal.name} (${deal.amount:,})"
            if deal
            else "not in your pipeline"
        )
        return (
            f"{self.name} is currently {where}. {self.name} is {self.title} of {self.company} in {self.city}."
        )

    def is_in(self, place: str) -> bool:
        """Tell whether the city or the state has this name: "New York" is both."""
        return place in (self.city, _data.STATES[self.state])


@dataclass(frozen=True, slots=True)
class Deal:
    """A chance to sell, in the pipeline."""

    kind: ClassVar = "deal"
    name: str
    contact: str
    stage: str
    amount: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def story(self) -> str:
        return f"The deal {self.name} with {self.contact} is in the {self.stage} stage and worth ${self.amount:,}."


@dataclass(frozen=True, slots=True)
class Matter:
    """A case or a mandate that the firm works on."""

    kind: ClassVar = "matter"
    name: str
    client: str
    stage: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def story(self) -> str:
        return f"The matter {self.name} for {self.client} is in the {self.stage} stage."


@dataclass(frozen=True, slots=True)
class ContactList:
    """A list of contacts that is there from the beginning."""

    id: str
    name: str
    members: str

    @property
    def member_ids(self) -> list[str]:
        return [slug(name) for name in self.members.split(",")]


PEOPLE = {person.id: person for person in _read(Person, _data.PEOPLE)}
DEALS = _read(Deal, _data.DEALS)
MATTERS = _read(Matter, _data.MATTERS)
LISTS = _read(ContactList, _data.LISTS)

SUBJECTS: list[Person | Deal | Matter] = [*PEOPLE.values(), *DEALS, *MATTERS]
TITLES = sorted({person.title for person in PEOPLE.values()})
PLACES = sorted({person.city for person in PEOPLE.values()} | set(_data.STATES.values()))


@dataclass(frozen=True, slots=True)
class Search:
    """What a prospect search looks for; None and the widest bounds leave a side open."""

    title: str | None = None
    industry: str | None = None
    place: str | None = None
    smallest: int = 0
    largest: int = 1_000_000

    def matches(self, person: Person) -> bool:
        """Tell whether this person is looked for."""
        return (
            self.title in (None, person.title)
            and self.industry in (None, person.industry)
            and (self.place is None or person.is_in(self.place))
            and self.smallest <= person.employees <= self.largest
        )

    def people(self) -> list[Person]:
        """Find everybody who matches."""
        return [person for person in PEOPLE.values() if self.matches(person)]

    def __str__(self) -> str:
        where = {None: "", "law": " at law firms", "SaaS": " at SaaS companies"}[self.industry]
        size = f" with {self.smallest}-{self.largest} employees" if self.smallest else ""
        place = f" in {self.place}" if self.place else ""
        return f"{self.title or 'People'}{'s' if self.title else ''}{where}{size}{place}"

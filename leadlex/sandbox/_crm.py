"""The invented workspace: every person, firm and sum is made up. Nothing changes; lists grow in the store."""

import re
from typing import NamedTuple


class Person(NamedTuple):
    """Somebody whom a prospect search can find."""

    name: str
    title: str
    company: str
    industry: str
    city: str
    state: str
    employees: int


class Deal(NamedTuple):
    """A chance to sell."""

    name: str
    contact: str
    stage: str
    amount: int


class Matter(NamedTuple):
    """A case or a mandate."""

    name: str
    client: str
    stage: str


PEOPLE = [
    Person("Ada Okafor", "CEO", "Okafor & Lindqvist LLP", "law", "New York", "New York", 64),
    Person("Bruno Castellanos", "CEO", "Castellanos Reyes PLLC", "law", "New York", "New York", 41),
    Person("Clara Whitcomb", "CEO", "Whitcomb Dale LLP", "law", "New York", "New York", 120),
    Person("Desmond Achterberg", "CEO", "Achterberg Law Group", "law", "New York", "New York", 18),
    Person("Elif Demirci", "CEO", "Demirci & Sons LLP", "law", "New York", "New York", 27),
    Person("Felix Montague", "CEO", "Montague Pryce LLP", "law", "New York", "New York", 310),
    Person("Greta Halvorsen", "CEO", "Halvorsen Maritime Law", "law", "New York", "New York", 52),
    Person("Hiro Tanabe", "CEO", "Tanabe Ostrow LLP", "law", "New York", "New York", 88),
    Person("Imani Beaumont", "CEO", "Beaumont Justice", "law", "New York", "New York", 33),
    Person("Jonas Feldstein", "CEO", "Feldstein Brandt LLP", "law", "New York", "New York", 205),
    Person("Wade Hollingsworth", "CEO", "Hollingsworth Energy Law", "law", "Boston", "Massachusetts", 73),
    Person("Ximena Duarte", "CEO", "Duarte Labor Law", "law", "Chicago", "Illinois", 36),
    Person("Katya Romanenko", "CEO", "Romanenko Immigration Law", "law", "Brooklyn", "New York", 15),
    Person("Liam Gallowglass", "CEO", "Gallowglass & Byrne", "law", "New York", "New York", 76),
    Person("Mei-Lin Zhao", "CEO", "Zhao Harcourt LLP", "law", "New York", "New York", 144),
    Person("Nadia El-Sayed", "CEO", "El-Sayed Corporate Counsel", "law", "New York", "New York", 39),
    Person("Oscar Villanueva", "CEO", "Villanueva Trial Lawyers", "law", "Albany", "New York", 22),
    Person("Priya Raghunathan", "CEO", "Raghunathan IP", "law", "New York", "New York", 58),
    Person("Quentin Abernathy", "CEO", "Abernathy Stone LLP", "law", "New York", "New York", 410),
    Person("Rosa Marchetti", "CEO", "Marchetti Family Law", "law", "Buffalo", "New York", 12),
    Person("Samuel Osei", "CEO", "Osei Kingsbury LLP", "law", "New York", "New York", 95),
    Person("Tamar Weissberg", "CEO", "Weissberg & Lowe", "law", "New York", "New York", 67),
    Person("Ulrich Stavenhagen", "CEO", "Stavenhagen Tax Law", "law", "New York", "New York", 29),
    Person("Yusuf Karimi", "CEO", "Karimi Pacific LLP", "law", "San Francisco", "California", 51),
    Person("Jane Doe", "General Counsel", "Acme Corp", "biotech", "New York", "New York", 340),
    Person("Arjun Mehta", "CTO", "Docketly", "SaaS", "San Francisco", "California", 85),
    Person("Bea Lindholm", "CTO", "Clausewise", "SaaS", "Los Angeles", "California", 140),
    Person("Cormac Reilly", "CTO", "Redline Cloud", "SaaS", "San Diego", "California", 62),
    Person("Emil Sandoval", "CTO", "Tinybrief", "SaaS", "San Jose", "California", 12),
    Person("Farah Nasser", "CTO", "Megamatter", "SaaS", "Palo Alto", "California", 900),
    Person("Goran Petrov", "CTO", "Signpost Systems", "SaaS", "New York", "New York", 110),
]
DEALS = [
    Deal("Document automation", "Jane Doe", "Proposal", 48_000),
    Deal("Intake rollout", "Felix Montague", "Proposal", 26_000),
    Deal("Contract review pilot", "Clara Whitcomb", "Discovery", 12_000),
    Deal("Firm-wide licence", "Quentin Abernathy", "Negotiation", 90_000),
]
MATTERS = [
    Matter("Whitcomb v. Harrow Shipping", "Clara Whitcomb", "Discovery"),
    Matter("Acme Corp Series B", "Jane Doe", "Closing"),
]
# The lists that are there from the beginning: id, name, members.
LISTS = [
    ("q1-leads", "Q1 Leads", ["Felix Montague", "Hiro Tanabe", "Clara Whitcomb"]),
    ("legal-tech-expo", "Legal Tech Expo", ["Jane Doe", "Goran Petrov"]),
]


def slug(name: str) -> str:
    """Make the id of something from its name."""
    return "-".join(re.findall(r"\w+", name.lower()))

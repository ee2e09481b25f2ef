"""What is measured and what is aimed at, as data.

A `Work` is run, a `Figure` is one number of it, and an `Aim` is what that number of leadlex's is held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from attrs import evolve, field, frozen

PEERS: Final = ("openai", "anthropic")
BEST_PEER: Final = "the best peer"

Measured = Mapping[str, Mapping[str, Mapping[str, float]]]
"""The median by work, column and measure."""


@frozen
class Run:
    """What a client's process does.

    Args:
        client: By its name in `benchmarks.clients`, or in `benchmarks.imports`.
        api: Which of its APIs.
        job: Another job than the work's.
    """

    client: str
    api: Literal["async", "sync"] = "async"
    job: str | None = None


def _runs(*clients: str, api: Literal["async", "sync"] = "async") -> dict[str, Run]:
    return {client: Run(client, api) for client in clients}


@frozen
class Work:
    """What is run, side by side.

    Args:
        job: What each process does.
        runs: By the name of its column.
        count: How much of it.
        quick: How much for a look.
    """

    job: str
    runs: Mapping[str, Run]
    count: int = 0
    quick: int = 0


WORKS: Final[Mapping[str, Work]] = {
    "async-20": Work("stream_20", _runs("floor", "by hand", *PEERS, "leadlex"), 20_000, 2_000),
    "async-1": Work("stream_1", _runs("floor", "by hand", *PEERS, "leadlex"), 10_000, 2_000),
    "sync-20": Work("stream_20", _runs("by hand", *PEERS, "leadlex", api="sync"), 20_000, 2_000),
    "sync-1": Work("stream_1", _runs("by hand", *PEERS, "leadlex", api="sync"), 10_000, 2_000),
    "json-async": Work("call", _runs("floor", "by hand", *PEERS, "leadlex"), 1_000, 100),
    "json-sync": Work("call", _runs("by hand", *PEERS, "leadlex", api="sync"), 1_000, 100),
    "concurrent": Work("concurrent", _runs("floor", "by hand", *PEERS, "leadlex", "leadlex[aiohttp]"), 1_000, 100),
    "first-token": Work(
        "first_token",
        {**_runs("floor", "by hand", *PEERS, "leadlex"), "leadlex sync": Run("leadlex", "sync")},
        100,
        10,
    ),
    "import": Work("import", _runs("httpx", *PEERS, "leadlex")),
    "first-client": Work("first_client", _runs("httpx", *PEERS, "leadlex")),
    "loaded": Work("loaded", _runs("leadlex")),
    "collect": Work(
        "collect", {"page after page": Run("leadlex", job="pages"), "leadlex": Run("leadlex")}, 10_000, 1_000
    ),
    "million": Work("long_stream", _runs("leadlex"), 1_000_000, 20_000),
    "frames": Work("frames", _runs("leadlex")),
}


@frozen
class Aim:
    """What a number is held against.

    Args:
        sign: Whether it may be no lower or no higher.
        bound: A number, or a factor where there is a base.
        base: The column of the same figure that it is compared with, or `work:column`.
        more: Whether `bound` is added to the base in place of multiplying it.
        column: Whose number.
    """

    sign: Literal["≥", "≤"]
    bound: float
    base: str | None = None
    more: bool = False
    column: str = "leadlex"

    def says(self, unit: str) -> str:
        """Put it into words."""
        if self.base is None:
            return f"{self.sign} {self.bound:g} {unit}".rstrip()
        if self.more:
            return f"{self.sign} {self.bound:g} {unit} more than {self.base}"
        return f"{self.sign} {self.bound:g} × {self.base}"

    def is_reached(self, value: float) -> bool:
        """Tell whether a value, in the aim's own terms, is good enough."""
        return value >= self.bound if self.sign == "≥" else value <= self.bound


@frozen
class Figure:
    """Which number of a work is looked at.

    Args:
        title: What it is called.
        work: Of which work.
        measure: Which of its measures.
        unit: What is counted.
        aims: What leadlex is to reach.
        more_is_better: Whether the highest peer is the best one.
    """

    title: str
    work: str
    measure: str
    unit: str
    aims: tuple[Aim, ...] = field(default=())
    more_is_better: bool = False

    def values(self, measured: Measured) -> dict[str, float]:
        """Take its numbers by column, the best peer's among them, out of all that was measured."""
        columns = measured.get(self.work, {})
        found = {column: values[self.measure] for column, values in columns.items() if self.measure in values}
        peers = [found[peer] for peer in PEERS if peer in found]
        best = max if self.more_is_better else min
        return found | ({BEST_PEER: best(peers)} if peers else {})

    def outcome(self, aim: Aim, measured: Measured) -> float | None:
        """Return its value in an aim's own terms; None where something was not measured."""
        values = self.values(measured)
        value, base = values.get(aim.column), self._base(aim, measured)
        if value is None or base is None:
            return None
        return value - base if aim.more or aim.base is None else value / base

    def _base(self, aim: Aim, measured: Measured) -> float | None:
        if aim.base is None:
            return 0.0
        work, _, column = aim.base.rpartition(":")
        return evolve(self, work=work or self.work).values(measured).get(column)


def _rate(title: str, work: str, *aims: Aim) -> Figure:
    return Figure(title, work, "rate", "thousand/s", aims, more_is_better=True)


def _time(title: str, work: str, unit: str, *aims: Aim) -> Figure:
    return Figure(title, work, "time", unit, aims)


FIGURES: Final = (
    _rate("async stream, 20 events a chunk", "async-20", Aim("≥", 3, BEST_PEER), Aim("≥", 0.6, "by hand")),
    _rate("async stream, 1 event a chunk", "async-1", Aim("≥", 1.3, BEST_PEER), Aim("≥", 0.8, "by hand")),
    _rate("sync stream, 20 events a chunk", "sync-20", Aim("≥", 1.5, BEST_PEER), Aim("≥", 0.6, "async-20:leadlex")),
    _rate("sync stream, 1 event a chunk", "sync-1", Aim("≥", 1.5, BEST_PEER), Aim("≥", 0.6, "async-1:leadlex")),
    _time("one JSON call, async", "json-async", "µs", Aim("≤", 1.3, "by hand"), Aim("≤", 1, BEST_PEER)),
    _time("one JSON call, sync", "json-sync", "µs", Aim("≤", 1, BEST_PEER)),
    _time(
        "1,000 concurrent streams",
        "concurrent",
        "s",
        Aim("≤", 0.6, BEST_PEER),
        Aim("≤", 0.4, BEST_PEER, column="leadlex[aiohttp]"),
    ),
    Figure("memory of 1,000 concurrent streams", "concurrent", "memory", "MiB"),
    _time(
        "first token after it was sent",
        "first-token",
        "ms",
        Aim("≤", 2, "floor", more=True),
        Aim("≤", 3, "floor", more=True, column="leadlex sync"),
    ),
    _time("import", "import", "ms", Aim("≤", 25), Aim("≤", 0.1, BEST_PEER)),
    _time("import and first client", "first-client", "ms", Aim("≤", 1.35, "httpx")),
    Figure("modules that a first call loads", "loaded", "late", "", (Aim("≤", 0),)),
    Figure("extras loaded before their use", "loaded", "extras", "", (Aim("≤", 0),)),
    _rate("10,000 conversations, 25 ms a page", "collect", Aim("≥", 4, "page after page")),
    # A little less than 1 is the noise of a tenth of a second.
    Figure("1,000,000 events: the last tenth", "million", "last tenth", "× the first", (Aim("≥", 0.9),)),
    Figure("1,000,000 events: memory", "million", "memory", "MiB", (Aim("≤", 64),)),
    Figure("own coroutines of a chat", "frames", "waiting in a chat", "", (Aim("≤", 14),)),
    Figure("own coroutines of an event", "frames", "waiting in an event", "", (Aim("≤", 1),)),
    Figure("deepest stack of own frames, a chat", "frames", "depth of a chat", "", (Aim("≤", 11),)),
    Figure("deepest stack of own frames, an event", "frames", "depth of an event", "", (Aim("≤", 5),)),
)

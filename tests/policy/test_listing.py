"""Listings whose rows leave and come while they are read: none that stays is missed, or it is said that some may be."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, field

from leadlex import ConversationSummary, Page, PaginationError
from leadlex._policy.listing import Listing
from tests.matrix.oracles import AT_ONCE
from tests.matrix.test_h_pages import WAYS, Read, way
from tests.support.answers import error_answer, json_answer
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import Runner
from tests.support.server import Connection, ScriptedServer

__all__ = ["way"]


@define
class Moving:
    """A listing on a server whose rows move before an answer.

    Args:
        rows: The rows, the latest first.
        move: Moves them; gets the listing, the number of the page and how many were asked for before.
        says_total: Whether answers tell the total.
        refuse: The number of the request that is refused.
    """

    rows: list[int]
    move: Callable[[Moving, int, int], object] = lambda *_: None
    says_total: bool = True
    refuse: int | None = None
    asked: list[int] = field(factory=list[int])
    stayed: set[int] = field(factory=set[int])
    lock: Any = field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.stayed = {*self.rows}

    def leave(self, *rows: int) -> None:
        """Take rows away."""
        self.rows = [row for row in self.rows if row not in rows]
        self.stayed -= {*rows}

    def come(self, *rows: int) -> None:
        """Put new rows, or moved ones, at the front."""
        self.leave(*rows)
        self.rows = [*rows, *self.rows]

    def __call__(self, connection: Connection) -> None:
        """Answer the requests of one connection."""
        while not connection.closed:
            query = connection.receive_request().query
            with self.lock:
                answer = self._answer(int(query["page"]), int(query["per_page"]))
            connection.send(answer)

    def _answer(self, page: int, size: int) -> bytes:
        self.move(self, page, len(self.asked))
        self.asked.append(page)
        if len(self.asked) == self.refuse:
            return error_answer(403, "insufficient_permissions")
        found = [{"id": f"conv_{row}"} for row in self.rows[(page - 1) * size : page * size]]
        meta = {"page": page, "per_page": size, **({"total": len(self.rows)} if self.says_total else {})}
        return json_answer(200, {"data": {"conversations": found}, "meta": meta})


def read(runner: Runner, moving: Moving, way: str, **options: Any) -> tuple[list[int], bool]:
    """Read a listing in one way; give what it handed out, and whether it says that rows may be missing."""
    seen, pagers = Read(), list[Any]()

    async def scenario(lexi: Any) -> None:
        pager = lexi.conversations(**options)
        pagers.append(pager)
        assert not pager.may_be_incomplete
        await WAYS[way](pager, seen)

    with ScriptedServer(moving) as server, no_leaks(), must_not_hang():
        runner.run(scenario, base_url=server.url, retries=AT_ONCE)
    assert len({*seen.ids}) == len(seen.ids)
    return seen.ids, getattr(pagers[0], "_value", pagers[0]).may_be_incomplete


def once(page: int, change: Callable[[Moving], object]) -> Callable[[Moving, int, int], None]:
    """Change a listing when a page of it is first asked for."""

    def move(moving: Moving, asked: int, _: int) -> None:
        if asked == page and page not in moving.asked:
            change(moving)

    return move


def test_rows_that_leave(runner: Runner, way: str) -> None:
    """Three rows of the first page leave while the second is asked for: all others come, in twice the pages at most."""
    moving = Moving([*range(250)], once(2, lambda listing: listing.leave(5, 6, 7)))
    ids, incomplete = read(runner, moving, way)
    assert (moving.stayed - {*ids}, incomplete) == (set(), False)
    assert len(moving.asked) <= 6


def test_a_page_and_more_that_leave(runner: Runner, way: str) -> None:
    """More rows leave than a page has: it is gone back as far as needed."""
    moving = Moving([*range(100)], once(5, lambda listing: listing.leave(*range(25))))
    ids, incomplete = read(runner, moving, way, per_page=10)
    assert (moving.stayed - {*ids}, incomplete) == (set(), False)
    assert len(moving.asked) <= 20


def test_all_that_leave(runner: Runner, way: str) -> None:
    """A listing that is emptied while it is read ends, and without a page 1 to read again."""
    moving = Moving([*range(30)], once(2, lambda listing: listing.leave(*range(30))))
    ids, incomplete = read(runner, moving, way, per_page=10)
    assert (ids, incomplete) == ([*range(10)], False)


def test_rows_that_leave_behind(runner: Runner, way: str) -> None:
    """Rows that leave further on cost two requests, and nothing else."""
    moving = Moving([*range(100)], once(2, lambda listing: listing.leave(98, 99)))
    ids, incomplete = read(runner, moving, way, per_page=20)
    assert ({*ids} - {98, 99}, incomplete) == ({*range(98)}, False)
    assert len(moving.asked) <= 10


def test_rows_that_come(runner: Runner, way: str) -> None:
    """What comes at the front meanwhile is handed out at the end, once, up to the row where the old ones begin."""
    moving = Moving([*range(50)], once(3, lambda listing: listing.come(*range(100, 125))))
    ids, incomplete = read(runner, moving, way, per_page=10)
    assert ({*ids}, incomplete) == ({*range(50), *range(100, 125)}, False)


def test_rows_that_come_at_the_end(runner: Runner, way: str) -> None:
    """So is what comes while the last page is read, whether or not the answers tell a total."""
    for says_total in (True, False):
        moving = Moving([*range(25)], once(3, lambda listing: listing.come(100, 101)), says_total=says_total)
        ids, incomplete = read(runner, moving, way, per_page=10)
        assert ({*ids}, incomplete) == ({*range(25), 100, 101}, False)


def test_a_row_that_moves_to_the_front(runner: Runner, way: str) -> None:
    """A row that is written to, and so passes the reader, is found at the end, though `total` stays."""
    moving = Moving([*range(50)], once(3, lambda listing: listing.come(45)))
    ids, incomplete = read(runner, moving, way, per_page=10)
    assert ({*ids}, incomplete) == ({*range(50)}, False)


def test_it_is_not_asked_where_it_need_not_be(runner: Runner) -> None:
    """Page 1 is not read again after one page, after a limit, after the first page alone, or from a later page on."""

    async def scenario(lexi: Any) -> None:
        assert len([row async for row in lexi.conversations()]) == 30
        assert len(await lexi.conversations(per_page=10).collect(limit=30)) == 30
        assert len(await lexi.conversations(per_page=10).collect(limit=50)) == 30
        assert len((await lexi.conversations(per_page=10).first_page()).items) == 10
        assert len([row async for row in lexi.conversations(per_page=10, page=2)]) == 20

    moving = Moving([*range(30)])
    with ScriptedServer(moving) as server, no_leaks():
        runner.run(scenario, base_url=server.url)
    assert sorted(moving.asked) == sorted([1, *[1, 2, 3] * 2, 1, 2, 3])


def test_rows_leave_from_a_later_page(runner: Runner, way: str) -> None:
    """A reading that began at a later page goes back no further, and says where rows may be on the one before."""
    moving = Moving([*range(60)], once(4, lambda listing: listing.leave(21, 22)))
    ids, incomplete = read(runner, moving, way, per_page=10, page=3)
    assert ({*range(20, 60)} & moving.stayed <= {*ids}, incomplete) == (True, False)
    moving = Moving([*range(60)], once(4, lambda listing: listing.leave(*range(12, 30))))
    ids, incomplete = read(runner, moving, way, per_page=10, page=3)
    assert incomplete == (way != "collect")


def test_it_moves_too_fast(runner: Runner, way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where rows leave before each answer, more pages would have to be read again than may be: it is said, once."""

    def move(listing: Moving, page: int, _: int) -> None:
        if page > 1:
            listing.leave(*listing.rows[:1])

    ids, incomplete = read(runner, Moving([*range(60)], move), way, per_page=10)
    assert incomplete
    assert ids
    assert caplog.messages.count("incomplete operation=conversations") == 1
    assert all(each.levelno == logging.WARNING for each in caplog.records if "incomplete" in each.message)


def test_more_comes_than_may_be_read(runner: Runner, way: str) -> None:
    """New rows that fill more pages than may be read again are not followed to their end, and that is said."""

    def move(listing: Moving, _: int, number: int) -> None:
        if number == 3:  # the last look
            listing.come(*range(100, 200))

    moving = Moving([*range(20)], move, says_total=False)
    ids, incomplete = read(runner, moving, way, per_page=10)
    assert {*range(20)} <= {*ids}
    assert incomplete


def test_the_last_look_fails(runner: Runner, way: str) -> None:
    """Where page 1 can't be had again nothing is lost: what was read is handed out, and it is said."""
    moving = Moving([*range(30)], refuse=4)
    assert read(runner, moving, way, per_page=10) == ([*range(30)], True)


def test_it_is_told_of_the_last_reading(runner: Runner) -> None:
    """A pager that is read again tells of that reading."""

    async def scenario(lexi: Any) -> None:
        pager = lexi.conversations(per_page=10)
        assert len(await pager.collect()) == 30
        assert pager.may_be_incomplete
        assert len(await pager.collect()) == 30
        assert not pager.may_be_incomplete

    moving = Moving([*range(30)], refuse=4)
    with ScriptedServer(moving) as server, no_leaks():
        runner.run(scenario, base_url=server.url, retries=0)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_moves(runner: Runner, way: str, seed: int) -> None:
    """Rows leave anywhere and come at the front: none that stayed is missing, or it is said that one may be."""
    chance = random.Random(seed)  # noqa: S311  # not for secrets
    moving = Moving([*range(chance.randint(0, 60))], _at_random(chance))
    try:
        ids, incomplete = read(runner, moving, way, per_page=chance.randint(3, 9))
    except PaginationError:
        return  # nothing new twice in a row, which is said too
    assert incomplete or moving.stayed <= {*ids}


def _at_random(chance: random.Random) -> Callable[[Moving, int, int], None]:
    names = iter(range(1000, 100_000))

    def move(listing: Moving, _: int, __: int) -> None:
        for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 4])):
            if listing.rows and chance.random() < 0.6:
                listing.leave(listing.rows[chance.choice([0, chance.randrange(len(listing.rows))])])
            else:
                listing.come(next(names))

    return move


@pytest.mark.parametrize("side_by_side", [False, True])
def test_whatever_moves_in_memory(side_by_side: bool) -> None:  # noqa: FBT001
    """So it is in 3,000 more listings, which are read no more than twice, in whatever order answers come."""
    for seed in range(3000):
        chance = random.Random(seed)  # noqa: S311
        moving = Moving([*range(chance.randint(0, 40))])
        moving.move = _at_random(chance)
        _read_in_memory(moving, chance, size=chance.randint(1, 6), side_by_side=side_by_side)


def _read_in_memory(moving: Moving, chance: random.Random, *, size: int, side_by_side: bool) -> None:
    order = Listing[ConversationSummary](1, side_by_side=side_by_side, to_end=True)
    ids, most, fetched = list[str](), 1, dict[int, Page[ConversationSummary]]()
    while order.next is not None:
        if order.next not in fetched:
            for number in _wave(order, order.next, chance):
                order.count(number)
                moving.move(moving, number, 0)
                moving.asked.append(number)
                most = max(most, number, -(-len(moving.rows) // size))
                fetched[number] = _page(moving.rows, number, size)
        try:
            ids += [row.id for row in order.take(fetched.pop(order.next)).items]
        except PaginationError:
            return
        if not order.side_by_side:
            fetched.clear()
    assert len({*ids}) == len(ids)
    assert len(moving.asked) <= 2 * most
    assert order.may_be_incomplete or {str(row) for row in moving.stayed} <= {*ids}


def _wave(order: Listing[Any], number: int, chance: random.Random) -> Sequence[int]:
    last = order.last
    if not order.side_by_side or order.was_read or last is None or last.total is None or last.per_page is None:
        return [number]
    wave = range(number, max(number + 1, min(number + 8, -(-last.total // last.per_page) + 1)))
    return chance.sample(wave, len(wave))


def _page(rows: list[int], number: int, size: int) -> Page[ConversationSummary]:
    found = tuple(ConversationSummary(id=str(row)) for row in rows[(number - 1) * size : number * size])
    return Page(items=found, page=number, per_page=size, total=len(rows))

"""Table H of the fault matrix: listings that move, repeat themselves, lie about their length or break off."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from leadlex import ConfigurationError, LeadLexError, PaginationError, RateLimitError, ServerError
from tests.matrix.oracles import AT_ONCE, check_secrets
from tests.support.answers import error_answer, json_answer
from tests.support.journal import Request
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import Runner
from tests.support.server import Connection, ScriptedServer
from tests.support.times import TimedRunner, Turned

Rows = list[dict[str, Any]]


def rows(*numbers: int) -> Rows:
    """Make conversations."""
    return [{"id": f"conv_{number}"} for number in numbers]


class Listing:
    """A listing on a server.

    Args:
        pages: Gives the rows of a page, from 1, of a size, at the n-th request.
        total: What the answers say of the total; None leaves it out.
        most: The most rows that a page has.
        refuse: Gives an error to answer a page with, or nothing.
        meta: What the answers say besides.
    """

    def __init__(
        self,
        pages: Callable[[int, int, int], Rows],
        *,
        total: Any = None,
        most: int = 100,
        refuse: Callable[[int, int], bytes | None] = lambda page, number: None,  # noqa: ARG005  # never
        meta: dict[str, object] | None = None,
    ) -> None:
        self._pages = pages
        self.total = total
        self._most = most
        self._refuse = refuse
        self._meta = meta or {}
        self.asked: list[int] = []

    def __call__(self, connection: Connection) -> None:
        """Answer the requests of one connection."""
        while not connection.closed:
            connection.send(self._answer(connection.receive_request()))

    def _answer(self, request: Request) -> bytes:
        page, size = int(request.query["page"]), min(self._most, int(request.query["per_page"]))
        self.asked.append(page)
        refusal = self._refuse(page, len(self.asked))
        if refusal is not None:
            return refusal
        found = self._pages(page, size, len(self.asked))
        total = self.total(page) if callable(self.total) else self.total
        meta = {"page": page, "per_page": size, "total": total, **self._meta}
        return json_answer(200, {"data": {"conversations": found}, "meta": meta})


def stable(count: int) -> Callable[[int, int, int], Rows]:
    """Give the pages of a listing that does not change."""
    return lambda page, size, _: rows(*range(1, count + 1))[(page - 1) * size : page * size]


class Read:
    """What came out of a listing."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.error: LeadLexError | None = None


async def _by_item(pager: Any, seen: Read) -> None:
    async for item in pager:
        seen.ids.append(int(item.id[5:]))


async def _by_page(pager: Any, seen: Read) -> None:
    async for page in pager.pages():
        seen.ids += [int(item.id[5:]) for item in page.items]


async def _at_once(pager: Any, seen: Read) -> None:
    seen.ids += [int(item.id[5:]) for item in await pager.collect()]


WAYS = {"items": _by_item, "pages": _by_page, "collect": _at_once}


def read(runner: Runner, listing: Listing, way: str = "items", **options: Any) -> Read:
    """Read a listing to whatever end it has, and check what holds whatever comes."""
    seen = Read()

    async def scenario(lexi: Any) -> None:
        try:
            await WAYS[way](lexi.conversations(**options), seen)
        except LeadLexError as error:
            seen.error = error

    with ScriptedServer(listing) as server, no_leaks(), must_not_hang():
        TimedRunner(runner, Turned()).run(scenario, base_url=server.url, retries=AT_ONCE)
    assert len(set(seen.ids)) == len(seen.ids)
    check_secrets([], seen.error)
    assert seen.error is None or seen.error.charged == "no"
    return seen


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Give each way to read a listing."""
    return str(request.param)


@pytest.mark.row("H01")
def test_inserted(runner: Runner, way: str) -> None:
    """A row that comes in at the front between two pages shifts the others; no id is handed out twice."""

    def pages(page: int, size: int, number: int) -> Rows:
        return rows(*range(1 - number, 21))[(page - 1) * size : page * size]

    listing = Listing(pages)
    listing.total = _growing(listing)
    seen = read(runner, listing, way, per_page=5)
    assert seen.error is None
    assert seen.ids[:5] == [0, 1, 2, 3, 4]
    assert set(range(1, 21)) <= set(seen.ids)


def _growing(listing: Listing) -> Callable[[int], int]:
    def total(_: int) -> int:
        return 20 + len(listing.asked)

    return total


@pytest.mark.row("H02")
def test_deleted(runner: Runner, way: str) -> None:
    """A row that goes between two pages hides another one, which nobody can see; what is there is handed out."""

    def pages(page: int, size: int, number: int) -> Rows:
        return rows(*range(number, 21))[(page - 1) * size : page * size]

    seen = read(runner, Listing(pages, total=20), way, per_page=5)
    assert seen.error is None
    assert seen.ids[:6] == [1, 2, 3, 4, 5, 7] or way == "collect"


@pytest.mark.row("H03")
@pytest.mark.parametrize("total", [None, 250, 10**18])
def test_repeated(runner: Runner, way: str, total: int | None) -> None:
    """A service that sends one page for ever is found out after two pages without a new id."""
    listing = Listing(lambda _, __, ___: rows(1, 2, 3), total=total, meta={"per_page": 3})
    seen = read(runner, listing, way, per_page=3)
    assert isinstance(seen.error, PaginationError)
    assert seen.error.next_page == 3
    assert seen.error.meta is not None
    assert seen.ids == ([] if way == "collect" else [1, 2, 3])
    assert sorted(set(listing.asked))[:3] == [1, 2, 3]
    assert len(listing.asked) <= 3 + 8 * (way == "collect")


@pytest.mark.row("H03")
def test_repeated_once(runner: Runner, way: str) -> None:
    """One page without a new id may happen, and is passed over."""

    def pages(page: int, size: int, number: int) -> Rows:
        return {1: rows(1, 2), 2: rows(1, 2), 3: rows(3, 4)}.get(page, [])

    assert read(runner, Listing(pages, meta={"per_page": 2}), way, per_page=2).ids == [1, 2, 3, 4]


@pytest.mark.row("H04")
@pytest.mark.parametrize("total", [None, 100])
def test_capped(runner: Runner, way: str, total: int | None) -> None:
    """Where the service sends smaller pages than asked for, the listing goes by those."""
    listing = Listing(stable(100), most=40, total=total)
    assert read(runner, listing, way).ids == list(range(1, 101))
    assert sorted(listing.asked) == [1, 1, 2, 3]


@pytest.mark.row("H05")
@pytest.mark.parametrize("total", [None, 50, 10**6])
def test_empty(runner: Runner, total: int | None) -> None:
    """An empty page ends a listing, before its end as behind it."""
    listing = Listing(stable(20), total=total)
    assert read(runner, listing, per_page=10).ids == list(range(1, 21))
    assert listing.asked == [1, 2, 3, 1]
    listing = Listing(stable(20), total=total)
    assert read(runner, listing, per_page=10, page=9).ids == []
    assert listing.asked == [9]


def _shrunk(page: int) -> int:
    return 250 if page == 1 else 0


@pytest.mark.row("H06")
@pytest.mark.parametrize("total", [None, -1, "250", 10**18, 2.5, [], "shrinks"])
def test_odd_totals(runner: Runner, way: str, total: object) -> None:
    """A total that is missing, absurd or shrinks to nothing is a hint that is not followed: all rows come."""
    listing = Listing(stable(250), total=_shrunk if total == "shrinks" else total)
    assert read(runner, listing, way).ids == list(range(1, 251))
    assert len(listing.asked) <= 5 + 8 * (way == "collect")


@pytest.mark.row("H06")
@pytest.mark.parametrize("told", [250, 300])
def test_far_more_than_was_told(runner: Runner, way: str, told: int) -> None:
    """More than twice the largest total and 1,000 rows are an error that tells where to go on, never a quiet end."""
    listing = Listing(stable(2000), total={1: 120, 2: told}.get)
    seen = read(runner, listing, way)
    assert isinstance(seen.error, PaginationError)
    assert f"far beyond the {told} rows" in str(seen.error)
    assert seen.ids == ([] if way == "collect" else list(range(1, 2 * told + 1001)))
    pages = (2 * told + 1000) // 100 + 1
    assert seen.error.next_page == pages
    assert len(listing.asked) == pages + 2 * (way == "collect")  # which begins again where a total changes


@pytest.mark.row("H06")
@pytest.mark.parametrize("told", [None, 7])
def test_no_usable_total(runner: Runner, way: str, told: int | None) -> None:
    """Without a total that can be believed a listing is read for as long as it has something new."""
    listing = Listing(stable(2000), total=lambda page: told if page == 1 else None)
    assert read(runner, listing, way).ids == list(range(1, 2001))


@pytest.mark.row("H07")
def test_broken(runner: Runner, way: str) -> None:
    """A page that can't be had comes as an error behind the items before it, and tells where to go on."""
    broken = error_answer(500, "internal_error")
    listing = Listing(stable(70), total=70, refuse=lambda page, _: broken if page == 7 else None)
    seen = read(runner, listing, way, per_page=10)
    assert isinstance(seen.error, ServerError)
    assert seen.error.next_page == 7
    assert seen.ids == ([] if way == "collect" else list(range(1, 61)))
    assert listing.asked.count(7) == 3


@pytest.mark.row("H07")
def test_first_page(runner: Runner) -> None:
    """So does the first page alone, wherever it is."""
    listing = Listing(stable(70), refuse=lambda _, number: error_answer(500, "internal_error") if number < 2 else None)

    async def scenario(lexi: Any) -> None:
        pager = lexi.conversations(per_page=10, page=3)
        with pytest.raises(ServerError) as info:
            await pager.first_page()
        assert info.value.next_page == 3
        page = await pager.first_page()
        assert (page.page, page.per_page, page.total, page.meta.status_code) == (3, 10, None, 200)
        assert [item.id for item in page.items] == [item["id"] for item in rows(*range(21, 31))]

    with ScriptedServer(listing) as server, no_leaks():
        runner.run(scenario, base_url=server.url, retries=0)


@pytest.mark.row("H07")
def test_going_on(runner: Runner) -> None:
    """After an error the same iterator asks for that page again, and `page=` begins there."""
    broken = error_answer(500, "internal_error")
    listing = Listing(stable(70), total=70, refuse=lambda page, number: broken if page == 7 and number < 8 else None)

    async def scenario(lexi: Any) -> None:
        items, ids = aiter(lexi.conversations(per_page=10)), list[str]()

        async def read_on() -> None:
            async for item in items:
                ids.append(item.id)

        with pytest.raises(ServerError) as info:
            await read_on()
        assert len(ids) == 60
        await read_on()
        assert [*map(int, (id_[5:] for id_ in ids))] == list(range(1, 71))
        rest = await lexi.conversations(per_page=10, page=info.value.next_page).collect()
        assert [item.id for item in rest] == ids[60:]

    with ScriptedServer(listing) as server, no_leaks():
        runner.run(scenario, base_url=server.url, retries=0)


@pytest.mark.row("H08")
def test_quota(runner: Runner, way: str) -> None:
    """A quota that is renewed in hours ends a listing at once, and its place is kept."""
    body = {"error": {"code": "rate_limited", "message": "Rate limit exceeded"}}
    refusal = json_answer(429, body, {"Retry-After": "20000"})
    listing = Listing(stable(50), total=50, refuse=lambda page, _: refusal if page == 3 else None)
    seen = read(runner, listing, way, per_page=10)
    assert isinstance(seen.error, RateLimitError)
    assert (seen.error.next_page, seen.error.retry_after) == (3, 20000)
    assert seen.ids == ([] if way == "collect" else list(range(1, 21)))
    assert listing.asked.count(3) == 1


@pytest.mark.row("H09")
@pytest.mark.parametrize(
    "meta",
    [
        {"page": 1.0},
        {"page": "2"},
        {"page": None, "per_page": "10"},
        {"per_page": 10.0},
        {"per_page": 7},
        {"per_page": 0},
        {"per_page": 10**9},
    ],
)
def test_odd_numbers(runner: Runner, way: str, meta: dict[str, object]) -> None:
    """Odd page numbers and sizes in the answers change nothing."""
    listing = Listing(stable(30), total=30, meta=meta)
    assert read(runner, listing, way, per_page=10).ids == list(range(1, 31))


@pytest.mark.row("H09")
@pytest.mark.parametrize("meta", [b"", b', "meta": null', b', "meta": [1]', b', "meta": "x"'])
def test_no_meta(runner: Runner, meta: bytes) -> None:
    """A page without any account of itself is one all the same."""

    def script(connection: Connection) -> None:
        while not connection.closed:
            page = int(connection.receive_request().query["page"])
            found = json.dumps(rows(page) if page < 4 else []).encode()
            connection.send(json_answer(200, b'{"data": {"conversations": %b}%b}' % (found, meta)))

    async def scenario(lexi: Any) -> None:
        assert [item.id async for item in lexi.conversations()] == ["conv_1", "conv_2", "conv_3"]

    with ScriptedServer(script) as server, no_leaks(), must_not_hang():
        runner.run(scenario, base_url=server.url)


@pytest.mark.row("H09")
def test_unread_account(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """What a page tells of itself and can't be read is kept as sent, beside what the contract does not name."""
    accounts: list[Any] = [{"per_page": 0, "total": "27", "page": 1, "cursor": "c"}, [1], None]

    def script(connection: Connection) -> None:
        while not connection.closed:
            page = int(connection.receive_request().query["page"])
            body = {"data": {"conversations": rows(page)}, "meta": accounts[page - 1]}
            connection.send(json_answer(200, body))

    async def scenario(lexi: Any) -> None:
        pages = [await lexi.conversations(page=number).first_page() for number in (1, 2, 3)]
        assert [(page.per_page, page.total) for page in pages] == [(None, None)] * 3
        assert pages[0].extra == {"per_page": 0, "total": "27", "cursor": "c"}
        assert [page.extra for page in pages[1:]] == [{"meta": [1]}, {}]

    with ScriptedServer(script) as server, no_leaks(), must_not_hang():
        runner.run(scenario, base_url=server.url)
    told = [each for each in caplog.messages if each.startswith("ignored")]
    assert told == ["ignored field=per_page", "ignored field=total", "ignored field=meta"]


@pytest.mark.row("H10")
@pytest.mark.parametrize(
    "options",
    [
        *({"per_page": value} for value in (0, -1, 101, 10**9, 10**5000, True, "10", 2.0, None)),
        *({"page": value} for value in (0, -1, True, "1", 1.5, 10**30, None)),
    ],
    ids=lambda options: f"{next(iter(options))}",
)
def test_refused(runner: Runner, options: dict[str, Any]) -> None:
    """Page numbers and sizes that no service has are refused at the call; nothing is sent."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            lexi.conversations(**options)

    with ScriptedServer(Listing(stable(1))) as server, no_leaks():
        runner.run(scenario, base_url=server.url)
        assert server.connections == 0

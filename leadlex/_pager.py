"""Listings, page after page.

Rule: no id is handed out twice, `total` is only a hint, and a listing that makes no progress, or goes on far beyond
what it told, is an error.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import anyio
from attrs import evolve

from ._config import MAX_COLLECTED, whole
from ._errors import LeadLexError, PaginationError
from ._network.transport import Transport
from ._protocol.endpoints import at_page
from ._protocol.operation import Operation
from ._values.models import Page


class HasId(Protocol):
    """An item of a listing."""

    @property
    def id(self) -> str:
        """Give what tells it from the others."""
        ...


T = TypeVar("T", bound=HasId)

SIDE_BY_SIDE: Final = 8

GROWTH: Final = 1000
"""Rows that a listing may grow by while it is read, beyond twice what it told: the ids are kept, and so bounded."""

B = TypeVar("B")


class Batched(AsyncIterator[B]):
    """An iterator of single items, which also gives at once all that one answer brought."""

    @abstractmethod
    async def next_batch(self) -> Sequence[B]:
        """Return the next items; none at the end."""


class AsyncPager(Generic[T]):
    """All items of a listing; each iteration starts again.

    Nothing is sent before it is first used.

    Args:
        transport: What sends.
        listing: What is sent for the first page.
        first: The number of that page, from 1.

    Raises:
        PaginationError: The service repeats itself, or sends far more than the total it told.
        LeadLexError: Any error of the API; `next_page` tells where to go on.

    Example:
        async for conversation in lexi.conversations(search="acme"):
            print(conversation.title)

    Source: `GET /v1/lexi/conversations`.
    """

    def __init__(self, transport: Transport, listing: Operation[Page[T]], first: int) -> None:
        self._transport = transport
        self._listing = listing
        self._first = first

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from page {self._first}>"

    def __aiter__(self) -> Batched[T]:
        return _Items(_Pages(self._transport, self._listing, self._first))

    def pages(self) -> Batched[Page[T]]:
        """Iterate over the pages.

        Example:
            async for page in lexi.conversations().pages():
                print(page.page, len(page.items), page.total)
        """
        return _Pages(self._transport, self._listing, self._first)

    async def first_page(self) -> Page[T]:
        """Return the first page alone.

        Example:
            page = await lexi.conversations(per_page=10).first_page()
            print(page.total)
        """
        return await _Pages(self._transport, self._listing, self._first).page(self._first)

    async def collect(self, limit: int | None = None) -> list[T]:
        """Return the items as a list, asking for up to 8 pages side by side.

        Args:
            limit: How many at most; only the pages needed are asked for, and never more than the quota has left.

        Example:
            newest = await lexi.conversations().collect(limit=20)
        """
        most = None if limit is None else whole(limit, "limit", 1, MAX_COLLECTED)
        items = list[T]()
        async for page in _Pages(self._transport, self._listing, self._first, SIDE_BY_SIDE, most):
            items += page.items
            if most is not None and len(items) >= most:
                return items[:most]
        return items


class _Pages(Batched[Page[T]]):
    """The pages one after the other; a class, since a generator left early would need closing.

    Args:
        transport: What sends.
        listing: What is sent for a page.
        first: The number of the first page.
        ahead: How many pages may be asked for at once.
        limit: How many items are wanted.
    """

    def __init__(
        self, transport: Transport, listing: Operation[Page[T]], first: int, ahead: int = 1, limit: int | None = None
    ) -> None:
        self._transport = transport
        self._listing = listing
        self._progress = Progress[T]()
        self._first = self._next = first
        self._ahead = ahead
        self._limit = limit
        self._last: Page[T] | None = None
        self._fetched: dict[int, Page[T] | LeadLexError] = {}

    async def __anext__(self) -> Page[T]:
        for page in await self.next_batch():
            return page
        raise StopAsyncIteration

    async def next_batch(self) -> Sequence[Page[T]]:
        """Return the next page that has something new; none at the end."""
        while not self._progress.ended:
            page = self._progress.take(await self.page(self._next))
            self._note_moves(page)
            self._next += 1
            if page.items:
                return [page]
        return []

    def _note_moves(self, page: Page[T]) -> None:
        """Go on page by page where rows moved: of pages asked for at once, a later one may be the older one."""
        if self._last is not None and page.total != self._last.total:
            self._fetched.clear()
            self._ahead = 1
        self._last = page

    async def page(self, number: int) -> Page[T]:
        """Return one page, whole; ask for some behind it where they are surely needed."""
        if number not in self._fetched:
            async with anyio.create_task_group() as group:
                for each in range(number, number + self._wave()):
                    group.start_soon(self._fetch, each)
        page = self._fetched.pop(number)
        if isinstance(page, LeadLexError):
            page.next_page = number
            raise page
        return page

    async def _fetch(self, number: int) -> None:
        try:
            page = await self._transport.send(at_page(self._listing, number))
        except LeadLexError as error:
            self._fetched[number] = error
        else:
            self._fetched[number] = page

    def _wave(self) -> int:
        """Count the pages to ask for at once: those that are surely needed, and no more than the quota has left."""
        last, quota = self._last, self._transport.seen.rate_limit
        if last is None or last.per_page is None or last.total is None:
            return 1
        wanted = last.total if self._limit is None else min(last.total, self._limit + (self._first - 1) * last.per_page)
        needed = -(-wanted // last.per_page) - self._next + 1
        left = self._ahead if quota is None or quota.remaining is None else quota.remaining
        return max(1, min(self._ahead, needed, left))


class Progress(Generic[T]):
    """What decides which rows of a page are new, and whether it was the last one."""

    def __init__(self) -> None:
        self._ids = set[str]()
        self._told: int | None = None
        self._rows: int | None = None
        self._stale = 0
        self.ended = False

    def take(self, page: Page[T]) -> Page[T]:
        """Return the page without what was handed out before.

        Raises:
            PaginationError: Two pages in a row had nothing new, or there is far more than was told.
        """
        fresh = self._fresh(page.items)
        self._check_amount(page, len(fresh))
        self._ids.update(fresh)
        if self._rows is None:
            # A listing that begins at page 7 has not seen the rows before it, but they count in the total.
            self._rows = (page.page - 1) * (page.per_page or 0)
        self._rows += len(page.items)
        self.ended = self._is_last(page)
        self._stale = 0 if fresh else self._stale + 1
        if self._stale > 1 and not self.ended:
            raise _stopped(page, f"Page {page.page} repeats what came before, as the page before it did.")
        return evolve(page, items=tuple(fresh.values()))

    def _fresh(self, items: Iterable[T]) -> dict[str, T]:
        fresh = dict[str, T]()
        for item in items:
            if item.id not in self._ids:
                fresh.setdefault(item.id, item)
        return fresh

    def _check_amount(self, page: Page[T], more: int) -> None:
        """Refuse rows without end; a service that tells no usable total is read for as long as it has new ones."""
        total = _usable_total(page)
        if total is not None:
            self._told = max(total, self._told or 0)
        if self._told is not None and len(self._ids) + more > 2 * self._told + GROWTH:
            told = f"The listing goes on at page {page.page}, far beyond the {self._told} rows that LeadLex told."
            raise _stopped(page, told)

    def _is_last(self, page: Page[T]) -> bool:
        if not page.items:
            return True
        total = _usable_total(page)
        if total is not None:
            return (self._rows or 0) >= total
        return page.per_page is not None and len(page.items) < page.per_page


def _usable_total(page: Page[T]) -> int | None:
    # A total below what this very page holds is no total.
    return page.total if page.total is not None and page.total >= len(page.items) else None


def _stopped(page: Page[T], why: str) -> PaginationError:
    error = PaginationError(why)
    error.next_page, error.meta = page.page, page.meta
    return error


class _Items(Batched[T]):
    """The items of pages."""

    def __init__(self, pages: _Pages[T]) -> None:
        self._pages = pages
        self._left: list[T] = []

    async def __anext__(self) -> T:
        if not self._left:
            self._left = list(reversed(await self.next_batch()))
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    async def next_batch(self) -> Sequence[T]:
        """Return the items of the next page; none at the end."""
        return [item for page in await self._pages.next_batch() for item in page.items]

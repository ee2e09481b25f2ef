"""Listings, page after page.

Rule: which page is asked for, and what of it is new, is decided in `_policy/listing.py`; here it is sent.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Generic, TypeVar

import anyio

from ._config import MAX_COLLECTED, whole
from ._errors import LeadLexError
from ._logging import record
from ._network.transport import Transport
from ._policy.listing import Listing, T
from ._protocol.endpoints import at_page
from ._protocol.operation import Operation
from ._values.models import Page

SIDE_BY_SIDE: Final = 8

B = TypeVar("B")


class Batched(AsyncIterator[B]):
    """An iterator of single items, which also gives at once all that one answer brought."""

    @abstractmethod
    async def next_batch(self) -> Sequence[B]:
        """Return the next items; none at the end."""


class AsyncPager(Generic[T]):
    """All items of a listing, each once; each iteration starts again.

    Nothing is sent before it is first used. Rows may come at the front and leave anywhere while it is read: pages are
    then read again, at most twice as many in all, and at the end page 1 is, once. Rows that come elsewhere, or move
    past the place that was reached, can't always be seen from here. Where the listing changes too fast to be followed,
    `may_be_incomplete` is True, and a warning is in the log.

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
        self._has_gaps = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} from page {self._first}>"

    def __aiter__(self) -> Batched[T]:
        return _Items(self._read())

    @property
    def may_be_incomplete(self) -> bool:
        """Tell whether, when it was last read, rows may have been missed, since it changed faster than it was read."""
        return self._has_gaps

    def pages(self) -> Batched[Page[T]]:
        """Iterate over the pages; of one that is read again, what is new on it.

        Example:
            async for page in lexi.conversations().pages():
                print(page.page, len(page.items), page.total)
        """
        return self._read()

    async def first_page(self) -> Page[T]:
        """Return the first page alone.

        Example:
            page = await lexi.conversations(per_page=10).first_page()
            print(page.total)
        """
        return await self._read().page(self._first)

    async def collect(self, limit: int | None = None) -> list[T]:
        """Return the items as a list, asking for up to 8 pages side by side.

        Where rows moved meanwhile, the pages are read once more, one by one; with a limit, only where `total` told it.

        Args:
            limit: How many at most; only the pages needed are asked for, and never more than the quota has left.

        Example:
            newest = await lexi.conversations().collect(limit=20)
        """
        most = None if limit is None else whole(limit, "limit", 1, MAX_COLLECTED)
        items = list[T]()
        async for page in self._read(SIDE_BY_SIDE, most):
            items += page.items
            if most is not None and len(items) >= most:
                return items[:most]
        return items

    def _read(self, ahead: int = 1, limit: int | None = None) -> _Pages[T]:
        self._has_gaps = False
        return _Pages(self._transport, self._listing, self._first, self._note_gaps, ahead, limit)

    def _note_gaps(self) -> None:
        self._has_gaps = True


class _Pages(Batched[Page[T]]):
    """The pages one after the other; a class, since a generator left early would need closing.

    Args:
        transport: What sends.
        listing: What is sent for a page.
        first: The number of the first page.
        note_gaps: Called where rows may have been missed.
        ahead: How many pages may be asked for at once.
        limit: How many items are wanted.
    """

    def __init__(
        self,
        transport: Transport,
        listing: Operation[Page[T]],
        first: int,
        note_gaps: Callable[[], None],
        ahead: int = 1,
        limit: int | None = None,
    ) -> None:
        self._transport = transport
        self._listing = listing
        self._order = Listing[T](first, side_by_side=ahead > 1, to_end=limit is None)
        self._first = first
        self._note_gaps = note_gaps
        self._ahead = ahead
        self._limit = limit
        self._fetched: dict[int, Page[T] | LeadLexError] = {}

    async def __anext__(self) -> Page[T]:
        for page in await self.next_batch():
            return page
        raise StopAsyncIteration

    async def next_batch(self) -> Sequence[Page[T]]:
        """Return the next page that has something new; none at the end."""
        order = self._order
        while order.next is not None:
            page = await self._new_on(order.next)
            if page is not None and page.items:
                return [page]
        return []

    async def _new_on(self, number: int) -> Page[T] | None:
        """Return what is new on a page; none if it can't be had, and all was read once."""
        order = self._order
        before = order.may_be_incomplete
        try:
            page = order.take(await self.page(number))
        except LeadLexError:
            if not order.was_read:
                raise
            page = None
            order.stop()
        if not order.side_by_side:
            self._fetched.clear()  # of pages asked for at once, a later one may be the older one
        if order.may_be_incomplete and not before:
            record(logging.WARNING, "incomplete", operation=self._listing.name)
            self._note_gaps()
        return page

    async def page(self, number: int) -> Page[T]:
        """Return one page, whole; ask for some behind it where they are surely needed."""
        if number not in self._fetched:
            async with anyio.create_task_group() as group:
                for each in range(number, number + self._wave()):
                    self._order.count(each)
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
        order, quota = self._order, self._transport.seen.rate_limit
        last = order.last
        if order.was_read or not order.side_by_side or last is None or last.per_page is None or last.total is None:
            return 1
        wanted = last.total if self._limit is None else min(last.total, self._limit + (self._first - 1) * last.per_page)
        needed = -(-wanted // last.per_page) - last.page
        left = self._ahead if quota is None or quota.remaining is None else quota.remaining
        return max(1, min(self._ahead, needed, left))


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

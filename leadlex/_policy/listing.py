"""In which order the pages of a listing are read, and what of each is new.

Rule: rows leave anywhere and come at the front, and none that stays is missed. Between two pages that are read one
after the other that can happen only where rows left, and then `total` fell: the page before is read again. Pages that
were asked for side by side are believed only if nothing moved meanwhile. No id is handed out twice, and a listing that
makes no progress, or goes on far beyond what it told, is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

from attrs import evolve

from leadlex._errors import PaginationError
from leadlex._values.models import Page


class HasId(Protocol):
    """An item of a listing."""

    @property
    def id(self) -> str:
        """Give what tells it from the others."""
        ...


T = TypeVar("T", bound=HasId)

GROWTH: Final = 1000
"""Rows that a listing may grow by while it is read, beyond twice what it told: the ids are kept, and so bounded."""

MANY: Final = 64
"""Pages that a listing may say it has, and so be read again, before it has shown them."""


class Listing(Generic[T]):
    """A listing while it is read: which page comes next, and what of it is new.

    Args:
        first: The number of the page it begins with.
        side_by_side: Whether pages may be asked for several at once.
        to_end: Whether all of it is wanted, and so at its end what came meanwhile.
    """

    def __init__(self, first: int, *, side_by_side: bool, to_end: bool) -> None:
        self.next: int | None = first
        self.last: Page[T] | None = None
        self.side_by_side = side_by_side
        self.was_read = False
        self.may_be_incomplete = False
        self._first = first
        self._to_end = to_end
        self._front: Page[T] | None = None
        self._to_seam = False
        self._ids = set[str]()
        self._joined = set[str]()
        self._starts = dict[int, int]()
        self._told: int | None = None
        self._stale = 0
        self._asked = self._furthest = 0

    def count(self, number: int) -> None:
        """Count a page that is asked for."""
        self._asked += 1
        self._furthest = max(self._furthest, number)

    def take(self, page: Page[T]) -> Page[T]:
        """Return what is new on a page, and decide which one is next.

        Raises:
            PaginationError: Two pages in a row had nothing new, or there is far more than was told.
        """
        if self.side_by_side and self.was_read:
            if _is_same(page, self._front):
                self.next = None
                return _nothing_of(page)
            self._begin_again()
        elif self.side_by_side and self.last is not None and page.total != self.last.total:
            self._begin_again()
            return _nothing_of(page)
        if not self._joins(page):
            if page.page > self._first and self._may_ask(page, self._furthest - page.page + 2):
                self.next = page.page - 1
                return _nothing_of(page)
            self.may_be_incomplete = True
        return self._accept(page)

    def stop(self) -> None:
        """End where it can't be seen whether anything is missing."""
        self.next, self.may_be_incomplete = None, True

    def _begin_again(self) -> None:
        """Go from the first page, one by one."""
        self.side_by_side, self.next, self.last = False, self._first, None
        self._joined.clear()

    def _joins(self, page: Page[T]) -> bool:
        """Tell whether no row that stayed can be between this page and those before it.

        It begins with a row of theirs, or it was read right after the one before it and `total` did not fall: no more
        rows left than came.
        """
        if page.page == 1 or self.last is None:
            return True
        if page.items and page.items[0].id in self._joined:
            return True
        return page.page == self.last.page + 1 and not _fell(self.last, page)

    def _may_ask(self, page: Page[T], more: int) -> bool:
        """Tell whether so many more pages may be read again: of each one, as many as there are."""
        total = _usable_total(page)
        told = 0 if total is None or page.per_page is None else -(-total // page.per_page)
        return self._asked - self._furthest + more <= max(self._furthest, min(told, MANY))

    def _accept(self, page: Page[T]) -> Page[T]:
        fresh = self._fresh(page.items)
        self._check_amount(page, len(fresh))
        at_seam = bool(page.items) and page.items[-1].id in self._ids
        self._ids.update(fresh)
        self._joined.update(item.id for item in page.items)
        self._check_progress(page, len(fresh))
        self._starts[page.page + 1] = self._start(page) + len(page.items)
        self._front = page if page.page == self._first else self._front
        self.last = page
        self._go_on(page, at_seam=at_seam)
        return evolve(page, items=tuple(fresh.values()))

    def _go_on(self, page: Page[T], *, at_seam: bool) -> None:
        """Decide what comes behind a page; at the end, the first one once more, to see what came meanwhile."""
        ends = self._is_last(page)
        if self._to_seam and (ends or at_seam):
            self.next = None
        elif self._to_seam and not self._may_ask(page, 1):
            self.stop()
        elif not ends:
            self.next = page.page + 1
        elif page.page == self._first or not self._to_end:
            self.next = None
        elif self.side_by_side:
            self.next, self.was_read = self._first, True
        elif self._first == 1 and self._may_ask(page, 1):
            self._begin_again()
            self.was_read = self._to_seam = True
        else:
            self.next = None

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

    def _check_progress(self, page: Page[T], new: int) -> None:
        """Refuse a second page in a row without anything new; of one that is read again that is no wonder."""
        if page.page + 1 in self._starts:
            return
        self._stale = 0 if new else self._stale + 1
        if self._stale > 1 and not self._is_last(page):
            raise _stopped(page, f"Page {page.page} repeats what came before, as the page before it did.")

    def _start(self, page: Page[T]) -> int:
        """Count the rows before a page; those before the first one have not been seen, but count in the total."""
        return self._starts.get(page.page, (page.page - 1) * (page.per_page or 0))

    def _is_last(self, page: Page[T]) -> bool:
        if not page.items:
            return True
        total = _usable_total(page)
        if total is not None:
            return self._start(page) + len(page.items) >= total
        return page.per_page is not None and len(page.items) < page.per_page


def _nothing_of(page: Page[T]) -> Page[T]:
    return evolve(page, items=())


def _is_same(page: Page[T], other: Page[T] | None) -> bool:
    """Tell whether nothing moved between two readings of the first page."""
    return other is not None and (page.total, _ids_of(page)) == (other.total, _ids_of(other))


def _ids_of(page: Page[T]) -> list[str]:
    return [item.id for item in page.items]


def _fell(before: Page[T], page: Page[T]) -> bool:
    told, now = _usable_total(before), _usable_total(page)
    return told is not None and now is not None and now < told


def _usable_total(page: Page[T]) -> int | None:
    # A total below what this very page holds is no total.
    return page.total if page.total is not None and page.total >= len(page.items) else None


def _stopped(page: Page[T], why: str) -> PaginationError:
    error = PaginationError(why)
    error.next_page, error.meta = page.page, page.meta
    return error

"""The way of one sync client's calls into the loop of all."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from leadlex._errors import ClientClosedError
from leadlex._pager import Batched

from .calls import Call, CallGroup, current_process
from .loop_thread import NOTHING_SENT

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never has to wait, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a coroutine's value
    raise RuntimeError("This coroutine waits.")


class Bridge:
    """The way of one client's coroutines into the loop of all, which starts when it is first needed.

    Args:
        aclose: Closes the client, in the loop.
    """

    def __init__(self, aclose: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._aclose = aclose
        self._group: CallGroup | None = None
        self._closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end and return what it gives; Ctrl-C cancels it and waits for its end."""
        call = Call(coroutine)
        try:
            group = self.group()
            group.start(call)
            group.thread.wait(call.ended)
        except BaseException:
            call.abandon()
            raise
        return call.result()

    def group(self) -> CallGroup:
        """Return the client's group in the running loop.

        Raises:
            ClientClosedError: The client is closed.
        """
        group = self._group
        return group if group is not None and group.thread.lives else self._enter()

    def _enter(self) -> CallGroup:
        process = current_process()
        with process.lock:
            if self._closed:
                raise ClientClosedError(facts=NOTHING_SENT)
            if self._group is None or not self._group.thread.lives:
                self._group = process.group(self._aclose)
                weakref.finalize(self, self._group.stop).atexit = False
            return self._group

    def lend(self) -> Bridge:
        """Return a bridge to the same loop, for a copy of the client, whose closing does nothing."""
        return _BorrowedBridge(self)

    def close(self) -> None:
        """Close the client; the last one's loop ends with it. Closing twice is fine."""
        with current_process().lock:
            self._closed, group, self._group = True, self._group, None
        if group is None or not group.thread.lives:
            drive(self._aclose())
        else:
            group.stop()
            group.join()


class _BorrowedBridge(Bridge):
    def __init__(self, lender: Bridge) -> None:
        self._lender = lender

    def group(self) -> CallGroup:
        return self._lender.group()

    def close(self) -> None:
        """Leave what belongs to another."""


class Batches(Iterator[T]):
    """A listing that crosses once for each page."""

    def __init__(self, bridge: Bridge, source: Batched[T]) -> None:
        self._bridge = bridge
        self._source = source
        self._left: deque[T] = deque()

    def __next__(self) -> T:
        if not self._left:
            self._left.extend(self._bridge.call(self._next_batch()))
        if not self._left:
            raise StopIteration
        return self._left.popleft()

    async def _next_batch(self) -> list[T]:
        return list(await self._source.next_batch())

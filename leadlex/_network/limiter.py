"""The bound of how many connections there may be at once."""

from __future__ import annotations

import anyio
import httpx

from .timeouts import Limit


class ConnectionLimiter:
    """A bound of how many connections there may be at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = anyio.Semaphore(limit)

    def takes_now(self) -> bool:
        """Take a place that is free, and tell whether there was one."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def take(self, request: httpx.Request) -> None:
        """Wait for a place.

        Raises:
            httpx.PoolTimeout: None became free in time; the request's trace learns that nothing was sent.
        """
        if self.takes_now():
            return
        with Limit(request.extensions["timeout"]["pool"]):
            await self._free.acquire()
            return
        await request.extensions["trace"]("pool.acquire.failed", {})
        raise httpx.PoolTimeout(f"all {self._limit} connections are in use by open streams and calls")

    def give_back(self) -> None:
        """Free a place."""
        self._free.release()

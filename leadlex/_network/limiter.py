"""The bound of how many connections there may be at once."""

from __future__ import annotations

import anyio
import httpx

from .timeouts import Limit


class ConnectionLimiter:
    """Bound how many connections there may be at once.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = anyio.Semaphore(limit)

    async def take(self, request: httpx.Request) -> None:
        """Wait for a place.

        Raises:
            httpx.PoolTimeout: None became free in time; the request's trace learns that nothing was sent.
        """
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            seconds = request.extensions["timeout"]["pool"]
            with Limit(seconds):
                return await self._free.acquire()
            await request.extensions["trace"]("pool.acquire.failed", {})
            raise httpx.PoolTimeout(f"all {self._limit} connections are in use by open streams and calls") from None

    def give_back(self) -> None:
        """Free a place."""
        self._free.release()

"""The clocks and the chance that the rules are given."""

from __future__ import annotations

import random
import time
from typing import Final

import anyio


class Clock:
    """The clocks and the chance that the rules are given; a test puts others here."""

    # Where there is one, the clock that goes on while the machine is suspended: a key's life does too.
    _CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) if hasattr(time, "CLOCK_MONOTONIC") else None

    def now(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic() if self._CLOCK is None else time.clock_gettime(self._CLOCK)

    def wall(self) -> float:
        """Return Unix seconds by this machine."""
        return time.time()

    def chance(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()  # noqa: S311  # spreads retries, guards nothing

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

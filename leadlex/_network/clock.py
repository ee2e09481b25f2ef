"""The clocks and the chance that the rules are given."""

from __future__ import annotations

import random
import time
from typing import Final

import anyio

from leadlex._steady_clock import monotonic


class Clock:
    """The clocks and the chance that the rules are given; a test puts others here."""

    # Where there is one, the clock that goes on while the machine is suspended: a key's life does too.
    _CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", None)

    def now(self) -> float:
        """Return seconds that never jump."""
        return monotonic() if self._CLOCK is None else time.clock_gettime(self._CLOCK)

    def wall(self) -> float:
        """Return Unix seconds by this machine."""
        return time.time()

    def chance(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()  # noqa: S311  # spreads retries, guards nothing

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)

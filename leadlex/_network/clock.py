"""The clocks and the chance that the rules are given."""

from __future__ import annotations

import random
import threading
import time
from typing import Final, Self

import anyio
import anyio.lowlevel

from leadlex._config import seconds as seconds_of
from leadlex._steady_clock import monotonic


class Clock:
    """The clocks and the chance that the rules are given."""

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


_CLOCKS: Final = [Clock()]


def current_clock() -> Clock:
    """Return the clock of the clients that are made now: the machine's, outside of tests."""
    return _CLOCKS[-1]


class FakeClock(Clock):
    """A clock for tests: no wait before another attempt takes time, and hours pass when the test says so.

    Every client that is made inside of its `with`, of either kind and by whomever, goes by it. Sending and receiving
    take their time: where a server of yours falls silent, give the client a short `timeout`.

    Attributes:
        sleeps: The seconds of every wait, each over at once: before another attempt, between two looks for a task.
            Chance has no part in them.

    Example:
        with leadlex.FakeClock() as clock, leadlex.LeadLex() as client:
            stream = client.stream_chat("Hi")
            next(stream)
            clock.advance(24 * 3600)  # were it cut now, it could not be continued
            print(stream.final_reply().response, clock.sleeps)
    """

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self._ahead = 0.0
        self._moving = threading.Lock()  # a sync client sleeps in the thread of its loop

    def __enter__(self) -> Self:
        _CLOCKS.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _CLOCKS.remove(self)

    def advance(self, seconds: float) -> None:
        """Let time pass, for idempotency keys and for what is left of `total` too.

        Raises:
            ConfigurationError: It is no number of seconds above 0.
        """
        self._move(seconds_of(seconds, "seconds"))

    def _move(self, seconds: float) -> None:
        with self._moving:
            self._ahead += seconds

    def now(self) -> float:
        """Return seconds that never jump but for `advance`."""
        return super().now() + self._ahead

    def wall(self) -> float:
        """Return Unix seconds, with those that were advanced."""
        return super().wall() + self._ahead

    def chance(self) -> float:
        """Return the middle."""
        return 0.5

    async def sleep(self, seconds: float) -> None:
        """Advance, and be there at once."""
        self.sleeps.append(seconds)
        self._move(seconds)
        await anyio.lowlevel.checkpoint()

"""A clock that a test turns: sleeps are over at once, the wall clock jumps, the machine sleeps for a day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.lowlevel

from leadlex._network.clock import Clock
from tests.support.runners import Main, Runner


class Turned(Clock):
    """The real clocks, moved as the test says.

    Args:
        chance: What every throw of the dice gives.
        meanwhile: Called in every sleep, with this clock.
    """

    def __init__(self, chance: float = 0.5, meanwhile: Callable[[Turned], object] | None = None) -> None:
        self.ahead = 0.0
        self.wall_ahead = 0.0
        self.sleeps: list[float] = []
        self._chance = chance
        self._meanwhile = meanwhile

    def now(self) -> float:
        """Return seconds that never jump, but for those that a test adds."""
        return super().now() + self.ahead

    def wall(self) -> float:
        """Return Unix seconds, wrong by as much as the test says."""
        return super().wall() + self.ahead + self.wall_ahead

    def chance(self) -> float:
        """Return the same number each time."""
        return self._chance

    async def sleep(self, seconds: float) -> None:
        """Be there at once."""
        self.sleeps.append(seconds)
        self.ahead += seconds
        if self._meanwhile is not None:
            self._meanwhile(self)
        await anyio.lowlevel.checkpoint()


def transport_of(lexi: Any) -> Any:
    """Find the transport of any client."""
    client = getattr(lexi, "_value", lexi)
    return getattr(client, "_wrapped", client)._transport


class TimedRunner(Runner):
    """A runner whose clients go by another clock.

    Args:
        runner: The runner.
        time: The clock.
    """

    def __init__(self, runner: Runner, time: Clock) -> None:
        self.name = runner.name
        self._runner = runner
        self._time = time

    def make(self, **options: Any) -> Any:
        """Make a client and give it the clock."""
        lexi = self._runner.make(**options)
        transport_of(lexi).clock = self._time
        return lexi

    def drive(self, main: Main[Any]) -> Any:
        """Run in the runner's way."""
        return self._runner.drive(main)

    async def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        await self._runner.sleep(seconds)

    async def together(self, *mains: Main[Any]) -> list[Any]:
        """Run side by side in the runner's way."""
        return await self._runner.together(*mains)

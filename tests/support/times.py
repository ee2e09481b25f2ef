"""The public test clock, with what only these tests turn: the wall clock jumps, chance is given, sleeps are seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leadlex import FakeClock
from tests.support.runners import Main, Runner


class Turned(FakeClock):
    """The test clock, moved further as the test says.

    Args:
        chance: What every throw of the dice gives.
        meanwhile: Called in every sleep, with this clock.
    """

    def __init__(self, chance: float = 0.5, meanwhile: Callable[[Turned], object] | None = None) -> None:
        super().__init__()
        self.wall_ahead = 0.0
        self._chance = chance
        self._meanwhile = meanwhile

    def wall(self) -> float:
        """Return Unix seconds, wrong by as much as the test says."""
        return super().wall() + self.wall_ahead

    def chance(self) -> float:
        """Return the same number each time."""
        return self._chance

    async def sleep(self, seconds: float) -> None:
        """Be there at once, and do what is to be done meanwhile."""
        await super().sleep(seconds)
        if self._meanwhile is not None:
            self._meanwhile(self)


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

    def __init__(self, runner: Runner, time: FakeClock) -> None:
        self.name = runner.name
        self._runner = runner
        self._time = time

    def make(self, **options: Any) -> Any:
        """Make a client by the clock."""
        with self._time:
            return self._runner.make(**options)

    def drive(self, main: Main[Any]) -> Any:
        """Run in the runner's way."""
        return self._runner.drive(main)

    async def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        await self._runner.sleep(seconds)

    async def together(self, *mains: Main[Any]) -> list[Any]:
        """Run side by side in the runner's way."""
        return await self._runner.together(*mains)

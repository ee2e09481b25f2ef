"""The sandbox's clock: the machine's, and as far ahead of it as it was moved."""

from datetime import UTC, datetime, timedelta

from leadlex._errors import ConfigurationError


class Clock:
    """What tells the time to everything that happens in a sandbox."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Read the clock."""
        return datetime.now(UTC) + self._ahead

    def advance(self, seconds: float) -> None:
        """Move the clock forward; ConfigurationError where that is backward or beyond what a clock can show."""
        try:
            ahead = self._ahead + timedelta(seconds=seconds)
            _ = datetime.now(UTC) + ahead + timedelta(days=2)  # some time is left for midnights and tasks
        except (OverflowError, ValueError):
            raise ConfigurationError("the clock can't be moved as far as that") from None
        if seconds < 0:
            raise ConfigurationError("the clock can only be moved forward")
        self._ahead = ahead

    def reset(self) -> None:
        """Tell the machine's time again."""
        self._ahead = timedelta()

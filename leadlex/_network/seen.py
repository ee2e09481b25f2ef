"""What the service last said to a client."""

from __future__ import annotations

from attrs import define

from leadlex._values.metadata import RateLimit


@define(eq=False, repr=False)
class LastSeen:
    """What the service last said, for all copies of a client."""

    rate_limit: RateLimit | None = None
    credits_remaining: int | None = None

    def note_credits(self, left: int | None, *, is_repeat: bool) -> None:
        """Take in a balance; the answer to a repeated question may tell the one of its first time."""
        known = self.credits_remaining
        if left is not None and not (is_repeat and known is not None and left > known):
            self.credits_remaining = left

"""What went wrong, in the words of an answer."""

from __future__ import annotations

from attrs import frozen


@frozen
class WireProblem:
    """What an error answer or an `error` event says."""

    code: str | None
    message: str | None

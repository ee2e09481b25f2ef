"""What is known of an answer besides its body.

Rule: a value here compares by what the service said, never by when or how it arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from attrs import field, frozen

from .plain import Value

Charged = Literal["no", "unknown", "yes"]
"""Whether a call cost credits, as far as the client can know."""


@frozen(kw_only=True)
class RateLimit(Value):
    """The request quota of the API key, as the service last told it.

    Args:
        limit: Requests in the window, or None where the service did not say.
        remaining: Requests left in the window.
        reset_at: When the window ends, an aware datetime (the service resets at midnight UTC).
    """

    limit: int | None = None
    remaining: int | None = None
    reset_at: datetime | None = None


@frozen(kw_only=True)
class Meta(Value):
    """How an answer arrived.

    Args:
        status_code: The HTTP status; 0 on what came from no answer.
        request_id: The service's `X-Request-ID`, to be quoted to its support.
        rate_limit: The quota that the answer carried.
        headers: The answer's headers, names in lower case; of a repeated one the first.
        attempts: How often the request was sent until this answer came.
        elapsed: Seconds from the first attempt to the head of this answer.
    """

    status_code: int
    request_id: str | None = None
    rate_limit: RateLimit = RateLimit()
    headers: Mapping[str, str] = field(factory=dict, repr=False, hash=False)
    attempts: int = 1
    elapsed: float = 0.0


NO_ANSWER: Final = Meta(status_code=0)
"""How a value arrived that came from no answer."""


@frozen(kw_only=True)
class Attempt(Value):
    """How one attempt of a call that failed ended.

    Args:
        failure: What broke it, for example `connect`, `lost`, `transient`, `cut`.
        status_code: The HTTP status, where an answer had come.
        request_id: The service's `X-Request-ID`, where an answer had come.
        elapsed: Seconds that it took.
        delay: Seconds that were waited before the next one; None for the last.
    """

    failure: str
    status_code: int | None = None
    request_id: str | None = None
    elapsed: float = 0.0
    delay: float | None = None


def meta_field() -> Any:  # noqa: ANN401  # attrs gives a field the type of its annotation
    """Make the field that tells how a value arrived; it takes no part in equality."""
    return field(default=NO_ANSWER, eq=False, repr=False, kw_only=True)

"""What the headers of an answer say: how long to wait, and what is left of the quota.

Rule: pure; what is not of the documented form, or not believable, is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from leadlex._values.metadata import RateLimit

_SECONDS: Final = re.compile(r"[ \t]*([0-9]{1,9})[ \t]*", re.ASCII)

_RESET: Final = re.compile(r"[0-9]{10}", re.ASCII)

_TWO_DAYS: Final = 48 * 3600.0

_SLACK: Final = 5.0


def http_date(value: str | None) -> float | None:
    """Read an HTTP date (RFC 9110, 5.6.7) as Unix seconds, or return None."""
    try:
        moment = parsedate_to_datetime(value or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def server_now(headers: Mapping[str, str], now: float) -> float:
    """Return the server's time, from its `Date` where that is believable, else this machine's `now`."""
    date = http_date(headers.get("date"))
    return now if date is None or abs(date - now) > _TWO_DAYS else date


def retry_after(value: str | None, now: float) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3) as seconds from `now`, or return None where it is not of that form."""
    match = _SECONDS.fullmatch(value or "")
    if match:
        return float(match[1])
    date = http_date(value)
    return None if date is None or date < now - _TWO_DAYS else max(0.0, date - now)


def hint_of(status: int, headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, or None."""
    here = server_now(headers, now)
    after = retry_after(headers.get("retry-after"), here)
    if after is not None or status != 429:  # noqa: PLR2004  # RFC 6585, 4
        return after
    reset = reset_of(headers, now)
    return None if reset is None else max(0.0, reset.timestamp() - here)


def reset_of(headers: Mapping[str, str], now: float) -> datetime | None:
    """Return when the quota is renewed, where a 429 tells it believably."""
    reset = rate_limit_of(headers).reset_at
    if reset is None or headers.get("x-ratelimit-remaining", "0").strip() != "0":
        return None
    # Seconds that are milliseconds, or another limiter's, fall outside of two days.
    return reset if -_SLACK <= reset.timestamp() - server_now(headers, now) <= _TWO_DAYS else None


def rate_limit_of(headers: Mapping[str, str]) -> RateLimit:
    """Read the quota headers; what is not of the documented form is None."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    return RateLimit(
        limit=_count(headers.get("x-ratelimit-limit", "")),
        remaining=_count(headers.get("x-ratelimit-remaining", "")),
        reset_at=datetime.fromtimestamp(int(reset), UTC) if _RESET.fullmatch(reset) else None,
    )


def _count(value: str) -> int | None:
    match = _SECONDS.fullmatch(value)
    return int(match[1]) if match else None

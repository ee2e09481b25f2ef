"""A clock that no test stops: freezegun replaces `time.monotonic` in all modules, and asyncio's loops ask that.

Source: https://github.com/spulec/freezegun#real_asyncio-parameter
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_MONOTONIC", None)  # Windows has none


def monotonic() -> float:
    """Return seconds that never jump nor stand still."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def keep_time(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop of our own go by this clock."""
    with suppress(AttributeError):  # uvloop's has one of its own
        loop.time = monotonic  # type: ignore[method-assign]

"""The clocks of an event loop, believed only where the loop itself was on time.

Rule: a clock that rings late tells of this side (a stopped process, a closed lid, ten thousand tasks) and nothing of
the other one. What came meanwhile is there, and is read first.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Callable
from contextvars import Context
from types import TracebackType
from typing import Any, Final

import anyio
import httpcore
import httpx
from anyio.lowlevel import RunVar, checkpoint, current_token

from leadlex._config import Timeout
from leadlex._errors import TimeoutName
from leadlex._steady_clock import monotonic

MOMENT: Final = 0.1
"""Seconds that a loop which was late gets to read what is there."""

_LATE: Final = 1.5 * MOMENT
"""Seconds after which a clock rang late; those that are due in another one's moment are not."""

_TURNS: Final = 32
"""How often a loop turns before a clock is believed, late or not: a connection that is made takes about eight."""


class Alarm:
    """The one timer of a loop, for all that wait in it.

    Args:
        loop: asyncio's loop, or what stands for trio's.
    """

    def __init__(self, loop: object) -> None:
        self._loop: Any = loop if isinstance(loop, asyncio.AbstractEventLoop) else None
        self.now: Callable[[], float] = self._loop.time if self._loop else sys.modules["trio"].current_time
        self._ends = dict[anyio.CancelScope, float]()
        self._due: float = math.inf
        self._stop: Callable[[], object] = bool

    def add(self, scope: anyio.CancelScope, ends: float) -> None:
        """Cancel a scope at a time of the loop's clock."""
        self._ends[scope] = ends
        if ends < self._due:
            self._set(ends)

    def remove(self, scope: anyio.CancelScope) -> None:
        """Forget a scope that ended."""
        del self._ends[scope]

    def _set(self, ends: float) -> None:
        self._stop()
        self._due = ends
        if self._loop:
            # In an empty context: the caller's would live as long as the timer.
            self._stop = self._loop.call_at(ends, self._ring, ends, context=Context()).cancel
        else:
            scope = anyio.CancelScope()
            self._stop = scope.cancel
            sys.modules["trio"].lowlevel.spawn_system_task(self._sleep, scope, ends)

    def _ring(self, due: float) -> None:
        now = self.now()
        self._loop.call_later(_patience(now - due), self._turn, now, _TURNS)

    def _turn(self, rang: float, left: int) -> None:
        if left:
            self._loop.call_soon(self._turn, rang, left - 1)
        else:
            self._end(rang)

    async def _sleep(self, scope: anyio.CancelScope, due: float) -> None:
        """Do under trio, which has no timers, what `_ring` and `_turn` do."""
        with scope:
            await anyio.sleep_until(due)
            now = self.now()
            await anyio.sleep(_patience(now - due))
            for _ in range(_TURNS):
                await checkpoint()
            self._end(now)

    def _end(self, rang: float) -> None:
        """Cancel what had waited too long as the clock rang, and set it for the next."""
        for scope, ends in self._ends.items():
            if ends <= rang:
                self._ends[scope] = math.inf
                scope.cancel()
        self._stop, self._due = bool, math.inf
        first = min(self._ends.values(), default=math.inf)
        if first < math.inf:
            self._set(first)


def _patience(late: float) -> float:
    return MOMENT if late > _LATE else 0.0


_alarm: Final = RunVar[Alarm]("leadlex alarm")


def alarm_here() -> Alarm:
    """Return the alarm of the running loop."""
    try:
        return _alarm.get()
    except LookupError:
        alarm = Alarm(current_token().native_token)
        _alarm.set(alarm)
        return alarm


class Limit:
    """A cancel scope around what may take so many seconds, as `anyio.move_on_after` but for the patience.

    Args:
        seconds: How many; None is without end.
        alarm: The running loop's, where it is at hand.
    """

    __slots__ = ("_alarm", "_seconds", "scope")

    def __init__(self, seconds: float | None = None, alarm: Alarm | None = None) -> None:
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._seconds = math.inf if seconds is None else max(0.0, seconds)
        self._alarm = alarm

    def __enter__(self) -> anyio.CancelScope:
        self.scope.__enter__()
        self._alarm = self._alarm or alarm_here()
        self._alarm.add(self.scope, self._alarm.now() + self._seconds)
        return self.scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._alarm.remove(self.scope)  # type: ignore[union-attr]  # it was entered
        return self.scope.__exit__(kind, error, trace)


_NEVER: Final = float("inf")


class Expired(Exception):
    """The end of one of our own clocks; the transport's read timeout is httpx's."""

    def __init__(self, clock: TimeoutName) -> None:
        super().__init__(clock)
        self.clock: TimeoutName = clock


_CLOCKS: Final[dict[type[Exception], TimeoutName]] = {
    httpx.ConnectTimeout: "connect",
    httpx.WriteTimeout: "write",
    httpx.PoolTimeout: "pool",
    httpx.ReadTimeout: "idle",
    httpcore.ConnectTimeout: "connect",
    httpcore.WriteTimeout: "write",
    httpcore.PoolTimeout: "pool",
    httpcore.ReadTimeout: "idle",
}


def clock_of(error: Exception, *, started: bool) -> TimeoutName | None:
    """Return the clock that ran out, if one did; before the request was started, what was read is a proxy's answer."""
    clock = error.clock if isinstance(error, Expired) else _CLOCKS.get(type(error))
    return "connect" if clock == "idle" and not started else clock


class Clocks:
    """The time of one attempt; the caller's own time between two events does not count, but for `total`.

    Args:
        timeout: The settings.
        deadline: When `total` ends, by `now`.
        now: The clock of the call, which may go on while the machine is suspended.
        streams: Whether events are waited for.

    Attributes:
        times: What httpcore is told, which looks each up as it begins to wait.
    """

    def __init__(
        self, timeout: Timeout, deadline: float | None, now: Callable[[], float] = monotonic, *, streams: bool
    ) -> None:
        self.times: dict[str, float | None] = {
            "connect": timeout.connect,
            "write": timeout.write,
            "pool": timeout.pool,
            "read": None,
        }
        self._connect = timeout.connect
        self._idle = timeout.idle
        self._event_idle = timeout.event_idle
        self._deadline = deadline
        self._now = now
        self._clock: TimeoutName = "first_event"
        self._allowed = timeout.first_event if streams else _NEVER
        self._ends: float | None = None
        self._paused = 0.0
        self._spare = dict[TimeoutName, float]()
        self._counts_idle = False

    def note_waiting(self, *, started: bool) -> None:
        """Let a proxy answer as long as connecting may take, and Lexi think."""
        self.times["read"] = None if started else self._connect

    def note_head(self, *, traced: bool) -> None:
        """Count `idle` from here on, the head being read.

        httpcore does, at no cost; what gives no trace of itself is not httpcore and may not look, so it is done here.
        """
        self.times["read"] = self._idle
        self._counts_idle = not traced

    def pause(self) -> None:
        """Note that the caller has what came."""
        self._paused = monotonic()

    def note_event(self) -> None:
        """Give the next event a time of its own, which begins when it is waited for."""
        self._clock, self._allowed, self._ends = "event_idle", self._event_idle, None
        self._spare.pop("event_idle", None)

    def note_other_event(self) -> None:
        """Leave the next event what was left, without the time in which the caller had one that is no progress."""
        self._ends = (self._ends or 0.0) + monotonic() - self._paused

    def next_end(self) -> tuple[float, TimeoutName]:
        """Return in how many seconds which clock runs out first."""
        now = monotonic()
        if self._ends is None:
            self._ends = now + self._allowed
        events = self._ends - now
        total = _NEVER if self._deadline is None else self._deadline - self._now()
        return (total, "total") if total < events else (events, self._clock)

    async def wait(self, source: AsyncIterator[bytes]) -> bytes:
        """Return the next piece; a cancel scope costs 5 µs and is opened only where it could end first.

        Raises:
            StopAsyncIteration: The body ended.
            Expired: A clock ran out.
        """
        seconds, clock = self.next_end()
        if seconds <= 0:
            seconds = self._last_look(clock)
        if not self._counts_idle:
            if seconds >= self._idle:
                return await source.__anext__()
        elif self._idle < seconds:
            seconds, clock = self._idle, "idle"
        with Limit(seconds):
            return await source.__anext__()
        raise Expired(clock)

    def _last_look(self, clock: TimeoutName) -> float:
        """Return the seconds in which what is there already may be read, once for each clock that ran out."""
        now = monotonic()
        left = self._spare.setdefault(clock, now + MOMENT) - now
        if left <= 0:
            # A flood of comments is there at once: it is never waited for, and so never cancelled.
            raise Expired(clock)
        return left

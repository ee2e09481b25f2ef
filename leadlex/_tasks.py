"""Waiting for a task, of which the API has no endpoint of its own.

Rule: look where it should be, ever less often, and sleep through the transport.
"""

from __future__ import annotations

from typing import Final

from ._config import seconds
from ._errors import APITimeoutError, NotFoundError
from ._network.transport import Transport
from ._protocol import endpoints
from ._protocol.arguments import id_of
from ._values.models import Task

_UNDER_WAY: Final = ("pending", "approved")
_FINISHED: Final = ("completed", "failed", "dismissed")
_LONGEST: Final = 30.0
_GROWTH: Final = 1.5


async def wait_for_task(transport: Transport, id: str, timeout: float, poll_interval: float) -> Task:  # noqa: A002, ASYNC109  # API
    """Return the task once it is finished."""
    wanted, pause, clock = id_of(id), seconds(poll_interval, "poll_interval"), transport.clock
    ends = clock.now() + seconds(timeout, "timeout")
    with transport.within(timeout):
        task = await _finished(transport, wanted, pause, ends)
        if task is not None:
            return task
    raise APITimeoutError("wait", timeout, "", {"charged": "no"})


async def _finished(transport: Transport, wanted: str, pause: float, ends: float) -> Task | None:
    missed = 0
    while True:
        task = await _find(transport, wanted)
        if task is not None and task.status not in _UNDER_WAY:
            return task
        missed = 0 if task else missed + 1
        if missed > 1:
            raise NotFoundError(404, "not_found", "no list of tasks has it", {"charged": "no"})
        if transport.clock.now() >= ends:  # by a clock that a test advances; else the scope around ends first
            return None
        await transport.rest(pause)
        pause = min(pause * _GROWTH, _LONGEST)


async def _find(transport: Transport, wanted: str) -> Task | None:
    """Look among the tasks under way, then among the finished ones."""
    for status in (*_UNDER_WAY, *_FINISHED):
        for task in await transport.send(endpoints.tasks(status=status)):
            if task.id == wanted:
                return task
    return None

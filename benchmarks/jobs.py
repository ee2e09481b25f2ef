"""What a client's process does and measures: `python -m benchmarks.jobs JOB CLIENT API URL COUNT` prints it as JSON.

A job begins with a warm-up, so that what loads lazily is loaded and a connection is open; a process does one job.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import resource
import statistics
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Self

from benchmarks.clients import AsyncClient, SyncClient, async_client, sync_client
from benchmarks.server import Plan, allow_many_sockets

Values = dict[str, float]

_WARM: Final = 20
_MANY: Final = 2_000
_LEAST: float = 1.0
"""Seconds that what is short is repeated for: a machine that others use too is slow for tenths of one."""
_CAN_WAIT: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Runner:
    """One way to use a client, async or sync; its end closes all that were made.

    Args:
        url: The server.
        name: The client's.
        sync: Whether it is the sync one.
    """

    def __init__(self, url: str, name: str, *, sync: bool) -> None:
        self._url = url
        self._make = partial(sync_client if sync else async_client, name)
        self._runner = asyncio.Runner()
        self._made: list[AsyncClient | SyncClient] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._made:
            self.run(client.close())
        self._runner.close()

    def client(self, plan: Plan) -> Any:  # noqa: ANN401  # an async or a sync one, which differ in what they return
        """Make a client whose answers go by a plan, where an event loop runs."""
        self._made.append(self._runner.run(self._client(plan)))
        return self._made[-1]

    async def _client(self, plan: Plan) -> AsyncClient | SyncClient:
        return self._make(f"{self._url}/{plan}")

    def run(self, outcome: Any) -> Any:  # noqa: ANN401  # whatever it is
        """Return an outcome, waiting for it where it is still to come."""
        return self._runner.run(outcome) if asyncio.iscoroutine(outcome) else outcome

    def took(self, work: Callable[[], object], least: float = 0.0) -> float:
        """Do some work, again until so many seconds have passed, and tell the seconds that it takes."""
        times, began, took = 0, time.perf_counter(), 0.0
        while not times or took < least:
            self.run(work())
            times, took = times + 1, time.perf_counter() - began
        return took / times


def _peak() -> float:
    """Tell the most MiB that this process ever held."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # getrusage(2) on each
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# Peers too ---------------------------------------------------------------------------------------------------------


def _stream(runner: Runner, count: int, per_chunk: int) -> Values:
    runner.run(runner.client(Plan(_MANY, per_chunk)).read())
    client = runner.client(Plan(count, per_chunk))
    runner.run(client.call())
    return {"rate": count / runner.took(client.read, _LEAST) / 1000}


def stream_20(runner: Runner, count: int) -> Values:
    """Measure thousand events a second, 20 in a chunk."""
    return _stream(runner, count, 20)


def stream_1(runner: Runner, count: int) -> Values:
    """Measure thousand events a second, one in a chunk."""
    return _stream(runner, count, 1)


def call(runner: Runner, count: int) -> Values:
    """Measure the microseconds of a JSON call."""
    client = runner.client(Plan())
    runner.run(client.calls(_WARM))
    return {"time": runner.took(lambda: client.calls(count), _LEAST) / count * 1e6}


def first_token(runner: Runner, count: int) -> Values:
    """Measure the milliseconds between the server's sending of a first text and its arrival."""
    client = runner.client(Plan(1, 1, 20))
    runner.run(client.calls(_WARM))
    return {"time": statistics.median(runner.run(client.firsts(count)))}


def concurrent(runner: Runner, count: int) -> Values:
    """Measure the seconds of many streams at once, each of 20 events at 50 ms, and the MiB of a thousand."""
    allow_many_sockets()
    client = runner.client(Plan(20, 1, 50))
    runner.run(client.calls(_WARM))
    before = _peak()
    return {"time": runner.took(lambda: client.reads(count)), "memory": (_peak() - before) * 1000 / count}


# leadlex alone -----------------------------------------------------------------------------------------------------


async def _ticks(events: AsyncIterator[object], every: int) -> list[float]:
    ticks, left = [time.perf_counter()], every
    async for _ in events:
        left -= 1
        if not left:
            ticks.append(time.perf_counter())
            left = every
    return ticks


def long_stream(runner: Runner, count: int) -> Values:
    """Measure how fast the last tenth of a stream is, against the first, and the MiB that it takes."""
    runner.run(runner.client(Plan(_MANY, 20)).read())
    lexi, before = runner.client(Plan(count, 20)).lexi, _peak()
    ticks = runner.run(_ticks(lexi.stream_chat("Hi"), count // 10))
    return {"last tenth": (ticks[1] - ticks[0]) / (ticks[10] - ticks[9]), "memory": _peak() - before}


def collect(runner: Runner, count: int) -> Values:
    """Measure thousand conversations a second with `collect`, at 25 ms a page."""
    lexi = runner.client(Plan(pause=25)).lexi
    runner.run(lexi.conversations().first_page())
    return {"rate": count / runner.took(lambda: lexi.conversations().collect(limit=count)) / 1000}


def pages(runner: Runner, count: int) -> Values:
    """Measure the same page after page."""
    lexi = runner.client(Plan(pause=25)).lexi
    runner.run(lexi.conversations().first_page())
    return {"rate": count / runner.took(lambda: _take(lexi.conversations(), count)) / 1000}


async def _take(items: AsyncIterator[object], count: int) -> None:
    async for _ in items:
        count -= 1
        if not count:
            return


class _Frames:
    """The coroutines of the package that run inside of a block, and how deep its functions stand in each other."""

    def __init__(self, package: Path) -> None:
        self._package = str(package)
        self._coroutines = set[CodeType]()
        self.depth = 0

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    @property
    def waiting(self) -> int:
        """Count what a call travels through, without the functions that are asked on the way."""
        return len(self._coroutines)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and self._is_ours(frame):
            if frame.f_code.co_flags & _CAN_WAIT:
                self._coroutines.add(frame.f_code)
            self.depth = max(self.depth, sum(1 for each, _ in traceback.walk_stack(frame) if self._is_ours(each)))

    def _is_ours(self, frame: FrameType) -> bool:
        return frame.f_code.co_filename.startswith(self._package)


async def _frames_of(lexi: Any, package: Path) -> Values:  # noqa: ANN401  # leadlex loads in its client's module
    await lexi.chat("Hi")
    with _Frames(package) as of_chat:
        await lexi.chat("Hi")
    async with lexi.stream_chat("Hi") as stream:
        await anext(stream)
        with _Frames(package) as of_event:
            await anext(stream)
    return {
        "waiting in a chat": of_chat.waiting,
        "waiting in an event": of_event.waiting,
        "depth of a chat": of_chat.depth,
        "depth of an event": of_event.depth,
    }


def frames(runner: Runner, _: int) -> Values:
    """Count the coroutines of the package that a `chat` and one more event of a stream go through, and their depth."""
    lexi = runner.client(Plan(_MANY, 20)).lexi
    measured: Values = runner.run(_frames_of(lexi, Path(sys.modules["leadlex"].__path__[0])))
    return measured


JOBS: Final[dict[str, Callable[[Runner, int], Values]]] = {
    job.__name__: job
    for job in (stream_20, stream_1, call, first_token, concurrent, long_stream, collect, pages, frames)
}


def main(job: str, client: str, api: str, url: str, count: str) -> None:
    """Do one job and print what it measured."""
    with Runner(url, client, sync=api == "sync") as used:
        sys.stdout.write(json.dumps(JOBS[job](used, int(count))))


if __name__ == "__main__":
    main(*sys.argv[1:])

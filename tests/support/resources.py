"""Oracle O4: what a test used is given back; and a guard against tests that hang."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import pytest
import sniffio

#: Threads that event loops keep for a while for their next blocking call; they hold nothing of ours.
_WORKERS = ("asyncio_", "AnyIO worker thread", "Trio thread")


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """What a process holds at one moment.

    Args:
        descriptors: Each open file descriptor with what it is.
        threads: The threads alive, but for an event loop's own workers.
        tasks: The tasks of the running event loop, of asyncio or trio; none outside of one.
    """

    descriptors: frozenset[str]
    threads: frozenset[threading.Thread]
    tasks: frozenset[Any]

    @classmethod
    def now(cls) -> Self:
        """Look."""
        threads = (each for each in threading.enumerate() if not each.name.startswith(_WORKERS))
        return cls(frozenset(_descriptors()), frozenset(threads), frozenset(_tasks()))

    def beyond(self, before: "Resources") -> list[str]:
        """Name what is held now and was not before."""
        threads = (repr(thread) for thread in self.threads - before.threads)
        tasks = (repr(task) for task in self.tasks - before.tasks)
        return sorted((*self.descriptors - before.descriptors, *threads, *tasks))


def _descriptors() -> Generator[str]:
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    for number in os.listdir(folder):  # noqa: PTH208 - a Path would be made for each
        # The listing's own descriptor is among them, and closed by now.
        with contextlib.suppress(OSError):
            yield f"fd {number} {_target(folder, number)}"


def _target(folder: str, number: str) -> str:
    if sys.platform == "linux":
        return os.readlink(f"{folder}/{number}")  # noqa: PTH115 - the same
    return str(os.fstat(int(number)).st_ino)


def _runs(library: str) -> bool:
    try:
        return sniffio.current_async_library() == library
    except sniffio.AsyncLibraryNotFoundError:
        return False


def _tasks() -> set[Any]:
    if _runs("asyncio"):
        return {*asyncio.all_tasks()}
    if _runs("trio"):
        return {*_descendants(sys.modules["trio"].lowlevel.current_root_task())}
    return set()


def _descendants(task: Any) -> Generator[Any]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _descendants(child)


async def _nap(seconds: float) -> None:
    """Sleep in whatever runs: asyncio, trio, or nothing."""
    if _runs("asyncio"):
        await asyncio.sleep(seconds)
    elif _runs("trio"):
        await sys.modules["trio"].sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs


class no_leaks:  # noqa: N801 - reads as a statement: `with no_leaks():`
    """Check that descriptors, threads and tasks are back to what they were, soon after the block.

    `async with` lets a running event loop work while it waits; it also works where none runs. A block that
    raises is not checked.

    Args:
        within: Seconds that giving back may take.
    """

    def __init__(self, within: float = 1.0) -> None:
        self._within = within

    def __enter__(self) -> None:
        self._before = Resources.now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + self._within
        while error is None and self._leaks(end):
            time.sleep(0.005)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end = time.monotonic() + self._within
        while error is None and self._leaks(end):
            await _nap(0.005)

    def _leaks(self, end: float) -> list[str]:
        leaks = Resources.now().beyond(self._before)
        if leaks and time.monotonic() > end:
            raise AssertionError("not given back:\n" + "\n".join(leaks))
        return leaks


@pytest.fixture
def leaves_nothing() -> Generator[None]:
    """Check oracle O4 around a whole test; ask for it before the fixtures that it is to check."""
    with no_leaks():
        yield


class Hung(BaseException):
    """A block took too long; no `Exception`, so that no library translates it."""


@contextlib.contextmanager
def must_not_hang(seconds: float = 10.0) -> Generator[None]:
    """Raise `Hung` out of a block of the main thread that takes longer than so many seconds."""

    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise Hung(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    around, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, around)  # of a block around this one

"""One scenario, three ways to run it: the async client under asyncio and under trio, and the sync client.

A fourth is the async client over aiohttp, for what depends on who moves the bytes.

A scenario is written once, as a coroutine function that gets the client:

    async def scenario(lexi):
        reply = await lexi.chat("Hi")
        async for event in lexi.stream_chat("Hi"): ...
        async with lexi.stream_chat("Hi") as stream:
            async for delta in stream.text_stream: ...
            reply = await stream.final_reply()

    reply = runner.run(scenario, base_url=server.url)

For the sync client an adapter turns each await into a call. Such a scenario may await the client and what a
`Runner` offers, and nothing else.
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Protocol, Self, TypeVar

import anyio
import pytest

_T = TypeVar("_T")
Main = Callable[[], Coroutine[Any, Any, _T]]
Scenario = Callable[[Any], Coroutine[Any, Any, _T]]

API_KEY = "wbk_test_0123456789abcdef"

#: The only names that the sync client has otherwise.
_SYNC_NAMES = {"aclose": "close"}


class Adapted:
    """Something of the sync client that can be awaited, iterated and entered as if it were of the async one.

    Every call is made at once and gives another one of these; awaiting that gives what the call returned.
    Attributes come as they are, iterators adapted.

    Args:
        value: What the sync client has or returned.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._value, _SYNC_NAMES.get(name, name))
        if callable(found):
            return functools.partial(_call, found)
        return Adapted(found) if isinstance(found, Iterator) else found

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from ()
        return self._value

    def __aiter__(self) -> Self:
        return type(self)(iter(self._value))

    async def __anext__(self) -> Any:
        try:
            return next(self._value)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return type(self)(self._value.__enter__())

    async def __aexit__(self, *error: object) -> Any:
        return self._value.__exit__(*error)


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Adapted:
    return Adapted(function(*args, **options))


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for what a server, a thread or another process does, for ten seconds at most."""
    drive(SyncRunner().until(happened))


def drive(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never has to wait; `RuntimeError` if it does."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("this scenario awaits something that is neither the client nor the runner")


class Runner(Protocol):
    """One way to use leadlex."""

    name: str

    def make(self, **options: Any) -> Any:
        """Make a client, to be entered by `async with` inside `drive`."""

    def drive(self, main: Main[_T]) -> _T:
        """Run a coroutine function in this runner's way and give what it returns."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Let some time pass."""

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait for what a server, a thread or another task does, for ten seconds at most."""
        end = time.monotonic() + 10
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            await self.sleep(0.005)

    async def together(self, *mains: Main[_T]) -> list[_T | Exception]:
        """Run several side by side, in tasks or threads; give what each returned or raised, in order."""
        raise NotImplementedError

    def run(self, scenario: Scenario[_T], **options: Any) -> _T:
        """Run a scenario with a client, which is closed at its end.

        Args:
            scenario: Gets the client.
            options: The client's; an invented API key is added.
        """

        async def main() -> _T:
            async with self.make(**{"api_key": API_KEY, **options}) as lexi:
                return await scenario(lexi)

        return self.drive(main)


class AsyncRunner(Runner):
    """The async client.

    Args:
        backend: `asyncio` or `trio`.
        client: What to call for a client; by default `leadlex.AsyncLeadLex`.
    """

    def __init__(self, backend: str, client: Callable[..., Any] | None = None) -> None:
        self.name = backend
        self._client = client

    def make(self, **options: Any) -> Any:
        """Make a client."""
        return (self._client or _leadlex().AsyncLeadLex)(**options)

    def drive(self, main: Main[_T]) -> _T:
        """Run in an event loop of its own."""
        return anyio.run(main, backend=self.name)

    async def sleep(self, seconds: float) -> None:
        """Let the loop go on."""
        await anyio.sleep(seconds)

    async def together(self, *mains: Main[_T]) -> list[_T | Exception]:
        """Run in tasks of one group."""
        ends: dict[int, _T | Exception] = {}

        async def end(number: int, main: Main[_T]) -> None:
            try:
                ends[number] = await main()
            except Exception as error:  # noqa: BLE001 - handed over
                ends[number] = error

        async with anyio.create_task_group() as group:
            for number, main in enumerate(mains):
                group.start_soon(end, number, main)
        return [ends[number] for number in range(len(mains))]


class AiohttpRunner(AsyncRunner):
    """The async client over aiohttp."""

    def __init__(self) -> None:
        super().__init__("asyncio")
        self.name = "aiohttp"

    def make(self, *, max_connections: int = 1000, **options: Any) -> Any:
        """Make a client."""
        client = functools.partial(_leadlex().aiohttp_client, max_connections=max_connections)
        return super().make(**{"http_client": client, **options})

    def drive(self, main: Main[_T]) -> _T:
        """Run in an event loop of its own."""
        return anyio.run(main, backend="asyncio")


class SyncRunner(Runner):
    """The sync client, through `Adapted`.

    Args:
        client: What to call for a client; by default `leadlex.LeadLex`.
    """

    name = "sync"

    def __init__(self, client: Callable[..., Any] | None = None) -> None:
        self._client = client

    def make(self, **options: Any) -> Any:
        """Make a client and adapt it."""
        return Adapted((self._client or _leadlex().LeadLex)(**options))

    def drive(self, main: Main[_T]) -> _T:
        """Run right here; there is nothing to wait for."""
        return drive(main())

    async def sleep(self, seconds: float) -> None:
        """Block."""
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs

    async def together(self, *mains: Main[_T]) -> list[_T | Exception]:
        """Run in threads."""

        def end(main: Main[_T]) -> _T | Exception:
            try:
                return drive(main())
            except Exception as error:  # noqa: BLE001 - handed over
                return error

        with concurrent.futures.ThreadPoolExecutor(max(1, len(mains))) as pool:
            return list(pool.map(end, mains))


def _leadlex() -> Any:
    import leadlex  # noqa: PLC0415 - the support must load where the client does not

    return leadlex


RUNNERS: list[Runner] = [AsyncRunner("asyncio"), AsyncRunner("trio"), SyncRunner()]

OVER_AIOHTTP: Runner = AiohttpRunner()

every_runner = pytest.mark.parametrize("runner", RUNNERS, ids=lambda runner: runner.name)


@pytest.fixture(params=RUNNERS, ids=lambda runner: runner.name)
def runner(request: pytest.FixtureRequest) -> Runner:
    """Give each runner in turn."""
    found: Runner = request.param
    return found

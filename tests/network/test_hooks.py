"""Hooks of the user's own client, which read bodies and raise: what came is used, and a status is believed."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import httpx
import pytest

from leadlex import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    AuthenticationError,
    InsufficientCreditsError,
    RateLimitError,
    ServerError,
)
from tests.support.captures import CAPTURE_TEXT
from tests.support.lexi import CHAT, Answer, Cut, LexiScript
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import Runner
from tests.support.server import ScriptedServer

Hook = Callable[[httpx.Response], Awaitable[object]]


async def read(response: httpx.Response) -> None:
    """Read the body, as to log it."""
    await response.aread()


async def drop(response: httpx.Response) -> None:
    """Read the body and keep nothing of it."""
    async for _ in response.aiter_bytes():
        pass


async def check(response: httpx.Response) -> None:
    """Raise for the status, as httpx's documentation shows."""
    response.raise_for_status()


async def read_and_check(response: httpx.Response) -> None:
    """Do both."""
    await response.aread()
    response.raise_for_status()


async def complain(response: httpx.Response) -> None:
    """Raise something of one's own."""
    if response.status_code != 200:
        raise ZeroDivisionError


def client(hook: Hook) -> Callable[[], httpx.AsyncClient]:
    """Give what makes clients with a hook."""
    return partial(httpx.AsyncClient, event_hooks={"response": [hook]})


def run(runner: Runner, scenario: Any, script: LexiScript, hook: Hook, **options: Any) -> None:
    """Run a scenario whose client has a hook."""
    with ScriptedServer(script) as server, no_leaks(), must_not_hang(20):
        runner.run(scenario, base_url=server.url, http_client=client(hook), **options)


def test_a_body_that_was_read(runner: Runner) -> None:
    """What a hook read is the answer, of a call and of a stream."""

    async def scenario(lexi: Any) -> None:
        for _ in range(2):
            assert (await lexi.chat("Hi")).response == CHAT["response"]
            assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT
            assert len(await lexi.tasks()) == 1

    run(runner, scenario, LexiScript(), read)


def test_a_body_that_was_dropped(runner: Runner) -> None:
    """Where a hook left nothing the answer can't be used, and the error says so."""

    async def scenario(lexi: Any) -> None:
        for call in (lexi.chat, lambda message: lexi.stream_chat(message).final_reply()):
            with pytest.raises(APIResponseError, match="a hook of http_client left nothing of its body") as info:
                await call("Hi")
            assert info.value.charged == "unknown"

    run(runner, scenario, LexiScript(), drop, retries=0)


REFUSALS: list[tuple[int, str, type[APIStatusError]]] = [
    (401, "invalid_key", AuthenticationError),
    (402, "insufficient_credits", InsufficientCreditsError),
    (429, "rate_limited", RateLimitError),
]


@pytest.mark.parametrize("hook", [read, read_and_check])
@pytest.mark.parametrize(("status", "code", "error"), REFUSALS)
def test_a_refusal_that_was_read(
    runner: Runner, hook: Hook, status: int, code: str, error: type[APIStatusError]
) -> None:
    """Where the hook read the refusal, it is the service's word, whether the hook raises or not."""

    async def scenario(lexi: Any) -> None:
        for call in (lexi.chat, lambda message: lexi.stream_chat(message).final_reply()):
            with pytest.raises(error) as info:
                await call("Hi")
            assert (info.value.from_service, info.value.charged, info.value.code) == (True, "no", code)

    answer = Answer(status, code=code)
    run(runner, scenario, LexiScript(chat_fault=answer, stream_fault=answer), hook, retries=0)


@pytest.mark.parametrize("hook", [check, complain, drop])
@pytest.mark.parametrize(("status", "code", "error"), REFUSALS)
def test_a_status_is_believed(runner: Runner, hook: Hook, status: int, code: str, error: type[APIStatusError]) -> None:
    """Where nothing but the status is left, that one counts; who said it is not known, so the charge is not either."""

    async def scenario(lexi: Any) -> None:
        for call in (lexi.chat, lambda message: lexi.stream_chat(message).final_reply()):
            with pytest.raises(error, match=f"The answer was {status}, and a hook of http_client left nothing") as info:
                await call("Hi")
            assert (info.value.status_code, info.value.from_service, info.value.charged) == (status, False, "unknown")
            assert "await response.aread()" in str(info.value)

    answer = Answer(status, code=code)
    run(runner, scenario, LexiScript(chat_fault=answer, stream_fault=answer), hook, retries=0)


def test_a_status_that_passes(runner: Runner) -> None:
    """A 503 for which a hook raises is tried again as any 503, and a redirect is not followed."""

    async def scenario(lexi: Any) -> None:
        with pytest.raises(APIResponseError, match="redirect"):
            await lexi.tasks()
        assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT
        assert len(await lexi.tasks()) == 1
        with pytest.raises(ServerError):
            await lexi.chat("Hi")

    busy, moved = Answer(503, code="busy"), Answer(302, b"", headers={"Location": "http://127.0.0.1/login"})
    run(runner, scenario, LexiScript(stream_fault=busy, chat_fault=busy, other_fault=[moved, busy]), check)


def test_a_hook_that_fails_on_a_good_answer(runner: Runner) -> None:
    """A hook's own mistake over a good answer loses that answer, which may have been paid."""

    async def fail(_: httpx.Response) -> None:
        raise ZeroDivisionError

    async def scenario(lexi: Any) -> None:
        with pytest.raises(APIConnectionError) as info:
            await lexi.chat("Hi")
        assert info.value.charged == "unknown"

    run(runner, scenario, LexiScript(), fail)


def test_generators_within_generators(runner: Runner) -> None:
    """A stream that is closed in its middle leaves none of httpx's generators open: no loop, nor trio, warns of any."""

    async def scenario(lexi: Any) -> None:
        async with lexi.stream_chat("Hi") as stream:
            await anext(stream)
        gc.collect()

    script = LexiScript(stream_fault=Cut(300, "stall"))
    with ScriptedServer(script) as server, no_leaks():
        runner.run(scenario, base_url=server.url, http_client=httpx.AsyncClient)
    with ScriptedServer(LexiScript(stream_fault=Cut(300, "stall"))) as server, no_leaks():
        runner.run(scenario, base_url=server.url)

"""leadlex behind nginx and haproxy, as firms put them between their machines and the world."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from leadlex import (
    APIResponseError,
    APIStatusError,
    BadRequestError,
    LeadLexError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)
from leadlex.sandbox import Sandbox
from tests.matrix.oracles import CALLS, CHARGED, Call, observe, spoiled
from tests.matrix.test_a_connect import trusted as trusted  # noqa: PLC0414  # a fixture
from tests.policy.test_outage import HASTY, ask, outage
from tests.support.captures import CAPTURE_EVENTS, CAPTURE_TEXT, LONG, LONG_TEXT
from tests.support.lexi import Cut, LexiScript, Lost, one_by_one
from tests.support.middlebox import DENIALS, free_port, middlebox, needed
from tests.support.runners import AsyncRunner, Runner
from tests.support.server import ScriptedServer
from tests.test_advice import QUESTION, arguments_in, failed

ONE_RUNNER = AsyncRunner("asyncio")
pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture(params=["nginx", "haproxy"])
def box(request: pytest.FixtureRequest) -> str:
    """Name each program in turn."""
    name = str(request.param)
    needed(name)
    return name


UPSTREAM = free_port()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Run one nginx for all that its paths tell it."""
    with middlebox("nginx", UPSTREAM, tmp_path_factory.mktemp("nginx")) as url:
        yield url


@pytest.fixture(scope="module")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """Run one haproxy, which denies what is called under the number of a status."""
    with middlebox("haproxy", UPSTREAM, tmp_path_factory.mktemp("haproxy")) as url:
        yield url


@pytest.fixture(name="server")
def served() -> Generator[ScriptedServer]:
    """Serve Lexi behind them."""
    with ScriptedServer(LexiScript(), port=UPSTREAM) as server:
        yield server


both_ways = pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])


@both_ways
@pytest.mark.parametrize("call", CALLS)
def test_whole_answers(call: Call, box: str, tmp_path: Path, *, buffering: bool) -> None:
    """Every call goes well through TLS with a private authority, whether the box holds back what passes or not."""
    script = LexiScript(stream=LONG, sizes=(7,))
    with ScriptedServer(script) as server, middlebox(box, server.port, tmp_path, buffering=buffering) as url:
        observe(ONE_RUNNER, call, server, base_url=url, truth=LONG_TEXT).expect(None, attempts=1)


@both_ways
def test_sandbox_behind_a_box(runner: Runner, box: str, tmp_path: Path, *, buffering: bool) -> None:
    """The sandbox answers through a box as it does without one, and one stream is charged once."""

    async def scenario(lexi: Any) -> None:
        async with lexi.stream_chat("Summarize my pipeline") as stream:
            deltas = [delta async for delta in stream.text_stream]
            reply = await stream.final_reply()
        assert "".join(deltas) == reply.response
        assert (await lexi.conversation(reply.conversation_id)).messages

    with Sandbox(pace=0) as sandbox:
        port = int(sandbox.url.removesuffix("/").rpartition(":")[2])
        with middlebox(box, port, tmp_path, buffering=buffering) as url:
            runner.run(scenario, api_key=sandbox.api_key, base_url=url)
        assert len(sandbox.charges) == 1


def test_events_pass_as_they_come(runner: Runner, box: str, tmp_path: Path) -> None:
    """A box that does not hold back lets every event through before the next one is written."""

    async def scenario(lexi: Any) -> int:
        server.release("event 0")
        number = 0
        async for _ in lexi.stream_chat("Summarize my pipeline"):
            number += 1
            server.release(f"event {number}")
        return number

    with (
        ScriptedServer(spoiled("stream", one_by_one)) as server,
        middlebox(box, server.port, tmp_path) as url,
    ):
        assert runner.run(scenario, base_url=url) == len(CAPTURE_EVENTS)


@both_ways
def test_read_timeout_cuts_a_stream(runner: Runner, box: str, tmp_path: Path, *, buffering: bool) -> None:
    """A stream that a box cuts because Lexi was silent is continued with its key, and charged once."""
    stall = Cut(2000, how="stall")
    with (
        ScriptedServer(spoiled("stream", stall, stream=LONG, sizes=(50,))) as server,
        middlebox(box, server.port, tmp_path, buffering=buffering, timeout=0.4) as url,
    ):
        seen = observe(runner, "stream", server, base_url=url, truth=LONG_TEXT)
        seen.expect(None, attempts=2)
        assert len({each.idempotency_key for each in server.requests[:2]}) == 1


def test_read_timeout_cuts_every_stream(runner: Runner, box: str, tmp_path: Path) -> None:
    """Where the box cuts every time, what came is handed over and never taken for the whole."""
    stall = Cut(2000, how="stall")
    with (
        ScriptedServer(spoiled("stream", stall, times=3, stream=LONG, sizes=(50,))) as server,
        middlebox(box, server.port, tmp_path, timeout=0.3) as url,
    ):
        seen = observe(runner, "stream", server, base_url=url, truth=LONG_TEXT)
        seen.expect(StreamInterruptedError, charged="unknown", attempts=3)
        assert seen.text


@pytest.mark.parametrize("call", CALLS)
def test_read_timeout_before_the_answer(call: Call, box: str, tmp_path: Path) -> None:
    """A 504 of a box says nothing of the charge: a chat is not sent again, a stream with its key and a GET are."""
    with (
        ScriptedServer(spoiled(call, Lost("stall"))) as server,
        middlebox(box, server.port, tmp_path, timeout=0.3) as url,
    ):
        seen = observe(ONE_RUNNER, call, server, base_url=url)
        if call == "chat":
            seen.expect(ServerError, charged="unknown", attempts=1, status_code=504)
        else:
            seen.expect(None, attempts=2)


@pytest.mark.parametrize("call", CALLS)
def test_nobody_behind_the_box(call: Call, box: str, tmp_path: Path) -> None:
    """A 502 or 503 of a box is told as unknown: it can't be seen from here that nobody read the request."""
    with ScriptedServer(LexiScript()) as gone:
        port = gone.port
    with middlebox(box, port, tmp_path) as url:
        seen = observe(ONE_RUNNER, call, base_url=url, healed=None)
        seen.expect(ServerError, charged="no" if call == "get" else "unknown", attempts=1 if call == "chat" else 3)


# In the place of an answer -----------------------------------------------------------------------------------------


def check_denial(runner: Runner, call: Call, server: ScriptedServer, url: str, status: int) -> None:
    """Check what is told of an answer that haproxy, which has no name of its own, replaced by its page."""
    before = len(server.ledger.by_call)
    seen = observe(runner, call, server, base_url=f"{url}/{status}")
    error = seen.error
    assert isinstance(error, APIStatusError | APIResponseError)
    assert (error.charged, error.from_service) == (CHARGED[call], False)
    assert f"Something between here and LeadLex answered {status} (text/html): <html>" in str(error)
    assert f"base_url, which is {url}/{status}," in str(error)
    assert len(server.ledger.by_call) - before == (call != "get")


@pytest.mark.parametrize("status", DENIALS)
def test_an_answer_is_denied(haproxy: str, server: ScriptedServer, status: int) -> None:
    """Whatever status a box puts in the place of an answer that was paid for, nobody says that it cost nothing."""
    for call in CALLS:
        check_denial(ONE_RUNNER, call, server, haproxy, status)


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_is_denied_to_every_client(runner: Runner, call: Call, haproxy: str, server: ScriptedServer) -> None:
    """Each client tells it so."""
    check_denial(runner, call, server, haproxy, 403)


# What nginx says, by the path that is called.
REFUSED: dict[str, tuple[type[LeadLexError], str]] = {
    "/denied": (PermissionDeniedError, r"answered 403 \(nginx.*403 Forbidden"),
    "/returned": (PermissionDeniedError, r"answered 403 \(nginx.*403 Forbidden"),
    "/small": (APIStatusError, r"answered 413 \(nginx.*413 Request Entity Too Large"),
    "/portal": (APIResponseError, r"answered 302 \(nginx.*redirect to https://portal\.example/login, which is not"),
    "/wrong": (NotFoundError, r"answered 404 \(nginx.*404 Not Found"),
}


@pytest.mark.parametrize("call", ["chat", "stream"])
@pytest.mark.parametrize("path", REFUSED)
def test_a_call_is_refused(call: Call, path: str, nginx: str, server: ScriptedServer) -> None:
    """A call that a box refuses is told with the box's own words, and never blamed on the API key or the id."""
    kind, says = REFUSED[path]
    seen = observe(ONE_RUNNER, call, server, base_url=nginx + path, healed=None)
    seen.expect(
        kind, charged="unknown", attempts=1, from_service=False, says=f"{says}.*base_url, which is {nginx}{path}"
    )
    assert not server.requests


def test_plain_http_to_a_tls_port(runner: Runner, nginx: str, server: ScriptedServer) -> None:
    """A base URL with http:// where TLS is spoken is told as what the box says of it."""
    plain = nginx.replace("https://", "http://")
    seen = observe(runner, "chat", server, base_url=plain, healed=None)
    says = f"answered 400.*plain HTTP request was sent to HTTPS port.*base_url, which is {plain}"
    seen.expect(BadRequestError, charged="unknown", attempts=1, from_service=False, says=says)


@pytest.mark.parametrize(("path", "kind"), [("/limited", RateLimitError), ("/busy", ServerError)])
def test_a_box_counts_requests(path: str, kind: type[LeadLexError], nginx: str, server: ScriptedServer) -> None:
    """A box's own limit is not the quota of the API key, and does not say that nothing was charged."""
    observe(ONE_RUNNER, "chat", server, base_url=nginx + path, healed=None)
    seen = observe(ONE_RUNNER, "chat", server, base_url=nginx + path, healed=None)
    seen.expect(kind, charged="unknown", attempts=1, from_service=False, says=r"answered (429|503) \(nginx")
    assert len(server.requests) == 1


def test_the_service_restarts_behind_a_box(runner: Runner, box: str, tmp_path: Path) -> None:
    """A stream goes on when the service behind the box is restarted in the middle of it, and is charged once."""

    async def scenario(lexi: Any) -> list[Any]:
        return await ask(runner, lexi, 1)

    with outage(0.3) as (url, check), middlebox(box, urlsplit(url).port or 0, tmp_path) as front:
        assert runner.run(scenario, base_url=front, retries=HASTY) == [CAPTURE_TEXT]
        check()


@pytest.mark.parametrize("path", ["/403", "/404", "/200", "/504"])
def test_the_advice_behind_a_box(runner: Runner, path: str, haproxy: str, server: ScriptedServer) -> None:
    """Once the box lets answers pass, the question is answered as its error says, and was charged once in all."""

    async def asked_again(lexi: Any, words: str) -> str:
        reply = await lexi.stream_chat(QUESTION, **arguments_in(words)).final_reply()
        return str(reply.response)

    error = runner.run(partial(failed, question=QUESTION), base_url=haproxy + path, retries=0)
    assert error.charged == "unknown"
    assert runner.run(partial(asked_again, words=str(error)), base_url=haproxy) == CAPTURE_TEXT
    assert server.ledger.by_call == {QUESTION: 1}
    assert {each.idempotency_key for each in server.requests} == {error.idempotency_key}

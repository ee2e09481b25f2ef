"""leadlex behind nginx and haproxy, as firms put them between their machines and the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leadlex import ServerError, StreamInterruptedError
from leadlex.sandbox import Sandbox
from tests.matrix.oracles import CALLS, Call, observe, spoiled
from tests.matrix.test_a_connect import trusted as trusted  # noqa: PLC0414  # a fixture
from tests.support.captures import CAPTURE_EVENTS, LONG, LONG_TEXT, encode_event
from tests.support.faces import AsyncFace, Face
from tests.support.lexi import Cut, LexiScript, Lost, Plain
from tests.support.middlebox import installed, middlebox
from tests.support.server import Connection, ScriptedServer

ONE_FACE = AsyncFace("asyncio")
pytestmark = pytest.mark.usefixtures("trusted")


@pytest.fixture(params=["nginx", "haproxy"])
def box(request: pytest.FixtureRequest) -> str:
    """Name each program in turn."""
    name = str(request.param)
    if not installed(name):
        pytest.skip(f"{name} is not installed: apt-get install nginx-light haproxy")
    return name


both_ways = pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])


@both_ways
@pytest.mark.parametrize("call", CALLS)
def test_whole_answers(call: Call, box: str, tmp_path: Path, *, buffering: bool) -> None:
    """Every call goes well through TLS with a private authority, whether the box holds back what passes or not."""
    script = LexiScript(stream=LONG, sizes=(7,))
    with ScriptedServer(script) as server, middlebox(box, server.port, tmp_path, buffering=buffering) as url:
        observe(ONE_FACE, call, server, base_url=url, truth=LONG_TEXT).expect(None, attempts=1)


@both_ways
def test_sandbox_behind_a_box(face: Face, box: str, tmp_path: Path, *, buffering: bool) -> None:
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
            face.run(scenario, api_key=sandbox.api_key, base_url=url)
        assert len(sandbox.charges) == 1


def test_events_pass_as_they_come(face: Face, box: str, tmp_path: Path) -> None:
    """A box that does not hold back lets every event through before the next one is written."""

    def one_by_one(connection: Connection, plain: Plain) -> None:
        connection.send(plain.head)
        for number, event in enumerate(CAPTURE_EVENTS):
            connection.wait_for(f"event {number}")
            connection.send(plain.frame(encode_event(event)))
        plain.end(connection)

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
        assert face.run(scenario, base_url=url) == len(CAPTURE_EVENTS)


@both_ways
def test_read_timeout_cuts_a_stream(face: Face, box: str, tmp_path: Path, *, buffering: bool) -> None:
    """A stream that a box cuts because Lexi was silent is continued with its key, and charged once."""
    stall = Cut(2000, how="stall")
    with (
        ScriptedServer(spoiled("stream", stall, stream=LONG, sizes=(50,))) as server,
        middlebox(box, server.port, tmp_path, buffering=buffering, timeout=0.4) as url,
    ):
        seen = observe(face, "stream", server, base_url=url, truth=LONG_TEXT)
        seen.expect(None, attempts=2)
        assert len({each.idempotency_key for each in server.requests[:2]}) == 1


def test_read_timeout_cuts_every_stream(face: Face, box: str, tmp_path: Path) -> None:
    """Where the box cuts every time, what came is handed over and never taken for the whole."""
    stall = Cut(2000, how="stall")
    with (
        ScriptedServer(spoiled("stream", stall, times=3, stream=LONG, sizes=(50,))) as server,
        middlebox(box, server.port, tmp_path, timeout=0.3) as url,
    ):
        seen = observe(face, "stream", server, base_url=url, truth=LONG_TEXT)
        seen.expect(StreamInterruptedError, charged="unknown", attempts=3)
        assert seen.text


@pytest.mark.parametrize("call", CALLS)
def test_read_timeout_before_the_answer(call: Call, box: str, tmp_path: Path) -> None:
    """A 504 of a box says nothing of the charge: a chat is not sent again, a stream with its key and a GET are."""
    with (
        ScriptedServer(spoiled(call, Lost("stall"))) as server,
        middlebox(box, server.port, tmp_path, timeout=0.3) as url,
    ):
        seen = observe(ONE_FACE, call, server, base_url=url)
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
        seen = observe(ONE_FACE, call, base_url=url, healed=None)
        seen.expect(ServerError, charged="no" if call == "get" else "unknown", attempts=1 if call == "chat" else 3)

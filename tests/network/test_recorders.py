"""What records or mocks HTTP in other people's tests, with a client that it can look into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.captures import CAPTURE_TEXT
from tests.support.lexi import CHAT, LexiScript
from tests.support.runners import API_KEY, Runner, SyncRunner
from tests.support.server import ScriptedServer

vcr: Any = pytest.importorskip("vcr")
respx: Any = pytest.importorskip("respx")

SEEN: dict[str, Any] = {"retries": 0, "http_client": httpx.AsyncClient}


async def ask_and_read(lexi: Any) -> None:
    """Ask for one answer and read another."""
    assert (await lexi.chat("Hi")).response == CHAT["response"]
    assert (await lexi.stream_chat("Hi").final_reply()).response == CAPTURE_TEXT


def test_vcrpy_records_and_plays(tmp_path: Path) -> None:
    """A cassette has the call and the stream, without the API key if it is told so, and plays both without a server."""
    cassette, recorder = tmp_path / "lexi.yaml", vcr.VCR(filter_headers=["authorization"])
    with ScriptedServer(LexiScript()) as server:
        with recorder.use_cassette(str(cassette)) as recorded:
            SyncRunner().run(ask_and_read, base_url=server.url, **SEEN)
        assert len(recorded) == 2
    assert API_KEY not in cassette.read_text("utf-8")
    with recorder.use_cassette(str(cassette), record_mode="none") as played:
        SyncRunner().run(ask_and_read, base_url=server.url, **SEEN)
        assert played.play_count == 2


@pytest.mark.filterwarnings("ignore:Not all that a leadlex client sends")
@pytest.mark.parametrize("options", [SEEN, {"retries": 0}], ids=["seen", "own connections"])
def test_respx_answers(runner: Runner, options: dict[str, Any]) -> None:
    """An answer that respx makes is taken for the service's, also where it finds a connection of our own."""
    url = "https://leadlex.invalid"

    async def ask(lexi: Any) -> None:
        assert (await lexi.chat("Hi")).response == "mocked"

    with respx.mock(base_url=url) as routes:
        routes.post("/v1/lexi/chat").respond(json={"data": {"response": "mocked"}})
        runner.run(ask, base_url=url, **options)

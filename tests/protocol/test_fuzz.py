"""Nothing that a server can send makes leadlex raise what is not its own, or take half an answer for a whole one.

The campaigns stand behind `-m heavy`: a million streams in memory, 20,000 sessions on a socket. Each input has a
number, which alone makes it; a failure names it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import anyio.lowlevel
import pytest

from leadlex import ChatReply, LeadLexError
from tests.matrix.oracles import PATIENT, peak_memory_below
from tests.support.answers import chunk, json_answer, last_chunk, sse_head
from tests.support.captures import CAPTURE
from tests.support.fuzz import chance_of, check, check_answer, mutated, pieces
from tests.support.lexi import BODIES
from tests.support.memory import MemoryTransport
from tests.support.resources import must_not_hang, no_leaks
from tests.support.runners import AsyncRunner, Runner, SyncRunner
from tests.support.server import Connection, ScriptedServer

_MEMORY = 64 << 20


async def _outcome_of(call: Any) -> object:
    try:
        return await call
    except Exception as error:  # noqa: BLE001  # check looks at it
        return error


@pytest.fixture(autouse=True)
def quiet() -> Generator[None]:
    """Write no log: pytest would keep a million records."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# In memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "count"),
    [(0, 3000), *(pytest.param(start, 100_000, marks=pytest.mark.heavy) for start in range(0, 1_000_000, 100_000))],
)
def test_streams(first: int, count: int) -> None:
    """Of damaged streams each is an error of leadlex, or whole with all its text; memory stays where it was."""

    async def ask() -> None:
        transport = MemoryTransport()
        for number in range(first, first + count):
            chance = chance_of(number)
            raw = mutated(chance)
            transport.pieces = pieces(chance, raw)
            async with transport.stream() as stream:
                check(raw, await _outcome_of(stream.final_reply()), number)
            # Nothing here waits, and only a loop that turns forgets the timers that were cancelled.
            await anyio.lowlevel.checkpoint()

    with peak_memory_below(_MEMORY):
        anyio.run(ask)


@pytest.mark.parametrize("count", [1000, pytest.param(200_000, marks=pytest.mark.heavy)])
def test_answers(count: int) -> None:
    """Of damaged JSON answers each is read, or refused with a reason."""
    with peak_memory_below(_MEMORY):
        for number in range(count):
            check_answer(chance_of(number))


# On a socket -------------------------------------------------------------------------------------------------------


class Session:
    """What one hostile server says: a stream damaged inside a whole HTTP message, or that message itself damaged.

    Args:
        number: Makes it.
    """

    def __init__(self, number: int) -> None:
        chance = chance_of(number)
        self.call = chance.choice(["stream", "stream", "chat", "get"])
        self.raw = mutated(chance) if self.call == "stream" and chance.random() < 0.5 else None
        if self.raw is not None:
            self.wire = sse_head() + b"".join(map(chunk, pieces(chance, self.raw))) + last_chunk()
        else:
            self.wire = mutated(chance, self._whole())
        self.pieces = pieces(chance, self.wire)
        self.resets = chance.random() < 0.3

    def _whole(self) -> bytes:
        if self.call == "stream":
            return sse_head() + chunk(CAPTURE) + last_chunk()
        return json_answer(200, BODIES["chat" if self.call == "chat" else "getConversation"])

    def __call__(self, connection: Connection) -> None:
        """Say it, and end the connection in one of two ways."""
        connection.send(*self.pieces)
        if self.resets:
            connection.rst()
        else:
            connection.fin()

    async def ask(self, lexi: Any, number: int) -> None:
        """Ask, and check what came of it."""
        outcome = await _outcome_of(self._call(lexi, number))
        if self.raw is not None:
            check(self.raw, outcome, number)
        elif self.call == "stream" and isinstance(outcome, ChatReply):
            assert b"done" in self.wire or b"[DONE]" in self.wire, number
        else:
            assert outcome is not None, number
            assert not isinstance(outcome, Exception) or isinstance(outcome, LeadLexError), (number, outcome)

    async def _call(self, lexi: Any, number: int) -> object:
        if self.call == "get":
            return await lexi.conversation(str(number))
        if self.call == "chat":
            return await lexi.chat(str(number))
        return await lexi.stream_chat(str(number)).final_reply()


def _serve(connection: Connection) -> None:
    request = connection.receive_request()
    number = request.json["message"] if request.json else request.path.rpartition("/")[2]
    Session(int(number))(connection)


@pytest.mark.parametrize(
    ("runner", "count"),
    [
        (AsyncRunner("asyncio"), 20),
        (AsyncRunner("trio"), 20),
        (SyncRunner(), 20),
        pytest.param(AsyncRunner("asyncio"), 10_000, marks=pytest.mark.heavy),
        pytest.param(AsyncRunner("trio"), 2000, marks=pytest.mark.heavy),
        pytest.param(SyncRunner(), 8000, marks=pytest.mark.heavy),
    ],
    ids=["asyncio", "trio", "sync", "asyncio-long", "trio-long", "sync-long"],
)
def test_sessions(runner: Runner, count: int) -> None:
    """Whatever comes over a socket, each call ends, by an answer or an error of leadlex, and nothing is left open."""

    async def scenario(lexi: Any) -> None:
        for number in range(count):
            await Session(number).ask(lexi, number)

    with no_leaks(), must_not_hang(30 + count / 10), peak_memory_below(_MEMORY), ScriptedServer(_serve) as server:
        runner.run(scenario, base_url=server.url, retries=0, resume=False, timeout=PATIENT)

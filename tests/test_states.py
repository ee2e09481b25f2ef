"""Streams as Hypothesis uses them: opened, read, left, cut and cancelled in any order, while clocks jump.

Whatever the order, what came is the beginning of the true answer, its end is proved, and it is charged once.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from leadlex import AsyncChatStream, AsyncLeadLex, LeadLexError, RetryPolicy, TextDelta
from tests.support.captures import CAPTURE, CAPTURE_TEXT
from tests.support.lexi import Cut, LexiScript, Plain
from tests.support.resources import no_leaks
from tests.support.runners import API_KEY
from tests.support.server import Connection, ScriptedServer
from tests.support.times import Turned

DAY = 86_400.0


class Cuts:
    """Break off the next answers where the machine says."""

    def __init__(self) -> None:
        self.due: collections.deque[Cut] = collections.deque()

    def __call__(self, connection: Connection, plain: Plain) -> None:
        """Answer, or break off."""
        if self.due:
            self.due.popleft()(connection, plain)
        else:
            plain.send(connection)


@dataclasses.dataclass
class Held:
    """A stream, and what of it was seen."""

    stream: AsyncChatStream
    text: str = ""
    is_whole: bool = False


class Streams(RuleBasedStateMachine):
    """One client, its streams and its server."""

    held: Bundle[Held] = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.cuts, self.time, self.ends = Cuts(), Turned(), contextlib.ExitStack()
        self.ends.enter_context(no_leaks())
        script = LexiScript(stream_fault=self.cuts, times=None, sizes=(40,))
        self.server = self.ends.enter_context(ScriptedServer(script))
        self.runner = self.ends.enter_context(asyncio.Runner())
        with self.time:
            self.lexi = AsyncLeadLex(API_KEY, base_url=self.server.url, retries=RetryPolicy(base=0.01))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run something to its end in the client's loop."""
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        """Close the client; nothing is left, neither here nor of the streams."""
        self.run(self.lexi.aclose())
        self.ends.close()

    # What may happen --------------------------------------------------------------------------------------------

    @rule(target=held)
    def open(self) -> Held:
        """Ask for a stream; nothing is sent before it is read."""
        return Held(self.lexi.stream_chat("Hi"))

    @precondition(lambda self: len(self.cuts.due) < 4)
    @rule(after=st.integers(0, len(CAPTURE)), how=st.sampled_from(["fin", "rst"]))
    def cut(self, after: int, how: Any) -> None:
        """Let one of the next answers break off."""
        self.cuts.due.append(Cut(after, how))

    @rule(one=held, count=st.integers(1, 3))
    def next(self, one: Held, count: int) -> None:
        """Read some events."""
        for _ in range(count):
            self.run(self._next(one))

    @rule(one=held, turns=st.integers(0, 12))
    def cancel(self, one: Held, turns: int) -> None:
        """Cancel a reader after the loop turned a few times."""
        self.run(self._cancel(one, turns))

    @rule(one=held)
    def close(self, one: Held) -> None:
        """Close a stream, once more too."""
        self.run(one.stream.aclose())

    @rule(one=consumes(held))
    def finish(self, one: Held) -> None:
        """Read to the end."""
        self.run(self._finish(one))

    @rule(seconds=st.sampled_from([1.0, 60.0, DAY, 2 * DAY]))
    def sleep(self, seconds: float) -> None:
        """Suspend the machine."""
        self.time.advance(seconds)

    @rule(seconds=st.sampled_from([-DAY, -1.0, 1.0, DAY]))
    def set_clock(self, seconds: float) -> None:
        """Set the wall clock."""
        self.time.wall_ahead += seconds

    # What is true then ------------------------------------------------------------------------------------------

    @invariant()
    def charged_once(self) -> None:
        """No stream is ever charged twice."""
        assert max(self.server.ledger.by_key.values(), default=0) <= 1

    async def _next(self, one: Held) -> None:
        try:
            event = await anext(one.stream)
        except StopAsyncIteration:
            one.is_whole = True
            assert one.text == one.stream.reply.response == CAPTURE_TEXT
        except LeadLexError as error:
            self._check(one, error)
        else:
            assert not one.is_whole
            one.text += event.delta if isinstance(event, TextDelta) else ""
            assert CAPTURE_TEXT.startswith(one.text)

    async def _cancel(self, one: Held, turns: int) -> None:
        reader = asyncio.create_task(self._next(one))
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader

    async def _finish(self, one: Held) -> None:
        try:
            reply = await one.stream.final_reply()
        except LeadLexError as error:
            self._check(one, error)
        else:
            assert reply.response == CAPTURE_TEXT

    def _check(self, one: Held, error: LeadLexError) -> None:
        assert not one.is_whole
        charges = self.server.ledger.by_key[one.stream.idempotency_key]
        assert charges in {"no": (0,), "unknown": (0, 1), "yes": (1,)}[error.charged]
        assert error.partial is None or error.partial.response.startswith(one.text)


TestStreams = Streams.TestCase
TestStreams.__doc__ = "In whatever order a stream is used, nothing is lost, made up, charged twice or left behind."
TestStreams.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

"""What was handed out of a stream, and whether a replay continues it.

Rule: content is compared, not events; a replay may cut its deltas elsewhere. Two different answers are never joined.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from attrs import evolve

from ._events import Done, StreamEvent, TextDelta, Thinking, ToolStep, size_of
from ._log import record
from ._meta import Meta
from ._models import ChatReply

KEPT: Final = 8 << 20
"""Bytes of thinking and tool steps that a reply keeps."""

_BLOCK = 1024


class Divergence(Exception):
    """Tell that a replay is not the answer that was begun."""

    def __init__(self, why: str, replayed: str, conversation_id: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.replayed = replayed
        self.conversation_id = conversation_id


class Transcript:
    """Keep what was handed out; text in joined blocks, since a million small strings cost 62 MiB.

    Thinking and tool steps are kept up to a bound; from there on they are counted, so that a replay can skip them.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._blocks: list[str] = []
        self.length: int = 0
        self.thinking: list[str] = []
        self.tool_steps: list[ToolStep] = []
        self.thoughts: int = 0
        self.steps: int = 0
        self.others: int = 0
        self._room = KEPT
        self.conversation_id: str | None = None
        self.done: Done | None = None

    def add(self, event: StreamEvent) -> None:
        """Take in an event that is handed out."""
        if type(event) is TextDelta:
            self._add_text(event)
        elif type(event) is Thinking:
            self.thoughts += 1
            if self._keeps(event):
                self.thinking.append(event.text)
        elif type(event) is ToolStep:
            self.steps += 1
            if self._keeps(event):
                self.tool_steps.append(event)
        elif type(event) is Done:
            self.done = event
        else:
            self.others += 1

    def _add_text(self, event: TextDelta) -> None:
        self._pieces.append(event.delta)
        self.length += len(event.delta)
        if event.conversation_id is not None:
            self.conversation_id = event.conversation_id
        if len(self._pieces) >= _BLOCK:
            self._blocks.append("".join(self._pieces))
            self._pieces.clear()

    def _keeps(self, event: StreamEvent) -> bool:
        """Tell whether there is room for an event; once there was none for one, no other is kept."""
        if self._room >= 0:
            self._room -= size_of(event)
            if self._room < 0:
                record(logging.WARNING, "dropped", field=f"thinking and tool steps of a reply, after {KEPT >> 20} MiB")
        return self._room >= 0

    @property
    def text(self) -> str:
        """Give all text so far."""
        return "".join([*self._blocks, *self._pieces])

    @property
    def begun(self) -> bool:
        """Tell whether anything was handed out."""
        return bool(self.length or self.thoughts or self.steps or self.others or self.done)

    @property
    def extent(self) -> int:
        """Measure what was handed out, so that more of it can be told from the same."""
        return self.length + self.thoughts + self.steps + self.others

    @property
    def billed(self) -> bool:
        """Tell whether the stream told of its charge; a bare `[DONE]` proves its end and no more."""
        return self.done is not None and self.done != Done()

    def reply(self, conversation_id: str | None, meta: Meta | None) -> ChatReply:
        """Make the reply as far as it has come."""
        done = self.done or Done()
        return ChatReply(
            response=self.text,
            conversation_id=self.conversation_id or conversation_id,
            message_id=done.message_id,
            credits_remaining=done.credits_remaining,
            thinking=tuple(self.thinking),
            tool_steps=tuple(self.tool_steps),
            meta=meta,
        )


class Replay:
    """Hold a second stream against what the first one handed out, and let through only what is new.

    While it compares, nothing comes out: the user sees a pause, never a repetition.
    """

    def __init__(self, transcript: Transcript) -> None:
        self._expected = transcript.text
        self._steps = deque((step.tool, step.status) for step in transcript.tool_steps)
        self._forgotten = transcript.steps - len(transcript.tool_steps)
        self._conversation_id = transcript.conversation_id
        self._thoughts = transcript.thoughts
        self._others = transcript.others
        self._at = 0
        self._passed = False

    def new_part(self, event: StreamEvent) -> StreamEvent | None:
        """Return the event, or the part of it, that was not handed out before.

        Raises:
            Divergence: The replay says something else.
        """
        if type(event) is TextDelta:
            return self._new_text(event)
        if type(event) is ToolStep:
            return self._new_step(event)
        if type(event) is Thinking:
            self._thoughts, skipped = max(0, self._thoughts - 1), self._thoughts > 0
            return None if skipped or not self.caught_up else event
        if type(event) is Done:
            self.check_end()
            return event
        self._others, skipped = max(0, self._others - 1), self._others > 0
        return None if skipped else event

    @property
    def caught_up(self) -> bool:
        """Tell whether the replay has said all text that was handed out."""
        return self._at >= len(self._expected)

    def check_end(self) -> None:
        """Refuse an end that comes before all that was handed out."""
        if not self.caught_up:
            raise Divergence("it ends earlier", self._expected[: self._at])

    def _new_text(self, event: TextDelta) -> TextDelta | None:
        self._check_conversation(event)
        missing = len(self._expected) - self._at
        known, new = event.delta[:missing], event.delta[missing:]
        if not self._expected.startswith(known, self._at):
            raise Divergence("it says something else", self._expected[: self._at] + event.delta)
        self._at += len(known)
        if not new:
            return None
        self._passed = True
        return event if not known else evolve(event, delta=new)

    def _check_conversation(self, event: TextDelta) -> None:
        if self._conversation_id and event.conversation_id not in (None, self._conversation_id):
            raise Divergence(
                "it belongs to another conversation, which may have been charged again",
                self._expected[: self._at] + event.delta,
                event.conversation_id,
            )

    def _new_step(self, event: ToolStep) -> ToolStep | None:
        step = (event.tool, event.status)
        if step in self._steps:
            while self._steps.popleft() != step:
                pass
            return None
        if self._forgotten:
            self._steps.clear()  # they came before those that were not kept
            self._forgotten -= 1
            return None
        # A replay that cut its text elsewhere may tell a step later: past the boundary a known one is still dropped.
        if not self._passed and (self._steps or not self.caught_up):
            raise Divergence("it took other steps", self._expected[: self._at])
        return event

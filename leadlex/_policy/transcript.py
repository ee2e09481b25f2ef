"""What was handed out of a stream."""

from __future__ import annotations

import logging
from typing import Final

from leadlex._logging import record
from leadlex._values.events import Done, StreamEvent, TextDelta, Thinking, ToolStep, size_of

KEPT: Final = 8 << 20
"""Bytes of thinking and tool steps that a reply keeps."""

_BLOCK = 1024


class Transcript:
    """What was handed out; text in joined blocks, since a million small strings cost 62 MiB.

    Thinking and tool steps are kept up to a bound; from there on they are counted, so that a replay can skip them.

    Args:
        asked_id: The conversation that the question goes on with, if any.

    Attributes:
        told_id: The conversation that the answer says it belongs to.
    """

    def __init__(self, asked_id: str | None = None) -> None:
        self._pieces: list[str] = []
        self._blocks: list[str] = []
        self.length: int = 0
        self.thinking: list[str] = []
        self.tool_steps: list[ToolStep] = []
        self.thoughts: int = 0
        self.steps: int = 0
        self.others: int = 0
        self._room = KEPT
        self._asked_id = asked_id
        self.told_id: str | None = None
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
            self.told_id = event.conversation_id
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

    @property
    def conversation_id(self) -> str | None:
        """Give the conversation's id, once it is known."""
        return self.told_id or self._asked_id

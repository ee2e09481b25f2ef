"""Whether a second stream continues what was handed out of the first.

Rule: content is compared, not events; a replay may cut its deltas elsewhere. Two different answers are never joined.
"""

from __future__ import annotations

from collections import deque

from attrs import evolve

from leadlex._values.events import Done, StreamEvent, TextDelta, Thinking, ToolStep

from .transcript import Transcript


class Divergence(Exception):
    """A replay that is not the answer that was begun."""

    def __init__(self, why: str, replayed: str, conversation_id: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.replayed = replayed
        self.conversation_id = conversation_id


class Replay:
    """The comparison of a second stream with what the first one handed out; only what is new comes through.

    While it compares, nothing comes out: the user sees a pause, never a repetition.
    """

    def __init__(self, transcript: Transcript) -> None:
        self._expected = transcript.text
        self._steps = deque((step.tool, step.status) for step in transcript.tool_steps)
        self._forgotten = transcript.steps - len(transcript.tool_steps)
        self._conversation_id = transcript.told_id
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

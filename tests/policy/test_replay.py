"""What was handed out is kept, and a replay continues it or is told apart."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

import pytest

from leadlex import (
    ChatReply,
    Done,
    Meta,
    StreamEvent,
    TextDelta,
    Thinking,
    ToolStep,
    UnknownEvent,
)
from leadlex._policy.call import reply_of
from leadlex._policy.replay import Divergence, Replay
from leadlex._policy.transcript import KEPT, Transcript
from leadlex._values.events import size_of


def handed_out(*events: Any, asked: str | None = None) -> Transcript:
    """Hand out these events of an answer in a conversation."""
    transcript = Transcript(asked)
    for event in events:
        transcript.add(event)
    return transcript


STEP = ToolStep("deals.get", "started")


class TestTranscript:
    """What was handed out is kept, cheaply."""

    def test_text(self) -> None:
        """Text by the million pieces is the same text."""
        transcript = handed_out(
            *(TextDelta(str(i % 10), "conv_1" if i == 5 else None) for i in range(5000)), asked="conv_0"
        )
        assert (transcript.text, transcript.length) == ("0123456789" * 500, 5000)
        assert reply_of(transcript, None).conversation_id == "conv_1"

    @pytest.mark.parametrize("event", [TextDelta("a"), Thinking("a"), STEP, UnknownEvent("a", "b"), Done(1)])
    def test_begun(self, event: object) -> None:
        """Any event begins an answer; an empty delta does not."""
        assert handed_out(event).begun
        assert not handed_out(TextDelta("")).begun

    def test_bounded(self, caplog: pytest.LogCaptureFixture) -> None:
        """Of thinking and tool steps 8 MiB are kept, and the rest is counted; that is told once."""
        step = ToolStep("deals.get", "started", extra={"found": [{"id": "x" * 1000}] * 100})
        for event in (Thinking("x" * 10_000), ToolStep("t", "s", "x" * 10_000), step):
            transcript = handed_out(*[event] * 2000, TextDelta("a"), Thinking("late"), ToolStep("late", "late"))
            reply = reply_of(transcript, None)
            kept = len(reply.thinking) + len(reply.tool_steps)
            assert KEPT // 2 < kept * size_of(event) <= KEPT
            assert (transcript.thoughts + transcript.steps, reply.response) == (2002, "a")
        assert caplog.messages == ["dropped field=thinking and tool steps of a reply, after 8 MiB"] * 3

    def test_bounded_to_the_byte(self) -> None:
        """What fills the 8 MiB is kept; one byte more is not."""
        fits = Thinking("x" * (KEPT - size_of(Thinking(""))))
        assert handed_out(fits).thinking == [fits.text]
        assert handed_out(Thinking(fits.text + "x")).thinking == []

    def test_extent(self) -> None:
        """Each character, and each event of another kind, is one more that was handed out."""
        events = [TextDelta("ab"), Thinking("a"), STEP, UnknownEvent("a", "b"), TextDelta("cde")]
        assert [handed_out(*events[:shown]).extent for shown in range(6)] == [0, 2, 3, 4, 5, 8]

    def test_size(self) -> None:
        """The size of an event is about what it takes, whatever is in it."""
        for text in ("x" * 10_000, "\U0001f642" * 10_000):
            for event in (
                TextDelta(text),
                TextDelta("a", text),
                Thinking(text),
                ToolStep("a", "b", text),
                Done(1, text),
            ):
                assert getsizeof(text) < size_of(event) < getsizeof(text) + 500
            assert 0 < size_of(UnknownEvent(text, text)) - 2 * getsizeof(text) < 500
        assert size_of(TextDelta("a", extra={"a": [{}] * 1000})) > 72_000

    def test_billed(self) -> None:
        """Only a `done` that tells something tells of the charge."""
        assert [handed_out(*events).billed for events in ([], [Done()], [Done(1)])] == [False, False, True]

    def test_reply(self) -> None:
        """The reply so far has what came, and the conversation that was asked for until another id is known."""
        transcript = handed_out(TextDelta("a"), Thinking("b"), STEP, Done(7, "msg_1"), asked="conv_0")
        reply = reply_of(transcript, Meta(status_code=200))
        assert reply == ChatReply(
            response="a",
            conversation_id="conv_0",
            message_id="msg_1",
            credits_remaining=7,
            thinking=("b",),
            tool_steps=(STEP,),
        )


class TestReplay:
    """A replay says again what was handed out, then what is new; anything else is a divergence."""

    def test_continues(self) -> None:
        """Nothing comes twice, a delta over the boundary is split, and the rest comes as it is."""
        seen: list[StreamEvent] = [Thinking("Hm"), UnknownEvent("a", "b"), STEP, TextDelta("The deal", "conv_1")]
        late: list[StreamEvent] = [Thinking("So"), STEP, UnknownEvent("a", "b"), TextDelta("!", "conv_1"), Done(1)]
        replay = Replay(handed_out(*seen))
        again = [*seen[:3], TextDelta("The", "conv_1"), TextDelta(" deal is", "conv_1"), *late]
        fresh = [replay.new_part(event) for event in again]
        assert fresh == [None, None, None, None, TextDelta(" is", "conv_1"), *late]

    def test_thinks_otherwise(self) -> None:
        """Thinking is never compared; before the boundary it is dropped."""
        replay = Replay(handed_out(TextDelta("ab")))
        assert replay.new_part(Thinking("other")) is None
        assert replay.new_part(TextDelta("a")) is None
        assert not replay.caught_up
        assert replay.new_part(TextDelta("b")) is None
        assert replay.caught_up
        assert replay.new_part(Thinking("new")) == Thinking("new")

    def test_leaves_steps_out(self) -> None:
        """A replay may leave steps out, and then goes on with new ones."""
        other = ToolStep("deals.get", "completed")
        replay = Replay(handed_out(STEP, other))
        assert replay.new_part(other) is None
        assert replay.new_part(ToolStep("b", "started")) == ToolStep("b", "started")

    def test_skips_what_was_not_kept(self) -> None:
        """Thinking and tool steps that were handed out and not kept don't come again, and new ones do."""
        large = "x" * (5 << 20)
        steps = [ToolStep("a", "started", large), STEP, ToolStep("b", "started", large), ToolStep("c", "started"), STEP]
        seen: list[StreamEvent] = [*steps, Thinking(large), Thinking("Hm"), TextDelta("The deal"), STEP]
        transcript = handed_out(*seen)
        assert (transcript.tool_steps, transcript.thinking) == (seen[:2], [])
        late: list[StreamEvent] = [ToolStep("e", "started"), Thinking("So"), TextDelta("!"), Done(1)]
        again: list[StreamEvent]
        for again, taken in ((seen, 0), ([seen[0], *seen[2:4], *seen[5:]], 1)):
            replay = Replay(transcript)
            assert [replay.new_part(event) for event in again] == [None] * len(again)
            # Where a replay left out one that was not kept, the next step is taken for it.
            assert [event for event in map(replay.new_part, late) if event] == late[taken:]

    @pytest.mark.parametrize(
        ("event", "why"),
        [
            (TextDelta("The dean"), "says something else"),
            (TextDelta("The deal", "conv_2"), "another conversation"),
            (ToolStep("other", "started"), "other steps"),
            (Done(1), "ends earlier"),
        ],
    )
    def test_diverges(self, event: Any, why: str) -> None:
        """Other text, another conversation, other steps and an early end are told apart."""
        replay = Replay(handed_out(STEP, TextDelta("The deal", "conv_1")))
        with pytest.raises(Divergence, match=why) as caught:
            replay.new_part(event)
        assert caught.value.replayed == getattr(event, "delta", "")

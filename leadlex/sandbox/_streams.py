"""A stream as it is generated, recorded under its idempotency key, and followed by whoever asked for it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping

from ._bodies import Question
from ._lexi import Answer
from ._replies import Refusal
from ._store import Store
from ._workspace import Turn, Workspace

DONE = b"data: [DONE]\n"
TOOL_WORDS = 8  # a tool takes as long as so many words
BEHAVIOURS = ("replay", "regenerate", "conflict")


def frame(event: str, data: Mapping[str, object]) -> bytes:
    """Write one Server-Sent Event."""
    return f"event: {event}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def script(answer: Answer, conversation_id: str) -> Iterator[tuple[int, bytes]]:
    """Give the frames of an answer up to its last word, each with how many words' time passes before it."""
    yield 0, frame("thinking", {"text": answer.thinking})
    if answer.tool:
        yield TOOL_WORDS, frame("tool_step", {"tool": answer.tool, "status": "started"})
        completed = {"tool": answer.tool, "status": "completed", "summary": answer.summary}
        yield TOOL_WORDS, frame("tool_step", completed)
    for word in re.findall(r"\s*\S+", answer.text):
        yield 1, frame("text", {"delta": word, "conversation_id": conversation_id})


class Recording:
    """The frames of one stream so far. One task fills it, any number follow it."""

    lost = False

    def __init__(self, fingerprint: str, conversation_id: str) -> None:
        self.fingerprint, self.conversation_id = fingerprint, conversation_id
        self.frames: list[bytes] = []
        self.whole = False
        self._news = asyncio.Event()

    def add(self, *frames: bytes, last: bool = False) -> None:
        """Add frames and wake the followers."""
        self.frames += frames
        self.whole = last
        self._news.set()
        self._news = asyncio.Event()

    async def follow(self) -> AsyncIterator[bytes]:
        """Give all frames from the first on, those to come when they come."""
        sent = 0
        while not self.whole or sent < len(self.frames):
            if sent == len(self.frames):
                await self._news.wait()
            yield self.frames[sent]
            sent += 1
            await asyncio.sleep(0)  # else asyncio warns of each write after the client left


class Streams:
    """The streams that are being generated and those of the last 24 hours.

    Args:
        workspace: where the answers come from.
        pace: words a second, 0 for all at once.
        behaviour: what a repeated key gets, one of `BEHAVIOURS`.
    """

    def __init__(self, workspace: Workspace, pace: float, behaviour: str) -> None:
        self._workspace, self._pace, self._behaviour = workspace, pace, behaviour
        self._store = workspace.store
        self._in_flight: dict[str, Recording] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, question: Question, user_id: str, key: str | None, fingerprint: str) -> Recording:
        """Give the stream that answers a question: a new one, or what its key already got."""
        earlier = self._find(key, fingerprint) if key else None
        if earlier is None:
            turn = self._workspace.take(question, user_id, "stream", key)
        elif self._behaviour == "regenerate" or earlier.lost:
            turn = self._workspace.retake(question, user_id, earlier.conversation_id)
        else:
            return earlier
        return self._start(turn, key, fingerprint)

    def _find(self, key: str, fingerprint: str) -> Recording | None:
        running = self._in_flight.get(key)
        found = running or _restored(self._store, key)
        if found and found.fingerprint != fingerprint:
            raise Refusal(422, "validation_error", "This Idempotency-Key was used with another body")
        if running and self._behaviour == "conflict":
            raise Refusal(409, "conflict", "The first request with this Idempotency-Key is still running")
        return found

    def _start(self, turn: Turn, key: str | None, fingerprint: str) -> Recording:
        recording = Recording(fingerprint, turn.conversation_id)
        if key:
            self._in_flight[key] = recording
            self._store.record(key, fingerprint, turn.conversation_id, b"")  # was paid, even if this ends now
        # The loop holds its tasks weakly.
        task = asyncio.create_task(self._generate(turn, key, recording))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return recording

    async def _generate(self, turn: Turn, key: str | None, recording: Recording) -> None:
        """Fill a recording to its end, whether or not anybody still follows it."""
        for words, piece in script(turn.answer, turn.conversation_id):
            if self._pace:
                await asyncio.sleep(words / self._pace)
            recording.add(piece)
        message_id = self._workspace.finish(turn)
        usage = {"credits_remaining": self._workspace.ledger.balance, "message_id": message_id}
        recording.add(frame("done", usage), DONE, last=True)
        if key:
            body = b"".join(recording.frames)
            self._store.record(key, recording.fingerprint, recording.conversation_id, body)
            self._in_flight.pop(key, None)


def _restored(store: Store, key: str) -> Recording | None:
    if not (row := store.recording(key)):
        return None
    recording = Recording(row["fingerprint"], row["conversation_id"])
    recording.add(*re.findall(rb".+?(?:\n\n|$)", row["body"], re.DOTALL), last=True)
    recording.lost = not recording.frames
    return recording

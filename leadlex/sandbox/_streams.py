"""A stream as it is generated, recorded under its idempotency key, and followed by whoever asked for it."""

import asyncio
import re
from collections.abc import AsyncIterator

from ._access import Key
from ._bodies import Question
from ._frames import DONE, frame, paced_frames
from ._replies import Refusal
from ._store import Store
from ._workspace import Turn, Workspace

BEHAVIOURS = ("replay", "regenerate", "conflict")


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
                continue
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
        self._tasks: dict[asyncio.Task[None], Recording] = {}

    def open(self, question: Question, key: Key, idempotency_key: str | None, fingerprint: str) -> Recording:
        """Give the stream that answers a question: a new one, or what its idempotency key already got."""
        scoped = f"{key.workspace_id} {idempotency_key}" if idempotency_key else None
        earlier = self._find(scoped, fingerprint) if scoped else None
        if earlier is None:
            turn = self._workspace.take(question, key.user_id, "stream", idempotency_key)
        elif self._behaviour == "regenerate" or earlier.lost:
            turn = self._workspace.retake(question, key.user_id, earlier.conversation_id)
        else:
            return earlier
        return self._start(turn, scoped, fingerprint)

    def reset(self) -> None:
        """Cut the streams that are being generated, and forget them."""
        for task, recording in self._tasks.items():
            task.cancel()
            recording.add(last=True)
        self._in_flight.clear()

    def _find(self, key: str, fingerprint: str) -> Recording | None:
        running = self._in_flight.get(key)
        found = running or _restored(self._store, key)
        if found and found.fingerprint != fingerprint:
            raise Refusal(422, "idempotency_key_reused", "This Idempotency-Key was used with another body")
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
        self._tasks[task] = recording
        task.add_done_callback(self._tasks.pop)
        return recording

    async def _generate(self, turn: Turn, key: str | None, recording: Recording) -> None:
        """Fill a recording to its end, whether or not anybody still follows it."""
        for words, piece in paced_frames(turn.reply, turn.conversation_id):
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

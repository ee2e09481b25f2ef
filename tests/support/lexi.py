"""A Lexi that answers every endpoint plainly with the contract's examples, and the faults to put into it.

A test overrides the one thing that it breaks. What is charged stands in the server's ledger, by the harshest
reading of the contract: a `chat` as soon as its whole body was received, a stream at its first request that
is not refused, once per idempotency key. So an error that says "not charged" is proved right or wrong.
"""

import dataclasses
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

from tests.support.answers import Headers, chunk, error_answer, json_answer, last_chunk, sse_head
from tests.support.captures import CAPTURE, CAPTURE_EVENTS, cut, encode_event, recut, reword
from tests.support.journal import Request
from tests.support.server import Connection

Ending = Literal["fin", "rst", "stall", "end"]
Framing = Literal["chunked", "close", "length"]
Personality = Literal["cache", "regen", "regen_same", "conflict"]

#: Refused before any work was done, so nothing is charged for these.
REFUSALS = frozenset({301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 409, 422, 429})

CHAT: dict[str, Any] = {
    "response": "Added 20 contacts.",
    "task_id": None,
    "requires_approval": False,
    "conversation_id": "conv-uuid",
}
SUMMARY: dict[str, Any] = {
    "id": "conv_01HY1",
    "title": "Series B research for Acme Corp",
    "message_count": 14,
    "last_message_at": "2026-04-17T10:30:00Z",
    "context": {"contact_id": "123e4567-e89b-12d3-a456-426614174000"},
    "archived": False,
    "created_at": "2026-04-15T09:00:00Z",
}
MESSAGES: list[dict[str, Any]] = [
    {
        "id": "msg_01HX1",
        "role": "user",
        "content": "Where is Jane Doe?",
        "created_at": "2026-04-15T09:00:00Z",
    },
    {
        "id": "msg_01HX2",
        "role": "assistant",
        "content": "Jane Doe is currently in the Proposal stage...",
        "created_at": "2026-04-15T09:00:04Z",
    },
]
CONVERSATION: dict[str, Any] = {
    **{name: SUMMARY[name] for name in ("id", "title", "context", "archived", "created_at")},
    "messages": MESSAGES,
}
TASK: dict[str, Any] = {
    "id": "task-uuid",
    "type": "prospect_search",
    "status": "pending",
    "description": "Find me 20 CEOs at law firms in New York",
    "created_at": "2026-04-17T10:30:00Z",
    "metadata": {"count": 20},
}
#: The whole bodies of the documented answers, by the schema's operation ids.
BODIES: dict[str, Any] = {
    "chat": {"data": CHAT},
    "listConversations": {
        "data": {"conversations": [SUMMARY]},
        "meta": {"page": 1, "per_page": 50, "total": 27},
    },
    "getConversation": {"data": CONVERSATION},
    "listTasks": {"data": {"tasks": [TASK]}},
    "approveTask": {"data": {"task_id": "task-uuid", "status": "approved", "execution_started": True}},
    "dismissTask": {"data": {"task_id": "task-uuid", "status": "dismissed"}},
}


_OPERATIONS = {
    r"POST chat": "chat",
    r"POST chat/stream": "streamChat",
    r"GET conversations": "listConversations",
    r"GET conversations/[^/]+": "getConversation",
    r"GET tasks": "listTasks",
    r"POST tasks/[^/]+/approve": "approveTask",
    r"POST tasks/[^/]+/dismiss": "dismissTask",
}


def operation_of(request: Request) -> str:
    """Name the operation that a request calls, by the schema's operation ids; empty when it is none."""
    place = f"{request.method} {request.path.partition('/v1/lexi/')[2]}"
    names = (name for pattern, name in _OPERATIONS.items() if re.fullmatch(pattern, place))
    return next(names, "")


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """The answer that a fault spoils: its head, and its body as the pieces that would be sent."""

    head: bytes
    body: tuple[bytes, ...]
    framing: Framing

    def send(self, connection: Connection, *, pause: float = 0.0) -> None:
        """Send all of it."""
        framed = (self.frame(piece) for piece in self.body)
        connection.send(self.head, *framed, pause=pause)
        self.end(connection)

    def frame(self, piece: bytes) -> bytes:
        """Frame a piece of the body as the head says."""
        return chunk(piece) if self.framing == "chunked" else piece

    def end(self, connection: Connection) -> None:
        """End the body as the head says."""
        if self.framing == "chunked":
            connection.send(last_chunk())
        if self.framing == "close":
            connection.close()


class Fault(Protocol):
    """What a test puts in the place of an answer: any function of the connection and that answer.

    With an attribute `charges` that is false, the call counts as refused and is not charged.
    """

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""


def _finish(connection: Connection, plain: Plain, how: Ending) -> None:
    endings: dict[Ending, Callable[[], None]] = {
        "fin": connection.fin,
        "rst": connection.rst,
        "stall": connection.stall,
        "end": lambda: plain.end(connection),
    }
    endings[how]()


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """The head and some bytes of the body, then a break.

    Args:
        after: How many bytes of the body are sent; the framing of chunks is not counted.
        how: `fin`, `rst`, `stall`, or `end`: the body is ended properly, as if that had been all.
        inside_chunk: Whether the last chunk promises more bytes than come.
    """

    after: int
    how: Ending = "fin"
    inside_chunk: bool = False

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        pieces = [plain.frame(piece) for piece in _first(plain.body, self.after)]
        if self.inside_chunk and pieces:
            pieces[-1] = pieces[-1].replace(b"\r\n", b"0\r\n", 1)[:-2]
        connection.send(plain.head, *pieces)
        _finish(connection, plain, self.how)


def _first(pieces: Sequence[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """A break before the first byte of an answer, or after some bytes of its head.

    Args:
        how: `fin`, `rst` or `stall`.
        after: How many bytes of the head are sent.
    """

    how: Ending = "fin"
    after: int = 0

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(plain.head[: self.after])
        _finish(connection, plain, self.how)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Another answer, whole.

    Args:
        status: The status.
        body: JSON, or bytes that are sent as they are; without one, the contract's error body with `code`.
        headers: Further fields; they replace the contract's of the same name.
        code: The code of the error body.
        refusal: Whether nothing is charged; by default what the status says.
    """

    status: int
    body: Any = None
    headers: Headers = ()
    code: str = "internal_error"
    refusal: bool | None = None

    @property
    def charges(self) -> bool:
        """Tell whether the call is charged all the same."""
        return not (self.status in REFUSALS if self.refusal is None else self.refusal)

    def __call__(self, connection: Connection, _: Plain, /) -> None:
        """Do the damage."""
        if self.body is None:
            connection.send(error_answer(self.status, self.code, headers=self.headers))
        else:
            connection.send(json_answer(self.status, self.body, self.headers))


@dataclasses.dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that may be no HTTP at all, then the connection's end.

    Args:
        data: The bytes, head included.
        how: `fin`, `rst` or `stall`.
        size: In pieces of how many bytes they are sent; None is whole.
        pause: Seconds between two pieces.
    """

    data: bytes
    how: Ending = "fin"
    size: int | None = None
    pause: float = 0.0

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        connection.send(*cut(self.data, *([self.size] if self.size else [])), pause=self.pause)
        _finish(connection, plain, self.how)


@dataclasses.dataclass(frozen=True, slots=True)
class Slow:
    """The plain answer, with a wait before each of its pieces after the first.

    Args:
        pause: Seconds.
    """

    pause: float

    def __call__(self, connection: Connection, plain: Plain, /) -> None:
        """Do the damage."""
        plain.send(connection, pause=self.pause)


def one_by_one(connection: Connection, plain: Plain) -> None:
    """Send each event of the capture once the test releases it by its number, as in `event 0`."""
    connection.send(plain.head)
    for number, event in enumerate(CAPTURE_EVENTS):
        connection.wait_for(f"event {number}")
        connection.send(plain.frame(encode_event(event)))
    plain.end(connection)


@dataclasses.dataclass(slots=True)
class _Key:
    """What is known of one idempotency key: generations so far, answers under way, refusals by 409."""

    turns: int = 0
    running: int = 0
    refused: int = 0


class _Memory:
    """What a `LexiScript` keeps between requests."""

    def __init__(self, faults: dict[str, Iterator[Fault]]) -> None:
        self.lock = threading.Lock()
        self._faults = faults
        self._keys: dict[str, _Key] = {}

    def next_fault(self, name: str) -> Fault | None:
        """Take the next fault that is due; call it with the lock held."""
        return next(self._faults[name], None)

    def key_of(self, request: Request) -> _Key:
        """Find what is known of a request's key; each request without one is known for itself."""
        return self._keys.setdefault(request.idempotency_key or f"request {request.number}", _Key())


def _repeat(faults: Fault | Sequence[Fault], times: int | None) -> Iterator[Fault]:
    several = (faults,) if callable(faults) else tuple(faults)
    if times is None:
        return itertools.cycle(several)
    return itertools.chain.from_iterable(itertools.repeat(several, times))


def _charges(fault: Fault | None) -> bool:
    return bool(getattr(fault, "charges", True))


def _play(connection: Connection, plain: Plain, fault: Fault | None) -> None:
    if fault is None:
        plain.send(connection)
    else:
        fault(connection, plain)


def _request_id(request: Request) -> dict[str, str]:
    return {"X-Request-ID": f"req_{request.number:04}"}


def _json_plain(body: Any, request: Request) -> Plain:
    start, _, data = json_answer(200, body, _request_id(request)).partition(b"\r\n\r\n")
    return Plain(start + b"\r\n\r\n", (data,), "length")


def _events_of(stream: bytes) -> list[bytes]:
    return re.findall(rb"(?s).+?\n\n|.+", stream)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LexiScript:
    """A script that answers every endpoint as the contract's examples do.

    A `LexiScript` can go to a `ServerProcess`; there it starts with an empty memory. It serves one server.

    Args:
        stream: The body of a stream.
        bodies: Other JSON bodies, by the schema's operation ids (`chat`, `listConversations`, …).
        stream_fault: A fault, or several in turn, in the place of the first answers of the stream.
        chat_fault: The same for `chat`.
        other_fault: The same for all other endpoints together.
        times: How often the faults happen, as a whole; None is for ever. Then answers are plain.
        personality: What a stream's repeated key gets: `cache` the record; `regen` a new wording, not
            charged; `regen_same` the same text in other deltas; `conflict` 409 while the first request is
            being answered, then the record.
        conflicts: How many more 409 a repeated key gets under `conflict`, the first request being over.
        keep: How many characters a new wording has in common with the first one.
        framing: How the body of a stream is framed.
        sizes: Into pieces of which sizes, over and over, a stream is cut; none is one piece an event.
        credits: What a call is charged.
    """

    stream: bytes = CAPTURE
    bodies: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    stream_fault: Fault | Sequence[Fault] = ()
    chat_fault: Fault | Sequence[Fault] = ()
    other_fault: Fault | Sequence[Fault] = ()
    times: int | None = 1
    personality: Personality = "cache"
    conflicts: int = 0
    keep: int = 12
    framing: Framing = "chunked"
    sizes: tuple[int, ...] = ()
    credits: int = 1

    _memory: _Memory = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        faults = {"chat": self.chat_fault, "streamChat": self.stream_fault, "": self.other_fault}
        queues = {name: _repeat(fault, self.times) for name, fault in faults.items()}
        object.__setattr__(self, "_memory", _Memory(queues))

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the memory."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with an empty memory."""
        self.__dict__.update(state)
        self.__post_init__()

    def __call__(self, connection: Connection) -> None:
        """Answer the requests of one connection, one after the other."""
        while not connection.closed:
            self.answer(connection, connection.receive_request())

    def answer(self, connection: Connection, request: Request) -> None:
        """Answer one request."""
        if operation_of(request) == "streamChat":
            self._stream(connection, request)
        else:
            self._answer(connection, request)

    def _answer(self, connection: Connection, request: Request) -> None:
        operation = operation_of(request)
        body = {**BODIES, **self.bodies}.get(operation)
        if body is None:
            connection.send(error_answer(404, "not_found", "Not found", _request_id(request)))
            return
        with self._memory.lock:
            fault = self._memory.next_fault("chat" if operation == "chat" else "")
        if operation == "chat" and _charges(fault):
            self._charge(connection, request)
        _play(connection, _json_plain(body, request), fault)

    def _stream(self, connection: Connection, request: Request) -> None:
        with self._memory.lock:
            key = self._memory.key_of(request)
            begun = self._begin(key, connection, request)
        if begun is None:
            connection.send(error_answer(409, "conflict", "In flight", _request_id(request)))
            return
        turn, fault = begun
        try:
            _play(connection, self._stream_plain(turn, request), fault)
        finally:
            with self._memory.lock:
                key.running -= 1

    def _in_flight(self, key: _Key) -> bool:
        again = self.personality == "conflict" and key.turns > 0
        return again and (key.running > 0 or key.refused < self.conflicts)

    def _begin(self, key: _Key, connection: Connection, request: Request) -> tuple[int, Fault | None] | None:
        """Tell how many generations a key had before, and the fault that is due; None when it is in flight.

        The first generation is charged.
        """
        if self._in_flight(key):
            key.refused += 1
            return None
        turn, fault = key.turns, self._memory.next_fault("streamChat")
        if turn == 0 and _charges(fault):
            self._charge(connection, request)
        key.turns += _charges(fault)
        key.running += 1
        return turn, fault

    def _charge(self, connection: Connection, request: Request) -> None:
        connection.charge(request.json["message"], request.idempotency_key, self.credits, request.path)

    def _stream_plain(self, turn: int, request: Request) -> Plain:
        body = self._generate(turn)
        length = len(body) if self.framing == "length" else None
        start = sse_head(_request_id(request), chunked=self.framing == "chunked", length=length)
        pieces = cut(body, *self.sizes) if self.sizes else _events_of(body)
        return Plain(start, tuple(pieces), self.framing)

    def _generate(self, turn: int) -> bytes:
        if turn and self.personality == "regen":
            return reword(self.stream, keep=self.keep, version=turn)
        if turn and self.personality == "regen_same":
            return recut(self.stream, size=4 + turn)
        return self.stream


class ByMessage:
    """A script that has for each message a Lexi of its own, with a memory of its own.

    It can go to a `ServerProcess` where `make` can.

    Args:
        make: Makes the Lexi that answers a message.
    """

    def __init__(self, make: Callable[[str], LexiScript]) -> None:
        self._make = make
        self._lexis: dict[str, LexiScript] = {}

    def __call__(self, connection: Connection) -> None:
        """Answer the messages of one connection, one after the other."""
        while not connection.closed:
            request = connection.receive_request()
            message = request.json["message"]
            if message not in self._lexis:
                self._lexis[message] = self._make(message)
            self._lexis[message].answer(connection, request)

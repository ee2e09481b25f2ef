"""What a scripted server saw, in the order in which it saw it, and the ledger of what it charged."""

import collections
import dataclasses
import json
import threading
import urllib.parse
from collections.abc import Callable
from typing import Any, TypeVar


@dataclasses.dataclass(frozen=True, slots=True)
class Connected:
    """A client connected; `at` is in seconds of the monotonic clock."""

    connection: int
    at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Disconnected:
    """A client left by itself; a connection that the script closed is not one of these."""

    connection: int
    at: float


@dataclasses.dataclass(frozen=True, slots=True)
class Stalled:
    """A script has sent all that it will, and holds the connection open."""

    connection: int


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A script raised: the test that wrote it is wrong, and leaving the server says so."""

    connection: int
    trace: str


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in.

    Args:
        number: Counts the requests over all connections from 1, as their heads came in.
        connection: The number of its connection, from 1.
        head: The bytes up to and including the blank line.
        body: The payload, without its chunks' framing.
        at: When it was read whole, in seconds of the monotonic clock.
    """

    number: int
    connection: int
    head: bytes
    body: bytes
    at: float

    @property
    def method(self) -> str:
        """Tell the method."""
        return self._start[0]

    @property
    def target(self) -> str:
        """Tell the target as it was sent, with its query."""
        return self._start[1]

    @property
    def path(self) -> str:
        """Tell the path as it was sent, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        """Tell the query's decoded parameters, the last of each name."""
        return dict(urllib.parse.parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def _start(self) -> list[str]:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Tell every header field, names in lower case, in the order in which they were sent."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return [(name.lower(), value.strip()) for name, _, value in pairs]

    @property
    def headers(self) -> dict[str, str]:
        """Tell the header fields by name in lower case, the last of each name."""
        return dict(self.fields)

    @property
    def idempotency_key(self) -> str | None:
        """Tell the key, or None when none was sent."""
        return self.headers.get("idempotency-key")

    @property
    def json(self) -> Any:
        """Decode the body; None when it is empty."""
        return json.loads(self.body) if self.body else None


@dataclasses.dataclass(frozen=True, slots=True)
class Charge:
    """Credits taken.

    Args:
        call: What names the logical call: the message, so a test gives each call its own.
        key: The idempotency key, None on calls that have none.
        credits: How many.
        path: The path that charged.
    """

    call: str
    key: str | None
    credits: int
    path: str


class Ledger:
    """The charges, seen per logical call and per idempotency key."""

    def __init__(self, charges: list[Charge]) -> None:
        self.charges = charges

    @property
    def credits(self) -> int:
        """Sum up the credits taken."""
        return sum(charge.credits for charge in self.charges)

    @property
    def by_call(self) -> collections.Counter[str]:
        """Count the charges of each logical call."""
        return collections.Counter(charge.call for charge in self.charges)

    @property
    def by_key(self) -> collections.Counter[str]:
        """Count the charges of each idempotency key."""
        return collections.Counter(charge.key for charge in self.charges if charge.key is not None)

    @property
    def worst(self) -> int:
        """Tell how often the most charged logical call was charged; oracle O3 wants 1 at most."""
        return max(self.by_call.values(), default=0)


Entry = Connected | Disconnected | Stalled | Failed | Request | Charge
_T = TypeVar("_T")


class Journal:
    """A list of entries that threads may write, read and wait on.

    Args:
        listener: Told of each entry, in order; how a server in another process hands them over.
        refresh: Called before reading, to fetch the entries that are still under way from there.
    """

    def __init__(
        self, listener: Callable[[Entry], None] | None = None, refresh: Callable[[], None] | None = None
    ) -> None:
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._listener = listener
        self._refresh = refresh

    def add(self, entry: Entry) -> None:
        """Write one entry and wake who waits."""
        with self._changed:
            self._entries.append(entry)
            if self._listener is not None:
                self._listener(entry)
            self._changed.notify_all()

    def of(self, kind: type[_T]) -> list[_T]:
        """List the entries of one kind."""
        if self._refresh is not None:
            self._refresh()
        return self._known(kind)

    def wait_for(self, kind: type[object], count: int, timeout: float) -> bool:
        """Wait up to `timeout` seconds for `count` entries of one kind; tell whether they came."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._known(kind)) >= count, timeout)

    def _known(self, kind: type[_T]) -> list[_T]:
        with self._changed:
            return [entry for entry in self._entries if isinstance(entry, kind)]


class Watched:
    """What a test may ask of a server, wherever that runs."""

    journal: Journal

    @property
    def requests(self) -> list[Request]:
        """List the requests that were read whole (or whose head was, if a script read only that)."""
        return self.journal.of(Request)

    @property
    def connections(self) -> int:
        """Count the connections so far, open or not."""
        return len(self.journal.of(Connected))

    @property
    def disconnects(self) -> list[Disconnected]:
        """List the clients that left by themselves, with the time at which it was seen."""
        return self.journal.of(Disconnected)

    @property
    def stalls(self) -> int:
        """Count the scripts that stall, or did."""
        return len(self.journal.of(Stalled))

    @property
    def ledger(self) -> Ledger:
        """Tell what was charged."""
        return Ledger(self.journal.of(Charge))

    def wait_for_connections(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Wait up to `timeout` seconds until `count` connections were made; tell whether they were."""
        return self.journal.wait_for(Connected, count, timeout)

    def wait_for_requests(self, count: int = 1, timeout: float = 5.0) -> bool:
        """Wait up to `timeout` seconds until `count` requests were read; tell whether they were."""
        return self.journal.wait_for(Request, count, timeout)

    def wait_for_disconnect(self, timeout: float = 5.0, count: int = 1) -> bool:
        """Wait up to `timeout` seconds until `count` clients left by themselves; tell whether they did."""
        return self.journal.wait_for(Disconnected, count, timeout)

    def raise_failures(self) -> None:
        """Raise `AssertionError` with the traces of the scripts that raised, if any did."""
        traces = [failure.trace for failure in self.journal.of(Failed)]
        if traces:
            raise AssertionError("a script of the server failed\n" + "\n".join(traces))

"""The handle that a user holds: `Sandbox`."""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Self

from leadlex._errors import ConfigurationError

from . import _faults
from ._access import PERMISSIONS, Gate
from ._app import Api
from ._ledger import Charge, Ledger
from ._request_log import RequestLog, SeenRequest
from ._server import Server
from ._store import Store
from ._streams import BEHAVIOURS, Streams
from ._workspace import Workspace

__all__ = ["Charge", "Sandbox", "SeenRequest"]

API_KEY = "wbk_sandbox_7d1f3c9a52e84b06"
USER_ID = "user_sandbox"
CREDITS = 5_000


class Sandbox:
    """The whole Lexi contract on a loopback port, offline and free, over a small invented law-firm CRM.

    Use it as a context manager, or call `start` and `stop`, from any thread. Its Lexi understands the prompts
    of the service's documentation and questions about what they lead to; the same calls get the same answers.

    Args:
        path: the file that keeps conversations, tasks, lists and credits; None is memory, until `stop`.
        port: of 127.0.0.1; 0 takes a free one.
        credits: the balance to begin with; None takes the one of the file, else 5,000.
        quota: requests a day and key.
        pace: words a second in a stream; 0 sends all at once.
        idempotency: what a repeated `Idempotency-Key` gets within 24 hours. "replay": the recorded stream.
            "regenerate": a new one in other words, not charged. "conflict": 409 while the first one runs,
            then the recorded one.
        task_seconds: how long an approved task takes.

    Raises:
        ConfigurationError: `idempotency` is none of the three.
        OSError: from `start`: the port is taken, or the file can't be used.
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        port: int = 0,
        credits: int | None = None,  # noqa: A002 - what the API calls them
        quota: int = 10_000,
        pace: float = 25.0,
        idempotency: Literal["replay", "regenerate", "conflict"] = "replay",
        task_seconds: float = 1.0,
    ) -> None:
        if idempotency not in BEHAVIOURS:
            raise ConfigurationError(f"idempotency must be one of {', '.join(BEHAVIOURS)}, not {idempotency!r}")
        self._path, self._port, self._pace = path, port, pace
        self._idempotency, self._task_seconds = idempotency, task_seconds
        self._credits = credits
        self._gate = Gate(quota)
        self._gate.add(API_KEY, USER_ID, PERMISSIONS, None)
        self._ledger = Ledger(CREDITS if credits is None else credits)
        self._faults: list[tuple[str, _faults.Fault]] = []
        self._requests: list[SeenRequest] = []
        self._running: tuple[Store, Server] | None = None

    def start(self) -> Self:
        """Start serving, if it does not yet, and give itself back."""
        if not self._running:
            store = Store(self._path)
            try:
                self._running = store, Server(self._assemble(store), self._port)
            except (OSError, ConfigurationError):
                store.close()
                raise
        return self

    def stop(self) -> None:
        """Cut all connections and stop serving; what was kept in memory is forgotten."""
        running, self._running = self._running, None
        if running:
            store, server = running
            server.stop()
            store.close()

    def _assemble(self, store: Store) -> RequestLog:
        """Put the application together, from the database up."""
        if self._credits is None and (saved := store.balance()) is not None:
            self._ledger.balance = saved
        workspace = Workspace(store, self._ledger, self._task_seconds)
        streams = Streams(workspace, self._pace, self._idempotency)
        return RequestLog(Api(workspace, streams, self._gate).app(), self._gate, self._faults, self._requests)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL; RuntimeError if the sandbox does not run."""
        return f"http://127.0.0.1:{self._parts()[1].port}"

    @property
    def api_key(self) -> str:
        """A key with all permissions, the same in every sandbox."""
        return API_KEY

    def add_key(
        self,
        permissions: Iterable[str] = PERMISSIONS,
        *,
        user_id: str = USER_ID,
        expires_at: datetime | None = None,
    ) -> str:
        """Make another key and give it.

        Args:
            permissions: any of `lexi`, `write:ai` and `read:ai`.
            user_id: whose it is; conversations belong to users.
            expires_at: from when on it is refused; an aware datetime.

        Raises:
            ConfigurationError: there is no such permission.
        """
        key = f"wbk_{secrets.token_hex(16)}"
        self._gate.add(key, user_id, permissions, expires_at)
        return key

    def add_conversation(
        self,
        title: str,
        *messages: str,
        user_id: str = USER_ID,
        context: Mapping[str, str] | None = None,
        archived: bool = False,
    ) -> str:
        """Add a conversation that somebody had, free of charge, and give its id.

        Args:
            title: its title.
            messages: what was said, by the user and by Lexi in turn.
            user_id: whose it is.
            context: `contact_id`, `deal_id`, `matter_id` or `page`, where it was had.
            archived: whether it was put away; the API itself can't do that.

        Raises:
            RuntimeError: the sandbox does not run.
        """
        store, _ = self._parts()
        conversation_id = store.add_conversation(user_id, title, dict(context or {}), archived=archived)
        for number, message in enumerate(messages):
            store.add_message(conversation_id, ("user", "assistant")[number % 2], message)
        return conversation_id

    def fail_next(self, kind: str, **how: Any) -> None:  # noqa: ANN401 - the options of a kind are its own
        """Let the next request meet a fault; further calls are for the requests after it.

        `drop_stream`, `stall` and `error_event` wait for the next stream, the others take the next request.

        Args:
            kind: the fault.
            how: its options:
                `drop_stream`: cuts the connection after `after_bytes` of the body; with RST if `reset`.
                `stall`: says nothing more after `after_bytes` of the body.
                `error_event`: ends with `code` and `message` after the event that reaches `after_bytes`.
                `rate_limit`: 429 until midnight UTC, or for `retry_after` seconds.
                `no_credits`: 402.
                `server_error`: its `status`, 500 by default.
                `slow`: `seconds` that pass before the work begins.

        Raises:
            ConfigurationError: there is no such kind; names those there are.
            TypeError: the kind has no such option.
        """
        self._faults.append((kind, _faults.make(kind, **how)))

    @property
    def credits(self) -> int:
        """The balance; may be set."""
        return self._ledger.balance

    @credits.setter  # noqa: A003 - the name of the API
    def credits(self, balance: int) -> None:
        self._ledger.balance = self._credits = balance
        if self._running:
            self._running[0].save_balance(balance)

    @property
    def requests(self) -> list[SeenRequest]:
        """What the server saw so far, the first request first."""
        return list(self._requests)

    @property
    def charges(self) -> list[Charge]:
        """What took credits so far."""
        return list(self._ledger.charges)

    def _parts(self) -> tuple[Store, Server]:
        if not self._running:
            raise RuntimeError("The sandbox does not run: enter it, or call start()")
        return self._running

"""The handle that a user holds: `Sandbox`."""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from typing import Any, Literal, Self, overload

from leadlex._errors import ConfigurationError

from . import _faults
from ._access import PERMISSIONS, Gate, Key
from ._app import Api
from ._clock import Clock
from ._faults import FaultKind
from ._hosts import Hosts
from ._ledger import Charge, Ledger, Prices
from ._request_log import RequestLog, SeenRequest
from ._script import Event, Script, ScriptedFault, scripted_answer
from ._server import Server
from ._store import Store
from ._streams import BEHAVIOURS, Streams
from ._workspace import Workspace

__all__ = ["Charge", "FaultKind", "Sandbox", "SeenRequest"]

API_KEY = "wbk_sandbox_7d1f3c9a52e84b06"
KEY_PREFIX = "wbk_sandbox_"  # by which a client knows that no secret is lost over plain http
USER_ID = "user_sandbox"
WORKSPACE_ID = "ws_sandbox"
CREDITS = 5_000

Priced = Literal["chat", "search", "stream", "tool_step"]


class Sandbox:
    """The whole Lexi contract on a port of this machine, offline and free, over a small invented law-firm CRM.

    Use it as a context manager, or call `start` and `stop`, from any thread. Its Lexi understands the prompts
    of the service's documentation and questions about what they lead to; the same calls get the same answers.

    Args:
        path: the file that keeps conversations, tasks, lists and credits; None is memory, until `stop`.
        host: the address to listen on. Another one than this machine's own lets other machines in.
        port: 0 takes a free one.
        allowed_hosts: names under which it is reached, beside `localhost` and its address, as `sandbox` in
            `http://sandbox:8080`. Others are refused: a page in a browser must not reach it by a name of its own.
        credits: the balance to begin with; None takes the one of the file, else 5,000.
        prices: in credits, those that differ from the contract's `{"chat": 1, "search": 5, "stream": 1,
            "tool_step": 1}`. A stream costs `stream`, and `tool_step` for each tool that it takes.
        quota: requests a day and key.
        pace: words a second in a stream; 0 sends all at once.
        idempotency: what a repeated `Idempotency-Key` gets within 24 hours. "replay": the recorded stream.
            "regenerate": a new one in other words, not charged. "conflict": 409 while the first one runs,
            then the recorded one.
        task_seconds: how long an approved task takes.

    Raises:
        ConfigurationError: an argument can't be used.
        OSError: from `start`: the port is taken, or the file can't be used.

    Example:
        with Sandbox(pace=0) as sandbox, leadlex.LeadLex(sandbox.api_key, base_url=sandbox.url) as lexi:
            sandbox.fail_next("drop_stream", after_bytes=120)
            print(lexi.stream_chat("Summarize my pipeline").final_reply().response, sandbox.charges)
    """

    def __init__(
        self,
        path: str | PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allowed_hosts: Iterable[str] = (),
        credits: int | None = None,  # noqa: A002 - what the API calls them
        prices: Mapping[Priced, int] | None = None,
        quota: int = 10_000,
        pace: float = 25.0,
        idempotency: Literal["replay", "regenerate", "conflict"] = "replay",
        task_seconds: float = 1.0,
    ) -> None:
        if idempotency not in BEHAVIOURS:
            raise ConfigurationError(f"idempotency must be one of {', '.join(BEHAVIOURS)}, not {idempotency!r}")
        if not host:  # to bind, it would be all addresses
            raise ConfigurationError("host must be an address, 0.0.0.0 for all")
        self._path, self._host, self._port, self._pace = path, host, port, pace
        self._idempotency, self._task_seconds = idempotency, task_seconds
        self._hosts = Hosts(allowed_hosts)
        self._prices = Prices.of(prices or {})
        self._credits = credits
        self._begins_with = CREDITS if credits is None else credits
        self._clock = Clock()
        self._gate = Gate(quota, self._clock)
        self._gate.add(API_KEY, Key(USER_ID, WORKSPACE_ID, frozenset(PERMISSIONS), None))
        self._ledger = Ledger(self._begins_with)
        self._script = Script()
        self._requests: list[SeenRequest] = []
        self._running: tuple[Store, Streams, Server] | None = None

    def start(self) -> Self:
        """Start serving, if it does not yet, and give itself back."""
        if not self._running:
            store = Store(self._path, self._clock)
            if self._credits is None and (saved := store.balance()) is not None:
                self._ledger.balance = saved
            workspace = Workspace(store, self._ledger, self._prices, self._script, self._task_seconds)
            streams = Streams(workspace, self._pace, self._idempotency)
            api = Api(workspace, streams, self._gate).app()
            app = RequestLog(api, self._gate, self._hosts, self._script, self._clock, self._requests)
            try:
                self._running = store, streams, Server(app, self._host, self._port)
            except (OSError, ConfigurationError):
                store.close()
                raise
        return self

    def stop(self) -> None:
        """Cut all connections and stop serving; what was kept in memory is forgotten."""
        running, self._running = self._running, None
        if running:
            store, _, server = running
            server.stop()
            store.close()

    def reset(self) -> None:
        """Be as new: empty, with the credits and the quota that it began with, at the time of the machine.

        What was scripted and seen is forgotten, streams that are on their way are cut. Keys stay.

        Raises:
            RuntimeError: the sandbox does not run.

        Example:
            sandbox.reset()
            assert not sandbox.requests
        """
        store, streams, server = self._parts()

        def reset() -> None:
            streams.reset()
            store.reset()
            self._gate.reset()
            self._clock.reset()
            self._script.clear()
            self._ledger.charges.clear()
            self._requests.clear()
            self.credits = self._begins_with

        server.run(reset)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL; RuntimeError if the sandbox does not run."""
        return self._parts()[2].url

    @property
    def api_key(self) -> str:
        """A key with all permissions, the same in every sandbox."""
        return API_KEY

    def add_key(
        self,
        permissions: Iterable[str] = PERMISSIONS,
        *,
        user_id: str = USER_ID,
        workspace_id: str = WORKSPACE_ID,
        expires_at: datetime | None = None,
    ) -> str:
        """Make another key and give it.

        Args:
            permissions: any of `lexi`, `write:ai` and `read:ai`.
            user_id: whose it is; conversations belong to users.
            workspace_id: of which workspace it is. Each has its own idempotency keys; conversations, tasks and
                credits are those of the one that a sandbox has.
            expires_at: from when on it is refused; an aware datetime.

        Raises:
            ConfigurationError: there is no such permission.

        Example:
            with leadlex.LeadLex(sandbox.add_key(["lexi"]), base_url=sandbox.url) as other:
                other.chat("Where is Jane Doe?")
        """
        key = f"{KEY_PREFIX}{secrets.token_hex(16)}"
        self._gate.add(key, Key(user_id, workspace_id, frozenset(permissions), expires_at))
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

        Example:
            known = sandbox.add_conversation("Series B", "Who leads the round?", "Nobody yet.")
            assert len(lexi.conversation(known).messages) == 2
        """
        store, *_ = self._parts()
        conversation_id = store.add_conversation(user_id, title, dict(context or {}), archived=archived)
        for number, message in enumerate(messages):
            store.add_message(conversation_id, ("user", "assistant")[number % 2], message)
        return conversation_id

    def add_task(self, kind: str, description: str = "", *, metadata: Mapping[str, Any] | None = None) -> str:
        """Add a task that waits for approval, and give its id.

        Args:
            kind: its type, as `contact_update`.
            description: what would be done.
            metadata: details; a `prospect_search` that has `list_id`, `list_name` and `contacts` fills that list.

        Raises:
            RuntimeError: the sandbox does not run.

        Example:
            task_id = sandbox.add_task("contact_update", "Give Jane Doe a new title")
            sandbox.fail_next("failed_task")
            lexi.approve_task(task_id)
            sandbox.advance(5)
            assert lexi.wait_for_task(task_id).status == "failed"
        """
        store, *_ = self._parts()
        return store.add_task(kind, description, dict(metadata or {}))

    def answer_next(
        self,
        text: str = "",
        events: Iterable[Event] = (),
        *,
        price: int | None = None,
        task_id: str | None = None,
    ) -> None:
        """Let Lexi answer the next message so, by `chat` or in a stream; further calls are for those after it.

        Where a repeated idempotency key is answered anew, that takes the next one too.

        Args:
            text: what it says, word by word.
            events: what a stream sends before that: thinking, tools, unknown events, and pieces of the text as
                they are to be cut. `done` comes by itself, with the credits that are left.
            price: what it costs; None is what any other answer costs.
            task_id: the task that then waits for approval, as of `add_task`.

        Raises:
            ConfigurationError: an event or the price can't be sent so.

        Example:
            sandbox.answer_next(events=[leadlex.ToolStep("deals.get", "completed"), leadlex.TextDelta("Won.")], price=3)
            assert lexi.stream_chat("How is the Acme deal?").final_reply().response == "Won."
        """
        self._script.answers.append(scripted_answer(text, events, price, task_id))

    @overload
    def fail_next(self, kind: FaultKind, **how: Any) -> None: ...  # noqa: ANN401 - a kind's own options

    @overload
    def fail_next(self, kind: int, code: str = ..., message: str = ...) -> None: ...

    def fail_next(self, kind: FaultKind | int, *args: Any, **how: Any) -> None:
        """Let the next request meet a fault; further calls are for the requests after it.

        `drop_stream`, `stall` and `error_event` wait for the next stream, `failed_task` for the next approval, the
        others take the next request.

        Args:
            kind: the fault, or the status of an error; then come its `code`, the contract's one for that status by
                default, and its `message`. Errors come before any work.
            args: the code and the message.
            how: the fault's options:
                `drop_stream`: cuts the connection after `after_bytes` of the body; with RST if `reset`.
                `stall`: says nothing more after `after_bytes` of the body.
                `error_event`: ends with `code` and `message` after the event that reaches `after_bytes`.
                `drop_answer`: cuts the connection once the work is done and charged, before the answer begins or
                    after `after_bytes` of its body; with RST if `reset`.
                `malformed`: does the work, and sends another `body`, by default one that breaks off.
                `failed_task`: the task is approved and charged, and fails.
                `rate_limit`: 429 until midnight UTC, or for `retry_after` seconds.
                `no_credits`: 402.
                `server_error`: its `status`, 500 by default.
                `slow`: `seconds` that pass before the work begins.

        Raises:
            ConfigurationError: there is no such kind or status; names those there are.
            TypeError: the kind has no such option.

        Example:
            sandbox.fail_next(404, "conversation_not_found")
            try:
                lexi.stream_chat("And now?", conversation_id="conv_01HY1").final_reply()
            except leadlex.NotFoundError as error:
                print(error.code, error.charged)
        """
        if isinstance(kind, int):
            code, fault = _faults.refusal(kind, *args, **how)
            self._script.faults.append(ScriptedFault(f"{kind} {code}", "", fault))
        else:
            self._script.faults.append(
                ScriptedFault(kind, _faults.PATHS.get(kind, ""), _faults.make(kind, *args, **how))
            )

    @property
    def unused(self) -> list[str]:
        """What was scripted and has not happened yet, in words; the pytest fixtures fail a test that leaves any."""
        return self._script.unused

    def advance(self, seconds: float) -> None:
        """Move the clock forward, by which keys expire, the quota begins anew at midnight UTC and tasks end.

        Raises:
            ConfigurationError: that is backward, or too far.

        Example:
            first = lexi.stream_chat("Where is Jane Doe?")
            first.final_reply()
            sandbox.advance(24 * 3600)  # for how long an idempotency key is known
            lexi.stream_chat("Where is Jane Doe?", idempotency_key=first.idempotency_key).final_reply()
            assert len(sandbox.charges) == 2
        """
        self._clock.advance(seconds)

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

    def _parts(self) -> tuple[Store, Streams, Server]:
        if not self._running:
            raise RuntimeError("The sandbox does not run: enter it, or call start()")
        return self._running

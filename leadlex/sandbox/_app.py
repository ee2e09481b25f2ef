"""The contract's endpoints. Every path of the service stands in `Api.app`."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources
from typing import NoReturn, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from . import _bodies
from ._access import Gate, Key
from ._faults import FAILS
from ._replies import Refusal, error, refuse
from ._store import Row
from ._streams import Streams
from ._workspace import Workspace

PACKAGE, OPENAPI = "leadlex.sandbox", "lexi.openapi.yaml"
LAST_ROW = 2**63 - 1  # for SQLite
STATUSES = ("pending", "approved", "dismissed", "completed", "failed")

# The fields of the contract's objects.
SUMMARY = ("id", "title", "message_count", "last_message_at", "context", "archived", "created_at")
CONVERSATION = ("id", "title", "context", "archived", "created_at")
MESSAGE = ("id", "role", "content", "tool_calls", "tool_name", "tool_output", "created_at")
TASK = ("id", "type", "status", "description", "created_at", "metadata")

Handler = Callable[[Request, Key], Awaitable[Response]]


class Api:
    """The endpoints: each method answers one request of a key that may make it."""

    def __init__(self, workspace: Workspace, streams: Streams, gate: Gate) -> None:
        self._workspace, self._streams, self._gate = workspace, streams, gate
        self._store = workspace.store

    def app(self) -> Starlette:
        """Make the ASGI application."""
        routes = [
            self._route("POST", "/v1/lexi/chat", "lexi", self.chat),
            self._route("POST", "/v1/lexi/chat/stream", "write:ai", self.stream),
            self._route("GET", "/v1/lexi/conversations", "read:ai", self.conversations),
            self._route("GET", "/v1/lexi/conversations/{id}", "read:ai", self.conversation),
            self._route("GET", "/v1/lexi/tasks", "lexi", self.tasks),
            self._route("POST", "/v1/lexi/tasks/{id}/approve", "lexi", self.approve),
            self._route("POST", "/v1/lexi/tasks/{id}/dismiss", "lexi", self.dismiss),
            Route("/openapi.yaml", _openapi),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted, Exception: _failed})
        app.router.redirect_slashes = False
        return app

    def _route(self, method: str, path: str, permission: str, handler: Handler) -> Route:
        async def admitted(request: Request) -> Response:
            try:
                key = self._gate.admit(request.headers.get("authorization", ""), permission)
                self._store.settle()
                return await handler(request, key)
            except Refusal as refusal:
                return error(refusal.status, refusal.code, refusal.message)
            except ClientDisconnect:  # it was gone before all of its body came
                return _Nothing()

        return Route(path, admitted, methods=[method])

    async def chat(self, request: Request, key: Key) -> Response:
        """Answer a message as a whole."""
        question = _bodies.chat_question(await _bodies.json_object(request))
        if not self._exists(question.conversation_id):
            refuse("The conversation_id does not exist")
        turn = self._workspace.take(question, key.user_id, "chat")
        self._workspace.finish(turn)
        return _data(
            response=turn.reply.text,
            task_id=turn.task_id,
            requires_approval=turn.task_id is not None,
            conversation_id=turn.conversation_id,
        )

    async def stream(self, request: Request, key: Key) -> Response:
        """Answer a message word by word."""
        body = await _bodies.json_object(request)
        question, idempotency_key = _bodies.stream_question(body), _bodies.idempotency_key(request)
        if not self._exists(question.conversation_id):
            raise Refusal(404, "conversation_not_found", "The conversation_id does not exist")
        fingerprint = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        recording = self._streams.open(question, key, idempotency_key, fingerprint)
        return StreamingResponse(recording.follow(), 200, {"Cache-Control": "no-store"}, "text/event-stream")

    async def conversations(self, request: Request, key: Key) -> Response:
        """Give one page of the conversations."""
        page, per_page = (
            _bodies.number(request, "page", 1),
            _bodies.number(request, "per_page", 25, largest=100),
        )
        found, total = self._store.conversations(
            {"user_id": key.user_id, **request.query_params},
            archived=_bodies.flag(request, "archived"),
            offset=min((page - 1) * per_page, LAST_ROW),
            limit=per_page,
        )
        data = {"conversations": [_shown(row, SUMMARY) for row in found]}
        return JSONResponse({"data": data, "meta": {"page": page, "per_page": per_page, "total": total}})

    async def conversation(self, request: Request, _key: Key) -> Response:
        """Give one conversation with its messages."""
        tools = _bodies.flag(request, "include_tool_steps")
        limit = _bodies.number(request, "limit", 200, largest=1000)
        found = self._store.conversation(request.path_params["id"]) or _missing("conversation")
        messages = self._store.messages(found["id"], tools=tools, limit=limit)
        return _data(**_shown(found, CONVERSATION), messages=[_shown(row, MESSAGE) for row in messages])

    async def tasks(self, request: Request, _key: Key) -> Response:
        """Give the tasks that have a status."""
        status = request.query_params.get("status", "pending")
        if status not in STATUSES:
            refuse(f"status must be one of {', '.join(STATUSES)}")
        return _data(tasks=[_shown(row, TASK) for row in self._store.tasks(status)])

    async def approve(self, request: Request, _key: Key) -> Response:
        """Approve a task."""
        task = self._pending_task(request)
        starts = self._workspace.approve(task, fails=FAILS in request.scope)
        return _data(task_id=task["id"], status="approved", execution_started=starts)

    async def dismiss(self, request: Request, _key: Key) -> Response:
        """Dismiss a task for good."""
        reason = _bodies.reason(await _bodies.json_object(request)) if await request.body() else None
        task = self._pending_task(request)
        self._store.decide(task["id"], "dismissed", reason)
        return _data(task_id=task["id"], status="dismissed")

    def _exists(self, conversation_id: str | None) -> bool:
        """Tell whether a message can be in this conversation; None begins one."""
        return conversation_id is None or self._store.conversation(conversation_id) is not None

    def _pending_task(self, request: Request) -> Row:
        task = self._store.task(request.path_params["id"]) or _missing("task")
        if task["status"] != "pending":
            refuse(f"The task is {task['status']}, not pending")
        return task


class _Nothing(Response):
    """What nobody is there to read."""

    async def __call__(self, *_: object) -> None:
        """Send nothing."""


def _data(**fields: object) -> Response:
    return JSONResponse({"data": fields})


def _shown(row: Row, names: Iterable[str]) -> Row:
    """Give the fields that the contract names, without those that are empty."""
    shown = {name: row[name] for name in names if row[name] is not None}
    return shown | {"archived": bool(row["archived"])} if "archived" in row else shown


def _missing(what: str) -> NoReturn:
    raise Refusal(404, "not_found", f"No such {what}")


async def _unrouted(request: Request, problem: Exception) -> Response:
    unrouted = cast("HTTPException", problem)
    code = "not_found" if unrouted.status_code == 404 else "method_not_allowed"  # noqa: PLR2004
    message = f"The sandbox has no endpoint {request.method} {request.url.path}"
    return error(unrouted.status_code, code, message, unrouted.headers)


async def _failed(_request: Request, _problem: Exception) -> Response:
    return error(500, "internal_error", "The sandbox itself failed; its log says how")


async def _openapi(_request: Request) -> Response:
    # Not next to this file in a zipapp, and in a frozen program only where that was told to take it along.
    try:
        schema = resources.files(PACKAGE).joinpath(OPENAPI).read_bytes()
    except FileNotFoundError:
        return error(404, "not_found", f"This program was packed without {PACKAGE}/{OPENAPI}")
    return Response(schema, media_type="application/yaml")

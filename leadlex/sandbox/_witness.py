"""The outermost layer: sees each request, gives its answer the headers that all answers have, and lets faults in."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import _connection
from ._access import Gate
from ._faults import Fault

logger = logging.getLogger("leadlex.sandbox")


@dataclass(slots=True)
class SeenRequest:
    """A request as the server saw it; `status` is None until the answer begins.

    `headers` has the lower-case names and never the key. `disconnected` says that the client left before the answer
    was complete, `fault` which scripted fault it met.
    """

    id: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    status: int | None = None
    complete: bool = False
    disconnected: bool = False
    fault: str | None = None

    @property
    def idempotency_key(self) -> str | None:
        """The Idempotency-Key that was sent."""
        return self.headers.get("idempotency-key")

    def lose(self) -> None:
        """Note that the connection is gone."""
        self.disconnected = not self.complete


class Witness:
    """The ASGI application that the server runs: `app`, watched."""

    def __init__(
        self, app: ASGIApp, gate: Gate, faults: list[tuple[str, Fault]], requests: list[SeenRequest]
    ) -> None:
        self._app, self._gate, self._faults, self._requests = app, gate, faults, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = Headers(scope=scope)
        seen = self._see(scope, headers)
        _connection.of(scope).on_lost = seen.lose

        async def hear() -> Message:
            message = await receive()
            seen.body += message.get("body", b"")
            return message

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                self._mark(message, seen.id, headers.get("authorization", ""))
            else:
                seen.complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._answer(seen, scope, hear, say)
        except Exception:
            logger.exception("The sandbox itself failed on %s %s", seen.method, seen.path)
            raise

    def _see(self, scope: Scope, headers: Headers) -> SeenRequest:
        shown = {name: value for name, value in headers.items() if name != "authorization"}
        number = len(self._requests) + 1
        seen = SeenRequest(
            f"req_{number:06}", scope["method"], scope["path"], scope["query_string"].decode("latin-1"), shown
        )
        self._requests.append(seen)
        return seen

    def _mark(self, start: Message, request_id: str, authorization: str) -> None:
        headers = MutableHeaders(scope=start)
        headers["Date"] = formatdate(usegmt=True)
        headers["X-Request-ID"] = request_id
        for name, value in self._gate.headers(authorization).items():
            headers.setdefault(name, value)

    async def _answer(self, seen: SeenRequest, scope: Scope, receive: Receive, send: Send) -> None:
        scripted = self._next_fault(seen.path)
        if scripted:
            seen.fault, fault = scripted
            await fault(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _next_fault(self, path: str) -> tuple[str, Fault] | None:
        """Take the first fault that is for this request; those for streams wait for one."""
        is_stream = path.endswith("/stream")
        for scripted in self._faults:
            if is_stream or not scripted[1].stream_only:
                self._faults.remove(scripted)
                return scripted
        return None

"""The outermost layer: notes requests, gives each answer the headers that all have, lets faults happen."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import _connection
from ._access import Gate
from ._clock import Clock
from ._faults import Fault
from ._hosts import Hosts
from ._replies import error
from ._script import Script

logger = logging.getLogger("leadlex.sandbox")


@dataclass(slots=True)
class SeenRequest:
    """A request as the server saw it.

    `headers` have lower-case names, and never the key. `status` is None until the answer begins, `complete`
    tells that all of it was sent, `disconnected` that the client left before that, `fault` what was scripted.
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
        """The Idempotency-Key that came with it."""
        return self.headers.get("idempotency-key")

    def lose(self) -> None:
        """Note that the client is gone."""
        self.disconnected = not self.complete


class RequestLog:
    """The ASGI application that the server runs: another one, whose requests are noted in a list.

    Args:
        app: the other one.
        gate: knows the quota, which every answer tells.
        hosts: the names under which it answers.
        script: has the faults.
        clock: tells the time.
        requests: where requests are noted.
    """

    def __init__(
        self, app: ASGIApp, gate: Gate, hosts: Hosts, script: Script, clock: Clock, requests: list[SeenRequest]
    ) -> None:
        self._app, self._gate, self._hosts = app, gate, hosts
        self._script, self._clock, self._requests = script, clock, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        seen = self._note(scope)
        _connection.of(scope).on_lost = seen.lose
        fault = self._fault(seen) if self._hosts.admit(scope) else _misdirected
        try:
            await fault(self._app, scope, _heard(seen, receive), self._marked(seen, scope, send))
        except Exception:
            logger.exception("The sandbox itself failed at %s %s", seen.method, seen.path)

    def _note(self, scope: Scope) -> SeenRequest:
        number, query = len(self._requests) + 1, scope["query_string"].decode("latin-1")
        headers = {name: text for name, text in Headers(scope=scope).items() if name != "authorization"}
        seen = SeenRequest(f"req_{number:06}", scope["method"], scope["path"], query, headers)
        self._requests.append(seen)
        return seen

    def _fault(self, seen: SeenRequest) -> Fault:
        """Give what happens to this request."""
        scripted = self._script.next_fault(seen.path)
        if not scripted:
            return _none
        seen.fault = scripted.name
        return scripted.fault

    def _marked(self, seen: SeenRequest, scope: Scope, send: Send) -> Send:
        authorization = Headers(scope=scope).get("authorization", "")

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({"Date": format_datetime(self._clock.now(), usegmt=True), "X-Request-ID": seen.id})
                for name, value in self._gate.headers(authorization).items():
                    headers.setdefault(name, value)
            else:
                seen.complete = not message.get("more_body", False)
            await send(message)

        return marked


def _heard(seen: SeenRequest, receive: Receive) -> Receive:
    async def heard() -> Message:
        message = await receive()
        seen.body += message.get("body", b"")
        return message

    return heard


async def _misdirected(_app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    how = "leadlex sandbox --allow-host NAME, or Sandbox(allowed_hosts=[NAME])"
    message = f"The sandbox answers to the names of this machine, and not to the Host of this request. To let it: {how}"
    await error(421, "unknown_host", message)(scope, receive, send)


async def _none(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)

"""Send, and send again: the only place that sends or sleeps.

Rule: the edge does and decides nothing. What may be repeated, after how long and what was charged is the policy's to
say; here an attempt ends as a value or as a `Failure`, and a call as a value or as an error.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import anyio
import httpx
from attrs import frozen

from leadlex._api_key import ApiKey
from leadlex._errors import ClientClosedError, ConfigurationError, LeadLexError
from leadlex._logging import record
from leadlex._policy.call import Call, Retry, next_attempt
from leadlex._policy.failures import Failure, FailureKind, Progress
from leadlex._policy.transcript import Transcript
from leadlex._protocol.headers import rate_limit_of
from leadlex._protocol.json_text import Unusable, loads_bytes
from leadlex._protocol.operation import Operation
from leadlex._protocol.problems import problem_of, problem_of_body
from leadlex._settings import USER_AGENT, Settings
from leadlex._values.metadata import Attempt, Meta, RateLimit
from leadlex._values.plain import WireError
from leadlex._values.problem import WireProblem

from .bodies import MAX_JSON, Content, GuardedText, Unheard, close, read_all
from .clock import Clock
from .keys import ask_for_key
from .loops import ConnectionsByLoop
from .retry_quota import RetryQuota
from .seen import LastSeen
from .timeouts import Clocks, Expired
from .translation import MAX_ERROR, Translator, detach, let_pass, without_traceback
from .urls import DiscreetURL, parsed_url

T = TypeVar("T")
V = TypeVar("V")

Take = Callable[[Call[T], httpx.Response, Clocks], Awaitable[V | Failure]]
"""Makes of an answer whose head was read what an attempt is made for, and closes what is not handed on."""

Broken = Failure | Exception | WireProblem
"""What ended an attempt: translated already, raised, or an `error` event."""

MAX_HEADERS: Final = 1000


@frozen(eq=False, repr=False)
class OpenStream:
    """A stream whose head was read and found good."""

    text: GuardedText
    clocks: Clocks


class Transport:
    """The way of operations to the service, and of answers back.

    Args:
        settings: The checked options.
        connections: The clients by event loop; shared with copies.
        seen: What the service last said; shared with copies.
        quota: What bounds retries; shared with copies.
        clock: The clocks and the chance.
    """

    def __init__(
        self, settings: Settings, connections: ConnectionsByLoop, seen: LastSeen, quota: RetryQuota, clock: Clock
    ) -> None:
        self.settings = settings
        self.connections = connections
        self.seen = seen
        self.quota = quota
        self.clock = clock
        self.translator: Translator = Translator(settings.keys, settings.timeout, settings.base_url, settings.address)

    def __repr__(self) -> str:
        return f"<Transport to {self.settings.base_url}>"

    def replaced(self, settings: Settings) -> Transport:
        """Return a transport with other settings and the same connections, quota and memory."""
        return Transport(settings, self.connections, self.seen, self.quota, self.clock)

    # JSON ----------------------------------------------------------------------------------------------------------

    async def send(self, operation: Operation[T]) -> T:
        """Return the value that an operation asks for, trying again where that is safe.

        Raises:
            LeadLexError: It could not be had; the error says what was charged.
        """
        call, ended = self.begin(operation), None
        try:
            while ended is None:
                outcome = await self._attempt(call, self._answer)
                if not isinstance(outcome, Failure):
                    return outcome
                ended = await self._again(call, outcome)
        except BaseException as error:
            let_pass(error, call.handled)
            raise
        raise ended

    def begin(self, operation: Operation[T], transcript: Transcript | None = None) -> Call[T]:
        """Open the record of a call, which hands out what a transcript keeps."""
        total = self.settings.timeout.total_of(streams=operation.streams)
        now, wall = self.clock.now(), self.clock.wall()
        first_sent = operation.first_sent or datetime.fromtimestamp(int(wall), UTC)
        return Call(
            operation=operation,
            began=now,
            deadline=None if total is None else now + total,
            first_sent=first_sent,
            key_sent=now - max(0.0, wall - first_sent.timestamp()),
            attempt_began=now,
            handled=sys.exception(),
            transcript=transcript or Transcript(),
        )

    async def _attempt(self, call: Call[T], take: Take[T, V]) -> V | Failure:
        """Make one attempt: send, and take the answer."""
        clocks = Clocks(self.settings.timeout, call.deadline, self.clock.now, streams=call.operation.streams)
        seconds, clock = clocks.next_end()
        call.meta, call.progress = None, Progress()
        try:
            with self.connections.here().waiting(seconds) as scope:
                call.stop = scope.cancel
                return await take(call, await self._head(call, clocks), clocks)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            return self._failure(call, error)
        return self._failure(call, Expired(clock))

    async def _answer(self, call: Call[T], response: httpx.Response, clocks: Clocks) -> T | Failure:
        try:
            meta = self._meta(call, response)
            empty = call.operation.empty and response.is_success
            if response.status_code != 200 and not empty:  # noqa: PLR2004  # RFC 9110, 15.3.1
                return await self._rejection(call, response, clocks, meta)
            return self._value(call, meta, await read_all(response, clocks, MAX_JSON))
        finally:
            await close(response)

    def _value(self, call: Call[T], meta: Meta, body: bytes) -> T | Failure:
        try:
            answer = None if call.operation.empty and not body else loads_bytes(body)
        except WireError as error:
            return self.translator.no_json(meta, body, error)
        problem = problem_of(answer)
        if problem:
            return self._refusal(call, meta, problem, body)
        value = call.operation.read(answer, meta)
        self.succeeded(call)
        return value

    # Streams -------------------------------------------------------------------------------------------------------

    async def open(self, call: Call[Any], broken: Broken | None = None) -> OpenStream | LeadLexError:
        """Return a stream, begun or begun again after what broke it, or the error that ends the call.

        The caller closes what is opened.
        """
        ended = None if broken is None else await self._again(call, self._failure(call, broken))
        while ended is None:
            opened = await self._attempt(call, self._opened)
            if isinstance(opened, OpenStream):
                return opened
            ended = await self._again(call, call.unopened(opened))
        return ended

    async def _opened(self, call: Call[Any], response: httpx.Response, clocks: Clocks) -> OpenStream | Failure:
        opened = None
        try:
            meta = self._meta(call, response)
            media_type = response.headers.get("content-type", "").partition(",")[0].partition(";")[0]
            if response.status_code != 200 or media_type.strip().lower() != "text/event-stream":  # noqa: PLR2004  # 15.3.1
                return await self._rejection(call, response, clocks, meta)
            opened = OpenStream(GuardedText(response, clocks), clocks)
            call.head_seen = True
            return opened
        finally:
            if opened is None:
                await close(response)

    # Heads ---------------------------------------------------------------------------------------------------------

    async def _head(self, call: Call[Any], clocks: Clocks) -> httpx.Response:
        here = self.connections.here()
        call.attempts += 1
        call.attempt_began = self.clock.now()
        key = call.api_key = call.api_key or self.settings.keys.fixed or await ask_for_key(self.settings.keys)
        call.progress.handed_over = True
        request = self._request(call, key, clocks)
        try:
            response = await here.client.send(request, stream=True, auth=None, follow_redirects=False)
        except httpx.HTTPStatusError as error:  # a hook of the user's client raised it
            response = error.response
        here.responses.add(response)
        clocks.note_head(traced=call.progress.traced)
        return response

    def _request(self, call: Call[Any], key: ApiKey, clocks: Clocks) -> httpx.Request:
        progress = call.progress

        async def trace(name: str, info: Mapping[str, Any]) -> None:  # httpcore awaits it
            progress.note(name, info)
            if progress.status is None:  # a proxy's answer is a part of connecting, Lexi's takes its time
                clocks.note_waiting(started=progress.started)

        request = httpx.Request(
            call.operation.method,
            self._url(call.operation),
            headers=self._headers(call.operation, key),
            content=call.operation.body,
            extensions={"timeout": clocks.times, "trace": trace},
        )
        if call.operation.body is not None:
            request.stream = Content(call.operation.body)
        if call.operation.query:
            request.url = DiscreetURL(request.url)
        return request

    def _url(self, operation: Operation[Any]) -> httpx.URL:
        # A parsed URL is kept only where it names an endpoint: ids and searches are not for keeping.
        url = self.settings.base_url + operation.target
        return parsed_url(url) if operation.is_fixed else httpx.URL(url)

    def _headers(self, operation: Operation[Any], key: ApiKey) -> list[tuple[bytes, bytes]]:
        headers = {
            b"user-agent": USER_AGENT.encode(),
            b"accept": b"text/event-stream" if operation.streams else b"application/json",
            # A compressed stream would wait for its compressor.
            b"accept-encoding": b"identity" if operation.streams else b"gzip",
        }
        if operation.body is not None:
            headers[b"content-type"] = b"application/json"
        headers.update((name.lower().encode(), value.encode()) for name, value in self.settings.headers)
        if operation.idempotency_key is not None:
            headers[b"idempotency-key"] = operation.idempotency_key.encode()
        headers[b"authorization"] = key.authorization.encode()
        return list(headers.items())

    def _meta(self, call: Call[Any], response: httpx.Response) -> Meta:
        raw, masked, headers = response.headers.raw, self.settings.keys.masked, dict[str, str]()
        if len(raw) > MAX_HEADERS:
            raise Unusable("it has too many headers")
        for name, value in raw:
            headers.setdefault(masked(name.lower().decode("latin-1")), masked(value.decode("utf-8", "replace")))
        rate_limit = rate_limit_of(headers)
        if rate_limit != RateLimit():
            self.seen.rate_limit = rate_limit
        call.meta = Meta(
            status_code=response.status_code,
            request_id=headers.get("x-request-id"),
            rate_limit=rate_limit,
            headers=headers,
            attempts=call.attempts,
            elapsed=self.clock.now() - call.began,
        )
        return call.meta

    # Ends of an attempt --------------------------------------------------------------------------------------------

    def succeeded(self, call: Call[Any]) -> None:
        """Give back to the quota what a call that went well had taken."""
        self.quota.give(call.taken or 1)
        meta = call.meta
        record(
            logging.INFO,
            "answered",
            operation=call.operation.name,
            attempt=call.attempts,
            status=meta and meta.status_code,
            request_id=meta and meta.request_id,
            elapsed=self.clock.now() - call.began,
            resumes=call.resumes or None,
        )

    async def _rejection(self, call: Call[Any], response: httpx.Response, clocks: Clocks, meta: Meta) -> Failure:
        try:
            body = await read_all(response, clocks, MAX_ERROR, cut=True)
        except Unheard:
            if _is_error(meta.status_code):
                return self.translator.unheard(meta, call.operation, self.clock.wall())
            body = b""
        except Exception:  # noqa: BLE001  # httpcore's own, since the pools are used without httpx's translation
            body = b""  # The status alone tells the class: a body that breaks takes nothing away.
        problem = problem_of_body(body)
        if _is_error(meta.status_code):
            return self._refusal(call, meta, problem or WireProblem(None, None), body)
        if problem and response.is_success:
            return self._refusal(call, meta, problem, body)
        return self.translator.other_answer(meta, body)

    def _refusal(self, call: Call[Any], meta: Meta, problem: WireProblem, body: bytes) -> Failure:
        return self.translator.status(meta, problem, body, call.operation, self.clock.wall())

    def _failure(self, call: Call[Any], broken: Broken) -> Failure:
        """Translate whatever ended an attempt."""
        if isinstance(broken, Failure):
            return broken
        if isinstance(broken, WireProblem):
            meta = call.meta or Meta(status_code=200)
            return self.translator.event(meta, broken, call.operation, self.clock.wall())
        detach(broken, call.handled)
        if self.connections.closed:
            return Failure(FailureKind.LOST if call.progress.may_have_acted else FailureKind.LOCAL, ClientClosedError())
        if isinstance(broken, LeadLexError):
            return Failure(FailureKind.LOCAL, broken)
        status = call.progress.status
        if call.meta is None and status and _is_error(status) and not isinstance(broken, Expired | Unusable):
            # A hook of the user's client raised for the status.
            meta = Meta(status_code=status, attempts=call.attempts)
            return self.translator.unheard(meta, call.operation, self.clock.wall())
        return self.translator.exception(broken, call.progress, call.meta, streams=call.head_seen)

    # Again or not --------------------------------------------------------------------------------------------------

    async def _again(self, call: Call[Any], failure: Failure) -> LeadLexError | None:
        """Wait for the next attempt; where there is none, return the error that ends the call."""
        if call.interrupted:
            return failure.error
        retry = self._decide(call, failure)
        self._record(call, failure, retry)
        if retry is not None:
            closed = await self._rest(call, retry.delay)
            if closed is None and self.clock.now() <= retry.last_start:
                return None
            failure = failure if closed is None else Failure(failure.kind, closed)
        error = call.ended_by(failure)
        if error.__cause__ is not None and not isinstance(error, ConfigurationError):  # whose cause is a user's own
            without_traceback(error.__cause__)
        return error

    def _decide(self, call: Call[Any], failure: Failure) -> Retry | None:
        now, kind = self.clock.now(), failure.kind
        call.note_failure(kind, now)
        if self.connections.closed:
            return None
        settings = self.settings
        retry = next_attempt(call, failure, settings.policy, now, self.clock.chance(), resume=settings.resume)
        if retry is None or (retry.takes_quota and not self._has_quota(call, kind)):
            return None
        call.note_retry(kind)
        return retry

    def _has_quota(self, call: Call[Any], kind: FailureKind) -> bool:
        taken = self.quota.take(kind)
        call.taken = taken or call.taken
        return bool(taken)

    def within(self, seconds: float) -> anyio.CancelScope:
        """Cancel what is still done inside after so many seconds, whatever it waits for."""
        return anyio.move_on_after(seconds)

    async def rest(self, seconds: float) -> None:
        """Sleep, unless the client is closed.

        Raises:
            ClientClosedError: It was.
        """
        closed = await self._rest(None, seconds)
        if closed is not None:
            raise closed

    async def _rest(self, call: Call[Any] | None, seconds: float) -> ClientClosedError | None:
        """Sleep; return what is told where the client is closed, or the wait ended through the call."""
        try:
            with self.connections.here().waiting() as scope:
                if call is not None:
                    call.stop = scope.cancel
                await self.clock.sleep(seconds)
        except ClientClosedError as error:
            return error
        return ClientClosedError(facts={"charged": "no"}) if scope.cancelled_caught else None

    def _record(self, call: Call[Any], failure: Failure, retry: Retry | None) -> None:
        meta, delay = call.meta, None if retry is None else retry.delay
        status, request_id = (meta.status_code, meta.request_id) if meta else (None, None)
        took = self.clock.now() - call.attempt_began
        kind = failure.kind.value
        call.log.append(Attempt(failure=kind, status_code=status, request_id=request_id, elapsed=took, delay=delay))
        record(
            logging.WARNING if delay is None else logging.INFO,
            "failed" if delay is None else "trying again",
            operation=call.operation.name,
            attempt=call.attempts,
            status=status,
            request_id=request_id,
            failure=kind,
            delay=delay,
        )


def _is_error(status: int) -> bool:
    return 400 <= status < 600  # noqa: PLR2004  # RFC 9110, 15.5 and 15.6

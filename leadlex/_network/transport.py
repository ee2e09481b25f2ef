"""Send, and send again: the only place that sends or sleeps.

Rule: the edge does and decides nothing. What may be repeated, after how long and what was charged is `_retry`'s to say;
here an attempt ends as a value or as a `Failure`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, TypeVar

import anyio
import httpx
from attrs import frozen

from leadlex._errors import ClientClosedError, LeadLexError
from leadlex._logging import record
from leadlex._policy.failures import UNREACHED, Failure, FailureKind, Progress, charged_after, worse
from leadlex._policy.retry import may_repeat, may_resume, pause_before, too_late
from leadlex._policy.transcript import Transcript
from leadlex._protocol.headers import rate_limit_of
from leadlex._protocol.json_text import Unusable, WireError, loads_bytes
from leadlex._protocol.operation import Operation
from leadlex._protocol.problems import WireProblem, problem_of, problem_of_body
from leadlex._settings import USER_AGENT, Settings
from leadlex._values.metadata import Attempt, Meta, RateLimit

from .bodies import MAX_JSON, GuardedText, close, read_all
from .call import Call, Seen
from .clock import Clock
from .loops import ConnectionsByLoop
from .retry_quota import RetryQuota
from .timeouts import Clocks, Expired
from .translation import MAX_ERROR, RejectedResponse, Translator, detach, interrupted, let_pass, without_traceback
from .urls import DiscreetURL, parsed_url

T = TypeVar("T")

MAX_HEADERS: Final = 1000


@frozen(eq=False, repr=False)
class Opened:
    """Hold a stream whose head was read and found good."""

    text: GuardedText
    clocks: Clocks


class Transport:
    """Carry operations to the service and answers back.

    Args:
        settings: The checked options.
        homes: The connections; shared with copies.
        seen: What the service last said; shared with copies.
        quota: What bounds retries; shared with copies.
        clock: The clocks and the chance.
    """

    def __init__(
        self, settings: Settings, connections: ConnectionsByLoop, seen: Seen, quota: RetryQuota, clock: Clock
    ) -> None:
        self.settings = settings
        self.connections = connections
        self.seen = seen
        self.quota = quota
        self.clock = clock
        self.translator: Translator = Translator(settings.key, settings.timeout, settings.base_url, settings.address)

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
        call = self.begin(operation)
        try:
            while True:
                outcome = await self._attempt(call)
                if not isinstance(outcome, Failure):
                    return outcome
                await self.again(call, outcome)
        except BaseException as error:
            let_pass(error, call.handled)
            raise

    def begin(self, operation: Operation[T]) -> Call[T]:
        """Open the record of a call."""
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
        )

    async def _attempt(self, call: Call[T]) -> T | Failure:
        clocks = Clocks(self.settings.timeout, call.deadline, self.clock.now, streams=False)
        call.meta, call.progress = None, Progress()
        try:
            with self.connections.here().waiting(clocks.next_end()[0]) as call.waits:
                response = await self._head(call, clocks)
                try:
                    return await self._answer(call, response, clocks)
                finally:
                    await close(response)
            raise Expired("total")  # noqa: TRY301  # translated with all the others
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            return self.failure(call, error)

    async def _answer(self, call: Call[T], response: httpx.Response, clocks: Clocks) -> T:
        meta, empty = self._meta(call, response), call.operation.empty
        if not (response.status_code == 200 or (empty and response.is_success)):  # noqa: PLR2004  # RFC 9110, 15.3.1
            raise RejectedResponse(await self._rejection(call, response, clocks, meta))
        body = await read_all(response, clocks, MAX_JSON)
        answer = None if empty and not body else self._loads(meta, body)
        problem = problem_of(answer)
        if problem:
            raise RejectedResponse(self._refusal(call, meta, problem, body))
        value = call.operation.read(answer, meta)
        self.succeeded(call)
        return value

    def _loads(self, meta: Meta, body: bytes) -> Any:  # noqa: ANN401  # JSON
        try:
            return loads_bytes(body)
        except WireError:
            # A page in place of JSON is worth showing; broken JSON may be what Lexi wrote, and is not.
            if "json" in meta.headers.get("content-type", ""):
                raise
            raise RejectedResponse(self.translator.other_answer(meta, body)) from None

    # Streams -------------------------------------------------------------------------------------------------------

    async def open(self, call: Call[Any]) -> Opened | Failure:
        """Make one attempt to begin a stream; the caller closes what is opened."""
        clocks = Clocks(self.settings.timeout, call.deadline, self.clock.now, streams=True)
        seconds, clock = clocks.next_end()
        call.meta, call.progress = None, Progress()
        try:
            with self.connections.here().waiting(seconds) as call.waits:
                response = await self._head(call, clocks)
                return await self._opened(call, response, clocks)
            raise Expired(clock)  # noqa: TRY301  # translated with all the others
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            return self.failure(call, error)

    async def _opened(self, call: Call[Any], response: httpx.Response, clocks: Clocks) -> Opened:
        try:
            meta = self._meta(call, response)
            media_type = response.headers.get("content-type", "").partition(",")[0].partition(";")[0]
            if response.status_code != 200 or media_type.strip().lower() != "text/event-stream":  # noqa: PLR2004  # 15.3.1
                raise RejectedResponse(await self._rejection(call, response, clocks, meta))  # noqa: TRY301  # closes below
            text = GuardedText(response, clocks)
        except BaseException:
            await close(response)
            raise
        call.head_seen = True
        return Opened(text, clocks)

    # Heads ---------------------------------------------------------------------------------------------------------

    async def _head(self, call: Call[Any], clocks: Clocks) -> httpx.Response:
        home = self.connections.here()
        call.attempts += 1
        call.attempt_began = self.clock.now()
        call.progress.handed_over = True
        response = await home.client.send(self._request(call), stream=True, auth=None, follow_redirects=False)
        home.responses.add(response)
        # httpcore looks the read timeout up again for the body; until the head, Lexi may think. Who is not httpcore,
        # and so gives no trace of it, may not look.
        response.request.extensions["timeout"]["read"] = clocks.idle
        clocks.counts_idle = not call.progress.traced
        return response

    def _request(self, call: Call[Any]) -> httpx.Request:
        timeout, progress = self.settings.timeout, call.progress
        times = {"connect": timeout.connect, "write": timeout.write, "pool": timeout.pool, "read": None}

        async def trace(name: str, info: Mapping[str, Any]) -> None:  # httpcore awaits it
            progress.note(name, info)
            if progress.status is None:  # a proxy's answer is a part of connecting, Lexi's takes its time
                times["read"] = None if progress.started else timeout.connect

        request = httpx.Request(
            call.operation.method,
            self._url(call.operation),
            headers=self._headers(call.operation),
            content=call.operation.body,
            extensions={"timeout": times, "trace": trace},
        )
        if call.operation.query:
            request.url = DiscreetURL(request.url)
        return request

    def _url(self, operation: Operation[Any]) -> httpx.URL:
        # A parsed URL is kept only where it names an endpoint: ids and searches are not for keeping.
        url = self.settings.base_url + operation.target
        return parsed_url(url) if operation.is_fixed else httpx.URL(url)

    def _headers(self, operation: Operation[Any]) -> list[tuple[bytes, bytes]]:
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
        headers[b"authorization"] = self.settings.key.authorization.encode()
        return list(headers.items())

    def _meta(self, call: Call[Any], response: httpx.Response) -> Meta:
        raw, masked, headers = response.headers.raw, self.settings.key.masked, dict[str, str]()
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
        except Exception:  # noqa: BLE001  # httpcore's own, since the pools are used without httpx's translation
            body = b""  # The status alone tells the class: a body that breaks takes nothing away.
        problem = problem_of_body(body)
        if 400 <= meta.status_code < 600:  # noqa: PLR2004  # RFC 9110, 15.5 and 15.6
            return self._refusal(call, meta, problem or WireProblem(None, None), body)
        if problem and response.is_success:
            return self._refusal(call, meta, problem, body)
        return self.translator.other_answer(meta, body)

    def _refusal(self, call: Call[Any], meta: Meta, problem: WireProblem, body: bytes) -> Failure:
        return self.translator.status(meta, problem, body, call.operation, self.clock.wall())

    def failed_event(self, call: Call[Any], problem: WireProblem) -> Failure:
        """Translate an `error` event."""
        meta = call.meta or Meta(status_code=200)
        return self.translator.event(meta, problem, call.operation, self.clock.wall())

    def failure(self, call: Call[Any], error: Exception) -> Failure:
        """Translate whatever ended an attempt."""
        detach(error, call.handled)
        if isinstance(error, RejectedResponse):
            return error.failure
        if self.connections.closed:
            return Failure(FailureKind.LOST if call.progress.may_have_acted else FailureKind.LOCAL, ClientClosedError())
        if isinstance(error, LeadLexError):
            return Failure(FailureKind.LOCAL, error)
        return self.translator.exception(error, call.progress, call.meta, streams=call.head_seen)

    # Again or not --------------------------------------------------------------------------------------------------

    async def again(self, call: Call[Any], failure: Failure, handed_out: Transcript | None = None) -> None:
        """Wait for the next attempt, or raise what ended the last one.

        Raises:
            LeadLexError: There is no next attempt.
        """
        call.charged = worse(call.charged, charged_after(call.operation, failure.kind))
        call.progress = Progress()
        delay = None if self.connections.closed else self._delay(call, failure, handed_out)
        self._record(call, failure, delay)
        if delay is None:
            self.fail(call, failure, handed_out)
        try:
            await self.rest(delay, call)
        except ClientClosedError as error:
            self.fail(call, Failure(failure.kind, error), handed_out)
        if self._is_too_late(call, 0.0):
            self.fail(call, failure, handed_out)

    def _delay(self, call: Call[Any], failure: Failure, handed_out: Transcript | None) -> float | None:
        call.note_failure(self.clock.now(), handed_out.extent if handed_out else 0)
        if not self._may_go_on(call, failure.kind, handed_out):
            return None
        hint = self._hint(call, failure)
        delay = pause_before(self.settings.policy, failure.kind, call.pauses, hint, self.clock.chance())
        if delay is None or self._is_too_late(call, delay):
            return None
        # To ask whether it is done is no attempt, and takes nothing from those of others.
        if failure.kind is not FailureKind.IN_FLIGHT and not self._count(call, failure.kind, handed_out):
            return None
        return delay

    def _hint(self, call: Call[Any], failure: Failure) -> float | None:
        """Return the seconds that the server asks to wait; in vain, where a page in its place asks for too many."""
        under_way = call.head_seen and failure.kind in UNREACHED
        return None if under_way and (failure.hint or 0.0) > self.settings.policy.max_hint else failure.hint

    def _may_go_on(self, call: Call[Any], kind: FailureKind, handed_out: Transcript | None) -> bool:
        if handed_out is not None and handed_out.begun:
            return self.settings.resume and may_resume(kind, call.resumes, handed_out.length)
        under_way = call.head_seen and kind in UNREACHED
        return under_way or may_repeat(call.operation, self.settings.policy, kind, call.tries)

    def _is_too_late(self, call: Call[Any], delay: float) -> bool:
        now = self.clock.now()
        first_failure = now if call.first_failure is None else call.first_failure
        return too_late(self.settings.policy, now, delay, first_failure, call.deadline, call.key_sent)

    def _count(self, call: Call[Any], kind: FailureKind, handed_out: Transcript | None) -> bool:
        """Count one more attempt; tell whether the quota has room for it.

        A stream under way is paid for: continuing it takes nothing from the quota, and an attempt that did not reach
        the service is neither a retry nor a resume; the window bounds them.
        """
        if not call.head_seen:
            taken = self.quota.take(kind)
            if not taken:
                return False
            call.taken = taken
        call.pauses += 1
        if not (call.head_seen and kind in UNREACHED):
            begun = handed_out is not None and handed_out.begun
            call.resumes, call.tries = call.resumes + begun, call.tries + (not begun)
        return True

    def within(self, seconds: float) -> anyio.CancelScope:
        """Cancel what is still done inside after so many seconds, whatever it waits for."""
        return anyio.move_on_after(seconds)

    async def rest(self, seconds: float, call: Call[Any] | None = None) -> None:
        """Sleep, unless the client is closed, or the wait ended through the call.

        Raises:
            ClientClosedError: It was.
        """
        with self.connections.here().waiting() as scope:
            if call is not None:
                call.waits = scope
            await self.clock.sleep(seconds)
        if scope.cancelled_caught:
            raise ClientClosedError(facts={"charged": "no"})

    def fail(self, call: Call[Any], failure: Failure, handed_out: Transcript | None = None) -> NoReturn:
        """Raise what ended a call, with all that is known of it."""
        key = call.operation.idempotency_key
        error = interrupted(failure, key) if call.head_seen and key else failure.error
        error.charged = worse(call.charged, "yes" if handed_out and handed_out.done else "no")
        error.meta = error.meta or call.meta
        call.tell(error)
        if handed_out is not None and handed_out.begun:
            error.partial = handed_out.reply(call.operation.conversation_id, call.meta)
        if error.__cause__ is not None:
            without_traceback(error.__cause__)
            if isinstance(error.__cause__, LeadLexError):
                error.__cause__.charged = error.charged
                call.tell(error.__cause__)
        raise error

    def _record(self, call: Call[Any], failure: Failure, delay: float | None) -> None:
        meta = call.meta
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
            kind=kind,
            delay=delay,
        )

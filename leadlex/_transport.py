"""Send, and send again: the only place that sends or sleeps.

Rule: the edge does and decides nothing. What may be repeated, after how long and what was charged is `_retry`'s to say;
here an attempt ends as a value or as a `Broken`.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Generic, NoReturn, TypeVar

import anyio
import httpx
from attrs import define, field, frozen

from ._body import MAX_ERROR, MAX_JSON, Clocks, Expired, GuardedText, Unusable, close, read_all
from ._config import USER_AGENT, Settings
from ._errors import ClientClosedError, LeadLexError
from ._faults import (
    Broken,
    Rejected,
    Translator,
    detach,
    interrupted,
    let_pass,
    without_traceback,
)
from ._log import record
from ._meta import Attempt, Charged, Meta, RateLimit
from ._operations import Operation
from ._pool import Homes
from ._replay import Transcript
from ._retry import (
    UNREACHED,
    Fault,
    Progress,
    RetryQuota,
    charged_after,
    may_repeat,
    may_resume,
    pause_before,
    rate_limit_of,
    too_late,
    worse,
)
from ._wire import WireError, WireProblem, loads_bytes, problem_of, problem_of_body

T = TypeVar("T")

MAX_HEADERS: Final = 1000


class Time:
    """Be the clocks and the chance that the rules are given; a test puts others here."""

    # Where there is one, the clock that goes on while the machine is suspended: a key's life does too.
    _CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) if hasattr(time, "CLOCK_MONOTONIC") else None

    def now(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic() if self._CLOCK is None else time.clock_gettime(self._CLOCK)

    def wall(self) -> float:
        """Return Unix seconds by this machine."""
        return time.time()

    def chance(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()  # noqa: S311  # spreads retries, guards nothing

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)


@define(eq=False, repr=False)
class Seen:
    """Hold what the service last said, for all copies of a client."""

    rate_limit: RateLimit | None = None
    credits_remaining: int | None = None

    def note_credits(self, left: int | None, *, is_repeat: bool) -> None:
        """Take in a balance; the answer to a repeated question may tell the one of its first time."""
        known = self.credits_remaining
        if left is not None and not (is_repeat and known is not None and left > known):
            self.credits_remaining = left


@define(kw_only=True, eq=False, repr=False)
class Call(Generic[T]):
    """Keep the record of one logical call over all its attempts."""

    operation: Operation[T]
    began: float
    deadline: float | None
    first_sent: datetime
    key_sent: float
    attempt_began: float
    handled: BaseException | None
    attempts: int = 0
    tries: int = 0
    resumes: int = 0
    pauses: int = 0
    first_failure: float | None = None
    handed_out: int = 0
    log: list[Attempt] = field(factory=list)
    taken: int = 0
    charged: Charged = "no"
    head_seen: bool = False
    meta: Meta | None = None
    waits: anyio.CancelScope | None = None
    progress: Progress = field(factory=Progress)

    @property
    def is_repeat(self) -> bool:
        """Tell whether the service may have answered the same question before."""
        return self.attempts > 1 or self.operation.first_sent is not None

    def note_failure(self, now: float, handed_out: int) -> None:
        """Note when this outage began: a new one does once something new was handed out."""
        if self.first_failure is None or handed_out > self.handed_out:
            self.first_failure, self.handed_out, self.pauses = now, handed_out, 0

    def tell(self, error: LeadLexError) -> None:
        """Put on an error what is known of this call."""
        if self.operation.idempotency_key is not None:
            error.idempotency_key, error.first_sent = self.operation.idempotency_key, self.first_sent
        elif error.charged == "unknown":
            error.look = self.operation.look
        error.attempt_log = tuple(self.log)

    @property
    def charged_now(self) -> Charged:
        """Say what is known if the call ended here."""
        sent = self.progress.may_have_acted and self.operation.costs
        return worse(self.charged, "unknown" if sent else "no")


@frozen(eq=False, repr=False)
class Opened:
    """Hold a stream whose head was read and found good."""

    text: GuardedText
    clocks: Clocks


class DiscreetURL(httpx.URL):
    """Be a URL of ours, whose query (a search, ids) httpx's own line on a request does not show."""


def _without_query(line: logging.LogRecord) -> bool:
    if isinstance(line.args, tuple):
        line.args = tuple(arg.copy_with(query=None) if type(arg) is DiscreetURL else arg for arg in line.args)
    return True


logging.getLogger("httpx").addFilter(_without_query)


@lru_cache(maxsize=16)
def _parsed(url: str) -> httpx.URL:
    return httpx.URL(url)


class Transport:
    """Carry operations to the service and answers back.

    Args:
        settings: The checked options.
        homes: The connections; shared with copies.
        seen: What the service last said; shared with copies.
        quota: What bounds retries; shared with copies.
        time: The clocks and the chance.
    """

    def __init__(self, settings: Settings, homes: Homes, seen: Seen, quota: RetryQuota, time: Time) -> None:
        self.settings = settings
        self.homes = homes
        self.seen = seen
        self.quota = quota
        self.time = time
        self.translator: Translator = Translator(settings.key, settings.timeout, settings.base_url, settings.address)

    def __repr__(self) -> str:
        return f"<Transport to {self.settings.base_url}>"

    def replaced(self, settings: Settings) -> Transport:
        """Return a transport with other settings and the same connections, quota and memory."""
        return Transport(settings, self.homes, self.seen, self.quota, self.time)

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
                if not isinstance(outcome, Broken):
                    return outcome
                await self.again(call, outcome)
        except BaseException as error:
            let_pass(error, call.handled)
            raise

    def begin(self, operation: Operation[T]) -> Call[T]:
        """Open the record of a call."""
        total = self.settings.timeout.total_of(streams=operation.streams)
        now, wall = self.time.now(), self.time.wall()
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

    async def _attempt(self, call: Call[T]) -> T | Broken:
        clocks = Clocks(self.settings.timeout, call.deadline, self.time.now, streams=False)
        call.meta, call.progress = None, Progress()
        try:
            with self.homes.here().waiting(clocks.next_end()[0]) as call.waits:
                response = await self._head(call, clocks)
                try:
                    return await self._answer(call, response, clocks)
                finally:
                    await close(response)
            raise Expired("total")  # noqa: TRY301  # translated with all the others
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            return self.broken(call, error)

    async def _answer(self, call: Call[T], response: httpx.Response, clocks: Clocks) -> T:
        meta, empty = self._meta(call, response), call.operation.empty
        if not (response.status_code == 200 or (empty and response.is_success)):  # noqa: PLR2004  # RFC 9110, 15.3.1
            raise Rejected(await self._rejection(call, response, clocks, meta))
        body = await read_all(response, clocks, MAX_JSON)
        answer = None if empty and not body else self._loads(meta, body)
        problem = problem_of(answer)
        if problem:
            raise Rejected(self._refusal(call, meta, problem, body))
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
            raise Rejected(self.translator.other_answer(meta, body)) from None

    # Streams -------------------------------------------------------------------------------------------------------

    async def open(self, call: Call[Any]) -> Opened | Broken:
        """Make one attempt to begin a stream; the caller closes what is opened."""
        clocks = Clocks(self.settings.timeout, call.deadline, self.time.now, streams=True)
        seconds, clock = clocks.next_end()
        call.meta, call.progress = None, Progress()
        try:
            with self.homes.here().waiting(seconds) as call.waits:
                response = await self._head(call, clocks)
                return await self._opened(call, response, clocks)
            raise Expired(clock)  # noqa: TRY301  # translated with all the others
        except Exception as error:  # noqa: BLE001  # whatever it is, it is translated
            return self.broken(call, error)

    async def _opened(self, call: Call[Any], response: httpx.Response, clocks: Clocks) -> Opened:
        try:
            meta = self._meta(call, response)
            media_type = response.headers.get("content-type", "").partition(",")[0].partition(";")[0]
            if response.status_code != 200 or media_type.strip().lower() != "text/event-stream":  # noqa: PLR2004  # 15.3.1
                raise Rejected(await self._rejection(call, response, clocks, meta))  # noqa: TRY301  # closes below
            text = GuardedText(response, clocks)
        except BaseException:
            await close(response)
            raise
        call.head_seen = True
        return Opened(text, clocks)

    # Heads ---------------------------------------------------------------------------------------------------------

    async def _head(self, call: Call[Any], clocks: Clocks) -> httpx.Response:
        home = self.homes.here()
        call.attempts += 1
        call.attempt_began = self.time.now()
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
        return _parsed(url) if operation.is_fixed else httpx.URL(url)

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
            elapsed=self.time.now() - call.began,
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
            elapsed=self.time.now() - call.began,
            resumes=call.resumes or None,
        )

    async def _rejection(self, call: Call[Any], response: httpx.Response, clocks: Clocks, meta: Meta) -> Broken:
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

    def _refusal(self, call: Call[Any], meta: Meta, problem: WireProblem, body: bytes) -> Broken:
        return self.translator.status(meta, problem, body, call.operation, self.time.wall())

    def event_broken(self, call: Call[Any], problem: WireProblem) -> Broken:
        """Translate an `error` event."""
        meta = call.meta or Meta(status_code=200)
        return self.translator.event(meta, problem, call.operation, self.time.wall())

    def broken(self, call: Call[Any], error: Exception) -> Broken:
        """Translate whatever ended an attempt."""
        detach(error, call.handled)
        if isinstance(error, Rejected):
            return error.broken
        if self.homes.closed:
            return Broken(Fault.LOST if call.progress.may_have_acted else Fault.LOCAL, ClientClosedError())
        if isinstance(error, LeadLexError):
            return Broken(Fault.LOCAL, error)
        return self.translator.exception(error, call.progress, call.meta, streams=call.head_seen)

    # Again or not --------------------------------------------------------------------------------------------------

    async def again(self, call: Call[Any], broken: Broken, handed_out: Transcript | None = None) -> None:
        """Wait for the next attempt, or raise what ended the last one.

        Raises:
            LeadLexError: There is no next attempt.
        """
        call.charged = worse(call.charged, charged_after(call.operation, broken.fault))
        call.progress = Progress()
        delay = None if self.homes.closed else self._delay(call, broken, handed_out)
        self._record(call, broken, delay)
        if delay is None:
            self.fail(call, broken, handed_out)
        try:
            await self.rest(delay, call)
        except ClientClosedError as error:
            self.fail(call, Broken(broken.fault, error), handed_out)
        if self._is_too_late(call, 0.0):
            self.fail(call, broken, handed_out)

    def _delay(self, call: Call[Any], broken: Broken, handed_out: Transcript | None) -> float | None:
        call.note_failure(self.time.now(), handed_out.extent if handed_out else 0)
        if not self._may_go_on(call, broken.fault, handed_out):
            return None
        hint = self._hint(call, broken)
        delay = pause_before(self.settings.policy, broken.fault, call.pauses, hint, self.time.chance())
        if delay is None or self._is_too_late(call, delay):
            return None
        # To ask whether it is done is no attempt, and takes nothing from those of others.
        if broken.fault is not Fault.IN_FLIGHT and not self._count(call, broken.fault, handed_out):
            return None
        return delay

    def _hint(self, call: Call[Any], broken: Broken) -> float | None:
        """Return the seconds that the server asks to wait; in vain, where a page in its place asks for too many."""
        under_way = call.head_seen and broken.fault in UNREACHED
        return None if under_way and (broken.hint or 0.0) > self.settings.policy.max_hint else broken.hint

    def _may_go_on(self, call: Call[Any], fault: Fault, handed_out: Transcript | None) -> bool:
        if handed_out is not None and handed_out.begun:
            return self.settings.resume and may_resume(fault, call.resumes, handed_out.length)
        under_way = call.head_seen and fault in UNREACHED
        return under_way or may_repeat(call.operation, self.settings.policy, fault, call.tries)

    def _is_too_late(self, call: Call[Any], delay: float) -> bool:
        now = self.time.now()
        first_failure = now if call.first_failure is None else call.first_failure
        return too_late(self.settings.policy, now, delay, first_failure, call.deadline, call.key_sent)

    def _count(self, call: Call[Any], fault: Fault, handed_out: Transcript | None) -> bool:
        """Count one more attempt; tell whether the quota has room for it.

        A stream under way is paid for: continuing it takes nothing from the quota, and an attempt that did not reach
        the service is neither a retry nor a resume; the window bounds them.
        """
        if not call.head_seen:
            taken = self.quota.take(fault)
            if not taken:
                return False
            call.taken = taken
        call.pauses += 1
        if not (call.head_seen and fault in UNREACHED):
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
        with self.homes.here().waiting() as scope:
            if call is not None:
                call.waits = scope
            await self.time.sleep(seconds)
        if scope.cancelled_caught:
            raise ClientClosedError(facts={"charged": "no"})

    def fail(self, call: Call[Any], broken: Broken, handed_out: Transcript | None = None) -> NoReturn:
        """Raise what ended a call, with all that is known of it."""
        key = call.operation.idempotency_key
        error = interrupted(broken, key) if call.head_seen and key else broken.error
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

    def _record(self, call: Call[Any], broken: Broken, delay: float | None) -> None:
        meta = call.meta
        status, request_id = (meta.status_code, meta.request_id) if meta else (None, None)
        took = self.time.now() - call.attempt_began
        failure = broken.fault.value
        call.log.append(Attempt(failure=failure, status_code=status, request_id=request_id, elapsed=took, delay=delay))
        record(
            logging.WARNING if delay is None else logging.INFO,
            "failed" if delay is None else "trying again",
            operation=call.operation.name,
            attempt=call.attempts,
            status=status,
            request_id=request_id,
            fault=failure,
            delay=delay,
        )

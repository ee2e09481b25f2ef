"""From whatever went wrong to what a user is told: every foreign exception is translated here, once.

Rule: a `Broken` names the fault for the rules and carries the error for the user; nothing here shows the key.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import httpcore
import httpx
from attrs import frozen

from ._body import MAX_ERROR, Expired, Unusable
from ._config import Key, Timeout
from ._errors import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    ClientClosedError,
    Clock,
    LeadLexError,
    PermissionDeniedError,
    RateLimitError,
    StreamInterruptedError,
    printable,
    status_error_class,
)
from ._meta import Meta
from ._operations import Permission
from ._retry import Fault, Progress, fault_of_code, fault_of_status, hint_of, reset_of
from ._wire import WireError, WireProblem

REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})  # RFC 9110, 15.4: those that name another place
_SHOWN: Final = 200


@frozen(eq=False, repr=False)
class Broken:
    """Say how an attempt ended without what was asked for.

    Args:
        fault: What it means for the rules.
        error: What the user is told if that was the last attempt.
        hint: The seconds that the server asked to wait.
    """

    fault: Fault
    error: LeadLexError
    hint: float | None = None


class Rejected(Exception):
    """Carry a `Broken` up to where the attempt ends."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(broken.fault)
        self.broken = broken


# Answers that are errors -------------------------------------------------------------------------------------------


@frozen(eq=False, repr=False)
class Translator:
    """Translate what ends the attempts of one client.

    Args:
        key: What must not be shown.
        timeout: What the clocks were set to.
        address: Host and port of the service; a connection to another place is one to a proxy.
    """

    key: Key
    timeout: Timeout
    address: str

    def status(
        self, meta: Meta, problem: WireProblem, body: bytes, permission: Permission | None, now: float
    ) -> Broken:
        """Translate an answer whose status, or whose body at a 2xx, is an error."""
        code, message = self._masked(problem.code), self._masked(problem.message)
        text = self.key.masked(body[:MAX_ERROR].decode("utf-8", "replace"))
        error = status_error_class(meta.status_code, code)(meta.status_code, code, message, text)
        error.meta = meta
        hint = hint_of(meta.status_code, meta.headers, now)
        if isinstance(error, RateLimitError):
            error.retry_after, error.reset_at = hint, reset_of(meta.headers, now)
        if isinstance(error, PermissionDeniedError):
            error.permission = permission
        answered = meta.status_code < 300  # noqa: PLR2004  # RFC 9110, 15.3
        fault = Fault.FINAL_EVENT if answered else fault_of_status(meta.status_code, code)
        return Broken(fault, error, hint)

    def event(self, meta: Meta, problem: WireProblem, permission: Permission | None, now: float) -> Broken:
        """Translate an `error` event."""
        told = self.status(meta, problem, b"", permission, now)
        return Broken(fault_of_code(problem.code), told.error)

    def unusable(self, reason: str, meta: Meta | None = None, fault: Fault = Fault.PAYLOAD) -> Broken:
        """Say that an answer came that can't be used."""
        error = APIResponseError(f"LeadLex's answer can't be used: {self.key.masked(reason)}.")
        error.meta = meta
        return Broken(fault, error)

    def other_answer(self, meta: Meta, body: bytes) -> Broken:
        """Say what came in place of the contract's answer."""
        if meta.status_code in REDIRECTS:
            return self.redirect(meta)
        kind = printable(meta.headers.get("content-type", "no content type"), _SHOWN)
        head = printable(body.decode("utf-8", "replace").strip(), _SHOWN)
        return self.unusable(f"status {meta.status_code}, {kind}, {head or 'an empty body'}", meta)

    def redirect(self, meta: Meta | None) -> Broken:
        """Refuse to send the key to another place."""
        place = printable(meta.headers.get("location", "nowhere"), _SHOWN) if meta else "a place that is no URL"
        return self.unusable(f"it is a redirect to {place}, which is not followed", meta, Fault.REFUSED)

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self.key.masked(text)

    # Exceptions ----------------------------------------------------------------------------------------------------

    def exception(self, error: Exception, progress: Progress, meta: Meta | None, *, streams: bool) -> Broken:
        """Translate what an attempt raised, by how far it had come."""
        if isinstance(error, Unusable | WireError):
            return self.unusable(str(error), meta)
        if progress.status in REDIRECTS:
            # httpx parses the Location even where it is told not to follow.
            return self.redirect(meta)
        fault = (Fault.CUT if streams else Fault.BODY) if meta else _sharpened(progress.fault, error)
        if _is_nonsense(error) and (meta is None or not streams):
            return self.unusable(self._reason(error), meta, fault if meta else Fault.PAYLOAD)
        told = self._connection_error(fault, error, self._way(fault, progress))
        told.meta = meta
        told.__cause__ = without_traceback(error)
        return Broken(fault, told)

    def _connection_error(self, fault: Fault, error: Exception, way: str) -> APIConnectionError:
        clock = _clock_of(error)
        if clock is None:
            said = _STARVED if _is_starved(error) else _SAID.get(fault, _BROKE)
            return APIConnectionError(f"{said}: {self._reason(error)}.{way and ' ' + way}")
        return APITimeoutError(clock, self._seconds(clock), self._reason(error) if clock == "pool" else way)

    def _way(self, fault: Fault, progress: Progress) -> str:
        """Name the proxy where it is the proxy that can't be reached; its password is no part of an address."""
        direct = progress.address in (None, self.address)
        return "" if direct or fault not in _UNREACHED else f"It was tried through the proxy {progress.address}."

    def _seconds(self, clock: Clock) -> float | None:
        return self.timeout.total_of(streams=False) if clock == "total" else getattr(self.timeout, clock)

    def _reason(self, error: Exception) -> str:
        # What httpcore wraps without words has them at the root: "Connection reset by peer".
        text = str(error) or next(filter(None, map(str, reversed(list(_chain(error))))), type(error).__name__)
        return printable(self.key.masked(text), _SHOWN).rstrip(".")


_BROKE: Final = "The connection to LeadLex broke before the answer was whole"
_STARVED: Final = "No connection could be opened, for want of open files (`ulimit -n` raises the limit)"
_SAID: Final = {
    Fault.LOCAL: "The request could not be made",
    Fault.NAME: "LeadLex's host name could not be found",
    Fault.CONNECT: "LeadLex could not be reached",
    Fault.PROXY: "The proxy refused to connect to LeadLex",
    Fault.GATEWAY: "The proxy could not connect to LeadLex",
    Fault.CERTIFICATE: "No secure connection to LeadLex could be made (TLS)",
}

_UNREACHED: Final = frozenset({Fault.NAME, Fault.CONNECT, Fault.CERTIFICATE})

_CLOCKS: Final[dict[type[Exception], Clock]] = {
    httpx.ConnectTimeout: "connect",
    httpx.WriteTimeout: "write",
    httpx.PoolTimeout: "pool",
    httpx.ReadTimeout: "idle",
    httpcore.ConnectTimeout: "connect",
    httpcore.WriteTimeout: "write",
    httpcore.PoolTimeout: "pool",
    httpcore.ReadTimeout: "idle",
}


def _clock_of(error: Exception) -> Clock | None:
    return error.clock if isinstance(error, Expired) else _CLOCKS.get(type(error))


def _is_starved(error: Exception) -> bool:
    return any(os.strerror(errno.EMFILE) in str(each) for each in _chain(error))


def _is_nonsense(error: Exception) -> bool:
    """Tell whether bytes came that are not HTTP, other than that they ended."""
    if not isinstance(error, httpx.RemoteProtocolError | httpcore.RemoteProtocolError | httpx.DecodingError):
        return False
    return not str(error).startswith(("Server disconnected", "peer closed"))


def _sharpened(fault: Fault, error: Exception) -> Fault:
    """Tell apart the ways in which no connection comes about."""
    if fault is not Fault.CONNECT:
        return fault
    reasons = list(_chain(error))
    if any(isinstance(reason, socket.gaierror) for reason in reasons):
        return Fault.NAME
    refused = any(isinstance(reason, ssl.SSLError) and not isinstance(reason, _CUT) for reason in reasons)
    return Fault.CERTIFICATE if refused else fault


# A handshake that was cut may go well the next time; one that was refused will not. The two that ask for more bytes
# stand in the chain of a handshake that was reset.
_CUT: Final = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = set[int]()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions
            yield each


def without_traceback(error: BaseException) -> BaseException:
    """Take the frames off an exception and its causes: their locals hold the request's headers."""
    for each in _chain(error):
        each.__traceback__ = None
    return error


# Streams -----------------------------------------------------------------------------------------------------------

# A stream that began and then broke so is interrupted; after the others the answer itself says what is wrong.
_INTERRUPTING: Final = frozenset(
    {
        Fault.CUT,
        Fault.POOL,
        Fault.NAME,
        Fault.CONNECT,
        Fault.PROXY,
        Fault.GATEWAY,
        Fault.CERTIFICATE,
        Fault.WRITE,
        Fault.LOST,
        Fault.TRANSIENT,
        Fault.IN_FLIGHT,
    }
)


def cut_short() -> Broken:
    """Say that a stream ended without saying that it was whole."""
    return Broken(Fault.CUT, APIConnectionError("The stream ended without `done`."))


def interrupted(broken: Broken, idempotency_key: str) -> LeadLexError:
    """Return what a user is told when a stream that had begun broke off so."""
    if broken.fault not in _INTERRUPTING or isinstance(broken.error, ClientClosedError):
        return broken.error
    error = StreamInterruptedError(f"The answer broke off: {broken.error.problem}", idempotency_key)
    error.__cause__ = broken.error
    return error

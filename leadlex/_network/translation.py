"""From whatever went wrong to what a user is told: every foreign exception is translated here, once.

Rule: a `Failure` names the fault for the rules and carries the error for the user; nothing here shows the key.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import httpcore
import httpx
from attrs import evolve, frozen

from leadlex._api_key import ApiKeys
from leadlex._config import Timeout
from leadlex._errors import (
    APIConnectionError,
    APIResponseError,
    APITimeoutError,
    Facts,
    LeadLexError,
    PermissionDeniedError,
    RateLimitError,
    TimeoutName,
    printable,
    status_error_class,
    status_named,
)
from leadlex._policy.failures import (
    Failure,
    FailureKind,
    Progress,
    Speaker,
    kind_of_code,
    kind_of_status,
    speaker_of,
)
from leadlex._protocol.headers import hint_of, reset_of
from leadlex._protocol.json_text import Unusable
from leadlex._protocol.operation import Operation
from leadlex._values.metadata import Meta
from leadlex._values.plain import WireError
from leadlex._values.problem import WireProblem

from .timeouts import clock_of

REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})  # RFC 9110, 15.4: those that name another place

_SHOWN: Final = 200

_USERINFO: Final = re.compile(r"//[^/?#]*@")  # RFC 3986, 3.2.1: it may hold a password


@frozen(eq=False, repr=False)
class Translator:
    """What translates all that ends the attempts of one client.

    Args:
        keys: What must not be shown.
        timeout: What the clocks were set to.
        base_url: Where the service is.
        address: Its host and port; a connection to another place is one to a proxy.
    """

    keys: ApiKeys
    timeout: Timeout
    base_url: str
    address: str

    def status(self, meta: Meta, problem: WireProblem, body: bytes, operation: Operation[Any], now: float) -> Failure:
        """Translate an answer whose status, or whose body at a 2xx, is an error."""
        speaker = speaker_of(meta.status_code, problem, keyed=operation.idempotency_key is not None)
        facts = self._who_said(speaker, meta, problem, body, operation)
        told = self._status_error(meta, problem, body, operation, now, facts)
        answered = meta.status_code < 300  # noqa: PLR2004  # RFC 9110, 15.3
        kind = FailureKind.FINAL_EVENT if answered else kind_of_status(meta.status_code, problem.code, speaker)
        return evolve(told, kind=kind)

    def unheard(self, meta: Meta, operation: Operation[Any], now: float) -> Failure:
        """Translate an error status of which a hook of the user's client left nothing else."""
        facts: Facts = {
            "from_service": False,
            "problem": f"The answer was {meta.status_code}, and a hook of http_client left nothing of its body",
            "advice": "Let the hook read the body (await response.aread()) before it raises: it tells who answered.",
        }
        told = self._status_error(meta, WireProblem(None, None), b"", operation, now, facts)
        return evolve(told, kind=kind_of_status(meta.status_code, None, Speaker.OTHER))

    def event(self, meta: Meta, problem: WireProblem, operation: Operation[Any], now: float) -> Failure:
        """Translate an `error` event: after a good head it is the service's own word."""
        told = self._status_error(meta, problem, b"", operation, now, {"from_service": True})
        return Failure(kind_of_code(problem.code), told.error)

    def _status_error(
        self, meta: Meta, problem: WireProblem, body: bytes, operation: Operation[Any], now: float, facts: Facts
    ) -> Failure:
        code, message = self._masked(problem.code), self._masked(problem.message)
        text = self.keys.masked(body[:MAX_ERROR].decode("utf-8", "replace"))
        kind = status_error_class(meta.status_code, code, from_service=facts["from_service"])
        error = kind(meta.status_code, code, message, text, facts)
        error.meta = meta
        hint = hint_of(meta.status_code, meta.headers, now)
        if isinstance(error, RateLimitError):
            error.retry_after, error.reset_at = hint, reset_of(meta.headers, now)
        if isinstance(error, PermissionDeniedError):
            error.permission = operation.permission
        return Failure(FailureKind.FINAL_EVENT, error, hint)

    def _who_said(
        self, speaker: Speaker, meta: Meta, problem: WireProblem, body: bytes, operation: Operation[Any]
    ) -> Facts:
        """Return the words for an error that is not the service's own, or that only its base URL explains."""
        named = self.keys.masked(status_named(meta.status_code, problem.code))
        if speaker is Speaker.SERVICE:
            return {"from_service": True, **self._without(meta.status_code, named, operation)}
        if speaker is Speaker.FORM:
            told = {**self._without(meta.status_code, named, operation), "from_service": False}
            return {**told, "problem": f"An answer in LeadLex's form ({named})"}
        words = "" if problem.message else f": {self._head_of(body)}"
        return {"from_service": False, "problem": f"{_between(meta)}{words}", "advice": self._in_between}

    def _without(self, status: int, named: str, operation: Operation[Any]) -> Facts:
        """Return the words for a call that has no id, or no idempotency key, of which an error's own words speak."""
        if status == 404 and not operation.names_something:  # noqa: PLR2004  # RFC 9110, 15.5.5
            return {"advice": f"Check base_url: it is {self.base_url}."}
        if status == 409 and operation.idempotency_key is None:  # noqa: PLR2004  # RFC 9110, 15.5.10
            return {
                "problem": f"The call does not fit how things stand ({named})",
                "advice": "Look how they stand now.",
            }
        return {}

    @property
    def _in_between(self) -> str:
        return (
            f"Check base_url, which is {self.base_url}, and what stands in between: a proxy, a firewall, or a portal "
            "that wants a login."
        )

    def unusable(self, reason: str, meta: Meta | None = None, kind: FailureKind = FailureKind.PAYLOAD) -> Failure:
        """Say that an answer came that can't be used."""
        return self._unusable(f"LeadLex's answer can't be used: {self.keys.masked(reason)}", meta, kind)

    def _unusable(self, words: str, meta: Meta | None, kind: FailureKind, facts: Facts | None = None) -> Failure:
        error = APIResponseError(f"{words}.", {"from_service": False, **(facts or {})})
        error.meta = meta
        return Failure(kind, error)

    def other_answer(self, meta: Meta, body: bytes) -> Failure:
        """Say what came in place of the contract's answer."""
        if meta.status_code in REDIRECTS:
            return self.redirect(meta)
        if "json" in meta.headers.get("content-type", ""):
            head = self._head_of(body)
            return self.unusable(f"status {meta.status_code}, {meta.headers['content-type']}, {head}", meta)
        words = f"{_between(meta)}: {self._head_of(body)}"
        return self._unusable(words, meta, FailureKind.PAYLOAD, {"advice": self._in_between})

    def no_json(self, meta: Meta, body: bytes, error: WireError) -> Failure:
        """Say what came in place of JSON: a page is worth showing; broken JSON may be what Lexi wrote, and is not."""
        is_page = "json" not in meta.headers.get("content-type", "")
        return self.other_answer(meta, body) if is_page else self.unusable(str(error), meta)

    def redirect(self, meta: Meta | None) -> Failure:
        """Refuse to send the key to another place."""
        place = _USERINFO.sub("//…@", meta.headers.get("location") or "nowhere") if meta else "a place that is no URL"
        said = _between(meta) if meta else "Something between here and LeadLex answered"
        words = f"{said} with a redirect to {printable(place, _SHOWN)}, which is not followed"
        return self._unusable(words, meta, FailureKind.FOREIGN, {"advice": self._in_between})

    def _head_of(self, body: bytes) -> str:
        text = " ".join(self.keys.masked(body[:MAX_ERROR].decode("utf-8", "replace")).split())
        return printable(text, _SHOWN) or "an empty body"

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self.keys.masked(text)

    # Exceptions ----------------------------------------------------------------------------------------------------

    def exception(self, error: Exception, progress: Progress, meta: Meta | None, *, streams: bool) -> Failure:
        """Translate what an attempt raised, by how far it had come."""
        if isinstance(error, Unusable | WireError):
            return self.unusable(str(error), meta)
        if progress.status in REDIRECTS:
            # httpx parses the Location even where it is told not to follow.
            return self.redirect(meta)
        kind = (FailureKind.CUT if streams else FailureKind.BODY) if meta else _sharpened(progress.kind, error)
        if _is_nonsense(error) and progress.may_have_acted and (meta is None or not streams):
            return self.unusable(self._reason(error), meta, kind if meta else FailureKind.PAYLOAD)
        told = self._connection_error(kind, error, progress)
        told.meta = meta
        told.__cause__ = without_traceback(error)
        return Failure(kind, told)

    def _connection_error(self, kind: FailureKind, error: Exception, progress: Progress) -> APIConnectionError:
        clock, proxy = clock_of(error, started=progress.may_have_acted), self._proxy(progress)
        if clock is not None:
            way = f"It was tried through the proxy {proxy}." if proxy and kind in _UNREACHED else ""
            hint = self._reason(error) if clock == "pool" else way
            return APITimeoutError(clock, self._seconds(clock), hint)
        problem, advice = self._explained(kind, error, progress, proxy)
        return APIConnectionError(problem, *([{"advice": advice}] if advice else []))

    def _proxy(self, progress: Progress) -> str | None:
        """Name the proxy that was connected to, if any; its password is no part of an address."""
        return None if progress.address in (None, self.address) else progress.address

    def _explained(
        self, kind: FailureKind, error: Exception, progress: Progress, proxy: str | None
    ) -> tuple[str, str | None]:
        """Say what is wrong with the way to the service, and what helps where trying again does not."""
        reason = self._reason(error)
        if _lacks_files(error):
            return f"No connection could be opened: {reason}.", _MORE_FILES
        if kind is FailureKind.CERTIFICATE:
            return self._tls_explained(error, reason, proxy, tunnels=progress.tunnels)
        if proxy and kind in _OF_PROXIES and not progress.tunnels:
            said, advice = _OF_PROXIES[kind]
            return f"{said.format(proxy=proxy, address=self.address)}: {reason}.", advice
        if kind is FailureKind.NAME:
            named = f"Check the network, and base_url, which is {self.base_url}."
            return f"{_SAID[kind]}: {reason}.", named
        way = f" It was tried through the proxy {proxy}." if proxy and kind in _UNREACHED else ""
        return f"{_SAID.get(kind, _BROKE)}: {reason}.{way}", None

    def _tls_explained(self, error: Exception, reason: str, proxy: str | None, *, tunnels: bool) -> tuple[str, str]:
        through = f"{self.address} (reached through the proxy {proxy})"
        other = self.address if proxy is None else through if tunnels else f"the proxy {proxy}"
        unverified = next((each for each in _chain(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
        if unverified is not None:
            said = getattr(unverified, "verify_message", "") or reason
            return f"The certificate of {other} is not trusted (TLS): {said}.", _TRUSTED
        if any(getattr(each, "reason", None) in _NOT_TLS for each in _chain(error)):
            advice = _PLAIN_PROXY if proxy and not tunnels else f"Check the port in base_url, which is {self.base_url}."
            return f"What answers at {other} does not speak TLS: {reason}.", advice
        return f"No secure connection to {other} could be made (TLS): {reason}.", self._in_between

    def _seconds(self, clock: TimeoutName) -> float | None:
        return self.timeout.total_of(streams=False) if clock == "total" else getattr(self.timeout, clock)

    def _reason(self, error: Exception) -> str:
        # What httpcore wraps without words has them at the root: "Connection reset by peer".
        text = str(error) or next(filter(None, map(str, reversed(list(_chain(error))))), type(error).__name__)
        return printable(self.keys.masked(text), _SHOWN).rstrip(".")


_BROKE: Final = "The connection to LeadLex broke before the answer was whole"

_SAID: Final = {
    FailureKind.LOCAL: "The request could not be made",
    FailureKind.NAME: "LeadLex's host name could not be found",
    FailureKind.CONNECT: "LeadLex could not be reached",
}

_UNREACHED: Final = frozenset({FailureKind.NAME, FailureKind.CONNECT, FailureKind.GATEWAY, FailureKind.CERTIFICATE})

_MORE_FILES: Final = "Raise the limit of open files (ulimit -n), or lower max_connections."

_PROXY_URL: Final = "proxy= or HTTPS_PROXY=http://user:password@host:port"

# What a proxy did that did not connect, and what helps.
_OF_PROXIES: Final = {
    FailureKind.NAME: ("The host name of the proxy {proxy} could not be found", f"Check {_PROXY_URL}."),
    FailureKind.CONNECT: (
        "The proxy {proxy} could not be used",
        f"Trying again is safe; where that does not help, check {_PROXY_URL}.",
    ),
    FailureKind.GATEWAY: ("The proxy {proxy} could not connect to {address}", None),
    FailureKind.PROXY: (
        "The proxy {proxy} refused to connect to {address}",
        f"Give it what it asks for with {_PROXY_URL}, or have LeadLex's host allowed there.",
    ),
}

_PLAIN_PROXY: Final = f"Write http:// in front of the proxy: {_PROXY_URL}."

_TRUSTED: Final = (
    "Where a firm's proxy inspects TLS, trust its authority: verify=PATH or SSL_CERT_FILE=PATH, a PEM file with its "
    "certificate, or verify='system' where this machine trusts it; else check base_url and this machine's clock."
)

# What OpenSSL calls an answer in plain text: 1.1 and 3 by other names.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})


def _lacks_files(error: Exception) -> bool:
    # By its words: what httpcore and anyio raise in its place has them, and no number.
    words = [os.strerror(number) for number in (errno.EMFILE, errno.ENFILE)]
    return any(word in str(each) for each in _chain(error) for word in words)


def _between(meta: Meta) -> str:
    """Say that something in between answered, with what it tells of itself."""
    known = (meta.headers.get("server"), meta.headers.get("content-type", "no content type"))
    told = ", ".join(printable(each, _SHOWN) for each in known if each)
    return f"Something between here and LeadLex answered {meta.status_code} ({told})"


def _is_nonsense(error: Exception) -> bool:
    """Tell whether bytes came that are not HTTP, other than that they ended."""
    if not isinstance(error, httpx.RemoteProtocolError | httpcore.RemoteProtocolError | httpx.DecodingError):
        return False
    return not str(error).startswith(("Server disconnected", "peer closed"))


def _sharpened(kind: FailureKind, error: Exception) -> FailureKind:
    """Tell apart the ways in which no connection comes about."""
    if kind is not FailureKind.CONNECT:
        return kind
    reasons = list(_chain(error))
    if any(isinstance(reason, socket.gaierror) for reason in reasons):
        return FailureKind.NAME
    refused = any(isinstance(reason, ssl.SSLError) and not isinstance(reason, _CUT) for reason in reasons)
    return FailureKind.CERTIFICATE if refused else kind


# A handshake that was cut may go well the next time; one that was refused will not. The two that ask for more bytes
# stand in the chain of a handshake that was reset.
_CUT: Final = (
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
    ssl.SSLSyscallError,
    ssl.SSLWantReadError,
    ssl.SSLWantWriteError,
)


def _chain(error: BaseException, handled: BaseException | None = None) -> Iterator[BaseException]:
    """Give an exception and its causes, but nothing that the caller was handling already."""
    seen = {id(handled)}
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions
            yield each


def detach(error: BaseException, handled: BaseException | None) -> None:
    """Let an exception forget what its caller was handling already, which is no cause of it, and is not ours."""
    for each in _chain(error):
        if each.__context__ is handled:
            each.__context__ = None


def without_traceback(error: BaseException, handled: BaseException | None = None) -> BaseException:
    """Take the frames off an exception and its causes: their locals hold the request's headers."""
    for each in _chain(error, handled):
        each.__traceback__ = None
    return error


def let_pass(error: BaseException, handled: BaseException | None) -> None:
    """Take our frames off a cancellation, or whatever else leaves without being translated; not the caller's own."""
    if not isinstance(error, LeadLexError):
        without_traceback(error, handled)


MAX_ERROR: Final = 64 << 10

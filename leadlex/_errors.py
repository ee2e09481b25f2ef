"""Everything that can go wrong, as one tree.

```
LeadLexError
├─ ConfigurationError            also ValueError; nothing was sent
├─ ClientClosedError             also RuntimeError
├─ StreamBusyError               also RuntimeError; two readers on one stream
├─ APIConnectionError            no usable answer
│  └─ APITimeoutError            .clock names which of the timeouts
├─ APIResponseError              an answer that can't be used
├─ StreamInterruptedError        broke off after it began, and was not continued
│  └─ StreamDivergedError        the continuation differs from what was handed out
├─ PaginationError               a listing that makes no progress
├─ WebhookVerificationError
└─ APIStatusError
   ├─ BadRequestError 400        AuthenticationError 401      InsufficientCreditsError 402
   ├─ PermissionDeniedError 403  NotFoundError 404            ConflictError 409
   ├─ RateLimitError 429
   └─ ServerError 5xx
```

Rule: an error makes its own message, says whether the call was charged and what to do, and never shows the key or a
message's text; what a server said is shown with its control characters escaped.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from ._meta import Charged, Meta, RateLimit
    from ._models import ChatReply

E = TypeVar("E", bound="LeadLexError")
P = ParamSpec("P")
T = TypeVar("T")

Clock = Literal["connect", "write", "pool", "first_event", "idle", "event_idle", "total", "wait"]
"""The timeouts by name, as in `Timeout`; `wait` is that of `wait_for_task`."""

MESSAGE_LIMIT = 2048
"""Characters of a server's message that an error shows."""


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Escape what a terminal would act on (control characters, bidi marks) and cut to `limit` characters."""
    shown = text[:limit] + ("…" if len(text) > limit else "")
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


class LeadLexError(Exception):
    """Be the base of all errors that leadlex raises.

    Attributes:
        charged: Whether the call cost credits: `no`, `yes`, or `unknown` where an answer was lost.
        partial: What had arrived of a reply before it broke off; never a whole answer.
        meta: How the answer arrived, where there was one.
        next_page: Where a listing broke off; `page=` goes on from there.
    """

    charged: Charged = "no"
    partial: ChatReply | None = None
    meta: Meta | None = None
    next_page: int | None = None
    advice: str = ""

    def __str__(self) -> str:
        advice = self.advice or (self._charge and _ADVICE[self.charged])
        return " ".join(filter(None, [self.problem, self._charge, advice]))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An exception is rebuilt by type(*args), which keyword arguments break (httpx.HTTPStatusError shows it).
        return _rebuild, (type(self), self.args, self.__dict__)

    @property
    def problem(self) -> str:
        """Say what happened, in one sentence."""
        return printable(str(self.args[0])) if self.args else type(self).__name__

    @property
    def _charge(self) -> str:
        return _CHARGES[self.charged]


_CHARGES: dict[Charged, str] = {
    "no": "Nothing was charged.",
    "unknown": "Whether it was charged is not known.",
    "yes": "It was charged.",
}

# What to do after an error that has no better advice.
_ADVICE: dict[Charged, str] = {
    "no": "Trying again is safe.",
    "unknown": (
        "Before asking again, look in the conversation for the message; a stream can be asked again with its "
        "idempotency_key without paying again."
    ),
    "yes": "Asked again, it is charged again.",
}


def _rebuild(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(LeadLexError, ValueError):
    """Refuse an argument, an option or the environment; nothing was sent."""

    @property
    def _charge(self) -> str:
        return ""


class ClientClosedError(LeadLexError, RuntimeError):
    """Tell that the client was closed before or during the call."""

    advice = "Make a new client, or close this one later."

    def __init__(self, problem: str = "The client is closed.") -> None:
        super().__init__(problem)


class StreamBusyError(LeadLexError, RuntimeError):
    """Tell that two readers use one stream, or one unstarted thread, at once."""

    advice = "Let one task or thread finish first, or make one for each."

    def __init__(self, what: str = "This stream") -> None:
        super().__init__(f"{what} is already being read by another task or thread.")


class APIConnectionError(LeadLexError):
    """Tell that no usable answer came."""


class APITimeoutError(APIConnectionError):
    """Tell that a timeout ran out.

    Attributes:
        clock: Which one, by its name in `Timeout`; `wait` for `wait_for_task`.
    """

    def __init__(self, clock: Clock, seconds: float | None, hint: str = "") -> None:
        within = "in time" if seconds is None else f"within {seconds:g} s"
        super().__init__(f"{_CLOCKS[clock]} {within} (the {clock} timeout).{hint and ' ' + hint}")
        self.clock: Clock = clock


_CLOCKS: dict[Clock, str] = {
    "connect": "No connection to LeadLex could be made",
    "write": "The request could not be sent",
    "pool": "No connection became free",
    "first_event": "Lexi did not begin to answer",
    "idle": "LeadLex sent nothing",
    "event_idle": "Lexi gave no sign of progress",
    "total": "The call did not end",
    "wait": "The task was not finished",
}


class APIResponseError(LeadLexError):
    """Tell that an answer came that can't be used: not the contract's, too large, or a redirect."""

    @property
    def problem(self) -> str:
        """Say what was wrong with the answer, and which request it was."""
        return super().problem + _request_note(self.meta)


class StreamInterruptedError(LeadLexError):
    """Tell that a stream broke off after it began; `partial` has what arrived, `__cause__` tells why.

    Attributes:
        idempotency_key: Given to `stream_chat` again within 24 hours, the same question is not charged twice.
    """

    def __init__(self, problem: str, idempotency_key: str) -> None:
        super().__init__(problem)
        self.idempotency_key = idempotency_key

    @property
    def advice(self) -> str:  # type: ignore[override]  # computed, since it names the key
        """Say how to ask again without paying again."""
        return (
            "What arrived is in .partial and is not the whole answer; to ask again without paying again, give "
            f"idempotency_key={self.idempotency_key!r} within 24 hours."
        )


class StreamDivergedError(StreamInterruptedError):
    """Tell that the continuation of a broken stream is not the answer that was begun.

    Attributes:
        delivered: The text that was handed out.
        replayed_prefix: What the second stream said in its place, as far as it was read.
        common_len: How many characters the two have in common at the start.
        conversation_ids: The conversation of the first and of the second stream.
    """

    def __init__(
        self,
        idempotency_key: str,
        *,
        delivered: str,
        replayed_prefix: str,
        conversation_ids: tuple[str | None, str | None],
        why: str,
    ) -> None:
        super().__init__(f"The answer broke off and its continuation differs: {why}.", idempotency_key)
        self.delivered = delivered
        self.replayed_prefix = replayed_prefix
        self.common_len: int = common_length(delivered, replayed_prefix)
        self.conversation_ids = conversation_ids

    @property
    def key(self) -> str:
        """Give the idempotency key that both streams had."""
        return self.idempotency_key


def common_length(one: str, other: str) -> int:
    """Count the characters that two texts have in common at the start."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class PaginationError(LeadLexError):
    """Tell that a listing repeats itself and makes no progress."""

    advice = "Go on with another page=, or list again later."


class WebhookVerificationError(LeadLexError):
    """Tell that a webhook's signature, form or time is not LeadLex's."""

    advice = "Don't act on it; check that the secret is this endpoint's and that the clock is right."

    @property
    def _charge(self) -> str:
        return ""


class APIStatusError(LeadLexError):
    """Tell that the service answered with an error.

    Attributes:
        status_code: The HTTP status, as on the wire.
        code: The service's name for the error, if it gave one.
        message: The service's words, as sent.
        body: The body, as sent, at most 64 KiB.
    """

    says: ClassVar[str] = "LeadLex refused the call"

    def __init__(self, status_code: int, code: str | None = None, message: str | None = None, body: str = "") -> None:
        super().__init__(status_code, code, message)
        self.status_code = status_code
        self.code = code
        self.message = message
        self.body = body

    @property
    def problem(self) -> str:
        """Say what the service refused, in its own words where it gave any."""
        named = " ".join(filter(None, [str(self.status_code), printable(self.code or "", 100)]))
        told = f": {printable(self.message)}" if self.message else "."
        return f"{self.says} ({named}){told}{_request_note(self.meta)}"

    @property
    def request_id(self) -> str | None:
        """Give the id under which the service's support finds the call."""
        return self.meta.request_id if self.meta else None

    @property
    def rate_limit(self) -> RateLimit | None:
        """Give the quota that the answer carried."""
        return self.meta.rate_limit if self.meta else None


def _request_note(meta: Meta | None) -> str:
    return f" (request {printable(meta.request_id, 100)})" if meta and meta.request_id else ""


class BadRequestError(APIStatusError):
    """Tell that the service found the request invalid (400)."""

    says = "LeadLex found the request invalid"
    advice = "Change the request: sent again as it is, it is refused again."


class AuthenticationError(APIStatusError):
    """Tell that the key is missing, wrong or expired (401)."""

    says = "LeadLex did not accept the API key"
    advice = "Keys look like wbk_…, belong to one workspace and may expire: check LEADLEX_API_KEY or make a new one."


class InsufficientCreditsError(APIStatusError):
    """Tell that the workspace has no AI credits left (402)."""

    says = "The workspace has no AI credits left"
    advice = "Add credits to the workspace, then ask again."


class PermissionDeniedError(APIStatusError):
    """Tell that the key lacks a permission (403).

    Attributes:
        permission: The one that the call needs, where that is known.
    """

    says = "The API key lacks a permission"
    permission: str | None = None

    @property
    def advice(self) -> str:  # type: ignore[override]  # computed, since it names the permission
        """Say which permission to give to the key."""
        needed = f"the permission {self.permission!r}" if self.permission else "more permissions"
        return f"This call needs a key with {needed}."


class NotFoundError(APIStatusError):
    """Tell that there is no such conversation or task (404)."""

    says = "LeadLex has no such thing"
    advice = "Check the id, and that the key belongs to its workspace."


class ConflictError(APIStatusError):
    """Tell that the first request with this idempotency key is still running (409)."""

    says = "The first request with this idempotency key is still running"
    advice = "Wait for its end, then ask again with the same key."


class RateLimitError(APIStatusError):
    """Tell that the key's quota is used up (429).

    Attributes:
        retry_after: Seconds to wait, where the service said so or its reset could be trusted.
        reset_at: When the quota is renewed, an aware datetime.
    """

    says = "The request quota of the API key is used up"
    retry_after: float | None = None
    reset_at: datetime | None = None

    @property
    def advice(self) -> str:  # type: ignore[override]  # computed, since it names the time
        """Say when to ask again."""
        if self.reset_at is not None:
            return f"Ask again after {self.reset_at.isoformat()}."
        return "Ask again later." if self.retry_after is None else f"Ask again in {self.retry_after:g} s."


class ServerError(APIStatusError):
    """Tell that the service failed (5xx)."""

    says = "LeadLex failed"


_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}

_BY_CODE: Mapping[str, type[APIStatusError]] = {
    "validation_error": BadRequestError,
    "invalid_key": AuthenticationError,
    "insufficient_credits": InsufficientCreditsError,
    "insufficient_permissions": PermissionDeniedError,
    "conversation_not_found": NotFoundError,
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "rate_limited": RateLimitError,
    "internal_error": ServerError,
    "overloaded": ServerError,
    "timeout": ServerError,
}


def status_error_class(status_code: int, code: str | None) -> type[APIStatusError]:
    """Choose the class of an error answer: by its status, or by its code where it came with a 2xx."""
    if 200 <= status_code < 300:  # noqa: PLR2004  # RFC 9110, 15.3: successful
        return _BY_CODE.get(code or "", APIStatusError)
    return _BY_STATUS.get(status_code, ServerError if status_code >= 500 else APIStatusError)  # noqa: PLR2004  # 15.6


def refuse(argument: str, limit: str, given: str) -> NoReturn:
    """Raise a `ConfigurationError` that names the argument, its limit and what was given (never a message's text)."""
    raise ConfigurationError(f"{argument} must be {limit}; given: {given}.")


def discreet(check: Callable[P, T]) -> Callable[P, T]:
    """Let a refusal forget its frames: a tool that reports locals would find the key or the message in them."""

    @wraps(check)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        try:
            return check(*args, **options)
        except ConfigurationError as error:
            raise error.with_traceback(None) from None
        finally:
            del args, options

    return checked

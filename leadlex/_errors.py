"""Everything that can go wrong, as one tree, which `LeadLexError` draws.

Rule: an error makes its own message, says whether the call was charged and what to do, and never shows the key or a
message's text; what a server said is shown with its control characters escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NoReturn, ParamSpec, Self, TypeVar, cast, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._values.metadata import Attempt, Charged, Meta, RateLimit
    from ._values.models import ChatReply

E = TypeVar("E", bound="LeadLexError")
P = ParamSpec("P")
T = TypeVar("T")

Facts = dict[str, Any]
"""What is known of a failed call, in JSON's types: the last of an error's `args`, for some roads carry nothing else."""

TimeoutName = Literal["connect", "write", "pool", "first_event", "idle", "event_idle", "total", "wait"]
"""The timeouts by name, as in `Timeout`; `wait` is that of `wait_for_task`."""

MESSAGE_LIMIT = 2048
"""Characters of a server's message that an error shows."""


def printable(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Escape what a terminal would act on (control characters, bidi marks) and cut to `limit` characters."""
    shown = text[:limit] + ("…" if len(text) > limit else "")
    if shown.isprintable():
        return shown
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown)


class Fact(Generic[T]):
    """An attribute of an error that is kept in its `args`, and so goes wherever they go.

    Args:
        default: What it is while nothing is known.
        read: Makes the value of what JSON can hold.
        write: Makes what JSON can hold of the value.
    """

    def __init__(
        self, default: T, read: Callable[[Any], T] | None = None, write: Callable[[Any], object] | None = None
    ) -> None:
        self._default = default
        self._read = read
        self._write = write

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.lstrip("_")

    @overload
    def __get__(self, error: None, owner: type) -> Self: ...
    @overload
    def __get__(self, error: LeadLexError, owner: type) -> T: ...
    def __get__(self, error: LeadLexError | None, owner: type) -> T | Self:
        if error is None:
            return self
        value = error.facts.get(self._name)
        if value is None:
            return self._default
        return self._read(value) if self._read else cast("T", value)

    def __set__(self, error: LeadLexError, value: T) -> None:
        written = self._write(value) if self._write and value is not None else value
        facts = {name: known for name, known in error.facts.items() if name != self._name}
        error.args = (*error.positional, facts if written is None else {**facts, self._name: written})


def _attempts(told: Sequence[Mapping[str, Any]]) -> tuple[Attempt, ...]:
    from ._values.metadata import Attempt  # noqa: PLC0415  # whoever only catches errors loads no values

    return tuple(Attempt(**each) for each in told)


def _told(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    names = ("failure", "status_code", "request_id", "elapsed", "delay")
    return [{name: getattr(each, name) for name in names} for each in attempts]


class LeadLexError(Exception):
    """The base of all errors that leadlex raises, which are one tree.

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
           ├─ PermissionDeniedError 403  NotFoundError 404
           ├─ ConflictError 409
           │  └─ IdempotencyError 409, 422
           ├─ RateLimitError 429
           └─ ServerError 5xx

    Attributes:
        charged: Whether the call cost credits: `no`, `yes`, or `unknown` where an answer was lost.
        idempotency_key: The key of a `stream_chat`; with it the same question is not charged again for 24 hours.
        first_sent: When that question was first sent, an aware datetime; given with the key, it guards the 24 hours.
        attempt_log: How each attempt of the call ended.
        request_id: The id under which the service's support finds the call.
        look: How to find out whether it was done, where an answer was lost and there is no idempotency key.
        partial: What had arrived of a reply before it broke off; never a whole answer.
        meta: How the answer arrived, where there was one.
        next_page: Where a listing broke off; `page=` goes on from there.
    """

    advises: ClassVar[str] = ""
    charged: Fact[Charged] = Fact("unknown")
    idempotency_key: Fact[str | None] = Fact(None)
    first_sent: Fact[datetime | None] = Fact(None, datetime.fromisoformat, datetime.isoformat)
    attempt_log: Fact[tuple[Attempt, ...]] = Fact((), _attempts, _told)
    request_id: Fact[str | None] = Fact(None)
    next_page: Fact[int | None] = Fact(None)
    partial: ChatReply | None = None
    _problem: Fact[str | None] = Fact(None)
    _advice: Fact[str | None] = Fact(None)
    look: Fact[str | None] = Fact(None)
    _meta: Meta | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, [self.problem, self._charge, self.advice, self._again]))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.positional))})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # An exception is rebuilt by type(*args), which keyword arguments break (httpx.HTTPStatusError shows it).
        return _rebuild, (type(self), self.args, self.__dict__)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as JSON can hold it, without its body and how the answer arrived.

        Example:
            try:
                reply = lexi.chat("Summarize my pipeline")
            except leadlex.LeadLexError as error:
                print(error.to_dict())
        """
        from ._values.plain import plain_of  # noqa: PLC0415  # whoever only catches errors loads no values

        told = {"type": type(self).__name__, "message": str(self), "charged": self.charged}
        known = {name: plain_of(getattr(self, name, None)) for name in _DETAILS}
        details = {name: value for name, value in known.items() if value is not None}
        return {**told, **details, "args": plain_of(self.args)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make an error of its plain form: one of the class that it names.

        Args:
            plain: What `to_dict` returned, or the command line printed with `--json`.

        Raises:
            ConfigurationError: It is not the plain form of such an error.

        Example:
            error = leadlex.LeadLexError.from_dict({"type": "ClientClosedError", "args": []})
        """
        from ._values.models import ChatReply  # noqa: PLC0415  # as above

        kind = _named(cls, plain)
        details = {name: plain[name] for name in _DIVERGED if name in plain}
        try:
            error = kind(*plain["args"], **details)
        except (KeyError, TypeError):
            raise ConfigurationError(f"{kind.__name__} can't be made of these args.") from None
        if plain.get("partial") is not None:
            error.partial = ChatReply.from_dict(plain["partial"])
        return error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:  # noqa: ANN401  # pydantic's own
        from ._values.schema import core_schema  # noqa: PLC0415  # pydantic is there when it asks

        return core_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, _: Any, handler: Any) -> dict[str, Any]:  # noqa: ANN401  # pydantic's own
        told = {name: {"type": "string"} for name in ("type", "message", "charged")}
        return {"title": cls.__name__, "type": "object", "properties": told, "required": list(told)}

    @property
    def facts(self) -> Facts:
        """Give what is known of the call, as JSON can hold it."""
        return next((dict(each) for each in reversed(self.args) if isinstance(each, dict)), {})

    @property
    def positional(self) -> tuple[Any, ...]:
        """Give the arguments that say what went wrong."""
        return tuple(each for each in self.args if not isinstance(each, dict))

    @property
    def meta(self) -> Meta | None:
        """Tell how the answer arrived, where there was one."""
        return self._meta

    @meta.setter
    def meta(self, meta: Meta | None) -> None:
        self._meta = meta
        self.request_id = meta.request_id if meta else None

    @property
    def problem(self) -> str:
        """Say what happened, in one sentence."""
        told = self._problem or (str(self.args[0]) if self.positional else type(self).__name__)
        return printable(told)

    @property
    def advice(self) -> str:
        """Say what to do next, apart from how to ask again."""
        return self._advice or self.advises or ("Trying again is safe." if self.charged == "no" else "")

    @property
    def _charge(self) -> str:
        return _CHARGES[self.charged]

    @property
    def _again(self) -> str:
        """Say how the same can be asked again."""
        if self.charged == "no":
            return ""
        if self.idempotency_key:
            return _AGAIN.format(key=self.idempotency_key, first=_first_sent(self.first_sent))
        return self.look or _LOOK[self.charged]


_CHARGES: dict[Charged, str] = {
    "no": "Nothing was charged.",
    "unknown": "Whether it was charged is not known.",
    "yes": "It was charged.",
}

_LOOK: dict[Charged, str] = {
    "no": "",
    "unknown": "Find out whether it was done before you repeat it.",
    "yes": "Repeated, it is charged again.",
}

_AGAIN = (
    "To ask the same again without paying again, within 24 hours, give all that was given to stream_chat and "
    "idempotency_key={key!r}{first}."
)


def _first_sent(moment: datetime | None) -> str:
    return "" if moment is None else f", first_sent=datetime.fromisoformat({moment.isoformat()!r})"


_DIVERGED = ("delivered", "replayed_prefix", "conversation_ids")

_DETAILS = (
    "code", "status_code", "request_id", "from_service", "retry_after", "reset_at", "clock", "idempotency_key",
    "first_sent", "next_page", "partial", "attempt_log", *_DIVERGED
)  # fmt: skip  # what errors of some kinds know


def _named(base: type[E], plain: object) -> type[E]:
    """Find the class, `base` or one below it, that a plain form names."""
    name = plain.get("type") if isinstance(plain, Mapping) else None
    waiting = [base]
    for kind in waiting:
        if kind.__name__ == name:
            return kind
        waiting += kind.__subclasses__()
    raise ConfigurationError(f"That is not the plain form of a {base.__name__}: its type is none of its classes.")


def _rebuild(kind: type[E], args: tuple[Any, ...], state: dict[str, Any]) -> E:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(LeadLexError, ValueError):
    """An argument, an option or the environment was refused; nothing was sent."""

    charged: Fact[Charged] = Fact("no")

    @property
    def advice(self) -> str:
        """Say nothing more: the problem names the limit."""
        return ""

    @property
    def _charge(self) -> str:
        return ""


class ClientClosedError(LeadLexError, RuntimeError):
    """The client was closed before or during the call."""

    def __init__(self, problem: str = "The client is closed.", facts: Facts | None = None) -> None:
        super().__init__(problem, *_given(facts))

    advises = "Make a new client, or close this one later."


class StreamBusyError(LeadLexError, RuntimeError):
    """Two readers use one stream, or one unstarted thread, at once."""

    charged: Fact[Charged] = Fact("no")

    def __init__(self, what: str = "This stream", facts: Facts | None = None) -> None:
        super().__init__(what, *_given(facts))

    @property
    def problem(self) -> str:
        """Say what is in use."""
        return f"{self.args[0]} is already being read by another task or thread."

    advises = "Let one task or thread finish first, or make one for each."


def _given(facts: Facts | None) -> tuple[Facts, ...]:
    return (facts,) if facts else ()


class APIConnectionError(LeadLexError):
    """No usable answer came."""


class APITimeoutError(APIConnectionError):
    """A timeout ran out.

    Attributes:
        clock: Which one, by its name in `Timeout`; `wait` for `wait_for_task`.
    """

    clock: Fact[TimeoutName] = Fact("total")

    def __init__(self, clock: TimeoutName, seconds: float | None, hint: str = "", facts: Facts | None = None) -> None:
        super().__init__(clock, seconds, hint, *_given(facts))
        self.clock = clock

    @property
    def problem(self) -> str:
        """Say what was waited for, how long, and which timeout it was."""
        clock, seconds, hint = self.positional[:3]  # a caller may have added to `args`
        within = "in time" if seconds is None else f"within {seconds:g} s"
        return f"{_CLOCKS[clock]} {within} (the {clock} timeout).{hint and ' ' + hint}"


_CLOCKS: dict[TimeoutName, str] = {
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
    """An answer came that can't be used: not the contract's, too large, or a redirect.

    Attributes:
        from_service: False: the contract's own words were not read.
    """

    from_service: Fact[bool] = Fact(default=False)

    @property
    def problem(self) -> str:
        """Say what was wrong with the answer, and which request it was."""
        return _sentence(super().problem, self.request_id)


class StreamInterruptedError(LeadLexError):
    """A stream broke off after it began; `partial` has what arrived, `__cause__` tells why."""

    def __init__(self, problem: str, idempotency_key: str, facts: Facts | None = None) -> None:
        super().__init__(problem, idempotency_key, *_given(facts))
        self.idempotency_key = idempotency_key

    advises = "What arrived of it, if anything, is in .partial and is not the whole answer."


class StreamDivergedError(StreamInterruptedError):
    """The continuation of a broken stream is not the answer that was begun.

    Attributes:
        delivered: The text that was handed out.
        replayed_prefix: What the second stream said in its place, as far as it was read.
        common_len: How many characters the two have in common at the start.
        conversation_ids: The conversation of the first and of the second stream.
    """

    def __init__(
        self,
        idempotency_key: str,
        why: str = "it says something else",
        facts: Facts | None = None,
        *,
        delivered: str = "",
        replayed_prefix: str = "",
        conversation_ids: Sequence[str | None] = (None, None),
    ) -> None:
        super().__init__(idempotency_key, why, facts)
        self.idempotency_key = idempotency_key
        self.delivered = delivered
        self.replayed_prefix = replayed_prefix
        self.common_len: int = common_length(delivered, replayed_prefix)
        self.conversation_ids: tuple[str | None, ...] = tuple(conversation_ids)

    @property
    def problem(self) -> str:
        """Say how the two differ."""
        return f"The answer broke off and its continuation differs: {printable(self.positional[1])}."

    @property
    def key(self) -> str:
        """Give the idempotency key that both streams had."""
        return self.idempotency_key or ""


def common_length(one: str, other: str) -> int:
    """Count the characters that two texts have in common at the start."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class PaginationError(LeadLexError):
    """A listing repeats itself and makes no progress."""

    charged: Fact[Charged] = Fact("no")

    advises = "Go on with another page=, or list again later."


class WebhookVerificationError(LeadLexError):
    """A webhook's signature, form or time is not LeadLex's."""

    charged: Fact[Charged] = Fact("no")

    advises = "Don't act on it; check that the secret is this endpoint's and that the clock is right."

    @property
    def _charge(self) -> str:
        return ""


class APIStatusError(LeadLexError):
    """An error came as the answer.

    Attributes:
        status_code: The HTTP status, as on the wire.
        code: The name of the error, if the answer gave one.
        message: The words of the answer's error, as sent.
        body: The body, as sent, at most 64 KiB.
        from_service: Whether it is the service's own word: the contract's form, with a code that belongs to the status.
    """

    says: ClassVar[str] = "LeadLex refused the call"
    from_service: Fact[bool] = Fact(default=False)

    def __init__(
        self,
        status_code: int,
        code: str | None = None,
        message: str | None = None,
        body: str | Facts = "",
        facts: Facts | None = None,
    ) -> None:
        # The body does not travel in `args`, so what comes fourth when an error is made again of them are its facts.
        told, body = (body, "") if isinstance(body, dict) else (facts, body)
        super().__init__(status_code, code, message, *_given(told))
        self.status_code = status_code
        self.code = code
        self.message = message
        self.body = body

    @property
    def problem(self) -> str:
        """Say what was refused, in the words of the answer where it gave any, and which request it was."""
        told = printable(self._problem or f"{self.says} ({status_named(self.status_code, self.code)})")
        return _sentence(f"{told}: {printable(self.message)}" if self.message else told, self.request_id)

    @property
    def rate_limit(self) -> RateLimit | None:
        """Give the quota that the answer carried."""
        return self.meta.rate_limit if self.meta else None


def status_named(status_code: int, code: str | None) -> str:
    """Name an error by its status and its code; one that came after a good status, as in a stream, by that fact."""
    shown = printable(code or "", 100)
    if 200 <= status_code < 300:  # noqa: PLR2004  # RFC 9110, 15.3
        return f"{shown or 'an error'}, told after the status {status_code}"
    return f"{status_code} {shown}".rstrip()


def _sentence(text: str, request_id: str | None) -> str:
    """End a text as a sentence ends, with the id of the request in it."""
    whole = text.removesuffix(".") + (f" (request {printable(request_id, 100)})" if request_id else "")
    return whole if whole.endswith(("!", "?")) else f"{whole}."


class BadRequestError(APIStatusError):
    """The service found the request invalid (400)."""

    says = "LeadLex found the request invalid"

    advises = "Change the request: sent again as it is, it is refused again."


class AuthenticationError(APIStatusError):
    """The API key is missing, wrong or expired (401)."""

    says = "LeadLex did not accept the API key"

    advises = "Keys look like wbk_…, belong to one workspace and may expire: check LEADLEX_API_KEY or make a new one."


class InsufficientCreditsError(APIStatusError):
    """The workspace has no AI credits left (402)."""

    says = "The workspace has no AI credits left"

    advises = "Add credits to the workspace, then ask again."


class PermissionDeniedError(APIStatusError):
    """The API key lacks a permission (403).

    Attributes:
        permission: The one that the call needs, where that is known.
    """

    says = "The API key lacks a permission"
    permission: Fact[str | None] = Fact(None)

    @property
    def advice(self) -> str:
        """Say which permission to give to the API key."""
        needed = f"the permission {self.permission!r}" if self.permission else "more permissions"
        return self._advice or f"This call needs an API key with {needed}."


class NotFoundError(APIStatusError):
    """There is no such conversation or task (404)."""

    says = "LeadLex has no such thing"

    advises = "Check the id, and that the API key belongs to its workspace."


class ConflictError(APIStatusError):
    """The first request with this idempotency key is still running (409)."""

    says = "The first request with this idempotency key is still running"

    advises = "Wait until the first request has ended."


class IdempotencyError(ConflictError):
    """The idempotency key was used before, with another request (409 or 422); this one was refused."""

    says = "This idempotency key was used before, with another question or other options"

    @property
    def advice(self) -> str:
        """Say both ways to go on, and what each costs."""
        key = f"idempotency_key={self.idempotency_key!r}" if self.idempotency_key else "its idempotency key"
        return (
            f"Either ask the first question again, with all that was given with it and {key}, which is not charged "
            "again; or ask this question without that key, which is a new charge."
        )

    @property
    def _again(self) -> str:
        return ""


class RateLimitError(APIStatusError):
    """The request quota of the API key is used up (429).

    Attributes:
        retry_after: Seconds to wait, where the service said so or its reset could be trusted.
        reset_at: When the quota is renewed, an aware datetime.
    """

    says = "The request quota of the API key is used up"
    retry_after: Fact[float | None] = Fact(None)
    reset_at: Fact[datetime | None] = Fact(None, datetime.fromisoformat, datetime.isoformat)

    @property
    def advice(self) -> str:
        """Say when to ask again."""
        return " ".join(filter(None, [self._advice, f"Ask again {_later(self.retry_after, self.reset_at)}."]))


def _later(seconds: float | None, moment: datetime | None) -> str:
    after = f"after {moment.isoformat()}" if moment else ""
    if seconds is None:
        return after or "later"
    at = f" (at {moment:%H:%M} UTC)" if moment else ""
    exact = f", {after}" if moment else f" ({seconds:g} s)" if seconds >= _MINUTE else ""
    return f"in {_duration(seconds)}{at}{exact}"


_MINUTE = 60


def _duration(seconds: float) -> str:
    """Say a time as people do: `45 s`, `12 min`, `9 h 12 min`."""
    if seconds < _MINUTE:
        return f"{seconds:g} s"
    hours, minutes = divmod(-(-int(seconds) // _MINUTE), 60)
    return " ".join(filter(None, [f"{hours} h" if hours else "", f"{minutes} min" if minutes else ""]))


class ServerError(APIStatusError):
    """The service failed (5xx)."""

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


def status_error_class(status_code: int, code: str | None, *, from_service: bool = False) -> type[APIStatusError]:
    """Choose the class of an error answer: by its status, or by its code where it came with a 2xx."""
    if from_service and (status_code == 422 or code == "idempotency_key_reused"):  # noqa: PLR2004  # RFC 9110, 15.5.21
        return IdempotencyError
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


def _show_as_public(kind: type[LeadLexError]) -> None:
    """Have tracebacks, logs and pickles name a class, and those below it, as people import them."""
    kind.__module__ = "leadlex"
    for each in kind.__subclasses__():
        _show_as_public(each)


_show_as_public(LeadLexError)

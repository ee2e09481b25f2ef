"""Options, their defaults, and the checks of keys and URLs.

Rule: pure. The environment comes in as a mapping, and whatever can't be used is refused here, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Self, cast

from attrs import AttrsInstance, field, fields, frozen

from ._errors import ConfigurationError, refuse
from ._values.plain import Value, fields_of

__version__ = "0.2.0.dev0"

JSON_TOTAL: Final = 120.0
"""Seconds for a JSON call, attempts and sleeps included, where `Timeout.total` is not set."""

MAX_SECONDS: Final = 86_400.0 * 365

MAX_RETRIES: Final = 9

MAX_COLLECTED: Final = 1 << 31


class Unset(Enum):
    """What stands for "not given", where None means something; there is one, in copies and pickles too."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "<unset>"


UNSET: Final = Unset.UNSET


class Option(Value):
    """An option of several numbers, which can be read from a file of settings."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers by name, as JSON can hold them; `from_dict` takes them back.

        Example:
            leadlex.RetryPolicy(retries=4).to_dict()
        """
        return {name: value for name, value in fields_of(self).items() if value is not UNSET}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Self:
        """Make the option of numbers by name.

        Args:
            plain: What to set; what is not there has its default.

        Raises:
            ConfigurationError: A name is not known, or a value out of its range.

        Example:
            patient = leadlex.Timeout.from_dict({"first_event": 300})
        """
        try:
            return cls(**plain)
        except TypeError:
            names = ", ".join(each.name for each in fields(cast("type[AttrsInstance]", cls)))
            raise ConfigurationError(f"{cls.__name__} is made of a mapping with these names: {names}.") from None


def seconds(value: object, argument: str) -> float:
    """Return a number of seconds, or refuse what no clock can count."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(argument, "a number of seconds", type(value).__name__)
    if not 0 < value <= MAX_SECONDS:
        refuse(argument, "a number of seconds above 0 and at most a year", _shown(value))
    return float(value)


def whole(value: object, argument: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`, or refuse the value."""
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(argument, f"a whole number from {low} to {high}", type(value).__name__)
    if not low <= value <= high:
        refuse(argument, f"a whole number from {low} to {high}", _shown(value))
    return value


def _shown(value: float) -> str:
    # A number of 5,000 digits has no repr (CVE-2020-10735).
    return "a huge one" if isinstance(value, int) and abs(value) >= 1 << 64 else repr(value)


def _check_clock(_: object, attribute: Any, value: object) -> None:  # noqa: ANN401  # attrs' own
    seconds(value, f"timeout.{attribute.name}")


def _check_total(_: object, __: object, value: object) -> None:
    if not (value is None or isinstance(value, Unset)):
        seconds(value, "timeout.total")


@frozen(kw_only=True)
class Timeout(Option):
    """The clocks of a call, in seconds; they run only while waiting for the network, `total` always.

    Args:
        connect: To connect, the TLS handshake included.
        write: For each piece of the request to be taken.
        pool: To wait for a free connection.
        first_event: From the start of a stream to its first event.
        idle: Between two reads of a body.
        event_idle: Between two events of a stream; comments, and events that the API does not name, don't count.
        total: For the whole call, retries included; unset it is 120 for JSON calls and none for streams,
            None is none for both.

    Raises:
        ConfigurationError: A value is not above 0, or not a number.

    Example:
        patient = lexi.with_options(timeout=leadlex.Timeout(first_event=300))
    """

    connect: float = field(default=5.0, validator=_check_clock)
    write: float = field(default=30.0, validator=_check_clock)
    pool: float = field(default=10.0, validator=_check_clock)
    first_event: float = field(default=120.0, validator=_check_clock)
    idle: float = field(default=60.0, validator=_check_clock)
    event_idle: float = field(default=300.0, validator=_check_clock)
    total: float | Unset | None = field(default=UNSET, validator=_check_total)

    def total_of(self, *, streams: bool) -> float | None:
        """Return the seconds that the whole of a call may take."""
        if isinstance(self.total, Unset):
            return None if streams else JSON_TOTAL
        return self.total


DEFAULT_TIMEOUT: Final = Timeout()


@frozen
class PlainTimeout(Timeout):
    """What a bare number of seconds means: `total` of a JSON call, `idle` of a stream, a cap on the small clocks."""

    def total_of(self, *, streams: bool) -> float | None:
        """Return the seconds that the whole of a call may take."""
        return None if streams else self.idle


def timeout_of(value: object) -> Timeout:
    """Read the `timeout` option."""
    if isinstance(value, Timeout):
        return value
    if value is None:
        refuse("timeout", "a number of seconds or a leadlex.Timeout (for no limit: Timeout(total=None))", "None")
    limit = seconds(value, "timeout")
    usual = DEFAULT_TIMEOUT
    return PlainTimeout(
        connect=min(usual.connect, limit),
        write=min(usual.write, limit),
        pool=min(usual.pool, limit),
        idle=limit,
    )


def _check_amount(_: object, attribute: Any, value: object) -> None:  # noqa: ANN401  # attrs' own
    seconds(value, f"retries.{attribute.name}")


def _check_retries(_: object, __: object, value: object) -> None:
    whole(value, "retries", 0, MAX_RETRIES)


@frozen(kw_only=True)
class RetryPolicy(Option):
    """How often and after how long a failed attempt is repeated, where repeating is safe.

    Args:
        retries: Attempts after the first, 0 to 9.
        base: Seconds of the first backoff after a passing failure; it doubles each time, with full jitter.
        throttle_base: The same after a 429.
        cap: The longest backoff, in seconds.
        floor: The shortest backoff, in seconds.
        max_hint: The longest wait, in seconds, that a server may ask for; a longer one raises at once.
        window: Seconds after the first failure in which anything is repeated at all.

    Raises:
        ConfigurationError: A value is out of its range.

    Example:
        steady = lexi.with_options(retries=leadlex.RetryPolicy(retries=4, cap=20))

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter).
    """

    retries: int = field(default=2, validator=_check_retries)
    base: float = field(default=0.5, validator=_check_amount)
    throttle_base: float = field(default=1.0, validator=_check_amount)
    cap: float = field(default=8.0, validator=_check_amount)
    floor: float = field(default=0.05, validator=_check_amount)
    max_hint: float = field(default=60.0, validator=_check_amount)
    window: float = field(default=60.0, validator=_check_amount)


DEFAULT_RETRIES: Final = RetryPolicy()


def policy_of(value: object) -> RetryPolicy:
    """Read the `retries` option."""
    return value if isinstance(value, RetryPolicy) else RetryPolicy(retries=whole(value, "retries", 0, MAX_RETRIES))

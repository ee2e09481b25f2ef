"""Options, their defaults, and the checks of keys and URLs.

Rule: pure. The environment comes in as a mapping, and whatever can't be used is refused here, before anything is sent.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from ._errors import ConfigurationError, common_length, discreet, refuse

__version__ = "0.2.0.dev0"

BASE_URL: Final = "https://data.leadlex.com/functions/v1/api-gateway"
USER_AGENT: Final = f"leadlex-python/{__version__}"
MAX_CONNECTIONS: Final = 1000
JSON_TOTAL: Final = 120.0
"""Seconds for a JSON call, attempts and sleeps included, where `Timeout.total` is not set."""

MAX_SECONDS: Final = 86_400.0 * 365
MAX_RETRIES: Final = 9
MAX_COLLECTED: Final = 1 << 31


class Unset:
    """Stand for "not given", where None means something."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET: Final = Unset()


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
class Timeout:
    """Set the clocks of a call, in seconds; they run only while waiting for the network, `total` always.

    Args:
        connect: To connect, the TLS handshake included.
        write: For each piece of the request to be taken.
        pool: To wait for a free connection.
        first_event: From the start of a stream to its first event.
        idle: Between two reads of a body.
        event_idle: Between two events of a stream; comments don't count.
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
    """Be what a bare number of seconds means: `total` of a JSON call, `idle` of a stream, a cap on the small clocks."""

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
class RetryPolicy:
    """Say how often and after how long a failed attempt is repeated, where repeating is safe.

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


# One character as JSON, a programming language, a URL or HTML writes it, escaped once or more. Each way begins with a
# plain character and none ignores case, so that the search skips what has none of the three.
_HEX: Final = "([0-9a-fA-F]{2})"
_ESCAPED = re.compile(
    rf"\\\\*(?:[uU]00|[xX]){_HEX}|%(?:25)*{_HEX}|&(?:amp;)*#[xX]0*{_HEX};|&(?:amp;)*#0*([0-9]{{2,3}});"
    r"|&(?:amp;)*(amp|lt|gt|quot|apos);|\\\\*([!-/:-@\[-`{-~])"
)
_CHARACTER = re.compile(f"{_ESCAPED.pattern}|(.)", re.DOTALL)
_NAMED: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

_MASK: Final = "wbk_…"
TELLING: Final = 8
"""Characters of an API key that are not shown together; fewer are no more than how such keys begin."""


def _meant(match: re.Match[str]) -> str:
    """Return the one character that an escaped one stands for, in lower case as names of headers are."""
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal or match[4]:
        return chr(int(hexadecimal, 16) if hexadecimal else int(match[4])).lower()[0]
    return _NAMED.get(match[5]) or match[match.lastindex or 0].lower()[0]


class Key:
    """Keep the API key where no repr, pickle or locals of a traceback show it."""

    __slots__ = ("_telling", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._telling = value[:TELLING].lower()

    def __repr__(self) -> str:
        return _MASK

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An API key can't be pickled: make the client in the process that uses it.")

    @property
    def authorization(self) -> str:
        """Give the value of the header."""
        return f"Bearer {self._value}"

    def masked(self, text: str) -> str:
        """Return `text` with the key, should a server echo it, made unreadable.

        Escaped and cut forms too: whatever begins as the key does is masked as far as it goes on as the key.
        """
        # Every header of every answer comes here, and three searches take a tenth of what the one for all takes.
        escapes = "\\" in text or "%" in text or "&" in text
        if self._telling not in (_ESCAPED.sub(_meant, text) if escapes else text).lower():
            return text
        shown, meant = map(list, zip(*((match[0], _meant(match)) for match in _CHARACTER.finditer(text)), strict=True))
        plain, at = "".join(meant), 0
        while (at := plain.find(self._telling, at)) >= 0:
            end = at + common_length(plain[at : at + len(self._value)], self._value.lower())
            shown[at:end] = [_MASK, *[""] * (end - at - 1)]
            at = end
        return "".join(shown)


# RFC 9110, 5.6.2 (token) and 5.5 (field values), without the obsolete 8-bit bytes.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@discreet
def key_of(given: object, environment: Mapping[str, str]) -> Key:
    """Find and check the API key: the argument, else `LEADLEX_API_KEY`."""
    value = environment.get("LEADLEX_API_KEY") if given is None else given
    if value is None:
        raise ConfigurationError(
            "There is no API key. Make a workspace key (wbk_…) in LeadLex under Settings > API keys, then set "
            "LEADLEX_API_KEY or pass api_key=…; to try leadlex without one, use LeadLex.sandbox()."
        )
    if not isinstance(value, str):
        refuse("api_key", "a str", type(value).__name__)
    value = value.strip()
    if not value:
        refuse("api_key", "a workspace key (wbk_…)", "an empty one")
    if value.lower().startswith("bearer"):
        refuse("api_key", "the key alone (wbk_…)", "one with the word Bearer in front")
    if not _VISIBLE.fullmatch(value):
        refuse("api_key", "printable ASCII without white space", f"{len(value)} characters, some of them not")
    return Key(value)


@discreet
def base_url_of(given: object, environment: Mapping[str, str]) -> str:
    """Find and check the base URL: the argument, else `LEADLEX_BASE_URL`, else the service's."""
    value = (environment.get("LEADLEX_BASE_URL") or BASE_URL) if given is None else given
    if not isinstance(value, str):
        refuse("base_url", "a str", type(value).__name__)
    problem = _problem_of_url(value)
    if problem:
        raise ConfigurationError(f"base_url can't be used: {problem}.")
    return value.rstrip("/")


# Letters, digits, dots and hyphens, or an address in brackets: no white space, no user, no homographs.
_AUTHORITY = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)
_PATH = re.compile(r"[A-Za-z0-9._~/-]*")


def _problem_of_url(value: str) -> str | None:
    # urlsplit drops tabs and line ends silently (WHATWG URL, 4.4), so they are looked for first.
    if value and not _VISIBLE.fullmatch(value):
        return "it must be printable ASCII without white space"
    try:
        parts = urlsplit(value)
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in ("https", "http") or not value.lower().startswith(f"{parts.scheme}://"):
        return "it must begin with https://"
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        return "it must be a scheme, a host and a plain path"
    return _problem_of_authority(parts.scheme, parts.netloc)


def _problem_of_authority(scheme: str, authority: str) -> str | None:
    if "@" in authority:
        return "it must not carry a user name or password"
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not _has_port(match["port"]) or not _has_address(match["host"]):
        return "its host or port is not valid"
    if scheme == "http" and not is_loopback(match["host"]):
        return "only https keeps the key secret (http is accepted for localhost)"
    return None


def _has_port(port: str | None) -> bool:
    return port is None or 0 < int(port) < 1 << 16


def _has_address(host: str) -> bool:
    if not host.startswith("["):
        return ".." not in host
    try:
        ipaddress.IPv6Address(host.strip("[]"))
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine: `localhost` itself, or a loopback address when parsed."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


_OURS = frozenset({"authorization", "host", "content-length", "transfer-encoding", "idempotency-key"})


@discreet
def headers_of(value: object) -> tuple[tuple[str, str], ...]:
    """Check the extra headers; those that are leadlex's own can't be replaced."""
    if not isinstance(value, Mapping):
        refuse("headers", "a mapping of str to str", type(value).__name__)
    return tuple(_header_of(name, text) for name, text in value.items())


def _header_of(name: object, text: object) -> tuple[str, str]:
    if not isinstance(name, str) or not _TOKEN.fullmatch(name):
        refuse("headers", "made of names that HTTP allows", "another name")
    if name.lower() in _OURS:
        refuse("headers", "none of leadlex's own", name)
    if not isinstance(text, str) or not _FIELD_VALUE.fullmatch(text):
        refuse(f"headers[{name!r}]", "printable ASCII", "another value")
    return name, text


@frozen(kw_only=True, eq=False, repr=False)
class Settings:
    """Hold the checked options of a client."""

    base_url: str
    key: Key
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    timeout: Timeout = DEFAULT_TIMEOUT
    policy: RetryPolicy = DEFAULT_RETRIES
    resume: bool = True
    max_connections: int = MAX_CONNECTIONS

    @property
    def address(self) -> str:
        """Give the host and port of the service."""
        parts = urlsplit(self.base_url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    @discreet
    def replaced(self, *, timeout: object, retries: object, resume: object, headers: object) -> Settings:
        """Return these settings with the options of `with_options` put in."""
        return evolve(
            self,
            timeout=self.timeout if isinstance(timeout, Unset) else timeout_of(timeout),
            policy=self.policy if isinstance(retries, Unset) else policy_of(retries),
            resume=self.resume if isinstance(resume, Unset) else flag_of(resume),
            headers=self.headers if isinstance(headers, Unset) else merged(self.headers, headers_of(headers)),
        )


Headers = tuple[tuple[str, str], ...]


def merged(old: Headers, new: Headers) -> Headers:
    """Return `old` headers with the `new` ones put over them."""
    names = {name.lower() for name, _ in new}
    return (*(pair for pair in old if pair[0].lower() not in names), *new)


def flag_of(value: object) -> bool:
    """Check the `resume` option."""
    if not isinstance(value, bool):
        refuse("resume", "True or False", type(value).__name__)
    return value

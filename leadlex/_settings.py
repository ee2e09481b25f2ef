"""The checked options of one client: where the service is, what is sent with each request, and its limits."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from attrs import evolve, field, frozen

from ._api_key import VISIBLE, ApiKey, ApiKeys
from ._config import DEFAULT_RETRIES, DEFAULT_TIMEOUT, RetryPolicy, Timeout, Unset, __version__, policy_of, timeout_of
from ._errors import ConfigurationError, discreet, refuse

BASE_URL: Final = "https://data.leadlex.com/functions/v1/api-gateway"

USER_AGENT: Final = f"leadlex-python/{__version__}"

MAX_CONNECTIONS: Final = 1000

# RFC 9110, 5.6.2 (token) and 5.5 (field values), without the obsolete 8-bit bytes.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")


@discreet
def base_url_of(given: object, environment: Mapping[str, str], key: ApiKey | None) -> str:
    """Find and check the base URL: the argument, else `LEADLEX_BASE_URL`, else the service's.

    A sandbox's key is no secret, so that a sandbox may be asked without TLS, wherever it is.
    """
    value = (environment.get("LEADLEX_BASE_URL") or BASE_URL) if given is None else given
    if not isinstance(value, str):
        refuse("base_url", "a str", type(value).__name__)
    problem = _problem_of_url(value, plain=key is not None and key.is_sandbox)
    if problem:
        raise ConfigurationError(f"base_url can't be used: {problem}.")
    return value.rstrip("/")


# Letters, digits, dots and hyphens, or an address in brackets: no white space, no user, no homographs.
_AUTHORITY = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
)

_PATH = re.compile(r"[A-Za-z0-9._~/-]*")


def _problem_of_url(value: str, *, plain: bool) -> str | None:
    # urlsplit drops tabs and line ends silently (WHATWG URL, 4.4), so they are looked for first.
    if value and not VISIBLE.fullmatch(value):
        return "it must be printable ASCII without white space"
    try:
        parts = urlsplit(value)
    except ValueError:
        return "it is not a URL"
    if parts.scheme not in ("https", "http") or not value.lower().startswith(f"{parts.scheme}://"):
        return "it must begin with https://"
    if parts.query or parts.fragment or not _PATH.fullmatch(parts.path) or {".", ".."} & set(parts.path.split("/")):
        return "it must be a scheme, a host and a plain path"
    return _problem_of_authority(parts.scheme, parts.netloc, plain=plain)


def _problem_of_authority(scheme: str, authority: str, *, plain: bool) -> str | None:
    if "@" in authority:
        return "it must not carry a user name or password"
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not _has_port(match["port"]) or not _has_address(match["host"]):
        return "its host or port is not valid"
    if scheme == "http" and not plain and not is_loopback(match["host"]):
        return "only https keeps the key secret (http is accepted for localhost, and with a sandbox's key)"
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
    """The checked options of a client."""

    base_url: str
    keys: ApiKeys
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

"""Under which names the sandbox answers.

A page that somebody opens in a browser can't read what another site answers, unless its own name suddenly stands for
this machine's address (DNS rebinding). Then the browser sends that name as Host, and so gives it away.
"""

import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import Scope

from leadlex._errors import ConfigurationError

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
HOST = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:]*))(?::[0-9]*)?")


class Hosts:
    """The names of this machine, and others that it was told.

    Args:
        others: names or addresses, without scheme and port.

    Raises:
        ConfigurationError: one is none.
    """

    def __init__(self, others: Iterable[str]) -> None:
        if isinstance(others, str):
            raise ConfigurationError("allowed_hosts must be several names: write ['…'] for one")
        self._others = {name.lower() for name in others}
        if wrong := sorted(name for name in self._others if not NAME.fullmatch(name)):
            raise ConfigurationError(f"allowed_hosts takes names as `sandbox`, without scheme and port, not {wrong}")

    def admit(self, scope: Scope) -> bool:
        """Tell whether a request is meant for this server: by a name that it has, or the address that it came to."""
        host = _host(scope)
        return host in self._others or host == "localhost" or _is_own(host, scope["server"][0])


def _host(scope: Scope) -> str:
    match = HOST.fullmatch(Headers(scope=scope).get("host", ""))
    return ((match["address"] or match["name"]) if match else "").lower()


def _is_own(host: str, reached: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    own = ipaddress.ip_address(reached)
    # What listens on all addresses of both versions sees those of the older one so (RFC 4291, 2.5.5.2).
    return address.is_loopback or address in (own, getattr(own, "ipv4_mapped", None))

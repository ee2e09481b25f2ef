"""The proxy of a client: the one that was given, else the environment's.

Source: https://docs.python.org/3/library/urllib.request.html (getproxies).
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from leadlex._errors import ConfigurationError, discreet, refuse
from leadlex._settings import is_loopback


@discreet
def proxy_for(place: str, given: object, context: ssl.SSLContext | None, *, secure: bool) -> httpcore.Proxy | None:
    """Find the proxy to a place, if any: the one that was given, for all but this machine, else the environment's.

    Args:
        place: Its host and port.
        given: The option.
        context: What a proxy is trusted by.
        secure: Whether it is called by https. Plain http is this machine: a proxy would only learn the key.

    Raises:
        ConfigurationError: The option or a proxy variable can't be used.
    """
    if given is None:
        return _environment_proxy(place, context) if secure else None
    if not isinstance(given, str):
        refuse("proxy", "a URL as str (http://user:password@host:port)", type(given).__name__)
    proxy = _proxy("proxy", given, context)
    return None if is_loopback(_host_of(place)) else proxy


def _environment_proxy(place: str, context: ssl.SSLContext | None) -> httpcore.Proxy | None:
    proxies = {name: value.strip() for name, value in getproxies().items()}
    hosts = proxies.get("no", "")
    _check_no_proxy(hosts)
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(place) or _is_in_a_network(_host_of(place), hosts):
        return None
    return _proxy("HTTPS_PROXY or ALL_PROXY", address, context)


def _host_of(place: str) -> str:
    return place.rpartition(":")[0]


def _is_in_a_network(host: str, hosts: str) -> bool:
    """Tell whether an address is in a network that `NO_PROXY` has, as 10.0.0.0/8; the standard library knows none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in network for network in _networks(hosts))


def _networks(hosts: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for item in hosts.split(","):
        with suppress(ValueError):  # a name, or what is nothing at all
            yield ipaddress.ip_network(item.strip(), strict=False)


# An address in brackets, with or without a port; "[::bad" without its bracket would be one too.
_BRACKETED: Final = re.compile(r"\s*\[([^]]*)\](?::\d+)?\s*")


def _check_no_proxy(hosts: str) -> None:
    for host in filter(lambda item: "[" in item or "]" in item, hosts.split(",")):
        match = _BRACKETED.fullmatch(host)
        try:
            ipaddress.IPv6Address(match[1] if match else "")
        except ValueError:
            raise ConfigurationError("NO_PROXY can't be used: it has an address that is none.") from None


def _proxy(name: str, address: str, context: ssl.SSLContext | None) -> httpcore.Proxy:
    address = address.strip()
    proxy = _parsed(address if "://" in address else f"http://{address}")
    if proxy is None or not proxy.url.host or (proxy.url.port or 0) >= 1 << 16:
        raise ConfigurationError(
            f"{name} can't be used: it is not a proxy's URL, like http://user:password@host:port (https, socks5)."
        )
    # httpcore has loaded the package where it is there; 0.1 had not yet what httpcore asks of it.
    if proxy.url.scheme.startswith("socks") and not hasattr(sys.modules.get("socksio"), "SOCKS5AuthMethodsRequest"):
        raise ConfigurationError("A SOCKS proxy needs one more package: pip install 'httpx[socks]'.")
    url = httpcore.URL(scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=b"/")
    # A proxy that is reached by TLS is trusted as the service is; httpcore's own default knows no SSL_CERT_FILE.
    secure = context if proxy.url.scheme == "https" else None
    return httpcore.Proxy(url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=secure)


def _parsed(address: str) -> httpx.Proxy | None:
    try:
        return httpx.Proxy(address)
    except (ValueError, httpx.InvalidURL):
        return None

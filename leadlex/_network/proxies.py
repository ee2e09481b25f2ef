"""The proxies of the environment.

Source: https://docs.python.org/3/library/urllib.request.html (getproxies).
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import sys
from typing import Final
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from leadlex._errors import ConfigurationError, discreet


@discreet
def environment_proxy(place: str, context: ssl.SSLContext | None) -> httpcore.Proxy | None:
    """Find the proxy for https to a place, if any.

    Args:
        place: Its host and port.
        context: What a proxy is trusted by.

    Raises:
        ConfigurationError: A proxy variable can't be used.
    """
    proxies = getproxies()
    _check_no_proxy(proxies.get("no", ""))
    address = proxies.get("https") or proxies.get("all")
    if not address or proxy_bypass(place):
        return None
    return _proxy(address if "://" in address else f"http://{address}", context)


# An address in brackets, with or without a port; "[::bad" without its bracket would be one too.
_BRACKETED: Final = re.compile(r"\s*\[([^]]*)\](?::\d+)?\s*")


def _check_no_proxy(hosts: str) -> None:
    for host in filter(lambda item: "[" in item or "]" in item, hosts.split(",")):
        match = _BRACKETED.fullmatch(host)
        try:
            ipaddress.IPv6Address(match[1] if match else "")
        except ValueError:
            raise ConfigurationError("NO_PROXY can't be used: it has an address that is none.") from None


def _proxy(address: str, context: ssl.SSLContext | None) -> httpcore.Proxy:
    proxy = _parsed(address)
    if proxy is None or not proxy.url.host or (proxy.url.port or 0) >= 1 << 16:
        raise ConfigurationError("HTTPS_PROXY or ALL_PROXY can't be used: it is not a proxy's URL.")
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

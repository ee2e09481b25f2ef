"""The door to the extra `leadlex[aiohttp]`: what is behind it loads when it is used."""

from __future__ import annotations

import ssl
from importlib import import_module
from os import PathLike
from typing import Final

import httpx

from leadlex._errors import ConfigurationError, discreet

from .cookies import CookielessClient
from .tls import tls_context

MANY: Final = 10_000

_OLDEST: Final = (3, 14)
"""The extra's lower bound; another program's aiohttp may be older."""


@discreet
def aiohttp_client(
    *,
    max_connections: int = MANY,
    proxy: str | None = None,
    verify: ssl.SSLContext | str | PathLike[str] | None = None,
) -> httpx.AsyncClient:
    """Make an `httpx.AsyncClient` over aiohttp, for thousands of concurrent streams; given as `http_client`.

    It runs under asyncio only. Retries, errors and what is known of a charge are as without it.

    Args:
        max_connections: How many connections there may be at once.
        proxy: As for a client, but without SOCKS.
        verify: As for a client.

    Raises:
        ConfigurationError: The extra is missing, or an option, `SSL_CERT_FILE` or `SSL_CERT_DIR` can't be used.

    Example:
        lexi = leadlex.AsyncLeadLex(http_client=leadlex.aiohttp_client)
    """
    if not _is_installed():
        raise ConfigurationError(
            "aiohttp_client needs the extra aiohttp. In a clone of leadlex: pip install '.[aiohttp]'"
        )
    from .aiohttp_transport import SessionTransport  # noqa: PLC0415  # an extra, loaded when it is used

    transport = SessionTransport(tls_context(verify), max_connections, proxy)
    return CookielessClient(transport=transport, trust_env=False)


def _is_installed() -> bool:
    try:
        version = import_module("aiohttp").__version__
    except ImportError:
        return False
    return tuple(map(int, version.split(".")[:2])) >= _OLDEST

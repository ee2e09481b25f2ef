"""The making of HTTP clients: our own, or the user's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import NoReturn
from urllib.parse import urlsplit

import httpx
from anyio.lowlevel import current_token

from leadlex._errors import ConfigurationError, discreet, refuse
from leadlex._settings import Settings

from .connections import PooledTransport
from .cookies import CookielessClient
from .http1 import HTTP1Connection
from .loops import ConnectionsByLoop
from .proxies import proxy_for
from .tls import begin_to_read


def client_maker(settings: Settings, proxy: object = None, verify: object = None) -> Callable[[], httpx.AsyncClient]:
    """Check what the options and the environment say about TLS and proxies, and return what makes a client of it.

    Raises:
        ConfigurationError: `proxy`, `verify`, `SSL_CERT_FILE`, `SSL_CERT_DIR` or a proxy variable can't be used.
    """
    secure = urlsplit(settings.base_url).scheme == "https"
    read = begin_to_read(verify) if secure or verify is not None else None
    _load_what_calls_need()
    context = read() if read else None
    way = proxy_for(settings.address, proxy, context, secure=secure)

    def make() -> httpx.AsyncClient:
        transport = PooledTransport(partial(HTTP1Connection, context, way), settings.max_connections)
        return CookielessClient(transport=transport, trust_env=False)

    return make


@discreet
def connections_for(
    settings: Settings, given: object, proxy: object = None, verify: object = None
) -> ConnectionsByLoop:
    """Make the connections of a client, from the user's `httpx.AsyncClient`, a function that makes one, or our own."""
    if given is None:
        return ConnectionsByLoop(client_maker(settings, proxy, verify))
    for name, value in (("proxy", proxy), ("verify", verify)):
        if value is not None:
            raise ConfigurationError(
                f"{name} can't be given beside http_client: give it to that client, which has its own."
            )
    _load_what_calls_need()
    if isinstance(given, httpx.AsyncClient):
        return ConnectionsByLoop(lambda: given, owned=False)
    if not callable(given):
        _refuse_client(given)
    return ConnectionsByLoop(lambda: _checked(given()))


def _checked(made: object) -> httpx.AsyncClient:
    return made if isinstance(made, httpx.AsyncClient) else _refuse_client(made)


def _refuse_client(given: object) -> NoReturn:
    kind = type(given)
    package = kind.__module__.partition(".")[0]
    name = kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"
    refuse("http_client", "an httpx.AsyncClient or a function that makes one", name)


def _load_what_calls_need() -> None:
    """Load what a first call would, for somebody waits for that one: the loop's backend, and what looks up a host."""
    with suppress(RuntimeError):  # the interpreter ends, and no thread will be had
        import_module("concurrent.futures.thread")
    try:
        current_token()
    except RuntimeError:  # no loop runs here, whatever sniffio says of a thread that was given the context of one
        import_module("anyio._backends._asyncio")
    "".encode("idna")

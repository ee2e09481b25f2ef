"""TLS: who is trusted, as the client was told, or else as the environment asks for it."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import NoReturn

import httpx

from leadlex._errors import ConfigurationError, printable, refuse
from leadlex._system_threads import system_thread

from .patches import filled


def begin_to_read(verify: object) -> Callable[[], ssl.SSLContext]:
    """Read the certificates aside: OpenSSL does it without the GIL, so that what is done meanwhile takes no time."""
    contexts: list[ssl.SSLContext] = []
    errors: list[Exception] = []

    def load() -> None:
        try:
            contexts.append(tls_context(verify))
        except Exception as error:  # noqa: BLE001  # it is raised where the context is asked for
            errors.append(error)

    # Neither an executor nor a future: their locks are the system's where gevent came after them, and may hang its hub.
    thread = system_thread(load, "leadlex-certificates")
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had: the interpreter ends, or the process has too many
        return partial(tls_context, verify)

    def read() -> ssl.SSLContext:
        thread.join()
        for error in errors:
            raise error
        return contexts[0]

    return read


def tls_context(verify: object = None) -> ssl.SSLContext:
    """Make the TLS context that all connections share.

    Args:
        verify: A context, a PEM file's path, or `system`; None is what the environment says.

    Raises:
        ConfigurationError: It can't be used, or `SSL_CERT_FILE`, `SSL_CERT_DIR` or `SSLKEYLOGFILE` can't.
    """
    if isinstance(verify, ssl.SSLContext):
        return _checking(verify)
    if verify == "system":
        return _system_context()
    if isinstance(verify, str | os.PathLike) and verify != "":  # which would be what OpenSSL trusts by itself
        path = os.fspath(verify)
        return _read(lambda: ssl.create_default_context(cafile=path), f"verify={printable(repr(path), 300)}")
    if verify is not None:
        _refuse(verify)
    return _read(httpx.create_ssl_context, "SSL_CERT_FILE or SSL_CERT_DIR")


def _read(make: Callable[[], ssl.SSLContext], named: str) -> ssl.SSLContext:
    try:
        return make()
    except (OSError, ValueError) as error:
        # Of the files that are opened here OpenSSL names only the one that it writes to.
        is_log = isinstance(error, OSError) and error.filename is not None
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
        raise ConfigurationError(f"{'SSLKEYLOGFILE' if is_log else named} can't be used: {reason}.") from None


def _system_context() -> ssl.SSLContext:
    """Trust what this machine trusts, as its browsers do."""
    try:
        truststore = import_module("truststore")
    except ImportError:
        raise ConfigurationError(
            "verify='system' needs the extra trust. In a clone of leadlex: pip install '.[trust]'"
        ) from None
    return filled(truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def _checking(context: ssl.SSLContext) -> ssl.SSLContext:
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        _refuse(False)  # noqa: FBT003  # it is what such a context comes to
    return context


def _refuse(verify: object) -> NoReturn:
    if verify is False:
        raise ConfigurationError(
            "verify can't be False, nor a context that does not check certificates and host names: whoever stands in "
            "between would read the API key and the answers. Where a firm's proxy inspects TLS, give a PEM file that "
            "has its authority's certificate, verify=PATH, or verify='system' to trust what this machine trusts."
        )
    refuse(
        "verify",
        "an ssl.SSLContext, a PEM file's path or 'system'",
        repr(verify) if verify == "" else type(verify).__name__,
    )

"""TLS as the environment asks for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import httpx

from leadlex._errors import ConfigurationError
from leadlex._system_threads import system_thread


def begin_to_read() -> Callable[[], ssl.SSLContext]:
    """Read the certificates aside: OpenSSL does it without the GIL, so that what is done meanwhile takes no time."""
    contexts: list[ssl.SSLContext] = []
    errors: list[Exception] = []

    def load() -> None:
        try:
            contexts.append(tls_context())
        except Exception as error:  # noqa: BLE001  # it is raised where the context is asked for
            errors.append(error)

    # Neither an executor nor a future: their locks are the system's where gevent came after them, and may hang its hub.
    thread = system_thread(load, "leadlex-certificates")
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had: the interpreter ends, or the process has too many
        return tls_context

    def read() -> ssl.SSLContext:
        thread.join()
        for error in errors:
            raise error
        return contexts[0]

    return read


def tls_context() -> ssl.SSLContext:
    """Make the TLS context that all connections share.

    Raises:
        ConfigurationError: `SSL_CERT_FILE`, `SSL_CERT_DIR` or `SSLKEYLOGFILE` can't be used.
    """
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as error:
        # Of the files that are opened here OpenSSL names only the one that it writes to.
        is_log = isinstance(error, OSError) and error.filename is not None
        names = "SSLKEYLOGFILE" if is_log else "SSL_CERT_FILE or SSL_CERT_DIR"
        reason = error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
        raise ConfigurationError(f"{names} can't be used: {reason}.") from None

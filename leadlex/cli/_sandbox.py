"""The sandbox in the foreground, for programs and other commands to talk with."""

from __future__ import annotations

import sqlite3
import threading
from argparse import Namespace

import leadlex
import leadlex.sandbox

from ._output import Output


def sandbox(options: Namespace, out: Output) -> None:
    """Serve until Ctrl-C."""
    out.wait("The sandbox starts…")
    served = _start(options)
    try:
        out.address(served.url, served.api_key, options.data)
        while True:
            threading.Event().wait(1)  # in slices: on Windows a longer wait can't be interrupted
    except KeyboardInterrupt:
        out.note("\nThe sandbox has stopped.")
    finally:
        served.stop()


def _start(options: Namespace) -> leadlex.sandbox.Sandbox:
    try:
        return leadlex.sandbox.Sandbox(
            options.data,
            host=options.host,
            port=options.port,
            allowed_hosts=options.allow_host,
            credits=options.credits,
            prices=options.prices,
            quota=options.quota,
            pace=options.pace,
            idempotency=options.idempotency,
        ).start()
    except (OSError, sqlite3.Error) as error:
        raise leadlex.ConfigurationError(f"The sandbox can't start: {error}.") from error

"""Whom a command talks with: LeadLex, or the sandbox that makes things up.

Rule: answers are invented only where somebody asked for that, or sees that they are.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Final

import leadlex

from ._output import Output

_INVENTED: Final = "The sandbox answers: everything it says is invented."
_NO_KEY: Final = "No LEADLEX_API_KEY: the sandbox answers, and everything it says is invented."

_MOMENT: Final = "One moment…"


def connect(options: Namespace, out: Output) -> leadlex.LeadLex:
    """Return a client, of the sandbox where that was asked for or somebody without a key looks on.

    Raises:
        ConfigurationError: There is no key, or the sandbox's extra is missing.
    """
    if options.sandbox:
        out.warn(_INVENTED)
    elif _has_key():
        out.wait(_MOMENT)
        return leadlex.LeadLex(verify=os.environ.get("LEADLEX_VERIFY") or None)
    elif options.json or not is_watched():
        raise leadlex.ConfigurationError(
            "There is no API key. Make a workspace key (wbk_…) in LeadLex under Settings > API keys and set "
            "LEADLEX_API_KEY to it; with --sandbox the answers are invented and need none."
        )
    else:
        out.warn(_NO_KEY)
    out.wait(_MOMENT)
    return leadlex.LeadLex.sandbox()


def is_sandbox(options: Namespace) -> bool:
    """Tell whether `connect` gives the sandbox of this process."""
    return bool(options.sandbox) or not _has_key()


def is_watched() -> bool:
    """Tell whether a person is at both ends: a job that lost its key must not take invented contacts for real."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _has_key() -> bool:
    return bool(os.environ.get("LEADLEX_API_KEY", "").strip())

"""Exit codes: a script learns from the number what kind of thing went wrong.

Rule: a code, once given, keeps its meaning.
"""

from __future__ import annotations

from typing import Final

from leadlex import (
    APIConnectionError,
    APIResponseError,
    AuthenticationError,
    ConfigurationError,
    InsufficientCreditsError,
    LeadLexError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StreamInterruptedError,
)

STOPPED: Final = 130
"""Ctrl-C, as shells have it: 128 and the number of SIGINT."""

CUT_OFF: Final = 141
"""Nobody reads stdout any more, as with `| head`: 128 and the number of SIGPIPE."""

_EXITS: Final[tuple[tuple[int, str, tuple[type[Exception], ...]], ...]] = (
    (2, "a wrong call, or no API key", (ConfigurationError,)),
    (3, "the API key was not accepted", (AuthenticationError,)),
    (4, "no AI credits left", (InsufficientCreditsError,)),
    (5, "the API key lacks a permission", (PermissionDeniedError,)),
    (6, "no such conversation or task", (NotFoundError,)),
    (7, "the request quota is used up", (RateLimitError,)),
    (8, "no connection, or a timeout", (APIConnectionError,)),
    (9, "the answer broke off", (StreamInterruptedError,)),
    (10, "LeadLex failed, or its answer can't be used", (ServerError, APIResponseError)),
    (1, "any other error", (LeadLexError,)),
)


def exit_code(error: Exception) -> int:
    """Return the exit code of an error."""
    return next(code for code, _, kinds in _EXITS if isinstance(error, kinds))


def exit_codes() -> str:
    """Describe the codes, a line each, for `--help`."""
    told = [(0, "all went well"), *((code, words) for code, words, _ in _EXITS)]
    told += [(STOPPED, "stopped with Ctrl-C"), (CUT_OFF, "nobody reads the output any more")]
    return "\n".join(f"  {code:>3}  {words}" for code, words in sorted(told))

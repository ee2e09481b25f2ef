"""The API key, and how a text is shown that may have it inside.

Rule: no repr, pickle, log, error or local of a traceback shows the key, nor so much of it that it could be guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ._errors import ConfigurationError, common_length, discreet, refuse

# One character as JSON, a programming language, a URL or HTML writes it, escaped once or more. Each way begins with a
# plain character and none ignores case, so that the search skips what has none of the three.
_HEX: Final = "([0-9a-fA-F]{2})"

_ESCAPED = re.compile(
    rf"\\\\*(?:[uU]00|[xX]){_HEX}|%(?:25)*{_HEX}|&(?:amp;)*#[xX]0*{_HEX};|&(?:amp;)*#0*([0-9]{{2,3}});"
    r"|&(?:amp;)*(amp|lt|gt|quot|apos);|\\\\*([!-/:-@\[-`{-~])"
)

_CHARACTER = re.compile(f"{_ESCAPED.pattern}|(.)", re.DOTALL)

_NAMED: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

_MASK: Final = "wbk_…"

_SANDBOX: Final = "wbk_sandbox_"

TELLING: Final = 8
"""Characters of an API key that are not shown together; fewer are no more than how such keys begin."""


def _meant(match: re.Match[str]) -> str:
    """Return the one character that an escaped one stands for, in lower case as names of headers are."""
    hexadecimal = match[1] or match[2] or match[3]
    if hexadecimal or match[4]:
        return chr(int(hexadecimal, 16) if hexadecimal else int(match[4])).lower()[0]
    return _NAMED.get(match[5]) or match[match.lastindex or 0].lower()[0]


class ApiKey:
    """The API key, which no repr, pickle or local of a traceback shows."""

    __slots__ = ("_telling", "_value")

    def __init__(self, value: str) -> None:
        self._value = value
        self._telling = value[:TELLING].lower()

    def __repr__(self) -> str:
        return _MASK

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An API key can't be pickled: make the client in the process that uses it.")

    @property
    def is_sandbox(self) -> bool:
        """Tell whether it is a sandbox's, which is no secret."""
        return self._value.startswith(_SANDBOX)

    @property
    def authorization(self) -> str:
        """Give the value of the header."""
        return f"Bearer {self._value}"

    def masked(self, text: str) -> str:
        """Return `text` with the key, should a server echo it, made unreadable.

        Escaped and cut forms too: whatever begins as the key does is masked as far as it goes on as the key.
        """
        # Every header of every answer comes here, and three searches take a tenth of what the one for all takes.
        escapes = "\\" in text or "%" in text or "&" in text
        if self._telling not in (_ESCAPED.sub(_meant, text) if escapes else text).lower():
            return text
        shown, meant = map(list, zip(*((match[0], _meant(match)) for match in _CHARACTER.finditer(text)), strict=True))
        plain, at = "".join(meant), 0
        while (at := plain.find(self._telling, at)) >= 0:
            end = at + common_length(plain[at : at + len(self._value)], self._value.lower())
            shown[at:end] = [_MASK, *[""] * (end - at - 1)]
            at = end
        return "".join(shown)


VISIBLE = re.compile(r"[\x21-\x7e]+")


@discreet
def key_of(given: object, environment: Mapping[str, str]) -> ApiKey:
    """Find and check the API key: the argument, else `LEADLEX_API_KEY`."""
    value = environment.get("LEADLEX_API_KEY") if given is None else given
    if value is None:
        raise ConfigurationError(
            "There is no API key. Make a workspace key (wbk_…) in LeadLex under Settings > API keys, then set "
            "LEADLEX_API_KEY or pass api_key=…; to try leadlex without one, use LeadLex.sandbox()."
        )
    if not isinstance(value, str):
        refuse("api_key", "a str", type(value).__name__)
    value = value.strip()
    if not value:
        refuse("api_key", "a workspace key (wbk_…)", "an empty one")
    if value.lower().startswith("bearer"):
        refuse("api_key", "the key alone (wbk_…)", "one with the word Bearer in front")
    if not VISIBLE.fullmatch(value):
        refuse("api_key", "printable ASCII without white space", f"{len(value)} characters, some of them not")
    return ApiKey(value)

"""The API key, and how a text is shown that may have it inside.

Rule: no repr, pickle, log, error or local of a traceback shows the key, nor so much of it that it could be guessed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
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

_UNPICKLED: Final = "An API key can't be pickled: make the client in the process that uses it."
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

    __slots__ = ("_value", "telling")

    def __init__(self, value: str) -> None:
        self._value = value
        self.telling: str = value[:TELLING].lower()

    def __repr__(self) -> str:
        return _MASK

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(_UNPICKLED)

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
        if self.telling not in _plain(text):
            return text
        shown, meant = map(list, zip(*((match[0], _meant(match)) for match in _CHARACTER.finditer(text)), strict=True))
        plain, at = "".join(meant), 0
        while (at := plain.find(self.telling, at)) >= 0:
            end = at + common_length(plain[at : at + len(self._value)], self._value.lower())
            shown[at:end] = [_MASK, *[""] * (end - at - 1)]
            at = end
        return "".join(shown)


class ApiKeys:
    """The API key of a client, or the function that gives one for each call; and a mask of all that there ever were.

    Args:
        given: The key, or the function.
    """

    def __init__(self, given: ApiKey | Callable[[], object]) -> None:
        self.fixed: ApiKey | None = given if isinstance(given, ApiKey) else None
        self._given: Any = given
        self._lock = threading.Lock()
        self._known: list[ApiKey] = []
        self._beginning = ""
        if self.fixed:
            self._remember(self.fixed)

    def __repr__(self) -> str:
        return _MASK

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(_UNPICKLED)

    @property
    def is_async(self) -> bool:
        """Tell whether the function is to be called in the loop."""
        return iscoroutinefunction(self._given) or iscoroutinefunction(type(self._given).__call__)

    def ask(self) -> list[Any]:
        """Call the function, and return what it gave in a list: trio takes no coroutine from a thread."""
        return [self._given()]

    @discreet
    def take(self, value: object) -> ApiKey:
        """Return what the function gave as an API key, which no text will show any more."""
        key = checked_key(value, "api_key()")
        self._remember(key)
        return key

    def _remember(self, key: ApiKey) -> None:
        with self._lock:
            if not any(each.authorization == key.authorization for each in self._known):
                common = common_length(self._beginning, key.telling)
                self._beginning = self._beginning[:common] if self._known else key.telling
                self._known.append(key)

    def masked(self, text: str) -> str:
        """Return `text` with every key, should a server echo one, made unreadable."""
        if self._beginning in _plain(text):
            for key in self._known:
                text = key.masked(text)
        return text


def _plain(text: str) -> str:
    """Return a text without escapes, in lower case."""
    # Every header of every answer comes here, and three searches take a tenth of what the one for all takes.
    escapes = "\\" in text or "%" in text or "&" in text
    return (_ESCAPED.sub(_meant, text) if escapes else text).lower()


VISIBLE = re.compile(r"[\x21-\x7e]+")

_KEY: Final = "a workspace key (wbk_…)"

_ALONE: Final = "the key alone (wbk_…)"

_QUOTE: Final = "[\"'`“”\u2018\u2019«»]"  # those of word processors too

# What people take for a workspace key, what would be one, and what it is; the first that fits. Never a part of it.
_MISTAKEN: Final = (
    (rf"{_QUOTE}*", _KEY, "an empty one"),
    (r"bearer.*", _ALONE, "one with the word Bearer in front"),
    (rf"{_QUOTE}.*|.*{_QUOTE}", _ALONE, "one in quotation marks, which are no part of it"),
    (r"leadlex_api_key=.*", _ALONE, "one with the name of the variable in front"),
    (r"[$%<{\[].*|(?:wbk)?_?(?:…|[x*._-]{3,})?|(?:wbk_|leadlex_)?api[-_]?key", _KEY, "a placeholder"),
    (r"(?:.*[-_])?(?:your|placeholder|change[-_]?me|replace[-_]?me)(?:[-_].*)?", _KEY, "a placeholder"),
    (r"whsec_.*", _KEY, "the secret of a webhook"),
    (r"(?:sk-|[sr]k_|pk_|gh[po]_|github_pat_|xox|aiza|akia|hf_).*", _KEY, "one that looks like another service's"),
)


@discreet
def keys_of(given: object, environment: Mapping[str, str]) -> ApiKeys:
    """Find and check the API key: the argument, which may be a function that gives it, else `LEADLEX_API_KEY`."""
    value = environment.get("LEADLEX_API_KEY") if given is None else given
    if value is None:
        raise ConfigurationError(
            "There is no API key. Make a workspace key (wbk_…) in LeadLex under Settings > API keys, then set "
            "LEADLEX_API_KEY or pass api_key=…; to try leadlex without one, use LeadLex.sandbox()."
        )
    return ApiKeys(value if callable(value) else checked_key(value, "api_key"))


@discreet
def checked_key(value: object, argument: str) -> ApiKey:
    """Check an API key."""
    if not isinstance(value, str):
        refuse(argument, "a str", type(value).__name__)
    value = value.strip()
    for mistaken, wanted, found in _MISTAKEN:
        if re.fullmatch(mistaken, value, re.IGNORECASE | re.DOTALL):
            refuse(argument, wanted, found)
    if not VISIBLE.fullmatch(value):
        refuse(argument, "printable ASCII without white space", f"{len(value)} characters, some of them not")
    return ApiKey(value)

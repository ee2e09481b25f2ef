"""Text of others as a part of a Markdown page.

Rule: content may be bold, a list, a table or code; no heading, HTML or image comes from it, since a heading would pass
for one of the page's own, and the others would load from elsewhere or run.

Source: https://spec.commonmark.org/0.31.2/ (4.2, 4.3, 4.6, 6.4 and 6.6).
"""

from __future__ import annotations

import re
from typing import Final

# Any white space counts, since parsers differ in what they take for some (Jupyter's goes by JavaScript).
_HEADING: Final = re.compile(r"(?<![^\s>])(?=#{1,6}(?:\s|$))", re.MULTILINE)
_UNDERLINE: Final = re.compile(r"^((?:[^\S\n]|>)*)(=+|-+)(?=[^\S\n]*$)", re.MULTILINE)


def harmless(text: str) -> str:
    """Take the power off headings, HTML and images; they are shown as they were written."""
    text = re.sub(r"\r\n?", "\n", text)
    return _UNDERLINE.sub(_no_underline, _HEADING.sub(r"\\", _inline(text)))


def quoted(text: str) -> str:
    """Quote a text as a block, in which all that is left open ends, a fence of code too."""
    return "\n".join(f"> {line}" if line else ">" for line in harmless(text).split("\n"))


def in_line(text: str) -> str:
    """Make a text a part of a line."""
    return _inline(" ".join(text.split()))


def _inline(text: str) -> str:
    # A backslash would be undone by one that stands before it; of an image's two signs it stands between.
    return text.replace("<", "&lt;").replace("![", "!\\[")


def _no_underline(match: re.Match[str]) -> str:
    """Keep a rule a rule, in signs that underline nothing."""
    is_rule = match[2].startswith("---")
    return match[1] + ("***" if is_rule else f"\\{match[2]}")

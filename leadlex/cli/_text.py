"""Text of others, made safe to show.

Rule: what a server says never reaches a terminal unescaped.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

# Newline and tab are text. The rest of C0 and C1 steers terminals, bidi controls and tags show a text as another
# (CVE-2021-42574), Unicode's own line ends break lines, and half a surrogate pair can't be written.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Escape what a terminal would act on; newlines and tabs stay."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Make a text one line, without what a terminal would act on."""
    return visible(" ".join(text.split()))


def local(moment: datetime | None) -> str:
    """Write a moment in the time of this machine, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def utc(moment: datetime) -> str:
    """Write a moment for programs, as a value's plain form does."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()

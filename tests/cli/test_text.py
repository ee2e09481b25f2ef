"""Text of others, made safe."""

from __future__ import annotations

import sys
import unicodedata

from leadlex.cli._text import one_line, visible


def test_every_control_character_is_escaped() -> None:
    """No control character of Unicode gets through, but newline and tab."""
    controls = [
        chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cc", "Zl", "Zp")
    ]
    assert [char for char in controls if visible(char) == char] == ["\t", "\n"]


def test_every_bidi_control_is_escaped() -> None:
    """No character whose only purpose is direction gets through."""
    kinds = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    controls = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.bidirectional(chr(code)) in kinds]
    assert len(controls) == 9
    assert not [char for char in controls if visible(char) == char]


def test_ordinary_text_stays() -> None:
    """Letters, signs, emoji of several parts, no-break spaces and soft hyphens are text."""
    text = "§\u00a05 Abs.\u00ad1: “naïve” 日本語 עברית 👩\u200d⚖️ [bold]x[/bold]\n\tend"
    assert visible(text) == text


def test_half_a_surrogate_pair_can_be_written() -> None:
    """What could not be encoded is shown by its number."""
    assert visible("a\ud800b") == "a\\ud800b"


def test_a_line_is_one_line() -> None:
    """White space becomes single spaces."""
    assert one_line(" a\n\tb\u2028c\x1b ") == "a b c\\x1b"

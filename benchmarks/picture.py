"""The figures as one picture: bars in SVG, fit for light and dark pages, without a dependency."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from benchmarks.figures import FIGURES, Figure, Measured
from benchmarks.table import number

SHOWN: Final = ("async-20", "async-1", "sync-20", "json-async", "concurrent", "import")
"""The works whose first figure is drawn."""

_WIDTH, _ACROSS = 760, 2
_PANEL: Final = _WIDTH // _ACROSS
_LEFT, _BAR, _STEP, _HEAD, _GAP = 112, 14, 20, 44, 18
_LONGEST: Final = _PANEL - _LEFT - 76

_STYLE: Final = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .unit, .value { fill: #59636e }
  .bar { fill: #c4cad1 }
  .ours { fill: #1a7f64 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .unit, .value { fill: #9198a1 }
    .bar { fill: #4a525c }
    .ours { fill: #3fb68b }
  }
"""


def _bar(column: str, value: float, most: float, y: float) -> Iterator[str]:
    width = max(1.0, _LONGEST * value / most)
    kind = "bar ours" if column.startswith("leadlex") else "bar"
    yield f'<text x="{_LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(column)}</text>'
    yield f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"/>'
    yield f'<text class="value" x="{_LEFT + width + 6:.1f}" y="{y + 11}">{number(value)}</text>'


def _panel(figure: Figure, bars: dict[str, float]) -> Iterator[str]:
    better = "more" if figure.more_is_better else "less"
    yield f'<text class="title" x="8" y="16">{escape(figure.title)}</text>'
    yield f'<text class="unit" x="8" y="32">{escape(figure.unit)}, {better} is better</text>'
    for place, (column, value) in enumerate(bars.items()):
        yield from _bar(column, value, max(bars.values()), _HEAD + place * _STEP)


def _panels(measured: Measured) -> list[tuple[Figure, dict[str, float]]]:
    first = {figure.work: figure for figure in reversed(FIGURES)}
    chosen = [first[work] for work in SHOWN if work in measured]
    found = [(figure, {c: figure.values(measured).get(c, 0.0) for c in measured[figure.work]}) for figure in chosen]
    return [(figure, bars) for figure, bars in found if any(bars.values())]


def draw(measured: Measured) -> str:
    """Draw what was measured."""
    shapes, top = list[str](), 8
    panels = _panels(measured)
    for start in range(0, len(panels), _ACROSS):
        row = panels[start : start + _ACROSS]
        for place, (figure, bars) in enumerate(row):
            shapes += [f'<g transform="translate({place * _PANEL} {top})">', *_panel(figure, bars), "</g>"]
        top += _HEAD + max(len(bars) for _, bars in row) * _STEP + _GAP
    size = f'viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    title = "<title>leadlex side by side with openai, anthropic and code by hand</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", *shapes, "</svg>", ""])

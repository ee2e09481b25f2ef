"""The figures as tables, for a terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.figures import FIGURES, Aim, Figure, Measured

COLUMNS = ("floor", "by hand", "openai", "anthropic", "leadlex", "leadlex[aiohttp]")


def number(value: float | None) -> str:
    """Write a number with three digits that count."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004  # three digits


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Set rows, of which the first is the head, as a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _measured_figures(measured: Measured) -> list[Figure]:
    return [figure for figure in FIGURES if figure.work in measured]


def figures_table(measured: Measured) -> str:
    """Set what was measured, a row a figure; columns beyond the usual ones stand in words at the end."""
    head = ["figure", "unit", *COLUMNS, "others"]
    return aligned([head, *(_figure_row(figure, measured) for figure in _measured_figures(measured))])


def _figure_row(figure: Figure, measured: Measured) -> list[str]:
    values = figure.values(measured)
    told = {column: number(values[column]) if column in values else "failed" for column in measured[figure.work]}
    others = ", ".join(f"{column} {value}" for column, value in told.items() if column not in COLUMNS)
    return [figure.title, figure.unit, *(told.get(column, "") for column in COLUMNS), others]


def verdict(figure: Figure, aim: Aim, measured: Measured) -> tuple[str, str]:
    """Say what an aim's value is today, and whether that is enough."""
    value = figure.outcome(aim, measured)
    if value is None:
        return "–", "not measured"
    unit = "×" if aim.base is not None and not aim.more else figure.unit
    return f"{number(value)} {unit}".rstrip(), "reached" if aim.is_reached(value) else "MISSED"


def aims_table(measured: Measured) -> str:
    """Set the aims beside what is reached today, a miss as a miss."""
    rows = [
        [f"{figure.title}{_whose(aim)}", aim.says(figure.unit), *verdict(figure, aim, measured)]
        for figure in _measured_figures(measured)
        for aim in figure.aims
    ]
    return aligned([["figure", "aim", "today", ""], *rows])


def _whose(aim: Aim) -> str:
    return "" if aim.column == "leadlex" else f", {aim.column}"


def verdicts(measured: Measured) -> Iterable[str]:
    """Give the verdict on every aim."""
    for figure in _measured_figures(measured):
        for aim in figure.aims:
            yield verdict(figure, aim, measured)[1]

"""All rows of the fault matrix, by name; a reason stands where a row can't run here."""

from __future__ import annotations

_TABLES = {"A": 12, "B": 10, "C": 27, "D": 23, "E": 18, "F": 26, "G": 17, "H": 10, "I": 19, "J": 12, "K": 5, "L": 25}

_ELSEWHERE: dict[str, str] = {}
"""Rows that can't run on a test machine, and why in one line."""

ROWS: dict[str, str | None] = {
    f"{table}{number:02}": _ELSEWHERE.get(f"{table}{number:02}")
    for table, count in _TABLES.items()
    for number in range(1, count + 1)
}

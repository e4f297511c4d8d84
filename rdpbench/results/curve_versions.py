"""Versions of stored curves: a file of an older one is brought up to this one while it is read.

=  ==========================================================================================
1  the first
2  ``bits_kind`` of each point, what its rate counts; ``manifest`` in the companion, which files the dataset is
=  ==========================================================================================

What an older version did not say stays empty, and `regress` does not compare it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

VERSION = 2

Columns: TypeAlias = tuple[list[str], list[list[str]]]
"""Header and lines of a CSV file, as text."""


def _with_bits_kind(columns: Columns) -> Columns:
    header, lines = columns
    if "protocol" not in header:
        return columns  # not what version 1 wrote; the reader says so
    at = header.index("protocol") + 1

    def longer(cells: list[str], cell: str) -> list[str]:
        return [*cells[:at], cell, *cells[at:]]

    return longer(header, "bits_kind"), [longer(line, "") for line in lines]


POINTS: Mapping[int, Callable[[Columns], Columns]] = {1: _with_bits_kind}
"""From version n to n + 1; a version that is not listed changed nothing."""
IMAGES: Mapping[int, Callable[[Columns], Columns]] = {}
ORIGIN: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda record: {**record, "manifest": record.get("manifest")}
}


def columns(found: Columns, version: int, steps: Mapping[int, Callable[[Columns], Columns]]) -> Columns:
    """Header and lines of a file as this version has them.

    >>> columns((["protocol", "bpp"], [["as-is", "0.5"]]), 1, POINTS)
    (['protocol', 'bits_kind', 'bpp'], [['as-is', '', '0.5']])
    """
    for step in range(version, VERSION):
        found = steps[step](found) if step in steps else found
    return found


def origin(record: dict[str, Any], version: int) -> dict[str, Any]:
    """What made a curve, as this version says it; ``version`` stays what it was.

    >>> sorted(origin({"version": 1}, 1).items())
    [('manifest', None), ('version', 1)]
    """
    for step in range(version, VERSION):
        record = ORIGIN[step](record) if step in ORIGIN else record
    return record

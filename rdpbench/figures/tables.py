"""A paper's table from measured points, published ones or both: a line for each series, rate and origin.

The best of a column is bold and the second underlined where all its numbers may be compared: of one origin, under one
metric, at one rate, none in doubt. Published numbers have the digits of their source. A star marks numbers under
another metric or on other images than the column says, a dagger doubtful ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rdpbench.figures import notes
from rdpbench.figures.data import Curve, Filled, Point, meaning
from rdpbench.figures.presets import Panel, Preset
from rdpbench.figures.style import WATERMARK
from rdpbench.results.tables import Cell, Table

APART = 1.1
"""Rates further apart than this factor are not equal rates."""


@dataclass(frozen=True)
class _Number:
    """What stands in one cell."""

    curve: Curve
    point: Point
    star: bool


Key = tuple[int, str, float]
"""Series, origin with its run, and the rate; NaN is -1."""


def table(preset: Preset, filled: Sequence[Filled]) -> Table:
    """The table; a series without any number is a line of dashes."""
    numbers = notes.references(filled)
    cells = _cells(filled)
    columns = [[line[n] for line in cells.values()] for n in range(len(filled))]
    ranks = [_ranks(column) for column in columns]
    places = [_places(there) if (there := [one for one in column if one]) else 0 for column in columns]
    lines = []
    for index, series in enumerate(preset.series):
        mine = [key for key in cells if key[0] == index]
        for key in mine:
            first = next(one for one in cells[key] if one is not None)
            row = [Cell(series.label), Cell(_origin(first.curve, numbers)), Cell(_rate(first.point))]
            row += [_cell(one, places[n], ranks[n].get(key, 0)) for n, one in enumerate(cells[key])]
            lines.append(tuple(row))
        if not mine:
            lines.append((Cell(series.label), *(Cell("–") for _ in range(2 + len(filled)))))
    header = ("", "from", "bpp", *(_heading(one.panel) for one in filled))
    return Table(f"{preset.title}, {_sets(filled)}", header, tuple(lines), tuple(_notes(preset, filled, cells)))


def _cells(filled: Sequence[Filled]) -> dict[Key, list[_Number | None]]:
    """Numbers by line, in the order of the series, measured ones first, by rising rate."""
    found: dict[Key, list[_Number | None]] = {}
    for column, one in enumerate(filled):
        for curve in one.curves:
            for point in curve.points:
                rate = -1.0 if math.isnan(point.bpp) else round(point.bpp, 6)
                key = (curve.series, ("" if curve.measured else "published ") + curve.origin, rate)
                line = found.setdefault(key, [None] * len(filled))
                line[column] = _Number(curve, point, notes.stands_in(one.panel, curve))
    return dict(sorted(found.items()))


def _ranks(column: Sequence[_Number | None]) -> dict[Key, int]:
    """Best and second, if all numbers are of one origin and metric, and at rates that are not far apart."""
    there = [one for one in column if one is not None]
    alike = {(one.curve.measured, one.curve.origin, one.curve.metric, one.curve.dataset) for one in there}
    rates = [one.point.bpp for one in there if math.isfinite(one.point.bpp)]
    of = {one.curve.random for one in there}
    if len(there) < 2 or len(alike) != 1 or of != {False} or (rates and max(rates) > APART * min(rates)):
        return {}
    if len(rates) not in (0, len(there)) or any(one.point.doubts for one in there):
        return {}
    better = meaning(there[0].curve.metric).higher_is_better
    shown = [round(one.point.y, _places(there)) for one in there]
    if len(set(shown)) == 1:
        return {}
    order = sorted(set(shown), reverse=bool(better))[:2]
    keys = [_key(one) for one in there]
    return {key: order.index(value) + 1 for key, value in zip(keys, shown, strict=True) if value in order}


def _key(one: _Number) -> Key:
    rate = -1.0 if math.isnan(one.point.bpp) else round(one.point.bpp, 6)
    return one.curve.series, ("" if one.curve.measured else "published ") + one.curve.origin, rate


def _places(column: Sequence[_Number]) -> int:
    """Digits after the point: what the metric is printed with, or as many as the sources of a column give."""
    own = 2 if meaning(column[0].curve.metric).unit in ("dB", "ms") else 4
    if any(one.curve.measured for one in column):
        return own
    texts = [f"{one.point.y:.{own}f}".rstrip("0").partition(".")[2] for one in column]
    return max(len(text) for text in texts)


def _cell(one: _Number | None, places: int, rank: int) -> Cell:
    if one is None:
        return Cell("–")
    half = (one.point.high - one.point.low) / 2
    wide = f" ±{half:.{places}f}" if math.isfinite(half) else ""
    marks = ("*" if one.star else "") + ("†" if one.point.doubts else "")
    return Cell(f"{one.point.y:.{places}f}{marks}{wide}", rank)


def _origin(curve: Curve, numbers: dict[str, int]) -> str:
    if curve.measured:
        return f"run {curve.origin}" + (" (random)" if curve.random else "")
    return f"[{numbers[curve.origin]}] published"


def _rate(point: Point) -> str:
    return "–" if math.isnan(point.bpp) else f"{point.bpp:.4f}"


def _heading(panel: Panel) -> str:
    of = meaning(panel.metric)
    arrow = "" if of.higher_is_better is None else "↑" if of.higher_is_better else "↓"
    unit = "" if panel.metric.endswith(f"-{of.unit}") else of.unit
    return " ".join(part for part in (panel.metric, unit, arrow) if part)


def _sets(filled: Sequence[Filled]) -> str:
    return ", ".join(dict.fromkeys(f"{one.panel.dataset} ({one.panel.protocol})" for one in filled))


def _notes(preset: Preset, filled: Sequence[Filled], cells: dict[Key, list[_Number | None]]) -> list[str]:
    there = [one for line in cells.values() for one in line if one is not None]
    lines = [*preset.notes, *(line.rstrip(".") for line in notes.short(preset, filled) if not line.startswith("Pub"))]
    lines = [line.replace("Filled: measured here. Hollow: published,", "Published:") for line in lines]
    lines = [line.replace("Hollow: published,", "Published:") for line in lines]
    doubts = dict.fromkeys(why for one in there for why in one.point.doubts)
    lines += [f"† doubtful: {'; '.join(doubts)}"] if doubts else []
    if any(one.curve.random for one in there) and WATERMARK not in lines:
        lines.append(WATERMARK)
    return [f"{line}." if not line.endswith(".") else line for line in lines]

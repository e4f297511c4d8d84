"""The text of figures: a caption, the page beside a figure, and a paper's table.

A caption says who measured what, how rates were counted, what stands in for what, and what is missing: a text file
beside the figure has it (`rdpbench.figures.style.write`), and with ``notes=true`` the figure itself. `page` is the
Markdown file beside the figure, with every curve and its source.

`paper_table` has a line for each series, rate and origin. The best of a column is bold and the second underlined where
all its numbers may be compared: of one origin, under one metric, at one rate, none in doubt. Published numbers have the
digits of their source. A star marks numbers under another metric or on other images than the column says, a dagger
doubtful ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rdpbench.figures.data import PAPERS, DrawnCurve, DrawnPoint, FigurePreset, Filled, Panel, base_name
from rdpbench.figures.style import WATERMARK
from rdpbench.paths import available
from rdpbench.results.names import Names, meaning
from rdpbench.results.published import BITS, folder, read_sources
from rdpbench.results.tables import Cell, Table, best_two
from rdpbench.setting import USUAL, Presentation


def curves_of(filled: Iterable[Filled]) -> list[DrawnCurve]:
    """All curves, series by series, measured ones first."""
    curves = [curve for panel in filled for curve in panel.curves]
    return sorted(curves, key=lambda c: (c.series, not c.measured, c.origin, c.variant, c.bits_kind))


def references(filled: Iterable[Filled]) -> dict[str, int]:
    """A number for each published source that is drawn, from 1."""
    ids = dict.fromkeys(curve.origin for curve in curves_of(filled) if not curve.measured)
    return {origin: number for number, origin in enumerate(ids, start=1)}


def _substitutes(panel: Panel, curve: DrawnCurve, names: Names) -> list[str]:
    """Which metric and dataset of a curve stand in for the panel's own."""
    own = {panel.metric} if panel.at_bpp is None else {panel.x, panel.y}
    theirs = curve.metric.split(" and ")
    words = " and ".join(map(names.metric, theirs)), " over ".join(map(names.metric, sorted(own)))
    metrics = [" for ".join(words)] if not set(theirs) <= own else []
    sets = f"{names.dataset(curve.dataset)} for {names.dataset(panel.dataset)}"
    return metrics + ([sets] if curve.dataset != panel.dataset else [])


def stands_in(panel: Panel, curve: DrawnCurve) -> bool:
    """Is a curve of another metric or dataset than the panel's?"""
    return bool(_substitutes(panel, curve, Names()))


def short(
    preset: FigurePreset, filled: Sequence[Filled], show: Presentation = USUAL, *, drawn: bool = True
) -> list[str]:
    """The caption's lines: only what a reader must know to read a figure that is ``drawn``, or a table, right."""
    curves, numbers, names = curves_of(filled), references(filled), Names(show.labels)
    lines = [f"{WATERMARK}."] if any(curve.random for curve in curves) else []
    if numbers:
        own = "Filled: measured here. " if any(curve.measured for curve in curves) else ""
        where = _where()
        listed = "; ".join(f"[{number}]\N{NO-BREAK SPACE}{where.get(key, key)}" for key, number in numbers.items())
        lines.append(f"{own}Hollow: published, {listed}.")
    lines += _counts(curves, numbers)
    substitutes = dict.fromkeys(
        text for each in filled for curve in each.curves for text in _substitutes(each.panel, curve, names)
    )
    lines += [f"* Not the panel's own: {'; '.join(substitutes)}."] if substitutes else []
    doubts = dict.fromkeys(why for curve in curves for point in curve.points for why in point.doubts)
    lines += [f"Crosses, doubtful: {'; '.join(doubts)}."] if doubts and drawn else []
    if any(point.partial for curve in curves for point in curve.points):
        lines.append("Half filled: measured on fewer images than the dataset has.")
    if any(point.low < point.high for curve in curves for point in curve.points) and drawn:
        lines.append("Bands: 95 % intervals over images.")
    protocols = dict.fromkeys(each.panel for each in filled if each.panel.protocol not in ("as-is", ""))
    said = dict.fromkeys(f"{names.dataset(panel.dataset)}: {panel.protocol}" for panel in protocols)
    lines += [f"Protocols: {'; '.join(said)}."] if said and drawn else []
    empty = _empty(preset, filled, names)
    lines += [f"No data: {empty}."] if empty else []
    others = {(curve.label, curve.origin, curve.bits_kind) for panel in filled for curve in panel.others}
    if others:
        lines.append(f"Published, too, and not drawn: {len(others)} more curves ({preset.name}.md lists them).")
    return lines


def page(
    preset: FigurePreset,
    filled: Sequence[Filled],
    lines: Sequence[str] = (),
    drawn: bool = False,
    show: Presentation = USUAL,
    *,
    style: str,
    command: str,
) -> str:
    """The Markdown file beside the figure: its caption, every curve with its source, and what to run.

    ``lines`` are said first; of a figure that is ``drawn`` whole there is nothing left to run.
    """
    numbers = references(filled)
    hidden = dict.fromkeys(curve.origin for panel in filled for curve in panel.others if curve.origin not in numbers)
    known = numbers | {origin: len(numbers) + nth for nth, origin in enumerate(hidden, start=1)}
    of_curves = preset.kind in ("curves", "scatter")
    paper = f"{PAPERS[preset.paper]}, {preset.figure}: " if preset.paper else ""
    notes = [*preset.notes, *lines, *(short(preset, filled, show) if of_curves else ())]
    text = [f"# {paper}{preset.title}", "", *(f"- {note}" for note in notes), ""]
    for each in filled if of_curves else ():
        text += [f"## {heading(each.panel)}", ""]
        if each.curves or each.others:
            rule = "| --- | ---: | --- | --- | --- | --- |"
            text += ["| curve | points | rate counts | metric | marks | source |", rule]
            listed = [*((curve, True) for curve in each.curves), *((curve, False) for curve in each.others)]
            listed.sort(key=lambda pair: (pair[0].series, not pair[1]))
            text += [_row(each.panel, curve, known, drawn=shown) for curve, shown in listed]
        else:
            text.append("not measured" if each.panel.settings else "No published data, not measured.")
        if each.empty and each.curves:
            text += ["", f"No data: {', '.join(each.empty)}."]
        text.append("")
    text += [*([] if drawn else to_run(preset, filled)), f"Drawn by `{command}`, style {style}.", ""]
    return "\n".join(text)


def heading(panel: Panel) -> str:
    """A panel in words.

    >>> from rdpbench.figures.data import Panel
    >>> heading(Panel("kodak", "as-is", "bpp", "psnr")), len(heading(Panel("a", "as-is")))
    ('psnr over bpp, kodak', 9)
    """
    where = panel.dataset if panel.protocol in ("as-is", "") else f"{panel.dataset} ({panel.protocol})"
    over = ", ".join(panel.settings) or panel.x
    rate = f" at {panel.at_bpp:g} bpp" if panel.at_bpp is not None else ""
    return f"{panel.metric or 'images'}{f' over {over}' if panel.metric and over else ''}{rate}, {where}"


def name(curve: DrawnCurve, numbers: dict[str, int], *, runs: bool = False) -> str:
    """A curve in a legend: its label, and where it comes from if that is not one run alone."""
    if not curve.measured:
        return f"{curve.label} [{numbers[curve.origin]}]"
    origin = [*(["random"] if curve.random else []), *([curve.origin] if runs else ["measured"] if numbers else [])]
    return f"{curve.label} ({', '.join(origin)})" if origin else curve.label


def to_run(preset: FigurePreset, filled: Sequence[Filled]) -> list[str]:
    """The command that would measure what is not measured; codecs that are not built are named."""
    there = {(panel.panel.dataset, curve.series) for panel in filled for curve in panel.curves if curve.measured}
    codecs, sets = set(available("codec")), dict.fromkeys(panel.dataset for panel in preset.panels)
    left: dict[str, None] = {}
    unknown = set()
    for number, series in enumerate(preset.series):
        if not codecs & {base_name(label) for label in series.labels}:
            unknown.add(series.codec)
        elif any((dataset, number) not in there for dataset in sets):
            left[series.codec] = None
    lines = []
    if left:
        asked = f"experiment={preset.name}" if preset.paper else f"codec={','.join(left)} data={','.join(sets)}"
        lines = ["To measure what is missing:", "", f"    rdpbench run {asked}"]
        lines += [f"    rdpbench figure {preset.name} --run {preset.name if preset.paper else 'RUN'}", ""]
    if unknown and preset.paper:  # those of a run are somebody's own
        lines += [f"Codecs that rdpbench does not have: {', '.join(sorted(unknown))}.", ""]
    return lines


def _row(panel: Panel, curve: DrawnCurve, numbers: dict[str, int], *, drawn: bool) -> str:
    counts = {
        "doubtful": sum(bool(point.doubts) for point in curve.points),
        "digitised": sum(point.digitised for point in curve.points),
        "partial": sum(point.partial for point in curve.points),
    }
    marks = ", ".join([*([] if drawn else ["not drawn"]), *(f"{n} {what}" for what, n in counts.items() if n)])
    doubts = "; ".join(dict.fromkeys(why for point in curve.points for why in point.doubts))
    metric = f"{curve.metric} (not the panel's)" if stands_in(panel, curve) else curve.metric
    metric += f", {curve.dataset}" if curve.dataset != panel.dataset else ""
    marks += f": {doubts}" if doubts else ""
    cells = (name(curve, numbers), str(len(curve.points)), curve.bits_kind, metric, marks, curve.source)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _counts(curves: Sequence[DrawnCurve], numbers: dict[str, int]) -> list[str]:
    """What the rates count, where it is not the same for all curves."""
    kinds: dict[str, dict[str, None]] = {}
    for curve in curves:  # by the names of the legend
        kinds.setdefault(curve.bits_kind, {})[name(curve, numbers).replace(" (measured)", "")] = None
    if len(kinds) < 2:
        return [f"All rates are '{kind}': {BITS.get(kind, kind)}." for kind in kinds if kind not in ("file", "")]
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    order = sorted(kinds, key=lambda kind: list(BITS).index(kind) if kind in BITS else -1)
    listed = "; ".join(f"{kind}: {', '.join(kinds[kind])}" for kind in order if kind != most)
    others = "the others" if len(kinds[most]) > 1 else next(iter(kinds[most]))
    return [f"Rates count different things, which matters most below 0.05 bpp ({listed}; {others}: {most})."]


def _empty(preset: FigurePreset, filled: Sequence[Filled], names: Names) -> str:
    """Series that no panel has, then those that some lack."""
    everywhere = [s.label for s in preset.series if all(s.label in panel.empty for panel in filled)]
    if len(everywhere) == len(preset.series):
        return "for any series"
    gaps: dict[str, list[str]] = {}
    for each in filled:
        some = ", ".join(label for label in each.empty if label not in everywhere) if each.curves else ""
        if some or not each.curves:
            place = f"{names.metric(each.panel.metric)} on {names.dataset(each.panel.dataset)}"
            gaps.setdefault(some, []).append(place)
    first = ("; " if any("," in label for label in everywhere) else ", ").join(everywhere)
    parts = [f"{labels}{' for ' if labels else ''}{', '.join(where)}" for labels, where in gaps.items()]
    return "; ".join(filter(None, [first, *parts]))


def _where() -> dict[str, str]:
    """Each source's place, without the commit."""
    path = folder() / "sources.csv"
    return {s.id: s.where.partition("@")[0] for s in read_sources(path).values()} if path.is_file() else {}


# Tables

APART = 1.1
"""Rates further apart than this factor are not equal rates."""


@dataclass(frozen=True)
class _Number:
    """What stands in one cell."""

    curve: DrawnCurve
    point: DrawnPoint
    star: bool


LineKey = tuple[int, str, float]
"""Series, origin with its run, and the rate; NaN is -1."""
Column = dict[LineKey, _Number]


def paper_table(preset: FigurePreset, filled: Sequence[Filled], show: Presentation = USUAL) -> Table:
    """The table; a series without any number is a line of dashes."""
    numbers = references(filled)
    columns: list[Column] = []
    firsts: dict[LineKey, _Number] = {}
    for each in filled:
        column: Column = {}
        for curve in each.curves:
            for point in curve.points:
                rate = -1.0 if math.isnan(point.bpp) else round(point.bpp, 6)
                line = curve.series, ("" if curve.measured else "published ") + curve.origin, rate
                column[line] = _Number(curve, point, stands_in(each.panel, curve))
        columns.append(dict(sorted(column.items())))
        firsts = column | firsts
    places, ranks = [_places([*column.values()]) for column in columns], [_ranks(column) for column in columns]
    lines = []
    for index, series in enumerate(preset.series):
        own = sorted(line for line in firsts if line[0] == index)  # measured ones first, by rising rate
        for line in own:
            curve, point = firsts[line].curve, firsts[line].point
            origin = f"[{numbers.get(curve.origin)}] published"
            if curve.measured:
                origin = f"run {curve.origin}" + (" (random)" if curve.random else "")
            row = [series.label, origin, "–" if math.isnan(point.bpp) else f"{point.bpp:.4f}"]
            cells = (_cell(c.get(line), places[n], ranks[n].get(line, 0)) for n, c in enumerate(columns))
            lines.append((*map(Cell, row), *cells))
        if not own:
            lines.append((Cell(series.label), *(Cell("–") for _ in range(2 + len(filled)))))
    names = Names(show.labels)
    header = ("", "from", "bpp", *(names.axis(each.panel.metric) for each in filled))
    sets = ", ".join(dict.fromkeys(f"{names.dataset(e.panel.dataset)} ({e.panel.protocol})" for e in filled))
    there = [number for line in sorted(firsts) for column in columns if (number := column.get(line))]
    return Table(f"{preset.title}, {sets}", header, tuple(lines), tuple(_notes(preset, filled, there, show)))


def _ranks(column: Column) -> dict[LineKey, int]:
    """Best and second, if all numbers are of one origin and metric, and at rates that are not far apart."""
    there = list(column.values())
    alike = {(n.curve.measured, n.curve.origin, n.curve.metric, n.curve.dataset) for n in there}
    rates = [n.point.bpp for n in there if math.isfinite(n.point.bpp)]
    if len(alike) != 1 or any(n.curve.random or n.point.doubts for n in there):
        return {}
    if len(rates) not in (0, len(there)) or (rates and max(rates) > APART * min(rates)):
        return {}
    shown = {line: round(number.point.y, _places(there)) for line, number in column.items()}
    better = bool(meaning(there[0].curve.metric).higher_is_better)
    return best_two(shown, better) if len(set(shown.values())) > 1 else {}


def _places(column: Sequence[_Number]) -> int:
    """Digits after the point: what the metric is printed with, or as many as the sources of a column give."""
    if not column:
        return 0
    own = 2 if meaning(column[0].curve.metric).unit in ("dB", "ms") else 4
    if any(number.curve.measured for number in column):
        return own
    return max(len(f"{number.point.y:.{own}f}".rstrip("0").partition(".")[2]) for number in column)


def _cell(number: _Number | None, places: int, rank: int) -> Cell:
    if number is None:
        return Cell("–")
    half = (number.point.high - number.point.low) / 2
    wide = f" ±{half:.{places}f}" if math.isfinite(half) else ""
    marks = ("*" if number.star else "") + ("†" if number.point.doubts else "")
    return Cell(f"{number.point.y:.{places}f}{marks}{wide}", rank)


def _notes(preset: FigurePreset, filled: Sequence[Filled], there: Sequence[_Number], show: Presentation) -> list[str]:
    below = [line.rstrip(".") for line in short(preset, filled, show, drawn=False) if not line.startswith("Pub")]
    below = [line.replace("Filled: measured here. ", "").replace("Hollow: published,", "Published:") for line in below]
    doubts = dict.fromkeys(why for number in there for why in number.point.doubts)
    below += [f"† doubtful: {'; '.join(doubts)}"] if doubts else []
    return [f"{line}." if not line.endswith(".") else line for line in (*preset.notes, *below)]

"""What must be said of a figure: who measured what, how rates were counted, what stands in for what, what is missing.

`short` goes below the panels, `page` into the Markdown file beside the figure, with every curve and its source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rdpbench.figures.data import Curve, Filled, base_name
from rdpbench.figures.presets import PAPERS, Preset
from rdpbench.figures.style import WATERMARK
from rdpbench.paths import conf_folder
from rdpbench.results.published import BITS, read_sources

if TYPE_CHECKING:
    from rdpbench.figures.presets import Panel


def curves_of(filled: Iterable[Filled]) -> list[Curve]:
    """All curves, series by series, measured ones first."""
    found = [curve for one in filled for curve in one.curves]
    return sorted(found, key=lambda one: (one.series, not one.measured, one.origin, one.variant, one.bits_kind))


def references(filled: Iterable[Filled]) -> dict[str, int]:
    """A number for each published source that is drawn, from 1."""
    ids = dict.fromkeys(curve.origin for curve in curves_of(filled) if not curve.measured)
    return {origin: number for number, origin in enumerate(ids, start=1)}


def stands_in(panel: Panel, curve: Curve) -> bool:
    """Is a curve of another metric or dataset than the panel's?"""
    names = {panel.metric} if panel.at_bpp is None else {panel.x, panel.y}
    return not set(curve.metric.split(" and ")) <= names or curve.dataset != panel.dataset


def short(preset: Preset, filled: Sequence[Filled]) -> list[str]:
    """Lines for below the figure: only what a reader must know to read it right."""
    curves = curves_of(filled)
    lines = []
    if any(curve.random for curve in curves):
        lines.append(f"{WATERMARK}.")
    numbers = references(filled)
    own = any(curve.measured for curve in curves)
    if numbers:
        where = _where()
        listed = "; ".join(f"[{number}]\N{NO-BREAK SPACE}{where.get(one, one)}" for one, number in numbers.items())
        lines.append(f"{'Filled: measured here. ' if own else ''}Hollow: published, {listed}.")
    lines += _counts(curves, numbers)
    substitutes = _substitutes(filled)
    if substitutes:
        lines.append(f"* Not the panel's own: {'; '.join(substitutes)}.")
    empty = _empty(preset, filled)
    if empty:
        lines.append(f"No data: {empty}.")
    others = {name for one in filled for name in _names(one.others)}
    if others:
        lines.append(f"Published, too, and not drawn: {len(others)} more curves ({preset.name}.md lists them).")
    return lines


def _names(curves: Iterable[Curve]) -> list[tuple[str, str, str]]:
    return [(curve.label, curve.origin, curve.bits_kind) for curve in curves]


def page(
    preset: Preset,
    filled: Sequence[Filled],
    *,
    style: str,
    command: str,
    lines: Sequence[str] = (),
    drawn: bool = False,
) -> str:
    """The Markdown file beside the figure: the lines below it, every curve with its source, and what to run.

    ``lines`` are said first; of a figure that is ``drawn`` whole there is nothing left to run.
    """
    more = lines
    numbers = references(filled)
    hidden = dict.fromkeys(curve.origin for one in filled for curve in one.others if curve.origin not in numbers)
    known = numbers | {origin: len(numbers) + nth for nth, origin in enumerate(hidden, start=1)}
    curves = preset.kind in ("curves", "scatter")
    said = short(preset, filled) if curves else []
    lines = [f"# {_title(preset)}", "", *(f"- {one}" for one in [*preset.notes, *more, *said]), ""]
    for one in filled if curves else ():
        lines += [f"## {heading(one.panel)}", ""]
        if one.curves or one.others:
            lines += [
                "| curve | points | rate counts | metric | marks | source |",
                "| --- | ---: | --- | --- | --- | --- |",
            ]
            listed = [(curve, True) for curve in one.curves] + [(curve, False) for curve in one.others]
            listed.sort(key=lambda item: (item[0].series, not item[1]))
            lines += [_row(one.panel, curve, known, drawn=drawn) for curve, drawn in listed]
        else:
            lines.append(nothing(one.panel, None))
        if one.empty and one.curves:
            lines += ["", f"No data: {', '.join(one.empty)}."]
        lines.append("")
    lines += [*([] if drawn else to_run(preset, filled)), f"Drawn by `{command}`, style {style}.", ""]
    return "\n".join(lines)


def nothing(panel: Panel, sides: tuple[bool, bool] | None) -> str:
    """What an empty panel says; ``sides`` are whether measured and published points were asked for."""
    if panel.settings:
        return "not measured"
    return {(True, False): "not measured", (False, True): "no published data"}.get(
        sides or (True, True), "no published data,\nnot measured" if sides else "No published data, not measured."
    )


def heading(panel: Panel) -> str:
    """A panel in words.

    >>> from rdpbench.figures.presets import Panel
    >>> heading(Panel("kodak", "as-is", "bpp", "psnr")), len(heading(Panel("a", "as-is")))
    ('psnr over bpp, kodak', 9)
    """
    where = panel.dataset if panel.protocol in ("as-is", "") else f"{panel.dataset} ({panel.protocol})"
    if not panel.metric:
        return f"images, {where}" if panel.protocol not in ("as-is", "") else f"images, {panel.dataset}"
    over = ", ".join(panel.settings) or panel.x
    at = f" at {panel.at_bpp:g} bpp" if panel.at_bpp is not None else ""
    return f"{panel.metric}{f' over {over}' if over else ''}{at}, {where}"


def name(curve: Curve, numbers: dict[str, int], *, runs: bool = False) -> str:
    """A curve in a legend: its label and where it comes from."""
    if curve.measured:
        return f"{curve.label} ({'random, ' if curve.random else ''}{curve.origin if runs else 'measured'})"
    return f"{curve.label} [{numbers[curve.origin]}]"


def to_run(preset: Preset, filled: Sequence[Filled]) -> list[str]:
    """The command that would measure what is not measured; codecs that are not built are named."""
    there = {(one.panel.dataset, curve.series) for one in filled for curve in one.curves if curve.measured}
    codecs = {path.stem for path in (conf_folder() / "codec").glob("*.yaml")}
    known = [number for number, one in enumerate(preset.series) if codecs & {base_name(label) for label in one.labels}]
    missing = {one.codec for number, one in enumerate(preset.series) if number not in known}
    sets = dict.fromkeys(panel.dataset for panel in preset.panels)
    out: list[str] = []
    left = [number for number in known if any((dataset, number) not in there for dataset in sets)]
    if left:
        names, run = dict.fromkeys(preset.series[number].codec for number in left), preset.name
        what = f"experiment={preset.name}"
        if not preset.paper:
            what, run = f"codec={','.join(names)} data={','.join(sets)}", "RUN"
        out = ["To measure what is missing:", "", f"    rdpbench run {what}"]
        out += [f"    rdpbench figure {preset.name} --run {run}", ""]
    if missing:
        out += [f"Codecs that rdpbench does not have: {', '.join(sorted(missing))}.", ""]
    return out


def _title(preset: Preset) -> str:
    paper = f"{PAPERS[preset.paper]}, {preset.figure}: " if preset.paper else ""
    return f"{paper}{preset.title}"


def _row(panel: Panel, curve: Curve, numbers: dict[str, int], *, drawn: bool) -> str:
    marks = [] if drawn else ["not drawn"]
    marks += [f"{count} {what}" for what, count in _marked(curve).items() if count]
    doubts = "; ".join(dict.fromkeys(why for point in curve.points for why in point.doubts))
    marked = ", ".join(marks) + (f": {doubts}" if doubts else "")
    metric = f"{curve.metric} (not the panel's)" if stands_in(panel, curve) else curve.metric
    metric += f", {curve.dataset}" if curve.dataset != panel.dataset else ""
    cells = (name(curve, numbers), str(len(curve.points)), curve.bits_kind, metric, marked, curve.source)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _marked(curve: Curve) -> dict[str, int]:
    points = curve.points
    return {
        "doubtful": sum(bool(point.doubts) for point in points),
        "digitised": sum(point.digitised for point in points),
        "partial": sum(point.partial for point in points),
    }


def _counts(curves: Sequence[Curve], numbers: dict[str, int]) -> list[str]:
    """What the rates count, where it is not the same for all curves."""
    kinds: dict[str, dict[str, None]] = {}
    for curve in curves:  # by the names of the legend
        who = name(curve, numbers).replace(" (measured)", "")
        kinds.setdefault(curve.bits_kind, {})[who] = None
    if len(kinds) < 2:
        kind = next(iter(kinds), "file")
        return [] if kind == "file" else [f"All rates are '{kind}': {BITS.get(kind, kind)}."]
    most = max(kinds, key=lambda kind: len(kinds[kind]))
    order = sorted(kinds, key=lambda kind: list(BITS).index(kind) if kind in BITS else -1)
    listed = "; ".join(f"{kind}: {', '.join(kinds[kind])}" for kind in order if kind != most)
    others = "; the others" if len(kinds[most]) > 1 else f"; {next(iter(kinds[most]))}"
    return [f"Rates count different things, which matters most below 0.05 bpp ({listed}{others}: {most})."]


def _substitutes(filled: Sequence[Filled]) -> list[str]:
    """Which metrics and datasets stand in, and for what."""
    found: dict[str, None] = {}
    for one in filled:
        for curve in one.curves:
            if stands_in(one.panel, curve):
                names = {one.panel.metric} if one.panel.at_bpp is None else {one.panel.x, one.panel.y}
                if not set(curve.metric.split(" and ")) <= names:
                    found[f"{curve.metric} for {' over '.join(sorted(names))}"] = None
                if curve.dataset != one.panel.dataset:
                    found[f"{curve.dataset} for {one.panel.dataset}"] = None
    return list(found)


def _empty(preset: Preset, filled: Sequence[Filled]) -> str:
    """Series that no panel has, then those that some lack."""
    everywhere = [series.label for series in preset.series if all(series.label in one.empty for one in filled)]
    if len(everywhere) == len(preset.series):
        return "for any series"
    parts = ["; ".join(everywhere) if any("," in label for label in everywhere) else ", ".join(everywhere)]
    parts = parts if everywhere else []
    gaps: dict[tuple[str, ...], list[str]] = {}
    for one in filled:  # a panel without any says so itself
        some = tuple(label for label in one.empty if label not in everywhere)
        if some and one.curves:
            gaps.setdefault(some, []).append(f"{one.panel.metric} on {one.panel.dataset}")
    parts += [f"{', '.join(labels)} for {', '.join(panels)}" for labels, panels in gaps.items()]
    return "; ".join(parts)


def _where() -> dict[str, str]:
    """Each source's place, without the commit."""
    from rdpbench.results.published import folder

    path = folder() / "sources.csv"
    return {one.id: one.where.partition("@")[0] for one in read_sources(path).values()} if path.is_file() else {}

"""Draw curves: of a run (`draw_all`), and of a paper's figure from measured points, published ones or both.

PNG, PDF and SVG, and the caption as a text file; the same numbers give the same bytes. A curve's colour and marker are
its codec's (`rdpbench.results.names.signs`). Measured points are filled and published ones hollow; half filled is
measured on fewer images than the dataset has. The line's pattern says what the rate counts, a cross marks doubtful
points and a dot those that were read off a plot; bands are 95 % intervals, and what only bounds others is a level line.

The axis of rates is the same in all panels: logarithmic where rates span more than a factor of ten. MS-SSIM is in
decibels where it saturates. Sizes are measured before anything is placed, so that no text lies over another whatever
the names are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.errors import UnknownName
from rdpbench.figures import notes
from rdpbench.figures.data import FILES, DrawnCurve, DrawnPoint, FigurePreset, Filled, Panel, Series, drawn_point
from rdpbench.figures.style import (
    MARKERS,
    PALETTE,
    STYLES,
    PaperStyle,
    few_ticks,
    is_bound,
    new_figure,
    plain,
    rate_axis,
    safe,
    watermark,
    write,
)
from rdpbench.lazy import pd
from rdpbench.results.names import Names, Sign, family, meaning, signs
from rdpbench.results.stats.bd import bd_rate
from rdpbench.results.tables import untrained
from rdpbench.setting import USUAL, Presentation, thin

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_all(
    frame: pd.DataFrame, folder: Path, title: str = "", said: Iterable[str] = (), show: Presentation = USUAL
) -> list[Path]:
    """Draw one figure per metric and one with all of them; returns the paths, overview first.

    Args:
        frame: points of one place; of each metric over the same images (`rdpbench.results.stats.summary.compared`).
        folder: where to.
        title: what the place is called; the dataset's name, if not given.
        said: what is not drawn, or over which images the rest is; in the caption.
        show: labels, order, panels and so on.
    """
    said, names = list(said), Names(show.labels)
    usable = frame[np.isfinite(frame["bpp"]) & np.isfinite(frame["value"]) & (frame["metric"] != "")]
    measured = list(dict.fromkeys(usable["metric"]))
    there = [name for name in show.shown if name in measured] if show.panels else measured
    codecs = show.ordered(dict.fromkeys(usable["codec"]))
    show = replace(show, anchor=show.anchor if show.anchor in codecs else "")
    dataset = ", ".join(dict.fromkeys(usable["dataset"]))
    written: list[Path] = []
    for name, shown in [("curves", there), *((f"rate-{safe(metric)}", [metric]) for metric in there)]:
        if not shown:
            continue
        panels = tuple(Panel(title or dataset, "as-is", "bpp", metric) for metric in shown)
        series = tuple(Series(codec, names.codec(codec)) for codec in codecs)
        preset = FigurePreset(name, "", "", names.sentence(title or dataset), "curves", (), panels, series)
        filled = [Filled(panel, _of_run(usable[usable["metric"] == panel.metric], series), ()) for panel in panels]
        lines = [names.sentence(note) for note in said if note.partition(":")[0] in shown]
        sized = replace(show, size=show.size or ("column" if len(shown) == 1 else "page"))
        written += draw(preset, filled, folder / name, STYLES["default"], lines=lines, show=sized)
    return written


def _of_run(lines: pd.DataFrame, series: Sequence[Series]) -> tuple[DrawnCurve, ...]:
    """The curves of a run under one metric."""
    curves = []
    for number, each in enumerate(series):
        own = lines[lines["codec"] == each.codec].sort_values("bpp", kind="stable")
        points = tuple(drawn_point(record["bpp"], record) for record in own.to_dict("records"))
        if points:
            what = str(own["dataset"].iloc[0]), str(own["metric"].iloc[0]), "", "", "", ""
            curves.append(DrawnCurve(number, each.label, True, *what, points, bool(untrained(own).any())))
    return tuple(curves)


LINES: dict[str, Any] = {
    "file": "-",
    "payload": (0, (5, 1.5)),
    "object": (0, (6, 1.5, 1, 1.5)),
    "estimated": (0, (3, 1, 1, 1, 1, 1)),
    "nominal": (0, (1, 3)),
    "unstated": (0, (1, 1.3)),
}
"""The pattern of a line by what its rate counts."""
MARKS: dict[str, dict[str, Any]] = {
    "doubtful": {"color": "black", "marker": "x", "linestyle": "none", "markersize": 3.2},
    "read off a plot": {"color": "black", "marker": ".", "linestyle": "none", "markersize": 2.5},
}
CROWDED = 12
"""Markers of a curve; of one with more points every other, third, ... is drawn."""
TALLEST = 2.6
"""Inches of a panel, however wide it is."""
MARGIN = 0.06
"""Inches between the parts of a figure."""


def compose(
    preset: FigurePreset,
    filled: Sequence[Filled],
    style: PaperStyle,
    *,
    lines: Sequence[str] = (),
    show: Presentation = USUAL,
) -> Figure:
    """A preset of kind ``curves`` or ``scatter``; call it inside `rdpbench.figures.style.drawing`, or `draw`.

    Panels without any point are left out; the caption names them.

    Args:
        preset: the figure.
        filled: its panels with their curves (`rdpbench.figures.data.fill`).
        style: fonts and widths.
        lines: said in the caption before all else.
        show: size, labels, the anchor of BD-rates, and whether the caption is drawn, too.
    """
    width, shown = style.width(show.size), [each for each in filled if each.curves]
    across, down = grid([each.panel for each in shown], single=show.size == "column")
    panel_width = width / across
    figure = new_figure(width, down * min(0.78 * panel_width + 0.12, TALLEST * style.size / STYLES["default"].size))
    look = _look(preset, shown, show)
    bounds = {number for number, series in enumerate(preset.series) if is_bound(series.codec)}
    decibels = in_decibels(shown, show)
    rates = _rates(shown, bounds)
    handles: dict[str, Artist] = {}
    axes = figure.subplots(down, across, squeeze=False)
    titles = []
    for axis, each in zip(axes.flat, shown, strict=False):
        drawn = _in_decibels(each) if decibels and family(each.panel.metric) == "ms-ssim" else each
        for curve in drawn.curves:
            label, sign = look[_key(curve)]
            handles.setdefault(label, _draw_curve(axis, drawn.panel, curve, sign, bound=curve.series in bounds))
        titles.append(_labels(axis, drawn, rates, panel_width, Names(show.labels)))
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    rows = [max(titles[first : first + across]) for first in range(0, len(titles), across)]
    figure.set_figheight(figure.get_figheight() + sum(row - 1 for row in rows) * style.small / 72)
    for axis, each in zip(axes.flat, shown, strict=False):
        if front := _front(axis, each):
            handles["Pareto front"] = front
    ordered = {label: handles[label] for label, _ in look.values()}
    ordered |= {label: handles[label] for label in handles if label not in ordered} | _proxies(shown)
    below(figure, ordered, caption_lines(preset, filled, lines, show) if show.notes else (), style)
    if any(curve.random for each in shown for curve in each.curves):
        watermark(figure)
    return figure


def draw(
    preset: FigurePreset,
    filled: Sequence[Filled],
    stem: Path,
    style: PaperStyle,
    *,
    lines: Sequence[str] = (),
    show: Presentation = USUAL,
) -> list[Path]:
    """Write the figure that `compose` makes, and its caption beside it; nothing where there is no point.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    if not any(each.curves for each in filled):
        return []
    said = caption_lines(preset, filled, lines, show)
    return write(
        lambda sized: compose(preset, filled, sized, lines=lines, show=show), stem, style, show.size, preset.title, said
    )


def caption_lines(
    preset: FigurePreset, filled: Sequence[Filled], lines: Sequence[str] = (), show: Presentation = USUAL
) -> list[str]:
    """What the caption says below its title."""
    names = Names(show.labels)
    more = [*lines]
    if in_decibels(filled, show):
        more.append("MS-SSIM in decibels: -10 log10(1 - mean).")
    anchor, deltas = _anchor(preset, show), _deltas(preset, filled, show)
    if anchor and deltas:
        panels = [each.panel for each in filled if _by_rate(each.panel) and each.curves]
        kinds = ", ".join(dict.fromkeys(names.metric(panel.metric) for panel in panels))
        more.append(f"Percent behind a name: BD-rate against {anchor.label} for {kinds}; below 0 is better.")
        if any("†" in text for text in deltas.values()):
            more.append("† The curves share less than three quarters of their range.")
    if any(each.panel.at_bpp is not None and len(_best(each)) > 1 for each in filled):
        more.append("Pareto front: no other point is better in both metrics.")
    return [*more, *notes.short(preset, filled, show)]


def grid(panels: Sequence[Panel], *, single: bool = False) -> tuple[int, int]:
    """Columns and rows: a row for each dataset where these have as many panels each, else up to four side by side.

    >>> grid([Panel(name, "as-is", "bpp", metric) for name in "abc" for metric in "xyz"])
    (3, 3)
    >>> grid([Panel("a", "as-is", "bpp", metric) for metric in "vwxyz"])
    (3, 2)
    """
    count = len(panels)
    if single:
        return 1, count
    names = [panel.dataset for panel in panels]
    sizes = [names.count(name) for name in dict.fromkeys(names)]
    if len(sizes) > 1 and len(set(sizes)) == 1 and 1 < sizes[0] <= 4:
        return sizes[0], len(sizes)
    across = count if count <= 4 else 4 if count in (7, 8) else 3
    return across, math.ceil(count / across)


Look = dict[tuple[object, ...], tuple[str, Sign]]
"""Label, and colour and marker, of what is one curve in the legend, by `_key`."""


def _key(curve: DrawnCurve) -> tuple[object, ...]:
    return curve.series, curve.measured, curve.origin, curve.variant, curve.random, curve.bits_kind, curve.label


def _look(preset: FigurePreset, filled: Sequence[Filled], show: Presentation) -> Look:
    """A star on the label says that somewhere it stands in; further curves of one series have other markers."""
    numbers, curves = notes.references(filled), notes.curves_of(filled)
    starred = {_key(curve) for each in filled for curve in each.curves if notes.stands_in(each.panel, curve)}
    of_series = _of_series(preset, {curve.series for curve in curves})
    deltas = _deltas(preset, filled, show)
    look: Look = {}
    count: dict[tuple[int, bool], int] = {}
    for curve in curves:
        key = _key(curve)
        if key in look:
            continue
        runs = {other.origin for other in curves if other.measured and other.series == curve.series}
        text = notes.name(curve, numbers, runs=len(runs) > 1 or FILES in curve.origin)
        if len({other.bits_kind for other in curves if _key(other)[:-2] == key[:-2]}) > 1:
            text += f" ({curve.bits_kind})"
        text += deltas.get(key, "") + (" (bound)" if is_bound(preset.series[curve.series].codec) else "")
        nth = count[curve.series, curve.measured] = count.get((curve.series, curve.measured), -1) + 1
        colour, marker = of_series[curve.series]
        look[key] = f"{text}*" if key in starred else text, (colour, (marker + 3 * nth) % len(MARKERS))
    return look


def _of_series(preset: FigurePreset, drawn: set[int]) -> dict[int, Sign]:
    """The codec's look; further series of one codec, as variants in an ablation, take the colours that are left."""
    first: dict[str, int] = {}
    for number in sorted(drawn):
        first.setdefault(preset.series[number].codec, number)
    known = signs(first)
    chosen = {number: known[codec] for codec, number in first.items()}
    taken = [colour for colour, _ in chosen.values()]
    for nth, number in enumerate(sorted(drawn - chosen.keys())):
        left = [colour for colour in range(len(PALETTE)) if colour not in taken] or list(range(len(PALETTE)))
        chosen[number] = left[nth % len(left)], (left[nth % len(left)] + nth // len(left)) % len(MARKERS)
    return chosen


def _by_rate(panel: Panel) -> bool:
    return not panel.settings and panel.at_bpp is None


def _rates(filled: Sequence[Filled], bounds: set[int]) -> tuple[float, float]:
    """The least and the largest rate of all panels: equal axes can be compared. A bound's own rate is no matter."""
    curves = [curve for each in filled if each.panel.x == "bpp" for curve in each.curves]
    shown = [curve for curve in curves if curve.series not in bounds] or curves
    xs = [point.x for curve in shown for point in curve.points]
    return (min(xs), max(xs)) if xs else (math.nan, math.nan)


SATURATED = 0.9
"""From this MS-SSIM on, curves lie too near to 1 to be told apart."""


def in_decibels(filled: Iterable[Filled], show: Presentation) -> bool:
    """Is MS-SSIM drawn in decibels? Where it saturates, unless ``panels=`` says otherwise."""
    panels = [each for each in filled if family(each.panel.metric) == "ms-ssim" and each.panel.at_bpp is None]
    values = [point.y for each in panels for curve in each.curves for point in curve.points]
    if "ms-ssim-linear" in show.panels or not values:
        return False
    return "ms-ssim-db" in show.panels or max(values) > SATURATED


def _in_decibels(filled: Filled) -> Filled:
    def decibels(value: float) -> float:
        return -10 * math.log10(1 - value) if value < 1 else math.inf

    def convert(curve: DrawnCurve) -> DrawnCurve:
        points = [replace(p, y=decibels(p.y), low=decibels(p.low), high=decibels(p.high)) for p in curve.points]
        return replace(curve, points=tuple(point for point in points if math.isfinite(point.y)))

    panel = replace(filled.panel, y="ms-ssim-db")
    return replace(filled, panel=panel, curves=tuple(map(convert, filled.curves)))


def _anchor(preset: FigurePreset, show: Presentation) -> Series | None:
    """The series that BD-rates are against. Raises `UnknownName` for one that the figure does not have."""
    if not show.anchor:
        return None
    named = [series for series in preset.series if show.anchor in (series.codec, series.label)]
    if not named:
        raise UnknownName("anchor", show.anchor, [series.codec for series in preset.series])
    return named[0]


def _deltas(preset: FigurePreset, filled: Sequence[Filled], show: Presentation) -> dict[tuple[object, ...], str]:
    """BD-rates of each curve against the anchor's of the same panel, in the order of the panels."""
    anchor = _anchor(preset, show)
    texts: dict[tuple[object, ...], list[str]] = {}
    for each in (each for each in filled if anchor and _by_rate(each.panel) and each.curves):
        of_anchor = [curve for curve in each.curves if preset.series[curve.series] == anchor]
        here = {_key(curve): _delta(each.panel, of_anchor, curve) for curve in each.curves if curve not in of_anchor}
        for key in (_key(curve) for curve in notes.curves_of(filled) if preset.series[curve.series] != anchor):
            texts.setdefault(key, [])
        for key, parts in texts.items():
            parts.append(here.get(key, "–"))
    return {key: f", {', '.join(parts)} %" for key, parts in texts.items() if set(parts) != {"–"}}


def _delta(panel: Panel, of_anchor: Sequence[DrawnCurve], curve: DrawnCurve) -> str:
    better = meaning(panel.metric).higher_is_better
    alike = [a for a in of_anchor if (a.metric, a.dataset) == (curve.metric, curve.dataset) and _over_one_set(a, curve)]
    if not alike or better is None:
        return "–"
    pair = [[(point.x, point.y) for point in side.points] for side in (alike[0], curve)]
    delta = bd_rate(*pair, higher_is_better=better)
    text = f"{delta.value:+.1f}{'†' if delta.narrow else ''}"
    return "–" if math.isnan(delta.value) else text.replace("-", "\N{MINUS SIGN}")


def _over_one_set(first: DrawnCurve, second: DrawnCurve) -> bool:
    """Are the points of both over the same images: those of one set, or all of it where one was published?"""
    points = [*first.points, *second.points]
    if first.measured and second.measured:
        return len({point.images for point in points}) == 1
    return not any(point.partial for point in points)


def _labels(axis: Axes, filled: Filled, rates: tuple[float, float], width: float, names: Names) -> int:
    """Names, units and ticks of the axes, and the title; returns the lines of it."""
    panel, figure = filled.panel, axis.get_figure(root=True)
    assert figure is not None
    size, tall = float(axis.yaxis.label.get_fontsize()), figure.get_figheight() / axis.get_gridspec().nrows  # type: ignore[union-attr]
    name = names.axis(panel.metric).replace(" ↑", "\N{NO-BREAK SPACE}↑").replace(" ↓", "\N{NO-BREAK SPACE}↓")
    axis.set_ylabel(plain("\n".join(wrapped(figure, name, tall - 0.6 * size / 8, size))), linespacing=1.0)
    axis.margins(y=0.08)
    if _by_rate(panel):
        axis.set_xlabel("bits per pixel")
        rate_axis(axis, *rates, max(3, int(width * 72 / size / 3.8)))
    else:
        axis.set_xlabel(plain(names.axis(panel.x)))
        few_ticks(axis, min(8, max(3, int(width / 0.45 * 8 / size))))
        axis.margins(0.1)
    return _title(axis, panel, width, names)


def _title(axis: Axes, panel: Panel, width: float, names: Names) -> int:
    """The dataset, in lines as wide as the panel."""
    import matplotlib as mpl

    figure = axis.get_figure(root=True)
    assert figure is not None
    text = names.sentence(panel.dataset) + (f" at {panel.at_bpp:g} bpp" if panel.at_bpp is not None else "")
    size = mpl.rcParams["legend.fontsize"]
    lines = wrapped(figure, text, width - 0.075 * size, size)
    axis.set_title(plain("\n".join(lines)), loc="left", fontsize=size, linespacing=1.0)
    return len(lines)


def _draw_curve(axis: Axes, panel: Panel, curve: DrawnCurve, sign: Sign, *, bound: bool) -> Artist:
    points, own, colour = curve.points, curve.measured, PALETTE[sign[0]]
    if bound and _by_rate(panel):
        # The value at its highest rate; the rate itself is no matter, and would squeeze the others' axis.
        return axis.axhline(points[-1].y, linestyle=":", color=colour, linewidth=1.2)
    import matplotlib as mpl

    scale = float(mpl.rcParams["font.size"]) / STYLES["default"].size  # a slide is seen from afar
    shown = _marked(points)
    xs, ys = ([getattr(point, name) for point in points] for name in ("x", "y"))
    (line,) = axis.plot(
        *(xs, ys),
        color=colour,
        markersize=4 * scale,
        linestyle=LINES.get(curve.bits_kind, "-") if _by_rate(panel) else "-" if panel.settings else "none",
        linewidth=scale * (1.2 if own else 0.8),
        marker=MARKERS[sign[1]],
        markeredgewidth=0.8 * scale,
        fillstyle="left" if own and any(point.partial for point in points) else "full",
        markerfacecolor=colour if own else "white",
        markerfacecoloralt="white",
        markevery=shown,
        zorder=3 if own else 2,
        gid="measured" if own else "published",
    )
    known = [point for point in points if math.isfinite(point.low) and math.isfinite(point.high)]
    if len(known) > 1:
        along, low, high = ([getattr(point, name) for point in known] for name in ("x", "low", "high"))
        axis.fill_between(along, low, high, color=colour, alpha=0.12, linewidth=0)
    for kind, mark in (("doubts", "doubtful"), ("digitised", "read off a plot")):
        marked = [points[n] for n in shown if getattr(points[n], kind)]
        if marked:
            axis.plot([p.x for p in marked], [p.y for p in marked], zorder=4, markeredgewidth=0.7, **MARKS[mark])
    return line


def _marked(points: Sequence[DrawnPoint]) -> list[int]:
    """Which points have a marker: both ends, and so many between that they stay apart; doubtful ones among them."""
    chosen = thin(range(len(points)), CROWDED)
    doubtful = [number for number, point in enumerate(points) if point.doubts]
    return sorted({*chosen, *(doubtful if len(doubtful) < CROWDED else ())})


def _best(filled: Filled) -> list[tuple[float, float]]:
    """The points of a scatter that no other is better than in both metrics; without stand-ins for these."""
    panel = filled.panel
    if panel.at_bpp is None:
        return []
    signs_of = [1 if meaning(metric).higher_is_better else -1 for metric in (panel.x, panel.y)]
    sure = [curve for curve in filled.curves if not notes.stands_in(panel, curve)]
    points = sorted({(p.x, p.y) for curve in sure for p in curve.points})
    across, up = signs_of

    def beaten(point: tuple[float, float]) -> bool:
        better = (o for o in points if o != point and across * (o[0] - point[0]) >= 0 and up * (o[1] - point[1]) >= 0)
        return any(better)

    return [point for point in points if not beaten(point)]


def _front(axis: Axes, filled: Filled) -> Artist | None:
    """The Pareto front of a scatter, and an arrow that says which way is better."""
    panel, best = filled.panel, _best(filled)
    if panel.at_bpp is None:
        return None
    right, up = (bool(meaning(metric).higher_is_better) for metric in (panel.x, panel.y))
    _better(axis, filled, right=right, up=up)
    if len(best) < 2:
        return None
    look: dict[str, Any] = {"color": "0.6", "linewidth": 0.8, "linestyle": (0, (4, 2)), "zorder": 1, "gid": "front"}
    (line,) = axis.plot(*zip(*best, strict=True), **look)
    return line


def _better(axis: Axes, filled: Filled, *, right: bool, up: bool) -> None:
    """Where no point is near."""
    points = np.array([(p.x, p.y) for curve in filled.curves for p in curve.points], float)
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    places = np.where(span > 0, 0.08 + 0.84 * (points - low) / np.where(span > 0, span, 1), 0.5)
    centres = [(x, y) for y in (0.15, 0.32, 0.5, 0.68, 0.85) for x in (0.18, 0.34, 0.5, 0.66, 0.82)]
    x, y = max(centres, key=lambda centre: float(np.hypot(*(places - centre).T).min().round(6)))
    step = 0.09 if right else -0.09, 0.09 if up else -0.09
    axis.annotate(
        *("better", (x + step[0], y + step[1]), (x - step[0] / 2, y - step[1])),
        xycoords="axes fraction",
        textcoords="axes fraction",
        ha="center",
        va="center",
        color="0.4",
        fontsize="small",
        arrowprops={"arrowstyle": "->", "color": "0.4", "linewidth": 0.8},
    )


def _proxies(filled: Sequence[Filled]) -> dict[str, Artist]:
    """Legend entries for what is not a curve: patterns and marks that occur."""
    from matplotlib.lines import Line2D

    points = [point for curve in notes.curves_of(filled) for point in curve.points]
    kinds = {c.bits_kind for each in filled if each.panel.x == "bpp" for c in each.curves if len(c.points) > 1}
    looks: dict[str, dict[str, Any]] = {}
    if len(kinds) > 1:
        looks = {f"rate: {k}": {"color": "0.4", "linewidth": 0.9, "linestyle": LINES[k]} for k in LINES if k in kinds}
    looks |= {"doubtful": MARKS["doubtful"]} if any(point.doubts for point in points) else {}
    looks |= {"read off a plot": MARKS["read off a plot"]} if any(point.digitised for point in points) else {}
    if any(point.partial for point in points):
        half = {"fillstyle": "left", "markerfacecolor": "0.4", "markerfacecoloralt": "white"}
        looks["fewer images"] = {"color": "0.4", "marker": "o", "linestyle": "none", "markersize": 4, **half}
    return {label: Line2D([], [], **look) for label, look in looks.items()}


def below(figure: Figure, handles: Mapping[str, Artist], lines: Sequence[str], style: PaperStyle) -> None:
    """The legend and the note below the panels; the figure grows by what they take."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, panels = figure.get_size_inches()
    written = "\n".join(part for line in lines for part in wrapped(figure, line, width - 2 * MARGIN, style.small))
    note = figure.text(0, 0, plain(written), fontsize=style.small, color="0.35", va="top", gid="note", linespacing=1.15)
    legend = _legend(figure, handles, width)
    parts = [legend, note if written else None]
    tall = [float(part.get_window_extent().height) / float(figure.dpi) for part in parts if part is not None]
    whole = float(panels) + sum(tall) + MARGIN * (len(tall) + 1)
    figure.set_size_inches(width, whole)
    engine = figure.get_layout_engine()
    bottom = 1 - float(panels) / whole
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.set(rect=(0, bottom, 1, 1 - bottom))
    else:  # placed by hand: as many inches from the top as before
        for axis in figure.axes:
            left, low, wide, high = axis.get_position(original=True).bounds
            axis.set_position((left, bottom + low * (1 - bottom), wide, high * (1 - bottom)))
    top = bottom - MARGIN / whole
    if legend is not None:
        legend.set_bbox_to_anchor((0.5, top), transform=figure.transFigure)
        top -= (tall[0] + MARGIN) / whole
    note.set_position((MARGIN / width, top))


def _legend(figure: Figure, handles: Mapping[str, Artist], width: float) -> Any:
    """With as many columns as fit; None if there is nothing to explain."""
    for columns in range(min(6, len(handles)), 0, -1):
        legend = figure.legend(
            list(handles.values()),
            [plain(label) for label in handles],
            loc="upper center",
            ncols=columns,
            borderaxespad=0,
            borderpad=0,
            columnspacing=1.2,
            handlelength=2.2,
            handletextpad=0.5,
            labelspacing=0.35,
        )
        legend.set_in_layout(False)
        figure.canvas.get_renderer()  # type: ignore[attr-defined]  # of the Agg canvas
        if legend.get_window_extent().width / figure.dpi <= width - 2 * MARGIN or columns == 1:
            return legend
        legend.remove()
    return None


def wrapped(figure: Figure, text: str, width: float, size: float) -> list[str]:
    """A line of text broken between words into lines of at most ``width`` inches."""
    from matplotlib.text import Text

    def inches(part: str) -> float:
        probe = Text(0, 0, plain(part), fontsize=size, figure=figure)
        return float(probe.get_window_extent().width) / float(figure.dpi)

    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and inches(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines

"""Draw curves: of a run (`draw_all`), and of a paper's figure from measured points, published ones or both.

PNG, PDF and SVG; the same numbers give the same bytes. The rate is on a log axis where it spans more than a factor of
ten, an arrow says which way is better, bands are 95 % intervals.

Of a run there is one panel per metric; points of fewer images than the dataset has are hollow, and what only bounds
others is a level line. In a paper's figure measured points are filled, published ones hollow; the line's pattern says
what the rate counts, a cross marks doubtful points and a dot those that were read off a plot. Sizes are measured before
anything is placed, so that no text lies over another whatever the names are.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.figures import notes
from rdpbench.figures.data import DrawnCurve, Filled, axis_name
from rdpbench.figures.presets import FigurePreset, Panel
from rdpbench.figures.style import (
    MARKERS,
    PALETTE,
    PaperStyle,
    drawer,
    drawing,
    few_ticks,
    is_bound,
    new_figure,
    placeholder,
    plain,
    rate_axis,
    safe,
    save,
    watermark,
)
from rdpbench.lazy import pd
from rdpbench.metrics.contract import short_name
from rdpbench.results.tables import arrow, untrained

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NOTES = 4
"""Lines about left-out points above a figure of a run."""


def draw_all(frame: pd.DataFrame, folder: Path, title: str = "", notes: Iterable[str] = ()) -> list[Path]:
    """Draw one figure per metric and one with all of them; returns the paths, overview first.

    Args:
        frame: points of one place; of each metric over the same images (`rdpbench.results.stats.summary.compared`).
        folder: where to; made if it is not there.
        title: what the place is called; the dataset's name, if not given.
        notes: what is not drawn, or over which images the rest is; written below the title.
    """
    notes = list(notes)
    usable = frame[np.isfinite(frame["bpp"]) & np.isfinite(frame["value"]) & (frame["metric"] != "")]
    metrics = list(dict.fromkeys(usable["metric"]))
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with drawing():
        for name, shown in [("curves", metrics), *((f"rate-{safe(metric)}", [metric]) for metric in metrics)]:
            if shown:
                figure = new_figure(0.6 + 3.4 * len(shown), 3.5)
                said = [note for note in notes if note.partition(":")[0] in shown]
                _run_panels(figure, usable, shown, title, said)
                if untrained(usable).any():
                    watermark(figure)
                written += save(figure, folder / name)
    return written


def _run_panels(figure: Figure, frame: pd.DataFrame, metrics: Sequence[str], title: str, notes: Sequence[str]) -> None:
    codecs = list(dict.fromkeys(frame["codec"]))
    axes: Iterable[Axes] = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        lines = frame[frame["metric"] == metric]
        for number, codec in enumerate(codecs):
            _run_curve(axis, lines[lines["codec"] == codec], codec, number)
        _run_labels(axis, lines, metric)
    handles, labels = axis.get_legend_handles_labels()
    title = plain(title or ", ".join(dict.fromkeys(frame["dataset"])))
    if frame["partial"].any():
        title += " (hollow points: fewer images than the dataset has)"
    room = max(40, int(11 * figure.get_figwidth()))
    title = "\n".join([title, *(textwrap.fill(plain(note), room) for note in notes[:MOST_NOTES])])
    if len(notes) > MOST_NOTES:
        title += f"\nand {len(notes) - MOST_NOTES} more; the tables say which"
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(codecs), max(2, 3 * len(metrics))))
    figure.suptitle(title, fontsize=9)


def _run_curve(axis: Axes, points: pd.DataFrame, codec: str, number: int) -> None:
    points = points.sort_values("bpp")
    colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
    if is_bound(codec) and len(points):
        # The value at its highest rate; the rate itself is no matter, and would squeeze the others' axis.
        level = points["value"].iloc[-1]
        axis.axhline(level, linestyle=":", color=colour, linewidth=1.2, label=f"{plain(codec)} (bound)")
        return
    known = points[np.isfinite(points["value_lo"]) & np.isfinite(points["value_hi"])]
    _line(
        axis,
        *(points["bpp"], points["value"]),
        *(known["bpp"], known["value_lo"], known["value_hi"]),
        colour,
        opacity=0.1,
        linestyle="-" if number < len(PALETTE) else "--",
        linewidth=1.2,
        marker=marker,
        markerfacecolor="none" if points["partial"].any() else colour,
        label=plain(codec),
    )


def _line(
    axis: Axes, xs: Any, ys: Any, band: Any, low: Any, high: Any, colour: str, *, opacity: float, **look: Any
) -> Artist:
    """A curve with the band of its intervals, where there are any."""
    (line,) = axis.plot(xs, ys, color=colour, markersize=4, **look)
    if len(band):
        axis.fill_between(band, low, high, color=colour, alpha=opacity, linewidth=0)
    return line


def _run_labels(axis: Axes, points: pd.DataFrame, metric: str) -> None:
    first = points.iloc[0]
    unit = f" ({first['unit']})" if first["unit"] else ""
    if not points["reliable"].all():
        axis.patch.set(hatch="///", edgecolor="0.85")
        axis.text(0.5, 0.5, "too few images", transform=axis.transAxes, ha="center", color="0.5")
    axis.set_title(f"{short_name(metric)}{unit} {arrow(first['higher_is_better'])}", loc="left")
    axis.set_xlabel("bits per pixel")
    curves = points[~points["codec"].map(is_bound)]
    rates = (curves if len(curves) else points)["bpp"]
    rate_axis(axis, rates.min(), rates.max())


# Figures of papers

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
    columns: str = "double",
    sides: tuple[bool, bool] = (True, True),
    lines: Sequence[str] = (),
) -> Figure:
    """A preset of kind ``curves`` or ``scatter``; call it inside `rdpbench.figures.style.drawing`, or `draw`.

    Args:
        preset: the figure.
        filled: its panels with their curves (`rdpbench.figures.data.fill`).
        style: fonts and widths.
        columns: ``single`` or ``double``.
        sides: were measured, were published points asked for? An empty panel says what it lacks.
        lines: said below the figure before all else.
    """
    width = style.width(columns)
    across, down = grid([each.panel for each in filled], single=columns == "single")
    panel_width = width / across
    figure = new_figure(width, down * min(0.78 * panel_width + 0.12, TALLEST))
    look = _look(filled)
    shown: dict[str, Artist] = {}
    axes = figure.subplots(down, across, squeeze=False)
    titles = [
        _panel(axis, each, look, shown, panel_width, sides) for axis, each in zip(axes.flat, filled, strict=False)
    ]
    for axis in axes.flat[len(filled) :]:
        axis.set_axis_off()
    rows = [max(titles[first : first + across]) for first in range(0, len(titles), across)]
    figure.set_figheight(figure.get_figheight() + sum(row - 1 for row in rows) * style.small / 72)
    handles = {label: shown[label] for label, _, _ in look.values()} | _proxies(filled)
    below(figure, handles, [*lines, *notes.short(preset, filled)], style)
    if any(curve.random for each in filled for curve in each.curves):
        watermark(figure)
    return figure


draw = drawer(compose)
"""``draw(preset, filled, stem, style, ...)`` writes the figure."""


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


Look = dict[tuple[object, ...], tuple[str, str, str]]
"""Label, colour and marker of what is one curve in the legend, by `_key`."""


def _key(curve: DrawnCurve) -> tuple[object, ...]:
    return curve.series, curve.measured, curve.origin, curve.variant, curve.random, curve.bits_kind


def _look(filled: Sequence[Filled]) -> Look:
    """A star on the label says that somewhere it stands in; a series' curves differ by their markers."""
    numbers, curves = notes.references(filled), notes.curves_of(filled)
    starred = {_key(curve) for each in filled for curve in each.curves if notes.stands_in(each.panel, curve)}
    # Colours stay with the series, unless there are too many: then with those that are drawn.
    drawn = list(dict.fromkeys(curve.series for curve in curves))
    slots = {series: nth if max(drawn) >= len(PALETTE) else series for nth, series in enumerate(drawn)}
    look: Look = {}
    count: dict[int, int] = {}
    for curve in curves:
        key = _key(curve)
        if key in look:
            continue
        runs = {other.origin for other in curves if other.measured and other.series == curve.series}
        text = notes.name(curve, numbers, runs=len(runs) > 1)
        if len({other.bits_kind for other in curves if _key(other)[:-1] == key[:-1]}) > 1:
            text += f" ({curve.bits_kind})"
        nth = count[curve.series] = count.get(curve.series, -1) + 1
        slot = slots[curve.series]
        marker = MARKERS[(slot + slot // len(PALETTE) * 4 + 3 * nth) % len(MARKERS)]
        look[key] = (f"{text}*" if key in starred else text, PALETTE[slot % len(PALETTE)], marker)
    return look


def _panel(
    axis: Axes, filled: Filled, look: Look, shown: dict[str, Artist], width: float, sides: tuple[bool, bool]
) -> int:
    """Draw a panel; returns the lines of its title."""
    panel = filled.panel
    for curve in filled.curves:
        label, colour, marker = look[_key(curve)]
        shown.setdefault(label, _paper_curve(axis, panel, curve, colour, marker))
    axis.set_ylabel(plain(axis_name(panel.metric)))
    axis.margins(y=0.08)
    axis.set_xlabel("bits per pixel" if panel.x == "bpp" else plain(axis_name(panel.x)))
    xs = [point.x for curve in filled.curves for point in curve.points]
    if not xs:
        lacks = {(True, False): "not measured", (False, True): "no published data"}
        text = "not measured" if panel.settings else lacks.get(sides, "no published data,\nnot measured")
        placeholder(axis, text)
    elif panel.x == "bpp":
        rate_axis(axis, min(xs), max(xs), max(3, int(width / 0.42)))
    else:
        few_ticks(axis, min(8, max(3, int(width / 0.45))))
        axis.margins(0.1)
    return _title(axis, panel, width)


def _title(axis: Axes, panel: Panel, width: float) -> int:
    """The dataset, and below it what was done to its images, in lines as wide as the panel."""
    import matplotlib as mpl

    figure = axis.get_figure(root=True)
    assert figure is not None
    text = panel.dataset + ("" if panel.protocol == "as-is" else f" ({panel.protocol})")
    text += f" at {panel.at_bpp:g} bpp" if panel.at_bpp is not None else ""
    size = mpl.rcParams["legend.fontsize"]
    lines = wrapped(figure, text, width - 0.45, size)
    axis.set_title(plain("\n".join(lines)), loc="left", fontsize=size, linespacing=1.0)
    return len(lines)


def _paper_curve(axis: Axes, panel: Panel, curve: DrawnCurve, colour: str, marker: str) -> Artist:
    points, own = curve.points, curve.measured
    by_rate = not panel.settings and panel.at_bpp is None
    every = max(1, math.ceil(len(points) / CROWDED))
    xs, ys, low, high = ([getattr(point, name) for point in points] for name in ("x", "y", "low", "high"))
    line = _line(
        axis,
        *(xs, ys),
        *(xs if np.isfinite([*low, *high]).all() and len(xs) > 1 else (), low, high),
        colour,
        opacity=0.12,
        linestyle=LINES.get(curve.bits_kind, "-") if by_rate else "-" if panel.settings else "none",
        linewidth=1.2 if own else 0.8,
        marker=marker,
        markeredgewidth=0.8,
        fillstyle="left" if own and any(point.partial for point in points) else "full",
        markerfacecolor=colour if own else "white",
        markerfacecoloralt="white",
        markevery=every,
        zorder=3 if own else 2,
        gid="measured" if own else "published",
    )
    for kind, mark in (("doubts", "doubtful"), ("digitised", "read off a plot")):
        marked = [point for point in points if getattr(point, kind)][::every]
        if marked:
            axis.plot([p.x for p in marked], [p.y for p in marked], zorder=4, markeredgewidth=0.7, **MARKS[mark])
    return line


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

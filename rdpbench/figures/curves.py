"""Rate-distortion and rate-perception curves as PNG, PDF and SVG; the same frame gives the same bytes.

One panel per metric, rate on a log axis when it spans more than a factor of ten, an arrow towards better, bands for the
95 % intervals. Points of fewer images than the dataset has are hollow. What only bounds others is a level line.

A paper's curves drawn from measured points, published ones or both: panels, one legend, and a note below.

Measured points are filled, published ones hollow; the line's pattern says what the rate counts, a cross marks doubtful
points and a dot those that were read off a plot. Sizes are measured before anything is placed, so that no text lies
over another whatever the names are.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.figures import notes
from rdpbench.figures.data import Curve, Filled, meaning
from rdpbench.figures.presets import Panel, Preset
from rdpbench.figures.style import (
    MARKERS,
    PALETTE,
    PaperStyle,
    drawing,
    is_bound,
    new_figure,
    plain,
    rate_axis,
    safe,
    save,
    watermark,
)
from rdpbench.metrics.contract import short_name
from rdpbench.results.tables import untrained

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NOTES = 4
"""Lines about left-out points above a figure."""


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
            if not shown:
                continue
            figure = new_figure(0.6 + 3.4 * len(shown), 3.5)
            said = [note for note in notes if note.partition(":")[0] in shown]
            _panels(figure, usable, shown, title, said)
            if untrained(usable).any():
                watermark(figure)
            written += save(figure, folder / name)
    return written


def _panels(figure: Figure, frame: pd.DataFrame, metrics: Sequence[str], title: str, notes: Sequence[str]) -> None:
    codecs = list(dict.fromkeys(frame["codec"]))
    axes: Iterable[Axes] = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        of = frame[frame["metric"] == metric]
        for number, codec in enumerate(codecs):
            _curve(axis, of[of["codec"] == codec], codec, number)
        _label(axis, of, metric)
    handles, labels = axis.get_legend_handles_labels()
    title = plain(title or ", ".join(dict.fromkeys(frame["dataset"])))
    if frame["partial"].any():
        title += " (hollow points: fewer images than the dataset has)"
    room = max(40, int(11 * figure.get_figwidth()))
    for note in notes[:MOST_NOTES]:
        title += "\n" + textwrap.fill(plain(note), room)
    if len(notes) > MOST_NOTES:
        title += f"\nand {len(notes) - MOST_NOTES} more; the tables say which"
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(codecs), max(2, 3 * len(metrics))))
    figure.suptitle(title, fontsize=9)


def _curve(axis: Axes, points: pd.DataFrame, codec: str, number: int) -> None:
    points = points.sort_values("bpp")
    colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
    if is_bound(codec) and len(points):
        # The value at its highest rate; the rate itself is no matter, and would squeeze the others' axis.
        level = points["value"].iloc[-1]
        axis.axhline(level, linestyle=":", color=colour, linewidth=1.2, label=f"{plain(codec)} (bound)")
        return
    style = "-" if number < len(PALETTE) else "--"
    fill = "none" if points["partial"].any() else colour
    axis.plot(
        points["bpp"],
        points["value"],
        style,
        color=colour,
        marker=marker,
        markersize=4,
        markerfacecolor=fill,
        linewidth=1.2,
        label=plain(codec),
    )
    known = np.isfinite(points["value_lo"]) & np.isfinite(points["value_hi"])
    if known.any():
        there = points[known]
        axis.fill_between(there["bpp"], there["value_lo"], there["value_hi"], color=colour, alpha=0.1, linewidth=0)


def _label(axis: Axes, points: pd.DataFrame, metric: str) -> None:
    first = points.iloc[0]
    unit = f" ({first['unit']})" if first["unit"] else ""
    if not points["reliable"].all():
        axis.patch.set(hatch="///", edgecolor="0.85")
        axis.text(0.5, 0.5, "too few images", transform=axis.transAxes, ha="center", color="0.5")
    axis.set_title(f"{short_name(metric)}{unit} {'↑' if first['higher_is_better'] else '↓'}", loc="left")
    axis.set_xlabel("bits per pixel")
    curves = points[~points["codec"].map(is_bound)]
    rates = (curves if len(curves) else points)["bpp"]
    rate_axis(axis, rates.min(), rates.max())


LINES: dict[str, Any] = {
    "file": "-",
    "payload": (0, (5, 1.5)),
    "object": (0, (6, 1.5, 1, 1.5)),
    "estimated": (0, (3, 1, 1, 1, 1, 1)),
    "nominal": (0, (1, 3)),
    "unstated": (0, (1, 1.3)),
}
"""The pattern of a line by what its rate counts."""
CROWDED = 12
"""Markers of a curve; of one with more points every other, third, ... is drawn."""
TALLEST = 2.6
"""Inches of a panel, however wide it is."""
MARGIN = 0.06
"""Inches between the parts of a figure."""


def draw(
    preset: Preset,
    filled: Sequence[Filled],
    stem: Path,
    style: PaperStyle,
    *,
    columns: str = "double",
    sides: tuple[bool, bool] = (True, True),
    lines: Sequence[str] = (),
) -> list[Path]:
    """Draw a preset of kind ``curves`` or ``scatter`` as PNG, PDF and SVG.

    Args:
        preset: the figure.
        filled: its panels with their curves (`rdpbench.figures.data.fill`).
        stem: path of the files without their ending.
        style: fonts and widths.
        columns: ``single`` or ``double``.
        sides: were measured, were published points asked for? An empty panel says what it lacks.
        lines: said below the figure before all else.

    Raises:
        UnknownName: no such width.
        StoreUnwritable: the folder cannot be written.
    """
    with drawing(style):
        return save(compose(preset, filled, style, columns=columns, sides=sides, lines=lines), stem)


def compose(
    preset: Preset,
    filled: Sequence[Filled],
    style: PaperStyle,
    *,
    columns: str = "double",
    sides: tuple[bool, bool] = (True, True),
    lines: Sequence[str] = (),
) -> Figure:
    """The figure itself; call it inside `rdpbench.figures.style.drawing`."""
    width = style.width(columns)
    across, down = grid([one.panel for one in filled], single=columns == "single")
    panel_width = width / across
    figure = new_figure(width, down * min(0.78 * panel_width + 0.12, TALLEST))
    look = _look(filled)
    shown: dict[str, Artist] = {}
    axes = figure.subplots(down, across, squeeze=False)
    titles = [_panel(axis, one, look, shown, panel_width, sides) for axis, one in zip(axes.flat, filled, strict=False)]
    for axis in axes.flat[len(filled) :]:
        axis.set_axis_off()
    rows = [max(titles[first : first + across]) for first in range(0, len(titles), across)]
    figure.set_figheight(figure.get_figheight() + sum(row - 1 for row in rows) * style.small / 72)
    order = [label for label, _, _ in look.values()]
    below(
        figure,
        {label: shown[label] for label in order} | _proxies(filled),
        [*lines, *notes.short(preset, filled)],
        style,
    )
    if any(curve.random for one in filled for curve in one.curves):
        watermark(figure)
    return figure


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
    sizes = [sum(panel.dataset == name for panel in panels) for name in dict.fromkeys(p.dataset for p in panels)]
    if len(sizes) > 1 and len(set(sizes)) == 1 and 1 < sizes[0] <= 4:
        return sizes[0], len(sizes)
    across = count if count <= 4 else 4 if count in (7, 8) else 3
    return across, math.ceil(count / across)


Key = tuple[int, bool, str, str, str, bool]
Look = dict[Key, tuple[str, str, str]]
"""Label, colour and marker of what is one curve in the legend."""


def _key(curve: Curve) -> Key:
    return curve.series, curve.measured, curve.origin, curve.variant, curve.bits_kind, curve.random


def _look(filled: Sequence[Filled]) -> Look:
    """A star on the label says that somewhere it stands in; a series' curves differ by their markers."""
    numbers = notes.references(filled)
    curves = notes.curves_of(filled)
    starred = {_key(curve) for one in filled for curve in one.curves if notes.stands_in(one.panel, curve)}
    # Colours stay with the series, unless there are too many: then with those that are drawn.
    drawn = list(dict.fromkeys(curve.series for curve in curves))
    slots = {one: nth if max(drawn) >= len(PALETTE) else one for nth, one in enumerate(drawn)}
    out: Look = {}
    count: dict[int, int] = {}
    for curve in curves:
        key = _key(curve)
        if key in out:
            continue
        runs = {other.origin for other in curves if other.measured and other.series == curve.series}
        text = notes.name(curve, numbers, runs=len(runs) > 1)
        if len({other.bits_kind for other in curves if (*_key(other)[:4], other.random) == (*key[:4], key[5])}) > 1:
            text += f" ({curve.bits_kind})"
        nth = count[curve.series] = count.get(curve.series, -1) + 1
        slot = slots[curve.series]
        marker = MARKERS[(slot + slot // len(PALETTE) * 4 + 3 * nth) % len(MARKERS)]
        out[key] = (f"{text}*" if key in starred else text, PALETTE[slot % len(PALETTE)], marker)
    return out


def _panel(
    axis: Axes, one: Filled, look: Look, shown: dict[str, Artist], width: float, sides: tuple[bool, bool]
) -> int:
    """Draw a panel; returns the lines of its title."""
    for curve in one.curves:
        label, colour, marker = look[_key(curve)]
        shown.setdefault(label, _paper_curve(axis, one.panel, curve, colour, marker))
    panel = one.panel
    axis.set_ylabel(plain(_axis_name(panel.metric)))
    axis.margins(y=0.08)
    axis.set_xlabel("bits per pixel" if panel.x == "bpp" else plain(_axis_name(panel.x)))
    points = [point for curve in one.curves for point in curve.points]
    if not points:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(
            0.5, 0.5, notes.nothing(panel, sides), transform=axis.transAxes, ha="center", va="center", color="0.5"
        )
    elif panel.x == "bpp":
        rate_axis(axis, min(p.x for p in points), max(p.x for p in points), max(3, int(width / 0.42)))
    else:
        _few_ticks(axis, width)
    return _title(axis, panel, width)


def _title(axis: Axes, panel: Panel, width: float) -> int:
    """The dataset, and below it what was done to its images, in lines as wide as the panel."""
    import matplotlib as mpl

    figure = axis.get_figure(root=True)
    assert figure is not None
    parts = [panel.dataset, "" if panel.protocol == "as-is" else f"({panel.protocol})"]
    parts += [f"at {panel.at_bpp:g} bpp"] if panel.at_bpp is not None else []
    size = mpl.rcParams["legend.fontsize"]
    lines = wrapped(figure, " ".join(part for part in parts if part), width - 0.45, size)
    axis.set_title(plain("\n".join(lines)), loc="left", fontsize=size, linespacing=1.0)
    return len(lines)


def _few_ticks(axis: Axes, width: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(min(8, max(3, int(width / 0.45)))))
    axis.margins(0.1)


def _axis_name(metric: str) -> str:
    of = meaning(metric)
    arrow = "" if of.higher_is_better is None else " ↑" if of.higher_is_better else " ↓"
    return f"{metric}{f' ({of.unit})' if of.unit else ''}{arrow}"


def _paper_curve(axis: Axes, panel: Panel, curve: Curve, colour: str, marker: str) -> Artist:
    xs, ys = ([getattr(point, name) for point in curve.points] for name in ("x", "y"))
    partial = any(point.partial for point in curve.points)
    by_rate = not panel.settings and panel.at_bpp is None
    (line,) = axis.plot(
        xs,
        ys,
        color=colour,
        linestyle=LINES.get(curve.bits_kind, "-") if by_rate else "-" if panel.settings else "none",
        linewidth=1.2 if curve.measured else 0.8,
        marker=marker,
        markersize=4,
        markeredgewidth=0.8,
        fillstyle="left" if partial and curve.measured else "full",
        markerfacecolor=colour if curve.measured else "white",
        markerfacecoloralt="white",
        markevery=max(1, math.ceil(len(xs) / CROWDED)),
        zorder=3 if curve.measured else 2,
        gid="measured" if curve.measured else "published",
    )
    low, high = ([getattr(point, name) for point in curve.points] for name in ("low", "high"))
    if np.isfinite(low).all() and np.isfinite(high).all() and len(xs) > 1:
        axis.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)
    _marks(axis, curve)
    return line


def _marks(axis: Axes, curve: Curve) -> None:
    for kind, marker in (("doubts", "x"), ("digitised", ".")):
        points = [point for point in curve.points if getattr(point, kind)]
        every = max(1, math.ceil(len(curve.points) / CROWDED))
        if points:
            xs, ys = ([getattr(point, name) for point in points[::every]] for name in ("x", "y"))
            size = 3.2 if marker == "x" else 2.5
            shape: dict[str, Any] = {"marker": marker, "markersize": size, "markeredgewidth": 0.7}
            axis.plot(xs, ys, linestyle="none", color="black", zorder=4, **shape)


def _proxies(filled: Sequence[Filled]) -> dict[str, Artist]:
    """Legend entries for what is not a curve: patterns and marks that occur."""
    from matplotlib.lines import Line2D

    curves = notes.curves_of(filled)
    points = [point for curve in curves for point in curve.points]
    out: dict[str, Artist] = {}
    over_rate = [curve for one in filled if one.panel.x == "bpp" for curve in one.curves if len(curve.points) > 1]
    kinds = {curve.bits_kind for curve in over_rate}
    if len(kinds) > 1:
        out |= {
            f"rate: {kind}": Line2D([], [], color="0.4", linewidth=0.9, linestyle=LINES.get(kind, "-"))
            for kind in LINES
            if kind in kinds
        }
    if any(point.doubts for point in points):
        out["doubtful"] = Line2D([], [], color="black", marker="x", linestyle="none", markersize=3.2)
    if any(point.digitised for point in points):
        out["read off a plot"] = Line2D([], [], color="black", marker=".", linestyle="none", markersize=2.5)
    if any(point.partial for point in points):
        half: dict[str, Any] = {"fillstyle": "left", "markerfacecolor": "0.4", "markerfacecoloralt": "white"}
        out["fewer images"] = Line2D([], [], color="0.4", marker="o", linestyle="none", markersize=4, **half)
    return out


def below(figure: Figure, handles: dict[str, Artist], lines: Sequence[str], style: PaperStyle) -> None:
    """The legend and the note below the panels; the figure grows by what they take."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, panels = figure.get_size_inches()
    written = "\n".join(part for line in lines for part in wrapped(figure, line, width - 2 * MARGIN, style.small))
    note = figure.text(0, 0, plain(written), fontsize=style.small, color="0.35", va="top", gid="note", linespacing=1.15)
    legend = _legend(figure, handles, width)
    tall = [_height(figure, one) for one in (legend, note if written else None) if one is not None]
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


def _legend(figure: Figure, handles: dict[str, Artist], width: float) -> Any:
    """With as many columns as fit; None if there is nothing to explain."""
    if not handles:
        return None
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


def _height(figure: Figure, artist: Artist) -> float:
    return float(artist.get_window_extent().height) / float(figure.dpi)


def wrapped(figure: Figure, text: str, width: float, size: float) -> list[str]:
    """A line of text broken between words into lines of at most ``width`` inches."""
    from matplotlib.text import Text

    def inches(part: str) -> float:
        probe = Text(0, 0, plain(part), fontsize=size, figure=figure)
        return float(probe.get_window_extent().width) / float(figure.dpi)

    out: list[str] = []
    for word in text.split(" "):
        longer = f"{out[-1]} {word}" if out else word
        if out and inches(longer) <= width:
            out[-1] = longer
        else:
            out.append(word)
    return out

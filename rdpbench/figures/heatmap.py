"""Heat maps: a metric over two settings of a codec, such as two guidance scales, from the rows of a sweep.

A row of maps for each run and rate, a map for each panel of the preset. Bright is better whichever way the metric goes;
a cell that was not measured is hatched. No source publishes settings on axes, so the maps are of measured points only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rdpbench.figures.curves import below
from rdpbench.figures.data import FigurePreset, Panel, base_name, setting, trained_label
from rdpbench.figures.style import WATERMARK, PaperStyle, new_figure, plain, watermark
from rdpbench.lazy import pd
from rdpbench.results.names import Names, meaning
from rdpbench.results.stats.bd import Floats
from rdpbench.results.tables import untrained
from rdpbench.setting import USUAL, Presentation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"
"""Told apart by all kinds of vision, and brighter along the scale."""


@dataclass(frozen=True)
class HeatMap:
    """A metric over two settings; NaN where it was not measured."""

    panel: Panel
    title: str
    """The run and the rate that it is of."""
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    values: Floats
    """``(len(ys), len(xs))``."""
    random: bool = False


def maps(preset: FigurePreset, own: pd.DataFrame) -> list[list[HeatMap]]:
    """A list for each series, run and rate, with a map for each panel; empty where nothing was measured."""
    first = preset.panels[0]
    here = (own["dataset"] == first.dataset) & (own["protocol"] == first.protocol) & (own["n"] > 0)
    own = own.assign(random=untrained(own), codec=own["codec"].map(trained_label))[here]
    rows = []
    for series in preset.series:
        points = own[own["codec"].map(base_name) == series.codec]
        for (run, field, rate, random), group in points.groupby(["run", "rate_field", "rate", "random"], dropna=False):
            title = f"{series.label}, {run}" + ("" if field in ("", "none") else f", {field} {rate:g}")
            ends = dict.fromkeys(f"{bpp:.4f}" for bpp in (group["bpp"].min(), group["bpp"].max()))
            row = [_map(panel, f"{title}, {' to '.join(ends)} bpp", group, bool(random)) for panel in preset.panels]
            if any(part.values.size for part in row):
                rows.append(row)
    return rows


def _map(panel: Panel, title: str, points: pd.DataFrame, random: bool) -> HeatMap:
    known: dict[tuple[float, float], float] = {}
    for line in points[points["metric"] == panel.value].to_dict("records"):
        place = setting(line, panel.x), setting(line, panel.y)
        if np.isfinite([*place, line["value"]]).all():
            known[place] = float(line["value"])
    xs, ys = (tuple(sorted({place[axis] for place in known})) for axis in (0, 1))
    values = np.array([[known.get((x, y), np.nan) for x in xs] for y in ys], np.float64).reshape(len(ys), len(xs))
    return HeatMap(panel, title, xs, ys, values, random)


def compose(rows: Sequence[Sequence[HeatMap]], style: PaperStyle, show: Presentation = USUAL) -> Figure:
    """The maps of a preset of kind ``heat-map``; call it inside `drawing`, or by `rdpbench.figures.style.write`."""
    width = style.width(show.size)
    # Of a column's width two side by side, so that values can be read in the cells.
    across = min(2, len(rows[0])) if show.size == "column" else len(rows[0])
    flat = [part for row in rows for part in row]
    down = -(-len(flat) // across)
    side = width / across
    figure = new_figure(width, down * (side * 0.95 + 0.1))
    axes = figure.subplots(down, across, squeeze=False)
    for axis, part in zip(axes.flat, flat, strict=False):
        _draw(axis, part, style, Names(show.labels))
    for axis in axes.flat[len(flat) :]:
        axis.set_axis_off()
    below(figure, {}, notes(rows) if show.notes else (), style)
    if any(part.random for part in flat):
        watermark(figure)
    return figure


def notes(rows: Sequence[Sequence[HeatMap]]) -> list[str]:
    """What must be said of the maps; nothing, if there is none."""
    if not rows:
        return []
    titles = list(dict.fromkeys(row[0].title for row in rows))
    several, flat = len(titles) > 1, [part for row in rows for part in row]
    lines = [f"{WATERMARK}."] if any(part.random for part in flat) else []
    lines += [f"{f'Row {number}: ' if several else ''}{title}." for number, title in enumerate(titles, start=1)]
    if any(not np.isfinite(part.values).all() for part in flat):
        lines.append("Hatched: not measured.")
    return [*lines, "Bright is better."]


def _draw(axis: Axes, part: HeatMap, style: PaperStyle, names: Names) -> None:
    better = meaning(part.panel.value).higher_is_better
    axis.set_title(plain(names.axis(part.panel.value)), loc="left", fontsize=style.small)
    axis.set_xlabel(plain(names.axis(part.panel.x)), fontsize=style.small)
    axis.set_ylabel(plain(names.axis(part.panel.y)), fontsize=style.small)
    axis.grid(visible=False)
    if not part.values.size:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
        return
    axis.patch.set(hatch="////", edgecolor="0.8")
    image = axis.imshow(part.values, cmap=COLOURS if better else f"{COLOURS}_r", origin="lower", aspect="auto")
    axis.set_xticks(range(len(part.xs)), [f"{x:g}" for x in part.xs])
    axis.set_yticks(range(len(part.ys)), [f"{y:g}" for y in part.ys])
    _values(axis, part, image, style)


def _values(axis: Axes, part: HeatMap, image: object, style: PaperStyle) -> None:
    """The number in each cell, black on bright and white on dark; as small as the cells ask for."""
    shade = image.to_rgba(part.values)  # type: ignore[attr-defined]  # an AxesImage
    digits = 2 if meaning(part.panel.value).unit == "dB" else 3
    figure = axis.get_figure(root=True)
    assert figure is not None
    room = figure.get_figwidth() / axis.get_gridspec().ncols * 0.62 * 72 / max(1, len(part.xs))  # type: ignore[union-attr]
    longest = max(len(f"{value:.{digits}f}") for value in part.values[np.isfinite(part.values)])
    size = min(style.small, room / (0.62 * longest))
    for (row, column), value in np.ndenumerate(part.values):
        if np.isfinite(value):
            bright = float(shade[row, column, :3] @ np.array([0.2126, 0.7152, 0.0722])) > 0.5
            axis.text(
                *(column, row, f"{value:.{digits}f}"),
                ha="center",
                va="center",
                fontsize=size,
                color="black" if bright else "white",
            )

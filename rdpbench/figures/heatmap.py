"""Heat maps: a metric over two settings of a codec, such as two guidance scales, from the rows of a sweep.

A row of maps for each run and rate, a map for each panel of the preset. Bright is better whichever way the metric goes;
a cell that was not measured is hatched. No source publishes settings on axes, so that these maps are of measured points
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdpbench.figures.curves import below
from rdpbench.figures.data import base_name, meaning, setting, trained_label
from rdpbench.figures.presets import Panel, Preset, Series
from rdpbench.figures.style import WATERMARK, PaperStyle, drawing, new_figure, plain, save, watermark
from rdpbench.results.tables import untrained

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "cividis"
"""Told apart by all kinds of vision, and brighter along the scale."""


@dataclass(frozen=True)
class Map:
    """A metric over two settings; NaN where it was not measured."""

    panel: Panel
    title: str
    """The run and the rate that it is of."""
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    values: NDArray[np.float64]
    """``(len(ys), len(xs))``."""
    random: bool = False


def maps(preset: Preset, own: pd.DataFrame) -> list[list[Map]]:
    """A list for each series, run and rate, with a map for each panel; empty where nothing was measured."""
    out = []
    for series in preset.series:
        points = _of(series, preset.panels, own)
        for (run, field, rate, random), group in points.groupby(["run", "rate_field", "rate", "random"], dropna=False):
            title = f"{series.label}, {run}" + ("" if field in ("", "none") else f", {field} {rate:g}")
            ends = dict.fromkeys(f"{bpp:.4f}" for bpp in (group["bpp"].min(), group["bpp"].max()))
            title += f", {' to '.join(ends)} bpp"
            made = [_map(panel, title, group, bool(random)) for panel in preset.panels]
            if any(one.values.size for one in made):
                out.append(made)
    return out


def _of(series: Series, panels: Sequence[Panel], own: pd.DataFrame) -> pd.DataFrame:
    points = own.assign(random=untrained(own), codec=own["codec"].map(trained_label))
    here = (points["dataset"] == panels[0].dataset) & (points["protocol"] == panels[0].protocol) & (points["n"] > 0)
    return points[here & (points["codec"].map(base_name) == series.codec)]


def _map(panel: Panel, title: str, points: pd.DataFrame, random: bool) -> Map:
    found: dict[tuple[float, float], float] = {}
    for line in points[points["metric"] == panel.value].to_dict("records"):
        at = setting(line, panel.x), setting(line, panel.y)
        if np.isfinite(at).all() and np.isfinite(line["value"]):
            found[at] = float(line["value"])
    xs, ys = (tuple(sorted({at[axis] for at in found})) for axis in (0, 1))
    values = np.array([[found.get((x, y), np.nan) for x in xs] for y in ys], np.float64).reshape(len(ys), len(xs))
    return Map(panel, title, xs, ys, values, random)


def draw(
    preset: Preset, rows: Sequence[Sequence[Map]], stem: Path, style: PaperStyle, *, columns: str = "double"
) -> list[Path]:
    """Draw a preset of kind ``heat-map`` as PNG, PDF and SVG; without rows, panels that say so.

    Raises:
        UnknownName: no such width.
        StoreUnwritable: the folder cannot be written.
    """
    with drawing(style):
        return save(compose(preset, rows, style, columns=columns), stem)


def compose(preset: Preset, rows: Sequence[Sequence[Map]], style: PaperStyle, *, columns: str = "double") -> Figure:
    """The figure itself; call it inside `rdpbench.figures.style.drawing`."""
    width = style.width(columns)
    shown = rows or [[Map(panel, "", (), (), np.empty((0, 0))) for panel in preset.panels]]
    # Of a column's width two side by side, so that values can be read in the cells.
    across = len(preset.panels) if columns == "double" else min(2, len(preset.panels))
    flat = [one for row in shown for one in row]
    down = -(-len(flat) // across)
    size = width / across
    figure = new_figure(width, down * (size * 0.95 + 0.1))
    axes = figure.subplots(down, across, squeeze=False)
    for axis, one in zip(axes.flat, flat, strict=False):
        _draw(axis, one, style)
    for axis in axes.flat[len(flat) :]:
        axis.set_axis_off()
    below(figure, {}, notes(preset, rows), style)
    if any(one.random for one in flat):
        watermark(figure)
    return figure


def notes(preset: Preset, rows: Sequence[Sequence[Map]]) -> list[str]:
    """What must be said of the maps."""
    if not rows:
        return [
            f"Not measured: {', '.join(series.label for series in preset.series)}. {preset.name}.md says what to run."
        ]
    titles = dict.fromkeys(row[0].title for row in rows)
    lines = [f"{'Row' if len(titles) > 1 else 'Of'} {number}: {one}." for number, one in enumerate(titles, start=1)]
    lines = lines if len(titles) > 1 else [f"{next(iter(titles))}."]
    if any(not np.isfinite(one.values).all() for row in rows for one in row):
        lines.append("Hatched: not measured.")
    lines.append("Bright is better.")
    return [f"{WATERMARK}.", *lines] if any(one.random for row in rows for one in row) else lines


def _draw(axis: Axes, one: Map, style: PaperStyle) -> None:
    of = meaning(one.panel.value)
    arrow = "↑" if of.higher_is_better else "↓"
    unit = f" ({of.unit})" if of.unit else ""
    axis.set_title(plain(f"{one.panel.value}{unit} {arrow}"), loc="left", fontsize=style.small)
    axis.set_xlabel(plain(one.panel.x), fontsize=style.small)
    axis.set_ylabel(plain(one.panel.y), fontsize=style.small)
    axis.grid(visible=False)
    if not one.values.size:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", va="center", color="0.5")
        return
    axis.patch.set(hatch="////", edgecolor="0.8")
    colours = COLOURS if of.higher_is_better else f"{COLOURS}_r"
    image = axis.imshow(one.values, cmap=colours, origin="lower", aspect="auto")
    axis.set_xticks(range(len(one.xs)), [f"{x:g}" for x in one.xs])
    axis.set_yticks(range(len(one.ys)), [f"{y:g}" for y in one.ys])
    _values(axis, one, image, style)


def _values(axis: Axes, one: Map, image: object, style: PaperStyle) -> None:
    """The number in each cell, black on bright and white on dark; as small as the cells ask for."""
    shade = image.to_rgba(one.values)  # type: ignore[attr-defined]  # an AxesImage
    digits = 2 if meaning(one.panel.value).unit == "dB" else 3
    figure = axis.get_figure(root=True)
    assert figure is not None
    room = figure.get_figwidth() / axis.get_gridspec().ncols * 0.62 * 72 / max(1, len(one.xs))  # type: ignore[union-attr]
    longest = max(len(f"{value:.{digits}f}") for value in one.values[np.isfinite(one.values)])
    size = min(style.small, room / (0.62 * longest))
    for (row, column), value in np.ndenumerate(one.values):
        if np.isfinite(value):
            bright = float(shade[row, column, :3] @ np.array([0.2126, 0.7152, 0.0722])) > 0.5
            axis.text(
                *(column, row, f"{value:.{digits}f}"),
                ha="center",
                va="center",
                fontsize=size,
                color="black" if bright else "white",
            )

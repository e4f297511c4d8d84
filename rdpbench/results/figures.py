"""Rate-distortion and rate-perception curves as PNG, PDF and SVG; the same frame gives the same bytes.

One panel per metric, rate on a log axis when it spans more than a factor of ten, an arrow towards better, bands for the
95 % intervals. Points of fewer images than the dataset has are hollow. What only bounds others is a level line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdpbench.metrics.contract import short_name
from rdpbench.results.roles import is_bound
from rdpbench.results.style import (
    MARKERS,
    PALETTE,
    drawing,
    new_figure,
    plain,
    rate_axis,
    safe,
    save,
    watermark,
)
from rdpbench.results.tables import untrained

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_NOTES = 4
"""Lines about left-out points above a figure."""


def draw_all(frame: pd.DataFrame, folder: Path, title: str = "", notes: Iterable[str] = ()) -> list[Path]:
    """Draw one figure per metric and one with all of them; returns the paths, overview first.

    Args:
        frame: points of one place; of each metric over the same images (`rdpbench.results.summary.compared`).
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

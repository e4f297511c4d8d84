"""Rate-distortion and rate-perception curves as PNG, PDF and SVG; the same frame gives the same bytes.

One panel per metric, rate on a log axis when it spans more than a factor of ten, an arrow towards better, bands for the
95 % intervals. Points of fewer images than the dataset has are hollow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's colours for all kinds of vision, darker ones first, without the yellow that white paper swallows."""
MARKERS = "osD^vP*X"
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: publishers refuse type 3 fonts
    "svg.hashsalt": "rdpbench",  # ids in SVG are random without it
    "svg.fonttype": "path",
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "pdf": {"metadata": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": "rdpbench"}},
    "svg": {"metadata": {"Date": None, "Creator": "rdpbench"}},
}


def draw_all(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw one figure per metric and one with all of them; returns the paths, overview first."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    usable = frame[np.isfinite(frame["bpp"]) & np.isfinite(frame["value"]) & (frame["metric"] != "")]
    metrics = list(dict.fromkeys(usable["metric"]))
    written: list[Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # keys are a closed set of literals in the stubs
        for name, shown in [("curves", metrics), *((f"rate-{_safe(metric)}", [metric]) for metric in metrics)]:
            if not shown:
                continue
            figure = Figure(figsize=(0.6 + 3.4 * len(shown), 3.5), layout="constrained")
            FigureCanvasAgg(figure)
            _panels(figure, usable, shown)
            written += _save(figure, folder / name)
    return written


def _panels(figure: Figure, frame: pd.DataFrame, metrics: Sequence[str]) -> None:
    codecs = list(dict.fromkeys(frame["codec"]))
    axes: Iterable[Axes] = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        of = frame[frame["metric"] == metric]
        for number, codec in enumerate(codecs):
            _curve(axis, of[of["codec"] == codec], codec, number)
        _label(axis, of, metric)
    handles, labels = axis.get_legend_handles_labels()
    title = _plain(", ".join(dict.fromkeys(frame["dataset"])))
    if frame["partial"].any():
        title += " (hollow points: fewer images than the dataset has)"
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(codecs), max(2, 3 * len(metrics))))
    figure.suptitle(title, fontsize=9)


def _curve(axis: Axes, points: pd.DataFrame, codec: str, number: int) -> None:
    points = points.sort_values("bpp")
    colour, marker = PALETTE[number % len(PALETTE)], MARKERS[number % len(MARKERS)]
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
        label=_plain(codec),
    )
    known = np.isfinite(points["value_lo"]) & np.isfinite(points["value_hi"])
    if known.any():
        there = points[known]
        axis.fill_between(there["bpp"], there["value_lo"], there["value_hi"], color=colour, alpha=0.1, linewidth=0)


def _label(axis: Axes, points: pd.DataFrame, metric: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    first = points.iloc[0]
    unit = f" ({first['unit']})" if first["unit"] else ""
    if not points["reliable"].all():
        axis.patch.set(hatch="///", edgecolor="0.85")
        axis.text(0.5, 0.5, "too few images", transform=axis.transAxes, ha="center", color="0.5")
    axis.set_title(f"{metric}{unit} {'↑' if first['higher_is_better'] else '↓'}", loc="left")
    axis.set_xlabel("bits per pixel")
    low, high = points["bpp"].min(), points["bpp"].max()
    if high > 10 * low:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(_ticks(low, high))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(left=0)


def _ticks(low: float, high: float) -> Any:
    from matplotlib.ticker import FixedLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return FixedLocator([m * 10.0**d for d in decades for m in (1, 2, 5) if low / 1.5 <= m * 10.0**d <= high * 1.5])


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = []
    for ending, options in FORMATS.items():
        path = stem.with_name(f"{stem.name}.{ending}")
        beside = path.with_name(f".{path.name}.tmp")
        figure.savefig(beside, format=ending, **options)
        beside.replace(path)
        paths.append(path)
    return paths


def _plain(name: str) -> str:
    """A name as it is: matplotlib reads dollars as formulas, and hides what begins with an underscore."""
    return name.replace("$", r"\$") if not name.startswith("_") else f" {name}".replace("$", r"\$")


def _safe(metric: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in metric)

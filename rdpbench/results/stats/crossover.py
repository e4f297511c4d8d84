"""Crossover rate of two curves: from where to where one codec is the better choice, with an interval over images.

Between its points a curve is linear on a log-rate axis, as in tables at equal rates; beyond them it is nothing. A
crossing is a rate at which the difference of the two changes its sign, inside the rates that both curves reach. A curve
that only touches the other does not cross it. There may be no crossing, or several: both are said, and no rate is made
up for them.

The interval is of a single crossing: images are drawn with replacement for both curves together
(`rdpbench.results.stats.bootstrap`). A resample whose curves do not cross says on which side of the shared rates the
crossing must lie, by the codec that is better throughout; it counts as beyond that side, so an end of the interval may
be open. Resamples that cross several times, or the other way round, say nothing; where they are more than 5 %, there is
no interval. ``agree`` is the share of resamples that cross as the curves themselves do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from rdpbench.metrics.contract import weighed
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bd import RateValues
from rdpbench.results.stats.bd_tables import common_images, compared, in_unit, letter, means
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Floats, ImageCurve, Points
from rdpbench.results.tables import Cell, Table

EQUAL = 1e-12
"""Values nearer to each other, relative to the largest, are equal: interpolation rounds."""


@dataclass(frozen=True)
class Crossings:
    """Where the difference of two curves changes its sign."""

    rates: tuple[float, ...]
    """Rising; empty for none, or where ``reason`` says why it cannot be told."""
    first: int
    """1 if ``test`` is better at the lowest rates that both reach, -1 if ``anchor`` is, 0 if they are equal."""
    shared: tuple[float, float] = (math.nan, math.nan)
    """The rates that both reach."""
    reason: str = ""


@dataclass(frozen=True)
class Crossover:
    """Crossings of two codecs' curves with an interval."""

    codec: str
    """The one that is held against the anchor."""
    images: int
    """In both curves; 0 where that is not known."""
    found: Crossings
    low: float = math.nan
    """95 % interval of a single crossing; minus infinity where it is open. NaN for no interval."""
    high: float = math.nan
    agree: float = math.nan
    """Share of resamples with as many crossings in the same order; NaN without resamples."""
    reason: str = ""
    """Why a single crossing has no interval."""


def crossings(anchor: RateValues, test: RateValues, *, higher_is_better: bool = True) -> Crossings:
    """Where two curves cross, by rising rate.

    >>> anchor, test = [(0.1, 30.0), (1.6, 42.0)], [(0.1, 31.0), (1.6, 41.0)]
    >>> found = crossings(anchor, test)
    >>> [round(rate, 9) for rate in found.rates], found.first
    ([0.4], 1)
    >>> crossings(anchor, test, higher_is_better=False).first
    -1
    """
    curves = []
    for points, who in ((anchor, "anchor"), (test, "test")):
        array = np.array(sorted(points), np.float64).reshape(-1, 2)
        if reason := _unusable(array, who):
            return Crossings((), 0, reason=reason)
        curves.append((np.log(array[:, 0]), array[:, 1]))
    (rates, values), (test_rates, test_values) = curves
    low, high = max(rates[0], test_rates[0]), min(rates[-1], test_rates[-1])
    if not low < high:
        return Crossings((), 0, reason="the curves share no range of rate")
    knots = np.unique(np.concatenate([rates, test_rates, [low, high]]))
    knots = knots[(knots >= low) & (knots <= high)]
    ahead = np.interp(knots, test_rates, test_values) - np.interp(knots, rates, values)
    ahead[np.abs(ahead) < EQUAL * max(np.abs(values).max(), np.abs(test_values).max())] = 0
    found = _sign_changes(knots, ahead if higher_is_better else -ahead)
    signs = np.sign(ahead[ahead != 0])
    first = int(signs[0]) * (1 if higher_is_better else -1) if len(signs) else 0
    return Crossings(tuple(float(np.exp(one)) for one in found), first, (float(np.exp(low)), float(np.exp(high))))


def _unusable(array: Floats, who: str) -> str:
    if len(array) < 2:
        return f"{who}: {len(array)} point{'s' * (len(array) != 1)}, and at least 2 needed"
    if not np.isfinite(array).all() or (array[:, 0] <= 0).any():
        return f"{who}: a rate or value is not finite, or a rate is zero"
    if (np.diff(array[:, 0]) <= 0).any():
        return f"{who}: two points at one rate"
    return ""


def _sign_changes(at: Floats, ahead: Floats) -> list[float]:
    """Where a line through these points passes zero; of a run of zeros the middle, if the signs beside it differ."""
    known = np.flatnonzero(ahead)
    out = []
    for here, there in pairwise(known):
        if ahead[here] * ahead[there] < 0:
            if there == here + 1:
                share = ahead[here] / (ahead[here] - ahead[there])
                out.append(float(at[here] + share * (at[there] - at[here])))
            else:
                out.append(float(at[here + 1] + at[there - 1]) / 2)
    return out


def crossover(anchor: ImageCurve, test: ImageCurve, metric: str, *, resamples: int = bootstrap.RESAMPLES) -> Crossover:
    """The crossings of two codecs over the images that are complete in both, with the interval of a single one.

    >>> from rdpbench.setting import Setting
    >>> settings = tuple(Setting("q", float(n)) for n in range(3))
    >>> rates = np.outer([0.1, 0.4, 1.6], [1.0, 1.5, 0.7])
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, 30 + 10 * np.log10(rates))
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), rates, 30 + 8 * np.log10(rates))
    >>> found = crossover(first, second, "psnr", resamples=50)
    >>> found.found.first, round(found.found.rates[0], 2)
    (1, 1.05)
    """
    of = meaning(metric)
    images = common_images([anchor, test], of)
    if not images:
        return Crossover(test.codec, 0, Crossings((), 0, reason="no image has all points of both curves"))
    first, second = anchor.of(images), test.of(images)

    def cross(one: RateValues, other: RateValues) -> Crossings:
        return crossings(in_unit(of, one), in_unit(of, other), higher_is_better=of.higher_is_better)

    found = cross(means(of, first), means(of, second))
    if found.reason or len(images) < 2:
        return Crossover(test.codec, len(images), found, reason=found.reason or "one image has no interval")
    values = [weighed(curve.values, of.averaged) for curve in (first, second)]
    parts = np.concatenate([first.rates, values[0], second.rates, values[1]])
    edges = np.cumsum([len(first.rates), len(first.values), len(second.rates)])
    tries = []
    for block in bootstrap.resampled(parts.T, resamples):
        for line in block:
            one = np.split(line, edges)
            tries.append(cross(_pairs(one[0], one[1]), _pairs(one[2], one[3])))
    return _with_interval(test.codec, len(images), found, tries)


def _pairs(rates: Floats, values: Floats) -> list[tuple[float, float]]:
    return [(float(rate), float(value)) for rate, value in zip(rates, values, strict=True)]


def _with_interval(codec: str, images: int, found: Crossings, tries: Sequence[Crossings]) -> Crossover:
    alike = sum(not one.reason and (len(one.rates), one.first) == (len(found.rates), found.first) for one in tries)
    agree = alike / len(tries)
    if len(found.rates) != 1:
        return Crossover(codec, images, found, agree=agree)
    if images < bootstrap.SMALL:
        reason = f"{images} images, and resamples of fewer than {bootstrap.SMALL} tell too little"
        return Crossover(codec, images, found, agree=agree, reason=reason)
    places = np.array([_place(one, found.first) for one in tries])
    silent = int(np.isnan(places).sum())
    if silent > bootstrap.FAILED * len(tries):
        reason = f"{silent} of {len(tries)} resamples cross several times, or the other way round"
        return Crossover(codec, images, found, agree=agree, reason=reason)
    known = places[~np.isnan(places)]
    # Whole resamples, not between two: halfway to infinity is nowhere.
    low, high = np.quantile(known, bootstrap.shares(images), method="nearest")
    return Crossover(codec, images, found, float(low), float(high), agree)


def _place(one: Crossings, first: int) -> float:
    """Where a resample crosses; infinite for beyond the shared rates, NaN if it says nothing."""
    if one.reason or one.first == 0 or len(one.rates) > 1:
        return math.nan
    if one.rates:
        return one.rates[0] if one.first == first else math.nan
    return math.inf if one.first == first else -math.inf


def crossover_tables(
    points: Points, anchor: str, metrics: Sequence[str] = (), *, resamples: int = bootstrap.RESAMPLES
) -> list[Table]:
    """A table for each place and metric: where every codec crosses the anchor. Arguments and errors: `compared`."""
    out = []
    for one in compared(points, anchor, metrics):
        if one.points is not None:
            better = meaning(one.metric).higher_is_better
            base, count = one.points.get(anchor, []), len(one.images)
            found = [
                Crossover(name, count, crossings(base, one.points[name], higher_is_better=better))
                for name in one.others
            ]
        else:
            curves = one.curves
            found = [crossover(curves[anchor], curves[name], one.metric, resamples=resamples) for name in one.others]
        out.append(table(found, anchor, one.metric, one.where, one.notes))
    return out


def table(found: Sequence[Crossover], anchor: str, metric: str, where: str, said: Sequence[str] = ()) -> Table:
    """Crossings as a table; a letter where there is no rate or no interval leads to the reason below."""
    arrow = "↑" if meaning(metric).higher_is_better else "↓"
    header = (
        "codec",
        "images",
        f"crossover bpp under {metric} {arrow}",
        "better below",
        "better above",
        "shared bpp",
        "agree",
    )
    reasons: dict[str, str] = {}
    lines = []
    for one in found:
        names = _better(one, anchor)
        low, high = one.found.shared
        shared = "–" if math.isnan(low) else f"{low:.3g} to {high:.3g}"
        agree = "–" if math.isnan(one.agree) else f"{100 * one.agree:.0f} %"
        texts = (one.codec, str(one.images or "–"), _rates(one, reasons), *names, shared, agree)
        lines.append(tuple(Cell(text) for text in texts))
    notes = [f"({mark}) {reason}" for reason, mark in reasons.items()]
    if any(not math.isnan(one.agree) for one in found):
        notes.append("agree: resamples of the images in which the curves cross as often and in the same order")
    caption = f"{where}: where codecs cross {anchor} under {metric} (linear in log rate), 95 % intervals over images"
    if len({one.images for one in found}) > 1:
        notes.append("codecs are compared over other numbers of images with the anchor")
    return Table(caption, header, tuple(lines), (*notes, *said))


def _better(one: Crossover, anchor: str) -> tuple[str, str]:
    """Who is better at the lowest and at the highest shared rates."""
    if one.found.reason:
        return "–", "–"
    if one.found.first == 0:
        return "equal", "equal"
    ends = (one.codec, anchor) if one.found.first > 0 else (anchor, one.codec)
    return ends[0], ends[len(one.found.rates) % 2]


def _rates(one: Crossover, reasons: dict[str, str]) -> str:
    found = one.found
    if found.reason:
        return f"– ({letter(reasons, f'{one.codec}: {found.reason}')})"
    if len(found.rates) != 1:
        return ", ".join(f"{rate:.3g}" for rate in found.rates) or "none"
    text = f"{found.rates[0]:.3g}"
    if one.reason:
        return f"{text} ({letter(reasons, f'{one.codec}: no interval, {one.reason}')})"
    if math.isnan(one.low):
        return text
    low = f"{one.low:.3g}" if math.isfinite(one.low) else f"< {found.shared[0]:.3g}"
    high = f"{one.high:.3g}" if math.isfinite(one.high) else f"> {found.shared[1]:.3g}"
    return f"{text} [{low}, {high}]"

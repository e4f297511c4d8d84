"""Two codecs image by image: what one gives at the other's rate, and what it needs for the other's quality.

The matched pairs of an image are at the anchor's own points: its rate and its quality there are measured, and only the
other codec is interpolated, linearly on a log-rate axis between two of its points. Where these do not reach, or its
quality passes the wanted one more than once, the image is left out of that pair and counted; nothing is extrapolated.
Differences are per image, with a 95 % bootstrap interval over images. (Averages of curves compare other images' easy
parts with these images' hard ones; pairs do not.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rdpbench.errors import MetricError
from rdpbench.results import bootstrap
from rdpbench.results.bootstrap import Interval
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Floats, ImageCurve
from rdpbench.results.summary import usable, value_at
from rdpbench.results.tables import Cell, Table


@dataclass(frozen=True)
class Pair:
    """The other codec at one point of the anchor."""

    setting: str
    """The anchor's."""
    images: int
    """That both codecs have and that the anchor coded at this point."""
    at_rate: Interval | None
    """Difference of the metric at equal rate, in its unit; None if no image could be matched."""
    at_quality: Interval | None
    """Difference in rate at equal quality, in percent: of the geometric mean over images of the ratios."""


def rate_at(rates: Floats, values: Floats, value: float) -> float:
    """The rate at which a curve passes a value, linear in log rate; NaN if it never does, or more than once.

    >>> rate_at(np.array([0.1, 0.4]), np.array([30.0, 34.0]), 32.0)
    0.2
    """
    along, there = usable(rates, values)
    at, of = np.log(along), there - value
    if (of == 0).any():
        exact = np.flatnonzero(of == 0)
        crossings = int((np.sign(of[of != 0])[:-1] * np.sign(of[of != 0])[1:] < 0).sum())
        return float(np.exp(at[exact[0]])) if len(exact) == 1 and crossings <= 1 else math.nan
    turns = np.flatnonzero(of[:-1] * of[1:] < 0)
    if len(turns) != 1:
        return math.nan
    first = int(turns[0])
    share = of[first] / (of[first] - of[first + 1])
    return round(float(np.exp(at[first] + share * (at[first + 1] - at[first]))), 12)


def pairs(anchor: ImageCurve, test: ImageCurve, *, resamples: int = bootstrap.RESAMPLES) -> list[Pair]:
    """The other codec at each point of the anchor.

    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> from rdpbench.setting import Setting
    >>> settings = tuple(Setting("q", float(n)) for n in range(4))
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, values)
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), rates, values + 1)
    >>> round(pairs(first, second)[1].at_rate.value, 9)
    1.0
    """
    common = [image for image in anchor.images if image in set(test.images)]
    if not common:
        raise MetricError(f"matched pairs: {anchor.codec} and {test.codec} have no image in common")
    first, second = anchor.of(common), test.of(common)
    out = []
    for point, setting in enumerate(first.settings):
        gains, ratios, there = [], [], 0
        for image in range(len(common)):
            rate, value = float(first.rates[point, image]), float(first.values[point, image])
            if not (math.isfinite(rate) and math.isfinite(value)):
                continue
            there += 1
            column = second.rates[:, image], second.values[:, image]
            gains.append(value_at(*column, rate) - value)
            ratios.append(math.log(rate_at(*column, value) / rate))
        out.append(Pair(setting.words, there, _mean(gains, resamples), _percent(_mean(ratios, resamples))))
    return out


def _mean(values: list[float], resamples: int) -> Interval | None:
    known = [value for value in values if math.isfinite(value)]
    return bootstrap.mean(known, resamples=resamples) if known else None


def _percent(logs: Interval | None) -> Interval | None:
    """From the mean of log ratios to a difference in percent."""
    if logs is None:
        return None
    value, low, high = (100 * math.expm1(one) for one in (logs.value, logs.low, logs.high))
    return Interval(value, low, high, logs.n, logs.method, logs.resamples, logs.failed, reason=logs.reason)


def table(found: list[Pair], anchor: ImageCurve, test: ImageCurve, metric: str, where: str) -> Table:
    """The pairs as a table, with how many images could be matched."""
    unit, better = meaning(metric).unit, meaning(metric).higher_is_better
    header = (
        f"{anchor.codec} at",
        "images",
        f"{metric}{f' {unit}' if unit else ''} at its rate {'↑' if better else '↓'}",
        "matched",
        "rate % at its quality ↓",
        "matched",
    )
    digits = 2 if unit == "dB" else 4
    lines = []
    for one in found:
        cells = [Cell(one.setting), Cell(str(one.images))]
        for interval, places in ((one.at_rate, digits), (one.at_quality, 1)):
            cells += [Cell(_text(interval, places)), Cell(str(interval.n) if interval else "0")]
        lines.append(tuple(cells))
    caption = f"{where}: {test.codec} beside {anchor.codec} image by image, 95 % intervals over images"
    note = "matched: images on which its points reach the rate or quality; the others are left out of the mean"
    return Table(caption, header, tuple(lines), (note,))


def _text(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return "–"
    text = f"{interval.value:+.{digits}f}"
    return text if interval.reason else f"{text} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"

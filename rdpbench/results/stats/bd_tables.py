"""BD-rate and BD-metric of each codec against an anchor, with intervals over images, or the reason for no number.

Both curves are means over the same images: those that both codecs have at all their points. Intervals are 95 %
bootstrap over these images, drawn for both curves together (`rdpbench.results.stats.bootstrap`). A metric of sets has
no values per image: its delta is of the points' values and has no interval.

Two codecs image by image: what one gives at the other's rate, and what it needs for the other's quality.

The matched pairs of an image are at the anchor's own points: its rate and its quality there are measured, and only the
other codec is interpolated, linearly on a log-rate axis between two of its points. Where these do not reach, or its
quality passes the wanted one more than once, the image is left out of that pair and counted; nothing is extrapolated.
Differences are per image, with a 95 % bootstrap interval over images. (Averages of curves compare other images' easy
parts with these images' hard ones; pairs do not.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rdpbench.errors import MetricError, UnknownName
from rdpbench.metrics.contract import Meaning, stated, weighed
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bd import Delta, RateValues, bd_metric, bd_rate
from rdpbench.results.stats.bootstrap import Interval
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Floats, ImageCurve, Points, common, image_curves, titles
from rdpbench.results.stats.summary import compared as over_common_images
from rdpbench.results.stats.summary import usable, value_at
from rdpbench.results.tables import Cell, Table


@dataclass(frozen=True)
class Against:
    """One codec against the anchor under one metric."""

    codec: str
    images: tuple[str, ...]
    """In both curves; deltas over other images are not ranked with one another."""
    rate: Delta
    metric: Delta
    rate_interval: Interval | None = None
    """None for a metric of sets, or where there is no number."""
    metric_interval: Interval | None = None


def against(
    anchor: ImageCurve, test: ImageCurve, metric: str, *, method: str = "pchip", resamples: int = bootstrap.RESAMPLES
) -> Against:
    """Both deltas of two curves with their intervals, over the images that are complete in both.

    Raises:
        UnknownName: no such method.

    >>> import numpy as np
    >>> from rdpbench.setting import Setting
    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> settings = tuple(Setting("q", float(n)) for n in range(4))
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, values)
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), 0.9 * rates, values)
    >>> round(against(first, second, "psnr", resamples=20).rate.value, 6)
    -10.0
    """
    of = meaning(metric)
    images = common_images([anchor, test], of)
    if not images:
        none = Delta(math.nan, method, "no image has all points of both curves")
        return Against(test.codec, (), none, none)
    first, second = anchor.of(images), test.of(images)

    def rate(one: RateValues, other: RateValues) -> Delta:
        pair = in_unit(of, one), in_unit(of, other)
        return bd_rate(*pair, higher_is_better=of.higher_is_better, method=method)

    def value(one: RateValues, other: RateValues) -> Delta:
        return bd_metric(in_unit(of, one), in_unit(of, other), method=method)

    def interval(found: Delta, delta: Callable[[RateValues, RateValues], Delta]) -> Interval | None:
        if found.reason:
            return None
        one, other = ((side.rates, weighed(side.values, of.averaged)) for side in (first, second))
        bounds = (-100, math.inf) if delta is rate else bootstrap.REAL
        return bootstrap.of_curves(one, other, delta, bounds=bounds, resamples=resamples)

    by_rate, by_value = (delta(means(of, first), means(of, second)) for delta in (rate, value))
    intervals = interval(by_rate, rate), interval(by_value, value)
    return Against(test.codec, images, by_rate, by_value, *intervals)


def common_images(curves: Sequence[ImageCurve], of: Meaning) -> tuple[str, ...]:
    """Images that are complete in all curves, in the order of their names."""
    return tuple(sorted(set.intersection(*(set(curve.complete(of)) for curve in curves))))


def in_unit(of: Meaning, points: RateValues) -> RateValues:
    """Means of what is averaged, in the unit that the metric states.

    >>> round(in_unit(meaning("psnr-pooled"), [(0.5, 0.001)])[0][1], 9)
    30.0
    """
    return [(rate, float(stated(value, of.averaged))) for rate, value in points]


def means(of: Meaning, curve: ImageCurve) -> RateValues:
    """Rate of each point, and the mean of what is averaged (`in_unit` states it), over its images.

    >>> import numpy as np
    >>> from rdpbench.setting import Setting
    >>> settings = (Setting("q", 1),)
    >>> one = ImageCurve("a", settings, ("x", "y"), np.array([[0.1, 0.3]]), np.array([[30.0, 31.0]]))
    >>> means(meaning("psnr"), one)
    [(0.2, 30.5)]
    """
    values = weighed(curve.values, of.averaged).mean(axis=1)
    return list(zip(curve.rates.mean(axis=1).tolist(), values.tolist(), strict=True))


@dataclass(frozen=True)
class Compared:
    """The curves of one place under one metric, with the anchor's among them."""

    where: str
    metric: str
    others: tuple[str, ...]
    """The codecs but for the anchor, in the run's order."""
    curves: Mapping[str, ImageCurve]
    """Empty for a metric of sets."""
    points: Mapping[str, RateValues] | None = None
    """Of a metric of sets: it has no values per image. Those that are distances over the same images."""
    images: tuple[str, ...] = ()
    """Of these."""
    notes: tuple[str, ...] = ()


def compared(points: Points, anchor: str, metrics: Sequence[str] = ()) -> Iterator[Compared]:
    """What can be held against an anchor, by place and metric; nothing of random weights.

    Args:
        points: of any places.
        anchor: label of the curve that the others are held against.
        metrics: those to compare by; empty for all that were measured.

    Raises:
        UnknownName: no such curve or metric.
    """
    trained = points.only(lambda point: not point.random)
    codecs = list(dict.fromkeys(point.codec for point in trained.points))
    if anchor not in codecs:
        raise UnknownName("curve", anchor, codecs, "with trained weights in this run, that is")
    for metric in metrics:
        if metric not in trained.metrics:
            raise UnknownName("metric", metric, trained.metrics, "measured in this run, that is")
    for where, name in titles(trained.places).items():
        here = trained.at(where)
        there = list(dict.fromkeys(point.codec for point in here.points))
        if anchor not in there:
            continue
        title = name if f"({where.protocol}" in name else f"{name} ({where.protocol})"
        for metric in metrics or trained.metrics:
            if meaning(metric).kind == "set":
                of, images, notes = _points_of_sets(here, metric)
                others = tuple(codec for codec in there if codec != anchor)
                yield Compared(title, metric, others, {}, of, images, notes)
                continue
            # A point that was tried on a few images must not narrow its curve to them.
            shared = common({point: here.taken(point, metric).images for point in here.points})
            whole = replace(here, points=tuple(point for point in here.points if point in shared.keys))
            curves = image_curves(whole, metric)
            said = [f"{p.codec}, {p.setting.words}: {why}; left out" for p, why in shared.left_out.items()]
            if anchor in curves:
                others = tuple(codec for codec in curves if codec != anchor)
                yield Compared(title, metric, others, curves, notes=tuple(said))


def _points_of_sets(points: Points, metric: str) -> tuple[dict[str, RateValues], tuple[str, ...], tuple[str, ...]]:
    """The points' own values, as far as they can be relied on and are of the same images; these; and who is not."""
    lines, notes = over_common_images(points, [metric])
    lines = lines[lines["reliable"].astype(bool) & lines["value"].notna()]
    curves = {str(codec): list(zip(of["bpp"], of["value"], strict=True)) for codec, of in lines.groupby("codec")}
    there: dict[str, RateValues] = {
        codec: curves.get(codec, []) for codec in dict.fromkeys(point.codec for point in points.points)
    }
    images = next((points.taken(point, metric).images for point in points.points if curves.get(point.codec)), ())
    return there, images if len(lines) else (), tuple(notes)


def bd_tables(
    points: Points,
    anchor: str,
    metrics: Sequence[str] = (),
    *,
    method: str = "pchip",
    resamples: int = bootstrap.RESAMPLES,
) -> list[Table]:
    """A table for each place and metric: every codec against the anchor. Arguments as for `compared`.

    Raises:
        UnknownName: no such curve, metric or method (of interpolation, `rdpbench.results.stats.bd.METHODS`).
    """
    out = []
    for one in compared(points, anchor, metrics):
        if one.points is not None:
            found = [_of_points(one, anchor, name, method) for name in one.others]
        else:
            base = one.curves[anchor]
            how: dict[str, Any] = {"method": method, "resamples": resamples}
            found = [against(base, one.curves[name], one.metric, **how) for name in one.others]
        out.append(table(found, anchor, one.metric, one.where, method, one.notes))
    return out


def _of_points(one: Compared, anchor: str, codec: str, method: str) -> Against:
    assert one.points is not None
    pair = one.points.get(anchor, []), one.points[codec]
    better = meaning(one.metric).higher_is_better
    rate = bd_rate(*pair, higher_is_better=better, method=method)
    return Against(codec, one.images, rate, bd_metric(*pair, method=method))


def table(
    found: Sequence[Against], anchor: str, metric: str, where: str, method: str, said: Sequence[str] = ()
) -> Table:
    """Deltas as a table; a letter where there is no number leads to the reason below."""
    cls = meaning(metric)
    unit = f" {cls.unit}" if cls.unit else ""
    header = (
        "codec",
        "images",
        "BD-rate % ↓",
        "shared quality",
        f"BD-{metric}{unit} {'↑' if cls.higher_is_better else '↓'}",
        "shared rate",
    )
    reasons: dict[str, str] = {}
    ranks = [_ranks(found, "rate", falls=True), _ranks(found, "metric", falls=not cls.higher_is_better)]
    places = 2 if cls.unit == "dB" else 4
    lines = []
    for one in found:
        cells = [Cell(one.codec), Cell(str(len(one.images) or "–"))]
        for delta, interval, digits, rank in (
            (one.rate, one.rate_interval, 1, ranks[0]),
            (one.metric, one.metric_interval, places, ranks[1]),
        ):
            cells.append(_number(one.codec, delta, interval, digits, rank.get(one.codec, 0), reasons))
            shared = "–" if math.isnan(delta.fraction) else f"{100 * delta.fraction:.0f} %{'†' if delta.narrow else ''}"
            cells.append(Cell(shared))
        lines.append(tuple(cells))
    notes = [f"({letter}) {reason}" for reason, letter in reasons.items()]
    if any(delta.narrow for one in found for delta in (one.rate, one.metric)):
        notes.append("† the curves share less than three quarters of their range")
    if len({one.images for one in found if not one.rate.reason or not one.metric.reason}) > 1:
        notes.append("Over different images: bold and underlined only among deltas over the same images")
    caption = f"{where}: Bjøntegaard deltas under {metric} against {anchor} ({method}), 95 % intervals over images"
    return Table(caption, header, tuple(lines), (*notes, *said))


def _number(
    codec: str, delta: Delta, interval: Interval | None, digits: int, rank: int, reasons: dict[str, str]
) -> Cell:
    if delta.reason:
        return Cell(f"– ({letter(reasons, f'{codec}: {delta.reason}')})")
    text = f"{delta.value:+.{digits}f}"
    if interval is None:
        return Cell(text, rank)
    if interval.reason:
        return Cell(f"{text} ({letter(reasons, f'{codec}: no interval, {interval.reason}')})", rank)
    return Cell(f"{text} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]", rank)


def letter(reasons: dict[str, str], reason: str) -> str:
    """A letter for each reason; after z, aa.

    >>> reasons = {}
    >>> [letter(reasons, why) for why in ("flat", "short", "flat")], len(reasons)
    (['a', 'b', 'a'], 2)
    """
    count = len(reasons)
    name = (chr(ord("a") + count // 26 - 1) if count >= 26 else "") + chr(ord("a") + count % 26)
    return reasons.setdefault(reason, name)


def _ranks(found: Sequence[Against], which: str, *, falls: bool) -> dict[str, int]:
    """Best and second of the codecs that have a number over the images that most of them are compared over."""
    there = [(one.codec, one.images, getattr(one, which).value) for one in found if not getattr(one, which).reason]
    sets = [images for _, images, _ in there]
    if not sets:
        return {}
    most = max(sets, key=lambda images: (sets.count(images), len(images), images))
    values = {codec: value for codec, images, value in there if images == most}
    order = sorted(set(values.values()), reverse=not falls)[:2]
    return (
        {codec: order.index(value) + 1 for codec, value in values.items() if value in order} if len(values) > 1 else {}
    )


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


def matched_table(found: list[Pair], anchor: ImageCurve, test: ImageCurve, metric: str, where: str) -> Table:
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

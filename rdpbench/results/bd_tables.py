"""BD-rate and BD-metric of each codec against an anchor, with intervals over images, or the reason for no number.

Both curves are means over the same images: those that both codecs have at all their points. Intervals are 95 %
bootstrap over these images, drawn for both curves together (`rdpbench.results.bootstrap`). A metric of sets has no
values per image: its delta is of the points' values and has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdpbench import registry
from rdpbench.errors import UnknownName
from rdpbench.results import bootstrap
from rdpbench.results.bd import Delta, Points, bd_metric, bd_rate
from rdpbench.results.bootstrap import Interval
from rdpbench.results.image_curves import ImageCurve, image_curves
from rdpbench.results.schema import Row, Score
from rdpbench.results.tables import Cell, Table, untrained

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Against:
    """One codec against the anchor under one metric."""

    codec: str
    images: int
    """In both curves; 0 where that is not known."""
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
    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> first = ImageCurve("a", (("q", 1, None),) * 4, ("x", "y", "z"), rates, values)
    >>> second = ImageCurve("b", (("q", 1, None),) * 4, ("x", "y", "z"), 0.9 * rates, values)
    >>> round(against(first, second, "psnr", resamples=20).rate.value, 6)
    -10.0
    """
    of = meaning(metric)
    common = [image for image in anchor.complete if image in set(test.complete)]
    if not common:
        none = Delta(math.nan, method, "no image has all points of both curves")
        return Against(test.codec, 0, none, none)
    first, second = anchor.of(common), test.of(common)

    def rate(one: Points, other: Points) -> Delta:
        better = bool(of.higher_is_better)
        return bd_rate(reduced(of, one), reduced(of, other), higher_is_better=better, method=method)

    def value(one: Points, other: Points) -> Delta:
        return bd_metric(reduced(of, one), reduced(of, other), method=method)

    def interval(found: Delta, delta: Callable[[Points, Points], Delta]) -> Interval | None:
        if found.reason:
            return None
        return bootstrap.of_curves(
            *((first.rates, first.values), (second.rates, second.values), delta),
            bounds=(-100, math.inf) if delta is rate else bootstrap.REAL,
            resamples=resamples,
        )

    by_rate, by_value = (delta(means(first), means(second)) for delta in (rate, value))
    return Against(test.codec, len(common), by_rate, by_value, interval(by_rate, rate), interval(by_value, value))


def meaning(metric: str) -> Any:
    """The metric's class, with its unit and direction.

    >>> int(meaning("lpips/alex").higher_is_better)
    0
    """
    return registry.load("metric", metric)


def reduced(cls: Any, points: Points) -> Points:
    """Means over images as the metric states them: of a pooled PSNR the decibels of the mean error.

    >>> round(reduced(meaning("psnr-pooled"), [(0.5, 65.025)])[0][1], 9)
    30.0
    """
    return [(rate, cls().reduce([value])) for rate, value in points]


def means(curve: ImageCurve) -> Points:
    """Rate and value of each point, as means over its images.

    >>> import numpy as np
    >>> one = ImageCurve("a", (("q", 1, None),), ("x", "y"), np.array([[0.1, 0.3]]), np.array([[30.0, 31.0]]))
    >>> means(one)
    [(0.2, 30.5)]
    """
    return list(zip(curve.rates.mean(axis=1).tolist(), curve.values.mean(axis=1).tolist(), strict=True))


@dataclass(frozen=True)
class Compared:
    """The curves of one dataset under one metric, with the anchor's among them."""

    where: str
    metric: str
    others: tuple[str, ...]
    """The codecs but for the anchor, in the run's order."""
    curves: Mapping[str, ImageCurve]
    """Empty for a metric of sets."""
    points: Mapping[str, Points] | None = None
    """Of a metric of sets: it has no values per image."""


def compared(
    frame: pd.DataFrame, rows: Sequence[Row], scores: Iterable[Score], anchor: str, metrics: Sequence[str] = ()
) -> Iterator[Compared]:
    """What can be held against an anchor, by dataset and metric; nothing of random weights.

    Args:
        frame: points of `rdpbench.results.summary.summarise`.
        rows: what they are means of.
        scores: of these rows.
        anchor: label of the curve that the others are held against.
        metrics: those to compare by; empty for all that were measured.

    Raises:
        UnknownName: no such curve or metric.
    """
    trained = frame[~untrained(frame)]
    codecs = list(dict.fromkeys(trained["codec"]))
    if anchor not in codecs:
        raise UnknownName("curve", anchor, codecs, "with trained weights in this run, that is")
    known = [metric for metric in dict.fromkeys(trained["metric"]) if metric]
    for metric in metrics:
        if metric not in known:
            raise UnknownName("metric", metric, known, "measured in this run, that is")
    scores = list(scores)
    for (dataset, protocol), points in trained.groupby(["dataset", "protocol"], sort=False):
        here = [row for row in rows if (row.dataset, row.protocol) == (dataset, protocol)]
        here = [row for row in here if row.weights != "random"]
        if anchor not in set(points["codec"]):
            continue
        for metric in metrics or known:
            where = f"{dataset} ({protocol})"
            if getattr(meaning(metric), "kind", "pair") == "set":
                of = _points_of_sets(points[points["metric"] == metric])
                yield Compared(where, metric, tuple(name for name in of if name != anchor), {}, of)
                continue
            curves = image_curves(here, scores, metric)
            if anchor in curves:
                yield Compared(where, metric, tuple(name for name in curves if name != anchor), curves)


def _points_of_sets(points: pd.DataFrame) -> dict[str, Points]:
    """The points' own values, as far as they can be relied on."""
    usable = points[points["reliable"] & points["value"].notna()]
    curves = {str(codec): list(zip(of["bpp"], of["value"], strict=True)) for codec, of in usable.groupby("codec")}
    return {codec: curves.get(codec, []) for codec in dict.fromkeys(points["codec"])}


def bd_tables(
    frame: pd.DataFrame,
    rows: Sequence[Row],
    scores: Iterable[Score],
    anchor: str,
    metrics: Sequence[str] = (),
    *,
    method: str = "pchip",
    resamples: int = bootstrap.RESAMPLES,
) -> list[Table]:
    """A table for each dataset and metric: every codec against the anchor. Arguments as for `compared`.

    Raises:
        UnknownName: no such curve, metric or method (of interpolation, `rdpbench.results.bd.METHODS`).
    """
    out = []
    for one in compared(frame, rows, scores, anchor, metrics):
        if one.points is not None:
            found = [_of_points(one.points, anchor, name, one.metric, method) for name in one.others]
        else:
            base = one.curves[anchor]
            how: dict[str, Any] = {"method": method, "resamples": resamples}
            found = [against(base, one.curves[name], one.metric, **how) for name in one.others]
        out.append(table(found, anchor, one.metric, one.where, method))
    return out


def _of_points(points: Mapping[str, Points], anchor: str, codec: str, metric: str, method: str) -> Against:
    pair = points.get(anchor, []), points[codec]
    better = bool(meaning(metric).higher_is_better)
    rate = bd_rate(*pair, higher_is_better=better, method=method)
    return Against(codec, 0, rate, bd_metric(*pair, method=method))


def table(found: Sequence[Against], anchor: str, metric: str, where: str, method: str) -> Table:
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
        cells = [Cell(one.codec), Cell(str(one.images) if one.images else "–")]
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
    if len({one.images for one in found}) > 1:
        notes.append("Over different images: bold and underlined only among equal numbers of images")
    caption = f"{where}: Bjøntegaard deltas under {metric} against {anchor} ({method}), 95 % intervals over images"
    return Table(caption, header, tuple(lines), tuple(notes))


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
    """Best and second of the codecs that have a number over the most common count of images."""
    there = [(one.codec, one.images, getattr(one, which).value) for one in found if not getattr(one, which).reason]
    counts = [images for _, images, _ in there]
    values = {codec: value for codec, images, value in there if images == max(counts, key=counts.count)}
    order = sorted(set(values.values()), reverse=not falls)[:2]
    return (
        {codec: order.index(value) + 1 for codec, value in values.items() if value in order} if len(values) > 1 else {}
    )

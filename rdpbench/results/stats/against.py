"""Every codec against an anchor: BD-rate and BD-metric, the rates at which they cross, and pairs image by image.

Curves are means over the same images: those that both codecs have at all their points. Intervals are 95 % bootstrap
over these images, drawn for both curves together. A metric of sets has no values per image: what is said of it is of
the points' values and has no interval.

**Crossover rate.** Between its points a curve is linear in the log of the rate; beyond them it is nothing. A crossing
is a rate at which the difference of two curves changes its sign; touching is none. There may be none, or several: both
are said. The interval is of a single crossing. A resample whose curves do not cross counts as beyond the shared rates,
on the side that the better codec says, so an end of the interval may be open. Resamples that cross several times, or
the other way round, say nothing; where they are more than 5 %, there is no interval.

**Pairs** of an image are at the anchor's own points: its rate and its quality there are measured, and only the other
codec is interpolated. Where its points do not reach, or its quality passes the wanted one more than once, the image is
left out of that pair and counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rdpbench.errors import MetricError, check_names
from rdpbench.metrics.contract import Meaning, short_name, stated, weighed
from rdpbench.results.names import arrow
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bd import Delta, Floats, RateValues, bd_metric, bd_rate, rate_at, sign_changes, value_at
from rdpbench.results.stats.bootstrap import Interval
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import ImageCurve, Points, common, image_curves, titles
from rdpbench.results.stats.summary import compared as over_common_images
from rdpbench.results.tables import Cell, Table, best_two


@dataclass(frozen=True)
class AnchorCurves:
    """The curves of one place under one metric, with the anchor's among them."""

    where: str
    metric: str
    others: tuple[str, ...]
    """The codecs but for the anchor, in the run's order."""
    curves: Mapping[str, ImageCurve]
    """Empty for a metric of sets."""
    points: Mapping[str, RateValues] | None = None
    """Of a metric of sets: its values per point, as far as they are over the same images."""
    images: tuple[str, ...] = ()
    """Of these."""
    notes: tuple[str, ...] = ()


def check_metrics(points: Points, metrics: Sequence[str]) -> None:
    """Raise `UnknownName` for a metric that was not measured."""
    hint = f"measured in this run, that is; `rdpbench score ... metrics={','.join(metrics)}` adds another to it"
    check_names("metric", metrics, points.metrics, hint)


def anchor_curves(points: Points, anchor: str, metrics: Sequence[str] = ()) -> Iterator[AnchorCurves]:
    """What can be held against the curve of that label, by place and metric (default: all that were measured).

    Networks with random weights, and rates that are not proven, are left out.

    Raises:
        UnknownName: no such curve or metric.
    """
    trained = points.only(lambda point: point.competes)
    codecs = list(dict.fromkeys(point.codec for point in trained.points))
    check_names("curve", [anchor], codecs, "in this run with trained weights and proven rates")
    check_metrics(trained, metrics)
    for where, name in titles(trained.places).items():
        here = trained.at(where)
        codecs = list(dict.fromkeys(point.codec for point in here.points))
        if anchor not in codecs:
            continue
        title = name if f"({where.protocol}" in name else f"{name} ({where.protocol})"
        for metric in metrics or trained.metrics:
            if meaning(metric).kind == "set":
                lines, left_out = over_common_images(here, [metric])
                lines = lines[lines["reliable"].astype(bool) & lines["value"].notna()]
                of_codec: dict[str, RateValues] = dict.fromkeys(codecs, ())
                for codec, along in lines.groupby("codec"):
                    of_codec[str(codec)] = list(zip(along["bpp"], along["value"], strict=True))
                images = next((here.taken(p, metric).images for p in here.points if of_codec[p.codec]), ())
                others = tuple(codec for codec in codecs if codec != anchor)
                yield AnchorCurves(title, metric, others, {}, of_codec, images, tuple(left_out))
                continue
            # A point that was tried on a few images must not narrow its curve to them.
            shared = common({point: here.taken(point, metric).images for point in here.points})
            whole = replace(here, points=tuple(point for point in here.points if point in shared.keys))
            curves = image_curves(whole, metric)
            notes = tuple(f"{p.codec}, {p.setting.words}: {why}; left out" for p, why in shared.left_out.items())
            if curves:  # where the anchor is left out, the notes say why nothing is held against it
                others = tuple(codec for codec in curves if codec != anchor and anchor in curves)
                yield AnchorCurves(title, metric, others, curves, notes=notes)


def whole_in_both(anchor: ImageCurve, test: ImageCurve, meant: Meaning) -> list[ImageCurve]:
    """Both curves over the images that are complete in both, in the order of their names."""
    ours, theirs = anchor.complete(meant), test.complete(meant)
    images = ours if ours == theirs else sorted(set(ours) & set(theirs))
    return [anchor.of(images), test.of(images)]


def in_unit(meant: Meaning, points: RateValues) -> RateValues:
    """Means of what is averaged, in the unit that the metric states.

    >>> round(in_unit(meaning("psnr-pooled"), [(0.5, 0.001)])[0][1], 9)
    30.0
    """
    return [(rate, float(stated(value, meant.averaged))) for rate, value in points]


def means(meant: Meaning, curve: ImageCurve) -> RateValues:
    """Rate of each point, and the mean of what is averaged (`in_unit` states it), over its images.

    >>> from rdpbench.setting import Setting
    >>> curve = ImageCurve("a", (Setting("q", 1),), ("x", "y"), np.array([[0.1, 0.3]]), np.array([[30.0, 31.0]]))
    >>> means(meaning("psnr"), curve)
    [(0.2, 30.5)]
    """
    values = weighed(curve.values, meant.averaged).mean(axis=1)
    return list(zip(curve.rates.mean(axis=1).tolist(), values.tolist(), strict=True))


NO_IMAGE = "no image has all points of both curves"


# BD-rate and BD-metric


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

    >>> from rdpbench.setting import Setting
    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> settings = tuple(Setting("q", float(n)) for n in range(4))
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, values)
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), 0.9 * rates, values)
    >>> round(against(first, second, "psnr", resamples=20).rate.value, 6)
    -10.0
    """
    meant = meaning(metric)
    sides = whole_in_both(anchor, test, meant)
    if not sides[0].images:
        none = Delta(math.nan, method, NO_IMAGE)
        return Against(test.codec, (), none, none)

    def rate(first: RateValues, second: RateValues) -> Delta:
        pair = in_unit(meant, first), in_unit(meant, second)
        return bd_rate(*pair, higher_is_better=meant.higher_is_better, method=method)

    def value(first: RateValues, second: RateValues) -> Delta:
        return bd_metric(in_unit(meant, first), in_unit(meant, second), method=method)

    def interval(delta: Callable[[RateValues, RateValues], Delta], bounds: bootstrap.Bounds) -> Interval:
        first, second = ((side.rates, weighed(side.values, meant.averaged)) for side in sides)
        return bootstrap.of_curves(first, second, delta, bounds=bounds, resamples=resamples)

    first, second = (means(meant, side) for side in sides)
    by_rate, by_value = rate(first, second), value(first, second)
    rate_interval = None if by_rate.reason else interval(rate, (-100, math.inf))
    metric_interval = None if by_value.reason else interval(value, bootstrap.REAL)
    return Against(test.codec, sides[0].images, by_rate, by_value, rate_interval, metric_interval)


def bd_tables(
    points: Points,
    anchor: str,
    metrics: Sequence[str] = (),
    *,
    method: str = "pchip",
    resamples: int = bootstrap.RESAMPLES,
) -> list[Table]:
    """A table for each place and metric: every codec against the anchor. Raises as `anchor_curves` and `bd_rate`."""
    tables = []
    for held in anchor_curves(points, anchor, metrics):
        metric, curves = held.metric, held.curves
        if held.points is None:
            pairs = [(curves[anchor], curves[name]) for name in held.others]
            rows = [against(*pair, metric, method=method, resamples=resamples) for pair in pairs]
        else:
            rows = []
            for name in held.others:
                pair = held.points[anchor], held.points[name]
                rate = bd_rate(*pair, higher_is_better=meaning(metric).higher_is_better, method=method)
                rows.append(Against(name, held.images, rate, bd_metric(*pair, method=method)))
        tables.append(bd_table(rows, anchor, metric, held.where, method, held.notes))
    return tables


def at_a_glance(points: Points, metrics: Sequence[str], anchor: str = "jpeg") -> list[Table]:
    """The BD-rate of each codec against JPEG, a column for each metric of pairs; nothing where it was not measured.

    Codecs that share other images with the anchor than most do are not ranked.
    """
    if anchor not in {point.codec for point in points.points if point.competes}:
        return []
    of_pairs = [metric for metric in metrics if metric in points.metrics and meaning(metric).kind != "set"]
    columns: dict[str, dict[str, dict[str, tuple[float, tuple[str, ...]]]]] = {}
    for held in anchor_curves(points, anchor, of_pairs):
        known = columns.setdefault(held.where, {}).setdefault(held.metric, {})
        for name in held.others:
            meant = meaning(held.metric)
            sides = whole_in_both(held.curves[anchor], held.curves[name], meant)
            pair = [in_unit(meant, means(meant, side)) for side in sides] if sides[0].images else []
            if pair:
                delta = bd_rate(*pair, higher_is_better=meant.higher_is_better)
                known[name] = math.nan if delta.reason else delta.value, sides[0].images
    tables = []
    for where, by_metric in columns.items():
        lines = {name: [Cell(name)] for known in by_metric.values() for name in known}
        notes = [f"intervals, and why there is no number: rdpbench bd RUN --anchor {anchor}"]
        for known in by_metric.values():
            finite = {name: delta for name, delta in known.items() if not math.isnan(delta[0])}
            [(most, _)] = Counter(images for _, images in finite.values()).most_common(1) or [((), 0)]
            like = {name: value for name, (value, images) in finite.items() if images == most}
            ranks = best_two(like, higher_is_better=False)
            for name, cells in lines.items():
                text = f"{finite[name][0]:+.1f}{'' if name in like else '*'}" if name in finite else "–"
                cells.append(Cell(text, ranks.get(name, 0)))
            counts = sorted({len(images) for _, images in finite.values() if images != most})
            notes += [f"* over {n} images shared with {anchor}, not ranked with those over {len(most)}" for n in counts]
        caption = f"{where}: BD-rate against {anchor}, % of bits at equal quality by each metric ↓"
        if lines:
            header = ("codec", *map(short_name, by_metric))
            tables.append(Table(caption, header, tuple(map(tuple, lines.values())), tuple(dict.fromkeys(notes))))
    return tables


def bd_table(
    rows: Sequence[Against], anchor: str, metric: str, where: str, method: str, notes: Sequence[str] = ()
) -> Table:
    """Deltas as a table; a letter where there is no number leads to the reason below."""
    meant = meaning(metric)
    name = f"BD-{metric}{f' {meant.unit}' if meant.unit else ''} {arrow(meant.higher_is_better)}"
    header = ("codec", "images", "BD-rate % ↓", "shared quality", name, "shared rate")
    reasons: dict[str, str] = {}
    rate_ranks, metric_ranks = _ranks(rows, "rate", False), _ranks(rows, "metric", meant.higher_is_better)
    lines = []
    for row in rows:
        cells = [Cell(row.codec), Cell(str(len(row.images) or "–"))]
        for delta, interval, digits, ranks in (
            (row.rate, row.rate_interval, 1, rate_ranks),
            (row.metric, row.metric_interval, 2 if meant.unit == "dB" else 4, metric_ranks),
        ):
            cells.append(_delta(row.codec, delta, interval, digits, ranks.get(row.codec, 0), reasons))
            shared = "–" if math.isnan(delta.fraction) else f"{100 * delta.fraction:.0f} %{'†' if delta.narrow else ''}"
            cells.append(Cell(shared))
        lines.append(tuple(cells))
    below = [f"({letter}) {reason}" for reason, letter in reasons.items()]
    if any(delta.narrow for row in rows for delta in (row.rate, row.metric)):
        below.append("† the curves share less than three quarters of their range")
    if len({row.images for row in rows if not row.rate.reason or not row.metric.reason}) > 1:
        below.append("Over different images: bold and underlined only among deltas over the same images")
    caption = f"{where}: Bjøntegaard deltas under {metric} against {anchor} ({method}), 95 % intervals over images"
    return Table(caption, header, tuple(lines), (*below, *notes))


def _delta(
    codec: str, delta: Delta, interval: Interval | None, digits: int, rank: int, reasons: dict[str, str]
) -> Cell:
    if delta.reason:
        return Cell(f"– ({letter(reasons, f'{codec}: {delta.reason}')})")
    if interval is None or not interval.reason:
        return Cell(_signed(delta.value, interval, digits), rank)
    return Cell(f"{delta.value:+.{digits}f} ({letter(reasons, f'{codec}: no interval, {interval.reason}')})", rank)


def _signed(value: float, interval: Interval | None, digits: int) -> str:
    text = f"{value:+.{digits}f}"
    if interval is None or interval.reason:
        return text
    return f"{text} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


def letter(reasons: dict[str, str], reason: str) -> str:
    """A letter for each reason; after z, aa.

    >>> reasons = {}
    >>> [letter(reasons, why) for why in ("flat", "short", "flat")], len(reasons)
    (['a', 'b', 'a'], 2)
    """
    count = len(reasons)
    name = (chr(ord("a") + count // 26 - 1) if count >= 26 else "") + chr(ord("a") + count % 26)
    return reasons.setdefault(reason, name)


def _ranks(rows: Sequence[Against], which: str, higher_is_better: bool) -> dict[str, int]:
    """Best and second of the codecs that have a number over the images that most of them are compared over."""
    known = [(row.codec, row.images, getattr(row, which).value) for row in rows if not getattr(row, which).reason]
    sets = [images for _, images, _ in known]
    most = max(sets, key=lambda images: (sets.count(images), len(images), images), default=())
    return best_two({codec: value for codec, images, value in known if images == most}, higher_is_better)


# Where curves cross


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
    crossings: Crossings
    low: float = math.nan
    """95 % interval of a single crossing; minus infinity where it is open. NaN for no interval."""
    high: float = math.nan
    agree: float = math.nan
    """Share of resamples with as many crossings in the same order; NaN without resamples."""
    reason: str = ""
    """Why a single crossing has no interval."""


EQUAL = 1e-12
"""Values nearer to each other, relative to the largest, are equal: interpolation rounds."""


def crossings(anchor: RateValues, test: RateValues, *, higher_is_better: bool = True) -> Crossings:
    """Where two curves cross, by rising rate.

    >>> anchor, test = [(0.1, 30.0), (1.6, 42.0)], [(0.1, 31.0), (1.6, 41.0)]
    >>> both = crossings(anchor, test)
    >>> [round(rate, 9) for rate in both.rates], both.first
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
    ahead = ahead if higher_is_better else -ahead
    first = next((int(sign) for sign in np.sign(ahead) if sign), 0)
    crossed = tuple(float(np.exp(log)) for log in sign_changes(knots, ahead))
    return Crossings(crossed, first, (float(np.exp(low)), float(np.exp(high))))


def _unusable(array: Floats, who: str) -> str:
    if len(array) < 2:
        return f"{who}: {len(array)} point{'s' * (len(array) != 1)}, and at least 2 needed"
    if not np.isfinite(array).all() or (array[:, 0] <= 0).any():
        return f"{who}: a rate or value is not finite, or a rate is zero"
    return f"{who}: two points at one rate" if (np.diff(array[:, 0]) <= 0).any() else ""


def crossover(anchor: ImageCurve, test: ImageCurve, metric: str, *, resamples: int = bootstrap.RESAMPLES) -> Crossover:
    """The crossings of two codecs over the images that are complete in both, with the interval of a single one.

    >>> from rdpbench.setting import Setting
    >>> settings = tuple(Setting("q", float(n)) for n in range(3))
    >>> rates = np.outer([0.1, 0.4, 1.6], [1.0, 1.5, 0.7])
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, 30 + 10 * np.log10(rates))
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), rates, 30 + 8 * np.log10(rates))
    >>> both = crossover(first, second, "psnr", resamples=50).crossings
    >>> both.first, round(both.rates[0], 2)
    (1, 1.05)
    """
    meant = meaning(metric)
    first, second = whole_in_both(anchor, test, meant)
    images = first.images
    if not images:
        return Crossover(test.codec, 0, Crossings((), 0, reason=NO_IMAGE))

    def cross(one: RateValues, other: RateValues) -> Crossings:
        return crossings(in_unit(meant, one), in_unit(meant, other), higher_is_better=meant.higher_is_better)

    whole = cross(means(meant, first), means(meant, second))
    result = Crossover(test.codec, len(images), whole)
    if whole.reason or len(images) < 2:
        return replace(result, reason=whole.reason or "one image has no interval")
    stacked, split = bootstrap.stack(*((side.rates, weighed(side.values, meant.averaged)) for side in (first, second)))
    tries = [cross(*split(line)) for block in bootstrap.resampled(stacked, resamples) for line in block]
    alike = sum(not each.reason and (len(each.rates), each.first) == (len(whole.rates), whole.first) for each in tries)
    result = replace(result, agree=alike / len(tries))
    if len(whole.rates) != 1:
        return result
    if len(images) < bootstrap.SMALL:
        few = f"{len(images)} images, and resamples of fewer than {bootstrap.SMALL} tell too little"
        return replace(result, reason=few)
    places = np.array([_place(each, whole.first) for each in tries])
    silent = int(np.isnan(places).sum())
    if silent > bootstrap.FAILED * len(tries):
        reason = f"{silent} of {len(tries)} resamples cross several times, or the other way round"
        return replace(result, reason=reason)
    # Whole resamples, not between two: halfway to infinity is nowhere.
    low, high = np.quantile(places[~np.isnan(places)], bootstrap.shares(len(images)), method="nearest")
    return replace(result, low=float(low), high=float(high))


def _place(resample: Crossings, first: int) -> float:
    """Where a resample crosses; infinite for beyond the shared rates, NaN if it says nothing."""
    if resample.reason or resample.first == 0 or len(resample.rates) > 1:
        return math.nan
    if resample.rates:
        return resample.rates[0] if resample.first == first else math.nan
    return math.inf if resample.first == first else -math.inf


def crossover_tables(
    points: Points, anchor: str, metrics: Sequence[str] = (), *, resamples: int = bootstrap.RESAMPLES
) -> list[Table]:
    """A table for each place and metric: where every codec crosses the anchor. As `anchor_curves`."""
    tables = []
    for held in anchor_curves(points, anchor, metrics):
        metric, curves = held.metric, held.curves
        if held.points is None:
            rows = [crossover(curves[anchor], curves[name], metric, resamples=resamples) for name in held.others]
        else:
            better, base = meaning(metric).higher_is_better, held.points[anchor]
            both = {name: crossings(base, held.points[name], higher_is_better=better) for name in held.others}
            rows = [Crossover(name, len(held.images), found) for name, found in both.items()]
        tables.append(crossover_table(rows, anchor, metric, held.where, held.notes))
    return tables


def crossover_table(
    rows: Sequence[Crossover], anchor: str, metric: str, where: str, notes: Sequence[str] = ()
) -> Table:
    """Crossings as a table; a letter where there is no rate or no interval leads to the reason below."""
    name = f"crossover bpp under {metric} {arrow(meaning(metric).higher_is_better)}"
    header = ("codec", "images", name, "better below", "better above", "shared bpp", "agree")
    reasons: dict[str, str] = {}
    lines = []
    for row in rows:
        low, high = row.crossings.shared
        shared = "–" if math.isnan(low) else f"{low:.3g} to {high:.3g}"
        agree = "–" if math.isnan(row.agree) else f"{100 * row.agree:.0f} %"
        lines.append((row.codec, row.images or "–", _rates(row, reasons), *_better(row, anchor), shared, agree))
    below = [f"({mark}) {reason}" for reason, mark in reasons.items()]
    if any(not math.isnan(row.agree) for row in rows):
        below.append("agree: resamples of the images in which the curves cross as often and in the same order")
    if len({row.images for row in rows}) > 1:
        below.append("codecs are compared over other numbers of images with the anchor")
    caption = f"{where}: where codecs cross {anchor} under {metric} (linear in log rate), 95 % intervals over images"
    return Table.of_texts(caption, header, lines, [*below, *notes])


def _better(row: Crossover, anchor: str) -> tuple[str, str]:
    """Who is better at the lowest and at the highest shared rates."""
    if row.crossings.reason:
        return "–", "–"
    if row.crossings.first == 0:
        return "equal", "equal"
    ends = (row.codec, anchor) if row.crossings.first > 0 else (anchor, row.codec)
    return ends[0], ends[len(row.crossings.rates) % 2]


def _rates(row: Crossover, reasons: dict[str, str]) -> str:
    both = row.crossings
    if both.reason:
        return f"– ({letter(reasons, f'{row.codec}: {both.reason}')})"
    text = ", ".join(f"{rate:.3g}" for rate in both.rates) or "none"
    if len(both.rates) != 1:
        return text
    if row.reason:
        return f"{text} ({letter(reasons, f'{row.codec}: no interval, {row.reason}')})"
    if math.isnan(row.low):
        return text
    low = f"{row.low:.3g}" if math.isfinite(row.low) else f"< {both.shared[0]:.3g}"
    high = f"{row.high:.3g}" if math.isfinite(row.high) else f"> {both.shared[1]:.3g}"
    return f"{text} [{low}, {high}]"


# Image by image


@dataclass(frozen=True)
class MatchedPoint:
    """The other codec at one point of the anchor."""

    setting: str
    """The anchor's."""
    images: int
    """That both codecs have and that the anchor coded at this point."""
    at_rate: Interval | None
    """Difference of the metric at equal rate, in its unit; None if no image could be matched."""
    at_quality: Interval | None
    """Difference in rate at equal quality, in percent: of the geometric mean over images of the ratios."""


def matched_points(anchor: ImageCurve, test: ImageCurve, *, resamples: int = bootstrap.RESAMPLES) -> list[MatchedPoint]:
    """The other codec at each point of the anchor.

    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> from rdpbench.setting import Setting
    >>> settings = tuple(Setting("q", float(n)) for n in range(4))
    >>> first = ImageCurve("a", settings, ("x", "y", "z"), rates, values)
    >>> second = ImageCurve("b", settings, ("x", "y", "z"), rates, values + 1)
    >>> round(matched_points(first, second)[1].at_rate.value, 9)
    1.0
    """
    shared = [image for image in anchor.images if image in set(test.images)]
    if not shared:
        raise MetricError(f"matched pairs: {anchor.codec} and {test.codec} have no image in common")
    first, second = anchor.of(shared), test.of(shared)
    rows = []
    for setting, rates, values in zip(first.settings, first.rates.tolist(), first.values.tolist(), strict=True):
        gains, ratios, there = [], [], 0
        for number, (rate, value) in enumerate(zip(rates, values, strict=True)):
            if math.isfinite(rate) and math.isfinite(value):
                there += 1
                column = second.rates[:, number], second.values[:, number]
                gains.append(value_at(*column, rate) - value)
                ratios.append(math.log(rate_at(*column, value) / rate))
        rows.append(MatchedPoint(setting.words, there, _mean(gains, resamples), _percent(_mean(ratios, resamples))))
    return rows


def _mean(values: Sequence[float], resamples: int) -> Interval | None:
    known = [value for value in values if math.isfinite(value)]
    return bootstrap.mean(known, resamples=resamples) if known else None


def _percent(logs: Interval | None) -> Interval | None:
    """From the mean of log ratios to a difference in percent."""
    if logs is None:
        return None
    value, low, high = (100 * math.expm1(log) for log in (logs.value, logs.low, logs.high))
    return replace(logs, value=value, low=low, high=high)


def matched_tables(
    points: Points, anchor: str, metrics: Sequence[str] = (), *, resamples: int = bootstrap.RESAMPLES
) -> list[Table]:
    """A table for each place, metric of pairs and codec. As `anchor_curves`."""
    tables = []
    for held in anchor_curves(points, anchor, metrics):
        for codec in held.others if held.curves else ():
            pair = held.curves[anchor], held.curves[codec]
            tables.append(matched_table(matched_points(*pair, resamples=resamples), *pair, held.metric, held.where))
    return tables


def matched_table(rows: Sequence[MatchedPoint], anchor: ImageCurve, test: ImageCurve, metric: str, where: str) -> Table:
    """The pairs as a table, with how many images could be matched."""
    meant = meaning(metric)
    name = f"{metric}{f' {meant.unit}' if meant.unit else ''} at its rate {arrow(meant.higher_is_better)}"
    header = (f"{anchor.codec} at", "images", name, "matched", "rate % at its quality ↓", "matched")
    lines = []
    for row in rows:
        cells = [Cell(row.setting), Cell(str(row.images))]
        for interval, digits in ((row.at_rate, 2 if meant.unit == "dB" else 4), (row.at_quality, 1)):
            cells.append(Cell(_signed(interval.value, interval, digits) if interval else "–"))
            cells.append(Cell(str(interval.n if interval else 0)))
        lines.append(tuple(cells))
    caption = f"{where}: {test.codec} beside {anchor.codec} image by image, 95 % intervals over images"
    note = "matched: images on which its points reach the rate or quality; the others are left out of the mean"
    return Table(caption, header, tuple(lines), (note,))

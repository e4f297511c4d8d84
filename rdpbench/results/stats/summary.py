"""From points to one tidy frame that tables, figures and the report all draw from.

A line is a point under a metric: means over images with their 95 % intervals (`rdpbench.results.stats.bootstrap`). The
rate and the value of a line are over the same images, whose fingerprint stands in ``images``; ``bpp_all`` is the rate
of all images that were coded. Several seeds of an image count as their mean; how far they are apart is not in the
intervals but beside them (``*_seed_sd``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np

from rdpbench.lazy import pd
from rdpbench.metrics.contract import Meaning, stated
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bd import Floats, gap, usable, value_at
from rdpbench.results.stats.current import gather
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Point, Points, Taken, common, fingerprint, grouped
from rdpbench.results.store.records import Rows
from rdpbench.results.store.schema import Row, Score, SetScore, types_of

PLACE = ["dataset", "manifest", "protocol"]
POINT = [*PLACE, "codec", "rate_field", "target_bpp", "rate"]
OTHER_IMAGES = "over other images than the rest"
WIDE = 2.0
"""Interpolating between two points whose rates differ by more than this factor is marked."""


def summarise(
    rows: Iterable[Row], scores: Iterable[Score], metrics: Sequence[str], sets: Iterable[SetScore] = ()
) -> pd.DataFrame:
    """One line per point and metric, of rows that state their place; see `frame`."""
    return frame(gather(rows, scores, sets), metrics)


def frame(points: Points, metrics: Sequence[str]) -> pd.DataFrame:
    """One line per point and metric; ``columns.md`` says what each column means.

    By rising rate within a codec; points without any (all failed, out of range) come last, by their setting.
    """
    lines = [_line(points, point, metric) for point in points.points for metric in metrics or [""]]
    return _framed(lines, points)


def compared(
    points: Points, metrics: Sequence[str], *, per_setting: bool = False
) -> tuple[pd.DataFrame, dict[str, None]]:
    """The same over the images that all points of a place have, each metric over its own.

    Also returns in words, as keys, who is left out and over how many images the others are. With ``per_setting``
    targets are compared with one another, each over its own images.
    """
    over, notes = _shared(points, metrics, per_setting=per_setting)
    pairs = [(point, metric) for point in points.points for metric in metrics if (point, metric) in over]
    return _framed([_line(points, *pair, over[pair]) for pair in pairs], points), notes


def _shared(
    points: Points, metrics: Sequence[str], *, per_setting: bool = False
) -> tuple[dict[tuple[Point, str], frozenset[str]], dict[str, None]]:
    """The images over which a point is compared under a metric; and in words, as keys, who is left out."""
    over: dict[tuple[Point, str], frozenset[str]] = {}
    notes: dict[str, None] = {}
    for where in points.places:
        here = points.at(where).points
        groups = grouped(here, lambda point: point.setting.target if per_setting else None)
        for members, metric in itertools.product(groups.values(), metrics):
            there = {point: images for point in members if (images := points.taken(point, metric).images)}
            shared = common(there, fixed=meaning(metric).kind == "set")
            for point, why in shared.left_out.items():
                notes[f"{metric}: {point.codec}, {point.setting.words}, is not compared: {why}"] = None
            coded = set().union(*(point.images.names for point in shared.keys))
            if shared.keys and len(shared.images) < len(coded):
                notes[f"{metric}: compared over the {len(shared.images)} of {len(coded)} images that all have"] = None
            over |= {(point, metric): shared.images for point in shared.keys}
    return over, notes


def side_by_side(points: Points, metrics: Sequence[str]) -> pd.DataFrame:
    """All points as they may stand in one picture: over the images that all have.

    A point that is not compared is over its own images, and the column ``doubtful`` says so.
    """
    over, _ = _shared(points, metrics)
    lines = []
    for point, metric in itertools.product(points.points, metrics or [""]):
        images = over.get((point, metric))
        line = _line(points, point, metric, images)
        lines.append(line | {"doubtful": OTHER_IMAGES if images is None and math.isfinite(line["value"]) else ""})
    return _framed(lines, points, "doubtful")


def _framed(lines: Sequence[Mapping[str, Any]], points: Points, *more: str) -> pd.DataFrame:
    table = pd.DataFrame(list(lines), columns=[*POINT, *_COLUMNS, *more])
    table = table.astype(_KINDS)  # also where there is no line
    order = {key: n for n, key in enumerate(dict.fromkeys((*p.where, p.codec) for p in points.points))}
    table["_codec"] = [order[key] for key in curve_keys(table)]
    table = table.sort_values(["_codec", "bpp_all", "target_bpp", "rate"], kind="stable", na_position="last")
    return table.drop(columns="_codec").reset_index(drop=True)


def curve_keys(lines: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Dataset, manifest, protocol and codec of each line: what tells curves of a run apart."""
    return list(zip(*(lines[name] for name in (*PLACE, "codec")), strict=True))


_COLUMNS = [
    *["n", "dataset_size", "partial", "failed", "out_of_range", "weights", "seeds"],
    *["bpp", "bpp_lo", "bpp_hi", "bpp_seed_sd", "bpp_pooled", "bpp_all"],
    *["metric", "value", "value_lo", "value_hi", "value_seed_sd", "n_scored", "infinite", "images"],
    *["unit", "higher_is_better", "perceptual", "reliable", "note"],
]
_KINDS: dict[str, Any] = {
    **dict.fromkeys(["target_bpp", "rate", "bpp", "bpp_lo", "bpp_hi", "bpp_seed_sd", "bpp_pooled", "bpp_all"], float),
    **dict.fromkeys(["value", "value_lo", "value_hi", "value_seed_sd"], float),
    **dict.fromkeys(["n", "dataset_size", "failed", "out_of_range", "seeds", "n_scored", "infinite"], int),
    **dict.fromkeys(["partial", "higher_is_better", "perceptual", "reliable"], bool),
}


def _line(points: Points, point: Point, metric: str, images: Collection[str] | None = None) -> dict[str, Any]:
    """A point under a metric, over the images that have a value, or over some of them."""
    taken, every = points.taken(point, metric), points.taken(point, "")
    if images is not None:
        taken = taken.of(images)
    whole = fingerprint(taken.images)
    size, status = int(point.rows.numbers("dataset_size").max()), point.rows.codes("status")
    of_metric = meaning(metric) if metric else Meaning("pair", "", True, False)
    if not taken.images and taken.lossless and images is None:  # all lossless: the rate is theirs
        taken = points.taken(point, metric, infinite=True)
        value = _NOTHING | dict.fromkeys(["value", "value_lo", "value_hi"], math.inf)
        value |= dict.fromkeys(["n_scored", "infinite"], len(taken.images))
    elif of_metric.kind == "set":
        value = _of_set(points, point, metric, taken, whole)
    else:
        value = _of_pairs(taken, of_metric, whole, len(taken.lossless) if images is None else 0)
    coded = len(every.images) if images is None else len(taken.images)
    return {
        **point.where._asdict(),
        "codec": point.codec,
        "rate_field": point.setting.field,
        "target_bpp": point.setting.target,
        "rate": point.setting.rate,
        "n": coded,
        "dataset_size": size,
        "partial": coded < size,
        "failed": int(status.where("error".__eq__).sum()),
        "out_of_range": int(status.where("out_of_range".__eq__).sum()),
        "weights": ", ".join(filter(None, point.rows.codes("weights").used())),
        "seeds": len(point.by_seed),
        **_rates(taken if metric else every),
        "bpp_all": _rate(every)[0],
        "metric": metric,
        "reliable": True,
        "note": "",
        "unit": of_metric.unit,
        "higher_is_better": of_metric.higher_is_better,
        "perceptual": of_metric.perceptual,
        **(value if metric else _NOTHING),
    }


_NOTHING: dict[str, Any] = {
    **dict.fromkeys(["value", "value_lo", "value_hi", "value_seed_sd"], math.nan),
    "n_scored": 0,
    "infinite": 0,
    "images": "",
}


def _rates(taken: Taken) -> dict[str, float]:
    mean, low, high = _rate(taken)
    pooled = float((taken.bpp * taken.pixels).sum() / taken.pixels.sum()) if len(taken.bpp) else math.nan
    spread = _spread(taken, 0, None)
    return {"bpp": mean, "bpp_lo": low, "bpp_hi": high, "bpp_seed_sd": spread, "bpp_pooled": pooled}


def _rate(taken: Taken) -> tuple[float, float, float]:
    """The mean of its rates, which are finite or unknown, and the interval."""
    if "bpp" not in taken.intervals:
        taken.intervals["bpp"] = _interval_of_rates(taken.bpp.tobytes())
    return taken.intervals["bpp"]


@lru_cache(512)
def _interval_of_rates(rates: bytes) -> tuple[float, float, float]:
    """Most metrics of a point are over the same images, so over the same rates."""
    return with_interval(np.frombuffer(rates, np.float64), bounds=(0, math.inf))


def _of_pairs(taken: Taken, of: Meaning, images: str, lossless: int) -> dict[str, Any]:
    reduce = None if of.averaged == "mean" else lambda means: stated(means, of.averaged)
    if "value" not in taken.intervals:
        taken.intervals["value"] = with_interval(taken.weighed, reduce, of.bounds)
    centre, *ends = taken.intervals["value"]
    low, high = min(ends), max(ends)
    count = {"n_scored": len(taken.images) + lossless, "infinite": lossless, "images": images}
    return {"value": centre, "value_lo": low, "value_hi": high, "value_seed_sd": _spread(taken, 1, of), **count}


def _of_set(points: Points, point: Point, metric: str, taken: Taken, images: str) -> dict[str, Any]:
    """The mean over seeds of the value of a set; nothing, with the reason, if a seed has none."""
    scores = list(points.set_scores(point, metric).values())
    known = [score for score in scores if score is not None]
    notes = "; ".join(dict.fromkeys(text for score in known for text in (score.reason, score.note) if text))
    values = [score.value for score in known if score.value is not None]
    if len({frozenset(seed) for seed in taken.by_seed.values()}) > 1:
        return {**_NOTHING, "note": "its seeds lack different images, on which a value of sets depends"}
    if not taken.images or len(values) < len(scores):
        return {**_NOTHING, "note": notes}
    low, high = (
        _mean([math.nan if end is None else end for end in ends])
        for ends in zip(*((score.lo, score.hi) for score in known), strict=True)
    )
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    value = {"value": _mean(values), "value_lo": low, "value_hi": high, "value_seed_sd": spread}
    count = {"n_scored": len(taken.images), "infinite": 0, "images": images}
    return {**value, **count, "reliable": all(score.reliable for score in known), "note": notes}


def _mean(values: Sequence[float] | Floats) -> float:
    # As a list: an array is asked for its numbers one by one, which takes four times as long.
    return math.fsum(np.asarray(values).tolist()) / len(values) if len(values) else math.nan


def _spread(taken: Taken, part: int, of: Meaning | None) -> float:
    """Standard deviation over seeds of the mean over the images that each of them has; NaN for one seed."""
    seeds = [names for names in taken.by_seed.values() if names]
    shared = sorted(set.intersection(*map(set, seeds))) if len(seeds) > 1 else []
    if not shared:
        return math.nan
    means = np.array([[names[image][part] for image in shared] for names in seeds]).mean(axis=1)
    means = stated(means, of.averaged) if of else means
    return float(means.std(ddof=1)) if np.isfinite(means).all() else math.nan  # decibels of no error are infinite


def with_interval(
    values: Floats,
    reduce: Callable[[Any], Any] | None = None,
    bounds: bootstrap.Bounds = bootstrap.REAL,
) -> tuple[float, float, float]:
    """Mean and 95 % interval over images, as `bootstrap.mean` has them; ``reduce`` states a mean in its unit.

    >>> mean, low, high = with_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> mean, low < mean < high
    (2.5, True)
    """
    if not len(values) or not np.isfinite(values).all():
        return math.nan, math.nan, math.nan
    interval = bootstrap.mean(values, reduce=reduce, bounds=bounds)
    centre = _mean(values)
    return centre if reduce is None else float(reduce(centre)), interval.low, interval.high


def at_rate(lines: pd.DataFrame, bpp: float) -> pd.DataFrame:
    """Each codec's metrics at one rate, interpolated between its points, linear in log rate.

    A codec whose points do not reach the rate is left out: nothing is extrapolated. ``wide`` says that the points
    beside the rate are more than a factor of `WIDE` apart.
    """
    rows = []
    for (*place, codec, metric), points in lines.groupby([*PLACE, "codec", "metric"], sort=False):
        rates, values = usable(points["bpp"].to_numpy(float), points["value"].to_numpy(float))
        value = value_at(rates, values, bpp)
        if len(np.unique(rates)) < 2 or math.isnan(value):
            continue
        first = points.iloc[0]
        known = [value, bool(first["higher_is_better"]), first["unit"], gap(rates, bpp) > WIDE]
        rows.append((*place, codec, metric, bpp, *known))
    columns = [*PLACE, "codec", "metric", "bpp", "value", "higher_is_better", "unit", "wide"]
    return pd.DataFrame(rows, columns=columns)


def common_rates(lines: pd.DataFrame) -> list[float]:
    """Round rates that at least two codecs' measured points reach from both sides."""
    spans = lines[np.isfinite(lines["bpp"])].groupby("codec")["bpp"].agg(["min", "max"])
    candidates = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    return [rate for rate in candidates if ((spans["min"] <= rate) & (spans["max"] >= rate)).sum() >= 2]


def tidy(points: Points, metrics: Sequence[str], columns: Collection[str] = ()) -> pd.DataFrame:
    """One line per image, rate point and metric: the long form that plotting libraries want.

    Of ``columns``, all unless some are named.
    """
    names = [*(metrics or [""])]
    parts = []
    for point in points.points:
        lines: dict[str, Any] = {}
        for column in fields(Row):
            if not columns or column.name in columns:
                lines[column.name] = _repeated(point.rows, column.name, len(names))
        measured = [points.values(point.where, point.rows.places, metric) for metric in names]
        lines["metric"] = names * len(point.rows)
        # One that was scored before another tolerance= or verify put it out of all means has a value, which is in none.
        good = point.rows.codes("status").where("ok".__eq__)
        lines["value"] = np.where(good, np.array(measured), math.nan).T.ravel()
        if not columns or "metric_error" in columns:
            errors = (points.errors(point.where, point.rows.places, metric) for metric in names)
            lines["metric_error"] = [text for texts in zip(*errors, strict=True) for text in texts]
        parts.append(pd.DataFrame(lines))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _repeated(rows: Rows, name: str, times: int) -> Any:
    """A column of rows, each value several times."""
    kind = types_of(Row)[name][0]
    if kind is str:
        return [text for text in rows.texts(name) for _ in range(times)]
    numbers = np.repeat(rows.numbers(name), times)
    return numbers.astype(np.int64) if kind is int and np.isfinite(numbers).all() else numbers

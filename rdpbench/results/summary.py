"""From rows to points: means over images with their intervals, one tidy frame that tables and figures all draw from.

A point is a codec at one native setting (or one target rate) on one dataset. Its rate and its metrics are means over
images (several seeds of an image count as their mean); intervals are 95 % bootstrap over images, with the same
resamples everywhere, so that they can be compared (`rdpbench.results.bootstrap`). ``images`` names the set that a
metric's mean is over: codecs are compared over the same images only.

A set metric has one value per seed, computed before (`rdpbench.results.points`); several seeds count as their mean.
How far the seeds of a stochastic codec are apart is not in the intervals: it stands beside them (``*_seed_sd``).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.metrics.contract import bounds_of
from rdpbench.results import bootstrap
from rdpbench.results.points import by_point, point_key
from rdpbench.results.schema import Row, Score, SetScore

if TYPE_CHECKING:
    import pandas as pd

POINT = ["dataset", "protocol", "codec", "rate_field", "target_bpp", "rate"]


def summarise(
    rows: Iterable[Row], scores: Iterable[Score], metrics: Sequence[str], sets: Iterable[SetScore] = ()
) -> pd.DataFrame:
    """One line per point and metric; `rdpbench.results.fields.POINTS` says what each column means.

    By rising rate within a codec; points without any (all failed, out of range) come last, by their setting.
    """
    import pandas as pd

    by_task: dict[str, dict[str, Score]] = {}
    for score in scores:
        by_task.setdefault(score.task_key, {})[score.metric] = score
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        rate = None if row.target_bpp is not None else row.rate
        key = (row.dataset, row.protocol, row.codec, row.rate_field, row.target_bpp, rate)
        groups.setdefault(key, []).append(row)
    of_sets = by_point(sets)
    lines = [line for key, members in groups.items() for line in _point(key, members, by_task, metrics, of_sets)]
    frame = pd.DataFrame(lines, columns=[*POINT, *_COLUMNS]).astype({"target_bpp": float, "rate": float})
    order = list(dict.fromkeys((key[0], key[2]) for key in groups))
    frame["_codec"] = [order.index((d, c)) for d, c in zip(frame["dataset"], frame["codec"], strict=True)]
    frame = frame.sort_values(["_codec", "bpp", "target_bpp", "rate"], kind="stable", na_position="last")
    return frame.drop(columns="_codec").reset_index(drop=True)


_COLUMNS = [
    *["n", "dataset_size", "partial", "failed", "out_of_range", "weights", "seeds"],
    *["bpp", "bpp_lo", "bpp_hi", "bpp_seed_sd"],
    *[
        "metric",
        "value",
        "value_lo",
        "value_hi",
        "value_seed_sd",
        "n_scored",
        "infinite",
        "images",
        "unit",
        "higher_is_better",
        "perceptual",
        "reliable",
        "note",
    ],
]


def _point(
    key: tuple[Any, ...],
    rows: Sequence[Row],
    scores: Mapping[str, Mapping[str, Score]],
    metrics: Sequence[str],
    sets: Mapping[str, SetScore],
) -> list[tuple[Any, ...]]:
    good = [row for row in rows if row.status == "ok"]
    failed = sum(row.status == "error" for row in rows)
    beyond = sum(row.status == "out_of_range" for row in rows)
    rates = [row.bpp for row in good]
    bpps = _per_image(good, rates)
    size = max(row.dataset_size for row in rows)
    weights = ", ".join(sorted({row.weights for row in rows if row.weights}))
    counts: tuple[Any, ...] = (
        len(bpps),
        size,
        len(bpps) < size,
        failed,
        beyond,
        weights,
        len({row.seed for row in good}),
    )
    head = (*counts, *with_interval(np.array([*bpps.values()]), bounds=(0, math.inf)), _spread(good, rates))
    lines: list[tuple[Any, ...]] = []
    for name in metrics or [""]:
        if not name:
            lines.append((*key, *head, "", *[math.nan] * 4, 0, 0, "", "", True, False, True, ""))
            continue
        cls = registry.load("metric", name)
        if getattr(cls, "kind", "pair") == "set":
            lines.append((*key, *head, name, *_of_set(cls, name, good, sets)))
            continue
        meaning = cls()
        found = [scores.get(row.task_key, {}).get(name) for row in good]
        scored = [one.value if one else None for one in found]
        values = _per_image(good, scored)
        finite = {image: value for image, value in values.items() if math.isfinite(value)}
        of_mean: Callable[[float], float] = lambda mean, of=meaning: of.reduce([mean])  # type: ignore[misc]  # noqa: E731
        centre, low, high = with_interval(np.array([*finite.values()]), of_mean, bounds_of(cls))
        if not finite and values:
            centre = low = high = math.inf
        low, high = min(low, high), max(low, high)
        spread = _spread(good, scored, of_mean)
        taken = (len(values), len(values) - len(finite), _fingerprint(finite))
        tail = (*taken, meaning.unit, meaning.higher_is_better, meaning.perceptual, True, "")
        lines.append((*key, *head, name, centre, low, high, spread, *tail))
    return lines


def _of_set(cls: Any, name: str, rows: Sequence[Row], sets: Mapping[str, SetScore]) -> tuple[Any, ...]:
    """Value, interval and what belongs to them; the mean over seeds, and NaN if a seed has no value."""
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row)
    found = [one for members in by_seed.values() if (one := sets.get(point_key(name, members)))]
    usual = (cls.unit, cls.higher_is_better, cls.perceptual)
    if not found or len(found) < len(by_seed) or any(one.value is None for one in found):
        return math.nan, math.nan, math.nan, math.nan, 0, 0, "", *usual, True, _note(found)

    def mean(values: Iterable[float | None]) -> float:
        known = [math.nan if value is None else value for value in values]
        return math.fsum(known) / len(known)

    interval = mean(one.lo for one in found), mean(one.hi for one in found)
    images = _fingerprint({row.image for row in rows})
    reliable = all(one.reliable for one in found)
    values = [one.value for one in found if one.value is not None]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return mean(values), *interval, spread, found[0].images, 0, images, *usual, reliable, _note(found)


def _note(found: Sequence[SetScore]) -> str:
    """What must be known of the values of all seeds."""
    return "; ".join(dict.fromkeys(one.reason for one in found if one.reason))


def _per_image(rows: Sequence[Row], values: Sequence[float | None]) -> dict[str, float]:
    """The mean of each image's values: its seeds are not independent images."""
    by_image: dict[str, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        if value is not None:
            by_image.setdefault(row.image, []).append(value)
    return {image: math.fsum(ones) / len(ones) for image, ones in by_image.items()}


def _spread(rows: Sequence[Row], values: Sequence[float | None], reduce: Callable[[float], float] = float) -> float:
    """Standard deviation over seeds of the mean over the images that have a finite value at each; NaN for one seed."""
    by_seed: dict[int, dict[str, float]] = {}
    for row, value in zip(rows, values, strict=True):
        if value is not None and math.isfinite(value):
            by_seed.setdefault(row.seed, {})[row.image] = value
    if len(by_seed) < 2:
        return math.nan
    common = sorted(set.intersection(*(set(one) for one in by_seed.values())))
    if not common:
        return math.nan
    return bootstrap.over_seeds(np.array([[one[image] for image in common] for one in by_seed.values()]), reduce)[1]


def _fingerprint(images: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()[:8]


def with_interval(
    values: NDArray[np.float64],
    reduce: Callable[[float], float] | None = None,
    bounds: bootstrap.Bounds = bootstrap.REAL,
) -> tuple[float, float, float]:
    """Mean and 95 % interval over images, as `bootstrap.mean` has them.

    >>> mean, low, high = with_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    >>> mean, low < mean < high
    (2.5, True)
    """
    if not len(values):
        return math.nan, math.nan, math.nan
    found = bootstrap.mean(values, reduce=reduce, bounds=bounds)
    centre = math.fsum(values) / len(values)
    return centre if reduce is None else reduce(centre), found.low, found.high


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each metric only the points whose mean is over the same, largest set of images.

    A codec that failed on the hard images, or was run on the first ones, must not win by it.
    """
    kept = []
    for _, points in frame.groupby(["dataset", "metric"], sort=False):
        counts = points["n_scored"] - points["infinite"]
        kept.append(points[points["images"] == points["images"].iloc[int(counts.to_numpy().argmax())]])
    return frame.loc[sorted(index for points in kept for index in points.index)]


def at_rate(frame: pd.DataFrame, bpp: float) -> pd.DataFrame:
    """Each codec's metrics at one rate, interpolated between its measured points, linear in log rate.

    A codec whose points do not reach the rate is left out: nothing is extrapolated.
    """
    import pandas as pd

    lines = []
    for (dataset, codec, metric), points in frame.groupby(["dataset", "codec", "metric"], sort=False):
        usable = points[np.isfinite(points["value"]) & np.isfinite(points["bpp"])].sort_values("bpp")
        rates = usable["bpp"].to_numpy()
        if len(rates) < 2 or not rates[0] <= bpp <= rates[-1]:
            continue
        value = float(np.interp(math.log(bpp), np.log(rates), usable["value"].to_numpy()))
        better = bool(usable["higher_is_better"].iloc[0])
        lines.append((dataset, codec, metric, bpp, value, better, usable["unit"].iloc[0]))
    return pd.DataFrame(lines, columns=["dataset", "codec", "metric", "bpp", "value", "higher_is_better", "unit"])


def common_rates(frame: pd.DataFrame) -> list[float]:
    """Round rates that at least two codecs' measured points reach from both sides."""
    spans = frame[np.isfinite(frame["bpp"])].groupby("codec")["bpp"].agg(["min", "max"])
    candidates = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    return [rate for rate in candidates if ((spans["min"] <= rate) & (spans["max"] >= rate)).sum() >= 2]

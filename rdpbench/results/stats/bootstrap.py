"""How sure a number is: intervals over images, seeded, the same resamples for every codec.

Images are drawn with replacement, never patches, pixels or seeds: patches of one image, and decodes of one bitstream,
are alike, and counting them as independent makes intervals that are too small. The draw depends on the number of images
and the seed alone. Give the values in the order of the image ids, and two codecs meet the same resamples.

Three ways to read an interval from the resampled values:

* ``expanded``: their quantiles, further out for few images (`shares`), by as much as Student's interval is wider than
  one of a known spread. What all tables and figures draw. `docs/statistics.md` has how often such intervals hold the
  truth: of 95 % over 24 images 95 % for a normal distribution.
* ``percentile``: their plain quantiles. Too short for few images: of those over 24 images 93 % hold the mean of a
  normal distribution, and 87 % that of a skewed one (log-normal, sigma 0.8).
* ``bca``: quantiles corrected for bias and skewness (Efron, "Better bootstrap confidence intervals", JASA 1987). At 24
  images it places the interval better and holds the mean hardly more often (92 and 88 %).

Below `SMALL` images resamples cannot tell enough: of two images there are three, and what lies between the smallest and
the largest value holds the truth in every second case. There the interval is Student's, from the values without each
image (`jackknifed`); for a mean that is the interval of every textbook.

A thousand resamples leave the ends of an interval uncertain by 3 % of its width, and alike in all that is computed over
the same images. Most of what a statistic does from resample to resample is linear in the means, and that part is cheap:
it is resampled ten times as often, and says at which share of the thousand the end lies (`_sharpened`).

Distances between sets are not bootstrapped: doubled images raise them by themselves (`rdpbench.runners.sets`).

Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Hesterberg, "What teachers should know about
the bootstrap", The American Statistician 2015 (the expanded interval); Davison and Hinkley, "Bootstrap methods and
their application", 1997, section 9.3 (linear parts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, UnknownName
from rdpbench.results.stats.bd import Delta, RateValues

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["expanded", "percentile", "bca"]
METHODS: tuple[Method, ...] = ("expanded", "percentile", "bca")
Bounds: TypeAlias = tuple[float, float]
"""The least and the largest value that a number can have; infinite where there is none."""
REAL: Bounds = (-math.inf, math.inf)

SMALL = 8
"""Images below which intervals are Student's: from 8 on, expanded ones hold the truth as often."""
RESAMPLES = 1000
FINE = 10_000
"""Resamples of the linear part, up to a thousand images; beyond, as many as `_FINE_DRAWN` images are."""
SEED = 2026
LEVEL = 0.95
FAILED = 0.05
"""Resamples without a number that are passed over; with a larger share there is no interval."""
_DRAWN = 4_000_000
"""Image numbers drawn at a time: 32 MB."""
_FINE_DRAWN = 10_000_000


@dataclass(frozen=True)
class Interval:
    """A value with its interval over images."""

    value: float
    low: float
    """NaN, as ``high``, where ``reason`` says why."""
    high: float
    n: int
    """Images that were drawn from."""
    method: Method | Literal["student"]
    resamples: int
    """That were evaluated; of Student's interval the values without an image each."""
    failed: int = 0
    """Of these, those that gave no number."""
    reason: str = ""


def draws(n: int, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[NDArray[np.int64]]:
    """Images drawn with replacement, ``(k, n)`` numbers from 0 to n - 1 at a time, ``resamples`` rows in all.

    >>> [block.shape for block in draws(3, resamples=5)]
    [(5, 3)]
    """
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWN // n)
    for start in range(0, resamples, step):
        yield rng.integers(0, n, (min(step, resamples - start), n))


def resampled(values: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Iterator[Floats]:
    """Means over resampled images of what each contributes, ``(n, m)``; ``(k, m)`` at a time, as many as `draws`.

    >>> next(resampled(np.ones((3, 2)), resamples=4)).shape
    (4, 2)
    """
    n = len(values)
    if n * resamples <= _DRAWN:
        yield _remembered(n, resamples, seed) @ values / n
        return
    for picks in draws(n, resamples, seed):
        yield _occurrences(picks, n) @ values / n


@lru_cache(maxsize=2)
def _remembered(n: int, resamples: int, seed: int) -> Floats:
    """All that tables draw over one set of images meets the same resamples: they are drawn once."""
    [picks] = draws(n, resamples, seed)
    return _occurrences(picks, n)


def shares(n: int, level: float = LEVEL) -> tuple[float, float]:
    """Which quantiles of resampled values an expanded interval over n images takes.

    The quantiles of n resampled images are those of a spread that is ``sqrt((n - 1) / n)`` too small, and of a normal
    distribution where Student's is right. Both are undone: of 24 images the 2.5 % point becomes the 1.7 % point.

    >>> round(shares(24)[0], 4), round(shares(10_000)[0], 4)
    (0.0173, 0.025)
    """
    if n < 2:
        return (1 - level) / 2, (1 + level) / 2
    low = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student(n - 1, (1 + level) / 2))
    return low, 1 - low


@cache
def student(freedom: int, share: float) -> float:
    """Quantile of Student's t distribution.

    >>> round(student(23, 0.975), 4)
    2.0687
    """
    # Here, since importing it takes as long as all else that a light command needs.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


def jackknifed(value: float, without: Floats, bounds: Bounds = REAL, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of a number from its values without each of some blocks of images, which may be single images.

    A number that is bounded has its interval on a scale on which the bounds are infinitely far, logarithms or
    logarithms of odds: no end lies outside, and none is cut off.

    Args:
        value: the number of all images.
        without: ``(b,)``: without each of b blocks of (nearly) equal size.
        bounds: the range that the number can have.
        level: how often the interval is to hold the truth.

    Returns:
        Both ends; NaN where a value is not finite or stands at one of the bounds, and differs from others.

    >>> low, high = jackknifed(2.5, np.array([3.0, 8 / 3, 7 / 3, 2.0]))
    >>> round(low, 3), round(high, 3)
    (0.446, 4.554)
    """
    if (without == value).all():
        return value, value
    low, high = bounds
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = _apart(np.array([value, *without]), low, high)
        centre, ones = apart[0], apart[1:]
        count = len(ones)
        spread = ones - ones.mean()
        half = student(count - 1, (1 + level) / 2) * math.sqrt((count - 1) / count * float(spread @ spread))
    if not math.isfinite(half + float(centre)):
        return math.nan, math.nan
    first, second = (_together(float(end), low, high) for end in (centre - half, centre + half))
    return min(first, second), max(first, second)


def _apart(values: Floats, low: float, high: float) -> Floats:
    """Values on a scale on which finite bounds are infinitely far."""
    if math.isinf(low) and math.isinf(high):
        return values
    if math.isinf(high):
        return np.asarray(np.log(values - low))
    if math.isinf(low):
        return np.asarray(-np.log(high - values))
    return np.asarray(np.log(values - low) - np.log(high - values))


def _together(value: float, low: float, high: float) -> float:
    """The way back from that scale."""
    if math.isinf(low) and math.isinf(high):
        return value
    # Beyond these, exponentials overflow, and the bound itself is the nearest number.
    value = min(max(value, -700.0), 700.0)
    if math.isinf(high):
        return low + math.exp(value)
    if math.isinf(low):
        return high - math.exp(-value)
    return low + (high - low) / (1 + math.exp(-value))


def mean(
    values: Sequence[float] | Floats,
    *,
    reduce: Callable[[float], float] | None = None,
    method: Method = "expanded",
    **how: Any,
) -> Interval:
    """Interval of the mean of one finite value per image.

    Args:
        values: ``(n,)``.
        reduce: turns a mean over images into what the metric states, where that is not the mean itself.
        method: how the resampled values are read.
        how: ``bounds``, ``resamples``, ``seed`` and ``level`` of `of_means`.

    Raises:
        MetricError: no value, or one that is not finite (leave out lossless images first, as the mean does).

    >>> found = mean([1.0, 2.0, 3.0, 4.0])
    >>> found.value, round(found.low, 3), round(found.high, 3)
    (2.5, 0.446, 4.554)
    """

    def statistic(means: Floats) -> Floats:
        return means[:, 0] if reduce is None else np.array([reduce(float(one)) for one in means[:, 0]])

    return of_means(np.asarray(values, np.float64)[:, None], statistic, method=method, **how)


def paired(
    first: Mapping[str, float], second: Mapping[str, float], *, method: Method = "expanded", **how: Any
) -> Interval:
    """Interval of the mean over images of ``second`` less ``first``: two codecs on the same images, by id.

    An image that is not finite on one side (lossless) is left out; ``n`` counts those that are in.

    Raises:
        MetricError: the two are not of the same images.

    >>> found = paired({"a": 30.0, "b": 34.0, "c": 38.0}, {"a": 30.5, "b": 34.5, "c": 38.5})
    >>> found.value, found.low, found.high
    (0.5, 0.5, 0.5)
    """
    if other := sorted(first.keys() ^ second.keys()):
        names = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise MetricError(f"bootstrap: paired differences are of the same images; only one side has {names}")
    gaps = [second[image] - first[image] for image in sorted(first)]
    return mean([gap for gap in gaps if math.isfinite(gap)], method=method, **how)


def of_means(
    parts: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    method: Method = "expanded",
    bounds: Bounds = REAL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a function of means over images; all resamples at once.

    Ratios of sums are such functions: mIoU of confusion counts, BLEU of its counts, a mean over patches.

    Args:
        parts: what each image contributes, ``(n, m)``.
        statistic: from ``(k, m)``, means over k resamples, to ``(k,)``.
        method: how the resampled values are read; below `SMALL` images ``expanded`` is Student's interval.
        bounds: the range of the statistic's values, which Student's interval keeps to; the others do by themselves.
        resamples: how often the statistic is evaluated.
        seed: of the draw.
        level: how often the interval is to hold the truth.

    Raises:
        MetricError: no image, or a value that is not finite.

    >>> errors = np.array([[1.0], [100.0], [25.0]])
    >>> round(of_means(errors, lambda mse: 10 * np.log10(255**2 / mse[:, 0])).value, 4)
    31.8983
    """
    values = np.asarray(parts, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise MetricError("bootstrap: no image" if not len(values) else "bootstrap: a value is NaN or infinite")
    n = len(values)
    centre = float(statistic(values.mean(axis=0, keepdims=True))[0])
    known = n > 1 and math.isfinite(centre)
    student_s = method == "expanded" and n < SMALL
    without = statistic((values.sum(axis=0) - values) / (n - 1)) if known and (student_s or method == "bca") else None
    if known and student_s:
        assert without is not None
        return _student(centre, without, bounds, level)
    blocks = list(resampled(values, resamples, seed)) if known else []
    found = np.concatenate([[], *(statistic(means) for means in blocks)])

    def sharpen(quantiles: Floats) -> Floats:
        return _sharpened(values, np.concatenate(blocks), found, quantiles, seed)

    return _interval(centre, found, n, method, level, sharpen, without)


def _student(value: float, without: Floats, bounds: Bounds, level: float) -> Interval:
    """Student's interval, or the reason for none."""
    n = len(without)
    failed = n - int(np.isfinite(without).sum())
    low, high = jackknifed(value, without, bounds, level)
    reason = ""
    if failed:
        reason = f"{n} images, and without one of them there is no number ({failed} of {n})"
    elif math.isnan(low):
        reason = f"{n} images, and a value at the end of its range"
    return Interval(value, low, high, n, "student", n, failed, reason=reason)


def _sharpened(values: Floats, means: Floats, found: Floats, quantiles: Floats, seed: int) -> Floats:
    """The quantiles at which to read resampled values, so that their linear part has those of many more resamples.

    Args:
        values: what each image contributes, ``(n, m)``.
        means: over the images of each resample, ``(k, m)``.
        found: the statistic's values there, ``(k,)``.
        quantiles: that are wanted.
        seed: of the draw.
    """
    n, parts = values.shape
    fine = max(len(found), min(FINE, _FINE_DRAWN // n))
    good = np.isfinite(found)
    # With more unknowns than a tenth of the resamples a fit would follow their noise.
    if fine == len(found) or 10 * parts > good.sum():
        return quantiles
    centre = values.mean(axis=0)
    slopes = np.linalg.lstsq(means[good] - centre, found[good] - found[good].mean(), rcond=None)[0]
    of_image = ((values - centre) @ slopes)[:, None]
    many = np.concatenate([block[:, 0] for block in resampled(of_image, fine, seed)])
    linear = np.sort((means[good] - centre) @ slopes)
    sharp: Floats = np.interp(np.quantile(many, quantiles), linear, np.linspace(0, 1, len(linear)))
    # Of values so near zero that their squares vanish there is no fit.
    return sharp if np.isfinite(sharp).all() else quantiles


def of_curves(
    anchor: tuple[Floats, Floats],
    test: tuple[Floats, Floats],
    delta: Callable[[RateValues, RateValues], Delta],
    *,
    method: Method = "expanded",
    bounds: Bounds = REAL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a BD-rate or BD-metric: the images of all points of both curves are drawn together.

    Args:
        anchor: rates and values of each point and image, ``(points, n)`` each.
        test: the same images', ``(other points, n)`` each.
        delta: such as ``partial(bd_rate, higher_is_better=False)``.
        method: as for `of_means`, and so are the others.
        bounds: of the delta: no rate falls by more than 100 %.
        resamples: how often the curves are drawn.
        seed: of the draw.
        level: how often the interval is to hold the truth.

    Raises:
        MetricError: arrays of two shapes, or not the same number of images; a value that is not finite.

    >>> from rdpbench.results.stats.bd import bd_rate
    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> found = of_curves((rates, values), (0.9 * rates, values), bd_rate, resamples=50)
    >>> round(found.value, 6), round(found.high - found.low, 6)
    (-10.0, 0.0)
    """
    arrays = [np.asarray(one, np.float64) for one in (*anchor, *test)]
    shapes = [one.shape for one in arrays]
    if any(len(shape) != 2 for shape in shapes) or shapes[0] != shapes[1] or shapes[2] != shapes[3]:
        raise MetricError(f"bootstrap: rates and values are arrays (points, images) of one shape, found {shapes}")
    if shapes[0][1] != shapes[2][1]:
        raise MetricError(f"bootstrap: the curves are of {shapes[0][1]} and {shapes[2][1]} images, not of the same")
    edges = np.cumsum([len(one) for one in arrays])[:-1]

    def one_curve(means: Floats) -> float:
        rates, values, test_rates, test_values = np.split(means, edges)
        return delta(_points(rates, values), _points(test_rates, test_values)).value

    stacked = np.concatenate(arrays).T
    return of_means(
        stacked,
        lambda means: np.array([one_curve(one) for one in means]),
        method=method,
        bounds=bounds,
        resamples=resamples,
        seed=seed,
        level=level,
    )


def over_seeds(values: Floats, reduce: Callable[[float], float] = float) -> tuple[float, float]:
    """Mean over seeds of the dataset's mean, and its standard deviation (n - 1): ``values (seeds, images)``.

    ``reduce`` turns a mean over images into what the metric states, where that is not the mean itself.

    The deviation is NaN for a single seed. It says how far another run of a stochastic codec may be, not how far
    another set of images.

    Raises:
        MetricError: not two-dimensional, empty, or with values that are not finite.

    >>> over_seeds(np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]))
    (3.0, 1.0)
    """
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise MetricError(f"seeds: finite values (seeds, images) are needed, found shape {values.shape}")
    means = np.array([reduce(float(mean)) for mean in values.mean(axis=1)])
    return float(means.mean()), float(means.std(ddof=1)) if len(means) > 1 else math.nan


def _points(rates: Floats, values: Floats) -> list[tuple[float, float]]:
    return [(float(rate), float(value)) for rate, value in zip(rates, values, strict=True)]


def _occurrences(picks: NDArray[np.int64], n: int) -> Floats:
    """How often each image is in each resample: ``(k, n)``."""
    flat = (picks + n * np.arange(len(picks))[:, None]).ravel()
    return np.bincount(flat, minlength=len(picks) * n).reshape(len(picks), n).astype(np.float64)


def _interval(
    value: float,
    found: Floats,
    n: int,
    method: Method,
    level: float,
    sharpen: Callable[[Floats], Floats],
    without: Floats | None,
) -> Interval:
    """From resampled values to an interval; ``without`` are the values that leave out one image each (BCa)."""
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    good = found[np.isfinite(found)]
    failed = len(found) - len(good)
    reason = ""
    if not math.isfinite(value):
        reason = "there is no value"
    elif n < 2:
        reason = "one image has no interval"
    elif failed > FAILED * len(found):
        reason = f"{failed} of {len(found)} resamples gave no number"
    if reason:
        return Interval(value, math.nan, math.nan, n, method, len(found), failed, reason=reason)
    plain = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "expanded":
        quantiles = np.array(shares(n, level))
    elif method == "bca":
        quantiles = _corrected(value, good, without if without is not None else np.empty(0), plain)
    else:
        quantiles = plain
    low, high = np.quantile(good, sharpen(quantiles))
    return Interval(value, float(low), float(high), n, method, len(found), failed)


def _corrected(value: float, found: Floats, without: Floats, shares: Floats) -> Floats:
    """BCa's quantiles: moved for the share of resamples below the value, and for the skewness."""
    normal = NormalDist()
    below = (np.sum(found < value) + 0.5 * np.sum(found == value)) / len(found)
    # All on one side (or all equal): no correction could be told from the resamples.
    if not 0 < below < 1 or not np.isfinite(without).all():
        return shares
    bias = normal.inv_cdf(float(below))
    gaps = without.mean() - without
    spread = float(np.sum(gaps**2))
    skew = float(np.sum(gaps**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    quantiles = [bias + normal.inv_cdf(float(share)) for share in shares]
    return np.array([normal.cdf(bias + one / (1 - skew * one)) for one in quantiles])

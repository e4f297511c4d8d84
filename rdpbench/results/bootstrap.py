"""How sure a number is: bootstrap intervals over images, seeded, the same resamples for every codec.

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

Distances between sets are not bootstrapped: doubled images raise them by themselves (`rdpbench.results.points`).

Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Hesterberg, "What teachers should know about
the bootstrap", The American Statistician 2015 (the expanded interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, UnknownName
from rdpbench.results.bd import Delta, RateValues

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["expanded", "percentile", "bca"]
METHODS: tuple[Method, ...] = ("expanded", "percentile", "bca")

RESAMPLES = 1000
SEED = 2026
LEVEL = 0.95
FAILED = 0.05
"""Resamples without a number that are passed over; with a larger share there is no interval."""
_DRAWN = 4_000_000
"""Image numbers drawn at a time: 32 MB."""


@dataclass(frozen=True)
class Interval:
    """A value with its interval over images."""

    value: float
    low: float
    """NaN, as ``high``, where ``reason`` says why."""
    high: float
    n: int
    """Images that were drawn from."""
    method: Method
    resamples: int
    failed: int = 0
    """Resamples that gave no number."""
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
    for picks in draws(n, resamples, seed):
        yield _occurrences(picks, n) @ values / n


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
    """Quantile of Student's t distribution with a whole number of degrees of freedom, for a share above one half.

    By bisection on the closed form of its cumulative distribution (Abramowitz and Stegun, 26.7.3 and 26.7.4), and from
    200 degrees on by its expansion about the normal distribution (26.7.5). Scipy has it too, and takes half a second to
    import.

    >>> round(student(23, 0.975), 4)
    2.0687
    """
    if freedom >= 200:
        z = NormalDist().inv_cdf(share)
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low, high = 0.0, 1.0
    while _within(high, freedom) < 2 * share - 1:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * share - 1 else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Probability that Student's t is between ``-t`` and ``t``."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = total = (math.cos(angle) if odd else 1.0) * (freedom > 1)
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= square * (k - 1) / k
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def mean(values: Sequence[float] | Floats, *, method: Method = "expanded", **how: Any) -> Interval:
    """Interval of the mean of one finite value per image.

    Raises:
        MetricError: no value, or one that is not finite (leave out lossless images first, as the mean does).

    >>> found = mean([1.0, 2.0, 3.0, 4.0])
    >>> found.value, found.low, found.high
    (2.5, 1.0, 4.0)
    """
    return of_means(np.asarray(values, np.float64)[:, None], lambda means: means[:, 0], method=method, **how)


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
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a function of means over images; all resamples at once.

    Ratios of sums are such functions: mIoU of confusion counts, BLEU of its counts, a mean over patches.

    Args:
        parts: what each image contributes, ``(n, m)``.
        statistic: from ``(k, m)``, means over k resamples, to ``(k,)``.

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
    found = [statistic(means) for means in resampled(values, resamples, seed)] if n > 1 else []
    without = statistic((values.sum(axis=0) - values) / (n - 1)) if method == "bca" and n > 1 else None
    return _interval(centre, np.concatenate([[], *found]), n, method, level, without)


def of_curves(
    anchor: tuple[Floats, Floats],
    test: tuple[Floats, Floats],
    delta: Callable[[RateValues, RateValues], Delta],
    *,
    method: Method = "expanded",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a BD-rate or BD-metric: the images of all points of both curves are drawn together.

    Args:
        anchor: rates and values of each point and image, ``(points, n)`` each.
        test: the same images', ``(other points, n)`` each.
        delta: such as ``partial(bd_rate, higher_is_better=False)``.

    Raises:
        MetricError: arrays of two shapes, or not the same number of images; a value that is not finite.

    >>> from rdpbench.results.bd import bd_rate
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
    value: float, found: Floats, n: int, method: Method, level: float, without: Floats | None = None
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
    low, high = np.quantile(good, quantiles)
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

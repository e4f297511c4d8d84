"""How sure a number is: bootstrap intervals over images, seeded, the same resamples for every codec.

Images are drawn with replacement, never patches, pixels or seeds: patches of one image, and decodes of one bitstream,
are alike, and counting them as independent makes intervals that are too small. The draw depends on the number of images
and the seed alone. Give the values in the order of the image ids, and two codecs meet the same resamples.

Three ways to read an interval from the resampled values:

* ``percentile``: their quantiles. What `rdpbench.results.summary` draws. Too short for few images: of intervals of 95 %
  over 24 images, 93 % cover the mean of a normal distribution and 87 % that of a skewed one (log-normal, sigma 0.8).
* ``bca``: quantiles corrected for bias and skewness (Efron, "Better bootstrap confidence intervals", JASA 1987). At 24
  images it places the interval better and covers hardly more (92 and 88 %).
* ``centred``: their quantiles about their own mean, set around the value. For distances of sets: a resample holds fewer
  different images, which by itself raises FID, KID and CMMD, and the plain quantiles may then lie beside the value. It
  speaks of the spread between sets of this size; the bias that FID has at this size stays in value and interval.

Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, UnknownName
from rdpbench.results.bd import Delta, Points

Floats: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["percentile", "bca", "centred"]
METHODS: tuple[Method, ...] = ("percentile", "bca", "centred")
T = TypeVar("T")

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
    """Images (or clusters) that were drawn from."""
    method: Method
    resamples: int
    failed: int = 0
    """Resamples that gave no number."""
    shift: float = math.nan
    """Mean of the resampled values less the value: the bias that resampling brings."""
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


def mean(values: Sequence[float] | Floats, *, method: Method = "percentile", **how: Any) -> Interval:
    """Interval of the mean of one finite value per image.

    Raises:
        MetricError: no value, or one that is not finite (leave out lossless images first, as the mean does).

    >>> found = mean([1.0, 2.0, 3.0, 4.0])
    >>> found.value, found.low, found.high
    (2.5, 1.5, 3.5)
    """
    return of_means(np.asarray(values, np.float64)[:, None], lambda means: means[:, 0], method=method, **how)


def clustered_mean(
    values: Sequence[float], clusters: Sequence[str], *, method: Method = "percentile", **how: Any
) -> Interval:
    """Interval of the mean of all values, where those of one cluster (the patches of an image) are drawn together.

    Raises:
        MetricError: no value, one that is not finite, or not as many clusters as values.

    >>> clustered_mean([1.0, 1.0, 5.0], ["a", "a", "b"]).n
    2
    """
    if len(values) != len(clusters):
        raise MetricError(f"bootstrap: {len(values)} values and {len(clusters)} clusters")
    names, of = np.unique(np.asarray(clusters, str), return_inverse=True)
    sums = np.bincount(of, weights=np.asarray(values, np.float64), minlength=len(names))
    sizes = np.bincount(of, minlength=len(names))
    parts = np.stack([sums, sizes], axis=1)
    return of_means(parts, lambda means: means[:, 0] / means[:, 1], method=method, **how)


def paired(
    first: Mapping[str, float], second: Mapping[str, float], *, method: Method = "percentile", **how: Any
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
    method: Method = "percentile",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a function of means over images; all resamples at once.

    Ratios of sums are such functions: mIoU of confusion counts, BLEU of its counts, a mean of patches.

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
    found = [statistic(_occurrences(picks, n) @ values / n) for picks in draws(n, resamples, seed)] if n > 1 else []
    without = statistic((values.sum(axis=0) - values) / (n - 1)) if method == "bca" and n > 1 else None
    return _interval(centre, np.concatenate([[], *found]), n, method, level, without)


def of_occurrences(
    n: int,
    statistic: Callable[[Floats], Floats],
    *,
    method: Method = "centred",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of what can be computed from how often each image occurs; all resamples at once.

    KID and CMMD are such, from sums of the kernel (`rdpbench.metrics.mmd_sums`): pairs of images drawn together.

    Args:
        n: images.
        statistic: from ``(k, n)``, occurrences in k resamples, to ``(k,)``.

    Raises:
        MetricError: no image.

    >>> of_occurrences(3, lambda times: times @ np.array([1.0, 2.0, 6.0]) / 3).value
    3.0
    """
    if n < 1:
        raise MetricError("bootstrap: no image in the set")
    if method == "bca":
        raise MetricError("bootstrap: 'bca' is not offered for sets; take 'centred' or 'percentile'")
    found = [statistic(_occurrences(picks, n)) for picks in draws(n, resamples, seed)] if n > 1 else []
    return _interval(float(statistic(np.ones((1, n)))[0]), np.concatenate([[], *found]), n, method, level)


def of_sets(
    reference: Sequence[T],
    distorted: Sequence[T],
    reduce: Callable[[Sequence[T], Sequence[T]], float],
    *,
    pairs: bool = True,
    method: Method = "centred",
    resamples: int = 200,
    seed: int = SEED,
    level: float = LEVEL,
) -> Interval:
    """Interval of a distance of two sets, from what is stored per image: its rows, patches together, or its counts.

    ``reduce`` is called once per resample: one that takes a second makes it three minutes.

    Args:
        reference: one entry per image, in the order of the ids.
        distorted: the same images' (``pairs``), drawn together; or any other set, drawn by itself.
        reduce: the distance of two lists of entries; NaN where there is none.
        pairs: are entries of one position the same image?

    Raises:
        MetricError: an empty set, or sets of two sizes that should be pairs; what ``reduce`` raises.

    >>> images = [np.array([[value]]) for value in (1.0, 2.0, 4.0)]
    >>> gap = lambda x, y: float(np.mean(np.concatenate(y)) - np.mean(np.concatenate(x)))
    >>> found = of_sets(images, [image + 1 for image in images], gap)
    >>> found.value, round(found.high - found.low, 9)
    (1.0, 0.0)
    """
    if not len(reference) or not len(distorted):
        raise MetricError("bootstrap: no image in the set")
    if pairs and len(reference) != len(distorted):
        raise MetricError(f"bootstrap: {len(reference)} originals and {len(distorted)} reconstructions are no pairs")
    if method == "bca":
        raise MetricError("bootstrap: 'bca' is not offered for sets; take 'centred' or 'percentile'")
    n, m = len(reference), len(distorted)
    first = (row for block in draws(n, resamples, seed) for row in block)
    # Another set gets a stream of its own: seeded alike, two sets of one size would be drawn alike.
    second = None if pairs else (row for block in draws(m, resamples, seed + 1) for row in block)
    found = []
    for picks in first if min(n, m) > 1 else ():
        others = picks if second is None else next(second)
        found.append(reduce([reference[one] for one in picks], [distorted[one] for one in others]))
    return _interval(reduce(reference, distorted), np.array(found, np.float64), min(n, m), method, level)


def of_curves(
    anchor: tuple[Floats, Floats],
    test: tuple[Floats, Floats],
    delta: Callable[[Points, Points], Delta],
    *,
    method: Method = "percentile",
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


def over_seeds(values: Floats) -> tuple[float, float]:
    """Mean over seeds of the dataset's mean, and its standard deviation (n - 1): ``values (seeds, images)``.

    The deviation is NaN for a single seed. It says how far another run of a stochastic codec may be, not how far
    another set of images.

    Raises:
        MetricError: not two-dimensional, empty, or with values that are not finite.

    >>> over_seeds(np.array([[1.0, 3.0], [2.0, 4.0], [3.0, 5.0]]))
    (3.0, 1.0)
    """
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise MetricError(f"seeds: finite values (seeds, images) are needed, found shape {values.shape}")
    means = values.mean(axis=1)
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
    shares = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        shares = _corrected(value, good, without if without is not None else np.empty(0), shares)
    low, high = np.quantile(good, shares)
    shift = float(good.mean()) - value
    if method == "centred":
        low, high = low - shift, high - shift
    return Interval(value, float(low), float(high), n, method, len(found), failed, shift)


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

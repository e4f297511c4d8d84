"""How sure a number is: 95 % intervals over images, seeded, the same resamples for every codec.

Images are drawn with replacement, never patches, pixels or seeds: patches of one image, and decodes of one bitstream,
are alike, and counting them as independent makes intervals that are too small. The draw depends on the number of images
alone. Give the values in the order of the image ids, and two codecs meet the same resamples.

An interval lies between two quantiles of the resampled values, further out for few images (`shares`): the *expanded*
interval. `docs/statistics.md` has how often it holds the truth: over 24 images 95 % for a normal distribution, where
plain quantiles hold 93 % and Efron's BCa 92 %.

Below `SMALL` images resamples cannot tell enough: of two images there are three, and what lies between the smallest and
the largest value holds the truth in every second case. There the interval is Student's, from the values without each
image (`jackknifed`); for a mean that is the interval of every textbook. So it is for a mean over more than `LARGE`.

A thousand resamples leave the ends of an interval uncertain by 3 % of its width, and alike in all that is computed over
the same images. Most of what a statistic does from resample to resample is linear in the means, and that part is cheap:
it is resampled ten times as often, and says at which share of the thousand the end lies (`_sharpened`).

Distances between sets are not bootstrapped: doubled images raise them by themselves (`jackknife`).

Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Hesterberg, "What teachers should know about
the bootstrap", The American Statistician 2015 (the expanded interval); Davison and Hinkley, "Bootstrap methods and
their application", 1997, section 9.3 (linear parts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.contract import SetMetric
from rdpbench.results.stats.bd import Delta, Floats, RateValues

Bounds: TypeAlias = tuple[float, float]
"""The least and the largest value that a number can have; infinite where there is none."""
REAL: Bounds = (-math.inf, math.inf)

SMALL = 8
"""Images below which intervals are Student's: from 8 on, expanded ones hold the truth as often."""
LARGE = 4000
"""Images above which the interval of a mean is Student's, too: both have one limit, and by now the thousand resamples'
own uncertainty, 3 % of the width, is larger than what tells them apart. Thirty thousand images take a second each."""
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
_REMEMBERED = 40_000_000
"""Image numbers of which it is remembered how often each was drawn: a byte each."""


@dataclass(frozen=True)
class Interval:
    """A value with its interval over images."""

    value: float
    low: float
    """NaN, as ``high``, where ``reason`` says why."""
    high: float
    n: int
    """Images that were drawn from."""
    method: str
    """``expanded`` or ``student``."""
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


def resampled(values: Floats, resamples: int = RESAMPLES) -> Iterator[Floats]:
    """Means over resampled images of what each contributes, ``(n, m)``; ``(k, m)`` at a time, as many as `draws`.

    >>> next(resampled(np.ones((3, 2)), resamples=4)).shape
    (4, 2)
    """
    n = len(values)
    small = n * resamples <= _REMEMBERED
    for counts in _remembered(n, resamples) if small else _occurrences(n, resamples):
        yield counts.astype(np.float64) @ values / n


@lru_cache(maxsize=8)
def _remembered(n: int, resamples: int) -> list[NDArray[Any]]:
    """All that tables draw over one set of images meets the same resamples: they are drawn once."""
    return list(_occurrences(n, resamples))


def _occurrences(n: int, resamples: int) -> Iterator[NDArray[Any]]:
    """How often each image is in each resample: ``(k, n)`` at a time, in the smallest type that holds the numbers."""
    for picks in draws(n, resamples):
        flat = (picks + n * np.arange(len(picks))[:, None]).ravel()
        counts = np.bincount(flat, minlength=len(picks) * n).reshape(len(picks), n)
        yield counts.astype(np.min_scalar_type(counts.max()))


def shares(n: int) -> tuple[float, float]:
    """Which quantiles of resampled values an expanded interval over n images takes.

    The quantiles of n resampled images are those of a spread that is ``sqrt((n - 1) / n)`` too small, and of a normal
    distribution where Student's is right. Both are undone: of 24 images the 2.5 % point becomes the 1.7 % point.

    >>> round(shares(24)[0], 4), round(shares(10_000)[0], 4)
    (0.0173, 0.025)
    """
    low = NormalDist().cdf(-math.sqrt(n / (n - 1)) * student(n - 1, (1 + LEVEL) / 2))
    return low, 1 - low


@cache
def student(freedom: int, share: float) -> float:
    """Quantile of Student's t distribution.

    >>> round(student(23, 0.975), 4)
    2.0687
    """
    # Our own, since importing scipy's takes a tenth of a small run. Abramowitz and Stegun, 26.7.3 and 26.7.4: the terms
    # of P(|T| < t). Newton's steps from a normal quantile come from below, since the distribution bends down.
    odd = freedom % 2
    ratios = 1 - 1 / np.arange(2 + odd, freedom, 2)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    t, step = NormalDist().inv_cdf(share), 1.0
    while step > 1e-14 * t:
        angle = math.atan(t / math.sqrt(freedom))
        terms = np.cumprod(np.r_[math.cos(angle) if odd else 1.0, ratios * math.cos(angle) ** 2])
        within = math.sin(angle) * float(terms.sum()) if freedom > 1 else 0.0
        within = 2 / math.pi * (angle + within) if odd else within
        step = (2 * share - 1 - within) / (2 * scale) * (1 + t * t / freedom) ** ((freedom + 1) / 2)
        t += step
    return t


def jackknifed(value: float, without: Floats, bounds: Bounds = REAL) -> tuple[float, float]:
    """Student's interval of a number of all images from its values without each of b (nearly) equal blocks, ``(b,)``.

    A number that is bounded has its interval on a scale on which the bounds are infinitely far, logarithms or
    logarithms of odds: no end lies outside, and none is cut off. Ends are NaN where a value is not finite or stands at
    one of the bounds, and differs from others.

    >>> low, high = jackknifed(2.5, np.array([3.0, 8 / 3, 7 / 3, 2.0]))
    >>> round(low, 3), round(high, 3)
    (0.446, 4.554)
    """
    if (without == value).all():
        return value, value
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = _unbounded(np.r_[value, without], bounds)
        centre, spread, count = scaled[0], scaled[1:] - scaled[1:].mean(), len(without)
        half = student(count - 1, (1 + LEVEL) / 2) * math.sqrt((count - 1) / count * float(np.square(spread).sum()))
    if not math.isfinite(half + float(centre)):
        return math.nan, math.nan
    first, second = (_bounded(float(end), bounds) for end in (centre - half, centre + half))
    return min(first, second), max(first, second)


BLOCKS = 10
"""Of the jackknife: a block of images is left out at a time."""


def jackknife(
    metric: SetMetric,
    reference: Sequence[NDArray[Any]],
    distorted: Sequence[NDArray[Any]],
    *,
    value: float,
    paired: bool = True,
    bounds: Bounds = REAL,
) -> tuple[float, float] | str:
    """95 % interval of a set metric over images: delete-a-block jackknife (Shao and Tu, 1995).

    The bootstrap draws images twice, which biases distances between sets: an image equals itself. Leaving out a tenth
    does not. Blocks are drawn once, by a fixed seed; values without one may be of fewer images than the metric needs.

    Args:
        metric: computes a value from two sets; with ``left_out``, all blocks in one pass.
        reference: arrays of the other side, one an image; of the same images, which are left out too, if ``paired``.
        distorted: arrays of the reconstructions.
        value: the metric of all images; the middle of the interval, where the metric has no bounds.
        paired: is the reference of the same images?
        bounds: the range of the metric's values.

    Returns:
        Both ends, or why there are none.

    >>> from rdpbench.metrics.contract import Estimate
    >>> class Mean:
    ...     def reduce(self, _, arrays):
    ...         return Estimate(float(np.concatenate(list(arrays)).mean()))
    >>> ones = [np.array([[float(n)]]) for n in range(40)]
    >>> low, high = jackknife(Mean(), ones, ones, value=19.5)
    >>> round((low + high) / 2, 1)
    19.5
    """
    count = len(distorted)
    if count < 2 * BLOCKS:
        return f"an interval needs at least {2 * BLOCKS} images, and these are {count}"
    order = np.random.default_rng(2026).permutation(count)
    blocks = [np.sort(block).tolist() for block in np.array_split(order, BLOCKS)]
    fast = getattr(metric, "left_out", None)

    def without(block: Sequence[int]) -> float:
        left = set(block)
        kept = [number for number in range(count) if number not in left]
        other = [reference[number] for number in kept] if paired else reference
        return metric.reduce(other, [distorted[number] for number in kept]).value

    try:
        values = np.array(fast(reference, distorted, blocks) if paired and fast else [*map(without, blocks)])
    except MetricError as error:
        return f"without a tenth of the images there is no value: {error}"
    if not np.isfinite(values).all():
        return "without a tenth of the images there is no value"
    low, high = jackknifed(value, values, bounds)
    return (low, high) if math.isfinite(high - low) else "the value is at the end of its range"


def _unbounded(values: Floats, bounds: Bounds) -> Floats:
    """Values on a scale on which finite bounds are infinitely far."""
    low, high = bounds
    if bounds == REAL:
        return values
    below = np.log(values - low) if math.isfinite(low) else 0.0
    return np.asarray(below - (np.log(high - values) if math.isfinite(high) else 0.0))


def _bounded(value: float, bounds: Bounds) -> float:
    """The way back from that scale."""
    low, high = bounds
    if bounds == REAL:
        return value
    # Beyond these, exponentials overflow, and the bound itself is the nearest number.
    value = min(max(value, -700.0), 700.0)
    if math.isinf(high):
        return low + math.exp(value)
    if math.isinf(low):
        return high - math.exp(-value)
    return low + (high - low) / (1 + math.exp(-value))


def mean(values: Sequence[float] | Floats, *, reduce: Callable[[Any], Any] | None = None, **options: Any) -> Interval:
    """Interval of the mean of one value per image; ``reduce`` turns a mean, or an array of them, into what is stated.

    ``options`` are ``bounds`` and ``resamples`` of `of_means`, which raises the same errors.

    >>> interval = mean([1.0, 2.0, 3.0, 4.0])
    >>> interval.value, round(interval.low, 3), round(interval.high, 3)
    (2.5, 0.446, 4.554)
    """

    def statistic(means: Floats) -> Floats:
        if reduce is None or len(means) > LARGE:
            return means[:, 0] if reduce is None else np.asarray(reduce(means[:, 0]), np.float64)
        return np.array([float(reduce(float(value))) for value in means[:, 0]])

    return of_means(np.asarray(values, np.float64)[:, None], statistic, **options)


def of_means(
    parts: NDArray[Any],
    statistic: Callable[[Floats], Floats],
    *,
    bounds: Bounds = REAL,
    resamples: int = RESAMPLES,
) -> Interval:
    """Interval of a function of means over images; all resamples at once.

    Ratios of sums are such functions: mIoU of confusion counts, BLEU of its counts, a mean over patches.

    Args:
        parts: what each image contributes, ``(n, m)``.
        statistic: from ``(k, m)``, means over k resamples, to ``(k,)``.
        bounds: the range of the statistic's values, which Student's interval keeps to; resampled values do anyway.
        resamples: how often the statistic is evaluated.

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
    if n < 2 or not math.isfinite(centre):
        reason = "one image has no interval" if math.isfinite(centre) else "there is no value"
        return Interval(centre, math.nan, math.nan, n, "expanded", 0, reason=reason)
    if n < SMALL or (n > LARGE and values.shape[1] == 1):
        return _student(centre, statistic((values.sum(axis=0) - values) / (n - 1)), bounds)
    blocks = list(resampled(values, resamples))
    numbers = np.concatenate([statistic(means) for means in blocks])
    good = numbers[np.isfinite(numbers)]
    failed = len(numbers) - len(good)
    if failed > FAILED * len(numbers):
        reason = f"{failed} of {len(numbers)} resamples gave no number"
        return Interval(centre, math.nan, math.nan, n, "expanded", len(numbers), failed, reason=reason)
    quantiles = _sharpened(values, np.concatenate(blocks), numbers, np.array(shares(n)))
    low, high = np.quantile(good, quantiles)
    return Interval(centre, float(low), float(high), n, "expanded", len(numbers), failed)


def _student(value: float, without: Floats, bounds: Bounds) -> Interval:
    """Student's interval, or the reason for none."""
    n = len(without)
    failed = n - int(np.isfinite(without).sum())
    low, high = jackknifed(value, without, bounds)
    reason = ""
    if failed:
        reason = f"{n} images, and without one of them there is no number ({failed} of {n})"
    elif math.isnan(low):
        reason = f"{n} images, and a value at the end of its range"
    return Interval(value, low, high, n, "student", n, failed, reason=reason)


def _sharpened(values: Floats, means: Floats, numbers: Floats, quantiles: Floats) -> Floats:
    """The quantiles at which to read resampled ``numbers``, so that their linear part has those of more resamples."""
    n, parts = values.shape
    fine = max(len(numbers), min(FINE, _FINE_DRAWN // n))
    good = np.isfinite(numbers)
    # With more unknowns than a tenth of the resamples a fit would follow their noise.
    if fine == len(numbers) or 10 * parts > good.sum():
        return quantiles
    centre = values.mean(axis=0)
    slopes = np.linalg.lstsq(means[good] - centre, numbers[good] - numbers[good].mean(), rcond=None)[0]
    of_image = ((values - centre) @ slopes)[:, None]
    many = np.concatenate([block[:, 0] for block in resampled(of_image, fine)])
    linear = np.sort((means[good] - centre) @ slopes)
    sharp: Floats = np.interp(np.quantile(many, quantiles), linear, np.linspace(0, 1, len(linear)))
    # Of values so near zero that their squares vanish there is no fit.
    return sharp if np.isfinite(sharp).all() else quantiles


def of_curves(
    anchor: tuple[Floats, Floats],
    test: tuple[Floats, Floats],
    delta: Callable[[RateValues, RateValues], Delta],
    **options: Any,
) -> Interval:
    """Interval of a BD-rate or BD-metric: the images of all points of both curves are drawn together.

    Both curves are rates and values of each point and image, ``(points, n)``; ``options`` those of `of_means`.

    Raises:
        MetricError: arrays of two shapes, or not the same number of images; a value that is not finite.

    >>> from rdpbench.results.stats.bd import bd_rate
    >>> rates = np.outer([0.1, 0.2, 0.4, 0.8], [1.0, 1.5, 0.7])
    >>> values = 30 + 10 * np.log10(rates)
    >>> interval = of_curves((rates, values), (0.9 * rates, values), bd_rate, resamples=50)
    >>> round(interval.value, 6), round(interval.high - interval.low, 6)
    (-10.0, 0.0)
    """
    stacked, split = stack(anchor, test)
    return of_means(stacked, lambda means: np.array([delta(*split(line)).value for line in means]), **options)


def stack(
    anchor: tuple[Floats, Floats], test: tuple[Floats, Floats]
) -> tuple[Floats, Callable[[Floats], tuple[RateValues, RateValues]]]:
    """What each image contributes to two curves, ``(n, m)``, and what makes curves of means over images, ``(m,)``."""
    arrays = [np.asarray(array, np.float64) for array in (*anchor, *test)]
    shapes = [array.shape for array in arrays]
    if any(len(shape) != 2 for shape in shapes) or shapes[0] != shapes[1] or shapes[2] != shapes[3]:
        raise MetricError(f"bootstrap: rates and values are arrays (points, images) of one shape, found {shapes}")
    if shapes[0][1] != shapes[2][1]:
        raise MetricError(f"bootstrap: the curves are of {shapes[0][1]} and {shapes[2][1]} images, not of the same")
    edges = np.cumsum([len(array) for array in arrays])[:-1]

    def split(means: Floats) -> tuple[RateValues, RateValues]:
        rates, values, test_rates, test_values = (part.tolist() for part in np.split(means, edges))
        return list(zip(rates, values, strict=True)), list(zip(test_rates, test_values, strict=True))

    return np.concatenate(arrays).T, split

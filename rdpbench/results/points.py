"""Intervals of metrics of sets, by leaving out blocks of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Estimate
from rdpbench.results.bootstrap import REAL, Bounds, jackknifed

Array: TypeAlias = NDArray[Any]


class Reducing(Protocol):
    """A set metric, as far as intervals need it."""

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array], /) -> Estimate: ...


BLOCKS = 10
"""Of the jackknife: a block of images is left out at a time."""
INTERVALS = 2
"""Raised when the intervals of set metrics change: values are then reduced again from the stored arrays."""


def jackknife(
    metric: Reducing,
    reference: Sequence[Array],
    distorted: Sequence[Array],
    *,
    value: float,
    paired: bool = True,
    bounds: Bounds = REAL,
) -> tuple[float, float] | str:
    """95 % interval of a set metric over images: delete-a-block jackknife (Shao and Tu, 1995).

    The bootstrap draws images twice, which biases distances between sets: an image equals itself. Leaving out a tenth
    does not. Blocks are drawn once, by a fixed seed.

    A metric's least number of images is about its value. The values without a block serve only to see how far images
    move it, and may be of fewer images.

    Args:
        metric: computes a value from two sets; with ``left_out``, all blocks in one pass.
        reference: arrays of the other side; image by image those of the same images, if ``paired``.
        distorted: arrays of the reconstructions; all rows of an image stay together.
        value: the metric of all images; the middle of the interval, where the metric has no bounds.
        paired: leave the same images out of the reference.
        bounds: the range of the metric's values.

    Returns:
        Both ends, or why there are none.

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
    try:
        if paired and fast:
            values = np.array(fast(reference, distorted, blocks))
        else:
            values = np.array([_without(metric, reference, distorted, set(block), paired) for block in blocks])
    except MetricError as error:
        return f"without a tenth of the images there is no value: {error}"
    if not np.isfinite(values).all():
        return "without a tenth of the images there is no value"
    low, high = jackknifed(value, values, bounds)
    return (low, high) if math.isfinite(high - low) else "the value is at the end of its range"


def _without(
    metric: Reducing, reference: Sequence[Array], distorted: Sequence[Array], left: set[int], paired: bool
) -> float:
    kept = [number for number in range(len(distorted)) if number not in left]
    other = [reference[number] for number in kept] if paired else reference
    return metric.reduce(other, [distorted[number] for number in kept]).value

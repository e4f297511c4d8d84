"""How much the decodes of one bitstream differ: what a stochastic decoder invents is not in the bits.

A codec may score well on every single decode and still show another face each time. ``diversity/lpips`` is the mean
LPIPS over all pairs of decodes; beside it stands the standard deviation of each pixel. Both are 0 for a deterministic
decoder. Neither is good or bad by itself: at equal realism a lower diversity means that more of the image was sent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.checks import check_original, check_pair
from rdpbench.metrics.contract import Metric


@dataclass(frozen=True)
class Diversity:
    """What differs among k decodes of one bitstream."""

    mean_pairwise: float
    """Mean of the metric over the k (k - 1) / 2 pairs."""
    pixel_std: float
    """Mean of `pixel_deviation`, in steps of 8-bit values."""


def pixel_deviation(images: Sequence[Image]) -> NDArray[np.float64]:
    """Standard deviation of each pixel over the images, ``(H, W)``, mean of the three channels, in 8-bit steps.

    The unbiased estimate of the variance (k - 1 in the denominator), so that it does not grow with k by itself.

    Raises:
        MetricError: fewer than two images, or not all ``uint8 (H, W, 3)`` of one size.

    >>> pixel_deviation([np.full((2, 2, 3), value, np.uint8) for value in (10, 14)]).round(4)[0, 0]
    2.8284
    """
    _check(images)
    # Integers as float64: sums and squares of 8-bit values are exact, whatever the order.
    total = np.zeros(images[0].shape)
    squares = np.zeros(images[0].shape)
    for image in images:
        wide = image.astype(np.float64)
        total += wide
        squares += wide**2
    count = len(images)
    return np.asarray(np.sqrt((count * squares - total**2) / (count * (count - 1))).mean(axis=2))


def diversity(images: Sequence[Image], metric: Metric) -> Diversity:
    """Mean of a symmetric pair metric over all pairs of decodes, and their deviation per pixel.

    Args:
        images: k decodes of one bitstream, ``uint8 (H, W, 3)``, k at least 2. Their order does not matter.
        metric: a pair metric with one value for a pair whichever image comes first, such as LPIPS.

    Raises:
        MetricError: fewer than two images, or not all ``uint8 (H, W, 3)`` of one size.

    >>> from rdpbench.metrics.psnr import PooledPSNR
    >>> found = diversity([np.full((4, 4, 3), value, np.uint8) for value in (10, 12, 14)], PooledPSNR())
    >>> found.mean_pairwise, found.pixel_std
    (8.0, 2.0)
    """
    _check(images)
    values = []
    prepared, first = None, -1
    for one, other in itertools.combinations(range(len(images)), 2):
        if one != first:
            prepared, first = metric.prepare(images[one]), one
        values.append(metric.score(prepared, images[other]))
    return Diversity(math.fsum(values) / len(values), float(pixel_deviation(images).mean()))


def _check(images: Sequence[Image]) -> None:
    if len(images) < 2:
        raise MetricError(f"diversity compares decodes of one bitstream: it needs at least 2, found {len(images)}")
    check_original(images[0], "diversity")
    for image in images[1:]:
        check_pair(images[0], image, "diversity")

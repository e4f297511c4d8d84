"""How much several decodes of one bitstream differ, for codecs whose decoder draws random numbers.

A codec may score well on every single decode and still show another face in each. ``diversity/lpips-alex/5`` is the
mean LPIPS over all pairs of 5 decodes; ``diversity/deviation/5`` is the standard deviation of each pixel, in steps of
8-bit values, and needs no weights. Both are 0 for a deterministic decoder. Neither is good or bad by itself: at equal
realism a lower diversity means that more of the image was sent.

The number of decodes is part of a metric's name: a few show less than many. A name without it
(``diversity/deviation``) takes it from the setting ``decodes=``; ``over`` makes the class for a number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, OutOfRange
from rdpbench.image import Image
from rdpbench.metrics.contract import Metric, PairMetric, WithNetwork, by_name, check_original, check_pair, variant
from rdpbench.metrics.lpips import LPIPS, LPIPSVGG, LPIPSAlex, LPIPSSqueeze

MOST = 1000
"""Decodes; more are a slip of the keyboard."""


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


def mean_of_pairs(images: Sequence[Image], metric: Metric) -> float:
    """Mean of a symmetric pair metric over all pairs of decodes.

    Args:
        images: k decodes of one bitstream, ``uint8 (H, W, 3)``, k at least 2. Their order does not matter.
        metric: a pair metric with one value for a pair whichever image comes first, such as LPIPS.

    Raises:
        MetricError: fewer than two images, or not all ``uint8 (H, W, 3)`` of one size.

    >>> from rdpbench.metrics.psnr import PSNR
    >>> round(mean_of_pairs([np.full((4, 4, 3), value, np.uint8) for value in (10, 12, 14)], PSNR()), 4)
    40.1033
    """
    _check(images)
    values = []
    for number, image in enumerate(images[:-1]):
        prepared = metric.prepare(image)
        values += [metric.score(prepared, other) for other in images[number + 1 :]]
    return math.fsum(values) / len(values)


def _check(images: Sequence[Image]) -> None:
    if len(images) < 2:
        raise MetricError(f"diversity compares decodes of one bitstream: it needs at least 2, found {len(images)}")
    check_original(images[0], "diversity")
    for image in images[1:]:
        check_pair(images[0], image, "diversity")


class OverDecodes(PairMetric):
    """What metrics over several decodes share."""

    kind: ClassVar[Literal["decodes"]] = "decodes"
    decodes: ClassVar[int] = 0
    """0: not said yet, see ``over``."""
    perceptual = False

    @classmethod
    def over(cls, decodes: int) -> type[Self]:
        """The metric over a number of decodes, which is then part of its name; the same class each time.

        Raises:
            OutOfRange: fewer than 2 decodes, or more than `MOST`.

        >>> Deviation.over(5).name, Deviation.over(5).decodes
        ('diversity/deviation/5', 5)
        """
        metric: Any = cls
        return _over(metric, decodes)

    def check_count(self, decodes: Sequence[Image]) -> None:
        """Raise `MetricError` for another number of decodes than the name says."""
        if len(decodes) != self.decodes:
            raise MetricError(f"{self.name} compares {self.decodes} decodes, found {len(decodes)}")


@cache
def _over(metric: Any, decodes: int) -> Any:
    if not 2 <= decodes <= MOST:
        raise OutOfRange(f"{metric.name}/{decodes}: diversity compares 2 to {MOST} decodes of one bitstream")
    return variant(metric, f"{metric.name}/{decodes}", decodes=decodes)


class Deviation(OverDecodes):
    """Standard deviation of each pixel over the decodes, mean over pixels and channels.

    >>> Deviation.over(3)().score([np.full((4, 4, 3), value, np.uint8) for value in (10, 12, 14)])
    2.0
    """

    name = "diversity/deviation"
    source = "unbiased standard deviation over decodes of one bitstream, in 8-bit steps; decodes=K"

    def score(self, decodes: Sequence[Image]) -> float:
        """In 8-bit steps."""
        self.check_count(decodes)
        return float(pixel_deviation(decodes).mean())


class LPIPSDiversity(WithNetwork[Metric], OverDecodes):
    """Mean LPIPS over all pairs of decodes; ``given`` takes the place of the LPIPS metric."""

    pair: ClassVar[type[LPIPS]]

    def load(self, given: Metric | None) -> Metric:
        return given or self.pair(device=self.device)

    def score(self, decodes: Sequence[Image]) -> float:
        """Mean over the pairs. Raises `MetricError` for images that are too small."""
        self.check_count(decodes)
        return mean_of_pairs(decodes, self.network)


def _of_pairs(pair: type[LPIPS]) -> type[LPIPSDiversity]:
    source = f"mean LPIPS ({pair.net}, v0.1) over all pairs of decodes of one bitstream; decodes=K"
    name = f"diversity/lpips-{pair.net}"
    return variant(LPIPSDiversity, name, source=source, pair=pair, needs=pair.needs, preload=pair.preload)


METRICS = by_name(Deviation, *map(_of_pairs, (LPIPSAlex, LPIPSVGG, LPIPSSqueeze)))

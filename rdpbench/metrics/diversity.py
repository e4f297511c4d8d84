"""How much the decodes of one bitstream differ: what a stochastic decoder invents is not in the bits.

A codec may score well on every single decode and still show another face each time. ``diversity/lpips-alex/5`` is the
mean LPIPS over all pairs of 5 decodes; ``diversity/deviation/5`` is the standard deviation of each pixel, in steps of
8-bit values, and needs no weights. Both are 0 for a deterministic decoder. Neither is good or bad by itself: at equal
realism a lower diversity means that more of the image was sent.

The number of decodes is part of a metric's name. The estimates do not grow with it by themselves, but what a few
decodes happen to show differs from what many do. Without a number (``diversity/deviation``) a name stands for the
setting ``decodes=``; ``over`` makes the class for a number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, OutOfRange
from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.contract import Metric, check_original, check_pair
from rdpbench.metrics.lpips import LPIPSVGG, LPIPSAlex, LPIPSSqueeze
from rdpbench.needs import Need

MOST = 1000
"""Decodes; more are a slip of the keyboard."""


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

    >>> from rdpbench.metrics.psnr import PSNR
    >>> found = diversity([np.full((4, 4, 3), value, np.uint8) for value in (10, 12, 14)], PSNR())
    >>> round(found.mean_pairwise, 4), found.pixel_std
    (40.1033, 2.0)
    """
    _check(images)
    values = []
    prepared, first = None, -1
    for one, other in itertools.combinations(range(len(images)), 2):
        if one != first:
            prepared, first = metric.prepare(images[one]), one
        values.append(metric.score(prepared, images[other]))
    return Diversity(math.fsum(values) / len(values), float(pixel_deviation(images).mean()))


class _Diversity:
    """What metrics over several decodes share."""

    name: ClassVar[str]
    kind: ClassVar[Literal["decodes"]] = "decodes"
    decodes: ClassVar[int] = 0
    """0: not said yet, see ``over``."""
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    perceptual: ClassVar[bool] = False

    @classmethod
    def over(cls, decodes: int) -> type[Self]:
        """The metric over a number of decodes, which is then part of its name; the same class each time.

        Raises:
            OutOfRange: fewer than 2 decodes, or more than `MOST`.

        >>> Deviation.over(5).name, Deviation.over(5).decodes
        ('diversity/deviation/5', 5)
        """
        own: Any = cls
        made: type[Self] = _over(own, decodes)
        return made

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)

    def check_count(self, decodes: Sequence[Image]) -> None:
        """Raise `MetricError` for another number of decodes than the name says."""
        if len(decodes) != self.decodes:
            raise MetricError(f"{self.name} compares {self.decodes} decodes, found {len(decodes)}")


class Deviation(_Diversity):
    """Standard deviation of each pixel over the decodes, mean over pixels and channels.

    >>> Deviation.over(3)().score([np.full((4, 4, 3), value, np.uint8) for value in (10, 12, 14)])
    2.0
    """

    name: ClassVar[str] = "diversity/deviation"
    unit: ClassVar[str] = ""
    source: ClassVar[str] = "unbiased standard deviation over decodes of one bitstream, in 8-bit steps; decodes=K"
    needs: ClassVar[tuple[Need, ...]] = ()

    def score(self, decodes: Sequence[Image]) -> float:
        """In 8-bit steps. Raises `MetricError` for another number of images, types or sizes."""
        self.check_count(decodes)
        return float(pixel_deviation(decodes).mean())


class LPIPSAlexDiversity(_Diversity):
    """Mean LPIPS (alex) over all pairs of decodes.

    >>> LPIPSAlexDiversity.over(5).decodes
    5
    """

    name: ClassVar[str] = "diversity/lpips-alex"
    unit: ClassVar[str] = ""
    source: ClassVar[str] = "mean LPIPS (alex, v0.1) over all pairs of decodes of one bitstream; decodes=K"
    pair: ClassVar[type[LPIPSAlex | LPIPSVGG | LPIPSSqueeze]] = LPIPSAlex
    needs: ClassVar[tuple[Need, ...]] = LPIPSAlex.needs
    preload: ClassVar[tuple[str, ...]] = LPIPSAlex.preload
    uses_device: ClassVar[bool] = True

    def __init__(self, device: str = "cpu", metric: Metric | None = None) -> None:
        """The network is loaded at the first image; ``metric`` takes the place of the card's."""
        self._metric: Metric = metric or self.pair(device=device)

    def score(self, decodes: Sequence[Image]) -> float:
        """Mean over the pairs. Raises `MetricError` for another number of images, types or sizes, or small images."""
        self.check_count(decodes)
        return diversity(decodes, self._metric).mean_pairwise


class LPIPSVGGDiversity(LPIPSAlexDiversity):
    """The same with LPIPS (vgg).

    >>> LPIPSVGGDiversity.over(5).decodes
    5
    """

    name: ClassVar[str] = "diversity/lpips-vgg"
    source: ClassVar[str] = "mean LPIPS (vgg, v0.1) over all pairs of decodes of one bitstream; decodes=K"
    pair = LPIPSVGG
    needs: ClassVar[tuple[Need, ...]] = LPIPSVGG.needs


class LPIPSSqueezeDiversity(LPIPSAlexDiversity):
    """The same with LPIPS (squeeze).

    >>> LPIPSSqueezeDiversity.over(5).decodes
    5
    """

    name: ClassVar[str] = "diversity/lpips-squeeze"
    source: ClassVar[str] = "mean LPIPS (squeeze, v0.1) over all pairs of decodes of one bitstream; decodes=K"
    pair = LPIPSSqueeze
    needs: ClassVar[tuple[Need, ...]] = LPIPSSqueeze.needs


@cache
def _over(metric: type[_Diversity], decodes: int) -> Any:
    if not 2 <= decodes <= MOST:
        raise OutOfRange(f"{metric.name}/{decodes}: diversity compares 2 to {MOST} decodes of one bitstream")
    own = {"name": f"{metric.name}/{decodes}", "decodes": decodes, "__module__": __name__, "__doc__": metric.__doc__}
    return type(f"{metric.__name__}{decodes}", (metric,), own)


def _check(images: Sequence[Image]) -> None:
    if len(images) < 2:
        raise MetricError(f"diversity compares decodes of one bitstream: it needs at least 2, found {len(images)}")
    check_original(images[0], "diversity")
    for image in images[1:]:
        check_pair(images[0], image, "diversity")

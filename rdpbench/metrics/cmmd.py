"""CMMD (Jayasumana et al., CVPR 2024): distance of two sets of CLIP embeddings by a Gaussian kernel, sigma 10, x 1000.

The network is CLIP ViT-L/14 at 336 pixels. It sees the centre square of each image only: 512 x 512 of a 512 x 768 one.
Embeddings are stored as they come and made of length 1 in float64 here, since float32 loses 4 % of small values. The
biased estimate, which is the published one, stays above zero for equal distributions and by more the fewer the images
(0.23 at 24, 0.05 at 100, 0.011 at 500, 0.002 at 3000): compare it at equal numbers of images only. Reconstructions are
alike to their originals, which takes most of that away again. Of the unbiased estimate it takes as much, and a lossless
codec is below zero; ``cmmd/split`` takes pairs of different images alone, and is right on average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights
from rdpbench.image import Image
from rdpbench.metrics import mmd
from rdpbench.metrics.contract import Array, Estimate, Features
from rdpbench.metrics.mmd import apart_without, cmmd_sums
from rdpbench.metrics.sets import check_pairs, of_pairs, owners, stack
from rdpbench.needs import Need, Package
from rdpbench.networks.clip import L14_336, Clip, load_clip, unit

SIGMA, SCALE = 10.0, 1000.0
"""Of the published metric."""


@cache
def _shared(device: str) -> Clip:
    return load_clip(L14_336, device, text=False)


class Projected:
    """Image embeddings in the space that CLIP shares with captions: 768 numbers, not of length 1.

    >>> Projected.dim
    768
    """

    id: ClassVar[str] = "clip-l14-336/projected"
    version: ClassVar[str] = "1"
    needs: ClassVar[tuple[Need, ...]] = (Package("transformers"), Weights(L14_336))
    dim: ClassVar[int] = 768
    beside: ClassVar[tuple[str, ...]] = ()
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    projected: ClassVar[bool] = True

    def __init__(self, clip: Clip | None = None, device: str = "cpu") -> None:
        """Take the card's network, or the given one in its place; loaded at the first image."""
        self._clip = clip
        self._device = device

    def extract(self, images: Sequence[Image], **_: Any) -> list[NDArray[np.float32]]:
        """One row per image, ``float32 (1, dim)``. Sizes may differ.

        Raises:
            MetricError: an image is not ``uint8 (H, W, 3)``.
            MissingNeed: the network is not on this machine.
        """
        clip = _shared(self._device) if self._clip is None else self._clip
        rows = clip.image(images, crop="cmmd", projected=self.projected)
        return list(rows[:, None])


class Unprojected(Projected):
    """The class token before the projection: 1024 numbers.

    >>> Unprojected.dim
    1024
    """

    id: ClassVar[str] = "clip-l14-336/noproj"
    dim: ClassVar[int] = 1024
    projected: ClassVar[bool] = False


class CMMD:
    """As published: projected, biased.

    >>> CMMD.minimum_images
    500
    """

    name: ClassVar[str] = "cmmd"
    kind: ClassVar[Literal["set"]] = "set"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    source: ClassVar[str] = "Jayasumana et al., CVPR 2024 (google-research/cmmd)"
    needs: ClassVar[tuple[Need, ...]] = Projected.needs
    features: ClassVar[type[Features]] = Projected
    preload: ClassVar[tuple[str, ...]] = Projected.preload
    minimum_images: ClassVar[int] = 500
    reference: ClassVar[str] = "originals"
    unverified: ClassVar[str] = ""
    unbiased: ClassVar[bool] = False
    split: ClassVar[bool] = False
    """Pairs of different images alone."""
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """Distance of the embeddings, made of length 1; the order of the images does not matter.

        Raises:
            MetricError: an empty set, one image (unbiased), features of another length, NaN, an embedding of zeros.
        """
        first, second = (unit(stack(arrays, self.name, self.features.dim)) for arrays in (reference, distorted))
        if self.split:
            check_pairs(reference, distorted, self.name)
        if not self.unbiased or len(reference) != len(distorted) or len(reference) < 2:
            return Estimate(mmd.cmmd(first, second, unbiased=self.unbiased))
        mmd.check_unit(first, "the reference")
        mmd.check_unit(second, "the distorted set")
        found = mmd.discrepancy(first, second, mmd.gaussian(SIGMA), (owners(reference), owners(distorted)))
        value, apart = SCALE * found.value, SCALE * (found.apart or 0.0)
        return Estimate(apart) if self.split else of_pairs(value, apart, "cmmd/split")

    def left_out(
        self, reference: Sequence[Array], distorted: Sequence[Array], blocks: Sequence[Sequence[int]]
    ) -> list[float]:
        """The distances without each block of images, from one pass over all pairs."""
        sides = [
            [unit(stack([one[n] for n in block], self.name, self.features.dim)) for block in blocks]
            for one in (reference, distorted)
        ]
        if self.split:
            dim = self.features.dim
            first, second = ([unit(stack([rows], self.name, dim)) for rows in one] for one in (reference, distorted))
            return apart_without(first, second, blocks, mmd.gaussian(SIGMA), SCALE)
        sums = cmmd_sums(*sides, unbiased=self.unbiased)
        return [float(value) for value in sums.estimate(1 - np.eye(len(blocks)))]


class CMMDNoProj(CMMD):
    """On the unprojected class token, another scale of values: what TACO is said to report.

    >>> CMMDNoProj.features.dim
    1024
    """

    name: ClassVar[str] = "cmmd/noproj"
    source: ClassVar[str] = "Lee et al., ICML 2024 (TACO): CMMD without the projection"
    features: ClassVar[type[Features]] = Unprojected
    unverified: ClassVar[str] = "TACO's released code has no CMMD; that it leaves the projection out is second-hand"


class CMMDUnbiased(CMMD):
    """Without the pairs of an image with itself: zero on average for equal distributions, and may be negative.

    >>> CMMDUnbiased.minimum_images
    100
    """

    name: ClassVar[str] = "cmmd/unbiased"
    minimum_images: ClassVar[int] = 100
    unbiased: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)


class CMMDSplit(CMMDUnbiased):
    """The same over pairs of different images: zero for a lossless codec.

    >>> CMMDSplit.minimum_images
    100
    """

    name: ClassVar[str] = "cmmd/split"
    split: ClassVar[bool] = True

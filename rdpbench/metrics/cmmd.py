"""CMMD (Jayasumana et al., CVPR 2024): distance of two sets of CLIP embeddings by a Gaussian kernel, sigma 10, x 1000.

The network is CLIP ViT-L/14 at 336 pixels. It sees the centre square of each image only: 512 x 512 of a 512 x 768 one.
Embeddings are stored as they come and made of length 1 in float64 here. The biased estimate, which is the published
one, is above zero for equal distributions, by more the fewer the images (0.23 at 24, 0.05 at 100, 0.011 at 500, 0.002
at 3000): compare it at equal numbers of images only. `rdpbench.metrics.mmd` tells of the other estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights
from rdpbench.image import Image
from rdpbench.metrics import mmd
from rdpbench.metrics.contract import Array, Floats, NetworkFeatures, by_name, variant
from rdpbench.needs import Package
from rdpbench.networks.clip import L14_336, Clip, load_clip, unit


class Projected(NetworkFeatures[Clip]):
    """Image embeddings in the space that CLIP shares with captions: 768 numbers, not of length 1."""

    id = "clip-l14-336/projected"
    needs = (Package("transformers", extra="metrics"), Weights(L14_336))
    dim = 768
    preload = ("torch", "transformers")
    projected: ClassVar[bool] = True

    def load(self, given: Clip | None) -> Clip:
        return given or load_clip(L14_336, self.device, text=False)

    def extract(self, images: Sequence[Image], **_: Any) -> list[NDArray[np.float32]]:
        """One row per image, ``float32 (1, dim)``. Raises `MetricError`: an image is not ``uint8 (H, W, 3)``."""
        return list(self.network.image(images, crop="cmmd", projected=self.projected)[:, None])


Unprojected = variant(Projected, "clip-l14-336/noproj", dim=1024, projected=False)
"""The class token before the projection."""


class CMMD(mmd.KernelMetric):
    """As published: projected, biased."""

    name = "cmmd"
    source = "Jayasumana et al., CVPR 2024 (google-research/cmmd)"
    needs = Projected.needs
    features = Projected
    preload = Projected.preload
    bounds = (0.0, math.inf)
    minimum_images = 500
    scale = mmd.SCALE
    pairs: ClassVar[mmd.Pairs] = "biased"
    split_name = "cmmd/split"

    @staticmethod
    def kernel(first: Floats, second: Floats) -> Floats:
        return mmd.gaussian(mmd.SIGMA)(first, second)

    def rows(self, arrays: Sequence[Array]) -> NDArray[Any]:
        """Of length 1. Raises `MetricError` for an embedding of zeros, too."""
        return unit(super().rows(arrays))


_UNBIASED: dict[str, Any] = {"minimum_images": 100, "bounds": mmd.KernelMetric.bounds}

METRICS = by_name(
    CMMD,
    # Another scale of values.
    variant(
        CMMD,
        "cmmd/noproj",
        source="Lee et al., ICML 2024 (TACO): CMMD without the projection",
        features=Unprojected,
        unverified="TACO's released code has no CMMD; that it leaves the projection out is second-hand",
    ),
    variant(CMMD, "cmmd/unbiased", pairs="unbiased", **_UNBIASED),
    variant(CMMD, "cmmd/split", pairs="apart", **_UNBIASED),
)

"""FID (Heusel et al., NeurIPS 2017) under the names of the protocols that papers use.

The distance is the same for all; presets differ in pixels, and their numbers are not comparable. Which implementations
a preset equals is in ``presets.py``; what no source confirms is in its ``unverified``. The distance is refused where a
set has fewer rows than a feature has entries (2048): the covariance is singular then and the value far too high.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from rdpbench.metrics import frechet
from rdpbench.metrics.contract import Array, Estimate, Features
from rdpbench.metrics.presets import (
    Clean,
    HiFiCPatches,
    HiFiCPatchesAsTheyAre,
    LegacyTF,
    LegacyTorch,
    TorchMetrics,
)
from rdpbench.metrics.sets import stack
from rdpbench.needs import Need
from rdpbench.networks.inception import InceptionFeatures

PATCHED_IMAGES = 100
"""Fewest images of a metric over patches: as many as DIV2K's validation set has, the smallest it is printed for."""


class FIDMetric:
    """What all presets share."""

    name: ClassVar[str]
    kind: ClassVar[Literal["set"]] = "set"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    source: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]] = InceptionFeatures.needs
    features: ClassVar[type[Features]]
    preload: ClassVar[tuple[str, ...]] = InceptionFeatures.preload
    minimum_images: ClassVar[int] = 2048
    reference: ClassVar[str] = "originals"
    unverified: ClassVar[str] = ""
    side: ClassVar[int | None] = None
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """Fréchet distance of the rows of all images, in float64; the order of the images does not matter.

        Raises:
            MetricError: an empty set, one row, features of another length, NaN.
        """
        first, second = (stack(arrays, self.name, self.features.dim) for arrays in (reference, distorted))
        found = frechet.distance_of_rows(first, second)
        few = f"{self.name}: {min(found.n)} feature vectors of {found.dim} entries give a singular covariance"
        return Estimate(found.value, reason="" if found.reliable else few, reliable=found.reliable)

    def left_out(
        self, reference: Sequence[Array], distorted: Sequence[Array], blocks: Sequence[Sequence[int]]
    ) -> list[float]:
        """The distances without each block of images: moments of the blocks add up, so that rows are read once."""
        dim = self.features.dim
        sides = (
            frechet.without_each([frechet.moments(stack([one[n] for n in block], self.name, dim)) for block in blocks])
            for one in (reference, distorted)
        )
        return [frechet.distance(*pair).value for pair in zip(*sides, strict=True)]


class FIDClean(FIDMetric):
    """clean-fid's default: what generative modelling reports.

    >>> FIDClean.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/clean"
    source: ClassVar[str] = "Parmar et al., CVPR 2022 (clean-fid), whole images"
    features: ClassVar[type[Features]] = Clean


class FIDLegacyTF(FIDMetric):
    """TensorFlow's original, torch-fidelity, torchmetrics with ``antialias=False``.

    >>> FIDLegacyTF.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/legacy-tf"
    source: ClassVar[str] = "Heusel et al., NeurIPS 2017 (torch-fidelity), whole images"
    features: ClassVar[type[Features]] = LegacyTF


class FIDLegacyTorch(FIDMetric):
    """pytorch-fid.

    >>> FIDLegacyTorch.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/legacy-torch"
    source: ClassVar[str] = "pytorch-fid 0.3, whole images"
    features: ClassVar[type[Features]] = LegacyTorch


class FIDTorchMetrics(FIDMetric):
    """torchmetrics from 1.8 on, which changed its default resize.

    >>> FIDTorchMetrics.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/tm-1.8"
    source: ClassVar[str] = "torchmetrics 1.8 and later, whole images"
    features: ClassVar[type[Features]] = TorchMetrics


class FIDHiFiCPatch(FIDMetric):
    """What compression papers report on CLIC2020 and DIV2K: 28,650 patches of the 428 images of CLIC2020 test.

    >>> FIDHiFiCPatch.minimum_images
    100
    """

    name: ClassVar[str] = "fid/hific-patch"
    source: ClassVar[str] = "Mentzer et al., NeurIPS 2020 (HiFiC), as in MS-ILLM's code: 256 px patches, two grids"
    features: ClassVar[type[Features]] = HiFiCPatches
    minimum_images: ClassVar[int] = PATCHED_IMAGES


class FIDHiFiCPatchNoResize(FIDMetric):
    """The same patches without the enlargement to 299, another number by 0.01 to 0.1 on CLIC2020.

    >>> FIDHiFiCPatchNoResize.minimum_images
    100
    """

    name: ClassVar[str] = "fid/hific-patch-noresize"
    source: ClassVar[str] = "as fid/hific-patch, the network fed 256 px (NeuralCompression, issue 223)"
    features: ClassVar[type[Features]] = HiFiCPatchesAsTheyAre
    minimum_images: ClassVar[int] = PATCHED_IMAGES


class FIDHFD(FIDMetric):
    """COCO-30k at 256 x 256, whole images.

    >>> FIDHFD.side
    256
    """

    name: ClassVar[str] = "fid/hfd-256"
    source: ClassVar[str] = "Hoogeboom et al., 2023 (HFD): 30,000 images of COCO at 256 px"
    features: ClassVar[type[Features]] = LegacyTF
    side: ClassVar[int | None] = 256
    unverified: ClassVar[str] = "the paper could not be read in full; the resize to 299 is taken to be TensorFlow 1's"


class FIDPerCo(FIDMetric):
    """COCO-30k at 512 x 512, whole images, by clean-fid as in the code of PerCo (SD).

    >>> FIDPerCo.side
    512
    """

    name: ClassVar[str] = "fid/perco-512"
    source: ClassVar[str] = "Careil et al., ICLR 2024 (PerCo): 30,000 images of COCO at 512 px"
    features: ClassVar[type[Features]] = Clean
    side: ClassVar[int | None] = 512
    unverified: ClassVar[str] = "PerCo's own code is not public; the implementation is that of PerCo (SD), clean-fid"


class FIDTACOWhole(FIDMetric):
    """TACO's 30,504 images at their own size, resized to 299 as a whole.

    >>> FIDTACOWhole.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/taco-299/whole"
    source: ClassVar[str] = "Lee et al., ICML 2024 (TACO): 30,504 images of COCO val2014"
    features: ClassVar[type[Features]] = LegacyTF
    unverified: ClassVar[str] = (
        "the released code has no FID, and the paper is said to resize to 299 without saying whether whole images or "
        "patches; the filter is taken to be TensorFlow 1's"
    )


class FIDTACOPatch(FIDTACOWhole):
    """The other reading: patches of 256 resized to 299.

    >>> FIDTACOPatch.minimum_images
    100
    """

    name: ClassVar[str] = "fid/taco-299/patch"
    features: ClassVar[type[Features]] = HiFiCPatches
    minimum_images: ClassVar[int] = PATCHED_IMAGES


class FIDTextSketch(FIDMetric):
    """Reconstructions against another set of images: CLIC2020's training images, resized as the paper does.

    >>> FIDTextSketch.minimum_images
    2048
    """

    name: ClassVar[str] = "fid/text-sketch"
    source: ClassVar[str] = "Lei et al., 2023 (Text+Sketch), by torch-fidelity against CLIC2020's training set"
    features: ClassVar[type[Features]] = LegacyTF
    reference: ClassVar[str] = "clic2020-train@text-sketch-512"

"""KID (Binkowski et al., ICLR 2018) on the features of FID's presets, over seeded subsets and over the full set.

``kid/<preset>`` is the mean over 100 subsets of 1000 feature vectors with the indices that torch-fidelity draws from
its seed 2020: the same at every rate, as long as the images are the same. The spread is that over the subsets.
``kid/<preset>/full`` takes all pairs, and needs neither. Values are not scaled by 1000, and may be negative.

Both are what papers print, and are lowered by the pairs of an original with its own reconstruction: a lossless codec is
below zero, by 2/n of what two alike images have more in common than two others. ``kid/<preset>/split`` takes pairs of
different images alone (`rdpbench.metrics.mmd`): zero for a lossless codec, and right on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from rdpbench.metrics import fid, mmd
from rdpbench.metrics.contract import Array, Estimate, Features
from rdpbench.metrics.mmd import apart_without, kid_sums
from rdpbench.metrics.sets import check_pairs, of_pairs, owners, stack
from rdpbench.needs import Need
from rdpbench.networks.inception import InceptionFeatures

SEED = 2020
SPLIT = ("kid/clean/split", "kid/hific-patch/split", "kid/legacy-tf/split")
"""The presets over pairs of different images."""


class KIDMetric:
    """What all presets share: data and pixels are those of FID's preset of the same name."""

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
    minimum_images: ClassVar[int]
    reference: ClassVar[str]
    unverified: ClassVar[str]
    side: ClassVar[int | None]
    fid: ClassVar[type[fid.FIDMetric]]
    subsets: ClassVar[int] = 100
    size: ClassVar[int | None] = 1000
    """Rows of a subset; None for the full set."""
    split: ClassVar[bool] = False
    """Pairs of different images alone, over the full set."""

    def __init_subclass__(cls) -> None:
        """Take the preset's data from FID's class: one place says what a preset is."""
        cls.source = f"Binkowski et al., ICLR 2018; images as {cls.fid.name}: {cls.fid.source}"
        cls.features, cls.reference = cls.fid.features, cls.fid.reference
        cls.unverified, cls.side = cls.fid.unverified, cls.fid.side
        cls.name = f"kid/{cls.fid.name.removeprefix('fid/')}" + ("" if cls.size else "/full")
        cls.name = cls.name.replace("/full", "/split") if cls.split else cls.name
        patched = cls.fid.minimum_images == fid.PATCHED_IMAGES
        cls.minimum_images = fid.PATCHED_IMAGES if patched or cls.size is None else cls.size

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """Kernel distance of the rows of all images, in float64, unbiased; in the order of the image ids.

        Raises:
            MetricError: fewer rows than a subset has, an empty set, features of another length, NaN.
        """
        first, second = (stack(arrays, self.name, self.features.dim) for arrays in (reference, distorted))
        if self.split:
            check_pairs(reference, distorted, self.name)
        # Image by image the same on both sides, unless the reference is another set.
        paired = self.reference == "originals" and len(reference) == len(distorted) > 1
        images = (owners(reference), owners(distorted)) if paired else None
        other = f"{self.name.removesuffix('/full')}/split"
        other = other if other in SPLIT else "kid/clean/split, or the stored `apart`"
        if self.size is not None:
            one = mmd.kid(first, second, subsets=self.subsets, size=self.size, seed=SEED, images=images)
            return replace(of_pairs(one.value, one.apart, other), spread=one.spread)
        if images is None:
            return Estimate(mmd.polynomial_mmd(first, second))
        found = mmd.discrepancy(first, second, mmd.polynomial, images)
        return Estimate(found.apart or 0.0) if self.split else of_pairs(found.value, found.apart, other)

    def left_out(
        self, reference: Sequence[Array], distorted: Sequence[Array], blocks: Sequence[Sequence[int]]
    ) -> list[float]:
        """The distances over all pairs without each block of images, from one pass; subsets estimate the same."""
        dim = self.features.dim
        if self.split:
            first, second = ([stack([rows], self.name, dim) for rows in one] for one in (reference, distorted))
            return apart_without(first, second, blocks, mmd.polynomial)
        sides = [[stack([one[n] for n in block], self.name, dim) for block in blocks] for one in (reference, distorted)]
        return [float(value) for value in kid_sums(*sides).estimate(1 - np.eye(len(blocks)))]


class KIDClean(KIDMetric):
    """clean-fid's pixels; clean-fid itself draws without a seed.

    >>> KIDClean.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDClean


class KIDCleanFull(KIDClean):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDCleanSplit(KIDCleanFull):
    """Over pairs of different images.

    >>> KIDCleanSplit.name
    'kid/clean/split'
    """

    split: ClassVar[bool] = True


class KIDLegacyTF(KIDMetric):
    """torch-fidelity's default, to the same indices.

    >>> KIDLegacyTF.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDLegacyTF


class KIDLegacyTFFull(KIDLegacyTF):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDLegacyTFSplit(KIDLegacyTFFull):
    """Over pairs of different images."""

    split: ClassVar[bool] = True


class KIDLegacyTorch(KIDMetric):
    """On pytorch-fid's pixels; pytorch-fid itself has no KID.

    >>> KIDLegacyTorch.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDLegacyTorch


class KIDLegacyTorchFull(KIDLegacyTorch):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDTorchMetrics(KIDMetric):
    """On the pixels of torchmetrics from 1.8 on; torchmetrics itself draws without a seed.

    >>> KIDTorchMetrics.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDTorchMetrics


class KIDTorchMetricsFull(KIDTorchMetrics):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDHiFiCPatch(KIDMetric):
    """On HiFiC's patches: subsets are of patches.

    >>> KIDHiFiCPatch.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDHiFiCPatch


class KIDHiFiCPatchFull(KIDHiFiCPatch):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDHiFiCPatchSplit(KIDHiFiCPatchFull):
    """Over pairs of patches of different images."""

    split: ClassVar[bool] = True


class KIDHiFiCPatchNoResize(KIDMetric):
    """On HiFiC's patches without the enlargement.

    >>> KIDHiFiCPatchNoResize.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDHiFiCPatchNoResize


class KIDHiFiCPatchNoResizeFull(KIDHiFiCPatchNoResize):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDHFD(KIDMetric):
    """On COCO-30k at 256.

    >>> KIDHFD.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDHFD


class KIDHFDFull(KIDHFD):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDPerCo(KIDMetric):
    """On COCO-30k at 512.

    >>> KIDPerCo.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDPerCo


class KIDPerCoFull(KIDPerCo):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDTACOWhole(KIDMetric):
    """On TACO's whole images.

    >>> KIDTACOWhole.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDTACOWhole


class KIDTACOWholeFull(KIDTACOWhole):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDTACOPatch(KIDMetric):
    """On patches of TACO's images.

    >>> KIDTACOPatch.size
    1000
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDTACOPatch


class KIDTACOPatchFull(KIDTACOPatch):
    """The same over all pairs."""

    size: ClassVar[int | None] = None


class KIDTextSketch(KIDMetric):
    """Against CLIC2020's training images; subsets of 100, as the paper's scripts take for CLIC2020.

    >>> KIDTextSketch.size
    100
    """

    fid: ClassVar[type[fid.FIDMetric]] = fid.FIDTextSketch
    size: ClassVar[int | None] = 100


class KIDTextSketchFull(KIDTextSketch):
    """The same over all pairs."""

    size: ClassVar[int | None] = None

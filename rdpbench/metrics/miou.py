"""mIoU: what a segmentation network sees in reconstructions, against ground-truth label maps; PerCo's protocol.

Every estimate carries the mIoU of the originals, ``extra["originals"]``, and the ratio of both: the networks were
trained on COCO, and PerCo's images of COCO are among what they were trained on. The network is not PerCo's, which
needs software of 2021; numbers are comparable with one another, and with the paper's only as a ratio.

Per image, the feature is a table of pixel counts, truth by prediction. Tables add up exactly, so that mIoU is the same
to the last bit from any shards in any order. Averaging the mIoU of images is another number, and is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.confusion import confusion, merge, scores
from rdpbench.metrics.contract import Array, Estimate, Features
from rdpbench.needs import Need, Package
from rdpbench.networks import segmentation


@cache
def _shared(model: segmentation.Model, device: str) -> segmentation.Segmenter:
    return segmentation.load(model, device)


class ConfusionFeatures:
    """Pixel counts ``int64 (K, K)`` of an image: ground truth down, prediction across."""

    id: ClassVar[str]
    version: ClassVar[str] = "1"
    needs: ClassVar[tuple[Need, ...]]
    dim: ClassVar[int]
    beside: ClassVar[tuple[str, ...]] = ("labels",)
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    model: ClassVar[segmentation.Model]

    def __init_subclass__(cls) -> None:
        """Take id, size and weights from the model."""
        cls.dim = max(segmentation.NAMES[cls.model.classes]) + 1
        cls.id = f"confusion/{cls.model.classes}/{cls.model.card.id}"
        cls.needs = (Package("transformers"), Weights(cls.model.card))

    def __init__(self, segmenter: segmentation.Segmenter | None = None, device: str = "cpu") -> None:
        """Take the model's files, or the given network in their place; loaded at the first image."""
        self._segmenter = segmenter
        self._device = device

    def extract(
        self, images: Sequence[Image], *, labels: Sequence[NDArray[Any]] = (), **_: Any
    ) -> list[NDArray[np.int64]]:
        """Counts of each image, from its label map ``(H, W)`` of class indices, 255 where nothing is labelled.

        Raises:
            MetricError: an image is not ``uint8``, a map has another size or a class that the network does not have.
            MissingNeed: the network is not on this machine.
        """
        if len(labels) != len(images):
            raise MetricError(f"{self.id}: {len(images)} images and {len(labels)} label maps")
        segmenter = _shared(self.model, self._device) if self._segmenter is None else self._segmenter
        return [
            confusion(truth, segmenter.predict(image), self.dim) for image, truth in zip(images, labels, strict=True)
        ]


class EomtLargeCounts(ConfusionFeatures):
    """Of EoMT large at 640 px, 133 classes.

    >>> EomtLargeCounts.dim
    133
    """

    model: ClassVar[segmentation.Model] = segmentation.EOMT_LARGE


class EomtSmallCounts(ConfusionFeatures):
    """Of EoMT small at 640 px, 133 classes.

    >>> EomtSmallCounts.dim
    133
    """

    model: ClassVar[segmentation.Model] = segmentation.EOMT_SMALL


class MaskFormerStuffCounts(ConfusionFeatures):
    """Of MaskFormer, the 171 classes of COCO-Stuff.

    >>> MaskFormerStuffCounts.dim
    171
    """

    model: ClassVar[segmentation.Model] = segmentation.MASKFORMER_STUFF


class MIoUMetric:
    """What all networks share."""

    name: ClassVar[str]
    kind: ClassVar[Literal["set"]] = "set"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    source: ClassVar[str] = "Careil et al., ICLR 2024 (PerCo), by another network; one confusion matrix of the dataset"
    needs: ClassVar[tuple[Need, ...]]
    features: ClassVar[type[Features]]
    preload: ClassVar[tuple[str, ...]] = ConfusionFeatures.preload
    classes: ClassVar[segmentation.Classes]
    """List that the dataset's label maps must count."""
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    minimum_images: ClassVar[int] = 100
    """Over few images mIoU lacks most classes, and is far below that of many (`docs/statistics.md`)."""
    reference: ClassVar[str] = "originals"
    unverified: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        """Take needs and classes from the features."""
        assert issubclass(cls.features, ConfusionFeatures)
        cls.needs, cls.classes = cls.features.needs, cls.features.model.classes

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """mIoU of the reconstructions, in [0, 1]; that of the originals, the ratio and the accuracy beside it.

        Raises:
            MetricError: an empty set, counts of another number of classes.

        >>> same = [np.diag([3, 1, 0])]
        >>> class Three(MIoUEomtLarge):
        ...     pass
        >>> found = Three().reduce(same, [np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]])])
        >>> round(found.value, 4), found.extra["originals"]
        (0.5833, 1.0)
        """
        originals, found = scores(merge(reference)), scores(merge(distorted))
        if len(originals.iou) != len(found.iou):
            raise MetricError(f"{self.name}: counts of {len(originals.iou)} and of {len(found.iou)} classes")
        beside = {
            "originals": originals.miou,
            "ratio": found.miou / originals.miou if originals.miou else float("nan"),
            "accuracy": found.accuracy,
            "classes": float(found.classes),
        }
        reason = "" if found.classes else "no pixel of the set is labelled"
        return Estimate(found.miou, reason=reason, extra=beside)

    def left_out(
        self,
        reference: Sequence[Array],  # noqa: ARG002 - the contract's signature
        distorted: Sequence[Array],
        blocks: Sequence[Sequence[int]],
    ) -> list[float]:
        """The mIoU without each block of images: counts add up."""
        parts = [merge(distorted[n] for n in block) for block in blocks]
        whole = merge(parts)
        return [scores(whole - part).miou for part in parts]


class MIoUEomtLarge(MIoUMetric):
    """133 classes of COCO panoptic, by EoMT large.

    >>> MIoUEomtLarge.features.dim
    133
    """

    name: ClassVar[str] = "miou/eomt-large"
    features: ClassVar[type[Features]] = EomtLargeCounts


class MIoUEomtSmall(MIoUMetric):
    """The same by EoMT small, for quick trials.

    >>> MIoUEomtSmall.features.dim
    133
    """

    name: ClassVar[str] = "miou/eomt-small"
    features: ClassVar[type[Features]] = EomtSmallCounts


class MIoUMaskFormerStuff(MIoUMetric):
    """171 classes of COCO-Stuff, by MaskFormer.

    >>> MIoUMaskFormerStuff.features.dim
    171
    """

    name: ClassVar[str] = "miou/maskformer-stuff"
    features: ClassVar[type[Features]] = MaskFormerStuffCounts
    unverified: ClassVar[str] = (
        "that the network counts its classes in the order of COCO's ids: no page says so; the names of three of its "
        "classes are checked when it is loaded"
    )

"""mIoU: what a segmentation network sees in reconstructions, against ground-truth label maps; PerCo's protocol.

Every estimate carries the mIoU of the originals, ``extra["originals"]``, and the ratio of both: the networks were
trained on COCO, and PerCo's images of COCO are among what they were trained on. The network is not PerCo's, which
needs software of 2021; numbers are comparable with one another, and with the paper's only as a ratio.

Per image, the feature is a matrix of pixel counts, truth down and prediction across. Counts add up exactly: over
images, over shards, in any order. IoU is computed once, from their sum. The mean of per-image IoU is another number
(.667 instead of .65 for the example in the tests), and so is a mean that counts ignored pixels as errors (.629).

Pixels whose ground truth is 255 are in no count; a *prediction* has no such value. A class that is neither in the truth
nor predicted has no IoU and is left out of the mean. Source: Everingham et al., "The Pascal visual object classes
challenge", IJCV 2010; Long et al., "Fully convolutional networks", CVPR 2015, for the accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights
from rdpbench.datasets.labels import IGNORE
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import Array, Estimate, MetricOfSets, NetworkFeatures, by_name, variant
from rdpbench.needs import Package
from rdpbench.networks import segmentation

Counts = NDArray[np.int64]
"""``(K, K)``: pixels by true class (rows) and predicted class (columns)."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """What a confusion matrix says."""

    iou: NDArray[np.float64]
    """``(K,)``, NaN for a class that is neither in the truth nor predicted."""
    miou: float
    """Mean over the classes that have an IoU; NaN without any."""
    accuracy: float
    """Share of pixels with ground truth whose class is right; NaN without any."""
    classes: int
    """How many classes are in the mean."""


def confusion(truth: NDArray[Any], prediction: NDArray[Any], classes: int) -> Counts:
    """Counts ``int64 (K, K)`` of one image, from two maps of class indices ``(H, W)``.

    Raises:
        MetricError: maps of two sizes or of floats, a class outside 0 to K - 1 (or 255, in the ground truth).

    >>> confusion(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 0]]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    for what, labels in (("ground truth", truth), ("prediction", prediction)):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise MetricError(f"mIoU: the {what} is a map of class indices (H, W), found {labels.dtype} {labels.shape}")
    if truth.shape != prediction.shape:
        sizes = [f"{labels.shape[1]} x {labels.shape[0]}" for labels in (truth, prediction)]
        raise MetricError(f"mIoU: the ground truth is {sizes[0]} and the prediction {sizes[1]} (width x height)")
    known = truth != IGNORE
    rows, columns = truth[known].astype(np.int64), prediction[known].astype(np.int64)
    _check_classes(rows, classes, "ground truth")
    # Also where the truth is ignored: a prediction of 255 there means that the caller masked it, and elsewhere too.
    _check_classes(prediction, classes, "prediction")
    counts = np.bincount(rows * classes + columns, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def merge(counts: Iterable[Counts]) -> Counts:
    """The sum over images or shards, exact.

    Raises:
        MetricError: none, matrices of several sizes, or floats.

    >>> merge([np.eye(2, dtype=np.int64), np.ones((2, 2), np.int64)]).tolist()
    [[2, 1], [1, 2]]
    """
    total: Counts | None = None
    for matrix in counts:
        _check_counts(matrix)
        if total is None:
            total = matrix.astype(np.int64)
        elif total.shape != matrix.shape:
            raise MetricError(f"mIoU: counts of {len(total)} and of {len(matrix)} classes do not add up")
        else:
            total += matrix
    if total is None:
        raise MetricError("mIoU: no image in the set")
    return total


def scores(counts: Counts) -> Overlap:
    """IoU per class, their mean and the pixel accuracy, from the counts of a whole dataset.

    Raises:
        MetricError: not a square matrix of integers.

    >>> overlap = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    >>> overlap.iou.tolist(), overlap.miou, overlap.accuracy, overlap.classes
    ([0.75, 0.8, nan], 0.775, 0.875, 2)
    """
    _check_counts(counts)
    right = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    iou = np.divide(right, union, out=np.full(len(counts), np.nan), where=union > 0)
    there = iou[union > 0]
    total = int(counts.sum())
    return Overlap(
        iou=iou,
        miou=math.fsum(there) / len(there) if len(there) else math.nan,
        accuracy=int(right.sum()) / total if total else math.nan,
        classes=len(there),
    )


def _check_classes(labels: NDArray[Any], classes: int, what: str) -> None:
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        wrong = np.unique(labels[(labels < 0) | (labels >= classes)])[:5].tolist()
        raise MetricError(
            f"mIoU: the {what} holds {', '.join(map(str, wrong))}, and classes are 0 to {classes - 1}; "
            "bring the label map to the model's classes first (remap)"
        )


def _check_counts(counts: NDArray[Any]) -> None:
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not np.issubdtype(counts.dtype, np.integer):
        raise MetricError(f"mIoU: counts are integers (K, K), found {counts.dtype} {counts.shape}")


class ConfusionFeatures(NetworkFeatures[segmentation.Segmenter]):
    """Pixel counts ``int64 (K, K)`` of an image: ground truth down, prediction across."""

    beside = ("labels",)
    preload = ("torch", "transformers")
    model: ClassVar[segmentation.Model]

    def load(self, given: segmentation.Segmenter | None) -> segmentation.Segmenter:
        return given or segmentation.load_segmenter(self.model, self.device)

    def extract(
        self, images: Sequence[Image], *, labels: Sequence[NDArray[Any]] = (), **_: Any
    ) -> list[NDArray[np.int64]]:
        """Counts of each image, from its label map ``(H, W)`` of class indices, 255 where nothing is labelled.

        Raises:
            MetricError: an image is not ``uint8``, a map has another size or a class that the network does not have.
        """
        if len(labels) != len(images):
            raise MetricError(f"{self.id}: {len(images)} images and {len(labels)} label maps")
        predict = self.network.predict
        return [confusion(truth, predict(image), self.dim) for image, truth in zip(images, labels, strict=True)]


class MIoU(MetricOfSets):
    """mIoU of the reconstructions, in [0, 1]; that of the originals, the ratio and the accuracy beside it."""

    higher_is_better = True
    source = "Careil et al., ICLR 2024 (PerCo), by another network; one confusion matrix of the dataset"
    classes: ClassVar[segmentation.Classes]
    """List that the dataset's label maps must count."""
    bounds = (0.0, 1.0)
    minimum_images = 100  # over few images mIoU lacks most classes, and is far below that of many (docs/statistics.md)

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """The estimate from counts.

        >>> same = [np.diag([3, 1, 0])]
        >>> other = [np.array([[2, 1, 0], [0, 1, 0], [0, 0, 0]])]
        >>> round(METRICS["miou/eomt-large"]().reduce(same, other).value, 4)
        0.5833
        """
        originals, ours = scores(merge(reference)), scores(merge(distorted))
        if len(originals.iou) != len(ours.iou):
            raise MetricError(f"{self.name}: counts of {len(originals.iou)} and of {len(ours.iou)} classes")
        beside = {
            "originals": originals.miou,
            "ratio": ours.miou / originals.miou if originals.miou else float("nan"),
            "accuracy": ours.accuracy,
            "classes": float(ours.classes),
        }
        return Estimate(ours.miou, reason="" if ours.classes else "no pixel of the set is labelled", extra=beside)

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


def _miou(name: str, model: segmentation.Model, unverified: str = "") -> type[MIoU]:
    features = variant(
        ConfusionFeatures,
        f"confusion/{model.classes}/{model.card.id}",
        model=model,
        dim=max(segmentation.NAMES[model.classes]) + 1,
        needs=(Package("transformers", extra="metrics"), Weights(model.card)),
    )
    return variant(MIoU, name, features=features, classes=model.classes, unverified=unverified)


METRICS = by_name(
    _miou("miou/eomt-large", segmentation.EOMT_LARGE),
    _miou("miou/eomt-small", segmentation.EOMT_SMALL),  # for quick trials
    _miou(
        "miou/maskformer-stuff",
        segmentation.MASKFORMER_STUFF,
        "that the network counts its classes in the order of COCO's ids: no page says so; the names of three of its "
        "classes are checked when it is loaded",
    ),
)

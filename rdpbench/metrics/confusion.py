"""mIoU from one confusion matrix of the whole dataset, and the tables that bring label maps to a model's classes.

Each image gives a matrix of counts, truth down and prediction across. Counts add up: over images, over shards, in any
order, to the same integers. IoU is computed once, from their sum. The mean of per-image IoU is another number (.667
instead of .65 for the example in the tests), and so is a mean that counts ignored pixels as errors (.629).

Pixels whose ground truth is 255 are in no count; a *prediction* has no such value. A class that is neither in the truth
nor predicted has no IoU and is left out of the mean. Source: Everingham et al., "The Pascal visual object classes
challenge", IJCV 2010; Long et al., "Fully convolutional networks", CVPR 2015, for the accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.datasets.labels import IGNORE
from rdpbench.errors import MetricError

Counts = NDArray[np.int64]
"""``(K, K)``: pixels by true class (rows) and predicted class (columns)."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a confusion matrix says."""

    iou: NDArray[np.float64]
    """``(K,)``, NaN for a class that is neither in the truth nor predicted."""
    miou: float
    """Mean over the classes that have an IoU; NaN without any."""
    accuracy: float
    """Share of pixels with ground truth whose class is right; NaN without any."""
    classes: int
    """How many classes are in the mean."""


def confusion(truth: NDArray[Any], prediction: NDArray[Any], classes: int, ignore: int | None = IGNORE) -> Counts:
    """Counts ``int64 (K, K)`` of one image, from two maps of class indices ``(H, W)``.

    Raises:
        MetricError: maps of two sizes or of floats, a class outside 0 to K - 1 that is not ``ignore``.

    >>> confusion(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 0]]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    for what, labels in (("ground truth", truth), ("prediction", prediction)):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise MetricError(f"mIoU: the {what} is a map of class indices (H, W), found {labels.dtype} {labels.shape}")
    if truth.shape != prediction.shape:
        sizes = [f"{one.shape[1]} x {one.shape[0]}" for one in (truth, prediction)]
        raise MetricError(f"mIoU: the ground truth is {sizes[0]} and the prediction {sizes[1]} (width x height)")
    known = np.ones(truth.shape, bool) if ignore is None else truth != ignore
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
    for one in counts:
        _check_counts(one)
        if total is None:
            total = one.astype(np.int64)
        elif total.shape != one.shape:
            raise MetricError(f"mIoU: counts of {len(total)} and of {len(one)} classes do not add up")
        else:
            total += one
    if total is None:
        raise MetricError("mIoU: no image in the set")
    return total


def scores(counts: Counts) -> Scores:
    """IoU per class, their mean and the pixel accuracy, from the counts of a whole dataset.

    Raises:
        MetricError: not a square matrix of integers.

    >>> found = scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    >>> found.iou.tolist(), found.miou, found.accuracy, found.classes
    ([0.75, 0.8, nan], 0.775, 0.875, 2)
    """
    _check_counts(counts)
    right = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    iou = np.divide(right, union, out=np.full(len(counts), np.nan), where=union > 0)
    there = iou[union > 0]
    total = int(counts.sum())
    return Scores(
        iou=iou,
        miou=math.fsum(there) / len(there) if len(there) else math.nan,
        accuracy=int(right.sum()) / total if total else math.nan,
        classes=len(there),
    )


def _check_classes(found: NDArray[Any], classes: int, what: str) -> None:
    if found.size and (int(found.min()) < 0 or int(found.max()) >= classes):
        wrong = np.unique(found[(found < 0) | (found >= classes)])[:5].tolist()
        raise MetricError(
            f"mIoU: the {what} holds {', '.join(map(str, wrong))}, and classes are 0 to {classes - 1}; "
            "bring the label map to the model's classes first (remap)"
        )


def _check_counts(counts: NDArray[Any]) -> None:
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not np.issubdtype(counts.dtype, np.integer):
        raise MetricError(f"mIoU: counts are integers (K, K), found {counts.dtype} {counts.shape}")

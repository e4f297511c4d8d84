"""Checks that all metrics of sets share, and feature vectors as rows in float64, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Array, SetMetric


def stack(arrays: Sequence[Array], metric: str, dim: int) -> NDArray[np.float32]:
    """The rows of all images below each other, in float32 as stored; an image may have several (patches).

    Raises:
        MetricError: no image, rows of another length, or a value that is not finite.

    >>> stack([np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)], "fid/clean", 3).shape
    (3, 3)
    """
    if not arrays:
        raise MetricError(f"{metric}: no image in the set")
    for number, array in enumerate(arrays):
        if array.ndim != 2 or array.shape[1] != dim or not np.issubdtype(array.dtype, np.floating):
            raise MetricError(
                f"{metric} takes features (rows, {dim}) of floats, found {array.dtype} {array.shape} for image "
                f"{number}: are they of another preset?"
            )
        if not np.isfinite(array).all():
            raise MetricError(f"{metric}: the features of image {number} hold NaN or infinite values")
    return np.concatenate(list(arrays), axis=0)


def check_side(metric: type[SetMetric], height: int, width: int) -> None:
    """Raises `MetricError` if the metric's preset is for images of another size than ``height`` x ``width``."""
    side = getattr(metric, "side", None)
    if side is not None and min(height, width) != side:
        raise MetricError(
            f"{metric.name} is for images whose shorter side is {side}, found {width} x {height} (width x height): "
            "choose the dataset's protocol to fit, or a preset without a size"
        )


Rows = NDArray[Any]
"""``(n, d)`` floats, one feature vector per row; stored as float32, computed with as float64."""

BLOCK = 2048
"""Rows at a time: 32 MB in float64 at d = 2048."""


def check_rows(rows: Rows, what: str, minimum: int = 1) -> Rows:
    """Return ``rows`` if they are at least ``minimum`` finite float vectors, ``(n, d)``.

    Raises:
        MetricError: another shape or type, too few rows, NaN or infinite values.

    >>> check_rows(np.zeros((3, 8), np.float32), "fid: the reference").shape
    (3, 8)
    """
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
        kind = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise MetricError(f"{what}: features are an array (n, d) of floats, found {kind}")
    if rows.shape[1] == 0:
        raise MetricError(f"{what}: the feature vectors have no entries")
    if len(rows) < minimum:
        number = "no feature vector" if not len(rows) else f"{len(rows)} feature vector{'s' * (len(rows) > 1)}"
        raise MetricError(f"{what}: {number}, and at least {minimum} are needed")
    for start in range(0, len(rows), BLOCK):
        bad = ~np.isfinite(rows[start : start + BLOCK]).all(axis=1)
        if bad.any():
            raise MetricError(f"{what}: row {start + int(bad.argmax())} holds NaN or infinite values")
    return rows


def check_sets(reference: Rows, distorted: Rows, metric: str, minimum: int = 1) -> None:
    """Raises `MetricError` unless both sets pass `check_rows`, with vectors of one length."""
    check_rows(reference, f"{metric}: the reference", minimum)
    check_rows(distorted, f"{metric}: the distorted set", minimum)
    same_length(reference.shape[1], distorted.shape[1], metric)


def same_length(reference: int, distorted: int, metric: str) -> None:
    """Raises `MetricError` if feature vectors of two lengths are about to be compared."""
    if reference != distorted:
        raise MetricError(
            f"{metric}: the reference has vectors of {reference} entries and the distorted set of {distorted}; "
            "features of two presets are never compared"
        )


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[NDArray[np.float64]]:
    """``rows`` in float64, at most ``size`` at a time.

    >>> [len(block) for block in blocks(np.zeros((5, 2), np.float32), size=2)]
    [2, 2, 1]
    """
    for start in range(0, len(rows), size):
        yield rows[start : start + size].astype(np.float64)

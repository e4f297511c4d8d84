"""What every set metric refuses, said once: an empty set, features of another length, NaN, images of another size."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Raises `MetricError` if the metric's preset is for images of another size than ``height`` x ``width``.

    >>> from rdpbench.metrics.fid import FIDHFD
    >>> check_side(FIDHFD, 256, FIDHFD.side)
    """
    side = getattr(metric, "side", None)
    if side is not None and min(height, width) != side:
        raise MetricError(
            f"{metric.name} is for images whose shorter side is {side}, found {width} x {height} (width x height): "
            "choose the dataset's protocol to fit, or a preset without a size"
        )

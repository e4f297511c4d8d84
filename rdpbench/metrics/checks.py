"""What every pair metric refuses, said once.

A metric that accepts float images sooner or later meets values of [0, 1] where it expects [0, 255], and answers with a
plausible number. Therefore only 8-bit images pass; rounding happens before, in ``rdpbench.image.to_uint8``.
"""

from __future__ import annotations

from rdpbench.errors import ImageError, MetricError
from rdpbench.image import Image, check_image


def check_original(original: Image, metric: str, minimum: int = 1) -> Image:
    """Return ``original`` if it is ``uint8 (H, W, 3)`` with both sides at least ``minimum`` pixels long.

    Raises:
        MetricError: it is not; an image that is too small is never resized.

    >>> import numpy as np
    >>> check_original(np.zeros((8, 9, 3), np.uint8), "psnr").shape
    (8, 9, 3)
    """
    try:
        check_image(original, f"{metric}: the original")
    except ImageError as error:
        raise MetricError(str(error)) from error
    height, width = original.shape[:2]
    if min(height, width) < minimum:
        raise MetricError(
            f"{metric} needs at least {minimum} pixels on each side, found {width} x {height} (width x height); "
            "images are never resized for a metric"
        )
    return original


def check_pair(original: Image, reconstruction: Image, metric: str) -> Image:
    """Return ``reconstruction`` if it is ``uint8`` and as large as ``original``, which has been checked before.

    Raises:
        MetricError: float values, another type or another size.

    >>> import numpy as np
    >>> check_pair(np.zeros((8, 9, 3), np.uint8), np.ones((8, 9, 3), np.uint8), "psnr").sum()
    216
    """
    try:
        check_image(reconstruction, f"{metric}: the reconstruction")
    except ImageError as error:
        raise MetricError(str(error)) from error
    if reconstruction.shape != original.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in (original, reconstruction)]
        raise MetricError(f"{metric}: the original is {sizes[0]} and the reconstruction {sizes[1]} (width x height)")
    return reconstruction

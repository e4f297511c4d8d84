"""Crops and resizes that protocols are made of: once as geometry, then applied to images and to label maps.

A step says where pixels come from, so that an image and its label map cannot drift apart: the image is filtered, the
label map takes the nearest label of the same grid. Filters are the libraries' own, since "bicubic" alone names no
numbers; each gives 8 bits, rounded as that library rounds (Pillow after each of its two passes).

================  ===================================================================================
filter            is
================  ===================================================================================
``bicubic``       Pillow ``BICUBIC`` (a = -0.5), widened when shrinking; fixed point, rounded half up
``lanczos``       Pillow ``LANCZOS`` (3 lobes), widened when shrinking; fixed point, rounded half up
``lanczos4``      OpenCV ``INTER_LANCZOS4``: 8 x 8 taps, never widened; used to enlarge
``area``          OpenCV ``INTER_AREA``: means over pixel areas; linear along sides that grow
``area-corners``  TensorFlow 1 ``ResizeMethod.AREA`` with ``align_corners``: means over areas of
                  ``(in - 1) / (out - 1)`` pixels from the first pixel on, the last pixel repeated
                  beyond the end; exact integers here, rounded half to even; only to shrink
================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ImageError
from rdpbench.image import Image

Filter: TypeAlias = Literal["bicubic", "lanczos", "lanczos4", "area", "area-corners"]
Labels: TypeAlias = NDArray[Any]
"""``(H, W)``, integers."""


@dataclass(frozen=True)
class Crop:
    """Keep ``height`` rows from ``top`` on and ``width`` columns from ``left`` on."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Resize:
    """Resample to ``height`` x ``width``; a side that does not change keeps its pixels."""

    height: int
    width: int
    filter: Filter


Step: TypeAlias = Crop | Resize


def centre(height: int, width: int, side: int) -> Crop:
    """The ``side`` x ``side`` pixels in the middle; half a pixel of slack rounds to even, as torchvision does.

    >>> centre(427, 640, 256)
    Crop(top=86, left=192, height=256, width=256)
    """
    return Crop(round((height - side) / 2), round((width - side) / 2), side, side)


def short_side(height: int, width: int, side: int, filter_: Filter) -> Resize:
    """Resize the shorter side to ``side``, keeping the aspect: the longer side is rounded, half to even.

    The factor is computed in double precision first, as openai/DALL-E's notebook does.

    >>> short_side(427, 640, 256, "lanczos")
    Resize(height=256, width=384, filter='lanczos')
    """
    factor = side / min(height, width)
    return Resize(round(factor * height), round(factor * width), filter_)


def apply(steps: Sequence[Step], image: Image) -> Image:
    """The image after all steps, ``uint8 (H', W', 3)``; the input is only read.

    >>> apply([Crop(1, 2, 3, 4)], np.zeros((9, 9, 3), np.uint8)).shape
    (3, 4, 3)
    """
    for step in steps:
        image = _cropped(image, step) if isinstance(step, Crop) else _filtered(image, step)
    return np.ascontiguousarray(image)


def apply_to_labels(steps: Sequence[Step], labels: Labels) -> Labels:
    """The label map after the same steps: each pixel gets the label nearest to its centre; no new label arises.

    >>> apply_to_labels([Resize(1, 2, "bicubic")], np.array([[1, 2, 3, 4]])).tolist()
    [[2, 4]]
    """
    for step in steps:
        labels = _cropped(labels, step) if isinstance(step, Crop) else _nearest(labels, step)
    return np.ascontiguousarray(labels)


def _cropped(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    return pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def _filtered(image: Image, step: Resize) -> Image:
    if image.shape[:2] == (step.height, step.width):
        return image
    if step.filter in ("bicubic", "lanczos"):
        return _by_pillow(image, step)
    if step.filter == "area-corners":
        columns_done = _area_corners(image, step.width, axis=1)
        return _rounded(_area_corners(columns_done, step.height, axis=0), (image.shape[0] - 1) * (image.shape[1] - 1))
    return _by_opencv(image, step)


def _by_pillow(image: Image, step: Resize) -> Image:
    from PIL import Image as pil

    kind = {"bicubic": pil.Resampling.BICUBIC, "lanczos": pil.Resampling.LANCZOS}[step.filter]
    return np.array(pil.fromarray(image).resize((step.width, step.height), kind))


def _by_opencv(image: Image, step: Resize) -> Image:
    import cv2

    kind = {"lanczos4": cv2.INTER_LANCZOS4, "area": cv2.INTER_AREA}[step.filter]
    resized = cv2.resize(np.ascontiguousarray(image), (step.width, step.height), interpolation=kind)
    return np.asarray(resized, dtype=np.uint8)


def _area_corners(values: NDArray[Any], size: int, axis: int) -> NDArray[np.int64]:
    """Sums over the areas along one axis, in units of ``1 / (size - 1)`` pixels, so that all of them are integers.

    Result ``i`` integrates from ``i * (before - 1)`` to ``(i + 1) * (before - 1)``, ``size - 1`` units to a pixel.
    """
    lines = np.moveaxis(values, axis, 0).astype(np.int64)
    before = len(lines)
    if not 1 < size <= before:
        raise ImageError(f"area-corners only shrinks, to 2 pixels at least: not from {before} to {size}")
    unit = size - 1
    sums = np.concatenate([np.zeros_like(lines[:1]), np.cumsum(lines, axis=0)])
    ends = np.arange(size + 1) * (before - 1)
    pixel = np.minimum(ends // unit, before - 1)
    into = (ends - pixel * unit).reshape(-1, *[1] * (lines.ndim - 1))
    integral = unit * sums[pixel] + into * lines[pixel]
    return np.moveaxis(np.diff(integral, axis=0), 0, axis)


def _rounded(sums: NDArray[np.int64], total: int) -> Image:
    """``sums / total`` to the nearest integer, half to even, without a float on the way."""
    whole, rest = np.divmod(sums, total)
    up = (2 * rest > total) | ((2 * rest == total) & (whole % 2 == 1))
    rounded: Image = (whole + up).astype(np.uint8)
    return rounded


def _nearest(labels: Labels, step: Resize) -> Labels:
    rows, columns = (
        _sources(before, after, step.filter)
        for before, after in zip(labels.shape, (step.height, step.width), strict=True)
    )
    return labels.take(rows, axis=0).take(columns, axis=1)


def _sources(before: int, after: int, filter_: Filter) -> NDArray[np.int64]:
    """For each pixel of a resized side, the pixel that holds its centre."""
    corners = filter_ == "area-corners" and after > 1
    span, steps = (before - 1, after - 1) if corners else (before, after)
    return np.minimum((2 * np.arange(after) + 1) * span // (2 * steps), before - 1)

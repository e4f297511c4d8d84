"""Protocols: how images are cropped or resized between the file and the codec, as named pure functions.

A protocol's name travels with every row: the same codec on the same files under another protocol is another number.
``docs/protocols.md`` says which papers use which, and what they leave open. ``centre-crop-N`` exists for every N.

Protocols are made of crops and resizes. A step says where pixels come from, so that an image and its label map cannot
drift apart: the image is filtered, the label map takes the nearest label of the same grid. Filters are the libraries'
own, since "bicubic" alone names no numbers; each gives 8 bits, rounded as that library rounds (Pillow after each of its
two passes).

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

import dataclasses
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ImageError, UnknownName
from rdpbench.image import Image, Loaded, check_image, pixel_sha256, read_image
from rdpbench.lazy import cv2, pil

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
    if step.filter == "area-corners":
        columns_done = _area_corners(image, step.width, axis=1)
        return _rounded(_area_corners(columns_done, step.height, axis=0), (image.shape[0] - 1) * (image.shape[1] - 1))
    if step.filter in ("bicubic", "lanczos"):
        kind = pil.Resampling[step.filter.upper()]
        return np.array(pil.fromarray(image).resize((step.width, step.height), kind))
    interpolation = {"lanczos4": cv2.INTER_LANCZOS4, "area": cv2.INTER_AREA}[step.filter]
    resized = cv2.resize(np.ascontiguousarray(image), (step.width, step.height), interpolation=interpolation)
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
    return (whole + up).astype(np.uint8)


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


LARGEST = 89_478_485
"""Pixels of the largest image that a protocol makes: as many as Pillow reads without a warning."""


@dataclass(frozen=True)
class ImageProtocol:
    """A named geometry; called with an image, it gives the image that the codec sees.

    >>> PROTOCOLS["perco-512"](np.zeros((427, 640, 3), np.uint8)).shape
    (512, 512, 3)
    """

    name: str
    geometry: Callable[[int, int, str], tuple[Step, ...]]
    """Steps for a height, a width and the image's pixel hash; the hash is empty unless `drawn`."""
    smallest: int = 1
    """The shortest side that is not refused."""
    drawn: bool = False
    """Are positions drawn at random, seeded by the pixels?"""

    def steps(self, height: int, width: int, digest: str = "") -> tuple[Step, ...]:
        """The crops and resizes for an image of this size.

        Raises:
            ImageError: the image is smaller than the protocol takes, or would become larger than `LARGEST`.

        >>> PROTOCOLS["text-sketch-512"].steps(427, 640)
        (Resize(height=512, width=768, filter='lanczos4'),)
        """
        if min(height, width) < self.smallest:
            raise ImageError(
                f"{self.name} takes images of at least {self.smallest} pixels on each side, found {width} x {height} "
                "(width x height): leave it out of the set, or choose a protocol that enlarges (taco-256, perco-512, "
                "text-sketch-512) or leaves the size alone (as-is)"
            )
        steps = self.geometry(height, width, digest)
        for step in steps:
            if isinstance(step, Resize) and step.height * step.width > LARGEST:
                raise ImageError(
                    f"{self.name} would enlarge {width} x {height} to {step.width} x {step.height} (width x height), "
                    f"more than {LARGEST} pixels: leave it out of the set, or crop it first"
                )
        return steps

    def __call__(self, image: Image) -> Image:
        """The image under this protocol; the input is only read, and the result may share its memory."""
        check_image(image, f"{self.name}: the image")
        height, width = image.shape[:2]
        return apply(self.steps(height, width, pixel_sha256(image) if self.drawn else ""), image)


def _taco(height: int, width: int, _: str) -> tuple[Step, ...]:
    if min(height, width) >= 256:
        return (centre(height, width, 256),)
    enlarged = short_side(height, width, 256, "bicubic")  # a rule of ours: TACO says nothing
    return (enlarged, centre(enlarged.height, enlarged.width, 256))


def _text_sketch(height: int, width: int, _: str) -> tuple[Step, ...]:
    factor = 512 / min(height, width)
    rows, columns = (round(factor * side / 64) * 64 for side in (height, width))
    return (Resize(rows, columns, "lanczos4" if factor > 1 else "area"),)


def _dalle(height: int, width: int, _: str) -> tuple[Step, ...]:
    """openai/DALL-E's notebook."""
    resized = short_side(height, width, 256, "lanczos")
    return (resized, centre(resized.height, resized.width, 256))


def _dalle_random(height: int, width: int, digest: str) -> tuple[Step, ...]:
    """Listing 2 of the DALL-E paper."""
    side = min(height, width)
    top, left = (
        _draw(digest, what, 3 * slack // 8, max(3 * slack // 8 + 1, 5 * slack // 8))
        for what, slack in (("top", height - side), ("left", width - side))
    )
    size = _draw(digest, "size", 256, min(side, 288) + 1)
    last = Crop(_draw(digest, "last top", 0, size - 255), _draw(digest, "last left", 0, size - 255), 256, 256)
    return (Crop(top, left, side, side), Resize(size, size, "area-corners"), last)


def _draw(digest: str, what: str, low: int, high: int) -> int:
    """An integer of [low, high) that depends on the pixels and on what is drawn, and on no library's generator."""
    number = int.from_bytes(hashlib.sha256(f"{digest} {what}".encode()).digest(), "big")
    return low + number % (high - low)


def _centre_crop(side: int) -> ImageProtocol:
    return ImageProtocol(f"centre-crop-{side}", lambda height, width, _: (centre(height, width, side),), smallest=side)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ImageProtocol("as-is", lambda *_: ()),
        _centre_crop(256),
        _centre_crop(512),
        ImageProtocol("taco-256", _taco),
        ImageProtocol("perco-512", lambda *_: (Resize(512, 512, "bicubic"),)),
        ImageProtocol("text-sketch-512", _text_sketch),
        ImageProtocol("dalle-256", _dalle, smallest=256),
        ImageProtocol("dalle-256-random", _dalle_random, smallest=256, drawn=True),
    )
}
"""By name; `find` also knows ``centre-crop-N``."""


def find(name: str) -> ImageProtocol:
    """The protocol of that name.

    Raises:
        UnknownName: no such protocol; the nearest one is suggested.

    >>> find("centre-crop-768").smallest
    768
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if crop := re.fullmatch(r"centre-crop-([1-9][0-9]{0,4})", name, re.ASCII):
        return _centre_crop(int(crop[1]))
    raise UnknownName("protocol", name, PROTOCOLS, "and centre-crop-N for every N, such as centre-crop-768")


def load_under(protocol: str, path: Path) -> Loaded:
    """Read a file and apply a protocol; the file's own size is kept beside.

    Raises:
        UnknownName: no such protocol.
        ImageError: the file cannot be read, or the protocol refuses an image of its size.
    """
    applied = find(protocol)
    loaded = read_image(path)
    try:
        return dataclasses.replace(loaded, pixels=applied(loaded.pixels))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def labels_under(protocol: str, labels: Labels, image: Image | None = None) -> Labels:
    """A label map, integers ``(H, W)``, after a protocol's geometry, each pixel with the nearest of the map's labels.

    The ``image`` before the protocol is needed where the protocol draws its crop by the pixels.

    Raises:
        UnknownName: no such protocol.
        ImageError: another map or size than these, the image is missing, or the protocol refuses the size.

    >>> labels_under("perco-512", np.arange(12, dtype=np.uint8).reshape(3, 4))[-1, -1]
    11
    """
    applied = find(protocol)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ImageError(f"{protocol}: a label map must be integers (H, W), found {labels.dtype} {labels.shape}")
    if image is None and applied.drawn:
        raise ImageError(f"{protocol} draws its crop by the image's pixels: give the label map's image as well")
    if image is not None and image.shape[:2] != labels.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (labels.shape, image.shape)]
        raise ImageError(f"{protocol}: the label map is {sizes[0]} and its image {sizes[1]} (width x height)")
    height, width = labels.shape
    digest = pixel_sha256(image) if image is not None and applied.drawn else ""
    return apply_to_labels(applied.steps(height, width, digest), labels)

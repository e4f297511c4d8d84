"""What is done to an image between its file and the codec, as named pure functions.

A protocol's name travels with every row: the same codec on the same files under another protocol is another number.
``docs/protocols.md`` says which papers use which, and what they leave open. ``centre-crop-N`` exists for every N.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rdpbench.datasets.geometry import (
    Crop,
    Labels,
    Resize,
    Step,
    apply,
    apply_to_labels,
    centre,
    short_side,
)
from rdpbench.errors import ImageError, UnknownName
from rdpbench.image import Image, Loaded, check_image, pixel_sha256, read_image

Steps: TypeAlias = tuple[Step, ...]

LARGEST = 89_478_485
"""Pixels of the largest image that a protocol makes: as many as Pillow reads without a warning."""


@dataclass(frozen=True)
class ImageProtocol:
    """A named geometry; called with an image, it gives the image that the codec sees.

    >>> PROTOCOLS["perco-512"](np.zeros((427, 640, 3), np.uint8)).shape
    (512, 512, 3)
    """

    name: str
    text: str
    """What it does."""
    too_small: str
    """What happens to images that are too small."""
    geometry: Callable[[int, int, str], Steps]
    """Steps for a height, a width and the image's pixel hash; the hash is empty unless `drawn`."""
    smallest: int = 1
    """The shortest side that is not refused."""
    drawn: bool = False
    """Are positions drawn at random, seeded by the pixels?"""

    def steps(self, height: int, width: int, digest: str = "") -> Steps:
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
        return apply(self._steps(image), image)

    def labels(self, labels: Labels, image: Image | None = None) -> Labels:
        """The label map of an image under this protocol, by nearest neighbour; see `labels_under`."""
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ImageError(f"{self.name}: a label map must be integers (H, W), found {labels.dtype} {labels.shape}")
        if image is not None and image.shape[:2] != labels.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (labels.shape, image.shape)]
            raise ImageError(f"{self.name}: the label map is {sizes[0]} and its image {sizes[1]} (width x height)")
        if image is None and self.drawn:
            raise ImageError(f"{self.name} draws its crop by the image's pixels: give the label map's image as well")
        height, width = labels.shape
        steps = self.steps(height, width) if image is None else self._steps(image)
        return apply_to_labels(steps, labels)

    def _steps(self, image: Image) -> Steps:
        height, width = image.shape[:2]
        return self.steps(height, width, pixel_sha256(image) if self.drawn else "")


def _as_is(*_: Any) -> Steps:
    return ()


def _perco(*_: Any) -> Steps:
    return (Resize(512, 512, "bicubic"),)


def _taco(height: int, width: int, _: str) -> Steps:
    if min(height, width) >= 256:
        return (centre(height, width, 256),)
    enlarged = short_side(height, width, 256, "bicubic")
    return (enlarged, centre(enlarged.height, enlarged.width, 256))


def _text_sketch(height: int, width: int, _: str) -> Steps:
    factor = 512 / min(height, width)
    rows, columns = (round(factor * side / 64) * 64 for side in (height, width))
    return (Resize(rows, columns, "lanczos4" if factor > 1 else "area"),)


def _dalle(height: int, width: int, _: str) -> Steps:
    resized = short_side(height, width, 256, "lanczos")
    return (resized, centre(resized.height, resized.width, 256))


def _dalle_random(height: int, width: int, digest: str) -> Steps:
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
    return ImageProtocol(
        f"centre-crop-{side}",
        f"the {side} x {side} pixels in the middle, nothing resized",
        f"refused below {side} pixels on a side",
        lambda height, width, _: (centre(height, width, side),),
        smallest=side,
    )


PROTOCOLS: dict[str, ImageProtocol] = {
    protocol.name: protocol
    for protocol in (
        ImageProtocol("as-is", "the image as it was read", "kept", _as_is),
        _centre_crop(256),
        _centre_crop(512),
        ImageProtocol(
            "taco-256",
            "256 x 256 centre crop, nothing resized",
            "the short side is enlarged to 256 first (bicubic, aspect kept); this rule is ours",
            _taco,
        ),
        ImageProtocol("perco-512", "resized to 512 x 512, bicubic, aspect not kept", "enlarged", _perco),
        ImageProtocol(
            "text-sketch-512",
            "short side to 512, both sides rounded to multiples of 64, area or Lanczos",
            "enlarged",
            _text_sketch,
        ),
        ImageProtocol(
            "dalle-256",
            "short side to 256, Lanczos, then 256 x 256 centre crop: openai/DALL-E's notebook",
            "refused below 256 pixels on a side",
            _dalle,
            smallest=256,
        ),
        ImageProtocol(
            "dalle-256-random",
            "random crops around an area resize: Listing 2 of the DALL-E paper, seeded by the pixels",
            "refused below 256 pixels on a side",
            _dalle_random,
            smallest=256,
            drawn=True,
        ),
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
    found = find(protocol)
    loaded = read_image(path)
    try:
        return dataclasses.replace(loaded, pixels=found(loaded.pixels))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def labels_under(protocol: str, labels: Labels, image: Image | None = None) -> Labels:
    """A label map after a protocol's geometry, each pixel with the nearest of the map's labels.

    Args:
        protocol: its name.
        labels: integers ``(H, W)`` of the image as its file holds it.
        image: that image, before the protocol; needed where the protocol draws its crop by the pixels.

    Raises:
        UnknownName: no such protocol.
        ImageError: the map is no ``(H, W)`` of integers or of another size than the image, the image is needed and
            missing, or the protocol refuses this size.

    >>> labels_under("perco-512", np.arange(12, dtype=np.uint8).reshape(3, 4))[-1, -1]
    11
    """
    return find(protocol).labels(labels, image)

"""Images to padded float planes of [0, 1] and back: how a network is shown a size that it does not take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image, check_image, to_uint8

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """How a system pads: to sides that are multiples of ``multiple``, with what, and where.

    >>> Frame(64).padded(500, 768)
    (512, 768)
    >>> Frame(64).margins(500, 768)
    (0, 0, 6, 6)
    """

    multiple: int
    fill: Literal["zero", "replicate", "reflect"] = "zero"
    place: Literal["centre", "corner"] = "centre"
    """``centre`` pads all around, the odd pixel right and below; ``corner`` pads right and below only."""

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Sides of the padded image."""
        return tuple(-(-side // self.multiple) * self.multiple for side in (height, width))  # type: ignore[return-value]

    def margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels added at the left, right, top and bottom."""
        rows, columns = (new - old for new, old in zip(self.padded(height, width), (height, width), strict=True))
        left, top = (columns // 2, rows // 2) if self.place == "centre" else (0, 0)
        return left, columns - left, top, rows - top

    def pad(self, planes: Tensor) -> Tensor:
        """``(B, 3, H, W)`` padded.

        Raises:
            UnsupportedImage: reflection needs an image larger than its margins.
        """
        from torch.nn import functional

        height, width = planes.shape[-2:]
        margins = self.margins(height, width)
        if self.fill == "reflect" and (max(margins[:2]) >= width or max(margins[2:]) >= height):
            raise UnsupportedImage(
                f"{width} x {height} pixels are too few to be padded to a multiple of {self.multiple} by reflection"
            )
        return functional.pad(planes, margins, mode="constant" if self.fill == "zero" else self.fill)

    def crop(self, planes: Tensor, height: int, width: int) -> Tensor:
        """The image inside ``(B, 3, H', W')``."""
        left, _, top, _ = self.margins(height, width)
        return planes[..., top : top + height, left : left + width]


def size_of(image: Image) -> tuple[int, int]:
    """Height and width."""
    height, width, _ = check_image(image).shape
    return height, width


def to_planes(images: Sequence[Image], device: str, dtype: torch.dtype) -> Tensor:
    """Images of one size as ``(B, 3, H, W)`` of [0, 1].

    Raises:
        UnsupportedImage: the sizes differ.
    """
    import torch

    sizes = {size_of(image) for image in images}
    if len(sizes) != 1:
        raise UnsupportedImage(f"a batch holds images of one size, found {sorted(sizes)}")
    stack = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
    return stack.to(device).to(dtype) / 255


def to_images(planes: Tensor) -> list[Image]:
    """``(B, 3, H, W)`` as images, by the one rounding rule.

    Raises:
        BitstreamError: a value is no number, which only a damaged bitstream makes.
    """
    values = planes.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise BitstreamError("the reconstruction is not finite: the bitstream is damaged, or was made by other weights")
    return [np.ascontiguousarray(to_uint8(one).transpose(1, 2, 0)) for one in values]


def check_pixels(height: int, width: int, most: int, error: type[Exception]) -> None:
    """Raise ``error`` unless a size stays within the codec's ``max_pixels``: a stated size must not fill the memory."""
    if height * width > most:
        raise error(f"{width} x {height} pixels are more than max_pixels={most}; raise it in codec.options.max_pixels")

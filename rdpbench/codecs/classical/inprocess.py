"""Codecs inside Python libraries: what they share of Pillow, and the checks of sizes and pixels."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.contract import Bitstream, CheckedOptions, Side, decoding, encoding
from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image, check_image
from rdpbench.lazy import pil
from rdpbench.needs import Need, Package


def check_sides(codec: str, image: Image, low: int, high: int) -> None:
    """Raise `UnsupportedImage` unless height and width are in ``low..high``."""
    height, width = check_image(image).shape[:2]
    if not low <= min(height, width) <= max(height, width) <= high:
        raise UnsupportedImage(f"{codec} takes sides of {low} to {high} pixels; the image is {width} x {height}")


def check_x265(codec: str, image: Image, low: int) -> None:
    """Raise `UnsupportedImage` unless x265 takes these sides, and HEVC's decoders, which stop at 16384 or above."""
    check_sides(codec, image, low, 16384)
    height, width = image.shape[:2]
    # Under 32 pixels x265 codes with trees of 16 x 16, which the levels of HEVC for more than 4222 pixels forbid.
    if min(height, width) < 32 and max(height, width) > 4096:
        raise UnsupportedImage(
            f"{codec} takes a side below 32 only if the other is at most 4096; the image is {width} x {height}"
        )


def check_pixels(codec: str, pixels: NDArray[Any]) -> Image:
    """Return what a library decoded if it is an image as we encode them: grey, alpha or 16 bit only come by damage."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise BitstreamError(f"not a {codec} bitstream of ours: its pixels are {pixels.dtype} {pixels.shape}")
    return pixels


def pillow_encode(codec: str, file_format: str, image: Image, mode: str = "RGB", /, **options: object) -> bytes:
    """The bytes of a file that Pillow writes.

    The Pillow image is made from the array: nothing of the source file's ICC profile, EXIF or alpha can come along.
    Mode "RGBA" hands an opaque image over.
    """
    buffer = BytesIO()
    with encoding(codec):
        pil.fromarray(check_image(image)).convert(mode).save(buffer, format=file_format, **options)
    return buffer.getvalue()


def pillow_decode(codec: str, file_format: str, data: bytes) -> Image:
    """The pixels of a file that `pillow_encode` wrote."""
    with decoding(codec), warnings.catch_warnings():
        # A damaged size must not become an allocation; damaged metadata, of which we write none, are no news.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", pil.DecompressionBombWarning)
        with pil.open(BytesIO(data), formats=[file_format]) as opened:
            opened.load()
            return check_pixels(codec, np.array(opened))


class PillowCodec(CheckedOptions):
    """A format that Pillow writes and reads; its bitstream is the file as written."""

    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    format: ClassVar[str]
    """Pillow's name of it."""
    libraries: ClassVar[tuple[tuple[str, str], ...]]
    """What codes inside Pillow, with the name that ``PIL.features`` has for it."""
    largest: ClassVar[int] = (1 << 32) - 1
    mode: ClassVar[str] = "RGB"

    def saved(self) -> dict[str, Any]:
        """What Pillow is told when it writes."""
        return {}

    def coder(self) -> dict[str, str]:
        import PIL
        from PIL import features

        versions = {name: str(features.version(feature)) for name, feature in self.libraries}
        return {"pillow": PIL.__version__, **versions}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_sides(self.name, image, 1, self.largest)
        return Bitstream.whole(pillow_encode(self.name, self.format, image, self.mode, **self.saved()))

    def decode(self, data: bytes) -> Image:
        return pillow_decode(self.name, self.format, data)

"""JPEG, baseline, 8 bit (ITU-T T.81 | ISO/IEC 10918-1) by libjpeg-turbo through Pillow.

Bitstream: the JFIF file as written, with its quantiser and Huffman tables (about 600 bytes, all counted).

With the defaults the bytes are those of CompressAI's benchmark: ``Image.save(format="JPEG", quality=q)``, that is 4:2:0
and the standard Huffman tables. ``optimize`` computes the tables for the image and writes a progressive file: 4 % fewer
bytes for the same pixels at quality 75, 40 % at quality 1. ``chroma="4:4:4"`` is the fairer choice against codecs that
keep full colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.codecs.inprocess import check_choice, check_sides, pillow_coder, pillow_decode, pillow_encode
from rdpbench.image import Image
from rdpbench.needs import Need, Package

LARGEST = 65500
"""JPEG_MAX_DIMENSION of libjpeg: a little below the 65535 of the format."""


@dataclass(frozen=True)
class JPEG:
    """JPEG through Pillow.

    >>> import numpy as np
    >>> stream = JPEG(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEG(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    quality: int = 75
    """IJG quality; below 25 or so blocks and colour bands show."""
    chroma: str = "4:2:0"
    optimize: bool = False
    """Huffman tables made for the image, and progressive scans."""

    rate: ClassVar[Rate] = Rate("quality", 1, 100)
    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        self.rate.check("jpeg", self.quality)
        check_choice("jpeg", "chroma", self.chroma, ["4:4:4", "4:2:2", "4:2:0"])

    def coder(self) -> dict[str, str]:
        """Pillow, and the JPEG library inside it."""
        return pillow_coder(libjpeg_turbo="libjpeg_turbo")

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002
        check_sides("jpeg", image, 1, LARGEST)
        extra = {"optimize": True, "progressive": True} if self.optimize else {}
        return Bitstream.whole(
            pillow_encode("jpeg", "JPEG", image, quality=self.quality, subsampling=self.chroma, **extra)
        )

    def decode(self, data: bytes) -> Image:
        return pillow_decode("jpeg", "JPEG", data)

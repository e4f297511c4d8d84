"""JPEG XL (ISO/IEC 18181-1), VarDCT mode, by libjxl through imagecodecs.

The rate axis is the Butteraugli ``distance``: 1 is about where a difference becomes visible, 25 is the largest libjxl
takes. Pictures are coded in XYB, a colour space of the eye: at equal PSNR others need fewer bits. The lowest rate is
about 0.14 bpp. One thread (libjxl writes the same bytes with more); with other vector instructions it writes others.

Bitstream: the bare codestream; the 40 bytes of an optional container are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rdpbench.codecs.classical.pillow import check_pixels
from rdpbench.codecs.contract import Bitstream, CheckedOptions, Rate, Side, decoding, encoding, option
from rdpbench.image import Image, check_image
from rdpbench.lazy import imagecodecs
from rdpbench.needs import Package

FIXED: dict[str, Any] = {"lossless": False, "photometric": "rgb", "usecontainer": False, "numthreads": 1}
"""What libjxl is given at any distance and effort."""


@dataclass(frozen=True)
class JPEGXL(CheckedOptions):
    """JPEG XL through imagecodecs.

    >>> stream = JPEGXL(distance=1).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEGXL(distance=1).decode(stream.data)[0, 0, 0])
    128
    """

    name = "jpegxl"
    rate = Rate("distance", 0.1, 25, step=0, rises=False)
    needs = (Package("imagecodecs"),)
    depends_on_cpu = ("instructions",)

    distance: float = 1.0
    effort: int = option(7, range(1, 10))
    """1 (fastest) to 9; 7 is libjxl's default."""

    def coder(self) -> dict[str, str]:
        return {"imagecodecs": imagecodecs.__version__, "libjxl": imagecodecs.jpegxl_version().split()[-1]}

    def settings(self) -> dict[str, Any]:
        return FIXED

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        pixels = np.ascontiguousarray(check_image(image))
        with encoding("jpegxl"):
            data = imagecodecs.jpegxl_encode(pixels, distance=float(self.distance), effort=self.effort, **FIXED)
        return Bitstream.whole(bytes(data))

    def decode(self, data: bytes) -> Image:
        with decoding("jpegxl"):
            return check_pixels("jpegxl", np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1)))

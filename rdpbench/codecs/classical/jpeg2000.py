"""JPEG 2000 (ITU-T T.800 | ISO/IEC 15444-1) by OpenJPEG through Pillow.

Irreversible 9/7 wavelet, irreversible colour transform (4:4:4), one quality layer, one tile. The rate axis is exact
rate control: ``ratio`` is the compression ratio against 24 bits per pixel, so ``ratio=240`` asks for 0.1 bpp. Every
image gets nearly the same bytes, where other codecs give every image nearly the same quality: compare per image.

Bitstream: the raw codestream. The JP2 boxes around it (85 bytes) and OpenJPEG's comment with its own name (33 bytes)
are left out; they say nothing a decoder needs. The header of about 150 bytes stays: small images and extreme ratios get
more bytes than they asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdpbench.codecs.classical.inprocess import pillow_coder, pillow_decode, pillow_encode
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.image import Image
from rdpbench.needs import Need, Package

FIXED = {"no_jp2": True, "quality_mode": "rates", "irreversible": True, "mct": 1}
"""What OpenJPEG is given at any ratio."""


@dataclass(frozen=True)
class JPEG2000:
    """JPEG 2000 through Pillow.

    >>> import numpy as np
    >>> stream = JPEG2000(ratio=24).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEG2000(ratio=24).decode(stream.data)[0, 0, 0])
    128
    """

    ratio: float = 24.0
    """Raw bytes (3 per pixel) over coded bytes."""

    rate: ClassVar[Rate] = Rate("ratio", 1, 5000, step=0, rises=False)
    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        self.rate.check("jpeg2000", self.ratio)

    def coder(self) -> dict[str, str]:
        """Pillow, and OpenJPEG inside it."""
        return pillow_coder(openjpeg="jpg_2000")

    def settings(self) -> dict[str, object]:
        return FIXED

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002
        data = pillow_encode(
            "jpeg2000",
            "JPEG2000",
            image,
            quality_layers=[float(self.ratio)],
            **FIXED,
            comment=b"\0",  # an empty C string; without one OpenJPEG writes its name
        )
        return Bitstream.whole(data)

    def decode(self, data: bytes) -> Image:
        return pillow_decode("jpeg2000", "JPEG2000", data)

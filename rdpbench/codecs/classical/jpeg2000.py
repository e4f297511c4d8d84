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
from typing import Any

from rdpbench.codecs.classical.inprocess import PillowCodec
from rdpbench.codecs.contract import Rate

FIXED: dict[str, Any] = {"no_jp2": True, "quality_mode": "rates", "irreversible": True, "mct": 1}
"""What OpenJPEG is given at any ratio."""


@dataclass(frozen=True)
class JPEG2000(PillowCodec):
    """JPEG 2000 through Pillow.

    >>> import numpy as np
    >>> from rdpbench import Side
    >>> stream = JPEG2000(ratio=24).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEG2000(ratio=24).decode(stream.data)[0, 0, 0])
    128
    """

    name = "jpeg2000"
    rate = Rate("ratio", 1, 5000, step=0, rises=False)
    format = "JPEG2000"
    libraries = (("openjpeg", "jpg_2000"),)

    ratio: float = 24.0
    """Raw bytes (3 per pixel) over coded bytes."""

    def settings(self) -> dict[str, Any]:
        return FIXED

    def saved(self) -> dict[str, Any]:
        # The comment is an empty C string; without one OpenJPEG writes its name.
        return {"quality_layers": [float(self.ratio)], "comment": b"\0", **FIXED}

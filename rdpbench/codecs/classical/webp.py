"""WebP, lossy (RFC 9649: a VP8 key frame in RIFF) by libwebp through Pillow.

With the defaults the bytes are those of CompressAI's benchmark: ``Image.save(format="WEBP", quality=q)``, method 4;
its published Kodak curve is reproduced to the last byte. Lossy WebP is always 4:2:0 and 8 bit, and its luma keeps
only 16..235, which bounds the quality it can reach. It stops near 0.12 bpp.

Bitstream: the file as written (20 to 30 bytes of RIFF, no ICC, no EXIF).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rdpbench.codecs.classical.inprocess import PillowCodec
from rdpbench.codecs.contract import Rate, option


@dataclass(frozen=True)
class WebP(PillowCodec):
    """Lossy WebP through Pillow.

    >>> import numpy as np
    >>> from rdpbench import Side
    >>> len(WebP(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side()).data)
    44
    """

    name = "webp"
    rate = Rate("quality", 0, 100)
    format = "WEBP"
    libraries = (("libwebp", "webp"),)
    largest = 16383

    quality: int = 80
    method: int = option(4, range(7))
    """Effort, 0 to 6. Six saves 6 % at the lowest quality and hardly any at others, in twice the time."""

    def saved(self) -> dict[str, Any]:
        return {"quality": self.quality, "method": self.method}

"""WebP, lossy (RFC 9649: a VP8 key frame in RIFF) by libwebp through Pillow.

With the defaults the bytes are those of CompressAI's benchmark: ``Image.save(format="WEBP", quality=q)``, method 4;
its published Kodak curve is reproduced to the last byte. Lossy WebP is always 4:2:0 and 8 bit, and its luma keeps
only 16..235, which bounds the quality it can reach. It stops near 0.12 bpp.

Bitstream: the file as written (20 to 30 bytes of RIFF, no ICC, no EXIF).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdpbench.codecs.classical.inprocess import check_choice, check_sides, pillow_coder, pillow_decode, pillow_encode
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.image import Image
from rdpbench.needs import Need, Package


@dataclass(frozen=True)
class WebP:
    """Lossy WebP through Pillow.

    >>> import numpy as np
    >>> stream = WebP(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> WebP(quality=50).decode(stream.data).shape[2]
    3
    """

    quality: int = 80
    method: int = 4
    """Effort, 0 to 6. Six saves 6 % at the lowest quality and hardly any at others, in twice the time."""

    rate: ClassVar[Rate] = Rate("quality", 0, 100)
    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        self.rate.check("webp", self.quality)
        check_choice("webp", "method", self.method, range(7))

    def coder(self) -> dict[str, str]:
        """Pillow, and libwebp inside it."""
        return pillow_coder(libwebp="webp")

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002
        check_sides("webp", image, 1, 16383)
        return Bitstream.whole(pillow_encode("webp", "WEBP", image, quality=self.quality, method=self.method))

    def decode(self, data: bytes) -> Image:
        return pillow_decode("webp", "WEBP", data)

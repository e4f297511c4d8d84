"""HEIF with HEVC inside, "HEIC" (ISO/IEC 23008-12), by libheif and x265 through pillow-heif.

This is the format as its users get it: libheif's x265 settings (preset slow, tuned for SSIM), ``quality`` mapped to
x265's constant rate factor, YCbCr by libheif (BT.601, full range). `rdpbench.codecs.classical.hevc` is the same coder
at its best PSNR. 4:4:4 by default; at the lowest qualities 4:2:0 is better by decibels. x265 runs without its thread
pool, which would change the bytes with the number of cores. Decoded by libde265 with one thread.

Bitstream: the file as written: 359 to 379 bytes of boxes (0.0077 bpp on a 768 x 512 image), no thumbnail, EXIF or ICC.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np

from rdpbench.codecs.classical.inprocess import check_pixels, check_x265
from rdpbench.codecs.contract import Bitstream, CheckedOptions, Rate, Side, decoding, encoding, option
from rdpbench.image import Image
from rdpbench.lazy import pillow_heif
from rdpbench.needs import Package
from rdpbench.networks.precision import switched

X265 = {"x265:pools": "none", "x265:frame-threads": "1", "x265:wpp": "0"}
"""What libheif hands to x265 itself. Without pools there is no wavefront either, so one thread codes."""


@dataclass(frozen=True)
class HEIF(CheckedOptions):
    """HEIC through pillow-heif.

    >>> stream = HEIF(quality=50).encode(np.full((64, 64, 3), 128, np.uint8), Side())
    >>> int(HEIF(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    name = "heif"
    rate = Rate("quality", 0, 100)
    needs = (Package("pillow-heif"),)

    quality: int = 50
    chroma: str = option("4:4:4", ("4:4:4", "4:2:2", "4:2:0"))

    def coder(self) -> dict[str, str]:
        """pillow-heif, libheif inside it, and the HEVC encoder and decoder inside that."""
        info = pillow_heif.libheif_info()
        return {
            "pillow-heif": str(pillow_heif.__version__),
            "libheif": str(info["libheif"]),
            "encoder": str(info["HEIF"]),
            "decoder": ", ".join(info["decoders"].values()),
        }

    def settings(self) -> dict[str, str]:
        return {**X265, "matrix": "bt601, full range"}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_x265("heif", image, 1)
        height, width = image.shape[:2]
        pixels, buffer = np.ascontiguousarray(image).tobytes(), BytesIO()
        options = {"quality": self.quality, "subsampling": self.chroma, "enc_params": X265}
        with encoding("heif"):
            pillow_heif.encode("RGB", (width, height), pixels, buffer, **options)
        return Bitstream.whole(buffer.getvalue())

    def decode(self, data: bytes) -> Image:
        from pillow_heif import options

        with decoding("heif"), switched((options, "DECODE_THREADS", 1)):
            return check_pixels("heif", np.array(pillow_heif.read_heif(BytesIO(data))))

"""JPEG, baseline, 8 bit (ITU-T T.81 | ISO/IEC 10918-1) by libjpeg-turbo through Pillow.

Bitstream: the JFIF file as written, with its quantiser and Huffman tables (about 600 bytes, all counted).

With the defaults the bytes are those of CompressAI's benchmark: ``Image.save(format="JPEG", quality=q)``, that is 4:2:0
and the standard Huffman tables. ``optimize`` computes the tables for the image and writes a progressive file: 4 % fewer
bytes for the same pixels at quality 75, 40 % at quality 1. ``chroma="4:4:4"`` is the fairer choice against codecs that
keep full colour.

JPEG as mozjpeg writes it: the same format (ITU-T T.81), a slower encoder, about half the bytes at low rate.

Library: mozjpeg inside libvips, through pyvips. Trellis quantisation, progressive scans chosen by size
(``optimize_scans``), deringing at clipped edges, Huffman tables made for the image, and the quantiser table
``quant_table=3`` (N. Robidoux's, mozjpeg's own default), which is flat enough to reach 0.06 bpp where the standard
tables stop at 0.18. Decoded by Pillow: any JPEG decoder will do.

Bitstream: the JFIF file as written, without metadata. The quality scale is not that of plain JPEG: compare curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from rdpbench.codecs.classical.inprocess import (
    check_choice,
    check_sides,
    encoding,
    pillow_coder,
    pillow_decode,
    pillow_encode,
)
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.errors import MissingNeed
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version

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


SUBSAMPLE = {"4:4:4": "off", "4:2:0": "on"}
TABLE = 3
"""N. Robidoux's quantiser table."""
FIXED: dict[str, Any] = {
    "trellis_quant": True,
    "overshoot_deringing": True,
    "optimize_scans": True,
    "optimize_coding": True,
    "interlace": True,
    "keep": "none",
}
"""What mozjpeg is given at any quality."""


@dataclass(frozen=True)
class MozJPEG:
    """JPEG by mozjpeg through pyvips.

    >>> stream = MozJPEG(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(MozJPEG(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    quality: int = 75
    chroma: str = "4:2:0"

    rate: ClassVar[Rate] = Rate("quality", 1, 100)
    needs: ClassVar[tuple[Need, ...]] = (
        Package("pyvips"),
        Package("pyvips-binary", module="_libvips"),  # a system libvips seldom has mozjpeg
        Package("pillow", module="PIL"),
    )
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        self.rate.check("mozjpeg", self.quality)
        check_choice("mozjpeg", "chroma", self.chroma, SUBSAMPLE)

    def coder(self) -> dict[str, str]:
        """The wheel that holds libvips and mozjpeg (which cannot be asked its version), and the decoder."""
        vips = _vips()
        return {
            "pyvips-binary": package_version("pyvips-binary"),
            "libvips": ".".join(str(vips.version(part)) for part in range(3)),
            **pillow_coder(libjpeg_turbo="libjpeg_turbo"),
        }

    def settings(self) -> dict[str, Any]:
        return {"quant_table": TABLE, **FIXED}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002
        check_sides("mozjpeg", image, 1, LARGEST)
        with encoding("mozjpeg"):
            return Bitstream.whole(_save(_vips(), image, self.quality, SUBSAMPLE[self.chroma], TABLE))

    def decode(self, data: bytes) -> Image:
        return pillow_decode("mozjpeg", "JPEG", data)


def _save(vips: Any, image: Image, quality: int, subsample: str, table: int) -> bytes:
    height, width = image.shape[:2]
    picture = vips.Image.new_from_memory(np.ascontiguousarray(image).tobytes(), width, height, 3, "uchar")
    saved: bytes = picture.copy(interpretation="srgb").jpegsave_buffer(
        Q=quality,
        subsample_mode=subsample,
        quant_table=table,
        **FIXED,
    )
    return saved


@cache
def _vips() -> Any:
    """The pyvips module, with one thread and without its cache of results.

    Raises:
        MissingNeed: this libvips has another JPEG library: it takes mozjpeg's options and silently ignores them.
    """
    import pyvips

    pyvips.concurrency_set(1)
    pyvips.cache_set_max(0)
    grey = np.full((8, 8, 3), 90, np.uint8)
    if _save(pyvips, grey, 50, "off", table=0) == _save(pyvips, grey, 50, "off", table=3):
        raise MissingNeed("this libvips was built without mozjpeg; type: pip install pyvips-binary")
    return pyvips

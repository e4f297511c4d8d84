"""JPEG, baseline, 8 bit (ITU-T T.81 | ISO/IEC 10918-1): by libjpeg-turbo through Pillow, and by mozjpeg.

Bitstream: the JFIF file as written, with its quantiser and Huffman tables (about 600 bytes) and without metadata.

``jpeg``, with its defaults, writes the bytes of CompressAI's benchmark: ``Image.save(format="JPEG", quality=q)``, that
is 4:2:0 and the standard Huffman tables. ``optimize`` computes the tables for the image and writes a progressive file:
4 % fewer bytes for the same pixels at quality 75, 40 % at quality 1. ``chroma="4:4:4"`` is the fairer choice against
codecs that keep full colour.

``mozjpeg`` is a slower encoder of the same format, inside libvips, through pyvips: about half the bytes at low rate, by
trellis quantisation, progressive scans chosen by size, deringing at clipped edges, Huffman tables made for the image,
and N. Robidoux's quantiser table (mozjpeg's own default), which is flat enough to reach 0.06 bpp where the standard
tables stop at 0.18. Pillow decodes. Its quality scale is not that of plain JPEG: compare curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from rdpbench.codecs.classical.inprocess import PillowCodec, check_sides
from rdpbench.codecs.contract import Bitstream, Rate, Side, encoding, option
from rdpbench.errors import MissingNeed
from rdpbench.image import Image
from rdpbench.needs import Package, package_version


@dataclass(frozen=True)
class JPEG(PillowCodec):
    """JPEG through Pillow.

    >>> stream = JPEG(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEG(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    name = "jpeg"
    rate = Rate("quality", 1, 100)
    format = "JPEG"
    libraries = (("libjpeg_turbo", "libjpeg_turbo"),)
    largest = 65500  # JPEG_MAX_DIMENSION of libjpeg: a little below the 65535 of the format

    quality: int = 75
    """IJG quality; below 25 or so blocks and colour bands show."""
    chroma: str = option("4:2:0", ("4:4:4", "4:2:2", "4:2:0"))
    optimize: bool = False
    """Huffman tables made for the image, and progressive scans."""

    def saved(self) -> dict[str, Any]:
        extra = {"optimize": True, "progressive": True} if self.optimize else {}
        return {"quality": self.quality, "subsampling": self.chroma, **extra}


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
class MozJPEG(PillowCodec):
    """JPEG by mozjpeg through pyvips.

    >>> stream = MozJPEG(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(MozJPEG(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    name = "mozjpeg"
    rate = JPEG.rate
    needs = (
        Package("pyvips"),
        Package("pyvips-binary", module="_libvips"),  # a system libvips seldom has mozjpeg
        *PillowCodec.needs,
    )
    format = "JPEG"
    libraries = JPEG.libraries

    quality: int = 75
    chroma: str = option("4:2:0", SUBSAMPLE)

    def coder(self) -> dict[str, str]:
        """The wheel that holds libvips and mozjpeg (which cannot be asked its version), and the decoder."""
        vips = _vips()
        libvips = ".".join(str(vips.version(part)) for part in range(3))
        return {"pyvips-binary": package_version("pyvips-binary"), "libvips": libvips, **super().coder()}

    def settings(self) -> dict[str, Any]:
        return {"quant_table": TABLE, **FIXED}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_sides("mozjpeg", image, 1, JPEG.largest)
        with encoding("mozjpeg"):
            return Bitstream.whole(_save(_vips(), image, self.quality, SUBSAMPLE[self.chroma], TABLE))


def _save(vips: Any, image: Image, quality: int, subsample: str, table: int) -> bytes:
    height, width = image.shape[:2]
    picture = vips.Image.new_from_memory(np.ascontiguousarray(image).tobytes(), width, height, 3, "uchar")
    picture = picture.copy(interpretation="srgb")
    saved: bytes = picture.jpegsave_buffer(Q=quality, subsample_mode=subsample, quant_table=table, **FIXED)
    return saved


@cache
def _vips() -> Any:
    """The pyvips module, with one thread and without its cache of results."""
    import pyvips

    pyvips.concurrency_set(1)
    pyvips.cache_set_max(0)
    grey = np.full((8, 8, 3), 90, np.uint8)
    # A libvips with another JPEG library takes mozjpeg's options and silently ignores them.
    if _save(pyvips, grey, 50, "off", table=0) == _save(pyvips, grey, 50, "off", table=3):
        raise MissingNeed("this libvips was built without mozjpeg; type: pip install pyvips-binary")
    return pyvips

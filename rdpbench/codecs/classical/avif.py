"""AVIF (AV1 Image File Format 1.1: one AV1 intra frame in HEIF boxes) by libavif and libaom through Pillow.

8 bit, full range, 4:4:4 by default where Pillow's own default is 4:2:0. One thread and no automatic tiles: with more,
libaom writes other bytes, and Pillow's default is as many threads as the machine has cores. ``tune`` is passed on to
libaom: ``iq`` is libavif's default, made for the eye, ``psnr`` is the one for rate-distortion curves (6 % fewer bits
at equal PSNR, and another quality scale). imagecodecs' libavif takes no ``tune``, and is biased at 4:2:0.

Colour: BT.601, full range, rounded in both directions. libavif has two conversions. The fast one is libyuv's: on the
way in it drops the fraction of Cb and Cr, so that both are stored low by 0.44, and on the way out its weights have six
bits, so that a saturated colour is off by up to 0.4. Both are avoided: libavif's own, exact conversion is the one that
it has for premultiplied alpha, and an opaque image is the same before and after that (nothing of alpha is written).
Decoded are the planes, by dav1d through PyAV; from there `rdpbench.codecs.classical.ycbcr`, with chroma interpolated
bilinearly as libavif does.

Bitstream: the file as written, of which 275 to 285 bytes are boxes (0.006 bpp on a 768 x 512 image).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.classical.pillow import PillowCodec
from rdpbench.codecs.classical.ycbcr import PICTURE_OPTIONS, av_coder, decode_picture, ycbcr_to_rgb
from rdpbench.codecs.contract import Rate, decoding, option
from rdpbench.errors import BitstreamError
from rdpbench.image import Image, check_image
from rdpbench.lazy import av
from rdpbench.needs import Package

FORMATS = {"yuv444p": "4:4:4", "yuv422p": "4:2:2", "yuv420p": "4:2:0"}
"""Chroma by FFmpeg's name of the pixel format."""
FIXED: dict[str, Any] = {
    "codec": "aom",
    "range": "full",
    "max_threads": 1,
    "autotiling": False,
    "alpha_premultiplied": True,  # with RGBA: libavif's exact conversion; see above
}
"""What Pillow is told whatever the options are."""


@dataclass(frozen=True)
class AVIF(PillowCodec):
    """AVIF through Pillow.

    >>> from rdpbench import Side
    >>> stream = AVIF(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(AVIF(quality=50).decode(stream.data)[0, 0, 0])
    128
    """

    name = "avif"
    rate = Rate("quality", 0, 99)  # libaom refuses to tune a lossless picture
    needs = (*PillowCodec.needs, Package("av"))
    version = "2"  # 1 had Cb and Cr low by 0.44
    format = "AVIF"
    libraries = (("libavif", "avif"),)
    largest = 32768  # libavif writes more, and does not read it again
    mode = "RGBA"

    quality: int = 50
    chroma: str = option("4:4:4", FORMATS.values())
    tune: str = option("iq", ("iq", "ssimulacra2", "psnr", "ssim"))
    """What libaom optimises: ``iq``, ``ssimulacra2`` (for the eye), ``psnr``, ``ssim``."""
    speed: int = option(6, range(11))
    """0 (slowest) to 10. Two instead of six saves 10 to 15 % and takes fifteen times as long."""

    def coder(self) -> dict[str, str]:
        """Pillow, libavif and the AV1 encoder inside it; PyAV and FFmpeg's codecs, through which dav1d decodes."""
        from PIL import AvifImagePlugin

        return {**super().coder(), "aom": str(AvifImagePlugin.get_codec_version("aom")), **av_coder()}

    def settings(self) -> dict[str, Any]:
        return FIXED

    def saved(self) -> dict[str, Any]:
        options = {"quality": self.quality, "subsampling": self.chroma, "speed": self.speed}
        return {**options, **FIXED, "advanced": {"tune": self.tune}}

    def decode(self, data: bytes) -> Image:
        with decoding("avif"):
            pixels, (luma, *chroma) = decode_picture("avif", "libdav1d", _av1(data))
            if pixels not in FORMATS:
                raise BitstreamError(f"not an avif bitstream of ours: its pixels are {pixels}")
            planes = np.stack([luma, *(_upsampled(plane, *luma.shape) for plane in chroma)]).astype(np.uint8)
        return check_image(ycbcr_to_rgb(planes, 8, "bt601"))


def _av1(data: bytes) -> bytes:
    """The AV1 picture in an AVIF file."""
    # FFmpeg decodes a picture already while it opens a file.
    with av.open(BytesIO(data), "r", format="mov", options=PICTURE_OPTIONS) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    if len(pictures) != 1:
        raise BitstreamError(f"an avif bitstream of ours holds one picture; here are {len(pictures)}")
    return pictures[0]


def _upsampled(plane: NDArray[np.integer[Any]], height: int, width: int) -> NDArray[np.integer[Any]]:
    """Interpolate a plane of chroma to the size of luma, bilinearly: its samples lie midway between those of luma.

    >>> _upsampled(np.array([[0, 100]]), 1, 4).tolist()
    [[0, 25, 75, 100]]
    """
    weight, summed = 1, plane.astype(np.int64)
    for axis, side in enumerate((height, width)):
        if summed.shape[axis] != side:
            weight, summed = 4 * weight, np.moveaxis(_doubled(np.moveaxis(summed, axis, 0)), 0, axis)
    # Halves to even: upwards they would raise the mean of 4:2:0 by 1/32.
    return np.rint(summed[:height, :width] / weight).astype(np.int64)


def _doubled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Four times the rows that lie a quarter before and after each row; those of the edge repeat."""
    around = np.concatenate([rows[:1], rows, rows[-1:]])
    doubled = np.empty((2 * len(rows), *rows.shape[1:]), np.int64)
    doubled[0::2] = 3 * rows + around[:-2]
    doubled[1::2] = 3 * rows + around[2:]
    return doubled

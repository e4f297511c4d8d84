"""AVIF (AV1 Image File Format 1.1: one AV1 intra frame in HEIF boxes) by libavif and libaom through Pillow.

8 bit, full range, 4:4:4 by default where Pillow's own default is 4:2:0. One thread and no automatic tiles: with more,
libaom writes other bytes, and Pillow's default is as many threads as the machine has cores. ``tune`` is passed on to
libaom: ``iq`` is libavif's default, made for the eye, ``psnr`` is the one for rate-distortion curves (8 % fewer bits
at equal PSNR, and another quality scale). Decoded by dav1d.

Bitstream: the file as written, of which 275 to 285 bytes are boxes (0.006 bpp on a 768 x 512 image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.codecs.inprocess import check_choice, check_sides, one_thread, pillow_coder, pillow_decode, pillow_encode
from rdpbench.image import Image
from rdpbench.needs import Need, Package


@dataclass(frozen=True)
class AVIF:
    """AVIF through Pillow.

    >>> import numpy as np
    >>> stream = AVIF(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> AVIF(quality=50).decode(stream.data).shape[2]
    3
    """

    quality: int = 50
    chroma: str = "4:4:4"
    tune: str = "iq"
    """What libaom optimises: ``iq``, ``ssimulacra2`` (for the eye), ``psnr``, ``ssim``."""
    speed: int = 6
    """0 (slowest) to 10. Two instead of six saves 10 to 15 % and takes fifteen times as long."""

    rate: ClassVar[Rate] = Rate("quality", 0, 99)  # libaom refuses to tune a lossless picture
    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        self.rate.check("avif", self.quality)
        check_choice("avif", "chroma", self.chroma, ["4:4:4", "4:2:2", "4:2:0"])
        check_choice("avif", "tune", self.tune, ["iq", "ssimulacra2", "psnr", "ssim"])
        check_choice("avif", "speed", self.speed, range(11))

    def coder(self) -> dict[str, str]:
        """Pillow, libavif inside it, and the AV1 encoder and decoder inside that."""
        from PIL import AvifImagePlugin

        inner = {name: str(AvifImagePlugin.get_codec_version(name)) for name in ("aom", "dav1d")}
        return {**pillow_coder(libavif="avif"), **inner}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002
        check_sides("avif", image, 1, 32768)  # more is written, but not read again
        data = pillow_encode(
            "avif",
            "AVIF",
            image,
            quality=self.quality,
            subsampling=self.chroma,
            speed=self.speed,
            codec="aom",
            range="full",
            max_threads=1,
            autotiling=False,
            advanced={"tune": self.tune},
        )
        return Bitstream.whole(data)

    def decode(self, data: bytes) -> Image:
        from PIL import AvifImagePlugin

        with one_thread(AvifImagePlugin, "DEFAULT_MAX_THREADS"):
            return pillow_decode("avif", "AVIF", data)

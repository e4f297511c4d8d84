"""HEVC intra by x265: 4:4:4 at its best PSNR through PyAV, and HEIF as its users get it through pillow-heif.

**hevc** (ITU-T H.265 | ISO/IEC 23008-2, main 4:4:4 profile), the in-process stand-in for BPG, which is the same coding
tools with a smaller header: 0.6 to 1.8 % more bytes than BPG (x265, 4:4:4) at equal PSNR on four Kodak images. One IDR
picture, preset slow, ``tune=psnr`` (no psychovisual terms and no adaptive quantisation: these cost 20 % at equal PSNR),
constant QP. ``ipratio=1`` because x265 otherwise codes an intra picture at QP - 3 and ``qp=51`` would not be 51. No
thread pool, no wavefront: the bytes do not depend on the number of cores.

Colour: full-range YCbCr with BT.709 weights, rounded both ways (`rdpbench.codecs.classical.ycbcr`), 8 or 10 bit. As
with VTM the bits do not state matrix and range; this decoder knows them.

Bitstream: the raw Annex B stream: VPS, SPS, PPS and one slice, with no SEI. 82 bytes are not the slice.
x265 refuses pictures of less than 16 pixels on a side. FFmpeg's decoder conceals damage where it can.

**heif**: HEIF with HEVC inside, "HEIC" (ISO/IEC 23008-12), by libheif: its x265 settings (preset slow, tuned for SSIM),
``quality`` mapped to x265's constant rate factor, YCbCr by libheif (BT.601, full range). 4:4:4 by default; at the
lowest qualities 4:2:0 is better by decibels. Again without a thread pool. Decoded by libde265 with one thread.

Bitstream: the file as written: 359 to 379 bytes of boxes (0.0077 bpp on a 768 x 512 image), no thumbnail, EXIF or ICC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from io import BytesIO

import numpy as np

from rdpbench.codecs.classical.pillow import check_pixels, check_sides
from rdpbench.codecs.classical.ycbcr import av_coder, decode_picture, rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.codecs.contract import Bitstream, CheckedOptions, Rate, Side, decoding, encoding, option
from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.lazy import av, pillow_heif
from rdpbench.needs import Package
from rdpbench.networks.precision import switched

FORMATS = {8: "yuv444p", 10: "yuv444p10le"}
"""FFmpeg's pixel format for a bit depth; its own way to say so, read back by the decoder from the bits."""

FIXED = {"tune": "psnr", "x265-params": "ipratio=1:keyint=1:pools=none:frame-threads=1:wpp=0:log-level=none"}
"""What x265 is given at any QP."""

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


def check_x265(codec: str, image: Image, low: int) -> None:
    """Raise `UnsupportedImage` unless x265 takes these sides, and HEVC's decoders, which stop at 16384 or above."""
    check_sides(codec, image, low, 16384)
    height, width = image.shape[:2]
    # Under 32 pixels x265 codes with trees of 16 x 16, which the levels of HEVC for more than 4222 pixels forbid.
    if min(height, width) < 32 and max(height, width) > 4096:
        raise UnsupportedImage(
            f"{codec} takes a side below 32 only if the other is at most 4096; the image is {width} x {height}"
        )


@dataclass(frozen=True)
class HEVC(CheckedOptions):
    """HEVC intra through PyAV.

    >>> stream = HEVC(qp=30).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(HEVC(qp=30).decode(stream.data)[0, 0, 0])
    128
    """

    name = "hevc"
    rate = Rate("qp", 1, 51, rises=False)
    needs = (Package("av"),)

    qp: int = 32
    bit_depth: int = option(8, FORMATS)
    """8 as BPG's default, or 10: both for the planes that are coded."""
    preset: str = option("slow", PRESETS)

    def coder(self) -> dict[str, str]:
        """PyAV, FFmpeg's codecs inside it, and x265 inside these."""
        return {**av_coder(), "x265": _x265_version()}

    def settings(self) -> dict[str, str]:
        return {**FIXED, "matrix": "bt709, full range"}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_x265("hevc", image, 16)
        with encoding("hevc"):
            return Bitstream.whole(_encode(image, self.qp, self.bit_depth, self.preset))

    def decode(self, data: bytes) -> Image:
        with decoding("hevc"):
            pixels, planes = decode_picture("hevc", "hevc", data)
            depths = {name: bits for bits, name in FORMATS.items()}
            if pixels not in depths:
                raise BitstreamError(f"not an hevc bitstream of ours: its pixels are {pixels}")
            return ycbcr_to_rgb(np.stack(planes), depths[pixels])


def _encode(image: Image, qp: int, bits: int, preset: str, info: int = 0) -> bytes:
    """One picture as an Annex B stream; ``info=1`` adds x265's SEI with its version and settings."""
    context = av.VideoCodecContext.create("libx265", "w")
    context.height, context.width = image.shape[:2]
    context.pix_fmt = FORMATS[bits]
    context.time_base, context.framerate = Fraction(1), Fraction(1)
    context.thread_count = 1
    context.options = {"preset": preset, **FIXED, "x265-params": f"qp={qp}:info={info}:{FIXED['x265-params']}"}

    frame = av.VideoFrame(context.width, context.height, context.pix_fmt)
    frame.pts = 0
    for plane, samples in zip(frame.planes, rgb_to_ycbcr(image, bits), strict=True):
        rows = np.zeros((plane.height, plane.line_size // samples.itemsize), samples.dtype)  # lines have padding
        rows[:, : plane.width] = samples
        plane.update(rows.tobytes())
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


@cache
def _x265_version() -> str:
    """x265 tells its version only in the SEI that it writes when asked."""
    black = _encode(np.zeros((16, 16, 3), np.uint8), 51, 8, "fast", info=1)
    match = re.search(rb"x265 \(build \d+\) - ([^:\s]+)", black)
    return match[1].decode() if match else "unknown"


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

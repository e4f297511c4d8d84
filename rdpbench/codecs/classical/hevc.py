"""HEVC intra, 4:4:4 (ITU-T H.265 | ISO/IEC 23008-2, main 4:4:4 profile) by x265 through PyAV.

The in-process stand-in for BPG, which is the same coding tools with a smaller header: 0.6 to 1.8 % more bytes than BPG
(x265, 4:4:4) at equal PSNR on four Kodak images. One IDR picture, preset slow, ``tune=psnr`` (no psychovisual terms and
no adaptive quantisation: these cost 20 % at equal PSNR), constant QP. ``ipratio=1`` because x265 otherwise codes an
intra picture at QP - 3 and ``qp=51`` would not be 51. No thread pool, no wavefront: the bytes do not depend on the
number of cores.

Colour: full-range YCbCr with BT.709 weights, rounded both ways (`rdpbench.codecs.classical.ycbcr`), 8 or 10 bit. As
with VTM the bits do not state matrix and range; this decoder knows them.

Bitstream: the raw Annex B stream: VPS, SPS, PPS and one slice, with no SEI. 82 bytes are not the slice.
x265 refuses pictures of less than 16 pixels on a side. FFmpeg's decoder conceals damage where it can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

from rdpbench.codecs.classical.inprocess import check_x265
from rdpbench.codecs.classical.ycbcr import av_coder, decode_picture, rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.codecs.contract import Bitstream, CheckedOptions, Rate, Side, decoding, encoding, option
from rdpbench.errors import BitstreamError
from rdpbench.image import Image
from rdpbench.lazy import av
from rdpbench.needs import Package

FORMATS = {8: "yuv444p", 10: "yuv444p10le"}
"""FFmpeg's pixel format for a bit depth; its own way to say so, read back by the decoder from the bits."""

FIXED = {"tune": "psnr", "x265-params": "ipratio=1:keyint=1:pools=none:frame-threads=1:wpp=0:log-level=none"}
"""What x265 is given at any QP."""

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo")


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

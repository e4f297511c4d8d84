"""BPG: HEVC intra in a container of a few dozen bytes, by Fabrice Bellard's ``bpgenc`` and ``bpgdec``.

https://bellard.org/bpg/ (bpgenc GPL-2 through x265, bpgdec LGPL). You bring the two programs, version 0.9.8.

In the bitstream: the ``.bpg`` file as it is.

Where this departs from the common wrapper (CompressAI's), and why:

- the encoder gets a plain PNG of the pixels, never the source file: gamma chunks, profiles and an opaque alpha plane
  (87 bytes) would otherwise be coded, too;
- the decoder writes PPM instead of PNG, the same pixels in an eighth of the time;
- widths that crash the x265 encoder are refused before it starts.

Colour conversion and rounding are bpgenc's own (``ycbcr`` is full-range BT.601), so its published points reproduce.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np

from rdpbench.assets.program import Argument, In, Out, program_identity, require, run_program
from rdpbench.codecs.contract import Bitstream, ProgramCodec, Rate, Side, check_choice, option
from rdpbench.errors import BitstreamError, CoderFailed, ConfigError, UnsupportedImage
from rdpbench.image import Image, check_image
from rdpbench.lazy import pil
from rdpbench.needs import Binary

PAGE = "https://bellard.org/bpg/"
ENCODER = Binary("bpgenc", "RDPBENCH_BPGENC", PAGE)
DECODER = Binary("bpgdec", "RDPBENCH_BPGDEC", PAGE)

MAGIC = b"BPG\xfb"
NARROWEST_X265 = 25
"""bpgenc 0.9.8 with x265 segfaults at every width tried up to 24, whatever height, chroma and level."""
DEPTHS = {"x265": [8, 10, 12], "jctvc": [8, 9, 10, 11, 12]}


@dataclass(frozen=True)
class BPG(ProgramCodec):
    """HEVC intra by bpgenc.

    ``encoder="jctvc"`` is HEVC's reference software: slower, and smaller files at the same QP. It writes two files to
    the system's temporary folder by itself.
    """

    name = "bpg"
    rate = Rate("qp", 0, 51, rises=False)
    needs = (ENCODER, DECODER)

    qp: int = 37
    chroma: str = option("4:4:4", ("4:4:4", "4:2:2", "4:2:0"))
    """bpgenc's own default is 4:2:0; papers use 4:4:4."""
    encoder: str = option("x265", DEPTHS)
    bit_depth: int = 8
    colour: str = option("ycbcr", ("ycbcr", "rgb", "ycgco", "ycbcr_bt709", "ycbcr_bt2020"))
    level: int = option(8, range(1, 10))
    """Effort, 1 to 9; 8 is bpgenc's default."""
    timeout_s: float = 600

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("bpg", "bit_depth", self.bit_depth, DEPTHS[self.encoder])
        if self.colour == "rgb" and self.chroma != "4:4:4":
            raise ConfigError("codec 'bpg': colour='rgb' has no chroma to subsample; it needs chroma='4:4:4'")

    def coder(self) -> dict[str, str]:
        return {"bpgenc": program_identity(require(ENCODER)), "bpgdec": program_identity(require(DECODER))}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        width = check_image(image).shape[1]
        if self.encoder == "x265" and width < NARROWEST_X265:
            raise UnsupportedImage(
                f"bpgenc crashes on images narrower than {NARROWEST_X265} pixels with encoder='x265', and this one is "
                f"{width} wide; encoder='jctvc' takes any size"
            )
        png = io.BytesIO()
        pil.fromarray(image).save(png, "PNG", compress_level=1)
        options = f"-q {round(self.qp)} -f {self.chroma.replace(':', '')} -e {self.encoder} -c {self.colour}"
        options += f" -b {self.bit_depth} -m {self.level} -o"
        arguments: list[Argument] = [*options.split(), Out("out.bpg"), In("in.png", png.getvalue())]
        # These are the temporary files of its jctvc encoder, under names that it cannot be talked out of.
        litter = ["/tmp/out{pid}-1.yuv", "/tmp/out{pid}-1.bin"]  # noqa: S108
        ran = run_program(require(ENCODER), arguments, self.timeout_s, litter)
        return Bitstream.whole(ran.outputs["out.bpg"], command=ran.command)

    def decode(self, data: bytes) -> Image:
        if not data.startswith(MAGIC):
            raise BitstreamError(f"these {len(data)} bytes are not a BPG file: they start with {data[:4]!r}")
        # Without an ending in the name bpgdec writes PPM; in a temporary folder, "ppm" says so.
        ran = run_program(require(DECODER), ["-o", Out("out.ppm"), In("in.bpg", data)], self.timeout_s)
        return read_ppm(ran.outputs["out.ppm"])


def read_ppm(data: bytes) -> Image:
    """Read a binary 8-bit PPM (P6) of a decoder's.

    >>> read_ppm(b"P6 2 1 255 " + bytes(range(6))).tolist()
    [[[0, 1, 2], [3, 4, 5]]]
    """
    head = re.match(rb"P6\s+(\d{1,9})\s+(\d{1,9})\s+255\s", data)
    if head is None:
        raise CoderFailed(f"the decoder wrote no 8-bit PPM: it starts with {data[:16]!r}")
    width, height = int(head[1]), int(head[2])
    if len(data) - head.end() != 3 * width * height:
        raise CoderFailed(f"the decoder wrote {len(data) - head.end()} bytes of pixels for {height} x {width}")
    image: Image = np.frombuffer(data, np.uint8, offset=head.end()).reshape(height, width, 3)
    return check_image(image.copy(), "the decoded image")

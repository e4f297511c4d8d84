"""VTM, the reference software of VVC (H.266), all intra, 4:4:4: the strongest classical point of comparison.

https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM (BSD-3). You bring the two programs and ``encoder_intra_vtm.cfg``,
which lies in ``cfg/`` of the same source tree.

In the bitstream: the raw Annex B stream as VTM writes it (parameter sets, adaptation sets, one picture), nothing else.
The size of the picture is in its sequence parameter set; PyAV reads it from there.

Where this departs from the common wrapper (CompressAI's, from which most published VTM curves come), and why:

- RGB becomes full-range BT.709 YCbCr by rounding, not by truncation, in both directions. Truncating 8 bits caps RGB
  PSNR at 43.7 dB even without a codec, and costs half a dB at QP 27. CompressAI's stored curve predates that code: it
  scores against the converted input, so the loss of the conversion is not in it.
- Chroma is centred on 128 (512 at 10 bits), as ITU-T H.273 has it, where the wrapper has 127.5.
- ``input_depth=10`` (the default) hands VTM 10-bit planes, at which the conversion is lossless; 8 is what papers did.
- ``middle="half"`` centres chroma on 127.5 as the common wrapper does; with 8 bits that is the published protocol but
  for the rounding: ``codec=vtm-8bit``. ``truncate=true`` codes the truncated planes of the wrapper as well, so that its
  streams come out; what is decoded is still rounded: ``codec=vtm-compressai``.
- The decoder learns the size from the stream; the wrapper passes it from the encoder's side.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from rdpbench.codecs.classical.inprocess import check_choice, decoding
from rdpbench.codecs.classical.program import Argument, In, Out, check_timeout, identity, require, run, sha256_of
from rdpbench.codecs.classical.ycbcr import Middle, rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.codecs.container import MAX_SIDE
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.errors import BitstreamError, CoderFailed
from rdpbench.image import Image, check_image
from rdpbench.needs import Binary, File, Need

PAGE = "https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM"
ENCODER = Binary("EncoderAppStatic", "RDPBENCH_VTM_ENCODER", PAGE)
DECODER = Binary("DecoderAppStatic", "RDPBENCH_VTM_DECODER", PAGE)


@dataclass(frozen=True)
class BesideEncoder(File):
    """A file of VTM's: where the variable says, else beside the encoder, else in ``cfg/`` of its source tree."""

    def find(self) -> Path | None:
        given, encoder = super().find(), ENCODER.find()
        if given or encoder is None:
            return given
        places = (encoder.parent / self.what, encoder.parent.parent / "cfg" / self.what)
        return next((place for place in places if place.is_file()), None)


CONFIG = BesideEncoder("encoder_intra_vtm.cfg", "RDPBENCH_VTM_CFG", PAGE)


@dataclass(frozen=True)
class VTM:
    """VVC intra by VTM.

    Encoding takes 10 to 120 CPU seconds for 768 x 512 pixels, the longer the lower the QP.
    """

    rate: ClassVar[Rate] = Rate("qp", 0, 63, rises=False, points=(47, 42, 37, 32, 27, 22, 17, 12))
    needs: ClassVar[tuple[Need, ...]] = (ENCODER, DECODER, CONFIG)
    unkeyed: ClassVar[frozenset[str]] = frozenset({"timeout_s"})
    version: ClassVar[str] = "1"

    qp: int = 37
    input_depth: int = 10
    """Bits of the planes that VTM is given and gives back, 8 or 10; inside it computes with 10."""
    middle: Middle = "h273"
    """Value of colourless chroma: ``h273`` is 2^(bits-1), ``half`` is half the largest sample."""
    truncate: bool = False
    """Drop the fractions of the planes instead of rounding them, before encoding."""
    chroma: str = "4:4:4"
    timeout_s: float = 7200

    def __post_init__(self) -> None:
        self.rate.check("vtm", self.qp)
        check_choice("vtm", "input_depth", self.input_depth, [10, 8])
        check_choice("vtm", "middle", self.middle, ["h273", "half"])
        check_choice("vtm", "chroma", self.chroma, ["4:4:4"])
        check_choice("vtm", "truncate", self.truncate, [False, True] if self.middle == "half" else [False])
        check_timeout("vtm", self.timeout_s)

    def coder(self) -> dict[str, str]:
        pattern, config = r"Version (\S+)", require(CONFIG)
        return {
            "vtm-encoder": identity(require(ENCODER), ["--help"], pattern),
            "vtm-decoder": identity(require(DECODER), ["--help"], pattern),
            config.name: f"sha256:{sha256_of(config)}",
        }

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        height, width = check_image(image).shape[:2]
        planes = rgb_to_ycbcr(image, self.input_depth, "bt709", self.middle, self.truncate)
        arguments: list[Argument] = ["-i", In("in.yuv", planes.astype(self._sample()).tobytes())]
        arguments += ["-c", In("encoder_intra_vtm.cfg", require(CONFIG).read_bytes())]
        arguments += ["-q", str(round(self.qp)), "-o", "/dev/null", "-b", Out("out.bin")]
        arguments += f"-wdt {width} -hgt {height} -fr 1 -f 1 --InputChromaFormat=444".split()
        arguments += [f"--InputBitDepth={self.input_depth}", "--ConformanceWindowMode=1"]
        ran = run(require(ENCODER), arguments, self.timeout_s)
        return Bitstream.whole(ran.outputs["out.bin"], command=ran.command)

    def decode(self, data: bytes) -> Image:
        height, width = size_of_vvc(data)
        arguments: list[Argument] = ["-b", In("in.bin", data), "-o", Out("out.yuv"), "-d", str(self.input_depth)]
        raw = run(require(DECODER), arguments, self.timeout_s).outputs["out.yuv"]
        if len(raw) != 3 * height * width * np.dtype(self._sample()).itemsize:
            raise CoderFailed(f"VTM's decoder wrote {len(raw)} bytes, which is no 4:4:4 picture of {height} x {width}")
        planes = np.frombuffer(raw, self._sample()).reshape(3, height, width)
        return ycbcr_to_rgb(planes, self.input_depth, "bt709", self.middle)

    def _sample(self) -> str:
        return "u1" if self.input_depth == 8 else "<u2"


def size_of_vvc(data: bytes) -> tuple[int, int]:
    """Height and width that a VVC stream states, its conformance window taken off.

    VTM's decoder writes bare samples, and nothing but the bitstream may tell the decoding side their shape.
    """
    import av

    with decoding("vtm"), av.open(io.BytesIO(data), format="vvc") as container:
        context = container.streams.video[0].codec_context
        height, width = context.height, context.width
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise BitstreamError(f"these {len(data)} bytes are not a VVC stream: they state a size of {height} x {width}")
    return height, width

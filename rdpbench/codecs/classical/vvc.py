"""VVC (H.266) intra, by VTM, its reference software, and by VVenC, an encoder that pip installs.

**VTM**, 4:4:4: the strongest classical point of comparison. https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM
(BSD-3). You bring the two programs and ``encoder_intra_vtm.cfg``, which lies in ``cfg/`` of the same source tree.

In the bitstream: the raw Annex B stream as VTM writes it (parameter sets, adaptation sets, one picture), nothing else.
The decoder learns the size of the picture from its sequence parameter set, which PyAV reads; the common wrapper
(CompressAI's, from which most published VTM curves come) passes it from the encoder's side. Other departures from it:

- RGB becomes full-range BT.709 YCbCr by rounding, not by truncation, in both directions. Truncating 8 bits caps RGB
  PSNR at 43.7 dB even without a codec, and costs half a dB at QP 27. CompressAI's stored curve predates that code: it
  scores against the converted input, so the loss of the conversion is not in it.
- Chroma is centred on 128 (512 at 10 bits), as ITU-T H.273 has it, where the wrapper has 127.5.
- ``input_depth=10`` (the default) hands VTM 10-bit planes, at which the conversion is lossless; 8 is what papers did.
- ``middle="half"`` centres chroma on 127.5 as the common wrapper does; with 8 bits that is the published protocol but
  for the rounding: ``codec=vtm-8bit``. ``truncate=true`` codes the truncated planes of the wrapper as well, so that its
  streams come out; what is decoded is still rounded: ``codec=vtm-compressai``.

**VVenC**, 4:2:0 at 10 bits, inside the FFmpeg that the imageio-ffmpeg wheel brings: the stand-in for VTM where that is
not at hand. https://github.com/fraunhoferhhi/vvenc (Clear BSD); decoded in process by FFmpeg through PyAV.

In the bitstream, in the common container: height and width of the image, and the Annex B stream (SPS, PPS, ALF
parameters, one picture). Access unit delimiter and HRD parameters, 18 bytes about timing that one picture has no use
for, are switched off.

Colour, ours at both ends: full-range BT.709 YCbCr at 10 bits, rounded. A chroma sample is the rounded mean of 2 x 2
(thus centred between them), and the decoder interpolates between the centres by the Catmull-Rom cubic. In PSNR over six
Kodak images at QP 22 and 37 that gains 1.24 and 0.16 dB over repeating samples, 0.34 and 0.02 dB over bilinear
interpolation, at equal bytes; without a codec the three give 46.6, 43.1 and 45.2 dB.

The encoder refuses odd sides and the smallest pictures: the image is padded by its last row and column to even sides of
16 or more, and cropped again. The size in the container is that of the image.

The stream leaves FFmpeg through a file: on stdout libvvenc prints its warnings into it, about 110 bytes of English.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.hashes import content_sha256
from rdpbench.assets.program import Argument, FFmpeg, In, Out, program_identity, require, run_program
from rdpbench.codecs.classical.ycbcr import Middle, av_coder, decode_picture, rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.codecs.container import MAX_SIDE, pack, unpack
from rdpbench.codecs.contract import Bitstream, ProgramCodec, Rate, Side, check_choice, decoding, option
from rdpbench.errors import BitstreamError, CoderFailed
from rdpbench.image import Image, check_image
from rdpbench.lazy import av
from rdpbench.needs import Binary, File, Package

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
        places = (encoder.parent / self.name, encoder.parent.parent / "cfg" / self.name)
        return next((place for place in places if place.is_file()), None)


CONFIG = BesideEncoder("encoder_intra_vtm.cfg", "RDPBENCH_VTM_CFG", PAGE)


@dataclass(frozen=True)
class VTM(ProgramCodec):
    """VVC intra by VTM.

    Encoding takes 10 to 120 CPU seconds for 768 x 512 pixels, the longer the lower the QP.
    """

    name = "vtm"
    rate = Rate("qp", 0, 63, rises=False)
    needs = (ENCODER, DECODER, CONFIG)

    qp: int = 37
    input_depth: int = option(10, (10, 8))
    """Bits of the planes that VTM is given and gives back, 8 or 10; inside it computes with 10."""
    middle: Middle = option("h273", ("h273", "half"))  # noqa: RUF009 - makes a field
    """Value of colourless chroma: ``h273`` is 2^(bits-1), ``half`` is half the largest sample."""
    truncate: bool = False
    """Drop the fractions of the planes instead of rounding them, before encoding."""
    chroma: str = option("4:4:4", ("4:4:4",))
    timeout_s: float = 7200

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("vtm", "truncate", self.truncate, [False, True] if self.middle == "half" else [False])

    def coder(self) -> dict[str, str]:
        pattern, config = r"Version (\S+)", require(CONFIG)
        return {
            "vtm-encoder": program_identity(require(ENCODER), ["--help"], pattern),
            "vtm-decoder": program_identity(require(DECODER), ["--help"], pattern),
            config.name: f"sha256:{content_sha256(config)}",
        }

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        height, width = check_image(image).shape[:2]
        planes = rgb_to_ycbcr(image, self.input_depth, "bt709", self.middle, self.truncate)
        arguments: list[Argument] = ["-i", In("in.yuv", planes.astype(self._sample()).tobytes())]
        arguments += ["-c", In("encoder_intra_vtm.cfg", require(CONFIG).read_bytes())]
        arguments += ["-q", str(round(self.qp)), "-o", "/dev/null", "-b", Out("out.bin")]
        arguments += f"-wdt {width} -hgt {height} -fr 1 -f 1 --InputChromaFormat=444".split()
        arguments += [f"--InputBitDepth={self.input_depth}", "--ConformanceWindowMode=1"]
        ran = run_program(require(ENCODER), arguments, self.timeout_s)
        return Bitstream.whole(ran.outputs["out.bin"], command=ran.command)

    def decode(self, data: bytes) -> Image:
        height, width = size_of_vvc(data)
        arguments: list[Argument] = ["-b", In("in.bin", data), "-o", Out("out.yuv"), "-d", str(self.input_depth)]
        raw = run_program(require(DECODER), arguments, self.timeout_s).outputs["out.yuv"]
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
    with decoding("vtm"), av.open(io.BytesIO(data), format="vvc") as container:
        context = container.streams.video[0].codec_context
        height, width = context.height, context.width
    if not 0 < height <= MAX_SIDE or not 0 < width <= MAX_SIDE:
        raise BitstreamError(f"these {len(data)} bytes are not a VVC stream: they state a size of {height} x {width}")
    return height, width


BITS = 10
SMALLEST = 16
"""libvvenc fails at 8 x 8; 16 is safe for every shape."""
WITHOUT_TIMING = "AccessUnitDelimiter=0:HrdParametersPresent=0"


FFMPEG = FFmpeg("encoder", "libvvenc")


@dataclass(frozen=True)
class VVenC(ProgramCodec):
    """VVC intra, 4:2:0, by libvvenc.

    >>> stream = VVenC(qp=37, preset="faster").encode(np.full((17, 33, 3), 128, np.uint8), Side())
    >>> VVenC(qp=37, preset="faster").decode(stream.data).shape
    (17, 33, 3)
    """

    name = "vvenc"
    rate = Rate("qp", 0, 63, rises=False)
    needs = (FFMPEG, Package("av"))

    qp: int = 37
    preset: str = option("slow", ("faster", "fast", "medium", "slow", "slower"))
    timeout_s: float = 1800

    def coder(self) -> dict[str, str]:
        return {"ffmpeg with libvvenc": FFMPEG.identity(), **av_coder()}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        height, width = check_image(image).shape[:2]
        tall, wide = coded_side(height), coded_side(width)
        padded = np.pad(image, ((0, tall - height), (0, wide - width), (0, 0)), mode="edge")
        luma, *chroma = rgb_to_ycbcr(padded, BITS, "bt709").astype(np.int64)
        raw = b"".join(plane.astype("<u2").tobytes() for plane in (luma, *map(halve, chroma)))
        source = f"-hide_banner -nostdin -loglevel error -f rawvideo -pix_fmt yuv420p10le -s {wide}x{tall} -r 1 -i"
        target = f"-frames:v 1 -c:v libvvenc -preset {self.preset} -qp {round(self.qp)} -qpa 0 -period 1 -threads 1"
        arguments: list[Argument] = [*source.split(), In("in.yuv", raw), *target.split()]
        arguments += ["-vvenc-params", WITHOUT_TIMING, "-f", "vvc", "-y", Out("out.266")]
        ran = run_program(FFMPEG.path(), arguments, self.timeout_s)
        return pack(height, width, {"vvc": ran.outputs["out.266"]}, command=ran.command)

    def decode(self, data: bytes) -> Image:
        height, width, (stream,) = unpack(data, 1)
        with decoding("vvenc"):
            luma, *chroma = decode_420(stream, coded_side(height), coded_side(width))
        planes = np.stack([luma, *map(double, chroma)]).astype(np.uint16)
        return ycbcr_to_rgb(planes[:, :height, :width], BITS, "bt709")


def coded_side(side: int) -> int:
    """The side that is coded for a side of the image.

    >>> coded_side(511), coded_side(5)
    (512, 16)
    """
    return max(side + side % 2, SMALLEST)


def decode_420(stream: bytes, height: int, width: int) -> list[NDArray[np.int64]]:
    """Y, Cb, Cr of the one picture in a VVC stream, the chroma planes at half size."""
    pixels, planes = decode_picture("vvenc", "vvc", stream)
    if (pixels, *planes[0].shape) != ("yuv420p10le", height, width):
        stream_is = f"{pixels} of {planes[0].shape[0]} x {planes[0].shape[1]}"
        raise BitstreamError(f"the container says 4:2:0, 10 bits, {height} x {width}; the stream is {stream_is}")
    return [plane.astype(np.int64) for plane in planes]


def halve(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rounded means of 2 x 2 samples of a plane with even sides.

    >>> halve(np.array([[0, 1], [2, 4]])).tolist()
    [[2]]
    """
    sums: NDArray[np.int64] = plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]
    return (sums + 2) >> 2


def double(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    """Interpolate to twice the size: Catmull-Rom at a quarter before and after each sample, edges repeated.

    In integers: the four weights are k/128 exactly, both directions together k/16384, and are rounded once.

    >>> double(np.array([[100, 200]]))[0].tolist()
    [93, 120, 180, 207]
    """
    doubled = _double_rows(_double_rows(plane).T).T
    return np.clip((doubled + (1 << 13)) >> 14, 0, 2**BITS - 1)


def _double_rows(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    height = len(plane)
    rows = np.pad(plane, ((2, 2), (0, 0)), mode="edge")
    around = [rows[shift : shift + height] for shift in range(5)]
    doubled = np.empty((2 * height, plane.shape[1]), np.int64)
    doubled[0::2] = -3 * around[0] + 29 * around[1] + 111 * around[2] - 9 * around[3]
    doubled[1::2] = -9 * around[1] + 111 * around[2] + 29 * around[3] - 3 * around[4]
    return doubled

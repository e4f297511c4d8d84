"""VVenC: VVC (H.266) intra, 4:2:0 at 10 bits, by the encoder inside the FFmpeg that the imageio-ffmpeg wheel brings.

https://github.com/fraunhoferhhi/vvenc (Clear BSD); decoded in process by FFmpeg's own VVC decoder through PyAV.
It needs nothing built and nothing downloaded by hand: the stand-in for VTM where that is not at hand.

In the bitstream, in the common container: height and width of the image, and the Annex B stream (SPS, PPS, ALF
parameters, one picture). Access unit delimiter and HRD parameters, 18 bytes about timing that one picture has no use
for, are switched off.

Colour, ours at both ends: full-range BT.709 YCbCr at 10 bits, rounded. VVenC takes only 4:2:0, so a chroma sample is
the rounded mean of 2 x 2 (thus centred between them), and the decoder interpolates between the centres by the
Catmull-Rom cubic. In PSNR over six Kodak images at QP 22 and 37 that gains 1.24 and 0.16 dB over repeating samples,
0.34 and 0.02 dB over bilinear interpolation, at equal bytes; without a codec the three give 46.6, 43.1 and 45.2 dB.

The encoder refuses odd sides and the smallest pictures: the image is padded by its last row and column to even sides of
16 or more, and cropped again. The size in the container is that of the image.

The stream leaves FFmpeg through a file, never through stdout: libvvenc prints its warnings there, and a stream that is
piped carries some 110 bytes of English text at its end, which decoders skip and a rate count includes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.classical.inprocess import check_choice, decode_picture, decoding
from rdpbench.codecs.classical.program import Argument, In, Out, check_timeout, identity, probe, run
from rdpbench.codecs.classical.ycbcr import rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Bitstream, Rate, Side
from rdpbench.errors import BitstreamError, MissingNeed
from rdpbench.image import Image, check_image
from rdpbench.needs import Need, Package

BITS = 10
SMALLEST = 16
"""libvvenc fails at 8 x 8; 16 is safe for every shape."""
WITHOUT_TIMING = "AccessUnitDelimiter=0:HrdParametersPresent=0"


@dataclass(frozen=True)
class FFmpegWithVVenC:
    """The program in the imageio-ffmpeg wheel, or the one that its variable IMAGEIO_FFMPEG_EXE names."""

    def path(self) -> Path:
        import imageio_ffmpeg

        try:
            return Path(imageio_ffmpeg.get_ffmpeg_exe())
        except RuntimeError as error:
            raise MissingNeed(f"imageio-ffmpeg has no ffmpeg program for this machine: {error}") from error

    def missing(self) -> str | None:
        absent = Package("imageio-ffmpeg").missing()
        if absent:
            return absent
        try:
            path = self.path()
        except MissingNeed as error:
            return str(error)
        if probe(path, ["-hide_banner", "-h", "encoder=libvvenc"], r"(Encoder libvvenc)") == "unknown":
            return f"{path} has no encoder libvvenc; type: unset IMAGEIO_FFMPEG_EXE; pip install -U imageio-ffmpeg"
        return None


FFMPEG = FFmpegWithVVenC()


@dataclass(frozen=True)
class VVenC:
    """VVC intra, 4:2:0, by libvvenc.

    >>> stream = VVenC(qp=37, preset="faster").encode(np.full((17, 33, 3), 128, np.uint8), Side())
    >>> VVenC(qp=37, preset="faster").decode(stream.data).shape
    (17, 33, 3)
    """

    rate: ClassVar[Rate] = Rate("qp", 0, 63, rises=False, points=(47, 42, 37, 32, 27, 22))
    needs: ClassVar[tuple[Need, ...]] = (FFMPEG, Package("av"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"timeout_s"})
    version: ClassVar[str] = "1"

    qp: int = 37
    preset: str = "slow"
    timeout_s: float = 1800

    def __post_init__(self) -> None:
        self.rate.check("vvenc", self.qp)
        check_choice("vvenc", "preset", self.preset, ["faster", "fast", "medium", "slow", "slower"])
        check_timeout("vvenc", self.timeout_s)

    def coder(self) -> dict[str, str]:
        import av

        avcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
        ffmpeg = identity(FFMPEG.path(), ["-version"], r"ffmpeg version (\S+)")
        return {"ffmpeg with libvvenc": ffmpeg, "av": av.__version__, "libavcodec": avcodec}

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
        ran = run(FFMPEG.path(), arguments, self.timeout_s)
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
        found = f"{pixels} of {planes[0].shape[0]} x {planes[0].shape[1]}"
        raise BitstreamError(f"the container says 4:2:0, 10 bits, {height} x {width}; the stream is {found}")
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
    limited: NDArray[np.int64] = np.clip((doubled + (1 << 13)) >> 14, 0, 2**BITS - 1)
    return limited


def _double_rows(plane: NDArray[np.int64]) -> NDArray[np.int64]:
    height = len(plane)
    rows = np.pad(plane, ((2, 2), (0, 0)), mode="edge")
    around = [rows[shift : shift + height] for shift in range(5)]
    doubled = np.empty((2 * height, plane.shape[1]), np.int64)
    doubled[0::2] = -3 * around[0] + 29 * around[1] + 111 * around[2] - 9 * around[3]
    doubled[1::2] = -9 * around[1] + 111 * around[2] + 29 * around[3] - 3 * around[4]
    return doubled

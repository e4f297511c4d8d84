"""Metrics of engineers that run in a program: libjxl's Butteraugli and SSIMULACRA 2, VMAF by an ffmpeg with libvmaf.

Version and sha256 of the program are in the key of each score, and the viewing condition is in the name.

**Butteraugli** (Alakuijala et al., Google): ``butteraugli_main`` of libjxl (BSD-3), which you bring: it is built where
``-DJPEGXL_ENABLE_DEVTOOLS=ON`` says so, and Debian's packages leave it out. A screen of 80 nits, its default for sRGB.
One call gives both numbers: the largest difference of the map, and its 3-norm as libjxl defines it (the mean of the
norms of 3, 6 and 12).

**SSIMULACRA 2** as libjxl's ``ssimulacra2`` prints it, rounding and all; `ssimulacra2` needs no program.

**VMAF** (Netflix): the ffmpeg of the imageio-ffmpeg wheel has libvmaf and its models. Model v0.6.1, a television of
1080 rows seen from three times its height; ``vmaf-neg`` (v0.6.1neg) gives no credit for sharpening. The image is one
frame of 8 bits, 4:2:0, BT.709 of limited range, as videos are. VMAF reads luma alone, which is rounded here once,
exactly; chroma is sent grey. One frame has no motion, and the model was made for videos: identical images score about
97, not 100.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rdpbench.assets.program import Argument, FFmpeg, In, program_identity, require, run_program
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import PairMetric, Prepared, by_name, check_original, check_pair, variant
from rdpbench.needs import Binary

TIMEOUT_S = 600
BUTTERAUGLI, SSIMULACRA2 = (
    Binary(name, variable, "https://github.com/libjxl/libjxl")
    for name, variable in (("butteraugli_main", "RDPBENCH_BUTTERAUGLI"), ("ssimulacra2", "RDPBENCH_SSIMULACRA"))
)
NITS, NORM = 80, 3
FFMPEG = FFmpeg("filter", "libvmaf")
LUMA = (2126, 7152, 722)
"""BT.709, in ten thousandths."""


class OfProgram(PairMetric):
    """A metric by a program that takes two files and prints a number."""

    needs: ClassVar[tuple[Any, ...]]
    minimum_side: ClassVar[int] = 8
    options: ClassVar[tuple[str, ...]] = ()
    printed: ClassVar[str]
    """A pattern of what the program prints, whose group is the score."""

    @classmethod
    def made_by(cls) -> str:
        """Version and sha256 of the program, for keys."""
        return "missing" if cls.needs[0].missing() else cls.identity()

    @classmethod
    def identity(cls) -> str:
        """The same of a program that is here; libjxl's tools state no version."""
        return program_identity(require(cls.needs[0]))

    def as_file(self, image: Image) -> bytes:
        """What the program reads of an image."""
        return as_ppm(image)

    def prepare(self, original: Image) -> Prepared[bytes]:
        """The original as a file. Raises `MetricError` for a side that is too short for the metric's scales."""
        return Prepared(check_original(original, self.name, self.minimum_side), self.as_file(original))

    def score(self, prepared: Prepared[bytes], reconstruction: Image) -> float:
        check_pair(prepared.original, reconstruction, self.name)
        said = self.run(prepared.original.shape[:2], prepared.content, self.as_file(reconstruction))
        match = re.search(self.printed, said)
        if match is None:
            raise MetricError(f"{self.name}: the program printed no score: {said[-200:]!r}")
        return float(match[1])

    def run(self, size: tuple[int, ...], original: bytes, reconstruction: bytes) -> str:  # noqa: ARG002 - a PPM says it
        """What it prints."""
        return _printed(require(self.needs[0]), self.options, original, reconstruction)


@lru_cache(maxsize=1)  # two numbers of Butteraugli's are asked for in turn
def _printed(program: Path, options: tuple[str, ...], original: bytes, reconstruction: bytes) -> str:
    files = [In("original.ppm", original), In("reconstruction.ppm", reconstruction)]
    return run_program(program, [*files, *options], TIMEOUT_S).stdout


class ButteraugliNorm(OfProgram):
    """The 3-norm of Butteraugli's map, 0 for identical images."""

    name = "butteraugli/3-norm/80-nits"
    source = "libjxl's butteraugli_main, 3-norm, screen of 80 nits"
    needs = (BUTTERAUGLI,)
    options = ("--intensity_target", str(NITS), "--pnorm", str(NORM))
    printed = rf"(?m)^{NORM}-norm: (\d\S*)"


ButteraugliMax = variant(
    ButteraugliNorm,
    "butteraugli/max/80-nits",
    source=ButteraugliNorm.source.replace("3-norm", "maximum"),
    printed=r"\A\s*(\d\S*)\s",
)


class SSIMULACRA2Program(OfProgram):
    """SSIMULACRA 2 as libjxl's program computes it in single precision, 100 for identical images."""

    name = "ssimulacra2/libjxl"
    higher_is_better = True
    bounds = (-np.inf, 100.0)
    source = "libjxl's ssimulacra2 (Sneyers 2023)"
    needs = (SSIMULACRA2,)
    printed = r"\A\s*(-?\d\S*)\s"


def as_ppm(image: Image) -> bytes:
    """A binary PPM, which has no colour profile: programs take it as sRGB.

    >>> as_ppm(np.zeros((1, 2, 3), np.uint8))
    b'P6 2 1 255\\n\\x00\\x00\\x00\\x00\\x00\\x00'
    """
    return f"P6 {image.shape[1]} {image.shape[0]} 255\n".encode() + np.ascontiguousarray(image).tobytes()


class VMAF(OfProgram):
    """VMAF of one frame, 0 to 100, about 97 for identical images."""

    name = "vmaf/1080p-3h/420-8bit-bt709-limited"
    higher_is_better = True
    bounds = (0.0, 100.0)
    source = "Netflix, VMAF v0.6.1 by libvmaf in ffmpeg; one frame, 8-bit 4:2:0, BT.709 limited range"
    needs = (FFMPEG,)
    minimum_side = 33  # below, a scale is empty, and identical images score 80 to 90
    printed = r"VMAF score: (\d\S*)"
    model: ClassVar[str] = "vmaf_v0.6.1"

    @classmethod
    def identity(cls) -> str:
        return FFMPEG.identity()

    def as_file(self, image: Image) -> bytes:
        return as_420(image)

    def run(self, size: tuple[int, ...], original: bytes, reconstruction: bytes) -> str:
        raw = f"-f rawvideo -pix_fmt yuv420p -s {size[1]}x{size[0]} -i".split()
        inputs: list[Argument] = [*raw, In("reconstruction.yuv", reconstruction), *raw, In("original.yuv", original)]
        graph = f"libvmaf=model=version={self.model}:n_threads=1"
        arguments: list[Argument] = ["-hide_banner", "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"]
        return run_program(FFMPEG.path(), arguments, TIMEOUT_S).stderr


NEG = variant(
    VMAF,
    VMAF.name.replace("vmaf", "vmaf-neg"),
    source=VMAF.source.replace("0.6.1", "0.6.1neg"),
    model="vmaf_v0.6.1neg",
)

METRICS = by_name(ButteraugliNorm, ButteraugliMax, SSIMULACRA2Program, VMAF, NEG)


def as_420(image: Image) -> bytes:
    """Planes of 8-bit 4:2:0: luma of BT.709 in limited range, rounded; chroma grey.

    >>> list(as_420(np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8)))
    [235, 16, 128, 128]
    """
    height, width = image.shape[:2]
    sums = 219 * (image.astype(np.int32) @ np.array(LUMA, np.int32))
    scale = 255 * sum(LUMA)
    luma = (16 + (2 * sums + scale) // (2 * scale)).astype(np.uint8)
    return luma.tobytes() + bytes([128]) * (2 * ((height + 1) // 2) * ((width + 1) // 2))

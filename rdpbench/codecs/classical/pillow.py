"""JPEG, JPEG 2000 and WebP through Pillow, JPEG by mozjpeg too; and what codecs inside Python libraries share.

**JPEG**, baseline, 8 bit (ITU-T T.81 | ISO/IEC 10918-1), by libjpeg-turbo. Bitstream: the JFIF file as written, with
its quantiser and Huffman tables (about 600 bytes) and without metadata.

With its defaults it writes the bytes of CompressAI's benchmark: ``Image.save(format="JPEG", quality=q)``, that is 4:2:0
and the standard Huffman tables. ``optimize`` computes the tables for the image and writes a progressive file: 4 % fewer
bytes for the same pixels at quality 75, 40 % at quality 1. ``chroma="4:4:4"`` is the fairer choice against codecs that
keep full colour.

``mozjpeg`` is a slower encoder of the same format, inside libvips, through pyvips: about half the bytes at low rate, by
trellis quantisation, progressive scans chosen by size, deringing at clipped edges, Huffman tables made for the image,
and N. Robidoux's quantiser table (mozjpeg's own default), which is flat enough to reach 0.06 bpp where the standard
tables stop at 0.18. Pillow decodes. Its quality scale is not that of plain JPEG: compare curves.

**JPEG 2000** (ITU-T T.800 | ISO/IEC 15444-1) by OpenJPEG. Irreversible 9/7 wavelet, irreversible colour transform
(4:4:4), one quality layer, one tile. The rate axis is exact rate control: ``ratio`` is the compression ratio against 24
bits per pixel, so ``ratio=240`` asks for 0.1 bpp. Every image gets nearly the same bytes, where other codecs give every
image nearly the same quality: compare per image.

Bitstream: the raw codestream. The JP2 boxes around it (85 bytes) and OpenJPEG's comment with its own name (33 bytes)
are left out; they say nothing a decoder needs. The header of about 150 bytes stays: small images and extreme ratios get
more bytes than they asked for.

**WebP**, lossy (RFC 9649: a VP8 key frame in RIFF), by libwebp. With the defaults the bytes are those of CompressAI's
benchmark: ``Image.save(format="WEBP", quality=q)``, method 4; its published Kodak curve is reproduced to the last byte.
Lossy WebP is always 4:2:0 and 8 bit, and its luma keeps only 16..235, which bounds the quality it can reach. It stops
near 0.12 bpp. Bitstream: the file as written (20 to 30 bytes of RIFF, no ICC, no EXIF).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.contract import Bitstream, CheckedOptions, Rate, Side, decoding, encoding, option
from rdpbench.errors import BitstreamError, MissingNeed, UnsupportedImage
from rdpbench.image import Image, check_image
from rdpbench.lazy import pil
from rdpbench.needs import Need, Package, package_version


def check_sides(codec: str, image: Image, low: int, high: int) -> None:
    """Raise `UnsupportedImage` unless height and width are in ``low..high``."""
    height, width = check_image(image).shape[:2]
    if not low <= min(height, width) <= max(height, width) <= high:
        raise UnsupportedImage(f"{codec} takes sides of {low} to {high} pixels; the image is {width} x {height}")


def check_pixels(codec: str, pixels: NDArray[Any]) -> Image:
    """Return what a library decoded if it is an image as we encode them: grey, alpha or 16 bit only come by damage."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise BitstreamError(f"not a {codec} bitstream of ours: its pixels are {pixels.dtype} {pixels.shape}")
    return pixels


def pillow_encode(codec: str, file_format: str, image: Image, mode: str = "RGB", /, **options: object) -> bytes:
    """The bytes of a file that Pillow writes.

    The Pillow image is made from the array: nothing of the source file's ICC profile, EXIF or alpha can come along.
    Mode "RGBA" hands an opaque image over.
    """
    buffer = BytesIO()
    with encoding(codec):
        pil.fromarray(check_image(image)).convert(mode).save(buffer, format=file_format, **options)
    return buffer.getvalue()


def pillow_decode(codec: str, file_format: str, data: bytes) -> Image:
    """The pixels of a file that `pillow_encode` wrote."""
    with decoding(codec), warnings.catch_warnings():
        # A damaged size must not become an allocation; damaged metadata, of which we write none, are no news.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", pil.DecompressionBombWarning)
        with pil.open(BytesIO(data), formats=[file_format]) as opened:
            opened.load()
            return check_pixels(codec, np.array(opened))


class PillowCodec(CheckedOptions):
    """A format that Pillow writes and reads; its bitstream is the file as written."""

    needs: ClassVar[tuple[Need, ...]] = (Package("pillow", module="PIL"),)
    format: ClassVar[str]
    """Pillow's name of it."""
    libraries: ClassVar[tuple[tuple[str, str], ...]]
    """What codes inside Pillow, with the name that ``PIL.features`` has for it."""
    largest: ClassVar[int] = (1 << 32) - 1
    mode: ClassVar[str] = "RGB"

    def saved(self) -> dict[str, Any]:
        """What Pillow is told when it writes."""
        return {}

    def coder(self) -> dict[str, str]:
        import PIL
        from PIL import features

        versions = {name: str(features.version(feature)) for name, feature in self.libraries}
        return {"pillow": PIL.__version__, **versions}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_sides(self.name, image, 1, self.largest)
        return Bitstream.whole(pillow_encode(self.name, self.format, image, self.mode, **self.saved()))

    def decode(self, data: bytes) -> Image:
        return pillow_decode(self.name, self.format, data)


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
MOZJPEG_OPTIONS: dict[str, Any] = {
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
        return {"quant_table": TABLE, **MOZJPEG_OPTIONS}

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - the contract's signature
        check_sides("mozjpeg", image, 1, JPEG.largest)
        with encoding("mozjpeg"):
            return Bitstream.whole(_save(_vips(), image, self.quality, SUBSAMPLE[self.chroma], TABLE))


def _save(vips: Any, image: Image, quality: int, subsample: str, table: int) -> bytes:
    height, width = image.shape[:2]
    picture = vips.Image.new_from_memory(np.ascontiguousarray(image).tobytes(), width, height, 3, "uchar")
    picture = picture.copy(interpretation="srgb")
    return picture.jpegsave_buffer(Q=quality, subsample_mode=subsample, quant_table=table, **MOZJPEG_OPTIONS)


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


OPENJPEG_OPTIONS: dict[str, Any] = {"no_jp2": True, "quality_mode": "rates", "irreversible": True, "mct": 1}
"""What OpenJPEG is given at any ratio."""


@dataclass(frozen=True)
class JPEG2000(PillowCodec):
    """JPEG 2000 through Pillow.

    >>> stream = JPEG2000(ratio=24).encode(np.full((16, 16, 3), 128, np.uint8), Side())
    >>> int(JPEG2000(ratio=24).decode(stream.data)[0, 0, 0])
    128
    """

    name = "jpeg2000"
    rate = Rate("ratio", 1, 5000, step=0, rises=False)
    format = "JPEG2000"
    libraries = (("openjpeg", "jpg_2000"),)

    ratio: float = 24.0
    """Raw bytes (3 per pixel) over coded bytes."""

    def settings(self) -> dict[str, Any]:
        return OPENJPEG_OPTIONS

    def saved(self) -> dict[str, Any]:
        # The comment is an empty C string; without one OpenJPEG writes its name.
        return {"quality_layers": [float(self.ratio)], "comment": b"\0", **OPENJPEG_OPTIONS}


@dataclass(frozen=True)
class WebP(PillowCodec):
    """Lossy WebP through Pillow.

    >>> len(WebP(quality=50).encode(np.full((16, 16, 3), 128, np.uint8), Side()).data)
    44
    """

    name = "webp"
    rate = Rate("quality", 0, 100)
    format = "WEBP"
    libraries = (("libwebp", "webp"),)
    largest = 16383

    quality: int = 80
    method: int = option(4, range(7))
    """Effort, 0 to 6. Six saves 6 % at the lowest quality and hardly any at others, in twice the time."""

    def saved(self) -> dict[str, Any]:
        return {"quality": self.quality, "method": self.method}

"""Images as rdpbench sees them: ``uint8 (H, W, 3)`` sRGB, read one way, rounded one way, hashed one way.

What reading does, so that a number can be traced to pixels:

================  =====================================================================
file              becomes
================  =====================================================================
RGB, 8 bit        its pixel values
grey, palette     three equal channels; the palette's colours
alpha             dropped where opaque; elsewhere composited over white
16 bit            ``floor(v / 257 + 0.5)``: the full range maps to the full range
other depths      8 bit as they stand for (1, 2, 4 bits); 12 or 32 bits and floats refused
CMYK, YCCK        Pillow's plain conversion, without a colour profile
ICC profile       dropped: the stored values count as sRGB, as papers' loaders do
orientation       ignored, whatever the format: the stored grid is the image
PNG's gAMA, cICP  not applied: the stored values count as sRGB
animation         refused; of a TIFF of several pages and of an MPO, the first image
damage            refused as far as it can be seen, see `rdpbench.image_files`
other formats     refused
================  =====================================================================
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ImageError, few
from rdpbench.image_files import Damaged, check_damage, remarks, without_orientation
from rdpbench.lazy import pil

if TYPE_CHECKING:
    import PIL.ImageFile

Image: TypeAlias = NDArray[np.uint8]
"""``uint8 (H, W, 3)``, sRGB."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM", "GIF")
"""What is read, as Pillow names it; decided by a file's content, whatever its name says."""
EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".gif"}
)
"""File name endings (lower case) that a folder of images is searched for."""
OTHER_EXTENSIONS = frozenset(
    re.findall(
        r"\.\w+",
        """
        .apng .mpo .dib .pam .pfm .avif .avifs .heic .heics .heif .heifs .hif .jxl .jp2 .j2k .j2c .jpc .jpf .jpx .jpm
        .jph .jxr .wdp .hdp .jls .jif .jfi .svg .svgz .eps .psd .psb .xcf .kra .exr .hdr .pic .dds .tga .pcx .ico .icns
        .cur .sgi .rgb .qoi .bpg .flif .fits .dcm .dng .cr2 .cr3 .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .srw .raw
        .iiq .3fr .x3f
        """,
    )
)
"""Endings of images that are not read: a folder names them, so that nobody takes them for measured."""


@dataclass(frozen=True)
class Loaded:
    """An image with what its file was."""

    pixels: Image
    mode: str
    """How the file stored it, as Pillow names it (``RGB``, ``L``, ``I;16``, ``CMYK`` ...), and `remarks`."""
    source_height: int
    """Of the file, before any protocol."""
    source_width: int


def read_image(path: Path) -> Loaded:
    """Read an image file to ``uint8 (H, W, 3)`` by the rules at the top of this module.

    Raises:
        ImageError: the file is missing, empty, no image, of a format that is not read, damaged or animated.
    """
    with open_image(path) as (opened, data):
        frames = getattr(opened, "n_frames", 1) if opened.format not in ("TIFF", "MPO") else 1
        if frames > 1:
            raise ImageError(f"{path} is an animation of {frames} frames; give single images")
        if _is_deep_colour(path, opened, data):
            pixels, mode = _deep_colour(opened, data), f"{opened.mode};16"
        else:
            mode = opened.mode
            opened.load()
            if (opened.format, mode) == ("PNG", "L") and data[24] < 8 and "transparency" in opened.info:
                # Pillow spreads grey of few bits over 0 to 255, but not the one that is transparent.
                opened.info["transparency"] *= 255 // (2 ** data[24] - 1)
            pixels = _to_rgb8(opened)
        height, width = pixels.shape[:2]
        return Loaded(pixels, mode + remarks(opened, data), height, width)


@contextmanager
def open_image(path: Path) -> Iterator[tuple[PIL.ImageFile.ImageFile, bytes]]:
    """Open a file with Pillow as the grid that it stores, after a look for damage; gives its bytes as well.

    Everything in rdpbench that wants a file's pixels opens it here, label maps too; `ImageError` as in `read_image`.
    """
    if not path.is_file():
        raise ImageError(f"no such image: {path}")
    try:
        data = path.read_bytes()
        if not data:
            raise ImageError(f"{path} is empty (0 bytes)")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pil.DecompressionBombWarning)
            # Pillow first: it refuses a size that no memory holds.
            with _open_stored(data) as opened:
                check_damage(data)
                yield opened, data
    except ImageError:
        raise
    except Damaged as error:
        raise ImageError(
            f"cannot read {path}, it is damaged: {error}; get it again, leave it out, or save what is shown as PNG"
        ) from error
    except Exception as error:  # damage trips Pillow's parsers in many ways
        raise ImageError(f"cannot read {path} as an image: {type(error).__name__}: {error}") from error


def check_names(paths: Iterable[Path]) -> None:
    """Raise `ImageError` for paths that are not UTF-8: no manifest, row or report can hold them.

    >>> check_names([Path("café.png")])
    """
    wrong = [os.fsencode(path) for path in paths if re.search("[\ud800-\udfff]", str(path))]
    if wrong:
        raise ImageError(
            f"the names of {len(wrong)} files are not UTF-8: {few(map(repr, wrong), 3)}; "
            "rename them, such as with `convmv -f latin1 -t utf8`"
        )


def read_header(path: Path) -> tuple[str, int, int]:
    """A file's format as Pillow names it, and the height and width of the grid that it stores; nothing is decoded."""
    try:
        with path.open("rb") as file:
            is_tiff = file.read(2) in (b"II", b"MM")
        with _open_stored(path.read_bytes() if is_tiff else path) as opened:
            return opened.format or "", opened.height, opened.width
    except Exception as error:  # damage trips Pillow's parsers in many ways
        raise ImageError(f"cannot read {path} as an image: {type(error).__name__}: {error}") from error


def _open_stored(source: bytes | Path) -> PIL.ImageFile.ImageFile:
    from PIL import UnidentifiedImageError

    def opener() -> Path | BytesIO:
        return BytesIO(source) if isinstance(source, bytes) else source

    try:
        # Pillow turns a TIFF by its tag while it decodes, and scrambles it on some paths: the tag must not be there.
        if isinstance(source, bytes) and source[:2] in (b"II", b"MM"):
            opened = pil.open(BytesIO(without_orientation(source)), formats=FORMATS)
            opened.info.pop("xmp", None)  # which may hold the tag too
            return opened
        return pil.open(opener(), formats=FORMATS)
    except UnidentifiedImageError:
        if isinstance(source, bytes) and not source.startswith(b"\xff\xd8"):
            check_damage(source)  # it may say what Pillow does not; of a JPEG no size was refused yet
    try:
        with pil.open(opener()) as other:
            what = f"it is {other.format}"
    except Exception:  # whatever it is, Pillow does not know it
        what = "its format is unknown"
    raise ValueError(f"{what}; rdpbench reads {', '.join(FORMATS)}: convert it to PNG")


def _is_deep_colour(path: Path, opened: PIL.ImageFile.ImageFile, data: bytes) -> bool:
    """Does a file hold more than one channel of 16 bits? Pillow would cut them to their high bytes without a word."""
    if opened.format == "PNG":
        header = data[24:26]  # of IHDR: bit depth and colour type
        return header[0] == 16 and header[1] != 0
    if opened.format == "TIFF":
        from PIL.TiffImagePlugin import TiffImageFile

        assert isinstance(opened, TiffImageFile)
        bits = set(opened.tag_v2.get(258, (1,)))
        photometric, channels = opened.tag_v2.get(262), opened.tag_v2.get(277, 1)
        kinds = set(opened.tag_v2.get(339, (1,)))
        if kinds - {1, 4}:  # Pillow takes signed bytes for unsigned ones
            raise ImageError(f"{path} is a TIFF of signed numbers or floats (SampleFormat {kinds}): convert it to PNG")
        if max(bits) > 8 and (bits != {16} or (photometric, channels) not in ((1, 1), (2, 3))):
            raise ImageError(
                f"{path} is a TIFF of {channels} channels of {'/'.join(map(str, sorted(bits)))} bits (photometric "
                f"{photometric}); rdpbench reads 8 bits, and 16 bits in grey or RGB: convert it to PNG"
            )
        return bits == {16} and channels > 1
    return False


def _deep_colour(opened: PIL.ImageFile.ImageFile, data: bytes) -> Image:
    import imagecodecs
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(opened, TiffImageFile):
        values = imagecodecs.tiff_decode(without_orientation(data), index=0)
        if opened.tag_v2.get(284) == 2:  # PlanarConfiguration: plane by plane
            values = np.moveaxis(values, 0, 2)
    else:
        values = imagecodecs.png_decode(data)
    assert values.dtype == np.uint16
    colour = values.astype(np.float64)
    if values.shape[2] in (2, 4):
        alpha = colour[:, :, -1:] / 65535
        colour = colour[:, :, :-1] * alpha + 65535 * (1 - alpha)
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    rounded: Image = np.floor(colour / 257 + 0.5).astype(np.uint8)
    return rounded


def _to_rgb8(opened: object) -> Image:
    assert isinstance(opened, pil.Image)
    if opened.mode.startswith("I") or opened.mode == "F":
        values = np.asarray(opened, dtype=np.float64)
        if opened.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"mode {opened.mode} holds values outside 0..65535; convert it to 8 or 16 bit first")
        clear = opened.info.get("transparency")
        if isinstance(clear, int):
            values = np.where(values == clear, 65535, values)
        grey = np.floor(values / 257 + 0.5).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if opened.has_transparency_data:
        rgba = opened.convert("RGBA")
        over = pil.alpha_composite(pil.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
        return np.array(over.convert("RGB"))
    return np.array(opened if opened.mode == "RGB" else opened.convert("RGB"))


def to_uint8(unit: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round values of [0, 1] to 8 bits: ``floor(255 * clip(x, 0, 1) + 0.5)``. The only such rule in the project.

    >>> to_uint8(np.array([-0.1, 0.5, 0.4 / 255, 2.0])).tolist()
    [0, 128, 0, 255]
    """
    scaled = np.clip(unit.astype(np.float64), 0, 1) * 255
    rounded: NDArray[np.uint8] = np.floor(scaled + 0.5).astype(np.uint8)
    return rounded


def as_image(given: object, what: str = "image") -> Image:
    """The pixels of what a program holds, ``uint8 (H, W, 3)``.

    Args:
        given: a path, read by the rules at the top; a Pillow image, by the same rules; an array ``(H, W, 3)`` or a
            torch tensor ``(3, H, W)``, of ``uint8``, or of floats in [0, 1], which `to_uint8` rounds.
        what: begins the error.

    Raises:
        ImageError: anything else. Of three things nobody can tell: that channels are blue, green, red, that floats are
            of another range if they happen to lie in [0, 1], and that a copy of a Pillow image had 16 bits once.

    >>> as_image(np.full((2, 3, 3), 0.5))[0, 0].tolist()
    [128, 128, 128]
    """
    if isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        if path.is_dir():
            raise ImageError(f"{what} is the folder {given}; give a list of its files")
        return read_image(path).pixels
    if (pillow := sys.modules.get("PIL.Image")) and isinstance(given, pillow.Image):
        return _of_pillow(given, what)
    torch = sys.modules.get("torch")
    planes = torch is not None and isinstance(given, torch.Tensor)
    if planes:
        given = _of_tensor(given, what)
    if isinstance(given, np.ma.MaskedArray):
        raise ImageError(f"{what} is a masked array, and all pixels are scored; give .filled(VALUE), or cut it out")
    if not isinstance(given, np.ndarray):
        kinds = "a path, a Pillow image, an array (H, W, 3), or a tensor (3, H, W); for several a list or a batch"
        raise ImageError(f"{what} is a {type(given).__name__}; give {kinds}")
    first, last = (given.shape[0], given.shape[-1]) if given.ndim == 3 else (1, 1)
    channels, other = (first, last) if planes else (last, first)
    if given.ndim != 3 or channels != 3:
        order = f"; write .{'permute(2, 0, 1)' if planes else 'transpose(1, 2, 0)'}" if other == 3 else ""
        grey = "; repeat grey to three channels" if channels == 1 and given.ndim < 4 else order
        hint = "; drop alpha, or lay the image over white, as is done with files" if channels == 4 else grey
        layout = "a tensor (3, H, W)" if planes else "an array (H, W, 3)"
        raise ImageError(f"{what} must be {layout}, found {given.shape}{hint}")
    if np.issubdtype(given.dtype, np.floating):
        low, high = float(given.min(initial=0)), float(given.max(initial=0))
        if not (low >= 0 and high <= 1):
            hint = "divide by 255" if high > 2 else ".clip(0, 1) cuts what a network overshoots"
            hint = "write (x + 1) / 2 if they are in [-1, 1]" if low < -0.5 else hint
            hint = "find out where NaN is from" if np.isnan(low) else hint
            raise ImageError(f"{what} has floats from {low:g} to {high:g}, and they must be in [0, 1]; {hint}")
        given = to_uint8(given)
    elif given.dtype != np.uint8:
        raise ImageError(f"{what} is of {given.dtype}; give uint8, or floats in [0, 1]")
    pixels = given.transpose(1, 2, 0) if planes else given
    # Contiguous and writable, as decoders give them: torch takes no others without a word.
    return check_image(np.require(pixels, np.uint8, ["C", "W"]), what)


def _of_pillow(image: Any, what: str) -> Image:
    if _is_cut(image):
        raise ImageError(f"{what} has 16 bits, of which Pillow keeps the high ones in colour; give the file's path")
    if image.mode == "I" and image.format is None:  # of a file it is 0 to 65535
        raise ImageError(f"{what} is a Pillow image of mode I, whose range nobody knows; convert it to L or I;16")
    try:
        return check_image(_to_rgb8(image), what)
    except (ValueError, OSError) as error:  # a mode that is not read, or a file that is read only now
        raise ImageError(f"{what} is a Pillow image of mode {image.mode} that cannot be read: {error}") from error


def _of_tensor(tensor: Any, what: str) -> Any:
    try:
        return (tensor.double() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantized, nested, without data ...
        kind = f"{tensor.layout} tensor of {tensor.dtype} on {tensor.device}"
        raise ImageError(f"{what} is a {kind}; give a dense one, of uint8, or floats in [0, 1]") from error


def _is_cut(image: Any) -> bool:
    """Did or will Pillow cut colour of 16 bits? It says how it decodes until it did; then the file may say it."""
    if image.mode.startswith("I") or not hasattr(image, "tile"):
        return False
    if any(";16" in str(tile[3]) for tile in image.tile):
        return True
    file = Path(str(image.filename or ""))
    if image.tile or not file.is_file():
        return False
    with pil.open(file) as again:
        return bool(again.tile) and _is_cut(again)


def check_image(image: Image, what: str = "image", error: type[Exception] = ImageError) -> Image:
    """Return ``image`` if it is ``uint8 (H, W, 3)`` with at least one pixel; raise ``error`` naming what it is.

    A subclass of arrays comes back as a plain one: it could compare and subtract as it likes.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise error(f"{what} must be uint8 (H, W, 3), found {given}")
    if 0 in image.shape:
        raise error(f"{what} has no pixels: {image.shape}")
    return image if type(image) is np.ndarray else np.array(image)


def lent(image: Image) -> Image:
    """A copy for code that is not ours: what it writes there, past the read-only flag too, reaches nobody else."""
    copy = image.copy()
    copy.flags.writeable = False
    return copy


def is_untouched(copy: Image, image: Image) -> bool:
    """Does a copy that was lent still hold the pixels of the image?

    >>> image = np.zeros((2, 3, 3), np.uint8)
    >>> is_untouched(lent(image), image), is_untouched(image + np.uint8(1), image)
    (True, False)
    """
    if copy.shape != image.shape or copy.dtype != image.dtype:
        return False
    if not (copy.flags.c_contiguous and image.flags.c_contiguous):
        return np.array_equal(copy, image)
    # A third of the time of `array_equal`, and this is asked several times for each image.
    return int(_memcmp(copy.ctypes.data, image.ctypes.data, image.nbytes)) == 0


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def pixel_sha256(image: Image) -> str:
    """Hash of the pixels alone: sha256 over height, width (uint32, big endian) and the RGB bytes, row by row.

    >>> pixel_sha256(np.zeros((2, 3, 3), np.uint8))[:12]
    '045811a72b23'
    """
    digest = hashlib.sha256(struct.pack(">II", image.shape[0], image.shape[1]))
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()

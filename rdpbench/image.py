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
EXIF orientation  ignored: the stored grid is the image
animation         refused; of a TIFF of several pages and of an MPO, the first image
================  =====================================================================
"""

from __future__ import annotations

import hashlib
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ImageError

if TYPE_CHECKING:
    import PIL.ImageFile

Image: TypeAlias = NDArray[np.uint8]
"""``uint8 (H, W, 3)``, sRGB."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif"})
"""File name endings (lower case) that a folder of images is searched for."""


@dataclass(frozen=True)
class Loaded:
    """An image with what its file was."""

    pixels: Image
    mode: str
    """How the file stored it, as Pillow names it (``RGB``, ``L``, ``I;16``, ``CMYK`` ...), ``+icc`` if tagged."""
    source_height: int
    """Of the file, before any protocol."""
    source_width: int


def read_image(path: Path) -> Loaded:
    """Read an image file to ``uint8 (H, W, 3)`` by the rules at the top of this module.

    Raises:
        ImageError: the file is missing, empty, no image, damaged or animated.
    """
    from PIL import Image as pil

    if not path.is_file():
        raise ImageError(f"no such image: {path}")
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pil.DecompressionBombWarning)
            with pil.open(path) as opened:
                frames = getattr(opened, "n_frames", 1)
                if frames > 1 and opened.format not in ("TIFF", "MPO"):
                    raise ImageError(f"{path} is an animation of {frames} frames; give single images")
                tagged = "+icc" if opened.info.get("icc_profile") else ""
                if _is_deep_colour(path, opened):
                    return _loaded(_deep_colour(path, opened), f"{opened.mode};16{tagged}")
                mode = opened.mode
                opened.load()
                return _loaded(_to_rgb8(opened), mode + tagged)
    except ImageError:
        raise
    except Exception as error:  # damage trips Pillow's parsers in many ways
        raise ImageError(f"cannot read {path} as an image: {type(error).__name__}: {error}") from error


def _loaded(pixels: Image, mode: str) -> Loaded:
    height, width = pixels.shape[:2]
    return Loaded(pixels, mode, height, width)


def _is_deep_colour(path: Path, opened: PIL.ImageFile.ImageFile) -> bool:
    """Does a file hold more than one channel of 16 bits? Pillow would cut them to their high bytes without a word."""
    if opened.format == "PNG":
        header = path.read_bytes()[24:26]  # of IHDR: bit depth and colour type
        return header[0] == 16 and header[1] != 0
    if opened.format == "TIFF":
        from PIL.TiffImagePlugin import TiffImageFile

        assert isinstance(opened, TiffImageFile)
        bits = set(opened.tag_v2.get(258, (1,)))
        photometric, channels = opened.tag_v2.get(262), opened.tag_v2.get(277, 1)
        if max(bits) > 8 and (bits != {16} or (photometric, channels) not in ((1, 1), (2, 3))):
            raise ImageError(
                f"{path} is a TIFF of {channels} channels of {'/'.join(map(str, sorted(bits)))} bits (photometric "
                f"{photometric}); read are 8 bits, and 16 bits in grey or RGB: convert it to PNG"
            )
        return bits == {16} and channels > 1
    return False


def _deep_colour(path: Path, opened: PIL.ImageFile.ImageFile) -> Image:
    import imagecodecs
    from PIL.TiffImagePlugin import TiffImageFile

    if isinstance(opened, TiffImageFile):
        values = imagecodecs.tiff_decode(path.read_bytes(), index=0)
        if opened.tag_v2.get(284) == 2:  # PlanarConfiguration: plane by plane
            values = np.moveaxis(values, 0, 2)
    else:
        values = imagecodecs.png_decode(path.read_bytes())
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
    from PIL import Image as pil

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
    return np.array(opened.convert("RGB"))


def to_uint8(unit: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Round values of [0, 1] to 8 bits: ``floor(255 * clip(x, 0, 1) + 0.5)``. The only such rule in the project.

    >>> to_uint8(np.array([-0.1, 0.5, 0.4 / 255, 2.0])).tolist()
    [0, 128, 0, 255]
    """
    scaled = np.clip(unit.astype(np.float64), 0, 1) * 255
    rounded: NDArray[np.uint8] = np.floor(scaled + 0.5).astype(np.uint8)
    return rounded


def check_image(image: Image, what: str = "image") -> Image:
    """Return ``image`` if it is ``uint8 (H, W, 3)`` with at least one pixel; raise `ImageError` naming what it is."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"{what} must be uint8 (H, W, 3), found {found}")
    if 0 in image.shape:
        raise ImageError(f"{what} has no pixels: {image.shape}")
    return image


def pixel_sha256(image: Image) -> str:
    """Hash of the pixels alone: sha256 over height, width (uint32, big endian) and the RGB bytes, row by row.

    >>> pixel_sha256(np.zeros((2, 3, 3), np.uint8))[:12]
    '045811a72b23'
    """
    digest = hashlib.sha256(struct.pack(">II", image.shape[0], image.shape[1]))
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()

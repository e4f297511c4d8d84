"""What the in-process codecs share: checked options, clean Pillow images, library errors turned into ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import BitstreamError, CoderFailed, ConfigError, RdpbenchError, UnsupportedImage
from rdpbench.image import Image, check_image


def check_choice(codec: str, option: str, value: object, choices: Iterable[object]) -> None:
    """Raise `ConfigError` that lists the choices, unless ``value`` is one of them.

    >>> check_choice("jpeg", "chroma", "4:1:1", ["4:4:4", "4:2:0"])
    Traceback (most recent call last):
    rdpbench.errors.ConfigError: jpeg: chroma='4:1:1' is not legal; choose from '4:4:4', '4:2:0'
    """
    known = list(choices)
    if value not in known:
        legal = ", ".join(repr(choice) for choice in known)
        raise ConfigError(f"{codec}: {option}={value!r} is not legal; choose from {legal}")


def check_sides(codec: str, image: Image, low: int, high: int) -> None:
    """Raise `UnsupportedImage` unless height and width are in ``low..high``."""
    height, width = check_image(image).shape[:2]
    if not low <= min(height, width) <= max(height, width) <= high:
        raise UnsupportedImage(f"{codec} holds sides of {low} to {high} pixels; the image is {width} x {height}")


def check_x265(codec: str, image: Image, low: int) -> None:
    """Raise `UnsupportedImage` unless x265 takes these sides.

    The decoders in use stop at 16384 or a little above. Under 32 pixels x265 codes with trees of 16 x 16, which the
    levels of HEVC that allow more than 4222 pixels on the other side forbid.
    """
    check_sides(codec, image, low, 16384)
    height, width = image.shape[:2]
    if min(height, width) < 32 and max(height, width) > 4096:
        raise UnsupportedImage(
            f"{codec} holds strips narrower than 32 only up to 4096; the image is {width} x {height}"
        )


@contextmanager
def encoding(codec: str) -> Iterator[None]:
    """Whatever a library raises while it encodes is a `CoderFailed` that quotes it."""
    try:
        yield
    except RdpbenchError:
        raise
    except Exception as error:
        raise CoderFailed(f"{codec} could not encode: {type(error).__name__}: {error}") from error


@contextmanager
def decoding(codec: str) -> Iterator[None]:
    """Whatever a library raises while it decodes is a `BitstreamError`: damage trips parsers in many ways."""
    try:
        yield
    except RdpbenchError:
        raise
    except Exception as error:
        raise BitstreamError(f"not a {codec} bitstream, or damaged: {type(error).__name__}: {error}") from error


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
    from PIL import Image as pil

    buffer = BytesIO()
    with encoding(codec):
        pil.fromarray(check_image(image)).convert(mode).save(buffer, format=file_format, **options)
    return buffer.getvalue()


def pillow_decode(codec: str, file_format: str, data: bytes) -> Image:
    """The pixels of a file that `pillow_encode` wrote."""
    from PIL import Image as pil

    with decoding(codec), warnings.catch_warnings():
        # A damaged size must not become an allocation; damaged metadata, of which we write none, are no news.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", pil.DecompressionBombWarning)
        with pil.open(BytesIO(data), formats=[file_format]) as opened:
            opened.load()
            return check_pixels(codec, np.array(opened))


PICTURE_OPTIONS = {"max_pixels": str(1 << 27), "err_detect": "explode"}
"""For FFmpeg's decoders: a damaged size must not become an allocation; errors that they notice shall be errors."""


def decode_picture(codec: str, decoder: str, stream: bytes) -> tuple[str, list[NDArray[np.integer[Any]]]]:
    """FFmpeg's pixel format of the one picture in a stream, and its planes: ``uint8``, or ``uint16`` above 8 bits.

    ``decoder`` is FFmpeg's name of one, such as ``hevc``; it runs with one thread.
    """
    import av

    context = av.VideoCodecContext.create(decoder, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    context.options = PICTURE_OPTIONS
    frames = [*context.decode(av.Packet(stream)), *context.decode(None)]
    if len(frames) != 1:
        raise BitstreamError(f"a bitstream of {codec} holds one picture; here are {len(frames)}")
    frame = frames[0]
    sample = np.dtype("u1" if frame.format.components[0].bits == 8 else "<u2")
    return frame.format.name, [
        np.frombuffer(bytes(plane), sample).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
    ]


def pillow_coder(**libraries: str) -> dict[str, str]:
    """Versions of Pillow and of the libraries inside it, by the names that ``PIL.features`` has for them.

    >>> sorted(pillow_coder(libwebp="webp"))
    ['libwebp', 'pillow']
    """
    import PIL
    from PIL import features

    versions = {name: str(features.version(feature)) for name, feature in libraries.items()}
    return {"pillow": PIL.__version__, **versions}

"""RGB to full-range YCbCr and back, for coders that take planes (AV1, HEVC, VVC), and planes from FFmpeg's decoders.

With ``s = 2**bits - 1`` and RGB in 0..1, as ITU-T H.273 (equations 22 to 29, full range) has it::

    Y  = s * (Kr R + (1 - Kr - Kb) G + Kb B)
    Cb = s * (B - Y') / (2 (1 - Kb)) + 2**(bits - 1)        Y' = Y / s
    Cr = s * (R - Y') / (2 (1 - Kr)) + 2**(bits - 1)

Every value is rounded with ``floor(x + 0.5)`` and clipped to ``0..s``, in both directions. Truncation costs 9 dB: an
8-bit BT.709 round trip of the Kodak images without any codec gives 53.20 dB, but 43.7 dB truncated. At 10 bits the
rounded round trip is lossless for every 8-bit colour.

CompressAI's conversion, from which most published VTM curves come, has the middle of chroma at ``s / 2`` (127.5)
instead of ``2**(bits - 1)`` (128), so that grey falls on a tie. ``middle="half"`` is that conversion, in float64 and
its order of operations, but rounded as numpy rounds (ties to even): 53.00 dB on Kodak.

All else is computed in integers, exactly: with weights of four decimals some colours land on a half (BT.601 at 8 bits,
both at 10), where float64 rounds one way or the other by its last bit, and one such sample changes the bitstream.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import BitstreamError, ConfigError
from rdpbench.image import Image
from rdpbench.lazy import av

Matrix: TypeAlias = Literal["bt709", "bt601"]
Middle: TypeAlias = Literal["h273", "half"]
Planes: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
"""``(3, H, W)``: Y, Cb, Cr; ``uint8`` at 8 bits, ``uint16`` above."""

ONE = 10000
WEIGHTS: dict[str, tuple[int, int]] = {"bt709": (2126, 722), "bt601": (2990, 1140)}
"""``(Kr, Kb)`` of each matrix, in units of ``1 / ONE``."""


def rgb_to_ycbcr(
    image: Image, bits: int = 8, matrix: Matrix = "bt709", middle: Middle = "h273", truncate: bool = False
) -> Planes:
    """Convert ``uint8 (H, W, 3)`` to full-range planes ``(3, H, W)`` of 8 to 16 bits.

    ``truncate`` drops the fraction instead of rounding it, as CompressAI does; only with the middle at a half.

    >>> red = np.array([[[255, 0, 0]]], np.uint8)
    >>> rgb_to_ycbcr(red)[:, 0, 0].tolist()
    [54, 99, 255]
    >>> rgb_to_ycbcr(red, bits=10, matrix="bt601")[:, 0, 0].tolist()
    [306, 339, 1023]
    """
    kr, kb = _weights(bits, matrix)
    top = 2**bits - 1
    height, width = image.shape[:2]
    planes: Planes = np.empty((3, height, width), np.uint8) if bits == 8 else np.empty((3, height, width), np.uint16)
    if _doubled_middle(bits, middle) != 2**bits:
        cut = np.floor if truncate else np.rint
        planes[:] = np.clip(cut(_compressai(image, kr / ONE, kb / ONE) * top), 0, top)
        return planes
    if truncate:
        raise ConfigError('truncated planes exist in one protocol only: with middle="half"')
    r, g, b = (image[:, :, channel].astype(np.int64) for channel in range(3))
    y = kr * r + (ONE - kr - kb) * g + kb * b  # times 255 * ONE / top
    planes[0] = _divided(top * y, 255 * ONE, 0, top)
    planes[1] = _divided(top * (ONE * b - y), 255 * 2 * (ONE - kb), 2**bits, top)
    planes[2] = _divided(top * (ONE * r - y), 255 * 2 * (ONE - kr), 2**bits, top)
    return planes


def _compressai(image: Image, kr: float, kb: float) -> NDArray[np.float64]:
    """YCbCr in 0..1 with chroma around 0.5; the order of operations decides ties, so it must stay."""
    r, g, b = (image[:, :, channel].astype(np.float64) / 255 for channel in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    return np.stack([y, 0.5 * (b - y) / (1 - kb) + 0.5, 0.5 * (r - y) / (1 - kr) + 0.5])


def ycbcr_to_rgb(planes: Planes, bits: int = 8, matrix: Matrix = "bt709", middle: Middle = "h273") -> Image:
    """Convert full-range planes ``(3, H, W)`` to ``uint8 (H, W, 3)``.

    >>> planes = rgb_to_ycbcr(np.array([[[200, 100, 50]]], np.uint8), bits=10)
    >>> ycbcr_to_rgb(planes, bits=10)[0, 0].tolist()
    [200, 100, 50]
    """
    kr, kb = _weights(bits, matrix)
    kg = ONE - kr - kb
    top, doubled = 2**bits - 1, _doubled_middle(bits, middle)
    # All three doubled, so that a middle at a half is a whole number.
    y, cb, cr = 2 * planes.astype(np.int64) - np.array([0, doubled, doubled])[:, None, None]
    image = np.empty((*planes.shape[1:], 3), np.uint8)
    image[:, :, 0] = _divided(255 * (ONE * y + 2 * (ONE - kr) * cr), 2 * ONE * top, 0, 255)
    green = ONE * kg * y - 2 * kr * (ONE - kr) * cr - 2 * kb * (ONE - kb) * cb
    image[:, :, 1] = _divided(255 * green, 2 * ONE * kg * top, 0, 255)
    image[:, :, 2] = _divided(255 * (ONE * y + 2 * (ONE - kb) * cb), 2 * ONE * top, 0, 255)
    return image


def _doubled_middle(bits: int, middle: str) -> int:
    """Twice the value of colourless chroma."""
    if middle not in get_args(Middle):
        raise ConfigError(f"unknown middle of chroma {middle!r}: legal are {', '.join(get_args(Middle))}")
    return (1 << bits) - (middle == "half")


def _weights(bits: int, matrix: str) -> tuple[int, int]:
    if not 8 <= bits <= 16:
        raise ConfigError(f"YCbCr planes hold 8 to 16 bits, not {bits}")
    if matrix not in WEIGHTS:
        raise ConfigError(f"unknown colour matrix {matrix!r}: legal are {', '.join(get_args(Matrix))}")
    return WEIGHTS[matrix]


def _divided(numerator: NDArray[np.int64], denominator: int, halves: int, top: int) -> NDArray[np.int64]:
    """``floor(numerator / denominator + halves / 2 + 0.5)``, clipped to ``0..top``; exact, also below 0."""
    rounded: NDArray[np.int64] = (2 * numerator + (1 + halves) * denominator) // (2 * denominator)
    rounded.clip(0, top, out=rounded)
    return rounded


PICTURE_OPTIONS = {"max_pixels": str(1 << 27), "err_detect": "explode"}
"""For FFmpeg's decoders: a damaged size must not become an allocation; errors that they notice shall be errors."""


def decode_picture(codec: str, decoder: str, stream: bytes) -> tuple[str, list[NDArray[np.integer[Any]]]]:
    """FFmpeg's pixel format of the one picture in a stream, and its planes: ``uint8``, or ``uint16`` above 8 bits.

    ``decoder`` is FFmpeg's name of one, such as ``hevc``; it runs with one thread.
    """
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


def av_coder() -> dict[str, str]:
    """Versions of PyAV and of FFmpeg's codecs inside it, for ``coder()``."""
    return {"av": av.__version__, "libavcodec": ".".join(map(str, av.library_versions["libavcodec"]))}

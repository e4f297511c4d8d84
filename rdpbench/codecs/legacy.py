"""Rates as publications count them: the bits that each of their calculators gives for a bitstream.

Divide by the pixels of the image for bits per pixel. The true rate is the size of the file; these stand in columns of
their own, so that a published point can be made again and its distance from the truth be seen.

``docs/learned.md`` says who counts so.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

PYTHON_OVERHEAD = 33
"""Bytes that CPython adds to a bytes object on 64-bit machines."""


def headerless(strings: Iterable[bytes]) -> int:
    """Bits of the strings, without sizes, shapes and lengths.

    >>> headerless([b"abc", b"de"])
    40
    """
    return 8 * sum(map(len, strings))


def padded(bits: float, size: tuple[int, int], padded_size: tuple[int, int]) -> float:
    """Bits that, divided by the image's pixels, give what division by the padded image's pixels gave.

    >>> padded(1200, (60, 64), (64, 64))
    1125.0
    """
    return bits * (size[0] * size[1]) / (padded_size[0] * padded_size[1])


def getsizeof(strings: Iterable[bytes]) -> int:
    """Bits that ``sys.getsizeof`` makes of each string.

    >>> getsizeof([b"abc"])
    288
    """
    return 8 * sum(PYTHON_OVERHEAD + len(string) for string in strings)


def binary_digits(strings: Iterable[bytes]) -> int:
    """Characters of ``bin(int)`` of each string, read as a little-endian number: zeros at its end are not counted.

    >>> binary_digits([b"abc\\x00"])
    25
    """
    return sum(len(bin(int.from_bytes(string, "little"))) for string in strings)


def pickled(structure: Any, protocol: int = 4) -> int:
    """Bits of the pickled structure, the names of its classes inside. It is measured, never stored, nor ever loaded.

    >>> pickled([[b"abc"], [b"de"], (8, 12)]) > headerless([b"abc", b"de"])
    True
    """
    return 8 * len(pickle.dumps(structure, protocol))


def nominal(bpp: float, size: tuple[int, int]) -> float:
    """Bits of the rate that a model is named after.

    >>> nominal(0.125, (512, 768))
    49152.0
    """
    return bpp * size[0] * size[1]


def framed(strings: Iterable[bytes], header: int) -> int:
    """Bits of the strings after a header of so many bytes.

    >>> framed([b"abc"], 28)
    248
    """
    return headerless(strings) + 8 * header


def rates(strings: Mapping[str, bytes], size: tuple[int, int], padded_size: tuple[int, int]) -> dict[str, float]:
    """The calculators that need nothing but strings and sizes, by name; in bits.

    >>> rates({"y": b"abc", "z": b"de"}, (60, 64), (64, 64))["headerless"]
    40
    """
    own = list(strings.values())
    return {
        "headerless": headerless(own),
        "padded": padded(headerless(own), size, padded_size),
        "getsizeof": getsizeof(own),
        "binary-digits": binary_digits(own),
        # As of CompressAI's ``compress``; the shape of the last latent is taken as that of the padded image.
        "pickle": pickled({"strings": [[string] for string in own], "shape": padded_size}),
    }

"""What is done to an image between its file and the codec, as named pure functions.

A protocol's name travels with every row: the same codec on the same files under another protocol is another number.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rdpbench.errors import UnknownName
from rdpbench.image import Image, Loaded, check_image, read_image


def as_is(image: Image) -> Image:
    """The image as it was read; the protocol of HiFiC, MS-ILLM, TACO and CompressAI on Kodak."""
    return image


PROTOCOLS: dict[str, Callable[[Image], Image]] = {"as-is": as_is}


def load_under(protocol: str, path: Path) -> Loaded:
    """Read a file and apply a protocol.

    Raises:
        UnknownName: no such protocol.
        ImageError: the file cannot be read.
    """
    if protocol not in PROTOCOLS:
        raise UnknownName("protocol", protocol, PROTOCOLS)
    loaded = read_image(path)
    return Loaded(check_image(PROTOCOLS[protocol](loaded.pixels), str(path)), loaded.mode)

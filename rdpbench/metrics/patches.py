"""The patches of FID and KID over few large images: HiFiC's (Mentzer et al., NeurIPS 2020) as MS-ILLM's code cuts them.

A grid of ``size`` x ``size`` patches from the first pixel on, and a second grid half a patch further down and right;
what does not fill a patch is left out. The second grid exists where both sides hold one and a half patches. HiFiC's
text counts fewer patches in it (``(H // f - 1) * (W // f - 1)``), but 28,650 for the 428 images of CLIC2020 and 6,573
for DIV2K's validation set, the totals that papers print, are those of the code; others recounted them. Kodak: 192.

Order: the first grid row by row, then the second row by row. Patches share the image's memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdpbench.errors import ImageError, MetricError
from rdpbench.image import Image, check_image


def corners(height: int, width: int, size: int = 256) -> Iterator[tuple[int, int]]:
    """Top and left of each patch of an image of ``height`` x ``width`` pixels, in order; none if it is too small.

    Raises:
        MetricError: ``size`` is odd or not positive: half a patch would not be defined.

    >>> list(corners(384, 512))
    [(0, 0), (0, 256), (128, 128)]
    """
    for shift in _shifts(height, width, size):
        for top in range(shift, height - size + 1, size):
            for left in range(shift, width - size + 1, size):
                yield top, left


def count(height: int, width: int, size: int = 256) -> int:
    """How many patches an image gives; 0 if a side is shorter than a patch.

    >>> count(1365, 2048)
    68
    """
    shifts = _shifts(height, width, size)
    return sum(((height - shift) // size) * ((width - shift) // size) for shift in shifts)


def hific(image: Image, size: int = 256) -> Iterator[Image]:
    """The patches of an image, ``uint8 (size, size, 3)`` each, as views of it.

    Raises:
        MetricError: an image without a single patch, which would drop out of the set without a word.

    >>> import numpy as np
    >>> [int(patch[0, 0, 0]) for patch in hific(np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, 2), size=2)]
    [0, 2, 8, 10, 5]
    """
    try:
        check_image(image, "patches: the image")
    except ImageError as error:
        raise MetricError(str(error)) from error
    height, width = image.shape[:2]
    if not count(height, width, size):
        raise MetricError(
            f"an image of {width} x {height} (width x height) holds no patch of {size} x {size}: choose smaller "
            "patches, or a metric over whole images"
        )
    return (image[top : top + size, left : left + size] for top, left in corners(height, width, size))


def _shifts(height: int, width: int, size: int) -> tuple[int, ...]:
    """Where those grids start that hold at least one patch."""
    if size < 2 or size % 2:
        raise MetricError(f"patches have an even side of 2 pixels or more, found {size}")
    return tuple(shift for shift in (0, size // 2) if min(height, width) >= size + shift)

"""DIV2K, high resolution: 100 validation images 0801 to 0900 and 800 training images, about 2 megapixels each.

Agustsson and Timofte, NTIRE 2017. In each image one side has 2040 pixels, which tells the originals from the crops and
downscaled copies that lie around. HiFiC, MS-ILLM and others report the validation set as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from rdpbench.datasets.fetching import Archive, Part, Release
from rdpbench.datasets.official import Official

_BASE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


def _names(first: int, last: int) -> Iterator[str]:
    return (f"{number:04d}.png" for number in range(first, last + 1))


def _geometry(height: int, width: int) -> str:
    """Why an image is not of DIV2K HR.

    >>> _geometry(256, 256)
    'one side of a DIV2K HR image has 2040 pixels; this is a crop or a resized copy'
    """
    if max(height, width) == 2040:
        return ""
    return "one side of a DIV2K HR image has 2040 pixels; this is a crop or a resized copy"


def _release(split: str, archive: Archive, folder: str, numbers: tuple[int, int], patches: int | None) -> Release:
    names: Callable[[], Iterator[str]] = partial(_names, *numbers)
    count = numbers[1] - numbers[0] + 1
    return Release(
        name=f"div2k-{split}",
        title=f"DIV2K {split} HR, {count} images with a side of 2040",
        family="div2k",
        parts=(Part(archive, folder, count, rf"(?:{folder}/)?(0\d{{3}}\.png)"),),
        count=count,
        pattern=r"0\d{3}\.png",
        licence="for academic research only; the images belong to their photographers",
        page="https://data.vision.ee.ethz.ch/cvl/DIV2K/",
        listed=names,
        geometry=_geometry,
        patches=patches,
    )


_VALID = Archive(
    _BASE + "DIV2K_valid_HR.zip",
    448_993_893,
    "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
    "9fcdda83005c5e5997799b69f955ff88",
)
_TRAIN = Archive(
    _BASE + "DIV2K_train_HR.zip",
    3_530_603_713,
    "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
    "bdc2d9338d4e574fe81bf7d158758658",
)


@dataclass(frozen=True)
class DIV2K(Official):
    """DIV2K HR; ``split`` is ``valid`` or ``train``.

    >>> len(DIV2K("valid"))
    100
    """

    RELEASES: ClassVar[Mapping[str, Release]] = {
        # 6,573 patches: as HiFiC's protocol counts them, reproduced by others (docs/datasets.md)
        "valid": _release("valid", _VALID, "DIV2K_valid_HR", (801, 900), 6573),
        "train": _release("train", _TRAIN, "DIV2K_train_HR", (1, 800), None),
    }

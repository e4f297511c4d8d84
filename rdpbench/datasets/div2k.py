"""DIV2K, high resolution: 100 validation images 0801 to 0900 and 800 training images, about 2 megapixels each.

Agustsson and Timofte, NTIRE 2017. In each image one side has 2040 pixels, which tells the originals from the crops and
downscaled copies that lie around. HiFiC, MS-ILLM and others report the validation set as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rdpbench.datasets.fetching import OfficialArchive
from rdpbench.datasets.official import Official, Release

_PAGE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"


def _geometry(height: int, width: int) -> str:
    if max(height, width) == 2040:
        return ""
    return "one side of a DIV2K HR image has 2040 pixels; this is a crop or a resized copy"


def _release(split: str, numbers: range, size: int, sha256: str, md5: str, patches: int | None = None) -> Release:
    folder = f"DIV2K_{split}_HR"
    members = rf"(?:{folder}/)?(0\d{{3}}\.png)"
    archive = OfficialArchive(f"{_PAGE}{folder}.zip", folder, len(numbers), members, size, sha256, md5)

    def names() -> list[str]:
        return [f"{number:04d}.png" for number in numbers]

    return Release(
        name=f"div2k-{split}",
        title=f"DIV2K {split} HR, {len(numbers)} images with a side of 2040",
        count=len(numbers),
        archives=(archive,),
        family="div2k",
        pattern=r"0\d{3}\.png",
        licence="for academic research only; the images belong to their photographers",
        page=_PAGE,
        listed=names,
        among=names,
        geometry=_geometry,
        patches=patches,
    )


@dataclass(frozen=True)
class DIV2K(Official):
    """DIV2K HR; ``split`` is ``valid`` or ``train``.

    >>> len(DIV2K("valid"))
    100
    """

    RELEASES: ClassVar[Mapping[str, Release]] = {
        "valid": _release(
            "valid",
            range(801, 901),
            448_993_893,
            "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
            "9fcdda83005c5e5997799b69f955ff88",
            patches=6573,  # as HiFiC's protocol counts them, reproduced by others (docs/datasets.md)
        ),
        "train": _release(
            "train",
            range(1, 801),
            3_530_603_713,
            "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
            "bdc2d9338d4e574fe81bf7d158758658",
        ),
    }

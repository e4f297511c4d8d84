"""OpenImages: a source of training images, listed so that its name means something; rdpbench does not measure on it.

PerCo trains on 512-pixel crops of it, MS-ILLM on 256-pixel crops, HiFiC on its own selection. Its parts with boxes
hold 1,743,042, 41,620 and 125,436 images with a longest side of 1,024; all of it are 9 million images, 18 TB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rdpbench.datasets.contract import Here, Sample
from rdpbench.errors import ConfigError
from rdpbench.needs import Need


@dataclass(frozen=True)
class OpenImages:
    """A training source: it has a size and an address, and no samples.

    >>> len(OpenImages())
    1743042
    """

    name: str = "openimages"
    protocol: str = "as-is"
    needs: ClassVar[tuple[Need, ...]] = ()
    licence: ClassVar[str] = "images CC BY 2.0 as their uploaders say, annotations CC BY 4.0"
    download_size: ClassVar[str] = "513 GB (train), 12 GB (validation), 36 GB (test)"

    def missing(self) -> str:
        """How to get it."""
        return (
            "openimages is a source of training images, not a set to measure on: "
            f"{self.download_size}; {self.licence}\n"
            "  get it with: aws s3 --no-sign-request sync s3://open-images-dataset/validation FOLDER\n"
            "and measure on images of yours among it with data=folder:FOLDER, or pin them with `rdpbench data manifest`"
        )

    def samples(self) -> Iterator[Sample]:
        """Raise `ConfigError` that says how to get it."""
        raise ConfigError(self.missing())

    def here(self) -> Here:
        """Nothing: it is listed only."""
        return Here(0, None)

    def fetch(self, beside: Sequence[str] = ()) -> None:  # noqa: ARG002 (the contract's)
        """Raise `ConfigError` that says how to get it."""
        raise ConfigError(self.missing())

    def __len__(self) -> int:
        return 1_743_042

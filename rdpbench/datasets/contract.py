"""What a dataset is: an ordered list of images with stable ids, under one protocol.

Planning looks at ids and pixel hashes; pixels are read in the worker, when they are coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from rdpbench.needs import Need


@dataclass(frozen=True)
class Sample:
    """One image of a dataset: where it is, and what is known of it without decoding."""

    id: str
    """Stable within the dataset; the file name without its ending."""
    path: Path
    tags: tuple[str, ...] = ()
    """Such as ``photo``, ``text``, ``medical``; tables can be split by tag."""
    caption: str | None = None


@runtime_checkable
class Dataset(Protocol):
    """The contract: a frozen dataclass whose fields are its configuration.

    A set that can be downloaded also has ``missing() -> str | None``: None if it is here, else how to get it. Then
    `plan` does not start the download, and ``download=false`` stops with that text.
    """

    name: str
    protocol: str
    """What is done to an image before a codec sees it, such as ``as-is``."""
    needs: tuple[Need, ...]

    def samples(self) -> Iterator[Sample]:
        """All samples in a fixed order; fetches what is missing, or raises `MissingNeed` that says how."""
        ...

    def __len__(self) -> int: ...

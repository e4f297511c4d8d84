"""What a dataset is: an ordered list of images with stable ids, under one protocol.

Planning looks at ids and hashes; pixels are read in the worker, when they are coded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from rdpbench import own, registry
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.needs import Need
from rdpbench.paths import available
from rdpbench.registry import needs_in, shape_of, type_of
from rdpbench.setting import DataSetting

PinKind = Literal["pinned", "recorded", "names", "made"]
KINDS: dict[PinKind, str] = {
    "pinned": "every byte is compared with hashes that ship with rdpbench",
    "recorded": "every byte is compared with what the verified official archive held",
    "names": "names, counts and sizes were checked; the bytes were never compared with anything official",
    "made": "a list of your own",
}
"""How far a set's bytes are known."""


@dataclass(frozen=True)
class Sample:
    """One image of a dataset: where it is, and what is known of it without decoding."""

    id: str
    """Stable within the dataset; the file name without its ending."""
    path: Path
    tags: tuple[str, ...] = ()
    """Such as ``photo``, ``text``, ``medical``; tables can be split by tag."""
    sha256: str | None = None
    """Of the file's bytes, where the set's manifest has it; `index` checks it."""
    caption: str | None = None
    """The caption that conditions: the only one that an encoder may see."""
    references: tuple[str, ...] = ()
    """Captions that metrics score against."""
    labels: Path | None = None
    """Label map, an 8-bit PNG of the image's size; it names its list of classes (`rdpbench.datasets.labels`)."""


@dataclass(frozen=True)
class Pin:
    """What a row says of its dataset: which files these were, and how far that is known."""

    sha256: str
    """Of the set's manifest: names, order and, but for ``names``, the bytes of all files."""
    kind: PinKind


@dataclass(frozen=True)
class Here:
    """What of a set lies on this machine."""

    images: int
    kind: PinKind | None
    """None where nothing is here."""
    folder: Path | None = None


@runtime_checkable
class Dataset(Protocol):
    """The contract: a frozen dataclass whose fields are its configuration.

    Optional, looked up by name:

    - ``missing() -> str | None``: None if the set is here; else how to get it. Then `plan` does not start the
      download, and ``download=false`` stops with that text.
    - ``pinned() -> Pin``: the manifest hash that travels with every row and curve.
    - a field ``allow_partial: bool = False``: images missing from the folder are left out instead of refused.
    - ``beside_missing(what) -> str``: how to get ``captions`` or ``labels`` for images that come without; a metric that
      knows one list of classes asks for ``panoptic`` or ``stuff``.
    - ``notes() -> tuple[str, ...]``: what the user should know, such as images of a folder that are not read; a run
      prints it once.
    - ``here() -> Here``, ``fetch(beside)`` and ``verify() -> list[str]``: what `rdpbench data` does.
    """

    name: str
    protocol: str
    """What is done to an image before a codec sees it, such as ``as-is``."""
    needs: tuple[Need, ...]

    def samples(self) -> Iterator[Sample]:
        """All samples in a fixed order; fetches what is missing, or raises `MissingNeed` that says how.

        `ImageError`, which says why, for images that are missing or not those of the set.
        """
        ...

    def __len__(self) -> int:
        """Images of the whole set, also when only part of it is here."""
        ...


def faults_of(dataset: object) -> list[str]:
    """What an object lacks, or states oddly, that is to be a dataset; empty if nothing.

    >>> from rdpbench.datasets.folder import Kodak
    >>> faults_of(Kodak()), len(faults_of({}))
    ([], 4)
    """
    faults = list(type_of(dataset, "name", str, 'name = "mine"', required=True))
    faults += type_of(dataset, "protocol", str, 'protocol = "as-is"', required=True)
    if not hasattr(dataset, "needs"):
        faults.append("needs is missing; write needs = ()")
    faults += needs_in(dataset)
    faults += shape_of(type(dataset), "samples", ())
    faults += shape_of(type(dataset), "__len__", ())
    for method in ("missing", "pinned", "notes", "here"):
        faults += shape_of(type(dataset), method, ()) if getattr(dataset, method, None) is not None else ()
    return faults


def dataset_of(setting: DataSetting) -> Dataset:
    """Build a dataset.

    Raises:
        UnknownName: no such class.
        ConfigError: the class does not take these options, or is no dataset.

    >>> len(dataset_of(DataSetting("kodak", "kodak", ())))
    24
    """
    cls = registry.load("dataset", setting.use)
    options = dict(setting.options)
    if registry.own_place("dataset", setting.use):
        options = own.as_paths(cls, options)
    try:
        dataset: Dataset = cls(**options)
    except TypeError as error:
        ready = [name for name in available("data") if name.startswith(setting.name)]
        if ready and not options:  # of a family of sets, which one?
            raise UnknownName("dataset", setting.name, ready) from error
        raise ConfigError(f"dataset {setting.name!r} does not take {dict(setting.options)}: {error}") from error
    if faults := faults_of(dataset):
        raise ConfigError(f"{setting.use!r} is no dataset: {'; '.join(faults)}")
    return dataset

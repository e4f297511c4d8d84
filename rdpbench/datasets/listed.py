"""``manifest:FILE``: a set of one's own that a manifest pins, as `rdpbench data manifest FOLDER` writes it.

Names in it are relative to the folder of the images: ``data.path=FOLDER``, or the one that its line ``# folder:`` names
below the manifest's own, or that one. ``# name:`` and ``# protocol:`` name the set and what is done to its images,
``# references:`` and ``# labels:`` what lies beside them (`rdpbench.datasets.beside`), below the manifest's folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar

from rdpbench.datasets.beside import how, place, with_beside
from rdpbench.datasets.contract import Here, Pin, Sample
from rdpbench.datasets.folder import Folder
from rdpbench.datasets.lookalikes import some
from rdpbench.datasets.manifest import Manifest, file_sha256, other_bytes
from rdpbench.datasets.memory import file_facts
from rdpbench.errors import ConfigError, ImageError
from rdpbench.needs import Need


@dataclass(frozen=True)
class Listed:
    """The images that a manifest names, each held against its sha256."""

    file: str
    name: str = ""
    protocol: str = ""
    path: str | None = None
    """The folder that the names are relative to."""
    allow_partial: bool = False
    references: str = ""
    """JSON file of captions to score against."""
    labels: str = ""
    """Folder of label maps."""
    needs: ClassVar[tuple[Need, ...]] = ()

    def __post_init__(self) -> None:
        if not self.file:
            raise ConfigError("which manifest? Write data=manifest:FILE; `rdpbench data manifest FOLDER` writes one")
        header = self._manifest.header
        object.__setattr__(self, "name", self.name or header.get("name") or Path(self.file).stem)
        object.__setattr__(self, "protocol", self.protocol or header.get("protocol") or "as-is")
        if "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"{self.file} names its set {self.name!r}; a name has no slash and no dot in front")

    @cached_property
    def _manifest(self) -> Manifest:
        manifest = Manifest.read(Path(self.file).expanduser())
        if not manifest.files:
            raise ConfigError(f"{self.file} names no images")
        return manifest

    @property
    def _root(self) -> Path:
        if self.path:
            return Path(self.path).expanduser().absolute()
        return self._named("folder", "data.path=FOLDER") or Path(self.file).expanduser().absolute().parent

    def _named(self, key: str, instead: str) -> Path | None:
        """What a line of the manifest names below its own folder; None if it has no such line."""
        if key not in self._manifest.header:
            return None
        beside = PurePosixPath(self._manifest.header[key])
        if beside.is_absolute() or ".." in beside.parts:
            raise ConfigError(f"{self.file}: its {key} {str(beside)!r} leads elsewhere; say {instead}")
        return Path(self.file).expanduser().absolute().parent / beside

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the manifest's order.

        Raises:
            ImageError: images are missing.
        """
        files = self._manifest.files
        missing = [name for name in files if not (self._root / name).is_file()]
        if len(missing) == len(files) or (missing and not self.allow_partial):
            raise ImageError(
                f"{len(missing)} of the {len(files)} images in {self.file} are missing in {self._root}: "
                f"{some(missing)}; data.path=FOLDER says where they are, allow_partial=true goes on with what is there"
            )
        gone = frozenset(missing)
        times = Counter(_bare(name) for name in files)
        samples = [
            Sample(_bare(name) if times[_bare(name)] == 1 else name, self._root / name, (), sha256)
            for name, sha256 in files.items()
            if name not in gone
        ]
        references = place(self.references) or self._named("references", "data.options.references=FILE")
        labels = place(self.labels) or self._named("labels", "data.options.labels=FOLDER")
        yield from with_beside(samples, self._root, self.name, references, labels)

    def beside_missing(self, what: str) -> str:
        """How to give ``captions`` to score against, or ``labels``."""
        return how(what)

    def __len__(self) -> int:
        return len(self._manifest.files)

    def pinned(self) -> Pin:
        """The manifest: what it says is the user's own."""
        return Pin(self._manifest.sha256(), "made")

    def here(self) -> Here:
        """What lies here, by names alone."""
        count = sum((self._root / name).is_file() for name in self._manifest.files)
        return Here(count, "made" if count else None, self._root if count else None)

    def verify(self) -> list[str]:
        """Read every byte again and say what differs."""
        out = []
        for name, sha256 in self._manifest.files.items():
            path = self._root / name
            if not path.is_file():
                out.append(f"{path} is missing")
            elif (found := file_sha256(path)) != sha256:
                out.append(other_bytes(path, found, sha256))
        return out


def make_manifest(folder: Path, name: str, out: Path) -> Manifest:
    """Write a manifest of all images below a folder, in the order of their names.

    Raises:
        ConfigError: no such folder, or a name that cannot be one.
        ImageError: no images there, or files that are none.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ConfigError(f"--name {name!r}: letters, digits, dots, dashes and underscores make a name")
    root = folder.expanduser().absolute()
    files: dict[str, str] = {}
    broken: list[str] = []
    paths = (sample.path for sample in Folder(str(root)).samples())
    for path, found in file_facts(paths, remembered=False):
        relative = path.relative_to(root).as_posix()
        if "\n" in relative or "\\" in relative:
            raise ImageError(f"{relative!r}: a manifest cannot hold such a name")
        files[relative] = found.sha256
        if not found.height:
            broken.append(relative)
    if broken:
        raise ImageError(f"{len(broken)} files in {root} are no images: {some(broken)}")
    header = {"name": name, "images": str(len(files))}
    # Where the images are, if that is below the manifest: both can then be moved together.
    where = Path(os.path.relpath(root, out.expanduser().absolute().parent))
    if ".." not in where.parts:
        header["folder"] = where.as_posix()
    manifest = Manifest(files, header)
    out.expanduser().parent.mkdir(parents=True, exist_ok=True)
    manifest.write(out.expanduser())
    return manifest


def _bare(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()

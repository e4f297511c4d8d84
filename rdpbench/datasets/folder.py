"""``folder:PATH``: any folder of images, searched with its subfolders, in the order of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from rdpbench.datasets.beside import how, place, with_beside
from rdpbench.datasets.contract import Pin, Sample
from rdpbench.datasets.manifest import manifest_sha256
from rdpbench.datasets.memory import file_facts
from rdpbench.errors import ConfigError, ImageError
from rdpbench.image import EXTENSIONS
from rdpbench.needs import Need


@dataclass(frozen=True)
class Folder:
    """All images below a folder; an image's id is its path in there, without the ending where that is unique."""

    path: str
    name: str = ""
    protocol: str = "as-is"
    references: str = ""
    """JSON file of captions to score against."""
    labels: str = ""
    """Folder of label maps; if it lies among the images, it is none of them."""
    needs: ClassVar[tuple[Need, ...]] = ()

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("which folder? Write data=folder:/path/to/images")
        if not self.name:
            object.__setattr__(self, "name", f"folder-{Path(self.path).expanduser().resolve().name}")

    @property
    def _root(self) -> Path:
        # Absolute: rows outlive the folder that a command was typed in.
        return Path(self.path).expanduser().absolute()

    @cached_property
    def _files(self) -> list[Path]:
        root = self._root
        if not root.is_dir():
            raise ConfigError(f"no such folder: {root}, named by data=folder:{self.path}")
        maps = place(self.labels)
        found = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
        # Hidden files and folders are not the user's images, but the folder that was named may be hidden itself.
        files = sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))
        files = [path for path in files if maps is None or maps not in path.parents]
        if not files:
            raise ImageError(f"no images in {root}; looked for {', '.join(sorted(EXTENSIONS))}")
        return files

    def samples(self) -> Iterator[Sample]:
        """Yield the images, sorted by path."""
        bare = [path.relative_to(self._root).with_suffix("").as_posix() for path in self._files]
        times = Counter(bare)
        ids = (
            name if times[name] == 1 else path.relative_to(self._root).as_posix()
            for path, name in zip(self._files, bare, strict=True)
        )
        samples = [Sample(image, path) for image, path in zip(ids, self._files, strict=True)]
        yield from with_beside(samples, self._root, self.name, place(self.references), place(self.labels))

    def beside_missing(self, what: str) -> str:
        """How to give ``captions`` to score against, or ``labels``."""
        return how(what)

    def pinned(self) -> Pin:
        """Hash of all files, also under ``limit=``: a run of the first images of a folder is a run on that folder.

        Bytes are read once, 30,000 images of COCO in half a minute, and remembered.
        """
        facts = file_facts(self._files)
        named = ((path.relative_to(self._root).as_posix(), found.sha256) for path, found in facts)
        return Pin(manifest_sha256(named), "made")

    def __len__(self) -> int:
        return len(self._files)

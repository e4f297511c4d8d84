"""``folder:PATH``: any folder of images, searched with its subfolders, in the order of their names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, NoReturn

from rdpbench.datasets.beside import how, place, with_beside
from rdpbench.datasets.contract import Pin, Sample
from rdpbench.datasets.lookalikes import some
from rdpbench.datasets.manifest import manifest_sha256
from rdpbench.datasets.memory import file_facts
from rdpbench.errors import ConfigError, ImageError
from rdpbench.image import EXTENSIONS, OTHER_EXTENSIONS, check_names
from rdpbench.needs import Need


@dataclass(frozen=True)
class _Listing:
    files: list[Path]
    notes: tuple[str, ...]


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
    def _listing(self) -> _Listing:
        root = self._root
        if not root.is_dir():
            raise ConfigError(f"no such folder: {root}, named by data=folder:{self.path}")
        maps = place(self.labels)
        files: list[Path] = []
        unread: dict[str, list[str]] = {"hidden": [], "other": [], "links": []}
        for folder, folders, names in os.walk(root, onerror=_unreadable):
            links = (name for name in folders if Path(folder, name).is_symlink() and not name.startswith("."))
            unread["links"] += [Path(folder, name).relative_to(root).as_posix() for name in links]
            for name in names:
                path = Path(folder, name)
                relative, ending = path.relative_to(root), path.suffix.lower()
                # Hidden files and folders are not the user's images, but the folder that was named may be hidden.
                hidden = any(part.startswith(".") for part in relative.parts)
                if maps is not None and maps in path.parents:
                    continue
                if ending in EXTENSIONS and not hidden:
                    files.append(path)
                elif ending in EXTENSIONS:
                    unread["hidden"].append(relative.as_posix())
                elif ending in OTHER_EXTENSIONS and not hidden:
                    unread["other"].append(relative.as_posix())
        if not files:
            raise ImageError(
                "\n  ".join(
                    [f"no images in {root}; looked for {', '.join(sorted(EXTENSIONS))}", *_notes(self.name, unread)]
                )
            )
        check_names(files)
        if gone := sorted(path.relative_to(root).as_posix() for path in files if not path.is_file()):
            raise ImageError(f"{len(gone)} images in {root} are no files, such as links to nothing: {some(gone)}")
        return _Listing(sorted(files), _notes(self.name, unread))

    @property
    def _files(self) -> list[Path]:
        return self._listing.files

    def notes(self) -> tuple[str, ...]:
        """What of the folder is not read."""
        return self._listing.notes

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


def _unreadable(error: OSError) -> NoReturn:
    raise ImageError(f"cannot search the folder {error.filename}: {error.strerror}") from error


def _notes(name: str, unread: Mapping[str, list[str]]) -> tuple[str, ...]:
    texts = {
        "other": "images of a format that is not read (convert them to PNG)",
        "hidden": "hidden images, which are not read",
        "links": "links to folders, which are not followed",
    }
    # Names that are not UTF-8 must not stop what only tells of them.
    shown = {kind: [path.encode(errors="backslashreplace").decode() for path in sorted(unread[kind])] for kind in texts}
    return tuple(
        f"{name!r}: {len(shown[kind])} {text}: {some(shown[kind])}" for kind, text in texts.items() if shown[kind]
    )

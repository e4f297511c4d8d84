"""``folder:PATH``: any folder of images, searched with its subfolders, in the order of their names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, NoReturn

from rdpbench.assets.hashes import file_facts, file_sha256
from rdpbench.datasets.beside import how, place, with_beside
from rdpbench.datasets.contract import Here, Pin, Sample
from rdpbench.datasets.fetching import some
from rdpbench.datasets.manifest import Manifest, manifest_sha256, other_bytes
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

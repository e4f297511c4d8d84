"""Official sets on this machine: where their files are, whether they are those files, and what pins them.

A part of a set is looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA`` and in the cache, under the folder names of
its archives; a folder that holds the images themselves will do. Files that rdpbench unpacked from a verified archive
have a manifest beside them, and every byte is held against it (``recorded``). Of others names, counts and sizes are
checked (``names``): enough to refuse crops and mix-ups, no proof.

What is known of an official release: its archives, the names in them, and what its images look like.

Only facts, no files: `rdpbench.datasets.official` finds them on this machine, `rdpbench.datasets.fetching` gets them.
No hash here is invented: where nobody published one, the field is None, and rows say that nothing was compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rdpbench.assets.hashes import file_facts
from rdpbench.datasets.contract import Here, Pin, PinKind, Sample
from rdpbench.datasets.fetching import Part, Release, fetch, foreign, hint, recorded, some, wrong_count, wrong_sizes
from rdpbench.datasets.manifest import Manifest, manifest_sha256
from rdpbench.errors import ConfigError, ImageError, UnknownName
from rdpbench.image import EXTENSIONS
from rdpbench.needs import Need
from rdpbench.paths import data_folders


@dataclass(frozen=True)
class Lying:
    """A folder that holds files of a set."""

    folder: Path
    tag: str
    manifest: Manifest | None
    """Recorded when the files were unpacked."""
    published: bool
    """Was the archive held against a published hash?"""


@dataclass(frozen=True)
class File:
    """One image of a set on this machine."""

    name: str
    lying: Lying

    @property
    def path(self) -> Path:
        return self.lying.folder / self.name

    @property
    def sha256(self) -> str | None:
        return self.lying.manifest.files.get(self.name) if self.lying.manifest else None


@dataclass(frozen=True)
class Official:
    """The official sets of one publisher; `CLIC`, `DIV2K` and `COCO` say which there are."""

    RELEASES: ClassVar[Mapping[str, Release]] = {}
    needs: ClassVar[tuple[Need, ...]] = ()

    split: str
    name: str = ""
    protocol: str = ""
    path: str | None = None
    """A folder that holds the images, or the unpacked archives."""
    source: str | None = None
    """Address of a folder with copies of the archives, instead of the publisher's."""
    allow_partial: bool = False
    """Yield the images that are here where some are missing; tables mark what is partial."""

    def __post_init__(self) -> None:
        if self.split not in self.RELEASES:
            raise UnknownName("split", self.split, self.RELEASES)
        object.__setattr__(self, "name", self.name or self.release.name)
        object.__setattr__(self, "protocol", self.protocol or self.release.protocol)

    @property
    def release(self) -> Release:
        """What is known of the set."""
        return self.RELEASES[self.split]

    @property
    def licence(self) -> str:
        """Who may use the images for what."""
        return self.release.licence

    @property
    def download_size(self) -> str:
        """What `fetch` brings, for messages."""
        return self.release.download_size()

    @property
    def download_bytes(self) -> int:
        """The same as a number; 0 where nobody states it."""
        return self.release.download_bytes() or 0

    def __len__(self) -> int:
        return self.release.count

    def missing(self) -> str | None:
        """None if the set is here; else how to get it."""
        if self.path is not None or all(self._folders()):
            return None
        return f"{self.name} is not here\n{hint(self.release)}"

    def samples(self) -> Iterator[Sample]:
        """Yield the images in the order of their names; downloads the archives if they are nowhere.

        Raises:
            MissingNeed: no network, no disk.
            ImageError: images are missing, or they are not those of this set; the message says why.
        """
        for file in self._files():
            yield self._sample(file)

    def pinned(self) -> Pin:
        """Hash of the whole set's manifest, and what it is worth.

        Of files that nobody verified all bytes are hashed, and remembered. A partial set is pinned by what is here.
        """
        files = self._files()
        if all(file.sha256 for file in files):
            return Pin(manifest_sha256((file.name, file.sha256 or "") for file in files), _kind(files))
        facts = file_facts(file.path for file in files)
        return Pin(manifest_sha256((path.name, found.sha256) for path, found in facts), "names")

    def here(self) -> Here:
        """What lies here, by names alone."""
        lying = self._lying(quiet=True)
        if not lying:
            return Here(0, None)
        listed = set(self.release.names())
        names = {name for one in lying for name in _images(self.release, one.folder)[0]}
        if drawn := self.release.drawn:
            listed = {name for name in names if drawn.place(name) <= drawn.last}
        count = len(names & listed) if listed else len(names)
        return Here(min(count, len(self)), _kind([File("", one) for one in lying]), lying[0].folder)

    def fetch(self, beside: Sequence[str] = ()) -> None:
        """Download, verify, unpack and record what is not here yet.

        Raises:
            MissingNeed: no network, other bytes, too little disk.
            ConfigError: the set has nothing of that name beside its images.
        """
        for what in beside:
            raise ConfigError(f"{self.name} has no {what} to fetch")
        if self.path is not None:
            raise ConfigError(f"data.path={self.path} is a folder of yours; fetch fills $RDPBENCH_DATA or the cache")
        for part, folder in zip(self.release.parts, self._folders(), strict=True):
            if folder is None:
                fetch(part, self.release.family, self.source, hint(self.release))

    def verify(self) -> list[str]:
        """Read every byte again and say what is not as recorded; of a set without record, what cannot be of it."""
        try:
            files = self._files()
        except ImageError as error:
            return [str(error)]
        facts = file_facts((file.path for file in files), remembered=False)
        out: list[str] = []
        for file, (path, found) in zip(files, facts, strict=True):
            if file.sha256 and found.sha256 != file.sha256:
                out.append(f"{path}: sha256 {found.sha256}, recorded {file.sha256}")
            elif not found.height:
                out.append(f"{path} is no image")
        return out

    def _sample(self, file: File) -> Sample:
        return Sample(Path(file.name).stem, file.path, (file.lying.tag,) if file.lying.tag else (), file.sha256)

    # What lies where

    def _folders(self) -> list[Path | None]:
        """For each part of the set the folder that holds it."""
        release = self.release
        if self.path is not None:
            roots = [Path(self.path).expanduser().absolute()]
            if not roots[0].is_dir():
                raise ImageError(f"no such folder: {roots[0]}, named by data.path={self.path}")
            flat = roots
        else:
            roots, flat = data_folders(release.family), data_folders(release.name)
        return [
            next((folder for folder in _places(part, roots, flat) if _holds(folder)), None) for part in release.parts
        ]

    def _lying(self, *, quiet: bool = False) -> list[Lying]:
        folders = self._folders()
        if self.path is None and not all(folders) and not quiet:
            self.fetch()
            folders = self._folders()
        found: dict[Path, Lying] = {}
        for part, folder in zip(self.release.parts, folders, strict=True):
            if folder is not None:
                # A folder that holds several parts has no manifest that is of one archive.
                alone = folders.count(folder) == 1 or len(self.release.parts) == 1
                manifest = recorded(part, folder) if alone else None
                published = manifest is not None and part.archive.published
                found[folder] = Lying(folder, part.tag if alone else "", manifest, published)
        return list(found.values())

    def _files(self) -> list[File]:
        """The set's files that are here, in order, after all that can be refused was refused."""
        lying = self._lying()
        present: dict[str, Lying] = {}
        extras: list[str] = []
        files: list[File] = []
        for one in lying:
            names, more = _images(self.release, one.folder)
            if twice := present.keys() & set(names):
                raise self._refusal(f"{some(sorted(twice))} lie in two folders", f"{one.folder}, among others,")
            present |= dict.fromkeys(names, one)
            extras += more
            files += [File(name, one) for name in names]
        where = ", ".join(str(one.folder) for one in lying) or self.path
        if not present and not extras:
            raise self._refusal(f"no image of {self.name} is there", where)
        if why := foreign(self.release, list(present), extras, self.RELEASES):
            raise self._refusal(why, where)
        files.sort(key=lambda file: file.name)
        files, lacking, shown = self._choose(files)
        whole = not lacking and len(files) == len(self)
        if why := self._look(files, whole=whole) or self._miscounted(files):
            raise self._refusal(why, where)
        if not files or (lacking and not self.allow_partial):
            raise self._refusal(
                f"{lacking} of its {len(self)} images are missing{shown}; allow_partial=true goes on with the "
                f"{len(files)} that are here, and marks the results",
                where,
            )
        return files

    def _choose(self, files: list[File]) -> tuple[list[File], int, str]:
        """Of the files in the folders those of the set, how many are missing, and the first of these for a message."""
        if self.release.listed is None:
            return files, 0, ""
        names = set(self.release.names())
        chosen = [file for file in files if file.name in names]
        missing = sorted(names.difference(file.name for file in chosen)) if len(chosen) < len(names) else []
        return chosen, len(missing), f": {some(missing)}" if missing else ""

    def _miscounted(self, files: Sequence[File]) -> str:
        """Where no list says which names are missing, their count and digest say whether the set is whole."""
        if self.release.listed or self.release.drawn:
            return ""
        return wrong_count(self.release, [file.name for file in files], self.RELEASES, partial=self.allow_partial)

    def _look(self, files: Sequence[File], *, whole: bool) -> str:
        """Sizes of the files that no manifest vouches for."""
        unknown = [file.path for file in files if file.sha256 is None]
        return wrong_sizes(self.release, file_facts(unknown), whole=whole and len(unknown) == len(files))

    def _refusal(self, why: str, where: object) -> ImageError:
        return ImageError(f"{where} is not {self.name} ({self.release.title}): {why}\n{hint(self.release)}")


def _kind(files: Sequence[File]) -> PinKind:
    return "recorded" if all(file.lying.manifest and file.lying.published for file in files) else "names"


def _places(part: Part, roots: Sequence[Path], flat: Sequence[Path]) -> Iterator[Path]:
    for root in roots:
        yield root / part.folder
        yield root / Path(part.folder).name
    yield from flat


def _holds(folder: Path) -> bool:
    """Is there any image? Also one of a wrong name: `foreign` says what is wrong with it."""
    if not folder.is_dir():
        return False
    return any(path.suffix.lower() in EXTENSIONS and path.is_file() for path in folder.iterdir())


def _images(release: Release, folder: Path) -> tuple[list[str], list[str]]:
    """Names in a folder that the release uses, and names of other images; hidden files are not looked at."""
    pattern = re.compile(release.pattern)
    ours: list[str] = []
    others: list[str] = []
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            ours.append(path.name)
        elif path.suffix.lower() in EXTENSIONS and not path.name.startswith("."):
            others.append(path.name)
    return ours, others

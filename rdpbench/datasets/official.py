"""Official sets: what is published about them, where their files are on this machine, and whether they are right.

A set is looked for in ``data.path=FOLDER``, in ``$RDPBENCH_DATA`` and in the cache, under the folder names of its
archives, or in a folder that holds the images themselves. Files that rdpbench unpacked from a verified archive have a
manifest beside them, and every byte is compared with it (``recorded``). Other files are checked by names, counts and
sizes (``names``): that finds crops and mix-ups, and proves nothing.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from rdpbench.assets.hashes import file_facts
from rdpbench.datasets.contract import Here, Pin, PinKind, Sample
from rdpbench.datasets.fetching import OfficialArchive, listed_names, megabytes
from rdpbench.datasets.manifest import Manifest, differences, manifest_sha256
from rdpbench.errors import ConfigError, ImageError, UnknownName, few
from rdpbench.image import EXTENSIONS
from rdpbench.needs import Need
from rdpbench.paths import data_folders, variable


@dataclass(frozen=True)
class Drawn:
    """A seeded choice of names that needs no library and no state: names in the order of a sha256.

    Each name's place is its own, so what belongs to the set can be told without the other names.
    """

    salt: str
    last: str
    """Place of the last of the set's names, counted without regard to sizes."""
    stand_ins: int
    """How many more names stand in for images that are too small."""
    last_stand_in: str
    """Place of the last of these."""
    short_side: int
    """Images with a shorter side are passed over, since the set's protocol refuses them."""

    def place(self, name: str) -> str:
        """Where a name stands in the order.

        >>> Drawn("demo", "", 0, "", 256).place("a.jpg")[:8]
        'ef2d8d0b'
        """
        return hashlib.sha256(f"rdpbench {self.salt}:{name}".encode()).hexdigest()


@dataclass(frozen=True)
class Release:
    """What is published of an official set, under the name that rdpbench gives it."""

    name: str
    title: str
    count: int
    archives: tuple[OfficialArchive, ...]
    family: str
    """Folder in ``$RDPBENCH_DATA`` and in the cache that holds the archives' files of all its sets."""
    licence: str
    page: str
    """Where a person gets it."""
    protocol: str = "as-is"
    listed: str = ""
    """The published list of its names; without a list or numbers, all files of the archives are the set."""
    numbers: tuple[int, int] | None = None
    """The first and the last, where its images are numbered with four digits."""
    among: str = ""
    """A published list that every image of its archives is in."""
    names_sha256: str = ""
    """Of the sorted names, a line each, where they are known but not listed here."""
    drawn: Drawn | None = None
    """How its names are drawn from those of the archives, where rdpbench does that."""
    longest_side: tuple[int, int] | None = None
    """The least and most pixels that the longer side of an image has."""
    otherwise: str = ""
    """What an image of another size is."""
    patches: int | None = None
    """Patches of 256 pixels in HiFiC's two grids over the whole set, where published."""
    varied: bool = False
    """Do its images differ in size, so that many equal squares are a cropped or resized copy?"""

    @property
    def names(self) -> Sequence[str]:
        """The names of its images, where they are known."""
        if self.numbers:
            return [f"{number:04d}.png" for number in range(self.numbers[0], self.numbers[1] + 1)]
        return listed_names(self.listed) if self.listed else ()

    @property
    def download_bytes(self) -> int:
        """Bytes of all archives; 0 if one does not state its size."""
        sizes = [archive.bytes or 0 for archive in self.archives]
        return sum(sizes) if all(sizes) else 0

    @property
    def download_size(self) -> str:
        """The same in words."""
        several = f" in {len(self.archives)} archives" if len(self.archives) > 1 else ""
        return megabytes(self.download_bytes) + several

    @property
    def hint(self) -> str:
        """How to get it by hand, in a few lines."""
        lines = [f"{self.name}: {self.download_size}, {self.page}; licence: {self.licence}"]
        lines += [f"  {archive.url} ({megabytes(archive.bytes)})" for archive in self.archives]
        lines.append(
            f"put the archives into {data_folders('archives')[-1]} or the folder archives in "
            f"{variable('RDPBENCH_DATA')} and type `rdpbench data fetch {self.name}`,\n"
            "or say data.path=FOLDER, a folder that holds the unpacked images"
        )
        return "\n".join(lines)

    def foreign(self, names: Sequence[str], strange: Sequence[str], others: Iterable[Release]) -> str:
        """Why images are not of this set's archives, by their names and those of strange files; empty if they may be.

        Of ``others``, the family, one that has as many images is named.
        """
        if strange:
            several = f"{len(strange)} of the images there have names that {self.name} does not use"
            return f"{several}: {few(sorted(strange))}"
        known = listed_names(self.among) if self.among else self.names if self.numbers else names
        unknown = sorted(set(names).difference(known))
        if not unknown:
            return ""
        are = "none of them is" if len(unknown) == len(names) else f"{len(unknown)} are not"
        several = f"of the {len(names)} images there {are} in the list of {self.name}: {few(unknown)}"
        return several + self._as_many(len(names), others)

    def wrong_count(self, names: Sequence[str], others: Iterable[Release], *, partial: bool) -> str:
        """Why the number or names of the images are not the set's, where no list says it; empty if they are."""
        count = len(names)
        if count > self.count or (count < self.count and not partial):
            go_on = "; allow_partial=true goes on with them, and marks the results" if count < self.count else ""
            return f"{count} images are there, and {self.name} has {self.count}{self._as_many(count, others)}{go_on}"
        if count == self.count and self.names_sha256 and names_sha256(names) != self.names_sha256:
            return f"there are {count} images, but their names are not those of {self.name}, such as {few(names)}"
        return ""

    def _as_many(self, count: int, others: Iterable[Release]) -> str:
        same = [other.name for other in others if other.count == count and other.name != self.name]
        return f"; {same[0]} has {count}" if same else ""

    def wrong_sizes(self, paths: Iterable[Path], *, whole: bool) -> str:
        """Why the images look cropped or resized; empty if all look original. Reads the files, in constant memory."""
        wrong: list[str] = []
        sizes: set[tuple[int, int]] = set()
        count = patches = 0
        side = self.longest_side
        for path, facts in file_facts(paths):
            count += 1
            if len(sizes) < 2:
                sizes.add((facts.width, facts.height))
            patches += hific_patches(facts.height, facts.width)
            if not facts.height:
                wrong.append(f"{path.name} is no image")
            elif side and not side[0] <= max(facts.height, facts.width) <= side[1]:
                wrong.append(f"{path.name} is {facts.width} x {facts.height}: {self.otherwise}")
        if wrong:
            return wrong[0] + (f", and {len(wrong) - 1} more of {count}" if len(wrong) > 1 else "")
        width, height = next(iter(sizes), (0, 0))
        if self.varied and len(sizes) == 1 and count > 2 and width == height:
            return (
                f"all {count} images are {width} x {height}: a cropped or resized copy, since the originals differ in "
                "size"
            )
        if whole and self.patches and patches != self.patches:
            return (
                f"the images hold {patches} patches of 256 pixels in the two grids of HiFiC, and those of {self.name} "
                f"hold {self.patches}: they were cropped or resized"
            )
        return ""


@cache
def _published() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("official.toml").read_text(encoding="utf-8"))


def archives_of(family: str) -> dict[str, OfficialArchive]:
    """The archives of a family in ``official.toml``, by their folders.

    >>> archives_of("coco")["val2017"].count
    5000
    """
    record = _published()[family]
    shared = {"names": record["names"]} if "names" in record else {}
    return {folder: OfficialArchive(folder=folder, **shared | fields) for folder, fields in record["archives"].items()}


def releases_of(family: str) -> dict[str, Release]:
    """The sets of a family in ``official.toml``, by their splits."""
    record, archives = _published()[family], archives_of(family)
    shared = {name: record[name] for name in record if name not in ("prefix", "names", "archives", "sets")}
    releases = {}
    for split, own in record["sets"].items():
        fields = {"name": record["prefix"] + split, "family": family, **shared, **own}
        fields["archives"] = tuple(archives[folder] for folder in own["archives"])
        fields["drawn"] = Drawn(**own["drawn"]) if "drawn" in own else None
        releases[split] = Release(**fields)
    return releases


@dataclass(frozen=True)
class Unpacked:
    """A folder that holds images of a set."""

    path: Path
    tag: str
    manifest: Manifest | None
    """Recorded when the files were unpacked."""
    proven: bool
    """Recorded, and of an archive that had its published hash."""

    def sha256(self, name: str) -> str | None:
        """The recorded hash of a file."""
        return self.manifest.files.get(name) if self.manifest else None

    def images(self, release: Release) -> tuple[list[str], list[str]]:
        """Names that the release uses, and names of other images; hidden files are not looked at."""
        pattern = re.compile(release.archives[0].names)
        names = [path.name for path in self.path.iterdir()]
        ours = [name for name in names if pattern.fullmatch(name)]
        others = [name for name in names if Path(name).suffix.lower() in EXTENSIONS and not name.startswith(".")]
        return ours, list(set(others).difference(ours))


@dataclass(frozen=True)
class Official:
    """The official sets of one family: `CLIC`, `DIV2K`, `COCO`."""

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
        return self.release.download_size

    @property
    def download_bytes(self) -> int:
        """The same as a number; 0 where nobody states it."""
        return self.release.download_bytes

    def __len__(self) -> int:
        return self.release.count

    def missing(self) -> str | None:
        if self.path is not None or all(self._places()):
            return None
        return f"{self.name} is not here\n{self.release.hint}"

    def samples(self) -> Iterator[Sample]:
        """In the order of their names."""
        for name, folder in self._files().items():
            yield self._sample(name, folder)

    def pinned(self) -> Pin:
        """Hash of the whole set's manifest, and what it is worth.

        Of files that nobody verified all bytes are hashed, and remembered. A partial set is pinned by what is here.
        """
        files = self._files()
        recorded = [(name, folder.sha256(name) or "") for name, folder in files.items()]
        if all(sha256 for _, sha256 in recorded):
            return Pin(manifest_sha256(recorded), _kind(files.values()))
        facts = file_facts(folder.path / name for name, folder in files.items())
        return Pin(manifest_sha256((path.name, fact.sha256) for path, fact in facts), "names")

    def here(self) -> Here:
        """What lies here, by names alone."""
        folders = self._folders()
        if not folders:
            return Here(0, None)
        release = self.release
        names = {name for folder in folders for name in folder.images(release)[0]}
        if release.names:
            names &= set(release.names)
        elif drawn := release.drawn:
            names = {name for name in names if drawn.place(name) <= drawn.last}
        return Here(min(len(names), len(self)), _kind(folders), folders[0].path)

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
        for archive, place in zip(self.release.archives, self._places(), strict=True):
            if place is None:
                archive.fetch(data_folders(self.release.family)[-1], self.source, self.release.hint)

    def verify(self) -> list[str]:
        """Read every byte again and say what is not as recorded; of a set without record, what cannot be of it."""
        try:
            files = self._files()
        except ImageError as error:
            return [str(error)]
        return differences({folder.path / name: folder.sha256(name) for name, folder in files.items()})

    def _sample(self, name: str, folder: Unpacked) -> Sample:
        return Sample(Path(name).stem, folder.path / name, (folder.tag,) if folder.tag else (), folder.sha256(name))

    # What lies where

    def _places(self) -> list[Path | None]:
        """For each archive the folder that holds its files."""
        if self.path is not None:
            roots = images = [Path(self.path).expanduser().absolute()]
            if not roots[0].is_dir():
                raise ImageError(f"no such folder: {roots[0]}, named by data.path={self.path}")
        else:
            roots, images = data_folders(self.release.family), data_folders(self.release.name)
        folders = ([*(root / archive.folder for root in roots), *images] for archive in self.release.archives)
        return [next(filter(_holds_images, several), None) for several in folders]

    def _folders(self) -> list[Unpacked]:
        """The folders that hold files of the set."""
        places = self._places()
        folders: dict[Path, Unpacked] = {}
        for archive, place in zip(self.release.archives, places, strict=True):
            if place is not None:
                # A folder that holds the files of several archives has no manifest that is of one.
                alone = places.count(place) == 1
                manifest = archive.record(place) if alone else None
                proven = manifest is not None and bool(archive.published)
                folders[place] = Unpacked(place, archive.tag if alone else "", manifest, proven)
        return list(folders.values())

    def _files(self) -> dict[str, Unpacked]:
        """The set's files that are here, in order, with their folders; all that can be refused is refused before."""
        if self.path is None and not all(self._places()):
            self.fetch()
        folders = self._folders()
        files: dict[str, Unpacked] = {}
        strange: list[str] = []
        for folder in folders:
            names, others = folder.images(self.release)
            if twice := files.keys() & set(names):
                raise self._refusal(f"{few(sorted(twice))} lie in two folders", f"{folder.path}, among others,")
            files |= dict.fromkeys(names, folder)
            strange += others
        files = dict(sorted(files.items()))
        where = ", ".join(str(folder.path) for folder in folders) or self.path
        family = self.RELEASES.values()
        if not files and not strange:
            raise self._refusal(f"no image of {self.name} is there", where)
        if why := self.release.foreign(list(files), strange, family):
            raise self._refusal(why, where)
        names, missing = self._choose(files)
        files = {name: files[name] for name in names}
        why = self._wrong_sizes(files, whole=not missing and len(files) == len(self))
        if not why and not self.release.names and not self.release.drawn:
            why = self.release.wrong_count(names, family, partial=self.allow_partial)
        if not why and (not files or (missing and not self.allow_partial)):
            which = f": {few(sorted(set(self.release.names).difference(names)))}" if self.release.names else ""
            why = (
                f"{missing} of its {len(self)} images are missing{which}; allow_partial=true goes on with the "
                f"{len(files)} that are here, and marks the results"
            )
        if why:
            raise self._refusal(why, where)
        return files

    def _choose(self, files: Mapping[str, Unpacked]) -> tuple[list[str], int]:
        """The set's names among those of the files, in order, and how many are missing."""
        names = set(self.release.names)
        if not names:
            return list(files), 0
        chosen = [name for name in files if name in names]
        return chosen, len(names) - len(chosen)

    def _wrong_sizes(self, files: Mapping[str, Unpacked], *, whole: bool) -> str:
        """What is wrong with the sizes of the files that no manifest vouches for; empty if nothing."""
        paths = self._unrecorded(files)
        return self.release.wrong_sizes(paths, whole=whole and len(paths) == len(files))

    def _unrecorded(self, files: Mapping[str, Unpacked]) -> list[Path]:
        return [folder.path / name for name, folder in files.items() if folder.sha256(name) is None]

    def _refusal(self, why: str, where: object) -> ImageError:
        return ImageError(f"{where} is not {self.name} ({self.release.title}): {why}\n{self.release.hint}")


@dataclass(frozen=True)
class CLIC(Official):
    """The Challenge on Learned Image Compression: at least five sets that papers call by this one name.

    ``split`` is a set's name without ``clic``; ``official.toml`` says which papers use which.

    >>> len(CLIC("2020-test"))
    428
    """

    RELEASES: ClassVar[Mapping[str, Release]] = releases_of("clic")


@dataclass(frozen=True)
class DIV2K(Official):
    """DIV2K, high resolution; ``split`` is ``valid``, images 0801 to 0900, or ``train``, 0001 to 0800.

    >>> len(DIV2K("valid"))
    100
    """

    RELEASES: ClassVar[Mapping[str, Release]] = releases_of("div2k")


def _kind(folders: Iterable[Unpacked]) -> PinKind:
    return "recorded" if all(folder.proven for folder in folders) else "names"


def _holds_images(folder: Path) -> bool:
    """Is there any image? Also one of a wrong name: `Release.foreign` says what is wrong with it."""
    return folder.is_dir() and any(path.suffix.lower() in EXTENSIONS and path.is_file() for path in folder.iterdir())


def names_sha256(names: Iterable[str]) -> str:
    """Hash of names in sorted order, a line each.

    >>> names_sha256(["b", "a"]) == names_sha256(["a", "b"])
    True
    """
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(names)).encode()).hexdigest()


def hific_patches(height: int, width: int) -> int:
    """Patches of 256 pixels in a grid and in one shifted by 128, as FID on CLIC and DIV2K takes them (HiFiC, A.7).

    >>> hific_patches(768, 512)
    8
    """
    return (height // 256) * (width // 256) + max(0, (height - 128) // 256) * max(0, (width - 128) // 256)

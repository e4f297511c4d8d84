"""Get an official archive: found here or downloaded, verified, unpacked, and recorded beside its files.

Archives are looked for in ``$RDPBENCH_DATA/archives`` and in the cache's ``data/archives``, where downloads go; what
was downloaded is deleted once it is unpacked, what a user put there stays.

What tells an official set from files that only look like it: names, counts, sizes. Each finding is a sentence.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rdpbench.assets.archive import unpack
from rdpbench.assets.download import download
from rdpbench.assets.hashes import FileFacts
from rdpbench.datasets.manifest import Manifest
from rdpbench.errors import ConfigError, ImageError, MissingNeed
from rdpbench.paths import cache_folder, data_folders

_SLACK = 64_000_000
"""Bytes that may come out of a small archive beyond its growth."""


def hint(release: Release) -> str:
    """How to get a set by hand, in a few lines."""
    lines = [f"{release.name}: {release.download_size()}, {release.page}; licence: {release.licence}"]
    lines += [f"  {part.archive.url} ({part.archive.size()})" for part in release.parts]
    lines.append(
        f"put the archives into {data_folders('archives')[-1]} or $RDPBENCH_DATA/archives and type "
        f"`rdpbench data fetch {release.name}`,"
    )
    return "\n".join([*lines, "or say data.path=FOLDER, a folder that holds the unpacked images"])


def recorded(part: Part, folder: Path) -> Manifest | None:
    """The manifest that was recorded when the part's archive was unpacked into a folder; None without one.

    One of another archive is not believed: the files are then judged by names and sizes.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = Manifest.read(path)
    except ConfigError as error:
        raise ImageError(f"{error}; delete it, and the files are judged by their names and sizes") from error
    header = manifest.header
    if header.get("archive") != part.archive.file:
        return None
    for what, published in (("sha256", part.archive.sha256), ("md5", part.archive.md5)):
        if published and header.get(what) != published:
            return None
    return manifest


def fetch(part: Part, family: str, source: str | None, how: str) -> Path:
    """Unpack a part of a set into the cache, from an archive that lies here or is downloaded; returns the folder.

    Args:
        part: what to get.
        family: folder name of the publisher's sets.
        source: address of a folder with copies of the archives; None means the publisher's.
        how: how to get it by hand; ends each error.

    Raises:
        MissingNeed: no network, other bytes, too little disk.
        ImageError: the archive does not hold what it should.
    """
    folder = data_folders(family)[-1] / part.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.fetching.lock")):
        if recorded(part, folder):  # by a process that was waited for
            return folder
        archive, hashes, own = _archive(part.archive, source, how)
        unpack_part(part, archive, folder, hashes)
        if not own:
            archive.unlink(missing_ok=True)
    return folder


def _archive(archive: Archive, source: str | None, how: str) -> tuple[Path, dict[str, str], bool]:
    """The verified archive, its hashes, and whether it is the user's own."""
    for place in data_folders("archives"):
        path = place / archive.file
        if path.is_file():
            hashes = _hashes(path)
            for name, published in (("sha256", archive.sha256), ("md5", archive.md5)):
                if published and hashes[name] != published:
                    raise MissingNeed(
                        f"{path} is not the official archive: {name} {hashes[name]}, published is {published}\n{how}"
                    )
            return path, hashes, True
    target = cache_folder() / "data" / "downloading" / archive.file
    target.parent.mkdir(parents=True, exist_ok=True)
    # The archive and what comes out of it lie here together for a while.
    needed, free = 2 * (archive.bytes or 0), shutil.disk_usage(target.parent).free
    if free < needed:
        raise MissingNeed(
            f"{archive.file} and its files need {needed / 1e6:,.0f} MB and {target.parent} has {free / 1e6:,.0f} MB "
            f"left; RDPBENCH_CACHE=FOLDER names a place on another disk\n{how}"
        )
    url = f"{source.rstrip('/')}/{archive.file}" if source else archive.url
    exact = archive.bytes is not None and archive.published
    download(url, target, sha256=archive.sha256, md5=archive.md5, size=archive.bytes, hint=how, exact=exact)
    return target, _hashes(target), False


def _hashes(path: Path) -> dict[str, str]:
    # md5 is what some publishers gave; it tells a wrong file, not a forged one.
    digests = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            for digest in digests.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def unpack_part(part: Part, archive: Path, folder: Path, hashes: dict[str, str] | None = None) -> None:
    """Unpack a verified archive and record it; the folder appears when both are done.

    Raises:
        ImageError: the folder holds something, or the archive not what it should.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ImageError(
            f"{folder} holds files that rdpbench did not unpack; move them away, or say data.path={folder} to use them"
        )
    print(f"unpacking {archive.name} into {folder}", file=sys.stderr, flush=True)
    limit = archive.stat().st_size * part.archive.growth + _SLACK
    staged = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
    try:
        found = unpack(archive, staged, wanted=part.name_of, limit_bytes=limit)
        if part.count is not None and len(found) != part.count:
            raise ImageError(f"{archive} holds {len(found)} of the files that it should hold {part.count} of")
        header = {
            "rdpbench": "recorded when this archive was unpacked",
            "archive": part.archive.file,
            "address": part.archive.url,
            **(hashes or _hashes(archive)),
            "checked": " and ".join(w for w in ("sha256", "md5") if getattr(part.archive, w)) or "nothing published",
        }
        Manifest({name: found[name] for name in sorted(found)}, header).write(staged / MANIFEST)
        if folder.is_dir():
            folder.rmdir()
        staged.replace(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


_SHOWN = 5


def some(names: Iterable[str]) -> str:
    """The first few of many names.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    several = list(names)
    rest = f" and {len(several) - _SHOWN} more" if len(several) > _SHOWN else ""
    return ", ".join(several[:_SHOWN]) + rest


def foreign(release: Release, present: Sequence[str], extras: Sequence[str], others: Mapping[str, Release]) -> str:
    """Images that the set does not have; empty if there are none.

    Of a set that is a part of its archives, other images of these archives may lie beside it.
    """
    if extras:
        return f"{len(extras)} of the images there have names that {release.name} does not use: {some(sorted(extras))}"
    listed = release.within or (None if release.subset else release.listed)
    known = set(listed()) if listed else set()
    unknown = sorted(name for name in present if name not in known) if known else []
    if not unknown:
        return ""
    are = "none of them is" if len(unknown) == len(present) else f"{len(unknown)} are not"
    return (
        f"of the {len(present)} images there {are} in the list of {release.name}: {some(unknown)}"
        f"{_as_many(len(present), release, others)}"
    )


def wrong_count(release: Release, present: Sequence[str], others: Mapping[str, Release], *, partial: bool) -> str:
    """More or fewer files than the set has, or other names; empty if they agree. For sets without a list."""
    found = len(present)
    if found > release.count or (found < release.count and not partial):
        go_on = "; allow_partial=true goes on with them, and marks the results" if found < release.count else ""
        return (
            f"{found} images are there, and {release.name} has {release.count}{_as_many(found, release, others)}{go_on}"
        )
    if found == release.count and release.names_sha256 and names_sha256(present) != release.names_sha256:
        return f"there are {found} images, but their names are not those of {release.name}, such as {some(present)}"
    return ""


def _as_many(count: int, release: Release, others: Mapping[str, Release]) -> str:
    same = [other.name for other in others.values() if other.count == count and other.name != release.name]
    return f"; {same[0]} has {count}" if same else ""


def wrong_sizes(release: Release, facts: Iterator[tuple[Path, FileFacts]], *, whole: bool) -> str:
    """Images that were cropped or resized; empty if all look original. Reads the files, in constant memory."""
    wrong: list[str] = []
    sizes: set[tuple[int, int]] = set()
    count = patches = 0
    for path, found in facts:
        count += 1
        if len(sizes) < 2:
            sizes.add((found.width, found.height))
        patches += hific_patches(found.height, found.width)
        if not found.height:
            wrong.append(f"{path.name} is no image")
        elif release.geometry and (why := release.geometry(found.height, found.width)):
            wrong.append(f"{path.name} is {found.width} x {found.height}: {why}")
    if wrong:
        more = f", and {len(wrong) - 1} more of {count}" if len(wrong) > 1 else ""
        return f"{wrong[0]}{more}"
    width, height = next(iter(sizes), (0, 0))
    if release.varied and len(sizes) == 1 and count > 2 and width == height:
        return (
            f"all {count} images are {width} x {height}: a cropped or resized copy, since the originals differ in size"
        )
    if whole and release.patches and patches != release.patches:
        return (
            f"the images hold {patches} patches of 256 pixels in the two grids of HiFiC, and those of {release.name} "
            f"hold {release.patches}: they were cropped or resized"
        )
    return ""


Geometry = Callable[[int, int], str]
"""From height and width to why an image cannot be of this set; empty if it can."""


Names = Callable[[], Iterable[str]]
"""File names; a function, as most commands never ask for them."""


MANIFEST = "manifest.sha256"
"""Beside the unpacked files: what they were when their archive was verified."""


@dataclass(frozen=True)
class Archive:
    """One official file to download."""

    url: str
    bytes: int | None
    """None where nobody states it."""
    sha256: str | None = None
    md5: str | None = None
    """Checked where it is what was published."""
    growth: int = 2
    """At most so many bytes come out of one: images do not shrink in an archive, annotations do."""

    @property
    def file(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]

    @property
    def published(self) -> bool:
        """Did anybody publish a hash of it?"""
        return bool(self.sha256 or self.md5)

    def size(self) -> str:
        """For messages.

        >>> Archive("https://example.org/a.zip", 448_993_893).size()
        '449 MB'
        """
        return f"{self.bytes / 1e6:,.0f} MB" if self.bytes else "size not stated"


@dataclass(frozen=True)
class Part:
    """The files of a set that come from one archive."""

    archive: Archive
    folder: str
    """Below the family's folder."""
    count: int | None
    """Files that are unpacked; None where nobody states how many."""
    members: str
    """Regular expression of their paths in the archive; the first group is the name here."""
    tag: str = ""
    wanted: Callable[[str], bool] | None = None
    """Chooses among the names; None means all."""

    def name_of(self, member: str) -> str | None:
        """From a path in the archive to the name here, or None to leave it out.

        >>> DIV2K_LIKE = Part(Archive("", 1), "", 100, r"(?:.*/)?(0\\d{3}\\.png)")
        >>> DIV2K_LIKE.name_of("DIV2K_valid_HR/0801.png"), DIV2K_LIKE.name_of("readme.txt")
        ('0801.png', None)
        """
        found = re.fullmatch(self.members, member)
        if not found or (self.wanted and not self.wanted(found[1])):
            return None
        return found[1]


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
    """An official set under the name that rdpbench gives it."""

    name: str
    title: str
    family: str
    """Folder in ``$RDPBENCH_DATA`` and in the cache that holds the parts of all its sets."""
    parts: tuple[Part, ...]
    count: int
    """Images in the set."""
    pattern: str
    """Regular expression of the file names that these archives hold."""
    licence: str
    page: str
    """Where a person gets it."""
    protocol: str = "as-is"
    listed: Names | None = None
    """Its published names; None means that all files of the archives are the set."""
    subset: bool = False
    """Do the archives hold more images than the set?"""
    names_sha256: str = ""
    """Of the sorted names, a line each, where they are known but not listed here."""
    within: Names | None = None
    """Names that all of its own are among, where the set is a part of a listed one."""
    drawn: Drawn | None = None
    """How its names are drawn from those of the archives, where rdpbench does that."""
    geometry: Geometry | None = None
    patches: int | None = None
    """Patches of 256 pixels in HiFiC's two grids over the whole set, where published."""
    varied: bool = False
    """Do its images differ in size, so that many equal squares are a cropped or resized copy?"""

    def names(self) -> Iterator[str]:
        """The published names; nothing where there is no list."""
        return iter(self.listed() if self.listed else ())

    def download_bytes(self) -> int | None:
        """Bytes of all archives; None if one does not state its size."""
        sizes = [part.archive.bytes for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size)

    def download_size(self) -> str:
        """For messages."""
        several = f" in {len(self.parts)} archives" if len(self.parts) > 1 else ""
        size = self.download_bytes()
        return f"{size / 1e6:,.0f} MB{several}" if size else f"size not stated{several}"


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

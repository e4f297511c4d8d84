"""What is known of an official release: its archives, the names in them, and what its images look like.

Only facts, no files: `rdpbench.datasets.official` finds them on this machine, `rdpbench.datasets.fetching` gets them.
No hash here is invented: where nobody published one, the field is None, and rows say that nothing was compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

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

"""Get an official archive: find it here or download it, verify it, unpack it, and record what it held.

Archives are looked for in ``$RDPBENCH_DATA/archives`` and in the cache's ``data/archives``. What was downloaded is
deleted once it is unpacked; what a user put there stays.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from filelock import FileLock

from rdpbench.assets.archive import unpack_zip
from rdpbench.assets.download import download
from rdpbench.assets.hashes import digests
from rdpbench.datasets.manifest import Manifest
from rdpbench.errors import ConfigError, ImageError, MissingNeed
from rdpbench.paths import cache_folder, data_folders

MANIFEST = "manifest.sha256"
"""Beside the unpacked files: what they were when their archive was verified."""
_SLACK = 64_000_000
"""Bytes that may come out of a small archive beyond its growth."""


def megabytes(size: int | None) -> str:
    """A size for messages.

    >>> megabytes(448_993_893), megabytes(None)
    ('449 MB', 'size not stated')
    """
    return f"{size / 1e6:,.0f} MB" if size else "size not stated"


@cache
def listed_names(name: str) -> tuple[str, ...]:
    """File names of a published list in ``lists/``, in its order; the file's header names the source.

    ``# name: COCO_val2014_%012d.jpg`` in it turns numbers into file names; without it a line is a name.

    >>> listed_names("coco-restval")[0]
    'COCO_val2014_000000000073.jpg'
    """
    lines = Path(__file__).with_name("lists").joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines()
    patterns = [line.removeprefix("# name: ") for line in lines if line.startswith("# name: ")]
    names = (line for line in lines if line and not line.startswith("#"))
    return tuple(patterns[0] % int(name) for name in names) if patterns else tuple(names)


@cache
def _wanted(name: str) -> frozenset[str]:
    return frozenset(listed_names(name))


@dataclass(frozen=True)
class OfficialArchive:
    """One official file to download, and which of the files in it are unpacked."""

    url: str
    folder: str
    """Where its files lie, below the family's folder."""
    names: str
    """Regular expression of their names here, which their paths in the archive end in."""
    count: int | None = None
    """Files that are unpacked; None where nobody states how many."""
    bytes: int | None = None
    """None where nobody states it."""
    sha256: str | None = None
    """None where nobody published one."""
    md5: str | None = None
    """Checked where it is what was published."""
    growth: int = 2
    """At most so many bytes come out of one: images do not shrink in an archive, annotations do."""
    tag: str = ""
    """Of its images."""
    only: str = ""
    """A published list of the names that are wanted; without, all are."""

    @property
    def file(self) -> str:
        """Its file name."""
        return self.url.rpartition("/")[2]

    @property
    def published(self) -> dict[str, str]:
        """The published hashes by their kind; empty if there are none."""
        return {kind: value for kind, value in (("sha256", self.sha256), ("md5", self.md5)) if value}

    def name_of(self, member: str) -> str | None:
        """From a path in the archive to the name here, or None to leave it out.

        >>> div2k = OfficialArchive("", "", r"0\\d{3}\\.png")
        >>> div2k.name_of("DIV2K_valid_HR/0801.png"), div2k.name_of("readme.txt")
        ('0801.png', None)
        """
        match = re.fullmatch(rf"(?:.*/)?({self.names})", member)
        return match[1] if match and (not self.only or match[1] in _wanted(self.only)) else None

    def record(self, folder: Path) -> Manifest | None:
        """The manifest that was recorded when this archive was unpacked into a folder; None without one.

        One of another archive is not believed: the files are then judged by names and sizes.
        """
        if not (folder / MANIFEST).is_file():
            return None
        try:
            manifest = Manifest.read(folder / MANIFEST)
        except ConfigError as error:
            raise ImageError(f"{error}; delete it, then the files are checked by their names and sizes") from error
        expected = {"archive": self.file, **self.published}
        return manifest if expected.items() <= dict(manifest.header).items() else None

    def fetch(self, home: Path, source: str | None, hint: str) -> None:
        """Unpack it below a family's folder, from a file that lies here or is downloaded.

        ``source`` is the address of a folder with copies of the archives, and ``hint`` ends each error.

        Raises:
            MissingNeed: no network, other bytes, too little disk.
            ImageError: the archive does not hold what it should.
        """
        folder = home / self.folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.fetching.lock")):
            if self.record(folder):  # by a process that was waited for
                return
            own = next((path for place in data_folders("archives") if (path := place / self.file).is_file()), None)
            file = own or self._download(source, hint)
            hashes = digests(file, ("sha256", "md5"))
            for kind, published in self.published.items():
                if hashes[kind] != published:
                    raise MissingNeed(
                        f"{file} is not the official archive: {kind} {hashes[kind]}, published is {published}\n{hint}"
                    )
            self.unpack(file, folder, hashes)
            if own is None:
                file.unlink(missing_ok=True)

    def _download(self, source: str | None, hint: str) -> Path:
        target = cache_folder() / "data" / "downloading" / self.file
        target.parent.mkdir(parents=True, exist_ok=True)
        # The archive and what comes out of it lie here together for a while.
        needed, free = 2 * (self.bytes or 0), shutil.disk_usage(target.parent).free
        if free < needed:
            raise MissingNeed(
                f"{self.file} and its files need {megabytes(needed)} and {target.parent} has {free / 1e6:,.0f} MB "
                f"left; RDPBENCH_CACHE=FOLDER names a place on another disk\n{hint}"
            )
        url = f"{source.rstrip('/')}/{self.file}" if source else self.url
        exact = self.bytes is not None and bool(self.published)
        download(url, target, sha256=self.sha256, md5=self.md5, size=self.bytes, hint=hint, exact=exact)
        return target

    def unpack(self, file: Path, folder: Path, hashes: dict[str, str] | None = None) -> None:
        """Unpack the verified archive and record it; the folder appears when both are done.

        Raises:
            ImageError: the folder holds something, or the archive not what it should.
        """
        if folder.is_dir() and any(folder.iterdir()):
            raise ImageError(
                f"{folder} holds files that rdpbench did not unpack; move them away, or say data.path={folder} to use "
                "them"
            )
        print(f"unpacking {file.name} into {folder}", file=sys.stderr, flush=True)
        limit = file.stat().st_size * self.growth + _SLACK
        staged = folder.with_name(f".{folder.name}.fetched")
        shutil.rmtree(staged, ignore_errors=True)  # of a process that was killed
        try:
            files = unpack_zip(file, staged, wanted=self.name_of, limit_bytes=limit)
            if self.count is not None and len(files) != self.count:
                raise ImageError(f"{file} holds {len(files)} of the {self.count} files that it should hold")
            header = {
                "rdpbench": "recorded when this archive was unpacked",
                "archive": self.file,
                "address": self.url,
                **(hashes or digests(file, ("sha256", "md5"))),
                "checked": " and ".join(self.published) or "nothing published",
            }
            Manifest(dict(sorted(files.items())), header).write(staged / MANIFEST)
            if folder.is_dir():
                folder.rmdir()
            staged.replace(folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

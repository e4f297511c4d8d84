"""Get an official archive: found here or downloaded, verified, unpacked, and recorded beside its files.

Archives are looked for in ``$RDPBENCH_DATA/archives`` and in the cache's ``data/archives``, where downloads go; what
was downloaded is deleted once it is unpacked, what a user put there stays.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from rdpbench.datasets.archive import unpack
from rdpbench.datasets.manifest import Manifest
from rdpbench.datasets.releases import MANIFEST, Archive, Part, Release
from rdpbench.download import download
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

"""Unpack downloaded zip files safely: the names, sizes and types that they state are checked, not trusted.

All entries are judged before anything is written, also those that nobody wants: an archive in which one name leads out
of the folder is not the one that was meant. What is wanted is inflated block by block, counted and hashed, into a
folder beside the final one, which gets its name at the end: a kill leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from filelock import FileLock

from rdpbench.assets.hashes import file_sha256
from rdpbench.errors import ImageError, MissingNeed
from rdpbench.progress import Progress, Report, show_progress

_RATIO = 250
"""Most bytes out of one; photographs give 1, annotations about 10, a bomb of deflate up to 1032."""
_FREE_OF_RATIO = 1 << 20
_LONGEST_READ = 1 << 22
_DIRECTORY_PER_FILE = 256
"""Bytes of a zip's directory that an entry may take on average."""
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, LookupError),
)
"""What the standard library raises where an archive is damaged."""
_SPECIAL = {stat.S_IFLNK: "a symbolic link", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device", stat.S_IFIFO: "a pipe"}
_BLOCK = 1 << 20
_LITTER = frozenset({".DS_Store", "Thumbs.db"})


class Hostile(Exception):
    """What an honest archive does not do."""


class _Limits(NamedTuple):
    bytes: int
    file_bytes: int
    files: int


class _Bounded(io.BufferedReader):
    """Refuses long reads: a zip's directory is read whole, and would lie in memory several times over."""

    def __init__(self, path: Path, longest: int) -> None:
        super().__init__(io.FileIO(path))
        self.longest = longest

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.longest:
            raise Hostile(f"its directory has {size} bytes, allowed are {self.longest}")
        return super().read(size)


def unpack_zip(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], str | None],
    limit_bytes: int,
    limit_files: int = 200_000,
    limit_file_bytes: int | None = None,
    progress: Report | None = None,
) -> dict[str, str]:
    """Write the wanted files of a zip below ``folder``, which must not hold anything yet.

    Args:
        archive: told by its first bytes.
        folder: gets its name when all is written. A process that waited here for another one returns its files.
        wanted: from a file's name in the archive to its name below ``folder``, or None to leave it out. ``__MACOSX``,
            ``._*``, ``.DS_Store`` and ``Thumbs.db`` are never asked for.
        limit_bytes: of all files that are inflated.
        limit_files: entries of the archive.
        limit_file_bytes: of one file; by default ``limit_bytes``.
        progress: called with bytes written and bytes wanted, in place of a bar or lines.

    Returns:
        The sha256 of each file by its name below ``folder``, in the archive's order.

    Raises:
        ImageError: no archive, a damaged, hostile or useless one, or a folder that holds something.
        MissingNeed: too little disk.
    """
    if not archive.is_file():
        raise ImageError(f"no such archive: {archive}")
    folder = folder.resolve()
    limits = _Limits(limit_bytes, limit_file_bytes or limit_bytes, limit_files)
    before = _holds_something(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.unpacking")
    lock = folder.with_name(f".{folder.name}.lock")
    with FileLock(lock):
        if _holds_something(folder):
            if before:
                raise ImageError(f"{folder} holds something already; remove it, and {archive.name} is unpacked there")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        try:
            hashes = _unpack(archive, part, wanted, limits, progress)
            part.replace(folder)
        except Hostile as error:
            raise ImageError(f"{archive} is refused: {error}") from error
        except OSError as error:
            raise ImageError(f"cannot unpack {archive}: {error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        lock.unlink(missing_ok=True)
    return hashes


def _holds_something(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


@contextlib.contextmanager
def _reading(path: Path, name: str = "") -> Iterator[None]:
    """Around calls into the standard library alone, so that a fault of ours is not taken for damage."""
    try:
        yield
    except _DAMAGE as error:
        place = f" at {name!r}" if name else ""
        raise ImageError(f"{path} is damaged{place}: {str(error) or type(error).__name__}") from error


def _unpack(
    path: Path, part: Path, wanted: Callable[[str], str | None], limits: _Limits, progress: Report | None
) -> dict[str, str]:
    hashes: dict[str, str] = {}
    with _Bounded(path, max(_LONGEST_READ, limits.files * _DIRECTORY_PER_FILE)) as opened:
        first = opened.read(16)
        if first[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise ImageError(f"{path} is no zip: it begins with {first!r}")
        with _reading(path):
            archive = zipfile.ZipFile(opened)
        chosen = _judge(archive, wanted, limits)
        whole = sum(info.file_size for info, _ in chosen)
        if (free := shutil.disk_usage(part.parent).free) < whole:
            needs = f"{path.name} unpacks to {whole / 1e6:.0f} MB"
            raise MissingNeed(f"{needs} and {part.parent} has {free / 1e6:.0f} MB left")
        part.mkdir()
        with show_progress(path.name, report=progress) as shown:
            done = 0
            for info, target in chosen:
                with _reading(path, info.orig_filename):
                    content = archive.open(info)
                with content:
                    hashes[target] = _write(path, info, content, part / target, shown, done, whole)
                done += info.file_size
    return hashes


def _judge(
    archive: zipfile.ZipFile, wanted: Callable[[str], str | None], limits: _Limits
) -> list[tuple[zipfile.ZipInfo, str]]:
    """The wanted entries, each with its name on the disk; all entries are looked at."""
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise Hostile(f"{info.orig_filename!r} shares its bytes with another entry")
        end = info.header_offset + 30 + info.compress_size
    if end > archive.start_dir:
        raise Hostile("an entry overlaps the directory of the zip")
    chosen: list[tuple[zipfile.ZipInfo, str]] = []
    seen: dict[str, str] = {}
    targets: dict[str, str] = {}
    total = 0
    for number, info in enumerate(archive.infolist(), 1):
        if number > limits.files:
            raise Hostile(f"it has more than {limits.files} entries")
        name = plain_name(info.orig_filename)  # the other name ends at the first NUL
        if info.is_dir() or _is_litter(name):
            continue
        if flaw := _flaw(info):
            raise Hostile(f"{name!r} is {flaw}")
        _once(seen, name, name)
        target = wanted(name)
        if target is None:
            continue
        target = plain_name(target)
        _once(targets, target, name)
        total += info.file_size
        if info.file_size > limits.file_bytes:
            raise Hostile(f"{info.orig_filename!r} has {info.file_size} bytes, allowed are {limits.file_bytes}")
        if total > limits.bytes:
            raise Hostile(f"its files have more than the {limits.bytes} bytes that are allowed")
        chosen.append((info, target))
    if not chosen:
        held = ", ".join(map(repr, list(seen.values())[:5])) or "nothing"
        raise Hostile(f"none of its {len(seen)} files is part of the set; it holds {held}")
    return chosen


def _flaw(info: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked; empty if it may be."""
    if info.file_size > max(_FREE_OF_RATIO, _RATIO * info.compress_size):
        return f"a bomb: {info.file_size} bytes out of {info.compress_size}"
    if info.flag_bits & 0x41:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python inflates the other methods without a bound.
        return f"compressed by method {info.compress_type}; read are 0 (stored) and 8 (deflate)"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else _SPECIAL.get(kind, "a special file")


def _once(seen: dict[str, str], name: str, source: str) -> None:
    """Refuse a second name that is the same on a disk which ignores case or composes letters."""
    folded = unicodedata.normalize("NFC", name).casefold()
    if folded in seen:
        raise Hostile(f"{source!r} and {seen[folded]!r} have the same name on some disks")
    seen[folded] = source


def plain_name(name: str) -> str:
    """A relative name without ``.`` and empty parts; `Hostile` where it could mean another place or another name.

    >>> plain_name("./val2014//a.jpg"), len(plain_name("./"))
    ('val2014/a.jpg', 0)
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in name):
        raise Hostile(f"{name!r} has control characters in its name")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in parts:
        raise Hostile(f"{name!r} leads out of the folder")
    if "\\" in name:
        raise Hostile(f"{name!r} has a backslash in its name")
    return "/".join(parts)


def _is_litter(name: str) -> bool:
    folders, _, last = name.rpartition("/")
    return last.startswith("._") or last in _LITTER or "__MACOSX" in (last, *folders.split("/"))


def _write(
    path: Path, info: zipfile.ZipInfo, content: IO[bytes], target: Path, shown: Progress, done: int, whole: int
) -> str:
    """Write and hash what an entry holds, which must be as much as it declares."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        while True:
            with _reading(path, info.orig_filename):
                block = content.read(_BLOCK)
            if not block:
                break
            size += len(block)
            digest.update(block)
            out.write(block)
            shown(done + size, whole)
    if size != info.file_size:
        raise ImageError(f"{path} is damaged at {info.orig_filename!r}: {size} of {info.file_size} bytes")
    return digest.hexdigest()

"""Unpack an archive from somewhere else: zip, tar or tar.gz, of which no name, size or type is believed.

All entries are judged before anything is written, also those that nobody wants: an archive in which one name leads out
of the folder is not the one that was meant. What is wanted is inflated block by block, counted and hashed, into a
folder beside the final one, which gets its name at the end: a kill leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from rdpbench.datasets.archive_formats import Entry, Hostile, Limits, open_archive, reading
from rdpbench.datasets.manifest import file_sha256
from rdpbench.errors import ImageError, MissingNeed
from rdpbench.meter import Meter, Progress, meter

_BLOCK = 1 << 20
_LITTER = frozenset({".DS_Store", "Thumbs.db"})


def unpack(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], str | None],
    limit_bytes: int,
    limit_files: int = 200_000,
    limit_file_bytes: int | None = None,
    progress: Progress | None = None,
) -> dict[str, str]:
    """Write the wanted files of an archive below ``folder``, which must not hold anything yet.

    Args:
        archive: a zip, tar or tar.gz; told apart by its first bytes.
        folder: gets its name when all is written. A process that waited here for another one returns its files.
        wanted: from a file's name in the archive to its name below ``folder``, or None to leave it out. ``__MACOSX``,
            ``._*``, ``.DS_Store`` and ``Thumbs.db`` are never asked for.
        limit_bytes: of all files that are inflated; in a tar.gz also of those that are passed over.
        limit_files: entries of the archive.
        limit_file_bytes: of one file; by default ``limit_bytes``.
        progress: called with bytes written and bytes wanted; by default a bar or lines on stderr.

    Returns:
        The sha256 of each file by its name below ``folder``, in the archive's order.

    Raises:
        ImageError: no archive, a damaged one, a hostile one, one beyond the limits, one without wanted files, or a
            folder that holds something.
        MissingNeed: too little disk.
    """
    if not archive.is_file():
        raise ImageError(f"no such archive: {archive}")
    folder = folder.resolve()
    limits = Limits(limit_bytes, limit_file_bytes or limit_bytes, limit_files)
    before = _holds_something(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.unpacking")
    lock = folder.with_name(f".{folder.name}.lock")
    with FileLock(lock):
        if _holds_something(folder):
            if before:
                raise ImageError(f"{folder} holds something already; remove it, and {archive.name} is unpacked there")
            return {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        try:
            with _telling(archive):
                found = _unpack(archive, part, wanted, limits, progress)
                part.replace(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        lock.unlink(missing_ok=True)
    return found


def _holds_something(folder: Path) -> bool:
    return folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except Hostile as error:
        raise ImageError(f"{path} is refused: {error}") from error
    except OSError as error:
        raise ImageError(f"cannot unpack {path}: {error}") from error


def _unpack(
    path: Path, part: Path, wanted: Callable[[str], str | None], limits: Limits, progress: Progress | None
) -> dict[str, str]:
    found: dict[str, str] = {}
    with open_archive(path, limits) as archive:
        chosen = _judge(archive.entries(), wanted, limits)
        whole = sum(entry.size for entry, _ in chosen.values())
        if (free := shutil.disk_usage(part.parent).free) < whole:
            needs = f"{path.name} unpacks to {whole / 1e6:.0f} MB"
            raise MissingNeed(f"{needs} and {part.parent} has {free / 1e6:.0f} MB left")
        part.mkdir()
        done = 0
        with meter(path.name, progress) as told:
            for name, content in archive.contents(set(chosen)):
                entry, target = chosen[name]
                found[target] = _write(path, entry, content, part / target, _Shift(told, done, whole))
                done += entry.size
    if len(found) < len(chosen):
        raise ImageError(f"{path} is damaged: it gave {len(found)} of {len(chosen)} files")
    return found


def _judge(
    entries: Iterator[Entry], wanted: Callable[[str], str | None], limits: Limits
) -> dict[str, tuple[Entry, str]]:
    """The wanted entries by name, each with its name on the disk; all entries are looked at."""
    chosen: dict[str, tuple[Entry, str]] = {}
    seen: dict[str, str] = {}
    targets: dict[str, str] = {}
    total = 0
    for number, entry in enumerate(entries, 1):
        if number > limits.files:
            raise Hostile(f"it has more than {limits.files} entries")
        name = plain_name(entry.name)
        if entry.folder or _is_litter(name):
            continue
        if entry.flaw:
            raise Hostile(f"{name!r} is {entry.flaw}")
        _once(seen, name, name)
        target = wanted(name)
        if target is None:
            continue
        target = plain_name(target)
        _once(targets, target, name)
        total += entry.size
        _check_size(entry, total, limits)
        chosen[entry.name] = entry, target
    if not chosen:
        held = ", ".join(map(repr, list(seen.values())[:5])) or "nothing"
        raise Hostile(f"none of its {len(seen)} files is wanted; it holds {held}")
    return chosen


def _once(seen: dict[str, str], name: str, source: str) -> None:
    """Refuse a second name that is the same on a disk which ignores case or composes letters."""
    folded = unicodedata.normalize("NFC", name).casefold()
    if folded in seen:
        raise Hostile(f"{source!r} and {seen[folded]!r} have the same name on some disks")
    seen[folded] = source


def _check_size(entry: Entry, total: int, limits: Limits) -> None:
    if entry.size > limits.file_bytes:
        raise Hostile(f"{entry.name!r} has {entry.size} bytes, allowed are {limits.file_bytes}")
    if total > limits.bytes:
        raise Hostile(f"its files have more than the {limits.bytes} bytes that are allowed")


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


@dataclass(frozen=True)
class _Shift:
    """Progress of one file as progress of all."""

    told: Meter
    done: int
    whole: int

    def __call__(self, size: int) -> None:
        self.told(self.done + size, self.whole)


def _write(path: Path, entry: Entry, content: IO[bytes], target: Path, told: Callable[[int], None]) -> str:
    """Write and hash what an entry holds, which must be as much as it declares."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as out:
        while True:
            with reading(path, entry.name):
                block = content.read(_BLOCK)
            if not block:
                break
            size += len(block)
            if size > entry.size:
                raise Hostile(f"{entry.name!r} holds more than the {entry.size} bytes that it declares")
            digest.update(block)
            out.write(block)
            told(size)
    if size != entry.size:
        raise ImageError(f"{path} is damaged at {entry.name!r}: {size} of {entry.size} bytes")
    return digest.hexdigest()

"""Unpack an archive from somewhere else: zip, tar or tar.gz, of which no name, size or type is believed.

All entries are judged before anything is written, also those that nobody wants: an archive in which one name leads out
of the folder is not the one that was meant. What is wanted is inflated block by block, counted and hashed, into a
folder beside the final one, which gets its name at the end: a kill leaves nothing that looks whole.

The two kinds of archives behind one view: their entries with what is wrong with each, and what these hold.

What the standard library would read without a bound, or pass over in silence, is refused here.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, cast

from filelock import FileLock

from rdpbench.assets.hashes import file_sha256
from rdpbench.errors import ImageError, MissingNeed
from rdpbench.progress import Progress, Report, show_progress

_RATIO = 250
"""Most bytes out of one; photographs give 1, annotations about 10, a bomb of deflate up to 1032."""
_FREE_OF_RATIO = 1 << 20
_LONGEST_READ = 1 << 22
"""Of a tar at once. Headers with long names are read whole: one of a gigabyte would lie in memory."""
_PER_ENTRY = 1 << 10
"""Bytes of a tar's headers and padding, and most of a zip's directory, that an entry may take on average."""
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, LookupError),
)
"""What the standard library raises where an archive is damaged."""
_SPECIAL = {stat.S_IFLNK: "a symbolic link", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device", stat.S_IFIFO: "a pipe"}


class Hostile(Exception):
    """What an honest archive does not do."""


@dataclass(frozen=True)
class Limits:
    """Of all files, of one file, and of the number of entries."""

    bytes: int
    file_bytes: int
    files: int


@dataclass(frozen=True)
class Entry:
    """One line of an archive's list, none of it to be believed."""

    name: str
    size: int
    flaw: str
    """Why it must not be unpacked, such as ``a symbolic link``."""
    folder: bool


class Archive(Protocol):
    """What is asked of both kinds."""

    def entries(self) -> Iterator[Entry]: ...

    def contents(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """What the named entries hold; each is to be read before the next one is asked for."""
        ...


@contextlib.contextmanager
def reading(path: Path, name: str = "") -> Iterator[None]:
    """Around calls into the standard library alone, so that a fault of ours is not taken for damage."""
    try:
        yield
    except _DAMAGE as error:
        at = f" at {name!r}" if name else ""
        raise ImageError(f"{path} is damaged{at}: {str(error) or type(error).__name__}") from error


@contextlib.contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open an archive by what its first bytes say, whatever its name is."""
    with _Bounded(path, max(_LONGEST_READ, limits.files * _PER_ENTRY // 4)) as opened:
        first = opened.read(16)
        opened.seek(0)
        if first[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield _Zip(path, opened)
        else:
            yield _Tar(path, opened, limits, first)


class _Bounded(io.BufferedReader):
    """Refuses long reads: a zip's directory is read whole, and would lie in memory several times over."""

    def __init__(self, path: Path, longest: int) -> None:
        super().__init__(io.FileIO(path))
        self.longest = longest

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > self.longest:
            raise Hostile(f"its directory has {size} bytes, allowed are {self.longest}")
        return super().read(size)


class _Zip:
    def __init__(self, path: Path, opened: IO[bytes]) -> None:
        self.path = path
        with reading(path):
            self.zip = zipfile.ZipFile(opened)

    def entries(self) -> Iterator[Entry]:
        end = 0
        for info in sorted(self.zip.infolist(), key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise Hostile(f"{info.orig_filename!r} shares its bytes with another entry")
            end = info.header_offset + 30 + info.compress_size
        if end > self.zip.start_dir:
            raise Hostile("an entry reaches into the directory")
        for info in self.zip.infolist():
            # orig_filename: the other one ends at the first NUL.
            yield Entry(info.orig_filename, info.file_size, _zip_flaw(info), info.is_dir())

    def contents(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        for info in self.zip.infolist():
            if info.orig_filename in names:
                with reading(self.path, info.orig_filename):
                    content = self.zip.open(info)
                with content:
                    yield info.orig_filename, content


def _zip_flaw(info: zipfile.ZipInfo) -> str:
    if info.file_size > max(_FREE_OF_RATIO, _RATIO * info.compress_size):
        return f"a bomb: {info.file_size} bytes out of {info.compress_size}"
    if info.flag_bits & 0x41:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python inflates the other methods without a bound.
        return f"compressed by method {info.compress_type}; read are 0 (stored) and 8 (deflate)"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else _SPECIAL.get(kind, "a special file")


class _Tar:
    def __init__(self, path: Path, opened: IO[bytes], limits: Limits, first: bytes) -> None:
        self.path, self.opened, self.limits, self.first = path, opened, limits, first

    def entries(self) -> Iterator[Entry]:
        for member, _ in self._members():
            yield Entry(member.name, member.size, _tar_flaw(member), member.isdir())

    def contents(self, names: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
        for member, tar in self._members():
            if member.name in names:
                with reading(self.path, member.name):
                    content = tar.extractfile(member)
                assert content is not None, "regular files have a content"
                yield member.name, content

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
        self.opened.seek(0)
        stream = self._stream()
        with reading(self.path):
            try:
                tar = tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:", encoding="utf-8")  # noqa: SIM115 (its file is closed elsewhere)
            except tarfile.ReadError as error:
                raise ImageError(f"{self.path} is no zip, tar or tar.gz: it begins with {self.first!r}") from error
        while True:
            with reading(self.path):
                member = tar.next()
                if member is None:
                    stream.finish()
                    return
            yield member, tar

    def _stream(self) -> _Forward:
        if not self.first.startswith(b"\x1f\x8b"):
            return _Forward(self.opened, 0)
        by_size = max(_FREE_OF_RATIO, _RATIO * self.path.stat().st_size)
        by_limit = self.limits.bytes + self.limits.files * _PER_ENTRY + tarfile.RECORDSIZE
        return _Forward(gzip.GzipFile(fileobj=self.opened), min(by_size, by_limit))


def _tar_flaw(member: tarfile.TarInfo) -> str:
    if member.islnk():
        return "a hard link"
    if member.issym():
        return "a symbolic link"
    if member.issparse():
        return "a sparse file"
    return "" if member.isreg() or member.isdir() else "a device or of another special type"


class _Forward:
    """What tarfile reads from: only ahead, never much at once, and from a gzip no more than is allowed."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, allowed: int) -> None:
        self.stream, self.allowed = stream, allowed
        self.position = 0
        self.last = b""

    def tell(self) -> int:
        return self.position

    def read(self, size: int) -> bytes:
        if size > _LONGEST_READ:
            raise Hostile(f"it has a header of {size} bytes")
        self.last = self.stream.read(size)
        self.position += len(self.last)
        if self.allowed and self.position > self.allowed:
            raise Hostile(f"it inflates to more than {self.allowed} bytes")
        return self.last

    def seek(self, position: int) -> None:
        assert position >= self.position, "entries are read in order"
        if not self.allowed:
            self.position = self.stream.seek(position)
        while self.position < position:
            if not self.read(min(position - self.position, _LONGEST_READ)):
                raise EOFError("it ends within a file")

    def finish(self) -> None:
        """Only a block of zeros ends a tar; after a damaged header tarfile stops without a word."""
        if self.last != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is cut, or a header is damaged")
        while self.allowed and self.read(_LONGEST_READ):
            pass  # the check sum of a gzip is at its end


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
    progress: Report | None = None,
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
    path: Path, part: Path, wanted: Callable[[str], str | None], limits: Limits, progress: Report | None
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
        with show_progress(path.name, report=progress) as told:
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

    told: Progress
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

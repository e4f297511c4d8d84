"""Hashes of files, cached by path, size and ctime; copying tools may set mtime back, but cannot set ctime.

`rdpbench data verify` does not trust this cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rdpbench.errors import ImageError
from rdpbench.image import read_header
from rdpbench.paths import cache_folder
from rdpbench.progress import tell
from rdpbench.provenance import cores

READING = 4
"""Raised when `read_image` gives other pixels for some file than before, or refuses it, or a table changes."""

_BATCH = 512
# The tables of `index`, and of the bytes of files whatever is done with their pixels.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS pixels (path TEXT, bytes INT, ctime_ns INT, protocol TEXT,
    sha256 TEXT, height INT, width INT, mode TEXT, source_height INT, source_width INT,
    PRIMARY KEY (path, bytes, ctime_ns, protocol))""",
    """CREATE TABLE IF NOT EXISTS files (path TEXT, bytes INT, ctime_ns INT,
    sha256 TEXT, height INT, width INT, PRIMARY KEY (path, bytes, ctime_ns))""",
)


@dataclass(frozen=True)
class FileFacts:
    """A file's bytes, and the size that its header states; 0 x 0 if it is no image."""

    sha256: str
    height: int
    width: int


def file_facts(paths: Iterable[Path], *, remembered: bool = True) -> Iterator[tuple[Path, FileFacts]]:
    """Hash and size of each file, in order and in constant memory; what is not cached is read by several threads.

    Raises:
        ImageError: a file cannot be read.
    """
    waiting = iter(paths)
    with ThreadPoolExecutor(cores()) as pool:
        while batch := list(islice(waiting, _BATCH)):
            known = _recall(batch) if remembered else {}
            unknown = [path for path in batch if path not in known]
            fresh = dict(zip(unknown, pool.map(_read, unknown), strict=True))
            if fresh:
                _remember(fresh)
            yield from ((path, known.get(path) or fresh[path]) for path in batch)


def content_sha256(path: Path) -> str:
    """Hash of a file's bytes; for a folder, of the names and bytes of all files in it, below it too.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    if not path.is_dir():
        return _sha256s([path])[0]
    files: list[Path] = []
    seen: set[str] = set()
    for folder, inner, names in os.walk(path, followlinks=True):
        inner[:] = sorted(name for name in inner if name != "__pycache__")
        if (real := os.path.realpath(folder)) in seen:  # a link that leads back
            inner.clear()
            continue
        seen.add(real)
        files += [file for name in sorted(names) if (file := Path(folder, name)).is_file()]
    listed = [(str(file.relative_to(path)), sha256) for file, sha256 in zip(files, _sha256s(files), strict=True)]
    return hashlib.sha256(json.dumps(sorted(listed)).encode()).hexdigest()


def files_changed(recorded: str, path: Callable[[str], Path] = Path) -> dict[str, str]:
    """Of a row's column ``files`` those that are not so now, with their hashes; an empty one was not known.

    ``path`` says where the file lies that the row calls by a name.

    >>> files_changed('{"/gone.pt": "00", "/changed/meanwhile.pt": ""}')
    {'/gone.pt': '00', '/changed/meanwhile.pt': ''}
    """
    try:
        files = {str(name): sha256 for name, sha256 in json.loads(recorded).items()}
    except (ValueError, AttributeError):
        return {"": ""}
    return {name: sha256 for name, sha256 in files.items() if not sha256 or _content(path(name)) != sha256}


def _content(path: Path) -> str:
    try:
        return content_sha256(path)
    except (OSError, ValueError):
        return ""


def hashes_of(files: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Hashes of files that had these sizes and times of change (ctime, in ns) when they were opened.

    Empty for one that is another now: what was read of it is not known.
    """
    hashes = dict.fromkeys(files, "")
    for name, seen in files.items():
        with contextlib.suppress(OSError):
            sha256 = content_sha256(Path(name))
            if next(file_states([Path(name)]))[1:] == tuple(seen):
                hashes[name] = sha256
    return hashes


_hashes: dict[tuple[str, int, int], str] = {}
"""What this process hashed: many rows name the same few files."""


def _sha256s(paths: Sequence[Path]) -> list[str]:
    keys = dict(zip(paths, file_states(paths), strict=True))
    for path, facts in file_facts(path for path, key in keys.items() if key not in _hashes):
        _hashes[keys[path]] = facts.sha256
    return [_hashes[keys[path]] for path in paths]


def file_states(paths: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    """What each of some files is cached by: where it lies, its size and when it changed."""
    folders: dict[str, str] = {}  # each is followed once: of thirty thousand images that takes seconds
    for path in map(os.fspath, paths):
        stat = os.stat(path)  # noqa: PTH116  # a path object takes longer than the file
        folder, name = os.path.split(path)
        if os.path.islink(path):  # noqa: PTH114
            place = os.path.realpath(path)
        else:
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            place = os.path.join(folders[folder], name)  # noqa: PTH118
        yield place, stat.st_size, stat.st_ctime_ns


def open_memory() -> sqlite3.Connection:
    """The cache, with its tables."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / f"pixels-{READING}.sqlite", timeout=5)
    for table in _TABLES:
        connection.execute(table)
    return connection


def _read(path: Path) -> FileFacts:
    try:
        sha256 = file_sha256(path)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    try:
        _, height, width = read_header(path)
        return FileFacts(sha256, height, width)
    except ImageError:  # who wants the pixels will be told
        return FileFacts(sha256, 0, 0)


def _recall(paths: Sequence[Path]) -> dict[Path, FileFacts]:
    query = "SELECT sha256, height, width FROM files WHERE path=? AND bytes=? AND ctime_ns=?"
    try:
        with closing(open_memory()) as cache:
            rows = [
                (p, cache.execute(query, state).fetchone()) for p, state in zip(paths, file_states(paths), strict=True)
            ]
    except (sqlite3.Error, OSError):
        return {}
    return {path: FileFacts(*row) for path, row in rows if row}


def _remember(facts: dict[Path, FileFacts]) -> None:
    states = zip(file_states(facts), facts.values(), strict=True)
    lines = [(*state, fact.sha256, fact.height, fact.width) for state, fact in states]
    try:
        with closing(open_memory()) as cache, cache:
            cache.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", lines)
    except (sqlite3.Error, OSError) as error:  # without the cache the files are read again
        tell(f"cannot write {cache_folder()}: {error}; hashes of files are not cached")


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digests(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Several hashes of a file by their names in `hashlib`, in one reading; md5 tells a wrong file, not a forged one.

    >>> digests(Path("/dev/null"), ["md5"])
    {'md5': 'd41d8cd98f00b204e9800998ecf8427e'}
    """
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with path.open("rb") as opened:
        while hashes and (block := opened.read(1 << 20)):
            for digest in hashes.values():
                digest.update(block)
    return {name: digest.hexdigest() for name, digest in hashes.items()}

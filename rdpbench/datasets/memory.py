"""What was once read of a file is remembered by its path, size and time of change.

That is the ctime, of content or name, which no copying tool sets back as it does with mtime. `data verify` does not
trust this memory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rdpbench.datasets.manifest import file_sha256
from rdpbench.errors import ImageError
from rdpbench.image import read_header
from rdpbench.paths import cache_folder

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
    """Hash and size of each file, in order and in constant memory; what is not remembered is read by several threads.

    Raises:
        ImageError: a file cannot be read.
    """
    several = iter(paths)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while batch := list(islice(several, _BATCH)):
            known = _recall(batch) if remembered else {}
            unknown = [path for path in batch if path not in known]
            fresh = dict(zip(unknown, pool.map(_read, unknown), strict=True))
            _remember(fresh)
            yield from ((path, known.get(path) or fresh[path]) for path in batch)


def identity(path: Path) -> tuple[str, int, int]:
    """What a file is remembered by."""
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_ctime_ns


def open_memory() -> sqlite3.Connection:
    """The memory, with its tables."""
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
        with closing(open_memory()) as memory:
            rows = [(path, memory.execute(query, identity(path)).fetchone()) for path in paths]
    except (sqlite3.Error, OSError):
        return {}
    return {path: FileFacts(*row) for path, row in rows if row}


def _remember(found: dict[Path, FileFacts]) -> None:
    if not found:
        return
    try:
        with closing(open_memory()) as memory, memory:
            memory.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                [(*identity(path), facts.sha256, facts.height, facts.width) for path, facts in found.items()],
            )
    except (sqlite3.Error, OSError):
        return  # only a memory: without it the files are read again

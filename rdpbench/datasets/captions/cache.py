"""Captions that models made, remembered by pixels and by all of the model that changes its words.

One SQLite file in our cache, safe for writers in several processes: the first caption of a key stays, and `put` gives
everybody the stored one, so that two runs at once never work with different captions or seconds.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

from rdpbench.paths import cache_folder

_WAIT_S = 30
_TABLES = (
    """CREATE TABLE IF NOT EXISTS captions (pixels TEXT, identity TEXT, text TEXT NOT NULL, seconds REAL NOT NULL,
    made_on TEXT NOT NULL, versions TEXT NOT NULL, PRIMARY KEY (pixels, identity)) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, bytes INT, mtime_ns INT, ctime_ns INT, sha256 TEXT)""",
)


@dataclass(frozen=True)
class Made:
    """A caption, and how it was made."""

    text: str
    seconds: float
    """From pixels to text, without loading the model; of the run that made it."""
    made_on: str
    """Device and threads of that run."""
    versions: str
    """Of torch and transformers in that run."""


def get(pixels: Iterable[str], identity: str) -> dict[str, Made]:
    """The remembered captions, by pixel hash.

    Args:
        pixels: pixel hashes.
        identity: the model with its settings, see `rdpbench.datasets.captions.models.identity`.
    """
    query = "SELECT text, seconds, made_on, versions FROM captions WHERE pixels=? AND identity=?"
    found: dict[str, Made] = {}
    try:
        with closing(_open()) as memory:
            for one in pixels:
                if row := memory.execute(query, (one, identity)).fetchone():
                    found[one] = Made(*row)
    except (sqlite3.Error, OSError) as error:
        _tell(error)
    return found


def put(pixels: str, identity: str, made: Made) -> Made:
    """Remember a caption and return what is remembered: another process's, if it was first."""
    try:
        with closing(_open()) as memory:
            with memory:
                memory.execute(
                    "INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?, ?, ?)", (pixels, identity, *astuple(made))
                )
            query = "SELECT text, seconds, made_on, versions FROM captions WHERE pixels=? AND identity=?"
            return Made(*memory.execute(query, (pixels, identity)).fetchone())
    except (sqlite3.Error, OSError) as error:
        _tell(error)
        return made


def mean_seconds(identity: str, device: str) -> float | None:
    """Mean captioning seconds of earlier runs on this kind of device, ``cpu`` or ``cuda``; None without any."""
    query = "SELECT AVG(seconds) FROM captions WHERE identity=? AND made_on LIKE ? || '%'"
    try:
        with closing(_open()) as memory:
            mean: float | None = memory.execute(query, (identity, device)).fetchone()[0]
    except (sqlite3.Error, OSError):
        return None
    return mean


def file_sha256(path: Path) -> str:
    """sha256 of a file, remembered by path, size and times of change: checkpoints have gigabytes."""
    real = path.resolve()
    stat = real.stat()
    mark = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    try:
        with closing(_open()) as memory:
            row = memory.execute(
                "SELECT bytes, mtime_ns, ctime_ns, sha256 FROM files WHERE path=?", (str(real),)
            ).fetchone()
            if row and tuple(row[:3]) == mark:
                return str(row[3])
    except (sqlite3.Error, OSError) as error:
        _tell(error)
    with real.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    try:
        with closing(_open()) as memory, memory:
            memory.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (str(real), *mark, digest))
    except (sqlite3.Error, OSError) as error:
        _tell(error)
    return digest


def cache_file() -> Path:
    """Where captions are remembered."""
    return cache_folder() / "captions-1.sqlite"


def _open() -> sqlite3.Connection:
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WAIT_S)
    for table in _TABLES:
        connection.execute(table)
    return connection


def _tell(error: Exception) -> None:
    # Only a memory: without it captions are made anew. That takes hours for a large set, so it is said.
    print(f"captions cannot be remembered in {cache_file()}: {error}", file=sys.stderr)

"""Captions that models made, cached by pixels and by all of the model that changes its words.

One SQLite file in our cache, safe for writers in several processes: the first caption of a key stays, and `put` gives
everybody the stored one, so that two runs at once never work with different captions or seconds.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

from rdpbench.paths import cache_folder

_WAIT_S = 30
_TABLE = """CREATE TABLE IF NOT EXISTS captions (pixels TEXT, identity TEXT, text TEXT NOT NULL, seconds REAL NOT NULL,
made_on TEXT NOT NULL, versions TEXT NOT NULL, PRIMARY KEY (pixels, identity)) WITHOUT ROWID"""
_GET = "SELECT text, seconds, made_on, versions FROM captions WHERE pixels=? AND identity=?"


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
    """The cached captions by pixel hash; ``identity`` is that of `rdpbench.datasets.captions.models`."""
    captions: dict[str, Made] = {}
    try:
        with closing(_open()) as cache:
            for sha256 in pixels:
                if row := cache.execute(_GET, (sha256, identity)).fetchone():
                    captions[sha256] = Made(*row)
    except (sqlite3.Error, OSError) as error:
        _warn(error)
    return captions


def put(pixels: str, identity: str, made: Made) -> Made:
    """Cache a caption, and return what the cache has: another process's, if it was first."""
    try:
        with closing(_open()) as cache:
            with cache:
                line = (pixels, identity, *astuple(made))
                cache.execute("INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?, ?, ?)", line)
            return Made(*cache.execute(_GET, (pixels, identity)).fetchone())
    except (sqlite3.Error, OSError) as error:
        _warn(error)
        return made


def cache_file() -> Path:
    """Where captions are cached."""
    return cache_folder() / "captions-1.sqlite"


def _open() -> sqlite3.Connection:
    path = cache_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_WAIT_S)
    connection.execute(_TABLE)
    return connection


def _warn(error: Exception) -> None:
    # Without the cache captions are made anew. That takes hours for a large set, so it is said.
    print(f"captions cannot be remembered in {cache_file()}: {error}", file=sys.stderr)

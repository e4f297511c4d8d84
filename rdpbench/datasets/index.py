"""What planning must know of each image without keeping its pixels: size and pixel hash.

Decoding 30,000 images takes minutes, so hashes are remembered by path, size, time of change and protocol. `verify`
does not trust this memory: it reads the images again.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ImageError
from rdpbench.image import pixel_sha256
from rdpbench.paths import cache_folder

READING = 2
"""Raised when `read_image` gives other pixels for some file than before: what is remembered is then read anew."""

# By the time of the last change of content or name (ctime), which no copying tool sets back as it does with mtime.
_TABLE = """CREATE TABLE IF NOT EXISTS pixels (path TEXT, bytes INT, ctime_ns INT, protocol TEXT,
    sha256 TEXT, height INT, width INT, mode TEXT, PRIMARY KEY (path, bytes, ctime_ns, protocol))"""


@dataclass(frozen=True)
class Entry:
    """A sample with what its pixels are under the protocol."""

    sample: Sample
    sha256: str
    """Of the pixels that the codec sees."""
    height: int
    width: int
    mode: str


def index(dataset: Dataset, limit: int | None = None) -> list[Entry]:
    """Size and pixel hash of each sample, in order.

    Raises:
        ImageError: images that cannot be read, all of them named.
    """
    samples = list(islice(dataset.samples(), limit))
    known = _recall(samples, dataset.protocol)
    unknown = [sample for sample, entry in zip(samples, known, strict=True) if entry is None]
    read = list(_read(unknown, dataset.protocol))
    fresh = iter(read)
    entries: list[Entry] = []
    broken: list[str] = []
    for entry in known:
        found = entry or next(fresh)
        if isinstance(found, Entry):
            entries.append(found)
        else:
            broken.append(str(found))
    if broken:
        shown = "\n  ".join(broken[:20])
        raise ImageError(f"{len(broken)} of {len(samples)} images of {dataset.name!r} cannot be read:\n  {shown}")
    _remember([entry for entry in read if isinstance(entry, Entry)], dataset.protocol)
    return entries


def _read(samples: Sequence[Sample], protocol: str) -> Iterator[Entry | ImageError]:
    def one(sample: Sample) -> Entry | ImageError:
        try:
            loaded = load_under(protocol, sample.path)
        except ImageError as error:
            return error
        height, width = loaded.pixels.shape[:2]
        return Entry(sample, pixel_sha256(loaded.pixels), height, width, loaded.mode)

    # Pillow decodes without holding the interpreter lock, so threads do.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(one, samples)


def _identity(sample: Sample) -> tuple[str, int, int]:
    stat = sample.path.stat()
    return str(sample.path.resolve()), stat.st_size, stat.st_ctime_ns


def _recall(samples: Sequence[Sample], protocol: str) -> list[Entry | None]:
    query = "SELECT sha256, height, width, mode FROM pixels WHERE path=? AND bytes=? AND ctime_ns=? AND protocol=?"
    try:
        with closing(_open()) as memory:
            rows = [memory.execute(query, (*_identity(sample), protocol)).fetchone() for sample in samples]
    except (sqlite3.Error, OSError):
        return [None] * len(samples)
    return [Entry(sample, *row) if row else None for sample, row in zip(samples, rows, strict=True)]


def _remember(entries: Sequence[Entry], protocol: str) -> None:
    try:
        with closing(_open()) as memory, memory:
            memory.executemany(
                "INSERT OR REPLACE INTO pixels VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [(*_identity(e.sample), protocol, e.sha256, e.height, e.width, e.mode) for e in entries],
            )
    except (sqlite3.Error, OSError):
        return  # only a memory: without it the next plan reads the images again


def _open() -> sqlite3.Connection:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / f"pixels-{READING}.sqlite", timeout=5)
    connection.execute(_TABLE)
    return connection

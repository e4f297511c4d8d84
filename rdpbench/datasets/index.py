"""What planning must know of each image without keeping its pixels: sizes, and the hashes of file and pixels.

Decoding 30,000 images takes minutes, so what was read is remembered (`rdpbench.assets.hashes`). `verify` does not
trust this memory: it reads the images again.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

from rdpbench.assets.hashes import file_facts, identity, open_memory
from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.fetching import some
from rdpbench.datasets.manifest import other_bytes
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ImageError
from rdpbench.image import check_names, pixel_sha256


@dataclass(frozen=True)
class Entry:
    """A sample with what its pixels are under the protocol."""

    sample: Sample
    sha256: str
    """Of the pixels that the codec sees."""
    height: int
    width: int
    mode: str
    file_sha256: str
    """Of the file's bytes."""
    source_height: int
    """Of the file's image, before the protocol."""
    source_width: int


@dataclass(frozen=True)
class _Pixels:
    sha256: str
    height: int
    width: int
    mode: str
    source_height: int
    source_width: int


def index(dataset: Dataset, limit: int | None = None) -> list[Entry]:
    """Sizes and hashes of each sample, in order; files whose hash the set's manifest knows are held against it.

    Raises:
        ImageError: images that are not those of the set, or that cannot be read, all of them named.
    """
    samples = list(islice(dataset.samples(), limit))
    check_names([path for sample in samples for path in (sample.path, sample.labels) if path])
    files = _checked(samples, dataset.name)
    known = _recall(samples, dataset.protocol)
    read = list(_read([one for one, pixels in zip(samples, known, strict=True) if pixels is None], dataset.protocol))
    fresh = iter(read)
    entries: list[Entry] = []
    broken: list[str] = []
    for sample, file_sha256, remembered in zip(samples, files, known, strict=True):
        found = remembered or next(fresh)[1]
        if isinstance(found, _Pixels):
            pixels = (found.sha256, found.height, found.width, found.mode)
            entries.append(Entry(sample, *pixels, file_sha256, found.source_height, found.source_width))
        else:
            broken.append(str(found))
    _remember([(one, pixels) for one, pixels in read if isinstance(pixels, _Pixels)], dataset.protocol)
    if broken:
        raise ImageError(f"{_count(broken, samples, dataset.name)} cannot be read:\n  {_shown(broken)}")
    return entries


def notes(dataset: Dataset, entries: Sequence[Entry]) -> list[str]:
    """What the user should know of the images that were read: what the set says itself, and what the files say.

    >>> from types import SimpleNamespace
    >>> len(notes(SimpleNamespace(name="mine"), []))
    0
    """
    told = list(getattr(dataset, "notes", tuple)())
    for mark, text in _REMARKS.items():
        marked = [(entry, found) for entry in entries if (found := re.search(mark, entry.mode))]
        shown = [f"{entry.sample.id} ({found[0].strip('+')})" for entry, found in marked]
        if shown:
            told.append(f"{_count(shown, entries, dataset.name)} {text}: {some(shown)}")
    names: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        names[entry.sha256].append(entry.sample.id)
    if equal := [" = ".join(ids) for ids in names.values() if len(ids) > 1]:
        twice = sum(len(ids) for ids in names.values() if len(ids) > 1)
        told.append(
            f"{twice} of {len(entries)} images of {dataset.name!r} have equal pixels, and each counts: {some(equal)}"
        )
    return told


# What `rdpbench.image_files.remarks` adds to a mode, and what it means; a gamma near sRGB's is nothing to tell.
_REMARKS = {
    r"\+(pages|images)=\d+": "hold more images than the first, which alone is read",
    r"\+thumbnail": "begin with a thumbnail, which is what is read: a later page is larger, or the first one says so",
    r"\+orientation=\d": "are shown turned by viewers; read is the grid that is stored",
    r"\+(pq|hlg)": "are HDR, and their values are taken for sRGB",
    r"\+gamma=(?!0\.4[56])[^+]+": "state a gamma that is not applied: their values are taken for sRGB",
}


def _checked(samples: Sequence[Sample], name: str) -> list[str]:
    """The hash of each file, after all were held against what the set's manifest says."""
    hashes: list[str] = []
    wrong: list[str] = []
    gone = [f"no such image: {sample.path}" for sample in samples if not sample.path.is_file()]
    if gone:
        raise ImageError(f"{_count(gone, samples, name)} cannot be read:\n  {_shown(gone)}")
    facts = file_facts(sample.path for sample in samples)
    for sample, (path, found) in zip(samples, facts, strict=True):
        hashes.append(found.sha256)
        if sample.sha256 and found.sha256 != sample.sha256:
            wrong.append(other_bytes(path, found.sha256, sample.sha256))
    if wrong:
        raise ImageError(f"{_count(wrong, samples, name)} are not those of the set:\n  {_shown(wrong)}")
    return hashes


def _count(counted: Sequence[object], whole: Sequence[object], name: str) -> str:
    return f"{len(counted)} of {len(whole)} images of {name!r}"


def _shown(lines: Sequence[str]) -> str:
    rest = [f"and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n  ".join([*lines[:20], *rest])


def _read(samples: Sequence[Sample], protocol: str) -> Iterator[tuple[Sample, _Pixels | ImageError]]:
    def one(sample: Sample) -> tuple[Sample, _Pixels | ImageError]:
        try:
            loaded = load_under(protocol, sample.path)
        except ImageError as error:
            return sample, error
        height, width = loaded.pixels.shape[:2]
        digest = pixel_sha256(loaded.pixels)
        return sample, _Pixels(digest, height, width, loaded.mode, loaded.source_height, loaded.source_width)

    # Pillow decodes without holding the interpreter lock, so threads do.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        yield from pool.map(one, samples)


def _recall(samples: Sequence[Sample], protocol: str) -> list[_Pixels | None]:
    query = """SELECT sha256, height, width, mode, source_height, source_width FROM pixels
        WHERE path=? AND bytes=? AND ctime_ns=? AND protocol=?"""
    try:
        with closing(open_memory()) as memory:
            rows = [memory.execute(query, (*identity(sample.path), protocol)).fetchone() for sample in samples]
    except (sqlite3.Error, OSError):
        return [None] * len(samples)
    return [_Pixels(*row) if row else None for row in rows]


def _remember(found: Sequence[tuple[Sample, _Pixels]], protocol: str) -> None:
    try:
        with closing(open_memory()) as memory, memory:
            memory.executemany(
                "INSERT OR REPLACE INTO pixels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        *identity(one.path),
                        protocol,
                        p.sha256,
                        p.height,
                        p.width,
                        p.mode,
                        p.source_height,
                        p.source_width,
                    )
                    for one, p in found
                ],
            )
    except (sqlite3.Error, OSError):
        return  # only a memory: without it the next plan reads the images again

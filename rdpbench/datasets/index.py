"""Read a set's images: sizes and hashes for planning, without keeping pixels; and decoding ahead of the codec.

Decoding 30,000 images takes minutes, so sizes and hashes are cached (`rdpbench.assets.hashes`). `verify` does not trust
this cache: it reads the images again.
"""

from __future__ import annotations

import re
import sqlite3
import traceback
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import NoneType
from typing import Any, Generic, TypeAlias, TypeVar

from rdpbench.assets.hashes import file_facts, file_states, open_memory
from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.manifest import other_bytes
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ConfigError, ImageError, OutOfRange, RdpbenchError, few
from rdpbench.image import Image, check_names, pixel_sha256
from rdpbench.provenance import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """A sample with what its pixels are under the protocol."""

    sample: Sample
    file_sha256: str
    """Of the file's bytes."""
    sha256: str
    """Of the pixels that the codec sees."""
    height: int
    width: int
    mode: str
    source_height: int
    """Of the file's image, before the protocol."""
    source_width: int

    @property
    def pixels(self) -> int:
        """Of the image, as it is coded."""
        return self.height * self.width


_Pixels: TypeAlias = tuple[str, int, int, str, int, int]
"""The fields of an `Entry` from ``sha256`` on, as they are cached."""


def index(dataset: Dataset, limit: int | None = None) -> list[Entry]:
    """Sizes and hashes of each sample, in order; files whose hash the set's manifest knows are held against it.

    Raises:
        ImageError: images that are not those of the set, or that cannot be read, all of them named.
        ConfigError: the dataset gives no samples, or what is none.
    """
    samples = _yielded(dataset, limit)
    check_names([path for sample in samples for path in (sample.path, sample.labels) if path])
    files = _checked(samples, dataset.name)
    pixels = _recall(samples, dataset.protocol)
    unknown = [number for number, known in enumerate(pixels) if known is None]
    broken: list[str] = []
    # Pillow decodes without holding the interpreter lock, so threads do.
    with ThreadPoolExecutor(cores()) as pool:
        read = pool.map(lambda number: _read(samples[number], dataset.protocol), unknown)
        for number, result in zip(unknown, read, strict=True):
            if isinstance(result, ImageError):
                broken.append(str(result))
            else:
                pixels[number] = result
    _remember([(samples[n], row) for n in unknown if (row := pixels[n])], dataset.protocol)
    if broken:
        raise ImageError(f"{_count(broken, samples, dataset.name)} cannot be read:\n  {_shown(broken)}")
    return [Entry(sample, sha, *row) for sample, sha, row in zip(samples, files, pixels, strict=True) if row]


def _yielded(dataset: Dataset, limit: int | None) -> list[Sample]:
    """The samples of a dataset, held to what it promises: an image without an id of its own would leave the mean."""
    samples: list[Sample] = []
    places: dict[str, list[str]] = defaultdict(list)
    sample: Any
    for sample in islice(_told(dataset), limit):
        if not isinstance(sample, Sample):
            raise ConfigError(
                f"samples() of dataset {dataset.name!r} yields {sample!r:.80} ({type(sample).__name__}); "
                "write Sample(id, path)"
            )
        for name, (kinds, write) in _FIELDS.items():
            value = getattr(sample, name)
            if not isinstance(value, kinds) or (kinds is tuple and not all(isinstance(each, str) for each in value)):
                raise ConfigError(f"dataset {dataset.name!r}: {name} of a sample is {value!r:.80}; write {write}")
        samples.append(sample)
        places[sample.id].append(sample.path.name)
    twice = [f"{id_} ({few(names)})" for id_, names in places.items() if len(names) > 1]
    if twice:
        raise ConfigError(f"dataset {dataset.name!r}: samples share an id, and ids must differ: {few(twice)}")
    if not samples and limit != 0:
        raise ConfigError(f"dataset {dataset.name!r} yields no images; look at its path and its samples()")
    return samples


_FIELDS: dict[str, tuple[Any, str]] = {
    "id": (str, 'a text, such as "page1"'),
    "path": (Path, 'a Path, such as Path("scans/page1.png")'),
    "tags": (tuple, 'a tuple of texts, such as ("text",)'),
    "references": (tuple, 'a tuple of texts, such as ("a red car",)'),
    "caption": ((str, NoneType), "a text, or None"),
    "labels": ((Path, NoneType), "the Path of a PNG, or None"),
}
"""What fields of a sample must be, and what to write."""


def _told(dataset: Dataset) -> Iterator[Sample]:
    """Its samples; what a class of the user's raises is told with its place."""
    try:
        yield from dataset.samples()
    except RdpbenchError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        why = f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
        raise ConfigError(f"samples() of dataset {dataset.name!r} failed: {why}") from error


def pixels_of(entry: Entry, protocol: str) -> Image:
    """An indexed image, ``uint8 (H, W, 3)``; `ImageError` if it has other pixels by now."""
    pixels = load_under(protocol, entry.sample.path).pixels
    if pixel_sha256(pixels) != entry.sha256:
        raise ImageError(f"{entry.sample.path} has changed since this command began")
    return pixels


def notes(dataset: Dataset, entries: Sequence[Entry]) -> list[str]:
    """What the user should know of the images that were read: what the set says itself, and what the files say.

    >>> from types import SimpleNamespace
    >>> len(notes(SimpleNamespace(name="mine"), []))
    0
    """
    lines = list(getattr(dataset, "notes", tuple)())
    for mark, text in _REMARKS.items():
        marks = ((entry.sample.id, re.search(mark, entry.mode)) for entry in entries)
        shown = [f"{id_} ({match[0].strip('+')})" for id_, match in marks if match]
        if shown:
            lines.append(f"{_count(shown, entries, dataset.name)} {text}: {few(shown)}")
    ids: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        ids[entry.sha256].append(entry.sample.id)
    if equal := [same for same in ids.values() if len(same) > 1]:
        lines.append(
            f"{sum(map(len, equal))} of {len(entries)} images of {dataset.name!r} have equal pixels, and each counts: "
            f"{few(' = '.join(same) for same in equal)}"
        )
    return lines


# What `rdpbench.image_files.remarks` adds to a mode, and what it means; a gamma near sRGB's needs no note.
_REMARKS = {
    r"\+(pages|images)=\d+": "hold several images, of which only the first is read",
    r"\+thumbnail": "begin with a thumbnail, and only that is read: a later page is larger, or the first one says so",
    r"\+orientation=\d": "are shown turned by viewers; pixels are read as they are stored",
    r"\+(pq|hlg)": "are HDR, and their values are taken for sRGB",
    r"\+gamma=(?!0\.4[56])[^+]+": "state a gamma that is not applied: their values are taken for sRGB",
}


def _checked(samples: Sequence[Sample], name: str) -> list[str]:
    """The hash of each file, after all were held against what the set's manifest says."""
    gone = [f"no such image: {sample.path}" for sample in samples if not sample.path.is_file()]
    if gone:
        raise ImageError(f"{_count(gone, samples, name)} cannot be read:\n  {_shown(gone)}")
    hashes: list[str] = []
    wrong: list[str] = []
    for sample, (path, facts) in zip(samples, file_facts(sample.path for sample in samples), strict=True):
        hashes.append(facts.sha256)
        if sample.sha256 and facts.sha256 != sample.sha256:
            wrong.append(other_bytes(path, facts.sha256, sample.sha256))
    if wrong:
        raise ImageError(f"{_count(wrong, samples, name)} are not those of the set:\n  {_shown(wrong)}")
    return hashes


def _count(counted: Sequence[object], whole: Sequence[object], name: str) -> str:
    return f"{len(counted)} of {len(whole)} images of {name!r}"


def _shown(lines: Sequence[str]) -> str:
    rest = [f"and {len(lines) - 20} more"] if len(lines) > 20 else []
    return "\n  ".join([*lines[:20], *rest])


def _read(sample: Sample, protocol: str) -> _Pixels | ImageError:
    try:
        loaded = load_under(protocol, sample.path)
    except ImageError as error:
        return error
    height, width = loaded.pixels.shape[:2]
    return pixel_sha256(loaded.pixels), height, width, loaded.mode, loaded.source_height, loaded.source_width


def _recall(samples: Sequence[Sample], protocol: str) -> list[_Pixels | None]:
    query = """SELECT sha256, height, width, mode, source_height, source_width FROM pixels
        WHERE path=? AND bytes=? AND ctime_ns=? AND protocol=?"""
    try:
        with closing(open_memory()) as cache:
            states = file_states(sample.path for sample in samples)
            return [cache.execute(query, (*state, protocol)).fetchone() for state in states]
    except (sqlite3.Error, OSError):
        return [None] * len(samples)


def _remember(read: Sequence[tuple[Sample, _Pixels]], protocol: str) -> None:
    try:
        states = file_states(sample.path for sample, _ in read)
        rows = [(*state, protocol, *pixels) for state, (_, pixels) in zip(states, read, strict=True)]
        with closing(open_memory()) as cache, cache:
            cache.executemany("INSERT OR REPLACE INTO pixels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    except (sqlite3.Error, OSError):
        return  # only a cache: without it the next plan reads the images again


class ahead(Generic[Item, Result], Iterator[Result]):  # noqa: N801 (used like a function)
    """Yield ``load(item)`` in order while threads do the next ones.

    An exception of ``load`` is raised where its result would have come, and the iteration goes on after it; one of
    ``items`` comes after the results of the items before it, and ends the iteration. The threads end with the
    iteration, with ``close``, or when the object is dropped.

    Args:
        items: what to load; asked for from the thread of the consumer.
        load: called once for each item, in another thread: Pillow decodes without holding the interpreter lock.
        depth: how many results may wait, ready or in the making.
        threads: how many items are loaded at once; no more than ``depth``.

    Raises:
        OutOfRange: ``depth`` or ``threads`` below 1.

    >>> with ahead([1, 2, 3], lambda item: item * item) as squares:
    ...     sum(squares)
    14
    """

    def __init__(
        self, items: Iterable[Item], load: Callable[[Item], Result], depth: int = 2, *, threads: int = 1
    ) -> None:
        if depth < 1 or threads < 1:
            raise OutOfRange(f"depth={depth}, threads={threads}: both must be at least 1")
        self._items = iter(items)
        self._load = load
        self._depth = depth
        self._failure: BaseException | None = None
        self._waiting: deque[Future[Result]] = deque()
        self._pool = ThreadPoolExecutor(min(threads, depth), thread_name_prefix="ahead")
        # Without waiting: the last reference may go in a thread of the pool, which cannot wait for itself.
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._more = True

    def __iter__(self) -> ahead[Item, Result]:
        return self

    def __next__(self) -> Result:
        self._fill()
        if self._waiting:
            first = self._waiting.popleft()
            self._fill()
            return first.result()
        self.close()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        raise StopIteration

    def _fill(self) -> None:
        while self._more and len(self._waiting) < self._depth:
            try:
                item = next(self._items)
            except StopIteration:
                self._more = False
            except Exception as error:  # whatever it is, the items before it come first
                self._more, self._failure = False, error
            else:
                self._waiting.append(self._pool.submit(self._load, item))

    def close(self) -> None:
        """Start nothing more and wait for what is in the making."""
        self._more = False
        self._waiting.clear()
        self._stop.detach()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> ahead[Item, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

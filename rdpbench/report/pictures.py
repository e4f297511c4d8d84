"""Which images are in the folder, and making them, each by itself and never all in memory.

An image is named after the hash of its pixels, so it is made once, whoever refers to it, and a report made again makes
what is new. Reconstructions come from PNGs that the run kept, or are decoded again from stored bitstreams; either way
their pixels must have the hash in the row, or they are not shown. Images are lossless WebP, since the page shows their
differences; only thumbnails are lossy.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from rdpbench.datasets.protocols import load_under
from rdpbench.errors import RdpbenchError, StoreCorrupt, StoreUnwritable, WorkerError
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.paths import unwritable, written_whole
from rdpbench.report.model import Shown, Source
from rdpbench.results.stats.summary import common_rates
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store, is_sha256, reconstruction_path

T = TypeVar("T")
Which: TypeAlias = Literal["none", "matched", "all"]
RATES = 4
"""Of ``matched``: so many rates that codecs share, and of each codec its points next to these."""
THUMB = 256
"""Longest side of a thumbnail, in pixels; of large images up to twice that is made where it is much faster."""
LARGEST = 16383
"""Longest side that WebP holds; larger images are PNG."""
INLINE = 24
"""So few images are made in this process."""


@dataclass(frozen=True)
class Decoding:
    """How stored bitstreams become pixels; given by the caller, since results know no codecs."""

    decode: Callable[[Store, Row], Image] | None = None
    """None: only what the run kept is shown."""
    prepare: Callable[[], None] | None = None
    """Called once in each process, before anything is decoded."""


@dataclass(frozen=True)
class Picture:
    """One image to make: an original, or what became of it."""

    store: Store
    row: Row
    original: bool

    @property
    def sha256(self) -> str:
        """Of its pixels."""
        return self.row.pixel_sha256 if self.original else self.row.reconstruction_sha256


def name_of(sha256: str) -> str:
    """An image's name in the folder.

    >>> len(name_of("ab" * 32)), name_of("../../x") == name_of("../../x" + 57 * "0")
    (20, False)
    """
    # What a row says may be no hash.
    return (sha256 if is_sha256(sha256) else hashlib.sha256(repr(sha256).encode()).hexdigest())[:20]


def ending(row: Row) -> str:
    """Of the image's file.

    >>> from types import SimpleNamespace
    >>> ending(SimpleNamespace(height=512, width=20000))
    'png'
    """
    return "png" if max(row.height, row.width) > LARGEST else "webp"


def chosen(source: Source, which: Which) -> list[Shown]:
    """The points whose images are made."""
    if which == "none":
        return []
    if which == "all":
        return list(source.points)
    out: list[Shown] = []
    for place in dict.fromkeys(point.place for point in source.points):
        of = [point for point in source.points if point.place == place and point.bpp > 0]
        here = [source.frame[name] == part for name, part in place[1]._asdict().items()]
        rates = _thin(common_rates(source.frame[here[0] & here[1] & here[2]]), RATES)
        for codec in dict.fromkeys(point.codec for point in of):
            curve = [point for point in of if point.codec == codec]
            near = [min(curve, key=lambda one: abs(math.log(one.bpp / rate))) for rate in rates]
            out += list({one.id: one for one in near}.values()) if near else _thin(curve, RATES)
    return out


def _thin(values: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly chosen, both ends among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(n * (len(values) - 1) / (most - 1))] for n in range(most)]


def wanted(sources: Iterable[Source], which: Which, limit: int) -> Iterator[Picture]:
    """Every image to make, once: originals first, then reconstructions codec by codec."""
    seen: set[str] = set()
    for source in sources:
        firsts = first_images(source, limit)
        rows = [row for point in chosen(source, which) for row in point.shown()]
        rows = [row for row in rows if row.image in firsts[row.dataset, row.manifest, row.protocol]]
        for picture in (Picture(source.store, row, original) for original in (True, False) for row in rows):
            if picture.sha256 not in seen:
                seen.add(picture.sha256)
                yield picture


def first_images(source: Source, limit: int) -> dict[tuple[str, str, str], set[str]]:
    """The first images of each set, by name; 0 takes all."""
    names: dict[tuple[str, str, str], set[str]] = {}
    for row in source.rows:
        names.setdefault((row.dataset, row.manifest, row.protocol), set()).add(row.image)
    return {place: set(sorted(of)[: limit or None]) for place, of in names.items()}


def make(pictures: Sequence[Picture], folder: Path, how: Decoding, workers: int | None = None) -> dict[str, str]:
    """Make what is not there yet; returns why an image could not be made, by its pixels' hash.

    Raises:
        StoreUnwritable: the folder cannot be written.
        WorkerError: a process died.
    """
    todo = [one for one in pictures if not _paths(folder, one)[1].is_file()]
    if not todo:
        return {}
    for part in {path.parent for one in todo for path in _paths(folder, one)}:
        try:
            part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(part, error) from error
    count = workers if workers is not None else len(os.sched_getaffinity(0))
    if len(todo) <= INLINE or count < 2:
        if how.prepare and any(not one.original for one in todo):
            how.prepare()
        return dict(filter(None, (_make(one, folder, how) for one in todo)))
    try:
        with ProcessPoolExecutor(count, get_context("forkserver"), initializer=how.prepare) as pool:
            found = pool.map(_make, todo, itertools.repeat(folder), itertools.repeat(how), chunksize=8)
            return dict(filter(None, found))
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process that makes the report's images died: {error}. --images none leaves them out"
        ) from None


def _paths(folder: Path, one: Picture) -> tuple[Path, Path]:
    """Where its thumbnail and the image itself lie."""
    name = name_of(one.sha256)
    return folder / "thumbs" / name[:2] / f"{name}.jpg", folder / "images" / name[:2] / f"{name}.{ending(one.row)}"


def _make(one: Picture, folder: Path, how: Decoding) -> tuple[str, str] | None:
    """Make one image and its thumbnail; returns its hash and the reason if that cannot be done."""
    try:
        pixels = _pixels(one, how)
    except StoreUnwritable:
        raise
    except RdpbenchError as error:
        return one.sha256, str(error)
    except Exception as error:  # a codec may fail in any way; the report tells of it
        return one.sha256, f"{type(error).__name__}: {error}"
    _write(pixels, *_paths(folder, one))
    return None


def _pixels(one: Picture, how: Decoding) -> Image:
    row, path = one.row, reconstruction_path(one.store, one.row)
    if one.original:
        pixels, where = load_under(row.protocol, Path(row.path)).pixels, f"{row.path} changed since it was coded"
    elif path.is_file():
        pixels, where = read_image(path).pixels, f"{path} is not what was decoded"
    elif how.decode is not None:
        pixels = how.decode(one.store, row)
        where = f"bitstream {row.bitstream_sha256[:12]} decodes to other pixels here"
    else:
        raise StoreCorrupt("the run kept no reconstruction: keep=all keeps them")
    if pixel_sha256(pixels) != one.sha256:
        raise StoreCorrupt(where)
    return pixels


def _write(pixels: Image, thumb: Path, path: Path) -> None:
    """Both files, each swapped in whole; the image last, since it stands for both."""
    from PIL import Image as pil

    image = pil.fromarray(pixels)
    step = max(1, max(image.size) // THUMB)
    options = {"lossless": True, "method": 0, "quality": 0} if path.suffix == ".webp" else {"compress_level": 1}
    for made, where, kind, how in (
        (image.reduce(step), thumb, "JPEG", {"quality": 80}),
        (image, path, path.suffix[1:].upper(), options),
    ):
        with written_whole(where) as beside:
            made.save(beside, format=kind, **how)

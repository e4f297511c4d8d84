"""The images of a report, made one at a time and never all in memory.

An image is named after the hash of its pixels, so it is made once, whoever refers to it, and a report made again makes
what is new. Reconstructions come from PNGs that the run kept, or are decoded again from stored bitstreams; either way
their pixels must have the hash in the row, or they are not shown. Images are lossless WebP, since the page shows their
differences; only thumbnails are lossy.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from rdpbench.errors import RdpbenchError, StoreCorrupt, StoreUnwritable, WorkerError
from rdpbench.figures.examples import original_of, reconstruction_of
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import pil
from rdpbench.paths import unwritable, written_whole
from rdpbench.provenance import cores
from rdpbench.results.store.bitstreams import is_sha256, reconstruction_path
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store

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

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Where its thumbnail and the image itself lie."""
        name = name_of(self.sha256)
        image = folder / "images" / name[:2] / f"{name}.{ending(self.row)}"
        return folder / "thumbs" / name[:2] / f"{name}.jpg", image

    def pixels(self, how: Decoding) -> Image:
        """Its pixels, of which the hash is right; raises `RdpbenchError` else."""
        if self.original:
            return original_of(self.store, self.row)
        if reconstruction_path(self.store, self.row).is_file():
            return reconstruction_of(self.store, self.row)
        if how.decode is None:
            raise StoreCorrupt("the run kept no reconstruction: keep=all keeps them")
        pixels = how.decode(self.store, self.row)
        if pixel_sha256(pixels) != self.sha256:
            raise StoreCorrupt(f"bitstream {self.row.bitstream_sha256[:12]} decodes to other pixels here")
        return pixels


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


def make(pictures: Sequence[Picture], folder: Path, how: Decoding, workers: int | None = None) -> dict[str, str]:
    """Make what is not there yet; returns why an image could not be made, by its pixels' hash.

    Raises:
        StoreUnwritable: the folder cannot be written.
        WorkerError: a process died.
    """
    todo = [picture for picture in pictures if not picture.files(folder)[1].is_file()]
    for part in {file.parent for picture in todo for file in picture.files(folder)}:
        try:
            part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(part, error) from error
    count = workers if workers is not None else cores()
    if len(todo) <= INLINE or count < 2:
        if how.prepare and any(not picture.original for picture in todo):
            how.prepare()
        return dict(filter(None, (_make(picture, folder, how) for picture in todo)))
    try:
        with ProcessPoolExecutor(count, get_context("forkserver"), initializer=how.prepare) as pool:
            refused = pool.map(_make, todo, itertools.repeat(folder), itertools.repeat(how), chunksize=8)
            return dict(filter(None, refused))
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process that makes the report's images died: {error}. --images none leaves them out"
        ) from None


def _make(picture: Picture, folder: Path, how: Decoding) -> tuple[str, str] | None:
    """Make one image and its thumbnail; returns its hash and the reason if that cannot be done."""
    try:
        pixels = picture.pixels(how)
    except StoreUnwritable:
        raise
    except RdpbenchError as error:
        return picture.sha256, str(error)
    except Exception as error:  # a codec may fail in any way; the report tells of it
        return picture.sha256, f"{type(error).__name__}: {error}"
    image = pil.fromarray(pixels)
    thumb = image.reduce(max(1, max(image.size) // THUMB))
    thumb_file, file = picture.files(folder)
    with written_whole(thumb_file) as beside:
        thumb.save(beside, format="JPEG", quality=80)
    with written_whole(file) as beside:  # the image last, since it stands for both
        if file.suffix == ".webp":
            image.save(beside, format="WEBP", lossless=True, method=0, quality=0)
        else:
            image.save(beside, format="PNG", compress_level=1)
    return None

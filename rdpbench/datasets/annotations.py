"""COCO's annotation files as tables on disk: read once, so that a set of 30,000 images needs no memory for them.

``captions_*.json`` hold 590,000 captions; ``panoptic_*.json`` say which category each segment of a PNG is. Both also
state the size of each image, which tells originals from crops. Karpathy's ``dataset_coco.json`` holds captions too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock

from rdpbench.errors import ConfigError
from rdpbench.paths import cache_folder

Segments: TypeAlias = tuple[Mapping[str, int], ...]
"""Of each segment its ``id`` in the PNG and its ``category_id``."""

_FORMAT = 1
"""Raised when the tables change."""


class Annotations:
    """One annotation file, by image id.

    Args:
        path: the JSON file; its table is made again when its size or time of change differ.

    Raises:
        ConfigError: not a file of the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        stat = path.stat()
        key = hashlib.sha256(f"{_FORMAT} {path.resolve()} {stat.st_size} {stat.st_ctime_ns}".encode()).hexdigest()
        table = cache_folder() / "annotations" / f"{path.stem}-{key[:16]}.sqlite"
        table.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(table.with_suffix(".lock")):
            if not table.is_file():
                _convert(path, table)
        self._table = sqlite3.connect(table, check_same_thread=False)

    def captions(self, image: int) -> tuple[str, ...]:
        """The captions of an image in the file's order, without the spaces and line ends around them."""
        rows = self._table.execute("SELECT text FROM captions WHERE image=? ORDER BY number", (image,))
        return tuple(text for (text,) in rows)

    def size(self, image: int) -> tuple[int, int] | None:
        """Height and width of an image as the file states them."""
        found = self._table.execute("SELECT height, width FROM images WHERE image=?", (image,)).fetchone()
        return (int(found[0]), int(found[1])) if found else None

    def segments(self, image: int) -> Segments | None:
        """The segments of a panoptic PNG with their categories; None if the file does not have the image."""
        found = self._table.execute("SELECT segments FROM panoptic WHERE image=?", (image,)).fetchone()
        return (
            tuple({"id": segment, "category_id": category} for segment, category in json.loads(found[0]))
            if found
            else None
        )

    def close(self) -> None:
        """Close the table."""
        self._table.close()


def image_number(name: str) -> int:
    """COCO's image id in a file name.

    >>> image_number("COCO_val2014_000000000073.jpg")
    73
    """
    return int(Path(name).stem.rpartition("_")[2])


def _convert(path: Path, table: Path) -> None:
    try:
        record = json.loads(path.read_bytes())
        images = record["images"]
        part = table.with_suffix(".part")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part)) as memory, memory:
            memory.execute("CREATE TABLE images (image INT PRIMARY KEY, height INT, width INT)")
            memory.execute("CREATE TABLE captions (image INT, number INT, text TEXT, PRIMARY KEY (image, number))")
            memory.execute("CREATE TABLE panoptic (image INT PRIMARY KEY, segments TEXT)")
            sizes = ((one["id"], one["height"], one["width"]) for one in images if "height" in one)
            memory.executemany("INSERT INTO images VALUES (?, ?, ?)", sizes)
            memory.executemany("INSERT INTO captions VALUES (?, ?, ?)", _captions(record))
            memory.executemany("INSERT INTO panoptic VALUES (?, ?)", _panoptic(record.get("annotations", ())))
        part.replace(table)
    except (ValueError, KeyError, TypeError, AttributeError, sqlite3.Error) as error:
        raise ConfigError(f"{path} is no annotation file of COCO's: {type(error).__name__}: {error}") from error


def _captions(record: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    numbers: dict[int, int] = {}
    for image, text in _texts(record):
        number = numbers[image] = numbers.get(image, -1) + 1
        yield image, number, text.strip()


def _texts(record: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    for image in record["images"]:
        # Karpathy's file holds the sentences with the images.
        yield from ((int(image["cocoid"]), str(one["raw"])) for one in image.get("sentences", ()))
    for one in record.get("annotations", ()):
        if "caption" in one:
            yield int(one["image_id"]), str(one["caption"])


def _panoptic(annotations: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, str]]:
    for one in annotations:
        if "segments_info" in one:
            pairs = [[part["id"], part["category_id"]] for part in one["segments_info"]]
            yield int(one["image_id"]), json.dumps(pairs)

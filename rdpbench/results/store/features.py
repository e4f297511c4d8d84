"""Arrays that set metrics need of each image, kept so that a new subset, interval or preset needs no new decode.

::

    features/<id>-<key>/<session>.bin     arrays, one after the other: float32 as it is, counts compressed
    features/<id>-<key>/<session>.jsonl   a line for each: subject, place, shape, type, sha256

A *subject* is what was looked at: the sha256 of its pixels, and of what was beside them (a label map). Pixels that are
equal share an array, whatever codec they come from. One writer a file; a line is written after its bytes, so that a
kill leaves bytes without a line, never a line without bytes. Reading maps the files: 30,000 arrays of 2048 are 246 MB
on the disk and none in memory until they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, StoreCorrupt
from rdpbench.paths import unwritable
from rdpbench.results.store.parts import check_open

Array = NDArray[Any]


@dataclass(frozen=True)
class Made:
    """An array, and what it is of."""

    kind: str
    """Folder of its kind of features; see `kind_of`."""
    subject: str
    array: Array


@dataclass(frozen=True)
class Place:
    """Where an array lies."""

    path: Path
    at: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    packed: bool
    sha256: str

    def check(self, data: Array | None = None) -> None:
        """Raise `StoreCorrupt` if the bytes are not those that were written; ``data`` are they, if they were read."""
        if data is None:
            with self.path.open("rb") as file:
                file.seek(self.at)
                data = np.frombuffer(file.read(self.bytes), np.uint8)
        found = hashlib.sha256(data.data).hexdigest()
        if found != self.sha256:
            raise StoreCorrupt(
                f"{self.path} changed after it was written: {self.bytes} bytes at {self.at} have sha256 {found}, "
                f"not {self.sha256}. Delete the file and its .jsonl; `rdpbench score` makes them again"
            )


def kind_of(name: str, key: str) -> str:
    """Folder name of a kind of features.

    >>> kind_of("inception/legacy-tf", "0123456789abcdef")
    'inception-legacy-tf-0123456789ab'
    """
    return f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{key[:12]}"


@dataclass(frozen=True)
class FeatureStore:
    """A folder of features: a run's, or the user's cache of those of originals."""

    folder: Path

    def places(self, kind: str) -> dict[str, Place]:
        """Every array of a kind, by subject."""
        found: dict[str, Place] = {}
        for path in sorted((self.folder / kind).glob("*.jsonl")):
            data = path.with_suffix(".bin")
            size = data.stat().st_size if data.is_file() else 0
            for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last line end was cut by a kill
                place = _place(data, line, path)
                if place[1].at + place[1].bytes <= size:
                    found[place[0]] = place[1]
        return found

    def kinds(self) -> list[str]:
        """The kinds that are here."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def writer(self, session: str) -> FeatureWriter:
        """A writer of files of its own."""
        return FeatureWriter(self.folder, session)


def _place(data: Path, line: bytes, path: Path) -> tuple[str, Place]:
    try:
        one = json.loads(line)
        place = Place(data, one["at"], one["bytes"], tuple(one["shape"]), one["dtype"], one["packed"], one["sha256"])
        return str(one["subject"]), place
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path} holds a line that is no record of features: {line[:80]!r}") from error


@dataclass
class FeatureWriter:
    """Appends arrays; one pair of files for each kind."""

    folder: Path
    session: str
    _open: dict[str, tuple[FileIO, FileIO, int]] = field(default_factory=dict)

    def append(self, made: Made) -> None:
        """Write an array and then its line.

        Raises:
            MetricError: an array that nobody could use: empty, or with values that are not finite.
            StoreUnwritable: no space, or no permission.
        """
        array = np.ascontiguousarray(made.array)
        if not array.size or not np.isfinite(array).all():
            raise MetricError(f"features {made.kind} of {made.subject[:12]} are empty or not finite")
        packed = array.dtype.kind in "iu"
        data = zlib.compress(array.tobytes(), 1) if packed else array.tobytes()
        try:
            binary, lines, at = self._files(made.kind)
            _write(binary, data)
            record = {
                "subject": made.subject,
                "at": at,
                "bytes": len(data),
                "shape": array.shape,
                "dtype": array.dtype.str,
                "packed": packed,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            _write(lines, json.dumps(record, separators=(",", ":")).encode() + b"\n")
        except OSError as error:
            raise unwritable(self.folder / made.kind, error) from error
        self._open[made.kind] = binary, lines, at + len(data)

    def _files(self, kind: str) -> tuple[FileIO, FileIO, int]:
        if kind not in self._open:
            folder = self.folder / kind
            folder.mkdir(parents=True, exist_ok=True)
            binary = FileIO(folder / f"{self.session}.bin", "a")
            self._open[kind] = binary, FileIO(folder / f"{self.session}.jsonl", "a"), binary.seek(0, os.SEEK_END)
        return self._open[kind]

    def sync(self) -> None:
        """Bring what was written to the disk, bytes before lines."""
        for kind, (binary, lines, _) in self._open.items():
            folder = self.folder / kind
            check_open(binary, folder / f"{self.session}.bin")
            check_open(lines, folder / f"{self.session}.jsonl")
            try:
                os.fsync(binary.fileno())
                os.fsync(lines.fileno())
            except OSError as error:
                raise unwritable(folder, error) from error

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            for binary, lines, _ in self._open.values():
                binary.close()
                lines.close()
            self._open.clear()


def _write(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class Arrays(Sequence[Array]):
    """Arrays in an order; each is made when it is asked for: a view of the mapped file, or unpacked anew.

    Counts of 30,000 images would be gigabytes unpacked, and one map a file is enough: each holds a file descriptor.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        # Copies on writing: what code of the user's writes there, past the read-only flag too, ends no process.
        self._maps = {path: np.memmap(path, np.uint8, "c") for path in {place.path for place in places}}

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Array: ...

    @overload
    def __getitem__(self, index: slice) -> Arrays: ...

    def __getitem__(self, index: int | slice) -> Array | Arrays:
        if isinstance(index, slice):
            return Arrays(self._places[index])
        place = self._places[index]
        data = self._data(place)
        if place.packed:
            return np.frombuffer(zlib.decompress(data.tobytes()), place.dtype).reshape(place.shape)
        array: Array = np.ndarray(place.shape, place.dtype, data)
        array.flags.writeable = False
        return array

    def _data(self, place: Place) -> Array:
        return self._maps[place.path][place.at : place.at + place.bytes]

    def check(self) -> None:
        """Raise `StoreCorrupt` if the bytes of an array are not those that were written: once, before they are used."""
        for place in set(self._places):
            place.check(self._data(place))


def load(places: Mapping[str, Place], subjects: Sequence[str]) -> Arrays:
    """The arrays of subjects, in their order.

    Raises:
        MetricError: some are not there.
        StoreCorrupt: the bytes of one changed after they were written.
    """
    if missing := [subject for subject in subjects if subject not in places]:
        number = f"{len(missing)} of {len(subjects)}"
        raise MetricError(f"features of {number} images are missing; `rdpbench score` makes them")
    arrays = Arrays([places[subject] for subject in subjects])
    arrays.check()
    return arrays

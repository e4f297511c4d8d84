"""Parts: append-only JSON lines, one writer per file, safe against a kill at any moment.

Each line is one record, written whole and flushed. It begins with a checksum over itself and all lines before it, so
that a changed, lost or repeated line is found in an open part too; lines of earlier versions have none. A closed part
ends with a line that states how many lines came before it and their sha256. So a reader can tell three things apart: an
interrupted part (no last line: what is there is good, an unfinished line at its end is dropped), a damaged one, and a
whole one.

Arrays that set metrics need of each image, kept so that a new subset, interval or preset needs no new decode.

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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, StoreCorrupt, StoreUnwritable
from rdpbench.paths import unwritable
from rdpbench.results.store.schema import SCHEMA_VERSION, encodable

_START = b'{"crc":"'
"""How a line with a checksum begins; no flipped bit makes the begin of an old line, ``{"v":``, of it."""
_OLD = b'{"v":'
_REST = len(_START) + 8
"""Where what the checksum covers begins: after its eight digits."""


class PartWriter:
    """Appends records to a new part file; every record is on its way to the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._size = 0
        self._broken = False
        self._digest = hashlib.sha256()
        self._crc = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # "x": one writer per file, always a new one. "+": what is deleted while it is written can still be read.
            self._file = path.open("x+b", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            StoreUnwritable: the disk is full, the folder cannot be written or is gone; what was written before is safe.
        """
        line = self._line({"v": SCHEMA_VERSION, **record})
        self._write(line)
        self._digest.update(line)
        self.lines += 1
        self._check()

    def _line(self, record: dict[str, Any]) -> bytes:
        text = json.dumps(record, separators=(",", ":"))
        if "\\ud" in text:  # half of a pair of surrogates, which no other file could hold
            text = json.dumps(encodable(record), separators=(",", ":"))
        rest = f'",{text[1:]}\n'.encode()
        self._crc = zlib.crc32(rest, self._crc)
        return b"%s%08x%s" % (_START, self._crc, rest)

    def sync(self) -> None:
        """Ask the operating system to put what was written on the disk; once per chunk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._broken = True
            raise unwritable(self.path, error) from error

    def close(self) -> None:
        """Write the closing line; a part that could not be written stays open, as after a kill."""
        if self._broken:
            self._file.close()
            return
        try:
            self._check()
            self._write(self._line({"v": SCHEMA_VERSION, "end": self.lines, "sha256": self._digest.hexdigest()}))
            self.sync()
        finally:
            self._file.close()

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            self._broken = True
            raise unwritable(self.path, error) from error
        self._size += len(line)

    def _check(self) -> None:
        """Is the file that is written still the one that has its name? A deleted one takes all lines without a word.

        Raises:
            StoreUnwritable: it was deleted, moved or replaced; what was deleted is written again.
            StoreCorrupt: another program wrote into it or cut it.
        """
        held = os.fstat(self._file.fileno())
        if same_file(held, self.path):
            if held.st_size == self._size:
                return
            self._broken = True
            raise StoreCorrupt(
                f"{self.path} was changed by another program while this run wrote to it: it has {held.st_size} bytes, "
                f"not {self._size}. {_DAMAGED}"
            )
        self._broken = True
        if held.st_nlink:
            try:
                place = f"now {Path(f'/proc/self/fd/{self._file.fileno()}').readlink()}"
            except OSError:
                place = "wherever it is now"
            raise StoreUnwritable(
                f"{self.path} was moved or renamed while this run wrote to it. The {self.lines} records of this run "
                f"are in that file, {place}; move its folder back, or name the new one with run= and root=, and run "
                "the same command again: it goes on where it stopped"
            )
        raise StoreUnwritable(
            f"{self.path} was deleted while this run wrote to it. {self._saved()}; run the same command again: it goes "
            "on from there, and codes again what lost its bitstream"
        )

    def _saved(self) -> str:
        """Write what was deleted again, from the file that is still open; says how that went."""
        path = self.path
        try:
            data = os.pread(self._file.fileno(), self._size, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():  # another file in its place
                path = path.with_stem(f"{path.stem}-saved")
            path.write_bytes(data)
        except OSError as error:
            return f"The {self.lines} records of this run are lost: cannot write {path} ({error.strerror or error})"
        return f"The {self.lines} records of this run were written again, to {path}"


def same_file(held: os.stat_result, path: Path) -> bool:
    """Has an open file still its name?"""
    try:
        there = path.stat()
    except OSError:
        return False
    return (held.st_ino, held.st_dev) == (there.st_ino, there.st_dev)


def check_open(file: FileIO, path: Path) -> None:
    """Raise `StoreUnwritable` if a file was deleted or moved while it was written."""
    if not same_file(os.fstat(file.fileno()), path):
        raise StoreUnwritable(f"{path} was deleted or moved while this run wrote to it; run the same command again")


_DAMAGED = "The file was damaged after writing; move it away, and the command that made it does its tasks again"


@dataclass(frozen=True)
class Part:
    """A part as it was read."""

    path: Path
    records: list[dict[str, Any]]
    closed: bool
    """It ended with its closing line, and that line is true."""
    cut: bool
    """Its last line is unfinished: the writer was killed, or the file was truncated."""


def read_part(path: Path) -> Part:
    """Read a part; only an unfinished last line is dropped, anything else that is wrong raises.

    Raises:
        StoreCorrupt: a line that is no record, or a closing line that does not fit what is before it.
    """
    data = path.read_bytes()
    *lines, rest = data.split(b"\n")
    records: list[dict[str, Any]] = []
    closed = False
    digest = hashlib.sha256()
    crc, old = 0, bool(lines) and lines[0].startswith(_OLD)
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        if closed:
            raise StoreCorrupt(f"{where}: lines follow the closing line. {_DAMAGED}")
        if not line.startswith(_OLD if old else _START):
            raise StoreCorrupt(f"{where}: not a record: it begins with {line[:20]!r}. {_DAMAGED}")
        if not old:
            crc = zlib.crc32(line[_REST:] + b"\n", crc)
            if line[len(_START) : _REST] != b"%08x" % crc:
                raise StoreCorrupt(f"{where}: it, or a line before it, is not what was written. {_DAMAGED}")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # the second: nested a thousand times
            raise StoreCorrupt(f"{where}: not a record: {error}. {_DAMAGED}") from error
        if not isinstance(record, dict):
            raise StoreCorrupt(f"{where}: not a record. {_DAMAGED}")
        record.pop("crc", None)
        if "end" in record:
            if record["end"] != len(records) or record.get("sha256") != digest.hexdigest():
                written = f"{len(records)} lines that are not the {record['end']} that were written"
                raise StoreCorrupt(f"{path}: {written}. {_DAMAGED}")
            closed = True
            continue
        digest.update(line + b"\n")
        records.append(record)
    return Part(path, records, closed, cut=bool(rest))


def read_parts(folder: Path) -> Iterator[Part]:
    """All parts of a folder, oldest name first."""
    for path in sorted(folder.glob("*.jsonl")):
        yield read_part(path)


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

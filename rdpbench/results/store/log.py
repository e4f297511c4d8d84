"""Append-only files, safe against a kill at any moment: parts of a run, and the arrays that set metrics need.

::

    parts/<session>.jsonl                 records, one a line, as they are made
    features/<id>-<key>/<session>.bin     arrays, one after the other: float32 as it is, counts compressed
    features/<id>-<key>/<session>.jsonl   a line for each: subject, place, shape, type, sha256

One writer a file. A line is written whole and begins with a checksum over itself; in a part, over all lines before it,
too, so that a changed, lost or repeated line is found. A closed part ends with a line that states how many lines came
before it and their sha256. An unfinished last line is dropped; anything else that is wrong is an error.

The *subject* of an array is what was looked at: the sha256 of its pixels, and of what was beside them (a label map).
Pixels that are equal share an array, whatever codec they come from. Its bytes are written before its line.
"""

from __future__ import annotations

import contextlib
import fcntl
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

Array = NDArray[Any]

_START = b'{"crc":"'
"""How a line with a checksum begins; no flipped bit makes the begin of an old line, ``{"v":``, of it."""
_OLD = b'{"v":'
_REST = len(_START) + 8
"""Where what the checksum covers begins: after its eight digits."""
_DAMAGED = "The file was damaged after writing; move it away, and the command that made it does its tasks again"


def _line_of(record: Mapping[str, Any], crc: int = 0) -> tuple[bytes, int]:
    """A record as a line with its checksum, which goes on from that of the line before."""
    text = json.dumps(record, separators=(",", ":"))
    if "\\ud" in text:  # half of a pair of surrogates, which no other file could hold
        text = json.dumps(encodable(record), separators=(",", ":"))
    rest = f'",{text[1:]}\n'.encode()
    crc = zlib.crc32(rest, crc)
    return b"%s%08x%s" % (_START, crc, rest), crc


def _checksum(line: bytes, crc: int = 0) -> tuple[bool, int]:
    """Does a line (without its end) have its checksum? And what the next one goes on from."""
    crc = zlib.crc32(line[_REST:] + b"\n", crc)
    return line[len(_START) : _REST] == b"%08x" % crc, crc


class _Appended:
    """A file that one writer appends to; what was written is on its way to the disk."""

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.lines = 0
        self._broken = False
        """What is said here of the file may not be true: an error, or Ctrl-C, came amid a line."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = FileIO(path, mode)
        except OSError as error:
            raise unwritable(path, error) from error
        self.size = self._file.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        broken, self._broken = self._broken, True
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.size += len(data)
        self._broken = broken

    def sync(self) -> None:
        """Ask the operating system to put what was written on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._broken = True
            raise unwritable(self.path, error) from error

    def check(self) -> None:
        """Is the file that is written still the one that has its name? A deleted one takes all lines without a word.

        Raises:
            StoreUnwritable: it was deleted, moved or replaced.
            StoreCorrupt: another program wrote into it or cut it.
        """
        if self._broken:  # told already
            return
        held = os.fstat(self._file.fileno())
        try:
            there = self.path.stat()
        except OSError:
            there = None
        same = there is not None and (held.st_ino, held.st_dev) == (there.st_ino, there.st_dev)
        if same and held.st_size == self.size:
            return
        self._broken = True
        if same:
            raise StoreCorrupt(
                f"{self.path} was changed by another program while this run wrote to it: it has {held.st_size} bytes, "
                f"not {self.size}. {_DAMAGED}"
            )
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
        return "What it held is made again"

    def close(self) -> None:
        self._file.close()


class PartWriter(_Appended):
    """Appends records to a new part file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")  # "+": what is deleted while it is written can still be read
        with contextlib.suppress(OSError):  # not every disk has locks; see `is_finished`
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._digest = hashlib.sha256()
        self._crc = 0

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record.

        Raises:
            StoreUnwritable: the disk is full, the folder cannot be written or is gone; what was written before is safe.
        """
        line, crc = _line_of({"v": SCHEMA_VERSION, **record}, self._crc)
        broken, self._broken = self._broken, True
        self.write(line)
        self._digest.update(line)
        self._crc = crc
        self.lines += 1
        self._broken = broken
        self.check()

    def close(self) -> None:
        """Write the closing line; a part that could not be written to its end stays open, as after a kill."""
        try:
            if not self._broken:
                self.check()
                end = {"v": SCHEMA_VERSION, "end": self.lines, "sha256": self._digest.hexdigest()}
                self._broken = True  # nothing may follow it
                self.write(_line_of(end, self._crc)[0])
                self.sync()
        finally:
            super().close()

    def _saved(self) -> str:
        """Write what was deleted again, from the file that is still open; says how that went."""
        path = self.path
        try:
            data = os.pread(self._file.fileno(), self.size, 0)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():  # another file in its place
                path = path.with_stem(f"{path.stem}-saved")
            path.write_bytes(data)
        except OSError as error:
            return f"The {self.lines} records of this run are lost: cannot write {path} ({error.strerror or error})"
        return f"The {self.lines} records of this run were written again, to {path}"


class PartReader:
    """The records of a part, one after the other; only an unfinished last line is dropped.

    Raises:
        StoreCorrupt: a line that is no record, or a closing line that does not fit what is before it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = 0
        """So many were read."""
        self.closed = False
        """It ended with its closing line, and that line is true."""
        self.cut = False
        """Its last line is unfinished: the writer was killed or is writing, or the file was truncated."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        path, digest, crc, old = self.path, hashlib.sha256(), 0, False
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    self.cut = True
                    return
                text, where = line[:-1], f"{path}:{number}"
                old = old or (number == 1 and text.startswith(_OLD))  # of an earlier version, without checksums
                if self.closed:
                    raise StoreCorrupt(f"{where}: lines follow the closing line. {_DAMAGED}")
                if not text.startswith(_OLD if old else _START):
                    raise StoreCorrupt(f"{where}: not a record: it begins with {text[:20]!r}. {_DAMAGED}")
                good, crc = (True, 0) if old else _checksum(text, crc)
                if not good:
                    raise StoreCorrupt(f"{where}: it, or a line before it, is not what was written. {_DAMAGED}")
                try:
                    record = json.loads(text)
                except (ValueError, RecursionError) as error:  # the second: nested a thousand times
                    raise StoreCorrupt(f"{where}: not a record: {error}. {_DAMAGED}") from error
                record.pop("crc", None)
                if "end" in record:
                    if record["end"] != self.records or record.get("sha256") != digest.hexdigest():
                        written = f"{self.records} lines that are not the {record['end']} that were written"
                        raise StoreCorrupt(f"{path}: {written}. {_DAMAGED}")
                    self.closed = True
                else:
                    digest.update(line)
                    self.records += 1
                    yield record


def is_finished(path: Path) -> bool:
    """Does nobody write to a part any more? Its writer holds a lock on it, which ends with the process."""
    try:
        with path.open("rb") as part:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    except OSError:  # no locks on this disk: what has its closing line is finished
        lines = PartReader(path)
        return bool([*lines]) and lines.closed
    return True


# Arrays


@dataclass(frozen=True)
class Extracted:
    """An array, and what it is of."""

    kind: str
    """Folder of its kind of features; see `kind_of`."""
    subject: str
    array: Array


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies."""

    path: Path
    offset: int
    bytes: int
    shape: tuple[int, ...]
    dtype: str
    packed: bool
    sha256: str


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

    def places(self, kind: str, files: str = "*.jsonl") -> dict[str, ArrayPlace]:
        """Every array of a kind, by subject; of some ``files`` alone."""
        places: dict[str, ArrayPlace] = {}
        for path in sorted((self.folder / kind).glob(files)):
            data = path.with_suffix(".bin")
            size = data.stat().st_size if data.is_file() else 0
            for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last line end was cut by a kill
                subject, place = _place(data, line, path)
                if place.offset + place.bytes <= size:
                    places[subject] = place
        return places

    def kinds(self) -> list[str]:
        """The kinds that are here."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def writer(self, session: str) -> FeatureWriter:
        """A writer of files of its own."""
        return FeatureWriter(self.folder, session)


def _place(data: Path, line: bytes, path: Path) -> tuple[str, ArrayPlace]:
    try:
        if line.startswith(_START) and not _checksum(line)[0]:
            raise ValueError("another checksum")
        record = json.loads(line)
        numbers = record["at"], record["bytes"], tuple(record["shape"])
        return str(record["subject"]), ArrayPlace(data, *numbers, record["dtype"], record["packed"], record["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path} holds a line that is no record of features: {line[:80]!r}") from error


@dataclass
class FeatureWriter:
    """Appends arrays; one pair of files for each kind."""

    folder: Path
    session: str
    _open: dict[str, tuple[_Appended, _Appended]] = field(default_factory=dict)

    def append(self, extracted: Extracted) -> None:
        """Write an array and then its line; `MetricError` if nobody could use it."""
        kind, array = extracted.kind, np.ascontiguousarray(extracted.array)
        if not array.size or not np.isfinite(array).all():
            raise MetricError(f"features {kind} of {extracted.subject[:12]} are empty or not finite")
        packed = array.dtype.kind in "iu"
        data = zlib.compress(array.tobytes(), 1) if packed else array.tobytes()
        if kind not in self._open:
            stem = self.folder / kind / self.session
            self._open[kind] = _Appended(Path(f"{stem}.bin"), "a"), _Appended(Path(f"{stem}.jsonl"), "a")
        binary, lines = self._open[kind]
        record = {
            "subject": extracted.subject,
            "at": binary.size,
            "bytes": len(data),
            "shape": array.shape,
            "dtype": array.dtype.str,
            "packed": packed,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        binary.write(data)
        lines.write(_line_of(record)[0])
        lines.lines += 1

    def sync(self) -> None:
        """Bring what was written to the disk, bytes before lines."""
        for files in self._open.values():
            for file in files:
                file.check()
            for file in files:
                file.sync()

    def close(self) -> None:
        """Sync and close."""
        try:
            self.sync()
        finally:
            for files in self._open.values():
                for file in files:
                    file.close()
            self._open.clear()


class Arrays(Sequence[Array]):
    """Arrays in an order; each is made when it is asked for: a view of the mapped file, or unpacked anew.

    Counts of 30,000 images would be gigabytes unpacked, and one map a file is enough: each holds a file descriptor.
    """

    def __init__(self, places: Sequence[ArrayPlace]) -> None:
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

    def _data(self, place: ArrayPlace) -> Array:
        return self._maps[place.path][place.offset : place.offset + place.bytes]

    def check(self) -> None:
        """Raise `StoreCorrupt` if the bytes of an array are not those that were written: once, before they are used."""
        for place in set(self._places):
            sha256 = hashlib.sha256(self._data(place).data).hexdigest()
            if sha256 != place.sha256:
                raise StoreCorrupt(
                    f"{place.path} changed after it was written: {place.bytes} bytes at {place.offset} have sha256 "
                    f"{sha256}, not {place.sha256}. Delete the file and its .jsonl; `rdpbench score` makes them again"
                )


def load_arrays(places: Mapping[str, ArrayPlace], subjects: Sequence[str]) -> Arrays:
    """The arrays of subjects, in their order; `MetricError` if some are missing, `StoreCorrupt` if one changed."""
    if missing := [subject for subject in subjects if subject not in places]:
        number = f"{len(missing)} of {len(subjects)}"
        raise MetricError(f"features of {number} images are missing; `rdpbench score` makes them")
    arrays = Arrays([places[subject] for subject in subjects])
    arrays.check()
    return arrays

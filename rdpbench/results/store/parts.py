"""Parts: append-only JSON lines, one writer per file, safe against a kill at any moment.

Each line is one record, written whole and flushed. It begins with a checksum over itself and all lines before it, so
that a changed, lost or repeated line is found in an open part too; lines of earlier versions have none. A closed part
ends with a line that states how many lines came before it and their sha256. So a reader can tell three things apart: an
interrupted part (no last line: what is there is good, an unfinished line at its end is dropped), a damaged one, and a
whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt, StoreUnwritable
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

"""Parts: append-only JSON lines, one writer per file, safe against a kill at any moment.

Each line is one record, written whole and flushed. A closed part ends with a line that states how many lines came
before it and their sha256. So a reader can tell three things apart: an interrupted part (no last line: what is there is
good, an unfinished line at its end is dropped), a damaged one, and a whole one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt, StoreUnwritable
from rdpbench.results.schema import SCHEMA_VERSION


class PartWriter:
    """Appends records to a new part file; every record is on its way to the disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self._broken = False
        self._digest = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # "x": one writer per file, always a new one.
            self._file = path.open("xb", buffering=0)
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, record: dict[str, Any]) -> None:
        """Write one record.

        Raises:
            StoreUnwritable: the disk is full or the folder cannot be written; what was written before is safe.
        """
        line = json.dumps({"v": SCHEMA_VERSION, **record}, separators=(",", ":")).encode() + b"\n"
        self._write(line)
        self._digest.update(line)
        self.lines += 1

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
        end = {"v": SCHEMA_VERSION, "end": self.lines, "sha256": self._digest.hexdigest()}
        self._write(json.dumps(end, separators=(",", ":")).encode() + b"\n")
        self.sync()
        self._file.close()

    def _write(self, line: bytes) -> None:
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            self._broken = True
            raise unwritable(self.path, error) from error


def unwritable(path: Path, error: OSError) -> StoreUnwritable:
    """The error for a store that cannot be written, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreUnwritable(
            f"no space left to write {path} ({error.strerror or error}). What was measured so far is safe; "
            "free some space and run the same command again: it goes on where it stopped"
        )
    return StoreUnwritable(f"cannot write {path} ({error.strerror or error}); choose another folder with root=FOLDER")


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
    for number, line in enumerate(lines, start=1):
        if closed:
            raise StoreCorrupt(f"{path}:{number}: lines follow the closing line")
        try:
            record = json.loads(line)
        except ValueError as error:
            raise StoreCorrupt(f"{path}:{number}: not a record: {error}. {_DAMAGED}") from error
        if not isinstance(record, dict):
            raise StoreCorrupt(f"{path}:{number}: not a record")
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

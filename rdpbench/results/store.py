"""A run's folder, and how it is read and written.

::

    results/runs/<run>/
      parts/*.jsonl          records as they are made, until they are compacted
      rows.parquet           one row per task
      scores.parquet         task_key, metric, value
      timings.parquet        honest times, where asked for
      bitstreams/ab/abcd...  every bitstream, under its sha256
      reconstructions/       PNG, as far as keep= asks for them
      sessions/*.json        provenance of each call
      tables/  figures/      what `show` makes of the above

Rows exist once however often a command is repeated: what is in the store is not done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreBusy, StoreCorrupt
from rdpbench.results.parts import Part, PartWriter, read_parts, unwritable
from rdpbench.results.schema import SCHEMA_VERSION, Row, Score, Timing, migrate, parse


@dataclass
class Contents:
    """All that a store holds, by key."""

    rows: dict[str, Row] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)

    def add(self, record: dict[str, Any], where: str) -> None:
        """Take in one record; a success replaces a failure of the same key, never the other way round."""
        if "row" in record:
            row: Row = parse(Row, record["row"], where)
            old = self.rows.get(row.task_key)
            if old is None or old.status == "error" or row.status == "ok":
                self.rows[row.task_key] = row
        for one in record.get("scores", ()):
            score: Score = parse(Score, one, where)
            self.scores[score.score_key] = score
        if "timing" in record:
            timing: Timing = parse(Timing, record["timing"], where)
            self.timings[timing.timing_key] = timing
        if "verified" in record and record["verified"] in self.rows:
            key = record["verified"]
            self.rows[key] = replace(self.rows[key], verified="fresh_process")


@dataclass(frozen=True)
class Store:
    """One run's folder."""

    folder: Path

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    def exists(self) -> bool:
        """Has anything been stored here?"""
        return self.folder.is_dir() and (self._parquet("rows").is_file() or any(self.parts.glob("*.jsonl")))

    def read(self) -> Contents:
        """Everything, compacted or not.

        Raises:
            StoreCorrupt: a file is not what was written.
            StoreError: a file of a newer version.
        """
        contents = self._compacted()
        for part in self.read_parts():
            for number, record in enumerate(part.records, start=1):
                where = f"{part.path}:{number}"
                contents.add(migrate(record, record.get("v"), where), where)
        return contents

    def read_parts(self) -> Iterator[Part]:
        """The parts that are not compacted yet."""
        return read_parts(self.parts)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for writing.

        Raises:
            StoreBusy: another rdpbench holds it.
            StoreUnwritable: it cannot be made or written.
        """
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise StoreBusy(
                f"another rdpbench is writing to {self.folder}. Wait for it, or give this one a folder of its own: "
                "run=ANOTHER_NAME"
            ) from None
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def writer(self, session: str) -> PartWriter:
        """A new part; hold the lock."""
        return PartWriter(self.parts / f"{session}.jsonl")

    def compact(self) -> None:
        """Move the parts into Parquet: written beside, checked, swapped in, and only then are the parts deleted."""
        parts = list(self.read_parts())
        if not parts:
            return
        contents = self.read()
        for name, records in _tables(contents).items():
            if records:
                self._write_parquet(name, records)
        again = self._compacted()
        if again.rows.keys() != contents.rows.keys() or again.scores.keys() != contents.scores.keys():
            raise StoreCorrupt(f"{self._parquet('rows')} does not hold what was just written; the parts are kept")
        for part in parts:
            part.path.unlink()

    # Bitstreams

    def bitstream_path(self, sha256: str) -> Path:
        """Where the bitstream with this hash lies."""
        return self.folder / "bitstreams" / sha256[:2] / f"{sha256}.bin"

    def put_bitstream(self, data: bytes) -> str:
        """Store a bitstream under its sha256; returns the hash."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.bitstream_path(sha256)
        if not path.exists():
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                beside = path.with_suffix(f".{os.getpid()}.tmp")
                beside.write_bytes(data)
                beside.replace(path)
            except OSError as error:
                raise unwritable(path, error) from error
        return sha256

    def get_bitstream(self, sha256: str) -> bytes:
        """The stored bytes, checked against their name.

        Raises:
            StoreCorrupt: the file is missing or its bytes changed.
        """
        path = self.bitstream_path(sha256)
        if not path.is_file():
            raise StoreCorrupt(f"bitstream {path} is missing")
        data = path.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise StoreCorrupt(f"bitstream {path} changed after it was stored: its sha256 is now {found}")
        return data

    def has_bitstream(self, row: Row) -> bool:
        """Is a row's bitstream there, with its size? (Cheap; `verify` checks the bytes.)"""
        path = self.bitstream_path(row.bitstream_sha256)
        return path.is_file() and path.stat().st_size == row.bytes

    # Parquet

    def _parquet(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"

    def _compacted(self) -> Contents:
        contents = Contents()
        for record in self._read_parquet("rows"):
            contents.add({"row": record}, str(self._parquet("rows")))
        contents.scores = {
            one["score_key"]: parse(Score, one, str(self._parquet("scores"))) for one in self._read_parquet("scores")
        }
        for record in self._read_parquet("timings"):
            contents.add({"timing": record}, str(self._parquet("timings")))
        return contents

    def _read_parquet(self, name: str) -> list[dict[str, Any]]:
        path = self._parquet(name)
        if not path.is_file():
            return []
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = parquet.ParquetFile(path, page_checksum_verification=True).read()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreCorrupt(f"{path} cannot be read: {error}. It was damaged or cut after writing") from error
        version = json.loads((table.schema.metadata or {}).get(b"schema_version", b"null"))
        records: list[dict[str, Any]] = table.to_pylist()
        return [migrate(record, version, str(path)) for record in records]

    def _write_parquet(self, name: str, records: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_pylist(records)
        table = table.replace_schema_metadata({"schema_version": json.dumps(SCHEMA_VERSION)})
        path = self._parquet(name)
        beside = path.with_suffix(".tmp")
        try:
            parquet.write_table(table, beside, compression="zstd", write_page_checksum=True)
            with beside.open("rb") as written:
                os.fsync(written.fileno())
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise unwritable(path, error) from error


def _tables(contents: Contents) -> dict[str, list[dict[str, Any]]]:
    def ordered(items: Iterable[Any], *keys: str) -> list[dict[str, Any]]:
        return [asdict(one) for one in sorted(items, key=lambda one: [str(getattr(one, key)) for key in keys])]

    return {
        "rows": ordered(contents.rows.values(), "dataset", "codec", "rate", "image", "task_key"),
        "scores": ordered(contents.scores.values(), "task_key", "metric", "score_key"),
        "timings": ordered(contents.timings.values(), "task_key", "timing_key"),
    }

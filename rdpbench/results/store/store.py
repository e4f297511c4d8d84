"""A run's folder, and how it is read and written.

::

    results/runs/<run>/
      parts/*.jsonl          records as they are made, until they are compacted (`rdpbench.results.store.log`)
      rows.parquet           one row per task
      scores.parquet         task_key, metric, value
      timings.parquet        honest times, where asked for
      sets.parquet           values of set metrics, one per point
      members.parquet        rows that belong to more points than the one they were coded for
      measures.parquet       units and directions of metrics that do not ship
      segments/*.parquet     the same of a large run: files of 8,192 rows and more, which are not written again
      parquet.sha256         of all these and of the sessions, as sha256sum writes it: a checksum inside Parquet covers
                             a part of it only; its first line is a comment with the sha256 of the others
      bitstreams/ab/abcd...  every bitstream, under its sha256
      reconstructions/       lossless PNG, as far as keep= asks for them
      features/              arrays that set metrics need, per image
      sessions/*.json        provenance of each call
      queue/                 chunks of a run that is under way (`rdpbench.runners.queue`)
      tables/  figures/      what `show` makes of the above

Rows exist once however often a command is repeated: what is in the store is not done again.

Compacting writes ``rows.parquet`` and the others anew. Once they hold `SEALED` rows they become a segment, and begin
again empty; `MERGED` small segments become a large one. So adding a thousand rows to a million writes a few thousand.
A later file hides what an earlier one says of the same key (`rdpbench.results.store.columns`). Which segments there are
is what ``parquet.sha256`` lists: it changes at one moment, and a file that it does not list is what a kill left behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rdpbench.assets.hashes import content_sha256
from rdpbench.errors import StoreBusy, StoreCorrupt, StoreUnwritable
from rdpbench.lazy import pa
from rdpbench.paths import unwritable, written_whole
from rdpbench.progress import tell
from rdpbench.results.store.bitstreams import Bitstreams, picture_path
from rdpbench.results.store.columns import (
    Hashes,
    Mask,
    Places,
    Segment,
    open_file,
    ranks,
    read_columns,
    schema_of,
    table_of,
    write_table,
)
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.log import FeatureStore, PartReader, PartWriter, is_finished
from rdpbench.results.store.records import BLOCK, Records
from rdpbench.results.store.schema import (
    KINDS,
    SCHEMA_VERSION,
    Row,
    migrate,
    parse,
)


@dataclass(frozen=True)
class Store:
    """One run's folder."""

    folder: Path

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    def exists(self) -> bool:
        """Has anything been stored here?"""
        files = ("parts/*.jsonl", f"{_SEGMENTS}row*.parquet")
        return self.folder.is_dir() and (
            self._parquet("row").is_file() or any(any(self.folder.glob(name)) for name in files)
        )

    def read(self, known: Contents | None = None) -> Contents:
        """Everything, compacted or not; to what is ``known`` only that is added which came since.

        Raises:
            StoreCorrupt: a file is not what was written.
            StoreError: a file of a newer version.
        """
        if known is not None and known.checksums != self._checksums():
            known = None  # other Parquet files than those that were read
        # Sizes of parts first: if another process compacts meanwhile, what leaves the parts is found in Parquet.
        while True:
            contents = known
            try:
                sizes = {path: path.stat().st_size for path in sorted(self.parts.glob("*.jsonl"))}
                contents = self._compacted() if known is None else known
                for path, size in sizes.items():
                    if contents.parts.get(path) != size:
                        self._take_part(contents, path)
                        contents.parts[path] = size
            except FileNotFoundError:
                known = None  # compacted by another process, which has written other Parquet files, too
                continue
            return contents

    def _take_part(self, contents: Contents, path: Path, full: Callable[[], object] | None = None) -> None:
        """Take in a part, a block at a time; ``full`` is called when enough for a segment is there."""
        lines: list[tuple[dict[str, Any], str]] = []
        for number, record in enumerate(PartReader(path), start=1):
            lines.append((record, f"{path}:{number}"))
            if len(lines) == BLOCK:
                contents.take(lines)
                lines = []
                (full or contents.freeze)()
        contents.take(lines)

    def check_links(self, *names: str) -> None:
        """Refuse to write through links of the run's folder that lead out of it: who made the folder made them.

        Raises:
            StoreUnwritable: one of the names is such a link.
        """
        home = self.folder.resolve()
        for name in names:
            path = self.folder / name
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise StoreUnwritable(
                    f"{path} is a link to {path.readlink()}, out of the run's folder, where nothing is written. "
                    "Put a folder in its place"
                )

    @contextlib.contextmanager
    def lock(self, *, wait: bool = False, alone: bool = False) -> Iterator[None]:
        """Hold the folder, to plan and to finish a run.

        Args:
            wait: until another one has planned or finished.
            alone: for long: nobody else is to work on it meanwhile, and nobody waits.

        Raises:
            StoreBusy: another rdpbench holds it.
            StoreUnwritable: it cannot be made or written.
        """
        from filelock import FileLock, Timeout

        self.check_links("parts", "sessions", ".lock", ".alone", "queue", "reconstructions", "features")
        for path in [*self.folder.glob("*.tmp"), *self.folder.glob("*.parquet"), self.folder / "parquet.sha256"]:
            self.check_links(path.name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            for_long = FileLock(self.folder / ".alone", timeout=0)
            while True:
                try:
                    lock.acquire(timeout=0.1 if wait else 0)
                    break
                except Timeout:
                    if not wait:
                        raise
                    with for_long:  # not if whoever has the lock has this one too
                        pass
            if alone:
                for_long.acquire()
        except Timeout:
            raise StoreBusy(
                f"another rdpbench is writing to {self.folder}. Wait for it, or give this one a folder of its own: "
                "run=ANOTHER_NAME"
            ) from None
        except FileNotFoundError as error:
            what = "it was deleted meanwhile" if self.folder.parent.is_dir() else "no folder can be made there"
            raise StoreUnwritable(f"cannot write {self.folder}: {what}; choose another with root=FOLDER") from error
        except OSError as error:
            raise unwritable(self.folder, error) from error
        try:
            yield
        finally:
            for_long.release()
            lock.release()

    def new_session(self) -> str:
        """A name for a call that writes here. It sorts behind all others, whatever the clock says: later is newer."""
        from rdpbench.provenance import new_session

        names = [path.stem for place in ("sessions/*.json", "parts/*.jsonl") for path in self.folder.glob(place)]
        return new_session(max(names, default=""))

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What was noted of each call that wrote here, by its name, in order; what cannot be read says so."""
        records = {}
        for path in sorted((self.folder / _SESSIONS).glob("*.json")):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                record = {"provenance": f"cannot be read: {error}"}
            records[path.stem] = record if isinstance(record, dict) else {}
        return records

    def writer(self, session: str) -> PartWriter:
        """A new part; hold the lock."""
        return PartWriter(self.parts / f"{session}.jsonl")

    def compact(self, known: Contents | None = None, writing: Collection[str] = ()) -> Contents:
        """Move parts into Parquet: written beside, checked, swapped in, and only then are the parts deleted.

        Returns what is stored then; ``known`` is as for `read`. Parts that are being written stay: of sessions that are
        ``writing``, as far as the caller knows, and those that a process holds; and with them what others say of their
        rows: that they were verified or refuted.
        """
        parts = sorted(self.parts.glob("*.jsonl"))
        finished = [path for path in parts if path.stem not in writing and is_finished(path)]
        if not finished:
            return self.read(known)
        if known is not None:
            known = self.read(known)
        if known is not None and known.parts.keys() <= {*finished}:
            contents = known
        else:
            contents = self._compacted()
            for path in [*finished]:
                contents.early.clear()
                self._take_part(contents, path, lambda: self._flush(contents))
                if contents.early and len(finished) < len(parts):
                    finished.remove(path)
        self._flush(contents)
        for path in finished:
            path.unlink(missing_ok=True)
        contents.parts.clear()
        self._merge(contents)
        return self.read(contents)

    def _flush(self, contents: Contents) -> None:
        """Write what is not in a segment yet to ``rows.parquet`` and the others; if it is enough, as a segment."""
        written: dict[str, tuple[Path, str]] = {}
        tables = {}
        for kind in KINDS:
            table = contents.of_kind(kind).unsealed()
            if table.num_rows or self._parquet(kind).is_file():
                tables[kind] = _sorted(table, _ORDER[kind])
                stated = {"changed": sorted(contents.changed)} if kind == "row" and contents.changed else {}
                written[self._parquet(kind).name] = self._write_parquet(self._parquet(kind), tables[kind], **stated)
        sessions = [(sha, f"{_SESSIONS}{session}.json") for session, sha in sorted(contents.sessions.items())]
        new = [(sha, name) for name, (_, sha) in written.items()] + sessions
        # A kill between these steps leaves both checksums, so whichever file is there is known.
        listed = [(sha, name) for sha, name in self._checksums() if _IS_FILE(name)]
        kept = [line for line in listed if (self.folder / line[1]).is_file()]
        self._write_checksums(sorted({*kept, *new}, key=lambda line: line[::-1]))
        for name, (beside, _) in written.items():
            beside.replace(self.folder / name)
        kept = [line for line in kept if line[1] not in written]
        self._write_checksums([*kept, *new])
        for kind, table in tables.items():
            segment = self._opened(kind, self._parquet(kind))
            there = segment.table()
            if any(not there.column(name).equals(table.column(name)) for name in schema_of(kind).names):
                raise StoreCorrupt(f"{segment.where} does not hold what was just written; the parts are kept")
            contents.of_kind(kind).written(segment)
        if "row" in tables and max(tables["row"].num_rows, tables.get("score", tables["row"]).num_rows // 8) >= SEALED:
            self._seal(contents, written, kept + sessions)
        contents.checksums = self._checksums()

    def _seal(self, contents: Contents, written: Mapping[str, tuple[Path, str]], kept: list[tuple[str, str]]) -> None:
        """Make what was just written a segment: it gets another name, under which it stays as it is.

        In between both names are listed with one checksum, and whichever is there is read.
        """
        last = max((segment_number(name) for _, name in kept if name.startswith(_SEGMENTS)), default=0)
        names = {name: f"{_SEGMENTS}{Path(name).stem}-{last + 1:06d}.parquet" for name in written}
        sealed = [(sha, names[name]) for name, (_, sha) in written.items()]
        (self.folder / _SEGMENTS).mkdir(exist_ok=True)
        self._write_checksums([*kept, *((sha, name) for name, (_, sha) in written.items()), *sealed])
        for name in written:
            (self.folder / name).replace(self.folder / names[name])
        self._write_checksums([*kept, *sealed])
        contents.changed.clear()
        for segment in contents.of_kind("row").segments:
            if not segment.sealed:
                self.bitstreams.pack(segment.texts("bitstream_sha256"))
        for kind in KINDS:
            for segment in contents.of_kind(kind).segments:
                if not segment.sealed:
                    segment.sealed, segment.where = True, str(self.folder / names[f"{kind}s.parquet"])

    def _merge(self, contents: Contents) -> None:
        """Write `MERGED` small segments as a large one."""
        small = sorted({segment_number(name) for _, name in contents.checksums if _SMALL.fullmatch(name)})
        while len(small) >= MERGED:
            started, numbers, small = time.perf_counter(), small[:MERGED], small[MERGED:]
            old: set[str] = set()
            new: list[tuple[str, str]] = []
            for kind in KINDS:
                names = [f"{_SEGMENTS}{kind}s-{number:06d}.parquet" for number in numbers]
                places = {str(self.folder / name) for name in names}
                merged = contents.of_kind(kind).merged(places)
                if merged is None:
                    continue
                segments = contents.of_kind(kind).segments
                changed = sorted({key for segment in segments if segment.where in places for key in segment.changed})
                stated = {"changed": changed} if changed else {}
                path = self.folder / f"{_SEGMENTS}{kind}s-{numbers[0]:06d}-{numbers[-1]:06d}.parquet"
                beside, sha256 = self._write_parquet(path, _sorted(merged, _ORDER[kind]), **stated)
                beside.replace(path)
                new.append((sha256, str(path.relative_to(self.folder))))
                contents.of_kind(kind).swap(places, self._opened(kind, path, sha256))
                old |= {name for name in names if (self.folder / name).is_file()}
            self._write_checksums([*((sha, name) for sha, name in self._checksums() if name not in old), *new])
            for name in old:
                (self.folder / name).unlink(missing_ok=True)
            contents.checksums = self._checksums()
            if (seconds := time.perf_counter() - started) > TOLD_S:
                tell(f"{MERGED} segments of {self.folder} were merged in {seconds:.0f} s")

    @property
    def features(self) -> FeatureStore:
        """The arrays of this run's reconstructions."""
        return FeatureStore(self.folder / "features")

    @property
    def bitstreams(self) -> Bitstreams:
        """The bitstreams of this run."""
        return Bitstreams(self.folder / "bitstreams")

    def has_bitstream(self, row: Row) -> bool:
        """Is a row's bitstream there, with its size, and what no decoder makes of it? (`verify` checks the bytes.)"""
        size = self.bitstreams.size(row.bitstream_sha256)
        whole = size is not None and (row.grade == "reported" or size == row.bytes)
        return whole and (row.proven or picture_path(self, row).is_file())

    def has_bitstreams(self, rows: Records[Row], places: Places) -> Mask:
        """The same of many rows."""
        hashes, known = rows.hashes("bitstream_sha256")
        sizes = self.bitstreams.sizes(Hashes(hashes.raw[places]))
        whole: Mask = known[places] & (sizes == rows.numbers("bytes")[places])
        unproven = np.flatnonzero(~rows.codes("grade").of(places).where(("decoded", "").__contains__))
        for number, row in zip(unproven.tolist(), rows.at(places[unproven]), strict=True):
            whole[number] = self.has_bitstream(row)
        return whole

    # Parquet

    def _parquet(self, kind: str) -> Path:
        return self.folder / f"{kind}s.parquet"

    def _compacted(self) -> Contents:
        """What is in Parquet files.

        Raises:
            FileNotFoundError: another process has written others meanwhile.
        """
        contents = Contents(folder=self.folder, checksums=self._checksums())
        listed = {name: sha for sha, name in contents.checksums}
        for kind in KINDS:
            records, active = contents.of_kind(kind), self._parquet(kind)
            names = (name for name in listed if re.fullmatch(rf"{_SEGMENTS}{kind}s-[\d-]+\.parquet", name))
            for name in sorted(names, key=segment_number):
                path = self.folder / name
                # A kill may have come before it got this name.
                if path.is_file() or listed.get(active.name) != listed[name] or not active.is_file():
                    records.put_over(self._opened(kind, path, listed[name]))
            if active.is_file():
                records.put_over(self._opened(kind, active))
        rows = contents.of_kind("row").segments
        for kind in ("score", "timing"):
            for segment in contents.of_kind(kind).segments:
                later = (key for row in rows if _age(row) > _age(segment) for key in row.changed)
                if changed := dict.fromkeys(later):
                    segment.hide("task_key", pa.array(list(changed)))
        contents.changed = {key for segment in rows if not segment.sealed for key in segment.changed}
        contents.missing = [str(path.relative_to(self.folder)) for path in self.missing_files()]
        stems = [(name.removeprefix(_SESSIONS), sha) for sha, name in contents.checksums if name.startswith(_SESSIONS)]
        contents.sessions = {stem.removesuffix(".json"): sha for stem, sha in stems}
        return contents

    def _opened(self, kind: str, path: Path, sealed: str = "") -> Segment:
        """A Parquet file as a segment; of one that is ``sealed`` with a checksum only what is asked for is read.

        Raises:
            StoreCorrupt: it is damaged.
            FileNotFoundError: it is gone, since another process wrote others.
        """
        if not sealed:
            file, stated = _records(kind, self._checked(path), str(path))
        else:
            if not path.is_file():
                if sealed not in [sha for sha, name in self._checksums() if name == str(path.relative_to(self.folder))]:
                    raise FileNotFoundError(path)
                raise StoreCorrupt(f"{path} is missing. Put it back from a copy: it holds {kind}s of this run")
            if content_sha256(path) != sealed:
                raise StoreCorrupt(self._which(path, path.read_bytes(), content_sha256(path)))
            file, stated = open_file(kind, path, str(path))
        version = stated.get("schema_version")
        if version == SCHEMA_VERSION:
            segment = Segment(kind, file, str(path))
        else:
            segment = self._migrated(kind, file, version, str(path))
        if not sealed:
            segment.load(schema_of(kind).names)  # all of it is held against what it must be
        segment.sealed, segment.changed = bool(sealed), list(stated.get("changed", []))
        return segment

    def _migrated(self, kind: str, file: Any, version: object, where: str) -> Segment:
        """A file of an older version, in this one's columns."""
        tables = [table_of(kind, ())]
        migrate({}, version, where)  # refuses a newer version
        for group in range(file.num_row_groups):
            table = read_columns(file, None, where, group)
            for start in range(0, len(table), BLOCK):
                records = [migrate(r, version, where, kind) for r in table.slice(start, BLOCK).to_pylist()]
                tables.append(table_of(kind, [parse(KINDS[kind], record, where) for record in records]))
        return Segment(kind, pa.concat_tables(tables), where)

    def _checked(self, path: Path) -> bytes:
        """A Parquet file's bytes, if they have the checksum that was noted when they were written."""
        before = None
        while True:
            data = path.read_bytes()
            state = _sha256(data), [sha for sha, name in self._checksums() if name == path.name]
            if state[0] in state[1]:
                return data
            if state == before:  # not just swapped by another process between the two reads
                raise StoreCorrupt(self._which(path, data, state[0]))
            before = state

    def _which(self, path: Path, data: bytes, sha256: str) -> str:
        """Which is damaged, a Parquet file or the checksum that was noted of it? Each has checksums of its own."""
        notes = self.folder / "parquet.sha256"
        state = self._notes_damaged()
        try:
            kind = next(kind for kind in KINDS if path.name.startswith(f"{kind}s"))
            read_columns(_records(kind, data, path.name)[0], None, path.name)
            reads = True
        except StoreCorrupt:
            reads = False
        files = "*.parquet segments/*.parquet" if (self.folder / _SEGMENTS).is_dir() else "*.parquet"
        again = f"(cd {shlex.quote(str(self.folder))} && sha256sum {files} > parquet.sha256)"
        if state and reads:
            return (
                f"{notes} {state}. {path} itself can be read, and the checksums inside it are right: keep it. Put "
                f"{notes.name} back from a copy; or take the Parquet files as they are, and type: {again}"
            )
        damaged = (
            f"{path} was damaged or cut after writing: its sha256 is {sha256}, not as noted in {notes.name}. Put it "
            "back from a copy; or move it away, and the command that made it measures again"
        )
        if state:
            return f"{damaged}. {notes} {state}, too"
        if reads and state is None:
            return (
                f"{path} was changed after writing, or {notes} was: the file's sha256 is {sha256}, not as noted there. "
                f"The checksums inside {path.name} are right, but do not cover all of it. Put back whichever changed "
                f"from a copy; if you know that the Parquet files are good, type: {again}"
            )
        return damaged

    def _notes_damaged(self) -> str | None:
        """What is wrong with the file of checksums; empty if nothing is, None if it was written without its own."""
        path = self.folder / "parquet.sha256"
        if not path.is_file():
            return "is missing"
        first, _, rest = path.read_bytes().partition(b"\n")
        if first.startswith(b"# "):
            return "" if first == _own_line(rest) else "was damaged after writing"
        lines = path.read_text(errors="replace").splitlines()
        whole = all(re.fullmatch(rf"[0-9a-f]{{64}}  ({_PARQUET}|{_SESSIONS}\S+)", line) for line in lines)
        return None if whole and lines else "was damaged after writing"

    def damaged_notes(self, sessions: Mapping[str, str]) -> list[str]:
        """What is wrong with the file of checksums, and which files of calls are gone or not what was written."""
        state = self._notes_damaged() if any(self.folder.glob("**/*.parquet")) else ""
        lines = [f"{self.folder / 'parquet.sha256'} {state}"] if state else []
        for session, sha256 in sorted(sessions.items()):
            path = self.folder / f"{_SESSIONS}{session}.json"
            if not path.is_file():
                lines.append(f"{path} is missing: it says how the rows of that call were made. Put it back from a copy")
            elif _sha256(path.read_bytes()) != sha256:
                lines.append(f"{path} changed after it was written: it says how the rows of that call were made")
        return lines

    def missing_files(self) -> list[Path]:
        """Parquet files that were written and are no longer here, or here under another name where a kill came."""
        listed = [(sha, self.folder / name) for sha, name in self._checksums() if _IS_FILE(name)]
        there = {sha for sha, path in listed if path.is_file()}
        gone = dict.fromkeys(path for sha, path in listed if not path.is_file() and sha not in there)
        # One that is beside its place may be in it by now.
        return [path for path in gone if not path.with_suffix(".tmp").is_file() and not path.is_file()]

    def check_whole(self) -> None:
        """Raise `StoreCorrupt` if a Parquet file is gone: what it held would be taken for what never was."""
        if missing := self.missing_files():
            raise StoreCorrupt(
                f"{missing[0]} is missing. Put it back from a copy; or type the command that made it first, which "
                "measures again what is lost"
            )

    def _checksums(self) -> list[tuple[str, str]]:
        path = self.folder / "parquet.sha256"
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return [(sha, name) for sha, _, name in (line.partition("  ") for line in lines if not line.startswith("#"))]

    def _write_checksums(self, lines: Iterable[tuple[str, str]]) -> None:
        text = "".join(f"{sha}  {name}\n" for sha, name in dict.fromkeys(lines))
        with written_whole(self.folder / "parquet.sha256") as beside:
            beside.write_text(f"{_own_line(text.encode()).decode()}\n{text}")
            _sync(beside)

    def _write_parquet(self, path: Path, table: Any, **stated: Any) -> tuple[Path, str]:
        """Write a table beside its place; returns where, and its sha256."""
        beside = path.with_suffix(".tmp")
        try:
            write_table(table, beside, **stated)
            _sync(beside)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise unwritable(path, error) from error
        return beside, _sha256(beside.read_bytes())


SEALED = 8192
"""Rows, or an eighth of the scores, that make a segment."""
MERGED = 16
"""Small segments that make a large one."""
TOLD_S = 2.0
"""Seconds above which merging is told of."""
_SESSIONS = "sessions/"
_SEGMENTS = "segments/"
_PARQUET = rf"({_SEGMENTS})?({'|'.join(KINDS)})s(-\d{{6}}){{0,2}}\.parquet"
_IS_FILE = re.compile(_PARQUET).fullmatch
_SMALL = re.compile(rf"{_SEGMENTS}\w+-\d{{6}}\.parquet")
_ORDER = {
    "row": ("dataset", "codec", "rate", "image", "task_key"),
    "score": ("task_key", "metric", "score_key"),
    "timing": ("task_key", "timing_key"),
    "set": ("metric", "time", "set_key"),
    "member": ("dataset", "codec", "task_key", "member_key"),
    "measure": ("metric", "measure_key"),
}
"""By what the records of a Parquet file are sorted."""


def _own_line(rest: bytes) -> bytes:
    """The first line of the file of checksums, a comment to ``sha256sum``."""
    return f"# sha256 of the lines below: {_sha256(rest)}".encode()


def _records(kind: str, data: bytes, where: str) -> tuple[Any, dict[str, Any]]:
    """A Parquet file in memory, and what its header states."""
    return open_file(kind, pa.BufferReader(data), where)


def segment_number(name: str) -> int:
    """The place of a segment among the others, from its name.

    >>> segment_number("segments/rows-000017-000032.parquet")
    17
    """
    return int(name.partition("-")[2][:6])


def _age(segment: Segment) -> float:
    """The later a segment was written, the higher."""
    return segment_number(Path(segment.where).name) if segment.sealed else math.inf


def _sorted(table: Any, order: Sequence[str]) -> Any:
    """A table by the texts of some of its columns."""
    keys = []
    for name in order:
        column = table.column(name).combine_chunks().dictionary_encode("encode")
        texts = [str(value) for value in column.dictionary.to_pylist()]
        keys.append(ranks(texts)[column.indices.to_numpy(zero_copy_only=False)] if texts else np.empty(0, np.int64))
    return table.take(pa.array(np.lexsort(keys[::-1])))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())

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
      parquet.sha256         of these six and of the sessions, as sha256sum writes it: a checksum inside Parquet covers
                             a part of it only; its first line is a comment with the sha256 of the others
      bitstreams/ab/abcd...  every bitstream, under its sha256
      reconstructions/       lossless PNG, as far as keep= asks for them
      features/              arrays that set metrics need, per image
      sessions/*.json        provenance of each call
      queue/                 chunks of a run that is under way (`rdpbench.runners.queue`)
      tables/  figures/      what `show` makes of the above

Rows exist once however often a command is repeated: what is in the store is not done again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import CodecError, StoreBusy, StoreCorrupt, StoreUnwritable
from rdpbench.image import Image, pixel_sha256, read_image
from rdpbench.lazy import pil
from rdpbench.paths import ODD, file_name, unwritable, write_file, written_whole
from rdpbench.results.store.log import FeatureStore, PartWriter, read_part
from rdpbench.results.store.schema import (
    KINDS,
    REFUTED,
    SCHEMA_VERSION,
    Measure,
    Member,
    Row,
    Score,
    SetScore,
    Timing,
    migrate,
    parse,
)


@dataclass
class Contents:
    """All that a store holds, by key."""

    rows: dict[str, Row] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    sets: dict[str, SetScore] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    measures: dict[str, Measure] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    """The sha256 of the file of each call, as far as it was noted."""
    parts: set[Path] = field(default_factory=set, compare=False)
    """The parts that are in it."""
    checksums: list[tuple[str, str]] = field(default_factory=list, compare=False)
    """Those of the Parquet files that are in it."""

    def add(self, record: dict[str, Any], where: str) -> None:
        """Take in a line of a part; a success replaces a failure of the same key, never the other way round.

        A target that is out of range is no failure: another tolerance says something else of the same bitstream.
        """
        if odd := sorted(record.keys() - _KNOWN):
            raise StoreCorrupt(f"{where}: {', '.join(odd):.80} is not of a record")
        for kind in KINDS:  # in this order: a new row drops the times of its old pixels, then its own come in
            if kind != "score" and kind in record:
                self.put(kind, record[kind], where)
        scores = record.get("scores", [])
        if not isinstance(scores, list):
            raise StoreCorrupt(f"{where}: {scores!r:.80} cannot be the scores of a record")
        for score in scores:
            self.put("score", score, where)
        if "session" in record:
            self.sessions[_text(record, "session", where)] = _text(record, "sha256", where)
        if "verified" in record:
            self._change(_text(record, "verified", where), verified="fresh_process")
        if "refuted" in record:
            key, error = _text(record, "refuted", where), _text(record, "error", where)
            self._change(key, status="error", error=error)
            if error.startswith(REFUTED):
                self._change(key, verified="refuted")
        if "suspect" in record:
            self._change(_text(record, "suspect", where), verified="refuted")

    def put(self, kind: str, record: Any, where: str) -> None:
        """Take in a record of one of `KINDS`."""
        parsed: Any = parse(KINDS[kind], record, where)
        if kind == "row":
            self._add_row(parsed)
        else:
            getattr(self, f"{kind}s")[getattr(parsed, f"{kind}_key")] = parsed

    def _change(self, key: str, **changes: Any) -> None:
        if key in self.rows:
            self.rows[key] = replace(self.rows[key], **changes)

    def _add_row(self, row: Row) -> None:
        key = row.task_key
        old = self.rows.get(key)
        if old is not None:
            if old.status != "error" and row.status == "error":
                return
            if old == replace(row, verified=old.verified):
                return  # a part that is compacted already: what was verified since stays so
            if old.verified == "refuted" and row.verified == "fresh_object":
                row = replace(row, verified="refuted")  # coded again: nobody has decoded it elsewhere yet
            if old.reconstruction_sha256 and _measured(old) != _measured(row):
                # To other pixels or bytes, or from other files: scores and times of the old ones are not its.
                self.scores = {name: score for name, score in self.scores.items() if score.task_key != key}
                self.timings = {name: timing for name, timing in self.timings.items() if timing.task_key != key}
        self.rows[key] = row


_KNOWN = {*KINDS, "v", "scores", "session", "sha256", "verified", "refuted", "suspect", "error"} - {"score"}
"""What a record can have."""


def _measured(row: Row) -> tuple[str, ...]:
    """What scores and times are of: several decodes of a bitstream depend on its bytes and on the codec's files."""
    return row.reconstruction_sha256, row.bitstream_sha256, row.files


def _text(record: dict[str, Any], name: str, where: str) -> str:
    text = record.get(name)
    if not isinstance(text, str):
        raise StoreCorrupt(f"{where}: {text!r:.80} cannot be the {name} of a record")
    return text


@dataclass(frozen=True)
class Store:
    """One run's folder."""

    folder: Path

    @property
    def parts(self) -> Path:
        return self.folder / "parts"

    def exists(self) -> bool:
        """Has anything been stored here?"""
        return self.folder.is_dir() and (self._parquet("row").is_file() or any(self.parts.glob("*.jsonl")))

    def read(self, known: Contents | None = None, without: Collection[str] = ()) -> Contents:
        """Everything, compacted or not; to what is ``known`` only the parts are added that came since.

        Args:
            known: what was read before.
            without: sessions whose parts are left out.

        Raises:
            StoreCorrupt: a file is not what was written.
            StoreError: a file of a newer version.
        """
        if known is not None and known.checksums != self._checksums():
            known = None  # other Parquet files than those that were read
        # Parts first: if another process compacts meanwhile, what leaves the parts is found in Parquet.
        while True:
            try:
                paths = set(self.parts.glob("*.jsonl")) - (known.parts if known else set())
                paths = {path for path in paths if path.stem not in without}
                parts = [read_part(path) for path in sorted(paths)]
                break
            except FileNotFoundError:
                continue
        contents = self._compacted() if known is None else known
        for part in parts:
            for number, record in enumerate(part.records, start=1):
                where = f"{part.path}:{number}"
                contents.add(migrate(record, record.get("v"), where), where)
            contents.parts.add(part.path)
        return contents

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
        """Move the parts into Parquet: written beside, checked, swapped in, and only then are the parts deleted.

        Returns what is stored then; ``known`` is as for `read`. Parts that sessions are ``writing`` stay.
        """
        contents = everything = self.read(known)
        if any(path.stem in writing for path in contents.parts):
            contents = self.read(without=writing)
        if not contents.parts:
            return everything
        written: dict[str, tuple[Path, str]] = {}
        for kind, order in _ORDER.items():
            records = [vars(record) for record in getattr(contents, f"{kind}s").values()]
            if records or self._parquet(kind).is_file():
                records.sort(key=lambda record: [str(record[name]) for name in order])
                written[self._parquet(kind).name] = self._write_parquet(kind, records)
        # A kill between these steps leaves both checksums, so whichever file is there is known.
        kept = [(sha, name) for sha, name in self._checksums() if name in _FILES and (self.folder / name).is_file()]
        new = [(sha, name) for name, (_, sha) in written.items()]
        new += [(sha, f"{_SESSIONS}{session}.json") for session, sha in sorted(contents.sessions.items())]
        self._write_checksums(sorted({*kept, *new}, key=lambda line: line[::-1]))
        for name, (beside, _) in written.items():
            beside.replace(self.folder / name)
        self._write_checksums([*[line for line in kept if line[1] not in written], *new])
        stored = self._compacted()
        if stored != contents:
            raise StoreCorrupt(f"{self._parquet('row')} does not hold what was just written; the parts are kept")
        for path in contents.parts:
            path.unlink(missing_ok=True)
        return stored if contents is everything else self.read(stored)

    @property
    def features(self) -> FeatureStore:
        """The arrays of this run's reconstructions."""
        return FeatureStore(self.folder / "features")

    # Bitstreams

    def bitstream_path(self, sha256: str) -> Path:
        """Where the bitstream with this hash lies.

        Raises:
            StoreCorrupt: it is no hash; a row may say anything, and nothing else is read.
        """
        if not is_sha256(sha256):
            raise StoreCorrupt(f"{sha256!r:.80} is no sha256, and names no bitstream")
        return self.folder / "bitstreams" / sha256[:2] / f"{sha256}.bin"

    def put_bitstream(self, data: bytes) -> str:
        """Store a bitstream under its sha256; returns the hash."""
        sha256 = _sha256(data)
        path = self.bitstream_path(sha256)
        try:
            if not path.parent.is_dir() and not self.folder.is_dir():  # deleted or renamed meanwhile: stays so
                raise FileNotFoundError(errno.ENOENT, "gone", str(self.folder))
            _write_new(path, data)
        except FileExistsError:
            if path.read_bytes() != data:  # damaged, or another worker is writing the same: made whole either way
                write_file(path, data)
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
            raise StoreCorrupt(f"bitstream {path} is missing; the command that made it makes it again")
        data = path.read_bytes()
        if _sha256(data) != sha256:
            raise StoreCorrupt(
                f"bitstream {path} changed after it was stored: its sha256 is now {_sha256(data)}. "
                "Delete it, and the command that made it makes it again"
            )
        return data

    def has_bitstream(self, row: Row) -> bool:
        """Is a row's bitstream there, with its size, and what no decoder makes of it? (`verify` checks the bytes.)"""
        if not is_sha256(row.bitstream_sha256):
            return False
        path = self.bitstream_path(row.bitstream_sha256)
        whole = path.is_file() and (row.grade == "reported" or path.stat().st_size == row.bytes)
        return whole and (row.proven or picture_path(self, row).is_file())

    # Parquet

    def _parquet(self, kind: str) -> Path:
        return self.folder / f"{kind}s.parquet"

    def _compacted(self) -> Contents:
        contents = Contents(checksums=self._checksums())
        for kind in KINDS:
            path = self._parquet(kind)
            if not path.is_file():
                continue
            try:
                version, records = _records(self._checked(path))
            except _UNREADABLE as error:
                raise StoreCorrupt(f"{path} cannot be read: {error}") from error
            for record in records:
                contents.put(kind, migrate(record, version, str(path), kind), str(path))
        stems = [(name.removeprefix(_SESSIONS), sha) for sha, name in contents.checksums if name.startswith(_SESSIONS)]
        contents.sessions = {stem.removesuffix(".json"): sha for stem, sha in stems}
        return contents

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
            _records(data)
            reads = True
        except _UNREADABLE:
            reads = False
        again = f"(cd {shlex.quote(str(self.folder))} && sha256sum *.parquet > parquet.sha256)"
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
        whole = all(re.fullmatch(rf"[0-9a-f]{{64}}  ({'|'.join(_FILES)}|{_SESSIONS}\S+)", line) for line in lines)
        return None if whole and lines else "was damaged after writing"

    def damaged_notes(self, sessions: Mapping[str, str]) -> list[str]:
        """What is wrong with the file of checksums, and which files of calls are gone or not what was written."""
        state = self._notes_damaged() if any((self.folder / name).is_file() for name in _FILES) else ""
        lines = [f"{self.folder / 'parquet.sha256'} {state}"] if state else []
        for session, sha256 in sorted(sessions.items()):
            path = self.folder / f"{_SESSIONS}{session}.json"
            if not path.is_file():
                lines.append(f"{path} is missing: it says how the rows of that call were made. Put it back from a copy")
            elif _sha256(path.read_bytes()) != sha256:
                lines.append(f"{path} changed after it was written: it says how the rows of that call were made")
        return lines

    def missing_files(self) -> list[Path]:
        """Parquet files that were written and are no longer here."""
        return [path for _, name in self._checksums() if name in _FILES and not (path := self.folder / name).is_file()]

    def _checksums(self) -> list[tuple[str, str]]:
        path = self.folder / "parquet.sha256"
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        return [(sha, name) for sha, _, name in (line.partition("  ") for line in lines if not line.startswith("#"))]

    def _write_checksums(self, lines: Iterable[tuple[str, str]]) -> None:
        text = "".join(f"{sha}  {name}\n" for sha, name in dict.fromkeys(lines))
        with written_whole(self.folder / "parquet.sha256") as beside:
            beside.write_text(f"{_own_line(text.encode()).decode()}\n{text}")
            _sync(beside)

    def _write_parquet(self, kind: str, records: list[dict[str, Any]]) -> tuple[Path, str]:
        """Write a table beside its place; returns where, and its sha256."""
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.Table.from_pylist(records)
        table = table.replace_schema_metadata({"schema_version": json.dumps(SCHEMA_VERSION)})
        beside = self._parquet(kind).with_suffix(".tmp")
        try:
            parquet.write_table(table, beside, compression="zstd", write_page_checksum=True)
            _sync(beside)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise unwritable(self._parquet(kind), error) from error
        return beside, _sha256(beside.read_bytes())


_SESSIONS = "sessions/"
_FILES = tuple(f"{kind}s.parquet" for kind in KINDS)
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


def _records(data: bytes) -> tuple[object, list[dict[str, Any]]]:
    """The version and the records of a Parquet file, if the checksums inside it are right."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        records: list[dict[str, Any]] = table.to_pylist()
        return json.loads((table.schema.metadata or {}).get(b"schema_version", b"null")), records
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


_UNREADABLE = (OSError, ValueError, RecursionError)


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file in its place; one that a kill leaves unfinished is spoken of by no row, and made whole later.

    Raises:
        FileExistsError: there is one.
    """
    try:
        file = path.open("xb")
    except FileNotFoundError:  # the first one in its folder
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    try:
        with file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_sha256(text: object) -> bool:
    """Is it a sha256, as hashes of bitstreams and pixels are written?

    >>> is_sha256("ab" * 32), is_sha256("../../etc/passwd")
    (True, False)
    """
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def reconstruction_path(store: Store, row: Row) -> Path:
    """Where a row's reconstruction lies, if it was kept."""
    setting = row.setting
    point = f"bpp{setting.target:g}" if setting.target is not None else "none"
    point = point if setting.rate is None else f"{setting.rate:g}"
    stem = file_name(f"{file_name(row.image, ODD)}-{row.task_key[:8]}", ODD)
    return store.folder / "reconstructions" / file_name(row.codec, ODD) / point / f"{stem}.png"


def picture_path(store: Store, row: Row) -> Path:
    """Where the picture of a row lies that no decoder makes from its bitstream."""
    name = file_name(row.reconstruction_sha256)
    return store.folder / "pictures" / name[:2] / f"{name}.png"


def put_picture(store: Store, row: Row, pixels: Image) -> None:
    """Keep the picture of a row whose grade is not ``decoded``."""
    with written_whole(picture_path(store, row)) as beside:
        pil.fromarray(pixels).save(beside, format="PNG", compress_level=1)


def get_picture(store: Store, row: Row) -> Image:
    """The picture of a row whose grade is not ``decoded``.

    Raises:
        CodecError: it is gone, or holds other pixels.
    """
    path = picture_path(store, row)
    pixels = read_image(path).pixels if path.is_file() else None
    if pixels is None or pixel_sha256(pixels) != row.reconstruction_sha256:
        raise CodecError(f"the picture of {row.point}, {row.image} is gone or changed, and no decoder makes it: {path}")
    return pixels


def put_reconstruction(store: Store, row: Row, pixels: Image) -> None:
    """Write the PNG."""
    with written_whole(reconstruction_path(store, row)) as beside:
        pil.fromarray(pixels).save(beside, format="PNG", compress_level=1)

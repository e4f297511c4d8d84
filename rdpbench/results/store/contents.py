"""All that a store holds, and what a line of a part changes of it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt
from rdpbench.results.store.records import Records
from rdpbench.results.store.schema import (
    KINDS,
    REFUTED,
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

    rows: MutableMapping[str, Row] = field(default_factory=dict)
    scores: MutableMapping[str, Score] = field(default_factory=dict)
    timings: MutableMapping[str, Timing] = field(default_factory=dict)
    sets: MutableMapping[str, SetScore] = field(default_factory=dict)
    members: MutableMapping[str, Member] = field(default_factory=dict)
    measures: MutableMapping[str, Measure] = field(default_factory=dict)
    folder: Path | None = field(default=None, compare=False)
    """Of the run, if it is read from one."""
    sessions: dict[str, str] = field(default_factory=dict)
    """The sha256 of the file of each call, as far as it was noted."""
    parts: dict[Path, int] = field(default_factory=dict, compare=False)
    """The parts that are in it, with their sizes."""
    checksums: list[tuple[str, str]] = field(default_factory=list, compare=False)
    """Those of the Parquet files that are in it."""
    missing: list[str] = field(default_factory=list, compare=False)
    """Parquet files that were written and are gone."""
    changed: set[str] = field(default_factory=set, compare=False)
    """Tasks whose scores and times in segments are not theirs any more."""
    early: set[str] = field(default_factory=set, compare=False)
    """Tasks that a part says to be verified or refuted, and whose rows are not here."""

    def __post_init__(self) -> None:
        for kind in KINDS:
            records = getattr(self, f"{kind}s")
            if not isinstance(records, Records):
                setattr(self, f"{kind}s", Records(kind, records))

    def of_kind(self, kind: str) -> Records[Any]:
        """Its records of one of `KINDS`."""
        records = getattr(self, f"{kind}s")
        if not isinstance(records, Records):  # set since
            records = Records(kind, records)
            setattr(self, f"{kind}s", records)
        return records

    def take(self, lines: Sequence[tuple[dict[str, Any], str]]) -> None:
        """Take in lines of parts, each with its place."""
        rows = self.of_kind("row")
        if rows.segments:  # looked up together: one by one it takes milliseconds each
            named = [record.get(name) for record, _ in lines for name in ("verified", "refuted", "suspect")]
            named += [record["row"].get("task_key") for record, _ in lines if isinstance(record.get("row"), dict)]
            rows.fetch([key for key in dict.fromkeys(map(str, named)) if key])
        for record, where in lines:
            self.add(migrate(record, record.get("v"), where), where)

    def freeze(self) -> None:
        """Hold what came since in columns, which takes a tenth of the memory."""
        for kind in KINDS:
            self.of_kind(kind).freeze()

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
            if str(score.get("error", "")).startswith(REFUTED):
                self._change(score["task_key"])
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
            self.of_kind(kind)[getattr(parsed, f"{kind}_key")] = parsed

    def _change(self, key: str, **changes: Any) -> None:
        if (row := self.rows.get(key)) is not None:
            self.rows[key] = replace(row, **changes)
        else:
            self.early.add(key)

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
            if old.reconstruction_sha256 and measured_of(old) != measured_of(row):
                # To other pixels or bytes, or from other files: scores and times of the old ones are not its.
                self.of_kind("score").drop({key})
                self.of_kind("timing").drop({key})
                self.changed.add(key)
        self.rows[key] = row


_KNOWN = {*KINDS, "v", "scores", "session", "sha256", "verified", "refuted", "suspect", "error"} - {"score"}
"""What a record can have."""


def measured_of(row: Row) -> tuple[str, ...]:
    """What scores and times are of: several decodes of a bitstream depend on its bytes and on the codec's files."""
    return row.reconstruction_sha256, row.bitstream_sha256, row.files


def _text(record: dict[str, Any], name: str, where: str) -> str:
    text = record.get(name)
    if not isinstance(text, str):
        raise StoreCorrupt(f"{where}: {text!r:.80} cannot be the {name} of a record")
    return text

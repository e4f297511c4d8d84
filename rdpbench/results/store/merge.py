"""``rdpbench merge A B --into C``: one run folder of several, such as those of machines that share no disk."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.errors import ConfigError, StoreCorrupt
from rdpbench.paths import unwritable
from rdpbench.results.read import open_run
from rdpbench.results.store.contents import Contents, measured_of
from rdpbench.results.store.keys import sha256_of
from rdpbench.results.store.records import BLOCK, Records
from rdpbench.results.store.schema import KINDS, Member, Place, Row
from rdpbench.results.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console

FILES = ("bitstreams", "pictures", "reconstructions", "features", "sessions")
"""What lies beside the rows, under names that say what is in it."""


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be typed behind ``rdpbench merge``."""
    command.add_argument("names", nargs="+", metavar="RUN", help="runs by name, or their folders")
    command.add_argument("--into", required=True, metavar="RUN", help="the run that gets all of it; it may exist")
    command.add_argument("--root", metavar="FOLDER", default="results/runs", help="where runs lie")


def run(options: argparse.Namespace, console: Console) -> int:
    """Merge runs, and say what came of it."""
    sources = [open_run(name, options.root) for name in options.names]
    target = Store(Path(options.into) if os.sep in options.into else Path(options.root) / options.into)
    rows = merge(sources, target)
    console.print(f"{target.folder} holds {rows} rows now", highlight=False, markup=False, soft_wrap=True)
    return 0


def merge(sources: list[Store], target: Store) -> int:
    """Add what other runs hold to a run; what is in several is in it once. Returns the rows that it has then.

    A row that is good takes the place of a failed one; of two that are good the later one stays, by its session. What
    the other one belonged to, such as another dataset with that image, the one that stays belongs to as well.

    Raises:
        ConfigError: a run would be merged into itself.
        StoreCorrupt: a file of a run is not what was written, or two runs have other bytes under one name.
    """
    if any(source.folder.resolve() == target.folder.resolve() for source in sources):
        raise ConfigError(f"{target.folder} cannot be merged into itself; name another run behind --into")
    with target.lock():
        for source in sources:
            source.check_whole()
            contents = source.read()
            # Files first: a row without its bitstream would be coded again.
            for name in FILES:
                _copy(source.folder / name, target.folder / name)
            for sha256 in (sha256 for _, hashes in source.bitstreams.by_pack() for sha256 in hashes):
                if target.bitstreams.size(sha256) is None:
                    target.bitstreams.put(source.bitstreams.get(sha256))
            there = target.read()
            with contextlib.closing(target.writer(target.new_session())) as writer:
                for record in _records(contents, there):
                    writer.append(record)
        return len(target.compact().rows)


def _records(contents: Contents, there: Contents) -> Iterator[dict[str, Any]]:
    """All that a run holds and that is to be in the one that is ``there``, as lines of a part."""
    for session, sha256 in contents.sessions.items():
        yield {"session": session, "sha256": sha256}
    others: set[str] = set()
    """Tasks of which the row that stays has other pixels or bytes than this run's: so are its scores and times."""
    for row, old in _pairs(contents.of_kind("row"), there.of_kind("row")):
        if old is None or _rank(row) >= _rank(old):
            yield {"row": vars(row)}
        elif measured_of(row) != measured_of(old):
            others.add(row.task_key)
        if old is not None:
            yield from _of_both(row, old)
    for kind in KINDS:
        stored = getattr(there, f"{kind}s")
        for record in getattr(contents, f"{kind}s").values() if kind != "row" else ():
            gone = getattr(record, "task_key", "") in others and kind in ("score", "timing")
            # What failed here may have a value there.
            failed = kind in ("score", "set") and record.value is None and getattr(record, f"{kind}_key") in stored
            if not (gone or failed):
                yield {"scores": [vars(record)]} if kind == "score" else {kind: vars(record)}


def _pairs(rows: Records[Row], there: Records[Row]) -> Iterator[tuple[Row, Row | None]]:
    """Rows, each with that of its task in another run; a block at a time, as there may be millions."""
    for start in range(0, len(rows), BLOCK):
        block = rows.at(np.arange(start, min(len(rows), start + BLOCK)))
        places = there.locate([row.task_key for row in block])
        known = iter(there.at(places[places >= 0]))
        for row, place in zip(block, places.tolist(), strict=True):
            yield row, next(known) if place >= 0 else None


def _rank(row: Row) -> tuple[bool, str]:
    """The higher of two rows of a task stays."""
    return row.status != "error", row.session


def _of_both(row: Row, old: Row) -> Iterator[dict[str, Any]]:
    """What two rows of a task say that one of them does not hold: a second place, and what was verified."""
    gone = min(row, old, key=_rank)
    if Place.of(row) != Place.of(old):
        stated = {field.name: getattr(gone, field.name) for field in fields(Member) if field.name != "member_key"}
        key = sha256_of({**stated, "member_key": "", "session": ""})
        yield {"member": {"member_key": key, **stated}}
    if measured_of(row) == measured_of(old):
        states = {row.verified, old.verified}
        if "refuted" in states:
            yield {"suspect": row.task_key}
        elif "fresh_process" in states:
            yield {"verified": row.task_key}


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's files that are not there yet, each whole or not at all; what is there must be the same."""
    for path in sorted(source.rglob("*")):
        if "packs" in path.relative_to(source).parts:  # their names do not say what is in them
            continue
        place = target / path.relative_to(source)
        if path.is_symlink() or not path.is_file():
            continue
        if place.exists():
            if place.stat().st_size != path.stat().st_size:
                raise StoreCorrupt(f"{path} and {place} have one name, and are not the same")
            continue
        beside = place.with_name(f".{place.name}.part")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, beside)
            beside.replace(place)
        except OSError as error:
            raise unwritable(place, error) from error

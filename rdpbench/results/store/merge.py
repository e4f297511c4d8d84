"""``rdpbench merge A B --into C``: one run folder of several, such as those of machines that share no disk."""

from __future__ import annotations

import argparse
import contextlib
import filecmp
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.errors import ConfigError, ImageError, StoreCorrupt
from rdpbench.image import pixel_sha256, read_image
from rdpbench.paths import written_whole
from rdpbench.results.read import open_run
from rdpbench.results.store.bitstreams import picture_path, reconstruction_path
from rdpbench.results.store.contents import Contents, measured_of
from rdpbench.results.store.keys import sha256_of
from rdpbench.results.store.records import BLOCK, Records
from rdpbench.results.store.schema import KINDS, Member, Place, Row
from rdpbench.results.store.store import Store

if TYPE_CHECKING:
    from rich.console import Console

PIECE = 1 << 20
"""Bytes that are read at a time."""


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
            for name in ("features", "sessions"):
                _copy_written(source.folder / name, target.folder / name)
            for sha256 in dict.fromkeys(contents.of_kind("row").strings("bitstream_sha256").to_pylist()):
                if source.bitstreams.size(sha256) is not None:
                    data = source.bitstreams.get(sha256)  # of which the hash is right
                    with contextlib.suppress(StoreCorrupt):
                        if target.bitstreams.get(sha256):
                            continue
                    target.bitstreams.put(data)
            there = target.read()
            with contextlib.closing(target.writer(target.new_session())) as writer:
                for record in _records(contents, there, source, target):
                    writer.append(record)
        return len(target.compact().rows)


def _records(contents: Contents, there: Contents, source: Store, target: Store) -> Iterator[dict[str, Any]]:
    """All that a run holds and that is to be in the one that is ``there``, as lines of a part; copies pictures, too."""
    for session, sha256 in contents.sessions.items():
        yield {"session": session, "sha256": sha256}
    others: set[str] = set()
    """Tasks of which the row that stays has other pixels or bytes than this run's: so are its scores and times."""
    pictures = any((source.folder / name).is_dir() for name in ("pictures", "reconstructions"))
    for row, old in _pairs(contents.of_kind("row"), there.of_kind("row")):
        if pictures or old is not None:
            _copy_pictures(source, target, row, old)
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


def _copy_pictures(source: Store, target: Store, row: Row, old: Row | None) -> None:
    """Copy what is kept of a row's pixels where they are those of the row that stays; what is there of others goes."""
    if old is None or old.reconstruction_sha256 != row.reconstruction_sha256:
        if old is not None and _rank(row) < _rank(old):
            return
        reconstruction_path(target, row).unlink(missing_ok=True)
    for where in (reconstruction_path, picture_path) if row.reconstruction_sha256 else ():
        path, place = where(source, row), where(target, row)
        if not path.is_file() or path.is_symlink():
            continue
        if not (place.is_file() and (filecmp.cmp(path, place, shallow=False) or _holds(place, row))):
            _copy(path, place)


def _holds(path: Path, row: Row) -> bool:
    """Are these the pixels of the row?"""
    with contextlib.suppress(ImageError):
        return pixel_sha256(read_image(path).pixels) == row.reconstruction_sha256
    return False


def _copy_written(source: Path, target: Path) -> None:
    """Copy files that are only ever appended to; what is there must begin like them, or be what they begin."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_symlink() or not path.is_file():
            continue
        if place.exists():
            shorter, longer = sorted((path, place), key=lambda file: file.stat().st_size)
            with shorter.open("rb") as first, longer.open("rb") as second:
                while piece := first.read(PIECE):
                    if piece != second.read(len(piece)):
                        raise StoreCorrupt(f"{path} and {place} have one name, and are not the same")
            if longer is place:
                continue
        _copy(path, place)


def _copy(path: Path, place: Path) -> None:
    with written_whole(place) as beside:
        shutil.copyfile(path, beside)

"""What a store does not hold yet of a command's tasks.

Most tasks of a large run are told in columns: those that are not stored, and those that are, whole, with all their
scores, or without some. `_Odd` looks at each of the others: failures, files that changed, targets that another
tolerance may judge otherwise, scores of earlier versions, bitstreams that are gone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import PurePath
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.assets.hashes import files_changed
from rdpbench.metrics.contract import beside
from rdpbench.provenance import hardware
from rdpbench.results.stats.points import grouped
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.calls import CodecFiles
from rdpbench.results.store.columns import Mask, Places, groups_of, split_by
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import TOLERANCE, axis_of, definition, device_of, score_key, timing_key
from rdpbench.results.store.schema import OF_THE_MACHINE, Row, Score
from rdpbench.results.store.store import Store
from rdpbench.runners.coding import on_hardware
from rdpbench.runners.search import is_near, is_whole
from rdpbench.runners.sets import StoredArrays
from rdpbench.runners.task import Cell, Task, judged, keys_of_cells
from rdpbench.setting import Bench, CodecSetting

Column: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True)
class Lack:
    """What is left to do for a task; few kinds of it stand for all tasks of a plan."""

    coded: bool
    """Its row is stored: the bitstream is decoded, never encoded again."""
    metrics: tuple[str, ...]
    """As the following as `Work` has it."""
    timing: bool = False
    features: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()
    keep: bool = False
    """Is the reconstruction kept?"""


@dataclass(frozen=True, eq=False)
class Numbers:
    """Tasks that are left to do, or a chunk of them, as numbers: a task of its own for each would be gigabytes."""

    cells: Column
    """In the plan's cells."""
    entries: Column
    """In the cell's entries."""
    lacks: Column
    """In the plan's lacks."""

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.cells.tolist(), self.entries.tolist(), self.lacks.tolist(), strict=True)

    def take(self, which: Any) -> Numbers:
        """Some of them, by their numbers or by a mask."""
        return Numbers(self.cells[which], self.entries[which], self.lacks[which])


@dataclass
class Found:
    """What is left, and what was seen on the way."""

    left: list[tuple[Column, Column, Column]] = field(default_factory=list)
    """Cells, entries and lacks of some tasks, part by part."""
    lacks: dict[Lack, int] = field(default_factory=dict)
    judged: list[Row] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    failed: int = 0

    def add(self, cell: int, entries: Any, lack: Lack) -> None:
        """Some tasks of a cell lack the same."""
        number = self.lacks.setdefault(lack, len(self.lacks))
        of_cell = np.asarray(entries, np.int32)
        self.left.append((np.full(len(of_cell), cell, np.int32), of_cell, np.full(len(of_cell), number, np.int32)))

    @property
    def numbers(self) -> Numbers:
        """All of it, in the order of cells and entries."""
        if not self.left:
            return Numbers(*(np.empty(0, np.int32) for _ in range(3)))
        columns = [np.concatenate(parts) for parts in zip(*self.left, strict=True)]
        return Numbers(*columns).take(np.lexsort((columns[1], columns[0])))


@dataclass(frozen=True)
class Distinct:
    """Points may share tasks: which ones of each cell are there for the first time, and which must be kept."""

    first: Sequence[Mask]
    keep: Sequence[Mask]
    """Whose reconstruction a cell keeps, be it another one."""

    @property
    def count(self) -> int:
        """How many tasks are different."""
        return sum(int(mask.sum()) for mask in self.first)


def distinct_tasks(every: Sequence[Cell]) -> Distinct:
    """Look for tasks that several cells share: only cells of one codec at one setting can."""
    first = [np.ones(len(cell), bool) for cell in every]
    keep = [np.arange(len(cell)) < (len(cell) if cell.keep is None else cell.keep) for cell in every]
    alike: dict[object, list[int]] = {}
    for number, cell in enumerate(every):
        alike.setdefault((cell.identity, cell.setting, cell.seed, cell.protocol), []).append(number)
    for group in alike.values():
        places: dict[str, tuple[int, int]] = {}
        for number in group if len(group) > 1 else ():
            for entry, key in enumerate(every[number].keys):
                if (place := places.setdefault(key, (number, entry))) != (number, entry):
                    first[number][entry] = False
                    keep[place[0]][place[1]] |= keep[number][entry]
    return Distinct(first, keep)


def find_left(
    bench: Bench, store: Store, stored: Contents, every: Sequence[Cell], pairs: Sequence[str], arrays: StoredArrays
) -> tuple[Found, Distinct, list[Places]]:
    """What is left of the tasks of all cells; and where each task's row is among the stored ones, -1 for none."""
    distinct, found = distinct_tasks(every), Found()
    counts = np.cumsum([0, *map(len, every)])
    places = stored.of_kind("row").locate(keys_of_cells(every))
    of_cell = [places[start:end] for start, end in pairwise(counts)]
    plain = _Plain.of(store, stored, tuple(pairs)) if not (bench.timing or arrays.names) else None
    odd: list[tuple[int, Places]] = []
    for number, cell in enumerate(every):
        first, keep, there = distinct.first[number], distinct.keep[number], of_cell[number] >= 0
        if plain is None:
            odd.append((number, np.flatnonzero(first)))
            continue
        for kept in (False, True):
            if len(entries := np.flatnonzero(first & ~there & (keep == kept))):
                found.add(number, entries, Lack(False, plain.pairs, keep=kept))
        stored_ones = np.flatnonzero(first & there)
        whole = plain.is_plain(cell, of_cell[number][stored_ones]) & ~keep[stored_ones]
        for missing, members in plain.missing(of_cell[number][stored_ones[whole]]):
            found.add(number, stored_ones[whole][members], Lack(True, missing))
        odd.append((number, stored_ones[~whole]))
    look = _Odd(bench, store, stored, tuple(pairs), arrays, found)
    for number, entries in odd:
        look.at(number, every[number], entries, of_cell[number], distinct.keep[number])
    return found, distinct, of_cell


@dataclass(frozen=True)
class _Plain:
    """Of all stored rows, in their order: which can be told in columns, and what each has of scores."""

    pairs: tuple[str, ...]
    rows: Any
    good: Mask
    """Coded, with a bitstream that is there, and no files of the user's in it."""
    scores: NDArray[np.int8]
    """Of each metric and row: 1 if there is a value of the edition that is installed, 0 if there is none to look at."""

    @classmethod
    def of(cls, store: Store, stored: Contents, pairs: tuple[str, ...]) -> _Plain:
        rows = stored.of_kind("row")
        good = rows.codes("status").where("ok".__eq__) & rows.codes("files").where(lambda files: files in ("", "{}"))
        places = np.flatnonzero(good)
        good[places] = store.has_bitstreams(rows, places)
        return cls(pairs, rows, good, _scores_of(stored, pairs))

    def is_plain(self, cell: Cell, places: Places) -> Mask:
        """Which rows of a cell's tasks nobody has to look at one by one."""
        plain: Mask = self.good[places] & (self.scores[:, places] < _ODD).all(axis=0)
        if cell.setting.target is not None:
            bpp = self.rows.numbers("bpp")[places]
            with np.errstate(invalid="ignore", divide="ignore"):
                apart = np.abs(np.log(bpp / cell.setting.target))
            plain &= apart <= math.log1p(min(cell.tolerance, TOLERANCE))
        return plain

    def missing(self, places: Places) -> Iterator[tuple[tuple[str, ...], Places]]:
        """What plain rows lack of scores, with the numbers of those that lack it."""
        absent = self.scores[:, places] == 0
        if not absent.any():
            return
        groups, first = groups_of([*absent])
        for members, example in zip(split_by(groups, len(first)), first, strict=True):
            if absent[:, example].any():
                yield tuple(np.array(self.pairs)[absent[:, example]].tolist()), members


_ODD = 2


def _scores_of(stored: Contents, pairs: Sequence[str]) -> NDArray[np.int8]:
    """By metric and row: 1 for a value of the installed edition, 0 for none, `_ODD` for what must be looked at."""
    rows, scores = stored.of_kind("row"), stored.of_kind("score")
    states = np.zeros((len(pairs), len(rows)), np.int8)
    if not len(scores) or not pairs:
        return states
    owners, metrics, editions = scores.owners(rows), scores.codes("metric"), scores.codes("definition")
    valued = ~np.isnan(scores.numbers("value"))
    for number, name in enumerate(pairs):
        own = np.flatnonzero(metrics.where(name.__eq__) & (owners >= 0))
        now = editions.of(own).where(definition(name).__eq__)
        unsaid = editions.of(own).where("".__eq__)
        if beside(registry.load("metric", name)):  # the key alone says what it was held against
            now, unsaid = np.zeros(len(own), bool), np.ones(len(own), bool)
        states[number, owners[own[unsaid | (now & ~valued[own])]]] = _ODD
        states[number, owners[own[now & valued[own]]]] = 1
    return states


class _Odd:
    """Looks at tasks one by one."""

    def __init__(
        self, bench: Bench, store: Store, stored: Contents, pairs: tuple[str, ...], arrays: StoredArrays, found: Found
    ) -> None:
        self.bench, self.store, self.stored, self.pairs, self.arrays, self.found = (
            bench,
            store,
            stored,
            pairs,
            arrays,
            found,
        )
        self.changes = cache(_changes)
        self.machines = cache(lambda device: on_hardware(device, json.dumps(hardware(device))))
        self.scores: dict[str, Score] = {}
        self.others: dict[tuple[str, str, str], list[Score]] = {}
        """By task, metric and edition: values against other captions or label maps than the set has now."""
        self.stale: set[tuple[str, str, str]] = set()
        """Metric, edition and call of these."""

    def at(self, number: int, cell: Cell, entries: Places, places: Places, keep: Mask) -> None:
        """Look at some tasks of a cell, whose rows are at these places."""
        if not len(entries):
            return
        there = entries[places[entries] >= 0]
        rows: dict[int, Row] = dict(zip(there.tolist(), self.stored.of_kind("row").at(places[there]), strict=True))
        scores = self.stored.of_kind("score")
        if len(there) and len(scores):
            held = np.zeros(len(self.stored.rows) + 1, bool)  # the last place is that of -1
            held[places[there]] = True
            of_these = np.flatnonzero(held[self.owners])
            self.scores = {score.score_key: score for score in scores.at(of_these)}
        else:
            self.scores = {}
        tasks = {entry: cell.task(entry, keep=bool(keep[entry])) for entry in entries.tolist()}
        taking = [name for name in self.pairs if beside(registry.load("metric", name))] if self.scores else []
        now = {score_key(task.key, name, task.entry.sample) for task in tasks.values() for name in taking}
        others = [score for key, score in self.scores.items() if score.metric in taking and key not in now]
        self.others = grouped(others, lambda score: (score.task_key, score.metric, score.definition))
        self.stale = {(score.metric, score.definition, score.session) for score in others}
        for entry, task in tasks.items():
            lack = self._lack(task, rows.get(entry))
            if lack:
                self.found.add(number, [entry], lack)

    @property
    def owners(self) -> Places:
        """Of each score the place of its row."""
        if not hasattr(self, "_owners"):
            self._owners = self.stored.of_kind("score").owners(self.stored.of_kind("row"))
        return self._owners

    def _lack(self, task: Task, row: Row | None) -> Lack | None:
        found, retry = self.found, self.bench.retry_failed
        if row is not None and any(_counts(*file, task) for file in self.changes(row.files, task.codec).items()):
            found.changed.add(task.key)
            row = None
        if row is not None and row.status == "error":
            if not (retry or row.error.startswith(OF_THE_MACHINE)):
                found.failed += 1
                return None
            row = None
        if row is not None and task.setting.target is not None:
            before, row = row, judged_again(task, row)
            if row is not None and row != before:
                found.judged.append(row)
            if row is not None and row.status == "out_of_range":
                return None
        if row is not None and not self.store.has_bitstream(row):
            row = None
        missing = tuple(name for name in self.pairs if self._is_missing(task, name))
        timing = self.bench.timing and (
            timing_key(task.key, self.machines(device_of(task.codec, self.bench.device))) not in self.stored.timings
            or task.key in found.changed
        )
        unkept = task.keep and row is not None and not reconstruction_path(self.store, row).is_file()
        # Features that were refused once, as for an image below the size of a patch, are not tried again.
        features, originals = (
            tuple(name for name in names if (score := self._score(task, name)) is None or self._failed(score))
            for names in (self.arrays.missing(task, row), self.arrays.missing_original(task))
        )
        if row is None or missing or timing or unkept or features or originals:
            pairs = missing if row else self.pairs
            return Lack(row is not None, pairs, timing, features, originals, task.keep)
        return None

    def _is_missing(self, task: Task, name: str) -> bool:
        """Is there no score of a pair metric that can be read?"""
        score = self._score(task, name)
        if score is None or self._failed(score):
            return True
        # An earlier version stored a metric of the user's under its path as it was typed.
        if score.metric != name or not beside(registry.load("metric", name)):
            return score.metric != name
        # It did not say which edition scored, and of these metrics the key does not tell it either.
        if not score.definition or (name, score.definition, score.session) in self.stale:
            return True
        # The newest is read, and nothing that was scored when the others were.
        others = self.others.get((task.key, name, score.definition), ())
        return any((other.session, other.score_key) > (score.session, score.score_key) for other in others)

    def _score(self, task: Task, name: str) -> Score | None:
        return self.scores.get(score_key(task.key, name, task.entry.sample))

    def _failed(self, score: Score) -> bool:
        """Is it tried again?"""
        return score.value is None and (self.bench.retry_failed or score.error.startswith(OF_THE_MACHINE))


def _changes(recorded: str, codec: CodecSetting) -> dict[str, str]:
    return files_changed(recorded, CodecFiles.of(codec.use, dict(codec.options)).path)


def _counts(name: str, sha256: str, task: Task) -> bool:
    """Does a file that is another now than a row says make its result another?

    Fields of type Path are in the key by what is in them, and such a file may have moved, or have another name now. A
    row of an earlier version says where it lay then.
    """
    of_a_field = "=" in name or PurePath(name).is_absolute()
    return not sha256 or not of_a_field or sha256 not in task.identity


def judged_again(task: Task, row: Row) -> Row | None:
    """A stored row of a target by the task's tolerance; None where a setting that was not tried may come nearer."""
    axis = axis_of(task.codec)
    assert axis is not None
    assert task.setting.target is not None
    if row.bpp is None:
        return None
    near = is_near(row.bpp, task.setting.target, min(task.tolerance, TOLERANCE))
    return judged(row, task.tolerance) if near or is_whole(axis, row.attempts) else None

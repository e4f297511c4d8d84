"""Planning: the tasks of a command minus those that are stored, and whether the others can run.

Nothing is coded here: a plan only reads.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.assets.hashes import files_changed
from rdpbench.errors import few
from rdpbench.metrics.contract import beside
from rdpbench.progress import duration
from rdpbench.results.stats.current import standing
from rdpbench.results.stats.points import grouped
from rdpbench.results.store.keys import (
    TOLERANCE,
    axis_of,
    definition,
    device_of,
    facts,
    forget,
    is_tight,
    score_key,
    timing_key,
)
from rdpbench.results.store.schema import AS_RAN, OF_THE_MACHINE, Measure, Member, Place, Row, Score
from rdpbench.results.store.store import Contents, Store, reconstruction_path
from rdpbench.runners.cost import Costs
from rdpbench.runners.preflight import (
    check_decodes,
    check_device,
    check_downloads,
    check_needs,
    choose_metrics,
    fitting,
)
from rdpbench.runners.search import is_near, is_whole
from rdpbench.runners.sets import StoredArrays, pair_metrics, set_metrics
from rdpbench.runners.task import Cell, Task, Work, cells, judged, measure_of, member_of, new_row
from rdpbench.setting import Bench, CodecSetting

Column: TypeAlias = NDArray[np.int32]

CHUNK = 32
"""Tasks in a chunk."""
MOST_CHUNKS = 5000
"""About so many chunks at most: those of a large plan have more tasks."""
TAIL = 8
LEARNED = 20_000
"""Rows that costs are learned from, at most twice as many."""


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


@dataclass(frozen=True)
class Plan:
    """What a command stands for."""

    cells: tuple[Cell, ...]
    """All that the command's points consist of. Points may share tasks, which are then in several cells."""
    left: Numbers
    """What is left to do, once for each key."""
    lacks: tuple[Lack, ...]
    """What tasks lack; `Numbers.lacks` are numbers of these."""
    stored: Contents
    """What the store held."""
    members: tuple[Member, ...]
    """What the store does not say yet of points that share rows."""
    measures: tuple[Measure, ...]
    """What it does not say yet of metrics that do not ship."""
    judged: tuple[Row, ...]
    """Stored rows of targets that are in range, or no longer, by the tolerance of this command."""
    metrics: tuple[str, ...]
    left_out: Mapping[str, str]
    """Metrics left out on the user's word (``metrics=available``), with what each lacks."""
    failed: int
    """Tasks that failed before and are not tried again unless ``retry_failed=true``."""
    again: tuple[str, ...]
    """Why tasks are left that are stored: of another edition of a codec, images that changed, or a shorter search."""
    changed: frozenset[str]
    """Keys of stored rows that are no longer true: a file of the user's that their codec opened changed, or is gone."""
    costs: Costs
    """What earlier rows tell of the seconds that work takes."""

    @property
    def expected_s(self) -> float:
        """Seconds of computing that are left, over all workers."""
        return sum(map(self.costs.seconds, self.work))

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of its cells: for a command of a few thousand."""
        return tuple(cell.task(number) for cell in self.cells for number in range(len(cell)))

    @property
    def size(self) -> int:
        """How many tasks its cells have."""
        return sum(map(len, self.cells))

    @cached_property
    def distinct(self) -> int:
        """How many of them are different."""
        return len(self.keys)

    @property
    def keys(self) -> set[str]:
        """The keys of its tasks."""
        return {key for cell in self.cells for key in cell.keys}

    @cached_property
    def work(self) -> list[Work]:
        """All that is left: for a command of a few thousand."""
        return self.work_of(self.left)

    def work_of(self, chunk: Numbers) -> list[Work]:
        """What is left as a worker gets it."""
        work: list[Work] = []
        for cell_number, entry, lack_number in zip(chunk.cells, chunk.entries, chunk.lacks, strict=True):
            lack = self.lacks[lack_number]
            task = self.cells[cell_number].task(int(entry), keep=lack.keep)
            row = self.stored.rows[task.key] if lack.coded else None
            work.append(Work(task, lack.metrics, row, lack.timing, lack.features, lack.originals))
        return work

    @property
    def idle(self) -> bool:
        """Is there nothing to code, score or note? Values of set metrics may still be missing."""
        return not (len(self.left) or self.members or self.measures or self.judged)


def make_plan(bench: Bench, store: Store) -> Plan:
    """All tasks of a command, and the work that the store does not hold yet.

    Raises:
        MissingNeed: a codec, dataset or metric lacks something; nothing has run.
        ConfigError: a rate, option or name that cannot be meant.
        ImageError: images that cannot be read.
    """
    forget()
    check_needs(bench)
    check_downloads(bench)
    check_device(bench.device)
    check_decodes(bench)
    metrics, left_out = choose_metrics(bench)
    every = tuple(cells(bench))
    metrics, unfit = fitting(bench, metrics, every)
    stored = store.read() if store.exists() else Contents()
    pairs, arrays = pair_metrics(metrics), StoredArrays.look_up(set_metrics(metrics), store.features)
    retry, changes = bench.retry_failed, cache(files_changed)
    left: list[tuple[int, int, int]] = []
    lacks: dict[Lack, int] = {}
    judged_again: list[Row] = []
    changed: set[str] = set()
    failed = 0
    distinct, keep = _distinct(every)
    for key, (number, entry) in distinct.items():
        task = every[number].task(entry, keep=key in keep)
        row = stored.rows.get(task.key)
        # Fields of type Path are in the key by what is in them: such a file may have moved.
        if row is not None and any(not sha256 or sha256 not in task.identity for sha256 in changes(row.files)):
            changed.add(task.key)
            row = None
        if row is not None and row.status == "error":
            if not (retry or row.error.startswith(OF_THE_MACHINE)):
                failed += 1
                continue
            row = None
        if row is not None and task.setting.target is not None:
            before, row = row, _judged(task, row)
            if row is not None and row != before:
                judged_again.append(row)
            if row is not None and row.status == "out_of_range":
                continue
        if row is not None and not store.has_bitstream(row):
            row = None
        missing = tuple(name for name in pairs if _is_missing(stored, task, name, retry))
        of_time = timing_key(task.key, device_of(task.codec, bench.device))
        timing = bench.timing and (of_time not in stored.timings or task.key in changed)
        unkept = task.keep and row is not None and not reconstruction_path(store, row).is_file()
        # Features that were refused once, as for an image below the size of a patch, are not tried again.
        features, originals = (
            tuple(name for name in names if (score := _score(stored, task, name)) is None or _failed(score, retry))
            for names in (arrays.missing(task, row), arrays.missing_original(task))
        )
        if row is None or missing or timing or unkept or features or originals:
            lack = Lack(row is not None, missing if row else pairs, timing, features, originals, task.keep)
            left.append((number, entry, lacks.setdefault(lack, len(lacks))))
    columns = np.array(left, np.int32).reshape(-1, 3)
    measures = [measure_of(name) for name in metrics if registry.own_place("metric", name)]
    plan = Plan(
        cells=every,
        left=Numbers(*(np.ascontiguousarray(column) for column in columns.T)),
        lacks=tuple(lacks),
        stored=stored,
        members=tuple(_new_members((c.task(n) for c in every for n in range(len(c))), every, distinct, stored)),
        measures=tuple(measure for measure in measures if measure.measure_key not in stored.measures),
        judged=tuple(judged_again),
        metrics=metrics,
        left_out=left_out | unfit,
        failed=failed,
        again=(),
        changed=frozenset(changed),
        costs=_costs(stored) if left else Costs(),
    )
    again = _again([piece.task for piece in plan.work if piece.row is None], stored)
    return replace(plan, again=(*again, *_scored_again(plan.work, stored)))


def _distinct(every: Sequence[Cell]) -> tuple[dict[str, tuple[int, int]], set[str]]:
    """Where each key is first, as numbers of a cell and of an entry; and the keys whose reconstructions are kept."""
    distinct: dict[str, tuple[int, int]] = {}
    keep: set[str] = set()
    for number, cell in enumerate(every):
        for entry, key in enumerate(cell.keys):
            distinct.setdefault(key, (number, entry))
            if cell.keeps(entry):
                keep.add(key)
    return distinct, keep


def _judged(task: Task, row: Row) -> Row | None:
    """A stored row of a target by the task's tolerance; None where a setting that was not tried may come nearer."""
    axis = axis_of(task.codec)
    assert axis is not None
    assert task.setting.target is not None
    if row.bpp is None:
        return None
    near = is_near(row.bpp, task.setting.target, min(task.tolerance, TOLERANCE))
    return judged(row, task.tolerance) if near or is_whole(axis, row.attempts) else None


def _is_missing(stored: Contents, task: Task, name: str, retry: bool) -> bool:
    """Is there no score of a pair metric that can be read?"""
    score = _score(stored, task, name)
    if score is None or _failed(score, retry):
        return True
    # An earlier version did not say which edition scored, and of these metrics the key does not tell it either; and it
    # stored a metric of the user's under its path as it was typed.
    return score.metric != name or (not score.definition and bool(beside(registry.load("metric", name))))


def _score(stored: Contents, task: Task, name: str) -> Score | None:
    return stored.scores.get(score_key(task.key, name, task.entry.sample))


def _failed(score: Score, retry: bool) -> bool:
    """Is it tried again?"""
    return score.value is None and (retry or score.error.startswith(OF_THE_MACHINE))


def _again(tasks: Sequence[Task], stored: Contents) -> Iterator[str]:
    """What is otherwise than when the same image was coded at the same setting, with how many tasks it concerns."""
    if not tasks or not stored.rows:
        return
    rows = stored.rows.values()
    before = {(row.codec, row.setting, row.seed, row.protocol, row.image): row for row in rows}
    reasons: Counter[tuple[str, str]] = Counter()
    for task in tasks:
        row = before.get((task.codec.name, task.setting, task.seed, task.protocol, task.entry.sample.id))
        if row is not None and row.task_key != task.key:
            reasons[task.codec.name, _why(row, new_row(task, "", "cpu", status="ok"))] += 1
        elif row is not None and row.status != "error" and task.setting.target is not None and not _judged(task, row):
            reasons[task.codec.name, "their search did not look at all settings of the codec"] += 1
    for codec, counts in grouped(reasons.items(), lambda item: item[0][0]).items():
        whys = [why for (_, why), _ in counts]
        yield f"{codec}: {sum(count for _, count in counts)} tasks are stored, but {few(whys, 1)}"


def _scored_again(work: Iterable[Work], stored: Contents) -> Iterator[str]:
    """Metrics of which tasks have a value of another edition, with how many."""
    asked = {(piece.task.key, name) for piece in work if piece.row is not None for name in piece.metrics}
    others: Counter[tuple[str, str]] = Counter()
    for score in stored.scores.values() if asked else ():
        if (score.task_key, score.metric) in asked and score.definition not in ("", definition(score.metric)):
            others[score.metric, score.definition] += 1
    for (name, edition), count in others.items():
        yield f"{name}: {count} values are stored, but of its version {edition}; now it is {definition(name)}"


def _why(old: Row, new: Row) -> str:
    if old.pixel_sha256 != new.pixel_sha256:
        return "the images have other pixels now"
    if old.caption != new.caption:
        return "the captions are others now"
    if is_tight(old.tolerance) or is_tight(new.tolerance):
        return f"a tolerance below {TOLERANCE:g} is searched for by itself"
    parts = []
    for was, now in ((old.coder, new.coder), (old.configuration or old.options, new.configuration)):
        before, after = json.loads(was or "{}"), json.loads(now)
        # Of a row of an earlier version only the options that were typed are known.
        names = [name for name in after if name != AS_RAN and (name in before or old.configuration)]
        changes = [name for name in names if before.get(name) != after[name]]
        parts += [f"{name} {before[name]} is now {after[name]}" for name in changes if name in before]
        parts += [f"{name} {after[name]} is new" for name in changes if name not in before]
        parts += [
            f"{name} {before[name]} is gone" for name in before if name.startswith("package ") and name not in after
        ]
    return "; ".join(parts) or "a default of the codec is another now"


def _new_members(
    tasks: Iterable[Task], every: Sequence[Cell], distinct: Mapping[str, tuple[int, int]], stored: Contents
) -> Iterator[Member]:
    """What points the rows belong to beside the one that each row states itself, as far as that is not stored.

    And what they belong to again: of a set that went back to an earlier state, that state is now the newest.
    """
    current = standing(stored)
    named = {key for key, member in stored.members.items() if (member.task_key, Place.of(member)) in current}
    for task in tasks:
        row = stored.rows.get(task.key)
        if row is None:
            number, entry = distinct[task.key]
            itself = task.place == every[number].task(entry).place
        else:  # those of earlier versions do not say where a folder lies
            stated = Place.of(row)
            itself = stated in (task.place, task.place._replace(root="")) and (task.key, stated) in current
        if not itself and (member := member_of(task)).member_key not in named:
            named.add(member.member_key)
            yield member


def chunks(plan: Plan, batch: int = 1) -> list[Numbers]:
    """What is left in chunks for one worker each, the largest first; for batches, images of one size stand together.

    Codecs with weights are kept together by rate point, so that these load once; for the others all that concerns one
    image is, so that it is read, and what metrics need of the original is computed, once. The last ones are cut small,
    so that the workers end together.
    """
    left = plan.left
    if not len(left):
        return []
    size = CHUNK * max(1, len(left) // (CHUNK * MOST_CHUNKS))
    by_point = np.array([_by_point(cell.codec, batch) for cell in plan.cells])[left.cells]
    groups = _groups(plan, by_point, size // CHUNK)
    heights, widths = (_of_entries(plan, name) for name in ("height", "width"))
    # Within a group as they were planned; for batches by the size of the image.
    order = np.lexsort((widths, heights, groups)) if batch > 1 else np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    cuts = np.flatnonzero(place % size == 0)
    pixels = np.add.reduceat((heights * widths)[order], cuts)
    parts = np.split(order, cuts[1:])
    parts = [parts[number] for number in np.argsort(-pixels, kind="stable")]
    small = []
    for part in parts[-TAIL:]:
        step = len(part) if by_point[part[0]] else max(2, len(part) // 4)
        small += [part[start : start + step] for start in range(0, len(part), step)]
    return [left.take(part) for part in parts[:-TAIL] + small]


def _groups(plan: Plan, by_point: NDArray[np.bool_], images: int) -> NDArray[np.int64]:
    """A number for each task that is left: what has the same is done together. Groups are numbered as they appear.

    Of codecs without weights so many ``images`` are a group.
    """
    left = plan.left
    points: dict[tuple[CodecSetting, float | None, str], int] = {}
    of_cell = [points.setdefault((cell.codec, cell.setting.rate, cell.dataset), len(points)) for cell in plan.cells]
    hashes = _of_entries(plan, "sha256")
    keys = np.where(by_point, np.array(of_cell, np.int64)[left.cells], len(points) + hashes)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    groups: NDArray[np.int64] = rank[inverse.ravel()]
    if images > 1:
        light = np.unique(groups[~by_point])
        merged = np.arange(len(first))
        merged[light] = light[np.arange(len(light)) // images * images]
        groups = merged[groups]
    return groups


def _of_entries(plan: Plan, name: str) -> NDArray[np.int64]:
    """What the images of all that is left have under a name; hashes as numbers, equal ones alike."""
    codes: dict[Any, int] = {}
    columns: dict[int, NDArray[np.int64]] = {}  # cells share their entries
    values = np.empty(len(plan.left), np.int64)
    starts = np.flatnonzero(np.r_[True, plan.left.cells[1:] != plan.left.cells[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(plan.left)], strict=True):
        entries = plan.cells[plan.left.cells[start]].entries
        if id(entries) not in columns:
            held = [getattr(entry, name) for entry in entries]
            numbers = [codes.setdefault(value, len(codes)) for value in held] if name == "sha256" else held
            columns[id(entries)] = np.array(numbers, np.int64)
        values[start:end] = columns[id(entries)][plan.left.entries[start:end]]
    return values


def _by_point(codec: CodecSetting, batch: int) -> bool:
    """Is a rate point's work kept together? What loads weights, or is coded in batches."""
    stated = facts(codec)
    return stated.heavy or (batch > 1 and stated.batches)


def _costs(stored: Contents) -> Costs:
    """What stored rows tell, of a large store every so many of them."""
    every = max(1, len(stored.rows) // LEARNED)
    rows = {row.task_key: row for row in itertools.islice(stored.rows.values(), 0, None, every)}
    metrics: dict[str, list[str]] = defaultdict(list)
    for score in stored.scores.values():
        if (row := rows.get(score.task_key)) and score.session == row.session:  # its seconds are in the row's
            metrics[score.task_key].append(score.metric)
    return Costs.of_rows(rows.values(), metrics)


def lines(plan: Plan, store: Store, workers: int) -> list[str]:
    """The plan in a few lines."""
    codecs = dict.fromkeys(cell.codec.name for cell in plan.cells)
    sets = dict.fromkeys(f"{cell.dataset} ({_images(plan, cell.dataset)} images)" for cell in plan.cells)
    left, every = len(plan.left), plan.distinct
    out = [
        f"codecs    {', '.join(codecs)}",
        f"data      {', '.join(sets)}",
        f"metrics   {', '.join(plan.metrics) or 'none'}",
        f"tasks     {every} in {len(plan.cells)} cells: {every - left - plan.failed} done, {left} left",
        f"store     {store.folder}",
    ]
    if plan.judged:
        out.append(f"judged    {len(plan.judged)} stored targets are in range, or out of it, by this tolerance=")
    if plan.changed:
        out.append(f"again     {len(plan.changed)} tasks: a file that their codec opened changed, or is gone")
    if plan.failed:
        out.append(f"failed    {plan.failed} tasks failed before; retry_failed=true tries them again")
    out += [f"again     {line}" for line in plan.again]
    out += [f"left out  {name}: {why}" for name, why in plan.left_out.items()]
    out += [f"external  {line}" for line in _external(plan)]
    if len(plan.left):
        workers = max(1, workers)
        new = dict.fromkeys(piece.task.codec.name for piece in plan.work if not plan.costs.knows(piece))
        told = f"a guess: no earlier rows of {', '.join(new)}" if new else "from earlier rows"
        out.append(f"time      about {duration(plan.expected_s / workers)} on {workers} workers, {told}")
    return out


def _external(plan: Plan) -> Iterator[str]:
    """What codecs in an environment of their own are made of, and the disk that kept pictures take."""
    apart = {cell.codec: cell for cell in plan.cells if registry.parse(cell.codec.use).apart}
    for setting, first in apart.items():
        coder = json.loads(first.identity)["coder"]
        packages = sum(name.startswith("package ") for name in coder)
        made_of = [f"Python {coder['python']} with {packages} packages"] if "python" in coder else []
        made_of += [f"source {coder['source']}"] if "source" in coder else []
        if (grade := facts(setting).grade) != "decoded":
            pieces = zip(plan.left.cells, plan.left.entries, plan.left.lacks, strict=True)
            uncoded = [(cell, entry) for cell, entry, lack in pieces if not plan.lacks[lack].coded]
            left = [plan.cells[cell].entries[entry] for cell, entry in uncoded if plan.cells[cell].codec == setting]
            size = sum(entry.height * entry.width for entry in left) * 1.5 / 1e6  # what PNG makes of photographs, about
            made_of.append(f"grade {grade}: pictures are kept, about {size:.0f} MB")
        yield f"{setting.name}: {'; '.join(made_of) or 'programs'}"


def as_json(plan: Plan, store: Store) -> dict[str, Any]:
    """The plan as data."""
    return {
        "store": str(store.folder),
        "cells": len(plan.cells),
        "tasks": plan.distinct,
        "left": len(plan.left),
        "failed": plan.failed,
        "metrics": list(plan.metrics),
        "left_out": dict(plan.left_out),
        "again": list(plan.again),
        "expected_cpu_s": plan.expected_s,
    }


def _images(plan: Plan, dataset: str) -> str:
    there = {id(cell.entries): cell for cell in plan.cells if cell.dataset == dataset}.values()
    images = len({entry.sample.id for cell in there for entry in cell.entries})
    size = max(cell.dataset_size for cell in there)
    return str(images) if images == size else f"{images} of {size}"

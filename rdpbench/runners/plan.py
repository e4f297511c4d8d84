"""Planning: the tasks of a command minus those that are stored, and whether the others can run.

Nothing is coded here: a plan only reads.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from rdpbench import registry
from rdpbench.assets.hashes import files_changed
from rdpbench.metrics.contract import beside
from rdpbench.progress import duration
from rdpbench.results.stats.current import standing
from rdpbench.results.stats.points import grouped
from rdpbench.results.store.keys import TOLERANCE, axis_of, device_of, facts, forget, is_tight, score_key, timing_key
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
from rdpbench.runners.task import Task, Work, judged, list_tasks, measure_of, member_of, new_row
from rdpbench.setting import Bench

CHUNK = 32
TAIL = 8
LEARNED = 20_000
"""Rows that costs are learned from, at most twice as many."""


@dataclass(frozen=True)
class Plan:
    """What a command stands for."""

    tasks: tuple[Task, ...]
    """All that the command's points consist of. Points may share a task, which is then here once for each of them."""
    work: tuple[Work, ...]
    """What is left to do, once for each key."""
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

    @property
    def cells(self) -> int:
        """Codec x rate point x dataset x seed."""
        return len({(task.codec, task.setting, task.dataset, task.seed) for task in self.tasks})

    @property
    def keys(self) -> set[str]:
        """The keys of its tasks."""
        return {task.key for task in self.tasks}

    @property
    def idle(self) -> bool:
        """Is there nothing to code, score or note? Values of set metrics may still be missing."""
        return not (self.work or self.members or self.measures or self.judged)


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
    tasks = tuple(list_tasks(bench))
    metrics, unfit = fitting(bench, metrics, tasks)
    stored = store.read() if store.exists() else Contents()
    pairs, arrays = pair_metrics(metrics), StoredArrays.look_up(set_metrics(metrics), store.features)
    retry, changes = bench.retry_failed, cache(files_changed)
    work: list[Work] = []
    judged_again: list[Row] = []
    changed: set[str] = set()
    failed = 0
    distinct: dict[str, Task] = {}
    for task in tasks:
        first = distinct.setdefault(task.key, task)
        distinct[task.key] = replace(first, keep=first.keep or task.keep)
    for task in distinct.values():
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
        key = timing_key(task.key, device_of(task.codec, bench.device))
        timing = bench.timing and (key not in stored.timings or task.key in changed)
        unkept = task.keep and row is not None and not reconstruction_path(store, row).is_file()
        # Features that were refused once, as for an image below the size of a patch, are not tried again.
        features, originals = (
            tuple(name for name in names if (score := _score(stored, task, name)) is None or _failed(score, retry))
            for names in (arrays.missing(task, row), arrays.missing_original(task))
        )
        if row is None or missing or timing or unkept or features or originals:
            work.append(Work(task, missing if row else pairs, row, timing, features, originals))
    measures = [measure_of(name) for name in metrics if registry.own_place("metric", name)]
    return Plan(
        tasks=tasks,
        work=tuple(work),
        stored=stored,
        members=tuple(_new_members(tasks, distinct, stored)),
        measures=tuple(measure for measure in measures if measure.measure_key not in stored.measures),
        judged=tuple(judged_again),
        metrics=metrics,
        left_out=left_out | unfit,
        failed=failed,
        again=tuple(_again([piece.task for piece in work if piece.row is None], stored)),
        changed=frozenset(changed),
        costs=_costs(stored) if work else Costs(),
    )


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
    for (codec, why), count in reasons.items():
        yield f"{codec}: {count} tasks are stored, but {why}"


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


def _new_members(tasks: Iterable[Task], distinct: Mapping[str, Task], stored: Contents) -> Iterator[Member]:
    """What points the rows belong to beside the one that each row states itself, as far as that is not stored.

    And what they belong to again: of a set that went back to an earlier state, that state is now the newest.
    """
    current = standing(stored)
    named = {key for key, member in stored.members.items() if (member.task_key, Place.of(member)) in current}
    for task in tasks:
        row = stored.rows.get(task.key)
        if row is None:
            itself = task.place == distinct[task.key].place
        else:  # those of earlier versions do not say where a folder lies
            stated = Place.of(row)
            itself = stated in (task.place, task.place._replace(root="")) and (task.key, stated) in current
        if not itself and (member := member_of(task)).member_key not in named:
            named.add(member.member_key)
            yield member


def chunks(work: Sequence[Work], batch: int = 1) -> list[list[Work]]:
    """Work in chunks for one worker each, the largest first; for batches, images of one size stand together.

    Codecs with weights are kept together by rate point, so that these load once; for the others all that concerns one
    image is, so that it is read, and what metrics need of the original is computed, once. The last ones are cut small,
    so that the workers end together.
    """

    def together(piece: Work) -> object:
        task = piece.task
        return (task.codec, task.setting.rate, task.dataset) if _by_point(piece, batch) else task.entry.sha256

    groups = grouped(work, together)
    if batch > 1:
        for group in groups.values():
            group.sort(key=lambda piece: (piece.task.entry.height, piece.task.entry.width))
    parts = [part for group in groups.values() for part in _cut(group, CHUNK)]
    parts.sort(key=lambda part: -sum(piece.task.pixels for piece in part))
    tail = parts[-TAIL:]
    small = [_cut(part, len(part) if _by_point(part[0], batch) else max(2, len(part) // 4)) for part in tail]
    return parts[:-TAIL] + [part for cut in small for part in cut]


def _cut(work: list[Work], size: int) -> list[list[Work]]:
    return [work[start : start + size] for start in range(0, len(work), size)]


def _by_point(work: Work, batch: int) -> bool:
    """Is a rate point's work kept together? What loads weights, or is coded in batches."""
    stated = facts(work.task.codec)
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
    codecs = dict.fromkeys(task.codec.name for task in plan.tasks)
    sets = dict.fromkeys(f"{task.dataset} ({_images(plan, task.dataset)} images)" for task in plan.tasks)
    left, every = len(plan.work), len(plan.keys)
    out = [
        f"codecs    {', '.join(codecs)}",
        f"data      {', '.join(sets)}",
        f"metrics   {', '.join(plan.metrics) or 'none'}",
        f"tasks     {every} in {plan.cells} cells: {every - left - plan.failed} done, {left} left",
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
    if plan.work:
        workers = max(1, workers)
        new = dict.fromkeys(piece.task.codec.name for piece in plan.work if not plan.costs.knows(piece))
        told = f"a guess: no earlier rows of {', '.join(new)}" if new else "from earlier rows"
        out.append(f"time      about {duration(plan.expected_s / workers)} on {workers} workers, {told}")
    return out


def _external(plan: Plan) -> Iterator[str]:
    """What codecs in an environment of their own are made of, and the disk that kept pictures take."""
    apart = {task.codec: task for task in plan.tasks if registry.parse(task.codec.use).apart}
    for setting, first in apart.items():
        coder = json.loads(first.identity)["coder"]
        packages = sum(name.startswith("package ") for name in coder)
        made_of = [f"Python {coder['python']} with {packages} packages"] if "python" in coder else []
        made_of += [f"source {coder['source']}"] if "source" in coder else []
        if (grade := facts(setting).grade) != "decoded":
            left = [piece.task for piece in plan.work if piece.row is None and piece.task.codec == setting]
            size = sum(task.pixels for task in left) * 1.5 / 1e6  # what PNG makes of photographs, about
            made_of.append(f"grade {grade}: pictures are kept, about {size:.0f} MB")
        yield f"{setting.name}: {'; '.join(made_of) or 'programs'}"


def as_json(plan: Plan, store: Store) -> dict[str, Any]:
    """The plan as data."""
    return {
        "store": str(store.folder),
        "cells": plan.cells,
        "tasks": len(plan.keys),
        "left": len(plan.work),
        "failed": plan.failed,
        "metrics": list(plan.metrics),
        "left_out": dict(plan.left_out),
        "again": list(plan.again),
        "expected_cpu_s": plan.expected_s,
    }


def _images(plan: Plan, dataset: str) -> str:
    images = {task.entry.sample.id: task.dataset_size for task in plan.tasks if task.dataset == dataset}
    size = max(images.values())
    return str(len(images)) if len(images) == size else f"{len(images)} of {size}"

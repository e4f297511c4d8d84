"""Planning: the tasks of a command minus those that are stored, and whether the others can run.

Nothing is coded here: a plan only reads.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rdpbench import registry
from rdpbench.codecs.contract import GRADES
from rdpbench.errors import few
from rdpbench.progress import duration
from rdpbench.results.stats.current import of_store, standing
from rdpbench.results.stats.points import grouped, point_key
from rdpbench.results.store.calls import CodecFiles, codec_now, published
from rdpbench.results.store.columns import HASH, Places, coded, find, groups_of, joined, split_by
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import TOLERANCE, definition, facts, forget, is_tight
from rdpbench.results.store.schema import AS_RAN, Measure, Member, Place, Row
from rdpbench.results.store.store import Store
from rdpbench.runners.cost import Costs, Kind, kind_of
from rdpbench.runners.left import Distinct, Lack, Numbers, find_left, judged_again
from rdpbench.runners.preflight import (
    check_decodes,
    check_devices,
    check_downloads,
    check_needs,
    choose_metrics,
    fitting,
)
from rdpbench.runners.sets import StoredArrays, pair_metrics, set_metrics
from rdpbench.runners.task import (
    Cell,
    Task,
    Work,
    cells,
    keys_of_cells,
    measure_of,
    member_of,
    membership,
    new_row,
)
from rdpbench.setting import Bench, Setting

LEARNED = 20_000
"""Up to so many rows costs are learned from all of them."""
LAST = 64
"""Else from so many of each point."""


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

    distinct: int
    """How many of the tasks are different."""

    @property
    def expected_s(self) -> float:
        """Seconds of computing that are left, over all workers."""
        return sum(self.costs.of_kind(*pair) for pair in self.kinds.items()) + self.stored_s

    @cached_property
    def kinds(self) -> Counter[Kind]:
        """The pixels that are left of each kind of work."""
        pixels: Counter[Kind] = Counter()
        if not len(self.left):
            return pixels
        groups, first = groups_of([self.left.cells, self.left.lacks])
        sizes = self.of_entries("pixels")
        for places, example in zip(split_by(groups, len(first)), first.tolist(), strict=True):
            cell, lack = self.cells[self.left.cells[example]], self.lacks[self.left.lacks[example]]
            names = (*lack.metrics, *lack.features, *lack.originals)
            pixels[kind_of(cell.codec, cell.setting, lack.coded, lack.timing, names)] += int(sizes[places].sum())
        return pixels

    @cached_property
    def stored_s(self) -> float:
        """Seconds to decode what is stored and scored again."""
        coded = np.array([lack.coded for lack in self.lacks], bool)[self.left.lacks]
        keys = [self.cells[cell].keys[entry] for cell, entry, _ in self.left.take(coded)] if coded.any() else []
        rows = self.stored.of_kind("row")
        return float(np.nansum(rows.numbers("decode_s")[rows.locate(keys)])) if keys else 0.0

    def of_entries(self, name: str) -> Places:
        """What the images of all that is left have under a name; hashes as numbers, equal ones alike."""
        codes: dict[Any, int] = {}
        columns: dict[int, Places] = {}  # cells share their entries
        values = np.empty(len(self.left), np.int64)
        starts = np.flatnonzero(np.r_[True, self.left.cells[1:] != self.left.cells[:-1]])
        for start, end in zip(starts, np.r_[starts[1:], len(self.left)], strict=True):
            entries = self.cells[self.left.cells[start]].entries
            if id(entries) not in columns:
                held = [getattr(entry, name) for entry in entries]
                numbers = [codes.setdefault(value, len(codes)) for value in held] if name == "sha256" else held
                columns[id(entries)] = np.array(numbers, np.int64)
            values[start:end] = columns[id(entries)][self.left.entries[start:end]]
        return values

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """All tasks of its cells: for a command of a few thousand."""
        return tuple(cell.task(number) for cell in self.cells for number in range(len(cell)))

    @property
    def size(self) -> int:
        """How many tasks its cells have."""
        return sum(map(len, self.cells))

    def lost_of(self, contents: Contents) -> int:
        """How many of its tasks have no row in a store."""
        keys = keys_of_cells(self.cells)
        absent = np.flatnonzero(contents.of_kind("row").locate(keys) < 0)
        return len({keys[place] for place in absent.tolist()})

    @cached_property
    def work(self) -> list[Work]:
        """All that is left: for a command of a few thousand."""
        work: list[Work] = []
        for cell, entry, number in self.left:
            lack = self.lacks[number]
            task = self.cells[cell].task(entry, keep=lack.keep)
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
    check_devices(bench.devices)
    check_decodes(bench)
    metrics, left_out = choose_metrics(bench)
    every = tuple(cells(bench))
    metrics, unfit = fitting(bench, metrics, every)
    stored = store.read() if store.exists() else Contents()
    # While keys are hashed, which Python does, Arrow reads those that are stored.
    with ThreadPoolExecutor(1) as pool:
        owners = pool.submit(stored.of_kind("score").owners, stored.of_kind("row"))
        for cell in every:
            cell.keys  # noqa: B018 (computed once)
        owners.result()
    arrays = StoredArrays.look_up(set_metrics(metrics), store.features)
    found, distinct, places = find_left(bench, store, stored, every, pair_metrics(metrics), arrays)
    measures = [measure_of(name) for name in metrics if registry.own_place("metric", name)]
    plan = Plan(
        cells=every,
        left=found.numbers,
        lacks=tuple(found.lacks),
        stored=stored,
        members=tuple(_new_members(every, distinct, places, stored)),
        measures=tuple(measure for measure in measures if measure.measure_key not in stored.measures),
        judged=tuple(found.judged),
        metrics=metrics,
        left_out=left_out | unfit,
        failed=found.failed,
        again=(),
        changed=frozenset(found.changed),
        costs=_costs(stored) if found.left else Costs(),
        distinct=distinct.count,
    )
    return replace(plan, again=(*_again(plan), *_scored_again(plan), *_reduced_again(plan)))


def _again(plan: Plan) -> Iterator[str]:
    """What is otherwise than when the same image was coded at the same setting, with how many tasks it concerns."""
    rows = plan.stored.of_kind("row")
    uncoded = plan.left.take(~np.array([lack.coded for lack in plan.lacks], bool)[plan.left.lacks])
    if not len(uncoded) or not len(rows):
        return
    before = _by_setting(plan.stored)
    of_row = {name: rows.codes(name) for name in ("image", "configuration", "options", "coder", "pixel_sha256")}
    captions, tolerance = rows.codes("caption"), rows.numbers("tolerance")
    reasons: Counter[tuple[str, str]] = Counter()
    for number in np.unique(uncoded.cells).tolist():
        cell = plan.cells[number]
        there = before.get((cell.codec.name, cell.setting, cell.seed, cell.protocol))
        if there is None:
            continue
        images = of_row["image"].of(there).texts()
        last = dict(zip(images, there.tolist(), strict=True))
        entries = uncoded.entries[uncoded.cells == number].tolist()
        pairs = [(entry, last[i]) for entry in entries if (i := cell.entries[entry].sample.id) in last]
        if not pairs:
            continue
        keys = rows.strings("task_key").take([place for _, place in pairs]).to_pylist()
        kinds: dict[tuple[object, ...], list[tuple[int, int]]] = defaultdict(list)
        for (entry, place), key in zip(pairs, keys, strict=True):
            same = key == cell.keys[entry]
            pixels = of_row["pixel_sha256"].names[of_row["pixel_sha256"].codes[place]] == cell.entries[entry].sha256
            caption = cell.captions.get(cell.entries[entry].sample.id)
            text = captions.names[captions.codes[place]] == (caption.text if caption else "")
            edition = (int(of_row[name].codes[place]) for name in ("configuration", "options", "coder"))
            # Rows that are alike in all that is compared have one reason; a search is judged row by row.
            each = place if same else None
            kinds[same, pixels, text, *edition, repr(tolerance[place]), each].append((entry, place))
        for kind, members in kinds.items():
            entry, place = members[0]
            [row] = rows.at([place])
            if not kind[0]:
                why = _why(row, published(new_row(cell.task(entry), "", "cpu", status="ok"), cell.codec))
            elif row.status != "error" and cell.setting.target and not judged_again(cell.task(entry), row):
                why = "their search did not look at all settings of the codec"
            else:
                continue
            reasons[cell.codec.name, why] += len(members)
    for codec, counts in grouped(reasons.items(), lambda item: item[0][0]).items():
        whys = [why for (_, why), _ in counts]
        yield f"{codec}: {sum(count for _, count in counts)} tasks are stored, but {few(whys, 1)}"


def _by_setting(stored: Contents) -> dict[tuple[str, Setting, int, str], Places]:
    """The places of rows by their curve's label, setting, seed and protocol."""
    rows = stored.of_kind("row")
    label, field, protocol = (rows.codes(name) for name in ("codec", "rate_field", "protocol"))
    target, seed = rows.numbers("target_bpp"), rows.numbers("seed")
    rate = np.where(np.isnan(target), rows.numbers("rate"), np.nan)
    groups, first = groups_of([label.codes, field.codes, protocol.codes, target, seed, rate])
    keys = []
    for place in first.tolist():
        at, wanted = (None if np.isnan(value) else float(value) for value in (rate[place], target[place]))
        setting = Setting(field.names[field.codes[place]], at, wanted)
        keys.append((label.names[label.codes[place]], setting, int(seed[place]), protocol.names[protocol.codes[place]]))
    return dict(zip(keys, split_by(groups, len(first)), strict=True))


def _scored_again(plan: Plan) -> Iterator[str]:
    """Metrics of which tasks have a value of another edition, with how many."""
    rows, scores = plan.stored.of_kind("row"), plan.stored.of_kind("score")
    wanted = {name for lack in plan.lacks if lack.coded for name in lack.metrics}
    if not wanted or not len(scores):
        return
    owners, metrics, editions = scores.owners(rows), scores.codes("metric"), scores.codes("definition")
    for name in sorted(wanted):
        lacks = np.array([lack.coded and name in lack.metrics for lack in plan.lacks], bool)
        keys = [plan.cells[cell].keys[entry] for cell, entry, _ in plan.left.take(lacks[plan.left.lacks])]
        asked = np.zeros(len(rows) + 1, bool)  # the last place is that of -1
        asked[rows.locate(keys)] = True
        asked[-1] = False
        now = definition(name)
        stale = asked[owners] & metrics.where(name.__eq__) & editions.where(lambda text: text not in ("", now))  # noqa: B023 (asked at once)
        for edition in editions.of(stale).used():
            count = int(editions.of(stale).where(edition.__eq__).sum())
            yield f"{name}: {count} values are stored, but of its version {edition}; now it is {now}"
        under_path = [text for text in metrics.names if ":" in name and text.endswith(f"/{name}")]
        if count := int((asked[owners] & metrics.where(under_path.__contains__)).sum()):
            yield f"{name}: {count} values are stored under its path, as earlier versions of rdpbench named it"


def _reduced_again(plan: Plan) -> Iterator[str]:
    """Metrics of sets of which points have values of other editions alone, with how many."""
    stale: dict[str, str] = {}  # editions by the key of the point
    for name in set_metrics(plan.metrics):
        now = definition(name)
        of_name = [score for score in plan.stored.sets.values() if score.metric == name]
        current = {score.point_key for score in of_name if score.definition in ("", now)}
        stale |= {score.point_key: score.definition for score in of_name if score.point_key not in current}
    points = of_store(plan.stored, membership(plan.cells), grades=GRADES).points if stale else []
    of_points = [rows for point in points for rows in point.by_seed.values()]
    for name in set_metrics(plan.metrics):
        keys = {point_key(name, rows) for rows in of_points} & stale.keys()
        for edition, count in sorted(Counter(stale[key] for key in keys).items()):
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
    every: Sequence[Cell], distinct: Distinct, places: Sequence[Places], stored: Contents
) -> Iterator[Member]:
    """What points the rows belong to beside the one that each row states itself, as far as that is not stored.

    And what they belong to again: of a set that went back to an earlier state, that state is now the newest.
    """
    rows, members = stored.of_kind("row"), stored.of_kind("member")
    stands, of_members = standing(stored)
    named = {*members.strings("member_key").filter(of_members).to_pylist()} if len(members) else set()
    of_row = {name: rows.codes(name) for name in Place._fields}
    firsts: dict[str, Place] = {}
    again = [cell.keys.raw[~mask] for cell, mask in zip(every, distinct.first, strict=True)]
    shared = np.sort(np.concatenate([np.empty(0, HASH), *again]), order="start")
    for cell, first, there in zip(every, distinct.first, places, strict=True):
        # Those of earlier versions do not say where a folder lies.
        constant = {"codec": cell.codec.name, "dataset": cell.dataset, "manifest": cell.pin.sha256}
        itself = np.ones(len(cell), bool)
        if len(rows):
            for name, text in constant.items():
                itself &= of_row[name].of(there).where(text.__eq__)
            itself &= of_row["root"].of(there).where((cell.root, "").__contains__) & stands[there]
            sources = [cell.task(number).place.caption_source for number in range(len(cell))] if cell.captions else []
            texts = of_row["caption_source"].of(there)
            pair = joined([texts, coded(sources or [""] * len(cell))])
            itself &= pair.codes[: len(cell)] == pair.codes[len(cell) :]
        itself |= there < 0
        for number in np.flatnonzero(~itself | (there < 0) & ~first | (find(shared, cell.keys.raw) >= 0)).tolist():
            task = cell.task(number)
            place = firsts.setdefault(task.key, task.place)
            if (there[number] >= 0 and itself[number]) or (there[number] < 0 and task.place == place):
                continue
            if (member := member_of(task)).member_key not in named:
                named.add(member.member_key)
                yield member
    cell_of = {cell.codec: cell for cell in every if len(cell)}
    for codec, cell in cell_of.items():
        now = codec_now(stored.folder, codec.name)
        files = CodecFiles.of(codec.use, dict(codec.options))
        if now and (now[0], CodecFiles.of(*now)) != (codec.use, files):
            # So that this call is noted: two files have had the label, and from now on it stands for this one.
            yield member_of(cell.task(0))


def _costs(stored: Contents) -> Costs:
    """What stored rows tell, of a large store the last ones of each point."""
    rows, scores = stored.of_kind("row"), stored.of_kind("score")
    good = rows.codes("status").where("ok".__eq__) & ~np.isnan(rows.numbers("encode_s"))
    places = np.flatnonzero(good)
    if len(places) > LEARNED:
        of_setting = (along[good[along]][-LAST:] for along in _by_setting(stored).values())
        places = np.sort(np.concatenate([*of_setting]))
    # The seconds of scoring are of the metrics that scored when the row was made.
    metrics: dict[int, list[str]] = defaultdict(list)
    if len(scores) and len(places):
        owners, chosen = scores.owners(rows), np.zeros(len(rows) + 1, bool)
        chosen[places] = True
        here = np.flatnonzero(chosen[owners])
        sessions = joined([rows.codes("session").of(owners[here]), scores.codes("session").of(here)])
        same = sessions.codes[: len(here)] == sessions.codes[len(here) :]
        names = scores.codes("metric").of(here[same]).texts()
        for owner, name in zip(owners[here[same]].tolist(), names, strict=True):
            metrics[owner].append(name)
    numbers = [rows.numbers(name)[places] for name in ("rate", "target_bpp", "height", "width", "attempts")]
    seconds = [np.nan_to_num(rows.numbers(name)[places]) for name in ("encode_s", "decode_s")]
    texts = [rows.codes(name).of(places).texts() for name in ("codec", "use", "rate_field")]
    costs = Costs()
    columns = zip(places.tolist(), *texts, *(column.tolist() for column in (*numbers, *seconds)), strict=True)
    scored = rows.numbers("score_s")
    for place, label, use, field, rate, target, height, width, attempts, encode, decode in columns:
        wanted = None if np.isnan(target) else target
        setting = Setting(field, None if np.isnan(rate) or wanted is not None else rate, wanted)
        costs.learn_coding(label, use, setting, int(height * width), encode * attempts + decode)
        if place in metrics and not np.isnan(scored[place]):
            costs.learn_scoring(metrics[place], int(height * width), float(scored[place]))
    return costs


def lines(plan: Plan, store: Store, workers: int, device: str = "cpu") -> list[str]:
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
        labels = dict.fromkeys(plan.cells[number].codec.name for number in np.unique(plan.left.cells))
        new = [label for label in labels if not plan.costs.knows(label)]
        told = f"a guess: no earlier rows of {', '.join(new)}" if new else "from earlier rows"
        out.append(f"time      about {duration(plan.expected_s / workers)} on {workers} workers, {told}")
        there = {cell.codec.name for cell in plan.cells if device != "cpu" and facts(cell.codec).uses_device}
        if seconds := sum(plan.costs.of_kind(*pair) for pair in plan.kinds.items() if pair[0][0] in there):
            out.append(f"devices   about {seconds / 3600:.1f} hours of {device} in all, of {', '.join(sorted(there))}")
        out += _disk(plan, store)
    return out


ROW_BYTES = 500
"""A row with five scores takes so much in Parquet."""


def _disk(plan: Plan, store: Store) -> list[str]:
    """What is left to write, if it is a gigabyte or more; and what is free."""
    pixels, lacks = plan.of_entries("pixels"), plan.left.lacks
    coded, kept = (np.array([getattr(lack, name) for lack in plan.lacks], bool)[lacks] for name in ("coded", "keep"))
    unproven = np.array([facts(cell.codec).grade != "decoded" for cell in plan.cells], bool)[plan.left.cells]
    sizes = {
        "kept pictures": 1.5 * float(pixels[kept].sum() + pixels[unproven & ~coded].sum()),  # PNG of photographs
        "bitstreams, at 1 bpp": float(pixels[~coded].sum()) / 8,
        "rows": ROW_BYTES * float((~coded).sum()),
    }
    if (whole := sum(sizes.values())) < 1e9:
        return []
    place = next(folder for folder in (store.folder, *store.folder.absolute().parents) if folder.is_dir())
    told = ", ".join(f"{size / 1e9:.1f} GB of {name}" for name, size in sizes.items() if size >= 5e7)
    return [f"disk      about {whole / 1e9:.1f} GB: {told}; {shutil.disk_usage(place).free / 1e9:.0f} GB are free"]


def _external(plan: Plan) -> Iterator[str]:
    """What codecs in an environment of their own are made of."""
    apart = {cell.codec: cell for cell in plan.cells if registry.parse(cell.codec.use).apart}
    for setting, first in apart.items():
        coder = json.loads(first.identity)["coder"]
        packages = sum(name.startswith("package ") for name in coder)
        made_of = [f"Python {coder['python']} with {packages} packages"] if "python" in coder else []
        made_of += [f"source {coder['source']}"] if "source" in coder else []
        if (grade := facts(setting).grade) != "decoded":
            made_of.append(f"grade {grade}: pictures are kept")
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

"""Which values of metrics are current: one edition of each for all points of a place."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from rdpbench import registry
from rdpbench.results.stats.meanings import definition_now, meaning
from rdpbench.results.stats.points import Point, Scored, Where, grouped, point_key
from rdpbench.results.store.columns import Codes, Mask, Places, coded, groups_of, split_by
from rdpbench.results.store.keys import score_key
from rdpbench.results.store.records import Records
from rdpbench.results.store.schema import Row, Score, SetScore

K = TypeVar("K", bound=Hashable)


def chosen_edition(parts: Mapping[K, set[Any]], installed: Sequence[K]) -> K | None:
    """The edition that is installed; else the only one that has everything; else none."""
    if len(installed) == 1:
        return installed[0]
    every = set().union(*parts.values())
    whole = [edition for edition, part in parts.items() if part == every]
    return whole[0] if len(whole) == 1 else None


def current_scores(
    points: Iterable[Point], rows: Records[Row], scores: Records[Score], good: Mask, notes: list[str]
) -> dict[tuple[Where, str], Scored]:
    """One edition of each metric for all points of a place."""
    there = grouped(points, lambda point: point.where)
    if not there or not len(scores):
        return {}
    values, metrics = scores.numbers("value"), scores.codes("metric")
    scores.codes("definition")  # read before a thread is waited for that may still look up the owners
    owners = scores.owners(rows)
    if not good.all():
        owners = np.where(good, owners, -1)
    held: dict[Where, Places] = {}
    groups: list[tuple[int, Where, str, Places]] = []
    for where, points_here in there.items():
        inside = np.zeros(len(rows) + 1, bool)  # the last place is that of -1
        for point in points_here:
            inside[point.rows.places] = True
        held[where] = np.flatnonzero(inside)
        here = np.flatnonzero(inside[owners])
        codes, first = groups_of([metrics.codes[here]]) if len(here) else (here, here)
        for number, members in enumerate(split_by(codes, len(first)) if len(first) else ()):
            groups.append(
                (int(here[first[number]]), where, metrics.names[metrics.codes[here[first[number]]]], here[members])
            )
    current: dict[tuple[Where, str], Scored] = {}
    shared = np.bincount(np.concatenate([*held.values()]), minlength=len(rows)) > 1
    order = list(held)
    for _, where, metric, members in sorted(groups, key=lambda group: (group[0], order.index(group[1]))):
        editions = scores.codes("definition").of(members)
        chosen, note = _edition_of_scores(metric, scores, owners, members, editions, shared)
        if note:
            notes.append(f"{metric} on {where.dataset}: {note}")
        of_row = np.full(len(rows), -1, np.int64)
        of_row[owners[chosen]] = chosen
        of_place = of_row[held[where]]
        value = np.where(of_place >= 0, values[of_place] if len(values) else math.nan, math.nan)
        if not meaning(metric).higher_is_better:  # what is infinitely bad is a fault of something
            value = np.where(value == math.inf, math.nan, value)
        current[where, metric] = Scored(held[where], of_place, np.where(value == -math.inf, math.nan, value))
    return current


def _edition_of_scores(
    metric: str, scores: Records[Score], owners: Places, members: Places, editions: Codes, shared: Mask
) -> tuple[Places, str]:
    """Which scores of a metric count, of those that are ``members``; ``owners`` are the places of all scores' rows.

    ``shared`` says which rows several sets have.
    """
    groups, first = groups_of([editions.codes])
    parts = dict(zip(editions.of(first).texts(), (members[p] for p in split_by(groups, len(first))), strict=True))
    now = definition_now(metric) if len(parts) > 1 else next(iter(parts))
    if len(parts) > 1 and now and "" in parts and metric not in registry.meanings:
        editions = _with_definition(metric, scores, members, editions, now)
        return _edition_of_scores(metric, scores, owners, members, editions, shared)
    tasks = {edition: {*owners[places].tolist()} for edition, places in parts.items()} if len(parts) > 1 else {}
    chosen = chosen_edition(tasks, [now] if now in parts else []) if tasks else now
    if chosen is None:
        listed = "; ".join(f"{name or 'not stated'} of {len(keys)} images" for name, keys in tasks.items())
        return np.empty(0, np.int64), (
            f"{len(parts)} versions of it are stored, and none of them is installed: {listed}. No number"
        )
    current, stale = _one_reference(scores, owners, parts[chosen])
    if stale and (shared & (np.bincount(owners[parts[chosen]], minlength=len(shared)) > 1)).any():
        return np.empty(0, np.int64), SEVERAL
    missing = _distinct(owners[members]) - len(current)
    why = "other captions or label maps" if stale else f"another version than {chosen}"
    note = f"{missing} scores are of {why}, and left out; `rdpbench score` makes them again"
    return current, note if missing else ""


SEVERAL = (
    "values against several captions or label maps are stored, of images that are in several sets; which are whose is "
    "not known. No number; measure each set in a run of its own, run=NAME"
)


def _distinct(places: Places) -> int:
    return int(np.count_nonzero(np.bincount(places)))


def _one_reference(scores: Records[Score], owners: Places, members: Places) -> tuple[Places, bool]:
    """The newest of scores against several captions or label maps of an image; and whether there are older ones."""
    if _distinct(owners[members]) == len(members):
        return members, False
    sessions = scores.codes("session").of(members).texts()
    keys = scores.strings("score_key").take(members).to_pylist()
    ordered = sorted(range(len(members)), key=lambda number: (sessions[number], keys[number]))
    by_task = grouped(ordered, lambda number: int(owners[members[number]]))
    older = {sessions[number] for along in by_task.values() for number in along[:-1]}
    newest = [along[-1] for along in by_task.values() if len(along) > 1 or sessions[along[-1]] not in older]
    return members[newest], True


def _with_definition(metric: str, scores: Records[Score], members: Places, named: Codes, now: str) -> Codes:
    """Editions of scores where those that do not say theirs are of the installed one if they have its key."""
    texts = named.texts()
    unsaid = [number for number, text in enumerate(texts) if not text]
    keys, tasks = (scores.strings(name).take(members[unsaid]).to_pylist() for name in ("score_key", "task_key"))
    for number, key, task in zip(unsaid, keys, tasks, strict=True):
        texts[number] = now if score_key(task, metric) == key else "not stated"
    return coded(texts)


def current_sets(
    points: Sequence[Point], sets: Iterable[SetScore], notes: list[str]
) -> dict[tuple[Where, str], SetScore]:
    """Values of metrics of sets: one edition of each for all points of a place."""
    ordered = sorted(sets, key=lambda score: (score.time, score.set_key))
    stored = grouped(ordered, lambda score: score.point_key)
    metrics = sorted({score.metric for score in ordered})
    groups: dict[tuple[Where, str], list[SetScore]] = defaultdict(list)
    for point in points if metrics else ():
        for rows in point.by_seed.values():
            for metric in metrics:
                groups[point.where, metric] += stored.get(point_key(metric, rows), ())
    places = Counter(key for _, key in {(where, s.point_key) for (where, _), scores in groups.items() for s in scores})
    current: dict[tuple[Where, str], SetScore] = {}
    for (where, metric), scores in groups.items():
        editions: dict[str, set[str]] = defaultdict(set)
        for score in scores:
            editions[score.definition].add(score.point_key)
        now = definition_now(metric) if len(editions) > 1 else ""
        chosen = chosen_edition(editions, [now] if now in editions else [])
        if chosen is None and scores:
            listed = f"{len(editions)} versions of it are stored ({', '.join(sorted(editions))}), none installed"
            notes.append(f"{metric} on {where.dataset}: {listed}. No number")
        of_edition = [score for score in scores if score.definition == chosen]
        values = {(score.point_key, score.value) for score in of_edition if score.value is not None}
        several = Counter(key for key, _ in values)
        if any(count > 1 and places[key] > 1 for key, count in several.items()):
            notes.append(f"{metric} on {where.dataset}: {SEVERAL}")
        else:
            current |= {(where, score.point_key): score for score in of_edition}
    return current

"""Which rows, which version of a codec and of a metric, and which state of a dataset a point consists of.

Of what a run stores, only what is *current* is in a point:

- If the files of a user's set changed, its newest state counts, curve by curve. Two sets with one name stay two.
- A codec may be stored in several *editions*: versions of its class, library, binary or checkpoint. The installed one
  counts; of a codec in an environment of its own, which reading does not start, the newest. If none is installed,
  the one that has all images counts; if several have, there is no number.
- Editions of a metric are chosen in the same way, one for all points of a dataset.

No mean mixes editions. The notes of `Points` say what was left out.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from rdpbench import registry
from rdpbench.assets.hashes import files_now
from rdpbench.codecs.contract import GRADES
from rdpbench.errors import RdpbenchError, UnknownName
from rdpbench.results.stats.points import K, Point, Points, Where, definition_now, grouped, point_key, readable
from rdpbench.results.store.keys import identity_at, key_of, score_key
from rdpbench.results.store.schema import AS_RAN, Member, Place, Row, Score, SetScore
from rdpbench.results.store.store import Contents
from rdpbench.setting import CodecSetting, Setting

PROVEN = ("decoded",)
"""The grades that are read unless others are asked for."""


def read_grades(text: str) -> tuple[str, ...]:
    """The grades of rates that are wanted; ``decoded`` unless some are named.

    >>> read_grades("decoded,joint"), read_grades("")
    (('decoded', 'joint'), ('decoded',))
    """
    grades = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) or PROVEN
    for grade in grades:
        if grade not in GRADES:
            raise UnknownName("grade", grade, GRADES)
    return grades


def of_store(contents: Contents, members: Iterable[Member] | None = None, *, grades: Sequence[str] = PROVEN) -> Points:
    """The points of a whole store; or those that a command's plan names, in its order.

    ``grades`` are those that are wanted (`rdpbench.codecs.contract.GRADES`); labels of others than ``decoded`` say so.
    """
    scores, sets, unread = readable(contents)
    if members is not None:
        planned = [(contents.rows.get(member.task_key), member) for member in members]
        rows, notes = _graded([_as(row, member) for row, member in planned if row], grades)
        return gather(rows, scores, sets, [*notes, *unread])
    rows, notes = _newest(_placed(contents))
    # Of sets of one name, which files are which.
    roots: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        roots[row.dataset].setdefault(row.manifest, row.root)
    for name, lies in roots.items():
        for manifest, root in lies.items() if len(lies) > 1 else ():
            notes.append(f"{name}, files {manifest[:8]}: {root or 'not known where'}")
    rows, left_out = _graded(rows, grades)
    return gather(rows, scores, sets, [*notes, *left_out, *unread])


def _graded(rows: Iterable[Row], grades: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows of the grades that are wanted, with a mark in the label; and what is left out."""
    kept: list[Row] = []
    others: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if (row.grade or "decoded") in grades:
            kept.append(row if row.proven else replace(row, codec=f"{row.codec} ({row.grade})"))
        else:
            others[row.codec, row.grade] += 1
    shown = ",".join(dict.fromkeys((*grades, *(grade for _, grade in others))))
    return kept, [
        f"{codec}: {count} rows of grade {grade} are left out, since no decoder makes their pictures from their bytes; "
        f"tables, figures and the report show them with grades={shown}"
        for (codec, grade), count in others.items()
    ]


def standing(contents: Contents) -> set[tuple[str, Place]]:
    """Task keys with the places whose state is the newest of their set: a folder may go back to an earlier one."""
    return {(row.task_key, Place.of(row)) for row in _newest(_placed(contents))[0]}


def _placed(contents: Contents) -> list[tuple[str, Row]]:
    """Rows at all places that they belong to, each with the session that named it."""
    named = [(contents.rows.get(member.task_key), member) for member in contents.members.values()]
    members = [(member.session, _as(row, member)) for row, member in named if row]
    return [*((row.session, row) for row in contents.rows.values()), *members]


def _as(row: Row, member: Member) -> Row:
    """A row as a member of a point."""
    if Place.of(row) == Place.of(member):
        return row
    said = {name: getattr(member, name) for name in ("dataset_size", "manifest_kind", "tags")}
    return replace(row, **Place.of(member)._asdict(), **said)


def _newest(pairs: Sequence[tuple[str, Row]]) -> tuple[list[Row], list[str]]:
    """Without rows of a state that a set of the user's, or a source of captions, no longer has.

    A session's name sorts behind all that were in its store before, so the newest is told without a clock.
    """
    stated: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _, row in pairs:
        if row.root:
            stated[row.dataset, row.manifest].add(row.root)

    def roots(row: Row) -> set[str]:
        """Where a row's set lies, which earlier versions did not say; two folders of one name are two sets."""
        return {row.root} if row.root else stated[row.dataset, row.manifest] or {""}

    latest: dict[tuple[str, str, str], dict[tuple[str, str, str], str]] = defaultdict(dict)
    for session, row in pairs:
        states = latest[row.dataset, row.protocol, row.codec]
        for root in roots(row):
            state = row.manifest, row.caption_source, root
            states[state] = max(states.get(state, ""), session)

    def stands(row: Row, root: str) -> bool:
        states = latest[row.dataset, row.protocol, row.codec]
        mine = row.manifest, row.caption_source
        return all(
            session <= states[*mine, root] or (manifest, source) == mine or not (other == root or "" in (other, root))
            for (manifest, source, other), session in states.items()
        )

    rows = [row for _, row in pairs if any(stands(row, root) for root in roots(row))]
    number = len(pairs) - len(rows)
    note = f"{number} rows are of files or captions of a dataset that changed since, and are left out"
    return rows, [note] if number else []


def gather(
    rows: Iterable[Row], scores: Iterable[Score], sets: Iterable[SetScore] = (), notes: Iterable[str] = ()
) -> Points:
    """Points out of rows, each of which states its place, with the scores and values that are current."""
    notes = list(notes)
    groups: dict[tuple[Where, str, Setting], dict[str, Row]] = {}
    for row in rows:  # two folders with the same files are one set, and name a row twice
        groups.setdefault((Where.of(row), row.codec, row.setting), {}).setdefault(row.task_key, row)
    points, older = [], 0
    for (where, codec, setting), members in groups.items():
        current, note = _current(list(members.values()))
        if note:
            notes.append(f"{codec}, {setting.words}, on {where.dataset}: {note}")
        else:
            once = _once(current)
            older += len(members) - len(once)
            points.append(Point(where, codec, setting, tuple(once)))
    points, stale = _one_edition(points)
    points, suspect = _proven(points)
    if older:
        notes.append(f"{older} rows of earlier versions of codecs, or of images that changed since, are left out")
    notes += [*stale, *suspect]
    current_scores, current_sets = _current_scores(points, scores, notes), _current_sets(points, sets, notes)
    return Points(tuple(points), tuple(notes), current_scores, current_sets, _names(points))


def _proven(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Without points of a codec if one of its bitstreams did not give its pixels in a fresh process, until others do.

    What it hides between encoding and decoding it may hide for the others, too.
    """
    refuted = Counter(point.codec for point in points for row in point.rows if row.verified == "refuted")
    doubted = [
        point for point in points if refuted[point.codec] and any(row.verified != "fresh_process" for row in point.good)
    ]
    shipped = {point.codec for point in points if point.rows[0].use in registry.BUILTIN["codec"]}
    notes = [
        f"{codec}: {number} of its bitstreams did not give their pixels in a fresh process, so "
        f"{', '.join(point.setting.words for point in doubted if point.codec == codec)} has no mean until all others "
        "do; type: rdpbench verify RUN --all" + ("" if codec in shipped else " codec=FILE:CLASS, which is your own")
        for codec, number in refuted.items()
        if any(point.codec == codec for point in doubted)
    ]
    return [point for point in points if point not in doubted], notes


def _names(points: Iterable[Point]) -> dict[tuple[Where, str], str]:
    """Names of images that are under one id, and not the same pixels."""
    pixels: dict[tuple[Where, str], set[str]] = defaultdict(set)
    for point in points:
        for row in point.good:
            pixels[point.where, row.image].add(row.pixel_sha256)
    return {
        (point.where, row.task_key): f"{row.image} ({row.pixel_sha256[:8]})"
        for point in points
        for row in point.good
        if len(pixels[point.where, row.image]) > 1
    }


def _once(rows: Sequence[Row]) -> list[Row]:
    """Of an image that was read with other pixels, or got another text, the newest, for all seeds alike."""
    ordered = sorted(rows, key=lambda row: (row.session, row.time))
    state = {row.image: (row.pixel_sha256, row.caption) for row in ordered}
    of_state = [row for row in ordered if (row.pixel_sha256, row.caption) == state[row.image]]
    keys = set({(row.image, row.seed): row.task_key for row in of_state}.values())
    return [row for row in rows if row.task_key in keys]


def edition_of(row: Row) -> tuple[str, ...]:
    """What coded a row; where a codec in an environment of its own lies is none of it."""
    reference = registry.parse(row.use)
    return (
        reference.short if reference.apart else row.use,
        _keyed(row.configuration) or row.options,
        row.coder,
        row.weights,
    )


@lru_cache(maxsize=1024)
def _keyed(configuration: str) -> str:
    """Of a configuration what is in the codec's key: the rest may differ from rate to rate, or tells nothing."""
    if AS_RAN not in configuration:
        return configuration
    return json.dumps({name: value for name, value in json.loads(configuration).items() if name != AS_RAN})


def _current(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows of one edition of the codec; none, with the reason, where it cannot be told which is current."""
    editions = grouped(rows, edition_of)
    if len(editions) == 1:
        return list(rows), ""
    parts = {edition: {(row.image, row.seed) for row in members} for edition, members in editions.items()}
    newest = max(rows, key=lambda row: (row.session, row.time))
    if registry.parse(newest.use).apart:  # nobody asks an interpreter that rows name what it has now
        return editions[edition_of(newest)], ""
    chosen = _chosen(parts, [edition for edition, members in editions.items() if is_installed(members[0])])
    if chosen is not None:
        return editions[chosen], ""
    # What tells an edition from the others.
    unlike = [number for number, values in enumerate(zip(*editions, strict=True)) if len(set(values)) > 1]
    listed = "; ".join(", ".join(edition[number] for number in unlike) for edition in editions)
    return [], f"{len(editions)} versions of the codec are stored, and none of them is installed: {listed}. No number"


def _chosen(parts: Mapping[K, set[Any]], installed: Sequence[K]) -> K | None:
    """The edition that is installed; else the only one that has everything; else none."""
    if len(installed) == 1:
        return installed[0]
    every = set().union(*parts.values())
    whole = [edition for edition, part in parts.items() if part == every]
    return whole[0] if len(whole) == 1 else None


def is_installed(row: Row) -> bool | None:
    """Would what is installed here make this row? None if that cannot be told, as of a codec that is not here."""
    try:
        if row.use in registry.BUILTIN["codec"]:
            with registry.installed_only():  # options name codecs, too
                return _key_now(row) == row.task_key
        # Of a codec of the user's the sources are read, and never executed: a row may come from anywhere.
        same = bool(stated_source(row)) and registry.source_now("codec", row.use) == stated_source(row)
        return same and files_now(row.files)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return None


def _environment(row: Row) -> dict[str, str]:
    """What coded a row in an environment of its own, but for files, of which each rate point may have one."""
    return {name: text for name, text in json.loads(row.coder).items() if not name.startswith("file ")}


def stated_source(row: Row) -> str:
    """Hash of the file that a codec of the user's was, when it made a row."""
    try:
        return str(json.loads(row.coder).get("source_sha256", ""))
    except (ValueError, AttributeError):
        return ""


def _key_now(row: Row) -> str:
    codec = CodecSetting(row.codec, row.use, tuple(sorted(json.loads(row.options).items())), ())
    caption = row.caption if row.caption_source else None
    image = row.protocol, row.image, row.pixel_sha256
    return key_of(identity_at(codec, row.setting), row.setting, row.seed, *image, caption, row.tolerance)


def _one_edition(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Without points of an edition that is not installed, on a curve that has points of the installed one."""
    curves = grouped(points, lambda point: (point.where, point.codec))
    keep, notes = list(points), []
    for (where, codec), along in curves.items():
        if len({edition_of(point.rows[0]) for point in along}) == 1:
            continue
        newest = max((point.rows[0] for point in along), key=lambda row: (row.session, row.time))
        states: dict[int, bool | None]
        if registry.parse(newest.use).apart:
            states = {id(point): _environment(point.rows[0]) == _environment(newest) for point in along}
        else:
            # A checkpoint for each rate makes many editions, all of them installed.
            states = {id(point): is_installed(point.rows[0]) for point in along}
        if True in states.values() and (stale := [point for point in along if states[id(point)] is False]):
            keep = [point for point in keep if point not in stale]
            names = ", ".join(point.setting.words for point in stale)
            notes.append(f"{codec} on {where.dataset}: {names}: coded by an earlier version, and left out")
    return keep, notes


def _current_scores(
    points: Iterable[Point], scores: Iterable[Score], notes: list[str]
) -> dict[tuple[Where, str], dict[str, Score]]:
    """One edition of each metric for all points of a place."""
    places: dict[str, dict[Where, None]] = defaultdict(dict)
    for point in points:
        for row in point.rows:
            places[row.task_key][point.where] = None
    groups: dict[tuple[Where, str], list[Score]] = defaultdict(list)
    for score in scores:
        for where in places.get(score.task_key, ()):
            groups[where, score.metric].append(score)
    current: dict[tuple[Where, str], dict[str, Score]] = defaultdict(dict)
    for (where, metric), members in groups.items():
        chosen, note = _edition_of_scores(metric, members)
        if note:
            notes.append(f"{metric} on {where.dataset}: {note}")
        for score in chosen:
            current[where, score.task_key][metric] = score
    return current


def _edition_of_scores(metric: str, scores: Sequence[Score]) -> tuple[list[Score], str]:
    editions = grouped(scores, lambda score: score.definition)
    tasks = {edition: {score.task_key for score in members} for edition, members in editions.items()}
    now = definition_now(metric) if len(editions) > 1 else next(iter(editions))
    if len(editions) > 1 and now and "" in editions and metric not in registry.meanings:
        return _edition_of_scores(metric, [_with_definition(score, now) for score in scores])
    chosen = _chosen(tasks, [now] if now in editions else [])
    if chosen is None:
        listed = "; ".join(f"{name or 'not stated'} of {len(keys)} images" for name, keys in tasks.items())
        return [], f"{len(editions)} versions of it are stored, and none of them is installed: {listed}. No number"
    current, stale = _one_reference(editions[chosen])
    missing = len(set().union(*tasks.values())) - len(current)
    why = "other captions or label maps" if stale else f"another version than {chosen}"
    note = f"{missing} scores are of {why}, and left out; `rdpbench score` makes them again"
    return current, note if missing else ""


def _one_reference(scores: Sequence[Score]) -> tuple[list[Score], bool]:
    """The newest of scores against several captions or label maps of an image; and whether there are older ones."""
    ordered = sorted(scores, key=lambda score: (score.session, score.score_key))
    by_task = grouped(ordered, lambda score: score.task_key)
    if len(by_task) == len(scores):
        return list(scores), False
    older = {score.session for along in by_task.values() for score in along[:-1]}
    return [along[-1] for along in by_task.values() if len(along) > 1 or along[-1].session not in older], True


def _with_definition(score: Score, now: str) -> Score:
    """A score that does not say its edition is of the installed one if it has its key."""
    if score.definition:
        return score
    same = score_key(score.task_key, score.metric) == score.score_key
    return replace(score, definition=now if same else "not stated")


def _current_sets(
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
    current: dict[tuple[Where, str], SetScore] = {}
    for (where, metric), scores in groups.items():
        editions: dict[str, set[str]] = defaultdict(set)
        for score in scores:
            editions[score.definition].add(score.point_key)
        now = definition_now(metric) if len(editions) > 1 else ""
        chosen = _chosen(editions, [now] if now in editions else [])
        if chosen is None and scores:
            listed = f"{len(editions)} versions of it are stored ({', '.join(sorted(editions))}), none installed"
            notes.append(f"{metric} on {where.dataset}: {listed}. No number")
        current |= {(where, score.point_key): score for score in scores if score.definition == chosen}
    return current

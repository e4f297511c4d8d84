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
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.assets.hashes import files_changed
from rdpbench.codecs.contract import GRADES
from rdpbench.errors import RdpbenchError, check_names, few
from rdpbench.results.stats.meanings import readable
from rdpbench.results.stats.points import Point, Points, Where, grouped
from rdpbench.results.stats.scored import chosen_edition, current_scores, current_sets
from rdpbench.results.store.calls import (
    FROM_ENVIRONMENT,
    CodecFiles,
    codec_named,
    codec_now,
    is_of_other_files,
    is_of_rates,
    label_of,
    stated_source,
)
from rdpbench.results.store.columns import Codes, Mask, Places, agree, groups_of, joined, ranks, split_by
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import identity_at, key_of
from rdpbench.results.store.records import Records, Rows
from rdpbench.results.store.schema import AS_RAN, Place, Row, Score, SetScore
from rdpbench.setting import CodecSetting, Setting, with_option

PROVEN = ("decoded",)
"""The grades that are read unless others are asked for."""


def read_grades(text: str) -> tuple[str, ...]:
    """The grades of rates that are wanted; ``decoded`` unless some are named.

    >>> read_grades("decoded,joint"), read_grades("")
    (('decoded', 'joint'), ('decoded',))
    """
    grades = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) or PROVEN
    check_names("grade", grades, GRADES)
    return grades


class Membership(NamedTuple):
    """Tasks at the places that a command gives them, in its order."""

    keys: Sequence[str]
    """Of the tasks."""
    columns: Mapping[str, Codes | NDArray[Any]]
    """What a `Member` says of them, under its names: one place each; ``dataset_size`` as numbers."""


def of_store(contents: Contents, named: Membership | None = None, *, grades: Sequence[str] = PROVEN) -> Points:
    """The points of a whole store; or those that a command's plan names, in its order.

    ``grades`` are those that are wanted (`rdpbench.codecs.contract.GRADES`); labels of others than ``decoded`` say so.
    """
    contents.of_kind("score").look_up(contents.of_kind("row"))
    good, sets, unread = readable(contents)
    unread += [
        f"{name} is gone from the run's folder, and what it held is in none of these numbers; put it back from a copy, "
        "or type the command that made it again"
        for name in contents.missing
    ]
    scores = contents.of_kind("score"), good
    if named is not None:
        places = contents.of_kind("row").locate(named.keys)
        there = places >= 0
        columns = {n: c.of(there) if isinstance(c, Codes) else c[there] for n, c in named.columns.items()}
        rows, notes = _graded(_as(contents.of_kind("row"), places[there], columns), grades)
        return _gather(rows, *scores, sets, [*notes, *unread], contents.folder)
    rows, sessions, _ = _placed(contents)
    stands = _newest(rows, sessions)
    notes = []
    if left_out := int((~stands).sum()):
        notes.append(f"{left_out} rows are of files or captions of a dataset that changed since, and are left out")
    rows, sessions = rows.where(stands), sessions.of(stands)
    # Of sets of one name, which files are which.
    roots: dict[str, dict[str, str]] = defaultdict(dict)
    texts = [rows.codes(name) for name in ("dataset", "manifest", "root")]
    _, first = groups_of([column.codes for column in texts])
    for name, manifest, root, call in zip(*(c.of(first).texts() for c in (*texts, sessions)), strict=True):
        roots[name].setdefault(manifest, f"{root}, a folder that sessions/{call}.json tells" if root else "")
    for name, lies in roots.items():
        for manifest, root in lies.items() if len(lies) > 1 else ():
            notes.append(f"{name}, files {manifest[:8]}: {root or 'not known where'}")
    rows, ungraded = _graded(rows, grades)
    return _gather(rows, *scores, sets, [*notes, *ungraded, *unread], contents.folder)


def gather(
    rows: Iterable[Row], scores: Iterable[Score], sets: Iterable[SetScore] = (), notes: Iterable[str] = ()
) -> Points:
    """Points out of rows, each of which states its place, with the scores and values that are current."""
    listed = list(rows)
    first: dict[str, Row] = {}
    for row in listed:
        first.setdefault(row.task_key, row)
    records: Records[Row] = Records("row", first)
    numbers = {key: number for number, key in enumerate(first)}
    own = Rows.of(listed)
    stated = {name: own.codes(name) for name in _PLACE_TEXTS} | {
        "dataset_size": own.numbers("dataset_size").astype(int)
    }
    places = np.array([numbers[row.task_key] for row in listed], np.int64)
    stored: Records[Score] = Records("score", {str(number): score for number, score in enumerate(scores)})
    return _gather(Rows(records, places, stated), stored, np.ones(len(stored), bool), sets, notes)


_PLACE_TEXTS = (*Place._fields, "manifest_kind", "tags")


def _graded(rows: Rows, grades: Sequence[str]) -> tuple[Rows, list[str]]:
    """Rows of the grades that are wanted, with a mark in the label; and what is left out."""
    labels, grade = rows.codes("codec"), rows.codes("grade")
    groups, first = groups_of([labels.codes, grade.codes])
    kept = np.ones(len(first), bool)
    names: list[str] = []
    others: Counter[tuple[str, str]] = Counter()
    for number, (codec, of_rate) in enumerate(zip(labels.of(first).texts(), grade.of(first).texts(), strict=True)):
        names.append(codec if of_rate in ("decoded", "") else f"{codec} ({of_rate})")
        if (of_rate or "decoded") not in grades:
            kept[number] = False
            others[codec, of_rate] += int((groups == number).sum())
    shown = ",".join(dict.fromkeys((*grades, *(of_rate for _, of_rate in others))))
    notes = [
        f"{codec}: {count} rows of grade {of_rate} are left out, since no decoder makes their pictures from their "
        f"bytes; tables, figures and the report show them with grades={shown}"
        for (codec, of_rate), count in others.items()
    ]
    if kept.all() and names == labels.of(first).texts():
        return rows, notes
    return rows.stating(codec=Codes(groups.astype(np.int32), names)).where(kept[groups]), notes


def standing(contents: Contents) -> tuple[Mask, Mask]:
    """Which rows at their own place, and which members, are of a state of their set that is the newest.

    A folder may go back to an earlier one. Both in the order of what is stored.
    """
    rows, sessions, there = _placed(contents)
    stands = _newest(rows, sessions)
    size = len(contents.rows)
    members = there.copy()
    members[there] = stands[size:]
    return stands[:size], members


def _placed(contents: Contents) -> tuple[Rows, Codes, Mask]:
    """Rows at all places that they belong to, each with the session that named it: first all rows at their own.

    Also which members have a row.
    """
    records, members = contents.of_kind("row"), contents.of_kind("member")
    own = Rows(records, np.arange(len(records)), {})
    if not members:
        return own, records.codes("session"), np.zeros(0, bool)
    places = records.locate(members.strings("task_key"))
    there = places >= 0
    columns: dict[str, Codes | NDArray[Any]] = {name: members.codes(name).of(there) for name in _PLACE_TEXTS}
    columns["dataset_size"] = members.numbers("dataset_size")[there]
    named = _as(records, places[there], columns)
    stated: dict[str, Codes | NDArray[Any]] = {
        name: joined([own.codes(name), named.codes(name)]) for name in _PLACE_TEXTS
    }
    stated["dataset_size"] = np.r_[own.numbers("dataset_size"), named.numbers("dataset_size")].astype(int)
    sessions = joined([records.codes("session"), members.codes("session").of(there)])
    return Rows(records, np.r_[own.places, named.places], stated), sessions, there


def _as(records: Records[Row], places: Places, columns: Mapping[str, Codes | NDArray[Any]]) -> Rows:
    """Rows as members of points: where one says the place that the row says, all that the row says stands."""
    own = Rows(records, places, {})
    same = np.ones(len(places), bool)
    pairs: dict[str, Codes] = {}
    for name in _PLACE_TEXTS:
        theirs = columns[name]
        assert isinstance(theirs, Codes)
        pairs[name] = joined([own.codes(name), theirs])
        if name in Place._fields:
            same &= pairs[name].codes[: len(places)] == pairs[name].codes[len(places) :]
    if same.all():
        return own
    stated: dict[str, Codes | NDArray[Any]] = {}
    for name, pair in pairs.items():
        stated[name] = Codes(np.where(same, pair.codes[: len(places)], pair.codes[len(places) :]), pair.names)
    sizes = columns["dataset_size"]
    assert not isinstance(sizes, Codes)
    stated["dataset_size"] = np.where(same, own.numbers("dataset_size"), sizes).astype(int)
    return own.stating(**stated)


def _newest(rows: Rows, sessions: Codes) -> Mask:
    """Which rows are not of a state that a set of the user's, or a source of captions, no longer has.

    A session's name sorts behind all that were in its store before, so the newest is told without a clock.
    """
    columns = [rows.codes(name) for name in ("dataset", "protocol", "codec", "manifest", "caption_source", "root")]
    groups, first = groups_of([column.codes for column in columns])
    states = list(zip(*(column.of(first).texts() for column in columns), strict=True))
    # Of each state the last session.
    order = ranks(sessions.names)
    last = np.full(len(first), -1, np.int64)
    np.maximum.at(last, groups, order[sessions.codes])
    stated: dict[tuple[str, str], set[str]] = defaultdict(set)
    for dataset, _, _, manifest, _, root in states:
        if root:
            stated[dataset, manifest].add(root)

    def roots(dataset: str, manifest: str, root: str) -> set[str]:
        """Where a set lies, which earlier versions did not say; two folders of one name are two sets."""
        return {root} if root else stated[dataset, manifest] or {""}

    latest: dict[tuple[str, str, str], dict[tuple[str, str, str], int]] = defaultdict(dict)
    for (dataset, protocol, codec, manifest, source, root), session in zip(states, last.tolist(), strict=True):
        of_curve = latest[dataset, protocol, codec]
        for place in roots(dataset, manifest, root):
            state = manifest, source, place
            of_curve[state] = max(of_curve.get(state, -1), session)

    def stands(dataset: str, protocol: str, codec: str, manifest: str, source: str, root: str) -> bool:
        of_curve, mine = latest[dataset, protocol, codec], (manifest, source)
        return any(
            all(
                session <= of_curve[*mine, place] or (other, text) == mine or not (at == place or "" in (at, place))
                for (other, text, at), session in of_curve.items()
            )
            for place in roots(dataset, manifest, root)
        )

    return np.array([stands(*state) for state in states], bool)[groups]


def _gather(
    rows: Rows,
    scores: Records[Score],
    good: Mask,
    sets: Iterable[SetScore],
    noted: Iterable[str],
    folder: Path | None = None,
) -> Points:
    """Points of rows of a run's folder at their places; of the scores those count that are ``good``."""
    notes, points, older = list(noted), [], 0
    editions = _editions(rows)
    edition_of_point: dict[int, tuple[str, ...]] = {}
    for where, codec, setting, places in _split(rows):
        members = rows.where(places)
        current, note = _current(members, editions.of(places), folder)
        if note:
            notes.append(f"{codec}, {setting.words}, on {where.dataset}: {note}")
            continue
        once = current[_once(members.where(current))]
        older += len(members) - len(once)
        point = Point(where, codec, setting, members.where(once))
        edition_of_point[id(point)] = editions.of(places).of(once[:1]).names_of()[0]
        points.append(point)
    points, stale = _one_edition(points, edition_of_point, folder)
    points, suspect = _proven(_one_kind(points))
    if older:
        notes.append(f"{older} rows of earlier versions of codecs, or of images that changed since, are left out")
    notes += [*stale, *suspect]
    names = names_of(points)
    points = [with_names(point, names) for point in points]
    of_pairs = current_scores(points, rows.records, scores, good, notes)
    of_sets = current_sets(points, sets, notes)
    return Points(tuple(points), tuple(notes), rows.records, scores, of_pairs, of_sets, names)


def _split(rows: Rows) -> list[tuple[Where, str, Setting, Places]]:
    """What each point consists of, in the order in which they appear; a row that is named twice is there once."""
    texts = [rows.codes(name) for name in ("dataset", "manifest", "protocol", "codec", "rate_field")]
    target = rows.numbers("target_bpp")
    # Where a target was searched, each image has a rate of its own.
    rate = np.where(np.isnan(target), rows.numbers("rate"), math.nan)
    if not len(rows):
        return []
    groups, first = groups_of([*(column.codes for column in texts), rate, target])
    # Two folders with the same files are one set, and name a row twice.
    _, once = np.unique(groups * (int(rows.places.max()) + 1) + rows.places, return_index=True)
    if len(once) < len(rows):
        once.sort()
        parts = [once[places] for places in split_by(groups[once], len(first))]
    else:
        parts = split_by(groups, len(first))
    stated = zip(
        *(column.of(first).texts() for column in texts),
        rate[first].tolist(),
        target[first].tolist(),
        parts,
        strict=True,
    )
    return [
        (Where(dataset, manifest, protocol), codec, Setting(field, _number(at), _number(wanted)), places)
        for dataset, manifest, protocol, codec, field, at, wanted, places in stated
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


SEARCHED = "search=image"
"""In the label of points that were searched for each image, where the same codec has others, too."""


def _one_kind(points: Sequence[Point]) -> list[Point]:
    """Points at native settings and points of targets as two curves: one has a rate for all images, the other not."""
    native = {(point.where, point.codec) for point in points if point.setting.target is None}
    return [
        _labelled(point) if point.setting.target is not None and (point.where, point.codec) in native else point
        for point in points
    ]


def _labelled(point: Point) -> Point:
    label = with_option(point.codec, SEARCHED)
    rows = point.rows.stating(codec=Codes(np.zeros(len(point.rows), np.int32), [label]))
    return replace(point, codec=label, rows=rows)


def _proven(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Without points of a codec if one of its bitstreams did not give its pixels in a fresh process, until others do.

    What it hides between encoding and decoding it may hide for the others, too.
    """
    refuted: Counter[str] = Counter()
    for point in points:
        if number := int(point.rows.codes("verified").where("refuted".__eq__).sum()):
            refuted[point.codec] += number
    doubted = [
        point
        for point in points
        if refuted[point.codec] and not point.good.codes("verified").where("fresh_process".__eq__).all()
    ]
    shipped = {point.codec for point in points if point.rows[0].use in registry.BUILTIN["codec"]} if refuted else set()
    notes = [
        f"{codec}: {number} of its bitstreams did not give their pixels in a fresh process, so "
        f"{', '.join(point.setting.words for point in doubted if point.codec == codec)} has no mean until all others "
        "do; type: rdpbench verify RUN --all" + ("" if codec in shipped else " codec=FILE:CLASS, which is your own")
        for codec, number in refuted.items()
        if any(point.codec == codec for point in doubted)
    ]
    return [point for point in points if point not in doubted], notes


def names_of(points: Iterable[Point]) -> dict[tuple[Where, str], str]:
    """Names of images that are under one id, and not the same pixels."""
    names: dict[tuple[Where, str], str] = {}
    for where, here in grouped(points, lambda point: point.where).items():
        images, pixels = (joined([point.good.codes(name) for point in here]) for name in ("image", "pixel_sha256"))
        if agree(images, pixels):
            continue
        _, first = groups_of([images.codes, pixels.codes])
        count = np.bincount(images.codes[first], minlength=len(images.names))
        if twice := {images.names[number] for number in np.flatnonzero(count > 1)}:
            rows = (row for p in here for row in p.good.where(p.good.codes("image").where(twice.__contains__)))
            names |= {(where, row.task_key): f"{row.image} ({row.pixel_sha256[:8]})" for row in rows}
    return names


def with_names(point: Point, names: Mapping[tuple[Where, str], str]) -> Point:
    here = {key: name for (where, key), name in names.items() if where == point.where}
    return replace(point, names=here) if here else point


def _once(rows: Rows) -> Places:
    """Of an image that was read with other pixels, or got another text, the newest, for all seeds alike."""
    image, seed = rows.codes("image"), rows.numbers("seed")
    pixels, caption = rows.codes("pixel_sha256"), rows.codes("caption")
    each_once = len(groups_of([image.codes, seed])[1]) == len(rows)
    if each_once and agree(image, pixels, caption):
        return np.arange(len(rows))
    moments = list(zip(rows.codes("session").texts(), rows.texts("time"), strict=True))
    ordered = sorted(range(len(rows)), key=moments.__getitem__)
    states = list(zip(pixels.codes.tolist(), caption.codes.tolist(), strict=True))
    images, seeds = image.codes.tolist(), seed.tolist()
    state = {images[number]: states[number] for number in ordered}
    last = {(images[n], seeds[n]): n for n in ordered if states[n] == state[images[n]]}
    keys = set(rows.places[list(last.values())].tolist())
    return np.flatnonzero([place in keys for place in rows.places.tolist()])


# Editions of codecs


def _edition(use: str, configuration: str, options: str, coder: str, weights: str) -> tuple[str, ...]:
    """What coded a row; where a codec of the user's lies is none of it."""
    reference = registry.parse(use)
    name = f"{reference.short}{' in its environment' if reference.apart else ''}" if ":" in use else use
    return name, _keyed(configuration) or options, coder, weights


class _Editions(NamedTuple):
    """The edition of each row, as a number."""

    numbers: NDArray[np.int64]
    names: list[tuple[str, ...]]

    def of(self, places: Any) -> _Editions:
        return _Editions(self.numbers[places], self.names)

    def names_of(self) -> list[tuple[str, ...]]:
        return [self.names[number] for number in self.numbers.tolist()]


def _editions(rows: Rows) -> _Editions:
    columns = [rows.codes(name) for name in ("use", "configuration", "options", "coder", "weights")]
    if not len(rows):
        return _Editions(np.empty(0, np.int64), [])
    groups, first = groups_of([column.codes for column in columns])
    numbers: dict[tuple[str, ...], int] = {}
    named = zip(*(column.of(first).texts() for column in columns), strict=True)
    of_group = [numbers.setdefault(_edition(*texts), len(numbers)) for texts in named]
    return _Editions(np.array(of_group, np.int64)[groups], list(numbers))


@lru_cache(maxsize=1024)
def _keyed(configuration: str) -> str:
    """Of a configuration what is in the codec's key: the rest may differ from rate to rate, or tells nothing."""
    if AS_RAN not in configuration:
        return configuration
    return json.dumps({name: value for name, value in json.loads(configuration).items() if name != AS_RAN})


def _current(rows: Rows, editions: _Editions, folder: Path | None) -> tuple[Places, str]:
    """The rows of one edition of the codec; none, with the reason, where it cannot be told which is current."""
    there = list(dict.fromkeys(editions.numbers.tolist()))
    if len(there) == 1:
        return np.arange(len(rows)), ""
    of_image, _ = groups_of([rows.codes("image").codes, rows.numbers("seed")])
    members = {number: np.flatnonzero(editions.numbers == number) for number in there}
    newest = _last(rows)
    if registry.parse(rows[newest].use).apart:
        return members[int(editions.numbers[newest])], ""
    parts = {number: {*of_image[places].tolist()} for number, places in members.items()}
    installed = {number: is_installed(rows[int(members[number][0])], folder) for number in there}
    chosen = chosen_edition(parts, [number for number in there if installed[number]])
    if chosen is not None:
        return members[chosen], ""
    names = [editions.names[number] for number in there]
    columns = [_unlike(texts) for texts in zip(*names, strict=True) if len(set(texts)) > 1]
    listed = "; ".join(map(", ".join, zip(*columns, strict=True)))
    told = "it cannot be told which of them is" if None in installed.values() else "none of them is"
    told = f"{len(there)} versions of the codec are stored, and {told} installed"
    return np.empty(0, np.int64), f"{told}: {listed}. No number"


def _unlike(texts: Sequence[str]) -> list[str]:
    """What tells texts apart: of JSON the entries that differ, first those that all have."""
    if not all(text.startswith("{") for text in texts):
        return [*texts]
    records: list[dict[str, Any]] = [json.loads(text) for text in texts]
    names = dict.fromkeys(name for record in records for name in record)
    unlike = [name for name in names if any(record.get(name) != records[0].get(name) for record in records)]
    unlike.sort(key=lambda name: not all(name in record for record in records))
    return [few((f"{name} {record[name]}" for name in unlike if name in record), 3) or "{}" for record in records]


def _last(rows: Rows) -> int:
    """Which of some rows was stored last."""
    moments = list(zip(rows.codes("session").texts(), rows.texts("time"), strict=True))
    return max(range(len(rows)), key=moments.__getitem__)


def is_installed(row: Row, folder: Path | None = None) -> bool | None:
    """Would what is installed here make this row, of a run's folder? None if that cannot be told."""
    if registry.parse(row.use).apart:
        return None  # nobody asks an interpreter that rows name what it has now
    if FROM_ENVIRONMENT in row.coder:
        return None  # rows do not say what the environment held
    try:
        named = codec_now(folder, label_of(row)) or codec_named(folder, row)
        if named is None:  # nobody says where it lies
            return None
        use, options = named
        if use in registry.BUILTIN["codec"]:
            with registry.installed_only():  # options name codecs, too
                return _key_now(row, use, options) == row.task_key
        # Of a codec of the user's the sources are read, and never executed: a row may come from anywhere.
        same = bool(stated_source(row)) and registry.source_now("codec", use) == stated_source(row)
        return same and not files_changed(row.files, CodecFiles.of(use, options).path)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return None


def _environment(row: Row) -> dict[str, str]:
    """What coded a row, but for files and weights of which each rate point may have its own."""
    coder, options = (json.loads(text or "{}") for text in (row.coder, row.options))
    apart = registry.parse(row.use).apart

    def is_of_a_rate(name: str, text: str) -> bool:
        if name.startswith("file "):
            return is_of_rates(options.get(name.removeprefix("file ")))
        return not apart and name != "source_sha256" and _HASH.fullmatch(text) is not None

    return {name: text for name, text in coder.items() if not is_of_a_rate(name, str(text))}


_HASH = re.compile(r"([a-z0-9]+:)?[0-9a-f]{64}")
"""How coders state weights."""


def _key_now(row: Row, use: str, options: Mapping[str, Any]) -> str:
    codec = CodecSetting(row.codec, use, tuple(sorted(options.items())), ())
    caption = row.caption if row.caption_source else None
    image = row.protocol, row.image, row.pixel_sha256
    return key_of(identity_at(codec, row.setting), row.setting, row.seed, *image, caption, row.tolerance)


def _one_edition(
    points: Sequence[Point], editions: Mapping[int, tuple[str, ...]], folder: Path | None
) -> tuple[list[Point], list[str]]:
    """Without points of an edition that is not installed, on a curve that has points of the installed one.

    Where none is, or nobody can tell, points stand that have the newest one's versions: a curve mixes none.
    """
    curves = grouped(points, lambda point: (point.where, point.codec))
    keep, notes = list(points), []
    for (where, codec), along in curves.items():
        if len({editions[id(point)] for point in along}) == 1:
            continue
        newest = max((point.rows[_last(point.rows)] for point in along), key=lambda row: (row.session, row.time))
        # A checkpoint for each rate makes many editions, all of them installed.
        apart = registry.parse(newest.use).apart
        states = {} if apart else {id(point): is_installed(point.rows[0], folder) for point in along}
        if True not in states.values():
            states = {
                id(point): _environment(point.rows[0]) == _environment(newest)
                and not is_of_other_files(folder, point.rows[0])
                for point in along
            }
        if True in states.values() and (stale := [point for point in along if states[id(point)] is False]):
            keep = [point for point in keep if point not in stale]
            names = ", ".join(point.setting.words for point in stale)
            notes.append(f"{codec} on {where.dataset}: {names}: coded by another version than the others, and left out")
    return keep, notes

"""What a point is: decided here, for tables, figures, comparisons, the report, studies, the gate and `read_results`.

A point is one codec at one setting on one dataset under one protocol. A dataset is known by its manifest, not by its
name alone; a codec by what coded. Of what a run stores, only what is *current* is in a point:

- Of a set of the user's whose files changed, the newest state, curve by curve; two sets of one name stay two.
- Of a codec that was stored in several editions (another version, library, binary or checkpoint), the one that is
  installed. Where none of them is, the one that has all images; where several have, there is no number.
- Of a metric that was stored in several editions, the same, and one for all points of a dataset.

Nothing is ever a mean over a mixture. What is left out is said in ``notes``. A metric's value and the rate beside it
are means over the same images (`Taken`): those with a finite value. What is compared is compared over the images that
all have (`common`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.datasets.memory import files_now
from rdpbench.errors import RdpbenchError
from rdpbench.metrics.contract import Meaning, stated, weighed
from rdpbench.results.schema import AS_RAN, Member, Place, Row, Score, SetScore
from rdpbench.results.stats.meanings import definition_now, is_told, meaning, readable
from rdpbench.results.store import Contents
from rdpbench.setting import Setting

Floats = NDArray[np.float64]
K = TypeVar("K", bound=Hashable)

LEAST = 0.5
"""A point that has a smaller share of the images of the fullest is not compared with it."""


class Where(NamedTuple):
    """On what a point was measured: only points of one place are ever put side by side."""

    dataset: str
    manifest: str
    protocol: str

    @classmethod
    def of(cls, row: Row) -> Where:
        """What a row states."""
        return cls(row.dataset, row.manifest, row.protocol)


def titles(places: Sequence[Where]) -> dict[Where, str]:
    """What places are called: the dataset; where that is not enough, its protocol or the start of its manifest, too.

    >>> places = [Where("kodak", "12", "as-is"), Where("kodak", "12", "centre-crop-256")]
    >>> list(titles(places).values())
    ['kodak (as-is)', 'kodak (centre-crop-256)']
    """
    names = {}
    for where in places:
        same = [other for other in places if other.dataset == where.dataset]
        more = [where.protocol] if len({other.protocol for other in same}) > 1 else []
        more += [f"files {where.manifest[:8]}"] if len({other.manifest for other in same}) > 1 else []
        names[where] = f"{where.dataset} ({', '.join(more)})" if more else where.dataset
    return names


@dataclass(frozen=True, eq=False)
class Point:
    """One codec at one setting on one dataset, with its current rows."""

    where: Where
    codec: str
    """The curve's label."""
    setting: Setting
    rows: tuple[Row, ...]
    """All seeds and images, also those that failed or are out of range."""

    @property
    def good(self) -> list[Row]:
        """Rows that were coded."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def by_seed(self) -> dict[int, list[Row]]:
        """Rows that were coded, of each seed."""
        seeds: dict[int, list[Row]] = defaultdict(list)
        for row in self.good:
            seeds[row.seed].append(row)
        return seeds

    @property
    def random(self) -> bool:
        """By networks that nobody trained: no result, and compared with nothing."""
        return any("random" in row.weights for row in self.rows)


@dataclass(frozen=True)
class Taken:
    """Of what a metric's value of a point is made: image by image, in the order of their names."""

    images: tuple[str, ...]
    """Those with a finite value; seeds of an image count as their mean."""
    bpp: Floats
    pixels: Floats
    weighed: Floats
    """What the mean is taken of (`rdpbench.metrics.contract.weighed`); NaN for a metric of sets."""
    by_seed: Mapping[int, Mapping[str, tuple[float, float]]]
    """Rate and weighed value of each seed's images."""
    lossless: tuple[str, ...] = ()
    """Images whose value is infinite, which no mean can hold."""

    def of(self, images: Iterable[str]) -> Taken:
        """The same of these images alone."""
        wanted = set(images)
        keep = [number for number, image in enumerate(self.images) if image in wanted]
        seeds = {seed: {name: of[name] for name in of if name in wanted} for seed, of in self.by_seed.items()}
        names = tuple(self.images[number] for number in keep)
        return Taken(names, self.bpp[keep], self.pixels[keep], self.weighed[keep], seeds)


@dataclass(frozen=True)
class Points:
    """The current points of a run, or of a command, and their scores."""

    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()
    """What is left out, and why."""
    scores: Mapping[tuple[Where, str], Mapping[str, Score]] = field(default_factory=dict)
    """By place, task key and metric: those of the edition that is current there. Places may share tasks."""
    sets: Mapping[tuple[Where, str], SetScore] = field(default_factory=dict)
    """By place and `point_key`."""
    names: Mapping[tuple[Where, str], str] = field(default_factory=dict)
    """By place and task key, the name of an image; images under one id whose pixels differ have two names."""

    @property
    def rows(self) -> list[Row]:
        """All rows of all points."""
        return [row for point in self.points for row in point.rows]

    @property
    def metrics(self) -> list[str]:
        """What was measured, in the order of names."""
        of_pairs = {name for row in self.rows for name in self.scores_of(row)}
        return sorted(of_pairs | {score.metric for score in self.sets.values()})

    @property
    def places(self) -> list[Where]:
        """On what there are points, in their order."""
        return list(dict.fromkeys(point.where for point in self.points))

    def only(self, keep: Callable[[Point], bool]) -> Points:
        """Some of the points."""
        return replace(self, points=tuple(point for point in self.points if keep(point)))

    def at(self, where: Where) -> Points:
        """The points of one place."""
        return self.only(lambda point: point.where == where)

    def name(self, row: Row) -> str:
        """An image's name."""
        return self.names.get((Where.of(row), row.task_key), row.image)

    def scores_of(self, row: Row) -> Mapping[str, Score]:
        """A row's current scores, by metric."""
        return self.scores.get((Where.of(row), row.task_key), {})

    def score(self, row: Row, metric: str) -> Score | None:
        """A row's current score, if it has one."""
        return self.scores_of(row).get(metric)

    def value(self, row: Row, metric: str) -> float | None:
        """A row's current value in the unit of the metric; None where there is none that is a number."""
        score = self.score(row, metric)
        return score.value if score is not None and meaning(metric).usable(score.value) else None

    def taken(self, point: Point, metric: str, *, infinite: bool = False) -> Taken:
        """The images that a metric's value of a point is made of; without a metric, all that were coded.

        Args:
            point: of any place.
            metric: of pairs or of sets.
            infinite: instead of these the images that are left out of the mean, since they are lossless.
        """
        if metric and meaning(metric).kind == "set":
            return self._taken_by_set(point, metric)
        values: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        pixels: dict[str, float] = {}
        for row in point.good:
            value = self.value(row, metric) if metric else 0.0
            if value is not None and row.bpp is not None:
                weight = float(weighed(value, meaning(metric).averaged)) if metric else 0.0
                values[self.name(row)][row.seed] = row.bpp, weight
                pixels[self.name(row)] = float(row.height * row.width)
        lossless = tuple(sorted(name for name, of in values.items() if any(math.isinf(w) for _, w in of.values())))
        return _taken({name: of for name, of in values.items() if (name in lossless) == infinite}, pixels, lossless)

    def _taken_by_set(self, point: Point, metric: str) -> Taken:
        """The images of a distance; nothing if a seed has no value, or it is not known which images it is of."""
        values: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
        pixels: dict[str, float] = {}
        seeds = self.set_scores(point, metric)
        known = [score for score in seeds.values() if score is not None and score.value is not None]
        rows = Counter(row.seed for row in point.good)
        # Stores of earlier versions say only how many images a value is of.
        unknown = any(score and score.left_out is None and score.images != rows[seed] for seed, score in seeds.items())
        if len(known) < len(seeds) or unknown:
            return _taken({}, {}, ())
        for row in point.good:
            score = seeds[row.seed]
            if score is not None and row.bpp is not None and row.image not in json.loads(score.left_out or "[]"):
                values[self.name(row)][row.seed] = row.bpp, math.nan
                pixels[self.name(row)] = float(row.height * row.width)
        return _taken(values, pixels, ())

    def set_scores(self, point: Point, metric: str) -> dict[int, SetScore | None]:
        """Of each seed the value of a metric of sets."""
        return {seed: self.sets.get((point.where, point_key(metric, rows))) for seed, rows in point.by_seed.items()}


def _taken(
    values: Mapping[str, Mapping[int, tuple[float, float]]], pixels: Mapping[str, float], lossless: tuple[str, ...]
) -> Taken:
    images = tuple(sorted(values))
    means = [
        [math.fsum(part) / len(of) for part in zip(*of.values(), strict=True)] for of in map(values.get, images) if of
    ]
    array = np.array(means, np.float64).reshape(-1, 2)
    by_seed: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    for image in images:
        for seed, pair in values[image].items():
            by_seed[seed][image] = pair
    size = np.array([pixels[image] for image in images], np.float64)
    return Taken(images, array[:, 0], size, array[:, 1], by_seed, lossless)


def fingerprint(images: Iterable[str]) -> str:
    """What two means must share to be compared: their images.

    >>> fingerprint(["a", "b"]) == fingerprint(["b", "a"]), len(fingerprint([]))
    (True, 0)
    """
    names = sorted(images)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8] if names else ""


def point_key(metric: str, rows: Sequence[Row]) -> str:
    """sha256 over a metric's name and the images with their reconstructions: what a set's value is looked up by."""
    lines = sorted(f"{row.image} {row.pixel_sha256} {row.reconstruction_sha256}" for row in rows)
    return hashlib.sha256("\n".join([metric, *lines]).encode()).hexdigest()


# Comparing


@dataclass(frozen=True)
class Common:
    """What of several things can be compared, and over which images."""

    keys: tuple[Any, ...]
    images: frozenset[str]
    left_out: Mapping[Any, str] = field(default_factory=dict)
    """What is not compared, with the reason."""


def common(images: Mapping[K, Iterable[str]], *, fixed: bool = False) -> Common:
    """The images over which things can be compared: those that all have.

    Who lacks more than half of the images that the fullest has is left out, so that a short trial does not narrow the
    comparison of all others to its few images.

    Args:
        images: what each has.
        fixed: values are of all these images and of no fewer, as distances between sets are: equal sets or none.

    >>> found = common({"a": "1234", "b": "123", "c": "1"})
    >>> sorted(found.images), found.left_out
    (['1', '2', '3'], {'c': '1 of 4 images'})
    """
    sets = {key: frozenset(names) for key, names in images.items()}
    there = {key: names for key, names in sets.items() if names}
    left_out = dict.fromkeys((key for key in sets if key not in there), "no image")
    if not there:
        return Common((), frozenset(), left_out)
    most = max(there.values(), key=len)
    shared = frozenset.intersection(*(names for names in there.values() if len(names) >= LEAST * len(most)))
    if fixed or not shared:
        count = Counter(there.values())
        most = shared = max(count, key=lambda names: (len(names), count[names], sorted(names)))
        keep = [key for key, names in there.items() if names == shared]
    else:
        keep = [key for key, names in there.items() if len(names) >= LEAST * len(most)]
    for key in there.keys() - set(keep):
        other = "" if len(there[key]) < len(most) else "other "
        left_out[key] = f"{len(there[key])} {other}images" if other else f"{len(there[key])} of {len(most)} images"
    return Common(tuple(keep), shared, {key: left_out[key] for key in sets if key in left_out})


@dataclass(frozen=True)
class ImageCurve:
    """Rates and values of one metric, ``(points, images)``, NaN where there is none; points by rising mean rate."""

    codec: str
    settings: tuple[Setting, ...]
    images: tuple[str, ...]
    rates: Floats
    values: Floats
    """In the unit that the metric states."""

    def of(self, images: Sequence[str]) -> ImageCurve:
        """The same points on these images, in this order."""
        columns = [self.images.index(image) for image in images]
        return ImageCurve(self.codec, self.settings, tuple(images), self.rates[:, columns], self.values[:, columns])

    def complete(self, of: Meaning) -> tuple[str, ...]:
        """Images that have a rate at every point, and a value that the metric's mean can hold."""
        good = np.isfinite(self.rates).all(axis=0) & np.isfinite(weighed(self.values, of.averaged)).all(axis=0)
        return tuple(image for image, whole in zip(self.images, good, strict=True) if whole)


def image_curves(points: Points, metric: str) -> dict[str, ImageCurve]:
    """The curve of each codec under a metric of pairs, of the points of one place; seeds count as their mean.

    An image is complete where it has a value that the mean can hold: a lossless one has none under ``psnr``, and one
    under ``psnr-pooled``.
    """
    curves: dict[str, list[tuple[Setting, Taken]]] = {}
    for point in points.points:
        taken = points.taken(point, metric)
        if taken.images:
            curves.setdefault(point.codec, []).append((point.setting, taken))
    return {codec: _image_curve(codec, along, meaning(metric)) for codec, along in curves.items()}


def _image_curve(codec: str, along: Sequence[tuple[Setting, Taken]], means: Meaning) -> ImageCurve:
    images = sorted({image for _, taken in along for image in taken.images})
    place = {image: number for number, image in enumerate(images)}
    rates, values = (np.full((len(along), len(images)), math.nan) for _ in range(2))
    for number, (_, taken) in enumerate(along):
        columns = [place[image] for image in taken.images]
        rates[number, columns] = taken.bpp
        values[number, columns] = stated(taken.weighed, means.averaged)
    order = np.argsort(np.nanmean(rates, axis=1), kind="stable")
    return ImageCurve(codec, tuple(along[n][0] for n in order), tuple(images), rates[order], values[order])


# Gathering


def of_store(contents: Contents, members: Iterable[Member] | None = None) -> Points:
    """The points of a whole store; or those that a command's plan names, in its order."""
    unread: list[str] = []
    scores, sets = readable(contents, unread)
    if members is not None:
        rows = [_as(contents.rows[one.task_key], one) for one in members if one.task_key in contents.rows]
        return gather(rows, scores, sets, unread)
    rows, notes = _newest(_placed(contents))
    notes += _where_they_lie(rows)
    return gather(rows, scores, sets, [*notes, *unread])


def standing(contents: Contents) -> set[tuple[str, Place]]:
    """Task keys with the places whose state is the newest of their set: a folder may go back to an earlier one."""
    return {(row.task_key, Place.of(row)) for row in _newest(_placed(contents))[0]}


def _placed(contents: Contents) -> list[tuple[str, Row]]:
    """Rows at all places that they belong to, each with the session that named it."""
    named = [one for one in contents.members.values() if one.task_key in contents.rows]
    members = [(one.session, _as(contents.rows[one.task_key], one)) for one in named]
    return [*((row.session, row) for row in contents.rows.values()), *members]


def _where_they_lie(rows: Sequence[Row]) -> list[str]:
    """Of sets of one name, which files are which."""
    roots: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        roots[row.dataset].setdefault(row.manifest, row.root)
    lines = [(name, manifest, root) for name, of in roots.items() if len(of) > 1 for manifest, root in of.items()]
    return [f"{name}, files {manifest[:8]}: {root or 'not known where'}" for name, manifest, root in lines]


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
        groups.setdefault((Where.of(row), row.codec, Setting.of(row)), {}).setdefault(row.task_key, row)
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
    """What coded a row."""
    return row.use, _keyed(row.configuration) or row.options, row.coder, row.weights


@lru_cache(maxsize=1024)
def _keyed(configuration: str) -> str:
    """Of a configuration what is in the codec's key: the rest may differ from rate to rate, or tells nothing."""
    if AS_RAN not in configuration:
        return configuration
    return json.dumps({name: value for name, value in json.loads(configuration).items() if name != AS_RAN})


def _current(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """The rows of one edition of the codec; none, with the reason, where it cannot be told which is current."""
    editions: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        editions.setdefault(edition_of(row), []).append(row)
    if len(editions) == 1:
        return list(rows), ""
    parts = {edition: {(row.image, row.seed) for row in of} for edition, of in editions.items()}
    installed = [edition for edition, of in editions.items() if is_installed(of[0])]
    chosen = _chosen(parts, installed)
    if chosen is not None:
        return editions[chosen], ""
    told = "; ".join(_unlike(edition, list(editions)) for edition in editions)
    return [], f"{len(editions)} editions of the codec are stored, and none is the installed one: {told}. No number"


def _chosen(parts: Mapping[K, set[Any]], installed: Sequence[K]) -> K | None:
    """The edition that is installed; else the only one that has everything; else none."""
    if len(installed) == 1:
        return installed[0]
    every = set().union(*parts.values())
    whole = [edition for edition, part in parts.items() if part == every]
    return whole[0] if len(whole) == 1 else None


def _unlike(edition: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """What tells an edition from the others."""
    parts = [part for number, part in enumerate(edition) if len({other[number] for other in others}) > 1]
    return ", ".join(parts)


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


def stated_source(row: Row) -> str:
    """Hash of the file that a codec of the user's was, when it made a row."""
    try:
        return str(json.loads(row.coder).get("source_sha256", ""))
    except (ValueError, AttributeError):
        return ""


def _key_now(row: Row) -> str:
    # Keys are made by the runners, a layer above; they are asked only where editions contradict one another.
    from rdpbench.config import CodecSetting
    from rdpbench.runners.task import identity, identity_of_all, key_of

    setting = CodecSetting(row.codec, row.use, tuple(sorted(json.loads(row.options).items())), ())
    made = identity_of_all(setting) if row.target_bpp is not None else identity(setting, row.rate)
    rate = None if row.target_bpp is not None else row.rate
    caption = row.caption if row.caption_source else None
    return key_of(
        made, rate, row.target_bpp, row.seed, row.protocol, row.image, row.pixel_sha256, caption, row.tolerance
    )


def _one_edition(points: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """Without points of an edition that is not installed, on a curve that has points of the installed one."""
    curves: dict[tuple[Where, str], list[Point]] = {}
    for point in points:
        curves.setdefault((point.where, point.codec), []).append(point)
    keep, notes = list(points), []
    for (where, codec), along in curves.items():
        if len({edition_of(point.rows[0]) for point in along}) == 1:
            continue
        # A checkpoint for each rate makes many editions, all of them installed.
        states = {id(point): is_installed(point.rows[0]) for point in along}
        if True in states.values() and (stale := [point for point in along if states[id(point)] is False]):
            keep = [point for point in keep if point not in stale]
            names = ", ".join(point.setting.words for point in stale)
            notes.append(f"{codec} on {where.dataset}: {names}: coded by an earlier edition, and left out")
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
    for (where, metric), of in groups.items():
        chosen, note = _edition_of_scores(metric, of)
        if note:
            notes.append(f"{metric} on {where.dataset}: {note}")
        for score in chosen:
            current[where, score.task_key][metric] = score
    return current


def _edition_of_scores(metric: str, scores: Sequence[Score]) -> tuple[list[Score], str]:
    editions: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        editions[score.definition].append(score)
    tasks = {edition: {score.task_key for score in of} for edition, of in editions.items()}
    if len(editions) == 1:
        chosen = next(iter(editions))
    else:
        if editions.get("") and not is_told(metric) and (now := definition_now(metric)):  # of a store that did not say
            return _edition_of_scores(metric, [_with_definition(score, now) for score in scores])
        now = definition_now(metric)
        found = _chosen(tasks, [now] if now in editions else [])
        if found is None:
            told = "; ".join(f"{name or 'not stated'} of {len(of)} images" for name, of in tasks.items())
            return [], f"{len(editions)} editions of it are stored, and none is the installed one: {told}. No number"
        chosen = found
    current, stale = _one_reference(editions[chosen])
    missing = len(set().union(*tasks.values())) - len(current)
    why = "other captions or label maps" if stale else f"another edition than {chosen}"
    note = f"{missing} scores are of {why}, and left out; `rdpbench score` makes them again"
    return current, note if missing else ""


def _one_reference(scores: Sequence[Score]) -> tuple[list[Score], bool]:
    """The newest of scores against several captions or label maps of an image; and whether there are older ones."""
    by_task: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_task[score.task_key].append(score)
    if all(len(of) == 1 for of in by_task.values()):
        return list(scores), False
    ordered = {task: sorted(of, key=lambda score: (score.session, score.score_key)) for task, of in by_task.items()}
    older = {score.session for of in ordered.values() for score in of[:-1]}
    return [of[-1] for of in ordered.values() if len(of) > 1 or of[-1].session not in older], True


def _with_definition(score: Score, now: str) -> Score:
    """A score that does not say its edition is of the installed one if it has its key."""
    from rdpbench.runners.task import score_key_alone

    if score.definition:
        return score
    same = score_key_alone(score.task_key, score.metric) == score.score_key
    return replace(score, definition=now if same else "not stated")


def _current_sets(
    points: Sequence[Point], sets: Iterable[SetScore], notes: list[str]
) -> dict[tuple[Where, str], SetScore]:
    """Values of metrics of sets: one edition of each for all points of a place."""
    stored: dict[str, list[SetScore]] = defaultdict(list)
    for score in sorted(sets, key=lambda score: (score.time, score.set_key)):
        stored[score.point_key].append(score)
    metrics = sorted({score.metric for of in stored.values() for score in of})
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
            told = ", ".join(sorted(editions))
            told = f"{len(editions)} editions of it are stored ({told}), none installed. No number"
            notes.append(f"{metric} on {where.dataset}: {told}")
        current |= {(where, score.point_key): score for score in scores if score.definition == chosen}
    return current

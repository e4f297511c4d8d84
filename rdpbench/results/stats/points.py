"""What a point is, which rows and values it consists of, and which points can be compared.

A point is one codec at one setting on one dataset under one protocol. A dataset is known by its manifest, not by its
name alone; a codec by what coded. Tables, figures, comparisons, the report, studies, the gate and `read_results` take
their numbers from here. Of what a run stores, only what is current is in a point (`rdpbench.results.stats.current`).

A metric's value and the rate beside it are means over the same images (`Taken`): those with a finite value. Points
are compared over the images that all of them have (`common`).

A run of millions of rows is read in columns. Rows are objects only where somebody asks for one (`records.Rows`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.metrics.contract import Meaning, stated, weighed
from rdpbench.results.stats.bd import Floats
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.store.columns import Codes, Places, groups_of, ranks, split_by
from rdpbench.results.store.records import Records, Rows
from rdpbench.results.store.schema import Row, Score, SetScore, Status
from rdpbench.setting import Setting

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

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


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Things by what a key says of them, in their order.

    >>> grouped(["psnr", "lpips", "flip"], len)
    {4: ['psnr', 'flip'], 5: ['lpips']}
    """
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


@dataclass(frozen=True, eq=False)
class Point:
    """One codec at one setting on one dataset, with its current rows."""

    where: Where
    codec: str
    """The curve's label."""
    setting: Setting
    rows: Rows
    """All seeds and images, also those that failed or are out of range."""
    names: Mapping[str, str] = field(default_factory=dict)
    """By task key, the names of images that are under one id with several pixels."""

    @cached_property
    def good(self) -> Rows:
        """Rows that were coded."""
        return self.rows.where(self.rows.codes("status").where("ok".__eq__))

    @cached_property
    def images(self) -> Codes:
        """The images of its good rows, numbered in the order of their names."""
        column = self.good.codes("image")
        if self.names:
            keys = zip(self.good.texts("task_key"), column.texts(), strict=True)
            texts = [self.names.get(key, image) for key, image in keys]
            numbers = {name: number for number, name in enumerate(sorted({*texts}))}
            return Codes(np.array([numbers[text] for text in texts], np.int32), list(numbers))
        there = np.bincount(column.codes, minlength=len(column.names)) > 0
        names = column.names if there.all() else [column.names[number] for number in np.flatnonzero(there).tolist()]
        ordered = sorted(names)
        if ordered == column.names:  # of all points of a run that have all of its images, one list
            return column
        place = np.zeros(len(there), np.int32)
        place[there] = np.arange(len(names)) if ordered == names else ranks(names)
        return Codes(place[column.codes], ordered)

    @cached_property
    def by_seed(self) -> dict[int, Rows]:
        """Rows that were coded, of each seed."""
        groups, first = groups_of([self.good.numbers("seed")])
        seeds = self.good.numbers("seed")[first].astype(int).tolist()
        return dict(zip(seeds, map(self.good.where, split_by(groups, len(first))), strict=False)) if len(first) else {}

    @cached_property
    def random(self) -> bool:
        """By networks that nobody trained: no result, and compared with nothing."""
        return bool(self.rows.codes("weights").where(lambda kind: "random" in kind).any())

    @cached_property
    def grade(self) -> str:
        """How far its rate is proven (`rdpbench.codecs.contract.GRADES`); rows of two grades are two points."""
        return self.rows.where([0]).codes("grade").texts()[0] or "decoded"

    @property
    def competes(self) -> bool:
        """May it be ranked, or others be held against it: a trained codec whose decoder makes the picture?"""
        return not self.random and self.grade == "decoded"

    @cached_property
    def taken(self) -> dict[tuple[str, bool], Taken]:
        """What `Points.taken` gave of it."""
        return {}


class Images(tuple[str, ...]):
    """Names of images, rising. Points and metrics look up the same ones again and again, so they are hashed once."""

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True)
class Taken:
    """Of what a metric's value of a point is made: image by image, in the order of their names."""

    images: Images
    """Those with a finite value; seeds of an image count as their mean."""
    bpp: Floats
    pixels: Floats
    weighed: Floats
    """What the mean is taken of (`rdpbench.metrics.contract.weighed`); NaN for a metric of sets."""
    by_seed: Mapping[int, Mapping[str, tuple[float, float]]]
    """Where there are several seeds: rate and weighed value of each seed's images."""
    lossless: tuple[str, ...] = ()
    """Images whose value is infinite, which no mean can hold."""
    intervals: dict[str, tuple[float, float, float]] = field(default_factory=dict, compare=False)
    """What was computed of it: mean and interval of ``bpp`` and ``value``."""
    parts: dict[frozenset[str], Taken] = field(default_factory=dict, compare=False)
    """What `of` gave: tables ask for the same images again and again."""

    def of(self, images: Collection[str]) -> Taken:
        """The same of these images alone."""
        wanted = frozenset(images)
        if wanted not in self.parts:
            names, keep = _those_of(self.images, wanted)
            if len(keep) == len(self.images) and not self.lossless:
                self.parts[wanted] = self
            else:
                seeds = {seed: {name: of[name] for name in of if name in wanted} for seed, of in self.by_seed.items()}
                self.parts[wanted] = Taken(names, self.bpp[keep], self.pixels[keep], self.weighed[keep], seeds)
        return self.parts[wanted]


class Scored(NamedTuple):
    """The current scores of a metric at one place."""

    places: Places
    """Of rows among the run's records, rising."""
    scores: Places
    """Of their scores among the run's scores; -1 for none."""
    values: Floats
    """In the unit of the metric; NaN where there is none that is a number."""

    def at(self, places: Places) -> tuple[Places, Floats]:
        """Of rows at these places the places of their scores, and the values."""
        if not len(self.places):
            return np.full(len(places), -1), np.full(len(places), math.nan)
        first, last = int(self.places[0]), len(self.places) - 1
        if int(self.places[-1]) - first == last:  # all rows in between are here
            nearest = np.clip(places - first, 0, last)
        else:
            nearest = np.minimum(np.searchsorted(self.places, places), last)
        there = self.places[nearest] == places
        return np.where(there, self.scores[nearest], -1), np.where(there, self.values[nearest], math.nan)


@dataclass(frozen=True)
class Points:
    """The current points of a run, or of a command, and their scores."""

    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()
    """What is left out, and why."""
    records: Records[Row] = field(default_factory=lambda: Records("row"))
    """All rows of the run."""
    stored: Records[Score] = field(default_factory=lambda: Records("score"))
    """All scores."""
    scored: Mapping[tuple[Where, str], Scored] = field(default_factory=dict)
    """By place and metric the scores of the edition that is current there. Places may share rows."""
    sets: Mapping[tuple[Where, str], SetScore] = field(default_factory=dict)
    """By place and `point_key`."""
    names: Mapping[tuple[Where, str], str] = field(default_factory=dict)
    """By place and task key, the name of an image; images under one id whose pixels differ have two names."""

    @property
    def rows(self) -> list[Row]:
        """All rows of all points as objects: for a run of a few thousand."""
        return [row for point in self.points for row in point.rows]

    def with_status(self, status: Status) -> list[Row]:
        """The rows of all points that have a status."""
        return [row for p in self.points for row in p.rows.where(p.rows.codes("status").where(status.__eq__))]

    def rows_of(self, tasks: Collection[str]) -> Iterator[tuple[Point, Row]]:
        """The good rows of these tasks, in each point that they belong to."""
        places = self.records.locate(list(tasks))
        wanted = places[places >= 0]
        for point in self.points if len(wanted) else ():
            yield from ((point, row) for row in point.good.where(np.isin(point.good.places, wanted)))

    @cached_property
    def metrics(self) -> list[str]:
        """What was measured, in the order of names."""
        here = {point.where for point in self.points}
        of_pairs = {metric for (where, metric) in self.scored if where in here and self._has(where, metric)}
        return sorted(of_pairs | {score.metric for score in self.sets.values()})

    @cached_property
    def editions(self) -> dict[tuple[Where, str], set[str]]:
        """The editions of each metric whose values are current, by place and metric."""
        unstated = "not stated"  # values from before editions were stored
        editions: dict[tuple[Where, str], set[str]] = defaultdict(set)
        for key, scored in self.scored.items():
            there = scored.scores[scored.scores >= 0]
            editions[key].update(text or unstated for text in self.stored.codes("definition").of(there).used())
        for (where, _), score in self.sets.items():
            editions[where, score.metric].add(score.definition or unstated)
        return {key: own for key, own in editions.items() if own}

    def _has(self, where: Where, metric: str) -> bool:
        """Has any row of these points a score?"""
        scored = self.scored[where, metric]
        return any((scored.at(p.rows.places)[0] >= 0).any() for p in self.points if p.where == where)

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
        where, place = Where.of(row), self.records.locate([row.task_key])
        places = {m: int(scored.at(place)[0][0]) for (w, m), scored in self.scored.items() if w == where}
        there = {metric: number for metric, number in places.items() if number >= 0}
        return dict(zip(there, self.stored.at(list(there.values())), strict=True))

    def score(self, row: Row, metric: str) -> Score | None:
        """A row's current score, if it has one."""
        return self.scores_of(row).get(metric)

    def value(self, row: Row, metric: str) -> float | None:
        """A row's current value in the unit of the metric; None where there is none that is a number."""
        [value] = self.values(Where.of(row), self.records.locate([row.task_key]), metric).tolist()
        return None if math.isnan(value) else value

    def values(self, where: Where, places: Places, metric: str) -> Floats:
        """The same of rows at places of a run's records; NaN where there is none."""
        scored = self.scored.get((where, metric))
        return scored.at(places)[1] if scored else np.full(len(places), math.nan)

    def errors(self, where: Where, places: Places, metric: str) -> list[str]:
        """Why rows at these places have no score of a metric; empty where nothing is known."""
        texts = [""] * len(places)
        if scored := self.scored.get((where, metric)):
            numbers, values = scored.at(places)
            bad = np.flatnonzero((numbers >= 0) & np.isnan(values))
            for number, score in zip(bad.tolist(), self.stored.at(numbers[bad]), strict=True):
                texts[number] = score.error
        return texts

    def taken(self, point: Point, metric: str, *, infinite: bool = False) -> Taken:
        """The images that a metric's value of a point is made of; without a metric, all that were coded.

        ``infinite`` asks instead for those that are left out of the mean, since they are lossless.
        """
        if (metric, infinite) not in point.taken:
            point.taken[metric, infinite] = self._taken(point, metric, infinite=infinite)
        return point.taken[metric, infinite]

    def _taken(self, point: Point, metric: str, *, infinite: bool) -> Taken:
        good, images, size = point.good, point.images, len(point.images.names)
        weights = np.zeros(len(good))
        there = np.ones(len(good), bool)
        if metric and meaning(metric).kind == "set":
            there = self._kept(point, metric)
            weights = np.full(len(good), math.nan)
        elif metric:
            values = self.values(point.where, good.places, metric)
            there, weights = ~np.isnan(values), weighed(values, meaning(metric).averaged)
        # Pictures of somebody else may come without a rate, which is NaN.
        rows = np.flatnonzero(there)
        codes, weights, bpp = images.codes[rows], weights[rows], good.numbers("bpp")[rows]
        pixels = (good.numbers("height") * good.numbers("width"))[rows]
        lossless = np.zeros(size, bool)
        lossless[codes[np.isinf(weights)]] = True
        wanted = np.flatnonzero((np.bincount(codes, minlength=size) > 0) & (lossless == infinite))
        names = point_names(images, wanted)
        left = tuple(images.names[number] for number in np.flatnonzero(lossless))
        order = np.argsort(codes, kind="stable")
        order = order[(lossless == infinite)[codes[order]]]
        if len(order) == len(wanted):  # one seed each
            several: dict[int, dict[str, tuple[float, float]]] = {}
            seeds = good.numbers("seed")[rows][order]
            if len(np.unique(seeds)) > 1:
                several = _by_seed(names, seeds, bpp[order], weights[order])
            return Taken(names, bpp[order], pixels[order], weights[order], several, left)
        starts = np.searchsorted(codes[order], wanted)
        groups = np.split(order, starts[1:])
        means = [[math.fsum(column[group]) / len(group) for column in (bpp, weights)] for group in groups]
        array = np.array(means, np.float64).reshape(-1, 2)
        of_row = [images.names[number] for number in codes[order]]
        several = _by_seed(of_row, good.numbers("seed")[rows][order], bpp[order], weights[order])
        return Taken(names, array[:, 0], pixels[[group[-1] for group in groups]], array[:, 1], several, left)

    def _kept(self, point: Point, metric: str) -> NDArray[np.bool_]:
        """Which good rows of a point are in the value of a metric of sets."""
        left_out = self._left_out(point, metric)
        seeds, codes = point.good.numbers("seed"), point.good.codes("image")
        kept = np.zeros(len(seeds), bool)
        for seed, images in left_out.items():
            kept |= (seeds == seed) & ~codes.where({*images}.__contains__)
        return kept

    def _left_out(self, point: Point, metric: str) -> dict[int, list[str]]:
        """By seed the images that are not in a distance; nothing if a seed has none, or it is not known which."""
        left_out: dict[int, list[str]] = {}
        for seed, score in self.set_scores(point, metric).items():
            # Stores of earlier versions say only how many images a value is of.
            said = score and (score.left_out is not None or score.images == len(point.by_seed[seed]))
            if score is None or score.value is None or not said:
                return {}
            left_out[seed] = json.loads(score.left_out or "[]")
        return left_out

    def set_scores(self, point: Point, metric: str) -> dict[int, SetScore | None]:
        """Of each seed the value of a metric of sets."""
        return {seed: self.sets.get((point.where, point_key(metric, rows))) for seed, rows in point.by_seed.items()}


def point_names(images: Codes, wanted: Places) -> Images:
    """The names of some images; the same object where it is all of them."""
    if len(wanted) == len(images.names):
        names = Images(images.names)
        return _shared_names.setdefault(names, names)
    return Images(images.names[number] for number in wanted)


_shared_names: dict[Images, Images] = {}


@lru_cache(64)
def _those_of(names: Images, wanted: frozenset[str]) -> tuple[Images, Places]:
    """Of some names those that are wanted, and their places."""
    keep = [number for number, name in enumerate(names) if name in wanted]
    return Images(names[number] for number in keep), np.array(keep, np.int64)


@lru_cache(64)
def _as_set(names: Images) -> frozenset[str]:
    return frozenset(names)


@lru_cache(64)
def _first_of_equal(names: frozenset[str]) -> frozenset[str]:
    """One object for equal sets: whoever looks one up compares objects, and not tens of thousands of names."""
    return names


def _by_seed(
    images: Sequence[str], seeds: Floats, bpp: Floats, weights: Floats
) -> dict[int, dict[str, tuple[float, float]]]:
    by_seed: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
    for image, seed, rate, weight in zip(images, seeds.tolist(), bpp.tolist(), weights.tolist(), strict=True):
        by_seed[int(seed)][image] = rate, weight
    return by_seed


def fingerprint(images: Iterable[str]) -> str:
    """What two means must share to be compared: their images.

    >>> fingerprint(["a", "b"]) == fingerprint(["b", "a"]), len(fingerprint([]))
    (True, 0)
    """
    return _fingerprint(images if isinstance(images, Images) else Images(sorted(images)))


@lru_cache(64)
def _fingerprint(names: Images) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:8] if names else ""


def point_key(metric: str, rows: Sequence[Row]) -> str:
    """sha256 over a metric's name and the images with their reconstructions: what a set's value is looked up by."""
    held = rows if isinstance(rows, Rows) else Rows.of(rows)
    columns = (held.texts(name) for name in ("image", "pixel_sha256", "reconstruction_sha256"))
    lines = sorted(map(" ".join, zip(*columns, strict=True)))
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
    comparison of all others to its few images. Where values are ``fixed`` to all of their images, as distances between
    sets are, only equal sets are compared.

    >>> shared = common({"a": "1234", "b": "123", "c": "1"})
    >>> sorted(shared.images), shared.left_out
    (['1', '2', '3'], {'c': '1 of 4 images'})
    """
    sets = {key: _as_set(names if isinstance(names, Images) else Images(names)) for key, names in images.items()}
    there = {key: names for key, names in sets.items() if names}
    most = max(there.values(), key=len, default=frozenset())
    full = {key: names for key, names in there.items() if len(names) >= LEAST * len(most)}
    shared = frozenset.intersection(*{*full.values()}) if full else most
    if full and (fixed or not shared):
        count = Counter(there.values())
        most = shared = max(count, key=lambda names: (len(names), count[names], sorted(names)))
        full = {key: names for key, names in there.items() if names == shared}
    left_out = {}
    for key, names in sets.items():
        if key not in full:
            few = f"{len(names)} of {len(most)} images" if len(names) < len(most) else f"{len(names)} other images"
            left_out[key] = few if names else "no image"
    return Common(tuple(full), _first_of_equal(shared), left_out)


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
        if tuple(images) == self.images:
            return self
        place = {image: number for number, image in enumerate(self.images)}
        columns = [place[image] for image in images]
        return ImageCurve(self.codec, self.settings, tuple(images), self.rates[:, columns], self.values[:, columns])

    def complete(self, of: Meaning) -> tuple[str, ...]:
        """Images that have a rate at every point, and a value that the metric's mean can hold."""
        good = np.isfinite(self.rates).all(axis=0) & np.isfinite(weighed(self.values, of.averaged)).all(axis=0)
        return self.images if good.all() else tuple(itertools.compress(self.images, good))


def image_curves(points: Points, metric: str) -> dict[str, ImageCurve]:
    """The curve of each codec under a metric of pairs, of the points of one place; seeds count as their mean.

    An image is complete where it has a value that the mean can hold: a lossless one has none under ``psnr``, and one
    under ``psnr-pooled``.
    """
    along: dict[str, list[tuple[Setting, Taken]]] = {}
    for point in points.points:
        taken = points.taken(point, metric)
        if taken.images:
            along.setdefault(point.codec, []).append((point.setting, taken))
    curves = {}
    for codec, pairs in along.items():
        first = pairs[0][1].images
        same = all(taken.images is first for _, taken in pairs)  # as nearly always; then there is nothing to look up
        images = first if same else tuple(sorted({image for _, taken in pairs for image in taken.images}))
        place = {} if same else {image: number for number, image in enumerate(images)}
        rates, values = (np.full((len(pairs), len(images)), math.nan) for _ in range(2))
        for number, (_, taken) in enumerate(pairs):
            columns: Any = slice(None) if same else [place[image] for image in taken.images]
            rates[number, columns] = taken.bpp
            values[number, columns] = stated(taken.weighed, meaning(metric).averaged)
        order = np.argsort(np.nanmean(rates, axis=1), kind="stable")
        settings = tuple(pairs[n][0] for n in order)
        curves[codec] = ImageCurve(codec, settings, images, rates[order], values[order])
    return curves

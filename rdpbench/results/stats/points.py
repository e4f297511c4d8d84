"""What a point is, which rows and values it consists of, and which points can be compared.

A point is one codec at one setting on one dataset under one protocol. A dataset is known by its manifest, not by its
name alone; a codec by what coded. Tables, figures, comparisons, the report, studies, the gate and `read_results` take
their numbers from here. Of what a run stores, only what is current is in a point (`rdpbench.results.stats.current`).

A metric's value and the rate beside it are means over the same images (`Taken`): those with a finite value. Points
are compared over the images that all of them have (`common`).

Reading a run imports nothing that the run names. If a metric ships or is installed, its class says what its values
mean. For any other metric the run says it (`rdpbench.results.store.schema.Measure`), as it was when it scored; if the
run does not, the values are left out, with a note.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rdpbench import registry
from rdpbench.errors import RdpbenchError
from rdpbench.metrics.contract import Averaged, Meaning, meaning_of, stated, weighed
from rdpbench.results.stats.bd import Floats
from rdpbench.results.store.keys import definition
from rdpbench.results.store.schema import Measure, Row, Score, SetScore
from rdpbench.results.store.store import Contents
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
    rows: tuple[Row, ...]
    """All seeds and images, also those that failed or are out of range."""

    @property
    def good(self) -> list[Row]:
        """Rows that were coded."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def by_seed(self) -> dict[int, list[Row]]:
        """Rows that were coded, of each seed."""
        return grouped(self.good, lambda row: row.seed)

    @property
    def random(self) -> bool:
        """By networks that nobody trained: no result, and compared with nothing."""
        return any("random" in row.weights for row in self.rows)

    @property
    def grade(self) -> str:
        """How far its rate is proven (`rdpbench.codecs.contract.GRADES`); rows of two grades are two points."""
        return self.rows[0].grade or "decoded"

    @property
    def competes(self) -> bool:
        """May it be ranked, or others be held against it: a trained codec whose decoder makes the picture?"""
        return not self.random and self.rows[0].proven


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

        ``infinite`` asks instead for those that are left out of the mean, since they are lossless.
        """
        left_out = self._left_out(point, metric) if metric and meaning(metric).kind == "set" else None
        values: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)  # by image and seed: rate, weighed value
        pixels: dict[str, float] = {}
        for row in point.good:
            weight: float | None = 0.0
            if left_out is not None:
                weight = math.nan if row.image not in left_out.get(row.seed, (row.image,)) else None
            elif metric:
                value = self.value(row, metric)
                weight = None if value is None else float(weighed(value, meaning(metric).averaged))
            if weight is not None:  # pictures of somebody else may come without a rate
                values[self.name(row)][row.seed] = math.nan if row.bpp is None else row.bpp, weight
                pixels[self.name(row)] = float(row.height * row.width)
        lossless = {name for name, seeds in values.items() if any(math.isinf(weight) for _, weight in seeds.values())}
        images = tuple(sorted(name for name in values if (name in lossless) == infinite))
        pairs = [list(values[image].values()) for image in images]
        means = [[math.fsum(part) / len(seeds) for part in zip(*seeds, strict=True)] for seeds in pairs]
        array = np.array(means, np.float64).reshape(-1, 2)
        by_seed: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
        for image in images:
            for seed, pair in values[image].items():
                by_seed[seed][image] = pair
        size = np.array([pixels[image] for image in images], np.float64)
        return Taken(images, array[:, 0], size, array[:, 1], by_seed, tuple(sorted(lossless)))

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
    comparison of all others to its few images. Where values are ``fixed`` to all of their images, as distances between
    sets are, only equal sets are compared.

    >>> shared = common({"a": "1234", "b": "123", "c": "1"})
    >>> sorted(shared.images), shared.left_out
    (['1', '2', '3'], {'c': '1 of 4 images'})
    """
    sets = {key: frozenset(names) for key, names in images.items()}
    there = {key: names for key, names in sets.items() if names}
    most = max(there.values(), key=len, default=frozenset())
    full = {key: names for key, names in there.items() if len(names) >= LEAST * len(most)}
    shared = frozenset.intersection(*full.values()) if full else most
    if full and (fixed or not shared):
        count = Counter(there.values())
        most = shared = max(count, key=lambda names: (len(names), count[names], sorted(names)))
        full = {key: names for key, names in there.items() if names == shared}
    left_out = {}
    for key, names in sets.items():
        if key not in full:
            few = f"{len(names)} of {len(most)} images" if len(names) < len(most) else f"{len(names)} other images"
            left_out[key] = few if names else "no image"
    return Common(tuple(full), shared, left_out)


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
    along: dict[str, list[tuple[Setting, Taken]]] = {}
    for point in points.points:
        taken = points.taken(point, metric)
        if taken.images:
            along.setdefault(point.codec, []).append((point.setting, taken))
    curves = {}
    for codec, pairs in along.items():
        images = sorted({image for _, taken in pairs for image in taken.images})
        place = {image: number for number, image in enumerate(images)}
        rates, values = (np.full((len(pairs), len(images)), math.nan) for _ in range(2))
        for number, (_, taken) in enumerate(pairs):
            columns = [place[image] for image in taken.images]
            rates[number, columns] = taken.bpp
            values[number, columns] = stated(taken.weighed, meaning(metric).averaged)
        order = np.argsort(np.nanmean(rates, axis=1), kind="stable")
        settings = tuple(pairs[n][0] for n in order)
        curves[codec] = ImageCurve(codec, settings, tuple(images), rates[order], values[order])
    return curves


# What values mean

LONGEST_UNIT = 20
"""Letters."""


@dataclass(frozen=True)
class StatedMeaning:
    """What a run says of a metric that is not installed here."""

    meaning: Meaning
    sources: Mapping[str, str]
    """The sha256 of its source, by edition."""


def meaning(metric: str) -> Meaning:
    """What must be known of a metric to read its values.

    Raises:
        ConfigError: it is not installed, and no run that was read says what it means.
        UnknownName: the same of a name that is no file's.

    >>> meaning("psnr-pooled").averaged
    'decibels'
    """
    foreign: StatedMeaning | None = registry.meanings.get(metric)
    return foreign.meaning if foreign else _of_class(metric)


@cache
def _of_class(metric: str) -> Meaning:
    with registry.installed_only():
        return meaning_of(registry.load("metric", metric))


def metric_order(metric: str) -> tuple[int, str]:
    """What metrics are sorted by: distortion first, as tables show it.

    >>> sorted(["lpips/alex", "ms-ssim", "fid/clean", "psnr"], key=metric_order)[:2]
    ['psnr', 'ms-ssim']
    """
    first = ("psnr", "psnr-pooled", "ms-ssim")
    return first.index(metric) if metric in first else len(first), metric


def definition_now(metric: str) -> str:
    """The edition of a metric that is here; empty if there is none, or if it cannot be told without importing it."""
    foreign: StatedMeaning | None = registry.meanings.get(metric)
    if foreign:  # its source is read and hashed, never executed
        now = registry.source_now("metric", metric)
        same = [edition for edition, source in foreign.sources.items() if now and source == now]
        return same[0] if len(same) == 1 else ""
    try:
        with registry.installed_only():
            return definition(metric)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return ""


def readable(contents: Contents) -> tuple[list[Score], list[SetScore], list[str]]:
    """The values of a run whose meaning is known, and notes on what is left out, and why."""
    named = (contents.scores, contents.sets, contents.measures)
    metrics = sorted({record.metric for records in named for record in records.values()})
    foreign = {metric: _read(metric, contents) for metric in metrics if not _is_installed(metric)}
    unread: Counter[tuple[str, str]] = Counter()

    def is_readable(score: Score | SetScore) -> bool:
        why = foreign[score.metric].get(score.definition, _UNSTATED) if score.metric in foreign else ""
        if why:
            unread[score.metric, why] += 1
        return not why

    scores = [score for score in contents.scores.values() if is_readable(score)]
    sets = [score for score in contents.sets.values() if is_readable(score)]
    notes = [f"{metric!r:.120}: {number} values are left out: {why}" for (metric, why), number in unread.items()]
    return scores, sets, notes


_UNSTATED = (
    "it is not installed here, and the run does not say its unit and direction; "
    "`rdpbench score metrics=...` with the run's other settings stores them"
)
_OTHERWISE = "{} says another unit or direction of it"


def _is_installed(metric: str) -> bool:
    try:
        _of_class(metric)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return False
    return True


def _read(metric: str, contents: Contents) -> dict[str, str]:
    """By edition of a metric why it cannot be read, or nothing; what can be is remembered for this command."""
    records = [measure for measure in contents.measures.values() if measure.metric == metric]
    known = {measure.definition: (measure, means) for measure in records if (means := _stated(measure))}
    if not known:
        return {}
    # The edition that lies here; else the one that was stored last.
    now = registry.source_now("metric", metric) if len({means for _, means in known.values()}) > 1 else ""
    means = max(known.values(), key=lambda pair: (bool(now) and pair[0].source == now, pair[0].session))[1]
    before: StatedMeaning | None = registry.meanings.get(metric)
    if before and before.meaning != means:
        return dict.fromkeys(known, _OTHERWISE.format("another run of this command"))
    sources = {edition: measure.source for edition, (measure, _) in known.items()}
    registry.meanings[metric] = StatedMeaning(means, {**before.sources, **sources} if before else sources)
    other = _OTHERWISE.format("a later version")
    # Scores of earlier versions do not say their edition.
    return {"": "", **{edition: "" if stated == means else other for edition, (_, stated) in known.items()}}


def _stated(measure: Measure) -> Meaning | None:
    """What a stored record says; None unless all of it can be meant: anybody may have written it."""
    bounds = measure.low, measure.high
    good = (
        measure.kind in ("pair", "decodes", "set")
        and measure.averaged in ("mean", "decibels")
        and all(isinstance(flag, bool) for flag in (measure.higher_is_better, measure.perceptual))
        and all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in bounds)
        and bounds[0] < bounds[1]
        and all(isinstance(text, str) for text in (measure.unit, measure.source, measure.session))
        and len(measure.unit) <= LONGEST_UNIT
        and measure.unit.isprintable()
    )
    averaged: Averaged = "decibels" if measure.averaged == "decibels" else "mean"
    meant = measure.kind, measure.unit, measure.higher_is_better, measure.perceptual, averaged, bounds
    return Meaning(*meant) if good else None

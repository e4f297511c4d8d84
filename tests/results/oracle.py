"""The oracle of `test_campaign`: the rules of `docs/results.md` in plain Python, over stored records.

It shares no code with the package, and imports none of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace as View
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

PAIRS = ("psnr", "psnr-pooled", "lpips/alex")
SETS = ("fid/clean",)
BETTER = {"psnr": True, "psnr-pooled": True, "lpips/alex": False, "fid/clean": False}

Image = tuple[str, str]
"""Id and pixels."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(eq=False)
class Spot:
    """A point by the oracle."""

    place: tuple[str, str, str]
    codec: str
    setting: tuple[str, float | None, float | None]
    rows: list[View]

    @property
    def good(self) -> list[View]:
        return [row for row in self.rows if row.status == "ok"]

    @property
    def key(self) -> tuple[Any, ...]:
        return (*self.place, self.codec, *self.setting)


@dataclass
class Oracle:
    """The current points of a store, and what has no number."""

    spots: list[Spot]
    silent: list[str]
    """Codecs with their setting's dataset that have no number for their editions, and metrics."""
    scores: dict[tuple[Any, ...], Any]
    """By place, task and metric."""
    sets: dict[tuple[Any, ...], Any]
    """By place and key of the point."""


def of(contents: Any, installed: Mapping[str, str]) -> Oracle:
    """The points of a store.

    Args:
        contents: rows, scores, sets and members, by key.
        installed: editions of metrics.
    """
    views = [View(**vars(row), named=row.session) for row in contents.rows.values()]
    for member in contents.members.values():
        row = contents.rows.get(member.task_key)
        if row is not None:
            said = {name: value for name, value in vars(member).items() if name not in ("member_key", "session")}
            views.append(View(**{**vars(row), **said}, named=member.session))
    groups: dict[tuple[Any, ...], dict[str, View]] = defaultdict(dict)
    for view in newest_states(views):
        setting = (view.rate_field, view.target_bpp, view.rate if view.target_bpp is None else None)
        groups[(view.dataset, view.manifest, view.protocol), view.codec, setting][view.task_key] = view
    spots, silent = [], []
    for (place, codec, setting), members in groups.items():
        by_edition: dict[Any, list[View]] = defaultdict(list)
        for view in members.values():
            by_edition[view.use, view.configuration or view.options, view.coder, view.weights].append(view)
        parts = {edition: {(row.image, row.seed) for row in rows} for edition, rows in by_edition.items()}
        chosen = the_one_with_all(parts)
        if chosen is None:
            silent.append(codec)
        else:
            spots.append(Spot(place, codec, setting, newest_images(by_edition[chosen])))
    spots = of_newest_coders(spots)
    scores: dict[tuple[Any, ...], Any] = {}
    sets: dict[tuple[Any, ...], Any] = {}
    for place in dict.fromkeys(spot.place for spot in spots):
        here = [spot for spot in spots if spot.place == place]
        tasks = {row.task_key for spot in here for row in spot.rows}
        for metric in PAIRS:
            found = [s for s in contents.scores.values() if s.metric == metric and s.task_key in tasks]
            for score in one_edition(found, lambda s: s.task_key, installed.get(metric, ""), silent):
                scores[place, score.task_key, metric] = score
        for metric in SETS:
            keys = {key_of_set(metric, rows) for spot in here for rows in by_seed(spot).values()}
            stored = [s for s in contents.sets.values() if s.metric == metric and s.point_key in keys]
            for score in one_edition(stored, lambda s: s.point_key, installed.get(metric, ""), silent):
                sets[place, score.point_key] = score
    return Oracle(spots, silent, scores, sets)


def newest_states(views: Sequence[View]) -> list[View]:
    """Of a folder (one root; none stated may be any) the newest manifest and caption source, curve by curve."""
    stated: dict[Any, set[str]] = defaultdict(set)
    for view in views:
        if view.root:
            stated[view.dataset, view.manifest].add(view.root)

    def roots(view: View) -> set[str]:
        return {view.root} if view.root else stated[view.dataset, view.manifest] or {""}

    latest: dict[Any, dict[Any, str]] = defaultdict(dict)
    for view in views:
        states = latest[view.dataset, view.protocol, view.codec]
        for root in roots(view):
            key = (view.manifest, view.caption_source), root
            states[key] = max(states.get(key, ""), view.named)

    def stands(view: View, root: str) -> bool:
        states = latest[view.dataset, view.protocol, view.codec]
        mine = view.manifest, view.caption_source
        rivals = [s for (state, other), s in states.items() if state != mine and (other == root or "" in (other, root))]
        return all(session <= states[mine, root] for session in rivals)

    return [view for view in views if any(stands(view, root) for root in roots(view))]


def newest_images(rows: Sequence[View]) -> list[View]:
    """Of an image that changed, its newest pixels; of these one row for each seed."""
    ordered = sorted(rows, key=lambda row: (row.session, row.time))
    states = {row.image: (row.pixel_sha256, row.caption) for row in ordered}
    last = {(row.image, row.seed): row for row in ordered if (row.pixel_sha256, row.caption) == states[row.image]}
    return list(last.values())


def of_newest_coders(spots: Sequence[Spot]) -> list[Spot]:
    """A curve mixes no versions: of codecs that are not installed, those points stand that the newest one coded."""
    rows: dict[Any, list[View]] = defaultdict(list)
    for spot in spots:
        rows[spot.place, spot.codec] += spot.rows
    last = {curve: max(of, key=lambda row: (row.session, row.time)).coder for curve, of in rows.items()}
    return [spot for spot in spots if spot.rows[0].coder == last[spot.place, spot.codec]]


def the_one_with_all(parts: Mapping[Any, set[Any]]) -> Any:
    every = {key for part in parts.values() for key in part}
    whole = [edition for edition, part in parts.items() if part == every]
    return whole[0] if len(whole) == 1 else None


def one_edition(scores: Sequence[Any], key: Any, installed: str, silent: list[str]) -> list[Any]:
    """Of scores of one metric."""
    parts: dict[str, set[Any]] = defaultdict(set)
    for score in scores:
        parts[score.definition].add(key(score))
    chosen = installed if installed in parts else the_one_with_all(parts)
    if scores and chosen is None:
        silent.append(scores[0].metric)
    return [score for score in scores if score.definition == chosen]


def by_seed(spot: Spot) -> dict[int, list[View]]:
    seeds: dict[int, list[View]] = defaultdict(list)
    for row in spot.good:
        seeds[row.seed].append(row)
    return seeds


def key_of_set(metric: str, rows: Iterable[View]) -> str:
    lines = sorted(f"{row.image} {row.pixel_sha256} {row.reconstruction_sha256}" for row in rows)
    return sha256("\n".join([metric, *lines]))


@dataclass
class Part:
    """The images of a metric's value of a point: of each seed rate and weighed value."""

    images: dict[Image, dict[int, tuple[float, float]]]
    pixels: dict[Image, int]
    lossless: dict[Image, dict[int, tuple[float, float]]]
    sets: tuple[Any, ...] = ()

    def over(self, images: Iterable[Image]) -> Part:
        return Part({image: self.images[image] for image in images}, self.pixels, {}, self.sets)


def usable(metric: str, value: float | None) -> bool:
    return value is not None and (math.isfinite(value) or (value == math.inf and BETTER[metric]))


def part_of(known: Oracle, spot: Spot, metric: str) -> Part:
    images: dict[Image, dict[int, tuple[float, float]]] = defaultdict(dict)
    pixels = {(row.image, row.pixel_sha256): row.height * row.width for row in spot.good}
    if metric in SETS:
        scores = {seed: known.sets.get((spot.place, key_of_set(metric, rows))) for seed, rows in by_seed(spot).items()}
        for seed, rows in by_seed(spot).items():
            score = scores[seed]
            if score is None or score.value is None or (score.left_out is None and score.images != len(rows)):
                return Part({}, {}, {})
            for row in rows:
                if row.image not in json.loads(score.left_out or "[]"):
                    images[row.image, row.pixel_sha256][seed] = row.bpp, math.nan
        return Part(dict(images), pixels, {}, tuple(scores.values()))
    for row in spot.good:
        score = known.scores.get((spot.place, row.task_key, metric))
        if not metric or (score is not None and usable(metric, score.value)):
            value = score.value if score is not None else 0.0
            weight = 10 ** (-value / 10) if metric == "psnr-pooled" else value
            images[row.image, row.pixel_sha256][row.seed] = row.bpp, weight
    lossless = {image: of for image, of in images.items() if any(math.isinf(value) for _, value in of.values())}
    return Part({image: of for image, of in images.items() if image not in lossless}, pixels, lossless)


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def spread(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    return math.sqrt(sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1))


def in_unit(metric: str, value: float) -> float:
    if metric != "psnr-pooled" or math.isnan(value):
        return value
    return math.inf if value == 0 else -10 * math.log10(value)


def line_of(known: Oracle, spot: Spot, metric: str, images: Iterable[Image] | None = None) -> dict[str, Any]:
    part, every = part_of(known, spot, metric), part_of(known, spot, "")
    all_lossless = images is None and not part.images and bool(part.lossless)
    count = {"n_scored": len(part.images) + len(part.lossless), "infinite": len(part.lossless)}
    if images is not None:
        part = part.over(images)
        count = {"n_scored": len(part.images), "infinite": 0}
    if not metric:
        count["n_scored"] = 0
    used = part.lossless if all_lossless else part.images
    if metric in SETS:
        of_seeds = {seed: {image for image, of in used.items() if seed in of} for of in used.values() for seed in of}
        alike = [score.value for score in part.sets] if all(of == {*used} for of in of_seeds.values()) else []
        value, sd = (mean(alike), spread(alike)) if used else (math.nan, math.nan)
        count["n_scored"] *= bool(alike)
    else:
        value = in_unit(metric, mean(mean(v for _, v in of.values()) for of in used.values())) if metric else math.nan
        sd = math.nan if all_lossless or not metric else in_seeds(used, 1, metric)
    rates = {image: mean(rate for rate, _ in of.values()) for image, of in used.items()}
    of_all = {image: mean(rate for rate, _ in of.values()) for image, of in every.images.items()}
    total = sum(part.pixels[image] for image in used)
    n = len(of_all) if images is None else len(used)
    size = max(row.dataset_size for row in spot.rows)
    return {
        "n": n,
        "dataset_size": size,
        "partial": n < size,
        "failed": sum(row.status == "error" for row in spot.rows),
        "out_of_range": sum(row.status == "out_of_range" for row in spot.rows),
        "seeds": len(by_seed(spot)),
        "bpp": mean(rates.values()),
        "bpp_seed_sd": in_seeds(used, 0, ""),
        "bpp_pooled": sum(rates[image] * part.pixels[image] for image in used) / total if used else math.nan,
        "bpp_all": mean(of_all.values()),
        "value": value,
        "value_seed_sd": sd,
        **count,
    }


def in_seeds(images: Mapping[Image, Mapping[int, tuple[float, float]]], which: int, metric: str) -> float:
    """Standard deviation of the seeds' means over the images that all of them have."""
    seeds = sorted({seed for of in images.values() for seed in of})
    shared = [of for of in images.values() if set(of) == set(seeds)]
    return spread([in_unit(metric, mean(of[seed][which] for of in shared)) for seed in seeds]) if shared else math.nan


def common(images: Mapping[Any, Iterable[Image]], *, fixed: bool) -> tuple[set[Any], set[Image]]:
    """Who is compared, and over which images."""
    there = {key: frozenset(of) for key, of in images.items() if of}
    if not there:
        return set(), set()
    fullest = max(map(len, there.values()))
    full = {key for key, of in there.items() if 2 * len(of) >= fullest}
    shared = set.intersection(*(set(there[key]) for key in full))
    if fixed or not shared:
        times = Counter(there.values())
        best = max(times, key=lambda of: (len(of), times[of], sorted(of)))
        return {key for key, of in there.items() if of == best}, set(best)
    return full, shared


def compared_lines(known: Oracle, metric: str, *, per_setting: bool = False) -> dict[Any, dict[str, Any]]:
    groups: dict[Any, list[Spot]] = defaultdict(list)
    for spot in known.spots:
        groups[spot.place, spot.setting[1] if per_setting else None].append(spot)
    lines = {}
    for spots in groups.values():
        keep, images = common({spot: part_of(known, spot, metric).images for spot in spots}, fixed=metric in SETS)
        lines |= {(*spot.key, metric): line_of(known, spot, metric, images) for spot in spots if spot in keep}
    return lines


def interpolated(points: Sequence[tuple[float, float]], rate: float) -> float:
    at: dict[float, list[float]] = defaultdict(list)
    for bpp, value in points:
        if math.isfinite(bpp) and math.isfinite(value):
            at[bpp].append(value)
    points = sorted((bpp, sum(values) / len(values)) for bpp, values in at.items())
    if len(points) < 2 or not points[0][0] <= rate <= points[-1][0]:
        return math.nan
    for (low, first), (high, last) in pairwise(points):
        if low <= rate <= high:
            share = math.log(rate / low) / math.log(high / low)
            return first + share * (last - first)
    raise AssertionError


def delta(anchor: Sequence[tuple[float, float]], test: Sequence[tuple[float, float]], metric: str, of: str) -> float:
    """BD-rate in percent, or BD-metric; NaN where the rules allow no number."""
    sides = []
    for points in (sorted(anchor), sorted(test)):
        if len(points) < 4 or not np.isfinite(np.array(points)).all():
            return math.nan
        rates, values = np.log10([rate for rate, _ in points]), np.array([value for _, value in points])
        if (np.diff(rates) <= 0).any():
            return math.nan
        if of == "metric":
            sides.append((rates, values))
            continue
        values = values if BETTER[metric] else -values
        if (np.diff(values) <= 0).any():
            return math.nan
        sides.append((values, rates))
    low, high = max(along[0] for along, _ in sides), min(along[-1] for along, _ in sides)
    if not low < high:
        return math.nan
    first, second = (float(PchipInterpolator(*side).integrate(low, high)) / (high - low) for side in sides)
    return second - first if of == "metric" else 100 * (10 ** (second - first) - 1)

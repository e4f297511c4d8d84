"""Which reconstructions a study compares: those that runs kept, of each codec the setting nearest to a rate.

Rates are matched as means over the study's images. A codec that is further from the rate than the tolerance is refused,
not shown: a comparison at other rates says nothing. Runs with ``bpp=`` were searched image by image and match best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rdpbench.errors import ConfigError, MissingNeed, UnknownName
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Where, titles
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Contents, Store, reconstruction_path
from rdpbench.setting import Setting


@dataclass(frozen=True)
class Stimulus:
    """A reconstruction with what is known of it."""

    store: Store
    row: Row
    target: float
    setting: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Chosen:
    """What a study shows: for each rate and image, one reconstruction of each codec."""

    dataset: str
    protocol: str
    codecs: tuple[str, ...]
    targets: tuple[float, ...]
    images: tuple[str, ...]
    stimuli: tuple[Stimulus, ...]
    better: dict[str, bool]
    """Metrics that all stimuli have a value of: is higher better?"""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Kept:
    store: Store
    row: Row
    scores: dict[str, float]


def choose(
    runs: Sequence[tuple[Store, Contents]],
    *,
    targets: Sequence[float] = (),
    codecs: Sequence[str] = (),
    images: Sequence[str] = (),
    dataset: str = "",
    tolerance: float = 0.1,
) -> Chosen:
    """Choose the stimuli.

    Args:
        runs: stores with their contents; a codec that two runs have is taken from the first.
        targets: bits per pixel; without any, the lowest rate that all codecs reach.
        codecs: labels of curves; without any, all that kept images.
        images: ids; without any, all that each codec kept at each rate.
        dataset: which, where the runs have several.
        tolerance: how far a mean rate may be from the target, relative.

    Raises:
        MissingNeed: no kept reconstructions of a codec, or no image that all have.
        ConfigError: a rate that a codec does not come near, random weights, or several datasets.
        UnknownName: no such codec or image.
    """
    kept = _of_dataset([one for store, contents in runs for one in _kept(store, contents)], dataset)
    known = list(dict.fromkeys(one.row.codec for one in kept))
    for name in codecs:
        if name not in known:
            raise UnknownName("codec", name, known, "with kept reconstructions (keep=all), that is")
    names = tuple(dict.fromkeys(codecs or known))
    if random := sorted({one.row.codec for one in kept if one.row.codec in names and "random" in one.row.weights}):
        raise ConfigError(f"what random weights paint is nothing to judge: {', '.join(random)}; --codec A,B leaves out")
    if len(names) < 2:
        raise ConfigError(f"a comparison needs two codecs; kept reconstructions are there of: {', '.join(known)}")
    groups = {name: _settings([one for one in kept if one.row.codec == name]) for name in names}
    rates, found, shared = _matched(groups, targets, images, tolerance)
    stimuli = [
        Stimulus(one.store, one.row, rate, _setting(one.row), one.scores)
        for (_, rate), of in found.items()
        for one in of
        if one.row.image in shared
    ]
    first = stimuli[0].row
    notes = [
        f"{name} at {rate:g} bpp: {_setting(of[0].row)}, {_mean(_of_images(of, shared)):.4f} bpp"
        for (name, rate), of in found.items()
    ]
    return Chosen(first.dataset, first.protocol, names, rates, shared, tuple(stimuli), _better(stimuli), tuple(notes))


def _kept(store: Store, contents: Contents) -> list[_Kept]:
    points = of_store(contents)
    rows = [row for row in points.rows if row.status == "ok" and row.bpp]
    rows = [row for row in rows if reconstruction_path(store, row).is_file()]
    if not rows:
        raise MissingNeed(
            f"{store.folder} has no reconstructions. Type: rdpbench run codec=... keep=all "
            "(what is coded already is only decoded again)"
        )
    metrics = [metric for metric in points.metrics if meaning(metric).kind != "set"]
    scored = [{name: value for name in metrics if (value := points.value(row, name)) is not None} for row in rows]
    finite = [{name: value for name, value in of.items() if math.isfinite(value)} for of in scored]
    return [_Kept(store, row, scores) for row, scores in zip(rows, finite, strict=True)]


def _of_dataset(kept: Sequence[_Kept], dataset: str) -> list[_Kept]:
    names = titles(list(dict.fromkeys(_where(one.row) for one in kept)))
    of = [where for where, name in names.items() if dataset in ("", where.dataset, name)]
    if not of:
        raise UnknownName("dataset", dataset, names.values(), "with kept reconstructions, that is")
    if len(of) > 1:
        listed = ", ".join(repr(names[where]) for where in of)
        raise ConfigError(f"a study is of one dataset under one protocol, and these are several: {listed}; --dataset")
    here = [one for one in kept if _where(one.row) == of[0]]
    first: dict[str, Store] = {}
    for one in here:
        first.setdefault(one.row.codec, one.store)
    return [one for one in here if first[one.row.codec] is one.store]


def _where(row: Row) -> Where:
    return Where(row.dataset, row.manifest, row.protocol)


def _settings(kept: Iterable[_Kept]) -> list[list[_Kept]]:
    """By setting or target; of several seeds the lowest."""
    groups: dict[Setting, dict[str, _Kept]] = {}
    for one in sorted(kept, key=lambda one: one.row.seed):
        groups.setdefault(one.row.setting, {}).setdefault(one.row.image, one)
    return [list(of.values()) for of in groups.values()]


def _mean(kept: Sequence[_Kept]) -> float:
    return math.fsum(one.row.bpp or math.nan for one in kept) / len(kept)


def _matched(
    groups: Mapping[str, Sequence[Sequence[_Kept]]],
    targets: Sequence[float],
    wanted: Sequence[str],
    tolerance: float,
) -> tuple[tuple[float, ...], dict[tuple[str, float], Sequence[_Kept]], tuple[str, ...]]:
    """Rates, the setting of each codec at each of them, and the study's images.

    Which images all have depends on the settings, and the nearest setting on the images that its rate is a mean over:
    the images only become fewer until both agree.
    """
    shared = _images([[one for of in every for one in of] for every in groups.values()], wanted)
    while True:
        of_images = {name: [_of_images(of, shared) for of in every] for name, every in groups.items()}
        there = {name: [of for of in every if of] for name, every in of_images.items()}
        rates = tuple(targets) or (_lowest(there.values()),)
        found = {(name, rate): _nearest(name, there[name], rate, tolerance) for rate in rates for name in groups}
        known, shared = shared, _images(found.values(), wanted)
        if shared == known:
            return rates, found, shared


def _of_images(kept: Sequence[_Kept], images: Sequence[str]) -> Sequence[_Kept]:
    return [one for one in kept if one.row.image in images]


def _lowest(groups: Iterable[Sequence[Sequence[_Kept]]]) -> float:
    """The lowest rate that all codecs reach, with three digits."""
    return float(f"{max(min(_mean(of) for of in settings) for settings in groups):.3g}")


def _nearest(name: str, settings: Sequence[Sequence[_Kept]], rate: float, tolerance: float) -> Sequence[_Kept]:
    best = min(settings, key=lambda of: abs(math.log(_mean(of) / rate)))
    if abs(math.log(_mean(best) / rate)) > math.log1p(tolerance):
        there = ", ".join(f"{_mean(of):.4g}" for of in sorted(settings, key=_mean))
        raise ConfigError(
            f"{name} has nothing within {100 * tolerance:g} % of {rate:g} bpp, only {there}. Make it: rdpbench run "
            f"codec={name.partition('[')[0]} bpp={rate:g} keep=all; or allow more with --tolerance"
        )
    return best


def _images(found: Iterable[Sequence[_Kept]], wanted: Sequence[str]) -> tuple[str, ...]:
    """Ids that all have, of the same pixels."""
    sets = [{(one.row.image, one.row.pixel_sha256) for one in of} for of in found]
    shared = sorted(image for image, _ in set.intersection(*sets))
    for image in wanted:
        if image not in shared:
            raise UnknownName("image", image, shared, "that all codecs kept at all rates")
    if not shared:
        raise MissingNeed("no image was kept for all codecs at all rates; run them on the same images with keep=all")
    return tuple(dict.fromkeys(wanted)) or tuple(shared)


def _setting(row: Row) -> str:
    if row.target_bpp is not None:
        return f"{row.rate_field} searched for {row.target_bpp:g} bpp"
    return row.rate_field if row.rate is None else f"{row.rate_field} {row.rate:g}"


def _better(stimuli: Sequence[Stimulus]) -> dict[str, bool]:
    shared = set.intersection(*(set(one.scores) for one in stimuli))
    return {name: meaning(name).higher_is_better for name in sorted(shared)}

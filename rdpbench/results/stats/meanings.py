"""What the values of a metric mean.

Reading a run imports nothing that the run names. If a metric ships or is installed, its class says what its values
mean. For any other metric the run says it (`rdpbench.results.store.schema.Measure`), as it was when it scored; if the
run does not, the values are left out, with a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from rdpbench import registry
from rdpbench.errors import RdpbenchError
from rdpbench.metrics.contract import Averaged, Meaning, meaning_of
from rdpbench.results.store.columns import Mask, groups_of
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import definition
from rdpbench.results.store.schema import Measure, SetScore

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


def readable(contents: Contents) -> tuple[Mask, list[SetScore], list[str]]:
    """Which scores of a run, and values of sets, have a known meaning; and notes on what is left out, and why."""
    scores = contents.of_kind("score")
    of_score = scores.codes("metric")
    named = {score.metric for score in contents.sets.values()} | {m.metric for m in contents.measures.values()}
    used = {*of_score.used()}
    foreign = {metric: _read(metric, contents) for metric in sorted(named | used) if not _is_installed(metric)}
    unread: Counter[tuple[str, str]] = Counter()

    def why_not(metric: str, edition: str) -> str:
        return foreign[metric].get(edition, _UNSTATED) if metric in foreign else ""

    good = np.ones(len(of_score.codes), bool)
    if used & foreign.keys():
        editions = scores.codes("definition")
        groups, first = groups_of([of_score.codes, editions.codes])
        pairs = zip(of_score.of(first).texts(), editions.of(first).texts(), strict=True)
        for number, (metric, edition) in enumerate(pairs):
            if why := why_not(metric, edition):
                unread[metric, why] += int((groups == number).sum())
                good &= groups != number
    sets = []
    for score in contents.sets.values():
        if why := why_not(score.metric, score.definition):
            unread[score.metric, why] += 1
        else:
            sets.append(score)
    notes = [f"{metric!r:.120}: {number} values are left out: {why}" for (metric, why), number in unread.items()]
    return good, sets, notes


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

"""What the values of metrics mean. Reading a run imports nothing that the run names, so it says that itself.

Of a metric that ships or is installed, its class says unit, direction and averaging. Of any other the run does
(`rdpbench.results.store.schema.Measure`), as it was when it scored; where it does not, its values are left out, with a
note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from rdpbench import registry
from rdpbench.errors import RdpbenchError
from rdpbench.metrics.contract import Averaged, Meaning, meaning_of
from rdpbench.results.store.keys import definition
from rdpbench.results.store.schema import Measure, Score, SetScore
from rdpbench.results.store.store import Contents

LONGEST_UNIT = 20
"""Letters."""


@dataclass(frozen=True)
class Told:
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
    told = registry.meanings.get(metric)
    return told.meaning if isinstance(told, Told) else _of_class(metric)


@cache
def _of_class(metric: str) -> Meaning:
    with registry.installed_only():
        return meaning_of(registry.load("metric", metric))


def _is_installed(metric: str) -> bool:
    try:
        _of_class(metric)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return False
    return True


def definition_now(metric: str) -> str:
    """The edition of a metric that is here; empty if there is none, or if it cannot be told without importing it."""
    told = registry.meanings.get(metric)
    if isinstance(told, Told):  # its source is read and hashed, never executed
        now = registry.source_now("metric", metric)
        same = [edition for edition, source in told.sources.items() if now and source == now]
        return same[0] if len(same) == 1 else ""
    try:
        with registry.installed_only():
            return definition(metric)
    except (RdpbenchError, ImportError, OSError, ValueError):
        return ""


def is_told(metric: str) -> bool:
    """Is it a metric that a run told of, and that is not installed here?"""
    return metric in registry.meanings


def readable(contents: Contents, notes: list[str]) -> tuple[list[Score], list[SetScore]]:
    """The values of a run whose meaning is known; ``notes`` gets what is left out, and why."""
    metrics = {score.metric for score in contents.scores.values()} | {score.metric for score in contents.sets.values()}
    metrics |= {measure.metric for measure in contents.measures.values()}
    of: dict[str, dict[str, str]] = {}
    for metric in sorted(metrics):
        if not _is_installed(metric):
            of[metric] = _read(metric, contents)
    if not of:
        return list(contents.scores.values()), list(contents.sets.values())
    unread: Counter[tuple[str, str]] = Counter()

    def is_readable(score: Score | SetScore) -> bool:
        editions = of.get(score.metric)
        why = "" if editions is None else editions.get(score.definition, _UNSTATED)
        if why:
            unread[score.metric, why] += 1
        return not why

    scores = [score for score in contents.scores.values() if is_readable(score)]
    sets = [score for score in contents.sets.values() if is_readable(score)]
    notes += [f"{metric!r:.120}: {number} values are left out: {why}" for (metric, why), number in unread.items()]
    return scores, sets


_UNSTATED = (
    "it is not installed here, and the run does not say its unit and direction; "
    "`rdpbench score metrics=...` with the run's other settings stores them"
)
_OTHERWISE = "{} says another unit or direction of it"


def _read(metric: str, contents: Contents) -> dict[str, str]:
    """By edition of a metric why it cannot be read, or nothing; what can be is remembered for this command."""
    of = [measure for measure in contents.measures.values() if measure.metric == metric]
    known = {measure.definition: (measure, means) for measure in of if (means := _stated(measure))}
    if not known:
        return {}
    # The edition that lies here; else the one that was stored last.
    now = registry.source_now("metric", metric) if len({stated for _, stated in known.values()}) > 1 else ""
    means = max(known.values(), key=lambda pair: (bool(now) and pair[0].source == now, pair[0].session))[1]
    before = registry.meanings.get(metric)
    if isinstance(before, Told) and before.meaning != means:
        return dict.fromkeys(known, _OTHERWISE.format("another run of this command"))
    sources = {edition: measure.source for edition, (measure, _) in known.items()}
    registry.meanings[metric] = Told(means, {**(before.sources if isinstance(before, Told) else {}), **sources})
    other = _OTHERWISE.format("a later edition")
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
    return (
        Meaning(measure.kind, measure.unit, measure.higher_is_better, measure.perceptual, averaged, bounds)
        if good
        else None
    )

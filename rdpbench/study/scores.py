"""From votes to scores: who was looking, what was chosen how often, and how that compares with the metrics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import stated, weighed
from rdpbench.results.stats.bootstrap import Interval, mean
from rdpbench.results.stats.points import meaning
from rdpbench.study.bradley_terry import FIRST, SECOND, TIE, Comparisons, Fit, fit, groups
from rdpbench.study.votes import Asked, Key, Sheet, Shown, Vote

CAUGHT = 0.75
"""Share of the catch trials that a rater must have right."""


@dataclass(frozen=True)
class Rater:
    """What one rater did, over all sheets."""

    name: str
    sheets: tuple[int, ...]
    votes: int
    """Without catch trials."""
    missing: int
    """Trials of these sheets without an answer."""
    caught: int
    """Catch trials with the original chosen."""
    catch: int
    """Catch trials answered."""
    left: int
    """Votes for the left side, catch trials left out."""
    ties: int
    median_ms: float
    passed: bool


@dataclass(frozen=True)
class Choice:
    """A vote on a pair, with what the key knows of both."""

    rater: str
    first: Shown
    second: Shown
    outcome: int


@dataclass(frozen=True)
class Group:
    """The codecs at one rate, which are compared with one another only."""

    target: float
    codecs: tuple[str, ...]
    wins: tuple[int, ...]
    losses: tuple[int, ...]
    ties: tuple[int, ...]
    fit: Fit | None
    why: str
    """Without scores: why there are none."""
    bpp: tuple[float, ...]
    """Mean over the images of the study."""
    metrics: dict[str, tuple[float, ...]]
    """Means over the images of the study, by metric."""


@dataclass(frozen=True)
class Scored:
    """A study's result."""

    key: Key
    raters: tuple[Rater, ...]
    groups: tuple[Group, ...]
    agreement: dict[str, Interval] = field(default_factory=dict)
    """Of each metric the share of votes for the copy that it prefers, mean over images; ties of either left out."""
    left: float = math.nan
    """Share of votes for the left side, of raters who passed."""


def score(key: Key, sheets: Sequence[Sheet], *, least: float = CAUGHT, keep_failed: bool = False) -> Scored:
    """Score a study.

    Args:
        key: what each trial shows.
        sheets: the votes (`rdpbench.study.votes.read_votes`).
        least: share of the catch trials that a rater must have right to count.
        keep_failed: count the others, too.
    """
    raters = [_rater(key, name, [one for one in sheets if one.rater == name], least) for name in _names(sheets)]
    counted = {one.name for one in raters if one.passed or keep_failed}
    choices = [
        _choice(key, sheet.rater, vote)
        for sheet in sheets
        if sheet.rater in counted
        for vote in sheet.votes
        if not key.trials[vote.trial].catch
    ]
    votes = sum(one.votes - one.ties for one in raters if one.name in counted)
    left = sum(one.left for one in raters if one.name in counted) / votes if votes else math.nan
    found = tuple(_group(key, target, [one for one in choices if one.first.target == target]) for target in key.targets)
    agreement = {name: made for name, better in key.better.items() if (made := _agreement(name, choices, better))}
    return Scored(key, tuple(raters), found, agreement, left)


def _names(sheets: Iterable[Sheet]) -> list[str]:
    return sorted({one.rater for one in sheets})


def _rater(key: Key, name: str, sheets: Sequence[Sheet], least: float) -> Rater:
    votes = [vote for sheet in sheets for vote in sheet.votes]
    numbers = tuple(sorted(sheet.number for sheet in sheets))
    asked = sum(one.sheet in numbers for one in key.trials.values())
    catch = [vote for vote in votes if key.trials[vote.trial].catch]
    caught = sum(vote.choice == key.trials[vote.trial].catch for vote in catch)
    others = [vote for vote in votes if not key.trials[vote.trial].catch]
    there = any(one.catch for one in key.trials.values() if one.sheet in numbers)
    # Who has answered none of the catch trials that there are has not shown anything either.
    passed = caught >= least * len(catch) and (bool(catch) or not there)
    sides = Counter(vote.choice for vote in others)
    median = float(np.median([vote.ms for vote in votes])) if votes else math.nan
    counts = (len(others), asked - len(votes), caught, len(catch), sides["left"], sides["tie"])
    return Rater(name, numbers, *counts, median, passed)


def _choice(key: Key, rater: str, vote: Vote) -> Choice:
    """The codecs in the order of the study, whichever was on the left."""
    asked: Asked = key.trials[vote.trial]
    left, right = key.shown[asked.left], key.shown[asked.right]
    outcome = {"left": FIRST, "right": SECOND, "tie": TIE}[vote.choice]
    if key.codecs.index(left.codec) > key.codecs.index(right.codec):
        left, right = right, left
        outcome = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}[outcome]
    return Choice(rater, left, right, outcome)


def _group(key: Key, target: float, choices: Sequence[Choice]) -> Group:
    codecs = key.codecs
    place = {name: number for number, name in enumerate(codecs)}
    raters = {name: number for number, name in enumerate(dict.fromkeys(one.rater for one in choices))}
    images = {name: number for number, name in enumerate(dict.fromkeys(one.first.image for one in choices))}
    votes = Comparisons(
        np.array([place[one.first.codec] for one in choices], np.int64),
        np.array([place[one.second.codec] for one in choices], np.int64),
        np.array([one.outcome for one in choices], np.int64),
        np.array([raters[one.rater] for one in choices], np.int64),
        np.array([images[one.first.image] for one in choices], np.int64),
    )
    found, why = _fitted(codecs, votes)
    tally: dict[str, Counter[int]] = {name: Counter() for name in codecs}
    for one in choices:
        tally[one.first.codec][one.outcome] += 1
        tally[one.second.codec][{FIRST: SECOND, SECOND: FIRST, TIE: TIE}[one.outcome]] += 1
    of = [[shown for shown in key.shown.values() if (shown.codec, shown.target) == (name, target)] for name in codecs]
    wins, losses, ties = (tuple(tally[name][what] for name in codecs) for what in (FIRST, SECOND, TIE))
    bpp = tuple(math.fsum(one.bpp for one in shown) / len(shown) for shown in of)
    metrics = {m: tuple(_mean([one.scores[m] for one in shown], m) for shown in of) for m in key.better}
    return Group(target, codecs, wins, losses, ties, found, why, bpp, metrics)


def _mean(scores: Sequence[float], metric: str) -> float:
    """Mean of scores as their metric takes it; the plain one for a metric that does not ship."""
    averaged = meaning(metric).averaged if metric in registry.BUILTIN["metric"] else "mean"
    return float(stated(math.fsum(weighed(scores, averaged)) / len(scores), averaged))


def _fitted(codecs: Sequence[str], votes: Comparisons) -> tuple[Fit | None, str]:
    """The scores, or why there are none, in the codecs' names."""
    if not len(votes.first):
        return None, "there are no votes of raters who passed"
    apart = groups(len(codecs), votes)
    if len(apart) > 1:
        told = "; ".join(", ".join(codecs[item] for item in one) for one in apart)
        return None, f"between these groups votes do not go both ways, so that scores would be infinite: {told}"
    try:
        return fit(len(codecs), votes), ""
    except MetricError as error:
        return None, str(error)


def _agreement(metric: str, choices: Iterable[Choice], better: bool) -> Interval | None:
    """How often people chose what the metric prefers, mean over images with its interval over images."""
    by_image: dict[str, list[float]] = {}
    for one in choices:
        lead = one.first.scores[metric] - one.second.scores[metric]
        if one.outcome == TIE or lead == 0:
            continue
        prefers_first = (lead > 0) == better
        by_image.setdefault(one.first.image, []).append(float(prefers_first == (one.outcome == FIRST)))
    if not by_image:
        return None
    return mean([math.fsum(of) / len(of) for _, of in sorted(by_image.items())], bounds=(0, 1))

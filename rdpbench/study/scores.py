"""From votes to tables: raters, scores, and how often each metric agrees with the votes."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import stated, weighed
from rdpbench.results import tables
from rdpbench.results.stats.bootstrap import Interval, mean
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.tables import Table, cell
from rdpbench.study.bradley_terry import FIRST, SECOND, TIE, Comparisons, Fit, fit, groups
from rdpbench.study.votes import Key, Sheet, ShownImage, Vote


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
    first: ShownImage
    second: ShownImage
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
    choices: tuple[Choice, ...] = ()
    """The votes that count."""


def score(key: Key, sheets: Sequence[Sheet], *, least: float = 0.75, keep_failed: bool = False) -> Scored:
    """Score a study; to count, a rater has the share ``least`` of the catch trials right, but for ``keep_failed``."""
    names = sorted({sheet.rater for sheet in sheets})
    raters = [_rater(key, name, [sheet for sheet in sheets if sheet.rater == name], least) for name in names]
    counted = {rater.name: rater for rater in raters if rater.passed or keep_failed}
    choices = [
        _choice(key, sheet.rater, vote)
        for sheet in sheets
        if sheet.rater in counted
        for vote in sheet.votes
        if not key.trials[vote.trial].catch
    ]
    votes = sum(rater.votes - rater.ties for rater in counted.values())
    left = sum(rater.left for rater in counted.values()) / votes if votes else math.nan
    compared = tuple(_group(key, rate, [c for c in choices if c.first.target == rate]) for rate in key.targets)
    shares = {name: _agreement(name, choices, better) for name, better in key.better.items()}
    return Scored(
        key, tuple(raters), compared, {name: share for name, share in shares.items() if share}, left, tuple(choices)
    )


def _rater(key: Key, name: str, sheets: Sequence[Sheet], least: float) -> Rater:
    numbers = tuple(sorted(sheet.number for sheet in sheets))
    asked = [trial for trial in key.trials.values() if trial.sheet in numbers]
    votes = [(key.trials[vote.trial], vote) for sheet in sheets for vote in sheet.votes]
    catch = [vote.choice == trial.catch for trial, vote in votes if trial.catch]
    # Who has answered none of the catch trials that there are has not shown anything either.
    passed = sum(catch) >= least * len(catch) and (bool(catch) or not any(trial.catch for trial in asked))
    sides = Counter(vote.choice for trial, vote in votes if not trial.catch)
    return Rater(
        name,
        numbers,
        votes=sides.total(),
        missing=len(asked) - len(votes),
        caught=sum(catch),
        catch=len(catch),
        left=sides["left"],
        ties=sides["tie"],
        median_ms=float(np.median([vote.ms for _, vote in votes])) if votes else math.nan,
        passed=passed,
    )


_TURNED = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}


def _choice(key: Key, rater: str, vote: Vote) -> Choice:
    """The codecs in the order of the study, whichever was on the left."""
    asked = key.trials[vote.trial]
    left, right = key.shown[asked.left], key.shown[asked.right]
    outcome = {"left": FIRST, "right": SECOND, "tie": TIE}[vote.choice]
    if key.codecs.index(left.codec) > key.codecs.index(right.codec):
        return Choice(rater, right, left, _TURNED[outcome])
    return Choice(rater, left, right, outcome)


def _group(key: Key, target: float, choices: Sequence[Choice]) -> Group:
    codecs = key.codecs
    fitted, why = _fitted(codecs, choices)
    tally: dict[str, Counter[int]] = {name: Counter() for name in codecs}
    for choice in choices:
        tally[choice.first.codec][choice.outcome] += 1
        tally[choice.second.codec][_TURNED[choice.outcome]] += 1
    wins, losses, ties = (tuple(tally[name][what] for name in codecs) for what in (FIRST, SECOND, TIE))
    of_codec = [[shown for shown in key.shown.values() if (shown.codec, shown.target) == (c, target)] for c in codecs]
    bpp = tuple(math.fsum(shown.bpp for shown in images) / len(images) for images in of_codec)
    metrics = {m: tuple(_mean([shown.scores[m] for shown in images], m) for images in of_codec) for m in key.better}
    return Group(target, codecs, wins, losses, ties, fitted, why, bpp, metrics)


def _mean(scores: Sequence[float], metric: str) -> float:
    """Mean of scores as their metric takes it; the plain one for a metric that does not ship."""
    averaged = meaning(metric).averaged if metric in registry.BUILTIN["metric"] else "mean"
    return float(stated(math.fsum(weighed(scores, averaged)) / len(scores), averaged))


def _fitted(codecs: Sequence[str], choices: Sequence[Choice]) -> tuple[Fit | None, str]:
    """The scores, or why there are none, in the codecs' names."""
    if not choices:
        return None, "there are no votes of raters who passed"

    def numbered(names: Iterable[str], known: Iterable[str] = ()) -> NDArray[np.int64]:
        listed = list(names)
        numbers = {name: number for number, name in enumerate(dict.fromkeys([*known, *listed]))}
        return np.array([numbers[name] for name in listed], np.int64)

    votes = Comparisons(
        numbered((choice.first.codec for choice in choices), codecs),
        numbered((choice.second.codec for choice in choices), codecs),
        np.array([choice.outcome for choice in choices], np.int64),
        numbered(choice.rater for choice in choices),
        numbered(choice.first.image for choice in choices),
    )
    apart = groups(len(codecs), votes)
    if len(apart) > 1:
        names = "; ".join(", ".join(codecs[item] for item in items) for items in apart)
        return None, f"between these groups votes do not go both ways, so that scores would be infinite: {names}"
    try:
        return fit(len(codecs), votes), ""
    except MetricError as error:
        return None, str(error)


def _agreement(metric: str, choices: Iterable[Choice], better: bool) -> Interval | None:
    """How often people chose what the metric prefers, mean over images with its interval over images."""
    by_image: dict[str, list[float]] = {}
    for choice in choices:
        lead = choice.first.scores[metric] - choice.second.scores[metric]
        if choice.outcome != TIE and lead != 0:
            agrees = ((lead > 0) == better) == (choice.outcome == FIRST)
            by_image.setdefault(choice.first.image, []).append(float(agrees))
    if not by_image:
        return None
    return mean([math.fsum(shares) / len(shares) for _, shares in sorted(by_image.items())], bounds=(0, 1))


# As tables and files


def all_tables(result: Scored) -> list[Table]:
    """Scores at each rate, agreement with metrics, raters."""
    out = [_score_table(result, group) for group in result.groups]
    if result.agreement:
        lines = [(name, _percent(share), str(share.n)) for name, share in result.agreement.items()]
        note = "means over images of the share of votes for the copy that the metric prefers; 50 % is chance"
        header = ("metric", "agrees % [95 %]", "images")
        out.append(Table.of_texts("Agreement of metrics with people", header, lines, [note]))
    return [*out, Table.of_texts("Raters", RATER, _rater_lines(result))]


def remarks(result: Scored) -> list[str]:
    """What a reader must know beside the tables."""
    lines = [
        f"at {group.target:g} bpp there are no scores: {group.why}" for group in result.groups if group.fit is None
    ]
    if failed := [rater.name for rater in result.raters if not rater.passed]:
        lines.append(f"missed the catch trials: {', '.join(failed)}")
    if math.isfinite(result.left):
        lines.append(
            f"{100 * result.left:.1f} % of the votes are for the left side, on which each codec is equally often"
        )
    return lines


def _score_table(result: Scored, group: Group) -> Table:
    """By falling score; a codec's chance is that of being preferred to one of score 0."""
    key, fitted = result.key, group.fit
    header = ["codec", "bpp", "score [95 %]", "chosen over the mean %", "won", "tied", "lost"]
    header += [f"{name} {'↑' if better else '↓'}" for name, better in key.better.items()]
    order = list(range(len(group.codecs)))
    if fitted is not None:
        order.sort(key=lambda item: -float(fitted.scores[item]))
    lines = []
    for item in order:
        score, chance = "–", "–"
        if fitted is not None:
            score = f"{fitted.scores[item]:+.2f} [{fitted.low[item]:+.2f}, {fitted.high[item]:+.2f}]"
            chance = f"{100 / (1 + math.exp(-fitted.scores[item])):.0f}"
        counts = [str(count[item]) for count in (group.wins, group.ties, group.losses)]
        metrics = [f"{group.metrics[name][item]:.4f}" for name in key.better]
        lines.append([group.codecs[item], f"{group.bpp[item]:.4f}", score, chance, *counts, *metrics])
    notes = [f"no scores: {group.why}"]
    if fitted is not None:
        images = len({shown.image for shown in key.shown.values()})
        note = (
            "scores are natural logarithms of odds and add up to 0; intervals are over raters and images "
            f"({sum(rater.passed for rater in result.raters)} who passed, {images} images), Student's with "
            f"{fitted.freedom} degrees of freedom"
        )
        notes = [note]
        if fitted.tie is not None:
            notes.append(f"ties by Davidson's model, t = {fitted.tie:.2f}")
        if fitted.freedom < 4:
            notes.append("few raters or images: such intervals are wide, and only roughly of 95 %")
    caption = f"{key.dataset} ({key.protocol}) at {group.target:g} bpp: Bradley-Terry scores"
    return Table.of_texts(caption, header, lines, notes)


def _percent(share: Interval) -> str:
    text = f"{100 * share.value:.1f}"
    return text + (f" [{100 * share.low:.1f}, {100 * share.high:.1f}]" if math.isfinite(share.low) else "")


RATER = ("rater", "sheets", "votes", "missing", "catch trials", "left %", "ties", "median s", "counts")


def _rater_lines(result: Scored) -> Iterator[tuple[str, ...]]:
    for rater in result.raters:
        decided = rater.votes - rater.ties
        yield (
            rater.name,
            " ".join(map(str, rater.sheets)),
            str(rater.votes),
            str(rater.missing),
            f"{rater.caught} of {rater.catch}",
            f"{100 * rater.left / decided:.0f}" if decided else "–",
            str(rater.ties),
            f"{rater.median_ms / 1000:.1f}" if math.isfinite(rater.median_ms) else "–",
            "yes" if rater.passed else "no",
        )


def markdown(result: Scored) -> str:
    """The page."""
    parts = [f"# {_escaped(result.key.title)}", "", f"Study {result.key.study}. Made by `{result.key.command}`.", ""]
    parts += [tables.markdown(table) for table in all_tables(result)]
    parts += [f"- {_escaped(line)}" for line in remarks(result)]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "|\\<>_*`[]" else letter for letter in text)


def scores_csv(result: Scored) -> str:
    """A line for each codec and rate: score, interval, counts, rate and metrics."""
    key = result.key
    header = ["dataset", "protocol", "target_bpp", "codec", "bpp", "score", "score_lo", "score_hi"]
    lines: list[Sequence[object]] = [[*header, "won", "tied", "lost", *key.better]]
    for group in result.groups:
        for item, codec in enumerate(group.codecs):
            limits = (group.fit.scores, group.fit.low, group.fit.high) if group.fit else ()
            score = [f"{values[item]:.6f}" for values in limits] or ["", "", ""]
            counts = [count[item] for count in (group.wins, group.ties, group.losses)]
            metrics = [f"{group.metrics[name][item]:.8g}" for name in key.better]
            place = [key.dataset, key.protocol, f"{group.target:g}", codec, f"{group.bpp[item]:.8g}"]
            lines.append([*place, *score, *counts, *metrics])
    return _csv(lines)


def opinions_csv(result: Scored) -> str:
    """A line for each reconstruction: the share of votes that it won (a tie is half), for ``study agreement``."""
    won: dict[tuple[str, str, str], list[float]] = {}
    for choice in result.choices:
        share = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}[choice.outcome]
        for shown, of_it in ((choice.first, share), (choice.second, 1 - share)):
            won.setdefault((shown.image, shown.codec, shown.setting), []).append(of_it)
    header = ["image", "codec", "setting", "opinion", "votes"]
    lines = [[*key, f"{math.fsum(shares) / len(shares):.6f}", len(shares)] for key, shares in sorted(won.items())]
    return _csv([header, *lines])


def raters_csv(result: Scored) -> str:
    """A line for each rater."""
    return _csv([RATER, *_rater_lines(result)])


def _csv(lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(map(cell, line) for line in lines)
    return out.getvalue()

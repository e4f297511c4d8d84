"""From votes to tables: raters, scores, and how well each metric agrees with the votes, or with anybody's opinions.

Opinions are put beside a run's scores image by image. Spearman's and Kendall's (tau b) correlations need no scale.
Pearson's is taken after the usual logistic curve with four parameters from the metric to the opinion (VQEG, "FR-TV
phase II", 2003), fitted once to all. A metric for which lower is better is turned round: 1 is perfect agreement.
Intervals draw images, with all that was made of them; the curve stays.
"""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rdpbench import registry
from rdpbench.errors import ConfigError, MetricError, check_names
from rdpbench.figures.style import drawing, new_figure, save
from rdpbench.lazy import pd
from rdpbench.metrics.contract import stated, weighed
from rdpbench.paths import read_table
from rdpbench.results import tables
from rdpbench.results.names import Names
from rdpbench.results.stats import bootstrap
from rdpbench.results.stats.bootstrap import SMALL, Interval
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Where, titles
from rdpbench.results.tables import Table, cell
from rdpbench.setting import Setting, digits
from rdpbench.study.bradley_terry import FIRST, SECOND, TIE, Comparisons, Fit, Floats, fit, groups
from rdpbench.study.votes import Key, Sheet, ShownImage, Vote


@dataclass(frozen=True)
class Rater:
    """What one rater did, over all sheets."""

    name: str
    sheets: tuple[int, ...]
    votes: Counter[str]
    """By answer (``left``, ``right``, ``tie``), without catch trials."""
    missing: int
    """Trials of these sheets without an answer."""
    caught: int
    """Catch trials with the original chosen."""
    catch: int
    """Catch trials answered."""
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
    """Share of votes for the left side, of raters who count."""
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
    sides = sum((rater.votes for rater in counted.values()), Counter[str]())
    decided = sides["left"] + sides["right"]
    left = sides["left"] / decided if decided else math.nan
    compared = tuple(_group(key, rate, [c for c in choices if c.first.target == rate]) for rate in key.targets)
    known = ((name, _agreement(name, choices, better)) for name, better in key.better.items())
    agreement = {name: share for name, share in known if share}
    return Scored(key, tuple(raters), compared, agreement, left, tuple(choices))


def _rater(key: Key, name: str, sheets: Sequence[Sheet], least: float) -> Rater:
    numbers = tuple(sorted(sheet.number for sheet in sheets))
    asked = [trial for trial in key.trials.values() if trial.sheet in numbers]
    votes = [(key.trials[vote.trial], vote) for sheet in sheets for vote in sheet.votes]
    catch = [vote.choice == trial.catch for trial, vote in votes if trial.catch]
    # Who has answered none of the catch trials that there are has not shown anything either.
    passed = sum(catch) >= least * len(catch) and (bool(catch) or not any(trial.catch for trial in asked))
    sides = Counter(vote.choice for trial, vote in votes if not trial.catch)
    median = float(np.median([vote.ms for _, vote in votes])) if votes else math.nan
    return Rater(name, numbers, sides, len(asked) - len(votes), sum(catch), len(catch), median, passed)


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
        return None, "there are no votes of raters who count"

    votes = Comparisons(
        np.array([codecs.index(choice.first.codec) for choice in choices]),
        np.array([codecs.index(choice.second.codec) for choice in choices]),
        np.array([choice.outcome for choice in choices]),
        np.unique([choice.rater for choice in choices], return_inverse=True)[1],
        np.unique([choice.first.image for choice in choices], return_inverse=True)[1],
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
    return bootstrap.mean([math.fsum(shares) / len(shares) for _, shares in sorted(by_image.items())], bounds=(0, 1))


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
            f"({len(_counted(result))} who count, {images} images), Student's with "
            f"{fitted.freedom} degrees of freedom"
        )
        notes = [note]
        if fitted.tie is not None:
            notes.append(f"ties by Davidson's model, t = {fitted.tie:.2f}")
        if fitted.freedom < 4:
            notes.append("few raters or images: such intervals are wide, and only roughly of 95 %")
    caption = f"{key.dataset} ({key.protocol}) at {digits(group.target)} bpp: Bradley-Terry scores"
    return Table.of_texts(caption, header, lines, notes)


def _percent(share: Interval) -> str:
    text = f"{100 * share.value:.1f}"
    return text + (f" [{100 * share.low:.1f}, {100 * share.high:.1f}]" if math.isfinite(share.low) else "")


RATER = ("rater", "sheets", "votes", "missing", "catch trials", "left %", "ties", "median s", "counts")


def _rater_lines(result: Scored) -> Iterator[tuple[str, ...]]:
    counted = _counted(result)
    for rater in result.raters:
        decided = rater.votes["left"] + rater.votes["right"]
        yield (
            rater.name,
            " ".join(map(str, rater.sheets)),
            str(rater.votes.total()),
            str(rater.missing),
            f"{rater.caught} of {rater.catch}",
            f"{100 * rater.votes['left'] / decided:.0f}" if decided else "–",
            str(rater.votes["tie"]),
            f"{rater.median_ms / 1000:.1f}" if math.isfinite(rater.median_ms) else "–",
            "yes" if rater.passed or rater.name in counted else "no",
        )


def _counted(result: Scored) -> set[str]:
    """The raters whose votes are in the scores: those who passed, or all."""
    return {choice.rater for choice in result.choices}


def page(result: Scored) -> str:
    """The page."""
    parts = [
        f"# {_escaped(result.key.title)}",
        "",
        f"Study {result.key.study}. Made by `{result.key.command}`.",
        "",
    ]
    parts += [tables.markdown(table) for table in all_tables(result)]
    parts += [f"- {_escaped(line)}" for line in remarks(result)]
    return "\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Also brackets, which tables leave: a title or name of somebody makes no link."""
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
            place = [key.dataset, key.protocol, digits(group.target), codec, f"{group.bpp[item]:.8g}"]
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


# Metrics beside opinions

COEFFICIENTS = ("Spearman", "Kendall", "Pearson after the fit")
MEANT = ("image", "codec", "setting", "rate", "dataset", "protocol", "opinion")
"""Columns of opinions."""
LEAST = 5
"""Opinions; a curve with four parameters goes through four."""


class Coefficient(NamedTuple):
    """A correlation with its interval, NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Agreement:
    """How far a metric and people agree."""

    metric: str
    opinions: Floats
    scores: Floats
    """Of the same images, in the metric's own unit."""
    fitted: Floats
    """The opinions that the curve gives for these scores."""
    coefficients: tuple[Coefficient, ...]
    """In the order of `COEFFICIENTS`."""
    images: int


def read_opinions(path: Path) -> pd.DataFrame:
    """Mean opinions of a CSV as a frame.

    It has the columns ``image``, ``codec`` and ``opinion`` (higher is better), and ``setting``, such as ``quality 40``,
    or ``rate`` where a codec has several. Opinions are others' mean opinion scores, or the shares of votes in the
    ``opinions.csv`` of one's own study.

    Raises:
        ConfigError: no such file or columns, or a line without a number.
    """
    columns, lines = read_table(path)
    if lacking := [name for name in ("image", "codec", "opinion") if name not in columns]:
        raise ConfigError(
            f"{path} has no column {lacking[0]!r}; opinions are a CSV with image, codec, opinion, and setting or rate "
            f"where a codec has several; it has {', '.join(columns) or 'nothing'}"
        )
    for number, line in lines.items():
        for name in {"opinion", "rate"} & set(columns):
            try:
                if not math.isfinite(float(line[name])):
                    raise ValueError
            except ValueError:
                raise ConfigError(f"{path}, line {number}: {name} is {line[name]!r}, and no number") from None
    numbers = {name: "float64" for name in ("opinion", "rate") if name in columns}
    return pd.DataFrame(lines.values(), columns=columns).astype(numbers)


def matched(opinions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Opinions beside the scores of ``read_results(run, per="image")``: a line for each, a column for each metric.

    Raises:
        UnknownName: a codec that the run does not have.
        ConfigError: a codec has several settings, or an image is in several sets, and the opinions do not name one;
            or no image is in both.
    """
    opinions = opinions[[name for name in opinions if name in MEANT]]  # others are not ours, whatever they are called
    good = scores[(scores["status"] == "ok") & scores["value"].notna()]
    places = good[["rate_field", "rate", "target_bpp"]].drop_duplicates()
    words = [Setting.of_line(line).words for _, line in places.iterrows()]
    good = good.merge(places.assign(setting=words), on=list(places))
    # Raters saw one image, and a study shows that of the lowest seed.
    seeds = good.groupby(["codec", "setting", "image", *Where._fields], dropna=False)["seed"]
    good = good[good["seed"] == seeds.transform("min")]
    check_names("codec", map(str, opinions["codec"].unique()), good["codec"].unique(), "in the run")
    key = ["image", "codec", *(name for name in ("setting", "rate", "dataset", "protocol") if name in opinions)]
    wanted = good.merge(opinions[key].drop_duplicates(), on=key)
    several = wanted.groupby(["codec", "image", "metric"])["setting"].nunique()
    if not {"setting", "rate"} & {*key} and (several > 1).any():
        codec = next(codec for codec, _, _ in several[several > 1].index)
        settings = ", ".join(sorted(wanted[wanted["codec"] == codec]["setting"].unique()))
        raise ConfigError(f"the run has {codec} at {settings}, and the opinions do not say which: add a column setting")
    place = list(Where._fields)
    pairs = wanted[list(dict.fromkeys((*key, *place)))].drop_duplicates().sort_values(place)
    if (twice := pairs.duplicated(key, keep=False)).any():
        image = pairs[twice].iloc[0]["image"]
        sets = [Where(*line) for line in zip(*(pairs[twice][name] for name in Where._fields), strict=True)]
        listed = ", ".join(titles(list(dict.fromkeys(sets))).values())
        raise ConfigError(
            f"the run has {image} in several sets, {listed}, and the opinions do not say which: add a column dataset "
            "or protocol; of two sets of one name, name a run of one of them"
        )
    wide = wanted.pivot_table(index=key, columns="metric", values="value", aggfunc="mean").reset_index()
    both = opinions.merge(wide, on=key)
    if both.empty:
        raise ConfigError(
            f"no opinion is of an image and setting of the run; its images are {', '.join(good['image'].unique()[:5])}"
        )
    return both


def agree(both: pd.DataFrame, metrics: Sequence[str]) -> list[Agreement]:
    """All metrics by falling Spearman; one with fewer than `LEAST` opinions, or that is constant, is left out."""
    out = []
    for metric in metrics:
        known = both[both[metric].notna() & np.isfinite(both[metric].astype(float))]
        if len(known) < LEAST or known[metric].nunique() < 2 or known["opinion"].nunique() < 2:
            continue
        sign = 1.0 if meaning(metric).higher_is_better else -1.0
        opinions, values = (known[name].to_numpy(np.float64) for name in ("opinion", metric))
        fitted = logistic(sign * values, opinions)
        groups = [np.flatnonzero(known["image"].to_numpy() == image) for image in sorted(known["image"].unique())]
        coefficients = _coefficients(opinions, sign * values, fitted, groups)
        out.append(Agreement(metric, opinions, values, fitted, coefficients, len(groups)))
    return sorted(out, key=lambda agreement: -agreement.coefficients[0].value)


def logistic(scores: Floats, opinions: Floats) -> Floats:
    """Opinions by the fitted curve ``b + (a - b) / (1 + exp(-(x - c) / |d|))``; by a line where no curve is found.

    >>> x = np.linspace(-3, 3, 9)
    >>> float(np.abs(logistic(x, 1 + 4 / (1 + np.exp(-x / 0.5))) - (1 + 4 / (1 + np.exp(-x / 0.5)))).max()) < 1e-6
    True
    """
    from scipy.optimize import OptimizeWarning, curve_fit
    from scipy.special import expit

    centre, spread = scores.mean(), scores.std()
    x = (scores - centre) / spread

    def curve(x: Floats, a: float, b: float, c: float, d: float) -> Any:
        return b + (a - b) * expit((x - c) / max(abs(d), 1e-6))

    line = np.polyval(np.polyfit(x, opinions, 1), x)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            start = (opinions.max(), opinions.min(), 0.0, 0.5)
            found, _ = curve_fit(curve, x, opinions, start, maxfev=20_000)
    except RuntimeError:
        return np.asarray(line)
    fitted = np.asarray(curve(x, *found), np.float64)
    better = ((fitted - opinions) ** 2).sum() <= ((line - opinions) ** 2).sum()
    return fitted if better else np.asarray(line)


def _coefficients(opinions: Floats, scores: Floats, fitted: Floats, groups: Sequence[Any]) -> tuple[Coefficient, ...]:
    def three(chosen: Any) -> list[float]:
        from scipy.stats import kendalltau, spearmanr

        first, second, curve = opinions[chosen], scores[chosen], fitted[chosen]
        if min(np.ptp(first), np.ptp(second), np.ptp(curve)) == 0:
            return [math.nan] * 3
        pearson = np.corrcoef(first, curve)[0, 1]
        return [float(spearmanr(first, second)[0]), float(kendalltau(first, second)[0]), float(pearson)]

    values = three(slice(None))
    if len(groups) < SMALL:
        return tuple(map(Coefficient, values))
    resamples = [
        three(np.concatenate([groups[n] for n in pick])) for picks in bootstrap.draws(len(groups)) for pick in picks
    ]
    low, high = np.nanquantile(np.array(resamples), bootstrap.shares(len(groups)), axis=0)
    return tuple(Coefficient(*three_of) for three_of in zip(values, low.tolist(), high.tolist(), strict=True))


def agreement_table(agreements: Sequence[Agreement], left_out: Sequence[str] = (), unmet: int = 0) -> Table:
    """The metrics that agree most first; ``unmet`` opinions are of nothing that the run has."""
    lines = [
        (each.metric, *map(_coefficient, each.coefficients), len(each.opinions), each.images) for each in agreements
    ]
    notes = ["1: ranked as people do; lower-is-better metrics are turned round. Intervals of 95 % draw images"]
    if any(math.isnan(each.coefficients[0].low) for each in agreements):
        notes.append(f"without an interval: fewer than {SMALL} images")
    if unmet:
        notes.append(f"left out: {unmet} opinions of an image, codec and setting that the run has no value of")
    if left_out:
        notes.append(f"left out, constant or of fewer than {LEAST} opinions: {', '.join(left_out)}")
    header = ("metric", *COEFFICIENTS, "opinions", "images")
    return Table.of_texts("Agreement of metrics with opinions", header, lines, notes)


def _coefficient(coefficient: Coefficient) -> str:
    limits = "" if math.isnan(coefficient.low) else f" [{coefficient.low:.3f}, {coefficient.high:.3f}]"
    return f"{coefficient.value:.3f}{limits}"


def agreement_csv(agreements: Sequence[Agreement]) -> str:
    """A line for each metric."""
    names = [name.partition(" ")[0].casefold() for name in COEFFICIENTS]
    lines: list[Sequence[object]] = [
        ["metric", *(f"{name}{end}" for name in names for end in ("", "_lo", "_hi")), "opinions", "images"]
    ]
    for each in agreements:
        numbers = [f"{number:.6f}" if math.isfinite(number) else "" for three in each.coefficients for number in three]
        lines.append([each.metric, *numbers, len(each.opinions), each.images])
    return _csv(lines)


def agreement_plot(agreements: Sequence[Agreement], stem: Path) -> list[Path]:
    """A panel for each metric: opinions over scores, and the fitted curve. Raises `StoreUnwritable`."""
    across = min(3, len(agreements))
    down = -(-len(agreements) // across)
    with drawing():
        figure = new_figure(2.4 * across, 2.1 * down)
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis, each in zip(axes, agreements, strict=False):
            order = np.argsort(each.scores)
            axis.plot(each.scores, each.opinions, ".", color="#0072B2", markersize=4)
            axis.plot(each.scores[order], each.fitted[order], color="#D55E00", linewidth=1)
            axis.set_xlabel(Names().metric(each.metric))
            axis.set_ylabel("opinion")
            axis.set_title(f"Spearman {each.coefficients[0].value:.3f}")
        for axis in axes[len(agreements) :]:
            axis.set_axis_off()
        return save(figure, stem)

"""Which metric ranks images as people do? Rank correlations of each with mean opinions, as a table and a plot.

Opinions are a CSV with the columns ``image``, ``codec`` and ``opinion`` (higher is better), and ``setting``, such as
``quality 40``, or ``rate`` where a codec has several: mean opinion scores of others, or ``opinions.csv`` of one's own
study (`study.command`), whose opinions are shares of votes. They are put beside a run's scores image by image.

Spearman's and Kendall's (tau b) correlations need no scale. Pearson's is taken after the usual logistic curve with
four parameters from the metric to the opinion (VQEG, "FR-TV phase II", 2003), fitted once to all. A metric for which
lower is better is turned round: 1 is perfect agreement. Intervals draw images, with all that was made of them; the
curve stays.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.figures.style import drawing, new_figure, save
from rdpbench.lazy import pd
from rdpbench.results.names import Names
from rdpbench.results.stats.bootstrap import SMALL, draws, shares
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.tables import Table, cell
from rdpbench.setting import Setting

Floats = NDArray[np.float64]
COEFFICIENTS = ("Spearman", "Kendall", "Pearson after the fit")
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
    """Mean opinions as a frame. Raises `ConfigError`: no such file or columns, or a line without a number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as opinions: {error}") from error
    columns = list(lines[0]) if lines else []
    if lacking := [name for name in ("image", "codec", "opinion") if name not in columns]:
        raise ConfigError(
            f"{path} has no column {lacking[0]!r}; opinions are a CSV with image, codec, opinion, and setting or rate "
            f"where a codec has several; it has {', '.join(map(str, columns)) or 'nothing'}"
        )
    for number, line in enumerate(lines, start=2):
        for name in {"opinion", "rate"} & set(columns):
            try:
                if not math.isfinite(float(line[name])):
                    raise ValueError
            except (TypeError, ValueError):
                raise ConfigError(f"{path}, line {number}: {name} is {line[name]!r}, and no number") from None
    return pd.DataFrame(lines).astype({name: "float64" for name in ("opinion", "rate") if name in columns})


def matched(opinions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Opinions beside the scores of ``read_results(run, per="image")``: a line for each, a column for each metric.

    Raises:
        UnknownName: a codec that the run does not have.
        ConfigError: a codec has several settings and the opinions name none, or no image is in both.
    """
    good = scores[(scores["status"] == "ok") & scores["value"].notna()]
    places = good[["rate_field", "rate", "target_bpp"]].drop_duplicates()
    words = [Setting.of_line(line).words for _, line in places.iterrows()]
    good = good.merge(places.assign(setting=words), on=list(places))
    for codec in opinions["codec"].unique():
        if codec not in set(good["codec"]):
            raise UnknownName("codec", str(codec), sorted(good["codec"].unique()), "in the run")
    key = ["image", "codec", *(name for name in ("setting", "rate") if name in opinions)]
    wanted = good.merge(opinions[key].drop_duplicates(), on=key)
    several = wanted.groupby(["codec", "image", "metric"])["setting"].nunique()
    if len(key) == 2 and (several > 1).any():
        codec = next(codec for codec, _, _ in several[several > 1].index)
        settings = ", ".join(sorted(wanted[wanted["codec"] == codec]["setting"].unique()))
        raise ConfigError(f"the run has {codec} at {settings}, and the opinions do not say which: add a column setting")
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

    import warnings

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
    resamples = [three(np.concatenate([groups[n] for n in pick])) for picks in draws(len(groups)) for pick in picks]
    low, high = np.nanquantile(np.array(resamples), shares(len(groups)), axis=0)
    return tuple(Coefficient(*three_of) for three_of in zip(values, low.tolist(), high.tolist(), strict=True))


def table(agreements: Sequence[Agreement], left_out: Sequence[str] = ()) -> Table:
    """The metrics that agree most first."""
    lines = [(each.metric, *map(_text, each.coefficients), len(each.opinions), each.images) for each in agreements]
    notes = ["1: ranked as people do; lower-is-better metrics are turned round. Intervals of 95 % draw images"]
    if any(math.isnan(each.coefficients[0].low) for each in agreements):
        notes.append(f"without an interval: fewer than {SMALL} images")
    if left_out:
        notes.append(f"left out, constant or of fewer than {LEAST} opinions: {', '.join(left_out)}")
    header = ("metric", *COEFFICIENTS, "opinions", "images")
    return Table.of_texts("Agreement of metrics with opinions", header, lines, notes)


def _text(coefficient: Coefficient) -> str:
    limits = "" if math.isnan(coefficient.low) else f" [{coefficient.low:.3f}, {coefficient.high:.3f}]"
    return f"{coefficient.value:.3f}{limits}"


def as_csv(agreements: Sequence[Agreement]) -> str:
    """A line for each metric."""
    names = [name.partition(" ")[0].casefold() for name in COEFFICIENTS]
    header = ["metric", *(f"{name}{end}" for name in names for end in ("", "_lo", "_hi")), "opinions", "images"]
    lines: list[Sequence[object]] = [header]
    for each in agreements:
        numbers = [f"{number:.6f}" if math.isfinite(number) else "" for three in each.coefficients for number in three]
        lines.append([each.metric, *numbers, len(each.opinions), each.images])
    return "".join(",".join(cell(value) for value in line) + "\n" for line in lines)


def plot(agreements: Sequence[Agreement], stem: Path) -> list[Path]:
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

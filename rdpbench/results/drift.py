"""Did a whole curve move? BD-rate and BD-metric of a run against its stored curve, within the bounds of the gate.

A point has a tolerance of its own; a codec that is a little worse at all of its points stays within each of them, and
its curve has moved all the same. Where there is no delta, there is a reason, as in `rdpbench.results.bd`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rdpbench.results.bd import Delta, RateValues, bd_metric, bd_rate
from rdpbench.results.curves import Curve, Point
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.tolerances import Bound, Bounds, Tolerance


@dataclass(frozen=True)
class Drift:
    """How far one curve moved under one metric."""

    metric: str
    unit: str
    rate: Delta
    metric_delta: Delta
    rate_bound: float
    """Percent; NaN where the bounds say why there is none."""
    metric_bound: float

    @property
    def beyond(self) -> tuple[str, ...]:
        """The deltas that are beyond their bounds, in words."""
        return tuple(
            f"{name} {said(delta, bound, unit)}"
            for name, delta, bound, unit in self._both()
            if abs(delta.value) > bound
        )

    def __str__(self) -> str:
        return "; ".join(f"{name} {said(delta, bound, unit)}" for name, delta, bound, unit in self._both())

    def _both(self) -> tuple[tuple[str, Delta, float, str], ...]:
        return (
            ("BD-rate", self.rate, self.rate_bound, "%"),
            (f"BD-{self.metric}", self.metric_delta, self.metric_bound, self.unit),
        )


def said(delta: Delta, bound: float, unit: str) -> str:
    """A delta in words.

    >>> said(Delta(0.25, "pchip"), 0.1, "%"), len(said(Delta(math.nan, "pchip", "too few"), 0.1, "%"))
    ('+0.25 % (allowed ±0.1)', 17)
    """
    if delta.reason:
        return f"not told: {delta.reason}"
    return f"{delta.value:+.3g}{f' {unit}' if unit else ''} (allowed ±{bound:.3g})"


def drifts(stored: Curve, now: Curve, metrics: Iterable[str], bounds: Bounds) -> list[Drift]:
    """The deltas of the run against the stored curve, over the points that both have, under each metric."""
    after = {point.setting: point for point in now.points}
    both = [(point, after[point.setting]) for point in stored.points if point.setting in after]
    out = []
    for metric in metrics:
        of = meaning(metric)
        pair: list[RateValues] = [
            # The rate is of all images: it is not that of a value over some of them.
            [(point[side].bpp, point[side].values[metric]) for point in both if _whole(point, metric)]
            for side in (0, 1)
        ]
        rate_bound, metric_bound = bounds.of(metric)
        level = math.fsum(value for _, value in pair[0]) / len(pair[0]) if pair[0] else math.nan
        out.append(
            Drift(
                metric,
                of.unit,
                _told(bd_rate(*pair, higher_is_better=of.higher_is_better, method=bounds.method), rate_bound),
                _told(bd_metric(*pair, method=bounds.method), metric_bound),
                _width(rate_bound, 0.0),
                _width(metric_bound, abs(level)),
            )
        )
    return out


def _whole(pair: tuple[Point, Point], metric: str) -> bool:
    return all(metric in point.values and metric not in point.averaged for point in pair)


def _told(delta: Delta, bound: Bound) -> Delta:
    """With the gate's words for the two curves; or the reason why it is not compared."""
    if isinstance(bound, str):
        return Delta(math.nan, delta.method, bound)
    return replace(delta, reason=delta.reason.replace("anchor: ", "stored: ").replace("test: ", "now: "))


def _width(bound: Bound, level: float) -> float:
    return bound.absolute + bound.relative * level if isinstance(bound, Tolerance) else math.nan

"""Curves of rate and quality: BD-rate and BD-metric of two, and interpolation between the points of one.

BD-rate is the mean difference in rate at equal quality, in percent, over the qualities that both curves reach. It needs
the rate as a function of the quality: the metric must rise (or fall, where lower is better) strictly from point to
point. Perceptual metrics of generative codecs often are flat or turn round; a cubic through such points still gives a
number (862 % in one case). Here the answer is then NaN and a reason, and *BD-metric* is the one to use: the mean
difference in quality at equal rate, over the common range of log rates, which asks nothing of the metric.

Computed by the ``bjontegaard`` package (imported late, as it imports matplotlib). ``pchip`` is the method of the common
test conditions and the default, ``cubic`` the polynomial of VCEG-M33, ``akima`` what "Beyond Bjøntegaard" recommends.
Cubic and akima may turn round between points that do not. BD-rate is refused where the rate then falls by more than 1 %
of its (log) range, BD-metric where its interpolation turns by more than 5 % of the metric's range.

Sources: Bjøntegaard, VCEG-M33, 2001; JCTVC-L1100 (common test conditions); Herglotz et al., "Beyond Bjøntegaard: Limits
of video compression performance comparisons", ICIP 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import UnknownName

Floats = NDArray[np.float64]
RateValues = Sequence[tuple[float, float]]
"""``(rate, value)`` of each point, in any order; rates in bits per pixel or any other unit, above zero."""

METHODS = ("pchip", "akima", "cubic")
MINIMUM_POINTS = 4
NARROW = 0.75
"""A smaller share of common range makes a comparison that says little of the curves."""
TURN = 0.01
"""How far an interpolated rate may fall with rising quality, of its log range: published test data need 0.0002."""
SWING = 0.05
"""How far an interpolated metric may turn back with rising rate, of its range: published test data need 0.018."""


@dataclass(frozen=True)
class Delta:
    """One Bjøntegaard delta of ``test`` against ``anchor``."""

    value: float
    """Percent of rate, or the metric's unit; NaN where ``reason`` says why."""
    method: str
    reason: str = ""
    overlap: tuple[float, float] = (math.nan, math.nan)
    """The common range: of the metric for BD-rate, of the rate for BD-metric; NaN before it is known."""
    fraction: float = math.nan
    """Common range over the range of both curves together, 0 to 1; for BD-metric on log rates."""

    @property
    def narrow(self) -> bool:
        """Do the curves share less than three quarters of their range?"""
        return self.fraction < NARROW


class _NoNumber(Exception):
    """Why these curves have no delta."""


def bd_rate(anchor: RateValues, test: RateValues, *, higher_is_better: bool = True, method: str = "pchip") -> Delta:
    """Mean difference in rate at equal quality, in percent; negative means that ``test`` needs less.

    NaN with a reason for: fewer than 4 points, values that are not finite, a rate of zero or below, two points at one
    rate, a metric that does not get strictly better with the rate, curves that share no quality.

    Raises:
        UnknownName: no such method.

    >>> anchor = [(0.1, 30.0), (0.2, 33.0), (0.4, 36.0), (0.8, 39.0)]
    >>> round(bd_rate(anchor, [(0.9 * rate, value) for rate, value in anchor]).value, 9)
    -10.0
    >>> bd_rate(anchor, [(0.1, 3.0), (0.2, 5.0), (0.4, 4.0), (0.8, 6.0)]).reason
    'test: the metric does not rise from 5 at rate 0.2 to 4 at rate 0.4'
    """
    import bjontegaard  # type: ignore[import-untyped]  # the package has no types

    delta = _unknown(method)
    try:
        (rates, values), (test_rates, test_values) = _in_order(anchor, "anchor"), _in_order(test, "test")
        _check_monotone(rates, values, higher_is_better, "anchor")
        _check_monotone(test_rates, test_values, higher_is_better, "test")
        overlap, fraction = _overlap(values, test_values, "quality")
        delta = replace(delta, overlap=overlap, fraction=fraction)
        # Negated where lower is better, and the range of both brought to 0..1, which spares the polynomial rounding.
        sign = 1 if higher_is_better else -1
        values, test_values, edges = sign * values, sign * test_values, sorted((sign * overlap[0], sign * overlap[1]))
        low = min(values.min(), test_values.min())
        span = max(values.max(), test_values.max()) - low
        scaled, test_scaled = (values - low) / span, (test_values - low) / span
        number, *curves = bjontegaard.bd_rate(rates, scaled, test_rates, test_scaled, method=method, **_ASKED)
        for curve, own, who in zip(curves, (rates, test_rates), ("anchor", "test"), strict=True):
            steps = np.diff(curve(np.linspace((edges[0] - low) / span, (edges[1] - low) / span, 201)))
            _check_turn(steps[steps < 0], TURN * math.log10(own[-1] / own[0]), method, who)
        return _with_number(delta, number)
    except _NoNumber as why:
        return replace(delta, reason=str(why))


def bd_metric(anchor: RateValues, test: RateValues, *, method: str = "pchip") -> Delta:
    """Mean difference in the metric at equal rate, over the common range of log rates; in the metric's unit.

    Positive means that ``test`` has higher values: better for PSNR, worse for LPIPS. The metric need not be monotone.
    NaN with a reason as for `bd_rate`, and for curves that share no rate.

    Raises:
        UnknownName: no such method.

    >>> anchor = [(0.1, 0.4), (0.2, 0.3), (0.4, 0.2), (0.8, 0.1)]
    >>> delta = bd_metric(anchor, [(rate, 0.9 * value) for rate, value in anchor])
    >>> round(delta.value, 9), delta.fraction
    (-0.025, 1.0)
    """
    import bjontegaard

    delta = _unknown(method)
    try:
        (rates, values), (test_rates, test_values) = _in_order(anchor, "anchor"), _in_order(test, "test")
        (low, high), fraction = _overlap(np.log10(rates), np.log10(test_rates), "rate")
        delta = replace(delta, overlap=(10**low, 10**high), fraction=fraction)
        number, *curves = bjontegaard.bd_psnr(rates, values, test_rates, test_values, method=method, **_ASKED)
        for curve, own, who in zip(curves, (values, test_values), ("anchor", "test"), strict=True):
            steps = np.diff(own)
            # What a curve does between points that turn is not known: each method has a guess.
            if not ((steps > 0).any() and (steps < 0).any()):
                between = np.diff(curve(np.linspace(low, high, 201)))
                back = between[between < 0] if steps.sum() > 0 else between[between > 0]
                _check_turn(back, SWING * float(own.max() - own.min()), method, who)
        return _with_number(delta, number)
    except _NoNumber as why:
        return replace(delta, reason=str(why))


_ASKED: dict[str, Any] = {"require_matching_points": False, "interpolators": True, "min_overlap": 0}
"""Of ``bjontegaard``, which then returns the number and both interpolated curves."""


def _unknown(method: str) -> Delta:
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    return Delta(math.nan, method)


def _in_order(points: RateValues, who: str) -> tuple[Floats, Floats]:
    """Rates and values by rising rate."""
    if len(points) < MINIMUM_POINTS:
        raise _NoNumber(f"{who}: {len(points)} point{'s' * (len(points) != 1)}, and at least {MINIMUM_POINTS} needed")
    array = np.array(sorted(points), np.float64)
    rates, values = array[:, 0], array[:, 1]
    for rate, value in array:
        if not (math.isfinite(rate) and math.isfinite(value)):
            raise _NoNumber(f"{who}: the value {value:g} at rate {rate:g} is not finite")
        if rate <= 0:
            raise _NoNumber(f"{who}: the rate {rate:g} has no logarithm")
    equal = np.flatnonzero(np.diff(np.log10(rates)) <= 0)
    if len(equal):
        raise _NoNumber(f"{who}: two points at rate {rates[equal[0]]:g}")
    return rates, values


def _check_monotone(rates: Floats, values: Floats, higher_is_better: bool, who: str) -> None:
    wrong = np.flatnonzero(np.diff(values if higher_is_better else -values) <= 0)
    if len(wrong):
        first, second = (f"{values[n]:.6g} at rate {rates[n]:.4g}" for n in (wrong[0], wrong[0] + 1))
        verb = "rise" if higher_is_better else "fall"
        raise _NoNumber(f"{who}: the metric does not {verb} from {first} to {second}")


def _overlap(first: Floats, second: Floats, what: str) -> tuple[tuple[float, float], float]:
    low, high = max(first.min(), second.min()), min(first.max(), second.max())
    span = max(first.max(), second.max()) - min(first.min(), second.min())
    if not low < high:
        raise _NoNumber(f"the curves share no range of {what}")
    return (float(low), float(high)), float((high - low) / span)


def _check_turn(back: Floats, most: float, method: str, who: str) -> None:
    if abs(float(back.sum())) > most:
        raise _NoNumber(f"{who}: the {method} interpolation turns round between the points; take pchip")


def _with_number(delta: Delta, number: float) -> Delta:
    if not math.isfinite(number):
        raise _NoNumber("the curves are too far apart for a number")
    return replace(delta, value=float(number))


# Interpolation: linear in the logarithm of the rate, and nothing beyond the points


def usable(rates: Floats, values: Floats) -> tuple[Floats, Floats]:
    """The points of a curve that can be interpolated, by rising rate."""
    good = np.isfinite(rates) & np.isfinite(values) & (rates > 0)
    order = np.argsort(rates[good], kind="stable")
    return rates[good][order], values[good][order]


def value_at(rates: Floats, values: Floats, bpp: float) -> float:
    """A curve's value at a rate; NaN where its points do not reach it from both sides.

    Points of one rate count as their mean: which of them a line starts at would depend on their order.

    >>> value_at(np.array([0.1, 0.4]), np.array([30.0, 34.0]), 0.2)
    32.0
    """
    along, there = usable(rates, values)
    if len(along) == 0 or not along[0] <= bpp <= along[-1]:
        return math.nan
    along, of_point = np.unique(along, return_inverse=True)
    there = np.bincount(of_point, there) / np.bincount(of_point)
    return float(np.interp(math.log(bpp), np.log(along), there))


def rate_at(rates: Floats, values: Floats, value: float) -> float:
    """The rate at which a curve passes a value; NaN if it never does, or more than once.

    A point that has the value counts as passing, although the curve may only touch it there: its rate is measured.

    >>> rate_at(np.array([0.1, 0.4]), np.array([30.0, 34.0]), 32.0)
    0.2
    """
    along, there = usable(rates, values)
    ahead, logs = there - value, np.log(along)
    crossings, equal = sign_changes(logs, ahead), logs[ahead == 0]
    if len(equal):
        return float(np.exp(equal[0])) if len(equal) == 1 and len(crossings) <= 1 else math.nan
    return round(float(np.exp(crossings[0])), 12) if len(crossings) == 1 else math.nan


def sign_changes(x: Floats, ahead: Floats) -> list[float]:
    """Where a line through these points passes zero; of a run of zeros the middle, if the signs beside it differ."""
    places = []
    for here, there in pairwise(np.flatnonzero(ahead)):
        if ahead[here] * ahead[there] < 0:
            if there == here + 1:
                share = ahead[here] / (ahead[here] - ahead[there])
                places.append(float(x[here] + share * (x[there] - x[here])))
            else:
                places.append(float(x[here + 1] + x[there - 1]) / 2)
    return places


def gap(rates: Floats, bpp: float) -> float:
    """By which factor the rates differ between which a value at ``bpp`` is interpolated; 1 at a point itself.

    >>> gap(np.array([0.1, 0.4, 0.8]), 0.2)
    4.0
    """
    below, above = rates[rates <= bpp].max(), rates[rates >= bpp].min()
    return float(above / below)

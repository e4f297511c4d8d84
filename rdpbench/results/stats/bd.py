"""Bjøntegaard deltas of two rate-quality curves: BD-rate and BD-metric, with a reason where there is no number.

BD-rate is the mean difference in rate at equal quality, in percent, over the qualities that both curves reach. It needs
the rate as a function of the quality: the metric must rise (or fall, where lower is better) strictly from point to
point. Perceptual metrics of generative codecs often are flat or turn round; a cubic through such points is a number all
the same (862 % in one case). There the answer here is NaN and a reason, and *BD-metric* is the one to use: the mean
difference in quality at equal rate, over the common range of log rates, which asks for nothing of the metric.

Computed by the ``bjontegaard`` package (imported late, as it imports matplotlib). ``pchip`` is the method of the common
test conditions and the default, ``cubic`` the polynomial of VCEG-M33, ``akima`` what "Beyond Bjøntegaard" recommends.
Cubic and akima may turn round between points that do not: where the rate then falls by more than 1 % of its (log)
range, BD-rate is refused, too. BD-metric is, where the metric does not turn at its points and its interpolation turns
by more than 5 % of its range.

Sources: Bjøntegaard, VCEG-M33, 2001; JCTVC-L1100 (common test conditions); Herglotz et al., "Beyond Bjøntegaard: Limits
of video compression performance comparisons", ICIP 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import UnknownName

Floats = NDArray[np.float64]
RateValues = Sequence[tuple[float, float]]
"""``(rate, value)`` of each point, in any order; rates in bits per pixel or any other unit, above zero."""

METHODS = ("pchip", "akima", "cubic")
MINIMUM_POINTS = 4
NARROW = 0.75
"""A smaller share of common range makes a comparison that speaks of little of the curves."""
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

    _check_method(method)
    known = Delta(math.nan, method)
    try:
        (rates, values), (test_rates, test_values) = _in_order(anchor, "anchor"), _in_order(test, "test")
        _check_monotone(rates, values, higher_is_better, "anchor")
        _check_monotone(test_rates, test_values, higher_is_better, "test")
        overlap, fraction = _overlap(values, test_values, "quality")
        known = Delta(math.nan, method, "", overlap, fraction)
        # Negated where lower is better; and brought to 0..1, which spares the polynomial rounding errors.
        sign = 1 if higher_is_better else -1
        edges = sorted((sign * overlap[0], sign * overlap[1]))
        scaled, test_scaled, span = _unit(sign * values, sign * test_values, edges)
        delta, first, second = bjontegaard.bd_rate(
            *(rates, scaled, test_rates, test_scaled),
            method=method,
            require_matching_points=False,
            interpolators=True,
            min_overlap=0,
        )
        _check_interpolation(first, span, rates, method, "anchor")
        _check_interpolation(second, span, test_rates, method, "test")
        return _found(float(delta), known)
    except _NoNumber as why:
        return Delta(math.nan, method, str(why), known.overlap, known.fraction)


def bd_metric(anchor: RateValues, test: RateValues, *, method: str = "pchip") -> Delta:
    """Mean difference in the metric at equal rate, over the common range of log rates; in the metric's unit.

    Positive means that ``test`` has higher values: better for PSNR, worse for LPIPS. The metric need not be monotone.

    NaN with a reason for: fewer than 4 points, values that are not finite, a rate of zero or below, two points at one
    rate, curves that share no rate.

    Raises:
        UnknownName: no such method.

    >>> anchor = [(0.1, 0.4), (0.2, 0.3), (0.4, 0.2), (0.8, 0.1)]
    >>> found = bd_metric(anchor, [(rate, 0.9 * value) for rate, value in anchor])
    >>> round(found.value, 9), found.fraction
    (-0.025, 1.0)
    """
    import bjontegaard

    _check_method(method)
    known = Delta(math.nan, method)
    try:
        (rates, values), (test_rates, test_values) = _in_order(anchor, "anchor"), _in_order(test, "test")
        (low, high), fraction = _overlap(np.log10(rates), np.log10(test_rates), "rate")
        known = Delta(math.nan, method, "", (10**low, 10**high), fraction)
        delta, first, second = bjontegaard.bd_psnr(
            *(rates, values, test_rates, test_values),
            method=method,
            require_matching_points=False,
            interpolators=True,
            min_overlap=0,
        )
        _check_swing(first, values, (low, high), method, "anchor")
        _check_swing(second, test_values, (low, high), method, "test")
        return _found(float(delta), known)
    except _NoNumber as why:
        return Delta(math.nan, method, str(why), known.overlap, known.fraction)


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
    steps = np.diff(values if higher_is_better else -values)
    wrong = np.flatnonzero(steps <= 0)
    if len(wrong):
        at = int(wrong[0])
        verb = "rise" if higher_is_better else "fall"
        points = [f"{values[one]:.6g} at rate {rates[one]:.4g}" for one in (at, at + 1)]
        raise _NoNumber(f"{who}: the metric does not {verb} from {points[0]} to {points[1]}")


def _overlap(first: Floats, second: Floats, what: str) -> tuple[tuple[float, float], float]:
    low, high = max(first.min(), second.min()), min(first.max(), second.max())
    span = max(first.max(), second.max()) - min(first.min(), second.min())
    if not low < high:
        raise _NoNumber(f"the curves share no range of {what}")
    return (float(low), float(high)), float((high - low) / span)


def _unit(first: Floats, second: Floats, edges: Sequence[float]) -> tuple[Floats, Floats, tuple[float, float]]:
    """Both curves' qualities with the range of both as 0 to 1, and the common range on that scale."""
    low = min(first.min(), second.min())
    span = max(first.max(), second.max()) - low
    return (first - low) / span, (second - low) / span, ((edges[0] - low) / span, (edges[1] - low) / span)


def _check_interpolation(
    curve: Callable[[Floats], Floats], span: tuple[float, float], rates: Floats, method: str, who: str
) -> None:
    """Rates between the points must rise with quality, as those of the points do."""
    steps = np.diff(curve(np.linspace(*span, 201)))
    if -float(steps[steps < 0].sum()) > TURN * math.log10(rates[-1] / rates[0]):
        raise _NoNumber(f"{who}: the {method} interpolation turns round between the points; take pchip")


def _check_swing(
    curve: Callable[[Floats], Floats], values: Floats, span: tuple[float, float], method: str, who: str
) -> None:
    """Where a metric does not turn at its points, it must not turn between them."""
    steps = np.diff(values)
    if (steps > 0).any() and (steps < 0).any():
        return  # what a curve does that turns is not known; each method has a guess
    between = np.diff(curve(np.linspace(*span, 201)))
    back = between[between < 0] if steps.sum() > 0 else between[between > 0]
    if abs(float(back.sum())) > SWING * float(values.max() - values.min()):
        raise _NoNumber(f"{who}: the {method} interpolation turns round between the points; take pchip")


def _found(value: float, known: Delta) -> Delta:
    if not math.isfinite(value):
        raise _NoNumber("the curves are too far apart for a number")
    return Delta(value, known.method, "", known.overlap, known.fraction)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)

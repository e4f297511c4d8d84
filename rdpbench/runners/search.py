"""Find the native setting that comes nearest to a target rate.

Papers compare at one rate; codecs are steered by a quality or a QP. The bytes of a codec rise or fall with its setting,
so bisection finds the two neighbours of the target, and the nearer one (in the ratio of rates) is taken. A target
outside what the codec reaches between its lowest and highest setting is out of range: reported, never extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rdpbench.codecs.contract import Rate

CONTINUOUS_STEPS = 4096
"""Settings that a continuous axis is divided into: each a factor, or a step, of equal size."""


@dataclass(frozen=True)
class Found:
    """What a search found."""

    setting: float | None
    """None: the target is out of range."""
    bpp: float
    """Rate at the setting; out of range, the nearest rate that can be reached."""
    attempts: int


def settings(axis: Rate) -> Callable[[int], float]:
    """The k-th setting in the order of rising bytes, k from 0 to ``count(axis) - 1``."""
    last = count(axis) - 1
    listed = sorted(axis.points)

    def at(k: int) -> float:
        k = k if axis.rises else last - k
        if axis.listed:
            return listed[k]
        if axis.step:
            return axis.low + k * axis.step
        if k in (0, last):
            return axis.high if k else axis.low
        if axis.low > 0 and axis.high / axis.low > 20:
            return float(axis.low * (axis.high / axis.low) ** (k / last))
        return axis.low + (axis.high - axis.low) * k / last

    return at


def count(axis: Rate) -> int:
    """How many settings there are to choose from.

    >>> count(Rate("quality", 1, 95))
    95
    """
    if axis.listed:
        return len(axis.points)
    return round((axis.high - axis.low) / axis.step) + 1 if axis.step else CONTINUOUS_STEPS + 1


def search(axis: Rate, target: float, measure: Callable[[float], float]) -> Found:
    """Bisect for the setting whose rate is nearest to ``target`` (bpp); ``measure`` gives the rate at a setting.

    >>> search(Rate("quality", 1, 100), 0.25, lambda quality: quality / 100)
    Found(setting=25, bpp=0.25, attempts=8)
    """
    at = settings(axis)
    known: dict[int, float] = {}

    def rate(k: int) -> float:
        if k not in known:
            known[k] = measure(at(k))
        return known[k]

    low, high = 0, count(axis) - 1
    if target < rate(low):
        return Found(None, rate(low), len(known))
    if target > rate(high):
        return Found(None, rate(high), len(known))
    while high - low > 1:
        middle = (low + high) // 2
        if rate(middle) <= target:
            low = middle
        else:
            high = middle
        if not axis.step and not axis.listed and abs(math.log(rate(middle) / target)) < 0.002:
            break
    best = min(known, key=lambda k: (abs(math.log(known[k] / target)), k))
    return Found(at(best), known[best], len(known))

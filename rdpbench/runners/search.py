"""Find the native setting that comes nearest to a target rate.

Papers compare at one rate; codecs are steered by a quality or a QP. The bytes of most codecs rise or fall with the
setting, so bisection finds the two neighbours of the target, and the nearer one (in the ratio of rates) is taken. Not
all do: AVIF's bytes jump on graphics, and a codec of one's own may do anything. So where bisection ends further from
the target than the tolerance, the whole range is looked at before a target is called out of range: every setting where
there are few, else a grid, refined where it comes near. Nothing is ever extrapolated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from rdpbench.codecs.contract import Rate
from rdpbench.results.store.keys import TOLERANCE
from rdpbench.setting import digits

CONTINUOUS_STEPS = 4096
"""Settings that a continuous axis is divided into: each a factor, or a step, of equal size."""
FEW = 128
"""Up to so many settings, the whole range is every one of them."""
GRID = 64
"""Where there are more, it is a grid of so many parts, and what refines it."""
MOST = 160
"""Settings that are tried at most."""


@dataclass(frozen=True)
class Nearest:
    """The nearest setting that a search tried."""

    setting: float
    bpp: float
    attempts: int
    """How many settings were tried."""


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


def is_near(bpp: float, target: float, tolerance: float) -> bool:
    """Is a rate within the tolerance of its target? 0.1 means at most 1.1 times as much, or as little.

    >>> is_near(0.11, 0.1, 0.1), is_near(0.09, 0.1, 0.1)
    (True, False)
    """
    return _distance(bpp, target) <= math.log1p(tolerance) + 1e-12


def is_whole(axis: Rate, attempts: int) -> bool:
    """Did a search that tried so many settings look at the whole range? Bisection alone takes fewer.

    >>> is_whole(Rate("quality", 1, 100), 9), is_whole(Rate("quality", 1, 100), 100)
    (False, True)
    """
    return attempts >= min(count(axis), GRID + 1)


def missed(codec: str, where: str, field: str, target: float, tolerance: float, found: Nearest) -> str:
    """What is said of a target that is out of range."""
    return (
        f"no setting of {codec} is within {100 * tolerance:g} % of {digits(target)} bpp for {where}; "
        f"the nearest of {found.attempts} tried, {field} {digits(found.setting)}, gives {found.bpp:.4g}"
    )


def search(axis: Rate, target: float, measure: Callable[[float], float], tolerance: float = TOLERANCE) -> Nearest:
    """Find the setting whose rate is nearest to ``target`` (bpp); ``measure`` gives the rate at a setting.

    What is found is within the tolerance, or the nearest of the whole range. A tolerance above `TOLERANCE` finds what
    that finds: it changes what is called out of range, not what is coded.

    >>> search(Rate("quality", 1, 100), 0.25, lambda quality: quality / 100)
    Nearest(setting=25, bpp=0.25, attempts=8)
    """
    return _Search(axis, target, measure, min(tolerance, TOLERANCE)).run()


class _Search:
    """One search: what was tried, by the number of the setting."""

    def __init__(self, axis: Rate, target: float, measure: Callable[[float], float], tolerance: float) -> None:
        self._at, self._last = settings(axis), count(axis) - 1
        self._smooth = not axis.step and not axis.listed
        self._target, self._measure, self._tolerance = target, measure, tolerance
        self._rates: dict[int, float] = {}

    def run(self) -> Nearest:
        # A target just below the lowest rate needs no look at the highest.
        if self._rate(0) <= self._target or not self._reached():
            if self._straddles(0, self._last):
                self._bisect(0, self._last)
            if not self._reached():
                self._look_at_all()
        best = self._nearest()
        return Nearest(self._at(best), self._rates[best], len(self._rates))

    def _rate(self, k: int) -> float:
        if k not in self._rates:
            self._rates[k] = self._measure(self._at(k))
        return self._rates[k]

    def _off(self, k: int) -> float:
        return _distance(self._rate(k), self._target)

    def _nearest(self) -> int:
        return min(self._rates, key=lambda k: (self._off(k), k))

    def _reached(self) -> bool:
        return is_near(self._rates[self._nearest()], self._target, self._tolerance)

    def _straddles(self, low: int, high: int) -> bool:
        first, last = sorted((self._rate(low), self._rate(high)))
        return first <= self._target <= last

    def _bisect(self, low: int, high: int) -> None:
        """Between two settings with the target between their rates, find two neighbours of which that is true."""
        rises = self._rate(low) <= self._target
        while high - low > 1 and len(self._rates) < MOST:
            middle = (low + high) // 2
            if (self._rate(middle) <= self._target) == rises:
                low = middle
            else:
                high = middle
            if self._smooth and self._off(middle) < 0.002:
                break

    def _look_at_all(self) -> None:
        if self._last < FEW:
            for k in range(self._last + 1):
                self._rate(k)
            return
        marks = [round(k * self._last / GRID) for k in range(GRID + 1)]
        crossings = [(low, high) for low, high in pairwise(marks) if self._straddles(low, high)]
        for low, high in sorted(crossings, key=lambda pair: min(map(self._off, pair))):
            self._bisect(low, high)
            if self._reached():
                return
        # No rate of the grid has the target to its other side, so a dip or a peak between them may come near.
        beside = zip(marks, [0, *marks[:-1]], [*marks[1:], self._last], strict=True)
        sides = {k: sorted((self._off(left), self._off(right))) for k, left, right in beside}
        dips = [k for k, (less, more) in sides.items() if self._off(k) <= less and self._off(k) < more]  # no plateau
        for k in sorted(dips, key=self._off):
            self._descend(k)
            if self._reached():
                return

    def _descend(self, k: int) -> None:
        """Go from a setting of the grid to the nearest one around it, if rates turn once between its neighbours."""
        step = math.ceil(self._last / GRID)
        while step > 1 and len(self._rates) + 2 <= MOST:
            step = (step + 1) // 2
            around = [j for j in (k, k - step, k + step) if 0 <= j <= self._last]
            for j in around:
                if self._straddles(*sorted((j, k))):
                    self._bisect(*sorted((j, k)))
                    return
            k = min(around, key=self._off)


def _distance(bpp: float, target: float) -> float:
    return abs(math.log(bpp / target)) if bpp > 0 else math.inf

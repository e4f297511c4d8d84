"""Scores from paired comparisons: the model of Bradley and Terry, with Davidson's term for ties, and their intervals.

Item i has a score s_i; of i and j people choose i with weight exp(s_i), j with exp(s_j), and say that they cannot tell
with exp(t + (s_i + s_j) / 2). Without ties the last is left out. Scores add up to 0 and are the ones of largest
likelihood, by Newton's method. They are finite only if every set of items wins at least once against the others (Ford);
where that is not so, there is no score, and `groups` says between whom votes are missing.

Votes of one rater are alike, and so are votes on one image. The variance is therefore the cluster-robust one (Liang and
Zeger), over raters and images both (Cameron, Gelbach and Miller), never below that of either, nor below that of
independent votes. Intervals are Student's, with one degree of freedom less than there are raters or images, whichever
are fewer: another group of raters and another draw of images would give scores within them.

The library for this model in Python, `choix`, has neither ties nor intervals; without ties its scores are equal.

Sources: Bradley and Terry, Biometrika 1952; Ford, "Solution of a ranking problem from binary comparisons", 1957;
Davidson, "On extending the Bradley-Terry model to accommodate ties", JASA 1970; Liang and Zeger, Biometrika 1986;
Cameron, Gelbach and Miller, "Robust inference with multiway clustering", 2011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ConfigError, MetricError
from rdpbench.results.stats.bootstrap import LEVEL, student

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

FIRST, SECOND, TIE = 0, 1, 2
"""Outcomes of a vote."""


@dataclass(frozen=True)
class Comparisons:
    """Votes as arrays of one length."""

    first: Integers
    """Number of the item, as ``second``."""
    second: Integers
    outcome: Integers
    """`FIRST`, `SECOND` or `TIE`."""
    rater: Integers
    image: Integers
    weight: Floats | None = None
    """How often each stands; None is once."""

    @property
    def weights(self) -> Floats:
        return np.ones(len(self.first)) if self.weight is None else self.weight


@dataclass(frozen=True)
class Fit:
    """Scores that add up to 0, natural logarithms of odds, with their 95 % intervals."""

    scores: Floats
    low: Floats
    high: Floats
    covariances: tuple[Floats, ...]
    """Of the scores: of independent votes, over raters, over images, over both; the largest variance counts."""
    freedom: int
    """Degrees of freedom of the intervals."""
    tie: float | None
    """Davidson's t; None where no ties occur."""

    def difference(self, item: int, other: int) -> tuple[float, float, float]:
        """Score of an item less that of another, with its interval."""
        contrast = np.zeros(len(self.scores))
        contrast[item] += 1
        contrast[other] -= 1
        value = float(contrast @ self.scores)
        half = student(self.freedom, (1 + LEVEL) / 2) * _spread(self.covariances, contrast)
        return value, value - half, value + half


def groups(items: int, votes: Comparisons) -> list[list[int]]:
    """Items between which votes went both ways, directly or over others; one group means that scores exist.

    >>> zeros = np.array([0, 0])
    >>> groups(3, Comparisons(np.array([0, 1]), np.array([1, 2]), np.array([FIRST, TIE]), zeros, zeros))
    [[0], [1, 2]]
    """
    reach = np.eye(items, dtype=bool)
    for winner, loser, outcome in ((votes.first, votes.second, FIRST), (votes.second, votes.first, SECOND)):
        chosen = ((votes.outcome == outcome) | (votes.outcome == TIE)) & (votes.weights > 0)
        reach[winner[chosen], loser[chosen]] = True
    for _ in range(max(1, items.bit_length())):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    mutual = reach & reach.T
    return [list(group) for group in dict.fromkeys(tuple(np.flatnonzero(row).tolist()) for row in mutual)]


def fit(items: int, votes: Comparisons) -> Fit:
    """Scores of ``items`` items.

    Raises:
        ConfigError: fewer than two items, or a vote between an item and itself.
        MetricError: votes that determine no scores; the message says why.

    >>> first, second = np.zeros(4, int), np.ones(4, int)
    >>> scores = fit(2, Comparisons(first, second, np.array([0, 0, 0, 1]), np.arange(4), np.arange(4))).scores
    >>> round(float(scores[0] - scores[1]), 6) == round(math.log(3), 6)
    True
    """
    if items < 2 or (votes.first == votes.second).any():
        raise ConfigError("a comparison needs two items that are not the same")
    if len(apart := groups(items, votes)) > 1:
        raise MetricError(f"no scores: votes do not go both ways between {len(apart)} groups of items: {apart}")
    ties = bool(((votes.outcome == TIE) & (votes.weights > 0)).any())
    if ties and not ((votes.outcome != TIE) & (votes.weights > 0)).any():
        raise MetricError("no scores: all votes are ties")
    design = _design(items, votes, ties=ties)
    theta = _newton(items, design, votes)
    gradients, inverse = _derivatives(design, votes, theta)
    covariances = tuple(matrix[:items, :items] for matrix in _covariances(gradients, inverse, votes))
    counts = [len(np.unique(cluster)) for cluster in (votes.rater, votes.image)]
    freedom = max(1, min([count for count in counts if count > 1], default=2) - 1)
    half = student(freedom, (1 + LEVEL) / 2) * np.array([_spread(covariances, item) for item in np.eye(items)])
    scores = theta[:items]
    return Fit(scores, scores - half, scores + half, covariances, freedom, float(theta[items]) if ties else None)


def _spread(covariances: Sequence[Floats], contrast: Floats) -> float:
    return math.sqrt(max(0.0, *(float(contrast @ covariance @ contrast) for covariance in covariances)))


def _design(items: int, votes: Comparisons, *, ties: bool) -> Floats:
    """What the outcomes of each vote add up, ``(votes, outcomes, parameters)``."""
    count, size = len(votes.first), items + int(ties)
    design = np.zeros((count, 3 if ties else 2, size))
    rows = np.arange(count)
    design[rows, 0, votes.first] = 1
    design[rows, 1, votes.second] = 1
    if ties:
        design[rows, 2, votes.first] = design[rows, 2, votes.second] = 0.5
        design[:, 2, items] = 1
    # Scores add up to 0: without their mean, all directions that are left are determined.
    design[:, :, :items] -= design[:, :, :items].mean(axis=2, keepdims=True)
    return design


def _log_probabilities(design: Floats, theta: Floats) -> Floats:
    utility = design @ theta
    utility -= utility.max(axis=1, keepdims=True)
    logarithms: Floats = utility - np.log(np.exp(utility).sum(axis=1, keepdims=True))
    return logarithms


def _derivatives(design: Floats, votes: Comparisons, theta: Floats) -> tuple[Floats, Floats]:
    """Gradients of each vote's likelihood, and the inverse of the information where scores do not all grow alike."""
    probabilities = np.exp(_log_probabilities(design, theta))
    centred = design - np.einsum("nk,nkp->np", probabilities, design)[:, None, :]
    gradients = votes.weights[:, None] * centred[np.arange(len(votes.outcome)), votes.outcome]
    information = np.einsum("n,nk,nkp,nkq->pq", votes.weights, probabilities, centred, centred, optimize=True)
    return gradients, np.linalg.pinv(information, rcond=1e-9, hermitian=True)


def _likelihood(design: Floats, votes: Comparisons, theta: Floats) -> float:
    return float(votes.weights @ _log_probabilities(design, theta)[np.arange(len(votes.outcome)), votes.outcome])


def _newton(items: int, design: Floats, votes: Comparisons) -> Floats:
    """The largest likelihood; it is concave, so that there is one, and steps that overshoot are halved."""
    theta = np.zeros(design.shape[2])
    likelihood = _likelihood(design, votes, theta)
    # A step of 1e-8 changes the likelihood by less than its sum is rounded, in either direction: such a fall is no
    # overshoot. Halving the step for it would end the search where the scores are still 1e-9 off.
    rounding = len(design) * np.finfo(np.float64).eps
    for _ in range(200):
        gradients, inverse = _derivatives(design, votes, theta)
        step = inverse @ gradients.sum(axis=0)
        step[:items] -= step[:items].mean()
        if np.abs(step).max() < 1e-10:
            best: Floats = theta + step
            return best
        least = likelihood * (1 + rounding)
        while _likelihood(design, votes, theta + step) < least and np.abs(step).max() > 1e-12:
            step /= 2
        theta = theta + step
        likelihood = _likelihood(design, votes, theta)
    raise MetricError("no scores: the likelihood has no maximum within reach")  # pragma: no cover (it is concave)


def _covariances(gradients: Floats, inverse: Floats, votes: Comparisons) -> list[Floats]:
    """Few clusters estimate a variance too small, and the one over both may even be negative: hence all of them."""
    by_rater, by_image = _clustered(gradients, votes.rater), _clustered(gradients, votes.image)
    meats = [meat for meat in (by_rater, by_image) if meat is not None]
    if by_rater is not None and by_image is not None:
        pairs = np.stack([votes.rater, votes.image], axis=1)
        both = _clustered(gradients, np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1))
        meats += [] if both is None else [by_rater + by_image - both]
    return [inverse, *(inverse @ meat @ inverse for meat in meats)]


def _clustered(gradients: Floats, cluster: Integers) -> Floats | None:
    """Outer products of the sums of gradients over clusters, corrected for their number; None for fewer than two."""
    names, place = np.unique(cluster, return_inverse=True)
    count = len(names)
    if count < 2:
        return None
    sums = np.zeros((count, gradients.shape[1]))
    np.add.at(sums, place, gradients)
    products: Floats = sums.T @ sums * (count / (count - 1))
    return products

"""The Fréchet distance of two Gaussians fitted to feature vectors: what FID computes after the network.

    d = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

with the means and the unbiased covariances (n - 1). Source: Dowson and Landau, "The Fréchet distance between
multivariate normal distributions", J. Multivariate Analysis 1982; Heusel et al., "GANs trained by a two time-scale
update rule", NeurIPS 2017.

The product S1 S2 is not symmetric, and its square root, as most implementations take it, is slow and may be complex.
With any R for which ``S1 = R R'``, the matrix ``R' S2 R`` has the same eigenvalues, is symmetric and has none below
zero but for rounding: what is summed is real, and at d = 2048 it takes a second instead of twenty to sixty.

With fewer rows than entries (n < d) the covariances are singular. Then ``tr (S1 S2)^(1/2)`` is the sum of the singular
values of ``X Y' / sqrt((n - 1)(m - 1))`` with the centred rows X and Y: small, and free of the square roots of rounding
errors that the eigenvalues bring (relative 1e-8 at n = 24, d = 256). The number is exact then, and still says little:
it is far above what more images would give, and is marked unreliable.

Values are kept as they come out: two equal sets give some 1e-13, or -1e-13, and nothing is clamped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from rdpbench.errors import MetricError
from rdpbench.lazy import Tensor, torch
from rdpbench.metrics.contract import Floats
from rdpbench.metrics.sets import Rows, blocks, check_rows, check_sets, same_length

_COLUMNS = 256
"""Columns of a product at a time."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and centred scatter of some rows; those of two shards add up (`merge`)."""

    n: int
    mean: Floats
    """``(d,)``"""
    scatter: Floats
    """``(d, d)``: the sum of outer products of the rows less their mean; the covariance times n - 1."""

    @property
    def dim(self) -> int:
        """Length d of a row."""
        return len(self.mean)

    def covariance(self) -> Floats:
        """The unbiased covariance ``(d, d)``. Raises `MetricError`: fewer than two rows have none.

        >>> float(moments(np.array([[1.0], [3.0]])).covariance()[0, 0])
        2.0
        """
        if self.n < 2:
            raise MetricError(f"a covariance needs at least 2 feature vectors, found {self.n}")
        return self.scatter / (self.n - 1)


@dataclass(frozen=True)
class Distance:
    """A Fréchet distance and what it was computed from."""

    value: float
    """As it came out; equal sets may give a little less than zero."""
    n: tuple[int, int]
    """Rows of the reference and of the distorted set."""
    dim: int

    @property
    def reliable(self) -> bool:
        """False where a set has fewer rows than a row has entries: its covariance is singular, the value biased."""
        return min(self.n) >= self.dim


def moments(rows: Rows) -> Moments:
    """Mean and scatter of ``rows (n, d)`` in float64, in two passes and block-wise: 130 MB beside the rows at d = 2048.

    One row is legal, as a shard may hold one; a distance needs two.

    Raises:
        MetricError: no rows, another shape or type, NaN or infinite values.

    >>> moments(np.array([[0.0, 0.0], [2.0, 4.0]])).scatter.tolist()
    [[2.0, 4.0], [4.0, 8.0]]
    """
    check_rows(rows, "moments")
    mean = np.sum([block.sum(axis=0) for block in blocks(rows)], axis=0) / len(rows)
    scatter = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks(rows):
        centred = block - mean
        scatter += centred.T @ centred
    return Moments(len(rows), mean, scatter)


def merge(first: Moments, second: Moments) -> Moments:
    """The moments of both shards' rows together, to rounding whatever the order.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
    COMPSTAT 1982.

    Raises:
        MetricError: rows of two lengths.

    >>> both = merge(moments(np.array([[1.0]])), moments(np.array([[2.0], [6.0]])))
    >>> both.n, both.mean.tolist(), both.scatter.tolist()
    (3, [3.0], [[14.0]])
    """
    if first.dim != second.dim:
        raise MetricError(f"moments of vectors of {first.dim} and of {second.dim} entries do not add up")
    n = first.n + second.n
    gap = second.mean - first.mean
    scatter = first.scatter + second.scatter + np.outer(gap, gap * (first.n * second.n / n))
    return Moments(n, first.mean + gap * (second.n / n), scatter)


def without_each(shards: Sequence[Moments]) -> list[Moments]:
    """The moments of all shards but one, for each of them.

    >>> parts = [moments(np.array([[value], [value + 1]])) for value in (1.0, 5.0, 9.0)]
    >>> [float(others.mean[0]) for others in without_each(parts)]
    [7.5, 5.5, 3.5]
    """
    return [reduce(merge, [*shards[:left], *shards[left + 1 :]]) for left in range(len(shards))]


def distance(reference: Moments, distorted: Moments) -> Distance:
    """The Fréchet distance from moments, for any n.

    Raises:
        MetricError: fewer than two rows on one side, rows of two lengths, NaN.

    >>> flat = Moments(3, np.zeros(2), 2 * np.diag([1.0, 4.0]))
    >>> round(distance(flat, Moments(3, np.array([1.0, 2.0]), 2 * np.diag([9.0, 16.0]))).value, 9)
    13.0
    """
    same_length(reference.dim, distorted.dim, "the Fréchet distance")
    first, second = _covariance(reference, "the reference"), _covariance(distorted, "the distorted set")
    gap = reference.mean - distorted.mean
    spread = float(np.trace(first)) + float(np.trace(second)) - 2 * _trace_of_root(first, second)
    return Distance(float(gap @ gap) + spread, (reference.n, distorted.n), reference.dim)


def distance_of_rows(reference: Rows, distorted: Rows) -> Distance:
    """The Fréchet distance of two sets of rows ``(n, d)`` and ``(m, d)``, by the way that suits n, m and d.

    Raises:
        MetricError: fewer than two rows on one side, rows of two lengths, NaN or infinite values.

    >>> line = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    >>> round(distance_of_rows(line, line + [0, 3, 0]).value, 9)
    9.0
    """
    check_sets(reference, distorted, "the Fréchet distance", minimum=2)
    n, m, dim = len(reference), len(distorted), reference.shape[1]
    if n >= dim and m >= dim:
        return distance(moments(reference), moments(distorted))
    (first, first_mean), (second, second_mean) = _factor(reference), _factor(distorted)
    singular = np.linalg.svd(first @ second.T, compute_uv=False)
    gap = first_mean - second_mean
    spread = float(np.square(first).sum()) + float(np.square(second).sum()) - 2 * float(singular.sum())
    return Distance(float(gap @ gap) + spread, (n, m), dim)


def _trace_of_root(first: Floats, second: Floats) -> float:
    """``tr (S1 S2)^(1/2)``; by torch, whose LAPACK takes half the time of numpy's."""
    eigenvalues = torch.linalg.eigvalsh(_congruent(torch.from_numpy(first), torch.from_numpy(second)))
    return float(eigenvalues.clamp(min=0).sqrt().sum())


def _factor(rows: Rows) -> tuple[Floats, Floats]:
    """``A`` with ``A' A`` the covariance, of min(n, d) rows, and the mean."""
    if len(rows) > rows.shape[1]:
        both = moments(rows)
        return np.ascontiguousarray(_root(both.covariance()).T), both.mean
    centred = rows.astype(np.float64)
    mean = centred.mean(axis=0)
    return (centred - mean) / math.sqrt(len(rows) - 1), mean


def _congruent(first: Tensor, second: Tensor) -> Tensor:
    """``R' S2 R`` with ``R R' = S1``, of which the lower triangle is filled: that is what `eigvalsh` reads.

    With the Cholesky factor, a seventh of the time of eigenvectors, and leaving out what is zero or above the diagonal,
    a third of two full products. A singular covariance may have no such factor.
    """
    lower, failed = torch.linalg.cholesky_ex(first)
    if failed:
        root = torch.from_numpy(_root(first.numpy()))
        return root.T @ second @ root
    out = torch.zeros_like(second)
    for start in range(0, len(second), _COLUMNS):
        right = second[start:, start:] @ lower[start:, start : start + _COLUMNS]
        out[start:, start : start + _COLUMNS] = lower[start:, start:].T @ right
    return out


def _root(covariance: Floats) -> Floats:
    """``R`` with ``R R'`` the covariance; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))


def _covariance(side: Moments, what: str) -> Floats:
    if side.n < 2:
        raise MetricError(f"the Fréchet distance: {what} has {side.n} feature vector, and at least 2 are needed")
    covariance = side.covariance()
    if not (np.isfinite(covariance).all() and np.isfinite(side.mean).all()):
        raise MetricError(f"the Fréchet distance: the moments of {what} hold NaN or infinite values")
    return covariance

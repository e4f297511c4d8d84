"""KID and CMMD over resampled images, from one pass over the kernel.

A resample of images needs no new kernel values: with ``S[i, j]`` the sum of the kernel over the rows of image i and the
rows of image j, drawing image i ``w[i]`` times gives ``w' S w``. One pass costs what the value itself costs; a thousand
resamples then take milliseconds, where computing the value again would take hours for 28,650 patches of 428 images.

Each resample's number is exactly what `polynomial_mmd` or `cmmd` give for its rows, copies and all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.mmd import Kernel, check_unit, gaussian, polynomial
from rdpbench.metrics.rows import BLOCK, Rows, check_rows, check_sets

Floats = NDArray[np.float64]
MOST_IMAGES = 8000
"""Three matrices of 8,000 x 8,000 float64 are 1.5 GB."""


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums of a kernel over the rows of each pair of images."""

    reference: Floats
    """``(g, g)``"""
    distorted: Floats
    across: Floats
    """``(g, g)``: originals down, reconstructions across."""
    self_reference: Floats
    """``(g,)``: the kernel of each row with itself, summed over the image's rows; in ``reference``'s diagonal, too."""
    self_distorted: Floats
    rows: tuple[Floats, Floats]
    """Rows of each image, ``(g,)`` each."""
    unbiased: bool
    scale: float

    def estimate(self, times: Floats) -> Floats:
        """The discrepancy of k resamples: ``(k, g)`` occurrences of each image, original and reconstruction together.

        >>> corner = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
        >>> sums = kid_sums(corner, [np.array([[1.0, 1.0]]), np.array([[0.0, 0.0]])])
        >>> sums.estimate(np.ones((1, 2))).tolist()
        [-2.375]
        """
        n, m = times @ self.rows[0], times @ self.rows[1]
        first = _own(times, self.reference, self.self_reference, n, self.unbiased)
        second = _own(times, self.distorted, self.self_distorted, m, self.unbiased)
        across = np.einsum("ki,ki->k", times @ self.across, times) / (n * m)
        out: Floats = self.scale * (first + second - 2 * across)
        return out


def kid_sums(reference: Sequence[Rows], distorted: Sequence[Rows], *, unbiased: bool = True) -> PairSums:
    """Sums for KID over the full set, of the same images' rows ``(rows, d)`` on both sides, in one order.

    Raises:
        MetricError: not the same number of images, more than `MOST_IMAGES`, rows of two lengths, NaN.

    >>> kid_sums([np.ones((2, 4))], [np.ones((1, 4))]).across.tolist()
    [[16.0]]
    """
    return _pair_sums(reference, distorted, polynomial, "kid", unbiased, 1.0)


def cmmd_sums(
    reference: Sequence[Rows],
    distorted: Sequence[Rows],
    *,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
) -> PairSums:
    """Sums for CMMD, of the same images' rows of length 1 on both sides, in one order.

    Raises:
        MetricError: rows that do not have length 1; not the same number of images, and so on as for KID.

    >>> sums = cmmd_sums([np.array([[1.0, 0.0]])], [np.array([[0.0, 1.0]])])
    >>> round(float(sums.estimate(np.ones((1, 1)))[0]), 9)
    19.900332502
    """
    for what, side in (("the reference", reference), ("the distorted set", distorted)):
        for rows in side:
            check_unit(check_rows(rows, f"cmmd: {what}"), what)
    return _pair_sums(reference, distorted, gaussian(sigma), "cmmd", unbiased, scale)


def apart_without(
    reference: Sequence[Rows],
    distorted: Sequence[Rows],
    blocks: Sequence[Sequence[int]],
    kernel: Kernel,
    scale: float = 1.0,
) -> list[float]:
    """The discrepancy over pairs of different images, without each block of images, from one pass over all pairs.

    Args:
        reference: rows of each image, ``(rows, d)``.
        distorted: those of the same images.
        blocks: numbers of images.
        kernel: of two rows.
        scale: what values are multiplied by.

    >>> rows = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]])]
    >>> apart_without(rows, rows, [[0], [1], [2]], polynomial)
    [0.0, 0.0, 0.0]
    """
    times = 1 - np.eye(len(blocks))
    sides = [[np.concatenate([side[n] for n in block]) for block in blocks] for side in (reference, distorted)]
    rows = [np.array([len(block) for block in side]) for side in sides]
    whole = [np.concatenate(side) for side in sides]
    means = []
    for first, second in ((0, 0), (1, 1), (0, 1)):
        sums = _sums(whole[first], whole[second], rows[first], rows[second], kernel)
        ones, others = (reference, distorted)[first], (reference, distorted)[second]
        alike = [sum(float(kernel(_wide(ones[n]), _wide(others[n])).sum()) for n in block) for block in blocks]
        pairs = [sum(len(ones[n]) * len(others[n]) for n in block) for block in blocks]
        total = np.einsum("ki,ki->k", times @ sums, times) - times @ np.array(alike)
        means.append(total / ((times @ rows[first]) * (times @ rows[second]) - times @ np.array(pairs)))
    return [float(value) for value in scale * (means[0] + means[1] - 2 * means[2])]


def _wide(rows: Rows) -> Floats:
    return rows.astype(np.float64)


def _pair_sums(
    reference: Sequence[Rows], distorted: Sequence[Rows], kernel: Kernel, metric: str, unbiased: bool, scale: float
) -> PairSums:
    if not reference or len(reference) != len(distorted):
        raise MetricError(f"{metric}: {len(reference)} originals and {len(distorted)} reconstructions are no pairs")
    if len(reference) > MOST_IMAGES:
        raise MetricError(f"{metric}: {len(reference)} images, and sums over pairs are kept for {MOST_IMAGES} at most")
    counts = np.array([len(one) for one in reference]), np.array([len(one) for one in distorted])
    if min(counts[0].min(), counts[1].min()) < 1:
        raise MetricError(f"{metric}: an image has no feature vector")
    first, second = np.concatenate(reference), np.concatenate(distorted)
    check_sets(first, second, metric)
    return PairSums(
        _sums(first, first, counts[0], counts[0], kernel),
        _sums(second, second, counts[1], counts[1], kernel),
        _sums(first, second, *counts, kernel),
        _self(first, counts[0], kernel),
        _self(second, counts[1], kernel),
        (counts[0].astype(np.float64), counts[1].astype(np.float64)),
        unbiased,
        scale,
    )


def _sums(first: Rows, second: Rows, counts: NDArray[np.int64], others: NDArray[np.int64], kernel: Kernel) -> Floats:
    """The kernel summed over the rows of each pair of images."""
    out = np.zeros((len(counts), len(others)))
    for block, images, starts in _blocks(first, counts):
        for other, other_images, other_starts in _blocks(second, others):
            lines = np.add.reduceat(kernel(block, other), starts, axis=0)
            out[images, other_images] += np.add.reduceat(lines, other_starts, axis=1)
    return out


def _self(rows: Rows, counts: NDArray[np.int64], kernel: Kernel) -> Floats:
    """The kernel of each row with itself, summed over the rows of each image."""
    out = np.zeros(len(counts))
    for block, images, starts in _blocks(rows, counts, size=256):
        out[images] += np.add.reduceat(np.diagonal(kernel(block, block)), starts)
    return out


def _blocks(rows: Rows, counts: NDArray[np.int64], size: int = BLOCK) -> Iterator[tuple[Floats, slice, NDArray[Any]]]:
    """Rows in float64, the images that they are of, and where in the block each image starts."""
    owners = np.repeat(np.arange(len(counts)), counts)
    for start in range(0, len(rows), size):
        owner = owners[start : start + size]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        yield rows[start : start + size].astype(np.float64), slice(owner[0], owner[-1] + 1), starts


def _own(times: Floats, sums: Floats, selves: Floats, n: Floats, unbiased: bool) -> Floats:
    """Mean of the kernel over the pairs of one side's rows; copies of a row are rows of their own."""
    total: Floats = np.einsum("ki,ki->k", times @ sums, times)
    return (total - times @ selves) / (n * (n - 1)) if unbiased else total / n**2

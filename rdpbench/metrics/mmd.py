"""Maximum mean discrepancy of two sets of feature vectors: KID with a polynomial kernel, CMMD with a Gaussian one.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

The *unbiased* estimate leaves the pairs of a row with itself out of the first two means and may be negative, which is
kept; the *biased* one has them in. All of it is float64 and block-wise: a block of the kernel matrix is 32 MB, whatever
the number of rows.

KID (Binkowski et al., "Demystifying MMD GANs", ICLR 2018): ``k(x, y) = (x.y / d + 1)^3``, unbiased. What papers print
is the mean over random subsets (`kid`), here with the indices that torch-fidelity draws from its seed 2020, equal at
every rate, so that two rates do not differ by the draw; `polynomial_mmd` takes all rows and needs no seed.

CMMD (Jayasumana et al., "Rethinking FID", CVPR 2024): ``k(x, y) = exp(-|x - y|^2 / (2 sigma^2))`` with sigma 10 of CLIP
embeddings of length 1, biased, times 1000. Squared distances are 4 at most, thus all values of k lie within 2 % of 1,
and float32 loses 4 % of a CMMD of 0.004: k - 1 is what is averaged (``expm1``), in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.rows import BLOCK, Rows, blocks, check_sets

Floats: TypeAlias = NDArray[np.float64]
Kernel: TypeAlias = Callable[[Floats, Floats], Floats]
"""Of ``(a, d)`` and ``(b, d)``: ``(a, b)``."""

UNIT = 1e-4
"""How far from 1 a row's length may be: normalised in float32 it errs by 1e-7."""


@dataclass(frozen=True)
class KID:
    """KID over subsets."""

    value: float
    """Mean over the subsets; may be negative."""
    spread: float
    """Standard deviation over the subsets (by their number). Subsets overlap: it is no interval over images."""


def kid(reference: Rows, distorted: Rows, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> KID:
    """Mean and standard deviation of the unbiased estimate over random subsets of ``size`` rows of each set.

    The same numbers of rows and the same seed give the same subsets, in the order reference, distorted. To compare
    rates, keep the rows in the order of the image ids.

    Raises:
        MetricError: fewer rows than ``size``; rows of two lengths; NaN or infinite values.

    >>> rng = np.random.default_rng(0)
    >>> found = kid(rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) + 1, subsets=5, size=40)
    >>> round(found.value, 3), found.spread > 0
    (6.78, True)
    """
    check_sets(reference, distorted, "kid")
    if subsets < 1 or size < 2:
        raise MetricError(f"kid needs at least 1 subset of at least 2 rows, found {subsets} subsets of {size}")
    counts = len(reference), len(distorted)
    if min(counts) < size:
        raise MetricError(
            f"kid with subsets of {size} needs as many rows in each set, found {counts[0]} and {counts[1]}; "
            f"take a preset with subsets of at most {min(counts)} rows, or KID over the full set"
        )
    # The legacy generator: its streams are frozen, and torch-fidelity draws from it.
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        first, second = (draw.choice(count, size, replace=False) for count in counts)
        values.append(_mmd(reference[first], distorted[second], polynomial, unbiased=True))
    return KID(math.fsum(values) / subsets, float(np.std(values)))


def polynomial_mmd(reference: Rows, distorted: Rows, *, unbiased: bool = True) -> float:
    """KID over all pairs of rows: no subsets, no seed; the biased estimate on request.

    Raises:
        MetricError: fewer than two rows on one side, rows of two lengths, NaN or infinite values.

    >>> polynomial_mmd(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]))
    -2.375
    """
    check_sets(reference, distorted, "kid", minimum=2 if unbiased else 1)
    return _mmd(reference, distorted, polynomial, unbiased)


def cmmd(
    reference: Rows, distorted: Rows, *, sigma: float = 10.0, scale: float = 1000.0, unbiased: bool = False
) -> float:
    """CMMD of rows of length 1: biased as it is published, or the unbiased variant.

    The biased value is above zero for two samples of one distribution, and by more the fewer they are: compare it at
    equal n only.

    Raises:
        MetricError: rows that do not have length 1; fewer than two rows (unbiased); rows of two lengths; NaN.

    >>> round(cmmd(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])), 9)
    19.900332502
    """
    check_sets(reference, distorted, "cmmd", minimum=2 if unbiased else 1)
    check_unit(reference, "the reference")
    check_unit(distorted, "the distorted set")
    return scale * _mmd(reference, distorted, gaussian(sigma), unbiased)


def polynomial(first: Floats, second: Floats) -> Floats:
    """``(x.y / d + 1)^3`` for all pairs of rows.

    >>> polynomial(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])).tolist()
    [[27.0]]
    """
    base = first @ second.T
    base /= first.shape[1]
    base += 1
    cube: Floats = base * base
    cube *= base
    return cube


def gaussian(sigma: float) -> Kernel:
    """``k(x, y) - 1`` of the Gaussian kernel, for all pairs of rows: the ones cancel in the discrepancy.

    Raises:
        MetricError: sigma is not a positive number.

    >>> round(float(gaussian(10.0)(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0, 0]), 9)
    -0.009950166
    """
    if not (sigma > 0 and math.isfinite(sigma)):
        raise MetricError(f"cmmd: sigma is a positive number, found {sigma}")
    gamma = 1 / (2 * sigma**2)

    def kernel(first: Floats, second: Floats) -> Floats:
        squares = np.einsum("ij,ij->i", first, first)[:, None] + np.einsum("ij,ij->i", second, second)
        products = first @ second.T
        products *= 2
        squares -= products
        np.maximum(squares, 0, out=squares)
        squares *= -gamma
        out: Floats = np.expm1(squares, out=squares)
        return out

    return kernel


def _mmd(reference: Rows, distorted: Rows, kernel: Kernel, unbiased: bool) -> float:
    own = _own_mean(reference, kernel, unbiased) + _own_mean(distorted, kernel, unbiased)
    across = math.fsum(_sum(block, distorted, kernel) for block in blocks(reference))
    return own - 2 * across / (len(reference) * len(distorted))


def _own_mean(rows: Rows, kernel: Kernel, unbiased: bool) -> float:
    """Mean of the kernel over the pairs of one set; each block above the diagonal counts for the one below."""
    n = len(rows)
    sums = []
    for number, block in enumerate(blocks(rows)):
        square = kernel(block, block)
        sums.append(float(square.sum()) - (float(np.trace(square)) if unbiased else 0.0))
        sums.append(2 * _sum(block, rows[(number + 1) * BLOCK :], kernel))
    return math.fsum(sums) / (n * (n - 1) if unbiased else n * n)


def _sum(block: Floats, rows: Rows, kernel: Kernel) -> float:
    return math.fsum(float(kernel(block, other).sum()) for other in blocks(rows))


def check_unit(rows: Rows, what: str) -> None:
    """Raises `MetricError` if a row's length is not 1.

    >>> check_unit(np.array([[0.6, 0.8]]), "the reference")
    """
    for start in range(0, len(rows), BLOCK):
        lengths = np.linalg.norm(rows[start : start + BLOCK].astype(np.float64), axis=1)
        off = np.abs(lengths - 1) > UNIT
        if off.any():
            row = int(off.argmax())
            raise MetricError(
                f"cmmd: {what}: row {start + row} has length {lengths[row]:.6g}; divide each row by its length: "
                "CMMD is defined on embeddings of length 1"
            )

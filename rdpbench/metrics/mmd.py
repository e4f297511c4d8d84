"""Maximum mean discrepancy of two sets of feature vectors: KID with a polynomial kernel, CMMD with a Gaussian one.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

The *unbiased* estimate leaves the pairs of a row with itself out of the first two means and may be negative, which is
kept; the *biased* one has them in. An original and its own reconstruction are alike, and their pair is in the third
mean: that lowers the unbiased estimate, by 2/n of what two alike rows have more in common than two others, and a
lossless codec is below zero. The estimate over images *apart* takes pairs of different images alone, in all three
means: zero for a lossless codec, and on average the distance of the two distributions (Gretton et al., "A kernel
two-sample test", JMLR 2012, lemma 6, whose pairs are an original with its reconstruction). It is the average over all
ways to compare the originals of one half of the images with the reconstructions of the other.

All of it is float64 and block-wise: a block of the kernel matrix is 32 MB, whatever the number of rows.

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
Owners: TypeAlias = NDArray[np.int64]
"""``(n,)``: the number of the image that each row is of."""

UNIT = 1e-4
"""How far from 1 a row's length may be: normalised in float32 it errs by 1e-7."""


@dataclass(frozen=True)
class KID:
    """KID over subsets."""

    value: float
    """Mean over the subsets; may be negative."""
    spread: float
    """Standard deviation over the subsets (by their number). Subsets overlap: it is no interval over images."""
    apart: float | None = None
    """The same over pairs of different images alone; None where the images are not known."""


@dataclass(frozen=True)
class Discrepancy:
    """A discrepancy of two sets of rows."""

    value: float
    apart: float | None = None
    """Over pairs of different images alone; None where the images are not known."""


def kid(
    reference: Rows,
    distorted: Rows,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
    images: tuple[Owners, Owners] | None = None,
) -> KID:
    """Mean and standard deviation of the unbiased estimate over random subsets of ``size`` rows of each set.

    The same numbers of rows and the same seed give the same subsets, in the order reference, distorted. To compare
    rates, keep the rows in the order of the image ids. ``images`` are the numbers of the images that the rows are of.

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
    values: list[float] = []
    apart: list[float] = []
    for _ in range(subsets):
        first, second = (draw.choice(count, size, replace=False) for count in counts)
        owners = (images[0][first], images[1][second]) if images else None
        found = _mmd(reference[first], distorted[second], polynomial, unbiased=True, images=owners)
        values.append(found.value)
        apart += [] if found.apart is None else [found.apart]
    known = math.fsum(apart) / subsets if len(apart) == subsets else None
    return KID(math.fsum(values) / subsets, float(np.std(values)), known)


def polynomial_mmd(reference: Rows, distorted: Rows, *, unbiased: bool = True) -> float:
    """KID over all pairs of rows: no subsets, no seed; the biased estimate on request.

    Raises:
        MetricError: fewer than two rows on one side, rows of two lengths, NaN or infinite values.

    >>> polynomial_mmd(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]))
    -2.375
    """
    check_sets(reference, distorted, "kid", minimum=2 if unbiased else 1)
    return _mmd(reference, distorted, polynomial, unbiased).value


def discrepancy(reference: Rows, distorted: Rows, kernel: Kernel, images: tuple[Owners, Owners]) -> Discrepancy:
    """The unbiased estimate over all pairs of rows, and over those of different images alone.

    Args:
        reference: ``(n, d)``.
        distorted: ``(m, d)``.
        kernel: `polynomial`, or a `gaussian`.
        images: numbers of the images that the rows are of, ``(n,)`` and ``(m,)``; an original and its reconstruction
            have the same.

    Raises:
        MetricError: rows of one image alone, rows of two lengths, NaN or infinite values.

    >>> rows, images = np.array([[1.0, 0.0], [0.0, 1.0]]), np.arange(2)
    >>> found = discrepancy(rows, rows, polynomial, (images, images))
    >>> found.value, found.apart
    (-2.375, 0.0)
    """
    check_sets(reference, distorted, "mmd", minimum=2)
    found = _mmd(reference, distorted, kernel, unbiased=True, images=images)
    if found.apart is None:
        raise MetricError("mmd over images apart needs at least 2 images")
    return found


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
    return scale * _mmd(reference, distorted, gaussian(sigma), unbiased).value


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


@dataclass(frozen=True)
class _Sum:
    """A sum of the kernel over pairs of rows, and what of it is of pairs of one image."""

    total: float
    alike: float = 0.0
    pairs: int = 0
    """Pairs of one image."""


def _mmd(
    reference: Rows, distorted: Rows, kernel: Kernel, unbiased: bool, images: tuple[Owners, Owners] | None = None
) -> Discrepancy:
    first, second = images or (None, None)
    sums = (
        _own(reference, kernel, unbiased, first),
        _own(distorted, kernel, unbiased, second),
        _between(reference, distorted, kernel, first, second),
    )
    n, m = len(reference), len(distorted)
    counts = (n * (n - 1), m * (m - 1), n * m) if unbiased else (n * n, m * m, n * m)
    value = sums[0].total / counts[0] + sums[1].total / counts[1] - 2 * sums[2].total / counts[2]
    left = [count - one.pairs for count, one in zip(counts, sums, strict=True)]
    if images is None or min(left) < 1:
        return Discrepancy(value)
    means = [(one.total - one.alike) / count for one, count in zip(sums, left, strict=True)]
    return Discrepancy(value, means[0] + means[1] - 2 * means[2])


def _own(rows: Rows, kernel: Kernel, unbiased: bool, images: Owners | None) -> _Sum:
    """Over the pairs of one set; each block above the diagonal counts for the one below."""
    totals, alike, pairs = [], [], 0
    for number, block in enumerate(blocks(rows)):
        square = kernel(block, block)
        own = float(np.trace(square)) if unbiased else 0.0
        totals.append(float(square.sum()) - own)
        at = (number + 1) * BLOCK
        owners = None if images is None else images[number * BLOCK : at]
        if owners is not None:
            same = owners[:, None] == owners
            alike.append(float(square[same].sum()) - own)
            pairs += int(same.sum()) - (len(owners) if unbiased else 0)
        above = _between(block, rows[at:], kernel, owners, None if images is None else images[at:])
        totals.append(2 * above.total)
        alike.append(2 * above.alike)
        pairs += 2 * above.pairs
    return _Sum(math.fsum(totals), math.fsum(alike), pairs)


def _between(first: Rows, second: Rows, kernel: Kernel, images: Owners | None, others: Owners | None) -> _Sum:
    totals, alike, pairs = [], [], 0
    for row, block in enumerate(blocks(first)):
        some = []
        for column, other in enumerate(blocks(second)):
            values = kernel(block, other)
            some.append(float(values.sum()))
            if images is not None and others is not None:
                owners = images[row * BLOCK : (row + 1) * BLOCK]
                same = owners[:, None] == others[column * BLOCK : (column + 1) * BLOCK]
                alike.append(float(values[same].sum()))
                pairs += int(same.sum())
        totals.append(math.fsum(some))
    return _Sum(math.fsum(totals), math.fsum(alike), pairs)


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

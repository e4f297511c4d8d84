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

KID and CMMD over resampled images, from one pass over the kernel.

A resample of images needs no new kernel values: with ``S[i, j]`` the sum of the kernel over the rows of image i and the
rows of image j, drawing image i ``w[i]`` times gives ``w' S w``. One pass costs what the value itself costs; a thousand
resamples then take milliseconds, where computing the value again would take hours for 28,650 patches of 428 images.

Each resample's number is exactly what `polynomial_mmd` or `cmmd` give for its rows, copies and all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError
from rdpbench.metrics.sets import BLOCK, Rows, blocks, check_rows, check_sets

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


MmdSumsFloats = NDArray[np.float64]
MOST_IMAGES = 8000
"""Three matrices of 8,000 x 8,000 float64 are 1.5 GB."""


@dataclass(frozen=True, eq=False)
class PairSums:
    """Sums of a kernel over the rows of each pair of images."""

    reference: MmdSumsFloats
    """``(g, g)``"""
    distorted: MmdSumsFloats
    across: MmdSumsFloats
    """``(g, g)``: originals down, reconstructions across."""
    self_reference: MmdSumsFloats
    """``(g,)``: the kernel of each row with itself, summed over the image's rows; in ``reference``'s diagonal, too."""
    self_distorted: MmdSumsFloats
    rows: tuple[MmdSumsFloats, MmdSumsFloats]
    """Rows of each image, ``(g,)`` each."""
    unbiased: bool
    scale: float

    def estimate(self, times: MmdSumsFloats) -> MmdSumsFloats:
        """The discrepancy of k resamples: ``(k, g)`` occurrences of each image, original and reconstruction together.

        >>> corner = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])]
        >>> sums = kid_sums(corner, [np.array([[1.0, 1.0]]), np.array([[0.0, 0.0]])])
        >>> sums.estimate(np.ones((1, 2))).tolist()
        [-2.375]
        """
        n, m = times @ self.rows[0], times @ self.rows[1]
        first = _mmd_sums_own(times, self.reference, self.self_reference, n, self.unbiased)
        second = _mmd_sums_own(times, self.distorted, self.self_distorted, m, self.unbiased)
        across = np.einsum("ki,ki->k", times @ self.across, times) / (n * m)
        out: MmdSumsFloats = self.scale * (first + second - 2 * across)
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


def _wide(rows: Rows) -> MmdSumsFloats:
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


def _sums(
    first: Rows, second: Rows, counts: NDArray[np.int64], others: NDArray[np.int64], kernel: Kernel
) -> MmdSumsFloats:
    """The kernel summed over the rows of each pair of images."""
    out = np.zeros((len(counts), len(others)))
    for block, images, starts in _blocks(first, counts):
        for other, other_images, other_starts in _blocks(second, others):
            lines = np.add.reduceat(kernel(block, other), starts, axis=0)
            out[images, other_images] += np.add.reduceat(lines, other_starts, axis=1)
    return out


def _self(rows: Rows, counts: NDArray[np.int64], kernel: Kernel) -> MmdSumsFloats:
    """The kernel of each row with itself, summed over the rows of each image."""
    out = np.zeros(len(counts))
    for block, images, starts in _blocks(rows, counts, size=256):
        out[images] += np.add.reduceat(np.diagonal(kernel(block, block)), starts)
    return out


def _blocks(
    rows: Rows, counts: NDArray[np.int64], size: int = BLOCK
) -> Iterator[tuple[MmdSumsFloats, slice, NDArray[Any]]]:
    """Rows in float64, the images that they are of, and where in the block each image starts."""
    owners = np.repeat(np.arange(len(counts)), counts)
    for start in range(0, len(rows), size):
        owner = owners[start : start + size]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        yield rows[start : start + size].astype(np.float64), slice(owner[0], owner[-1] + 1), starts


def _mmd_sums_own(
    times: MmdSumsFloats, sums: MmdSumsFloats, selves: MmdSumsFloats, n: MmdSumsFloats, unbiased: bool
) -> MmdSumsFloats:
    """Mean of the kernel over the pairs of one side's rows; copies of a row are rows of their own."""
    total: MmdSumsFloats = np.einsum("ki,ki->k", times @ sums, times)
    return (total - times @ selves) / (n * (n - 1)) if unbiased else total / n**2

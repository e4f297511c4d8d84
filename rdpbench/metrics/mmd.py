"""Maximum mean discrepancy of two sets of feature vectors: KID with a polynomial kernel, CMMD with a Gaussian one.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

Which pairs of rows are in the means decides what the number says (`Pairs`). The *biased* estimate takes all. The
*unbiased* one leaves the pairs of a row with itself out of the first two means and may be negative, which is kept. An
original and its own reconstruction are alike, and their pair is in the third mean: that lowers the unbiased estimate,
by 2/n of what two alike rows have more in common than two others, and a lossless codec is below zero. The estimate over
images *apart* takes pairs of different images alone, in all three means: zero for a lossless codec, and on average the
distance of the two distributions (Gretton et al., "A kernel two-sample test", JMLR 2012, lemma 6, whose pairs are an
original with its reconstruction). It is the average over all ways to compare the originals of one half of the images
with the reconstructions of the other.

All of it is float64 and block-wise: a block of the kernel matrix is 32 MB, whatever the number of rows.

KID (Binkowski et al., "Demystifying MMD GANs", ICLR 2018): ``k(x, y) = (x.y / d + 1)^3``, unbiased, as the mean over
random subsets (`kid`) or over all rows (`polynomial_mmd`).

CMMD (Jayasumana et al., "Rethinking FID", CVPR 2024): ``k(x, y) = exp(-|x - y|^2 / (2 sigma^2))`` with sigma 10 of CLIP
embeddings of length 1, biased, times 1000. Squared distances are 4 at most, thus all values of k lie within 2 % of 1,
and float32 loses 4 % of a CMMD of 0.004: k - 1 is what is averaged (``expm1``), in float64. The network is CLIP
ViT-L/14 at 336 pixels. It sees the centre square of each image only: 512 x 512 of a 512 x 768 one. Embeddings are
stored as they come and made of length 1 in float64 here. The biased estimate, which is the published one, is above zero
for equal distributions, by more the fewer the images (0.23 at 24, 0.05 at 100, 0.011 at 500, 0.002 at 3000): compare it
at equal numbers of images only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Weights
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import Array, Estimate, Floats, MetricOfSets, NetworkFeatures, by_name, variant
from rdpbench.metrics.sets import BLOCK, Rows, blocks, check_sets, stack
from rdpbench.needs import Package
from rdpbench.networks.clip import L14_336, Clip, load_clip, unit

Kernel: TypeAlias = Callable[[Floats, Floats], Floats]
"""Of ``(a, d)`` and ``(b, d)``: ``(a, b)``."""
Owners: TypeAlias = NDArray[np.int64]
"""``(n,)``: the number of the image that each row is of."""
Pairs: TypeAlias = Literal["biased", "unbiased", "apart"]

SEED = 2020
SIGMA, SCALE = 10.0, 1000.0
"""Of the published CMMD."""
LOUD = 0.1
"""How far pairs of an original with its own reconstruction may move an estimate before tables say it, of the value."""


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

    >>> round(float(gaussian(10.0)(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0, 0]), 9)
    -0.009950166
    """
    gamma = 1 / (2 * sigma**2)

    def kernel(first: Floats, second: Floats) -> Floats:
        squares = np.einsum("ij,ij->i", first, first)[:, None] + np.einsum("ij,ij->i", second, second)
        products = first @ second.T
        products *= 2
        squares -= products
        np.maximum(squares, 0, out=squares)
        squares *= -gamma
        return np.asarray(np.expm1(squares, out=squares))

    return kernel


@dataclass(frozen=True)
class Discrepancy:
    """A discrepancy of two sets of rows."""

    value: float
    apart: float | None = None
    """Over pairs of different images alone; None where the images are not known, or there is one alone."""
    spread: float | None = None
    """Standard deviation over subsets (by their number). Subsets overlap: it is no interval over images."""


def discrepancy(
    reference: Rows,
    distorted: Rows,
    kernel: Kernel,
    images: tuple[Owners, Owners] | None = None,
    *,
    unbiased: bool = True,
) -> Discrepancy:
    """The estimate over all pairs of rows, and over those of different images alone.

    Args:
        reference: ``(n, d)``.
        distorted: ``(m, d)``.
        kernel: `polynomial`, or a `gaussian`.
        images: numbers of the images that the rows are of, ``(n,)`` and ``(m,)``; an original and its reconstruction
            have the same.
        unbiased: leave the pairs of a row with itself out.

    Raises:
        MetricError: fewer than two rows on one side (unbiased), rows of two lengths, NaN or infinite values.

    >>> rows, images = np.array([[1.0, 0.0], [0.0, 1.0]]), np.arange(2)
    >>> discrepancy(rows, rows, polynomial, (images, images))
    Discrepancy(value=-2.375, apart=0.0, spread=None)
    """
    check_sets(reference, distorted, "mmd", minimum=2 if unbiased else 1)
    sides, owners = (reference, distorted), images or (None, None)
    value, apart, known = 0.0, 0.0, images is not None
    for first, second in ((0, 0), (1, 1), (0, 1)):
        own = unbiased and first == second
        total, alike, same = _sums(sides[first], sides[second], kernel, owners[first], owners[second], unbiased=own)
        count = len(sides[first]) * (len(sides[second]) - own)
        weight = 1 if first == second else -2
        value += weight * total / count
        known = known and count > same
        apart += weight * (total - alike) / (count - same) if known else 0.0
    return Discrepancy(value, apart if known else None)


def _sums(
    first: Rows,
    second: Rows,
    kernel: Kernel,
    images: Owners | None = None,
    others: Owners | None = None,
    *,
    unbiased: bool = False,
) -> tuple[float, float, int]:
    """The kernel summed over all pairs of rows, and over the pairs of one image; and the number of these.

    Of a set with itself (``second is first``) a block above the diagonal counts for the one below. ``unbiased`` leaves
    the pairs of a row with itself out.
    """
    totals, alike, same = [], [], 0
    for row, block in enumerate(blocks(first)):
        for column, other in enumerate(blocks(second)):
            if second is first and column < row:
                continue
            times = 2 if second is first and column > row else 1
            values = kernel(block, other)
            own = unbiased and row == column
            trace = float(np.trace(values)) if own else 0.0
            totals.append(times * (float(values.sum()) - trace))
            if images is not None and others is not None:
                mask = images[row * BLOCK :][: len(block), None] == others[column * BLOCK :][: len(other)]
                alike.append(times * (float(values[mask].sum()) - trace))
                same += times * (int(mask.sum()) - own * len(block))
    return math.fsum(totals), math.fsum(alike), same


def polynomial_mmd(reference: Rows, distorted: Rows, *, unbiased: bool = True) -> float:
    """KID over all pairs of rows: no subsets, no seed.

    >>> polynomial_mmd(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]]))
    -2.375
    """
    return discrepancy(reference, distorted, polynomial, unbiased=unbiased).value


def kid(
    reference: Rows,
    distorted: Rows,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = SEED,
    images: tuple[Owners, Owners] | None = None,
) -> Discrepancy:
    """Mean and standard deviation of the unbiased estimate over random subsets of ``size`` rows of each set.

    The same numbers of rows and the same seed give the same subsets, in the order reference, distorted. To compare
    rates, keep the rows in the order of the image ids. ``images`` are the numbers of the images that the rows are of.

    Raises:
        MetricError: fewer rows than ``size``; rows of two lengths; NaN or infinite values.

    >>> rng = np.random.default_rng(0)
    >>> mean = kid(rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) + 1, subsets=5, size=40)
    >>> round(mean.value, 3)
    6.78
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
        subset = discrepancy(reference[first], distorted[second], polynomial, owners)
        values.append(subset.value)
        apart += [] if subset.apart is None else [subset.apart]
    known = math.fsum(apart) / subsets if len(apart) == subsets else None
    return Discrepancy(math.fsum(values) / subsets, known, float(np.std(values)))


def cmmd(reference: Rows, distorted: Rows, *, unbiased: bool = False) -> float:
    """CMMD of rows of length 1: biased as it is published, or the unbiased variant.

    The biased value is above zero for two samples of one distribution, and by more the fewer they are: compare it at
    equal n only.

    Raises:
        MetricError: rows that do not have length 1; fewer than two rows (unbiased); rows of two lengths; NaN.

    >>> round(cmmd(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])), 9)
    19.900332502
    """
    value = SCALE * discrepancy(reference, distorted, gaussian(SIGMA), unbiased=unbiased).value
    for what, rows in (("the reference", reference), ("the distorted set", distorted)):
        lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
        if (wrong := np.abs(lengths - 1) > 1e-4).any():  # normalised in float32 a row errs by 1e-7
            row = int(wrong.argmax())
            raise MetricError(
                f"cmmd: {what}: row {row} has length {lengths[row]:.6g}; divide each row by its length: "
                "CMMD is defined on embeddings of length 1"
            )
    return value


def without_each(
    reference: Sequence[Rows],
    distorted: Sequence[Rows],
    blocks: Sequence[Sequence[int]],
    kernel: Kernel,
    pairs: Pairs,
) -> Floats:
    """The discrepancy without each block of images, from one pass over all pairs of rows.

    Args:
        reference: rows of each image, ``(rows, d)``.
        distorted: those of the same images.
        blocks: numbers of images.
        kernel: of two rows.
        pairs: which pairs of rows are in the means.

    >>> rows = [np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.array([[1.0, 1.0]])]
    >>> without_each(rows, rows, [[0], [1], [2]], polynomial, "apart").tolist()
    [0.0, 0.0, 0.0]
    """
    # By block, by image.
    sides = [[[side[n] for n in block] for block in blocks] for side in (reference, distorted)]
    whole = [[np.concatenate(block) for block in side] for side in sides]
    rows = [np.array([len(block) for block in side]) for side in whole]
    times = 1 - np.eye(len(blocks))
    value = np.zeros(len(blocks))
    for first, second in ((0, 0), (1, 1), (0, 1)):
        sums = np.zeros((len(blocks), len(blocks)))
        for i, j in np.ndindex(sums.shape):
            mirrored = first == second and j < i
            sums[i, j] = sums[j, i] if mirrored else _sums(whole[first][i], whole[second][j], kernel)[0]
        # The pairs that no mean has are all within a block.
        left, count = np.zeros(len(blocks)), np.zeros(len(blocks))
        for i, (images, others) in enumerate(zip(sides[first], sides[second], strict=True)):
            for image, other in zip(map(_wide, images), map(_wide, others), strict=True):
                if pairs == "apart":
                    left[i] += kernel(image, other).sum()
                    count[i] += len(image) * len(other)
                elif pairs == "unbiased" and first == second:
                    left[i] += np.trace(kernel(image, image))
                    count[i] += len(image)
        total = np.einsum("ki,ki->k", times @ sums, times) - times @ left
        weight = 1 if first == second else -2
        value += weight * total / ((times @ rows[first]) * (times @ rows[second]) - times @ count)
    return value


def _wide(rows: Rows) -> Floats:
    return rows.astype(np.float64)


class KernelMetric(MetricOfSets):
    """A metric of sets by a discrepancy: KID, CMMD."""

    bounds = (-math.inf, math.inf)
    scale: ClassVar[float] = 1.0
    pairs: ClassVar[Pairs] = "unbiased"
    split_name: ClassVar[str] = "kid/clean/split, or the stored `apart`"
    """What to take for small distances."""

    @staticmethod
    def kernel(first: Floats, second: Floats) -> Floats:
        """Of all pairs of rows."""
        return polynomial(first, second)

    def rows(self, arrays: Sequence[Array]) -> NDArray[Any]:
        """The rows of all images below each other, as the kernel takes them."""
        return stack(arrays, self.name, self.features.dim)

    def discrepancy(self, reference: Rows, distorted: Rows, images: tuple[Owners, Owners] | None) -> Discrepancy:
        return discrepancy(reference, distorted, self.kernel, images, unbiased=self.pairs != "biased")

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        first, second = self.rows(reference), self.rows(distorted)
        # Image by image the same on both sides, unless the reference is another set.
        paired = self.reference == "originals" and len(reference) == len(distorted)
        if self.pairs == "apart" and not paired:
            raise MetricError(
                f"{self.name}: {len(reference)} originals and {len(distorted)} reconstructions are no pairs"
            )
        # The number of the image that each row is of.
        owners = tuple(np.repeat(np.arange(len(side)), [len(a) for a in side]) for side in (reference, distorted))
        known = paired and self.pairs != "biased" and len(reference) > 1
        result = self.discrepancy(first, second, (owners[0], owners[1]) if known else None)
        value = self.scale * result.value
        if result.apart is None:
            return Estimate(value, result.spread)
        apart = self.scale * result.apart
        if self.pairs == "apart":
            return Estimate(apart)
        loud = abs(value - apart) > LOUD * max(abs(apart), 1e-12)
        direction = "lowered" if value < apart else "raised"
        reason = (
            f"{direction} by pairs of an original with its own reconstruction: for small distances take "
            f"{self.split_name}"
        )
        return Estimate(value, result.spread, reason if loud else "", {"apart": apart})

    def left_out(
        self, reference: Sequence[Array], distorted: Sequence[Array], blocks: Sequence[Sequence[int]]
    ) -> list[float]:
        """The distances over all pairs without each block of images, from one pass; subsets estimate the same."""
        first, second = ([self.rows([array]) for array in side] for side in (reference, distorted))
        return [float(self.scale * value) for value in without_each(first, second, blocks, self.kernel, self.pairs)]


# CMMD


class Projected(NetworkFeatures[Clip]):
    """Image embeddings in the space that CLIP shares with captions: 768 numbers, not of length 1."""

    id = "clip-l14-336/projected"
    needs = (Package("transformers", extra="metrics"), Weights(L14_336))
    dim = 768
    preload = ("torch", "transformers")
    projected: ClassVar[bool] = True

    def load(self, given: Clip | None) -> Clip:
        return given or load_clip(L14_336, self.device, text=False)

    def extract(self, images: Sequence[Image], **_: Any) -> list[NDArray[np.float32]]:
        """One row per image."""
        return list(self.network.image(images, crop="cmmd", projected=self.projected)[:, None])


Unprojected = variant(Projected, "clip-l14-336/noproj", dim=1024, projected=False)
"""The class token before the projection."""


class CMMD(KernelMetric):
    """As published: projected, biased."""

    name = "cmmd"
    source = "Jayasumana et al., CVPR 2024 (google-research/cmmd)"
    features = Projected
    bounds = (0.0, math.inf)
    minimum_images = 500
    scale = SCALE
    pairs: ClassVar[Pairs] = "biased"
    split_name = "cmmd/split"

    @staticmethod
    def kernel(first: Floats, second: Floats) -> Floats:
        return gaussian(SIGMA)(first, second)

    def rows(self, arrays: Sequence[Array]) -> NDArray[Any]:
        """Of length 1. Raises `MetricError` for an embedding of zeros, too."""
        return unit(super().rows(arrays))


_UNBIASED: dict[str, Any] = {"minimum_images": 100, "bounds": KernelMetric.bounds}

METRICS = by_name(
    CMMD,
    # Another scale of values.
    variant(
        CMMD,
        "cmmd/noproj",
        source="Lee et al., ICML 2024 (TACO): CMMD without the projection",
        features=Unprojected,
        unverified="TACO's released code has no CMMD; that it leaves the projection out is second-hand",
    ),
    variant(CMMD, "cmmd/unbiased", pairs="unbiased", **_UNBIASED),
    variant(CMMD, "cmmd/split", pairs="apart", **_UNBIASED),
)

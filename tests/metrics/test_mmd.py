"""KID and CMMD: hand values, expectations, torch-fidelity's subsets, precision, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics import mmd
from rdpbench.metrics.mmd import cmmd, discrepancy, gaussian, kid, polynomial, polynomial_mmd, without_each

CORNERS = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 0.0]])
E4 = np.eye(4)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def full_matrices(x, y, kernel, unbiased):
    """MMD with the whole kernel matrices at once."""
    own = [kernel(one, one)[~np.eye(len(one), dtype=bool) | (not unbiased)].mean() for one in (x, y)]
    return sum(own) - 2 * kernel(x, y).mean()


def test_kid_by_hand():
    assert polynomial_mmd(*CORNERS) == -2.375
    assert polynomial_mmd(*CORNERS, unbiased=False) == 0.5625


def test_kid_over_the_full_set(wavy):
    x, y = wavy
    assert polynomial_mmd(x, y) == pytest.approx(0.4262034458, abs=1e-10)
    assert polynomial_mmd(y, x) == pytest.approx(0.4262034458, abs=1e-10)


@pytest.mark.parametrize(("dim", "square", "expected"), [(8, 2.0, 1.1171875), (64, 4.0, 0.2028503418)])
def test_kid_is_unbiased(dim, square, expected):
    """Of N(0, I) and N(mu, I) with |mu|^2 = m it is (m^3 + 6m^2 + 3md + 6m)/d^3 + 3m^2/d^2 + 3m/d on average."""
    formula = (square**3 + 6 * square**2 + 3 * square * dim + 6 * square) / dim**3
    assert formula + 3 * square**2 / dim**2 + 3 * square / dim == pytest.approx(expected, abs=1e-9)
    rng = np.random.default_rng(7)
    shift = np.full(dim, np.sqrt(square / dim))
    found = [polynomial_mmd(rng.normal(size=(60, dim)), rng.normal(size=(50, dim)) + shift) for _ in range(400)]
    error = np.std(found) / np.sqrt(len(found))
    assert error < 0.03 * expected
    assert np.mean(found) == pytest.approx(expected, abs=3 * error)


def test_subsets_are_drawn_alike_each_time():
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(300, 16)), rng.normal(size=(280, 16)) + 0.2
    found = kid(x, y, subsets=10, size=100)
    assert found == kid(x, y, subsets=10, size=100)
    assert found != kid(x, y, subsets=10, size=100, seed=1)
    # The same indices at every rate: a copy of the set gives the same value, and all-row subsets the full set's.
    assert kid(x, y.copy(), subsets=10, size=100) == found
    whole = kid(x[:100], y[:100], subsets=3, size=100)
    assert whole.value == pytest.approx(polynomial_mmd(x[:100], y[:100]), rel=1e-10)
    assert whole.spread == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("subsets", "size"), [(10, 1000), (50, 200), (100, 60)])
def test_equals_torch_fidelity(subsets, size):
    """The same subsets, thus the same mean and deviation: 100 of them are ten times as long as 10."""
    theirs = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is in the extra 'compare'")
    import torch

    rng = np.random.default_rng(9)
    x, y = (rng.gamma(0.5, size=(n, 32)) for n in (1500, 1400))
    expected = theirs.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(1.1 * y), kid_subsets=subsets, kid_subset_size=size, verbose=False
    )
    found = kid(x, 1.1 * y, subsets=subsets, size=size)
    assert found.value == pytest.approx(expected[theirs.KEY_METRIC_KID_MEAN], rel=1e-9)
    assert found.spread == pytest.approx(expected[theirs.KEY_METRIC_KID_STD], rel=1e-9)


def test_too_few_rows_for_a_subset():
    rows = np.ones((24, 4))
    with pytest.raises(
        MetricError, match=r"subsets of 1000 needs as many rows in each set, found 24 and 24.*at most 24"
    ):
        kid(rows, rows)
    with pytest.raises(MetricError, match="at least 2 rows, found 5 subsets of 1"):
        kid(rows, rows, subsets=5, size=1)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (E4[:1], E4[1:2], 19.900332501663787),
        (E4[:1], -E4[:1], 39.60265338648949),
        (E4[:2], E4[2:], 9.950166250831893),
        (E4[:2], E4[[0, 2]], 4.975083125415972),
    ],
)
def test_cmmd_by_hand(x, y, expected):
    assert cmmd(x, y) == pytest.approx(expected, abs=1e-9)
    assert cmmd(y, x) == pytest.approx(expected, abs=1e-9)


def test_cmmd_of_the_wavy_rows(wavy):
    x, y = map(unit, wavy)
    assert cmmd(x, y) == pytest.approx(1.1554674144, abs=1e-9)
    # For unit vectors and sigma 10 it is ten times the squared distance of the means, within half a percent.
    assert cmmd(x, y) == pytest.approx(10 * np.square(x.mean(0) - y.mean(0)).sum(), rel=5e-3)


def test_cmmd_keeps_its_digits_where_it_is_small():
    """Two nearly equal sets: float32, as published, is off by percents; here it agrees with 50-digit arithmetic."""
    from fractions import Fraction

    rng = np.random.default_rng(10)
    x = unit(rng.normal(size=(12, 8)))
    y = unit(x + 1e-4 * rng.normal(size=(12, 8)))

    def series(a, b):
        """exp(-d^2 / 200) - 1 by its series, in exact fractions."""
        squared = sum((Fraction(float(p)) - Fraction(float(q))) ** 2 for p, q in zip(a, b, strict=True)) / 200
        terms, term = Fraction(0), Fraction(1)
        for order in range(1, 8):
            term *= -squared / order
            terms += term
        return terms

    def mean(first, second):
        return sum(series(a, b) for a in first for b in second) / (len(first) * len(second))

    exact = float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))
    assert 0 < exact < 1e-6
    assert cmmd(x, y) == pytest.approx(exact, abs=1e-12)


def test_cmmd_variants(wavy):
    x, y = map(unit, wavy)
    biased, unbiased = cmmd(x, y), cmmd(x, y, unbiased=True)
    assert unbiased < biased
    assert cmmd(x, x) == pytest.approx(0, abs=1e-12)
    assert cmmd(x, x, unbiased=True) < 0
    assert discrepancy(x, y, gaussian(10), unbiased=False).value == pytest.approx(biased / 1000, rel=1e-12)
    gamma = 1 / (2 * 3.0**2)
    direct = full_matrices(x, y, lambda a, b: np.exp(-gamma * ((a[:, None] - b) ** 2).sum(-1)), unbiased=True)
    assert discrepancy(x, y, gaussian(3)).value == pytest.approx(direct, rel=1e-10)


def test_the_unbiased_variant_is_unbiased_and_the_biased_one_is_not():
    rng = np.random.default_rng(11)
    pairs = [(unit(rng.normal(size=(24, 32))), unit(rng.normal(size=(24, 32)))) for _ in range(300)]
    unbiased = [cmmd(*pair, unbiased=True) for pair in pairs]
    error = np.std(unbiased) / np.sqrt(len(unbiased))
    assert np.mean(unbiased) == pytest.approx(0, abs=3 * error)
    assert np.mean([cmmd(*pair) for pair in pairs]) > 20 * error


@pytest.mark.parametrize("block", [7, 13, 40, 1000])
def test_blocks_change_nothing(wavy, monkeypatch, block):
    x, y = wavy[0], wavy[1][:33]
    monkeypatch.setattr(mmd, "blocks", lambda rows: (rows[i : i + block] for i in range(0, len(rows), block)))
    monkeypatch.setattr(mmd, "BLOCK", block)
    for unbiased in (True, False):
        expected = full_matrices(x, y, lambda a, b: (a @ b.T / 64 + 1) ** 3, unbiased)
        assert polynomial_mmd(x, y, unbiased=unbiased) == pytest.approx(expected, abs=1e-12)


def test_order_changes_nothing(wavy):
    x, y = wavy
    order = np.random.default_rng(12).permutation(40)
    assert polynomial_mmd(x[order], y[order[::-1]]) == pytest.approx(polynomial_mmd(x, y), abs=1e-9)
    x, y = unit(x), unit(y)
    assert cmmd(x[order], y[order[::-1]]) == pytest.approx(cmmd(x, y), abs=1e-9)


def test_rows_must_have_length_one(wavy):
    x, y = wavy
    with pytest.raises(MetricError, match=r"the reference: row 0 has length \d.*divide each row by its length"):
        cmmd(x, y)
    bad = unit(y)
    bad[17] *= 1.001
    with pytest.raises(MetricError, match=r"the distorted set: row 17 has length 1\.001"):
        cmmd(unit(x), bad)
    # Normalised in float32 is close enough.
    x32, y32 = unit(x.astype(np.float32)), unit(y.astype(np.float32))
    assert cmmd(x32, y32) == pytest.approx(1.1554674144, rel=1e-6)


@pytest.mark.parametrize("metric", [polynomial_mmd, cmmd, lambda x, y: kid(x, y, subsets=2, size=2)])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (E4, np.eye(3), "features of two presets"),
        (E4[:0], E4, "no feature vector"),
        (E4 * np.nan, E4, "NaN"),
        (E4.astype(np.int64), E4, "found int64"),
    ],
)
def test_what_is_refused(metric, x, y, message):
    with pytest.raises(MetricError, match=message):
        metric(x, y)


def test_one_row_has_no_unbiased_estimate():
    for metric in (polynomial_mmd, lambda x, y: cmmd(x, y, unbiased=True)):
        with pytest.raises(MetricError, match="1 feature vector, and at least 2 are needed"):
            metric(E4[:1], E4)


def alike(rng, n, loss, rows=1):
    """Originals and reconstructions of n images with some rows each, which resemble one another."""
    centre = np.repeat(rng.normal(size=(n, 6)), rows, axis=0)
    first = centre + 0.5 * rng.normal(size=centre.shape)
    second = (1 - loss) * first + loss * (rng.normal(size=centre.shape) + 0.5)
    owners = np.repeat(np.arange(n), rows)
    return first, second, (owners, owners)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kernel", [polynomial, gaussian(1.0)])
def test_images_apart_are_all_ways_to_split_them(kernel, rows):
    """The mean over every half of the images of: originals of that half against reconstructions of the other."""
    first, second, (owners, _) = alike(np.random.default_rng(0), 6, 0.3, rows)
    found = mmd.discrepancy(first, second, kernel, (owners, owners))
    own = [kernel(side, side) for side in (first, second)]
    cross = kernel(first, second)
    different = owners[:, None] != owners
    splits = []
    for half in itertools.combinations(range(6), 3):
        here = np.isin(owners, half)
        within = [
            matrix[np.ix_(of, of)][different[np.ix_(of, of)]].mean()
            for matrix, of in zip(own, (here, ~here), strict=True)
        ]
        splits.append(sum(within) - 2 * cross[np.ix_(here, ~here)].mean())
    assert found.apart == pytest.approx(np.mean(splits), rel=1e-10)
    if rows == 1 and kernel is polynomial:
        assert found.value == polynomial_mmd(first, second)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_lossless_codec_is_at_zero_only_where_images_are_apart(rows):
    first, _, owners = alike(np.random.default_rng(1), 40, 0, rows)
    found = mmd.discrepancy(first, first.copy(), polynomial, owners)
    assert found.value < -0.01
    assert found.apart == pytest.approx(0, abs=1e-12)


def test_blocks_and_subsets_know_their_images(monkeypatch):
    """Rows of an image may lie in two blocks, and subsets take them in any order."""
    first, second, owners = alike(np.random.default_rng(2), 30, 0.2, 3)
    whole = mmd.discrepancy(first, second, polynomial, owners)
    monkeypatch.setattr(mmd, "BLOCK", 7)
    monkeypatch.setattr(mmd, "blocks", lambda rows: (rows[at : at + 7] for at in range(0, len(rows), 7)))
    pieces = mmd.discrepancy(first, second, polynomial, owners)
    assert (pieces.value, pieces.apart) == pytest.approx((whole.value, whole.apart), rel=1e-10)
    every = kid(first, second, subsets=1, size=90, images=owners)
    assert (every.value, every.apart) == pytest.approx((whole.value, whole.apart), rel=1e-10)


def test_images_apart_are_right_on_average():
    """Pairs of an original with its own reconstruction lower the usual estimate, 60 times the distance at 40 images."""
    rng = np.random.default_rng(3)
    found = [mmd.discrepancy(*alike(rng, 40, 0.1)[:2], polynomial, (np.arange(40),) * 2) for _ in range(800)]
    first, second, _ = alike(rng, 8000, 0.1)
    apart_truth = polynomial_mmd(first[:4000], second[4000:])
    several = np.array([one.apart for one in found])
    error = several.std() / np.sqrt(len(several))
    assert abs(several.mean() - apart_truth) < 4 * error + 0.002
    assert np.mean([one.value for one in found]) < apart_truth - 100 * error


def test_one_image_is_not_apart():
    rows = np.ones((3, 4))
    assert discrepancy(rows, rows, polynomial, (np.zeros(3, int),) * 2).apart is None


@pytest.mark.parametrize("pairs", ["biased", "unbiased", "apart"])
@pytest.mark.parametrize("kernel", [polynomial, gaussian(1.0)])
@pytest.mark.parametrize("size", [3, 2048])
def test_without_a_block_of_images(pairs, kernel, size, monkeypatch):
    """What the jackknife computes from one pass is the estimate of the images that are left."""
    monkeypatch.setattr(mmd, "BLOCK", size)
    monkeypatch.setattr(mmd, "blocks", lambda rows: (rows[at : at + size] for at in range(0, len(rows), size)))
    rng = np.random.default_rng(4)
    ours = [rng.normal(size=(1 + n % 3, 5)) for n in range(12)]
    theirs = [one + 0.3 * rng.normal(size=one.shape) for one in ours]
    blocks = [[0, 5, 7], [1, 2], [3, 4, 6, 8, 9, 10, 11]]
    found = without_each(ours, theirs, blocks, kernel, pairs)
    for value, block in zip(found, blocks, strict=True):
        left = [n for n in range(12) if n not in block]
        owners = np.repeat(left, [len(ours[n]) for n in left])
        sides = (np.concatenate([one[n] for n in left]) for one in (ours, theirs))
        expected = discrepancy(*sides, kernel, (owners, owners), unbiased=pairs != "biased")
        assert value == pytest.approx(expected.apart if pairs == "apart" else expected.value, rel=1e-10)

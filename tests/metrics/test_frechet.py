"""The Fréchet distance: closed forms, scipy's matrix square root, shards, few rows, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics.frechet import Moments, distance, distance_of_rows, merge, moments
from rdpbench.metrics.sets import check_rows


def gaussian(mean, covariance, n=100):
    return Moments(n, np.array(mean, float), np.array(covariance, float) * (n - 1))


def scipy_distance(x, y):
    """The textbook way: the square root of the product of the covariances."""
    from scipy import linalg

    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    gap = x.mean(axis=0) - y.mean(axis=0)
    return gap @ gap + np.trace(first) + np.trace(second) - 2 * np.trace(linalg.sqrtm(first @ second)).real


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (gaussian([0, 0], np.diag([1, 4])), gaussian([1, 2], np.diag([9, 16])), 13.0),
        (gaussian([0, 0], [[2, 1], [1, 2]]), gaussian([1, 1], np.diag([1, 3])), 2.5166852264521173),
        (gaussian(np.zeros(16), np.eye(16)), gaussian(np.zeros(16), 4 * np.eye(16)), 16.0),
    ],
    ids=["diagonal", "not commuting", "scaled"],
)
def test_closed_forms(first, second, expected):
    assert distance(first, second).value == pytest.approx(expected, abs=1e-9)
    assert distance(second, first).value == pytest.approx(expected, abs=1e-9)


def test_few_rows(wavy):
    x, y = wavy
    found = distance_of_rows(x, y)
    assert found.value == pytest.approx(51.28558, abs=1e-4)
    assert distance(moments(x), moments(y)).value == pytest.approx(found.value, rel=1e-6)
    assert isinstance(found.value, float)
    assert not found.reliable
    assert (found.n, found.dim) == ((40, 40), 64)


def test_a_set_and_itself(wavy):
    x, _ = wavy
    for found in (distance_of_rows(x, x), distance(moments(x), moments(x))):
        assert found.value == pytest.approx(0, abs=1e-5)
    # By singular values the error is that of the sum; by eigenvalues it is that of 25 square roots of 1e-16.
    assert abs(distance_of_rows(x, x).value) < 1e-10


def test_nothing_is_clamped():
    values = [distance_of_rows(*2 * [np.random.default_rng(seed).normal(size=(50, 8))]).value for seed in range(20)]
    assert min(values) < 0 < max(values)
    assert max(map(abs, values)) < 1e-12


@pytest.mark.parametrize(("n", "m"), [(300, 200), (30, 200), (200, 30), (30, 20), (2, 2), (64, 64), (2, 200)])
def test_both_ways_agree_whatever_the_number_of_rows(n, m):
    rng = np.random.default_rng(n + m)
    mix = rng.normal(size=(64, 64))
    x, y = rng.normal(size=(n, 64)) @ mix, rng.normal(size=(m, 64)) @ mix.T + 0.5
    found = distance_of_rows(x, y)
    # Eigenvalues that should be zero come out as 1e-16 of the largest, and their square roots as 1e-8.
    tolerance = 1e-11 if min(n, m) > 64 else 1e-6
    assert found.value == pytest.approx(distance(moments(x), moments(y)).value, rel=tolerance)
    assert found.value == pytest.approx(distance_of_rows(y, x).value, rel=1e-11)
    assert found.reliable == (min(n, m) >= 64)


def singular_distance(x, y):
    """By the singular values of the rows' triangular factors: no product of covariances, whose condition squares."""
    factors = [np.linalg.qr((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1), mode="r") for rows in (x, y)]
    gap = x.mean(axis=0) - y.mean(axis=0)
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    return gap @ gap + sum(np.square(factor).sum() for factor in factors) - 2 * shared


def test_equals_the_matrix_square_root():
    rng = np.random.default_rng(3)
    # Of a condition at which scipy's square root of the product holds its digits on every processor.
    mix = np.linalg.qr(rng.normal(size=(48, 48)))[0] * np.linspace(0.5, 2, 48)
    x, y = rng.normal(size=(400, 48)) @ mix, rng.normal(size=(300, 48)) @ mix * 1.1 + 0.3
    assert distance_of_rows(x, y).value == pytest.approx(scipy_distance(x, y), rel=1e-11)
    assert distance_of_rows(x, y).value == pytest.approx(singular_distance(x, y), rel=1e-12)


def test_covariances_of_bad_condition_cost_no_digit():
    """The condition is 1e6 here: scipy's square root is 2e-11 off, by how much depends on the processor."""
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(48, 48))
    x, y = rng.normal(size=(400, 48)) @ mix, rng.normal(size=(300, 48)) @ mix * 1.1 + 0.3
    assert distance_of_rows(x, y).value == pytest.approx(singular_distance(x, y), rel=1e-12)


def test_equals_torch_fidelity():
    fidelity = pytest.importorskip("torch_fidelity.metric_fid", reason="torch-fidelity is in the extra 'compare'")
    import torch

    rng = np.random.default_rng(4)
    x, y = (rng.gamma(0.5, size=(n, 64)).astype(np.float32) for n in (1500, 1400))
    y *= np.float32(1.2)
    statistics = [fidelity.fid_features_to_statistics(torch.from_numpy(one).double()) for one in (x, y)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)[fidelity.KEY_METRIC_FID]
    assert distance_of_rows(x, y).value == pytest.approx(theirs, rel=1e-11)


def test_shards_add_up_to_the_whole(wavy):
    x, _ = wavy
    edges = np.cumsum([1, 3, 1, 16, 19])[:-1]
    shards = [moments(shard) for shard in np.split(x, edges)]
    total = shards[0]
    for shard in shards[1:]:
        total = merge(total, shard)
    assert total.n == 40
    np.testing.assert_allclose(total.covariance(), np.cov(x, rowvar=False), atol=1e-12, rtol=0)
    np.testing.assert_allclose(total.mean, x.mean(axis=0), atol=1e-14, rtol=0)


def test_order_and_shards_do_not_change_the_distance(wavy):
    x, y = wavy
    # Enough rows that nothing is singular.
    x, y = (np.concatenate([one, one[::-1] ** 2, np.cos(one)]) for one in (x, y))
    whole = distance(moments(x), moments(y)).value
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = distance(moments(x[order]), moments(y[order])).value
    for edges in ([30], [30, 60, 90]):
        parts = [moments(part) for part in np.split(x[order], edges)]
        while len(parts) > 1:
            parts.append(merge(parts.pop(), parts.pop(0)))
        assert distance(parts[0], moments(y)).value == pytest.approx(whole, abs=1e-9)
    assert shuffled == pytest.approx(whole, abs=1e-9)


def test_a_large_offset_costs_no_digits():
    """Raw second moments in float32 would lose all of the covariance here; two passes in float64 do not."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(5000, 4))
    moved = (x + 1e6).astype(np.float64)
    np.testing.assert_allclose(moments(moved).covariance(), np.cov(x, rowvar=False), rtol=1e-8, atol=1e-9)


def test_float32_rows_are_computed_in_float64():
    rows = np.random.default_rng(6).normal(size=(3000, 12)).astype(np.float32)
    found = moments(rows)
    assert found.mean.dtype == found.scatter.dtype == np.float64
    np.testing.assert_allclose(
        found.covariance(), np.cov(rows.astype(np.float64), rowvar=False), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize(
    ("reference", "distorted", "message"),
    [
        (np.zeros((0, 4)), np.ones((5, 4)), "the reference: no feature vector, and at least 2 are needed"),
        (np.ones((5, 4)), np.ones((1, 4)), "the distorted set: 1 feature vector, and at least 2 are needed"),
        (np.ones((5, 4)), np.ones((5, 3)), "features of two presets are never compared"),
        (np.ones((5, 4)), np.where(np.eye(5, 4) > 0, np.nan, 1), "the distorted set: row 0 holds NaN"),
        (np.full((5, 4), np.inf), np.ones((5, 4)), "row 0 holds NaN or infinite values"),
        (np.ones(20), np.ones((5, 4)), r"an array \(n, d\) of floats, found float64 \(20,\)"),
        (np.ones((5, 4), np.uint8), np.ones((5, 4)), "found uint8"),
        (np.ones((5, 0)), np.ones((5, 0)), "no entries"),
        ([[1.0, 2.0]], np.ones((5, 4)), "found list"),
    ],
)
def test_what_is_refused(reference, distorted, message):
    with pytest.raises(MetricError, match=message):
        distance_of_rows(reference, distorted)


def test_moments_of_one_row_or_with_nan_have_no_distance():
    row, some = moments(np.ones((1, 4))), moments(np.random.default_rng(0).normal(size=(9, 4)))
    with pytest.raises(MetricError, match="the reference has 1 feature vector"):
        distance(row, some)
    with pytest.raises(MetricError, match="at least 2"):
        row.covariance()
    with pytest.raises(MetricError, match="hold NaN"):
        distance(some, Moments(9, some.mean, some.scatter * np.nan))
    with pytest.raises(MetricError, match="of 4 and of 3 entries do not add up"):
        merge(row, moments(np.ones((2, 3))))


def test_the_row_with_nan_is_named():
    rows = np.ones((5000, 2), np.float32)
    rows[4321, 1] = np.nan
    with pytest.raises(MetricError, match="row 4321"):
        check_rows(rows, "fid")

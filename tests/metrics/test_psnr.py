"""PSNR: exact sums, both ways to average, against scikit-image and numbers computed elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rdpbench.metrics.psnr import PSNR, PooledPSNR, psnr_of, squared_error


def score(x, y, metric=None):
    metric = metric or PSNR()
    return metric.score(metric.prepare(x), y)


@pytest.mark.parametrize(
    ("size", "sums", "mse", "db"),
    [
        ((192, 192), (14411562, 14242026), 168.4127061632, 25.8670550643),
        ((256, 256), (25142914, 24913518), 167.5261535645, 25.8899774375),
        ((255, 257), (25187268, 24951179), 167.7475801734, 25.8842409685),
        ((512, 768), (150999494, 149585784), 167.5989973280, 25.8880894476),
    ],
)
def test_the_synthetic_pair(synthetic, size, sums, mse, db):
    x, y = synthetic(*size)
    assert (int(x.sum()), int(y.sum())) == sums
    assert squared_error(x, y) / x.size == pytest.approx(mse, abs=1e-10)
    assert score(x, y, PooledPSNR()) == pytest.approx(db, abs=1e-10)
    assert score(x, y) == pytest.approx(db, abs=1e-10)


def test_equals_scikit_image(photograph, compress):
    from skimage.metrics import peak_signal_noise_ratio

    for quality in (5, 50, 95):
        y = compress(photograph, quality)
        assert score(photograph, y) == pytest.approx(peak_signal_noise_ratio(photograph, y, data_range=255), abs=1e-11)


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 13, 3), (161, 137, 3), (300, 300, 3)])
def test_the_sum_is_exact_whatever_the_size(shape):
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    assert squared_error(x, y) == int(((x.astype(np.int64) - y) ** 2).sum())


def test_the_largest_possible_error_does_not_overflow():
    black, white = np.zeros((512, 512, 3), np.uint8), np.full((512, 512, 3), 255, np.uint8)
    assert squared_error(black, white) == squared_error(white, black) == 512 * 512 * 3 * 255**2
    assert score(black, white) == 0


def test_views_with_strides_count_like_copies(synthetic):
    x, y = synthetic(64, 96)
    assert score(x[::2, ::-1], y[::2, ::-1]) == score(x[::2, ::-1].copy(), y[::2, ::-1].copy())


def test_mean_of_psnr_is_not_psnr_of_mean():
    assert PSNR().reduce([48.130803608679103, 28.130803608679103]) == pytest.approx(38.1308036087, abs=1e-10)
    assert PooledPSNR().reduce([psnr_of(1.0), psnr_of(100.0)]) == pytest.approx(31.0978898275, abs=1e-10)


def test_identical_images_are_infinite_and_the_table_still_adds_up():
    grey = np.full((8, 8, 3), 7, np.uint8)
    assert score(grey, grey) == math.inf
    assert PSNR().reduce([math.inf, 30.0]) == 30.0
    assert PSNR().reduce([math.inf, math.inf]) == math.inf
    assert PooledPSNR().reduce([math.inf, math.inf]) == math.inf
    assert PooledPSNR().reduce([math.inf, psnr_of(2.0)]) == pytest.approx(psnr_of(1.0), abs=1e-10)
    assert math.isnan(PooledPSNR().reduce([]))
    assert math.isnan(PSNR().reduce([]))

"""Diversity of several decodes: by hand, whatever their order, and with the real LPIPS on a random trunk."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics.diversity import METRICS, Deviation, mean_of_pairs, pixel_deviation
from rdpbench.metrics.lpips import LPIPSSqueeze
from rdpbench.metrics.psnr import PooledPSNR


def decodes(count, size=(20, 24), seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def trunk():
    import torch
    import torchvision

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tensors = torchvision.models.squeezenet1_1(weights=None).state_dict()
    yield tensors
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lpips(trunk):
    return LPIPSSqueeze(trunk)


def test_a_deterministic_decoder_has_none(lpips):
    image = decodes(1)[0]
    assert mean_of_pairs([image, image.copy(), image.copy()], lpips) == 0.0
    assert pixel_deviation([image, image.copy(), image.copy()]).max() == 0.0


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_pairs_count_once(lpips, count):
    images = decodes(count)
    pairs = list(itertools.combinations(images, 2))
    assert len(pairs) == count * (count - 1) // 2
    expected = np.mean([lpips.score(lpips.prepare(one), other) for one, other in pairs])
    found = mean_of_pairs(images, lpips)
    assert found == pytest.approx(expected, rel=1e-12)
    assert found > 0.01
    assert mean_of_pairs(images[::-1], lpips) == pytest.approx(found, rel=1e-6)
    assert np.array_equal(pixel_deviation(images[::-1]), pixel_deviation(images))


def test_each_decode_is_prepared_once(lpips, trunk):
    images = decodes(4)
    prepared = []

    class Counting(LPIPSSqueeze):
        def prepare(self, original):
            prepared.append(original)
            return super().prepare(original)

    counting = Counting(trunk)
    assert mean_of_pairs(images, counting) == mean_of_pairs(images, lpips)
    assert len(prepared) == 3


def test_deviation_is_numpys():
    images = decodes(6)
    expected = np.std(np.stack(images).astype(np.float64), axis=0, ddof=1).mean(axis=2)
    assert np.allclose(pixel_deviation(images), expected, rtol=1e-12)
    # Between 0 and 255 alone, the largest there is: no rounding makes a variance negative, none overflows.
    black = np.zeros((4, 4, 3), np.uint8)
    assert pixel_deviation([black, black + 255])[0, 0] == pytest.approx(255 / 2**0.5)
    assert pixel_deviation([black + 255] * 7).max() == 0


def test_the_estimate_does_not_grow_with_the_number_of_decodes():
    noise = np.random.default_rng(1).normal(128, 10, (40, 64, 64, 1))
    grey = [np.repeat(np.rint(plane), 3, axis=2).astype(np.uint8) for plane in noise]
    for count in (2, 5, 20):
        groups = [grey[start : start + count] for start in range(0, 40, count)]
        variance = np.mean([pixel_deviation(group) ** 2 for group in groups])
        assert variance == pytest.approx(100, rel=0.02), count


@pytest.mark.parametrize("count", [2, 4])
def test_the_metrics_of_a_row_are_these_functions(lpips, count):
    images = decodes(count)
    assert Deviation.over(count)().score(images) == pixel_deviation(images).mean()
    metric = METRICS["diversity/lpips-squeeze"].over(count)(lpips)
    assert metric.score(images) == mean_of_pairs(images, lpips)
    assert metric.reduce([1.0, 2.0]) == 1.5
    assert metric.name == f"diversity/lpips-squeeze/{count}"
    with pytest.raises(MetricError, match=f"compares {count} decodes, found {count + 1}"):
        metric.score(decodes(count + 1))


def test_wrong_use(lpips):
    one, other = decodes(2)
    for few in ([], [one]):
        with pytest.raises(MetricError, match=f"at least 2, found {len(few)}"):
            mean_of_pairs(few, lpips)
        with pytest.raises(MetricError, match="at least 2"):
            pixel_deviation(few)
    with pytest.raises(MetricError, match="must be uint8"):
        mean_of_pairs([one, other / 255], lpips)
    with pytest.raises(MetricError, match="must be uint8"):
        pixel_deviation([np.full(one.shape, np.nan), other])
    with pytest.raises(MetricError, match="the reconstruction 23 x 20"):
        mean_of_pairs([one, other[:, 1:]], PooledPSNR())

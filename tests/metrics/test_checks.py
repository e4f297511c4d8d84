"""What every pair metric must refuse, asked of every pair metric that needs no download."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError
from rdpbench.metrics.contract import Metric


def test_the_registry_names_what_the_modules_have():
    for module, names in registry.METRICS.items():
        classes = importlib.import_module(f"rdpbench.metrics.{module}").METRICS
        assert sorted(classes) == names.split()
        assert all(cls.name == name and cls is registry.load("metric", name) for name, cls in classes.items())


OFFLINE = ["flip", "ms-ssim", "psnr", "psnr-pooled"]


@pytest.fixture(params=OFFLINE)
def metric(request) -> Metric:
    return registry.load("metric", request.param)()


@pytest.fixture
def image():
    return np.full((192, 208, 3), 90, np.uint8)


def test_is_a_metric_that_says_what_it_is(metric):
    assert isinstance(metric, Metric)
    assert registry.load("metric", metric.name) is type(metric)
    assert metric.version
    assert metric.source
    assert isinstance(metric.higher_is_better, bool)
    assert isinstance(metric.perceptual, bool)
    assert metric.unit in ("", "dB")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16, np.bool_])
def test_only_8_bit_images_pass(metric, image, dtype):
    with pytest.raises(MetricError, match=rf"{metric.name}: the original must be uint8 .* found {np.dtype(dtype)}"):
        metric.prepare((image / 255).astype(dtype))
    with pytest.raises(MetricError, match=rf"{metric.name}: the reconstruction must be uint8"):
        metric.score(metric.prepare(image), (image / 255).astype(dtype))


@pytest.mark.parametrize("shape", [(192, 208), (192, 208, 1), (192, 208, 4), (1, 192, 208, 3), (0, 208, 3)])
def test_only_rgb_passes(metric, image, shape):
    with pytest.raises(MetricError):
        metric.prepare(np.zeros(shape, np.uint8))
    with pytest.raises(MetricError):
        metric.score(metric.prepare(image), np.zeros(shape, np.uint8))


def test_sizes_must_agree_and_both_are_named(metric, image):
    with pytest.raises(MetricError, match=r"the original is 208 x 192 and the reconstruction 192 x 208"):
        metric.score(metric.prepare(image), image.transpose(1, 0, 2).copy())


@pytest.mark.parametrize("shape", [(160, 400, 3), (400, 160, 3), (160, 160, 3)])
def test_ms_ssim_refuses_small_images(shape):
    with pytest.raises(MetricError, match=r"ms-ssim needs at least 161 pixels on each side.*never resized"):
        registry.load("metric", "ms-ssim")().prepare(np.zeros(shape, np.uint8))


def test_nothing_that_was_given_is_changed(metric):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 192, 208, 3), dtype=np.uint8)
    before = x.copy(), y.copy()
    metric.score(metric.prepare(x), y)
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])


def test_read_only_images_pass(metric, image):
    image.flags.writeable = False
    metric.score(metric.prepare(image), image)

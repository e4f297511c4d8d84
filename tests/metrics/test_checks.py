"""What every metric must do and refuse, asked of all pair metrics, by random weights where they have a network."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.assets.weights import Weights
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics.contract import ComparingMetric, Metric, WithNetwork
from rdpbench.metrics.noreference import NoReference
from rdpbench.metrics.programs import OfProgram
from rdpbench.networks import held

CAPTIONS = ("A man in an orange suit", "an astronaut, smiling", "two dogs")


def test_the_registry_names_what_the_modules_have():
    for module, names in registry.METRICS.items():
        classes = importlib.import_module(f"rdpbench.metrics.{module}").METRICS
        assert sorted(classes) == names.split()
        assert all(cls.name == name and cls is registry.load("metric", name) for name, cls in classes.items())


def test_importing_all_is_light():
    program = (
        "import importlib, sys; from rdpbench import registry\n"
        "[importlib.import_module(f'rdpbench.metrics.{name}') for name in (*registry.METRICS, 'self_check')]\n"
        "heavy = ('torch', 'torchvision', 'transformers', 'lpips', 'scipy', 'cv2', 'PIL')\n"
        "print(*(name for name in heavy if name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"\n"


EVERY = {name: registry.load("metric", name) for name in registry.BUILTIN["metric"]}
# Those of pyiqa and of programs need what is not everywhere.
PAIRS = {
    name: cls
    for name, cls in EVERY.items()
    if getattr(cls, "kind", "pair") == "pair" and not issubclass(cls, (NoReference, OfProgram))
}


@pytest.fixture
def metric(request) -> Metric:
    cls = PAIRS[request.param]
    family = request.param.partition("/")[0]
    if not issubclass(cls, WithNetwork):
        return cls()
    if family == "pieapp":
        return cls(request.getfixturevalue("pieapp_tensors"))
    if family in ("lpips", "dists"):
        return cls(request.getfixturevalue("trunks")[getattr(cls, "net", "vgg")])
    return cls(request.getfixturevalue("tower"))


@pytest.fixture
def images(metric):
    """Two, as small as the metric takes them, about."""
    size = (180, 192, 3) if metric.name.startswith("ms-ssim") else (70, 80, 3)
    return np.random.default_rng(0).integers(0, 256, (2, *size), dtype=np.uint8)


def prepare(metric, image):
    return metric.prepare(image, **({"captions": CAPTIONS} if getattr(metric, "beside", ()) else {}))


OTHERS = (np.float32, np.float64, np.int64, np.uint16, np.bool_)
OF_PAIRS = pytest.mark.parametrize("metric", sorted(PAIRS), indirect=True)


@OF_PAIRS
def test_is_a_metric_that_says_what_it_is(metric):
    assert isinstance(metric, Metric)
    assert metric.version
    assert metric.source
    assert isinstance(metric.higher_is_better, bool)
    assert isinstance(metric.perceptual, bool)
    assert metric.unit in ("", "dB")
    assert metric.reduce([0.25, 0.75]) == 0.5 or metric.averaged == "decibels"


@OF_PAIRS
def test_only_8_bit_rgb_of_one_size_passes(metric, images):
    image, prepared = images[0], prepare(metric, images[0])
    for wrong in (*((image / 255).astype(kind) for kind in OTHERS), np.full(image.shape, math.nan)):
        with pytest.raises(MetricError, match=rf"{metric.name}: the original must be uint8 .* found {wrong.dtype}"):
            prepare(metric, wrong)
        with pytest.raises(MetricError, match=rf"{metric.name}: the reconstruction must be uint8"):
            metric.score(prepared, wrong)
    height, width, _ = image.shape
    for shape in ((height, width), (height, width, 1), (height, width, 4), (1, *image.shape), (0, width, 3)):
        with pytest.raises(MetricError):
            prepare(metric, np.zeros(shape, np.uint8))
        with pytest.raises(MetricError):
            metric.score(prepared, np.zeros(shape, np.uint8))
    sizes = f"the original is {width} x {height} and the reconstruction {height} x {width}"
    with pytest.raises(MetricError, match=sizes):
        metric.score(prepared, image.transpose(1, 0, 2).copy())
    if (least := getattr(metric, "minimum_side", 1)) > 1:
        with pytest.raises(MetricError, match=rf"{metric.name} needs at least {least} pixels on each side.*never re"):
            prepare(metric, image[: least - 1])


@pytest.mark.parametrize(("name", "least"), [("ms-ssim", 161), ("ms-ssim/torchmetrics", 176)])
def test_ms_ssim_refuses_small_images(name, least):
    for shape in ((least - 1, 400, 3), (400, least - 1, 3), (least - 1, least - 1, 3)):
        with pytest.raises(MetricError, match=rf"{name} needs at least {least} pixels on each side.*never resized"):
            registry.load("metric", name)().prepare(np.zeros(shape, np.uint8))


@OF_PAIRS
def test_what_is_given_stays_as_it_is_and_views_are_taken(metric, images):
    first, second = images
    before = images.copy()
    value = metric.score(prepare(metric, first), second)
    assert np.array_equal(images, before)
    turned = np.ascontiguousarray(first[:, ::-1])[:, ::-1]
    turned.flags.writeable = second.flags.writeable = False
    assert metric.score(prepare(metric, turned), second) == value


@OF_PAIRS
def test_one_preparation_serves_many_pairs_in_any_order(metric, images, monkeypatch):
    first = images[0]
    others = [np.clip(first.astype(int) + step, 0, 255).astype(np.uint8) for step in (0, 2, 30, 90)]
    calls = []
    if isinstance(metric, ComparingMetric):
        compute = type(metric).compute
        monkeypatch.setattr(type(metric), "compute", lambda self, image: calls.append(1) or compute(self, image))
    prepared = prepare(metric, first)
    forth = [metric.score(prepared, other) for other in others]
    # What is compared of the original is computed once, whatever the number of codecs.
    assert len(calls) in (0, 1 + len(others))
    assert [metric.score(prepared, other) for other in reversed(others)] == forth[::-1]
    assert forth == [metric.score(prepare(metric, first), other) for other in others]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, cls in EVERY.items()
        if any(isinstance(need, Weights) for need in cls.needs)
        and not (issubclass(cls, NoReference) or name.startswith("diversity/"))
    ],
)
def test_without_weights_it_says_what_to_do(name, tmp_path, monkeypatch):
    for variable in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv("RDPBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("RDPBENCH_ACCEPT", "pieapp")
    held.forget()
    cls = EVERY[name]
    with pytest.raises(MissingNeed, match="are not on this machine") as caught:
        getattr(cls, "features", cls)().network  # noqa: B018 - loads
    assert str(caught.value) in [need.missing() for need in cls.needs if isinstance(need, Weights)]

"""DISTS with a random trunk: equal to torchmetrics, nearer to float64 than it; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics import dists
from rdpbench.metrics.dists import DISTS, SmallDISTS, read_factors, shrink


@pytest.fixture(scope="module")
def trunk(trunks):
    return trunks["vgg"]


@pytest.fixture(scope="module")
def theirs(trunk):
    """torchmetrics' network; its constructor would download the trunk, and is handed the random one instead."""
    import torch
    import torchvision
    from torchmetrics.functional.image import dists as their

    def vgg16(weights):
        with torch.device("meta"):
            network = torchvision.models.vgg16(weights=None)
        own = {name.removeprefix("features."): tensor for name, tensor in trunk.items() if name.startswith("features")}
        network.features.load_state_dict(own, assign=True)
        return network

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(their, "vgg16", vgg16)
        return their.DISTSNetwork().eval()


def value(module, x, y):
    import torch

    planes = [torch.tensor(image).permute(2, 0, 1)[None] / 255 for image in (x, y)]
    dtype = next(module.parameters()).dtype
    with torch.no_grad():
        return module(*(plane.to(dtype) for plane in planes)).item()


@pytest.mark.parametrize("size", [(64, 80), (65, 49)])
def test_equals_torchmetrics(trunk, theirs, photograph, compress, size):
    x = photograph[100 : 100 + size[0], 200 : 200 + size[1]]
    metric = DISTS(trunk)
    prepared = metric.prepare(x)
    for quality in (10, 60):
        y = compress(x, quality)
        assert metric.score(prepared, y) == pytest.approx(value(theirs, x, y), abs=1e-6)
        assert value(theirs, x, y) > 1e-3
    assert metric.score(prepared, x) == 0


def test_nearer_to_float64_than_torchmetrics(trunk, theirs, photograph, compress):
    import copy

    x = photograph[100:164, 200:264]
    double = copy.deepcopy(theirs).double()
    metric = DISTS(trunk)
    prepared = metric.prepare(x)
    ours_off, theirs_off = [], []
    for y in (x, compress(x, 20), compress(x, 90)):
        exact = value(double, x, y)
        ours_off.append(abs(metric.score(prepared, y) - exact))
        theirs_off.append(abs(value(theirs, x, y) - exact))
    assert max(ours_off) < 1e-7
    assert max(ours_off) < max(theirs_off)


def test_the_authors_script_shrinks_first(trunk, theirs, photograph, compress):
    from torchvision.transforms.functional import resize
    from torchvision.transforms.functional import to_pil_image as pil

    x = photograph[:290, :400]
    y = compress(x, 15)
    small = [np.array(resize(pil(image), 256)) for image in (x, y)]
    assert small[0].shape == (256, 353, 3)
    assert np.array_equal(shrink(x), small[0])
    assert shrink(x[:256]) is not x
    assert shrink(x[:256]).shape == (256, 400, 3)
    metric = SmallDISTS(trunk)
    assert metric.score(metric.prepare(x), y) == pytest.approx(value(theirs, *small), abs=1e-6)


def test_the_factors_are_the_published_ones():
    alpha, beta = read_factors()
    assert [len(part) for part in alpha] == [len(part) for part in beta] == [3, 64, 128, 256, 512, 512]
    assert float(sum(part.sum() for part in alpha)) == pytest.approx(0.876050, abs=1e-6)
    assert float(sum(part.sum() for part in beta)) == pytest.approx(0.123950, abs=1e-6)


def test_other_factors_are_refused(monkeypatch):
    monkeypatch.setattr(dists, "FACTORS", "0" * 64)
    with pytest.raises(MetricError, match=r"other factors than DISTS published: sha256 f5e65c96"):
        read_factors()


def test_a_trunk_must_fit_exactly(trunk):
    import torch

    with pytest.raises(MetricError, match=r"14\.bias \(256,\) is missing"):
        DISTS({name: tensor for name, tensor in trunk.items() if name != "features.14.bias"})
    with pytest.raises(MetricError, match=r"30\.weight \(1,\) has no place"):
        DISTS(trunk | {"features.30.weight": torch.zeros(1)})
    with pytest.raises(MetricError, match=r"0\.bias is \(63,\), must be \(64,\)"):
        DISTS(trunk | {"features.0.bias": torch.zeros(63)})


def test_the_smallest_image(trunk):
    metric = DISTS(trunk)
    x, y = np.random.default_rng(0).integers(0, 256, (2, 1, 1, 3), dtype=np.uint8)
    assert metric.score(metric.prepare(x), y) > 0

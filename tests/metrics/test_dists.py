"""DISTS with a random trunk: equal to torchmetrics, nearer to float64 than it; what does not fit is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics import dists
from rdpbench.metrics.contract import Metric
from rdpbench.metrics.dists import DISTS, SmallDISTS, read_factors, shrink
from rdpbench.networks import held

# torchvision's names and shapes of VGG16's convolutions.
SHAPES = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip


@pytest.fixture(scope="module")
def trunk():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    made = {"classifier.0.weight": torch.zeros(1)}
    for index, (out, into) in SHAPES.items():
        made[f"features.{index}.weight"] = (2 / (9 * into)) ** 0.5 * torch.randn(out, into, 3, 3, generator=generator)
        made[f"features.{index}.bias"] = 0.1 * torch.randn(out, generator=generator)
    yield made
    torch.set_num_threads(before)


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


def test_eight_codecs_compute_the_originals_layers_once(trunk, photograph, compress, monkeypatch):
    x = photograph[:48, :48]
    calls = []
    real = dists.PooledVGG.layers
    monkeypatch.setattr(dists.PooledVGG, "layers", lambda self, image: calls.append(1) or real(self, image))
    metric = DISTS(trunk)
    prepared = metric.prepare(x)
    reconstructions = [compress(x, quality) for quality in range(10, 90, 10)]
    forth = [metric.score(prepared, y) for y in reconstructions]
    assert len(calls) == 9
    assert [metric.score(prepared, y) for y in reversed(reconstructions)] == forth[::-1]


def test_weights_from_a_file_and_one_flipped_byte(trunk, photograph, compress, tmp_path, monkeypatch):
    from dataclasses import replace

    import torch

    from rdpbench.assets.weights import CARDS

    card = CARDS["vgg16-imagenet"]
    path = tmp_path / card.file
    torch.save(trunk, path)
    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME", "RDPBENCH_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    content = path.read_bytes()
    monkeypatch.setitem(CARDS, card.id, replace(card, sha256=hashlib.sha256(content).hexdigest()))
    held.forget()
    x = photograph[:32, :32]
    y = compress(x, 30)
    from_file, given = DISTS(), DISTS(trunk)
    assert from_file.score(from_file.prepare(x), y) == given.score(given.prepare(x), y) > 0
    held.forget()
    with path.open("r+b") as file:
        file.seek(len(content) // 2)
        file.write(bytes([content[len(content) // 2] ^ 1]))
    with pytest.raises(MissingNeed, match=r"is not the file that its card names"):
        DISTS().prepare(x)


def test_without_weights_it_says_what_to_do(tmp_path, monkeypatch):
    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("RDPBENCH_WEIGHTS", raising=False)
    held.forget()
    with pytest.raises(MissingNeed, match="'vgg16-imagenet' are not on this machine"):
        DISTS().prepare(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.parametrize("cls", [DISTS, SmallDISTS])
def test_wrong_use_and_class_data(trunk, cls):
    metric = cls(trunk)
    assert isinstance(metric, Metric)
    assert registry.load("metric", cls.name) is cls
    assert not metric.higher_is_better
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(MetricError, match=f"{cls.name}: the original must be uint8"):
        metric.prepare((image / 255).astype(np.float32))
    with pytest.raises(MetricError, match="must be uint8"):
        metric.score(metric.prepare(image), np.full((40, 40, 3), np.nan))
    with pytest.raises(MetricError, match="the original is 40 x 40 and the reconstruction 40 x 41"):
        metric.score(metric.prepare(image), np.zeros((41, 40, 3), np.uint8))
    assert metric.reduce([0.25, 0.75]) == 0.5


def test_the_smallest_image(trunk):
    metric = DISTS(trunk)
    x, y = np.random.default_rng(0).integers(0, 256, (2, 1, 1, 3), dtype=np.uint8)
    assert metric.score(metric.prepare(x), y) > 0

"""LPIPS with random trunks: equal to the package's own network; what does not fit is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rdpbench.errors import MetricError
from rdpbench.metrics import lpips as ours
from rdpbench.metrics.lpips import LPIPSVGG, LPIPSAlex, LPIPSSqueeze, TACOScript, build


def their_module(net, trunk):
    """The package's own constructor, given the trunk by torch's own loader."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for part in module.net.children():
        for index, layer in part.named_children():
            start = f"features.{index}."
            layer.load_state_dict({name.removeprefix(start): trunk[name] for name in trunk if name.startswith(start)})
    return module


@pytest.mark.parametrize(
    ("cls", "size"),
    [
        (LPIPSAlex, (128, 160)),
        (LPIPSAlex, (71, 95)),
        (LPIPSSqueeze, (64, 80)),
        pytest.param(LPIPSVGG, (64, 50), marks=pytest.mark.slow),
    ],
)
def test_equals_the_package(trunks, photograph, compress, cls, size):
    import lpips
    import torch

    x = photograph[100 : 100 + size[0], 150 : 150 + size[1]]
    module = their_module(cls.net, trunks[cls.net])
    metric = cls(trunks[cls.net])
    prepared = metric.prepare(x)
    for quality in (10, 60):
        y = compress(x, quality)
        with torch.no_grad():
            theirs = module(lpips.im2tensor(x), lpips.im2tensor(y)).item()
        assert metric.score(prepared, y) == pytest.approx(theirs, abs=1e-6, rel=1e-5)
        assert theirs > 0.001
    assert metric.score(prepared, x) == 0


def test_the_value_by_hand(trunks, photograph, compress):
    """Normalise, square, weigh, average, add up, in float64 and from the activations of torch's own functions."""
    import lpips
    import torch
    from torch.nn import functional

    trunk = {name: tensor.double() for name, tensor in trunks["alex"].items()}
    x = photograph[:96, 200:300]
    y = compress(x, 20)
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/alex.pth", map_location="cpu", weights_only=True)

    def layers(image):
        planes = torch.tensor(image).permute(2, 0, 1)[None].double() / 127.5 - 1
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        planes = (planes - shift.double()[:, None, None]) / scale.double()[:, None, None]
        strides, pads = {0: 4}, {0: 2, 3: 2}
        for index in (0, 3, 6, 8, 10):
            if index in (3, 6):
                planes = functional.max_pool2d(planes, 3, 2)
            weight, bias = trunk[f"features.{index}.weight"], trunk[f"features.{index}.bias"]
            planes = functional.conv2d(planes, weight, bias, strides.get(index, 1), pads.get(index, 1)).relu()
            yield planes / (planes.square().sum(1, keepdim=True).sqrt() + 1e-10)

    expected = sum(
        ((a - b) ** 2 * heads[f"lin{index}.model.1.weight"].double()).sum(1).mean().item()
        for index, (a, b) in enumerate(zip(layers(x), layers(y), strict=True))
    )
    metric = LPIPSAlex(trunks["alex"])
    assert metric.score(metric.prepare(x), y) == pytest.approx(expected, abs=1e-6, rel=1e-5)


def test_the_heads_are_those_of_version_01():
    import lpips
    import torch

    sums = {
        "alex": [2.349532, 16.143026, 39.26844, 27.197178, 20.317177],
        "vgg": [6.925992, 8.858334, 17.515005, 51.521324, 47.034855],
        "squeeze": [5.690101, 1.18528, 16.326565, 71.012627, 37.370724, 24.262873, 17.590553],
    }
    for net, expected in sums.items():
        heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/{net}.pth", map_location="cpu", weights_only=True)
        found = [heads[f"lin{index}.model.1.weight"].double().sum().item() for index in range(len(expected))]
        assert len(heads) == len(expected)
        assert found == pytest.approx(expected, abs=1e-5)


def test_other_heads_are_refused(trunks, monkeypatch):
    monkeypatch.setitem(ours.HEADS, "alex", "0" * 64)
    with pytest.raises(MetricError, match=r"other linear heads than LPIPS v0\.1: sha256 df73285e"):
        build("alex", trunks["alex"])


def test_a_trunk_must_fit_exactly(trunks):
    import torch

    good = trunks["alex"]
    with pytest.raises(MetricError, match=r"net\.slice4\.8\.bias \(256,\) is missing"):
        build("alex", {name: tensor for name, tensor in good.items() if name != "features.8.bias"})
    with pytest.raises(MetricError, match=r"features\.12\.weight \(1,\) has no place"):
        build("alex", good | {"features.12.weight": torch.zeros(1)})
    with pytest.raises(MetricError, match=r"net\.slice1\.0\.bias is \(63,\), must be \(64,\)"):
        build("alex", good | {"features.0.bias": torch.zeros(63)})
    with pytest.raises(MetricError, match=r"net\.slice\d\.\d+\.\w+ .* is missing"):
        build("vgg", good)
    with pytest.raises(MetricError, match=r"net\.slice\d\.\d+\..* is missing"):
        build("squeeze", good)


def test_building_draws_no_random_number_and_warns_of_nothing(trunks):
    import torch

    torch.manual_seed(1)
    before = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build("alex", trunks["alex"])
    assert not caught
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cls", [LPIPSAlex, LPIPSVGG, LPIPSSqueeze])
def test_the_smallest_image(trunks, cls):
    rng = np.random.default_rng(0)
    side = cls.minimum_side
    metric = cls(trunks[cls.net])
    x, y = rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    assert metric.score(metric.prepare(x), y) > 0
    with pytest.raises(MetricError, match=rf"{cls.name} needs at least {side} pixels on each side"):
        metric.prepare(x[1:])
    # One pixel less is really too little for the network: the limit is not made up.
    with pytest.raises(RuntimeError):
        metric.compute(x[1:])


def test_tacos_script_feeds_the_unit_range(trunks, photograph, compress):
    """The package's network on [0, 1] with its default ``normalize=False``, which is what that script computes."""
    import torch

    x = photograph[:96, 200:300]
    module = their_module("alex", trunks["alex"])
    right, script = LPIPSAlex(trunks["alex"]), TACOScript(trunks["alex"])
    for quality in (10, 60):
        y = compress(x, quality)
        a, b = (torch.tensor(image).permute(2, 0, 1)[None] / 255 for image in (x, y))
        with torch.no_grad():
            theirs = module(a, b).item()
            proper = module(a, b, normalize=True).item()
        assert script.score(script.prepare(x), y) == pytest.approx(theirs, abs=1e-6, rel=1e-5)
        assert right.score(right.prepare(x), y) == pytest.approx(proper, abs=1e-6, rel=1e-5)
        assert theirs < 0.7 * proper


def test_weights_from_a_file(trunks, photograph, compress, tmp_path, monkeypatch):
    import hashlib
    from dataclasses import replace

    import torch

    from rdpbench.assets.weights import Weights

    path = tmp_path / "given" / ours.SQUEEZENET.file
    path.parent.mkdir()
    torch.save(trunks["squeeze"], path)
    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(path.parent))
    card = replace(ours.SQUEEZENET, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(LPIPSSqueeze, "needs", (LPIPSSqueeze.needs[0], Weights(card)))
    x = photograph[:40, :40]
    y = compress(x, 30)
    from_file, given = LPIPSSqueeze(), LPIPSSqueeze(trunks["squeeze"])
    assert from_file.score(from_file.prepare(x), y) == given.score(given.prepare(x), y) > 0


def test_the_card_of_the_third_trunk():
    card = ours.SQUEEZENET
    assert card.sha256 is not None
    assert card.sha256.startswith("b8a52dc0")
    assert card.source.endswith(card.file)

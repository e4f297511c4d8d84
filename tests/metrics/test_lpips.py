"""LPIPS with random trunks: equal to the package's own network; what does not fit is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from rdpbench import registry
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics import lpips as ours
from rdpbench.metrics.contract import Metric
from rdpbench.metrics.lpips import LPIPSVGG, LPIPSAlex, LPIPSSqueeze, TACOScript, build
from rdpbench.networks import held

# torchvision's names and shapes of the convolutions that LPIPS uses, without its 58 to 124 million other parameters.
SHAPES = {
    "alex": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
    "vgg": {
        0: (64, 3, 3), 2: (64, 64, 3), 5: (128, 64, 3), 7: (128, 128, 3), 10: (256, 128, 3), 12: (256, 256, 3),
        14: (256, 256, 3), 17: (512, 256, 3), 19: (512, 512, 3), 21: (512, 512, 3), 24: (512, 512, 3),
        26: (512, 512, 3), 28: (512, 512, 3),
    },
}  # fmt: skip


# The same of SqueezeNet 1.1, whose blocks hold three convolutions each.
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192),
         10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}  # fmt: skip
NETS = ("alex", "vgg", "squeeze")


def shapes(net):
    if net != "squeeze":
        return {f"features.{index}": shape for index, shape in SHAPES[net].items()}
    named = {"features.0": (64, 3, 3)}
    for index, (into, middle, out) in FIRES.items():
        named[f"features.{index}.squeeze"] = (middle, into, 1)
        named |= {f"features.{index}.expand{side}x{side}": (out, middle, side) for side in (1, 3)}
    return named


def random_trunk(net):
    import torch

    generator = torch.Generator().manual_seed(5)
    trunk = {"classifier.1.weight": torch.zeros(1)}
    for name, (out, into, side) in shapes(net).items():
        scale = (2 / (into * side * side)) ** 0.5
        trunk[f"{name}.weight"] = scale * torch.randn(out, into, side, side, generator=generator)
        trunk[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return trunk


@pytest.fixture(scope="module")
def trunks():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {net: random_trunk(net) for net in NETS}
    torch.set_num_threads(before)


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
        for index in SHAPES["alex"]:
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


@pytest.mark.parametrize("cls", [LPIPSAlex, LPIPSVGG, LPIPSSqueeze, TACOScript])
def test_wrong_use_and_class_data(trunks, cls):
    metric = cls(trunks[cls.net])
    assert isinstance(metric, Metric)
    assert registry.load("metric", cls.name) is cls
    assert not metric.higher_is_better
    assert metric.perceptual
    image = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(MetricError, match="must be uint8"):
        metric.prepare((image / 255).astype(np.float32))
    with pytest.raises(MetricError, match="must be uint8"):
        metric.score(metric.prepare(image), image.astype(np.float64))
    with pytest.raises(MetricError, match="the original is 40 x 40 and the reconstruction 40 x 41"):
        metric.score(metric.prepare(image), np.zeros((41, 40, 3), np.uint8))


def test_views_and_read_only_images_and_another_object_for_scoring(trunks, photograph):
    x = photograph[:64, :64]
    flipped = x[:, ::-1]
    flipped.flags.writeable = False
    first, second = LPIPSAlex(trunks["alex"]), LPIPSAlex(trunks["alex"])
    assert second.score(first.prepare(flipped), x) == first.score(first.prepare(flipped.copy()), x)


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


@pytest.mark.parametrize("cls", [LPIPSAlex, LPIPSSqueeze])
def test_eight_codecs_compute_the_originals_features_once(trunks, photograph, compress, cls):
    x = photograph[:64, :64]
    metric = cls(trunks[cls.net])
    metric.prepare(x)  # the network is there
    calls = []
    metric.network.net.register_forward_hook(lambda module, given, made: calls.append(given[0].shape[0]))
    prepared = metric.prepare(x)
    reconstructions = [compress(x, quality) for quality in range(10, 90, 10)]
    forth = [metric.score(prepared, y) for y in reconstructions]
    assert calls == [1] * 9  # one original and eight reconstructions; the package computes sixteen
    assert [metric.score(prepared, y) for y in reversed(reconstructions)] == forth[::-1]


def test_weights_from_a_file_and_one_flipped_byte(trunks, photograph, compress, tmp_path, monkeypatch):
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
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    held.forget()
    with pytest.raises(MissingNeed, match=r"is not the file that its card names: sha256 \w+, expected"):
        LPIPSSqueeze().prepare(x)


def test_the_card_of_the_third_trunk():
    card = ours.SQUEEZENET
    assert card.sha256 is not None
    assert card.sha256.startswith("b8a52dc0")
    assert card.source.endswith(card.file)


@pytest.mark.parametrize("cls", [LPIPSAlex, LPIPSVGG, LPIPSSqueeze])
def test_without_weights_it_says_what_to_do(cls, tmp_path, monkeypatch):
    for name in ("TORCH_HOME", "RDPBENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("RDPBENCH_WEIGHTS", raising=False)
    with pytest.raises(MissingNeed, match=r"are not on this machine") as caught:
        cls().prepare(np.zeros((64, 64, 3), np.uint8))
    assert "download=true" in str(caught.value)
    assert cls.needs[1].missing() == str(caught.value)


def test_importing_is_light():
    import subprocess
    import sys

    program = (
        "import sys; import rdpbench.metrics.lpips, rdpbench.metrics.flip, rdpbench.assets.weights as w\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'lpips')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

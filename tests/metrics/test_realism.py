"""DINOv2's features against plain transformers, and nearest neighbours against a computation by brute force."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as pil

from rdpbench.errors import MetricError
from rdpbench.metrics import realism
from rdpbench.metrics.contract import variant
from rdpbench.metrics.frechet import distance_of_rows
from rdpbench.metrics.mmd import kid
from rdpbench.metrics.realism import METRICS, SIZES, DINOv2Features, build_dinov2, hub_positions, share

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def random_dinov2(sizes, image_size=518):
    """``transformers``' own network with seeded weights, positions large enough to count."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    network = Dinov2Model(Dinov2Config(**sizes, image_size=image_size, patch_size=14)).eval()
    torch.nn.init.normal_(network.embeddings.position_embeddings)
    return network


def plain(network, images):
    """The class token of images at 224 x 224, by torchvision's transforms, as dgm-eval has them."""
    import torch
    from torchvision import transforms

    steps = [
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    planes = torch.stack([transforms.Compose(steps)(pil.fromarray(image)) for image in images])
    with torch.inference_mode():
        return network(planes).last_hidden_state[:, 0].numpy()


def test_features_are_those_of_transformers(pairs):
    """On ten photographs at four distortions, with positions that need no interpolation."""
    small = variant(DINOv2Features, "dinov2-small", sizes=SMALL, dim=64)
    network = random_dinov2(SMALL, image_size=224)
    images = [image for _, _, image in pairs(10)]
    found = np.concatenate(small(network.state_dict()).extract(images))
    assert np.abs(found - plain(network, images)).max() < 2e-6
    assert small(network.state_dict()).extract([]) == []


def test_positions_are_those_of_the_authors_hub_code(photograph):
    """transformers scales by 16 / 37 where the hub code has 16.1 / 37: other positions."""
    import torch

    network = random_dinov2(SMALL)
    given = network.embeddings.position_embeddings.detach()
    positions = hub_positions(given)
    grid = given[:, 1:].reshape(1, 37, 37, 64).permute(0, 3, 1, 2)
    hub = torch.nn.functional.interpolate(grid, scale_factor=((16 + 0.1) / 37,) * 2, mode="bicubic")
    assert torch.equal(positions[:, 1:], hub.permute(0, 2, 3, 1).reshape(1, 256, 64))
    assert torch.equal(positions[:, 0], given[:, 0])
    theirs = network.embeddings.interpolate_pos_encoding(torch.zeros(1, 257, 64), 224, 224).detach()
    assert float((theirs - positions).abs().max()) > 0.01


@pytest.mark.slow
def test_the_real_architecture_with_random_weights(photograph):
    network = random_dinov2(SIZES, image_size=224)
    images = [photograph, photograph[:300, :401]]
    found = np.concatenate(DINOv2Features(network.state_dict()).extract(images))
    expected = plain(network, images)
    assert found.shape == (2, 1024)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_layout_is_that_of_the_published_file():
    """Without storage: names and shapes as on the model's page, 304 million numbers."""
    import torch

    with torch.device("meta"):
        layout = random_dinov2(SIZES).state_dict()
    assert sum(tensor.numel() for tensor in layout.values()) == 304368640
    assert tuple(layout["embeddings.position_embeddings"].shape) == (1, 1370, 1024)
    assert tuple(layout["encoder.layer.23.layer_scale2.lambda1"].shape) == (1024,)


def test_another_network_is_refused():
    tensors = random_dinov2(SMALL).state_dict()
    tensors.pop("layernorm.bias")
    with pytest.raises(MetricError, match=r"layernorm\.bias"):
        build_dinov2(tensors, SMALL)


def by_force(which, real, fake):
    """All distances at once, as the papers write it."""
    k = 3 if which in ("precision", "recall") else 5

    def between(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radius(rows):
        return np.sort(between(rows, rows), axis=1)[:, k]

    cross = between(real, fake)
    if which == "precision":
        return (cross <= radius(real)[:, None]).any(axis=0).mean()
    if which == "recall":
        return (cross <= radius(fake)[None]).any(axis=1).mean()
    if which == "density":
        return (cross < radius(real)[:, None]).sum(axis=0).mean() / k
    return (cross.min(axis=1) < radius(real)).mean()


@pytest.mark.parametrize("which", ["precision", "recall", "density", "coverage"])
@pytest.mark.parametrize("block", [2048, 7])
def test_equals_brute_force(which, block, monkeypatch):
    monkeypatch.setattr(
        realism, "blocks", lambda rows: (rows[n : n + block].astype(float) for n in range(0, len(rows), block))
    )
    realism._RADII.clear()
    rng = np.random.default_rng(0)
    for shift, count in ((0.0, 90), (0.7, 61), (3.0, 40)):
        real, fake = rng.normal(size=(80, 6)).astype("f4"), (rng.normal(size=(count, 6)) + shift).astype("f4")
        wide = real.astype(float), fake.astype(float)
        assert share(which, real, fake) == pytest.approx(by_force(which, *wide), abs=1e-12)


def test_equals_the_authors_library():
    prdc = pytest.importorskip("prdc", reason="the package prdc is not here to compare with")
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(400, 16)), rng.normal(size=(300, 16)) * 0.9 + 0.2
    theirs = prdc.compute_prdc(real, fake, nearest_k=5)
    for which in ("density", "coverage"):
        assert share(which, real, fake) == pytest.approx(theirs[which], abs=1e-12)
    theirs = prdc.compute_prdc(real, fake, nearest_k=3)
    for which in ("precision", "recall"):  # open balls there, closed ones in their paper: the same without ties
        assert share(which, real, fake) == pytest.approx(theirs[which], abs=1e-12)


def test_edges():
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype("f4")
    assert [share(which, rows, rows) for which in ("precision", "recall", "coverage")] == [1, 1, 1]
    assert share("density", rows, rows) == pytest.approx(1)
    assert [share(which, rows, rows + 99) for which in ("precision", "recall", "density", "coverage")] == [0] * 4
    with pytest.raises(MetricError, match="at least 6 are needed"):
        share("density", rows[:5], rows)
    constant = np.zeros((9, 4), "f4")
    assert share("precision", constant, constant) == 1
    assert share("coverage", constant, constant) == 0  # open balls of no size hold nothing, as in the paper
    metric = METRICS["precision/dinov2"]()
    with pytest.raises(MetricError, match="1024"):
        metric.reduce([rows], [rows])


def test_distances_are_those_of_fid_and_kid():
    rng = np.random.default_rng(0)
    sides = [[rng.normal(size=(1, 1024)).astype("f4") for _ in range(40)] for _ in range(2)]
    rows = [np.concatenate(side) for side in sides]
    estimate = METRICS["fd-dinov2"]().reduce(*sides)
    assert estimate.value == pytest.approx(distance_of_rows(*rows).value, rel=1e-9)
    assert not estimate.reliable
    small = variant(METRICS["kd-dinov2"], "kd", size=20)
    assert small().reduce(*sides).value == pytest.approx(kid(*rows, subsets=100, size=20).value, rel=1e-9)
    assert METRICS["fd-dinov2"].minimum_images == 1024


@pytest.mark.slow
def test_memory_is_bounded_at_30000_rows():
    """What is added to the rows does not depend on their number."""
    program = (
        "import numpy as np, resource\n"
        "from rdpbench.metrics.realism import share\n"
        "rng = np.random.default_rng(0)\n"
        "share('precision', *rng.normal(size=(2, 500, 64)).astype('f4'))\n"
        "first, second = (rng.normal(size=(30000, 64)).astype('f4') for _ in range(2))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "values = [share(which, first, second) for which in ('precision', 'recall', 'density', 'coverage')]\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, *values)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True)
    megabytes, *values = map(float, done.stdout.split())
    assert megabytes < 400
    assert all(0 < value < 1.5 for value in values)

"""No-reference scores: ours and pyiqa's own on equal random weights, and what they refuse."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics.noreference import METRICS, PRESETS, RN50, Pyiqa
from rdpbench.networks.precision import switched
from rdpbench.runners.preflight import choose_metrics
from rdpbench.setting import Bench

THEIRS = {
    "niqe": "niqe",
    "musiq/koniq": "musiq",
    "clip-iqa+": "clipiqa+",
    "maniqa/koniq": "maniqa",
    "topiq-nr/koniq": "topiq_nr",
}
"""pyiqa's names."""


@pytest.fixture(scope="module")
def pyiqa():
    if why := Pyiqa().missing():
        pytest.skip(why)
    return importlib.import_module("pyiqa")


@pytest.fixture(scope="module")
def random_weights(pyiqa, tmp_path_factory):
    """Random weights of the real architectures, by name: what pyiqa's classes start with."""
    import scipy.io
    import torch

    made = {}

    def make(name):
        if name in made:
            return made[name]
        torch.manual_seed(0)
        if name == "niqe":
            path = tmp_path_factory.mktemp("niqe") / "niqe.mat"
            square = np.random.default_rng(0).normal(size=(36, 36))
            scipy.io.savemat(path, {"mu_prisparam": np.linspace(0.2, 2, 36), "cov_prisparam": square @ square.T})
            made[name] = (path,)
        elif name == "clip-iqa+":
            clip = importlib.import_module("pyiqa.archs.clip_model")
            layout = clip.CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12)
            made[name] = layout.state_dict(), 0.02 * torch.randn(2, 16, 512)
        else:
            preset = PRESETS[name]
            module = importlib.import_module(f"pyiqa.archs.{preset.module}_arch")
            timm = importlib.import_module("timm")
            create = timm.create_model
            bare = switched((timm, "create_model", lambda *a, **o: create(*a, **{**o, "pretrained": False})))
            with bare:
                made[name] = (getattr(module, preset.cls)(**preset.options).state_dict(),)
        return made[name]

    return make


def theirs(name, weights):
    """pyiqa's own metric, as its users make it, whose downloads give these weights."""
    import torch

    preset = PRESETS[name]
    module = importlib.import_module(f"pyiqa.archs.{preset.module}_arch")
    inference = importlib.import_module("pyiqa.models.inference_model")
    timm = importlib.import_module("timm")
    create = timm.create_model

    def load_network(network, path, strict=True, weight_keys=None):
        network.load_state_dict(weights[0], strict=strict)

    switches = [(timm, "create_model", lambda *a, **o: create(*a, **{**o, "pretrained": False}))]
    if name == "clip-iqa+":
        clip = importlib.import_module("pyiqa.archs.clip_model")
        switches += [(module, "load", lambda *_: clip.build_model(dict(weights[0])).float())]
        switches += [(module, "load_file_from_url", lambda url: url), (torch, "load", lambda *_, **__: weights[1])]
    elif name == "niqe":
        switches += [(module, "load_file_from_url", lambda url: str(weights[0]))]
    else:
        switches += [(module, "load_pretrained_network", load_network)]
    with switched(*switches):
        return inference.InferenceModel(THEIRS[name], device=torch.device("cpu"))


SLOWLY = [name if name == "niqe" else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS]
"""Building a network takes seconds, and MUSIQ a second for each image."""


CROPS = {1: 2, 10: 1}
"""MANIQA's mean over 20 crops of 224 pixels takes a minute: here over so many, on both sides, by photographs."""


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SLOWLY)
def test_equals_pyiqa_on_equal_weights(name, random_weights, pairs, count):
    import torch

    weights = random_weights(name)
    reference = theirs(name, weights)
    ours, originals = METRICS[name](weights), METRICS[f"{name}/originals"](weights)
    if name == "maniqa/koniq":
        networks = [reference.net, ours.network, originals.network]
        assert [network.test_sample for network in networks] == [20] * 3
        for network in networks:
            network.test_sample = CROPS[count]

    def by_pyiqa(image):
        return float(reference(torch.tensor(image).permute(2, 0, 1)[None].float() / 255))

    of_originals = {}
    for what, *whole in pairs(count):
        x, y = (np.ascontiguousarray(image[:256, :288]) for image in whole)  # the networks take seconds otherwise
        number = what.split()[0]
        if number not in of_originals:
            of_originals[number] = by_pyiqa(x), originals.prepare(x)
        expected_x, prepared = of_originals[number]
        expected = [expected_x, by_pyiqa(y)]
        found = [originals.score(prepared, y), ours.score(ours.prepare(x), y)]
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-7), what
        assert expected[0] != expected[1]


@pytest.mark.parametrize("name", SLOWLY)
def test_edges(name, random_weights, photograph):
    metric = METRICS[name](random_weights(name))
    metric.network.test_sample = CROPS[1]  # which MANIQA alone reads
    side = PRESETS[name].minimum_side
    x = np.ascontiguousarray(photograph[: side + 1, : side + 30])
    value = metric.score(metric.prepare(x), x)
    assert np.isfinite(value)
    one = x.copy()
    one[side // 2, side // 2] ^= 255
    assert metric.score(metric.prepare(x), one) != value
    flat = np.full_like(x, 128)
    if name == "niqe":
        with pytest.raises(MetricError, match="nothing in it varies"):
            metric.score(metric.prepare(x), flat)
    else:
        assert np.isfinite(metric.score(metric.prepare(x), flat))
    with pytest.raises(MetricError, match=f"at least {side} pixels"):
        metric.prepare(x[: side - 1])


@pytest.mark.slow
def test_weights_of_another_network_are_refused(random_weights, pyiqa):
    tensors = dict(random_weights("musiq/koniq")[0])
    tensors.pop("head.weight")
    metric = METRICS["musiq/koniq"]
    with pytest.raises(MetricError, match=r"head\.weight"):
        metric((tensors,))
    clip, prompts = random_weights("clip-iqa+")
    with pytest.raises(MetricError, match=r"the prompts are \(2, 8, 512\) instead of \(2, 16, 512\)"):
        METRICS["clip-iqa+"]((clip, prompts[:, :8]))


def test_the_licence_comes_first(monkeypatch):
    monkeypatch.delenv("RDPBENCH_ACCEPT", raising=False)
    for metric in METRICS.values():
        assert "PolyForm-Noncommercial" in metric.needs[0].missing()
        assert metric.needs[1].name == "pyiqa"  # the version is in the key
    with pytest.raises(MissingNeed, match="export RDPBENCH_ACCEPT=pyiqa"):
        METRICS["niqe"]().network  # noqa: B018
    assert RN50.place == "resnet50-clip/open_clip_model.safetensors"


def test_the_originals_come_with_it(monkeypatch):
    monkeypatch.setattr("rdpbench.needs.Licence.missing", lambda self: None)
    monkeypatch.setattr(Pyiqa, "missing", lambda self: None)
    monkeypatch.setattr("rdpbench.assets.weights.Weights.missing", lambda self: None)
    asked = SimpleNamespace(metrics=("psnr", "niqe", "musiq/koniq"), decodes=1, metrics_available=False)
    chosen, lacks = choose_metrics(asked)
    assert chosen == ("psnr", "niqe", "musiq/koniq", "niqe/originals", "musiq/koniq/originals")
    assert not lacks
    assert Bench  # what is asked has its fields

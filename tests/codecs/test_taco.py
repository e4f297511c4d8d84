"""TACO: the published keys, captions at the encoder alone, the published count of bits, decoded anywhere."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from rdpbench.codecs.container import unpack
from rdpbench.codecs.contract import Side, needs_of_built
from rdpbench.codecs.learned import taco
from rdpbench.codecs.learned.systems import to_planes
from rdpbench.codecs.learned.taco import TACO
from rdpbench.codecs.learned.taco.network import (
    LENGTH,
    TINY,
    CaptionReader,
    Extractor,
    Injector,
    TacoLayout,
    TacoNetwork,
    byte_tokens,
    official_reader,
    random_network,
    random_reader,
)
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.image import Image
from rdpbench.networks.clip import Shape, build_clip
from rdpbench.networks.precision import reproducible

SIDE = Side(caption="a woman in an orange suit")


def tiny(**options: Any) -> TACO:
    return TACO(**{"weights": "random", "quality": 3, **options})


def tiny_network(quality: int = 3) -> TacoNetwork:
    return random_network(TINY, quality, random_reader(TINY.text))


# The published network


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def test_full_width_keys_and_shapes_are_those_of_the_checkpoints(
    shapes_of: Callable[..., dict[str, list[int]]],
) -> None:
    """The digest is of keys and shapes as the official class has them; nothing is renamed or dropped."""
    shapes = shapes_of(lambda: TacoNetwork(TacoLayout()))
    assert len(shapes) == 441
    assert digest(shapes) == "ac28f21e3c7932a7437695e0837758c818622986a4fb16eae9d173038645c10c"
    trained = [one for key, one in shapes.items() if not key.endswith((".bound", ".target", "scale_bound"))]
    assert sum(math.prod(one) for one in trained) == 38_579_275
    assert abs(4 * 38_579_275 / taco.ABOUT - 1) < 0.01


def test_the_keys_of_the_dossier_are_these(shared: Path, shapes_of: Callable[..., dict[str, list[int]]]) -> None:
    assert shapes_of(lambda: TacoNetwork(TacoLayout())) == json.loads(
        (shared / "dossier" / "keys" / "taco.json").read_text()
    )


def test_every_published_file_has_a_card() -> None:
    cards = [TACO(quality=quality).card() for quality in TACO.rate.values]
    names = [f"{one:g}" for one in (4e-4, 8e-4, 16e-4, 40e-4, 90e-4, 150e-4)]
    assert [card.id for card in cards] == [f"taco/lambda{name}" for name in names]
    assert [card.place for card in cards] == [f"taco/{name}.pth.tar" for name in names]
    assert TACO().weights_kind() == "unpinned"  # no hash is published


# Checkpoints


def as_published(net: TacoNetwork) -> dict[str, torch.Tensor]:
    """With the names of an older CompressAI, trained in parallel."""
    return {f"module.{aged(name)}": tensor.clone() for name, tensor in net.state_dict().items()}


def aged(name: str) -> str:
    for new, old in {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}.items():
        name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
    return name


def test_a_published_file_is_asked_for_read_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """Width and text tower are narrowed so that the files are small; the way is the same."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("rdpbench.codecs.learned.taco.network.TacoLayout", lambda: TINY)
    codec = TACO(quality=1)
    own, tower, tokens = [str(need.missing()) for need in codec.weight_needs()]
    for line in ("lambda 0.0004", "from     https://drive.google.com/drive", "licence  none stated", "154 MB"):
        assert line in own
    assert "605 MB" in tower
    assert "byte-pair table" in tokens
    assert needs_of_built(codec)[2:] == codec.weight_needs()
    with pytest.raises(MissingNeed, match=r"'taco/lambda0\.0004' are not on this machine"):
        codec.encode(photograph, SIDE)
    beside = {
        "epoch": 50,
        "args": argparse.Namespace(lmbda=0.0004),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "lr_scheduler": {"milestones": Counter([45, 48]), "gamma": 0.1},
    }
    file = tmp_path / "taco" / "0.0004.pth.tar"
    file.parent.mkdir()
    torch.save({**beside, "state_dict": as_published(tiny_network(1))}, file)
    with pytest.raises(MissingNeed, match="'clip-vit-base-patch32' are not on this machine"):
        codec.encode(photograph, SIDE)
    # The file of the tower is 605 MB, and its card knows its hash.
    monkeypatch.setattr("rdpbench.codecs.learned.taco.network.official_reader", partial(random_reader, TINY.text))
    made = codec.encode(photograph, SIDE)
    assert made.data == tiny(quality=1).encode(photograph, SIDE).data
    assert codec.coder()["weights"].startswith("unpinned:")
    assert codec.coder()["text"] == "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"


# Text


def test_a_caption_is_38_tokens_and_padding_is_none_for_clip() -> None:
    reader = random_reader(TINY.text)
    states = reader(["a cat", "a cat on a mat", "x" * 200])
    assert states.shape == (3, LENGTH, 32)
    assert torch.equal(states, torch.cat([reader([one]) for one in ("a cat", "a cat on a mat", "x" * 200)]))
    assert torch.equal(states[2:], reader(["x" * 300]))  # cut
    ids = byte_tokens()(["a cat"], padding="max_length", max_length=LENGTH)["input_ids"][0]
    assert ids == [512, byte_tokens().convert_tokens_to_ids("a</w>"), *ids[2:5], *[513] * 33]
    # What comes after a token changes nothing about it, nor does padding about what it sees.
    alone = reader.tower(input_ids=torch.tensor([ids[:6]])).last_hidden_state
    assert float((states[0, :6] - alone[0]).abs().max()) < 1e-5
    unmasked = reader.tower(input_ids=torch.tensor([ids])).last_hidden_state
    assert float((states[0, 6:] - unmasked[0, 6:]).abs().max()) > 1e-3
    # After the last norm, whose scale is 1 and offset 0 when untrained.
    assert float(states.mean(-1).abs().max()) < 1e-5
    assert float((states.std(-1, correction=0) - 1).abs().max()) < 1e-3


def test_the_tower_of_the_published_file_gives_the_same_states() -> None:
    """It comes out of CLIP's whole network; here a narrow one."""
    from transformers import CLIPTextConfig, CLIPTextModel

    from rdpbench.codecs.learned.systems import seeded
    from rdpbench.networks.clip import configuration

    shape = Shape(64, 1, 1, 32, 64, 32, 2, 2, 16)
    sizes = configuration(shape)["text_config"]
    small = seeded(lambda: CLIPTextModel(CLIPTextConfig(**sizes)))
    whole = build_random(shape)
    own = {name.removeprefix("text_model."): one for name, one in small.state_dict().items()}
    tensors = {name: own.get(name.removeprefix("text_model."), one) for name, one in whole.items()}
    assert sum(name.startswith("text_model.") for name in tensors) == len(own)
    towers = build_clip(shape, tensors).text_model, small
    states = [CaptionReader(tower, byte_tokens())(["a dog"]) for tower in towers]
    assert torch.equal(*states)


def build_random(shape: Shape) -> dict[str, torch.Tensor]:
    from transformers import CLIPConfig, CLIPModel

    from rdpbench.networks.clip import configuration

    return dict(CLIPModel(CLIPConfig(**configuration(shape))).state_dict())


def test_captions_change_what_the_encoder_sends_and_nothing_else(photograph: Image) -> None:
    codec = tiny()
    one, other = (codec.encode(photograph, Side(caption=text)) for text in ("a woman", "a rocket"))
    assert one.data != other.data
    pixels = [codec.decode(made.data).astype(int) for made in (one, other)]
    assert 0 < np.abs(pixels[0] - pixels[1]).mean() < np.abs(pixels[0] - pixels[0].mean()).mean()
    assert np.array_equal(codec.decode(codec.encode(photograph, Side(caption="a woman", seed=9)).data), pixels[0])
    together = codec.encode_batch([photograph] * 2, [Side(caption="a rocket"), Side(caption="a woman")])
    assert [made.data for made in together] == [other.data, one.data]
    with pytest.raises(CodecError, match="taco encodes an image with its caption, and got none; type captions="):
        codec.encode_batch([photograph] * 2, [SIDE, Side()])
    assert TACO.uses_caption
    assert codec.coder()["text"] == "random"


# What is computed


def attend(layer: torch.nn.MultiheadAttention, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Vaswani et al.'s formula with 8 heads; values are of the keys."""
    q, k, v = (
        functional.linear(given, weight, bias).unflatten(-1, (8, -1)).transpose(1, 2)
        for given, weight, bias in zip(
            (queries, keys, keys), layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3), strict=True
        )
    )
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return functional.linear((weights @ v).transpose(1, 2).flatten(2), layer.out_proj.weight, layer.out_proj.bias)


def test_the_adapter_is_the_published_formula() -> None:
    net, text = tiny_network(), random_reader(TINY.text)(["a cat", "a dog"])
    injector, extractor = net.g_a["analysis_transform"][8], net.g_a["analysis_transform"][14]  # type: ignore[index]
    assert isinstance(injector, Injector)
    assert isinstance(extractor, Extractor)
    planes = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    norm = functional.layer_norm
    with torch.no_grad():
        places = norm(planes.flatten(2).transpose(1, 2), (8,))
        tokens = norm(injector.text_feature_dim_proj(text), (8,))
        expected = places + injector.gamma * attend(injector.cross_attn, places, tokens)
        assert float((injector(planes, text) - expected.transpose(1, 2).reshape(2, 8, 3, 5)).abs().max()) < 1e-5
        injector.gamma.zero_()
        # Closed, the gate still leaves the norm.
        assert torch.equal(injector(planes, text), places.transpose(1, 2).reshape(2, 8, 3, 5))
        seen = norm(extractor.image_feature_dim_proj(planes.flatten(2).transpose(1, 2)), (32,))
        expected = norm(text, (32,)) + attend(extractor.cross_attn, norm(text, (32,)), seen)
        assert float((extractor(planes, text) - expected).abs().max()) < 1e-5


def test_the_decoder_gets_what_the_transforms_alone_give(photograph: Image) -> None:
    """Against the network written out, whole planes with zeros on the other half of the checkerboard."""
    image = photograph[:100, :77]
    net = tiny_network(5)
    net.requires_grad_(False)
    with reproducible():
        planes = functional.pad(to_planes([image], "cpu", torch.float32), (0, 51, 0, 28))
        y = net.analysis(planes, random_reader(TINY.text)([str(SIDE.caption)]))
        medians = net.entropy_bottleneck.quantiles[:, 0, 1].reshape(1, -1, 1, 1)
        z = torch.round(layers(net.h_a, "reduction")(y) - medians) + medians
        hyper, done = layers(net.h_s, "increase")(z), []
        odd = (torch.arange(8)[:, None] + torch.arange(8)) % 2  # anchors
        for number, group in enumerate(torch.split(y, list(TINY.groups), 1)):
            known = [hyper]
            if number:
                context = layers(net.channel_context[str(number)], "fushion")
                known = [context(torch.cat(done, 1)), hyper]
            head = layers(net.entropy_parameters_anchor[number], "fusion")
            means = head(torch.cat(known, 1)).chunk(2, 1)[1]
            anchors = odd * (torch.round(group - means) + means)
            known = [net.local_context[number](anchors), *known]
            head = layers(net.entropy_parameters_nonanchor[number], "fusion")
            means = head(torch.cat(known, 1)).chunk(2, 1)[1]
            done.append(anchors + (1 - odd) * (torch.round(group - means) + means))
        expected = layers(net.g_s, "synthesis_transform")(torch.cat(done, 1))[0, :, :100, :77].clamp(0, 1)
    found = tiny(quality=5).decode(tiny(quality=5).encode(image, SIDE).data)
    assert np.abs(found / 255 - expected.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-5
    assert found.std() > 20


def layers(holder: Any, name: str) -> Any:
    return holder[name]


def test_bits_are_also_counted_as_the_official_file(photograph: Image) -> None:
    image = photograph[:100, :77]
    made = tiny().encode(image, SIDE)
    height, width, [z, y] = unpack(made.data, 2)
    file = struct.pack(">2I", height, width) + struct.pack(">3I", 2, 2, 2)
    for string in (y, z):
        file += struct.pack(">I", len(string)) + string
    printed = json.loads(made.info["legacy"])
    assert printed["framed"] == 8 * len(file) == printed["headerless"] + 8 * 28
    assert made.parts["header"] == len(made.data) - len(z) - len(y) <= 9


def test_without_its_files_the_text_tower_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RDPBENCH_CACHE", "RDPBENCH_WEIGHTS", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    with pytest.raises(MissingNeed, match="CLIP ViT-B/32"):
        official_reader()

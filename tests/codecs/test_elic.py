"""ELIC: the published keys through CompressAI's class, and CompressAI's strings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned import elic
from rdpbench.codecs.learned.elic import ELIC
from rdpbench.codecs.learned.elic_network import TINY, ElicLayout, ElicSystem, network, put, random_network, take
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import to_images, to_planes
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.image import Image
from rdpbench.networks.precision import reproducible


def tiny(**options: Any) -> ELIC:
    return ELIC(**{"weights": "random", "quality": 3, **options})


# The published network


def digest(shapes: dict[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(sorted(shapes.items())).encode()).hexdigest()


def published(name: str) -> str:
    """The name in the published files, written the other way round; those of five Gaussian models become one."""
    name = name.removeprefix("latent_codec.hyper.")
    name = re.sub(r"latent_codec\.y\.latent_codec\.y\d\.y\.gaussian", "gaussian", name)
    name = re.sub(r"latent_codec\.y\.latent_codec\.y(\d)\.context_prediction", r"context_prediction.\1", name)
    name = re.sub(r"latent_codec\.y\.latent_codec\.y(\d)\.entropy_parameters", r"ParamAggregation.\1", name)
    return re.sub(r"latent_codec\.y\.channel_context\.y(\d)", lambda at: f"cc_transforms.{int(at[1]) - 1}", name)


def test_full_width_keys_and_shapes_are_those_of_the_checkpoints(
    shapes_of: Callable[..., dict[str, list[int]]],
) -> None:
    """The digests are of keys and shapes of both official classes, CompressAI 1.2.8 and the re-implementation."""
    shapes = shapes_of(lambda: network(ElicLayout()))
    files = {published(key): shape for key, shape in shapes.items()}
    assert (len(shapes), len(files)) == (412, 384)
    assert digest(shapes) == "832206522ac7c8f17dcfca2755d9208bf45dab086de46163654f82880661e9dd"
    assert digest(files) == "c134eb5150d46ff1e39100e26df0b7c074daa5d141769d78e896c1c8a7499b01"
    assert {elic.renamed(key): shape for key, shape in elic.spread(files).items()} == shapes  # type: ignore[arg-type]


def test_the_keys_of_the_dossier_are_these(shared: Path, shapes_of: Callable[..., dict[str, list[int]]]) -> None:
    keys = {file: json.loads((shared / "dossier" / "keys" / f"{file}.json").read_text()) for file in DOSSIER}
    chandelier, own, official = (keys[file] for file in DOSSIER)
    shapes = shapes_of(lambda: network(ElicLayout()))
    assert own == shapes
    assert {elic.renamed(key): shape for key, shape in elic.spread(chandelier).items()} == shapes
    assert official != own


DOSSIER = ("elic_chandelier", "compressai_elic2022_chandelier", "compressai_elic2022_official")


def test_every_published_file_has_a_card() -> None:
    cards = [ELIC(quality=quality).card() for quality in ELIC.rate.values]
    assert [card.id for card in cards] == [f"elic/lambda{one:g}" for one in (0.004, 0.008, 0.016, 0.032, 0.15, 0.45)]
    assert len({card.source for card in cards}) == len({card.file for card in cards}) == 6
    assert cards[5].source == "https://drive.google.com/file/d/1uuKQJiozcBfgGMJ8CfM6lrXOZWv6RUDN/view"
    assert ["0.0016" in card.note for card in cards] == [False, False, True, False, False, False]
    assert ELIC().weights_kind() == "unpinned"  # no hash is published


# Checkpoints

OLD = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}


def as_published(net: Any) -> dict[str, torch.Tensor]:
    """With the names of a file of 2022, trained in parallel."""
    out = {}
    for key, tensor in net.state_dict().items():
        name = published(key)
        for new, old in OLD.items():
            name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
        out[f"module.{name}"] = tensor.clone()
    return out


def test_published_names_prefixes_and_baked_tables_load_to_the_same_network() -> None:
    net = random_network(TINY, 3)
    tensors = as_published(net)
    tensors["module.gaussian_conditional._quantized_cdf"][3, 1] += 1  # as built on another machine
    again = network(TINY)
    made = load_with_tables(again, elic.spread(tensors), "example", rename=elic.renamed)
    assert len(made) == 6
    assert set(made.values()) == {"baked"}
    for name, one in net.state_dict().items():
        off = name.endswith("gaussian_conditional._quantized_cdf")
        assert int((one != again.state_dict()[name]).sum()) == off, name
    bare = {key: one for key, one in tensors.items() if not re.search(r"_cdf|_offset|_table$|\.bound$|mask$", key)}
    assert set(load_with_tables(network(TINY), elic.spread(bare), "example", rename=elic.renamed).values()) == {
        "rebuilt"
    }


def test_what_does_not_fit_is_named() -> None:
    tensors = as_published(random_network(TINY, 3))
    del tensors["module.cc_transforms.0.0.weight"]
    tensors["module.context_prediction.5.weight"] = torch.zeros(2)
    tensors["module.h_a.0.weight"] = torch.zeros(8, 20, 5, 5)
    with pytest.raises(CodecError) as caught:
        load_with_tables(network(TINY), elic.spread(tensors), "another", rename=elic.renamed)
    for line in (
        "latent_codec.y.channel_context.y1.0.weight (224, 2, 5, 5) is missing",
        "latent_codec.y.latent_codec.y5.context_prediction.weight (2,) has no place",
        "latent_codec.hyper.h_a.0.weight is (8, 20, 5, 5), must be (8, 20, 3, 3)",
    ):
        assert line in str(caught.value)


def test_the_network_of_the_paper_is_another() -> None:
    theirs = compressai.models.sensetime.Elic2022Official(TINY.width, sum(TINY.groups), list(TINY.groups))
    with pytest.raises(CodecError, match=r"y3\.0\.weight is \(224, 8, 5, 5\), must be \(224, 6, 5, 5\)") as caught:
        load_with_tables(network(TINY), elic.spread(theirs.state_dict()), "official", rename=elic.renamed)
    assert "h_s.4.weight" in str(caught.value)


def test_a_published_file_is_asked_for_read_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """The width is narrowed so that the file is small; the way is the same."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("rdpbench.codecs.learned.elic_network.ElicLayout", lambda: TINY)
    codec = ELIC(quality=6)
    [need] = codec.weight_needs()
    for line in ("lambda 0.45", "from     https://drive.google.com/file", "licence  none stated", "135 MB"):
        assert line in str(need.missing())
    with pytest.raises(MissingNeed, match=r"'elic/lambda0\.45' are not on this machine"):
        codec.encode(photograph, Side())
    beside = {"epoch": 4200, "loss": torch.zeros(()), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}}
    tensors = as_published(random_network(TINY, 6))
    torch.save({**beside, "state_dict": tensors}, tmp_path / "elic-lambda0.45.pth.tar")
    assert need.missing() is None
    made = codec.encode(photograph, Side())
    assert made.data == tiny(quality=6).encode(photograph, Side()).data
    assert np.array_equal(codec.decode(made.data), tiny(quality=6).decode(made.data))
    assert codec.coder()["weights"].startswith("unpinned:")


# Round trips


def test_halves_of_a_checkerboard_are_those_of_compressai() -> None:
    planes = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    board = network(TINY).latent_codec["y"]["y0"]
    assert board.anchor_parity == "even"
    for parity, theirs in enumerate(board.unembed(planes)):
        assert torch.equal(take(planes, parity), theirs)
    assert torch.equal(put(take(planes, 0), 0) + put(take(planes, 1), 1), planes)


def test_strings_and_pixels_are_compressais(photograph: Image) -> None:
    """Padded with zeros right and below, as the published script does."""
    codec = tiny()
    system = codec.system()
    assert isinstance(system, ElicSystem)
    image = photograph[:100, :77]
    made = codec.encode(image, Side())
    net = random_network(TINY, 3)
    with reproducible():
        planes = torch.nn.functional.pad(to_planes([image], "cpu", torch.float32), (0, 51, 0, 28))
        theirs = net.compress(planes)
        [pixels] = to_images(net.decompress(theirs["strings"], theirs["shape"])["x_hat"][..., :100, :77])
    *y, z = [one for [one] in theirs["strings"]]
    assert [made.parts[name] for name in system.sections(128, 128)] == [len(one) for one in (z, *y)]
    assert made.data.endswith(y[-1])
    assert all(one in made.data for one in (z, *y))
    assert np.abs(codec.decode(made.data).astype(int) - pixels).max() <= 1
    assert pixels.std() > 20

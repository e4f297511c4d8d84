"""LIC-TCM: the published layout, windows, one string for all slices, decoded anywhere."""

from __future__ import annotations

import collections
import copy
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensorMode

from rdpbench.assets import weights
from rdpbench.codecs.contract import Side, coder_of, weights_kind_of
from rdpbench.codecs.learned.entropy import Writer
from rdpbench.codecs.learned.lic_tcm import LAMBDAS, PUBLIC, Tcm, network
from rdpbench.codecs.learned.lic_tcm.network import (
    TINY,
    MixedBlock,
    SqueezedAttention,
    TcmLayout,
    TcmNetwork,
    TcmSystem,
    WindowAttention,
    random_network,
)
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.image import Image
from rdpbench.networks.precision import one_thread, reproducible

ROOT = Path(__file__).parents[2]
DIGESTS = {64: "80c5097359b98c8a", 96: "4a21f4db7a138ca2", 128: "e56e46b59c308f87"}
"""Of the names and shapes of the official networks, sorted; the lists themselves are in ../shared."""


def tiny(**options: Any) -> Tcm:
    return Tcm(**{"weights": "random", "quality": 3, **options})


@cache
def narrow() -> TcmNetwork:
    return random_network(TINY, 3)


def tiny_system(exact: bool = False) -> TcmSystem:
    return TcmSystem(copy.deepcopy(narrow()), portable=exact)


# The published layout


def shapes(width: int) -> dict[str, list[int]]:
    """Nothing is allocated: tensors without storage."""
    with FakeTensorMode():
        return {name: list(one.shape) for name, one in TcmNetwork(TcmLayout(width)).state_dict().items()}


@pytest.mark.parametrize("width", [64, 96, 128])
def test_full_width_names_and_shapes_are_the_published_ones(width: int) -> None:
    lines = "\n".join(f"{name} {tuple(shape)}" for name, shape in sorted(shapes(width).items()))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == DIGESTS[width]


@pytest.mark.parametrize("width", [64, 96, 128])
def test_the_lists_of_the_dossier_agree(width: int, shared: Path) -> None:
    expected = json.loads((shared / "dossier" / "keys" / f"tcm_N{width}.json").read_text())
    assert len(expected) == 1293
    assert shapes(width) == expected


def test_parameters_are_as_many_as_published() -> None:
    for width, millions in ((64, 45.18), (96, 59.13), (128, 76.57)):
        with FakeTensorMode():
            count = sum(one.numel() for one in TcmNetwork(TcmLayout(width)).parameters())
        assert round(count / 1e6, 2) == millions


def test_configurations_list_what_is_public_and_say_what_is_not() -> None:
    found = {}
    for file in sorted((ROOT / "conf" / "codec").glob("lic-tcm-*.yaml")):
        conf = yaml.safe_load(file.read_text())
        assert (conf["name"], conf["use"]) == (file.stem, "lic-tcm")
        for rate in conf["rates"]:
            Tcm(quality=rate, **conf["options"])
        found[conf["options"]["width"]] = conf
    assert {width: conf["rates"] for width, conf in found.items()} == {64: [*range(1, 7)], 96: [*range(1, 7)], 128: [6]}
    public = collections.Counter(width for width, _ in PUBLIC)
    assert public == {64: 6, 128: 1}
    assert "no weights are public" in found[96]["title"]
    assert "quality 6 only" in found[128]["title"]


def test_cards_name_source_licence_and_trade_off() -> None:
    cards = [Tcm(width=width, quality=quality).card() for width, quality in PUBLIC]
    assert len({card.file for card in cards}) == len({card.id for card in cards}) == 7
    card = Tcm(quality=3).card()
    assert card.source == "https://drive.google.com/file/d/17THA1IiPStSO6jG4h5clwkw0ySzgLZID/view"
    assert "0.0067" in card.note
    assert (card.sha256, card.bytes) == (None, 0)
    assert len(LAMBDAS) == 6
    assert Tcm(quality=3).weights_kind() == "unpinned"


@pytest.mark.parametrize(("width", "quality"), [(96, 1), (96, 6), (128, 5)])
def test_networks_without_public_weights_say_so(width: int, quality: int, photograph: Image) -> None:
    codec = Tcm(width=width, quality=quality)
    [need] = codec.weight_needs()
    text = str(need.missing())
    assert f"N = {width} and lambda {LAMBDAS[quality - 1]:g} (quality {quality}) are public" in text
    assert "codec=lic-tcm-64" in text
    assert coder_of(codec)["weights"] == "unpublished"
    assert weights_kind_of(codec) == "unpinned"
    with pytest.raises(MissingNeed, match="weights=random"):
        codec.encode(photograph, Side())
    assert Tcm(width=width, quality=quality, weights="random").weight_needs() == ()


# Official files


def as_published(net: TcmNetwork) -> dict[str, Any]:
    """What the authors' training script saves, from an older CompressAI: prefixes, old names, no tables."""
    named = {}
    for name, tensor in net.state_dict().items():
        if name.split(".")[-1] in ("_quantized_cdf", "_cdf_length", "_offset", "scale_table"):
            continue
        for new, old in (("matrices", "matrix"), ("biases", "bias"), ("factors", "factor")):
            name = name.replace(f"entropy_bottleneck.{new}.", f"entropy_bottleneck._{old}")  # noqa: PLW2901 - in two steps
        named[f"module.{name}"] = tensor
    schedule = {"milestones": collections.Counter({45: 1, 48: 1}), "gamma": 0.1, "last_epoch": 49}
    return {"epoch": 49, "state_dict": named, "loss": torch.tensor(0.5), "lr_scheduler": schedule}


@pytest.fixture
def placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file of N = 64, quality 3 goes, with the narrow network in place of the published one."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(network, "TcmLayout", lambda _: TINY)
    return tmp_path / Tcm(quality=3).card().file


def test_an_official_file_is_found_loaded_and_marked(placed: Path, photograph: Image) -> None:
    codec = Tcm(quality=3)
    [need] = codec.weight_needs()
    for line in ("lic-tcm-n64-lambda0.0067.pth.tar", "from     https://drive.google.com/file/d/17THA", "licence  MIT"):
        assert line in str(need.missing())
    torch.save(as_published(narrow()), placed)
    assert need.missing() is None
    assert codec.encode(photograph, Side()).data == tiny().encode(photograph, Side()).data
    assert codec.coder()["weights"].startswith("unpinned:")
    weights.resolve(Tcm(quality=3).card())
    placed.write_bytes(placed.read_bytes() + b" ")
    assert "is not the file" in str(need.missing())


def test_files_that_do_not_fit_are_refused_by_name(placed: Path, photograph: Image) -> None:
    saved = as_published(narrow())
    tensors = saved["state_dict"]
    del tensors["module.g_a.1.conv1_2.bias"]
    tensors["module.atten_mean.5.0.in_conv.bias"] = torch.zeros(8)
    tensors["module.h_a.3.weight"] = torch.zeros(8, 16, 5, 5)
    torch.save(saved, placed)
    with pytest.raises(CodecError) as caught:
        Tcm(quality=3).encode(photograph, Side())
    assert str(caught.value).splitlines() == [
        "the tensors of lic-tcm/n64-lambda0.0067 do not fit its network:",
        "  g_a.1.conv1_2.bias (16,) is missing",
        "  atten_mean.5.0.in_conv.bias (8,) has no place",
        "  h_a.3.weight is (8, 16, 5, 5), must be (8, 16, 3, 3)",
    ]


def test_baked_tables_are_used(placed: Path, photograph: Image) -> None:
    """With the integers of CompressAI's `update()`, as the authors' script builds them, files stay readable."""
    net = copy.deepcopy(narrow())
    net.entropy_bottleneck.update(force=True)
    net.gaussian_conditional.update_scale_table([0.11, 0.5, 2.0, 64.0], force=True)
    torch.save({"state_dict": net.state_dict()}, placed)
    codec = Tcm(quality=3)
    system = codec.system()
    assert isinstance(system, TcmSystem)
    assert len(system.y.rows) == 4
    made = codec.encode(photograph, Side()).data
    assert codec.decode(made).shape == photograph.shape
    assert made != tiny().encode(photograph, Side()).data


# The network, against slow and plain forms of it


def plain_attention(layer: WindowAttention, planes: torch.Tensor) -> torch.Tensor:
    """``(H, W, C)``: each place looks at each place of its window, one by one."""
    side, half = layer.window, layer.window // 2
    height, width, channels = planes.shape
    wide = channels // layer.heads
    parts = layer.embedding_layer(planes).view(height, width, 3, layer.heads, wide)
    out = torch.zeros(height, width, layer.heads, wide, dtype=planes.dtype)

    def window_of(at: int, size: int) -> tuple[int, int]:
        """Number of the window, and of the part of it that lies together in the plane."""
        if not layer.shifted:
            return at // side, 0
        return ((at - half) % size) // side, int(at < half)

    for row in range(height):
        for column in range(width):
            mine = window_of(row, height), window_of(column, width)
            near = [
                (r, c)
                for r in range(height)
                for c in range(width)
                if (window_of(r, height), window_of(c, width)) == mine
            ]
            rows, columns = (torch.tensor(one) for one in zip(*near, strict=True))
            for head in range(layer.heads):
                bias = layer.relative_position_params[head, row - rows + side - 1, column - columns + side - 1]
                query, keys = parts[row, column, 0, head], parts[rows, columns, 1, head]
                chances = torch.softmax(keys @ query / wide**0.5 + bias, 0)
                out[row, column, head] = chances @ parts[rows, columns, 2, head]
    return layer.linear(out.flatten(2))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (12, 8), (4, 12), (8, 4)])
def test_windows_see_what_they_should(shifted: bool, height: int, width: int) -> None:
    torch.manual_seed(0)
    layer = WindowAttention(6, 3, 4, shifted).double()
    torch.nn.init.normal_(layer.relative_position_params)
    planes = torch.randn(2, height, width, 6, dtype=torch.float64)
    with torch.no_grad():
        found = layer(planes)
        for one, expected in zip(found, planes, strict=True):
            assert float((one - plain_attention(layer, expected)).abs().max()) < 1e-12


def test_blocks_mix_both_halves() -> None:
    torch.manual_seed(0)
    block = MixedBlock(8, 4, 4, shifted=True)
    planes = torch.randn(1, 16, 8, 8)
    with torch.no_grad():
        near, far = block.conv1_1(planes)[:, :8], block.conv1_1(planes)[:, 8:]
        smooth = torch.nn.functional.leaky_relu
        changed = smooth(block.conv_block.conv2(smooth(block.conv_block.conv1(near))))
        far = far.permute(0, 2, 3, 1)
        far = far + block.trans_block.msa(block.trans_block.ln1(far))
        far = (far + block.trans_block.mlp(block.trans_block.ln2(far))).permute(0, 3, 1, 2)
        expected = planes + block.conv1_2(torch.cat([2 * near + changed, far], 1))
        assert float((block(planes) - expected).abs().max()) < 1e-5


def test_the_mask_of_the_attention_comes_from_the_transformer() -> None:
    torch.manual_seed(0)
    block = SqueezedAttention(12, TINY)
    planes = torch.randn(1, 12, 16, 8)
    with torch.no_grad():
        inner = block.in_conv(planes)
        usual = block(planes)
        block.conv_b[-1].weight.zero_()
        block.conv_b[-1].bias.fill_(100)
        expected = block.out_conv(inner + block.conv_a(inner))
        assert float((block(planes) - expected).abs().max()) < 1e-5
        assert float((usual - expected).abs().max()) > 1e-3


# Round trips


def test_the_decoded_latents_are_near_the_encoders(photograph: Image) -> None:
    """Half a step from rounding, half a step from the residual at most: slices, means and order are right."""
    system = tiny_system()
    with reproducible(), one_thread():
        planes = torch.from_numpy(photograph.transpose(2, 0, 1).copy())[None].float() / 255
        padded = system.frame.padded(192, 256)
        latents = system.analyse(system.frame.pad(planes), [Side()])
        writer = Writer(system.sections(*padded), portable=False, device="cpu")
        quantised = system.code(writer, *padded, latents)
    assert float((quantised - latents["y"]).abs().max()) <= 1.001
    assert float((quantised - latents["y"]).abs().max()) > 0.5


class Drawing:
    """A coder that draws symbols from the distributions it is told."""

    def __init__(self, z: torch.Tensor) -> None:
        self.z, self.drawn = z, []

    def factorized(self, *_: Any) -> torch.Tensor:
        return self.z

    def gaussian(self, _section: str, _tables: Any, scales: torch.Tensor, means: torch.Tensor, _: Any) -> torch.Tensor:
        symbols = torch.round(scales.clamp(min=0.11) * torch.randn_like(scales))
        self.drawn.append(symbols + means)
        return symbols + means

    def exact(self, values: torch.Tensor) -> torch.Tensor:
        return values


@pytest.mark.parametrize("exact", [False, True])
def test_the_estimate_is_that_of_the_entropy_models(exact: bool) -> None:
    """For latents as the network expects them it is what the range coder needs."""
    torch.manual_seed(0)
    system = tiny_system(exact)
    with reproducible():
        kind = torch.float64 if exact else torch.float32
        z = torch.zeros(1, TINY.hyper, 8, 8, dtype=kind)
        drawing = Drawing(z)
        system.code(drawing, 512, 512, {})  # type: ignore[arg-type]
        writer = Writer(system.sections(512, 512), portable=exact, device="cpu")
        system.code(writer, 512, 512, {"z": z, "y": torch.cat(drawing.drawn, 1)})
        strings = writer.finish()
        estimate = writer.estimated
        assert estimate is not None
        [of_z] = [-float(system.net.entropy_bottleneck(z)[1].log2().sum())]
    assert abs(8 * len(strings["z"]) - of_z) < 64 + 0.01 * of_z
    assert 8 * len(strings["y"]) == pytest.approx(estimate - of_z, rel=0.01)


def test_the_estimate_stands_in_the_row_and_images_keep_theirs(photograph: Image) -> None:
    images = [np.ascontiguousarray(photograph[at : at + 100, :90]) for at in (0, 80)]
    alone = [json.loads(tiny().encode(image, Side()).info["legacy"])["estimated"] for image in images]
    both = [json.loads(one.info["legacy"])["estimated"] for one in tiny().encode_batch(images, [Side()] * 2)]
    assert both == pytest.approx(alone)
    assert alone[0] != alone[1]

"""HiFiC's PyTorch port: its tensors, tables and settings, and files that decode anywhere."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench.assets.load import Inert
from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.hific import DROPPED, HiFiC, PortSettings, read_port
from rdpbench.codecs.learned.hific.network import (
    TAIL,
    ChannelNorm,
    Density,
    HificNetwork,
    HificWidths,
    density_tables,
    random_network,
    scale_tables,
)
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import decode_images, encode_images, seeded, to_images
from rdpbench.errors import CodecError, MissingNeed, OutOfRange
from rdpbench.image import Image

ROOT = Path(__file__).parents[2]
NARROW = HificWidths((6, 8, 8, 12, 16), 12, 8, 2)
ARGS: dict[str, Any] = {
    "regime": "low",
    "latent_channels": 220,
    "likelihood_type": "gaussian",
    "normalize_input_image": True,
    "n_residual_blocks": 9,
    "use_channel_norm": True,
    "use_latent_mixture_model": False,
    "sample_noise": False,
    "lambda_schedule": {"vals": [2.0, 1.0], "steps": [50000]},
}
KEYS = "dfbc6ddeb548e6d3"


def tiny(**options: Any) -> HiFiC:
    return HiFiC(**{"weights": "random", **options})


# The networks


def full_width() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(one.shape) for name, one in HificNetwork(HificWidths()).state_dict().items()}


def test_full_width_tensors_are_the_ports() -> None:
    lines = "\n".join(f"{name} {shape}" for name, shape in sorted(full_width().items()))
    assert (len(full_width()), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (148, KEYS)


@pytest.mark.parametrize(("mode", "dropped"), [("training", 20), ("evaluation", 17)])
def test_all_else_in_the_ports_files_is_dropped_by_name(shared: Path, mode: str, dropped: int) -> None:
    from fnmatch import fnmatchcase

    given = json.loads((shared / "dossier" / "keys" / f"hific_justintan_{mode}.json").read_text())
    kept = {name: tuple(shape) for name, shape in given.items() if not any(fnmatchcase(name, one) for one in DROPPED)}
    assert kept == full_width()
    assert len(given) - len(kept) == dropped


def test_channel_norm_uses_the_unbiased_variance_over_channels() -> None:
    x = torch.tensor([0.0, 1.0, 5.0]).reshape(1, 3, 1, 1)
    assert torch.allclose(ChannelNorm(3)(x), (x - 2) / math.sqrt(7 + 1e-3))


def test_density_is_that_of_compressai_with_a_gate_more() -> None:
    own = seeded(lambda: Density(5))
    theirs = compressai.entropy_models.EntropyBottleneck(5, filters=(3, 3, 3))
    with torch.no_grad():
        for layer in range(4):
            getattr(own, f"H_{layer}").add_(0.3 * layer)
            theirs.matrices[layer].copy_(getattr(own, f"H_{layer}"))
            theirs.biases[layer].copy_(getattr(own, f"b_{layer}"))
            if layer < 3:
                getattr(own, f"a_{layer}").add_(0.5 + layer)
                theirs.factors[layer].copy_(getattr(own, f"a_{layer}"))
        at = torch.linspace(-9, 9, 31).expand(5, 1, 31)
        logits = theirs._logits_cumulative(at, stop_gradient=False)
        assert torch.allclose(own(at), logits, atol=1e-6)
        own.a_3.add_(0.7)
        assert torch.allclose(own(at), logits + math.tanh(0.7) * torch.tanh(logits), atol=1e-6)


# Tables


@pytest.mark.parametrize("likelihood", ["gaussian", "logistic"])
def test_rows_are_the_distributions_up_to_the_tail(likelihood: str) -> None:
    from scipy import stats

    law = {"gaussian": stats.norm, "logistic": stats.logistic}[likelihood]
    tables = scale_tables(likelihood)
    assert len(tables.rows) == 64
    for number in (0, 1, 20, 45, 63):
        scale = 0.11 * (256 / 0.11) ** (number / 63)
        reach = -tables.offsets[number]
        assert law.cdf(-reach / scale) <= TAIL / 2 < law.cdf(-(reach - 1) / scale)
        found = np.diff(tables.rows[number]) / 65536
        expected = np.diff(law.cdf((np.arange(-reach, reach + 2) - 0.5) / scale))
        # Steps of 1/65536, and what the empty places got from the others.
        assert np.abs(found[:-1] - expected).max() < 4 / 65536
        # The tail is that of one side twice: the symbols of the rows are symmetric.
        assert found[-1] == pytest.approx(1 - expected.sum(), abs=4 / 65536)


def test_rows_of_hyperlatents_hold_all_but_the_tail() -> None:
    density = seeded(lambda: Density(6))
    with torch.no_grad():
        density.b_3 += torch.linspace(-4, 4, 6).reshape(6, 1, 1)
    tables = density_tables(density)
    assert len({len(row) for row in tables.rows}) > 1
    for channel in range(6):
        low = tables.offsets[channel]
        high = low + len(tables.rows[channel]) - 3
        edges = torch.tensor([low, low + 1, high - 1, high], dtype=torch.float64).expand(6, 1, 4)
        below = torch.sigmoid(density.double()(edges))[channel, 0].tolist()
        assert low == 0 or below[0] <= TAIL / 2 < below[1]
        assert high == 0 or below[2] < 1 - TAIL / 2 <= below[3]
        inside = torch.arange(low, high + 2, dtype=torch.float64).expand(6, 1, -1) - 0.5
        expected = torch.sigmoid(density(inside))[channel, 0].diff().detach().numpy()
        assert np.abs(np.diff(tables.rows[channel])[:-1] / 65536 - expected).max() < 4 / 65536


def test_endless_distributions_are_refused() -> None:
    density = Density(2)
    with torch.no_grad():
        density.H_0[1] -= 30
    with pytest.raises(CodecError, match="wider than any trained one"):
        density_tables(density)
    with torch.no_grad():
        density.H_0[1] = math.nan
    with pytest.raises(CodecError, match="wider than any trained one"):
        density_tables(density)


# Checkpoints


def stored(folder: Path, args: object = None, **more: Any) -> Path:
    """A file as the port's training writes it, but narrow."""
    net = seeded(lambda: HificNetwork(NARROW))
    tensors = {f"module.{name}": one for name, one in net.state_dict().items()}
    tensors["module.Discriminator.conv1.weight_u"] = torch.zeros(3)
    entries = {
        "model_state_dict": tensors,
        "compression_optimizer_state_dict": torch.optim.Adam(net.parameters()).state_dict(),
        "epoch": 1,
        "args": ARGS if args is None else args,
        "discriminator_state_dict": {"conv1.bias": torch.zeros(2)},
    }
    file = folder / "hific_low.pt"
    torch.save({**entries, **more}, file)
    return file


class Struct:
    """As the port's own class of settings."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize("kind", ["dict", "Namespace", "Struct", "NumPy"])
def test_files_of_training_are_read(tmp_path: Path, kind: str) -> None:
    args = {
        "dict": ARGS,
        "Namespace": argparse.Namespace(**ARGS),
        "Struct": Struct(ARGS),
        "NumPy": {**ARGS, "learning_rate": np.float64(1e-4), "seeds": np.arange(3)},
    }[kind]
    tensors, settings = read_port(stored(tmp_path, args), "low")
    assert settings == PortSettings()
    net = HificNetwork(NARROW)
    load_with_tables(net, tensors, "example", drop=DROPPED)
    expected = seeded(lambda: HificNetwork(NARROW)).state_dict()
    assert all(torch.equal(one, expected[name]) for name, one in net.state_dict().items())


def test_files_of_before_torch_1_6_are_read(tmp_path: Path) -> None:
    file = stored(tmp_path)
    entries = torch.load(file, weights_only=True)
    entries["args"] = argparse.Namespace(**{**ARGS, "likelihood_type": "logistic", "regime": "med"})
    torch.save(entries, file, _use_new_zipfile_serialization=False)
    loaded, settings = read_port(file, "med")
    assert settings.likelihood == "logistic"
    assert len(loaded["model_state_dict"]) == len(HificNetwork(NARROW).state_dict()) + 1


class Calls:
    """What a hostile file holds: a call that unpickling would make."""

    def __init__(self, function: Any, *arguments: str) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["args", "epoch"])
def test_no_code_of_a_file_runs(tmp_path: Path, zipped: bool, where: str) -> None:
    victim = tmp_path / "ran"
    calls = [
        (Calls(os.system, f"touch {victim}"), r"holds more than tensors and was not opened: posix\.system"),
        (Calls(exec, f"open({str(victim)!r}, 'w')"), "settings say" if zipped else r"not opened: exec\."),
        (Calls(shutil.copy, __file__, str(victim)), "settings say" if zipped else r"not opened: shutil\.copy\."),
    ]
    for call, says in calls:
        file = stored(tmp_path)
        torch.save({**torch.load(file, weights_only=True), where: call}, file, _use_new_zipfile_serialization=zipped)
        if says == "settings say" and where == "epoch":  # a placeholder where nobody looks
            assert read_port(file, "low")[1] == PortSettings()
        else:
            with pytest.raises(CodecError, match=says) as error:
                read_port(file, "low")
            assert "weights_only" not in str(error.value), "torch's advice, which is to run it"
        assert not victim.exists()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"regime": "high"}, "no checkpoint of HiFiC's regime 'low': its settings say regime='high'"),
        (
            {"latent_channels": 64, "use_latent_mixture_model": True},
            "latent_channels=64, use_latent_mixture_model=True",
        ),
        ({"likelihood_type": "laplace"}, "likelihood_type='laplace'"),
        ({"n_residual_blocks": 10**9}, "n_residual_blocks=1000000000"),
        ({"normalize_input_image": None}, "normalize_input_image=None"),
        ({"use_latent_mixture_model": True}, "use_latent_mixture_model=True"),
    ],
)
def test_settings_of_another_model_are_refused(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(CodecError, match=says):
        read_port(stored(tmp_path, ARGS | changed), "low")


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="holds no settings"):
        read_port(stored(tmp_path, "low"), "low")
    loaded, _ = read_port(stored(tmp_path, model_state_dict={}), "low")
    with pytest.raises(CodecError, match=r"weights_key='model_state_dict' names no set of weights in example"):
        load_with_tables(HificNetwork(NARROW), loaded, "example", key="model_state_dict", drop=DROPPED)
    whole = stored(tmp_path).read_bytes()
    for number, content in enumerate([b"", b"low", whole[: len(whole) // 2], b"PK\x03\x04" + whole[4:2000]]):
        file = tmp_path / f"{number}.pt"
        file.write_bytes(content)
        with pytest.raises(CodecError, match="was not opened"):
            read_port(file, "low")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CodecError, match="holds a list"):
        read_port(tmp_path / "list.pt", "low")
    tensors = dict(read_port(stored(tmp_path), "low")[0]["model_state_dict"])
    del tensors["module.Encoder.conv_block1.1.bias"]
    tensors["module.Generator.extra"] = tensors.pop("module.Generator.conv_block_out.1.bias")
    with pytest.raises(CodecError) as error:
        load_with_tables(HificNetwork(NARROW), tensors, "example", drop=DROPPED)
    for line in ("Encoder.conv_block1.1.bias (6,) is missing", "Generator.extra (3,) has no place"):
        assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 4


def test_held_objects_keep_attributes_and_do_nothing() -> None:
    held = Inert(1, two=2)
    held.__setstate__({"regime": "low"})
    held.__setstate__((1, 2))
    assert vars(held) == {"regime": "low"}


def test_absent_weights_stop_with_where_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    codec = HiFiC(target=0.45)
    [need] = codec.weight_needs()
    for line in ("zenodo.org/record/4026003/files/hific_hi.pt", "licence  Apache-2.0", "sha256   not published"):
        assert line in str(need.missing())
    with pytest.raises(MissingNeed, match="'hific-port/high' are not on this machine"):
        codec.encode(photograph, Side())
    assert codec.weights_kind() == "unpinned"


@pytest.mark.slow
def test_an_official_file_codes_as_the_network_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    """At full width, with a discriminator, optimiser states and prefixes: a seeded file under the published name."""
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    net = random_network(HificWidths(), 2.0, symmetric=False)
    args = {**ARGS, "regime": "med", "likelihood_type": "logistic", "normalize_input_image": False}
    tensors = {f"module.{name}": one for name, one in net.state_dict().items()}
    torch.save({"model_state_dict": tensors, "args": args}, tmp_path / "hific_med.pt")
    del net, tensors
    image = photograph[:100, :99]
    made = HiFiC(target=0.3).encode(image, Side())
    assert made.data == HiFiC(target=0.3, weights="random-full").encode(image, Side()).data
    assert HiFiC(target=0.3).coder()["weights"].startswith("unpinned:")


# Sizes and pixels


def test_small_and_odd_images_are_padded_as_in_the_port() -> None:
    """Reflected at the right and below to multiples of 16; latents to multiples of 4; never all around."""
    system: Any = tiny().system()
    planes = torch.rand(1, 3, 77, 100)
    padded = system.frame.pad(planes)
    assert padded.shape[2:] == (80, 112)
    assert torch.equal(padded[..., :77, :100], planes)
    assert torch.equal(padded[..., 77:, :100], planes[..., [75, 74, 73], :])
    with torch.inference_mode():
        y = system.analyse(padded, [Side()])["y"]
        direct = system.net.Encoder((padded - 0.5) / 0.5)
    assert direct.shape[2:] == (5, 7)
    assert y.shape[2:] == (8, 8)
    assert torch.equal(y[..., :5, :7], direct)
    assert torch.equal(y[..., 5:, :7], direct[..., [3, 2, 1], :])
    assert system.sections(80, 112) == {"z": 8 * 2 * 2, "y": 12 * 8 * 8}
    small = system.frame.pad(planes[..., :20, :])
    assert small.shape[2:] == (80, 112)
    assert torch.equal(small[..., 20:65, :100], planes[..., 19:20, :].expand(1, 3, 45, 100))


def test_the_networks_own_reflections_need_65_pixels() -> None:
    """Why small images are continued first: at 64 pixels the hyperprior's latents are 2 x 2, to be reflected by 2."""
    net = HificNetwork(NARROW).eval()
    with torch.inference_mode():
        y = net.Encoder(torch.rand(1, 3, 64, 64))
        with pytest.raises(RuntimeError, match="Padding size should be less"):
            net.Hyperprior.analysis_net(y)


@pytest.mark.parametrize("target", [0.14, 0.3])
def test_pixels_are_clamped_and_never_stretched(target: float, photograph: Image) -> None:
    system: Any = tiny(target=target).system()
    image = photograph[:80, :96]
    [made] = encode_images("hific", system, [image], [Side()], 1 << 20)
    [found] = decode_images("hific", system, [made.data], 1 << 20)
    latents = system.analyse(system.frame.pad(torch.from_numpy(image.transpose(2, 0, 1)[None]) / 255), [Side()])
    with torch.inference_mode():
        # The decoder's latents: around the means, which follow from the rounded hyperlatents.
        mean = system.net.Hyperprior.synthesis_mu(torch.round(latents["z"]))
        raw = system.net.Generator(torch.round(latents["y"] - mean) + mean)[..., :80, :96]
    planes = (torch.tanh(raw) + 1) / 2 if target == 0.14 else raw.clamp(0, 1)
    [expected] = to_images(planes)
    assert np.abs(found.astype(int) - expected).max() <= 1
    if target == 0.14:
        assert 0 < found.min() < found.max() < 255, "stretching would have made these 0 and 255"


# Rates


def test_rates_as_the_port_prints_them(photograph: Image) -> None:
    image = photograph[:100, :130]
    made = tiny().encode(image, Side())
    bits = json.loads(made.info["legacy"])
    payload = 8 * (made.parts["z"] + made.parts["y"])
    assert bits["headerless"] == payload
    assert bits["framed"] == payload + 8 * 42
    assert bits["padded"] == pytest.approx(payload * (100 * 130) / (112 * 144))
    assert bits["nominal"] == pytest.approx(0.14 * 100 * 130)


def test_rates_never_trained_are_refused() -> None:
    for target in (0.2, 0.1, 0.5):
        with pytest.raises(OutOfRange):
            HiFiC(target=target)
    with pytest.raises(OutOfRange, match=r"'hific' has target 0\.14, 0\.3, 0\.45 only"):
        HiFiC(target=0.31)


def test_configuration_lists_every_rate() -> None:
    conf = yaml.safe_load((ROOT / "conf" / "codec" / "hific.yaml").read_text())
    assert conf["rates"] == list(HiFiC.rate.points)
    files = [HiFiC(target=rate, **conf["options"]).published().card.file for rate in conf["rates"]]
    assert files == ["hific_low.pt", "hific_med.pt", "hific_hi.pt"]

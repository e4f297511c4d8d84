"""mini: the weights that ship, bitstreams that decode anywhere, and that it is better than JPEG."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as pil
from safetensors.torch import load_file

from rdpbench.codecs.classical.pillow import JPEG
from rdpbench.codecs.contract import Side, coder_of, needs_of_built, weights_kind_of
from rdpbench.codecs.learned import mini
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.mini import Mini
from rdpbench.codecs.learned.mini_network import FULL, Gained, MiniNetwork, between
from rdpbench.errors import ConfigError, MissingNeed, OutOfRange
from rdpbench.image import Image
from rdpbench.metrics.msssim import MSSSIM
from rdpbench.metrics.psnr import PSNR
from rdpbench.results.stats.bd import bd_rate

ROOT = Path(__file__).parents[2]
METRICS = pytest.mark.parametrize("metric", ["mse", "ms-ssim"])


def psnr(one: Image, other: Image) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


# The weights


@METRICS
def test_the_shipped_file_is_the_one_of_its_card(metric: str) -> None:
    """`fit` accepts it only if each tensor has its place and shape."""
    known = Mini(metric=metric).card()
    assert len(mini.content(known)) == known.bytes
    codec = Mini(metric=metric)
    assert [need.missing() for need in needs_of_built(codec)] == [None, None]
    assert weights_kind_of(codec) == "official"
    assert coder_of(codec)["weights"] == f"sha256:{known.sha256}" or coder_of(codec)["weights"] == known.sha256
    net = codec.make().net
    count = sum(one.numel() for name, one in net.named_parameters() if not name.startswith("entropy"))
    assert 1_900_000 < count < 2_000_000
    # A higher quality is a finer step, in every channel that is of use.
    assert float((net.gain.diff(dim=0) > 0).float().mean()) > 0.9


def test_all_weights_are_at_most_8_mib() -> None:
    folder = files("rdpbench.codecs.learned") / "mini_weights"
    sizes = {file.name: len(file.read_bytes()) for file in folder.iterdir() if file.name.endswith(".safetensors")}
    assert sizes == {name: size for name, size, _ in mini.FILES.values()}
    assert sum(sizes.values()) <= 8 << 20


def test_transforms_are_stored_in_half_precision_and_z_has_its_tables() -> None:
    tensors = load_file(str(files("rdpbench.codecs.learned") / "mini_weights" / "mse.safetensors"))
    for name, one in tensors.items():
        if name.startswith(("g_", "h_")):
            assert one.dtype is torch.float16, name
    assert tensors["gain"].dtype is tensors["entropy_bottleneck.quantiles"].dtype is torch.float32
    assert tensors["entropy_bottleneck._quantized_cdf"].dtype is torch.int32
    made = load_with_tables(
        MiniNetwork(), {key: one.float() if one.is_floating_point() else one for key, one in tensors.items()}, "x"
    )
    assert made == {"entropy_bottleneck": "baked", "gaussian_conditional": "rebuilt"}


def test_other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "mini_weights"
    copied.mkdir()
    monkeypatch.setattr(mini, "files", lambda _: tmp_path)
    [need] = Mini(metric="mse").weight_needs()
    assert "is not there; install rdpbench again" in str(need.missing())
    shutil.copy(ROOT / "rdpbench/codecs/learned/mini_weights/mse.safetensors", copied / "mse.safetensors")
    assert need.missing() is None
    with (copied / "mse.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    assert f"expected {mini.FILES['mse'][2]}" in str(need.missing())
    with pytest.raises(MissingNeed, match="has sha256"):
        Mini(metric="mse").make()


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"'mini' takes: quality 1\.\.6 in steps of 0\.1"):
        Mini(quality=6.5)
    with pytest.raises(OutOfRange):
        Mini(quality=2.55)
    with pytest.raises(ConfigError, match="lpips"):
        Mini(metric="lpips")


# Rates


def test_gains_between_two_qualities_are_geometric_means() -> None:
    gains = between(torch.tensor([[0.0, 1.0], [2.0, -1.0], [3.0, 0.0]]), torch.tensor([1.0, 1.5, 2.0, 2.25, 3.0]))
    assert gains.shape == (5, 2, 1, 1)
    expected = [[0, 1], [1, 0], [2, -1], [2.25, -0.75], [3, 0]]
    assert torch.allclose(gains[..., 0, 0].log(), torch.tensor(expected), atol=1e-6)


@METRICS
def test_rate_and_fidelity_rise_with_every_step_of_quality(metric: str, photograph: Image) -> None:
    sizes, distances = [], []
    for quality in (1, 1.5, 3, 5.5, 6):
        codec = Mini(quality=quality, metric=metric)
        made = codec.encode(photograph, Side())
        sizes.append(len(made.data))
        distances.append(psnr(photograph, codec.decode(made.data)))
    assert sizes == sorted(set(sizes))
    assert distances == sorted(set(distances))
    pixels = photograph.shape[0] * photograph.shape[1]
    assert 8 * sizes[0] / pixels < 0.35
    assert sizes[-1] > 3 * sizes[0]


def test_it_is_better_than_jpeg_on_a_photograph(photograph: Image) -> None:
    """At a smaller file, in PSNR. The photograph is not among those it was trained on."""
    for quality in (2, 4):
        made = Mini(quality=quality).encode(photograph, Side())
        files = [JPEG(quality=one).encode(photograph, Side()).data for one in range(5, 96, 3)]
        larger = next(data for data in files if len(data) >= len(made.data))
        assert psnr(photograph, Mini(quality=quality).decode(made.data)) > psnr(photograph, JPEG().decode(larger)) + 0.5


@pytest.mark.slow
def test_both_families_beat_jpeg_on_kodak(shared: Path) -> None:
    """Every third image; with all 24 it is -30% and -55% (docs/mini.md). Neither was trained on any of them."""
    kodak = sorted((shared / "data" / "kodak").glob("*.png"))[::3]
    assert len(kodak) == 8
    scorers: dict[str, Any] = {"mse": PSNR(), "ms-ssim": MSSSIM()}
    for metric, most in {"mse": -20.0, "ms-ssim": -45.0}.items():
        anchor = [JPEG(quality=one) for one in (5, 10, 20, 35, 50, 70, 85)]
        own = [Mini(quality=one, metric=metric) for one in range(1, 7)]
        curves = [[point(codec, kodak, scorers[metric]) for codec in codecs] for codecs in (anchor, own)]
        found = bd_rate(*curves)
        assert found.value < most, (metric, found, curves)


def point(codec: Any, photographs: list[Path], metric: Any) -> tuple[float, float]:
    """Means of bits per pixel and of the metric."""
    rates, values = [], []
    for file in photographs:
        image = np.ascontiguousarray(np.asarray(pil.open(file).convert("RGB")))
        made = codec.encode(image, Side())
        rates.append(8 * len(made.data) / (image.shape[0] * image.shape[1]))
        values.append(metric.score(metric.prepare(image), codec.decode(made.data)))
    return float(np.mean(rates)), metric.reduce(values)


# Round trips


def test_bits_are_those_that_the_network_expects(photograph: Image) -> None:
    """A broken table or gain would cost: the file is within 2% of the information in its symbols."""
    codec = Mini(quality=4)
    system = codec.system()
    assert isinstance(system, Gained)
    made = codec.encode(photograph, Side())
    with torch.inference_mode():
        planes = torch.from_numpy(photograph.transpose(2, 0, 1)[None].copy()).float() / 255
        y, z = system.net.analyse(planes, torch.tensor([4.0]))
        z = z.round()
        scales, means = system.net.parameters_of(z)
        _, z_likelihoods = system.net.entropy_bottleneck(z, training=False)
        _, y_likelihoods = system.net.gaussian_conditional(y, scales, means, training=False)
        expected = {"z": z_likelihoods, "y": y_likelihoods}
        bits = {key: -float(one.clamp(min=2.0**-16).log2().sum()) for key, one in expected.items()}
    assert 8 * made.parts["y"] == pytest.approx(bits["y"], rel=0.02)
    assert 8 * made.parts["z"] == pytest.approx(bits["z"], rel=0.06, abs=128)


# Training


def test_the_network_is_the_one_of_the_documentation() -> None:
    with torch.device("meta"):
        net = MiniNetwork(FULL)
    counts = {
        name: sum(one.numel() for one in getattr(net, name).parameters()) for name in ("g_a", "g_s", "h_a", "h_s")
    }
    assert counts == {"g_a": 764_544, "g_s": 764_400, "h_a": 156_928, "h_s": 283_200}


def trained_for(folder: Path, photos: Path, *steps: int) -> dict[str, torch.Tensor]:
    """The network after so many steps, taken up again after each number but the last."""
    folder.mkdir()
    for count in steps:
        arguments = ["--photos", photos, "--work", folder, "--steps", count, "--fall", 1, "--warm", 1]
        done = subprocess.run(
            [sys.executable, ROOT / "training" / "mini.py", "train", *map(str, arguments), *TRAINING],
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
    net: dict[str, torch.Tensor] = torch.load(folder / "last.pt", weights_only=True)["net"]
    return net


TRAINING = ("--batch", "2", "--side", "64", "--synthetic", "2", "--learning-rate", "0.001")


@pytest.mark.slow
def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path, photograph: Image) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    pil.fromarray(photograph).save(photos / "one.png")
    whole = trained_for(tmp_path / "whole", photos, 3)
    parts = trained_for(tmp_path / "parts", photos, 1, 3)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    start = trained_for(tmp_path / "start", photos, 1)
    assert not torch.equal(start["g_a.1.weight"], whole["g_a.1.weight"])
    exported = tmp_path / "mine.safetensors"
    arguments = ["export", "--work", str(tmp_path / "whole"), "--to", str(exported)]
    subprocess.run(
        [sys.executable, ROOT / "training" / "mini.py", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    tensors = load_file(str(exported))
    loaded = {key: one.float() if one.is_floating_point() else one for key, one in tensors.items()}
    assert load_with_tables(MiniNetwork(), loaded, "mine")["entropy_bottleneck"] == "baked"

"""The autoencoder alone: its latents as bytes, and that these are its latents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Side, coder_of
from rdpbench.codecs.diffusion import models, sampling, sd_vae
from rdpbench.codecs.diffusion.library import diffusers
from rdpbench.codecs.diffusion.sd_vae import StableDiffusionVAE
from rdpbench.errors import BitstreamError, CodecError, MissingNeed, OutOfRange, UnknownName
from rdpbench.image import Image
from rdpbench.networks import held
from rdpbench.networks.precision import reproducible


@pytest.fixture(autouse=True)
def nothing_loaded(alone: None) -> Iterator[None]:
    yield
    held.forget()


def vae(**options: Any) -> StableDiffusionVAE:
    return StableDiffusionVAE(**{"weights": "random", **options})


@pytest.mark.parametrize(("bits", "size"), [(8, 4 * 64 * 96 + 32), (16, 2 * 4 * 64 * 96), (32, 4 * 4 * 64 * 96)])
def test_rates_by_hand(bits: int, size: int, photograph: Image) -> None:
    """Four numbers for 64 pixels: half a bit, one or two bits a pixel."""
    image = np.ascontiguousarray(np.resize(photograph, (512, 768, 3)))
    made = vae(bits=bits).encode(image, Side())
    assert made.parts == {"header": 4 + 3, "latents": size}
    assert 8 * size / image[..., 0].size == pytest.approx(bits / 16, abs=1e-3)


@pytest.mark.parametrize("bits", sd_vae.BITS)
def test_what_is_decoded_are_the_latents(bits: int, photograph: Image) -> None:
    image = np.ascontiguousarray(photograph[:70, :100])
    ready = models.load_models("sd-2.1", "random")
    with reproducible():
        latents = sampling.latents_of(ready, image)
        [expected] = sampling.images_of(ready, latents, 70, 100)
    data = vae(bits=bits).encode(image, Side()).data
    found = sd_vae.unpack_latents(unpack(data, 1)[2][0], (4, 16, 16), bits)
    span = np.ptp(latents[0].numpy(), axis=(1, 2)).max()
    allowed = {8: span / 255 / 2 * 1.001, 16: 2e-3, 32: 0}[bits]
    assert np.abs(found - latents[0].numpy()).max() <= allowed
    painted = vae(bits=bits).decode(data)
    difference = np.abs(painted.astype(int) - expected).max()
    assert difference <= {8: 60, 16: 4, 32: 0}[bits]


def test_a_channel_without_a_range_survives() -> None:
    latents = np.full((4, 2, 2), -3.5, np.float32)
    assert np.array_equal(sd_vae.unpack_latents(sd_vae.pack_latents(latents, 8), (4, 2, 2), 8), latents)
    steps = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 16, 16)
    packed = sd_vae.pack_latents(steps, 8)
    assert packed[8:] == bytes(range(256))
    assert np.allclose(sd_vae.unpack_latents(packed, (1, 16, 16), 8), steps, atol=1e-7)


@pytest.mark.parametrize("bits", sd_vae.BITS)
def test_damage_ends_in_an_error_or_an_image(bits: int, photograph: Image) -> None:
    codec = vae(bits=bits, max_pixels=1 << 14)
    image = np.ascontiguousarray(photograph[:64, :64])
    data = codec.encode(image, Side()).data
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        try:
            assert codec.decode(bytes(damaged)).dtype == np.uint8
        except BitstreamError:
            continue
    with pytest.raises(BitstreamError):
        codec.decode(pack(64, 64, {"latents": b"abc"}).data)
    if bits != 8:
        section = np.full((4, 8, 8), np.nan, f"<f{bits // 8}").tobytes()
        with pytest.raises(BitstreamError, match="not finite"):
            codec.decode(pack(64, 64, {"latents": section}).data)


def test_a_folder_of_the_users_own(tmp_path: Path, photograph: Image) -> None:
    """Loaded strictly, known by its hash, and shared with whatever loads the same bytes."""
    narrow = models.layout("sd-1.5", "random")
    for seed, name in ((1, "one"), (1, "same"), (2, "other")):
        made = models.draw_weights(diffusers.AutoencoderKL.from_config(dict(narrow.vae)), seed)
        made.save_pretrained(tmp_path / name / "vae")
    codecs = {name: StableDiffusionVAE(base=str(tmp_path / name)) for name in ("one", "same", "other")}
    data = {name: codec.encode(photograph, Side()).data for name, codec in codecs.items()}
    assert data["one"] == data["same"] != data["other"]
    assert sd_vae.load_vae_alone(codecs["one"].base).vae is sd_vae.load_vae_alone(codecs["same"].base).vae
    assert coder_of(codecs["one"]) == coder_of(codecs["same"])
    assert coder_of(codecs["one"])["vae"].startswith("sha256:")
    config = tmp_path / "other" / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "latent_channels": 3}))
    with pytest.raises(CodecError, match=r"quant_conv\.weight is \(8, 8, 1, 1\), must be \(6, 6, 1, 1\)"):
        codecs["other"].encode(photograph, Side())


def test_the_published_file_alone_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RDPBENCH_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    [need] = StableDiffusionVAE().weight_needs()
    told = str(need.missing())
    assert "sd-2.1/vae/diffusion_pytorch_model.safetensors" in told
    assert "unet" not in told
    with pytest.raises(MissingNeed):
        StableDiffusionVAE().ready()
    for base in ("sd-1.5", "sdxl"):
        assert base in str(StableDiffusionVAE(base=base).weight_needs()[0].missing())
    with pytest.raises(OutOfRange, match=r"rate 24: 'sd-vae' has bits 8, 16, 32 only"):
        StableDiffusionVAE(bits=24)
    with pytest.raises(UnknownName, match=r"did you mean 'sd-2\.1'"):
        StableDiffusionVAE(base="sd-2-1")

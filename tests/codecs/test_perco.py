"""PerCo on tiny networks of the real classes: every byte counted, the loop written out, what each setting changes."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Codec, Side, coder_of, weights_kind_of
from rdpbench.codecs.diffusion import fields, sampling
from rdpbench.codecs.diffusion import perco as perco_codec
from rdpbench.codecs.diffusion.perco import POINTS, PerCo
from rdpbench.codecs.diffusion.perco.image import PerCoImage
from rdpbench.codecs.diffusion.sd_vae import StableDiffusionVAE
from rdpbench.errors import BitstreamError, CodecError, ConfigError, OutOfRange
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import reproducible

pytestmark = pytest.mark.usefixtures("alone")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CAPTION = "a woman in an orange space suit"
SIDE = Side(caption=CAPTION)


def perco(**options: Any) -> PerCo:
    return PerCo(**{"weights": "random", "steps": 2, **options})


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


# What is in the bitstream


@pytest.mark.parametrize("rate", list(POINTS))
def test_every_byte_is_counted_and_known_by_hand(rate: float, photograph: Image) -> None:
    image = np.ascontiguousarray(np.resize(photograph, (512, 512, 3)))
    made = perco(nominal=rate, posterior="mean").encode(image, SIDE)
    height, width, (seed, caption, indices) = unpack(made.data, 3)
    assert (height, width, seed) == (512, 512, b"\x00")
    bits = {0.0019: 512, 0.0024: 640, 0.0098: 2560, 0.0313: 8192, 0.0507: 13313, 0.0937: 24576, 0.1250: 32768}[rate]
    assert len(indices) == -(-bits // 8)
    assert caption == zlib.compress(CAPTION.encode(), 9)
    lengths = 3 + (len(indices) > 127)
    assert made.parts == {"header": 4 + lengths, "seed": 1, "caption": len(caption), "indices": len(indices)}
    assert sum(made.parts.values()) == len(made.data)
    side = 64 // POINTS[rate].stride
    found = fields.unpack_indices(indices, side * side, POINTS[rate].entries)
    assert len(np.unique(found)) > 5


def test_published_rates_stand_beside_by_their_own_rules(small: Image) -> None:
    made = perco(nominal=0.0098, caption_code="rank").encode(small, SIDE)
    legacy = json.loads(made.info["legacy"])
    text = zlib.compress(CAPTION.encode(), 9)
    assert legacy["indices"] == 16 * 10  # 128 x 128 pixels inside, 4 x 4 indices of 10 bits
    assert legacy["caption-zlib"] == 8 * len(text)
    assert legacy["perco"] == 8 * (len(text) + 21)
    parts = {0: pickle.dumps(text, 4), 1: pickle.dumps(bytes(21), 4), 2: pickle.dumps((70, 100), 4)}
    assert legacy["pickle"] == 8 * len(pickle.dumps(parts, 4))
    assert legacy["nominal"] == 0.0098 * 70 * 100
    assert legacy["headerless"] == 8 * (made.parts["caption"] + made.parts["indices"])
    assert made.parts["caption"] < len(text)
    # Of what is not sent nothing is counted.
    alone = json.loads(perco(nominal=0.0098, conditioning="spatial").encode(small, Side()).info["legacy"])
    assert (alone["perco"], alone["caption-zlib"]) == (8 * 21, 0)
    alone = json.loads(perco(nominal=0.0098, conditioning="text").encode(small, SIDE).info["legacy"])
    assert (alone["perco"], alone["indices"]) == (8 * len(text), 0)
    assert "nominal" not in alone


def test_all_ways_to_code_a_caption_paint_the_same(small: Image) -> None:
    made = {code: perco(caption_code=code).encode(small, SIDE) for code in fields.CAPTION_CODES}
    painted = {pixel_sha256(perco(caption_code=code).decode(one.data)) for code, one in made.items()}
    assert len(painted) == 1
    sizes = {code: one.parts["caption"] for code, one in made.items()}
    assert sizes["deflate"] == sizes["zlib"] - 6
    assert sizes["rank"] < sizes["fixed"]


# The decoder


def by_hand(codec: PerCo, data: bytes, caption: str, seed: int = 0) -> Image:
    """The published decoder written out, two passes of the U-Net in each step."""
    ready = codec.models()
    height, width, sections = unpack(data, 3 if codec.conditioning == "both" else 2)
    rows, columns = sampling.FRAME.padded(height, width)
    size = rows // 8, columns // 8
    net = ready
    with reproducible():
        local = torch.zeros(1, 12, *size)
        if codec.conditioning != "text":
            own = POINTS[codec.nominal]
            grid = size[0] // own.stride, size[1] // own.stride
            indices = fields.unpack_indices(sections[-1], grid[0] * grid[1], own.entries).reshape(grid)
            book, out = ready.hyper.quantizer._codebook.embed[0], ready.hyper.quantizer.project_out
            planes = (book[indices] @ out.weight.T + out.bias).permute(2, 0, 1)
            local = planes.repeat_interleave(own.stride, 1).repeat_interleave(own.stride, 2)[None]
        text = sampling.condition(net, net.vocabulary.encode(caption)).hidden
        empty = sampling.condition(net, []).hidden
        schedule = sampling.scheduler(net, codec.sampler, codec.steps)
        latents = torch.randn(4, *size, generator=torch.Generator("cpu").manual_seed(seed))[None]
        for time in schedule.timesteps:
            found = net.unet(torch.cat([latents, local], 1), time, text).sample
            if codec.guidance != "none":
                beside = torch.zeros_like(local) if codec.guidance == "text+spatial" else local
                away = net.unet(torch.cat([latents, beside], 1), time, empty).sample
                found = away + codec.guidance_scale * (found - away)
            latents = schedule.step(found, time, latents).prev_sample
        [image] = sampling.images_of(net, latents, height, width)
    return image


@pytest.mark.parametrize("guidance", ["none", "text", "text+spatial"])
@pytest.mark.parametrize("conditioning", ["both", "spatial", "text"])
def test_the_decoder_is_the_loop_written_out(guidance: str, conditioning: str, small: Image) -> None:
    codec = perco(nominal=0.0098, guidance=guidance, conditioning=conditioning, steps=3)
    data = codec.encode(small, SIDE).data
    painted = codec.decode(data)
    expected = by_hand(codec, data, "" if conditioning == "spatial" else CAPTION)
    assert np.abs(painted.astype(int) - expected).max() <= 1
    assert painted.std() > 5


def test_settings_change_what_they_should(small: Image, photograph: Image) -> None:
    data = perco().encode(small, SIDE).data
    height, width, (seed, caption, indices) = unpack(data, 3)
    others = unpack(perco().encode(np.ascontiguousarray(photograph[90:160, :100]), Side(caption="a red door")).data, 3)[
        2
    ]

    def painted(text: bytes = caption, local: bytes = indices, **options: Any) -> str:
        sections = {"caption": text, "indices": local}
        if gone := {"spatial": "caption", "text": "indices"}.get(options.get("conditioning", "both")):
            del sections[gone]
        return pixel_sha256(perco(**options).decode(pack(height, width, {"seed": seed, **sections}).data))

    ways = [{}, {"guidance": "none"}, {"guidance": "text+spatial"}, {"guidance_scale": 5.0}, {"steps": 3}]
    ways += [{"conditioning": "spatial"}, {"conditioning": "text"}, {"sampler": "ddim-trailing"}]
    assert len({painted(**options) for options in ways}) == len(ways)
    # Each kind of conditioning looks at its own section, and both look at both.
    assert len({painted(), painted(text=others[1]), painted(local=others[2])}) == 3
    assert painted(conditioning="spatial", local=others[2]) != painted(conditioning="spatial")
    assert painted(conditioning="text", text=others[1]) != painted(conditioning="text")
    # A scale of 1 is no guidance; without a caption guidance by text has nothing to leave out.
    assert painted(guidance_scale=1.0) == painted(guidance="none") == painted(guidance_scale=9.0, guidance="none")
    assert painted(conditioning="spatial", guidance_scale=9.0) == painted(conditioning="spatial", guidance="none")
    assert painted(conditioning="spatial", guidance="text+spatial") != painted(conditioning="spatial")


def test_steps_are_those_of_the_rate(photograph: Image) -> None:
    for rate, steps in ((0.0313, 20), (0.0507, 5)):
        data = perco(nominal=rate).encode(photograph[:64, :64], SIDE).data
        same = [pixel_sha256(perco(nominal=rate, steps=count).decode(data)) for count in (0, steps, steps + 1)]
        assert same[0] == same[1] != same[2]


def test_vectors_without_quantisation_are_closer_to_what_was_found(small: Image) -> None:
    codec = perco(quantised=False)
    made = codec.encode(small, SIDE)
    assert made.parts["vectors"] == 4 * 8 * 8 * 8  # 8 x 8 vectors of 8 numbers
    assert codec.decode(made.data).shape == small.shape
    ready = codec.models()
    with reproducible():
        mean = ready.hyper.directions(sampling.latents_of(ready, small))
    made = perco(quantised=False, posterior="mean").encode(small, SIDE)
    sent = fields.unpack_floats(unpack(made.data, 3)[2][2], (1, 8, 8, 8))
    assert np.array_equal(sent, mean.numpy())
    assert np.allclose(np.linalg.norm(sent, axis=-1), 1, atol=1e-5)


# Sizes, captions


@pytest.mark.parametrize("caption", ["", "naïve café, 日本 😀", "on and on " * 300])
@pytest.mark.parametrize("code", fields.CAPTION_CODES)
def test_any_caption_is_taken(code: str, caption: str, small: Image) -> None:
    codec = perco(caption_code=code, steps=1)
    made = codec.encode(small, Side(caption=caption))
    assert codec.decode(made.data).shape == small.shape


def test_no_caption_is_an_error_where_one_is_sent(small: Image) -> None:
    with pytest.raises(CodecError, match="got none; type captions=human"):
        perco().encode(small, Side())
    assert perco(conditioning="spatial").encode(small, Side()).parts.keys() == {"header", "seed", "indices"}


# Seeds, again elsewhere


def test_random_draws_are_seeded(small: Image) -> None:
    """Another run has other noise at the decoder, and another draw at the encoder."""
    found = [unpack(perco(nominal=0.125).encode(small, Side(CAPTION, seed)).data, 3)[2] for seed in (0, 7)]
    assert [one[0] for one in found] == [b"\x00", b"\x07"]
    assert found[0][2] != found[1][2]
    means = [unpack(perco(posterior="mean").encode(small, Side(CAPTION, seed)).data, 3)[2] for seed in (0, 7)]
    assert means[0][2] == means[1][2]


def test_half_the_precision_paints_nearly_the_same(small: Image) -> None:
    data = perco().encode(small, SIDE).data
    painted = [perco(precision=kind).decode(data).astype(int) for kind in ("float32", "bfloat16")]
    assert 0 < np.abs(painted[1] - painted[0]).mean() < 10


# Damage


def test_indices_of_another_size_are_refused(photograph: Image) -> None:
    height, width, (seed, caption, indices) = unpack(perco().encode(photograph[:60, :70], SIDE).data, 3)
    with pytest.raises(BitstreamError, match="indices among 256 are 32 bytes, found 31"):
        perco().decode(pack(height, width, {"seed": seed, "caption": caption, "indices": indices[1:]}).data)


# Configuration


def test_published_settings_are_the_defaults() -> None:
    codec = PerCo()
    assert (codec.guidance, codec.guidance_scale, codec.sampler, codec.conditioning) == ("text", 3.0, "ddim", "both")
    assert (codec.caption_code, codec.posterior, codec.precision, codec.quantised) == (
        "zlib",
        "sample",
        "float32",
        True,
    )
    assert {rate: one.steps for rate, one in POINTS.items()} == {
        **dict.fromkeys((0.0019, 0.0024, 0.0098, 0.0313), 20),
        **dict.fromkeys((0.0507, 0.0937, 0.1250), 5),
    }
    assert PerCo.rate.points == tuple(POINTS)
    assert [codec.rate.check("perco", rate) for rate in POINTS] == list(POINTS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, None),
        ({"guidance": "none"}, None),
        ({"conditioning": "spatial"}, None),
        ({"guidance": "text+spatial"}, "guidance=text+spatial"),
        ({"conditioning": "text", "quantised": False}, "conditioning=text"),
        ({"quantised": False, "guidance": "text+spatial"}, "guidance=text+spatial, quantised=false"),
    ],
)
def test_modes_that_were_not_trained_are_marked_in_rows(options: dict[str, Any], said: str | None) -> None:
    for weights in ("official", "random"):
        assert coder_of(PerCo(weights=weights, **options)).get("untrained") == said


def test_presets_can_be_built_and_their_rates_are_legal() -> None:
    classes: dict[str, Any] = {"perco": PerCo, "perco-image": PerCoImage, "sd-vae": StableDiffusionVAE}
    seen = {}
    for file in [*(ROOT / "conf" / "codec").glob("perco*.yaml"), ROOT / "conf" / "codec" / "sd-vae.yaml"]:
        conf = yaml.safe_load(file.read_text())
        assert conf["name"] == file.stem
        seen[file.stem] = conf
        cls = classes[conf["use"]]
        for rate in conf["rates"]:
            codec = cls(**{cls.rate.field: cls.rate.check(file.stem, rate)}, **conf["options"])
            assert weights_kind_of(codec) == "unpinned"
            assert isinstance(codec, Codec)
    assert set(seen) == {"perco", "perco-tokens", "perco-image", "sd-vae"}
    assert seen["perco"]["rates"] == list(POINTS)
    assert "public for 0.0019, 0.0313 and 0.1250 only" in seen["perco"]["title"]
    assert seen["sd-vae"]["role"] == "bound"
    assert seen["perco-image"]["fidelity"] == "paper"


def test_of_both_perco_alone_takes_a_caption_and_a_pipeline_is_loaded_once() -> None:
    assert PerCo.uses_caption
    assert not getattr(PerCoImage, "uses_caption", False)
    made = perco_codec.load_pipeline(0.0313, "random")
    perco().ready()
    assert perco_codec.load_pipeline(0.0313, "random") is made


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nominal": 0.0314}, OutOfRange, r"rate 0\.0314: 'perco' has nominal 0\.0019"),
        ({"guidance": "spatial"}, ConfigError, "guidance='spatial' is not legal; choose from 'none', 'text'"),
        ({"conditioning": "image"}, ConfigError, "conditioning='image' is not legal"),
        ({"caption_code": "gzip"}, ConfigError, "caption_code='gzip' is not legal"),
        ({"steps": -1}, ConfigError, "steps=-1 must be a whole number from 0"),
        ({"guidance_scale": -1}, ConfigError, "guidance_scale=-1 must be"),
        ({"quantised": "yes"}, ConfigError, "quantised='yes' is not legal"),
        ({"pipeline": "cmvl"}, ConfigError, "unknown pipeline 'cmvl'"),
        ({"sampler": "ddpm"}, ConfigError, "sampler='ddpm' is not legal"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PerCo(**options)


@pytest.mark.slow
def test_the_command_line_runs_all_rates(rdpbench: Callable[..., Any], tmp_path: Path) -> None:
    """Encode, store, decode, score, decode again in a fresh process; captions are those of the samples."""
    from rdpbench.results.store.store import Store

    typed = ["run", "data=samples", "weights=random", "metrics=psnr", "workers=1", "run=perco"]
    done = rdpbench(*typed, "codec=perco", "codec.options.steps=1", "limit=2", code=0)
    assert "14 tasks coded" in done.stdout
    assert "8 of them decoded again in a fresh process to the same pixels" in done.stdout
    rdpbench(*typed, "codec=sd-vae", "limit=1", code=0)
    rdpbench(*typed, "codec=perco-image", "codec.options.guidance=text+spatial", "rate=0.0507", "limit=1", code=0)
    rows = list(Store(tmp_path / "results" / "runs" / "perco").read().rows.values())
    assert {row.rate for row in rows if row.use == "perco"} == set(POINTS)
    assert {row.rate for row in rows if row.use == "sd-vae"} == {8, 16, 32}
    assert {row.weights for row in rows} == {"random"}
    assert {json.loads(row.coder).get("untrained") for row in rows} == {None, "guidance=text+spatial"}
    assert {row.codec for row in rows} == {
        "perco[steps=1][weights=random]",
        "sd-vae[weights=random]",
        "perco-image[guidance=text+spatial][weights=random]",
    }

"""PIC on tiny networks of the real classes: every byte counted, the chosen candidate is what is decoded."""

from __future__ import annotations

import json
import math
import sys
import zlib
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench import progress
from rdpbench.codecs.container import unpack
from rdpbench.codecs.contract import Side, coder_of
from rdpbench.codecs.diffusion import bases, fields, models, pic
from rdpbench.codecs.diffusion.bases import byte_vocabulary
from rdpbench.codecs.diffusion.codec import Unfinished
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.codecs.diffusion.library import diffusers
from rdpbench.codecs.diffusion.pic import PIC, pez
from rdpbench.errors import (
    ConfigError,
    MissingNeed,
    OutOfRange,
    UnknownName,
)
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.clip import unit

pytestmark = pytest.mark.usefixtures("alone")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def tiny_pic(**options: Any) -> PIC:
    return PIC(**{"weights": "random", "steps": 2, "search_steps": 5, "candidates": 3, **options})


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


# What is in the bitstream


@pytest.mark.parametrize("code", fields.CODES)
def test_every_byte_is_counted_and_known_by_hand(code: str, photograph: Image) -> None:
    image = np.ascontiguousarray(np.resize(photograph, (512, 768, 3)))
    made = tiny_pic(tokens=code, candidates=1, search_steps=1).encode(image, Side())
    height, width, (seed, prompt) = unpack(made.data, 2)
    assert (height, width, seed) == (512, 768, b"\x00")
    assert made.parts == {"header": 6, "seed": 1, "prompt": len(prompt)}
    assert sum(made.parts.values()) == len(made.data)
    if code == "fixed":
        assert len(prompt) == 32
        assert len(made.data) == 39
    elif code == "rank":
        assert len(prompt) == math.ceil(16 * math.log2(514) / 8) == 19
    else:
        assert zlib.decompress(prompt).decode() == made.info["prompt"]


def test_the_published_rate_stands_beside_by_its_own_rules(small: Image) -> None:
    made = tiny_pic(candidates=4, tokens="rank").encode(small, Side())
    legacy = json.loads(made.info["legacy"])
    text = zlib.compress(made.info["prompt"].encode())
    assert legacy["text-sketch"] == sys.getsizeof(text) * 8 + math.log2(4)
    assert legacy["tokens-fixed"] == 256
    assert legacy["tokens-rank"] == math.ceil(16 * math.log2(514)) == 145
    assert legacy["index"] == 2


@pytest.mark.parametrize("length", [1, 16, 64])
def test_the_rate_axis_is_the_length_of_the_prompt(length: int, small: Image) -> None:
    made = tiny_pic(prompt_length=length, candidates=1).encode(small, Side())
    assert made.parts["prompt"] == 2 * length
    assert tiny_pic(prompt_length=length).decode(made.data).shape == small.shape
    # Bytes tell the length: a codec set to another one decodes the same.
    assert pixel_sha256(tiny_pic(prompt_length=5).decode(made.data)) == pixel_sha256(tiny_pic().decode(made.data))


# The decoder


@pytest.mark.parametrize("code", fields.CODES)
@pytest.mark.parametrize("run", [0, 2])
def test_what_is_decoded_is_the_candidate_that_was_chosen(code: str, run: int, small: Image) -> None:
    codec = tiny_pic(tokens=code, candidates=5)
    made = codec.encode(small, Side(seed=run))
    [chosen] = unpack(made.data, 2)[2][0]
    assert run * 5 <= chosen < run * 5 + 5
    clip = models.clip_network(codec.clip, "random")
    [target] = unit(clip.image([small]))
    cosines = []
    for seed in range(run * 5, run * 5 + 5):
        painted = tiny_pic(tokens=code).decode(with_seed(made.data, seed))
        cosines.append(float(unit(clip.image([painted]))[0] @ target))
    assert len(set(cosines)) == 5
    assert int(np.argmax(cosines)) == chosen - run * 5
    assert float(made.info["candidate_cosine"]) == pytest.approx(max(cosines), abs=5e-5)
    assert with_seed(made.data, chosen) == made.data


def test_tokens_that_are_sent_as_ids_are_the_ones_that_were_found(small: Image) -> None:
    found = {}
    for code in fields.CODES:
        section = unpack(tiny_pic(tokens=code).encode(small, Side(seed=4)).data, 2)[2][1]
        found[code] = fields.unpack_tokens(section, code, byte_vocabulary())
    clip = models.clip_network(tiny_pic().clip, "random")
    [expected] = pez.invert(pez.PromptSpace(clip), [small], [4], pez.PromptSearch(16, 5))
    assert found["fixed"] == found["rank"] == list(expected.ids)
    # Text is taken apart differently: what comes back is what conditions the decoder, and nothing hides that.
    assert found["zlib-text"] != list(expected.ids)
    assert found["zlib-text"] == byte_vocabulary().encode(byte_vocabulary().decode(expected.ids))


def test_prompt_suffix_and_negative_words_change_the_picture(small: Image) -> None:
    data = tiny_pic().encode(small, Side()).data
    other = tiny_pic(search_steps=6).encode(small, Side(seed=9)).data
    pictures = [tiny_pic().decode(data), tiny_pic().decode(with_seed(other, data[3])), tiny_pic(suffix="").decode(data)]
    pictures += [tiny_pic(negative="").decode(data), tiny_pic(guidance=1).decode(data), tiny_pic(steps=3).decode(data)]
    assert len({pixel_sha256(one) for one in pictures}) == len(pictures)
    assert all(one.std() > 10 for one in pictures)


@pytest.mark.parametrize(
    ("base", "precision"),
    [("sd-1.5", "float32"), ("sd-2.1", "bfloat16"), ("sd-turbo", "float32"), ("sdxl", "bfloat16")],
)
def test_any_base_model_paints(base: str, precision: str, small: Image) -> None:
    options = {"sampler": "euler-trailing", "guidance": 0, "steps": 1} if base == "sd-turbo" else {}
    codec = tiny_pic(base=base, precision=precision, **options)
    made = codec.encode(small, Side())
    assert codec.decode(made.data).std() > 10


def test_candidates_painted_together_differ_by_little(small: Image) -> None:
    one, many = (tiny_pic(candidates=6, candidate_batch=batch) for batch in (1, 4))
    ready = many.models()
    with torch.inference_mode():
        alone = [next(iter(one.generate(ready, [seed], [1, 2], 70, 100))) for seed in range(4)]
        together = list(many.generate(ready, range(4), [1, 2], 70, 100))
    assert max(np.abs(first.astype(int) - second).max() for first, second in zip(alone, together, strict=True)) <= 1
    assert many.encode(small, Side()).parts == one.encode(small, Side()).parts


def test_images_in_a_batch_have_the_prompts_that_they_have_alone(photograph: Image) -> None:
    images = [np.ascontiguousarray(photograph[:70, :100]), np.ascontiguousarray(photograph[::-1])]
    codec = tiny_pic(search_steps=3)
    together = codec.encode_batch(images, [Side(seed=1), Side(seed=2)])
    alone = [codec.encode(image, Side(seed=seed)) for image, seed in zip(images, (1, 2), strict=True)]
    assert [one.data for one in together] == [one.data for one in alone]


# Again, elsewhere


def test_a_killed_encode_goes_on(
    small: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = tiny_pic(search_steps=12)
    whole = codec.encode(small, Side()).data
    assert not list(Unfinished({}).path.parent.glob("*"))
    monkeypatch.setattr(pic, "Unfinished", partial(Unfinished, every_s=0))
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    advance, steps = pez.SearchedPrompts.advance, []

    def killed(state: pez.SearchedPrompts) -> None:
        if state.step == 7 and len(steps) < 8:
            raise KeyboardInterrupt
        steps.append(state.step)
        advance(state)

    monkeypatch.setattr(pez.SearchedPrompts, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        codec.encode(small, Side())
    assert len(list(Unfinished({}).path.parent.glob("*.safetensors"))) == 1
    steps.append(-1)
    assert codec.encode(small, Side()).data == whole
    assert steps == [*range(7), -1, *range(7, 12)]
    assert not list(Unfinished({}).path.parent.glob("*"))
    told = capsys.readouterr().err
    assert "pic: prompt search: 12/12 steps, cosine 0." in told


# Configuration


def test_published_settings_are_the_defaults() -> None:
    codec = PIC()
    assert (codec.base, codec.sampler, codec.steps, codec.guidance) == ("sd-2.1-base", "dpm-solver++", 25, 9.0)
    assert (codec.prompt_length, codec.candidates, codec.search_steps) == (16, 4, 3000)
    assert (codec.learning_rate, codec.weight_decay, codec.suffix) == (0.1, 0.1, ", high quality")
    assert codec.clip == models.H14.id
    assert codec.negative.startswith("disfigured, deformed, low quality")


def test_random_weights_search_for_few_steps_unless_told() -> None:
    assert PIC(weights="random").search_steps == 30
    assert PIC(weights="random", search_steps=3000).search_steps == 3000
    assert PIC(weights="random-full").search_steps == 3000
    assert asdict(PIC(weights="random"))["search_steps"] == 30
    assert replace(PIC(weights="random"), steps=2).search_steps == 30
    with pytest.raises(ConfigError, match="search_steps=False must be"):
        PIC(search_steps=False)


def test_presets_can_be_built_and_their_rates_are_legal() -> None:
    seen = set()
    for file in sorted((ROOT / "conf" / "codec").glob("pic*.yaml")):
        conf = yaml.safe_load(file.read_text())
        if conf["use"] != "pic":
            continue
        seen.add(file.stem)
        assert conf["name"] == file.stem
        for rate in conf["rates"]:
            codec = PIC(prompt_length=PIC.rate.check("pic", rate), **conf["options"])
            assert codec.weights_kind() == "unpinned"
            assert PIC(prompt_length=rate, **conf["options"] | {"weights": "random"}).weights_kind() == "random"
    assert seen == {"pic", "pic-published", "pic-sdxl", "pic-turbo"}


def test_absent_weights_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Image) -> None:
    for name in ("RDPBENCH_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    codec = PIC()
    told = "\n".join(str(need.missing()) for need in codec.weight_needs())
    for file in ("unet/diffusion_pytorch_model.safetensors", "bpe_simple_vocab_16e6.txt.gz", "CLIP-ViT-H-14"):
        assert file in told
    with pytest.raises(MissingNeed, match=r"Stable Diffusion 2\.1 at 512 pixels"):
        codec.encode(small, Side())
    assert coder_of(codec)["base"].startswith("unpinned:")
    assert coder_of(codec)["clip"] == "sha256:036e6e2bd49697511f4f8b8cb5ee465f93025f7a69a145eadeb9a881ace9b18d"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": "text"}, "tokens='text' is not legal"),
        ({"sampler": "ddpm"}, "sampler='ddpm' is not legal"),
        ({"candidates": 0}, "candidates=0 must be a whole number from 1"),
        ({"candidates": True}, "candidates=True must be"),
        ({"steps": 0}, "steps=0 must be"),
        ({"guidance": -1}, "guidance=-1 must be"),
        ({"learning_rate": 0}, "learning_rate=0 must be above 0"),
        ({"precision": "float64"}, "precision='float64' is not legal"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PIC(**options)


def test_names_that_are_not_known_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"prompt_length 1\.\.64"):
        PIC(prompt_length=65)
    with pytest.raises(UnknownName, match=r"did you mean 'sd-2\.1-base'"):
        PIC(base="sd-21-base")
    with pytest.raises(UnknownName, match="clip-vit-h-14"):
        PIC(clip="vit-h-14")


def test_weights_of_the_users_own_run_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Image
) -> None:
    """The way of official weights, with CLIP's whole vocabulary: folders, table, strict loading, hashes."""
    package = pytest.importorskip("open_clip", reason="open_clip_torch carries the byte-pair table")
    table = Path(package.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / table.name).write_bytes(table.read_bytes())
    narrow = models.layout("sd-2.1-base", "random")
    sizes = bases.BaseSizes(narrow.unet, narrow.vae, narrow.texts, (0,), narrow.schedule, 49408)
    made = {
        "unet": diffusers.UNet2DConditionModel.from_config(dict(sizes.unet)),
        "vae": diffusers.AutoencoderKL.from_config(dict(sizes.vae)),
        "text_encoder": models.text_tower(sizes, 0),
    }
    for seed, (part, network) in enumerate(made.items()):
        models.draw_weights(network, seed).save_pretrained(tmp_path / "base" / part)
    diffusers.PNDMScheduler(prediction_type="v_prediction").save_pretrained(tmp_path / "base" / "scheduler")
    ends = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    both = {"projection_dim": 24, "text_config": {**models.CLIP_TEXT, **ends}, "vision_config": models.CLIP_VISION}
    models.draw_weights(models.clip_model(both), seed=9).save_pretrained(tmp_path / "clip")
    options = {"base": str(tmp_path / "base"), "clip": str(tmp_path / "clip"), "steps": 2, "search_steps": 3}
    for code, size in (("fixed", 32), ("rank", 32), ("zlib-text", None)):
        codec = PIC(**options, tokens=code)
        bitstream = codec.encode(small, Side())
        assert size is None or bitstream.parts["prompt"] == size
        assert json.loads(bitstream.info["legacy"])["tokens-rank"] == 250
        assert codec.decode(bitstream.data).shape == small.shape
        assert codec.weights_kind() == "own"
        assert coder_of(codec)["base"].startswith("sha256:")
        assert coder_of(codec)["base"] != coder_of(codec)["clip"]

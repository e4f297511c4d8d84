"""Textual inversion on tiny networks of the real classes: every byte counted, the guide pulls, seeds are samples."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as pil

from rdpbench import progress
from rdpbench.codecs.classical.pillow import WebP
from rdpbench.codecs.container import unpack
from rdpbench.codecs.contract import Side, coder_of
from rdpbench.codecs.diffusion import textual_inversion as codec_module
from rdpbench.codecs.diffusion import textual_inversion as guiding
from rdpbench.codecs.diffusion.codec import Unfinished
from rdpbench.codecs.diffusion.textual_inversion import TextualInversion
from rdpbench.codecs.diffusion.textual_inversion import vectors as coding
from rdpbench.codecs.diffusion.textual_inversion import vectors as searching
from rdpbench.errors import (
    BitstreamError,
    ConfigError,
    MissingNeed,
    OutOfRange,
    UnknownName,
)
from rdpbench.image import Image, pixel_sha256

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STRENGTHS = (0.0, 0.5, 2.0)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(searching, "PROBES", 1)  # it is only told of, and takes most of a short encode
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**options: Any) -> TextualInversion:
    return TextualInversion(**{"weights": "random", "steps": 2, "search_steps": 3, **options})


@pytest.fixture
def small(photograph: Image) -> Image:
    """One that is generated at 64 x 64."""
    return np.ascontiguousarray(photograph[60:120, 40:103])


# What is in the bitstream


def test_every_byte_is_counted_and_known_by_hand(photograph: Image) -> None:
    image = np.ascontiguousarray(photograph[:62, :190])
    made = tiny(search_steps=1, vectors=4, guide_bpp=0.4).encode(image, Side(seed=5))
    height, width, (seed, vectors, guide) = unpack(made.data, 3)
    assert (height, width, seed) == (62, 190, b"\x05")
    # The guide is what the codec named makes of the image in means of 4 x 4 pixels.
    whole = np.pad(image, ((0, 2), (0, 2), (0, 0)), mode="edge")
    means = whole.reshape(16, 4, 48, 4, 3).astype(float).mean(axis=(1, 3))
    due = np.floor(means + 0.5).astype(np.uint8)
    at = [WebP(quality=one).encode(due, Side()).data for one in (guide[0], guide[0] + 1)]
    assert guide[1:] == at[0]
    assert 1 + len(at[0]) <= 0.4 * 62 * 190 / 8 < 1 + len(at[1])
    # Tiny models have vectors of 32: at one bit each, 4 of them are 128 bits at most.
    assert len(vectors) <= 3 + 128 // 8
    assert vectors[0] == 4
    lengths = 1 + 1 + 2
    assert len(guide) > 127
    assert made.parts == {"header": 1 + 2 + lengths, "seed": 1, "vectors": len(vectors), "guide": len(guide)}
    assert sum(made.parts.values()) == len(made.data)


def test_other_codes_of_the_vectors_stand_beside(small: Image) -> None:
    made = tiny(vectors=6, bits=2).encode(small, Side())
    symbols, _ = coding.read_section(unpack(made.data, 3)[2][1], 32)
    legacy = json.loads(made.info["legacy"])
    levels = symbols.max() - symbols.min() + 1
    assert legacy["vectors-half-precision"] == 16 * 6 * 32
    assert legacy["vectors-fixed-length"] == 6 * 32 * math.ceil(math.log2(levels))
    assert legacy["vectors-entropy"] <= 8 * (made.parts["vectors"] - 3)


@pytest.mark.parametrize("vectors", [1, 16, 75])
@pytest.mark.parametrize("bits", [0.5, 3])
def test_the_rate_axis_is_the_number_of_vectors(vectors: int, bits: float, small: Image) -> None:
    made = tiny(vectors=vectors, bits=bits).encode(small, Side())
    budget = math.ceil(vectors * 32 * bits / 8)
    assert made.parts["vectors"] <= 3 + budget
    assert vectors == 1 or made.parts["vectors"] > 0.8 * budget
    # Bytes tell the number: a codec set to another one decodes the same.
    assert pixel_sha256(tiny(vectors=5).decode(made.data)) == pixel_sha256(tiny().decode(made.data))


def kodak_guides(shared: Path) -> list[tuple[int, int]]:
    """Pixels of each image of Kodak, and bytes of its guide with the defaults."""
    codec = TextualInversion()
    coder = codec.guide_coder()
    assert coder is not None
    folder = shared / "data" / "kodak"
    files = sorted(folder.glob("*.png"))
    if len(files) != 24:
        pytest.skip("the 24 images of Kodak are not here")
    found = []
    for file in files:
        image = np.asarray(pil.open(file).convert("RGB"))
        section = codec.coded_guide(image, Side())
        assert coder.decode(section).shape == guiding.small(image, 4).shape
        found.append((image.shape[0] * image.shape[1], len(section)))
    return found


def test_the_default_lands_at_seven_hundredths_on_kodak(shared: Path) -> None:
    """Guides are coded; of the vectors the budget is counted whole, which no search exceeds."""
    codec = TextualInversion()
    vectors = 3 + math.ceil(codec._search().budget(768) / 8)
    assert vectors == 1539
    rates = []
    for pixels, guide in kodak_guides(shared):
        header = 2 + 2 + 1 + 2 + 2  # sizes, and lengths of seed, vectors and guide
        rates.append(8 * (header + 1 + vectors + guide) / pixels)
    assert 0.068 < float(np.mean(rates)) < 0.07
    assert 0.065 < min(rates) < max(rates) < 0.0701


# The decoder


@pytest.mark.parametrize(
    ("base", "sampler", "left"),
    [
        ("sd-1.5", "ddim", 0.98),  # this tiny model's latents are large, and a step is small beside them
        ("sd-2.1", "ddim", 0.5),
        ("sd-2.1", "dpm-solver++", 0.5),
        ("sd-2.1", "euler", 0.5),
    ],
)
def test_a_stronger_guide_is_followed_more_closely(base: str, sampler: str, left: float, small: Image) -> None:
    """Of what is decoded the means are nearer to the guide for each of three strengths below overshoot."""
    made = tiny(base=base).encode(small, Side())
    guide = WebP().decode(unpack(made.data, 3)[2][2][1:]).astype(float)
    away = []
    for strength in STRENGTHS:
        decoded = tiny(base=base, steps=10, sampler=sampler, compression_guidance=strength).decode(made.data)
        away.append(float(np.square(guiding.small(decoded, 4) - guide).mean()))
    assert away == sorted(away, reverse=True), away
    assert len(set(away)) == len(STRENGTHS)
    assert away[-1] < left * away[0]


def test_vectors_guidance_and_sampler_change_the_picture(small: Image) -> None:
    data = tiny(search_steps=10, learning_rate=0.1).encode(small, Side()).data
    nothing = tiny(search_steps=1, learning_rate=1e-9).encode(small, Side()).data
    pictures = [tiny().decode(data), tiny().decode(nothing), tiny(guidance=1).decode(data)]
    pictures += [tiny(guidance=7).decode(data), tiny(sampler="unipc").decode(data), tiny(steps=3).decode(data)]
    pictures += [tiny(negative="blurry").decode(data), tiny(compression_guidance=0).decode(data)]
    assert len({pixel_sha256(one) for one in pictures}) == len(pictures)
    assert all(one.std() > 10 for one in pictures)


@pytest.mark.parametrize(("base", "precision"), [("sd-2.1", "bfloat16"), ("sdxl", "float32")])
def test_any_base_model_learns_and_paints(
    base: str, precision: str, small: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PROBES", 8)
    codec = tiny(base=base, precision=precision, search_steps=15, learning_rate=0.05)
    made = codec.encode(small, Side())
    assert codec.decode(made.data).std() > 10
    assert float(made.info["error"]) < float(made.info["error_of_no_words"])


@pytest.mark.parametrize(
    ("guide", "rate", "factor"),
    [("jpeg", 0, 8), ("hevc", 0, 2), ("jpegxl", 3, 2), ("cheng2020-anchor", 1, 1), ("none", 0, 4)],
)
def test_any_codec_codes_the_guide(guide: str, rate: float, factor: int, small: Image) -> None:
    own = {"guide_codec": guide, "guide_rate": rate, "guide_factor": factor, "guide_bpp": 4.0, "steps": 3}
    codec = tiny(**own)
    made = codec.encode(small, Side())
    assert (made.parts["guide"] > 0) == (guide != "none")
    assert rate or made.parts["guide"] <= 4 * 60 * 63 / 8
    followed, free = (tiny(**own, **other).decode(made.data) for other in ({}, {"compression_guidance": 0}))
    assert np.array_equal(followed, free) == (guide == "none")
    assert any(name.startswith("guide ") for name in coder_of(codec)) == (guide != "none")


@pytest.mark.slow
def test_at_full_width_vectors_fill_their_bytes_and_the_pull_goes_through_the_decoder(
    small: Image,
) -> None:
    """Stable Diffusion 1.5's own sizes with random weights: 16 vectors of 768, in 1536 bytes of code at most."""
    options: dict[str, Any] = {"weights": "random-full", "steps": 1, "search_steps": 2, "search_batch": 1}
    codec = TextualInversion(**options)
    assert codec.models().unet.config.cross_attention_dim == 768
    made = codec.encode(small, Side())
    # After two steps most values are nearly equal, and no step splits them so that the budget is full.
    assert 1400 < made.parts["vectors"] <= 1539
    assert json.loads(made.info["legacy"])["vectors-half-precision"] == 8 * 24576
    followed = codec.decode(made.data)
    free = TextualInversion(**options, compression_guidance=0).decode(made.data)
    assert followed.shape == free.shape == small.shape
    assert not np.array_equal(followed, free)


# Again, elsewhere


def test_a_killed_encode_goes_on_to_the_same_bytes(
    small: Image, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = tiny(search_steps=8)
    whole = codec.encode(small, Side(seed=2)).data
    assert not list(Unfinished({}).path.parent.glob("*"))
    monkeypatch.setattr(codec_module, "Unfinished", partial(Unfinished, every_s=0))
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0)
    advance, steps = searching.SearchedVectors.advance, []

    def killed(state: searching.SearchedVectors) -> None:
        if state.step == 5 and len(steps) < 6:
            raise KeyboardInterrupt
        steps.append(state.step)
        advance(state)

    monkeypatch.setattr(searching.SearchedVectors, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        codec.encode(small, Side(seed=2))
    assert len(list(Unfinished({}).path.parent.glob("*.safetensors"))) == 1
    steps.append(-1)
    assert tiny(search_steps=8, compression_guidance=2.0).encode(small, Side(seed=2)).data == whole
    assert steps == [0, 1, 2, 3, 4, -1, 5, 6, 7]
    assert not list(Unfinished({}).path.parent.glob("*"))
    assert "textual-inversion: vectors: 8/8 steps, error " in capsys.readouterr().err


ENCODE = """
import sys
from functools import partial
import numpy as np
import torch
from rdpbench.codecs.diffusion import textual_inversion as codec_module
from rdpbench.codecs.contract import Side

torch.set_num_threads(1)
codec_module.Unfinished = partial(codec_module.Unfinished, every_s=0)


class EveryStep(codec_module.Progress):
    def __call__(self, done, total=0, note=""):
        self.say(f"vectors, step {done} of {self.total}")


codec_module.Progress = EveryStep
codec = codec_module.TextualInversion(weights="random", steps=2, search_steps=40)
data = codec.encode(np.load(sys.argv[1]), Side(seed=1)).data
sys.stdout.write(data.hex())
"""


@pytest.mark.slow
def test_a_process_killed_in_a_long_encode_is_taken_up_by_the_next(tmp_path: Path, small: Image) -> None:
    """SIGKILL, which nothing can catch; the next process starts after the last step that was written."""
    np.save(tmp_path / "image.npy", small)
    line = [sys.executable, "-c", ENCODE, str(tmp_path / "image.npy")]
    started = partial(subprocess.Popen, line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def environment(cache: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "RDPBENCH_CACHE": str(tmp_path / cache)}

    with started(env=environment("whole")) as process:
        whole, told = process.communicate(timeout=300)
    assert told.count("vectors, step") == 40
    with started(env=environment("killed")) as process:
        assert process.stderr is not None
        while "step 20 of" not in process.stderr.readline():
            assert process.poll() is None
        process.kill()
        assert process.communicate(timeout=300)[0] == ""
    with started(env=environment("killed")) as process:
        again, told = process.communicate(timeout=300)
    assert again == whole
    assert len(whole) > 100
    assert told.count("vectors, step") <= 21


def test_a_sweep_over_the_decoder_searches_once(small: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = []
    search = searching.search

    def counted(*given: Any, **options: Any) -> Any:
        searches.append(1)
        return search(*given, **options)

    monkeypatch.setattr(codec_module, "search", counted)
    plain = tiny().encode(small, Side()).data
    reused = [
        tiny(reuse=True, compression_guidance=strength, guidance=scale).encode(small, Side()).data
        for strength in (0, 2)
        for scale in (1, 5)
    ]
    assert len(searches) == 2
    assert {plain} == set(reused)
    # What enters the search is searched again: another image, seed, number or bits; and without being asked, always.
    for codec in (tiny(reuse=True, vectors=3), tiny(reuse=True, bits=2), tiny(reuse=True, base="sd-2.1"), tiny()):
        codec.encode(small, Side())
    tiny(reuse=True).encode(small, Side(seed=1))
    tiny(reuse=True).encode(small[::-1].copy(), Side())
    assert len(searches) == 8
    # Timings encode again with one object: these are whole encodes.
    timed = tiny(reuse=True)
    assert [timed.encode(small, Side()).data for _ in range(3)] == [plain] * 3
    assert len(searches) == 10


# Damage


def test_a_guide_of_another_size_is_refused(photograph: Image) -> None:
    data = tiny().encode(photograph[:60, :70], Side()).data
    with pytest.raises(BitstreamError):
        tiny().decode(b"\x20" + data[1:])
    # One row less: the guide stays as large.
    assert tiny().decode(b"\x3b" + data[1:]).shape == (59, 70, 3)
    with pytest.raises(BitstreamError, match="where none is due"):
        tiny(guide_codec="none").decode(data)


# Configuration


def test_defaults_are_spelled_out_and_random_weights_take_few_steps() -> None:
    codec, random = TextualInversion(), TextualInversion(weights="random")
    assert (codec.base, codec.sampler, codec.steps, codec.search_steps) == ("sd-1.5", "ddim", 50, 1000)
    assert (random.steps, random.search_steps) == (4, 5)
    assert (codec.vectors, codec.bits, codec.guide_codec, codec.guide_bpp) == (16, 1.0, "webp", 0.0385)
    own = TextualInversion(weights="random", steps=50, search_steps=1000)
    assert (own.steps, own.search_steps) == (50, 1000)
    assert TextualInversion(weights="random-full").search_steps == 1000


def test_the_preset_is_the_default_and_its_rates_are_legal() -> None:
    conf = yaml.safe_load((ROOT / "conf" / "codec" / "textual-inversion.yaml").read_text())
    assert conf["name"] == conf["use"] == "textual-inversion"
    assert TextualInversion(**conf["options"]) == TextualInversion()
    for rate in conf["rates"]:
        assert TextualInversion(vectors=TextualInversion.rate.check("ti", rate)).weights_kind() == "unpinned"
    sweep = yaml.safe_load((ROOT / "conf" / "experiment" / "textual-inversion-3.yaml").read_text())
    axes = dict(line.split("=", 1) for line in sweep)
    assert axes["codec.options.reuse"] == "true"
    made = {
        TextualInversion(compression_guidance=float(s_c), guidance=float(s_f), reuse=True)
        for s_c in axes["codec.options.compression_guidance"].split(",")
        for s_f in axes["codec.options.guidance"].split(",")
    }
    counts = [len(axes[f"codec.options.{name}"].split(",")) for name in ("compression_guidance", "guidance")]
    assert len(made) == math.prod(counts) >= 9


def test_absent_weights_are_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Image) -> None:
    for name in ("RDPBENCH_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    codec = TextualInversion()
    with pytest.raises(MissingNeed, match=r"Stable Diffusion 1\.5"):
        codec.encode(small, Side())
    assert coder_of(codec)["base"].startswith("unpinned:")
    assert "guide libwebp" in coder_of(codec)
    assert tiny(guide_codec="cheng2020-anchor", guide_rate=1).weights_kind() == "random"
    learned = TextualInversion(guide_codec="cheng2020-anchor", guide_rate=1)
    assert len(learned.weight_needs()) > len(codec.weight_needs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 0}, "bits=0 must be from 0.01 to 16"),
        ({"compression_guidance": -1}, "compression_guidance=-1 must be from 0"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be"),
        ({"search_batch": 0}, "search_batch=0 must be a whole number from 1"),
        ({"search_steps": True}, "search_steps=True must be"),
        ({"steps": -1}, "steps=-1 must be"),
        ({"guide_factor": 3}, "guide_factor=3 is not legal; choose from 1, 2, 4"),
        ({"guide_codec": "cheng2020-anchor"}, "cannot be fitted to guide_bpp; set guide_rate, its quality"),
        ({"guide_codec": "jpegxl"}, "cannot be fitted to guide_bpp; set guide_rate, its distance"),
        ({"guide_bpp": -1}, "guide_bpp=-1 must be from 0"),
        ({"reuse": "yes"}, "reuse='yes' is not legal"),
        ({"sampler": "ddpm"}, "sampler='ddpm' is not legal"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TextualInversion(**options)


def test_names_and_rates_that_are_not_known_are_refused() -> None:
    with pytest.raises(OutOfRange, match=r"vectors 1\.\.75"):
        TextualInversion(vectors=76)
    with pytest.raises(UnknownName, match=r"did you mean 'webp'"):
        TextualInversion(guide_codec="wepb")
    with pytest.raises(OutOfRange, match=r"quality 0\.\.100"):
        TextualInversion(guide_rate=101)

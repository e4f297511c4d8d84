"""What every generative codec must do: seeds are samples, sizes come back, another process paints the same pixels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rdpbench import registry
from rdpbench.codecs.contract import Codec, Side, coder_of, facts_of, weights_kind_of
from rdpbench.codecs.diffusion.codec import DiffusionCodec, SamplingCodec
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.errors import BitstreamError, CodecError, MissingNeed, UnsupportedImage
from rdpbench.image import Image, pixel_sha256

pytestmark = pytest.mark.usefixtures("alone")
QUICK: dict[str, dict[str, Any]] = {
    "pic": {"steps": 2, "search_steps": 3, "candidates": 2},
    "pics": {"steps": 2, "search_steps": 3, "candidates": 2},
    "pics-sketch": {"steps": 2, "search_steps": 3, "candidates": 2},
    "textual-inversion": {"steps": 2, "search_steps": 3},
    "perco": {"steps": 2},
    "perco-image": {"steps": 2},
    "sd-vae": {},
}
"""Every generative codec, with options that make it quick."""
SEEDED = [name for name in QUICK if name != "sd-vae"]
FOREIGN: dict[str, list[dict[str, Any]]] = {
    "pic": [{"tokens": "zlib-text"}, {"sampler": "euler-ancestral-trailing"}, {"base": "sdxl", "tokens": "rank"}],
    "pics": [{"sketch_lambda": 0.5, "tokens": "rank"}, {"portable": True, "tokens": "zlib-text"}],
    "pics-sketch": [{}, {"base": "sdxl", "sketch_codec": "webp"}],
    "textual-inversion": [
        *({}, {"compression_guidance": 2.0, "guidance": 7.5}, {"base": "sd-2.1"}),
        {"sampler": "euler-ancestral-trailing"},
    ],
    "perco": [
        {"nominal": 0.0019},
        {"nominal": 0.125, "caption_code": "rank", "guidance": "text+spatial"},
        {"quantised": False, "sampler": "euler-ancestral-trailing"},
    ],
    "perco-image": [{"nominal": 0.0507}],
    "sd-vae": [{"bits": 8}],
}
"""Options that change what is sent or how it is painted."""


def quick(name: str, **options: Any) -> Any:
    return registry.load("codec", name)(**{"weights": "random", **QUICK[name], **options})


def side(seed: int = 0) -> Side:
    return Side("a woman in an orange space suit", seed)


@pytest.fixture
def small(photograph: Image) -> Image:
    return np.ascontiguousarray(photograph[:70, :100])


def test_these_are_all() -> None:
    classes = {name: registry.load("codec", name) for name in registry.BUILTIN["codec"]}
    assert {name for name, cls in classes.items() if issubclass(cls, DiffusionCodec)} == {*QUICK}
    assert {name for name, cls in classes.items() if issubclass(cls, SamplingCodec)} == {*SEEDED}


@pytest.mark.parametrize("name", QUICK)
def test_the_contract_is_kept(name: str, small: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RDPBENCH_WEIGHTS", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    official, random = registry.load("codec", name)(), quick(name)
    assert isinstance(random, Codec)
    assert all(need.missing() is None for need in facts_of(type(random)).needs)
    assert all(need.missing() is None for need in random.weight_needs())
    assert weights_kind_of(random) == "random"
    assert "random" in coder_of(random).values()
    assert facts_of(type(random)).stochastic == (name in SEEDED)
    # Without its files it says which, and no hash of them is published.
    told = " ".join(str(need.missing()) for need in official.weight_needs())
    assert re.search(r"(unet|vae)/diffusion_pytorch_model|PerCo", told)
    assert weights_kind_of(official) == "unpinned"
    with pytest.raises(MissingNeed):
        official.encode(small, side())


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 63), (40, 300)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in QUICK),
        *(("perco", {"nominal": rate}) for rate in (0.0019, 0.0507)),
        *(("sd-vae", {"bits": bits}) for bits in (8, 32)),
    ],
)
def test_any_size_comes_back(name: str, options: dict[str, Any], size: tuple[int, int], photograph: Image) -> None:
    image = np.resize(photograph, (*size, 3))
    if size == (65, 63):
        image = np.full_like(image, 90)
    made = quick(name, steps=1, **options) if "steps" in QUICK[name] else quick(name, **options)
    coded = made.encode(image, side())
    assert sum(coded.parts.values()) == len(coded.data)
    assert made.decode(coded.data).shape == image.shape


@pytest.mark.parametrize("name", SEEDED)
def test_seeds_are_all_that_is_drawn_by(name: str, small: Image) -> None:
    torch.manual_seed(1)
    made = quick(name).encode(small, side(3))
    data = made.data
    torch.manual_seed(2)
    assert quick(name).encode(small, side(3)).data == data
    assert quick(name).encode(small, side(4)).data != data
    # Another seed in the container is another sample of the same bitstream, and so is one of the caller's.
    codec = quick(name)
    hashes = [pixel_sha256(codec.decode(with_seed(data, seed))) for seed in (10, 11, 2**40, 10)]
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]
    assert [pixel_sha256(codec.decode(data, seed=seed)) for seed in (10, 11, 2**40)] == hashes[:3]
    assert np.array_equal(codec.decode(data, seed=None), codec.decode(data))
    with pytest.raises(CodecError, match="is not within 0 and"):
        codec.encode(small, side(-1))
    with pytest.raises(CodecError, match="is not within 0 and"):
        codec.decode(data, seed=-1)


@pytest.mark.parametrize("name", QUICK)
def test_other_thread_counts_move_pixels_by_little(name: str, small: Image) -> None:
    data = quick(name).encode(small, side()).data
    pictures = []
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        pictures.append(quick(name).decode(data).astype(int))
    assert np.array_equal(pictures[0], pictures[2])
    assert np.abs(pictures[1] - pictures[0]).max() <= 2


@pytest.mark.parametrize("name", QUICK)
def test_what_is_too_large_or_cut_is_refused(name: str, photograph: Image) -> None:
    codec = quick(name, max_pixels=64 * 128)
    data = codec.encode(np.ascontiguousarray(photograph[:60, :70]), side()).data
    with pytest.raises(UnsupportedImage, match="more than max_pixels"):
        codec.encode(photograph[:65, :70], side())
    large = b"\xff\xff\x03\xff\xff\x03" + data[2:]
    for damaged in (b"", data[:-1], data + b"\0", large, data[:2] + b"\x02\x81\x00" + data[4:]):
        with pytest.raises(BitstreamError):
            codec.decode(damaged)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_fresh_process_decodes_the_same_pixels(name: str, small: Image, decoded_elsewhere: Any) -> None:
    cls = registry.load("codec", name)
    made, hashes = {}, {}
    for number, options in enumerate(FOREIGN[name]):
        whole = {"weights": "random", **QUICK[name], **options}
        data = quick(name, **options).encode(small, side(1)).data
        made[str(number)] = (f"{cls.__module__}:{cls.__name__}", whole, data)
        hashes[str(number)] = pixel_sha256(quick(name, **options).decode(data))
    assert decoded_elsewhere(made) == hashes
    assert len(set(hashes.values())) == len(hashes)

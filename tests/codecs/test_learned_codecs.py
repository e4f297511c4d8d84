"""What every learned codec must do: strings that any machine decodes, whatever its threads, batches and arithmetic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from rdpbench import registry
from rdpbench.codecs.contract import Codec, Side, coder_of, facts_of
from rdpbench.codecs.learned import entropy
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import System, decode_images, encode_images
from rdpbench.errors import BitstreamError, OutOfRange
from rdpbench.image import Image, pixel_sha256

ROOT = Path(__file__).parents[2]
DECIDES = {
    "bmshj2018-factorized": "",
    "bmshj2018-hyperprior": r"h_s",
    "mbt2018-mean": r"h_s",
    "mbt2018": r"entropy_parameters",
    "cheng2020-anchor": r"entropy_parameters",
    "cheng2020-attn": r"entropy_parameters",
    "elic": r"latent_codec\.y\..*\.entropy_parameters",
    "hific": r"Hyperprior\.synthesis_(mu|std)",
    "lic-tcm": r"(cc_mean|cc_scale|lrp)_transforms\.\d+",
    "mini": r"h_s",
    "msillm": r"hyper_synthesis_(mean|scale)",
    "taco": r"entropy_parameters_\w+\.\d+\.fusion",
}
"""Every learned codec, and which of its layers have the last word on the distribution of a symbol."""
PORTABLE = pytest.mark.parametrize("portable", [False, True])
SLOW = pytest.mark.slow
CAPTION = Side(caption="a woman in an orange suit")
"""Only TACO's encoder looks at it."""


def tiny(name: str, **options: Any) -> Any:
    return registry.load("codec", name)(**{"weights": "random", **options})


def cut(image: Image, height: int, width: int) -> Image:
    return np.ascontiguousarray(image[:height, :width])


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def classes() -> dict[str, type[LearnedCodec]]:
    every = {name: registry.load("codec", name) for name in registry.BUILTIN["codec"]}
    return {name: cls for name, cls in every.items() if issubclass(cls, LearnedCodec)}


def test_these_are_all() -> None:
    assert {*classes()} == {*DECIDES, "msillm-nogan"}


@pytest.mark.parametrize("name", DECIDES)
def test_the_contract_is_kept(name: str) -> None:
    codec = tiny(name, portable=True)
    assert isinstance(codec, Codec)
    assert all(need.missing() is None for need in facts_of(type(codec)).needs)
    assert (codec.weights_kind(), codec.weight_needs()) == ("random", ())
    coder = coder_of(codec)
    assert (coder["weights"], coder["entropy coding"]) == ("random", "portable")
    assert coder["compressai"] == compressai.__version__
    beyond = codec.rate.high + 1
    with pytest.raises(OutOfRange, match=f"rate {beyond:g}.*'{name}'.* {codec.rate.field} "):
        tiny(name, **{codec.rate.field: beyond})


def test_configurations_list_every_rate() -> None:
    listed = set()
    for file in sorted((ROOT / "conf" / "codec").glob("*.yaml")):
        conf = yaml.safe_load(file.read_text())
        cls = classes().get(conf["use"])
        if cls is None:
            continue
        assert conf["name"] == file.stem
        for rate in conf["rates"]:
            cls(**{cls.rate.field: rate, **conf["options"]})
        # Between whole qualities `mini` has others; of the widest LIC-TCM one file is public.
        expected = {"mini": [*range(1, 7)], "mini-msssim": [*range(1, 7)], "lic-tcm-128": [6]}
        assert conf["rates"] == expected.get(file.stem, list(cls.rate.values))
        listed.add(file.stem)
    assert len(listed) == 22


@PORTABLE
@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in DECIDES), ("hific", {"target": 0.3}), ("mini", {"weights": "official"})],
)
def test_a_fresh_object_decodes_any_size_from_bytes_alone(
    name: str, options: dict[str, Any], portable: bool, photograph: Image
) -> None:
    smallest = (33, 33) if name == "msillm" else (1, 1)  # what can be padded by reflection
    for height, width in ((64, 64), (61, 99), smallest, (129, 40)):
        image = cut(photograph, height, width)
        made = tiny(name, portable=portable, **options).encode(image, CAPTION)
        assert tiny(name, portable=portable, **options).decode(bytes(made.data)).shape == image.shape
        assert sum(made.parts.values()) == len(made.data)
        strings = {"z", "y"} if name != "bmshj2018-factorized" else {"y"}
        if name == "elic":
            strings = {"z", *(f"y{group}-{half}" for group in range(5) for half in ("anchors", "others"))}
        assert set(made.parts) == {"header", *strings} | ({"guard"} if portable else set())
        assert made.parts["header"] <= 7 + len(strings)
        # The count of most publications: the strings alone.
        assert json.loads(made.info["legacy"])["headerless"] == 8 * sum(made.parts[part] for part in strings)


@pytest.mark.parametrize("name", DECIDES)
def test_random_rates_grow(name: str, photograph: Image) -> None:
    image = cut(photograph, 128, 192)
    rate = tiny(name).rate
    rates = (1, 3, 6) if "2018" in name or "2020" in name or name == "lic-tcm" else rate.values
    sizes = [
        len(tiny(name, **{rate.field: value}).encode(image, CAPTION).data)
        for value in rates
        if rate.listed or value % 1 == 0
    ]
    assert sizes == sorted(sizes)
    # The factorized model's untrained distribution is as good as flat up to 10.
    assert len(set(sizes)) == len(sizes) - (name == "bmshj2018-factorized")


@PORTABLE
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(pytest.param(name, {}, marks=SLOW if "cheng" in name else ()) for name in DECIDES),
        ("mini", {"weights": "official"}),
    ],
)
def test_threads_and_batches_change_no_symbol(
    name: str, options: dict[str, Any], portable: bool, photograph: Image
) -> None:
    codec = tiny(name, portable=portable, **options)
    images = [np.ascontiguousarray(photograph[at : at + 100, at : at + 77]) for at in (0, 30, 60)]
    sides = [Side(caption=text) for text in ("a woman", "a face", "a smile")]
    torch.set_num_threads(1)
    datas = [codec.encode(image, side).data for image, side in zip(images, sides, strict=True)]
    alone = np.stack([codec.decode(data) for data in datas]).astype(int)
    for count in (1, 2):
        torch.set_num_threads(count)
        assert codec.encode(images[0], sides[0]).data == datas[0]
        assert np.abs(codec.decode(datas[0]) - alone[0]).max() <= 1
        together = [made.data for made in codec.encode_batch(images, sides)]
        # A transform of full width may round otherwise in a batch.
        assert together == datas or (options and not portable)
        assert np.abs(np.stack(codec.decode_batch(datas)) - alone).max() <= 1
    with pytest.raises(BitstreamError, match="a batch holds images of one size"):
        codec.decode_batch([datas[0], codec.encode(photograph, CAPTION).data])


def disturbed(codec: LearnedCodec) -> System:
    """As another machine may have it: what decides a symbol is off by up to half the guard, each time otherwise."""

    def off(_module: Any, _given: Any, values: torch.Tensor) -> torch.Tensor:
        return values + 2.0**-13 * torch.empty_like(values).uniform_(-1, 1) * values.abs().clamp(min=1)

    system = codec.make()
    layers = [layer for name, layer in system.net.named_modules() if re.fullmatch(DECIDES[codec.name], name)]
    assert layers
    for layer in layers:
        layer.register_forward_hook(off)
    return system


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=SLOW if "cheng" in name else ()) for name, layers in DECIDES.items() if layers]
)
def test_portable_bitstreams_survive_other_arithmetic(
    name: str, photograph: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every parameter of every symbol is disturbed; without the guard that ends in another picture."""
    monkeypatch.setattr(entropy, "GUARD", 2.0**-12)
    monkeypatch.setattr(entropy, "STEP", 2.0**-6)
    torch.manual_seed(1)
    image = cut(photograph, 128, 128)
    for portable in (True, False):
        codec = tiny(name, portable=portable)
        made = codec.encode(image, CAPTION)
        assert made.parts.get("guard", 1) > 0
        right = codec.decode(made.data).astype(int)
        other, worst = disturbed(codec), 0
        for _ in range(5 if portable else 60):
            try:
                [found] = decode_images(name, other, [made.data], 1 << 20)
                worst = max(worst, int(np.abs(found - right).max()))
            except BitstreamError:  # noise may be no bitstream
                worst = 255
            if worst > 1:
                break
        assert (worst == 0) == portable
    # What such a machine writes, this one reads.
    codec = tiny(name, portable=True)
    [made] = encode_images(name, disturbed(codec), [image], [CAPTION], 1 << 20)
    [expected] = decode_images(name, disturbed(codec), [made.data], 1 << 20)
    assert np.array_equal(codec.decode(made.data), expected)


FULL = {"weights": "random-full"}


@SLOW
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {**FULL, "quality": 6}) for name in DECIDES if name not in ("hific", "lic-tcm", "mini")),
        *(("hific", {**FULL, "target": target}) for target in (0.14, 0.3, 0.45)),
        *(("lic-tcm", {**FULL, "quality": 2, "width": width}) for width in (64, 96, 128)),
        *(("mini", {"weights": "official", "quality": 4.3, "metric": metric}) for metric in ("mse", "ms-ssim")),
    ],
)
def test_a_fresh_process_decodes_the_same_pixels_at_full_width(
    name: str, options: dict[str, Any], decoded_elsewhere: Any
) -> None:
    """An odd size and, portably, 256 x 256; one thread and batch 1 against two threads and a batch."""
    from skimage import data

    picture: Image = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    cls = registry.load("codec", name)
    hashes, files = {}, {}
    for portable, image in ((False, cut(picture, 250, 171)), (True, picture)):
        codec: Any = cls(**options, portable=portable)
        torch.set_num_threads(1)
        made = codec.encode(image, CAPTION)
        alone = codec.decode(made.data)
        files[str(portable)] = (f"{cls.__module__}:{cls.__name__}", {**options, "portable": portable}, made.data)
        hashes[str(portable)] = pixel_sha256(alone)
        torch.set_num_threads(2)
        if portable:  # an encoder's own rounding may differ; what it wrote is what counts
            assert [again.data for again in codec.encode_batch([image] * 2, [CAPTION] * 2)] == [made.data] * 2
        for again in (codec.decode(made.data), *codec.decode_batch([made.data] * 2)):
            assert np.abs(again.astype(int) - alone).max() <= 1
    assert decoded_elsewhere(files) == hashes

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
from rdpbench.codecs.learned.entropy import MAX_SYMBOL, Reader, Writer, default_scales, tables_of
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import Frame, System, decode_images, encode_images, to_images, to_planes
from rdpbench.codecs.learned.zoo import MeanScaleHyperprior, random_network
from rdpbench.errors import BitstreamError, CodecError, ConfigError, OutOfRange, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import one_thread, reproducible

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
        image = photograph[:height, :width]
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
    image = photograph[:128, :192]
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
    image = photograph[:128, :128]
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
    for portable, image in ((False, picture[:250, :171]), (True, picture)):
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


# What they share: tables, portable decisions, strings, frames

NARROW = (8, 12)


def trained(architecture: str = "mbt2018-mean", quality: int = 4) -> Any:
    """A tiny network of the real class, with tables."""
    return random_network(architecture, NARROW, quality)


# Tables


def test_rebuilt_tables_are_compressais_but_for_rounding() -> None:
    net = trained()
    own = {name: getattr(net, name)._quantized_cdf.clone() for name in ("entropy_bottleneck", "gaussian_conditional")}
    offsets = net.gaussian_conditional._offset.clone()
    net.update(force=True)
    assert float((net.gaussian_conditional.scale_table / default_scales() - 1).abs().max()) < 1e-6
    assert torch.equal(net.gaussian_conditional._offset, offsets)
    for name, table in own.items():
        assert int((getattr(net, name)._quantized_cdf - table).abs().max()) <= 8, name


def test_indexes_are_compressais() -> None:
    model = trained().gaussian_conditional
    scales = torch.cat([torch.rand(5000) * 300, torch.rand(500), model.scale_table, torch.tensor([-3.0, 0.0])])
    tables = tables_of(model)
    found = tables.first + torch.bucketize(scales, tables.edges[tables.first :].float())
    assert torch.equal(found.int(), model.build_indexes(scales))


# Portable decisions


def near_edges(rng: np.random.Generator, edges: np.ndarray) -> torch.Tensor:
    """Values on, beside, and far from edges."""
    on = rng.choice(edges, 300)
    beside = rng.choice(edges, 3000) + rng.normal(0, 2 * entropy.GUARD, 3000)
    return torch.from_numpy(rng.permutation(np.concatenate([on, beside, rng.normal(0, 9, 3000)])))


def test_two_machines_settle_alike() -> None:
    rng = np.random.default_rng(0)
    steps = (np.arange(-500, 500) + 0.5) * entropy.STEP
    edges = default_scales().double()
    for values, settle in (
        (near_edges(rng, steps), lambda decisions, given: decisions.snap(given)),
        (near_edges(rng, edges.numpy()), lambda decisions, given: decisions.index(given, edges)),
    ):
        encoder = entropy.Decisions()
        first = settle(encoder, values)
        noise = torch.from_numpy(rng.uniform(-0.9, 0.9, len(values))) * entropy.GUARD
        elsewhere = values + noise * values.abs().clamp(min=1)
        assert not torch.equal(settle(entropy.Decisions(), elsewhere), first), "without the list they differ"
        decoder = entropy.Decisions(encoder.listing())
        assert torch.equal(settle(decoder, elsewhere), first)
        decoder.check_used()
        assert len(encoder.listing()) > 300


def test_the_list_is_one_over_several_calls() -> None:
    halves = torch.tensor([[0.5, 1.5, 0.2], [2.5, 0.1, -0.5]], dtype=torch.float64) * entropy.STEP
    encoder = entropy.Decisions()
    made = [encoder.snap(halves), encoder.snap(halves[:, :2]), encoder.snap(halves[:1, 2:])]
    decoder = entropy.Decisions(encoder.listing())
    lower = halves - entropy.GUARD / 2
    again = [decoder.snap(lower), decoder.snap(lower[:, :2]), decoder.snap(lower[:1, 2:])]
    assert all(torch.equal(one, two) for one, two in zip(made, again, strict=True))
    assert made[0].tolist() == [[s * entropy.STEP for s in row] for row in ([1, 2, 0], [3, 0, 0])]


@pytest.mark.parametrize(
    "listed", [b"\x04\x00", b"\x80", b"\xff" * 9, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" * 3, b"\x40"]
)
def test_damaged_lists_are_refused(listed: bytes) -> None:
    with pytest.raises(BitstreamError):
        entropy.Decisions(listed).check_used()


def test_a_case_that_is_clear_here_is_no_doubt() -> None:
    with pytest.raises(BitstreamError, match="not close to an edge here"):
        entropy.Decisions(b"\x01").snap(torch.tensor([0.1 * entropy.STEP], dtype=torch.float64))


# Strings


def coded(symbols: list[float], portable_: bool = False) -> tuple[Any, dict[str, bytes]]:
    tables = tables_of(trained().gaussian_conditional)
    writer = Writer({"y": len(symbols)}, portable=portable_, device="cpu")
    values = torch.tensor(symbols, dtype=torch.float64 if portable_ else torch.float32)
    writer.gaussian("y", tables, torch.full_like(values, 3.0), None, values)
    return tables, writer.finish()


def test_large_symbols_come_through_and_larger_ones_are_refused() -> None:
    symbols = [0.0, MAX_SYMBOL, -MAX_SYMBOL, 20.0, -20.0]
    tables, strings = coded(symbols)
    reader = Reader({"y": 5}, strings, portable=False, device="cpu")
    assert reader.gaussian("y", tables, torch.full((5,), 3.0), None, None).tolist() == symbols
    reader.finish()
    for wrong in (MAX_SYMBOL + 1, float("nan"), float("inf")):
        with pytest.raises(CodecError, match="'y' are not within 32768"):
            coded([0.0, 0.0, 0.0, wrong])


def test_numbers_of_symbols_are_kept() -> None:
    writer = Writer({"y": 5}, portable=False, device="cpu")
    values = torch.zeros(4)
    writer.gaussian("y", tables_of(trained().gaussian_conditional), values + 1, values, values)
    with pytest.raises(CodecError, match=r"missing, by section: \{'y': 1\}"):
        writer.finish()
    with pytest.raises(CodecError, match="was to end 3 symbols ago"):
        writer.gaussian("y", tables_of(trained().gaussian_conditional), values + 1, values, values)
    with pytest.raises(CodecError, match="scale that decides a symbol is not finite"):
        writer.gaussian("y", tables_of(trained().gaussian_conditional), values / 0, values, values)
    with pytest.raises(CodecError, match=r"sections \['z'\] hold fewer than 4 symbols"):
        Writer({"y": 4, "z": 3}, portable=False, device="cpu")


def test_strings_of_anything_end() -> None:
    """Escapes that ask for more than the string has are fed zeros, never foreign memory."""
    tables, _ = coded([0.0] * 4)
    rng = np.random.default_rng(3)
    scales = torch.full((4000,), 0.05)
    for number in range(200):
        size = 4 * int(rng.integers(2, 60))
        string = bytes([number] * size) if number < 40 else rng.bytes(size)
        string = b"\xff" * size if number == 0 else string
        reader = Reader({"y": 4000}, {"y": string}, portable=False, device="cpu")
        try:
            assert reader.gaussian("y", tables, scales, None, None).abs().max() <= MAX_SYMBOL
        except BitstreamError as error:
            assert "beyond 32768" in str(error)  # noqa: PT017 - either outcome is right
    for string in (b"", b"1234", b"123456789"):
        with pytest.raises(BitstreamError, match="no string of the range coder"):
            Reader({"y": 1}, {"y": string}, portable=False, device="cpu")


# Frames


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (65, 127), (500, 333)])
def test_centred_margins_are_compressais(size: tuple[int, int]) -> None:
    from compressai.ops import compute_padding

    assert Frame(64).margins(*size) == compute_padding(*size, min_div=64)[0]


@pytest.mark.parametrize("fill", ["zero", "replicate", "reflect"])
@pytest.mark.parametrize("place_", ["centre", "corner"])
def test_padding_is_undone(fill: Any, place_: Any, photograph: Image) -> None:
    image = photograph[:101, :77]
    planes = to_planes([image, image[::-1]], "cpu", torch.float32)
    frame = Frame(32, fill, place_)
    padded = frame.pad(planes)
    assert padded.shape == (2, 3, 128, 96)
    assert float(padded[0, 0, -1, -1]) == {
        "zero": 0,
        "replicate": float(planes[0, 0, -1, -1]),
        "reflect": float(padded[0, 0, -1, -1]),
    }.get(fill)
    found = to_images(frame.crop(padded, 101, 77))
    assert np.array_equal(found[0], image)
    assert np.array_equal(found[1], image[::-1])


def test_what_cannot_be_framed_is_told(photograph: Image) -> None:
    with pytest.raises(UnsupportedImage, match="too few to be padded to a multiple of 64 by reflection"):
        Frame(64, "reflect").pad(torch.zeros(1, 3, 20, 64))
    with pytest.raises(UnsupportedImage, match="a batch holds images of one size"):
        to_planes([photograph, photograph[1:]], "cpu", torch.float32)
    with pytest.raises(BitstreamError, match="not finite"):
        to_images(torch.full((1, 3, 2, 2), float("nan")))


# The codec's fields and surroundings


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="weights='offical' is not legal; choose from 'official', 'random'"):
        MeanScaleHyperprior(weights="offical")
    with pytest.raises(ConfigError, match="max_pixels=0 must be"):
        MeanScaleHyperprior(max_pixels=0)
    with pytest.raises(ConfigError, match="metric='ssim'"):
        MeanScaleHyperprior(metric="ssim")


def test_sizes_are_refused_before_anything_is_allocated(photograph: Image) -> None:
    small = MeanScaleHyperprior(weights="random", max_pixels=1000)
    with pytest.raises(UnsupportedImage, match="256 x 192 pixels are more than max_pixels=1000"):
        small.encode(photograph, Side())
    made = MeanScaleHyperprior(weights="random").encode(photograph, Side())
    with pytest.raises(BitstreamError, match="256 x 192 pixels are more than max_pixels=1000"):
        small.decode(made.data)


def test_the_settings_of_torch_come_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    state = torch.random.get_rng_state()
    MeanScaleHyperprior(weights="random", quality=2).system()

    def inside() -> None:
        with reproducible(), one_thread():
            assert torch.get_num_threads() == 1
            assert torch.are_deterministic_algorithms_enabled()
            assert not torch.backends.cudnn.allow_tf32
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        inside()
    after = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32
    assert after == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_is_made_once_for_codec_objects_of_one_configuration() -> None:
    systems = [MeanScaleHyperprior(weights="random", quality=3).system() for _ in range(2)]
    assert systems[0] is systems[1]
    assert MeanScaleHyperprior(weights="random", quality=3, portable=True).system() is not systems[0]

"""What the learned codecs share: tables, portable decisions, strings, frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned import entropy
from rdpbench.codecs.learned.entropy import MAX_SYMBOL, Reader, Writer, default_scales, set_tables, tables_of
from rdpbench.codecs.learned.systems import Frame, to_images, to_planes
from rdpbench.codecs.learned.zoo import MeanScaleHyperprior, random_network
from rdpbench.errors import BitstreamError, CodecError, ConfigError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.networks.precision import one_thread, reproducible

NARROW = (8, 12)


def trained(architecture: str = "mbt2018-mean", quality: int = 4) -> Any:
    """A tiny network of the real class, with tables."""
    net = random_network(architecture, NARROW, quality)
    set_tables(net, {})
    return net


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

"""The colour conversion that HEVC and VVC share: exact values, lossless where it must be, rounded everywhere."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from rdpbench.codecs.classical.ycbcr import Matrix, rgb_to_ycbcr, ycbcr_to_rgb
from rdpbench.errors import ConfigError
from rdpbench.image import Image, read_image

EXACT = {"bt709": (Fraction(2126, 10000), Fraction(722, 10000)), "bt601": (Fraction(299, 1000), Fraction(114, 1000))}


def exact(colour: tuple[int, int, int], bits: int, matrix: str) -> list[int]:
    """The definition in rational numbers: nothing is rounded before the end."""
    kr, kb = EXACT[matrix]
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    r, g, b = (Fraction(value * top, 255) for value in colour)
    y = kr * r + (1 - kr - kb) * g + kb * b
    values = [y, (b - y) / (2 * (1 - kb)) + middle, (r - y) / (2 * (1 - kr)) + middle]
    return [min(max((value + Fraction(1, 2)).__floor__(), 0), top) for value in values]


def cube(red: range) -> Image:
    """All colours with these values of red, as an image."""
    planes = np.meshgrid(np.array(red), np.arange(256), np.arange(256), indexing="ij")
    return np.stack(planes, axis=-1).reshape(len(red) * 256, 256, 3).astype(np.uint8)


@pytest.mark.parametrize("matrix", ["bt709", "bt601"])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_equals_the_definition_in_rational_numbers(bits: int, matrix: Matrix) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (2000, 3)).astype(np.uint8)
    corners = np.array(np.meshgrid([0, 1, 128, 255], [0, 1, 128, 255], [0, 1, 128, 255])).reshape(3, -1).T
    image = np.concatenate([colours, corners.astype(np.uint8)])[None]
    found = rgb_to_ycbcr(image, bits, matrix)
    assert found.dtype == (np.uint8 if bits == 8 else np.uint16)
    wanted = [exact((int(r), int(g), int(b)), bits, matrix) for r, g, b in image[0]]
    assert found[:, 0].T.tolist() == wanted


@pytest.mark.parametrize("matrix", ["bt709", pytest.param("bt601", marks=pytest.mark.slow)])
def test_ten_bits_are_lossless_on_all_colours(matrix: Matrix) -> None:
    for red in range(0, 256, 16):
        colours = cube(range(red, red + 16))
        assert np.array_equal(ycbcr_to_rgb(rgb_to_ycbcr(colours, 10, matrix), 10, matrix), colours)


def test_grey_has_no_chroma_and_survives_eight_bits() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    planes = rgb_to_ycbcr(grey)
    assert np.array_equal(planes[0], grey[:, :, 0])
    assert np.unique(planes[1:]).tolist() == [128]
    assert np.array_equal(ycbcr_to_rgb(planes), grey)


def test_planes_out_of_gamut_are_clipped_not_wrapped() -> None:
    extremes = np.array([[[255, 0]], [[255, 0]], [[255, 0]]], np.uint8)
    assert ycbcr_to_rgb(extremes).reshape(-1, 3).tolist() == [[255, 172, 255], [0, 84, 0]]


@pytest.mark.parametrize(("bits", "matrix", "word"), [(7, "bt709", "7"), (8, "bt2020", "bt601")])
def test_impossible_settings_are_refused(bits: int, matrix: Matrix, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        rgb_to_ycbcr(np.zeros((1, 1, 3), np.uint8), bits, matrix)


def test_eight_bit_round_trip_of_kodak_is_53_2_db(shared: Path) -> None:
    """Rounded in both directions; truncation would give 43.7 dB, chroma centred at 127.5 53.00 dB."""
    values = []
    for number in range(1, 25):
        image = read_image(shared / "data" / "kodak" / f"kodim{number:02}.png").pixels
        error = ycbcr_to_rgb(rgb_to_ycbcr(image)).astype(np.float64) - image
        values.append(10 * np.log10(255**2 / np.mean(error**2)))
    assert len(values) == 24
    assert np.mean(values) == pytest.approx(53.196, abs=0.001)


@pytest.mark.parametrize("bits", [8, 10])
def test_chroma_centred_on_half_is_the_textbook_formula(bits: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    r, g, b = (image[:, :, channel] / 255 for channel in range(3))
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    top = 2**bits - 1
    wanted = np.stack([y, (b - y) / 1.8556 + 0.5, (r - y) / 1.5748 + 0.5]) * top
    planes = rgb_to_ycbcr(image, bits, "bt709", "half")
    # Float64 may round a tie the other way; grey is one.
    assert np.abs(planes - wanted).max() <= 0.5 + 1e-6
    assert np.abs(ycbcr_to_rgb(planes, bits, "bt709", "half").astype(int) - image).max() <= (1 if bits == 8 else 0)


def test_truncated_planes_are_those_of_the_common_wrapper() -> None:
    """CompressAI's own conversion, cut to 8 bits as its wrapper cuts it."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from compressai.transforms.functional import rgb2ycbcr

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = rgb2ycbcr(torch.from_numpy(image.astype(np.float64) / 255).permute(2, 0, 1)[None])[0].numpy()
    ours = rgb_to_ycbcr(image, middle="half", truncate=True)
    assert np.array_equal(ours, (theirs * 255).astype(np.uint8))
    assert (ours != rgb_to_ycbcr(image, middle="half")).mean() > 0.3


def test_truncation_exists_in_one_protocol_only() -> None:
    with pytest.raises(ConfigError, match="middle"):
        rgb_to_ycbcr(np.zeros((2, 2, 3), np.uint8), truncate=True)

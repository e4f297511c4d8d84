"""Patches of set metrics: counts of the official code, views of the right pixels, in a stated order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdpbench.errors import MetricError
from rdpbench.image import read_image
from rdpbench.metrics.inception_distances import corners, hific

SIDES = st.integers(1, 2000)


@pytest.mark.parametrize(
    ("height", "width", "first", "second"),
    [
        (512, 768, 6, 2),
        (1356, 2040, 35, 28),
        (1365, 2048, 40, 28),
        (384, 384, 1, 1),
        (383, 800, 3, 0),
        (1024, 1024, 16, 9),
    ],
)
def test_counts_are_those_of_the_official_code(height: int, width: int, first: int, second: int) -> None:
    found = list(corners(height, width))
    assert sum(top % 256 == 0 for top, _ in found) == first
    assert sum(top % 256 == 128 for top, _ in found) == second
    assert len(found) == first + second


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose pixels are all different: their number in three base-256 digits."""
    number = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    return np.stack([number >> 16 & 255, number >> 8 & 255, number & 255], axis=2).astype(np.uint8)


def test_the_second_patch_lies_to_the_right_and_the_first_shifted_one_in_the_middle() -> None:
    image = ramp(512, 512)
    patches = list(hific(image))
    assert len(patches) == 5
    assert np.array_equal(patches[1], image[0:256, 256:512])
    assert np.array_equal(patches[2], image[256:512, 0:256])
    assert np.array_equal(patches[4], image[128:384, 128:384])


def test_kodak_gives_192_patches(shared) -> None:
    files = sorted((shared / "data" / "kodak").glob("*.png"))
    assert len(files) == 24
    assert sum(len(list(hific(read_image(file).pixels))) for file in files) == 192


@given(SIDES, SIDES, st.sampled_from([2, 64, 256, 300]))
def test_counting_and_cutting_agree_with_torch_unfold_at_any_size(height: int, width: int, size: int) -> None:
    """`unfold` counts ``(side - size) // size + 1`` places; the second grid is unfolded from half a patch on."""

    def unfolded(rows: int, columns: int) -> int:
        return max((rows - size) // size + 1, 0) * max((columns - size) // size + 1, 0)

    if size == 2:  # a million patches take a second
        height, width = height % 200 + 1, width % 200 + 1
    expected = unfolded(height, width)
    if height >= 1.5 * size and width >= 1.5 * size:
        expected += unfolded(height - size // 2, width - size // 2)
    found = list(corners(height, width, size))
    assert len(found) == len(set(found)) == expected
    assert all(top + size <= height and left + size <= width for top, left in found)


def test_pixels_and_order_equal_torch_unfold() -> None:
    import torch

    image = ramp(100, 140)
    planes = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    expected: list[np.ndarray] = []
    for grid in (planes, planes[:, :, 16:, 16:]):
        columns = torch.nn.functional.unfold(grid, kernel_size=32, stride=32)
        expected += list(columns[0].T.reshape(-1, 3, 32, 32).permute(0, 2, 3, 1).numpy().astype(np.uint8))
    assert np.array_equal(np.stack(list(hific(image, size=32))), np.stack(expected))


def test_patches_are_views() -> None:
    image = ramp(400, 600)
    image.flags.writeable = False
    assert all(np.shares_memory(patch, image) for patch in hific(image))


@pytest.mark.parametrize("shape", [(255, 2000, 3), (1, 1, 3), (2000, 100, 3)])
def test_an_image_without_a_patch_is_refused(shape: tuple[int, int, int]) -> None:
    assert list(corners(*shape[:2])) == []
    with pytest.raises(MetricError, match=f"{shape[1]} x {shape[0]} .* holds no patch of 256 x 256"):
        hific(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("size", [0, -2, 3, 255])
def test_a_size_without_a_half_is_refused(size: int) -> None:
    with pytest.raises(MetricError, match=f"even side .* found {size}"):
        list(corners(512, 512, size))


def test_only_8_bit_images_are_cut() -> None:
    with pytest.raises(MetricError, match="float32"):
        hific(np.zeros((512, 512, 3), np.float32))  # type: ignore[arg-type]

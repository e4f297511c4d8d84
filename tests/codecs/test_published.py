"""Published curves on the Kodak images: the harness measures what CompressAI's benchmark measured."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from rdpbench.codecs.classical.avif import AVIF
from rdpbench.codecs.classical.hevc import HEIF, HEVC
from rdpbench.codecs.classical.jpegxl import JPEGXL
from rdpbench.codecs.classical.pillow import JPEG, JPEG2000, MozJPEG, WebP
from rdpbench.codecs.contract import Codec, Side
from rdpbench.image import Image, read_image

QUALITIES = range(5, 100, 5)


@pytest.fixture(scope="module")
def kodak(shared: Path) -> list[Image]:
    """The 24 images."""
    files = sorted((shared / "data" / "kodak").glob("kodim*.png"))
    if len(files) != 24:
        pytest.skip(f"the 24 Kodak images are not in the folder 'shared' (found {len(files)})")
    return [read_image(file).pixels for file in files]


def published(shared: Path, codec: str) -> dict[int, tuple[float, float]]:
    """``{quality: (bpp, PSNR)}`` from CompressAI's result files, whose points are the qualities 5, 10, ... 95."""
    with (shared / "curves" / "published_curves.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            (float(row["bpp"]), float(row["value"]))
            for row in csv.DictReader(file)
            if row["source"].endswith(f"results/image/kodak/{codec}.json") and row["metric"] == "psnr"
        ]
    assert len(rows) == len(QUALITIES)
    return dict(zip(QUALITIES, sorted(rows), strict=True))


def measured(codec: Codec, images: list[Image]) -> tuple[float, float]:
    """Means over images of bpp and of PSNR (8-bit RGB)."""
    bpp, psnr = [], []
    for image in images:
        data = codec.encode(image, Side()).data
        error = np.mean((codec.decode(data).astype(np.float64) - image) ** 2)
        bpp.append(8 * len(data) / (image.shape[0] * image.shape[1]))
        psnr.append(10 * np.log10(255**2 / error))
    return float(np.mean(bpp)), float(np.mean(psnr))


def check_webp(shared: Path, images: list[Image], quality: int) -> None:
    bpp, psnr = published(shared, "webp")[quality]
    found_bpp, found_psnr = measured(WebP(quality), images)
    assert found_bpp == pytest.approx(bpp, rel=1e-9)
    assert found_psnr == pytest.approx(psnr, abs=1e-4)


def check_jpeg(shared: Path, images: list[Image], quality: int) -> None:
    """The published files are from another JPEG library (Pillow 7.1.2): near, not equal."""
    bpp, psnr = published(shared, "jpeg")[quality]
    found_bpp, found_psnr = measured(JPEG(quality), images)
    assert found_bpp == pytest.approx(bpp, rel=0.005)
    assert found_psnr == pytest.approx(psnr, abs=0.15)


@pytest.mark.parametrize("quality", [5, 50])
def test_webp_gives_two_published_points_exactly(shared: Path, kodak: list[Image], quality: int) -> None:
    check_webp(shared, kodak, quality)


@pytest.mark.parametrize("quality", [5, 50, 95])
def test_jpeg_gives_three_published_points_nearly(shared: Path, kodak: list[Image], quality: int) -> None:
    check_jpeg(shared, kodak, quality)


@pytest.mark.parametrize(
    ("codec", "bpp"),
    [
        (JPEG(1), 0.191),
        (MozJPEG(1), 0.064),
        (WebP(0), 0.134),
        (AVIF(0), 0.0735),
        (AVIF(0, tune="psnr"), 0.0454),
        (HEIF(0), 0.0366),
        (HEVC(51), 0.0243),
        (JPEG2000(2000), 0.0121),
        (JPEGXL(25), 0.150),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, float) else "",
)
def test_the_lowest_rates_are_those_that_the_heads_state(kodak: list[Image], codec: Codec, bpp: float) -> None:
    """On kodim01; a library of another version may be a little off, a wrong option is far off."""
    assert measured(codec, kodak[:1])[0] == pytest.approx(bpp, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("quality", QUALITIES)
def test_webp_gives_every_published_point_exactly(shared: Path, kodak: list[Image], quality: int) -> None:
    check_webp(shared, kodak, quality)


@pytest.mark.slow
@pytest.mark.parametrize("quality", QUALITIES)
def test_jpeg_gives_every_published_point_nearly(shared: Path, kodak: list[Image], quality: int) -> None:
    check_jpeg(shared, kodak, quality)

"""The synthetic pair that all metric libraries were measured on, and a photograph compressed by JPEG."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
Pair: TypeAlias = tuple[Image, Image]


def synthetic_pair(height: int, width: int) -> Pair:
    """Waves with a pattern on top, and the same darkened with other waves; pure arithmetic, equal on all machines."""
    i, j, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    x = 128 + 60 * np.sin(2 * np.pi * (i + 2 * c) / 37) + 50 * np.cos(2 * np.pi * (j - 3 * c) / 23)
    x = np.clip(np.floor(x + ((7 * i + 13 * j + 29 * c) % 32 - 16) + 0.5), 0, 255)
    y = 0.85 * x + 18 + 12 * np.sin(2 * np.pi * ((i * j) % 101) / 101) + ((5 * i + 3 * j + 11 * c) % 17 - 8)
    return x.astype(np.uint8), np.clip(np.floor(y + 0.5), 0, 255).astype(np.uint8)


def jpeg(image: Image, quality: int) -> Image:
    from PIL import Image as pil

    stream = io.BytesIO()
    pil.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(pil.open(stream))


@pytest.fixture(scope="session")
def synthetic() -> Callable[[int, int], Pair]:
    return synthetic_pair


@pytest.fixture(scope="session")
def photograph() -> Image:
    """512 x 512, carried by scikit-image's wheel."""
    from skimage import data

    return np.array(data.astronaut())


@pytest.fixture(scope="session")
def compress() -> Callable[[Image, int], Image]:
    return jpeg

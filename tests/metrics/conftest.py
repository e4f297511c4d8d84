"""The synthetic pair that all metric libraries were measured on, a photograph compressed by JPEG, random networks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rdpbench.metrics import self_check

Image: TypeAlias = NDArray[np.uint8]
Pair: TypeAlias = tuple[Image, Image]


def jpeg(image: Image, quality: int) -> Image:
    from PIL import Image as pil

    stream = io.BytesIO()
    pil.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(pil.open(stream))


@pytest.fixture(scope="session")
def synthetic() -> Callable[[int, int], Pair]:
    return self_check.synthetic


@pytest.fixture(scope="session")
def photograph() -> Image:
    """512 x 512, carried by scikit-image's wheel."""
    from skimage import data

    return np.array(data.astronaut())


@pytest.fixture(scope="session")
def compress() -> Callable[[Image, int], Image]:
    return jpeg


@pytest.fixture(scope="session")
def inception_tensors() -> dict[str, Any]:
    """Names and shapes of ``pt_inception-2015-12-05-6726825d.pth``, seeded random numbers that keep features near 1."""
    import torch
    from torchvision.models import inception_v3

    with torch.device("meta"):
        layout = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False).state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, like in layout.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            tensors[name] = 0.5 + torch.rand(like.shape, generator=generator)
        elif name.endswith("bn.weight"):
            tensors[name] = torch.ones(like.shape)
        elif name.endswith(("bn.bias", "running_mean", "fc.bias")):
            tensors[name] = 0.1 * torch.randn(like.shape, generator=generator)
        else:
            scale = (2 / np.prod(like.shape[1:])) ** 0.5
            tensors[name] = scale * torch.randn(like.shape, generator=generator)
    return tensors


@pytest.fixture(scope="session")
def inception_file(inception_tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a ``.pth`` file, which torch-fidelity, torchmetrics and pytorch-fid load."""
    import torch

    path = tmp_path_factory.mktemp("weights") / "random-inception.pth"
    torch.save(inception_tensors, path)
    return path


def make_pictures(count: int, size: tuple[int, int] = (64, 80), seed: int = 0) -> list[Image]:
    """Smooth colour fields with noise of different strength, so that features of different images differ."""
    from PIL import Image as pil

    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        coarse = pil.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        smooth = np.array(coarse.resize(size[::-1], pil.Resampling.BICUBIC)).astype(float)
        noisy = smooth + rng.normal(0, 4 * (number % 5) + 1, smooth.shape)
        made.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return made


@pytest.fixture(scope="session")
def pictures() -> Callable[..., list[Image]]:
    """``pictures(3)``, ``pictures(3, (64, 80), seed=1)``."""
    return make_pictures


SHARED = Path(__file__).parents[3] / "shared" / "data" / "kodak"


def photographs(count: int) -> list[Image]:
    """Kodak's, where the shared folder is; else crops of those that scikit-image carries."""
    from PIL import Image as pil
    from skimage import data

    if files := sorted(SHARED.glob("*.png"))[:count]:
        return [np.array(pil.open(file).convert("RGB")) for file in files]
    whole = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    crops = [image[top : top + 256, left : left + 257] for top in (0, 40, 44) for left in (0, 90) for image in whole]
    return [np.ascontiguousarray(crop) for crop in crops][:count]


def webp(image: Image) -> Image:
    from PIL import Image as pil

    stream = io.BytesIO()
    pil.fromarray(image).save(stream, "WEBP", quality=60)
    return np.array(pil.open(stream).convert("RGB"))


def blur(image: Image) -> Image:
    from PIL import Image as pil
    from PIL import ImageFilter

    return np.array(pil.fromarray(image).filter(ImageFilter.GaussianBlur(2)))


def noise(image: Image) -> Image:
    return np.clip(np.rint(image + np.random.default_rng(0).normal(0, 8, image.shape)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def distortions() -> dict[str, Callable[[Image], Image]]:
    return {"jpeg": lambda image: jpeg(image, 20), "webp": webp, "blur": blur, "noise": noise}


@pytest.fixture(scope="session")
def pairs(distortions: dict[str, Callable[[Image], Image]]) -> Callable[..., Iterator[tuple[str, Image, Image]]]:
    """``pairs(10)``: ten photographs at four distortions; a name, the original, what became of it."""

    def make(count: int = 10) -> Iterator[tuple[str, Image, Image]]:
        for number, image in enumerate(photographs(count)):
            for name, distort in distortions.items():
                yield f"{number} {name}", image, distort(image)

    return make

"""The synthetic pair that all metric libraries were measured on, a photograph compressed by JPEG, random networks."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from rdpbench.metrics import self_check
from rdpbench.networks.clip import Clip, Shape, configuration, read_tokens

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


@pytest.fixture
def wavy() -> Any:
    return self_check.wavy()


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


# Networks with random weights

TINY = Shape(width=48, layers=2, heads=2, patch=8, side=32, text_width=32, text_layers=2, text_heads=2, dim=24)


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A byte-pair table in OpenAI's format with four merges."""
    path = tmp_path_factory.mktemp("tokens") / "table.txt.gz"
    path.write_bytes(gzip.compress(b"#version\na n\nan d</w>\no g</w>\nd og</w>"))
    return read_tokens(path)


@pytest.fixture(scope="session")
def model(tokens: Any) -> Any:
    """A random ``CLIPModel`` that is wide awake: with the usual initialisation all embeddings nearly agree."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    sizes = configuration(TINY)
    ends = {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id, "vocab_size": len(tokens)}
    sizes["text_config"] |= ends
    with torch.random.fork_rng():
        torch.manual_seed(11)
        made = CLIPModel(CLIPConfig(**sizes)).eval()
        for tensor in made.parameters():
            tensor.data += 0.2 * torch.randn_like(tensor)
    return made


@pytest.fixture(scope="session")
def tower(model: Any, tokens: Any) -> Clip:
    """Both towers of CLIP, tiny."""
    return Clip(model, tokens)


# torchvision's names and shapes of the convolutions that LPIPS uses, without its 58 to 124 million other parameters.
SHAPES = {
    "alex": {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)},
    "vgg": {
        0: (64, 3, 3), 2: (64, 64, 3), 5: (128, 64, 3), 7: (128, 128, 3), 10: (256, 128, 3), 12: (256, 256, 3),
        14: (256, 256, 3), 17: (512, 256, 3), 19: (512, 512, 3), 21: (512, 512, 3), 24: (512, 512, 3),
        26: (512, 512, 3), 28: (512, 512, 3),
    },
}  # fmt: skip


# The same of SqueezeNet 1.1, whose blocks hold three convolutions each.
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128), 9: (256, 48, 192),
         10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}  # fmt: skip
NETS = ("alex", "vgg", "squeeze")


def shapes(net: str) -> dict[str, tuple[int, int, int]]:
    if net != "squeeze":
        return {f"features.{index}": shape for index, shape in SHAPES[net].items()}
    named = {"features.0": (64, 3, 3)}
    for index, (into, middle, out) in FIRES.items():
        named[f"features.{index}.squeeze"] = (middle, into, 1)
        named |= {f"features.{index}.expand{side}x{side}": (out, middle, side) for side in (1, 3)}
    return named


def random_trunk(net: str) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(5)
    trunk = {"classifier.1.weight": torch.zeros(1)}
    for name, (out, into, side) in shapes(net).items():
        scale = (2 / (into * side * side)) ** 0.5
        trunk[f"{name}.weight"] = scale * torch.randn(out, into, side, side, generator=generator)
        trunk[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return trunk


@pytest.fixture(scope="session")
def trunks() -> dict[str, dict[str, Any]]:
    """Of LPIPS' three networks; that of DISTS is the second."""
    return {net: random_trunk(net) for net in NETS}


@pytest.fixture(scope="module")
def pieapp_tensors() -> dict[str, Any]:
    """In the published layout."""
    import torch

    from rdpbench.metrics.pieapp import SHAPES as LAYOUT

    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, shape in LAYOUT.items():
        if name == "fc1_score.weight":  # 62 million numbers take seconds to draw: each row is the one above, moved on
            made[name] = (torch.randn(sum(shape) - 1, generator=generator) * 0.05).unfold(0, shape[1], 1).contiguous()
            continue
        into = int(np.prod(shape[1:]))
        made[name] = torch.randn(shape, generator=generator) * ((2 / into) ** 0.5 if len(shape) > 1 else 0.1)
    made["conv1.weight"] /= 20  # pixels are 0 to 255
    made["fc2_weight.weight"].abs_()
    made["fc2_weight.bias"].abs_()
    return made

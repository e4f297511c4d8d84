"""How real a set of images looks: distances in DINOv2's features; fidelity and variety apart, by nearest neighbours.

**Distances in DINOv2** (Stein et al., "Exposing flaws of generative model evaluation metrics", NeurIPS 2023): the class
token of ViT-L/14 after its last normalisation, of the whole image at 224 x 224 (Pillow's bicubic, 8 bits), as dgm-eval
prepares it. Positions are interpolated as the authors' hub code does, by a scale of 16.1 / 37; transformers has
16 / 37, and slightly other features. ``fd-dinov2`` is the Fréchet distance, ``kd-dinov2`` the kernel distance of 100
subsets of 1000, as KID.

**Precision and recall** (Kynkäänniemi et al., NeurIPS 2019): how many reconstructions lie within a ball around an
original that reaches to its third nearest other original, and the other way round. **Density and coverage** (Naeem et
al., ICML 2020): in how many of these balls a reconstruction lies (balls to the fifth neighbour, divided by five), and
how many balls hold a reconstruction. They see the arrays that distances are made of anyway: DINOv2, or Inception's.

An original and its own reconstruction are neighbours, which generative models do not have: of a codec all four are
higher than of a model that is as good, and 1 (density: about 1) without loss. Compare codecs with codecs.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import Card, Weights, read_tensors
from rdpbench.errors import MetricError
from rdpbench.image import Image, check_image
from rdpbench.lazy import Tensor, functional, pil, torch
from rdpbench.metrics.contract import Array, Estimate, Floats, MetricOfSets, NetworkFeatures, by_name, variant
from rdpbench.metrics.inception_distances import FEATURES, FID, KID, PATCHED_IMAGES
from rdpbench.metrics.sets import Rows, blocks, check_sets, stack
from rdpbench.needs import Package
from rdpbench.networks.precision import exact

CARD = Card(
    "dinov2-large",
    "https://huggingface.co/facebook/dinov2-large/resolve/main/model.safetensors",
    "main",
    "model.safetensors",
    "Apache-2.0",
    "DINOv2 ViT-L/14, the network of fd-dinov2",
)
SIDE, PATCH = 224, 14
SIZES = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
BATCH = 16
"""Images in the network at once."""
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_dinov2(tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None) -> Any:
    """``transformers.Dinov2Model`` for images of 224 x 224 with exactly ``tensors``, on the CPU.

    Args:
        tensors: in the layout of facebook/dinov2-large.
        sizes: of the network, for tests; ViT-L by default.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(**{**(sizes or SIZES), "image_size": SIDE, "patch_size": PATCH})  # type: ignore[arg-type]
    place = "embeddings.position_embeddings"
    fitted = {name: hub_positions(tensor) if name == place else tensor for name, tensor in tensors.items()}
    return load_strictly(lambda: Dinov2Model(config), fitted, "the DINOv2 file", error=MetricError)


def hub_positions(positions: Tensor) -> Tensor:
    """Positions ``(1, 1 + n^2, d)`` for 16 x 16 patches: bicubic, by a scale of 16.1 / n as in the authors' code."""
    places = SIDE // PATCH
    side = round((positions.shape[1] - 1) ** 0.5)
    if side == places:
        return positions
    grid = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    scale = (places + 0.1) / side
    fitted = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([positions[:, :1].float(), fitted.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


class DINOv2Features(NetworkFeatures[Any]):
    """The class token; ``given`` are tensors in the layout of facebook/dinov2-large."""

    id = "dinov2-l14/224"
    needs = (Package("transformers"), Weights(CARD))
    dim = 1024
    preload = ("torch", "transformers")
    sizes: ClassVar[Mapping[str, int]] = SIZES

    def load(self, given: Mapping[str, Tensor] | None) -> Any:
        return build_dinov2(read_tensors(CARD) if given is None else given, self.sizes).to(self.device)

    def extract(self, images: Sequence[Image], **_: Any) -> list[NDArray[np.float32]]:
        """One row per image."""
        rows = [np.empty((0, self.dim), np.float32)]
        mean, deviation = (torch.tensor(three)[:, None, None] for three in (_MEAN, _DEVIATION))
        with torch.inference_mode(), exact():
            for start in range(0, len(images), BATCH):
                squares = np.stack([_square(image) for image in images[start : start + BATCH]])
                planes = (torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255 - mean) / deviation
                rows.append(self.network(planes.to(self.device)).pooler_output.cpu().numpy())
        return list(np.concatenate(rows)[:, None])


def _square(image: Image) -> Image:
    whole = pil.fromarray(np.ascontiguousarray(check_image(image, "DINOv2: the image", MetricError)))
    return np.array(whole.resize((SIDE, SIDE), pil.Resampling.BICUBIC))


def nearest(rows: Rows, others: Rows, count: int) -> Floats:
    """Squared distances of each row to its ``count`` nearest of ``others``, ``(n, count)``, nearest first, float64.

    Block by block: 100 MB beside the rows, however many they are.

    >>> nearest(np.array([[0.0]]), np.array([[3.0], [1.0], [2.0]]), 2).tolist()
    [[1.0, 4.0]]
    """
    out = np.empty((len(rows), count))
    start = 0
    for block in blocks(rows):
        best = np.full((len(block), count), np.inf)
        for other in blocks(others):
            both = np.concatenate([best, _squares(block, other)], axis=1)
            best = np.partition(both, count - 1, axis=1)[:, :count]
        out[start : start + len(block)] = np.sort(best, axis=1)
        start += len(block)
    return out


def _squares(first: Floats, second: Floats) -> Floats:
    squares = -2 * (first @ second.T)
    squares += np.einsum("ij,ij->i", first, first)[:, None]
    squares += np.einsum("ij,ij->i", second, second)
    return np.maximum(squares, 0, out=squares)


_RADII: OrderedDict[tuple[str, int], Floats] = OrderedDict()
"""Of the last sets: four metrics ask for the same, and the originals stay."""


def radii(rows: Rows, k: int) -> Floats:
    """Squared distance of each row to its k-th nearest other row, ``(n,)``."""
    key = hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest(), k
    if key not in _RADII:
        _RADII[key] = nearest(rows, rows, k + 1)[:, k]  # the nearest of all is the row itself
        if len(_RADII) > 8:
            _RADII.popitem(last=False)
    return _RADII[key]


def balls(centres: Rows, squared: Floats, points: Rows, *, closed: bool) -> NDArray[np.int64]:
    """In how many balls each point lies, ``(m,)``; with their surface, if they are ``closed``."""
    out = np.zeros(len(points), np.int64)
    done = 0
    # Centres come first, as in `radii`: a point on the surface then has the very number that the radius is.
    for centre in blocks(centres):
        limit = squared[done : done + len(centre), None]
        done += len(centre)
        start = 0
        for block in blocks(points):
            distances = _squares(centre, block)
            out[start : start + len(block)] += (distances <= limit if closed else distances < limit).sum(axis=0)
            start += len(block)
    return out


Share = Literal["precision", "recall", "density", "coverage"]


def share(which: Share, reference: Rows, distorted: Rows) -> float:
    """Precision, recall (third neighbour, closed balls), density or coverage (fifth neighbour, open balls).

    Raises:
        MetricError: rows of two lengths, NaN, or no more rows than neighbours.

    >>> line = np.arange(8.0)[:, None]
    >>> share("precision", line, line + 100), share("recall", line, line)
    (0.0, 1.0)
    """
    k = 3 if which in ("precision", "recall") else 5
    check_sets(reference, distorted, which, minimum=k + 1)
    if which == "recall":
        return float((balls(distorted, radii(distorted, k), reference, closed=True) > 0).mean())
    limits = radii(reference, k)
    if which == "coverage":
        return float((nearest(reference, distorted, 1)[:, 0] < limits).mean())
    counts = balls(reference, limits, distorted, closed=which == "precision")
    return float((counts > 0).mean()) if which == "precision" else float(counts.mean() / k)


class Neighbours(MetricOfSets):
    """A share of `share`; the order of the images does not matter."""

    higher_is_better = True
    bounds = (0.0, 1.0)
    which: ClassVar[Share]

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        first, second = (stack(arrays, self.name, self.features.dim) for arrays in (reference, distorted))
        return Estimate(share(self.which, first, second))


_SOURCES: dict[Share, str] = {
    "precision": "Kynkäänniemi et al., NeurIPS 2019, k = 3",
    "recall": "Kynkäänniemi et al., NeurIPS 2019, k = 3",
    "density": "Naeem et al., ICML 2020, k = 5",
    "coverage": "Naeem et al., ICML 2020, k = 5",
}
FEATURE_SETS: dict[str, Any] = {"dinov2": DINOv2Features, **{n: FEATURES[n] for n in ("legacy-tf", "hific-patch")}}


def _neighbours(which: Share, name: str) -> type[Neighbours]:
    features = FEATURE_SETS[name]
    return variant(
        Neighbours,
        f"{which}/{name}",
        which=which,
        source=f"{_SOURCES[which]}; features {features.id}",
        features=features,
        bounds=(0.0, np.inf if which == "density" else 1.0),
        minimum_images=PATCHED_IMAGES if name == "hific-patch" else 1000,
    )


_KERNEL: dict[str, Any] = {"features": DINOv2Features, "split_name": "kd-dinov2/split"}
_FD, _KD = (f"Stein et al., NeurIPS 2023 (dgm-eval), DINOv2 ViT-L/14 at 224: {what}" for what in ("FD", "KD"))

METRICS = by_name(
    variant(FID, "fd-dinov2", source=_FD, features=DINOv2Features, minimum_images=DINOv2Features.dim),
    variant(KID, "kd-dinov2", source=_KD, minimum_images=1000, **_KERNEL),
    variant(KID, "kd-dinov2/full", source=_KD, minimum_images=100, size=None, **_KERNEL),
    variant(KID, "kd-dinov2/split", source=_KD, minimum_images=100, size=None, pairs="apart", **_KERNEL),
    *(_neighbours(which, name) for which in _SOURCES for name in FEATURE_SETS),
)

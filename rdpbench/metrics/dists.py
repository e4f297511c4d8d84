"""DISTS (Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2022).

VGG16 with L2 pooling in place of maximum pooling; in the image and in five layers, each channel's means and covariance
are compared, weighed by learned factors. The factors are those in torchmetrics' wheel, checked; the trunk comes through
its weight card. torchmetrics' own class downloads the trunk unverified while it is built, and builds it at every call.
Here covariances are sums of centred products, which is exact for identical images where E[xy] - E[x]E[y] errs by 3e-7.

The authors' script shrinks images to 256 pixels on the short side; libraries, and papers that use them, do not. Both
are here: ``dists`` at full size, and ``dists/256`` as the script does (bilinear, antialiased, to 8 bits; smaller images
stay as they are).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import CARDS, Weights, read_installed, read_tensors
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.lazy import Tensor, functional, pil, torch
from rdpbench.metrics.contract import ComparingMetric, WithNetwork, by_name, variant
from rdpbench.needs import Package
from rdpbench.networks.precision import exact

FACTORS = "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218"
"""sha256 of the learned factors in the wheel of torchmetrics 1.9.0: alpha for means, beta for covariances."""

CHANNELS = (3, 64, 128, 256, 512, 512)
"""Of the image and of the five layers."""
SHORT_SIDE = 256

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_C = 1e-6
_TAPS = (0.5, 1.0, 0.5)
"""Hann window of five taps without its two zeros, for the L2 pooling; made to sum to 1 in two dimensions."""


def read_factors() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """alpha and beta of each of the six layers, ``float64 (channels,)``; all together sum to 1.

    Raises:
        MetricError: the installed torchmetrics carries other factors.

    >>> alpha, beta = read_factors()
    >>> round(float(sum(part.sum() for part in beta)), 6)
    0.12395
    """
    inside = "functional/image/dists_models/weights.pt"
    stored = read_installed("torchmetrics", inside, FACTORS, "factors than DISTS published")
    both = [stored[name].flatten().double() for name in ("alpha", "beta")]
    whole = sum(float(part.sum()) for part in both)
    alpha, beta = ((part / whole).split(CHANNELS) for part in both)
    return tuple(alpha), tuple(beta)


@dataclass(frozen=True)
class Layer:
    """One layer of one image: its channels without their mean, ``(channels, places)``, and both moments."""

    centred: Tensor
    mean: Tensor
    variance: Tensor


class PooledVGG:
    """VGG16's convolutions in five stages, with L2 pooling between them.

    Args:
        trunk: a state dict of torchvision's VGG16: every ``features.*`` is used, ``classifier.*`` is dropped.
        device: where it runs.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """

    def __init__(self, trunk: Mapping[str, Tensor], device: str = "cpu") -> None:
        from torchvision.models import vgg16

        self.trunk = load_strictly(
            lambda: vgg16(weights=None, init_weights=False).features,
            trunk,
            "the trunk of dists",
            rename=lambda name: name.removeprefix("features."),
            drop=("classifier.*",),
            error=MetricError,
        ).to(device)
        taps = torch.tensor(_TAPS)
        window = taps[:, None] * taps
        self._window = (window / window.sum()).to(device)
        self.factors = [[part.to(device) for part in parts] for parts in read_factors()]
        self.device = device

    def layers(self, image: Image) -> tuple[Layer, ...]:
        """The image in [0, 1] and relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3: 170 MB for 512 x 768."""
        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device)
        planes = pixels.permute(2, 0, 1)[None] / 255
        mean, deviation = (torch.tensor(three, device=self.device)[:, None, None] for three in (_MEAN, _DEVIATION))
        layers, values = [planes], (planes - mean) / deviation
        for module in self.trunk[:-1]:
            if isinstance(module, torch.nn.MaxPool2d):
                layers.append(values)
                values = self._pool(values)
            else:
                values = module(values)
        return tuple(_layer(values[0].flatten(1)) for values in (*layers, values))

    def distance(self, first: Sequence[Layer], second: Sequence[Layer]) -> float:
        """1 minus the weighted similarities of means and covariances."""
        unlike = 0.0
        for x, y, alpha, beta in zip(first, second, *self.factors, strict=True):
            means = (2 * x.mean * y.mean + _C) / (x.mean**2 + y.mean**2 + _C)
            covariance = (x.centred * y.centred).mean(1).double()
            structure = (2 * covariance + _C) / (x.variance + y.variance + _C)
            unlike += float((alpha * (1 - means)).sum() + (beta * (1 - structure)).sum())
        return unlike

    def _pool(self, values: Tensor) -> Tensor:
        channels = values.shape[1]
        window = self._window.expand(channels, 1, 3, 3)
        return (functional.conv2d(values**2, window, stride=2, padding=1, groups=channels) + 1e-12).sqrt_()


def _layer(values: Tensor) -> Layer:
    mean = values.mean(1)
    centred = values - mean[:, None]
    return Layer(centred, mean.double(), (centred**2).mean(1).double())


def shrink(image: Image) -> Image:
    """The image with its short side at 256 pixels, bilinear and antialiased; a smaller one as it is.

    >>> shrink(np.zeros((512, 768, 3), np.uint8)).shape
    (256, 384, 3)
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= SHORT_SIDE:
        return image
    size = (int(SHORT_SIDE * width / short), int(SHORT_SIDE * height / short))
    return np.array(pil.fromarray(np.ascontiguousarray(image)).resize(size, pil.Resampling.BILINEAR))


class DISTS(WithNetwork[PooledVGG], ComparingMetric[tuple[Layer, ...]]):
    """DISTS of 8-bit RGB, 0 for identical images; ``given`` is a state dict of torchvision's VGG16."""

    name = "dists"
    source = "Ding et al., TPAMI 2022; full size, RGB"
    needs = (Package("torchmetrics"), Weights(CARDS["vgg16-imagenet"]))
    shrinks: ClassVar[bool] = False

    def load(self, given: Mapping[str, Tensor] | None) -> PooledVGG:
        return PooledVGG(read_tensors(CARDS["vgg16-imagenet"]) if given is None else given, self.device)

    def compare(self, original: tuple[Layer, ...], reconstruction: tuple[Layer, ...]) -> float:
        return self.network.distance(original, reconstruction)

    def compute(self, image: Image) -> tuple[Layer, ...]:
        with torch.inference_mode(), exact():
            return self.network.layers(shrink(image) if self.shrinks else image)


SmallDISTS = variant(
    DISTS, "dists/256", source="Ding et al., TPAMI 2022; short side 256 (bilinear, antialiased), RGB", shrinks=True
)

METRICS = by_name(DISTS, SmallDISTS)

"""PieAPP v0.1 (Prashnani et al., CVPR 2018): perceptual error learned from pairwise preferences. Optional.

**Its weights are for non-commercial use only** (the authors' "Modified BSD-2 License - for Non-Commercial Use Only").
They are not used, nor meant to be downloaded, before that has been accepted: ``export RDPBENCH_ACCEPT=pieapp``.

The network compares patches of 64 x 64 pixels, gives each an error and a weight, and the weighted mean is the image's
error. How densely patches are taken changes the number: ``pieapp/dense`` every 6 pixels, which the authors recommend
for evaluation, and ``pieapp/sparse`` every 27, for speed, which is also the default of the library piq. Values of RGB
are 0 to 255. (The authors' scripts hand over OpenCV's BGR; piq's RGB is what its tests found equal to their value.)

Written from the layout of the published checkpoint, whose ``ref_score_subtract.weight`` lacks a dimension. As the first
layer after the features is linear, it is applied to each image's features and the results are subtracted: what is kept
of the original is 1024 numbers for a patch instead of 123,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from rdpbench.assets.weights import Card, Weights, read_tensors
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.lazy import Tensor, functional, torch
from rdpbench.metrics.contract import ComparingMetric, WithNetwork, by_name, variant
from rdpbench.needs import Licence
from rdpbench.networks.precision import exact

PATCH = 64
BATCH = 32
"""Patches in the network at once: 16 MB of features."""

_FILE = "PieAPPv0.1.pth"
CARD = Card(
    id="pieapp-v0.1",
    source=f"https://web.ece.ucsb.edu/~ekta/projects/PieAPPv0.1/weights/{_FILE}",
    revision="v0.1",
    file=_FILE,
    licence="Modified BSD-2, for NON-COMMERCIAL use only (The Regents of the University of California)",
    note="PieAPP, error and weight of patches",
)

CHANNELS = (3, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512)
"""Into the first convolution and out of each of the eleven; every even one is followed by pooling."""
SHAPES: dict[str, tuple[int, ...]] = {
    **{f"conv{n}.weight": (CHANNELS[n], CHANNELS[n - 1], 3, 3) for n in range(1, 12)},
    **{f"conv{n}.bias": (CHANNELS[n],) for n in range(1, 12)},
    **{f"fc1_{stack}.weight": (512, inputs) for stack, inputs in (("score", 120832), ("weight", 2048))},
    **{f"fc1_{stack}.bias": (512,) for stack in ("score", "weight")},
    **{f"fc2_{stack}.weight": (1, 512) for stack in ("score", "weight")},
    **{f"fc2_{stack}.bias": (1,) for stack in ("score", "weight")},
    "ref_score_subtract.weight": (1,),
    "ref_score_subtract.bias": (1,),
}


class Projections(NamedTuple):
    """What is needed of an image's patches: both first fully connected layers without bias, ``(patches, 512)`` each."""

    score: Tensor
    weight: Tensor


class PatchNetwork:
    """PieAPP's network from a state dict in the published layout.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: str = "cpu") -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wrong = sorted(name for name in SHAPES.keys() | shapes.keys() if SHAPES.get(name) != shapes.get(name))
        if wrong:
            lines = "; ".join(f"{name}: {shapes.get(name)} instead of {SHAPES.get(name)}" for name in wrong)
            raise MetricError(f"this is not PieAPP's checkpoint: {lines}")
        self.tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        self.device = device

    def project(self, image: Image, stride: int) -> Projections:
        """Run the convolutions on all patches whose corner lies on multiples of ``stride``."""
        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device).permute(2, 0, 1)
        grid = pixels.unfold(1, PATCH, stride).unfold(2, PATCH, stride)
        rows, columns = grid.shape[1:3]
        parts = []
        for start in range(0, rows * columns, BATCH):
            chosen = torch.arange(start, min(start + BATCH, rows * columns))
            patches = grid[:, chosen // columns, chosen % columns].transpose(0, 1).float()
            features, last = self._features(patches)
            parts.append((features @ self.tensors["fc1_score.weight"].T, last @ self.tensors["fc1_weight.weight"].T))
        return Projections(*map(torch.cat, zip(*parts, strict=True)))

    def error(self, original: Projections, reconstruction: Projections) -> float:
        """Weighted mean of the patches' errors."""
        score = 0.01 * self._dense("score", original.score - reconstruction.score)
        score = score * self.tensors["ref_score_subtract.weight"] + self.tensors["ref_score_subtract.bias"]
        weight = self._dense("weight", original.weight - reconstruction.weight) + 1e-6
        return float((score.double() * weight.double()).sum() / weight.double().sum())

    def _dense(self, which: str, hidden: Tensor) -> Tensor:
        """The rest of the first layer of a stack, and its second layer."""
        hidden = (hidden + self.tensors[f"fc1_{which}.bias"]).relu()
        return hidden @ self.tensors[f"fc2_{which}.weight"][0] + self.tensors[f"fc2_{which}.bias"]

    def _features(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Odd layers from the third on, flattened one after the other, ``(n, 120832)``; and the last alone."""
        odd = []
        values = patches
        for number in range(1, 12):
            weight, bias = self.tensors[f"conv{number}.weight"], self.tensors[f"conv{number}.bias"]
            values = functional.conv2d(values, weight, bias, padding=1).relu_()
            if number % 2 == 0:
                values = functional.max_pool2d(values, 2)
            elif number > 1:
                odd.append(values.flatten(1))
        return torch.cat(odd, 1), odd[-1]


class PieAPPSparse(WithNetwork[PatchNetwork], ComparingMetric[Projections]):
    """PieAPP with patches every 27 pixels; ``given`` are tensors in the published layout.

    Identical images score the network's constant, which is nearly 0.
    """

    name = "pieapp/sparse"
    bounds = (-math.inf, math.inf)
    source = "Prashnani et al., CVPR 2018, v0.1; RGB, patches every 27 pixels; non-commercial weights"
    needs = (Licence("pieapp", CARD.licence, "https://github.com/prashnani/PerceptualImageError"), Weights(CARD))
    minimum_side = PATCH
    stride: ClassVar[int] = 27

    def load(self, given: Mapping[str, Tensor] | None) -> PatchNetwork:
        return PatchNetwork(read_tensors(CARD) if given is None else given, self.device)

    def compare(self, original: Projections, reconstruction: Projections) -> float:
        return self.network.error(original, reconstruction)

    def compute(self, image: Image) -> Projections:
        with torch.inference_mode(), exact():
            return self.network.project(image, self.stride)


# As its authors recommend; 20 times the work.
PieAPPDense = variant(PieAPPSparse, "pieapp/dense", source=PieAPPSparse.source.replace("27", "6"), stride=6)

METRICS = by_name(PieAPPSparse, PieAPPDense)

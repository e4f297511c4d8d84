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

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rdpbench.assets.weights import Card, Weights, read_tensors
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.contract import check_original, check_pair
from rdpbench.needs import Need
from rdpbench.networks.precision import exact

if TYPE_CHECKING:
    from torch import Tensor

PATCH = 64
BATCH = 32
"""Patches in the network at once: 16 MB of features."""
ACCEPT = "RDPBENCH_ACCEPT"

CARD = Card(
    id="pieapp-v0.1",
    source="https://web.ece.ucsb.edu/~ekta/projects/PieAPPv0.1/weights/PieAPPv0.1.pth",
    revision="v0.1",
    file="PieAPPv0.1.pth",
    sha256=None,
    bytes=0,
    licence="Modified BSD-2, for NON-COMMERCIAL use only (The Regents of the University of California)",
    note="PieAPP, error and weight of patches",
)

CHANNELS = (3, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512)
"""Into the first convolution and out of each of the eleven; every even one is followed by pooling."""
SHAPES: dict[str, tuple[int, ...]] = {
    **{f"conv{n}.weight": (CHANNELS[n], CHANNELS[n - 1], 3, 3) for n in range(1, 12)},
    **{f"conv{n}.bias": (CHANNELS[n],) for n in range(1, 12)},
    "fc1_score.weight": (512, 120832),
    "fc1_score.bias": (512,),
    "fc2_score.weight": (1, 512),
    "fc2_score.bias": (1,),
    "fc1_weight.weight": (512, 2048),
    "fc1_weight.bias": (512,),
    "fc2_weight.weight": (1, 512),
    "fc2_weight.bias": (1,),
    "ref_score_subtract.weight": (1,),
    "ref_score_subtract.bias": (1,),
}


@dataclass(frozen=True)
class Licence(Need):
    """The user's word that a licence has been read, in the environment variable ``RDPBENCH_ACCEPT``."""

    word: str
    licence: str
    page: str

    def missing(self) -> str | None:
        """None if the variable's words (separated by commas) hold this one; else what the licence is, and what to type.

        >>> print(Licence("xyz", "MIT", "https://example.org").missing())
        'xyz' has weights under: MIT; read it at https://example.org; to accept, type: export RDPBENCH_ACCEPT=xyz
        """
        words = [word.strip() for word in os.environ.get(ACCEPT, "").split(",") if word.strip()]
        if self.word in words:
            return None
        typed = ",".join([*words, self.word])
        return (
            f"{self.word!r} has weights under: {self.licence}; read it at {self.page}; "
            f"to accept, type: export {ACCEPT}={typed}"
        )


@dataclass(frozen=True)
class Projected:
    """What is needed of an image's patches: both first fully connected layers without bias, ``(patches, 512)`` each."""

    score: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Prepared:
    """The original, and what the network says of its patches."""

    original: Image
    patches: Projected


class Network:
    """PieAPP's network from a state dict in the published layout.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """

    def __init__(self, tensors: Mapping[str, Tensor], device: str = "cpu") -> None:
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wrong = sorted(name for name in SHAPES.keys() | found.keys() if SHAPES.get(name) != found.get(name))
        if wrong:
            told = "; ".join(f"{name}: {found.get(name)} instead of {SHAPES.get(name)}" for name in wrong)
            raise MetricError(f"this is not PieAPP's checkpoint: {told}")
        self.tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        self.device = device

    def project(self, image: Image, stride: int) -> Projected:
        """Run the convolutions on all patches whose corner lies on multiples of ``stride``."""
        import torch

        pixels = torch.tensor(np.ascontiguousarray(image), device=self.device).permute(2, 0, 1)
        grid = pixels.unfold(1, PATCH, stride).unfold(2, PATCH, stride)
        rows, columns = grid.shape[1:3]
        parts = []
        for start in range(0, rows * columns, BATCH):
            chosen = torch.arange(start, min(start + BATCH, rows * columns))
            patches = grid[:, chosen // columns, chosen % columns].transpose(0, 1).float()
            features, last = self._features(patches)
            parts.append((features @ self.tensors["fc1_score.weight"].T, last @ self.tensors["fc1_weight.weight"].T))
        scores, weights = zip(*parts, strict=True)
        return Projected(torch.cat(scores), torch.cat(weights))

    def error(self, original: Projected, reconstruction: Projected) -> float:
        """Weighted mean of the patches' errors."""
        hidden = (original.score - reconstruction.score + self.tensors["fc1_score.bias"]).relu()
        score = 0.01 * (hidden @ self.tensors["fc2_score.weight"][0] + self.tensors["fc2_score.bias"])
        score = score * self.tensors["ref_score_subtract.weight"] + self.tensors["ref_score_subtract.bias"]
        hidden = (original.weight - reconstruction.weight + self.tensors["fc1_weight.bias"]).relu()
        weight = hidden @ self.tensors["fc2_weight.weight"][0] + self.tensors["fc2_weight.bias"] + 1e-6
        return float((score.double() * weight.double()).sum() / weight.double().sum())

    def _features(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Odd layers from the third on, flattened one after the other, ``(n, 120832)``; and the last alone."""
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        kept = []
        values = patches
        for number in range(1, 12):
            weight, bias = self.tensors[f"conv{number}.weight"], self.tensors[f"conv{number}.bias"]
            values = conv2d(values, weight, bias, padding=1).relu_()
            if number % 2 == 0:
                values = max_pool2d(values, 2)
            elif number > 1:
                kept.append(values.flatten(1))
        return torch.cat(kept, 1), kept[-1]


@cache
def _shared(device: str) -> Network:
    """One for both metrics of a process."""
    return Network(read_tensors(CARD), device)


class PieAPPSparse:
    """PieAPP with patches every 27 pixels; identical images score the network's constant, which is nearly 0.

    >>> PieAPPSparse().stride
    27
    """

    name: ClassVar[str] = "pieapp/sparse"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    source: ClassVar[str] = "Prashnani et al., CVPR 2018, v0.1; RGB, patches every 27 pixels; non-commercial weights"
    needs: ClassVar[tuple[Need, ...]] = (
        Licence("pieapp", CARD.licence, "https://github.com/prashnani/PerceptualImageError"),
        Weights(CARD),
    )
    preload: ClassVar[tuple[str, ...]] = ("torch",)
    stride: ClassVar[int] = 27

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, device: str = "cpu") -> None:
        """Take the card's tensors, or the given ones in the published layout in their place."""
        self._network = Network(tensors, device) if tensors is not None else None
        self._device = device

    @property
    def network(self) -> Network:
        """Loaded at the first image.

        Raises:
            MissingNeed: the weights' licence has not been accepted, or they are not on this machine.
        """
        if self._network is None:
            if said := self.needs[0].missing():
                raise MissingNeed(said)
            self._network = _shared(self._device)
        return self._network

    def prepare(self, original: Image) -> Prepared:
        """What the network says of the original's patches.

        Raises:
            MetricError: not ``uint8 (H, W, 3)``, or a side below 64 pixels.
            MissingNeed: the weights' licence has not been accepted, or they are not on this machine.
        """
        check_original(original, self.name, PATCH)
        return Prepared(original, self._project(original))

    def score(self, prepared: Prepared, reconstruction: Image) -> float:
        """PieAPP of the pair. Raises `MetricError` for another size or type."""
        check_pair(prepared.original, reconstruction, self.name)
        return self.network.error(prepared.patches, self._project(reconstruction))

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)

    def _project(self, image: Image) -> Projected:
        import torch

        with torch.inference_mode(), exact():
            return self.network.project(image, self.stride)


class PieAPPDense(PieAPPSparse):
    """PieAPP with patches every 6 pixels, as its authors recommend: 20 times the work of `PieAPPSparse`.

    >>> PieAPPDense().stride
    6
    """

    name: ClassVar[str] = "pieapp/dense"
    source: ClassVar[str] = "Prashnani et al., CVPR 2018, v0.1; RGB, patches every 6 pixels; non-commercial weights"
    stride: ClassVar[int] = 6

"""Seeded random weights: networks that code real bitstreams without a download, and never a picture worth seeing.

Random layers give latents of any size: too small, and every symbol is zero; too large, and the coder does not end.
So the last layer of each transform is scaled, by powers of two: what it is measured on may differ by rounding between
machines, a power of two does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

Network = TypeVar("Network")
SEED = 20250701


def seeded(build: Callable[[], Network], seed: int = SEED) -> Network:
    """What ``build`` makes from a fixed seed; the generator of the process stays as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def picture(side: int = 128, seed: int = SEED) -> Tensor:
    """A smooth coloured pattern ``(1, 3, side, side)`` of [0, 1], to measure random transforms on."""
    import torch

    coarse = seeded(lambda: torch.rand(1, 3, 9, 9), seed)
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=True)


def last_layer(transform: nn.Module, leave_out: tuple[type, ...] = ()) -> nn.Module:
    """The last convolution of a transform, not looking into children of the given classes."""
    import torch

    children = [child for child in transform.children() if not isinstance(child, leave_out)]
    layers = [layer for child in children for layer in child.modules()]
    return [layer for layer in layers if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))][-1]


def rescale(layer: nn.Module, outputs: Callable[[], Tensor], target: float) -> None:
    """Multiply a layer's weight and bias by the power of two that brings the outputs' deviation nearest to the target.

    The outputs need not be the layer's own; what follows it should be nearly linear.
    """
    import torch

    with torch.no_grad():
        deviation = float(outputs().std())
        if not 0 < deviation < math.inf:
            raise ValueError(f"a random transform has outputs of deviation {deviation}")
        gain = 2.0 ** round(math.log2(target / deviation))
        for parameter in layer.parameters():
            parameter.mul_(gain)

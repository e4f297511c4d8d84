"""Where training begins: transforms that are principal components, so that the first step has a usable picture.

From random weights most of an hour on a CPU goes into finding what a linear transform knows at once. So each layer of
g_a begins as the principal components of what comes in, of blocks of 4, then 8, then 16 pixels; g_s as the transposed
ones. Normalisers and residual blocks begin as almost nothing, all other weights small and random.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rdpbench.codecs.learned.mini_network import MiniNetwork, NarrowResidual, Normaliser

SMALL = 0.01
"""Of the random weights, the part that stays."""
INSIDE = 0.25
"""Features inside are so much smaller than orthonormal ones, so that normalisers change them little."""


@torch.no_grad()
def components(net: MiniNetwork, planes: Tensor) -> None:
    """Set ``g_a`` and ``g_s`` from crops ``(B, 3, H, W)``, in place."""
    for one in net.modules():
        if isinstance(one, Normaliser):
            one.gamma.copy_(0.02 + 0.08 * torch.eye(len(one.gamma)))
        elif isinstance(one, NarrowResidual):
            for parameter in one.body[-1].parameters():
                parameter.mul_(SMALL)
    for transform in (net.g_a, net.g_s):
        for layer in transform:
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.weight.mul_(SMALL)
                layer.bias.zero_()
    unfold, first, _, second, *_, third = net.g_a
    up_third, *_, up_second, _, last, _ = net.g_s
    blocks = unfold(planes - 0.5)
    basis = _basis(blocks.permute(1, 0, 2, 3).flatten(1), 48)
    first.weight[:48, :, 1, 1] += INSIDE * basis
    last.weight[:, :48, 1, 1] += basis.T / INSIDE
    features = net.g_a[:3](planes - 0.5)
    _halve(second, up_second, features, 48, 1.0)
    features = net.g_a[:-1](planes - 0.5)
    _halve(third, up_third, features, features.shape[1], 1 / INSIDE)


def _halve(down: nn.Module, up: nn.Module, features: Tensor, used: int, factor: float) -> None:
    """Give a layer that halves the sides the components of 2 x 2 blocks of its first channels, and its counterpart."""
    blocks = nn.functional.unfold(features[:, :used], 2, stride=2)  # (B, used * 4, L)
    weight = down.weight
    assert isinstance(weight, Tensor)
    assert isinstance(up.weight, Tensor)
    basis = _basis(blocks.permute(1, 0, 2).flatten(1), weight.shape[0]).reshape(-1, used, 2, 2)
    weight[:, :used, 1:3, 1:3] += factor * basis
    up.weight[:, :used, 1:3, 1:3] += basis / factor


def _basis(columns: Tensor, count: int) -> Tensor:
    """The first ``count`` principal directions ``(count, D)`` of columns ``(D, N)``, without removing their mean."""
    vectors = torch.linalg.eigh(columns.double() @ columns.double().T)[1]
    return vectors.flip(1)[:, :count].T.float()


@torch.no_grad()
def steps(net: MiniNetwork, lambdas: tuple[float, ...]) -> None:
    """Set gains to the steps that are best for a squared error of weight ``lambda * 255^2`` at high rates."""
    gains = torch.tensor([0.5 * math.log(one * 255**2 * math.log(2) / 18) for one in lambdas])
    net.gain.copy_(gains[:, None].expand_as(net.gain))
    net.inverse.copy_(-gains[:, None].expand_as(net.inverse))

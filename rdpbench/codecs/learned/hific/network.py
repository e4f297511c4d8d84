"""HiFiC's networks, with the tensor names of the PyTorch port's checkpoints. It imports torch; import it in functions.

Mentzer et al., "High-Fidelity Generative Image Compression", NeurIPS 2020 (https://arxiv.org/abs/2006.09965). What the
paper leaves open is as in the port (Justin-Tan/high-fidelity-generative-compression, Apache-2.0): convolutions of the
image networks see reflected edges, those with stride 2 one row above and one column to the right; the first layer of
the hyperprior's analysis and all transposed convolutions see zeros.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-3


@dataclass(frozen=True)
class Widths:
    """Channel counts; the defaults are the paper's.

    >>> Widths().filters[-1]
    960
    """

    filters: tuple[int, ...] = (60, 120, 240, 480, 960)
    latents: int = 220
    hyper: int = 320
    blocks: int = 9
    """Residual blocks of the generator."""


class ChannelNorm(nn.Module):
    """Normalises each pixel over its channels (unbiased variance), then scales and shifts each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        normalised: Tensor = (x - mean) * torch.rsqrt(variance + EPSILON) * self.gamma + self.beta
        return normalised


class Encoder(nn.Module):
    """Images ``(B, 3, H, W)`` to latents ``(B, C, H/16, W/16)``."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        first, *others = widths.filters
        self.conv_block1 = _block(nn.ReflectionPad2d(3), nn.Conv2d(3, first, 7), first)
        channels = first
        for number, wider in enumerate(others, 2):
            down = nn.Conv2d(channels, wider, 3, stride=2)
            self.add_module(f"conv_block{number}", _block(nn.ReflectionPad2d((0, 1, 1, 0)), down, wider))
            channels = wider
        self.conv_block_out = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(channels, widths.latents, 3))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        for layer in self.children():
            x = layer(x)
        return x


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, channels, 3)
        self.norm1 = ChannelNorm(channels)
        self.norm2 = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        inner = functional.relu(self.norm1(self.conv1(_reflect(x, 1))))
        outer: Tensor = x + self.norm2(self.conv2(_reflect(inner, 1)))
        return outer


class Generator(nn.Module):
    """Quantised latents ``(B, C, H/16, W/16)`` to images ``(B, 3, H, W)``, unbounded."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        *narrower, widest = widths.filters
        head = nn.Conv2d(widths.latents, widest, 3)
        self.conv_block_init = nn.Sequential(
            ChannelNorm(widths.latents), nn.ReflectionPad2d(1), head, ChannelNorm(widest)
        )
        self.blocks = [f"resblock_{number}" for number in range(widths.blocks)]
        for name in self.blocks:
            self.add_module(name, ResidualBlock(widest))
        self.steps = [f"upconv_block{number}" for number in range(1, len(narrower) + 1)]
        channels = widest
        for name, fewer in zip(self.steps, reversed(narrower), strict=True):
            up = nn.ConvTranspose2d(channels, fewer, 3, stride=2, padding=1, output_padding=1)
            self.add_module(name, nn.Sequential(up, ChannelNorm(fewer), nn.ReLU()))
            channels = fewer
        self.conv_block_out = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(channels, 3, 7))

    def forward(self, latents: Tensor) -> Tensor:
        """See the class."""
        x = head = self.conv_block_init(latents)
        for name in self.blocks:
            x = getattr(self, name)(x)
        x = x + head
        for name in self.steps:
            x = getattr(self, name)(x)
        image: Tensor = self.conv_block_out(x)
        return image


class HyperAnalysis(nn.Module):
    """Latents ``(B, C, H, W)`` to hyperlatents ``(B, N, H/4, W/4)``."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(widths.latents, widths.hyper, 3, padding=1)
        self.conv2 = nn.Conv2d(widths.hyper, widths.hyper, 5, stride=2, padding=2, padding_mode="reflect")
        self.conv3 = nn.Conv2d(widths.hyper, widths.hyper, 5, stride=2, padding=2, padding_mode="reflect")

    def forward(self, y: Tensor) -> Tensor:
        """See the class."""
        z: Tensor = self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(y)))))
        return z


class HyperSynthesis(nn.Module):
    """Hyperlatents ``(B, N, H/4, W/4)`` to a parameter of each latent, ``(B, C, H, W)``."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(widths.hyper, widths.hyper, 5, stride=2, padding=2, output_padding=1)
        self.conv2 = nn.ConvTranspose2d(widths.hyper, widths.hyper, 5, stride=2, padding=2, output_padding=1)
        self.conv3 = nn.ConvTranspose2d(widths.hyper, widths.latents, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        parameter: Tensor = self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(z)))))
        return parameter


class Density(nn.Module):
    """A distribution for each channel of the hyperlatents: the flexible density of Ballé et al. 2018, appendix 6.1.

    Four layers with three units between them. Unlike in CompressAI's class the last one has a gate (a_3), too.
    """

    layers = 4

    def __init__(self, channels: int, units: int = 3, width: float = 10.0) -> None:
        super().__init__()
        sizes = (1, *[units] * (self.layers - 1), 1)
        scale = width ** (1 / self.layers)
        for layer, (before, after) in enumerate(itertools.pairwise(sizes)):
            start = math.log(math.expm1(1 / scale / after))
            self.register_parameter(f"H_{layer}", nn.Parameter(torch.full((channels, after, before), start)))
            self.register_parameter(f"a_{layer}", nn.Parameter(torch.zeros(channels, after, 1)))
            self.register_parameter(f"b_{layer}", nn.Parameter(torch.rand(channels, after, 1) - 0.5))

    def forward(self, values: Tensor) -> Tensor:
        """Logits of the cumulative distribution at ``(C, 1, K)`` values; they rise with the value."""
        for layer in range(self.layers):
            matrix, gate, bias = (getattr(self, f"{part}_{layer}") for part in "Hab")
            values = functional.softplus(matrix) @ values + bias
            values = values + torch.tanh(gate) * torch.tanh(values)
        return values


class Hyperprior(nn.Module):
    """Everything but the image networks."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.analysis_net = HyperAnalysis(widths)
        self.synthesis_mu = HyperSynthesis(widths)
        self.synthesis_std = HyperSynthesis(widths)
        self.hyperlatent_likelihood = Density(widths.hyper)


class Network(nn.Module):
    """All that codes; the discriminator is training's alone."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.Encoder = Encoder(widths)
        self.Generator = Generator(widths)
        self.Hyperprior = Hyperprior(widths)


def _block(pad: nn.Module, convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(pad, convolution, ChannelNorm(channels), nn.ReLU())


def _reflect(x: Tensor, margin: int) -> Tensor:
    return functional.pad(x, (margin, margin, margin, margin), mode="reflect")

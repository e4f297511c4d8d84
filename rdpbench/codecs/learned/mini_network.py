"""The network of `mini`: a mean-scale hyperprior of 2.0 million parameters whose latents are scaled for each rate.

Made to be cheap on a CPU: the image is folded to a quarter of its sides first, most channels live at an eighth, and
residual blocks are narrow in the middle. About 9,000 multiplications for each pixel and direction.

``gain`` has for each rate and channel the logarithm of what a latent is multiplied by before it is coded, ``inverse``
that of what it is multiplied by after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import tables_of
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import Frame, System, last_layer, picture, rescale, rescaled, untrained

LARGEST = 6.0
"""Scales are at most ``exp`` of this, 403: the highest of the tables is 256."""
EPSILON = 1e-3


@dataclass(frozen=True)
class MiniWidths:
    """Channels at a quarter, an eighth and a sixteenth of the sides, inside the hyperprior, and of z; rates."""

    quarter: int
    eighth: int
    latents: int
    hyper: int
    z: int
    rates: int = 6


FULL = MiniWidths(96, 128, 192, 96, 64)
TINY = MiniWidths(8, 8, 12, 8, 6)


class Normaliser(nn.Module):
    """Divisive normalisation of magnitudes, ``x / (beta + gamma |x|)`` (Johnston et al. 2019), or its inverse."""

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        # Nearly the identity; parameters are square roots, so that beta and gamma stay positive.
        self.beta = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(0.03 * torch.ones(channels, channels) + 0.3 * torch.eye(channels))

    def forward(self, features: Tensor) -> Tensor:
        gamma = self.gamma.square()[:, :, None, None]
        norm = nn.functional.conv2d(features.abs(), gamma, self.beta.square() + EPSILON)
        return features * norm if self.inverse else features / norm


class NarrowResidual(nn.Module):
    """A residual block, half as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels // 2, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels // 2, channels // 2, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels // 2, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class MiniNetwork(nn.Module):
    """The four transforms, the gains and CompressAI's two entropy models."""

    def __init__(self, widths: MiniWidths = FULL) -> None:
        super().__init__()
        a, b, m, h, z = widths.quarter, widths.eighth, widths.latents, widths.hyper, widths.z
        self.widths = widths
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, a, 3, padding=1),
            Normaliser(a),
            nn.Conv2d(a, b, 4, stride=2, padding=1),
            NarrowResidual(b),
            Normaliser(b),
            NarrowResidual(b),
            nn.Conv2d(b, m, 4, stride=2, padding=1),
        )
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(m, b, 4, stride=2, padding=1),
            NarrowResidual(b),
            Normaliser(b, inverse=True),
            NarrowResidual(b),
            nn.ConvTranspose2d(b, a, 4, stride=2, padding=1),
            Normaliser(a, inverse=True),
            nn.Conv2d(a, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.h_a = nn.Sequential(
            nn.Conv2d(m, h, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(h, h, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(h, z, 3, stride=2, padding=1),
        )
        self.h_s = nn.Sequential(
            nn.ConvTranspose2d(z, h, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(h, h, 4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(h, 2 * m, 1),
        )
        # Gains for rates about a factor of 1.5 apart.
        steps = 0.4 * (torch.arange(widths.rates) - (widths.rates - 1) / 2) + math.log(8)
        self.gain = nn.Parameter(steps[:, None].repeat(1, m))
        self.inverse = nn.Parameter(-steps[:, None].repeat(1, m))
        self.entropy_bottleneck = compressai.entropy_models.EntropyBottleneck(z)
        self.gaussian_conditional = compressai.entropy_models.GaussianConditional(None)

    def analyse(self, planes: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Latents as they are coded, and z, of images ``(B, 3, H, W)``; a quality for each, ``(B,)``."""
        y = self.g_a(planes - 0.5) * between(self.gain, quality)
        return y, self.h_a(y)

    def parameters_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means of the latents."""
        logarithms, means = self.h_s(z).chunk(2, 1)
        return logarithms.clamp(max=LARGEST).exp(), means

    def synthesise(self, latents: Tensor, quality: Tensor) -> Tensor:
        """Images of quantised latents ``(B, M, H, W)``."""
        planes: Tensor = self.g_s(latents * between(self.inverse, quality).to(latents.dtype))
        return planes.float() + 0.5


def between(logarithms: Tensor, quality: Tensor) -> Tensor:
    """Gains ``(B, C, 1, 1)`` at qualities ``(B,)`` from 1, geometrically between those of whole ones (Cui et al. 2021).

    >>> round(float(between(torch.tensor([[0.0], [2.0]]), torch.tensor([1.5]))), 3)
    2.718
    """
    place = quality - 1
    below = place.floor().long().clamp(0, len(logarithms) - 2)
    part = (place - below)[:, None].to(logarithms.dtype)
    mixed = logarithms[below] * (1 - part) + logarithms[below + 1] * part
    return mixed.exp()[:, :, None, None]


def random_network(widths: MiniWidths) -> Any:
    """The module with seeded weights and tables; its rate grows with the quality through the gains."""
    net = untrained(lambda: MiniNetwork(widths))
    middle = torch.tensor([3.0])
    with torch.no_grad():
        planes = picture()
        rescale(last_layer(net.g_a), lambda: net.analyse(planes, middle)[0], 2)
        y = net.analyse(planes, middle)[0]
        rescaled(net.h_a, y, 2)
        rescale(last_layer(net.g_s), lambda: net.synthesise(torch.round(y), middle), 0.25)
    return net


class Gained(System):
    """The network at one quality, ready to code."""

    frame = Frame(64, fill="replicate", place="corner")

    def __init__(self, net: MiniNetwork, quality: float, *, device: str = "cpu", portable: bool = False) -> None:
        tables = tables_of(net.entropy_bottleneck), tables_of(net.gaussian_conditional)
        super().__init__(net, *tables, net.widths.latents, device=device, portable=portable)
        self.quality = torch.tensor([quality], dtype=torch.float64, device=device)

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        y, z = self.net.analyse(planes, self.quality.expand(len(planes)))
        return {"y": y, "z": z}

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.parameters_of(z)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.net.synthesise(latents.float(), self.quality.expand(len(latents)))

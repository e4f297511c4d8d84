"""The network of MS-ILLM and how it codes: HiFiC's transforms around a hyperprior of means and scales.

Transforms: Mentzer et al., "High-fidelity generative image compression", NeurIPS 2020, appendix; hyperprior: Minnen et
al., "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS 2018. Module names are those
of the published checkpoints. This module imports torch at its top: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder
from rdpbench.codecs.learned.frames import Frame
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import last_layer, picture, rescale, seeded
from rdpbench.codecs.learned.tables import tables_of

EPSILON = 1e-3
"""Added to variances."""
BLOCKS = 9
"""Residual blocks of the generator."""


@dataclass(frozen=True)
class Widths:
    """Channel counts."""

    filters: tuple[int, ...]
    """Of the encoder's five stages; the generator has them the other way round."""
    latent: int
    hyper: int


FULL = Widths((60, 120, 240, 480, 960), 220, 320)
TINY = Widths((4, 6, 8, 10, 12), 10, 8)


class ChannelNorm(nn.Module):
    """Normalisation over the channels of each position, with the unbiased variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, values: Tensor) -> Tensor:
        variance, mean = torch.var_mean(values, dim=1, keepdim=True)
        # In place: at full resolution each copy holds 240 bytes for a pixel.
        return (values - mean).mul_(torch.rsqrt(variance + EPSILON)).mul_(self.gamma).add_(self.beta)


class Encoder(nn.Module):
    """Image ``(B, 3, H, W)`` to y ``(B, latent, H / 16, W / 16)``."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        stages: list[nn.Module] = [_stage(nn.Conv2d(3, widths.filters[0], 7, padding=3))]
        for before, after in pairwise(widths.filters):
            stages.append(_stage(nn.Conv2d(before, after, 3, stride=2, padding=1)))
        self.blocks = nn.Sequential(*stages, nn.Conv2d(widths.filters[-1], widths.latent, 3, padding=1))

    def forward(self, planes: Tensor) -> Tensor:
        y: Tensor = self.blocks(planes)
        return y


class Residual(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.sequence = nn.Sequential(first, ChannelNorm(channels), nn.ReLU(), second, ChannelNorm(channels))

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = values + self.sequence(values)
        return out


class Generator(nn.Module):
    """Quantised y to the image; a skip goes around all residual blocks."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        filters = widths.filters[::-1]
        head = nn.Conv2d(widths.latent, filters[0], 3, padding=1)
        self.block_0 = nn.Sequential(ChannelNorm(widths.latent), head, ChannelNorm(filters[0]))
        self.resid_blocks = nn.Sequential(*(Residual(filters[0]) for _ in range(BLOCKS)))
        stages: list[nn.Module] = [
            _stage(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))
            for before, after in pairwise(filters)
        ]
        self.blocks = nn.Sequential(*stages, nn.Conv2d(filters[-1], 3, 7, padding=3))

    def forward(self, y: Tensor) -> Tensor:
        start = self.block_0(y)
        planes: Tensor = self.blocks(start + self.resid_blocks(start))
        return planes


class Autoencoder(nn.Module):
    """All of it, with the names of the checkpoints."""

    def __init__(self, widths: Widths = FULL) -> None:
        super().__init__()
        latent, hyper = widths.latent, widths.hyper
        self.widths = widths
        self.encoder, self.decoder = Encoder(widths), Generator(widths)
        self.hyper_analysis = nn.Sequential(
            nn.Conv2d(latent, hyper, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hyper, hyper, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(hyper, hyper, 5, stride=2, padding=2),
        )
        self.hyper_synthesis_mean = _synthesis(hyper, latent)
        self.hyper_synthesis_scale = _synthesis(hyper, latent)
        self.hyper_bottleneck = compressai.entropy_models.EntropyBottleneck(hyper)
        self.latent_bottleneck = compressai.entropy_models.GaussianConditional(None)


def _stage(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(layer, ChannelNorm(layer.out_channels), nn.ReLU())


def _synthesis(hyper: int, latent: int) -> nn.Sequential:
    up = [nn.ConvTranspose2d(hyper, hyper, 5, stride=2, padding=2, output_padding=1) for _ in range(2)]
    return nn.Sequential(up[0], nn.ReLU(), up[1], nn.ReLU(), nn.Conv2d(hyper, latent, 3, padding=1))


def random_network(widths: Widths, quality: int) -> Autoencoder:
    """The network with seeded weights; its latents, and with them its rate, grow with the quality."""
    net = seeded(lambda: Autoencoder(widths)).eval()
    deviation = 2.0 ** (quality - 2)  # a whole power of two, as `rescale`'s, so that each rate has more bits
    with torch.no_grad():
        planes = picture()
        rescale(last_layer(net.encoder), lambda: net.encoder(planes), deviation)
        y = net.encoder(planes)
        rescale(last_layer(net.hyper_analysis), lambda: net.hyper_analysis(y), 2)
        z = torch.round(net.hyper_analysis(y))
        means, scales, pixels = map(last_layer, (net.hyper_synthesis_mean, net.hyper_synthesis_scale, net.decoder))
        rescale(means, lambda: net.hyper_synthesis_mean(z), deviation)
        rescale(scales, lambda: net.hyper_synthesis_scale(z), deviation)
        scales.bias.add_(deviation)  # type: ignore[operator]  # a convolution
        rescale(pixels, lambda: net.decoder(torch.round(y)), 0.25)
        pixels.bias.add_(0.5)  # type: ignore[operator]  # a convolution
    return net


class MeanScale:
    """The network, ready to code (`rdpbench.codecs.learned.systems.System`).

    As in the official code, encoder and generator run on the device, and all that both sides compute (the hyperprior)
    on the processor: a device of another kind at the decoder changes no symbol.
    """

    frame = Frame(64, fill="reflect", place="corner")
    device = "cpu"
    """Of latents and coder."""

    def __init__(self, net: Autoencoder, *, device: str = "cpu", portable: bool = False) -> None:
        """Take the network over; with ``portable`` all but the generator goes to double precision."""
        self.portable = portable
        self.z, self.y = tables_of(net.hyper_bottleneck), tables_of(net.latent_bottleneck)
        self.widths = net.widths
        self.net = net.eval().requires_grad_(False)
        if portable:
            for part in (net.encoder, net.hyper_analysis, net.hyper_synthesis_mean, net.hyper_synthesis_scale):
                part.double()
        self.place = device
        net.encoder.to(device)
        net.decoder.to(device)

    def sections(self, height: int, width: int) -> dict[str, int]:
        """See `System`."""
        pixels = height * width
        return {"z": self.widths.hyper * pixels // 4096, "y": self.widths.latent * pixels // 256}

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """Latents y and z."""
        y = self.net.encoder(planes.to(self.place)).cpu()
        return {"y": y, "z": self.net.hyper_analysis(y)}

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """See `System`."""
        shape = (self.widths.hyper, height // 64, width // 64)
        z = coder.factorized("z", self.z, shape, latents.get("z"))
        means, scales = self.net.hyper_synthesis_mean(z), self.net.hyper_synthesis_scale(z)
        return coder.gaussian("y", self.y, scales, means, latents.get("y"))

    def synthesise(self, latents: Tensor) -> Tensor:
        """See `System`."""
        planes: Tensor = self.net.decoder(latents.float().to(self.place))
        return planes

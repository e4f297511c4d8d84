"""The network of MS-ILLM and how it codes: HiFiC's transforms around a hyperprior of means and scales.

Transforms: Mentzer et al., "High-fidelity generative image compression", NeurIPS 2020, appendix; hyperprior: Minnen et
al., "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS 2018. Module names are those
of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import tables_of
from rdpbench.codecs.learned.hific.network import ChannelNorm
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import Frame, System, picture, rescaled, untrained

BLOCKS = 9
"""Residual blocks of the generator."""


@dataclass(frozen=True)
class MsillmWidths:
    """Channel counts: of the encoder's five stages (the generator has them the other way round), of y and of z."""

    filters: tuple[int, ...]
    latent: int
    hyper: int


FULL = MsillmWidths((60, 120, 240, 480, 960), 220, 320)
TINY = MsillmWidths((4, 6, 8, 10, 12), 10, 8)


class MsillmEncoder(nn.Module):
    """Image ``(B, 3, H, W)`` to y ``(B, latent, H / 16, W / 16)``."""

    def __init__(self, widths: MsillmWidths) -> None:
        super().__init__()
        stages: list[nn.Module] = [_stage(nn.Conv2d(3, widths.filters[0], 7, padding=3))]
        for before, after in pairwise(widths.filters):
            stages.append(_stage(nn.Conv2d(before, after, 3, stride=2, padding=1)))
        self.blocks = nn.Sequential(*stages, nn.Conv2d(widths.filters[-1], widths.latent, 3, padding=1))

    def forward(self, planes: Tensor) -> Tensor:
        return self.blocks(planes)


class ResidualPair(nn.Module):
    """Two convolutions beside a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.sequence = nn.Sequential(first, ChannelNorm(channels), nn.ReLU(), second, ChannelNorm(channels))

    def forward(self, values: Tensor) -> Tensor:
        return values + self.sequence(values)


class MsillmGenerator(nn.Module):
    """Quantised y to the image; a skip goes around all residual blocks."""

    def __init__(self, widths: MsillmWidths) -> None:
        super().__init__()
        filters = widths.filters[::-1]
        head = nn.Conv2d(widths.latent, filters[0], 3, padding=1)
        self.block_0 = nn.Sequential(ChannelNorm(widths.latent), head, ChannelNorm(filters[0]))
        self.resid_blocks = nn.Sequential(*(ResidualPair(filters[0]) for _ in range(BLOCKS)))
        stages: list[nn.Module] = [
            _stage(nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1))
            for before, after in pairwise(filters)
        ]
        self.blocks = nn.Sequential(*stages, nn.Conv2d(filters[-1], 3, 7, padding=3))

    def forward(self, y: Tensor) -> Tensor:
        start = self.block_0(y)
        return self.blocks(start + self.resid_blocks(start))


class MsillmNetwork(nn.Module):
    """All of it, with the names of the checkpoints."""

    def __init__(self, widths: MsillmWidths = FULL) -> None:
        super().__init__()
        latent, hyper = widths.latent, widths.hyper
        self.widths = widths
        self.encoder, self.decoder = MsillmEncoder(widths), MsillmGenerator(widths)
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


def random_network(widths: MsillmWidths, quality: int) -> MsillmNetwork:
    """The network with seeded weights and tables; its latents, and with them its rate, grow with the quality."""
    net: MsillmNetwork = untrained(lambda: MsillmNetwork(widths))
    deviation = 2.0 ** (quality - 2)  # a whole power of two, as `rescale`'s, so that each rate has more bits
    y = rescaled(net.encoder, picture(), deviation)
    z = torch.round(rescaled(net.hyper_analysis, y, 2))
    rescaled(net.hyper_synthesis_mean, z, deviation)
    rescaled(net.hyper_synthesis_scale, z, deviation, deviation)
    rescaled(net.decoder, torch.round(y), 0.25, 0.5)
    return net


class MsillmSystem(System):
    """The network, ready to code.

    As in the official code, encoder and generator run on the device, and all that both sides compute (the hyperprior)
    on the processor: a device of another kind at the decoder changes no symbol.
    """

    frame = Frame(64, fill="reflect", place="corner")
    synthesis = "decoder"

    def __init__(self, net: MsillmNetwork, *, device: str = "cpu", portable: bool = False) -> None:
        tables = tables_of(net.hyper_bottleneck), tables_of(net.latent_bottleneck)
        super().__init__(net, *tables, net.widths.latent, portable=portable)
        self.place = device
        net.encoder.to(device)
        net.decoder.to(device)

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        y = self.net.encoder(planes.to(self.place)).cpu()
        return {"y": y, "z": self.net.hyper_analysis(y)}

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.hyper_synthesis_scale(z), self.net.hyper_synthesis_mean(z)

    def synthesise(self, latents: Tensor) -> Tensor:
        return super().synthesise(latents.to(self.place))

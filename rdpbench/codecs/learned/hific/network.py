"""HiFiC's networks, with the tensor names of the PyTorch port's checkpoints, and how they are coded with.

Mentzer et al., "High-Fidelity Generative Image Compression", NeurIPS 2020 (https://arxiv.org/abs/2006.09965). What the
paper leaves open is as in the port (Justin-Tan/high-fidelity-generative-compression, Apache-2.0): convolutions of the
image networks see reflected edges, those with stride 2 one row above and one column to the right; the first layer of
the hyperprior's analysis and all transposed convolutions see zeros.

A row of the port's tables reaches as far as all but 2^-8 of the probability; what lies beyond is escaped. Its
checkpoints hold no tables: its coder builds them each time, in single precision. Here they are built in double.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Tables, below_normal, check_tables, default_scales, symmetric_row
from rdpbench.codecs.learned.systems import Frame, System, picture, rescaled, seeded
from rdpbench.errors import CodecError

EPSILON = 1e-3


@dataclass(frozen=True)
class HificWidths:
    """Channel counts; the defaults are the paper's.

    >>> HificWidths().filters[-1]
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
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        # In place: at full resolution each copy holds 240 bytes for a pixel.
        return (x - mean).mul_(torch.rsqrt(variance + EPSILON)).mul_(self.gamma).add_(self.beta)


class HificEncoder(nn.Module):
    """Images ``(B, 3, H, W)`` to latents ``(B, C, H/16, W/16)``."""

    def __init__(self, widths: HificWidths) -> None:
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
        inner = functional.relu(self.norm1(self.conv1(_reflect(x, 1))))
        return x + self.norm2(self.conv2(_reflect(inner, 1)))


class HificGenerator(nn.Module):
    """Quantised latents ``(B, C, H/16, W/16)`` to images ``(B, 3, H, W)``, unbounded."""

    def __init__(self, widths: HificWidths) -> None:
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
        x = head = self.conv_block_init(latents)
        for name in self.blocks:
            x = getattr(self, name)(x)
        x = x + head
        for name in self.steps:
            x = getattr(self, name)(x)
        return self.conv_block_out(x)


class ThreeLayers(nn.Module):
    """Three convolutions with ReLU between them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = layers

    def forward(self, values: Tensor) -> Tensor:
        return self.conv3(functional.relu(self.conv2(functional.relu(self.conv1(values)))))


def hyper_analysis(widths: HificWidths) -> ThreeLayers:
    """Latents ``(B, C, H, W)`` to hyperlatents ``(B, N, H/4, W/4)``."""
    first = nn.Conv2d(widths.latents, widths.hyper, 3, padding=1)
    down = (nn.Conv2d(widths.hyper, widths.hyper, 5, 2, padding=2, padding_mode="reflect") for _ in range(2))
    return ThreeLayers(first, *down)


def hyper_synthesis(widths: HificWidths) -> ThreeLayers:
    """Hyperlatents ``(B, N, H/4, W/4)`` to a parameter of each latent, ``(B, C, H, W)``."""
    up = [nn.ConvTranspose2d(widths.hyper, widths.hyper, 5, 2, padding=2, output_padding=1) for _ in range(2)]
    return ThreeLayers(*up, nn.ConvTranspose2d(widths.hyper, widths.latents, 3, padding=1))


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


class HificNetwork(nn.Module):
    """All that codes; the discriminator is training's alone."""

    def __init__(self, widths: HificWidths) -> None:
        super().__init__()
        self.Encoder = HificEncoder(widths)
        self.Generator = HificGenerator(widths)
        hyper = {"analysis_net": hyper_analysis(widths)}
        hyper |= {name: hyper_synthesis(widths) for name in ("synthesis_mu", "synthesis_std")}
        self.Hyperprior: Any = nn.ModuleDict({**hyper, "hyperlatent_likelihood": Density(widths.hyper)})


def _block(pad: nn.Module, convolution: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(pad, convolution, ChannelNorm(channels), nn.ReLU())


def _reflect(x: Tensor, margin: int) -> Tensor:
    return functional.pad(x, (margin, margin, margin, margin), mode="reflect")


SMALLEST = 65
"""Below this side some reflection inside the port's networks is wider than what it reflects."""


class PortFrame(Frame):
    """Reflection to multiples of 16, right and below; small images are continued first.

    >>> PortFrame(16, "reflect", "corner").padded(20, 100)
    (80, 112)
    """

    def padded(self, height: int, width: int) -> tuple[int, int]:
        return super().padded(max(height, SMALLEST), max(width, SMALLEST))

    def pad(self, planes: Tensor) -> Tensor:
        height, width = planes.shape[-2:]
        margins = (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height))
        return super().pad(functional.pad(planes, margins, mode="replicate"))


class HiFiCSystem(System):
    """The networks with their tables, ready to code."""

    frame = PortFrame(16, fill="reflect", place="corner")
    synthesis = "Generator"

    def __init__(
        self, net: HificNetwork, likelihood: str, symmetric: bool, *, device: str = "cpu", portable: bool = False
    ) -> None:
        """See `rdpbench.codecs.learned.hific.PortSettings` for likelihood and symmetry."""
        tables = density_tables(net.Hyperprior.hyperlatent_likelihood), scale_tables(likelihood)
        super().__init__(net, *tables, net.Hyperprior.analysis_net.conv1.in_channels, device=device, portable=portable)
        self.symmetric = symmetric

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """y, reflected to multiples of 4, and z."""
        y = self.net.Encoder((planes - 0.5) / 0.5 if self.symmetric else planes)
        height, width = y.shape[-2:]
        y = functional.pad(y, (0, -width % 4, 0, -height % 4), mode="reflect")
        return {"y": y, "z": self.net.Hyperprior.analysis_net(y)}

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.Hyperprior.synthesis_std(z), self.net.Hyperprior.synthesis_mu(z)

    def synthesise(self, latents: Tensor) -> Tensor:
        planes = super().synthesise(latents)
        return (torch.tanh(planes) + 1) / 2 if self.symmetric else planes


def random_network(widths: HificWidths, deviation: float, *, symmetric: bool) -> HificNetwork:
    """The module with seeded weights; its latents, and with them its rate, grow with the deviation."""
    net = seeded(lambda: HificNetwork(widths)).eval()
    hyper = net.Hyperprior
    y = rescaled(net.Encoder, picture(), deviation)
    z = torch.round(rescaled(hyper.analysis_net, y, 2))
    rescaled(hyper.synthesis_mu, z, deviation)
    rescaled(hyper.synthesis_std, z, deviation / 4, deviation)
    target, shift = (0.5, 0) if symmetric else (0.25, 0.5)
    rescaled(net.Generator, torch.round(y), target, shift)
    return net


TAIL = 2.0**-8
LEAST = 1e-9
"""Least probability of a hyperlatent inside its row."""
WIDEST = 1 << 12
"""No trained distribution of hyperlatents reaches so far."""


def scale_tables(likelihood: str) -> Tables:
    """Rows of the latents for the 64 scales of ``gaussian`` or ``logistic`` distributions.

    >>> len(scale_tables("gaussian").rows[-1])
    1481
    """
    scales = default_scales().double()
    below, reach = _DISTRIBUTIONS[likelihood]
    centres = [math.ceil(scale * reach) for scale in scales.tolist()]
    rows = [symmetric_row(below, scale, centre) for scale, centre in zip(scales.tolist(), centres, strict=True)]
    return _tables(rows, [-centre for centre in centres], edges=scales[:-1])


def density_tables(density: Any) -> Tables:
    """Rows of the hyperlatents, one for each channel of a `Density`; symbols are around zero."""
    exact = copy.deepcopy(density).double().cpu()
    channels = exact.H_0.shape[0]
    edge = math.log(2 / TAIL - 1)
    width = 32
    with torch.no_grad():
        while True:
            places = torch.arange(-width, width + 1, dtype=torch.float64).expand(channels, 1, -1)
            logits = exact(places)[:, 0]
            # They rise, so the number of places inside is the first place outside.
            down = (logits[:, : width + 1] > -edge).sum(1).tolist()
            up = (logits[:, width:] < edge).sum(1).tolist()
            if bool(torch.isfinite(logits).all()) and max(*down, *up) <= width:
                break
            width *= 2
            if width > WIDEST:
                raise CodecError("a distribution of hyperlatents is wider than any trained one: are these its weights?")
        # Between neighbouring edges, from whichever tail is nearer.
        edges = exact(torch.cat([places - 0.5, places[..., -1:] + 0.5], 2))[:, 0]
        lower, upper = edges[:, :-1], edges[:, 1:]
        sign = -torch.sign(lower + upper)
        pmf = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
    rows = []
    for number in range(channels):
        inside = pmf[number, width - down[number] : width + up[number] + 1].clamp(min=LEAST).tolist()
        rows.append([*inside, max(1 - math.fsum(inside), 0.0)])
    return _tables(rows, [-places_below for places_below in down], medians=torch.zeros(channels, dtype=torch.float64))


def quantised(pmf: Sequence[float]) -> list[int]:
    """Cumulative counts of 65536 as the port makes them: the sums are rounded, then none of the counts may be 0.

    CompressAI's function rounds each probability for itself; in a row of 3197 symbols 3106 of the 65536 are then lost
    to the escape.

    >>> quantised([0.25, 0.75, 0.0])
    [0, 16383, 65535, 65536]
    """
    sums = np.cumsum(np.asarray(pmf, np.float64))
    counts = np.diff(np.rint(sums / sums[-1] * 65536), prepend=0).astype(np.int64)
    for place in np.flatnonzero(counts == 0):
        counts[np.where(counts > 1, counts, 1 << 17).argmin()] -= 1  # the rarest that can spare one
        counts[place] = 1
    return [0, *np.cumsum(counts).tolist()]


def _tables(
    pmfs: Sequence[Sequence[float]], offsets: list[int], edges: Tensor | None = None, medians: Tensor | None = None
) -> Tables:
    rows = [quantised(pmf) for pmf in pmfs]
    sizes = [len(row) for row in rows]
    table = np.zeros((len(rows), max(sizes)), np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    check_tables(table, sizes, offsets)
    return Tables(rows, sizes, offsets, edges=edges, medians=medians)


def _logistic(deviations: float) -> float:
    power = math.exp(-abs(deviations))
    return (1 if deviations > 0 else power) / (1 + power)


_DISTRIBUTIONS: dict[str, tuple[Callable[[float], float], float]] = {
    "gaussian": (below_normal, -NormalDist().inv_cdf(TAIL / 2)),
    "logistic": (_logistic, math.log(2 / TAIL - 1)),
}
"""By name: what is below so many scales, and how many scales hold all but the tail."""

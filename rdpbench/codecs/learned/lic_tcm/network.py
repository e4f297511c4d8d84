"""The network of LIC-TCM: blocks that send half of their channels through convolutions, half through window attention.

Written from the paper and the layout of the published checkpoints. What these leave open was looked up in the authors'
code: which half of the channels goes where, the order of queries, keys and values, what a window sees across the edge.
Convolutional blocks, divisive normalisation and entropy models are CompressAI's classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder, Writer, tables_of
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import Frame, System, picture, rescaled, untrained


@dataclass(frozen=True)
class TcmLayout:
    """Channel counts; the defaults are the published ones."""

    width: int
    """N: what each branch of a block gets. The paper's C is twice that."""
    latent: int = 320
    hyper: int = 192
    slices: int = 5
    heads: tuple[int, ...] = (8, 16, 32, 32, 16, 8)
    """Channels of one head in the three stages of the analysis and of the synthesis."""
    hyper_head: int = 32
    attention: int = 128
    """Channels inside the attention on the latents."""
    attention_head: int = 16
    hidden: tuple[int, int] = (224, 128)
    """Channels between the layers that predict means, scales and residuals."""


WINDOW = 8
HYPER_WINDOW = 4


class WindowAttention(nn.Module):
    """Self-attention inside square windows, with a learned bias for each offset between two places."""

    offset: Tensor
    strange_rows: Tensor
    strange_columns: Tensor

    def __init__(self, channels: int, per_head: int, window: int, shifted: bool) -> None:
        """``shifted`` moves the windows by half their side, around the edge of the planes."""
        super().__init__()
        self.heads, self.window, self.shifted = channels // per_head, window, shifted
        span = 2 * window - 1
        self.relative_position_params = nn.Parameter(torch.empty(self.heads, span, span))
        nn.init.normal_(self.relative_position_params, std=0.02)
        self.embedding_layer = nn.Linear(channels, 3 * channels)
        self.linear = nn.Linear(channels, channels)
        place = torch.arange(window * window)
        rows, columns = place // window, place % window
        offset = (rows[:, None] - rows + window - 1) * span + columns[:, None] - columns + window - 1
        self.register_buffer("offset", offset, persistent=False)
        # In a shifted window, what lies on the two sides of the planes' edge are strangers.
        for name, along in (("strange_rows", rows), ("strange_columns", columns)):
            late = along >= window - window // 2
            self.register_buffer(name, late[:, None] != late, persistent=False)

    def forward(self, planes: Tensor) -> Tensor:
        """``(B, H, W, C)``; H and W are multiples of the window's side."""
        half, side = self.window // 2, self.window
        batch, height, width, channels = planes.shape
        rows, columns = height // side, width // side
        if self.shifted:
            planes = planes.roll((-half, -half), (1, 2))
        # A row of windows, times heads, stands where attention has its heads: masks then need not grow with the rows.
        split = self.embedding_layer(planes).view(batch, rows, side, columns, side, 3, self.heads, -1)
        query, key, value = split.permute(5, 1, 0, 3, 6, 2, 4, 7).reshape(
            3, rows * batch, columns * self.heads, side * side, channels // self.heads
        )
        attended = []
        for start, stop, mask in self._masks(rows, columns, batch):
            parts = (query[start:stop], key[start:stop], value[start:stop])
            added = mask.flatten(0, 1).expand(stop - start, -1, -1, -1)
            attended.append(functional.scaled_dot_product_attention(*parts, attn_mask=added))
        joined = torch.cat(attended).view(rows, batch, columns, self.heads, side, side, -1)
        out: Tensor = self.linear(joined.permute(1, 0, 4, 2, 5, 3, 6).reshape(planes.shape))
        return out.roll((half, half), (1, 2)) if self.shifted else out

    def _masks(self, rows: int, columns: int, batch: int) -> Iterable[tuple[int, int, Tensor]]:
        """First and last window row (times batch) and what is added to their scores, ``(columns, heads, P, P)``."""
        bias = self.relative_position_params.flatten(1)[:, self.offset]
        mask = bias.expand(columns, -1, -1, -1)
        if not self.shifted:
            return [(0, rows * batch, mask)]
        mask = mask.clone()
        mask[-1].masked_fill_(self.strange_columns, float("-inf"))
        last = mask.masked_fill(self.strange_rows, float("-inf"))
        upper = [(0, (rows - 1) * batch, mask)] if rows > 1 else []
        return [*upper, ((rows - 1) * batch, rows * batch, last)]


class TransformerBlock(nn.Module):
    """Window attention, then a perceptron for each place; both are added to what came in. ``(B, H, W, C)``."""

    def __init__(self, channels: int, per_head: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(channels)
        self.msa = WindowAttention(channels, per_head, window, shifted)
        self.ln2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, planes: Tensor) -> Tensor:
        planes = planes + self.msa(self.ln1(planes))
        return planes + self.mlp(self.ln2(planes))


class MixedBlock(nn.Module):
    """TCM block: one half of the channels convolved, the other attended to, then mixed and added. ``(B, 2N, H, W)``."""

    def __init__(self, width: int, per_head: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.trans_block = TransformerBlock(width, per_head, window, shifted)
        self.conv1_1 = nn.Conv2d(2 * width, 2 * width, 1)
        self.conv1_2 = nn.Conv2d(2 * width, 2 * width, 1)
        self.conv_block = compressai.layers.ResidualBlock(width, width)

    def forward(self, planes: Tensor) -> Tensor:
        near, far = self.conv1_1(planes).chunk(2, 1)
        # The residual block has its own shortcut: `near` is added twice.
        near = near + self.conv_block(near)
        far = self.trans_block(far.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return planes + self.conv1_2(torch.cat([near, far], 1))


class SqueezedAttention(nn.Module):
    """SWAtten: fewer channels, convolutions weighted by a mask from two transformer blocks, and all channels again."""

    def __init__(self, channels: int, layout: TcmLayout) -> None:
        super().__init__()
        inner = layout.attention
        self.in_conv, self.out_conv = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        convolutional = compressai.layers.AttentionBlock(inner)
        self.conv_a, self.conv_b = convolutional.conv_a, convolutional.conv_b
        blocks = [TransformerBlock(inner, layout.attention_head, WINDOW, shifted) for shifted in (False, True)]
        self.non_local_block = nn.Sequential(OrderedDict(block_1=blocks[0], block_2=blocks[1]))

    def forward(self, planes: Tensor) -> Tensor:
        planes = self.in_conv(planes)
        far = self.non_local_block(planes.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.out_conv(planes + self.conv_a(planes) * torch.sigmoid(self.conv_b(far)))


class TcmNetwork(nn.Module):
    """All parts under the names of the published checkpoints."""

    def __init__(self, layout: TcmLayout) -> None:
        super().__init__()
        self.layout = layout
        layers = compressai.layers
        double, latent, hyper = 2 * layout.width, layout.latent, layout.hyper
        down, up = layers.ResidualBlockWithStride, layers.ResidualBlockUpsample
        width, hyper_heads = layout.width, (layout.hyper_head,)
        self.g_a = nn.Sequential(
            *_stages(down, 3, width, layout.heads[:3], WINDOW), layers.conv3x3(double, latent, stride=2)
        )
        self.g_s = nn.Sequential(
            *_stages(up, latent, width, layout.heads[3:], WINDOW), layers.subpel_conv3x3(double, 3, 2)
        )
        self.h_a = nn.Sequential(
            *_stages(down, latent, width, hyper_heads, HYPER_WINDOW), layers.conv3x3(double, hyper, stride=2)
        )
        self.h_mean_s, self.h_scale_s = (
            nn.Sequential(
                *_stages(up, hyper, width, hyper_heads, HYPER_WINDOW), layers.subpel_conv3x3(double, latent, 2)
            )
            for _ in range(2)
        )
        share = latent // layout.slices
        sizes = [latent + share * number for number in range(layout.slices)]
        self.atten_mean, self.atten_scale = (
            nn.ModuleList([nn.Sequential(SqueezedAttention(size, layout)) for size in sizes]) for _ in range(2)
        )
        self.cc_mean_transforms, self.cc_scale_transforms, self.lrp_transforms = (
            nn.ModuleList([_predictor(size + extra, share, layout.hidden) for size in sizes]) for extra in (0, 0, share)
        )
        self.entropy_bottleneck = compressai.entropy_models.EntropyBottleneck(hyper)
        self.gaussian_conditional = compressai.entropy_models.GaussianConditional(None)


def _stages(change: Any, channels: int, width: int, heads: Sequence[int], window: int) -> list[nn.Module]:
    """Layers that change the sides by two, each before a block with windows as they are and one with shifted ones."""
    stages: list[nn.Module] = []
    for head in heads:
        stages.append(change(channels, 2 * width, 2))
        stages += [MixedBlock(width, head, window, shifted) for shifted in (False, True)]
        channels = 2 * width
    return stages


def _predictor(channels: int, out: int, hidden: tuple[int, int]) -> nn.Sequential:
    first, second, third = (nn.Conv2d(*pair, 3, padding=1) for pair in pairwise((channels, *hidden, out)))
    return nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)


TINY = TcmLayout(8, 20, 8, 5, (4, 8, 8, 8, 8, 4), 4, 8, 4, (12, 8))
"""The same network, narrow enough for tests."""


def random_network(layout: TcmLayout, quality: int) -> TcmNetwork:
    """The network with seeded weights and tables; its latents, and with them its rate, grow with the quality."""
    net: TcmNetwork = untrained(lambda: TcmNetwork(layout))
    deviation = 2.0 ** (quality / 2 - 1)
    with torch.no_grad():
        y = rescaled(net.g_a, picture(), deviation)
        z = torch.round(rescaled(net.h_a, y, 2))
        hypers = {side: rescaled(getattr(net, f"h_{side}_s"), z, 1) for side in ("mean", "scale")}
        done = torch.round(y).chunk(layout.slices, 1)
        for number in range(layout.slices):
            supports = {}
            for side, hyper in hypers.items():
                supports[side] = getattr(net, f"atten_{side}")[number](torch.cat([hyper, *done[:number]], 1))
                shift = deviation if side == "scale" else 0
                rescaled(getattr(net, f"cc_{side}_transforms")[number], supports[side], deviation / 2, shift)
            rescaled(net.lrp_transforms[number], torch.cat([supports["mean"], done[number]], 1), 0.5)
        rescaled(net.g_s, torch.round(y), 0.25, 0.5)
    return net


class TcmSystem(System):
    """The network, ready to code."""

    frame = Frame(128)

    def __init__(self, net: TcmNetwork, *, device: str = "cpu", portable: bool = False) -> None:
        tables = tables_of(net.entropy_bottleneck), tables_of(net.gaussian_conditional)
        super().__init__(net, *tables, net.layout.latent, device=device, portable=portable)

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        y = self.net.g_a(planes)
        return {"y": y, "z": self.net.h_a(y)}

    def code_y(self, coder: Coder, z: Tensor, y: Tensor | None) -> Tensor:
        """In slices of channels, each predicted from z and the slices before; all are in one string."""
        net, count = self.net, self.net.layout.slices
        hyper_means, hyper_scales = net.h_mean_s(z), net.h_scale_s(z)
        slices = [None] * count if y is None else y.chunk(count, 1)
        estimates = isinstance(coder, Writer)
        bits = _bits(net.entropy_bottleneck(z)) if estimates else 0.0
        done: list[Tensor] = []
        for number, given in enumerate(slices):
            support = net.atten_mean[number](torch.cat([hyper_means, *done], 1))
            means = net.cc_mean_transforms[number](support)
            scales = net.atten_scale[number](torch.cat([hyper_scales, *done], 1))
            scales = net.cc_scale_transforms[number](scales)
            quantised = coder.gaussian("y", self.y, scales, means, given)
            if estimates:
                bits += _bits(net.gaussian_conditional(quantised, scales, means))
            residual = 0.5 * torch.tanh(net.lrp_transforms[number](torch.cat([support, quantised], 1)))
            done.append(quantised + coder.exact(residual))
        coder.estimated = bits if estimates else None
        return torch.cat(done, 1)


def _bits(modelled: tuple[Tensor, Tensor]) -> float:
    """Of what an entropy model returns: values and their probabilities."""
    return -float(modelled[1].double().log2().sum())

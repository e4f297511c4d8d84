"""PerCo's hyper-encoder with its vector quantiser, and a U-Net that sees zeros in place of the quantised latents.

Names of modules are those of the published files, so that these fit without a tensor renamed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdpbench.codecs.learned.library import compressai

BLOCK = 4096
"""Vectors that are compared with the codebook at once: all of a large image would take gigabytes."""


class HyperWidths(NamedTuple):
    """Channels of a hyper-encoder: inside, of the hyper-latents, of a codebook's entry, of the VAE's latents."""

    inside: int = 192
    out: int = 320
    entry: int = 32
    latents: int = 4


PUBLISHED = HyperWidths()
TINY = HyperWidths(16, 12, 8)


class Bottleneck(nn.Module):
    """A residual block: half the channels inside, no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.layers = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )

    def forward(self, planes: Tensor) -> Tensor:
        return planes + self.layers(planes)


class Codebook(nn.Module):
    """Entries of length one. Beside them, what their running means in training left in the files."""

    embed: Tensor

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        shapes = {"initted": (1,), "cluster_size": (1, entries), "embed_avg": (1, entries, width)}
        for name, shape in {**shapes, "embed": (1, entries, width)}.items():
            self.register_buffer(name, torch.zeros(shape))


class Quantizer(nn.Module):
    """The nearest entry in angle, among vectors of few numbers between two linear layers."""

    def __init__(self, channels: int, entries: int, width: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(channels, width)
        self.project_out = nn.Linear(width, channels)
        self._codebook = Codebook(entries, width)

    def directions(self, planes: Tensor) -> Tensor:
        """``(B, h, w, width)``: what is quantised, vectors of length one, of ``(B, channels, h, w)``."""
        return functional.normalize(self.project_in(planes.permute(0, 2, 3, 1)), dim=-1)

    def indices(self, directions: Tensor) -> Tensor:
        """``int64 (B, h, w)``: the entry with the largest cosine, the first of equals."""
        entries = self._codebook.embed[0].T
        flat = directions.flatten(0, -2)
        nearest = [(flat[start : start + BLOCK] @ entries).argmax(-1) for start in range(0, len(flat), BLOCK)]
        return torch.cat(nearest).reshape(directions.shape[:-1])

    def entries(self, indices: Tensor) -> Tensor:
        """``(B, h, w, width)`` of indices ``(B, h, w)``."""
        return functional.embedding(indices, self._codebook.embed[0])

    def planes(self, vectors: Tensor) -> Tensor:
        """``(B, channels, h, w)`` of entries or directions ``(B, h, w, width)``: what the U-Net is shown."""
        return self.project_out(vectors).permute(0, 3, 1, 2)


class HyperEncoder(nn.Module):
    """Latents of the VAE to fewer vectors. Where the grid stays as fine, a kernel is 1 x 1; where it halves, 5 x 5."""

    def __init__(self, stride: int, entries: int, widths: HyperWidths = PUBLISHED) -> None:
        """Take the stride, 1, 2, 4 or 8: the last layer halves first."""
        super().__init__()
        attention = compressai.layers.AttentionBlock
        inside, out, entry, latents = widths

        def stage(inputs: int, *, halves: bool) -> list[nn.Module]:
            first = nn.Conv2d(inputs, inside, 5, 2, 2) if halves else nn.Conv2d(inputs, inside, 1)
            return [first, *(Bottleneck(inside) for _ in range(3))]

        self.backbone = nn.Sequential(
            *stage(latents, halves=stride >= 8),
            *stage(inside, halves=stride >= 4),
            attention(inside),
            *stage(inside, halves=stride >= 2),
            nn.Conv2d(inside, out, 1),
            attention(out),
        )
        self.quantizer = Quantizer(out, entries, entry)

    def directions(self, latents: Tensor) -> Tensor:
        """``(B, h, w, entry)``: what is quantised, of scaled latents ``(B, 4, H, W)``."""
        return self.quantizer.directions(self.backbone(latents))


class Blindfolded(nn.Module):
    """A U-Net whose first half of the batch sees no hyper-latent: what guidance by text and space keeps away from."""

    def __init__(self, unet: Any, channels: int) -> None:
        """Take the U-Net and the number of its input channels that are latents."""
        super().__init__()
        self.unet, self.channels = unet, channels

    def forward(self, seen: Tensor, *others: Any, **options: Any) -> Any:
        away, towards = seen.chunk(2)
        away = torch.cat([away[:, : self.channels], torch.zeros_like(away[:, self.channels :])], dim=1)
        return self.unet(torch.cat([away, towards]), *others, **options)


def shown(planes: Tensor, height: int, width: int) -> Tensor:
    """Hyper-latents enlarged to the latents' size by repetition.

    >>> shown(torch.arange(4.0).reshape(1, 1, 2, 2), 4, 4)[0, 0, 1].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    return functional.interpolate(planes, size=(height, width), mode="nearest")

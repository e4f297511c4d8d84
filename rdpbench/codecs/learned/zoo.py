"""The codecs of CompressAI's zoo, with the weights that its authors trained (InterDigital, BSD-3-Clause-Clear).

====================  ======  =====================================================================================
codec                 rates   paper
====================  ======  =====================================================================================
bmshj2018-factorized  1 to 8  Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018: one
                              distribution for each channel
bmshj2018-hyperprior  1 to 8  the same: a scale for each latent, from a hyperprior
mbt2018-mean          1 to 8  Minnen et al., "Joint autoregressive and hierarchical priors", NeurIPS 2018: mean and
                              scale from a hyperprior
mbt2018               1 to 8  the same, and from the latents before (masked 5 x 5 convolution)
cheng2020-anchor      1 to 6  Cheng et al., "Learned image compression with discretized Gaussian mixture likelihoods
                              and attention modules", CVPR 2020, as CompressAI has it: residual blocks, one Gaussian
cheng2020-attn        1 to 6  the same with attention
====================  ======  =====================================================================================

In the bitstream: height and width, the string of z (but for the factorized model), the string of y; with
``portable=true`` the doubtful cases. The latents' sizes follow from the image's.

Networks are CompressAI's own classes. Where this departs from its ``eval_model``, and why:

- height, width and the strings' lengths are counted: 6 to 9 bytes.
- What decides symbols is computed at one thread and batch 1, whatever the transforms run at.
- mbt2018 and cheng2020 code their latents along wavefronts instead of row by row. A latent depends on two rows above
  and two columns to the left, so all with the same ``column + 3 row`` are computed together: 144 steps instead of 1536
  for 512 x 768 pixels. Same distributions, same number of bits, another order in the string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdpbench.assets.load import shape_of
from rdpbench.assets.weights import Card
from rdpbench.codecs.contract import Rate, Side, option
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.entropy import Coder, tables_of
from rdpbench.codecs.learned.systems import System, picture, rescaled, untrained
from rdpbench.lazy import LazyModule, Tensor, functional, torch

library: Any = LazyModule("rdpbench.codecs.learned.library")

ROOT = "https://compressai.s3.amazonaws.com/models/v1"
FILES = {
    "bmshj2018-factorized": {
        "mse": "bmshj2018-factorized-prior 446d5c7f 87279a02 5c6f152b 1ed4405a 866ba797 9b02ea3a 6dfd6734 5232faa3",
        "ms-ssim": "bmshj2018-factorized-ms-ssim "
        "9781d705 4a584386 5352f123 4f91b847 b3a88897 ee028763 8c265a29 8811bd14",
    },
    "bmshj2018-hyperprior": {
        "mse": "bmshj2018-hyperprior 7eb97409 93677231 6d87be32 de1b779c f8b614e1 1ab9c41e 3804dcbd a583f0cf",
        "ms-ssim": "bmshj2018-hyperprior-ms-ssim "
        "5cf249be 1ff60d1f 92dd7878 4377354e c34afc8d 3a6d8229 8747d3bc cc15b5f3",
    },
    "mbt2018-mean": {
        "mse": "mbt2018-mean e522738d e54a039d 723404a8 6dba02a3 d504e8eb a19628ab d5d441d1 8089ae3e",
        "ms-ssim": "mbt2018-mean-ms-ssim 5bf9c0b6 e2a1bf3f 640ce819 12626c13 1be7f059 b83bf379 ddf9644c 0cc7b94f",
    },
    "mbt2018": {
        "mse": "mbt2018 3f36cd77 43b70cdd 22901978 456e2af9 b4a046dd 7052e5ea 8ba2bf82 dd0097aa",
        "ms-ssim": "mbt2018-ms-ssim 2878436b c41cb208 d0dd64e8 a120e037 9b30e3b7 f8b3626f 16e6ff50 0cb49d43",
    },
    "cheng2020-anchor": {
        "mse": "cheng2020-anchor dad2ebff a29008eb e49be189 98b0b468 23852949 4c052b1a",
        "ms-ssim": "cheng2020_anchor-ms-ssim 20f521db c7ff5812 c23e22d5 0e658304 c0a95e77 f2dc1913",
    },
    "cheng2020-attn": {
        "mse": "cheng2020_attn-mse 465f2b64 e0805385 2d07bbdf f7b0ccf2 26c8920e 730501f2",
        "ms-ssim": "cheng2020_attn-ms-ssim c5381d91 5dad201d 5c9be841 8b2f647e 5ca1f34c 216423ec",
    },
}
"""By architecture and metric: what the files' names begin with, then for each quality the digits of its sha256."""

NETWORKS = {
    "bmshj2018-factorized": ("FactorizedPrior", 5, (128, 192), (192, 320)),
    "bmshj2018-hyperprior": ("ScaleHyperprior", 5, (128, 192), (192, 320)),
    "mbt2018-mean": ("MeanScaleHyperprior", 4, (128, 192), (192, 320)),
    "mbt2018": ("JointAutoregressiveHierarchicalPriors", 4, (192, 192), (192, 320)),
    "cheng2020-anchor": ("Cheng2020Anchor", 3, (128,), (192,)),
    "cheng2020-attn": ("Cheng2020Attention", 3, (128,), (192,)),
}
"""By architecture: CompressAI's class, up to which quality the first channel counts (N, M) hold, and those beyond."""


def widths(architecture: str, quality: int) -> tuple[int, ...]:
    """Channel counts of the published network.

    >>> widths("mbt2018-mean", 5)
    (192, 320)
    """
    _, last, narrow, wide = NETWORKS[architecture]
    return narrow if quality <= last else wide


def own_widths(loaded: object, count: int) -> tuple[int, ...]:
    """Channel counts (N, and M where there are two) of a file of the user's, from its analysis transform.

    >>> own_widths({}, 2)
    ()
    """
    # One width where blocks are residual; else that of the first layer and that of the last.
    layers = ["g_a.0.conv1"] if count == 1 else ["g_a.0", "g_a.6"]
    shapes = [shape_of(loaded, f"{layer}.weight") or shape_of(loaded, f"{layer}.bias") for layer in layers]
    return tuple(shape[0] for shape in shapes if shape) if all(shapes) else ()


@dataclass(frozen=True)
class Zoo(LearnedCodec):
    """What the six share."""

    rate = Rate("quality", 1, 8)
    revision = "models/v1"
    licence = "BSD-3-Clause-Clear, as CompressAI; the weights state no licence of their own"

    quality: int = 1
    metric: str = option("mse", ("mse", "ms-ssim"))
    """What it was trained for: ``mse`` or ``ms-ssim``."""

    def card(self) -> Card:
        stem, *digits = FILES[self.name][self.metric].split()
        file = f"{stem}-{self.quality}-{digits[self.quality - 1]}.pth.tar"
        return self.card_of(
            id=f"compressai/{self.name}-{self.metric}-{self.quality}",
            source=f"{ROOT}/{file}",
            file=file,
            note=f"{self.name} trained for {self.metric}, quality {self.quality}",
        )

    def make(self) -> System:
        channels = widths(self.name, self.quality)
        if self.weights == "official":
            loaded = self.source().read()
            if self.checkpoint:
                channels = own_widths(loaded, len(channels)) or channels
            net = network(self.name, channels)
            self.load(net, loaded, rename=lambda name: name.replace(".downsample.", ".skip."))
        else:
            narrow = (12,) if len(channels) == 1 else (8, 12)
            net = random_network(self.name, narrow if self.weights == "random" else channels, self.quality)
        return Hyperprior(net, device=self.device, portable=self.portable)


class FactorizedPrior(Zoo):
    name = "bmshj2018-factorized"


class ScaleHyperprior(Zoo):
    name = "bmshj2018-hyperprior"


class MeanScaleHyperprior(Zoo):
    name = "mbt2018-mean"


class Autoregressive(Zoo):
    name = "mbt2018"


class Cheng2020Anchor(Zoo):
    name = "cheng2020-anchor"
    rate = Rate("quality", 1, 6)


class Cheng2020Attention(Zoo):
    name = "cheng2020-attn"
    rate = Cheng2020Anchor.rate


def network(architecture: str, channels: Sequence[int]) -> Any:
    """CompressAI's module, untrained."""
    return getattr(library.compressai.models, NETWORKS[architecture][0])(*channels)


def random_network(architecture: str, channels: Sequence[int], quality: int) -> Any:
    """The module with seeded weights and tables; its latents, and with them its rate, grow with the quality."""
    net = untrained(lambda: network(architecture, channels))
    deviation = 2.0 ** (quality / 2 - 1)
    y = rescaled(net.g_a, picture(), deviation, leave_out=(library.compressai.layers.AttentionBlock,))
    if hasattr(net, "h_a"):
        z = torch.round(rescaled(net.h_a, y, 2))
        # Scales come before means, and are raised; the last layer to make them depends on the network.
        scales, context = slice(y.shape[1]), hasattr(net, "context_prediction")
        params = rescaled(net.h_s, z, deviation, 0 if context else deviation, scales)
        if context:
            both = torch.cat([params, net.context_prediction(torch.round(y))], 1)
            rescaled(net.entropy_parameters, both, deviation, deviation, scales)
    rescaled(net.g_s, torch.round(y), 0.25, 0.5)
    return net


TAPS = [(row, column) for row in range(-2, 1) for column in range(-2, 3) if (row, column) < (0, 0)]
"""The twelve places around a latent that are coded before it."""


class Hyperprior(System):
    """Any of the six networks, ready to code."""

    def __init__(self, net: Any, *, device: str = "cpu", portable: bool = False) -> None:
        models = library.compressai.models
        self.scales_only = isinstance(net, models.ScaleHyperprior) and not isinstance(net, models.MeanScaleHyperprior)
        self.hyper, self.context = hasattr(net, "h_s"), hasattr(net, "context_prediction")
        if self.context:
            net.context_prediction.weight.data *= net.context_prediction.mask
        # The factorized model has no z: its y is coded as the others' z.
        z = tables_of(net.entropy_bottleneck)
        y = tables_of(net.gaussian_conditional) if self.hyper else z
        super().__init__(net, z, y, net.M, device=device, portable=portable)

    def sections(self, height: int, width: int) -> dict[str, int]:
        sections = super().sections(height, width)
        return sections if self.hyper else {"y": sections["y"]}

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """y, and z where there is one; the scale hyperprior sees magnitudes only."""
        y = self.net.g_a(planes)
        if not self.hyper:
            return {"y": y}
        return {"y": y, "z": self.net.h_a(y.abs() if self.scales_only else y)}

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        if self.hyper:
            return super().code(coder, height, width, latents)
        return coder.factorized("y", self.y, (self.channels, height // 16, width // 16), latents.get("y"))

    def parameters(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        params = self.net.h_s(z)
        if self.scales_only:
            return params, None
        scales, means = params.chunk(2, 1)
        return scales, means

    def code_y(self, coder: Coder, z: Tensor, y: Tensor | None) -> Tensor:
        """With a context, in the order of ``column + 3 row``."""
        if not self.context:
            return super().code_y(coder, z, y)
        params = self.net.h_s(z)
        height, width = params.shape[2:]
        layer = self.net.context_prediction
        kernel = torch.stack([layer.weight[:, :, 2 + row, 2 + column] for row, column in TAPS], 2).flatten(1)
        done = functional.pad(torch.zeros_like(params[0, : self.channels]), (2, 2, 2, 0))
        down, along = (torch.tensor(offsets, device=self.device) for offsets in zip(*TAPS, strict=True))
        for step in range(width + 3 * (height - 1)):
            rows = torch.arange(max(0, -((width - 1 - step) // 3)), min(height - 1, step // 3) + 1, device=self.device)
            columns = step - 3 * rows
            before = done[:, 2 + rows[:, None] + down, 2 + columns[:, None] + along]
            context = functional.linear(before.permute(1, 0, 2).flatten(1), kernel, layer.bias)
            both = torch.cat([params[0, :, rows, columns], context.T])
            scales, means = self.net.entropy_parameters(both[None, :, :, None])[0, :, :, 0].chunk(2)
            here = None if y is None else y[0, :, rows, columns]
            done[:, 2 + rows, 2 + columns] = coder.gaussian("y", self.y, scales, means, here)
        return done[None, :, 2:, 2:-2]

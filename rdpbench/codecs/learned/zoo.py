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
- mbt2018 and cheng2020 code their latents along wavefronts (`rdpbench.codecs.learned.hyperprior`): the same bits in
  another order, in a tenth of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdpbench.assets.load import shape_of
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.contract import Rate, check_choice
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.hyperprior import Hyperprior, network, random_network
from rdpbench.codecs.learned.systems import System
from rdpbench.codecs.learned.tables import set_tables

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

WIDTHS = {
    "bmshj2018-factorized": (5, (128, 192), (192, 320)),
    "bmshj2018-hyperprior": (5, (128, 192), (192, 320)),
    "mbt2018-mean": (4, (128, 192), (192, 320)),
    "mbt2018": (4, (192, 192), (192, 320)),
    "cheng2020-anchor": (3, (128,), (192,)),
    "cheng2020-attn": (3, (128,), (192,)),
}
"""By architecture: up to which quality the first channel counts (N, M) hold, and those beyond."""


def checkpoint(architecture: str, metric: str, quality: int) -> Weights:
    """The published checkpoint.

    >>> checkpoint("mbt2018", "mse", 1).digits
    '3f36cd77'
    """
    stem, *digits = FILES[architecture][metric].split()
    file = f"{stem}-{quality}-{digits[quality - 1]}.pth.tar"
    return Weights(
        Card(
            id=f"compressai/{architecture}-{metric}-{quality}",
            source=f"{ROOT}/{file}",
            revision="models/v1",
            file=file,
            sha256=None,
            bytes=0,
            licence="BSD-3-Clause-Clear, as CompressAI; the weights state no licence of their own",
            note=f"{architecture} trained for {metric}, quality {quality}",
        )
    )


def widths(architecture: str, quality: int) -> tuple[int, ...]:
    """Channel counts of the published network.

    >>> widths("mbt2018-mean", 5)
    (192, 320)
    """
    last, narrow, wide = WIDTHS[architecture]
    return narrow if quality <= last else wide


def own_widths(loaded: object, count: int) -> list[int]:
    """Channel counts (N, and M where there are two) of a file of the user's, from its analysis transform.

    >>> own_widths({}, 2)
    []
    """
    # One width where blocks are residual; else that of the first layer and that of the last.
    layers = ["g_a.0.conv1"] if count == 1 else ["g_a.0", "g_a.6"]
    shapes = [shape_of(loaded, f"{layer}.weight") or shape_of(loaded, f"{layer}.bias") for layer in layers]
    return [shape[0] for shape in shapes if shape] if all(shapes) else []


@dataclass(frozen=True)
class Zoo(LearnedCodec):
    """What the six share."""

    name: ClassVar[str]
    rate: ClassVar[Rate] = Rate("quality", 1, 8, points=tuple(range(1, 9)))

    quality: int = 1
    metric: str = "mse"
    """What it was trained for: ``mse`` or ``ms-ssim``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate.check(self.name, self.quality)
        check_choice(self.name, "metric", self.metric, ["mse", "ms-ssim"])

    def published(self) -> Weights:
        return checkpoint(self.name, self.metric, self.quality)

    def make(self) -> System:
        channels = widths(self.name, self.quality)
        if self.weights == "official":
            loaded = self.source().read()
            if self.checkpoint:
                channels = tuple(stated) if (stated := own_widths(loaded, len(channels))) else channels
            net = self.load(
                network(self.name, channels), loaded, rename=lambda name: name.replace(".downsample.", ".skip.")
            )
        else:
            narrow = (12,) if len(channels) == 1 else (8, 12)
            net = random_network(self.name, narrow if self.weights == "random" else channels, self.quality)
            set_tables(net, {})
        return Hyperprior(net, device=self.device, portable=self.portable)


class FactorizedPrior(Zoo):
    """bmshj2018-factorized."""

    name: ClassVar[str] = "bmshj2018-factorized"


class ScaleHyperprior(Zoo):
    """bmshj2018-hyperprior."""

    name: ClassVar[str] = "bmshj2018-hyperprior"


class MeanScaleHyperprior(Zoo):
    """mbt2018-mean."""

    name: ClassVar[str] = "mbt2018-mean"


class Autoregressive(Zoo):
    """mbt2018."""

    name: ClassVar[str] = "mbt2018"


class Cheng2020Anchor(Zoo):
    """cheng2020-anchor."""

    name: ClassVar[str] = "cheng2020-anchor"
    rate: ClassVar[Rate] = Rate("quality", 1, 6, points=tuple(range(1, 7)))


class Cheng2020Attention(Zoo):
    """cheng2020-attn."""

    name: ClassVar[str] = "cheng2020-attn"
    rate: ClassVar[Rate] = Rate("quality", 1, 6, points=tuple(range(1, 7)))

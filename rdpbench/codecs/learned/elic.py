"""ELIC as its re-implementation trained it, through CompressAI's network.

He et al., "ELIC: Efficient learned image compression with unevenly grouped space-channel contextual adaptive coding",
CVPR 2022. Its authors published no weights. Those here are of VincentChandelier/ELiC-ReImplemetation, six values of
lambda for MSE; papers that compare with ELIC, TACO's among them, use such re-trained ones. On Kodak they are about
0.1 dB below the paper.

The network is ``compressai.models.sensetime.Elic2022Chandelier`` (BSD), which differs from the paper: a group of
channels is predicted from the first group and the latest instead of all before, and the hyperprior ends in another
layer. Checkpoints of CompressAI's ``Elic2022Official``, the network of the paper, do not fit it and are refused.

`renamed` and `spread` lead from the tensors of the published files to those of the network; nothing is dropped. Tables
that are in a file are used (its authors' ``updata.py`` bakes them); else they are built.

In the bitstream: height and width, the string of z, ten of y (each half of each of five groups, as in the official
code); with ``portable=true`` the doubtful cases. The latents' sizes follow from the image's. Images are padded with
zeros right and below to multiples of 64, as with the ``--patch 64`` of its readme.

Where this departs from the official script, and why:

- Bits are those of the file; the script adds up the strings, which is ``headerless`` in ``legacy``.
- The script pads to 256 unless told otherwise, which changes rates and pixels of all sizes but multiples of that.
- Its option that estimates bits instead pads all around, and prints y's bits as those of z: it is not rebuilt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rdpbench.assets.load import modern
from rdpbench.assets.weights import Card
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System
from rdpbench.lazy import Tensor

LAMBDAS = (0.004, 0.008, 0.016, 0.032, 0.15, 0.45)
"""By quality, from 1."""
FILES = (
    "1YGVJ9bpeEq0xfqka2xkaMzhDkeYFJi6q",
    "1VNE7rx-rBFLnNFkz56Zc-cPr6xrBBJdL",
    "1MWlYAmpHbWlGtG7MBBTPEew800grY5yC",
    "1Moody9IR8CuAGwLCZ_ZMTfZXT0ehQhqc",
    "1s544Uxv0gBY3WvKBcGNb3Fb22zfmd9PL",
    "1uuKQJiozcBfgGMJ8CfM6lrXOZWv6RUDN",
)
"""By quality, the id on Google Drive that the repository's readme links."""
ABOUT = 135_000_000
"""Bytes of 33,792,771 parameters in single precision; sizes of the files are not published."""
GROUPS = 5


def renamed(name: str) -> str:
    """The name in the network of a tensor of a published file.

    >>> renamed("cc_transforms.3.0.weight")
    'latent_codec.y.channel_context.y4.0.weight'
    """
    if name.startswith(("h_a.", "h_s.", "entropy_bottleneck.")):
        return f"latent_codec.hyper.{name}"
    match = re.fullmatch(r"(cc_transforms|context_prediction|ParamAggregation)\.(\d+)\.(.*)", name)
    if not match:
        return name
    layer, number, rest = match.groups()
    if layer == "cc_transforms":
        return f"latent_codec.y.channel_context.y{int(number) + 1}.{rest}"
    layer = "entropy_parameters" if layer == "ParamAggregation" else layer
    return f"latent_codec.y.latent_codec.y{number}.{layer}.{rest}"


def spread(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file, those of its one Gaussian model once for each of the network's five."""
    spread_out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        of_all = modern(name).startswith("gaussian_conditional.")
        names = [f"latent_codec.y.latent_codec.y{group}.y.{modern(name)}" for group in range(GROUPS)]
        spread_out |= dict.fromkeys(names if of_all else [name], tensor)
    return spread_out


@dataclass(frozen=True)
class ELIC(LearnedCodec):
    """elic."""

    name = "elic"
    rate = Rate("quality", 1, 6)
    revision = "as linked by VincentChandelier/ELiC-ReImplemetation at 92a9ece; open it with a browser"
    licence = "none stated, neither for the code nor for the weights: all rights reserved"

    quality: int = 1
    """Place of lambda among `LAMBDAS`."""

    def card(self) -> Card:
        trade_off = LAMBDAS[self.quality - 1]
        said = "; the readme's link to it says 0.0016" if trade_off == 0.016 else ""
        return self.card_of(
            id=f"elic/lambda{trade_off:g}",
            source=f"https://drive.google.com/file/d/{FILES[self.quality - 1]}/view",
            file=f"elic-lambda{trade_off:g}.pth.tar",
            bytes=ABOUT,
            note=f"ELIC, re-implemented, lambda {trade_off:g} (MSE){said}; the size is that of the parameters, "
            "and the file may hold more; name it as below",
        )

    def make(self) -> System:
        from rdpbench.codecs.learned.elic_network import TINY, ElicLayout, ElicSystem, network, random_network

        if self.weights == "official":
            net = self.load(network(ElicLayout()), spread=spread, rename=renamed)
        else:
            net = random_network(TINY if self.weights == "random" else ElicLayout(), self.quality)
        return ElicSystem(net, device=self.device, portable=self.portable)

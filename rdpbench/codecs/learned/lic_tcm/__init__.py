"""LIC-TCM: transformers and convolutions in parallel, channel-wise autoregressive (Waseda; MIT).

Liu, Sun, Katto, "Learned Image Compression with Mixed Transformer-CNN Architectures", CVPR 2023, and the authors'
repository jmliu206/LIC_TCM, which says of itself that it is a rearranged re-implementation.

``width`` is the N of that repository, half of the paper's C: 64 (small), 96 (middle), 128 (large). Six qualities were
trained for MSE (`LAMBDAS`). Weights are not public for all of them (`PUBLIC`); the others run with random weights only.

In the bitstream: height and width, the string of z, the string of y (five slices of 64 channels after each other);
with ``portable=true`` the doubtful cases. The latents' sizes follow from the image's. Images are padded with zeros all
around to multiples of 128, so that a window of 8 fits the latents and one of 4 the half of them.

Each of the five slices gets means and scales from the hyperprior and the slices before, both squeezed through
attention; a prediction of what rounding lost is added to each slice once it is decoded, and goes into the next ones.

Where this departs from the authors' scripts, and why:

- Bits are those of the file. Their script prints an estimate (the sum of -log2 of probabilities) unless its source is
  changed, and with real strings counts neither sizes nor lengths. Both stand in ``legacy``: ``estimated`` and
  ``headerless``. Their estimate divides by the pixels of the image, as we do.
- Padded sides of 128 work. There the official code pads latents of 8 to 9, which no window divides, and stops.
- Official checkpoints fit without a tensor renamed or dropped. Tables that are in a file are used; else they are built.

Read `network` next: the blocks from the paper, the network, and how it is coded with.
"""

from __future__ import annotations

from dataclasses import dataclass

from rdpbench.assets.load import shape_of
from rdpbench.assets.weights import Card, NotPublic
from rdpbench.codecs.contract import Rate, option
from rdpbench.codecs.learned.codec import Kind, LearnedCodec
from rdpbench.codecs.learned.systems import System
from rdpbench.errors import MissingNeed
from rdpbench.needs import Need

WIDTHS = {64: "small", 96: "middle", 128: "large"}
"""N, and the paper's name of the model."""
LAMBDAS = (0.0025, 0.0035, 0.0067, 0.013, 0.025, 0.05)
"""By quality, from 1."""
PUBLIC = {
    (64, 1): "1zpkW_MCkUWl8nRUlza0L7Fk7dXlXciZd",
    (64, 2): "1x2rfIQAv8RsjM3zEByDdOZJtEcPU5XZT",
    (64, 3): "17THA1IiPStSO6jG4h5clwkw0ySzgLZID",
    (64, 4): "1UbfQFsrr-Z6SrvZvpX4p1QPta5FCORZ5",
    (64, 5): "1rc4E2Rke1Jd8UnLq73NaXbfAdcBGGPKg",
    (64, 6): "1Quz6_jGJyaG6LMUbT4JuOhhQWxJN26Kh",
    (128, 6): "1TK-CPiD2QwtWJqZoT_OyCtnxdQ7UNP56",
}
"""By width and quality, the id on Google Drive that the repository's readme links."""


INSTEAD = (
    "there are those of N = 64 (qualities 1 to 6: codec=lic-tcm-64) and of N = 128 (quality 6: codec=lic-tcm-128)\n"
    "  yours: codec.options.checkpoint=/your/file.pth"
)


@dataclass(frozen=True)
class Tcm(LearnedCodec):
    """lic-tcm."""

    name = "lic-tcm"
    rate = Rate("quality", 1, 6)
    revision = "as linked by jmliu206/LIC_TCM at 6c6d7a3; a page to download from with a browser"
    licence = "MIT, as the repository; the weights state no licence of their own"

    quality: int = 1
    """Place of lambda among `LAMBDAS`."""
    width: int = option(64, WIDTHS)
    """N: 64, 96 or 128."""

    def card(self) -> Card:
        if (self.width, self.quality) not in PUBLIC:
            raise MissingNeed(self._nowhere().missing())
        trade_off = LAMBDAS[self.quality - 1]
        return self.card_of(
            id=f"lic-tcm/n{self.width}-lambda{trade_off:g}",
            source=f"https://drive.google.com/file/d/{PUBLIC[self.width, self.quality]}/view",
            file=f"lic-tcm-n{self.width}-lambda{trade_off:g}.pth.tar",
            note=f"LIC-TCM with N = {self.width}, trained for MSE with lambda {trade_off:g}; name it as below",
        )

    def weight_needs(self) -> tuple[Need, ...]:
        return (self._nowhere(),) if self._unpublished() else super().weight_needs()

    def weights_kind(self) -> Kind:
        return "unpinned" if self._unpublished() else super().weights_kind()

    def weights_identity(self) -> str:
        return "unpublished" if self._unpublished() else super().weights_identity()

    def make(self) -> System:
        from rdpbench.codecs.learned.lic_tcm.network import TINY, TcmLayout, TcmNetwork, TcmSystem, random_network

        if self.weights == "official":
            loaded = self.source().read()
            # Own weights say themselves how wide they are: a block's first layer has 2 N channels.
            first = shape_of(loaded, "g_a.0.conv1.weight") if self.checkpoint else None
            stated = first[0] // 2 if first and first[0] // 2 in WIDTHS else self.width
            net = self.load(TcmNetwork(TcmLayout(stated)), loaded)
        else:
            net = random_network(TINY if self.weights == "random" else TcmLayout(self.width), self.quality)
        return TcmSystem(net, device=self.device, portable=self.portable)

    def _nowhere(self) -> NotPublic:
        trade_off = LAMBDAS[self.quality - 1]
        what = f"LIC-TCM with N = {self.width} and lambda {trade_off:g} (quality {self.quality})"
        return NotPublic(what, INSTEAD)

    def _unpublished(self) -> bool:
        return self.weights == "official" and not self.checkpoint and (self.width, self.quality) not in PUBLIC

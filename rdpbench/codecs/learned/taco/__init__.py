"""TACO: ELIC whose encoder reads the image's caption; the decoder needs none, and none is sent.

Lee et al., "Neural image compression with text-guided encoding for both pixel-level and perceptual fidelity", ICML
2024, and the authors' repository effl-lab/TACO. A text adapter in the analysis transform lets the image's features
attend to CLIP's hidden states of the caption (ViT-B/32, 38 tokens, padding among them) and back. Six values of lambda,
with LPIPS and a joint image-text loss beside MSE.

The caption is that of the ``captions=`` axis: of the dataset, of OFA (those that the authors published for Kodak and
CLIC), of a captioning model, or of a file. Which one it was is part of a result's name.

In the bitstream: height and width, the string of z, the string of y (five groups of channels, each in two halves of a
checkerboard); with ``portable=true`` the doubtful cases. The latents' sizes follow from the image's. Images are padded
with zeros right and below to multiples of 64.

Where this departs from the official scripts, and why:

- Its file has a header of 28 bytes, as it writes the latents' size, the number of strings and 4 bytes for each number:
  0.00057 bpp on Kodak. That is ``framed`` in ``legacy``; ours has about 8.
- Pixels are rounded to 8 bits. The script scores values that are neither clamped nor rounded.
- The official decoder asks for a GPU. Here it runs anywhere.
- With several captions of an image, the script means to keep the best, which nobody can know at a decoder's end, and
  by a slip keeps the last. Here one caption is coded: of several the first.
- Which checkpoint of a training is "best" was chosen on Kodak, a test set. Nothing to do about it here.

Read `network` next: TACO's network, what it knows of a caption, and how it is coded with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rdpbench.assets.weights import Card, Weights, card_identity
from rdpbench.codecs import legacy
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.clip import B32, TOKENS

LAMBDAS = (0.0004, 0.0008, 0.0016, 0.004, 0.009, 0.015)
"""By quality, from 1. The readme states the first alone."""
ABOUT = 154_000_000
"""Bytes of 38,579,275 parameters in single precision; sizes of the files are not published."""
HEADER = 28
"""Bytes that the official file has before its strings: seven numbers of 4."""


@dataclass(frozen=True)
class TACO(LearnedCodec):
    """taco."""

    name = "taco"
    rate = Rate("quality", 1, 6)
    uses_caption = True
    needs = (Package("compressai"), Package("transformers"))
    revision = "as linked by effl-lab/TACO at 004f488; open it with a browser"
    licence = "none stated, neither for the code nor for the weights: all rights reserved"

    quality: int = 1
    """Place of lambda among `LAMBDAS`."""

    def card(self) -> Card:
        trade_off = LAMBDAS[self.quality - 1]
        said = "" if self.quality == 1 else "; its name is assumed after that of the first"
        return self.card_of(
            id=f"taco/lambda{trade_off:g}",
            source="https://drive.google.com/drive/folders/1zOLRtr3AMJ2KChCDjCeBicI871Pzw28K",
            file=f"{trade_off:g}.pth.tar",
            bytes=ABOUT,
            note=f"TACO, lambda {trade_off:g}{said}; the size is that of the parameters, and the file may hold more",
            folder="taco",
        )

    def weight_needs(self) -> tuple[Need, ...]:
        own = super().weight_needs()
        return (*own, Weights(B32), Weights(TOKENS)) if own else ()

    def coder(self) -> dict[str, str]:
        """Its text tower codes, too."""
        text = card_identity(B32) if self.weights == "official" else self.weights
        return {**super().coder(), "transformers": package_version("transformers"), "text": text}

    def make(self) -> System:
        from rdpbench.codecs.learned.taco import network

        if self.weights == "official":
            net = self.load(network.TacoNetwork(network.TacoLayout()))
            reader = network.official_reader(self.device, portable=self.portable)
        else:
            layout = network.TINY if self.weights == "random" else network.TacoLayout()
            net = network.random_network(layout, self.quality, network.random_reader(layout.text))
            reader = network.random_reader(layout.text, self.device, portable=self.portable)
        return network.TacoSystem(net, reader, device=self.device, portable=self.portable)

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:  # noqa: ARG002 - the sizes take as many bytes in any image
        return {"framed": legacy.framed(strings.values(), HEADER)}

"""MS-ILLM, and the same network before its adversarial training: Meta's NeuralCompression (weights CC-BY-NC 4.0).

Muckley et al., "Improving statistical fidelity for neural image compression with implicit local likelihood models",
ICML 2023. The two lowest rates are of Careil et al., "Towards image compression with perfect realism at ultra-low
bitrates", ICLR 2024 (PerCo), as its point of comparison.

The official qualities are ``vlo1``, ``vlo2`` and 1 to 6; ours are whole numbers in the order of their rates, -1 to 6.
``msillm-nogan`` has no -1 and 0. A rate in a name is what training aimed at (`TARGETS`): its authors report 0.0443 bpp
for quality 1 on Kodak.

In the bitstream: height and width, the string of z, the string of y; with ``portable=true`` the doubtful cases.

Where this departs from the official code, and why:

- Bits are those of the file. The official script pickles the output of ``compress``: about 121 bytes more, which is
  more than vlo1 is meant to take. That count is the legacy rate ``pickle``, the rate in the model's name ``nominal``.
- Tables: those of the checkpoint if it has them, as there; else built in double precision.
- What decides symbols at the decoder runs at one thread; on the processor, as there.

Images are padded right and below by reflection to multiples of 64. A side below 33 cannot be, and is refused, unless
it is no padding at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rdpbench.assets.weights import Card
from rdpbench.codecs import legacy
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System

ROOT = "https://dl.fbaipublicfiles.com/NeuralCompression/2023-muckley-msillm"
TARGETS = {-1: "0.00218", 0: "0.00438", 1: "0.035", 2: "0.07", 3: "0.14", 4: "0.3", 5: "0.45", 6: "0.9"}
"""By quality: bits per pixel that training aimed at, as in the names of the files."""
ABOUT = 726_000_000
"""Bytes of 181,481,103 parameters in single precision; exact sizes and hashes are not published."""


class HyperpriorCompressedOutput(NamedTuple):
    """What the official ``compress`` returns, and its script pickles; here to be measured, never to be stored."""

    latent_strings: list[bytes]
    hyper_latent_strings: list[bytes]
    image_size: tuple[int, int]
    padded_size: tuple[int, int]


OFFICIAL_MODULE = "neuralcompression._outputs._hyperprior_output"
"""Where the official class lives: a pickle spells it out."""


def pickled(y: bytes, z: bytes, size: tuple[int, int], padded: tuple[int, int]) -> int:
    """Bits as the official script counts them.

    >>> (pickled(b"abcd", b"efgh", (512, 768), (512, 768)) - 64) // 8
    118
    """
    own = legacy.pickled(HyperpriorCompressedOutput([y], [z], size, padded))
    return own + 8 * (len(OFFICIAL_MODULE) - len(HyperpriorCompressedOutput.__module__))


@dataclass(frozen=True)
class MSILLM(LearnedCodec):
    """MS-ILLM: fine-tuned against a discriminator of local labels."""

    name = "msillm"
    rate = Rate("quality", -1, 6)
    family = "msillm"
    """What the official names begin with."""
    revision = "2023-muckley-msillm"
    licence = "CC-BY-NC 4.0 (the code is MIT)"

    quality: int = 1

    def card(self) -> Card:
        file = f"{self.family}_target_{TARGETS[self.quality]}bpp.ckpt"
        hub = f"{self.family}_quality_{self.quality if self.quality > 0 else f'vlo{self.quality + 2}'}"
        return self.card_of(
            id=f"msillm/{hub}",
            source=f"{ROOT}/{file}",
            file=file,
            bytes=ABOUT,
            note=f"{hub} of torch.hub, trained for {TARGETS[self.quality]} bpp; the size is rounded; "
            "the server is said to deny access now and then (NeuralCompression, issue 245)",
        )

    def make(self) -> System:
        from rdpbench.codecs.learned.msillm_network import FULL, TINY, MsillmNetwork, MsillmSystem, random_network

        if self.weights == "official":
            net = self.load(MsillmNetwork(FULL))
        else:
            net = random_network(TINY if self.weights == "random" else FULL, self.quality)
        return MsillmSystem(net, device=self.device, portable=self.portable)

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:
        size = (height, width)
        padded = (-(-height // 64) * 64, -(-width // 64) * 64)
        target = {} if self.checkpoint else {"nominal": legacy.nominal(float(TARGETS[self.quality]), size)}
        return {"pickle": pickled(strings["y"], strings["z"], size, padded), **target}


@dataclass(frozen=True)
class NoGAN(MSILLM):
    """The same network, trained for MSE and LPIPS only: where MS-ILLM's fine-tuning began."""

    name = "msillm-nogan"
    rate = Rate("quality", 1, 6)
    family = "noganms"

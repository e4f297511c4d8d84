"""HiFiC by the checkpoints of its PyTorch port: generative compression for three target rates.

Paper: Mentzer et al., "High-Fidelity Generative Image Compression", NeurIPS 2020. Port and weights: Justin-Tan,
high-fidelity-generative-compression (Apache-2.0), trained for 400,000 steps where the paper has 2,000,000; so it is not
the paper's model (that is ``hific-tfci``). A target is the rate in bits per pixel that was asked for in training on
OpenImages; it is never the rate of an image.

In the bitstream: height and width, the string of z, the string of y; with ``portable=true`` the doubtful cases.

As in the port: the image is continued by reflection, right and below, to multiples of 16, then its latents to multiples
of 4; hyperlatents are rounded around 0, latents around their means; tables reach to a tail of 2^-8; the networks for
0.14 and 0.45 see [-1, 1], end in a tanh and have normally distributed latents, that for 0.3 sees [0, 1] and has
logistic ones (these settings are read from the checkpoint).

Where this departs from the port, and why:

- Strings are CompressAI's (one rANS state). The port's file has a state for each channel, which adds 3 to 4 kB to any
  image, and symbols 8 or more outside a row it reads back wrongly. Distributions, tables and symbols are the same.
- The port prints an estimate, divided by the padded image's pixels (``padded``) with ``--reconstruct``.
- Its PNGs are stretched so that the least value becomes 0 and the greatest 255, image by image. This one clamps.
- Images with a side below 65 pixels, which the port refuses (a reflection wider than what it reflects), are first
  continued to 65 by their last row and column.

A checkpoint is training's: discriminator and optimisers are dropped by name, and no code of the file runs.

Read `network` next (networks, tables, how they are coded with); `tfci` is another system, HiFiC's official models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench.assets.load import Inert, read_file
from rdpbench.assets.weights import Card, require
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System
from rdpbench.codecs.legacy import framed, nominal
from rdpbench.errors import CodecError

REGIMES = {0.14: ("low", "hific_low.pt"), 0.3: ("med", "hific_med.pt"), 0.45: ("high", "hific_hi.pt")}
"""By target: the port's name for it, and the file in its Zenodo record."""
TARGETS = Rate("target", 0.14, 0.45, step=0, points=tuple(REGIMES), listed=True)
DROPPED = ("Discriminator.*", "Hyperprior.hyperprior_entropy_model.*", "Hyperprior.prior_entropy_model.*")
"""Training's discriminator; in files of evaluation also the density a second time, and tables, which are built anew."""
FRAMING = 42
"""Bytes around the strings in the port's file: 11 sizes of 2, 3 marks of 4, 2 lengths of 4."""


@dataclass(frozen=True)
class PortSettings:
    """What tensors do not say; the defaults are those of the targets 0.14 and 0.45."""

    blocks: int = 9
    likelihood: str = "gaussian"
    symmetric: bool = True
    """Do the networks see [-1, 1] and end in a tanh?"""


def read_port(path: Path, regime: str = "") -> tuple[Mapping[str, Any], PortSettings]:
    """What a checkpoint holds as the port's training writes it, and its settings.

    These must say ``regime``, unless it is empty, for own weights. Anything else is a `CodecError`.
    """
    loaded = read_file(path, inert=True)
    if not isinstance(loaded, Mapping):
        raise CodecError(f"{path.name} holds a {type(loaded).__name__}, expected the port's entries by name")
    return loaded, _settings(loaded.get("args"), path.name, regime)


def _settings(args: object, what: str, regime: str) -> PortSettings:
    given = vars(args) if isinstance(args, Inert) else args
    if not isinstance(given, Mapping):
        raise CodecError(f"{what} holds no settings ('args'), without which its likelihood and range are not known")
    expected: dict[str, list[object]] = {
        **({"regime": [regime]} if regime else {}),
        "latent_channels": [220],
        "likelihood_type": ["gaussian", "logistic"],
        "normalize_input_image": [False, True],
        "n_residual_blocks": list(range(1, 33)),
        "use_channel_norm": [True],
    }
    # Files older than these two switches lack them.
    expected |= {name: [False] for name in ("use_latent_mixture_model", "sample_noise") if name in given}
    wrong = [f"{name}={given.get(name)!r}" for name, legal in expected.items() if given.get(name) not in legal]
    if wrong:
        model = f"HiFiC's regime {regime!r}" if regime else "HiFiC"
        raise CodecError(f"{what} is no checkpoint of {model}: its settings say {', '.join(wrong)}")
    blocks, likelihood = int(given["n_residual_blocks"]), str(given["likelihood_type"])
    return PortSettings(blocks, likelihood, bool(given["normalize_input_image"]))


@dataclass(frozen=True)
class HiFiC(LearnedCodec):
    """HiFiC's PyTorch port."""

    name = "hific"
    rate = TARGETS
    entry = "model_state_dict"
    revision = "Zenodo record 4026003"
    licence = "Apache-2.0, as the port; the weights state no licence of their own"

    target: float = 0.14
    """Bits per pixel asked for in training: 0.14, 0.3 or 0.45."""

    def card(self) -> Card:
        regime, file = REGIMES[self.target]
        return self.card_of(
            id=f"hific-port/{regime}",
            source=f"https://zenodo.org/record/4026003/files/{file}",
            file=file,
            note=f"HiFiC, PyTorch port, {regime}: trained for {self.target:g} bit per pixel; "
            "about 2 GB with its optimisers",
        )

    def make(self) -> System:
        from rdpbench.codecs.learned.hific.network import HificNetwork, HiFiCSystem, HificWidths, random_network

        if self.weights == "official":
            source = self.source()
            require([source])
            loaded, settings = read_port(source.path, "" if self.checkpoint else REGIMES[self.target][0])
            net = self.load(HificNetwork(HificWidths(blocks=settings.blocks)), loaded, drop=DROPPED)
        else:
            logistic = PortSettings(likelihood="logistic", symmetric=False)
            settings = logistic if self.target == 0.3 else PortSettings()
            widths = HificWidths((6, 8, 8, 12, 16), 12, 8, 2) if self.weights == "random" else HificWidths()
            net = random_network(widths, 2.0 ** list(REGIMES).index(self.target), symmetric=settings.symmetric)
        how = settings.likelihood, settings.symmetric
        return HiFiCSystem(net, *how, device=self.device, portable=self.portable)

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:
        """The port's file, but for its 540 coder states; and the target."""
        own = strings.values()
        target = {} if self.checkpoint else {"nominal": nominal(self.target, (height, width))}
        return {"framed": framed(own, FRAMING), **target}

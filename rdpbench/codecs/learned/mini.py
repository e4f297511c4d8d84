"""mini: a small learned codec that this project trained, so that every machine has one with real weights.

A mean-scale hyperprior (Ballé et al., "Variational image compression with a scale hyperprior", ICLR 2018; Minnen et
al., "Joint autoregressive and hierarchical priors", NeurIPS 2018) of 2.0 million parameters. One network serves all
rates: latents are multiplied by a gain for each channel before they are coded and by another after (Cui et al.,
"Asymmetric gained deep image compression with continuous rate adaptation", CVPR 2021); between the six trained
qualities gains are interpolated geometrically. ``metric=mse`` and ``metric=ms-ssim`` say what it was trained for.

In the bitstream: height and width, the string of z, the string of y; with ``portable=true`` the doubtful cases. The
quality is the codec's configuration, as for the other learned codecs.

Weights ship with the package, 3.9 MB for each of the two: transforms in half precision, which are computed in single;
gains and the distribution of z in single, with z's tables. The training script is ``training/mini.py``; what was run,
on what images and under which licence, and what it is worth: ``docs/mini.md``. It is no system of a publication.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rdpbench.assets.weights import Card
from rdpbench.codecs.contract import Rate, option
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System
from rdpbench.errors import MissingNeed
from rdpbench.needs import Need, refused

FILES = {
    "mse": ("mse.safetensors", 4017176, "6c74fb8c54baca05cb4c6f9fe1c80d8fd3b45b872889f812fc36efaf57dee08e"),
    "ms-ssim": ("ms-ssim.safetensors", 4007960, "e9af692725a06115806547ca2fa6c4afa25534ab3837accccb497cd85ccb5885"),
}
"""By metric: name, bytes and sha256."""


@dataclass(frozen=True)
class Shipped(Need):
    """The need for a file of weights inside the package."""

    card: Card

    def missing(self) -> str | None:
        """None if it is there with the right hash."""
        return refused(lambda: content(self.card))


def content(card: Card) -> bytes:
    """The bytes of a shipped file, or `MissingNeed` if it is absent or has other bytes than its card says."""
    file = files("rdpbench.codecs.learned") / "mini_weights" / card.file
    data = file.read_bytes() if file.is_file() else b""
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != card.sha256:
        what = f"has sha256 {sha256}, expected {card.sha256}" if data else "is not there"
        raise MissingNeed(f"weights {card.id!r} are part of the package, but {file} {what}; install rdpbench again")
    return data


@dataclass(frozen=True)
class Mini(LearnedCodec):
    """mini, of both families."""

    name = "mini"
    rate = Rate("quality", 1, 6, step=0.1)
    revision = "1"
    licence = "Apache-2.0; trained on CC0 photographs and synthetic pictures only"

    quality: float = 3
    metric: str = option("mse", FILES)
    """What it was trained for: ``mse`` or ``ms-ssim``."""

    def card(self) -> Card:
        file, size, sha256 = FILES[self.metric]
        return self.card_of(
            id=f"mini/{self.metric}",
            source=f"rdpbench/codecs/learned/mini_weights/{file}",
            file=file,
            sha256=sha256,
            bytes=size,
            note=f"mini trained for {self.metric}, all qualities; transforms in half precision",
        )

    @classmethod
    def own_rates(cls, options: Mapping[str, Any]) -> tuple[float, ...] | None:  # noqa: ARG003 - any file serves all
        return None

    def weight_needs(self) -> tuple[Need, ...]:
        shipped = self.weights == "official" and not self.checkpoint
        return (Shipped(self.card()),) if shipped else super().weight_needs()

    def make(self) -> System:
        from rdpbench.codecs.learned.mini_network import FULL, TINY, Gained, MiniNetwork, random_network

        if self.weights == "official":
            net = self.load(MiniNetwork(), None if self.checkpoint else shipped_tensors(self.card()))
        else:
            net = random_network(TINY if self.weights == "random" else FULL)
        return Gained(net, self.quality, device=self.device, portable=self.portable)


def shipped_tensors(card: Card) -> dict[str, Any]:
    """The tensors of a shipped file, in single precision."""
    from safetensors.torch import load

    tensors = load(content(card)).items()
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors}

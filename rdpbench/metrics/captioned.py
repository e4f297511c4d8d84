"""Do reconstructions still say the same? Captions of originals and reconstructions by one model, compared as texts.

TACO's Table 1 (Lee et al., ICML 2024): a captioner describes both images, the original's caption is the one reference,
and BLEU-4 and CIDEr-D are statistics of the whole set. The numbers are the captioner's as much as the codec's, so its
name is part of theirs. SPICE needs Java and models of its own: `caption_similarity.spice` takes the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np

from rdpbench.datasets.caption_models import CARDS, Settings, identity, locate
from rdpbench.datasets.captioning import Captioner
from rdpbench.errors import MetricError, MissingNeed
from rdpbench.image import Image
from rdpbench.metrics import caption_similarity
from rdpbench.metrics.contract import Array, Estimate, Features
from rdpbench.needs import Need, Package


@dataclass(frozen=True)
class CaptioningModel:
    """A captioning model as a need."""

    name: str

    def missing(self) -> str | None:
        """None if its files are here; else what, where from, how large, which licence, what to do."""
        try:
            locate(CARDS[self.name], Settings())
        except MissingNeed as error:
            return str(error)
        return None


@cache
def _captioner(name: str, device: str) -> Captioner:
    settings = Settings(device=device)
    return Captioner(CARDS[name], locate(CARDS[name], settings), settings)


class CaptionFeatures:
    """The caption of an image, as the bytes of its UTF-8 text."""

    id: ClassVar[str]
    version: ClassVar[str] = "1"
    needs: ClassVar[tuple[Need, ...]]
    dim: ClassVar[int] = 1
    beside: ClassVar[tuple[str, ...]] = ()
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    model: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Take id and needs from the model."""
        cls.id = f"caption/{cls.model}"
        cls.needs = (Package("transformers"), CaptioningModel(cls.model))

    def __init__(self, captioner: Captioner | None = None, device: str = "cpu") -> None:
        """Take the model's files, or the given model in their place; loaded at the first image."""
        self._given = captioner
        self._device = device

    @classmethod
    def made_by(cls) -> str:
        """What captions depend on beside the pixels: model, revision, how they are decoded; part of the arrays' key."""
        return identity(CARDS[cls.model], Settings())

    def extract(self, images: Sequence[Image], **_: Any) -> list[Array]:
        """The bytes of each caption, ``uint8 (length,)``; one image at a time, since a batch may change a word."""
        describe = self._given or _captioner(self.model, self._device)
        return [np.frombuffer(describe([image])[0][0].encode() or b" ", np.uint8) for image in images]


class BLIP2Captions(CaptionFeatures):
    """Of BLIP-2, as in PerCo (SD).

    >>> BLIP2Captions.dim
    1
    """

    model: ClassVar[str] = "blip2"


class BLIPCaptions(CaptionFeatures):
    """Of BLIP large.

    >>> BLIPCaptions.dim
    1
    """

    model: ClassVar[str] = "blip"


class _Captioned:
    """What the similarities share."""

    name: ClassVar[str]
    kind: ClassVar[Literal["set"]] = "set"
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    source: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]
    features: ClassVar[type[Features]]
    minimum_images: ClassVar[int] = 10
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init_subclass__(cls) -> None:
        """Take the needs of the captions."""
        cls.needs = cls.features.needs

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """The statistic of the reconstructions' captions against the originals'.

        Raises:
            MetricError: no captions, not as many on both sides, or arrays that are no text.
        """
        return Estimate(self._value(_texts(distorted, self.name), [[one] for one in _texts(reference, self.name)]))

    @staticmethod
    def _value(captions: list[str], references: list[list[str]]) -> float:
        raise NotImplementedError


def _texts(arrays: Sequence[Array], metric: str) -> list[str]:
    if any(array.dtype != np.uint8 or array.ndim != 1 for array in arrays):
        raise MetricError(f"{metric}: captions are uint8 (length,); these are features of another kind")
    return [array.tobytes().decode().strip() for array in arrays]


class _BLEU4(_Captioned):
    source: ClassVar[str] = "BLEU-4 of captions, the original's as the reference (Lee et al., ICML 2024, Table 1)"
    features: ClassVar[type[Features]] = BLIP2Captions
    _value = staticmethod(caption_similarity.bleu4)


class _CIDErD(_Captioned):
    bounds: ClassVar[tuple[float, float]] = (0.0, 10.0)
    source: ClassVar[str] = "CIDEr-D of captions, the original's as the reference (Lee et al., ICML 2024, Table 1)"
    features: ClassVar[type[Features]] = BLIP2Captions

    @staticmethod
    def _value(captions: list[str], references: list[list[str]]) -> float:
        return caption_similarity.cider_d(captions, references).value


class BLEU4BLIP2(_BLEU4):
    """BLEU-4 of BLIP-2's captions, 0 to 1.

    >>> text = [np.frombuffer(b"a dog on the beach", np.uint8)]
    >>> round(BLEU4BLIP2().reduce(text, text).value, 6)
    1.0
    """

    name: ClassVar[str] = "caption/bleu-4/blip2"


class CIDErDBLIP2(_CIDErD):
    """CIDEr-D of BLIP-2's captions, 0 to 10.

    >>> texts = [np.frombuffer(text, np.uint8) for text in (b"a dog on the beach", b"two men ride a bus")]
    >>> round(CIDErDBLIP2().reduce(texts, texts).value, 6)
    10.0
    """

    name: ClassVar[str] = "caption/cider-d/blip2"


class BLEU4BLIP(_BLEU4):
    """BLEU-4 of BLIP's captions, 0 to 1.

    >>> BLEU4BLIP.minimum_images
    10
    """

    name: ClassVar[str] = "caption/bleu-4/blip"
    features: ClassVar[type[Features]] = BLIPCaptions


class CIDErDBLIP(_CIDErD):
    """CIDEr-D of BLIP's captions, 0 to 10.

    >>> CIDErDBLIP.minimum_images
    10
    """

    name: ClassVar[str] = "caption/cider-d/blip"
    features: ClassVar[type[Features]] = BLIPCaptions

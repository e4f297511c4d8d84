"""What CLIP says of a reconstruction: how near its original it is, and how well a caption fits it.

Both are cosines of embeddings (Radford et al., ICML 2021); what papers report differs in network, scale and caption, so
each has a name of its own. The network sees the centre square of an image at 224 pixels, nothing at the long sides.

=========================  ==========================================================================================
``clip-i/b32``             cosine between original and reconstruction, ViT-B/32
``dclip/h14``              1 - cosine, LAION's ViT-H/14: Text+Sketch, whose encoder picks among its candidates by the
                           same network, so that it scores well by construction
``clip-score/b32``         100 cos(image, caption), ViT-B/32: PerCo
``clip-score/l14``         the same with ViT-L/14, torchmetrics' default
``clip-score/hessel-b32``  2.5 max(cos, 0) with ``A photo depicts`` before the caption: Hessel et al., EMNLP 2021
=========================  ==========================================================================================

The captions of a CLIP score are the dataset's references, people's words about the original, and never the caption that
a codec transmitted, which would reward it for agreeing with itself. The plain name takes the first reference;
``.../gt-mean`` and ``.../gt-max`` take the mean and the largest of the scores of all. torchmetrics replaces a negative
mean over images by 0; here it stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Card, Weights
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics import contract
from rdpbench.metrics.contract import check_original, check_pair
from rdpbench.needs import Need, Package
from rdpbench.networks.clip import B32, H14, L14, TOKENS, Clip, load_clip, unit

Vector: TypeAlias = NDArray[np.float64]


def cosine(first: Vector, second: Vector) -> float:
    """Cosine of the angle between two vectors of any length.

    >>> cosine(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    0.6
    """
    return float(unit(first) @ unit(second))


def clip_score(image: Vector, caption: Vector) -> float:
    """100 cos, -100 to 100.

    >>> clip_score(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    60.0
    """
    return 100 * cosine(image, caption)


def hessel_score(image: Vector, caption: Vector) -> float:
    """2.5 max(cos, 0), 0 to 2.5.

    >>> hessel_score(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    1.5
    """
    return 2.5 * max(cosine(image, caption), 0.0)


@cache
def _network(card: Card, device: str, text: bool) -> Clip:
    """One for all metrics of a process that use it."""
    return load_clip(card, device, text=text)


class _CLIP:
    """What all share; the network is loaded at the first image."""

    version: ClassVar[str] = "1"
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    name: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]
    card: ClassVar[Card]

    def __init__(self, clip: Clip | None = None, device: str = "cpu") -> None:
        """Take the card's network on ``device``, or the given one in its place."""
        self._clip = clip
        self._device = device

    @property
    def clip(self) -> Clip:
        """The network. Raises `MissingNeed` if its weights are not on this machine."""
        if self._clip is None:
            text = any(isinstance(need, Weights) and need.card is TOKENS for need in self.needs)
            self._clip = _network(self.card, self._device, text)
        return self._clip

    def reduce(self, values: Sequence[float]) -> float:
        """Mean over images."""
        return contract.mean(values)


@dataclass(frozen=True)
class Original:
    """The original and its embedding of length 1."""

    image: Image
    vector: Vector


class CLIPImage(_CLIP):
    """Cosine between the embeddings of original and reconstruction, 1 for identical images.

    >>> CLIPImage().higher_is_better
    True
    >>> round(CLIPImage().needs[1].card.bytes / 1e6)
    605
    """

    name: ClassVar[str] = "clip-i/b32"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    higher_is_better: ClassVar[bool] = True
    source: ClassVar[str] = "cosine of CLIP ViT-B/32 image embeddings; centre square at 224 pixels"
    # The table of tokens is not used, but with it the network is the same object as that of the CLIP scores.
    needs: ClassVar[tuple[Need, ...]] = (Package("transformers"), Weights(B32), Weights(TOKENS))
    card: ClassVar[Card] = B32

    def prepare(self, original: Image) -> Original:
        """Embed the original.

        Raises:
            MetricError: not ``uint8 (H, W, 3)``.
            MissingNeed: the network's weights are not on this machine.
        """
        check_original(original, self.name)
        return Original(original, self.clip.one(original))

    def score(self, prepared: Original, reconstruction: Image) -> float:
        """The cosine, -1 to 1. Raises `MetricError` for another size or type."""
        check_pair(prepared.image, reconstruction, self.name)
        return float(prepared.vector @ self.clip.one(reconstruction))


class DCLIP(CLIPImage):
    """1 - cosine between the embeddings of LAION's ViT-H/14, as Text+Sketch reports it; 0 for identical images.

    >>> DCLIP().higher_is_better
    False
    """

    name: ClassVar[str] = "dclip/h14"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.0)
    higher_is_better: ClassVar[bool] = False
    source: ClassVar[str] = "Lei et al. 2023 (Text+Sketch): 1 - cosine of OpenCLIP ViT-H/14 (laion2b_s32b_b79k)"
    needs: ClassVar[tuple[Need, ...]] = (Package("transformers"), Weights(H14))
    card: ClassVar[Card] = H14

    def score(self, prepared: Original, reconstruction: Image) -> float:
        """1 - cosine, 0 to 2. Raises `MetricError` for another size or type."""
        return 1 - super().score(prepared, reconstruction)


@dataclass(frozen=True)
class Captions:
    """The original, for its size, and its captions' embeddings."""

    image: Image
    vectors: Vector
    truncated: tuple[bool, ...]
    """Which captions were longer than the network reads."""


class CLIPScore(_CLIP):
    """100 cos(reconstruction, first reference caption) with ViT-B/32, as PerCo reports it.

    >>> CLIPScore().beside
    ('captions',)
    >>> CLIPScore().scale(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    60.0
    """

    name: ClassVar[str] = "clip-score/b32"
    bounds: ClassVar[tuple[float, float]] = (-100.0, 100.0)
    higher_is_better: ClassVar[bool] = True
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-B/32 (Careil et al., ICLR 2024); first reference"
    beside: ClassVar[tuple[str, ...]] = ("captions",)
    needs: ClassVar[tuple[Need, ...]] = (Package("transformers"), Weights(B32), Weights(TOKENS))
    card: ClassVar[Card] = B32
    prefix: ClassVar[str] = ""
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-first"

    def prepare(self, original: Image, *, captions: tuple[str, ...]) -> Captions:
        """Embed the captions.

        Args:
            original: ``uint8 (H, W, 3)``; only its size counts.
            captions: the dataset's references, in its order.

        Raises:
            MetricError: the image is of another type, or there is no caption, or an empty one.
            MissingNeed: the network's weights are not on this machine.
        """
        check_original(original, self.name)
        if not captions or not all(caption.strip() for caption in captions):
            raise MetricError(
                f"{self.name} scores against reference captions, found {captions!r}; choose a dataset with"
            )
        chosen = captions[:1] if self.over == "gt-first" else captions
        texts = [self.prefix + caption for caption in chosen]
        return Captions(original, unit(self.clip.text(texts)), self.clip.truncated(texts))

    def score(self, prepared: Captions, reconstruction: Image) -> float:
        """The score. Raises `MetricError` for another size or type."""
        check_pair(prepared.image, reconstruction, self.name)
        image = self.clip.one(reconstruction)
        scores = [self.scale(image, caption) for caption in prepared.vectors]
        return max(scores) if self.over == "gt-max" else float(np.mean(scores))

    def scale(self, image: Vector, caption: Vector) -> float:
        """100 cos of the two embeddings."""
        return clip_score(image, caption)

    def remarks(self, prepared: Captions) -> tuple[str, ...]:
        """What a reader of the value must know: captions that were cut."""
        cut = sum(prepared.truncated)
        return (f"{cut} of {len(prepared.truncated)} captions cut at 77 tokens",) if cut else ()


class CLIPScoreMean(CLIPScore):
    """The mean of `CLIPScore` over all references."""

    name: ClassVar[str] = "clip-score/b32/gt-mean"
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-B/32 (Careil et al., ICLR 2024); mean over references"
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-mean"


class CLIPScoreMax(CLIPScore):
    """The largest `CLIPScore` of all references."""

    name: ClassVar[str] = "clip-score/b32/gt-max"
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-B/32 (Careil et al., ICLR 2024); best reference"
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-max"


class CLIPScoreL14(CLIPScore):
    """100 cos(reconstruction, first reference caption) with ViT-L/14, torchmetrics' default network."""

    name: ClassVar[str] = "clip-score/l14"
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-L/14; first reference"
    needs: ClassVar[tuple[Need, ...]] = (Package("transformers"), Weights(L14), Weights(TOKENS))
    card: ClassVar[Card] = L14


class CLIPScoreL14Mean(CLIPScoreL14):
    """The mean of `CLIPScoreL14` over all references."""

    name: ClassVar[str] = "clip-score/l14/gt-mean"
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-L/14; mean over references"
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-mean"


class CLIPScoreL14Max(CLIPScoreL14):
    """The largest `CLIPScoreL14` of all references."""

    name: ClassVar[str] = "clip-score/l14/gt-max"
    source: ClassVar[str] = "100 cos(image, caption), CLIP ViT-L/14; best reference"
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-max"


class HesselScore(CLIPScore):
    """2.5 max(cos, 0) of the reconstruction and ``A photo depicts <first reference>``, ViT-B/32, 0 to 2.5.

    >>> HesselScore().scale(np.array([3.0, 4.0]), np.array([-1.0, 0.0]))
    0.0
    """

    name: ClassVar[str] = "clip-score/hessel-b32"
    bounds: ClassVar[tuple[float, float]] = (0.0, 2.5)
    source: ClassVar[str] = (
        "2.5 max(cos, 0), CLIP ViT-B/32, 'A photo depicts' (Hessel et al., EMNLP 2021); first reference"
    )
    prefix: ClassVar[str] = "A photo depicts "

    def scale(self, image: Vector, caption: Vector) -> float:
        """2.5 max(cos, 0) of the two embeddings."""
        return hessel_score(image, caption)


class HesselScoreMean(HesselScore):
    """The mean of `HesselScore` over all references."""

    name: ClassVar[str] = "clip-score/hessel-b32/gt-mean"
    source: ClassVar[str] = (
        "2.5 max(cos, 0), CLIP ViT-B/32, 'A photo depicts' (Hessel et al., EMNLP 2021); mean over references"
    )
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-mean"


class HesselScoreMax(HesselScore):
    """The largest `HesselScore` of all references."""

    name: ClassVar[str] = "clip-score/hessel-b32/gt-max"
    source: ClassVar[str] = (
        "2.5 max(cos, 0), CLIP ViT-B/32, 'A photo depicts' (Hessel et al., EMNLP 2021); best reference"
    )
    over: ClassVar[Literal["gt-first", "gt-mean", "gt-max"]] = "gt-max"

"""What CLIP says of a reconstruction: how near its original it is, and how well a caption fits it.

Both are cosines of embeddings (Radford et al., ICML 2021); what papers report differs in network, scale and caption, so
each has a name of its own (``docs/metrics.md``). The network sees the centre square of an image at 224 pixels, nothing
at the long sides. Text+Sketch picks among its candidates by the network of ``dclip/h14``, so it scores well by
construction.

The captions of a CLIP score are the dataset's references, people's words about the original, and never the caption that
a codec transmitted, which would reward it for agreeing with itself. The plain name takes the first reference;
``.../gt-mean`` and ``.../gt-max`` take the mean and the largest of the scores of all. torchmetrics replaces a negative
mean over images by 0; here it stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import Card, Weights
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import (
    ComparingMetric,
    PairMetric,
    WithNetwork,
    by_name,
    check_original,
    check_pair,
    variant,
)
from rdpbench.needs import Need, Package
from rdpbench.networks.clip import B32, H14, L14, TOKENS, Clip, load_clip, unit

Vector: TypeAlias = NDArray[np.float64]


def clip_score(image: Vector, caption: Vector) -> float:
    """100 cos, -100 to 100.

    >>> clip_score(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    60.0
    """
    return 100 * float(unit(image) @ unit(caption))


def hessel_score(image: Vector, caption: Vector) -> float:
    """2.5 max(cos, 0), 0 to 2.5.

    >>> hessel_score(np.array([3.0, 4.0]), np.array([1.0, 0.0]))
    1.5
    """
    return 2.5 * max(float(unit(image) @ unit(caption)), 0.0)


def _needs(card: Card, *, text: bool = True) -> tuple[Need, ...]:
    return (Package("transformers", extra="metrics"), Weights(card), *((Weights(TOKENS),) if text else ()))


class ClipMetric(PairMetric, WithNetwork[Clip]):
    """What all share; ``given`` is a `Clip`."""

    preload = ("torch", "transformers")
    card: ClassVar[Card]

    def load(self, given: Clip | None) -> Clip:
        return given or load_clip(self.card, self.device, text=Weights(TOKENS) in self.needs)


class CLIPImage(ClipMetric, ComparingMetric[Vector]):
    """Cosine between the embeddings of original and reconstruction, 1 for identical images."""

    name = "clip-i/b32"
    bounds = (-1.0, 1.0)
    higher_is_better = True
    source = "cosine of CLIP ViT-B/32 image embeddings; centre square at 224 pixels"
    # The table of tokens is not used, but with it the network is the same object as that of the CLIP scores.
    needs = _needs(B32)
    card = B32

    def compute(self, image: Image) -> Vector:
        return self.network.one(image)

    def compare(self, original: Vector, reconstruction: Vector) -> float:
        return float(original @ reconstruction)


class DCLIP(CLIPImage):
    """1 - cosine between the embeddings of LAION's ViT-H/14, as Text+Sketch reports it; 0 for identical images."""

    name = "dclip/h14"
    bounds = (0.0, 2.0)
    higher_is_better = False
    source = "Lei et al. 2023 (Text+Sketch): 1 - cosine of OpenCLIP ViT-H/14 (laion2b_s32b_b79k)"
    needs = _needs(H14, text=False)
    card = H14

    def compare(self, original: Vector, reconstruction: Vector) -> float:
        return 1 - super().compare(original, reconstruction)


@dataclass(frozen=True)
class Embedded:
    """The original, and the embeddings of its captions, of length 1, ``(n, dim)``."""

    image: Image
    vectors: Vector
    truncated: tuple[bool, ...]
    """Which captions were longer than the network reads."""


class CLIPScore(ClipMetric):
    """100 cos(reconstruction, reference caption); `HesselScore` is 2.5 max(cos, 0)."""

    bounds = (-100.0, 100.0)
    higher_is_better = True
    beside: ClassVar[tuple[str, ...]] = ("captions",)
    prefix: ClassVar[str] = ""
    over: ClassVar[Literal["first reference", "mean over references", "best reference"]]

    def prepare(self, original: Image, *, captions: tuple[str, ...]) -> Embedded:
        """Embed the captions.

        Args:
            original: ``uint8 (H, W, 3)``; only its size counts.
            captions: the dataset's references, in its order.

        Raises:
            MetricError: the image is of another type, or there is no caption, or an empty one.
        """
        check_original(original, self.name)
        if not captions or not all(caption.strip() for caption in captions):
            raise MetricError(
                f"{self.name} scores against reference captions, found {captions!r}; choose a dataset with"
            )
        texts = [self.prefix + caption for caption in captions[: 1 if self.over == "first reference" else None]]
        return Embedded(original, unit(self.network.text(texts)), self.network.truncated(texts))

    def score(self, prepared: Embedded, reconstruction: Image) -> float:
        check_pair(prepared.image, reconstruction, self.name)
        image = self.network.one(reconstruction)
        scores = [self.scale(image, caption) for caption in prepared.vectors]
        return max(scores) if self.over == "best reference" else float(np.mean(scores))

    def scale(self, image: Vector, caption: Vector) -> float:
        """The score of two embeddings."""
        return clip_score(image, caption)

    def remarks(self, prepared: Embedded) -> tuple[str, ...]:
        """What a reader of the value must know: captions that were cut."""
        cut = sum(prepared.truncated)
        return (f"{cut} of {len(prepared.truncated)} captions cut at 77 tokens",) if cut else ()


class HesselScore(CLIPScore):
    """2.5 max(cos, 0) of the reconstruction and ``A photo depicts <reference>``."""

    bounds = (0.0, 2.5)
    prefix = "A photo depicts "

    def scale(self, image: Vector, caption: Vector) -> float:
        return hessel_score(image, caption)


_SCORES = (
    (CLIPScore, "clip-score/b32", B32, "100 cos(image, caption), CLIP ViT-B/32 (Careil et al., ICLR 2024)"),
    (CLIPScore, "clip-score/l14", L14, "100 cos(image, caption), CLIP ViT-L/14"),
    (
        HesselScore,
        "clip-score/hessel-b32",
        B32,
        "2.5 max(cos, 0), CLIP ViT-B/32, 'A photo depicts' (Hessel et al., EMNLP 2021)",
    ),
)
_OVER = {"": "first reference", "/gt-mean": "mean over references", "/gt-max": "best reference"}

METRICS = by_name(
    CLIPImage,
    DCLIP,
    *(
        variant(base, name + end, source=f"{source}; {over}", over=over, card=card, needs=_needs(card))
        for base, name, card, source in _SCORES
        for end, over in _OVER.items()
    ),
)

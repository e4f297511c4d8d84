"""How alike two sets of captions are: BLEU-4 and CIDEr-D as coco-caption computes them, and SPICE through it.

For codecs a captioner describes the original and the reconstruction; the caption of the original is the one reference,
and the statistics (lengths, how rare a phrase is) are those of the whole set of originals. The number belongs to the
captioner as much as to the codec: its id is part of the metric's name.

Both count runs of one to four words (`rdpbench.metrics.caption_tokens`). Constants and conventions are coco-caption's,
the formulas those of the papers: Papineni et al., "BLEU", ACL 2002; Vedantam, Zitnick and Parikh, "CIDEr", CVPR 2015.
BLEU is printed from 0 to 1, CIDEr-D from 0 to 10: the factor 10 is in its definition.

BLEU's counts add up over images and shards, as integers (`bleu_counts`). CIDEr-D is a mean over images, but each
image's value depends on the whole set through the document frequencies: it is computed at the end, from all captions.
"""

from __future__ import annotations

import importlib
import math
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import MetricError, MissingNeed
from rdpbench.metrics.caption_tokens import tokens
from rdpbench.needs import Need, Package

ORDER = 4
"""Longest run of words."""
SIGMA = 6.0
"""CIDEr-D's penalty for another length, in words."""


@dataclass(frozen=True)
class Java:
    """The program ``java`` on PATH, where ``pycocoevalcap`` looks for it.

    >>> Java().missing() is None or "is not on PATH" in str(Java().missing())
    True
    """

    def missing(self) -> str | None:
        if shutil.which("java"):
            return None
        return "program 'java' is not on PATH; get a Java 8 runtime, for instance from https://adoptium.net"


SPICE_NEEDS: tuple[Need, ...] = (Package("pycocoevalcap"), Java())
"""SPICE is a Java program (Anderson et al., ECCV 2016) that parses captions with Stanford CoreNLP 3.6."""

_TINY, _SMALL = 1e-15, 1e-9
"""What coco-caption adds to numerators and denominators: no match gives almost 0 instead of an error."""

Grams = Counter[tuple[str, ...]]
Captions = Sequence[str]
References = Sequence[Sequence[str]]
"""One or more references for each caption."""


@dataclass(frozen=True, eq=False)
class CIDErD:
    """CIDEr-D of a set."""

    value: float
    """Mean over images, 0 to 10."""
    images: NDArray[np.float64]
    """Each image's value."""


def bleu_counts(caption: str, references: Sequence[str]) -> NDArray[np.int64]:
    """What one image adds to BLEU: matches of 1 to 4 words, runs of 1 to 4 words, length, reference length: ``(10,)``.

    A run counts as often as the one reference has it that has it most; the reference length is that closest to the
    caption's, the shorter of two.

    Raises:
        MetricError: no reference.

    >>> bleu_counts("a dog on the beach", ["a dog at the beach"]).tolist()
    [4, 2, 0, 0, 5, 4, 3, 2, 5, 5]
    """
    words, known = tokens(caption), [tokens(one) for one in references]
    if not known:
        raise MetricError(f"BLEU: no reference for the caption {caption!r}")
    most: Grams = Counter()
    for reference in known:
        most |= _grams(reference)
    matches = [0] * ORDER
    for run, count in _grams(words).items():
        matches[len(run) - 1] += min(count, most[run])
    runs = [max(0, len(words) - length) for length in range(ORDER)]
    closest = min((abs(len(one) - len(words)), len(one)) for one in known)[1]
    return np.array([*matches, *runs, len(words), closest], np.int64)


def bleu_of(counts: NDArray[np.int64]) -> float:
    """BLEU-4 from the sum of `bleu_counts` over a set.

    >>> round(bleu_of(bleu_counts("a dog on the beach", ["a dog on the beach"])), 6)
    1.0
    """
    matches, runs, (length, reference) = counts[:ORDER], counts[ORDER : 2 * ORDER], counts[2 * ORDER :]
    precision: float = float(np.prod((matches + _TINY) / (runs + _SMALL))) ** (1 / ORDER)
    ratio = (float(length) + _TINY) / (float(reference) + _SMALL)
    # An exponent of -1e10 and less gives 0, as it should for empty captions.
    return precision * math.exp(min(0.0, 1 - 1 / ratio))


def bleu4(captions: Captions, references: References) -> float:
    """BLEU-4 of a set of captions, 0 to 1.

    Raises:
        MetricError: no captions, or not as many references as captions.

    >>> captions = ["a dog on the beach", "two men ride a red bus"]
    >>> round(bleu4(captions, [["a dog on the sand"], ["two men ride a bus"]]), 6)
    0.594217
    """
    _check(captions, references, "BLEU")
    return bleu_of(np.sum([bleu_counts(*pair) for pair in zip(captions, references, strict=True)], axis=0))


def cider_d(captions: Captions, references: References) -> CIDErD:
    """CIDEr-D of a set of captions, with the document frequencies of its references.

    Raises:
        MetricError: fewer than two images (all frequencies are then alike), or not as many references as captions.

    >>> captions = ["a dog on the beach", "two men ride a red bus"]
    >>> found = cider_d(captions, [["a dog on the beach"], ["two men ride a bus"]])
    >>> round(found.value, 6), round(float(found.images[0]), 6)
    (8.144578, 10.0)
    """
    _check(captions, references, "CIDEr-D")
    if len(captions) < 2:
        raise MetricError(
            "CIDEr-D needs at least 2 images, found 1: it counts over the references of all images how rare a phrase is"
        )
    known = [[_grams(tokens(one)) for one in several] for several in references]
    frequency = Counter(run for several in known for run in set().union(*several))
    weights = _Weights(frequency, math.log(len(captions)))
    values = []
    for caption, several in zip(captions, known, strict=True):
        vector = weights.of(_grams(tokens(caption)))
        values.append(10 * math.fsum(_similar(vector, weights.of(one)) for one in several) / len(several))
    return CIDErD(math.fsum(values) / len(values), np.array(values))


def spice(captions: Captions, references: References) -> float:
    """SPICE (F-score of scene graphs), 0 to 1, through the package ``pycocoevalcap`` and Java.

    Optional, and never run by our tests: the package is no dependency (it states no licence, and parts of it are under
    the GPL), asks for Java 8, and on first use downloads CoreNLP's models, without checking them.

    Raises:
        MissingNeed: the package or Java is not here.
        MetricError: no captions, or not as many references as captions.

    >>> len(SPICE_NEEDS)
    2
    """
    _check(captions, references, "SPICE")
    if missing := [text for need in SPICE_NEEDS if (text := need.missing())]:
        raise MissingNeed("SPICE: " + "\n".join(missing) + "\nBLEU-4 and CIDEr-D need neither")
    scorer = importlib.import_module("pycocoevalcap.spice.spice").Spice()
    known = dict(enumerate(map(list, references)))
    value, _ = scorer.compute_score(known, {image: [caption] for image, caption in enumerate(captions)})
    return float(value)


@dataclass(frozen=True)
class _Vector:
    weights: dict[tuple[str, ...], float]
    norms: list[float]
    """Per length of run."""
    length: int


class _Weights:
    """Counts times the logarithm of how rare a run of words is."""

    def __init__(self, frequency: Counter[tuple[str, ...]], log_images: float) -> None:
        self._frequency, self._log_images = frequency, log_images

    def of(self, grams: Grams) -> _Vector:
        weights = {
            run: count * (self._log_images - math.log(max(1, self._frequency[run]))) for run, count in grams.items()
        }
        squares = [0.0] * ORDER
        for run, weight in weights.items():
            squares[len(run) - 1] += weight * weight
        # coco-caption's length is the number of word pairs; it matters for captions of a single word or none.
        length = sum(count for run, count in grams.items() if len(run) == 2)
        return _Vector(weights, [math.sqrt(one) for one in squares], length)


def _similar(caption: _Vector, reference: _Vector) -> float:
    """Mean over the lengths of runs of the clipped cosine, times the penalty for another length: 0 to 1."""
    products = [0.0] * ORDER
    for run, weight in caption.weights.items():
        other = reference.weights.get(run, 0.0)
        products[len(run) - 1] += min(weight, other) * other
    norms = [a * b for a, b in zip(caption.norms, reference.norms, strict=True)]
    cosines = [product / norm for product, norm in zip(products, norms, strict=True) if norm]
    return math.fsum(cosines) / ORDER * math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))


def _grams(words: Sequence[str]) -> Grams:
    """All runs of one to four words."""
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, ORDER + 1)
        for start in range(len(words) - length + 1)
    )


def _check(captions: Captions, references: References, metric: str) -> None:
    if not captions:
        raise MetricError(f"{metric}: no image in the set")
    if len(captions) != len(references):
        raise MetricError(f"{metric}: {len(captions)} captions and references for {len(references)} images")
    for number, several in enumerate(references):
        # A string is a sequence of strings, too: its letters would become references.
        if isinstance(several, str) or not several:
            raise MetricError(f"{metric}: references of image {number} are a list of captions, found {several!r}")

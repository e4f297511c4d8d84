"""Do reconstructions still say the same? Captions of originals and reconstructions by one model, compared as texts.

TACO's Table 1 (Lee et al., ICML 2024): a captioner describes both images, the original's caption is the one reference,
and BLEU-4 and CIDEr-D are statistics of the whole set. The numbers are the captioner's as much as the codec's, so its
name is part of theirs. SPICE, which needs Java and models of its own, is not here.

Both count runs of one to four words. Constants and conventions are coco-caption's, the formulas those of the papers:
Papineni et al., "BLEU", ACL 2002; Vedantam, Zitnick and Parikh, "CIDEr", CVPR 2015. BLEU is printed from 0 to 1,
CIDEr-D from 0 to 10: the factor 10 is in its definition.

Words are Penn Treebank tokens in lower case, without punctuation. coco-caption calls the tokenizer of Stanford CoreNLP
3.4.1, a Java program under the GPL; `tokens` is a reduced one:

* blanks separate; full stops, commas, colons, quotes, brackets and most signs are tokens of their own;
* clitics are split: ``does n't``, ``man 's``, ``ca n't``, ``can not``, ``gon na``;
* hyphens, slashes, full stops and digits stay inside a word: ``t-shirt``, ``tv/vcr``, ``5.00``, ``u.s.``, ``st.``;
* then what coco-caption's list of punctuation names is dropped. That list holds brackets in capitals (``-LRB-``), which
  never occur in lower-cased text: brackets stay, as ``-lrb-``, here as there.

It gives the Java program's tokens for all 351 COCO captions it was tried on, and for 98.6 % of 6,000 made of them by
strewing in clitics, quotes, prices, times, abbreviations and stray marks. What differs: emoticons, some web addresses,
times such as 10:30am, fractions written as one sign, a full stop with another mark behind it, rare abbreviations, and
a single letter before a full stop (an initial here, always; there, it depends on what follows).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.datasets.captioning import CARDS, Captioner, CaptionSettings, captioner_identity, locate
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import Array, Estimate, MetricOfSets, NetworkFeatures, by_name, variant
from rdpbench.needs import Package, refused

_SAME = str.maketrans({"“": '"', "”": '"', "‘": "`", "’": "'", "–": "--", "—": "--", "…": " ... ", "€": "$", "£": "#"})
_DROPPED = {"''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"}
"""coco-caption's list, less the brackets in capitals; a straight quote stands for both of its directions."""
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_ABBREVIATIONS = (
    r"mr|mrs|ms|dr|prof|gen|col|lt|sgt|capt|rev|hon|gov|sen|rep|pres|supt|jr|sr|st|ave|blvd|rd|mt|sq|ft|bldg|dept|inc|"
    r"corp|co|ltd|bros|univ|assn|asst|vs|etc|est|tel|jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|tues|wed|"
    r"thu|thurs|fri|calif|fla|mich|minn|penn|ph\.d"
)
_FIXED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "gimme": "gim me",
    "lemme": "lem me",
    "'tis": "'t is",
    "'twas": "'t was",
    "y'all": "y' all",
}
_SPLIT = re.compile(r"(?<![\w'])(?:" + "|".join(map(re.escape, _FIXED)) + r")(?!\w)")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|re|ve|ll))(?!\w)")

_MARKS = re.compile(r"\.{2,}|-{2,}")
"""Longer runs of full stops and hyphens: the Java program shortens them to ones that the list names."""

_TOKEN = re.compile(
    r"""
      (?:https?://|www\.)\S*\w                        # an address
    | [\w.+-]+@[\w-]+(?:\.\w+)+                       # of mail, too
    | [#@][a-z]\w*                                    # a tag
    | </?[a-z]+/?>                                    # a tag of another kind
    | (?:no|fig|pp|p|op)\.(?=\s*\d)                   # no. 7
    | (?:ABBREVIATIONS)\.(?!\w)                       # st.
    | (?:[^\W\d_]\.)+(?!\w)                           # u.s.
    | n't(?!\w) | y'(?=\ ) | '(?:s|m|d|re|ve|ll|t)(?!\w)         # clitics, split off before
    | '\d0s(?!\w) | 'n' | '(?:em|til)(?!\w)     # '90s, 'n', 'em
    | \.\d+                                           # .5
    | \d+(?:[.,:/-]\d+)+(?:-\w+)*(?!\w|-\w)           # 1,000; 3/4; 5:30; 10-20; 3.5-inch
    | [^\W_]+(?:(?:[-/._]|(?<!\d)'(?!n'|\d))[^\W_]+)*  # words: black-and-white, tv/vcr, o'clock
    | \.{3,} | -{2,} | [?!]{2,} | '' | `` | \S
    """.replace("ABBREVIATIONS", _ABBREVIATIONS),
    re.VERBOSE,
)


def tokens(caption: str) -> list[str]:
    """The words of a caption, in lower case.

    >>> tokens("A man's t-shirt (red) doesn't fit, 5 p.m.")
    ['a', 'man', "'s", 't-shirt', '-lrb-', 'red', '-rrb-', 'does', "n't", 'fit', '5', 'p.m.']
    """
    text = caption.lower().translate(_SAME)
    text = _SPLIT.sub(lambda match: _FIXED[match[0]], text)
    text = _CLITIC.sub(r" \1", text)
    words = (word for word in _TOKEN.findall(text) if word not in _DROPPED and not _MARKS.fullmatch(word))
    return [_BRACKETS.get(word, word) for word in words]


ORDER = 4
"""Longest run of words."""
SIGMA = 6.0
"""CIDEr-D's penalty for another length, in words."""
_TINY, _SMALL = 1e-15, 1e-9
"""What coco-caption adds to numerators and denominators: no match gives almost 0 instead of an error."""

Grams = Counter[tuple[str, ...]]
Texts = Sequence[str]
References = Sequence[Sequence[str]]
"""One or more references for each caption."""


def _grams(words: Sequence[str]) -> Grams:
    """All runs of one to four words."""
    return Counter(
        tuple(words[start : start + length])
        for length in range(1, ORDER + 1)
        for start in range(len(words) - length + 1)
    )


def bleu_counts(caption: str, references: Sequence[str]) -> NDArray[np.int64]:
    """What one image adds to BLEU: matches of 1 to 4 words, runs of 1 to 4 words, length, reference length: ``(10,)``.

    A run counts as often as the one reference has it that has it most; the reference length is that closest to the
    caption's, the shorter of two. Counts add up over images and shards.

    >>> bleu_counts("a dog on the beach", ["a dog at the beach"]).tolist()
    [4, 2, 0, 0, 5, 4, 3, 2, 5, 5]
    """
    words, known = tokens(caption), [tokens(reference) for reference in references]
    if not known:
        raise MetricError(f"BLEU: no reference for the caption {caption!r}")
    most: Grams = Counter()
    for reference in known:
        most |= _grams(reference)
    matches = [0] * ORDER
    for run, count in _grams(words).items():
        matches[len(run) - 1] += min(count, most[run])
    runs = [max(0, len(words) - length) for length in range(ORDER)]
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in known)[1]
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


def bleu4(captions: Texts, references: References) -> float:
    """BLEU-4 of a set of captions, 0 to 1.

    Raises:
        MetricError: no captions, or not as many references as captions.

    >>> captions = ["a dog on the beach", "two men ride a red bus"]
    >>> round(bleu4(captions, [["a dog on the sand"], ["two men ride a bus"]]), 6)
    0.594217
    """
    _check(captions, references, "BLEU")
    return bleu_of(np.sum([bleu_counts(*pair) for pair in zip(captions, references, strict=True)], axis=0))


@dataclass(frozen=True, eq=False)
class CIDErD:
    """CIDEr-D of a set."""

    value: float
    """Mean over images, 0 to 10."""
    images: NDArray[np.float64]
    """Each image's value, which depends on the whole set through the document frequencies."""


def cider_d(captions: Texts, references: References) -> CIDErD:
    """CIDEr-D of a set of captions, with the document frequencies of its references.

    Raises:
        MetricError: fewer than two images (all frequencies are then alike), or not as many references as captions.

    >>> captions = ["a dog on the beach", "two men ride a red bus"]
    >>> round(cider_d(captions, [["a dog on the beach"], ["two men ride a bus"]]).value, 6)
    8.144578
    """
    _check(captions, references, "CIDEr-D")
    if len(captions) < 2:
        raise MetricError(
            "CIDEr-D needs at least 2 images, found 1: it counts over the references of all images how rare a phrase is"
        )
    known = [[_grams(tokens(reference)) for reference in several] for several in references]
    frequency = Counter(run for several in known for run in set().union(*several))

    def weighted(grams: Grams) -> _Vector:
        rarity = {run: math.log(len(captions)) - math.log(max(1, frequency[run])) for run in grams}
        weights = {run: count * rarity[run] for run, count in grams.items()}
        norms = [math.sqrt(sum(w * w for run, w in weights.items() if len(run) == size + 1)) for size in range(ORDER)]
        # coco-caption's length is the number of word pairs; it matters for captions of a single word or none.
        return _Vector(weights, norms, sum(count for run, count in grams.items() if len(run) == 2))

    values = []
    for caption, several in zip(captions, known, strict=True):
        vector = weighted(_grams(tokens(caption)))
        values.append(10 * math.fsum(_similar(vector, weighted(reference)) for reference in several) / len(several))
    return CIDErD(math.fsum(values) / len(values), np.array(values))


@dataclass(frozen=True)
class _Vector:
    """Runs of words, counted and weighted by how rare they are."""

    weights: dict[tuple[str, ...], float]
    norms: list[float]
    """Per length of run."""
    length: int


def _similar(caption: _Vector, reference: _Vector) -> float:
    """Mean over the lengths of runs of the clipped cosine, times the penalty for another length: 0 to 1."""
    products = [0.0] * ORDER
    for run, weight in caption.weights.items():
        other = reference.weights.get(run, 0.0)
        products[len(run) - 1] += min(weight, other) * other
    norms = [a * b for a, b in zip(caption.norms, reference.norms, strict=True)]
    cosines = [product / norm for product, norm in zip(products, norms, strict=True) if norm]
    return math.fsum(cosines) / ORDER * math.exp(-((caption.length - reference.length) ** 2) / (2 * SIGMA**2))


def _check(captions: Texts, references: References, metric: str) -> None:
    if not captions:
        raise MetricError(f"{metric}: no image in the set")
    if len(captions) != len(references):
        raise MetricError(f"{metric}: {len(captions)} captions and references for {len(references)} images")
    for number, several in enumerate(references):
        # A string is a sequence of strings, too: its letters would become references.
        if isinstance(several, str) or not several:
            raise MetricError(f"{metric}: references of image {number} are a list of captions, found {several!r}")


@dataclass(frozen=True)
class CaptioningModel:
    """A captioning model as a need."""

    name: str

    def missing(self) -> str | None:
        """None if its files are here; else what, where from, how large, which licence, what to do."""
        return refused(lambda: locate(CARDS[self.name], CaptionSettings()))


class CaptionFeatures(NetworkFeatures[Captioner]):
    """The caption of an image, as the bytes of its UTF-8 text; ``given`` is a `Captioner`."""

    dim = 1
    preload = ("torch", "transformers")
    model: ClassVar[str]

    def load(self, given: Captioner | None) -> Captioner:
        card = CARDS[self.model]
        return Captioner(card, locate(card, CaptionSettings()), self.device) if given is None else given

    @classmethod
    def made_by(cls) -> str:
        """What captions depend on beside the pixels: model, revision, how they are decoded; part of the arrays' key."""
        return captioner_identity(CARDS[cls.model], CaptionSettings())

    def extract(self, images: Sequence[Image], **_: Any) -> list[Array]:
        """The bytes of each caption, ``uint8 (length,)``."""
        return [np.frombuffer(self.network(image)[0].encode() or b" ", np.uint8) for image in images]


class CaptionMetric(MetricOfSets):
    """The statistic of the reconstructions' captions against the originals'."""

    higher_is_better = True
    minimum_images = 10

    @staticmethod
    def statistic(captions: Texts, references: References) -> float:
        """Of the reconstructions' captions, against one reference for each."""
        raise NotImplementedError

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """The number from texts.

        Raises:
            MetricError: no captions, not as many on both sides, or arrays that are no text.

        >>> texts = [np.frombuffer(text, np.uint8) for text in (b"a dog on the beach", b"two men ride a bus")]
        >>> round(METRICS["caption/cider-d/blip2"]().reduce(texts, texts).value, 6)
        10.0
        """
        captions, references = _texts(distorted, self.name), _texts(reference, self.name)
        return Estimate(self.statistic(captions, [[text] for text in references]))


def _texts(arrays: Sequence[Array], metric: str) -> list[str]:
    if any(array.dtype != np.uint8 or array.ndim != 1 for array in arrays):
        raise MetricError(f"{metric}: captions are uint8 (length,); these are features of another kind")
    return [array.tobytes().decode().strip() for array in arrays]


FEATURES = {
    model: variant(
        CaptionFeatures,
        f"caption/{model}",
        model=model,
        needs=(Package("transformers", extra="metrics"), CaptioningModel(model)),
    )
    for model in ("blip", "blip2")  # BLIP large; BLIP-2 as in PerCo (SD)
}
_STATISTICS: dict[str, tuple[float, Callable[[Texts, References], float]]] = {
    "BLEU-4": (1.0, bleu4),
    "CIDEr-D": (10.0, lambda captions, references: cider_d(captions, references).value),
}

METRICS = by_name(
    *(
        variant(
            CaptionMetric,
            f"caption/{title.lower()}/{model}",
            source=f"{title} of captions, the original's as the reference (Lee et al., ICML 2024, Table 1)",
            features=features,
            bounds=(0.0, most),
            statistic=staticmethod(statistic),
        )
        for title, (most, statistic) in _STATISTICS.items()
        for model, features in FEATURES.items()
    )
)

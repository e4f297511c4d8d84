"""Which pairs a rater sees, in which order, and which of the two is on the left: seeded and balanced.

A sheet is what one rater does in one sitting. Over all sheets each pair is seen equally often (differences of one), and
within a sheet the pairs that are rarest so far come first. Each pair of codecs has each of its two on the left equally
often. Catch trials show the original itself beside a spoiled copy: who misses these was not looking.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rdpbench.errors import ConfigError


@dataclass(frozen=True)
class Pair:
    """Two reconstructions of one image at one rate; codecs are in the order of the study."""

    image: str
    target: float
    """Bits per pixel that both were matched to."""
    first: str
    second: str


@dataclass(frozen=True)
class Trial:
    """One question: a pair or, with ``catch``, the original and a spoiled copy of it."""

    pair: Pair | None
    image: str
    swapped: bool
    """Is the first of the pair, or the original of a catch trial, on the right?"""

    @property
    def catch(self) -> bool:
        return self.pair is None


def pairs(images: Sequence[str], targets: Sequence[float], codecs: Sequence[str]) -> list[Pair]:
    """All pairs of codecs on all images at all rates.

    >>> len(pairs(["a", "b"], [0.1], ["x", "y", "z"]))
    6
    """
    of = itertools.product(images, targets, itertools.combinations(codecs, 2))
    return [Pair(image, target, first, second) for image, target, (first, second) in of]


def sheets(known: Sequence[Pair], count: int, length: int | None, catch: int, seed: int) -> list[list[Trial]]:
    """``count`` sheets of ``length`` pairs (None: all of them) and ``catch`` catch trials each, in the order shown.

    Raises:
        ConfigError: a number that cannot be meant.

    >>> made = sheets(pairs(["a", "b"], [0.1], ["x", "y", "z"]), count=4, length=3, catch=1, seed=0)
    >>> len(made), len(made[0])
    (4, 4)
    """
    length = len(known) if length is None else length
    if not known or count < 1 or catch < 0 or not 1 <= length <= len(known):
        raise ConfigError(
            f"{count} sheets of {length} trials and {catch} catch trials cannot be made of {len(known)} pairs: "
            "a sheet has at least one, and none twice"
        )
    draw = random.Random(seed)  # noqa: S311 (an order, no secret)
    seen: Counter[Pair] = Counter()
    left: Counter[tuple[str, str]] = Counter()
    shown: Counter[Pair] = Counter()
    images = sorted({pair.image for pair in known})
    out = []
    for _ in range(count):
        order = draw.sample(known, len(known))
        order.sort(key=lambda pair: seen[pair])  # stable: random among those seen equally often
        chosen = order[:length]
        seen.update(chosen)
        sheet = [Trial(pair, pair.image, _swap(pair, left, shown, draw)) for pair in chosen]
        # Half of the catch trials have the original on the left, one more or less.
        sides = [number % 2 == 0 for number in range(catch)]
        draw.shuffle(sides)
        if catch % 2 and draw.random() < 0.5:
            sides = [not side for side in sides]
        sheet += [Trial(None, draw.choice(images), side) for side in sides]
        draw.shuffle(sheet)
        out.append(sheet)
    return out


def _swap(pair: Pair, left: Counter[tuple[str, str]], shown: Counter[Pair], draw: random.Random) -> bool:
    """Put that codec on the left which was there less often: of this very pair, else of these two codecs, else drawn.

    Counters hold how often the first was on the left less how often the second was.
    """
    codecs = (pair.first, pair.second)
    lead = shown[pair] or left[codecs]
    swapped = lead > 0 if lead else draw.random() < 0.5
    for counter, key in ((shown, pair), (left, codecs)):
        counter[key] += -1 if swapped else 1  # type: ignore[index]  # a counter and its own kind of key
    return swapped

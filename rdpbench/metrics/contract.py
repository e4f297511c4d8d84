"""What a metric is: a number with its meaning as class data, from pairs of images or from two sets of them.

A *pair* metric works in two steps, so that what depends on the original alone is computed once however many codecs and
rates are scored against it: ``prepare(original)`` and then ``score(prepared, reconstruction)``. A score is in the unit
that the metric states. The number of a table is the mean of the scores, or what ``averaged`` says instead.

A *set* metric has two halves. Its `Features` turn each image into an array, which is stored; its ``reduce`` turns the
arrays of two sets into an `Estimate`, is cheap, and can be repeated on any subset. Metrics whose features have one
``id`` share the stored arrays.

A metric *over decodes* compares several decodes of one bitstream with each other. Its value is a score of the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rdpbench.image import Image
from rdpbench.needs import Need

Array = NDArray[Any]


@runtime_checkable
class Metric(Protocol):
    """The contract of a pair metric. Images are ``uint8 (H, W, 3)`` of equal size.

    Optional class data: ``beside``, what ``prepare`` also takes of the sample's reference side, by keyword
    (``"captions"``: ``tuple[str, ...]``; ``"labels"``: ``(H, W)`` under the dataset's protocol); ``uses_device``, with
    which the constructor takes ``device``; ``averaged``, how a mean is taken (`Averaged`); and ``bounds``, the least
    and the largest value that a mean can have, which intervals keep to. Optional method: ``remarks(prepared) ->
    tuple[str, ...]``, kept beside the value.
    """

    name: ClassVar[str]
    """Name with protocol, such as ``ms-ssim`` or ``lpips/alex``."""
    version: ClassVar[str]
    """Raised when the code changes the number; enters the key of each score."""
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    """``dB`` or empty."""
    perceptual: ClassVar[bool]
    """Drawn on the perception axis?"""
    source: ClassVar[str]
    """Paper or standard."""
    needs: ClassVar[tuple[Need, ...]]

    def prepare(self, original: Image) -> Any: ...

    def score(self, prepared: Any, reconstruction: Image) -> float: ...

    def reduce(self, values: Sequence[float]) -> float: ...


Averaged = Literal["mean", "decibels"]
"""``mean``: of the scores, without infinite ones. ``decibels``: scores are ``-10 log10`` of an error, and the number of
a table is that of the mean error, in which a lossless image counts as 0."""


def weighed(scores: Any, averaged: Averaged) -> NDArray[np.float64]:
    """What of each score a mean is taken of; infinite for a score that no mean can hold.

    >>> weighed([20.0, math.inf], "decibels").tolist()
    [0.01, 0.0]
    """
    array = np.asarray(scores, np.float64)
    return np.power(10.0, -array / 10) if averaged == "decibels" else array


def stated(means: Any, averaged: Averaged) -> NDArray[np.float64]:
    """Means of `weighed` scores, in the unit that the metric states.

    >>> stated([0.01, 0.0], "decibels").tolist()
    [20.0, inf]
    """
    array = np.asarray(means, np.float64)
    if averaged != "decibels":
        return array
    with np.errstate(divide="ignore"):
        return -10 * np.log10(array) + 0.0


@dataclass(frozen=True)
class Meaning:
    """What must be known of a metric to read its values."""

    kind: str
    """``pair``, ``decodes`` or ``set``."""
    unit: str
    higher_is_better: bool
    perceptual: bool
    averaged: Averaged = "mean"
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def usable(self, score: float | None) -> bool:
        """Is a score a number that may be shown? NaN is not, nor what is infinitely bad: that is a fault of something.

        >>> psnr = Meaning("pair", "dB", True, False)
        >>> psnr.usable(math.inf), psnr.usable(-math.inf), psnr.usable(math.nan)
        (True, False, False)
        """
        return score is not None and (math.isfinite(score) or (score == math.inf and self.higher_is_better))


def meaning_of(metric: Any) -> Meaning:
    """What a metric's class says of its values."""
    return Meaning(
        kind=str(getattr(metric, "kind", "pair")),
        unit=str(getattr(metric, "unit", "")),
        higher_is_better=bool(getattr(metric, "higher_is_better", True)),
        perceptual=bool(getattr(metric, "perceptual", False)),
        averaged=getattr(metric, "averaged", "mean"),
        bounds=bounds_of(metric),
    )


def beside(metric: type) -> tuple[str, ...]:
    """What a pair metric's ``prepare`` takes besides the original.

    >>> from rdpbench.metrics.psnr import PSNR
    >>> len(beside(PSNR))
    0
    """
    names: tuple[str, ...] = getattr(metric, "beside", ())
    return names


def bounds_of(metric: type) -> tuple[float, float]:
    """The least and the largest value of a metric; infinite where it states none.

    >>> from rdpbench.metrics.fid import FIDClean
    >>> bounds_of(FIDClean)
    (0.0, inf)
    """
    bounds: tuple[float, float] = getattr(metric, "bounds", (-math.inf, math.inf))
    return bounds


@runtime_checkable
class Features(Protocol):
    """One array per image: what a set metric needs of it. Built without arguments, or with ``device``.

    Optional: ``made_by()``, a class method that says what the arrays depend on beside what is declared here.
    """

    id: ClassVar[str]
    """Network and preprocessing, such as ``inception/legacy-tf``: arrays of two ids never meet."""
    version: ClassVar[str]
    """Raised when the code changes the arrays."""
    needs: ClassVar[tuple[Need, ...]]
    dim: ClassVar[int]
    """Length of a row."""
    beside: ClassVar[tuple[str, ...]]
    """What ``extract`` also takes of the samples' reference side, by keyword, as lists as long as the images."""
    uses_device: ClassVar[bool]

    def extract(self, images: Sequence[Image], **beside: Any) -> list[Array]:
        """One ``float32 (rows, dim)`` array per image, or ``int64 (K, K)`` confusion counts. Sizes may differ."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A set metric's number.

    >>> Estimate(4.19).value
    4.19
    """

    value: float
    spread: float | None = None
    """Standard deviation over the method's own resampling: KID's subsets. Not an interval over images."""
    reason: str = ""
    """Why the value is NaN or not to be relied on, or what one must know to read it: tables say it below."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """What belongs beside the number, such as ``originals``: the mIoU of the originals."""
    reliable: bool = True
    """False where there were fewer images or rows than the method needs, and the user insisted."""


@runtime_checkable
class SetMetric(Protocol):
    """The contract of a set metric; what is declared as in `Metric` means the same.

    Optional class data: ``unverified``, a sentence that says what of the protocol no source confirms; ``reference``,
    the set that reconstructions are compared with where it is not ``originals``, as ``dataset@protocol``; ``side``, the
    length that the shorter side of every image must have; and ``classes``, the list that label maps must count.
    Optional method: ``left_out(reference, distorted, blocks) -> list[float]``, the values without each block of images
    (on both sides) from one pass, for intervals; `reduce` once for each block gives the same, slowly.
    """

    name: ClassVar[str]
    """Name with protocol, such as ``fid/hific-patch``."""
    kind: ClassVar[Literal["set"]]
    version: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    perceptual: ClassVar[bool]
    source: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]
    features: ClassVar[type[Features]]
    minimum_images: ClassVar[int]
    """Below it a number is refused, or marked unreliable where the user insists."""

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """The number, from the arrays of two sets in the order of the image ids; pure, and repeatable on subsets."""
        ...


@runtime_checkable
class DecodesMetric(Protocol):
    """The contract of a metric over several decodes of one bitstream; what is declared as in `Metric` means the same.

    Optional class data: ``uses_device``, with which the constructor takes ``device``.
    """

    name: ClassVar[str]
    """Name with protocol, which ends in the number of decodes: ``diversity/deviation/5``."""
    kind: ClassVar[Literal["decodes"]]
    decodes: ClassVar[int]
    """How many it compares, the row's own reconstruction counted."""
    version: ClassVar[str]
    higher_is_better: ClassVar[bool]
    unit: ClassVar[str]
    perceptual: ClassVar[bool]
    source: ClassVar[str]
    needs: ClassVar[tuple[Need, ...]]

    def score(self, decodes: Sequence[Image]) -> float:
        """The number of one bitstream; the reconstruction comes first, 0 means that all decodes are equal."""
        ...

    def reduce(self, values: Sequence[float]) -> float: ...


def mean(values: Sequence[float]) -> float:
    """Mean over images; an infinite value (a lossless image's PSNR) is left out unless all are infinite.

    >>> mean([30.0, 32.0, math.inf])
    31.0
    """
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return values[0] if values else math.nan

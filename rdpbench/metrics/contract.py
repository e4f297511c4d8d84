"""What a metric is: a number for a pair or for two sets of images; class data say what the number means.

A *pair* metric works in two steps, so that what depends on the original alone is computed once however many codecs and
rates are scored against it: ``prepare(original)`` and then ``score(prepared, reconstruction)``. A score is in the unit
that the metric states. The number of a table is the mean of the scores, or what ``averaged`` says instead.

A *set* metric has two halves. Its `Features` turn each image into an array, which is stored; its ``reduce`` turns the
arrays of two sets into an `Estimate`, is cheap, and can be repeated on any subset. Metrics whose features have one
``id`` share the stored arrays.

A metric *over decodes* compares several decodes of one bitstream with each other. Its value is a score of the row.

`Metric`, `SetMetric` and `DecodesMetric` are what a class of anybody's must have, and `faults_of` checks it.
`PairMetric` and `MetricOfSets` have the defaults of the metrics that ship; a module lists them by name in ``METRICS``.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import require
from rdpbench.errors import MetricError
from rdpbench.image import Image, check_image, is_untouched, lent
from rdpbench.needs import Licence, Need
from rdpbench.networks.held import METRIC, held
from rdpbench.registry import abstract_in, needs_in, refusal, shape_of, texts_in, type_of

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Stated(Protocol):
    """What every metric says of itself."""

    name: ClassVar[str]
    """Name with protocol, such as ``ms-ssim`` or ``fid/hific-patch``."""
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


@runtime_checkable
class Metric(Stated, Protocol):
    """The contract of a pair metric. Images are ``uint8 (H, W, 3)`` of equal size.

    Optional class data: ``beside``, what ``prepare`` also takes of the sample's reference side, by keyword
    (``"captions"``: ``tuple[str, ...]``; ``"labels"``: ``(H, W)`` under the dataset's protocol); ``uses_device``, with
    which the constructor takes ``device``; ``averaged``, how a mean is taken (`Averaged`); and ``bounds``, the least
    and the largest value that a mean can have, which intervals keep to. Optional method: ``remarks(prepared) ->
    tuple[str, ...]``, kept beside the value.
    """

    def prepare(self, original: Image) -> Any: ...

    def score(self, prepared: Any, reconstruction: Image) -> float: ...

    def reduce(self, values: Sequence[float]) -> float: ...


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
        """One ``float32 (rows, dim)`` array per image, or ``int64 (K, K)`` confusion counts. Sizes may differ.

        `MetricError` for an image that is not ``uint8 (H, W, 3)``.
        """
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
class SetMetric(Stated, Protocol):
    """The contract of a set metric.

    Optional class data: ``unverified``, a sentence that says what of the protocol no source confirms; ``reference``,
    the set that reconstructions are compared with where it is not ``originals``, as ``dataset@protocol``; ``side``, the
    length that the shorter side of every image must have; and ``classes``, the list that label maps must count.
    Optional method: ``left_out(reference, distorted, blocks) -> list[float]``, the values without each block of images
    (on both sides) from one pass, for intervals; `reduce` once for each block gives the same, slowly.
    """

    kind: ClassVar[Literal["set"]]
    features: ClassVar[type[Features]]
    minimum_images: ClassVar[int]
    """Below it a number is refused, or marked unreliable where the user insists."""

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array]) -> Estimate:
        """The number, from the arrays of two sets in the order of the image ids; pure, and repeatable on subsets.

        `MetricError` for an empty set, fewer rows than the estimate needs, rows or counts of another length, and NaN.
        """
        ...


@runtime_checkable
class DecodesMetric(Stated, Protocol):
    """The contract of a metric over several decodes of one bitstream; it may state ``uses_device`` as `Metric` does."""

    kind: ClassVar[Literal["decodes"]]
    decodes: ClassVar[int]
    """How many it compares, the row's own reconstruction counted; the name ends in it: ``diversity/deviation/5``."""

    def score(self, decodes: Sequence[Image]) -> float:
        """The number of one bitstream; the reconstruction comes first, 0 means that all decodes are equal."""
        ...

    def reduce(self, values: Sequence[float]) -> float: ...


class MetricData:
    """What most of the metrics that ship say; each states what differs."""

    name: ClassVar[str]
    source: ClassVar[str]
    version: ClassVar[str] = "1"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    perceptual: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float]] = (0.0, math.inf)
    needs: ClassVar[tuple[Need, ...]] = ()
    preload: ClassVar[tuple[str, ...]] = ()
    """Modules that are imported once, in the fork server, for all workers."""


class PairMetric(MetricData):
    """A metric whose number is the mean over images."""

    def reduce(self, values: Sequence[float]) -> float:
        return mean(values)


P = TypeVar("P")


@dataclass(frozen=True)
class Prepared(Generic[P]):
    """An original, and what a metric computed of it for all its reconstructions."""

    original: Image
    content: P


class ComparingMetric(PairMetric, Generic[P]):
    """A metric that computes the same of both images, and compares the two."""

    minimum_side: ClassVar[int] = 1

    def compute(self, image: Image) -> P:
        """What of an image is compared."""
        raise NotImplementedError

    def compare(self, original: P, reconstruction: P) -> float:
        """The score."""
        raise NotImplementedError

    def prepare(self, original: Image) -> Prepared[P]:
        """What is compared of the original. Raises `MetricError` for a side that is shorter than `minimum_side`."""
        check_original(original, self.name, self.minimum_side)
        return Prepared(original, self.compute(original))

    def score(self, prepared: Prepared[P], reconstruction: Image) -> float:
        check_pair(prepared.original, reconstruction, self.name)
        return self.compare(prepared.content, self.compute(reconstruction))


class MetricOfSets(MetricData):
    """A metric of two sets of images."""

    kind: ClassVar[Literal["set"]] = "set"
    features: ClassVar[type[NetworkFeatures[Any]]]
    minimum_images: ClassVar[int]
    reference: ClassVar[str] = "originals"
    unverified: ClassVar[str] = ""
    side: ClassVar[int | None] = None

    def __init_subclass__(cls) -> None:
        """What the features need, the metric needs."""
        if (features := cls.__dict__.get("features")) and "needs" not in cls.__dict__:
            cls.needs, cls.preload = features.needs, features.preload


N = TypeVar("N")


class WithNetwork(Generic[N]):
    """A metric, or features, by a network: loaded at the first image, unless one is given.

    Classes with the same `load` and the same needs share one.
    """

    needs: ClassVar[tuple[Need, ...]]
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch",)

    def __init__(self, given: Any = None, device: str = "cpu") -> None:
        """Take the published weights, or what `load` takes in their place."""
        self.device = device
        if given is not None:
            self.network = self.load(given)

    @cached_property
    def network(self) -> N:
        """What computes. Raises `MissingNeed` if its weights are not here, or their licence was not accepted."""
        require(need for need in self.needs if isinstance(need, Licence))  # before weights are read
        key = type(self).load, self.needs, self.device
        return held(METRIC, key, lambda: self.load(None))

    def load(self, given: Any) -> N:
        """The network on ``self.device``, with what was given, or the published weights."""
        raise NotImplementedError


class NetworkFeatures(WithNetwork[N]):
    """Features by a network."""

    id: ClassVar[str]
    version: ClassVar[str] = "1"
    dim: ClassVar[int]
    beside: ClassVar[tuple[str, ...]] = ()


T = TypeVar("T")


def variant(base: type[T], name: str, **data: Any) -> type[T]:
    """A class of ``base`` that differs in its name (for features: its ``id``) and other class data.

    >>> from rdpbench.metrics.psnr import PSNR
    >>> variant(PSNR, "psnr/rough", version="0").version
    '0'
    """
    key = "id" if hasattr(base, "extract") else "name"
    facts = {key: name, "__module__": base.__module__, "__doc__": base.__doc__, **data}
    return cast("type[T]", type(name, (base,), facts))


def by_name(*metrics: Any) -> dict[str, Any]:
    """A module's ``METRICS``."""
    return {metric.name: metric for metric in metrics}


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


def mean(values: Sequence[float]) -> float:
    """Mean over images; an infinite value (a lossless image's PSNR) is left out unless all are infinite.

    >>> mean([30.0, 32.0, math.inf])
    31.0
    """
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return values[0] if values else math.nan


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


def short_name(metric: str) -> str:
    """A metric's name for the head of a column: one of the user's without its folder.

    >>> short_name("/home/me/own.py:Error"), short_name("lpips/alex")
    ('own.py:Error', 'lpips/alex')
    """
    return metric.rpartition("/")[2] if ":" in metric else metric


def beside(metric: type) -> tuple[str, ...]:
    """What a pair metric's ``prepare`` takes besides the original."""
    return getattr(metric, "beside", ())


def bounds_of(metric: type) -> tuple[float, float]:
    """The least and the largest value of a metric; infinite where it states none."""
    return getattr(metric, "bounds", (-math.inf, math.inf))


def number_of(score: Any) -> float:
    """A score as a plain number; may be infinite or NaN.

    Raises:
        MetricError: it is none, but text, a complex number, an array, or larger than any float.

    >>> number_of(np.float32(0.5))
    0.5
    """
    no_number = isinstance(score, str | bytes | bytearray | complex | np.complexfloating)
    if (
        no_number
        or getattr(score, "shape", ()) != ()
        or not (hasattr(score, "__float__") or hasattr(score, "__index__"))
    ):
        raise MetricError(f"the metric gave {score!r:.80} ({type(score).__name__}), which is no score; return a float")
    try:
        return float(score)
    except OverflowError:
        raise MetricError("the metric gave a number that is larger than any float, which is no score") from None


class Lender:
    """Lends copies of an image to code that is not ours, and looks afterwards whether it wrote into them."""

    def __init__(self, image: Image, what: str) -> None:
        self._image, self._what = image, what
        self._copy: Image | None = None

    @contextmanager
    def lending(self, by: str, own: bool) -> Iterator[Image]:
        """The image itself for a metric that ships; for one of the user's a copy, the same until it is written into."""
        if not own:
            yield self._image
            return
        if self._copy is None:
            self._copy = lent(self._image)
        with self.guarding(by):
            yield self._copy

    @contextmanager
    def guarding(self, by: str) -> Iterator[None]:
        """Raises `MetricError` after a call if the copy that was lent before was written into."""
        try:
            yield
        finally:
            if self._copy is not None and not is_untouched(self._copy, self._image):
                self._copy = None
                raise MetricError(
                    f"{by} wrote into the {self._what} that it was given, so the value is of other pixels than the "
                    "codec's; let it work on a copy"
                )

    def release(self) -> None:
        """Forget the copy, unless somebody holds on to it: then every later call may write into it."""
        held = weakref.ref(self._copy) if self._copy is not None else None
        self._copy = None
        self._copy = held() if held else None


KINDS = ("pair", "set", "decodes")
BESIDE = ("captions", "labels")


def faults_of(metric: type) -> list[str]:
    """What a class lacks, or states oddly, that is to be a metric; empty if nothing.

    >>> from rdpbench.metrics.psnr import PSNR
    >>> len(faults_of(PSNR)), faults_of(type("Mine", (PSNR,), {"unit": 3}))[0]
    (0, 'unit is 3 (int); write unit = "dB", or unit = ""')
    """
    kind = getattr(metric, "kind", "decodes" if hasattr(metric, "decodes") else "pair")
    if kind not in KINDS:
        return [f"kind is {kind!r:.60}; write one of kind = {', '.join(map(repr, KINDS))}"]
    faults = list(abstract_in(metric))
    faults += type_of(metric, "unit", str, 'unit = "dB", or unit = ""', required=True)
    for flag in ("higher_is_better", "perceptual"):
        faults += type_of(metric, flag, bool, f"{flag} = True or False", required=True)
    faults += type_of(metric, "name", str, 'name = "mine"')
    faults += type_of(metric, "version", (str, int), 'version = "1"')
    faults += type_of(metric, "source", str, 'source = "the paper"')
    faults += needs_in(metric)
    faults += _faults_of_bounds(metric)
    if kind == "set":
        faults += _faults_of_set(metric)
    elif kind == "decodes":
        faults += [*_faults_of_building(metric), *shape_of(metric, "score", ("decodes",))]
        faults += type_of(metric, "decodes", int, "decodes = 5", required=True)
        if isinstance(number := getattr(metric, "decodes", 2), int) and number < 2:
            faults.append(f"decodes is {number}; write 2 or more")
    else:
        faults += [*_faults_of_building(metric), *_faults_of_beside(metric, "prepare", ("original",))]
        faults += shape_of(metric, "score", ("prepared", "reconstruction"))
    averaged: Any = getattr(metric, "averaged", "mean")
    if averaged not in get_args(Averaged):
        faults.append(f'averaged is {averaged!r:.60}; write averaged = "mean", or "decibels" for -10 log10 of an error')
    if kind != "set" and not faults and hasattr(metric, "reduce"):
        faults += _faults_of_reduce(metric, averaged)
    return faults


def _faults_of_building(cls: type) -> list[str]:
    uses_device = getattr(cls, "uses_device", False)
    faults = list(type_of(cls, "uses_device", bool, "uses_device = True or False"))
    if why := refusal(cls, (), ("device",) if uses_device is True else ()):
        words = 'device="cpu"' if uses_device is True else ""
        faults.append(f"it cannot be built as {cls.__name__}({words}): {why}")
    return faults


def _faults_of_beside(cls: type, method: str, arguments: tuple[str, ...]) -> list[str]:
    taken = getattr(cls, "beside", ())
    if faults := list(texts_in(cls, "beside", 'beside = ("captions",)')):
        return faults
    if unknown := [name for name in taken if name not in BESIDE]:
        faults.append(f"beside names {unknown[0]!r}, and what there is are {', '.join(BESIDE)}")
    return [*faults, *shape_of(cls, method, arguments, taken)]


def _faults_of_bounds(metric: type) -> list[str]:
    bounds = getattr(metric, "bounds", (-math.inf, math.inf))
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    real = pair and all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in bounds)
    if not real or not bounds[0] < bounds[1]:
        return [f"bounds is {bounds!r:.60}; write the least and the largest value, such as bounds = (0.0, 1.0)"]
    return []


def _faults_of_set(metric: type) -> list[str]:
    faults = [*_faults_of_building(metric), *shape_of(metric, "reduce", ("reference", "distorted"))]
    faults += type_of(metric, "minimum_images", int, "minimum_images = 2", required=True)
    features = getattr(metric, "features", None)
    if not isinstance(features, type):
        return [*faults, f"features is {features!r:.60}, and no class; write features = MyFeatures"]
    inner = list(type_of(features, "id", str, 'id = "network/preprocessing"', required=True))
    inner += type_of(features, "version", (str, int), 'version = "1"', required=True)
    inner += type_of(features, "dim", int, "dim = 2048", required=True)
    inner += type_of(features, "uses_device", bool, "uses_device = True or False", required=True)
    inner += type_of(features, "beside", (tuple, list), "beside = ()", required=True)
    inner += [*needs_in(features), *_faults_of_building(features), *_faults_of_beside(features, "extract", ("images",))]
    return [*faults, *(f"its features {features.__name__}: {fault}" for fault in dict.fromkeys(inner))]


def _faults_of_reduce(metric: type, averaged: Averaged) -> list[str]:
    """A mean of its own would be shown nowhere: tables and intervals take the one that ``averaged`` names."""
    scores = [1.0, 3.0]
    expected = float(stated(weighed(scores, averaged).mean(), averaged))
    reduce: Any = getattr(metric, "reduce")  # noqa: B009 (mypy knows of no such method)
    try:
        try:
            result = reduce(object.__new__(metric), scores)  # a network is not loaded for this
        except Exception:
            result = metric().reduce(scores)
        same = math.isclose(number_of(result), expected, rel_tol=1e-6)
    except (Exception, SystemExit) as error:
        result, same = f"{type(error).__name__}: {error}", False
    if same:
        return []
    return [
        f"reduce([1.0, 3.0]) gives {result!r:.80}, and the mean of tables would be {expected:.6g}, since values are "
        f"averaged as {averaged!r}; leave reduce out, or write averaged = "
        + ('"decibels"' if averaged == "mean" else '"mean"')
        + " if that is what is meant"
    ]


def check_original(original: Image, metric: str, minimum: int = 1) -> Image:
    """Return ``original`` if it is ``uint8 (H, W, 3)`` with both sides at least ``minimum`` pixels long.

    Floats are refused, since values of [0, 1] where [0, 255] is expected give a plausible number.

    Raises:
        MetricError: it is not; an image that is too small is never resized.

    >>> check_original(np.zeros((8, 9, 3), np.uint8), "psnr").shape
    (8, 9, 3)
    """
    check_image(original, f"{metric}: the original", MetricError)
    height, width = original.shape[:2]
    if min(height, width) < minimum:
        raise MetricError(
            f"{metric} needs at least {minimum} pixels on each side, found {width} x {height} (width x height); "
            "images are never resized for a metric"
        )
    return original


def check_pair(original: Image, reconstruction: Image, metric: str) -> Image:
    """Return ``reconstruction`` if it is ``uint8`` and as large as ``original``, which has been checked before.

    Raises:
        MetricError: float values, another type or another size.

    >>> check_pair(np.zeros((8, 9, 3), np.uint8), np.ones((8, 9, 3), np.uint8), "psnr").sum()
    216
    """
    check_image(reconstruction, f"{metric}: the reconstruction", MetricError)
    if reconstruction.shape != original.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in (original, reconstruction)]
        raise MetricError(f"{metric}: the original is {sizes[0]} and the reconstruction {sizes[1]} (width x height)")
    return reconstruction

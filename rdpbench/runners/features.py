"""Which arrays set metrics still need of a task, and making them in the worker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rdpbench import registry
from rdpbench.datasets.contract import Sample
from rdpbench.errors import MetricError
from rdpbench.image import Image
from rdpbench.metrics.contract import Features, Lender, SetMetric
from rdpbench.paths import cache_folder
from rdpbench.results.features import Array, FeatureStore, Made, kind_of
from rdpbench.runners.beside import identity, values
from rdpbench.runners.task import features_key


def is_set(name: str) -> bool:
    """Is it a set metric?

    >>> is_set("psnr")
    False
    """
    return getattr(registry.load("metric", name), "kind", "pair") == "set"


def set_metric(name: str) -> type[SetMetric]:
    """A set metric's class."""
    cls: type[SetMetric] = registry.load("metric", name)
    return cls


def kind(features: type[Features]) -> str:
    """Where arrays of these features lie."""
    return kind_of(features.id, features_key(features))


def subject(features: type[Features], pixels: str, sample: Sample) -> str:
    """What an array is of: pixels (by their sha256), and what is beside them."""
    beside = identity(features.beside, sample)
    return hashlib.sha256(f"{pixels} {beside}".encode()).hexdigest() if beside else pixels


def originals() -> FeatureStore:
    """Arrays of originals, shared by all runs of this user: they depend on pixels and network alone."""
    return FeatureStore(cache_folder() / "features")


@dataclass(frozen=True)
class Stored:
    """What is there of each kind of features, for planning."""

    names: dict[str, str]
    """Kind to the first set metric that wants it."""
    reconstructions: dict[str, set[str]]
    originals: dict[str, set[str]]

    @classmethod
    def of(cls, metrics: Iterable[str], run: FeatureStore) -> Stored:
        names: dict[str, str] = {}
        for name in metrics:
            names.setdefault(kind(set_metric(name).features), name)
        cache = originals()
        return cls(names, {one: {*run.places(one)} for one in names}, {one: {*cache.places(one)} for one in names})

    def missing(self, pixels: str | None, sample: Sample) -> tuple[str, ...]:
        """Metrics whose features a reconstruction lacks; all if it is not decoded yet."""
        return tuple(
            name
            for one, name in self.names.items()
            if pixels is None or subject(set_metric(name).features, pixels, sample) not in self.reconstructions[one]
        )

    def missing_original(self, pixels: str, sample: Sample) -> tuple[str, ...]:
        """The same for an original; asked once, as the answer is a promise to make them."""
        names = []
        for one, name in self.names.items():
            wanted = subject(set_metric(name).features, pixels, sample)
            if wanted not in self.originals[one]:
                self.originals[one].add(wanted)
                names.append(name)
        return tuple(names)


class Extractor:
    """Networks of a worker, each built at its first image."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._built: dict[str, Features] = {}

    def extract(self, name: str, image: Image, pixels: str, sample: Sample, protocol: str) -> Made:
        """The array of one image for a set metric's features.

        Raises:
            MetricError: the features refuse the image, or the dataset lacks what they take beside it.
        """
        cls = set_metric(name).features
        features = self._of(cls)
        given = values(cls.beside, sample, protocol, getattr(set_metric(name), "classes", None))
        beside = {key: [value] for key, value in given.items()}
        with Lender(image, "image").lending("extract()", bool(registry.own_place("metric", name))) as copy:
            [array] = features.extract([copy], **beside)
        return Made(kind(cls), subject(cls, pixels, sample), _usable(name, array))

    def _of(self, cls: type[Features]) -> Features:
        if cls.id not in self._built:
            self._built[cls.id] = cls(device=self._device) if cls.uses_device else cls()  # type: ignore[call-arg]
        return self._built[cls.id]


def _usable(name: str, array: object) -> Array:
    """An array of its own, since features may use one buffer for all images.

    Raises:
        MetricError: it is no array of finite numbers.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        found = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise MetricError(f"{name}: features are an array of real numbers for each image, found {found}")
    if not array.size or not np.isfinite(array).all():
        raise MetricError(f"{name}: the features of this image are empty or not finite")
    return np.array(array)


def pair_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those that score image by image."""
    return tuple(name for name in metrics if not is_set(name))


def set_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those that compare sets."""
    return tuple(name for name in metrics if is_set(name))

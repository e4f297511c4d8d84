"""Set metrics: from stored arrays to one value for each point. Cheap beside making the arrays, and done once.

Which arrays set metrics still need of a task, and making them in the worker.

Intervals of metrics of sets, by leaving out blocks of images.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.index import Entry, ahead, index
from rdpbench.datasets.protocols import load_under
from rdpbench.errors import ImageError, MetricError, StoreError
from rdpbench.image import Image, pixel_sha256
from rdpbench.metrics.contract import Estimate, Features, Lender, SetMetric, bounds_of, number_of, short_name
from rdpbench.paths import cache_folder
from rdpbench.progress import show_progress
from rdpbench.provenance import new_session, to_json
from rdpbench.results.stats.bootstrap import REAL, Bounds, jackknifed
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.points import point_key
from rdpbench.results.store.features import FeatureStore, Made, Place, kind_of, load
from rdpbench.results.store.schema import Row, SetScore
from rdpbench.results.store.store import Contents, Store
from rdpbench.runners.beside import ABSENT, KINDS, ORIGINALS, _dataset, _fault, identity, reference_of, values
from rdpbench.runners.task import Task, canonical, definition, features_key, member_of, metric_identity
from rdpbench.setting import Setting


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


Array: TypeAlias = NDArray[Any]


class Reducing(Protocol):
    """A set metric, as far as intervals need it."""

    def reduce(self, reference: Sequence[Array], distorted: Sequence[Array], /) -> Estimate: ...


BLOCKS = 10
"""Of the jackknife: a block of images is left out at a time."""
INTERVALS = 2
"""Raised when the intervals of set metrics change: values are then reduced again from the stored arrays."""


def jackknife(
    metric: Reducing,
    reference: Sequence[Array],
    distorted: Sequence[Array],
    *,
    value: float,
    paired: bool = True,
    bounds: Bounds = REAL,
) -> tuple[float, float] | str:
    """95 % interval of a set metric over images: delete-a-block jackknife (Shao and Tu, 1995).

    The bootstrap draws images twice, which biases distances between sets: an image equals itself. Leaving out a tenth
    does not. Blocks are drawn once, by a fixed seed.

    A metric's least number of images is about its value. The values without a block serve only to see how far images
    move it, and may be of fewer images.

    Args:
        metric: computes a value from two sets; with ``left_out``, all blocks in one pass.
        reference: arrays of the other side; image by image those of the same images, if ``paired``.
        distorted: arrays of the reconstructions; all rows of an image stay together.
        value: the metric of all images; the middle of the interval, where the metric has no bounds.
        paired: leave the same images out of the reference.
        bounds: the range of the metric's values.

    Returns:
        Both ends, or why there are none.

    >>> class Mean:
    ...     def reduce(self, _, arrays):
    ...         return Estimate(float(np.concatenate(list(arrays)).mean()))
    >>> ones = [np.array([[float(n)]]) for n in range(40)]
    >>> low, high = jackknife(Mean(), ones, ones, value=19.5)
    >>> round((low + high) / 2, 1)
    19.5
    """
    count = len(distorted)
    if count < 2 * BLOCKS:
        return f"an interval needs at least {2 * BLOCKS} images, and these are {count}"
    order = np.random.default_rng(2026).permutation(count)
    blocks = [np.sort(block).tolist() for block in np.array_split(order, BLOCKS)]
    fast = getattr(metric, "left_out", None)
    try:
        if paired and fast:
            values = np.array(fast(reference, distorted, blocks))
        else:
            values = np.array([_without(metric, reference, distorted, set(block), paired) for block in blocks])
    except MetricError as error:
        return f"without a tenth of the images there is no value: {error}"
    if not np.isfinite(values).all():
        return "without a tenth of the images there is no value"
    low, high = jackknifed(value, values, bounds)
    return (low, high) if math.isfinite(high - low) else "the value is at the end of its range"


def _without(
    metric: Reducing, reference: Sequence[Array], distorted: Sequence[Array], left: set[int], paired: bool
) -> float:
    kept = [number for number in range(len(distorted)) if number not in left]
    other = [reference[number] for number in kept] if paired else reference
    return metric.reduce(other, [distorted[number] for number in kept]).value


def reduce_all(
    store: Store, contents: Contents, tasks: Sequence[Task], metrics: Iterable[str], device: str, *, unreliable: bool
) -> Iterator[SetScore]:
    """The values that are not stored yet, of every point of these tasks and every set metric."""
    names = set_metrics(list(metrics))
    if not names:
        return
    by_key = {task.key: task for task in tasks}
    points = of_store(contents, map(member_of, tasks))
    by_seed: dict[tuple[str, ...], list[Row]] = {}
    for point in points.points:
        for row in sorted(point.good, key=lambda row: row.image):
            by_seed.setdefault((*point.where, point.codec, point.setting.words, str(row.seed)), []).append(row)
    known = {(key, score.metric) for key, score in contents.sets.items()}
    for name in names:
        cls = set_metric(name)
        side = _Sides(name, cls, by_key, store.features.places(kind(cls.features)), unreliable)
        for rows in by_seed.values():
            key = _set_key(name, rows, by_key)
            if unreliable and (refused := contents.sets.get(key)) and refused.value is None:
                key = _set_key(name, rows, by_key, insisted=True)  # another answer, now that the user insists
            if (key, name) not in known:
                known.add((key, name))
                print(f"{name} of {rows[0].codec}, {Setting.of(rows[0]).words}: {len(rows)} images", file=sys.stderr)
                yield side.score(key, rows, device)


@dataclass
class _Sides:
    """The arrays of both sides of a set metric."""

    name: str
    cls: type[SetMetric]
    tasks: dict[str, Task]
    here: dict[str, Place]
    unreliable: bool

    def score(self, key: str, rows: Sequence[Row], device: str) -> SetScore:
        """The value of one point, or why there is none."""
        theirs, ours, left_out = self._subjects(rows)
        few = len(ours) < self.cls.minimum_images
        interval: tuple[float, float] | str = ""
        if few and not self.unreliable:
            estimate = Estimate(math.nan, reason=f"needs at least {self.cls.minimum_images} images, has {len(ours)}")
        else:
            try:
                reference = self.own_reference(device) if self._unpaired else load(self.there, theirs)
                estimate, interval = self._reduce(reference, load(self.here, ours), few)
            except StoreError:
                raise
            except MetricError as error:
                estimate = Estimate(math.nan, reason=str(error))
            except (Exception, SystemExit) as error:  # a metric of the user's; the other values go on
                estimate = Estimate(math.nan, reason=f"{type(error).__name__}: {error}")
        good = math.isfinite(estimate.value)
        told = [estimate.reason or ("" if good else f"the metric gave {estimate.value}")]
        if good and isinstance(interval, str):
            told.append(f"no interval: {interval}")
        return SetScore(
            set_key=key,
            point_key=point_key(self.name, rows),
            metric=self.name,
            images=len(ours),
            value=estimate.value if good else None,
            lo=None if isinstance(interval, str) else interval[0],
            hi=None if isinstance(interval, str) else interval[1],
            spread=estimate.spread if estimate.spread is not None and math.isfinite(estimate.spread) else None,
            reliable=good and estimate.reliable and not few,
            reason="; ".join(filter(None, told)),
            extra=to_json(dict(estimate.extra), sort_keys=True),
            reference=reference_of(self.cls),
            time=datetime.now(UTC).isoformat(timespec="microseconds"),
            definition=definition(self.name),
            left_out=to_json(left_out),
        )

    @property
    def _unpaired(self) -> bool:
        return reference_of(self.cls) != ORIGINALS

    @cached_property
    def there(self) -> dict[str, Place]:
        """Arrays of originals."""
        return originals().places(kind(self.cls.features))

    @cache  # noqa: B019 (lives as long as the reduction of one metric)
    def own_reference(self, device: str) -> Sequence[Array]:
        """Arrays of a reference set of the metric's own."""
        return reference_arrays(self.name, self.cls, device)

    def _subjects(self, rows: Sequence[Row]) -> tuple[list[str], list[str], list[str]]:
        """Images that have arrays on both sides, and the ids of the others."""
        pairs, left_out = [], []
        for row in rows:
            sample = self.tasks[row.task_key].entry.sample
            ours = subject(self.cls.features, row.reconstruction_sha256, sample)
            theirs = subject(self.cls.features, row.pixel_sha256, sample)
            if ours in self.here and (self._unpaired or theirs in self.there):
                pairs.append((theirs, ours))
            else:
                left_out.append(row.image)
        return [theirs for theirs, _ in pairs], [ours for _, ours in pairs], left_out

    def _reduce(
        self, reference: Sequence[Array], distorted: Sequence[Array], few: bool
    ) -> tuple[Estimate, tuple[float, float] | str]:
        metric = self.cls()
        estimate = metric.reduce(reference, distorted)
        if not isinstance(estimate, Estimate):
            raise MetricError(f"reduce() must return an Estimate, found {type(estimate).__name__}; see Estimate(value)")
        estimate = _plain(estimate)
        if not estimate.reliable and not self.unreliable:
            return Estimate(math.nan, reason=estimate.reason), ""
        if not math.isfinite(estimate.value):
            return estimate, ""
        if few:
            least = f"needs at least {self.cls.minimum_images} images, and these are {len(distorted)}"
            return estimate, f"{short_name(self.name)} {least}"
        how: Any = {"value": estimate.value, "paired": not self._unpaired, "bounds": bounds_of(self.cls)}
        return estimate, jackknife(metric, reference, distorted, **how)


def _plain(estimate: Estimate) -> Estimate:
    """An estimate of plain numbers and text, which can be stored.

    Raises:
        MetricError: a number in it is none.
    """
    spread = None if estimate.spread is None else number_of(estimate.spread)
    extra = {str(name): value if type(value) is int else number_of(value) for name, value in estimate.extra.items()}
    return Estimate(number_of(estimate.value), spread, str(estimate.reason), extra, bool(estimate.reliable))


def _set_key(name: str, rows: Sequence[Row], tasks: dict[str, Task], *, insisted: bool = False) -> str:
    """sha256 over the metric with its network, how intervals are made, and the images with the pixels of both sides.

    What is beside the images is in it, too.
    """
    cls = set_metric(name)
    images = [
        (
            row.image,
            subject(cls.features, row.pixel_sha256, tasks[row.task_key].entry.sample),
            subject(cls.features, row.reconstruction_sha256, tasks[row.task_key].entry.sample),
        )
        for row in rows
    ]
    # The version is raised when what is stored beside a value changes: it is then made again from the arrays.
    made_by = {"version": 2, "metric": metric_identity(name), "features": kind(cls.features), "intervals": INTERVALS}
    record = {**made_by, "images": images, "insisted": insisted}
    return hashlib.sha256(canonical(record).encode()).hexdigest()


def lacking(what: str, classes: str | None, dataset: Dataset, entries: Sequence[Entry], partial: bool) -> str:
    """Why a dataset's images cannot serve a metric that takes something beside them, and how to give it.

    Args:
        what: ``captions`` or ``labels``.
        classes: the list that label maps must count; None takes any.
        dataset: the set.
        entries: its images.
        partial: are images without it left out of the metric? Wrong label maps never are.

    Returns:
        One line; empty if the metric can be computed.
    """
    faults = {one.sample.id: why for one in entries if (why := _fault(what, one, classes))}
    absent = [image for image, why in faults.items() if why in ABSENT]
    some = len(absent) == len(faults) < len(entries)
    if not faults or (partial and some):
        return ""
    first = next((image for image in faults if image not in absent), absent[0] if absent else "")
    number = f"{len(faults)} of the {len(entries)}"
    told = f"{number} images of {dataset.name} do not serve it, such as {first}: {faults[first]}"
    how = getattr(dataset, "beside_missing", None)
    asked = KINDS.get(classes or "", what) if what == "labels" else what
    told += f"; {how(asked)}" if how else "; the sets of MS-COCO bring it, and folders and manifests can"
    return told + ("; allow_partial=true scores the others" if some else "")


def reference_arrays(name: str, metric: type[SetMetric], device: str) -> Sequence[Array]:
    """The arrays of a metric's own reference set; made once, and kept in the user's cache beside those of originals."""
    made = _dataset(reference_of(metric))
    entries = index(made)
    subjects = [subject(metric.features, entry.sha256, entry.sample) for entry in entries]
    store = originals()
    here = store.places(kind(metric.features))
    todo = [entry for entry, one in zip(entries, subjects, strict=True) if one not in here]
    if todo:
        extractor, writer = Extractor(device), store.writer(new_session())
        try:
            with (
                show_progress("", len(todo), "images") as shown,
                ahead(todo, lambda entry: _pixels(entry, made.protocol)) as images,
            ):
                for entry, image in zip(todo, images, strict=True):
                    writer.append(extractor.extract(name, image, entry.sha256, entry.sample, made.protocol))
                    shown.advance()
        finally:
            writer.close()
    return load(store.places(kind(metric.features)), subjects)


def _pixels(entry: Entry, protocol: str) -> Image:
    pixels = load_under(protocol, entry.sample.path).pixels
    if pixel_sha256(pixels) != entry.sha256:
        raise ImageError(f"{entry.sample.path} changed while it was read")
    return pixels

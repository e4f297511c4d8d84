"""Metrics of sets in a run: captions and label maps, the arrays that are still missing, and one value per point.

Reducing is cheap beside making the arrays, and done once. Metrics that do not compare with the originals have a
reference set of their own, such as ``clic2020-train@text-sketch-512``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.codecs.contract import GRADES
from rdpbench.datasets.command import named_dataset
from rdpbench.datasets.contract import Dataset, Sample
from rdpbench.datasets.index import Entry, ahead, index, pixels_of
from rdpbench.datasets.protocols import find
from rdpbench.errors import ImageError, MetricError, StoreError
from rdpbench.image import Image, read_image
from rdpbench.metrics.contract import Estimate, Features, Lender, SetMetric, bounds_of, number_of, short_name
from rdpbench.paths import cache_folder
from rdpbench.progress import say, show_progress
from rdpbench.provenance import new_session, to_json
from rdpbench.results.stats.bootstrap import jackknife
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.points import point_key
from rdpbench.results.store.columns import ranks
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.keys import beside_key, definition, features_key, metric_identity, sha256_of
from rdpbench.results.store.log import ArrayPlace, Extracted, FeatureStore, kind_of, load_arrays
from rdpbench.results.store.records import Rows
from rdpbench.results.store.schema import Row, SetScore
from rdpbench.results.store.store import Store
from rdpbench.runners.task import Cell, Task, membership, pin_of

Array: TypeAlias = NDArray[Any]


def is_set(name: str) -> bool:
    """Is it a set metric?

    >>> is_set("psnr")
    False
    """
    return getattr(registry.load("metric", name), "kind", "pair") == "set"


def pair_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those that score image by image."""
    return tuple(name for name in metrics if not is_set(name))


def set_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Those that compare sets."""
    return tuple(name for name in metrics if is_set(name))


def set_metric(name: str) -> type[SetMetric]:
    """A set metric's class."""
    cls: type[SetMetric] = registry.load("metric", name)
    return cls


def kind(features: type[Features]) -> str:
    """Where arrays of these features lie."""
    return kind_of(features.id, features_key(features))


# What metrics take beside an image

ABSENT = ("it has no caption to score against", "it has no label map")
KINDS = {"coco-panoptic-133": "panoptic", "coco-stuff-171": "stuff"}
"""Lists of classes, and what label maps of them are called."""


def values(names: Sequence[str], sample: Sample, protocol: str, classes: str | None = None) -> dict[str, Any]:
    """The keyword arguments that a metric takes beside an image; ``classes`` is the list that its labels must be of.

    Raises:
        MetricError: the dataset does not have it.
    """
    given: dict[str, Any] = {}
    for name in names:
        if name == "captions":
            if not sample.references:
                raise MetricError(
                    f"image {sample.id} has no caption to score against; use a dataset with captions, such as "
                    "coco-val2017"
                )
            given[name] = sample.references
        else:
            if sample.labels is None:
                raise MetricError(
                    f"image {sample.id} has no label map; MS-COCO has: data.options.labels=panoptic, or =stuff"
                )
            from rdpbench.datasets.labels import load_labels

            image = read_image(sample.path).pixels if find(protocol).drawn else None
            given[name] = load_labels(sample.labels, protocol, image, classes)  # type: ignore[arg-type]  # a name
    return given


def lacking(what: str, classes: str | None, dataset: Dataset, entries: Sequence[Entry], partial: bool) -> str:
    """Why a dataset's images cannot serve a metric that takes ``captions`` or ``labels``; empty if they can.

    Label maps must count ``classes``, None takes any. With ``partial``, images without one are left out of the metric;
    wrong label maps never are.
    """
    faults = {entry.sample.id: why for entry in entries if (why := _fault(what, entry, classes))}
    absent = [image for image, why in faults.items() if why in ABSENT]
    some = len(absent) == len(faults) < len(entries)
    if not faults or (partial and some):
        return ""
    first = next((image for image in faults if image not in absent), absent[0] if absent else "")
    number = f"{len(faults)} of the {len(entries)}"
    line = f"{number} images of {dataset.name} cannot be scored, such as {first}: {faults[first]}"
    how = getattr(dataset, "beside_missing", None)
    asked = KINDS.get(classes or "", what) if what == "labels" else what
    line += f"; {how(asked)}" if how else "; the sets of MS-COCO bring it, and folders and manifests can"
    return line + ("; allow_partial=true scores the others" if some else "")


def _fault(what: str, entry: Entry, classes: str | None) -> str:
    """Why an image cannot be scored; empty if it can."""
    sample = entry.sample
    if what == "captions":
        blank = not all(caption.strip() for caption in sample.references)
        return ABSENT[0] if not sample.references else "one of its captions is empty" if blank else ""
    if sample.labels is None:
        return ABSENT[1]
    from rdpbench.datasets.labels import look_at, of_another_list

    try:
        labels = look_at(sample.labels)
    except ImageError as error:
        return str(error)
    if classes is not None and labels.classes != classes:
        return of_another_list(sample.labels, labels.classes, classes)
    if (labels.height, labels.width) != (entry.source_height, entry.source_width):
        sizes = f"{labels.width} x {labels.height}, and the image {entry.source_width} x {entry.source_height}"
        return f"{sample.labels} is {sizes} (width x height)"
    return ""


# Reference sets of a metric's own

ORIGINALS = "originals"


def reference_of(metric: type[SetMetric]) -> str:
    """The other side of a set metric: ``originals``, or a dataset with its protocol."""
    return str(getattr(metric, "reference", ORIGINALS))


def _reference_set(metric: type[SetMetric]) -> Any:
    name, _, protocol = reference_of(metric).partition("@")
    return named_dataset(name, protocol=protocol)


def lacking_reference(metric: type[SetMetric]) -> str | None:
    """What is missing of a metric's own reference set; None if nothing is, or if it has none."""
    if reference_of(metric) == ORIGINALS:
        return None
    missing = getattr(_reference_set(metric), "missing", None)
    text: str | None = missing() if missing else None
    return f"compares with {reference_of(metric)}: {text}" if text else None


def reference_arrays(name: str, metric: type[SetMetric], device: str) -> Sequence[Array]:
    """The arrays of a metric's own reference set; made once, and kept in the user's cache beside those of originals."""
    reference = _reference_set(metric)
    entries = index(reference)
    subjects = [subject(metric.features, entry.sha256, entry.sample) for entry in entries]
    store = originals()
    here = store.places(kind(metric.features))
    todo = [entry for entry, of_entry in zip(entries, subjects, strict=True) if of_entry not in here]
    if todo:
        extractor, writer = FeatureExtractor(device), store.writer(new_session())
        try:
            with (
                show_progress("", len(todo), "images") as shown,
                ahead(todo, lambda entry: pixels_of(entry, reference.protocol)) as images,
            ):
                for entry, image in zip(todo, images, strict=True):
                    writer.append(
                        extractor.extract(name, metric, image, entry.sha256, entry.sample, reference.protocol)
                    )
                    shown.advance()
        finally:
            writer.close()
    return load_arrays(store.places(kind(metric.features)), subjects)


# Arrays of images


def subject(features: type[Features], pixels: str, sample: Sample) -> str:
    """What an array is of: pixels (by their sha256), and what is beside them."""
    beside = beside_key(features.beside, sample)
    return hashlib.sha256(f"{pixels} {beside}".encode()).hexdigest() if beside else pixels


def originals() -> FeatureStore:
    """Arrays of originals, shared by all runs of this user: they depend on pixels and network alone."""
    return FeatureStore(cache_folder() / "features")


@dataclass(frozen=True)
class StoredArrays:
    """Which arrays there are, for planning: subjects by kind of features, and a set metric that wants each kind."""

    names: dict[str, str]
    reconstructions: dict[str, set[str]]
    originals: dict[str, set[str]]

    @classmethod
    def look_up(cls, metrics: Iterable[str], run: FeatureStore) -> StoredArrays:
        """Those of these metrics in a run, and in the user's cache."""
        names: dict[str, str] = {}
        for name in metrics:
            names.setdefault(kind(set_metric(name).features), name)
        here = {key: {*run.places(key)} for key in names}
        # Workers on other machines keep those of originals in the run.
        return cls(names, here, {key: {*originals().places(key)} | here[key] for key in names})

    def missing(self, task: Task, row: Row | None) -> tuple[str, ...]:
        """Metrics whose features a reconstruction lacks; all if it is not decoded yet."""
        if row is None:
            return tuple(self.names.values())
        subjects = self._subjects(row.reconstruction_sha256, task)
        return tuple(self.names[key] for key, of_key in subjects.items() if of_key not in self.reconstructions[key])

    def missing_original(self, task: Task) -> tuple[str, ...]:
        """The same for an original; asked once, as the answer is a promise to make them."""
        subjects = self._subjects(task.entry.sha256, task)
        missing = [key for key, of_key in subjects.items() if of_key not in self.originals[key]]
        for key in missing:
            self.originals[key].add(subjects[key])
        return tuple(self.names[key] for key in missing)

    def _subjects(self, pixels: str, task: Task) -> dict[str, str]:
        sample = task.entry.sample
        return {key: subject(set_metric(name).features, pixels, sample) for key, name in self.names.items()}


class FeatureExtractor:
    """Networks of a worker, each built at its first image."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._built: dict[str, Features] = {}

    def features(self, metric: type[SetMetric]) -> Features:
        """What makes arrays for a set metric, built once."""
        cls = metric.features
        if cls.id not in self._built:
            self._built[cls.id] = cls(device=self._device) if cls.uses_device else cls()  # type: ignore[call-arg]
        return self._built[cls.id]

    def extract(
        self, name: str, metric: type[SetMetric], image: Image, pixels: str, sample: Sample, protocol: str
    ) -> Extracted:
        """The array of one image for a set metric's features.

        Raises:
            MetricError: the features refuse the image, or the dataset lacks what they take beside it.
        """
        cls, features = metric.features, self.features(metric)
        given = values(cls.beside, sample, protocol, getattr(metric, "classes", None))
        beside = {key: [value] for key, value in given.items()}
        with Lender(image, "image").lending("extract()", bool(registry.own_place("metric", name))) as copy:
            [array] = features.extract([copy], **beside)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            what = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise MetricError(f"{name}: features are an array of real numbers for each image, found {what}")
        if not array.size or not np.isfinite(array).all():
            raise MetricError(f"{name}: the features of this image are empty or not finite")
        # An array of its own, since features may use one buffer for all images.
        return Extracted(kind(cls), subject(cls, pixels, sample), np.array(array))


INTERVALS = 2
"""Raised when the intervals of set metrics change: values are then reduced again from the stored arrays."""


# Values of points


def reduce_all(
    store: Store, contents: Contents, every: Sequence[Cell], metrics: Iterable[str], device: str, *, unreliable: bool
) -> Iterator[SetScore]:
    """The values that are not stored yet, of every point of these cells and every set metric."""
    names = set_metrics(list(metrics))
    if not names:
        return
    samples = {
        (cell.dataset, cell.pin.sha256): {entry.sample.id: entry.sample for entry in cell.entries} for cell in every
    }
    groups: list[tuple[Rows, Mapping[str, Sample]]] = []
    for point in of_store(contents, membership(every), grades=GRADES).points:
        for rows in point.by_seed.values():
            images = rows.codes("image")
            order = np.argsort(ranks(images.names)[images.codes], kind="stable")
            groups.append((rows.where(order), samples[point.where.dataset, point.where.manifest]))
    known = {(key, score.metric) for key, score in contents.sets.items()}
    newest = {score.point_key: score for score in sorted(contents.sets.values(), key=lambda score: score.time)}
    for name in names:
        cls = set_metric(name)
        sides = _Sides(name, cls, store.features.places(kind(cls.features)), device, unreliable)
        for rows, of_set in groups:
            subjects = sides.subjects(rows, of_set)
            key = sides.key(subjects)
            if unreliable and (refused := contents.sets.get(key)) and refused.value is None:
                key = sides.key(subjects, insisted=True)  # another answer, now that the user insists
            if (key, name) not in known:
                known.add((key, name))
                say(f"{name} of {rows[0].point}: {len(rows)} images")
                yield sides.score(key, rows, subjects)
            elif (stored := contents.sets.get(key)) and stored.value is not None and newest[stored.point_key] != stored:
                yield replace(stored, time=_now())  # against label maps that are the set's again


Subjects: TypeAlias = list[tuple[str, str, str]]
"""Of each row its image, and the subjects of the original and of the reconstruction."""


@dataclass
class _Sides:
    """The arrays of both sides of a set metric."""

    name: str
    cls: type[SetMetric]
    here: dict[str, ArrayPlace]
    device: str
    unreliable: bool

    def subjects(self, rows: Rows, samples: Mapping[str, Sample]) -> Subjects:
        """What the arrays of rows are of."""
        features = self.cls.features
        columns = (rows.texts(name) for name in ("image", "pixel_sha256", "reconstruction_sha256"))
        return [
            (image, *(subject(features, pixels, samples[image]) for pixels in sides))
            for image, *sides in zip(*columns, strict=True)
        ]

    def key(self, subjects: Subjects, *, insisted: bool = False) -> str:
        """sha256 over the metric with its network, how intervals are made, and the images with both sides' subjects."""
        # The version is raised when what is stored beside a value changes: it is then made again from the arrays.
        made_by = {"version": 2, "metric": metric_identity(self.name), "features": kind(self.cls.features)}
        return sha256_of(
            {**made_by, **self._reference_files, "intervals": INTERVALS, "images": subjects, "insisted": insisted}
        )

    def score(self, key: str, rows: Rows, subjects: Subjects) -> SetScore:
        """The value of one point, or why there is none."""
        theirs: list[str] = []
        ours: list[str] = []
        left_out: list[str] = []
        for image, original, reconstruction in subjects:
            if reconstruction in self.here and (self._unpaired or original in self._there):
                theirs.append(original)
                ours.append(reconstruction)
            else:
                left_out.append(image)
        few = too_few(self.cls, len(ours))
        interval: tuple[float, float] | str = ""
        if few and not self.unreliable:
            estimate = Estimate(math.nan, reason=few)
        else:
            try:
                reference = self._own_reference if self._unpaired else load_arrays(self._there, theirs)
                estimate, interval = self._reduce(reference, load_arrays(self.here, ours), few)
            except StoreError:
                raise
            except MetricError as error:
                estimate = Estimate(math.nan, reason=str(error))
            except (Exception, SystemExit) as error:  # a metric of the user's; the other values go on
                estimate = Estimate(math.nan, reason=f"{type(error).__name__}: {error}")
        good = math.isfinite(estimate.value)
        reasons = [estimate.reason or ("" if good else f"the metric gave {estimate.value}")]
        if good and isinstance(interval, str):
            reasons.append(f"no interval: {interval}")
        lo, hi = (None, None) if isinstance(interval, str) else interval
        return SetScore(
            set_key=key,
            point_key=point_key(self.name, rows),
            metric=self.name,
            images=len(ours),
            value=estimate.value if good else None,
            lo=lo,
            hi=hi,
            spread=estimate.spread if estimate.spread is not None and math.isfinite(estimate.spread) else None,
            reliable=good and estimate.reliable and not few,
            reason="; ".join(filter(None, reasons)),
            extra=to_json(dict(estimate.extra), sort_keys=True),
            reference=reference_of(self.cls),
            time=_now(),
            definition=definition(self.name),
            left_out=to_json(left_out),
        )

    @property
    def _unpaired(self) -> bool:
        return reference_of(self.cls) != ORIGINALS

    @cached_property
    def _reference_files(self) -> dict[str, str]:
        """Which files a reference set of the user's holds: unlike a published one it may change."""
        if not self._unpaired:
            return {}
        pin = pin_of(_reference_set(self.cls))
        return {"reference": pin.sha256} if pin.kind == "made" or ":" in reference_of(self.cls) else {}

    @cached_property
    def _there(self) -> dict[str, ArrayPlace]:
        """Arrays of originals."""
        return {**self.here, **originals().places(kind(self.cls.features))}

    @cached_property
    def _own_reference(self) -> Sequence[Array]:
        return reference_arrays(self.name, self.cls, self.device)

    def _reduce(
        self, reference: Sequence[Array], distorted: Sequence[Array], few: str
    ) -> tuple[Estimate, tuple[float, float] | str]:
        metric = self.cls()
        estimate = reduced(metric, reference, distorted, unreliable=self.unreliable)
        if not math.isfinite(estimate.value):
            return estimate, ""
        if few:
            least = f"needs at least {self.cls.minimum_images} images, and these are {len(distorted)}"
            return estimate, f"{short_name(self.name)} {least}"
        how: Any = {"value": estimate.value, "paired": not self._unpaired, "bounds": bounds_of(self.cls)}
        return estimate, jackknife(metric, reference, distorted, **how)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def too_few(metric: type[SetMetric], images: int) -> str:
    """Why a set metric gives no number of so few images; empty if these are enough."""
    least = metric.minimum_images
    return f"needs at least {least} images, has {images}" if images < least else ""


def reduced(metric: SetMetric, reference: Sequence[Array], distorted: Sequence[Array], *, unreliable: bool) -> Estimate:
    """The number of two sets; NaN, with the reason, where the metric calls it unreliable and the user does not insist.

    Raises:
        MetricError: the metric refuses the arrays, or gives something else.
    """
    estimate = metric.reduce(reference, distorted)
    if not isinstance(estimate, Estimate):
        raise MetricError(f"reduce() must return an Estimate, found {type(estimate).__name__}; see Estimate(value)")
    estimate = _plain(estimate)
    return estimate if estimate.reliable or unreliable else Estimate(math.nan, reason=estimate.reason)


def _plain(estimate: Estimate) -> Estimate:
    """An estimate of plain numbers and text, which can be stored.

    Raises:
        MetricError: a number in it is none.
    """
    spread = None if estimate.spread is None else number_of(estimate.spread)
    extra = {str(name): value if type(value) is int else number_of(value) for name, value in estimate.extra.items()}
    return Estimate(number_of(estimate.value), spread, str(estimate.reason), extra, bool(estimate.reliable))

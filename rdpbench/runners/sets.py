"""Set metrics: from stored arrays to one value for each point. Cheap beside making the arrays, and done once."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

from rdpbench.errors import MetricError, StoreError
from rdpbench.metrics.contract import Estimate, SetMetric, bounds_of, number_of, short_name
from rdpbench.provenance import to_json
from rdpbench.results.features import Array, Place, load
from rdpbench.results.points import INTERVALS, jackknife
from rdpbench.results.schema import Row, SetScore
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.points import point_key
from rdpbench.results.store import Contents, Store
from rdpbench.runners.features import kind, originals, set_metric, set_metrics, subject
from rdpbench.runners.reference import ORIGINALS, reference_arrays, reference_of
from rdpbench.runners.task import Task, canonical, definition, member_of, metric_identity
from rdpbench.setting import Setting


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

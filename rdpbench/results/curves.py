"""Curves: what a codec gives on a dataset, point by point, for the regression gate to compare with a stored one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdpbench.metrics.contract import stated, weighed
from rdpbench.results.schema import Row
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Points
from rdpbench.results.summary import POINT, frame
from rdpbench.setting import Setting

DIGITS = 8
"""Significant digits that are stored."""

SEARCHED = "target_bpp"
"""What files call the setting of a point that was searched per image."""


@dataclass(frozen=True)
class Point:
    """One rate point of a curve."""

    setting: Setting
    n: int
    """Images that were coded."""
    dataset_size: int
    protocol: str
    bpp: float
    values: Mapping[str, float]
    """Mean over images of each metric; not a number where no image could be scored."""
    averaged: Mapping[str, int]
    """Images in the mean of a metric, where they are fewer than ``n`` (refused, or lossless)."""
    bitstreams: str
    """sha256 over the sorted pairs of image id and bitstream sha256."""
    bits_kind: str = ""
    """What the rate counts (`rdpbench.results.schema.Row`); empty in curves of a version that did not say."""


@dataclass(frozen=True)
class ImagePoint:
    """One image at one rate point."""

    setting: Setting
    image: str
    pixels: str
    """First 16 digits of the sha256 of the original's pixels."""
    bitstream: str
    """First 16 digits of the bitstream's sha256; over all of them, if there are several seeds."""
    bpp: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """A curve with where it comes from."""

    points: tuple[Point, ...]
    images: tuple[ImagePoint, ...] = ()
    """Empty if the dataset is large."""
    origin: Mapping[str, Any] = field(default_factory=dict)


def measure(points: Points, metrics: Sequence[str]) -> tuple[tuple[Point, ...], tuple[ImagePoint, ...]]:
    """The points of one codec on one dataset, with the digits that files have; and the same per image.

    The rate is that of all images that were coded. A metric of sets has no values per image.
    """
    good: dict[Setting, list[Row]] = {setting_of(point.rows[0]): point.good for point in points.points}
    curve = []
    for _, of in frame(points, metrics).groupby(POINT, sort=False, dropna=False):
        first = of.iloc[0]
        setting = _stored(Setting.of_line(first))
        named = [line for _, line in of.iterrows() if line["metric"]]
        counts = {line["metric"]: int(line["n_scored"]) for line in named}
        for line in named:
            if math.isfinite(line["value"]):
                counts[line["metric"]] -= int(line["infinite"])
        curve.append(
            Point(
                setting,
                int(first["n"]),
                int(first["dataset_size"]),
                first["protocol"],
                rounded(first["bpp_all"]),
                {line["metric"]: rounded(line["value"]) for line in named},
                {metric: count for metric, count in counts.items() if count != first["n"]},
                _digest(sorted((row.image, row.bitstream_sha256) for row in good[setting])),
                ",".join(sorted({row.bits_kind for row in good[setting]})),
            )
        )
    return tuple(sorted(curve, key=in_order)), _per_image(points, metrics)


def _per_image(points: Points, metrics: Sequence[str]) -> tuple[ImagePoint, ...]:
    out = []
    for point in points.points:
        by_image: dict[str, list[Row]] = {}
        for row in point.good:
            by_image.setdefault(row.image, []).append(row)
        for image, seeds in by_image.items():
            hashes = sorted(row.bitstream_sha256 for row in seeds)
            values = {metric: _of_seeds(metric, [points.value(row, metric) for row in seeds]) for metric in metrics}
            bitstream = (hashes[0] if len(hashes) == 1 else _digest(hashes))[:16]
            bpp = _mean(row.bpp for row in seeds)
            setting = setting_of(point.rows[0])
            out.append(ImagePoint(setting, image, seeds[0].pixel_sha256[:16], bitstream, bpp, values))
    return tuple(sorted(out, key=lambda one: (*in_order(one), one.image)))


def _of_seeds(metric: str, values: Sequence[float | None]) -> float:
    """Of an image, the mean over its seeds of what the metric averages."""
    averaged = meaning(metric).averaged
    there = weighed([value for value in values if value is not None], averaged)
    return rounded(float(stated(there.mean(), averaged))) if len(there) else math.nan


def setting_of(row: Row) -> Setting:
    """The setting that a row belongs to, as curves store it."""
    return _stored(Setting.of(row))


def _stored(setting: Setting) -> Setting:
    """Files do not say which native setting a target was searched with."""
    return setting if setting.target is None else Setting(SEARCHED, None, setting.target)


def read_setting(name: str, value: float | None) -> Setting:
    """A setting as a file states it.

    >>> read_setting("target_bpp", 0.25).words, read_setting("quality", 50.0).words
    ('target 0.25 bpp', 'quality 50')
    """
    return Setting(name, None, value) if name == SEARCHED else Setting(name, value)


def in_order(point: Point | ImagePoint) -> tuple[str, float]:
    """Sorts points along their curve."""
    return point.setting.field, point.setting.order[0] if point.setting.field == SEARCHED else point.setting.order[1]


def _mean(values: Iterable[float | None]) -> float:
    there = [value for value in values if value is not None]
    return rounded(math.fsum(there) / len(there)) if there else math.nan


def _digest(record: object) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def rounded(value: float) -> float:
    """With the digits that a file has, so that what was stored and what is measured compare exactly."""
    return float(text(value)) if not math.isnan(value) else math.nan


def text(value: float | None) -> str:
    """A number as it is stored; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{DIGITS}g}"

"""Curves: what a codec gives on a dataset, point by point, for the regression gate to compare with a stored one."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rdpbench.results.schema import Row, Score, SetScore
from rdpbench.results.summary import summarise

DIGITS = 8
"""Significant digits that are stored."""

Setting = tuple[str, float | None]
"""Name and value of the native setting; ``target_bpp`` where that was searched per image, empty for a single point."""


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


def name_of(setting: Setting) -> str:
    """How people call a rate point.

    >>> name_of(("quality", 50.0)), name_of(("", None))
    ('quality 50', 'the only point')
    """
    return "the only point" if setting[1] is None else f"{setting[0].replace('_', ' ')} {setting[1]:.8g}"


def measure(
    rows: Sequence[Row], scores: Iterable[Score], metrics: Sequence[str], sets: Iterable[SetScore] = ()
) -> tuple[tuple[Point, ...], tuple[ImagePoint, ...]]:
    """The points of the rows of one codec on one dataset, with the digits that files have; and the same per image.

    A metric of sets has no values per image.
    """
    scores = list(scores)
    good: dict[Setting, list[Row]] = {}
    for row in rows:
        good.setdefault(setting_of(row), [])
        if row.status == "ok":
            good[setting_of(row)].append(row)
    points = []
    for _, of in summarise(rows, scores, metrics, sets).groupby(["target_bpp", "rate"], sort=False, dropna=False):
        first = of.iloc[0]
        searched = not math.isnan(first["target_bpp"])
        rate = first["target_bpp"] if searched else first["rate"]
        setting = ("target_bpp" if searched else first["rate_field"], None if math.isnan(rate) else float(rate))
        named = [line for _, line in of.iterrows() if line["metric"]]
        counts = {line["metric"]: int(line["n_scored"]) for line in named}
        for line in named:
            if math.isfinite(line["value"]):
                counts[line["metric"]] -= int(line["infinite"])
        points.append(
            Point(
                setting,
                int(first["n"]),
                int(first["dataset_size"]),
                first["protocol"],
                rounded(first["bpp"]),
                {line["metric"]: rounded(line["value"]) for line in named},
                {metric: count for metric, count in counts.items() if count != first["n"]},
                _digest(sorted((row.image, row.bitstream_sha256) for row in good[setting])),
                ",".join(sorted({row.bits_kind for row in good[setting]})),
            )
        )
    return tuple(sorted(points, key=in_order)), _per_image(good, scores, metrics)


def _per_image(
    good: Mapping[Setting, Sequence[Row]], scores: Iterable[Score], metrics: Sequence[str]
) -> tuple[ImagePoint, ...]:
    values = {(one.task_key, one.metric): one.value for one in scores}
    out = []
    for setting, rows in good.items():
        by_image: dict[str, list[Row]] = {}
        for row in rows:
            by_image.setdefault(row.image, []).append(row)
        for image, seeds in by_image.items():
            hashes = sorted(row.bitstream_sha256 for row in seeds)
            found = {metric: _mean(values.get((row.task_key, metric)) for row in seeds) for metric in metrics}
            bitstream = (hashes[0] if len(hashes) == 1 else _digest(hashes))[:16]
            bpp = _mean(row.bpp for row in seeds)
            out.append(ImagePoint(setting, image, seeds[0].pixel_sha256[:16], bitstream, bpp, found))
    return tuple(sorted(out, key=lambda one: (*in_order(one), one.image)))


def setting_of(row: Row) -> Setting:
    """The rate point that a row belongs to."""
    return ("target_bpp", row.target_bpp) if row.target_bpp is not None else (row.rate_field, row.rate)


def in_order(point: Point | ImagePoint) -> tuple[str, float]:
    """Sorts points along their curve."""
    name, rate = point.setting
    return name, -math.inf if rate is None else rate


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

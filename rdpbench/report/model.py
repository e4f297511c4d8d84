"""Runs as the page shows them: sets of images, curves on them, and points with an id that a link can name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.points import Point, Points, Where
from rdpbench.results.stats.summary import side_by_side
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Contents, Store, reconstruction_path
from rdpbench.setting import Setting

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Shown:
    """One point of a curve: its lines, one for each metric, and its rows."""

    id: str
    run: str
    point: Point
    lines: tuple[Mapping[str, Any], ...]
    """Over the images that are compared; of a point that is not, over its own, and ``compared`` says so."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All seeds and images."""
        return self.point.rows

    @property
    def place(self) -> tuple[str, Where]:
        """Run and place: what may stand in one panel."""
        return self.run, self.point.where

    @property
    def codec(self) -> str:
        """The curve's label."""
        return self.point.codec

    @property
    def bpp(self) -> float:
        """Mean rate of all images that were coded; NaN if nothing was."""
        return float(self.lines[0]["bpp_all"])

    def shown(self) -> list[Row]:
        """Good rows, the first seed of each image, by image."""
        first: dict[str, Row] = {}
        for row in sorted(self.rows, key=lambda row: (row.image, row.seed)):
            if row.status == "ok":
                first.setdefault(row.image, row)
        return list(first.values())


@dataclass(frozen=True)
class Source:
    """One run, read."""

    name: str
    store: Store
    contents: Contents
    current: Points
    frame: pd.DataFrame
    metrics: tuple[str, ...]
    points: tuple[Shown, ...] = field(default=())

    @property
    def rows(self) -> list[Row]:
        """Those of all points."""
        return self.current.rows


def read(name: str, store: Store, contents: Contents, order: Callable[[str], Any]) -> Source:
    """A run with its points, in the order of the summary; metrics sorted by ``order``."""
    current = of_store(contents)
    metrics = sorted(current.metrics, key=order)
    lines = side_by_side(current, metrics)
    of: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for line in lines.to_dict("records"):
        place = Where(line["dataset"], line["manifest"], line["protocol"])
        key = place, line["codec"], Setting.of_line(line)
        of.setdefault(key, []).append({str(k): v for k, v in line.items()})
    known = {(point.where, point.codec, point.setting): point for point in current.points}
    points = [Shown(point_id(name, known[key]), name, known[key], tuple(some)) for key, some in of.items()]
    return Source(name, store, contents, current, lines, tuple(metrics), tuple(points))


def point_id(run: str, point: Point) -> str:
    """The same in every report of the run, so that a link stays good.

    >>> where = Where("kodak", "12", "as-is")
    >>> len(point_id("kodak", Point(where, "jpeg", Setting("quality", 50.0), ())))
    10
    """
    place, setting = point.where, point.setting
    key = place.dataset, place.protocol, point.codec, setting.field, setting.target, setting.rate
    more = [place.manifest[:8]] if place.manifest else []
    return hashlib.sha256("\n".join([run, *map(repr, key), *more]).encode()).hexdigest()[:10]


def kept(source: Source, row: Row) -> bool:
    """Is this reconstruction on the disk?"""
    return reconstruction_path(source.store, row).is_file()

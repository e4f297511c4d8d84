"""Runs as the page shows them: sets of images, curves on them, and points with an id that a link can name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rdpbench.results.reconstructions import reconstruction_path
from rdpbench.results.schema import Row
from rdpbench.results.show import select
from rdpbench.results.store import Contents, Store
from rdpbench.results.summary import POINT, summarise

if TYPE_CHECKING:
    import pandas as pd

Key: TypeAlias = tuple[Any, ...]
"""Dataset, protocol, codec, name of the setting, target and rate, as `rdpbench.results.summary` groups them."""


@dataclass(frozen=True)
class Point:
    """One point of a curve: the summary's lines of it, one for each metric, and its rows."""

    id: str
    run: str
    key: Key
    lines: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]

    @property
    def place(self) -> tuple[str, str, str]:
        """Run, dataset and protocol: what may stand in one panel."""
        return self.run, self.key[0], self.key[1]

    @property
    def codec(self) -> str:
        """The curve's label."""
        return str(self.key[2])

    @property
    def bpp(self) -> float:
        """Mean rate; NaN if nothing was coded."""
        return float(self.lines[0]["bpp"])

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
    rows: tuple[Row, ...]
    """What is current: neither of earlier versions of a codec, nor of images that changed since."""
    frame: pd.DataFrame
    metrics: tuple[str, ...]
    points: tuple[Point, ...] = field(default=())


def read(name: str, store: Store, contents: Contents, metrics: Sequence[str]) -> Source:
    """A run with its points, in the order of the summary."""
    rows = select(contents.rows.values(), None)
    frame = summarise(rows, contents.scores.values(), metrics, contents.sets.values())
    of: dict[Key, list[Row]] = {}
    for row in rows:
        of.setdefault(_key_of_row(row), []).append(row)
    lines: dict[Key, list[Mapping[str, Any]]] = {}
    for line in frame.to_dict("records"):
        lines.setdefault(tuple(_none(line[name]) for name in POINT), []).append({str(k): v for k, v in line.items()})
    points = [Point(point_id(name, key), name, key, tuple(some), tuple(of[key])) for key, some in lines.items()]
    return Source(name, store, contents, tuple(rows), frame, tuple(metrics), tuple(points))


def _key_of_row(row: Row) -> Key:
    rate = None if row.target_bpp is not None else row.rate
    return row.dataset, row.protocol, row.codec, row.rate_field, row.target_bpp, rate


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def point_id(run: str, key: Key) -> str:
    """The same in every report of the run, so that a link stays good.

    >>> len(point_id("kodak", ("kodak", "as-is", "jpeg", "quality", None, 50.0)))
    10
    """
    return hashlib.sha256("\n".join([run, *map(repr, key)]).encode()).hexdigest()[:10]


def setting(point: Point) -> str:
    """A point's setting in words."""
    _, _, _, name, target, rate = point.key
    if target is not None:
        return f"target {target:g} bpp"
    return f"{name} {rate:g}" if rate is not None else "one setting"


def kept(source: Source, row: Row) -> bool:
    """Is this reconstruction on the disk?"""
    return reconstruction_path(source.store, row).is_file()

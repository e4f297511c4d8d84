"""The points of several runs beside one another, as if one run had measured all of them.

Nothing of two runs is averaged. A codec that several runs measured is a curve of each of them, and its label ends in
the run. Points are compared over the images that all of them have, as within a run; images under one id whose pixels
differ between runs are two images. Where runs measured a metric in two editions on one dataset, the values of one
edition stand, and a note says which are left out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from rdpbench.results.stats.bd import Floats
from rdpbench.results.stats.current import names_of, with_names
from rdpbench.results.stats.meanings import definition_now
from rdpbench.results.stats.points import Point, Points, Taken, Where, grouped
from rdpbench.results.store.columns import Places
from rdpbench.results.store.schema import SetScore


class Origin(NamedTuple):
    """Where a point is from."""

    run: str
    points: Points
    """All of the run."""
    codec: str
    """The curve's label in the run."""


@dataclass(frozen=True)
class Joined(Points):
    """Points of several runs. It has no rows of its own: ask the run of a point, which `origins` names."""

    origins: Mapping[Point, Origin] = field(default_factory=dict)
    left_out: frozenset[tuple[str, Where, str]] = frozenset()
    """Run, place and metric whose values are of another edition than those that stand."""

    @cached_property
    def metrics(self) -> list[str]:
        """What was measured, in the order of names."""
        runs = grouped(self.points, lambda point: self.origins[point].run).values()
        return sorted({m for own in runs for m in replace(self.origins[own[0]].points, points=tuple(own)).metrics})

    def taken(self, point: Point, metric: str, *, infinite: bool = False) -> Taken:
        """The images that a metric's value of a point is made of; none if its edition is left out."""
        taken = self.origins[point].points.taken(point, metric, infinite=infinite)
        return taken.of(()) if self._is_left_out(point, metric) else taken

    def set_scores(self, point: Point, metric: str) -> dict[int, SetScore | None]:
        """Of each seed the value of a metric of sets."""
        return self.origins[point].points.set_scores(point, metric)

    def values_of(self, point: Point, places: Places, metric: str) -> Floats:
        """Values of rows of a point at places of its run's records; NaN where there is none."""
        if self._is_left_out(point, metric):
            return np.full(len(places), np.nan)
        return self.origins[point].points.values(point.where, places, metric)

    def _is_left_out(self, point: Point, metric: str) -> bool:
        return (self.origins[point].run, point.where, metric) in self.left_out


def joined(runs: Mapping[str, Points]) -> Joined:
    """The points of runs by their names.

    >>> from rdpbench.results.stats.points import Point, Points, Where
    >>> from rdpbench.results.store.records import Rows
    >>> from rdpbench.setting import Setting
    >>> point = Point(Where("kodak", "12", "as-is"), "jpeg", Setting("quality", 50.0), Rows.of([]))
    >>> both = joined({"desk": Points((point,)), "cluster": Points((point,))})
    >>> [point.codec for point in both.points], len(both.places)
    (['jpeg[run=desk]', 'jpeg[run=cluster]'], 1)
    """
    count = Counter(codec for points in runs.values() for codec in {point.codec for point in points.points})
    pairs = [
        (replace(point, codec=_labelled(point.codec, run)) if count[point.codec] > 1 else point, point.codec, run)
        for run, points in runs.items()
        for point in points.points
    ]
    names = names_of([point for point, *_ in pairs]) if len(runs) > 1 else {}
    origins = {with_names(point, names): Origin(run, runs[run], codec) for point, codec, run in pairs}
    left_out, notes = other_editions(runs)
    return Joined(tuple(origins), tuple(notes), names=names, origins=origins, left_out=left_out)


def _labelled(codec: str, run: str) -> str:
    label, grade = re.fullmatch(r"(.*?)( \((?:joint|reported)\))?", codec, re.DOTALL).groups()  # type: ignore[union-attr]  # anything matches
    return f"{label}[run={run}]{grade or ''}"


def other_editions(runs: Mapping[str, Points]) -> tuple[frozenset[tuple[str, Where, str]], Sequence[str]]:
    """Run, place and metric whose values are of another edition than the one that stands, and notes on them.

    It is the installed one that stands, or else the first run's.
    """
    by_run: dict[tuple[Where, str], dict[str, set[str]]] = defaultdict(dict)
    for run, points in runs.items():
        for key, editions in points.editions.items():
            by_run[key][run] = editions
    left_out: set[tuple[str, Where, str]] = set()
    notes: dict[str, None] = {}
    for (where, metric), of_runs in by_run.items():
        if len(set().union(*of_runs.values())) > 1:
            now = {definition_now(metric)}
            stands = now if now in of_runs.values() else next(iter(of_runs.values()))
            for run in (run for run, editions in of_runs.items() if editions != stands):
                left_out.add((run, where, metric))
                notes[
                    f"{metric} of run {run} on {where.dataset} is left out: its edition is {', '.join(of_runs[run])}, "
                    f"and that of the others {', '.join(stands)}; `rdpbench score` makes the values again"
                ] = None
    return frozenset(left_out), list(notes)

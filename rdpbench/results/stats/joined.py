"""The points of several runs beside one another, as if one run had measured all of them.

Nothing of two runs is averaged. A codec that several runs measured is a curve of each of them, and its label ends in
the run. Points are compared over the images that all of them have, as within a run; images under one id whose pixels
differ between runs are two images. Where runs measured a metric in two editions on one dataset, the values of one
edition stand, and a note says which are left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from rdpbench.results.stats.bd import Floats
from rdpbench.results.stats.current import names_of, with_names
from rdpbench.results.stats.meanings import definition_now
from rdpbench.results.stats.points import Point, Points, Taken, Where, grouped
from rdpbench.results.store.columns import Places
from rdpbench.results.store.schema import SetScore
from rdpbench.setting import with_option


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

    @cached_property
    def metrics(self) -> list[str]:
        """What was measured, in the order of names."""
        runs = grouped(self.points, lambda point: self.origins[point].run).values()
        return sorted({m for own in runs for m in replace(self.origins[own[0]].points, points=tuple(own)).metrics})

    def taken(self, point: Point, metric: str, *, infinite: bool = False) -> Taken:
        """The images that a metric's value of a point is made of."""
        return self.origins[point].points.taken(point, metric, infinite=infinite)

    def set_scores(self, point: Point, metric: str) -> dict[int, SetScore | None]:
        """Of each seed the value of a metric of sets."""
        return self.origins[point].points.set_scores(point, metric)

    def values_of(self, point: Point, places: Places, metric: str) -> Floats:
        """Values of rows of a point at places of its run's records; NaN where there is none."""
        return self.origins[point].points.values(point.where, places, metric)


def joined(runs: Mapping[str, Points]) -> Joined:
    """The points of runs by their names, which hold one edition of each metric (`of_one_edition`).

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
        (
            replace(point, codec=with_option(point.codec, f"run={run}")) if count[point.codec] > 1 else point,
            point.codec,
            run,
        )
        for run, points in runs.items()
        for point in points.points
    ]
    names = names_of([point for point, *_ in pairs]) if len(runs) > 1 else {}
    origins = {with_names(point, names): Origin(run, runs[run], codec) for point, codec, run in pairs}
    return Joined(tuple(origins), names=names, origins=origins)


def of_one_edition(runs: Mapping[str, Points]) -> tuple[dict[str, Points], list[str]]:
    """Runs without values of another edition of a metric than the one that stands, and notes on what is left out.

    It is the installed one that stands, or else the first run's.
    """
    by_run: dict[tuple[Where, str], dict[str, set[str]]] = defaultdict(dict)
    for run, points in runs.items():
        for key, editions in points.editions.items():
            by_run[key][run] = editions
    left_out: dict[str, set[tuple[Where, str]]] = defaultdict(set)
    notes: dict[str, None] = {}
    for (where, metric), of_runs in by_run.items():
        if len(set().union(*of_runs.values())) > 1:
            now = {definition_now(metric)}
            stands = now if now in of_runs.values() else next(iter(of_runs.values()))
            for run in (run for run, editions in of_runs.items() if editions != stands):
                left_out[run].add((where, metric))
                notes[
                    f"{metric} of run {run} on {where.dataset} is left out: its edition is {', '.join(of_runs[run])}, "
                    f"and that of the others {', '.join(stands)}; `rdpbench score` makes the values again"
                ] = None
    return {run: _without(points, left_out[run]) for run, points in runs.items()}, list(notes)


def _without(points: Points, metrics: Set[tuple[Where, str]]) -> Points:
    """Points without the values of some metrics at some places."""
    if not metrics:
        return points
    return replace(
        points,
        points=tuple(map(replace, points.points)),  # others than those that remember what was taken of them
        scored={key: scored for key, scored in points.scored.items() if key not in metrics},
        sets={key: score for key, score in points.sets.items() if (key[0], score.metric) not in metrics},
    )

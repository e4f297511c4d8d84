"""What a run leaves behind for people: a table on the terminal, Markdown, LaTeX, CSV and figures, from one frame.

``rdpbench bd``: every codec of a run against an anchor: Bjøntegaard deltas, crossover rates, pairs of images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.figures.curves import draw_all
from rdpbench.figures.style import safe
from rdpbench.paths import unwritable
from rdpbench.results import tables
from rdpbench.results.stats.bd import METHODS
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Point, Points, titles
from rdpbench.results.stats.summary import compared, frame, tidy
from rdpbench.results.store.store import Contents, Store
from rdpbench.results.tables import latex, times, to_csv

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.results.stats.points import Points
    from rdpbench.results.store.store import Store
    from rdpbench.results.tables import Table


def show(
    store: Store,
    contents: Contents,
    points: Points,
    metrics: Sequence[str],
    console: Console,
    *,
    figures: bool = True,
) -> list[Path]:
    """Print the summary of points and write all outputs; returns the files worth naming."""
    for note in points.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    store.check_links("tables", "figures")
    drawn: list[tables.Table] = []
    written: list[Path] = []
    try:
        names = titles(points.places)
        for where, name in names.items():
            here = points.at(where)
            table = tables.measured(frame(here, metrics), name)
            timed = times(here.rows, contents)
            for shown in (table, timed):
                if shown is not None:
                    console.print(tables.terminal(shown))
            drawn += [table, *tables.at_equal_rates(here, metrics, name), *([timed] if timed else [])]
            if figures:
                # Curves of two datasets, or of two protocols, in one panel would be joined to one.
                folder = store.folder / "figures"
                side_by_side, notes = compared(here, metrics)
                place = folder if len(names) == 1 else folder / safe(name)
                written += draw_all(side_by_side, place, name, notes)[:3]
        folder = store.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        summary, rows = folder / "summary.csv", store.folder / "rows.csv"
        for path, how in ((folder / "summary.md", tables.markdown), (folder / "summary.tex", latex)):
            path.unlink(missing_ok=True)
            path.write_text("\n".join(map(how, drawn)))
        to_csv(frame(points, metrics), summary)
        to_csv(tidy(points, metrics), rows)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    made = [store.folder / "rows.parquet", store.folder / "rows.csv"]
    return [*made, *(folder / f"summary.{ending}" for ending in ("csv", "md", "tex")), *written]


def by_tag(points: Points, metrics: Sequence[str]) -> Iterator[tables.Table]:
    """One table for each tag of the images: a mean over photographs and scans together may be true of neither."""
    for tag in sorted({tag for row in points.rows for tag in row.tags.split(",") if tag}):
        for where, name in titles(points.places).items():
            here = [_tagged(point, tag) for point in points.at(where).points]
            size = len({row.image for point in here for row in point.rows})
            sized = [replace(p, rows=tuple(replace(row, dataset_size=size) for row in p.rows)) for p in here if p.rows]
            if sized:
                # A distance between sets is of all images; of those of a tag there is none.
                of_pairs = [metric for metric in metrics if meaning(metric).kind != "set"]
                yield tables.measured(frame(replace(points, points=tuple(sized)), of_pairs), f"{name}, {tag}")


def _tagged(point: Point, tag: str) -> Point:
    return replace(point, rows=tuple(row for row in point.rows if tag in row.tags.split(",")))


def run(options: argparse.Namespace, store: Store, console: Console) -> int:
    """Print the tables and write what was asked for; returns the exit code.

    Raises:
        UnknownName: no such curve, metric or method in the run.
        ConfigError: a number of resamples that gives no interval.
        StoreUnwritable: a file cannot be written.
    """
    from rdpbench.paths import write_file
    from rdpbench.results import tables
    from rdpbench.results.stats.current import of_store
    from rdpbench.results.tables import latex

    if options.resamples < 20:
        raise ConfigError(f"--resamples {options.resamples}: an interval of 95 % needs 20 at the least, better 1000")
    if options.method not in METHODS:
        raise UnknownName("method", options.method, METHODS)
    points = of_store(store.read())
    for note in points.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    made = _tables(points, options)
    for one in made:
        console.print(tables.terminal(one))
    for path, how in ((options.markdown, tables.markdown), (options.latex, latex)):
        if path is not None:
            write_file(path, "\n".join(how(one) for one in made))
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _tables(points: Points, options: argparse.Namespace) -> list[Table]:
    from rdpbench.results.stats.bd_tables import bd_tables
    from rdpbench.results.stats.crossover import crossover_tables

    what = points, options.anchor, options.metric
    made = bd_tables(*what, method=options.method, resamples=options.resamples)
    if options.crossover:
        made += crossover_tables(*what, resamples=options.resamples)
    return made + (matched_tables(points, options) if options.matched else [])


def matched_tables(points: Points, options: argparse.Namespace) -> list[Table]:
    """A table for each place, metric of pairs and codec."""
    from rdpbench.results.stats import bd_tables
    from rdpbench.results.stats.bd_tables import compared

    out = []
    for one in compared(points, options.anchor, options.metric):
        for codec in one.others if one.curves else ():
            anchor, test = one.curves[options.anchor], one.curves[codec]
            pairs = bd_tables.pairs(anchor, test, resamples=options.resamples)
            out.append(bd_tables.matched_table(pairs, anchor, test, one.metric, one.where))
    return out

"""``rdpbench show`` and ``rdpbench bd``: the tables and figures of a run, and its codecs against an anchor.

A table on the terminal, Markdown, LaTeX, CSV and figures, from one frame; every codec of a run against an anchor.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.figures.curves import draw_all
from rdpbench.figures.style import safe
from rdpbench.paths import unwritable, write_file
from rdpbench.results import tables
from rdpbench.results.names import Names
from rdpbench.results.stats import against
from rdpbench.results.stats.bd import METHODS
from rdpbench.results.stats.current import of_store
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Point, Points, titles
from rdpbench.results.stats.summary import PLACE, compared, frame, tidy
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.store import Store
from rdpbench.setting import USUAL, Presentation, split_label

if TYPE_CHECKING:
    from rich.console import Console


LISTED = 100_000
"""Rows up to which rows.csv is written unasked."""


def show(
    store: Store,
    contents: Contents,
    points: Points,
    metrics: Sequence[str],
    console: Console,
    *,
    figures: bool = True,
    presented: Presentation = USUAL,
    rows: bool = False,
) -> list[Path]:
    """Print the summary of points and write all outputs; returns the files worth naming.

    ``rows`` writes rows.csv of a large run, too.
    """
    places = {
        codec: place for place, codec in enumerate(presented.ordered(dict.fromkeys(p.codec for p in points.points)))
    }
    points = replace(points, points=tuple(sorted(points.points, key=lambda point: places[point.codec])))
    for note in (*points.notes, *_unknown(presented, points, metrics)):
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    store.check_links("tables", "figures")
    drawn: list[tables.Table] = []
    written: list[Path] = []
    try:
        names, whole = titles(points.places), frame(points, metrics)
        for where, name in names.items():
            here = points.at(where)
            table = tables.measured(whole[(whole[PLACE] == list(where)).all(axis=1)], name)
            timed = tables.times(here, contents)
            # Its library imports one that draws, which takes longer than a small run.
            glance = against.at_a_glance(here, metrics) if figures else []
            for shown in (table, *glance, timed):
                if shown is not None:
                    console.print(tables.Terminal(shown))
            drawn += [table, *glance, *tables.at_equal_rates(here, metrics, name), *([timed] if timed else [])]
            if figures:
                # Curves of two datasets, or of two protocols, in one panel would be joined to one.
                place = "" if len(names) == 1 else safe(name)
                side_by_side, notes = compared(here, metrics)
                drawn_here = draw_all(side_by_side, store.folder / "figures" / place, name, notes, presented)
                written += drawn_here[:4]
        folder = store.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        in_latex = partial(tables.latex, names=Names(presented.labels), siunitx=presented.siunitx)
        for path, how in ((folder / "summary.md", tables.markdown), (folder / "summary.tex", in_latex)):
            path.unlink(missing_ok=True)
            path.write_text("\n".join(map(how, drawn)), encoding="utf-8")
        tables.to_csv(whole, folder / "summary.csv")
        count = sum(len(point.rows) for point in points.points)
        files = []
        if count <= LISTED or rows:
            files = [store.folder / "rows.csv"]
            tables.to_csv(tidy(points, metrics), files[0])
        else:
            typed = f"rdpbench show {store.folder.name} --rows"
            told = f"rows.csv would have {count:,} rows, and is not written; {typed} writes it"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    if (store.folder / "rows.parquet").is_file():
        files.insert(0, store.folder / "rows.parquet")
    return [*files, *(folder / f"summary.{ending}" for ending in ("csv", "md", "tex")), *written]


def _unknown(presented: Presentation, points: Points, metrics: Sequence[str]) -> Iterator[str]:
    """What was asked for and is not there: said, and not refused, since hours of coding may lie before it."""
    codecs = {name for point in points.points for name in (point.codec, split_label(point.codec)[0])}
    sides = {"panels": (presented.shown, set(metrics))}
    sides |= {"order": (presented.order, codecs), "anchor": (tuple(filter(None, [presented.anchor])), codecs)}
    for setting, (asked, there) in sides.items():
        for name in asked:
            if name not in there:
                yield f"{setting}={name}: not in this run; it has {', '.join(sorted(there))}"


def by_tag(points: Points, metrics: Sequence[str]) -> Iterator[tables.Table]:
    """One table for each tag of the images: a mean over photographs and scans together may be true of neither."""
    texts = {text for point in points.points for text in point.rows.codes("tags").used()}
    for tag in sorted({tag for text in texts for tag in text.split(",") if tag}):
        for where, name in titles(points.places).items():
            has = [
                (p, p.rows.where(p.rows.codes("tags").where(lambda text: tag in text.split(","))))  # noqa: B023 (asked at once)
                for p in points.at(where).points
            ]
            size = len({image for _, rows in has for image in rows.codes("image").used()})
            sized = [
                Point(where, p.codec, p.setting, rows.stating(dataset_size=np.full(len(rows), size)), p.names)
                for p, rows in has
                if len(rows)
            ]
            if sized:
                # A distance between sets is of all images; of those of a tag there is none.
                of_pairs = [metric for metric in metrics if meaning(metric).kind != "set"]
                yield tables.measured(frame(replace(points, points=tuple(sized)), of_pairs), f"{name}, {tag}")


def bd(options: argparse.Namespace, store: Store, console: Console) -> int:
    """Print the tables of ``rdpbench bd`` and write what was asked for; returns the exit code.

    Raises:
        UnknownName: no such curve, metric or method in the run.
        ConfigError: a number of resamples that gives no interval.
        StoreUnwritable: a file cannot be written.
    """
    if options.resamples < 20:
        raise ConfigError(f"--resamples {options.resamples}: an interval of 95 % needs 20 at the least, better 1000")
    if options.method not in METHODS:
        raise UnknownName("method", options.method, METHODS)
    points = of_store(store.read())
    for note in points.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    _check_anchor(options.name, options.anchor, points)
    asked = points, options.anchor, options.metric
    drawn = against.bd_tables(*asked, method=options.method, resamples=options.resamples)
    drawn += against.crossover_tables(*asked, resamples=options.resamples) if options.crossover else []
    drawn += against.matched_tables(*asked, resamples=options.resamples) if options.matched else []
    for table in drawn:
        console.print(tables.Terminal(table))
    for path, how in ((options.markdown, tables.markdown), (options.latex, partial(tables.latex, names=Names()))):
        if path is not None:
            write_file(path, "\n".join(map(how, drawn)))
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _check_anchor(run: str, anchor: str, points: Points) -> None:
    """Raise `ConfigError` if there is no anchor, or nothing to hold against it."""
    curves = list(dict.fromkeys(point.codec for point in points.points if point.competes))
    if not anchor and curves:
        raise ConfigError(
            f"against which curve? {run} has {', '.join(curves)}; type: rdpbench bd {run} --anchor {curves[0]}"
        )
    if curves == [anchor]:
        data = ",".join(dict.fromkeys(point.where.dataset for point in points.points))
        raise ConfigError(
            f"{run} has no curve beside {anchor}, so there is nothing to compare; one more, such as webp:\n"
            f"  rdpbench run codec=webp data={data.replace('folder-', 'folder:')} run={run}"
        )

"""``rdpbench bd``: every codec of a run against an anchor: Bjøntegaard deltas, crossover rates, pairs of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.results.bd import METHODS

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.results.stats.points import Points
    from rdpbench.results.store import Store
    from rdpbench.results.tables import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench bd RUN --anchor CODEC``, without the run itself."""
    parser.add_argument("--anchor", required=True, metavar="CODEC", help="the curve that the others are held against")
    parser.add_argument("--metric", action="append", default=[], metavar="M", help="repeat for several (default: all)")
    parser.add_argument("--method", default="pchip", metavar="|".join(METHODS), help="(default: %(default)s)")
    parser.add_argument("--matched", action="store_true", help="also image by image, at each point of the anchor")
    parser.add_argument("--crossover", action="store_true", help="also the rates at which a codec crosses the anchor")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables for Markdown")
    parser.add_argument("--latex", type=Path, metavar="FILE", help="write the tables for LaTeX, with booktabs")


def run(options: argparse.Namespace, store: Store, console: Console) -> int:
    """Print the tables and write what was asked for; returns the exit code.

    Raises:
        UnknownName: no such curve, metric or method in the run.
        ConfigError: a number of resamples that gives no interval.
        StoreUnwritable: a file cannot be written.
    """
    from rdpbench.results import tables
    from rdpbench.results.latex import latex
    from rdpbench.results.stats.current import of_store
    from rdpbench.results.verdicts import write_file

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
    from rdpbench.results.bd_tables import bd_tables
    from rdpbench.results.crossover import crossover_tables

    what = points, options.anchor, options.metric
    made = bd_tables(*what, method=options.method, resamples=options.resamples)
    if options.crossover:
        made += crossover_tables(*what, resamples=options.resamples)
    return made + (matched_tables(points, options) if options.matched else [])


def matched_tables(points: Points, options: argparse.Namespace) -> list[Table]:
    """A table for each place, metric of pairs and codec."""
    from rdpbench.results import matched
    from rdpbench.results.bd_tables import compared

    out = []
    for one in compared(points, options.anchor, options.metric):
        for codec in one.others if one.curves else ():
            anchor, test = one.curves[options.anchor], one.curves[codec]
            pairs = matched.pairs(anchor, test, resamples=options.resamples)
            out.append(matched.table(pairs, anchor, test, one.metric, one.where))
    return out

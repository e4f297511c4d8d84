"""``rdpbench bd``: every codec of a run against an anchor: Bjøntegaard deltas, crossover rates, pairs of images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import ConfigError, UnknownName
from rdpbench.results.bd import METHODS

if TYPE_CHECKING:
    from rich.console import Console

    from rdpbench.results.figure_data import Run
    from rdpbench.results.store import Contents, Store
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
    from rdpbench.results.figure_data import read_run
    from rdpbench.results.latex import latex
    from rdpbench.results.verdicts import write_file

    if options.resamples < 20:
        raise ConfigError(f"--resamples {options.resamples}: an interval of 95 % needs 20 at the least, better 1000")
    if options.method not in METHODS:
        raise UnknownName("method", options.method, METHODS)
    contents = store.read()
    made = _tables(read_run(store.folder.resolve().name, contents), contents, options)
    for one in made:
        console.print(tables.terminal(one))
    for path, how in ((options.markdown, tables.markdown), (options.latex, latex)):
        if path is not None:
            write_file(path, "\n".join(how(one) for one in made))
            console.print(f"  {path}", highlight=False, soft_wrap=True)
    return 0


def _tables(found: Run, contents: Contents, options: argparse.Namespace) -> list[Table]:
    from rdpbench.results.bd_tables import bd_tables
    from rdpbench.results.crossover import crossover_tables

    scores = list(contents.scores.values())
    how = {"method": options.method, "resamples": options.resamples}
    what = found.frame, found.rows, scores, options.anchor, options.metric
    made = bd_tables(*what, **how)
    if options.crossover:
        made += crossover_tables(*what, resamples=options.resamples)
    return made + (matched_tables(found, contents, options) if options.matched else [])


def matched_tables(found: Run, contents: Contents, options: argparse.Namespace) -> list[Table]:
    """A table for each dataset, metric of pairs and codec."""
    from rdpbench.results import matched
    from rdpbench.results.image_curves import image_curves

    scores = list(contents.scores.values())
    of_pairs = {one.metric for one in scores}
    out = []
    for dataset, protocol in dict.fromkeys((row.dataset, row.protocol) for row in found.rows):
        rows = [row for row in found.rows if (row.dataset, row.protocol) == (dataset, protocol)]
        rows = [row for row in rows if row.weights != "random"]
        for metric in options.metric or sorted(of_pairs):
            curves = image_curves(rows, scores, metric) if metric in of_pairs else {}
            anchor = curves.get(options.anchor)
            for codec in curves if anchor is not None else ():
                if anchor is not None and codec != options.anchor:
                    pairs = matched.pairs(anchor, curves[codec], resamples=options.resamples)
                    out.append(matched.table(pairs, anchor, curves[codec], metric, f"{dataset} ({protocol})"))
    return out

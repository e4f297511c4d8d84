"""``rdpbench report``: one static folder of a run, or of several, to open from the file system or to send.

The report's folder: the page, its data, the plotting library, the images; what an earlier report left is removed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rdpbench.errors import ConfigError

if TYPE_CHECKING:
    from rdpbench.report.model import Source
    from rdpbench.report.pictures import Decoding, Picture, Which
    from rdpbench.results.store.store import Store

LIMIT = 50
"""Images of each set that are shown."""
SLOW = 30.0
"""Seconds of decoding from which on they are told."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench report NAME``, without the run itself."""
    parser.add_argument("also", nargs="*", metavar="NAME", help="more runs for it; codec=FILE:CLASS, a codec of yours")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where (default: report/ in the run's folder; of several runs, reports/ beside them)",
    )
    parser.add_argument(
        "--images",
        choices=["none", "matched", "all"],
        default="matched",
        help="which points one can look at: those of each codec next to four rates that codecs share "
        "(%(default)s, the default), all, or none",
    )
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="N", help="the first N images of each set (%(default)s; 0: all)"
    )


def run(options: argparse.Namespace, stores: Sequence[Store], how: Decoding, say: Callable[[str], None] = print) -> int:
    """Make the folder and say where it is; returns the exit code.

    Raises:
        ConfigError: a limit below 0, or a folder that holds something else.
        MissingNeed: no plotting library.
        StoreUnwritable: the folder cannot be written.
        WorkerError: a process that makes images died.
    """
    if options.limit < 0:
        raise ConfigError(f"--limit {options.limit}: a number of images, or 0 for all")
    if len({store.folder.resolve() for store in stores}) < len(stores):
        raise ConfigError("a run is named twice")
    sources = [_read(store) for store in stores]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ConfigError(f"two runs have the name {next(name for name in names if names.count(name) > 1)!r}")
    usual = stores[0].folder / "report" if len(stores) == 1 else Path(options.root) / "reports" / "+".join(names)
    if len(stores) == 1 and not options.out:
        stores[0].check_links("report")
    say(str(build(sources, options.out or usual, options.images, options.limit, how, say)))
    return 0


def build(
    sources: Sequence[Source],
    out: Path,
    which: Which,
    limit: int,
    how: Decoding,
    say: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
) -> Path:
    """Make the folder; the same runs give the same bytes."""
    from rdpbench.report import data, pictures

    data.library()
    data.check(out)
    asked = list(pictures.wanted(sources, which, limit))
    _warn(sources, asked, say)
    refused = pictures.make(asked, out, how, workers)
    there = {one.sha256 for one in asked} - refused.keys()
    page = data.write(out, data.files(sources, there, refused))
    data.tidy(out, asked, refused.keys())
    if refused:
        first = next(iter(refused.values()))
        say(f"{len(refused)} of {len(asked)} images cannot be shown, and the report says why: {first}")
    return page


def _read(store: Store) -> Source:
    from rdpbench.report.model import read
    from rdpbench.results.stats.points import metric_order

    return read(store.folder.resolve().name, store, store.read(), metric_order)


def _warn(sources: Sequence[Source], asked: Sequence[Picture], say: Callable[[str], None]) -> None:
    from rdpbench.report.model import kept

    of = {source.store.folder: source for source in sources}
    again = [one.row for one in asked if not one.original and not kept(of[one.store.folder], one.row)]
    seconds = sum(row.decode_s or 0 for row in again)
    if seconds > SLOW:
        say(f"decoding {len(again)} bitstreams again, about {seconds:.0f} s on one core: keep=all spares it next time")

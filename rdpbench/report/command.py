"""``rdpbench report``: one static folder of a run, or of several, to open from the file system or to send.

In the folder: the page, its data, the plotting library, the images; what an earlier report left is removed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from rdpbench.errors import ConfigError
from rdpbench.paths import write_file
from rdpbench.report import cards
from rdpbench.report.data import ReportedRun, Which, read_report, read_run, script, scripts, wanted
from rdpbench.report.pictures import Decoding, Picture, make
from rdpbench.results.stats.current import read_grades
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.store import Store

LIMIT = 50
"""Images of each set that are shown."""
SLOW = 30.0
"""Seconds of decoding from which on the user is told."""
STATIC = Path(__file__).with_name("static")
MARK = '<meta name="generator" content="rdpbench report">'
"""In the page: a folder with another index.html is not ours to write into."""
FOLDERS = ("images", "thumbs", "data", "static")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of ``rdpbench report NAME``, without the run itself."""
    parser.add_argument("also", nargs="*", metavar="NAME", help="more runs; codec=FILE:CLASS, a codec of yours")
    parser.add_argument("--grades", default="", metavar="A,B", help="of rates: decoded (default), joint, reported")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where (default: report/ in the run's folder; of several runs, reports/ beside them)",
    )
    parser.add_argument("--author", default="", metavar="NAME", help="who is to be cited, in CITATION.cff")
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


def report_command(
    options: argparse.Namespace, stores: Sequence[Store], how: Decoding, say: Callable[[str], None] = print
) -> int:
    """Make the folder and say where it is; returns the exit code.

    Raises:
        ConfigError: a limit below 0, or a folder that holds something else.
        StoreUnwritable: the folder cannot be written.
        WorkerError: a process that makes images died.
    """
    if options.limit < 0:
        raise ConfigError(f"--limit {options.limit}: a number of images, or 0 for all")
    if len({store.folder.resolve() for store in stores}) < len(stores):
        raise ConfigError("a run is named twice")
    grades, names = read_grades(options.grades), names_of([store.folder.resolve() for store in stores])
    runs = [read_run(name, store, store.read(), grades) for name, store in zip(names, stores, strict=True)]
    several = Path(options.root) / "reports" / "+".join(names).replace("/", "-")
    usual = stores[0].folder / "report" if len(stores) == 1 else several
    if len(stores) == 1 and not options.out:
        stores[0].check_links("report")
    say(str(build(runs, options.out or usual, options.images, options.limit, how, say, author=options.author)))
    return 0


def names_of(folders: Sequence[Path]) -> list[str]:
    """What runs are called: runs of one name, as of two machines, after the nearest folder above that tells them apart.

    >>> names_of([Path("/a/results/runs/kodak"), Path("/b/results/runs/kodak"), Path("/a/results/runs/tecnick")])
    ['a/kodak', 'b/kodak', 'tecnick']
    """
    names = [folder.name for folder in folders]
    for number, folder in enumerate(folders):
        same = [other.parts[-2::-1] for other in folders if other.name == folder.name]
        apart = [parts for parts in zip(*same, strict=False) if len(set(parts)) == len(same)]
        if len(same) > 1 and not apart:
            raise ConfigError(f"two runs have the name {folder.name!r}; name one of their folders otherwise")
        if len(same) > 1:
            place = [*zip(*same, strict=False)].index(apart[0])
            names[number] = f"{folder.parts[-2 - place]}/{folder.name}"
    return names


def build(
    runs: Sequence[ReportedRun],
    out: Path,
    which: Which,
    limit: int,
    how: Decoding,
    say: Callable[[str], None] = lambda _: None,
    workers: int | None = None,
    author: str = "",
) -> Path:
    """Make the folder; the same runs give the same bytes."""
    _check(out)
    if library() is None:
        say(UNPLOTTED)
    report = read_report(runs)
    pictures = list(wanted(report, which, limit))
    _warn(pictures, say)
    refused = make(pictures, out, how, workers)
    there = [picture for picture in pictures if picture.sha256 not in refused]
    files = cards.files(report, author)
    data = scripts(report, {picture.sha256 for picture in there}, refused, [*files])
    page = _write(out, files | {f"data/{name}.js": script(name, value).encode() for name, value in data.items()})
    _tidy(out, {file.name for picture in there for file in picture.files(out)})
    if refused:
        first = next(iter(refused.values()))
        say(f"{len(refused)} of {len(pictures)} images cannot be shown, and the report says why: {first}")
    return page


def _warn(pictures: Sequence[Picture], say: Callable[[str], None]) -> None:
    copies = (picture for picture in pictures if not picture.original)
    again = [copy.row for copy in copies if not reconstruction_path(copy.store, copy.row).is_file()]
    seconds = sum(row.decode_s or 0 for row in again)
    if seconds > SLOW:
        say(f"decoding {len(again)} bitstreams again, about {seconds:.0f} s on one core: keep=all spares it next time")


# The folder


def _check(folder: Path) -> None:
    """Refuse a place that holds something else than a report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a folder")
    if links := [name for name in FOLDERS if (folder / name).is_symlink()]:
        raise ConfigError(f"{folder / links[0]} is a link, and nothing is written through it; put a folder there")
    page = folder / "index.html"
    ours = page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")
    if not ours and any(path.name not in (*FOLDERS, "CITATION.cff") for path in folder.iterdir()):
        raise ConfigError(f"--out {folder} holds files that are no report; name a new folder")


UNPLOTTED = (
    "The report has no curves: plotly.js (MIT) draws them, and the Python package plotly brings it. "
    "Type: pip install 'rdpbench[report]'"
)


def library() -> bytes | None:
    """The plotting library, as its Python package brings it; None where that is not installed."""
    spec = importlib.util.find_spec("plotly")
    path = Path(spec.origin).with_name("package_data") / "plotly.min.js" if spec and spec.origin else None
    return path.read_bytes() if path is not None and path.is_file() else None


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write everything but the images; the page comes last. Returns its path."""
    static = {f"static/{path.name}": path.read_bytes() for path in STATIC.iterdir() if path.suffix in (".js", ".css")}
    static["static/plotly.min.js"] = library() or f"window.rdpbench.unplotted = {json.dumps(UNPLOTTED)};\n".encode()
    for name, content in (static | files).items():
        _put(folder / name, content)
    for path in (path for name in ("data", "static") for path in (folder / name).iterdir()):
        if f"{path.parent.name}/{path.name}" not in static | files:
            path.unlink()
    page = folder / "index.html"
    _put(page, (STATIC / page.name).read_bytes())
    return page


def _tidy(folder: Path, names: Set[str]) -> None:
    """Remove images that the page no longer refers to; only files named as images of a report are touched."""
    for path in (path for name in ("images", "thumbs") for path in (folder / name).glob("*/*")):
        if path.name not in names and re.fullmatch(r"\.?[0-9a-f]{20}\.(webp|png|jpg)(\.\d+\.part)?", path.name):
            path.unlink()


def _put(path: Path, content: bytes) -> None:
    """Write a file whole; one that is the same already stays as it is."""
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)

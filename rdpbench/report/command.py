"""``rdpbench report``: one static folder of a run, or of several, to open from the file system or to send.

In the folder: the page, its data, the plotting library, the images; what an earlier report left is removed.

An image is named after the hash of its pixels: whoever refers to it, it is made once, and not again by the next report.
Reconstructions come from PNGs that the run kept, or are decoded again; either way their pixels must have the hash in
the row, or they are not shown. Images are lossless WebP, since the page shows their differences; only thumbnails are
lossy. They are never all in memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from rdpbench.errors import ConfigError, RdpbenchError, StoreCorrupt, StoreUnwritable, WorkerError
from rdpbench.figures.examples import original_of, reconstruction_of
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import pa, parquet, pd, pil
from rdpbench.paths import write_file, written_whole
from rdpbench.provenance import cores
from rdpbench.report import cards
from rdpbench.report.data import (
    Report,
    ReportedPoint,
    ReportedRun,
    curves_of,
    ending,
    name_of,
    read_report,
    read_run,
    script,
    scripts,
)
from rdpbench.results import read, tables
from rdpbench.results.stats.current import read_grades
from rdpbench.results.stats.points import Where
from rdpbench.results.stats.summary import PLACE, common_rates
from rdpbench.results.store.bitstreams import reconstruction_path
from rdpbench.results.store.records import used
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.setting import thin

LIMIT = 50
"""Images of each set that are shown."""
SLOW = 30.0
"""Seconds of decoding from which on the user is told."""
THUMB = 256
"""Longest side of a thumbnail, in pixels; of large images up to twice that is made where it is much faster."""
INLINE = 24
"""So few images are made in this process."""
RATES = 4
"""Of ``matched``: so many rates that codecs share, and of each codec its points next to these."""
MOST_LINES = 100_000
"""Lines of images and metrics, each of a kilobyte, up to which they are written."""
Which: TypeAlias = Literal["none", "matched", "all"]
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
    grades, names = read_grades(options.grades), read.names_of(stores)
    runs = [read_run(name, store, store.read(), grades) for name, store in zip(names, stores, strict=True)]
    several = Path(options.root) / "reports" / "+".join(names).replace("/", "-")
    usual = stores[0].folder / "report" if len(stores) == 1 else several
    if len(stores) == 1 and not options.out:
        stores[0].check_links("report")
    say(str(build(runs, options.out or usual, options.images, options.limit, how, say, author=options.author)))
    return 0


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
    files = _files(report)
    data = scripts(report, {picture.sha256 for picture in there}, refused, [*files, "CITATION.cff"])
    files["CITATION.cff"] = _citation(report, data["report"], author).encode()
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


# Images


@dataclass(frozen=True)
class Decoding:
    """How stored bitstreams become pixels; given by the caller, since results know no codecs."""

    decode: Callable[[Store, Row], Image] | None = None
    """None: only what the run kept is shown."""
    prepare: Callable[[], None] | None = None
    """Called once in each process, before anything is decoded."""


@dataclass(frozen=True)
class Picture:
    """One image to make: an original, or what became of it."""

    store: Store
    row: Row
    original: bool

    @property
    def sha256(self) -> str:
        """Of its pixels."""
        return self.row.pixel_sha256 if self.original else self.row.reconstruction_sha256

    def files(self, folder: Path) -> tuple[Path, Path]:
        """Where its thumbnail and the image itself lie."""
        name = name_of(self.sha256)
        image = folder / "images" / name[:2] / f"{name}.{ending(self.row)}"
        return folder / "thumbs" / name[:2] / f"{name}.jpg", image

    def pixels(self, how: Decoding) -> Image:
        """Its pixels, of which the hash is right; raises `RdpbenchError` else."""
        if self.original:
            return original_of(self.store, self.row)
        if reconstruction_path(self.store, self.row).is_file():
            return reconstruction_of(self.store, self.row)
        if how.decode is None:
            raise StoreCorrupt("the run kept no reconstruction: keep=all keeps them")
        pixels = how.decode(self.store, self.row)
        if pixel_sha256(pixels) != self.sha256:
            raise StoreCorrupt(f"bitstream {self.row.bitstream_sha256[:12]} decodes to other pixels here")
        return pixels


def make(pictures: Sequence[Picture], folder: Path, how: Decoding, workers: int | None = None) -> dict[str, str]:
    """Make what is not there yet; returns why an image could not be made, by its pixels' hash.

    Raises:
        StoreUnwritable: the folder cannot be written.
        WorkerError: a process died.
    """
    todo = [picture for picture in pictures if not picture.files(folder)[1].is_file()]
    count = workers if workers is not None else cores()
    if len(todo) <= INLINE or count < 2:
        if how.prepare and any(not picture.original for picture in todo):
            how.prepare()
        return dict(filter(None, (_make(picture, folder, how) for picture in todo)))
    try:
        with ProcessPoolExecutor(count, get_context("forkserver"), initializer=how.prepare) as pool:
            refused = pool.map(_make, todo, itertools.repeat(folder), itertools.repeat(how), chunksize=8)
            return dict(filter(None, refused))
    except BrokenProcessPool as error:
        raise WorkerError(
            f"a process that makes the report's images died: {error}. --images none leaves them out"
        ) from None


def _make(picture: Picture, folder: Path, how: Decoding) -> tuple[str, str] | None:
    """Make one image and its thumbnail; returns its hash and the reason if that cannot be done."""
    try:
        pixels = picture.pixels(how)
    except StoreUnwritable:
        raise
    except Exception as error:  # a codec may fail in any way; the report tells of it
        return picture.sha256, str(error) if isinstance(error, RdpbenchError) else f"{type(error).__name__}: {error}"
    image = pil.fromarray(pixels)
    thumb = image.reduce(max(1, max(image.size) // THUMB))
    thumb_file, file = picture.files(folder)
    with written_whole(thumb_file) as beside:
        thumb.save(beside, format="JPEG", quality=80)
    with written_whole(file) as beside:  # the image last, since it stands for both
        if file.suffix == ".webp":
            image.save(beside, format="WEBP", lossless=True, method=0, quality=0)
        else:
            image.save(beside, format="PNG", compress_level=1)
    return None


def _chosen(report: Report, where: Where, which: Which) -> Iterator[ReportedPoint]:
    """The points of a set whose images are made."""
    points = report.panels[where]
    if which == "all":
        yield from points
    if which != "matched":
        return
    rates = thin(common_rates(report.frame[(report.frame[PLACE] == list(where)).all(axis=1)]), RATES)
    for curve in curves_of(point for point in points if point.bpp > 0).values():
        near = [min(curve, key=lambda point: abs(math.log(point.bpp / rate))) for rate in rates]
        yield from {point.id: point for point in near or thin(curve, RATES)}.values()


def wanted(report: Report, which: Which, limit: int) -> Iterator[Picture]:
    """Every image to make, once: originals first, then reconstructions codec by codec; of each set the first images."""
    seen: set[str] = set()
    rows: list[tuple[Store, Row]] = []
    for where in report.panels:
        chosen = list(_chosen(report, where, which))
        images = used((point.point.rows for point in chosen), "image")
        firsts = set(images[: limit or None])
        for point in chosen:
            shown = point.shown()
            shown_rows = shown.where(shown.codes("image").where(firsts.__contains__)).made()
            rows += ((point.run.store, row) for row in shown_rows)
    for picture in (Picture(*row, original) for original in (True, False) for row in rows):
        if picture.sha256 not in seen:
            seen.add(picture.sha256)
            yield picture


# Data and citation


def _files(report: Report) -> dict[str, bytes]:
    """Data by their paths in the folder; lines for each image only where these are not too many."""
    frames: dict[str, pd.DataFrame] = {
        "results": read.joined([read.points_of(run.name, run.current) for run in report.runs])
    }
    if sum(len(point.point.rows) for point in report.points) * len(report.metrics) <= MOST_LINES:
        of_images = [read.images_of(run.name, run.current) for run in report.runs]
        frames["images"] = read.joined(of_images, "image")
    written: dict[str, bytes] = {}
    with TemporaryDirectory() as folder:
        for name, frame in frames.items():
            texts = [str(column) for column, kind in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
            shown = frame.assign(**{column: cards.published(frame[column].tolist()) for column in texts})
            paths = Path(folder, f"{name}.csv"), Path(folder, f"{name}.parquet")
            tables.to_csv(shown, paths[0])
            parquet.write_table(pa.Table.from_pandas(shown, preserve_index=False), paths[1])
            written |= {f"data/{path.name}": path.read_bytes() for path in paths}
    written["data/columns.md"] = read.COLUMNS.read_bytes()
    return written


def _citation(report: Report, main: Mapping[str, Any], author: str) -> str:
    """The runs as a Citation File (1.2.0): what was run, by which version, when, with which commands, on what.

    ``main`` is what the page is told (`rdpbench.report.data.scripts`), with the facts of each set and codec.
    """
    import yaml

    sessions = [(run.name, record) for run in report.runs for record in run.sessions.values()]
    times = sorted(str(record["time"])[:10] for _, record in sessions if record.get("time"))
    commands = dict.fromkeys(f"{run}: {record['command']}" for run, record in sessions if record.get("command"))
    names = ", ".join(run.name for run in report.runs)
    ours = {"type": "software", "title": "rdpbench", "authors": [{"name": "The rdpbench authors"}]}
    versions = sorted({cards.version_of(record) for _, record in sessions})
    used = [ours | {"version": version, "license": "Apache-2.0"} for version in versions]
    used += [_reference("data", {"title": place["dataset"], **dict(place["facts"])}) for place in main["sets"]]
    used += [_reference("generic", {"title": codec, **dict(facts)}) for codec, facts in main["codecs"].items()]
    stated = {
        "cff-version": "1.2.0",
        "message": "If you use these numbers, please cite them, and what they were measured with.",
        "type": "dataset",
        "title": f"Image compression benchmark by rdpbench: {names}",
        "authors": [{"name": author or "The authors of this report"}],
        **({"date-released": times[-1]} if times else {}),
        "abstract": "\n".join(["Commands, behind the name of their run:", *commands]),
        "references": [reference for n, reference in enumerate(used) if reference not in used[:n]],
    }
    head = "" if author else "# rdpbench report author='Your Name' puts a name here.\n"
    return head + yaml.safe_dump(cards.published(stated), sort_keys=False, allow_unicode=True, width=100)


def _reference(kind: str, facts: Mapping[str, str]) -> dict[str, Any]:
    link = facts.get("paper") or facts.get("page") or ""
    told = {name: facts[name] for name in ("licence", "versions", "weights", "protocol", "files") if name in facts}
    if link and not link.startswith("http"):
        told["standard"] = link
    return {
        "type": kind,
        "title": facts["title"],
        "authors": [{"name": f"The authors of {facts['title']}"}],
        **({"url": link} if link.startswith("http") else {}),
        **({"notes": "; ".join(f"{name}: {text}" for name, text in told.items())} if told else {}),
    }


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

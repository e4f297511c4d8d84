"""What the page reads: small scripts that hand over data, since a page from a file may not fetch any.

``data/report.js`` has all points, tables and provenance, which the first view needs. Each set's images and each curve's
rows are files of their own, read when they are looked at. Numbers keep seven digits; what is not there is null, and
infinity the word ``inf``.

The command that makes one point again: what was typed, narrowed to the point's codec and setting.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rdpbench.codecs.contract import OWN_WEIGHTS
from rdpbench.errors import ConfigError, MissingNeed
from rdpbench.paths import write_file
from rdpbench.report.model import Shown, Source
from rdpbench.report.pictures import ending, name_of
from rdpbench.results import tables
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Where, titles
from rdpbench.results.store.schema import Row
from rdpbench.results.tables import Table, times
from rdpbench.setting import Setting

if TYPE_CHECKING:
    from rdpbench.report.pictures import Picture

NARROWED = ("codec", "rate", "bpp", "points", "search", "experiment")
"""Settings that say which points; those of one point take their place."""


def sessions(folder: Path) -> list[dict[str, Any]]:
    """The provenance of each call that coded or scored, in order; what cannot be read says so."""
    return [_session(path) for path in sorted((folder / "sessions").glob("*.json"))]


def _session(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"session": path.stem, "provenance": f"cannot be read: {error}"}
    return {"session": path.stem, **record} if isinstance(record, dict) else {"session": path.stem}


def command_of(rows: Sequence[Row], records: Mapping[str, Mapping[str, Any]]) -> str:
    """The command for the rows of one point, from the last call that coded one of them; empty if that is not known.

    The command codes nothing that is stored already, so in the run's own place it finds nothing to do.
    """
    for row in sorted(rows, key=lambda row: row.session, reverse=True):
        typed = records.get(row.session, {}).get("command")
        if isinstance(typed, str):
            words = _split(typed)
            return shlex.join([*words[:2], *narrowed(words[2:], row)]) if words[:2] == ["rdpbench", "run"] else ""
    return ""


def _split(typed: str) -> list[str]:
    try:
        return shlex.split(typed)
    except ValueError:
        return []


def narrowed(words: Sequence[str], row: Row) -> list[str]:
    """Settings as they were typed, with the row's codec and rate in the place of those that were swept.

    A curve's label ends in what was changed of its codec, such as ``jpeg[chroma=4:4:4]``.
    """
    base, *groups = re.split(r"\[(.*?)\](?=\[|$)", row.codec)
    kept = [word for word in words if not _is_swept(word)]
    if row.target_bpp is None:  # of a search over the dataset, whose settings are native ones
        kept = [word for word in kept if not word.startswith("tolerance=")]
    own = [f"codec={base}"]
    if ":" in row.use:
        own = [f"codec={row.use}"]
    for option in (part for group in groups if group for part in re.split(r",(?=\w+=)", group)):
        key = option.partition("=")[0]
        if f"codec.options.{key}" in OWN_WEIGHTS:  # the label has the name of a file, and what is in it
            option = f"{key}={json.loads(row.options)[key]}"  # noqa: PLW2901
        typed = next((number for number, word in enumerate(kept) if word.startswith(f"{key}=")), None)
        if key in ("captions", "weights") and typed is not None:
            kept[typed] = option
        else:
            own.append(f"codec.options.{option}")
    if row.target_bpp is not None:
        own.append(f"bpp={_number(row.target_bpp)}")
    elif row.rate is not None:
        own.append(f"rate={_number(row.rate)}")
    return own + kept


def _is_swept(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return key in NARROWED or key.startswith("codec.options.")


def _number(value: float) -> str:
    """As it is typed.

    >>> _number(50.0), _number(0.25), float(_number(0.1 + 0.2))
    ('50', '0.25', 0.30000000000000004)
    """
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


Files: TypeAlias = dict[str, Any]
"""What each script hands over, by its name without ending."""

MOST = 200
"""Failed tasks that are listed; rows.csv has all."""
FIRST = ("psnr", "psnr-pooled", "ms-ssim")
"""Distortion first, as tables show it."""


def files(sources: Sequence[Source], pictures: Set[str], refused: Mapping[str, str]) -> Files:
    """All data of a report; ``pictures`` are hashes of the images in the folder, ``refused`` of those that are not."""
    out: Files = {}
    sets: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    told: list[dict[str, Any]] = []
    for source in sources:
        records = sessions(source.store.folder)
        by_name = {str(record["session"]): record for record in records}
        for place in dict.fromkeys(point.place for point in source.points):
            images = _images(source, place, pictures, refused)
            out[f"images-{len(sets)}"] = images
            index = {one["name"]: number for number, one in enumerate(images)}
            of = [point for point in source.points if point.place == place]
            for codec in dict.fromkeys(point.codec for point in of):
                mine = [point for point in of if point.codec == codec]
                out[f"rows-{len(curves)}"] = _rows(mine, index, source, pictures, refused)
                for point in mine:
                    command = command_of(point.rows, by_name)
                    points.append({"curve": len(curves), **_point(point, command, pictures)})
                random = any("random" in row.weights for point in mine for row in point.rows)
                curves.append({"set": len(sets), "codec": codec, "random": random})
            names = {"run": place[0], "dataset": place[1].dataset, "protocol": place[1].protocol}
            sets.append(names | {"images": len(images)})
        told.append(_run(source, records))
    metrics = sorted({name for source in sources for name in source.metrics}, key=order)
    title = ", ".join(source.name for source in sources)
    main = {"title": title, "metrics": [_metric(name) for name in metrics], "sets": sets, "curves": curves}
    return {"report": main | {"points": points, "runs": told}, **out}


def script(name: str, value: Any) -> str:
    """The text of a data file: ASCII, and without a letter that could end a script.

    >>> text = script("a", {"b": "</script>\u00e9"})
    >>> text.isascii(), text.count("<")
    (True, 0)
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f'rdpbench.put("{name}",{text});\n'.replace("<", "\\u003c")


def order(name: str) -> tuple[int, str]:
    """What metrics are sorted by.

    >>> sorted(["lpips/alex", "ms-ssim", "fid/clean", "psnr"], key=order)[:2]
    ['psnr', 'ms-ssim']
    """
    return FIRST.index(name) if name in FIRST else len(FIRST), name


def number(value: float | None) -> float | str | None:
    """As JSON has it.

    >>> number(1 / 3), number(float("inf")), number(float("nan"))
    (0.3333333, 'inf', None)
    """
    if value is None or math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.7g}")


def _metric(name: str) -> dict[str, Any]:
    of = meaning(name)
    digits = tables.DIGITS.get(of.unit, 4)
    return {
        "name": name,
        "unit": of.unit,
        "higher": of.higher_is_better,
        "digits": digits,
        "set": of.kind == "set",
    }


def _point(point: Shown, command: str, pictures: Set[str]) -> dict[str, Any]:
    first = point.lines[0]
    shown = point.shown()
    seen = [row for row in shown if row.reconstruction_sha256 in pictures and row.pixel_sha256 in pictures]
    values = {
        str(line["metric"]): [
            *(number(line[name]) for name in ("value", "value_lo", "value_hi")),
            *(int(line["n_scored"]), int(line["infinite"]), int(line["reliable"])),
            *(number(line["bpp"]), str(line["doubtful"])),
        ]
        for line in point.lines
        if line["metric"]
    }
    return {
        "id": point.id,
        "setting": point.point.setting.words,
        "rate": number(point.point.setting.rate),
        "n": len({row.image for row in point.point.good}),
        **{name: int(first[name]) for name in ("dataset_size", "failed", "out_of_range")},
        "weights": str(first["weights"]),
        "bpp": [number(first["bpp_all"]), *_ends(point)],
        "values": values,
        "parts": _mean_parts(shown),
        "seeds": len({row.seed for row in point.rows}),
        "verified": sum(row.verified == "fresh_process" for row in point.rows),
        "pictures": len(seen),
        "command": command,
    }


def _ends(point: Shown) -> list[float | str | None]:
    """The interval of the rate, where a line is over all images that were coded."""
    whole = next((line for line in point.lines if line["bpp"] == line["bpp_all"]), None)
    return [number(whole[name] if whole else None) for name in ("bpp_lo", "bpp_hi")]


def _mean_parts(rows: Sequence[Row]) -> dict[str, float]:
    sums: dict[str, int] = {}
    for row in rows:
        for name, size in json.loads(row.parts).items():
            sums[name] = sums.get(name, 0) + size
    return {name: round(size / len(rows), 1) for name, size in sums.items()}


def _images(
    source: Source, place: tuple[str, Where], pictures: Set[str], refused: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Originals by name, as the lines of a set refer to them."""
    found: dict[str, Row] = {}
    for row in source.rows:
        here = (row.dataset, row.manifest, row.protocol) == place[1] and row.status == "ok"
        # Codecs that take no caption store none.
        if here and (row.image not in found or (row.caption and not found[row.image].caption)):
            found[row.image] = row
    return [
        {
            "name": name,
            "w": row.width,
            "h": row.height,
            "tags": row.tags,
            "caption": row.caption,
            "kind": ending(row),
            **_picture(row.pixel_sha256, pictures, refused),
        }
        for name, row in sorted(found.items())
    ]


def _picture(sha256: str, pictures: Set[str], refused: Mapping[str, str]) -> dict[str, str]:
    if sha256 in refused:
        return {"why": refused[sha256]}
    return {"picture": name_of(sha256)} if sha256 in pictures else {}


def _rows(
    points: Sequence[Shown],
    index: Mapping[str, int],
    source: Source,
    pictures: Set[str],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """A curve's good rows, column by column: a page of many thousands stays small."""
    rows = [(number, row) for number, point in enumerate(points) for row in point.rows if row.status == "ok"]
    rows.sort(key=lambda one: (one[0], index[one[1].image], one[1].seed))
    parts = [json.loads(row.parts) for _, row in rows]
    names = dict.fromkeys(name for one in parts for name in one)
    here = [_picture(row.reconstruction_sha256, pictures, refused) for _, row in rows]
    pairs = [name for name in source.metrics if meaning(name).kind != "set"]
    scores = {name: [number(source.current.value(row, name)) for _, row in rows] for name in pairs}
    told = [_told(row) for _, row in rows]
    return {
        "point": [number for number, _ in rows],
        "image": [index[row.image] for _, row in rows],
        "seed": [row.seed for _, row in rows],
        "bytes": [row.bytes for _, row in rows],
        "bpp": [number(row.bpp) for _, row in rows],
        "rate": [number(row.rate) for _, row in rows],
        "picture": [one.get("picture", "") for one in here],
        "why": {number: one["why"] for number, one in enumerate(here) if "why" in one},
        "parts": {name: [one.get(name, 0) for one in parts] for name in names},
        "info": {
            name: [one.get(name, "") for one in told] for name in dict.fromkeys(name for one in told for name in one)
        },
        "scores": {name: column for name, column in scores.items() if any(one is not None for one in column)},
    }


def _told(row: Row) -> dict[str, str]:
    """What the codec told of an image, and the command of a program."""
    told = {str(name): _text(text) for name, text in json.loads(row.info).items()}
    return {**told, **({"command": row.command} if row.command else {})}


def _run(source: Source, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is told of a run: counts, tables at equal rates, times, what failed, where it comes from."""
    shown: list[Table] = []
    for where, name in titles(source.current.places).items():
        shown += tables.at_equal_rates(source.current.at(where), source.metrics, name)
    timed = times(source.rows, source.contents)
    shown += [timed] if timed else []
    failed, more = _failures(source)
    return {
        "name": source.name,
        "counts": _counts(source.rows),
        "notes": list(source.current.notes),
        "tables": [_table(one) for one in shown],
        "failures": failed,
        "more": more,
        "sessions": [[[key, _text(value)] for key, value in record.items()] for record in records],
    }


def _counts(rows: Sequence[Row]) -> str:
    good = [row for row in rows if row.status == "ok"]
    again = sum(row.verified == "fresh_process" for row in good)
    curves, images = ({(row.dataset, getattr(row, what)) for row in rows} for what in ("codec", "image"))
    return (
        f"{len(curves)} curves, {len(images)} images, {len(good)} bitstreams: each was decoded by a second object "
        f"from its bytes alone, {again} of them once more in a fresh process. "
        f"Failed or out of range: {len(rows) - len(good)}."
    )


def _table(table: Table) -> dict[str, Any]:
    lines = [[[cell.text, cell.rank] for cell in line] for line in table.lines]
    return {"caption": table.caption, "header": table.header, "lines": lines, "notes": table.notes}


def _failures(source: Source) -> tuple[list[list[str]], int]:
    by_key = {row.task_key: row for row in source.rows}
    lines = [[row.codec, Setting.of(row).words, row.image, row.status, row.error] for row in _failed(source.rows)]
    for row in by_key.values():
        for metric, score in source.current.scores_of(row).items():
            if score.value is None:
                lines.append([row.codec, Setting.of(row).words, row.image, metric, score.error])
    return lines[:MOST], max(0, len(lines) - MOST)


def _failed(rows: Iterable[Row]) -> Iterable[Row]:
    return (row for row in rows if row.status != "ok")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)


STATIC = Path(__file__).with_name("static")


MARK = '<meta name="generator" content="rdpbench report">'
"""In the page: a folder with another index.html is not ours to write into."""


def check(folder: Path) -> None:
    """Is this a place for a report?

    Raises:
        ConfigError: there is something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file; name a folder")
    if links := [name for name in ("images", "thumbs", "data", "static") if (folder / name).is_symlink()]:
        raise ConfigError(f"{folder / links[0]} is a link, and nothing is written through it; put a folder there")
    page = folder / "index.html"
    ours = page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")
    if not ours and any(one.name not in ("images", "thumbs", "data", "static") for one in folder.iterdir()):
        raise ConfigError(f"--out {folder} holds something else than a report; name a new folder")


def library() -> Path:
    """The plotting library, as its Python package brings it.

    Raises:
        MissingNeed: the package is not installed.
    """
    found = importlib.util.find_spec("plotly")
    path = Path(found.origin).with_name("package_data") / "plotly.min.js" if found and found.origin else None
    if path is None or not path.is_file():
        raise MissingNeed(
            "the report's curves need plotly.js (MIT), which the Python package plotly brings. "
            "Type: pip install 'rdpbench[report]'"
        )
    return path


def write(folder: Path, data: Mapping[str, Any]) -> Path:
    """Write everything but the images; the page comes last. Returns its path.

    Raises:
        StoreUnwritable: the folder cannot be written.
        MissingNeed: no plotting library.
    """
    plotly = library()
    scripts = {f"{name}.js": script(name, value).encode() for name, value in data.items()}
    static = {path.name: path.read_bytes() for path in sorted(STATIC.iterdir()) if path.suffix in (".js", ".css")}
    static["plotly.min.js"] = plotly.read_bytes()
    for name, files in (("data", scripts), ("static", static)):
        for file, content in files.items():
            _put(folder / name / file, content)
        for path in (folder / name).iterdir():
            if path.name not in files:
                path.unlink()
    page = folder / "index.html"
    _put(page, (STATIC / page.name).read_bytes())
    return page


def tidy(folder: Path, pictures: Iterable[Picture], refused: Set[str]) -> int:
    """Remove images that the page no longer refers to; returns how many.

    Only files named as images of a report are touched.
    """
    there = [one for one in pictures if one.sha256 not in refused]
    names = {f"{name_of(one.sha256)}.{ending(one.row)}" for one in there}
    names |= {f"{name_of(one.sha256)}.jpg" for one in there}
    removed = 0
    for path in (path for name in ("images", "thumbs") for path in (folder / name).glob("*/*")):
        if path.name not in names and re.fullmatch(r"[0-9a-f]{20}\.(webp|png|jpg|\d+\.tmp)", path.name):
            path.unlink()
            removed += path.suffix != ".jpg"
    return removed


def _put(path: Path, content: bytes) -> None:
    """Write a file whole; one that is the same already stays as it is."""
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)

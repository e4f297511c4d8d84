"""The data of a report, written as small scripts: a page that opens from a file may not fetch anything.

``data/report.js`` has all points, tables and provenance, which the first view needs. Each set's images and each curve's
rows are files of their own, read when they are looked at. Numbers keep seven digits; a missing one is null, and
infinity is the word ``inf``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rdpbench.codecs.contract import OWN_WEIGHTS
from rdpbench.codecs.external.declared import typed_as
from rdpbench.lazy import pd
from rdpbench.registry import parse
from rdpbench.report.pictures import Picture, ending, name_of
from rdpbench.results import tables
from rdpbench.results.names import Names, signs
from rdpbench.results.stats.current import PROVEN, of_store
from rdpbench.results.stats.meanings import meaning, metric_order
from rdpbench.results.stats.points import Point, Points, Where, grouped, titles
from rdpbench.results.stats.summary import PLACE, common_rates, side_by_side
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.setting import Setting, split_label, thin

Which: TypeAlias = Literal["none", "matched", "all"]
RATES = 4
"""Of ``matched``: so many rates that codecs share, and of each codec its points next to these."""
MOST = 200
"""Failed tasks that are listed; rows.csv has all."""
NARROWED = ("codec", "rate", "bpp", "points", "search", "experiment")
"""Settings that say which points; those of one point take their place."""


NAMES = Names()

# Runs as the page shows them


@dataclass(frozen=True)
class ReportedPoint:
    """One point of a curve: its lines, one for each metric, and its rows."""

    id: str
    point: Point
    lines: tuple[Mapping[str, Any], ...]
    """Over the images that are compared; of a point that is not, over its own, and ``compared`` says so."""

    @property
    def bpp(self) -> float:
        """Mean rate of all images that were coded; NaN if nothing was."""
        return float(self.lines[0]["bpp_all"])

    def shown(self) -> list[Row]:
        """Good rows, the first seed of each image, by image."""
        first: dict[str, Row] = {}
        for row in sorted(self.point.good, key=lambda row: (row.image, row.seed)):
            first.setdefault(row.image, row)
        return list(first.values())


@dataclass(frozen=True)
class ReportedRun:
    """One run, read."""

    name: str
    store: Store
    contents: Contents
    current: Points
    frame: pd.DataFrame
    metrics: tuple[str, ...]
    points: tuple[ReportedPoint, ...]


def read_run(name: str, store: Store, contents: Contents, grades: Sequence[str] = PROVEN) -> ReportedRun:
    """A run with its points, in the order of the summary."""
    current = of_store(contents, grades=grades)
    metrics = sorted(current.metrics, key=metric_order)
    frame = side_by_side(current, metrics)

    def key(line: Mapping[str, Any]) -> tuple[Where, str, Setting]:
        where = Where(line["dataset"], line["manifest"], line["protocol"])
        return where, line["codec"], Setting.of_line(line)

    lines = grouped(({str(k): v for k, v in line.items()} for line in frame.to_dict("records")), key)
    known = {(point.where, point.codec, point.setting): point for point in current.points}
    points = [ReportedPoint(point_id(name, known[place]), known[place], tuple(own)) for place, own in lines.items()]
    return ReportedRun(name, store, contents, current, frame, tuple(metrics), tuple(points))


def point_id(run: str, point: Point) -> str:
    """The same in every report of the run, so that a link stays good.

    >>> where = Where("kodak", "12", "as-is")
    >>> len(point_id("kodak", Point(where, "jpeg", Setting("quality", 50.0), ())))
    10
    """
    place, setting = point.where, point.setting
    key = place.dataset, place.protocol, point.codec, setting.field, setting.target, setting.rate
    more = [place.manifest[:8]] if place.manifest else []
    return hashlib.sha256("\n".join([run, *map(repr, key), *more]).encode()).hexdigest()[:10]


def _panels(run: ReportedRun) -> dict[Where, list[ReportedPoint]]:
    return grouped(run.points, lambda point: point.point.where)


def _curves(points: Iterable[ReportedPoint]) -> dict[str, list[ReportedPoint]]:
    return grouped(points, lambda point: point.point.codec)


def _chosen(run: ReportedRun, which: Which) -> Iterator[ReportedPoint]:
    """The points whose images are made."""
    if which == "all":
        yield from run.points
    if which != "matched":
        return
    for where, points in _panels(run).items():
        rates = thin(common_rates(run.frame[(run.frame[PLACE] == list(where)).all(axis=1)]), RATES)
        for curve in _curves(point for point in points if point.bpp > 0).values():
            near = [min(curve, key=lambda point: abs(math.log(point.bpp / rate))) for rate in rates]
            yield from {point.id: point for point in near or thin(curve, RATES)}.values()


def wanted(runs: Iterable[ReportedRun], which: Which, limit: int) -> Iterator[Picture]:
    """Every image to make, once: originals first, then reconstructions codec by codec; of each set the first images."""
    seen: set[str] = set()
    for run in runs:
        of_set = grouped(run.current.rows, Where.of)
        images = {where: sorted({row.image for row in rows}) for where, rows in of_set.items()}
        firsts = {where: set(names[: limit or None]) for where, names in images.items()}
        rows = [row for point in _chosen(run, which) for row in point.shown() if row.image in firsts[Where.of(row)]]
        for picture in (Picture(run.store, row, original) for original in (True, False) for row in rows):
            if picture.sha256 not in seen:
                seen.add(picture.sha256)
                yield picture


# The command that makes one point again


def command_of(rows: Sequence[Row], sessions: Mapping[str, Mapping[str, Any]]) -> str:
    """The command for the rows of one point, from the last call that coded one of them; empty if that is not known.

    The command codes nothing that is stored already, so in the run's own place it finds nothing to do.
    """
    for row in sorted(rows, key=lambda row: row.session, reverse=True):
        typed = sessions.get(row.session, {}).get("command")
        if isinstance(typed, str):
            with contextlib.suppress(ValueError):
                words = shlex.split(typed)
                if words[:2] == ["rdpbench", "run"]:
                    return shlex.join([*words[:2], *narrowed(words[2:], row)])
            return ""
    return ""


def narrowed(words: Sequence[str], row: Row) -> list[str]:
    """Settings as they were typed, with the row's codec and rate in the place of those that were swept.

    A curve's label ends in what was changed of its codec, such as ``jpeg[chroma=4:4:4]``.
    """
    base, options = split_label(row.codec)
    kept = [word for word in words if not _is_swept(word)]
    if row.target_bpp is None:  # of a search over the dataset, whose settings are native ones
        kept = [word for word in kept if not word.startswith("tolerance=")]
    own = [f"codec={row.use if ':' in row.use else base}"]
    if apart := parse(row.use).apart:
        own = typed_as(row.use)
        kept = [word for word in kept if not word.startswith("python=")]
    for option in options:
        key = option.partition("=")[0]
        if f"codec.options.{key}" in OWN_WEIGHTS or (apart and os.path.isabs(str(json.loads(row.options).get(key)))):  # noqa: PTH117  # the label has the name of a file, and what is in it
            option = f"{key}={json.loads(row.options)[key]}"  # noqa: PLW2901
        typed = next((number for number, word in enumerate(kept) if word.startswith(f"{key}=")), None)
        if key in ("captions", "weights") and typed is not None:
            kept[typed] = option
        else:
            own.append(f"codec.options.{option}")
    if row.target_bpp is not None:
        own.append(f"bpp={row.target_bpp}".removesuffix(".0"))
    elif row.rate is not None:
        own.append(f"rate={row.rate}".removesuffix(".0"))
    return own + kept


def _is_swept(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return key in NARROWED or key.startswith("codec.options.")


# The scripts


def scripts(runs: Sequence[ReportedRun], pictures: Set[str], refused: Mapping[str, str]) -> dict[str, Any]:
    """What each script hands over, by its name without ending.

    Args:
        runs: what is shown.
        pictures: hashes of the images in the folder.
        refused: why others are not there, by their hash.
    """
    files: dict[str, Any] = {}
    sets: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for run in runs:
        sessions = run.store.provenance()
        for where, panel in _panels(run).items():
            images = _images(run, where, pictures, refused)
            files[f"images-{len(sets)}"] = images
            places = {image["name"]: number for number, image in enumerate(images)}
            for codec, curve in _curves(panel).items():
                files[f"rows-{len(curves)}"] = _rows(curve, places, run, pictures, refused)
                points += [{"curve": len(curves), **_point(point, sessions, pictures)} for point in curve]
                random = any(point.point.random for point in curve)
                curves.append({"set": len(sets), "codec": codec, "title": NAMES.codec(codec), "random": random})
            size = max(row.dataset_size for row in run.current.at(where).rows)
            named = {"run": run.name, "dataset": where.dataset, "protocol": where.protocol}
            sets.append({**named, "title": NAMES.dataset(where.dataset), "images": len(images), "size": size})
    metrics = sorted({name for run in runs for name in run.metrics}, key=metric_order)
    title = ", ".join(run.name for run in runs)
    looks = signs(curve["codec"] for curve in curves)
    curves = [curve | {"look": looks[curve["codec"]]} for curve in curves]
    main = {"title": title, "metrics": [_metric(name) for name in metrics], "sets": sets, "curves": curves}
    return {"report": main | {"points": points, "runs": [_run(run) for run in runs]}, **files}


def script(name: str, value: Any) -> str:
    """The text of a data file: ASCII, and without a letter that could end a script.

    >>> text = script("a", {"b": "</script>\u00e9"})
    >>> text.isascii(), text.count("<")
    (True, 0)
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f'rdpbench.put("{name}",{text});\n'.replace("<", "\\u003c")


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
    metric = meaning(name)
    digits = tables.DIGITS.get(metric.unit, 4)
    kind = {"digits": digits, "set": metric.kind == "set"}
    return {"name": name, "title": NAMES.metric(name), "unit": metric.unit, "higher": metric.higher_is_better, **kind}


def _point(point: ReportedPoint, sessions: Mapping[str, Mapping[str, Any]], pictures: Set[str]) -> dict[str, Any]:
    first, rows = point.lines[0], point.point.rows
    shown = point.shown()
    values = {
        str(line["metric"]): [
            *(number(line[name]) for name in ("value", "value_lo", "value_hi")),
            *(int(line["n_scored"]), int(line["infinite"]), int(line["reliable"])),
            *(number(line["bpp"]), str(line["doubtful"])),
        ]
        for line in point.lines
        if line["metric"]
    }
    parts: dict[str, int] = {}
    for row in shown:
        for name, size in json.loads(row.parts).items():
            parts[name] = parts.get(name, 0) + size
    # The interval of the rate, where a line is over all images that were coded.
    whole = next((line for line in point.lines if line["bpp"] == line["bpp_all"]), None)
    return {
        "id": point.id,
        "setting": point.point.setting.words,
        "rate": number(point.point.setting.rate),
        "n": len({row.image for row in point.point.good}),
        **{name: int(first[name]) for name in ("dataset_size", "failed", "out_of_range")},
        "weights": str(first["weights"]),
        "bpp": [number(first["bpp_all"]), *(number(whole[name] if whole else None) for name in ("bpp_lo", "bpp_hi"))],
        "values": values,
        "parts": {name: round(size / len(shown), 1) for name, size in parts.items()},
        "seeds": len({row.seed for row in rows}),
        "verified": sum(row.verified == "fresh_process" for row in rows),
        "pictures": sum(row.reconstruction_sha256 in pictures and row.pixel_sha256 in pictures for row in shown),
        "command": command_of(rows, sessions),
    }


def _images(run: ReportedRun, where: Where, pictures: Set[str], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Originals by name, as the lines of a set refer to them."""
    rows: dict[str, Row] = {}
    for row in run.current.rows:
        # Codecs that take no caption store none.
        better = row.image not in rows or (row.caption and not rows[row.image].caption)
        if better and Where.of(row) == where and row.status == "ok":
            rows[row.image] = row
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
        for name, row in sorted(rows.items())
    ]


def _picture(sha256: str, pictures: Set[str], refused: Mapping[str, str]) -> dict[str, str]:
    if sha256 in refused:
        return {"why": refused[sha256]}
    return {"picture": name_of(sha256)} if sha256 in pictures else {}


def _rows(
    curve: Sequence[ReportedPoint],
    places: Mapping[str, int],
    run: ReportedRun,
    pictures: Set[str],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """A curve's good rows, column by column: a page of many thousands stays small."""
    numbered = [(number, row) for number, point in enumerate(curve) for row in point.point.good]
    numbered.sort(key=lambda pair: (pair[0], places[pair[1].image], pair[1].seed))
    rows = [row for _, row in numbered]
    parts = [json.loads(row.parts) for row in rows]
    infos = [_info(row) for row in rows]
    shown = [_picture(row.reconstruction_sha256, pictures, refused) for row in rows]
    pairs = [name for name in run.metrics if meaning(name).kind != "set"]
    scores = {name: [number(run.current.value(row, name)) for row in rows] for name in pairs}
    return {
        "point": [number for number, _ in numbered],
        "image": [places[row.image] for row in rows],
        "seed": [row.seed for row in rows],
        "bytes": [row.bytes for row in rows],
        "bpp": [number(row.bpp) for row in rows],
        "rate": [number(row.rate) for row in rows],
        "picture": [picture.get("picture", "") for picture in shown],
        "why": {number: picture["why"] for number, picture in enumerate(shown) if "why" in picture},
        "parts": _columns(parts, 0),
        "info": _columns(infos, ""),
        "scores": {name: column for name, column in scores.items() if any(value is not None for value in column)},
    }


def _columns(records: Sequence[Mapping[str, Any]], absent: Any) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name, absent) for record in records] for name in names}


def _info(row: Row) -> dict[str, str]:
    """What the codec said of an image, and the command of a program."""
    info = {str(name): _text(text) for name, text in json.loads(row.info).items()}
    return {**info, **({"command": row.command} if row.command else {})}


def _run(run: ReportedRun) -> dict[str, Any]:
    """A run's counts, tables at equal rates, times, what failed, and where it comes from."""
    rows = run.current.rows
    shown: list[tables.Table] = []
    for where, name in titles(run.current.places).items():
        shown += tables.at_equal_rates(run.current.at(where), run.metrics, name)
    shown += filter(None, [tables.times(run.current, run.contents), tables.crossings(run.store.folder)])
    good = [row for row in rows if row.status == "ok"]
    faults: list[tuple[Row, str, str]] = [(row, row.status, row.error) for row in rows if row.status != "ok"]
    for row in {row.task_key: row for row in rows}.values():
        scores = run.current.scores_of(row).items()
        faults += [(row, metric, score.error) for metric, score in scores if score.value is None]
    failures = [[row.codec, row.setting.words, row.image, what, error] for row, what, error in faults]
    again = sum(row.verified == "fresh_process" for row in good)
    curves, images = ({(row.dataset, getattr(row, what)) for row in rows} for what in ("codec", "image"))
    size = sum(max(row.dataset_size for row in run.current.at(where).rows) for where in run.current.places)
    few = f"{len(images)} of {size}" if len(images) < size and len(run.current.places) == 1 else f"{len(images)}"
    return {
        "name": run.name,
        "counts": f"{len(curves)} curves, {few} images, {len(good)} bitstreams: each was decoded by a second "
        f"object from its bytes alone, {again} of them once more in a fresh process. "
        f"Failed or out of range: {len(rows) - len(good)}.",
        "notes": list(run.current.notes),
        "tables": [
            {
                "caption": table.caption,
                "header": table.header,
                "lines": [[[cell.text, cell.rank] for cell in line] for line in table.lines],
                "notes": table.notes,
            }
            for table in shown
        ],
        "failures": failures[:MOST],
        "more": max(0, len(failures) - MOST),
        "sessions": [
            [[key, _text(value)] for key, value in {"session": session, **record}.items()]
            for session, record in run.store.provenance().items()
        ],
    }


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)

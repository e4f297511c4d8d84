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
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rdpbench.codecs.contract import OWN_WEIGHTS
from rdpbench.codecs.external.declared import typed_as
from rdpbench.lazy import pd
from rdpbench.registry import parse
from rdpbench.report import cards
from rdpbench.results import tables
from rdpbench.results.names import Names, signs
from rdpbench.results.stats import against
from rdpbench.results.stats.current import PROVEN, SEARCHED, of_store
from rdpbench.results.stats.joined import Joined, joined, of_one_edition
from rdpbench.results.stats.meanings import meaning, metric_order
from rdpbench.results.stats.points import Point, Points, Where, grouped, titles
from rdpbench.results.stats.summary import side_by_side
from rdpbench.results.store.bitstreams import is_sha256
from rdpbench.results.store.columns import Codes
from rdpbench.results.store.contents import Contents
from rdpbench.results.store.records import Rows, used
from rdpbench.results.store.schema import Row
from rdpbench.results.store.store import Store
from rdpbench.setting import Setting, split_label, split_list

LARGEST = 16383
"""Longest side that WebP holds; larger images are PNG."""
MOST = 200
"""Failed tasks that are listed; rows.csv has all."""
LISTED = 20_000
"""Rows that a page lists one by one, at most."""
NARROWED = ("codec", "rate", "bpp", "points", "search", "experiment")
"""Settings that say which points; those of one point take their place."""


NAMES = Names()

# Runs as the page shows them


@dataclass(frozen=True)
class ReportedRun:
    """One run, read."""

    name: str
    store: Store
    contents: Contents
    current: Points

    @cached_property
    def sessions(self) -> Mapping[str, Mapping[str, Any]]:
        """The provenance of each of its calls."""
        return self.store.provenance()


@dataclass(frozen=True)
class ReportedPoint:
    """One point of a curve: its lines, one for each metric, and its rows."""

    id: str
    run: ReportedRun
    codec: str
    """The curve's label in its run; in the report, the label of `point` may name the run."""
    point: Point
    lines: tuple[Mapping[str, Any], ...]
    """Over the images that are compared; of a point that is not, over its own, and ``compared`` says so."""
    listed: Rows
    """The good rows that the page has one by one: of a large run those of the first images."""

    @property
    def bpp(self) -> float:
        """Mean rate of all images that were coded; NaN if nothing was."""
        return float(self.lines[0]["bpp_all"])

    @cached_property
    def images(self) -> Codes:
        """The names of the images of ``listed``, numbered in their order."""
        return replace(self.point, rows=self.listed).images

    def shown(self) -> Rows:
        """Of the rows that are listed the first seed of each image, by image."""
        codes = self.images.codes
        order = np.lexsort((self.listed.numbers("seed"), codes))
        codes = codes[order]
        return self.listed.where(order[np.r_[True, codes[1:] != codes[:-1]]] if len(order) else order)


@dataclass(frozen=True)
class Report:
    """Runs beside one another."""

    runs: tuple[ReportedRun, ...]
    joined: Joined
    frame: pd.DataFrame
    metrics: tuple[str, ...]
    points: tuple[ReportedPoint, ...]
    notes: tuple[str, ...]

    @cached_property
    def panels(self) -> dict[Where, list[ReportedPoint]]:
        """The points of each set of images."""
        return grouped(self.points, lambda point: point.point.where)


def read_run(name: str, store: Store, contents: Contents, grades: Sequence[str] = PROVEN) -> ReportedRun:
    """A run with what is current of it."""
    return ReportedRun(name, store, contents, of_store(contents, grades=grades))


def read_report(runs: Sequence[ReportedRun]) -> Report:
    """The points of runs, in the order of the summary, compared with one another as those of one run."""
    one, notes = of_one_edition({run.name: run.current for run in runs})
    runs = [replace(run, current=one[run.name]) for run in runs]
    current = joined(one)
    metrics = sorted(current.metrics, key=metric_order)
    frame = side_by_side(current, metrics)

    def key(line: Mapping[str, Any]) -> tuple[Where, str, Setting]:
        where = Where(line["dataset"], line["manifest"], line["protocol"])
        return where, line["codec"], Setting.of_line(line)

    lines = grouped(({str(k): v for k, v in line.items()} for line in frame.to_dict("records")), key)
    known = {(point.where, point.codec, point.setting): point for point in current.points}
    by_name = {run.name: run for run in runs}
    firsts, note = _firsts(current)
    points = []
    for place, own in lines.items():
        point = known[place]
        run, _, codec = current.origins[point]
        good = point.good
        listed = good.where(good.codes("image").where(firsts[point.where].__contains__)) if note else good
        id_ = point_id(run, replace(point, codec=codec))
        points.append(ReportedPoint(id_, by_name[run], codec, point, tuple(own), listed))
    return Report(tuple(runs), current, frame, tuple(metrics), tuple(points), (*notes, *note))


def _firsts(current: Points) -> tuple[dict[Where, set[str]], list[str]]:
    """The images of each place whose rows are listed one by one, and a note where these are not all."""
    rows = sum(len(point.rows) for point in current.points)
    if rows <= LISTED:
        return {}, []
    firsts = {}
    for where in current.places:
        images = used((point.good for point in current.at(where).points), "image")
        firsts[where] = set(images[: max(1, LISTED * len(images) // rows)])
    count = ", ".join(f"{len(images)} of {where.dataset}" for where, images in firsts.items())
    return firsts, [f"means are of all images; listed one by one, with bytes by part, are the first ones: {count}"]


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


def curves_of(points: Iterable[ReportedPoint]) -> dict[str, list[ReportedPoint]]:
    return grouped(points, lambda point: point.point.codec)


def name_of(sha256: str) -> str:
    """An image's name in the folder.

    >>> len(name_of("ab" * 32)), name_of("../../x") == name_of("../../x" + 57 * "0")
    (20, False)
    """
    # What a row says may be no hash.
    return (sha256 if is_sha256(sha256) else hashlib.sha256(repr(sha256).encode()).hexdigest())[:20]


def ending(row: Row) -> str:
    """Of the image's file.

    >>> from types import SimpleNamespace
    >>> ending(SimpleNamespace(height=512, width=20000))
    'png'
    """
    return "png" if max(row.height, row.width) > LARGEST else "webp"


# The command that makes one point again


def command_of(rows: Rows, sessions: Mapping[str, Mapping[str, Any]]) -> str:
    """The command for the rows of one point, from the last call that coded one of them; empty if that is not known.

    The command codes nothing that is stored already, so in the run's own place it finds nothing to do.
    """
    called = rows.codes("session")
    for session in reversed(called.used()):
        typed = sessions.get(session, {}).get("command")
        if isinstance(typed, str):
            with contextlib.suppress(ValueError):
                words = shlex.split(typed)
                if words[:2] == ["rdpbench", "run"]:
                    [first] = np.flatnonzero(called.where(session.__eq__))[:1]
                    return shlex.join([*words[:2], *narrowed(words[2:], _Coded.of(rows.where([first])))])
            return ""
    return ""


class _Coded(NamedTuple):
    """What of a row says how it was coded: its other columns need not be read."""

    codec: str
    use: str
    options: str
    rate: float | None
    target_bpp: float | None

    @classmethod
    def of(cls, rows: Rows) -> _Coded:
        """Of the first of some rows."""
        codec, use, options = (rows.codes(name).texts()[0] for name in ("codec", "use", "options"))
        numbers = (float(rows.numbers(name)[0]) for name in ("rate", "target_bpp"))
        rate, target = (None if math.isnan(value) else value for value in numbers)
        return cls(codec, use, options, rate, target)


def narrowed(words: Sequence[str], row: Row | _Coded) -> list[str]:
    """Settings as they were typed, with the row's codec and rate in the place of those that were swept.

    A curve's label ends in what was changed of its codec, such as ``jpeg[chroma=4:4:4]``.
    """
    base, options = split_label(row.codec)
    kept = [word for word in words if not _is_swept(word)]
    if row.target_bpp is None:  # of a search over the dataset, whose settings are native ones
        kept = [word for word in kept if not word.startswith("tolerance=")]
    own = typed_as(row.use) if parse(row.use).apart else [f"codec={row.use if ':' in row.use else base}"]
    kept = [word for word in kept if word.partition("=")[0] not in {typed.partition("=")[0] for typed in own}]
    for option in (option for option in options if option != SEARCHED):
        key = option.partition("=")[0]
        if f"codec.options.{key}" in OWN_WEIGHTS:  # the label has the name of a file, and what is in it
            option = f"{key}={json.loads(row.options)[key]}"  # noqa: PLW2901
        typed = next((number for number, word in enumerate(kept) if word.startswith(f"{key}=")), None)
        if key in ("captions", "weights") and typed is not None:
            kept[typed] = option
        else:
            own.append(f"codec.options.{option}")
    own = [_as_typed(word, words) for word in own]
    if row.target_bpp is not None:
        own.append(f"bpp={row.target_bpp}".removesuffix(".0"))
    elif row.rate is not None:
        own.append(f"rate={row.rate}".removesuffix(".0"))
    return own + kept


def _as_typed(word: str, words: Sequence[str]) -> str:
    """A setting whose value is the name of a file as it was typed: with the path.

    >>> _as_typed("codec=mine.py:Mine", ["codec=jpeg,./mine.py:Mine"])
    'codec=./mine.py:Mine'
    """
    key, _, value = word.partition("=")
    given = (text for name, _, text in (other.partition("=") for other in words) if name == key)
    parts = (part for text in given for part in (*split_list(text), text))
    return next((f"{key}={part}" for part in parts if part.rpartition("/")[2] == value), word)


def _is_swept(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    return key in NARROWED or key.startswith("codec.options.")


# The scripts


def scripts(report: Report, pictures: Set[str], refused: Mapping[str, str], files: Sequence[str]) -> dict[str, Any]:
    """What each script hands over, by its name without ending.

    Args:
        report: what is shown.
        pictures: hashes of the images in the folder.
        refused: why others are not there, by their hash.
        files: other files of the folder that the page links to.
    """
    scripts: dict[str, Any] = {}
    sets: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    names = titles(list(report.panels))
    for where, panel in report.panels.items():
        images = _images(panel, pictures, refused)
        scripts[f"images-{len(sets)}"] = images
        places = {image["name"]: number for number, image in enumerate(images)}
        for codec, curve in curves_of(panel).items():
            scripts[f"rows-{len(curves)}"] = _rows(report, curve, places, pictures, refused)
            points += [{"curve": len(curves), **_point(point, pictures)} for point in curve]
            first = curve[0]
            named = {"codec": codec, "base": first.codec, "run": first.run.name, "title": NAMES.codec(codec)}
            random = any(point.point.random for point in curve)
            curves.append({"set": len(sets), **named, "random": random, "grade": first.point.grade})
        size = max(int(point.point.rows.numbers("dataset_size").max()) for point in panel)
        title = NAMES.dataset(where.dataset)
        named = {"dataset": where.dataset, "protocol": where.protocol, "title": title}
        label = names[where].replace(where.dataset, title, 1)
        here = report.joined.at(where)
        shown = {
            # Without the command that a terminal is told.
            "glance": [replace(t, notes=t.notes[1:]) for t in against.at_a_glance(here, report.metrics, _anchor(here))],
            "tables": tables.at_equal_rates(here, report.metrics, names[where]),
        }
        drawn = {name: list(map(_table, own)) for name, own in shown.items()}
        facts = cards.of_set(where, [point.point for point in panel])
        sets.append({**named, "label": label, "images": len(images), "size": size, "facts": facts, **drawn})
    looks = signs(curve["codec"] for curve in curves)
    curves = [curve | {"look": looks[curve["codec"]]} for curve in curves]
    main = {
        "title": ", ".join(run.name for run in report.runs),
        "notes": report.notes,
        "files": files,
        "metrics": [_metric(report, name) for name in report.metrics],
        "sets": sets,
        "curves": curves,
        "points": points,
        "codecs": {codec: cards.of_codec(curve) for codec, curve in curves_of(report.points).items()},
        "runs": [_run(run) for run in report.runs],
    }
    return {"report": main, **scripts}


def _anchor(here: Points) -> str:
    """What the codecs of a set are held against: JPEG, or else the first of them."""
    labels = [point.codec for point in here.points if point.competes]
    return next((label for label in labels if split_label(label)[0] == "jpeg"), next(iter(labels), ""))


def script(name: str, value: Any) -> str:
    """The text of a data file: ASCII, and without a letter that could end a script.

    >>> text = script("a", {"b": "</script>\u00e9"})
    >>> text.isascii(), text.count("<")
    (True, 0)
    """
    text = json.dumps(cards.published(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
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


def _metric(report: Report, name: str) -> dict[str, Any]:
    metric = meaning(name)
    digits = tables.DIGITS.get(metric.unit, 4)
    kind = {"digits": digits, "set": metric.kind == "set", "facts": cards.of_metric(report.runs, name)}
    return {"name": name, "title": NAMES.metric(name), "unit": metric.unit, "higher": metric.higher_is_better, **kind}


def _point(point: ReportedPoint, pictures: Set[str]) -> dict[str, Any]:
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
    for text in shown.texts("parts"):
        for name, size in json.loads(text).items():
            parts[name] = parts.get(name, 0) + size
    # The interval of the rate, where a line is over all images that were coded.
    whole = next((line for line in point.lines if line["bpp"] == line["bpp_all"]), None)
    return {
        "id": point.id,
        "setting": point.point.setting.words,
        "rate": number(point.point.setting.rate),
        "n": len(np.unique(point.point.good.codes("image").codes)),
        **{name: int(first[name]) for name in ("dataset_size", "failed", "out_of_range")},
        "weights": str(first["weights"]),
        "bpp": [number(first["bpp_all"]), *(number(whole[name] if whole else None) for name in ("bpp_lo", "bpp_hi"))],
        "values": values,
        "parts": {name: round(size / len(shown), 1) for name, size in parts.items()},
        "seeds": len(np.unique(rows.numbers("seed"))),
        "verified": int(rows.codes("verified").where("fresh_process".__eq__).sum()),
        "pictures": _pictured(shown, pictures),
        "command": command_of(rows, point.run.sessions),
    }


def _pictured(shown: Rows, pictures: Set[str]) -> int:
    """Of how many rows both images are in the folder."""
    if not pictures:  # hashes of millions of rows take a while to read
        return 0
    pairs = zip(*(shown.texts(name) for name in ("reconstruction_sha256", "pixel_sha256")), strict=True)
    return sum(ours in pictures and theirs in pictures for ours, theirs in pairs)


def _images(panel: Sequence[ReportedPoint], pictures: Set[str], refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """Originals by name, as the lines of a set refer to them."""
    chosen: dict[str, tuple[Rows, int, str]] = {}
    for point in panel:
        pairs = zip(point.images.texts(), point.listed.codes("caption").texts(), strict=True)
        for number, (image, caption) in enumerate(pairs):
            # Codecs that take no caption store none.
            if image not in chosen or (caption and not chosen[image][2]):
                chosen[image] = point.listed, number, caption
    rows: dict[str, Row] = {}
    for along in grouped(chosen.items(), lambda item: id(item[1][0])).values():
        listed = along[0][1][0].where([number for _, (_, number, _) in along]).made()
        rows |= {image: row for (image, _), row in zip(along, listed, strict=True)}
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
    report: Report,
    curve: Sequence[ReportedPoint],
    places: Mapping[str, int],
    pictures: Set[str],
    refused: Mapping[str, str],
) -> dict[str, Any]:
    """A curve's good rows, column by column: a page of many thousands stays small."""
    columns: dict[str, list[Any]] = {name: [] for name in ("point", "image", "seed", "bytes", "bpp", "rate")}
    texts: dict[str, list[str]] = {name: [] for name in ("parts", "info", "command")}
    shown: list[dict[str, str]] = []
    scores: dict[str, list[float | str | None]] = {name: [] for name in report.metrics if meaning(name).kind != "set"}
    for place, point in enumerate(curve):
        images, seeds = point.images, point.listed.numbers("seed")
        numbers = np.array([places.get(name, -1) for name in images.names], np.int64)[images.codes]
        order = np.lexsort((seeds, numbers))
        rows = point.listed.where(order)
        columns["point"] += [place] * len(rows)
        columns["image"] += numbers[order].tolist()
        columns["seed"] += seeds[order].astype(int).tolist()
        columns["bytes"] += [None if math.isnan(size) else int(size) for size in rows.numbers("bytes").tolist()]
        for name in ("bpp", "rate"):
            columns[name] += map(number, rows.numbers(name).tolist())
        for name in texts:
            texts[name] += rows.texts(name)
        if pictures or refused:
            shown += [_picture(sha256, pictures, refused) for sha256 in rows.texts("reconstruction_sha256")]
        else:  # hashes of millions of rows take a while to read
            shown += [{}] * len(rows)
        for name in scores:
            scores[name] += map(number, report.joined.values_of(point.point, rows.places, name).tolist())
    infos = [_info(*pair) for pair in zip(texts["info"], texts["command"], strict=True)]
    return {
        **columns,
        "picture": [picture.get("picture", "") for picture in shown],
        "why": {number: picture["why"] for number, picture in enumerate(shown) if "why" in picture},
        "parts": _columns([json.loads(text) for text in texts["parts"]], 0),
        "info": _columns(infos, ""),
        "scores": {name: column for name, column in scores.items() if any(value is not None for value in column)},
    }


def _columns(records: Sequence[Mapping[str, Any]], absent: Any) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name, absent) for record in records] for name in names}


def _info(info: str, command: str) -> dict[str, str]:
    """What the codec said of an image, and the command of a program."""
    said = {str(name): _text(text) for name, text in json.loads(info).items()}
    return {**said, **({"command": command} if command else {})}


def _faults(run: ReportedRun) -> Iterator[tuple[Row, str, str]]:
    """What failed: rows, then scores, each with its kind and the reason."""
    for point in run.current.points:
        yield from (
            (row, row.status, row.error) for row in point.rows.where(~point.rows.codes("status").where("ok".__eq__))
        )
    none = np.r_[np.isnan(run.current.stored.numbers("value")), False]  # the last is that of no score
    bad = np.zeros(len(run.current.records), bool)
    for scored in run.current.scored.values():
        bad[scored.places[(scored.scores >= 0) & none[scored.scores]]] = True
    told: set[tuple[int, str]] = set()  # datasets may share rows
    for point in run.current.points:
        rows = point.rows.where(bad[point.rows.places])
        metrics = [metric for where, metric in run.current.scored if where == point.where and len(rows)]
        errors = [run.current.errors(point.where, rows.places, metric) for metric in metrics]
        for row, place, *texts in zip(rows, rows.places.tolist(), *errors, strict=True):
            failed = {(place, metric): text for metric, text in zip(metrics, texts, strict=True) if text}
            yield from ((row, metric, text) for (_, metric), text in failed.items() if (place, metric) not in told)
            told |= failed.keys()


def _run(run: ReportedRun) -> dict[str, Any]:
    """A run's counts, times, what failed, and where it comes from."""
    named = titles(run.current.places).items()
    timed = [tables.times(run.current.at(where), run.contents, name) for where, name in named]
    shown = filter(None, [*timed, tables.crossings(run.store.folder)])
    failures = [[row.codec, row.setting.words, row.image, what, error] for row, what, error in _faults(run)]
    points = run.current.points
    total, good = sum(len(point.rows) for point in points), sum(len(point.good) for point in points)
    again = sum(int(p.good.codes("verified").where("fresh_process".__eq__).sum()) for p in points)
    curves = {(point.where.dataset, point.codec) for point in points}
    by_set = grouped(points, lambda point: point.where.dataset).values()
    images = sum(len(used((point.rows for point in along), "image")) for along in by_set)
    size = sum(
        int(max(point.rows.numbers("dataset_size").max() for point in run.current.at(where).points))
        for where in run.current.places
    )
    few = f"{images} of {size}" if images < size and len(run.current.places) == 1 else f"{images}"
    return {
        "name": run.name,
        "counts": f"{len(curves)} curves, {few} images, {good} bitstreams: each was decoded by a second "
        f"object from its bytes alone, {again} of them once more in a fresh process. "
        f"Failed or out of range: {total - good}.",
        "notes": list(run.current.notes),
        "tables": [_table(table) for table in shown],
        "failures": failures[:MOST],
        "more": max(0, len(failures) - MOST),
        "sessions": [
            [[key, _text(value)] for key, value in {"session": session, **record}.items()]
            for session, record in run.sessions.items()
        ],
    }


def _table(table: tables.Table) -> dict[str, Any]:
    """A table for readers, with the labels of its codecs."""
    shown = tables.named(table, NAMES)
    return {
        "caption": shown.caption,
        "header": shown.header,
        "lines": [[[cell.text, cell.rank] for cell in line] for line in shown.lines],
        "codecs": [line[0].text for line in table.lines] if table.header[0] == "codec" else [],
        "notes": shown.notes,
    }


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)

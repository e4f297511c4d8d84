"""Curves: what a codec gives on a dataset, point by point, for the regression gate to compare with a stored one.

Versions of stored curves: a file of an older one is brought up to this one while it is read.

=  ==========================================================================================
1  the first
2  ``bits_kind`` of each point, what its rate counts; ``manifest`` in the companion, which files the dataset is
=  ==========================================================================================

What an older version did not say stays empty, and `regress` does not compare it.

Stored curves on disk, small enough for git.

::

    results/curves/<dataset>/
      <codec>.csv          one line per rate point: images, bpp, the mean of each metric, a hash over all bitstreams
      <codec>.images.csv   one line per image and point, for datasets of up to 500 images: which image moved
      <codec>.json         what made it: versions of the coder and the metrics, and the command

Lines are sorted and digits fixed, so that a change in git is a change of a number. Each file states its version: an
older one is brought up to this one while it is read (`rdpbench.gate.curves`), a newer one is refused with
what to type.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench.errors import StoreCorrupt, StoreError
from rdpbench.metrics.contract import stated, weighed
from rdpbench.paths import ODD, file_name, write_file
from rdpbench.provenance import to_json
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Points
from rdpbench.results.stats.summary import POINT, frame
from rdpbench.results.store.schema import Row
from rdpbench.results.tables import text
from rdpbench.setting import Setting

SEARCHED = "target_bpp"
"""What files call the setting of a point that was searched per image."""


@dataclass(frozen=True)
class Point:
    """One rate point of a curve."""

    setting: Setting
    n: int
    """Images that were coded."""
    dataset_size: int
    protocol: str
    bpp: float
    values: Mapping[str, float]
    """Mean over images of each metric; not a number where no image could be scored."""
    averaged: Mapping[str, int]
    """Images in the mean of a metric, where they are fewer than ``n`` (refused, or lossless)."""
    bitstreams: str
    """sha256 over the sorted pairs of image id and bitstream sha256."""
    bits_kind: str = ""
    """What the rate counts (`rdpbench.results.store.schema.Row`); empty in curves of a version that did not say."""


@dataclass(frozen=True)
class ImagePoint:
    """One image at one rate point."""

    setting: Setting
    image: str
    pixels: str
    """First 16 digits of the sha256 of the original's pixels."""
    bitstream: str
    """First 16 digits of the bitstream's sha256; over all of them, if there are several seeds."""
    bpp: float
    values: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """A curve with where it comes from."""

    points: tuple[Point, ...]
    images: tuple[ImagePoint, ...] = ()
    """Empty if the dataset is large."""
    origin: Mapping[str, Any] = field(default_factory=dict)


def measure(points: Points, metrics: Sequence[str]) -> tuple[tuple[Point, ...], tuple[ImagePoint, ...]]:
    """The points of one codec on one dataset, with the digits that files have; and the same per image.

    The rate is that of all images that were coded. A metric of sets has no values per image.
    """
    good: dict[Setting, list[Row]] = {setting_of(point.rows[0]): point.good for point in points.points}
    curve = []
    for _, of in frame(points, metrics).groupby(POINT, sort=False, dropna=False):
        first = of.iloc[0]
        setting = _stored(Setting.of_line(first))
        named = [line for _, line in of.iterrows() if line["metric"]]
        counts = {line["metric"]: int(line["n_scored"]) for line in named}
        for line in named:
            if math.isfinite(line["value"]):
                counts[line["metric"]] -= int(line["infinite"])
        curve.append(
            Point(
                setting,
                int(first["n"]),
                int(first["dataset_size"]),
                first["protocol"],
                rounded(first["bpp_all"]),
                {line["metric"]: rounded(line["value"]) for line in named},
                {metric: count for metric, count in counts.items() if count != first["n"]},
                _digest(sorted((row.image, row.bitstream_sha256) for row in good[setting])),
                ",".join(sorted({row.bits_kind for row in good[setting]})),
            )
        )
    return tuple(sorted(curve, key=in_order)), _per_image(points, metrics)


def _per_image(points: Points, metrics: Sequence[str]) -> tuple[ImagePoint, ...]:
    out = []
    for point in points.points:
        by_image: dict[str, list[Row]] = {}
        for row in point.good:
            by_image.setdefault(row.image, []).append(row)
        for image, seeds in by_image.items():
            hashes = sorted(row.bitstream_sha256 for row in seeds)
            values = {metric: _of_seeds(metric, [points.value(row, metric) for row in seeds]) for metric in metrics}
            bitstream = (hashes[0] if len(hashes) == 1 else _digest(hashes))[:16]
            bpp = _mean(row.bpp for row in seeds)
            setting = setting_of(point.rows[0])
            out.append(ImagePoint(setting, image, seeds[0].pixel_sha256[:16], bitstream, bpp, values))
    return tuple(sorted(out, key=lambda one: (*in_order(one), one.image)))


def _of_seeds(metric: str, values: Sequence[float | None]) -> float:
    """Of an image, the mean over its seeds of what the metric averages."""
    averaged = meaning(metric).averaged
    there = weighed([value for value in values if value is not None], averaged)
    return rounded(float(stated(there.mean(), averaged))) if len(there) else math.nan


def setting_of(row: Row) -> Setting:
    """The setting that a row belongs to, as curves store it."""
    return _stored(row.setting)


def _stored(setting: Setting) -> Setting:
    """Files do not say which native setting a target was searched with."""
    return setting if setting.target is None else Setting(SEARCHED, None, setting.target)


def read_setting(name: str, value: float | None) -> Setting:
    """A setting as a file states it.

    >>> read_setting("target_bpp", 0.25).words, read_setting("quality", 50.0).words
    ('target 0.25 bpp', 'quality 50')
    """
    return Setting(name, None, value) if name == SEARCHED else Setting(name, value)


def in_order(point: Point | ImagePoint) -> tuple[str, float]:
    """Sorts points along their curve."""
    return point.setting.field, point.setting.order[0] if point.setting.field == SEARCHED else point.setting.order[1]


def _mean(values: Iterable[float | None]) -> float:
    there = [value for value in values if value is not None]
    return rounded(math.fsum(there) / len(there)) if there else math.nan


def _digest(record: object) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def rounded(value: float) -> float:
    """With the digits that a file has, so that what was stored and what is measured compare exactly."""
    return float(text(value)) if not math.isnan(value) else math.nan


VERSION = 2

Columns: TypeAlias = tuple[list[str], list[list[str]]]
"""Header and lines of a CSV file, as text."""


def _with_bits_kind(columns: Columns) -> Columns:
    header, lines = columns
    if "protocol" not in header:
        return columns  # not what version 1 wrote; the reader says so
    at = header.index("protocol") + 1

    def longer(cells: list[str], cell: str) -> list[str]:
        return [*cells[:at], cell, *cells[at:]]

    return longer(header, "bits_kind"), [longer(line, "") for line in lines]


POINTS: Mapping[int, Callable[[Columns], Columns]] = {1: _with_bits_kind}
"""From version n to n + 1; a version that is not listed changed nothing."""
IMAGES: Mapping[int, Callable[[Columns], Columns]] = {}
ORIGIN: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda record: {**record, "manifest": record.get("manifest")}
}


def columns(found: Columns, version: int, steps: Mapping[int, Callable[[Columns], Columns]]) -> Columns:
    """Header and lines of a file as this version has them.

    >>> columns((["protocol", "bpp"], [["as-is", "0.5"]]), 1, POINTS)
    (['protocol', 'bits_kind', 'bpp'], [['as-is', '', '0.5']])
    """
    for step in range(version, VERSION):
        found = steps[step](found) if step in steps else found
    return found


def brought_up(record: dict[str, Any], version: int) -> dict[str, Any]:
    """What made a curve, as this version says it; ``version`` stays what it was.

    >>> sorted(brought_up({"version": 1}, 1).items())
    [('manifest', None), ('version', 1)]
    """
    for step in range(version, VERSION):
        record = ORIGIN[step](record) if step in ORIGIN else record
    return record


KIND, IMAGES_KIND = "rdpbench-curve", "rdpbench-curve-images"
MOST_IMAGES = 500
"""Datasets of more images are stored without their lines per image: git is no place for megabytes of them."""
FIRST = ("rate_field", "rate", "n", "dataset_size", "protocol", "bits_kind", "bpp")
LAST = ("averaged", "bitstreams")
IMAGE = ("rate_field", "rate", "image", "pixels", "bitstream", "bpp")


def curve_path(root: Path, dataset: str, codec: str) -> Path:
    """Where a curve lies below a folder of curves; names that no file system takes are changed.

    >>> curve_path(Path("curves"), "kodak", "jpeg[chroma=4:4:4]").as_posix()
    'curves/kodak/jpeg[chroma=4_4_4].csv'
    """
    return root / file_name(dataset, ODD) / f"{file_name(codec, ODD)}.csv"


def write(path: Path, curve: Curve) -> list[Path]:
    """Write a curve's files; returns them. Large datasets go without the lines per image.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    metrics = list(curve.points[0].values) if curve.points else []
    lines: list[list[object]] = [
        [
            *[*_setting(point), point.n, point.dataset_size, point.protocol],
            *[point.bits_kind, text(point.bpp)],
            *(text(point.values[metric]) for metric in metrics),
            *[";".join(f"{metric}={count}" for metric, count in point.averaged.items()), point.bitstreams],
        ]
        for point in curve.points
    ]
    files = {path: _csv(KIND, [*FIRST, *metrics, *LAST], lines)}
    images = path.with_name(f"{path.stem}.images.csv")
    if curve.images and curve.points[0].n <= MOST_IMAGES:
        lines = [
            [
                *[*_setting(one), one.image, one.pixels, one.bitstream, text(one.bpp)],
                *(text(one.values[metric]) for metric in metrics),
            ]
            for one in curve.images
        ]
        files[images] = _csv(IMAGES_KIND, [*IMAGE, *metrics], lines)
    origin = {"curve": KIND, "version": VERSION, **curve.origin} | {"version": VERSION}
    files[path.with_suffix(".json")] = to_json(origin, indent=1, ensure_ascii=False) + "\n"
    for file, content in files.items():
        write_file(file, content)
    if images not in files:
        images.unlink(missing_ok=True)
    return list(files)


def _setting(point: Point | ImagePoint) -> tuple[str, str]:
    """Name and value of the native setting, ``target_bpp`` and the target, or neither for a single point."""
    setting = point.setting
    return setting.field, text(setting.rate if setting.target is None else setting.target)


def _csv(kind: str, header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    out.write(f"# {kind} v{VERSION}\n")
    writer.writerows([header, *lines])
    return out.getvalue()


def load(path: Path, again: str) -> Curve:
    """Read a curve; ``again`` is the command that makes it, for messages.

    Raises:
        StoreError: a file of a newer version, with what to type.
        StoreCorrupt: a file that was edited to something else, or is not complete.
    """
    metrics, lines = _read(path, KIND, (FIRST, LAST), POINTS, again)
    points = [_parsed(path, number, lambda one=one: _point(one, metrics), again) for number, one in lines]
    twice = {a.setting.words for a in points for b in points if a is not b and a.setting == b.setting}
    if twice:
        raise StoreCorrupt(f"{path} holds points twice: {', '.join(sorted(twice))}. Make it again: {again}")
    per_image: list[ImagePoint] = []
    images = path.with_name(f"{path.stem}.images.csv")
    if images.is_file():
        named, lines = _read(images, IMAGES_KIND, (IMAGE, ()), IMAGES, again)
        per_image = [_parsed(images, number, lambda one=one: _image(one, named), again) for number, one in lines]
    beside = path.with_suffix(".json")
    try:
        origin = json.loads(beside.read_text(encoding="utf-8"))
        version = origin["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(
            f"{beside}, which says what made {path.name}, cannot be read. Make it again: {again}"
        ) from error
    origin = brought_up(origin, _check(beside, version, again))
    return Curve(tuple(sorted(points, key=in_order)), tuple(per_image), origin)


def _read(
    path: Path,
    kind: str,
    fixed: tuple[Sequence[str], Sequence[str]],
    steps: Mapping[int, Callable[[Columns], Columns]],
    again: str,
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The metrics of a file, and its lines with their numbers."""
    first, last = fixed
    try:
        start, _, rest = path.read_text(encoding="utf-8").partition("\n")
        stated = re.fullmatch(rf"# {kind} v(\d+)\s*", start)
        if stated is None:
            raise StoreCorrupt(f"{path}:1: found {start[:60]!r}, not '# {kind} v{VERSION}'. Make it again: {again}")
        version = _check(path, int(stated[1]), again)
        reader = csv.reader(io.StringIO(rest), strict=True)
        header = next(reader, [])
        numbered = [(reader.line_num + 1, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreCorrupt(f"{path} cannot be read: {error}. Make it again: {again}") from error
    header, lines = columns((header, [line for _, line in numbered]), version, steps)
    metrics = header[len(first) : len(header) - len(last)]
    if header != [*first, *metrics, *last]:
        raise StoreCorrupt(f"{path}:2: other columns than {', '.join((*first, '...', *last))}. Make it again: {again}")
    return metrics, [(number, line) for (number, _), line in zip(numbered, lines, strict=True)]


def _check(path: Path, version: object, again: str) -> int:
    if isinstance(version, int) and 1 <= version <= VERSION:
        return version
    if isinstance(version, int) and version > VERSION:
        raise StoreError(
            f"{path} has version {version}, and this rdpbench reads up to {VERSION}: it was written by a newer one. "
            f"Type: pip install --upgrade rdpbench, or make it again with this one: {again}"
        )
    raise StoreError(f"{path} has version {version}, which there never was. Make it again: {again}")


def _parsed(path: Path, number: int, parse: Any, again: str) -> Any:
    try:
        return parse()
    except (ValueError, IndexError) as error:
        raise StoreCorrupt(
            f"{path}:{number}: not a line of a stored curve ({error}). Make it again: {again}"
        ) from error


def _point(line: Sequence[str], metrics: Sequence[str]) -> Point:
    name, rate, n, size, protocol, bits_kind, bpp, *values, averaged, bitstreams = line
    counts = (one.rpartition("=") for one in averaged.split(";") if one)
    return Point(
        read_setting(name, float(rate) if rate else None),
        int(n),
        int(size),
        protocol,
        _number(bpp),
        {metric: _number(value) for metric, value in zip(metrics, values, strict=True)},
        {metric: int(count) for metric, _, count in counts},
        bitstreams,
        bits_kind,
    )


def _image(line: Sequence[str], metrics: Sequence[str]) -> ImagePoint:
    name, rate, image, pixels, bitstream, bpp, *values = line
    found = {metric: _number(value) for metric, value in zip(metrics, values, strict=True)}
    return ImagePoint(read_setting(name, float(rate) if rate else None), image, pixels, bitstream, _number(bpp), found)


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan

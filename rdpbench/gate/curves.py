"""Stored curves: what a codec gives on a dataset, point by point, in files small enough for git.

::

    results/curves/<dataset>/
      <codec>.csv          one line per rate point: images, bpp, the mean of each metric, a hash over all bitstreams
      <codec>.images.csv   one line per image and point, for datasets of up to 500 images: which image moved
      <codec>.json         what made it: versions of the coder and the metrics, and the command

Lines are sorted and digits fixed, so that a change in git is a change of a number. Each file states its version.
Version 1 did not say what rates count (``bits_kind``) and which files the dataset had (``manifest``); these are then
empty and not compared. A newer version is refused with what to type.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt, StoreError
from rdpbench.metrics.contract import stated, weighed
from rdpbench.paths import ODD, file_name, write_file
from rdpbench.provenance import to_json
from rdpbench.results.csv_files import STORED_DIGITS, check_version, csv_text, read_csv, text
from rdpbench.results.stats.meanings import meaning
from rdpbench.results.stats.points import Points, grouped
from rdpbench.results.stats.summary import POINT, frame
from rdpbench.results.store.schema import Row
from rdpbench.setting import Setting

SEARCHED = "target_bpp"
"""What files call the setting of a point that was searched per image."""


@dataclass(frozen=True)
class StoredPoint:
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
    bits_kind: str | None = ""
    """What the rate counts (`rdpbench.results.store.schema.Row`); None of version 1, which did not say it."""


@dataclass(frozen=True)
class StoredImage:
    """One image at one rate point."""

    setting: Setting
    image: str
    pixels: str
    """First 16 digits of the sha256 of the original's pixels."""
    bitstream: str
    """First 16 digits of the bitstream's sha256; over all of them, if there are several seeds."""
    bpp: float
    values: Mapping[str, float]

    def value(self, what: str) -> float:
        """Of a metric, or the rate for ``bpp``."""
        return self.bpp if what == "bpp" else self.values[what]


@dataclass(frozen=True)
class StoredCurve:
    """A curve with where it comes from."""

    points: tuple[StoredPoint, ...]
    images: tuple[StoredImage, ...] = ()
    """Empty if the dataset is large."""
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_setting(self) -> dict[Setting, StoredPoint]:
        """The points."""
        return {point.setting: point for point in self.points}


def measure(points: Points, metrics: Sequence[str]) -> tuple[tuple[StoredPoint, ...], tuple[StoredImage, ...]]:
    """The points of one codec on one dataset, with the digits that files have; and the same per image.

    The rate is that of all images that were coded. A metric of sets has no values per image.
    """
    good: dict[Setting, Sequence[Row]] = {setting_of(point.rows[0]): point.good for point in points.points}
    curve = []
    for _, lines in frame(points, metrics).groupby(POINT, sort=False, dropna=False):
        first = lines.iloc[0]
        setting = _stored(Setting.of_line(first))
        values, averaged = {}, {}
        for line in lines[lines["metric"] != ""].to_dict("records"):
            values[line["metric"]] = rounded(line["value"])
            count = int(line["n_scored"]) - (int(line["infinite"]) if math.isfinite(line["value"]) else 0)
            if count != first["n"]:
                averaged[line["metric"]] = count
        bitstreams = _digest(sorted((row.image, row.bitstream_sha256) for row in good[setting]))
        bits_kind = ",".join(sorted({row.bits_kind for row in good[setting]}))
        size, bpp = int(first["dataset_size"]), rounded(first["bpp_all"])
        counts = int(first["n"]), size, first["protocol"], bpp
        curve.append(StoredPoint(setting, *counts, values, averaged, bitstreams, bits_kind))
    return tuple(sorted(curve, key=in_order)), _per_image(points, metrics)


def _per_image(points: Points, metrics: Sequence[str]) -> tuple[StoredImage, ...]:
    images = []
    for point in points.points:
        for image, seeds in grouped(point.good, lambda row: row.image).items():
            hashes = sorted(row.bitstream_sha256 for row in seeds)
            values = {metric: _of_seeds(metric, [points.value(row, metric) for row in seeds]) for metric in metrics}
            bitstream = (hashes[0] if len(hashes) == 1 else _digest(hashes))[:16]
            rates = [row.bpp for row in seeds if row.bpp is not None]
            bpp = rounded(math.fsum(rates) / len(rates)) if rates else math.nan
            pixels = seeds[0].pixel_sha256[:16]
            images.append(StoredImage(setting_of(point.rows[0]), image, pixels, bitstream, bpp, values))
    return tuple(sorted(images, key=lambda image: (*in_order(image), image.image)))


def _of_seeds(metric: str, values: Sequence[float | None]) -> float:
    """Of an image, the mean over its seeds of what the metric averages."""
    averaged = meaning(metric).averaged
    there = weighed([value for value in values if value is not None], averaged)
    return rounded(float(stated(there.mean(), averaged))) if len(there) else math.nan


def setting_of(row: Row) -> Setting:
    """The setting that a row belongs to, as curves store it."""
    return _stored(row.setting)


def _stored(setting: Setting) -> Setting:
    """With the digits of a file, which does not say which native setting a target was searched with."""
    if setting.target is not None:
        return Setting(SEARCHED, None, rounded(setting.target))
    return setting if setting.rate is None else replace(setting, rate=rounded(setting.rate))


def in_order(point: StoredPoint | StoredImage) -> tuple[str, float]:
    """Sorts points along their curve."""
    setting = point.setting
    return setting.field, setting.order[0] if setting.field == SEARCHED else setting.order[1]


def _digest(record: object) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def rounded(value: float) -> float:
    """With the digits that a file has, so that what was stored and what is measured compare exactly."""
    return _number(text(value))


# Files

VERSION = 2
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


def write(path: Path, curve: StoredCurve) -> list[Path]:
    """Write a curve's files; returns them. Large datasets go without the lines per image.

    Raises:
        StoreError: two points have one setting in the digits of a file.
        StoreUnwritable: the folder cannot be written.
    """
    if len(curve.by_setting) < len(curve.points):
        raise StoreError(f"{path} has {STORED_DIGITS} digits, and points that differ in later ones are one there")
    metrics = list(curve.points[0].values) if curve.points else []
    lines: list[Sequence[object]] = [[*FIRST, *metrics, *LAST]]
    for point in curve.points:
        values = [text(point.values[metric]) for metric in metrics]
        averaged = ";".join(f"{metric}={count}" for metric, count in point.averaged.items())
        size = point.n, point.dataset_size, point.protocol, point.bits_kind, text(point.bpp)
        lines.append([*_setting(point), *size, *values, averaged, point.bitstreams])
    files = {path: csv_text(KIND, VERSION, lines)}
    images = path.with_name(f"{path.stem}.images.csv")
    if curve.images and curve.points[0].n <= MOST_IMAGES:
        lines = [[*IMAGE, *metrics]]
        for image in curve.images:
            values = [text(image.values[metric]) for metric in metrics]
            lines.append([*_setting(image), image.image, image.pixels, image.bitstream, text(image.bpp), *values])
        files[images] = csv_text(IMAGES_KIND, VERSION, lines)
    origin = {"curve": KIND, "version": VERSION, **curve.origin} | {"version": VERSION}
    files[path.with_suffix(".json")] = to_json(origin, indent=1, ensure_ascii=False) + "\n"
    for file, content in files.items():
        write_file(file, content)
    if images not in files:
        images.unlink(missing_ok=True)
    return list(files)


def _setting(point: StoredPoint | StoredImage) -> tuple[str, str]:
    """Name and value of the native setting, ``target_bpp`` and the target, or neither for a single point."""
    setting = point.setting
    return setting.field, text(setting.rate if setting.target is None else setting.target)


def load(path: Path, again: str) -> StoredCurve:
    """Read a curve; ``again`` is the command that makes it, for messages.

    Raises:
        StoreError: a file of a newer version, with what to type.
        StoreCorrupt: a file that was edited to something else, or is not complete.
    """
    again = f"Make it again: {again}"
    points = read_csv(path, KIND, VERSION, again, _columns(FIRST, LAST), _point)
    if not points:
        raise StoreCorrupt(f"{path} holds no point. {again}")
    settings = [point.setting for point in points]
    if twice := {setting.words for setting in settings if settings.count(setting) > 1}:
        raise StoreCorrupt(f"{path} holds points twice: {', '.join(sorted(twice))}. {again}")
    file = path.with_name(f"{path.stem}.images.csv")
    images = read_csv(file, IMAGES_KIND, VERSION, again, _columns(IMAGE, ()), _image) if file.is_file() else []
    for point in points if file.is_file() else ():
        lines = [image for image in images if image.setting == point.setting]
        if not len(lines) == len({image.image for image in lines}) == point.n:
            where = f"{point.setting.words}: {len(lines)} lines of images, of which there are {point.n}"
            raise StoreCorrupt(f"{file} and {path.name} are not of one curve: {where}. {again}")
    if len({(image.image, image.pixels) for image in images}) > len({image.image for image in images}):
        raise StoreCorrupt(f"{file} has two originals of one image. {again}")
    if images and images[0].values.keys() != points[0].values.keys():
        raise StoreCorrupt(f"{file} has other metrics than {path.name}. {again}")
    beside = path.with_suffix(".json")
    try:
        origin = json.loads(beside.read_text(encoding="utf-8"))
        version = origin["version"]
        if not all(isinstance(made, dict) for made in origin.get("metrics", {}).values()):
            raise ValueError("the record of a metric is no object")
        sweep = origin.get("sweep", [])
        if not (isinstance(sweep, list) and all(isinstance(line, str) for line in sweep)):
            raise ValueError("sweep is no list of texts")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorrupt(f"{beside}, which says what made {path.name}, cannot be read: {error}. {again}") from error
    check_version(beside, version, VERSION, again)
    return StoredCurve(tuple(sorted(points, key=in_order)), tuple(images), {"manifest": None, **origin})


def _columns(first: Sequence[str], last: Sequence[str]) -> Callable[[int, list[str]], list[str]]:
    """The metrics stand between the first and the last columns; version 1 did not say what rates count."""

    def columns(version: int, header: list[str]) -> list[str]:
        known = [name for name in first if version > 1 or name != "bits_kind"]
        return [*known, *header[len(known) : len(header) - len(last)], *last]

    return columns


def _values(cells: Mapping[str, str]) -> dict[str, float]:
    return {name: _number(cell) for name, cell in cells.items() if name not in (*FIRST, *LAST, *IMAGE)}


def _read_setting(cells: Mapping[str, str]) -> Setting:
    name, value = cells["rate_field"], float(cells["rate"]) if cells["rate"] else None
    return Setting(name, None, value) if name == SEARCHED else Setting(name, value)


def _point(cells: Mapping[str, str]) -> StoredPoint:
    values, n, averaged = _values(cells), int(cells["n"]), {}
    for part in filter(None, cells["averaged"].split(";")):
        metric, _, count = part.rpartition("=")
        if metric not in values or metric in averaged or not 0 <= int(count) < n:
            raise ValueError(f"averaged: {part!r} is not METRIC=NUMBER of fewer than {n} images, once for a metric")
        averaged[metric] = int(count)
    size, bpp = int(cells["dataset_size"]), _number(cells["bpp"])
    made = cells["bitstreams"], cells.get("bits_kind")
    return StoredPoint(_read_setting(cells), n, size, cells["protocol"], bpp, values, averaged, *made)


def _image(cells: Mapping[str, str]) -> StoredImage:
    texts = cells["image"], cells["pixels"], cells["bitstream"]
    return StoredImage(_read_setting(cells), *texts, _number(cells["bpp"]), _values(cells))


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan

"""Stored curves on disk, small enough for git.

::

    results/curves/<dataset>/
      <codec>.csv          one line per rate point: images, bpp, the mean of each metric, a hash over all bitstreams
      <codec>.images.csv   one line per image and point, for datasets of up to 500 images: which image moved
      <codec>.json         what made it: versions of the coder and the metrics, and the command

Lines are sorted and digits fixed, so that a change in git is a change of a number. Each file states its version: an
older one is brought up to this one while it is read (`rdpbench.results.curve_versions`), a newer one is refused with
what to type.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt, StoreError
from rdpbench.paths import ODD, file_name
from rdpbench.provenance import to_json
from rdpbench.results import curve_versions
from rdpbench.results.curve_versions import VERSION, Columns
from rdpbench.results.curves import Curve, ImagePoint, Point, in_order, read_setting, text
from rdpbench.results.parts import unwritable

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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            beside = file.with_name(f".{file.name}.tmp")
            beside.write_bytes(content.encode())
            beside.replace(file)
        if images not in files:
            images.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
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
    metrics, lines = _read(path, KIND, (FIRST, LAST), curve_versions.POINTS, again)
    points = [_parsed(path, number, lambda one=one: _point(one, metrics), again) for number, one in lines]
    twice = {a.setting.words for a in points for b in points if a is not b and a.setting == b.setting}
    if twice:
        raise StoreCorrupt(f"{path} holds points twice: {', '.join(sorted(twice))}. Make it again: {again}")
    per_image: list[ImagePoint] = []
    images = path.with_name(f"{path.stem}.images.csv")
    if images.is_file():
        named, lines = _read(images, IMAGES_KIND, (IMAGE, ()), curve_versions.IMAGES, again)
        per_image = [_parsed(images, number, lambda one=one: _image(one, named), again) for number, one in lines]
    beside = path.with_suffix(".json")
    try:
        origin = json.loads(beside.read_text(encoding="utf-8"))
        version = origin["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(
            f"{beside}, which says what made {path.name}, cannot be read. Make it again: {again}"
        ) from error
    origin = curve_versions.origin(origin, _check(beside, version, again))
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
    header, lines = curve_versions.columns((header, [line for _, line in numbered]), version, steps)
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

"""Published numbers as they lie on the disk: what one is, reading, writing, and what cannot be right.

Lines are sorted and digits fixed, so that a change in git is a change of a number; each file states its version.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt, StoreError
from rdpbench.results.curves import text
from rdpbench.results.parts import unwritable

VERSION = 1
KIND, SOURCES_KIND = "rdpbench-published", "rdpbench-published-sources"
AGAIN = "git checkout results/published, or from the shared table: python benchmarks/build_published.py TABLE.csv"

BITS = {
    "file": "bytes of a file that a decoder needs nothing else for",
    "payload": "bytes of the coded strings alone: sizes or lengths are missing",
    "object": "size of a Python object that holds the strings: pickled, or asked of the interpreter",
    "estimated": "from likelihoods: nothing was coded",
    "nominal": "a name or a target, not a measurement",
    "unstated": "the source does not say",
    "none": "no rate: a bound without quantisation",
}
"""What a published rate counts."""


@dataclass(frozen=True)
class Family:
    """What all metrics of one kind share, whatever their protocol."""

    unit: str
    higher_is_better: bool
    perceptual: bool
    low: float
    high: float
    """Values outside [low, high] are mistakes."""


FAMILIES = {
    "psnr": Family("dB", True, False, 8, 60),
    "psnr-pooled": Family("dB", True, False, 8, 60),
    "ms-ssim": Family("", True, False, 0, 1),
    "ms-ssim-db": Family("dB", True, False, 0, 40),
    "ssim": Family("", True, False, 0, 1),
    "lpips": Family("", False, True, 0, 1.2),
    "dists": Family("", False, True, 0, 1),
    "niqe": Family("", False, True, 0, 20),
    "ssimulacra2": Family("", True, True, -200, 100),
    "fid": Family("", False, True, 0, 500),
    "fid-swav": Family("", False, True, 0, 100),
    "kid": Family("", False, True, -0.01, 1),
    "dclip": Family("", False, True, 0, 2),
    "clip-score": Family("", True, True, 0, 100),
    "miou": Family("", True, True, 0, 1),
    "bleu-4": Family("", True, True, 0, 1),
    "cider-d": Family("", True, True, 0, 10),
    "spice": Family("", True, True, 0, 1),
    "encode-ms": Family("ms", False, False, 0, 1e7),
    "decode-ms": Family("ms", False, False, 0, 1e7),
    "total-ms": Family("ms", False, False, 0, 1e7),
    "encode-s": Family("s", False, False, 0, 1e5),
    "decode-s": Family("s", False, False, 0, 1e5),
}
"""By the part of a metric's name before ``/`` and ``@``."""


def family(metric: str) -> str:
    """What a metric measures, without its protocol.

    >>> family("fid/hific-patch"), family("psnr@float"), len(FAMILIES)
    ('fid', 'psnr', 23)
    """
    return re.split(r"[/@]", metric, maxsplit=1)[0]


@dataclass(frozen=True)
class Number:
    """One published number; the order of the fields is the order of the lines' cells, but for the first two."""

    dataset: str
    source: str
    """Its id in ``sources.csv``."""
    codec: str
    variant: str
    """What tells two curves of one codec and source apart."""
    rate_field: str
    rate: float | None
    """The setting, where the source gives it."""
    protocol: str
    bpp: float | None
    bits_kind: str
    metric: str
    value: float
    place: str
    """File in the repository, or table of the paper."""
    digitised: bool
    """Read off a plot."""
    doubtful: str
    """Why the number, or what it is said to be of, cannot be relied on; else empty."""


@dataclass(frozen=True)
class Source:
    """Where numbers come from."""

    id: str
    where: str
    """``owner/repository@commit``, or the paper."""
    title: str
    counted: str
    """What its rates count, in words."""


CELLS = tuple(field.name for field in fields(Number))[2:]
_ABOUT = tuple(field.name for field in fields(Source))


def in_order(number: Number) -> tuple[Any, ...]:
    """Sorts the lines of a file: curve by curve, along the rate."""
    blank = -math.inf if number.bpp is None else number.bpp
    setting = -math.inf if number.rate is None else number.rate
    names = (number.codec, number.variant, number.protocol, number.metric, number.place)
    return (*names, blank, setting, number.rate_field, number.value)


def write(path: Path, numbers: Iterable[Number]) -> None:
    """Write one file, ``<dataset>/<source>.csv``; the dataset and the source are the path's.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    lines: list[list[str]] = []
    for one in sorted(numbers, key=in_order):
        cells = {name: getattr(one, name) for name in CELLS}
        cells |= {name: text(cells[name]) for name in ("rate", "bpp", "value")}
        lines.append([str(cell) for cell in (cells | {"digitised": "yes" if one.digitised else ""}).values()])
    _write(path, KIND, CELLS, lines)


def write_sources(path: Path, about: Iterable[Source]) -> None:
    """Write ``sources.csv``. Raises `StoreUnwritable` if it cannot be written."""
    _write(path, SOURCES_KIND, _ABOUT, [list(vars(one).values()) for one in sorted(about, key=lambda one: one.id)])


def _write(path: Path, kind: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    out = io.StringIO()
    out.write(f"# {kind} v{VERSION}\n")
    csv.writer(out, lineterminator="\n").writerows([header, *lines])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        beside.write_bytes(out.getvalue().encode())
        beside.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def read(path: Path) -> list[Number]:
    """The numbers of one file.

    Raises:
        StoreError: a file of another version.
        StoreCorrupt: not such a file, or a line that is none.
    """
    numbers = []
    for line, cells in _read(path, KIND, CELLS):
        try:
            numbers.append(_number(path, cells))
        except ValueError as error:
            raise StoreCorrupt(f"{path}:{line}: not a published number ({error}). Get it again: {AGAIN}") from error
    return numbers


def read_sources(path: Path) -> dict[str, Source]:
    """The sources by their id. Raises as `read` does."""
    return {cells["id"]: Source(**cells) for _, cells in _read(path, SOURCES_KIND, _ABOUT)}


def _read(path: Path, kind: str, header: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        start, _, rest = path.read_text(encoding="utf-8").partition("\n")
        stated = re.fullmatch(rf"# {kind} v(\d+)", start)
        if stated is None:
            raise StoreCorrupt(f"{path}:1: found {start[:60]!r}, not '# {kind} v{VERSION}'. Get it again: {AGAIN}")
        if int(stated[1]) != VERSION:
            raise StoreError(
                f"{path} has version {stated[1]}, and this rdpbench reads {VERSION}. "
                "Take files and program of one version; type: pip install --upgrade rdpbench"
            )
        reader = csv.reader(io.StringIO(rest), strict=True)
        found = next(reader, [])
        lines = [(reader.line_num + 1, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreCorrupt(f"{path} cannot be read: {error}. Get it again: {AGAIN}") from error
    if found != [*header]:
        raise StoreCorrupt(f"{path}:2: other columns than {', '.join(header)}. Get it again: {AGAIN}")
    for number, line in lines:
        if len(line) != len(header):
            raise StoreCorrupt(f"{path}:{number}: {len(line)} cells, not {len(header)}. Get it again: {AGAIN}")
    return [(number, dict(zip(header, line, strict=True))) for number, line in lines]


def _number(path: Path, cells: Mapping[str, str]) -> Number:
    if cells["digitised"] not in ("", "yes"):
        raise ValueError(f"digitised is {cells['digitised']!r}, not 'yes' or empty")
    plain = {name: cells[name] for name in ("codec", "variant", "rate_field", "protocol", "bits_kind", "metric")}
    return Number(
        dataset=path.parent.name,
        source=path.stem,
        **plain,
        rate=float(cells["rate"]) if cells["rate"] else None,
        bpp=float(cells["bpp"]) if cells["bpp"] else None,
        value=float(cells["value"]),
        place=cells["place"],
        digitised=cells["digitised"] == "yes",
        doubtful=cells["doubtful"],
    )


def check(numbers: Sequence[Number], about: Mapping[str, Source]) -> list[str]:
    """What is wrong with a collection, one line each; empty if nothing is.

    >>> one = Number("kodak", "x", "vtm", "", "", None, "as-is", 0.1, "file", "psnr", 280.0, "Table 1", False, "")
    >>> check([one], {"x": Source("x", "a paper", "A title", "files")})
    ['kodak/x: vtm psnr 280 at 0.1 bpp: the value is outside 8 to 60']
    """
    problems = []
    seen: dict[tuple[Any, ...], Number] = {}
    for one in numbers:
        what = f"{one.dataset}/{one.source}: {one.codec} {one.metric} {text(one.value)} at {text(one.bpp)} bpp"
        problems += [f"{what}: {problem}" for problem in _problems(one, about)]
        key = (one.dataset, one.source, *in_order(one)[:-1])
        if key in seen:
            problems.append(f"{what}: stands there twice, also as {text(seen[key].value)}")
        seen[key] = one
    return problems


def _problems(one: Number, about: Mapping[str, Source]) -> Iterable[str]:
    if one.source not in about:
        yield "its source is not in sources.csv"
    if not (one.place and one.codec and one.protocol):
        yield "place, codec or protocol is empty"
    if one.bits_kind not in BITS:
        yield f"bits_kind {one.bits_kind!r} is none of {', '.join(BITS)}"
    if (one.bpp is None) != (one.bits_kind == "none"):
        yield "a rate is missing, or stands where there is none"
    if one.bpp is not None and not 0 < one.bpp < 24:
        yield "the rate is not between 0 and 24 bpp"
    of = FAMILIES.get(family(one.metric))
    if of is None:
        yield f"an unknown kind of metric; those known: {', '.join(FAMILIES)}"
    elif not of.low <= one.value <= of.high:
        yield f"the value is outside {of.low:g} to {of.high:g}"

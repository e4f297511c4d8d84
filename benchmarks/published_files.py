"""Writing the files of results/published, and what cannot be right in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rdpbench.paths import write_file
from rdpbench.results.csv_files import csv_text, text
from rdpbench.results.names import family
from rdpbench.results.published import (
    ABOUT,
    BITS,
    CELLS,
    KIND,
    SOURCES_KIND,
    VERSION,
    PublishedNumber,
    PublishedSource,
)

PLAUSIBLE = {
    "psnr": (8, 60),
    "psnr-pooled": (8, 60),
    "ms-ssim": (0, 1),
    "ms-ssim-db": (0, 40),
    "ssim": (0, 1),
    "lpips": (0, 1.2),
    "dists": (0, 1),
    "niqe": (0, 20),
    "ssimulacra2": (-200, 100),
    "fid": (0, 500),
    "fid-swav": (0, 100),
    "kid": (-0.01, 1),
    "dclip": (0, 2),
    "clip-score": (0, 100),
    "miou": (0, 1),
    "bleu-4": (0, 1),
    "cider-d": (0, 10),
    "spice": (0, 1),
    **dict.fromkeys(("encode-ms", "decode-ms", "total-ms"), (0, 1e7)),
    **dict.fromkeys(("encode-s", "decode-s"), (0, 1e5)),
}
"""By the part of a metric's name before ``/`` and ``@``: values outside are mistakes."""


def in_order(number: PublishedNumber) -> tuple[Any, ...]:
    """Sorts the lines of a file: curve by curve, along the rate."""
    blank = -math.inf if number.bpp is None else number.bpp
    setting = -math.inf if number.rate is None else number.rate
    names = (number.codec, number.variant, number.protocol, number.metric, number.place)
    return (*names, blank, setting, number.rate_field, number.value)


def write(path: Path, numbers: Iterable[PublishedNumber]) -> None:
    """Write one file, ``<dataset>/<source>.csv``; the dataset and the source are the path's.

    Raises:
        StoreUnwritable: the folder cannot be written.
    """
    lines = []
    for number in sorted(numbers, key=in_order):
        cells = vars(number) | {name: text(getattr(number, name)) for name in ("rate", "bpp", "value")}
        cells |= {"digitised": "yes" if number.digitised else ""}
        lines.append([cells[name] for name in CELLS])
    write_file(path, csv_text(KIND, VERSION, [CELLS, *lines]))


def write_sources(path: Path, about: Iterable[PublishedSource]) -> None:
    """Write ``sources.csv``. Raises `StoreUnwritable` if it cannot be written."""
    lines = [list(vars(source).values()) for source in sorted(about, key=lambda source: source.id)]
    write_file(path, csv_text(SOURCES_KIND, VERSION, [ABOUT, *lines]))


def check(numbers: Sequence[PublishedNumber], about: Mapping[str, PublishedSource]) -> list[str]:
    """What is wrong with a collection, one line each; empty if nothing is.

    Such as ``kodak/x: vtm psnr 280 at 0.1 bpp: the value is outside 8 to 60``.
    """
    problems = []
    seen: dict[tuple[Any, ...], PublishedNumber] = {}
    for number in numbers:
        words = f"{number.codec} {number.metric} {text(number.value)} at {text(number.bpp)} bpp"
        name = f"{number.dataset}/{number.source}: {words}"
        problems += [f"{name}: {problem}" for problem in _problems(number, about)]
        key = (number.dataset, number.source, *in_order(number)[:-1])
        if key in seen:
            problems.append(f"{name}: stands there twice, also as {text(seen[key].value)}")
        seen[key] = number
    return problems


def _problems(number: PublishedNumber, about: Mapping[str, PublishedSource]) -> Iterable[str]:
    if number.source not in about:
        yield "its source is not in sources.csv"
    if not (number.place and number.codec and number.protocol):
        yield "place, codec or protocol is empty"
    if number.bits_kind not in BITS:
        yield f"bits_kind {number.bits_kind!r} is none of {', '.join(BITS)}"
    if (number.bpp is None) != (number.bits_kind == "none"):
        yield "a rate is missing, or stands where there is none"
    if number.bpp is not None and not 0 < number.bpp < 24:
        yield "the rate is not between 0 and 24 bpp"
    low, high = PLAUSIBLE.get(family(number.metric), (math.nan, math.nan))
    if math.isnan(low):
        yield f"an unknown kind of metric; those known: {', '.join(PLAUSIBLE)}"
    elif not low <= number.value <= high:
        yield f"the value is outside {low:g} to {high:g}"

"""CSV files of ours, such as stored curves and published numbers: each states its kind and version above the header."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rdpbench.errors import StoreCorrupt, StoreError

T = TypeVar("T")
STORED_DIGITS = 8
"""Significant digits that are stored."""


def text(value: float | None) -> str:
    """A number as it is stored; empty where there is none."""
    return "" if value is None or math.isnan(value) else f"{value:.{STORED_DIGITS}g}"


def csv_text(kind: str, version: int, lines: Iterable[Sequence[object]]) -> str:
    """A CSV file of ours, which states its kind and version above the header."""
    stream = io.StringIO()
    stream.write(f"# {kind} v{version}\n")
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def read_csv(
    path: Path,
    kind: str,
    newest: int,
    again: str,
    columns: Callable[[int, list[str]], list[str]],
    parse: Callable[[dict[str, str]], T],
) -> list[T]:
    """What ``parse`` makes of each line of a CSV file of ours, by its columns; a `ValueError` is an error of that line.

    It must state its ``kind`` and a version up to the ``newest``, and have the ``columns`` of that version, which may
    hang on its header. Errors end with ``again``, how to get the file again.

    Raises:
        StoreError: a file of a newer version.
        StoreCorrupt: not such a file, or damaged.
    """
    try:
        start, _, rest = path.read_text(encoding="utf-8").partition("\n")
        stated = re.fullmatch(rf"# {kind} v(\d+)\s*", start)
        if stated is None:
            raise StoreCorrupt(f"{path}:1: found {start[:60]!r}, not '# {kind} v{newest}'. {again}")
        version = check_version(path, int(stated[1]), newest, again)
        reader = csv.reader(io.StringIO(rest), strict=True)
        header = next(reader, [])
        if header != (known := columns(version, header)):
            raise StoreCorrupt(f"{path}:2: other columns than {', '.join(known)}. {again}")
        if twice := sorted({name for name in header if header.count(name) > 1}):
            raise StoreCorrupt(f"{path}:2: two columns are called {twice[0]!r}. {again}")
        lines = [(reader.line_num + 1, line) for line in reader if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreCorrupt(f"{path} cannot be read: {error}. {again}") from error
    parsed = []
    for number, line in lines:
        if len(line) != len(header):
            raise StoreCorrupt(f"{path}:{number}: {len(line)} cells, not {len(header)}. {again}")
        try:
            parsed.append(parse(dict(zip(header, line, strict=True))))
        except ValueError as error:
            raise StoreCorrupt(f"{path}:{number}: not a line of such a file ({error}). {again}") from error
    return parsed


def check_version(path: Path, version: object, newest: int, again: str) -> int:
    """A version that can be read. Raises `StoreError` for a newer one, or none, with what to type."""
    if isinstance(version, int) and 1 <= version <= newest:
        return version
    if isinstance(version, int) and version > newest:
        raise StoreError(
            f"{path} has version {version}, and this rdpbench reads up to {newest}: it was written by a newer one. "
            f"Type: pip install --upgrade rdpbench. With this one: {again[0].lower()}{again[1:]}"
        )
    raise StoreError(f"{path} has version {version}, which there never was. {again}")

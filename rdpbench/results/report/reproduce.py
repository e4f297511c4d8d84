"""The command that makes one point again: what was typed, narrowed to the point's codec and setting."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rdpbench.overrides import OWN_WEIGHTS
from rdpbench.results.schema import Row

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

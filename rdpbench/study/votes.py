"""Votes as they come back from raters, in JSON or CSV as the page saves them. Nothing in them is trusted.

A file that breaks a rule is refused whole, with the rule: another study, a sheet or trial that does not exist, a trial
of another sheet, a second vote on one, an answer that was not offered. The same rater's second file for a sheet is
refused, too, unless it says the same.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench.errors import VotesRefused
from rdpbench.study.key import Key

KIND, VERSION = "rdpbench-study-votes", 1
COLUMNS = ["study", "sheet", "rater", "trial", "choice", "ms"]
LARGEST = 4_000_000
"""Bytes of a file; ten thousand votes take one million."""
LONGEST = 64
"""Letters of a rater's name."""


@dataclass(frozen=True)
class Vote:
    """One answer."""

    trial: str
    choice: str
    """``left``, ``right`` or ``tie``."""
    ms: int
    """From when the images stood there."""


@dataclass(frozen=True)
class Sheet:
    """What one rater answered on one sheet."""

    rater: str
    number: int
    votes: tuple[Vote, ...]
    path: Path


def read_votes(paths: Iterable[Path], key: Key) -> list[Sheet]:
    """All files of a study; two equal ones of a rater count once.

    Raises:
        VotesRefused: a file that breaks a rule.
    """
    found: dict[tuple[str, int], Sheet] = {}
    for path in paths:
        for sheet in _read(path, key):
            place = (sheet.rater, sheet.number)
            other = found.setdefault(place, sheet)
            if other.votes != sheet.votes:
                raise VotesRefused(
                    f"{path}: {sheet.rater!r} has answered sheet {sheet.number} in {other.path}, too, and otherwise; "
                    "leave one of the two out"
                )
    return list(found.values())


def _read(path: Path, key: Key) -> list[Sheet]:
    try:
        if path.stat().st_size > LARGEST:
            raise VotesRefused(f"{path}: {path.stat().st_size} bytes are more than votes can be ({LARGEST})")
        text = path.read_text(encoding="utf-8-sig")
        records = _json(text) if text.lstrip()[:1] == "{" else _csv(text)
        return [_sheet(record, key, path) for record in records]
    except VotesRefused as error:
        raise VotesRefused(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise VotesRefused(f"{path}: cannot be read as votes: {error or type(error).__name__}") from error


def _json(text: str) -> list[Mapping[str, Any]]:
    record = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    if set(record) != {"kind", "version", "study", "sheet", "rater", "votes"} or record["kind"] != KIND:
        raise VotesRefused("not votes of a study as its page saves them")
    if record["version"] != VERSION:
        raise VotesRefused(f"votes of version {record['version']!r}, this rdpbench reads {VERSION}")
    if not isinstance(record["votes"], list):
        raise VotesRefused("votes are no list")
    return [record]


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise VotesRefused("a name stands twice in one record")
    return made


def _no_constant(name: str) -> float:
    raise VotesRefused(f"{name} is no number")


def _csv(text: str) -> list[Mapping[str, Any]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    if next(reader, None) != COLUMNS:
        raise VotesRefused(f"neither JSON nor CSV with the columns {', '.join(COLUMNS)}")
    sheets: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for number, line in enumerate(reader, start=2):
        if not line:
            continue
        if len(line) != len(COLUMNS):
            raise VotesRefused(f"line {number} has {len(line)} cells instead of {len(COLUMNS)}")
        study, sheet, rater, trial, choice, ms = line
        sheets.setdefault((study, sheet, rater), []).append({"trial": trial, "choice": choice, "ms": _number(ms)})
    return [
        {"study": study, "sheet": _number(sheet), "rater": rater, "votes": votes}
        for (study, sheet, rater), votes in sheets.items()
    ]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise VotesRefused(f"{text[:40]!r} is no whole number")
    return int(text)


def _sheet(record: Mapping[str, Any], key: Key, path: Path) -> Sheet:
    study, number, rater = record["study"], record["sheet"], record["rater"]
    if study != key.study:
        raise VotesRefused(f"votes of study {_short(study)}, and this key is of {key.study!r}")
    if not _whole(number) or not 1 <= number <= key.sheets:
        raise VotesRefused(f"sheet {_short(number)} does not exist; there are 1 to {key.sheets}")
    if not isinstance(rater, str) or not rater.strip() or len(rater) > LONGEST or not rater.isprintable():
        raise VotesRefused(f"the rater's name {_short(rater)} is not 1 to {LONGEST} printable letters")
    votes = [_vote(one, key, number) for one in record["votes"]]
    seen: set[str] = set()
    for vote in votes:
        if vote.trial in seen:
            raise VotesRefused(f"trial {vote.trial} is answered twice")
        seen.add(vote.trial)
    return Sheet(rater.strip(), number, tuple(votes), path)


def _vote(record: Any, key: Key, sheet: int) -> Vote:
    if not isinstance(record, dict) or set(record) != {"trial", "choice", "ms"}:
        raise VotesRefused(f"a vote is trial, choice and ms, not {_short(record)}")
    trial, choice, ms = record["trial"], record["choice"], record["ms"]
    if not isinstance(trial, str) or trial not in key.trials:
        raise VotesRefused(f"trial {_short(trial)} does not exist")
    if key.trials[trial].sheet != sheet:
        raise VotesRefused(f"trial {trial} is on sheet {key.trials[trial].sheet}, not {sheet}")
    offered = ("left", "right", "tie") if key.ties else ("left", "right")
    if choice not in offered:
        raise VotesRefused(f"{_short(choice)} is no answer; those offered: {', '.join(offered)}")
    if not (_whole(ms) or (isinstance(ms, float) and math.isfinite(ms))) or not 0 <= ms < 1e12:
        raise VotesRefused(f"{_short(ms)} milliseconds cannot be")
    return Vote(trial, choice, int(ms))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

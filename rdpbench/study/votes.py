"""The key of a study, and votes as they come back from raters, in JSON or CSV as the page saves them.

The key says what every name in the page means; it stays with who made the study, never with the page. Nothing in votes
is trusted. A file that breaks a rule is refused whole, with the rule: another study, a sheet or trial that does not
exist, a trial of another sheet, a second vote on one, an answer that was not offered. The same rater's second file for
a sheet is refused, too, unless it says the same.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError, StoreCorrupt, VotesRefused
from rdpbench.paths import read_as, write_file

KEY_KIND, KEY_VERSION = "rdpbench-study-key", 1


@dataclass(frozen=True)
class ShownImage:
    """One reconstruction of the study."""

    codec: str
    """The curve's label."""
    target: float
    """Bits per pixel that it was matched to."""
    setting: str
    """Such as ``quality 40``."""
    image: str
    bpp: float
    """Of this image."""
    scores: dict[str, float]
    """Metrics of this reconstruction that the run has."""


@dataclass(frozen=True)
class ShownTrial:
    """One trial: file names of the page's images on either side."""

    sheet: int
    image: str
    left: str
    right: str
    catch: str
    """``left`` or ``right``, where the original is, of a catch trial; else empty."""


@dataclass(frozen=True)
class Key:
    """A whole study."""

    study: str
    """Its id, which votes must carry."""
    title: str
    command: str
    seed: int
    dataset: str
    protocol: str
    ties: bool
    """May raters say that they cannot tell?"""
    codecs: tuple[str, ...]
    targets: tuple[float, ...]
    better: dict[str, bool]
    """Metrics in the scores: is higher better?"""
    shown: dict[str, ShownImage]
    """By the name of the file in the page."""
    trials: dict[str, ShownTrial]
    """By the trial's name."""

    @property
    def sheets(self) -> int:
        """How many there are."""
        return max(asked.sheet for asked in self.trials.values())


def write_key(path: Path, key: Key) -> None:
    """Write it as JSON."""
    write_file(path, json.dumps({"kind": KEY_KIND, "version": KEY_VERSION, **asdict(key)}, indent=1) + "\n")


def read_key(path: Path) -> Key:
    """Read it, strictly.

    Raises:
        StoreCorrupt: not a key, one of another version, or a damaged one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.pop("kind", None) != KEY_KIND:
            raise StoreCorrupt(f"{path} is not the key of a study, which `rdpbench study export` writes")
        if (version := record.pop("version", None)) != KEY_VERSION:
            raise StoreCorrupt(f"{path} is a key of version {version}, this rdpbench reads {KEY_VERSION}")
        shown = {str(name): read_as(ShownImage, value, name) for name, value in record["shown"].items()}
        trials = {str(name): read_as(ShownTrial, value, name) for name, value in record["trials"].items()}
        key = read_as(Key, record | {"shown": shown, "trials": trials}, "a study")
        for name, asked in trials.items():
            known = asked.catch in ("left", "right") or (not asked.catch and {asked.left, asked.right} <= shown.keys())
            if not known:
                raise ValueError(f"trial {name} names images that the key does not know")
        if not trials:
            raise ValueError("it has no trials")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
        raise StoreCorrupt(f"{path} cannot be read as the key of a study: {error}") from error
    return key


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
    sheets: dict[tuple[str, int], Sheet] = {}
    for path in paths:
        for sheet in _read(path, key):
            other = sheets.setdefault((sheet.rater, sheet.number), sheet)
            if other.votes != sheet.votes:
                raise VotesRefused(
                    f"{path}: {sheet.rater!r} has answered sheet {sheet.number} in {other.path}, too, and otherwise; "
                    "leave one of the two out"
                )
    return list(sheets.values())


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
    record = dict(pairs)
    if len(record) != len(pairs):
        raise VotesRefused("a name stands twice in one record")
    return record


def _no_constant(name: str) -> float:
    raise VotesRefused(f"{name} is no number")


def _csv(text: str) -> list[Mapping[str, Any]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    if next(reader, None) != COLUMNS:
        raise VotesRefused(f"neither JSON nor CSV with the columns {', '.join(COLUMNS)}")
    sheets: dict[tuple[str, ...], dict[str, Any]] = {}
    for number, line in enumerate(reader, start=2):
        if line and len(line) != len(COLUMNS):
            raise VotesRefused(f"line {number} has {len(line)} cells instead of {len(COLUMNS)}")
        if line:
            study, sheet, rater, trial, choice, ms = line
            record = {"study": study, "sheet": _number(sheet), "rater": rater, "votes": []}
            votes = sheets.setdefault((study, sheet, rater), record)["votes"]
            votes.append({"trial": trial, "choice": choice, "ms": _number(ms)})
    return list(sheets.values())


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise VotesRefused(f"{text[:40]!r} is no whole number")
    return int(text)


def _sheet(record: Mapping[str, Any], key: Key, path: Path) -> Sheet:
    study, number, rater = record["study"], record["sheet"], record["rater"]
    if study != key.study:
        raise VotesRefused(f"votes of study {_short(study)}, and this key is of {key.study!r}")
    if type(number) is not int or not 1 <= number <= key.sheets:
        raise VotesRefused(f"sheet {_short(number)} does not exist; there are 1 to {key.sheets}")
    if not isinstance(rater, str) or not rater.strip() or len(rater) > LONGEST or not rater.isprintable():
        raise VotesRefused(f"the rater's name {_short(rater)} is not 1 to {LONGEST} printable letters")
    votes = tuple(_vote(vote, key, number) for vote in record["votes"])
    for trial, times in Counter(vote.trial for vote in votes).items():
        if times > 1:
            raise VotesRefused(f"trial {trial} is answered twice")
    return Sheet(rater.strip(), number, votes, path)


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
    if type(ms) not in (int, float) or not 0 <= ms < 1e12:
        raise VotesRefused(f"{_short(ms)} milliseconds cannot be")
    return Vote(trial, choice, int(ms))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""The key of a study: what every name in the page means. It stays with who made the study, never with the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rdpbench.errors import StoreCorrupt
from rdpbench.results.verdicts import write_file

KIND, VERSION = "rdpbench-study-key", 1


@dataclass(frozen=True)
class Shown:
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
class Asked:
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
    shown: dict[str, Shown]
    """By the name of the file in the page."""
    trials: dict[str, Asked]
    """By the trial's name."""

    @property
    def sheets(self) -> int:
        """How many there are."""
        return max(one.sheet for one in self.trials.values())


def write_key(path: Path, key: Key) -> None:
    """Write it as JSON.

    Raises:
        StoreUnwritable: the file cannot be written.
    """
    write_file(path, json.dumps({"kind": KIND, "version": VERSION, **asdict(key)}, indent=1) + "\n")


def read_key(path: Path) -> Key:
    """Read it, strictly.

    Raises:
        StoreCorrupt: not a key, one of another version, or a damaged one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.pop("kind", None) != KIND:
            raise StoreCorrupt(f"{path} is not the key of a study, which `rdpbench study export` writes")
        if (version := record.pop("version", None)) != VERSION:
            raise StoreCorrupt(f"{path} is a key of version {version}, this rdpbench reads {VERSION}")
        shown = {str(name): _made(Shown, one) for name, one in record.pop("shown").items()}
        trials = {str(name): _made(Asked, one) for name, one in record.pop("trials").items()}
        codecs, targets = tuple(record.pop("codecs")), tuple(record.pop("targets"))
        key = Key(**record, codecs=codecs, targets=targets, shown=shown, trials=trials)
        _check(key)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreCorrupt(f"{path} cannot be read as the key of a study: {error}") from error
    return key


def _made(kind: Any, record: Mapping[str, Any]) -> Any:
    if set(record) != {field.name for field in fields(kind)}:
        raise ValueError(f"a {kind.__name__} has {', '.join(field.name for field in fields(kind))}")
    return kind(**record)


def _check(key: Key) -> None:
    """Everything that trials name is there."""
    for name, one in key.trials.items():
        sides = {one.left, one.right}
        if one.catch not in ("", "left", "right") or (not one.catch and not sides <= key.shown.keys()):
            raise ValueError(f"trial {name} names images that the key does not know")
    if not key.trials:
        raise ValueError("it has no trials")

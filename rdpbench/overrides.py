"""What the user typed, in the words of Hydra's groups.

Hydra's override grammar is the user's, so ``codec=jpeg,webp rate=range(10,100,10)`` means what a Hydra user expects.
What it would not understand, or would take apart, is rewritten before Hydra sees it:

``codec=./mine.py:MyCodec``   a class of the user's, or of an entry point
``data=folder:PATH``          any folder
``data=manifest:FILE``        any folder whose files a manifest pins
``metrics=psnr,lpips/alex``   a list, not a sweep
``captions=human,file:PATH``  swept after composing, for codecs that take a caption
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rdpbench import registry
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.paths import conf_folder

AXES = ("rate", "bpp", "seed")
"""Expanded after composing, since one compose takes 28 ms."""

LITERAL = ("root", "run", "data.path")
"""Taken as they are typed: folder names may hold spaces, commas, quotes and ``${``, which mean something to Hydra."""


def available(group: str) -> list[str]:
    """Names in a group of ``conf``.

    >>> "kodak" in available("data")
    True
    """
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def experiment(name: str) -> list[list[str]]:
    """The runs that ``conf/experiment/NAME.yaml`` stands for, each as its overrides: a list of lines, or several.

    >>> len(experiment("taco-a1"))
    3
    """
    import yaml

    if name not in available("experiment"):
        raise UnknownName("experiment", name, available("experiment"))
    path = conf_folder() / "experiment" / f"{name}.yaml"
    try:
        lines = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    runs = lines if isinstance(lines, list) and lines and isinstance(lines[0], list) else [lines]
    if not all(isinstance(run, list) and all(isinstance(line, str) for line in run) for run in runs):
        raise ConfigError(f"{path}: it must be a list of key=value lines, or several such lists, one for each run")
    return runs


def runs_of(overrides: Sequence[str]) -> list[list[str]]:
    """Put the overrides of ``experiment=NAME`` first, run by run; what the user typed beside it wins in each.

    >>> len(runs_of(["experiment=taco-a1", "limit=2"])), len(runs_of(["codec=webp"]))
    (3, 1)
    """
    named = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    own = [line for line in overrides if not line.startswith("experiment=")]
    chosen = [name.strip() for names in named for name in names.split(",")]
    if not chosen and not any(line.startswith(("codec=", "data=")) for line in own):
        chosen = ["default"]
    typed = {line.partition("=")[0] for line in own}
    bases: list[list[str]] = [run for name in chosen for run in experiment(name)] or [[]]
    return [[line for line in base if line.partition("=")[0] not in typed] + own for base in bases]


class Typed(NamedTuple):
    """What the user typed, taken apart."""

    choices: list[list[str]]
    """What Hydra composes, one list per combination."""
    axes: dict[str, list[float]]
    """Numbers that are swept after composing."""
    metrics: list[str] | None
    captions: list[str]
    literal: dict[str, str | None]
    """What is set as it was typed."""


def split(overrides: Sequence[str]) -> Typed:
    """Take overrides apart.

    Raises:
        ConfigError: a line that is no override, or a sweep of what cannot be swept.

    >>> split(["codec=jpeg,webp", "rate=10,20"])[:2]
    ([['codec=jpeg'], ['codec=webp']], {'rate': [10.0, 20.0]})
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    choices: list[list[str]] = []
    axes: dict[str, list[float]] = {}
    metrics: list[str] | None = None
    captions: list[str] = []
    literal: dict[str, str | None] = {}
    for line in overrides:
        key, sign, value = line.partition("=")
        if not sign:
            raise ConfigError(f"{line!r} is no override; write key=value, such as codec=webp or limit=4")
        if key == "metrics" and value not in available("metrics"):
            metrics = list(dict.fromkeys(name.strip() for name in value.strip("[]").split(",") if name.strip()))
            continue
        if key == "captions":
            captions = [name for name in _names(key, value) if name != "null"]
            continue
        if key in ("codec", "data"):
            names = _names(key, value)
            if not names:
                raise ConfigError(f"{line!r} names nothing; choose from {', '.join(_shown(key))}")
            choices.append([f"{key}={name}" for name in names])
            continue
        if key in LITERAL:
            literal["data.options.path" if key == "data.path" else key] = None if value in ("", "null") else value
            continue
        try:
            parsed = OverridesParser.create().parse_overrides([line])[0]
        except OverrideParseException as error:
            raise ConfigError(f"cannot read {line!r}: {str(error).splitlines()[0]}") from error
        swept = parsed.is_sweep_override()
        values = list(parsed.sweep_string_iterator()) if swept else [parsed.get_value_element_as_str()]
        # Hydra writes a swept true as True; one setting must not have two labels.
        values = [value.lower() if value in ("True", "False") else value for value in values]
        if key in AXES:
            if values != ["null"]:
                axes[key] = [_number(key, one) for value in values for one in value.strip("[]").split(",")]
        elif len(values) > 1 and not key.lstrip("+~").startswith(("codec.", "data.")):
            raise ConfigError(f"{key} takes one value, found {value!r}; codec, data, rate, bpp and seed can be swept")
        else:
            choices.append([f"{key}={one}" for one in values])
    return Typed([list(choice) for choice in itertools.product(*choices)], axes, metrics, captions, literal)


def _names(key: str, value: str) -> list[str]:
    """Split ``codec=`` and ``data=`` at commas by hand; a comma in the path of a file or folder that exists stays."""
    pieces = value.split(",")
    names: list[str] = []
    while pieces:
        # The longest run of pieces that is an existing place; else a single piece.
        ends = (end for end in range(len(pieces), 1, -1) if _exists(key, ",".join(pieces[:end]).strip()))
        end = next(ends, 1)
        names.append(",".join(pieces[:end]).strip())
        del pieces[:end]
    return [name for name in names if name]


def _exists(key: str, name: str) -> bool:
    if key == "data" and name.startswith(("folder:", "manifest:")):
        return Path(name.partition(":")[2]).expanduser().exists()
    if key == "captions":
        return name.startswith("file:") and Path(name.partition(":")[2]).expanduser().is_file()
    where, _, attribute = name.rpartition(":")
    return attribute.isidentifier() and Path(where).expanduser().is_file()


def _shown(key: str) -> list[str]:
    return [name for name in available(key) if name != _OWN]


def _number(key: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{key} takes numbers, found {text!r}; write {key}=10,20,30")
    if key == "bpp" and number <= 0:
        raise ConfigError(f"bpp={text} must be above 0")
    if key == "seed" and not (number.is_integer() and number >= 0):
        raise ConfigError(f"seed={text} must be a whole number from 0")
    return number


def rewrite(choice: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """One combination in the words of Hydra's groups, and what is set after composing."""
    words: list[str] = []
    settings: dict[str, Any] = {}
    for line in choice:
        key, _, value = line.partition("=")
        if key == "codec" and value not in _shown("codec"):
            _check_own(value)
            words.append(f"codec={_OWN}")
            settings |= {"codec.name": _label(value), "codec.use": _absolute(value)}
        elif key == "data" and value.startswith("folder:"):
            words.append("data=folder")
            settings["data.options.path"] = value.partition(":")[2]
        elif key == "data" and value.startswith("manifest:"):
            words.append("data=manifest")
            settings["data.options.file"] = value.partition(":")[2]
        elif key == "data" and value not in available("data"):
            if ":" not in value and value not in registry.names("dataset"):
                known = {*available("data"), *registry.names("dataset")}
                raise UnknownName("dataset", value, known, "your own: data=folder:PATH or data=manifest:FILE")
            words += ["data=folder", "~data.options.path"]
            settings |= {"data.use": _absolute(value), "data.name": _label(value)}
        elif key.startswith(("codec.options.", "data.options.")):
            words.append(f"++{line}")
        elif key in ("workers", "device"):
            words.append(f"runner.{line}")
        else:
            words.append(line)
    return words, settings


_OWN = "own"


def _check_own(reference: str) -> None:
    if ":" not in reference and reference not in registry.names("codec"):
        known = {*_shown("codec"), *registry.names("codec")}
        raise UnknownName("codec", reference, known, "your own: codec=./my_codec.py:MyCodec")
    registry.source_sha256("codec", reference)  # loads it as it is now


def _label(reference: str) -> str:
    return reference.rpartition(":")[2]


def _absolute(reference: str) -> str:
    """With the full path of a file: rows outlive the folder that a command was typed in."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).expanduser().resolve()}:{name}" if where.endswith(".py") else reference


def explain(message: str, overrides: Sequence[str]) -> ConfigError:
    """Hydra's message, with the nearest key of ours where a key was unknown."""
    keys = ["codec", "data", "metrics", "rate", "bpp", "seed", "limit", "points", "run", "root", "keep", "search"]
    keys += ["retry_failed", "verify", "download", "timing", "figures", "workers", "device", "experiment"]
    keys += ["captions", "weights", "allow_partial", "allow_unreliable", "decodes", "batch"]
    for line in overrides:
        key = line.partition("=")[0].lstrip("+~")
        if "." not in key and key not in keys:
            return UnknownName("setting", key, keys, "each is explained in conf/config.yaml")
    return ConfigError(message)

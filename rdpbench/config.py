"""From what the user typed to a list of cells: Hydra composes one configuration per codec and dataset.

Hydra's own launcher is not used: it knows neither resume nor a plan. Its override grammar is, so ``codec=jpeg,webp
rate=range(10,100,10)`` means what a Hydra user expects. Three things are rewritten before Hydra sees them:

``codec=./mine.py:MyCodec``   a class of the user's, or of an entry point
``data=folder:PATH``          any folder
``metrics=psnr,lpips/alex``   a list, not a sweep
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench import registry
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.paths import conf_folder

AXES = ("rate", "bpp", "seed")
"""Expanded after composing, since one compose takes 28 ms."""

LITERAL = ("root", "run", "data.path")
"""Taken as they are typed: folder names may hold spaces, commas, quotes and ``${``, which mean something to Hydra."""


@dataclass(frozen=True)
class CodecSetting:
    """One codec with its options, as a curve's label and as what builds it."""

    name: str
    use: str
    """Registry name, entry point, or ``file.py:Class``."""
    options: tuple[tuple[str, Any], ...]
    rates: tuple[float, ...]
    """The default sweep."""
    title: str = ""
    role: str = "codec"


@dataclass(frozen=True)
class DataSetting:
    """One dataset with its options."""

    name: str
    use: str
    options: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Bench:
    """Everything that a command asked for."""

    grid: tuple[tuple[CodecSetting, DataSetting], ...]
    rates: tuple[float, ...] | None
    points: int | None
    targets: tuple[float, ...] | None
    search: str
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    metrics_available: bool
    limit: int | None
    run: str | None
    root: Path
    keep: int | None
    """Images per rate point whose reconstruction is kept; None for all."""
    retry_failed: bool
    verify: int
    download: bool
    timing: bool
    figures: bool
    workers: int | None
    device: str
    overrides: tuple[str, ...] = ()
    composed: Mapping[str, Any] | None = None
    """The first composed configuration, for the record."""


def available(group: str) -> list[str]:
    """Names in a group of ``conf``.

    >>> "kodak" in available("data")
    True
    """
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def experiment(name: str) -> list[str]:
    """The overrides that ``conf/experiment/NAME.yaml`` stands for."""
    import yaml

    if name not in available("experiment"):
        raise UnknownName("experiment", name, available("experiment"))
    lines = yaml.safe_load((conf_folder() / "experiment" / f"{name}.yaml").read_text())
    return [str(line) for line in lines]


def read(overrides: Sequence[str]) -> Bench:
    """Compose what the user typed; nothing typed means ``experiment=default``.

    Raises:
        ConfigError: an override that cannot be meant, with the nearest that can.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = _with_experiment(overrides)
    swept, axes, metrics, literal = _split(overrides)
    composed: list[dict[str, Any]] = []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
            for choice in swept:
                words, settings = _rewrite(choice)
                plain = OmegaConf.to_container(compose("config", overrides=words), resolve=True)
                assert isinstance(plain, dict)
                for key, value in (*literal.items(), *settings.items()):
                    _put(plain, key, value)
                composed.append({**{str(key): value for key, value in plain.items()}, "_choice": choice})
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(str(error), overrides) from error
    return _bench(composed, axes, metrics, tuple(overrides))


def _with_experiment(overrides: Sequence[str]) -> list[str]:
    """Put the overrides of ``experiment=NAME`` first; what the user typed beside it wins."""
    named = [line.partition("=")[2] for line in overrides if line.startswith("experiment=")]
    own = [line for line in overrides if not line.startswith("experiment=")]
    chosen = named or ([] if any(line.startswith(("codec=", "data=")) for line in own) else ["default"])
    base = [line for name in chosen for line in experiment(name)]
    typed = {line.partition("=")[0] for line in own}
    return [line for line in base if line.partition("=")[0] not in typed] + own


def _split(
    overrides: Sequence[str],
) -> tuple[list[list[str]], dict[str, list[float]], list[str] | None, dict[str, str | None]]:
    """What Hydra composes (one list per combination), the numeric axes, the metrics, and what is taken literally."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    choices: list[list[str]] = []
    axes: dict[str, list[float]] = {}
    metrics: list[str] | None = None
    literal: dict[str, str | None] = {}
    for line in overrides:
        key, sign, value = line.partition("=")
        if not sign:
            raise ConfigError(f"{line!r} is no override; write key=value, such as codec=webp or limit=4")
        if key == "metrics" and value not in available("metrics"):
            metrics = list(dict.fromkeys(name.strip() for name in value.strip("[]").split(",") if name.strip()))
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
    return [list(choice) for choice in itertools.product(*choices)], axes, metrics, literal


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
    if key == "data" and name.startswith("folder:"):
        return Path(name.partition(":")[2]).expanduser().is_dir()
    where, _, attribute = name.rpartition(":")
    return attribute.isidentifier() and Path(where).expanduser().is_file()


def _shown(key: str) -> list[str]:
    return [name for name in available(key) if name != _OWN]


def _put(plain: dict[Any, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        plain = plain.setdefault(part, {})
    plain[last] = value


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


def _rewrite(choice: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
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
        elif key == "data" and value not in available("data"):
            if ":" not in value and value not in registry.names("dataset"):
                known = {*available("data"), *registry.names("dataset")}
                raise UnknownName("dataset", value, known, "any folder: data=folder:PATH")
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
    registry.load("codec", reference)


def _label(reference: str) -> str:
    return reference.rpartition(":")[2]


def _absolute(reference: str) -> str:
    """With the full path of a file: rows outlive the folder that a command was typed in."""
    where, _, name = reference.rpartition(":")
    return f"{Path(where).expanduser().resolve()}:{name}" if where.endswith(".py") else reference


def _bench(
    composed: Sequence[Mapping[str, Any]],
    axes: Mapping[str, Sequence[float]],
    metrics: Sequence[str] | None,
    overrides: tuple[str, ...],
) -> Bench:
    first = composed[0]
    grid = dict.fromkeys((_codec(one), _data(one["data"])) for one in composed)
    _check_labels({codec for codec, _ in grid})
    if axes.get("rate") and axes.get("bpp"):
        raise ConfigError("rate= gives native settings and bpp= searches them; give one of the two")
    if first["search"] not in ("image", "dataset"):
        raise ConfigError(f"search={first['search']} is neither image nor dataset")
    names = tuple(metrics) if metrics is not None else tuple(first["metrics"]["names"])
    for name in names:
        if ":" not in name and name not in registry.names("metric"):
            raise UnknownName("metric", name, registry.names("metric"), "or metrics=available")
    return Bench(
        grid=tuple(grid),
        rates=tuple(axes["rate"]) if axes.get("rate") else None,
        points=_count(first, "points", 1, "all"),
        targets=tuple(axes["bpp"]) if axes.get("bpp") else None,
        search=first["search"],
        seeds=tuple(int(seed) for seed in axes.get("seed", [0])),
        metrics=names,
        metrics_available=metrics is None and bool(first["metrics"].get("available")),
        limit=_count(first, "limit", 1, "all"),
        run=first["run"],
        root=Path(first["root"] or "results/runs").expanduser(),
        keep=_keep(first["keep"]),
        retry_failed=_flag(first, "retry_failed"),
        verify=_count(first, "verify", 0) or 0,
        download=_flag(first, "download"),
        timing=_flag(first, "timing"),
        figures=_flag(first, "figures"),
        workers=_count(first["runner"], "workers", 0, "one per core; 0 means this process"),
        device=str(first["runner"]["device"]),
        overrides=overrides,
        composed={key: value for key, value in first.items() if key != "_choice"},
    )


def _check_labels(codecs: Iterable[CodecSetting]) -> None:
    """Two codecs under one name would be one curve, with the means of both."""
    seen: dict[str, CodecSetting] = {}
    for codec in codecs:
        other = seen.setdefault(codec.name, codec)
        if other != codec:
            raise ConfigError(
                f"two curves would have the name {codec.name!r}: {other.use} and {codec.use}; rename one of the classes"
            )


def _count(config: Mapping[str, Any], key: str, least: int, none: str = "") -> int | None:
    value = config[key]
    if value is None and none:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        unless = f", or null for {none}" if none else ""
        raise ConfigError(f"{key}={value} must be a whole number from {least}{unless}")
    return value


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config[key]
    if not isinstance(value, bool):
        raise ConfigError(f"{key}={value} must be true or false")
    return value


def _keep(value: object) -> int | None:
    if value == "all":
        return None
    if value == "none":
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigError(f"keep={value} must be all, none, or a number of images per rate point")


def _codec(one: Mapping[str, Any]) -> CodecSetting:
    codec = one["codec"]
    rates = codec.get("rates") or ()
    # Options that the user changed become part of the label: two curves of one codec must not share a name.
    typed = [line.lstrip("+") for line in one["_choice"]]
    changed = [line.partition("codec.options.")[2] for line in typed if line.startswith("codec.options.")]
    label = codec["name"] + (f"[{','.join(changed)}]" if changed else "")
    options = tuple(sorted((codec.get("options") or {}).items()))
    return CodecSetting(
        label, codec["use"], options, tuple(map(float, rates)), codec.get("title") or label, codec.get("role", "codec")
    )


def _data(data: Mapping[str, Any]) -> DataSetting:
    return DataSetting(data["name"], data["use"], tuple(sorted((data.get("options") or {}).items())))


def _explain(message: str, overrides: Sequence[str]) -> ConfigError:
    """Hydra's message, with the nearest key of ours where a key was unknown."""
    keys = ["codec", "data", "metrics", "rate", "bpp", "seed", "limit", "points", "run", "root", "keep", "search"]
    keys += ["retry_failed", "verify", "download", "timing", "figures", "workers", "device", "experiment"]
    for line in overrides:
        key = line.partition("=")[0].lstrip("+~")
        if "." not in key and key not in keys:
            return UnknownName("setting", key, keys, "each is explained in conf/config.yaml")
    return ConfigError(message)

"""From what the user typed to a list of cells: Hydra composes one configuration per codec and dataset.

Hydra's own launcher is not used: it knows neither resume nor a plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench import own, registry
from rdpbench.errors import ConfigError, UnknownName
from rdpbench.overrides import Typed, explain, rewrite, runs_of, split
from rdpbench.paths import conf_folder

OVER_DECODES = ("diversity/deviation", "diversity/lpips-alex", "diversity/lpips-squeeze", "diversity/lpips-vgg")
"""Metrics over several decodes of one bitstream; in a run their names end in the number."""


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
    captions: tuple[str, ...]
    """Sources of captions, for codecs that take one; empty means the dataset's own."""
    metrics: tuple[str, ...]
    metrics_available: bool
    limit: int | None
    run: str | None
    root: Path
    keep: int | None
    """Images per rate point whose reconstruction is kept; None for all."""
    retry_failed: bool
    allow_unreliable: bool
    verify: int
    download: bool
    timing: bool
    figures: bool
    workers: int | None
    device: str
    decodes: int = 1
    """Of each bitstream, by codecs whose decoder draws random numbers."""
    batch: int = 1
    """Images of one size that are coded together, by codecs that can."""
    dry: bool = False
    """Only a plan: nothing is made, not even captions."""
    overrides: tuple[str, ...] = ()
    composed: Mapping[str, Any] | None = None
    """The first composed configuration, for the record."""


def read(overrides: Sequence[str]) -> Bench:
    """Compose what the user typed, where it is one run; nothing typed means ``experiment=default``.

    Raises:
        ConfigError: an override that cannot be meant, with the nearest that can; or an experiment of several runs.
    """
    found = read_all(overrides)
    if len(found) > 1:
        told = "\n  ".join(" ".join(bench.overrides) for bench in found)
        raise ConfigError(f"these are {len(found)} runs, and this command takes one; they are:\n  {told}")
    return found[0]


def read_all(overrides: Sequence[str]) -> list[Bench]:
    """The runs of what the user typed: one, or as many as the experiment has.

    Raises:
        ConfigError: an override that cannot be meant, with the nearest that can.
    """
    registry.forget()
    return [_read(run) for run in runs_of(overrides)]


def _read(overrides: Sequence[str]) -> Bench:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    typed = split(overrides)
    composed: list[dict[str, Any]] = []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
            for choice in typed.choices:
                words, settings = rewrite(choice)
                plain = OmegaConf.to_container(compose("config", overrides=words), resolve=True)
                assert isinstance(plain, dict)
                for key, value in (*typed.literal.items(), *settings.items()):
                    _put(plain, key, value)
                composed.append({**{str(key): value for key, value in plain.items()}, "_choice": choice})
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(str(error), overrides) from error
    return _bench(composed, typed, tuple(overrides))


def _put(plain: dict[Any, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        plain = plain.setdefault(part, {})
    plain[last] = value


def _bench(composed: Sequence[Mapping[str, Any]], typed: Typed, overrides: tuple[str, ...]) -> Bench:
    first, axes, metrics = composed[0], typed.axes, typed.metrics
    partial = _flag(first, "allow_partial")
    kind = _weights(first["weights"])
    grid = dict.fromkeys((_codec(one, kind), _data(one["data"], partial)) for one in composed)
    _check_labels({codec for codec, _ in grid})
    if axes.get("rate") and axes.get("bpp"):
        raise ConfigError("rate= gives native settings and bpp= searches them; give one of the two")
    if first["search"] not in ("image", "dataset"):
        raise ConfigError(f"search={first['search']} is neither image nor dataset")
    decodes = _count(first, "decodes", 1) or 1
    names = _metrics(tuple(metrics) if metrics is not None else tuple(first["metrics"]["names"]), decodes)
    return Bench(
        grid=tuple(grid),
        rates=tuple(axes["rate"]) if axes.get("rate") else None,
        points=_count(first, "points", 1, "all"),
        targets=tuple(axes["bpp"]) if axes.get("bpp") else None,
        search=first["search"],
        seeds=tuple(int(seed) for seed in axes.get("seed", [0])),
        captions=tuple(dict.fromkeys(typed.captions)),
        metrics=names,
        metrics_available=bool(first["metrics"].get("available")),
        limit=_count(first, "limit", 1, "all"),
        run=first["run"],
        root=Path(first["root"] or "results/runs").expanduser(),
        keep=_keep(first["keep"]),
        retry_failed=_flag(first, "retry_failed"),
        allow_unreliable=_flag(first, "allow_unreliable"),
        verify=_count(first, "verify", 0) or 0,
        download=_flag(first, "download"),
        timing=_flag(first, "timing"),
        figures=_flag(first, "figures"),
        workers=_count(first["runner"], "workers", 0, "one per core; 0 means this process"),
        device=str(first["runner"]["device"]),
        decodes=decodes,
        batch=_count(first, "batch", 1) or 1,
        overrides=overrides,
        composed={key: value for key, value in first.items() if key != "_choice"},
    )


def _metrics(names: Sequence[str], decodes: int) -> tuple[str, ...]:
    """Names of metrics that exist; those over several decodes with their number, which is ``decodes`` unless typed."""
    found = []
    for name in names:
        stem, _, number = name.rpartition("/")
        counted = number.isdecimal() and stem in OVER_DECODES
        if ":" not in name and name not in registry.names("metric") and not counted:
            raise UnknownName("metric", name, registry.names("metric"), "or metrics=available")
        if name in OVER_DECODES and decodes == 1:
            raise ConfigError(f"{name} compares decodes of one bitstream: write {name}/5, or decodes=5")
        if counted:
            registry.load("metric", name)  # a number that cannot be meant is refused
            if decodes > 1 and int(number) != decodes:
                raise ConfigError(f"{name} compares {number} decodes, and decodes={decodes} says another number")
        found.append(f"{name}/{decodes}" if name in OVER_DECODES else name)
    return tuple(dict.fromkeys(found))


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


def _weights(value: object) -> str | None:
    if value not in (None, "official", "random", "random-full"):
        raise ConfigError(f"weights={value} must be official, random (tiny networks), or random-full")
    return str(value) if value else None


def _codec(one: Mapping[str, Any], weights: str | None) -> CodecSetting:
    codec = one["codec"]
    rates = codec.get("rates") or ()
    # Options that the user changed become part of the label: two curves of one codec must not share a name.
    typed = [line.lstrip("+") for line in one["_choice"]]
    changed = [line.partition("codec.options.")[2] for line in typed if line.startswith("codec.options.")]
    label = codec["name"] + (f"[{','.join(changed)}]" if changed else "")
    options = dict(codec.get("options") or {})
    if weights and "weights" in getattr(registry.load("codec", codec["use"]), "__dataclass_fields__", {}):
        options["weights"] = weights
        if weights != "official":  # never under the name of the real curve
            label += f"[weights={weights}]"
    if registry.own_place("codec", codec["use"]):
        try:  # rows outlive the folder that a command was typed in
            options = own.absolute(registry.load("codec", codec["use"]), options)
        except OSError as error:
            raise ConfigError(f"codec {label!r}: {error}") from error
    title, role = codec.get("title") or label, codec.get("role", "codec")
    return CodecSetting(label, codec["use"], tuple(sorted(options.items())), tuple(map(float, rates)), title, role)


def _data(data: Mapping[str, Any], partial: bool) -> DataSetting:
    options = dict(data.get("options") or {})
    fields = getattr(registry.load("dataset", data["use"]), "__dataclass_fields__", {})
    # A folder of the user's is whole as it is; only a set with a list of its images can be partial.
    if partial and "allow_partial" in fields:
        options["allow_partial"] = True
    return DataSetting(data["name"], data["use"], tuple(sorted(options.items())))

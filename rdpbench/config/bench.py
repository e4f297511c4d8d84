"""From what the user typed to a `Bench`: Hydra composes one configuration per codec and dataset.

Hydra's own launcher is not used: it knows neither resume nor a plan.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdpbench import own, registry
from rdpbench.assets.hashes import content_sha256
from rdpbench.codecs.contract import check_options, facts_of, own_identity_of, own_options, rate_of
from rdpbench.codecs.external.declared import IN_REFERENCE
from rdpbench.config.typed import (
    CHECKED,
    LAUNCHER,
    SETTINGS,
    Typed,
    check_values,
    explain,
    full_reference,
    plain,
    rewrite,
    runs_of,
    split,
)
from rdpbench.datasets.captions import parse as parse_source
from rdpbench.errors import ConfigError, RdpbenchError, UnknownName
from rdpbench.metrics.contract import short_name
from rdpbench.networks.precision import devices_of
from rdpbench.paths import RUNS, conf_folder
from rdpbench.progress import tell
from rdpbench.results.stats.current import read_grades
from rdpbench.setting import PRESENTED, Bench, CodecSetting, DataSetting, Presentation

OVER_DECODES = ("diversity/deviation", "diversity/lpips-alex", "diversity/lpips-squeeze", "diversity/lpips-vgg")
"""Metrics over several decodes of one bitstream; in a run their names end in the number."""

KEYS = {
    "codec": ("name", "title", "use", "options", "rates", "role", "paper", "fidelity"),
    "data": ("name", "title", "use", "options"),
    "metrics": ("names", "available"),
    "runner": ("name", "workers", "device", "workers_per_device", *LAUNCHER),
}
"""What a file of each group of ``conf`` can say."""
NEEDED = ("name", "use", "names")


def read_bench(overrides: Sequence[str]) -> Bench:
    """Compose what the user typed, where it is one run; nothing typed means ``experiment=default``,
    without what is not installed.

    Raises:
        ConfigError: an override that cannot be meant, with the nearest that can; or an experiment of several runs.
    """
    benches = read_benches(overrides)
    if len(benches) > 1:
        runs = "\n  ".join(" ".join(bench.overrides) for bench in benches)
        raise ConfigError(f"these are {len(benches)} runs, and this command takes one; they are:\n  {runs}")
    return benches[0]


def read_benches(overrides: Sequence[str]) -> list[Bench]:
    """The runs of what the user typed: one, or as many as the experiment has.

    Raises:
        ConfigError: an override that cannot be meant, with the nearest that can.
    """
    registry.forget()
    named = any(line.startswith(("codec=", "data=", "experiment=")) for line in plain(overrides))
    benches = [_read(run) if named else _installed(_read(run)) for run in runs_of(overrides)]
    _check_captions(benches, typed=any(line.startswith("captions=") for line in overrides))
    return benches


def _installed(bench: Bench) -> Bench:
    """The default without codecs whose packages are not installed; says what to type for them."""
    lacks = {
        codec.name: lacking[0]
        for codec in bench.codecs
        if (lacking := [text for need in getattr(codec.cls, "needs", ()) if (text := need.missing())])
    }
    for name, text in lacks.items():
        tell(f"{name} is left out: {text}")
    return replace(bench, grid=tuple(pair for pair in bench.grid if pair[0].name not in lacks))


def _read(overrides: Sequence[str]) -> Bench:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    typed = split(overrides)
    composed: list[dict[str, Any]] = []
    try:
        with _own_hydra():
            for choice in typed.choices:
                words, settings = rewrite(choice, typed.literal.get("python") or "")
                config = compose("config", overrides=words)
                # What the environment holds may be a secret: a record of the command has what was typed.
                plain, as_typed = (OmegaConf.to_container(config, resolve=resolve) for resolve in (True, False))
                assert isinstance(plain, dict)
                assert isinstance(as_typed, dict)
                _check_files(plain, words)
                for key, value in (*typed.literal.items(), *settings.items()):
                    _put(plain, key, value)
                    _put(as_typed, key, value)
                extra = {"_choice": choice, "_as_typed": as_typed}
                composed.append({**{str(key): value for key, value in plain.items()}, **extra})
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise explain(str(error)) from error
    return _bench(composed, typed, tuple(overrides))


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Hydra on our groups within the block. A program that calls us may be a Hydra application: it has its own back."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.version import VersionBase

    every: dict[Any, Any] = Singleton._instances
    theirs = {kind: every.pop(kind) for kind in (GlobalHydra, VersionBase) if kind in every}
    try:
        with initialize_config_dir(str(conf_folder().resolve()), version_base="1.3"):
            yield
    finally:
        for kind in (GlobalHydra, VersionBase):
            every.pop(kind, None)
        every |= theirs


def _check_files(composed: Mapping[Any, Any], words: Sequence[str]) -> None:
    """Raise `ConfigError` if a file of ``conf`` says what nothing reads, or leaves out what is needed."""
    chosen = dict(word.partition("=")[::2] for word in words)
    parts: list[tuple[str, object, tuple[str, ...]]] = [("config.yaml", composed, SETTINGS)]
    parts += [(f"{group}/{chosen.get(group, '')}.yaml", composed.get(group), keys) for group, keys in KEYS.items()]
    for file, record, keys in parts:
        where = f"in {conf_folder() / file}".replace("/.yaml", ", in the file that config.yaml names")
        if not isinstance(record, Mapping):
            raise ConfigError(f"{record!r} {where} is no list of keys; it can hold {', '.join(keys)}")
        if odd := [str(key) for key in record if key not in keys]:
            raise UnknownName("key", odd[0], keys, where)
        if lacking := [key for key in NEEDED if file != "config.yaml" and key in keys and record.get(key) is None]:
            raise ConfigError(f"{where.removeprefix('in ')} has no {lacking[0]}; it can hold {', '.join(keys)}")


def _put(plain: dict[Any, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for part in path:
        plain = plain.setdefault(part, {})
    plain[last] = value


def _bench(composed: Sequence[Mapping[str, Any]], typed: Typed, overrides: tuple[str, ...]) -> Bench:
    first, axes, metrics = composed[0], typed.axes, typed.metrics
    check_values(first)
    grid = dict.fromkeys(
        (_codec(config, first["weights"]), _data(config["data"], first["allow_partial"])) for config in composed
    )
    _check_labels({codec for codec, _ in grid})
    if axes.get("rate") and axes.get("bpp"):
        raise ConfigError("rate= gives native settings, bpp= gives target rates to search for; type only one of them")
    unused = [line for line in overrides if line.partition("=")[0] in ("search", "tolerance")]
    if unused and not axes.get("bpp"):
        raise ConfigError(f"{unused[0]} is for target rates, and none is given; add bpp=0.25")
    if (timeout := first["timeout"]) and first["runner"]["workers"] == 0:
        raise ConfigError(
            f"timeout={timeout} needs a worker process that can be ended; workers=0 has none, workers=1 has"
        )
    if typed.literal.get("python") and not any(registry.parse(codec.use).apart for codec, _ in grid):
        raise ConfigError(
            f"python={typed.literal['python']} runs a class of your own or a recipe, and none is named; "
            "write codec=./mine.py:MyCodec"
        )
    names = _metrics(tuple(metrics) if metrics is not None else tuple(first["metrics"]["names"]), first["decodes"])
    others = {"keep", "weights", "allow_partial", "runner.workers", "runner.workers_per_device"}
    return Bench(
        grid=tuple(grid),
        rates=tuple(axes["rate"]) if axes.get("rate") else None,
        targets=tuple(axes["bpp"]) if axes.get("bpp") else None,
        seeds=tuple(int(seed) for seed in axes.get("seed", [0])),
        captions=tuple(dict.fromkeys(typed.captions)),
        metrics=names,
        metrics_available=bool(first["metrics"].get("available")),
        root=Path(first["root"] or RUNS).expanduser(),
        grades=read_grades(first["grades"] or ""),
        show=Presentation.read({name: first[name] for name in PRESENTED}),
        keep={"all": None, "none": 0}.get(first["keep"], first["keep"]),
        workers=first["runner"]["workers"],
        # Of other machines this one may have none.
        devices=_devices(str(first["runner"]["device"]) if first["runner"]["name"] == "local" else "cpu", first),
        workers_per_device=first["runner"]["workers_per_device"],
        runner=first["runner"],
        **{name: first[name] for name in ("run", *CHECKED) if name not in others},
        overrides=overrides,
        # What Hydra does not see is put in: a record that shows defaults instead would be wrong.
        composed=first["_as_typed"] | axes | {"captions": typed.captions or None, "metrics": {"names": list(names)}},
        interpolated={key: text for config in composed for key, text in _interpolated(config, config["_as_typed"])},
    )


def _devices(typed: str, composed: Mapping[str, Any]) -> tuple[str, ...]:
    """The devices of a command, of which some take one only."""
    names = [name.strip() for name in typed.split(",") if name.strip()]
    if not names:
        raise ConfigError("device= has no value; write device=cpu, device=cuda (all GPUs), or device=cuda:0,cuda:2")
    alone = "timing=true" if composed["timing"] else "workers=0" if composed["runner"]["workers"] == 0 else ""
    if alone and len(names) > 1:
        raise ConfigError(f"{alone} is one process on one device, and device={typed} names several; write one of them")
    return tuple(names) if alone else devices_of(names)


def _interpolated(value: Any, typed: Any, name: str = "") -> Iterator[tuple[tuple[str, Any], str]]:
    """Each value that came out of an interpolation, with the name of its option, and what was typed."""
    if isinstance(typed, Mapping):
        for key, inner in typed.items():
            yield from _interpolated(value[key], inner, str(key))
    elif isinstance(typed, list):
        for part, inner in zip(value, typed, strict=True):
            yield from _interpolated(part, inner, name)
    elif isinstance(typed, str) and "${" in typed and value != typed:
        yield (name, value), typed


def _metrics(names: Sequence[str], decodes: int) -> tuple[str, ...]:
    """Names of metrics that exist; those over several decodes with their number, which is ``decodes`` unless typed."""
    checked = []
    for name in map(_variant, _short_names(names)):
        stem, _, number = name.rpartition("/")
        counted = number.isdecimal() and stem in OVER_DECODES
        if ":" not in name and name not in registry.names("metric") and not counted:
            raise UnknownName("metric", name, registry.names("metric"), "your own: metrics=./my_metric.py:MyMetric")
        if name in OVER_DECODES and decodes == 1:
            raise ConfigError(f"{name} compares decodes of one bitstream: write {name}/5, or decodes=5")
        if counted:
            registry.load("metric", name)  # a number that cannot be meant is refused
            if decodes > 1 and int(number) != decodes:
                raise ConfigError(f"{name} compares {number} decodes, and decodes={decodes} is another number")
        checked.append(f"{name}/{decodes}" if name in OVER_DECODES else name)
    return tuple(dict.fromkeys(checked))


def _short_names(names: Sequence[str]) -> list[str]:
    """Names as scores have them: of a metric of the user's the file and the class, whose place is noted."""
    full = list(map(full_reference, names))
    places = {short_name(name): name for name in full if ":" in name}
    if twice := next((name for name in full if ":" in name and places[short_name(name)] != name), ""):
        raise ConfigError(f"two metrics would have one name: {twice} and {places[short_name(twice)]}; rename a file")
    registry.metric_places.update(places)
    return list(map(short_name, full))


def _variant(name: str) -> str:
    """The variant that the bare name of a family stands for: the only one, or the usual one, which is said."""
    family = [known for known in registry.names("metric") if known.startswith(f"{name}/")]
    taken = registry.USUAL.get(name) or (family[0] if len(family) == 1 else name)
    if name in registry.names("metric") or taken == name:
        return name
    others = [known for known in family if known != taken]
    tell(f"metrics={name}: taken as {taken}" + (f"; its other variants are {', '.join(others)}" if others else ""))
    return taken


def _check_captions(benches: Sequence[Bench], *, typed: bool) -> None:
    """Raise `ConfigError` for what is no source of captions, or if they were typed and no codec of any run takes one.

    An experiment of which one codec is run may have captions for others.
    """
    sources = dict.fromkeys(source for bench in benches for source in bench.captions)
    for source in sources:
        parse_source(source)
    codecs = dict.fromkeys(codec for bench in benches if bench.captions for codec in bench.codecs)
    if sources and typed and not any(facts_of(codec.cls).uses_caption for codec in codecs):
        names = ", ".join(dict.fromkeys(codec.name for codec in codecs))
        raise ConfigError(
            f"captions={','.join(sources)} is for codecs that take a caption, and {names} takes none; leave it out"
        )


def _check_labels(codecs: Iterable[CodecSetting]) -> None:
    """Two codecs under one name would be one curve, with the means of both."""
    seen: dict[str, CodecSetting] = {}
    for codec in codecs:
        other = seen.setdefault(codec.name, codec)
        cls = codec.cls
        if other != codec and other.use == codec.use and own_options(cls, dict(codec.options)) and "@" in codec.name:
            raise ConfigError(f"two files of weights have equal content, and are one curve, {codec.name!r}; name one")
        if other != codec:
            raise ConfigError(
                f"two curves would have the name {codec.name!r}: {other.use} and {codec.use}; rename one of the classes"
            )


def _codec(composed: Mapping[str, Any], weights: str | None) -> CodecSetting:
    codec = composed["codec"]
    rates: Sequence[float] = codec.get("rates") or ()
    # Options that the user changed become part of the label: two curves of one codec must not share a name.
    changed = [line.partition("codec.options.")[2] for line in composed["_choice"] if line.startswith("codec.options.")]
    options = _options(codec)
    if registry.parse(codec["use"]).apart:  # files by their names, and nothing of where it runs
        pairs = (line.partition("=") for line in changed)
        changed = [
            f"{name}={_FOLDERS.sub('', value.rstrip('/'))}" for name, _, value in pairs if name not in IN_REFERENCE
        ]
    cls = registry.load("codec", codec["use"])
    if weights and "weights" in getattr(cls, "__dataclass_fields__", {}):
        options["weights"] = weights
    weights_typed = own_options(cls, options)
    # With the full path: rows outlive the folder that a command was typed in.
    options |= {name: os.path.abspath(Path(path).expanduser()) for name, path in weights_typed.items()}  # noqa: PTH100 - keeps links
    stated = cls.own_rates(options) if weights_typed and hasattr(cls, "own_rates") else None
    rates = tuple(map(float, rates if stated is None else stated))
    if weights_typed:
        digest = _own_digest(cls, options, rates)
        changed = [line for line in changed if line.partition("=")[0] not in weights_typed]
        changed += [f"{name}={Path(path).name}{digest}" for name, path in weights_typed.items()]
    elif registry.own_place("codec", codec["use"]):
        changed = [_short_path(line, cls) for line in changed]
    label = codec["name"] + (f"[{','.join(changed)}]" if changed else "")
    if options.get("weights", "official") != "official" and weights:  # never under the name of the real curve
        label += f"[weights={weights}]"
    if registry.own_place("codec", codec["use"]):
        try:  # rows outlive the folder that a command was typed in
            options = own.absolute(cls, options)
        except OSError as error:
            raise ConfigError(f"codec {label!r}: {error}") from error
    title, role = codec.get("title") or label, codec.get("role", "codec")
    values = _interpolated(codec.get("options") or {}, composed["_as_typed"]["codec"].get("options") or {})
    typed = tuple(pair for pair in values if "oc.env" in pair[1])
    setting = CodecSetting(label, codec["use"], tuple(sorted(options.items())), rates, title, role, typed)
    check_options(setting)
    return setting


_FOLDERS = re.compile(r"[^\[\]{}:,]*/")
"""What stands before the name of a file, also of one in a list."""


def _options(composed: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a setting holds them: lists and mappings are compared by what is in them."""
    return {name: own.mapped(value, str) for name, value in (composed.get("options") or {}).items()}


def _short_path(line: str, cls: type) -> str:
    """An option that is a path in full, as labels have it: rows are published, and a path tells of a machine."""
    name, _, text = line.partition("=")
    path = own.full_path(text)
    if name not in own.path_fields(cls) or not (text.startswith("~") or os.path.isabs(text)) or not path.exists():  # noqa: PTH117
        return line
    return f"{name}={path.name}@{content_sha256(path)[:8]}"


def _own_digest(cls: type, options: Mapping[str, Any], rates: Sequence[float]) -> str:
    """``@`` and the first digits of a hash over own weights of all rate points: a network that is trained further keeps
    its file's name, and is another curve. Empty where they cannot be read yet, which the plan tells."""
    axis = rate_of(cls)
    points: list[dict[str, Any]] = [{axis.field: rate} for rate in rates] if axis and rates else [{}]
    try:
        identities = [own_identity_of(cls(**{**options, **point})) for point in points]
    except (TypeError, OSError, RdpbenchError):
        return ""
    content = [identity for identity in identities if identity and "missing" not in identity]
    return f"@{hashlib.sha256(' '.join(content).encode()).hexdigest()[:8]}" if content else ""


def _data(data: Mapping[str, Any], partial: bool) -> DataSetting:
    options = _options(data)
    fields = getattr(registry.load("dataset", data["use"]), "__dataclass_fields__", {})
    # A folder of the user's is whole as it is; only a set with a list of its images can be partial.
    if partial and "allow_partial" in fields:
        options["allow_partial"] = True
    setting = DataSetting(data["name"], data["use"], tuple(sorted(options.items())))
    check_options(setting)
    return setting

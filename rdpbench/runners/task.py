"""The unit of work: one image of one cell, and the key that says what its result depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from rdpbench import own, registry
from rdpbench.assets import weights
from rdpbench.assets.hashes import content_sha256
from rdpbench.codecs.contract import (
    Codec,
    Rate,
    check_options,
    coder_of,
    own_identity_of,
    own_options,
    rate_of,
    weights_kind_of,
)
from rdpbench.datasets.captions.sources import Caption
from rdpbench.datasets.contract import Pin
from rdpbench.datasets.index import Entry
from rdpbench.errors import ConfigError
from rdpbench.metrics.contract import Features, beside, meaning_of
from rdpbench.needs import Package, package_version
from rdpbench.results.store.schema import Measure, Member, Place, Row
from rdpbench.runners.beside import identity as identity_beside
from rdpbench.runners.search import TOLERANCE, is_tight
from rdpbench.setting import CodecSetting

KEY_VERSION = 1
"""Raised when the meaning of a key changes: all results are then made anew."""


@dataclass(frozen=True)
class Task:
    """One image of one cell."""

    key: str
    codec: CodecSetting
    identity: str
    """What codes, as JSON: configuration and coder without the rate."""
    rate: float | None
    target: float | None
    """Target in bpp, where the rate is searched per image."""
    seed: int
    dataset: str
    dataset_size: int
    pin: Pin
    root: str
    """Where a set of the user's lies; empty for a set that is known by its name."""
    protocol: str
    entry: Entry
    caption: Caption | None = None
    """What the encoder is given; None for a codec that takes none."""
    keep: bool = False
    """Is the reconstruction to be kept as PNG?"""
    tolerance: float = TOLERANCE
    """How far from the target the rate may be, as a ratio."""


@dataclass(frozen=True)
class Work:
    """What is left to do for a task: code it, score it, time it, or some of these."""

    task: Task
    metrics: tuple[str, ...]
    """Pair metrics whose scores are missing."""
    row: Row | None
    """The stored row, if it was coded before: its bitstream is decoded, never encoded again."""
    timing: bool = False
    features: tuple[str, ...] = ()
    """Set metrics, one for each kind of features that the reconstruction still lacks."""
    originals: tuple[str, ...] = ()
    """The same for the original; the first task of an image makes them for all."""


def build(setting: CodecSetting, rate: float | None, device: str = "cpu") -> Codec:
    """A fresh codec object at a rate point; on the device, if it can compute there.

    Raises:
        UnknownName: an option that the codec does not have.
        OutOfRange: a rate outside what it takes.
    """
    cls = registry.load("codec", setting.use)
    check_options(setting)
    options = dict(setting.options)
    axis = axis_of(setting)
    if rate is not None:
        if axis is None:
            raise ConfigError(single_point(setting))
        options[axis.field] = axis.check(setting.name, rate)
    if device_of(setting, device) != "cpu":
        options["device"] = device
    if registry.own_place("codec", setting.use):
        try:
            options = own.as_paths(cls, own.absolute(cls, options))
        except OSError as error:
            raise ConfigError(f"codec {setting.name!r}: {error}") from error
    try:
        codec = cls(**options)
    except TypeError as error:
        raise ConfigError(f"codec {setting.name!r} cannot be built with {options}: {error}") from error
    if not isinstance(codec, Codec):
        raise ConfigError(f"{setting.use!r} is no codec: it needs encode(image, side) and decode(data)")
    return codec


def axis_of(setting: CodecSetting) -> Rate | None:
    """The rate axis of a codec setting; own weights may be a single rate point where the published have an axis."""
    cls = registry.load("codec", setting.use)
    own_rates = getattr(cls, "own_rates", None)
    return None if own_rates and own_rates(dict(setting.options)) == () else rate_of(cls)


def single_point(setting: CodecSetting) -> str:
    """What to say where a codec has no rate axis, and a rate was asked for."""
    axis = rate_of(registry.load("codec", setting.use))
    how = (
        f"; own weights for several: write {{{axis.field}}} in their name, such as net-{{{axis.field}}}.pt"
        if axis
        else ""
    )
    return f"codec {setting.name!r} has a single rate point; leave out rate= and bpp={how}"


def device_of(setting: CodecSetting, device: str) -> str:
    """Where a codec computes: on the device asked for if it can use one (``uses_device``), else on the CPU."""
    return device if _uses_device(setting) else "cpu"


def _uses_device(setting: CodecSetting) -> bool:
    return bool(getattr(registry.load("codec", setting.use), "uses_device", False))


def uses_caption(setting: CodecSetting) -> bool:
    """Does the codec's encoder take a caption?"""
    return bool(getattr(registry.load("codec", setting.use), "uses_caption", False))


def identity(setting: CodecSetting, rate: float | None = None) -> str:
    """All of a codec that changes its result, but for the rate: class, version, options, source, coder; as JSON.

    The checkpoint of a rate point is part of its coder; without a rate it is that of the lowest. Own weights are there
    by their content alone.
    """
    typed = own_options(registry.load("codec", setting.use), dict(setting.options))
    # What a file of the user's holds may change while this process runs.
    return _identity(setting, rate, own_identity_of(_built_at(setting, rate)) if typed else "")


def _built_at(setting: CodecSetting, rate: float | None) -> Codec:
    axis = axis_of(setting)
    return build(setting, (axis.low if rate is None else rate) if axis else None)


@cache
def _identity(setting: CodecSetting, rate: float | None, weights_of_own: str) -> str:  # noqa: ARG001 - in the cache's key
    source = registry.source_sha256("codec", setting.use)  # first: what is built then is of this state
    axis, codec = axis_of(setting), _built_at(setting, rate)
    kind = weights_kind_of(codec)
    files = own_files(setting, codec)
    unkeyed = {*getattr(codec, "unkeyed", ()), axis.field if axis else "", "device" if _uses_device(setting) else ""}
    unkeyed |= own_options(type(codec), dict(setting.options)).keys()
    # With all defaults spelled out: a default that changes must change the key.
    options = asdict(codec) if is_dataclass(codec) else dict(setting.options)
    return canonical(
        {
            "use": setting.use.rpartition("/")[2],
            "version": str(getattr(codec, "version", "1")),
            "options": {name: value for name, value in options.items() if name not in unkeyed and name not in files},
            "source": source,
            # By what is in them: a file that is trained again under its name is another one.
            "coder": {**coder_of(codec), **{f"file {name}": hashes for name, hashes in files.items()}},
            **({"weights": kind} if kind else {}),
        }
    )


def own_files(setting: CodecSetting, codec: Codec) -> dict[str, Any]:
    """Hashes of the files and folders that a codec of the user's has as fields of type ``Path``, by field.

    Raises:
        ConfigError: one of them is not there.
    """
    if not registry.own_place("codec", setting.use):
        return {}
    return _hashes(own.paths_of(codec), f"codec {setting.name!r}")


def file_hashes(codec: Codec) -> dict[str, str]:
    """Hashes of a codec's files and folders by absolute path, for a row."""
    paths = own.paths_of(codec)
    return {str(path): content_sha256(path) for path in own.leaves(paths) if isinstance(path, Path)}


def _hashes(paths: Mapping[str, Any], of: str) -> dict[str, Any]:
    try:
        return {name: own.mapped(value, content_sha256) for name, value in paths.items()}
    except OSError as error:
        raise ConfigError(f"{of}: cannot read {error.filename}: {error.strerror}") from error


def forget() -> None:
    """A new command: the user's files are looked at again."""
    for remembered in (_identity, metric_identity, definition, features_key):
        remembered.cache_clear()


def identity_of_all(setting: CodecSetting) -> str:
    """For a search, which may take any rate point: what codes at each of those that are listed."""
    axis = axis_of(setting)
    assert axis is not None
    every = {identity(setting, rate) for rate in setting.rates or axis.points} or {identity(setting)}
    return every.pop() if len(every) == 1 else _merged(sorted(every))


def _merged(identities: Sequence[str]) -> str:
    records = [json.loads(one) for one in identities]
    # One column names one kind; where checkpoints of several kinds serve, the least trusted does.
    kinds = [one.get("weights", "") for one in records]
    kind = next((name for name in ("random", "own", "unpinned", "official") if name in kinds), "")
    coders = {f"{name} ({n})": made for n, one in enumerate(records) for name, made in one["coder"].items()}
    return canonical({**records[0], "coder": coders, **({"weights": kind} if kind else {})})


def task_key(
    codec: str,
    rate: float | None,
    target: float | None,
    seed: int,
    protocol: str,
    entry: Entry,
    caption: Caption | None = None,
    tolerance: float = TOLERANCE,
) -> str:
    """sha256 over all that changes the result of a task. Device and batch size do not enter: they are recorded.

    The image's id is in it too: a set that holds the same pixels twice counts them twice in its means. A tolerance is
    in it where it is tighter than usual, as a search may then end elsewhere; a looser one finds the same.
    """
    text = caption.text if caption else None
    return key_of(codec, rate, target, seed, protocol, entry.sample.id, entry.sha256, text, tolerance)


def key_of(
    codec: str,
    rate: float | None,
    target: float | None,
    seed: int,
    protocol: str,
    image: str,
    pixels: str,
    caption: str | None,
    tolerance: float | None,
) -> str:
    """The same of what a row states; ``codec`` is what `identity` gives, ``pixels`` their sha256."""
    record = {
        "key": KEY_VERSION,
        "codec": codec,
        "rate": rate,
        "target_bpp": target,
        "seed": seed,
        "protocol": protocol,
        "image": image,
        "pixels": pixels,
        "caption": caption,
        **({"tolerance": tolerance} if target is not None and is_tight(tolerance) else {}),
    }
    return _sha256(record)


def place_of(task: Task) -> Place:
    """To which curve a task belongs."""
    source = task.caption.source if task.caption else ""
    return Place(task.codec.name, task.dataset, task.pin.sha256, task.root, source)


def member_of(task: Task) -> Member:
    """That a task belongs to its point; without the call that names it."""
    member = Member(
        member_key="",
        task_key=task.key,
        dataset_size=task.dataset_size,
        manifest_kind=task.pin.kind,
        tags=",".join(task.entry.sample.tags),
        session="",
        **place_of(task)._asdict(),
    )
    return replace(member, member_key=_sha256(vars(member)))


def score_key(task: Task, metric: str) -> str:
    """sha256 over a task, all of a metric that changes its value, and what it takes beside the image."""
    record = {"task": task.key, "metric": metric_identity(metric)}
    if names := beside(registry.load("metric", metric)):
        record["beside"] = identity_beside(names, task.entry.sample)
    return _sha256(record)


def score_key_alone(task: str, metric: str) -> str:
    """The key of a score by the installed edition of a metric that takes nothing beside the image."""
    return _sha256({"task": task, "metric": metric_identity(metric)})


@cache
def metric_identity(name: str) -> Mapping[str, Any]:
    """All of a metric that changes its value: name, version, packages, weights, source, files."""
    source = registry.source_sha256("metric", name)  # first: the class is of this state
    cls = registry.load("metric", name)
    return {
        "name": name.rpartition("/")[2] if ":" in name else name,
        **_made_of(cls),
        "source": source,
        **(_own_files_of(cls, f"metric {name!r}") if registry.own_place("metric", name) else {}),
    }


def _own_files_of(cls: type, of: str) -> dict[str, Any]:
    """Hashes of the files of a class of the user's that is built as it is by default."""
    files = _hashes(own.paths_of(cls), of)
    return {"files": files} if files else {}


@cache
def definition(name: str) -> str:
    """Which edition of a metric the installed code is: its version, and a hash of all that changes its value.

    >>> definition("psnr").partition("-")[0]
    '1'
    """
    made_of = metric_identity(name)
    return f"{made_of['version']}-{_sha256(made_of)[:10]}"


def measure_of(name: str) -> Measure:
    """What a run stores of a metric that does not ship, so that its values are read without it."""
    means = meaning_of(registry.load("metric", name))
    return Measure(
        measure_key=f"{name} {definition(name)}",
        metric=name,
        definition=definition(name),
        source=registry.source_sha256("metric", name),
        kind=means.kind,
        unit=means.unit,
        higher_is_better=means.higher_is_better,
        perceptual=means.perceptual,
        averaged=means.averaged,
        low=float(means.bounds[0]),
        high=float(means.bounds[1]),
        session="",
    )


@cache
def features_key(features: type[Features]) -> str:
    """sha256 over all of a kind of features that changes its arrays: name, version, packages, weights, source."""
    source = registry.source_of(features)
    own_parts = {"source": source, **_own_files_of(features, f"features {features.id!r}")} if source else {}
    return _sha256({"id": features.id, **_made_of(features), **own_parts})


def _made_of(cls: type) -> dict[str, Any]:
    needs: Sequence[Any] = getattr(cls, "needs", ())
    made_by = getattr(cls, "made_by", None)
    return {
        **({"made_by": made_by()} if made_by else {}),
        "version": str(getattr(cls, "version", "1")),
        "packages": {need.name: package_version(need.name) for need in needs if isinstance(need, Package)},
        "weights": [weights.identity(need.card) for need in needs if isinstance(need, weights.Weights)],
    }


def timing_key(task: str, device: str, threads: int, warmup: int, repeats: int) -> str:
    """sha256 over a task and the conditions of a timing."""
    return _sha256({"task": task, "device": device, "threads": threads, "warmup": warmup, "repeats": repeats})


def canonical(record: object) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), default=str)


def _sha256(record: object) -> str:
    return hashlib.sha256(canonical(record).encode()).hexdigest()

"""What a stored result depends on: the keys of tasks, scores, features and times, and versions of codecs and metrics.

A key is a sha256 over everything that changes a result. What is stored under its key is not computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as encode_text
from pathlib import Path
from typing import Any

from rdpbench import own, registry
from rdpbench.assets import weights
from rdpbench.assets.hashes import content_sha256
from rdpbench.codecs.contract import (
    Codec,
    Facts,
    Rate,
    check_options,
    coder_of,
    facts_of,
    faults_of,
    own_identity_of,
    own_options,
    weights_kind_of,
)
from rdpbench.datasets.contract import Sample
from rdpbench.errors import ConfigError
from rdpbench.metrics.contract import Features, beside
from rdpbench.needs import Package, package_version
from rdpbench.networks import held
from rdpbench.networks.precision import stay_exact
from rdpbench.setting import CodecSetting, Setting

KEY_VERSION = 1
"""Raised when the meaning of a key changes: all results are then made anew."""
TOLERANCE = 0.1
"""How far from its target a rate may be, as a ratio, unless ``tolerance=`` says something else."""
TIMING_WARMUP, TIMING_REPEATS = 1, 5


def canonical(record: object) -> str:
    """JSON with sorted keys and no spaces: equal content, equal text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), default=str)


def sha256_of(record: object) -> str:
    """sha256 of a record as canonical JSON."""
    return hashlib.sha256(canonical(record).encode()).hexdigest()


# Codecs


def facts(setting: CodecSetting) -> Facts:
    """What the class of a codec states."""
    return facts_of(setting.cls)


def build(setting: CodecSetting, rate: float | None, device: str = "cpu") -> Codec:
    """A fresh codec object at a rate point; on the device, if it can compute there.

    From here on this process holds the networks of this codec (`rdpbench.networks.held`).

    Raises:
        UnknownName: an option that the codec does not have.
        OutOfRange: a rate outside what it takes.
    """
    check_options(setting)
    held.begin((setting.use, setting.options))
    options = dict(setting.options)
    if rate is not None:
        axis = axis_of(setting)
        if axis is None:
            raise ConfigError(single_point(setting))
        options[axis.field] = axis.check(setting.name, rate)
    if device_of(setting, device) != "cpu":
        options["device"] = device
        with suppress(ImportError):  # of torch: what computes by another library knows its own switches
            stay_exact()
    if registry.own_place("codec", setting.use):
        try:
            options = own.as_paths(setting.cls, own.absolute(setting.cls, options))
        except OSError as error:
            raise ConfigError(f"codec {setting.name!r}: {error}") from error
    try:
        codec = setting.cls(**options)
    except TypeError as error:
        raise ConfigError(f"codec {setting.name!r} cannot be built with {options}: {error}") from error
    if not isinstance(codec, Codec):
        raise ConfigError(f"{setting.use!r} is no codec: {'; '.join(faults_of(setting.cls))}")
    return codec


def axis_of(setting: CodecSetting) -> Rate | None:
    """The rate axis of a codec; own weights may be a single rate point where the published have an axis."""
    own_rates = getattr(setting.cls, "own_rates", None)
    return None if own_rates and own_rates(dict(setting.options)) == () else facts(setting).rate


def single_point(setting: CodecSetting) -> str:
    """What to say where a codec has no rate axis, and a rate was asked for."""
    told = f"codec {setting.name!r} has a single rate point; leave out rate= and bpp="
    if axis := facts(setting).rate:
        told += f"; own weights for several: write {{{axis.field}}} in their name, such as net-{{{axis.field}}}.pt"
    return told


def device_of(setting: CodecSetting, device: str) -> str:
    """Where a codec computes: on the device asked for if it can use one, else on the CPU."""
    return device if facts(setting).uses_device else "cpu"


def build_at(setting: CodecSetting, rate: float | None) -> Codec:
    """A codec object on the CPU; without a rate at the lowest."""
    axis = axis_of(setting)
    return build(setting, (axis.low if rate is None else rate) if axis else None)


def codec_identity(setting: CodecSetting, rate: float | None = None) -> str:
    """All of a codec that changes its result, but for the rate: class, version, options, source, coder; as JSON.

    The checkpoint of a rate point is part of its coder; without a rate it is that of the lowest. Own weights are there
    by their content alone.
    """
    # What a file of the user's holds may change while this process runs.
    has_own = own_options(setting.cls, dict(setting.options))
    return _identity(setting, rate, own_identity_of(build_at(setting, rate)) if has_own else "")


@cache
def _identity(setting: CodecSetting, rate: float | None, weights_of_own: str) -> str:  # noqa: ARG001 - in the cache's key
    source = registry.source_sha256("codec", setting.use)  # first: what is built then is of this state
    axis, codec, stated = axis_of(setting), build_at(setting, rate), facts(setting)
    files: dict[str, Any] = {}
    if registry.own_place("codec", setting.use):  # by what is in them: a file that is trained again is another one
        files = _hashes(own.paths_of(codec), f"codec {setting.name!r}")
    unkeyed = {*stated.unkeyed, *files, *own_options(type(codec), dict(setting.options))}
    unkeyed |= {axis.field if axis else "", "device" if stated.uses_device else ""}
    # With all defaults spelled out: a default that changes must change the key.
    options = asdict(codec) if is_dataclass(codec) else dict(setting.options)
    kind = weights_kind_of(codec)
    return canonical(
        {
            "use": registry.parse(setting.use).short if ":" in setting.use else setting.use,
            "version": str(getattr(codec, "version", "1")),
            "options": {name: value for name, value in options.items() if name not in unkeyed},
            "source": source,
            "coder": {**coder_of(codec), **{f"file {name}": hashes for name, hashes in files.items()}},
            **({"weights": kind} if kind else {}),
        }
    )


def identity_at(codec: CodecSetting, setting: Setting) -> str:
    """The same at a setting; for a search, which may take any rate point, what codes at each that is listed."""
    axis = axis_of(codec)
    if setting.target is None or axis is None:
        return codec_identity(codec, setting.rate)
    every = {codec_identity(codec, rate) for rate in codec.rates or axis.points} or {codec_identity(codec)}
    if len(every) == 1:
        return every.pop()
    records = [json.loads(text) for text in sorted(every)]
    # One column names one kind; where checkpoints of several kinds serve, the least trusted does.
    kinds = [record.get("weights", "") for record in records]
    kind = next((name for name in ("random", "own", "unpinned", "official") if name in kinds), "")
    coders = {f"{name} ({n})": coder for n, record in enumerate(records) for name, coder in record["coder"].items()}
    return canonical({**records[0], "coder": coders, **({"weights": kind} if kind else {})})


def file_hashes(codec: Codec) -> dict[str, str]:
    """Hashes of the files and folders that a codec of the user's has as fields, by absolute path."""
    paths = own.leaves(own.paths_of(codec))
    return {str(path): content_sha256(path) for path in paths if isinstance(path, Path)}


def _hashes(paths: Mapping[str, Any], owner: str) -> dict[str, Any]:
    try:
        return {name: own.mapped(value, content_sha256) for name, value in paths.items()}
    except OSError as error:
        raise ConfigError(f"{owner}: cannot read {error.filename}: {error.strerror}") from error


# Tasks


def key_of(
    codec: str,
    setting: Setting,
    seed: int,
    protocol: str,
    image: str,
    pixels: str,
    caption: str | None,
    tolerance: float | None,
) -> str:
    """sha256 over all that changes the result of a task. Device and batch size do not enter: they are recorded.

    ``codec`` is what `codec_identity` gives, ``pixels`` are a sha256, ``image`` is an id: a set that holds equal pixels
    twice counts them twice in its means. A tolerance counts where it is tighter than usual.
    """
    return keys_of(codec, setting, seed, protocol, tolerance)(image, pixels, caption).hex()


def keys_of(
    codec: str, setting: Setting, seed: int, protocol: str, tolerance: float | None
) -> Callable[[str, str, str | None], bytes]:
    """`key_of` for many images, as bytes: what they share is hashed once, so that a key takes a microsecond.

    The text that is hashed is that of `canonical`, whose names are sorted: caption, codec, image, key, pixels, ...
    """
    shared = {"protocol": protocol, "rate": setting.rate, "seed": seed, "target_bpp": setting.target}
    if setting.target is not None and is_tight(tolerance):
        shared["tolerance"] = tolerance
    tail = f',"{canonical(shared)[2:]}'.encode()
    middle = f',"codec":{encode_text(codec)},"image":'
    start = hashlib.sha256(f'{{"caption":null{middle}'.encode())

    def key(image: str, pixels: str, caption: str | None) -> bytes:
        if caption is None:
            text = start.copy()
        else:
            text = hashlib.sha256(f'{{"caption":{encode_text(caption)}{middle}'.encode())
        text.update(_of_image(image, pixels) + tail)
        return text.digest()

    return key


@lru_cache(1 << 17)  # every setting asks of the same images
def _of_image(image: str, pixels: str) -> bytes:
    return f'{encode_text(image)},"key":{KEY_VERSION},"pixels":"{pixels}"'.encode()


def is_tight(tolerance: float | None) -> bool:
    """May a search end elsewhere by this tolerance than by the usual one?

    >>> is_tight(0.01), is_tight(0.5), is_tight(None)
    (True, False, False)
    """
    return tolerance is not None and tolerance < TOLERANCE


def timing_key(task: str, device: str) -> str:
    """sha256 over a task and the conditions of a timing."""
    conditions = {"device": device, "threads": 1, "warmup": TIMING_WARMUP, "repeats": TIMING_REPEATS}
    return sha256_of({"task": task, **conditions})


# Metrics


def score_key(task: str, metric: str, sample: Sample | None = None) -> str:
    """sha256 over a task, all of a metric that changes its value, and what it takes beside the image."""
    names = beside(registry.load("metric", metric)) if sample else ()
    given = {"beside": beside_key(names, sample)} if names and sample else {}
    return sha256_of({"task": task, "metric": metric_identity(metric), **given})


def beside_key(names: Sequence[str], sample: Sample) -> str:
    """sha256 of the captions or label maps that a metric takes beside an image; empty if it takes nothing."""
    parts: list[str] = []
    for name in names:
        # What the dataset does not have is told when it is needed, as the metric's error for that image.
        parts += sample.references if name == "captions" else [_file_sha256(sample.labels)] if sample.labels else []
    hashes = b"".join(hashlib.sha256(part.encode()).digest() for part in parts)
    return hashlib.sha256(hashes).hexdigest() if names else ""


@cache
def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def metric_identity(name: str) -> Mapping[str, Any]:
    """All of a metric that changes its value: name, version, packages, weights, source, files."""
    source = registry.source_sha256("metric", name)  # first: the class is of this state
    cls = registry.load("metric", name)
    files = _hashes(own.paths_of(cls), f"metric {name!r}") if registry.own_place("metric", name) else {}
    return {
        "name": name.rpartition("/")[2] if ":" in name else name,
        **_made_of(cls),
        "source": source,
        **({"files": files} if files else {}),
    }


@cache
def definition(name: str) -> str:
    """Which edition of a metric the installed code is: its version, and a hash of all that changes its value.

    >>> definition("psnr").partition("-")[0]
    '1'
    """
    made_of = metric_identity(name)
    return f"{made_of['version']}-{sha256_of(made_of)[:10]}"


@cache
def features_key(features: type[Features]) -> str:
    """sha256 over all of a kind of features that changes its arrays: name, version, packages, weights, source."""
    own_parts: dict[str, Any] = {}
    if source := registry.source_of(features):
        files = _hashes(own.paths_of(features), f"features {features.id!r}")
        own_parts = {"source": source, **({"files": files} if files else {})}
    return sha256_of({"id": features.id, **_made_of(features), **own_parts})


def _made_of(cls: type) -> dict[str, Any]:
    needs: Sequence[Any] = getattr(cls, "needs", ())
    made_by = getattr(cls, "made_by", None)
    return {
        **({"made_by": made_by()} if made_by else {}),
        "version": str(getattr(cls, "version", "1")),
        "packages": {need.name: package_version(need.name) for need in needs if isinstance(need, Package)},
        "weights": [weights.card_identity(need.card) for need in needs if isinstance(need, weights.Weights)],
    }


def forget() -> None:
    """A new command: the user's files are looked at again."""
    for remembered in (_identity, metric_identity, definition, features_key):
        remembered.cache_clear()

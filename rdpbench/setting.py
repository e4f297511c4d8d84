"""A codec's setting, which makes one point with a dataset; what a command asked for (`Bench`), and how it is shown."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from rdpbench import registry
from rdpbench.errors import ConfigError, check_names
from rdpbench.paths import read_yaml

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """A native value, a target that was searched for, or neither for a codec with a single point.

    >>> Setting("quality", 50.0).words, Setting("quality", target=0.25).words, Setting("").words
    ('quality 50', 'target 0.25 bpp', 'the only point')
    """

    field: str
    """Name of the native setting, such as ``quality``."""
    rate: float | None = None
    """Its value; None where a target was searched, since each image then has its own."""
    target: float | None = None
    """Bits per pixel."""

    @classmethod
    def of_line(cls, line: Any) -> Setting:
        """The setting of a line of a frame of points, where what is not there is NaN."""
        rate, target = (None if math.isnan(line[name]) else float(line[name]) for name in ("rate", "target_bpp"))
        return cls(str(line["rate_field"]), rate, target)

    @property
    def words(self) -> str:
        """As people call it."""
        if self.target is not None:
            return f"target {digits(self.target)} bpp"
        return "the only point" if self.rate is None else f"{self.field.replace('_', ' ')} {digits(self.rate)}"

    @property
    def order(self) -> tuple[float, float, str]:
        """Sorts the settings of a codec."""
        known = (-math.inf if value is None else value for value in (self.target, self.rate))
        return (*known, self.field)  # type: ignore[return-value]  # of two floats and a text


def digits(value: float) -> str:
    """A number with all of its digits: where it names something, another number must not have the same name.

    >>> digits(50.0), digits(0.1234567), digits(2e6 + 0.5)
    ('50', '0.1234567', '2000000.5')
    """
    return repr(float(value)).removesuffix(".0")


def split_label(label: str) -> tuple[str, list[str]]:
    """A curve's label taken apart: the codec, and the options in brackets behind it; without the grade.

    >>> split_label("pic[steps=4,size=64][weights=random]")
    ('pic', ['steps=4', 'size=64', 'weights=random'])
    >>> split_label("mine[steps=4] (joint)")
    ('mine', ['steps=4'])
    """
    label = re.sub(r" \((joint|reported)\)$", "", label)
    codec, *groups = re.split(r"\[(.*?)\](?=\[|$)", label)
    return codec, [option for group in groups if group for option in re.split(r",(?=\w+=)", group)]


def with_option(label: str, option: str) -> str:
    """A label with one more option, before the grade.

    >>> with_option("mine[steps=4] (joint)", "run=desk")
    'mine[steps=4][run=desk] (joint)'
    """
    return re.sub(r"( \((?:joint|reported)\))?$", lambda grade: f"[{option}]{grade[0]}", label, count=1)


def split_list(text: str) -> list[str]:
    """What is typed between commas.

    >>> split_list("jpeg, webp,")
    ['jpeg', 'webp']
    """
    return [part.strip() for part in text.split(",") if part.strip()]


def thin(values: Sequence[T], most: int | None) -> list[T]:
    """At most so many of the values, evenly chosen, both ends among them.

    >>> thin([5, 10, 15, 20, 25], 3)
    [5, 15, 25]
    """
    if most is None or most >= len(values):
        return list(values)
    if most == 1:
        return [values[len(values) // 2]]
    return [values[round(number * (len(values) - 1) / (most - 1))] for number in range(most)]


# How results are shown

SIZES = ("column", "page", "slide")
"""How wide a figure is."""


@dataclass(frozen=True)
class Presentation:
    """How results are shown: what `run`, `show` and `figure` take under the same names."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """What codecs, metrics and datasets are called instead."""
    order: tuple[str, ...] = ()
    """Codecs that come first, in legends and tables."""
    panels: tuple[str, ...] = ()
    """Metrics or datasets that have panels, in their order; all, if empty. ``ms-ssim-db`` is MS-SSIM in decibels, and
    ``ms-ssim-linear`` as it is measured."""
    size: str = ""
    """One of `SIZES`; empty for the usual one of each figure."""
    notes: bool = False
    """Is the caption in the picture, too?"""
    anchor: str = ""
    """The codec that BD-rates in the legend are against."""
    siunitx: bool = False
    """Are numbers of LaTeX tables aligned by siunitx?"""

    @classmethod
    def read(cls, typed: Mapping[str, Any]) -> Presentation:
        """From what was typed for each; what is not there is as usual.

        Raises:
            ConfigError: labels without a name, or a flag that is neither true nor false.
            UnknownName: no such size.

        >>> Presentation.read({"labels": "jpeg=JPEG 4:2:0,psnr=PSNR", "order": "webp,jpeg"}).labels["jpeg"]
        'JPEG 4:2:0'
        """
        size = typed.get("size") or ""
        check_names("size", [size] if size else [], SIZES)
        flags = {}
        for name in FLAGS:
            value = typed.get(name) or False
            if value not in (True, False, "true", "false"):
                raise ConfigError(f"{name}={value} must be true or false")
            flags[name] = value in (True, "true")
        order, panels = (tuple(_outside(typed.get(name) or "")) for name in ("order", "panels"))
        return cls(_labels(typed.get("labels") or ""), order, panels, size, anchor=typed.get("anchor") or "", **flags)

    @property
    def shown(self) -> tuple[str, ...]:
        """The panels, without how MS-SSIM is drawn in them.

        >>> Presentation(panels=("ms-ssim-db", "psnr")).shown
        ('ms-ssim', 'psnr')
        """
        return tuple(re.sub("^ms-ssim-(db|linear)$", "ms-ssim", name) for name in self.panels)

    def ordered(self, codecs: Iterable[str]) -> list[str]:
        """Codecs or their labels, those first that are named.

        >>> Presentation(order=("webp",)).ordered(["jpeg", "webp[effort=6]", "webp"])
        ['webp[effort=6]', 'webp', 'jpeg']
        """
        places = {name: place for place, name in enumerate(self.order)}
        usual = len(places)
        return sorted(codecs, key=lambda label: places.get(label, places.get(split_label(label)[0], usual)))


FLAGS = ("notes", "siunitx")
USUAL = Presentation()
PRESENTED = tuple(each.name for each in fields(Presentation))
"""Names of the settings that say how results are shown."""


def _labels(typed: str) -> dict[str, str]:
    """``name=text,name=text``, or a YAML file with a line for each."""
    if typed.endswith((".yaml", ".yml")):
        read = read_yaml(Path(typed).expanduser())
        return {str(name): str(text) for name, text in read.items()}
    labels = {}
    for part in _outside(typed):
        name, sign, text = _BRACKETS.sub(lambda match: match[0].replace("=", "\0"), part).partition("=")
        if not (name and sign and text):
            raise ConfigError(
                f"labels={typed} is not NAME=TEXT,NAME=TEXT, nor a YAML file with a line NAME: TEXT for each"
            )
        labels[name.replace("\0", "=").strip()] = text.replace("\0", "=").strip()
    return labels


_BRACKETS = re.compile(r"\[[^\]]*\]")


def _outside(text: str) -> list[str]:
    """What stands between commas, but for those in brackets, as labels of curves have them."""
    hidden = _BRACKETS.sub(lambda match: match[0].replace(",", "\0"), text)
    return [part.replace("\0", ",") for part in split_list(hidden)]


# What is run


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
    typed: tuple[tuple[tuple[str, Any], str], ...] = ()
    """What was typed in the place of a value that is out of the environment, by the option's name and that value."""

    def __hash__(self) -> int:
        return hash((self.name, self.use))  # options may hold lists and mappings

    @property
    def cls(self) -> Any:
        """Its class; another one once a file of the user's was edited."""
        return registry.load("codec", self.use)


@dataclass(frozen=True)
class DataSetting:
    """One dataset with its options."""

    name: str
    use: str
    options: tuple[tuple[str, Any], ...]

    def __hash__(self) -> int:
        return hash((self.name, self.use))

    @property
    def cls(self) -> Any:
        """Its class; another one once a file of the user's was edited."""
        return registry.load("dataset", self.use)


@dataclass(frozen=True)
class Bench:
    """Everything that a command asked for."""

    grid: tuple[tuple[CodecSetting, DataSetting], ...]
    rates: tuple[float, ...] | None
    points: int | None
    targets: tuple[float, ...] | None
    search: str
    """``image``, or what of the whole dataset is searched: ``dataset`` (the mean of bpp) or ``pooled``."""
    tolerance: float
    """How far from a target a rate may be, as a ratio: 0.1 is at most 1.1 times as much, or as little."""
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
    """Processes for what computes on no GPU; None for one per core, 0 for this process alone."""
    devices: tuple[str, ...]
    """``cpu``, or GPUs by their numbers, such as ``cuda:0``."""
    workers_per_device: int = 1
    """Processes on each GPU."""
    decodes: int = 1
    """Of each bitstream, by codecs whose decoder draws random numbers."""
    max_failures: int | None = None
    """Failed tasks after which a run stops."""
    runner: Mapping[str, Any] = field(default_factory=dict)
    """What a launcher is told."""
    timeout: float | None = None
    """Seconds for each task; 0 for no limit, None for one that grows with the image."""
    batch: int = 1
    """Images of one size that are coded together, by codecs that can."""
    grades: tuple[str, ...] = ("decoded",)
    """Of rates, that tables and figures show."""
    show: Presentation = USUAL
    dry: bool = False
    """Only a plan: nothing is made, not even captions."""
    overrides: tuple[str, ...] = ()
    composed: Mapping[str, Any] | None = None
    """The first composed configuration, for the record, with interpolations such as ``${oc.env:X}`` as typed."""
    interpolated: Mapping[tuple[str, Any], str] = field(default_factory=dict)
    """What was typed in place of a value, by the option's name and that value, where an interpolation was typed."""

    @property
    def device(self) -> str:
        """The first of them: where this process computes itself."""
        return self.devices[0]

    @property
    def codecs(self) -> list[CodecSetting]:
        """Each codec of the grid once."""
        return list(dict.fromkeys(codec for codec, _ in self.grid))

    @property
    def datasets(self) -> list[DataSetting]:
        """Each dataset of the grid once."""
        return list(dict.fromkeys(data for _, data in self.grid))

"""What a codec is: it turns an image into bytes, and bytes into an image.

A codec is a frozen dataclass whose fields are its whole configuration, with the two methods of `Codec`.
One of its fields sets the rate; the class says which, as ``rate = Rate("quality", 1, 95)``. The rest is optional
class data, read through the functions below, so that a codec of one's own stays one small class:

``needs``    what must be installed (`rdpbench.needs`); if one is missing, the plan stops and says how to get it
``seeded``   True if the encoder or decoder draws random numbers; only then is ``seed`` a sweep axis
``stochastic``  True if the decoder draws random numbers, and is ``decode(data, *, seed=None)``: another seed gives
    another sample of the same bitstream, None takes the seed in the container; ``decodes=`` and diversity need it
``batches``  True if it has ``encode_batch(images, sides)`` for images of one size, each with a bitstream that decodes
    alone; and, where its decoder can, ``decode_batch(datas)``; used where ``batch=`` is above 1
``any_size``  True if images of several sizes may be in a batch; all of a chunk are then coded together
``grade``    how far its rate is proven: ``decoded``, unless a codec of `rdpbench.codecs.external` proves less
``decode_notes()``  texts by name, about how an image was decoded, to be read beside its row
``heavy``    True if building the codec is expensive, since it loads weights: tasks are then grouped by rate point
``preload``  modules that are imported once for all workers, such as ``("torch",)``
``uses_device``  True if it computes on ``device=``, which is then a field of it; rows of all others say ``cpu``
``depends_on_cpu``  which properties of the processor change the bytes: ``("instructions",)``, or `FLOAT_LIBRARIES`, as
    for ``uses_device``; the regression gate expects equal bytes only where these are equal, and without them always
``uses_caption``  True if the encoder takes ``side.caption``; only then is ``captions`` a sweep axis, and given at all
``unkeyed``  names of fields that change no byte and no pixel, such as a timeout
``Path``     a field of this type is a file or folder that is part of a codec of one's own: it is in the key by content
``coder()``  library versions, or version and sha256 of a binary; it enters the key of every result
``settings()``  settings beside the fields, by name, which are recorded with each result; it enters no key
``version``  raise it when the codec's own code changes what it writes

What a codec with weights also has:

``weight_needs()``  the cards of this very configuration and rate point
``weights_kind()``  ``official``, ``unpinned``, ``own`` or ``random``: a column of every row, never mixed in a table
``takes_own``  options that may name a file or folder of the user's weights, each with the published names that it also
    takes; the key holds what ``own_identity()`` says of its content, not the path
``own_rates(options)``  a class method: the rates that own weights serve, () for a single rate point, None for all
``ready()``         loads the weights; called before time is measured
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from inspect import signature
from math import inf, isfinite
from operator import index
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from rdpbench.errors import (
    BitstreamError,
    CodecError,
    CoderFailed,
    ConfigError,
    OutOfRange,
    RdpbenchError,
    UnknownName,
    nearest,
)
from rdpbench.image import Image
from rdpbench.needs import Need
from rdpbench.registry import Kind, abstract_in, needs_in, refusal, shape_of, texts_in, type_of
from rdpbench.setting import CodecSetting, DataSetting, digits

FLOAT_LIBRARIES = (
    "instructions",
    "vendor",
    "ATEN_CPU_CAPABILITY",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)
"""What numpy, torch and TensorFlow choose their code by: the processor, and variables that tell them to take another.
Their sums then have another order, and a latent next to .5 is rounded to the other side."""


@dataclass(frozen=True)
class Side:
    """What only the encoder may see beside the image. The decoder gets none of it unless it is in the bytes."""

    caption: str | None = None
    seed: int = 0
    image: str = ""
    """The image's id, for pictures that somebody else made; empty for all codecs that encode."""


@dataclass(frozen=True)
class Bitstream:
    """The bytes that are stored and counted, and what they are made of.

    >>> Bitstream.whole(b"abc").parts["file"]
    3
    """

    data: bytes
    """Anything of 8-bit items is copied to plain ``bytes``: ``bytearray``, ``memoryview``, ``uint8`` arrays."""
    parts: Mapping[str, int]
    """Bytes by part; they add up to ``len(data)``."""
    info: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What is worth reading beside the result but is not transmitted: texts by name, such as a prompt that was found.
    The exact ``command`` of a binary and ``legacy`` rates have columns of their own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", _plain_bytes(self.data))
        object.__setattr__(self, "parts", _counted(self.parts))
        if not isinstance(self.info, Mapping):
            raise CodecError(f"Bitstream.info holds texts by name, but is a {type(self.info).__name__}; write a dict")
        if odd := {name: value for name, value in self.info.items() if not isinstance(value, str)}:
            name, value = next(iter(odd.items()))
            raise CodecError(
                f"Bitstream.info holds texts by name, but {name!r} is {value!r:.80}, a {type(value).__name__}; "
                f'write {name}=str(...), or f"{{...:.4f}}" for a number'
            )
        if unnamed := [name for name in self.info if not isinstance(name, str)]:
            raise CodecError(f"Bitstream.info holds texts by name, but one of its names is {unnamed[0]!r:.80}, no text")
        if sum(self.parts.values()) != len(self.data):
            raise CodecError(f"parts {dict(self.parts)} do not add up to the {len(self.data)} bytes of the bitstream")
        if not self.data:
            raise CodecError("the encoder returned no bytes; even an empty message needs one to be stored")

    @classmethod
    def whole(cls, data: bytes, **info: str) -> Bitstream:
        """A format of its own, counted as its file."""
        plain = _plain_bytes(data)
        return cls(plain, {"file": len(plain)}, info)


def _plain_bytes(data: object) -> bytes:
    """A copy as plain ``bytes``: what is of other items has another length than it has bytes."""
    if type(data) is bytes:
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # what has no buffer is told below
    except (TypeError, ValueError):
        how = "text.encode()" if isinstance(data, str) else "bytes(...)"
        raise CodecError(f"a bitstream is bytes, found {type(data).__name__}; write {how}") from None
    if view.itemsize != 1:
        raise CodecError(
            f"a bitstream is bytes, found {type(data).__name__} of {view.itemsize}-byte items, whose length is not "
            "the number of bytes; write words.tobytes()"
        )
    return view.tobytes()


def _counted(parts: object) -> dict[str, int]:
    """Bytes by part as plain numbers."""
    if not isinstance(parts, Mapping):
        raise CodecError(f'Bitstream.parts holds bytes by part, found {type(parts).__name__}; write {{"payload": 5}}')
    plain = {}
    for name, size in parts.items():
        if not isinstance(name, str) or not name.strip():
            raise CodecError(f'Bitstream.parts has a part without a name, {name!r:.80}; write such as "payload"')
        # `index` takes the whole numbers of numpy, too, and no fraction.
        whole = hasattr(size, "__index__") and not type(size).__name__.startswith("bool")
        if not whole or (count := index(size)) < 0:
            raise CodecError(
                f"Bitstream.parts[{name!r}] is {size!r:.80} ({type(size).__name__}), and no whole number of bytes from "
                "0; write len(section)"
            )
        plain[str(name)] = count
    return plain


@runtime_checkable
class Codec(Protocol):
    """The contract. ``decode`` gets bytes and nothing else, in a fresh object, later in a fresh process."""

    def encode(self, image: Image, side: Side) -> Bitstream: ...

    def decode(self, data: bytes) -> Image: ...


@dataclass(frozen=True)
class Rate:
    """The native setting that moves a codec along its curve.

    >>> Rate("quality", 1, 95).check("jpeg", 40)
    40
    """

    field: str
    """Name of the codec's field, such as ``quality`` or ``qp``."""
    low: float
    high: float
    step: float = 1
    """Legal values are ``low + k * step``; 0 means any real number between ``low`` and ``high``."""
    rises: bool = True
    """Do the bytes grow with the value? (Quality: yes. QP: no.)"""
    points: tuple[float, ...] = ()
    """The default sweep. Of a codec that ships it stands in ``conf/codec``, which `rdpbench ls` reads alone."""
    listed: bool = False
    """Are ``points`` all that is legal, as with networks for a few rates?"""

    @property
    def values(self) -> tuple[float, ...]:
        """All values that are legal; ``points`` where that is a continuum.

        >>> Rate("quality", 1, 3).values
        (1, 2, 3)
        """
        if self.listed or not self.step:
            return self.points
        return tuple(self.low + number * self.step for number in range(round((self.high - self.low) / self.step) + 1))

    def check(self, codec: str, value: float) -> float:
        """Return the value (an int where steps are whole), or raise `OutOfRange` that says what is legal."""
        if self.listed and value not in self.points:
            legal = ", ".join(map(digits, self.points))
            raise OutOfRange(f"rate {digits(value)}: {codec!r} has {self.field} {legal} only")
        legal = f"{self.low:g}..{self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")
        off_grid = self.step and abs((value - self.low) / self.step - round((value - self.low) / self.step)) > 1e-9
        if not self.low <= value <= self.high or off_grid:
            meant = "; bits per pixel are bpp=" if 0 < value < 10 and value % 1 else ""
            raise OutOfRange(f"rate {digits(value)} is outside what {codec!r} takes: {self.field} {legal}{meant}")
        whole = self.step and float(self.step).is_integer() and float(self.low).is_integer()
        return round(value) if whole else float(value)


def check_choice(codec: str, option: str, value: object, choices: Collection[object]) -> None:
    """Raise `ConfigError` that lists the choices, unless ``value`` is one of them.

    >>> check_choice("jpeg", "chroma", "4:1:1", ["4:4:4", "4:2:0"])
    Traceback (most recent call last):
    rdpbench.errors.ConfigError: jpeg: chroma='4:1:1' is not legal; choose from '4:4:4', '4:2:0'
    """
    if value not in list(choices):  # a list that was typed has no hash
        legal = ", ".join(map(repr, choices))
        raise ConfigError(f"{codec}: {option}={value!r} is not legal; choose from {legal}")


Value = TypeVar("Value")


def option(default: Value, choices: Iterable[object]) -> Value:
    """A field of a dataclass that has one of several values; `CheckedOptions` checks it."""
    return field(default=default, metadata={"choices": tuple(choices)})


def number(default: Value, least: float, most: float = inf, *, zero: tuple[int, int] | None = None) -> Value:
    """A field within bounds, whole if the least is an ``int``.

    ``zero`` is what a 0 stands for: with a model's weights, and with ``weights=random``, where no picture is to be
    seen. `CheckedOptions` spells it out, so that it is in keys and rows.
    """
    return field(default=default, metadata={"bounds": (least, most), "zero": zero})


def check_number(codec: str, option: str, value: float, least: float, most: float = inf) -> None:
    """Raise `ConfigError` unless an option is within bounds, and a whole number if its least value is an ``int``."""
    whole = isinstance(least, int)
    if (whole and (isinstance(value, bool) or not isinstance(value, int))) or not least <= value <= most:
        bounds = f"from {least:g}" + (f" to {most:.10g}" if most < inf else "")
        raise ConfigError(f"{codec}: {option}={value!r} must be {'a whole number ' if whole else ''}{bounds}")


class CheckedOptions:
    """Base of the codecs that ship: rate and options are checked when one is built."""

    name: ClassVar[str]
    """Of the class, in messages."""
    rate: ClassVar[Rate]
    needs: ClassVar[tuple[Need, ...]] = ()
    unkeyed: ClassVar[frozenset[str]] = frozenset()
    version: ClassVar[str] = "1"
    heavy: ClassVar[bool] = False
    uses_caption: ClassVar[bool] = False

    def __post_init__(self) -> None:
        known = {field.name: field.metadata for field in fields(self)}  # type: ignore[arg-type]  # a dataclass when built
        for name, facts in known.items():
            if facts.get("zero") and type(getattr(self, name)) in (int, float) and not getattr(self, name):
                object.__setattr__(self, name, facts["zero"][getattr(self, "weights", "") == "random"])
        self.rate.check(self.name, getattr(self, self.rate.field))
        for name, facts in known.items():
            if "choices" in facts:
                check_choice(self.name, name, getattr(self, name), facts["choices"])
        for name, facts in known.items():
            if "bounds" in facts:
                check_number(self.name, name, getattr(self, name), *facts["bounds"])


class ProgramCodec(CheckedOptions):
    """Base of the codecs that run a program of the user's, for at most ``timeout_s`` seconds a call."""

    unkeyed = frozenset({"timeout_s"})

    timeout_s: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.timeout_s > 0:
            raise ConfigError(f"codec {self.name!r}: timeout_s={self.timeout_s!r} must be more than 0 seconds")


def encoding(codec: str) -> AbstractContextManager[None]:
    """Whatever a library raises while it encodes is a `CoderFailed` that quotes it."""
    return _raising(CoderFailed, f"{codec} could not encode")


def decoding(codec: str) -> AbstractContextManager[None]:
    """Whatever a library raises while it decodes is a `BitstreamError`: damage trips parsers in many ways."""
    return _raising(BitstreamError, f"not a {codec} bitstream, or damaged")


@contextmanager
def _raising(kind: type[CodecError], what: str) -> Iterator[None]:
    try:
        yield
    except RdpbenchError:
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error


CODES = {
    "encode": (("image", "side"), "image is uint8 (H, W, 3); return bytes, or a Bitstream"),
    "decode": (("data",), "data is bytes; return uint8 (H, W, 3)"),
}
"""What a codec must have: arguments, and what they and the result are."""


def faults_of(codec: type) -> list[str]:
    """What a class lacks, or states oddly, that is to be a codec; empty if nothing.

    >>> from rdpbench.codecs.classical.pillow import JPEG
    >>> len(faults_of(JPEG)), len(faults_of(dict))
    (0, 2)
    """
    faults = list(abstract_in(codec))
    for method, (arguments, types) in CODES.items():
        faults += shape_of(codec, method, arguments, types=types)
    faults += _faults_of_rate(codec)
    facts = facts_of(codec)
    for flag in FLAGS:
        faults += type_of(codec, flag, bool, f"{flag} = True or False")
    if facts.batches:
        faults += shape_of(codec, "encode_batch", ("images", "sides"))
    if facts.decodes_batches:
        faults += shape_of(codec, "decode_batch", ("datas",))
    if facts.uses_device and (why := refusal(codec, (), ("device",), some=True)):
        faults.append(f'uses_device is True, but it cannot be built with device="cuda": {why}')
    faults += type_of(codec, "version", (str, int), 'version = "1"')
    faults += needs_in(codec)
    faults += texts_in(codec, "preload", 'preload = ("torch",)')
    faults += texts_in(codec, "unkeyed", 'unkeyed = ("timeout",)')
    faults += texts_in(codec, "depends_on_cpu", 'depends_on_cpu = ("instructions",)')
    # `settings` is only told; what it raises is told in its place.
    for method in ("coder", "ready", "decode_notes", "weight_needs", "weights_kind", "own_identity"):
        faults += shape_of(codec, method, ()) if getattr(codec, method, None) is not None else ()
    return faults


def _faults_of_rate(codec: type) -> list[str]:
    rate = getattr(codec, "rate", None)
    if rate is None or (is_dataclass(codec) and "rate" in (known.name for known in fields(codec))):
        return []
    if not isinstance(rate, Rate):
        return [f'rate is {rate!r:.60}, and no Rate; write rate = Rate("quality", 1, 95)']
    numbers = {"low": rate.low, "high": rate.high, "step": rate.step}
    odd = [f"{name} {value!r:.40}" for name, value in numbers.items() if not _is_number(value)]
    odd += [f"point {point!r:.40}" for point in rate.points if not _is_number(point)]
    if odd:
        return [f"rate has {', '.join(odd)}, which is no number"]
    faults = []
    names = option_names(codec)
    if names is not None and rate.field not in names:
        has = f"its fields are {', '.join(names)}" if names else f"it has none; write {rate.field}: int = {rate.low:g}"
        faults.append(f"rate names the field {rate.field!r}, and {has}")
    if rate.low > rate.high or rate.step < 0:
        faults.append(f"rate goes from {rate.low:g} to {rate.high:g} in steps of {rate.step:g}; write the least first")
    for point in rate.points:
        try:
            rate.check(codec.__name__, point)
        except OutOfRange as error:
            faults.append(str(error))
    return faults


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


FLAGS = ("seeded", "stochastic", "batches", "any_size", "heavy", "uses_device", "uses_caption")
GRADES = ("decoded", "joint", "reported")
"""How far a rate is proven: a decoder gave the pixels from the bytes alone; one command made bitstream and picture; or
somebody else states the rate of a picture."""


@dataclass(frozen=True)
class Facts:
    """What a codec class states, with the default of all that it leaves out. The head of this module explains each."""

    rate: Rate | None
    """None for a codec with a single rate point."""
    needs: tuple[Need, ...]
    version: str
    seeded: bool
    stochastic: bool
    batches: bool
    decodes_batches: bool
    any_size: bool
    heavy: bool
    grade: str
    """One of `GRADES`."""
    uses_device: bool
    uses_caption: bool
    preload: tuple[str, ...]
    unkeyed: frozenset[str]
    depends_on_cpu: tuple[str, ...]
    """Empty for a codec that writes the same bytes on all processors."""
    takes_own: Mapping[str, frozenset[str]]


@lru_cache(64)  # asked for a dozen times in a task
def facts_of(codec: type) -> Facts:
    """The facts of a codec class; what is stated wrongly (`faults_of`) counts as left out.

    >>> from rdpbench.codecs.classical.jpegxl import JPEGXL
    >>> facts_of(JPEGXL).depends_on_cpu, facts_of(JPEGXL).seeded
    (('instructions',), False)
    >>> facts_of(type("Mine", (), {"uses_device": True})).depends_on_cpu == FLOAT_LIBRARIES
    True
    """

    def stated(name: str, default: Any, types: Any = (tuple, list, set, frozenset)) -> Any:
        value = getattr(codec, name, default)
        return value if isinstance(value, types) else default

    flags: dict[str, Any] = {flag: bool(getattr(codec, flag, False)) for flag in FLAGS}
    return Facts(
        rate=stated("rate", None, Rate),
        needs=tuple(stated("needs", ())),
        version=str(getattr(codec, "version", "1")),
        grade=str(stated("grade", "decoded", str)),
        decodes_batches=getattr(codec, "decode_batch", None) is not None,
        preload=tuple(stated("preload", ())),
        unkeyed=frozenset(stated("unkeyed", ())),
        depends_on_cpu=tuple(stated("depends_on_cpu", FLOAT_LIBRARIES if flags["uses_device"] else ())),
        takes_own=stated("takes_own", {}, Mapping),
        **flags,
    )


def _answer(codec: object, method: str, default: Any) -> Any:
    """What a method says that a codec need not have."""
    function = getattr(codec, method, None)
    return function() if callable(function) else default


def rate_of(codec: type) -> Rate | None:
    """The rate axis of a codec class, or None for a codec with a single rate point."""
    return facts_of(codec).rate


def needs_of_built(codec: Codec) -> tuple[Need, ...]:
    """What this very configuration needs, the weights of its rate point included."""
    return (*facts_of(type(codec)).needs, *_answer(codec, "weight_needs", ()))


def weights_kind_of(codec: Codec) -> str:
    """``official``, ``unpinned``, ``own`` or ``random``; empty for a codec without weights."""
    return str(_answer(codec, "weights_kind", ""))


def own_options(codec: type[Codec], options: Mapping[str, Any]) -> dict[str, str]:
    """The options that name weights of the user's, each with the path; a word that is no path is a published name."""
    known = facts_of(codec).takes_own
    if options.get("weights", "official") != "official":
        return {}
    given = {name: str(options.get(name) or "") for name in known}
    return {name: path for name, path in given.items() if path and (not known[name] or "/" in path or path[0] in ".~")}


def own_identity_of(codec: Codec) -> str:
    """The content of the user's own weights; empty for a codec without such."""
    return str(_answer(codec, "own_identity", ""))


def decode_notes_of(codec: Codec) -> dict[str, str]:
    """What a codec tells of how it decoded last."""
    return dict(_answer(codec, "decode_notes", {}))


def make_ready(codec: Codec) -> None:
    """Load what a codec loads, so that it is not in a time."""
    _answer(codec, "ready", None)


def coder_of(codec: Codec) -> dict[str, str]:
    """What codes, by name: part of the key, since another library version may write other bytes."""
    return dict(_answer(codec, "coder", {}))


def coder_inside(what: str, codec: Codec) -> dict[str, str]:
    """The same of a codec that another one uses for a part of its bitstream: its version is in it, from the second on.

    >>> from rdpbench.codecs.classical.pillow import WebP
    >>> sorted(coder_inside("guide", WebP()))
    ['guide libwebp', 'guide pillow']
    """
    version = facts_of(type(codec)).version
    inside = {**coder_of(codec), **({"version": version} if version != "1" else {})}
    return {f"{what} {name}": library for name, library in inside.items()}


def configuration_of(codec: Codec, *, with_rate: bool = False) -> dict[str, Any]:
    """All that a codec is set to, to be read: its fields, over them what it derives (`settings`), and its weights.

    Without the device and, unless it is asked for, the rate: these have columns of their own. Nothing is in a key.

    >>> from rdpbench.codecs.classical.pillow import JPEG
    >>> configuration_of(JPEG(quality=5), with_rate=True)
    {'quality': 5, 'chroma': '4:2:0', 'optimize': False}
    """
    cls: Any = type(codec)
    facts = facts_of(cls)
    apart = {facts.rate.field if facts.rate and not with_rate else "", "device" if facts.uses_device else ""}
    names = [field.name for field in fields(cls) if field.name not in apart] if is_dataclass(cls) else []
    configuration: dict[str, Any] = {name: getattr(codec, name) for name in names}
    try:
        configuration |= dict(_answer(codec, "settings", {}))
        # Where published weights are from. Their hashes are in `coder`.
        cards = [card for need in _answer(codec, "weight_needs", ()) if (card := getattr(need, "card", None))]
        files = {str(card.id): f"{card.source}, revision {card.revision}" for card in cards}
        configuration |= {"weight_files": files} if files else {}
    except Exception as error:  # what is only told must not fail what is coded
        configuration["settings"] = f"not known: {type(error).__name__}: {error}"
    return configuration


def check_options(setting: CodecSetting | DataSetting) -> None:
    """Raise `ConfigError` if a codec or dataset is given an option that it does not have, or one set elsewhere."""
    kind: Kind = "codec" if isinstance(setting, CodecSetting) else "dataset"
    group = "codec" if kind == "codec" else "data"
    cls = setting.cls
    legal = option_names(cls)
    elsewhere = set_elsewhere(cls)
    whose = f"{kind} {setting.name.partition('[')[0]!r}"
    for name, value in setting.options:
        if name in elsewhere:
            raise ConfigError(f"{name} is the {elsewhere[name]} of {whose}; write {elsewhere[name]}={value}")
        if legal is not None and name not in legal:
            typed = {known: elsewhere.get(known, f"{group}.options.{known}") for known in legal}
            near = nearest(name, typed, cutoff=0.5)
            hint = "; ".join([f"of {whose}", *(f"its {known} is set by {word}=" for known, word in elsewhere.items())])
            meant = typed[near[0]] if near else ""
            raise UnknownName("option", f"{group}.options.{name}", typed.values(), hint, near=meant)


OWN_WEIGHTS = tuple(
    f"codec.options.{name}" for name in ("checkpoint", "base", "pipeline", "controlnet", "clip", "codebooks")
)
"""Options that may name files of the user's: as they are typed, too (``epoch=3-step=200.ckpt``); commas sweep."""


def option_names(cls: type) -> list[str] | None:
    """Names of the options of a codec or dataset class; None if it takes any.

    >>> from rdpbench.codecs.classical.pillow import WebP
    >>> option_names(WebP)
    ['quality', 'method']
    """
    if is_dataclass(cls):
        return [field.name for field in fields(cls) if field.init]
    try:
        takes = signature(cls).parameters.values()
    except (TypeError, ValueError):  # a class that is not written in Python
        return None
    return None if any(value.kind is value.VAR_KEYWORD for value in takes) else [value.name for value in takes]


def set_elsewhere(cls: type) -> dict[str, str]:
    """The settings that fill an option of a codec class: what was typed for the option itself would be ignored.

    >>> from rdpbench.codecs.classical.pillow import WebP
    >>> set_elsewhere(WebP)
    {'quality': 'rate'}
    """
    facts = facts_of(cls)
    axis = {facts.rate.field: "rate"} if facts.rate else {}
    return {**axis, **({"device": "device"} if facts.uses_device else {})}

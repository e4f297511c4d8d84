"""What a codec is: bytes out of an image, an image out of bytes.

A codec is a frozen dataclass whose fields are its whole configuration, with the two methods of `Codec`.
One of its fields sets the rate; the class says which, as ``rate = Rate("quality", 1, 95)``. The rest is optional
class data, read through the functions below, so that a codec of one's own stays one small class:

``needs``    what must be installed (`rdpbench.needs`); missing ones stop a plan, with the command to get them
``seeded``   True if the encoder or decoder draws random numbers; only then is ``seed`` a sweep axis
``stochastic``  True if the decoder draws, and is ``decode(data, *, seed=None)``: another seed is another sample of the
    same bitstream, None is the seed in the container; only then do ``decodes=`` and diversity mean anything
``batches``  True if it has ``encode_batch(images, sides)`` for images of one size, each with a bitstream that decodes
    alone; and, where its decoder can, ``decode_batch(datas)``; used where ``batch=`` is above 1
``heavy``    True if building the codec is expensive (weights): its tasks are then grouped by rate point
``preload``  modules worth importing once for all workers, such as ``("torch",)``
``uses_device``  True if it computes on ``device=``, which is then a field of it; rows of all others say ``cpu``
``uses_caption``  True if the encoder takes ``side.caption``; only then is ``captions`` a sweep axis, and given at all
``unkeyed``  names of fields that change no byte and no pixel, such as a timeout
``Path``     a field of this type is a file or folder that is part of a codec of one's own: it is in the key by content
``coder()``  what codes: library versions, or version and sha256 of a binary; enters the key of every result
``version``  raise it when the codec's own code changes what it writes

Methods that a codec with weights also has:

``weight_needs()``  the cards of this very configuration and rate point
``weights_kind()``  ``official``, ``unpinned`` or ``random``: a column of every row, never mixed in a table
``ready()``         loads the weights: called before a time is taken
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from rdpbench.errors import CodecError, OutOfRange
from rdpbench.image import Image
from rdpbench.needs import Need


@dataclass(frozen=True)
class Side:
    """What only the encoder may see beside the image. The decoder gets none of it unless it is in the bytes."""

    caption: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Bitstream:
    """The bytes that are stored and counted, and what they are made of.

    >>> Bitstream.whole(b"abc").parts["file"]
    3
    """

    data: bytes
    parts: Mapping[str, int]
    """Bytes by part; they add up to ``len(data)``."""
    info: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """What is worth a column but is not transmitted, such as the exact ``command`` of a binary."""

    def __post_init__(self) -> None:
        if sum(self.parts.values()) != len(self.data):
            raise CodecError(f"parts {dict(self.parts)} do not add up to the {len(self.data)} bytes of the bitstream")
        if not self.data:
            raise CodecError("the encoder returned no bytes; even an empty message needs one to be stored")

    @classmethod
    def whole(cls, data: bytes, **info: str) -> Bitstream:
        """A format of its own, counted as its file."""
        return cls(bytes(data), {"file": len(data)}, info)


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
    """The default sweep; those in ``conf/codec`` take precedence."""
    listed: bool = False
    """Are ``points`` all that is legal, as with networks for a few rates?"""

    def check(self, codec: str, value: float) -> float:
        """Return the value (an int where steps are whole), or raise `OutOfRange` that says what is legal."""
        legal = f"{self.low:g}..{self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")
        if self.listed and value not in self.points:
            legal = ", ".join(f"{point:g}" for point in self.points)
            raise OutOfRange(f"rate {value:g} is none that {codec!r} takes: {self.field} {legal}")
        off_grid = self.step and abs((value - self.low) / self.step - round((value - self.low) / self.step)) > 1e-9
        if not self.low <= value <= self.high or off_grid:
            raise OutOfRange(f"rate {value:g} is outside what {codec!r} takes: {self.field} {legal}")
        whole = self.step and float(self.step).is_integer() and float(self.low).is_integer()
        return round(value) if whole else float(value)


def rate_of(codec: type) -> Rate | None:
    """The rate axis of a codec class, or None for a codec with a single rate point."""
    rate = getattr(codec, "rate", None)
    return rate if isinstance(rate, Rate) else None


def needs_of(codec: type) -> tuple[Need, ...]:
    """What must be installed before a codec of this class can run."""
    return tuple(getattr(codec, "needs", ()))


def needs_of_built(codec: Codec) -> tuple[Need, ...]:
    """What this very configuration needs, the weights of its rate point included."""
    own = getattr(codec, "weight_needs", None)
    return (*needs_of(type(codec)), *(own() if callable(own) else ()))


def weights_kind_of(codec: Codec) -> str:
    """``official``, ``unpinned`` or ``random``; empty for a codec without weights."""
    kind = getattr(codec, "weights_kind", None)
    return str(kind()) if callable(kind) else ""


def make_ready(codec: Codec) -> None:
    """Load what a codec loads, so that it is not in a time."""
    ready = getattr(codec, "ready", None)
    if callable(ready):
        ready()


def coder_of(codec: Codec) -> dict[str, str]:
    """What codes, by name: part of the key, since another library version may write other bytes."""
    coder = getattr(codec, "coder", None)
    return dict(coder()) if callable(coder) else {}

"""Fields and methods that all learned codecs have. A codec adds its rate, its card and how its system is made."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias

from rdpbench.assets.weights import Card, OwnFile, Weights
from rdpbench.codecs.contract import Bitstream, CheckedOptions, Side, number, option
from rdpbench.codecs.learned.entropy import load_with_tables
from rdpbench.codecs.learned.systems import System, decode_images, encode_images
from rdpbench.errors import CodecError, ConfigError, MissingNeed
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.held import held
from rdpbench.setting import digits

Kind: TypeAlias = Literal["official", "unpinned", "own", "random"]
"""Where weights come from: ``official`` have a hash (or its first digits) published with them, ``unpinned`` only the
one that this machine found first, ``own`` are the user's, ``random`` were never trained. Tables, gates and rankings
never mix them."""


@dataclass(frozen=True)
class LearnedCodec(CheckedOptions, ABC):
    """Base of the learned codecs; its fields come before those of the codec, which are given by name."""

    heavy = True
    uses_device = True
    batches = True
    preload = ("torch", "rdpbench.codecs.learned.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("compressai"),)
    unkeyed = frozenset({"max_pixels", "checkpoint", "weights_key"})
    entry: ClassVar[str] = ""
    """Which set of weights in an official file, where it holds several."""
    revision: ClassVar[str]
    licence: ClassVar[str]
    """Both of all official checkpoints."""
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"checkpoint": frozenset()}

    weights: str = option("official", ("official", "random", "random-full"))
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    checkpoint: str = ""
    """A file of your own weights in place of the published ones. It is one rate point; where the name of the rate's
    field stands in braces, as in ``elic-{quality}.pt``, there is a file for each rate."""
    weights_key: str = ""
    """Which set of weights in that file, where it holds several, such as ``ema_state_dict``."""
    portable: bool = option(False, (False, True))
    """Bitstreams that any machine decodes (`rdpbench.codecs.learned.entropy`), for more time; else ``device-bound``:
    only the kind of device and the library that encoded are sure to decode."""
    device: str = "cpu"
    max_pixels: int = number(1 << 25, 1)
    """Larger images, and bitstreams that state larger ones, are refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights_key and not self.checkpoint:
            raise ConfigError(f"{self.name}: weights_key={self.weights_key!r} is of no use without checkpoint=FILE")
        if self.checkpoint and self.weights != "official":
            raise ConfigError(
                f"{self.name}: checkpoint={self.checkpoint!r} and weights={self.weights}: give one of them"
            )

    @classmethod
    def own_rates(cls, options: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The rates that own weights serve: none of the axis if they are a single file; None for all of it."""
        given = str(options.get("checkpoint") or "")
        return () if given and f"{{{cls.rate.field}}}" not in given else None

    @abstractmethod
    def card(self) -> Card:
        """Of the official checkpoint of this rate point."""

    def card_of(self, **facts: Any) -> Card:
        """A card with the revision and the licence of all."""
        return Card(revision=self.revision, licence=self.licence, **facts)

    def published(self) -> Weights:
        """The official checkpoint of this rate point."""
        return Weights(self.card(), self.entry)

    @abstractmethod
    def make(self) -> System:
        """Load or seed the network; called once for a process and configuration."""

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:  # noqa: ARG002 - for those that have some
        """Bits as the system's own publication counts them, by calculator, beyond those of `rdpbench.codecs.legacy`."""
        return {}

    def source(self) -> Weights | OwnFile:
        """Where the weights of this rate point come from, unless they are random."""
        if not self.checkpoint:
            return self.published()
        field = self.rate.field
        return OwnFile(self.checkpoint.replace(f"{{{field}}}", digits(getattr(self, field))), self.weights_key)

    def load(self, network: Any, loaded: Any = None, **options: Any) -> Any:
        """A network with the weights of this rate point, strictly (`load_with_tables`)."""
        source = self.source()
        stale = "rebuild" if isinstance(source, OwnFile) else "keep" if source.published else "refuse"
        loaded = source.read() if loaded is None else loaded
        load_with_tables(network, loaded, source.id, key=source.key, stale=stale, **options)
        return network

    def weights_kind(self) -> Kind:
        """What the rows of this codec must be marked with."""
        if self.weights != "official":
            return "random"
        return "own" if self.checkpoint else "official" if self.published().published else "unpinned"

    def weight_needs(self) -> tuple[Need, ...]:
        """The files that this configuration needs beside ``needs``."""
        if self.checkpoint:
            return (Fits(self),)
        return (self.published(),) if self.weights == "official" else ()

    def weights_identity(self) -> str:
        """What enters keys: the hash of the checkpoint, or how the weights were drawn."""
        return self.source().identity if self.weights == "official" else self.weights

    def own_identity(self) -> str:
        """Of the user's own weights alone; empty without."""
        return self.weights_identity() if self.checkpoint else ""

    def coder(self) -> dict[str, str]:
        return {
            "compressai": package_version("compressai"),
            "torch": package_version("torch"),
            "weights": self.weights_identity(),
            "entropy coding": "portable" if self.portable else "device-bound",
        }

    def ready(self) -> None:
        """Load the network, if this process has not yet: for whoever times the rest."""
        self.system()

    def system(self) -> System:
        """The network, held for all codec objects of this configuration."""
        return held("system", (self, self.weights_identity()), self.make)

    def encode(self, image: Image, side: Side) -> Bitstream:
        return self.encode_batch([image], [side])[0]

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        """Encode images of one size together; each bitstream decodes alone."""
        system = self.system()
        bitstreams = encode_images(self.name, system, images, sides, self.max_pixels, self.printed)
        # What was done to the weights when they were loaded is worth reading beside each.
        notes = notes_of(system)
        return [replace(stream, info={**stream.info, "weights": notes}) if notes else stream for stream in bitstreams]

    def decode(self, data: bytes) -> Image:
        return self.decode_batch([data])[0]

    def decode_batch(self, datas: Sequence[bytes]) -> list[Image]:
        """Decode bitstreams of images of one size together; pixels may differ from those decoded alone by 1."""
        return decode_images(self.name, self.system(), datas, self.max_pixels)


@dataclass(frozen=True)
class Fits(Need):
    """The need for own weights that fit: they are loaded once before anything is coded."""

    codec: LearnedCodec

    def missing(self) -> str | None:
        try:
            return self.codec.source().missing() or _misfit(self.codec, self.codec.weights_identity())
        except MissingNeed:  # of something beside, such as a text encoder: a need of its own tells
            return None


@lru_cache(maxsize=64)
def _misfit(codec: LearnedCodec, file: str) -> str | None:  # noqa: ARG001 - another file may fit
    try:
        notes = notes_of(codec.make())
    except CodecError as error:
        return str(error)
    if notes:
        print(f"rdpbench: {codec.source().id}: {notes}", file=sys.stderr)
    return None


def notes_of(system: System) -> str:
    """What was done to a system's weights when they were loaded; empty if they are as in their file."""
    return "; ".join(getattr(system.net, "notes", ()))

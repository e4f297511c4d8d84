"""Fields and methods that all learned codecs have. A codec adds its rate, its card and how its system is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, TypeAlias

from rdpbench.codecs.contract import Bitstream, Side
from rdpbench.codecs.inprocess import check_choice
from rdpbench.codecs.learned.checkpoints import Checkpoint, identity_of
from rdpbench.codecs.learned.systems import System, decode_images, encode_images
from rdpbench.errors import ConfigError
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version

Kind: TypeAlias = Literal["official", "unpinned", "random"]
"""Where weights come from: ``official`` have a hash (or its first digits) published with them, ``unpinned`` only the
one that this machine found first, ``random`` were never trained. Tables, gates and rankings never mix them."""


@dataclass(frozen=True)
class LearnedCodec(ABC):
    """Base of the learned codecs; its fields come before those of the codec, which are given by name."""

    name: ClassVar[str]
    heavy: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    batches: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "rdpbench.codecs.learned.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("compressai"),)
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels"})
    version: ClassVar[str] = "1"

    weights: str = "official"
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    portable: bool = False
    """Bitstreams that any machine decodes (`rdpbench.codecs.learned.portable`), for more time; else ``device-bound``:
    only the kind of device and the library that encoded are sure to decode."""
    device: str = "cpu"
    max_pixels: int = 1 << 25
    """Larger images, and bitstreams that state larger ones, are refused."""

    def __post_init__(self) -> None:
        check_choice(self.name, "weights", self.weights, ["official", "random", "random-full"])
        check_choice(self.name, "portable", self.portable, [False, True])
        if isinstance(self.max_pixels, bool) or not isinstance(self.max_pixels, int) or self.max_pixels < 1:
            raise ConfigError(f"{self.name}: max_pixels={self.max_pixels!r} must be a whole number from 1")

    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """The official checkpoint of this rate point."""

    @abstractmethod
    def make(self) -> System:
        """Load or seed the network; called once for a process and configuration."""

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:  # noqa: ARG002 - for those that have some
        """Bits as the system's own publication counts them, by calculator, beyond those of `rdpbench.codecs.legacy`."""
        return {}

    def weights_kind(self) -> Kind:
        """What the rows of this codec must be marked with."""
        if self.weights != "official":
            return "random"
        return "official" if self.checkpoint().published else "unpinned"

    def weight_needs(self) -> tuple[Need, ...]:
        """The files that this configuration needs beside ``needs``."""
        return (self.checkpoint(),) if self.weights == "official" else ()

    def weights_identity(self) -> str:
        """What enters keys: the hash of the checkpoint, or how the weights were drawn."""
        return identity_of(self.checkpoint()) if self.weights == "official" else self.weights

    def coder(self) -> dict[str, str]:
        return {
            "compressai": package_version("compressai"),
            "torch": package_version("torch"),
            "weights": self.weights_identity(),
            "entropy coding": "portable" if self.portable else "device-bound",
        }

    def ready(self) -> None:
        """Load the network, if this process has not yet: for whoever times the rest."""
        self._system()

    def encode(self, image: Image, side: Side) -> Bitstream:
        return self.encode_batch([image], [side])[0]

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        """Encode images of one size together; each bitstream decodes alone."""
        return encode_images(self.name, self._system(), images, sides, self.max_pixels, self.printed)

    def decode(self, data: bytes) -> Image:
        return self.decode_batch([data])[0]

    def decode_batch(self, datas: Sequence[bytes]) -> list[Image]:
        """Decode bitstreams of images of one size together; pixels may differ from those decoded alone by 1."""
        return decode_images(self.name, self._system(), datas, self.max_pixels)

    def _system(self) -> System:
        return _loaded(self, self.weights_identity())


@lru_cache(maxsize=2)
def _loaded(codec: LearnedCodec, file: str) -> System:  # noqa: ARG001 - another file of weights is another system
    return codec.make()

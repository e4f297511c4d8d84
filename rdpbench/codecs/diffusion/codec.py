"""What the generative codecs share: which networks, whose weights, how an image comes out of a bitstream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rdpbench import registry
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.container import unpack
from rdpbench.codecs.contract import (
    Bitstream,
    Codec,
    Side,
    check_choice,
    coder_inside,
    decoding,
    needs_of_built,
    own_options,
    rate_of,
)
from rdpbench.codecs.diffusion import bases, models, prompts, sampling
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.codec import Kind
from rdpbench.codecs.learned.frames import check_pixels
from rdpbench.errors import BitstreamError, ConfigError
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.precision import reproducible

if TYPE_CHECKING:
    from torch import Generator, Tensor

NEGATIVE = "disfigured, deformed, low quality, lowres, b&w, blurry, Photoshop, video game, bad art"
"""Text+Sketch's words for what to keep away from."""


@dataclass(frozen=True)
class DiffusionCodec(ABC):
    """Base of the codecs in the latents of Stable Diffusion; its fields come before those of the codec."""

    name: ClassVar[str]
    heavy: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "rdpbench.codecs.diffusion.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("diffusers"), Package("transformers"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels", "checkpoint"})
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"base": frozenset(bases.BASES), "checkpoint": frozenset()}
    version: ClassVar[str] = "1"
    checkpoint_is: ClassVar[str] = "base"
    """The option that ``checkpoint=`` stands for."""
    parts_of_own: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names in `hashes` of what an option for a folder of the user's brings, where they differ from the option's."""
    libraries: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers")

    weights: str = "official"
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    device: str = "cpu"
    max_pixels: int = 1 << 22
    """Larger images, and bitstreams that state larger ones, are refused; counted with sides padded to 64."""
    checkpoint: str = ""
    """A folder of yours; another word for `base` or `pipeline`, the same as that of all codecs with weights."""

    def __post_init__(self) -> None:
        self._adopt_checkpoint()
        check_choice(self.name, "weights", self.weights, models.WEIGHTS)
        check_count(self.name, "max_pixels", self.max_pixels, 1)

    def _adopt_checkpoint(self) -> None:
        if not self.checkpoint:
            return
        option, given = self.checkpoint_is, f"{self.name}: checkpoint={self.checkpoint!r} and"
        other = getattr(self, option)
        if bases.is_path(other) and other != self.checkpoint:
            raise ConfigError(f"{given} {option}={other!r}: give one of them")
        if self.weights != "official":
            raise ConfigError(f"{given} weights={self.weights}: give one of them")
        # A bare name is a folder here, too.
        self.spell_out(option, self.checkpoint if bases.is_path(self.checkpoint) else f"./{self.checkpoint}")

    def spell_out(self, option: str, value: object) -> None:
        """Set a field to what it stands for, so that this is in keys and rows."""
        object.__setattr__(self, option, value)

    @abstractmethod
    def files(self) -> tuple[Need, ...]:
        """The files of this configuration, unless its weights are random."""

    @abstractmethod
    def hashes(self) -> dict[str, str]:
        """The hash of each part of the weights."""

    @abstractmethod
    def models(self) -> Models:
        """The networks, loaded; must not be called where torch infers only, as they may be trained through."""

    @abstractmethod
    def encode(self, image: Image, side: Side) -> Bitstream: ...

    @abstractmethod
    def section_names(self) -> Sequence[str]:
        """What is in the container after height and width, in order."""

    @abstractmethod
    def latents(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
        """Clean latents ``(1, 4, h, w)`` of the padded size for an image of ``height x width``."""

    def decode(self, data: bytes, *, seed: int | None = None) -> Image:
        """The image, or with a seed of the caller's another sample of the same bitstream."""
        ready = self.models()
        with reproducible(), decoding(self.name):
            names = self.section_names()
            height, width, sections = unpack(data if seed is None else with_seed(data, seed), len(names))
            self.padded(height, width, BitstreamError)
            latents = self.latents(ready, dict(zip(names, sections, strict=True)), height, width)
            [image] = sampling.images_of(ready, latents, height, width)
            return image

    def padded(self, height: int, width: int, error: type[Exception]) -> tuple[int, int]:
        """The size inside, multiples of 64; raises ``error`` where it is beyond `max_pixels`."""
        rows, columns = sampling.FRAME.padded(height, width)
        check_pixels(rows, columns, self.max_pixels, error)
        return rows, columns

    def codecs_inside(self) -> Mapping[str, Codec]:
        """Codecs of rdpbench that code parts of the bitstream, by part."""
        return {}

    def weight_needs(self) -> tuple[Need, ...]:
        """The files that this configuration needs beside ``needs``."""
        inside = [need for codec in self.codecs_inside().values() for need in needs_of_built(codec)]
        return (*(self.files() if self.weights == "official" else ()), *inside)

    def weights_kind(self) -> Kind:
        """What the rows of this codec must be marked with."""
        if self.weights != "official":
            return "random"
        if own_options(type(self), vars(self)):
            return "own"
        needs = self.files()
        cards = [need.card for need in needs if isinstance(need, Weights)]
        files = [file for card in cards for file in ((card,) if isinstance(card, Card) else card.cards)]
        return "official" if len(cards) == len(needs) and all(file.sha256 for file in files) else "unpinned"

    def coder(self) -> dict[str, str]:
        """What codes: `versions`, and those of the codecs inside."""
        return self.versions() | {
            name: version
            for part, codec in self.codecs_inside().items()
            for name, version in coder_inside(part, codec).items()
        }

    def versions(self) -> dict[str, str]:
        """Versions of the libraries, and hashes of the weights by part."""
        libraries = {name: package_version(name) for name in self.libraries}
        return {**libraries, **(self.hashes() if self.weights == "official" else {"weights": self.weights})}

    def own_identity(self) -> str:
        """Of the user's own weights alone; empty without."""
        own = own_options(type(self), vars(self))
        parts = {part for option in own for part in self.parts_of_own.get(option, (option,))}
        return " ".join(digest for part, digest in self.hashes().items() if part in parts) if own else ""

    def ready(self) -> None:
        """Load the networks, if this process has not yet: for whoever times the rest."""
        self.models()


@dataclass(frozen=True)
class PromptCodec(DiffusionCodec):
    """Base of the codecs that paint with a whole Stable Diffusion as it was published."""

    base: str = "sd-2.1-base"
    """A model of `rdpbench.codecs.diffusion.bases`, or a folder that ``diffusers`` saved."""
    precision: str = "float32"
    """Of the U-Net, its ControlNet and the text towers; the official code has ``float16``."""
    sampler: str = "dpm-solver++"
    steps: int = 25
    guidance: float = 9.0
    """Classifier-free guidance; 1 and below is none, as the Turbo models want it."""
    negative: str = NEGATIVE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sampling(self, least_steps=1)
        bases.check_known("base", self.base, bases.BASES)
        check_range(self.name, "guidance", self.guidance, 0, 1000)

    def files(self) -> tuple[Need, ...]:
        own = (sampling.Schedule(self.base, self.sampler, self.steps),) if bases.is_path(self.base) else ()
        return (*models.needs(self.base), *own)

    def hashes(self) -> dict[str, str]:
        return {"base": models.identity(self.base)}

    def models(self) -> Models:
        return models.load(self.base, self.weights, self.precision, self.device)

    def settings(self) -> dict[str, object]:
        """What the sampler is set up with."""
        return {"scheduler": sampling.settings_of(models.layout(self.base, self.weights), self.sampler)}

    def denoised(
        self,
        ready: Models,
        draws: Sequence[Generator],
        positive: prompts.Condition,
        height: int,
        width: int,
        control: sampling.Control | None = None,
        adjust: Callable[[Any], sampling.Adjust] | None = None,
    ) -> Tensor:
        """Clean latents from noise under a prompt and the codec's negative words; ``adjust`` takes the scheduler."""
        negative = prompts.condition(ready, ready.vocabulary.encode(self.negative))
        start = sampling.noise(ready, draws, *sampling.FRAME.padded(height, width))
        schedule = sampling.scheduler(ready, self.sampler, self.steps)
        pull = adjust(schedule) if adjust else None
        return sampling.denoise(
            ready, schedule, start, draws, positive, negative, self.guidance, control=control, adjust=pull
        )


def check_sampling(codec: Any, least_steps: int) -> None:
    """Raise `ConfigError` unless a codec's precision, sampler and steps are legal."""
    check_choice(codec.name, "precision", codec.precision, models.PRECISIONS)
    check_choice(codec.name, "sampler", codec.sampler, [*sampling.SAMPLERS, sampling.SAVED])
    check_count(codec.name, "steps", codec.steps, least_steps, 1000)


def check_count(codec: str, option: str, value: object, least: int, most: int | None = None) -> None:
    """Raise `ConfigError` unless an option is a whole number within bounds."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        bounds = f"from {least}" + (f" to {most}" if most is not None else "")
        raise ConfigError(f"{codec}: {option}={value!r} must be a whole number {bounds}")


def check_range(codec: str, option: str, value: float, least: float, most: float) -> None:
    """Raise `ConfigError` unless an option is within bounds."""
    if not least <= value <= most:
        raise ConfigError(f"{codec}: {option}={value!r} must be from {least:g} to {most:g}")


def codec_inside(part: str, name: str, rate: float | None, weights: str, device: str) -> Codec:
    """The codec of rdpbench that codes a ``part`` of a bitstream, at a native rate or with None at its default.

    Weights and device are handed on where it has them.

    Raises:
        UnknownName, OutOfRange: no such codec, or it has no such rate.
        ConfigError: it has no rate axis.
    """
    cls = registry.load("codec", name)
    axis = rate_of(cls)
    known = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    given = {"weights": weights, "device": device}
    options: dict[str, object] = {option: value for option, value in given.items() if option in known}
    if rate is not None:
        if axis is None:
            raise ConfigError(f"{part}_codec={name!r} has a single rate point; leave {part}_rate at 0")
        options[axis.field] = axis.check(name, rate)
    codec: Codec = cls(**options)
    return codec

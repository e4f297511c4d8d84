"""Fields and methods that generative codecs have: which base model, whose weights, how it samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.contract import Bitstream, Side, check_choice, own_options
from rdpbench.codecs.diffusion import bases, models, prompts, sampling
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.codec import Kind
from rdpbench.errors import ConfigError
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version

if TYPE_CHECKING:
    from torch import Generator, Tensor

NEGATIVE = "disfigured, deformed, low quality, lowres, b&w, blurry, Photoshop, video game, bad art"
"""Text+Sketch's words for what to keep away from."""


@dataclass(frozen=True)
class DiffusionCodec(ABC):
    """Base of the codecs that Stable Diffusion decodes; its fields come before those of the codec."""

    name: ClassVar[str]
    heavy: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "rdpbench.codecs.diffusion.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("diffusers"), Package("transformers"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels", "checkpoint"})
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"base": frozenset(bases.BASES), "checkpoint": frozenset()}
    version: ClassVar[str] = "1"

    base: str = "sd-2.1-base"
    """A model of `rdpbench.codecs.diffusion.bases`, or a folder that ``diffusers`` saved."""
    weights: str = "official"
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    precision: str = "float32"
    """Of the U-Net, its ControlNet and the text towers; the official code has ``float16``."""
    sampler: str = "dpm-solver++"
    steps: int = 25
    guidance: float = 9.0
    """Classifier-free guidance; 1 and below is none, as the Turbo models want it."""
    negative: str = NEGATIVE
    device: str = "cpu"
    max_pixels: int = 1 << 22
    """Larger images, and bitstreams that state larger ones, are refused; counted with sides padded to 64."""
    checkpoint: str = ""
    """A folder of yours; another word for `base`, the same as that of all codecs with weights."""

    def __post_init__(self) -> None:
        adopt(self, "base")
        check_choice(self.name, "weights", self.weights, models.WEIGHTS)
        check_choice(self.name, "precision", self.precision, models.PRECISIONS)
        check_choice(self.name, "sampler", self.sampler, [*sampling.SAMPLERS, sampling.SAVED])
        bases.check_known("base", self.base, bases.BASES)
        check_count(self.name, "steps", self.steps, 1, 1000)
        check_count(self.name, "max_pixels", self.max_pixels, 1)
        if not 0 <= self.guidance < 1000:
            raise ConfigError(f"{self.name}: guidance={self.guidance!r} must be a number from 0 to 1000")

    @abstractmethod
    def encode(self, image: Image, side: Side) -> Bitstream: ...

    @abstractmethod
    def decode(self, data: bytes) -> Image: ...

    def weight_needs(self) -> tuple[Need, ...]:
        """The files that this configuration needs beside ``needs``."""
        if self.weights != "official":
            return ()
        own = (sampling.Schedule(self.base, self.sampler, self.steps),) if bases.is_path(self.base) else ()
        return (*models.base_needs(self.base), *own)

    def weights_kind(self) -> Kind:
        """What the rows of this codec must be marked with."""
        if self.weights != "official":
            return "random"
        if own_options(type(self), vars(self)):
            return "own"
        cards = [need.card for need in self.weight_needs() if isinstance(need, Weights)]
        parts = [part for card in cards for part in ((card,) if isinstance(card, Card) else card.cards)]
        whole = len(cards) == len(self.weight_needs()) and all(part.sha256 for part in parts)
        return "official" if whole else "unpinned"

    def coder(self) -> dict[str, str]:
        """Versions of the libraries, and hashes of the weights by part."""
        libraries = {name: package_version(name) for name in ("torch", "diffusers", "transformers")}
        return {**libraries, **(self.hashes() if self.weights == "official" else {"weights": self.weights})}

    def hashes(self) -> dict[str, str]:
        """Of the official weights."""
        return {"base": models.base_identity(self.base)}

    def own_identity(self) -> str:
        """Of the user's own weights alone; empty without."""
        own = own_options(type(self), vars(self))
        return " ".join(made for part, made in self.hashes().items() if part in own)

    def ready(self) -> None:
        """Load the base model, if this process has not yet: for whoever times the rest."""
        self.models()

    def settings(self) -> dict[str, object]:
        """What the sampler is set up with."""
        return {"scheduler": sampling.settings_of(models.layout(self.base, self.weights), self.sampler)}

    def models(self) -> Models:
        """The base model, loaded; must not be called where torch infers only, as its weights may be trained through."""
        return models.load_models(self.base, self.weights, self.precision, self.device)

    def generate(
        self,
        ready: Models,
        seeds: Sequence[int],
        ids: Sequence[int],
        height: int,
        width: int,
        control: sampling.Control | None = None,
        adjust: sampling.Adjust | None = None,
    ) -> Iterator[Image]:
        """Images for a prompt, one for each seed, denoised together."""
        draws = sampling.generators(seeds)
        start = sampling.noise(ready, draws, *prompts.FRAME.padded(height, width))
        latents = self.denoised(ready, draws, start, ids, control, adjust)
        return iter(prompts.decode(ready, latents, height, width))

    def denoised(
        self,
        ready: Models,
        draws: Sequence[Generator],
        start: Tensor,
        ids: Sequence[int],
        control: sampling.Control | None = None,
        adjust: sampling.Adjust | None = None,
    ) -> Tensor:
        """Clean latents from noise under a prompt and the codec's own negative words."""
        return sampling.denoise(
            ready,
            sampling.scheduler(ready, self.sampler, self.steps),
            start,
            draws,
            prompts.condition(ready, ids),
            prompts.condition(ready, ready.vocabulary.encode(self.negative)),
            self.guidance,
            control=control,
            adjust=adjust,
        )


def adopt(codec: Any, option: str) -> None:
    """Let ``checkpoint=`` stand for the option of a codec that takes a folder of the user's.

    Raises:
        ConfigError: two folders are given, or random weights.
    """
    if not codec.checkpoint:
        return
    other = getattr(codec, option)
    if bases.is_path(other) and other != codec.checkpoint:
        raise ConfigError(f"{codec.name}: checkpoint={codec.checkpoint!r} and {option}={other!r}: give one of them")
    if codec.weights != "official":
        raise ConfigError(
            f"{codec.name}: checkpoint={codec.checkpoint!r} and weights={codec.weights}: give one of them"
        )
    # A bare name is a folder here, too.
    place = codec.checkpoint if bases.is_path(codec.checkpoint) else f"./{codec.checkpoint}"
    object.__setattr__(codec, option, place)


def check_count(codec: str, option: str, value: object, least: int, most: int | None = None) -> None:
    """Raise `ConfigError` unless an option is a whole number within bounds."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        bounds = f"from {least}" + (f" to {most}" if most is not None else "")
        raise ConfigError(f"{codec}: {option}={value!r} must be a whole number {bounds}")

"""What the generative codecs share: weights, how an image comes out of a bitstream, searches that survive a kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from rdpbench import registry
from rdpbench.assets.weights import Weights
from rdpbench.codecs.container import unpack
from rdpbench.codecs.contract import (
    Bitstream,
    CheckedOptions,
    Codec,
    Side,
    coder_inside,
    decoding,
    needs_of_built,
    number,
    option,
    own_options,
    rate_of,
)
from rdpbench.codecs.diffusion import bases, models, sampling
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.codec import Kind
from rdpbench.codecs.learned.systems import check_pixels
from rdpbench.errors import BitstreamError, ConfigError, StoreUnwritable
from rdpbench.image import Image
from rdpbench.lazy import Generator, Tensor, torch
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.precision import reproducible
from rdpbench.paths import cache_folder, written_whole

OnStep: TypeAlias = Callable[[int, float], None]
"""Called with the steps that are done, and how good the result is."""
NEGATIVE = "disfigured, deformed, low quality, lowres, b&w, blurry, Photoshop, video game, bad art"
"""Text+Sketch's words for what to keep away from."""


@dataclass(frozen=True)
class DiffusionCodec(CheckedOptions, ABC):
    """Base of the codecs in the latents of Stable Diffusion; its fields come before those of the codec."""

    heavy: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "rdpbench.codecs.diffusion.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("diffusers"), Package("transformers", extra="generative"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels", "checkpoint"})
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"base": frozenset(bases.BASES), "checkpoint": frozenset()}
    version: ClassVar[str] = "1"
    checkpoint_is: ClassVar[str] = "base"
    """The option that ``checkpoint=`` stands for."""
    parts_of_own: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names in `hashes` of what an option for a folder of the user's brings, where they differ from the option's."""
    libraries: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers")

    weights: str = option("official", models.WEIGHTS)
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    device: str = "cpu"
    max_pixels: int = number(1 << 22, 1)
    """Larger images, and bitstreams that state larger ones, are refused; counted with sides padded to 64."""
    checkpoint: str = ""
    """A folder of yours; another word for `base` or `pipeline`, the same as that of all codecs with weights."""

    def __post_init__(self) -> None:
        self._adopt_checkpoint()
        super().__post_init__()
        for name, known in self.takes_own.items():
            if known:
                bases.check_known(name, getattr(self, name), known)

    def _adopt_checkpoint(self) -> None:
        if not self.checkpoint:
            return
        name, given = self.checkpoint_is, f"{self.name}: checkpoint={self.checkpoint!r} and"
        other = getattr(self, name)
        if bases.is_path(other) and other != self.checkpoint:
            raise ConfigError(f"{given} {name}={other!r}: give one of them")
        if self.weights != "official":
            raise ConfigError(f"{given} weights={self.weights}: give one of them")
        # A bare name is a folder here, too.
        folder = self.checkpoint if bases.is_path(self.checkpoint) else f"./{self.checkpoint}"
        object.__setattr__(self, name, folder)

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

    def decode(self, data: bytes) -> Image:
        ready = self.models()
        with reproducible(), decoding(self.name):
            names = self.section_names()
            height, width, sections = unpack(data, len(names))
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
        known = all(isinstance(need, Weights) and need.published for need in self.files())
        return "official" if known else "unpinned"

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
class SamplingCodec(DiffusionCodec):
    """Base of those whose decoder draws the noise that it starts from."""

    seeded: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True

    def decode(self, data: bytes, *, seed: int | None = None) -> Image:
        """The image, or with a seed of the caller's another sample of the same bitstream."""
        return super().decode(data if seed is None else with_seed(data, seed))


@dataclass(frozen=True)
class PromptCodec(SamplingCodec):
    """Base of the codecs that paint with a whole Stable Diffusion as it was published."""

    base: str = "sd-2.1-base"
    """A model of `rdpbench.codecs.diffusion.bases`, or a folder that ``diffusers`` saved."""
    precision: str = option("float32", models.PRECISIONS)
    """Of the U-Net, its ControlNet and the text towers; the official code has ``float16``."""
    sampler: str = option("dpm-solver++", sampling.LEGAL_SAMPLERS)
    steps: int = number(25, 1, 1000)
    guidance: float = number(9.0, 0.0, 1000)
    """Classifier-free guidance; 1 and below is none, as the Turbo models want it."""
    negative: str = NEGATIVE

    def files(self) -> tuple[Need, ...]:
        own = (sampling.Schedule(self.base, self.sampler, self.steps),) if bases.is_path(self.base) else ()
        return (*models.base_needs(self.base), *own)

    def hashes(self) -> dict[str, str]:
        return {"base": models.base_identity(self.base)}

    def models(self) -> Models:
        return models.load_models(self.base, self.weights, self.precision, self.device)

    def settings(self) -> dict[str, object]:
        """What the sampler is set up with."""
        return {"scheduler": sampling.settings_of(models.layout(self.base, self.weights), self.sampler)}

    def denoised(
        self,
        ready: Models,
        draws: Sequence[Generator],
        positive: sampling.Condition,
        height: int,
        width: int,
        control: sampling.Control | None = None,
        adjust: Callable[[Any], sampling.Adjust] | None = None,
    ) -> Tensor:
        """Clean latents from noise under a prompt and the codec's negative words; ``adjust`` takes the scheduler."""
        negative = sampling.condition(ready, ready.vocabulary.encode(self.negative))
        start = sampling.noise(ready, draws, *sampling.FRAME.padded(height, width))
        schedule = sampling.scheduler(ready, self.sampler, self.steps)
        pull = adjust(schedule) if adjust else None
        return sampling.denoise(
            ready, schedule, start, draws, positive, negative, self.guidance, control=control, adjust=pull
        )


def codec_inside(part: str, name: str, weights: str, device: str, rate: float | None) -> Codec:
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
    return cls(**options)


class Unfinished:
    """The state of a long search in the cache, under a hash of all that decides the result.

    A state that cannot be read counts as none, and a cache that cannot be written costs time, not the encode.
    """

    def __init__(self, decides: Mapping[str, object], every_s: float = 60, folder: str = "unfinished") -> None:
        """Take all that decides the result, as JSON can hold it, and the seconds between two writes."""
        key = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
        self.path: Path = cache_folder() / folder / f"{key}.safetensors"
        self._every_s = every_s
        self._written = time.monotonic()

    def load(self) -> dict[str, Tensor]:
        """The state of a search that was killed; empty if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.path)
        except (OSError, SafetensorError):
            return {}

    def due(self) -> bool:
        """Is it time to `save`?"""
        return time.monotonic() - self._written >= self._every_s

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Write the state, whole or not at all."""
        from safetensors.torch import save_file

        self._written = time.monotonic()
        with contextlib.suppress(StoreUnwritable), written_whole(self.path) as beside:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, beside)

    def done(self) -> None:
        """Delete the state."""
        with contextlib.suppress(OSError):
            self.path.unlink()


class Searched(ABC):
    """Free vectors that an optimiser of Adam's kind moves, step by step."""

    tracked: ClassVar[tuple[str, ...]]
    """Attributes that later steps depend on, beside vectors and averages; each a tensor or a number."""
    free: Tensor
    optimiser: Any
    step: int = 0

    @abstractmethod
    def advance(self) -> None:
        """Take one step."""

    @abstractmethod
    def shown(self) -> float:
        """How good the result is so far."""

    def finish(self, steps: int, on_step: OnStep | None, unfinished: Unfinished | None) -> None:
        """Take all steps that are left, from where a search that was killed had come to."""
        self.restore(unfinished.load() if unfinished else {})
        while self.step < steps:
            self.advance()
            if on_step is not None:
                on_step(self.step, self.shown())
            if unfinished is not None and unfinished.due():
                unfinished.save(self.saved())
        if unfinished is not None:
            unfinished.done()

    def saved(self) -> dict[str, Tensor]:
        """All that later steps depend on."""
        averages = {f"adam.{name}": average for name, average in self.optimiser.state[self.free].items()}
        tracked = {name: torch.as_tensor(getattr(self, name)) for name in ("step", *self.tracked)}
        return {"free": self.free, **tracked, **averages}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Go on where `saved` was; anything else than such a state is not looked at."""
        if any(name not in saved for name in ("free", "step", *self.tracked)):
            return
        if saved["free"].shape != self.free.shape or saved["free"].dtype != self.free.dtype:
            return
        self.free.data.copy_(saved["free"])
        for name in self.tracked:
            setattr(self, name, saved[name].to(self.free.device))
        averages = {name[5:]: average for name, average in saved.items() if name.startswith("adam.")}
        # The count of steps stays on the CPU, where the optimiser reads it.
        self.optimiser.state[self.free] = {
            name: average if name == "step" else average.to(self.free.device) for name, average in averages.items()
        }
        self.step = int(saved["step"])

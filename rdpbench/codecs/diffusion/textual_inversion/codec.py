"""Textual inversion, and its guide."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.codecs.container import pack, read_varint, varint
from rdpbench.codecs.contract import Bitstream, Codec, Rate, Side, check_choice, configuration_of, encoding, rate_of
from rdpbench.codecs.diffusion import fields, sampling
from rdpbench.codecs.diffusion.codec import PromptCodec, check_count, check_range, codec_inside
from rdpbench.codecs.diffusion.fields import with_seed
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.prompts import Unfinished
from rdpbench.codecs.diffusion.textual_inversion import vectors as coding
from rdpbench.codecs.diffusion.textual_inversion.vectors import (
    Objective,
    Vectors,
    VectorSearch,
    check_prediction,
    condition,
    empty_prompt,
    search,
    width_of,
)
from rdpbench.codecs.learned.frames import size_of
from rdpbench.errors import BitstreamError, ConfigError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.networks.precision import reproducible
from rdpbench.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TextualInversion", "with_seed"]

FACTORS = (1, 2, 4, 8, 16, 32, 64)
"""Of the guide; they divide the sides of what is generated."""
STEPS, RANDOM_STEPS = 50, 4
"""Of the sampler, for weights of a model and for random ones at a tiny width, where nothing is to be seen."""
SEARCH_STEPS, RANDOM_SEARCH_STEPS = 1000, 5


@dataclass(frozen=True)
class TextualInversion(PromptCodec):
    """Learned vectors, a guide, and Stable Diffusion.

    An encode takes a thousand passes through the U-Net and back, a decode one through the VAE and back for each step.
    """

    name: ClassVar[str] = "textual-inversion"
    rate: ClassVar[Rate] = Rate("vectors", 1, coding.MOST, points=(16,))
    unkeyed: ClassVar[frozenset[str]] = PromptCodec.unkeyed | {"reuse"}

    base: str = "sd-1.5"
    sampler: str = "ddim"
    steps: int = 0
    """0 is 50, and 4 with ``weights=random``."""
    guidance: float = 3.0
    """s_f."""
    negative: str = ""
    vectors: int = 16
    """K."""
    bits: float = 1.0
    """For each coefficient of the vectors, on average."""
    search_steps: int = 0
    """0 is 1000, and 5 with ``weights=random``."""
    search_batch: int = 2
    """Times and noises drawn for a step of the search."""
    learning_rate: float = 0.01
    compression_guidance: float = 1.0
    """s_c; 0 leaves the guide unused, but not unsent."""
    guide_codec: str = "webp"
    """The name of a codec of rdpbench, or ``none``: no guide is sent."""
    guide_rate: float = 0
    """The guide codec's own rate (quality, QP, lambda, ...); 0 fits it for each image to `guide_bpp`."""
    guide_bpp: float = 0.0385
    """Budget of a guide whose rate is fitted, for each pixel of the image."""
    guide_factor: int = 4
    """Pixels along a side for one of the guide."""
    reuse: bool = False
    """Keep the vectors that were searched in the cache, for encodes that differ in the decoder's or guide's settings
    alone. The times of such encodes are without the search; a second encode by the same object is a whole one."""

    def __post_init__(self) -> None:
        tiny = self.weights == "random"
        defaults = {"steps": RANDOM_STEPS if tiny else STEPS}
        defaults |= {"search_steps": RANDOM_SEARCH_STEPS if tiny else SEARCH_STEPS}
        for option, value in defaults.items():
            if not getattr(self, option) and not isinstance(getattr(self, option), bool):
                self.spell_out(option, value)
        super().__post_init__()
        self.rate.check(self.name, self.vectors)
        check_count(self.name, "search_steps", self.search_steps, 1, 1_000_000)
        check_count(self.name, "search_batch", self.search_batch, 1, 1000)
        check_choice(self.name, "guide_factor", self.guide_factor, FACTORS)
        check_choice(self.name, "reuse", self.reuse, [False, True])
        check_range(self.name, "bits", self.bits, 0.01, 16)
        check_range(self.name, "compression_guidance", self.compression_guidance, 0, 1e6)
        check_range(self.name, "learning_rate", self.learning_rate, 1e-9, 1e3)
        check_range(self.name, "guide_bpp", self.guide_bpp, 0, 24)
        self.guide_coder()

    def guide_coder(self) -> FixedGuide | FittedGuide | None:
        """What codes the guide: at `guide_rate`, or with 0 at a rate fitted for each image; None if none is sent.

        Raises:
            UnknownName, OutOfRange: no such codec, or it has no such rate.
            ConfigError: it has no rate axis, or cannot be fitted.
        """
        if self.guide_codec == "none":
            return None
        cls = registry.load("codec", self.guide_codec)
        axis = rate_of(cls)
        if self.guide_rate or axis is None:
            rate = self.guide_rate or None
            return FixedGuide(codec_inside("guide", self.guide_codec, rate, self.weights, self.device))
        if not axis.step or hasattr(cls, "weight_needs"):
            raise ConfigError(
                f"guide_codec={self.guide_codec!r} cannot be fitted to guide_bpp; set guide_rate, its {axis.field}"
            )
        return FittedGuide(self.guide_codec, axis, self.device)

    def codecs_inside(self) -> dict[str, Codec]:
        coder = self.guide_coder()
        return {"guide": coder.codec} if coder else {}

    def settings(self) -> dict[str, object]:
        """Beside the sampler's what the guide's codec is set to; a rate that is fitted stands with each image."""
        coder, settings = self.guide_coder(), super().settings()
        if coder:
            options = configuration_of(coder.codec, with_rate=isinstance(coder, FixedGuide))
            settings["guide"] = {"codec": self.guide_codec, **options}
        return settings

    def encode(self, image: Image, side: Side) -> Bitstream:
        height, width = size_of(image)
        self.padded(height, width, UnsupportedImage)
        seed, info = fields.pack_seed(side.seed), {"seed": str(side.seed)}  # refused now, not after the search
        coder, guide = self.guide_coder(), b""
        if coder:
            guide = coder.encode(small(image, self.guide_factor), side, int(self.guide_bpp * height * width / 8))
            info |= {"guide_rate": f"{coder.rate_of(guide):g}"} if isinstance(coder, FittedGuide) else {}
        ready = self.models()
        with reproducible(), encoding(self.name):
            objective = Objective(ready, sampling.latents_of(ready, image), side.seed)
            free = self._searched(ready, objective, image, side.seed)
            section = coding.pack(free, self._search().budget(width_of(ready)))
            info |= _measured(objective, section, width_of(ready))
        return pack(height, width, {"seed": seed, "vectors": section, "guide": guide}, **info)

    def section_names(self) -> Sequence[str]:
        return ["seed", "vectors", "guide"]

    def latents(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
        import torch

        draws = sampling.generators([fields.unpack_seed(sections["seed"])])
        vectors = torch.from_numpy(coding.unpack(sections["vectors"], width_of(ready)))
        guide = self._decoded_guide(sections["guide"], height, width)
        pull = None
        if guide is not None and self.compression_guidance:
            pull = partial(Pull, ready, guide, self.guide_factor, self.compression_guidance)
        return self.denoised(ready, draws, condition(empty_prompt(ready), vectors), height, width, adjust=pull)

    def _decoded_guide(self, section: bytes, height: int, width: int) -> Image | None:
        coder = self.guide_coder()
        if coder is None:
            if section:
                raise BitstreamError(f"a guide of {len(section)} bytes, where none is due")
            return None
        guide = coder.decode(section)
        check_guide(guide, height, width, self.guide_factor)
        return guide

    def _search(self) -> VectorSearch:
        return VectorSearch(self.vectors, self.bits, self.search_steps, self.search_batch, self.learning_rate)

    def _searched(self, ready: Models, objective: Objective, image: Image, seed: int) -> Vectors:
        """The vectors of a search, or from the cache those of a search for another setting of the decoder or guide."""
        import torch

        settings, width = self._search(), width_of(ready)
        decides: dict[str, object] = {"of": "textual inversion 1", "search": vars(settings), "seed": seed}
        decides |= {"image": pixel_sha256(image), "base": self.base, "coder": self.versions()}
        decides |= {"precision": self.precision, "device": self.device}
        cache = Unfinished(decides, folder="textual-inversion")
        # Beside the fields: what this very object did is no configuration.
        encoded: set[object] = self.__dict__.setdefault("_encoded", set())
        again = (decides["image"], seed) in encoded
        encoded.add((decides["image"], seed))
        cached = cache.load().get("vectors") if self.reuse and not again else None
        if cached is not None and cached.shape == (settings.vectors, width):
            vectors: Vectors = cached.numpy().astype(np.float32)
            return vectors
        progress = Progress(f"{self.name}: vectors", settings.steps, "steps")

        def show(step: int, error: float) -> None:
            progress(step, note=f"error {error:.4f}")

        unfinished = Unfinished(decides)
        vectors = search(objective, width, settings, device=ready.device, on_step=show, unfinished=unfinished)
        if self.reuse:
            cache.save({"vectors": torch.from_numpy(vectors)})
        return vectors


def _measured(objective: Objective, section: bytes, width: int) -> dict[str, str]:
    """The vectors' bits by other codes, and what the search reached."""
    import torch

    symbols, step = coding.read_section(section, width)
    levels = int(symbols.max() - symbols.min()) + 1
    bits = {
        "vectors-entropy": coding.code_bits(symbols),
        "vectors-fixed-length": symbols.size * math.ceil(math.log2(levels)),
        "vectors-half-precision": 16 * symbols.size,
    }
    sent = torch.from_numpy(coding.values_of(symbols, step))
    errors = {"error_of_no_words": objective.probe(torch.zeros_like(sent)), "error": objective.probe(sent)}
    return {"legacy": json.dumps(bits), **{name: f"{error:.6f}" for name, error in errors.items()}}


@dataclass(frozen=True)
class FixedGuide:
    """Codes a guide at one rate; the budget is not looked at."""

    codec: Codec

    def encode(self, guide: Image, side: Side, budget: int) -> bytes:  # noqa: ARG002 - as the docstring says
        return self.codec.encode(guide, side).data

    def decode(self, section: bytes) -> Image:
        return self.codec.decode(section)


@dataclass(frozen=True)
class FittedGuide:
    """Codes a guide at the best rate that keeps the budget; the lowest where none does.

    The place of the rate among all of the codec's is sent before its bytes: a codec may need it to decode.
    """

    name: str
    axis: Rate
    device: str

    @property
    def codec(self) -> Codec:
        """At the lowest rate, for what it needs and what codes."""
        return self._codec(0)

    def encode(self, guide: Image, side: Side, budget: int) -> bytes:
        low, high = 0, self._last()
        best = self._coded(0, guide, side)
        while low < high:
            middle = (low + high + 1) // 2
            section = self._coded(middle, guide, side)
            if len(section) <= budget:
                low, best = middle, section
            else:
                high = middle - 1
        return best

    def decode(self, section: bytes) -> Image:
        place, start = read_varint(section, 0)
        if place > self._last():
            raise BitstreamError(f"the guide was coded at place {place} of {self.name}, which has {self._last() + 1}")
        return self._codec(place).decode(section[start:])

    def rate_of(self, section: bytes) -> float:
        """The native rate that a guide was coded at."""
        return self._rate(read_varint(section, 0)[0])

    def _coded(self, place: int, guide: Image, side: Side) -> bytes:
        return varint(place) + self._codec(place).encode(guide, side).data

    def _codec(self, place: int) -> Codec:
        return codec_inside("guide", self.name, self._rate(place), "", self.device)

    def _rate(self, place: int) -> float:
        """Places count from the lowest rate."""
        steps = place if self.axis.rises else self._last() - place
        return self.axis.low + steps * self.axis.step

    def _last(self) -> int:
        return round((self.axis.high - self.axis.low) / self.axis.step)


def small(image: Image, factor: int) -> Image:
    """Means of squares of an image, rounded to 8 bits, the last ones of the image continued.

    >>> small(np.full((5, 9, 3), 7, np.uint8), 4).shape
    (2, 3, 3)
    """
    height, width, _ = image.shape
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge").astype(np.float64)
    rows, columns = guide_size(height, width, factor)
    means: NDArray[np.float64] = padded.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    rounded: Image = np.floor(means + 0.5).astype(np.uint8)
    return rounded


def guide_size(height: int, width: int, factor: int) -> tuple[int, int]:
    """Height and width of an image's guide.

    >>> guide_size(512, 768, 4)
    (128, 192)
    """
    return -(-height // factor), -(-width // factor)


def check_guide(guide: Image, height: int, width: int, factor: int) -> None:
    """Raise `BitstreamError` unless a decoded guide is as large as it must be."""
    due = (*guide_size(height, width, factor), 3)
    if guide.shape != due:
        raise BitstreamError(f"the guide decodes to {guide.shape}, where {due} is due")


class Pull:
    """The pull towards a guide, as `rdpbench.codecs.diffusion.sampling.denoise` takes it."""

    def __init__(self, models: Models, guide: Image, factor: int, strength: float, schedule: Any) -> None:
        """Take the networks, the guide, its factor, ``s_c``, and the scheduler that will sample."""
        import torch

        self._models, self._schedule = models, schedule
        planes = torch.from_numpy(np.ascontiguousarray(guide.transpose(2, 0, 1)))[None]
        self._guide = planes.to(models.device).float() / 127.5 - 1
        self._factor, self._strength = factor, strength
        self._type = check_prediction(models)

    def __call__(self, step: int, time: Tensor, latents: Tensor, prediction: Tensor) -> Tensor:  # noqa: ARG002 - times differ
        """A prediction whose clean latents are nearer to the guide."""
        alpha = self._schedule.alphas_cumprod[round(float(time))].to(latents.device)
        noisy = self._schedule.scale_model_input(latents, time)
        change = -self._strength * self.gradient(clean(self._type, noisy, prediction, alpha))
        return shifted(self._type, prediction, change.to(prediction.dtype), alpha)

    def distance(self, latents: Tensor) -> Tensor:
        """L of clean latents ``(B, 4, h, w)``, one value for each image."""
        planes = self._models.vae.decode(latents / self._models.vae.config.scaling_factor).sample
        rows, columns = self._guide.shape[2:]
        error = block_means(planes, self._factor)[..., :rows, :columns] - self._guide
        value: Tensor = (self._factor / self._models.factor) ** 2 / 2 * error.square().sum(dim=(1, 2, 3))
        return value

    def gradient(self, latents: Tensor) -> Tensor:
        """Of L, in single precision, one image at a time, so that none depends on its neighbours."""
        import torch

        # The loop that calls infers only; a copy made here can be differentiated by.
        with torch.inference_mode(False), torch.enable_grad():
            gradients: list[Tensor] = []
            for image in latents[:, None]:
                free = image.float().clone().requires_grad_()
                gradients += torch.autograd.grad(self.distance(free).sum(), [free])
            return torch.cat(gradients)


def block_means(planes: Tensor, factor: int) -> Tensor:
    """Means of squares of ``(B, C, H, W)`` whose sides are multiples of the factor."""
    count, channels, height, width = planes.shape
    squares = planes.reshape(count, channels, height // factor, factor, width // factor, factor)
    means: Tensor = squares.mean(dim=(3, 5))
    return means


def clean(prediction_type: str, noisy: Tensor, prediction: Tensor, alpha: Tensor) -> Tensor:
    """The clean latents that a prediction means.

    Args:
        prediction_type: ``epsilon`` or ``v_prediction``.
        noisy: latents, scaled as the U-Net sees them: ``sqrt(alpha) z + sqrt(1 - alpha) noise``.
        prediction: of the U-Net.
        alpha: how much of their variance is not noise.
    """
    if prediction_type == "epsilon":
        return (noisy - (1 - alpha).sqrt() * prediction) / alpha.sqrt()
    return alpha.sqrt() * noisy - (1 - alpha).sqrt() * prediction


def shifted(prediction_type: str, prediction: Tensor, change: Tensor, alpha: Tensor) -> Tensor:
    """The prediction that means clean latents that differ by ``change`` from those of ``prediction``."""
    part = alpha.sqrt() if prediction_type == "epsilon" else 1
    return prediction - part / (1 - alpha).sqrt() * change

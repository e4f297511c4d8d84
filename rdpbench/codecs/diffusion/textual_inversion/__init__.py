"""Textual inversion: an image becomes K vectors for Stable Diffusion's attention and a small image as a guide.

Pan, Zhou, Tian, "Extreme Generative Image Compression by Learning Text Embedding from Diffusion Models", 2022,
https://arxiv.org/abs/2211.07793. There is no official code, and of the paper only its summary was at hand.

``fidelity: paper``. What the summary says is done: vectors learned by the diffusion model's own objective, past the
text tower; compressed; a small compressed image that constrains the predicted clean latents of each step;
classifier-free guidance; about 0.07 bpp on Kodak. What it does not say is decided here, and may differ from the
authors' system: all numbers below, the base model, sampler and steps, where the vectors stand, how they and the guide
are coded. Departures: the abstract compresses the vectors with a learned model, of which nothing more is said; here
they are quantised during the search and coded with adaptive counts. SDXL's pooled prompt is of no words.

The encoder searches the vectors, quantises and codes them (`vectors`). The guide is the image in means of
``guide_factor`` x ``guide_factor`` pixels, coded by any codec of rdpbench. Both have budgets that every image keeps, so
that the rate is nearly constant. The decoder draws noise from the seed and denoises it under the vectors.

``s_f`` (`guidance`) is the classifier-free guidance, away from the empty prompt. The **compression guidance** ``s_c``
(`compression_guidance`) changes each predicted clean latent z on the way::

    z  <-  z - s_c * gradient of L at z,      L(z) = (f / 8)^2 * 1/2 * sum (A D(z) - x_g)^2

with D the VAE's decoder to [-1, 1], A the means of f x f pixels, ``x_g`` the decoded guide. The sum counts each error
as often as there are latents to mend it, so that a strength means the same for any size of image and guide: were the
decoder a matrix for each latent, from 4 channels to 3, with largest singular value a, a step would leave
``1 - s_c a^2`` of the error along it, and from ``s_c = 2 / a^2`` on the error would grow. For the VAE of Stable
Diffusion 1 the matrix that circulates for previews (Hugging Face's forum, thread 23204) has ``a^2 = 0.66``, thus 3.0.
It was not measured here.

In the bitstream: height, width, the noise seed, the vectors (their number, the step, the code), the guide (the place of
its rate among the codec's, where it was fitted, and the codec's bytes).

Read `vectors` next: how they are searched and coded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench import registry
from rdpbench.codecs.container import pack, read_varint, varint
from rdpbench.codecs.contract import Bitstream, Codec, Rate, Side, configuration_of, encoding, number, option, rate_of
from rdpbench.codecs.diffusion import fields, sampling
from rdpbench.codecs.diffusion.codec import OnStep, PromptCodec, Unfinished, codec_inside
from rdpbench.codecs.diffusion.models import Models
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
from rdpbench.codecs.learned.systems import size_of
from rdpbench.errors import BitstreamError, ConfigError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import Tensor, torch
from rdpbench.networks.precision import reproducible
from rdpbench.progress import Progress


@dataclass(frozen=True)
class TextualInversion(PromptCodec):
    """Learned vectors, a guide, and Stable Diffusion.

    An encode takes a thousand passes through the U-Net and back, a decode one through the VAE and back for each step.
    """

    name = "textual-inversion"
    rate: ClassVar[Rate] = Rate("vectors", 1, coding.MOST)
    unkeyed: ClassVar = PromptCodec.unkeyed | {"reuse"}

    base: str = "sd-1.5"
    sampler: str = option("ddim", sampling.LEGAL_SAMPLERS)
    steps: int = number(0, 1, 1000, zero=(50, 4))
    """0 is 50, and 4 with ``weights=random``."""
    guidance: float = number(3.0, 0.0, 1000)
    """s_f."""
    negative: str = ""
    vectors: int = 16
    """K."""
    bits: float = number(1.0, 0.01, 16)
    """For each coefficient of the vectors, on average."""
    search_steps: int = number(0, 1, 1_000_000, zero=(1000, 5))
    """0 is 1000, and 5 with ``weights=random``."""
    search_batch: int = number(2, 1, 1000)
    """Times and noises drawn for a step of the search."""
    learning_rate: float = number(0.01, 1e-9, 1e3)
    compression_guidance: float = number(1.0, 0.0, 1e6)
    """s_c; 0 leaves the guide unused, but not unsent."""
    guide_codec: str = "webp"
    """The name of a codec of rdpbench, or ``none``: no guide is sent."""
    guide_rate: float = 0
    """The guide codec's own rate (quality, QP, lambda, ...); 0 fits it for each image to `guide_bpp`."""
    guide_bpp: float = number(0.0385, 0.0, 24)
    """Budget of a guide whose rate is fitted, for each pixel of the image."""
    guide_factor: int = option(4, [1, 2, 4, 8, 16, 32, 64])
    """Pixels along a side for one of the guide; it divides the sides of what is generated."""
    reuse: bool = option(False, [False, True])
    """Keep the vectors that were searched in the cache, for encodes that differ in the decoder's or guide's settings
    alone. The times of such encodes are without the search; a second encode by the same object is a whole one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.codecs_inside()

    def guide_coder(self) -> GuideCoder | None:
        """What codes the guide: at `guide_rate`, or with 0 at a rate fitted for each image; None if none is sent.

        Raises:
            UnknownName, OutOfRange: no such codec, or it has no such rate.
            ConfigError: it has no rate axis, or cannot be fitted.
        """
        if self.guide_codec == "none":
            return None
        cls = registry.load("codec", self.guide_codec)
        axis = rate_of(cls)
        rates: list[float | None] = [self.guide_rate or None]
        if axis and not self.guide_rate:
            if not axis.step or hasattr(cls, "weight_needs"):
                how = f"set guide_rate, its {axis.field}"
                raise ConfigError(f"guide_codec={self.guide_codec!r} cannot be fitted to guide_bpp; {how}")
            rates = list(axis.values if axis.rises else axis.values[::-1])
        return GuideCoder(rates, partial(codec_inside, "guide", self.guide_codec, self.weights, self.device))

    def codecs_inside(self) -> dict[str, Codec]:
        coder = self.guide_coder()
        return {"guide": coder.codec} if coder else {}

    def settings(self) -> dict[str, object]:
        """Beside the sampler's what the guide's codec is set to; a rate that is fitted stands with each image."""
        coder, settings = self.guide_coder(), super().settings()
        if coder:
            options = configuration_of(coder.codec, with_rate=not coder.fitted)
            settings["guide"] = {"codec": self.guide_codec, **options}
        return settings

    def encode(self, image: Image, side: Side) -> Bitstream:
        height, width = size_of(image)
        self.padded(height, width, UnsupportedImage)
        seed, info = fields.pack_seed(side.seed), {"seed": str(side.seed)}  # refused now, not after the search
        coder, guide = self.guide_coder(), self.coded_guide(image, side)
        if coder and coder.fitted:
            info["guide_rate"] = f"{coder.rates[read_varint(guide, 0)[0]]:g}"
        ready = self.models()
        with reproducible(), encoding(self.name):
            objective = Objective(ready, sampling.latents_of(ready, image), side.seed)
            free = self._searched(ready, objective, image, side.seed)
            section = coding.pack(free, self._search().budget(width_of(ready)))
            info |= _measured(objective, section, width_of(ready))
        return pack(height, width, {"seed": seed, "vectors": section, "guide": guide}, **info)

    def coded_guide(self, image: Image, side: Side) -> bytes:
        """The section of the guide."""
        coder, (height, width) = self.guide_coder(), size_of(image)
        budget = int(self.guide_bpp * height * width / 8)
        return coder.encode(small(image, self.guide_factor), side, budget) if coder else b""

    def section_names(self) -> Sequence[str]:
        return ["seed", "vectors", "guide"]

    def latents(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
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
            return cached.numpy().astype(np.float32)
        progress = Progress(f"{self.name}: vectors", settings.steps, "steps")
        show: OnStep = lambda step, error: progress(step, note=f"error {error:.4f}")  # noqa: E731 - used once
        unfinished = Unfinished(decides)
        vectors = search(objective, width, settings, device=ready.device, on_step=show, unfinished=unfinished)
        if self.reuse:
            cache.save({"vectors": torch.from_numpy(vectors)})
        return vectors


def _measured(objective: Objective, section: bytes, width: int) -> dict[str, str]:
    """The vectors' bits by other codes, and what the search reached."""
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
class GuideCoder:
    """Codes a guide at the best of several rates that keeps a budget, or at the lowest where none does.

    The place of the rate among all is sent before the codec's bytes, which may need it to decode; of a single rate not.
    """

    rates: Sequence[float | None]
    """From few bytes to many; None is the codec's default."""
    codec_at: Callable[[float | None], Codec]

    @property
    def codec(self) -> Codec:
        """At the lowest rate, for what it needs and what codes."""
        return self.codec_at(self.rates[0])

    @property
    def fitted(self) -> bool:
        """Are there several?"""
        return len(self.rates) > 1

    def encode(self, guide: Image, side: Side, budget: int) -> bytes:
        low, high = 0, len(self.rates) - 1
        best = self._coded(0, guide, side)
        while low < high:
            middle = (low + high + 1) // 2
            section = self._coded(middle, guide, side)
            if len(section) <= budget:
                low, best = middle, section
            else:
                high = middle - 1
        return best

    def _coded(self, place: int, guide: Image, side: Side) -> bytes:
        head = varint(place) if self.fitted else b""
        return head + self.codec_at(self.rates[place]).encode(guide, side).data

    def decode(self, section: bytes) -> Image:
        place, start = read_varint(section, 0) if self.fitted else (0, 0)
        if place >= len(self.rates):
            raise BitstreamError(f"the guide was coded at place {place} of its codec's {len(self.rates)} rates")
        return self.codec_at(self.rates[place]).decode(section[start:])


def small(image: Image, factor: int) -> Image:
    """Means of squares of an image, rounded to 8 bits, the last ones of the image continued.

    >>> small(np.full((5, 9, 3), 7, np.uint8), 4).shape
    (2, 3, 3)
    """
    height, width, _ = image.shape
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge").astype(np.float64)
    rows, columns = guide_size(height, width, factor)
    means: NDArray[np.float64] = padded.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    return np.floor(means + 0.5).astype(np.uint8)


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
        return (self._factor / self._models.factor) ** 2 / 2 * error.square().sum(dim=(1, 2, 3))

    def gradient(self, latents: Tensor) -> Tensor:
        """Of L, in single precision, one image at a time, so that none depends on its neighbours."""
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
    return squares.mean(dim=(3, 5))


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

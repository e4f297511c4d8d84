"""Textual inversion: an image becomes K vectors for Stable Diffusion's attention and a small image as a guide.

Pan, Zhou, Tian, "Extreme Generative Image Compression by Learning Text Embedding from Diffusion Models", 2022,
https://arxiv.org/abs/2211.07793. There is no official code, and of the paper only its summary was at hand.

``fidelity: paper``. What the summary says is done: vectors learned by the diffusion model's own objective, past the
text tower; compressed; a small compressed image that constrains the predicted clean latents of each step;
classifier-free guidance; about 0.07 bpp on Kodak. What it does not say is decided here, and may differ from the
authors' system: all numbers below, the base model, sampler and steps, where the vectors stand, how they and the guide
are coded.

The encoder searches the vectors (`rdpbench.codecs.diffusion.textual_inversion.search`), quantises them with the step
that fits ``vectors * width * bits`` bits, and codes them (`..._coding`); the guide is the image in means of 4 x 4
pixels, coded by WebP or any codec of rdpbench, at the best quality that keeps its own budget (`..._guide`). Both
budgets are kept by every image, so that the rate is nearly constant, as the summary says of the paper's. The decoder
draws noise from the seed and denoises it under the vectors.

The **compression guidance** ``s_c`` (`compression_guidance`) changes each predicted clean latent z on the way::

    z  <-  z - s_c * gradient of L at z,      L(z) = (f / 8)^2 * 1/2 * sum (A D(z) - x_g)^2

with D the VAE's decoder, A the means of f x f pixels, ``x_g`` the decoded guide. ``s_f`` (`guidance`) is the
classifier-free guidance, away from the empty prompt; neither costs a bit, and an encode with ``reuse=true`` does not
search again what differs in them alone.

In the bitstream: height, width, the noise seed, the vectors (their number, the step, the code), the guide. At 768 x 512
with the defaults these are 4 + 1 bytes, at most 1539 and 1892, and 5 for lengths: 0.070 bpp at most.
Another seed in the same bitstream is another sample: ``decode(data, seed=...)``.

Where this departs from the summary: the abstract compresses the vectors with a learned model, of which nothing more is
said. Here they are quantised during the search and coded with adaptive counts. SDXL's pooled prompt is of no words.

What a long search shows and leaves: a line every half minute, and its vectors, for encodes that differ elsewhere.

Neither guidance scale nor sampler nor guide enters the search, so that a sweep over them needs one search an image.
Vectors are kept in the cache, under a hash of all that decides them, only where ``reuse=true`` asks for it.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import (
    Bitstream,
    Rate,
    Side,
    check_choice,
    coder_inside,
    configuration_of,
    decoding,
    encoding,
    needs_of_built,
)
from rdpbench.codecs.diffusion import fields, prompts, sampling
from rdpbench.codecs.diffusion.codec import DiffusionCodec, check_count
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.sampling import Unfinished
from rdpbench.codecs.diffusion.textual_inversion import coding
from rdpbench.codecs.diffusion.textual_inversion import search as guiding
from rdpbench.codecs.diffusion.textual_inversion.coding import Vectors
from rdpbench.codecs.diffusion.textual_inversion.search import (
    Objective,
    Search,
    condition,
    empty_prompt,
    search,
    width_of,
)
from rdpbench.codecs.learned.systems import check_pixels, size_of, to_planes
from rdpbench.errors import BitstreamError, ConfigError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.needs import Need
from rdpbench.networks.precision import reproducible

TOLD_EVERY_S = 30.0


class Finished(Unfinished):
    """The vectors of a search that is done."""

    def __init__(self, what: Mapping[str, object]) -> None:
        super().__init__(what)
        self.path = self.path.parents[1] / "textual-inversion" / self.path.name

    def vectors(self, shape: tuple[int, int]) -> Vectors | None:
        """They, or None if they are not here."""
        found = (self.load() or {}).get("vectors")
        if found is None or tuple(found.shape) != shape:
            return None
        vectors: Vectors = found.numpy().astype(np.float32)
        return vectors

    def keep(self, vectors: Vectors) -> None:
        """Write them."""
        import torch

        self.save({"vectors": torch.from_numpy(vectors)})


class Teller:
    """Tells where a search is, now and then."""

    def __init__(self, codec: str, steps: int) -> None:
        self._codec, self._steps = codec, steps
        self._told = self._started = time.monotonic()
        self._first: int | None = None

    def __call__(self, step: int, error: float) -> None:
        """Called after each step, with the mean error of the last ones."""
        now = time.monotonic()
        if self._first is None:
            self._first = step - 1  # a search that goes on after a kill does not start at none
        if now - self._told < TOLD_EVERY_S:
            return
        self._told = now
        left = (now - self._started) / (step - self._first) * (self._steps - step)
        line = f"{self._codec}: vectors, step {step} of {self._steps}, error {error:.4f}, about {left:.0f} s left"
        print(line, file=sys.stderr)


STEPS, RANDOM_STEPS = 50, 4
"""Of the sampler, for weights of a model and for random ones at a tiny width, where nothing is to be seen."""
SEARCH_STEPS, RANDOM_SEARCH_STEPS = 1000, 5
with_seed = fields.with_seed


@dataclass(frozen=True)
class TextualInversion(DiffusionCodec):
    """Learned vectors, a guide, and Stable Diffusion.

    An encode takes a thousand passes through the U-Net and back, a decode one through the VAE and back for each step.
    """

    name: ClassVar[str] = "textual-inversion"
    rate: ClassVar[Rate] = Rate("vectors", 1, coding.MOST, points=(16,))
    stochastic: ClassVar[bool] = True
    unkeyed: ClassVar[frozenset[str]] = DiffusionCodec.unkeyed | {"reuse"}

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
        self._fill("steps", RANDOM_STEPS if tiny else STEPS)
        self._fill("search_steps", RANDOM_SEARCH_STEPS if tiny else SEARCH_STEPS)
        super().__post_init__()
        self.rate.check(self.name, self.vectors)
        check_count(self.name, "search_steps", self.search_steps, 1, 1_000_000)
        check_count(self.name, "search_batch", self.search_batch, 1, 1000)
        check_choice(self.name, "guide_factor", self.guide_factor, guiding.FACTORS)
        check_choice(self.name, "reuse", self.reuse, [False, True])
        bounds = {"bits": (0.01, 16), "compression_guidance": (0, 1e6), "learning_rate": (1e-9, 1e3)}
        for option, (least, most) in {**bounds, "guide_bpp": (0, 24)}.items():
            if not least <= getattr(self, option) <= most:
                raise ConfigError(f"{self.name}: {option}={getattr(self, option)!r} must be from {least:g} to {most:g}")
        self._guide_coder()

    def _fill(self, option: str, value: float) -> None:
        """Spell a default out, so that it stands in keys and rows."""
        if not getattr(self, option) and not isinstance(getattr(self, option), bool):
            object.__setattr__(self, option, value)

    def weight_needs(self) -> tuple[Need, ...]:
        guide = self._guide_coder()
        return (*super().weight_needs(), *(needs_of_built(guide.codec) if guide else ()))

    def coder(self) -> dict[str, str]:
        guide = self._guide_coder()
        return {**super().coder(), **(coder_inside("guide", guide.codec) if guide else {})}

    def settings(self) -> dict[str, object]:
        """Beside the sampler's what the guide's codec is set to; a rate that is fitted stands with each image."""
        guide, found = self._guide_coder(), super().settings()
        if guide:
            fixed = isinstance(guide, guiding.Fixed)
            found["guide"] = {"codec": self.guide_codec, **configuration_of(guide.codec, with_rate=fixed)}
        return found

    def encode(self, image: Image, side: Side) -> Bitstream:
        height, width = size_of(image)
        check_pixels(*prompts.FRAME.padded(height, width), self.max_pixels, UnsupportedImage)
        seed = fields.pack_seed(side.seed)  # refused now, not after the search
        guide = self._guide(image, side)
        ready = self.models()
        with reproducible(), encoding(self.name):
            objective = self._objective(ready, image, side.seed)
            section = coding.pack(self._vectors(ready, objective, image, side.seed), self._budget(ready))
            told = _told(objective, section, width_of(ready))
            told |= self._told_of_guide(guide) | {"seed": str(side.seed)}
        return pack(height, width, {"seed": seed, "vectors": section, "guide": guide}, **told)

    def decode(self, data: bytes, *, seed: int | None = None) -> Image:
        """The image, or with a seed of the caller's another sample of the same bitstream."""
        ready = self.models()
        with decoding(self.name):
            height, width, (first, section, guide) = unpack(data if seed is None else with_seed(data, seed), 3)
            check_pixels(*prompts.FRAME.padded(height, width), self.max_pixels, BitstreamError)
            drawn = fields.unpack_seed(first)
            vectors = coding.unpack(section, width_of(ready))
            target = self._decoded_guide(guide, height, width)
        with reproducible(), decoding(self.name):
            return self._sample(ready, vectors, target, drawn, height, width)

    def _sample(
        self, ready: Models, vectors: Vectors, target: Image | None, seed: int, height: int, width: int
    ) -> Image:
        import torch

        draws = sampling.generators([seed])
        start = sampling.noise(ready, draws, *prompts.FRAME.padded(height, width))
        schedule = sampling.scheduler(ready, self.sampler, self.steps)
        pull = None
        if target is not None and self.compression_guidance:
            pull = guiding.Pull(ready, schedule, target, self.guide_factor, self.compression_guidance)
        latents = sampling.denoise(
            ready,
            schedule,
            start,
            draws,
            condition(empty_prompt(ready), torch.from_numpy(vectors)),
            prompts.condition(ready, ready.vocabulary.encode(self.negative)),
            self.guidance,
            adjust=pull,
        )
        [image] = prompts.decode(ready, latents, height, width)
        return image

    def _guide_coder(self) -> guiding.GuideCoder | None:
        return guiding.guide_coder(self.guide_codec, self.guide_rate, self.weights, self.device)

    def _guide(self, image: Image, side: Side) -> bytes:
        """The section of the guide."""
        coder = self._guide_coder()
        budget = int(self.guide_bpp * image.shape[0] * image.shape[1] / 8)
        return coder.encode(guiding.small(image, self.guide_factor), side, budget) if coder else b""

    def _told_of_guide(self, guide: bytes) -> dict[str, str]:
        """The rate that was fitted for this image."""
        coder = self._guide_coder()
        return {"guide_rate": f"{coder.rate_of(guide):g}"} if isinstance(coder, guiding.Fitted) else {}

    def _decoded_guide(self, guide: bytes, height: int, width: int) -> Image | None:
        coder = self._guide_coder()
        if coder is None:
            if guide:
                raise BitstreamError(f"a guide of {len(guide)} bytes, where none is due")
            return None
        image = coder.decode(guide)
        guiding.check_guide(image, height, width, self.guide_factor)
        return image

    def _search(self) -> Search:
        return Search(self.vectors, self.bits, self.search_steps, self.search_batch, self.learning_rate)

    def _budget(self, ready: Models) -> float:
        return self._search().budget(width_of(ready))

    def _objective(self, ready: Models, image: Image, seed: int) -> Objective:
        import torch

        planes = prompts.FRAME.pad(to_planes([image], ready.device, torch.float32))
        return Objective(ready, prompts.encode(ready, planes), seed)

    def _vectors(self, ready: Models, objective: Objective, image: Image, seed: int) -> Vectors:
        """Searched, or kept from a search for another setting of the decoder or the guide."""
        settings = self._search()
        made: dict[str, object] = {"of": "textual inversion 1", "search": vars(settings), "seed": seed}
        made |= {"image": pixel_sha256(image), "base": self.base, "coder": DiffusionCodec.coder(self)}
        made |= {"precision": self.precision, "device": self.device}
        kept = Finished(made)
        # Beside the fields: what this very object did is no configuration.
        done: set[object] = self.__dict__.setdefault("_encoded", set())
        again = (made["image"], seed) in done
        done.add((made["image"], seed))
        if self.reuse and not again and (found := kept.vectors((settings.vectors, width_of(ready)))) is not None:
            return found
        teller = Teller(self.name, settings.steps)
        found = search(
            objective, width_of(ready), settings, device=ready.device, on_step=teller, unfinished=Unfinished(made)
        )
        if self.reuse:
            kept.keep(found)
        return found


def _told(objective: Objective, section: bytes, width: int) -> dict[str, str]:
    """The vectors' bits by other codes, and what the search reached."""
    import torch

    symbols, step = coding.read(section, width)
    levels = int(symbols.max() - symbols.min()) + 1
    bits = {
        "vectors-entropy": coding.code_bits(symbols),
        "vectors-fixed-length": symbols.size * math.ceil(math.log2(levels)),
        "vectors-half-precision": 16 * symbols.size,
    }
    sent = torch.from_numpy(coding.values_of(symbols, step))
    errors = {"error_of_no_words": objective.probe(torch.zeros_like(sent)), "error": objective.probe(sent)}
    return {"legacy": json.dumps(bits), **{name: f"{error:.6f}" for name, error in errors.items()}}

"""PIC, the prompt inversion compressor: an image becomes 16 words, and Stable Diffusion paints them.

Lei et al., "Text + Sketch: Image Compression at Ultra Low Rates", ICML 2023 workshop, https://arxiv.org/abs/2307.01944;
code: leieric/Text-Sketch (no licence; nothing of it is copied here).

The encoder searches the prompt whose CLIP embedding is nearest to the image's (`rdpbench.codecs.diffusion.pic.pez`),
paints N candidates from N seeds, and keeps the one whose CLIP embedding is nearest to the image's. Candidates are made
as the decoder makes its image: one at a time unless ``candidate_batch`` says otherwise.

In the bitstream: height, width, the noise seed (which says which candidate), the tokens of the prompt; see
`rdpbench.codecs.diffusion.fields`. At 768 x 512 with 16 tokens these are 4 + 2 + 1 + 32 = 39 bytes, 0.0008 bpp.

The defaults are the official ones: Stable Diffusion 2.1 base, DPM-Solver++ with 25 steps, guidance 9, ", high quality"
after the prompt, negative words, N = 4, PEZ with 3000 steps in OpenCLIP ViT-H/14. Where this departs, and why:

- Token ids are sent. The official code sends the text, of which four fifths come back as other ids, so that what is
  painted is not what was searched. ``tokens=zlib-text`` sends the text, and chooses the candidate from what comes back.
- The index of the candidate, height and width are counted. The published rate counts the 33 bytes of a Python object
  and log2 N bits instead; it stands in the ``legacy`` rates of each row.
- All is seeded, on the CPU. The official search is not, and its noise is that of the GPU that ran it.
- The decoder paints one image, not N of which it drops N - 1.
- Single precision by default, without xformers, whose sums differ between GPUs.
- Any size is taken: painted at the next multiples of 64, and cut. The official code resizes its input, which here is
  the protocol of a dataset: ``data=kodak data.options.protocol=text-sketch-512``. Sizes far from the model's own paint
  badly.

PICS, PIC with a sketch: an edge map goes with the prompt, and a ControlNet paints along it.

Lei et al., "Text + Sketch: Image Compression at Ultra Low Rates", ICML 2023 workshop, https://arxiv.org/abs/2307.01944;
code: leieric/Text-Sketch (no licence; nothing of it is copied here). All that `rdpbench.codecs.diffusion.pic.codec`
says holds here.

Weights, beside PIC's: HED (`rdpbench.codecs.diffusion.pic.sketches`), the ControlNet for HED maps of SD 2.1, and the
authors' sketch codec for lambda 0.5 or 1.0, a Cheng2020 network with attention for one channel
(`rdpbench.codecs.diffusion.pic.sketches`).

In the bitstream: height, width, seed, prompt as in PIC, then the strings of the sketch: ``z`` and ``y``, or ``sketch``.

What the ControlNet sees is the *decoded* sketch, sharpened by torchvision with factor 2 and made 8 bits by dropping
fractions, as officially. Nothing but sizes is known to the decoder beside the bytes. UniPC samples, not DPM-Solver++.

`PICS` is the published system; its rate axis is the sketch codec's lambda. `SketchPICS` answers the paper's own open
question, which sketch and which codec for it: Canny edges or HED maps, thresholded or not, coded as fax (CCITT
Group 4) or by any codec of rdpbench, with a ControlNet trained for the kind. Its rate axis is that codec's native rate.

Where this departs from the official code beyond PIC's departures, and why:

- Every image is coded with its own prompt. The official script reuses, by number, captions of an earlier dataset.
- An image whose sides are no multiples of 64 is continued at the right and below, and its sketch coded at that size.
- The sketch codec codes its latents along wavefronts: the same bits in another order, in a tenth of the steps.
"""

from __future__ import annotations

import json
import math
import sys
import time
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdpbench.assets.weights import OwnFolder, Weights
from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import (
    Bitstream,
    Codec,
    Rate,
    Side,
    check_choice,
    coder_inside,
    configuration_of,
    decoding,
    encoding,
)
from rdpbench.codecs.diffusion import bases, fields, models, prompts
from rdpbench.codecs.diffusion.codec import DiffusionCodec, check_count
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.pic import sketches
from rdpbench.codecs.diffusion.pic.pez import Found, PromptSpace, Search, invert
from rdpbench.codecs.diffusion.pic.sketches import Grey, SketchCoder
from rdpbench.codecs.diffusion.sampling import Control, Unfinished
from rdpbench.codecs.learned.systems import check_pixels, size_of
from rdpbench.errors import BitstreamError, ConfigError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.clip import unit
from rdpbench.networks.precision import reproducible

TOLD_EVERY_S = 30.0
SEARCH_STEPS, RANDOM_SEARCH_STEPS = 3000, 30
"""Of the search: the official number, and that for random weights at a tiny width, whose words mean nothing."""
with_seed = fields.with_seed
"""Another sample of the same bitstream: nothing is encoded again."""


@dataclass(frozen=True)
class PIC(DiffusionCodec):
    """Prompt inversion and Stable Diffusion.

    An encode takes minutes on a GPU; on a CPU an hour for the search, and a quarter of an hour for each candidate.
    """

    name: ClassVar[str] = "pic"
    rate: ClassVar[Rate] = Rate("prompt_length", 1, 64, points=(16,))
    stochastic: ClassVar[bool] = True
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {**DiffusionCodec.takes_own, "clip": frozenset(prompts.CLIPS)}

    prompt_length: int = 16
    """Tokens."""
    candidates: int = 4
    """N; more give a better choice for log2 N bits and N times the encoder's painting."""
    candidate_batch: int = 1
    """Candidates that the encoder paints together; beyond 1 its pixels may differ from the decoder's by a little."""
    tokens: str = "fixed"
    """How the prompt is coded: ``fixed``, ``rank`` or ``zlib-text``, which does not survive."""
    suffix: str = ", high quality"
    """Words after every prompt; not sent."""
    clip: str = "clip-vit-h-14-laion2b-s32b-b79k"
    """The network for the search and the choice: one of `clips.CLIPS`, or a folder with a ``CLIPModel``."""
    search_steps: int = 0
    """0 is 3000, and 30 with ``weights=random``."""
    learning_rate: float = 0.1
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        if self.search_steps == 0 and not isinstance(self.search_steps, bool):
            # Spelled out, so that it stands in keys and rows.
            object.__setattr__(self, "search_steps", RANDOM_SEARCH_STEPS if self.weights == "random" else SEARCH_STEPS)
        super().__post_init__()
        PIC.rate.check(self.name, self.prompt_length)
        check_choice(self.name, "tokens", self.tokens, fields.CODES)
        check_count(self.name, "candidates", self.candidates, 1, 4096)
        check_count(self.name, "candidate_batch", self.candidate_batch, 1)
        check_count(self.name, "search_steps", self.search_steps, 1)
        bases.check_known("clip", self.clip, prompts.CLIPS)
        if self.learning_rate <= 0 or not 0 <= self.weight_decay < 1 / self.learning_rate:
            raise ConfigError(
                f"{self.name}: learning_rate={self.learning_rate!r} must be above 0, and weight_decay="
                f"{self.weight_decay!r} from 0 to below its inverse"
            )

    def weight_needs(self) -> tuple[Need, ...]:
        return (*super().weight_needs(), *(prompts.needs(self.clip) if self.weights == "official" else ()))

    def hashes(self) -> dict[str, str]:
        return {**super().hashes(), "clip": prompts.identity(self.clip)}

    def encode(self, image: Image, side: Side) -> Bitstream:
        return self.encode_batch([image], [side])[0]

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        """Encode images, of any sizes, whose prompts are searched together; each bitstream decodes alone.

        A prompt depends a little on what else is in the batch: sums in another order end in other words.
        """
        for image in images:
            check_pixels(*prompts.FRAME.padded(*size_of(image)), self.max_pixels, UnsupportedImage)
        for side in sides:
            fields.pack_seed(side.seed * self.candidates)  # refused now, not after the search
        ready, space = self.models(), self._space()
        with reproducible(), encoding(self.name):
            found = self._prompts(space, images, [side.seed for side in sides])
            return [
                self._encoded(ready, space, image, side.seed, prompt)
                for image, side, prompt in zip(images, sides, found, strict=True)
            ]

    def decode(self, data: bytes, *, seed: int | None = None) -> Image:
        """The image, or with a seed of the caller's another sample of the same bitstream."""
        ready = self.models()
        with reproducible(), decoding(self.name):
            data = data if seed is None else with_seed(data, seed)
            height, width, (first, prompt, *rest) = unpack(data, 2 + len(self.sketch_sections()))
            check_pixels(*prompts.FRAME.padded(height, width), self.max_pixels, BitstreamError)
            drawn = fields.unpack_seed(first)
            ids = fields.unpack_tokens(prompt, self.tokens, ready.vocabulary, self.suffix)
            control = self.control(ready, rest, height, width)
            [image] = self.generate(ready, [drawn], ids, height, width, control)
            return image

    def sketch_sections(self) -> tuple[str, ...]:
        """Sections after the prompt; there are none in PIC."""
        return ()

    def sketch(self, image: Image) -> Mapping[str, bytes]:  # noqa: ARG002 - PICS has one
        """What is sent beside the prompt."""
        return {}

    def control(self, ready: Models, sections: Sequence[bytes], height: int, width: int) -> Control | None:  # noqa: ARG002 - as above
        """What steers the painting beside the prompt."""
        return None

    def printed(self, ids: Sequence[int], ready: Models, sketch: Mapping[str, bytes]) -> dict[str, float]:
        """Bits by calculator: as the publication counts them, and what the parts hold without containers."""
        text = zlib.compress(ready.vocabulary.decode(ids).encode())
        choice = math.log2(self.candidates)
        strings = [part for name, part in sketch.items() if name != "guard"]
        return {
            "text-sketch": legacy.getsizeof([text]) + legacy.binary_digits(strings) + choice,
            "tokens-fixed": 16 * len(ids),
            "tokens-rank": fields.rank_bits(len(ids), ready.vocabulary.size),
            "text-zlib": 8 * len(text),
            "index": choice,
        }

    def _space(self) -> PromptSpace:
        return PromptSpace(prompts.load(self.clip, self.weights, self.device))

    def _prompts(self, space: PromptSpace, images: Sequence[Image], seeds: Sequence[int]) -> list[Found]:
        search = Search(self.prompt_length, self.search_steps, self.learning_rate, self.weight_decay)
        made = {"of": "pez 1", "clip": self.coder(), "search": vars(search), "seeds": list(seeds)}
        unfinished = Unfinished({**made, "images": [pixel_sha256(image) for image in images]})
        told = started = time.monotonic()

        def tell(step: int, cosine: float) -> None:
            nonlocal told
            now = time.monotonic()
            if now - told >= TOLD_EVERY_S:
                told = now
                left = (now - started) / step * (self.search_steps - step)
                line = f"{self.name}: prompt search, step {step} of {self.search_steps}, cosine {cosine:.3f}"
                print(f"{line}, about {left:.0f} s left", file=sys.stderr)

        return invert(space, images, seeds, search, on_step=tell, unfinished=unfinished)

    def _encoded(self, ready: Models, space: PromptSpace, image: Image, run: int, prompt: Found) -> Bitstream:
        height, width = size_of(image)
        section = fields.pack_tokens(prompt.ids, self.tokens, ready.vocabulary)
        ids = fields.unpack_tokens(section, self.tokens, ready.vocabulary, self.suffix)
        sketch = self.sketch(image)
        first = run * self.candidates
        seeds = range(first, first + self.candidates)
        seed, likeness = first, math.nan
        if self.candidates > 1:
            control = self.control(ready, list(sketch.values()), height, width)
            scores = self._scores(ready, space, image, seeds, ids, control)
            seed, likeness = seeds[int(np.argmax(scores))], float(np.max(scores))
        bits = self.printed(prompt.ids, ready, sketch)
        told = {"legacy": json.dumps(bits), "prompt": ready.vocabulary.decode(prompt.ids)}
        told |= {"prompt_cosine": f"{prompt.cosine:.4f}", "seed": str(seed)}
        told |= {"candidate_cosine": f"{likeness:.4f}"} if self.candidates > 1 else {}
        return pack(height, width, {"seed": fields.pack_seed(seed), "prompt": section, **sketch}, **told)

    def _scores(
        self,
        ready: Models,
        space: PromptSpace,
        image: Image,
        seeds: Sequence[int],
        ids: Sequence[int],
        control: Control | None,
    ) -> list[float]:
        """Cosine of each candidate with the image, in CLIP's space."""
        height, width = size_of(image)
        target = unit(space.clip.image([image]))[0]
        scores: list[float] = []
        for at in range(0, len(seeds), self.candidate_batch):
            some = seeds[at : at + self.candidate_batch]
            painted = list(self.generate(ready, some, ids, height, width, control))
            scores += [float(one @ target) for one in unit(space.clip.image(painted))]
        return scores


__all__ = ["PICS", "SketchPICS", "with_seed"]


@dataclass(frozen=True)
class _Sketched(PIC):
    """What both share."""

    needs: ClassVar[tuple[Need, ...]] = (*PIC.needs, Package("compressai"), Package("opencv-python-headless", "cv2"))
    preload: ClassVar[tuple[str, ...]] = (*PIC.preload, "rdpbench.codecs.learned.library")
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {**PIC.takes_own, "controlnet": frozenset()}

    sampler: str = "unipc"
    controlnet: str = ""
    """A folder with a ControlNet for the base model and the kind of sketch; by default the known one."""
    control_scale: float = 1.0
    """How strongly the ControlNet steers."""
    sharpness: float = 2.0
    """Of the decoded sketch; 1 leaves it."""
    portable: bool = False
    """Strings of the learned sketch codec that any machine decodes (`rdpbench.codecs.learned.entropy`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "portable", self.portable, [False, True])
        if not 0 <= self.sharpness <= 100 or not 0 <= self.control_scale <= 100:
            raise ConfigError(f"{self.name}: sharpness and control_scale must be numbers from 0 to 100")
        if self.weights == "official":
            self._controlnet()

    @abstractmethod
    def kind(self) -> str:
        """Which edges: those that the ControlNet was trained on."""

    @abstractmethod
    def coder_of_sketch(self) -> SketchCoder:
        """What codes them."""

    @abstractmethod
    def edges(self, image: Image) -> Grey:
        """The sketch ``uint8 (H, W)`` of an image."""

    def weight_needs(self) -> tuple[Need, ...]:
        if self.weights != "official":
            return ()
        edges = (Weights(sketches.CARD),) if self.kind() == "hed" else ()
        return (*super().weight_needs(), self._controlnet(), *edges)

    def coder(self) -> dict[str, str]:
        versions = {name: package_version(name) for name in ("compressai", "opencv-python-headless")}
        return {**super().coder(), **versions}

    def hashes(self) -> dict[str, str]:
        made = {**super().hashes(), "controlnet": self._controlnet().named_identity}
        return made | ({"hed": Weights(sketches.CARD).named_identity} if self.kind() == "hed" else {})

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "sketch_kind": self.kind(), "sketch": self.settings_of_sketch()}

    def settings_of_sketch(self) -> dict[str, object]:
        """What the sketch's codec is set to, its rate too."""
        return {"codec": "text-sketch"}

    def sketch_sections(self) -> tuple[str, ...]:
        return self.coder_of_sketch().sections

    def sketch(self, image: Image) -> Mapping[str, bytes]:
        height, width = size_of(image)
        rows, columns = prompts.FRAME.padded(height, width)
        padded = np.pad(image, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        return self.coder_of_sketch().encode(self.edges(padded))

    def control(self, ready: Models, sections: Sequence[bytes], height: int, width: int) -> Control:
        import torch

        plane = self.coder_of_sketch().decode(sections, *prompts.FRAME.padded(height, width))
        grey = torch.from_numpy(sketches.sharpened(plane, self.sharpness)).float() / 255
        net = models.load_controlnet(ready, self.controlnet, self.base, self.kind(), self.weights, self.precision)
        return Control(net, grey.expand(1, 3, -1, -1), self.control_scale)

    def _controlnet(self) -> OwnFolder | Weights:
        return models.controlnet_source(self.controlnet, self.base, self.kind())


@dataclass(frozen=True)
class PICS(_Sketched):
    """The published system."""

    name: ClassVar[str] = "pics"
    rate: ClassVar[Rate] = Rate("sketch_lambda", 0.5, 1.0, step=0.5, points=sketches.LAMBDAS)

    sketch_lambda: float = 1.0
    """Trade-off that the sketch codec was trained for: 0.5 aims at 0.015 bpp, 1 at 0.025."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate.check(self.name, self.sketch_lambda)

    def kind(self) -> str:
        return "hed"

    def edges(self, image: Image) -> Grey:
        return sketches.edges(sketches.load(self.weights, self.device), image)

    def coder_of_sketch(self) -> SketchCoder:
        return sketches.learned(self.sketch_lambda, self.weights, self.portable, self.device)

    def weight_needs(self) -> tuple[Need, ...]:
        own = (sketches.checkpoint(self.sketch_lambda),) if self.weights == "official" else ()
        return (*super().weight_needs(), *own)

    def hashes(self) -> dict[str, str]:
        return {**super().hashes(), "sketch codec": sketches.checkpoint(self.sketch_lambda).identity}


@dataclass(frozen=True)
class SketchPICS(_Sketched):
    """PICS with another sketch, or another codec for it."""

    name: ClassVar[str] = "pics-sketch"
    rate: ClassVar[Rate] = Rate("sketch_rate", 0, 100000, step=0)

    sketch_kind: str = "canny"
    """``canny`` or ``hed``."""
    sketch_codec: str = "ccitt-g4"
    """``ccitt-g4``, ``text-sketch``, or the name of a codec of rdpbench, such as ``webp``."""
    sketch_rate: float = 0
    """The sketch codec's own rate (quality, QP, lambda, ...); 0 leaves its default."""
    sketch_threshold: int = 0
    """Greys at and above it become white, the others black; 0 leaves them."""
    canny_low: int = 100
    canny_high: int = 200

    def __post_init__(self) -> None:
        check_choice(self.name, "sketch_kind", self.sketch_kind, ["canny", "hed"])
        super().__post_init__()
        check_count(self.name, "sketch_threshold", self.sketch_threshold, 0, 255)
        check_count(self.name, "canny_low", self.canny_low, 0, 10000)
        check_count(self.name, "canny_high", self.canny_high, self.canny_low, 10000)
        if self.sketch_codec == "ccitt-g4":
            check_choice(self.name, "sketch_rate", self.sketch_rate, [0])
            if self.sketch_kind == "hed" and not self.sketch_threshold:
                raise ConfigError(f"{self.name}: ccitt-g4 codes black and white; set sketch_threshold, such as 128")
        elif self.sketch_codec == "text-sketch":
            check_choice(self.name, "sketch_rate", self.sketch_rate, [0, *sketches.LAMBDAS])
        else:
            self._registered()

    def kind(self) -> str:
        return self.sketch_kind

    def edges(self, image: Image) -> Grey:
        if self.sketch_kind == "canny":
            found = sketches.canny(image, self.canny_low, self.canny_high)
        else:
            found = sketches.edges(sketches.load(self.weights, self.device), image)
        return np.where(found >= self.sketch_threshold, 255, 0).astype(np.uint8) if self.sketch_threshold else found

    def coder_of_sketch(self) -> SketchCoder:
        if self.sketch_codec == "ccitt-g4":
            return sketches.Fax()
        if self.sketch_codec == "text-sketch":
            return sketches.learned(self._lambda(), self.weights, self.portable, self.device)
        return sketches.Registered(self._registered())

    def weight_needs(self) -> tuple[Need, ...]:
        own: tuple[Need, ...] = ()
        if self.sketch_codec == "text-sketch" and self.weights == "official":
            own = (sketches.checkpoint(self._lambda()),)
        elif self.sketch_codec not in ("ccitt-g4", "text-sketch"):
            own = sketches.codec_needs(self._registered())
        return (*super().weight_needs(), *own)

    def coder(self) -> dict[str, str]:
        if self.sketch_codec in ("ccitt-g4", "text-sketch"):
            return {**super().coder(), "pillow": package_version("pillow")}
        return {**super().coder(), **coder_inside("sketch", self._registered())}

    def settings_of_sketch(self) -> dict[str, object]:
        if self.sketch_codec == "ccitt-g4":
            return {"codec": self.sketch_codec}
        if self.sketch_codec == "text-sketch":
            return {"codec": self.sketch_codec, "lambda": self._lambda()}
        return {"codec": self.sketch_codec, **configuration_of(self._registered(), with_rate=True)}

    def hashes(self) -> dict[str, str]:
        if self.sketch_codec != "text-sketch":
            return super().hashes()
        return {**super().hashes(), "sketch codec": sketches.checkpoint(self._lambda()).identity}

    def _lambda(self) -> float:
        return self.sketch_rate or sketches.LAMBDAS[-1]

    def _registered(self) -> Codec:
        return sketches.registered(self.sketch_codec, self.sketch_rate, self.weights, self.device)

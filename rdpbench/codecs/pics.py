"""PICS, PIC with a sketch: an edge map goes with the prompt, and a ControlNet paints along it.

Lei et al., "Text + Sketch: Image Compression at Ultra Low Rates", ICML 2023 workshop, https://arxiv.org/abs/2307.01944;
code: leieric/Text-Sketch (no licence; nothing of it is copied here). All that `rdpbench.codecs.pic` says holds here.

Weights, beside PIC's: HED (`rdpbench.codecs.hed`), the ControlNet for HED maps of SD 2.1, and the authors' sketch codec
for lambda 0.5 or 1.0, a Cheng2020 network with attention for one channel (`rdpbench.codecs.diffusion.sketches`).

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

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdpbench.codecs import hed
from rdpbench.codecs.contract import Codec, Rate, coder_inside, configuration_of
from rdpbench.codecs.diffusion import models, pixels, sketches
from rdpbench.codecs.diffusion.codec import check_count
from rdpbench.codecs.diffusion.folders import Place
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.sampling import Control
from rdpbench.codecs.diffusion.sketches import Grey, SketchCoder
from rdpbench.codecs.inprocess import check_choice
from rdpbench.codecs.learned.frames import size_of
from rdpbench.codecs.pic import PIC, with_seed
from rdpbench.errors import ConfigError
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version
from rdpbench.weights import Weights

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
    """Strings of the learned sketch codec that any machine decodes (`rdpbench.codecs.learned.portable`)."""

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
        edges = (Weights(hed.CARD),) if self.kind() == "hed" else ()
        return (*super().weight_needs(), self._controlnet(), *edges)

    def coder(self) -> dict[str, str]:
        versions = {name: package_version(name) for name in ("compressai", "opencv-python-headless")}
        return {**super().coder(), **versions}

    def hashes(self) -> dict[str, str]:
        made = {**super().hashes(), "controlnet": models.source_identity(self._controlnet())}
        return made | ({"hed": models.named(hed.CARD)} if self.kind() == "hed" else {})

    def settings(self) -> dict[str, object]:
        return {**super().settings(), "sketch_kind": self.kind(), "sketch": self.settings_of_sketch()}

    def settings_of_sketch(self) -> dict[str, object]:
        """What the sketch's codec is set to, its rate too."""
        return {"codec": "text-sketch"}

    def sketch_sections(self) -> tuple[str, ...]:
        return self.coder_of_sketch().sections

    def sketch(self, image: Image) -> Mapping[str, bytes]:
        height, width = size_of(image)
        rows, columns = pixels.FRAME.padded(height, width)
        padded = np.pad(image, ((0, rows - height), (0, columns - width), (0, 0)), mode="edge")
        return self.coder_of_sketch().encode(self.edges(padded))

    def control(self, ready: Models, sections: Sequence[bytes], height: int, width: int) -> Control:
        import torch

        plane = self.coder_of_sketch().decode(sections, *pixels.FRAME.padded(height, width))
        grey = torch.from_numpy(sketches.sharpened(plane, self.sharpness)).float() / 255
        net = models.load_controlnet(ready, self.controlnet, self.base, self.kind(), self.weights, self.precision)
        return Control(net, grey.expand(1, 3, -1, -1), self.control_scale)

    def _controlnet(self) -> Place | Weights:
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
        return hed.edges(hed.load(self.weights, self.device), image)

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
            found = hed.edges(hed.load(self.weights, self.device), image)
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

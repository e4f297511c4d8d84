"""PerCo, and what it shares with PerCo-Image: all but how the image is described as a whole."""

from __future__ import annotations

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack
from rdpbench.codecs.contract import Bitstream, Rate, Side, encoding, number, option
from rdpbench.codecs.diffusion import bases, fields, models, sampling
from rdpbench.codecs.diffusion.codec import DiffusionCodec, SamplingCodec
from rdpbench.codecs.diffusion.perco import pipeline
from rdpbench.codecs.diffusion.perco.pipeline import POINTS, PerCoRate, Pipeline
from rdpbench.codecs.diffusion.sampling import Condition
from rdpbench.codecs.learned.systems import size_of
from rdpbench.errors import CodecError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.lazy import Tensor, torch
from rdpbench.needs import Need, Package
from rdpbench.networks.precision import reproducible

_OTHER_DRAW = 0x9E3779B9
"""What the encoder's draw is seeded apart from the decoder's by."""


@dataclass(frozen=True)
class PerCoCodec(SamplingCodec):
    """Base of both; its fields come before those of the codec."""

    rate: ClassVar[Rate] = Rate("nominal", min(POINTS), max(POINTS), 0, points=tuple(POINTS), listed=True)
    described: ClassVar[str]
    """Name of the section that describes the image as a whole."""
    preload: ClassVar = (*DiffusionCodec.preload, "rdpbench.codecs.learned.library")
    needs: ClassVar = (*DiffusionCodec.needs, Package("compressai", extra="generative"))
    takes_own: ClassVar = {"pipeline": frozenset(), "checkpoint": frozenset()}
    checkpoint_is = "pipeline"
    parts_of_own: ClassVar = {"pipeline": tuple(pipeline.PARTS)}
    libraries: ClassVar = (*DiffusionCodec.libraries, "compressai")

    nominal: float = 0.0313
    """Which of the seven networks: the rate that it is named after, one of `pipeline.POINTS`."""
    pipeline: str = ""
    """A folder of yours, as the official code saves a pipeline, instead of the published one of the rate. ``{nominal}``
    in it stands for the rate, where there is a folder for each."""
    precision: str = option("float32", models.PRECISIONS)
    """Of the U-Net and the text tower."""
    sampler: str = option("ddim", sampling.LEGAL_SAMPLERS)
    steps: int = number(0, 0, 1000)
    """0 is what was published for the rate: 20 below 0.05 bpp, 5 above."""
    guidance: str = option("text", ["none", "text", "text+spatial"])
    """What is left out on the side that guidance keeps away from: ``text``, ``text+spatial``, or ``none`` is done."""
    guidance_scale: float = number(3.0, 0.0, 1000)
    conditioning: str = option("both", ["both", "spatial", "text"])
    """What is sent and seen: ``both``, ``spatial`` or ``text``."""
    quantised: bool = option(True, [True, False])
    """False sends the vectors in single precision, as the paper's ablation does."""
    posterior: str = option("sample", ["sample", "mean"])
    """Of the VAE's encoder: ``sample``, seeded by the run's seed, or ``mean``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pipeline:
            bases.check_known("pipeline", self.pipeline, ())

    @classmethod
    def own_rates(cls, options: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The rate that a folder of the user's states; all where there is a folder for each, or it states none."""
        folder = str(options.get("checkpoint") or options.get("pipeline") or "")
        rate = None if "{nominal}" in folder or not folder else pipeline.rate_of(folder)
        return None if rate is None else (rate,)

    @property
    def folder(self) -> str:
        """The user's pipeline of this rate; empty for the published one."""
        return self.pipeline.replace("{nominal}", f"{self.nominal:g}")

    @property
    def point(self) -> PerCoRate:
        """What the published system does at this rate."""
        return POINTS[self.nominal]

    @abstractmethod
    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:
        """The section named `described`; what the decoder is shown of the image as a whole."""

    @abstractmethod
    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        """What the U-Net is shown of it; of None what it is shown of nothing."""

    @abstractmethod
    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:
        """Bits as the system's own publication counts them, of what is sent and ``count`` indices."""

    def embedding(self) -> int:
        """Width of an image embedding that the U-Net is conditioned on; 0 for captions."""
        return 0

    def untrained(self) -> list[str]:
        """The settings that the networks were not trained for; such results say nothing about the published system."""
        modes = {
            "guidance=text+spatial": self.guidance == "text+spatial",
            "conditioning=text": self.conditioning == "text",
            "quantised=false": not self.quantised and self.conditioning != "text",
        }
        return [mode for mode, chosen in modes.items() if chosen]

    def files(self) -> tuple[Need, ...]:
        own = (sampling.Schedule(self.folder, self.sampler, self._steps()),) if self.pipeline else ()
        return (*pipeline.pipeline_needs(self.nominal, self.folder), *own)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries, hashes of the weights by part, and what the networks were not trained for."""
        return {**super().versions(), **({"untrained": ", ".join(self.untrained())} if self.untrained() else {})}

    def hashes(self) -> dict[str, str]:
        sources = pipeline.sources(self.nominal, self.folder)
        return {part: source.named_identity for part, source in sources.items()}

    def models(self) -> Pipeline:
        where = (self.weights, self.precision, self.device, self.folder)
        return pipeline.load_pipeline(self.nominal, *where, embedding=self.embedding())

    def settings(self) -> dict[str, object]:
        """What follows from the rate, the base model, and what the sampler is set up with."""
        return {
            "base": self.folder or pipeline.BASE,
            "steps": self._steps(),
            "index_stride": self.point.stride,
            "index_entries": self.point.entries,
            "scheduler": sampling.settings_of(pipeline.layout(self.weights, self.folder), self.sampler),
        }

    def encode(self, image: Image, side: Side) -> Bitstream:
        height, width = size_of(image)
        padded = self.padded(height, width, UnsupportedImage)
        seed = fields.pack_seed(side.seed)
        ready = self.models()
        sections = {}
        with reproducible(), encoding(self.name):
            if self.conditioning != "spatial":
                sections[self.described] = self.describe(ready, image, side)
            if self.conditioning != "text":
                sections |= self._local(ready, image, side.seed)
        bits = legacy.rates(sections, (height, width), padded)
        if "indices" in sections:
            bits["nominal"] = legacy.nominal(self.nominal, (height, width))
        if "vectors" not in sections:
            rows, columns = self.point.grid(*padded)
            count = rows * columns if "indices" in sections else 0
            bits |= self.printed(sections, side, count, (height, width))
        return pack(height, width, {"seed": seed, **sections}, legacy=json.dumps(bits), seed=str(side.seed))

    def _local(self, ready: Pipeline, image: Image, seed: int) -> dict[str, bytes]:
        latents = sampling.latents_of(ready, image, seed ^ _OTHER_DRAW if self.posterior == "sample" else None)
        directions = ready.hyper.directions(latents)
        if not self.quantised:
            return {"vectors": directions.cpu().numpy().astype("<f4").tobytes()}
        indices = ready.hyper.quantizer.indices(directions).cpu().numpy().astype(np.int64)
        return {"indices": fields.pack_indices(indices, self.point.entries)}

    def section_names(self) -> Sequence[str]:
        both = [self.described, "indices" if self.quantised else "vectors"]
        return ["seed", *{"both": both, "text": both[:1], "spatial": both[1:]}[self.conditioning]]

    def latents(self, ready: Pipeline, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:  # type: ignore[override] # of `models`
        from rdpbench.codecs.diffusion.perco.network import Blindfolded

        padded = sampling.FRAME.padded(height, width)
        blind = self.guidance == "text+spatial"
        # Without a caption there is nothing that guidance by text could leave out.
        guided = blind or (self.guidance == "text" and self.described in sections)
        scale = self.guidance_scale if guided else 1.0
        draws = sampling.generators([fields.unpack_seed(sections["seed"])])
        return sampling.denoise(
            replace(ready, unet=Blindfolded(ready.unet, ready.channels)) if blind and scale > 1 else ready,
            sampling.scheduler(ready, self.sampler, self._steps()),
            sampling.noise(ready, draws, *padded),
            draws,
            self.condition(ready, sections.get(self.described)),
            self.condition(ready, None),
            scale,
            extra=self._hyper_latents(ready, sections, *padded),
        )

    def _hyper_latents(self, ready: Pipeline, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
        """What the U-Net is shown beside the latents, of an image of a padded size; zeros where it was not sent."""
        from rdpbench.codecs.diffusion.perco.network import shown

        size = height // ready.factor, width // ready.factor
        rows, columns = self.point.grid(height, width)
        quantiser = ready.hyper.quantizer
        if "indices" in sections:
            indices = fields.unpack_indices(sections["indices"], rows * columns, self.point.entries)
            vectors = quantiser.entries(torch.from_numpy(indices.reshape(1, rows, columns)).to(ready.device))
        elif "vectors" in sections:
            shape = (1, rows, columns, quantiser.project_out.in_features)
            vectors = torch.from_numpy(fields.unpack_floats(sections["vectors"], shape)).to(ready.device)
        else:
            channels = ready.unet.config.in_channels - ready.channels
            return torch.zeros(1, channels, *size).to(ready.device, ready.dtype)
        return shown(quantiser.planes(vectors), *size).to(ready.dtype)

    def _steps(self) -> int:
        return self.steps or self.point.steps


@dataclass(frozen=True)
class PerCo(PerCoCodec):
    """Indices and a caption."""

    name = "perco"
    described = "caption"
    uses_caption: ClassVar[bool] = True

    caption_code: str = option("zlib", fields.CAPTION_CODES)
    """How the caption is coded: ``zlib``, ``deflate``, ``fixed`` or ``rank``; all paint the same."""

    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:  # noqa: ARG002 - the caption is made before
        if side.caption is None:
            raise CodecError(
                f"{self.name} encodes an image with its caption, and got none; type captions=human, captions=blip2, "
                "or leave it out: codec.options.conditioning=spatial"
            )
        return fields.pack_caption(side.caption, self.caption_code, ready.vocabulary)

    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        if section is None:
            return sampling.condition(ready, [])
        return sampling.condition(ready, fields.unpack_caption(section, self.caption_code, ready.vocabulary))

    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:
        return printed_bits(side.caption if self.described in sections else None, count, self.point.entries, size)


def printed_bits(caption: str | None, count: int, entries: int, size: tuple[int, int]) -> dict[str, float]:
    """Bits as PerCo (SD) prints them of a caption, if one is sent, and of ``count`` indices among ``entries``.

    ``perco`` is its rate of a dataset, ``pickle`` that of a file.

    >>> printed_bits("a red door", 64, 256, (512, 512))["indices"]
    512
    """
    text = b"" if caption is None else zlib.compress(caption.encode(), 9)
    indices = fields.index_bits(count, entries)
    coded = -(-(indices + 2) // 8) if count else 0  # the official arithmetic coder takes two bits more to end
    # Lengths alone make the size of a pickle.
    inner = [bytes(legacy.pickled(part) // 8) for part in (text, bytes(coded), size)]
    return {
        "perco": 8 * (len(text) + coded),
        "pickle": legacy.pickled(dict(enumerate(inner))),
        "caption-zlib": 8 * len(text),
        "indices": indices,
    }

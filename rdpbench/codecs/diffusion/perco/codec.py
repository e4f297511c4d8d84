"""PerCo, perceptual compression: vector-quantised latents and a caption, from which Stable Diffusion paints the image.

Careil et al., "Towards image compression with perfect realism at ultra-low bitrates", ICLR 2024,
https://arxiv.org/abs/2310.10325. The authors published neither code nor weights; this is the open implementation,
Nikolai10/PerCo (Apache-2.0; nothing of it is copied here), which is Stable Diffusion 2.1, trained further as a whole.

The VAE's latents go through a hyper-encoder, and each of its vectors becomes the nearest of V entries of a codebook.
The decoder's U-Net sees these entries, enlarged, as further channels of its input, and the caption as its prompt. The
caption is that of the ``captions=`` axis; the published numbers are with BLIP-2's (``captions=blip2``).

In the bitstream: height, width, the noise seed, the caption, the indices; see
`rdpbench.codecs.diffusion.perco.bitstream`. At 512 x 512 and nominally 0.0019 bpp, 64 indices of 8 bits are 64 bytes,
and a deflated caption some 45.

Seven rates, of which three have public weights (`rdpbench.codecs.diffusion.perco.pipeline`). The defaults are the
official ones: 20 steps of DDIM below 0.05 bpp and 5 above, guidance 3 by text alone, the caption deflated.

Settings for the paper's ablations: the open weights were trained for ``guidance=none`` and for
``conditioning=spatial`` (the empty caption, which a tenth of the training had), but neither for
``guidance=text+spatial`` nor for ``conditioning=text`` (zeros instead of entries) nor for ``quantised=false``. Rows of
these three say ``untrained`` in their column ``coder``.

Where this departs from the official code, and why:

- Height, width, seed and lengths are counted: 6 to 9 bytes. The official evaluation counts the caption and the indices
  only, and decodes nothing; its file is a pickle, 81 bytes larger. Both are in ``legacy``, with the rate in the name.
- Indices are one number in base V. The official coder is an arithmetic one with a uniform model: a byte longer.
- The noise is seeded by the container, the VAE's draw by the run. Officially a dataset is coded unseeded.
- Any size is taken: continued to multiples of 64, and cut. The official code squashes its input to 512 x 512, which
  here is the protocol of a dataset: ``data=kodak data.options.protocol=perco-512``.
- The unused ``conv_in`` of the U-Net's file is dropped, and ``conv_in_extended`` takes its place in diffusers' class.

What PerCo with captions and PerCo with image embeddings share: all but how the image is described as a whole.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Bitstream, Rate, Side, check_choice, decoding, encoding, own_options
from rdpbench.codecs.diffusion import bases, fields, models, prompts, sampling
from rdpbench.codecs.diffusion.codec import adopt, check_count
from rdpbench.codecs.diffusion.perco import bitstream, pipeline
from rdpbench.codecs.diffusion.perco import pipeline as perco_models
from rdpbench.codecs.diffusion.perco import pipeline as perco_weights
from rdpbench.codecs.diffusion.perco.pipeline import Pipeline
from rdpbench.codecs.diffusion.prompts import Condition
from rdpbench.codecs.learned.codec import Kind
from rdpbench.codecs.learned.systems import check_pixels, size_of, to_planes
from rdpbench.errors import BitstreamError, CodecError, ConfigError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.precision import reproducible

if TYPE_CHECKING:
    from torch import Tensor

GUIDANCE = ("none", "text", "text+spatial")
CONDITIONING = ("both", "spatial", "text")
_OTHER_DRAW = 0x9E3779B9
"""What the encoder's draw is seeded apart from the decoder's by."""


@dataclass(frozen=True)
class PerCoCodec(ABC):
    """Base of both; its fields come before those of the codec."""

    name: ClassVar[str]
    rate: ClassVar[Rate] = Rate(
        "nominal",
        min(perco_weights.POINTS),
        max(perco_weights.POINTS),
        0,
        points=tuple(perco_weights.POINTS),
        listed=True,
    )
    described: ClassVar[str]
    """Name of the section that describes the image as a whole."""
    heavy: ClassVar[bool] = True
    seeded: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = (
        "torch",
        "rdpbench.codecs.diffusion.library",
        "rdpbench.codecs.learned.library",
    )
    needs: ClassVar[tuple[Need, ...]] = (Package("diffusers"), Package("transformers"), Package("compressai"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels", "checkpoint"})
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"pipeline": frozenset(), "checkpoint": frozenset()}
    version: ClassVar[str] = "1"

    nominal: float = 0.0313
    """Which of the seven networks: the rate that it is named after, one of `perco_weights.POINTS`."""
    weights: str = "official"
    """``official``; ``random``: the same classes at a tiny width, seeded; ``random-full``: the same at full width."""
    pipeline: str = ""
    """A folder of yours, as the official code saves a pipeline, instead of the published one of the rate. ``{nominal}``
    in it stands for the rate, where there is a folder for each."""
    precision: str = "float32"
    """Of the U-Net and the text tower."""
    sampler: str = "ddim"
    steps: int = 0
    """0 is what was published for the rate: 20 below 0.05 bpp, 5 above."""
    guidance: str = "text"
    """What is left out on the side that guidance keeps away from: ``text``, ``text+spatial``, or ``none`` is done."""
    guidance_scale: float = 3.0
    conditioning: str = "both"
    """What is sent and seen: ``both``, ``spatial`` or ``text``."""
    quantised: bool = True
    """False sends the vectors in single precision, as the paper's ablation does."""
    posterior: str = "sample"
    """Of the VAE's encoder: ``sample``, seeded by the run's seed, or ``mean``."""
    device: str = "cpu"
    max_pixels: int = 1 << 22
    """Larger images, and bitstreams that state larger ones, are refused; counted with sides padded to 64."""
    checkpoint: str = ""
    """Another word for `pipeline`, the same as that of all codecs with weights."""

    def __post_init__(self) -> None:
        adopt(self, "pipeline")
        perco_weights.point(self.nominal)
        check_choice(self.name, "weights", self.weights, models.WEIGHTS)
        check_choice(self.name, "precision", self.precision, models.PRECISIONS)
        check_choice(self.name, "sampler", self.sampler, [*sampling.SAMPLERS, sampling.SAVED])
        check_choice(self.name, "guidance", self.guidance, GUIDANCE)
        check_choice(self.name, "conditioning", self.conditioning, CONDITIONING)
        check_choice(self.name, "quantised", self.quantised, [True, False])
        check_choice(self.name, "posterior", self.posterior, ["sample", "mean"])
        check_count(self.name, "steps", self.steps, 0, 1000)
        check_count(self.name, "max_pixels", self.max_pixels, 1)
        if not 0 <= self.guidance_scale < 1000:
            raise ConfigError(f"{self.name}: guidance_scale={self.guidance_scale!r} must be a number from 0 to 1000")
        if self.pipeline:
            bases.check_known("pipeline", self.pipeline, ())

    @classmethod
    def own_rates(cls, options: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The rate that a folder of the user's states; all where there is a folder for each, or it states none."""
        folder = str(options.get("checkpoint") or options.get("pipeline") or "")
        rate = None if "{nominal}" in folder or not folder else perco_models.rate_of(folder)
        return None if rate is None else (rate,)

    @property
    def folder(self) -> str:
        """The user's pipeline of this rate; empty for the published one."""
        return self.pipeline.replace("{nominal}", f"{self.nominal:g}")

    @abstractmethod
    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:
        """The section of that name; what the decoder is shown of the image as a whole."""

    @abstractmethod
    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        """What the U-Net is shown of it; of None what it is shown of nothing."""

    @abstractmethod
    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:
        """Bits as the system's own publication counts them, of what is sent; ``count`` is that of the indices."""

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

    def weight_needs(self) -> tuple[Need, ...]:
        if self.weights != "official":
            return ()
        own = (sampling.Schedule(self.folder, self.sampler, self._steps()),) if self.pipeline else ()
        return (*perco_models.needs(self.nominal, self.folder), *own)

    def weights_kind(self) -> Kind:
        if self.weights != "official":
            return "random"
        return "own" if own_options(type(self), vars(self)) else "unpinned"

    def own_identity(self) -> str:
        """Of the user's own weights alone; empty without."""
        own = own_options(type(self), vars(self))
        if "pipeline" in own:
            own |= dict.fromkeys(perco_weights.TENSORS, "")
        return " ".join(made for part, made in self.hashes().items() if part in own)

    def coder(self) -> dict[str, str]:
        """Versions of the libraries, hashes of the weights by part, and what the networks were not trained for."""
        libraries = {name: package_version(name) for name in ("torch", "diffusers", "transformers", "compressai")}
        marked = {"untrained": ", ".join(self.untrained())} if self.untrained() else {}
        return {**libraries, **(self.hashes() if self.weights == "official" else {"weights": self.weights}), **marked}

    def hashes(self) -> dict[str, str]:
        """Of the official weights."""
        return perco_models.identities(self.nominal, self.folder)

    def ready(self) -> None:
        self.networks()

    def networks(self) -> Pipeline:
        """The networks of this rate, loaded; must not be called where torch infers only."""
        where = (self.weights, self.precision, self.device, self.folder, self.embedding())
        return perco_models.load(self.nominal, *where)

    def settings(self) -> dict[str, object]:
        """What follows from the rate, the base model, and what the sampler is set up with."""
        point, sizes = perco_weights.POINTS[self.nominal], perco_models.layout(self.weights, self.folder)
        return {
            "base": self.folder or perco_models.BASE,
            "steps": self._steps(),
            "index_stride": point.stride,
            "index_entries": point.entries,
            "scheduler": sampling.settings_of(sizes, self.sampler),
        }

    def encode(self, image: Image, side: Side) -> Bitstream:
        height, width = size_of(image)
        padded = prompts.FRAME.padded(height, width)
        check_pixels(*padded, self.max_pixels, UnsupportedImage)
        sections = {"seed": fields.pack_seed(side.seed)}
        ready = self.networks()
        with reproducible(), encoding(self.name):
            if self.conditioning != "spatial":
                sections[self.described] = self.describe(ready, image, side)
            if self.conditioning != "text":
                sections |= self._local(ready, image, side.seed)
        strings = {name: section for name, section in sections.items() if name != "seed"}
        rows, columns = self._grid(*padded)
        bits = legacy.rates(strings, (height, width), padded)
        if "indices" in strings:
            bits["nominal"] = legacy.nominal(self.nominal, (height, width))
        bits |= self.printed(strings, side, rows * columns, (height, width))
        return pack(height, width, sections, legacy=json.dumps(bits), seed=str(side.seed))

    def decode(self, data: bytes, *, seed: int | None = None) -> Image:
        """The image, or with a seed of the caller's another sample of the same bitstream."""
        ready = self.networks()
        with reproducible(), decoding(self.name):
            names = self._names()
            height, width, found = unpack(data if seed is None else fields.with_seed(data, seed), len(names))
            padded = prompts.FRAME.padded(height, width)
            check_pixels(*padded, self.max_pixels, BitstreamError)
            sections = dict(zip(names, found, strict=True))
            latents = self._denoised(ready, sections, *padded)
            [image] = prompts.decode(ready.models, latents, height, width)
            return image

    def hyper_latents(self, ready: Pipeline, section: bytes | None, height: int, width: int) -> Tensor:
        """What the U-Net is shown beside the latents, of an image of a padded size; of None zeros."""
        import torch

        from rdpbench.codecs.diffusion.perco.network import shown

        quantiser = ready.hyper.quantizer
        size = height // ready.models.factor, width // ready.models.factor
        grid = (1, *self._grid(height, width))
        if section is None:
            channels = ready.models.unet.config.in_channels - ready.channels
            planes = torch.zeros(1, channels, *size)
        elif self.quantised:
            entries = perco_weights.POINTS[self.nominal].entries
            indices = bitstream.unpack_indices(section, grid[1] * grid[2], entries).reshape(grid)
            planes = shown(
                quantiser.planes(quantiser.entries(torch.from_numpy(indices).to(ready.models.device))), *size
            )
        else:
            shape = (*grid, quantiser.project_out.in_features)
            vectors = torch.from_numpy(bitstream.unpack_vectors(section, shape))
            planes = shown(quantiser.planes(vectors.to(ready.models.device)), *size)
        return planes.to(ready.models.device, ready.models.dtype)

    def _steps(self) -> int:
        return self.steps or perco_weights.POINTS[self.nominal].steps

    def _names(self) -> list[str]:
        both = [self.described, "indices" if self.quantised else "vectors"]
        return ["seed", *{"both": both, "text": both[:1], "spatial": both[1:]}[self.conditioning]]

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        return perco_weights.POINTS[self.nominal].grid(height, width)

    def _local(self, ready: Pipeline, image: Image, seed: int) -> dict[str, bytes]:
        import torch

        planes = prompts.FRAME.pad(to_planes([image], ready.models.device, torch.float32))
        draw = seed ^ _OTHER_DRAW if self.posterior == "sample" else None
        directions = ready.hyper.directions(prompts.encode(ready.models, planes, draw))
        if not self.quantised:
            return {"vectors": bitstream.pack_vectors(directions.cpu().numpy())}
        indices = ready.hyper.quantizer.indices(directions).cpu().numpy().astype(np.int64)
        return {"indices": bitstream.pack_indices(indices, perco_weights.POINTS[self.nominal].entries)}

    def _denoised(self, ready: Pipeline, sections: dict[str, bytes], height: int, width: int) -> Tensor:
        """Clean latents; without a caption there is nothing that guidance by text could leave out."""
        local = sections.get("indices", sections.get("vectors"))
        extra = self.hyper_latents(ready, local, height, width)
        blind = self.guidance == "text+spatial"
        scale = self.guidance_scale if blind or (self.guidance == "text" and self.described in sections) else 1.0
        draws = sampling.generators([fields.unpack_seed(sections["seed"])])
        networks = ready.models
        if blind and scale > 1:
            from rdpbench.codecs.diffusion.perco.network import Blindfolded

            networks = replace(networks, unet=Blindfolded(networks.unet, ready.channels))
        return sampling.denoise(
            networks,
            sampling.scheduler(networks, self.sampler, self._steps()),
            sampling.noise(networks, draws, height, width),
            draws,
            self.condition(ready, sections.get(self.described)),
            self.condition(ready, None),
            scale,
            extra=extra,
        )


with_seed = fields.with_seed
"""Another sample of the same bitstream: nothing is encoded again."""


@dataclass(frozen=True)
class PerCo(PerCoCodec):
    """Indices and a caption."""

    name: ClassVar[str] = "perco"
    described: ClassVar[str] = "caption"
    uses_caption: ClassVar[bool] = True

    caption_code: str = "zlib"
    """How the caption is coded: ``zlib``, ``deflate``, ``fixed`` or ``rank``; all paint the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "caption_code", self.caption_code, bitstream.CAPTION_CODES)

    def describe(self, ready: Pipeline, image: Image, side: Side) -> bytes:  # noqa: ARG002 - the caption is made before
        return bitstream.pack_caption(self._caption(side), self.caption_code, ready.models.vocabulary)

    def condition(self, ready: Pipeline, section: bytes | None) -> Condition:
        words = ready.models.vocabulary
        ids = [] if section is None else bitstream.unpack_caption(section, self.caption_code, words)
        return prompts.condition(ready.models, ids)

    def printed(self, sections: Mapping[str, bytes], side: Side, count: int, size: tuple[int, int]) -> dict[str, float]:
        if "vectors" in sections:
            return {}
        caption = side.caption if self.described in sections else None
        entries = pipeline.POINTS[self.nominal].entries
        return bitstream.printed(caption, count if "indices" in sections else 0, entries, size)

    def _caption(self, side: Side) -> str:
        if side.caption is None:
            raise CodecError(
                f"{self.name} encodes an image with its caption, and got none; type captions=human, captions=blip2, "
                "or leave it out: codec.options.conditioning=spatial"
            )
        return side.caption

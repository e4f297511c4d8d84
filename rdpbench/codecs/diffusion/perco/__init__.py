"""PerCo, perceptual compression: vector-quantised latents and a caption, from which Stable Diffusion paints the image.

Careil et al., "Towards image compression with perfect realism at ultra-low bitrates", ICLR 2024,
https://arxiv.org/abs/2310.10325. The authors published neither code nor weights; this is the open implementation,
Nikolai10/PerCo (Apache-2.0; nothing of it is copied here), which is Stable Diffusion 2.1, trained further as a whole.

The VAE's latents go through a hyper-encoder, and each of its vectors becomes the nearest of V entries of a codebook.
The decoder's U-Net sees these entries, enlarged, as further channels of its input, and the caption as its prompt. The
caption is that of the ``captions=`` axis; the published numbers are with BLIP-2's (``captions=blip2``).

Public are three of the seven rates, in one folder on Google Drive. Each is a whole pipeline: the U-Net and the
hyper-encoder that were trained, and Stable Diffusion 2.1's VAE and text tower beside them, so that the removal of
Stable Diffusion 2.x from the hub does not matter here. Nobody published hashes; the first use pins what it finds. The
defaults are the official ones.

In the bitstream: height, width, the noise seed, the caption, the indices (`rdpbench.codecs.diffusion.fields`).

Departures from the official code:

- Height, width, seed and lengths are counted: 6 to 9 bytes. The official evaluation counts the caption and the indices
  only, and decodes nothing; its file is a pickle, 81 bytes larger. Both are in ``legacy``, with the rate in the name.
- Indices are one number in base V. The official coder is an arithmetic one with a uniform model: a byte longer.
- The noise is seeded by the container, the VAE's draw by the run. Officially a dataset is coded unseeded.
- Any size is taken: continued to multiples of 64, and cut. The official code squashes its input to 512 x 512, which
  here is the protocol of a dataset: ``data=kodak data.options.protocol=perco-512``.

Read `network` next (the hyper-encoder); `image` is PerCo-Image, from the paper alone, which shares all here but how
the image is described as a whole.
"""

from __future__ import annotations

import json
import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rdpbench.assets.weights import Card, NotPublic, OwnFolder, Weights
from rdpbench.codecs import legacy
from rdpbench.codecs.container import pack
from rdpbench.codecs.contract import Bitstream, Rate, Side, encoding, number, option
from rdpbench.codecs.diffusion import bases, fields, models, sampling
from rdpbench.codecs.diffusion.bases import BaseSizes
from rdpbench.codecs.diffusion.codec import DiffusionCodec, SamplingCodec
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.sampling import Condition
from rdpbench.codecs.learned.systems import size_of
from rdpbench.errors import CodecError, RdpbenchError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.lazy import Tensor, torch
from rdpbench.needs import Need, Package
from rdpbench.networks.clip import TOKENS
from rdpbench.networks.held import once
from rdpbench.networks.precision import reproducible

if TYPE_CHECKING:
    from rdpbench.codecs.diffusion.perco.network import HyperEncoder, HyperWidths


@dataclass(frozen=True)
class PerCoRate:
    """A rate of the published system."""

    stride: int
    """Latents of the VAE along a side for one index."""
    entries: int
    """V, the size of the codebook."""
    steps: int
    """Of denoising."""
    public: bool = False

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of indices for a padded size.

        >>> POINTS[0.0313].grid(512, 768)
        (32, 48)
        """
        return height // (8 * self.stride), width // (8 * self.stride)


POINTS = {
    0.0019: PerCoRate(8, 256, 20, public=True),
    0.0024: PerCoRate(8, 1024, 20),
    0.0098: PerCoRate(4, 1024, 20),
    0.0313: PerCoRate(2, 256, 20, public=True),
    0.0507: PerCoRate(2, 8196, 5),  # 8196 is no slip of ours
    0.0937: PerCoRate(1, 64, 5),
    0.1250: PerCoRate(1, 256, 5, public=True),
}
"""By name: bits per pixel of the indices at 512 x 512, without the caption."""
PUBLIC = [rate for rate, point in POINTS.items() if point.public]
"""The rates that there are weights of."""
DRIVE = "https://drive.google.com/drive/folders/11xHN61L7GqrJqEQbdtagbKBwMj1KZMf5"
_SAFE = "diffusion_pytorch_model.safetensors"
PARTS = {
    "unet": ("unet", _SAFE, 866_844_164, "the U-Net with channels for hyper-latents"),
    "vae": ("vae", _SAFE, 83_653_863, "the VAE of Stable Diffusion 2.1"),
    "text": ("text_encoder", "model.safetensors", 340_387_840, "the text tower of Stable Diffusion 2.1"),
    "hyper": ("hyper_enc", _SAFE, 5_905_505, "the hyper-encoder and its codebook"),
}
"""Of a pipeline: folder, file, about how many numbers, of 4 bytes each, and what it is."""
BASE = "sd-2.1"
"""The model that the published pipelines were made of."""
PUBLISHED = bases.BASES[BASE].layout
"""Its sizes."""
DROPPED = ("conv_in.*",)
"""Of the U-Net's file: the layer for latents alone, which is kept there and not used."""


def card(rate: float, part: str) -> Card:
    """A file of a published pipeline.

    >>> card(0.125, "unet").place
    'perco/0.1250/unet/diffusion_pytorch_model.safetensors'
    """
    folder, file, numbers, what = PARTS[part]
    return Card(
        id=f"perco/{rate:.4f}/{folder}",
        source=DRIVE,
        revision="as linked by Nikolai10/PerCo at da3be39; open it with a browser",
        file=f"{folder}/{file}",
        bytes=4 * numbers,
        licence="Apache-2.0, as the repository; derived from Stable Diffusion 2.1 (CreativeML OpenRAIL++-M)",
        note=f"PerCo (SD) at nominally {rate:.4f} bpp: {what}; the folder there ends in {f'{rate:.4f}'[1:]}bpp, "
        "and the size is that of the numbers inside",
        folder=f"perco/{rate:.4f}",
    )


def sources(rate: float, pipeline: str = "") -> dict[str, OwnFolder | Weights]:
    """Where each part of a rate's pipeline comes from: a folder of the user's, or the published files."""
    if pipeline:
        return {part: OwnFolder(str(Path(pipeline) / folder)) for part, (folder, *_) in PARTS.items()}
    return {part: Weights(card(rate, part)) for part in PARTS}


def pipeline_needs(rate: float, pipeline: str = "") -> tuple[Need, ...]:
    """The files of a rate, or the need for what is not public; and the table of tokens."""
    if pipeline or POINTS[rate].public:
        return (*sources(rate, pipeline).values(), Weights(TOKENS))
    typed = ",".join(f"{nominal:g}" for nominal in PUBLIC)
    public = f"there are those of {', '.join(f'{nominal:.4f}' for nominal in PUBLIC)}: rate={typed}"
    own = "yours: codec.options.pipeline=/a/folder/as/the/official/code/saves/it"
    return (NotPublic(f"PerCo at nominally {rate:.4f} bpp", f"{public}\n  {own}"), Weights(TOKENS))


@dataclass(frozen=True, eq=False)
class Pipeline(Models):
    """All networks of a rate."""

    hyper: HyperEncoder

    @property
    def channels(self) -> int:
        """Of the latents, which come before the hyper-latents in the U-Net's input."""
        return int(self.vae.config.latent_channels)


@once(lambda rate, pipeline, **_: pipeline_needs(rate, pipeline))
def load_pipeline(
    rate: float,
    weights: str = "official",
    precision: str = "float32",
    device: str = "cpu",
    pipeline: str = "",
    embedding: int = 0,
) -> Pipeline:
    """The networks of a rate; the same object as long as its files are the same. Arguments are those of the codec.

    Raises:
        MissingNeed: a file is not on this machine, or not public.
        CodecError: a file does not hold this network.
    """
    files = sources(rate, pipeline) if weights == "official" else {}
    sizes, widths = layout(weights, pipeline), widths_of(rate, weights, pipeline)
    # VAE and text tower were not trained further: the same bytes in each rate's folder are loaded once.
    rest = (weights, pipeline or BASE, precision, device, unet_name, DROPPED)
    parts = models.assembled(sizes, lambda: unet_of(sizes, widths, embedding), files, *rest)
    if files:
        hyper = models.make_part("hyper", lambda: hyper_of(rate, widths), files["hyper"], "float32", device)
    else:
        hyper = seeded(hyper_of(rate, widths), sum(map(ord, "hyper"))).to(device)
    return Pipeline(**vars(parts), hyper=hyper)


def layout(weights: str, pipeline: str = "") -> BaseSizes:
    """The sizes of Stable Diffusion inside: published, of a folder, or narrow."""
    sizes = bases.layout_of(pipeline) if pipeline else PUBLISHED
    return models.narrow(sizes) if weights == "random" else sizes


def widths_of(rate: float, weights: str, pipeline: str = "") -> HyperWidths:
    """The channels of the hyper-encoder: published, of a folder, or narrow.

    Raises:
        CodecError: the folder's is for another rate.
    """
    from rdpbench.codecs.diffusion.perco import network

    if weights == "random":
        return network.TINY
    if not pipeline:
        return network.PUBLISHED
    folder = str(Path(pipeline) / PARTS["hyper"][0])
    config, own = bases.read_config(folder), POINTS[rate]
    side, entries = config.get("cfg_ss", 64 // own.stride), config.get("cfg_cs", own.entries)
    if (side, entries) != (64 // own.stride, own.entries):
        raise CodecError(
            f"{folder} is for {side} x {side} indices of {entries} entries; at nominally {rate:.4f} bpp "
            f"there are {64 // own.stride} x {64 // own.stride} of {own.entries}"
        )
    names = zip(("N", "M", "codebook_dim", "in_channels"), network.PUBLISHED, strict=True)
    return network.HyperWidths(*(int(config.get(name, width)) for name, width in names))


def rate_of(pipeline: str) -> float | None:
    """The rate of PerCo's that a folder's hyper-encoder is for; None if it does not say."""
    try:
        config = bases.read_config(str(Path(pipeline) / PARTS["hyper"][0]))
    except RdpbenchError:
        return None  # the plan tells
    stated = config.get("cfg_ss"), config.get("cfg_cs")
    return next((rate for rate, own in POINTS.items() if stated == (64 // own.stride, own.entries)), None)


def unet_of(sizes: BaseSizes, widths: HyperWidths, embedding: int = 0) -> Any:
    """diffusers' U-Net with input channels for hyper-latents, conditioned on text or on an image embedding."""
    config = {**sizes.unet, "in_channels": widths.latents + widths.out}
    if embedding:
        config |= {"encoder_hid_dim": embedding, "encoder_hid_dim_type": "text_proj"}
    return models.unet_of(config)


def unet_name(name: str) -> str:
    """The name in diffusers' U-Net of a tensor in the file, whose layer for latents and hyper-latents has another.

    >>> unet_name("conv_in_extended.bias")
    'conv_in.bias'
    """
    return name.replace("conv_in_extended.", "conv_in.", 1)


def hyper_of(rate: float, widths: HyperWidths) -> HyperEncoder:
    """The hyper-encoder of a rate."""
    from rdpbench.codecs.diffusion.perco.network import HyperEncoder

    return HyperEncoder(POINTS[rate].stride, POINTS[rate].entries, widths)


def seeded(network: Any, seed: int) -> Any:
    """A network with its seeded random weights, a codebook's entries of length one among them."""
    network = models.draw_weights(network, seed)
    for name, buffer in network.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            entries = torch.randn(buffer.shape, generator=torch.Generator("cpu").manual_seed(seed))
            buffer.copy_(torch.nn.functional.normalize(entries, dim=-1))
    return network


# The codecs

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
    parts_of_own: ClassVar = {"pipeline": tuple(PARTS)}
    libraries: ClassVar = (*DiffusionCodec.libraries, "compressai")

    nominal: float = 0.0313
    """Which of the seven networks: the rate that it is named after, one of `POINTS`."""
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
        rate = None if "{nominal}" in folder or not folder else rate_of(folder)
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
        return (*pipeline_needs(self.nominal, self.folder), *own)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries, hashes of the weights by part, and what the networks were not trained for."""
        return {**super().versions(), **({"untrained": ", ".join(self.untrained())} if self.untrained() else {})}

    def hashes(self) -> dict[str, str]:
        return {part: source.named_identity for part, source in sources(self.nominal, self.folder).items()}

    def models(self) -> Pipeline:
        where = (self.weights, self.precision, self.device, self.folder)
        return load_pipeline(self.nominal, *where, embedding=self.embedding())

    def settings(self) -> dict[str, object]:
        """What follows from the rate, the base model, and what the sampler is set up with."""
        return {
            "base": self.folder or BASE,
            "steps": self._steps(),
            "index_stride": self.point.stride,
            "index_entries": self.point.entries,
            "scheduler": sampling.settings_of(layout(self.weights, self.folder), self.sampler),
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

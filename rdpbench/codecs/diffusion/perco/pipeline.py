"""PerCo's rates, their published files, and the networks of a rate on a device.

Public are three of the seven rates, in one folder on Google Drive. Each is a whole pipeline: the U-Net and the
hyper-encoder that were trained, and Stable Diffusion 2.1's VAE and text tower beside them, so that the removal of
Stable Diffusion 2.x from the hub does not matter here. Nobody published hashes; the first use pins what it finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.assets.weights import Card, NotPublic, OwnFolder, Weights
from rdpbench.codecs.diffusion import bases, models
from rdpbench.codecs.diffusion.bases import BaseSizes
from rdpbench.codecs.diffusion.models import Models
from rdpbench.errors import CodecError, RdpbenchError
from rdpbench.lazy import torch
from rdpbench.needs import Need
from rdpbench.networks.clip import TOKENS
from rdpbench.networks.held import once

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

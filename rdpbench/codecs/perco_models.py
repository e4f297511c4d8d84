"""PerCo's pipeline on a device. What is the same in several rates is loaded once, whatever folders it lies in.

The VAE and the text tower are Stable Diffusion's and were not trained further, so each rate's folder holds the same
bytes. They are kept by the hash of these bytes. The U-Net is another one for each rate; one is kept at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench import weights as files
from rdpbench.codecs import perco_weights
from rdpbench.codecs.diffusion import bases, folders, models, tiny
from rdpbench.codecs.diffusion.bases import Layout
from rdpbench.codecs.diffusion.folders import Place
from rdpbench.codecs.diffusion.loading import fill, on_meta, text_name, trainable, vae_name
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.diffusion.vocabulary import byte_vocabulary, clip_vocabulary
from rdpbench.errors import CodecError, RdpbenchError
from rdpbench.metrics.clip_weights import TOKENS
from rdpbench.needs import Need
from rdpbench.weights import Card, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from rdpbench.codecs.perco_network import HyperEncoder, Widths

BASE = "sd-2.1"
"""The model that the published pipelines were made of."""
PUBLISHED = bases.BASES[BASE].layout
"""Its sizes."""
DROPPED = ("conv_in.*",)
"""Of the U-Net's file: the layer for latents alone, which is kept there and not used."""
_LOADED: dict[tuple[object, ...], Pipeline] = {}


@dataclass(frozen=True, eq=False)
class Pipeline:
    """All networks of a rate."""

    models: Models
    hyper: HyperEncoder

    @property
    def channels(self) -> int:
        """Of the latents, which come before the hyper-latents in the U-Net's input."""
        return int(self.models.vae.config.latent_channels)


def needs(rate: float, pipeline: str = "") -> tuple[Need, ...]:
    """The files of a rate, and the table of tokens."""
    return (*perco_weights.needs(rate, pipeline), Weights(TOKENS))


def identities(rate: float, pipeline: str = "") -> dict[str, str]:
    """What enters keys: the hash of each part's file."""
    return {part: models.source_identity(one) for part, one in perco_weights.sources(rate, pipeline).items()}


def load(
    rate: float,
    weights: str = "official",
    precision: str = "float32",
    device: str = "cpu",
    pipeline: str = "",
    embedding: int = 0,
) -> Pipeline:
    """The networks of a rate; the same object as long as its files are the same.

    Args:
        rate: one of `perco_weights.POINTS`.
        weights: ``official``, ``random`` or ``random-full``.
        precision: of the U-Net and the text tower.
        device: where they compute.
        pipeline: a folder of the user's, instead of the published one.
        embedding: width of an image embedding that the U-Net is conditioned on; 0 is a caption.

    Raises:
        MissingNeed: a file is not on this machine, or not public.
        CodecError: a file does not hold this network.
    """
    hashes: dict[str, str] = {}
    if weights == "official":
        models.require(needs(rate, pipeline))
        hashes = identities(rate, pipeline)
    key = (rate, weights, precision, device, pipeline, embedding, *hashes.values())
    if key not in _LOADED:
        _LOADED.clear()  # first: two U-Nets at once are 7 GB
        _LOADED[key] = _load(rate, weights, precision, device, pipeline, embedding, hashes)
    return _LOADED[key]


def forget() -> None:
    """Let go of all networks."""
    _LOADED.clear()
    models._KEPT.clear()


@trainable
def _load(
    rate: float,
    weights: str,
    precision: str,
    device: str,
    pipeline: str,
    embedding: int,
    hashes: Mapping[str, str],
) -> Pipeline:
    from rdpbench.codecs.diffusion.library import diffusers

    networks: Any = diffusers
    sizes, widths = layout(weights, pipeline), widths_of(rate, weights, pipeline)
    found = perco_weights.sources(rate, pipeline)

    def part(name: str, build: Callable[[], Any], kind: str, rename: Callable[[str], str] = str) -> Any:
        dtype = models.type_of(kind)
        if weights != "official":
            seed = sum(map(ord, name))  # that of all generative codecs
            return seeded(build(), seed).to(device, dtype)
        tensors, what = read(found[name])
        drop = DROPPED if name == "unet" else ()
        return fill(on_meta(build), tensors, what, dtype, rename=rename, drop=drop).to(device)

    def shared(name: str, build: Callable[[], Any], kind: str, rename: Callable[[str], str]) -> Any:
        key = (name, hashes.get(name, f"{weights} {pipeline or BASE}"), kind, device)
        return models.kept(key, lambda: part(name, build, kind, rename))

    vae = shared("vae", lambda: networks.AutoencoderKL.from_config(dict(sizes.vae)), "float32", vae_name)
    text = shared("text", lambda: models.text_tower(sizes, 0), precision, text_name)
    unet = part("unet", lambda: unet_of(sizes, widths, embedding), precision, unet_name)
    hyper = part("hyper", lambda: hyper_of(rate, widths), "float32")
    words = clip_vocabulary() if weights == "official" else byte_vocabulary(sizes.tokens)
    if words.size != sizes.tokens:
        raise CodecError(f"{pipeline} has {sizes.tokens} tokens, where CLIP's vocabulary has {words.size}")
    return Pipeline(Models(sizes, unet, vae, (text,), words, device), hyper)


def layout(weights: str, pipeline: str = "") -> Layout:
    """The sizes of Stable Diffusion inside: published, of a folder, or narrow."""
    found = folders.layout_of(pipeline) if pipeline else PUBLISHED
    return tiny.narrow(found) if weights == "random" else found


def widths_of(rate: float, weights: str, pipeline: str = "") -> Widths:
    """The channels of the hyper-encoder: published, of a folder, or narrow.

    Raises:
        CodecError: the folder's is for another rate.
    """
    from rdpbench.codecs.perco_network import PUBLISHED as FULL
    from rdpbench.codecs.perco_network import TINY, Widths

    if weights == "random":
        return TINY
    if not pipeline:
        return FULL
    folder = str(Path(pipeline) / perco_weights.TENSORS["hyper"][0])
    config, own = folders.read_config(folder), perco_weights.POINTS[rate]
    stated = config.get("cfg_ss", 64 // own.stride), config.get("cfg_cs", own.entries)
    if stated != (64 // own.stride, own.entries):
        raise CodecError(
            f"{folder} is for {stated[0]} x {stated[0]} indices of {stated[1]} entries; at nominally {rate:.4f} bpp "
            f"there are {64 // own.stride} x {64 // own.stride} of {own.entries}"
        )
    names = {"inside": "N", "out": "M", "entry": "codebook_dim", "latents": "in_channels"}
    return Widths(**{name: int(config.get(theirs, getattr(FULL, name))) for name, theirs in names.items()})


def rate_of(pipeline: str) -> float | None:
    """The rate of PerCo's that a folder's hyper-encoder is for; None if it does not say."""
    try:
        config = folders.read_config(str(Path(pipeline) / perco_weights.TENSORS["hyper"][0]))
    except RdpbenchError:
        return None  # the plan tells
    stated = config.get("cfg_ss"), config.get("cfg_cs")
    points = perco_weights.POINTS.items()
    return next((rate for rate, point in points if stated == (64 // point.stride, point.entries)), None)


def unet_of(sizes: Layout, widths: Widths, embedding: int = 0) -> Any:
    """diffusers' U-Net with input channels for hyper-latents, conditioned on text or on an image embedding."""
    from rdpbench.codecs.diffusion.library import diffusers

    networks: Any = diffusers
    own = {**sizes.unet, "in_channels": widths.latents + widths.out}
    if embedding:
        own |= {"encoder_hid_dim": embedding, "encoder_hid_dim_type": "text_proj"}
    return networks.UNet2DConditionModel.from_config(own)


def unet_name(name: str) -> str:
    """The name in diffusers' U-Net of a tensor in the file.

    >>> unet_name("conv_in_extended.bias")
    'conv_in.bias'
    """
    return name.replace("conv_in_extended.", "conv_in.", 1)


def hyper_of(rate: float, widths: Widths) -> HyperEncoder:
    """The hyper-encoder of a rate."""
    from rdpbench.codecs.perco_network import HyperEncoder

    own = perco_weights.POINTS[rate]
    return HyperEncoder(own.stride, own.entries, widths)


def seeded(network: Any, seed: int) -> Any:
    """A network with its seeded random weights, a codebook's entries of length one among them."""
    import torch

    drawn = tiny.draw(network, seed)
    for name, buffer in drawn.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            entries = torch.randn(buffer.shape, generator=torch.Generator("cpu").manual_seed(seed))
            buffer.copy_(torch.nn.functional.normalize(entries, dim=-1))
    return drawn


def read(source: Place | Weights) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a part, and the name of their file."""
    if isinstance(source, Place):
        return models.read_place(source)
    assert isinstance(source.card, Card)
    return files.read_file(files.resolve(source.card)), source.card.id

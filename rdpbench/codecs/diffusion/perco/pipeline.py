"""PerCo's pipeline on a device. What is the same in several rates is loaded once, whatever folders it lies in.

The VAE and the text tower are Stable Diffusion's and were not trained further, so each rate's folder holds the same
bytes. They are kept by the hash of these bytes. The U-Net is another one for each rate; one is kept at a time.

PerCo's rates, and where their weights are: a folder for each, as the open implementation's pipeline is saved.

Public are three of the seven, in one folder on Google Drive. Each is a whole pipeline: the U-Net and the hyper-encoder
that were trained, and Stable Diffusion 2.1's VAE and text tower beside them, so that the removal of Stable Diffusion
2.x from the hub does not matter here. Nobody published hashes; the first use pins what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import Card, OwnFolder, Weights, require
from rdpbench.codecs.diffusion import bases, models
from rdpbench.codecs.diffusion import models as tiny
from rdpbench.codecs.diffusion.bases import BaseSizes, byte_vocabulary, clip_vocabulary
from rdpbench.codecs.diffusion.models import Models, text_name, trainable, vae_name
from rdpbench.errors import CodecError, OutOfRange, RdpbenchError
from rdpbench.needs import Need
from rdpbench.networks.clip import TOKENS

if TYPE_CHECKING:
    from rdpbench.codecs.diffusion.perco.network import HyperEncoder, Widths


@dataclass(frozen=True)
class Point:
    """A rate of the published system."""

    stride: int
    """Latents of the VAE along a side for one index."""
    entries: int
    """V, the size of the codebook."""
    steps: int
    """Of denoising, as published: 20 below 0.05 bpp, 5 above."""
    public: bool = False

    def grid(self, height: int, width: int, factor: int = 8) -> tuple[int, int]:
        """Rows and columns of indices for a padded size.

        >>> POINTS[0.0313].grid(512, 768)
        (32, 48)
        """
        side = factor * self.stride
        return height // side, width // side


POINTS = {
    0.0019: Point(8, 256, 20, public=True),
    0.0024: Point(8, 1024, 20),
    0.0098: Point(4, 1024, 20),
    0.0313: Point(2, 256, 20, public=True),
    0.0507: Point(2, 8196, 5),
    0.0937: Point(1, 64, 5),
    0.1250: Point(1, 256, 5, public=True),
}
"""By name: bits per pixel of the indices at 512 x 512, without the caption. 8196 is no slip of ours."""
DRIVE = "https://drive.google.com/drive/folders/11xHN61L7GqrJqEQbdtagbKBwMj1KZMf5"
TENSORS = {
    "unet": ("unet", "diffusion_pytorch_model.safetensors", 866_844_164),
    "vae": ("vae", "diffusion_pytorch_model.safetensors", 83_653_863),
    "text": ("text_encoder", "model.safetensors", 340_387_840),
    "hyper": ("hyper_enc", "diffusion_pytorch_model.safetensors", 5_905_505),
}
"""Parts of a pipeline: folder, file and about how many numbers, of 4 bytes each."""
_WHAT = {
    "unet": "the U-Net with channels for hyper-latents",
    "vae": "the VAE of Stable Diffusion 2.1",
    "text": "the text tower of Stable Diffusion 2.1",
    "hyper": "the hyper-encoder and its codebook",
}


def point(rate: float) -> Point:
    """The rate of that name.

    Raises:
        OutOfRange: there is none.

    >>> point(0.0098).entries
    1024
    """
    if rate not in POINTS:
        raise OutOfRange(f"nominal={rate!r} is none of PerCo's rates: {listed(POINTS)}")
    return POINTS[rate]


def listed(rates: Mapping[float, Point] | list[float]) -> str:
    """Rates as the official code writes them.

    >>> listed([0.125])
    '0.1250'
    """
    return ", ".join(f"{rate:.4f}" for rate in rates)


def public() -> list[float]:
    """The rates that there are weights of.

    >>> len(public())
    3
    """
    return [rate for rate, one in POINTS.items() if one.public]


def card(rate: float, part: str) -> Card:
    """A file of a published pipeline.

    >>> card(0.125, "unet").place
    'perco/0.1250/unet/diffusion_pytorch_model.safetensors'
    """
    folder, file, numbers = TENSORS[part]
    return Card(
        id=f"perco/{rate:.4f}/{folder}",
        source=DRIVE,
        revision="as linked by Nikolai10/PerCo at da3be39; open it with a browser",
        file=f"{folder}/{file}",
        sha256=None,
        bytes=4 * numbers,
        licence="Apache-2.0, as the repository; derived from Stable Diffusion 2.1 (CreativeML OpenRAIL++-M)",
        note=(
            f"PerCo (SD) at nominally {rate:.4f} bpp: {_WHAT[part]}; the folder there ends in {f'{rate:.4f}'[1:]}bpp, "
            "and the size is that of the numbers inside"
        ),
        folder=f"perco/{rate:.4f}",
    )


@dataclass(frozen=True)
class Unpublished(Need):
    """The need for weights that nobody can get.

    >>> Unpublished(0.0098).missing().splitlines()[0]
    'no weights of PerCo at nominally 0.0098 bpp are public'
    """

    rate: float

    def missing(self) -> str:
        return (
            f"no weights of PerCo at nominally {self.rate:.4f} bpp are public\n"
            f"  there are those of {listed(public())}: rate={','.join(f'{one:g}' for one in public())}\n"
            "  yours: codec.options.pipeline=/a/folder/as/the/official/code/saves/it; untrained: weights=random"
        )


def sources(rate: float, pipeline: str = "") -> dict[str, OwnFolder | Weights]:
    """Where each part of a rate's pipeline comes from; of a rate without public weights, where it would.

    Args:
        rate: one of `POINTS`.
        pipeline: a folder of the user's.
    """
    if pipeline:
        return {part: OwnFolder(str(Path(pipeline) / folder)) for part, (folder, _, _) in TENSORS.items()}
    return {part: Weights(card(rate, part)) for part in TENSORS}


def weights_needed(rate: float, pipeline: str = "") -> tuple[Need, ...]:
    """The files of a rate, or the need for what is not public."""
    if not pipeline and not POINTS[rate].public:
        return (Unpublished(rate),)
    return tuple(sources(rate, pipeline).values())


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
    return (*weights_needed(rate, pipeline), Weights(TOKENS))


def identities(rate: float, pipeline: str = "") -> dict[str, str]:
    """What enters keys: the hash of each part's file."""
    return {part: one.named_identity for part, one in sources(rate, pipeline).items()}


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
        require(needs(rate, pipeline))
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
    found = sources(rate, pipeline)

    def part(name: str, build: Callable[[], Any], kind: str, rename: Callable[[str], str] = str) -> Any:
        dtype = models.type_of(kind)
        if weights != "official":
            seed = sum(map(ord, name))  # that of all generative codecs
            return seeded(build(), seed).to(device, dtype)
        drop = DROPPED if name == "unet" else ()
        source = found[name]
        return load_strictly(build, source.read(), source.id, dtype, rename=rename, drop=drop).to(device)

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


def layout(weights: str, pipeline: str = "") -> BaseSizes:
    """The sizes of Stable Diffusion inside: published, of a folder, or narrow."""
    found = bases.layout_of(pipeline) if pipeline else PUBLISHED
    return tiny.narrow(found) if weights == "random" else found


def widths_of(rate: float, weights: str, pipeline: str = "") -> Widths:
    """The channels of the hyper-encoder: published, of a folder, or narrow.

    Raises:
        CodecError: the folder's is for another rate.
    """
    from rdpbench.codecs.diffusion.perco.network import PUBLISHED as FULL
    from rdpbench.codecs.diffusion.perco.network import TINY, Widths

    if weights == "random":
        return TINY
    if not pipeline:
        return FULL
    folder = str(Path(pipeline) / TENSORS["hyper"][0])
    config, own = bases.read_config(folder), POINTS[rate]
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
        config = bases.read_config(str(Path(pipeline) / TENSORS["hyper"][0]))
    except RdpbenchError:
        return None  # the plan tells
    stated = config.get("cfg_ss"), config.get("cfg_cs")
    points = POINTS.items()
    return next((rate for rate, point in points if stated == (64 // point.stride, point.entries)), None)


def unet_of(sizes: BaseSizes, widths: Widths, embedding: int = 0) -> Any:
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
    from rdpbench.codecs.diffusion.perco.network import HyperEncoder

    own = POINTS[rate]
    return HyperEncoder(own.stride, own.entries, widths)


def seeded(network: Any, seed: int) -> Any:
    """A network with its seeded random weights, a codebook's entries of length one among them."""
    import torch

    drawn = tiny.draw_weights(network, seed)
    for name, buffer in drawn.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            entries = torch.randn(buffer.shape, generator=torch.Generator("cpu").manual_seed(seed))
            buffer.copy_(torch.nn.functional.normalize(entries, dim=-1))
    return drawn

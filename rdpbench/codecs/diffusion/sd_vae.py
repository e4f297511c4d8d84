"""The autoencoder of a latent diffusion model alone: what bounds every codec that paints in its latents.

PerCo's Table 1 has it as "LDM autoencoder" (Careil et al., ICLR 2024, https://arxiv.org/abs/2310.10325), with latents
in single precision. Here its latents are bytes and counted, but it is no codec to compare: its rate is that of numbers
which nobody coded. ``role: bound`` in its preset says so.

In the bitstream: height, width, the latents; four numbers for 8 x 8 pixels. The rate axis is the bits of a number:

====  ==============================================================================================================
bits  numbers are
====  ==============================================================================================================
32    in single precision
16    in half precision
8     one of 256 values, evenly from the least to the greatest of its channel, which are sent (32 bytes for 4 channels)
====  ==============================================================================================================

The latents are the means that the encoder finds, without a draw. Sides are continued to multiples of 64, and cut. The
VAE is that of `bases` or of a folder; Stable Diffusion 2.1's is PerCo's, and is shared with it in a process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import OwnFolder, Weights, require
from rdpbench.codecs.container import pack, unpack
from rdpbench.codecs.contract import Bitstream, Rate, Side, check_choice, decoding, encoding
from rdpbench.codecs.diffusion import bases, models, prompts
from rdpbench.codecs.diffusion.bases import byte_vocabulary
from rdpbench.codecs.diffusion.codec import adopt, check_count
from rdpbench.codecs.diffusion.models import Models, trainable, vae_name
from rdpbench.codecs.diffusion.perco import pipeline
from rdpbench.codecs.learned.codec import Kind
from rdpbench.codecs.learned.systems import check_pixels, size_of, to_planes
from rdpbench.errors import BitstreamError, OutOfRange, UnsupportedImage
from rdpbench.image import Image
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.precision import reproducible

if TYPE_CHECKING:
    from torch import Tensor

BITS = (8, 16, 32)
"""Legal numbers of bits."""


@dataclass(frozen=True)
class StableDiffusionVAE:
    """sd-vae."""

    name: ClassVar[str] = "sd-vae"
    rate: ClassVar[Rate] = Rate("bits", 8, 32, step=8, points=BITS, listed=True)
    heavy: ClassVar[bool] = True
    uses_device: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torch", "rdpbench.codecs.diffusion.library")
    needs: ClassVar[tuple[Need, ...]] = (Package("diffusers"), Package("transformers"))
    unkeyed: ClassVar[frozenset[str]] = frozenset({"max_pixels", "checkpoint"})
    takes_own: ClassVar[Mapping[str, frozenset[str]]] = {"base": frozenset(bases.BASES), "checkpoint": frozenset()}
    version: ClassVar[str] = "1"

    bits: int = 16
    """Of each of the four numbers for 8 x 8 pixels."""
    base: str = "sd-2.1"
    """A model of `rdpbench.codecs.diffusion.bases`, or a folder with ``vae`` as ``diffusers`` saved it."""
    weights: str = "official"
    """``official``; ``random``: the same class at a tiny width, seeded; ``random-full``: the same at full width."""
    device: str = "cpu"
    max_pixels: int = 1 << 22
    """Larger images, and bitstreams that state larger ones, are refused; counted with sides padded to 64."""
    checkpoint: str = ""
    """A folder of yours; another word for `base`, the same as that of all codecs with weights."""

    def __post_init__(self) -> None:
        adopt(self, "base")
        if self.bits not in BITS:
            raise OutOfRange(f"{self.name}: bits={self.bits!r} is not legal; choose from {', '.join(map(str, BITS))}")
        check_choice(self.name, "weights", self.weights, models.WEIGHTS)
        bases.check_known("base", self.base, bases.BASES)
        check_count(self.name, "max_pixels", self.max_pixels, 1)

    def weight_needs(self) -> tuple[Need, ...]:
        return (source(self.base),) if self.weights == "official" else ()

    def weights_kind(self) -> Kind:
        if self.weights != "official":
            return "random"
        return "own" if bases.is_path(self.base) else "unpinned"

    def own_identity(self) -> str:
        return source(self.base).named_identity if self.weights_kind() == "own" else ""

    def coder(self) -> dict[str, str]:
        libraries = {name: package_version(name) for name in ("torch", "diffusers")}
        made = source(self.base).named_identity if self.weights == "official" else self.weights
        return {**libraries, "vae": made}

    def ready(self) -> None:
        load(self.base, self.weights, self.device)

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - it has no use for it
        import torch

        height, width = size_of(image)
        check_pixels(*prompts.FRAME.padded(height, width), self.max_pixels, UnsupportedImage)
        networks = load(self.base, self.weights, self.device)
        with reproducible(), encoding(self.name):
            planes = prompts.FRAME.pad(to_planes([image], self.device, torch.float32))
            latents = prompts.encode(networks, planes)[0].float().cpu().numpy()
            return pack(height, width, {"latents": pack_latents(latents, self.bits)})

    def decode(self, data: bytes) -> Image:
        import torch

        networks = load(self.base, self.weights, self.device)
        with reproducible(), decoding(self.name):
            height, width, [section] = unpack(data, 1)
            padded = prompts.FRAME.padded(height, width)
            check_pixels(*padded, self.max_pixels, BitstreamError)
            rows, columns = (side // networks.factor for side in padded)
            shape = (int(networks.vae.config.latent_channels), rows, columns)
            latents: Tensor = torch.from_numpy(unpack_latents(section, shape, self.bits))[None]
            [image] = prompts.decode(networks, latents.to(self.device), height, width)
            return image


def pack_latents(latents: NDArray[np.float32], bits: int) -> bytes:
    """Latents ``(channels, h, w)`` with so many bits for each number.

    >>> len(pack_latents(np.zeros((4, 64, 64), np.float32), 8))
    16416
    """
    if bits > 8:
        return latents.astype(f"<f{bits // 8}").tobytes()
    ends = np.stack([latents.min((1, 2)), latents.max((1, 2))]).astype("<f4")
    low, span = ends[0].astype(np.float64), np.ptp(ends.astype(np.float64), axis=0)
    steps = (latents - low[:, None, None]) / np.where(span > 0, span, 1)[:, None, None]
    return bytes(ends.tobytes() + np.floor(255 * steps + 0.5).astype(np.uint8).tobytes())


def unpack_latents(section: bytes, shape: tuple[int, int, int], bits: int) -> NDArray[np.float32]:
    """Latents of a shape.

    Raises:
        BitstreamError: bytes that are not as many, or not finite.

    >>> float(unpack_latents(pack_latents(np.ones((1, 2, 2), np.float32), 8), (1, 2, 2), 8).sum())
    4.0
    """
    ends = 8 * shape[0] if bits == 8 else 0
    if len(section) != ends + math.prod(shape) * bits // 8:
        raise BitstreamError(f"{math.prod(shape)} numbers of {bits} bits are not {len(section)} bytes")
    if bits > 8:
        found = np.frombuffer(section, f"<f{bits // 8}").reshape(shape).astype(np.float64)
    else:
        low, high = np.frombuffer(section, "<f4", 2 * shape[0]).astype(np.float64).reshape(2, -1, 1, 1)
        found = low + (high - low) * np.frombuffer(section, np.uint8, offset=ends).reshape(shape) / 255
    if not np.isfinite(found).all():
        raise BitstreamError("latents that are not finite: the bitstream is damaged")
    return found.astype(np.float32)


def source(base: str) -> OwnFolder | Weights:
    """The file of a model's VAE alone."""
    if bases.is_path(base):
        return OwnFolder(str(Path(base) / "vae"))
    return Weights(next(one for one in bases.BASES[base].card.cards if one.file == bases.TENSORS["vae"]))


def load(base: str, weights: str = "official", device: str = "cpu") -> Models:
    """A model of which there is nothing but the VAE.

    Raises:
        MissingNeed: the file is not on this machine.
        CodecError: it does not hold this network.
    """
    wanted = source(base)
    mark = f"{weights} {base}"
    if weights == "official":
        require([wanted])
        mark = wanted.named_identity
    sizes = layout(base, weights)
    vae = models.kept(("vae", mark, "float32", device), lambda: _built(wanted, sizes, weights, device))
    return Models(sizes, None, vae, (), byte_vocabulary(), device)


def layout(base: str, weights: str) -> bases.Layout:
    """The sizes of a model; of a folder nothing but the VAE's is read."""
    if not bases.is_path(base):
        return models.layout(base, weights)
    known = bases.SD21
    found = bases.Layout(
        known.unet, bases.read_config(str(Path(base) / "vae")), known.texts, known.pads, known.schedule
    )
    return models.narrow(found) if weights == "random" else found


@trainable
def _built(wanted: OwnFolder | Weights, sizes: bases.Layout, weights: str, device: str) -> Any:
    from rdpbench.codecs.diffusion.library import diffusers

    def build() -> Any:
        networks: Any = diffusers
        return networks.AutoencoderKL.from_config(dict(sizes.vae))

    if weights != "official":
        return pipeline.seeded(build(), sum(map(ord, "vae"))).to(device)
    return load_strictly(build, wanted.read(), wanted.id, rename=vae_name).to(device)

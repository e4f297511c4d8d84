"""The autoencoder of a latent diffusion model alone, to see the loss that its latents cause by themselves.

PerCo's Table 1 has it as "LDM autoencoder" (Careil et al., ICLR 2024, https://arxiv.org/abs/2310.10325), with latents
in single precision. It is no codec to compare, as nobody coded its numbers: ``role: bound`` in its preset says so.

In the bitstream: height, width, the latents; four numbers for 8 x 8 pixels. The rate axis is the bits of a number:

32 and 16 are single and half precision; 8 is one of 256 values, evenly from the least to the greatest of its channel,
which are sent (32 bytes for 4 channels).

The latents are the means that the encoder finds, without a draw. Sides are continued to multiples of 64, and cut. The
VAE is that of `bases` or of a folder; Stable Diffusion 2.1's is PerCo's, and is shared with it in a process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.weights import require
from rdpbench.codecs.container import pack
from rdpbench.codecs.contract import Bitstream, Rate, Side, encoding
from rdpbench.codecs.diffusion import bases, fields, models, sampling
from rdpbench.codecs.diffusion.codec import DiffusionCodec
from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.systems import size_of
from rdpbench.errors import BitstreamError, UnsupportedImage
from rdpbench.image import Image
from rdpbench.lazy import Tensor, torch
from rdpbench.needs import Need, package_version
from rdpbench.networks.held import trainable
from rdpbench.networks.precision import reproducible

BITS = (8, 16, 32)
"""Legal numbers of bits."""


@dataclass(frozen=True)
class StableDiffusionVAE(DiffusionCodec):
    """sd-vae."""

    name = "sd-vae"
    rate: ClassVar[Rate] = Rate("bits", 8, 32, step=8, points=BITS, listed=True)
    libraries: ClassVar = ("torch", "diffusers")
    parts_of_own: ClassVar = {"base": ("vae",)}

    bits: int = 16
    """Of each of the four numbers for 8 x 8 pixels."""
    base: str = "sd-2.1"
    """A model of `rdpbench.codecs.diffusion.bases`, or a folder with ``vae`` as ``diffusers`` saved it."""

    def files(self) -> tuple[Need, ...]:
        return (models.source_of("vae", self.base),)

    def hashes(self) -> dict[str, str]:
        return {
            "vae": models.source_of("vae", self.base).named_identity if self.weights == "official" else self.weights
        }

    def versions(self) -> dict[str, str]:
        return {**{name: package_version(name) for name in self.libraries}, **self.hashes()}

    def models(self) -> Models:
        return load_vae_alone(self.base, self.weights, self.device)

    def encode(self, image: Image, side: Side) -> Bitstream:  # noqa: ARG002 - it has no use for it
        height, width = size_of(image)
        self.padded(height, width, UnsupportedImage)
        ready = self.models()
        with reproducible(), encoding(self.name):
            latents = sampling.latents_of(ready, image)[0].float().cpu().numpy()
            return pack(height, width, {"latents": pack_latents(latents, self.bits)})

    def section_names(self) -> Sequence[str]:
        return ["latents"]

    def latents(self, ready: Models, sections: Mapping[str, bytes], height: int, width: int) -> Tensor:
        rows, columns = (side // ready.factor for side in sampling.FRAME.padded(height, width))
        shape = (int(ready.vae.config.latent_channels), rows, columns)
        return torch.from_numpy(unpack_latents(sections["latents"], shape, self.bits))[None].to(self.device)


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
    if bits > 8:
        return fields.unpack_floats(section, shape, bits)
    ends = 8 * shape[0]
    if len(section) != ends + math.prod(shape):
        raise BitstreamError(f"{math.prod(shape)} numbers of 8 bits and their ranges are not {len(section)} bytes")
    low, high = fields.unpack_floats(section[:ends], (2, shape[0], 1, 1)).astype(np.float64)
    steps = np.frombuffer(section, np.uint8, offset=ends).reshape(shape)
    return (low + (high - low) * steps / 255).astype(np.float32)


def load_vae_alone(base: str, weights: str = "official", device: str = "cpu") -> Models:
    """A model of which there is nothing but the VAE. Raises as `models.load_models`."""
    source = models.source_of("vae", base) if weights == "official" else None
    if source:
        require([source])
    if not bases.is_path(base):
        sizes = models.layout(base, weights)
    else:  # of a folder nothing but the VAE's configuration is read
        sizes = replace(bases.SD21, vae=bases.read_config(str(Path(base) / "vae")))
        sizes = models.narrow(sizes) if weights == "random" else sizes
    vae = trainable(models.load_vae)(sizes, source, device, f"{weights} {base}")
    return Models(sizes, None, vae, (), bases.byte_vocabulary(), device)

"""Latents to images and back: working sizes, padding, and the project's one rounding rule."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rdpbench.codecs.diffusion.models import Models
from rdpbench.codecs.learned.frames import Frame, to_images
from rdpbench.image import Image

if TYPE_CHECKING:
    from torch import Tensor

FRAME = Frame(64, "replicate", "corner")
"""U-Nets halve latents three times and VAEs pixels three times: sides are multiples of 64 inside. Smaller images are
generated larger, and cut at the right and below."""


def decode(models: Models, latents: Tensor, height: int, width: int) -> Iterable[Image]:
    """Images of scaled latents ``(B, 4, h, w)``, cut to a size; one at a time, so that none depends on its neighbours.

    Raises:
        BitstreamError: values that are not finite.
    """
    for one in latents:
        planes = models.vae.decode(one[None].float() / models.vae.config.scaling_factor).sample
        yield to_images(FRAME.crop(planes / 2 + 0.5, height, width))[0]


def encode(models: Models, planes: Tensor, seed: int | None = None) -> Tensor:
    """Scaled latents of padded planes ``(1, 3, H, W)`` of [0, 1]: the mean, or a draw with a seed."""
    import torch

    found = models.vae.encode(planes.to(models.device) * 2 - 1).latent_dist
    if seed is None:
        latents = found.mean
    else:
        noise = torch.randn(found.mean.shape, generator=torch.Generator("cpu").manual_seed(seed))
        latents = found.mean + found.std * noise.to(models.device)
    scaled: Tensor = latents * models.vae.config.scaling_factor
    return scaled

"""Token ids to what conditions a U-Net: the text tower's last states, or SDXL's two towers and a pooled prompt.

The CLIP network that prompts are searched in and candidates are compared with.

Latents to images and back: working sizes, padding, and the project's one rounding rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import OwnFolder, Weights, read_tensors, require
from rdpbench.codecs.diffusion import bases, models
from rdpbench.codecs.diffusion.models import Models, trainable
from rdpbench.codecs.learned.systems import Frame, to_images
from rdpbench.errors import CodecError, MetricError
from rdpbench.image import Image
from rdpbench.needs import Need
from rdpbench.networks.clip import B32, H14, L14, L14_336, SHAPES, Clip, build, configuration

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Condition:
    """What a U-Net sees of a prompt."""

    hidden: Tensor
    """``(1, 77, width)``."""
    pooled: Tensor | None = None
    """``(1, width)``, for SDXL."""


def condition(models: Models, ids: Sequence[int]) -> Condition:
    """The condition of ids, which stand between both ends and are cut after 75.

    Ids are taken as they are: they do not pass through text.
    """
    import torch

    words = models.vocabulary
    states, pooled = [], None
    for tower, pad in zip(models.texts, models.layout.pads, strict=True):
        sequence = torch.tensor([words.sequence(ids, pad)], device=models.device)
        if not models.layout.pooled:
            return Condition(tower(sequence).last_hidden_state)
        found = tower(sequence, output_hidden_states=True)
        states.append(found.hidden_states[-2])
        pooled = getattr(found, "text_embeds", None)
    return Condition(torch.cat(states, dim=-1), pooled)


CLIPS = {card.id: card for card in (H14, L14, L14_336, B32)}
"""The published ones, by id; the first is that of Text+Sketch."""


def needs(clip: str) -> tuple[Need, ...]:
    """The files of a CLIP network: of `CLIPS`, or of a folder with ``config.json`` and tensors."""
    return (source(clip),)


def source(clip: str) -> OwnFolder | Weights:
    """Where its tensors come from."""
    return OwnFolder(clip) if bases.is_path(clip) else Weights(CLIPS[clip])


def identity(clip: str) -> str:
    """What enters keys."""
    return source(clip).named_identity


def load(clip: str, weights: str = "official", device: str = "cpu") -> Clip:
    """Both towers; the same object as long as the file is the same.

    Raises:
        MissingNeed: a file is not on this machine.
        CodecError: it does not hold this network.
    """
    if weights == "official":
        require(needs(clip))
    return _load(clip, weights, device, identity(clip) if weights == "official" else "")


@lru_cache(maxsize=1)
@trainable
def _load(clip: str, weights: str, device: str, file: str) -> Clip:  # noqa: ARG001 - another file is another network
    if weights == "official" and not bases.is_path(clip):
        try:
            return Clip(build(SHAPES[CLIPS[clip].id], read_tensors(CLIPS[clip])), None, device)
        except MetricError as error:
            raise CodecError(str(error)) from error
    if weights == "official":
        own = OwnFolder(clip)
        return Clip(load_strictly(lambda: network(bases.read_config(clip)), own.read(), own.id), None, device)
    if weights == "random-full":
        return Clip(models.draw(network(configuration(SHAPES[CLIPS[clip].id])), seed=5), None, device)
    ends = {
        "vocab_size": models.TINY_TOKENS,
        "bos_token_id": models.TINY_TOKENS - 2,
        "eos_token_id": models.TINY_TOKENS - 1,
    }
    sizes = {"projection_dim": 24, "text_config": {**models.CLIP_TEXT, **ends}, "vision_config": models.CLIP_VISION}
    return Clip(models.draw(network(sizes), seed=5), None, device)


def network(sizes: dict[str, Any]) -> Any:
    """``transformers.CLIPModel`` of a configuration."""
    from rdpbench.codecs.diffusion.library import transformers

    return transformers.CLIPModel(transformers.CLIPConfig(**sizes))


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

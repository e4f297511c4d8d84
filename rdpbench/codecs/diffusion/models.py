"""The networks of a Stable Diffusion model on a device, loaded once for a process and shared by all its codecs.

The VAE computes in single precision always: at half precision SDXL's overflows, and a few values of all others flip.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench import weights as files
from rdpbench.codecs.diffusion import folders, tiny
from rdpbench.codecs.diffusion.bases import BASES, CONTROLNETS, TENSORS, Family, Layout
from rdpbench.codecs.diffusion.loading import fill, on_meta, text_name, trainable, vae_name
from rdpbench.codecs.diffusion.vocabulary import Vocabulary, byte_vocabulary, clip_vocabulary
from rdpbench.errors import CodecError, ConfigError, MissingNeed
from rdpbench.metrics.clip_weights import TOKENS
from rdpbench.needs import Need
from rdpbench.weights import Card, Weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PRECISIONS = ("float32", "float16", "bfloat16")
WEIGHTS = ("official", "random", "random-full")
KEPT = 6
"""VAEs and text towers that are kept beside the models that were loaded last: they are the same in many."""
_KEPT: OrderedDict[tuple[str, ...], Any] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Models:
    """A model, ready to generate."""

    layout: Layout
    unet: Any
    vae: Any
    texts: tuple[Any, ...]
    vocabulary: Vocabulary
    device: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the U-Net and the text towers."""
        found: torch.dtype = next(self.unet.parameters()).dtype
        return found

    @property
    def factor(self) -> int:
        """Pixels along a side for one latent: 8 in all published models."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def layout(base: str, weights: str) -> Layout:
    """The sizes of a base model: published, of a folder, or narrow."""
    found = folders.layout_of(base) if folders.is_path(base) else BASES[base].layout
    return tiny.narrow(found) if weights == "random" else found


def family(base: str) -> Family:
    """Which ControlNets fit."""
    if not folders.is_path(base):
        return BASES[base].family
    width = folders.layout_of(base).unet.get("cross_attention_dim")
    known: dict[Any, Family] = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
    if width not in known:
        raise ConfigError(f"{base} has prompts of width {width}, which no known ControlNet takes")
    return known[width]


def needs(base: str) -> tuple[Need, ...]:
    """The files of a base model, and the table of tokens."""
    own: tuple[Need, ...] = folders.parts_of(base) if folders.is_path(base) else (Weights(BASES[base].card),)
    return (*own, Weights(TOKENS))


def identity(base: str) -> str:
    """What enters keys: the hash of the model's files."""
    return folders.identity(folders.parts_of(base)) if folders.is_path(base) else named(BASES[base].card)


def named(card: Card | files.Folder) -> str:
    """The hash of a card's files as keys have it."""
    found = files.identity(card)
    return found if found.startswith("unpinned:") else f"sha256:{found}"


def load(base: str, weights: str = "official", precision: str = "float32", device: str = "cpu") -> Models:
    """The networks of a base model; the same object as long as its files are the same.

    Args:
        base: a name of `BASES`, or a folder that ``diffusers`` saved.
        weights: ``official``, ``random`` or ``random-full``.
        precision: of the U-Net and the text towers, one of `PRECISIONS`.
        device: where they compute.

    Raises:
        MissingNeed: a file is not on this machine.
        CodecError: a file does not hold this network.
    """
    if weights == "official":
        require(needs(base))
    return _load(base, weights, precision, device, identity(base) if weights == "official" else "")


def require(wanted: Iterable[Need]) -> None:
    """Raise `MissingNeed` that tells of everything that is missing; hashes of what is here are pinned by it."""
    if lines := [text for need in wanted if (text := need.missing())]:
        raise MissingNeed("\n".join(lines))


@lru_cache(maxsize=2)
@trainable
def _load(base: str, weights: str, precision: str, device: str, file: str) -> Models:  # noqa: ARG001 - other files, other model
    from rdpbench.codecs.diffusion.library import diffusers

    sizes = layout(base, weights)
    dtype = type_of(precision)
    networks: Any = diffusers
    unet = make("unet", lambda: networks.UNet2DConditionModel.from_config(dict(sizes.unet)), base, weights, dtype)

    def shared(part: str, build: Callable[[], Any], kind: str) -> Any:
        mark = part_identity(part, base) if weights == "official" else f"{weights} {base}"
        return kept((part, mark, kind, device), lambda: make(part, build, base, weights, type_of(kind)).to(device))

    vae = shared("vae", lambda: networks.AutoencoderKL.from_config(dict(sizes.vae)), "float32")
    builders = [lambda at=at: text_tower(sizes, at) for at in range(len(sizes.texts))]
    texts = [shared(part, build, precision) for part, build in zip(("text", "text 2"), builders, strict=False)]
    words = clip_vocabulary() if weights == "official" else byte_vocabulary(sizes.tokens)
    if words.size != sizes.tokens:
        raise CodecError(f"{base} has {sizes.tokens} tokens, where CLIP's vocabulary has {words.size}")
    return Models(sizes, unet.to(device), vae, tuple(texts), words, device)


def kept(key: tuple[str, ...], build: Callable[[], Any]) -> Any:
    """What ``build`` made for this key, the last `KEPT` of them.

    >>> kept(("example",), lambda: 3), kept(("example",), lambda: 4), _KEPT.pop(("example",))
    (3, 3, 3)
    """
    if key not in _KEPT:
        made = build()
        while len(_KEPT) >= KEPT:
            _KEPT.popitem(last=False)
        _KEPT[key] = made
    _KEPT.move_to_end(key)
    return _KEPT[key]


def text_tower(sizes: Layout, number: int) -> Any:
    """A text tower; the second has a projection, as SDXL's."""
    from rdpbench.codecs.diffusion.library import transformers

    ends = {"vocab_size": sizes.tokens, "bos_token_id": sizes.tokens - 2, "eos_token_id": sizes.tokens - 1}
    config = transformers.CLIPTextConfig.from_dict({**sizes.texts[number], **ends})
    return transformers.CLIPTextModelWithProjection(config) if number else transformers.CLIPTextModel(config)


def make(part: str, build: Callable[[], Any], base: str, weights: str, dtype: torch.dtype) -> Any:
    """One part of a model with its weights, on the CPU."""
    if weights != "official":
        return tiny.draw(build(), seed=sum(map(ord, part))).to(dtype)
    rename = {"vae": vae_name, "text": text_name}.get(part, str)
    tensors, what = read(part, base)
    return fill(on_meta(build), tensors, what, dtype, rename=rename)


def read(part: str, base: str) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a part, and the name of their file."""
    source = _source(part, base)
    if isinstance(source, folders.Place):
        return read_place(source)
    return files.read_file(files.resolve(BASES[base].card) / source.file), source.id


def part_identity(part: str, base: str) -> str:
    """The hash of a part's file: the same bytes in two models are one network."""
    source = _source(part, base)
    return folders.identity([source]) if isinstance(source, folders.Place) else named(source)


def _source(part: str, base: str) -> folders.Place | Card:
    if not folders.is_path(base):
        return next(one for one in BASES[base].card.cards if one.file == TENSORS[part])
    where = {"text": "text_encoder", "text 2": "text_encoder_2"}.get(part, part)
    return folders.Place(str(Path(base) / where))


def read_place(place: folders.Place) -> tuple[Mapping[str, Tensor], str]:
    """The tensors of a folder of the user's, and the name of their file."""
    path = place.find()
    if path is None:
        raise CodecError(str(place.missing()))
    return files.read_file(path), str(path)


def controlnet_source(controlnet: str, base: str, sketch: str) -> folders.Place | Weights:
    """Where the ControlNet of a base model and kind of sketch comes from.

    Raises:
        ConfigError: none is known for them, and none was given.
    """
    if controlnet:
        return folders.Place(controlnet)
    card = CONTROLNETS.get((family(base), sketch))
    if card is None:
        known = ", ".join(f"{kind} for {other}" for other, kind in CONTROLNETS)
        raise ConfigError(
            f"no ControlNet for {sketch!r} sketches is known that fits base={base!r} (known: {known}); "
            "name a folder of yours: codec.options.controlnet=/where/it/is"
        )
    return Weights(card)


def load_controlnet(
    models: Models, controlnet: str, base: str, sketch: str, weights: str, precision: str = "float32"
) -> Any:
    """The ControlNet that goes with loaded models; the same object as long as its file is the same."""
    if weights != "official":
        return _controlnet(models, None, precision, weights)
    source = controlnet_source(controlnet, base, sketch)
    require([source])
    return _controlnet(models, source, precision, source_identity(source))


def source_identity(source: folders.Place | Weights) -> str:
    """What enters keys for a single file."""
    return folders.identity([source]) if isinstance(source, folders.Place) else named(source.card)


@lru_cache(maxsize=2)
@trainable
def _controlnet(models: Models, source: folders.Place | Weights | None, precision: str, file: str) -> Any:  # noqa: ARG001 - as above
    from rdpbench.codecs.diffusion.library import diffusers

    def build() -> Any:
        return diffusers.ControlNetModel.from_unet(models.unet, load_weights_from_unet=False)

    if source is None:
        return tiny.draw(build(), seed=7).to(models.device, models.dtype)
    if isinstance(source, folders.Place):
        tensors, what = read_place(source)
    else:
        assert isinstance(source.card, Card)
        tensors, what = files.read_file(files.resolve(source.card)), source.card.id
    return fill(on_meta(build), tensors, what, type_of(precision)).to(models.device)


def type_of(precision: str) -> torch.dtype:
    """torch's type of a precision.

    >>> type_of("float16").itemsize
    2
    """
    import torch

    found: torch.dtype = getattr(torch, precision)
    return found

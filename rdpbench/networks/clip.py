"""CLIP's two towers (Radford et al., ICML 2021): images and captions to the vectors whose cosine scores compare.

Networks are built from the sizes written here and loaded strictly from one checked file each; captions become tokens by
OpenAI's byte-pair table, whose hash is known, instead of the tokenizer files of each model's page.

Images enter as 8 bits: the usual preprocessor rescales float images of [0, 1] a second time, and answers with a
plausible number. They are prepared in one of two ways, which see different pixels:

- ``openai``: short side to the network's size (bicubic, antialiased, 8-bit result), then the centre square;
- ``cmmd``: the centre square first, then bicubic to the network's size, as google-research's CMMD does.

A caption longer than 77 tokens with both ends is cut there, as OpenAI's ``truncate=True`` does; `Clip.truncated` tells
which. Captions are taken as they stand: OpenAI's own script also repairs broken Unicode and HTML entities.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import Card, read_tensors, resolve
from rdpbench.errors import MetricError
from rdpbench.image import Image, check_image
from rdpbench.lazy import Tensor, pil, torch
from rdpbench.networks.precision import exact


@dataclass(frozen=True)
class Shape:
    """Sizes of both transformers; a head is 64 wide in the text tower of all, and in the image towers of OpenAI."""

    width: int
    layers: int
    heads: int
    patch: int
    side: int
    text_width: int
    text_layers: int
    text_heads: int
    dim: int
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"


_OPENAI = "OpenAI's code is MIT; the model page states no licence of its own"

TOKENS = Card(
    id="clip-bpe",
    source="https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
    revision="as in openai/CLIP since 2021",
    file="bpe_simple_vocab_16e6.txt.gz",
    sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    bytes=1356917,
    licence="MIT",
    note="byte-pair table of all CLIP models",
)


CLIP_MODELS = {
    card.id: (card, shape)
    for name, revision, file, sha256, size, licence, note, shape in (
        # Hashes and sizes as public projects that pin these revisions state them, at least two of them for each file.
        (
            "openai/clip-vit-base-patch32",
            "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
            "pytorch_model.bin",
            "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            605247071,
            _OPENAI,
            "CLIP ViT-B/32, for the CLIP score of PerCo and of Hessel et al.",
            Shape(768, 12, 12, 32, 224, 512, 12, 8, 512),
        ),
        (
            "openai/clip-vit-large-patch14",
            "32bd64288804d66eefd0ccbe215aa642df71cc41",
            "model.safetensors",
            "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
            1710540580,
            _OPENAI,
            "CLIP ViT-L/14, torchmetrics' default for the CLIP score",
            Shape(1024, 24, 16, 14, 224, 768, 12, 12, 768),
        ),
        (
            "openai/clip-vit-large-patch14-336",
            "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
            "pytorch_model.bin",
            "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
            1711974081,
            _OPENAI,
            "CLIP ViT-L/14 at 336 pixels, for CMMD",
            Shape(1024, 24, 16, 14, 336, 768, 12, 12, 768),
        ),
        (
            "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
            "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
            "model.safetensors",
            "036e6e2bd49697511f4f8b8cb5ee465f93025f7a69a145eadeb9a881ace9b18d",
            3944552236,
            "MIT",
            "OpenCLIP ViT-H/14 of LAION, for the dCLIP of Text+Sketch",
            Shape(1280, 32, 16, 14, 224, 1024, 24, 16, 1024, "gelu"),
        ),
    )
    for address in (f"https://huggingface.co/{name}/resolve/{revision}/{file}",)
    for card in (Card(name.partition("/")[2].casefold(), address, revision, file, licence, note, sha256, size),)
}
B32, L14, L14_336, H14 = (card for card, _ in CLIP_MODELS.values())
SHAPES = {id_: shape for id_, (_, shape) in CLIP_MODELS.items()}
"""Sizes by card."""


def build_clip(shape: Shape, tensors: Mapping[str, Tensor], *, text: bool = True) -> Any:
    """``transformers.CLIPModel`` (or the image tower alone) holding exactly ``tensors``.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    sizes = configuration(shape)
    if text:
        return load_strictly(lambda: CLIPModel(CLIPConfig(**sizes)), tensors, "the CLIP file", error=MetricError)
    images = {name: tensor for name, tensor in tensors.items() if name.startswith(("vision_model.", "visual_"))}
    vision = CLIPVisionConfig(**sizes["vision_config"])
    return load_strictly(lambda: CLIPVisionModelWithProjection(vision), images, "the CLIP file", error=MetricError)


def configuration(shape: Shape) -> dict[str, Any]:
    """What ``transformers.CLIPConfig`` takes for a shape.

    >>> configuration(SHAPES[B32.id])["vision_config"]["intermediate_size"]
    3072
    """

    def tower(width: int, layers: int, heads: int) -> dict[str, Any]:
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        return {**sizes, "num_attention_heads": heads, "projection_dim": shape.dim, "hidden_act": shape.activation}

    vision = {**tower(shape.width, shape.layers, shape.heads), "patch_size": shape.patch, "image_size": shape.side}
    text = tower(shape.text_width, shape.text_layers, shape.text_heads)
    return {"projection_dim": shape.dim, "vision_config": vision, "text_config": text}


ENDS = ("<|startoftext|>", "<|endoftext|>")
_PRINTED = [*range(ord("!"), 127), *range(0xA1, 0xAD), *range(0xAE, 256)]
_OTHERS = sorted({*range(256)} - {*_PRINTED})
LETTERS = {byte: chr(byte) for byte in _PRINTED} | {byte: chr(256 + place) for place, byte in enumerate(_OTHERS)}
"""What stands for each byte, in the order of the vocabulary: bytes that print for themselves, then letters from 256 on.

>>> LETTERS[32], next(iter(LETTERS.values()))
('Ġ', '!')
"""


def ends(tokens: int) -> dict[str, int]:
    """A vocabulary's size and its last two ids, as CLIP's configurations have them."""
    return {"vocab_size": tokens, "bos_token_id": tokens - 2, "eos_token_id": tokens - 1}


@cache
def read_tokens(path: Path) -> Any:
    """``transformers.CLIPTokenizer`` from OpenAI's table: bytes (inside and ending a word), merges, two ends."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    return _tokenizer([(first, second) for first, second in map(str.split, lines[1:48895])])


@cache
def byte_tokens() -> Any:
    """The same without merges: a token for each byte, inside and at the end of a word, and both ends.

    >>> len(byte_tokens())
    514
    """
    return _tokenizer([])


def _tokenizer(merges: Sequence[tuple[str, str]]) -> Any:
    from transformers import CLIPTokenizer

    words = [*LETTERS.values(), *(f"{letter}</w>" for letter in LETTERS.values()), *map("".join, merges), *ENDS]
    # Declared as strings, but pairs are what its byte-pair model takes.
    return CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=merges)  # type: ignore[arg-type]


__all__ = ["B32", "H14", "L14", "L14_336", "TOKENS", "Clip", "load_clip", "unit"]

Crop: TypeAlias = Literal["openai", "cmmd"]
Rows: TypeAlias = NDArray[np.float32]

BATCH = 16
"""Images in the network at once."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def load_clip(card: Card, device: str = "cpu", *, text: bool = True) -> Clip:
    """The network of a card, float32; without ``text`` the text tower, a quarter of the memory, stays unloaded.

    Raises:
        MissingNeed: a file is not on this machine.
        MetricError: the file's tensors are not those of the network.
    """
    tokens = read_tokens(resolve(TOKENS)) if text else None
    return Clip(build_clip(SHAPES[card.id], read_tensors(card), text=text), tokens, device)


class Clip:
    """Both towers: a ``CLIPModel`` and a ``CLIPTokenizer``, or a ``CLIPVisionModelWithProjection`` for images alone."""

    def __init__(self, model: Any, tokens: Any = None, device: str = "cpu") -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.tokens = tokens
        self.device = device
        self.side: int = model.vision_model.config.image_size
        self._last: tuple[Image, NDArray[np.float64]] | None = None

    def image(self, images: Sequence[Image], *, crop: Crop = "openai", projected: bool = True) -> Rows:
        """Embeddings ``float32 (images, dim)``, not normalised (see `unit`); images may differ in size.

        Args:
            images: ``uint8 (H, W, 3)`` each.
            crop: which pixels the network sees; see the top of this module.
            projected: False gives the pooled class token before the projection (1024 numbers for L/14).
        """
        rows = []
        with torch.inference_mode(), exact():
            for start in range(0, len(images), BATCH):
                squares = [prepare(image, self.side, crop) for image in images[start : start + BATCH]]
                pooled = self.model.vision_model(normalise(squares).to(self.device)).pooler_output
                rows.append((self.model.visual_projection(pooled) if projected else pooled).cpu().numpy())
        width = self.model.visual_projection
        empty = np.empty((0, width.out_features if projected else width.in_features), np.float32)
        return np.concatenate([empty, *rows])

    def one(self, image: Image) -> NDArray[np.float64]:
        """The projected embedding of one image, of length 1, ``(dim,)``, by OpenAI's crop.

        The last image is remembered, pixels and all: several metrics ask for the same reconstruction in turn.
        """
        if self._last is None or not np.array_equal(self._last[0], image):
            self._last = image.copy(), unit(self.image([image]))[0]
        return self._last[1]

    def text(self, captions: Sequence[str]) -> Rows:
        """Projected embeddings ``float32 (captions, dim)``, not normalised; longer captions are cut at 77 tokens."""
        rows = []
        with torch.inference_mode(), exact():
            for caption in captions:
                # One at a time: without padding there is nothing to mask.
                taken = self.tokens([caption], truncation=True, max_length=self._longest, return_tensors="pt")
                pooled = self.model.text_model(taken["input_ids"].to(self.device)).pooler_output
                rows.append(self.model.text_projection(pooled).cpu().numpy())
        return np.concatenate([np.empty((0, self.model.text_projection.out_features), np.float32), *rows])

    def truncated(self, captions: Sequence[str]) -> tuple[bool, ...]:
        """For each caption, whether it is longer than what the network reads (77 tokens with both ends)."""
        return tuple(len(self.tokens(caption)["input_ids"]) > self._longest for caption in captions)

    @property
    def _longest(self) -> int:
        return int(self.model.text_model.config.max_position_embeddings)


def unit(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows of length 1, in float64.

    >>> unit(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    wide = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise MetricError("an embedding is zero or not a number: the network's weights or its input are broken")
    return np.asarray(wide / lengths)


def prepare(image: Image, side: int, crop: Crop) -> Image:
    """The square ``uint8 (side, side, 3)`` that the network sees of an image.

    >>> prepare(np.zeros((50, 90, 3), np.uint8), 32, "cmmd").shape
    (32, 32, 3)
    """
    height, width = check_image(image, "CLIP: the image", MetricError).shape[:2]
    whole = pil.fromarray(np.ascontiguousarray(image))
    if crop == "cmmd":
        short = min(height, width)
        left, top = (width - short) // 2, (height - short) // 2
        square = whole.crop((left, top, left + short, top + short))
        return np.array(square.resize((side, side), pil.Resampling.BICUBIC))
    # As torchvision's Resize and CenterCrop: the long side rounds down, the middle to even.
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    resized = np.array(whole.resize(size, pil.Resampling.BICUBIC)) if size != (width, height) else np.array(whole)
    top, left = round((size[1] - side) / 2), round((size[0] - side) / 2)
    return resized[top : top + side, left : left + side]


def normalise(squares: Sequence[Image]) -> Tensor:
    """``float32 (n, 3, side, side)`` with CLIP's mean and deviation taken out."""
    planes = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    return (planes - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]

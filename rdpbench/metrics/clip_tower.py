"""CLIP's two towers (Radford et al., ICML 2021): images and captions to the vectors whose cosine scores compare.

Images enter as 8 bits: the usual preprocessor takes float images too, rescales those of [0, 1] a second time, and
answers with a plausible number. They are prepared in one of two ways, which see different pixels:

- ``openai``: short side to the network's size (bicubic, antialiased, 8-bit result), then the centre square;
- ``cmmd``: the centre square first, then bicubic to the network's size, as google-research's CMMD does.

A caption longer than 77 tokens with both ends is cut there, as OpenAI's ``truncate=True`` does; `Clip.truncated` tells
which. Captions are taken as they stand: OpenAI's own script also repairs broken Unicode and HTML entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.errors import ImageError, MetricError
from rdpbench.image import Image, check_image
from rdpbench.metrics.clip_weights import B32, H14, L14, L14_336, SHAPES, TOKENS, build, read_tokens
from rdpbench.metrics.precision import exact
from rdpbench.weights import Card, read_tensors, resolve

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["B32", "H14", "L14", "L14_336", "TOKENS", "Clip", "load_clip", "unit"]

Crop: TypeAlias = Literal["openai", "cmmd"]
Rows: TypeAlias = NDArray[np.float32]

BATCH = 16
"""Images in the network at once."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def load_clip(card: Card, device: str = "cpu", *, text: bool = True) -> Clip:
    """The network of a card in evaluation mode, float32, with its tokens if ``text``.

    Args:
        card: ``B32``, ``L14``, ``L14_336`` or ``H14``.
        device: where the network runs.
        text: False leaves the text tower unloaded, a third to a quarter of the memory.

    Raises:
        MissingNeed: a file is not on this machine.
        MetricError: the file's tensors are not those of the network.
    """
    tokens = read_tokens(resolve(TOKENS)) if text else None
    return Clip(build(SHAPES[card.id], read_tensors(card), text=text), tokens, device)


class Clip:
    """Both towers of a ``transformers`` model on a device; see `load_clip` for the published ones.

    Args:
        model: ``CLIPModel``, or ``CLIPVisionModelWithProjection`` for images alone.
        tokens: a ``CLIPTokenizer``; None if no captions come.
        device: where the network runs.
    """

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

        Raises:
            MetricError: an image is not ``uint8 (H, W, 3)``.
        """
        import torch

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
        import torch

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
    from PIL import Image as pil

    try:
        check_image(image, "CLIP: the image")
    except ImageError as error:
        raise MetricError(str(error)) from error
    height, width = image.shape[:2]
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
    import torch

    planes = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    return (planes - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]

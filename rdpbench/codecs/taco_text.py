"""What TACO's encoder knows of a caption: the hidden states of CLIP's text tower."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from rdpbench.codecs.learned.randomised import seeded
from rdpbench.codecs.learned.systems import one_thread
from rdpbench.errors import CodecError, MetricError, MissingNeed
from rdpbench.metrics.clip_weights import B32, SHAPES, TOKENS, build, configuration, read_tokens
from rdpbench.weights import Weights, read_tensors, resolve

if TYPE_CHECKING:
    from torch import Tensor

LENGTH = 38
"""Tokens of a caption, both ends and padding among them; longer ones are cut."""


class Reader:
    """The last hidden states of all tokens after the last norm; those of the padding too, as TACO attends to them."""

    def __init__(self, tower: Any, tokens: Any, *, device: str = "cpu", portable: bool = False) -> None:
        """Take ``transformers``' text model and its tokenizer."""
        tower = tower.eval().requires_grad_(False).to(device)
        self.tower = tower.double() if portable else tower
        self.tokens, self.device = tokens, device

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """``(B, 38, D)``; one at a time, so that no caption depends on its neighbours."""
        import torch

        with one_thread():
            return torch.cat([self._one(caption) for caption in captions])

    def _one(self, caption: str) -> Tensor:
        options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        taken = self.tokens([caption], **options)
        inputs = {name: taken[name].to(self.device) for name in ("input_ids", "attention_mask")}
        states: Tensor = self.tower(**inputs).last_hidden_state
        return states


def official_reader(device: str = "cpu", *, portable: bool = False) -> Reader:
    """CLIP ViT-B/32's, from its published files.

    Raises:
        MissingNeed: a file is not on this machine.
        CodecError: the file's tensors are not those of the network.
    """
    for need in (Weights(B32), Weights(TOKENS)):
        if text := need.missing():
            raise MissingNeed(text)
    try:
        tower = build(SHAPES[B32.id], read_tensors(B32)).text_model
    except MetricError as error:
        raise CodecError(str(error)) from error
    return Reader(tower, read_tokens(resolve(TOKENS)), device=device, portable=portable)


def random_reader(width: int, device: str = "cpu", *, portable: bool = False) -> Reader:
    """A seeded tower, of CLIP ViT-B/32's size if the width is its 512, else tiny, with tokens of single bytes."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes: dict[str, Any] = configuration(SHAPES[B32.id])["text_config"]
    if width != sizes["hidden_size"]:
        words = len(byte_tokens())
        ends = {"vocab_size": words, "bos_token_id": words - 2, "eos_token_id": words - 1}
        small = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
        sizes = {**sizes, **ends, **small, "num_attention_heads": 2}
    tower = seeded(lambda: CLIPTextModel(CLIPTextConfig(**sizes)))
    return Reader(tower, byte_tokens(), device=device, portable=portable)


@cache
def byte_tokens() -> Any:
    """``transformers.CLIPTokenizer`` without merges: a token for each byte, and both ends.

    >>> len(byte_tokens())
    514
    """
    from transformers import CLIPTokenizer

    from rdpbench.codecs.diffusion.vocabulary import ENDS, letters

    words = [*letters(), *(f"{letter}</w>" for letter in letters()), *ENDS]
    return CLIPTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[])

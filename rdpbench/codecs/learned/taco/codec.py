"""TACO: ELIC whose encoder reads the image's caption; the decoder needs none, and none is sent.

Lee et al., "Neural image compression with text-guided encoding for both pixel-level and perceptual fidelity", ICML
2024, and the authors' repository effl-lab/TACO. A text adapter in the analysis transform lets the image's features
attend to CLIP's hidden states of the caption (ViT-B/32, 38 tokens, padding among them) and back. Six values of lambda,
with LPIPS and a joint image-text loss beside MSE.

The caption is that of the ``captions=`` axis: of the dataset, of OFA (those that the authors published for Kodak and
CLIC), of a captioning model, or of a file. Which one it was is part of a result's name.

In the bitstream: height and width, the string of z, the string of y (five groups of channels, each in two halves of a
checkerboard); with ``portable=true`` the doubtful cases. The latents' sizes follow from the image's. Images are padded
with zeros right and below to multiples of 64.

Official files fit without a tensor renamed (but for ``module.``) or dropped; what else is in them, such as optimizers,
is not looked at. Tables that are in a file are used, as there; else they are built.

Where this departs from the official scripts, and why:

- Its file has a header of 28 bytes, as it writes the latents' size, the number of strings and 4 bytes for each number:
  0.00057 bpp on Kodak. That is ``framed`` in ``legacy``; ours has about 8.
- Pixels are rounded to 8 bits. The script scores values that are neither clamped nor rounded.
- The official decoder asks for a GPU. Here it runs anywhere.
- With several captions of an image, the script means to keep the best, which nobody can know at a decoder's end, and
  by a slip keeps the last. Here one caption is coded: of several the first.
- Which checkpoint of a training is "best" was chosen on Kodak, a test set. Nothing to do about it here.

What TACO's encoder knows of a caption: the hidden states of CLIP's text tower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from rdpbench.assets.weights import Card, Weights, card_identity, read_tensors, resolve
from rdpbench.codecs import legacy
from rdpbench.codecs.contract import Rate
from rdpbench.codecs.learned.codec import LearnedCodec
from rdpbench.codecs.learned.systems import System, seeded
from rdpbench.errors import CodecError, MetricError, MissingNeed
from rdpbench.needs import Need, Package, package_version
from rdpbench.networks.clip import B32, SHAPES, TOKENS, build_clip, configuration, read_tokens
from rdpbench.networks.precision import one_thread

if TYPE_CHECKING:
    from torch import Tensor

LAMBDAS = (0.0004, 0.0008, 0.0016, 0.004, 0.009, 0.015)
"""By quality, from 1. The readme states the first alone."""
ABOUT = 154_000_000
"""Bytes of 38,579,275 parameters in single precision; sizes of the files are not published."""
HEADER = 28
"""Bytes that the official file has before its strings: seven numbers of 4."""


def checkpoint(quality: int) -> Weights:
    """The published checkpoint.

    >>> checkpoint(1).card.place
    'taco/0.0004.pth.tar'
    """
    trade_off = LAMBDAS[quality - 1]
    said = "" if quality == 1 else "; its name is assumed after that of the first"
    return Weights(
        Card(
            id=f"taco/lambda{trade_off:g}",
            source="https://drive.google.com/drive/folders/1zOLRtr3AMJ2KChCDjCeBicI871Pzw28K",
            revision="as linked by effl-lab/TACO at 004f488; open it with a browser",
            file=f"{trade_off:g}.pth.tar",
            sha256=None,
            bytes=ABOUT,
            licence="none stated, neither for the code nor for the weights: all rights reserved",
            note=f"TACO, lambda {trade_off:g}{said}; the size is that of the parameters, and the file may hold more",
            folder="taco",
        )
    )


@dataclass(frozen=True)
class TACO(LearnedCodec):
    """taco."""

    name: ClassVar[str] = "taco"
    rate: ClassVar[Rate] = Rate("quality", 1, 6, points=tuple(range(1, 7)))
    uses_caption: ClassVar[bool] = True
    needs: ClassVar[tuple[Need, ...]] = (Package("compressai"), Package("transformers"))

    quality: int = 1
    """Place of lambda among `LAMBDAS`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rate.check(self.name, self.quality)

    def published(self) -> Weights:
        return checkpoint(self.quality)

    def weight_needs(self) -> tuple[Need, ...]:
        own = super().weight_needs()
        return (*own, Weights(B32), Weights(TOKENS)) if own else ()

    def coder(self) -> dict[str, str]:
        """Its text tower codes, too."""
        text = card_identity(B32) if self.weights == "official" else self.weights
        return {**super().coder(), "transformers": package_version("transformers"), "text": text}

    def make(self) -> System:
        from rdpbench.codecs.learned.taco.network import TINY, Layout, Network, Taco, random_network

        if self.weights == "official":
            net = self.load(Network(Layout()))
            reader = official_reader(self.device, portable=self.portable)
        else:
            layout = TINY if self.weights == "random" else Layout()
            net = random_network(layout, self.quality, random_reader(layout.text))
            reader = random_reader(layout.text, self.device, portable=self.portable)
        return Taco(net, reader, device=self.device, portable=self.portable)

    def printed(self, strings: Mapping[str, bytes], height: int, width: int) -> Mapping[str, float]:  # noqa: ARG002 - the sizes take as many bytes in any image
        return {"framed": legacy.framed(strings.values(), HEADER)}


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
        tower = build_clip(SHAPES[B32.id], read_tensors(B32)).text_model
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

    from rdpbench.codecs.diffusion.bases import ENDS, letters

    words = [*letters(), *(f"{letter}</w>" for letter in letters()), *ENDS]
    return CLIPTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[])

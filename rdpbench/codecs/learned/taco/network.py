"""TACO's network: ELIC, whose encoder also looks at a caption, through a text adapter between its layers.

Names of modules are those of the published files (``fushion`` is theirs). What the files do not tell, and the official
code does: activations are ReLU; the injector continues from the *normalised* features, so that even with its gate at
zero it changes what goes on; anchors are where row and column differ in parity; padding tokens take part in attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rdpbench.assets.weights import Weights, read_tensors, require, resolve
from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.elic_network import Grouped, tame
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import seeded, untrained
from rdpbench.errors import CodecError, MetricError
from rdpbench.networks.clip import B32, SHAPES, TOKENS, build_clip, byte_tokens, configuration, ends, read_tokens
from rdpbench.networks.precision import one_thread

HEADS = 8


@dataclass(frozen=True)
class TacoLayout:
    """Channels of the transforms (N), of the latents by group (M in all), of the text, and between context layers."""

    width: int = 192
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)
    text: int = 512
    between: tuple[int, int] = (224, 128)

    @property
    def latents(self) -> int:
        """M."""
        return sum(self.groups)


TINY = TacoLayout(8, (2, 2, 4, 4, 8), 32, (8, 8))


class ResidualBottleneck(nn.Module):
    """Residual bottleneck (He et al. 2016): 1 x 1, 3 x 3 and 1 x 1 with half the channels between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        layers = nn.Conv2d(channels, half, 1), nn.Conv2d(half, half, 3, padding=1), nn.Conv2d(half, channels, 1)
        self.branch = _activated(*layers)

    def forward(self, planes: Tensor) -> Tensor:
        added: Tensor = self.branch(planes)
        return planes + added


class Adapter(nn.Module):
    """Attention between image and text, of so many channels; what has another number is projected to it."""

    def __init__(self, projected: str, others: int, channels: int) -> None:
        super().__init__()
        self.add_module(f"{projected}_feature_dim_proj", nn.Linear(others, channels))
        self.image_norm, self.text_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.cross_attn = nn.MultiheadAttention(channels, HEADS, batch_first=True)


class Injector(Adapter):
    """Text into image: each place attends to the tokens, ``LN(x) + gamma * attention``."""

    text_feature_dim_proj: nn.Linear

    def __init__(self, channels: int, text: int) -> None:
        super().__init__("text", text, channels)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, planes: Tensor, text: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, T, D)``."""
        places = self.image_norm(planes.flatten(2).transpose(1, 2))
        tokens = self.text_norm(self.text_feature_dim_proj(text))
        attended, _ = self.cross_attn(places, tokens, tokens, need_weights=False)
        injected: Tensor = places + self.gamma * attended
        return injected.transpose(1, 2).reshape(planes.shape)


class Extractor(Adapter):
    """Image into text: each token attends to the places, ``LN(t) + attention``."""

    image_feature_dim_proj: nn.Linear

    def __init__(self, channels: int, text: int) -> None:
        super().__init__("image", channels, text)

    def forward(self, planes: Tensor, text: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, T, D)``."""
        places = self.image_norm(self.image_feature_dim_proj(planes.flatten(2).transpose(1, 2)))
        tokens: Tensor = self.text_norm(text)
        attended: Tensor = self.cross_attn(tokens, places, places, need_weights=False)[0]
        return tokens + attended


class TacoNetwork(nn.Module):
    """The whole of it; `TacoSystem` codes with it."""

    def __init__(self, layout: TacoLayout) -> None:
        super().__init__()
        n, m = layout.width, layout.latents
        attention = compressai.layers.AttentionBlock
        adapters = Injector(n, layout.text), Extractor(n, layout.text), Injector(n, layout.text)
        down = [_down(3, n), *_three(n), _down(n, n), *_three(n), adapters[0], attention(n), _down(n, n), *_three(n)]
        down += [*adapters[1:], _down(n, m), attention(m)]
        up = [attention(m), _up(m, n), *_three(n), _up(n, n), attention(n), *_three(n)]
        up += [_up(n, n), *_three(n), _up(n, 3)]
        self.g_a = nn.ModuleDict({"analysis_transform": nn.Sequential(*down)})
        self.g_s = nn.ModuleDict({"synthesis_transform": nn.Sequential(*up)})
        self.h_a = nn.ModuleDict({"reduction": _activated(nn.Conv2d(m, n, 3, padding=1), _down(n, n), _down(n, n))})
        last = nn.ConvTranspose2d(m * 3 // 2, 2 * m, 3, padding=1)
        self.h_s = nn.ModuleDict({"increase": _activated(_up(n, m), _up(m, m * 3 // 2), last)})
        self.groups = layout.groups
        self.local_context = nn.ModuleList(_context(count, 2 * count) for count in self.groups)
        self.channel_context = nn.ModuleDict()
        self.entropy_parameters_anchor, self.entropy_parameters_nonanchor = nn.ModuleList(), nn.ModuleList()
        first, second = layout.between
        for number, count in enumerate(self.groups):
            known = 2 * m
            if number:
                sizes = [sum(self.groups[:number]), first, second, 2 * count]
                layers = _activated(*(_context(*pair) for pair in pairwise(sizes)))
                self.channel_context[str(number)] = nn.ModuleDict({"fushion": layers})
                known += 2 * count
            self.entropy_parameters_anchor.append(_parameters(known, 2 * count))
            self.entropy_parameters_nonanchor.append(_parameters(known + 2 * count, 2 * count))
        self.gaussian_conditional = compressai.entropy_models.GaussianConditional(None)
        self.entropy_bottleneck = compressai.entropy_models.EntropyBottleneck(n)

    def analysis(self, planes: Tensor, text: Tensor) -> Tensor:
        """y, ``(B, M, H / 16, W / 16)``, of images and the hidden states of their captions ``(B, T, D)``."""
        for layer in self.g_a["analysis_transform"].children():
            if isinstance(layer, Extractor):
                text = layer(planes, text)
            else:
                planes = layer(planes, text) if isinstance(layer, Injector) else layer(planes)
        return planes


class TacoSystem(Grouped):
    """TACO, ready to code: one string for y, each group predicted from all before."""

    anchors = 1

    def __init__(self, net: TacoNetwork, reader: CaptionReader, *, device: str = "cpu", portable: bool = False) -> None:
        models = net.entropy_bottleneck, net.gaussian_conditional
        super().__init__(net, *models, net.groups, device=device, portable=portable)
        self.reader = reader

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:
        captions = [side.caption for side in sides if side.caption is not None]
        if len(captions) != len(planes):
            raise CodecError("taco encodes an image with its caption, and got none; type captions=human, captions=ofa")
        y = self.net.analysis(planes, self.reader(captions).to(planes.dtype))
        return {"y": y, "z": self.net.h_a["reduction"](y)}

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.net.g_s["synthesis_transform"](latents.float())

    def section(self, number: int, half: int) -> str:  # noqa: ARG002 - all in one string
        return "y"

    def hyper(self, z: Tensor) -> Tensor:
        return self.net.h_s["increase"](z)

    def support(self, number: int, done: Sequence[Tensor], hyper: Tensor) -> Tensor:
        if not done:
            return hyper
        context = self.net.channel_context[str(number)]["fushion"](torch.cat(list(done), 1))
        return torch.cat([context, hyper], 1)

    def local(self, number: int, anchors: Tensor) -> Tensor:
        return self.net.local_context[number](anchors)

    def half_parameters(self, number: int, local: Tensor | None, support: Tensor) -> tuple[Tensor, Tensor]:
        if local is None:
            both = self.net.entropy_parameters_anchor[number]["fusion"](support)
        else:
            head = self.net.entropy_parameters_nonanchor[number]["fusion"]
            both = head(torch.cat([local, support], 1))
        scales, means = both.chunk(2, 1)
        return scales, means


def random_network(layout: TacoLayout, quality: int, reader: CaptionReader) -> TacoNetwork:
    """The module with seeded weights and tables; its rate grows with the quality, and captions matter."""
    net: TacoNetwork = untrained(lambda: TacoNetwork(layout))
    for layer in net.modules():
        if isinstance(layer, Injector):
            nn.init.ones_(layer.gamma)
    ends = zip(net.entropy_parameters_anchor, net.entropy_parameters_nonanchor, strict=True)
    heads = [[(anchors, 0), (others, 0)] for anchors, others in ends]
    transforms = net.g_a["analysis_transform"], (net.h_a, net.h_s), heads
    side = Side(caption="a photograph of colours")
    tame(TacoSystem(net, reader), quality, *transforms, side, leave_out=(Adapter,))
    return net


def _activated(*layers: nn.Module) -> nn.Sequential:
    """Layers with ReLU between them."""
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def _three(channels: int) -> list[nn.Module]:
    return [ResidualBottleneck(channels) for _ in range(3)]


def _down(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 5, stride=2, padding=2)


def _up(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1)


def _context(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 5, padding=2)


def _parameters(known: int, channels: int) -> nn.ModuleDict:
    sizes = [known, channels * 5 // 3, channels * 4 // 3, channels]
    layers = _activated(*(nn.Conv2d(*pair, 1) for pair in pairwise(sizes)))
    return nn.ModuleDict({"fusion": layers})


LENGTH = 38
"""Tokens of a caption, both ends and padding among them; longer ones are cut."""


class CaptionReader:
    """What the encoder knows of a caption, by ``transformers``' text model and tokenizer.

    That is the last hidden states of all tokens after the last norm; those of the padding too, as TACO attends to them.
    """

    def __init__(self, tower: Any, tokens: Any, *, device: str = "cpu", portable: bool = False) -> None:
        tower = tower.eval().requires_grad_(False).to(device)
        self.tower = tower.double() if portable else tower
        self.tokens, self.device = tokens, device

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """``(B, 38, D)``; one at a time, so that no caption depends on its neighbours."""
        with one_thread():
            return torch.cat([self._one(caption) for caption in captions])

    def _one(self, caption: str) -> Tensor:
        options = {"padding": "max_length", "max_length": LENGTH, "truncation": True, "return_tensors": "pt"}
        taken = self.tokens([caption], **options)
        inputs = {name: taken[name].to(self.device) for name in ("input_ids", "attention_mask")}
        return self.tower(**inputs).last_hidden_state


def official_reader(device: str = "cpu", *, portable: bool = False) -> CaptionReader:
    """CLIP ViT-B/32's, from its published files."""
    require((Weights(B32), Weights(TOKENS)))
    try:
        tower = build_clip(SHAPES[B32.id], read_tensors(B32)).text_model
    except MetricError as error:
        raise CodecError(str(error)) from error
    return CaptionReader(tower, read_tokens(resolve(TOKENS)), device=device, portable=portable)


def random_reader(width: int, device: str = "cpu", *, portable: bool = False) -> CaptionReader:
    """A seeded tower, of CLIP ViT-B/32's size if the width is its 512, else tiny, with tokens of single bytes."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes: dict[str, Any] = configuration(SHAPES[B32.id])["text_config"]
    if width != sizes["hidden_size"]:
        small = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
        sizes = {**sizes, **ends(len(byte_tokens())), **small, "num_attention_heads": 2}
    tower = seeded(lambda: CLIPTextModel(CLIPTextConfig(**sizes)))
    return CaptionReader(tower, byte_tokens(), device=device, portable=portable)

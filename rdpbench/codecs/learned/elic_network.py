"""CompressAI's ELIC, and how it and its relatives code latents: in groups of channels, each on a checkerboard.

A group's latents are coded in two halves. Those of the first (*anchors*) get their distributions from the hyperprior
and from groups that are done; those of the second also from the anchors around them. Ten steps whatever the size, so
that `portable` costs little here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder, tables_of
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import Frame, System, last_layer, picture, rescale, untrained


@dataclass(frozen=True)
class ElicLayout:
    """Channels of the transforms (N) and of the latents by group (M in all)."""

    width: int = 192
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)


TINY = ElicLayout(8, (2, 2, 4, 4, 8))


def take(planes: Tensor, parity: int) -> Tensor:
    """Half of a checkerboard, ``(..., H, W / 2)``: where ``(row + column) % 2 == parity``.

    >>> take(torch.arange(8).reshape(2, 4), 1).tolist()
    [[1, 3], [4, 6]]
    """
    rows = planes[..., 0::2, parity::2], planes[..., 1::2, 1 - parity :: 2]
    return torch.stack(rows, -2).flatten(-3, -2)


def put(half: Tensor, parity: int) -> Tensor:
    """`take` undone, ``(..., H, W)``, with zeros on the other half.

    >>> put(torch.tensor([[1, 3], [4, 6]]), 1).tolist()
    [[0, 1, 0, 3], [4, 0, 6, 0]]
    """
    planes = half.new_zeros(*half.shape[:-1], 2 * half.shape[-1])
    planes[..., 0::2, parity::2] = half[..., 0::2, :]
    planes[..., 1::2, 1 - parity :: 2] = half[..., 1::2, :]
    return planes


class Grouped(System):
    """A network that codes so; subclasses say which of its layers does what."""

    frame = Frame(64, fill="zero", place="corner")
    anchors: int
    """Parity of the half that comes first."""

    def __init__(
        self, net: Any, bottleneck: Any, gaussian: Any, groups: Sequence[int], *, device: str, portable: bool
    ) -> None:
        self.groups = tuple(groups)
        tables = tables_of(bottleneck), tables_of(gaussian)
        super().__init__(net, *tables, sum(groups), device=device, portable=portable)

    def sections(self, height: int, width: int) -> dict[str, int]:
        sections = {"z": super().sections(height, width)["z"]}
        for number, channels in enumerate(self.groups):
            for half in range(2):
                name = self.section(number, half)
                sections[name] = sections.get(name, 0) + channels * height * width // 512
        return sections

    def code_y(self, coder: Coder, z: Tensor, y: Tensor | None) -> Tensor:
        hyper, sizes = self.hyper(z), list(self.groups)
        values: Sequence[Tensor | None] = [None] * len(sizes) if y is None else torch.split(y, sizes, 1)
        done: list[Tensor] = []
        for number, group in enumerate(values):
            support = self.support(number, done, hyper)
            halves: list[Tensor] = []
            for half in range(2):
                parity = (self.anchors + half) % 2
                local = take(self.local(number, halves[0]), parity) if halves else None
                scales, means = self.half_parameters(number, local, take(support, parity))
                here = None if group is None else take(group, parity)
                coded = coder.gaussian(self.section(number, half), self.y, scales, means, here)
                halves.append(put(coded, parity))
            done.append(halves[0] + halves[1])
        return torch.cat(done, 1)

    @abstractmethod
    def section(self, number: int, half: int) -> str:
        """The string that half a group goes into."""

    @abstractmethod
    def hyper(self, z: Tensor) -> Tensor:
        """What the hyperprior tells of y, ``(1, C, H, W)``."""

    @abstractmethod
    def support(self, number: int, done: Sequence[Tensor], hyper: Tensor) -> Tensor:
        """What hyperprior and groups before tell of a group."""

    @abstractmethod
    def local(self, number: int, anchors: Tensor) -> Tensor:
        """What a group's anchors tell of the places around them."""

    @abstractmethod
    def half_parameters(self, number: int, local: Tensor | None, support: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means of half a group; for anchors there is nothing local."""


class ElicSystem(Grouped):
    """CompressAI's ``Elic2022Chandelier``: each half of a group is a string; a group sees the first and the last."""

    anchors = 0

    def __init__(self, net: Any, *, device: str = "cpu", portable: bool = False) -> None:
        self.contexts = net.latent_codec["y"]
        # All groups have the same tables.
        models = net.latent_codec["hyper"].entropy_bottleneck, self.contexts["y0"]["y"].gaussian_conditional
        super().__init__(net, *models, net.groups, device=device, portable=portable)

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        y = self.net.g_a(planes)
        return {"y": y, "z": self.net.latent_codec["hyper"].h_a(y)}

    def section(self, number: int, half: int) -> str:
        return f"y{number}-{('anchors', 'others')[half]}"

    def hyper(self, z: Tensor) -> Tensor:
        return self.net.latent_codec["hyper"].h_s(z)

    def support(self, number: int, done: Sequence[Tensor], hyper: Tensor) -> Tensor:
        if not done:
            return hyper
        before = done[0] if len(done) == 1 else torch.cat([done[0], done[-1]], 1)
        return torch.cat([self.contexts.channel_context[f"y{number}"](before), hyper], 1)

    def local(self, number: int, anchors: Tensor) -> Tensor:
        layer = self.contexts[f"y{number}"].context_prediction
        # The mask hides the half that is not coded yet, which is zero here anyway.
        return functional.conv2d(anchors, layer.weight * layer.mask, layer.bias, padding=2)

    def half_parameters(self, number: int, local: Tensor | None, support: Tensor) -> tuple[Tensor, Tensor]:
        if local is None:
            local = support.new_zeros(1, 2 * self.groups[number], *support.shape[2:])
        both = self.contexts[f"y{number}"].entropy_parameters(torch.cat([local, support], 1))
        means, scales = both.chunk(2, 1)
        return scales, means


def network(layout: ElicLayout) -> Any:
    """CompressAI's module, untrained."""
    return compressai.models.sensetime.Elic2022Chandelier(layout.width, sum(layout.groups), list(layout.groups))


def random_network(layout: ElicLayout, quality: int) -> Any:
    """The module with seeded weights and tables; its latents, and with them its rate, grow with the quality."""
    net = untrained(lambda: network(layout))
    system = ElicSystem(net)
    hyper = net.latent_codec["hyper"]
    # Means come before scales.
    heads = [[(system.contexts[f"y{group}"].entropy_parameters, count)] for group, count in enumerate(layout.groups)]
    tame(system, quality, net.g_a, (hyper.h_a, hyper.h_s), heads, Side())
    return net


@torch.no_grad()
def tame(
    system: Grouped,
    quality: int,
    analysis: nn.Module,
    hyper: tuple[nn.Module, nn.Module],
    heads: Sequence[Sequence[tuple[nn.Module, int]]],
    side: Side,
    leave_out: tuple[type, ...] = (),
) -> None:
    """Scale the last layers of a random network, so that its symbols are neither zero nor endless.

    Args:
        system: the network in single precision.
        quality: the deviation of the latents is about ``2 ** (quality - 2)``; in whole octaves, so that rates rise.
        analysis: its last layer before attention makes y.
        hyper: the transforms that make z of y, and what is known of y of z.
        heads: for each group the layers that make scales and means, for anchors and others if they differ, each with
            the first channel of the scales.
        side: what the encoder sees.
        leave_out: classes whose layers are not the last of the analysis, beside attention.
    """
    deviation = 2.0 ** (quality - 2)
    planes = picture()

    def latent(name: str) -> Tensor:
        return system.analyse(planes, [side])[name]

    layer = last_layer(analysis, (compressai.layers.AttentionBlock, *leave_out))
    rescale(layer, lambda: latent("y"), deviation)
    y = torch.round(latent("y"))
    rescale(last_layer(hyper[0]), lambda: latent("z"), 2)
    z = torch.round(latent("z"))
    rescale(last_layer(hyper[1]), lambda: system.hyper(z), 1)
    params = system.hyper(z)
    done: list[Tensor] = []
    for number, group in enumerate(torch.split(y, list(system.groups), 1)):
        support = system.support(number, done, params)
        for half, (head, first) in enumerate(heads[number]):
            local = system.local(number, group) if half or len(heads[number]) == 1 else None
            outputs = torch.cat(system.half_parameters(number, local, support))
            scales = slice(first, first + group.shape[1])
            rescale(last_layer(head), lambda: outputs, deviation, deviation, scales)  # noqa: B023 - called at once
        done.append(group)
    rescale(last_layer(getattr(system.net, system.synthesis)), lambda: system.synthesise(y), 0.25, 0.5)

"""CompressAI's ELIC, and how it and its relatives code latents: in groups of channels, each on a checkerboard.

A group's latents are coded in two halves. Those of the first (*anchors*) get their distributions from the hyperprior
and from groups that are done; those of the second also from the anchors around them. Ten steps whatever the size, so
that `portable` costs little here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder
from rdpbench.codecs.learned.frames import Frame
from rdpbench.codecs.learned.library import compressai
from rdpbench.codecs.learned.systems import last_layer, picture, rescale, seeded
from rdpbench.codecs.learned.tables import set_tables, tables_of


@dataclass(frozen=True)
class Layout:
    """Channels of the transforms (N) and of the latents by group (M in all)."""

    width: int = 192
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)


TINY = Layout(8, (2, 2, 4, 4, 8))


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


class Grouped(ABC):
    """A network that codes so, as a `System`; subclasses say which of its layers does what."""

    frame = Frame(64, fill="zero", place="corner")
    anchors: int
    """Parity of the half that comes first."""

    def __init__(
        self,
        net: Any,
        bottleneck: Any,
        gaussian: Any,
        groups: Sequence[int],
        *,
        device: str = "cpu",
        portable: bool = False,
    ) -> None:
        """Take the module over: it is moved to the device, and with ``portable`` to double precision but for g_s."""
        self.device, self.portable, self.groups = device, portable, tuple(groups)
        self.bottleneck, self.gaussian = tables_of(bottleneck), tables_of(gaussian)
        net = net.eval().requires_grad_(False).to(device)
        if portable:
            net.double()
            net.g_s.float()
        self.net = net

    def sections(self, height: int, width: int) -> dict[str, int]:
        """See `System`; z is a quarter of y in both directions."""
        out = {"z": len(self.bottleneck.rows) * height * width // 4096}
        for number, channels in enumerate(self.groups):
            for half in range(2):
                name = self.section(number, half)
                out[name] = out.get(name, 0) + channels * height * width // 512
        return out

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """See `System`."""
        shape = (len(self.bottleneck.rows), height // 64, width // 64)
        hyper = self.hyper(coder.factorized("z", self.bottleneck, shape, latents.get("z")))
        y, sizes = latents.get("y"), list(self.groups)
        values: Sequence[Tensor | None] = [None] * len(sizes) if y is None else torch.split(y, sizes, 1)
        done: list[Tensor] = []
        for number, group in enumerate(values):
            support = self.support(number, done, hyper)
            whole: Tensor | None = None
            for half in range(2):
                parity = (self.anchors + half) % 2
                local = None if whole is None else take(self.local(number, whole), parity)
                scales, means = self.parameters(number, local, take(support, parity))
                here = None if group is None else take(group, parity)
                found = put(coder.gaussian(self.section(number, half), self.gaussian, scales, means, here), parity)
                whole = found if whole is None else whole + found
            assert whole is not None
            done.append(whole)
        return torch.cat(done, 1)

    @abstractmethod
    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:
        """See `System`: y and z."""

    @abstractmethod
    def synthesise(self, latents: Tensor) -> Tensor:
        """See `System`."""

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
    def parameters(self, number: int, local: Tensor | None, support: Tensor) -> tuple[Tensor, Tensor]:
        """Scales and means of half a group; for anchors there is nothing local."""


class Elic(Grouped):
    """CompressAI's ``Elic2022Chandelier``: a string for each half of each group; a group sees the first and the last.

    The mask of the local context hides the half that is not coded yet, which is zero there anyway.
    """

    anchors = 0

    def __init__(self, net: Any, *, device: str = "cpu", portable: bool = False) -> None:
        """All groups have the same tables."""
        self.contexts = net.latent_codec["y"]
        models = net.latent_codec["hyper"].entropy_bottleneck, self.contexts["y0"]["y"].gaussian_conditional
        super().__init__(net, *models, net.groups, device=device, portable=portable)

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        y = self.net.g_a(planes)
        return {"y": y, "z": self.net.latent_codec["hyper"].h_a(y)}

    def synthesise(self, latents: Tensor) -> Tensor:
        planes: Tensor = self.net.g_s(latents.float())
        return planes

    def section(self, number: int, half: int) -> str:
        return f"y{number}-{('anchors', 'others')[half]}"

    def hyper(self, z: Tensor) -> Tensor:
        params: Tensor = self.net.latent_codec["hyper"].h_s(z)
        return params

    def support(self, number: int, done: Sequence[Tensor], hyper: Tensor) -> Tensor:
        if not done:
            return hyper
        before = done[0] if len(done) == 1 else torch.cat([done[0], done[-1]], 1)
        return torch.cat([self.contexts.channel_context[f"y{number}"](before), hyper], 1)

    def local(self, number: int, anchors: Tensor) -> Tensor:
        layer = self.contexts[f"y{number}"].context_prediction
        return functional.conv2d(anchors, layer.weight * layer.mask, layer.bias, padding=2)

    def parameters(self, number: int, local: Tensor | None, support: Tensor) -> tuple[Tensor, Tensor]:
        if local is None:
            local = support.new_zeros(1, 2 * self.groups[number], *support.shape[2:])
        both = self.contexts[f"y{number}"].entropy_parameters(torch.cat([local, support], 1))
        means, scales = both.chunk(2, 1)
        return scales, means


def network(layout: Layout) -> Any:
    """CompressAI's module, untrained."""
    return compressai.models.sensetime.Elic2022Chandelier(layout.width, sum(layout.groups), list(layout.groups))


def random_network(layout: Layout, quality: int) -> Any:
    """The module with seeded weights and tables; its latents, and with them its rate, grow with the quality."""
    net = seeded(lambda: network(layout)).eval()
    set_tables(net, {})
    system = Elic(net)
    hyper = net.latent_codec["hyper"]
    # Means come before scales.
    heads = [[(system.contexts[f"y{at}"].entropy_parameters, count)] for at, count in enumerate(layout.groups)]
    tame(system, quality, net.g_a, (hyper.h_a, hyper.h_s), heads, net.g_s, Side())
    return net


@torch.no_grad()
def tame(
    system: Grouped,
    quality: int,
    analysis: nn.Module,
    hyper: tuple[nn.Module, nn.Module],
    heads: Sequence[Sequence[tuple[nn.Module, int]]],
    synthesis: nn.Module,
    side: Side,
    leave_out: tuple[type, ...] = (),
) -> None:
    """Scale the last layers of a random network (`randomised`), so that its symbols are neither zero nor endless.

    Args:
        system: the network in single precision.
        quality: the deviation of the latents is about ``2 ** (quality - 2)``; in whole octaves, so that rates rise.
        analysis: its last layer before attention makes y.
        hyper: the transforms that make z of y, and what is known of y of z.
        heads: for each group the layers that make scales and means, for anchors and others if they differ, each with
            the first channel of the scales.
        synthesis: its last layer makes pixels.
        side: what the encoder sees.
        leave_out: classes whose layers are not the last of the analysis, beside attention.
    """
    deviation = 2.0 ** (quality - 2)
    planes = picture()
    skip = (compressai.layers.AttentionBlock, *leave_out)
    rescale(last_layer(analysis, skip), lambda: system.analyse(planes, [side])["y"], deviation)
    y = torch.round(system.analyse(planes, [side])["y"])
    rescale(last_layer(hyper[0]), lambda: system.analyse(planes, [side])["z"], 2)
    z = torch.round(system.analyse(planes, [side])["z"])
    rescale(last_layer(hyper[1]), lambda: system.hyper(z), 1)
    params = system.hyper(z)
    done: list[Tensor] = []
    for number, group in enumerate(torch.split(y, list(system.groups), 1)):
        support = system.support(number, done, params)
        for half, (head, first) in enumerate(heads[number]):
            local = system.local(number, group) if half or len(heads[number]) == 1 else None
            layer: Any = last_layer(head)
            rescale(layer, lambda: torch.cat(system.parameters(number, local, support)), deviation)  # noqa: B023 - called at once
            layer.bias[first : first + group.shape[1]] += deviation
        done.append(group)
    rescale(last_layer(synthesis), lambda: system.synthesise(y), 0.25)
    pixels: Any = last_layer(synthesis)
    pixels.bias += 0.5

"""LIC-TCM's network as a system: what is coded in which order, with real weights or random ones.

Imports torch; imported where a system is made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder
from rdpbench.codecs.learned.frames import Frame
from rdpbench.codecs.learned.randomised import last_layer, picture, rescale, seeded
from rdpbench.codecs.learned.tables import tables_of
from rdpbench.codecs.lic_tcm_network import Layout, Network

TINY = Layout(8, 20, 8, 5, (4, 8, 8, 8, 8, 4), 4, 8, 4, (12, 8))
"""The same network, narrow enough for tests."""


def random_network(layout: Layout, quality: int) -> Network:
    """The network with seeded weights; its latents, and with them its rate, grow with the quality."""
    net = seeded(lambda: Network(layout)).eval()
    deviation = 2.0 ** (quality / 2 - 1)
    with torch.no_grad():
        planes = picture()
        _rescale(net.g_a, planes, deviation)
        y = net.g_a(planes)
        _rescale(net.h_a, y, 2)
        z = torch.round(net.h_a(y))
        hypers = {}
        for side in ("mean", "scale"):
            transform = getattr(net, f"h_{side}_s")
            _rescale(transform, z, 1)
            hypers[side] = transform(z)
        done = torch.round(y).chunk(layout.slices, 1)
        for number in range(layout.slices):
            supports = {}
            for side, hyper in hypers.items():
                supports[side] = getattr(net, f"atten_{side}")[number](torch.cat([hyper, *done[:number]], 1))
                _rescale(getattr(net, f"cc_{side}_transforms")[number], supports[side], deviation / 2)
            net.cc_scale_transforms[number][-1].bias += deviation  # type: ignore[index]
            _rescale(net.lrp_transforms[number], torch.cat([supports["mean"], done[number]], 1), 0.5)
        _rescale(net.g_s, torch.round(y), 0.25)
        pixels: Any = last_layer(net.g_s)
        pixels.bias += 0.5
    return net


def _rescale(transform: nn.Module, given: Tensor, target: float) -> None:
    rescale(last_layer(transform), lambda: transform(given), target)


class Mixture:
    """The network, ready to code (`rdpbench.codecs.learned.systems.System`)."""

    frame = Frame(128)

    def __init__(self, net: Network, *, device: str = "cpu", portable: bool = False) -> None:
        """Take the module over: it is moved to the device, and with ``portable`` to double precision but for g_s."""
        self.device, self.portable, self.layout = device, portable, net.layout
        self.bottleneck, self.gaussian = tables_of(net.entropy_bottleneck), tables_of(net.gaussian_conditional)
        net = net.eval().requires_grad_(False).to(device)
        if portable:
            net.double()
            net.g_s.float()
        self.net = net
        self.estimates: list[float] | None = None

    def estimating(self) -> Mixture:
        """The same network, with a list of its own that gets the estimated bits of each image it encodes."""
        other = copy.copy(self)
        other.estimates = []
        return other

    def sections(self, height: int, width: int) -> dict[str, int]:
        """See `System`; z is a quarter of y in both directions, all slices of y are in one string."""
        return {"z": self.layout.hyper * height * width // 4096, "y": self.layout.latent * height * width // 256}

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """See `System`."""
        y = self.net.g_a(planes)
        return {"y": y, "z": self.net.h_a(y)}

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """See `System`: z, then y in slices of channels, each predicted from z and the slices before."""
        net, count = self.net, self.layout.slices
        z = coder.factorized("z", self.bottleneck, (self.layout.hyper, height // 64, width // 64), latents.get("z"))
        hyper_means, hyper_scales = net.h_mean_s(z), net.h_scale_s(z)
        slices = latents["y"].chunk(count, 1) if latents else [None] * count
        bits = 0.0 if self.estimates is None else _bits(net.entropy_bottleneck(z))
        done: list[Tensor] = []
        for number, given in enumerate(slices):
            support = net.atten_mean[number](torch.cat([hyper_means, *done], 1))
            means = net.cc_mean_transforms[number](support)
            scales = net.atten_scale[number](torch.cat([hyper_scales, *done], 1))
            scales = net.cc_scale_transforms[number](scales)
            quantised = coder.gaussian("y", self.gaussian, scales, means, given)
            if self.estimates is not None:
                bits += _bits(net.gaussian_conditional(quantised, scales, means))
            residual = 0.5 * torch.tanh(net.lrp_transforms[number](torch.cat([support, quantised], 1)))
            done.append(quantised + coder.exact(residual))
        if self.estimates is not None:
            self.estimates.append(bits)
        return torch.cat(done, 1)

    def synthesise(self, latents: Tensor) -> Tensor:
        """See `System`."""
        planes: Tensor = self.net.g_s(latents.float())
        return planes


def _bits(modelled: tuple[Tensor, Tensor]) -> float:
    """Of what an entropy model returns: values and their probabilities."""
    return -float(modelled[1].double().log2().sum())

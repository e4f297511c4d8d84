"""CompressAI's hyperprior networks as systems: factorized, scales, means and scales, autoregressive.

Latents of the autoregressive ones are coded along wavefronts instead of row by row. A latent depends on two rows above
and two columns to the left, so all with the same ``column + 3 row`` are computed together: 144 steps instead of 1536
for 512 x 768 pixels. Same distributions, same number of bits, another order in the string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdpbench.codecs.contract import Side
from rdpbench.codecs.learned.entropy import Coder
from rdpbench.codecs.learned.frames import Frame
from rdpbench.codecs.learned.tables import tables_of

if TYPE_CHECKING:
    from torch import Tensor

TAPS = [(row, column) for row in range(-2, 1) for column in range(-2, 3) if (row, column) < (0, 0)]
"""The twelve places around a latent that are coded before it."""


def network(architecture: str, channels: Sequence[int]) -> Any:
    """CompressAI's module, untrained."""
    from rdpbench.codecs.learned.library import compressai

    models = compressai.models
    classes = {
        "bmshj2018-factorized": models.FactorizedPrior,
        "bmshj2018-hyperprior": models.ScaleHyperprior,
        "mbt2018-mean": models.MeanScaleHyperprior,
        "mbt2018": models.JointAutoregressiveHierarchicalPriors,
        "cheng2020-anchor": models.Cheng2020Anchor,
        "cheng2020-attn": models.Cheng2020Attention,
    }
    return classes[architecture](*channels)


def random_network(architecture: str, channels: Sequence[int], quality: int) -> Any:
    """The module with seeded weights; its latents, and with them its rate, grow with the quality."""
    import torch

    from rdpbench.codecs.learned.library import compressai
    from rdpbench.codecs.learned.systems import last_layer, picture, rescale, seeded

    net = seeded(lambda: network(architecture, channels)).eval()
    deviation = 2.0 ** (quality / 2 - 1)
    with torch.no_grad():
        planes = picture()
        rescale(last_layer(net.g_a, (compressai.layers.AttentionBlock,)), lambda: net.g_a(planes), deviation)
        y = net.g_a(planes)
        if hasattr(net, "h_a"):
            rescale(last_layer(net.h_a), lambda: net.h_a(y), 2)
            z = torch.round(net.h_a(y))
            params: Any = last_layer(net.h_s)
            rescale(params, lambda: net.h_s(z), deviation)
            if hasattr(net, "context_prediction"):
                both = torch.cat([net.h_s(z), net.context_prediction(torch.round(y))], 1)
                params = last_layer(net.entropy_parameters)
                rescale(params, lambda: net.entropy_parameters(both), deviation)
            params.bias[: y.shape[1]] += deviation  # scales come before means
        rescale(last_layer(net.g_s), lambda: net.g_s(torch.round(y)), 0.25)
        pixels: Any = last_layer(net.g_s)
        pixels.bias += 0.5
    return net


class Hyperprior:
    """Any of the six networks, ready to code (`System`)."""

    frame = Frame(64)

    def __init__(self, net: Any, *, device: str = "cpu", portable: bool = False) -> None:
        """Take the module over: it is moved to the device, and with ``portable`` to double precision but for g_s."""
        from rdpbench.codecs.learned.library import compressai

        self.device, self.portable = device, portable
        models = compressai.models
        self.scales_only = isinstance(net, models.ScaleHyperprior) and not isinstance(net, models.MeanScaleHyperprior)
        self.hyper = hasattr(net, "h_s")
        self.context = hasattr(net, "context_prediction")
        self.bottleneck = tables_of(net.entropy_bottleneck)
        self.gaussian = tables_of(net.gaussian_conditional) if self.hyper else None
        if self.context:
            net.context_prediction.weight.data *= net.context_prediction.mask
        net = net.eval().requires_grad_(False).to(device)
        if portable:
            net.double()
            net.g_s.float()
        self.net = net

    def sections(self, height: int, width: int) -> dict[str, int]:
        """See `System`; z is a quarter of y in both directions."""
        channels = len(self.bottleneck.rows)
        if not self.hyper:
            return {"y": channels * height * width // 256}
        return {"z": channels * height * width // 4096, "y": self.net.M * height * width // 256}

    def analyse(self, planes: Tensor, sides: Sequence[Side]) -> dict[str, Tensor]:  # noqa: ARG002 - for those with text
        """y, and z where there is one; the scale hyperprior sees magnitudes only."""
        y = self.net.g_a(planes)
        if not self.hyper:
            return {"y": y}
        return {"y": y, "z": self.net.h_a(y.abs() if self.scales_only else y)}

    def code(self, coder: Coder, height: int, width: int, latents: Mapping[str, Tensor]) -> Tensor:
        """See `System`."""
        y, z = latents.get("y"), latents.get("z")
        channels = len(self.bottleneck.rows)
        if self.gaussian is None:
            return coder.factorized("y", self.bottleneck, (channels, height // 16, width // 16), y)
        params = self.net.h_s(coder.factorized("z", self.bottleneck, (channels, height // 64, width // 64), z))
        if self.scales_only:
            return coder.gaussian("y", self.gaussian, params, None, y)
        if not self.context:
            scales, means = params.chunk(2, 1)
            return coder.gaussian("y", self.gaussian, scales, means, y)
        return self._wavefronts(coder, params, y)

    def synthesise(self, latents: Tensor) -> Tensor:
        """See `System`."""
        planes: Tensor = self.net.g_s(latents.float())
        return planes

    def _wavefronts(self, coder: Coder, params: Tensor, y: Tensor | None) -> Tensor:
        """Code ``(1, M, H, W)`` in the order of ``column + 3 row``."""
        import torch
        from torch.nn import functional

        assert self.gaussian is not None
        height, width = params.shape[2:]
        layer = self.net.context_prediction
        kernel = torch.stack([layer.weight[:, :, 2 + row, 2 + column] for row, column in TAPS], 2).flatten(1)
        done = functional.pad(torch.zeros_like(params[0, : self.net.M]), (2, 2, 2, 0))
        down, along = (torch.tensor(offsets, device=self.device) for offsets in zip(*TAPS, strict=True))
        for step in range(width + 3 * (height - 1)):
            rows = torch.arange(max(0, -((width - 1 - step) // 3)), min(height - 1, step // 3) + 1, device=self.device)
            columns = step - 3 * rows
            before = done[:, 2 + rows[:, None] + down, 2 + columns[:, None] + along]
            context = functional.linear(before.permute(1, 0, 2).flatten(1), kernel, layer.bias)
            both = torch.cat([params[0, :, rows, columns], context.T])
            scales, means = self.net.entropy_parameters(both[None, :, :, None])[0, :, :, 0].chunk(2)
            here = None if y is None else y[0, :, rows, columns]
            done[:, 2 + rows, 2 + columns] = coder.gaussian("y", self.gaussian, scales, means, here)
        return done[None, :, 2:, 2:-2]

"""HED, holistically-nested edge detection: an image to a map of how sure a network is of an edge at each pixel.

Xie and Tu, ICCV 2015. The network is VGG16 without its head, a score after each of its five blocks, and their weighted
sum; the weights are those of the re-implementation that ControlNet's annotators use, trained on BSDS500.

The checkpoint calls ``moduleVggOne`` what the network calls ``netVggOne``. It wants 8-bit values in the order blue,
green, red with the mean colour of ImageNet taken out. The map is neither thinned nor thresholded, and made 8 bits by
dropping fractions: that is how ControlNet's training data was made, so the project's rounding does not apply.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.diffusion import tiny
from rdpbench.codecs.diffusion.loading import fill, on_meta, trainable
from rdpbench.codecs.diffusion.models import named, require, type_of
from rdpbench.image import Image, check_image
from rdpbench.weights import Card, Weights, read_file, resolve

if TYPE_CHECKING:
    from torch import Tensor

Grey: TypeAlias = NDArray[np.uint8]
"""``uint8 (H, W)``."""

CARD = Card(
    id="hed-bsds500",
    source="https://huggingface.co/lllyasviel/ControlNet/resolve/main/annotator/ckpts/network-bsds500.pth",
    revision="main",
    file="annotator/ckpts/network-bsds500.pth",
    sha256=None,
    bytes=0,
    licence="the page states OpenRAIL for ControlNet, and none for this file",
    note="HED trained on BSDS500, the edge maps of ControlNet and of Text+Sketch",
)
BLOCKS = (("One", 2, 64), ("Two", 2, 128), ("Thr", 3, 256), ("Fou", 3, 512), ("Fiv", 3, 512))
"""Name, convolutions and channels of each block."""
MEANS = (104.00698793, 116.66876762, 122.67891434)
"""Of blue, green and red."""


def network(narrow: int = 1) -> Any:
    """The modules, by the official names; their channels divided by ``narrow``."""
    from torch import nn

    made: dict[str, nn.Module] = {}
    before = 3
    for number, (name, count, width) in enumerate(BLOCKS):
        channels = width // narrow
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if number else []
        for _ in range(count):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        made[f"netVgg{name}"] = nn.Sequential(*layers)
        made[f"netScore{name}"] = nn.Conv2d(channels, 1, 1)
    made["netCombine"] = nn.Sequential(nn.Conv2d(len(BLOCKS), 1, 1), nn.Sigmoid())
    return nn.ModuleDict(made)


def forward(net: Any, planes: Tensor) -> Tensor:
    """Edges ``(B, 1, H, W)`` of [0, 1] for ``(B, 3, H, W)``: blue, green, red, of [0, 255], means taken out."""
    import torch
    from torch.nn.functional import interpolate

    size = planes.shape[2:]
    scores = []
    for name, _, _ in BLOCKS:
        planes = net[f"netVgg{name}"](planes)
        scores.append(interpolate(net[f"netScore{name}"](planes), size, mode="bilinear", align_corners=False))
    edges: Tensor = net["netCombine"](torch.cat(scores, dim=1))
    return edges


def edges(net: Any, image: Image) -> Grey:
    """The edge map ``uint8 (H, W)`` of an image; a side below 16 pixels is continued, as four blocks halve it."""
    import torch

    height, width = check_image(image, "HED: the image").shape[:2]
    pad = [(0, max(0, 16 - side)) for side in (height, width)]
    padded = np.pad(image, (*pad, (0, 0)), mode="edge")
    planes = torch.from_numpy(np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1))).float()
    planes = planes - torch.tensor(MEANS)[:, None, None]
    device = next(net.parameters()).device
    found: NDArray[np.float32] = forward(net, planes[None].to(device))[0, 0].cpu().numpy()
    return (found[:height, :width] * 255).clip(0, 255).astype(np.uint8)


def load(weights: str = "official", device: str = "cpu") -> Any:
    """The network; the same object as long as its file is the same.

    Raises:
        MissingNeed: the file is not on this machine.
        CodecError: it does not hold this network.
    """
    if weights == "official":
        require([Weights(CARD)])
    return _load(weights, device, named(CARD) if weights == "official" else "")


@lru_cache(maxsize=1)
@trainable
def _load(weights: str, device: str, file: str) -> Any:  # noqa: ARG001 - another file is another network
    if weights == "official":
        net = on_meta(network)
        return fill(net, read_file(resolve(CARD)), CARD.id, type_of("float32"), rename=official_name).to(device)
    net = tiny.draw(network(1 if weights == "random-full" else 16), seed=9, gain=2**0.5)
    # Scores of a size at which the sigmoid neither stays at a half nor at its ends.
    for name, _, _ in BLOCKS:
        net[f"netScore{name}"].weight.data /= 64
    return net.to(device)


def official_name(name: str) -> str:
    """A tensor's name in our network.

    >>> official_name("moduleVggOne.0.weight")
    'netVggOne.0.weight'
    """
    return "net" + name.removeprefix("module") if name.startswith("module") else name

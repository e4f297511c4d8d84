"""Inception-v3 as TensorFlow published it on 2015-12-05: the network of FID and KID, up to its last pooling (2048).

It is not torchvision's Inception: average pools leave the padding out of the mean, and the last block has a maximum
where the paper has a mean. The layers are torchvision's, the blocks are put together here, and the file that
pytorch-fid and torch-fidelity both load fills them strictly. The features are those of torch-fidelity and torchmetrics
bit for bit on a CPU; another number of images in a batch moves them by rounding (2e-6 of the largest).

The resizes to 299 x 299 (`clean`, `antialiased`, `plain`, `tf1`) take grey levels of [0, 255] as ``(n, 3, H, W)``,
8-bit or float32, give float32, and do not round in between; on photographs they lie 1 to 8 grey levels apart on
average, and give different FIDs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rdpbench.assets.load import load_strictly
from rdpbench.assets.weights import CARDS
from rdpbench.errors import MetricError
from rdpbench.lazy import Tensor, functional, torch

CARD = CARDS["inception-2015-12-05"]
DIM = 2048


def build_inception(tensors: Mapping[str, Tensor]) -> Any:
    """torchvision's layers filled with the file's tensors, in evaluation mode on the CPU; run it with `pool3`.

    Raises:
        MetricError: a tensor is missing, left over or of another shape.
    """
    from torchvision.models import inception_v3

    def empty() -> Any:
        return inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)

    return load_strictly(empty, tensors, CARD.id, error=MetricError)


def pool3(network: Any, images: Tensor) -> Tensor:
    """The last pooling layer ``(n, 2048)`` for images ``(n, 3, H, W)`` that are scaled already; 75 pixels at least."""
    x = network.Conv2d_2b_3x3(network.Conv2d_2a_3x3(network.Conv2d_1a_3x3(images)))
    x = functional.max_pool2d(x, 3, 2)
    x = network.Conv2d_4a_3x3(network.Conv2d_3b_1x1(x))
    x = functional.max_pool2d(x, 3, 2)
    for block in (network.Mixed_5b, network.Mixed_5c, network.Mixed_5d):
        x = _block_35(block, x)
    x = network.Mixed_6a(x)
    for block in (network.Mixed_6b, network.Mixed_6c, network.Mixed_6d, network.Mixed_6e):
        x = _block_17(block, x)
    x = network.Mixed_7a(x)
    x = _block_8(network.Mixed_7b, x, _mean(x))
    # Inception's authors meant a mean here too; the graph that they published, and thus FID, has the maximum.
    x = _block_8(network.Mixed_7c, x, functional.max_pool2d(x, 3, 1, 1))
    return functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)


def _mean(x: Tensor) -> Tensor:
    """Of each 3 x 3 neighbourhood, without the padding."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _block_35(block: Any, x: Tensor) -> Tensor:
    """At 35 x 35 (for 299 x 299 images)."""
    small = block.branch5x5_2(block.branch5x5_1(x))
    double = block.branch3x3dbl_3(block.branch3x3dbl_2(block.branch3x3dbl_1(x)))
    return torch.cat([block.branch1x1(x), small, double, block.branch_pool(_mean(x))], 1)


def _block_17(block: Any, x: Tensor) -> Tensor:
    """At 17 x 17."""
    cross = block.branch7x7_3(block.branch7x7_2(block.branch7x7_1(x)))
    double = block.branch7x7dbl_3(block.branch7x7dbl_2(block.branch7x7dbl_1(x)))
    double = block.branch7x7dbl_5(block.branch7x7dbl_4(double))
    return torch.cat([block.branch1x1(x), cross, double, block.branch_pool(_mean(x))], 1)


def _block_8(block: Any, x: Tensor, pooled: Tensor) -> Tensor:
    """At 8 x 8."""
    single = block.branch3x3_1(x)
    double = block.branch3x3dbl_2(block.branch3x3dbl_1(x))
    parts = [
        block.branch1x1(x),
        block.branch3x3_2a(single),
        block.branch3x3_2b(single),
        block.branch3x3dbl_3a(double),
        block.branch3x3dbl_3b(double),
        block.branch_pool(pooled),
    ]
    return torch.cat(parts, 1)


def clean(images: Tensor, side: int = 299) -> Tensor:
    """clean-fid's: bicubic (a = -0.5), antialiased: Pillow's on float images, within 0.00002 grey levels.

    >>> import torch
    >>> round(float(clean(torch.tensor([[[[0.0, 255.0]]]]).expand(1, 3, 2, 2), 3)[0, 0, 1, 1]), 3)
    127.5
    """
    # Pillow's weights are float64; with torch's of float32, photographs come out up to 0.004 grey levels away.
    resized = functional.interpolate(images.double(), (side, side), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255).float()  # bicubic weights overshoot at edges


def antialiased(images: Tensor, side: int = 299) -> Tensor:
    """torchmetrics' from 1.8 on, bit for bit: bilinear, antialiased.

    >>> import torch
    >>> round(float(antialiased(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0, 0]), 4)
    1.8929
    """
    return functional.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)


def plain(images: Tensor, side: int = 299) -> Tensor:
    """pytorch-fid's: bilinear without antialiasing; most pixels of a large image are never read.

    >>> import torch
    >>> float(plain(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0, 0])
    1.5
    """
    return functional.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)


def tf1(images: Tensor, side: int = 299) -> Tensor:
    """TensorFlow 1's, torch-fidelity's: bilinear, output pixel i at ``i * in / out``, which shifts the image.

    >>> import torch
    >>> tf1(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0].tolist()
    [0.0, 4.0]
    """
    top, bottom, down = _positions(images, images.shape[2], side)
    left, right, across = _positions(images, images.shape[3], side)
    # Same order of operations as in TensorFlow's kernel: across first, then down. Most images become smaller, thus rows
    # are picked before anything is computed, and each once.
    unique: Any = torch.unique(torch.cat([top, bottom]), return_inverse=True)
    needed, place = unique
    rows = images.index_select(2, needed)
    first = rows.index_select(3, left).float()
    lines = first.add_((rows.index_select(3, right).float() - first) * across)
    upper, lower = lines.index_select(2, place[:side]), lines.index_select(2, place[side:])
    return upper + (lower - upper) * down[:, None]


def _positions(images: Tensor, length: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two pixels that each output pixel lies between, and how far it is from the first."""
    # The factor is rounded to float32 before it multiplies, as in TensorFlow.
    places = torch.arange(side, dtype=torch.float32, device=images.device) * torch.tensor(length / side)
    first = places.long()
    return first, (first + 1).clamp_max(length - 1), places - first


def around_128(images: Tensor) -> Tensor:
    """``(x - 128) / 128``: the input of the 2015 graph, as TensorFlow, torch-fidelity and clean-fid scale it.

    >>> import torch
    >>> around_128(torch.tensor([0.0, 128.0, 255.0])).tolist()
    [-1.0, 0.0, 0.9921875]
    """
    return (images - 128) / 128

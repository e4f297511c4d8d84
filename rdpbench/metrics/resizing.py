"""The resizes to 299 x 299 that FID's implementations differ by: on the same images they give different FIDs.

All take grey levels of [0, 255] as ``(n, 3, H, W)``, 8-bit or float32, give float32 on the tensor's device, and do not
round in between. Measured on photographs, they lie 1 to 8 grey levels apart on average; none is a detail.

================  ====================================================================================
resize            is that of
================  ====================================================================================
``clean``         clean-fid: Pillow's bicubic on float images, widened when shrinking, clipped to [0, 255]
``antialiased``   torchmetrics from 1.8 on: bilinear, widened when shrinking
``plain``         pytorch-fid: bilinear between the nearest four pixels, pixel centres aligned
``tf1``           TensorFlow 1, torch-fidelity, torchmetrics before 1.8: bilinear, corners not centres
================  ====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Resize: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""Of a batch and the new side."""


def clean(images: Tensor, side: int = 299) -> Tensor:
    """Bicubic (a = -0.5) and antialiased, in float64: Pillow's on float images, within 0.00002 grey levels.

    Pillow's weights are float64; with torch's of float32, photographs come out up to 0.004 grey levels away.

    >>> import torch
    >>> round(float(clean(torch.tensor([[[[0.0, 255.0]]]]).expand(1, 3, 2, 2), 3)[0, 0, 1, 1]), 3)
    127.5
    """
    from torch.nn.functional import interpolate

    resized = interpolate(images.double(), (side, side), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp_(0, 255).float()  # bicubic weights overshoot at edges


def antialiased(images: Tensor, side: int = 299) -> Tensor:
    """Bilinear, antialiased; bit for bit torchmetrics' default from 1.8 on.

    >>> import torch
    >>> round(float(antialiased(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0, 0]), 4)
    1.8929
    """
    from torch.nn.functional import interpolate

    return interpolate(images.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)


def plain(images: Tensor, side: int = 299) -> Tensor:
    """Bilinear without antialiasing: most pixels of a large image are never read.

    >>> import torch
    >>> float(plain(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0, 0])
    1.5
    """
    from torch.nn.functional import interpolate

    return interpolate(images.float(), (side, side), mode="bilinear", align_corners=False)


def tf1(images: Tensor, side: int = 299) -> Tensor:
    """TensorFlow 1's bilinear: output pixel i is read at ``i * in / out``, which shifts the image; no antialiasing.

    >>> import torch
    >>> tf1(torch.arange(8.0).expand(1, 3, 8, 8), 2)[0, 0, 0].tolist()
    [0.0, 4.0]
    """
    import torch

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
    import torch

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

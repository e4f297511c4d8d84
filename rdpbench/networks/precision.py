"""How networks compute that give published numbers: full float32, and on a GPU the same bits twice.

The other way, `quick`, is for looking at a sweep before it is measured. What it gives has names of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exact() -> Iterator[None]:
    """Full float32 and cuDNN's repeatable algorithms within the block; the settings of before come back after it.

    GPUs otherwise round what convolutions multiply to 10 bits (TF32), by torch's default. CPUs are not touched.

    >>> import torch
    >>> with exact():
    ...     int(torch.backends.cudnn.allow_tf32)
    0
    """
    from torch.backends import cuda, cudnn

    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32 = before


@contextmanager
def quick() -> Iterator[None]:
    """TF32 and whatever algorithm cuDNN finds fastest within the block: metrics named ``.../fast``, no others.

    >>> import torch
    >>> with quick():
    ...     int(torch.backends.cudnn.allow_tf32)
    1
    """
    from torch.backends import cuda, cudnn

    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32 = True, False, True, True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32 = before

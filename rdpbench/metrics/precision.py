"""How networks compute that give published numbers: full float32, and on a GPU the same bits twice."""

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

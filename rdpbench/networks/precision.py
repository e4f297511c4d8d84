"""How numbers are computed: which switches of libraries make them exact, repeatable, or fast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rdpbench.lazy import torch


@contextmanager
def switched(*switches: tuple[Any, str, Any]) -> Iterator[None]:
    """Give attributes of objects other values within the block: ``(object, name, value)`` each.

    >>> with switched((os, "sep", ":")):
    ...     os.sep
    ':'
    """
    before = [getattr(place, name) for place, name, _ in switches]
    for place, name, value in switches:
        setattr(place, name, value)
    try:
        yield
    finally:
        for (place, name, _), value in zip(switches, before, strict=True):
            setattr(place, name, value)


def _on_gpus(*, exactly: bool) -> list[tuple[Any, str, bool]]:
    from torch.backends import cuda, cudnn

    # GPUs round what convolutions multiply to 10 bits (TF32), by torch's default.
    tf32 = [(cudnn, "allow_tf32", not exactly), (cuda.matmul, "allow_tf32", not exactly)]
    return [*tf32, (cudnn, "deterministic", exactly), (cudnn, "benchmark", not exactly)]


def exact() -> AbstractContextManager[None]:
    """Full float32 and cuDNN's repeatable algorithms within the block: for metrics. CPUs are not touched.

    >>> import torch
    >>> with exact():
    ...     int(torch.backends.cudnn.allow_tf32)
    0
    """
    return switched(*_on_gpus(exactly=True))


def quick() -> AbstractContextManager[None]:
    """TF32 and whatever algorithm cuDNN finds fastest within the block: metrics named ``.../fast``, no others.

    >>> import torch
    >>> with quick():
    ...     int(torch.backends.cudnn.allow_tf32)
    1
    """
    return switched(*_on_gpus(exactly=False))


@contextmanager
def reproducible() -> Iterator[None]:
    """As `exact`, without gradients, and torch refuses operations that it cannot repeat: for codecs."""
    # cuBLAS reads it when it starts; without it its sums depend on what else runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Filling memory is for debugging, and takes time.
    fill = (torch.utils.deterministic, "fill_uninitialized_memory", False)
    with switched(*_on_gpus(exactly=True), fill), torch.inference_mode():
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warns)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread inside torch's operations within the block, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""How a process that codes and scores is set up: one thread, and memory that is used again."""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``, as ``malloc.h`` numbers them."""
_BLOCK = 256 << 20
"""Blocks up to this size, in bytes, come from memory that the process keeps; twice as much of it may lie idle."""


def set_up() -> None:
    """Bind this process to one thread, and keep its memory; before anything is coded."""
    one_thread()
    reuse_memory()


def one_thread() -> None:
    """Bind this process to one thread: threads change pixels, and workers share the cores."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = "1"
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def reuse_memory() -> bool:
    """Keep freed blocks in the process; False where the C library is not glibc, and nothing was changed.

    By default every block above 32 MB goes back to the system when it is freed, and its pages are cleared and mapped
    again for the next one. A network's activations are such blocks: Inception takes a sixth longer for 16 images.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _BLOCK) and mallopt(_TRIM_THRESHOLD, 2 * _BLOCK))

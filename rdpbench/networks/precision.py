"""How numbers are computed: on which GPU, and which switches of libraries make them exact, repeatable, or fast."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rdpbench.errors import MissingNeed
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

    # By torch's defaults, GPUs round what convolutions multiply to 10 bits (TF32), and partial sums to half precision.
    tf32 = [(cudnn, "allow_tf32", not exactly), (cuda.matmul, "allow_tf32", not exactly)]
    reduced = [(cuda.matmul, f"allow_{kind}_reduced_precision_reduction", not exactly) for kind in ("fp16", "bf16")]
    return [*tf32, *reduced, (cudnn, "deterministic", exactly), (cudnn, "benchmark", not exactly)]


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
    repeat_sums()
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


def repeat_sums() -> None:
    """Let cuBLAS take one workspace: without it its sums depend on what else runs. It reads this when it starts."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


# GPUs


def devices_of(typed: Sequence[str]) -> tuple[str, ...]:
    """Devices by their numbers, each once: ``cuda`` is all GPUs that this process sees. CUDA is not started.

    >>> devices_of(["cuda:2", "cuda:0", "cuda:2"])
    ('cuda:2', 'cuda:0')
    """
    every = gpus() if "cuda" in typed else []
    return tuple(dict.fromkeys(name for device in typed for name in (device == "cuda" and every) or [device]))


def visible() -> int:
    """How many GPUs there are for this process, by ``CUDA_VISIBLE_DEVICES`` and by what torch counts.

    It may name several instances of GPUs that are split (MIG); a process sees the first of these only, and each worker
    is given another.

    Raises:
        MissingNeed: torch is not installed.
    """
    named = _named()
    return len(named) if named and named[0].startswith("MIG-") else int(torch.cuda.device_count())


def gpus() -> list[str]:
    """Those GPUs, as ``device=`` names them; none for an installation without torch."""
    try:
        return [f"cuda:{number}" for number in range(visible())]
    except MissingNeed:
        return []


def is_here(device: str) -> bool:
    """Is it a device that this process sees?

    >>> is_here("cpu"), is_here("cuda:999"), is_here("cuda:x")
    (True, False, False)
    """
    if device == "cpu":
        return True
    here = gpus()
    return device in here or (device == "cuda" and bool(here))


def _named() -> list[str]:
    return [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]


def see_only(device: str) -> str:
    """Let this process see one GPU alone, before CUDA starts; returns how the device is called here.

    ``CUDA_VISIBLE_DEVICES`` may name GPUs by numbers, by UUIDs, or as MIG instances: ``cuda:1`` is its second. What
    computes on no GPU sees what it saw.

    >>> see_only("cpu")
    'cpu'
    """
    repeat_sums()
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return device
    named, place = _named(), int(number or 0)
    os.environ["CUDA_VISIBLE_DEVICES"] = named[place] if place < len(named) else str(place)
    return "cuda:0"


def stay_exact() -> None:
    """As `exact`, from now on in this process: for what does not ask for something else, such as an own codec."""
    for owner, name, value in _on_gpus(exactly=True):
        setattr(owner, name, value)

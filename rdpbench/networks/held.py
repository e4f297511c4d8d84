"""The networks that this process holds: each is loaded once, and those of one codec at a time.

A codec begins (`begin`) when it is built. Its networks stay until another one loads its first: then all that the
other did not take over go, *before* anything is loaded, since two U-Nets at once are 7 GB. Of one kind there is one: at
another rate point, a codec's old weights go first, too. Networks of metrics stay: every image needs them all.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import inspect
import sys
import weakref
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from rdpbench.assets.weights import require
from rdpbench.lazy import torch
from rdpbench.needs import Need

Given = ParamSpec("Given")
Made = TypeVar("Made")
METRIC = "metric"
"""The kind of all networks of metrics; there may be any number of it."""


@dataclass
class _Held:
    kind: str
    network: Any
    owner: object


_held: dict[Hashable, _Held] = {}
_owner: object = None


def begin(owner: object) -> None:
    """From here on networks are loaded and used for ``owner``, which is equal to another if it is the same codec."""
    global _owner  # noqa: PLW0603 - a process does one thing at a time
    _owner = owner


def held(kind: str, key: Hashable, load: Callable[[], Made]) -> Made:
    """What ``load`` made for this key, if it is still here; else what it makes now, after others went.

    Args:
        kind: what it is used as, such as ``unet``: there is one of a kind.
        key: all that it depends on.
        load: what takes memory.

    >>> held("example", 1, lambda: 3), held("example", 1, lambda: 4), held("example", 2, lambda: 5)
    (3, 3, 5)
    """
    place = (kind, key)
    if place not in _held:
        _drop([other for other, entry in _held.items() if kind != METRIC and _is_past(entry, kind)])
        network = load()
        _held[place] = _Held(kind, network, _owner)
    _held[place].owner = _owner
    return _held[place].network


def _is_past(entry: _Held, kind: str) -> bool:
    return entry.kind != METRIC and (entry.kind == kind or entry.owner != _owner)


def forget() -> None:
    """Let go of all networks."""
    _drop(list(_held))


def _drop(places: list[Hashable]) -> None:
    if not places:
        return
    for place in places:
        del _held[place]
    gc.collect()  # a network that refers to itself would else wait for its turn
    if (loaded := sys.modules.get("torch")) and loaded.cuda.is_initialized():
        loaded.cuda.empty_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)  # workers keep what they free, for the next image; this is not for the next image


def trainable(loader: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let a loader make ordinary tensors even where torch infers only: others cannot be differentiated through."""

    @functools.wraps(loader)
    def outside(*args: Given.args, **options: Given.kwargs) -> Made:
        with torch.inference_mode(False), torch.no_grad():
            return loader(*args, **options)

    return outside


def once(files: Callable[..., Iterable[Need]]) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Hold what a loader made for its last arguments, as long as the files that it reads are the same.

    ``files`` takes the loader's arguments by name and says what it needs where these say ``weights="official"``; the
    loader raises `MissingNeed` if that is not on this machine. What it makes can be trained through (`trainable`).
    """

    def keeping(loader: Callable[Given, Made]) -> Callable[Given, Made]:
        @functools.wraps(loader)
        def loaded(*args: Given.args, **options: Given.kwargs) -> Made:
            given = inspect.signature(loader).bind(*args, **options)
            given.apply_defaults()
            needs = tuple(files(**given.arguments)) if given.arguments["weights"] == "official" else ()
            require(needs)
            # A network among the arguments must be able to go.
            plain = [arg if isinstance(arg, (str, int, float)) else weakref.ref(arg) for arg in given.args]
            key = (*plain, *(getattr(need, "named_identity", "") for need in needs))
            return held(f"{loader.__module__}.{loader.__qualname__}", key, lambda: trainable(loader)(*args, **options))

        return loaded

    return keeping

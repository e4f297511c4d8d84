"""Official state dicts into the real classes, strictly: every tensor used or named as dropped, every shape equal.

What differs between the years of these files is put right here: the ``module.`` of parallel training, CompressAI's
older names for the factorized model, tables that are baked, empty or absent (`tables`). Constants that the classes
set themselves (bounds, masks, pedestals) may be absent, as they are in older files; where they are there, they must be
those of the class. All else is refused, with the names of everything that does not fit.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rdpbench import weights
from rdpbench.codecs.learned.tables import NAMES, set_tables
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.weights import Card, Weights

if TYPE_CHECKING:
    from torch import Tensor

CONSTANTS = frozenset({"bound", "mask", "pedestal", "scale_bound", "target"})
TABLES = frozenset({*NAMES, "scale_table"})
WRAPPERS = ("state_dict", "model_state_dict", "network", "model")
SHOWN = 20


@dataclass(frozen=True)
class Checkpoint(Weights):
    """The need for a file of weights, whose name may carry the first digits of its hash.

    That is the convention of ``torch.hub``: ``name-7eb97409.pth.tar`` has a sha256 that begins with 7eb97409.
    """

    @property
    def digits(self) -> str:
        """First hex digits of the sha256, from the file's name; empty if it has none.

        >>> Checkpoint(Card("q1", "", "", "mbt2018-1-3f36cd77.pth.tar", None, 0, "", "")).digits
        '3f36cd77'
        """
        assert isinstance(self.card, Card)
        found = re.search(r"-([0-9a-f]{8,64})\.", self.card.file)
        return found[1] if found else ""

    @property
    def published(self) -> bool:
        """Does the publisher say which bytes these are?"""
        assert isinstance(self.card, Card)
        return bool(self.card.sha256 or self.digits)

    def missing(self) -> str | None:
        """As of all weights; a file whose hash begins otherwise than its name says is missing, too."""
        if text := super().missing():
            return text
        path = weights.resolve(self.card)
        _, _, found = weights.identity(self.card).rpartition(":")
        if found == "unknown":  # our cache cannot be written
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        if found.startswith(self.digits):
            return None
        return f"{path} is not the file that its name says: its sha256 is {found}\n{weights.how_to_get(self.card)}"


def identity_of(checkpoint: Checkpoint) -> str:
    """What enters keys: the sha256, ``unpinned:`` before it where only this machine vouches for it."""
    made = weights.identity(checkpoint.card)
    # The digits in the name are published: whatever passes them is no news on another machine.
    return f"sha256:{checkpoint.digits}" if checkpoint.digits and made.startswith("unpinned:") else made


def read(checkpoint: Checkpoint, wrapper: str = "", allow: Collection[Any] = ()) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, without pickled code.

    Args:
        checkpoint: the file.
        wrapper: name of the entry that holds the tensors; by default the usual ones are looked for.
        allow: further classes that may be in the file, such as ``argparse.Namespace``; they hold settings, and are
            thrown away.

    Raises:
        MissingNeed: the file is not here, or not the one its card or name says.
        CodecError: no tensors by name are found in it.
    """
    import torch

    if text := checkpoint.missing():
        raise MissingNeed(text)
    path = weights.resolve(checkpoint.card)
    if path.suffix == ".safetensors":
        return weights.read_tensors(checkpoint.card)
    try:
        with torch.serialization.safe_globals(list(allow)):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CodecError(f"{path.name} holds more than tensors and was not opened: {error}") from error
    return state_dict(loaded, path.name, wrapper)


def state_dict(loaded: Any, what: str, wrapper: str = "") -> dict[str, Tensor]:
    """The tensors by name inside what a file holds.

    Raises:
        CodecError: there are none; the message lists what there is.
    """
    import torch

    names = [wrapper] if wrapper else [name for name in WRAPPERS if isinstance(loaded, Mapping) and name in loaded]
    inner = loaded.get(names[0]) if names and isinstance(loaded, Mapping) else loaded
    if not isinstance(inner, Mapping) or not inner or not all(isinstance(one, torch.Tensor) for one in inner.values()):
        held = ", ".join(map(str, list(loaded)[:SHOWN])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CodecError(f"{what} holds no tensors by name; it holds: {held}")
    return {str(name): tensor for name, tensor in inner.items()}


def modern(name: str) -> str:
    """A tensor's name as the classes of today have it.

    >>> modern("module.entropy_bottleneck._matrix0"), modern("entropy_bottleneck._biases.3")
    ('entropy_bottleneck.matrices.0', 'entropy_bottleneck.biases.3')
    """
    name = name.removeprefix("module.")
    old = re.fullmatch(r"(.*\.|)_(matrix|matrices\.|bias|biases\.|factor|factors\.)(\d+)", name)
    if not old:
        return name
    new = {"m": "matrices", "b": "biases", "f": "factors"}[old[2][0]]
    return f"{old[1]}{new}.{old[3]}"


def fit(
    network: Any,
    tensors: Mapping[str, Tensor],
    what: str,
    *,
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
    rebuild: bool = False,
) -> dict[str, str]:
    """Load a state dict into a network, in place; returns where its tables come from (`set_tables`).

    Args:
        network: a module on the CPU in single precision.
        tensors: from `read`.
        what: the checkpoint's id, for messages.
        rename: from a name in the file (after `modern`) to the name in the network.
        drop: patterns of names that are dropped on purpose, ``discriminator.*``; matched before ``rename``.
        rebuild: build the tables even where the file has some.

    Raises:
        CodecError: tensors that are missing, left over, of another shape or kind; all are named.
    """
    import torch

    given: dict[str, Tensor] = {}
    twice: list[str] = []
    for old, tensor in tensors.items():
        name = modern(old)
        if any(fnmatchcase(name, pattern) for pattern in drop):
            continue
        name = rename(name)
        twice += [name] if name in given else []
        given[name] = tensor
    wanted = network.state_dict()
    problems = [f"{name} is there twice" for name in twice] + _problems(wanted, given)
    if problems:
        raise CodecError("\n  ".join([f"the tensors of {what} do not fit its network:", *problems]))
    loaded = {name: tensor for name, tensor in given.items() if _last(name) not in TABLES | CONSTANTS}
    torch.nn.Module.load_state_dict(network, {**wanted, **loaded}, strict=True)
    return set_tables(network, {name: one for name, one in given.items() if _last(name) in TABLES}, rebuild=rebuild)


def _problems(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    free = TABLES | CONSTANTS
    required = {name: one for name, one in wanted.items() if _last(name) not in free}
    missing = [f"{name} {tuple(one.shape)} is missing" for name, one in required.items() if name not in given]
    extra = [f"{name} {tuple(one.shape)} has no place" for name, one in given.items() if name not in wanted]
    wrong = []
    for name in wanted.keys() & given.keys():
        new, old = wanted[name], given[name]
        if _last(name) in TABLES:
            continue
        if new.shape != old.shape:
            wrong.append(f"{name} is {tuple(old.shape)}, must be {tuple(new.shape)}")
        elif new.is_floating_point() != old.is_floating_point():
            wrong.append(f"{name} is {old.dtype}, must be {new.dtype}")
        elif _last(name) in CONSTANTS and not bool((new - old).abs().max() <= 1e-6 * new.abs().max()):
            wrong.append(f"{name} is a constant of the class and has another value")
    return [*missing, *extra, *sorted(wrong)]


def _last(name: str) -> str:
    return name.rpartition(".")[2]

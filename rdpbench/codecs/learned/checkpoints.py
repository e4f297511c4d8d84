"""State dicts into the real classes, strictly: every tensor used or named as dropped, every shape equal.

What differs between files is put right here: nested entries, prefixes of training frameworks, half precision,
CompressAI's older names for the factorized model, tables that are baked, empty or absent (`tables`). Constants that
the classes set themselves (bounds, masks, pedestals) may be absent, as they are in older files; where they are there,
they must be those of the class. All else is refused, with the names of what does not fit.

**Which tensors.** A file may nest its tensors under any names (``state_dict``, ``model.ema``), and a set of tensors may
stand under any prefix (``model.``, ``_orig_mod.``, ``ema.module.``). A set of weights of a network is one that has at
least half of its tensors by name. If there are several, as with an exponential moving average beside the last step,
none is taken until ``weights_key=`` names one: which one is meant changes the result, and no file says it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdpbench.assets import weights
from rdpbench.assets.weights import Card, Weights
from rdpbench.codecs.learned.tables import NAMES, set_tables
from rdpbench.errors import CodecError, MissingNeed
from rdpbench.needs import Need

if TYPE_CHECKING:
    from torch import Tensor

CONSTANTS = frozenset({"bound", "mask", "pedestal", "scale_bound", "target"})
TABLES = frozenset({*NAMES, "scale_table"})
COUNTERS = frozenset({"n_averaged", "num_updates", "decay"})
"""What an average of weights keeps beside them."""
SHOWN = 20


@dataclass(frozen=True)
class Checkpoint(Weights):
    """The need for a published file of weights, whose name may carry the first digits of its hash.

    That is the convention of ``torch.hub``: ``name-7eb97409.pth.tar`` has a sha256 that begins with 7eb97409.
    """

    key: str = ""
    """Which set of weights in the file, where it holds several."""

    @property
    def id(self) -> str:
        """The card's, for messages."""
        return self.card.id

    @property
    def path(self) -> Path:
        """Where the file is."""
        return weights.resolve(self.card)

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

    @property
    def identity(self) -> str:
        """What enters keys: the sha256, ``unpinned:`` before it where only this machine vouches for it."""
        made = weights.identity(self.card)
        # The digits in the name are published: whatever passes them is no news on another machine.
        return f"sha256:{self.digits}" if self.digits and made.startswith("unpinned:") else made

    def missing(self) -> str | None:
        """As of all weights; a file whose hash begins otherwise than its name says is missing, too."""
        if text := super().missing():
            return text
        found = weights.sha256_of(self.path)
        if found.startswith(self.digits):
            return None
        return f"{self.path} is not the file that its name says: its sha256 is {found}\n{weights.how_to_get(self.card)}"


@dataclass(frozen=True)
class Own(Need):
    """The need for a file of the user's own weights."""

    file: str
    key: str = ""
    """Which set of weights in it, where it holds several."""
    published = False

    @property
    def id(self) -> str:
        """Its path, for messages."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.file).expanduser()

    @property
    def identity(self) -> str:
        """What enters keys: the sha256 of the content and what is taken of it, never a name of the file."""
        if not self.path.is_file():
            return "missing"
        return f"own:{weights.sha256_of(self.path)}" + (f":{self.key}" if self.key else "")

    def missing(self) -> str | None:
        """None if it is there."""
        if self.path.is_file():
            return None
        if self.path.is_dir():
            held = ", ".join(sorted(path.name for path in self.path.iterdir())[:SHOWN])
            return f"{self.path} is a folder, where one file of weights is needed; it holds {held or 'nothing'}"
        beside = [path.name for path in self.path.parent.iterdir()] if self.path.parent.is_dir() else []
        near = difflib.get_close_matches(self.path.name, beside, 1)
        return f"no such file: {self.path}" + (f"; did you mean {self.path.with_name(near[0])}?" if near else "")


def read(source: Checkpoint | Own) -> Any:
    """What the file of a source holds: tensors by name, or what these are nested in.

    See `rdpbench.assets.weights.read_file`.

    Raises:
        MissingNeed: the file is not here, or not the one its card or name says.
        CodecError: it is damaged, or holds more than tensors.
    """
    if text := source.missing():
        raise MissingNeed(text)
    return weights.read_file(source.path)


def modern(name: str) -> str:
    """A tensor's name as the classes of today have it, without what parallel training and compiling put before it.

    >>> modern("module._orig_mod.entropy_bottleneck._matrix0"), modern("entropy_bottleneck._biases.3")
    ('entropy_bottleneck.matrices.0', 'entropy_bottleneck.biases.3')
    """
    name = re.sub(r"^(module\.|_orig_mod\.)+", "", name).replace("._orig_mod.", ".")
    old = re.fullmatch(r"(.*\.|)_(matrix|matrices\.|bias|biases\.|factor|factors\.)(\d+)", name)
    if not old:
        return name
    new = {"m": "matrices", "b": "biases", "f": "factors"}[old[2][0]]
    return f"{old[1]}{new}.{old[3]}"


def shape_of(loaded: Any, ending: str) -> tuple[int, ...] | None:
    """Shape of the first tensor of a file whose name ends so; None if there is none.

    It tells how wide a network is before it is built.
    """
    for _, tensors in _nested(loaded):
        for name, tensor in tensors.items():
            if f".{name}".endswith(f".{ending}"):
                return tuple(tensor.shape)
    return None


def _nested(loaded: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All tensors by name of a file, by where they are nested."""
    import torch

    if not isinstance(loaded, Mapping):
        return
    if tensors := {str(name): one for name, one in loaded.items() if isinstance(one, torch.Tensor)}:
        yield path, tensors
    for name, inner in loaded.items():
        yield from _nested(inner, f"{path}.{name}" if path else str(name))


@dataclass(frozen=True, eq=False)
class _Set:
    """Tensors of a file that have names of a network's behind one prefix."""

    name: str
    tensors: dict[str, Tensor]
    """By today's names without the prefix, twice where two become one."""
    twice: tuple[str, ...]
    hits: int


def _sets(loaded: Any, wanted: Collection[str], rename: Callable[[str], str]) -> list[_Set]:
    """Every set of a file that has a name of the network's, those with most of them first."""
    # Averages of latent diffusion's trainers have names without dots.
    dotless = {name.replace(".", ""): name for name in wanted}
    found = []
    for path, held in _nested(loaded):
        hits: dict[str, set[str]] = {}
        for full in held:
            name = modern(full)
            for at in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
                if rename(modern(name[at:])) in wanted or name[at:] in dotless:
                    hits.setdefault(name[:at], set()).add(full)
        whole = [prefix for prefix, names in hits.items() if 2 * len(names) >= len(wanted)]
        seen: set[str] = set()
        for prefix in sorted(hits, key=len):
            # The same tensors behind a longer prefix that the codec's own renaming drops are no second set.
            if hits[prefix] <= seen:
                continue
            seen |= hits[prefix]
            others = tuple(other for other in whole if other.startswith(prefix) and not hits[other] <= hits[prefix])
            tensors: dict[str, Tensor] = {}
            twice = []
            for full, tensor in held.items():
                if (name := modern(full)).startswith(prefix) and not name.startswith(others):
                    name = modern(name.removeprefix(prefix))
                    name = dotless.get(name, name)
                    twice += [name] if name in tensors else []
                    tensors[name] = tensor
            shown = ".".join(part for part in (path, prefix.rstrip(".")) if part) or "."
            found.append(_Set(shown, tensors, tuple(twice), len(hits[prefix])))
    return sorted(found, key=lambda one: -one.hits)


def _choose(loaded: Any, wanted: Collection[str], what: str, key: str, rename: Callable[[str], str]) -> _Set:
    sets = _sets(loaded, wanted, rename)
    whole = [one for one in sets if 2 * one.hits >= len(wanted)]
    if key:
        named = [one for one in sets if one.name == key or one.name.startswith(f"{key}.")]
        named = [one for one in named if one in whole] or named
        if len(named) == 1 or (named and named[0].hits > named[1].hits):
            return named[0]
        held = ", ".join(dict.fromkeys(one.name for one in named or whole or sets)) or "none"
        near = difflib.get_close_matches(key, [one.name for one in sets], 1)
        guess = f"; did you mean {near[0]!r}?" if near and not named else ""
        raise CodecError(
            f"weights_key={key!r} names {'several sets' if named else 'no set'} of weights in {what}{guess}; "
            f"those that it holds: {held}"
        )
    if len(whole) > 1:
        names = [one.name for one in whole]
        raise CodecError(
            f"{what} holds {len(names)} sets of weights for this network: {', '.join(names)}; "
            f"say which: codec.options.checkpoint=FILE codec.options.weights_key={names[-1]}"
        )
    if sets:
        return sets[0]
    best = max(_nested(loaded), key=lambda one: len(one[1]), default=None)
    if best is None:
        held = ", ".join(map(str, list(loaded)[:SHOWN])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CodecError(f"{what} holds no tensors by name; it holds: {held or 'nothing'}")
    return _Set(best[0], {modern(name): one for name, one in best[1].items()}, (), 0)


@dataclass(frozen=True, eq=False)
class Matched:
    """Tensors of a file under the names of a network, all of its shapes."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = field(default=())
    """What was done to them that a reader of results should know."""


def match(
    network: Any,
    loaded: Any,
    what: str,
    *,
    key: str = "",
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
    spread: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Matched:
    """The tensors of a file for a network.

    Args:
        network: a module; nothing is put into it.
        loaded: what a file holds (`read`).
        what: the file, for messages.
        key: which set of weights, where there are several.
        rename: from a name in the file (after `modern`) to the name in the network.
        drop: patterns of names that are dropped on purpose, ``discriminator.*``; matched before ``rename``.
        spread: from the tensors of a file, by their names there, to those that the network needs.

    Raises:
        CodecError: two sets of weights, tensors that are missing, left over, of another shape or kind, or no numbers.
    """
    wanted = network.state_dict()
    required = {name for name in wanted if _last(name) not in TABLES | CONSTANTS} or set(wanted)
    chosen = _choose(loaded, required, what, key, rename)
    given: dict[str, Tensor] = {}
    twice = [f"{name} is there twice" for name in chosen.twice]
    for old, tensor in spread(chosen.tensors).items():
        if any(fnmatchcase(old, pattern) for pattern in drop):
            continue
        name = rename(old)
        if name not in wanted and _last(name) in COUNTERS:
            continue
        twice += [f"{name} is there twice"] if name in given else []
        given[name] = tensor
    _check_fit(wanted, given, twice, what)
    _check_numbers(given, what)
    notes = []
    if chosen.name != "." and key:
        notes.append(f"weights of {chosen.name}")
    kinds = {str(one.dtype).removeprefix("torch.") for one in given.values() if one.is_floating_point()}
    if other := sorted(kinds - {"float32"}):
        notes.append(f"{' and '.join(other)} converted to float32")
    return Matched(given, tuple(notes))


def _check_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], twice: list[str], what: str) -> None:
    """Raise `CodecError` with everything that does not fit."""
    extra = {name: one for name, one in given.items() if name not in wanted}
    missing = [name for name in wanted if name not in given and _last(name) not in TABLES | CONSTANTS]
    lost = []
    for number, name in enumerate(missing):
        same = [other for other, one in extra.items() if one.shape == wanted[name].shape] if number < SHOWN else []
        near = difflib.get_close_matches(name, same, 1)
        lost.append(f"{name} {tuple(wanted[name].shape)} is missing" + (f"; nearest: {near[0]}" if near else ""))
    left = [f"{name} {tuple(one.shape)} has no place" for name, one in extra.items()]
    wrong = sorted(
        f"{name} {why}" for name in wanted.keys() & given.keys() if (why := _unlike(name, wanted[name], given[name]))
    )
    kinds = {"missing": lost, "without a place": left, "of another shape or kind": wrong, "there twice": twice}
    if not any(kinds.values()):
        return
    lines = [f"the tensors of {what} do not fit its network:"]
    for kind, some in kinds.items():
        lines += some[:SHOWN] + ([f"and {len(some) - SHOWN} more {kind}"] if len(some) > SHOWN else [])
    raise CodecError("\n  ".join(lines))


def _unlike(name: str, new: Tensor, old: Tensor) -> str:
    """Why a tensor of a file cannot be that of the network; empty if it can."""
    if _last(name) in TABLES:
        return ""
    if new.shape != old.shape:
        return f"is {tuple(old.shape)}, must be {tuple(new.shape)}"
    if new.is_floating_point() != old.is_floating_point():
        return f"is {old.dtype}, must be {new.dtype}"
    # A network in half precision has its constants in half precision, too.
    if _last(name) in CONSTANTS and not new.is_meta:
        there = new.to(old.dtype).double()
        if not bool((there - old.double()).abs().max() <= 1e-6 * there.abs().max()):
            return "is a constant of the class and has another value"
    return ""


def _check_numbers(given: Mapping[str, Tensor], what: str) -> None:
    import torch

    bad = [
        f"{name} ({int((~torch.isfinite(one)).sum())} of {one.numel()})"
        for name, one in given.items()
        if one.is_floating_point()
        and not one.is_meta
        and _last(name) not in CONSTANTS
        and not bool(torch.isfinite(one).all())
    ]
    if bad:
        more = f" and {len(bad) - 3} tensors more" if len(bad) > 3 else ""
        raise CodecError(f"{what} holds NaN or infinite values: in {', '.join(bad[:3])}{more}; its training diverged")


def fit(
    network: Any,
    loaded: Any,
    what: str,
    *,
    key: str = "",
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
    spread: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
    rebuild: bool = False,
    stale: str = "refuse",
) -> dict[str, str]:
    """Load a state dict into a network, in place; returns where its tables come from (`set_tables`).

    What was done on the way is left as ``network.notes``.

    Args:
        network: a module on the CPU in single precision.
        loaded: from `read`.
        what: the checkpoint's id, for messages.
        key: see `match`, as for ``rename``, ``drop`` and ``spread``.
        rename: see there.
        drop: see there.
        spread: see there.
        rebuild: build the tables even where the file has some.
        stale: what happens to tables of the file that are not those of its parameters; see `set_tables`.

    Raises:
        CodecError: see `match`; tables that are none, or not those of the parameters.
    """
    import torch

    found = match(network, loaded, what, key=key, rename=rename, drop=drop, spread=spread)
    own = {name: one for name, one in found.tensors.items() if _last(name) not in TABLES | CONSTANTS}
    torch.nn.Module.load_state_dict(network, {**network.state_dict(), **own}, strict=True)
    given = {name: one for name, one in found.tensors.items() if _last(name) in TABLES}
    made = set_tables(network, given, rebuild=rebuild, stale=stale, what=what)
    told = [f"tables of {name} {how}" for name, how in made.items() if how not in ("baked", "rebuilt")]
    network.notes = (*found.notes, *told)
    return {name: how.partition(",")[0] for name, how in made.items()}


def _last(name: str) -> str:
    return name.rpartition(".")[2]

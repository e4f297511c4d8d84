"""Read files of weights without running code in them, and load their tensors into a network, strictly.

Strictly means: every tensor is used or named as dropped, every shape is equal.

What differs between files is put right here: nested entries, prefixes of training frameworks, half precision,
CompressAI's older names for the factorized model. Constants that classes set themselves (bounds, masks, pedestals) may
be absent; where they are there, they must be those of the class. All else is refused, with the names of what is wrong.

**Which tensors.** A file may nest its tensors under any names (``state_dict``, ``model.ema``), and a set of tensors may
stand under any prefix (``model.``, ``_orig_mod.``, ``ema.module.``). A set of weights of a network is one that has at
least half of its tensors by name. If there are several, as with an exponential moving average beside the last step,
none is taken until ``weights_key=`` names one: which one is meant changes the result, and no file says it.
"""

from __future__ import annotations

import contextlib
import difflib
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rdpbench.errors import CodecError, RdpbenchError
from rdpbench.lazy import Tensor, torch

CONSTANTS = frozenset({"bound", "mask", "pedestal", "scale_bound", "target"})
TABLES = frozenset({"_quantized_cdf", "_cdf_length", "_offset", "scale_table"})
"""Of entropy models: a file may lack them, or have others (`rdpbench.codecs.learned.entropy`)."""
ABSENT = CONSTANTS | TABLES | {"num_batches_tracked"}
"""What a file may lack; the last counts the steps of a training."""
COUNTERS = frozenset({"n_averaged", "num_updates", "decay"})
"""What an average of weights keeps beside them."""
POSITIONS = "*position_ids"
"""Numbers of positions, in files of before transformers 4.31; in no file of today."""
SHOWN = 20


class Inert:
    """Stands for an object of any class in a file: keeps its attributes, and calls nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update({str(name): value for name, value in state.items()})

    def __setitem__(self, name: object, value: object) -> None:
        self.__dict__[str(name)] = value


HARMLESS = frozenset(
    {
        "argparse.Namespace",
        "types.SimpleNamespace",
        *(f"pathlib.{part}{kind}Path" for part in ("", "_local.") for kind in ("", "Posix", "Windows", "PurePosix")),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        "numpy.dtype",
        "numpy.ndarray",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    }
)
"""Classes of what training scripts leave beside tensors, settings and a best loss. They are read as `Inert`."""


def read_file(path: Path, *, inert: bool = False) -> Any:
    """What a file of weights holds, on the CPU: tensors by name, or what they are nested in. No code of it runs.

    Objects of classes that are not `HARMLESS` raise `CodecError`, as damage does; with ``inert`` those of any class are
    read as `Inert`, and a large file is mapped.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CodecError(f"{path} is damaged, or no safetensors file: {error}") from error
    modern = zipfile.is_zipfile(path)
    try:
        # Only new files can be asked what they hold, or be read where they lie.
        strange = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) if modern else set()
        if (more := sorted(strange - HARMLESS)) and not inert:
            raise _more_than_tensors(path, ", ".join(more))
        with torch.serialization.safe_globals([(Inert, name) for name in sorted(HARMLESS.union(more))]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=modern and inert)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, OSError, AttributeError) as error:
        # torch's own words advise to run what is in the file.
        if named := re.search(r"(?:GLOBAL|[Uu]nsupported class|function) `?([A-Za-z_][\w.]+)", str(error)):
            raise _more_than_tensors(path, named[1]) from error
        raise CodecError(
            f"{path} is damaged or no file of weights, and was not opened: {type(error).__name__}"
        ) from error


def _more_than_tensors(path: Path, names: str) -> CodecError:
    return CodecError(
        f"{path} holds more than tensors and was not opened: {names}. Loading such objects can run code; save the "
        "tensors alone, where the training ran: torch.save(network.state_dict(), FILE)"
    )


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
    """Shape of the first tensor of a file whose name ends so, which tells how wide a network is; None without one."""
    for _, tensors in _nested(loaded):
        for name, tensor in tensors.items():
            if f".{name}".endswith(f".{ending}"):
                return tuple(tensor.shape)
    return None


def _nested(loaded: Any, path: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All tensors by name of a file, by where they are nested."""
    if not isinstance(loaded, Mapping):
        return
    if tensors := {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, torch.Tensor)}:
        yield path, tensors
    for name, inner in loaded.items():
        yield from _nested(inner, f"{path}.{name}" if path else str(name))


@dataclass(frozen=True, eq=False)
class _Set:
    """Tensors of a file that have names of a network's behind one prefix."""

    name: str
    tensors: dict[str, Tensor]
    """By today's names without the prefix."""
    twice: tuple[str, ...]
    hits: int
    """How many of the network's names it has."""


def _sets(loaded: Any, wanted: Collection[str], rename: Callable[[str], str]) -> list[_Set]:
    """Every set of a file that has a name of the network's, those with most of them first."""
    # Averages of latent diffusion's trainers have names without dots.
    dotless = {name.replace(".", ""): name for name in wanted}
    sets = []
    for path, held in _nested(loaded):
        hits: dict[str, set[str]] = {}
        for full in held:
            name = modern(full)
            for start in (0, *(dot.end() for dot in re.finditer(r"\.", name))):
                if rename(modern(name[start:])) in wanted or name[start:] in dotless:
                    hits.setdefault(name[:start], set()).add(full)
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
            sets.append(_Set(shown, tensors, tuple(twice), len(hits[prefix])))
    return sorted(sets, key=lambda one: -one.hits)


def _choose(loaded: Any, wanted: Collection[str], what: str, key: str, rename: Callable[[str], str]) -> _Set:
    sets = _sets(loaded, wanted, rename)
    whole = [some for some in sets if 2 * some.hits >= len(wanted)]
    if key:
        named = [some for some in sets if some.name == key or some.name.startswith(f"{key}.")]
        named = [some for some in named if some in whole] or named
        if len(named) == 1 or (named and named[0].hits > named[1].hits):
            return named[0]
        held = ", ".join(dict.fromkeys(some.name for some in named or whole or sets)) or "none"
        near = difflib.get_close_matches(key, [some.name for some in sets], 1)
        guess = f"; did you mean {near[0]!r}?" if near and not named else ""
        raise CodecError(
            f"weights_key={key!r} names {'several sets' if named else 'no set'} of weights in {what}{guess}; "
            f"those that it holds: {held}"
        )
    if len(whole) > 1:
        names = [some.name for some in whole]
        raise CodecError(
            f"{what} holds {len(names)} sets of weights for this network: {', '.join(names)}; "
            f"say which: codec.options.checkpoint=FILE codec.options.weights_key={names[-1]}"
        )
    if sets:
        return sets[0]
    path, tensors = max(_nested(loaded), key=lambda pair: len(pair[1]), default=("", None))
    if tensors is None:
        held = ", ".join(map(str, list(loaded)[:SHOWN])) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise CodecError(f"{what} holds no tensors by name; it holds: {held or 'nothing'}")
    return _Set(path, {modern(name): tensor for name, tensor in tensors.items()}, (), 0)


def match(
    network: Any,
    loaded: Any,
    what: str,
    *,
    key: str = "",
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
    spread: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file by the names of a network, all of its shapes; and what a reader of results should know.

    Args:
        network: a module; nothing is put into it.
        loaded: what a file holds (`read_file`).
        what: the file, for messages.
        key: which set of weights, where there are several.
        rename: from a name in the file (after `modern`) to the name in the network.
        drop: patterns of names that are dropped on purpose, ``discriminator.*``; matched before ``rename``.
        spread: from the tensors of a file, by their names there, to those that the network needs.

    Raises:
        CodecError: two sets of weights, tensors that are missing, left over, of another shape or kind, or no numbers.
    """
    wanted = network.state_dict()
    required = {name for name in wanted if _last(name) not in ABSENT} or set(wanted)
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
    _check_names(wanted, given, twice, what)
    _check_numbers(given, what)
    notes = [f"weights of {chosen.name}"] if chosen.name != "." and key else []
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in given.values() if tensor.is_floating_point()}
    if other := sorted(kinds - {"float32"}):
        notes.append(f"{' and '.join(other)} converted to float32")
    return given, tuple(notes)


def _check_names(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], twice: list[str], what: str) -> None:
    """Raise `CodecError` with everything that does not fit."""
    extra = {name: tensor for name, tensor in given.items() if name not in wanted}
    missing = [name for name in wanted if name not in given and _last(name) not in ABSENT]
    lost = []
    for number, name in enumerate(missing):
        same = [other for other, tensor in extra.items() if tensor.shape == wanted[name].shape]
        near = difflib.get_close_matches(name, same if number < SHOWN else [], 1)
        lost.append(f"{name} {tuple(wanted[name].shape)} is missing" + (f"; nearest: {near[0]}" if near else ""))
    left = [f"{name} {tuple(tensor.shape)} has no place" for name, tensor in extra.items()]
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
        constant = new.to(old.dtype).double()
        if not bool((constant - old.double()).abs().max() <= 1e-6 * constant.abs().max()):
            return "is a constant of the class and has another value"
    return ""


def _check_numbers(given: Mapping[str, Tensor], what: str) -> None:
    bad = [
        f"{name} ({int((~torch.isfinite(tensor)).sum())} of {tensor.numel()})"
        for name, tensor in given.items()
        if tensor.is_floating_point() and not tensor.is_meta and _last(name) not in CONSTANTS
        if not bool(torch.isfinite(tensor).all())
    ]
    if bad:
        more = f" and {len(bad) - 3} tensors more" if len(bad) > 3 else ""
        raise CodecError(f"{what} holds NaN or infinite values: in {', '.join(bad[:3])}{more}; its training diverged")


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def on_meta(build: Callable[[], Any]) -> Any:
    """The network that ``build`` makes, without storage."""
    with torch.device("meta"):
        return build()


def load_strictly(
    build: Callable[[], Any],
    loaded: Any,
    what: str,
    dtype: torch.dtype | None = None,
    *,
    rename: Callable[[str], str] = str,
    drop: Collection[str] = (),
    error: type[RdpbenchError] = CodecError,
) -> Any:
    """The network that ``build`` makes with the tensors of a file, in evaluation mode and without gradients.

    It is made without storage and given the file's tensors, so that it is never in memory twice.

    Args:
        build: makes the network; buffers that no file holds are numbers of positions.
        loaded: tensors by name, in any floating-point format, or what they are nested in.
        what: the file, for messages.
        dtype: of the network; float32 by default.
        rename: see `match`.
        drop: see there; `POSITIONS` are dropped always.
        error: what is raised where tensors do not `match`.
    """
    network = on_meta(build)
    try:
        given, _ = match(network, loaded, what, rename=rename, drop=(POSITIONS, *drop))
    except CodecError as wrong:
        raise error(str(wrong)) from wrong
    kind = dtype or torch.float32
    network.load_state_dict({name: tensor.to(kind) for name, tensor in given.items()}, strict=True, assign=True)
    for name, buffer in list(network.named_buffers()):
        if buffer.is_meta:
            owner, _, last = name.rpartition(".")
            assert last == "position_ids", f"{name} has no values and is in no file"
            network.get_submodule(owner).position_ids = torch.arange(buffer.shape[-1])[None]
    return network.eval().requires_grad_(False)


def load_pretrained(cls: Any, folder: Path, dtype: torch.dtype, *, leftovers: bool, error: type[RdpbenchError]) -> Any:
    """A network of ``transformers`` from a folder with ``config.json`` and safetensors, no tensor of it made up.

    Damage, and tensors that are missing, of another shape or (without ``leftovers``) left over, raise ``error``.
    """
    with _without_bar():
        try:
            network, report = cls.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
            )
        except (RuntimeError, ValueError) as damage:
            raise error(f"{folder} does not hold this {cls.__name__}: {damage}") from damage
    for kind in ("missing_keys", "mismatched_keys", *(() if leftovers else ("unexpected_keys",))):
        if names := sorted(map(str, report[kind])):
            raise error(
                f"{folder} does not fill {cls.__name__}: {len(names)} {kind.replace('_', ' ')}: {', '.join(names[:5])}"
            )
    return network


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """No progress bar for a file that is read in a second."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

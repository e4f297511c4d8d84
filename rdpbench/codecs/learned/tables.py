"""Cumulative distribution tables of CompressAI's entropy models: as a checkpoint has them, or built again, checked.

A table holds ``65536 * cumulative probability`` as integers; the last interval of a row is the escape, after which a
symbol outside the row is written in steps of four bits. Encoder and decoder need the same integers.

**Baked or rebuilt.** Published checkpoints of CompressAI carry the tables that their authors coded with; where they
are there, they are used, as CompressAI's own loader does. Others carry none (or empty ones); these are built here in
double precision. CompressAI's ``update()`` builds them in single precision, so that the integers depend, now and then
by one, on the processor's vector instructions. The difference changes a file by bytes at most; two machines that
disagree on it cannot read each other's files at all.

**Stale.** A network that is trained further after its tables were made keeps the old ones, and codes with distributions
that are not its own. So baked tables are held against those that their parameters give (`excess`): not count by count,
since single precision moves counts by one or two of 65536, but by the bits that it costs. CompressAI's own tables, made
in single precision, cost 3e-6 bits for a symbol in the widest row; `NEAR` is forty times that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.assets.load import CONSTANTS, TABLES, match
from rdpbench.errors import CodecError

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("_quantized_cdf", "_cdf_length", "_offset")
SCALES = (0.11, 256.0, 64)
"""Lowest and highest scale and their number, logarithmically spaced (Ballé et al., in all systems here)."""


@dataclass(frozen=True, eq=False)
class Tables:
    """What the range coder takes, for the distributions of one entropy model."""

    rows: list[list[int]]
    """Cut to their lengths: the coder copies them at every call."""
    sizes: list[int]
    offsets: list[int]
    edges: Tensor | None = None
    """Gaussian: the scales between which the index changes, ``(E,)``, float64. The index is the number below."""
    first: int = 0
    """Index of the first edge that counts: scales are bounded from below."""
    medians: Tensor | None = None
    """Factorized: what is subtracted from each channel before rounding, ``(C,)``, float64."""


def tables_of(model: Any) -> Tables:
    """The tables of a CompressAI ``EntropyBottleneck`` or ``GaussianConditional``.

    Raises:
        CodecError: there are none, or they are no distributions.
    """
    import torch

    lengths, offsets = model._cdf_length.reshape(-1).tolist(), model._offset.reshape(-1).tolist()
    table = model._quantized_cdf.cpu().numpy()
    check(table, lengths, offsets)
    rows = [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
    if hasattr(model, "quantiles"):
        medians = model.quantiles.detach()[:, 0, 1].to("cpu", torch.float64)
        return Tables(rows, lengths, offsets, medians=medians)
    edges = model.scale_table.detach().to("cpu", torch.float64)[:-1]
    if len(edges) + 1 != len(rows) or not bool((edges.diff() > 0).all()):
        raise CodecError(f"{len(rows)} tables do not go with scales {edges.tolist()}")
    bound = model.lower_bound_scale.bound.detach().to("cpu", torch.float64)
    return Tables(rows, lengths, offsets, edges=edges, first=int(torch.bucketize(bound, edges)))


def check(table: Any, lengths: list[int], offsets: list[int]) -> None:
    """Raise `CodecError` unless each row rises from 0 to 65536: the C++ coder trusts them blindly.

    >>> check(np.array([[0, 65000, 65536]]), [3], [0])
    """
    if table.ndim != 2 or not 0 < len(table) == len(lengths) == len(offsets):
        raise CodecError(f"CDF tables of shape {table.shape} with {len(lengths)} lengths and {len(offsets)} offsets")
    for number, (row, length, offset) in enumerate(zip(table, lengths, offsets, strict=True)):
        cut = row[: max(length, 0)]
        if not 3 <= length <= len(row) or cut[0] != 0 or cut[-1] != 65536 or (np.diff(cut) <= 0).any():
            raise CodecError(f"row {number} of the CDF tables does not rise from 0 to 65536 in {length} steps")
        if abs(offset) > 1 << 20:
            raise CodecError(f"row {number} of the CDF tables starts at symbol {offset}")


def default_scales() -> Tensor:
    """The 64 scales, rounded from double precision.

    >>> round(float(default_scales()[1]), 5)
    0.1244
    """
    import torch

    low, high, levels = SCALES
    step = (math.log(high) - math.log(low)) / (levels - 1)
    return torch.tensor([low * math.exp(step * level) for level in range(levels)], dtype=torch.float32)


def entropy_models(network: Any) -> dict[str, Any]:
    """The CompressAI entropy models inside a network, by name."""
    from rdpbench.codecs.learned.library import compressai

    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, compressai.entropy_models.EntropyModel)
    }


NEAR = 1e-4
"""Bits for a symbol that baked tables may lose: a ten-thousandth of the rate, where a symbol takes one bit."""


def set_tables(
    network: Any, given: Mapping[str, Tensor], *, rebuild: bool = False, stale: str = "refuse", what: str = ""
) -> dict[str, str]:
    """Give each entropy model its tables; returns ``baked`` or ``rebuilt`` for each, with what is odd about it.

    Args:
        network: its parameters are loaded already.
        given: buffers by full name, from a checkpoint.
        rebuild: do not use those of the checkpoint, for a system whose own decoder builds them always.
        stale: what happens where those of the checkpoint are not those of its parameters: ``refuse``; ``rebuild``, as
            for a network of the user's, whose training goes on; or ``keep``, where its publisher vouches for the file.
        what: the checkpoint, for messages.

    Raises:
        CodecError: a checkpoint has a part of a model's tables, what is no distribution, or stale ones.
    """
    made: dict[str, str] = {}
    for name, model in entropy_models(network).items():
        names = (*NAMES, "scale_table") if hasattr(model, "scale_table") else NAMES
        here = {part: given[f"{name}.{part}"] for part in names if given.get(f"{name}.{part}", _EMPTY).numel()}
        if here and len(here) < len(names):
            raise CodecError(f"the checkpoint holds {', '.join(here)} of {name}, but not the other tables")
        if hasattr(model, "quantiles"):
            _rebuild_factorized(model)
        else:
            model.scale_table = here["scale_table"].float() if here else default_scales()
            _rebuild_gaussian(model)
        made[name] = "rebuilt"
        own = tables_of(model)
        if here and not rebuild:
            built = {part: getattr(model, part) for part in NAMES}
            for part in NAMES:
                setattr(model, part, here[part].int())
            made[name] = "baked"
            lost = excess(own, tables_of(model))
            if lost > NEAR:
                told = f"those of the file are not of its parameters ({lost:.2g} bits lost for a symbol)"
                if stale == "refuse":
                    raise CodecError(
                        f"the tables of {name} in {what or 'the checkpoint'} were made for other parameters than it "
                        f"holds: {lost:.2g} bits are lost for a symbol. If it is a network of yours, name it, and "
                        "they are built: codec.options.checkpoint=PATH"
                    )
                if stale == "rebuild":
                    for part, tensor in built.items():
                        setattr(model, part, tensor)
                made[name] = f"rebuilt, since {told}" if stale == "rebuild" else f"baked, though {told}"
    return made


def excess(true: Tables, coded: Tables) -> float:
    """Bits that a symbol takes more, in the worst row, if it is coded with other tables than it is distributed by.

    That is the Kullback-Leibler divergence; what only one of the rows reaches counts as part of its escape.

    >>> round(excess(Tables([[0, 32768, 65536]], [3], [0]), Tables([[0, 16384, 65536]], [3], [0])), 6)
    0.207519
    """
    if len(true.rows) != len(coded.rows):
        return math.inf
    worst = 0.0
    rows = zip(true.rows, true.offsets, coded.rows, coded.offsets, strict=True)
    for true_row, true_first, coded_row, coded_first in rows:
        first, last = max(true_first, coded_first), min(true_first + len(true_row), coded_first + len(coded_row)) - 2
        if last <= first:
            return math.inf
        counts = []
        for row, start in ((true_row, true_first), (coded_row, coded_first)):
            inside = np.diff(np.asarray(row[first - start : last - start + 1], np.float64))
            # At least one: the escape has a place of its own.
            counts.append(np.append(inside, max(65536 - inside.sum(), 1)) / 65536)
        here, there = counts
        worst = max(worst, float(np.sum(here * np.log2(here / there))))
    return worst


class _Empty:
    def numel(self) -> int:
        return 0


_EMPTY: Any = _Empty()


def _rebuild_factorized(model: Any) -> None:
    """CompressAI's own construction, on a copy in double precision."""
    exact = copy.deepcopy(model).double().cpu()
    exact.update(force=True)
    for part in NAMES:
        setattr(model, part, getattr(exact, part).detach().int())


def _rebuild_gaussian(model: Any) -> None:
    """The probability of each integer under a zero-mean normal distribution of each scale, as Ballé et al. have it."""
    import torch

    from rdpbench.codecs.learned.library import compressai

    scales: list[float] = model.scale_table.double().tolist()
    quantile = -NormalDist().inv_cdf(model.tail_mass / 2)
    centres = [math.ceil(scale * quantile) for scale in scales]
    table = torch.zeros((len(scales), 2 * max(centres) + 3), dtype=torch.int32)
    for row, (scale, centre) in enumerate(zip(scales, centres, strict=True)):
        # Of 0, 1, 2, ... The complementary error function keeps its precision in the tails.
        half = [_below((0.5 - away) / scale) - _below((-0.5 - away) / scale) for away in range(centre + 1)]
        tail = 2 * _below((-0.5 - centre) / scale)
        pmf = torch.tensor([*reversed(half[1:]), *half, tail], dtype=torch.float64)
        cdf = compressai.entropy_models.entropy_models.pmf_to_quantized_cdf(pmf)
        table[row, : len(cdf)] = cdf
    model._quantized_cdf = table
    model._offset = -torch.tensor(centres, dtype=torch.int32)
    model._cdf_length = 2 * torch.tensor(centres, dtype=torch.int32) + 3


def _below(deviations: float) -> float:
    """Probability that a normal variable is below so many standard deviations."""
    return math.erfc(-deviations / math.sqrt(2)) / 2


def fit(
    network: Any, loaded: Any, what: str, *, rebuild: bool = False, stale: str = "refuse", **options: Any
) -> dict[str, str]:
    """Load a state dict into a network, in place; returns where its tables come from (`set_tables`).

    What was done on the way is left as ``network.notes``.

    Args:
        network: a module on the CPU in single precision.
        loaded: what a file holds.
        what: the file, for messages.
        rebuild: build the tables even where the file has some.
        stale: what happens to tables of the file that are not those of its parameters; see `set_tables`.
        options: those of `rdpbench.assets.load.match`.

    Raises:
        CodecError: see `match`; tables that are none, or not those of the parameters.
    """
    import torch

    tensors, notes = match(network, loaded, what, **options)
    last = {name: name.rpartition(".")[2] for name in tensors}
    own = {name: tensor for name, tensor in tensors.items() if last[name] not in TABLES | CONSTANTS}
    torch.nn.Module.load_state_dict(network, {**network.state_dict(), **own}, strict=True)
    tables = {name: tensor for name, tensor in tensors.items() if last[name] in TABLES}
    sources = set_tables(network, tables, rebuild=rebuild, stale=stale, what=what)
    odd = [f"tables of {name} {how}" for name, how in sources.items() if how not in ("baked", "rebuilt")]
    network.notes = (*notes, *odd)
    return {name: how.partition(",")[0] for name, how in sources.items()}

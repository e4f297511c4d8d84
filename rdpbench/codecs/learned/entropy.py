"""Symbols to strings and back: a `Writer` and a `Reader` with the same methods, and their tables of probabilities.

The part of a system that both sides run is written once, against `Coder`: at the encoder it is handed the latents and
writes them, at the decoder it is handed None and gets them. So the two cannot differ by a slip.

**Strings** are those of CompressAI's range coder (rANS, 64-bit state, 16-bit probabilities), whose decoder reads on
where a string ends. So as many zeros are put after it as it can read at most: a symbol takes one word of 4 bytes, an
escaped one at most 76 bytes once the string has ended, and inside the string an escape can ask for 15 times its length.

**Portable.** A decoder must choose the very distribution that the encoder chose for every symbol. Both compute it with
a network, and floating point sums depend on device, threads, batch and library: one scale that falls on the other side
of a table's edge, and everything after it is noise. ``portable=true`` removes that in three steps.

1. All that decides a symbol is computed in double precision. Two machines then differ by their order of summation:
   about 1e-11 at worst for a layer of these networks, 1e-14 as a rule.
2. What is computed is *settled* on a discrete value before it is used: a scale on its index in the table, a mean on a
   multiple of `STEP`. Settled values are equal bit for bit, so what is computed from them starts without an error:
   nothing adds up over slices or pixels of an autoregressive model.
3. A value within `GUARD` (relative above 1) of the edge between two cells could still be settled differently. The
   encoder lists these cases, each with the side that it took, in a section of its own; the decoder takes the listed
   side. As long as two machines differ by less than `GUARD`, at the decoder an unlisted value lies on the encoder's
   side, and for a listed one the nearest edge is the encoder's.

With a step of 2**-10 and a guard of 2**-32, one value in two million is doubtful: the list costs one byte for its
length, and sometimes 3 bytes more. Means on the grid move by less than 5e-4.

**Tables** hold ``65536 * cumulative probability`` as integers; the last interval of a row is the escape, after which a
symbol outside the row is written in steps of four bits. Those that a checkpoint carries (*baked*) are used, unless they
are not of its parameters (*stale*, by `excess`). Others are built, in double precision: in single some depend by one on
the processor.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.assets.load import CONSTANTS, TABLES, match
from rdpbench.codecs.container import read_varint, varint
from rdpbench.errors import BitstreamError, CodecError
from rdpbench.lazy import LazyModule, Tensor, torch

library: Any = LazyModule("rdpbench.codecs.learned.library")

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
    lengths, offsets = model._cdf_length.reshape(-1).tolist(), model._offset.reshape(-1).tolist()
    table = model._quantized_cdf.cpu().numpy()
    check_tables(table, lengths, offsets)
    rows = [row[:length].tolist() for row, length in zip(table, lengths, strict=True)]
    if hasattr(model, "quantiles"):
        medians = model.quantiles.detach()[:, 0, 1].to("cpu", torch.float64)
        return Tables(rows, lengths, offsets, medians=medians)
    edges = model.scale_table.detach().to("cpu", torch.float64)[:-1]
    if len(edges) + 1 != len(rows) or not bool((edges.diff() > 0).all()):
        raise CodecError(f"{len(rows)} tables do not go with scales {edges.tolist()}")
    bound = model.lower_bound_scale.bound.detach().to("cpu", torch.float64)
    return Tables(rows, lengths, offsets, edges=edges, first=int(torch.bucketize(bound, edges)))


def check_tables(table: Any, lengths: list[int], offsets: list[int]) -> None:
    """Raise `CodecError` unless each row rises from 0 to 65536: the C++ coder trusts them blindly.

    >>> check_tables(np.array([[0, 65000, 65536]]), [3], [0])
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
    low, high, levels = SCALES
    step = (math.log(high) - math.log(low)) / (levels - 1)
    return torch.tensor([low * math.exp(step * level) for level in range(levels)], dtype=torch.float32)


NEAR = 1e-4
"""Bits for a symbol that baked tables may lose: a ten-thousandth of the rate, where a symbol takes one bit."""


def set_tables(
    network: Any, given: Mapping[str, Tensor], *, stale: str = "refuse", what: str = "the checkpoint"
) -> dict[str, str]:
    """Give each entropy model its tables; returns ``baked`` or ``rebuilt`` for each, with what is odd about it.

    Args:
        network: its parameters are loaded already.
        given: buffers by full name, from a checkpoint.
        stale: what happens where those of the checkpoint are not those of its parameters: ``refuse``; ``rebuild``, as
            for a network of the user's, whose training goes on; or ``keep``, where its publisher vouches for the file.
        what: the checkpoint, for messages.

    Raises:
        CodecError: a checkpoint has a part of a model's tables, what is no distribution, or stale ones.
    """
    kind, sources = library.compressai.entropy_models.EntropyModel, {}
    for name, model in network.named_modules():
        if not isinstance(model, kind):
            continue
        names = (*NAMES, "scale_table") if hasattr(model, "scale_table") else NAMES
        here = {part: given[f"{name}.{part}"] for part in names if f"{name}.{part}" in given}
        here = {part: tensor for part, tensor in here.items() if tensor.numel()}
        if here and len(here) < len(names):
            raise CodecError(f"the checkpoint holds {', '.join(here)} of {name}, but not the other tables")
        if hasattr(model, "quantiles"):
            _rebuild_factorized(model)
        else:
            model.scale_table = here["scale_table"].float() if here else default_scales()
            _rebuild_gaussian(model)
        sources[name] = "rebuilt"
        if not here:
            continue
        own, built = tables_of(model), {part: getattr(model, part) for part in NAMES}
        for part in NAMES:
            setattr(model, part, here[part].int())
        lost = excess(own, tables_of(model))
        if lost <= NEAR:
            sources[name] = "baked"
            continue
        why = f"those of the file are not of its parameters ({lost:.2g} bits lost for a symbol)"
        if stale == "refuse":
            raise CodecError(
                f"the tables of {name} in {what} do not match its parameters: {lost:.2g} bits are "
                "lost per symbol. If it is a network of yours, they are computed anew if you name it: "
                "codec.options.checkpoint=PATH"
            )
        if stale == "rebuild":
            for part, tensor in built.items():
                setattr(model, part, tensor)
        sources[name] = f"rebuilt, since {why}" if stale == "rebuild" else f"baked, though {why}"
    return sources


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


def _rebuild_factorized(model: Any) -> None:
    """CompressAI's own construction, on a copy in double precision."""
    exact = copy.deepcopy(model).double().cpu()
    exact.update(force=True)
    for part in NAMES:
        setattr(model, part, getattr(exact, part).detach().int())


def _rebuild_gaussian(model: Any) -> None:
    """The probability of each integer under a zero-mean normal distribution of each scale, as Ballé et al. have it."""
    scales: list[float] = model.scale_table.double().tolist()
    quantile = -NormalDist().inv_cdf(model.tail_mass / 2)
    centres = [math.ceil(scale * quantile) for scale in scales]
    table = torch.zeros((len(scales), 2 * max(centres) + 3), dtype=torch.int32)
    for number, (scale, centre) in enumerate(zip(scales, centres, strict=True)):
        pmf = torch.tensor(symmetric_row(below_normal, scale, centre), dtype=torch.float64)
        cdf = library.compressai.entropy_models.entropy_models.pmf_to_quantized_cdf(pmf)
        table[number, : len(cdf)] = cdf
    model._quantized_cdf = table
    model._offset = -torch.tensor(centres, dtype=torch.int32)
    model._cdf_length = 2 * torch.tensor(centres, dtype=torch.int32) + 3


def symmetric_row(below: Callable[[float], float], scale: float, centre: int) -> list[float]:
    """Probabilities of the integers from ``-centre`` to ``centre`` under a symmetric distribution, and of its tails.

    >>> [round(p, 4) for p in symmetric_row(below_normal, 1.0, 1)]
    [0.2417, 0.3829, 0.2417, 0.1336]
    """
    # Of 0, 1, 2, ... from the lower tail, where nothing cancels.
    half = [below((0.5 - away) / scale) - below((-0.5 - away) / scale) for away in range(centre + 1)]
    return [*reversed(half[1:]), *half, 2 * below((-0.5 - centre) / scale)]


def below_normal(deviations: float) -> float:
    """Probability that a normal variable is below so many standard deviations."""
    return math.erfc(-deviations / math.sqrt(2)) / 2


def load_with_tables(network: Any, loaded: Any, what: str, *, stale: str = "refuse", **options: Any) -> dict[str, str]:
    """Load what a file holds into a network, strictly; returns where its tables come from (`set_tables`).

    What was done on the way is left as ``network.notes``.

    Args:
        network: a module on the CPU in single precision.
        loaded: what a file holds.
        what: the file, for messages.
        stale: what happens to tables of the file that are not those of its parameters; see `set_tables`.
        options: ``key``, ``rename``, ``drop`` and ``spread`` of `rdpbench.assets.load.match`.

    Raises:
        CodecError: see `match`; tables that are none, or not those of the parameters.
    """
    tensors, notes = match(network, loaded, what, **options)
    last = {name: name.rpartition(".")[2] for name in tensors}
    own = {name: tensor for name, tensor in tensors.items() if last[name] not in TABLES | CONSTANTS}
    torch.nn.Module.load_state_dict(network, {**network.state_dict(), **own}, strict=True)
    tables = {name: tensor for name, tensor in tensors.items() if last[name] in TABLES}
    sources = set_tables(network, tables, stale=stale, what=what)
    odd = [f"tables of {name} {how}" for name, how in sources.items() if how not in ("baked", "rebuilt")]
    network.notes = (*notes, *odd)
    return {name: how.partition(",")[0] for name, how in sources.items()}


STEP = 2.0**-10
"""Distance of two means."""
GUARD = 2.0**-32
"""Two machines must agree this well in double precision, relative for values above 1."""


class Decisions:
    """Settles values one way at the encoder, which keeps the doubtful cases, and the same way at the decoder."""

    def __init__(self, listed: bytes | None = None) -> None:
        """Record doubtful cases, or take them from the bytes that `listing` gave."""
        self._count = 0
        self._recording = listed is None
        self._doubtful: list[tuple[int, int]] = []
        self._places, self._up = _read_listing(listed or b"")

    def snap(self, values: Tensor) -> Tensor:
        """Each value on the nearest multiple of `STEP`.

        >>> import torch
        >>> float(Decisions().snap(torch.tensor([0.3], dtype=torch.float64)))
        0.2998046875
        """
        scaled = values / STEP
        lower = torch.floor(scaled)
        distance = (scaled - lower - 0.5).abs() * STEP
        return self._settle(torch.floor(scaled + 0.5), lower, distance, values) * STEP

    def index(self, values: Tensor, edges: Tensor) -> Tensor:
        """For each value the number of edges below it. Edges are ascending, ``(E,)``, further apart than `GUARD`."""
        cell = torch.bucketize(values, edges)
        below, above = (cell - 1).clamp(min=0), cell.clamp(max=len(edges) - 1)
        to_below, to_above = (values - edges[below]).abs(), (edges[above] - values).abs()
        lower = torch.where(to_below <= to_above, below, above)
        return self._settle(cell, lower, torch.minimum(to_below, to_above), values)

    def _settle(self, cell: Tensor, lower: Tensor, distance: Tensor, values: Tensor) -> Tensor:
        """``cell``, but on the listed side of the edge above ``lower`` in doubtful cases."""
        guard = GUARD * values.abs().clamp(min=1)
        start, self._count = self._count, self._count + values.numel()
        if self._recording:
            for place in torch.nonzero((distance <= guard).reshape(-1)).reshape(-1).tolist():
                self._doubtful.append((start + place, int(cell.reshape(-1)[place] > lower.reshape(-1)[place])))
            return cell
        first, last = np.searchsorted(self._places, [start, self._count])
        if first == last:
            return cell
        places = torch.from_numpy(self._places[first:last] - start).to(cell.device)
        if bool((distance.reshape(-1)[places] > 4 * guard.reshape(-1)[places]).any()):
            raise BitstreamError(
                "a value listed as doubtful is not close to an edge here: the file is damaged, or was made "
                "with another arithmetic"
            )
        settled = cell.reshape(-1).clone()
        settled[places] = lower.reshape(-1)[places] + torch.from_numpy(self._up[first:last]).to(settled)
        return settled.reshape(cell.shape)

    def listing(self) -> bytes:
        """The doubtful cases: for each a varint of twice the distance to the one before, plus 1 if it went up."""
        out, before = bytearray(), 0
        for place, up in self._doubtful:
            out += varint((place - before) << 1 | up)
            before = place
        return bytes(out)

    def check_used(self) -> None:
        """Raise `BitstreamError` if cases are listed beyond the last value."""
        if self._places.size and self._places[-1] >= self._count:
            last = self._places[-1]
            raise BitstreamError(f"doubtful case {last} is listed, but only {self._count} values were settled")


def _read_listing(listed: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places: list[int] = []
    sides: list[int] = []
    offset = place = 0
    while offset < len(listed):
        number, offset = read_varint(listed, offset)
        if places and number < 2:
            raise BitstreamError("a doubtful case is listed twice")
        place += number >> 1
        if place >= 1 << 62:
            raise BitstreamError(f"a doubtful case is listed at {place}")
        places.append(place)
        sides.append(number & 1)
    return np.array(places, np.int64), np.array(sides, np.int64)


MAX_SYMBOL = 1 << 15
"""Larger symbols are refused: no trained network makes them, and from 2**28 on the coder never ends."""
MIN_SYMBOLS = 4
"""The coder's buffer has a word for each symbol, and its end takes two: fewer symbols would be written beside it."""
OVERRUN = 76
"""Bytes that the coder can read for one symbol after the end of a string."""


class Coder(ABC):
    """One image's symbols, in coding order."""

    _error: type[CodecError]
    estimated: float | None = None
    """Bits of an image by the probabilities of its symbols, where a system adds them up."""

    def __init__(self, sections: Mapping[str, int], decisions: Decisions | None, device: str) -> None:
        """Take the strings' names and numbers of symbols, and with ``decisions`` settle everything (`portable`)."""
        self._left = dict(sections)
        self._decisions = decisions
        self._device = device

    def factorized(self, section: str, tables: Tables, shape: tuple[int, int, int], latents: Tensor | None) -> Tensor:
        """Code ``(1, C, H, W)`` with one distribution for each channel; returns it quantised around the medians."""
        channels, height, width = shape
        assert tables.medians is not None
        medians = tables.medians.to(self._device, self._dtype()).reshape(1, channels, 1, 1)
        indexes = torch.arange(channels, dtype=torch.int32).reshape(-1, 1).expand(channels, height * width)
        symbols = self._symbols(section, tables, indexes, None if latents is None else latents - medians)
        return symbols.reshape(1, channels, height, width) + medians

    def gaussian(
        self, section: str, tables: Tables, scales: Tensor, means: Tensor | None, latents: Tensor | None
    ) -> Tensor:
        """Code values of any shape under normal distributions of their own; returns them quantised around the means."""
        check_finite(scales, "scale", self._error)
        assert tables.edges is not None
        edges = tables.edges[tables.first :].to(scales.device, scales.dtype)
        decide = torch.bucketize if self._decisions is None else self._decisions.index
        indexes = tables.first + decide(scales.contiguous(), edges)
        if means is None:
            return self._symbols(section, tables, indexes, latents).reshape(scales.shape)
        means = self.exact(means)
        symbols = self._symbols(section, tables, indexes, None if latents is None else latents - means)
        return symbols.reshape(scales.shape) + means

    def exact(self, values: Tensor) -> Tensor:
        """The values as both sides will have them: with ``portable`` on its grid, else as they are.

        For what is computed and added to latents, such as a latent residual prediction; means go through it already.
        """
        check_finite(values, "mean", self._error)
        return values if self._decisions is None else self._decisions.snap(values)

    def _dtype(self) -> Any:
        return torch.float32 if self._decisions is None else torch.float64

    def _take(self, section: str, count: int) -> None:
        if self._left[section] < count:
            raise CodecError(f"section {section!r} was to end {count - self._left[section]} symbols ago")
        self._left[section] -= count

    def _check_done(self) -> None:
        if left := {name: count for name, count in self._left.items() if count}:
            raise CodecError(f"symbols are missing, by section: {left}")

    @abstractmethod
    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor: ...


class Writer(Coder):
    """Encodes."""

    _error = CodecError

    def __init__(self, sections: Mapping[str, int], *, portable: bool, device: str) -> None:
        super().__init__(sections, Decisions() if portable else None, device)
        if small := [name for name, count in sections.items() if count < MIN_SYMBOLS]:
            raise CodecError(f"sections {small} hold fewer than {MIN_SYMBOLS} symbols, for which the coder has no room")
        self._encoders = {name: library.compressai.ans.BufferedRansEncoder() for name in sections}

    def finish(self) -> dict[str, bytes]:
        """The strings by section; with ``portable`` the doubtful cases as ``guard`` before them."""
        self._check_done()
        strings = {name: bytes(encoder.flush()) for name, encoder in self._encoders.items()}
        return strings if self._decisions is None else {"guard": self._decisions.listing(), **strings}

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        assert values is not None, "the encoder's side of a system hands over its latents"
        rounded = torch.round(values)
        # NaN fails the comparison, too.
        if not bool((rounded.abs() <= MAX_SYMBOL).all()):
            raise CodecError(f"latents of section {section!r} are not within {MAX_SYMBOL}: are these its weights?")
        self._take(section, rounded.numel())
        symbols = rounded.reshape(-1).int().tolist()
        lists = (tables.rows, tables.sizes, tables.offsets)
        self._encoders[section].encode_with_indexes(symbols, indexes.reshape(-1).tolist(), *lists)
        return rounded


class Reader(Coder):
    """Decodes."""

    _error = BitstreamError

    def __init__(self, sections: Mapping[str, int], strings: Mapping[str, bytes], *, portable: bool, device: str):
        super().__init__(sections, Decisions(strings["guard"]) if portable else None, device)
        self._decoders = {}
        for name, count in sections.items():
            string = strings[name]
            if len(string) < 8 or len(string) % 4:
                raise BitstreamError(f"section {name!r} of {len(string)} bytes is no string of the range coder")
            self._decoders[name] = library.compressai.ans.RansDecoder()
            self._decoders[name].set_stream(string + bytes(OVERRUN * count + 16 * len(string)))

    def finish(self) -> None:
        """Raise an error unless the system read all there is."""
        self._check_done()
        if self._decisions is not None:
            self._decisions.check_used()

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        assert values is None, "the decoder's side of a system has no latents"
        self._take(section, indexes.numel())
        lists = (tables.rows, tables.sizes, tables.offsets)
        # Through NumPy: torch is five times slower with lists.
        decoded = np.array(self._decoders[section].decode_stream(indexes.reshape(-1).tolist(), *lists), np.int64)
        if (np.abs(decoded) > MAX_SYMBOL).any():
            raise BitstreamError(f"section {section!r} holds symbols beyond {MAX_SYMBOL}: damage, or other weights")
        return torch.from_numpy(decoded).to(self._device, self._dtype())


def check_finite(values: Tensor, what: str, error: type[CodecError]) -> None:
    """Raise ``error`` if a value is infinite or no number."""
    if not bool(torch.isfinite(values).all()):
        raise error(f"a {what} that decides a symbol is not finite: damage, or other weights")

"""Symbols to strings and back: a `Writer` and a `Reader` with the same methods.

The part of a system that both sides run is written once, against `Coder`: at the encoder it is handed the latents and
writes them, at the decoder it is handed None and gets them. So the two cannot differ by a slip.

Strings are those of CompressAI's range coder (rANS, 64-bit state, 16-bit probabilities). Its decoder reads on where a
string ends; a damaged one would make it read foreign memory. What it can read at most is known, and so many zeros are
put after the string: a symbol takes one word of 4 bytes, an escaped one at most 76 bytes once the string has ended,
and inside the string an escape can ask for 15 times its own length.

The same decisions on every machine: double precision, a fixed grid, and a list of the doubtful cases.

A decoder must choose the very distribution that the encoder chose for every symbol. Both compute it with a network,
and floating point sums depend on device, threads, batch and library: one scale that falls on the other side of a
table's edge, and everything after it is noise. ``portable=true`` removes that in three steps.

1. All that decides a symbol is computed in double precision. Two machines then differ by their order of summation:
   for n products at most ``n * 2**-53`` of the sum of their magnitudes, about 1e-11 at worst for a layer of these
   networks, 1e-14 as a rule.
2. What is computed is *settled* on a discrete value before it is used: a scale on its index in the table, a mean on a
   multiple of `STEP`. Settled values are equal bit for bit, so what is computed from them starts without an error:
   nothing adds up over slices or pixels of an autoregressive model. This is the induction that makes it a proof.
3. A value within `GUARD` (relative above 1) of the edge between two cells could still be settled differently. The
   encoder lists these cases, each with the side that it took, in a section of the bitstream of its own; the decoder
   takes the listed side. As long as two machines differ by less than `GUARD`, at the decoder an unlisted value lies on
   the encoder's side, and for a listed one the nearest edge is the encoder's.

With a step of 2**-10 and a guard of 2**-32, one value in two million is doubtful: the list costs its length, one byte,
and sometimes 3 bytes more. Means on the grid move by less than 5e-4, and the symbols' residuals with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.container import read_varint, varint
from rdpbench.codecs.learned.tables import Tables
from rdpbench.errors import BitstreamError, CodecError

if TYPE_CHECKING:
    from torch import Tensor

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
        self._made: list[tuple[int, int]] = []
        self._at, self._up = _read(listed or b"")

    def snap(self, values: Tensor) -> Tensor:
        """Each value on the nearest multiple of `STEP`.

        >>> import torch
        >>> float(Decisions().snap(torch.tensor([0.3], dtype=torch.float64)))
        0.2998046875
        """
        import torch

        scaled = values / STEP
        lower = torch.floor(scaled)
        distance = (scaled - lower - 0.5).abs() * STEP
        return self._settle(torch.floor(scaled + 0.5), lower, distance, values) * STEP

    def index(self, values: Tensor, edges: Tensor) -> Tensor:
        """For each value the number of edges below it. Edges are ascending, ``(E,)``, further apart than `GUARD`."""
        import torch

        found = torch.bucketize(values, edges)
        below, above = (found - 1).clamp(min=0), found.clamp(max=len(edges) - 1)
        to_below, to_above = (values - edges[below]).abs(), (edges[above] - values).abs()
        lower = torch.where(to_below <= to_above, below, above)
        return self._settle(found, lower, torch.minimum(to_below, to_above), values)

    def _settle(self, cell: Tensor, lower: Tensor, distance: Tensor, values: Tensor) -> Tensor:
        """``cell``, but on the listed side of the edge above ``lower`` in doubtful cases."""
        import torch

        guard = GUARD * values.abs().clamp(min=1)
        start, self._count = self._count, self._count + values.numel()
        if self._recording:
            for at in torch.nonzero((distance <= guard).reshape(-1)).reshape(-1).tolist():
                self._made.append((start + at, int(cell.reshape(-1)[at] > lower.reshape(-1)[at])))
            return cell
        first, last = np.searchsorted(self._at, [start, self._count])
        if first == last:
            return cell
        at = torch.from_numpy(self._at[first:last] - start).to(cell.device)
        if bool((distance.reshape(-1)[at] > 4 * guard.reshape(-1)[at]).any()):
            raise BitstreamError("a case listed as doubtful is clear here: damage, or other arithmetic than assumed")
        settled = cell.reshape(-1).clone()
        settled[at] = lower.reshape(-1)[at] + torch.from_numpy(self._up[first:last]).to(settled)
        return settled.reshape(cell.shape)

    def listing(self) -> bytes:
        """The doubtful cases: for each a varint of twice the distance to the one before, plus 1 if it went up."""
        out, before = bytearray(), 0
        for at, up in self._made:
            out += varint((at - before) << 1 | up)
            before = at
        return bytes(out)

    def check_used(self) -> None:
        """Raise `BitstreamError` if cases are listed beyond the last value."""
        if self._at.size and self._at[-1] >= self._count:
            raise BitstreamError(f"doubtful case {self._at[-1]} is listed, but only {self._count} values were settled")


def _read(listed: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    positions: list[int] = []
    sides: list[int] = []
    at = place = 0
    while at < len(listed):
        number, at = read_varint(listed, at)
        if positions and number < 2:
            raise BitstreamError("a doubtful case is listed twice")
        place += number >> 1
        if place >= 1 << 62:
            raise BitstreamError(f"a doubtful case is listed at {place}")
        positions.append(place)
        sides.append(number & 1)
    return np.array(positions, np.int64), np.array(sides, np.int64)


MAX_SYMBOL = 1 << 15
"""Larger symbols are refused: no trained network makes them, and from 2**28 on the coder never ends."""
MIN_SYMBOLS = 4
"""The coder's buffer has a word for each symbol, and its end takes two: fewer symbols would be written beside it."""
OVERRUN = 76
"""Bytes that the coder can read for one symbol after the end of a string."""


class Coder(ABC):
    """One image's symbols, in coding order."""

    def __init__(self, sections: Mapping[str, int], decisions: Decisions | None, device: str) -> None:
        """Take the strings' names and numbers of symbols, and with ``decisions`` settle everything (`portable`)."""
        self._left = dict(sections)
        self._decisions = decisions
        self._device = device

    def factorized(self, section: str, tables: Tables, shape: tuple[int, int, int], latents: Tensor | None) -> Tensor:
        """Code ``(1, C, H, W)`` with one distribution for each channel; returns it quantised around the medians."""
        import torch

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
        import torch

        check_finite(scales, "scale", self._error())
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

        For whatever is computed, added to latents and read by later steps, such as a latent residual prediction; means
        go through it already.
        """
        check_finite(values, "mean", self._error())
        return values if self._decisions is None else self._decisions.snap(values)

    def _dtype(self) -> Any:
        import torch

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

    @abstractmethod
    def _error(self) -> type[CodecError]: ...


class Writer(Coder):
    """Encodes."""

    def __init__(self, sections: Mapping[str, int], *, portable: bool, device: str) -> None:
        from rdpbench.codecs.learned.library import compressai

        super().__init__(sections, Decisions() if portable else None, device)
        if small := [name for name, count in sections.items() if count < MIN_SYMBOLS]:
            raise CodecError(f"sections {small} hold fewer than {MIN_SYMBOLS} symbols, for which the coder has no room")
        self._encoders = {name: compressai.ans.BufferedRansEncoder() for name in sections}

    def finish(self) -> dict[str, bytes]:
        """The strings by section; with ``portable`` the doubtful cases as ``guard`` before them."""
        self._check_done()
        strings = {name: bytes(encoder.flush()) for name, encoder in self._encoders.items()}
        return strings if self._decisions is None else {"guard": self._decisions.listing(), **strings}

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        import torch

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

    def _error(self) -> type[CodecError]:
        return CodecError


class Reader(Coder):
    """Decodes."""

    def __init__(
        self, sections: Mapping[str, int], strings: Mapping[str, bytes], *, portable: bool, device: str
    ) -> None:
        from rdpbench.codecs.learned.library import compressai

        super().__init__(sections, Decisions(strings["guard"]) if portable else None, device)
        self._decoders = {}
        for name, count in sections.items():
            string = strings[name]
            if len(string) < 8 or len(string) % 4:
                raise BitstreamError(f"section {name!r} of {len(string)} bytes is no string of the range coder")
            self._decoders[name] = compressai.ans.RansDecoder()
            self._decoders[name].set_stream(string + bytes(OVERRUN * count + 16 * len(string)))

    def finish(self) -> None:
        """Check that the system read all there is.

        Raises:
            BitstreamError: doubtful cases are listed that never came.
        """
        self._check_done()
        if self._decisions is not None:
            self._decisions.check_used()

    def _symbols(self, section: str, tables: Tables, indexes: Tensor, values: Tensor | None) -> Tensor:
        import torch

        assert values is None, "the decoder's side of a system has no latents"
        self._take(section, indexes.numel())
        lists = (tables.rows, tables.sizes, tables.offsets)
        # Through NumPy: torch is five times slower with lists.
        decoded = np.array(self._decoders[section].decode_stream(indexes.reshape(-1).tolist(), *lists), np.int64)
        if (np.abs(decoded) > MAX_SYMBOL).any():
            raise BitstreamError(f"section {section!r} holds symbols beyond {MAX_SYMBOL}: damage, or other weights")
        return torch.from_numpy(decoded).to(self._device, self._dtype())

    def _error(self) -> type[CodecError]:
        return BitstreamError


def check_finite(values: Tensor, what: str, error: type[CodecError]) -> None:
    """Raise ``error`` if a value is infinite or no number."""
    import torch

    if not bool(torch.isfinite(values).all()):
        raise error(f"a {what} that decides a symbol is not finite: damage, or other weights")

"""The same decisions on every machine: double precision, a fixed grid, and a list of the doubtful cases.

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

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rdpbench.codecs.container import read_varint, varint
from rdpbench.errors import BitstreamError

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

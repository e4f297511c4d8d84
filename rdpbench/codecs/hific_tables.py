"""The tables that HiFiC's PyTorch port codes with, built in double precision.

A row reaches as far as all but 2^-8 of the probability; what lies beyond is escaped. The port's checkpoints hold no
tables: its coder builds them each time, in single precision. So they are always built here, too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from rdpbench.codecs.learned.tables import Tables, check, default_scales
from rdpbench.errors import CodecError

if TYPE_CHECKING:
    from torch import Tensor

TAIL = 2.0**-8
LEAST = 1e-9
"""Least probability of a hyperlatent inside its row."""
WIDEST = 1 << 12
"""No trained distribution of hyperlatents reaches so far."""


def scale_tables(likelihood: str) -> Tables:
    """Rows of the latents for the 64 scales of ``gaussian`` or ``logistic`` distributions.

    >>> len(scale_tables("gaussian").rows[-1])
    1481
    """
    scales = default_scales().double()
    below, reach = _DISTRIBUTIONS[likelihood]
    rows, offsets = [], []
    for scale in scales.tolist():
        centre = math.ceil(scale * reach)
        # Of 0, 1, 2, ... from the lower tail, where nothing cancels.
        half = [below((0.5 - away) / scale) - below((-0.5 - away) / scale) for away in range(centre + 1)]
        rows.append([*reversed(half[1:]), *half, 2 * below((-0.5 - centre) / scale)])
        offsets.append(-centre)
    return _tables(rows, offsets, edges=scales[:-1])


def density_tables(density: Any) -> Tables:
    """Rows of the hyperlatents, one for each channel of a `hific_network.Density`; symbols are around zero.

    Raises:
        CodecError: a distribution is wider than any trained one, or no distribution.
    """
    import torch

    exact = copy.deepcopy(density).double().cpu()
    channels = exact.H_0.shape[0]
    edge = math.log(2 / TAIL - 1)
    width = 32
    with torch.no_grad():
        while True:
            at = torch.arange(-width, width + 1, dtype=torch.float64).expand(channels, 1, -1)
            logits = exact(at)[:, 0]
            # They rise, so the number of places inside is the first place outside.
            down = (logits[:, : width + 1] > -edge).sum(1).tolist()
            up = (logits[:, width:] < edge).sum(1).tolist()
            if bool(torch.isfinite(logits).all()) and max(*down, *up) <= width:
                break
            width *= 2
            if width > WIDEST:
                raise CodecError("a distribution of hyperlatents is wider than any trained one: are these its weights?")
        pmf = _interval(exact(torch.cat([at - 0.5, at[..., -1:] + 0.5], 2))[:, 0])
    rows = []
    for number in range(channels):
        inside = pmf[number, width - down[number] : width + up[number] + 1].clamp(min=LEAST).tolist()
        rows.append([*inside, max(1 - math.fsum(inside), 0.0)])
    return _tables(rows, [-one for one in down], medians=torch.zeros(channels, dtype=torch.float64))


def _interval(logits: Tensor) -> Tensor:
    """Probabilities between neighbours, from whichever tail is nearer."""
    import torch

    lower, upper = logits[:, :-1], logits[:, 1:]
    sign = -torch.sign(lower + upper)
    return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()


def quantised(pmf: Sequence[float]) -> list[int]:
    """Cumulative counts of 65536 as the port makes them: the sums are rounded, then none of the counts may be 0.

    CompressAI's function rounds each probability for itself; in a row of 3197 symbols 3106 of the 65536 are then lost
    to the escape.

    >>> quantised([0.25, 0.75, 0.0])
    [0, 16383, 65535, 65536]
    """
    sums = np.cumsum(np.asarray(pmf, np.float64))
    counts = np.diff(np.rint(sums / sums[-1] * 65536), prepend=0).astype(np.int64)
    for place in np.flatnonzero(counts == 0):
        counts[np.where(counts > 1, counts, 1 << 17).argmin()] -= 1  # the rarest that can spare one
        counts[place] = 1
    return [0, *np.cumsum(counts).tolist()]


def _tables(
    pmfs: Sequence[Sequence[float]], offsets: list[int], edges: Tensor | None = None, medians: Tensor | None = None
) -> Tables:
    rows = [quantised(pmf) for pmf in pmfs]
    sizes = [len(row) for row in rows]
    table = np.zeros((len(rows), max(sizes)), np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    check(table, sizes, offsets)
    return Tables(rows, sizes, offsets, edges=edges, medians=medians)


def _gaussian(deviations: float) -> float:
    return math.erfc(-deviations / math.sqrt(2)) / 2


def _logistic(deviations: float) -> float:
    power = math.exp(-abs(deviations))
    return (1 if deviations > 0 else power) / (1 + power)


_DISTRIBUTIONS: dict[str, tuple[Callable[[float], float], float]] = {
    "gaussian": (_gaussian, -NormalDist().inv_cdf(TAIL / 2)),
    "logistic": (_logistic, math.log(2 / TAIL - 1)),
}
"""By name: what is below so many scales, and how many scales hold all but the tail."""

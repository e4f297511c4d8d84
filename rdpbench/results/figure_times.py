"""Honest times as points of curves, for tables of papers: ``encode-ms``, ``decode-ms``, ``total-ms``.

They are no metrics: a device and its load belong to them, and times of two devices are never joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rdpbench.results.schema import Row, Timing
from rdpbench.results.summary import PLACE, POINT
from rdpbench.setting import Setting

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("encode-ms", "decode-ms", "total-ms")
"""What panels call them. Total is the median of the sums, not the sum of the medians."""


def times(frame: pd.DataFrame, rows: Iterable[Row], timings: Iterable[Timing]) -> pd.DataFrame:
    """Medians over images of the medians of repeats, in milliseconds.

    Args:
        frame: points of a run (`rdpbench.results.summary.summarise`).
        rows: the rows that they are means of.
        timings: of these rows.

    Returns:
        Lines of the same columns, three for each point and device that was timed, and a column ``device``.

    >>> from rdpbench.results.summary import summarise
    >>> len(times(summarise((), (), ()), (), ()))
    0
    """
    import pandas as pd

    by_task = {row.task_key: row for row in rows if row.status == "ok"}
    found: dict[tuple[Any, ...], dict[str, list[Timing]]] = {}
    for one in timings:
        row = by_task.get(one.task_key)
        if row is not None:
            point = (row.dataset, row.manifest, row.protocol, row.codec, Setting.of(row))
            found.setdefault(point, {}).setdefault(one.device, []).append(one)
    lines = []
    for head in frame.drop_duplicates(POINT).to_dict("records"):
        point = (*(head[name] for name in (*PLACE, "codec")), Setting.of_line(head))
        for device, of in found.get(point, {}).items():
            lines += [{**head, **line, "device": device} for line in _lines(of)]
    return pd.DataFrame(lines, columns=[*frame.columns, "device"])


def _lines(of: Sequence[Timing]) -> list[dict[str, Any]]:
    import numpy as np

    seconds = (
        [one.encode_s for one in of],
        [one.decode_s for one in of],
        [one.encode_s + one.decode_s for one in of],
    )
    usual = {"value_lo": math.nan, "value_hi": math.nan, "n_scored": len(of), "infinite": 0, "images": ""}
    usual |= {"unit": "ms", "higher_is_better": False, "perceptual": False, "reliable": True}
    return [
        {**usual, "metric": name, "value": 1000 * float(np.median(values))}
        for name, values in zip(TIMES, seconds, strict=True)
    ]

"""What a codec was set to: with the codec and the dataset it makes one point, and here it is put into words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol


class _Row(Protocol):
    """What a row says of its setting, such as `rdpbench.results.schema.Row`."""

    @property
    def rate_field(self) -> str: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def target_bpp(self) -> float | None: ...


@dataclass(frozen=True)
class Setting:
    """A native value, a target that was searched for, or neither for a codec with a single point.

    >>> Setting("quality", 50.0).words, Setting("quality", target=0.25).words, Setting("").words
    ('quality 50', 'target 0.25 bpp', 'the only point')
    """

    field: str
    """Name of the native setting, such as ``quality``."""
    rate: float | None = None
    """Its value; None where a target was searched, since each image then has its own."""
    target: float | None = None
    """Bits per pixel."""

    @classmethod
    def of(cls, row: _Row) -> Setting:
        """The setting that a row was coded at.

        >>> from types import SimpleNamespace
        >>> Setting.of(SimpleNamespace(rate_field="quality", rate=37.0, target_bpp=0.25)).rate is None
        True
        """
        if row.target_bpp is not None:
            return cls(row.rate_field, None, row.target_bpp)
        return cls(row.rate_field, row.rate)

    @classmethod
    def of_line(cls, line: Any) -> Setting:
        """The setting of a line of a frame of points, where what is not there is NaN."""
        rate, target = (None if math.isnan(line[name]) else float(line[name]) for name in ("rate", "target_bpp"))
        return cls(str(line["rate_field"]), rate, target)

    @property
    def words(self) -> str:
        """As people call it."""
        if self.target is not None:
            return f"target {self.target:g} bpp"
        return "the only point" if self.rate is None else f"{self.field.replace('_', ' ')} {self.rate:.8g}"

    @property
    def order(self) -> tuple[float, float, str]:
        """Sorts the settings of a codec."""
        known = (-math.inf if value is None else value for value in (self.target, self.rate))
        return (*known, self.field)  # type: ignore[return-value]  # of two floats and a text

"""How far a run may be from its stored curve: ``conf/regress.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rdpbench.errors import ConfigError
from rdpbench.results.bd import METHODS


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from the stored one."""

    absolute: float
    relative: float

    def allows(self, stored: float, now: float) -> bool:
        """Is the difference within it?

        >>> Tolerance(0.01, 0).allows(30.0, 30.005), Tolerance(0, 0.001).allows(0.5, 0.501)
        (True, False)
        """
        if math.isnan(stored) or math.isnan(now):
            return math.isnan(stored) and math.isnan(now)
        return stored == now or abs(now - stored) <= self.absolute + self.relative * abs(stored)

    def __str__(self) -> str:
        parts = [f"{self.absolute:g}" if self.absolute else "", f"{100 * self.relative:g} %" if self.relative else ""]
        return " + ".join(filter(None, parts)) or "nothing"


Bound: TypeAlias = Tolerance | str
"""How far from zero a delta may be, or why there is none to compare."""


@dataclass(frozen=True)
class Bounds:
    """How far a whole curve may be from the stored one, by Bjøntegaard deltas."""

    method: str
    """Of interpolation, `rdpbench.results.bd.METHODS`."""
    rate: Mapping[str, Bound]
    """Of BD-rate, in percent: ``absolute`` alone."""
    metric: Mapping[str, Bound]
    """Of BD-metric, in the metric's unit; ``relative`` is to the mean of the stored values."""

    def of(self, metric: str) -> tuple[Bound, Bound]:
        """Those of a metric's BD-rate and BD-metric: its own, or the default.

        >>> half = Tolerance(0.5, 0)
        >>> Bounds("pchip", {"default": half, "cmmd": "it is flat"}, {"default": half}).of("cmmd")
        ('it is flat', Tolerance(absolute=0.5, relative=0))
        """
        rate, value = (one.get(metric, one["default"]) for one in (self.rate, self.metric))
        return rate, value


@dataclass(frozen=True)
class Tolerances:
    """``conf/regress.yaml``."""

    bpp: Tolerance
    metrics: Mapping[str, Tolerance]
    bd: Bounds

    def of(self, metric: str) -> Tolerance:
        """A metric's own, or the default."""
        return self.metrics.get(metric, self.metrics["default"])


def read_tolerances(path: Path) -> Tolerances:
    """Read ``conf/regress.yaml``.

    Raises:
        ConfigError: something in it is no tolerance.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "cpu_dependent" in raw:
            raise ValueError("cpu_dependent: nothing reads that; it is the codec's class's to say (depends_on_cpu)")
        _only(raw, "bpp", "metrics", "bd")
        metrics = {name: _tolerance(one) for name, one in raw["metrics"].items()}
        bd = _bounds(raw["bd"])
        found = Tolerances(_tolerance(raw["bpp"]), metrics, bd)
        found.of("")
        bd.of("")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {type(error).__name__}: {error}; it needs bpp, metrics with a default, bd with a method and "
            "with rate and metric, each with a default; a tolerance is "
            "{absolute: 0.01, relative: 0}, both 0 or more; in bd a sentence may stand in its place"
        ) from error
    return found


def _bounds(raw: Mapping[str, Any]) -> Bounds:
    _only(raw, "method", "rate", "metric")
    if raw["method"] not in METHODS:
        raise ValueError(f"{raw['method']} is none of {', '.join(METHODS)}")
    rate, metric = (
        {name: one if isinstance(one, str) and one else _tolerance(one) for name, one in raw[kind].items()}
        for kind in ("rate", "metric")
    )
    if odd := [name for name, one in rate.items() if isinstance(one, Tolerance) and one.relative]:
        raise ValueError(f"bd rate of {odd[0]}: it is in percent as it is, so relative must be 0")
    return Bounds(raw["method"], rate, metric)


def _only(raw: Mapping[str, Any], *keys: str) -> None:
    if odd := [key for key in raw if key not in keys]:
        raise ValueError(f"{odd[0]!r} is none of {', '.join(keys)}")


def _tolerance(raw: Mapping[str, Any]) -> Tolerance:
    _only(raw, "absolute", "relative")
    found = Tolerance(float(raw["absolute"]), float(raw["relative"]))
    if not (0 <= found.absolute < math.inf and 0 <= found.relative < math.inf):
        raise ValueError(f"{dict(raw)} is no tolerance")
    return found

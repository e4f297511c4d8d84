"""How far a run may be from its stored curve: ``conf/regress.yaml``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdpbench.errors import ConfigError


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


@dataclass(frozen=True)
class Tolerances:
    """``conf/regress.yaml``."""

    bpp: Tolerance
    metrics: Mapping[str, Tolerance]
    cpu_dependent: tuple[str, ...]

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
        metrics = {name: _tolerance(one) for name, one in raw["metrics"].items()}
        found = Tolerances(_tolerance(raw["bpp"]), metrics, tuple(raw["cpu_dependent"]))
        found.of("")
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: {type(error).__name__}: {error}; it needs bpp, metrics with a default, and cpu_dependent; "
            "a tolerance is {absolute: 0.01, relative: 0}, both 0 or more"
        ) from error
    return found


def _tolerance(raw: Mapping[str, Any]) -> Tolerance:
    found = Tolerance(float(raw["absolute"]), float(raw["relative"]))
    if not (0 <= found.absolute < math.inf and 0 <= found.relative < math.inf):
        raise ValueError(f"{dict(raw)} is no tolerance")
    return found
